//! The world: nodes, their disks and clocks, the network between them, clients, and one heap of events.
//!
//! One thread, one seed. Each node runs the real [`Shard`]; what a host does with threads and sockets is done here with events:
//! inputs gather, a turn handles them over one overlay, commits once, and only then speaks.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::check::{Violation, receipts};
use super::disk::{Broken, SimDisk};
use super::ghost::{Ghost, Knowledge};
use super::history::{Call, End, History};
use super::load::{self, SiblingsRead};
use super::plan::{Fault, Kind, Plan, Weather};
use super::random::Random;
use super::trace::Trace;
use crate::data::clock::Now;
use crate::data::id::{Incarnation, NodeId, OpId, hash64};
use crate::data::op::{Outcome, Request, RequestError, Response};
use crate::node::planted::Planted;
use crate::node::replica::Turn;
use crate::node::shard::Shard;
use crate::node::turn::{Input, Outbox, ShardOptions};
use crate::ring::layout::{Layout, Member};
use crate::ring::view::View;
use crate::storage::{Storage, StoreError};
use crate::wire::codec;
use crate::wire::message::{Body, PeerMessage, Refusal};

const WALL_START_MS: u64 = 1_700_000_000_000;
const TRIES_MAX: u32 = 4;
const COLLECT_REST_US: u64 = 1_000_000;
const HOUR_MS: i64 = 3_600_000;
/// Inputs that one turn takes at most.
const INPUTS_MAX: usize = 32;
/// An answer may be this much later than its deadline: the time a turn takes to come.
const SLACK_US: u64 = 20_000;

enum Event {
    Deliver {
        to: usize,
        process: u64,
        from: usize,
        message: PeerMessage,
    },
    Input {
        to: usize,
        process: u64,
        input: Input,
    },
    Turn {
        node: usize,
        process: u64,
    },
    Wake {
        node: usize,
        process: u64,
    },
    Sync {
        node: usize,
        process: u64,
    },
    Resume {
        node: usize,
        process: u64,
    },
    Start {
        node: usize,
    },
    /// A node learns whether another is up; `forced` whatever the truth.
    Notice {
        at: usize,
        of: usize,
        forced: Option<bool>,
    },
    Fault(usize),
    /// One more of a loop of crashes.
    Crash {
        node: usize,
        down_us: u64,
    },
    /// A disk works again; a node that had failed by it is restarted.
    Mend {
        node: usize,
        down_us: u64,
    },
    /// An old copy is put in place of a node's disk.
    Restore {
        node: usize,
        down_us: u64,
    },
    /// A clock that leapt is set right.
    SetClock {
        node: usize,
        skew_ms: i64,
    },
    Reopen {
        from: usize,
        to: usize,
    },
    Client {
        client: usize,
    },
    Try {
        call: usize,
    },
    Answer {
        ticket: u64,
        response: Response,
    },
    GiveUp {
        ticket: u64,
    },
}

struct Item {
    at_us: u64,
    tie: u64,
    number: u64,
    event: Event,
}

impl Item {
    fn order(&self) -> (u64, u64, u64) {
        (self.at_us, self.tie, self.number)
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

pub struct Node {
    pub id: NodeId,
    pub disk: SimDisk,
    /// `None`: no process runs.
    pub shard: Option<Shard>,
    pub incarnation: Incarnation,
    /// The mark of a clean shutdown lies on the disk.
    clean: bool,
    /// Number of the process: what was meant for an earlier one is not for this.
    process: u64,
    paused_until: u64,
    inbox: VecDeque<Input>,
    turn_due: bool,
    wake_at: u64,
    /// What this node believes of the others.
    up: Vec<bool>,
    skew_ms: i64,
    mono_offset_us: u64,
    slow_until: u64,
    /// Its disk has little room left.
    low_until: u64,
    /// Its store failed: it refuses everything until it is restarted.
    failed: bool,
    /// Requests to answer: ticket and the moment at which it must be.
    door: BTreeMap<u64, u64>,
}

pub struct World {
    pub plan: Plan,
    pub now_us: u64,
    pub nodes: Vec<Node>,
    /// Of the layout that all share; who is up differs from node to node.
    base: View,
    pub history: History,
    pub ghost: Ghost,
    pub coverage: BTreeMap<String, u64>,
    pub trace: Trace,
    pub violation: Option<Violation>,
    planted: Planted,
    heap: BinaryHeap<Item>,
    number: u64,
    weather: Weather,
    /// `cut[from][to]`: until when nothing passes.
    cut: Vec<Vec<u64>>,
    clients: Vec<Client>,
    /// Requests that have come in at a node.
    arrived: BTreeSet<u64>,
    /// No new calls, no new faults.
    healed: bool,
    ties: Random,
    net: Random,
    chaos: Random,
    load: Random,
    identity: Random,
}

struct Client {
    read: SiblingsRead,
    call: Option<usize>,
}

impl World {
    pub fn new(seed: u64, plan: Plan, trace: Trace, planted: Planted) -> Self {
        let random = Random::new(seed);
        let mut chaos = random.fork("chaos");
        let mut identity = random.fork("identity");
        let base = View::new(Arc::new(layout(&plan)));
        let ids: Vec<NodeId> = base.layout.members.iter().map(|member| member.id).collect();
        let count = ids.len();
        let nodes = ids
            .into_iter()
            .map(|id| Node {
                id,
                disk: SimDisk::default(),
                shard: None,
                incarnation: Incarnation(identity.draw()),
                clean: false,
                process: 0,
                paused_until: 0,
                inbox: VecDeque::new(),
                turn_due: false,
                wake_at: u64::MAX,
                up: vec![true; count],
                skew_ms: chaos.between(0, 2 * plan.skew_ms) as i64 - plan.skew_ms as i64,
                mono_offset_us: chaos.below(1_000_000_000),
                slow_until: 0,
                low_until: 0,
                failed: false,
                door: BTreeMap::new(),
            })
            .collect();
        let nodes: Vec<Node> = nodes;
        for node in &nodes {
            node.disk.hides_errors.set(planted == Planted::ReadErrorsHidden);
        }
        let clients = (0..plan.clients).map(|_| Client { read: SiblingsRead::new(), call: None }).collect();
        let mut world = Self {
            now_us: 0,
            nodes,
            base,
            history: History::default(),
            ghost: Ghost::default(),
            coverage: BTreeMap::new(),
            trace,
            violation: None,
            planted,
            heap: BinaryHeap::new(),
            number: 0,
            weather: plan.weather,
            cut: vec![vec![0; count]; count],
            clients,
            arrived: BTreeSet::new(),
            healed: false,
            ties: random.fork("ties"),
            net: random.fork("net"),
            chaos,
            load: random.fork("load"),
            identity,
            plan,
        };
        for node in 0..count {
            world.start(node);
        }
        for client in 0..world.clients.len() {
            world.after(client as u64 * 1_000, Event::Client { client });
        }
        for fault in 0..world.plan.faults.len() {
            let at_us = world.plan.faults[fault].at_us;
            world.after(at_us, Event::Fault(fault));
        }
        world
    }

    /// Runs until `until_us` or a violation.
    pub fn run_until(&mut self, until_us: u64) {
        while self.violation.is_none() && self.heap.peek().is_some_and(|item| item.at_us <= until_us) {
            let item = self.heap.pop().expect("peeked just above");
            self.now_us = item.at_us;
            self.handle(item.event);
        }
        self.now_us = self.now_us.max(until_us);
    }

    /// Everything up, every cut gone, fair weather, no new calls.
    pub fn heal(&mut self) {
        self.trace.line(|| format!("{:>10} -- all heals --", self.now_us));
        self.healed = true;
        self.weather = Weather::FAIR;
        for row in &mut self.cut {
            row.fill(0);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].slow_until = 0;
            self.nodes[node].low_until = 0;
            self.nodes[node].disk.set_broken(Broken::Nothing);
            if self.nodes[node].failed {
                self.stop(node);
            }
            self.nodes[node].skew_ms = self.nodes[node].skew_ms.clamp(-100, 100);
            if self.nodes[node].shard.is_none() {
                let wait = self.chaos.between(1_000, 1_000_000);
                self.after(wait, Event::Start { node });
            } else if self.nodes[node].paused_until > self.now_us {
                let process = self.nodes[node].process;
                self.nodes[node].paused_until = self.now_us;
                self.after(1, Event::Resume { node, process });
            }
            for of in 0..self.nodes.len() {
                let wait = self.chaos.between(1_000_000, 2_000_000);
                self.after(wait, Event::Notice { at: node, of, forced: None });
            }
        }
    }

    /// Is any call still waited for?
    pub fn is_calling(&self) -> bool {
        self.clients.iter().any(|client| client.call.is_some())
    }

    pub fn count(&mut self, name: &str, count: u64) {
        *self.coverage.entry(name.to_string()).or_insert(0) += count;
    }

    pub fn violate(&mut self, checker: &'static str, message: String) {
        self.trace.line(|| format!("{:>10} VIOLATION {checker}: {message}", self.now_us));
        self.violation.get_or_insert(Violation { checker, at_us: self.now_us, message });
    }

    pub fn wall_ms(&self, node: usize) -> u64 {
        (WALL_START_MS + self.now_us / 1_000).saturating_add_signed(self.nodes[node].skew_ms)
    }

    /// The true time.
    pub fn true_ms(&self) -> u64 {
        WALL_START_MS + self.now_us / 1_000
    }

    pub fn number_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// The layout as a node sees it.
    pub fn view_of(&self, node: usize) -> Arc<View> {
        Arc::new(self.base.with_flags(&self.nodes[node].up))
    }

    /// Collects what the nodes have counted.
    pub fn finish(&mut self) {
        for at in 0..self.nodes.len() {
            if let Some(shard) = &self.nodes[at].shard {
                for (name, count) in shard.status().stats.iter() {
                    *self.coverage.entry(name.to_string()).or_insert(0) += count;
                }
            }
        }
    }

    // --- events

    fn after(&mut self, wait_us: u64, event: Event) {
        self.number += 1;
        let item = Item { at_us: self.now_us + wait_us, tie: self.ties.draw(), number: self.number, event };
        self.heap.push(item);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, process, from, message } => {
                let node = &mut self.nodes[to];
                // A link ends with a process. That some of what was under way comes through all the same is harsher than the truth,
                // and a request so resurrected would be judged anew by nobody's fault: those end with the link.
                let forward = matches!(message.body, Body::Forward { .. });
                if node.shard.is_none() || node.process != process && (forward || !self.net.chance(50_000)) {
                    return;
                }
                let digest = hash64(&codec::encode(&message));
                self.trace.mark(&[self.now_us, 1, to as u64, from as u64, digest]);
                self.trace.line(|| format!("{:>10} {from} -> {to} {message:?}", self.now_us));
                let from = self.nodes[from].id;
                self.push_input(to, Input::Message { from, message });
            }
            Event::Input { to, process, input } => {
                if self.nodes[to].shard.is_some() && self.nodes[to].process == process {
                    self.push_input(to, input);
                }
            }
            Event::Turn { node, process } => {
                if self.nodes[node].process == process && self.nodes[node].shard.is_some() {
                    self.nodes[node].turn_due = false;
                    self.turn(node);
                }
            }
            Event::Wake { node, process } => {
                let held = &mut self.nodes[node];
                if held.process == process && held.shard.is_some() && held.wake_at <= self.now_us {
                    held.wake_at = u64::MAX;
                    self.turn(node);
                }
            }
            Event::Sync { node, process } => {
                let held = &self.nodes[node];
                if held.process == process && held.shard.is_some() {
                    if held.paused_until <= self.now_us && !held.failed {
                        match held.disk.sync() {
                            Ok(()) => self.ghost.synced(node),
                            Err(error) => self.fail(node, &error),
                        }
                    }
                    self.after(self.plan.sync_every_us, Event::Sync { node, process });
                }
            }
            Event::Resume { node, process } => {
                if self.nodes[node].process == process && self.nodes[node].paused_until <= self.now_us {
                    self.turn(node);
                }
            }
            Event::Start { node } => {
                if self.nodes[node].shard.is_none() {
                    self.start(node);
                    self.tell_about(node);
                }
            }
            Event::Notice { at, of, forced } => self.notice(at, of, forced),
            Event::Fault(fault) => {
                if !self.healed {
                    let fault = self.plan.faults[fault].clone();
                    self.inflict(&fault);
                }
            }
            Event::Crash { node, down_us } => {
                if !self.healed {
                    self.kill(node, false, down_us);
                }
            }
            Event::Mend { node, down_us } => {
                self.nodes[node].disk.set_broken(Broken::Nothing);
                if !self.healed && self.nodes[node].failed {
                    self.kill(node, false, down_us);
                }
            }
            Event::Restore { node, down_us } => {
                // Within the budget: everybody else is there.
                if !self.healed && self.nodes.iter().all(|node| node.shard.is_some() && !node.failed) {
                    self.kill(node, false, down_us);
                    self.restore(node);
                }
            }
            Event::SetClock { node, skew_ms } => {
                if !self.healed {
                    self.nodes[node].skew_ms = skew_ms;
                }
            }
            Event::Reopen { from, to } => {
                self.after(1_000, Event::Notice { at: from, of: to, forced: None });
                self.after(1_000, Event::Notice { at: to, of: from, forced: None });
            }
            Event::Client { client } => self.begin_call(client),
            Event::Try { call } => self.send_try(call),
            Event::Answer { ticket, response } => self.take_answer(ticket, response),
            Event::GiveUp { ticket } => self.give_up(ticket),
        }
    }

    // --- nodes

    fn start(&mut self, at: usize) {
        let reality: Vec<bool> = (0..self.nodes.len())
            .map(|of| of == at || self.now_us == 0 || self.is_reachable(at, of) || self.chaos.chance(100_000))
            .collect();
        let clean = std::mem::take(&mut self.nodes[at].clean);
        if !clean && self.now_us > 0 && self.planted != Planted::IncarnationResumed {
            self.nodes[at].incarnation = Incarnation(self.identity.draw());
            self.count("sim_incarnations_minted", 1);
        }
        let view = Arc::new(self.base.with_flags(&reality));
        let now = self.now_of(at);
        let mut options = ShardOptions::new(self.nodes[at].id);
        options.hint_bytes_max = self.plan.hint_bytes_max;
        options.log_keep_us = self.plan.log_keep_us;
        options.page_bytes = self.plan.page_bytes;
        options.op_id_window_ms = self.plan.op_id_window_ms;
        options.settle_us = self.plan.settle_us;
        options.collect_rest_us = COLLECT_REST_US;
        options.planted = self.planted;
        let node = &mut self.nodes[at];
        node.up = reality;
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

    fn now_of(&self, at: usize) -> Now {
        Now { mono_us: self.now_us + self.nodes[at].mono_offset_us, wall_ms: self.wall_ms(at) }
    }

    fn push_input(&mut self, to: usize, input: Input) {
        if let Input::Request { ticket, .. } = &input {
            self.arrived.insert(*ticket);
        }
        self.nodes[to].inbox.push_back(input);
        self.want_turn(to);
    }

    fn want_turn(&mut self, at: usize) {
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
    fn turn(&mut self, at: usize) {
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
                    if let Err(message) = self.ghost.committed(at, incarnation, &batch, false) {
                        self.violate("dots", message);
                    }
                    self.nodes[at].disk.set_broken(Broken::Everything);
                }
                return self.fail(at, &error);
            }
            if let Err(message) = self.ghost.committed(at, incarnation, &batch, out.sync) {
                self.violate("dots", message);
            }
        }
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
        self.speak(at, out);
        self.check_door(at);
    }

    /// The store failed: as a lane does it, nothing of the turn is said, and everybody who waits is told.
    fn fail(&mut self, at: usize, error: &StoreError) {
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
    fn refuse(&mut self, at: usize, input: Input, busy: Option<&str>) {
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

    fn speak(&mut self, at: usize, out: Outbox) {
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

    fn check_door(&mut self, at: usize) {
        let now_us = self.now_us;
        if let Some((ticket, due)) = self.nodes[at].door.iter().find(|(_, due)| **due < now_us) {
            let message = format!("node {at} has not answered call {} that was due at {due}", ticket >> 8);
            self.violate("deadlines", message);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        if from == to {
            self.violate("network", format!("node {from} sends to itself: {message:?}"));
            return;
        }
        if self.cut[from][to] > self.now_us {
            self.count("sim_messages_cut", 1);
            return;
        }
        let weather = self.weather;
        if self.net.chance(weather.loss_ppm) {
            self.count("sim_messages_lost", 1);
            return;
        }
        if weather.full_ppm > 0 && self.net.chance(weather.full_ppm) {
            self.count("sim_messages_not_taken", 1);
            let refusal = Refusal::Busy { cause: "the queue is full".to_string() };
            if let Some(message) = message.refused(&format!("n{to}"), refusal) {
                let of = self.nodes[to].id;
                self.push_input(from, Input::Message { from: of, message });
            }
            return;
        }
        let process = self.nodes[to].process;
        if self.net.chance(weather.double_ppm) {
            self.count("sim_messages_doubled", 1);
            let wait = self.delay() + self.net.below(2_000_000);
            self.after(wait, Event::Deliver { to, process, from, message: message.clone() });
        }
        let wait = self.delay();
        self.after(wait, Event::Deliver { to, process, from, message });
    }

    fn delay(&mut self) -> u64 {
        let weather = self.weather;
        let tail = if self.net.chance(weather.tail_ppm) { self.net.below(weather.tail_us) } else { 0 };
        self.net.between(weather.delay_min_us, weather.delay_max_us) + tail
    }

    fn is_reachable(&self, at: usize, of: usize) -> bool {
        let other = &self.nodes[of];
        let passes = self.cut[at][of] <= self.now_us && self.cut[of][at] <= self.now_us;
        other.shard.is_some() && other.paused_until <= self.now_us && passes
    }

    /// Everybody learns, sooner or later, that something about a node has changed.
    fn tell_about(&mut self, of: usize) {
        for at in (0..self.nodes.len()).filter(|at| *at != of) {
            let wait = self.chaos.between(10_000, 2_000_000);
            self.after(wait, Event::Notice { at, of, forced: None });
        }
    }

    fn notice(&mut self, at: usize, of: usize, forced: Option<bool>) {
        let up = forced.unwrap_or_else(|| self.is_reachable(at, of));
        if at == of || self.nodes[at].shard.is_none() || self.nodes[at].up[of] == up {
            return;
        }
        self.nodes[at].up[of] = up;
        self.trace.line(|| format!("{:>10} {at} believes {of} is {}", self.now_us, if up { "up" } else { "down" }));
        let view = self.view_of(at);
        self.push_input(at, Input::View(view));
        if up && self.chaos.chance(500_000) {
            let process = self.nodes[at].process;
            let wait = self.chaos.below(500_000);
            self.after(wait, Event::Input { to: at, process, input: Input::LinkUp(self.nodes[of].id) });
        }
    }

    fn kill(&mut self, at: usize, power: bool, down_us: u64) {
        if self.nodes[at].shard.is_none() {
            return;
        }
        self.stop(at);
        if power {
            self.cut_power(at);
        }
        self.after(down_us, Event::Start { node: at });
    }

    fn stop(&mut self, at: usize) {
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

    fn cut_power(&mut self, at: usize) {
        let before = self.knowledge(at);
        let unsynced = self.nodes[at].disk.unsynced();
        let keep = if self.chaos.chance(500_000) { 0 } else { self.chaos.below(unsynced as u64 + 1) as usize };
        self.nodes[at].disk.cut_power(keep);
        self.ghost.forgot(at, Some((unsynced - keep) as u64), self.now_us);
        self.count("power_cut_batches_lost", (unsynced - keep) as u64);
        self.trace.line(|| format!("{:>10} {at} loses the last {} batches", self.now_us, unsynced - keep));
        self.note_lost(&before);
    }

    fn wipe(&mut self, at: usize) {
        let before = self.knowledge(at);
        self.nodes[at].disk.wipe();
        self.ghost.forgot(at, None, self.now_us);
        self.trace.line(|| format!("{:>10} {at} is wiped", self.now_us));
        self.note_lost(&before);
    }

    fn restore(&mut self, at: usize) {
        let before = self.knowledge(at);
        if let Some(lost) = self.nodes[at].disk.restore() {
            self.ghost.forgot(at, Some(lost), self.now_us);
            self.count("sim_disks_restored", 1);
            self.trace.line(|| format!("{:>10} {at} has an old disk, {lost} batches ago", self.now_us));
            self.note_lost(&before);
        }
    }

    fn note_lost(&mut self, before: &Knowledge) {
        let after: Vec<Knowledge> = (0..self.nodes.len()).map(|node| self.knowledge(node)).collect();
        let lost = self.ghost.note_lost(before, &after);
        self.count("dots_lost_with_disks", lost as u64);
    }

    fn knowledge(&self, at: usize) -> Knowledge {
        let disk = &self.nodes[at].disk;
        let broken = disk.set_broken(Broken::Nothing);
        let knowledge = Knowledge::read(disk, self.plan.partitions).expect("the disk works for now");
        disk.set_broken(broken);
        knowledge
    }

    // --- faults

    fn inflict(&mut self, fault: &Fault) {
        let Fault { kind, node, other, for_us, draw, .. } = *fault;
        self.trace.mark(&[self.now_us, 5, kind as u64, node as u64]);
        self.trace.line(|| format!("{:>10} FAULT {fault:?}", self.now_us));
        let count = self.nodes.len();
        let down_us = for_us / 2;
        match kind {
            Kind::Kill => self.kill(node, false, down_us),
            Kind::PowerCut => self.kill(node, true, down_us),
            Kind::CrashLoop => {
                let (down_us, up_us) = (1_000 + draw % 10_000, 2_000 + (draw >> 16) % 40_000);
                for crash in 0..3 + (draw >> 32) % 6 {
                    self.after(crash * (down_us + up_us), Event::Crash { node, down_us });
                }
            }
            Kind::Blackout => {
                for at in 0..count {
                    self.kill(at, true, down_us / 4 + at as u64 * 10_000);
                }
            }
            Kind::Restart => {
                if self.nodes[node].shard.is_some() {
                    self.stop(node);
                    // A node whose store has failed leaves no mark of a clean end.
                    if self.nodes[node].disk.sync().is_ok() {
                        self.ghost.synced(node);
                        self.nodes[node].clean = true;
                    }
                    self.after(down_us, Event::Start { node });
                }
            }
            Kind::Wipe => {
                // Within the budget: everybody else is there.
                if self.nodes.iter().all(|node| node.shard.is_some()) {
                    self.kill(node, false, down_us);
                    self.wipe(node);
                }
            }
            Kind::Pause => {
                if self.nodes[node].shard.is_some() {
                    let until = self.now_us + for_us;
                    let held = &mut self.nodes[node];
                    held.paused_until = held.paused_until.max(until);
                    for due in held.door.values_mut() {
                        *due += for_us;
                    }
                    let process = held.process;
                    self.after(for_us, Event::Resume { node, process });
                    self.tell_about(node);
                    for at in 0..count {
                        self.after(for_us + 100_000, Event::Notice { at, of: node, forced: None });
                    }
                }
            }
            Kind::Slow => self.nodes[node].slow_until = self.now_us + for_us,
            Kind::Cut => self.cut(node, other, for_us, true),
            Kind::CutOneWay => self.cut(node, other, for_us, false),
            Kind::Isolate => {
                for other in 0..count {
                    self.cut(node, other, for_us, true);
                }
            }
            Kind::Split => {
                for one in 0..count {
                    for two in one + 1..count {
                        if (draw >> one) & 1 != (draw >> two) & 1 {
                            self.cut(one, two, for_us, true);
                        }
                    }
                }
            }
            Kind::Suspect => {
                self.after(0, Event::Notice { at: node, of: other, forced: Some(draw % 4 == 0) });
                self.after(for_us, Event::Notice { at: node, of: other, forced: None });
            }
            Kind::ClockStep => {
                let step = (draw % (2 * self.plan.skew_ms + 1)) as i64 - self.plan.skew_ms as i64;
                self.nodes[node].skew_ms = step;
            }
            Kind::DiskError | Kind::ReadError => {
                let reads = kind == Kind::ReadError;
                self.nodes[node].disk.set_broken(if reads { Broken::Reads } else { Broken::Everything });
                self.after(for_us, Event::Mend { node, down_us });
            }
            Kind::FullDisk => self.nodes[node].low_until = self.now_us + for_us,
            Kind::OldDisk => {
                self.nodes[node].disk.back_up();
                self.after(for_us, Event::Restore { node, down_us: down_us.min(1_000_000) });
            }
            Kind::ClockLeap => {
                let skew_ms = self.nodes[node].skew_ms;
                self.nodes[node].skew_ms = if draw % 2 == 0 { HOUR_MS } else { -HOUR_MS };
                self.after(for_us, Event::SetClock { node, skew_ms });
            }
            Kind::Weather => {
                self.weather = if draw % 2 == 0 { self.plan.weather } else { Weather::FAIR };
            }
            Kind::LinkReset => {
                let (one, two) = (self.nodes[node].id, self.nodes[other].id);
                for (to, of) in [(node, two), (other, one)] {
                    if node != other {
                        let process = self.nodes[to].process;
                        self.after(1, Event::Input { to, process, input: Input::LinkDown(of) });
                    }
                }
            }
        }
        self.count(&format!("fault_{}", kind.name()), 1);
    }

    fn cut(&mut self, one: usize, two: usize, for_us: u64, both: bool) {
        if one == two {
            return;
        }
        let until = self.now_us + for_us;
        self.cut[one][two] = self.cut[one][two].max(until);
        if both {
            self.cut[two][one] = self.cut[two][one].max(until);
        }
        for (at, of) in [(one, two), (two, one)] {
            // Membership may or may not find out: others may vouch for the one that is cut off.
            if self.chaos.chance(500_000) {
                let wait = self.chaos.between(100_000, 2_000_000);
                self.after(wait, Event::Notice { at, of, forced: None });
            }
        }
        self.after(for_us + 1, Event::Reopen { from: one, to: two });
    }

    // --- clients

    fn begin_call(&mut self, client: usize) {
        if self.healed || self.now_us >= self.plan.hurt_us {
            return;
        }
        let number = self.history.calls.len();
        let wall_ms = WALL_START_MS + self.now_us / 1_000;
        let (key, op, read) = load::draw(&mut self.load, self.plan.keys, number, wall_ms, &self.clients[client].read);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.load.draw().to_be_bytes());
        random[8..].copy_from_slice(&(number as u16).to_be_bytes());
        let request = Request {
            key,
            op,
            consistency: load::consistency(&mut self.load, self.plan.replicas),
            timeout_us: *self.load.pick(&[100_000, 500_000, 2_000_000]),
            op_id: Some(OpId::new(wall_ms, random)),
            fresh: true,
            // What the log alone remembers is for retries that come before it is dropped.
            remember: self.load.chance(800_000) || self.plan.log_keep_us < 10_000_000,
        };
        self.history.calls.push(Call {
            client,
            request,
            begun_us: self.now_us,
            ended_us: u64::MAX,
            end: End::Open,
            tries: 0,
            maybe: false,
            reply: None,
            receipt: None,
            read,
        });
        self.clients[client].call = Some(number);
        self.send_try(number);
    }

    fn send_try(&mut self, call: usize) {
        let node = self.load.below(self.nodes.len() as u64) as usize;
        let held = &mut self.history.calls[call];
        held.tries += 1;
        let tries = held.tries;
        if self.nodes[node].shard.is_none() {
            // Refused at once: it was never sent.
            return self.try_again(call);
        }
        let mut request = held.request.clone();
        // What was sent before may have happened.
        held.request.fresh = false;
        request.timeout_us = held.request.timeout_us;
        let ticket = ((call as u64) << 8) | u64::from(tries);
        let wait = self.net.between(50, 500);
        let timeout_us = request.timeout_us;
        self.trace.line(|| format!("{:>10} call {call} try {tries} to {node} {request:?}", self.now_us));
        let process = self.nodes[node].process;
        let at_us = self.nodes[node].paused_until.max(self.now_us + wait);
        let slow_us = if self.nodes[node].slow_until > self.now_us { 100_000 } else { 0 };
        self.nodes[node].door.insert(ticket, at_us + timeout_us + SLACK_US + slow_us);
        self.after(wait, Event::Input { to: node, process, input: Input::Request { ticket, request } });
        self.after(timeout_us + 100_000, Event::GiveUp { ticket });
    }

    /// The call that waits for just this ticket.
    fn waiting_for(&self, ticket: u64) -> Option<usize> {
        let call = (ticket >> 8) as usize;
        let held = &self.history.calls[call];
        (held.end == End::Open && u64::from(held.tries) == ticket & 0xff).then_some(call)
    }

    fn take_answer(&mut self, ticket: u64, response: Response) {
        let Some(call) = self.waiting_for(ticket) else { return };
        let held = &mut self.history.calls[call];
        match response.result {
            Ok(reply) => {
                if matches!(held.op(), crate::data::op::Op::SiblingsGet | crate::data::op::Op::SiblingsPut { .. }) {
                    load::remember(&mut self.clients[held.client].read, &held.request.key, &reply);
                }
                held.reply = Some(reply);
                held.receipt = Some(response.receipt);
                self.end_call(call, End::Acked);
            }
            Err(error) => {
                held.maybe |= error.outcome() == Outcome::Unknown;
                let name = format!("refused_{}", error_name(&error));
                self.count(&name, 1);
                if error.retryable() {
                    self.try_again(call);
                } else {
                    self.end_failed(call);
                }
            }
        }
    }

    fn give_up(&mut self, ticket: u64) {
        if let Some(call) = self.waiting_for(ticket) {
            self.history.calls[call].maybe = true;
            self.count("calls_unanswered", 1);
            self.try_again(call);
        }
    }

    fn try_again(&mut self, call: usize) {
        let held = &self.history.calls[call];
        if held.tries < TRIES_MAX && self.load.chance(850_000) {
            let wait = self.load.between(1_000, 200_000);
            self.after(wait, Event::Try { call });
        } else {
            self.end_failed(call);
        }
    }

    fn end_failed(&mut self, call: usize) {
        let end = if self.history.calls[call].maybe { End::Unknown } else { End::NotApplied };
        self.end_call(call, end);
    }

    fn end_call(&mut self, call: usize, end: End) {
        let now_us = self.now_us;
        let held = &mut self.history.calls[call];
        held.end = end;
        if end != End::Unknown {
            held.ended_us = now_us;
        }
        let client = held.client;
        self.clients[client].call = None;
        self.trace.line(|| format!("{now_us:>10} call {call} ends: {end:?}"));
        self.count(
            match end {
                End::Acked => "calls_acked",
                End::NotApplied => "calls_not_applied",
                _ => "calls_unknown",
            },
            1,
        );
        let rest = self.load.below(self.plan.rest_us);
        self.after(rest, Event::Client { client });
    }
}

fn error_name(error: &RequestError) -> &'static str {
    match error {
        RequestError::WrongType => "wrong_type",
        RequestError::Unavailable { .. } => "unavailable",
        RequestError::Timeout { .. } => "timeout",
        RequestError::Overloaded(_) => "overloaded",
        RequestError::ClockAhead { .. } => "clock_ahead",
        RequestError::TooManySiblings { .. } => "siblings",
        RequestError::BadContext => "bad_context",
        RequestError::BadConsistency(_) => "bad_consistency",
        RequestError::OpIdExpired { .. } => "op_id_expired",
        _ => "other",
    }
}

fn layout(plan: &Plan) -> Layout {
    let members = (0..plan.nodes)
        .map(|number| {
            let name = format!("n{number}");
            let address = |port: usize| format!("sim:{}", port + number);
            Member {
                id: NodeId::from_name(&name),
                zone: "z".into(),
                weight: 1,
                quic: address(9000),
                resp: address(7000),
                http: address(8000),
                name,
            }
        })
        .collect();
    Layout { version: 1, parent: 0, replicas: plan.replicas, partitions: plan.partitions, members }
}
