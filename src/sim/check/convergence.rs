//! Level again: owners hold equal rows and have seen the same; no hint is left, no peer lags, logs are trimmed, nothing waits to be
//! dropped. Equal is byte for byte, but for what each owner drops in its own time and nobody can see: delete rows, ended lives, floors.
//!
//! Not checked: how little was sent for it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::world::World;
use super::rows;
use crate::data::context::Context;
use crate::data::id::Partition;
use crate::data::object::Object;
use crate::data::op::Key;
use crate::data::path::{Path, key_prefix, parse_row_key, row_key};
use crate::data::row::Row;
use crate::wire::codec;

/// Do all owners hold the same?
pub fn equal(world: &World) -> Result<(), String> {
    let view = world.view_of(0);
    let wall_ms = world.true_ms();
    for partition in (0..world.plan.partitions).map(Partition) {
        let owners: Vec<usize> = view.owners(partition).filter_map(|owner| world.number_of(owner)).collect();
        let Some((&first, others)) = owners.split_first() else { continue };
        let nothing = Context::default();
        let seen =
            |node: usize| world.nodes[node].shard.as_ref().map(|shard| shard.seen(partition).unwrap_or(&nothing));
        let Some(first_seen) = seen(first) else { return Err(format!("node {first} is down")) };
        let first_rows = rows(world, first, partition);
        for &other in others {
            let Some(other_seen) = seen(other) else { return Err(format!("node {other} is down")) };
            if first_seen != other_seen {
                return Err(format!(
                    "{partition:?}: node {first} has seen {first_seen:?}, node {other} {other_seen:?}"
                ));
            }
            let other_rows = rows(world, other, partition);
            if first_rows == other_rows {
                continue;
            }
            let (mine, theirs) = (essence(&first_rows, wall_ms), essence(&other_rows, wall_ms));
            let keys = mine.keys().chain(theirs.keys());
            if let Some(key) = keys.into_iter().find(|key| mine.get(*key) != theirs.get(*key)) {
                return Err(format!(
                    "{key:?}: node {first} holds {:?}, node {other} {:?}, and both have seen the same",
                    mine.get(key),
                    theirs.get(key),
                ));
            }
        }
    }
    Ok(())
}

/// The rows of a node that will not be waiting to be dropped by then, of partitions that it owns.
pub fn standing(world: &World, node: usize, at_ms: u64) -> Vec<(Bytes, Row)> {
    let view = world.view_of(0);
    let mut standing = Vec::new();
    for partition in view.partitions_owned(world.nodes[node].id) {
        for (key, rows_of_key) in essence(&rows(world, node, partition), at_ms) {
            let prefix = key_prefix(partition, &key);
            standing.extend(rows_of_key.into_iter().map(|(path, row)| (row_key(&prefix, &path).into(), row)));
        }
    }
    standing
}

/// What of the rows is not waiting to be dropped.
pub(super) fn essence(rows: &BTreeMap<Bytes, Bytes>, wall_ms: u64) -> BTreeMap<Key, BTreeMap<Path, Row>> {
    let mut objects: BTreeMap<Key, Object> = BTreeMap::new();
    for (at, value) in rows {
        let Some((_, _, key, path)) = parse_row_key(at) else { continue };
        let Ok(row) = codec::decode::<Row>(value, 1 << 20) else { continue };
        objects.entry(key).or_default().rows.insert(path, row);
    }
    let essence = |object: Object| -> BTreeMap<Path, Row> {
        let part = |(path, row): (&Path, &Row)| Some((path.clone(), object.essential(path, row, wall_ms)?));
        object.rows.iter().filter_map(part).collect()
    };
    objects.into_iter().map(|(key, object)| (key, essence(object))).filter(|(_, rows)| !rows.is_empty()).collect()
}

/// Is nothing left to be done?
pub fn idle(world: &World) -> Result<(), String> {
    let view = world.view_of(0);
    for (at, node) in world.nodes.iter().enumerate() {
        let Some(shard) = &node.shard else { return Err(format!("node {at} is down")) };
        let status = shard.status();
        // A log entry above a hole stays: the hole may be filled by somebody's late hint.
        let above_holes: usize = (0..world.plan.partitions)
            .map(Partition)
            .filter(|partition| view.is_owner(*partition, node.id))
            .filter_map(|partition| shard.seen(partition))
            .map(|seen| seen.cloud().count())
            .sum();
        if status.hints > 0 {
            return Err(format!("node {at} keeps {} hints for {:?}", status.hints, status.hints_for));
        }
        if status.behind > 0 || status.peer_lag.values().any(|lag| *lag > 0) {
            return Err(format!("node {at} is {} behind, its peers lag {:?}", status.behind, status.peer_lag));
        }
        if status.log_entries > above_holes as u64 {
            return Err(format!("node {at} keeps {} log entries, {above_holes} above holes", status.log_entries));
        }
        // What a clock that was an hour ahead has stamped is dropped when that hour has passed.
        if status.due > 0 && !world.coverage.contains_key("fault_clock_leap") {
            let (due, garbage, held) = (status.due, status.garbage, status.held);
            return Err(format!("node {at} has {garbage} rows to drop in {due} partitions; held: {held:?}"));
        }
        if status.unsure > 0 {
            return Err(format!("node {at} still enters rows of {} partitions", status.unsure));
        }
        if status.under_way > 0 {
            return Err(format!("node {at} has {} requests under way", status.under_way));
        }
    }
    Ok(())
}
