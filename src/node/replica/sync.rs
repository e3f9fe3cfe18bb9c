//! Coming level: serving the log and the rows to a peer, and taking a peer's.
//!
//! Rows travel as they stand now, with the sender's knowledge of the partition, and merge by the law. From a page of log rows only
//! the dots named are taken as seen; a peer's whole context is taken only at the end of a complete full sync (rule 22), and then
//! the one it had at the beginning.

use bytes::Bytes;

use crate::data::clock::{Hlc, Now};
use crate::data::context::Context;
use crate::data::id::{Dot, Partition};
use crate::data::op::Key;
use crate::data::path::{Component, Path, key_prefix, parse_row_key, row_key};
use crate::data::row::{Row, merge};
use crate::storage::{Space, StoreError};
use crate::wire::codec;
use crate::wire::message::{LogRow, RepairRow};

use super::{LogEntry, Replica, Turn, corrupt, decode, get_row, log_key, log_range, upper_bound};

/// Up to here single deletes are cheaper for the store than a range.
const POINT_DELETES_MAX: u64 = 16;

/// A page of the log.
pub struct LogPage {
    pub context: Context,
    pub entries: Vec<LogRow>,
    /// There is more behind it.
    pub more: bool,
    /// What the asker lacks begins below the start of this log: it needs a full sync.
    pub trimmed: bool,
}

/// A page of a partition's rows.
pub struct RowPage {
    pub context: Context,
    pub seen: Context,
    pub rows: Vec<(Bytes, Row)>,
    pub next: Option<Bytes>,
}

impl Replica {
    /// Log rows that `have` lacks, about `bytes_max` of them.
    pub fn log_page(
        &mut self,
        turn: &Turn,
        partition: Partition,
        have: &Context,
        bytes_max: usize,
    ) -> Result<LogPage, StoreError> {
        let state = self.state(turn, partition)?;
        let context = state.knowledge();
        let trimmed = have.lacks(&state.log_start) > 0;
        let mut incarnations: Vec<_> = state.seen.vector().map(|(incarnation, _)| incarnation).collect();
        incarnations.extend(state.seen.cloud().map(|dot| dot.incarnation));
        incarnations.sort_unstable();
        incarnations.dedup();
        let greatest: Vec<_> = incarnations.iter().map(|one| (*one, state.seen.greatest(*one))).collect();
        let mut page = LogPage { context, entries: Vec::new(), more: false, trimmed };
        let mut bytes = 0;
        for (incarnation, last) in greatest {
            let first = have.upto(incarnation) + 1;
            if first > last || page.more {
                continue;
            }
            let from = log_key(partition, Dot { incarnation, counter: first });
            let to = log_key(partition, Dot { incarnation, counter: last.saturating_add(1) });
            let mut wanted = Vec::new();
            let mut damaged = None;
            turn.scan(Space::Log, &from, &to, &mut |key, value| {
                let Some(dot) = super::parse_log_key(key) else {
                    damaged = Some(corrupt("a log key"));
                    return false;
                };
                if have.contains(dot) {
                    return true;
                }
                match decode::<LogEntry>(value, "a log entry") {
                    Ok(entry) => wanted.push((dot, entry)),
                    Err(error) => {
                        damaged = Some(error);
                        return false;
                    }
                }
                wanted.len() < 4096
            })?;
            if let Some(error) = damaged {
                return Err(error);
            }
            page.more |= wanted.len() >= 4096;
            for (dot, entry) in wanted {
                if bytes > bytes_max {
                    page.more = true;
                    break;
                }
                let prefix = key_prefix(partition, &entry.key);
                let mut rows = Vec::with_capacity(entry.paths.len());
                for path in entry.paths {
                    let row = get_row(turn, &row_key(&prefix, &path))?;
                    bytes += 64 + entry.key.bytes.len() + path.member.len() + row.as_ref().map_or(0, size);
                    rows.push((path, row));
                }
                page.entries.push(LogRow {
                    dot,
                    key: entry.key,
                    rows,
                    removes: entry.removes,
                    tally: entry.tally,
                    op_id: entry.op_id,
                    remember: entry.remember,
                    made: entry.made,
                });
            }
        }
        Ok(page)
    }

    /// Takes log rows of a peer, all but those of this incarnation that were never minted here.
    pub fn take_log_rows(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        theirs: &Context,
        entries: Vec<LogRow>,
    ) -> Result<(), StoreError> {
        let me = self.incarnation;
        let mine = self.state(turn, partition)?.knowledge();
        for entry in entries {
            let state = self.state(turn, partition)?;
            if state.seen.contains(entry.dot) {
                continue;
            }
            if entry.dot.incarnation == me && entry.dot.counter > state.spent {
                self.amnesia = true;
                continue;
            }
            let prefix = key_prefix(partition, &entry.key);
            let mut claims = Vec::new();
            let mut paths = Vec::with_capacity(entry.rows.len());
            for (path, row) in entry.rows {
                self.join_row(turn, partition, &entry.key, &prefix, &path, row, &mine, theirs)?;
                paths.push(path);
            }
            let noted = LogEntry {
                key: entry.key,
                paths,
                removes: entry.removes,
                op_id: entry.op_id,
                remember: entry.remember,
                tally: entry.tally,
                made: entry.made,
            };
            self.state(turn, partition)?;
            self.note(turn, now, partition, entry.dot, &noted)?;
            for path in &noted.paths {
                let is_tally = noted.tally && matches!(path.component, Component::Counter | Component::FieldCounter);
                claims.extend(self.claim(turn, partition, path, is_tally, noted.op_id, entry.dot)?);
            }
            self.settle(turn, now, &noted.key, claims)?;
        }
        Ok(())
    }

    /// Merges one row of a peer by the law.
    #[allow(clippy::too_many_arguments)]
    fn join_row(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        key: &Key,
        prefix: &[u8],
        path: &Path,
        row: Option<Row>,
        mine: &Context,
        theirs: &Context,
    ) -> Result<bool, StoreError> {
        let at = row_key(prefix, path);
        let before = get_row(turn, &at)?;
        let stamp = row.as_ref().and_then(Row::stamp);
        if matches!(row, Some(Row::Retried(_))) {
            self.has_retries(partition);
        }
        let after = merge(before.clone(), mine, row, theirs);
        if let Some(stamp) = stamp {
            let state = self.state(turn, partition)?;
            if stamp.hlc > state.newest {
                state.newest = stamp.hlc;
                self.checkpoint(partition);
            }
        }
        if after == before {
            return Ok(false);
        }
        match after {
            Some(row) => {
                turn.put(Space::Rows, at, codec::encode(&row));
                self.kinds.saw(key, path.component);
            }
            None => turn.delete(Space::Rows, at),
        }
        Ok(true)
    }

    /// Read repair: takes merged rows by the law. `theirs` is what was known in all of the answers that they were merged from. What
    /// was put by a dot is in one row (`plan`), so whoever takes the row has taken the dot: it is seen from now on, and told to the
    /// others like any other; a row that nobody has seen would never reach an owner that lacks it.
    pub fn take_repair(
        &mut self,
        turn: &mut Turn,
        now: Now,
        key: &Key,
        theirs: &Context,
        rows: Vec<RepairRow>,
    ) -> Result<(), StoreError> {
        let partition = self.partition_of(key);
        let prefix = key_prefix(partition, key);
        let me = self.incarnation;
        let state = self.state(turn, partition)?;
        let mine = state.knowledge();
        let minted = state.seen.greatest(me).max(state.spent);
        for RepairRow { path, row } in rows {
            let dots = row.as_ref().map(Row::dots).unwrap_or_default();
            if dots.iter().any(|dot| dot.incarnation == me && dot.counter > minted) {
                self.amnesia = true;
                continue;
            }
            let made = row.as_ref().and_then(Row::stamp).map_or(Hlc(0), |stamp| stamp.hlc);
            let news: Vec<(Dot, Vec<Dot>)> = dots
                .into_iter()
                .filter(|dot| !mine.contains(*dot))
                .map(|dot| (dot, row.as_ref().map(|row| row.removed_by(dot).to_vec()).unwrap_or_default()))
                .collect();
            self.join_row(turn, partition, key, &prefix, &path, row, &mine, theirs)?;
            for (dot, removes) in news {
                let (key, paths) = (key.clone(), vec![path.clone()]);
                let entry = LogEntry { key, paths, removes, op_id: None, remember: false, tally: false, made };
                self.note(turn, now, partition, dot, &entry)?;
            }
            self.settle_row(turn, now, partition, key, &path)?;
        }
        Ok(())
    }

    /// A retried increment may have come of which this replica knows that a tally has it.
    fn settle_row(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        key: &Key,
        path: &Path,
    ) -> Result<(), StoreError> {
        let Some(op_id) = path.op_id() else { return Ok(()) };
        let Some(known) = self.known_op(turn, partition, op_id)?.filter(|known| known.tally) else { return Ok(()) };
        self.settle(turn, now, key, vec![(path.clone(), known.dot)])
    }

    /// Drops the log up to what every owner has seen.
    pub fn trim(&mut self, turn: &mut Turn, partition: Partition, stable: &Context) -> Result<u64, StoreError> {
        let state = self.state(turn, partition)?;
        let stable = stable.meet(&state.seen);
        let ranges: Vec<_> = stable
            .vector()
            .map(|(incarnation, upto)| (incarnation, state.log_start.upto(incarnation), upto))
            .filter(|(_, start, upto)| upto > start)
            .collect();
        let mut dropped = 0;
        for (incarnation, start, upto) in ranges {
            dropped += upto - start;
            if upto - start <= POINT_DELETES_MAX {
                for counter in start + 1..=upto {
                    turn.delete(Space::Log, log_key(partition, Dot { incarnation, counter }));
                }
            } else {
                let from = log_key(partition, Dot { incarnation, counter: start + 1 });
                let to = log_key(partition, Dot { incarnation, counter: upto + 1 });
                turn.delete_range(Space::Log, from, to);
            }
        }
        if dropped > 0 {
            let state = self.state(turn, partition)?;
            let before = state.log_entries;
            state.log_entries = before.saturating_sub(dropped);
            let gone = before - state.log_entries;
            for (incarnation, upto) in stable.vector() {
                state.log_start.insert_upto(incarnation, upto);
            }
            self.log_entries -= gone;
            self.checkpoint(partition);
        }
        Ok(dropped)
    }

    /// Rows of a partition in order, after `after`.
    pub fn row_page(
        &mut self,
        turn: &Turn,
        partition: Partition,
        after: Option<&Bytes>,
        bytes_max: usize,
    ) -> Result<RowPage, StoreError> {
        let state = self.state(turn, partition)?;
        let (context, seen) = (state.knowledge(), state.seen.clone());
        let start = partition.0.to_be_bytes();
        let from = match after {
            Some(after) => {
                let mut from = after.to_vec();
                from.push(0);
                from
            }
            None => start.to_vec(),
        };
        let mut page = RowPage { context, seen, rows: Vec::new(), next: None };
        let mut bytes = 0;
        let mut damaged = None;
        turn.scan(Space::Rows, &from, &upper_bound(&start), &mut |key, value| {
            if bytes > bytes_max {
                page.next = page.rows.last().map(|(key, _): &(Bytes, Row)| key.clone());
                return false;
            }
            match decode::<Row>(value, "a row") {
                Ok(row) => {
                    bytes += key.len() + value.len();
                    page.rows.push((Bytes::copy_from_slice(key), row));
                    true
                }
                Err(error) => {
                    damaged = Some(error);
                    false
                }
            }
        })?;
        match damaged {
            Some(error) => Err(error),
            None => Ok(page),
        }
    }

    /// Takes a page of a peer's rows: a merge-join over the range that it covers, so that what the peer removed goes here too.
    #[allow(clippy::too_many_arguments)]
    pub fn take_row_page(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        theirs: &Context,
        after: Option<&Bytes>,
        rows: Vec<(Bytes, Row)>,
        next: Option<&Bytes>,
    ) -> Result<u64, StoreError> {
        let mine = self.state(turn, partition)?.knowledge();
        let start = partition.0.to_be_bytes();
        let mut from = after.map_or_else(|| start.to_vec(), |after| after.to_vec());
        if after.is_some() {
            from.push(0);
        }
        let to = match next {
            Some(next) => {
                let mut to = next.to_vec();
                to.push(0);
                to
            }
            None => upper_bound(&start),
        };
        let mut held = Vec::new();
        turn.scan(Space::Rows, &from, &to, &mut |key, _| {
            held.push(Bytes::copy_from_slice(key));
            true
        })?;
        let mut changed = 0;
        let mut theirs_rows: std::collections::BTreeMap<Bytes, Row> = rows.into_iter().collect();
        for key in held {
            theirs_rows.entry(key.clone()).or_insert_with(|| Row::Births(Vec::new()));
        }
        for (at, row) in theirs_rows {
            let Some((found, _, key, path)) = parse_row_key(&at) else { continue };
            if found != partition || at[..] < from[..] || at[..] >= to[..] {
                continue;
            }
            let row = (row != Row::Births(Vec::new())).then_some(row);
            let prefix = key_prefix(partition, &key);
            changed += u64::from(self.join_row(turn, partition, &key, &prefix, &path, row, &mine, theirs)?);
            self.settle_row(turn, now, partition, &key, &path)?;
        }
        Ok(changed)
    }

    /// The end of a full sync: what the peer had seen when it began is seen here.
    pub fn finish_sync(&mut self, turn: &mut Turn, partition: Partition, seen: &Context) -> Result<(), StoreError> {
        let me = self.incarnation;
        let state = self.state(turn, partition)?;
        if seen.greatest(me) > state.seen.greatest(me).max(state.spent) {
            self.amnesia = true;
            return Ok(());
        }
        state.seen.join(seen);
        // What came as rows has no entry in this log, or one that is not whole: whoever lacks it is sent rows as well.
        state.log_start.join(seen);
        let known = state.seen.clone();
        state.dead.retain(|dot| !known.contains(*dot));
        state.version += 1;
        self.checkpoint(partition);
        self.drop_entries_below_start(turn, partition)
    }

    fn drop_entries_below_start(&mut self, turn: &mut Turn, partition: Partition) -> Result<(), StoreError> {
        let state = self.state(turn, partition)?;
        let start = state.log_start.clone();
        let (from, to) = log_range(partition);
        let mut doomed = Vec::new();
        turn.scan(Space::Log, &from, &to, &mut |key, _| {
            if super::parse_log_key(key).is_some_and(|dot| start.contains(dot)) {
                doomed.push(key.to_vec());
            }
            true
        })?;
        let gone = doomed.len() as u64;
        for key in doomed {
            turn.delete(Space::Log, key);
        }
        let state = self.state(turn, partition)?;
        state.log_entries -= gone;
        self.log_entries -= gone;
        Ok(())
    }
}

fn size(row: &Row) -> usize {
    match row {
        Row::Register(register) => 32 + register.payload.as_ref().map_or(0, Bytes::len),
        Row::Field(entries) => entries.iter().map(|entry| 32 + entry.payload.as_ref().map_or(0, Bytes::len)).sum(),
        Row::Sibling(sibling) => 32 + sibling.payload.len(),
        Row::Births(births) => 24 * births.len(),
        _ => 64,
    }
}
