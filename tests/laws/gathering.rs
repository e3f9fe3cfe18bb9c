//! What a coordinator makes of several answers: what was removed stays removed, whoever still tells of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tidewater::data::consistency::Level;
use tidewater::data::decimal::Decimal;
use tidewater::data::id::NodeId;
use tidewater::data::op::{DeadlineCondition, Op, Reply};
use tidewater::ring::view::View;

use super::cluster::{Cluster, layout};

#[test]
fn a_stand_ins_old_hint_brings_nothing_back() {
    let layout = layout(&["n1", "n2", "n3"], 2);
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

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, Op),
    /// Nothing reaches a node any more, and nobody knows; or everybody is reached again.
    Cut(Option<usize>),
    /// All take a node for away, or nobody any more. More than one are never away: then nobody could be asked.
    See(usize, bool),
}

fn steps() -> impl Strategy<Value = (bool, Vec<Step>)> {
    let name = || "[a-z]{1,2}".prop_map(Bytes::from);
    let names = move |most| proptest::collection::vec(name(), 1..most);
    let deadline = |at_ms| Op::SetDeadline { at_ms, condition: DeadlineCondition::Always };
    let deadline = move || prop_oneof![Just(Some(1_800_000_000_020)), Just(None)].prop_map(deadline);
    let of_set = prop_oneof![
        6 => names(12).prop_map(|members| Op::SetAdd { members }),
        2 => names(80).prop_map(|members| Op::SetRemove { members }),
        1 => deadline(),
    ];
    let of_map = prop_oneof![
        4 => proptest::collection::vec((name(), name()), 1..6)
            .prop_map(|fields| Op::HashSet { fields, absent_only: false }),
        3 => name().prop_map(|field| Op::HashIncrement { field, by: Decimal::from_integer(3), integer: true }),
        1 => names(80).prop_map(|fields| Op::HashRemove { fields }),
        1 => deadline(),
    ];
    let steps = |op: BoxedStrategy<Op>| {
        let step = prop_oneof![
            8 => (0..4_usize, op).prop_map(|(node, op)| Step::Ask(node, op)),
            2 => proptest::option::of(0..4_usize).prop_map(Step::Cut),
            1 => (0..4_usize, any::<bool>()).prop_map(|(node, up)| Step::See(node, up)),
        ];
        proptest::collection::vec(step, 1..40)
    };
    let (of_set, of_map) = (steps(of_set.boxed()), steps(of_map.boxed()));
    prop_oneof![of_set.prop_map(|steps| (true, steps)), of_map.prop_map(|steps| (false, steps))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The law of pages: whatever the owners hold and whoever of them is away, a walk tells just what a read of the whole tells, each
    /// member and field once, for pages of any size.
    #[test]
    fn the_pages_of_a_collection_are_the_collection(
        (of_set, steps) in steps(),
        limit in 1..9_u32,
        asked in 0..4_usize,
    ) {
        let layout = layout(&["n1", "n2", "n3", "n4"], 3);
        let nodes: Vec<NodeId> = layout.members.iter().map(|member| member.id).collect();
        let mut cluster = Cluster::new(&layout);
        for step in steps {
            match step {
                Step::Ask(node, op) => drop(cluster.ask_of(nodes[node], op)),
                Step::Cut(node) => cluster.away = node.map(|node| nodes[node]).into_iter().collect(),
                Step::See(node, up) => {
                    let back = cluster.away.clone().into_iter().map(|node| (node, true));
                    for (other, up) in back.chain((!up).then_some((nodes[node], false))) {
                        nodes.iter().filter(|of| **of != other).for_each(|of| cluster.see(&layout, *of, other, up));
                    }
                }
            }
        }
        cluster.away.clear();
        let asked = nodes[asked];
        // No time goes by: nothing ends while it is read.
        let whole = if of_set { Op::SetMembers } else { Op::HashAll };
        let levels = [Level::All, Level::Quorum, Level::Count(1)];
        let read = levels.iter().find_map(|level| Some((*level, cluster.read(asked, *level, whole.clone())?)));
        let (level, whole) = read.expect("one that is up");
        let (mut members, mut pairs) = (Vec::new(), Vec::new());
        let mut from = Some(0);
        while let Some(place) = from {
            let op = if of_set { Op::SetPage { from: place, limit } } else { Op::HashPage { from: place, limit } };
            let (told, next) = match cluster.read(asked, level, op).expect("as the whole was") {
                Reply::MemberPage { members: page, next } => {
                    let told = page.len();
                    members.extend(page);
                    (told, next)
                }
                Reply::PairPage { pairs: page, next } => {
                    let told = page.len();
                    pairs.extend(page);
                    (told, next)
                }
                other => panic!("not a page: {other:?}"),
            };
            prop_assert!(next.is_none_or(|next| next > place), "it goes on");
            // Each of three owners may hold what the others do not.
            prop_assert!(told <= 3 * limit as usize);
            from = next;
        }
        members.sort();
        pairs.sort();
        prop_assert_eq!(if of_set { Reply::Members(members) } else { Reply::Pairs(pairs) }, whole);
    }

    /// A pick gives as many as it is asked for, as far as there are so many, each once, of what is there, and takes just those away.
    #[test]
    fn a_pick_gives_what_is_there(
        size in prop_oneof![0..10_usize, 50..400_usize],
        removed in 0..400_usize,
        count in prop_oneof![1..4_u32, 30..500_u32],
        seed in any::<u64>(),
        remove in any::<bool>(),
    ) {
        let layout = layout(&["n1", "n2", "n3", "n4"], 3);
        let asked = layout.members[(seed % 4) as usize].id;
        let mut cluster = Cluster::new(&layout);
        let name = |number: usize| Bytes::from(format!("m{number}"));
        if size > 0 {
            cluster.ask(asked, Op::SetAdd { members: (0..size).map(name).collect() });
        }
        if removed > 0 {
            cluster.ask(asked, Op::SetRemove { members: (0..removed).map(name).collect() });
        }
        let there = size.saturating_sub(removed);
        let op = Op::SetPick { count, repeat: false, remove, seed };
        let Reply::Members(mut picked) = cluster.ask(asked, op).result.unwrap() else { panic!("members") };
        prop_assert_eq!(picked.len(), there.min(count as usize));
        picked.sort();
        let Reply::Members(left) = cluster.read(asked, Level::All, Op::SetMembers).unwrap() else { panic!("members") };
        let mut both: Vec<Bytes> = left.iter().filter(|one| !remove || !picked.contains(one)).cloned().collect();
        both.extend(picked.iter().filter(|one| remove && !left.contains(one)).cloned());
        both.sort();
        let mut expected: Vec<Bytes> = (removed.min(size)..size).map(name).collect();
        expected.sort();
        prop_assert_eq!(both, expected);
        picked.dedup();
        prop_assert_eq!(picked.len(), there.min(count as usize));
        if !remove {
            prop_assert!(picked.iter().all(|one| left.contains(one)));
        }
    }
}

/// A large set is picked from by stretches, which go round at the end: whoever stands first or last there is picked like the others.
#[test]
fn every_member_is_picked_about_as_often() {
    const MEMBERS: usize = 100;
    const PICKS: u64 = 4_000;
    let layout = layout(&["n1", "n2", "n3"], 3);
    let asked = layout.members[0].id;
    let mut cluster = Cluster::new(&layout);
    cluster.ask(asked, Op::SetAdd { members: (0..MEMBERS).map(|number| Bytes::from(format!("m{number}"))).collect() });
    let mut picked: BTreeMap<Bytes, u64> = BTreeMap::new();
    for seed in 0..PICKS {
        let op = Op::SetPick { count: 1, repeat: false, remove: false, seed };
        let Some(Reply::Members(members)) = cluster.read(asked, Level::Quorum, op) else { panic!("members") };
        *picked.entry(members[0].clone()).or_default() += 1;
    }
    let share = PICKS / MEMBERS as u64;
    assert_eq!(picked.len(), MEMBERS);
    assert!(picked.values().all(|count| (share / 4..share * 3).contains(count)), "{picked:?}");
}
