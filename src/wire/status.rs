//! How a node is: what `tidewater status`, `INFO` and the metrics tell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::id::{Incarnation, NodeId};

/// One node's account of itself and of its peers as it sees them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: NodeId,
    pub name: String,
    pub version: String,
    pub incarnation: Incarnation,
    pub uptime_ms: u64,
    pub layout: u64,
    /// Partitions this node owns, and how many there are.
    pub partitions_owned: u32,
    pub partitions: u32,
    /// Hints kept for others: how many, their bytes, and for whom.
    pub hints: u64,
    pub hint_bytes: u64,
    pub hints_for: BTreeMap<String, u64>,
    /// Log entries that some owner may still miss.
    pub log_entries: u64,
    /// Mutations this node knows that a peer lacks, by peer name, by the peer's last report; 0 everywhere: level.
    pub peer_lag: BTreeMap<String, u64>,
    /// Mutations that some peer has reported and this node lacks.
    pub behind: u64,
    /// Bytes of the store on disk.
    pub store_bytes: u64,
    /// Why the store is fenced, when it is.
    pub fenced: Option<String>,
    pub peers: Vec<PeerStatus>,
    /// Plain counters since start, by name (`requests_total`, `read_repairs_total`, ...).
    pub counters: BTreeMap<String, u64>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    pub node: NodeId,
    pub name: String,
    pub zone: String,
    pub quic: String,
    pub up: bool,
    /// A link is open at this moment.
    pub connected: bool,
}
