//! Level again: owners hold equal rows, byte for byte, and have seen the same; no hint is left, no peer lags, logs are trimmed.
//!
//! Not checked: how little was sent for it.

use super::super::world::World;
use super::rows;
use crate::data::context::Context;
use crate::data::id::Partition;
use crate::data::path::parse_row_key;
use crate::data::row::Row;
use crate::wire::codec;

/// Do all owners hold the same?
pub fn equal(world: &World) -> Result<(), String> {
    let view = world.view_of(0);
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
            let keys = first_rows.keys().chain(other_rows.keys());
            if let Some(key) = keys.into_iter().find(|key| first_rows.get(*key) != other_rows.get(*key)) {
                let show = |value: Option<&bytes::Bytes>| value.map(|value| codec::decode::<Row>(value, 1 << 20));
                return Err(format!(
                    "{:?}: node {first} holds {:?}, node {other} {:?}, and both have seen the same",
                    parse_row_key(key).map(|(_, _, key, path)| (key, path)),
                    show(first_rows.get(key)),
                    show(other_rows.get(key)),
                ));
            }
        }
    }
    Ok(())
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
        if status.under_way > 0 {
            return Err(format!("node {at} has {} requests under way", status.under_way));
        }
    }
    Ok(())
}
