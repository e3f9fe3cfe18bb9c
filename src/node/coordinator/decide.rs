//! Deciding: what was gathered is merged and judged; a read is answered, a mutation planned, minted and kept here.

use crate::data::clock::Hlc;
use crate::data::context::Context;
use crate::data::id::NodeId;
use crate::data::mutation::{Delta, Effect, Entry, Mutation};
use crate::data::object::Object;
use crate::data::op::{Op, Reply, Request, RequestError};
use crate::data::path::Component;
use crate::data::row::Row;
use crate::node::planted::Planted;
use crate::node::repair::Lack;
use crate::storage::StoreError;
use crate::wire::message::{LogRow, Refusal, RepairRow, Scope};

use super::super::replica::Mint;
use super::merge::Held;
use super::moving;
use super::plan::{Facts, Reach};
use super::{
    Coordinator, Desk, Gathering, Payload, Running, STAMPS_MAX, Standing, check_op_id, largest_payload, merge,
    own_visible, plan, refused,
};

/// A pick has not seen enough: it is to begin again, somewhere else.
fn looks_on(running: &mut Running, object: &mut Object, desk: &Desk) -> bool {
    object.rows.append(&mut running.kept.rows);
    let further = plan::further(&running.request.op, running.reach, object, running.next, desk.now.wall_ms);
    let Some(reach) = further else { return false };
    if matches!(reach, Reach::Around { .. }) {
        running.kept = std::mem::take(object);
    }
    running.reach = reach;
    true
}

impl Coordinator {
    pub(super) fn decide(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        gathering: Box<Gathering>,
    ) -> Result<(), StoreError> {
        let me = desk.options.me;
        let Gathering {
            mut scope,
            local,
            local_version,
            local_forgotten,
            same,
            mut replies,
            hinted,
            acks,
            op_known,
            ..
        } = *gathering;
        running.receipt.acks = acks.values().cloned().collect();
        let owner = local.is_some();
        let mut held: Vec<(NodeId, Held)> = Vec::with_capacity(1 + same.len() + replies.len());
        if let Some(mut local) = local {
            let state = desk.replica.state(desk.turn, running.partition)?;
            if state.forgotten != local_forgotten {
                // What was read here is known no more, nor what an absent row meant: it is asked anew.
                return self.begin(desk, running);
            }
            let alone = same.is_empty() && replies.is_empty() && hinted.is_empty();
            let mut asked = Object { rows: std::mem::take(&mut local.rows) };
            // What was read when the others were asked may have been overtaken since.
            let overtaken = !alone && !desk.replica.is_unchanged(desk.turn, &running.request.key, local_version)?;
            let mut now = if overtaken {
                let end = scope.end(asked.rows.iter());
                scope.up_to(end);
                Object::new(desk.replica.read(desk.turn, &running.request.key, &scope)?)
            } else {
                std::mem::take(&mut asked)
            };
            let agreed = running.request.op.is_read() && replies.is_empty() && hinted.is_empty();
            // Where nothing can be counted twice, nobody needs to be told apart.
            if agreed && now.counted_beside().is_empty() {
                running.next = scope.end(now.rows.iter());
                if looks_on(&mut running, &mut now, desk) {
                    return self.begin(desk, running);
                }
                return self.answer(desk, running, now, owner);
            }
            // They hold what was read here when they were asked; what else they know of it is known here too.
            let equal = || if overtaken { asked.rows.clone() } else { now.rows.clone() };
            replies.extend(same.iter().map(|node| (node, Held { rows: equal(), context: Context::default() })));
            if !alone {
                local.context = desk.replica.state(desk.turn, running.partition)?.knowledge();
            }
            local.rows = now.rows;
            held.push((me, local));
        }
        held.extend(replies);
        // A page reaches as far as everybody has reached who answered.
        running.next = held.iter().filter_map(|(_, held)| scope.end(held.rows.iter())).min();
        if running.next.is_some() {
            scope.up_to(running.next);
            held.iter_mut().for_each(|(_, held)| held.rows.retain(|path, _| scope.covers(path)));
        }
        let mut object = if held.len() == 1 && hinted.is_empty() {
            Object { rows: held[0].1.rows.clone() }
        } else {
            merge::join(&held, &hinted, &scope)
        };
        // What has been done already looks for nothing.
        if op_known.is_none() && looks_on(&mut running, &mut object, desk) {
            return self.begin(desk, running);
        }
        if held.len() > 1 && scope != Scope::Glance {
            self.note_lacks(desk, &mut running, owner, &held, &object);
        }
        if running.request.op.is_read() {
            // A glance tells no number.
            if scope == Scope::Glance {
                return self.answer(desk, running, object, owner);
            }
            return self.name(desk, running, object, owner, &held, &hinted);
        }
        if let Err(error) = self.reach(desk, &running) {
            return self.finish(desk, running, Err(error));
        }
        if let Some(op_id) = running.request.op_id {
            // One that says it is fresh may have been sent on twice.
            let mut known = op_known;
            if desk.replica.knows_recent(op_id) || !running.request.fresh {
                let here = desk.replica.op_rows(desk.turn, running.partition, op_id)?;
                if let Some(rows) = here {
                    known.get_or_insert_default().extend(rows);
                }
            }
            let hinted = hinted.into_iter().find(|delta| delta.op_id == Some(op_id));
            if known.is_some() || hinted.is_some() {
                return self.repeat(desk, running, object, owner, known.unwrap_or_default(), hinted);
            }
        }
        let surplus = if running.request.fresh { Vec::new() } else { merge::surplus(&held, &object) };
        self.mutate(desk, running, object, owner, surplus)
    }

    /// Answers a read.
    pub(super) fn answer(
        &mut self,
        desk: &mut Desk,
        running: Box<Running>,
        object: Object,
        owner: bool,
    ) -> Result<(), StoreError> {
        let others = self.others(desk, &running.request, &object, owner)?;
        let wall_ms = desk.now.wall_ms;
        // What is not on this page may be on another.
        let mine = running.next.is_some() || own_visible(&running.request.op, &object, wall_ms);
        let result = plan::check_kind(&running.request.op, mine, &others, wall_ms)
            .map(|()| plan::answer(&running.request.op, &running.request.key, &object, running.next, wall_ms));
        self.finish(desk, running, result)
    }

    /// Read repair: owners that answered with less than the merged rows are looked at again. A stand-in, who would not hear of their
    /// progress, leaves it to the owners, and an owner what it lacks itself to the exchange.
    pub(super) fn note_lacks(
        &mut self,
        desk: &mut Desk,
        running: &mut Running,
        owner: bool,
        held: &[(NodeId, Held)],
        object: &Object,
    ) {
        let me = desk.options.me;
        let due_us = desk.now.mono_us + 2 * desk.options.exchange_interval_us;
        for (node, part) in held {
            if part.rows != object.rows {
                running.receipt.disagreed.push(*node);
            }
            if *node == me || !owner {
                continue;
            }
            let rows: Vec<_> = merge::repair(part, object).into_iter().map(|row| (row.path, row.row.dots())).collect();
            if rows.is_empty() {
                continue;
            }
            let lack = Lack { node: *node, key: running.request.key.clone(), rows };
            if desk.repairs.remember(due_us, lack) {
                running.receipt.repaired.push(*node);
            } else {
                desk.stats.add("read_repairs_left_total", 1);
            }
        }
    }

    /// What this coordinator holds of the key's other components, if it matters.
    pub(super) fn others(
        &mut self,
        desk: &mut Desk,
        request: &Request,
        object: &Object,
        owner: bool,
    ) -> Result<Object, StoreError> {
        let Some(own) = plan::own_components(&request.op) else { return Ok(Object::default()) };
        if !owner {
            return Ok(Object::default());
        }
        let replaces = matches!(request.op, Op::Set { .. });
        if !replaces && own_visible(&request.op, object, desk.now.wall_ms) {
            return Ok(Object::default());
        }
        let mask = desk.replica.mask(desk.turn, &request.key)?;
        let foreign: Vec<Component> = Component::ALL
            .into_iter()
            .filter(|component| !own.contains(component) && *component != Component::Deadline)
            .collect();
        if !mask.has_any(&foreign) {
            return Ok(Object::default());
        }
        let scope = if replaces { Scope::Everything } else { Scope::Glance };
        let mut rows = desk.replica.read(desk.turn, &request.key, &scope)?;
        rows.retain(|(path, _)| !own.contains(&path.component));
        Ok(Object::new(rows))
    }

    /// What is visible here, were it members or fields that the request does not name: an addition to a collection with a deadline joins
    /// its life. Only looked up where there are deadlines.
    fn beside(&self, desk: &mut Desk, request: &Request, object: &Object) -> Result<Option<Entry>, StoreError> {
        let wall_ms = desk.now.wall_ms;
        if object.deadlines().next().is_none() || object.is_visible(wall_ms) {
            return Ok(None);
        }
        // What has ended stands nowhere, and what never ends can be joined whatever stands in it.
        if !object.will_end(wall_ms) {
            return Ok(None);
        }
        // The first rows mostly tell; when all of them have ended, the others must be looked at.
        for scope in [Scope::Glance, Scope::Everything] {
            let rows = desk.replica.read(desk.turn, &request.key, &scope)?;
            let entry = Object::new(rows).last_visible(wall_ms);
            if entry.is_some() {
                return Ok(entry);
            }
        }
        Ok(None)
    }

    pub(super) fn mutate(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        object: Object,
        owner: bool,
        surplus: Vec<Effect>,
    ) -> Result<(), StoreError> {
        let request = &running.request;
        // Once a floor has been promised, what ended below it has ended, whatever this machine's clock says since.
        let counts_on = owner && desk.replica.holds_its_own(desk.turn, running.partition)?;
        let promised_ms = desk.replica.state(desk.turn, running.partition)?.promised.wall_ms();
        let forgets = desk.options.planted == Planted::PromiseForgotten;
        let wall_ms = if forgets { desk.now.wall_ms } else { desk.now.wall_ms.max(promised_ms) };
        if let Err(error) = check_op_id(desk.options, request, wall_ms) {
            return self.finish(desk, running, Err(error));
        }
        let others = self.others(desk, request, &object, owner)?;
        let mine = own_visible(&request.op, &object, wall_ms);
        if let Err(error) = plan::check_kind(&request.op, mine, &others, wall_ms) {
            return self.finish(desk, running, Err(error));
        }
        let above = object.rows.values().filter_map(Row::stamp).map(|stamp| stamp.hlc).max();
        let above = above.unwrap_or(Hlc(0)).max(running.above);
        let beside = if owner { self.beside(desk, request, &object)? } else { None };
        let facts = Facts {
            key: &request.key,
            object: &object,
            others: &others,
            beside: beside.as_ref(),
            joins: None,
            wall_ms,
            siblings_max: desk.options.siblings_max,
            op_id: request.op_id,
            fresh: request.fresh || desk.options.planted == Planted::RetriesCountedAgain,
            counts_on,
            planted: desk.options.planted,
        };
        let mut planned = Ok(Reply::Bool(false));
        let make = |mint: &mut Mint| match plan::plan(&request.op, &facts, mint) {
            Ok((mutations, reply)) => {
                planned = Ok(reply);
                mutations
            }
            Err(error) => {
                planned = Err(error);
                Vec::new()
            }
        };
        let mut delta =
            desk.replica.draw(desk.turn, desk.now, &request.key, request.op_id, request.remember, above, make)?;
        if owner && moving::may_stray(&request.op) {
            delta.basis = Some(plan::basis(&facts, &delta));
        }
        let reply = match planned {
            Ok(reply) => reply,
            Err(error) => return self.finish(desk, running, Err(error)),
        };
        if delta.mutations.is_empty() {
            if running.request.fresh {
                running.receipt.unchanged = true;
                return self.finish(desk, running, Ok(reply));
            }
            // An earlier try may have done it where not everybody knows yet: what stands is brought to as many as the level asks. And a
            // later try may be under way, which must not find something to do that was not there when this one was answered.
            let (op_id, remember) = (request.op_id, request.remember);
            let note = desk.replica.draw(desk.turn, desk.now, &request.key, op_id, remember, Hlc(0), |mint| {
                vec![Mutation { dot: mint.dot(), effects: surplus }]
            })?;
            if !self.keep_here(desk, &running, &note, owner)? {
                let error = RequestError::Overloaded("no room for another hint".into());
                return self.finish(desk, running, Err(error));
            }
            let rows: Vec<RepairRow> = object.rows.into_iter().map(|(path, row)| RepairRow { path, row }).collect();
            if owner {
                desk.replica.take_repair(desk.turn, desk.now, &request.key, rows.clone())?;
            }
            running.receipt.duplicate = true;
            self.release_key(desk, &mut running)?;
            let standing = Standing { rows, note: Some(note), ..Standing::default() };
            return self.replicate(desk, running, Payload::Standing(standing), reply, 0);
        }
        let size = largest_payload(&delta);
        if size > desk.options.value_size_max {
            let error = RequestError::ValueTooLarge { size, limit: desk.options.value_size_max };
            return self.finish(desk, running, Err(error));
        }
        if !self.keep_here(desk, &running, &delta, owner)? {
            let error = RequestError::Overloaded("no room for another hint".into());
            return self.finish(desk, running, Err(error));
        }
        self.release_key(desk, &mut running)?;
        self.replicate(desk, running, Payload::Delta(delta), reply, 0)
    }

    /// Applies a minted delta here: as an owner to the rows, as a stand-in to the hints, one for each owner.
    pub(super) fn keep_here(
        &mut self,
        desk: &mut Desk,
        running: &Running,
        delta: &Delta,
        owner: bool,
    ) -> Result<bool, StoreError> {
        if owner {
            desk.replica.take(desk.turn, desk.now, delta, true)?;
            return Ok(true);
        }
        // For each owner or for none: what is refused as not done must not be handed over to one of them later.
        let away = desk.view.owners(running.partition);
        if !desk.hints.keep(desk.turn, running.partition, away, delta, desk.options.hint_bytes_max)? {
            return Ok(false);
        }
        desk.stats.add("stand_in_coordinated_total", 1);
        desk.replica.spend(desk.turn, desk.now, delta)?;
        Ok(true)
    }

    /// The operation was found done: nothing is minted, but what it did is brought to as many as the level asks.
    pub(super) fn repeat(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        object: Object,
        owner: bool,
        known: Vec<LogRow>,
        hinted: Option<Delta>,
    ) -> Result<(), StoreError> {
        desk.stats.add("duplicates_total", 1);
        running.receipt.duplicate = true;
        let request = &running.request;
        let reply = plan::repeated(&request.op, &request.key, &object, desk.now.wall_ms);
        let hinted = hinted.filter(|_| known.is_empty());
        // As every owner is: nobody could see what stands only where it has ended.
        let late = match &hinted {
            _ if !owner => false,
            Some(delta) => desk.replica.strays(desk.turn, desk.now, delta)?.is_some_and(|strays| strays.ended),
            None => desk.replica.came_too_late(desk.turn, &known)?,
        };
        if late {
            let error = refused(desk, desk.options.me, Refusal::Ended(Box::default()));
            return self.finish(desk, running, Err(error));
        }
        let payload = match hinted {
            // So far only a stand-in has it.
            Some(delta) => {
                if owner {
                    desk.replica.take(desk.turn, desk.now, &delta, false)?;
                } else {
                    let away = desk.view.owners(running.partition);
                    if !desk.hints.keep(desk.turn, running.partition, away, &delta, desk.options.hint_bytes_max)? {
                        let error = RequestError::Overloaded("no room for another hint".into());
                        return self.finish(desk, running, Err(error));
                    }
                }
                Payload::Delta(delta)
            }
            None => {
                if owner {
                    desk.replica.take_log_rows(desk.turn, desk.now, running.partition, known.clone())?;
                }
                Payload::Standing(Standing { entries: known, ..Standing::default() })
            }
        };
        self.release_key(desk, &mut running)?;
        // It happened when it did: it is not stamped again above what came after it.
        self.replicate(desk, running, payload, reply, STAMPS_MAX)
    }
}
