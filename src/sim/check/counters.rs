//! Counters are exact under retries: what was acknowledged is in, once; what is unknown is in once or not at all; nothing else is.
//!
//! One limit is known and allowed for: when the only disk that could name an increment within its total was lost after the total had
//! reached others, a retry of that increment counts again.
//!
//! So is every read while things are under way: at whatever level, it is told nothing that was not asked for, and nothing twice unless its
//! receipt says that it may be. What it is told at least is checked where the levels meet.
//!
//! Of keys that are deleted too only the upper bound is checked, and that nothing is below zero: which increments a deletion saw is
//! not known from outside.

use std::collections::BTreeMap;

use super::super::history::{Call, End};
use super::super::world::World;
use super::Objects;
use crate::data::decimal::Decimal;
use crate::data::op::{Key, Op, Reply};

/// What the load adds or takes at once, at most.
const LARGEST: i64 = 9;

#[derive(Default)]
struct Bounds {
    low: i64,
    high: i64,
}

pub fn check(world: &World, objects: &Objects) -> Result<(), String> {
    let mut plain: BTreeMap<(Key, Option<bytes::Bytes>), Bounds> = BTreeMap::new();
    for kind in [b'c', b'i'] {
        for (_, call) in world.history.mutations(kind) {
            let (field, by) = match call.op() {
                Op::Increment { by, .. } => (None, by),
                Op::HashIncrement { field, by, .. } => (Some(field.clone()), by),
                _ => continue,
            };
            let by = by.to_integer().expect("the load counts in integers");
            let bounds = plain.entry((call.request.key.clone(), field)).or_default();
            let sure = call.end == End::Acked && !world.ghost.is_lost(call.op_id());
            // Named by nobody any more, and done again.
            let times = 1 + i64::from(world.ghost.may_be_nameless(call.op_id()));
            if sure || by < 0 && call.may_have_happened() {
                bounds.low += by * if by < 0 { times } else { 1 };
            }
            if sure || by > 0 && call.may_have_happened() {
                bounds.high += by * if by > 0 { times } else { 1 };
            }
        }
    }
    reads(world)?;
    for ((key, field), bounds) in plain {
        let value = value(world, objects, &key, field.as_deref())?;
        if value < bounds.low || value > bounds.high {
            return Err(format!(
                "{key:?} {field:?} is {value}, and must be from {} to {}; rows {:?}",
                bounds.low,
                bounds.high,
                objects.get(&key)
            ));
        }
    }
    let mut deleted: BTreeMap<Key, i64> = BTreeMap::new();
    for (_, call) in world.history.mutations(b'd') {
        if let Op::Increment { by, .. } = call.op()
            && call.may_have_happened()
        {
            let times = 1 + i64::from(world.ghost.may_be_nameless(call.op_id()));
            *deleted.entry(call.request.key.clone()).or_default() += by.to_integer().expect("integers") * times;
        }
    }
    for (key, high) in deleted {
        let value = value(world, objects, &key, None)?;
        if value < 0 || value > high {
            return Err(format!("{key:?} is {value}, and must be from 0 to {high}; rows {:?}", objects.get(&key)));
        }
    }
    Ok(())
}

/// What reads of counters that are never deleted were told.
fn reads(world: &World) -> Result<(), String> {
    let told = |call: &Call| -> Vec<(Option<bytes::Bytes>, bytes::Bytes)> {
        match &call.reply {
            Some(Reply::Value(value)) => value.iter().map(|value| (None, value.clone())).collect(),
            Some(Reply::Pairs(pairs) | Reply::PairPage { pairs, .. }) => {
                pairs.iter().map(|(field, value)| (Some(field.clone()), value.clone())).collect()
            }
            _ => Vec::new(),
        }
    };
    for (kind, read) in
        [b'c', b'i'].into_iter().flat_map(|kind| world.history.reads(kind).map(move |read| (kind, read)))
    {
        for (field, value) in told(read) {
            let sum = Decimal::parse(&value).and_then(|sum| sum.to_integer());
            let sum = sum.ok_or_else(|| format!("{read:?} was told {value:?}, which is no number"))?;
            let mut bounds = Bounds::default();
            for (_, call) in world.history.mutations(kind) {
                let by = match call.op() {
                    Op::Increment { by, .. } if field.is_none() => by,
                    Op::HashIncrement { field: of, by, .. } if field.as_ref() == Some(of) => by,
                    _ => continue,
                };
                if call.request.key != read.request.key || call.begun_us > read.ended_us || !call.may_have_happened() {
                    continue;
                }
                let by = by.to_integer().expect("the load counts in integers");
                let times = 1 + i64::from(world.ghost.may_be_nameless(call.op_id()));
                let sure = meets(world, read, call);
                if sure || by < 0 {
                    bounds.low += by * if by < 0 { times } else { 1 };
                }
                if sure || by > 0 {
                    bounds.high += by * if by > 0 { times } else { 1 };
                }
            }
            let doubted = read.receipt.as_ref().map_or(0, |receipt| i64::from(receipt.doubted)) * LARGEST;
            if sum < bounds.low - doubted || sum > bounds.high + doubted {
                return Err(format!(
                    "{:?} {field:?} was read as {sum}, and must have been from {} to {}: {read:?}",
                    read.request.key, bounds.low, bounds.high,
                ));
            }
        }
    }
    Ok(())
}

/// Has some owner that answered the read surely acknowledged the increment before?
fn meets(world: &World, read: &Call, add: &Call) -> bool {
    add.end == End::Acked
        && add.ended_us < read.begun_us
        && add.owner_acks() + read.owner_acks() > usize::from(world.plan.replicas)
        && world.ghost.is_single(add.op_id())
        && !world.ghost.forgot_between(add.begun_us, read.ended_us)
}

fn value(world: &World, objects: &Objects, key: &Key, field: Option<&[u8]>) -> Result<i64, String> {
    let Some(object) = objects.get(key) else { return Ok(0) };
    let sum = object.number(field, true, world.wall_ms(0)).map_err(|_| format!("{key:?} is no number"))?;
    Ok(sum.to_integer().expect("integer was asked for"))
}
