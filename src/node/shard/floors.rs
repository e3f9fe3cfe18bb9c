//! Asking for floors, answering for one, collecting below them; and who is fenced, so that they need not be waited for.

use crate::data::clock::Now;
use crate::data::id::{NodeId, Partition, StoreId};
use crate::data::op::RequestError;
use crate::node::floor::Cut;
use crate::node::planted::Planted;
use crate::node::replica::Turn;
use crate::node::replica::collect::Position;
use crate::node::turn::Outbox;
use crate::storage::StoreError;
use crate::wire::message::{Answer, Body, Fence, Question};

use super::{FENCED_OUT, Shard, background};

/// Partitions that begin to be asked for a floor in one round.
const ASKS_MAX: usize = 64;
/// Between two steps of the collector: whoever waits comes first.
const COLLECT_PAUSE_US: u64 = 5_000;

impl Shard {
    /// Begins to ask for a floor where something waits for one, and goes on where it has begun.
    pub(super) fn seek_floors(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let view = self.view.clone();
        let me = self.options.me;
        let without = self.fences.without(&view, me, now.mono_us);
        let all: Vec<NodeId> = view.layout.members.iter().map(|member| member.id).collect();
        self.floors.leave_out(&without, &all);
        let wall_ms = self.replica.clock.last().wall_ms().max(now.wall_ms);
        let begin: Vec<Partition> = self
            .replica
            .partitions_loaded()
            .map(|(partition, _)| partition)
            .filter(|partition| view.is_owner(*partition, self.options.me))
            .filter(|partition| self.replica.has_due(*partition, wall_ms))
            .filter(|partition| self.floors.may_begin(*partition, now.mono_us))
            .filter(|partition| self.collecting.as_ref().is_none_or(|(at, ..)| at != partition))
            .take(ASKS_MAX)
            .collect();
        for partition in begin {
            let began = self.replica.clock.tick(now, crate::data::clock::Hlc(0));
            if self.options.planted == Planted::FloorNotAsked {
                let target = self.replica.state(turn, partition)?.seen.clone();
                self.collecting = Some((partition, Cut { floor: began, began, target }, Position::default()));
                self.collect_at_us = now.mono_us;
                break;
            }
            let number = self.next;
            self.next += 1;
            self.floors.begin(partition, number, began, now.mono_us, all.iter().copied(), without.clone());
        }
        self.ask(now, turn, out)
    }

    pub(super) fn ask(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let view = self.view.clone();
        let members: Vec<NodeId> = view.layout.members.iter().map(|member| member.id).collect();
        loop {
            let me = self.options.me;
            let owners = |partition| view.owners(partition).collect();
            let questions = self.floors.poll(now.mono_us, &members, owners, |node| node == me || view.is_up(node));
            let mut own = Vec::new();
            for (partition, node, number, question) in questions {
                if node == me {
                    own.push((partition, number, self.answer(now, partition, question, turn, out)?));
                } else {
                    background(out, node, partition, Body::Ask { number, question });
                }
            }
            if own.is_empty() {
                break;
            }
            for (partition, number, answer) in own {
                self.floors.take(now.mono_us, me, partition, number, answer);
            }
        }
        self.begin_collecting(now);
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        now: Now,
        partition: Partition,
        question: Question,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<Answer, StoreError> {
        let keeps = self.hints.has_any(partition) && self.options.planted != Planted::HintsHoldNothing;
        Ok(match question {
            Question::Floor { without } if !self.fence(now, &without, turn, out) || keeps => Answer::Floor(None),
            Question::Floor { .. } => {
                // A promise that a power cut takes back is none.
                out.sync = true;
                Answer::Floor(Some(self.replica.promise(turn, now, partition)?))
            }
            Question::Away { members } => {
                let is_away =
                    |fence: &Fence| self.fences.is_away(&self.view, *fence, now.mono_us, self.options.settle_us);
                Answer::Away(members.iter().all(is_away) || self.options.planted == Planted::FencesNotAgreed)
            }
            Question::Hints => Answer::Hints(keeps),
            Question::Seen => Answer::Seen(self.replica.state(turn, partition)?.seen.clone()),
        })
    }

    /// Are all of these fenced here, now if not before?
    pub(super) fn fence(&mut self, now: Now, without: &[Fence], turn: &mut Turn, out: &mut Outbox) -> bool {
        if self.options.planted == Planted::FencesNotAgreed {
            return true;
        }
        let settle_us = self.options.settle_us;
        without.iter().all(|fence| match self.fences.agree(turn, &self.view, *fence, now.mono_us, settle_us) {
            None => false,
            Some(false) => true,
            Some(true) => {
                out.sync = true;
                self.stats.add("members_fenced_total", 1);
                let name = self.view.name_of(fence.node);
                self.alarms.push(format!(
                    "{name} has been away beyond the horizon and is fenced: empty its data folder before it comes back"
                ));
                true
            }
        })
    }

    /// Another says that this node has been away beyond the horizon.
    pub(super) fn fence_out(&mut self, now: Now, by: NodeId, out: &mut Outbox) {
        self.fenced_out = true;
        let name = self.view.name_of(self.options.me).to_string();
        let by = self.view.name_of(by);
        self.alarms.push(format!("{by} has fenced this node: {FENCED_OUT}"));
        self.fail_all(now, out, |mutation| RequestError::StoreFailed {
            node: name.clone(),
            cause: FENCED_OUT.to_string(),
            mutation,
        });
    }

    /// Why this node takes nothing any more, if others have fenced it.
    pub fn fenced_out(&self) -> Option<&'static str> {
        self.fenced_out.then_some(FENCED_OUT)
    }

    /// Has this node fenced a store?
    pub fn has_fenced(&self, node: NodeId, store: StoreId) -> bool {
        self.fences.has_fenced(node, store)
    }

    /// The partition in which rows are being dropped that nobody needs any more, and below which cut.
    pub fn collecting(&self) -> Option<(Partition, &Cut)> {
        self.collecting.as_ref().map(|(partition, cut, _)| (*partition, cut))
    }

    pub(super) fn begin_collecting(&mut self, now: Now) {
        if self.collecting.is_some() {
            return;
        }
        let replica = &self.replica;
        let next = self.floors.next_cut(now.mono_us, |partition| Some(&replica.loaded(partition)?.seen));
        if let Some((partition, cut)) = next {
            self.stats.add("floors_total", 1);
            self.collecting = Some((partition, cut, Position::default()));
            self.collect_at_us = now.mono_us;
        }
    }

    /// One step of dropping what nobody needs any more.
    pub(super) fn collect(&mut self, now: Now, turn: &mut Turn) -> Result<(), StoreError> {
        self.collect_at_us = u64::MAX;
        let Some((partition, cut, mut position)) = self.collecting.take() else { return Ok(()) };
        if !self.view.is_owner(partition, self.options.me) {
            return Ok(());
        }
        let names = self.view.owners(partition).next() == Some(self.options.me);
        let collected = self.replica.collect(turn, now, partition, &cut, &mut position, names)?;
        self.stats.add("delete_rows_dropped_total", collected.delete_rows);
        self.stats.add("expired_rows_dropped_total", collected.expired_rows);
        self.stats.add("counter_rows_dropped_total", collected.counter_rows);
        self.stats.add("deadlines_dropped_total", collected.deadlines);
        self.stats.add("lives_reopened_total", collected.reopened);
        self.stats.add("op_ids_forgotten_total", collected.op_ids);
        if collected.done {
            self.begin_collecting(now);
        } else {
            self.collecting = Some((partition, cut, position));
            self.collect_at_us = now.mono_us + COLLECT_PAUSE_US;
        }
        Ok(())
    }
}
