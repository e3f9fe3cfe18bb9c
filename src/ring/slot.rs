//! From a key to its slot and partition, by the function of Redis Cluster, so that every cluster-aware Redis client routes
//! straight to an owner.

use std::ops::RangeInclusive;

use crate::data::id::Partition;

/// Number of slots, as in Redis Cluster. A partition is a range of them.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key when it has none, modulo [`SLOTS`].
///
/// The hash tag is what stands between the first `{` and the first `}` after it, unless that is nothing: keys that share a tag
/// share a slot, and with it their owners.
pub fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

/// The partition of a slot, when the slots are cut into `partitions` (1 to [`SLOTS`]) ranges as equal as can be.
pub fn partition_of_slot(slot: u16, partitions: u16) -> Partition {
    let partition = u32::from(slot % SLOTS) * u32::from(partitions) / u32::from(SLOTS);
    Partition(u16::try_from(partition).expect("less than `partitions`, since the slot is less than SLOTS"))
}

/// The partition of a key.
pub fn partition(key: &[u8], partitions: u16) -> Partition {
    partition_of_slot(slot(key), partitions)
}

/// The slots of a partition: those for which [`partition_of_slot`] gives it. Never empty while `partition < partitions <= SLOTS`.
pub fn slots_of(partition: Partition, partitions: u16) -> RangeInclusive<u16> {
    let first = |partition: u32| (partition * u32::from(SLOTS)).div_ceil(u32::from(partitions.max(1)));
    let at = u32::from(partition.0);
    let bound = |slot: u32| u16::try_from(slot).unwrap_or(u16::MAX);
    bound(first(at))..=bound(first(at + 1).saturating_sub(1))
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

/// What each leading byte does to the rest: polynomial 0x1021, most significant bit first, nothing reflected.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From `CLUSTER KEYSLOT` and the test vector of the Redis Cluster specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"123456789"), 12_739);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"bar"), 5_061);
        assert_eq!(slot(b""), 0);
        assert_eq!(slot(b"somekey"), 11_058);
        assert_eq!(slot(b"foo{hash_tag}"), 2_515);
    }

    #[test]
    fn keys_that_share_a_tag_share_a_slot() {
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"), "the first tag counts");
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"), "up to the first closing brace");
        for whole in [b"foo{}{bar}".as_slice(), b"foo{bar", b"}{", b"{", b"a}b"] {
            assert_eq!(slot(whole), crc16(whole) % SLOTS, "no tag, or an empty one: the whole key counts");
        }
    }

    #[test]
    fn partitions_cut_the_slots_without_gap_or_overlap() {
        for partitions in [1, 2, 3, 16, 100, 1_024, 8_192, SLOTS] {
            let mut next = 0;
            for at in 0..partitions {
                let slots = slots_of(Partition(at), partitions);
                assert_eq!(*slots.start(), next, "partition {at} of {partitions}");
                for slot in slots.clone() {
                    assert_eq!(partition_of_slot(slot, partitions), Partition(at));
                }
                next = slots.end() + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }
}
