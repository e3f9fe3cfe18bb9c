//! WHAT WAS MEASURED: the one shape that a run leaves behind. The load fills it, the report draws it, JSON and CSV carry it.
//!
//! Times are seconds since the measured part began (warm-up is before 0) unless the name has another unit.

use serde::{Deserialize, Serialize};

/// The version of this shape. A report refuses another one rather than drawing nonsense.
pub const FORMAT: u32 = 1;

/// Everything about one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    pub made: Made,
    pub setting: Setting,
    /// One per second of the measured part, in order.
    pub slices: Vec<Slice>,
    /// One per kind of operation and level, in a fixed order.
    pub operations: Vec<Operation>,
    pub faults: Vec<FaultSpan>,
    pub staleness: Vec<Staleness>,
    pub check: Check,
    pub healings: Vec<Healing>,
    pub receipts: Vec<Receipts>,
    pub cost: Cost,
}

/// By whom, with what, where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// As typed, so that it can be typed again.
    pub command: String,
    pub version: String,
    /// Empty if it is not known.
    pub commit: String,
    /// RFC 3339, UTC.
    pub started: String,
    pub machine: Machine,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub system: String,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// A short name of the run, for legends and headings: "quorum, partition and kill".
    pub title: String,
    /// What was driven: "tidewater, 3 nodes, native" or "redis cluster, RESP".
    pub target: String,
    /// What an acknowledgement means on that target: "2 of 3 in the page cache, fsynced within 5 ms".
    pub durability: String,
    pub workload: String,
    pub write_level: String,
    pub read_level: String,
    pub keys: u64,
    /// "uniform", "zipfian 0.99", "latest".
    pub distribution: String,
    /// "100" or "10 to 1000".
    pub value_bytes: String,
    pub connections: u32,
    /// Operations per second that were offered; `None`: each connection sends when it has been answered.
    pub offered_rate: Option<f64>,
    pub warm_up_s: f64,
    pub measured_s: f64,
}

/// One second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    pub at_s: f64,
    pub done: u64,
    pub errors: u64,
    /// Reads that were older than an acknowledged write; only those that could be judged.
    pub stale: u64,
    pub judged: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Mutations and hints that were still to be brought to some owner, if all could be asked. Under load some always are.
    pub behind: Option<u64>,
}

/// All of one kind of operation at one level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// "read", "update", "insert", "scan", "read-modify-write", "increment", "add member" ...
    pub name: String,
    pub level: String,
    pub latency: Latency,
    /// By what was said: "not enough owners", "timeout" ... with how often.
    pub errors: Vec<(String, u64)>,
}

/// From the intended start to the answer, errors left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub min_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub p9999_us: u64,
    pub max_us: u64,
    /// (microseconds, share of answers that took no longer), both rising, the last share is 1.
    pub cdf: Vec<(u64, f64)>,
}

/// A fault and when it was on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultSpan {
    pub from_s: f64,
    /// `None`: until the end.
    pub to_s: Option<f64>,
    /// As in a scenario: "partition n1 | n2,n3".
    pub text: String,
}

/// How likely a read was stale, by the time since the newest acknowledged write of the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Staleness {
    pub write_level: String,
    pub read_level: String,
    /// In order of `from_us`, without gaps.
    pub buckets: Vec<StalenessBucket>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StalenessBucket {
    pub from_us: u64,
    /// `None`: no end.
    pub to_us: Option<u64>,
    pub reads: u64,
    pub stale: u64,
    /// While no fault was on.
    pub reads_healthy: u64,
    pub stale_healthy: u64,
}

/// What the checker says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Answers that were compared with what had been acknowledged.
    pub verified: u64,
    /// Keys read once more at the end, at the level all owners, after the cluster was level.
    pub keys_read_at_end: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// Counted more often than asked for.
    pub duplicated: u64,
    /// Removed, acknowledged, and back.
    pub resurrected: u64,
    /// Values that nobody wrote.
    pub invented: u64,
    /// Reads that missed an acknowledged write; no fault at levels that do not promise otherwise.
    pub stale: u64,
    /// Of these, at levels that intersect (read + write owners > N) and with no stand-in involved.
    pub stale_against_promise: u64,
    /// Writes whose outcome is unknown: they may or may not be there.
    pub unknown: u64,
    /// Reads of counters that were too high by no more than their receipts said they might be.
    #[serde(default)]
    pub doubted: u64,
    /// The first few of what is wrong, told in full.
    pub examples: Vec<String>,
}

/// What came after the faults ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Healing {
    pub healed_at_s: f64,
    /// Until all owners held the same, or, under load, no more was under way than before the first fault; `None` if that was not seen
    /// before the end, or before the next fault.
    pub level_after_s: Option<f64>,
    /// (seconds since healed, mutations and hints still to be brought to some owner).
    pub behind: Vec<(f64, u64)>,
}

/// What answers had behind them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipts {
    pub operation: String,
    pub level: String,
    pub owners: u32,
    pub stand_ins: u32,
    pub count: u64,
}

/// CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Of the process that made the load, as a share of all cores.
    pub own_cpu_share: f64,
    pub own_cpu_us_per_operation: f64,
    /// Over all server processes, user and system; `None` if they are not on this machine.
    pub server_cpu_us_per_operation: Option<f64>,
    pub server_memory_bytes: Option<u64>,
}
