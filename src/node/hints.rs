//! Hints: deltas kept on disk for owners that are away, with their names, until they have been handed over.
//!
//! ```text
//! Hints   partition u16 | owner u64 | key hash u64 | key length u16 | key | dot 16  -> delta
//! ```
//! A hint never changes, so deleting it after the owner's acknowledgement is compare-and-delete. Counts and bytes per owner are held
//! in memory and counted anew at start. A stand-in answers reads with its hints; that it has none means nothing.

use std::collections::BTreeMap;

use crate::data::id::{NodeId, Partition};
use crate::data::mutation::Delta;
use crate::data::op::Key;
use crate::data::path::key_hash;
use crate::node::replica::{Turn, decode, upper_bound};
use crate::storage::{Space, StoreError};
use crate::wire::codec;

#[derive(Default)]
pub struct Hints {
    kept: BTreeMap<(NodeId, Partition), Count>,
    pub count: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct Count {
    hints: u64,
    bytes: u64,
}

impl Hints {
    /// Counts what the store holds for these partitions.
    pub fn load(turn: &Turn, partitions: impl Iterator<Item = Partition>) -> Result<Self, StoreError> {
        let mut hints = Self::default();
        for partition in partitions {
            let from = partition.0.to_be_bytes();
            turn.scan(Space::Hints, &from, &upper_bound(&from), &mut |key, value| {
                if let Some(owner) = owner_of(key) {
                    hints.add(owner, partition, (key.len() + value.len()) as u64);
                }
                true
            })?;
        }
        Ok(hints)
    }

    /// Keeps a delta for all of these owners. False when there is no room for all; nothing is kept then.
    pub fn keep(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        owners: impl Iterator<Item = NodeId>,
        delta: &Delta,
        bytes_max: u64,
    ) -> Result<bool, StoreError> {
        let Some(first) = delta.mutations.first() else { return Ok(true) };
        let value = codec::encode(delta);
        let mut wanted = Vec::new();
        let mut bytes = self.bytes;
        for owner in owners {
            let mut at = key_prefix(partition, owner, &delta.key);
            at.extend_from_slice(&first.dot.incarnation.0.to_be_bytes());
            at.extend_from_slice(&first.dot.counter.to_be_bytes());
            if turn.get(Space::Hints, &at)?.is_none() {
                bytes += (at.len() + value.len()) as u64;
                wanted.push((owner, at));
            }
        }
        if bytes > bytes_max && !wanted.is_empty() {
            return Ok(false);
        }
        for (owner, at) in wanted {
            self.add(owner, partition, (at.len() + value.len()) as u64);
            turn.put(Space::Hints, at, value.clone());
        }
        Ok(true)
    }

    /// The hints for a key, whoever they are for.
    pub fn of_key(&self, turn: &Turn, partition: Partition, key: &Key) -> Result<Vec<Delta>, StoreError> {
        let mut deltas: Vec<Delta> = Vec::new();
        for (owner, _) in self.kept.keys().filter(|(_, held)| *held == partition) {
            for (_, delta) in scan(turn, &key_prefix(partition, *owner, key), usize::MAX)? {
                if !deltas.contains(&delta) {
                    deltas.push(delta);
                }
            }
        }
        Ok(deltas)
    }

    /// How many hints are kept for an owner of this key.
    pub fn of_key_for(&self, turn: &Turn, partition: Partition, owner: NodeId, key: &Key) -> Result<u64, StoreError> {
        Ok(scan(turn, &key_prefix(partition, owner, key), usize::MAX)?.len() as u64)
    }

    /// The next hints for an owner in one partition, with the keys to drop them by.
    pub fn page(
        &self,
        turn: &Turn,
        owner: NodeId,
        partition: Partition,
        bytes_max: usize,
    ) -> Result<Vec<(Vec<u8>, Delta)>, StoreError> {
        let mut prefix = partition.0.to_be_bytes().to_vec();
        prefix.extend_from_slice(&owner.0.to_be_bytes());
        scan(turn, &prefix, bytes_max)
    }

    pub fn drop_one(&mut self, turn: &mut Turn, at: &[u8]) -> Result<(), StoreError> {
        let (Some(owner), Some(value)) = (owner_of(at), turn.get(Space::Hints, at)?) else { return Ok(()) };
        let partition = Partition(u16::from_be_bytes([at[0], at[1]]));
        turn.delete(Space::Hints, at.to_vec());
        let size = (at.len() + value.len()) as u64;
        self.count -= 1;
        self.bytes -= size;
        if let Some(count) = self.kept.get_mut(&(owner, partition)) {
            count.hints -= 1;
            count.bytes -= size;
            if count.hints == 0 {
                self.kept.remove(&(owner, partition));
            }
        }
        Ok(())
    }

    /// Whom hints are kept for, and where.
    pub fn owed(&self) -> impl Iterator<Item = (NodeId, Partition)> + '_ {
        self.kept.keys().copied()
    }

    /// Is any kept in this partition?
    pub fn has_any(&self, partition: Partition) -> bool {
        self.kept.keys().any(|(_, held)| *held == partition)
    }

    pub fn by_owner(&self) -> BTreeMap<NodeId, u64> {
        let mut owners = BTreeMap::new();
        for ((owner, _), count) in &self.kept {
            *owners.entry(*owner).or_insert(0) += count.hints;
        }
        owners
    }

    fn add(&mut self, owner: NodeId, partition: Partition, size: u64) {
        let count = self.kept.entry((owner, partition)).or_default();
        count.hints += 1;
        count.bytes += size;
        self.count += 1;
        self.bytes += size;
    }
}

fn scan(turn: &Turn, prefix: &[u8], bytes_max: usize) -> Result<Vec<(Vec<u8>, Delta)>, StoreError> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut damaged = None;
    turn.scan(Space::Hints, prefix, &upper_bound(prefix), &mut |key, value| match decode::<Delta>(value, "a hint") {
        Ok(delta) => {
            bytes += value.len();
            found.push((key.to_vec(), delta));
            bytes < bytes_max
        }
        Err(error) => {
            damaged = Some(error);
            false
        }
    })?;
    match damaged {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

fn key_prefix(partition: Partition, owner: NodeId, key: &Key) -> Vec<u8> {
    let mut at = Vec::with_capacity(40 + key.bytes.len());
    at.extend_from_slice(&partition.0.to_be_bytes());
    at.extend_from_slice(&owner.0.to_be_bytes());
    at.extend_from_slice(&key_hash(key).to_be_bytes());
    at.extend_from_slice(&(key.bytes.len() as u16).to_be_bytes());
    at.extend_from_slice(&key.bytes);
    at
}

/// What a hint says: where, for whom, what. For whoever explains or checks a store from outside.
pub fn inspect_hint(at: &[u8], value: &[u8]) -> Option<(Partition, NodeId, Delta)> {
    let partition = Partition(u16::from_be_bytes(at.get(..2)?.try_into().ok()?));
    Some((partition, owner_of(at)?, decode(value, "a hint").ok()?))
}

fn owner_of(at: &[u8]) -> Option<NodeId> {
    Some(NodeId(u64::from_be_bytes(at.get(2..10)?.try_into().ok()?)))
}
