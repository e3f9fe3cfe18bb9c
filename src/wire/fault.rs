//! Faults on demand: what a node that was started with `allow_faults` is told to suffer, and what it says of it.
//!
//! Each fault stands by itself: a later order of the same kind (and about the same peer) takes the place of the earlier, all others
//! stay. Network faults touch what this node and the named peers say to each other and nothing else, clients least of all. Loss,
//! duplicates, delay and jitter hit what goes out; for both directions tell both nodes.

use serde::{Deserialize, Serialize};

use crate::data::id::NodeId;

/// The longest that a fault may be told to last; without a time it lasts until it is healed.
pub const FAULT_MAX_MS: u64 = 24 * 3_600_000;
/// The longest pause. Nothing can be asked of a node meanwhile, not even to go on.
pub const PAUSE_MAX_MS: u64 = 600_000;
/// The farthest that the wall clock may be put from the machine's, either way.
pub const CLOCK_MAX_MS: i64 = 24 * 3_600_000;
/// The longest delay of a packet, and the most jitter.
pub const DELAY_MAX_US: u32 = 10_000_000;
/// Parts per million: all.
pub const PPM_MAX: u32 = 1_000_000;

/// What a node is to suffer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FaultOrder {
    /// Between this node and these peers.
    Network {
        peers: Vec<NodeId>,
        faults: Vec<NetworkFault>,
        /// Heals by itself after this; `None`: when it is healed.
        for_ms: Option<u64>,
    },
    /// All network faults end, and the clock is the machine's again.
    Heal,
    /// What this node does to its traffic with these peers ends.
    HealPeers { peers: Vec<NodeId> },
    /// The whole process stands still: it holds its memory, its sockets and its locks, and answers nothing.
    Pause { for_ms: u64 },
    /// The process is gone at once, as by `kill -9`. Answered a moment before.
    Kill,
    /// As `Kill`, and the disk is lost: the next start with `allow_faults` begins with an empty store.
    Wipe,
    /// The wall clock is put this far from the machine's; the clock that timeouts are counted by is not touched.
    Clock { offset_ms: i64, for_ms: Option<u64> },
}

/// One thing that happens to packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum NetworkFault {
    /// Nothing goes out.
    CutOut,
    /// Nothing comes in.
    CutIn,
    /// So many of a million outgoing packets are lost.
    Loss { ppm: u32 },
    /// So many of a million outgoing packets are sent twice.
    Duplicate { ppm: u32 },
    /// Outgoing packets leave so much later.
    Delay { us: u32 },
    /// Added to the delay of each outgoing packet, between 0 and this: it is what reorders packets.
    Jitter { us: u32 },
}

/// The faults of a node that allows them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FaultStatus {
    pub network: Vec<PeerFault>,
    pub clock: Option<ClockFault>,
    /// What happens a moment after this answer.
    pub soon: Option<Doom>,
    /// Since the start.
    pub counts: FaultCounts,
}

/// A network fault that is on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerFault {
    pub peer: NodeId,
    /// The peer's name.
    pub name: String,
    pub fault: NetworkFault,
    /// `None`: until it is healed.
    pub left_ms: Option<u64>,
}

/// The wall clock is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClockFault {
    pub offset_ms: i64,
    pub left_ms: Option<u64>,
}

/// What a node does as soon as it has said so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Doom {
    Pause { for_ms: u64 },
    Kill,
    Wipe,
}

/// Packets that were hit.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts {
    pub lost: u64,
    pub duplicated: u64,
    pub delayed: u64,
    pub cut: u64,
    /// Lost because too many were delayed already, or because the kernel had no room.
    pub overflowed: u64,
}

impl FaultOrder {
    /// No packet passes between the node that is told and these peers, in either direction.
    pub fn cut(peers: impl IntoIterator<Item = NodeId>, for_ms: Option<u64>) -> Self {
        Self::network(peers, [NetworkFault::CutOut, NetworkFault::CutIn], for_ms)
    }

    pub fn network(
        peers: impl IntoIterator<Item = NodeId>,
        faults: impl IntoIterator<Item = NetworkFault>,
        for_ms: Option<u64>,
    ) -> Self {
        Self::Network { peers: peers.into_iter().collect(), faults: faults.into_iter().collect(), for_ms }
    }

    /// Is doing it twice the same as doing it once? Others must not be repeated when no answer came.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Network { .. } | Self::Heal | Self::HealPeers { .. } | Self::Clock { .. })
    }
}

impl FaultStatus {
    /// Nothing is wrong on purpose.
    pub fn is_healed(&self) -> bool {
        self.network.is_empty() && self.clock.is_none() && self.soon.is_none()
    }
}
