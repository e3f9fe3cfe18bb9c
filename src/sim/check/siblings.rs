//! Siblings: an acknowledged value stands until a write whose context had read it; a value so replaced is gone for good.
//!
//! So there are never more siblings than writes that had not read each other. Values minted more than once (retries through several
//! coordinators) may have been replaced in part; of those only the presence is judged.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Call, End};
use super::super::world::World;
use super::Objects;
use crate::data::op::{Key, Op};

pub fn check(world: &World, objects: &Objects) -> Result<(), String> {
    let mut stories: BTreeMap<Key, Vec<(&Call, &Bytes)>> = BTreeMap::new();
    for (_, call) in world.history.mutations(b'm') {
        if let Op::SiblingsPut { value, .. } = call.op()
            && call.may_have_happened()
        {
            stories.entry(call.request.key.clone()).or_default().push((call, value));
        }
    }
    for (key, story) in stories {
        let values: Vec<Bytes> = objects
            .get(&key)
            .map(|object| object.siblings(world.wall_ms(0)).into_iter().map(|(_, value)| value).collect())
            .unwrap_or_default();
        let held: BTreeSet<&Bytes> = values.iter().collect();
        for (call, value) in &story {
            let mut replacers = story.iter().map(|(other, _)| other).filter(|other| other.read.contains(value));
            if !held.contains(value) {
                if call.end == End::Acked && !world.ghost.is_lost(call.op_id()) && replacers.next().is_none() {
                    return Err(format!("{key:?} lost the sibling {value:?} of {call:?}; it holds {values:?}"));
                }
            } else if world.ghost.is_single(call.op_id())
                && let Some(replacer) =
                    replacers.find(|other| other.end == End::Acked && !world.ghost.is_lost(other.op_id()))
            {
                return Err(format!("{key:?} still holds {value:?}, which was replaced by {replacer:?}"));
            }
        }
        if let Some(value) = held.iter().find(|value| !story.iter().any(|(_, written)| written == *value)) {
            return Err(format!("{key:?} holds {value:?}, which nobody wrote"));
        }
    }
    Ok(())
}
