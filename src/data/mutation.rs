//! What a request does, small enough to send to every owner: dots, what they supersede, what they put.
//!
//! A delta can be applied in any order, twice, and late. What makes that true, and what [`apply`] therefore keeps apart:
//! - a dot **seen** has had all its effects applied; it is skipped whole;
//! - a dot **dead** was superseded by name before it came: it is not put any more, but what it supersedes itself must still go.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::{Hlc, Stamp};
use super::id::{Dot, OpId};
use super::op::Key;
use super::path::{Component, Path};
use super::row::{Life, Put, Row};

/// One row's part of a mutation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Effect {
    pub path: Path,
    /// Dots of this row that the mutation saw and removes.
    pub removes: Vec<Dot>,
    pub put: Option<Put>,
}

/// One dot with its effects. At most one effect puts an entry that can later be removed by name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Mutation {
    pub dot: Dot,
    pub effects: Vec<Effect>,
}

/// All that one request does to one key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Delta {
    pub key: Key,
    pub op_id: Option<OpId>,
    /// Keep the operation id for the whole window, not just while a door may retry.
    pub remember: bool,
    /// When it was minted, by the coordinator's hybrid clock.
    pub made: Hlc,
    /// What it goes by, when its coordinator did not ask others before.
    pub basis: Option<Basis>,
    pub mutations: Vec<Mutation>,
}

/// What a coordinator knew of the life that it puts something into.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Basis {
    /// The stamp of its deadline; `None` if it had none.
    pub deadline: Option<Stamp>,
    /// What stood there, if that life ends.
    pub beside: Option<Box<Entry>>,
}

/// An entry of a row that is visible.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub path: Path,
    pub life: Life,
    pub dot: Dot,
}

impl Entry {
    /// Is it the other, or does that count it as well?
    pub fn is_in(&self, held: &Entry) -> bool {
        let counts = matches!(self.path.component, Component::Counter | Component::FieldCounter);
        let dot = held.dot == self.dot || counts && held.dot.counter > self.dot.counter;
        dot && held.path == self.path && held.life == self.life
    }
}

impl Delta {
    /// Does it put nothing but marks of removal?
    pub fn only_removes(&self) -> bool {
        let takes = |effect: &Effect| {
            matches!(
                effect.put,
                None | Some(Put::Register { payload: None, .. } | Put::Floor { .. } | Put::RetriedRemoved { .. })
            )
        };
        self.mutations.iter().all(|one| one.effects.iter().all(takes))
    }

    /// Does it put a value that takes the place of everything, whatever stands beside it?
    pub fn puts_a_value(&self) -> bool {
        let mut effects = self.mutations.iter().flat_map(|one| &one.effects);
        effects.any(|effect| matches!(effect.put, Some(Put::Register { .. })))
    }

    /// The life that what it puts ends with; of what is put a second time, the one that stands last.
    pub fn life(&self) -> Option<Life> {
        let effects = self.mutations.iter().rev().flat_map(|one| one.effects.iter().rev());
        effects.into_iter().find_map(|effect| effect.put.as_ref()?.joined(&effect.path))
    }

    /// Rows of its key, without what it put itself, and without totals that count nothing else.
    pub fn left_out(&self, rows: impl IntoIterator<Item = (Path, Row)>) -> impl Iterator<Item = (Path, Row)> {
        let dots: Vec<Dot> = self.mutations.iter().map(|mutation| mutation.dot).collect();
        rows.into_iter().filter_map(move |(path, row)| match row {
            Row::Counter { tally: Some(tally), .. }
                if tally.dot.counter.checked_sub(1) == Some(tally.run) && dots.contains(&tally.dot) =>
            {
                None
            }
            Row::Retried(retried) if retried.dots.iter().all(|dot| dots.contains(dot)) => None,
            row => Some((path, row.without(&dots)?)),
        })
    }

    pub fn bytes(&self) -> usize {
        let effect = |effect: &Effect| {
            48 + effect.path.member.len()
                + effect.removes.len() * 12
                + match &effect.put {
                    Some(Put::Register { payload: Some(payload), .. } | Put::Field { payload, .. }) => payload.len(),
                    Some(Put::Sibling { payload, .. }) => payload.len(),
                    _ => 0,
                }
        };
        self.key.bytes.len()
            + self.mutations.iter().map(|one| 24 + one.effects.iter().map(effect).sum::<usize>()).sum::<usize>()
    }
}

/// What applying one effect came to.
#[derive(Debug, PartialEq)]
pub struct Applied {
    pub row: Option<Row>,
    /// The row holds a newer stamp than the one put: the write lost to a write that it did not know.
    pub newer: Option<Stamp>,
}

/// One effect on one row. `dead`: the dot was superseded before it came, so nothing is put.
pub fn apply(effect: &Effect, dot: Dot, row: Option<Row>, dead: bool) -> Applied {
    let kept = if effect.removes.is_empty() { row } else { row.and_then(|row| row.without(&effect.removes)) };
    let Some(put) = effect.put.as_ref().filter(|_| !dead) else {
        return Applied { row: kept, newer: None };
    };
    let newer = match (kept.as_ref().and_then(Row::stamp), put.stamp()) {
        (Some(held), Some(brought)) if held > brought => Some(held),
        _ => None,
    };
    let born = Row::born(put.clone(), dot, &effect.removes);
    let row = match kept {
        Some(kept) => kept.joined(born),
        None => born,
    };
    Applied { row: Some(row), newer }
}

/// An opaque token for a client: which siblings of this key it has read.
pub fn context_token(key: &Key, dots: &[Dot]) -> Bytes {
    let mut token = Vec::with_capacity(9 + dots.len() * 16);
    token.push(1);
    for dot in dots {
        token.extend_from_slice(&dot.incarnation.0.to_be_bytes());
        token.extend_from_slice(&dot.counter.to_be_bytes());
    }
    let check = token_check(key, &token);
    token.extend_from_slice(&check.to_be_bytes());
    token.into()
}

/// Reads a token back. `None`: damaged, of another key, or no token at all.
pub fn parse_context_token(key: &Key, token: &[u8]) -> Option<Vec<Dot>> {
    let (body, check) = token.split_at_checked(token.len().checked_sub(8)?)?;
    if body.first() != Some(&1) || token_check(key, body).to_be_bytes() != check || (body.len() - 1) % 16 != 0 {
        return None;
    }
    let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("chunks of sixteen split in two"));
    Some(
        body[1..]
            .chunks(16)
            .map(|dot| Dot { incarnation: super::id::Incarnation(word(&dot[..8])), counter: word(&dot[8..]) })
            .collect(),
    )
}

fn token_check(key: &Key, body: &[u8]) -> u64 {
    let mut hash = super::path::key_hash(key);
    hash = super::id::mix64(hash ^ super::id::hash64(&key.bytes).rotate_left(17));
    super::id::mix64(hash ^ super::id::hash64(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::id::Incarnation;

    #[test]
    fn a_context_belongs_to_its_key() {
        let dots = [Dot { incarnation: Incarnation(5), counter: 2 }, Dot { incarnation: Incarnation(6), counter: 9 }];
        let token = context_token(&Key::new("a"), &dots);
        assert_eq!(parse_context_token(&Key::new("a"), &token), Some(dots.to_vec()));
        assert_eq!(parse_context_token(&Key::new("b"), &token), None);
        for at in 0..token.len() {
            let mut damaged = token.to_vec();
            damaged[at] ^= 1;
            assert_eq!(parse_context_token(&Key::new("a"), &damaged), None);
            assert_eq!(parse_context_token(&Key::new("a"), &token[..at]), None);
        }
    }
}
