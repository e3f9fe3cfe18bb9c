//! Dropping what nobody needs any more: delete rows, closed lives, floors of counters, deadlines and operation ids.
//!
//! ```text
//! Meta  'g' partition | due u64 | row key  -> when life 0 was first found empty (its deadline only)
//! ```
//! Every write of a row that may go one day notes it there, under 0 when only the floor is to pass it, else under the moment before
//! which it cannot go. That is an index and no more: each note is judged by the row as it stands when its time has come.
//!
//! Nothing here decides *whether* the time has come: that is [`Cut`], which the owners agreed on (`node::floor`). Each owner then drops
//! for itself, without telling: a row whose dots all owners have seen, and that one of them does not hold, is gone by the law.
//!
//! Life 0 is the one that may begin again, so it is ended in steps: one owner removes what it held, by name; when all have seen that, it
//! is given a deadline of never; and when all have seen that too, the deadline is dropped. Otherwise what one owner puts into the new
//! life 0 would be hidden, and dropped, by another that still knows when the old one ended.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::data::clock::{Hlc, Now};
use crate::data::id::Partition;
use crate::data::mutation::{Effect, Mutation};
use crate::data::op::Key;
use crate::data::path::{Component, Path, key_prefix, parse_row_key, row_key};
use crate::data::row::{Life, Put, Row, tally_holds, tally_is_live};
use crate::node::coordinator::plan;
use crate::node::floor::Cut;
use crate::node::planted::Planted;
use crate::storage::{Space, StoreError};
use crate::wire::codec;
use crate::wire::message::Scope;

use super::keys::{tagged, upper_bound};
use super::{PartitionState, Replica, Turn, decode, get_row};

/// Notes, or rows of one key, that one step looks at.
const STEP_MAX: usize = 256;
/// What cannot go yet for another reason than the floor is looked at again after this, in milliseconds.
const LOOK_AGAIN_MS: u64 = 60_000;
/// Beyond so many keys that were removed from under one cut, no life begins again under it.
const NAMED_MAX: usize = 4096;

/// A note with the mark on it.
type Marked = (Vec<u8>, Option<Hlc>);

/// How far the collector has come in a partition.
#[derive(Default)]
pub struct Position {
    /// The last note looked at.
    after: Option<Vec<u8>>,
    closing: Option<Closing>,
    /// Keys of which something was removed by name under this cut, for up to [`NAMED_MAX`] of them: that is not yet seen by all, whatever
    /// another note of the same life has marked before.
    named: BTreeSet<Key>,
    /// All notes have been looked at.
    notes_done: bool,
}

/// A life whose rows are being dropped, in order; whatever carries the deadline goes last.
struct Closing {
    note: Vec<u8>,
    mark: Option<Hlc>,
    key: Key,
    life: Life,
    /// What comes of it: rows dropped here, rows removed by name, or just looked at.
    way: Way,
    after: Option<Vec<u8>>,
    /// Something of it must stay for now.
    stays: bool,
    content: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Drop,
    Name,
    Look,
}

/// What became of a note.
enum Fate {
    Forget,
    Stay,
    /// Not before this.
    Later(u64),
    Close(Key, Life, Way),
}

/// How many were dropped, by what they were.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Collected {
    pub done: bool,
    pub delete_rows: u64,
    pub expired_rows: u64,
    pub counter_rows: u64,
    pub deadlines: u64,
    pub reopened: u64,
    pub op_ids: u64,
}

impl Replica {
    /// Notes a row that may go one day.
    pub(super) fn watch(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        at: &[u8],
        path: &Path,
        row: &Row,
    ) -> Result<(), StoreError> {
        if path.component == Component::Deadline && !self.state(turn, partition)?.ends {
            self.state(turn, partition)?.ends = true;
            self.checkpoint(partition);
        }
        let Some(due_ms) = self.due_ms(path, row) else { return Ok(()) };
        self.note_due(turn, partition, due_ms, at, None)
    }

    /// When a row may go at the earliest; 0: as soon as the floor has passed it.
    fn due_ms(&self, path: &Path, row: &Row) -> Option<u64> {
        let clock_ms = self.clock.last().wall_ms();
        match row {
            Row::Register(register) if register.payload.is_none() => Some(0),
            Row::Register(register) => register.deadline_ms.filter(|_| register.life != Life(0)),
            Row::Deadline(deadline) => {
                let lasting = if path.life() == Some(Life(0)) { 0 } else { clock_ms + LOOK_AGAIN_MS };
                Some(deadline.at_ms.unwrap_or(lasting))
            }
            Row::Counter { tally, floor: Some(floor) } => {
                let strips = tally.is_none_or(|tally| floor.upto <= tally.run);
                // A retry of what was removed with it must find it removed.
                (strips || !tally_is_live(tally, &Some(*floor))).then_some(clock_ms + self.op_id_window_ms)
            }
            Row::Retried(retried) => retried.removed.then_some(clock_ms + self.op_id_window_ms),
            _ => None,
        }
    }

    fn note_due(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        due_ms: u64,
        at: &[u8],
        mark: Option<Hlc>,
    ) -> Result<(), StoreError> {
        let clock_ms = self.clock.last().wall_ms();
        let due_ms = if due_ms <= clock_ms { 0 } else { coarse(due_ms, clock_ms) };
        let note = note_key(partition, due_ms, at);
        let new = due_ms > 0 || turn.get(Space::Meta, &note)?.is_none();
        let state = self.state(turn, partition)?;
        match due_ms {
            0 => state.garbage += u64::from(new),
            due_ms => state.due_first_ms = state.due_first_ms.min(due_ms),
        }
        turn.put(Space::Meta, note, mark.map_or_else(Bytes::new, |mark| mark.0.to_be_bytes().to_vec().into()));
        Ok(())
    }

    fn forget_note(&mut self, turn: &mut Turn, partition: Partition, note: Vec<u8>) -> Result<(), StoreError> {
        let due_ms = note_parts(&note).map_or(0, |(due_ms, _)| due_ms);
        let state = self.state(turn, partition)?;
        if due_ms == 0 {
            state.garbage = state.garbage.saturating_sub(1);
        }
        turn.delete(Space::Meta, note);
        Ok(())
    }

    /// Is there anything that might go at this time?
    pub fn has_due(&self, partition: Partition, wall_ms: u64) -> bool {
        let window_ms = self.op_id_window_ms;
        self.loaded(partition).is_some_and(|state| {
            state.garbage > 0 || state.due_first_ms < wall_ms || state.op_first_ms.saturating_add(window_ms) < wall_ms
        })
    }

    /// Promises to mint nothing more here below the time that it gives.
    pub fn promise(&mut self, turn: &mut Turn, now: Now, partition: Partition) -> Result<Hlc, StoreError> {
        let floor = self.clock.tick(now, Hlc(0));
        let state = self.state(turn, partition)?;
        state.promised = state.promised.max(floor);
        let promised = state.promised;
        self.checkpoint(partition);
        Ok(promised)
    }

    /// One step of dropping what the cut allows. `names`: this owner is the one to remove by name where that is needed.
    pub fn collect(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        cut: &Cut,
        position: &mut Position,
        names: bool,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        if position.closing.is_some() {
            self.close_on(turn, now, partition, cut, position, &mut collected)?;
            return Ok(collected);
        }
        if position.notes_done {
            return self.collect_ops(turn, partition, cut, collected);
        }
        let notes = self.notes(turn, partition, cut, position)?;
        position.notes_done = notes.len() < STEP_MAX;
        for (note, mark) in notes {
            let fate = self.judge(turn, now, partition, cut, &note, names, &mut collected)?;
            position.after = Some(note.clone());
            match fate {
                Fate::Stay => {}
                Fate::Forget => self.forget_note(turn, partition, note)?,
                Fate::Later(due_ms) => self.put_off(turn, partition, note, due_ms, None)?,
                Fate::Close(key, life, way) => {
                    // The notes behind it are read again after it.
                    position.notes_done = false;
                    let closing = Closing { note, mark, key, life, way, after: None, stays: false, content: false };
                    position.closing = Some(closing);
                    self.close_on(turn, now, partition, cut, position, &mut collected)?;
                    break;
                }
            }
        }
        Ok(collected)
    }

    fn put_off(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        note: Vec<u8>,
        due_ms: u64,
        mark: Option<Hlc>,
    ) -> Result<(), StoreError> {
        let at = note_parts(&note).map(|(_, at)| at.to_vec()).unwrap_or_default();
        self.forget_note(turn, partition, note)?;
        let due_ms = due_ms.max(self.clock.last().wall_ms() + 1);
        self.note_due(turn, partition, due_ms, &at, mark)
    }

    fn notes(
        &self,
        turn: &Turn,
        partition: Partition,
        cut: &Cut,
        position: &Position,
    ) -> Result<Vec<Marked>, StoreError> {
        let mut from = position.after.clone().unwrap_or_else(|| tagged(b'g', partition));
        if position.after.is_some() {
            from.push(0);
        }
        let to = note_key(partition, cut.floor.wall_ms(), &[]);
        let mut notes = Vec::new();
        turn.scan(Space::Meta, &from, &to, &mut |key, value| {
            let mark = value.try_into().ok().map(|bytes| Hlc(u64::from_be_bytes(bytes)));
            notes.push((key.to_vec(), mark));
            notes.len() < STEP_MAX
        })?;
        Ok(notes)
    }

    /// Judges the row that a note is about, and drops it when that is all there is to do.
    #[allow(clippy::too_many_arguments)]
    fn judge(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        cut: &Cut,
        note: &[u8],
        names: bool,
        collected: &mut Collected,
    ) -> Result<Fate, StoreError> {
        let Some((_, at)) = note_parts(note) else { return Ok(Fate::Forget) };
        let (Some((_, _, key, path)), Some(row)) = (parse_row_key(at), get_row(turn, at)?) else {
            return Ok(Fate::Forget);
        };
        let settled = |row: &Row| row.dots().iter().all(|dot| cut.target.contains(*dot));
        let below = |stamp: Option<crate::data::clock::Stamp>| stamp.is_none_or(|stamp| stamp.hlc < cut.floor);
        if !settled(&row) || !below(row.stamp()) {
            return Ok(match &row {
                // A newer write of the row, which has a note of its own or needs none.
                Row::Register(register) if register.payload.is_some() && register.deadline_ms.is_none() => Fate::Forget,
                _ => Fate::Stay,
            });
        }
        let floor_ms = cut.floor.wall_ms();
        let prefix = key_prefix(partition, &key);
        let deadline_of = |life: Life| get_row(turn, &row_key(&prefix, &Path::deadline(life)));
        Ok(match &row {
            Row::Register(register) if register.payload.is_none() => {
                let state = self.state(turn, partition)?;
                state.dropped = state.dropped.max(register.stamp.hlc);
                self.checkpoint(partition);
                turn.delete(Space::Rows, at.to_vec());
                collected.delete_rows += 1;
                Fate::Forget
            }
            Row::Register(register) => {
                let ends_ms = match deadline_of(register.life)? {
                    // It has a note of its own.
                    Some(Row::Deadline(_)) => None,
                    _ => register.deadline_ms.filter(|_| register.life != Life(0)),
                };
                match ends_ms {
                    Some(ends_ms) if ends_ms < floor_ms => {
                        let counted = register.life != Life(0) && self.is_counted(turn, &key, register.life)?;
                        match (counted, names) {
                            (false, _) => Fate::Close(key, register.life, Way::Drop),
                            (true, true) => Fate::Close(key, register.life, Way::Name),
                            (true, false) => Fate::Later(now.wall_ms.max(floor_ms) + LOOK_AGAIN_MS),
                        }
                    }
                    Some(ends_ms) => Fate::Later(ends_ms),
                    None => Fate::Forget,
                }
            }
            Row::Deadline(deadline) => {
                let Some(life) = path.life() else { return Ok(Fate::Forget) };
                match deadline.at_ms {
                    Some(at_ms) if at_ms >= floor_ms => Fate::Later(at_ms),
                    Some(_) if life != Life(0) => Fate::Close(key, life, Way::Drop),
                    // As if it were not there.
                    None if life == Life(0) => {
                        turn.delete(Space::Rows, at.to_vec());
                        collected.deadlines += 1;
                        Fate::Forget
                    }
                    None => Fate::Close(key, life, Way::Look),
                    Some(_) if names => Fate::Close(key, life, Way::Name),
                    Some(_) => Fate::Later(now.wall_ms.max(floor_ms) + LOOK_AGAIN_MS),
                }
            }
            Row::Counter { tally, floor: Some(floor) } => {
                let live = tally_is_live(tally, &Some(*floor));
                let strips = tally.is_some_and(|tally| floor.upto <= tally.run);
                if live && !strips {
                    return Ok(Fate::Forget);
                }
                if self.is_claimed(turn, partition, &key, &path)? {
                    return Ok(Fate::Later(now.wall_ms.max(floor_ms) + LOOK_AGAIN_MS));
                }
                collected.counter_rows += 1;
                match tally.filter(|_| live) {
                    Some(tally) => {
                        let row = Row::Counter { tally: Some(tally), floor: None };
                        turn.put(Space::Rows, at.to_vec(), codec::encode(&row));
                    }
                    None => turn.delete(Space::Rows, at.to_vec()),
                }
                Fate::Forget
            }
            Row::Retried(retried) if retried.removed => {
                let (Some(life), Some(op_id)) = (path.life(), path.op_id()) else { return Ok(Fate::Forget) };
                let retry_ms = op_id.wall_ms().saturating_add(self.op_id_window_ms);
                if retry_ms >= floor_ms {
                    return Ok(Fate::Later(retry_ms));
                }
                for dot in &retried.tallies {
                    let at = row_key(&prefix, &Path::tally(path.field().as_deref(), life, dot.incarnation));
                    if let Some(Row::Counter { tally, floor }) = get_row(turn, &at)?
                        && tally_holds(&tally, &floor, dot.counter) == crate::data::row::Holds::Live
                    {
                        return Ok(Fate::Later(now.wall_ms.max(floor_ms) + LOOK_AGAIN_MS));
                    }
                }
                turn.delete(Space::Rows, at.to_vec());
                collected.counter_rows += 1;
                Fate::Forget
            }
            _ => Fate::Forget,
        })
    }

    /// Does anything stand that was counted on a value of this life? Nothing but the value says when that ended, and another owner may
    /// have the value overwritten by who has dropped it already, and so does not remove the count: then it would stand there for good.
    /// So one owner removes it by name before any drops it.
    fn is_counted(&mut self, turn: &Turn, key: &Key, life: Life) -> Result<bool, StoreError> {
        let rows = self.read(turn, key, &Scope::Text)?;
        let mut parts = rows.iter().filter_map(|(path, row)| of_life(path, row, life));
        Ok(parts.any(|part| part.counts && part.content))
    }

    /// Does a retried increment that stands say that this tally contains it? Its worth hangs on the tally's row.
    fn is_claimed(&self, turn: &Turn, partition: Partition, key: &Key, path: &Path) -> Result<bool, StoreError> {
        let component = if path.component == Component::Counter { Component::Retry } else { Component::FieldRetry };
        let Some((shared, incarnation)) = path.member.split_last_chunk::<8>() else { return Ok(false) };
        let incarnation = u64::from_be_bytes(*incarnation);
        let from = row_key(&key_prefix(partition, key), &Path::new(component, Bytes::copy_from_slice(shared)));
        let mut claimed = false;
        let mut damaged = None;
        turn.scan(Space::Rows, &from, &upper_bound(&from), &mut |_, value| {
            match decode::<Row>(value, "a row") {
                Ok(Row::Retried(retried)) => {
                    claimed = retried.tallies.iter().any(|dot| dot.incarnation.0 == incarnation);
                }
                Ok(_) => {}
                Err(error) => damaged = Some(error),
            }
            !claimed && damaged.is_none()
        })?;
        match damaged {
            Some(error) => Err(error),
            None => Ok(claimed),
        }
    }

    /// Goes on with a life that has ended: the next rows of its key, and at the end what carries its deadline.
    fn close_on(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        cut: &Cut,
        position: &mut Position,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let Some(mut closing) = position.closing.take() else { return Ok(()) };
        let prefix = key_prefix(partition, &closing.key);
        let mut from = closing.after.clone().unwrap_or_else(|| prefix.to_vec());
        if closing.after.is_some() {
            from.push(0);
        }
        let mut rows: Vec<(Vec<u8>, Path, Row)> = Vec::new();
        let mut damaged = None;
        turn.scan(Space::Rows, &from, &upper_bound(&prefix), &mut |at, value| {
            match (parse_row_key(at), decode::<Row>(value, "a row")) {
                (Some((_, _, _, path)), Ok(row)) => rows.push((at.to_vec(), path, row)),
                (None, _) => damaged = Some(super::corrupt("a row key")),
                (_, Err(error)) => damaged = Some(error),
            }
            rows.len() < STEP_MAX && damaged.is_none()
        })?;
        if let Some(error) = damaged {
            return Err(error);
        }
        let ended = rows.len() < STEP_MAX;
        closing.after = rows.last().map(|(at, ..)| at.clone()).or(closing.after);
        let mut effects = Vec::new();
        let mut floors = Vec::new();
        for (at, path, row) in rows {
            let Some(part) = of_life(&path, &row, closing.life) else { continue };
            closing.content |= part.content;
            if closing.way == Way::Look || part.carries {
                continue;
            }
            if !part.dots.iter().all(|dot| cut.target.contains(*dot)) {
                closing.stays = true;
                continue;
            }
            match closing.way {
                Way::Drop => {
                    collected.expired_rows += 1;
                    match row.without(&part.dots).filter(|_| !part.counts) {
                        Some(rest) => turn.put(Space::Rows, at, codec::encode(&rest)),
                        None => turn.delete(Space::Rows, at),
                    }
                }
                Way::Name if !part.content => {}
                Way::Name if part.counts => floors.extend(plan::floor(&path, &row)),
                _ => effects.push(Effect { path, removes: part.dots, put: None }),
            }
        }
        collected.expired_rows += effects.len() as u64;
        if !effects.is_empty() || !floors.is_empty() {
            self.mint(turn, now, &closing.key, None, false, Hlc(0), |mint| {
                // What is put stands in a mutation of its own (`plan`).
                let floors = floors.into_iter().map(|floor| vec![floor]);
                let all = floors.chain((!effects.is_empty()).then_some(effects));
                all.map(|effects| Mutation { dot: mint.dot(), effects }).collect()
            })?;
        }
        if !ended {
            position.closing = Some(closing);
            return Ok(());
        }
        if closing.way == Way::Name {
            if closing.content && position.named.len() < NAMED_MAX {
                position.named.insert(closing.key.clone());
            }
            closing.content |= position.named.len() >= NAMED_MAX || position.named.contains(&closing.key);
        }
        self.close(turn, now, partition, cut, closing, collected)
    }

    /// All rows of a life have been looked at.
    fn close(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        cut: &Cut,
        closing: Closing,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let Closing { note, mark, key, life, way, stays, content, .. } = closing;
        let prefix = key_prefix(partition, &key);
        let deadline_at = row_key(&prefix, &Path::deadline(life));
        let clock_ms = self.clock.last().wall_ms().max(now.wall_ms);
        match way {
            Way::Drop if stays => Ok(()),
            Way::Drop => {
                let register_at = row_key(&prefix, &Path::new(Component::Register, Bytes::new()));
                if let Some(Row::Register(register)) = get_row(turn, &register_at)?
                    && register.life == life
                    && register.payload.is_some()
                {
                    if !cut.target.contains(register.dot) || register.stamp.hlc >= cut.floor {
                        return Ok(());
                    }
                    let state = self.state(turn, partition)?;
                    state.dropped = state.dropped.max(register.stamp.hlc);
                    self.checkpoint(partition);
                    turn.delete(Space::Rows, register_at);
                    collected.expired_rows += 1;
                }
                if get_row(turn, &deadline_at)?.is_some() {
                    turn.delete(Space::Rows, deadline_at);
                    collected.deadlines += 1;
                }
                self.forget_note(turn, partition, note)
            }
            Way::Look if content => self.put_off(turn, partition, note, clock_ms + LOOK_AGAIN_MS, None),
            // Nothing is left of this life: that it had no end need not be known.
            Way::Look => {
                turn.delete(Space::Rows, deadline_at);
                collected.deadlines += 1;
                self.forget_note(turn, partition, note)
            }
            // What was there has just been removed by name, or is to be as soon as all have seen it.
            Way::Name if content => {
                if mark.is_some() {
                    turn.put(Space::Meta, note, Bytes::new());
                }
                Ok(())
            }
            Way::Name => match mark {
                // Whoever removed the last of it did so before this cut was asked for: all have seen that it is gone.
                mark if mark.is_some_and(|mark| mark < cut.began) || self.planted == Planted::LifeReopenedEarly => {
                    self.mint(turn, now, &key, None, false, Hlc(0), |mint| {
                        let put = Some(Put::Deadline { stamp: mint.stamp, at_ms: None });
                        let effect = Effect { path: Path::deadline(life), removes: Vec::new(), put };
                        vec![Mutation { dot: mint.dot(), effects: vec![effect] }]
                    })?;
                    collected.reopened += 1;
                    self.forget_note(turn, partition, note)
                }
                Some(_) => Ok(()),
                None => {
                    let mark = self.clock.tick(now, Hlc(0));
                    turn.put(Space::Meta, note, mark.0.to_be_bytes().to_vec());
                    Ok(())
                }
            },
        }
    }

    fn collect_ops(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        cut: &Cut,
        mut collected: Collected,
    ) -> Result<Collected, StoreError> {
        let until_ms = cut.floor.wall_ms().saturating_sub(self.op_id_window_ms);
        let from = tagged(b'o', partition);
        let mut to = from.clone();
        to.extend_from_slice(&until_ms.to_be_bytes()[2..]);
        let mut gone = Vec::new();
        turn.scan(Space::Meta, &from, &to, &mut |key, _| {
            gone.push(key.to_vec());
            gone.len() < STEP_MAX
        })?;
        collected.op_ids = gone.len() as u64;
        collected.done = gone.len() < STEP_MAX;
        for key in gone {
            turn.delete(Space::Meta, key);
        }
        if collected.done {
            let state = self.state(turn, partition)?;
            (state.due_first_ms, state.op_first_ms) = firsts(turn, partition)?;
        }
        Ok(collected)
    }
}

/// The dots of what a row would show if this life had not ended.
pub fn content_of(path: &Path, row: &Row, life: Life) -> Vec<crate::data::id::Dot> {
    of_life(path, row, life).filter(|part| part.content).map(|part| part.dots).unwrap_or_default()
}

/// What a row has of one life.
struct Part {
    dots: Vec<crate::data::id::Dot>,
    /// Its deadline stands here: it goes last.
    carries: bool,
    /// It is counted: all of the row belongs to the life.
    counts: bool,
    /// Something of it would be visible if the life had not ended.
    content: bool,
}

fn of_life(path: &Path, row: &Row, life: Life) -> Option<Part> {
    let (dots, carries, counts, content) = match row {
        Row::Register(register) => {
            let mine = register.life == life && register.payload.is_some();
            // Life 0 has its deadline in a row of its own.
            (mine.then_some(register.dot).into_iter().collect(), life != Life(0), false, true)
        }
        Row::Deadline(deadline) => {
            let mine = path.life() == Some(life);
            (mine.then_some(deadline.dot).into_iter().collect(), true, false, false)
        }
        Row::Counter { tally, floor } => {
            let dots = if path.life() == Some(life) { row.dots() } else { Vec::new() };
            (dots, false, true, tally_is_live(tally, floor))
        }
        Row::Retried(retried) => {
            let dots = if path.life() == Some(life) { row.dots() } else { Vec::new() };
            (dots, false, true, !retried.removed)
        }
        Row::Births(births) => {
            (births.iter().filter(|birth| birth.life == life).map(|birth| birth.dot).collect(), false, false, true)
        }
        Row::Field(entries) => {
            (entries.iter().filter(|entry| entry.life == life).map(|entry| entry.dot).collect(), false, false, true)
        }
        Row::Sibling(sibling) => {
            ((sibling.life == life).then_some(sibling.dot).into_iter().collect::<Vec<_>>(), false, false, true)
        }
    };
    (!dots.is_empty()).then_some(Part { dots, carries, counts, content })
}

/// Rounded up, the coarser the farther it is: a key whose deadline is moved with every write leaves few notes.
fn coarse(due_ms: u64, clock_ms: u64) -> u64 {
    let step = (due_ms.saturating_sub(clock_ms) / 8).max(1_000).next_power_of_two();
    due_ms.saturating_add(step) / step * step
}

fn note_key(partition: Partition, due_ms: u64, at: &[u8]) -> Vec<u8> {
    let mut key = tagged(b'g', partition);
    key.extend_from_slice(&due_ms.to_be_bytes());
    key.extend_from_slice(at);
    key
}

/// When a note is due, and the row key that it is about.
fn note_parts(note: &[u8]) -> Option<(u64, &[u8])> {
    let due_ms = u64::from_be_bytes(note.get(3..11)?.try_into().ok()?);
    Some((due_ms, &note[11..]))
}

/// Counts what a store holds of garbage.
pub(super) fn load(turn: &Turn, partition: Partition, state: &mut PartitionState) -> Result<(), StoreError> {
    let mut count = 0;
    turn.scan(Space::Meta, &note_key(partition, 0, &[]), &note_key(partition, 1, &[]), &mut |_, _| {
        count += 1;
        true
    })?;
    state.garbage = count;
    (state.due_first_ms, state.op_first_ms) = firsts(turn, partition)?;
    Ok(())
}

/// When the first row falls due, and how old the oldest operation id is.
fn firsts(turn: &Turn, partition: Partition) -> Result<(u64, u64), StoreError> {
    let (mut due_ms, mut op_ms) = (u64::MAX, u64::MAX);
    let end = upper_bound(&tagged(b'g', partition));
    turn.scan(Space::Meta, &note_key(partition, 1, &[]), &end, &mut |key, _| {
        due_ms = note_parts(key).map_or(0, |(due_ms, _)| due_ms);
        false
    })?;
    let from = tagged(b'o', partition);
    turn.scan(Space::Meta, &from, &upper_bound(&from), &mut |key, _| {
        let mut bytes = [0; 8];
        if let Some(time) = key.get(3..9) {
            bytes[2..].copy_from_slice(time);
        }
        op_ms = u64::from_be_bytes(bytes);
        false
    })?;
    Ok((due_ms, op_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moved_with_every_write_leaves_few_notes() {
        for ttl_ms in [2_000, 60_000, 3_600_000] {
            let mut notes: Vec<u64> =
                (0..ttl_ms).step_by(100).map(|clock_ms| coarse(clock_ms + ttl_ms, clock_ms)).collect();
            assert!(notes.iter().enumerate().all(|(at, due_ms)| *due_ms > at as u64 * 100 + ttl_ms));
            notes.dedup();
            assert!(notes.len() <= 17, "{} notes for {ttl_ms} ms", notes.len());
        }
    }
}
