//! Receipts do not lie: at the moment of an `Ok`, every node named has held the write, and durably where that is claimed; and the
//! acknowledgements meet the level that was asked for.
//!
//! Counts are recomputed here from the receipt and the request alone. Of repeated operations only the count is checked: their effect
//! was brought as rows. Zones are not simulated.

use std::collections::BTreeSet;

use super::super::history::Call;
use super::super::world::World;
use crate::data::consistency::Level;
use crate::data::op::Response;

pub fn check(world: &World, call: &Call, response: &Response) -> Result<(), String> {
    let receipt = &response.receipt;
    if response.result.is_err() || call.op().is_read() {
        return Ok(());
    }
    let op_id = call.op_id();
    if receipt.unchanged || world.ghost.minted(op_id).next().is_none() {
        // It found nothing to do.
        return Ok(());
    }
    let consistency = call.request.consistency;
    let replicas = world.plan.replicas;
    let counted: Vec<_> = receipt
        .acks
        .iter()
        .filter(|ack| ack.stand_in_for.is_none() || !consistency.owners_only || consistency.write == Level::Any)
        .collect();
    let places: BTreeSet<_> = counted.iter().map(|ack| ack.stand_in_for.unwrap_or(ack.node)).collect();
    let nodes: BTreeSet<_> = counted.iter().map(|ack| ack.node).collect();
    let needed = usize::from(consistency.write.needed(replicas));
    if places.len() < needed || nodes.len() < needed {
        return Err(format!("{needed} acknowledgements were needed, got {:?} for {call:?}", receipt.acks));
    }
    let durable = consistency.durable.map_or(0, |level| usize::from(level.needed(replicas)));
    if counted.iter().filter(|ack| ack.fsynced).count() < durable {
        return Err(format!("{durable} fsyncs were needed, got {:?} for {call:?}", receipt.acks));
    }
    if receipt.duplicate {
        return Ok(());
    }
    for ack in &receipt.acks {
        let Some(node) = world.number_of(ack.node) else { return Err(format!("{:?} is nobody", ack.node)) };
        let has_seen = || {
            world.ghost.minted(op_id).any(|((partition, dot), _)| {
                let shard = world.nodes[node].shard.as_ref();
                shard.and_then(|shard| shard.seen(partition)).is_some_and(|seen| seen.contains(dot))
            })
        };
        if !world.ghost.ever_held(node, op_id, ack.stand_in_for) && !has_seen() {
            return Err(format!("node {node} never held {op_id} of {call:?}, and {receipt:?} says it did"));
        }
        if ack.fsynced && !world.ghost.was_durable(node, op_id) && !has_seen() {
            return Err(format!("node {node} had not synced {op_id}, and {receipt:?} says it had"));
        }
    }
    Ok(())
}
