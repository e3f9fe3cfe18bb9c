//! What every `Storage` promises, checked over each engine; what only durable ones can promise, over those; and the fence.
//!
//! A case is a function over a [`World`]; the macro at the end makes a test of each case for each world. A new engine (a
//! simulated disk, say) joins with a `World` and one line there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tidewater::data::id::mix64;
use tidewater::storage::{
    Batch, Fenced, MAX_BATCH_BYTES, MemoryStore, Overlay, SharedStorage, Space, Storage, StoreError, prefix_end,
};

/// A place in which a store lives.
trait World {
    /// Opens the store of this world; again, after the former was dropped, whatever the world keeps of it.
    fn open(&self) -> SharedStorage;
}

struct Memory;

impl World for Memory {
    fn open(&self) -> SharedStorage {
        Arc::new(MemoryStore::new())
    }
}

#[cfg(feature = "rocks")]
struct Rocks(tempfile::TempDir);

#[cfg(feature = "rocks")]
impl Rocks {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[cfg(feature = "rocks")]
impl World for Rocks {
    fn open(&self) -> SharedStorage {
        use tidewater::storage::{RocksOptions, RocksStore};
        Arc::new(RocksStore::open(self.0.path(), RocksOptions { memory_bytes: 0 }).unwrap())
    }
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn entries(store: &(impl Storage + ?Sized), space: Space, from: &[u8], to: &[u8], limit: usize) -> Entries {
    let mut found = Entries::new();
    store
        .scan(space, from, to, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            found.len() < limit
        })
        .unwrap();
    found
}

fn keys(store: &(impl Storage + ?Sized), space: Space, from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
    entries(store, space, from, to, usize::MAX).into_iter().map(|(key, _)| key).collect()
}

fn put(store: &(impl Storage + ?Sized), space: Space, pairs: &[(&[u8], &[u8])]) {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(space, key.to_vec(), value.to_vec());
    }
    store.commit(&batch, false).unwrap();
}

/// A row's key as the node builds them: the prefix that engines may index by, then the rest.
fn row(partition: u16, hash: u64, rest: &[u8]) -> Vec<u8> {
    [&partition.to_be_bytes()[..], &hash.to_be_bytes(), rest].concat()
}

// ---- every engine ----

fn an_empty_store_has_nothing(world: &dyn World) {
    let store = world.open();
    for space in Space::ALL {
        assert_eq!(store.get(space, b"").unwrap(), None);
        assert_eq!(store.get(space, b"key").unwrap(), None);
        assert!(keys(&store, space, b"", &[0xff; 64]).is_empty());
    }
    store.commit(&Batch::new(), false).unwrap();
    store.commit(&Batch::new(), true).unwrap();
    store.check().unwrap();
}

fn a_batch_is_visible_in_all_spaces_at_once(world: &dyn World) {
    let store = world.open();
    let mut batch = Batch::new();
    for space in Space::ALL {
        batch.put(space, "key", space.name());
    }
    store.commit(&batch, false).unwrap();
    for space in Space::ALL {
        assert_eq!(store.get(space, b"key").unwrap(), Some(Bytes::from(space.name())), "spaces are separate");
    }
    batch.clear();
    batch.delete(Space::Log, "key");
    store.commit(&batch, false).unwrap();
    assert_eq!(store.get(Space::Log, b"key").unwrap(), None);
    assert!(store.get(Space::Rows, b"key").unwrap().is_some());
}

fn a_later_step_of_a_batch_wins(world: &dyn World) {
    let store = world.open();
    let mut batch = Batch::new();
    batch.put(Space::Meta, "a", "1");
    batch.put(Space::Meta, "a", "2");
    batch.put(Space::Meta, "b", "1");
    batch.delete(Space::Meta, "b");
    batch.delete(Space::Meta, "c");
    batch.put(Space::Meta, "c", "1");
    batch.put(Space::Meta, "d", "1");
    batch.put(Space::Meta, "e", "1");
    batch.delete_range(Space::Meta, "d", "f");
    batch.put(Space::Meta, "e", "2");
    store.commit(&batch, false).unwrap();
    let expected: Entries = [("a", "2"), ("c", "1"), ("e", "2")].map(|(k, v)| (k.into(), v.into())).to_vec();
    assert_eq!(entries(&store, Space::Meta, b"", b"z", 9), expected);
}

fn scans_are_ordered_and_bounded(world: &dyn World) {
    let store = world.open();
    for space in Space::ALL {
        put(
            &*store,
            space,
            &[(b"b", b"2"), (b"", b"0"), (b"a", b"1"), (b"a\x00", b"1"), (b"\xff\xff", b"9"), (b"ab", b"")],
        );
        let all: [&[u8]; 6] = [b"", b"a", b"a\x00", b"ab", b"b", b"\xff\xff"];
        assert_eq!(keys(&store, space, b"", b"\xff\xff\xff"), all, "as byte strings, the empty key first");
        assert_eq!(keys(&store, space, b"a", b"b"), all[1..4], "from is in, to is out");
        assert_eq!(keys(&store, space, b"a\x00\x00", b"ab\x00"), all[3..4], "bounds need not exist");
        assert_eq!(keys(&store, space, b"a", b"a"), all[..0], "nothing lies between a and a");
        assert_eq!(keys(&store, space, b"b", b"a"), all[..0], "upside down is empty");
        assert_eq!(entries(&store, space, b"a", b"\xff", 2).len(), 2, "stops when told to");
    }
}

/// Engines may answer scans within ten bytes of prefix from a filter: whatever the filter, the answer is the same.
fn scans_within_and_across_row_prefixes_agree(world: &dyn World) {
    let store = world.open();
    let mut all = Vec::new();
    for partition in 0..3 {
        for hash in [0, 1, 0xff, 0x0100, u64::MAX - 1, u64::MAX] {
            for rest in [&b""[..], b"k\x00", b"k\x00member", b"\xff"] {
                all.push(row(partition, hash, rest));
            }
        }
    }
    let check = |store: &SharedStorage| {
        assert_eq!(keys(store, Space::Rows, b"", b"\xff"), all);
        assert_eq!(keys(store, Space::Rows, &[0, 1], &[0, 2]), all[24..48], "a partition");
        for (index, prefix) in all.iter().step_by(4).enumerate() {
            let of_one = &all[index * 4..index * 4 + 4];
            assert_eq!(keys(store, Space::Rows, prefix, &prefix_end(prefix).unwrap()), of_one);
            let from = [&prefix[..], b"k"].concat();
            assert_eq!(keys(store, Space::Rows, &from, &[&prefix[..], b"l"].concat()), of_one[1..3]);
            assert_eq!(keys(store, Space::Rows, &from, b"\xff"), all[index * 4 + 1..], "leaves the prefix");
        }
        for absent in [row(0, 2, b""), row(9, 0, b"")] {
            assert!(keys(store, Space::Rows, &absent, &prefix_end(&absent).unwrap()).is_empty());
            assert!(keys(store, Space::Rows, &absent, &prefix_end(&absent[..10]).unwrap()).is_empty());
            assert_eq!(store.get(Space::Rows, &absent).unwrap(), None);
        }
        // From before the first object through many: no filter may hide what lies between.
        assert_eq!(keys(store, Space::Rows, &row(0, 2, b""), &row(2, 2, b"")), all[8..56]);
    };
    for half in 0..2 {
        let mut batch = Batch::new();
        for key in all.iter().skip(half).step_by(2) {
            batch.put(Space::Rows, key.clone(), key.clone());
        }
        store.commit(&batch, false).unwrap();
        // Half of it in the engine's files, half still in its memory, then all in files.
        if half == 0 {
            store.flush().unwrap();
        }
    }
    check(&store);
    store.flush().unwrap();
    check(&store);
}

fn delete_range_deletes_what_lies_within(world: &dyn World) {
    let store = world.open();
    for hash in 0..100 {
        put(&*store, Space::Rows, &[(&row(1, hash, b"a"), b"1"), (&row(1, hash, b"b"), b"2")]);
        put(&*store, Space::Log, &[(&row(1, hash, b"a"), b"1")]);
    }
    let mut batch = Batch::new();
    batch.delete_range(Space::Rows, row(1, 10, b"b"), row(1, 90, b"b"));
    batch.delete_range(Space::Rows, row(1, 95, b""), row(1, 94, b""));
    store.commit(&batch, false).unwrap();
    let check = |store: &SharedStorage| {
        assert_eq!(keys(store, Space::Rows, b"", b"\xff").len(), 21 + 19);
        assert!(store.get(Space::Rows, &row(1, 10, b"a")).unwrap().is_some());
        assert_eq!(store.get(Space::Rows, &row(1, 10, b"b")).unwrap(), None);
        assert_eq!(store.get(Space::Rows, &row(1, 90, b"a")).unwrap(), None);
        assert!(store.get(Space::Rows, &row(1, 90, b"b")).unwrap().is_some());
        assert_eq!(keys(store, Space::Rows, &row(1, 10, b""), &row(1, 11, b"")).len(), 1, "within a prefix too");
        assert_eq!(keys(store, Space::Log, b"", b"\xff").len(), 100, "the other spaces keep theirs");
    };
    check(&store);
    store.flush().unwrap();
    check(&store);
    put(&*store, Space::Rows, &[(&row(1, 50, b"a"), b"again")]);
    assert_eq!(keys(&store, Space::Rows, &row(1, 50, b""), &row(1, 51, b"")), [row(1, 50, b"a")]);
}

fn empty_and_big_keys_and_values(world: &dyn World) {
    let store = world.open();
    let big_key = vec![7; 64 << 10];
    // Not to be compressed away: the size is asked below.
    let big_value: Vec<u8> = (0..1 << 20).flat_map(|word| mix64(word).to_be_bytes()).collect();
    put(
        &*store,
        Space::Rows,
        &[(b"", b"of the empty key"), (b"empty", b""), (&big_key, &big_value), (b"big", &big_value)],
    );
    for flushed in [false, true] {
        assert_eq!(store.get(Space::Rows, b"").unwrap(), Some(Bytes::from("of the empty key")));
        assert_eq!(store.get(Space::Rows, b"empty").unwrap(), Some(Bytes::new()), "empty is not absent ({flushed})");
        assert!(store.get(Space::Rows, &big_key).unwrap().unwrap() == big_value);
        assert!(store.get(Space::Rows, b"big").unwrap().unwrap() == big_value);
        assert_eq!(store.get(Space::Rows, &big_key[1..]).unwrap(), None);
        store.flush().unwrap();
    }
    assert!(store.size_bytes() > 8 << 20, "{} bytes are too few", store.size_bytes());
}

/// The batch only claims its size: one page of memory, added many times.
fn a_batch_over_the_bound_is_the_callers_mistake(world: &dyn World) {
    let store = Fenced::new(world.open());
    let page = Bytes::from(vec![1; 16 << 20]);
    let mut batch = Batch::new();
    while batch.bytes() <= MAX_BATCH_BYTES {
        batch.put(Space::Rows, "key", page.clone());
    }
    let error = store.commit(&batch, false).unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert_eq!(store.fenced(), None);
    assert_eq!(store.get(Space::Rows, b"key").unwrap(), None, "nothing was done");
}

/// While one thread writes the same number everywhere, others never see two numbers in one scan.
fn a_scan_sees_one_moment(world: &dyn World) {
    let store = world.open();
    let write = |number: u32| {
        let mut batch = Batch::new();
        for hash in 0..50 {
            batch.put(Space::Rows, row(0, hash, b"key"), number.to_be_bytes().to_vec());
        }
        store.commit(&batch, false).unwrap();
    };
    write(0);
    let done = AtomicU32::new(0);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while done.load(Ordering::Acquire) == 0 {
                    let mut values: Vec<_> =
                        entries(&store, Space::Rows, b"", b"\xff", 99).into_iter().map(|e| e.1).collect();
                    assert_eq!(values.len(), 50);
                    values.dedup();
                    assert_eq!(values.len(), 1, "two moments in one scan");
                }
            });
        }
        (1..300).for_each(write);
        done.store(1, Ordering::Release);
    });
}

/// However far the engine is behind, a batch is taken whole, or not at all and can be given again.
fn a_commit_at_once_is_whole_or_nothing(world: &dyn World) {
    let store = world.open();
    let piece = Bytes::from(vec![7; 512 << 10]);
    for number in 0..64 {
        let mut batch = Batch::new();
        let (one, other) = (row(0, number, b"one"), row(9, number, b"other"));
        batch.put(Space::Rows, one.clone(), piece.clone());
        batch.put(Space::Log, other.clone(), piece.clone());
        let taken = store.commit_at_once(&batch).unwrap();
        assert_eq!(store.get(Space::Rows, &one).unwrap().is_some(), taken);
        assert_eq!(store.get(Space::Log, &other).unwrap().is_some(), taken);
        if !taken {
            store.commit(&batch, false).unwrap();
        }
    }
    assert_eq!(keys(&store, Space::Rows, b"", b"\xff").len(), 64);
    assert_eq!(keys(&store, Space::Log, b"", b"\xff").len(), 64);
    assert_eq!(store.commit_at_once(&Batch::new()), Ok(true));
}

/// Lanes: threads over disjoint ranges, each reading what it wrote.
fn lanes_share_a_store(world: &dyn World) {
    let store = world.open();
    std::thread::scope(|threads| {
        for lane in 0..4u16 {
            let store = &store;
            threads.spawn(move || {
                for turn in 0..200u64 {
                    let mut overlay = Overlay::new(&**store);
                    overlay.put(Space::Rows, row(lane, turn, b""), turn.to_be_bytes().to_vec());
                    overlay.put(Space::Meta, row(lane, 0, b"seen"), turn.to_be_bytes().to_vec());
                    store.commit(&overlay.into_batch(), turn % 64 == 0).unwrap();
                    let seen = store.get(Space::Meta, &row(lane, 0, b"seen")).unwrap().unwrap();
                    assert_eq!(seen, turn.to_be_bytes()[..]);
                }
                assert_eq!(keys(store, Space::Rows, &lane.to_be_bytes(), &(lane + 1).to_be_bytes()).len(), 200);
            });
        }
    });
    assert_eq!(keys(&store, Space::Rows, b"", b"\xff").len(), 800);
}

// ---- engines that keep ----

#[cfg_attr(not(feature = "rocks"), allow(dead_code))]
fn reopening_keeps_everything(world: &dyn World) {
    for round in 0..4u64 {
        let store = world.open();
        for earlier in 0..round {
            for space in Space::ALL {
                assert_eq!(
                    store.get(space, &row(0, earlier, b"")).unwrap(),
                    Some(Bytes::from(vec![earlier as u8; 100]))
                );
            }
            assert_eq!(store.get(Space::Log, &row(1, earlier, b"")).unwrap(), None, "deletions are kept too");
        }
        let mut batch = Batch::new();
        for space in Space::ALL {
            batch.put(space, row(0, round, b""), vec![round as u8; 100]);
        }
        batch.put(Space::Log, row(1, round, b""), "for a moment");
        store.commit(&batch, round == 1).unwrap();
        batch.clear();
        batch.delete_range(Space::Log, row(1, 0, b""), row(2, 0, b""));
        store.commit(&batch, false).unwrap();
        match round {
            0 => store.sync().unwrap(),
            2 => store.flush().unwrap(),
            _ => {}
        }
        assert!(store.size_bytes() > 0);
        assert!(store.free_bytes().is_none_or(|free| free > 0));
    }
}

macro_rules! suite {
    ($($world:ident = $new:expr => [$($case:ident)+])+) => {$(
        mod $world {
            use super::*;
            $(#[test]
            fn $case() {
                super::$case(&$new);
            })+
        }
    )+};
}

suite! {
    memory = Memory => [
        an_empty_store_has_nothing a_batch_is_visible_in_all_spaces_at_once a_later_step_of_a_batch_wins
        scans_are_ordered_and_bounded scans_within_and_across_row_prefixes_agree delete_range_deletes_what_lies_within
        empty_and_big_keys_and_values a_batch_over_the_bound_is_the_callers_mistake a_scan_sees_one_moment lanes_share_a_store
        a_commit_at_once_is_whole_or_nothing
    ]
}

#[cfg(feature = "rocks")]
suite! {
    rocks = Rocks::new() => [
        an_empty_store_has_nothing a_batch_is_visible_in_all_spaces_at_once a_later_step_of_a_batch_wins
        scans_are_ordered_and_bounded scans_within_and_across_row_prefixes_agree delete_range_deletes_what_lies_within
        empty_and_big_keys_and_values a_batch_over_the_bound_is_the_callers_mistake a_scan_sees_one_moment lanes_share_a_store
        a_commit_at_once_is_whole_or_nothing
        reopening_keeps_everything
    ]
}

// ---- the fence ----

/// A store that fails from the n-th call on, and counts how often it is bothered.
struct Failing {
    inner: MemoryStore,
    calls: AtomicU32,
    fails_at: u32,
    error: StoreError,
}

impl Failing {
    fn call(&self) -> Result<(), StoreError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.fails_at { Err(self.error.clone()) } else { Ok(()) }
    }
}

impl Storage for Failing {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.call().and_then(|()| self.inner.get(space, key))
    }
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.call().and_then(|()| self.inner.scan(space, from, to, visit))
    }
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.call().and_then(|()| self.inner.commit(batch, sync))
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.call()
    }
    fn check(&self) -> Result<(), StoreError> {
        self.call()
    }
    fn size_bytes(&self) -> u64 {
        0
    }
}

/// Every way to call a store, by number.
fn call(store: &impl Storage, way: u32) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(Space::Rows, "key", "value");
    match way {
        0 => store.get(Space::Rows, b"key").map(|_| ()),
        1 => store.scan(Space::Rows, b"a", b"z", &mut |_, _| true),
        2 => store.commit(&batch, false),
        3 => store.sync(),
        4 => store.flush(),
        _ => store.check(),
    }
}

#[test]
fn the_first_error_of_any_call_closes_the_store_for_good() {
    let errors = [
        StoreError::Io { doing: "reading", message: "bad sector".into() },
        StoreError::Corrupt { doing: "reading", message: "block checksum".into() },
        StoreError::Full { doing: "writing", message: "No space left on device".into() },
    ];
    for error in errors {
        for way in 0..6 {
            let failing =
                Failing { inner: MemoryStore::new(), calls: AtomicU32::new(0), fails_at: 6, error: error.clone() };
            let store = Fenced::new(failing);
            for fine in 0..6 {
                call(&store, fine).unwrap();
            }
            assert_eq!((store.fenced(), store.ensure_open()), (None, Ok(())));
            assert_eq!(call(&store, way), Err(error.clone()), "the call that fails says how");
            let cause = error.to_string();
            assert_eq!(store.fenced(), Some(cause.clone()));
            assert_eq!(store.ensure_open(), Err(StoreError::Fenced { cause: cause.clone() }));
            for later in 0..6 {
                assert_eq!(call(&store, later), Err(StoreError::Fenced { cause: cause.clone() }));
            }
            assert_eq!(store.inner().calls.load(Ordering::Relaxed), 7, "the broken store is left alone");
        }
    }
}

#[test]
fn a_callers_mistake_closes_nothing() {
    let error = StoreError::Invalid { what: "that".into() };
    let store =
        Fenced::new(Failing { inner: MemoryStore::new(), calls: AtomicU32::new(0), fails_at: 0, error: error.clone() });
    assert_eq!(call(&store, 2), Err(error.clone()));
    assert_eq!(call(&store, 0), Err(error));
    assert_eq!(store.fenced(), None);
}

#[test]
fn a_store_can_be_closed_from_above_and_keeps_its_first_cause() {
    let store = Fenced::new(Arc::new(Fenced::new(MemoryStore::new())));
    store.inner().fence("a row does not decode");
    let error = call(&store, 0).unwrap_err();
    assert_eq!(error, StoreError::Fenced { cause: "a row does not decode".into() });
    store.fence("something later");
    assert_eq!(store.fenced().as_deref(), Some("a row does not decode"), "fences do not wrap each other's words");
}

#[test]
fn an_overlay_passes_errors_on() {
    let error = StoreError::Io { doing: "reading", message: "bad sector".into() };
    let store = Failing { inner: MemoryStore::new(), calls: AtomicU32::new(0), fails_at: 0, error: error.clone() };
    let mut overlay = Overlay::new(&store);
    overlay.put(Space::Rows, "key", "value");
    assert_eq!(overlay.get(Space::Rows, b"other"), Err(error.clone()), "never: not found");
    assert_eq!(overlay.get(Space::Rows, b"key").unwrap(), Some(Bytes::from("value")));
    assert_eq!(overlay.scan(Space::Rows, b"a", b"z", &mut |_, _| true), Err(error));
}
