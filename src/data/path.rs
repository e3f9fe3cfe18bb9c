//! Where a row stands: its key on disk, in order.
//!
//! ```text
//! partition u16 | key hash u64 | namespace u16 | key length u16 | key | component u8 | [name hash u64] | member
//! '-- one range scan = one partition ---------------------------'                          |
//!                 '-- one range scan = a digest leaf                                        |
//!                                '-- one range scan = a key, its components in order, small ones first
//!                                           set members and map fields only, by the hash of their name: a page of
//!                                           a large collection is one range scan, and its cursor a number
//! ```
//! All integers big-endian, so that bytes order as numbers do.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::id::{Incarnation, Namespace, OpId, Partition, hash64};
use super::op::Key;
use super::row::Life;

/// The parts of an object. The order is the order on disk: what a string needs lies together and before what can be large.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Component {
    /// The LWW register. Member: empty.
    Register = 1,
    /// Deadlines set after birth, one per life. Member: life.
    Deadline = 2,
    /// Counter tallies. Member: life, incarnation.
    Counter = 3,
    /// Retried increments. Member: life, operation id.
    Retry = 4,
    /// The flag. Member: empty.
    Flag = 5,
    /// Siblings. Member: the dot of each.
    Sibling = 6,
    /// Map fields' registers. Member: the field.
    Field = 7,
    /// Map fields' tallies. Member: field length u32, field, life, incarnation.
    FieldCounter = 8,
    /// Map fields' retried increments. Member: field length u32, field, life, operation id.
    FieldRetry = 9,
    /// Set members. Member: the member.
    Member = 10,
}

impl Component {
    pub const ALL: [Component; 10] = [
        Component::Register,
        Component::Deadline,
        Component::Counter,
        Component::Retry,
        Component::Flag,
        Component::Sibling,
        Component::Field,
        Component::FieldCounter,
        Component::FieldRetry,
        Component::Member,
    ];

    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|component| *component as u8 == byte)
    }
}

/// A row's place inside its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Path {
    pub component: Component,
    pub member: Bytes,
}

impl Path {
    pub fn new(component: Component, member: impl Into<Bytes>) -> Self {
        Self { component, member: member.into() }
    }

    pub fn deadline(life: Life) -> Self {
        Self::new(Component::Deadline, life.0.to_be_bytes().to_vec())
    }

    /// The tally of `incarnation` in a life of the key's counter, or of a field's.
    pub fn tally(field: Option<&[u8]>, life: Life, incarnation: Incarnation) -> Self {
        Self::counted(field, life, &incarnation.0.to_be_bytes(), Component::Counter, Component::FieldCounter)
    }

    /// A retried increment.
    pub fn retry(field: Option<&[u8]>, life: Life, op_id: OpId) -> Self {
        Self::counted(field, life, &op_id.0, Component::Retry, Component::FieldRetry)
    }

    /// The operation in a `Retry` member, or in a field's.
    pub fn op_id(&self) -> Option<OpId> {
        if !matches!(self.component, Component::Retry | Component::FieldRetry) {
            return None;
        }
        let (_, tail) = self.member.split_at_checked(self.member.len().checked_sub(16)?)?;
        Some(OpId(tail.try_into().ok()?))
    }

    fn counted(field: Option<&[u8]>, life: Life, tail: &[u8], plain: Component, in_field: Component) -> Self {
        let mut member = Vec::with_capacity(32 + field.map_or(0, <[u8]>::len));
        if let Some(field) = field {
            member.extend_from_slice(&field_prefix(field));
        }
        member.extend_from_slice(&life.0.to_be_bytes());
        member.extend_from_slice(tail);
        Self::new(if field.is_some() { in_field } else { plain }, member)
    }

    /// The life in a `Deadline`, `Counter` or `Retry` member, or in a field's.
    pub fn life(&self) -> Option<Life> {
        let rest = match self.component {
            Component::Deadline | Component::Counter | Component::Retry => &self.member[..],
            Component::FieldCounter | Component::FieldRetry => {
                let length = u32::from_be_bytes(self.member.get(..4)?.try_into().ok()?) as usize;
                self.member.get(4 + length..)?
            }
            _ => return None,
        };
        Some(Life(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)))
    }

    /// The hash of the member's or the field's name, by which the rows of sets and maps are ordered. `None`: no row of those.
    pub fn name_hash(&self) -> Option<u64> {
        match self.component {
            Component::Member => Some(place_order(&self.member)),
            _ => self.field().map(|field| place_order(&field)),
        }
    }

    /// What orders rows on disk.
    pub fn order(&self) -> (Component, Option<u64>, &Bytes) {
        (self.component, self.name_hash(), &self.member)
    }

    /// Where a walk over a set or a map comes upon this row. Below 2^53, so that clients that hold numbers as doubles keep it whole.
    pub fn place(&self) -> Option<u64> {
        self.name_hash().map(|hash| hash >> PLACE_SHIFT)
    }

    /// The field that a `Field`, `FieldCounter` or `FieldRetry` row belongs to.
    pub fn field(&self) -> Option<Bytes> {
        match self.component {
            Component::Field => Some(self.member.clone()),
            Component::FieldCounter | Component::FieldRetry => {
                let length = u32::from_be_bytes(self.member.get(..4)?.try_into().ok()?) as usize;
                (self.member.len() >= 4 + length).then(|| self.member.slice(4..4 + length))
            }
            _ => None,
        }
    }
}

/// The hash of a member's or a field's name (XXH3), in the order of which a walk tells them.
pub fn place_order(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// What lies in a name's hash below its place.
const PLACE_SHIFT: u32 = 11;
/// So many places there are.
pub const PLACES: u64 = 1 << (64 - PLACE_SHIFT);

/// Where the rows at this place and behind it begin within their component on disk. `None`: there is no such place.
pub fn place_start(place: u64) -> Option<[u8; 8]> {
    (place < PLACES).then(|| (place << PLACE_SHIFT).to_be_bytes())
}

/// What the members of a field's counter rows begin with.
pub fn field_prefix(field: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(4 + field.len());
    prefix.extend_from_slice(&(field.len() as u32).to_be_bytes());
    prefix.extend_from_slice(field);
    prefix
}

/// The hash by which keys are ordered inside a partition.
pub fn key_hash(key: &Key) -> u64 {
    hash64(&key.bytes) ^ u64::from(key.namespace.0).rotate_left(48)
}

/// What all rows of one key begin with.
pub fn key_prefix(partition: Partition, key: &Key) -> BytesMut {
    let mut prefix = BytesMut::with_capacity(15 + key.bytes.len() + 32);
    prefix.put_u16(partition.0);
    prefix.put_u64(key_hash(key));
    prefix.put_u16(key.namespace.0);
    prefix.put_u16(u16::try_from(key.bytes.len()).expect("key_size_max is checked at the door and is below 64 KiB"));
    prefix.put_slice(&key.bytes);
    prefix
}

/// A row's whole key on disk.
pub fn row_key(prefix: &[u8], path: &Path) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 9 + path.member.len());
    key.extend_from_slice(prefix);
    key.push(path.component as u8);
    if let Some(hash) = path.name_hash() {
        key.extend_from_slice(&hash.to_be_bytes());
    }
    key.extend_from_slice(&path.member);
    key
}

/// What the keys of all rows of the same object begin with, of the key of one. `None`: these bytes are no row key.
pub fn row_prefix(bytes: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes(bytes.get(12..14)?.try_into().ok()?) as usize;
    bytes.get(14 + length)?;
    bytes.get(..14 + length)
}

/// An object's prefix, the component and the member of a row's key. `None`: these bytes are no row key.
pub fn split_row_key(bytes: &[u8]) -> Option<(&[u8], Component, &[u8])> {
    let prefix = row_prefix(bytes)?;
    let (component, member) = bytes.get(prefix.len()..)?.split_first()?;
    let component = Component::from_byte(*component)?;
    let name_hash_bytes = if component >= Component::Field { 8 } else { 0 };
    Some((prefix, component, member.get(name_hash_bytes..)?))
}

/// Takes a row's key apart. `None`: these bytes are no row key.
pub fn parse_row_key(bytes: &[u8]) -> Option<(Partition, u64, Key, Path)> {
    let partition = Partition(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    let hash = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
    let namespace = Namespace(u16::from_be_bytes(bytes.get(10..12)?.try_into().ok()?));
    let length = u16::from_be_bytes(bytes.get(12..14)?.try_into().ok()?) as usize;
    let key = Bytes::copy_from_slice(bytes.get(14..14 + length)?);
    let component = Component::from_byte(*bytes.get(14 + length)?)?;
    let mut member = bytes.get(15 + length..)?;
    let mut name_hash = None;
    if component >= Component::Field {
        let (hashed, rest) = member.split_first_chunk::<8>()?;
        (name_hash, member) = (Some(u64::from_be_bytes(*hashed)), rest);
    }
    let path = Path { component, member: Bytes::copy_from_slice(member) };
    // Where nobody would look for it there is no such row.
    (path.name_hash() == name_hash).then_some((partition, hash, Key { namespace, bytes: key }, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_key_is_taken_apart_as_it_was_built() {
        let key = Key::new("key");
        let prefix = key_prefix(Partition(7), &key);
        for path in [
            Path::new(Component::Register, ""),
            Path::tally(Some(b"field"), Life(3), Incarnation(9)),
            Path::new(Component::Member, "a member"),
            Path::new(Component::Member, ""),
            Path::new(Component::Field, "a field"),
            Path::retry(Some(b"field"), Life(3), OpId([7; 16])),
        ] {
            let (partition, hash, parsed, at) = parse_row_key(&row_key(&prefix, &path)).expect("a row key");
            assert_eq!((partition, hash, &parsed, &at), (Partition(7), key_hash(&key), &key, &path));
            assert_eq!(row_prefix(&row_key(&prefix, &path)), Some(&prefix[..]));
        }
        let tally = Path::tally(Some(b"field"), Life(3), Incarnation(9));
        assert_eq!(tally.life(), Some(Life(3)));
        assert_eq!(tally.field().as_deref(), Some(&b"field"[..]));
        let beside = Path::new(Component::Member, "a member");
        let mut displaced = row_key(&prefix, &beside);
        *displaced.last_mut().expect("not empty") = b'!';
        assert_eq!(parse_row_key(&displaced), None, "it does not stand where its name says");
        assert_eq!(tally.place(), Path::new(Component::Field, "field").place());
        let start = [&row_key(&prefix, &beside)[..18], &place_start(beside.place().expect("a place")).expect("is one")]
            .concat();
        assert!(start <= row_key(&prefix, &beside) && place_start(PLACES).is_none());
        for cut in 0..15 {
            assert_eq!(parse_row_key(&row_key(&prefix, &Path::new(Component::Flag, ""))[..cut]), None);
            assert_eq!(row_prefix(&row_key(&prefix, &Path::new(Component::Flag, ""))[..cut]), None);
        }
    }
}
