//! Naming: an increment that was tried twice may stand in one owner's answer under its operation id and in another's within a total, until
//! they have heard of each other. Who merges the two asks the owners that do not hold the former whether they know the operation by the
//! latter, so that what is read was counted once.
//!
//! Nobody is asked for an answer of one: its owner has said what it knows by itself (`Replica::settle`). A total may contain increments that
//! nobody has heard of but who counted them, so who has not been asked, does not answer, or may have forgotten ([`RECENT_US`]) leaves a
//! doubt, which the receipt tells.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::id::{Dot, NodeId, OpId};
use crate::data::mutation::Delta;
use crate::data::object::Object;
use crate::data::path::Path;
use crate::data::row::{Put, Row};
use crate::node::planted::Planted;
use crate::node::replica::RECENT_US;
use crate::storage::StoreError;
use crate::wire::message::{Body, Ticket};

use super::merge::Held;
use super::{Coordinator, Desk, Running, Stage};

/// Operations that are asked about for one answer, at most.
const OPERATIONS_MAX: usize = 4_096;

/// A merged answer that may count an increment twice.
pub(super) struct Naming {
    object: Object,
    owner: bool,
    doubts: BTreeMap<OpId, Path>,
    awaited: BTreeMap<NodeId, Vec<OpId>>,
    /// Some owner has not told of these.
    unheard: BTreeSet<OpId>,
}

impl Coordinator {
    /// Answers a read, once nobody is left to ask whether something is counted twice in it.
    pub(super) fn name(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        mut object: Object,
        owner: bool,
        held: &[(NodeId, Held)],
        hinted: &[Delta],
    ) -> Result<(), StoreError> {
        let partition = running.partition;
        let doubts: BTreeMap<OpId, Path> = object.counted_beside().into_iter().collect();
        if doubts.is_empty() || desk.options.planted == Planted::TalliesNotAsked {
            return self.answer(desk, running, object, owner);
        }
        let merges = held.len() + hinted.len() > 1;
        let is_held =
            |node: NodeId, path: &Path| held.iter().any(|(of, held)| *of == node && held.rows.contains_key(path));
        let wall_ms = desk.now.wall_ms;
        let is_old = |op_id: &OpId| op_id.wall_ms().saturating_add(RECENT_US / 1_000) < wall_ms;
        let mut unheard = BTreeSet::new();
        for (op_id, path) in &doubts {
            if owner {
                match desk.replica.known_op(desk.turn, partition, *op_id)? {
                    Some(known) if known.tally => object.tallied(path, known.dot),
                    None if is_old(op_id) && !is_held(desk.options.me, path) => drop(unheard.insert(*op_id)),
                    _ => {}
                }
            }
            for delta in hinted.iter().filter(|delta| delta.op_id == Some(*op_id)) {
                for mutation in &delta.mutations {
                    if mutation.effects.iter().any(|effect| matches!(effect.put, Some(Put::Tally { .. }))) {
                        object.tallied(path, mutation.dot);
                    }
                }
            }
        }
        let mut naming = Box::new(Naming { object, owner, doubts, awaited: BTreeMap::new(), unheard });
        for node in desk.view.owners(partition).filter(|node| *node != desk.options.me) {
            let seen = match desk.exchange.seen_by(node, partition).filter(|_| owner) {
                // What it said of an increment when that came to it is told by a mutation like any other.
                Some(theirs) => desk.replica.state(desk.turn, partition)?.seen.covers(theirs).then_some(theirs),
                None => None,
            };
            let knows = |path: &Path| {
                let dots = || naming.object.rows.get(path).map(Row::dots).unwrap_or_default();
                is_held(node, path) || seen.is_some_and(|theirs| dots().iter().all(|dot| theirs.contains(*dot)))
            };
            let unknown = naming.doubts.iter().filter(|(_, path)| !knows(path)).map(|(op_id, _)| *op_id);
            let mut unknown: Vec<OpId> = unknown.collect();
            if !merges || !desk.view.is_up(node) {
                naming.unheard.extend(unknown);
                continue;
            }
            naming.unheard.extend(unknown.drain(unknown.len().min(OPERATIONS_MAX)..));
            // Who does not know of these may have forgotten.
            naming.unheard.extend(unknown.iter().filter(|op_id| is_old(op_id)));
            if !unknown.is_empty() {
                naming.awaited.insert(node, unknown);
            }
        }
        if naming.awaited.is_empty() {
            return self.named(desk, running, *naming);
        }
        desk.stats.add("increments_doubted_total", 1);
        let ticket = self.ticket();
        for (node, op_ids) in naming.awaited.clone() {
            self.send(desk, node, partition, Body::AskTallied { ticket, op_ids });
        }
        // Who is slow is waited for, but for who turns out to be away: it is level again that is slow, and few reads meet it.
        let left_us = running.deadline_us.saturating_sub(desk.now.mono_us);
        running.asked_us = desk.now.mono_us;
        running.wake_us = desk.now.mono_us + left_us / 2;
        running.stage = Stage::Naming(naming);
        self.park(ticket, running);
        Ok(())
    }

    pub fn handle_tallied(
        &mut self,
        desk: &mut Desk,
        from: NodeId,
        ticket: Ticket,
        dots: Option<Vec<(OpId, Dot)>>,
    ) -> Result<(), StoreError> {
        let Some(mut running) = self.unpark(ticket) else { return Ok(()) };
        match std::mem::replace(&mut running.stage, Stage::Starting) {
            Stage::Naming(mut naming) if naming.awaited.contains_key(&from) => {
                let Some(dots) = dots else { return self.not_named(desk, ticket, running, naming, from) };
                for (op_id, dot) in dots {
                    if let Some(path) = naming.doubts.get(&op_id) {
                        naming.object.tallied(path, dot);
                    }
                }
                naming.awaited.remove(&from);
                self.name_on(desk, ticket, running, naming)
            }
            stage => {
                running.stage = stage;
                self.park(ticket, running);
                Ok(())
            }
        }
    }

    /// One that is waited for refused, or the link to it broke.
    pub(super) fn not_named(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        running: Box<Running>,
        mut naming: Box<Naming>,
        node: NodeId,
    ) -> Result<(), StoreError> {
        naming.unheard.extend(naming.awaited.remove(&node).unwrap_or_default());
        self.name_on(desk, ticket, running, naming)
    }

    fn name_on(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        mut running: Box<Running>,
        naming: Box<Naming>,
    ) -> Result<(), StoreError> {
        if naming.awaited.is_empty() {
            return self.named(desk, running, *naming);
        }
        running.stage = Stage::Naming(naming);
        self.park(ticket, running);
        Ok(())
    }

    /// Answers with what is known by now.
    pub(super) fn named(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        naming: Naming,
    ) -> Result<(), StoreError> {
        let Naming { object, owner, doubts, awaited, mut unheard } = naming;
        unheard.extend(awaited.into_values().flatten());
        let beside = |path: &Path| match object.rows.get(path) {
            Some(Row::Retried(retried)) => object.times(path, retried) > 0,
            _ => false,
        };
        let doubted = doubts.iter().filter(|(op_id, path)| unheard.contains(op_id) && beside(path)).count();
        running.receipt.doubted = u32::try_from(doubted).unwrap_or(u32::MAX);
        self.answer(desk, running, object, owner)
    }
}

impl Naming {
    pub(super) fn awaited(&self) -> impl Iterator<Item = NodeId> {
        self.awaited.keys().copied()
    }
}
