//! What is known of every key. Shared by all threads of the load; a key's lock is held for a few instructions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::counter::Counter;
use super::members::Members;
use super::register::Register;
use crate::load::workload::{FIELDS, Model};

/// Keys are made room for by so many at once, when the first of them is used.
const CHUNK: usize = 1 << 14;
/// Keys that a run may have, those that it inserts included. They cost some 100 bytes each.
pub const KEYS_MAX: u32 = 1 << 26;

type Chunk<T> = Box<[Mutex<T>]>;

/// Something that grows by chunks and never moves.
struct Chunks<T> {
    chunks: Box<[OnceLock<Chunk<T>>]>,
}

impl<T: Default> Chunks<T> {
    fn new(most: usize) -> Self {
        Self { chunks: (0..most.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    fn at(&self, at: usize) -> MutexGuard<'_, T> {
        let chunk = self.chunks[at / CHUNK].get_or_init(|| (0..CHUNK).map(|_| Mutex::default()).collect());
        // Whoever panicked while it held the lock has ended the run.
        chunk[at % CHUNK].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is known of every key.
pub struct Ledger {
    pub run: u32,
    pub model: Model,
    /// Keys that are there to be asked for.
    count: AtomicU32,
    /// Keys that were claimed for an insert; at least `count`.
    claimed: AtomicU32,
    most: u32,
    registers: Chunks<Register>,
    counters: Chunks<Counter>,
    members: Chunks<Members>,
}

impl Ledger {
    /// Keys `0..keys` are there from the beginning; inserts may double them or add a million.
    pub fn new(run: u32, model: Model, keys: u32) -> Self {
        let most = keys.saturating_mul(2).max(keys.saturating_add(1_000_000)).min(KEYS_MAX);
        let room = |wanted: bool, each: u32| if wanted { most as usize * each as usize } else { 0 };
        let (maps, counters) = (model == Model::Maps, model == Model::Counters);
        Self {
            run,
            model,
            count: AtomicU32::new(keys),
            claimed: AtomicU32::new(keys),
            most,
            registers: Chunks::new(room(
                matches!(model, Model::Strings | Model::Siblings | Model::Maps),
                if maps { FIELDS } else { 1 },
            )),
            counters: Chunks::new(room(counters || maps, 1)),
            members: Chunks::new(room(model == Model::Sets, 1)),
        }
    }

    /// Keys that are there to be asked for.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// A key for an insert; `None`: there is no more room.
    pub fn claim(&self) -> Option<u32> {
        let more = |claimed: u32| (claimed < self.most).then(|| claimed + 1);
        self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()
    }

    /// An insert has ended: keys up to this one may be asked for. Some before it may still be under way: nothing is owed of them yet.
    pub fn inserted(&self, key: u32) {
        self.count.fetch_max(key + 1, Ordering::Relaxed);
    }

    pub fn register(&self, item: u32) -> MutexGuard<'_, Register> {
        self.registers.at(item as usize)
    }

    pub fn counter(&self, key: u32) -> MutexGuard<'_, Counter> {
        self.counters.at(key as usize)
    }

    pub fn members(&self, key: u32) -> MutexGuard<'_, Members> {
        self.members.at(key as usize)
    }

    /// Keys that may have been written: all below this.
    pub fn claimed(&self) -> u32 {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Was anything ever begun there?
    pub fn is_written(&self, key: u32) -> bool {
        match self.model {
            _ if key >= self.most => false,
            Model::Strings | Model::Siblings => self.register(key).is_written(),
            Model::Counters => self.counter(key).is_written(),
            Model::Sets => self.members(key).is_written(),
            Model::Maps => {
                self.counter(key).is_written()
                    || (0..FIELDS).any(|field| self.register(key * FIELDS + field).is_written())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_up_to_a_bound() {
        let ledger = Ledger::new(1, Model::Strings, 10);
        assert_eq!((ledger.count(), ledger.claim(), ledger.count()), (10, Some(10), 10));
        ledger.inserted(10);
        assert_eq!(ledger.count(), 11);
        let more = (0..2_000_000).map_while(|_| ledger.claim()).count();
        assert_eq!(more, 999_999, "a million beyond the first ten");
    }

    #[test]
    fn a_key_is_written_when_anything_in_it_was() {
        let ledger = Ledger::new(1, Model::Maps, 10);
        assert!(!ledger.is_written(3));
        ledger.register(3 * FIELDS + 1).begin(false);
        assert!(ledger.is_written(3) && !ledger.is_written(2) && !ledger.is_written(4));
    }
}
