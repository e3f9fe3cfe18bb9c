//! Which node next, after how long a pause, and whether another try may be made at all. Pure: what is known comes in, a choice
//! comes out.

use std::time::Duration;

use crate::data::op::RequestError;

/// One member as the client sees it when it chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hop {
    /// Position among the key's owners; `None`: no owner, or the question is about no key.
    pub owner: Option<usize>,
    /// The cluster says that it is up.
    pub up: bool,
    /// It has answered this client of late, whatever others say of it: they may be cut off from it themselves.
    pub answers: bool,
    /// This client has had no answer from it lately and leaves it alone for a while.
    pub resting: bool,
    /// It answers this client, and is cut off from owners.
    pub isolated: bool,
    /// How often this very request has failed there.
    pub failures: u32,
}

impl Hop {
    fn is_up(&self) -> bool {
        self.up || self.answers
    }

    /// May it well give no answer at all?
    pub fn may_be_silent(&self) -> bool {
        !self.answers && (!self.up || self.resting)
    }
}

/// Does what a node says tell that it is cut off? It reaches no more than half of the owners, or no more of them have answered it, which is
/// all that it knows of a partition at first; whoever asks for all of them is told so by each node, and none is the worse for it.
pub fn is_isolated(error: &RequestError, replicas: u8) -> bool {
    match error {
        RequestError::Unavailable { reachable: reached, .. } => !is_most(usize::from(*reached), replicas),
        RequestError::Timeout { needed: 2.., got, .. } => !is_most(usize::from(*got), replicas),
        _ => false,
    }
}

/// So many owners are more than half of them.
pub fn is_most(owners: usize, replicas: u8) -> bool {
    owners * 2 > usize::from(replicas)
}

/// The member to try: one that has failed this request least, that is up and answers, an owner before others. Among equals the
/// choice follows `spread`, so that the requests of many keys and clients are shared by all. A member that is down or resting is
/// worth less than two failures, not nothing: what is known may be old. One that is cut off answers, at least, and may do what needs no
/// others: before one that has failed. `None` when there are no members.
pub fn next_hop(hops: &[Hop], spread: u64) -> Option<usize> {
    let owners = hops.iter().filter(|hop| hop.owner.is_some()).count();
    let turned = |position: usize, among: usize| match among as u64 {
        0 => 0,
        among => (position as u64).wrapping_add(spread) % among,
    };
    (0..hops.len()).min_by_key(|&at| {
        let hop = hops[at];
        let doubtful = !hop.is_up() || hop.resting;
        let turn = match hop.owner {
            Some(position) => turned(position, owners),
            None => turned(at, hops.len()),
        };
        let failures = hop.failures.saturating_add(2 * u32::from(doubtful));
        (failures, hop.isolated, hop.owner.is_none(), turn, at)
    })
}

/// The pause before try number `attempt` (the first retry is 1): uniform between nothing and `base * 2^(attempt - 1)`, at most
/// `cap` (full jitter). `random` is 64 random bits.
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub fn backoff(attempt: u32, base: Duration, cap: Duration, random: u64) -> Duration {
    let doubled = base.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    let most_us = u64::try_from(doubled.min(cap).as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random % most_us.saturating_add(1))
}

/// How many members besides the one at `chosen` have not failed this request and look well.
pub fn others_to_try(hops: &[Hop], chosen: Option<usize>) -> usize {
    let is_hope = |hop: &Hop| hop.is_up() && !hop.resting && !hop.isolated && hop.failures == 0;
    hops.iter().enumerate().filter(|(at, hop)| Some(*at) != chosen && is_hope(hop)).count()
}

/// Members that keep their share of a call's time while others are tried before them: with three owners, all of them.
const OTHERS_MAX: usize = 2;

/// How long try number `attempt` (the first is 0) may take: `first`, doubled with each try so that a large value on a slow way
/// gets through in the end, and all that is left when what remained would be too short for another. But never so long that
/// nothing is left for the `others` that are yet to be tried: two nodes that are away must not cost the call that the third can meet.
pub fn allowance(attempt: u32, first: Duration, left: Duration, others: usize) -> Duration {
    let wanted = first.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
    let all = if left < wanted + wanted / 2 { left } else { wanted };
    all.min(left / (1 + others.min(OTHERS_MAX) as u32))
}

/// A token bucket for retries: each first try brings a tenth of a token, time brings ten a second, each retry takes one. When a
/// cluster is in trouble its clients then ask a tenth more of it, and not several times as much.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    tenths: u64,
    tenths_max: u64,
    refilled_ms: u64,
}

const TENTHS_PER_RETRY: u64 = 10;
const MS_PER_TENTH: u64 = 10;

impl RetryBudget {
    /// A full bucket of `burst` retries. `now_ms` here and below: milliseconds on any clock that does not go back.
    pub fn new(burst: u32, now_ms: u64) -> Self {
        let tenths = u64::from(burst.max(1)) * TENTHS_PER_RETRY;
        Self { tenths, tenths_max: tenths, refilled_ms: now_ms }
    }

    /// A first try was made.
    pub fn handle_first_try(&mut self) {
        self.tenths = (self.tenths + 1).min(self.tenths_max);
    }

    /// Takes a token. `Err`: how many milliseconds until time alone will have brought one.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        let brought = now_ms.saturating_sub(self.refilled_ms) / MS_PER_TENTH;
        self.tenths = self.tenths.saturating_add(brought).min(self.tenths_max);
        self.refilled_ms += brought * MS_PER_TENTH;
        if self.tenths < TENTHS_PER_RETRY {
            return Err((TENTHS_PER_RETRY - self.tenths) * MS_PER_TENTH);
        }
        self.tenths -= TENTHS_PER_RETRY;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(owner: Option<usize>) -> Hop {
        Hop { owner, up: true, ..Hop::default() }
    }

    #[test]
    fn an_owner_that_is_up_comes_first() {
        let hops = [up(None), up(Some(1)), Hop { up: false, ..up(Some(0)) }];
        for spread in 0..5 {
            assert_eq!(next_hop(&hops, spread), Some(1));
        }
        assert_eq!(next_hop(&[], 7), None);
    }

    #[test]
    fn a_failed_owner_yields_to_another_and_then_to_anybody() {
        let mut hops = [up(Some(0)), up(Some(1)), up(None)];
        let first = next_hop(&hops, 0).expect("a hop");
        hops[first].failures = 1;
        let second = next_hop(&hops, 0).expect("a hop");
        assert!(second != first && second < 2);
        hops[second].failures = 1;
        assert_eq!(next_hop(&hops, 0), Some(2));
    }

    #[test]
    fn whoever_is_said_to_be_down_is_tried_when_the_others_failed_too_often() {
        let mut hops = [up(Some(0)), Hop { up: false, ..up(Some(1)) }, Hop { resting: true, ..up(Some(2)) }];
        let mut tried = Vec::new();
        for _ in 0..6 {
            let hop = next_hop(&hops, 0).expect("a hop");
            hops[hop].failures += 1;
            tried.push(hop);
        }
        assert_eq!(&tried[..2], [0, 0]);
        assert!(tried.contains(&1) && tried.contains(&2), "{tried:?}");
    }

    #[test]
    fn owners_share_the_work() {
        let hops = [up(Some(0)), up(Some(1)), up(Some(2)), up(None)];
        let mut counts = [0; 4];
        for spread in 0..300 {
            counts[next_hop(&hops, spread).expect("a hop")] += 1;
        }
        assert_eq!(counts, [100, 100, 100, 0]);
    }

    #[test]
    fn pauses_grow_to_a_cap_and_are_jittered() {
        let (base, cap) = (Duration::from_millis(10), Duration::from_secs(1));
        assert_eq!(backoff(1, base, cap, u64::MAX % 10_001), backoff(1, base, cap, u64::MAX));
        for attempt in 1..100 {
            for random in [0, 1, 9_999, u64::MAX / 3, u64::MAX] {
                assert!(backoff(attempt, base, cap, random) <= cap);
            }
        }
        assert!(backoff(1, base, cap, u64::MAX) <= base);
        assert_eq!(backoff(3, base, cap, 40_000), Duration::from_millis(40));
    }

    #[test]
    fn tries_get_longer_and_the_last_gets_the_rest() {
        let first = Duration::from_secs(1);
        assert_eq!(allowance(0, first, Duration::from_secs(20), 0), first);
        assert_eq!(allowance(2, first, Duration::from_secs(20), 0), Duration::from_secs(4));
        assert_eq!(allowance(0, first, Duration::from_millis(1_400), 0), Duration::from_millis(1_400));
        assert_eq!(allowance(60, first, Duration::from_secs(3), 0), Duration::from_secs(3));
        assert_eq!(allowance(0, first, Duration::from_secs(20), 9), first);
        assert_eq!(allowance(0, first, Duration::from_millis(1_500), 2), Duration::from_millis(500));
        assert_eq!(allowance(1, first, Duration::from_millis(1_000), 1), Duration::from_millis(500));
        assert_eq!(allowance(0, first, Duration::from_millis(1_500), 9), Duration::from_millis(500));
    }

    #[test]
    fn only_those_who_look_well_are_others_to_try() {
        let hops = [up(Some(0)), Hop { failures: 1, ..up(None) }, Hop { up: false, ..up(None) }, up(None)];
        assert_eq!(others_to_try(&hops, Some(0)), 1);
        assert_eq!(others_to_try(&hops, Some(1)), 2);
        assert_eq!(others_to_try(&hops, None), 2);
        assert_eq!(others_to_try(&[Hop { resting: true, ..up(None) }], None), 0);
    }

    #[test]
    fn retries_are_a_tenth_of_the_tries_in_the_long_run() {
        let mut budget = RetryBudget::new(5, 0);
        let burst = (0..100).filter(|_| budget.take(0).is_ok()).count();
        assert_eq!(burst, 5);
        assert_eq!(budget.take(0), Err(100));
        for _ in 0..30 {
            budget.handle_first_try();
        }
        assert_eq!((0..100).filter(|_| budget.take(0).is_ok()).count(), 3);
        assert_eq!((0..100).filter(|_| budget.take(200).is_ok()).count(), 2, "ten a second come by themselves");
        assert_eq!(
            (0..100).filter(|_| budget.take(1_000_000).is_ok()).count(),
            5,
            "and no more than the burst is kept"
        );
    }
}
