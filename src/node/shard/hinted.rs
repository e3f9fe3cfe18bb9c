//! Hints on their way to their owners, or to others in their stead.

use crate::data::clock::Now;
use crate::data::id::{NodeId, Partition};
use crate::node::planted::Planted;
use crate::node::replica::Turn;
use crate::node::turn::Outbox;
use crate::storage::StoreError;
use crate::wire::message::{Body, Role};

use super::{Collapse, Delivery, Shard, background};

/// A page of hints that is not acknowledged for this long is sent again.
const HINT_RETRY_US: u64 = 3_000_000;

impl Shard {
    /// Hints fill so much of their room that those collapse which the other owners can bring themselves.
    pub(super) fn is_short_of_room(&self) -> bool {
        self.hints.bytes > self.options.hint_bytes_max / 4 * 3
    }

    /// Hands hints for an owner that is away, or fenced, to the other owners instead. When enough of them hold the writes durably,
    /// exchange brings those to the one that is away, and the hints go.
    pub(super) fn collapse_hints(
        &mut self,
        now: Now,
        owner: NodeId,
        partition: Partition,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let view = self.view.clone();
        let is_there = |node: &NodeId| *node != owner && view.is_up(*node) && !self.fences.is_fenced(&view, *node);
        let others: Vec<NodeId> = view.owners(partition).filter(is_there).collect();
        // As many as a quorum of stand-ins would have been, so that no acknowledgement gets weaker.
        let needed = if self.fences.is_fenced(&view, owner) { 1 } else { 2.min(view.owner_count().saturating_sub(1)) };
        if others.len() < needed.max(1) {
            return Ok(());
        }
        for (at, delta) in self.hints.page(turn, owner, partition, self.options.page_bytes)? {
            if self.collapses.contains_key(&at) {
                continue;
            }
            let waiting = others.iter().copied().filter(|node| *node != self.options.me).collect();
            let collapse = Collapse { waiting, deadline_us: now.mono_us + HINT_RETRY_US };
            if others.contains(&self.options.me) {
                self.replica.take(turn, now, &delta, false)?;
                out.sync = true;
            }
            for to in &collapse.waiting {
                let ticket = self.next;
                self.next += 1;
                self.collapsing.insert(ticket, at.clone());
                let delta = delta.clone();
                background(out, *to, partition, Body::Replicate { ticket, delta, role: Role::OwnerOfHint, sync: true });
            }
            if collapse.waiting.is_empty() {
                self.hints.drop_one(turn, &at)?;
                self.stats.add("hints_collapsed_total", 1);
            } else {
                self.collapses.insert(at, collapse);
            }
        }
        Ok(())
    }

    pub(super) fn take_collapsed(
        &mut self,
        from: NodeId,
        at: Vec<u8>,
        taken: bool,
        turn: &mut Turn,
    ) -> Result<(), StoreError> {
        let Some(collapse) = self.collapses.get_mut(&at) else { return Ok(()) };
        if taken {
            collapse.waiting.remove(&from);
        }
        if !taken || collapse.waiting.is_empty() {
            self.collapses.remove(&at);
        }
        if taken && !self.collapses.contains_key(&at) {
            self.hints.drop_one(turn, &at)?;
            self.stats.add("hints_collapsed_total", 1);
        }
        Ok(())
    }

    /// Sends the next hints of a partition to their owner, unless some are under way.
    pub(super) fn deliver_hints(
        &mut self,
        now: Now,
        owner: NodeId,
        partition: Partition,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let under_way =
            self.deliveries.values().any(|delivery| delivery.owner == owner && delivery.partition == partition);
        if under_way || !self.view.is_up(owner) || self.fences.is_fenced(&self.view, owner) {
            return Ok(());
        }
        if owner == self.options.me {
            for (at, delta) in self.hints.page(turn, owner, partition, self.options.page_bytes)? {
                self.replica.take(turn, now, &delta, false)?;
                self.hints.drop_one(turn, &at)?;
            }
            return Ok(());
        }
        for (at, delta) in self.hints.page(turn, owner, partition, self.options.page_bytes)? {
            let ticket = self.next;
            self.next += 1;
            let deadline_us = now.mono_us + HINT_RETRY_US;
            if self.options.planted == Planted::HintsDroppedEarly {
                self.hints.drop_one(turn, &at)?;
            }
            self.deliveries.insert(ticket, Delivery { owner, partition, at, deadline_us });
            // The owner fsyncs before it acknowledges: the hint may be the only durable copy.
            background(out, owner, partition, Body::Replicate { ticket, delta, role: Role::OwnerOfHint, sync: true });
        }
        Ok(())
    }
}
