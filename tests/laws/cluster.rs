//! Shards that talk to each other without a network or time between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidewater::data::clock::Now;
use tidewater::data::consistency::{Consistency, Level};
use tidewater::data::id::{Incarnation, NodeId, OpId};
use tidewater::data::op::{Key, Op, Reply, Request, Response};
use tidewater::node::replica::Turn;
use tidewater::node::shard::{Shard, run_turn};
use tidewater::node::turn::{Input, ShardOptions};
use tidewater::ring::layout::{Layout, Member};
use tidewater::ring::view::View;
use tidewater::storage::MemoryStore;
use tidewater::wire::message::Body;

pub struct Node {
    pub shard: Shard,
    pub store: MemoryStore,
}

/// The members of a layout, each up as all see it, with nothing in their stores.
pub fn nodes(layout: &Arc<Layout>, now: Now) -> BTreeMap<NodeId, Node> {
    let view = Arc::new(layout.members.iter().fold(View::new(layout.clone()), |view, of| view.with_up(of.id, true)));
    let start = |(at, member): (usize, &Member)| {
        let store = MemoryStore::default();
        let mut turn = Turn::new(&store as &dyn tidewater::storage::Storage);
        let options = ShardOptions::new(member.id);
        let shard = Shard::start(options, view.clone(), Incarnation(at as u64 + 1), now, &mut turn).unwrap();
        drop(turn);
        (member.id, Node { shard, store })
    };
    layout.members.iter().enumerate().map(start).collect()
}

/// Nodes that hear of everything at once, but for whoever is away.
pub struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    /// What is said to these is not heard.
    pub away: Vec<NodeId>,
    /// What is written by others does not come here, nor what levels it: all else is heard.
    pub behind: Option<NodeId>,
    pub now: Now,
    next: u64,
}

impl Cluster {
    pub fn new(layout: &Arc<Layout>) -> Self {
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 1_000_000 };
        Self { nodes: nodes(layout, now), away: Vec::new(), behind: None, now, next: 0 }
    }

    /// What is said is heard until nobody says anything any more; the answers to requests.
    fn hear(&mut self, to: NodeId, input: Input) -> Vec<Response> {
        self.hear_all(vec![(to, Some(input))])
    }

    /// `None`: nothing is said, and what is due is done.
    fn hear_all(&mut self, mut waiting: Vec<(NodeId, Option<Input>)>) -> Vec<Response> {
        let mut answers = Vec::new();
        while let Some((to, input)) = waiting.pop() {
            let node = self.nodes.get_mut(&to).unwrap();
            let out = run_turn(&mut node.shard, self.now, &node.store, input).unwrap();
            answers.extend(out.replies.into_iter().map(|(_, response)| response));
            let brings =
                |body: &Body| matches!(body, Body::Replicate { .. } | Body::Repair { .. } | Body::PullReply { .. });
            let sends = out.sends.into_iter().filter(|(node, _, message)| {
                !(self.away.contains(node) || self.behind == Some(*node) && brings(&message.body))
            });
            waiting.extend(sends.map(|(node, _, message)| (node, Some(Input::Message { from: to, message }))));
        }
        answers
    }

    /// Time goes by until a request is answered.
    pub fn wait(&mut self, node: NodeId, op: Op) -> Response {
        let mut answers = self.ask_of(node, op);
        for _ in 0..100 {
            if let Some(answer) = answers.pop() {
                return answer;
            }
            self.now.mono_us += 50_000;
            self.now.wall_ms += 50;
            let all = self.nodes.keys().map(|node| (*node, None)).collect();
            answers = self.hear_all(all);
        }
        panic!("no answer in 5 seconds")
    }

    pub fn ask(&mut self, node: NodeId, op: Op) -> Response {
        let mut answers = self.ask_of(node, op);
        assert_eq!(answers.len(), 1, "answered at once");
        answers.remove(0)
    }

    /// None: what was said to a node that is away is waited for.
    pub fn ask_of(&mut self, node: NodeId, op: Op) -> Vec<Response> {
        self.next += 1;
        self.now.mono_us += 1_000;
        self.now.wall_ms += 1;
        let fresh = Request::new(Key::new(Bytes::from_static(b"k")), op);
        let request = Request { op_id: Some(OpId::new(self.now.wall_ms, [self.next as u8; 10])), fresh: true, ..fresh };
        self.hear(node, Input::Request { ticket: self.next, request })
    }

    /// Reads, without time going by. `None`: a stand-in that has nothing is waited for, for want of an owner.
    pub fn read(&mut self, node: NodeId, level: Level, op: Op) -> Option<Reply> {
        self.next += 1;
        let fresh = Request::new(Key::new(Bytes::from_static(b"k")), op);
        let request = Request { consistency: Consistency { read: level, ..fresh.consistency }, ..fresh };
        let mut answers = self.hear(node, Input::Request { ticket: self.next, request });
        Some(answers.pop()?.result.unwrap())
    }

    /// `node` takes `other` for away, or not.
    pub fn see(&mut self, layout: &Arc<Layout>, node: NodeId, other: NodeId, up: bool) {
        self.away.retain(|away| *away != other);
        self.away.extend((!up).then_some(other));
        let view = layout.members.iter().fold(View::new(layout.clone()), |view, of| view.with_up(of.id, true));
        self.hear(node, Input::View(Arc::new(view.with_up(other, up))));
    }
}

pub fn layout(names: &[&str], replicas: u8) -> Arc<Layout> {
    let member = |name: &str| Member {
        id: NodeId::from_name(name),
        name: name.into(),
        zone: "z".into(),
        weight: 1,
        quic: format!("{name}:1"),
        resp: format!("{name}:2"),
        http: format!("{name}:3"),
    };
    let members = names.iter().map(|name| member(name)).collect();
    Arc::new(Layout { version: 1, parent: 0, replicas, partitions: 8, members })
}
