//! Names and values that say what they are: a read can be judged from what it brought and a few numbers per key.
//!
//! A value is `run | item | sequence | length` (four little-endian numbers of 32 bits), then filler that does not compress. The run is
//! drawn anew for each run and is in the key's name too, so that what an earlier run left in the same cluster is never taken for ours.

use std::sync::OnceLock;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The least that a value may have: its header.
pub const HEADER_BYTES: usize = 16;
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// Filler is cut from a pool of this size, each value at another place.
const POOL_BYTES: usize = 1 << 16;

/// A key's name, without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; 24],
    length: u8,
}

impl Name {
    /// `b` and the run in hexadecimal, a colon, and the number.
    pub fn of(run: u32, key: u32) -> Self {
        let mut bytes = [0; 24];
        bytes[0] = b'b';
        for (at, byte) in bytes[1..9].iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[(run >> (28 - 4 * at)) as usize & 15];
        }
        bytes[9] = b':';
        let length = 10 + write_number(&mut bytes[10..], key);
        Self { bytes, length: length as u8 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The number of a key of this run; `None`: another's key.
    pub fn parse(run: u32, name: &[u8]) -> Option<u32> {
        let number = std::str::from_utf8(name.get(10..)?).ok()?.parse().ok()?;
        (Self::of(run, number).as_bytes() == name).then_some(number)
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A number as decimal text, and how long it is.
pub fn write_number(out: &mut [u8], mut number: u32) -> usize {
    let mut digits = [0; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let length = digits.len() - at;
    out[..length].copy_from_slice(&digits[at..]);
    length
}

/// What is written: the header's numbers and how long the whole is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    pub run: u32,
    /// The key, or the field of a key: whatever has sequence numbers of its own.
    pub item: u32,
    pub sequence: u32,
    pub length: u32,
}

impl Value {
    /// Appends all of it.
    pub fn write(self, out: &mut Vec<u8>) {
        for number in [self.run, self.item, self.sequence, self.length] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let mut left = (self.length as usize).saturating_sub(HEADER_BYTES);
        let mut from = self.sequence.wrapping_mul(0x9e37_79b1).wrapping_add(self.item) as usize % POOL_BYTES;
        while left > 0 {
            let part = left.min(POOL_BYTES - from);
            out.extend_from_slice(&pool()[from..from + part]);
            left -= part;
            from = 0;
        }
    }

    /// What a read brought, judged by itself: is it one that this run wrote for this item?
    pub fn parse(run: u32, item: u32, bytes: &[u8]) -> Seen {
        let number =
            |at: usize| bytes.get(at..at + 4).map(|part| u32::from_le_bytes([part[0], part[1], part[2], part[3]]));
        let (Some(its_run), Some(its_item), Some(sequence), Some(length)) =
            (number(0), number(4), number(8), number(12))
        else {
            return Seen::Foreign;
        };
        let ours = its_run == run && its_item == item && length as usize == bytes.len() && sequence > 0;
        if ours { Seen::Sequence(sequence) } else { Seen::Foreign }
    }
}

/// What a read found under an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Nothing,
    /// The value that was written with this sequence number.
    Sequence(u32),
    /// Nothing that was ever written there.
    Foreign,
}

fn pool() -> &'static [u8] {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut random = SmallRng::seed_from_u64(1);
        (0..POOL_BYTES).map(|_| random.random_range(0..=255_u8)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        for key in [0, 7, 10, 4_294_967_295] {
            let name = Name::of(0x00ab_cdef, key);
            assert_eq!(name.as_bytes(), format!("b00abcdef:{key}").as_bytes());
            assert_eq!(Name::parse(0x00ab_cdef, name.as_bytes()), Some(key));
            assert_eq!(Name::parse(0x00ab_cdee, name.as_bytes()), None);
        }
        for name in [&b"b00abcdef:"[..], b"b00abcdef:01", b"b00abcdef:+1", b"visits", b""] {
            assert_eq!(Name::parse(0x00ab_cdef, name), None);
        }
    }

    #[test]
    fn values_say_what_they_are() {
        for length in [HEADER_BYTES as u32, 17, 100, 200_000] {
            let value = Value { run: 5, item: 77, sequence: 3, length };
            let mut bytes = Vec::new();
            value.write(&mut bytes);
            assert_eq!(bytes.len(), length as usize);
            assert_eq!(Value::parse(5, 77, &bytes), Seen::Sequence(3));
            assert_eq!(Value::parse(6, 77, &bytes), Seen::Foreign, "another run");
            assert_eq!(Value::parse(5, 78, &bytes), Seen::Foreign, "another key");
            assert_eq!(Value::parse(5, 77, &bytes[..bytes.len() - 1]), Seen::Foreign, "cut off");
        }
        assert_eq!(Value::parse(5, 77, b""), Seen::Foreign);
    }
}
