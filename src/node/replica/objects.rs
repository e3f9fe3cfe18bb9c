//! What has lately been read or written of objects: which components may have rows and, of a small object, all its rows. Bounded by
//! bytes; what is used stays (`quick_cache`, a Clock-PRO much like the S3-FIFO of Yang et al., SOSP 2023).
//!
//! 1. A mask never leaves out a component that has rows, because every put of a row that did not stand before goes through
//!    [`Objects::saw`]; it may name one whose rows have gone since.
//! 2. Rows are those of the store as it was last committed. Whoever reads asks first whether its turn has touched the object, and
//!    what a turn has touched is forgotten before it is committed ([`Objects::changed`]).

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::data::path::{Component, Path};
use crate::data::row::Row;

/// About what an object takes beside its key and the bytes of its rows on disk: the entry, and the rows as they lie in memory.
/// Fixed numbers, so that what is forgotten when is the same on every machine.
const OBJECT_BYTES: usize = 128;
const ROW_BYTES: usize = 256;

/// A set of components.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mask(u16);

impl Mask {
    pub fn add(&mut self, component: Component) {
        self.0 |= 1 << component as u8;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn is_only(self, component: Component) -> bool {
        self.0 == 1 << component as u8
    }

    pub fn has_any(self, components: &[Component]) -> bool {
        components.iter().any(|component| self.0 & (1 << *component as u8) != 0)
    }
}

/// What is remembered of an object's rows.
#[derive(Clone, Debug)]
pub enum Held {
    /// They have changed since.
    Nothing,
    /// All of them, sorted by path.
    All(Arc<[(Path, Row)]>),
    /// They are too many, or too large, to be kept. Said until the object is forgotten, though they may have become less.
    TooMuch,
}

#[derive(Clone, Debug)]
pub struct Known {
    pub mask: Mask,
    pub held: Held,
    bytes: usize,
}

/// What the keys of all rows of an object begin with.
type Prefix = Box<[u8]>;

pub struct Objects {
    cache: Cache<Prefix, Known, Weight, Seeded, DefaultLifecycle<Prefix, Known>>,
    /// Reads that needed no look into the store, and reads that did.
    pub hits: u64,
    pub misses: u64,
}

impl Objects {
    /// Keeps up to about `bytes`, 0 for none. `seed`: see [`ShardOptions::seed`](crate::node::turn::ShardOptions).
    pub fn new(bytes: u64, seed: u64) -> Self {
        let objects = (bytes / 1024) as usize;
        Self {
            cache: Cache::with(objects, bytes, Weight, Seeded { seed }, DefaultLifecycle::default()),
            hits: 0,
            misses: 0,
        }
    }

    pub fn get(&self, prefix: &[u8]) -> Option<&Known> {
        self.cache.get(prefix)
    }

    /// `rows_bytes`: what the rows that are held take on disk.
    pub fn remember(&mut self, prefix: &[u8], mask: Mask, held: Held, rows_bytes: usize) {
        let rows = if let Held::All(rows) = &held { rows_bytes + rows.len() * ROW_BYTES } else { 0 };
        let bytes = OBJECT_BYTES + prefix.len() + rows;
        self.cache.insert(prefix.into(), Known { mask, held, bytes });
    }

    /// A row was put. An object that is not remembered stays so: its mask is not known.
    pub fn saw(&mut self, prefix: &[u8], component: Component) {
        if let Some(mut known) = self.cache.peek_mut(prefix) {
            known.mask.add(component);
        }
    }

    /// What is held of the rows is what they were.
    pub fn changed(&mut self, prefix: &[u8]) {
        if let Some(mut known) = self.cache.peek_mut(prefix)
            && let Held::All(_) = known.held
        {
            known.held = Held::Nothing;
            known.bytes = OBJECT_BYTES + prefix.len();
        }
    }

    /// Anything may have changed.
    pub fn clear(&mut self) {
        self.cache.clear();
    }
}

struct Weight;

impl Weighter<Prefix, Known> for Weight {
    fn weight(&self, _: &Prefix, known: &Known) -> u64 {
        known.bytes as u64
    }
}

/// The same for the same seed everywhere, as the simulator wants it.
#[derive(Clone, Copy)]
struct Seeded {
    seed: u64,
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.seed)
    }
}

struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    // The length that a slice is hashed with says nothing that its bytes do not.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rows: Vec<(Path, Row)>) -> Held {
        Held::All(rows.into())
    }

    #[test]
    fn a_mask_never_forgets_a_component_and_rows_are_forgotten_when_they_change() {
        let mut objects = Objects::new(1 << 20, 7);
        assert!(objects.get(b"a").is_none());
        objects.saw(b"a", Component::Member);
        assert!(objects.get(b"a").is_none(), "one sighting does not make a mask");
        objects.remember(b"a", Mask::default(), all(Vec::new()), 0);
        objects.saw(b"a", Component::Member);
        assert!(objects.get(b"a").expect("remembered").mask.has_any(&[Component::Member]));
        objects.changed(b"a");
        let known = objects.get(b"a").expect("remembered");
        assert!(matches!(known.held, Held::Nothing) && known.mask.is_only(Component::Member));
        objects.remember(b"b", Mask::default(), Held::TooMuch, 0);
        objects.changed(b"b");
        assert!(matches!(objects.get(b"b").expect("remembered").held, Held::TooMuch), "nobody has looked");
        objects.clear();
        assert!(objects.get(b"a").is_none() && objects.get(b"b").is_none());
    }

    #[test]
    fn memory_is_bounded() {
        assert!(size_of::<(Path, Row)>() + 64 <= ROW_BYTES, "a row takes more than is counted for it");
        let mut objects = Objects::new(64 << 10, 7);
        for number in 0..10_000_u32 {
            objects.remember(&number.to_be_bytes(), Mask::default(), all(Vec::new()), 100);
        }
        assert!(objects.cache.weight() <= 64 << 10);
        assert!(objects.cache.len() > 100, "and used");
        let mut none = Objects::new(0, 7);
        none.remember(b"a", Mask::default(), all(Vec::new()), 0);
        assert!(none.get(b"a").is_none());
    }
}
