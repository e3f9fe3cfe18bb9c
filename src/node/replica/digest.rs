//! Digests of rows, for a scrub; and forgetting a partition that a scrub found to be wrong.

use xxhash_rust::xxh3::xxh3_128;

use crate::data::id::Partition;
use crate::data::object::Object;
use crate::data::op::Key;
use crate::data::path::{Component, Path, parse_row_key};
use crate::data::row::Row;
use crate::storage::{Space, StoreError};
use crate::wire::codec;

use super::keys::{log_range, tagged, upper_bound};
use super::{PartitionState, Replica, Turn, corrupt, decode};

/// A piece of a partition, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub sum: u128,
    pub rows: u64,
    /// The key hash at which the next piece begins; `None`: this was the last.
    pub next: Option<u64>,
    /// Rows with dots that have not been seen, which must not be.
    pub unseen: u64,
}

impl Replica {
    /// Sums up the rows with key hashes from `from`, to `to` or for about `rows_max` rows, whole keys. What merely waits to be dropped
    /// is left out. The sum does not depend on order.
    pub fn digest(
        &mut self,
        turn: &Turn,
        partition: Partition,
        from: u64,
        to: Option<u64>,
        rows_max: usize,
        wall_ms: u64,
    ) -> Result<Digest, StoreError> {
        let seen = self.state(turn, partition)?.seen.clone();
        let mut digest = Digest { sum: 0, rows: 0, next: None, unseen: 0 };
        let start = partition.0.to_be_bytes();
        let bound = |hash: u64| [&start[..], &hash.to_be_bytes()[..]].concat();
        let end = to.map_or_else(|| upper_bound(&start), bound);
        let mut current: Option<(u64, Key)> = None;
        // The rows of a key by which its others are judged; they come before those, but for the register before its deadlines.
        let mut object = Object::default();
        let mut register: Option<(Vec<u8>, Path, Row)> = None;
        let mut sum: u128 = 0;
        let mut add = |object: &Object, at: &[u8], path: &Path, row: &Row| {
            if let Some(row) = object.essential(path, row, wall_ms) {
                let mut bytes = at.to_vec();
                bytes.extend_from_slice(&codec::encode(&row));
                sum = sum.wrapping_add(xxh3_128(&bytes));
            }
        };
        let mut damaged = None;
        turn.scan(Space::Rows, &bound(from), &end, &mut |at, value| {
            let Some((_, hash, key, path)) = parse_row_key(at) else {
                damaged = Some(corrupt("a row key"));
                return false;
            };
            let other_key = current.as_ref().is_none_or(|(_, held)| *held != key);
            if (other_key || path.component > Component::Deadline)
                && let Some((at, path, row)) = register.take()
            {
                add(&object, &at, &path, &row);
            }
            if other_key {
                let other_hash = current.as_ref().is_some_and(|(before, _)| *before != hash);
                if other_hash && digest.rows >= rows_max as u64 {
                    digest.next = Some(hash);
                    return false;
                }
                current = Some((hash, key));
                object = Object::default();
            }
            let row = match decode::<Row>(value, "a row") {
                Ok(row) => row,
                Err(error) => {
                    damaged = Some(error);
                    return false;
                }
            };
            digest.rows += 1;
            digest.unseen += u64::from(!row.dots().iter().all(|dot| seen.contains(*dot)));
            let judges = matches!(
                path.component,
                Component::Register | Component::Deadline | Component::Counter | Component::FieldCounter
            );
            if judges {
                object.rows.insert(path.clone(), row.clone());
            }
            if path.component == Component::Register {
                register = Some((at.to_vec(), path, row));
            } else {
                add(&object, at, &path, &row);
            }
            true
        })?;
        if let Some((at, path, row)) = register {
            add(&object, &at, &path, &row);
        }
        digest.sum = sum;
        match damaged {
            Some(error) => Err(error),
            None => Ok(digest),
        }
    }

    /// Forgets all rows of a partition and what has been seen of it, so that the others send it anew. Promises stand: no dot is
    /// minted twice, nothing below a promised floor. A new incarnation is asked for: without its own totals this one could count only
    /// under operation ids until it has got them back, see [`Replica::holds_its_own`].
    pub fn forget_partition(&mut self, turn: &mut Turn, partition: Partition) -> Result<(), StoreError> {
        let me = self.incarnation;
        self.amnesia = true;
        let state = self.state(turn, partition)?;
        let spent = state.spent.max(state.seen.greatest(me));
        let forgotten = PartitionState {
            spent,
            promised: state.promised,
            dropped: state.dropped,
            newest: state.newest,
            retries: state.retries,
            op_first_ms: state.op_first_ms,
            version: state.version + 1,
            rows_version: state.rows_version,
            forgotten: state.forgotten + 1,
            ..PartitionState::default()
        };
        let entries = state.log_entries;
        *state = forgotten;
        self.log_entries = self.log_entries.saturating_sub(entries);
        self.checkpoint(partition);
        let start = partition.0.to_be_bytes();
        turn.delete_range(Space::Rows, start.to_vec(), upper_bound(&start));
        let (from, to) = log_range(partition);
        turn.delete_range(Space::Log, from, to);
        for tag in [b'd', b'g'] {
            let from = tagged(tag, partition);
            let to = upper_bound(&from);
            turn.delete_range(Space::Meta, from, to);
        }
        Ok(())
    }
}
