//! Rows and what has been seen say the same, also while everything is under way.
//!
//! 1. Owners that have seen the same hold the same rows. Judged whenever one of them has written, by what does not expire soon.
//! 2. What stands in a row has been seen, once a full sync is over and what it left has been entered: what nobody has seen never reaches
//!    an owner that lacks it.
//!
//! Not judged: owners in the middle of a full sync, or that have such rows left.

use super::super::world::World;
use super::convergence::essence;
use super::{floors, rows_on};
use crate::data::id::Partition;
use crate::data::row::Row;
use crate::wire::codec;

/// What expires within this is not compared: clocks may be an hour ahead, and each owner drops in its own time.
const LATER_MS: u64 = 2 * 3_600_000;

/// Does this owner hold what the others do that have seen the same?
pub fn alike(world: &World, at: usize, partition: Partition) -> Result<(), String> {
    let settled = |node: usize| {
        let shard = world.nodes[node].shard.as_ref()?;
        let seen = shard.seen(partition)?;
        (!shard.is_syncing(partition) && world.ghost.is_sure(node, partition) && !seen.is_empty()).then_some(seen)
    };
    let Some(seen) = settled(at) else { return Ok(()) };
    let view = world.view_of(0);
    let owners: Vec<usize> = view.owners(partition).filter_map(|owner| world.number_of(owner)).collect();
    if !owners.contains(&at) {
        return Ok(());
    }
    let wall_ms = world.true_ms() + LATER_MS;
    let mine = floors::read(world, at, |disk| rows_on(disk, partition));
    for other in owners.into_iter().filter(|other| *other != at && settled(*other) == Some(seen)) {
        let theirs = floors::read(world, other, |disk| rows_on(disk, partition));
        if mine == theirs {
            continue;
        }
        let (mine, theirs) = (essence(&mine, wall_ms), essence(&theirs, wall_ms));
        if let Some(key) = mine.keys().chain(theirs.keys()).find(|key| mine.get(*key) != theirs.get(*key)) {
            return Err(format!(
                "{key:?}: node {at} holds {:?}, node {other} {:?}, and both have seen {seen:?}",
                mine.get(key),
                theirs.get(key),
            ));
        }
    }
    Ok(())
}

/// Has a node seen all that stands in its rows?
pub fn seen(world: &World, at: usize, partition: Partition) -> Result<(), String> {
    let Some(seen) = world.nodes[at].shard.as_ref().and_then(|shard| shard.seen(partition)) else { return Ok(()) };
    for (key, value) in floors::read(world, at, |disk| rows_on(disk, partition)) {
        let Ok(row) = codec::decode::<Row>(&value, 1 << 20) else { continue };
        if let Some(dot) = row.dots().into_iter().find(|dot| !seen.contains(*dot)) {
            return Err(format!("{dot:?} stands at node {at} in {key:?} and was not seen: {row:?}; seen {seen:?}"));
        }
    }
    Ok(())
}
