//! Read repair: an owner whose answer lacked rows is sent them, unless they come by themselves.
//!
//! Most of what a read finds lacking is merely under way: a write that other owners have had a moment longer. It is looked at again two
//! to three rounds of exchange later, when the owner has reported what it has seen since; so a healthy cluster under load repairs
//! nothing, and what is repaired was really missing. What this node itself lacks it asks for in the exchange. This machine remembers;
//! the shard looks.

use std::collections::VecDeque;

use crate::data::context::Context;
use crate::data::id::{Dot, NodeId};
use crate::data::op::Key;
use crate::data::path::Path;

/// What is remembered at most, in bytes. What is beyond is left to the exchange.
const BYTES_MAX: usize = 1 << 20;

/// What an owner lacked when it was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Lack {
    pub node: NodeId,
    pub key: Key,
    pub rows: Vec<(Path, Vec<Dot>)>,
}

impl Lack {
    fn bytes(&self) -> usize {
        let row = |(path, dots): &(Path, Vec<Dot>)| 64 + path.member.len() + size_of_val(dots.as_slice());
        64 + self.key.bytes.len() + self.rows.iter().map(row).sum::<usize>()
    }

    /// The rows of which the owner has not seen everything by its last report. `None`: it has made none.
    pub fn still(&self, reported: Option<&Context>) -> Vec<&Path> {
        let lacks = |dots: &[Dot]| reported.is_none_or(|seen| dots.iter().any(|dot| !seen.contains(*dot)));
        self.rows.iter().filter(|(_, dots)| lacks(dots)).map(|(path, _)| path).collect()
    }
}

#[derive(Default)]
pub struct Repairs {
    /// In the order of their times.
    waiting: VecDeque<(u64, Lack)>,
    bytes: usize,
}

impl Repairs {
    /// Remembers it until then. False: there is no room.
    pub fn remember(&mut self, due_us: u64, lack: Lack) -> bool {
        let bytes = lack.bytes();
        if self.bytes + bytes > BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.waiting.push_back((due_us, lack));
        true
    }

    /// The next that is to be looked at again. It is taken as done.
    pub fn next(&mut self, now_us: u64) -> Option<Lack> {
        self.due_us().filter(|due_us| *due_us <= now_us)?;
        let (_, lack) = self.waiting.pop_front()?;
        self.bytes -= lack.bytes();
        Some(lack)
    }

    /// When the next is to be looked at.
    pub fn due_us(&self) -> Option<u64> {
        self.waiting.front().map(|(due_us, _)| *due_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::id::Incarnation;
    use crate::data::path::Component;

    fn dot(counter: u64) -> Dot {
        Dot { incarnation: Incarnation(1), counter }
    }

    fn lack(rows: u64) -> Lack {
        let path = |number: u64| Path::new(Component::Member, number.to_be_bytes().to_vec());
        let rows = (1..=rows).map(|number| (path(number), vec![dot(number)])).collect();
        Lack { node: NodeId(2), key: Key::new("k"), rows }
    }

    #[test]
    fn what_came_by_itself_is_not_sent() {
        let lack = lack(3);
        assert_eq!(lack.still(None).len(), 3, "who has reported nothing may lack everything");
        let seen: Context = [dot(1), dot(3)].into_iter().collect();
        assert_eq!(lack.still(Some(&seen)), [&lack.rows[1].0]);
        let seen: Context = (1..=3).map(dot).collect();
        assert!(lack.still(Some(&seen)).is_empty());
    }

    #[test]
    fn it_waits_for_its_time_and_has_a_bound() {
        let mut repairs = Repairs::default();
        let most = (BYTES_MAX - 64 - "k".len()) / (64 + 8 + size_of::<Dot>());
        let most = most as u64;
        assert!(!repairs.remember(20, lack(most + 1)));
        assert!(repairs.remember(20, lack(most - 100)));
        assert!(!repairs.remember(21, lack(101)));
        assert!(repairs.remember(22, lack(96)));
        assert_eq!((repairs.next(19), repairs.due_us()), (None, Some(20)));
        assert_eq!(repairs.next(20), Some(lack(most - 100)));
        assert!(repairs.remember(22, lack(most - 100)));
        assert_eq!(repairs.next(22), Some(lack(96)));
    }
}
