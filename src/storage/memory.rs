//! The engine in memory: four ordered maps behind one lock. For tests, the simulator's disk and throw-away nodes.
//!
//! It forgets everything when it is dropped, so `sync` has nothing to do; it is the model that the other engines are compared with.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::contract::{Batch, Op, Space, Storage, StoreError};

/// An empty one is `MemoryStore::default()`.
#[derive(Default)]
pub struct MemoryStore {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    spaces: [BTreeMap<Bytes, Bytes>; Space::ALL.len()],
    bytes: u64,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    // A writer can only have panicked for want of memory, halfway through a batch; a visitor that panics holds a read lock,
    // which does not poison. Half a batch must not be served, so poison is an error.
    fn read(&self) -> Result<RwLockReadGuard<'_, Kept>, StoreError> {
        self.kept.read().map_err(|_| half_a_batch())
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Kept>, StoreError> {
        self.kept.write().map_err(|_| half_a_batch())
    }
}

impl Storage for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read()?.spaces[space.index()].get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let kept = self.read()?;
        for (key, value) in kept.spaces[space.index()].range::<[u8], _>(within(from, to)) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch, _sync: bool) -> Result<(), StoreError> {
        batch.check()?;
        let mut kept = self.write()?;
        for op in batch {
            kept.apply(op);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.read().map(|_| ())
    }

    /// Keys and values, added up: what is in memory, there being no disk.
    fn size_bytes(&self) -> u64 {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

impl Kept {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { space, key, value } => {
                self.bytes += (key.len() + value.len()) as u64;
                if let Some(old) = self.spaces[space.index()].insert(key.clone(), value.clone()) {
                    self.bytes -= (key.len() + old.len()) as u64;
                }
            }
            Op::Delete { space, key } => self.remove(*space, key),
            Op::DeleteRange { space, from, to } => {
                let doomed = self.spaces[space.index()].range::<[u8], _>(within(from, to));
                let doomed: Vec<Bytes> = doomed.map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    self.remove(*space, &key);
                }
            }
        }
    }

    fn remove(&mut self, space: Space, key: &[u8]) {
        if let Some(old) = self.spaces[space.index()].remove(key) {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }
}

/// `from <= key < to`. A map panics at a range that is upside down; callers have seen to it that it is not.
pub(super) fn within<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}

fn half_a_batch() -> StoreError {
    StoreError::Corrupt { doing: "using the store in memory", message: "a commit panicked halfway".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_follows_what_is_kept() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Space::Rows, "a", "1234");
        batch.put(Space::Rows, "b", "1");
        batch.put(Space::Log, "a", "");
        store.commit(&batch, false).unwrap();
        assert_eq!(store.size_bytes(), 5 + 2 + 1);
        batch.clear();
        batch.put(Space::Rows, "a", "1");
        batch.delete(Space::Rows, "gone before it came");
        batch.delete_range(Space::Log, "a", "b");
        store.commit(&batch, false).unwrap();
        assert_eq!(store.size_bytes(), 4);
    }
}
