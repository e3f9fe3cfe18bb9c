//! Membership in a world of virtual time: a heap of datagrams under way, a rule that says which of them are lost, no sleeping.
//! Proves the bounds the module promises: who is seen up and down, how soon, and that bad networks and bad bytes do no more harm.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Membership, MembershipEvent, SwimOptions};
use crate::data::id::{NodeId, StoreId, hash64, mix64};

const SECOND_US: u64 = 1_000_000;

/// Says whether a datagram is lost: time, from, to, a random number.
type Lost = Box<dyn FnMut(u64, NodeId, NodeId, u64) -> bool>;

struct World {
    now_us: u64,
    seed: u64,
    random: u64,
    sequence: u64,
    nodes: BTreeMap<NodeId, Membership>,
    under_way: BTreeMap<(u64, u64), (NodeId, NodeId, Bytes)>,
    lost: Lost,
    events: Vec<(u64, NodeId, MembershipEvent)>,
    /// Running hash over everything sent and seen.
    transcript: u64,
    packets: u64,
    largest_packet: usize,
    members: Vec<NodeId>,
}

impl World {
    fn new(count: u64, seed: u64) -> Self {
        let members: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let mut world = Self {
            now_us: 0,
            seed,
            random: seed,
            sequence: 0,
            nodes: BTreeMap::new(),
            under_way: BTreeMap::new(),
            lost: Box::new(|_, _, _, _| false),
            events: Vec::new(),
            transcript: 0,
            packets: 0,
            largest_packet: 0,
            members: members.clone(),
        };
        for node in members {
            world.start(node, 1);
        }
        world
    }

    /// A world in which everybody has found everybody.
    fn settled(count: u64, seed: u64) -> Self {
        let mut world = Self::new(count, seed);
        world.run_for(SECOND_US);
        assert!(world.all_up(), "{count} nodes find each other within a second, seed {seed}");
        world.events.clear();
        world
    }

    fn start(&mut self, node: NodeId, generation: u64) {
        let seed = mix64(self.seed ^ node.0 ^ (generation << 32));
        let machine = Membership::new(node, generation, StoreId(node.0), &self.members, SwimOptions::default(), seed);
        self.nodes.insert(node, machine);
    }

    fn kill(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.random)
    }

    fn note(&mut self, what: impl std::fmt::Debug) {
        self.transcript = hash64(format!("{:x} {} {what:?}", self.transcript, self.now_us).as_bytes());
    }

    fn at(&mut self, node: u64) -> &mut Membership {
        self.nodes.get_mut(&NodeId(node)).unwrap()
    }

    /// Takes what one node wants to say and tell.
    fn drain(&mut self, from: NodeId) {
        let Some(machine) = self.nodes.get_mut(&from) else { return };
        let transmits: Vec<_> = std::iter::from_fn(|| machine.poll_transmit()).collect();
        let events: Vec<_> = std::iter::from_fn(|| machine.poll_event()).collect();
        for (to, bytes) in transmits {
            self.note((from, to, &bytes));
            self.packets += 1;
            self.largest_packet = self.largest_packet.max(bytes.len());
            let (chance, delay) = (self.random(), self.random());
            if !(self.lost)(self.now_us, from, to, chance) {
                self.sequence += 1;
                self.under_way.insert((self.now_us + 100 + delay % 5_000, self.sequence), (from, to, bytes));
            }
        }
        for event in events {
            self.note((from, event));
            self.events.push((self.now_us, from, event));
        }
    }

    fn run_until(&mut self, end_us: u64, mut enough: impl FnMut(&Self) -> bool) -> bool {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.drain(node);
        }
        loop {
            if enough(self) {
                return true;
            }
            let timeout = self.nodes.iter().filter_map(|(node, machine)| Some((machine.poll_timeout()?, *node))).min();
            let arrival = self.under_way.first_key_value().map(|((at_us, _), _)| *at_us);
            let next = timeout.map(|(at_us, _)| at_us).into_iter().chain(arrival).min().unwrap_or(u64::MAX);
            if next > end_us {
                self.now_us = end_us;
                return false;
            }
            self.now_us = self.now_us.max(next);
            if arrival == Some(next) {
                let (_, (from, to, bytes)) = self.under_way.pop_first().unwrap();
                if let Some(machine) = self.nodes.get_mut(&to) {
                    machine.handle_datagram(self.now_us, from, &bytes);
                    self.drain(to);
                }
            } else if let Some((_, node)) = timeout {
                self.nodes.get_mut(&node).unwrap().handle_timeout(self.now_us);
                self.drain(node);
            }
        }
    }

    fn run_for(&mut self, duration_us: u64) {
        self.run_until(self.now_us + duration_us, |_| false);
    }

    /// How long until the condition holds; fails after `bound_us`.
    fn time_until(&mut self, bound_us: u64, what: &str, condition: impl FnMut(&Self) -> bool) -> u64 {
        let start_us = self.now_us;
        assert!(self.run_until(start_us + bound_us, condition), "{what}: not within {bound_us} us, seed {}", self.seed);
        self.now_us - start_us
    }

    fn running(&self) -> BTreeSet<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Every running node sees exactly the running nodes up.
    fn all_up(&self) -> bool {
        self.nodes.values().all(|machine| machine.up() == self.running())
    }

    fn downs(&self) -> usize {
        self.events.iter().filter(|(_, _, event)| matches!(event, MembershipEvent::Down { .. })).count()
    }
}

fn sides(cut: &[u64]) -> impl Fn(NodeId, NodeId) -> bool + use<> {
    let cut: BTreeSet<NodeId> = cut.iter().map(|node| NodeId(*node)).collect();
    move |from, to| cut.contains(&from) != cut.contains(&to)
}

#[test]
fn three_and_seven_nodes_find_each_other_and_stay() {
    for count in [1, 2, 3, 7, 30] {
        let mut world = World::settled(count, 11 + count);
        world.run_for(60 * SECOND_US);
        assert!(world.all_up());
        assert_eq!(world.events, vec![], "nothing happens where nothing happens");
        assert!(world.largest_packet <= SwimOptions::default().packet_bytes);
        assert_eq!(world.nodes.values().map(|machine| machine.stats().refused).sum::<u64>(), 0);
        // A ping and an answer per node and half second, and a little news: idling is cheap.
        assert!(world.packets < count * 61 * 6 + count * count * 4, "{count} nodes sent {} packets", world.packets);
    }
}

#[test]
fn a_crash_is_seen_by_all_within_bounds() {
    for (count, bound_us) in [(2, 3 * SECOND_US), (3, 3_500_000), (7, 4 * SECOND_US), (30, 5 * SECOND_US)] {
        let mut worst_us = 0;
        for seed in 0..20 {
            let mut world = World::settled(count, seed);
            world.run_for(mix64(seed) % SECOND_US);
            world.kill(NodeId(2));
            let took_us = world.time_until(bound_us, "a crash is seen", World::all_up);
            worst_us = worst_us.max(took_us);
            world.run_for(10 * SECOND_US);
            assert_eq!(world.downs() as u64, count - 1, "each survivor reports it once");
        }
        println!("{count} nodes: a crash was seen by all after at most {worst_us} us");
    }
}

#[test]
fn a_restart_is_up_at_once_whatever_its_generation() {
    for (generation, name) in [(2, "higher"), (u64::MAX, "highest"), (0, "lower")] {
        for was_seen_down in [true, false] {
            let mut world = World::settled(3, 5);
            world.kill(NodeId(3));
            world.run_for(if was_seen_down { 5 * SECOND_US } else { SECOND_US / 5 });
            world.events.clear();
            world.start(NodeId(3), generation);
            world.time_until(SECOND_US / 2, name, |world| {
                world.all_up() && {
                    let restarted =
                        |(_, _, event): &&_| matches!(event, MembershipEvent::Restarted { node: NodeId(3), .. });
                    world.events.iter().filter(restarted).count() >= 2
                }
            });
            world.run_for(10 * SECOND_US);
            assert!(world.all_up());
            assert_eq!(world.downs(), 0, "{name}: nobody falls by it");
            let generation = world.at(3).generation();
            for (_, at, event) in &world.events {
                if let MembershipEvent::Up { node: NodeId(3), generation: seen, .. } = event {
                    assert_eq!(*seen, generation, "{at} knows it by the right number");
                    assert!(was_seen_down);
                }
            }
        }
    }
}

#[test]
fn a_link_brings_a_returning_peer_up_in_one_round_trip() {
    let mut world = World::settled(3, 8);
    world.kill(NodeId(1));
    world.run_for(5 * SECOND_US);
    world.start(NodeId(1), 2);
    let now_us = world.now_us;
    // The new process cannot speak first here; its first greeting is lost.
    world.lost = Box::new(move |at_us, from, _, _| from == NodeId(1) && at_us == now_us);
    world.run_for(1);
    for node in [2, 3] {
        world.at(node).link_up(now_us + 1, NodeId(1));
    }
    world.time_until(SECOND_US / 20, "greeted back", World::all_up);
}

#[test]
fn symmetric_partitions_heal_by_themselves() {
    for (count, cut) in [(2, vec![1]), (3, vec![1]), (7, vec![1, 2, 3]), (7, vec![5])] {
        for seed in 0..10 {
            let mut world = World::settled(count, seed);
            let apart = sides(&cut);
            world.lost = Box::new(move |_, from, to, _| apart(from, to));
            world.time_until(6 * SECOND_US, "the sides lose each other", |world| {
                let apart = sides(&cut);
                world
                    .nodes
                    .iter()
                    .all(|(me, machine)| world.nodes.keys().all(|node| machine.is_up(*node) != apart(*me, *node)))
            });
            world.run_for(30 * SECOND_US);
            world.lost = Box::new(|_, _, _, _| false);
            world.time_until(2 * SECOND_US, "all come back", World::all_up);
            world.events.clear();
            world.run_for(20 * SECOND_US);
            assert_eq!(world.events, vec![], "and stay, {count} nodes, seed {seed}");
        }
    }
}

#[test]
fn healing_says_up_not_restarted() {
    let mut world = World::settled(3, 3);
    let apart = sides(&[1]);
    world.lost = Box::new(move |_, from, to, _| apart(from, to));
    world.run_for(10 * SECOND_US);
    world.lost = Box::new(|_, _, _, _| false);
    world.run_for(10 * SECOND_US);
    assert!(world.all_up());
    assert!(!world.events.iter().any(|(_, _, event)| matches!(event, MembershipEvent::Restarted { .. })));
    assert_eq!(world.at(1).generation(), 1);
}

#[test]
fn one_way_and_pairwise_cuts_are_seen_around() {
    for (name, both_ways) in [("one way", false), ("a pair", true)] {
        for seed in 0..10 {
            let mut world = World::settled(3, seed);
            world.lost = Box::new(move |_, from, to, _| {
                (from, to) == (NodeId(1), NodeId(2)) || (both_ways && (from, to) == (NodeId(2), NodeId(1)))
            });
            world.run_for(60 * SECOND_US);
            assert!(world.all_up(), "{name}, seed {seed}");
            assert_eq!(world.downs(), 0, "{name}: the third one vouches, seed {seed}");
        }
    }
}

#[test]
fn a_node_that_hears_but_is_not_heard_falls_and_returns() {
    for seed in 0..10 {
        let mut world = World::settled(3, seed);
        world.lost = Box::new(|_, from, _, _| from == NodeId(1));
        world.time_until(5 * SECOND_US, "the mute one is down", |world| {
            [2, 3].iter().all(|node| !world.nodes[&NodeId(*node)].is_up(NodeId(1)))
        });
        world.run_for(30 * SECOND_US);
        assert!(!world.nodes[&NodeId(2)].is_up(NodeId(1)));
        world.lost = Box::new(|_, _, _, _| false);
        world.time_until(2 * SECOND_US, "it is heard again", World::all_up);
        world.run_for(20 * SECOND_US);
        assert!(world.all_up());
    }
}

#[test]
fn loss_does_not_keep_the_living_down() {
    for (count, percent, allowed_downs) in [(3, 20, 6), (7, 20, 12), (3, 5, 0), (7, 5, 0)] {
        let mut down_us = 0;
        let mut downs = 0;
        for seed in 0..6 {
            let mut world = World::settled(count, seed);
            world.lost = Box::new(move |_, _, _, chance| chance % 100 < percent);
            let start_us = world.now_us;
            world.run_for(120 * SECOND_US);
            downs += world.downs();
            let mut since: BTreeMap<(NodeId, NodeId), u64> = BTreeMap::new();
            for (at_us, me, event) in &world.events {
                match event {
                    MembershipEvent::Down { node } => drop(since.insert((*me, *node), *at_us)),
                    MembershipEvent::Up { node, .. } => {
                        down_us += at_us - since.remove(&(*me, *node)).unwrap_or(start_us);
                    }
                    MembershipEvent::Restarted { .. } => panic!("nobody restarted"),
                }
            }
            world.lost = Box::new(|_, _, _, _| false);
            world.time_until(2 * SECOND_US, "all up when the loss ends", World::all_up);
        }
        println!("{count} nodes, {percent} % loss: {downs} false downs in 6 x 120 s, {down_us} us together");
        assert!(downs <= allowed_downs, "{count} nodes at {percent} %: {downs} false downs");
        assert!(down_us <= downs as u64 * 2 * SECOND_US);
    }
}

#[test]
fn a_goodbye_is_heard_at_once() {
    for count in [2, 3, 7, 12] {
        let mut world = World::settled(count, 21);
        let now_us = world.now_us;
        world.at(2).leave(now_us);
        world.drain(NodeId(2));
        assert_eq!(world.at(2).poll_timeout(), None);
        let left =
            |world: &World| world.nodes.iter().all(|(node, machine)| *node == NodeId(2) || !machine.is_up(NodeId(2)));
        world.time_until(SECOND_US / 20, "the goodbye is heard", left);
        world.run_for(10 * SECOND_US);
        assert!(left(&world), "and believed, although its process still takes datagrams");
        assert!(!world.at(2).is_up(NodeId(2)));
        world.start(NodeId(2), 2);
        world.time_until(SECOND_US / 2, "back again", World::all_up);
    }
}

#[test]
fn a_lost_link_is_evidence_not_a_verdict() {
    for count in [2, 3, 7] {
        let mut world = World::settled(count, 31);
        for _ in 0..20 {
            let now_us = world.now_us;
            world.at(1).link_down(now_us, NodeId(2));
            world.run_for(300_000);
        }
        world.run_for(10 * SECOND_US);
        assert!(world.all_up());
        assert_eq!(world.downs(), 0, "the living refute it");
    }
    let mut world = World::settled(7, 32);
    world.kill(NodeId(2));
    let now_us = world.now_us;
    world.at(1).link_down(now_us, NodeId(2));
    let took_us = world.time_until(2_500_000, "the dead do not", World::all_up);
    assert!(took_us >= 1_000_000, "but they had time to");
}

#[test]
fn a_process_that_slept_does_not_accuse_the_others() {
    for seed in 0..20 {
        let mut world = World::settled(3, seed);
        // Stopped for longer than it takes to be declared down: it hears nothing, its timers do not run.
        let sleeper = world.nodes.remove(&NodeId(3)).unwrap();
        world.run_for(8 * SECOND_US);
        assert!(!world.at(1).is_up(NodeId(3)));
        world.events.clear();
        world.nodes.insert(NodeId(3), sleeper);
        world.time_until(3 * SECOND_US / 2, "it is back", World::all_up);
        world.run_for(10 * SECOND_US);
        assert!(world.all_up());
        assert_eq!(world.downs(), 0, "seed {seed}: {:?}", world.events);
        assert!(world.at(3).stats().stalls >= 1);
    }
}

#[test]
fn the_layout_says_who_the_members_are() {
    let mut world = World::settled(4, 41);
    let three: Vec<NodeId> = (1..=3).map(NodeId).collect();
    for node in 1..=3 {
        let now_us = world.now_us;
        world.at(node).set_members(now_us, &three);
    }
    world.run_for(20 * SECOND_US);
    for node in 1..=3 {
        assert_eq!(world.at(node).up(), three.iter().copied().collect());
        assert!(world.at(node).stats().strangers > 0, "the one that left still talks, to nobody");
    }
    assert_eq!(world.at(4).up(), BTreeSet::from([NodeId(4)]));
    assert_eq!(world.events.iter().filter(|(_, at, _)| at.0 <= 3).count(), 3, "each said once that it is down");

    // It joins again, and a fifth; the news reaches the members one by one.
    let five: Vec<NodeId> = (1..=5).map(NodeId).collect();
    world.members = five.clone();
    world.start(NodeId(5), 1);
    for node in 1..=4 {
        let now_us = world.now_us;
        world.at(node).set_members(now_us, &five);
        world.run_for(SECOND_US / 10);
    }
    world.time_until(2 * SECOND_US, "the new ones are in", World::all_up);
    world.run_for(20 * SECOND_US);
    assert!(world.all_up());
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let mut world = World::settled(5, seed);
        world.lost = Box::new(|_, _, _, chance| chance % 100 < 15);
        world.run_for(5 * SECOND_US);
        world.kill(NodeId(2));
        world.run_for(5 * SECOND_US);
        world.start(NodeId(2), 2);
        let apart = sides(&[1, 4]);
        world.lost = Box::new(move |_, from, to, _| apart(from, to));
        world.run_for(10 * SECOND_US);
        world.lost = Box::new(|_, _, _, _| false);
        world.run_for(10 * SECOND_US);
        (world.transcript, world.packets)
    };
    let first = story(99);
    for _ in 0..4 {
        assert_eq!(story(99), first);
    }
    assert_ne!(story(100).0, first.0);
}

#[test]
fn garbage_is_counted_and_changes_nothing() {
    let mut world = World::settled(3, 51);
    // Valid datagrams to bend: what node 2 says to node 1 in a while.
    let mut valid = Vec::new();
    for _ in 0..3_000 {
        let now_us = world.at(2).poll_timeout().unwrap();
        world.now_us = world.now_us.max(now_us);
        world.nodes.get_mut(&NodeId(2)).unwrap().handle_timeout(now_us);
        while let Some((to, bytes)) = world.at(2).poll_transmit() {
            if to == NodeId(1) {
                valid.push(bytes);
            }
        }
        if valid.len() >= 20 {
            break;
        }
    }
    assert!(valid.len() >= 5);
    let now_us = world.now_us;
    let before = world.at(1).up();
    for length in 0..1_200 {
        let bytes: Vec<u8> = (0..length).map(|_| world.random() as u8).collect();
        world.at(1).handle_datagram(now_us, NodeId(2), &bytes);
        let cut = &valid[length % valid.len()];
        world.at(1).handle_datagram(now_us, NodeId(2), &cut[..cut.len() - 1]);
    }
    let huge = vec![1; 70_000];
    world.at(1).handle_datagram(now_us, NodeId(2), &huge);
    assert_eq!(world.at(1).stats().garbage, 2_401);
    world.at(1).handle_datagram(now_us, NodeId(9), &valid[0]);
    assert_eq!(world.at(1).stats().strangers, 1);
    world.at(1).handle_datagram(now_us, NodeId(3), &valid[0]);
    assert_eq!(world.at(1).stats().impostors, 1);
    assert_eq!(world.at(1).up(), before);
    assert_eq!(world.at(1).poll_event(), None);
}

#[test]
fn bent_datagrams_never_panic_and_never_grow_the_list() {
    let mut world = World::settled(5, 61);
    let mut kept: Vec<(NodeId, NodeId, Bytes)> = Vec::new();
    for round in 0..20_000 {
        world.run_for(1_000);
        kept.extend(world.under_way.values().cloned());
        kept.truncate(200);
        if kept.is_empty() {
            continue;
        }
        let (from, to, bytes) = kept[world.random() as usize % kept.len()].clone();
        let mut bent = bytes.to_vec();
        for _ in 0..=(world.random() % 3) {
            let at = world.random() as usize % bent.len();
            bent[at] = world.random() as u8;
        }
        if round % 50 == 0 {
            kept.clear();
        }
        let now_us = world.now_us;
        world.at(to.0).handle_datagram(now_us, from, &bent);
        world.drain(to);
    }
    // A peer that lies can wear a name out, but not the machine; when the lies end, all come back.
    world.events.clear();
    world.time_until(20 * SECOND_US, "all come back", World::all_up);
    for machine in world.nodes.values() {
        assert!(machine.up().len() <= 5);
        assert!(machine.held() < 400, "{}", machine.held());
    }
}

#[test]
fn a_host_that_never_polls_costs_bounded_memory() {
    let members: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let mut machine = Membership::new(NodeId(1), 1, StoreId(1), &members, SwimOptions::default(), 1);
    for now_us in (0..20_000 * SECOND_US).step_by(SECOND_US as usize) {
        machine.handle_timeout(now_us);
        machine.set_members(now_us, &members[..1]);
        machine.set_members(now_us, &members);
        machine.link_up(now_us, NodeId(2));
        machine.link_down(now_us, NodeId(3));
    }
    assert!(machine.held() <= 1_100, "{}", machine.held());
    assert!(machine.stats().transmits_dropped > 0);
}
