//! One anti-entropy round: owners tell each other what they have seen, and ask for what they lack.
//!
//! Reports are digests, and only of partitions that changed since the last: mostly the peer has seen the same, and where it has not, both tell
//! what they have seen in full. A dot must have been missing over two rounds before it is
//! asked for, because most missing dots are merely under way; only from a peer that has just come up it is asked for at once. Cost
//! follows what differs. This machine decides; the shard reads and writes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::data::context::Context;
use crate::data::id::{Dot, NodeId, Partition};
use crate::wire::status::SyncStatus;

/// Pulls under way in one lane.
const PULLS_MAX: usize = 32;
/// A pull that is not answered for this long is given up and may be sent to somebody else.
const PULL_TIMEOUT_US: u64 = 5_000_000;
/// After this many rounds everything is reported again, whatever was told before.
const REFRESH_ROUNDS: u64 = 60;

#[derive(Default)]
pub struct Exchange {
    /// What each peer said it has seen.
    seen: BTreeMap<NodeId, BTreeMap<Partition, Context>>,
    /// Version of the state last reported to each peer.
    reported: BTreeMap<NodeId, BTreeMap<Partition, u64>>,
    /// What a peer had and this replica lacked at the last round.
    lacking: BTreeMap<(Partition, NodeId), Context>,
    /// What this replica had at an earlier round and a peer seemed to lack.
    doubted: BTreeMap<(Partition, NodeId), Context>,
    pulls: BTreeMap<Partition, Pull>,
    /// What is to be pulled, and from whom, as soon as there is room.
    ready: BTreeSet<(Partition, NodeId)>,
    /// Peers whose next reports are acted on at once.
    returned: BTreeSet<NodeId>,
    rounds: u64,
}

struct Pull {
    from: NodeId,
    deadline_us: u64,
    /// A whole partition is asked for.
    whole: bool,
    /// What its first page promised.
    full: Option<Promise>,
    /// When a page is to be asked for, in monotonic microseconds, and after which row; `None`: it has been.
    due: Option<(u64, Option<Bytes>)>,
}

/// A full sync's promise, of its first page.
#[derive(Clone, Default)]
pub struct Promise {
    /// What the peer had seen when it began.
    pub seen: Context,
    /// What was removed there before it came.
    pub dead: Vec<Dot>,
    /// Rows came whose dots it does not cover, or an earlier sync had left some: they are to be entered as seen at the end.
    pub left: bool,
    /// Where the page that was asked for begins.
    pub after: Option<Bytes>,
}

impl Exchange {
    /// A peer is up again: report everything to it, and act on its reports at once.
    pub fn peer_returned(&mut self, peer: NodeId) {
        self.reported.remove(&peer);
        self.returned.insert(peer);
    }

    /// Nothing that a peer said, and nothing that it was told, is true any more: its data lie in another store.
    pub fn forget_peer(&mut self, peer: NodeId) {
        self.seen.remove(&peer);
        self.reported.remove(&peer);
        self.lacking.retain(|(_, from), _| *from != peer);
        self.doubted.retain(|(_, of), _| *of != peer);
        self.pulls.retain(|_, pull| pull.from != peer);
        self.ready.retain(|(_, from)| *from != peer);
    }

    pub fn peer_left(&mut self, peer: NodeId) {
        self.pulls.retain(|_, pull| pull.from != peer);
        self.ready.retain(|(_, from)| *from != peer);
        self.returned.remove(&peer);
    }

    /// Begins a round. True: report everything again.
    pub fn begin_round(&mut self, now_us: u64) {
        self.rounds += 1;
        if self.rounds.is_multiple_of(REFRESH_ROUNDS) {
            self.reported.clear();
        }
        self.pulls.retain(|_, pull| pull.deadline_us > now_us);
    }

    /// Must this state of a partition be reported to this peer? It is taken as done.
    pub fn must_report(&mut self, peer: NodeId, partition: Partition, version: u64) -> bool {
        let reported = self.reported.entry(peer).or_default();
        let version = version + 1;
        reported.insert(partition, version) != Some(version)
    }

    /// Does a peer seem to lack what was here a round ago already? Then either report was lost, or it is slow: it is to be asked.
    pub fn doubts(&mut self, peer: NodeId, partition: Partition, mine: &Context) -> bool {
        let nothing = Context::default();
        let theirs = self.seen.get(&peer).and_then(|seen| seen.get(&partition)).unwrap_or(&nothing);
        let at = (partition, peer);
        match self.doubted.get_mut(&at) {
            Some(before) => {
                let still = !theirs.covers(before);
                // What is done is forgotten a round later.
                if *before == *mine && !still {
                    self.doubted.remove(&at);
                } else {
                    before.clone_from(mine);
                }
                still
            }
            None => {
                if !theirs.covers(mine) {
                    self.doubted.insert(at, mine.clone());
                }
                false
            }
        }
    }

    /// Takes a peer's report.
    pub fn take_report(&mut self, from: NodeId, partition: Partition, theirs: Context, mine: &Context) {
        if mine.lacks(&theirs) > 0 {
            if self.returned.contains(&from) {
                self.ready.insert((partition, from));
            } else {
                self.lacking.entry((partition, from)).or_insert_with(|| theirs.clone());
            }
        }
        self.seen.entry(from).or_default().insert(partition, theirs);
    }

    /// What a peer said is not true any more.
    pub fn forget_report(&mut self, from: NodeId, partition: Partition) {
        if let Some(seen) = self.seen.get_mut(&from) {
            seen.remove(&partition);
        }
    }

    /// The end of a round: what has been missing since the last one is to be pulled.
    pub fn end_round(&mut self, mine: impl Fn(Partition) -> Option<Context>) {
        let mut kept = BTreeMap::new();
        for ((partition, peer), marked) in std::mem::take(&mut self.lacking) {
            let Some(mine) = mine(partition) else { continue };
            if mine.lacks(&marked) > 0 {
                self.ready.insert((partition, peer));
                kept.insert((partition, peer), marked);
            } else if let Some(now) = self.seen.get(&peer).and_then(|seen| seen.get(&partition))
                && mine.lacks(now) > 0
            {
                kept.insert((partition, peer), now.clone());
            }
        }
        self.lacking = kept;
        self.returned.clear();
    }

    /// The next pull to send, if there is room for one. It is taken as sent.
    pub fn next_pull(&mut self, now_us: u64) -> Option<(Partition, NodeId)> {
        if self.pulls.len() >= PULLS_MAX {
            return None;
        }
        let next = *self.ready.iter().find(|(partition, _)| !self.pulls.contains_key(partition))?;
        self.ready.remove(&next);
        let pull = Pull { from: next.1, deadline_us: now_us + PULL_TIMEOUT_US, whole: false, full: None, due: None };
        self.pulls.insert(next.0, pull);
        Some(next)
    }

    /// Is this the answer that is waited for? Prolongs it.
    pub fn answers_pull(&mut self, partition: Partition, from: NodeId, now_us: u64) -> bool {
        match self.pulls.get_mut(&partition) {
            Some(pull) if pull.from == from => {
                pull.deadline_us = now_us + PULL_TIMEOUT_US;
                true
            }
            _ => false,
        }
    }

    /// Remembers what the first page of a full sync promises.
    pub fn begin_full_sync(&mut self, partition: Partition, promise: Promise) {
        if let Some(pull) = self.pulls.get_mut(&partition) {
            pull.full = Some(promise);
        }
    }

    /// A page brought what is newer than the promise, and which nobody may have by the time that it is asked for.
    pub fn bring_more(&mut self, partition: Partition) {
        if let Some(promise) = self.pulls.get_mut(&partition).and_then(|pull| pull.full.as_mut()) {
            promise.left = true;
        }
    }

    /// Is this the page of a full sync that was asked for? One that comes twice, or late, belongs to no sync any more: were it the last
    /// of an earlier one, this one would end before its time.
    pub fn expects_page(&self, partition: Partition, after: Option<&Bytes>) -> bool {
        match (self.promised(partition), after) {
            (None, after) => after.is_none(),
            (Some(promise), after) => promise.after.as_ref() == after,
        }
    }

    /// A page is to be asked for at that time: the first, or the next after some row.
    pub fn ask_page(&mut self, partition: Partition, after: Option<Bytes>, due_us: u64) {
        if let Some(pull) = self.pulls.get_mut(&partition) {
            pull.deadline_us = due_us + PULL_TIMEOUT_US;
            pull.whole = true;
            if let Some(promise) = &mut pull.full {
                promise.after.clone_from(&after);
            }
            pull.due = Some((due_us, after));
        }
    }

    /// A page that is due, of whom it is to be asked, and after which row. It is taken as asked for.
    pub fn next_page(&mut self, now_us: u64) -> Option<(NodeId, Partition, Option<Bytes>)> {
        self.pulls.iter_mut().find_map(|(partition, pull)| {
            let (_, after) = pull.due.take_if(|(due_us, _)| *due_us <= now_us)?;
            Some((pull.from, *partition, after))
        })
    }

    /// When the next page is due.
    pub fn pages_due_us(&self) -> Option<u64> {
        self.pulls.values().filter_map(|pull| pull.due.as_ref()).map(|(due_us, _)| *due_us).min()
    }

    /// Full syncs under way and how far they have come, with those that are done and their rows.
    pub fn syncs(&self, done: u64, rows: u64) -> SyncStatus {
        let whole = self.pulls.values().filter(|pull| pull.whole);
        // Rows lie in the order of 64-bit hashes behind the partition's number: where the page begins tells the share.
        let share = |pull: &Pull| {
            let after = pull.full.as_ref().and_then(|promise| promise.after.as_ref());
            let hash = after.and_then(|at| at.get(2..10)?.try_into().ok()).map_or(0, u64::from_be_bytes);
            ((u128::from(hash) * 1_000) >> 64) as u64
        };
        let shares: Vec<u64> = whole.map(share).collect();
        let ready: BTreeSet<Partition> = self.ready.iter().map(|(partition, _)| *partition).collect();
        SyncStatus {
            under_way: shares.len() as u64,
            permille: shares.iter().sum::<u64>() / (shares.len() as u64).max(1),
            waiting: ready.iter().filter(|partition| !self.pulls.contains_key(partition)).count() as u64,
            done,
            rows,
        }
    }

    /// What a full sync under way will have brought at its end.
    pub fn promised(&self, partition: Partition) -> Option<&Promise> {
        self.pulls.get(&partition)?.full.as_ref()
    }

    pub fn is_pulling(&self, partition: Partition) -> bool {
        self.pulls.contains_key(&partition)
    }

    pub fn end_pull(&mut self, partition: Partition) {
        self.pulls.remove(&partition);
    }

    /// What every one of these owners is known to have seen.
    pub fn stable(&self, partition: Partition, mine: &Context, others: impl Iterator<Item = NodeId>) -> Context {
        let mut stable = mine.clone();
        for other in others {
            match self.seen.get(&other).and_then(|seen| seen.get(&partition)) {
                Some(theirs) => stable = stable.meet(theirs),
                None => return Context::default(),
            }
        }
        stable
    }

    pub fn seen_by(&self, peer: NodeId, partition: Partition) -> Option<&Context> {
        self.seen.get(&peer)?.get(&partition)
    }

    pub fn pulls(&self) -> usize {
        self.pulls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::id::Incarnation;

    fn upto(counter: u64) -> Context {
        (1..=counter).map(|counter| Dot { incarnation: Incarnation(1), counter }).collect()
    }

    #[test]
    fn what_is_under_way_is_not_asked_for() {
        let mut exchange = Exchange::default();
        let (peer, partition) = (NodeId(2), Partition(0));
        exchange.take_report(peer, partition, upto(5), &upto(3));
        exchange.end_round(|_| Some(upto(5)));
        assert_eq!(exchange.next_pull(0), None, "it came by itself");
        exchange.take_report(peer, partition, upto(9), &upto(7));
        assert_eq!(exchange.next_pull(0), None, "missing for the first time");
        exchange.end_round(|_| Some(upto(7)));
        assert_eq!(exchange.next_pull(0), Some((partition, peer)), "missing over two rounds");
    }

    #[test]
    fn a_returned_peer_is_asked_at_once_and_one_pull_a_partition() {
        let mut exchange = Exchange::default();
        exchange.peer_returned(NodeId(2));
        exchange.peer_returned(NodeId(3));
        exchange.take_report(NodeId(2), Partition(0), upto(5), &upto(3));
        exchange.take_report(NodeId(3), Partition(0), upto(6), &upto(3));
        assert_eq!(exchange.next_pull(0), Some((Partition(0), NodeId(2))));
        assert_eq!(exchange.next_pull(0), None);
        exchange.end_pull(Partition(0));
        assert_eq!(exchange.next_pull(0), Some((Partition(0), NodeId(3))));
    }

    #[test]
    fn a_page_is_asked_for_when_it_is_due_the_first_one_too() {
        let mut exchange = Exchange::default();
        let (peer, partition) = (NodeId(2), Partition(0));
        exchange.peer_returned(peer);
        exchange.take_report(peer, partition, upto(5), &upto(3));
        assert_eq!(exchange.next_pull(0), Some((partition, peer)));
        exchange.ask_page(partition, None, 100);
        assert_eq!((exchange.next_page(99), exchange.pages_due_us()), (None, Some(100)));
        assert_eq!((exchange.syncs(0, 0).waiting, exchange.syncs(0, 0).under_way), (0, 1));
        assert_eq!(exchange.next_page(100), Some((peer, partition, None)));
        assert_eq!((exchange.next_page(100), exchange.pages_due_us()), (None, None), "once");

        exchange.begin_full_sync(partition, Promise { seen: upto(5), ..Promise::default() });
        let after = Bytes::from_static(b"row");
        exchange.ask_page(partition, Some(after.clone()), 200);
        assert_eq!((exchange.syncs(0, 0).waiting, exchange.syncs(0, 0).under_way), (0, 1));
        assert!(exchange.expects_page(partition, Some(&after)) && !exchange.expects_page(partition, None));
        assert_eq!(exchange.next_page(200), Some((peer, partition, Some(after))));
    }

    #[test]
    fn a_peer_that_seems_to_lag_is_asked() {
        let mut exchange = Exchange::default();
        let (peer, partition) = (NodeId(2), Partition(0));
        assert!(!exchange.doubts(peer, partition, &upto(0)), "nothing lacks nothing");
        assert!(!exchange.doubts(peer, partition, &upto(5)), "its report may be under way");
        assert!(exchange.doubts(peer, partition, &upto(6)));
        exchange.take_report(peer, partition, upto(6), &upto(8));
        assert!(!exchange.doubts(peer, partition, &upto(8)), "it has what was there a round ago");
        exchange.take_report(peer, partition, upto(8), &upto(8));
        assert!(!exchange.doubts(peer, partition, &upto(8)));
    }

    #[test]
    fn stable_is_what_all_have_said() {
        let mut exchange = Exchange::default();
        exchange.take_report(NodeId(2), Partition(0), upto(5), &upto(9));
        let others = [NodeId(2), NodeId(3)];
        assert!(exchange.stable(Partition(0), &upto(9), others.into_iter()).is_empty(), "one has said nothing yet");
        exchange.take_report(NodeId(3), Partition(0), upto(4), &upto(9));
        assert_eq!(exchange.stable(Partition(0), &upto(9), others.into_iter()), upto(4));
    }
}
