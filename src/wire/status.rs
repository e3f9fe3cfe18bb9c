//! How a node is: what `tidewater status`, `INFO` and the metrics tell; and what it knows of one key: `tidewater explain`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::context::Context;
use crate::data::id::{Dot, Incarnation, NodeId, Partition};
use crate::data::path::Path;
use crate::data::row::Row;
use crate::wire::fault::FaultStatus;

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
    /// Rows that wait to be dropped until nobody needs them any more: delete rows, ended lives, floors of counters.
    pub garbage: u64,
    /// Who keeps the oldest of them from it.
    pub held: Option<HeldStatus>,
    pub scrub: ScrubStatus,
    pub sync: SyncStatus,
    /// Bytes of the store on disk.
    pub store_bytes: u64,
    /// Why the store is fenced, when it is.
    pub fenced: Option<String>,
    /// Faults made on purpose; `None`: the node takes no orders for any.
    pub faults: Option<FaultStatus>,
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
    /// It is away, or fenced.
    pub absence: Option<AbsenceStatus>,
}

/// A member that is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AbsenceStatus {
    /// Milliseconds since it was last up, or since the node that tells it started.
    pub for_ms: u64,
    /// Milliseconds until it is fenced; `None`: it is, or never will be.
    pub left_ms: Option<u64>,
    /// Nothing that it brings is taken until it comes back empty.
    pub fenced: bool,
}

/// Partitions that are taken whole from another owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SyncStatus {
    pub under_way: u64,
    /// How far those under way have come on average, in thousandths.
    pub permille: u64,
    /// Partitions that are to be asked for, whole or in part.
    pub waiting: u64,
    /// Done since the start, and rows taken for it.
    pub done: u64,
    pub rows: u64,
}

/// Why nothing is dropped in a partition yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    pub partition: Partition,
    pub for_ms: u64,
    /// Names of the members that are waited for.
    pub by: Vec<String>,
    /// They have answered that they keep hints or lag behind; otherwise they have not answered.
    pub told: bool,
}

/// How far the scrub under way has come, or what the last one came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubStatus {
    pub running: bool,
    pub partitions: u64,
    pub partitions_done: u64,
    /// Partitions that could not be compared to their end: an owner was away, or they never had seen the same.
    pub skipped: u64,
    pub rows: u64,
    pub findings: u64,
}

/// What one node knows of a key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KeyStatus {
    pub name: String,
    pub partition: Partition,
    pub owner: bool,
    /// The first rows of the key; `more`: there are others.
    pub rows: Vec<(Path, Row)>,
    pub more: bool,
    /// What it has seen of the partition, and what was removed there before it came.
    pub seen: Context,
    pub dead: Vec<Dot>,
    /// Hints for the key: for whom, and how many.
    pub hints: BTreeMap<String, u64>,
    /// The partition's garbage, and who holds it.
    pub garbage: u64,
    pub held: Option<HeldStatus>,
    /// All rows of the partition are being taken from another owner.
    pub syncing: bool,
    /// Milliseconds since 1970 on this node's clock.
    pub wall_ms: u64,
}

impl ScrubStatus {
    /// Adds another lane's.
    pub fn add(&mut self, other: &ScrubStatus) {
        self.running |= other.running;
        self.partitions += other.partitions;
        self.partitions_done += other.partitions_done;
        self.skipped += other.skipped;
        self.rows += other.rows;
        self.findings += other.findings;
    }
}

impl SyncStatus {
    /// Adds another lane's.
    pub fn add(&mut self, other: &SyncStatus) {
        let under_way = self.under_way + other.under_way;
        let come = self.permille * self.under_way + other.permille * other.under_way;
        self.permille = come / under_way.max(1);
        self.under_way = under_way;
        self.waiting += other.waiting;
        self.done += other.done;
        self.rows += other.rows;
    }
}
