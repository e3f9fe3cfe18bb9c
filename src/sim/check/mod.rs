//! What must hold. One file for each promise; each says on top what it does and does not verify.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::history::{Call, End};
use super::world::World;
use crate::data::consistency::Level;
use crate::data::id::Partition;
use crate::data::object::Object;
use crate::data::op::Key;
use crate::data::path::parse_row_key;
use crate::data::row::Row;
use crate::storage::{Space, Storage, StoreError};
use crate::wire::codec;

pub mod answers;
pub mod convergence;
pub mod counters;
pub mod floors;
pub mod receipts;
pub mod registers;
pub mod rows;
pub mod sets;
pub mod siblings;

/// A promise that was broken: which checker says so, when, and the particulars.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub checker: &'static str,
    pub at_us: u64,
    pub message: String,
}

/// Runs every checker of the final state.
pub fn final_state(world: &World) -> Result<(), (&'static str, String)> {
    let objects = objects(world);
    counters::check(world, &objects).map_err(|message| ("counters", message))?;
    sets::check(world, &objects).map_err(|message| ("sets", message))?;
    registers::check(world, &objects).map_err(|message| ("registers", message))?;
    siblings::check(world, &objects).map_err(|message| ("siblings", message))
}

/// Must the removal have seen this addition, whole?
pub fn must_have_seen(world: &World, remove: &Call, add: &Call) -> bool {
    let replicas = usize::from(world.plan.replicas);
    let reads = match remove.request.consistency {
        consistency if consistency.read == Level::All => replicas,
        consistency if consistency.owners_only => usize::from(consistency.read.needed(world.plan.replicas)),
        _ => return false,
    };
    // What found nothing to remove stands on another removal, which may be lost with the power later than this was answered.
    let until_us = match &remove.receipt {
        Some(receipt) if receipt.unchanged => u64::MAX,
        _ => remove.ended_us,
    };
    remove.end == End::Acked
        && add.end == End::Acked
        && add.ended_us < remove.begun_us
        && add.owner_acks() + reads > replicas
        && world.ghost.is_single(add.op_id())
        // A removal that was repeated is the earlier one's: judged when it was first tried, and so it is here.
        && remove.receipt.as_ref().is_some_and(|receipt| !receipt.duplicate)
        && !world.ghost.is_lost(remove.op_id())
        && !world.ghost.forgot_between(add.begun_us, until_us)
}

/// The rows of every key, as its first owner holds them. All owners hold the same when this is asked.
pub type Objects = BTreeMap<Key, Object>;

pub fn objects(world: &World) -> Objects {
    let view = world.view_of(0);
    let mut objects = Objects::new();
    for partition in (0..world.plan.partitions).map(Partition) {
        let Some(owner) = view.owners(partition).next().and_then(|owner| world.number_of(owner)) else { continue };
        for (at, value) in rows(world, owner, partition) {
            let Some((_, _, key, path)) = parse_row_key(&at) else { continue };
            let Ok(row) = codec::decode::<Row>(&value, 1 << 20) else { continue };
            objects.entry(key).or_default().rows.insert(path, row);
        }
    }
    objects
}

/// A partition's rows on a node's disk, as bytes.
pub fn rows(world: &World, node: usize, partition: Partition) -> BTreeMap<Bytes, Bytes> {
    rows_on(&world.nodes[node].disk, partition).expect("disks are whole when the final state is checked")
}

fn rows_on(disk: &dyn Storage, partition: Partition) -> Result<BTreeMap<Bytes, Bytes>, StoreError> {
    let mut rows = BTreeMap::new();
    let from = partition.0.to_be_bytes();
    let to = (partition.0 + 1).to_be_bytes();
    disk.scan(Space::Rows, &from, &to, &mut |key, value| {
        rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        true
    })?;
    Ok(rows)
}
