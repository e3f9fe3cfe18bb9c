//! From what was typed to who is told what. Asks nobody.

use std::time::Duration;

use super::super::CliError;
use super::super::args::faults::{FaultsVerb, Nodes, SidesArgs};
use super::render;
use crate::data::id::NodeId;
use crate::ring::layout::{Layout, Member};
use crate::wire::fault::{FaultOrder, NetworkFault};

/// What is to be said to whom.
#[derive(Debug)]
pub struct Plan {
    /// For people: `cut n1 | n2, n3 for 20.0 s`.
    pub title: String,
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub struct Part {
    pub node: Member,
    pub order: FaultOrder,
    /// The parts that do the same for this one's share, by their place: one of them is enough. Empty: it has to be done here.
    pub instead: Vec<NodeId>,
    /// Whoever takes no orders has nothing to heal.
    pub may_refuse: bool,
}

/// `show` is no order: it has no plan.
pub fn plan(verb: &FaultsVerb, layout: &Layout) -> Result<Plan, CliError> {
    let all = |order: &dyn Fn() -> FaultOrder, nodes: &Nodes, title: &str| {
        let nodes = members(layout, nodes)?;
        let title = format!("{title} {}", names(&nodes));
        let part = |node: Member| Part { node, order: order(), instead: Vec::new(), may_refuse: false };
        Ok(Plan { title, parts: nodes.into_iter().map(part).collect() })
    };
    match verb {
        FaultsVerb::Cut(args) => sides(layout, &args.left, &args.right, &args.sides, "cut", Way::EitherEnd),
        FaultsVerb::Delay(args) => {
            let us = |time: Duration| time.as_micros() as u32;
            let mut faults = vec![NetworkFault::Delay { us: us(args.delay) }];
            faults.extend(args.jitter.map(|jitter| NetworkFault::Jitter { us: us(jitter) }));
            let jitter = args.jitter.map(|jitter| format!(" to {}", render::duration(args.delay + jitter)));
            let title = format!("{}{} delay", render::duration(args.delay), jitter.unwrap_or_default());
            sides(layout, &args.left, &args.right, &args.sides, &title, Way::AtTheSender(faults))
        }
        FaultsVerb::Reorder(args) => {
            let faults = vec![NetworkFault::Jitter { us: args.jitter.as_micros() as u32 }];
            let title = format!("reorder within {}", render::duration(args.jitter));
            sides(layout, &args.left, &args.right, &args.sides, &title, Way::AtTheSender(faults))
        }
        FaultsVerb::Loss(args) => {
            let title = format!("{} loss", super::words::share(args.share_ppm));
            let faults = vec![NetworkFault::Loss { ppm: args.share_ppm }];
            sides(layout, &args.left, &args.right, &args.sides, &title, Way::AtTheSender(faults))
        }
        FaultsVerb::Duplicate(args) => {
            let title = format!("{} duplicates", super::words::share(args.share_ppm));
            let faults = vec![NetworkFault::Duplicate { ppm: args.share_ppm }];
            sides(layout, &args.left, &args.right, &args.sides, &title, Way::AtTheSender(faults))
        }
        FaultsVerb::Pause(args) => {
            let order = || FaultOrder::Pause { for_ms: args.lasting.as_millis() as u64 };
            all(&order, &args.nodes.nodes, &format!("pause of {}:", render::duration(args.lasting)))
        }
        FaultsVerb::Kill(args) => all(&|| FaultOrder::Kill, &args.nodes, "kill"),
        FaultsVerb::Wipe(args) => all(&|| FaultOrder::Wipe, &args.nodes, "wipe"),
        FaultsVerb::Clock(args) => {
            let for_ms = args.lasting.map(|time| time.as_millis() as u64);
            let order = || FaultOrder::Clock { offset_ms: args.offset_ms, for_ms };
            let title = format!("clock {}{}:", super::words::offset(args.offset_ms), lasting(args.lasting));
            all(&order, &args.nodes.nodes, &title)
        }
        FaultsVerb::Heal(args) => heal(layout, &args.nodes.clone().unwrap_or_default()),
        FaultsVerb::Show(_) => Err(CliError::usage("show gives no order")),
    }
}

/// Where packets can be hit.
enum Way {
    /// A cut: where they leave or where they come in; both are told, one is enough.
    EitherEnd,
    AtTheSender(Vec<NetworkFault>),
}

fn sides(
    layout: &Layout,
    left: &Nodes,
    right: &Nodes,
    args: &SidesArgs,
    title: &str,
    way: Way,
) -> Result<Plan, CliError> {
    let (left, right) = (members(layout, left)?, members(layout, right)?);
    if let Some(both) = left.iter().find(|member| right.iter().any(|other| other.id == member.id)) {
        return Err(CliError::usage(format!("{} is on both sides: name each node once", both.name)));
    }
    let arrow = if args.one_way { "->" } else { "|" };
    let title = format!("{title}, {} {arrow} {}{}", names(&left), names(&right), lasting(args.lasting));
    let for_ms = args.lasting.map(|time| time.as_millis() as u64);
    let ids = |side: &[Member]| side.iter().map(|member| member.id).collect::<Vec<_>>();
    let mut parts = Vec::new();
    for (here, there, sends, receives) in [(&left, &right, true, !args.one_way), (&right, &left, !args.one_way, true)] {
        let faults = match &way {
            Way::EitherEnd => {
                let out = sends.then_some(NetworkFault::CutOut);
                out.into_iter().chain(receives.then_some(NetworkFault::CutIn)).collect()
            }
            Way::AtTheSender(faults) if sends => faults.clone(),
            Way::AtTheSender(_) => continue,
        };
        let instead = if matches!(way, Way::EitherEnd) { ids(there) } else { Vec::new() };
        parts.extend(here.iter().map(|node| Part {
            node: node.clone(),
            order: FaultOrder::network(ids(there), faults.iter().copied(), for_ms),
            instead: instead.clone(),
            may_refuse: false,
        }));
    }
    Ok(Plan { title, parts })
}

/// The nodes forget all their faults, and all others what they do to these.
fn heal(layout: &Layout, nodes: &Nodes) -> Result<Plan, CliError> {
    let healed = members(layout, nodes)?;
    let peers: Vec<NodeId> = healed.iter().map(|member| member.id).collect();
    let part = |node: &Member| {
        let order = match healed.is_empty() || peers.contains(&node.id) {
            true => FaultOrder::Heal,
            false => FaultOrder::HealPeers { peers: peers.clone() },
        };
        Part { node: node.clone(), order, instead: Vec::new(), may_refuse: !peers.contains(&node.id) }
    };
    let whom = if healed.is_empty() { "all".to_owned() } else { names(&healed) };
    Ok(Plan { title: format!("heal {whom}"), parts: layout.members.iter().map(part).collect() })
}

/// Nodes by name or id, each once.
fn members(layout: &Layout, words: &Nodes) -> Result<Vec<Member>, CliError> {
    let mut found: Vec<Member> = Vec::new();
    for word in &words.0 {
        let is_it = |member: &&Member| member.name == *word || member.id.to_string() == *word;
        let member = layout.members.iter().find(is_it).ok_or_else(|| {
            CliError::usage(format!("the layout has no node '{word}'; it has {}", names(&layout.members)))
        })?;
        if !found.iter().any(|other| other.id == member.id) {
            found.push(member.clone());
        }
    }
    Ok(found)
}

fn names(members: &[Member]) -> String {
    members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn lasting(time: Option<Duration>) -> String {
    time.map(|time| format!(", for {}", render::duration(time))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::args::{Cli, Verb};
    use super::*;

    fn layout() -> Layout {
        let member = |name: &str| Member {
            id: NodeId::from_name(name),
            name: name.into(),
            zone: "a".into(),
            weight: 1,
            quic: String::new(),
            resp: String::new(),
            http: String::new(),
        };
        let members = ["n1", "n2", "n3"].map(member).to_vec();
        Layout { version: 1, parent: 0, replicas: 3, partitions: 16, members }
    }

    /// What each node is told, in order.
    fn orders(line: &str) -> Vec<(String, FaultOrder)> {
        let parts = planned(line).unwrap().parts;
        parts.into_iter().map(|part| (part.node.name, part.order)).collect()
    }

    fn planned(line: &str) -> Result<Plan, CliError> {
        let line = format!("tidewater faults {line}");
        match Cli::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Faults(args) => plan(&args.verb, &layout()),
            other => panic!("{other:?}"),
        }
    }

    fn ids<const COUNT: usize>(names: [&str; COUNT]) -> [NodeId; COUNT] {
        names.map(NodeId::from_name)
    }

    #[test]
    fn a_cut_is_told_to_both_ends_and_either_is_enough() {
        let cut = planned("cut n1 n2,n3 --for 20s").unwrap();
        assert_eq!(cut.title, "cut, n1 | n2, n3, for 20.0 s");
        assert_eq!(
            orders("cut n1 n2,n3 --for 20s"),
            [
                ("n1".into(), FaultOrder::cut(ids(["n2", "n3"]), Some(20_000))),
                ("n2".into(), FaultOrder::cut(ids(["n1"]), Some(20_000))),
                ("n3".into(), FaultOrder::cut(ids(["n1"]), Some(20_000))),
            ]
        );
        assert_eq!(cut.parts[0].instead, ids(["n2", "n3"]));
        assert_eq!(cut.parts[2].instead, ids(["n1"]));
        assert_eq!(
            orders("cut n1 n2 --one-way"),
            [
                ("n1".into(), FaultOrder::network(ids(["n2"]), [NetworkFault::CutOut], None)),
                ("n2".into(), FaultOrder::network(ids(["n1"]), [NetworkFault::CutIn], None)),
            ]
        );
    }

    #[test]
    fn what_happens_on_the_way_out_is_told_to_every_sender() {
        let faults = [NetworkFault::Delay { us: 20_000 }, NetworkFault::Jitter { us: 5_000 }];
        assert_eq!(
            orders("delay n1 n2 20ms --jitter 5ms"),
            [
                ("n1".into(), FaultOrder::network(ids(["n2"]), faults, None)),
                ("n2".into(), FaultOrder::network(ids(["n1"]), faults, None)),
            ]
        );
        let lossy = FaultOrder::network(ids(["n2"]), [NetworkFault::Loss { ppm: 1_000 }], None);
        assert_eq!(orders("loss n1 n2 0.1% --one-way"), [("n1".into(), lossy)]);
        assert!(planned("duplicate n1 n2 1%").unwrap().parts.iter().all(|part| part.instead.is_empty()));
    }

    #[test]
    fn healing_some_also_ends_what_others_do_to_them() {
        let others = FaultOrder::HealPeers { peers: ids(["n1"]).to_vec() };
        assert_eq!(
            orders("heal n1"),
            [("n1".into(), FaultOrder::Heal), ("n2".into(), others.clone()), ("n3".into(), others)]
        );
        assert!(orders("heal").iter().all(|(_, order)| *order == FaultOrder::Heal));
    }

    #[test]
    fn nodes_go_by_name_or_id_and_strangers_are_told_whom_there_is() {
        let id = NodeId::from_name("n2").to_string();
        assert_eq!(orders(&format!("kill n1,{id},n1")).len(), 2);
        for (line, told) in
            [("kill n9", "the layout has no node 'n9'; it has n1, n2, n3"), ("cut n1,n2 n3,n2", "n2 is on both sides")]
        {
            let error = planned(line).unwrap_err();
            assert_eq!(error.exit_code(), crate::cli::EXIT_USAGE);
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
