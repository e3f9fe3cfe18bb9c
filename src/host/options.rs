//! What a node is told when it starts: every setting as a plain value, in one unit. Where the text comes from (file,
//! environment, flags) and how it is spelled is `cli/config.rs`'s business; deploy/node.toml tells each to the one who sets it.
//!
//! [`NodeConfig::new`] gives the defaults, the only place that has them. [`NodeConfig::faults`] judges what no single setting
//! shows: how they fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::data::consistency::Consistency;
use crate::data::id::NodeId;
use crate::node::membership::{SwimOptions, SwimOptionsError};
use crate::ring::layout::{Layout, Member};

/// Room in a frame beside the largest key and value: the message's other fields, receipts, contexts.
pub const FRAME_OVERHEAD_BYTES: u64 = 256 << 10;

/// Everything a node is told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster's name. Certificates of another cluster are refused.
    pub cluster: String,
    /// This node's name: that of one member of `layout`, and of its certificate.
    pub name: String,
    /// The folder of its store and marks. Nobody else's.
    pub data: PathBuf,
    /// Memory for objects that are remembered (a quarter) and for the store's caches and write buffers. Default 256 MiB.
    pub memory_bytes: u64,
    /// Threads that the node works on, beside those of the store's background; 0 takes one per CPU. Who makes the runtime obeys it
    /// ([`NodeConfig::thread_count`]). Default 0.
    pub threads: u16,
    /// Parts that decide independently, each for some of the partitions; 0 takes one for two threads. Default 0.
    pub lanes: u16,
    /// How often, at most, what was written is fsynced. Default 10.
    pub fsync_interval_ms: u64,
    /// How often owners compare what they have seen. Default 1,000.
    pub exchange_interval_ms: u64,
    /// A stamp further ahead of this machine's clock is refused. Default 500.
    pub clock_ahead_max_ms: u64,
    /// For how long an operation id is remembered, and how old it may be. Default 600,000.
    pub op_id_window_ms: u64,
    /// How often all rows are compared between owners; 0: only when asked for. Default 86,400,000.
    pub scrub_interval_ms: u64,
    /// A member that is away for longer is fenced: it must come back empty; 0: never. Default 604,800,000.
    pub horizon_ms: u64,
    /// How fast the rows of full syncs may come in, in bytes a second; 0: as fast as they can. Default 64 MiB.
    pub sync_bytes_per_second: u64,
    /// Take orders to cut this node off, stop, kill or wipe it (`host::faults`), from any client. Default false.
    pub allow_faults: bool,
    pub quic: QuicConfig,
    pub resp: RespConfig,
    pub http: HttpConfig,
    pub tls: TlsConfig,
    /// Who owns what. The same at every node.
    pub layout: Layout,
    pub limits: Limits,
    /// What a request gets that does not choose.
    pub consistency: Consistency,
    /// The deadline of a request that brings none. Default 2,000.
    pub timeout_ms: u64,
    pub swim: SwimOptions,
    pub log: LogConfig,
}

/// The door for peers and native clients. How they reach it is told by this node's member in the layout.
#[derive(Clone, Debug)]
pub struct QuicConfig {
    pub listen: SocketAddr,
    /// Longer frames are neither sent nor taken. The same at every node. Default 16 MiB.
    pub frame_bytes_max: u64,
}

/// The door for Redis clients.
#[derive(Clone, Debug)]
pub struct RespConfig {
    pub listen: SocketAddr,
    /// Speak TLS, with the node's own certificate. Default false.
    pub tls: bool,
    /// Any one of them opens the door (`AUTH`); none: it is open. Several allow changing one without a pause.
    pub passwords: Vec<Password>,
    /// Said on purpose: the door may stand open to other machines without a password. Default false.
    pub open: bool,
    /// Connections at once; one more is told so and closed. Default 10,000.
    pub connections_max: u32,
    /// Commands of one connection under way at once; more wait in the socket. Default 1,024.
    pub pipeline_max: u32,
}

/// The door for health checks and metrics; read only.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
}

/// Files in PEM form.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Bounds on what is asked and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Default 32 KiB.
    pub key_bytes_max: u64,
    /// Also of a set's member and a hash's field and value. Default 8 MiB.
    pub value_bytes_max: u64,
    /// All arguments of one command together. Default 64 MiB.
    pub command_bytes_max: u64,
    /// Concurrent values under one key. Default 64.
    pub siblings_max: u32,
    /// Hints kept for nodes that are away, on disk. Default 1 GiB.
    pub hint_bytes_max: u64,
    /// Requests under way at this node; more are refused as overload. Default 8,192.
    pub requests_max: u32,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Level, or levels by room, as `info,tidewater::node=debug`. Default `info`.
    pub filter: String,
}

/// A secret that does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("Password(…)")
    }
}

/// Settings that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting, or the section, by its name in the file; a member's as `layout.members.<name>.<setting>`.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl NodeConfig {
    /// How many threads the node works on.
    pub fn thread_count(&self) -> u16 {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get().min(256) as u16),
            threads => threads,
        }
    }

    /// A node with every default, listening where its member says, on all interfaces. When `name` is no member the ports are 0,
    /// and [`faults`](Self::faults) says so.
    pub fn new(cluster: String, name: String, data: PathBuf, tls: TlsConfig, layout: Layout) -> Self {
        let member = layout.members.iter().find(|member| member.name == name);
        let listen = |door: fn(&Member) -> &String| {
            let port = member.and_then(|member| door(member).rsplit(':').next()?.parse().ok()).unwrap_or(0);
            SocketAddr::from(([0, 0, 0, 0], port))
        };
        Self {
            memory_bytes: 256 << 20,
            threads: 0,
            lanes: 0,
            fsync_interval_ms: 10,
            exchange_interval_ms: 1_000,
            clock_ahead_max_ms: 500,
            op_id_window_ms: 600_000,
            scrub_interval_ms: 86_400_000,
            horizon_ms: 604_800_000,
            sync_bytes_per_second: 64 << 20,
            allow_faults: false,
            quic: QuicConfig { listen: listen(|member| &member.quic), frame_bytes_max: 16 << 20 },
            resp: RespConfig {
                listen: listen(|member| &member.resp),
                tls: false,
                passwords: Vec::new(),
                open: false,
                connections_max: 10_000,
                pipeline_max: 1_024,
            },
            http: HttpConfig { listen: listen(|member| &member.http) },
            limits: Limits::default(),
            consistency: Consistency::default(),
            timeout_ms: 2_000,
            swim: SwimOptions::default(),
            log: LogConfig { filter: "info".into() },
            cluster,
            name,
            data,
            tls,
            layout,
        }
    }

    pub fn id(&self) -> NodeId {
        NodeId::from_name(&self.name)
    }

    /// This node's own member: how others reach it. `None` only in a config with [`faults`](Self::faults).
    pub fn member(&self) -> Option<&Member> {
        self.layout.members.iter().find(|member| member.name == self.name)
    }

    /// All that does not fit together; empty: the node may start.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        self.judge_layout(&mut faults);
        self.judge_doors(&mut faults);
        self.judge_limits(&mut faults);
        self.judge_times(&mut faults);
        if let Err(message) = self.consistency.check(self.layout.replicas) {
            faults.add("consistency", message);
        }
        let zones: BTreeSet<&str> = self.layout.members.iter().map(|member| member.zone.as_str()).collect();
        let zones = zones.len();
        if zones > 0 && usize::from(self.consistency.zones) > zones {
            let asked = self.consistency.zones;
            faults.add("consistency.zones", format!("{asked} zones cannot be met: the members are in {zones}"));
        }
        faults.0
    }

    fn judge_layout(&self, faults: &mut Faults) {
        let members = &self.layout.members;
        if members.is_empty() {
            faults.add("layout.members", "there are none: give each node of the cluster as one [[layout.members]]");
            return;
        }
        if usize::from(self.layout.replicas) > members.len() {
            let (replicas, count) = (self.layout.replicas, members.len());
            faults.add(
                "layout.replicas",
                format!("{replicas} owners of each key need {replicas} members; there are {count}"),
            );
        }
        if self.member().is_none() {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            let message = format!("'{}' is not among the members of the layout: {}", self.name, names.join(", "));
            faults.add("name", message);
        }
        let mut ids = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for member in members {
            let field = |name: &str| format!("layout.members.{}.{name}", member.name);
            if let Some(other) = ids.insert(NodeId::from_name(&member.name), &member.name) {
                let message = if *other == member.name {
                    format!("two members are called '{other}': give each its own name")
                } else {
                    format!("'{other}' and '{}' have the same hash: rename one of them", member.name)
                };
                faults.add(field("name"), message);
                continue;
            }
            // QUIC is UDP, the others TCP: only the same kind of port can clash.
            for (kind, name, address) in
                [("udp", "quic", &member.quic), ("tcp", "resp", &member.resp), ("tcp", "http", &member.http)]
            {
                if let Some((other, door)) = addresses.insert((kind, address.clone()), (&member.name, name)) {
                    let message =
                        format!("{address} is taken already by '{other}' ({door}): give each door its own port");
                    faults.add(field(name), message);
                }
            }
        }
    }

    fn judge_doors(&self, faults: &mut Faults) {
        let (resp, http) = (self.resp.listen, self.http.listen);
        let overlap = resp.ip() == http.ip() || resp.ip().is_unspecified() || http.ip().is_unspecified();
        if resp.port() == http.port() && overlap && resp.port() != 0 {
            faults.add("http.listen", format!("{http} clashes with resp.listen {resp}: use another port"));
        }
        if self.resp.passwords.is_empty() && !self.resp.open && !is_this_machine(resp.ip()) {
            let message = format!(
                "{resp} can be reached from other machines and asks for no password: set resp.passwords, listen on 127.0.0.1, \
                 or say resp.open = true"
            );
            faults.add("resp.listen", message);
        }
    }

    fn judge_limits(&self, faults: &mut Faults) {
        let limits = &self.limits;
        let largest = limits.key_bytes_max.saturating_add(limits.value_bytes_max).saturating_add(FRAME_OVERHEAD_BYTES);
        if largest > self.quic.frame_bytes_max {
            let message = format!(
                "{} bytes do not hold the largest key and value: use at least {largest} (limits.key_size_max + \
                 limits.value_size_max + {FRAME_OVERHEAD_BYTES}), or lower those",
                self.quic.frame_bytes_max
            );
            faults.add("quic.frame_size_max", message);
        }
        if limits.command_bytes_max < limits.key_bytes_max.saturating_add(limits.value_bytes_max) {
            faults.add("limits.command_size_max", "is less than limits.key_size_max + limits.value_size_max: raise it");
        }
        if limits.hint_bytes_max < limits.value_bytes_max {
            faults.add(
                "limits.hints_size_max",
                "is less than limits.value_size_max: one hint could not be kept; raise it",
            );
        }
    }

    fn judge_times(&self, faults: &mut Faults) {
        if self.op_id_window_ms < self.timeout_ms.saturating_mul(2) {
            let message = format!(
                "{} ms is less than twice consistency.timeout ({} ms): a retry could come too late to be known; raise it",
                self.op_id_window_ms, self.timeout_ms
            );
            faults.add("op_id_window", message);
        }
        match self.swim.check() {
            Ok(()) => {}
            Err(SwimOptionsError::PeriodBelowTwoRoundTrips { period_ms, rtt_ms }) => {
                let message =
                    format!("{period_ms} ms is less than twice swim.probe_rtt ({rtt_ms} ms): raise it or lower that");
                faults.add("swim.probe_period", message);
            }
            Err(error @ SwimOptionsError::OutOfRange { .. }) => faults.add("swim", error.to_string()),
        }
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 32 << 10,
            value_bytes_max: 8 << 20,
            command_bytes_max: 64 << 20,
            siblings_max: 64,
            hint_bytes_max: 1 << 30,
            requests_max: 8_192,
        }
    }
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault { field: field.into(), message: message.into() });
    }
}
