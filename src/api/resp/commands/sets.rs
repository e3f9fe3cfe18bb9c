//! Sets in which concurrent adds win.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::scan::page;
use super::{Command, DENYOOM, FAST, MOVABLE, READ, WRITE, distinct, integer, integer_or, is, keyed, multi};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::{Many, Part, Plan, shape, unexpected};
use crate::api::resp::refusal::{self, Refusal, SYNTAX};
use crate::api::resp::session::Call;
use crate::data::op::{Key, Op, Reply, RequestError};

/// Members that one `SRANDMEMBER` with repetition may ask for: each is one more copy.
const REPEATED_MAX: i64 = 1_000_000;

pub const COMMANDS: &[Command] = &[
    keyed("sadd", -3, WRITE | DENYOOM | FAST, "set", "Add members", sadd),
    keyed("srem", -3, WRITE | FAST, "set", "Remove members", srem),
    keyed("smembers", 2, READ, "set", "Get all members", smembers),
    keyed("sismember", 3, READ | FAST, "set", "Is this a member?", sismember),
    keyed("smismember", -3, READ | FAST, "set", "Which of these are members?", smismember),
    keyed("scard", 2, READ | FAST, "set", "Count the members", scard),
    keyed("spop", -2, WRITE | FAST, "set", "Remove and return random members", spop),
    keyed("srandmember", -2, READ, "set", "Get random members", srandmember),
    keyed("sscan", -3, READ, "set", "Walk the members", sscan),
    multi("sunion", -2, READ, 1, "set", "Members of any of the sets", combine),
    multi("sinter", -2, READ, 1, "set", "Members of all of the sets", combine),
    multi("sdiff", -2, READ, 1, "set", "Members of the first set alone", combine),
    multi("sunionstore", -3, WRITE | DENYOOM, 1, "set", "Keep the union of sets", store),
    multi("sinterstore", -3, WRITE | DENYOOM, 1, "set", "Keep the intersection of sets", store),
    multi("sdiffstore", -3, WRITE | DENYOOM, 1, "set", "Keep the difference of sets", store),
    Command {
        keys: (0, 0, 0),
        ..keyed("sintercard", -3, READ | MOVABLE, "set", "Count the intersection of sets", sintercard)
    },
];

fn sadd(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let members = distinct(&call.arguments[2..]);
    Ok(Plan::one(&call.arguments[1], Op::SetAdd { members }, shape::integer))
}

fn srem(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let members = distinct(&call.arguments[2..]);
    Ok(Plan::one(&call.arguments[1], Op::SetRemove { members }, shape::integer))
}

fn smembers(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::SetMembers, shape::set))
}

fn sismember(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let members = call.arguments[2..].to_vec();
    Ok(Plan::one(&call.arguments[1], Op::SetContains { members }, shape::first_bool))
}

fn smismember(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let members = call.arguments[2..].to_vec();
    Ok(Plan::one(&call.arguments[1], Op::SetContains { members }, shape::bools))
}

fn scard(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::SetLength, shape::integer))
}

fn spop(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let seed = call.facts.random_u64();
    let pick = |count| Op::SetPick { count, repeat: false, remove: true, seed };
    match call.arguments {
        [_, key] => Ok(Plan::one(key, pick(1), shape::first)),
        [_, key, count] => {
            let count = integer_or(count, "ERR value is out of range, must be positive")?;
            if count < 0 {
                return Err("ERR value is out of range, must be positive".into());
            }
            if count == 0 {
                // Nothing is to be removed, but a key of another kind is still an error.
                return Ok(Plan::one(key, Op::SetPage { from: 0, limit: 1 }, |_| Frame::Set(Vec::new())));
            }
            Ok(Plan::one(key, pick(u32::try_from(count).unwrap_or(u32::MAX)), shape::set))
        }
        _ => Err(SYNTAX.into()),
    }
}

fn srandmember(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let seed = call.facts.random_u64();
    let pick = |count, repeat| Op::SetPick { count, repeat, remove: false, seed };
    match call.arguments {
        [_, key] => Ok(Plan::one(key, pick(1, false), shape::first)),
        [_, key, count] => {
            let count = integer(count)?;
            if count < -REPEATED_MAX {
                return Err("ERR value is out of range".into());
            }
            if count == 0 {
                return Ok(Plan::one(key, Op::SetPage { from: 0, limit: 1 }, |_| Frame::Array(Vec::new())));
            }
            let wanted = u32::try_from(count.unsigned_abs()).unwrap_or(u32::MAX);
            Ok(Plan::one(key, pick(wanted, count < 0), shape::array))
        }
        _ => Err(SYNTAX.into()),
    }
}

fn sscan(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let asked = super::scan::Asked::parse(call, 2)?;
    let op = Op::SetPage { from: asked.cursor, limit: asked.count };
    Ok(Plan::one_with(&call.arguments[1], op, move |reply| match reply {
        Reply::MemberPage { members, next } => {
            let (cursor, page) = page(members, |member| member, next, &asked);
            Frame::Array(vec![cursor, Frame::Array(Frame::bulks(page))])
        }
        other => unexpected(&other),
    }))
}

/// How several sets become one.
fn combined(name: &str, sets: Vec<Reply>) -> Result<Vec<Bytes>, Frame> {
    let mut members = Vec::with_capacity(sets.len());
    for reply in sets {
        match reply {
            Reply::Members(set) => members.push(set),
            other => return Err(unexpected(&other)),
        }
    }
    let mut sets = members.into_iter();
    let mut result: BTreeSet<Bytes> = sets.next().unwrap_or_default().into_iter().collect();
    for set in sets {
        if name.starts_with("sunion") {
            result.extend(set);
        } else if name.starts_with("sinter") {
            let other: BTreeSet<Bytes> = set.into_iter().collect();
            result.retain(|member| other.contains(member));
        } else {
            set.iter().for_each(|member| {
                result.remove(member);
            });
        }
    }
    Ok(result.into_iter().collect())
}

fn combine(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let name = call.name;
    Ok(Plan::each(
        &call.arguments[1..],
        |_| Op::SetMembers,
        move |sets| match combined(name, sets) {
            Ok(members) => Frame::Set(Frame::bulks(members)),
            Err(frame) => frame,
        },
    ))
}

fn sintercard(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let count = integer_or(&call.arguments[1], "ERR numkeys should be greater than 0")?;
    if count <= 0 {
        return Err("ERR numkeys should be greater than 0".into());
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > call.arguments.len() - 2 {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    let limit = match &call.arguments[2 + count..] {
        [] => 0,
        [option, limit] if is(option, "LIMIT") => integer_or(limit, "ERR LIMIT can't be negative")?,
        _ => return Err(SYNTAX.into()),
    };
    if limit < 0 {
        return Err("ERR LIMIT can't be negative".into());
    }
    Ok(Plan::each(
        &call.arguments[2..2 + count],
        |_| Op::SetMembers,
        move |sets| match combined("sinter", sets) {
            Ok(members) => {
                let length = members.len() as i64;
                Frame::Integer(if limit == 0 { length } else { length.min(limit) })
            }
            Err(frame) => frame,
        },
    ))
}

/// Gathers, then replaces the destination: what it held as seen is removed and the result added. Not one step: a reader may see it
/// between.
fn store(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let name = call.name;
    let destination = call.arguments[1].clone();
    Ok(Plan::Many(Box::new(Many {
        parts: call.arguments[2..].iter().map(|key| (Key::new(key.clone()), Op::SetMembers)).collect(),
        later: vec![destination.clone()],
        join: Box::new(move |parts| {
            let members = match parts.into_iter().collect::<Result<Vec<Reply>, RequestError>>() {
                Ok(sets) => match combined(name, sets) {
                    Ok(members) => members,
                    Err(frame) => return Plan::Now(frame),
                },
                Err(error) => return Plan::Now(refusal::frame(&error)),
            };
            Plan::Many(Box::new(Many {
                parts: vec![(Key::new(destination.clone()), Op::Delete)],
                later: Vec::new(),
                join: Box::new(move |parts: Vec<Part>| match parts.into_iter().next() {
                    Some(Err(error)) => Plan::Now(refusal::frame(&error)),
                    _ if members.is_empty() => Plan::Now(Frame::Integer(0)),
                    _ => {
                        let count = members.len() as i64;
                        Plan::one_with(&destination, Op::SetAdd { members }, move |_| Frame::Integer(count))
                    }
                }),
            }))
        }),
    })))
}
