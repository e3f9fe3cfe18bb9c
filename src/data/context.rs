//! What has been seen: a version vector and the dots above it.
//!
//! One causal context per partition and replica, after DottedDB (Gonçalves et al., SRDS 2017): a dot that is in a replica's context
//! but not in its rows was superseded or removed there. That is why removal needs no tombstones, and why a context may never claim
//! more than was incorporated.

use std::collections::{BTreeMap, BTreeSet};

use crdts::{CmRDT, CvRDT, VClock};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::id::{Dot, Incarnation};

/// A set of dots, compact where it has no holes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Context {
    clock: VClock<Incarnation>,
    cloud: BTreeSet<Dot>,
}

impl Context {
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.clock.get(&dot.incarnation) || (!self.cloud.is_empty() && self.cloud.contains(&dot))
    }

    /// Adds one dot. Returns false when it was there.
    pub fn insert(&mut self, dot: Dot) -> bool {
        let upto = self.clock.get(&dot.incarnation);
        if dot.counter <= upto {
            return false;
        }
        if dot.counter > upto + 1 {
            return self.cloud.insert(dot);
        }
        self.advance(dot);
        true
    }

    /// Everything of `incarnation` up to `counter`, without asking whether it was there.
    pub fn insert_upto(&mut self, incarnation: Incarnation, counter: u64) {
        if counter > self.clock.get(&incarnation) {
            self.advance(Dot { incarnation, counter });
        }
    }

    fn advance(&mut self, dot: Dot) {
        let mut upto = dot.counter;
        if !self.cloud.is_empty() {
            self.cloud.retain(|held| held.incarnation != dot.incarnation || held.counter > upto);
            while self.cloud.remove(&Dot { incarnation: dot.incarnation, counter: upto + 1 }) {
                upto += 1;
            }
        }
        self.clock.apply(crdts::Dot::new(dot.incarnation, upto));
    }

    /// The greatest n such that 1..=n of this incarnation are in.
    pub fn upto(&self, incarnation: Incarnation) -> u64 {
        self.clock.get(&incarnation)
    }

    /// The greatest counter of this incarnation that is in, holes below it or not.
    pub fn greatest(&self, incarnation: Incarnation) -> u64 {
        let last = Dot { incarnation, counter: u64::MAX };
        let first = Dot { incarnation, counter: 0 };
        let above = self.cloud.range(first..=last).next_back().map_or(0, |dot| dot.counter);
        above.max(self.upto(incarnation))
    }

    /// The hole-free part, by incarnation.
    pub fn vector(&self) -> impl Iterator<Item = (Incarnation, u64)> + '_ {
        self.clock.dots.iter().map(|(incarnation, upto)| (*incarnation, *upto))
    }

    /// The dots above holes.
    pub fn cloud(&self) -> impl Iterator<Item = Dot> + '_ {
        self.cloud.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.clock.is_empty() && self.cloud.is_empty()
    }

    pub fn join(&mut self, other: &Context) {
        for (incarnation, upto) in other.vector() {
            self.insert_upto(incarnation, upto);
        }
        for dot in other.cloud() {
            self.insert(dot);
        }
    }

    /// Equal for equal contexts. Two that differ have the same one as likely as any two of 2^128 do.
    pub fn digest(&self) -> u128 {
        let mut words = Vec::with_capacity(1 + 2 * (self.clock.dots.len() + self.cloud.len()));
        words.push(self.clock.dots.len() as u64);
        let vector = self.vector().map(|(incarnation, upto)| (incarnation.0, upto));
        let cloud = self.cloud().map(|dot| (dot.incarnation.0, dot.counter));
        words.extend(vector.chain(cloud).flat_map(|(incarnation, counter)| [incarnation, counter]));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        xxh3_128(&bytes)
    }

    /// How many dots are in `other` and not here.
    pub fn lacks(&self, other: &Context) -> u64 {
        let mut count = 0;
        for (incarnation, upto) in other.vector() {
            let mine = self.upto(incarnation);
            if upto > mine {
                let first = Dot { incarnation, counter: mine + 1 };
                let last = Dot { incarnation, counter: upto };
                count += upto - mine - self.cloud.range(first..=last).count() as u64;
            }
        }
        count + other.cloud().filter(|dot| !self.contains(*dot)).count() as u64
    }

    /// Is everything in `other` here too?
    pub fn covers(&self, other: &Context) -> bool {
        other.vector().all(|(incarnation, upto)| {
            upto <= self.upto(incarnation) || {
                let first = Dot { incarnation, counter: self.upto(incarnation) + 1 };
                let last = Dot { incarnation, counter: upto };
                self.cloud.range(first..=last).count() as u64 == upto - self.upto(incarnation)
            }
        }) && other.cloud().all(|dot| self.contains(dot))
    }

    /// The hole-free part that both have: what is stable between them.
    pub fn meet(&self, other: &Context) -> Context {
        let mut dots = BTreeMap::new();
        for (incarnation, upto) in self.vector() {
            let both = upto.min(other.upto(incarnation));
            if both > 0 {
                dots.insert(incarnation, both);
            }
        }
        Context { clock: VClock { dots }, cloud: BTreeSet::new() }
    }
}

impl CvRDT for Context {
    type Validation = std::convert::Infallible;

    fn validate_merge(&self, _: &Self) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(&other);
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut context = Context::default();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dots() -> impl Strategy<Value = Vec<Dot>> {
        prop::collection::vec(
            (0..3_u64, 1..12_u64).prop_map(|(actor, counter)| Dot { incarnation: Incarnation(actor), counter }),
            0..30,
        )
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_dots(left in dots(), right in dots()) {
            let set_left: BTreeSet<Dot> = left.iter().copied().collect();
            let set_right: BTreeSet<Dot> = right.iter().copied().collect();
            let one: Context = left.iter().copied().collect();
            let two: Context = right.iter().copied().collect();
            for actor in 0..3 {
                for counter in 1..12 {
                    let dot = Dot { incarnation: Incarnation(actor), counter };
                    prop_assert_eq!(one.contains(dot), set_left.contains(&dot));
                }
            }
            let mut joined = one.clone();
            joined.join(&two);
            let mut other_way = two.clone();
            other_way.join(&one);
            prop_assert_eq!(&joined, &other_way);
            let union: Context = set_left.union(&set_right).copied().collect();
            prop_assert_eq!(&joined, &union);
            prop_assert_eq!(one.lacks(&two), set_right.difference(&set_left).count() as u64);
            prop_assert_eq!(one.covers(&two), set_right.is_subset(&set_left));
            prop_assert!(one.covers(&one.meet(&two)) && two.covers(&one.meet(&two)));
        }
    }
}
