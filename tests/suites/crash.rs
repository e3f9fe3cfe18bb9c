//! What is left of RocksDB after a power cut, on a damaged disk and on a full one.
//!
//! A power cut is played by copying the folder of an open store and cutting the newest log anywhere from its synced length to its
//! end, or overwriting that tail with garbage. What comes up must be a prefix of what was committed, hold at least what was synced,
//! and have each batch whole in all spaces. Not played: loss in an older log that was not synced, lost directory entries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use tidewater::data::id::mix64;
use tidewater::storage::{Batch, Fenced, RocksOptions, RocksStore, Space, Storage, StoreError};

const SMALL: RocksOptions = RocksOptions { memory_bytes: 0 };

/// Draws from a seed, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.0) % end
    }
}

fn number(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// The n-th batch: something in every space, and something taken away.
fn nth(n: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Space::Rows, row(n), vec![n as u8; (n * 37 % 600) as usize]);
    batch.put(Space::Log, number(n).to_vec(), row(n));
    batch.delete_range(Space::Log, number(0).to_vec(), number(n.saturating_sub(4)).to_vec());
    batch.put(Space::Hints, number(n).to_vec(), "hint");
    batch.delete(Space::Hints, number(n.wrapping_sub(2)).to_vec());
    batch.put(Space::Meta, "last", number(n).to_vec());
    batch
}

fn row(n: u64) -> Vec<u8> {
    [&[0, 1][..], &mix64(n).to_be_bytes(), b"row"].concat()
}

/// The number of the last batch in the store, having checked that all up to it are there, wholly, and nothing after.
fn last_of_prefix(store: &impl Storage, written: u64) -> u64 {
    let last = store.get(Space::Meta, b"last").unwrap();
    let last = last.map_or(0, |last| u64::from_be_bytes(last[..].try_into().unwrap()));
    for n in 1..=written {
        let expected = (n <= last).then(|| Bytes::from(vec![n as u8; (n * 37 % 600) as usize]));
        assert_eq!(store.get(Space::Rows, &row(n)).unwrap(), expected, "row {n} of {last}");
    }
    let mut rows = 0;
    store
        .scan(Space::Rows, b"", b"\xff", &mut |_, _| {
            rows += 1;
            true
        })
        .unwrap();
    assert_eq!(rows, last);
    for (space, kept) in [(Space::Log, 5), (Space::Hints, 2)] {
        let mut found = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            found.push(u64::from_be_bytes(key.try_into().unwrap()));
            true
        };
        store.scan(space, b"", &[0xff; 9], &mut visit).unwrap();
        let expected: Vec<u64> = (1..=last).rev().take(kept).collect();
        found.reverse();
        assert_eq!(found, expected, "{space} after batch {last}");
    }
    last
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found
}

fn newest_log(folder: &Path) -> PathBuf {
    files(folder, "log").pop().expect("an open store has a log")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // Obsolete files vanish in the background; a crash would not have them either.
        let _ = fs::copy(file.path(), to.join(file.file_name()));
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// Cuts the newest log of a copied store, or spoils it, from somewhere at or after `keep` bytes.
fn tear(folder: &Path, keep: u64, dice: &mut Dice) {
    let log = newest_log(folder);
    let whole = length(&log);
    let at = keep.min(whole) + dice.below(whole.saturating_sub(keep) + 1);
    let mut content = fs::read(&log).unwrap();
    content.truncate(at as usize);
    if dice.below(3) == 0 {
        content.extend((at..whole).map(|_| dice.below(256) as u8));
    }
    fs::write(&log, content).unwrap();
}

#[test]
fn a_power_cut_leaves_a_prefix_with_everything_synced() {
    let (mut images, mut kept_unsynced) = (0, 0);
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let temp = tempfile::tempdir().unwrap();
        let live = temp.path().join("live");
        let store = RocksStore::open(&live, SMALL).unwrap();
        let (mut synced, mut synced_log, mut flushes) = (0, (newest_log(&live), 0), 0);
        for n in 1..=120 {
            let sync = dice.below(12) == 0;
            store.commit(&nth(n), sync).unwrap();
            // A few times only: more tables would be compacted while they are copied.
            let flush = flushes < 2 && dice.below(50) == 0;
            if flush {
                flushes += 1;
                store.flush().unwrap();
            } else if !sync && dice.below(12) == 0 {
                store.sync().unwrap();
            } else if !sync {
                if dice.below(24) == 0 {
                    let image = temp.path().join(format!("image{n}"));
                    copy(&live, &image);
                    let keep = if synced_log.0 == newest_log(&live) { synced_log.1 } else { 0 };
                    tear(&image, keep, &mut dice);
                    let crashed = RocksStore::open(&image, SMALL).unwrap();
                    let last = last_of_prefix(&crashed, n);
                    assert!(last >= synced, "seed {seed}: {synced} were synced, {last} are left");
                    images += 1;
                    kept_unsynced += u64::from(last > synced);
                    // Life goes on from there, and the next start finds it.
                    crashed.commit(&nth(last + 1), false).unwrap();
                    drop(crashed);
                    let again = RocksStore::open(&image, SMALL).unwrap();
                    assert_eq!(last_of_prefix(&again, n), last + 1);
                    drop(again);
                    fs::remove_dir_all(&image).unwrap();
                }
                continue;
            }
            synced = n;
            let log = newest_log(&live);
            synced_log = (log.clone(), length(&log));
        }
    }
    assert!(images > 30 && kept_unsynced > 5, "{images} images, {kept_unsynced} with more than was synced: too tame");
}

/// Garbage that RocksDB's reader would take for records of a recycled log, where it would stay for ever (see `torn_log`).
#[test]
fn garbage_of_every_kind_behind_the_log_is_survived() {
    let temp = tempfile::tempdir().unwrap();
    let live = temp.path().join("live");
    let store = RocksStore::open(&live, SMALL).unwrap();
    for n in 1..=10 {
        store.commit(&nth(n), false).unwrap();
    }
    store.sync().unwrap();
    for kind in 0..=255 {
        let image = temp.path().join(format!("image{kind}"));
        copy(&live, &image);
        let log = newest_log(&image);
        let mut content = fs::read(&log).unwrap();
        content.extend([1, 2, 3, 4, 40, 0, kind]);
        content.extend([kind; 200]);
        fs::write(&log, content).unwrap();
        assert_eq!(last_of_prefix(&RocksStore::open(&image, SMALL).unwrap(), 10), 10, "kind {kind}");
        fs::remove_dir_all(&image).unwrap();
    }
    // In the list of tables there is nothing that could be left out.
    drop(store);
    let manifest = fs::read_dir(&live).unwrap().map(|file| file.unwrap().path());
    let manifest =
        manifest.filter(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"MANIFEST")).max().unwrap();
    let mut content = fs::read(&manifest).unwrap();
    content.extend([1, 2, 3, 4, 0, 0, 5]);
    fs::write(&manifest, content).unwrap();
    assert!(matches!(RocksStore::open(&live, SMALL), Err(StoreError::Corrupt { .. })));
}

/// A killed process has written everything it acknowledged, synced or not: its log lies in the operating system's cache.
#[test]
fn a_killed_process_loses_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (live, image) = (temp.path().join("live"), temp.path().join("image"));
    let store = RocksStore::open(&live, SMALL).unwrap();
    for n in 1..=50 {
        store.commit(&nth(n), false).unwrap();
    }
    copy(&live, &image);
    assert_eq!(last_of_prefix(&RocksStore::open(&image, SMALL).unwrap(), 50), 50);
}

#[test]
fn a_store_is_open_once() {
    let temp = tempfile::tempdir().unwrap();
    let store = RocksStore::open(temp.path(), SMALL).unwrap();
    assert!(matches!(RocksStore::open(temp.path(), SMALL), Err(StoreError::Io { doing: "opening the store", .. })));
    drop(store);
    RocksStore::open(temp.path(), SMALL).unwrap();
}

/// A store of a hundred batches, written out and closed.
fn closed_store(folder: &Path) {
    let store = RocksStore::open(folder, SMALL).unwrap();
    for n in 1..=100 {
        store.commit(&nth(n), false).unwrap();
    }
    store.flush().unwrap();
}

/// A damaged table may answer with the truth or with an error, never with "not found" or with something else.
#[test]
fn a_damaged_table_is_an_error_and_closes_the_store() {
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    closed_store(&whole);
    let mut errors = 0;
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let folder = temp.path().join(format!("damaged{seed}"));
        copy(&whole, &folder);
        for table in files(&folder, "sst") {
            let mut content = fs::read(&table).unwrap();
            let at = dice.below(content.len() as u64) as usize;
            content[at] ^= 1 << dice.below(8);
            fs::write(&table, content).unwrap();
        }
        let store = match RocksStore::open(&folder, SMALL) {
            Ok(store) => Fenced::new(store),
            Err(StoreError::Corrupt { .. }) => {
                errors += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        for n in 1..=100 {
            match store.get(Space::Rows, &row(n)) {
                Ok(found) => assert_eq!(found, Some(Bytes::from(vec![n as u8; (n * 37 % 600) as usize])), "row {n}"),
                Err(StoreError::Corrupt { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut rows = 0;
        let scanned = store.scan(Space::Rows, b"", b"\xff", &mut |_, _| {
            rows += 1;
            true
        });
        assert!(scanned.is_err() || rows == 100, "{rows} rows and no error");
        if let Some(cause) = store.fenced() {
            errors += 1;
            assert!(cause.contains("damaged"), "{cause}");
            assert!(matches!(store.get(Space::Meta, b"last"), Err(StoreError::Fenced { .. })));
            assert!(matches!(store.commit(&nth(101), false), Err(StoreError::Fenced { .. })));
        }
    }
    assert!(errors > 10, "{errors} damages were noticed: too tame");
}

/// A store that has lost files must not come up as one that has never had them.
#[test]
fn lost_files_are_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    closed_store(&whole);
    let tables = files(&whole, "sst");
    assert!(!tables.is_empty());
    let mut lost = tables;
    lost.extend(fs::read_dir(&whole).unwrap().map(|file| file.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name == "CURRENT" || name.starts_with("MANIFEST")
    }));
    for (at, lost) in lost.iter().enumerate() {
        let folder = temp.path().join(format!("without{at}"));
        copy(&whole, &folder);
        fs::remove_file(folder.join(lost.file_name().unwrap())).unwrap();
        let opened = RocksStore::open(&folder, SMALL);
        assert!(
            matches!(opened, Err(StoreError::Corrupt { .. } | StoreError::Io { .. })),
            "opened without {}",
            lost.display()
        );
    }
    // A log that was never written out counts as data too.
    let folder = temp.path().join("young");
    let store = RocksStore::open(&folder, SMALL).unwrap();
    store.commit(&nth(1), true).unwrap();
    drop(store);
    fs::remove_file(folder.join("CURRENT")).unwrap();
    assert!(RocksStore::open(&folder, SMALL).is_err());
}

/// A small file system of its own, if this process may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_says_so_closes_the_store_and_keeps_what_was_committed() {
    let Some(disk) = Tmpfs::mount("24m") else {
        eprintln!("SKIPPED: a full disk cannot be played without the right to mount a tmpfs");
        return;
    };
    let folder = disk.0.path().join("store");
    let store = Fenced::new(RocksStore::open(&folder, SMALL).unwrap());
    let free_at_first = store.free_bytes().expect("a disk knows what is free");
    assert!(free_at_first > 10 << 20 && free_at_first <= 24 << 20);
    let noise = |n: u64| -> Vec<u8> { (0..64 << 10).map(|at| mix64(n << 32 | at) as u8).collect() };
    let mut written = 0;
    let error = loop {
        let mut batch = Batch::new();
        batch.put(Space::Rows, row(written), noise(written));
        match store.commit(&batch, false).and_then(|()| store.check()) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "64 MB on a disk of 24");
    };
    assert!(written > 100, "{written}");
    // The write itself says that the disk is full; if the background met it first, its name is only in RocksDB's own log.
    assert!(matches!(error, StoreError::Full { .. } | StoreError::Io { .. }), "{error}");
    assert!(store.fenced().is_some());
    assert!(matches!(store.get(Space::Rows, &row(0)), Err(StoreError::Fenced { .. })));
    drop(store);

    // Some room, a restart, and all is there.
    let out = Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk.0.path()).output().unwrap();
    assert!(out.status.success());
    let store = RocksStore::open(&folder, SMALL).unwrap();
    for n in 0..written {
        assert!(
            store.get(Space::Rows, &row(n)).unwrap().is_some_and(|found| found == noise(n)),
            "row {n} of {written}"
        );
    }
    let mut batch = Batch::new();
    batch.put(Space::Rows, row(written), "goes on");
    store.commit(&batch, true).unwrap();
}
