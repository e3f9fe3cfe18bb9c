//! The keys of what a partition keeps beside its rows: log entries, the checkpoint, dead dots and operation ids; and where a range
//! of keys begins and ends.

use crate::data::id::{Dot, Incarnation, OpId, Partition};

pub(super) fn component_start(prefix: &[u8], component: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 1);
    key.extend_from_slice(prefix);
    key.push(component);
    key
}

pub(super) fn after_components(prefix: &[u8]) -> Vec<u8> {
    component_start(prefix, u8::MAX)
}

/// The least key that is above everything beginning with `prefix`.
pub fn upper_bound(prefix: &[u8]) -> Vec<u8> {
    let mut bound = prefix.to_vec();
    while let Some(last) = bound.pop() {
        if last < u8::MAX {
            bound.push(last + 1);
            return bound;
        }
    }
    vec![u8::MAX; prefix.len() + 1]
}

pub(super) fn tagged(tag: u8, partition: Partition) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    key.push(tag);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

pub(super) fn checkpoint_key(partition: Partition) -> Vec<u8> {
    tagged(b's', partition)
}

fn dot_bytes(dot: Dot) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dot.incarnation.0.to_be_bytes());
    bytes[8..].copy_from_slice(&dot.counter.to_be_bytes());
    bytes
}

pub(super) fn parse_dot(bytes: &[u8]) -> Option<Dot> {
    Some(Dot {
        incarnation: Incarnation(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?)),
        counter: u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?),
    })
}

pub(super) fn dead_key(partition: Partition, dot: Dot) -> Vec<u8> {
    let mut key = tagged(b'd', partition);
    key.extend_from_slice(&dot_bytes(dot));
    key
}

pub(super) fn dead_range(partition: Partition) -> (Vec<u8>, Vec<u8>) {
    let from = tagged(b'd', partition);
    let to = upper_bound(&from);
    (from, to)
}

pub(super) fn op_key(partition: Partition, op_id: OpId) -> Vec<u8> {
    let mut key = tagged(b'o', partition);
    key.extend_from_slice(&op_id.0);
    key
}

pub(super) fn log_key(partition: Partition, dot: Dot) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(&dot_bytes(dot));
    key
}

pub(super) fn log_range(partition: Partition) -> (Vec<u8>, Vec<u8>) {
    let from = partition.0.to_be_bytes().to_vec();
    let to = upper_bound(&from);
    (from, to)
}

pub(super) fn parse_log_key(key: &[u8]) -> Option<Dot> {
    parse_dot(key.get(2..18)?)
}
