//! What one call costs, for the calls that every request makes: nanoseconds, least and median.
//!
//! `cargo run -p bench --bin micro -- [--json] [--rounds N] [--only TEXT]`

use bench::{Arguments, Figure, Machine};
use tidewater::data::decimal::Decimal;
use tidewater::data::id::{NodeId, OpId, hash64, mix64};
use tidewater::node::membership::{Membership, SwimOptions};

fn main() {
    let arguments = Arguments::read("What one call costs.", 200);
    let machine = Machine::watch();
    let mut figures = Vec::new();
    ids(&arguments, &mut figures);
    decimals(&arguments, &mut figures);
    membership(&arguments, &mut figures);
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
    let mut nodes: Vec<Membership> =
        members.iter().map(|node| Membership::new(*node, 1, &members, SwimOptions::default(), mix64(node.0))).collect();
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
