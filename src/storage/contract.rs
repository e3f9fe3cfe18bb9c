//! The contract between `node` and whatever keeps its bytes.
//!
//! What every engine promises, and the suite checks:
//!
//! 1. **Order.** Keys of a space are ordered as byte strings; a scan visits them in that order, each once.
//! 2. **Atomicity.** A batch is there wholly or not at all, across all spaces, also after a crash or a power cut.
//! 3. **Prefix.** After a power cut the store holds the effect of a prefix of the batches committed, and at least of all that
//!    were committed before the last `sync` (or `commit(.., true)`) that returned without an error.
//! 4. **Read what was committed.** When `commit` has returned, every later read on any thread sees the batch.
//! 5. **A scan sees one moment**: either all of a batch or nothing of it.
//! 6. **An error is an error.** What cannot be read is never reported as absent. After an error of `commit` or `sync` it is unknown
//!    what will be there at the next start; wrap the engine in [`Fenced`](super::Fenced) so that nobody goes on.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

/// The largest batch that is taken, keys and values added up: 1 GiB. (RocksDB cannot take 4 GiB; every bound on a key or a value
/// that a client meets is far below this.)
pub const MAX_BATCH_BYTES: usize = 1 << 30;

/// A storage as lanes share it.
pub type SharedStorage = Arc<dyn Storage + Send + Sync>;

/// Four separate orders of keys under one atomic batch. They are separate because they live differently: rows stay and are read by
/// point and by prefix, log entries and hints are written once, read once in order and dropped, meta is small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// The rows of objects. The first ten bytes of a key are `partition u16 | key hash u64`, both big-endian; engines may speed up
    /// scans that stay within such a prefix, but no engine depends on it.
    Rows,
    /// What some owner may still miss.
    Log,
    /// What is kept for an owner that is away.
    Hints,
    /// What each partition has seen, and the node's own small facts.
    Meta,
}

impl Space {
    pub const ALL: [Space; 4] = [Space::Rows, Space::Log, Space::Hints, Space::Meta];

    /// Its place in [`Space::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// As logs and RocksDB call it.
    pub fn name(self) -> &'static str {
        match self {
            Space::Rows => "rows",
            Space::Log => "log",
            Space::Hints => "hints",
            Space::Meta => "meta",
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// One step of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Put {
        space: Space,
        key: Bytes,
        value: Bytes,
    },
    Delete {
        space: Space,
        key: Bytes,
    },
    /// Every key with `from <= key < to`.
    DeleteRange {
        space: Space,
        from: Bytes,
        to: Bytes,
    },
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } => key.len(),
            Op::DeleteRange { from, to, .. } => from.len() + to.len(),
        }
    }
}

/// Steps that become visible and durable together, applied in the order in which they were added: a later step wins.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `ops` steps without growing.
    pub fn with_capacity(ops: usize) -> Self {
        Self { ops: Vec::with_capacity(ops), bytes: 0 }
    }

    pub fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Op::Put { space, key: key.into(), value: value.into() });
    }

    /// Deleting what is not there is no error.
    pub fn delete(&mut self, space: Space, key: impl Into<Bytes>) {
        self.push(Op::Delete { space, key: key.into() });
    }

    /// Deletes every key with `from <= key < to`; an empty range is no step at all. Made for dropping much at once: engines keep a
    /// mark per range until they compact, so below a handful of keys [`Batch::delete`] is cheaper.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (from, to) = (from.into(), to.into());
        if from < to {
            self.push(Op::DeleteRange { space, from, to });
        }
    }

    /// Adds another batch's steps behind this one's and leaves that one empty.
    pub fn append(&mut self, other: &mut Batch) {
        self.bytes += other.bytes;
        self.ops.append(&mut other.ops);
        other.bytes = 0;
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Keys and values, added up.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the steps and keeps the room.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.bytes = 0;
    }

    /// The steps in order.
    pub fn ops(&self) -> std::slice::Iter<'_, Op> {
        self.ops.iter()
    }

    /// What every engine asks before it takes a batch.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.bytes > MAX_BATCH_BYTES {
            return Err(StoreError::Invalid {
                what: format!("a batch of {} bytes; the largest is {MAX_BATCH_BYTES}", self.bytes),
            });
        }
        Ok(())
    }

    fn push(&mut self, op: Op) {
        self.bytes += op.bytes();
        self.ops.push(op);
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Op;
    type IntoIter = std::slice::Iter<'a, Op>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops()
    }
}

/// An ordered store of bytes. The module's first lines say what every implementation promises.
///
/// Methods take `&self` and may be called from many threads at once; callers write to disjoint ranges of keys.
pub trait Storage {
    /// The value under `key`, `None` only if the store can be sure that there is none.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `visit(key, value)` for the entries with `from <= key < to`, ascending, until it answers `false` (stop). Nothing is
    /// collected: a page's bound is the visitor's. An empty range visits nothing. The visitor must not call the store: an engine
    /// may hold a lock meanwhile. If this returns an error, what was visited before is sound, but it was not all.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// Takes the whole batch or nothing. With `sync` it and everything before it is durable on return; without, it survives the end
    /// of the process but perhaps not a power cut, until the next [`Storage::sync`].
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError>;

    /// As [`Storage::commit`] without `sync`, if the engine takes the batch without making the caller wait until it has caught up with
    /// what it owes its files. False: it does not, and nothing was done.
    fn commit_at_once(&self, batch: &Batch) -> Result<bool, StoreError> {
        self.commit(batch, false).map(|()| true)
    }

    /// Everything whose commit had returned before this call is durable on return.
    fn sync(&self) -> Result<(), StoreError>;

    /// For an orderly shutdown: everything is durable on return and opening again has nothing to replay. Background work is over;
    /// the store may still be read and written, but is best dropped next.
    fn flush(&self) -> Result<(), StoreError> {
        self.sync()
    }

    /// Asks the engine whether something broke behind its back (a background write, say). Cheap; call it once a second or so,
    /// since an idle node would not notice otherwise.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// About how many bytes are on disk. May list a directory: for `status` and metrics, not for every request.
    fn size_bytes(&self) -> u64;

    /// Bytes that can still be written to the file system below, if there is one. For refusing new writes at the door *before* the
    /// disk is full, since a full disk fences the store. A system call: ask it once a second or so.
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

macro_rules! storage_through_a_pointer {
    ($($pointer:ty),+) => {$(
        impl<S: Storage + ?Sized> Storage for $pointer {
            fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
                (**self).get(space, key)
            }
            fn scan(
                &self,
                space: Space,
                from: &[u8],
                to: &[u8],
                visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
            ) -> Result<(), StoreError> {
                (**self).scan(space, from, to, visit)
            }
            fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
                (**self).commit(batch, sync)
            }
            fn commit_at_once(&self, batch: &Batch) -> Result<bool, StoreError> {
                (**self).commit_at_once(batch)
            }
            fn sync(&self) -> Result<(), StoreError> {
                (**self).sync()
            }
            fn flush(&self) -> Result<(), StoreError> {
                (**self).flush()
            }
            fn check(&self) -> Result<(), StoreError> {
                (**self).check()
            }
            fn size_bytes(&self) -> u64 {
                (**self).size_bytes()
            }
            fn free_bytes(&self) -> Option<u64> {
                (**self).free_bytes()
            }
        }
    )+};
}

storage_through_a_pointer!(&S, Arc<S>, Box<S>);

/// What a store can answer instead of doing what was asked. Of these only [`StoreError::Invalid`] leaves the store as it was and fit
/// for use; after any other the outcome of the call is unknown and [`Fenced`](super::Fenced) closes the store until a restart.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StoreError {
    /// The operating system refused or failed.
    #[error("{doing}: {message}; look at the disk and the system log, then restart the node")]
    Io { doing: &'static str, message: String },

    /// What is on disk is not what was written there.
    #[error(
        "{doing}: damaged data: {message}; replace the disk if it is failing, empty the data folder and let the node sync again"
    )]
    Corrupt { doing: &'static str, message: String },

    /// No space, or over quota.
    #[error("{doing}: the disk is full ({message}); free some space, then restart the node")]
    Full { doing: &'static str, message: String },

    /// An earlier error closed the store. Nothing was read, nothing was written.
    #[error("the store is closed since an earlier error: {cause}")]
    Fenced { cause: String },

    /// The call itself is at fault. Nothing was done and the store is as it was.
    #[error("not a call the store can take: {what}")]
    Invalid { what: String },
}

impl StoreError {
    /// Whether the caller is at fault and the store is as good as before.
    pub fn is_callers_mistake(&self) -> bool {
        matches!(self, StoreError::Invalid { .. })
    }
}

/// The smallest key above every key that begins with `prefix`: the `to` of a scan over that prefix. `None` if there is no such key
/// (the prefix is empty or all 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_just_above_all_its_keys() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\x00"), Some(b"\x01".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn a_batch_counts_what_it_carries() {
        let mut batch = Batch::new();
        batch.put(Space::Rows, "key", "value");
        batch.delete(Space::Log, "key");
        batch.delete_range(Space::Hints, "a", "c");
        batch.delete_range(Space::Hints, "c", "c");
        batch.delete_range(Space::Hints, "d", "c");
        assert_eq!((batch.len(), batch.bytes()), (3, 8 + 3 + 2), "empty ranges are no steps");
        let mut all = Batch::new();
        all.append(&mut batch);
        assert_eq!((all.len(), all.bytes(), batch.len(), batch.bytes()), (3, 13, 0, 0));
        all.clear();
        assert!(all.is_empty() && all.bytes() == 0);
    }
}
