//! What each turn promises, judged as it is made: see the checkers of the same names.

use super::World;
use crate::data::id::{Incarnation, Partition};
use crate::node::turn::Outbox;
use crate::sim::check::answers::Facts;
use crate::sim::check::{floors, rows};
use crate::storage::{Batch, Op, Space};
use crate::wire::message::{Body, PeerMessage};

/// Between two comparisons of one partition's owners.
const COMPARE_US: u64 = 20_000;

impl World {
    /// A turn was committed, and is about to speak.
    pub(super) fn judge_turn(
        &mut self,
        at: usize,
        incarnation: Incarnation,
        facts: &Facts,
        batch: &Batch,
        out: &Outbox,
    ) {
        if self.damaged {
            return;
        }
        if let Err(message) = floors::read(self, at, |disk| Ok(facts.judge(disk, out))) {
            self.violate("answers", message);
        }
        if let Err(message) = floors::reopened(self, at, incarnation, batch) {
            self.violate("floors", message);
        }
        self.judge_cut(at);
        for partition in std::mem::take(&mut self.ghost.sure) {
            if let Err(message) = rows::seen(self, at, partition).and_then(|()| rows::alike(self, at, partition)) {
                self.violate("rows", message);
            }
        }
        let mut last = None;
        for op in batch {
            let Op::Put { space: Space::Log, key, .. } = op else { continue };
            let Some(partition) = key.get(..2).map(|key| Partition(u16::from_be_bytes([key[0], key[1]]))) else {
                continue;
            };
            if last.replace(partition) != Some(partition) {
                self.judge_rows(at, partition);
            }
        }
    }

    fn judge_cut(&mut self, at: usize) {
        let Some((partition, cut)) = self.nodes[at].shard.as_ref().and_then(|shard| shard.collecting()) else { return };
        if self.nodes[at].cut == Some((partition, cut.began)) {
            return;
        }
        let cut = cut.clone();
        self.nodes[at].cut = Some((partition, cut.began));
        let since_us = self.asking.get(&(at, partition)).map_or(self.now_us, |(_, since_us)| *since_us);
        self.count("sim_cuts_judged", 1);
        if let Err(message) = floors::cut(self, at, partition, &cut, since_us) {
            self.violate("floors", message);
        }
    }

    fn judge_rows(&mut self, at: usize, partition: Partition) {
        let now_us = self.now_us;
        let compared_us = self.compared_us.entry(partition).or_insert(0);
        if *compared_us + COMPARE_US > now_us {
            return;
        }
        *compared_us = now_us;
        if let Err(message) = rows::alike(self, at, partition) {
            self.violate("rows", message);
        }
    }

    /// A node sends this.
    pub(super) fn judge_sent(&mut self, from: usize, message: &PeerMessage) {
        let PeerMessage { partition, body } = message;
        if let Body::Ask { number, .. } = body {
            let asking = self.asking.entry((from, *partition)).or_insert((*number, self.now_us));
            if asking.0 != *number {
                *asking = (*number, self.now_us);
            }
        }
        if let Body::Replicate { delta, .. } = body
            && let Err(message) = self.ghost.told(*partition, delta)
        {
            self.violate("dots", message);
        }
        let process = self.nodes[from].process;
        if let Err(message) = self.tickets.sent(from, process, body) {
            self.violate("answers", message);
        }
    }
}
