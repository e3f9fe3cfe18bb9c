//! Scrub: owners compare what they hold, row by row, to find what should not exist: a damaged disk, a bug.
//!
//! Exchange believes what each owner says it has seen; a scrub believes nobody. It goes through the partitions of this node in pieces,
//! sends the sum of the digests of a piece with what it had seen, and compares only with an owner that has seen just the same. What is
//! merely waiting to be dropped is left out of the sum, since each owner drops in its own time. A difference must stand three times
//! before it is believed. Then the odd one out, if there is one, forgets the partition and takes it anew from the others; where it
//! cannot be said who is wrong, nothing is changed. Either way it is counted and told loudly.
//!
//! This machine decides what is compared next and what came of it; the shard reads rows and sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::data::id::{NodeId, Partition};
use crate::wire::message::Ticket;
use crate::wire::status::ScrubStatus;

/// Rows that one piece has, about.
pub const PIECE_ROWS: usize = 2_048;
/// A piece that is not answered for this long is asked for again.
const ANSWER_US: u64 = 2_000_000;
/// Before a piece is compared again: when owners had not seen the same, and when they differed.
const AGAIN_US: u64 = 200_000;
const DOUBT_US: u64 = 2_000_000;
/// Owners that never have seen the same at one moment, or do not answer, are not compared.
const TRIES_MAX: u32 = 20;
/// Differences in a row until they are believed.
const DOUBTS_MAX: u32 = 3;

/// The rows of a partition with key hashes from here on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub partition: Partition,
    pub from: u64,
}

/// A piece that was read here and is being compared.
struct Asked {
    number: Ticket,
    digest: u128,
    /// Where the next piece begins; `None`: it was the last.
    next: Option<u64>,
    rows: u64,
    waiting: BTreeSet<NodeId>,
    /// `None`: had not seen the same.
    answers: BTreeMap<NodeId, Option<u128>>,
    until_us: u64,
}

/// What is to be done with a compared piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// All others agree with each other and not with this node.
    OddOneOut(Partition),
    /// Who is wrong cannot be said, or it is somebody else, who will find it himself.
    Differs(Partition, Vec<NodeId>),
}

#[derive(Default)]
pub struct Scrub {
    queue: VecDeque<Partition>,
    piece: Option<Piece>,
    asked: Option<Asked>,
    tries: u32,
    doubts: u32,
    next_us: u64,
    pause_us: u64,
    report: ScrubStatus,
}

impl Scrub {
    /// Begins a pass over these partitions, unless one is under way; then that one hurries if it is to. `pause_us`: between pieces.
    pub fn begin(&mut self, partitions: impl Iterator<Item = Partition>, now_us: u64, pause_us: u64) {
        if self.report.running {
            self.pause_us = self.pause_us.min(pause_us);
            self.next_us = self.next_us.min(now_us + self.pause_us);
            return;
        }
        self.queue = partitions.collect();
        self.report = ScrubStatus { running: true, partitions: self.queue.len() as u64, ..ScrubStatus::default() };
        self.pause_us = pause_us;
        self.next_us = now_us;
        self.piece = None;
        self.asked = None;
        self.turn_page();
    }

    fn turn_page(&mut self) {
        self.piece = self.queue.pop_front().map(|partition| Piece { partition, from: 0 });
        (self.tries, self.doubts) = (0, 0);
        if self.piece.is_none() {
            self.report.running = false;
        }
    }

    pub fn report(&self) -> ScrubStatus {
        self.report
    }

    /// When `next` wants to be called.
    pub fn poll_timeout(&self) -> u64 {
        match (&self.asked, self.piece) {
            (Some(asked), _) => asked.until_us,
            (None, Some(_)) => self.next_us,
            (None, None) => u64::MAX,
        }
    }

    /// The piece to read and compare now, if any.
    pub fn next(&mut self, now_us: u64) -> Option<Piece> {
        if let Some(asked) = self.asked.take_if(|asked| asked.until_us <= now_us) {
            drop(asked);
            self.try_again(now_us, AGAIN_US);
        }
        if self.asked.is_some() || self.next_us > now_us {
            return None;
        }
        self.piece
    }

    /// The piece could not be compared now.
    pub fn try_again(&mut self, now_us: u64, wait_us: u64) {
        self.tries += 1;
        self.next_us = now_us + wait_us.max(self.pause_us);
        if self.tries > TRIES_MAX {
            self.report.skipped += 1;
            self.report.partitions_done += 1;
            self.turn_page();
        }
    }

    /// An owner is away.
    pub fn cannot_ask(&mut self, now_us: u64) {
        self.try_again(now_us, AGAIN_US);
    }

    /// The piece has been read here, and these owners are asked for theirs.
    pub fn ask(
        &mut self,
        number: Ticket,
        digest: u128,
        next: Option<u64>,
        rows: u64,
        others: impl Iterator<Item = NodeId>,
        now_us: u64,
    ) -> Option<Finding> {
        let waiting: BTreeSet<NodeId> = others.collect();
        let alone = waiting.is_empty();
        let until_us = now_us + ANSWER_US;
        self.asked = Some(Asked { number, digest, next, rows, waiting, answers: BTreeMap::new(), until_us });
        if alone { self.compare(now_us) } else { None }
    }

    /// Takes an owner's digest of the piece; `None`: it has not seen the same.
    pub fn take(&mut self, from: NodeId, number: Ticket, digest: Option<u128>, now_us: u64) -> Option<Finding> {
        let asked = self.asked.as_mut().filter(|asked| asked.number == number)?;
        if !asked.waiting.remove(&from) {
            return None;
        }
        asked.answers.insert(from, digest);
        if asked.waiting.is_empty() { self.compare(now_us) } else { None }
    }

    fn compare(&mut self, now_us: u64) -> Option<Finding> {
        let (asked, piece) = (self.asked.take()?, self.piece?);
        if asked.answers.values().any(Option::is_none) {
            self.try_again(now_us, AGAIN_US);
            return None;
        }
        let others: Vec<u128> = asked.answers.values().flatten().copied().collect();
        let differing: Vec<NodeId> =
            asked.answers.iter().filter(|(_, theirs)| **theirs != Some(asked.digest)).map(|(node, _)| *node).collect();
        if !differing.is_empty() && self.doubts + 1 < DOUBTS_MAX {
            self.doubts += 1;
            self.next_us = now_us + DOUBT_US;
            return None;
        }
        self.report.rows += asked.rows;
        (self.tries, self.doubts) = (0, 0);
        self.next_us = now_us + self.pause_us;
        if differing.is_empty() {
            match asked.next {
                Some(from) => self.piece = Some(Piece { from, ..piece }),
                None => {
                    self.report.partitions_done += 1;
                    self.turn_page();
                }
            }
            return None;
        }
        self.report.findings += 1;
        self.report.partitions_done += 1;
        self.turn_page();
        let agreed = others.len() > 1 && others.windows(2).all(|pair| pair[0] == pair[1]);
        Some(match agreed {
            true => Finding::OddOneOut(piece.partition),
            false => Finding::Differs(piece.partition, differing),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(4);

    fn begun() -> Scrub {
        let mut scrub = Scrub::default();
        scrub.begin([P, Partition(5)].into_iter(), 0, 0);
        scrub
    }

    /// Compares one piece with two others.
    fn compare(scrub: &mut Scrub, now_us: u64, mine: u128, theirs: [Option<u128>; 2]) -> Option<Finding> {
        scrub.next(now_us).expect("a piece is due");
        assert_eq!(scrub.ask(now_us, mine, None, 10, [NodeId(2), NodeId(3)].into_iter(), now_us), None);
        assert_eq!(scrub.take(NodeId(2), now_us, theirs[0], now_us), None);
        scrub.take(NodeId(3), now_us, theirs[1], now_us)
    }

    #[test]
    fn the_odd_one_out_is_found_when_it_stays_so() {
        let mut scrub = begun();
        assert_eq!(compare(&mut scrub, 0, 7, [Some(8), Some(8)]), None);
        assert_eq!(scrub.next(1), None, "it is looked at again later");
        assert_eq!(compare(&mut scrub, DOUBT_US, 7, [Some(8), Some(8)]), None);
        let found = compare(&mut scrub, 2 * DOUBT_US, 7, [Some(8), Some(8)]);
        assert_eq!(found, Some(Finding::OddOneOut(P)));
        assert_eq!((scrub.report().findings, scrub.report().partitions_done), (1, 1));
    }

    #[test]
    fn who_is_wrong_may_not_be_known() {
        let mut scrub = begun();
        for round in 0..2 {
            assert_eq!(compare(&mut scrub, round * DOUBT_US, 7, [Some(7), Some(8)]), None);
        }
        let found = compare(&mut scrub, 2 * DOUBT_US, 7, [Some(7), Some(8)]);
        assert_eq!(found, Some(Finding::Differs(P, vec![NodeId(3)])));
    }

    #[test]
    fn owners_that_have_not_seen_the_same_are_not_compared() {
        let mut scrub = begun();
        let mut now_us = 0;
        for _ in 0..=TRIES_MAX {
            assert_eq!(compare(&mut scrub, now_us, 7, [Some(8), None]), None);
            now_us += AGAIN_US;
        }
        assert_eq!((scrub.report().skipped, scrub.report().findings), (1, 0));
        assert_eq!(scrub.next(now_us), Some(Piece { partition: Partition(5), from: 0 }));
        assert_eq!(compare(&mut scrub, now_us, 7, [Some(7), Some(7)]), None);
        let report = scrub.report();
        assert_eq!((report.running, report.partitions_done, report.rows), (false, 2, 10));
        assert_eq!(scrub.poll_timeout(), u64::MAX);
    }
}
