//! Which faults are on: orders and time in, rules and the clock's error out. Touches nothing.

use std::collections::BTreeMap;

use crate::data::id::NodeId;
use crate::net::fault::Rule;
use crate::wire::fault::{
    CLOCK_MAX_MS, ClockFault, DELAY_MAX_US, Doom, FAULT_MAX_MS, FaultOrder, NetworkFault, PAUSE_MAX_MS, PPM_MAX,
};

/// Faults in one order; there are fewer kinds.
const FAULTS_MAX: usize = 16;

/// Bounded by the peers times the kinds of faults.
#[derive(Debug, Default)]
pub struct Plan {
    network: BTreeMap<(NodeId, Kind), Held<NetworkFault>>,
    clock: Option<Held<i64>>,
}

#[derive(Clone, Copy, Debug)]
struct Held<T> {
    what: T,
    /// On the monotonic clock; `None`: until it is healed.
    until_us: Option<u64>,
}

/// What a later fault takes the place of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    CutOut,
    CutIn,
    Loss,
    Duplicate,
    Delay,
    Jitter,
}

impl Kind {
    fn of(fault: NetworkFault) -> Self {
        match fault {
            NetworkFault::CutOut => Self::CutOut,
            NetworkFault::CutIn => Self::CutIn,
            NetworkFault::Loss { .. } => Self::Loss,
            NetworkFault::Duplicate { .. } => Self::Duplicate,
            NetworkFault::Delay { .. } => Self::Delay,
            NetworkFault::Jitter { .. } => Self::Jitter,
        }
    }
}

impl Plan {
    /// Takes an order, or says why not and changes nothing. What is to be done at once is given back. `is_peer` knows the other
    /// members of the layout.
    pub fn take(
        &mut self,
        now_us: u64,
        order: &FaultOrder,
        is_peer: impl Fn(NodeId) -> bool,
    ) -> Result<Option<Doom>, String> {
        match order {
            FaultOrder::Network { peers, faults, for_ms } => {
                let until_us = until_us(now_us, *for_ms)?;
                if peers.is_empty() || faults.is_empty() || faults.len() > FAULTS_MAX {
                    return Err(format!("name at least one peer and 1 to {FAULTS_MAX} faults"));
                }
                if let Some(stranger) = peers.iter().find(|peer| !is_peer(**peer)) {
                    return Err(format!("{stranger} is no other member of the layout"));
                }
                faults.iter().try_for_each(|fault| judge(*fault))?;
                for peer in peers {
                    for fault in faults {
                        let at = (*peer, Kind::of(*fault));
                        if is_off(*fault) {
                            self.network.remove(&at);
                        } else {
                            self.network.insert(at, Held { what: *fault, until_us });
                        }
                    }
                }
                Ok(None)
            }
            FaultOrder::Heal => {
                *self = Self::default();
                Ok(None)
            }
            FaultOrder::HealPeers { peers } => {
                self.network.retain(|(peer, _), _| !peers.contains(peer));
                Ok(None)
            }
            FaultOrder::Clock { offset_ms, for_ms } => {
                let until_us = until_us(now_us, *for_ms)?;
                if offset_ms.unsigned_abs() > CLOCK_MAX_MS.unsigned_abs() {
                    return Err(format!("the clock is put at most {CLOCK_MAX_MS} ms off, not {offset_ms}"));
                }
                self.clock = (*offset_ms != 0).then_some(Held { what: *offset_ms, until_us });
                Ok(None)
            }
            FaultOrder::Pause { for_ms } if *for_ms == 0 || *for_ms > PAUSE_MAX_MS => {
                Err(format!("a pause lasts 1 to {PAUSE_MAX_MS} ms, not {for_ms}"))
            }
            FaultOrder::Pause { for_ms } => Ok(Some(Doom::Pause { for_ms: *for_ms })),
            FaultOrder::Kill => Ok(Some(Doom::Kill)),
            FaultOrder::Wipe => Ok(Some(Doom::Wipe)),
        }
    }

    /// Ends what has lasted long enough. True: something did.
    pub fn expire(&mut self, now_us: u64) -> bool {
        let before = (self.network.len(), self.clock.is_some());
        self.network.retain(|_, held| held.until_us.is_none_or(|until_us| until_us > now_us));
        self.clock = self.clock.filter(|held| held.until_us.is_none_or(|until_us| until_us > now_us));
        before != (self.network.len(), self.clock.is_some())
    }

    /// When the next fault ends by itself.
    pub fn poll_timeout(&self) -> Option<u64> {
        let network = self.network.values().filter_map(|held| held.until_us);
        network.chain(self.clock.and_then(|held| held.until_us)).min()
    }

    /// What is to happen to packets, by peer.
    pub fn rules(&self) -> BTreeMap<NodeId, Rule> {
        let mut rules: BTreeMap<NodeId, Rule> = BTreeMap::new();
        for ((peer, _), held) in &self.network {
            let rule = rules.entry(*peer).or_default();
            match held.what {
                NetworkFault::CutOut => rule.cut_out = true,
                NetworkFault::CutIn => rule.cut_in = true,
                NetworkFault::Loss { ppm } => rule.loss_ppm = ppm,
                NetworkFault::Duplicate { ppm } => rule.duplicate_ppm = ppm,
                NetworkFault::Delay { us } => rule.delay_us = us,
                NetworkFault::Jitter { us } => rule.jitter_us = us,
            }
        }
        rules
    }

    /// Peer, fault and the milliseconds that it still lasts.
    pub fn network(&self, now_us: u64) -> impl Iterator<Item = (NodeId, NetworkFault, Option<u64>)> {
        self.network.iter().map(move |((peer, _), held)| (*peer, held.what, held.left_ms(now_us)))
    }

    pub fn clock(&self, now_us: u64) -> Option<ClockFault> {
        self.clock.map(|held| ClockFault { offset_ms: held.what, left_ms: held.left_ms(now_us) })
    }

    pub fn clock_offset_ms(&self) -> i64 {
        self.clock.map_or(0, |held| held.what)
    }
}

impl<T> Held<T> {
    fn left_ms(&self, now_us: u64) -> Option<u64> {
        self.until_us.map(|until_us| until_us.saturating_sub(now_us).div_ceil(1_000))
    }
}

fn until_us(now_us: u64, for_ms: Option<u64>) -> Result<Option<u64>, String> {
    match for_ms {
        Some(for_ms) if for_ms == 0 || for_ms > FAULT_MAX_MS => {
            Err(format!("a fault lasts 1 to {FAULT_MAX_MS} ms, or without a time until it is healed; not {for_ms}"))
        }
        for_ms => Ok(for_ms.map(|for_ms| now_us + for_ms * 1_000)),
    }
}

fn judge(fault: NetworkFault) -> Result<(), String> {
    match fault {
        NetworkFault::Loss { ppm } | NetworkFault::Duplicate { ppm } if ppm > PPM_MAX => {
            Err(format!("{ppm} of a million packets is more than all"))
        }
        NetworkFault::Delay { us } | NetworkFault::Jitter { us } if us > DELAY_MAX_US => {
            Err(format!("a packet is delayed by {DELAY_MAX_US} us at most, not {us}"))
        }
        _ => Ok(()),
    }
}

/// It says that nothing of the kind is to happen any more.
fn is_off(fault: NetworkFault) -> bool {
    match fault {
        NetworkFault::CutOut | NetworkFault::CutIn => false,
        NetworkFault::Loss { ppm } | NetworkFault::Duplicate { ppm } => ppm == 0,
        NetworkFault::Delay { us } | NetworkFault::Jitter { us } => us == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);
    const OTHER: NodeId = NodeId(3);

    fn take(plan: &mut Plan, now_us: u64, order: FaultOrder) -> Result<Option<Doom>, String> {
        plan.take(now_us, &order, |node| [PEER, OTHER].contains(&node))
    }

    fn network(faults: impl IntoIterator<Item = NetworkFault>, for_ms: Option<u64>) -> FaultOrder {
        FaultOrder::network([PEER], faults, for_ms)
    }

    #[test]
    fn each_kind_of_fault_stands_by_itself_and_a_later_one_takes_its_place() {
        let mut plan = Plan::default();
        take(&mut plan, 0, network([NetworkFault::Loss { ppm: 10 }, NetworkFault::Delay { us: 5 }], None)).unwrap();
        take(&mut plan, 0, network([NetworkFault::Loss { ppm: 20 }], None)).unwrap();
        take(&mut plan, 0, FaultOrder::cut([OTHER], None)).unwrap();
        let rules = plan.rules();
        assert_eq!(rules[&PEER], Rule { loss_ppm: 20, delay_us: 5, ..Rule::default() });
        assert_eq!(rules[&OTHER], Rule { cut_out: true, cut_in: true, ..Rule::default() });
        take(&mut plan, 0, network([NetworkFault::Loss { ppm: 0 }, NetworkFault::Delay { us: 0 }], None)).unwrap();
        assert_eq!(plan.rules().keys().collect::<Vec<_>>(), [&OTHER]);
        take(&mut plan, 0, FaultOrder::cut([PEER], None)).unwrap();
        take(&mut plan, 0, FaultOrder::HealPeers { peers: vec![OTHER] }).unwrap();
        assert_eq!(plan.rules().keys().collect::<Vec<_>>(), [&PEER]);
        take(&mut plan, 0, FaultOrder::Heal).unwrap();
        assert!(plan.rules().is_empty());
    }

    #[test]
    fn what_was_given_a_time_ends_by_itself_and_the_rest_stays() {
        let mut plan = Plan::default();
        take(&mut plan, 1_000, FaultOrder::cut([PEER], Some(20))).unwrap();
        take(&mut plan, 1_000, network([NetworkFault::Loss { ppm: 7 }], None)).unwrap();
        take(&mut plan, 1_000, FaultOrder::Clock { offset_ms: -5_000, for_ms: Some(10) }).unwrap();
        assert_eq!(plan.poll_timeout(), Some(11_000));
        assert_eq!(plan.clock(6_000), Some(ClockFault { offset_ms: -5_000, left_ms: Some(5) }));
        assert!(!plan.expire(10_999));
        assert!(plan.expire(11_000));
        assert_eq!((plan.clock_offset_ms(), plan.poll_timeout()), (0, Some(21_000)));
        assert!(plan.expire(21_000));
        assert_eq!(plan.rules()[&PEER], Rule { loss_ppm: 7, ..Rule::default() });
        assert_eq!(plan.poll_timeout(), None);
        assert_eq!(plan.network(99).collect::<Vec<_>>(), [(PEER, NetworkFault::Loss { ppm: 7 }, None)]);
    }

    #[test]
    fn a_wrong_order_changes_nothing_and_says_what_is_right() {
        let mut plan = Plan::default();
        take(&mut plan, 0, FaultOrder::cut([PEER], None)).unwrap();
        let before = plan.rules();
        for (order, told) in [
            (FaultOrder::cut([], None), "at least one peer"),
            (network([], None), "at least one peer"),
            (FaultOrder::cut([NodeId(1)], None), "no other member"),
            (FaultOrder::cut([OTHER], Some(0)), "a fault lasts 1 to 86400000 ms"),
            (FaultOrder::cut([OTHER], Some(FAULT_MAX_MS + 1)), "a fault lasts 1 to 86400000 ms"),
            (network([NetworkFault::Loss { ppm: PPM_MAX + 1 }], None), "more than all"),
            (network([NetworkFault::Delay { us: DELAY_MAX_US + 1 }], None), "delayed by 10000000 us at most"),
            (FaultOrder::Pause { for_ms: 0 }, "a pause lasts 1 to 600000 ms"),
            (FaultOrder::Pause { for_ms: PAUSE_MAX_MS + 1 }, "a pause lasts"),
            (FaultOrder::Clock { offset_ms: CLOCK_MAX_MS + 1, for_ms: None }, "at most 86400000 ms off"),
            (FaultOrder::Clock { offset_ms: i64::MIN, for_ms: None }, "at most 86400000 ms off"),
            (FaultOrder::Clock { offset_ms: 1, for_ms: Some(0) }, "a fault lasts"),
        ] {
            let error = take(&mut plan, 0, order.clone()).expect_err(&format!("{order:?}"));
            assert!(error.contains(told), "{order:?}: {error}");
            assert_eq!((plan.rules(), plan.clock_offset_ms()), (before.clone(), 0), "{order:?}");
        }
    }

    #[test]
    fn what_is_done_at_once_is_given_back_and_no_state() {
        let mut plan = Plan::default();
        assert_eq!(take(&mut plan, 0, FaultOrder::Pause { for_ms: 9 }), Ok(Some(Doom::Pause { for_ms: 9 })));
        assert_eq!(take(&mut plan, 0, FaultOrder::Kill), Ok(Some(Doom::Kill)));
        assert_eq!(take(&mut plan, 0, FaultOrder::Wipe), Ok(Some(Doom::Wipe)));
        assert!(plan.rules().is_empty() && plan.clock(0).is_none());
    }
}
