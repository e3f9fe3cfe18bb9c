//! Strings: registers and counters seen as one.

use bytes::Bytes;

use super::{Command, DENYOOM, FAST, READ, WRITE, integer, keyed, multi, word};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::{Many, Plan, shape, unexpected};
use crate::api::resp::refusal::{self, Refusal, SYNTAX};
use crate::api::resp::session::Call;
use crate::data::op::{Condition, Key, Op, Reply, RequestError, SetExpiry};

pub const COMMANDS: &[Command] = &[
    keyed("get", 2, READ | FAST, "string", "Get the value of a key", get),
    keyed("set", -3, WRITE | DENYOOM, "string", "Set the value of a key", set),
    keyed("setnx", 3, WRITE | DENYOOM | FAST, "string", "Set the value of a key that is absent", setnx),
    keyed("setex", 4, WRITE | DENYOOM, "string", "Set a value and its expiry in seconds", setex),
    keyed("psetex", 4, WRITE | DENYOOM, "string", "Set a value and its expiry in milliseconds", setex),
    keyed("getset", 3, WRITE | DENYOOM | FAST, "string", "Set a value and return the old one", getset),
    keyed("getdel", 2, WRITE | FAST, "string", "Get a value and delete its key", getdel),
    keyed("getex", -2, WRITE | FAST, "string", "Get a value and set its expiry", getex),
    keyed("append", 3, WRITE | DENYOOM | FAST, "string", "Append to a value", append),
    keyed("strlen", 2, READ | FAST, "string", "Get the length of a value", strlen),
    keyed("getrange", 4, READ, "string", "Get a part of a value", getrange),
    keyed("substr", 4, READ, "string", "Get a part of a value", getrange),
    multi("mget", -2, READ | FAST, 1, "string", "Get the values of several keys", mget),
    multi("mset", -3, WRITE | DENYOOM, 2, "string", "Set several keys, each by itself", mset),
];

fn get(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::Get, shape::value))
}

/// The deadline, in milliseconds since 1970, that an expiry option and its number mean.
pub fn deadline(call: &Call<'_>, option: &str, number: &[u8]) -> Result<u64, Refusal> {
    let invalid = || refusal::invalid_expire(call.name);
    let number = integer(number)?;
    let seconds = matches!(option, "EX" | "EXAT");
    if number <= 0 {
        return Err(invalid());
    }
    let ms = if seconds { number.checked_mul(1_000).ok_or_else(invalid)? } else { number };
    if option.ends_with("AT") {
        return Ok(ms as u64);
    }
    let now = i64::try_from(call.facts.wall_ms()).unwrap_or(i64::MAX);
    now.checked_add(ms).map(|at| at as u64).ok_or_else(invalid)
}

fn set(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let (key, value) = (&call.arguments[1], &call.arguments[2]);
    let mut expiry = SetExpiry::Never;
    let mut condition = Condition::Always;
    let mut old = false;
    // Redis tells a syntax error further on before it looks at the number, so the number is judged last.
    let mut expiry_at: Option<usize> = None;
    let mut at = 3;
    while let Some(argument) = call.arguments.get(at) {
        let option = word(argument);
        match option.as_str() {
            "NX" if condition == Condition::Always => condition = Condition::Absent,
            "XX" if condition == Condition::Always => condition = Condition::Present,
            "NX" if condition == Condition::Absent => {}
            "XX" if condition == Condition::Present => {}
            "GET" => old = true,
            "KEEPTTL" if expiry_at.is_none() => expiry = SetExpiry::Keep,
            "EX" | "PX" | "EXAT" | "PXAT"
                if expiry_at.is_none() && expiry == SetExpiry::Never && at + 1 < call.arguments.len() =>
            {
                expiry_at = Some(at);
                at += 1;
            }
            _ => return Err(SYNTAX.into()),
        }
        at += 1;
    }
    if let Some(place) = expiry_at {
        expiry = SetExpiry::At(deadline(call, &word(&call.arguments[place]), &call.arguments[place + 1])?);
    }
    let op = Op::Set { value: value.clone(), expiry, condition, old };
    Ok(Plan::one(key, op, if old { shape::value } else { shape::ok_or_null }))
}

fn plain_set(value: &Bytes, expiry: SetExpiry, condition: Condition, old: bool) -> Op {
    Op::Set { value: value.clone(), expiry, condition, old }
}

fn setnx(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let op = plain_set(&call.arguments[2], SetExpiry::Never, Condition::Absent, false);
    Ok(Plan::one(&call.arguments[1], op, shape::integer))
}

fn setex(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let at = deadline(call, if call.name == "setex" { "EX" } else { "PX" }, &call.arguments[2])?;
    let op = plain_set(&call.arguments[3], SetExpiry::At(at), Condition::Always, false);
    Ok(Plan::one(&call.arguments[1], op, shape::ok_or_null))
}

fn getset(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let op = plain_set(&call.arguments[2], SetExpiry::Never, Condition::Always, true);
    Ok(Plan::one(&call.arguments[1], op, shape::value))
}

fn getdel(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::GetDelete, shape::value))
}

fn getex(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let at_ms = match call.arguments.get(2).map(|option| word(option)).as_deref() {
        None => return Ok(Plan::one(&call.arguments[1], Op::Get, shape::value)),
        Some("PERSIST") if call.arguments.len() == 3 => None,
        Some(option @ ("EX" | "PX" | "EXAT" | "PXAT")) if call.arguments.len() == 4 => {
            Some(deadline(call, option, &call.arguments[3])?)
        }
        Some(_) => return Err(SYNTAX.into()),
    };
    Ok(Plan::one(&call.arguments[1], Op::GetExpire { at_ms: Some(at_ms) }, shape::value))
}

fn append(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::Append { value: call.arguments[2].clone() }, shape::integer))
}

fn strlen(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::Get, |reply| match reply {
        Reply::Value(value) => Frame::Integer(value.map_or(0, |value| value.len() as i64)),
        other => unexpected(&other),
    }))
}

fn getrange(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let (start, end) = (integer(&call.arguments[2])?, integer(&call.arguments[3])?);
    Ok(Plan::one_with(&call.arguments[1], Op::Get, move |reply| match reply {
        Reply::Value(value) => Frame::Bulk(value.map_or_else(Bytes::new, |value| range(&value, start, end))),
        other => unexpected(&other),
    }))
}

/// Both ends counted in, from the end when negative.
fn range(value: &Bytes, start: i64, end: i64) -> Bytes {
    let length = value.len() as i64;
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end || length == 0 { Bytes::new() } else { value.slice(start as usize..=end as usize) }
}

/// A key of another kind is told as absent, as Redis does.
fn mget(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let parts = call.arguments[1..].iter().map(|key| (Key::new(key.clone()), Op::Get)).collect();
    Ok(Plan::Many(Box::new(Many {
        parts,
        later: Vec::new(),
        join: Box::new(|parts| {
            let mut values = Vec::with_capacity(parts.len());
            for part in parts {
                values.push(match part {
                    Ok(reply) => shape::value(reply),
                    Err(RequestError::WrongType) => Frame::Null,
                    Err(error) => return Plan::Now(refusal::frame(&error)),
                });
            }
            Plan::Now(Frame::Array(values))
        }),
    })))
}

/// Each key is set by itself: after an error some may be set.
fn mset(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let pairs = &call.arguments[1..];
    if !pairs.len().is_multiple_of(2) {
        return Err(refusal::wrong_arity("mset"));
    }
    // Of a key named twice the last value stands; the parts run at once, so it must be named once.
    let mut seen = std::collections::HashSet::new();
    let mut parts: Vec<(Key, Op)> = pairs
        .chunks_exact(2)
        .rev()
        .filter(|pair| seen.insert(pair[0].clone()))
        .map(|pair| (Key::new(pair[0].clone()), plain_set(&pair[1], SetExpiry::Never, Condition::Always, false)))
        .collect();
    parts.reverse();
    Ok(Plan::many(parts, |_| Frame::OK))
}
