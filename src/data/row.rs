//! Rows, and the one law by which they merge: *keep a dot iff both store it, or the one that lacks it has not seen it.*
//!
//! 1. Every entry of a row carries the dot of the mutation that put it there. One dot puts at most one entry that can be removed
//!    by name, so to remove a dot is to remove one entry.
//! 2. A register keeps, of the entries that survive the law, the one with the highest stamp. A field keeps them all and shows that
//!    one: a field's entries are removed by name, and what a higher stamp had hidden at one replica, but not at another that never saw
//!    it, must still be there at both when the hiding one is removed.
//! 3. A tally is one incarnation's running total and is written by that incarnation alone, so the later one contains the earlier;
//!    what was removed is a floor under it (two counters that only grow: `crdt.md` section 1, "resettable counter", exact).
//!
//! Representations are canonical: equal states are equal bytes, whatever order they were made in.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::Stamp;
use super::context::Context;
use super::decimal::Decimal;
use super::id::Dot;
use super::path::Path;

/// A stretch of a key's existence that expires as one. 0 is the life of keys that never had a deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default)]
pub struct Life(pub u64);

/// The last write of a register, or of a map field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    pub dot: Dot,
    pub stamp: Stamp,
    pub life: Life,
    /// The deadline that this life was born with; life 0 was born without.
    pub deadline_ms: Option<u64>,
    /// `None`: a stamped empty write, which is how a register is deleted.
    pub payload: Option<Bytes>,
    /// What it removed of this row by name. A row thus tells the whole of every mutation that put something into it.
    pub removes: Vec<Dot>,
}

/// A set member's or a flag's reason to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Birth {
    pub dot: Dot,
    pub life: Life,
    /// As in [`Register`].
    pub removes: Vec<Dot>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sibling {
    pub dot: Dot,
    pub life: Life,
    pub payload: Bytes,
}

/// What one incarnation has counted since its counter stood at `run`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tally {
    pub dot: Dot,
    pub run: u64,
    pub total: Decimal,
}

/// What of a tally has been removed: everything up to its `upto`-th mutation, which came to `total`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Floor {
    pub dot: Dot,
    pub upto: u64,
    pub total: Decimal,
}

/// An increment that may have been sent before. It stands under its operation id, so equal ones are one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retried {
    /// Every coordinator's dot for it, sorted.
    pub dots: Vec<Dot>,
    pub amount: Decimal,
    /// Tallies that it was added to as well, each by the dot with which that was done: sorted, mostly none.
    pub tallies: Vec<Dot>,
    pub removed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deadline {
    pub dot: Dot,
    pub stamp: Stamp,
    /// `None`: persists.
    pub at_ms: Option<u64>,
}

/// One stored row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Row {
    Register(Register),
    /// A map field's writes that nobody has superseded. Sorted by dot, never empty.
    Field(Vec<Register>),
    /// Sorted by dot, never empty.
    Births(Vec<Birth>),
    Sibling(Sibling),
    /// At least one of the two.
    Counter {
        tally: Option<Tally>,
        floor: Option<Floor>,
    },
    Retried(Retried),
    Deadline(Deadline),
}

/// What a mutation puts into a row. The mutation's dot is the entry's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Put {
    Register {
        stamp: Stamp,
        life: Life,
        deadline_ms: Option<u64>,
        payload: Option<Bytes>,
    },
    Field {
        stamp: Stamp,
        life: Life,
        payload: Bytes,
    },
    Birth {
        life: Life,
    },
    Sibling {
        life: Life,
        payload: Bytes,
    },
    Tally {
        run: u64,
        total: Decimal,
    },
    Floor {
        upto: u64,
        total: Decimal,
    },
    Retried {
        amount: Decimal,
    },
    RetriedRemoved {
        amount: Decimal,
    },
    /// The increment was found in a tally too, where this dot added it.
    RetriedTallied {
        amount: Decimal,
        tally: Dot,
    },
    Deadline {
        stamp: Stamp,
        at_ms: Option<u64>,
    },
}

impl Put {
    /// The stamp that decides, for those that are decided by one.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Put::Register { stamp, .. } | Put::Field { stamp, .. } | Put::Deadline { stamp, .. } => Some(*stamp),
            _ => None,
        }
    }

    /// The life that what is put ends with, unless it has a deadline of its own.
    pub fn joined(&self, path: &Path) -> Option<Life> {
        match self {
            Put::Register { life, deadline_ms: None, payload: Some(_), .. } => Some(*life),
            Put::Field { life, .. } | Put::Birth { life } | Put::Sibling { life, .. } => Some(*life),
            Put::Tally { .. } | Put::Retried { .. } => path.life(),
            _ => None,
        }
    }
}

impl Row {
    /// Does what was put under this dot stand here?
    pub fn holds(&self, dot: Dot) -> bool {
        match self {
            Row::Register(register) => register.dot == dot,
            Row::Births(births) => births.iter().any(|birth| birth.dot == dot),
            Row::Field(entries) => entries.iter().any(|entry| entry.dot == dot),
            Row::Sibling(sibling) => sibling.dot == dot,
            Row::Deadline(deadline) => deadline.dot == dot,
            Row::Counter { tally, floor } => tally_holds(tally, floor, dot.counter) == Holds::Live,
            Row::Retried(retried) => !retried.removed && retried.dots.contains(&dot),
        }
    }

    /// The row that a put makes where there was none. `removes`: what the same mutation removes of it.
    pub fn born(put: Put, dot: Dot, removes: &[Dot]) -> Row {
        let removes = removes.to_vec();
        match put {
            Put::Register { stamp, life, deadline_ms, payload } => {
                Row::Register(Register { dot, stamp, life, deadline_ms, payload, removes })
            }
            Put::Field { stamp, life, payload } => {
                Row::Field(vec![Register { dot, stamp, life, deadline_ms: None, payload: Some(payload), removes }])
            }
            Put::Birth { life } => Row::Births(vec![Birth { dot, life, removes }]),
            Put::Sibling { life, payload } => Row::Sibling(Sibling { dot, life, payload }),
            Put::Tally { run, total } => Row::Counter { tally: Some(Tally { dot, run, total }), floor: None },
            Put::Floor { upto, total } => Row::Counter { tally: None, floor: Some(Floor { dot, upto, total }) },
            Put::Retried { amount } => {
                Row::Retried(Retried { dots: vec![dot], amount, tallies: Vec::new(), removed: false })
            }
            Put::RetriedRemoved { amount } => {
                Row::Retried(Retried { dots: vec![dot], amount, tallies: Vec::new(), removed: true })
            }
            Put::RetriedTallied { amount, tally } => {
                Row::Retried(Retried { dots: vec![dot], amount, tallies: vec![tally], removed: false })
            }
            Put::Deadline { stamp, at_ms } => Row::Deadline(Deadline { dot, stamp, at_ms }),
        }
    }

    /// Joins two rows of one path that are both known to stand: every entry of either but those that one of the others removed. A side
    /// in the middle of a full sync holds the remover and does not know yet what it removed.
    pub fn joined(self, other: Row) -> Row {
        match (self, other) {
            (Row::Register(one), Row::Register(two)) => Row::Register(if two.stamp > one.stamp { two } else { one }),
            (Row::Field(mut one), Row::Field(two)) => {
                one.extend(two);
                one.sort_unstable_by_key(|entry| entry.dot);
                one.dedup_by_key(|entry| entry.dot);
                let named: Vec<Dot> = one.iter().flat_map(|entry| &entry.removes).copied().collect();
                one.retain(|entry| !named.contains(&entry.dot));
                Row::Field(one)
            }
            (Row::Deadline(one), Row::Deadline(two)) => Row::Deadline(if two.stamp > one.stamp { two } else { one }),
            (Row::Births(mut one), Row::Births(two)) => {
                one.extend(two);
                one.sort_unstable();
                one.dedup();
                let named: Vec<Dot> = one.iter().flat_map(|birth| &birth.removes).copied().collect();
                one.retain(|birth| !named.contains(&birth.dot));
                Row::Births(one)
            }
            (Row::Sibling(one), Row::Sibling(_)) => Row::Sibling(one),
            (Row::Counter { tally: one, floor: low }, Row::Counter { tally: two, floor: high }) => Row::Counter {
                tally: match (one, two) {
                    (Some(one), Some(two)) => Some(if two.dot.counter > one.dot.counter { two } else { one }),
                    (one, two) => one.or(two),
                },
                floor: match (low, high) {
                    // Equal floors may come from two removals: the smaller dot, so that both replicas choose alike.
                    (Some(one), Some(two)) => Some(match one.upto.cmp(&two.upto) {
                        std::cmp::Ordering::Less => two,
                        std::cmp::Ordering::Greater => one,
                        std::cmp::Ordering::Equal => {
                            if two.dot < one.dot {
                                two
                            } else {
                                one
                            }
                        }
                    }),
                    (one, two) => one.or(two),
                },
            },
            (Row::Retried(mut one), Row::Retried(two)) => {
                one.dots.extend(two.dots);
                one.dots.sort_unstable();
                one.dots.dedup();
                one.tallies.extend(two.tallies);
                one.tallies.sort_unstable();
                one.tallies.dedup();
                one.removed |= two.removed;
                Row::Retried(one)
            }
            // A path has one kind of row: the component decides it. Kept total rather than panicking on a corrupt peer.
            (one, _) => one,
        }
    }

    /// The row without these dots; `None` when nothing stays. Tallies, retried increments and deadlines are not removed by name.
    pub fn without(self, dots: &[Dot]) -> Option<Row> {
        match self {
            Row::Register(register) => (!dots.contains(&register.dot)).then_some(Row::Register(register)),
            Row::Field(mut entries) => {
                entries.retain(|entry| !dots.contains(&entry.dot));
                (!entries.is_empty()).then_some(Row::Field(entries))
            }
            Row::Sibling(sibling) => (!dots.contains(&sibling.dot)).then_some(Row::Sibling(sibling)),
            Row::Births(mut births) => {
                births.retain(|birth| !dots.contains(&birth.dot));
                (!births.is_empty()).then_some(Row::Births(births))
            }
            kept => Some(kept),
        }
    }

    /// What of this row is not gone at a replica that holds `other` in its place: whatever that replica holds too, or has not seen.
    /// What it has seen and does not hold was superseded there, removed, or dropped when nothing could need it any more.
    pub fn not_gone(self, other: Option<&Row>, seen: impl Fn(Dot) -> bool) -> Option<Row> {
        match self {
            Row::Counter { tally, floor } => {
                let (held_tally, held_floor) = match other {
                    Some(Row::Counter { tally, floor }) => (tally.map(|held| held.dot), floor.map(|held| held.dot)),
                    _ => (None, None),
                };
                let tally = tally.filter(|tally| held_tally == Some(tally.dot) || !seen(tally.dot));
                let floor = floor.filter(|floor| held_floor == Some(floor.dot) || !seen(floor.dot));
                (tally.is_some() || floor.is_some()).then_some(Row::Counter { tally, floor })
            }
            Row::Retried(retried) => {
                let gone = other.is_none() && retried.dots.iter().all(|dot| seen(*dot));
                (!gone).then_some(Row::Retried(retried))
            }
            Row::Deadline(deadline) => {
                let held = matches!(other, Some(Row::Deadline(held)) if held.dot == deadline.dot);
                (held || !seen(deadline.dot)).then_some(Row::Deadline(deadline))
            }
            named => {
                let held = other.map(Row::removable).unwrap_or_default();
                let gone: Vec<Dot> =
                    named.removable().into_iter().filter(|dot| !held.contains(dot) && seen(*dot)).collect();
                if gone.is_empty() { Some(named) } else { named.without(&gone) }
            }
        }
    }

    /// The dots by which the entries of this row can be removed.
    pub fn removable(&self) -> Vec<Dot> {
        match self {
            Row::Register(register) => vec![register.dot],
            Row::Field(entries) => entries.iter().map(|entry| entry.dot).collect(),
            Row::Sibling(sibling) => vec![sibling.dot],
            Row::Births(births) => births.iter().map(|birth| birth.dot).collect(),
            Row::Counter { .. } | Row::Retried(_) | Row::Deadline(_) => Vec::new(),
        }
    }

    /// What the mutation with this dot, which put an entry here, removed of this row.
    pub fn removed_by(&self, dot: Dot) -> &[Dot] {
        match self {
            Row::Register(register) if register.dot == dot => &register.removes,
            Row::Field(entries) => entries.iter().find(|entry| entry.dot == dot).map_or(&[], |entry| &entry.removes),
            Row::Births(births) => births.iter().find(|birth| birth.dot == dot).map_or(&[], |birth| &birth.removes),
            _ => &[],
        }
    }

    /// Every dot of the row.
    pub fn dots(&self) -> Vec<Dot> {
        match self {
            Row::Counter { tally, floor } => {
                tally.iter().map(|tally| tally.dot).chain(floor.iter().map(|floor| floor.dot)).collect()
            }
            Row::Retried(retried) => retried.dots.clone(),
            Row::Deadline(deadline) => vec![deadline.dot],
            other => other.removable(),
        }
    }

    /// The stamp of a row that is decided by one.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Row::Register(register) => Some(register.stamp),
            Row::Field(entries) => entries.iter().map(|entry| entry.stamp).max(),
            Row::Deadline(deadline) => Some(deadline.stamp),
            _ => None,
        }
    }
}

/// A counter row's worth: the total less what was removed of it, if that was of this run.
pub fn tally_value(tally: &Option<Tally>, floor: &Option<Floor>) -> Decimal {
    match (tally, floor) {
        (Some(tally), Some(floor)) if floor.upto >= tally.dot.counter => Decimal::ZERO,
        (Some(tally), Some(floor)) if floor.upto > tally.run => tally.total.saturating_sub(floor.total),
        (Some(tally), _) => tally.total,
        (None, _) => Decimal::ZERO,
    }
}

/// Is there anything in a counter row that was not removed?
pub fn tally_is_live(tally: &Option<Tally>, floor: &Option<Floor>) -> bool {
    tally.is_some_and(|tally| floor.is_none_or(|floor| floor.upto < tally.dot.counter))
}

/// Has this tally's row taken in the mutation with which its incarnation made `counter`, and has that been removed again?
pub fn tally_holds(tally: &Option<Tally>, floor: &Option<Floor>, counter: u64) -> Holds {
    if floor.is_some_and(|floor| floor.upto >= counter) {
        Holds::Removed
    } else if tally.is_some_and(|tally| tally.run < counter && counter <= tally.dot.counter) {
        Holds::Live
    } else {
        Holds::Nothing
    }
}

/// See [`tally_holds`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    Nothing,
    Live,
    Removed,
}

/// The law, for one row of two replicas: each side's row and what that side has seen.
///
/// `mine_seen` and `theirs_seen` must cover the dots of the respective rows or at least never claim what was not incorporated.
pub fn merge(mine: Option<Row>, mine_seen: &Context, theirs: Option<Row>, theirs_seen: &Context) -> Option<Row> {
    let kept_mine = mine.clone().and_then(|row| row.not_gone(theirs.as_ref(), |dot| theirs_seen.contains(dot)));
    let kept_theirs = theirs.and_then(|row| row.not_gone(mine.as_ref(), |dot| mine_seen.contains(dot)));
    match (kept_mine, kept_theirs) {
        (Some(mine), Some(theirs)) => Some(mine.joined(theirs)),
        (mine, theirs) => mine.or(theirs),
    }
}
