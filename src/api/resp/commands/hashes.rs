//! Hashes: each field a register and a counter seen as one.

use bytes::Bytes;

use super::scan::{Asked, page};
use super::{Command, DENYOOM, FAST, READ, WRITE, decimal, distinct, integer, is, keyed};
use crate::api::resp::frame::{Frame, Version};
use crate::api::resp::plan::{Plan, shape, unexpected};
use crate::api::resp::refusal::{self, INFINITE, Refusal, SYNTAX};
use crate::api::resp::session::Call;
use crate::data::decimal::Decimal;
use crate::data::id::mix64;
use crate::data::op::{Op, Reply};

/// Fields that one `HRANDFIELD` with repetition may ask for.
const REPEATED_MAX: i64 = 1_000_000;

pub const COMMANDS: &[Command] = &[
    keyed("hset", -4, WRITE | DENYOOM | FAST, "hash", "Set fields", hset),
    keyed("hmset", -4, WRITE | DENYOOM | FAST, "hash", "Set fields", hset),
    keyed("hsetnx", 4, WRITE | DENYOOM | FAST, "hash", "Set a field that is absent", hsetnx),
    keyed("hget", 3, READ | FAST, "hash", "Get a field", hget),
    keyed("hmget", -3, READ | FAST, "hash", "Get fields", hmget),
    keyed("hgetall", 2, READ, "hash", "Get all fields and values", hgetall),
    keyed("hdel", -3, WRITE | FAST, "hash", "Remove fields", hdel),
    keyed("hexists", 3, READ | FAST, "hash", "Is this field there?", hexists),
    keyed("hlen", 2, READ | FAST, "hash", "Count the fields", hlen),
    keyed("hkeys", 2, READ, "hash", "Get all fields", hkeys),
    keyed("hvals", 2, READ, "hash", "Get all values", hvals),
    keyed("hstrlen", 3, READ | FAST, "hash", "Get the length of a field's value", hstrlen),
    keyed("hincrby", 4, WRITE | DENYOOM | FAST, "hash", "Add a number to a field", hincrby),
    keyed("hincrbyfloat", 4, WRITE | DENYOOM | FAST, "hash", "Add a decimal number to a field", hincrbyfloat),
    keyed("hscan", -3, READ, "hash", "Walk the fields", hscan),
    keyed("hrandfield", -2, READ, "hash", "Get random fields", hrandfield),
];

fn hset(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let pairs = &call.arguments[2..];
    if !pairs.len().is_multiple_of(2) {
        return Err(refusal::wrong_arity(call.name));
    }
    // Of a field named twice the last value stands.
    let mut seen = std::collections::HashSet::new();
    let mut fields: Vec<(Bytes, Bytes)> = pairs
        .chunks_exact(2)
        .rev()
        .filter(|pair| pairs.len() == 2 || seen.insert(pair[0].clone()))
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect();
    fields.reverse();
    let op = Op::HashSet { fields, absent_only: false };
    let shape: fn(Reply) -> Frame = if call.name == "hmset" { |_| Frame::OK } else { shape::integer };
    Ok(Plan::one(&call.arguments[1], op, shape))
}

fn hsetnx(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let fields = vec![(call.arguments[2].clone(), call.arguments[3].clone())];
    Ok(Plan::one(&call.arguments[1], Op::HashSet { fields, absent_only: true }, shape::integer))
}

fn fields(call: &Call<'_>) -> Op {
    Op::HashGet { fields: call.arguments[2..].to_vec() }
}

fn hget(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], fields(call), shape::first_value))
}

fn hmget(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], fields(call), shape::values))
}

fn hgetall(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::HashAll, shape::pairs))
}

fn hdel(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let fields = distinct(&call.arguments[2..]);
    Ok(Plan::one(&call.arguments[1], Op::HashRemove { fields }, shape::integer))
}

fn hexists(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], fields(call), |reply| match reply {
        Reply::Values(values) => Frame::Integer(i64::from(values.iter().any(Option::is_some))),
        other => unexpected(&other),
    }))
}

fn hlen(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::HashLength, shape::integer))
}

fn hkeys(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::HashAll, |reply| match reply {
        Reply::Pairs(pairs) => Frame::Array(Frame::bulks(pairs.into_iter().map(|(field, _)| field))),
        other => unexpected(&other),
    }))
}

fn hvals(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::HashAll, |reply| match reply {
        Reply::Pairs(pairs) => Frame::Array(Frame::bulks(pairs.into_iter().map(|(_, value)| value))),
        other => unexpected(&other),
    }))
}

fn hstrlen(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], fields(call), |reply| match reply {
        Reply::Values(values) => {
            Frame::Integer(values.into_iter().next().flatten().map_or(0, |value| value.len() as i64))
        }
        other => unexpected(&other),
    }))
}

fn hincrby(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let by = Decimal::from_integer(integer(&call.arguments[3])?);
    let op = Op::HashIncrement { field: call.arguments[2].clone(), by, integer: true };
    Ok(Plan::one(&call.arguments[1], op, shape::integer))
}

fn hincrbyfloat(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let by = decimal(&call.arguments[3], INFINITE)?;
    let op = Op::HashIncrement { field: call.arguments[2].clone(), by, integer: false };
    Ok(Plan::one(&call.arguments[1], op, shape::decimal))
}

fn hscan(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let asked = Asked::parse(call, 2)?;
    let op = Op::HashPage { from: asked.cursor, limit: asked.count };
    Ok(Plan::one_with(&call.arguments[1], op, move |reply| match reply {
        Reply::PairPage { pairs, next } => {
            let (cursor, page) = page(pairs, |(field, _)| field, next, &asked);
            let values = !asked.without_values;
            let page = page.into_iter().flat_map(|(field, value)| [Some(field), values.then_some(value)]);
            Frame::Array(vec![cursor, Frame::Array(Frame::bulks(page.flatten()))])
        }
        other => unexpected(&other),
    }))
}

fn hrandfield(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let seed = call.facts.random_u64();
    let (count, with_values) = match call.arguments {
        [_, _] => (None, false),
        [_, _, count] => (Some(integer(count)?), false),
        [_, _, count, option] if is(option, "WITHVALUES") => (Some(integer(count)?), true),
        _ => return Err(SYNTAX.into()),
    };
    if count.is_some_and(|count| count < -REPEATED_MAX) {
        return Err("ERR value is out of range".into());
    }
    let nested = call.session.version == Version::Three;
    Ok(Plan::one_with(&call.arguments[1], Op::HashAll, move |reply| {
        let Reply::Pairs(pairs) = reply else { return unexpected(&reply) };
        let Some(count) = count else {
            let picked = pick(pairs, 1, seed).into_iter().next();
            return Frame::bulk(picked.map(|(field, _)| field));
        };
        let told = pick(pairs, count, seed).into_iter().flat_map(|(field, value)| match (with_values, nested) {
            (false, _) => vec![Frame::Bulk(field)],
            (true, false) => vec![Frame::Bulk(field), Frame::Bulk(value)],
            (true, true) => vec![Frame::Array(vec![Frame::Bulk(field), Frame::Bulk(value)])],
        });
        Frame::Array(told.collect())
    }))
}

/// `count` pairs, distinct, or with repetition when negative.
fn pick(mut pairs: Vec<(Bytes, Bytes)>, count: i64, seed: u64) -> Vec<(Bytes, Bytes)> {
    if pairs.is_empty() {
        return pairs;
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let random = |at: usize, below: usize| (mix64(seed.wrapping_add(at as u64 + 1)) % below as u64) as usize;
    if count < 0 {
        return (0..wanted).map(|at| pairs[random(at, pairs.len())].clone()).collect();
    }
    let wanted = wanted.min(pairs.len());
    for at in 0..wanted {
        let other = at + random(at, pairs.len() - at);
        pairs.swap(at, other);
    }
    pairs.truncate(wanted);
    pairs
}
