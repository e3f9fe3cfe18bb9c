//! What a coordinator makes of several answers: what was removed stays removed, whoever still tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidewater::data::clock::Now;
use tidewater::data::id::{Incarnation, NodeId, OpId};
use tidewater::data::op::{Key, Op, Reply, Request, Response};
use tidewater::node::replica::Turn;
use tidewater::node::shard::{Shard, run_turn};
use tidewater::node::turn::{Input, ShardOptions};
use tidewater::ring::layout::{Layout, Member};
use tidewater::ring::view::View;
use tidewater::storage::MemoryStore;

struct Node {
    shard: Shard,
    store: MemoryStore,
}

/// Nodes that hear of everything at once, but for whoever is away.
struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    away: Vec<NodeId>,
    now: Now,
    next: u64,
}

impl Cluster {
    fn new(layout: &Arc<Layout>) -> Self {
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 1_000_000 };
        let nodes = layout.members.iter().enumerate().map(|(at, member)| {
            let store = MemoryStore::default();
            let mut turn = Turn::new(&store as &dyn tidewater::storage::Storage);
            let view = layout.members.iter().fold(View::new(layout.clone()), |view, of| view.with_up(of.id, true));
            let options = ShardOptions::new(member.id);
            let shard = Shard::start(options, Arc::new(view), Incarnation(at as u64 + 1), now, &mut turn).unwrap();
            drop(turn);
            (member.id, Node { shard, store })
        });
        Self { nodes: nodes.collect(), away: Vec::new(), now, next: 0 }
    }

    /// What is said is heard until nobody says anything any more; the answers to requests.
    fn hear(&mut self, to: NodeId, input: Input) -> Vec<Response> {
        let mut waiting = vec![(to, input)];
        let mut answers = Vec::new();
        while let Some((to, input)) = waiting.pop() {
            let node = self.nodes.get_mut(&to).unwrap();
            let out = run_turn(&mut node.shard, self.now, &node.store, [input]).unwrap();
            answers.extend(out.replies.into_iter().map(|(_, response)| response));
            let sends = out.sends.into_iter().filter(|(node, _, _)| !self.away.contains(node));
            waiting.extend(sends.map(|(node, _, message)| (node, Input::Message { from: to, message })));
        }
        answers
    }

    fn ask(&mut self, node: NodeId, op: Op) -> Response {
        self.next += 1;
        self.now.mono_us += 1_000;
        self.now.wall_ms += 1;
        let fresh = Request::new(Key::new(Bytes::from_static(b"k")), op);
        let request = Request { op_id: Some(OpId::new(self.now.wall_ms, [self.next as u8; 10])), fresh: true, ..fresh };
        let mut answers = self.hear(node, Input::Request { ticket: self.next, request });
        assert_eq!(answers.len(), 1, "answered at once");
        answers.remove(0)
    }

    /// `node` takes `other` for away, or not.
    fn see(&mut self, layout: &Arc<Layout>, node: NodeId, other: NodeId, up: bool) {
        self.away.retain(|away| *away != other);
        self.away.extend((!up).then_some(other));
        let view = layout.members.iter().fold(View::new(layout.clone()), |view, of| view.with_up(of.id, true));
        self.hear(node, Input::View(Arc::new(view.with_up(other, up))));
    }
}

#[test]
fn a_stand_ins_old_hint_brings_nothing_back() {
    let member = |name: &str| Member {
        id: NodeId::from_name(name),
        name: name.into(),
        zone: "z".into(),
        weight: 1,
        quic: format!("{name}:1"),
        resp: format!("{name}:2"),
        http: format!("{name}:3"),
    };
    let members = ["n1", "n2", "n3"].map(member).to_vec();
    let layout = Arc::new(Layout { version: 1, parent: 0, replicas: 2, partitions: 8, members });
    let view = View::new(layout.clone());
    let partition = view.partition_of(b"k");
    let owners: Vec<NodeId> = view.owners(partition).collect();
    let (here, other) = (owners[0], owners[1]);
    let mut cluster = Cluster::new(&layout);

    // The stand-in keeps what was added for the owner that is away.
    cluster.see(&layout, here, other, false);
    let added = cluster.ask(here, Op::SetAdd { members: vec![Bytes::from_static(b"x")] });
    assert!(added.result.is_ok() && added.receipt.acks.len() == 2, "{added:?}");
    // That owner is back and hears of the removal; the stand-in has handed over nothing and hears of nothing.
    cluster.see(&layout, here, other, true);
    let removed = cluster.ask(here, Op::SetRemove { members: vec![Bytes::from_static(b"x")] });
    assert!(removed.result.is_ok() && removed.receipt.acks.len() == 2, "{removed:?}");
    // It is away again: the stand-in's old hint is the second answer.
    cluster.see(&layout, here, other, false);
    let read = cluster.ask(here, Op::SetMembers);
    assert_eq!(read.receipt.acks.len(), 2, "the stand-in has answered: {read:?}");
    assert_eq!(read.result.unwrap(), Reply::Members(Vec::new()));
}
