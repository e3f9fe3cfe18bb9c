//! Whole keys: deletion, existence, kind, expiry.

use super::{Command, FAST, READ, WRITE, distinct, integer, keyed, multi, plain, subcommand_arity, word};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::{Many, Plan, shape, unexpected};
use crate::api::resp::refusal::{self, Refusal};
use crate::api::resp::session::Call;
use crate::data::op::{DeadlineCondition, Key, Kind, Op, Reply};

pub const COMMANDS: &[Command] = &[
    multi("del", -2, WRITE, 1, "generic", "Delete keys, each by itself", del),
    multi("unlink", -2, WRITE | FAST, 1, "generic", "Delete keys, each by itself", del),
    multi("exists", -2, READ | FAST, 1, "generic", "How many of these keys are there?", exists),
    multi("touch", -2, READ | FAST, 1, "generic", "How many of these keys are there?", exists),
    keyed("type", 2, READ | FAST, "generic", "What does a key hold?", kind),
    keyed("expire", -3, WRITE | FAST, "generic", "Set a key's expiry in seconds", expire),
    keyed("pexpire", -3, WRITE | FAST, "generic", "Set a key's expiry in milliseconds", expire),
    keyed("expireat", -3, WRITE | FAST, "generic", "Set a key's expiry to a Unix time in seconds", expire),
    keyed("pexpireat", -3, WRITE | FAST, "generic", "Set a key's expiry to a Unix time in milliseconds", expire),
    keyed("persist", 2, WRITE | FAST, "generic", "Take a key's expiry away", persist),
    keyed("ttl", 2, READ | FAST, "generic", "Seconds until a key expires", ttl),
    keyed("pttl", 2, READ | FAST, "generic", "Milliseconds until a key expires", ttl),
    keyed("expiretime", 2, READ | FAST, "generic", "When a key expires, in seconds", ttl),
    keyed("pexpiretime", 2, READ | FAST, "generic", "When a key expires, in milliseconds", ttl),
    Command { keys: (2, 2, 1), ..plain("object", -2, READ, "generic", "How a key is kept", object) },
];

/// A name for each kind, as `TYPE` tells it and `SCAN TYPE` asks for it.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Set => "set",
        Kind::Hash => "hash",
        Kind::Siblings => "siblings",
        Kind::Flag => "flag",
    }
}

fn total(replies: Vec<Reply>) -> Frame {
    Frame::Integer(replies.iter().filter(|reply| matches!(reply, Reply::Bool(true))).count() as i64)
}

fn del(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    // A key named twice is deleted and counted once.
    match distinct(&call.arguments[1..]).as_slice() {
        [key] => Ok(Plan::one(key, Op::Delete, shape::integer)),
        keys => Ok(Plan::each(keys, |_| Op::Delete, total)),
    }
}

fn exists(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    match &call.arguments[1..] {
        [key] => Ok(Plan::one(key, Op::Exists, shape::integer)),
        keys => Ok(Plan::each(keys, |_| Op::Exists, total)),
    }
}

fn kind(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::Kind, |reply| match reply {
        Reply::Kind(kind) => Frame::Simple(kind.map_or("none", kind_name)),
        other => unexpected(&other),
    }))
}

/// What the options of `EXPIRE` ask of the deadline already there.
struct Wanted {
    condition: DeadlineCondition,
    /// Both `XX` and `LT`: less than a deadline that must be there.
    less_and_present: bool,
}

fn wanted(call: &Call<'_>) -> Result<Wanted, Refusal> {
    let (mut none, mut some, mut greater, mut less) = (false, false, false, false);
    for option in &call.arguments[3..] {
        match word(option).as_str() {
            "NX" => none = true,
            "XX" => some = true,
            "GT" => greater = true,
            "LT" => less = true,
            _ => return Err(format!("ERR Unsupported option {}", String::from_utf8_lossy(option)).into()),
        }
    }
    if none && (some || greater || less) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if greater && less {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    let condition = match (none, some, greater, less) {
        (true, ..) => DeadlineCondition::None,
        // Never is later than any deadline: GT holds only where there is one already.
        (_, _, true, _) => DeadlineCondition::Greater,
        (_, _, _, true) => DeadlineCondition::Less,
        (_, true, ..) => DeadlineCondition::Some,
        _ => DeadlineCondition::Always,
    };
    Ok(Wanted { condition, less_and_present: some && less })
}

fn expire(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let wanted = wanted(call)?;
    let number = integer(&call.arguments[2])?;
    let invalid = || refusal::invalid_expire(call.name);
    let mut ms = number;
    if !call.name.starts_with('p') {
        ms = number.checked_mul(1_000).ok_or_else(invalid)?;
    }
    if !call.name.ends_with("at") {
        ms = ms.checked_add(i64::try_from(call.facts.wall_ms()).unwrap_or(i64::MAX)).ok_or_else(invalid)?;
    }
    let at = ms.max(0) as u64;
    let op = Op::SetDeadline { at_ms: Some(at), condition: wanted.condition };
    let key = &call.arguments[1];
    if !wanted.less_and_present {
        return Ok(Plan::one(key, op, shape::integer));
    }
    let key = key.clone();
    Ok(Plan::Many(Box::new(Many {
        parts: vec![(Key::new(key.clone()), Op::Deadline)],
        later: vec![key.clone()],
        join: Box::new(move |parts| match parts.into_iter().next() {
            Some(Ok(Reply::Deadline(Some(Some(_))))) => Plan::one(&key, op, shape::integer),
            Some(Err(error)) => Plan::Now(refusal::frame(&error)),
            _ => Plan::Now(Frame::Integer(0)),
        }),
    })))
}

fn persist(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let op = Op::SetDeadline { at_ms: None, condition: DeadlineCondition::Some };
    Ok(Plan::one(&call.arguments[1], op, shape::integer))
}

fn ttl(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let absolute = call.name.ends_with("expiretime");
    let seconds = !call.name.starts_with('p');
    let now = if absolute { 0 } else { call.facts.wall_ms() };
    Ok(Plan::one_with(&call.arguments[1], Op::Deadline, move |reply| {
        Frame::Integer(match reply {
            Reply::Deadline(None) => -2,
            Reply::Deadline(Some(None)) => -1,
            Reply::Deadline(Some(Some(at))) => {
                let left = i64::try_from(at.saturating_sub(now)).unwrap_or(i64::MAX);
                if seconds { left.saturating_add(500) / 1_000 } else { left }
            }
            other => return unexpected(&other),
        })
    }))
}

fn object(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    match word(&call.arguments[1]).as_str() {
        "ENCODING" => {
            subcommand_arity(call, 3..=3)?;
            Ok(Plan::one(&call.arguments[2], Op::Kind, |reply| match reply {
                Reply::Kind(None) => Frame::Null,
                Reply::Kind(Some(Kind::String)) => Frame::text("raw"),
                Reply::Kind(Some(Kind::Set | Kind::Hash)) => Frame::text("hashtable"),
                Reply::Kind(Some(other)) => Frame::text(kind_name(other)),
                other => unexpected(&other),
            }))
        }
        "REFCOUNT" => {
            subcommand_arity(call, 3..=3)?;
            Ok(Plan::one(&call.arguments[2], Op::Exists, |reply| match reply {
                Reply::Bool(true) => Frame::Integer(1),
                _ => Frame::Null,
            }))
        }
        "FREQ" | "IDLETIME" => {
            Err("ERR OBJECT FREQ and IDLETIME are not supported: nothing is evicted, so access is not tracked".into())
        }
        "HELP" => Ok(Plan::Now(Frame::Array(
            ["OBJECT <subcommand> <key>:", "ENCODING <key>", "    How the key is kept.", "REFCOUNT <key>", "    1."]
                .into_iter()
                .map(Frame::Simple)
                .collect(),
        ))),
        _ => Err(super::unknown_subcommand(call)),
    }
}
