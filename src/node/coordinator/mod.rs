//! The life of a request: admitted, routed, gathered, decided, replicated, answered.
//!
//! ```text
//!             not an owner                        enough answers            enough acks
//!  request ───────────────> Forwarded ──┐   Gathering ─────────> decide ──────────────> answer + receipt
//!     │                                 │       ^                  │ mutation            ^
//!     └── an owner, or none is up ──────┴───────┘                  v                     │
//!                                                           mint, write here ── Replicating
//! ```
//! What it waits for it waits for as sets of nodes. An owner that is away, or slow, gets a stand-in. Reading, judging and minting for
//! one key are one turn whenever this node's own copy is enough; otherwise requests that judge the same key queue behind each other.
//! It trusts the view for who owns what and for nothing else: that somebody is said to be up is only a reason to ask them.

pub mod merge;
pub mod plan;
pub mod quorum;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::data::clock::{Hlc, Now};
use crate::data::consistency::{Ack, Level, Receipt};
use crate::data::id::{Dot, NodeId, OpId, Partition};
use crate::data::mutation::{Delta, Effect, Mutation};
use crate::data::object::Object;
use crate::data::op::{Key, Op, Outcome, Reply, Request, RequestError, Response};
use crate::data::path::{Component, Path};
use crate::data::row::{Put, Row};
use crate::ring::view::View;
use crate::storage::StoreError;
use crate::wire::codec;
use crate::wire::message::{Body, Kept, LogRow, PeerMessage, Reading, Refusal, RepairRow, Rows, Scope, Ticket};

use super::hints::Hints;
use super::replica::{Mint, Replica, Turn};
use super::turn::{DoorTicket, Outbox, ShardOptions, Stats, Traffic};
use merge::Held;
use plan::Facts;
use quorum::Quorum;

/// How often a write that meets newer stamps is stamped again.
const STAMPS_MAX: u8 = 5;
/// A hedge is never sent sooner than this, nor later.
const HEDGE_MIN_US: u64 = 2_000;
const HEDGE_MAX_US: u64 = 100_000;
/// Forwarded mutations that are known again when they come twice.
const TAKEN_MAX: usize = 8192;
/// A forwarded request tries the next owner after at least this long.
const FORWARD_RETRY_US: u64 = 300_000;
/// An operation id older than this may have been sent on to another coordinator in the meantime, whatever the request says: it lay in
/// a queue, or came from a node that was paused. Less than the time after which anybody tries again.
const FRESH_MAX_MS: u64 = 200;

/// What the coordinator works with during one turn.
pub struct Desk<'a, 'b> {
    pub now: Now,
    pub view: &'a Arc<View>,
    pub options: &'a ShardOptions,
    pub replica: &'a mut Replica,
    pub hints: &'a mut Hints,
    pub turn: &'a mut Turn<'b>,
    pub out: &'a mut Outbox,
    pub stats: &'a mut Stats,
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    Door(DoorTicket),
    Peer { node: NodeId, ticket: Ticket },
}

/// All requests under way in one lane.
pub struct Coordinator {
    running: BTreeMap<Ticket, Running>,
    wakes: BTreeSet<(u64, Ticket)>,
    /// Keys that a judging request holds, and who queues behind it.
    busy: BTreeMap<Key, VecDeque<Ticket>>,
    latency: BTreeMap<NodeId, Latency>,
    next: Ticket,
    taken: Taken,
}

/// Mutations that were forwarded to this node lately. A link delivers each message once, but not every way to lose one has been met:
/// a copy that comes late would judge anew what has been answered. Bounded.
#[derive(Default)]
struct Taken {
    known: BTreeSet<(NodeId, Ticket, OpId)>,
    order: VecDeque<(NodeId, Ticket, OpId)>,
}

impl Taken {
    /// True the first time.
    fn first(&mut self, from: NodeId, ticket: Ticket, op_id: OpId) -> bool {
        let one = (from, ticket, op_id);
        if !self.known.insert(one) {
            return false;
        }
        self.order.push_back(one);
        if self.order.len() > TAKEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

struct Running {
    origin: Origin,
    request: Request,
    partition: Partition,
    /// Came from a peer: it is not sent on.
    forwarded: bool,
    started_us: u64,
    deadline_us: u64,
    wake_us: u64,
    receipt: Receipt,
    holds_key: bool,
    /// Was sent this mutation and has not answered: it may be doing it.
    silent: Option<NodeId>,
    stage: Stage,
}

enum Stage {
    Starting,
    Queued,
    Forwarded { to: NodeId, tried: BTreeSet<NodeId> },
    Gathering(Gathering),
    Replicating(Replicating),
}

struct Gathering {
    quorum: Quorum,
    scope: Scope,
    local: Option<Held>,
    replies: BTreeMap<NodeId, Held>,
    hinted: Vec<Delta>,
    acks: BTreeMap<NodeId, Ack>,
    asked: BTreeSet<NodeId>,
    failed: BTreeSet<NodeId>,
    /// The log's rows of the operation, if somebody knows it.
    op_known: Option<Vec<LogRow>>,
    hedged: bool,
    /// Only an earlier try of the request is looked for, and its level could not make sure of meeting it: the look must not cost the
    /// write, which does not depend on it.
    passing: bool,
}

struct Replicating {
    quorum: Quorum,
    payload: Payload,
    reply: Reply,
    acks: BTreeMap<NodeId, Ack>,
    /// Node asked, and the owner whose place it fills if it is a stand-in.
    pending: BTreeMap<NodeId, Option<NodeId>>,
    /// Places for which a stand-in has been asked.
    stood_in: BTreeSet<NodeId>,
    refused: Option<RequestError>,
    /// Who refused: not asked again.
    refusers: BTreeSet<NodeId>,
    stamps: u8,
    sync: bool,
}

#[derive(Clone)]
enum Payload {
    Delta(Delta),
    /// What stands, for an operation that was found done or had nothing to do.
    Standing(Standing),
}

/// Rows or the log's rows, and a note that the operation has been answered.
#[derive(Clone, Default)]
struct Standing {
    rows: Vec<RepairRow>,
    entries: Vec<LogRow>,
    note: Option<Delta>,
}

/// A peer's recent 99th percentile, by stochastic approximation: up by much when exceeded, down by little when not.
#[derive(Clone, Copy)]
struct Latency {
    high_us: u64,
}

impl Latency {
    fn sample(&mut self, took_us: u64) {
        let step = (self.high_us / 64).max(10);
        if took_us > self.high_us {
            self.high_us = self.high_us.saturating_add(step * 8).min(took_us.max(self.high_us));
        } else {
            self.high_us = self.high_us.saturating_sub(step / 12);
        }
    }
}

impl Coordinator {
    /// Tickets begin at `first`: an answer to an earlier process must not be taken for one to this.
    pub fn new(first: Ticket) -> Self {
        Self {
            running: BTreeMap::new(),
            wakes: BTreeSet::new(),
            busy: BTreeMap::new(),
            latency: BTreeMap::new(),
            next: first,
            taken: Taken::default(),
        }
    }

    pub fn under_way(&self) -> usize {
        self.running.len()
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.wakes.first().map(|(at_us, _)| *at_us)
    }

    /// Takes a request. It is answered in this turn or is under way afterwards.
    pub fn handle_request(&mut self, desk: &mut Desk, origin: Origin, request: Request) -> Result<(), StoreError> {
        if let (Origin::Peer { node, ticket }, Some(op_id)) = (origin, request.op_id)
            && !self.taken.first(node, ticket, op_id)
        {
            return Ok(());
        }
        let partition = desk.view.partition_of(&request.key.bytes);
        let started_us = desk.now.mono_us;
        let mut running = Running {
            origin,
            partition,
            forwarded: matches!(origin, Origin::Peer { .. }),
            started_us,
            deadline_us: started_us.saturating_add(request.timeout_us),
            wake_us: 0,
            receipt: Receipt {
                coordinator: Some(desk.options.me),
                layout: desk.view.layout.version,
                ..Receipt::default()
            },
            holds_key: false,
            silent: None,
            stage: Stage::Starting,
            request,
        };
        running.request.fresh &=
            running.request.op_id.is_none_or(|op_id| op_id.wall_ms().abs_diff(desk.now.wall_ms) <= FRESH_MAX_MS);
        desk.stats.add(if running.request.op.is_read() { "reads_total" } else { "writes_total" }, 1);
        if let Err(error) = self.admit(desk, &running.request) {
            return self.finish(desk, running, Err(error));
        }
        let me = desk.options.me;
        let owner = desk.view.is_owner(partition, me);
        if !running.forwarded {
            let first = desk.view.owners(partition).find(|node| desk.view.is_up(*node));
            let hop = if owner {
                first.filter(|first| *first != me && plan::prefers_first_owner(&running.request.op))
            } else {
                first
            };
            if let Some(to) = hop {
                return self.forward(desk, running, to, BTreeSet::new());
            }
        }
        running.stage = Stage::Starting;
        self.begin(desk, running)
    }

    fn admit(&self, desk: &Desk, request: &Request) -> Result<(), RequestError> {
        let options = desk.options;
        let size = request.key.bytes.len() as u64;
        if size > options.key_size_max {
            return Err(RequestError::KeyTooLarge { size, limit: options.key_size_max });
        }
        let size = largest_value(&request.op);
        if size > options.value_size_max {
            return Err(RequestError::ValueTooLarge { size, limit: options.value_size_max });
        }
        request.consistency.check(desk.view.layout.replicas).map_err(RequestError::BadConsistency)?;
        if let Some(op_id) = request.op_id.filter(|_| request.remember)
            && op_id.wall_ms().saturating_add(options.op_id_window_ms) < desk.now.wall_ms
        {
            return Err(RequestError::OpIdExpired { window_ms: options.op_id_window_ms });
        }
        if self.running.len() >= options.requests_max {
            return Err(RequestError::Overloaded(format!("{} requests are under way", self.running.len())));
        }
        Ok(())
    }

    // --- forwarding

    fn forward(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
        to: NodeId,
        tried: BTreeSet<NodeId>,
    ) -> Result<(), StoreError> {
        let ticket = self.ticket();
        let mut request = running.request.clone();
        request.timeout_us = running.deadline_us.saturating_sub(desk.now.mono_us);
        // Whatever has been sent once may have happened.
        request.fresh &= tried.is_empty();
        let left = request.timeout_us;
        self.send(desk, to, running.partition, Body::Forward { ticket, request });
        desk.stats.add("forwards_total", 1);
        running.wake_us = running.deadline_us.min(desk.now.mono_us + FORWARD_RETRY_US.max(left / 3));
        running.stage = Stage::Forwarded { to, tried };
        self.park(ticket, running);
        Ok(())
    }

    /// The coordinator did not answer, or could not do it: the next owner, or this node itself.
    fn forward_on(&mut self, desk: &mut Desk, mut running: Running, silent: bool) -> Result<(), StoreError> {
        let Stage::Forwarded { to, mut tried } = std::mem::replace(&mut running.stage, Stage::Starting) else {
            return Ok(());
        };
        tried.insert(to);
        if silent {
            running.silent = Some(to);
        }
        running.request.fresh = false;
        let me = desk.options.me;
        if desk.view.is_owner(running.partition, me) {
            return self.begin(desk, running);
        }
        let next = desk.view.owners(running.partition).find(|node| desk.view.is_up(*node) && !tried.contains(node));
        match next {
            Some(next) => self.forward(desk, running, next, tried),
            None => self.begin(desk, running),
        }
    }

    pub fn handle_forward_reply(
        &mut self,
        desk: &mut Desk,
        from: NodeId,
        ticket: Ticket,
        response: Response,
    ) -> Result<(), StoreError> {
        let answers = matches!(self.running.get(&ticket), Some(Running { stage: Stage::Forwarded { to, .. }, .. }) if *to == from);
        if !answers {
            return Ok(());
        }
        let running = self.unpark(ticket).expect("looked up just above");
        let again = matches!(
            response.result,
            Err(RequestError::Stopping { .. } | RequestError::StoreFailed { .. } | RequestError::Overloaded(_))
        );
        if again && desk.now.mono_us < running.deadline_us {
            let unknown = response.result.is_err_and(|error| error.outcome() == Outcome::Unknown);
            return self.forward_on(desk, running, unknown);
        }
        let result = response.result.map_err(|error| in_doubt(desk.view, &running, error));
        let response = Response { result, receipt: response.receipt };
        push_answer(desk.out, running.origin, running.partition, response);
        Ok(())
    }

    // --- gathering

    fn begin(&mut self, desk: &mut Desk, mut running: Running) -> Result<(), StoreError> {
        let me = desk.options.me;
        let partition = running.partition;
        let request = &running.request;
        let owner = desk.view.is_owner(partition, me);
        let quorum = Quorum::read(&request.consistency, owners(desk.view, partition), desk.view.zone_of(me));
        let needs_rows = request.op.is_read() || plan::gathers(&request.op);
        let asks_others = needs_rows || !request.fresh;
        let passing = !needs_rows && {
            let members = owners(desk.view, partition);
            let most = members.len();
            let write = Quorum::write(&request.consistency, members, desk.view.zone_of(me));
            usize::from(quorum.needed()) + usize::from(write.needed()) <= most
        };
        let scope = plan::scope(&request.op);
        let mut gathering = Gathering {
            quorum,
            local: None,
            replies: BTreeMap::new(),
            hinted: Vec::new(),
            acks: BTreeMap::new(),
            asked: BTreeSet::new(),
            failed: BTreeSet::new(),
            op_known: None,
            hedged: false,
            passing,
            scope,
        };
        let alone = if owner {
            gathering.acks.insert(me, ack(desk, me, None, false));
            !asks_others || gathering.quorum.met(&gathering.acks)
        } else {
            !asks_others
        };
        if !alone && !request.op.is_read() {
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
            let rows = desk.replica.read(desk.turn, &running.request.key, &gathering.scope)?;
            let context =
                if alone { Default::default() } else { desk.replica.state(desk.turn, partition)?.knowledge() };
            gathering.local = Some(Held::new(rows, context));
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
    fn ask(&mut self, desk: &mut Desk, mut running: Running, mut gathering: Gathering) -> Result<(), StoreError> {
        let me = desk.options.me;
        let mut hope = gathering.acks.clone();
        for node in &gathering.asked {
            if !gathering.failed.contains(node) {
                hope.insert(*node, ack(desk, *node, None, false));
            }
        }
        let mut targets = Vec::new();
        let candidates: Vec<NodeId> = desk
            .view
            .owners(running.partition)
            .filter(|node| *node != me && desk.view.is_up(*node) && !gathering.asked.contains(node))
            .collect();
        for node in candidates {
            if gathering.quorum.met(&hope) && !gathering.hedged {
                break;
            }
            hope.insert(node, ack(desk, node, None, false));
            targets.push(node);
        }
        if !gathering.quorum.met(&hope) && !running.request.consistency.owners_only {
            let away: Vec<NodeId> =
                desk.view.owners(running.partition).filter(|owner| !hope.contains_key(owner)).collect();
            let stand_ins: Vec<NodeId> = desk
                .view
                .stand_ins(running.partition)
                .filter(|node| *node != me && desk.view.is_up(*node) && !gathering.asked.contains(node))
                .collect();
            for (owner, node) in away.into_iter().zip(stand_ins) {
                hope.insert(node, ack(desk, node, Some(owner), false));
                targets.push(node);
            }
        }
        if gathering.passing && targets.is_empty() {
            return self.decide(desk, running, gathering);
        }
        if !gathering.passing && !gathering.quorum.met(&hope) {
            let error = self.unavailable(desk, running.partition, gathering.quorum.needed(), &hope);
            running.receipt.acks = gathering.acks.values().cloned().collect();
            return self.finish(desk, running, Err(error));
        }
        let ticket = self.ticket();
        let digest = gathering.local.as_ref().map(|held| digest(&held.rows));
        for node in targets {
            gathering.asked.insert(node);
            let body = Body::Read {
                ticket,
                key: running.request.key.clone(),
                scope: gathering.scope.clone(),
                digest,
                op_id: running.request.op_id.filter(|_| !running.request.fresh),
            };
            self.send(desk, node, running.partition, body);
        }
        let hedge = gathering
            .asked
            .iter()
            .map(|node| self.latency.get(node).map_or(20_000, |latency| latency.high_us))
            .max()
            .unwrap_or(HEDGE_MAX_US)
            .clamp(HEDGE_MIN_US, HEDGE_MAX_US);
        running.wake_us =
            if gathering.hedged { running.deadline_us } else { running.deadline_us.min(desk.now.mono_us + hedge) };
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
            let took_us = desk.now.mono_us.saturating_sub(running.started_us);
            self.latency.entry(from).or_insert(Latency { high_us: 20_000 }).sample(took_us);
        }
        if !gathering.asked.contains(&from) {
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
                        if let Some(local) = &gathering.local {
                            gathering.replies.insert(from, local.clone());
                        }
                        gathering.acks.insert(from, ack(desk, from, None, false));
                    }
                    Rows::Held { rows, context } => {
                        gathering.replies.insert(from, Held::new(rows, context));
                        gathering.acks.insert(from, ack(desk, from, None, false));
                    }
                    Rows::Hinted { deltas } => {
                        // A stand-in that has nothing has said nothing.
                        if !deltas.is_empty() {
                            gathering.hinted.extend(deltas);
                            let place = desk
                                .view
                                .owners(running.partition)
                                .find(|owner| !places(&gathering.acks).contains(owner));
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
        if gathering.quorum.met(&gathering.acks) {
            return self.decide(desk, running, gathering);
        }
        self.ask_or_wait(desk, ticket, running, gathering)
    }

    /// After a refusal or a broken link: whoever has not been asked yet, or wait for those who have.
    fn ask_or_wait(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        mut running: Running,
        gathering: Gathering,
    ) -> Result<(), StoreError> {
        let open =
            gathering.asked.iter().any(|node| !gathering.failed.contains(node) && !gathering.acks.contains_key(node));
        let me = desk.options.me;
        let more = desk
            .view
            .owners(running.partition)
            .any(|node| node != me && desk.view.is_up(node) && !gathering.asked.contains(&node));
        if open && (gathering.failed.is_empty() || !more) {
            running.stage = Stage::Gathering(gathering);
            self.park(ticket, running);
            return Ok(());
        }
        self.ask(desk, running, gathering)
    }

    // --- deciding

    fn decide(&mut self, desk: &mut Desk, mut running: Running, gathering: Gathering) -> Result<(), StoreError> {
        let me = desk.options.me;
        let Gathering { scope, local, replies, hinted, acks, op_known, .. } = gathering;
        running.receipt.acks = acks.values().cloned().collect();
        let mut held: Vec<(NodeId, Held)> = Vec::with_capacity(1 + replies.len());
        let owner = local.is_some();
        if let Some(mut local) = local {
            if !replies.is_empty() {
                // What was read when the others were asked may have been overtaken since.
                let rows = desk.replica.read(desk.turn, &running.request.key, &scope)?;
                let context = desk.replica.state(desk.turn, running.partition)?.knowledge();
                local = Held::new(rows, context);
            }
            held.push((me, local));
        }
        held.extend(replies);
        let object = if held.len() == 1 && hinted.is_empty() {
            Object { rows: held[0].1.rows.clone() }
        } else {
            merge::join(&held, &hinted, &scope)
        };
        if held.len() > 1 && scope != Scope::Glance {
            self.repair_readers(desk, &mut running, &held, &object)?;
        }
        if running.request.op.is_read() {
            let others = self.others(desk, &running.request, &object, owner)?;
            let wall_ms = desk.now.wall_ms;
            let mine = own_visible(&running.request.op, &object, wall_ms);
            let result = plan::check_kind(&running.request.op, mine, &others, wall_ms)
                .map(|()| plan::answer(&running.request.op, &running.request.key, &object, wall_ms));
            return self.finish(desk, running, result);
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

    /// Read repair: owners that answered with less than the merged rows are sent them.
    fn repair_readers(
        &mut self,
        desk: &mut Desk,
        running: &mut Running,
        held: &[(NodeId, Held)],
        object: &Object,
    ) -> Result<(), StoreError> {
        let me = desk.options.me;
        for (node, part) in held {
            if part.rows != object.rows {
                running.receipt.disagreed.push(*node);
            }
            let rows = merge::repair(part, object);
            if rows.is_empty() {
                continue;
            }
            running.receipt.repaired.push(*node);
            desk.stats.add("read_repairs_total", 1);
            let key = running.request.key.clone();
            if *node == me {
                desk.replica.take_repair(desk.turn, desk.now, &key, rows)?;
            } else {
                let body = Body::Repair { ticket: None, key, rows, entries: Vec::new(), note: None, sync: false };
                desk.out.sends.push((*node, Traffic::Background, PeerMessage { partition: running.partition, body }));
            }
        }
        Ok(())
    }

    /// What this coordinator holds of the key's other components, if it matters.
    fn others(
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

    /// Is anything of the key visible here, were it members or fields that the request does not name? An addition to a collection with
    /// a deadline joins the life of those. Only looked up where there are deadlines.
    fn is_alive(&self, desk: &mut Desk, request: &Request, object: &Object) -> Result<bool, StoreError> {
        let wall_ms = desk.now.wall_ms;
        if object.deadlines().next().is_none() || object.is_visible(wall_ms) {
            return Ok(false);
        }
        // The first rows mostly tell; when all of them have expired, the others must be looked at.
        for scope in [Scope::Glance, Scope::Everything] {
            if Object::new(desk.replica.read(desk.turn, &request.key, &scope)?).is_visible(wall_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn mutate(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
        object: Object,
        owner: bool,
        surplus: Vec<Effect>,
    ) -> Result<(), StoreError> {
        let request = &running.request;
        let wall_ms = desk.now.wall_ms;
        let others = self.others(desk, request, &object, owner)?;
        let mine = own_visible(&request.op, &object, wall_ms);
        if let Err(error) = plan::check_kind(&request.op, mine, &others, wall_ms) {
            return self.finish(desk, running, Err(error));
        }
        let above = object.rows.values().filter_map(Row::stamp).map(|stamp| stamp.hlc).max().unwrap_or(Hlc(0));
        let alive = owner && self.is_alive(desk, request, &object)?;
        let facts = Facts {
            key: &request.key,
            object: &object,
            others: &others,
            alive,
            wall_ms,
            siblings_max: desk.options.siblings_max,
            op_id: request.op_id,
            fresh: request.fresh,
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
        let delta =
            desk.replica.draw(desk.turn, desk.now, &request.key, request.op_id, request.remember, above, make)?;
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
    fn keep_here(
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
        desk.stats.add("stand_in_coordinated_total", 1);
        desk.replica.spend(desk.turn, desk.now, delta)?;
        let limit = desk.options.hint_bytes_max;
        for away in desk.view.owners(running.partition) {
            if !desk.hints.keep(desk.turn, running.partition, away, delta, limit)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The operation was found done: nothing is minted, but what it did is brought to as many as the level asks.
    fn repeat(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
        object: Object,
        owner: bool,
        known: Vec<LogRow>,
        hinted: Option<Delta>,
    ) -> Result<(), StoreError> {
        desk.stats.add("duplicates_total", 1);
        running.receipt.duplicate = true;
        let request = &running.request;
        let reply = plan::repeated(&request.op, &request.key, &object, desk.now.wall_ms);
        let payload = match hinted {
            // So far only a stand-in has it.
            Some(delta) if known.is_empty() => {
                if owner {
                    desk.replica.take(desk.turn, desk.now, &delta, false)?;
                } else {
                    let limit = desk.options.hint_bytes_max;
                    for away in desk.view.owners(running.partition) {
                        if !desk.hints.keep(desk.turn, running.partition, away, &delta, limit)? {
                            let error = RequestError::Overloaded("no room for another hint".into());
                            return self.finish(desk, running, Err(error));
                        }
                    }
                }
                Payload::Delta(delta)
            }
            _ => {
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

    // --- replicating

    /// Could the write's level be met by those who are up? Asked before anything is written.
    fn reach(&self, desk: &Desk, running: &Running) -> Result<(), RequestError> {
        let partition = running.partition;
        let me = desk.options.me;
        let consistency = &running.request.consistency;
        let quorum = Quorum::write(consistency, owners(desk.view, partition), desk.view.zone_of(me));
        let mut hope = BTreeMap::new();
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

    fn unavailable(&self, desk: &Desk, partition: Partition, needed: u8, hope: &BTreeMap<NodeId, Ack>) -> RequestError {
        let missing = desk
            .view
            .owners(partition)
            .filter(|owner| !hope.contains_key(owner))
            .map(|owner| desk.view.name_of(owner).to_string())
            .collect();
        RequestError::Unavailable { needed, reachable: hope.len() as u8, missing }
    }

    fn replicate(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
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
        let mut replicating = Replicating {
            quorum,
            payload,
            reply,
            acks: BTreeMap::new(),
            pending: BTreeMap::new(),
            stood_in: BTreeSet::new(),
            refused: None,
            refusers: BTreeSet::new(),
            stamps,
            sync,
        };
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
        running.wake_us = running.deadline_us.min(desk.now.mono_us + desk.options.stand_in_after_us);
        running.stage = Stage::Replicating(replicating);
        self.park(ticket, running);
        Ok(())
    }

    /// Asks the next healthy node past the owners to keep the write for `owner`.
    fn stand_in(
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
                && !replicating.pending.contains_key(node)
                && !replicating.acks.contains_key(node)
                && !replicating.refusers.contains(node)
        });
        if let Some(node) = node {
            desk.stats.add("stand_ins_asked_total", 1);
            self.send_payload(desk, ticket, running.partition, &running.request.key, replicating, node, Some(owner));
            replicating.pending.insert(node, Some(owner));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn send_payload(
        &self,
        desk: &mut Desk,
        ticket: Ticket,
        partition: Partition,
        key: &Key,
        replicating: &Replicating,
        to: NodeId,
        hint_for: Option<NodeId>,
    ) {
        let body = match &replicating.payload {
            Payload::Delta(delta) => Body::Replicate { ticket, delta: delta.clone(), hint_for, sync: replicating.sync },
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
        let Some(place) = replicating.pending.remove(&from) else {
            running.stage = Stage::Replicating(replicating);
            self.park(ticket, running);
            return Ok(());
        };
        match result {
            Ok(Kept { newer: Some(stamp), .. }) if replicating.stamps < STAMPS_MAX => {
                return self.stamp_again(desk, running, replicating, stamp.hlc);
            }
            Ok(kept) => {
                replicating.acks.insert(from, ack(desk, from, place, kept.fsynced));
            }
            Err(refusal) => {
                replicating.refused = Some(refused(desk, from, refusal.clone()));
                replicating.refusers.insert(from);
                if !matches!(refusal, Refusal::ClockAhead { .. }) {
                    let owner = place.unwrap_or(from);
                    replicating.stood_in.remove(&owner);
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
    fn stamp_again(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
        replicating: Replicating,
        above: Hlc,
    ) -> Result<(), StoreError> {
        let Payload::Delta(delta) = replicating.payload else { return Ok(()) };
        desk.stats.add("stamped_again_total", 1);
        running.receipt.stamped_again = true;
        let owner = desk.view.is_owner(running.partition, desk.options.me);
        let again = desk.replica.draw(desk.turn, desk.now, &delta.key, delta.op_id, delta.remember, above, |mint| {
            restamped(&delta, mint)
        })?;
        if !self.keep_here(desk, &running, &again, owner)? {
            let error = RequestError::Overloaded("no room for another hint".into());
            return self.finish(desk, running, Err(error));
        }
        // Round two carries what was stamped; what was not has been sent and need not be again, but its acks went with round one.
        let mut whole = delta;
        whole.mutations.retain(|mutation| {
            mutation.effects.iter().all(|effect| effect.put.as_ref().is_none_or(|put| put.stamp().is_none()))
        });
        whole.mutations.extend(again.mutations);
        whole.made = again.made;
        self.replicate(desk, running, Payload::Delta(whole), replicating.reply, replicating.stamps + 1)
    }

    fn written(&mut self, desk: &mut Desk, mut running: Running, replicating: Replicating) -> Result<(), StoreError> {
        running.receipt.acks = replicating.acks.values().cloned().collect();
        self.finish(desk, running, Ok(replicating.reply))
    }

    /// Nobody is left who could acknowledge.
    fn fell_short(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
        replicating: Replicating,
    ) -> Result<(), StoreError> {
        running.receipt.acks = replicating.acks.values().cloned().collect();
        let error = replicating
            .refused
            .unwrap_or_else(|| timeout(desk, &running, replicating.quorum.needed(), &replicating.acks, true));
        self.finish(desk, running, Err(error))
    }

    // --- time and links

    pub fn handle_timeout(&mut self, desk: &mut Desk) -> Result<(), StoreError> {
        while let Some((at_us, ticket)) = self.wakes.first().copied() {
            if at_us > desk.now.mono_us {
                break;
            }
            let Some(running) = self.unpark(ticket) else {
                self.wakes.remove(&(at_us, ticket));
                continue;
            };
            self.wake(desk, ticket, running)?;
        }
        Ok(())
    }

    fn wake(&mut self, desk: &mut Desk, ticket: Ticket, mut running: Running) -> Result<(), StoreError> {
        if desk.now.mono_us >= running.deadline_us {
            return self.late(desk, ticket, running);
        }
        match std::mem::replace(&mut running.stage, Stage::Starting) {
            Stage::Forwarded { to, tried } => {
                running.stage = Stage::Forwarded { to, tried };
                self.forward_on(desk, running, true)
            }
            Stage::Gathering(gathering) if gathering.passing => self.decide(desk, running, gathering),
            Stage::Gathering(mut gathering) => {
                // The slow one is hedged: everybody else who owns the key is asked as well.
                desk.stats.add("hedges_total", 1);
                gathering.hedged = true;
                let more = desk
                    .view
                    .owners(running.partition)
                    .any(|node| node != desk.options.me && desk.view.is_up(node) && !gathering.asked.contains(&node));
                if more {
                    // A new ticket would orphan the answers under way.
                    self.hedge(desk, ticket, &running, &mut gathering);
                }
                running.wake_us = running.deadline_us;
                running.stage = Stage::Gathering(gathering);
                self.park(ticket, running);
                Ok(())
            }
            Stage::Replicating(mut replicating) => {
                let slow: Vec<NodeId> =
                    replicating.pending.iter().filter(|(_, place)| place.is_none()).map(|(node, _)| *node).collect();
                for owner in slow {
                    self.stand_in(desk, ticket, &running, &mut replicating, owner);
                }
                running.wake_us = running.deadline_us;
                running.stage = Stage::Replicating(replicating);
                self.park(ticket, running);
                Ok(())
            }
            stage => {
                running.stage = stage;
                running.wake_us = running.deadline_us;
                self.park(ticket, running);
                Ok(())
            }
        }
    }

    fn hedge(&mut self, desk: &mut Desk, ticket: Ticket, running: &Running, gathering: &mut Gathering) {
        let me = desk.options.me;
        let digest = gathering.local.as_ref().map(|held| digest(&held.rows));
        let more: Vec<NodeId> = desk
            .view
            .owners(running.partition)
            .filter(|node| *node != me && desk.view.is_up(*node) && !gathering.asked.contains(node))
            .collect();
        for node in more {
            gathering.asked.insert(node);
            let body = Body::Read {
                ticket,
                key: running.request.key.clone(),
                scope: gathering.scope.clone(),
                digest,
                op_id: running.request.op_id.filter(|_| !running.request.fresh),
            };
            self.send(desk, node, running.partition, body);
        }
    }

    /// The deadline has come.
    fn late(&mut self, desk: &mut Desk, ticket: Ticket, mut running: Running) -> Result<(), StoreError> {
        let mutation = !running.request.op.is_read();
        let (needed, acks, mutation) = match std::mem::replace(&mut running.stage, Stage::Starting) {
            Stage::Gathering(gathering) => (gathering.quorum.needed(), gathering.acks, false),
            Stage::Replicating(replicating) => (replicating.quorum.needed(), replicating.acks, true),
            Stage::Queued => {
                if let Some(queue) = self.busy.get_mut(&running.request.key) {
                    queue.retain(|waiting| *waiting != ticket);
                }
                (0, BTreeMap::new(), false)
            }
            _ => (0, BTreeMap::new(), mutation),
        };
        running.receipt.acks = acks.values().cloned().collect();
        let error = timeout(desk, &running, needed, &acks, mutation);
        desk.stats.add("timeouts_total", 1);
        self.finish(desk, running, Err(error))
    }

    pub fn handle_link_down(&mut self, desk: &mut Desk, node: NodeId) -> Result<(), StoreError> {
        let concerned: Vec<Ticket> = self
            .running
            .iter()
            .filter(|(_, running)| match &running.stage {
                Stage::Forwarded { to, .. } => *to == node,
                Stage::Gathering(gathering) => gathering.asked.contains(&node) && !gathering.acks.contains_key(&node),
                Stage::Replicating(replicating) => replicating.pending.contains_key(&node),
                _ => false,
            })
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in concerned {
            let Some(mut running) = self.unpark(ticket) else { continue };
            match std::mem::replace(&mut running.stage, Stage::Starting) {
                Stage::Forwarded { to, tried } => {
                    running.stage = Stage::Forwarded { to, tried };
                    self.forward_on(desk, running, true)?;
                }
                Stage::Gathering(mut gathering) => {
                    gathering.failed.insert(node);
                    self.ask_or_wait(desk, ticket, running, gathering)?;
                }
                Stage::Replicating(mut replicating) => {
                    // The owner may hold it or not; a stand-in makes sure.
                    if let Some(place) = replicating.pending.remove(&node) {
                        let owner = place.unwrap_or(node);
                        replicating.stood_in.remove(&owner);
                        self.stand_in(desk, ticket, &running, &mut replicating, owner);
                    }
                    if replicating.pending.is_empty() && !replicating.quorum.met(&replicating.acks) {
                        self.fell_short(desk, running, replicating)?;
                    } else {
                        running.stage = Stage::Replicating(replicating);
                        self.park(ticket, running);
                    }
                }
                stage => {
                    running.stage = stage;
                    self.park(ticket, running);
                }
            }
        }
        Ok(())
    }

    /// Ends everything under way with one error: the store failed, or the node stops.
    pub fn fail_all(&mut self, view: &View, out: &mut Outbox, now: Now, error: impl Fn(bool) -> RequestError) {
        for (_, mut running) in std::mem::take(&mut self.running) {
            let started = matches!(running.stage, Stage::Replicating(_) | Stage::Forwarded { .. });
            let result = Err(error(started && !running.request.op.is_read()));
            running.receipt.took_us = now.mono_us.saturating_sub(running.started_us);
            running.receipt.missing = missing(view, running.partition, &running.receipt.acks);
            push_answer(out, running.origin, running.partition, Response { result, receipt: running.receipt });
        }
        self.wakes.clear();
        self.busy.clear();
    }

    // --- the table

    fn ticket(&mut self) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        ticket
    }

    fn park(&mut self, ticket: Ticket, running: Running) {
        self.wakes.insert((running.wake_us, ticket));
        self.running.insert(ticket, running);
    }

    fn unpark(&mut self, ticket: Ticket) -> Option<Running> {
        let running = self.running.remove(&ticket)?;
        self.wakes.remove(&(running.wake_us, ticket));
        Some(running)
    }

    /// Lets the next request that judges this key begin.
    fn release_key(&mut self, desk: &mut Desk, running: &mut Running) -> Result<(), StoreError> {
        if !std::mem::take(&mut running.holds_key) {
            return Ok(());
        }
        let mut queue = self.busy.remove(&running.request.key).unwrap_or_default();
        while let Some(ticket) = queue.pop_front() {
            let Some(next) = self.unpark(ticket) else { continue };
            let key = next.request.key.clone();
            self.begin(desk, next)?;
            // It took the key, or was done at once.
            match self.busy.get_mut(&key) {
                Some(waiting) => {
                    waiting.extend(queue);
                    return Ok(());
                }
                None => continue,
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        desk: &mut Desk,
        mut running: Running,
        result: Result<Reply, RequestError>,
    ) -> Result<(), StoreError> {
        self.release_key(desk, &mut running)?;
        running.receipt.took_us = desk.now.mono_us.saturating_sub(running.started_us);
        running.receipt.missing = missing(desk.view, running.partition, &running.receipt.acks);
        if result.is_err() {
            desk.stats.add("refusals_total", 1);
        }
        let result = result.map_err(|error| in_doubt(desk.view, &running, error));
        let response = Response { result, receipt: running.receipt };
        push_answer(desk.out, running.origin, running.partition, response);
        Ok(())
    }

    fn send(&self, desk: &mut Desk, to: NodeId, partition: Partition, body: Body) {
        desk.out.sends.push((to, Traffic::Foreground, PeerMessage { partition, body }));
    }
}

fn push_answer(out: &mut Outbox, origin: Origin, partition: Partition, response: Response) {
    match origin {
        Origin::Door(ticket) => out.replies.push((ticket, response)),
        Origin::Peer { node, ticket } => {
            let body = Body::ForwardReply { ticket, response: Box::new(response) };
            out.sends.push((node, Traffic::Foreground, PeerMessage { partition, body }));
        }
    }
}

fn owners(view: &View, partition: Partition) -> Vec<(NodeId, u16)> {
    view.owners(partition).map(|node| (node, view.zone_of(node))).collect()
}

fn places(acks: &BTreeMap<NodeId, Ack>) -> BTreeSet<NodeId> {
    acks.values().map(|ack| ack.stand_in_for.unwrap_or(ack.node)).collect()
}

fn missing(view: &View, partition: Partition, acks: &[Ack]) -> Vec<NodeId> {
    view.owners(partition)
        .filter(|owner| !acks.iter().any(|ack| ack.node == *owner && ack.stand_in_for.is_none()))
        .collect()
}

fn ack(desk: &Desk, node: NodeId, stand_in_for: Option<NodeId>, fsynced: bool) -> Ack {
    Ack { node, zone: desk.view.zone_of(node), stand_in_for, fsynced }
}

/// That nothing happened here says nothing of the node that was asked before and kept silent.
fn in_doubt(view: &View, running: &Running, error: RequestError) -> RequestError {
    match running.silent {
        Some(node) if !running.request.op.is_read() && error.outcome() == Outcome::NotApplied => {
            RequestError::Timeout { needed: 1, got: 0, missing: vec![view.name_of(node).to_string()], mutation: true }
        }
        _ => error,
    }
}

fn timeout(desk: &Desk, running: &Running, needed: u8, acks: &BTreeMap<NodeId, Ack>, mutation: bool) -> RequestError {
    let missing = desk
        .view
        .owners(running.partition)
        .filter(|owner| !acks.contains_key(owner))
        .map(|owner| desk.view.name_of(owner).to_string())
        .collect();
    RequestError::Timeout { needed, got: acks.len() as u8, missing, mutation }
}

fn refused(desk: &Desk, from: NodeId, refusal: Refusal) -> RequestError {
    match refusal {
        Refusal::ClockAhead { bound_ms } => RequestError::ClockAhead { bound_ms },
        Refusal::HintsFull => RequestError::Timeout {
            needed: 0,
            got: 0,
            missing: vec![format!("{} (no room for hints)", desk.view.name_of(from))],
            mutation: true,
        },
        Refusal::Syncing => RequestError::Timeout {
            needed: 0,
            got: 0,
            missing: vec![format!("{} (taking in the whole partition)", desk.view.name_of(from))],
            mutation: true,
        },
        Refusal::StoreFailed { cause } => {
            RequestError::StoreFailed { node: desk.view.name_of(from).to_string(), cause, mutation: true }
        }
        Refusal::Busy { cause } => RequestError::Timeout {
            needed: 0,
            got: 0,
            missing: vec![format!("{} ({cause})", desk.view.name_of(from))],
            mutation: true,
        },
        Refusal::NotOwner { layout } => RequestError::Protocol(format!(
            "{} runs layout {layout} and does not own the key; this node runs {}",
            desk.view.name_of(from),
            desk.view.layout.version
        )),
    }
}

/// The stamped effects once more, under new dots and a stamp above.
fn restamped(delta: &Delta, mint: &mut Mint) -> Vec<Mutation> {
    let stamp = mint.stamp;
    delta
        .mutations
        .iter()
        .filter(|mutation| {
            mutation.effects.iter().any(|effect| effect.put.as_ref().is_some_and(|put| put.stamp().is_some()))
        })
        .map(|mutation| {
            let mut effects = mutation.effects.clone();
            for effect in &mut effects {
                if let Some(
                    Put::Register { stamp: held, .. }
                    | Put::Field { stamp: held, .. }
                    | Put::Deadline { stamp: held, .. },
                ) = &mut effect.put
                {
                    *held = stamp;
                }
                if effect.path.component == Component::Field {
                    // The field's first round is superseded by name, like any write that was seen.
                    effect.removes.push(mutation.dot);
                }
            }
            Mutation { dot: mint.dot(), effects }
        })
        .collect()
}

/// Is something of the operation's own kind visible?
fn own_visible(op: &Op, object: &Object, wall_ms: u64) -> bool {
    let Some(own) = plan::own_components(op) else { return true };
    object.rows.iter().any(|(path, row)| own.contains(&path.component) && object.path_is_visible(path, row, wall_ms))
}

/// A digest of rows by which two replicas find that they hold the same. Rows are canonical, so equal rows are equal bytes.
pub fn digest(rows: &BTreeMap<Path, Row>) -> u128 {
    xxh3_128(&codec::encode(&rows))
}

fn largest_value(op: &Op) -> u64 {
    let size = match op {
        Op::Set { value, .. } | Op::Append { value } | Op::SiblingsPut { value, .. } => value.len(),
        Op::SetAdd { members } => members.iter().map(|member| member.len()).max().unwrap_or(0),
        Op::HashSet { fields, .. } => {
            fields.iter().map(|(field, value)| field.len().max(value.len())).max().unwrap_or(0)
        }
        Op::HashIncrement { field, .. } => field.len(),
        _ => 0,
    };
    size as u64
}

fn largest_payload(delta: &Delta) -> u64 {
    let size = |put: &Option<Put>| match put {
        Some(
            Put::Register { payload: Some(payload), .. } | Put::Field { payload, .. } | Put::Sibling { payload, .. },
        ) => payload.len(),
        _ => 0,
    };
    let effects = delta.mutations.iter().flat_map(|mutation: &Mutation| &mutation.effects);
    effects.map(|effect| size(&effect.put)).max().unwrap_or(0) as u64
}

/// The first dot of a delta names the whole of it in logs.
pub fn first_dot(delta: &Delta) -> Option<Dot> {
    delta.mutations.first().map(|mutation| mutation.dot)
}
