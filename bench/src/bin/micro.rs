//! What one call costs, for the calls that every request makes: nanoseconds, least and median.
//!
//! A storage turn is the node's own share of a `SET` at `quorum` without a network: 32 requests decided and committed by their
//! coordinator, the same 32 taken by each other owner, and their acknowledgements counted, each divided by 32.
//!
//! `cargo run -p bench --bin micro -- [--json] [--rounds N] [--only TEXT]`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bench::{Arguments, Figure, Machine};
use bytes::Bytes;
use tidewater::data::clock::{Hlc, Now, Stamp};
use tidewater::data::context::Context;
use tidewater::data::decimal::Decimal;
use tidewater::data::id::{Dot, Incarnation, NodeId, OpId, Partition, StoreId, hash64, mix64};
use tidewater::data::op::{Condition, Key, Op, Request, SetExpiry};
use tidewater::data::row::{Life, Register, Row, merge};
use tidewater::node::membership::{Membership, SwimOptions};
use tidewater::node::replica::Turn;
use tidewater::node::shard::{Shard, run_turn};
use tidewater::node::turn::{Input, Outbox, ShardOptions};
use tidewater::ring::layout::{Layout, Member};
use tidewater::ring::slot;
use tidewater::ring::table::Table;
use tidewater::ring::view::View;
use tidewater::storage::{MemoryStore, Storage};
use tidewater::wire::codec;
use tidewater::wire::message::PeerMessage;

/// Requests in one turn.
const TURN: usize = 32;

fn main() {
    let arguments = Arguments::read("What one call costs.", 200);
    let machine = Machine::watch();
    let mut figures = Vec::new();
    ids(&arguments, &mut figures);
    decimals(&arguments, &mut figures);
    placement(&arguments, &mut figures);
    merging(&arguments, &mut figures);
    coding(&arguments, &mut figures);
    turns(&arguments, &mut figures, "memory", MemoryStore::new);
    #[cfg(feature = "rocks")]
    {
        let folder = tempfile::tempdir().expect("a folder for the stores");
        let number = std::cell::Cell::new(0);
        turns(&arguments, &mut figures, "rocks", || {
            number.set(number.get() + 1);
            let path = folder.path().join(number.get().to_string());
            tidewater::storage::RocksStore::open(&path, Default::default()).expect("a new store opens")
        });
    }
    membership(&arguments, &mut figures);
    exchange(&arguments, &mut figures);
    bench::print("What one call costs", &figures, &machine, arguments.json);
}

fn measure<T>(arguments: &Arguments, figures: &mut Vec<Figure>, name: &str, work: impl FnMut() -> T) {
    if arguments.wants(name) {
        figures.push(bench::time(name, arguments.rounds, work));
    }
}

fn ids(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let short = b"user:0000012345".to_vec();
    let long = vec![b'k'; 1_024];
    measure(arguments, figures, "id: hash a key of 15 bytes", || hash64(std::hint::black_box(&short)));
    measure(arguments, figures, "id: hash a key of 1 KiB", || hash64(std::hint::black_box(&long)));
    let id = OpId::new(1_700_000_000_000, [7; 10]);
    let text = id.to_string();
    measure(arguments, figures, "id: parse an operation id", || OpId::parse(std::hint::black_box(&text)));
    measure(arguments, figures, "id: print an operation id", || std::hint::black_box(id).to_string());
}

fn decimals(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let one = Decimal::from_integer(1);
    let mut sum = Decimal::ZERO;
    measure(arguments, figures, "decimal: add", || {
        sum = sum.saturating_add(std::hint::black_box(one));
        sum
    });
    measure(arguments, figures, "decimal: parse an integer", || {
        Decimal::parse_integer(std::hint::black_box(b"1234567890"))
    });
    let number = Decimal::from_integer(1_234_567_890);
    measure(arguments, figures, "decimal: print", || std::hint::black_box(number).to_string());
}

/// Three nodes that hear each other at once, moved from timer to timer: what knowing who is up costs, per node and second.
fn membership(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let name = "membership: one node of 3, one idle second";
    if !arguments.wants(name) {
        return;
    }
    let members: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let mut nodes: Vec<Membership> = members
        .iter()
        .map(|node| Membership::new(*node, 1, StoreId(node.0), &members, SwimOptions::default(), mix64(node.0)))
        .collect();
    let mut now_us = 0;
    let mut second = || {
        let end_us = now_us + 1_000_000;
        while let Some((due_us, at)) =
            (0..nodes.len()).filter_map(|at| nodes[at].poll_timeout().map(|due_us| (due_us, at))).min()
        {
            if due_us > end_us {
                break;
            }
            now_us = now_us.max(due_us);
            nodes[at].handle_timeout(now_us);
            let mut speakers = vec![at];
            while let Some(from) = speakers.pop() {
                while let Some((to, bytes)) = nodes[from].poll_transmit() {
                    let to = to.0 as usize - 1;
                    nodes[to].handle_datagram(now_us, members[from], &bytes);
                    while nodes[to].poll_event().is_some() {}
                    speakers.push(to);
                }
            }
        }
        now_us = end_us;
    };
    let mut figure = bench::time(name, arguments.rounds, &mut second);
    figure.least /= 3.0;
    figure.median /= 3.0;
    figures.push(figure);
}

fn layout(nodes: usize) -> Layout {
    let member = |number: usize| {
        let name = format!("n{number}");
        Member {
            id: NodeId::from_name(&name),
            name,
            zone: "z1".into(),
            weight: 1,
            quic: format!("127.0.0.1:{}", 9_000 + number),
            resp: format!("127.0.0.1:{}", 7_000 + number),
            http: format!("127.0.0.1:{}", 8_000 + number),
        }
    };
    Layout::first(3, 1024, (1..=nodes).map(member).collect()).expect("a sound layout")
}

fn placement(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let key = b"user:0000012345".to_vec();
    let view = View::new(Arc::new(layout(9)));
    measure(arguments, figures, "placement: the partition of a key of 15 bytes", || {
        slot::partition(black_box(&key), 1024)
    });
    let mut number = 0;
    measure(arguments, figures, "placement: the owners of a partition, 9 nodes", || {
        number = (number + 1) % 1024;
        view.owners(Partition(number)).fold(0, |sum, node| sum ^ node.0)
    });
    let nine = layout(9);
    measure(arguments, figures, "placement: the table of a layout, 9 nodes", || Table::build(&nine));
}

fn register(counter: u64) -> Row {
    let dot = Dot { incarnation: Incarnation(1 + counter % 3), counter };
    Row::Register(Register {
        dot,
        stamp: Stamp { hlc: Hlc(counter), incarnation: dot.incarnation },
        life: Life(0),
        deadline_ms: None,
        payload: Some(Bytes::from(vec![b'v'; 100])),
        removes: Vec::new(),
    })
}

fn merging(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let mut seen = Context::default();
    for incarnation in 1..=3 {
        seen.insert_upto(Incarnation(incarnation), 1_000);
    }
    let (older, newer) = (register(900), register(1_001));
    measure(arguments, figures, "merge: a register with a newer one", || {
        merge(Some(older.clone()), &seen, Some(black_box(&newer).clone()), &seen)
    });
    let mut counter = 1_000;
    measure(arguments, figures, "merge: a dot into what has been seen", || {
        counter += 1;
        seen.insert(Dot { incarnation: Incarnation(2), counter })
    });
}

/// A `SET` of 100 bytes.
fn set(number: usize) -> Request {
    let op = Op::Set {
        value: Bytes::from(vec![b'v'; 100]),
        expiry: SetExpiry::Never,
        condition: Condition::Always,
        old: false,
    };
    let mut request = Request::new(Key::new(format!("key:{number:012}")), op);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&(number as u64).to_be_bytes());
    request.op_id = Some(OpId::new(WALL_MS, random));
    request.fresh = true;
    request
}

const WALL_MS: u64 = 1_700_000_000_000;

/// Three nodes of one lane each over stores of their own, and nothing between them.
struct Trio<S> {
    nodes: Vec<(NodeId, Shard, S)>,
    now: Now,
    number: usize,
}

impl<S: Storage> Trio<S> {
    fn new(store: impl Fn() -> S) -> Self {
        let view = Arc::new(View::new(Arc::new(layout(3))).all_up());
        let now = Now { mono_us: 1_000_000, wall_ms: WALL_MS };
        let mut nodes = Vec::new();
        for (number, member) in view.layout.members.iter().enumerate() {
            let store = store();
            let mut turn = Turn::new(&store);
            let options = ShardOptions::new(member.id);
            let incarnation = Incarnation(mix64(number as u64 + 1));
            let shard = Shard::start(options, view.clone(), incarnation, now, &mut turn).expect("a sound store");
            drop(turn);
            nodes.push((member.id, shard, store));
        }
        // The first round of reports is not what is measured.
        let mut trio = Self { nodes, now, number: 0 };
        for at in 0..3 {
            trio.turn(at, Vec::new());
        }
        trio
    }

    fn turn(&mut self, at: usize, inputs: Vec<Input>) -> Outbox {
        let (_, shard, store) = &mut self.nodes[at];
        run_turn(shard, self.now, store, inputs).expect("a sound store")
    }

    /// What the first node does with a turn's worth of new requests.
    fn requests(&mut self) -> Vec<Input> {
        let first = self.number;
        self.number += TURN;
        (first..self.number).map(|number| Input::Request { ticket: number as u64, request: set(number) }).collect()
    }

    /// What was said to the node at `to`, as its inputs.
    fn heard(&self, said: &Outbox, from: usize, to: usize) -> Vec<Input> {
        let (from, to) = (self.nodes[from].0, self.nodes[to].0);
        let mine = said.sends.iter().filter(|(node, _, _)| *node == to);
        mine.map(|(_, _, message)| Input::Message { from, message: message.clone() }).collect()
    }
}

/// One round is one turn of each node: the figures are of single turns, on stores that grow.
fn turns<S: Storage>(arguments: &Arguments, figures: &mut Vec<Figure>, engine: &str, store: impl Fn() -> S) {
    let parts = ["32 SETs coordinated", "32 SETs taken from another", "32 acknowledgements counted"];
    let names = parts.map(|part| format!("storage turn, {engine}: {part}, each"));
    if !names.iter().any(|name| arguments.wants(name)) {
        return;
    }
    let mut trio = Trio::new(store);
    let mut taken: [Vec<f64>; 3] = Default::default();
    for _ in 0..arguments.rounds * 5 {
        let mut clocked = |trio: &mut Trio<S>, part: usize, at: usize, inputs: Vec<Input>| {
            let begun = Instant::now();
            let said = trio.turn(at, inputs);
            taken[part].push(begun.elapsed().as_nanos() as f64 / TURN as f64);
            said
        };
        let requests = trio.requests();
        let said = clocked(&mut trio, 0, 0, requests);
        for other in [1, 2] {
            let heard = trio.heard(&said, 0, other);
            let acks = clocked(&mut trio, 1, other, heard);
            let heard = trio.heard(&acks, other, 0);
            let answers = clocked(&mut trio, 2, 0, heard);
            assert_eq!(answers.replies.len(), if other == 1 { TURN } else { 0 }, "quorum is the first of the others");
        }
    }
    for (name, rounds) in names.iter().zip(taken) {
        if arguments.wants(name) {
            figures.push(Figure::of(name, "ns", rounds));
        }
    }
}

/// What the nodes tell each other once a second about what they have seen, with its coding, until nobody has anything to say: per node.
fn exchange(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let name = "exchange: one node of 3, one second in which 4,096 SETs came";
    if !arguments.wants(name) {
        return;
    }
    let mut trio = Trio::new(MemoryStore::new);
    let (mut rounds, mut bytes) = (Vec::new(), 0);
    for _ in 0..arguments.rounds.div_ceil(4) {
        for first in 0..4_096 / TURN {
            let first = first % 3;
            let requests = trio.requests();
            let said = trio.turn(first, requests);
            for other in (0..3).filter(|other| *other != first) {
                let heard = trio.heard(&said, first, other);
                let acks = trio.turn(other, heard);
                let heard = trio.heard(&acks, other, first);
                trio.turn(first, heard);
            }
        }
        trio.now.mono_us += 1_000_000;
        // The wall stays: the next requests are as fresh as these.
        let begun = Instant::now();
        let mut heard: [Vec<Input>; 3] = Default::default();
        bytes = 0;
        loop {
            let mut next: [Vec<Input>; 3] = Default::default();
            for (from, inputs) in heard.into_iter().enumerate() {
                let said = trio.turn(from, inputs);
                for (to, next) in next.iter_mut().enumerate() {
                    let of = trio.nodes[to].0;
                    let sends = said.sends.iter().filter(|(node, _, _)| *node == of);
                    let frame: Vec<&PeerMessage> = sends.map(|(_, _, message)| message).collect();
                    if frame.is_empty() {
                        continue;
                    }
                    let frame = codec::encode(&frame);
                    bytes += frame.len();
                    let frame: Vec<PeerMessage> = codec::decode(&frame, usize::MAX).expect("just encoded");
                    let from = trio.nodes[from].0;
                    next.extend(frame.into_iter().map(|message| Input::Message { from, message }));
                }
            }
            heard = next;
            if heard.iter().all(Vec::is_empty) {
                break;
            }
        }
        rounds.push(begun.elapsed().as_nanos() as f64 / 3.0);
    }
    figures.push(Figure::of(name, "ns", rounds).noting(format!("{} bytes sent", bytes / 3)));
}

fn coding(arguments: &Arguments, figures: &mut Vec<Figure>) {
    let mut trio = Trio::new(MemoryStore::new);
    let requests = trio.requests();
    let said = trio.turn(0, requests);
    let (to, _, _) = said.sends.first().expect("the others are asked to keep it");
    let frame: Vec<PeerMessage> =
        said.sends.iter().filter(|(node, _, _)| node == to).map(|(_, _, message)| message.clone()).collect();
    assert_eq!(frame.len(), TURN, "one message for each request");
    let bytes = codec::encode(&frame);
    let mut each = |name: &str, work: &mut dyn FnMut() -> usize| {
        if arguments.wants(name) {
            let mut figure = bench::time(name, arguments.rounds, work);
            figure.least /= TURN as f64;
            figure.median /= TURN as f64;
            figures.push(figure.noting(format!("{} bytes a message", bytes.len() / TURN)));
        }
    };
    each("codec: encode a SET for a replica, in frames of 32", &mut || codec::encode(black_box(&frame)).len());
    each("codec: decode a SET for a replica, in frames of 32", &mut || {
        codec::decode::<Vec<PeerMessage>>(black_box(&bytes), usize::MAX).expect("just encoded").len()
    });
}
