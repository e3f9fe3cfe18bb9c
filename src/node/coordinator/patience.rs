//! Patience: after what time a peer counts as slow, and who has been silent for so long that nobody waits for it any more.
//!
//! SWIM takes seconds to say that a member is down, and until then it is asked like any other. A coordinator that waited for it with every
//! request would do so a hundred times; here it learns from the first, and once in a while from another. Whoever is silent is still sent
//! what concerns it, and its first word of any kind ends it. These are reasons to ask somebody else first, never to hold anything for true.

use std::collections::BTreeMap;

use crate::data::id::NodeId;

/// A hedge is never sent sooner than this, nor later.
const HEDGE_MIN_US: u64 = 2_000;
const HEDGE_MAX_US: u64 = 100_000;
/// Of a peer that has answered nothing yet.
const HIGH_FIRST_US: u64 = 20_000;
/// Nothing heard for this long since a question that was not answered in time: silent.
const SILENT_US: u64 = 50_000;
/// After this long without another miss it is waited for again: a single answer that was lost must not cost a peer its trust for good
/// where there is little to say.
const SILENT_LAPSE_US: u64 = 1_000_000;

#[derive(Default)]
pub(super) struct Patience {
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    /// Its recent 99th percentile, by stochastic approximation: up by much when exceeded, down by little when not.
    high_us: u64,
    heard_us: u64,
    /// When it was asked what it has not answered, if nothing has been heard of it since.
    owes_since_us: Option<u64>,
    /// When it was last found to owe something.
    missed_us: u64,
}

impl Patience {
    /// It said something.
    pub(super) fn heard(&mut self, node: NodeId, now_us: u64) {
        let peer = self.peer(node);
        peer.heard_us = now_us;
        peer.owes_since_us = None;
    }

    /// It answered a question.
    pub(super) fn answered(&mut self, node: NodeId, took_us: u64) {
        let peer = self.peer(node);
        let step = (peer.high_us / 64).max(10);
        if took_us > peer.high_us {
            peer.high_us = peer.high_us.saturating_add(step * 8).min(took_us.max(peer.high_us));
        } else {
            peer.high_us = peer.high_us.saturating_sub(step / 12);
        }
    }

    /// It has not answered in time what it was asked at `asked_us`.
    pub(super) fn missed(&mut self, node: NodeId, asked_us: u64, now_us: u64) {
        let peer = self.peer(node);
        if peer.heard_us <= asked_us {
            peer.owes_since_us.get_or_insert(asked_us);
            peer.missed_us = now_us;
        }
    }

    pub(super) fn is_silent(&self, node: NodeId, now_us: u64) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        let Some(owes_since_us) = peer.owes_since_us else { return false };
        now_us.saturating_sub(owes_since_us) >= SILENT_US && now_us.saturating_sub(peer.missed_us) < SILENT_LAPSE_US
    }

    /// After what time somebody of these is slow.
    pub(super) fn hedge_us(&self, asked: impl IntoIterator<Item = NodeId>) -> u64 {
        let high_us = |node| self.peers.get(&node).map_or(HIGH_FIRST_US, |peer| peer.high_us);
        asked.into_iter().map(high_us).max().unwrap_or(HEDGE_MAX_US).clamp(HEDGE_MIN_US, HEDGE_MAX_US)
    }

    fn peer(&mut self, node: NodeId) -> &mut Peer {
        let first = || Peer { high_us: HIGH_FIRST_US, heard_us: 0, owes_since_us: None, missed_us: 0 };
        self.peers.entry(node).or_insert_with(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_owes_an_answer_is_silent_after_a_while_until_its_next_word() {
        let node = NodeId(7);
        let mut patience = Patience::default();
        patience.heard(node, 1_000);
        patience.missed(node, 2_000, 12_000);
        patience.missed(node, 30_000, 40_000);
        assert!(!patience.is_silent(node, 2_000 + SILENT_US - 1));
        assert!(patience.is_silent(node, 2_000 + SILENT_US), "counted from the first question that it owes");
        assert!(!patience.is_silent(node, 40_000 + SILENT_LAPSE_US), "it gets another chance");
        patience.missed(node, 41_000 + SILENT_LAPSE_US, 61_000 + SILENT_LAPSE_US);
        assert!(patience.is_silent(node, 61_000 + SILENT_LAPSE_US), "which it has not taken");
        patience.heard(node, 90_000 + SILENT_LAPSE_US);
        assert!(!patience.is_silent(node, 90_000 + SILENT_LAPSE_US));
        patience.missed(node, 80_000 + SILENT_LAPSE_US, 95_000 + SILENT_LAPSE_US);
        assert!(!patience.is_silent(node, 200_000 + SILENT_LAPSE_US), "it has said something since");
        assert!(!patience.is_silent(NodeId(8), 200_000), "nobody has asked it anything");
    }

    #[test]
    fn a_hedge_follows_the_slowest_within_its_bounds() {
        let (quick, slow) = (NodeId(1), NodeId(2));
        let mut patience = Patience::default();
        for _ in 0..10_000 {
            patience.answered(quick, 300);
            patience.answered(slow, 5_000_000);
        }
        assert_eq!(patience.hedge_us([quick]), HEDGE_MIN_US);
        assert_eq!(patience.hedge_us([quick, slow]), HEDGE_MAX_US);
        assert_eq!(patience.hedge_us([]), HEDGE_MAX_US);
        assert_eq!(patience.hedge_us([NodeId(3)]), HIGH_FIRST_US);
    }
}
