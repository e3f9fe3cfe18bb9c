//! `INFO` in the format of Redis, from the node's own account of itself.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::server::REDIS_VERSION;
use super::{Command, LOADING, STALE, plain};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::Plan;
use crate::api::resp::refusal::Refusal;
use crate::api::resp::session::Call;
use crate::wire::status::NodeStatus;

pub const COMMANDS: &[Command] = &[plain("info", -1, LOADING | STALE, "server", "How the node is", info)];

const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cluster", "keyspace"];

/// What the door itself knows, taken before the node is asked.
struct Own {
    port: u16,
    clients: usize,
    clients_max: usize,
    connections: u64,
    rejected: u64,
    commands: u64,
    wall_ms: u64,
    nodes_up: usize,
    nodes: usize,
}

fn info(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let asked: BTreeSet<String> =
        call.arguments[1..].iter().map(|section| String::from_utf8_lossy(section).to_ascii_lowercase()).collect();
    let everything = asked.is_empty() || ["default", "all", "everything"].iter().any(|word| asked.contains(*word));
    let server = call.server;
    let (layout, up) = call.facts.layout();
    let own = Own {
        port: server.port,
        clients: server.clients().len(),
        clients_max: server.options.max_connections,
        connections: server.connections_total.load(Ordering::Relaxed),
        rejected: server.rejected_total.load(Ordering::Relaxed),
        commands: server.commands_total.load(Ordering::Relaxed),
        wall_ms: call.facts.wall_ms(),
        nodes_up: up.iter().filter(|up| **up).count(),
        nodes: layout.members.len(),
    };
    Ok(Plan::status(move |status| {
        let wanted = SECTIONS.iter().filter(|section| everything || asked.contains(**section));
        let texts: Vec<String> = wanted.map(|section| told(section, &own, &status)).collect();
        Frame::Verbatim(texts.join("\r\n"))
    }))
}

fn told(section: &str, own: &Own, status: &NodeStatus) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{name}:{value}\r\n");
    };
    let title = match section {
        "server" => {
            line("redis_version", &REDIS_VERSION);
            line("redis_mode", &"cluster");
            line("tidewater_version", &status.version);
            line("tidewater_node", &status.name);
            line("tidewater_incarnation", &status.incarnation);
            line("os", &std::env::consts::OS);
            line("arch_bits", &usize::BITS);
            line("process_id", &std::process::id());
            line("run_id", &super::cluster::node_id(status.node));
            line("tcp_port", &own.port);
            line("server_time_usec", &own.wall_ms.saturating_mul(1_000));
            line("uptime_in_seconds", &(status.uptime_ms / 1_000));
            line("uptime_in_days", &(status.uptime_ms / 86_400_000));
            "# Server"
        }
        "clients" => {
            line("connected_clients", &own.clients);
            line("maxclients", &own.clients_max);
            line("blocked_clients", &0);
            "# Clients"
        }
        "memory" => {
            line("used_memory", &resident_bytes());
            line("maxmemory", &0);
            line("maxmemory_policy", &"noeviction");
            "# Memory"
        }
        "persistence" => {
            line("loading", &0);
            line("store_bytes", &status.store_bytes);
            line("store_state", &if status.fenced.is_some() { "fenced" } else { "ok" });
            "# Persistence"
        }
        "stats" => {
            line("total_connections_received", &own.connections);
            line("total_commands_processed", &own.commands);
            line("rejected_connections", &own.rejected);
            for (name, value) in &status.counters {
                line(&format!("tidewater_{name}"), value);
            }
            "# Stats"
        }
        "replication" => {
            line("role", &"master");
            line("connected_slaves", &0);
            line("hints", &status.hints);
            line("hint_bytes", &status.hint_bytes);
            line("log_entries", &status.log_entries);
            line("behind", &status.behind);
            for peer in &status.peers {
                let lag = status.peer_lag.get(&peer.name).copied().unwrap_or(0);
                let state = if peer.up { "up" } else { "down" };
                let hints = status.hints_for.get(&peer.name).copied().unwrap_or(0);
                line(
                    &format!("peer_{}", peer.name),
                    &format!("state={state},zone={},lag={lag},hints={hints}", peer.zone),
                );
            }
            "# Replication"
        }
        "cluster" => {
            line("cluster_enabled", &1);
            line("layout", &status.layout);
            line("partitions", &status.partitions);
            line("partitions_owned", &status.partitions_owned);
            line("nodes", &own.nodes);
            line("nodes_up", &own.nodes_up);
            "# Cluster"
        }
        // Keys are not counted as they come and go; `DBSIZE` walks them. Told when the node happens to know.
        _ => {
            if let Some(keys) = status.counters.get("keys") {
                line("db0", &format!("keys={keys},expires=0,avg_ttl=0"));
            }
            "# Keyspace"
        }
    };
    format!("{title}\r\n{out}")
}

/// Resident memory of this process as the kernel tells it; 0 where it does not.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0).saturating_mul(4_096)
}
