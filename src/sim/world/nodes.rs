//! A node: started, run turn by turn as a host does it, failed, killed, and robbed of what its disk held.

use super::events::Event;
use super::{COLLECT_REST_US, INPUTS_MAX, World};
use crate::data::clock::Now;
use crate::data::id::{Incarnation, StoreId};
use crate::data::op::{RequestError, Response};
use crate::node::planted::Planted;
use crate::node::replica::Turn;
use crate::node::shard::Shard;
use crate::node::turn::{Input, Outbox, ShardOptions};
use crate::sim::check::answers::Facts;
use crate::sim::check::receipts;
use crate::sim::disk::Broken;
use crate::sim::ghost::Knowledge;
use crate::storage::{Storage, StoreError};
use crate::wire::message::Refusal;

/// So few that objects are forgotten and read again.
const OBJECTS_BYTES: u64 = 8 << 10;

impl World {
    pub(super) fn start(&mut self, at: usize) {
        let reality: Vec<bool> = (0..self.nodes.len())
            .map(|of| of == at || self.now_us == 0 || self.is_reachable(at, of) || self.chaos.chance(100_000))
            .collect();
        let clean = std::mem::take(&mut self.nodes[at].clean);
        if !clean && self.now_us > 0 && self.planted != Planted::IncarnationResumed {
            self.nodes[at].incarnation = Incarnation(self.identity.draw());
            self.count("sim_incarnations_minted", 1);
        }
        let stores: Vec<StoreId> = self.nodes.iter().map(|node| node.store).collect();
        let node = &mut self.nodes[at];
        node.stores = reality.iter().zip(stores).map(|(up, store)| if *up { store } else { StoreId(0) }).collect();
        node.up = reality;
        let view = self.view_of(at);
        let now = self.now_of(at);
        let mut options = ShardOptions::new(self.nodes[at].id);
        options.hint_bytes_max = self.plan.hint_bytes_max;
        options.log_keep_us = self.plan.log_keep_us;
        options.page_bytes = self.plan.page_bytes;
        options.op_id_window_ms = self.plan.op_id_window_ms;
        options.settle_us = self.plan.settle_us;
        options.collect_rest_us = COLLECT_REST_US;
        options.horizon_us = self.plan.horizon_us;
        options.objects_bytes = OBJECTS_BYTES;
        options.store = self.nodes[at].store;
        options.planted = self.planted;
        let node = &mut self.nodes[at];
        node.process += 1;
        node.inbox.clear();
        node.turn_due = false;
        node.wake_at = u64::MAX;
        node.paused_until = 0;
        node.failed = false;
        node.disk.set_broken(Broken::Nothing);
        node.door.clear();
        let process = node.process;
        let mut turn = Turn::new(&node.disk as &dyn Storage);
        let shard =
            Shard::start(options, view, node.incarnation, now, &mut turn).expect("a node starts on a disk that works");
        let batch = turn.into_batch();
        assert!(batch.is_empty(), "a start writes nothing");
        node.shard = Some(shard);
        self.trace.mark(&[self.now_us, 2, at as u64, self.nodes[at].incarnation.0]);
        self.trace.line(|| format!("{:>10} {at} starts as {:?}", self.now_us, self.nodes[at].incarnation));
        self.after(self.plan.sync_every_us, Event::Sync { node: at, process });
        self.turn(at);
    }

    pub(super) fn now_of(&self, at: usize) -> Now {
        Now { mono_us: self.now_us + self.nodes[at].mono_offset_us, wall_ms: self.wall_ms(at) }
    }

    pub(super) fn push_input(&mut self, to: usize, input: Input) {
        if let Input::Request { ticket, .. } = &input {
            self.arrived.insert(*ticket);
        }
        self.nodes[to].inbox.push_back(input);
        self.want_turn(to);
    }

    pub(super) fn want_turn(&mut self, at: usize) {
        if self.nodes[at].turn_due || self.nodes[at].paused_until > self.now_us {
            return;
        }
        self.nodes[at].turn_due = true;
        let process = self.nodes[at].process;
        let lag = if self.nodes[at].slow_until > self.now_us { 15_000 } else { 300 };
        let wait = self.ties.between(1, lag);
        self.after(wait, Event::Turn { node: at, process });
    }

    /// One turn of a node, as a host does it.
    pub(super) fn turn(&mut self, at: usize) {
        if self.nodes[at].paused_until > self.now_us {
            return;
        }
        if self.nodes[at].shard.is_none() {
            return;
        }
        if self.nodes[at].failed {
            let inputs: Vec<Input> = self.nodes[at].inbox.drain(..).collect();
            return inputs.into_iter().for_each(|input| self.refuse(at, input, None));
        }
        let now = self.now_of(at);
        let taken = self.nodes[at].inbox.len().min(INPUTS_MAX);
        let mut inputs: Vec<Input> = self.nodes[at].inbox.drain(..taken).collect();
        if self.nodes[at].low_until > self.now_us {
            let grows = |input: &Input| match input {
                Input::Request { request, .. } => request.op.asks_for_room(),
                Input::Message { message, .. } => message.body.grows(),
                _ => false,
            };
            let (refused, rest) = inputs.into_iter().partition(grows);
            inputs = rest;
            let refused: Vec<Input> = refused;
            self.count("sim_inputs_without_room", refused.len() as u64);
            refused.into_iter().for_each(|input| self.refuse(at, input, Some("the disk is nearly full")));
        }
        let node = &mut self.nodes[at];
        let broken = node.disk.set_broken(Broken::Nothing);
        let facts = Facts::gather(&node.disk, &inputs).expect("the disk works for now");
        node.disk.set_broken(broken);
        let shard = node.shard.as_mut().expect("looked at just above");
        let mut turn = Turn::new(&node.disk as &dyn Storage);
        let mut out = Outbox::default();
        let mut result = Ok(());
        let mut left = inputs.into_iter();
        for input in left.by_ref() {
            result = shard.handle(now, input, &mut turn, &mut out);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| shard.handle_timeout(now, &mut turn, &mut out));
        if let Err(error) = result {
            let left: Vec<Input> = left.collect();
            drop(turn);
            left.into_iter().rev().for_each(|input| self.nodes[at].inbox.push_front(input));
            return self.fail(at, &error);
        }
        shard.finish(&mut turn);
        let batch = turn.into_batch();
        let incarnation = node.incarnation;
        let crash = !self.healed && self.chaos.chance(self.plan.crash_at_turn_ppm);
        if crash && self.planted == Planted::RepliesBeforeCommit {
            self.speak(at, out);
            return self.kill(at, false, 10_000);
        }
        if !batch.is_empty() || out.sync {
            if let Err(error) = node.disk.commit(&batch, out.sync) {
                // It may have been written all the same.
                if self.chaos.chance(500_000) {
                    self.nodes[at].disk.set_broken(Broken::Nothing);
                    self.nodes[at].disk.commit(&batch, false).expect("the disk works for now");
                    self.ghost.now_us = self.now_us;
                    if let Err(message) = self.ghost.committed(at, incarnation, &batch, false) {
                        self.violate("dots", message);
                    }
                    self.nodes[at].disk.set_broken(Broken::Everything);
                }
                return self.fail(at, &error);
            }
            self.ghost.now_us = self.now_us;
            if let Err(message) = self.ghost.committed(at, incarnation, &batch, out.sync) {
                self.violate("dots", message);
            }
        }
        self.judge_turn(at, incarnation, &facts, &batch, &out);
        if crash {
            self.count("crash_between_commit_and_send", 1);
            let down_us = self.chaos.between(10_000, 3_000_000);
            self.kill(at, self.now_us.is_multiple_of(2), down_us);
            return;
        }
        let node = &mut self.nodes[at];
        let shard = node.shard.as_mut().expect("it just ran");
        if shard.take_amnesia() {
            let incarnation = Incarnation(self.identity.draw());
            shard.reincarnate(incarnation);
            node.incarnation = incarnation;
            self.count("amnesia", 1);
        }
        let mono_offset_us = self.nodes[at].mono_offset_us;
        let next = self.nodes[at].shard.as_ref().expect("it just ran").poll_timeout().saturating_sub(mono_offset_us);
        let next = next.max(self.now_us + 1);
        if next < self.nodes[at].wake_at {
            self.nodes[at].wake_at = next;
            let process = self.nodes[at].process;
            self.after(next - self.now_us, Event::Wake { node: at, process });
        }
        if !self.nodes[at].inbox.is_empty() {
            self.want_turn(at);
        }
        let fenced_out = self.nodes[at].shard.as_ref().is_some_and(|shard| shard.fenced_out().is_some());
        self.speak(at, out);
        self.check_door(at);
        if fenced_out {
            // A person reads the log, and does as it says.
            self.count("members_fenced_out", 1);
            let down_us = self.chaos.between(10_000, 2_000_000);
            self.kill(at, false, down_us);
            self.wipe(at);
        }
    }

    /// The store failed: as a lane does it, nothing of the turn is said, and everybody who waits is told.
    pub(super) fn fail(&mut self, at: usize, error: &StoreError) {
        self.count("stores_failed", 1);
        self.trace.line(|| format!("{:>10} {at} fails: {error}", self.now_us));
        let now = self.now_of(at);
        let cause = error.to_string();
        let failed = |mutation| RequestError::StoreFailed { node: format!("n{at}"), cause: cause.clone(), mutation };
        let mut out = Outbox::default();
        if let Some(shard) = self.nodes[at].shard.as_mut() {
            shard.fail_all(now, &mut out, failed);
        }
        self.nodes[at].failed = true;
        let answered: Vec<u64> = out.replies.iter().map(|(ticket, _)| *ticket).collect();
        let others = self.nodes[at].door.keys().filter(|ticket| !answered.contains(ticket));
        let response = || Response { result: Err(failed(true)), receipt: Default::default() };
        let others: Vec<(u64, Response)> = others.map(|ticket| (*ticket, response())).collect();
        // Those are answered that have come in; what is still under way to the node is refused when it comes.
        let waiting: Vec<u64> = self.nodes[at]
            .inbox
            .iter()
            .filter_map(|input| match input {
                Input::Request { ticket, .. } => Some(*ticket),
                _ => None,
            })
            .collect();
        let arrived = |ticket: &u64| self.arrived.contains(ticket) && !waiting.contains(ticket);
        out.replies.extend(others.into_iter().filter(|(ticket, _)| arrived(ticket)));
        self.speak(at, out);
        self.want_turn(at);
    }

    /// What a node without a store, or without room (`busy`), says.
    pub(super) fn refuse(&mut self, at: usize, input: Input, busy: Option<&str>) {
        let name = format!("n{at}");
        let failed = || RequestError::StoreFailed { node: name.clone(), cause: "fenced".into(), mutation: false };
        match input {
            Input::Request { ticket, .. } => {
                let error = busy.map_or_else(failed, |busy| RequestError::Overloaded(busy.to_string()));
                let response = Response { result: Err(error), receipt: Default::default() };
                self.speak(at, Outbox { replies: vec![(ticket, response)], ..Outbox::default() });
            }
            Input::Message { from, message } => {
                let refusal = match busy {
                    Some(busy) => Refusal::Busy { cause: busy.to_string() },
                    None => Refusal::StoreFailed { cause: "fenced".to_string() },
                };
                if let (Some(answer), Some(to)) = (message.refused(&name, refusal), self.number_of(from)) {
                    self.send(at, to, answer);
                }
            }
            _ => {}
        }
    }

    pub(super) fn speak(&mut self, at: usize, out: Outbox) {
        for (to, _, message) in out.sends {
            let Some(to) = self.number_of(to) else { continue };
            self.send(at, to, message);
        }
        for (ticket, response) in out.replies {
            if self.nodes[at].door.remove(&ticket).is_none() {
                self.violate("deadlines", format!("node {at} answered {ticket:x}, which nobody waits for: twice?"));
                return;
            }
            self.trace.mark(&[self.now_us, 3, at as u64, ticket, u64::from(response.result.is_ok())]);
            self.trace.line(|| format!("{:>10} {at} answers call {} {response:?}", self.now_us, ticket >> 8));
            let call = &self.history.calls[(ticket >> 8) as usize];
            if let Err(message) = receipts::check(self, call, &response) {
                self.violate("receipts", message);
            }
            let wait = self.net.between(50, 500);
            self.after(wait, Event::Answer { ticket, response });
        }
    }

    pub(super) fn check_door(&mut self, at: usize) {
        let now_us = self.now_us;
        if let Some((ticket, due)) = self.nodes[at].door.iter().find(|(_, due)| **due < now_us) {
            let message = format!("node {at} has not answered call {} that was due at {due}", ticket >> 8);
            self.violate("deadlines", message);
        }
    }

    pub(super) fn kill(&mut self, at: usize, power: bool, down_us: u64) {
        if self.nodes[at].shard.is_none() {
            return;
        }
        self.stop(at);
        if power {
            self.cut_power(at);
        }
        self.after(down_us, Event::Start { node: at });
    }

    pub(super) fn stop(&mut self, at: usize) {
        let Some(shard) = self.nodes[at].shard.take() else { return };
        for (name, count) in shard.status().stats.iter() {
            *self.coverage.entry(name.to_string()).or_insert(0) += count;
        }
        self.trace.mark(&[self.now_us, 4, at as u64]);
        self.trace.line(|| format!("{:>10} {at} stops", self.now_us));
        self.nodes[at].inbox.clear();
        self.nodes[at].door.clear();
        self.tell_about(at);
        let id = self.nodes[at].id;
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            if self.chaos.chance(500_000) {
                let process = self.nodes[other].process;
                let wait = self.chaos.between(100, 500_000);
                self.after(wait, Event::Input { to: other, process, input: Input::LinkDown(id) });
            }
        }
    }

    pub(super) fn cut_power(&mut self, at: usize) {
        let before = self.knowledge(at);
        let unsynced = self.nodes[at].disk.unsynced();
        let keep = if self.chaos.chance(500_000) { 0 } else { self.chaos.below(unsynced as u64 + 1) as usize };
        self.nodes[at].disk.cut_power(keep);
        self.ghost.forgot(at, Some((unsynced - keep) as u64), self.now_us);
        self.count("power_cut_batches_lost", (unsynced - keep) as u64);
        self.trace.line(|| format!("{:>10} {at} loses the last {} batches", self.now_us, unsynced - keep));
        self.note_lost(at, &before);
    }

    pub(super) fn wipe(&mut self, at: usize) {
        let before = self.knowledge(at);
        self.nodes[at].disk.wipe();
        self.nodes[at].store = StoreId(self.identity.draw());
        self.ghost.forgot(at, None, self.now_us);
        self.trace.line(|| format!("{:>10} {at} is wiped", self.now_us));
        self.note_lost(at, &before);
    }

    pub(super) fn restore(&mut self, at: usize) {
        let before = self.knowledge(at);
        if let Some(lost) = self.nodes[at].disk.restore() {
            self.ghost.forgot(at, Some(lost), self.now_us);
            self.count("sim_disks_restored", 1);
            self.trace.line(|| format!("{:>10} {at} has an old disk, {lost} batches ago", self.now_us));
            self.note_lost(at, &before);
        }
    }

    pub(super) fn note_lost(&mut self, at: usize, before: &Knowledge) {
        let disk = &self.nodes[at].disk;
        let broken = disk.set_broken(Broken::Nothing);
        self.ghost.reads_anew(at, disk, self.plan.partitions).expect("the disk works for now");
        disk.set_broken(broken);
        let after: Vec<Knowledge> = (0..self.nodes.len()).map(|node| self.knowledge(node)).collect();
        let lost = self.ghost.note_lost(before, &after);
        self.count("dots_lost_with_disks", lost as u64);
    }

    pub(super) fn knowledge(&self, at: usize) -> Knowledge {
        let disk = &self.nodes[at].disk;
        let broken = disk.set_broken(Broken::Nothing);
        let knowledge = Knowledge::read(disk, self.plan.partitions).expect("the disk works for now");
        disk.set_broken(broken);
        knowledge
    }
}
