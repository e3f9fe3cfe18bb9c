//! What goes into a lane's brain and what comes out: the words of the contract between deciding and doing.
//!
//! The host (or the simulator) hands in inputs one by one over one overlay of the store, then commits the overlay's batch once, and
//! only then sends and replies what the outbox holds. *Write before you speak* is that order and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::data::consistency::Consistency;
use crate::data::id::{NodeId, StoreId};
use crate::data::op::{Request, RequestError, Response, ScanPage, ScanRequest};
use crate::node::planted::Planted;
use crate::ring::view::View;
use crate::wire::message::PeerMessage;

/// A door's number for a request that it waits for.
pub type DoorTicket = u64;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    Request {
        ticket: DoorTicket,
        request: Request,
    },
    Scan {
        ticket: DoorTicket,
        scan: ScanRequest,
    },
    Message {
        from: NodeId,
        message: PeerMessage,
    },
    /// Who is up changed, or the layout did.
    View(Arc<View>),
    /// Compare all rows with the other owners, now.
    Scrub,
    /// There is a link to a peer, where there was none: what was told it meanwhile went nowhere.
    LinkUp(NodeId),
    /// The link to a peer broke: what was asked of it will not be answered.
    LinkDown(NodeId),
}

/// What to do once the batch is committed.
#[derive(Default, Debug)]
pub struct Outbox {
    /// The commit must be durable before anything below is said.
    pub sync: bool,
    pub sends: Vec<(NodeId, Traffic, PeerMessage)>,
    pub replies: Vec<(DoorTicket, Response)>,
    pub pages: Vec<(DoorTicket, Result<ScanPage, RequestError>)>,
}

/// Which budget a message is sent from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// Somebody waits for it.
    Foreground,
    /// Repair, hints, reports.
    Background,
}

/// What a lane must know of its node and its settings.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    pub me: NodeId,
    /// This lane's number and how many there are: it keeps the partitions with `partition % lanes == lane`.
    pub lane: u16,
    pub lanes: u16,
    pub key_size_max: u64,
    pub value_size_max: u64,
    pub siblings_max: u64,
    /// Bytes of hints this lane may keep.
    pub hint_bytes_max: u64,
    /// Requests under way in this lane; more are refused as overloaded.
    pub requests_max: usize,
    /// How far ahead of this machine's clock a stamp may be, in milliseconds.
    pub clock_ahead_max_ms: u64,
    /// How long a client's operation id is remembered, in milliseconds.
    pub op_id_window_ms: u64,
    /// How often replicas tell each other what they have seen, in microseconds.
    pub exchange_interval_us: u64,
    /// An owner that has not acknowledged for this long gets a stand-in, in microseconds.
    pub stand_in_after_us: u64,
    pub default_consistency: Consistency,
    /// The log, which has the operation ids, is kept for at least this long after every owner has it, in microseconds: a door's retry
    /// may be under way.
    pub log_keep_us: u64,
    /// What was sent or begun this long ago has arrived or ended, in microseconds. No request lives longer. Delete rows wait for it.
    pub settle_us: u64,
    /// How long a partition rests between two rounds of dropping what nobody needs any more, in microseconds.
    pub collect_rest_us: u64,
    /// How often all rows are compared between owners, in microseconds; 0: only when asked for.
    pub scrub_interval_us: u64,
    /// A member that is away for longer is fenced, in microseconds; 0: never.
    pub horizon_us: u64,
    /// What this node's data lie in.
    pub store: StoreId,
    /// How fast the rows of full syncs may come in, in bytes a second; 0: as fast as they can.
    pub sync_bytes_per_second: u64,
    /// Bytes of one page of log rows, rows or hints.
    pub page_bytes: usize,
    /// Bytes of objects that this lane may remember rather than read again.
    pub objects_bytes: u64,
    /// By which they are hashed: unknown to clients, so that they cannot choose keys that collide.
    pub seed: u64,
    /// A rule to break, for the simulator.
    pub planted: Planted,
}

impl ShardOptions {
    /// The defaults of `deploy/node.toml`, for one lane.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            lane: 0,
            lanes: 1,
            key_size_max: 32 << 10,
            value_size_max: 8 << 20,
            siblings_max: 64,
            hint_bytes_max: 1 << 30,
            requests_max: 16 << 10,
            clock_ahead_max_ms: 500,
            op_id_window_ms: 600_000,
            exchange_interval_us: 1_000_000,
            stand_in_after_us: 250_000,
            default_consistency: Consistency::default(),
            log_keep_us: 10_000_000,
            settle_us: 10_000_000,
            collect_rest_us: 20_000_000,
            scrub_interval_us: 24 * 3_600 * 1_000_000,
            horizon_us: 0,
            sync_bytes_per_second: 0,
            store: StoreId::default(),
            page_bytes: 256 << 10,
            objects_bytes: 1 << 20,
            seed: 0,
            planted: Planted::None,
        }
    }
}

/// Plain counters since the start, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    counts: HashMap<&'static str, u64, BuildHasherDefault<NameHasher>>,
}

impl Stats {
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.counts.entry(name).or_insert(0) += count;
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let mut counts: Vec<_> = self.counts.iter().map(|(name, count)| (*name, *count)).collect();
        counts.sort_unstable();
        counts.into_iter()
    }

    pub fn get(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// Names are our own: nobody chooses them to collide. Every request counts several things.
#[derive(Clone, Default)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    fn write_u8(&mut self, _: u8) {
        // What ends a string.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
