//! Gathering: who is asked what they hold, hedging whoever is slow, and when it is enough.

use std::collections::VecDeque;

use crate::data::id::{NodeId, OpId};
use crate::data::op::Request;
use crate::node::planted::Planted;
use crate::node::replica::packed::digest;
use crate::storage::StoreError;
use crate::wire::message::{Body, Reading, Refusal, Rows, Ticket};

use super::few::{NodeMap, NodeSet};
use super::merge::Held;
use super::quorum::Quorum;
use super::{Coordinator, Desk, Gathering, Running, Stage, ack, has_place, owners, plan};

impl Coordinator {
    pub(super) fn begin(&mut self, desk: &mut Desk, mut running: Box<Running>) -> Result<(), StoreError> {
        let me = desk.options.me;
        let partition = running.partition;
        let request = &running.request;
        let owner = desk.view.is_owner(partition, me);
        let quorum = Quorum::read(&request.consistency, owners(desk.view, partition), desk.view.zone_of(me));
        let needs_rows = request.op.is_read() || plan::gathers(&request.op);
        // What was sent before may be known to any owner, whatever the level says.
        let seeks = !request.fresh && !request.op.is_read();
        let asks_others = needs_rows || seeks;
        let passing = !needs_rows && {
            let members = owners(desk.view, partition);
            let most = members.len();
            let write = Quorum::write(&request.consistency, members, desk.view.zone_of(me));
            usize::from(quorum.needed()) + usize::from(write.needed()) <= most
        };
        let scope = plan::scope(&request.op, running.reach);
        let mut gathering = Box::new(Gathering {
            quorum,
            local: None,
            local_version: 0,
            local_digest: None,
            local_forgotten: 0,
            same: NodeSet::default(),
            replies: NodeMap::default(),
            hinted: Vec::new(),
            acks: NodeMap::default(),
            asked: NodeSet::default(),
            failed: NodeSet::default(),
            empty: NodeSet::default(),
            silent: NodeSet::default(),
            op_known: None,
            hedged: false,
            passing,
            seeks,
            scope,
        });
        let alone = if owner {
            gathering.acks.insert(me, ack(desk, me, None, false));
            !asks_others || (gathering.quorum.met(&gathering.acks) && !seeks)
        } else {
            !asks_others
        };
        if !alone && !request.op.is_read() && !running.holds_key {
            if let Some(queue) = self.busy.get_mut(&request.key) {
                let ticket = self.next;
                self.next += 1;
                queue.push_back(ticket);
                running.stage = Stage::Queued;
                running.wake_us = running.deadline_us;
                self.park(ticket, running);
                return Ok(());
            }
            self.busy.insert(request.key.clone(), VecDeque::new());
            running.holds_key = true;
        }
        if owner {
            let newest = desk.replica.state(desk.turn, partition)?.newest;
            let blind = alone
                && running.request.fresh
                && plan::is_blind(&running.request.op)
                // A clock that ran far ahead has left such stamps: nobody else is to be drawn after it.
                && newest.wall_ms() <= desk.now.wall_ms.saturating_add(desk.options.clock_ahead_max_ms)
                && desk.replica.is_plain_text(&running.request.key);
            let rows = if blind {
                // Whatever stands there is a register, and what is stamped above all of the partition takes its place.
                running.above = newest;
                Vec::new()
            } else {
                desk.replica.read(desk.turn, &running.request.key, &gathering.scope)?
            };
            if !alone {
                gathering.local_digest = desk.replica.held_digest(desk.turn, &running.request.key, &gathering.scope);
            }
            gathering.local = Some(Held::new(rows, Default::default()));
            gathering.local_version = desk.replica.rows_version(desk.turn, partition)?;
            gathering.local_forgotten = desk.replica.state(desk.turn, partition)?.forgotten;
        } else {
            gathering.hinted = desk.hints.of_key(desk.turn, partition, &running.request.key)?;
        }
        running.receipt.needed = gathering.quorum.needed();
        if alone {
            return self.decide(desk, running, gathering);
        }
        self.ask(desk, running, gathering)
    }

    /// Sends reads to as many as are needed and parks the request.
    pub(super) fn ask(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        mut gathering: Box<Gathering>,
    ) -> Result<(), StoreError> {
        let me = desk.options.me;
        let mut hope = gathering.acks.clone();
        for node in gathering.asked.iter() {
            if !gathering.failed.contains(node) {
                hope.insert(node, ack(desk, node, None, false));
            }
        }
        let mut targets = Vec::new();
        let mut candidates: Vec<NodeId> = desk
            .view
            .owners(running.partition)
            .filter(|node| *node != me && desk.view.is_up(*node) && !gathering.asked.contains(*node))
            .collect();
        candidates.sort_by_key(|node| self.patience.is_silent(*node, desk.now.mono_us));
        for node in candidates {
            if gathering.quorum.met(&hope) && !gathering.hedged && !gathering.seeks {
                break;
            }
            hope.insert(node, ack(desk, node, None, false));
            targets.push(node);
        }
        if !gathering.quorum.met(&hope) && !running.request.consistency.owners_only {
            let away: Vec<NodeId> =
                desk.view.owners(running.partition).filter(|owner| !hope.contains(*owner)).collect();
            let stand_ins: Vec<NodeId> = desk
                .view
                .stand_ins(running.partition)
                .filter(|node| *node != me && desk.view.is_up(*node) && !gathering.asked.contains(*node))
                .collect();
            for (owner, node) in away.into_iter().zip(stand_ins) {
                hope.insert(node, ack(desk, node, Some(owner), false));
                targets.push(node);
            }
        }
        if targets.is_empty() && (gathering.passing || gathering.is_enough()) {
            return self.decide(desk, running, gathering);
        }
        if !gathering.passing && !gathering.quorum.met(&hope) {
            let error = self.unavailable(desk, running.partition, gathering.quorum.needed(), &hope);
            running.receipt.acks = gathering.acks.values().cloned().collect();
            return self.finish(desk, running, Err(error));
        }
        let ticket = self.ticket();
        let digest = gathering.local_digest();
        for node in targets {
            gathering.asked.insert(node);
            // Who was sent this very request and kept silent is the likeliest to have done it.
            if self.patience.is_silent(node, desk.now.mono_us) && running.silent != Some(node) {
                gathering.silent.insert(node);
                desk.stats.add("silent_asked_total", 1);
            }
            let body = Body::Read {
                ticket,
                key: running.request.key.clone(),
                scope: gathering.scope.clone(),
                digest,
                op_id: asked_about(&running.request),
            };
            self.send(desk, node, running.partition, body);
        }
        if gathering.is_enough() {
            return self.decide(desk, running, gathering);
        }
        running.asked_us = desk.now.mono_us;
        let hedge = self.patience.hedge_us(gathering.asked.iter());
        running.wake_us = if gathering.hedged {
            running.deadline_us
        } else if gathering.seeks {
            // Who looks in vain must have time left to do it.
            let left_us = running.deadline_us.saturating_sub(desk.now.mono_us);
            desk.now.mono_us + hedge.min(left_us / 2)
        } else {
            running.deadline_us.min(desk.now.mono_us + hedge)
        };
        running.stage = Stage::Gathering(gathering);
        self.park(ticket, running);
        Ok(())
    }

    pub fn handle_read_reply(
        &mut self,
        desk: &mut Desk,
        from: NodeId,
        ticket: Ticket,
        result: Result<Reading, Refusal>,
    ) -> Result<(), StoreError> {
        let Some(mut running) = self.unpark(ticket) else { return Ok(()) };
        let Stage::Gathering(mut gathering) = std::mem::replace(&mut running.stage, Stage::Starting) else {
            self.park(ticket, running);
            return Ok(());
        };
        if result.is_ok() {
            self.patience.answered(from, desk.now.mono_us.saturating_sub(running.asked_us));
        }
        if !gathering.asked.contains(from) {
            running.stage = Stage::Gathering(gathering);
            self.park(ticket, running);
            return Ok(());
        }
        match result {
            Ok(reading) => {
                if let Some(rows) = reading.op_known {
                    gathering.op_known.get_or_insert_default().extend(rows);
                }
                match reading.rows {
                    Rows::Same => {
                        gathering.same.insert(from);
                        gathering.acks.insert(from, ack(desk, from, None, false));
                    }
                    Rows::Held { rows, context } => {
                        if desk.options.planted == Planted::PeersSeenFromOneKey && gathering.local.is_some() {
                            desk.replica.state(desk.turn, running.partition)?.seen.join(&context);
                        }
                        gathering.replies.insert(from, Held::new(rows, context));
                        gathering.acks.insert(from, ack(desk, from, None, false));
                    }
                    Rows::Hinted { deltas } => {
                        // A stand-in that has nothing has said nothing.
                        if deltas.is_empty() {
                            gathering.empty.insert(from);
                        } else {
                            gathering.hinted.extend(deltas);
                            let place =
                                desk.view.owners(running.partition).find(|owner| !has_place(&gathering.acks, *owner));
                            if let Some(owner) = place {
                                gathering.acks.insert(from, ack(desk, from, Some(owner), false));
                            }
                        }
                    }
                }
            }
            Err(_) => {
                gathering.failed.insert(from);
            }
        }
        self.ask_or_wait(desk, ticket, running, gathering)
    }

    /// After an answer, a refusal or a broken link: decide, ask whoever has not been asked yet, or wait for those who have.
    pub(super) fn ask_or_wait(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        mut running: Box<Running>,
        gathering: Box<Gathering>,
    ) -> Result<(), StoreError> {
        if gathering.is_enough() {
            return self.decide(desk, running, gathering);
        }
        let open = gathering.awaited().next().is_some();
        let me = desk.options.me;
        let more = desk
            .view
            .owners(running.partition)
            .any(|node| node != me && desk.view.is_up(node) && !gathering.asked.contains(node));
        if open && (gathering.failed.is_empty() || !more) {
            running.stage = Stage::Gathering(gathering);
            self.park(ticket, running);
            return Ok(());
        }
        self.ask(desk, running, gathering)
    }
}

impl Gathering {
    /// Enough answers for the level; and while an earlier try is looked for, nobody is left who could know of it.
    pub(super) fn is_enough(&self) -> bool {
        self.quorum.met(&self.acks) && !(self.seeks && self.awaited().any(|node| !self.silent.contains(node)))
    }

    /// The digest of what was read here.
    pub(super) fn local_digest(&self) -> Option<u128> {
        self.local_digest.or_else(|| self.local.as_ref().map(|held| digest(&held.rows)))
    }

    /// Who has been asked and has not said anything yet.
    pub(super) fn awaited(&self) -> impl Iterator<Item = NodeId> {
        let answered = |node: NodeId| self.acks.contains(node) || self.empty.contains(node);
        self.asked.iter().filter(move |node| !self.failed.contains(*node) && !answered(*node))
    }
}

/// The operation id to ask about along with the rows. Were it never sent before: a read may be answered late, when whoever forwarded the
/// request has had it done by somebody else, and what a removal would see then is more than it may take.
pub(super) fn asked_about(request: &Request) -> Option<OpId> {
    request.op_id.filter(|_| !request.op.is_read())
}
