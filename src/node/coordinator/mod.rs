//! The life of a request: admitted, routed, gathered, decided, replicated, answered.
//!
//! ```text
//!             not an owner                        enough answers            enough acks
//!  request ───────────────> Forwarded ──┐   Gathering ─────────> decide ──────────────> answer + receipt
//!     │                                 │       ^                  │ mutation            ^
//!     └── an owner, or none is up ──────┴───────┘                  v                     │
//!                                                           mint, write here ── Replicating
//! ```
//! A read whose answers may count an increment twice asks who counted it before it is answered (`naming`).
//!
//! What it waits for it waits for as sets of nodes. An owner that is away, or slow, gets a stand-in. Reading, judging and minting for
//! one key are one turn whenever this node's own copy is enough; otherwise requests that judge the same key queue behind each other.
//! It trusts the view for who owns what and for nothing else: that somebody is said to be up is only a reason to ask them.

mod decide;
mod few;
mod gather;
pub mod merge;
mod moving;
mod naming;
mod patience;
pub mod plan;
pub mod quorum;
mod replicate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::data::clock::{Hlc, Now};
use crate::data::consistency::{Ack, Receipt};
use crate::data::id::{Dot, NodeId, OpId, Partition};
use crate::data::mutation::{Delta, Mutation};
use crate::data::object::Object;
use crate::data::op::{Key, Op, Outcome, Reply, Request, RequestError, Response};
use crate::data::path::Component;
use crate::data::row::Put;
use crate::node::planted::Planted;
use crate::ring::view::View;
use crate::storage::StoreError;
use crate::wire::message::{Body, LogRow, PeerMessage, Refusal, RepairRow, Scope, Ticket};

use super::exchange::Exchange;
use super::hints::Hints;
use super::repair::Repairs;
use super::replica::{Mint, Replica, Turn};
use super::turn::{DoorTicket, Outbox, ShardOptions, Stats, Traffic};
use few::{NodeMap, NodeSet};
use merge::Held;
use naming::Naming;
use patience::Patience;
use plan::Reach;
use quorum::Quorum;

/// How often a write that meets newer stamps is stamped again.
const STAMPS_MAX: u8 = 5;
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
    pub repairs: &'a mut Repairs,
    pub exchange: &'a Exchange,
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
    running: BTreeMap<Ticket, Box<Running>>,
    wakes: BTreeSet<(u64, Ticket)>,
    /// Keys that a judging request holds, and who queues behind it.
    busy: BTreeMap<Key, VecDeque<Ticket>>,
    patience: Patience,
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
    /// When those who are waited for were asked.
    asked_us: u64,
    receipt: Receipt,
    holds_key: bool,
    /// What it writes is to be stamped above this, whatever the rows that were read say.
    above: Hlc,
    /// Was sent this mutation and has not answered: it may be doing it.
    silent: Option<NodeId>,
    /// How far a pick looks, and what it saw before it went round.
    reach: Reach,
    kept: Object,
    /// Where to go on behind the page that was gathered.
    next: Option<u64>,
    stage: Stage,
}

enum Stage {
    Starting,
    Queued,
    Forwarded { to: NodeId, tried: NodeSet },
    Gathering(Box<Gathering>),
    Naming(Box<Naming>),
    Replicating(Box<Replicating>),
}

struct Gathering {
    quorum: Quorum,
    scope: Scope,
    /// As read when the others were asked; its context is only filled in when it is merged.
    local: Option<Held>,
    /// What `local` was read at.
    local_version: u64,
    /// Of its rows, where it was known without them.
    local_digest: Option<u128>,
    local_forgotten: u64,
    /// Owners that hold the same rows as were read here.
    same: NodeSet,
    replies: NodeMap<Held>,
    hinted: Vec<Delta>,
    acks: NodeMap<Ack>,
    asked: NodeSet,
    failed: NodeSet,
    /// Stand-ins that keep nothing of the key.
    empty: NodeSet,
    /// Were silent when they were asked: an earlier try is not looked for there.
    silent: NodeSet,
    /// The log's rows of the operation, if somebody knows it.
    op_known: Option<Vec<LogRow>>,
    hedged: bool,
    /// Only an earlier try of the request is looked for, and its level could not make sure of meeting it: the look must not cost the
    /// write, which does not depend on it.
    passing: bool,
    /// An earlier try is looked for at every owner that is up. Whoever is slow is waited for no longer than a hedge, and whoever is
    /// silent not at all: then the level decides alone, and where it cannot make sure of meeting the earlier try the operation may be done twice.
    seeks: bool,
}

struct Replicating {
    quorum: Quorum,
    payload: Payload,
    reply: Reply,
    acks: NodeMap<Ack>,
    /// Node asked, and the owner whose place it fills if it is a stand-in.
    pending: NodeMap<Option<NodeId>>,
    /// Places for which a stand-in has been asked.
    stood_in: NodeSet,
    refused: Option<RequestError>,
    /// Who refused, or to whom the link broke: not asked again.
    refusers: NodeSet,
    stamps: u8,
    sync: bool,
}

impl Stage {
    /// Who has been asked and has not answered.
    fn awaited(&self) -> Vec<NodeId> {
        match self {
            Stage::Starting | Stage::Queued => Vec::new(),
            Stage::Forwarded { to, .. } => vec![*to],
            Stage::Gathering(gathering) => gathering.awaited().collect(),
            Stage::Naming(naming) => naming.awaited().collect(),
            Stage::Replicating(replicating) => replicating.pending.nodes().collect(),
        }
    }
}

#[derive(Clone)]
enum Payload {
    Delta(Delta),
    /// What stands, for an operation that was found done or had nothing to do.
    Standing(Standing),
}

impl Payload {
    /// Is it something that another stamp could help?
    fn is_stamped(&self, op: &Op) -> bool {
        match self {
            Payload::Delta(delta) => delta.mutations.iter().any(|mutation| is_stamped(op, mutation)),
            _ => true,
        }
    }
}

/// Rows or the log's rows, and a note that the operation has been answered.
#[derive(Clone, Default)]
struct Standing {
    rows: Vec<RepairRow>,
    entries: Vec<LogRow>,
    note: Option<Delta>,
}

impl Coordinator {
    /// Tickets begin at `first`: an answer to an earlier process must not be taken for one to this.
    pub fn new(first: Ticket) -> Self {
        Self {
            running: BTreeMap::new(),
            wakes: BTreeSet::new(),
            busy: BTreeMap::new(),
            patience: Patience::default(),
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
        let mut running = Box::new(Running {
            origin,
            partition,
            forwarded: matches!(origin, Origin::Peer { .. }),
            started_us,
            // What is under way when a floor is asked for must have ended when it has settled.
            deadline_us: started_us.saturating_add(request.timeout_us.min(desk.options.settle_us)),
            wake_us: 0,
            asked_us: started_us,
            receipt: Receipt {
                coordinator: Some(desk.options.me),
                layout: desk.view.layout.version,
                ..Receipt::default()
            },
            holds_key: false,
            above: Hlc(0),
            silent: None,
            reach: Reach::Beginning,
            kept: Object::default(),
            next: None,
            stage: Stage::Starting,
            request,
        });
        running.request.fresh &=
            running.request.op_id.is_none_or(|op_id| op_id.wall_ms().abs_diff(desk.now.wall_ms) <= FRESH_MAX_MS);
        desk.stats.add(if running.request.op.is_read() { "reads_total" } else { "writes_total" }, 1);
        if let Err(error) = self.admit(desk, &running.request) {
            return self.finish(desk, running, Err(error));
        }
        let me = desk.options.me;
        let owner = desk.view.is_owner(partition, me);
        if !running.forwarded {
            let first = self.next_owner(desk, partition, &NodeSet::default());
            let hop = if owner {
                first.filter(|first| *first != me && plan::prefers_first_owner(&running.request.op))
            } else {
                first
            };
            if let Some(to) = hop {
                return self.forward(desk, running, to, NodeSet::default());
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
        check_op_id(options, request, desk.now.wall_ms)?;
        if self.running.len() >= options.requests_max {
            return Err(RequestError::Overloaded(format!("{} requests are under way", self.running.len())));
        }
        Ok(())
    }

    // --- forwarding

    fn forward(
        &mut self,
        desk: &mut Desk,
        mut running: Box<Running>,
        to: NodeId,
        tried: NodeSet,
    ) -> Result<(), StoreError> {
        let ticket = self.ticket();
        let mut request = running.request.clone();
        request.timeout_us = running.deadline_us.saturating_sub(desk.now.mono_us);
        // Whatever has been sent once may have happened.
        request.fresh &= tried.is_empty();
        let left = request.timeout_us;
        self.send(desk, to, running.partition, Body::Forward { ticket, request });
        desk.stats.add("forwards_total", 1);
        running.asked_us = desk.now.mono_us;
        running.wake_us = running.deadline_us.min(desk.now.mono_us + FORWARD_RETRY_US.max(left / 3));
        running.stage = Stage::Forwarded { to, tried };
        self.park(ticket, running);
        Ok(())
    }

    /// The coordinator did not answer, or could not do it: the next owner, or this node itself.
    fn forward_on(&mut self, desk: &mut Desk, mut running: Box<Running>, silent: bool) -> Result<(), StoreError> {
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
        match self.next_owner(desk, running.partition, &tried) {
            Some(next) => self.forward(desk, running, next, tried),
            None => self.begin(desk, running),
        }
    }

    /// The owner to which a request is sent: the first that is up, and of two the one that is not silent.
    fn next_owner(&self, desk: &mut Desk, partition: Partition, tried: &NodeSet) -> Option<NodeId> {
        let mut up = desk.view.owners(partition).filter(|node| desk.view.is_up(*node) && !tried.contains(*node));
        let first = up.next()?;
        if !self.patience.is_silent(first, desk.now.mono_us) {
            return Some(first);
        }
        let other = up.find(|node| !self.patience.is_silent(*node, desk.now.mono_us));
        desk.stats.add("silent_passed_over_total", u64::from(other.is_some()));
        other.or(Some(first))
    }

    /// A peer said something, whatever it was.
    pub fn heard(&mut self, node: NodeId, now_us: u64) {
        self.patience.heard(node, now_us);
    }

    pub fn handle_forward_reply(
        &mut self,
        desk: &mut Desk,
        from: NodeId,
        ticket: Ticket,
        response: Response,
    ) -> Result<(), StoreError> {
        let stage = self.running.get(&ticket).map(|running| &running.stage);
        let answers = matches!(stage, Some(Stage::Forwarded { to, .. }) if *to == from);
        if !answers {
            return Ok(());
        }
        let running = self.unpark(ticket).expect("looked up just above");
        let again = matches!(
            response.result,
            Err(RequestError::Stopping { .. } | RequestError::StoreFailed { .. } | RequestError::Overloaded(_))
        );
        // By the clock here it has not expired: that of the other is ahead.
        let again = again
            || matches!(response.result, Err(RequestError::OpIdExpired { .. }))
                && check_op_id(desk.options, &running.request, desk.now.wall_ms).is_ok();
        if again && desk.now.mono_us < running.deadline_us {
            let unknown = response.result.is_err_and(|error| error.outcome() == Outcome::Unknown);
            return self.forward_on(desk, running, unknown);
        }
        let result = response.result.map_err(|error| in_doubt(desk.view, &running, error));
        let response = Response { result, receipt: response.receipt };
        push_answer(desk.out, running.origin, running.partition, response);
        Ok(())
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

    fn wake(&mut self, desk: &mut Desk, ticket: Ticket, mut running: Box<Running>) -> Result<(), StoreError> {
        if desk.options.planted == Planted::DeadlinesForgotten {
            running.wake_us = u64::MAX;
            self.park(ticket, running);
            return Ok(());
        }
        for node in running.stage.awaited() {
            self.patience.missed(node, running.asked_us, desk.now.mono_us);
        }
        if desk.now.mono_us >= running.deadline_us {
            return self.late(desk, ticket, running);
        }
        match std::mem::replace(&mut running.stage, Stage::Starting) {
            Stage::Forwarded { to, tried } => {
                running.stage = Stage::Forwarded { to, tried };
                self.forward_on(desk, running, true)
            }
            Stage::Gathering(gathering) if gathering.passing => self.decide(desk, running, gathering),
            Stage::Gathering(gathering) if gathering.quorum.met(&gathering.acks) => {
                self.decide(desk, running, gathering)
            }
            Stage::Gathering(mut gathering) => {
                gathering.seeks = false;
                // The slow one is hedged: everybody else who owns the key is asked as well.
                desk.stats.add("hedges_total", 1);
                gathering.hedged = true;
                let more = desk
                    .view
                    .owners(running.partition)
                    .any(|node| node != desk.options.me && desk.view.is_up(node) && !gathering.asked.contains(node));
                if more {
                    // A new ticket would orphan the answers under way.
                    self.hedge(desk, ticket, &running, &mut gathering);
                }
                running.wake_us = running.deadline_us;
                running.stage = Stage::Gathering(gathering);
                self.park(ticket, running);
                Ok(())
            }
            Stage::Naming(naming) => self.named(desk, running, *naming),
            Stage::Replicating(mut replicating) => {
                let slow: Vec<NodeId> =
                    replicating.pending.iter().filter(|(_, place)| place.is_none()).map(|(node, _)| node).collect();
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
        let digest = gathering.local_digest();
        let more: Vec<NodeId> = desk
            .view
            .owners(running.partition)
            .filter(|node| *node != me && desk.view.is_up(*node) && !gathering.asked.contains(*node))
            .collect();
        for node in more {
            gathering.asked.insert(node);
            let body = Body::Read {
                ticket,
                key: running.request.key.clone(),
                scope: gathering.scope.clone(),
                digest,
                op_id: gather::asked_about(&running.request),
            };
            self.send(desk, node, running.partition, body);
        }
    }

    /// The deadline has come.
    fn late(&mut self, desk: &mut Desk, ticket: Ticket, mut running: Box<Running>) -> Result<(), StoreError> {
        let mutation = !running.request.op.is_read();
        let (needed, acks, mutation) = match std::mem::replace(&mut running.stage, Stage::Starting) {
            Stage::Gathering(gathering) => (gathering.quorum.needed(), gathering.acks, false),
            Stage::Naming(naming) => return self.named(desk, running, *naming),
            Stage::Replicating(replicating) => (replicating.quorum.needed(), replicating.acks, true),
            Stage::Queued => {
                if let Some(queue) = self.busy.get_mut(&running.request.key) {
                    queue.retain(|waiting| *waiting != ticket);
                }
                (0, NodeMap::default(), false)
            }
            _ => (0, NodeMap::default(), mutation),
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
                Stage::Gathering(gathering) => gathering.asked.contains(node) && !gathering.acks.contains(node),
                Stage::Naming(naming) => naming.awaited().any(|awaited| awaited == node),
                Stage::Replicating(replicating) => replicating.pending.contains(node),
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
                Stage::Naming(naming) => self.not_named(desk, ticket, running, naming, node)?,
                Stage::Replicating(mut replicating) => {
                    // The owner may hold it or not; a stand-in makes sure.
                    // Not asked again for somebody else: an answer to the first would be taken for one to the second.
                    replicating.refusers.insert(node);
                    if let Some(place) = replicating.pending.remove(node) {
                        let owner = place.unwrap_or(node);
                        replicating.stood_in.remove(owner);
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
            // Who was asked before and kept silent may have done it.
            let started = started || running.silent.is_some();
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

    fn park(&mut self, ticket: Ticket, running: Box<Running>) {
        self.wakes.insert((running.wake_us, ticket));
        self.running.insert(ticket, running);
    }

    fn unpark(&mut self, ticket: Ticket) -> Option<Box<Running>> {
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
        mut running: Box<Running>,
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

fn owners(view: &View, partition: Partition) -> quorum::Owners {
    view.owners(partition).map(|node| (node, view.zone_of(node))).collect()
}

/// An operation id is remembered for a while, and refused afterwards: nobody could tell any more whether it was done.
fn check_op_id(options: &ShardOptions, request: &Request, wall_ms: u64) -> Result<(), RequestError> {
    match request.op_id.filter(|_| request.remember) {
        Some(op_id) if op_id.wall_ms().saturating_add(options.op_id_window_ms) < wall_ms => {
            Err(RequestError::OpIdExpired { window_ms: options.op_id_window_ms })
        }
        _ => Ok(()),
    }
}

fn has_place(acks: &NodeMap<Ack>, owner: NodeId) -> bool {
    acks.values().any(|ack| ack.stand_in_for.unwrap_or(ack.node) == owner)
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

fn timeout(desk: &Desk, running: &Running, needed: u8, acks: &NodeMap<Ack>, mutation: bool) -> RequestError {
    let missing = desk
        .view
        .owners(running.partition)
        .filter(|owner| !acks.contains(*owner))
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
        Refusal::Ended(_) => RequestError::Timeout {
            needed: 0,
            got: 0,
            missing: vec![format!("{} (it knows that the key had reached its deadline)", desk.view.name_of(from))],
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

/// Does it put what must be stamped above all that stands? The deadline that a life is begun with must not: whoever gave it another has
/// seen it begin.
fn is_stamped(op: &Op, mutation: &Mutation) -> bool {
    let sets_deadline = matches!(op, Op::SetDeadline { .. } | Op::GetExpire { .. });
    mutation.effects.iter().filter_map(|effect| effect.put.as_ref()).any(|put| match put {
        Put::Deadline { .. } => sets_deadline,
        put => put.stamp().is_some(),
    })
}

/// The stamped effects once more, under new dots and a stamp above.
fn restamped(op: &Op, delta: &Delta, mint: &mut Mint) -> Vec<Mutation> {
    let stamp = mint.stamp;
    delta
        .mutations
        .iter()
        .filter(|mutation| is_stamped(op, mutation))
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
