//! Time as data: both clocks are handed in, and the hybrid logical clock is arithmetic on them.
//!
//! Nothing but LWW order and expiry depends on the wall clock; timeouts use the monotonic one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::Incarnation;

/// Both clocks of one machine at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds on a clock that never goes back; its zero means nothing.
    pub mono_us: u64,
    /// Milliseconds since 1970 as this machine believes; may jump both ways.
    pub wall_ms: u64,
}

/// A hybrid logical time: milliseconds since 1970 in the upper 48 bits, a logical count in the lower 16.
/// Source: Kulkarni et al., "Logical Physical Clocks", 2014.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    pub fn from_wall_ms(wall_ms: u64) -> Self {
        Self(wall_ms << 16)
    }

    pub fn wall_ms(self) -> u64 {
        self.0 >> 16
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}+{}", self.wall_ms(), self.0 & 0xffff)
    }
}

/// Orders the writes of a register: unique per write, because one incarnation never gives the same time twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Stamp {
    pub hlc: Hlc,
    pub incarnation: Incarnation,
}

/// The clock that mints stamps.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// A time above everything this clock gave or observed, and above `observed`: `max(wall, last, observed) + 1`.
    pub fn tick(&mut self, now: Now, observed: Hlc) -> Hlc {
        let wall = Hlc::from_wall_ms(now.wall_ms);
        let above = self.last.max(observed).0 + 1;
        self.last = Hlc(wall.0.max(above));
        self.last
    }

    /// Takes note of a time seen elsewhere. Returns false, and changes nothing, when it is more than `bound_ms` ahead of this
    /// machine's wall clock: one node with a wild clock must not drag the others along.
    #[must_use]
    pub fn observe(&mut self, now: Now, seen: Hlc, bound_ms: u64) -> bool {
        if seen.wall_ms() > now.wall_ms.saturating_add(bound_ms) {
            return false;
        }
        self.last = self.last.max(seen);
        true
    }

    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_repeats_nor_goes_back_though_the_wall_does() {
        let mut clock = HybridClock::default();
        let first = clock.tick(Now { mono_us: 0, wall_ms: 5_000 }, Hlc(0));
        let second = clock.tick(Now { mono_us: 1, wall_ms: 1_000 }, Hlc(0));
        assert!(second > first);
        let third = clock.tick(Now { mono_us: 2, wall_ms: 1_000 }, Hlc::from_wall_ms(9_000));
        assert!(third > Hlc::from_wall_ms(9_000));
    }

    #[test]
    fn a_wild_clock_is_refused() {
        let mut clock = HybridClock::default();
        let now = Now { mono_us: 0, wall_ms: 1_000 };
        assert!(!clock.observe(now, Hlc::from_wall_ms(1_501), 500));
        assert!(clock.observe(now, Hlc::from_wall_ms(1_500), 500));
        assert!(clock.tick(now, Hlc(0)) > Hlc::from_wall_ms(1_500));
    }
}
