//! When to try again, and when not to. Pure: the time and the dice are handed in.

/// How long waits grow: up to `first_ms`, `2 first_ms`, `4 first_ms` ... up to `most_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first_ms: u64,
    pub most_ms: u64,
}

impl Backoff {
    /// Milliseconds to wait after `failures` failures in a row: anything between 0 and a bound that doubles with each ("full jitter").
    /// Those who failed together must not come back together. `random`: 64 random bits.
    pub fn wait_ms(&self, failures: u32, random: u64) -> u64 {
        let doubled = self.first_ms.saturating_mul(1 << failures.saturating_sub(1).min(32));
        let bound = doubled.min(self.most_ms);
        ((u128::from(random) * (u128::from(bound) + 1)) >> 64) as u64
    }
}

/// What a circuit breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// All: it works.
    Closed,
    /// Nothing: it has failed too often in a row.
    Open,
    /// One try, whose outcome decides.
    HalfOpen,
}

/// A circuit breaker: after `threshold` failures in a row it refuses at once what would most likely fail late, and lets one try
/// through when its wait is over.
#[derive(Clone, Debug)]
pub struct Breaker {
    threshold: u32,
    backoff: Backoff,
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open {
        until_us: u64,
    },
    /// A try is under way; should its outcome never be told, another is let through after this.
    HalfOpen {
        until_us: u64,
    },
}

impl Breaker {
    pub fn new(threshold: u32, backoff: Backoff) -> Self {
        Self { threshold: threshold.max(1), backoff, failures: 0, state: State::Closed }
    }

    /// Whether to try now. A yes while not closed makes this the one try.
    pub fn admit(&mut self, now_us: u64) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until_us } | State::HalfOpen { until_us } if now_us < until_us => false,
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until_us: now_us.saturating_add(self.backoff.most_ms * 1000) };
                true
            }
        }
    }

    /// It worked.
    pub fn succeed(&mut self) {
        self.failures = 0;
        self.state = State::Closed;
    }

    /// It failed.
    pub fn fail(&mut self, now_us: u64, random: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.threshold {
            let wait_ms = self.backoff.wait_ms(self.failures, random);
            self.state = State::Open { until_us: now_us.saturating_add(wait_ms * 1000) };
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first_ms: 50, most_ms: 2_000 };

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn waits_double_up_to_a_bound(failures in 1_u32..100, random in any::<u64>()) {
            let bound = 50_u64.saturating_mul(1 << (failures - 1).min(20)).min(2_000);
            prop_assert!(BACKOFF.wait_ms(failures, random) <= bound);
            prop_assert_eq!(BACKOFF.wait_ms(failures, u64::MAX), bound);
            prop_assert_eq!(BACKOFF.wait_ms(failures, 0), 0);
        }
    }

    #[test]
    fn it_opens_lets_one_through_and_closes_again() {
        let mut breaker = Breaker::new(3, BACKOFF);
        for _ in 0..2 {
            breaker.fail(0, u64::MAX);
            assert!(breaker.admit(0), "two failures are no reason yet");
        }
        breaker.fail(0, u64::MAX);
        assert_eq!(breaker.circuit(), Circuit::Open);
        assert!(!breaker.admit(199_999));
        assert!(breaker.admit(200_000), "the wait of the third failure is over");
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        assert!(!breaker.admit(200_001), "one try at a time");
        breaker.fail(300_000, u64::MAX);
        assert!(!breaker.admit(699_999), "the next wait is longer");
        assert!(breaker.admit(700_000));
        breaker.succeed();
        assert_eq!((breaker.circuit(), breaker.failures()), (Circuit::Closed, 0));
    }

    #[test]
    fn a_try_that_never_reports_does_not_close_the_door_for_good() {
        let mut breaker = Breaker::new(1, BACKOFF);
        breaker.fail(0, u64::MAX);
        assert!(breaker.admit(50_000));
        assert!(!breaker.admit(50_001));
        assert!(breaker.admit(2_050_000));
    }
}
