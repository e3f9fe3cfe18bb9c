//! A turn's writes in front of the store: read as if they were committed, committed as one batch when the turn ends.
//!
//! ```text
//!   get(key)          the turn's map ── has it ──▶ the new value, or "deleted"
//!                          │ has not
//!                     the turn's ranges ── within one ──▶ "deleted"
//!                          │ not
//!                     the store
//! ```
//! What a range deletes is kept apart from what is put: a range removes the puts it covers from the map as it comes, so what is in
//! the map is always newer than any range over it, and a batch of ranges first, then the map, says the same as the order in
//! which things were written.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::contract::{Batch, Space, Storage, StoreError};
use super::memory::within;

/// Uncommitted writes over a store. Bounded by whoever drives it: ask [`Overlay::bytes`] and end the turn.
pub struct Overlay<'a, S: ?Sized> {
    store: &'a S,
    spaces: [Pending; Space::ALL.len()],
    bytes: usize,
}

#[derive(Default)]
struct Pending {
    /// `None` is a deletion.
    written: BTreeMap<Bytes, Option<Bytes>>,
    /// Ranges deleted from the store, `from <= key < to`, in the order in which they came. Nearly always empty.
    ranges: Vec<(Bytes, Bytes)>,
}

impl<'a, S: Storage + ?Sized> Overlay<'a, S> {
    pub fn new(store: &'a S) -> Self {
        Self { store, spaces: Default::default(), bytes: 0 }
    }

    /// The store below, as it is without this turn's writes.
    pub fn store(&self) -> &'a S {
        self.store
    }

    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let pending = &self.spaces[space.index()];
        if let Some(written) = pending.written.get(key) {
            return Ok(written.clone());
        }
        if pending.is_range_deleted(key) {
            return Ok(None);
        }
        self.store.get(space, key)
    }

    /// As [`Storage::scan`], over both. Nothing is collected, the store's scan runs underneath.
    pub fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let pending = &self.spaces[space.index()];
        let mut written = pending.written.range::<[u8], _>(within(from, to)).peekable();
        if written.peek().is_none() && pending.ranges.is_empty() {
            return self.store.scan(space, from, to, visit);
        }
        let mut go_on = true;
        self.store.scan(space, from, to, &mut |key, value| {
            while let Some((new_key, new_value)) = written.next_if(|(new_key, _)| new_key.as_ref() < key) {
                if let Some(new_value) = new_value
                    && !visit(new_key, new_value)
                {
                    go_on = false;
                    return false;
                }
            }
            go_on = match written.next_if(|(new_key, _)| new_key.as_ref() == key) {
                Some((_, Some(new_value))) => visit(key, new_value),
                Some((_, None)) => true,
                None => pending.is_range_deleted(key) || visit(key, value),
            };
            go_on
        })?;
        if go_on {
            for (key, value) in written {
                if let Some(value) = value
                    && !visit(key, value)
                {
                    break;
                }
            }
        }
        Ok(())
    }

    pub fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.write(space, key.into(), Some(value.into()));
    }

    pub fn delete(&mut self, space: Space, key: impl Into<Bytes>) {
        self.write(space, key.into(), None);
    }

    /// Deletes every key with `from <= key < to`, in the store and in what this turn has written so far.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (from, to) = (from.into(), to.into());
        if from >= to {
            return;
        }
        let pending = &mut self.spaces[space.index()];
        let covered = pending.written.range::<[u8], _>(within(&from, &to));
        let covered: Vec<Bytes> = covered.map(|(key, _)| key.clone()).collect();
        for key in covered {
            let value = pending.written.remove(&key).flatten();
            self.bytes -= key.len() + value.map_or(0, |value| value.len());
        }
        self.bytes += from.len() + to.len();
        pending.ranges.push((from, to));
    }

    /// What this turn has put in a space, or deleted, which is `None`, in order; not what it has deleted as a range.
    pub fn written(&self, space: Space) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.spaces[space.index()].written.iter().map(|(key, value)| (&key[..], value.as_deref()))
    }

    /// Where the ranges begin that this turn has deleted from a space.
    pub fn deleted_ranges(&self, space: Space) -> impl Iterator<Item = &[u8]> {
        self.spaces[space.index()].ranges.iter().map(|(from, _)| &from[..])
    }

    /// Has this turn put or deleted anything that begins so?
    pub fn touches(&self, space: Space, prefix: &[u8]) -> bool {
        let pending = &self.spaces[space.index()];
        if pending.written.is_empty() {
            return !pending.ranges.is_empty();
        }
        let mut from = pending.written.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        from.next().is_some_and(|(key, _)| key.starts_with(prefix)) || !pending.ranges.is_empty()
    }

    /// Number of steps that a batch taken now would have.
    pub fn len(&self) -> usize {
        self.spaces.iter().map(|pending| pending.written.len() + pending.ranges.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.spaces.iter().all(|pending| pending.written.is_empty() && pending.ranges.is_empty())
    }

    /// Keys and values that a batch taken now would carry, added up.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what was written as a batch, sorted by space and key, and leaves the overlay empty over the same store. Commit it
    /// before reading again: until then the overlay no longer sees it and the store does not yet.
    pub fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::with_capacity(self.len());
        for space in Space::ALL {
            let pending = std::mem::take(&mut self.spaces[space.index()]);
            for (from, to) in pending.ranges {
                batch.delete_range(space, from, to);
            }
            for (key, value) in pending.written {
                match value {
                    Some(value) => batch.put(space, key, value),
                    None => batch.delete(space, key),
                }
            }
        }
        self.bytes = 0;
        batch
    }

    pub fn into_batch(mut self) -> Batch {
        self.take_batch()
    }

    fn write(&mut self, space: Space, key: Bytes, value: Option<Bytes>) {
        let key_len = key.len();
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        match self.spaces[space.index()].written.insert(key, value) {
            Some(old) => self.bytes -= old.map_or(0, |old| old.len()),
            None => self.bytes += key_len,
        }
    }
}

impl Pending {
    fn is_range_deleted(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|(from, to)| from.as_ref() <= key && key < to.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(Space, Vec<u8>, Vec<u8>),
        Delete(Space, Vec<u8>),
        DeleteRange(Space, Vec<u8>, Vec<u8>),
        /// Ends the turn: the overlay's batch is committed.
        Commit,
    }

    /// Few short keys, so that steps meet.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0u8..4, 0..4)
    }

    fn step() -> impl Strategy<Value = Step> {
        let space = || proptest::sample::select(&Space::ALL[..2]);
        prop_oneof![
            6 => (space(), key(), proptest::collection::vec(any::<u8>(), 0..3))
                .prop_map(|(space, key, value)| Step::Put(space, key, value)),
            3 => (space(), key()).prop_map(|(space, key)| Step::Delete(space, key)),
            2 => (space(), key(), key()).prop_map(|(space, from, to)| Step::DeleteRange(space, from, to)),
            1 => Just(Step::Commit),
        ]
    }

    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    fn page(
        limit: usize,
        scan: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>,
    ) -> Entries {
        let mut entries = Entries::new();
        scan(&mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            entries.len() < limit
        })
        .unwrap();
        entries
    }

    proptest! {
        /// The law: whatever is written through an overlay reads as if it had been committed at once, before the turn ends and after.
        #[test]
        fn an_overlay_reads_as_if_committed(
            steps in proptest::collection::vec(step(), 1..60),
            asked in proptest::collection::vec((key(), key(), 1usize..6), 8),
        ) {
            let (store, direct) = (MemoryStore::new(), MemoryStore::new());
            let mut overlay = Overlay::new(&store);
            for step in steps {
                let mut batch = Batch::new();
                match step {
                    Step::Put(space, key, value) => {
                        overlay.put(space, key.clone(), value.clone());
                        batch.put(space, key, value);
                    }
                    Step::Delete(space, key) => {
                        overlay.delete(space, key.clone());
                        batch.delete(space, key);
                    }
                    Step::DeleteRange(space, from, to) => {
                        overlay.delete_range(space, from.clone(), to.clone());
                        batch.delete_range(space, from, to);
                    }
                    Step::Commit => {
                        let (len, bytes) = (overlay.len(), overlay.bytes());
                        let taken = overlay.take_batch();
                        prop_assert_eq!((taken.len(), taken.bytes()), (len, bytes));
                        prop_assert!(overlay.is_empty() && overlay.bytes() == 0);
                        store.commit(&taken, false).unwrap();
                    }
                }
                direct.commit(&batch, false).unwrap();
                for space in Space::ALL {
                    for (from, to, limit) in &asked {
                        prop_assert_eq!(overlay.get(space, from).unwrap(), direct.get(space, from).unwrap());
                        let seen = page(*limit, |visit| overlay.scan(space, from, to, visit));
                        let expected = page(*limit, |visit| direct.scan(space, from, to, visit));
                        prop_assert_eq!(seen, expected);
                    }
                }
            }
            store.commit(&overlay.into_batch(), false).unwrap();
            for space in Space::ALL {
                let all = |store: &MemoryStore| page(usize::MAX, |visit| store.scan(space, b"", b"\xff", visit));
                prop_assert_eq!(all(&store), all(&direct));
            }
        }
    }

    #[test]
    fn a_visitor_that_stops_in_the_overlay_stops_the_store() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Space::Rows, "b", "old");
        batch.put(Space::Rows, "d", "old");
        store.commit(&batch, false).unwrap();
        let mut overlay = Overlay::new(&store);
        overlay.put(Space::Rows, "a", "new");
        overlay.put(Space::Rows, "e", "new");
        assert_eq!(page(1, |visit| overlay.scan(Space::Rows, b"a", b"z", visit)).len(), 1);
        let keys: Vec<_> =
            page(9, |visit| overlay.scan(Space::Rows, b"a", b"z", visit)).into_iter().map(|e| e.0).collect();
        assert_eq!(keys, [b"a", b"b", b"d", b"e"]);
    }
}
