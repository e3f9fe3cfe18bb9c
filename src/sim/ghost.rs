//! What no node knows: every dot, the operation behind it, which disk held it when, and what was lost with a disk.
//!
//! The simulator sees each batch as it is committed, so it can judge a promise at the moment at which it is made.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::clock::{Hlc, Stamp};
use crate::data::context::Context;
use crate::data::id::{Dot, Incarnation, NodeId, OpId, Partition};
use crate::data::mutation::{Delta, Mutation};
use crate::data::op::Key;
use crate::data::path::{Component, Path, parse_row_key};
use crate::data::row::{Put, Row};
use crate::node::hints::inspect_hint;
use crate::node::replica::{LogEntry, inspect, inspect_checkpoint, inspect_log};
use crate::storage::{Batch, Op, Space, Storage, StoreError};
use crate::wire::codec;

/// A dot with the partition that it counts in.
pub type GlobalDot = (Partition, Dot);

/// One operation on one node's disk.
#[derive(Default)]
struct Held {
    owner: bool,
    hints_for: BTreeSet<NodeId>,
    /// Number of the first commit that had it, as an owner and as a hint; `None` when a power cut took it.
    commit: Option<u64>,
    /// It was synced once; a wiped disk may have lost it since.
    was_durable: bool,
}

#[derive(Default)]
struct Disk {
    commits: u64,
    synced: u64,
}

/// Where a row stands, wherever it does.
type Place = (Partition, Key, Path);

#[derive(Default)]
pub struct Ghost {
    disks: BTreeMap<usize, Disk>,
    held: BTreeMap<(usize, OpId), Held>,
    /// Dots that a node's log had once, with or without the name of their operation.
    logged: BTreeSet<(usize, GlobalDot)>,
    /// Which dots an operation became, and on which node.
    minted: BTreeMap<OpId, BTreeMap<GlobalDot, usize>>,
    /// When the last of them was.
    minted_us: BTreeMap<OpId, u64>,
    /// The world's time, for what is committed.
    pub now_us: u64,
    operation: BTreeMap<GlobalDot, Option<OpId>>,
    /// Where each dot was minted, and with which time.
    made: BTreeMap<GlobalDot, (usize, Hlc)>,
    /// What each dot did, as it was written down where it was minted: the key and the rows.
    did: BTreeMap<GlobalDot, (Key, Vec<Path>)>,
    /// Below which time each node has promised to mint nothing more, as its disk says it.
    promised: BTreeMap<(usize, Partition), Hlc>,
    /// Where a node's disk says that there are rows that are not entered as seen yet.
    unsure: BTreeSet<(usize, Partition)>,
    /// Where it said so until the last batch, and not any more.
    pub sure: Vec<Partition>,
    /// The last mutation that each total was written with, and what of each has been removed, wherever that was known.
    totals: BTreeMap<Place, u64>,
    floors: BTreeMap<Place, u64>,
    /// Of registers and fields.
    stamps: BTreeMap<GlobalDot, Stamp>,
    lost: BTreeSet<GlobalDot>,
    /// When a node forgot something: everything before is no longer sure to be there.
    pub losses: Vec<(u64, usize)>,
}

impl Ghost {
    /// A batch was committed by `node` under `incarnation`. An error is a broken law: a dot was bound twice, or minted below what had
    /// been promised before.
    pub fn committed(
        &mut self,
        node: usize,
        incarnation: Incarnation,
        batch: &Batch,
        synced: bool,
    ) -> Result<(), String> {
        let disk = self.disks.entry(node).or_default();
        disk.commits += 1;
        let commit = disk.commits;
        if synced {
            disk.synced = commit;
        }
        let mut born = BTreeMap::new();
        for op in batch {
            let Op::Put { space, key, value } = op else { continue };
            match space {
                Space::Log => {
                    let Some((partition, dot, entry)) = inspect_log(key, value) else { continue };
                    let op_id = entry.op_id;
                    self.saw(node, incarnation, (partition, dot), op_id)?;
                    if self.mints(node, incarnation, (partition, dot), entry.made)? {
                        self.did.insert((partition, dot), (entry.key.clone(), sorted(entry.paths.iter())));
                        born.insert((partition, dot), entry);
                    }
                    self.logged.insert((node, (partition, dot)));
                    if let Some(op_id) = op_id {
                        let held = self.held.entry((node, op_id)).or_default();
                        held.owner = true;
                        held.commit.get_or_insert(commit);
                    }
                }
                Space::Hints => {
                    let Some((partition, owner, delta)) = inspect_hint(key, value) else { continue };
                    for mutation in &delta.mutations {
                        self.saw(node, incarnation, (partition, mutation.dot), delta.op_id)?;
                        let at = (partition, mutation.dot);
                        if self.mints(node, incarnation, at, delta.made)? {
                            self.did.insert(at, (delta.key.clone(), paths_of(mutation)));
                            for effect in &mutation.effects {
                                if let Some(Put::Tally { run, .. }) = effect.put {
                                    let place = (partition, delta.key.clone(), effect.path.clone());
                                    self.counts(place, run, mutation.dot.counter)?;
                                }
                            }
                        }
                    }
                    if let Some(op_id) = delta.op_id {
                        let held = self.held.entry((node, op_id)).or_default();
                        held.hints_for.insert(owner);
                        held.commit.get_or_insert(commit);
                    }
                }
                Space::Rows => self.saw_stamps(key, value),
                Space::Meta => {}
            }
        }
        self.saw_checkpoints(node, batch);
        self.saw_totals(&born, batch)?;
        stand_where_named(&born, batch)
    }

    /// A total is counted on by its incarnation: it begins anew only where all of the earlier one has been removed.
    fn counts(&mut self, place: Place, run: u64, counter: u64) -> Result<(), String> {
        let before = self.totals.insert(place.clone(), counter).unwrap_or(0);
        let removed = self.floors.get(&place).copied().unwrap_or(0);
        if before > 0 && run >= before && removed < before {
            return Err(format!(
                "a total at {place:?} begins at {run}: the one that had come to {before}, of which no more than {removed} was \
                 removed, is gone where this one comes"
            ));
        }
        Ok(())
    }

    fn saw_totals(&mut self, born: &BTreeMap<GlobalDot, LogEntry>, batch: &Batch) -> Result<(), String> {
        for op in batch {
            let Op::Put { space: Space::Rows, key, value } = op else { continue };
            let Some((partition, _, of, path)) = parse_row_key(key) else { continue };
            if !matches!(path.component, Component::Counter | Component::FieldCounter) {
                continue;
            }
            let Ok(Row::Counter { tally, floor }) = codec::decode::<Row>(value, 1 << 20) else { continue };
            let place = (partition, of, path);
            if let Some(floor) = floor {
                let known = self.floors.entry(place.clone()).or_default();
                *known = floor.upto.max(*known);
            }
            if let Some(tally) = tally.filter(|tally| born.contains_key(&(partition, tally.dot))) {
                self.counts(place, tally.run, tally.dot.counter)?;
            }
        }
        Ok(())
    }

    /// Was the dot minted just now? Nothing is, below what the node had promised before.
    fn mints(&mut self, node: usize, incarnation: Incarnation, at: GlobalDot, made: Hlc) -> Result<bool, String> {
        if at.1.incarnation != incarnation || self.made.contains_key(&at) {
            return Ok(false);
        }
        self.made.insert(at, (node, made));
        let promised = self.promised(node, at.0);
        if made <= promised {
            let (partition, dot) = at;
            return Err(format!(
                "node {node} minted {dot:?} of {partition:?} at {made:?}, and had promised nothing below {promised:?}"
            ));
        }
        Ok(true)
    }

    /// A delta is told to somebody: each of its dots names what it named where it was minted.
    pub fn told(&self, partition: Partition, delta: &Delta) -> Result<(), String> {
        for mutation in &delta.mutations {
            let Some((key, paths)) = self.did.get(&(partition, mutation.dot)) else { continue };
            if *key != delta.key || *paths != paths_of(mutation) {
                return Err(format!(
                    "{:?} of {partition:?} was minted for {key:?} {paths:?}, and is told as {mutation:?} of {:?}",
                    mutation.dot, delta.key
                ));
            }
        }
        Ok(())
    }

    fn saw_checkpoints(&mut self, node: usize, batch: &Batch) {
        self.sure.clear();
        for op in batch {
            let Op::Put { space: Space::Meta, key, value } = op else { continue };
            let Some((partition, promised, unsure)) = inspect_checkpoint(key, value) else { continue };
            self.promised.insert((node, partition), promised);
            if unsure {
                self.unsure.insert((node, partition));
            } else if self.unsure.remove(&(node, partition)) {
                self.sure.push(partition);
            }
        }
    }

    /// What a node's disk says that it has promised.
    pub fn promised(&self, node: usize, partition: Partition) -> Hlc {
        self.promised.get(&(node, partition)).copied().unwrap_or(Hlc(0))
    }

    /// Are all rows of a node's disk entered as seen, by what the disk says?
    pub fn is_sure(&self, node: usize, partition: Partition) -> bool {
        !self.unsure.contains(&(node, partition))
    }

    /// The dots that were minted below a time and are not lost, and where.
    pub fn made_below(&self, partition: Partition, floor: Hlc) -> impl Iterator<Item = (Dot, usize)> + '_ {
        let first = Dot { incarnation: Incarnation(0), counter: 0 };
        let of_partition = self.made.range((partition, first)..).take_while(move |((at, _), _)| *at == partition);
        of_partition
            .filter(move |(at, (_, made))| *made < floor && !self.lost.contains(at))
            .map(|((_, dot), (node, _))| (*dot, *node))
    }

    /// A disk was read anew after it had forgotten something.
    pub fn reads_anew(&mut self, node: usize, disk: &dyn Storage, partitions: u16) -> Result<(), StoreError> {
        for partition in (0..partitions).map(Partition) {
            let state = inspect(disk, partition)?;
            self.promised.insert((node, partition), state.promised);
            if state.unsure {
                self.unsure.insert((node, partition));
            } else {
                self.unsure.remove(&(node, partition));
            }
        }
        Ok(())
    }

    /// Has a node forgotten something since?
    pub fn forgot_since(&self, node: usize, from_us: u64) -> bool {
        self.losses.iter().any(|(at_us, forgetful)| *forgetful == node && *at_us >= from_us)
    }

    fn saw_stamps(&mut self, key: &[u8], value: &[u8]) {
        let Some((partition, _, _, path)) = parse_row_key(key) else { return };
        if !matches!(path.component, Component::Register | Component::Field) {
            return;
        }
        let registers = match codec::decode::<Row>(value, 1 << 20) {
            Ok(Row::Register(register)) => vec![register],
            Ok(Row::Field(entries)) => entries,
            _ => Vec::new(),
        };
        self.stamps.extend(registers.into_iter().map(|register| ((partition, register.dot), register.stamp)));
    }

    /// The highest stamp of what an operation became. `None` also when it is not known: stamped again, and overwritten everywhere in the
    /// very turn, so that no disk ever held that row.
    pub fn stamp(&self, op_id: OpId) -> Option<Stamp> {
        let mut dots: Vec<GlobalDot> = self.minted(op_id).map(|(dot, _)| dot).collect();
        dots.sort_unstable_by_key(|(_, dot)| dot.counter);
        if dots.len() > 1 && dots.last().is_some_and(|last| !self.stamps.contains_key(last)) {
            return None;
        }
        dots.iter().filter_map(|dot| self.stamps.get(dot).copied()).max()
    }

    fn saw(&mut self, node: usize, incarnation: Incarnation, at: GlobalDot, op_id: Option<OpId>) -> Result<(), String> {
        match self.operation.get(&at) {
            Some(Some(known)) if op_id.is_some_and(|op_id| op_id != *known) => {
                return Err(format!("dot {:?} of {:?} is bound to {known:?} and to {op_id:?}", at.1, at.0));
            }
            Some(Some(_)) => {}
            // A repair brings rows and their dots, and knows of no operation.
            Some(None) | None => {
                self.operation.insert(at, op_id);
            }
        }
        if at.1.incarnation == incarnation
            && let Some(op_id) = op_id
        {
            let dots = self.minted.entry(op_id).or_default();
            if dots.insert(at, *dots.get(&at).unwrap_or(&node)).is_none() {
                self.minted_us.insert(op_id, self.now_us);
            }
        }
        Ok(())
    }

    pub fn synced(&mut self, node: usize) {
        let disk = self.disks.entry(node).or_default();
        disk.synced = disk.commits;
    }

    /// A power cut took the last `taken` commits of a node; a wipe all of them.
    pub fn forgot(&mut self, node: usize, taken: Option<u64>, now_us: u64) {
        let disk = self.disks.entry(node).or_default();
        let kept = taken.map_or(0, |taken| disk.commits - taken);
        let synced = disk.synced;
        disk.synced = disk.commits;
        self.losses.push((now_us, node));
        for ((at, _), held) in &mut self.held {
            if *at == node && held.commit.is_some_and(|commit| commit > kept) {
                held.was_durable |= held.commit.is_some_and(|commit| commit <= synced);
                held.commit = None;
            }
        }
    }

    /// Did the node hold the operation when it said so: as an owner, or as a hint for `place`?
    pub fn ever_held(&self, node: usize, op_id: OpId, place: Option<NodeId>) -> bool {
        let named = self.held.get(&(node, op_id)).is_some_and(|held| match place {
            None => held.owner,
            Some(owner) => held.hints_for.contains(&owner),
        });
        // A repair may have brought it before, without its name.
        named || place.is_none() && self.minted(op_id).any(|(dot, _)| self.logged.contains(&(node, dot)))
    }

    /// Had the node synced the operation when it said so?
    pub fn was_durable(&self, node: usize, op_id: OpId) -> bool {
        let synced = self.disks.get(&node).map_or(0, |disk| disk.synced);
        self.held
            .get(&(node, op_id))
            .is_some_and(|held| held.was_durable || held.commit.is_some_and(|commit| commit <= synced))
    }

    pub fn minted(&self, op_id: OpId) -> impl Iterator<Item = (GlobalDot, usize)> + '_ {
        self.minted.get(&op_id).into_iter().flatten().map(|(dot, node)| (*dot, *node))
    }

    /// When the operation was done for the last time, in the world's microseconds.
    pub fn last_minted_us(&self, op_id: OpId) -> u64 {
        self.minted_us.get(&op_id).copied().unwrap_or(0)
    }

    /// Was the operation minted by one node only, and none of it lost? Only then its order among others is known.
    pub fn is_plain(&self, op_id: OpId) -> bool {
        let nodes: BTreeSet<usize> = self.minted(op_id).map(|(_, node)| node).collect();
        nodes.len() == 1 && !self.is_lost(op_id)
    }

    /// Was the operation minted exactly once, and not lost?
    pub fn is_single(&self, op_id: OpId) -> bool {
        self.minted(op_id).count() == 1 && !self.is_lost(op_id)
    }

    /// Did all disks that held some dot of the operation lose it? Then nobody can be asked for it.
    pub fn is_lost(&self, op_id: OpId) -> bool {
        self.minted(op_id).any(|(dot, _)| self.lost.contains(&dot))
    }

    /// Was the operation done more than once, by a client's retry or a coordinator's, and has a disk that could name it forgotten
    /// something? Others may have its effect, and not its name.
    pub fn may_be_nameless(&self, op_id: OpId) -> bool {
        let forgot = |node: usize| self.losses.iter().any(|(_, forgetful)| *forgetful == node);
        self.minted(op_id).count() > 1 && self.minted(op_id).any(|(_, node)| forgot(node))
    }

    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Notes the dots in `before` that no disk in `after` has any more.
    pub fn note_lost(&mut self, before: &Knowledge, after: &[Knowledge]) -> usize {
        let mut count = 0;
        for at in before.dots() {
            if !after.iter().any(|disk| disk.has(at)) && self.lost.insert(at) {
                count += 1;
            }
        }
        count
    }

    /// Did some node forget something in this stretch of time?
    pub fn forgot_between(&self, from_us: u64, to_us: u64) -> bool {
        self.losses.iter().any(|(at_us, _)| (from_us..=to_us).contains(at_us))
    }
}

fn paths_of(mutation: &Mutation) -> Vec<Path> {
    sorted(mutation.effects.iter().map(|effect| &effect.path))
}

fn sorted<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<Path> {
    let mut paths: Vec<Path> = paths.cloned().collect();
    paths.sort();
    paths
}

/// A dot names one mutation: the rows that are written with one that was minted in the same batch are those that its log entry names.
fn stand_where_named(born: &BTreeMap<GlobalDot, LogEntry>, batch: &Batch) -> Result<(), String> {
    for op in batch {
        let Op::Put { space: Space::Rows, key, value } = op else { continue };
        let Some((partition, _, of, path)) = parse_row_key(key) else { continue };
        let Ok(row) = codec::decode::<Row>(value, 1 << 20) else { continue };
        for dot in row.dots() {
            let Some(entry) = born.get(&(partition, dot)) else { continue };
            if entry.key != of || !entry.paths.contains(&path) {
                return Err(format!("{dot:?} of {partition:?} is {entry:?}, and stands in {of:?} {path:?}: {row:?}"));
            }
        }
    }
    Ok(())
}

/// Everything one disk knows.
#[derive(Default)]
pub struct Knowledge {
    seen: BTreeMap<Partition, Context>,
    hinted: BTreeSet<GlobalDot>,
}

impl Knowledge {
    pub fn read(disk: &dyn Storage, partitions: u16) -> Result<Self, StoreError> {
        let mut knowledge = Self::default();
        for partition in (0..partitions).map(Partition) {
            let state = inspect(disk, partition)?;
            if !state.seen.is_empty() {
                knowledge.seen.insert(partition, state.seen);
            }
        }
        disk.scan(Space::Hints, &[], &[u8::MAX; 32], &mut |key, value| {
            if let Some((partition, _, delta)) = inspect_hint(key, value) {
                knowledge.hinted.extend(delta.mutations.iter().map(|mutation| (partition, mutation.dot)));
            }
            true
        })?;
        Ok(knowledge)
    }

    pub fn has(&self, at: GlobalDot) -> bool {
        self.hinted.contains(&at) || self.seen.get(&at.0).is_some_and(|seen| seen.contains(at.1))
    }

    fn dots(&self) -> impl Iterator<Item = GlobalDot> + '_ {
        let seen = self.seen.iter().flat_map(|(partition, seen)| {
            let vector = seen
                .vector()
                .flat_map(|(incarnation, upto)| (1..=upto).map(move |counter| Dot { incarnation, counter }));
            vector.chain(seen.cloud()).map(|dot| (*partition, dot))
        });
        seen.chain(self.hinted.iter().copied())
    }
}
