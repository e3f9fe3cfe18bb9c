//! Names of things as small typed integers, and how each prints in logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A node for as long as its name stays in the layout. Derived from the name, so that every node computes the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id of the node called `name`: a 64-bit hash of its bytes. A layout refuses two names with one id.
    pub fn from_name(name: &str) -> Self {
        Self(hash64(name.as_bytes()))
    }
}

/// One lifetime of a node's data: random, minted at first start, at every start without the clean-shutdown mark and after a
/// restore. Never resumed, never on a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// What a node's data lie in, from an empty store until it is emptied: random. 0 is that of nobody. Unlike the incarnation it stays the
/// same over crashes, so whoever must come back empty is known by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct StoreId(pub u64);

/// The birth mark of one mutation: the `counter`-th of an incarnation in one partition. Counters start at 1 and have no holes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    pub incarnation: Incarnation,
    pub counter: u64,
}

/// One of the Q partitions, `0..Q`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

/// A namespace. Only `default` exists so far, but the number is in every row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Namespace(pub u16);

/// Names one mutation whatever route and however many tries it takes: a UUID, version 7 (its first 48 bits are the
/// milliseconds since 1970 at which the client made it, which is what the window of remembrance is judged by).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub [u8; 16]);

impl OpId {
    /// A version 7 UUID from a wall clock in milliseconds and 80 random bits (6 of them are overwritten by version and variant).
    pub fn new(wall_ms: u64, random: [u8; 10]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&wall_ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        Self(id)
    }

    /// Milliseconds since 1970 at which this id was made.
    pub fn wall_ms(&self) -> u64 {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(ms)
    }

    /// Reads the usual form with or without hyphens. `None` unless it is a version 7 UUID.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut id = [0; 16];
        for (at, pair) in digits.chunks(2).enumerate() {
            id[at] = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        (id[6] >> 4 == 7).then_some(Self(id))
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                out.write_str("-")?;
            }
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "node-{:016x}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{:08x}", self.0 >> 32)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{:?}.{}", self.incarnation, self.counter)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{:?}", self)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "p{}", self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "ns{}", self.0)
    }
}

/// FNV-1a followed by a full-avalanche finish (Stafford's variant 13 of the splitmix64 mixer). Stable for ever: placement, on-disk
/// key order and node ids hang on it. Not for adversaries.
pub fn hash64(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix64(hash)
}

/// The splitmix64 finish: a bijection in which every input bit moves every output bit.
pub fn mix64(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_print_as_they_parse_and_keep_their_time() {
        let id = OpId::new(1_700_000_000_123, [0xff; 10]);
        assert_eq!(id.wall_ms(), 1_700_000_000_123);
        assert_eq!(OpId::parse(&id.to_string()), Some(id));
        assert_eq!(OpId::parse("not a uuid"), None);
        assert_eq!(OpId::parse("00000000-0000-4000-8000-000000000000"), None, "version 4 carries no time");
    }

    #[test]
    fn hash_is_pinned() {
        assert_eq!(hash64(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash64(b"tidewater"), hash64(b"tidewater"));
    }
}
