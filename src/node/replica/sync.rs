//! Coming level: serving the log and the rows to a peer, and taking a peer's.
//!
//! Rows travel as they stand now. From a page of log rows only the dots named are taken as seen, and only what they name is removed:
//! what a replica holds is a function of what it has seen, so owners that have seen the same hold the same. A peer's whole context
//! is taken only at the end of a complete full sync (rule 22), and then the one it had at the beginning.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::data::clock::{Hlc, Now};
use crate::data::context::Context;
use crate::data::id::{Dot, OpId, Partition};
use crate::data::mutation::{Effect, Mutation};
use crate::data::op::Key;
use crate::data::path::{Component, Path, key_prefix, parse_row_key, row_key, row_prefix};
use crate::data::row::{Row, merge};
use crate::node::planted::Planted;
use crate::storage::{Space, StoreError};
use crate::wire::codec;
use crate::wire::message::{LogRow, RepairRow};

use super::keys::{dead_key, log_key, log_range, upper_bound};
use super::{LogEntry, Replica, Turn, corrupt, decode, get_row};

/// Up to here single deletes are cheaper for the store than a range.
const POINT_DELETES_MAX: u64 = 16;

/// Rows are read for a page of the log up to this many times the bytes that are sent.
const READ_FOR_SENT: usize = 8;

/// A page of the log.
#[derive(Default)]
pub struct LogPage {
    pub entries: Vec<LogRow>,
    /// There is more behind it.
    pub more: bool,
    /// What the asker lacks begins below the start of this log: it needs a full sync.
    pub trimmed: bool,
}

/// A page of a partition's rows.
pub struct RowPage {
    pub seen: Context,
    pub dead: Vec<Dot>,
    pub rows: Vec<(Bytes, Row)>,
    pub next: Option<Bytes>,
}

impl Replica {
    /// Log rows that `have` lacks, about `bytes_max` of them. Rows show the present, so each brings the entries of all dots in it
    /// that the asker lacks into the same page, and one whose dot is gone the entry that removed it: should that be lost here before
    /// the next page, nobody could tell a third what has become of the dot.
    pub fn log_page(
        &mut self,
        turn: &Turn,
        partition: Partition,
        have: &Context,
        bytes_max: usize,
    ) -> Result<LogPage, StoreError> {
        let state = self.state(turn, partition)?;
        let trimmed = have.lacks(&state.log_start) > 0;
        let mut incarnations: Vec<_> = state.seen.vector().map(|(incarnation, _)| incarnation).collect();
        incarnations.extend(state.seen.cloud().map(|dot| dot.incarnation));
        incarnations.sort_unstable();
        incarnations.dedup();
        let greatest: Vec<_> = incarnations.iter().map(|one| (*one, state.seen.greatest(*one))).collect();
        let mut page = LogPage { trimmed, ..LogPage::default() };
        let mut met = BTreeSet::new();
        let mut removers = None;
        // What is sent, and what is read for it: rows that several entries tell alike go once (`PackedLog`).
        let (mut bytes, mut bytes_read) = (0, 0);
        let mut told = BTreeSet::new();
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
                if bytes > bytes_max || bytes_read > bytes_max.saturating_mul(READ_FOR_SENT) {
                    page.more = true;
                    break;
                }
                let mut queue = if met.insert(dot) { vec![(dot, entry)] } else { Vec::new() };
                while let Some((dot, entry)) = queue.pop() {
                    let mut one = log_row(turn, partition, dot, entry)?;
                    if was_dropped(&one) && self.planted != Planted::DroppedRowsServed {
                        return Ok(LogPage { trimmed: true, ..LogPage::default() });
                    }
                    if self.planted == Planted::RemovalsUnnamed {
                        one.removes.clear();
                    }
                    let row_bytes = |(path, row): &(Path, Option<Row>)| {
                        one.key.bytes.len() + path.member.len() + row.as_ref().map_or(0, size)
                    };
                    let rows_bytes: usize = one.rows.iter().map(row_bytes).sum();
                    bytes_read += rows_bytes;
                    bytes += 64 * one.rows.len();
                    let paths: Vec<Path> = one.rows.iter().map(|(path, _)| path.clone()).collect();
                    if told.insert((one.key.clone(), paths)) {
                        bytes += rows_bytes;
                    }
                    for (_, row) in &one.rows {
                        for other in row.iter().flat_map(Row::dots) {
                            if have.contains(other) || !met.insert(other) {
                                continue;
                            }
                            queue.extend(log_entry(turn, partition, other)?.map(|entry| (other, entry)));
                        }
                    }
                    if is_gone(&one) {
                        let removers = match &removers {
                            Some(removers) => removers,
                            None => removers.insert(named_removals(turn, partition)?),
                        };
                        let by = removers.get(&one.dot).map(Vec::as_slice).unwrap_or_default();
                        if let Some(first) = by.first()
                            && !by.iter().any(|by| have.contains(*by) || met.contains(by))
                        {
                            met.insert(*first);
                            queue.extend(log_entry(turn, partition, *first)?.map(|entry| (*first, entry)));
                        }
                    }
                    page.entries.push(one);
                }
            }
        }
        Ok(page)
    }

    /// The log rows of an operation that is known here; none when the log has let them go, which it does when every owner has had
    /// them for long.
    pub fn op_rows(&self, turn: &Turn, partition: Partition, op_id: OpId) -> Result<Option<Vec<LogRow>>, StoreError> {
        let Some(known) = self.known_op(turn, partition, op_id)? else { return Ok(None) };
        let mut rows = Vec::new();
        let is_its = |entry: &LogEntry| entry.op_id == Some(op_id);
        let Dot { incarnation, counter } = known.dot;
        let mut at = counter;
        // The dots of one operation are neighbours.
        while let Some(entry) = log_entry(turn, partition, Dot { incarnation, counter: at })?.filter(is_its) {
            rows.push(log_row(turn, partition, Dot { incarnation, counter: at }, entry)?);
            at += 1;
        }
        at = counter - 1;
        while at > 0
            && let Some(entry) = log_entry(turn, partition, Dot { incarnation, counter: at })?.filter(is_its)
        {
            rows.push(log_row(turn, partition, Dot { incarnation, counter: at }, entry)?);
            at -= 1;
        }
        if rows.iter().any(is_gone) {
            let removers = named_removals(turn, partition)?;
            let by: BTreeSet<Dot> = rows
                .iter()
                .filter(|row| is_gone(row))
                .filter_map(|row| removers.get(&row.dot)?.first())
                .copied()
                .collect();
            for dot in by {
                if let Some(entry) = log_entry(turn, partition, dot)? {
                    rows.push(log_row(turn, partition, dot, entry)?);
                }
            }
        }
        Ok(Some(rows))
    }

    /// Takes log rows of a peer, all but those of this incarnation that were never minted here. What a row lacks says nothing: that
    /// something was removed is told by the mutation that did it, so equal `seen` means equal rows.
    pub fn take_log_rows(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        entries: Vec<LogRow>,
    ) -> Result<(), StoreError> {
        let me = self.incarnation;
        let mut brought = Vec::new();
        for entry in entries {
            let state = self.state(turn, partition)?;
            let known = state.seen.contains(entry.dot);
            if !known && entry.dot.incarnation == me && entry.dot.counter > state.spent {
                self.amnesia = true;
                continue;
            }
            let prefix = key_prefix(partition, &entry.key);
            let mut paths = Vec::with_capacity(entry.rows.len());
            for (path, row) in entry.rows {
                if self.planted == Planted::AbsenceRemoves && row.is_none() {
                    turn.delete(Space::Rows, row_key(&prefix, &path));
                }
                if !known {
                    self.join_named(turn, partition, &prefix, &path, row.clone(), &entry.removes)?;
                }
                brought.extend(row.map(|row| (entry.key.clone(), path.clone(), row)));
                paths.push(path);
            }
            let noted = LogEntry {
                key: entry.key,
                paths,
                removes: entry.removes,
                puts: entry.puts,
                op_id: entry.op_id,
                remember: entry.remember,
                tally: entry.tally,
                made: entry.made,
            };
            if known {
                self.name(turn, now, partition, entry.dot, &noted)?;
            } else {
                self.note(turn, now, partition, entry.dot, &noted)?;
            }
            self.settle_entry(turn, now, partition, entry.dot, &noted)?;
        }
        // Whatever came with the rows and has no entry of its own.
        for (key, path, row) in brought {
            self.adopt(turn, now, partition, &key, &path, row)?;
        }
        Ok(())
    }

    /// An increment may have been counted twice: by what was just noted, and before.
    pub(super) fn settle_entry(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        dot: Dot,
        noted: &LogEntry,
    ) -> Result<(), StoreError> {
        let mut claims = Vec::new();
        for path in &noted.paths {
            let is_tally = noted.tally && matches!(path.component, Component::Counter | Component::FieldCounter);
            claims.extend(self.claim(turn, partition, path, is_tally, noted.op_id, dot)?);
        }
        self.settle(turn, now, &noted.key, claims)
    }

    /// Joins a row as it came, without these dots of the row held here and without what this replica knows to be gone.
    #[allow(clippy::too_many_arguments)]
    fn join_named(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        prefix: &[u8],
        path: &Path,
        row: Option<Row>,
        removes: &[Dot],
    ) -> Result<(), StoreError> {
        let at = row_key(prefix, path);
        let before = get_row(turn, &at)?;
        let mine = before.clone().and_then(|row| row.without(removes));
        let state = self.state(turn, partition)?;
        let theirs = row.and_then(|row| row.not_gone(mine.as_ref(), |dot| state.knows(dot)));
        let after = match (mine, theirs) {
            (Some(mine), Some(theirs)) => Some(mine.joined(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.put_row(turn, partition, at, path, before, after)
    }

    /// Writes a row that changed, and what goes with it.
    #[allow(clippy::too_many_arguments)]
    fn put_row(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        at: Vec<u8>,
        path: &Path,
        before: Option<Row>,
        after: Option<Row>,
    ) -> Result<(), StoreError> {
        if matches!(after, Some(Row::Retried(_))) {
            self.has_retries(partition);
        }
        if let Some(stamp) = after.as_ref().and_then(Row::stamp) {
            let state = self.state(turn, partition)?;
            if stamp.hlc > state.newest {
                state.newest = stamp.hlc;
                self.checkpoint(partition);
            }
        }
        match after {
            after if after == before => {}
            Some(row) => {
                self.watch(turn, partition, &at, path, &row)?;
                if let Some(prefix) = row_prefix(&at) {
                    self.objects.saw(prefix, path.component);
                }
                turn.put(Space::Rows, at, codec::encode(&row));
            }
            None => turn.delete(Space::Rows, at),
        }
        Ok(())
    }

    /// Merges one row of a peer by the law. Gives the entries of it that this replica had seen and that are gone now.
    #[allow(clippy::too_many_arguments)]
    fn join_row(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        prefix: &[u8],
        path: &Path,
        row: Option<Row>,
        mine: &Context,
        theirs: &Context,
    ) -> Result<Vec<Dot>, StoreError> {
        let at = row_key(prefix, path);
        let before = get_row(turn, &at)?;
        let after = merge(before.clone(), mine, row, theirs);
        let mut gone = Vec::new();
        if path.component != Component::Register {
            let kept = after.as_ref().map(Row::removable).unwrap_or_default();
            let had = before.as_ref().map(Row::removable).unwrap_or_default();
            gone.extend(had.into_iter().filter(|dot| !kept.contains(dot) && mine.contains(*dot)));
        }
        self.put_row(turn, partition, at, path, before, after)?;
        Ok(gone)
    }

    /// Read repair: takes merged rows. They add and never take away.
    pub fn take_repair(
        &mut self,
        turn: &mut Turn,
        now: Now,
        key: &Key,
        rows: Vec<RepairRow>,
    ) -> Result<(), StoreError> {
        let partition = self.partition_of(key);
        for RepairRow { path, row } in rows {
            self.adopt(turn, now, partition, key, &path, row)?;
        }
        Ok(())
    }

    /// Some rows of a key as they stand; those that are gone are left out.
    pub fn rows_at<'a>(
        &self,
        turn: &Turn,
        key: &Key,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Vec<RepairRow>, StoreError> {
        let prefix = key_prefix(self.partition_of(key), key);
        let mut rows = Vec::new();
        for path in paths {
            let row = get_row(turn, &row_key(&prefix, path))?;
            rows.extend(row.map(|row| RepairRow { path: path.clone(), row }));
        }
        Ok(rows)
    }

    /// Takes a row with the dots in it. What was put by a dot is in one row (`plan`), and the row tells what the dot removed: whoever
    /// takes the row has taken the dot. It is seen from now on and told to the others like any other; a row that nobody has seen
    /// would never reach an owner that lacks it. Its operation is told when its entry comes.
    fn adopt(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        key: &Key,
        path: &Path,
        row: Row,
    ) -> Result<(), StoreError> {
        let me = self.incarnation;
        let state = self.state(turn, partition)?;
        let minted = state.seen.greatest(me).max(state.spent);
        let news: Vec<Dot> = row.dots().into_iter().filter(|dot| !state.seen.contains(*dot)).collect();
        if news.iter().any(|dot| dot.incarnation == me && dot.counter > minted) {
            self.amnesia = true;
            return Ok(());
        }
        let made = row.stamp().map_or(Hlc(0), |stamp| stamp.hlc);
        let news: Vec<(Dot, Vec<Dot>)> = news.into_iter().map(|dot| (dot, row.removed_by(dot).to_vec())).collect();
        let removes: Vec<Dot> = news.iter().flat_map(|(_, removes)| removes.iter().copied()).collect();
        self.join_named(turn, partition, &key_prefix(partition, key), path, Some(row), &removes)?;
        let news = if self.planted == Planted::RepairsNotSeen { Vec::new() } else { news };
        for (dot, removes) in news {
            let (key, paths) = (key.clone(), vec![path.clone()]);
            let entry = LogEntry { key, paths, removes, puts: true, op_id: None, remember: false, tally: false, made };
            self.note(turn, now, partition, dot, &entry)?;
        }
        self.settle_row(turn, now, partition, key, path)
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
        // What came by a full sync has no entry.
        let dropped = state.log_start.lacks(&stable);
        for (incarnation, start, upto) in ranges {
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
        let (seen, dead) = (state.seen.clone(), state.dead.iter().copied().collect());
        let start = partition.0.to_be_bytes();
        let from = match after {
            Some(after) => {
                let mut from = after.to_vec();
                from.push(0);
                from
            }
            None => start.to_vec(),
        };
        let mut page = RowPage { seen, dead, rows: Vec::new(), next: None };
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
    ) -> Result<(), StoreError> {
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
        let mut gone: BTreeMap<Key, Vec<Effect>> = BTreeMap::new();
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
            let removes = self.join_row(turn, partition, &prefix, &path, row, &mine, theirs)?;
            self.settle_row(turn, now, partition, &key, &path)?;
            if !removes.is_empty() {
                gone.entry(key).or_default().push(Effect { path, removes, put: None });
            }
        }
        // Should this full sync not come to its end, nobody may know by name what was removed.
        for (key, effects) in gone {
            self.mint(turn, now, &key, None, false, Hlc(0), |mint| vec![Mutation { dot: mint.dot(), effects }])?;
        }
        Ok(())
    }

    /// The end of a full sync: what the peer had seen when it began is seen here, and what was dead there is dead here. Without the
    /// latter what one of the mutations seen had removed by name would be put when it comes. `left`: see [`Replica::begin_sync`].
    pub fn finish_sync(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        seen: &Context,
        dead: &[Dot],
        left: bool,
    ) -> Result<(), StoreError> {
        let me = self.incarnation;
        let state = self.state(turn, partition)?;
        if seen.greatest(me) > state.seen.greatest(me).max(state.spent) {
            self.amnesia = true;
            return Ok(());
        }
        state.seen.join(seen);
        state.unsure = left;
        // What came as rows has no entry in this log, or one that is not whole: whoever lacks it is sent rows as well.
        state.log_start.join(seen);
        let known = state.seen.clone();
        state.dead.retain(|dot| {
            let stays = !known.contains(*dot);
            if !stays {
                turn.delete(Space::Meta, dead_key(partition, *dot));
            }
            stays
        });
        for dot in dead.iter().filter(|dot| !known.contains(**dot)) {
            state.dead.insert(*dot);
            turn.put(Space::Meta, dead_key(partition, *dot), Bytes::new());
        }
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
        state.log_entries = state.log_entries.saturating_sub(gone);
        self.log_entries = self.log_entries.saturating_sub(gone);
        Ok(())
    }

    /// A full sync begins: its rows come before what was seen of them. Should it not come to its end, they are entered afterwards.
    /// True: an earlier one left some behind.
    pub fn begin_sync(&mut self, turn: &Turn, partition: Partition) -> Result<bool, StoreError> {
        let state = self.state(turn, partition)?;
        let left = std::mem::replace(&mut state.unsure, true);
        self.checkpoint(partition);
        Ok(left)
    }

    /// Enters as seen what a full sync brought that did not come to its end: some rows after `after`. Whoever takes a row has taken its
    /// dots; a row that nobody has seen would never reach an owner that lacks it. Gives where to go on.
    pub fn enter_rows(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        after: Option<&Bytes>,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        let RowPage { seen, rows, next, .. } = self.row_page(turn, partition, after, bytes_max)?;
        for (at, row) in rows {
            if row.dots().iter().all(|dot| seen.contains(*dot)) {
                continue;
            }
            let Some((_, _, key, path)) = parse_row_key(&at) else { continue };
            self.adopt(turn, now, partition, &key, &path, row)?;
        }
        if next.is_none() {
            self.state(turn, partition)?.unsure = false;
            self.checkpoint(partition);
        }
        Ok(next)
    }
}

fn log_entry(turn: &Turn, partition: Partition, dot: Dot) -> Result<Option<LogEntry>, StoreError> {
    match turn.get(Space::Log, &log_key(partition, dot))? {
        Some(bytes) => decode(&bytes, "a log entry").map(Some),
        None => Ok(None),
    }
}

/// May what the mutation put have been removed by name since? Registers are only once every owner has seen them, counts and deadlines never.
fn is_gone(one: &LogRow) -> bool {
    one.rows.iter().any(|(path, row)| {
        let by_name =
            matches!(path.component, Component::Field | Component::Member | Component::Flag | Component::Sibling);
        by_name && !row.as_ref().is_some_and(|row| row.dots().contains(&one.dot))
    })
}

/// Which mutations in the log removed a dot by name.
fn named_removals(turn: &Turn, partition: Partition) -> Result<BTreeMap<Dot, Vec<Dot>>, StoreError> {
    let (from, to) = log_range(partition);
    let mut removers: BTreeMap<Dot, Vec<Dot>> = BTreeMap::new();
    let mut damaged = None;
    turn.scan(Space::Log, &from, &to, &mut |key, value| {
        let Some(by) = super::parse_log_key(key) else { return true };
        match decode::<LogEntry>(value, "a log entry") {
            Ok(entry) => entry.removes.iter().for_each(|removed| removers.entry(*removed).or_default().push(by)),
            Err(error) => damaged = Some(error),
        }
        damaged.is_none()
    })?;
    match damaged {
        Some(error) => Err(error),
        None => Ok(removers),
    }
}

/// An entry with its rows as they stand now.
fn log_row(turn: &Turn, partition: Partition, dot: Dot, entry: LogEntry) -> Result<LogRow, StoreError> {
    let prefix = key_prefix(partition, &entry.key);
    let mut rows = Vec::with_capacity(entry.paths.len());
    for path in entry.paths {
        let row = get_row(turn, &row_key(&prefix, &path))?;
        rows.push((path, row));
    }
    let LogEntry { key, removes, puts, tally, op_id, remember, made, .. } = entry;
    Ok(LogRow { dot, key, rows, removes, puts, tally, op_id, remember, made })
}

/// Is a row gone that the entry put and nobody removes by name? Then it was dropped, when all owners had seen it: the asker has lost what it
/// once had, and without the row it would keep what the row had superseded. It needs a full sync.
fn was_dropped(entry: &LogRow) -> bool {
    let unnamed = |component| {
        matches!(
            component,
            Component::Register
                | Component::Deadline
                | Component::Counter
                | Component::Retry
                | Component::FieldCounter
                | Component::FieldRetry
        )
    };
    entry.puts && entry.rows.iter().any(|(path, row)| row.is_none() && unnamed(path.component))
}

/// About how many bytes a row takes on its way.
pub fn size(row: &Row) -> usize {
    match row {
        Row::Register(register) => 32 + register.payload.as_ref().map_or(0, Bytes::len),
        Row::Field(entries) => entries.iter().map(|entry| 32 + entry.payload.as_ref().map_or(0, Bytes::len)).sum(),
        Row::Sibling(sibling) => 32 + sibling.payload.len(),
        Row::Births(births) => 24 * births.len(),
        _ => 64,
    }
}
