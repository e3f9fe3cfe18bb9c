//! Registers and map fields: what stands was written, and was not overwritten by a write that began after it was acknowledged.
//!
//! The order of two writes is known when both were acknowledged by so many owners that they have one in common, each was minted on
//! one node only, and no disk forgot anything in between: then the later one has been stamped above the earlier. A register that is
//! empty must have been deleted by somebody who may have come last. All writes are checked for their order, the last ones for what
//! stands; reads in between are not checked.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::history::{Call, End};
use super::super::world::World;
use super::{Objects, must_have_seen};
use crate::data::op::{Key, Op};

/// Each write's order is checked against so many before it.
const NEIGHBOURS: usize = 16;

/// Who wrote what, by key and field.
type Stories<'a> = BTreeMap<(Key, Option<Bytes>), Vec<(&'a Call, Option<Bytes>)>>;

pub fn check(world: &World, objects: &Objects) -> Result<(), String> {
    let mut stories: Stories<'_> = BTreeMap::new();
    for (_, call) in world.history.mutations(b'r').chain(world.history.mutations(b'h')) {
        if !call.may_have_happened() {
            continue;
        }
        let key = &call.request.key;
        let mut enter = |field: Option<&Bytes>, value: Option<&Bytes>| {
            stories.entry((key.clone(), field.cloned())).or_default().push((call, value.cloned()));
        };
        match call.op() {
            Op::Set { value, .. } => enter(None, Some(value)),
            Op::Delete | Op::GetDelete => enter(None, None),
            Op::HashSet { fields, .. } => fields.iter().for_each(|(field, value)| enter(Some(field), Some(value))),
            Op::HashRemove { fields } => fields.iter().for_each(|field| enter(Some(field), None)),
            _ => {}
        }
    }
    for ((key, field), story) in &stories {
        order(world, key, field.as_ref(), story)?;
    }
    for ((key, field), story) in stories {
        let value = objects.get(&key).and_then(|object| object.text(field.as_deref(), world.wall_ms(0)));
        match &value {
            Some(value) => {
                let Some((writer, _)) = story.iter().find(|(_, written)| written.as_ref() == Some(value)) else {
                    return Err(format!("{key:?} {field:?} is {value:?}, which nobody wrote"));
                };
                // A field's removal takes what it saw and is no write: what it did not see was perhaps hidden by what it took.
                let removals = || story.iter().filter(|(_, written)| field.is_some() && written.is_none());
                let later = story.iter().find(|(call, written)| {
                    (field.is_none() || written.is_some())
                        && overwrites(world, call, writer)
                        && !removals().any(|(removal, _)| {
                            removal.ended_us >= call.begun_us && !must_have_seen(world, removal, writer)
                        })
                });
                if let Some((later, _)) = later {
                    return Err(format!(
                        "{key:?} {field:?} is {value:?} by {writer:?}, which was overwritten by {later:?}; rows {:?}",
                        objects.get(&key)
                    ));
                }
            }
            None => {
                let removals: Vec<&Call> =
                    story.iter().filter(|(_, written)| written.is_none()).map(|(call, _)| *call).collect();
                let kept = story.iter().find(|(call, written)| {
                    written.is_some()
                        && call.end == End::Acked
                        && !world.ghost.is_lost(call.op_id())
                        && !removals.iter().any(|removal| {
                            // A register's deletion is a write like any other, and a clock that ran ahead may have stamped it last.
                            removal.ended_us >= call.begun_us || field.is_none() && !overwrites(world, call, removal)
                        })
                });
                if let Some((kept, _)) = kept {
                    return Err(format!(
                        "{key:?} {field:?} is empty and should hold what {kept:?} wrote or a later value"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// A write that began after another was acknowledged is stamped above it, whatever the clocks said. Not so for a field whose earlier value
/// was removed by name in between: it competes with nothing.
fn order(world: &World, key: &Key, field: Option<&Bytes>, story: &[(&Call, Option<Bytes>)]) -> Result<(), String> {
    let mut writes: Vec<&Call> = story.iter().map(|(call, _)| *call).filter(|call| call.end == End::Acked).collect();
    writes.sort_by_key(|call| call.begun_us);
    let removed_between = |earlier: &Call, later: &Call| {
        story.iter().any(|(call, written)| {
            written.is_none() && call.ended_us >= earlier.begun_us && call.begun_us <= later.ended_us
        })
    };
    for (at, later) in writes.iter().enumerate() {
        let Some(stamp) = world.ghost.stamp(later.op_id()) else { continue };
        let before = &writes[at.saturating_sub(NEIGHBOURS)..at];
        let wrong = before.iter().find(|earlier| {
            world.ghost.stamp(earlier.op_id()).is_some_and(|other| other > stamp)
                && overwrites(world, later, earlier)
                && (field.is_none() || !removed_between(earlier, later))
        });
        if let Some(earlier) = wrong {
            let other = world.ghost.stamp(earlier.op_id());
            return Err(format!(
                "{key:?} {field:?}: {later:?} is stamped {stamp:?}, below {other:?} of {earlier:?}, which was acknowledged before"
            ));
        }
    }
    Ok(())
}

/// Did `later` surely overwrite `earlier`?
fn overwrites(world: &World, later: &Call, earlier: &Call) -> bool {
    // A deletion of nothing writes nothing.
    let wrote = world.ghost.minted(later.op_id()).next().is_some();
    // A coordinator that was paused in between does an operation once more, long after its client was answered.
    let settled_us = later.ended_us.max(world.ghost.last_minted_us(earlier.op_id()));
    wrote
        && later.end == End::Acked
        && earlier.end == End::Acked
        && earlier.ended_us < later.begun_us
        && earlier.owner_acks() + later.owner_acks() > usize::from(world.plan.replicas)
        && world.ghost.is_plain(later.op_id())
        && world.ghost.is_plain(earlier.op_id())
        && later.receipt.as_ref().is_some_and(|receipt| !receipt.duplicate)
        && earlier.receipt.as_ref().is_some_and(|receipt| !receipt.duplicate)
        && !world.ghost.forgot_between(earlier.begun_us, settled_us)
}
