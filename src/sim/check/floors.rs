//! Floors: nothing is dropped that somebody still needs. Judged when an owner begins to drop below a cut, by what lies on the disks then.
//!
//! 1. Every member has promised at least the floor, or every other member has fenced it.
//! 2. What was minted below the floor and is not lost is in the cut: no hint, no row of a single owner is left out of it.
//! 3. Every owner has seen all of the cut.
//! 4. Life 0 begins again when no owner shows any more what whoever reopens it knows to be removed.
//!
//! That nothing is minted below a promise is judged with every batch ([`super::super::ghost`]). Not judged: members whose disks forgot
//! something since the asking began (and then the second not at all: what they had seen may be in nobody's answer), what members have of
//! which a store was ever fenced, and whether more could have been dropped.

use std::collections::BTreeSet;

use crate::data::clock::{Hlc, Stamp};
use crate::data::id::{Incarnation, NodeId, Partition};
use crate::data::path::{Path, key_prefix, parse_row_key, row_key};
use crate::data::row::{Life, Row};
use crate::node::fence;
use crate::node::floor::Cut;
use crate::node::replica::collect::content_of;
use crate::node::replica::{inspect, inspect_log};
use crate::sim::disk::Broken;
use crate::sim::ghost::Knowledge;
use crate::sim::world::World;
use crate::storage::{Batch, Op, Space, Storage, StoreError};
use crate::wire::codec;

/// An owner begins to drop what lies below this cut. `since_us`: when it began to ask.
pub fn cut(world: &World, at: usize, partition: Partition, cut: &Cut, since_us: u64) -> Result<(), String> {
    let ghost = &world.ghost;
    let forgot = |node: usize| ghost.forgot_since(node, since_us);
    let all = 0..world.nodes.len();
    let fences_of = |node: usize| -> BTreeSet<NodeId> {
        let fences = read(world, node, |disk| fence::inspect(disk));
        fences.into_iter().map(|(member, _)| member).collect()
    };
    let fenced = fences_of(at);
    for member in all.clone().filter(|member| ghost.promised(*member, partition) < cut.floor && !forgot(*member)) {
        let id = world.nodes[member].id;
        let mut others = all.clone().filter(|other| !fenced.contains(&world.nodes[*other].id) && !forgot(*other));
        if let Some(other) = others.find(|other| *other != member && !fences_of(*other).contains(&id)) {
            return Err(format!(
                "node {at} drops below {:?} of {partition:?}; node {member} has promised {:?} and is not fenced by node {other}",
                cut.floor,
                ghost.promised(member, partition)
            ));
        }
    }
    let asked: Vec<usize> = all.filter(|member| !fenced.contains(&world.nodes[*member].id)).collect();
    let missing: Vec<_> = ghost
        .made_below(partition, cut.floor)
        .filter(|_| !asked.iter().any(|member| forgot(*member)))
        .filter(|(dot, minter)| !cut.target.contains(*dot) && asked.contains(minter))
        .collect();
    if !missing.is_empty() {
        for node in &asked {
            let knowledge = read(world, *node, |disk| Knowledge::read(disk, world.plan.partitions));
            if let Some((dot, _)) = missing.iter().find(|(dot, _)| knowledge.has((partition, *dot))) {
                return Err(format!(
                    "node {at} drops below {:?} of {partition:?}; {dot:?} was made below it, node {node} has it, and not all have seen it",
                    cut.floor
                ));
            }
        }
    }
    for owner in world.view_of(0).owners(partition).filter_map(|owner| world.number_of(owner)) {
        let seen = read(world, owner, |disk| inspect(disk, partition)).seen;
        if asked.contains(&owner) && !forgot(owner) && !seen.covers(&cut.target) {
            return Err(format!(
                "node {at} drops what {:?} of {partition:?} covers, and node {owner} has seen no more than {seen:?}",
                cut.target
            ));
        }
    }
    Ok(())
}

/// Has a batch begun life 0 of a key anew, while some owner still shows what its maker has seen the removal of?
pub fn reopened(world: &World, at: usize, incarnation: Incarnation, batch: &Batch) -> Result<(), String> {
    for op in batch {
        let Op::Put { space: Space::Log, key, value } = op else { continue };
        let Some((partition, dot, entry)) = inspect_log(key, value) else { continue };
        let deadline = Path::deadline(Life(0));
        if dot.incarnation != incarnation || entry.op_id.is_some() || entry.paths != [deadline.clone()] {
            continue;
        }
        let prefix = key_prefix(partition, &entry.key);
        let is_reopened = batch.into_iter().any(|op| match op {
            Op::Put { space: Space::Rows, key, value } => {
                key[..] == row_key(&prefix, &deadline)[..] && opens(&value[..], entry.made, incarnation)
            }
            _ => false,
        });
        let Some(seen) = world.nodes[at].shard.as_ref().and_then(|shard| shard.seen(partition)) else { continue };
        if !is_reopened {
            continue;
        }
        let owners = world.view_of(0);
        let owners = owners.owners(partition).filter_map(|owner| world.number_of(owner));
        for owner in owners.filter(|owner| *owner != at && !is_left_out(world, at, *owner)) {
            for (path, row) in rows_of(world, owner, &prefix) {
                let mut dots = content_of(&path, &row, Life(0));
                dots.retain(|dot| seen.contains(*dot));
                if !dots.is_empty() {
                    return Err(format!(
                        "node {at} begins life 0 of {:?} again, and node {owner} still has {path:?} {row:?} of it",
                        entry.key
                    ));
                }
            }
        }
    }
    Ok(())
}

fn opens(value: &[u8], made: Hlc, incarnation: Incarnation) -> bool {
    let stamp = Stamp { hlc: made, incarnation };
    matches!(codec::decode::<Row>(value, 1 << 20), Ok(Row::Deadline(row)) if row.at_ms.is_none() && row.stamp == stamp)
}

fn is_left_out(world: &World, at: usize, owner: usize) -> bool {
    let (id, store) = (world.nodes[owner].id, world.nodes[owner].store);
    world.nodes[at].shard.as_ref().is_some_and(|shard| shard.has_fenced(id, store))
}

fn rows_of(world: &World, node: usize, prefix: &[u8]) -> Vec<(Path, Row)> {
    let mut rows = Vec::new();
    read(world, node, |disk| {
        disk.scan(Space::Rows, prefix, &[prefix, &[u8::MAX; 8]].concat(), &mut |key, value| {
            if let (Some((.., path)), Ok(row)) = (parse_row_key(key), codec::decode::<Row>(value, 1 << 20)) {
                rows.push((path, row));
            }
            true
        })
    });
    rows
}

/// Reads a disk as it is, whether it works for its node or not.
pub fn read<T>(world: &World, node: usize, what: impl FnOnce(&dyn Storage) -> Result<T, StoreError>) -> T {
    let disk = &world.nodes[node].disk;
    let broken = disk.set_broken(Broken::Nothing);
    let found = what(disk).expect("the disk works for now");
    disk.set_broken(broken);
    found
}
