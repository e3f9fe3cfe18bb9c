//! Keeps RocksDB from hanging on a torn log.
//!
//! A power cut can leave arbitrary bytes behind the last synced byte of the write-ahead log. RocksDB 9.3 to at least 11.8 replays up to
//! the first record that is not whole, as it should, unless the garbage carries one of six record types in the right place:
//! then its reader (`log::Reader::ReadPhysicalRecord`) refuses the record without stepping over it and reads it again, for ever. These types
//! belong to recycled logs, which cannot be had together with recovery to a point in time; so in our logs none of them is ever
//! written, whatever follows one is beyond the first damage, and cutting the log there takes away nothing that replay would have kept.
//!
//! The form of a log, fixed since LevelDB: blocks of 32 KiB; in a block records of `checksum u32 | length u16 | type u8 | payload`, little-endian,
//! none of which crosses into the next block. Only headers are looked at here; checksums are RocksDB's business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;

/// Record types that only recycled logs have.
const RECYCLED_TYPES: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Looks through the logs in a RocksDB folder and cuts those that would never be read to their end. Costs one sequential read of
/// what replay is about to read anyway. Answers how many bytes were cut.
///
/// # Errors
/// `InvalidData` if it is a manifest that would not be read to its end: that one is not cut, since what it lists is needed.
pub(super) fn cut_torn_logs(folder: &Path) -> io::Result<u64> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut cut_bytes = 0;
    for file in files {
        let path = file?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let is_manifest = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"MANIFEST-"));
        if !is_log && !is_manifest {
            continue;
        }
        let Some(at) = first_recycled_record(File::open(&path)?)? else { continue };
        if is_manifest {
            let message = format!("{} is damaged at byte {at}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let log = OpenOptions::new().write(true).open(&path)?;
        cut_bytes += log.metadata()?.len().saturating_sub(at);
        log.set_len(at)?;
        log.sync_all()?;
    }
    Ok(cut_bytes)
}

/// Where the first record begins that claims to be of a recycled log.
fn first_recycled_record(mut log: impl Read) -> io::Result<Option<u64>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut block_at = 0;
    loop {
        block.clear();
        log.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let mut at = 0;
        while let Some(header) = block.get(at..at + HEADER_BYTES) {
            let (length, kind) = (usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]);
            if RECYCLED_TYPES.contains(&kind) {
                return Ok(Some(block_at + at as u64));
            }
            // Of nothing, and of a length that leaves the block, the reader skips the rest of the block.
            if kind == 0 && length == 0 {
                break;
            }
            at += HEADER_BYTES + length;
        }
        if block.len() < BLOCK_BYTES {
            return Ok(None);
        }
        block_at += BLOCK_BYTES as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: usize) -> Vec<u8> {
        let mut record = vec![1, 2, 3, 4];
        record.extend((length as u16).to_le_bytes());
        record.push(kind);
        // A payload full of what would be a bad type.
        record.extend(vec![5; length]);
        record
    }

    #[test]
    fn sound_logs_are_passed_whatever_they_carry() {
        for log in [
            vec![],
            vec![5; 6],
            record(1, 100),
            [record(1, 100), record(2, BLOCK_BYTES - 107 - 7), record(4, 50)].concat(),
            // Less than a header is left at the end of the block: a filler.
            [record(1, BLOCK_BYTES - 7 - 6), vec![0; 6], record(1, 3)].concat(),
            [record(1, 10), vec![0; 100_000]].concat(),
            [record(1, 10), record(1, 500)[..300].to_vec()].concat(),
        ] {
            assert_eq!(first_recycled_record(&log[..]).unwrap(), None);
        }
    }

    #[test]
    fn the_first_record_of_a_recycled_type_is_found() {
        for kind in RECYCLED_TYPES {
            assert_eq!(first_recycled_record(&record(kind, 0)[..]).unwrap(), Some(0));
            let log = [record(1, 100), record(3, 7), record(kind, 60_000), vec![9; 100]].concat();
            assert_eq!(first_recycled_record(&log[..]).unwrap(), Some(107 + 14));
            let log = [record(1, 10), vec![0; BLOCK_BYTES - 17], record(kind, 4)].concat();
            assert_eq!(first_recycled_record(&log[..]).unwrap(), Some(BLOCK_BYTES as u64), "at the start of a block");
        }
    }
}
