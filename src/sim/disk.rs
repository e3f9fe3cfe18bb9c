//! A disk that forgets what was not synced.
//!
//! What is committed is readable at once. A killed process loses nothing; a power cut keeps everything synced and a prefix of the
//! batches after it, whole ones, which is what RocksDB gives with point-in-time recovery (`storage::Storage`, promises 2 and 3).
//! One thread: nothing here is shared.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::storage::{Batch, Op, Space, Storage, StoreError};

type Spaces = [BTreeMap<Bytes, Bytes>; Space::ALL.len()];

#[derive(Default)]
pub struct SimDisk {
    live: RefCell<Spaces>,
    durable: RefCell<Spaces>,
    unsynced: RefCell<Vec<Batch>>,
    broken: Cell<Broken>,
    /// Planted: a read that fails finds nothing instead.
    pub hides_errors: Cell<bool>,
    /// What was durable at an earlier moment, and how many commits there had been.
    backup: RefCell<Option<(Box<Spaces>, u64)>>,
    commits: Cell<u64>,
}

/// Which calls fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Broken {
    #[default]
    Nothing,
    Reads,
    Everything,
}

impl SimDisk {
    /// How many batches a power cut could take.
    pub fn unsynced(&self) -> usize {
        self.unsynced.borrow().len()
    }

    /// A power cut that keeps the first `keep` of the batches that were not synced.
    pub fn cut_power(&self, keep: usize) {
        let mut durable = self.durable.borrow_mut();
        for batch in self.unsynced.borrow_mut().drain(..).take(keep) {
            apply(&mut durable, &batch);
        }
        *self.live.borrow_mut() = durable.clone();
    }

    /// An empty disk in its place.
    pub fn wipe(&self) {
        *self.live.borrow_mut() = Spaces::default();
        *self.durable.borrow_mut() = Spaces::default();
        self.unsynced.borrow_mut().clear();
    }

    /// From now on these calls fail. Gives which did before.
    pub fn set_broken(&self, broken: Broken) -> Broken {
        self.broken.replace(broken)
    }

    /// A row is another from now on, or gone, as if it had always been so.
    pub fn damage(&self, key: Bytes, value: Option<Bytes>) {
        for spaces in [&self.live, &self.durable] {
            let rows = &mut spaces.borrow_mut()[Space::Rows.index()];
            match &value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(&key),
            };
        }
    }

    /// Keeps what is durable now, to be restored one day.
    pub fn back_up(&self) {
        let unsynced = self.unsynced() as u64;
        *self.backup.borrow_mut() = Some((Box::new(self.durable.borrow().clone()), self.commits.get() - unsynced));
    }

    /// Restores what was kept. Gives how many commits that loses; `None`: nothing was kept.
    pub fn restore(&self) -> Option<u64> {
        let (spaces, commits) = self.backup.borrow_mut().take()?;
        *self.live.borrow_mut() = (*spaces).clone();
        *self.durable.borrow_mut() = *spaces;
        self.unsynced.borrow_mut().clear();
        let lost = self.commits.get() - commits;
        Some(lost)
    }

    fn is_hidden(&self) -> bool {
        self.hides_errors.get() && self.broken.get() != Broken::Nothing
    }

    fn check_broken(&self, doing: &'static str, reads: bool) -> Result<(), StoreError> {
        if self.broken.get() == Broken::Everything || reads && self.broken.get() == Broken::Reads {
            return Err(StoreError::Io { doing, message: "the simulated disk is broken".into() });
        }
        Ok(())
    }
}

impl Storage for SimDisk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if self.is_hidden() {
            return Ok(None);
        }
        self.check_broken("reading", true)?;
        Ok(self.live.borrow()[space.index()].get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if self.is_hidden() {
            return Ok(());
        }
        self.check_broken("scanning", true)?;
        if from >= to {
            return Ok(());
        }
        for (key, value) in self.live.borrow()[space.index()].range::<[u8], _>(within(from, to)) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.check_broken("committing", false)?;
        self.commits.set(self.commits.get() + 1);
        apply(&mut self.live.borrow_mut(), batch);
        self.unsynced.borrow_mut().push(batch.clone());
        if sync { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.check_broken("syncing", false)?;
        let mut durable = self.durable.borrow_mut();
        for batch in self.unsynced.borrow_mut().drain(..) {
            apply(&mut durable, &batch);
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let live = self.live.borrow();
        live.iter().flat_map(|space| space.iter()).map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

fn apply(spaces: &mut Spaces, batch: &Batch) {
    for op in batch {
        match op {
            Op::Put { space, key, value } => {
                spaces[space.index()].insert(key.clone(), value.clone());
            }
            Op::Delete { space, key } => {
                spaces[space.index()].remove(key);
            }
            Op::DeleteRange { space, from, to } => {
                let space = &mut spaces[space.index()];
                let doomed: Vec<Bytes> = space.range::<[u8], _>(within(from, to)).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    space.remove(&key);
                }
            }
        }
    }
}

fn within<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(disk: &SimDisk, key: &'static str) {
        let mut batch = Batch::new();
        batch.put(Space::Rows, key, "value");
        disk.commit(&batch, false).unwrap();
    }

    fn has(disk: &SimDisk, key: &str) -> bool {
        disk.get(Space::Rows, key.as_bytes()).unwrap().is_some()
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_a_prefix() {
        let disk = SimDisk::default();
        put(&disk, "a");
        disk.sync().unwrap();
        put(&disk, "b");
        put(&disk, "c");
        assert_eq!(disk.unsynced(), 2);
        disk.cut_power(1);
        assert!(has(&disk, "a") && has(&disk, "b") && !has(&disk, "c"));
        put(&disk, "d");
        disk.cut_power(0);
        assert!(has(&disk, "b") && !has(&disk, "d"), "what survived one cut survives the next");
        disk.wipe();
        assert!(!has(&disk, "a"));
    }

    #[test]
    fn an_old_disk_has_what_it_had() {
        let disk = SimDisk::default();
        put(&disk, "a");
        disk.sync().unwrap();
        put(&disk, "b");
        disk.back_up();
        put(&disk, "c");
        assert_eq!(disk.restore(), Some(2), "what was not synced is in no copy");
        assert!(has(&disk, "a") && !has(&disk, "b") && !has(&disk, "c"));
        assert_eq!(disk.restore(), None);
    }

    #[test]
    fn a_broken_disk_never_says_absent() {
        let disk = SimDisk::default();
        disk.set_broken(Broken::Everything);
        assert!(disk.get(Space::Rows, b"a").is_err());
        assert!(disk.commit(&Batch::new(), true).is_err());
    }
}
