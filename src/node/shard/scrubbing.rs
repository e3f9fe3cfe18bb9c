//! Scrubs: pieces compared with the other owners, and what is done about a finding.

use crate::data::clock::Now;
use crate::data::id::NodeId;
use crate::node::replica::Turn;
use crate::node::scrub::{Finding, PIECE_ROWS, Piece};
use crate::node::turn::Outbox;
use crate::storage::StoreError;
use crate::wire::message::Body;

use super::{Shard, background};

impl Shard {
    pub(super) fn begin_scrub(&mut self, now: Now, pause_us: u64) {
        let me = self.options.me;
        let (lane, lanes) = (self.options.lane, self.options.lanes);
        let view = self.view.clone();
        let mine = view.partitions_owned(me).filter(|partition| partition.0 % lanes == lane);
        self.scrub.begin(mine, now.mono_us, pause_us);
    }

    /// The next piece of a scrub: read here, and asked for of the other owners.
    pub(super) fn scrub(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let Some(Piece { partition, from }) = self.scrub.next(now.mono_us) else { return Ok(()) };
        let me = self.options.me;
        let others: Vec<NodeId> = self.view.owners(partition).filter(|owner| *owner != me).collect();
        let busy = self.exchange.is_pulling(partition) || self.replica.state(turn, partition)?.unsure;
        if busy || !others.iter().all(|owner| self.view.is_up(*owner)) {
            self.scrub.cannot_ask(now.mono_us);
            return Ok(());
        }
        let wall_ms = now.wall_ms;
        let digest = self.replica.digest(turn, partition, from, None, PIECE_ROWS, wall_ms)?;
        self.stats.add("scrub_rows_total", digest.rows);
        if digest.unseen > 0 {
            // They reach the others when they are entered.
            self.stats.add("scrub_findings_total", 1);
            self.stats.add("scrub_rows_unseen_total", digest.unseen);
            self.replica.begin_sync(turn, partition)?;
        }
        let number = self.next;
        self.next += 1;
        let seen = self.replica.state(turn, partition)?.seen.clone();
        self.scrub_seen = seen.clone();
        for owner in &others {
            let seen = seen.clone();
            background(out, *owner, partition, Body::Compare { number, seen, from, to: digest.next, wall_ms });
        }
        let finding = self.scrub.ask(number, digest.sum, digest.next, digest.rows, others.into_iter(), now.mono_us);
        self.found(finding, turn)
    }

    /// What a scrub found is told by the host, which sees the count; here it is repaired if it is this node that is wrong.
    pub(super) fn found(&mut self, finding: Option<Finding>, turn: &mut Turn) -> Result<(), StoreError> {
        let Some(finding) = finding else { return Ok(()) };
        self.stats.add("scrub_findings_total", 1);
        let text = match finding {
            // What has been taken since may be nowhere else: it must not be forgotten with the rest.
            Finding::OddOneOut(partition) if self.replica.state(turn, partition)?.seen != self.scrub_seen => {
                format!("{partition:?} here is not what all other owners held, and has changed since: scrub again")
            }
            Finding::OddOneOut(partition) => {
                self.stats.add("scrub_partitions_forgotten_total", 1);
                self.replica.forget_partition(turn, partition)?;
                format!("{partition:?} here is not what all other owners hold: it is dropped and taken from them anew")
            }
            Finding::Differs(partition, others) => {
                let names: Vec<&str> = others.iter().map(|node| self.view.name_of(*node)).collect();
                format!("{partition:?} here is not what {} holds, and it cannot be told who is wrong", names.join(", "))
            }
        };
        self.alarms.push(text);
        Ok(())
    }

    /// What a person must be told, once.
    pub fn take_alarms(&mut self) -> Vec<String> {
        std::mem::take(&mut self.alarms)
    }
}
