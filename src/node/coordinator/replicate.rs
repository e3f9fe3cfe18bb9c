//! Replicating: owners and stand-ins are asked to keep it, and their acknowledgements counted.

use crate::data::clock::Hlc;
use crate::data::consistency::{Ack, Level};
use crate::data::id::{NodeId, Partition};
use crate::data::mutation::Basis;
use crate::data::object::Object;
use crate::data::op::{Key, Reply, RequestError};
use crate::data::row::Row;
use crate::node::planted::Planted;
use crate::storage::StoreError;
use crate::wire::message::{BESIDE_MAX, Body, Kept, Refusal, Role, Scope, Strays, Ticket};

use super::few::{NodeMap, NodeSet};
use super::moving;
use super::plan::{self, Facts, Joins, Reach};
use super::quorum::Quorum;
use super::{
    Coordinator, Desk, Payload, Replicating, Running, STAMPS_MAX, Stage, Standing, ack, is_stamped, owners, refused,
    restamped, timeout,
};

impl Coordinator {
    /// Could the write's level be met by those who are up? Asked before anything is written.
    pub(super) fn reach(&self, desk: &Desk, running: &Running) -> Result<(), RequestError> {
        let partition = running.partition;
        let me = desk.options.me;
        let consistency = &running.request.consistency;
        let quorum = Quorum::write(consistency, owners(desk.view, partition), desk.view.zone_of(me));
        let mut hope = NodeMap::default();
        let mut away = Vec::new();
        for owner in desk.view.owners(partition) {
            if owner == me || desk.view.is_up(owner) {
                hope.insert(owner, ack(desk, owner, None, true));
            } else {
                away.push(owner);
            }
        }
        let counts_stand_ins = !consistency.owners_only || consistency.write == Level::Any;
        if counts_stand_ins {
            let stand_ins = desk.view.stand_ins(partition).filter(|node| *node == me || desk.view.is_up(*node));
            for (owner, node) in away.into_iter().zip(stand_ins) {
                hope.insert(node, ack(desk, node, Some(owner), true));
            }
        }
        if quorum.met(&hope) { Ok(()) } else { Err(self.unavailable(desk, partition, quorum.needed(), &hope)) }
    }

    pub(super) fn unavailable(
        &self,
        desk: &Desk,
        partition: Partition,
        needed: u8,
        hope: &NodeMap<Ack>,
    ) -> RequestError {
        let missing = desk
            .view
            .owners(partition)
            .filter(|owner| !hope.contains(*owner))
            .map(|owner| desk.view.name_of(owner).to_string())
            .collect();
        RequestError::Unavailable { needed, reachable: hope.len() as u8, missing }
    }

    pub(super) fn replicate(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        payload: Payload,
        reply: Reply,
        stamps: u8,
    ) -> Result<(), StoreError> {
        let me = desk.options.me;
        let partition = running.partition;
        let consistency = running.request.consistency;
        let sync = consistency.durable.is_some();
        desk.out.sync |= sync;
        let quorum = Quorum::write(&consistency, owners(desk.view, partition), desk.view.zone_of(me));
        running.receipt.needed = quorum.needed();
        let owner = desk.view.is_owner(partition, me);
        let mut replicating = Box::new(Replicating {
            quorum,
            payload,
            reply,
            acks: NodeMap::default(),
            pending: NodeMap::default(),
            stood_in: NodeSet::default(),
            refused: None,
            refusers: NodeSet::default(),
            stamps,
            sync,
        });
        // A stand-in that keeps nothing of it acknowledges nothing.
        let keeps = owner || !matches!(&replicating.payload, Payload::Standing(Standing { note: None, .. }));
        let my_place = if owner { None } else { desk.view.owners(partition).find(|node| !desk.view.is_up(*node)) };
        if keeps && (owner || my_place.is_some() || consistency.write == Level::Any) {
            let place = if owner { None } else { my_place.or_else(|| desk.view.owners(partition).next()) };
            replicating.acks.insert(me, ack(desk, me, place, sync));
            replicating.stood_in.extend(place);
        }
        let ticket = self.ticket();
        let others: Vec<NodeId> = desk.view.owners(partition).filter(|node| *node != me).collect();
        for node in others {
            if desk.view.is_up(node) {
                self.send_payload(desk, ticket, partition, &running.request.key, &replicating, node, None);
                replicating.pending.insert(node, None);
            } else {
                self.stand_in(desk, ticket, &running, &mut replicating, node);
            }
        }
        if replicating.quorum.met(&replicating.acks) {
            return self.written(desk, running, replicating);
        }
        running.asked_us = desk.now.mono_us;
        self.stand_in_for_silent(desk, ticket, &running, &mut replicating);
        running.wake_us = running.deadline_us.min(desk.now.mono_us + desk.options.stand_in_after_us);
        running.stage = Stage::Replicating(replicating);
        self.park(ticket, running);
        Ok(())
    }

    /// Asks the next healthy node past the owners to keep the write for `owner`.
    pub(super) fn stand_in(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        running: &Running,
        replicating: &mut Replicating,
        owner: NodeId,
    ) {
        let me = desk.options.me;
        if !matches!(replicating.payload, Payload::Delta(_)) || !replicating.stood_in.insert(owner) {
            return;
        }
        let node = desk.view.stand_ins(running.partition).find(|node| {
            *node != me
                && desk.view.is_up(*node)
                && !replicating.pending.contains(*node)
                && !replicating.acks.contains(*node)
                && !replicating.refusers.contains(*node)
        });
        if let Some(node) = node {
            desk.stats.add("stand_ins_asked_total", 1);
            self.send_payload(desk, ticket, running.partition, &running.request.key, replicating, node, Some(owner));
            replicating.pending.insert(node, Some(owner));
        }
    }

    /// Who is silent already is not waited for first, where the level cannot do without it.
    fn stand_in_for_silent(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        running: &Running,
        replicating: &mut Replicating,
    ) {
        let is_silent = |node: NodeId| self.patience.is_silent(node, desk.now.mono_us);
        let asked = replicating.pending.iter();
        let silent: Vec<NodeId> =
            asked.filter(|(node, place)| place.is_none() && is_silent(*node)).map(|(node, _)| node).collect();
        if silent.is_empty() {
            return;
        }
        let mut hope = replicating.acks.clone();
        let others = replicating.pending.iter().filter(|(node, _)| !silent.contains(node));
        hope.extend(others.map(|(node, place)| (node, ack(desk, node, *place, replicating.sync))));
        if !replicating.quorum.met(&hope) {
            for owner in silent {
                self.stand_in(desk, ticket, running, replicating, owner);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn send_payload(
        &self,
        desk: &mut Desk,
        ticket: Ticket,
        partition: Partition,
        key: &Key,
        replicating: &Replicating,
        to: NodeId,
        stand_in_for: Option<NodeId>,
    ) {
        let body = match &replicating.payload {
            Payload::Delta(delta) => Body::Replicate {
                ticket,
                delta: delta.clone(),
                role: stand_in_for.map_or(Role::Owner, Role::StandInFor),
                sync: replicating.sync,
            },
            Payload::Standing(standing) => Body::Repair {
                ticket: Some(ticket),
                key: key.clone(),
                rows: standing.rows.clone(),
                entries: standing.entries.clone(),
                note: standing.note.clone(),
                sync: replicating.sync,
            },
        };
        self.send(desk, to, partition, body);
    }

    pub fn handle_ack(
        &mut self,
        desk: &mut Desk,
        from: NodeId,
        ticket: Ticket,
        result: Result<Kept, Refusal>,
    ) -> Result<(), StoreError> {
        let Some(mut running) = self.unpark(ticket) else { return Ok(()) };
        let Stage::Replicating(mut replicating) = std::mem::replace(&mut running.stage, Stage::Starting) else {
            self.park(ticket, running);
            return Ok(());
        };
        let Some(place) = replicating.pending.remove(from) else {
            running.stage = Stage::Replicating(replicating);
            self.park(ticket, running);
            return Ok(());
        };
        if let Ok(Kept { strays: Some(strays), .. }) | Err(Refusal::Ended(strays)) = &result
            && let Some(joins) = self.strayed(desk, &running, &replicating, strays)?
        {
            let above = match &result {
                Ok(Kept { newer: Some(stamp), .. }) => stamp.hlc,
                _ => Hlc(0),
            };
            if self.move_over(desk, &mut running, &mut replicating, joins, above)? {
                let Replicating { payload, reply, stamps, .. } = *replicating;
                return self.replicate(desk, running, payload, reply, stamps + 1);
            }
        }
        match result {
            Ok(Kept { newer: Some(stamp), .. })
                if replicating.stamps < STAMPS_MAX
                    && desk.options.planted != Planted::NotStampedAgain
                    && replicating.payload.is_stamped(&running.request.op) =>
            {
                return self.stamp_again(desk, running, replicating, stamp.hlc);
            }
            Ok(kept) => {
                let place = place.filter(|_| desk.options.planted != Planted::StandInsCountAsOwners);
                replicating.acks.insert(from, ack(desk, from, place, kept.fsynced));
                if desk.options.planted == Planted::AnswersCountTwice
                    && let Some(other) = replicating.pending.nodes().next()
                {
                    replicating.acks.insert(other, ack(desk, other, None, kept.fsynced));
                }
            }
            Err(refusal) => {
                replicating.refused = Some(refused(desk, from, refusal.clone()));
                replicating.refusers.insert(from);
                if !matches!(refusal, Refusal::ClockAhead { .. }) {
                    let owner = place.unwrap_or(from);
                    replicating.stood_in.remove(owner);
                    self.stand_in(desk, ticket, &running, &mut replicating, owner);
                }
            }
        }
        if replicating.quorum.met(&replicating.acks) {
            return self.written(desk, running, replicating);
        }
        if replicating.pending.is_empty() {
            return self.fell_short(desk, running, replicating);
        }
        running.stage = Stage::Replicating(replicating);
        self.park(ticket, running);
        Ok(())
    }

    /// A replica held a newer write that this one did not know: the later request must win, so it is stamped above it.
    pub(super) fn stamp_again(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        replicating: Box<Replicating>,
        above: Hlc,
    ) -> Result<(), StoreError> {
        let Payload::Delta(delta) = replicating.payload else { return Ok(()) };
        desk.stats.add("stamped_again_total", 1);
        running.receipt.stamped_again = true;
        let owner = desk.view.is_owner(running.partition, desk.options.me);
        let again = desk.replica.draw(desk.turn, desk.now, &delta.key, delta.op_id, delta.remember, above, |mint| {
            restamped(&running.request.op, &delta, mint)
        })?;
        if !self.keep_here(desk, &running, &again, owner)? {
            // Round one has been sent.
            let error = timeout(desk, &running, replicating.quorum.needed(), &replicating.acks, true);
            return self.finish(desk, running, Err(error));
        }
        // Round two carries what was stamped; what was not has been sent and need not be again, but its acks went with round one.
        let mut whole = delta;
        whole.mutations.retain(|mutation| !is_stamped(&running.request.op, mutation));
        whole.mutations.extend(again.mutations);
        whole.made = again.made;
        self.replicate(desk, running, Payload::Delta(whole), replicating.reply, replicating.stamps + 1)
    }

    /// Does what was put belong elsewhere, as an owner thinks?
    fn strayed(
        &self,
        desk: &mut Desk,
        running: &Running,
        replicating: &Replicating,
        strays: &Strays,
    ) -> Result<Option<Joins>, StoreError> {
        let Payload::Delta(delta) = &replicating.payload else { return Ok(None) };
        if delta.basis.is_none()
            || replicating.stamps >= STAMPS_MAX
            || strays.beside.len() > BESIDE_MAX
            || !desk.view.is_owner(running.partition, desk.options.me)
        {
            return Ok(None);
        }
        let here = Object::new(desk.replica.read(desk.turn, &running.request.key, &Scope::Glance)?);
        let wall_ms = desk.now.wall_ms;
        let state = desk.replica.state(desk.turn, running.partition)?;
        let knows = |dot| state.seen.contains(dot) || state.dead.contains(&dot);
        Ok(moving::strayed(strays, delta, &here, knows, wall_ms))
    }

    /// A replica knows of a deadline, or of a new beginning, that this one did not: what was put, as far as it still stands, is put once
    /// more where it belongs. `false`: nothing of it stands, and nothing was done.
    fn move_over(
        &mut self,
        desk: &mut Desk,
        running: &mut Running,
        replicating: &mut Replicating,
        joins: Joins,
        above: Hlc,
    ) -> Result<bool, StoreError> {
        let Payload::Delta(delta) = &mut replicating.payload else { return Ok(false) };
        let request = &running.request;
        let rows = desk.replica.read(desk.turn, &request.key, &plan::scope(&request.op, Reach::Whole))?;
        let object = Object::new(rows);
        let promised_ms = desk.replica.state(desk.turn, running.partition)?.promised.wall_ms();
        let facts = Facts {
            key: &request.key,
            object: &object,
            others: &Object::default(),
            beside: None,
            joins: Some(joins),
            wall_ms: desk.now.wall_ms.max(promised_ms),
            siblings_max: u64::MAX,
            op_id: request.op_id,
            fresh: request.fresh,
            counts_on: desk.replica.holds_its_own(desk.turn, running.partition)?,
            planted: desk.options.planted,
        };
        let stamps = object.rows.values().filter_map(Row::stamp).map(|stamp| stamp.hlc);
        let above = stamps.fold(above, Hlc::max);
        let (op_id, remember) = (request.op_id, request.remember);
        let (mut whole, mut reply) = (delta.clone(), None);
        let again = desk.replica.draw(desk.turn, desk.now, &request.key, op_id, remember, above, |mint| {
            let (mutations, told) = moving::moved(&request.op, &facts, &mut whole, mint).unzip();
            reply = told;
            mutations.unwrap_or_default()
        })?;
        if again.mutations.is_empty() {
            return Ok(false);
        }
        desk.stats.add("moved_over_total", 1);
        running.receipt.stamped_again = true;
        desk.replica.take(desk.turn, desk.now, &again, true)?;
        whole.mutations.extend(again.mutations);
        whole.made = again.made;
        whole.basis = Some(Basis::default());
        *delta = whole;
        // The context must name what stands.
        if let Some(told @ Reply::Siblings { .. }) = reply {
            replicating.reply = told;
        }
        Ok(true)
    }

    pub(super) fn written(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        replicating: Box<Replicating>,
    ) -> Result<(), StoreError> {
        running.receipt.acks = replicating.acks.values().cloned().collect();
        self.finish(desk, running, Ok(replicating.reply))
    }

    /// Nobody is left who could acknowledge.
    pub(super) fn fell_short(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        replicating: Box<Replicating>,
    ) -> Result<(), StoreError> {
        running.receipt.acks = replicating.acks.values().cloned().collect();
        let error = replicating
            .refused
            .unwrap_or_else(|| timeout(desk, &running, replicating.quorum.needed(), &replicating.acks, true));
        self.finish(desk, running, Err(error))
    }
}
