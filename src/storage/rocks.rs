//! The engine on disk: RocksDB, one column family per space. The only file that names it.
//!
//! A commit is one write to the log shared by all column families, so a batch is atomic across spaces; the log is written at
//! once and synced when asked, so that a killed process loses nothing and a power cut loses only what was not synced. When a
//! column family is written out, RocksDB first syncs the logs that hold its batches for the others, which keeps the batch whole.
//!
//! What it cannot tell: a log damaged *before* its synced end looks like one that ends there. The node that finds itself
//! without the clean-shutdown mark takes a new incarnation and syncs with its peers, which hold what it acknowledged.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::properties::BACKGROUND_ERRORS;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, ErrorKind, FlushOptions, LogLevel, LruCacheOptions, Options, ReadOptions, SliceTransform,
    WriteBatch, WriteBufferManager, WriteOptions,
};

use super::contract::{Batch, Op, Space, Storage, StoreError, prefix_end};
use super::torn_log::cut_torn_logs;

/// How much of a row's key says which object it belongs to: `partition u16 | key hash u64`.
const ROW_PREFIX_BYTES: usize = 2 + 8;

/// Where to go on in the memory table of the log, by `partition u16 | incarnation u64`.
const LOG_HINTS: &str = "memtable_insert_with_hint_prefix_extractor=fixed:10";

/// With less memory than this RocksDB writes out every few thousand rows: 32 MiB.
const MEMORY_BYTES_MIN: usize = 32 << 20;

/// How much the engine may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RocksOptions {
    /// Memory for everything that grows with the data: cached blocks, their indexes and filters, and, up to a quarter, what waits to be
    /// written out. Less than 32 MiB is taken as 32 MiB. A rule of thumb: a third of the machine's memory, since the operating
    /// system's cache holds the same blocks compressed. Default 256 MiB.
    pub memory_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20 }
    }
}

/// An open RocksDB. Dropping it syncs and closes it.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
}

impl RocksStore {
    /// Opens the store in the folder `path`, creating it if there is none, and replays what its log holds.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be used or another process has it open, [`StoreError::Corrupt`] if what it holds
    /// is damaged beyond what a power cut explains, [`StoreError::Full`].
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, StoreError> {
        let is_new = holds_no_data(path).map_err(|error| unreadable(path, &error))?;
        // Whoever comes second while the store is open is refused below, and has cut nothing: a log that is being written has
        // no damage.
        let cut_bytes = cut_torn_logs(path).map_err(|error| unreadable(path, &error))?;
        if cut_bytes > 0 {
            tracing::warn!(cut_bytes, "the store's log ended in garbage, as after a power cut; it was cut there");
        }
        let memory_bytes = options.memory_bytes.max(MEMORY_BYTES_MIN);
        let cache = block_cache(memory_bytes);
        // Write buffers are charged to the cache: one number bounds both. Writers are not stalled at the bound, since with a
        // failing disk they would be stalled for ever; the number of buffers of each space is what bounds them then.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(memory_bytes / 4, false, cache.clone());
        let spaces = Space::ALL.map(|space| {
            ColumnFamilyDescriptor::new(space.name(), space_options(space, memory_bytes, &cache, &buffers))
        });
        let mut db_options = db_options(memory_bytes, &buffers);
        db_options.create_if_missing(is_new);
        let db =
            DB::open_cf_descriptors(&db_options, path, spaces).map_err(|error| failed("opening the store", error))?;
        Ok(Self { db, path: path.to_owned() })
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        self.db.cf_handle(space.name()).expect("opening created a column family for every space")
    }

    fn write(&self, batch: &Batch, writing: &WriteOptions) -> Result<(), rocksdb::Error> {
        let families = Space::ALL.map(|space| self.family(space));
        // Twelve bytes of header, and per step a tag, a column family and two lengths.
        let mut writes = WriteBatch::with_capacity_bytes(12 + batch.bytes() + 12 * batch.len());
        for op in batch {
            match op {
                Op::Put { space, key, value } => writes.put_cf(families[space.index()], key, value),
                Op::Delete { space, key } => writes.delete_cf(families[space.index()], key),
                Op::DeleteRange { space, from, to } => writes.delete_range_cf(families[space.index()], from, to),
            }
        }
        self.db.write_opt(writes, writing)
    }

    fn sync_log(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(|error| failed("syncing the store", error))
    }
}

impl Storage for RocksStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.db.get_pinned_cf(self.family(space), key) {
            Ok(value) => Ok(value.map(|pinned| Bytes::copy_from_slice(&pinned))),
            Err(error) => Err(failed("reading the store", error)),
        }
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
        let mut reading = ReadOptions::default();
        reading.set_iterate_upper_bound(to);
        if space == Space::Rows {
            // Within one object's rows the prefix filters answer most "has this key anything?" without touching a block. Across
            // objects they would hide what they have not been asked about.
            let within_prefix = is_within_row_prefix(from, to);
            reading.set_prefix_same_as_start(within_prefix);
            reading.set_total_order_seek(!within_prefix);
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(space), reading);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                return Ok(());
            }
            rows.next();
        }
        // An iterator ends alike at the last row and at the first one that it cannot read.
        rows.status().map_err(|error| failed("scanning the store", error))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        batch.check()?;
        if batch.is_empty() {
            return if sync { self.sync_log() } else { Ok(()) };
        }
        let mut writing = WriteOptions::default();
        writing.set_sync(sync);
        self.write(batch, &writing).map_err(|error| failed("writing to the store", error))
    }

    fn commit_at_once(&self, batch: &Batch) -> Result<bool, StoreError> {
        batch.check()?;
        if batch.is_empty() {
            return Ok(true);
        }
        let mut writing = WriteOptions::default();
        writing.set_no_slowdown(true);
        match self.write(batch, &writing) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(false),
            Err(error) => Err(failed("writing to the store", error)),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.sync_log()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.sync_log()?;
        let families = Space::ALL.map(|space| self.family(space));
        let mut flushing = FlushOptions::default();
        flushing.set_wait(true);
        self.db
            .flush_cfs_opt(&families.each_ref().map(|family| *family), &flushing)
            .map_err(|error| failed("writing out the store", error))
    }

    fn check(&self) -> Result<(), StoreError> {
        let errors = self
            .db
            .property_int_value(BACKGROUND_ERRORS)
            .map_err(|error| failed("asking the store for background errors", error))?;
        match errors {
            None | Some(0) => Ok(()),
            Some(errors) => Err(StoreError::Io {
                doing: "writing out or compacting in the background",
                message: format!("failed {errors} times; the file LOG in the store's folder says how"),
            }),
        }
    }

    /// The lengths of the files in the folder, the log included.
    fn size_bytes(&self) -> u64 {
        let Ok(files) = fs::read_dir(&self.path) else { return 0 };
        files.filter_map(|file| file.ok()?.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
    }

    fn free_bytes(&self) -> Option<u64> {
        let path = CString::new(self.path.as_os_str().as_bytes()).ok()?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` ends with a zero byte and `found` is room for one statvfs, both alive over the call.
        if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: statvfs answered 0, so it has filled `found`.
        let found = unsafe { found.assume_init() };
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        // Who needs to know whether this worked has called `flush` before; without it the log is replayed at the next start.
        let _ = self.sync_log();
    }
}

/// One piece for each 16 MiB: a piece takes in nothing that does not fit beside what is in use there, and a few lanes do not contend.
fn block_cache(memory_bytes: usize) -> Cache {
    let pieces = (memory_bytes / (16 << 20)).clamp(1, 64);
    let mut options = LruCacheOptions::default();
    options.set_capacity(memory_bytes);
    options.set_num_shard_bits(pieces.ilog2() as i32);
    Cache::new_lru_cache_opts(&options)
}

fn db_options(memory_bytes: usize, buffers: &WriteBufferManager) -> Options {
    let mut options = Options::default();
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(buffers);

    // After a power cut: replay to the first record that is not whole, never past it. What comes out is a prefix.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Note in the manifest which closed logs were synced, and refuse to open without them, rather than to miss rows.
    options.set_track_and_verify_wals_in_manifest(true);
    // A space that is seldom written keeps old logs alive. Past this the culprit is written out; it also bounds the replay.
    options.set_max_total_wal_size((memory_bytes as u64).clamp(64 << 20, 1 << 30));

    // Two threads behind all lanes: one writes out, one compacts. More would take the lanes' cores.
    options.set_max_background_jobs(2);
    // Let the kernel write steadily, not in gusts that make an fsync wait. No promise hangs on it.
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    // A lane that drops the last iterator on an obsolete file does not wait for its removal.
    options.set_avoid_unnecessary_blocking_io(true);

    // Descriptors and table readers are bounded; a table beyond them is opened again when it is asked for.
    options.set_max_open_files(512);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(4 << 20);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn space_options(space: Space, memory_bytes: usize, cache: &Cache, buffers: &WriteBufferManager) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(cache);
    // Indexes and filters grow with the data: they live in the cache, where they count and can be dropped, but after the
    // blocks, since without them a read costs a block per table. Those of the newest tables, asked at each read, stay.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_cache_index_and_filter_blocks_with_high_priority(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In pieces: whole, those of one table take a megabyte, which a small cache drops at each turn and reads again for the next row.
    tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    tables.set_partition_filters(true);
    tables.set_metadata_block_size(8 << 10);
    tables.set_pin_top_level_index_and_filter(true);
    // Rows are small and read by point: a block of 8 KiB compresses nearly as well as one of 16 and costs half to read.
    tables.set_block_size(8 << 10);

    let mut options = match space {
        // Entries come in the order of their keys within a partition and an incarnation: each is put right behind the one before, without
        // looking for its place among all.
        Space::Log => Options::default().get_options_from_string(LOG_HINTS).expect("a setting that RocksDB knows"),
        _ => Options::default(),
    };
    options.set_write_buffer_manager(buffers);
    options.set_compression_type(DBCompressionType::Lz4);
    // One being filled, two being written out; then writers wait.
    options.set_max_write_buffer_number(3);
    options.set_level_compaction_dynamic_level_bytes(true);
    // A table in which half of ten thousand neighbours are deletions is compacted soon: scans must not wade through the dead.
    options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5);

    let write_buffer_bytes = match space {
        Space::Rows => memory_bytes / 8,
        Space::Log => memory_bytes / 16,
        Space::Hints | Space::Meta => memory_bytes / 32,
    };
    options.set_write_buffer_size(write_buffer_bytes.clamp(1 << 20, 64 << 20));

    match space {
        Space::Rows => {
            // Ten bits a key: one in a hundred absent rows costs a block. Both whole keys (a point read of a row that is not
            // there, as with every new member of a set) and prefixes (an object of which there is nothing).
            tables.set_bloom_filter(10.0, false);
            tables.set_whole_key_filtering(true);
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(ROW_PREFIX_BYTES));
            options.set_memtable_prefix_bloom_ratio(0.1);
            options.set_memtable_whole_key_filtering(true);
        }
        // Read by point, small.
        Space::Meta => tables.set_bloom_filter(10.0, false),
        // Read in order only.
        Space::Log | Space::Hints => {}
    }
    options.set_block_based_table_factory(&tables);
    options
}

/// Whether every key in `from <= key < to` begins with the first [`ROW_PREFIX_BYTES`] of `from`.
fn is_within_row_prefix(from: &[u8], to: &[u8]) -> bool {
    let Some(prefix) = from.get(..ROW_PREFIX_BYTES) else { return false };
    to.starts_with(prefix) || prefix_end(prefix).is_some_and(|end| to <= end.as_slice())
}

/// Whether nothing would be forgotten by starting from nothing. RocksDB takes a folder that has lost its file CURRENT for a new one.
fn holds_no_data(path: &Path) -> io::Result<bool> {
    let files = match fs::read_dir(path) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    for file in files {
        let file = file?;
        let name = PathBuf::from(file.file_name());
        let is = |extension: &str| name.extension().is_some_and(|found| found == extension);
        if is("sst") || (is("log") && file.metadata()?.len() > 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    let (doing, message) = ("opening the store", format!("{}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::InvalidData => StoreError::Corrupt { doing, message },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { doing, message },
        _ => StoreError::Io { doing, message },
    }
}

fn failed(doing: &'static str, error: rocksdb::Error) -> StoreError {
    let kind = error.kind();
    let message = error.into_string();
    // RocksDB's own code for a full disk does not reach its C interface; the words of strerror do. The last is a ulimit's.
    let is_full = ["No space left on device", "Disk quota exceeded", "Space limit reached", "File too large"];
    if is_full.iter().any(|words| message.contains(words)) {
        return StoreError::Full { doing, message };
    }
    match kind {
        ErrorKind::Corruption => StoreError::Corrupt { doing, message },
        _ => StoreError::Io { doing, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_stays_within_a_prefix_or_it_does_not() {
        let prefix = b"\x00\x010123456\xff";
        let from = [&prefix[..], b"row"].concat();
        assert!(is_within_row_prefix(prefix, &[&prefix[..], b"\xff"].concat()));
        assert!(is_within_row_prefix(&from, &prefix_end(prefix).unwrap()), "up to the next object");
        assert!(!is_within_row_prefix(&from, b"\x00\x0101234570"), "into the next object");
        assert!(!is_within_row_prefix(&prefix[..9], &prefix_end(&prefix[..9]).unwrap()), "shorter than a prefix");
        assert!(is_within_row_prefix(&[0xff; 10], &[0xff; 12]));
        assert!(!is_within_row_prefix(&from, b"\x01"));
    }
}
