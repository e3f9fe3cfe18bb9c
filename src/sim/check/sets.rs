//! Sets and flags: an acknowledged addition stands unless a removal may have seen it; what was removed does not return.
//!
//! A removal may have seen every addition that began before the removal ended, or before a copy of it was done once more: at levels whose
//! quorums need not meet, an owner that knows of the first may be out of reach of who takes the second. It must have seen an addition that was acknowledged by
//! so many owners that they meet the removal's strict read quorum, before the removal began, and that was minted just once. Nothing
//! is said of additions that a disk lost, nor of removals around the time of such a loss.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::history::{Call, End};
use super::super::world::World;
use super::{Objects, must_have_seen};
use crate::data::consistency::Level;
use crate::data::op::{Key, Op};

#[derive(Default)]
struct Story<'a> {
    adds: Vec<&'a Call>,
    removes: Vec<&'a Call>,
}

pub fn check(world: &World, objects: &Objects) -> Result<(), String> {
    let mut stories: BTreeMap<(Key, Option<Bytes>), Story> = BTreeMap::new();
    for (_, call) in world.history.mutations(b's').chain(world.history.mutations(b'f')) {
        if !call.may_have_happened() {
            continue;
        }
        let key = &call.request.key;
        let mut enter = |member: Option<&Bytes>, add: bool| {
            let story = stories.entry((key.clone(), member.cloned())).or_default();
            if add { story.adds.push(call) } else { story.removes.push(call) }
        };
        match call.op() {
            Op::SetAdd { members } => {
                members.iter().collect::<BTreeSet<_>>().into_iter().for_each(|one| enter(Some(one), true))
            }
            Op::SetRemove { members } => {
                members.iter().collect::<BTreeSet<_>>().into_iter().for_each(|one| enter(Some(one), false));
            }
            Op::FlagSet { on } => enter(None, *on),
            _ => {}
        }
    }
    for ((key, member), story) in stories {
        let wall_ms = world.wall_ms(0);
        let present = objects.get(&key).is_some_and(|object| match &member {
            Some(member) => object.has_member(member, wall_ms),
            None => object.flag(wall_ms),
        });
        if !present {
            for add in story.adds.iter().filter(|add| add.end == End::Acked && !world.ghost.is_lost(add.op_id())) {
                if !story.removes.iter().any(|remove| remove.ended_us >= add.begun_us || may_repeat(world, remove, add))
                {
                    return Err(format!("{key:?} {member:?} was added and is gone: {add:?}"));
                }
            }
        } else {
            let removed = |add: &&Call| story.removes.iter().any(|remove| must_have_seen(world, remove, add));
            if story.adds.is_empty() {
                return Err(format!("{key:?} {member:?} is there and nobody added it"));
            }
            if story.adds.iter().all(removed) {
                return Err(format!(
                    "{key:?} {member:?} was removed and is back; adds {:?}; removes {:?}; rows {:?}",
                    story.adds,
                    story.removes,
                    objects.get(&key)
                ));
            }
        }
    }
    Ok(())
}

/// Was the removal done once more after the addition began, at levels that could not make sure of doing it once?
fn may_repeat(world: &World, remove: &Call, add: &Call) -> bool {
    let consistency = &remove.request.consistency;
    let needed = |level: Level| usize::from(level.needed(world.plan.replicas));
    let meet = needed(consistency.read) + needed(consistency.write) > usize::from(world.plan.replicas);
    !(meet && consistency.owners_only)
        && world.ghost.minted(remove.op_id()).count() > 1
        && world.ghost.last_minted_us(remove.op_id()) >= add.begun_us
}
