//! The only source of chance: a small generator of our own, so that a seed means the same on every machine and for ever.
//!
//! splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Every component has a stream of its
//! own, so that one more draw in one does not shift the others.

use crate::data::id::{hash64, mix64};

#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: mix64(seed ^ 0x5851_f42d_4c95_7f2d) }
    }

    /// A stream of its own, named. Drawing from it does not change this one.
    pub fn fork(&self, name: &str) -> Self {
        Self { state: mix64(self.state ^ hash64(name.as_bytes())) }
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.state)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64 }
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in `ppm` of a million cases.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// An index below `count`, small ones far more often than large ones.
    pub fn skewed(&mut self, count: u64) -> u64 {
        let first = self.below(count);
        if self.chance(500_000) { self.below(first + 1) } else { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_pinned_and_apart() {
        let mut one = Random::new(1);
        assert_eq!(one.fork("net").draw(), Random::new(1).fork("net").draw());
        assert_ne!(one.fork("net").draw(), one.fork("disk").draw());
        let drawn: Vec<u64> = (0..4).map(|_| one.below(1000)).collect();
        assert_eq!(drawn, {
            let mut again = Random::new(1);
            (0..4).map(|_| again.below(1000)).collect::<Vec<_>>()
        });
        assert!((0..1000).all(|_| (5..=9).contains(&one.between(5, 9))));
        assert!((0..1000).all(|_| one.skewed(3) < 3));
    }
}
