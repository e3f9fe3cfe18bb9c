//! `CLUSTER`: the layout in the words of Redis Cluster, so that its clients route straight to an owner.
//!
//! Every owner takes reads and writes; to such clients the first owner that is up is the master of a slot and the others that are up
//! its replicas. A slot all of whose owners are down is told with its first owner: any node would answer for it, but clients
//! refuse a map with holes.

use std::fmt::Write;

use super::{Command, LOADING, STALE, plain, subcommand_arity, unknown_subcommand, word};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::Plan;
use crate::api::resp::refusal::Refusal;
use crate::api::resp::session::{Call, Facts};
use crate::data::id::{NodeId, Partition};
use crate::data::op::Key;
use crate::ring::layout::Member;

pub const COMMANDS: &[Command] =
    &[plain("cluster", -2, LOADING | STALE, "cluster", "The layout as Redis Cluster tells it", cluster)];

const SLOTS: u32 = 16_384;

/// A node's id as Redis Cluster writes ids: 40 hexadecimal digits.
pub fn node_id(id: NodeId) -> String {
    format!("{id}{:024}", 0)
}

/// Neighbouring slots with one master and the same replicas, both ends counted in.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Range {
    from: u32,
    to: u32,
    master: usize,
    /// In the order of the layout: which replica comes first means nothing, and equal lists make fewer ranges.
    replicas: Vec<usize>,
}

/// First slot of a partition: the least whose `slot * Q / 16384` is it.
fn first_slot(partition: u32, partitions: u32) -> u32 {
    (partition * SLOTS).div_ceil(partitions)
}

fn ranges(facts: &dyn Facts) -> Vec<Range> {
    let (layout, up) = facts.layout();
    let partitions = u32::from(layout.partitions);
    let is_up = |at: &usize| up.get(*at).copied().unwrap_or(false);
    let mut ranges: Vec<Range> = Vec::new();
    for partition in 0..partitions {
        let owners = facts.owners(Partition(partition as u16));
        let Some(master) = owners.iter().copied().find(is_up).or_else(|| owners.first().copied()) else { continue };
        let mut replicas: Vec<usize> = owners.into_iter().filter(|owner| *owner != master && is_up(owner)).collect();
        replicas.sort_unstable();
        let (from, to) = (first_slot(partition, partitions), first_slot(partition + 1, partitions));
        if from == to {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.master == master && last.replicas == replicas => last.to = to - 1,
            _ => ranges.push(Range { from, to: to - 1, master, replicas }),
        }
    }
    ranges
}

/// Host and port of a member's RESP door. No host for an address that means "any of this machine": clients then use the one they came by.
fn address(member: &Member) -> (String, u16) {
    let (host, port) = member.resp.rsplit_once(':').unwrap_or((member.resp.as_str(), "0"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if matches!(host, "0.0.0.0" | "::" | "*") { "" } else { host };
    (host.to_string(), port.parse().unwrap_or(0))
}

fn cluster(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let frame = match word(&call.arguments[1]).as_str() {
        "SLOTS" => {
            subcommand_arity(call, 2..=2)?;
            slots(call.facts)
        }
        "SHARDS" => {
            subcommand_arity(call, 2..=2)?;
            shards(call.facts)
        }
        "NODES" => {
            subcommand_arity(call, 2..=2)?;
            Frame::Verbatim(nodes(call.facts))
        }
        "INFO" => {
            subcommand_arity(call, 2..=2)?;
            Frame::Verbatim(info(call.facts))
        }
        "MYID" | "MYSHARDID" => {
            subcommand_arity(call, 2..=2)?;
            Frame::text(node_id(call.facts.me()))
        }
        "KEYSLOT" => {
            subcommand_arity(call, 3..=3)?;
            Frame::Integer(i64::from(call.facts.whereabouts(&Key::new(call.arguments[2].clone())).slot))
        }
        "HELP" => Frame::Array(
            [
                "CLUSTER INFO",
                "CLUSTER KEYSLOT <key>",
                "CLUSTER MYID",
                "CLUSTER NODES",
                "CLUSTER SHARDS",
                "CLUSTER SLOTS",
            ]
            .into_iter()
            .map(Frame::Simple)
            .collect(),
        ),
        "COUNTKEYSINSLOT" | "GETKEYSINSLOT" => {
            return Err("ERR keys are not indexed by slot: walk them with SCAN and ask CLUSTER KEYSLOT".into());
        }
        name @ ("ADDSLOTS" | "ADDSLOTSRANGE" | "BUMPEPOCH" | "DELSLOTS" | "DELSLOTSRANGE" | "FAILOVER"
        | "FLUSHSLOTS" | "FORGET" | "MEET" | "REPLICATE" | "RESET" | "SAVECONFIG" | "SETSLOT"
        | "SET-CONFIG-EPOCH") => {
            return Err(format!(
                "ERR CLUSTER {name} is not supported: who owns what is the layout, which nodes' configuration says"
            )
            .into());
        }
        _ => return Err(unknown_subcommand(call)),
    };
    Ok(Plan::Now(frame))
}

fn slots(facts: &dyn Facts) -> Frame {
    let (layout, _) = facts.layout();
    let told = |at: &usize| {
        let member = &layout.members[*at];
        let (host, port) = address(member);
        Frame::Array(vec![
            Frame::text(host),
            Frame::Integer(i64::from(port)),
            Frame::text(node_id(member.id)),
            Frame::Array(Vec::new()),
        ])
    };
    let range = |range: Range| {
        let mut entry = vec![Frame::Integer(i64::from(range.from)), Frame::Integer(i64::from(range.to))];
        entry.extend(std::iter::once(&range.master).chain(&range.replicas).map(told));
        Frame::Array(entry)
    };
    Frame::Array(ranges(facts).into_iter().map(range).collect())
}

/// One shard per set of nodes with one master, with all its slots.
fn shards(facts: &dyn Facts) -> Frame {
    let (layout, up) = facts.layout();
    let mut shards: Vec<(usize, Vec<usize>, Vec<Frame>)> = Vec::new();
    for Range { from, to, master, replicas } in ranges(facts) {
        let ends = [Frame::Integer(i64::from(from)), Frame::Integer(i64::from(to))];
        match shards.iter_mut().find(|(of, with, _)| *of == master && *with == replicas) {
            Some((_, _, slots)) => slots.extend(ends),
            None => shards.push((master, replicas, ends.into())),
        }
    }
    let told = |at: usize, role: &'static str| {
        let member = &layout.members[at];
        let (host, port) = address(member);
        let health = if up.get(at) == Some(&true) { "online" } else { "failed" };
        Frame::map(vec![
            ("id", Frame::text(node_id(member.id))),
            ("port", Frame::Integer(i64::from(port))),
            ("ip", Frame::text(host.clone())),
            ("endpoint", Frame::text(host)),
            ("role", Frame::text(role)),
            ("replication-offset", Frame::Integer(0)),
            ("health", Frame::text(health)),
        ])
    };
    let shards = shards.into_iter().map(|(master, replicas, slots)| {
        let mut nodes = vec![told(master, "master")];
        nodes.extend(replicas.into_iter().map(|replica| told(replica, "replica")));
        Frame::map(vec![("slots", Frame::Array(slots)), ("nodes", Frame::Array(nodes))])
    });
    Frame::Array(shards.collect())
}

/// Every node is a master, of the slots it is first for.
fn nodes(facts: &dyn Facts) -> String {
    let (layout, up) = facts.layout();
    let ranges = ranges(facts);
    let mut out = String::new();
    for (at, member) in layout.members.iter().enumerate() {
        let (host, port) = address(member);
        let is_up = up.get(at) == Some(&true);
        let myself = if member.id == facts.me() { "myself," } else { "" };
        let flags = format!("{myself}master{}", if is_up { "" } else { ",fail" });
        let link = if is_up { "connected" } else { "disconnected" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{} {host}:{port}@{port} {flags} - 0 0 {} {link}", node_id(member.id), layout.version);
        for range in ranges.iter().filter(|range| range.master == at) {
            let _ = match range.from == range.to {
                true => write!(out, " {}", range.from),
                false => write!(out, " {}-{}", range.from, range.to),
            };
        }
        out.push('\n');
    }
    out
}

fn info(facts: &dyn Facts) -> String {
    let (layout, up) = facts.layout();
    let ranges = ranges(facts);
    let assigned: u32 = ranges.iter().map(|range| range.to - range.from + 1).sum();
    let served = |range: &&Range| up.get(range.master) == Some(&true);
    let ok: u32 = ranges.iter().filter(served).map(|range| range.to - range.from + 1).sum();
    let mut masters: Vec<usize> = ranges.iter().map(|range| range.master).collect();
    masters.sort_unstable();
    masters.dedup();
    let lines = [
        ("cluster_enabled", "1".to_string()),
        // Stand-ins take writes for slots whose owners are all away, so the cluster as a whole is never "down".
        ("cluster_state", "ok".to_string()),
        ("cluster_slots_assigned", assigned.to_string()),
        ("cluster_slots_ok", ok.to_string()),
        ("cluster_slots_pfail", "0".to_string()),
        ("cluster_slots_fail", (assigned - ok).to_string()),
        ("cluster_known_nodes", layout.members.len().to_string()),
        ("cluster_size", masters.len().to_string()),
        ("cluster_current_epoch", layout.version.to_string()),
        ("cluster_my_epoch", layout.version.to_string()),
    ];
    lines.into_iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_all_partitions_are_all_slots_once() {
        for partitions in [1, 3, 7, 64, 1_000, 1_024, 16_384] {
            for slot in 0..SLOTS {
                let partition = slot * partitions / SLOTS;
                assert!(first_slot(partition, partitions) <= slot && slot < first_slot(partition + 1, partitions));
            }
            assert_eq!(first_slot(partitions, partitions), SLOTS);
        }
    }

    #[test]
    fn ids_have_forty_digits() {
        assert_eq!(node_id(NodeId(0xabc)).len(), 40);
        assert!(node_id(NodeId(0xabc)).starts_with("0000000000000abc"));
    }
}
