//! A node that is alone answers as a person expects, whether it drops all that nobody can see any more or never drops anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tidewater::data::clock::Now;
use tidewater::data::id::{Incarnation, NodeId, OpId};
use tidewater::data::op::{Key, Op, Reply, Request, RequestError};
use tidewater::node::replica::Turn;
use tidewater::node::shard::{Shard, run_turn};
use tidewater::node::turn::{Input, ShardOptions};
use tidewater::ring::layout::{Layout, Member};
use tidewater::ring::view::View;
use tidewater::sim::load::{self, SiblingsRead};
use tidewater::sim::random::Random;
use tidewater::storage::{MemoryStore, Storage};

use super::model::Model;

const NEVER_US: u64 = u64::MAX >> 1;

/// A cluster of one node.
struct Node {
    shard: Shard,
    store: MemoryStore,
    random: Random,
    read: SiblingsRead,
    now: Now,
    op_id_window_ms: u64,
}

impl Node {
    fn new(collect_rest_us: u64, seed: u64) -> Self {
        let id = NodeId::from_name("n1");
        let [name, zone, quic, resp, http] = ["n1", "z", "n1:1", "n1:2", "n1:3"].map(String::from);
        let members = vec![Member { id, name, zone, weight: 1, quic, resp, http }];
        let view = View::new(Arc::new(Layout { version: 1, parent: 0, replicas: 1, partitions: 8, members }));
        let store = MemoryStore::default();
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 1_000_000 };
        let options =
            ShardOptions { settle_us: 100_000, collect_rest_us, op_id_window_ms: 2_000, ..ShardOptions::new(id) };
        let mut turn = Turn::new(&store as &dyn Storage);
        let op_id_window_ms = options.op_id_window_ms;
        let shard = Shard::start(options, Arc::new(view.with_up(id, true)), Incarnation(1), now, &mut turn).unwrap();
        drop(turn);
        let (random, read) = (Random::new(seed), SiblingsRead::new());
        Self { shard, store, random, read, now, op_id_window_ms }
    }

    /// Time goes by until then, or for good where nothing is to be done before.
    fn rest(&mut self, for_us: u64) {
        let until_us = self.now.mono_us + for_us;
        while self.now.mono_us < until_us {
            let next_us = self.shard.poll_timeout().max(self.now.mono_us + 1_000).min(until_us);
            self.now.wall_ms += (next_us / 1_000) - self.now.mono_us / 1_000;
            self.now.mono_us = next_us;
            run_turn(&mut self.shard, self.now, &self.store, []).unwrap();
        }
    }

    /// Asks for the next thing; what it was, and what was answered.
    fn step(&mut self, kinds: &[u8], number: u64) -> (Key, Op, Result<Reply, RequestError>) {
        let rest_us = match self.random.below(8) {
            0 => self.random.between(0, 12_000_000),
            1 | 2 => self.random.between(0, 2_000_000),
            _ => 1_000,
        };
        self.rest(rest_us);
        let (key, op, _) = load::draw(&mut self.random, kinds, 1, number as usize, self.now.wall_ms, &self.read);
        let fresh = Request::new(key.clone(), op.clone());
        let op_id = Some(OpId::new(self.now.wall_ms, [number as u8; 10]));
        let input = Input::Request { ticket: number, request: Request { op_id, fresh: true, ..fresh } };
        let mut out = run_turn(&mut self.shard, self.now, &self.store, [input]).unwrap();
        assert_eq!(out.replies.len(), 1, "answered at once");
        let mut result = out.replies.remove(0).1.result;
        if let Ok(reply) = &mut result {
            load::remember(&mut self.read, &key, reply);
            // Who drops a life by name counts writes of his own.
            if let Reply::Siblings { context, .. } = reply {
                context.clear();
            }
        }
        (key, op, result)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_dropped_is_not_missed(seed in any::<u64>(), steps in 1..200_u64, mixed in any::<bool>()) {
        let mut drops = Node::new(1_000_000, seed);
        let mut keeps = Node::new(NEVER_US, seed);
        let kinds = if mixed { &b"x"[..] } else { load::KINDS };
        let mut models: BTreeMap<Key, Model> = BTreeMap::new();
        let mut story = Vec::new();
        for number in 0..steps {
            let ((key, op, dropped), (_, _, kept)) = (drops.step(kinds, number), keeps.step(kinds, number));
            story.push(format!("{} {:?} {op:?} -> {kept:?}", keeps.now.wall_ms, key.bytes));
            prop_assert!(dropped == kept, "{dropped:?} of the one that drops, after\n{}", story.join("\n"));
            let judged = models.entry(key).or_default().judge(&op, keeps.now.wall_ms, &kept);
            prop_assert!(judged.is_ok(), "{}, after\n{}", judged.unwrap_err().1, story.join("\n"));
        }
        drops.rest(drops.op_id_window_ms * 1_000 + 200_000_000);
        prop_assert_eq!(drops.shard.status().garbage, 0);
    }
}
