//! The world: nodes, their disks and clocks, the network between them, clients, and one heap of events.
//!
//! One thread, one seed. Each node runs the real [`Shard`]; what a host does with threads and sockets is done here with events:
//! inputs gather, a turn handles them over one overlay, commits once, and only then speaks.

mod clients;
mod events;
mod faults;
mod network;
mod nodes;
mod promises;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::check::answers::Tickets;
use super::check::{Violation, convergence};
use super::disk::{Broken, SimDisk};
use super::ghost::Ghost;
use super::history::History;
use super::load::SiblingsRead;
use super::plan::{Plan, Weather};
use super::random::Random;
use super::trace::Trace;
use crate::data::clock::Hlc;
use crate::data::id::{Incarnation, NodeId, Partition, StoreId, hash64};
use crate::data::row::{Register, Row};
use crate::node::planted::Planted;
use crate::node::shard::Shard;
use crate::node::turn::Input;
use crate::ring::layout::{Layout, Member};
use crate::ring::view::View;
use crate::storage::Storage;
use crate::wire::codec;
use crate::wire::message::{Body, Ticket};
use events::{Event, Item};

const WALL_START_MS: u64 = 1_700_000_000_000;
const TRIES_MAX: u32 = 4;
const COLLECT_REST_US: u64 = 1_000_000;
/// What expires sooner may be gone before a scrub comes to it.
const LATER_MS: u64 = 600_000;
const HOUR_MS: i64 = 3_600_000;
/// What a clock left alone gains or loses at most.
const DRIFT_MAX_PPM: u64 = 500;
/// Inputs that one turn takes at most.
const INPUTS_MAX: usize = 32;
/// An answer may be this much later than its deadline: the time a turn takes to come.
const SLACK_US: u64 = 20_000;

pub struct Node {
    pub id: NodeId,
    pub disk: SimDisk,
    /// The disk's, from empty until emptied.
    pub store: StoreId,
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
    /// What it knows of what their data lie in.
    stores: Vec<StoreId>,
    skew_ms: i64,
    /// Its clock is fast by so many millionths, or slow.
    drift_ppm: i64,
    mono_offset_us: u64,
    slow_until: u64,
    /// Its disk has little room left.
    low_until: u64,
    /// Its store failed: it refuses everything until it is restarted.
    failed: bool,
    /// The cut below which it drops, by partition and the time at which the asking began: judged once.
    cut: Option<(Partition, Hlc)>,
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
    tickets: Tickets,
    /// Since when each node asks for the floor of a partition, with the asking's number.
    asking: BTreeMap<(usize, Partition), (Ticket, u64)>,
    /// Owners of a partition were compared last.
    compared_us: BTreeMap<Partition, u64>,
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
    /// A disk holds what its node never wrote: what is said of disks is not judged any more.
    damaged: bool,
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
        let mut drifts = random.fork("drifts");
        let base = View::new(Arc::new(layout(&plan)));
        let ids: Vec<NodeId> = base.layout.members.iter().map(|member| member.id).collect();
        let count = ids.len();
        let nodes = ids
            .into_iter()
            .map(|id| Node {
                id,
                disk: SimDisk::default(),
                store: StoreId(identity.draw()),
                shard: None,
                incarnation: Incarnation(identity.draw()),
                clean: false,
                process: 0,
                paused_until: 0,
                inbox: VecDeque::new(),
                turn_due: false,
                wake_at: u64::MAX,
                up: vec![true; count],
                stores: vec![StoreId::default(); count],
                skew_ms: chaos.between(0, 2 * plan.skew_ms) as i64 - plan.skew_ms as i64,
                drift_ppm: drifts.between(0, 2 * DRIFT_MAX_PPM) as i64 - DRIFT_MAX_PPM as i64,
                mono_offset_us: chaos.below(1_000_000_000),
                slow_until: 0,
                low_until: 0,
                failed: false,
                cut: None,
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
            tickets: Tickets::default(),
            asking: BTreeMap::new(),
            compared_us: BTreeMap::new(),
            heap: BinaryHeap::new(),
            number: 0,
            weather: plan.weather,
            cut: vec![vec![0; count]; count],
            clients,
            arrived: BTreeSet::new(),
            healed: false,
            damaged: false,
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

    /// Every node is asked to compare all that it holds.
    pub fn scrub(&mut self) {
        for to in 0..self.nodes.len() {
            let process = self.nodes[to].process;
            self.after(0, Event::Input { to, process, input: Input::Scrub });
        }
    }

    /// Is a node still comparing?
    pub fn is_scrubbing(&self) -> bool {
        self.nodes.iter().flat_map(|node| &node.shard).any(|shard| shard.status().scrub.running)
    }

    /// A row of one owner is not any more what it was, and nobody noticed. Gives whose. `None`: there is nothing to damage, or there
    /// are so few owners that nobody could tell who is wrong.
    pub fn damage(&mut self) -> Option<usize> {
        if self.plan.replicas < 3 {
            return None;
        }
        let victim = self.chaos.below(self.nodes.len() as u64) as usize;
        let rows = convergence::standing(self, victim, self.true_ms() + LATER_MS);
        let whole = |row: &Row| !matches!(row, Row::Deadline(_) | Row::Retried(_));
        let rows: Vec<_> = rows.into_iter().filter(|(_, row)| whole(row)).collect();
        if rows.is_empty() {
            return None;
        }
        let (at, row) = self.chaos.pick(&rows).clone();
        self.trace.line(|| format!("{:>10} DAMAGE at {victim}: {at:?} was {row:?}", self.now_us));
        let value = match row {
            Row::Register(register) if self.chaos.chance(500_000) => {
                let payload = register.payload.map(|payload| [&payload[..], b"?"].concat().into());
                Some(codec::encode(&Row::Register(Register { payload, ..register })))
            }
            _ => None,
        };
        self.nodes[victim].disk.damage(at, value);
        self.damaged = true;
        self.count("sim_rows_damaged", 1);
        Some(victim)
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
        let node = &self.nodes[node];
        let drift_ms = self.now_us as i64 / 1_000 * node.drift_ppm / 1_000_000;
        self.true_ms().saturating_add_signed(node.skew_ms + drift_ms)
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
        let node = &self.nodes[node];
        let members = node.stores.iter().zip(&self.nodes);
        let view = self.base.with_flags(&node.up);
        Arc::new(members.fold(view, |view, (store, member)| view.with_store(member.id, *store)))
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

    fn after(&mut self, wait_us: u64, event: Event) {
        self.number += 1;
        let item = Item { at_us: self.now_us + wait_us, tie: self.ties.draw(), number: self.number, event };
        self.heap.push(item);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, process, from, store, message } => {
                let emptied = self.nodes[from].store != store;
                let sender = self.nodes[from].id;
                // What a fenced process had sent ends with its link, which is gone before it comes back.
                if emptied && self.nodes[to].shard.as_ref().is_some_and(|shard| shard.has_fenced(sender, store)) {
                    return;
                }
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
