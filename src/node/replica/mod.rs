//! A replica's partitions: rows, what has been seen, and the log of what others may still miss.
//!
//! ```text
//! Rows  partition | key hash | namespace | key | component | [name hash] | member  -> row
//! Log   partition | incarnation | counter                            -> which rows a dot touched
//! Meta  's' partition           -> checkpoint: seen, where the log starts, the newest stamp
//!       'd' partition dot       -> a dot that was superseded by name before it came
//!       'o' partition op id     -> the dot that an operation became, for those that are remembered for the whole window
//!       'g' partition due row   -> a row that may be dropped one day (`collect`)
//! ```
//! Invariants:
//! 1. A dot enters `seen` in the batch that carries its effects and its log entry. What `seen` is after a restart is the checkpoint
//!    plus the log.
//! 2. `seen` claims a dot only when *all* its effects were applied here, or when a complete exchange proved it superseded.
//! 3. `newest` is at least the stamp of every row of the partition, so a write stamped above it needs no read before it.
//! 4. A dot of this incarnation is minted as the successor of the greatest seen, and only here.

pub mod collect;
pub mod digest;
mod keys;
pub mod objects;
pub mod packed;
mod read;
pub mod recent;
pub mod sync;

/// Operation ids that doors made are kept for this long.
pub const RECENT_US: u64 = 60_000_000;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::data::clock::{Hlc, HybridClock, Now, Stamp};
use crate::data::context::Context;
use crate::data::id::{Dot, Incarnation, OpId, Partition, mix64};
use crate::data::mutation::{Delta, Effect, Entry, Mutation, apply};
use crate::data::object::Object;
use crate::data::op::Key;
use crate::data::path::{Component, Path, key_prefix, row_key, split_row_key};
use crate::data::row::{Deadline, Put, Row};
use crate::node::planted::Planted;
use crate::ring::slot;
use crate::storage::{Overlay, Space, Storage, StoreError};
use crate::wire::codec;
use crate::wire::message::{BESIDE_MAX, LogRow, Scope, Strays};

pub use keys::upper_bound;
use keys::{checkpoint_key, dead_key, dead_range, log_key, log_range, op_key, parse_dot, parse_log_key};
use objects::Objects;
use recent::{Known, RecentOps};

/// The store as one turn sees it: its own uncommitted writes included.
pub type Turn<'a> = Overlay<'a, dyn Storage + 'a>;

/// Stored messages are our own: the bound is there against damage, not against people.
const STORED_BYTES_MAX: usize = 64 << 20;

/// What a replica keeps of one partition in memory.
#[derive(Clone, Debug)]
pub struct PartitionState {
    pub seen: Context,
    /// Superseded by name before they came: not to be put any more, but their own effects are still to come.
    pub dead: BTreeSet<Dot>,
    /// Below this the log has been dropped.
    pub log_start: Context,
    /// At least the stamp of every row.
    pub newest: Hlc,
    /// Some increment was ever retried here.
    pub retries: bool,
    /// A deadline was ever put on a life of some key here.
    pub ends: bool,
    /// Dots of this incarnation up to here are given away: as a stand-in, whose mutations live in hints and not in rows, or in the delta
    /// that is being taken.
    pub spent: u64,
    /// A full sync has brought rows whose dots are not seen yet.
    pub unsure: bool,
    /// A time below which this node has promised to mint nothing more here.
    pub promised: Hlc,
    /// The newest stamp of a row that was dropped. Whatever is stamped below it and not seen comes from a clock that went back.
    pub dropped: Hlc,
    /// Rows that may go as soon as the floor has passed them: delete rows most of all.
    pub garbage: u64,
    /// No row falls due before this, in milliseconds since 1970, and no operation id is older than the other.
    pub due_first_ms: u64,
    pub op_first_ms: u64,
    /// Entries in the log.
    pub log_entries: u64,
    /// Grows with every change of `seen`.
    pub version: u64,
    /// Grows with every turn that changed rows. Only in memory.
    pub rows_version: u64,
    /// How often all of it was forgotten since the start.
    pub forgotten: u64,
    /// `seen`, `newest`, `retries` or `ends` changed in a way that the log does not tell.
    pub checkpoint_due: bool,
}

impl Default for PartitionState {
    fn default() -> Self {
        Self {
            seen: Context::default(),
            dead: BTreeSet::new(),
            log_start: Context::default(),
            newest: Hlc(0),
            retries: false,
            ends: false,
            spent: 0,
            unsure: false,
            promised: Hlc(0),
            dropped: Hlc(0),
            garbage: 0,
            due_first_ms: u64::MAX,
            op_first_ms: u64::MAX,
            log_entries: 0,
            version: 0,
            rows_version: 0,
            forgotten: 0,
            checkpoint_due: false,
        }
    }
}

impl PartitionState {
    /// What an absent row means: dots in here are gone.
    pub fn knowledge(&self) -> Context {
        let mut knowledge = self.seen.clone();
        for dot in &self.dead {
            knowledge.insert(*dot);
        }
        knowledge
    }

    pub fn knows(&self, dot: Dot) -> bool {
        self.seen.contains(dot) || self.dead.contains(&dot)
    }
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    seen: Context,
    log_start: Context,
    newest: Hlc,
    retries: bool,
    ends: bool,
    /// Whose `spent` it is: another incarnation starts anew.
    spender: Incarnation,
    spent: u64,
    promised: Hlc,
    dropped: Hlc,
    unsure: bool,
}

/// What the log says of a dot.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogEntry {
    pub key: Key,
    pub paths: Vec<Path>,
    /// What the mutation removed by name.
    pub removes: Vec<Dot>,
    /// It put something, and did not only remove.
    pub puts: bool,
    pub op_id: Option<OpId>,
    pub remember: bool,
    /// The mutation added to a tally.
    pub tally: bool,
    pub made: Hlc,
}

/// What came of taking a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// A row holds a newer stamp than the delta's.
    pub newer: Option<Stamp>,
}

/// What a plan may use to make mutations.
pub struct Mint {
    pub incarnation: Incarnation,
    pub stamp: Stamp,
    next: u64,
}

impl Mint {
    pub fn dot(&mut self) -> Dot {
        let dot = Dot { incarnation: self.incarnation, counter: self.next };
        self.next += 1;
        dot
    }

    /// An operation id for what came without: the next dot's, so it is nobody else's.
    pub fn op_id(&self, wall_ms: u64) -> OpId {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&mix64(self.incarnation.0 ^ self.next.rotate_left(32)).to_be_bytes());
        random[8..].copy_from_slice(&(self.next as u16).to_be_bytes());
        OpId::new(wall_ms, random)
    }
}

/// All partitions of one lane.
pub struct Replica {
    pub incarnation: Incarnation,
    partitions: Vec<Option<Box<PartitionState>>>,
    pub clock: HybridClock,
    pub(super) objects: Objects,
    recent: RecentOps,
    /// Partitions whose checkpoint this turn must write.
    due: BTreeSet<Partition>,
    /// Log entries over all loaded partitions.
    pub log_entries: u64,
    /// The store does not hold what its own incarnation minted: it lost its memory, or has forgotten a partition. Asks for a new one.
    pub amnesia: bool,
    /// The last moment that this replica was told: operation ids found in the log count as of then.
    pub now_us: u64,
    /// See [`Planted`].
    pub planted: Planted,
    /// How long an operation id is remembered, in milliseconds.
    pub op_id_window_ms: u64,
}

impl Replica {
    pub fn new(incarnation: Incarnation, partitions: u16, objects: Objects) -> Self {
        Self {
            incarnation,
            partitions: (0..partitions).map(|_| None).collect(),
            clock: HybridClock::default(),
            objects,
            recent: RecentOps::default(),
            due: BTreeSet::new(),
            log_entries: 0,
            amnesia: false,
            now_us: 0,
            planted: Planted::None,
            op_id_window_ms: 600_000,
        }
    }

    pub fn partition_of(&self, key: &Key) -> Partition {
        slot::partition(&key.bytes, self.partitions.len() as u16)
    }

    /// The state of a partition, read from the store at first touch.
    pub fn state(&mut self, turn: &Turn, partition: Partition) -> Result<&mut PartitionState, StoreError> {
        let at = partition.0 as usize;
        if self.partitions[at].is_none() {
            let state = self.load(turn, partition)?;
            self.log_entries += state.log_entries;
            self.partitions[at] = Some(Box::new(state));
        }
        Ok(self.partitions[at].as_mut().expect("loaded just above"))
    }

    /// The state of a partition if it has been touched since the start.
    pub fn loaded(&self, partition: Partition) -> Option<&PartitionState> {
        self.partitions[partition.0 as usize].as_deref()
    }

    fn load(&mut self, turn: &Turn, partition: Partition) -> Result<PartitionState, StoreError> {
        let mut state = PartitionState::default();
        if let Some(bytes) = turn.get(Space::Meta, &checkpoint_key(partition))? {
            let checkpoint: Checkpoint = decode(&bytes, "a checkpoint")?;
            state.seen = checkpoint.seen;
            state.log_start = checkpoint.log_start;
            state.newest = checkpoint.newest;
            state.retries = checkpoint.retries;
            state.ends = checkpoint.ends;
            state.promised = checkpoint.promised;
            state.dropped = checkpoint.dropped;
            state.unsure = checkpoint.unsure;
            if checkpoint.spender == self.incarnation {
                state.spent = checkpoint.spent;
            }
        }
        let mut damaged = None;
        let (recent, now_us) = (&mut self.recent, self.now_us);
        let (from, to) = log_range(partition);
        turn.scan(Space::Log, &from, &to, &mut |key, value| match (
            parse_log_key(key),
            decode::<LogEntry>(value, "a log entry"),
        ) {
            (Some(dot), Ok(entry)) => {
                state.seen.insert(dot);
                state.newest = state.newest.max(entry.made);
                state.log_entries += 1;
                if let Some(op_id) = entry.op_id {
                    recent.insert(op_id, Known { dot, tally: entry.tally }, now_us);
                }
                true
            }
            (None, _) => {
                damaged = Some(corrupt("a log key"));
                false
            }
            (_, Err(error)) => {
                damaged = Some(error);
                false
            }
        })?;
        let (from, to) = dead_range(partition);
        turn.scan(Space::Meta, &from, &to, &mut |key, _| {
            if let Some(dot) = parse_dot(&key[3..]) {
                state.dead.insert(dot);
            }
            true
        })?;
        match damaged {
            Some(error) => return Err(error),
            None => collect::load(turn, partition, &mut state)?,
        }
        Ok(state)
    }

    /// Takes note of the time in a delta; false when it is too far ahead to be believed. A time ahead of the clock is no surprise in a
    /// partition that holds such a row already: whoever overwrites that must stamp above it.
    pub fn believes(
        &mut self,
        turn: &Turn,
        now: Now,
        partition: Partition,
        made: Hlc,
        bound_ms: u64,
    ) -> Result<bool, StoreError> {
        if self.clock.observe(now, made, bound_ms) {
            return Ok(true);
        }
        let newest = self.state(turn, partition)?.newest;
        Ok(made.wall_ms() <= newest.wall_ms().saturating_add(bound_ms))
    }

    /// Makes a delta and applies it here. `plan` makes the mutations; `above` is the highest stamp it must exceed.
    #[allow(clippy::too_many_arguments)]
    pub fn mint(
        &mut self,
        turn: &mut Turn,
        now: Now,
        key: &Key,
        op_id: Option<OpId>,
        remember: bool,
        above: Hlc,
        plan: impl FnOnce(&mut Mint) -> Vec<Mutation>,
    ) -> Result<Delta, StoreError> {
        let delta = self.draw(turn, now, key, op_id, remember, above, plan)?;
        self.take(turn, now, &delta, true)?;
        Ok(delta)
    }

    /// Makes a delta without applying it: what a stand-in does, which keeps it as a hint.
    #[allow(clippy::too_many_arguments)]
    pub fn draw(
        &mut self,
        turn: &mut Turn,
        now: Now,
        key: &Key,
        op_id: Option<OpId>,
        remember: bool,
        above: Hlc,
        plan: impl FnOnce(&mut Mint) -> Vec<Mutation>,
    ) -> Result<Delta, StoreError> {
        let partition = self.partition_of(key);
        let incarnation = self.incarnation;
        let forgets = self.planted == Planted::PromiseForgotten;
        let state = self.state(turn, partition)?;
        let next = state.seen.greatest(incarnation).max(state.spent) + 1;
        let promised = if forgets { Hlc(0) } else { state.promised };
        let hlc = self.clock.tick(now, above.max(promised));
        let mut mint = Mint { incarnation, stamp: Stamp { hlc, incarnation }, next };
        let mutations = plan(&mut mint);
        Ok(Delta { key: key.clone(), op_id, remember, made: hlc, basis: None, mutations })
    }

    /// A stand-in's dots: minted here, kept in hints, never claimed as rows. Only the counter is remembered.
    pub fn spend(&mut self, turn: &mut Turn, now: Now, delta: &Delta) -> Result<(), StoreError> {
        let partition = self.partition_of(&delta.key);
        self.state(turn, partition)?;
        for mutation in &delta.mutations {
            let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded above");
            state.spent = state.spent.max(mutation.dot.counter);
            if let Some(op_id) = delta.op_id {
                let tally = mutation.effects.iter().any(|effect| matches!(effect.put, Some(Put::Tally { .. })));
                self.recent.insert(op_id, Known { dot: mutation.dot, tally }, now.mono_us);
            }
        }
        let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded above");
        state.checkpoint_due = true;
        self.due.insert(partition);
        Ok(())
    }

    /// Does what a delta puts belong elsewhere, as far as is known here? Asked before it is taken: its coordinator may have missed the
    /// deadline of the life that it joined, or that what it stands beside has been deleted and begun anew since; or this owner has. Who
    /// knows more is found out by the coordinator. That it were certain beforehand would cost a read of a quorum before every
    /// addition; this costs a look at one row, or two where the life ends, and none where no life was ever given a deadline.
    pub fn strays(&mut self, turn: &mut Turn, now: Now, delta: &Delta) -> Result<Option<Box<Strays>>, StoreError> {
        let (Some(basis), Some(life)) = (&delta.basis, delta.life()) else { return Ok(None) };
        let partition = self.partition_of(&delta.key);
        let state = self.state(turn, partition)?;
        if basis.deadline.is_none() && !state.ends {
            return Ok(None);
        }
        let wall_ms = now.wall_ms.max(state.promised.wall_ms());
        let prefix = key_prefix(partition, &delta.key);
        let remembered = self.objects.get(&prefix);
        if basis.beside.is_none() && remembered.is_some_and(|known| !known.mask.has_any(&[Component::Deadline])) {
            return Ok(None);
        }
        let (mut news, mut ends_ms) = (None, None);
        let deadline = Path::deadline(life);
        // Whoever has given a deadline to a life that it began has seen what it puts.
        let begins =
            delta.mutations.iter().flat_map(|mutation| &mutation.effects).any(|effect| effect.path == deadline);
        if let Some(Row::Deadline(held)) = get_row(turn, &row_key(&prefix, &deadline))?
            && !begins
        {
            news = Some(held.stamp).filter(|_| Some(held.stamp) > basis.deadline);
            ends_ms = held.at_ms;
        }
        let (mut gone, mut floored) = (false, None);
        if let Some(entry) = &basis.beside {
            let row = get_row(turn, &row_key(&prefix, &entry.path))?;
            // A floor takes away what has not come yet as well.
            floored = match &row {
                Some(Row::Counter { floor: Some(floor), .. }) if floor.upto >= entry.dot.counter => Some(entry.dot),
                _ => None,
            };
            let object = Object::new(row.map(|row| (entry.path.clone(), row)));
            let state = self.state(turn, partition)?;
            let is_known = floored.is_some() || state.seen.contains(entry.dot) || state.dead.contains(&entry.dot);
            gone = is_known && !object.visible_entries(wall_ms).any(|held| entry.is_in(&held));
        }
        if news.is_none() && !gone {
            return Ok(None);
        }
        // The first rows of each kind: should all of them have ended, what was put may stand for longer than the others, never less.
        let rows = if delta.puts_a_value() { Vec::new() } else { self.read(turn, &delta.key, &Scope::Glance)? };
        let object = Object::new(delta.left_out(rows));
        let mut beside: Vec<Entry> = object.visible_entries(wall_ms).collect();
        let ends = |entry: &Entry| object.deadline_of(entry.life, None).unwrap_or(u64::MAX);
        beside.sort_by_key(|entry| std::cmp::Reverse((ends(entry), entry.life, entry.dot)));
        beside.truncate(BESIDE_MAX);
        let apart = beside.first().is_some_and(|entry| object.deadline_of(entry.life, None) != ends_ms);
        // What was removed before it came is known as well.
        let state = self.state(turn, partition)?;
        let mut seen = state.seen.clone();
        for dot in state.dead.iter().copied().chain(floored) {
            seen.insert(dot);
        }
        let ended = news.is_some() && ends_ms.is_some_and(|ends_ms| ends_ms <= wall_ms);
        Ok(Some(Box::new(Strays { news, ended, beside, apart, gone, seen })))
    }

    /// Were these, the mutations of one operation, put, as far as is known here, into lives that had already ended then, and nowhere else?
    /// Asked before they are taken.
    pub fn came_too_late(&mut self, turn: &mut Turn, entries: &[LogRow]) -> Result<bool, StoreError> {
        let mut late = false;
        for entry in entries {
            let partition = self.partition_of(&entry.key);
            let state = self.state(turn, partition)?;
            if !entry.puts || !state.ends {
                continue;
            }
            if state.seen.contains(entry.dot) {
                return Ok(false);
            }
            let prefix = key_prefix(partition, &entry.key);
            for (path, row) in &entry.rows {
                let object = Object::new(row.clone().map(|row| (path.clone(), row)));
                for held in object.visible_entries(0).filter(|held| held.dot == entry.dot) {
                    let deadline = get_row(turn, &row_key(&prefix, &Path::deadline(held.life)))?;
                    let Some(Row::Deadline(Deadline { at_ms: Some(at_ms), .. })) = deadline else { return Ok(false) };
                    if at_ms > entry.made.wall_ms() {
                        return Ok(false);
                    }
                    late = true;
                }
            }
        }
        Ok(late)
    }

    /// Applies a delta: rows, `seen` and log in the turn's batch. `minted`: it was made here just now.
    pub fn take(&mut self, turn: &mut Turn, now: Now, delta: &Delta, minted: bool) -> Result<Taken, StoreError> {
        let partition = self.partition_of(&delta.key);
        let prefix = key_prefix(partition, &delta.key);
        let me = self.incarnation;
        let mut taken = Taken::default();
        let reserves = minted && self.planted != Planted::DotsUsedTwice;
        let state = self.state(turn, partition)?;
        if reserves {
            // Taking one of these mutations may make another mutation at once (`settle`), which must not be given the dot of the next.
            let last = delta.mutations.iter().map(|mutation| mutation.dot.counter).max();
            state.spent = state.spent.max(last.unwrap_or(0));
        }
        for mutation in &delta.mutations {
            let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded above");
            let entry = || LogEntry {
                key: delta.key.clone(),
                paths: mutation.effects.iter().map(|effect| effect.path.clone()).collect(),
                removes: mutation.effects.iter().flat_map(|effect| effect.removes.iter().copied()).collect(),
                puts: mutation.effects.iter().any(|effect| effect.put.is_some()),
                op_id: delta.op_id,
                remember: delta.remember,
                tally: mutation.effects.iter().any(|effect| matches!(effect.put, Some(Put::Tally { .. }))),
                made: delta.made,
            };
            if state.seen.contains(mutation.dot) && self.planted != Planted::SeenNotAsked {
                taken.newer = taken.newer.max(self.above(turn, &prefix, mutation)?);
                if delta.op_id.is_some() {
                    let entry = entry();
                    self.name(turn, now, partition, mutation.dot, &entry)?;
                    self.settle_entry(turn, now, partition, mutation.dot, &entry)?;
                }
                continue;
            }
            if mutation.dot.incarnation == me && !minted && mutation.dot.counter > state.spent {
                self.amnesia = true;
                continue;
            }
            let dead = state.dead.contains(&mutation.dot) && self.planted != Planted::DeadForgotten;
            for effect in &mutation.effects {
                let newer = self.put_effect(turn, partition, &prefix, mutation.dot, effect, dead)?;
                taken.newer = taken.newer.max(newer);
            }
            let entry = entry();
            self.note(turn, now, partition, mutation.dot, &entry)?;
            self.settle_entry(turn, now, partition, mutation.dot, &entry)?;
        }
        let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded above");
        state.newest = state.newest.max(delta.made);
        Ok(taken)
    }

    /// An operation was counted twice if a tally contains it and a retried increment stands under its id as well. Gives where the
    /// latter would stand and the dot that the former has it by, when `path`, just written, makes that possible.
    pub(super) fn claim(
        &self,
        turn: &Turn,
        partition: Partition,
        path: &Path,
        is_tally: bool,
        op_id: Option<OpId>,
        dot: Dot,
    ) -> Result<Option<(Path, Dot)>, StoreError> {
        if let Some(op_id) = path.op_id() {
            let known = self.known_op(turn, partition, op_id)?;
            return Ok(known.filter(|known| known.tally).map(|known| (path.clone(), known.dot)));
        }
        let retries = self.partitions[partition.0 as usize].as_ref().is_some_and(|state| state.retries);
        Ok(match (op_id, path.life()) {
            (Some(op_id), Some(life)) if is_tally && retries => {
                Some((Path::retry(path.field().as_deref(), life, op_id), dot))
            }
            _ => None,
        })
    }

    /// Says of increments found both retried and in a tally that they are. That is a mutation like any other, so that replicas that
    /// cannot know it by themselves learn it; several may say the same.
    pub(super) fn settle(
        &mut self,
        turn: &mut Turn,
        now: Now,
        key: &Key,
        claims: Vec<(Path, Dot)>,
    ) -> Result<(), StoreError> {
        for (path, tally) in claims {
            let partition = self.partition_of(key);
            let at = row_key(&key_prefix(partition, key), &path);
            let Some(Row::Retried(retried)) = get_row(turn, &at)? else { continue };
            if retried.tallies.contains(&tally) {
                continue;
            }
            let put = Some(Put::RetriedTallied { amount: retried.amount, tally });
            let effect = Effect { path, removes: Vec::new(), put };
            self.mint(turn, now, key, None, false, Hlc(0), |mint| {
                vec![Mutation { dot: mint.dot(), effects: vec![effect] }]
            })?;
        }
        Ok(())
    }

    /// Enters a dot into `seen` and the log, and what it removed into `dead` as far as that has not come yet.
    pub(super) fn note(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        dot: Dot,
        entry: &LogEntry,
    ) -> Result<(), StoreError> {
        let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded by every caller");
        if state.dead.remove(&dot) {
            turn.delete(Space::Meta, dead_key(partition, dot));
        }
        if !state.seen.insert(dot) {
            return Ok(());
        }
        state.version += 1;
        state.log_entries += 1;
        self.log_entries += 1;
        for removed in &entry.removes {
            if !state.knows(*removed) {
                state.dead.insert(*removed);
                turn.put(Space::Meta, dead_key(partition, *removed), Bytes::new());
            }
        }
        turn.put(Space::Log, log_key(partition, dot), codec::encode(entry));
        self.remember(turn, now, partition, dot, entry)
    }

    /// Learns which operation a dot was that came without: a repair brought its row before.
    pub(super) fn name(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        dot: Dot,
        entry: &LogEntry,
    ) -> Result<(), StoreError> {
        let Some(op_id) = entry.op_id else { return Ok(()) };
        if self.known_op(turn, partition, op_id)?.is_some() {
            return Ok(());
        }
        let at = log_key(partition, dot);
        if turn.get(Space::Log, &at)?.is_some() {
            turn.put(Space::Log, at, codec::encode(entry));
        }
        self.remember(turn, now, partition, dot, entry)
    }

    /// Remembers the operation behind a dot.
    fn remember(
        &mut self,
        turn: &mut Turn,
        now: Now,
        partition: Partition,
        dot: Dot,
        entry: &LogEntry,
    ) -> Result<(), StoreError> {
        let Some(op_id) = entry.op_id else { return Ok(()) };
        let mut known = Known { dot, tally: entry.tally };
        // That a tally contains it must not be forgotten for a retry of it.
        if entry.paths.iter().any(|path| path.op_id().is_some())
            && let Some(before) = self.known_op(turn, partition, op_id)?.filter(|before| before.tally)
        {
            known = before;
        }
        self.recent.insert(op_id, known, now.mono_us);
        if entry.remember {
            turn.put(Space::Meta, op_key(partition, op_id), codec::encode(&known));
            let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded by every caller");
            state.op_first_ms = state.op_first_ms.min(op_id.wall_ms());
        }
        Ok(())
    }

    /// The newest stamp that stands above a mutation that has been seen. What it wrote may have come as a row, by exchange, before it
    /// came itself; its coordinator asks all the same whether it lost.
    fn above(&self, turn: &Turn, prefix: &[u8], mutation: &Mutation) -> Result<Option<Stamp>, StoreError> {
        if self.planted == Planted::SeenNotJudged {
            return Ok(None);
        }
        let mut newest = None;
        for effect in &mutation.effects {
            let Some(stamp) = effect.put.as_ref().and_then(Put::stamp) else { continue };
            let row = get_row(turn, &row_key(prefix, &effect.path))?;
            newest = newest.max(row.as_ref().and_then(Row::stamp).filter(|standing| *standing > stamp));
        }
        Ok(newest)
    }

    #[allow(clippy::too_many_arguments)]
    fn put_effect(
        &mut self,
        turn: &mut Turn,
        partition: Partition,
        prefix: &[u8],
        dot: Dot,
        effect: &Effect,
        dead: bool,
    ) -> Result<Option<Stamp>, StoreError> {
        let at = row_key(prefix, &effect.path);
        let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded by the caller");
        // A register's write stamped above everything here cannot lose, so what stood there need not be read (invariant 3).
        let blind = !dead
            && (self.planted == Planted::BlindBelowNewest
                || effect.put.as_ref().and_then(Put::stamp).is_some_and(|stamp| stamp.hlc > state.newest))
            && matches!(effect.put, Some(Put::Register { .. } | Put::Deadline { .. }));
        let before = if blind { None } else { get_row(turn, &at)? };
        let mut put = effect.put.clone();
        if matches!(put, Some(Put::Retried { .. })) {
            self.has_retries(partition);
        }
        if dead {
            put = None;
        }
        let mut removes = effect.removes.clone();
        match self.planted {
            Planted::RemovesUnseen if !removes.is_empty() => {
                removes = before.as_ref().map(Row::removable).unwrap_or_default();
            }
            Planted::FloorsRemoveAll => {
                if let (Some(Put::Floor { upto, total }), Some(Row::Counter { tally: Some(tally), .. })) =
                    (&mut put, &before)
                {
                    (*upto, *total) = (tally.dot.counter, tally.total);
                }
            }
            _ => {}
        }
        let wanted = Effect { path: effect.path.clone(), removes, put };
        let had = before.is_some();
        let applied = apply(&wanted, dot, before, dead);
        let dropped = self.partitions[partition.0 as usize].as_ref().map_or(Hlc(0), |state| state.dropped);
        // What is stamped below a delete row that has gone would lose to it where it still stands.
        let stale = effect.put.as_ref().and_then(Put::stamp).filter(|stamp| stamp.hlc <= dropped);
        let newer = applied.newer.or(stale.map(|_| Stamp { hlc: dropped, incarnation: Incarnation(0) }));
        match applied.row {
            Some(row) => {
                self.watch(turn, partition, &at, &effect.path, &row)?;
                turn.put(Space::Rows, at, codec::encode(&row));
                self.objects.saw(prefix, effect.path.component);
            }
            None if had => turn.delete(Space::Rows, at),
            None => {}
        }
        Ok(newer)
    }

    /// Goes on under another incarnation, which has minted nothing yet.
    pub fn reincarnate(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        for state in self.partitions.iter_mut().flatten() {
            state.spent = 0;
        }
    }

    /// From now on tallies are compared with retried increments.
    pub(super) fn has_retries(&mut self, partition: Partition) {
        let state = self.partitions[partition.0 as usize].as_deref_mut().expect("loaded by every caller");
        if !std::mem::replace(&mut state.retries, true) {
            state.checkpoint_due = true;
            self.due.insert(partition);
        }
    }

    /// Has this replica all that its incarnation ever minted here? Not if it minted as a stand-in, or has forgotten the partition.
    pub fn holds_its_own(&mut self, turn: &Turn, partition: Partition) -> Result<bool, StoreError> {
        let me = self.incarnation;
        let state = self.state(turn, partition)?;
        Ok(state.seen.upto(me) >= state.spent)
    }

    /// The operation is remembered from the last moments, in memory.
    pub fn knows_recent(&self, op_id: OpId) -> bool {
        self.planted != Planted::OperationsForgotten && self.recent.get(op_id).is_some()
    }

    /// The dot that an operation became, if this replica remembers.
    pub fn known_op(&self, turn: &Turn, partition: Partition, op_id: OpId) -> Result<Option<Known>, StoreError> {
        if self.planted == Planted::OperationsForgotten {
            return Ok(None);
        }
        if let Some(known) = self.recent.get(op_id) {
            return Ok(Some(known));
        }
        match turn.get(Space::Meta, &op_key(partition, op_id))? {
            Some(bytes) => decode(&bytes, "an operation id").map(Some),
            None => Ok(None),
        }
    }

    /// What is to be compared with [`Replica::is_unchanged`] later.
    pub fn rows_version(&mut self, turn: &Turn, partition: Partition) -> Result<u64, StoreError> {
        Ok(self.state(turn, partition)?.rows_version)
    }

    /// Are a key's rows certainly as they were when its partition had this version?
    pub fn is_unchanged(&mut self, turn: &Turn, key: &Key, version: u64) -> Result<bool, StoreError> {
        let partition = self.partition_of(key);
        let same = self.state(turn, partition)?.rows_version == version;
        Ok(same && !turn.touches(Space::Rows, &key_prefix(partition, key)))
    }

    pub fn partitions_loaded(&self) -> impl Iterator<Item = (Partition, &PartitionState)> {
        self.partitions.iter().enumerate().filter_map(|(at, state)| Some((Partition(at as u16), state.as_deref()?)))
    }

    /// Forgets operation ids that no door retries any more.
    pub fn forget_recent(&mut self, now_us: u64, keep_us: u64) {
        self.now_us = now_us;
        self.recent.forget(now_us.saturating_sub(keep_us));
    }

    /// Marks a partition's checkpoint to be written with this turn.
    pub(super) fn checkpoint(&mut self, partition: Partition) {
        if let Some(state) = self.partitions[partition.0 as usize].as_deref_mut() {
            state.checkpoint_due = true;
            self.due.insert(partition);
        }
    }

    /// Holds what the turn has changed as it is now, and writes the checkpoints that it owes. To be called once, before the commit.
    pub fn finish(&mut self, turn: &mut Turn) {
        for (key, value) in turn.written(Space::Rows) {
            let partition = key.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
            if let Some(Some(state)) = self.partitions.get_mut(usize::from(partition)) {
                state.rows_version += 1;
            }
            if let Some((prefix, component, member)) = split_row_key(key)
                && self.planted != Planted::OldRowsHeld
            {
                self.objects.changed(prefix, component, member, value);
            }
        }
        for from in turn.deleted_ranges(Space::Rows) {
            let partition = from.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
            if let Some(Some(state)) = self.partitions.get_mut(usize::from(partition)) {
                state.rows_version += 1;
            }
            self.objects.clear();
        }
        for partition in std::mem::take(&mut self.due) {
            let state = self.partitions[partition.0 as usize].as_deref_mut().expect("due only when loaded");
            state.checkpoint_due = false;
            let checkpoint = Checkpoint {
                seen: state.seen.clone(),
                log_start: state.log_start.clone(),
                newest: state.newest,
                retries: state.retries,
                ends: state.ends,
                spender: self.incarnation,
                spent: state.spent,
                promised: state.promised,
                dropped: state.dropped,
                unsure: state.unsure,
            };
            turn.put(Space::Meta, checkpoint_key(partition), codec::encode(&checkpoint));
        }
    }
}

pub(super) fn get_row(turn: &Turn, at: &[u8]) -> Result<Option<Row>, StoreError> {
    match turn.get(Space::Rows, at)? {
        Some(bytes) => decode(&bytes, "a row").map(Some),
        None => Ok(None),
    }
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    codec::decode(bytes, STORED_BYTES_MAX)
        .map_err(|error| StoreError::Corrupt { doing: "reading the store", message: format!("{what}: {error}") })
}

pub(super) fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt { doing: "reading the store", message: format!("{what} is malformed") }
}

/// What a log entry says: where, which dot, which operation. For whoever explains or checks a store from outside.
pub fn inspect_log(key: &[u8], value: &[u8]) -> Option<(Partition, Dot, LogEntry)> {
    let partition = Partition(u16::from_be_bytes(key.get(..2)?.try_into().ok()?));
    Some((partition, parse_log_key(key)?, decode(value, "a log entry").ok()?))
}

/// What a checkpoint says beside what has been seen: the time below which nothing more is minted, and whether there are rows that are
/// not entered as seen yet.
pub fn inspect_checkpoint(key: &[u8], value: &[u8]) -> Option<(Partition, Hlc, bool)> {
    let partition = Partition(u16::from_be_bytes(key.strip_prefix(b"s")?.try_into().ok()?));
    let Checkpoint { promised, unsure, .. } = decode(value, "a checkpoint").ok()?;
    Some((partition, promised, unsure))
}

/// What a store knows of a partition, read as it is at a start. For whoever explains or checks a store from outside.
pub fn inspect(store: &dyn Storage, partition: Partition) -> Result<PartitionState, StoreError> {
    Replica::new(Incarnation(0), 0, Objects::new(0, 0)).load(&Turn::new(store), partition)
}
