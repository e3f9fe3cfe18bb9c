//! What clients want: operations of every type on few keys.
//!
//! A key's first letter says what is done to it, and so which checker judges it: `c` a counter that is never deleted, `d` one that
//! is, `s` a set, `r` a register, `m` siblings, `h` a map of registers, `i` a map of counters, `f` a flag, `x` anything at all with
//! expiry (only convergence is judged).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::random::Random;
use crate::data::consistency::{Consistency, Level};
use crate::data::decimal::Decimal;
use crate::data::op::{Condition, DeadlineCondition, Key, Op, Reply, SetExpiry};
use crate::data::path::PLACES;

pub const KINDS: &[u8] = b"cdsrmhifx";

/// What a client has read of siblings: the context it was given and the values.
pub type SiblingsRead = BTreeMap<Key, (Bytes, Vec<Bytes>)>;

pub fn consistency(random: &mut Random, replicas: u8) -> Consistency {
    let usual = Consistency::default();
    let strict = Consistency { owners_only: true, ..usual };
    match random.below(20) {
        0 | 1 => Consistency::ONE,
        2 => Consistency { write: Level::Any, read: Level::Count(1), ..usual },
        3 => Consistency { write: Level::All, ..usual },
        4 => Consistency { read: Level::All, ..usual },
        5 => Consistency { durable: Some(Level::Quorum), ..usual },
        6 => Consistency { durable: Some(Level::Count(1)), ..strict },
        7 => Consistency { write: Level::Count(replicas.min(2)), read: Level::Count(1), ..usual },
        8..=13 => strict,
        _ => usual,
    }
}

/// A key of one of these kinds, and what to do with it. `number` makes written values unique.
pub fn draw(
    random: &mut Random,
    kinds: &[u8],
    keys: u64,
    number: usize,
    wall_ms: u64,
    read: &SiblingsRead,
) -> (Key, Op, Vec<Bytes>) {
    let kind = *random.pick(kinds);
    let key = Key::new(format!("{}{}", kind as char, random.skewed(keys)));
    let value = || Bytes::from(format!("v{number}"));
    let member = |random: &mut Random| Bytes::from(format!("m{}", random.below(4)));
    let members = |random: &mut Random| (0..random.between(1, 2)).map(|_| member(random)).collect::<Vec<_>>();
    let by = |random: &mut Random| Decimal::from_integer(random.between(1, 9) as i64);
    let from = |random: &mut Random| if random.chance(500_000) { random.below(PLACES) } else { 0 };
    let mut context_values = Vec::new();
    let op = match kind {
        b'c' => match random.below(8) {
            0 | 1 => Op::Get,
            2 => Op::Increment { by: by(random).negated(), integer: true },
            _ => Op::Increment { by: by(random), integer: true },
        },
        b'd' => match random.below(8) {
            0 => Op::Get,
            1 | 2 => Op::Delete,
            _ => Op::Increment { by: by(random), integer: true },
        },
        b's' => match random.below(11) {
            0 => Op::SetMembers,
            10 => Op::SetPage { from: from(random), limit: random.between(1, 3) as u32 },
            1 => Op::SetContains { members: members(random) },
            2 => Op::SetLength,
            3..=5 => Op::SetRemove { members: members(random) },
            _ => Op::SetAdd { members: members(random) },
        },
        b'r' => match random.below(10) {
            0..=2 => Op::Get,
            3 => Op::Delete,
            4 => Op::GetDelete,
            _ => Op::Set {
                value: value(),
                expiry: SetExpiry::Never,
                condition: Condition::Always,
                old: random.chance(100_000),
            },
        },
        b'm' => match random.below(10) {
            0..=3 => Op::SiblingsGet,
            _ => {
                let context = match read.get(&key) {
                    Some((context, values)) if random.chance(700_000) => {
                        context_values = values.clone();
                        Some(context.clone())
                    }
                    _ => None,
                };
                Op::SiblingsPut { value: value(), context }
            }
        },
        b'h' => match random.below(10) {
            0 => Op::HashAll,
            1 => Op::HashGet { fields: members(random) },
            2..=4 => Op::HashRemove { fields: members(random) },
            _ => Op::HashSet { fields: vec![(member(random), value())], absent_only: false },
        },
        b'i' => match random.below(7) {
            0 => Op::HashAll,
            1 => Op::HashPage { from: from(random), limit: random.between(1, 3) as u32 },
            _ => Op::HashIncrement { field: member(random), by: by(random), integer: true },
        },
        b'f' => match random.below(5) {
            0 => Op::FlagGet,
            _ => Op::FlagSet { on: random.chance(500_000) },
        },
        _ => {
            let (members, by) = (members(random), by(random));
            anything(random, wall_ms, value(), members, by, read.get(&key).map(|read| read.0.clone()))
        }
    };
    (key, op, context_values)
}

fn anything(
    random: &mut Random,
    wall_ms: u64,
    value: Bytes,
    members: Vec<Bytes>,
    by: Decimal,
    context: Option<Bytes>,
) -> Op {
    let soon = wall_ms + random.between(0, 5_000);
    let conditions = [Condition::Always, Condition::Absent, Condition::Present];
    let deadlines = [
        DeadlineCondition::Always,
        DeadlineCondition::None,
        DeadlineCondition::Some,
        DeadlineCondition::Greater,
        DeadlineCondition::Less,
    ];
    match random.below(24) {
        0 => Op::Kind,
        1 => Op::Exists,
        2 => Op::Deadline,
        3 => Op::SetDeadline { at_ms: random.chance(700_000).then_some(soon), condition: *random.pick(&deadlines) },
        4 | 5 => Op::Delete,
        6..=8 => {
            let expiry = match random.below(3) {
                0 => SetExpiry::Never,
                1 => SetExpiry::Keep,
                _ => SetExpiry::At(soon),
            };
            Op::Set {
                value: by.to_string().into(),
                expiry,
                condition: *random.pick(&conditions),
                old: random.chance(200_000),
            }
        }
        9 => Op::GetDelete,
        10 => Op::GetExpire { at_ms: random.chance(700_000).then_some(random.chance(500_000).then_some(soon)) },
        11 => Op::Append { value: Bytes::from_static(b"1") },
        12 | 13 => Op::Increment { by, integer: random.chance(500_000) },
        14 | 15 => Op::SetAdd { members },
        16 => Op::SetRemove { members },
        17 => Op::SetPick { count: 1, repeat: false, remove: random.chance(500_000), seed: random.draw() },
        18 | 19 => Op::HashSet {
            fields: members.into_iter().map(|field| (field, by.to_string().into())).collect(),
            absent_only: random.chance(300_000),
        },
        20 => Op::HashRemove { fields: members },
        21 => Op::HashIncrement { field: members.into_iter().next().expect("at least one"), by, integer: false },
        22 => Op::SiblingsPut { value, context },
        _ => Op::FlagSet { on: random.chance(500_000) },
    }
}

/// Remembers what a client was told of siblings.
pub fn remember(read: &mut SiblingsRead, key: &Key, reply: &Reply) {
    if let Reply::Siblings { values, context } = reply {
        read.insert(key.clone(), (context.clone(), values.clone()));
    }
}
