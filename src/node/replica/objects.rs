//! What has lately been read or written of objects: which components may have rows and, of a small object, all its rows. Bounded by
//! bytes; what is used stays (`quick_cache`, a Clock-PRO much like the S3-FIFO of Yang et al., SOSP 2023).
//!
//! 1. A mask never leaves out a component that has rows, because every put of a row that did not stand before goes through
//!    [`Objects::saw`]; it may name one whose rows have gone since.
//! 2. Rows are those of the store as it was last committed. Whoever reads asks first whether its turn has touched the object, and
//!    what a turn has changed is changed here before it is committed ([`Objects::changed`]). A commit that fails ends the store.

use std::hash::{BuildHasher, Hasher};

use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::packed::Packed;
use crate::data::path::Component;

/// About what an object takes beside its key and its packed rows. A fixed number, so that what is forgotten when is the same on every
/// machine.
const OBJECT_BYTES: usize = 128;

/// Rows are held of objects that have up to this many, which is also what is read of an object in one walk, whatever is asked of it.
pub const SMALL_ROWS: usize = 8;
/// And that take up to this many bytes.
pub const SMALL_BYTES: usize = 4 << 10;

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
#[derive(Clone, Debug, Default)]
pub enum Held {
    /// They have not been looked at, or have changed since.
    #[default]
    Nothing,
    /// All of them.
    All(Packed),
    /// They are too many, or too large, to be kept. Said until the object is forgotten, though they may have become less.
    TooMuch,
}

impl Held {
    fn bytes(&self) -> usize {
        if let Held::All(rows) = self { rows.bytes() } else { 0 }
    }

    /// After one row has become `row`, or has gone.
    fn changed(self, component: Component, member: &[u8], row: Option<&[u8]>) -> Self {
        let rows = match self {
            // What has been read may be read again. Of what is only written many masks are worth more than few rows.
            Held::All(rows) if rows.bytes() > 0 => rows,
            Held::All(_) => return Held::Nothing,
            unknown => return unknown,
        };
        if row.is_some_and(|row| row.len() > SMALL_BYTES) {
            return Held::Nothing;
        }
        let rows = rows.with(component, member, row);
        if rows.bytes() <= SMALL_BYTES && rows.rows() <= SMALL_ROWS { Held::All(rows) } else { Held::Nothing }
    }
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

    pub fn remember(&mut self, prefix: &[u8], mask: Mask, held: Held) {
        let bytes = OBJECT_BYTES + prefix.len() + held.bytes();
        self.cache.insert(prefix.into(), Known { mask, held, bytes });
    }

    /// A row was put. An object that is not remembered stays so: its mask is not known.
    pub fn saw(&mut self, prefix: &[u8], component: Component) {
        if let Some(mut known) = self.cache.peek_mut(prefix) {
            known.mask.add(component);
        }
    }

    /// A row has become `row`, or has gone. What grows by it is held as long as nothing else has to go for that: room is made for what
    /// is read.
    pub fn changed(&mut self, prefix: &[u8], component: Component, member: &[u8], row: Option<&[u8]>) {
        let room = self.cache.capacity().saturating_sub(self.cache.weight()) as usize;
        if let Some(mut known) = self.cache.peek_mut(prefix) {
            let held = std::mem::take(&mut known.held).changed(component, member, row);
            let bytes = OBJECT_BYTES + prefix.len() + held.bytes();
            if bytes <= known.bytes + room {
                known.held = held;
                known.bytes = bytes;
            } else {
                known.bytes = OBJECT_BYTES + prefix.len();
            }
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

    fn register(row: &[u8]) -> Held {
        Held::All(Packed::default().with(Component::Register, b"", Some(row)))
    }

    fn only(component: Component) -> Mask {
        let mut mask = Mask::default();
        mask.add(component);
        mask
    }

    #[test]
    fn a_mask_never_forgets_a_component_and_rows_go_with_what_changes() {
        let mut objects = Objects::new(1 << 20, 7);
        let held = |objects: &Objects, prefix: &[u8]| match &objects.get(prefix).expect("remembered").held {
            Held::All(rows) => Some(rows.clone()),
            _ => None,
        };
        assert!(objects.get(b"a").is_none());
        objects.saw(b"a", Component::Member);
        assert!(objects.get(b"a").is_none(), "one sighting does not make a mask");
        objects.remember(b"a", Mask::default(), Held::All(Packed::default()));
        objects.saw(b"a", Component::Member);
        assert!(objects.get(b"a").expect("remembered").mask.is_only(Component::Member));
        objects.changed(b"a", Component::Member, b"m", Some(b"row"));
        assert_eq!(held(&objects, b"a"), None, "nobody has read it");
        let read = Packed::default().with(Component::Member, b"m", Some(b"row"));
        objects.remember(b"a", only(Component::Member), Held::All(read.clone()));
        objects.changed(b"a", Component::Member, b"n", Some(b"row"));
        assert_eq!(held(&objects, b"a"), Some(read.with(Component::Member, b"n", Some(b"row"))));
        objects.changed(b"a", Component::Member, b"n", None);
        assert_eq!(held(&objects, b"a"), Some(read));
        for number in 0..=SMALL_ROWS as u8 {
            objects.changed(b"a", Component::Member, &[number], Some(b"row"));
        }
        assert_eq!(held(&objects, b"a"), None, "too many");

        for unknown in [Held::Nothing, Held::TooMuch] {
            objects.remember(b"b", only(Component::Register), unknown);
            objects.changed(b"b", Component::Register, b"", Some(b"row"));
            assert_eq!(held(&objects, b"b"), None);
            objects.remember(b"b", only(Component::Register), register(b"row"));
            objects.changed(b"b", Component::Register, b"", Some(&[0; SMALL_BYTES]));
            assert_eq!(held(&objects, b"b"), None, "too large");
        }
        objects.clear();
        assert!(objects.get(b"a").is_none() && objects.get(b"b").is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut objects = Objects::new(64 << 10, 7);
        for number in 0..10_000_u32 {
            objects.remember(&number.to_be_bytes(), only(Component::Register), register(&[0; 100]));
            objects.changed(&number.to_be_bytes(), Component::Register, b"", Some(&[0; 300]));
        }
        assert!(objects.cache.weight() <= 64 << 10);
        assert!(objects.cache.len() > 100, "and used");
        let mut none = Objects::new(0, 7);
        none.remember(b"a", Mask::default(), Held::All(Packed::default()));
        assert!(none.get(b"a").is_none());
    }
}
