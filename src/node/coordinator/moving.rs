//! Moving over: what a coordinator that had missed a deadline or a deletion has put is put once more where it belongs, and taken away
//! from where it was.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::plan::{Facts, Joins, floor, plan};
use crate::data::id::Dot;
use crate::data::mutation::{Delta, Effect, Entry, Mutation};
use crate::data::object::Object;
use crate::data::op::{Condition, Op, Reply, SetExpiry};
use crate::data::path::{Component, Path};
use crate::data::row::{Put, Row};
use crate::node::replica::Mint;
use crate::wire::message::{BESIDE_MAX, Strays};

/// Where does what an owner told of belong? `None`: it is right where it is, or that owner knows less. `here`: all of the key at the
/// coordinator, as far as it was looked at. `knows`: the dots that it has seen, or knows to be removed.
pub fn strayed(
    strays: &Strays,
    delta: &Delta,
    here: &Object,
    knows: impl Fn(Dot) -> bool,
    wall_ms: u64,
) -> Option<Joins> {
    let life = delta.life()?;
    let unknown = strays.news.is_some();
    // The deadline may have come to be known since, or be older than what is known here.
    let ended = match here.rows.get(&Path::deadline(life)) {
        Some(Row::Deadline(held)) if strays.news.is_some_and(|stamp| stamp <= held.stamp) => {
            held.at_ms.is_some_and(|at_ms| at_ms <= wall_ms)
        }
        _ => strays.ended,
    };
    let stands_beside = Object::new(delta.left_out(here.rows.clone()));
    let effects = || delta.mutations.iter().flat_map(|one| one.effects.iter().map(move |effect| (one.dot, effect)));
    let replaced = || effects().flat_map(|(_, effect)| effect.removes.iter().copied());
    let is_gone = |entry: &Entry| {
        let mut stand = stands_beside.visible_entries(wall_ms);
        let stands = stand.any(|held| entry.is_in(&held));
        // A floor takes away what has not come yet as well.
        let floored = match here.rows.get(&entry.path) {
            Some(Row::Counter { floor: Some(floor), .. }) => floor.upto >= entry.dot.counter,
            _ => false,
        };
        (knows(entry.dot) || floored) && !stands && !replaced().any(|dot| dot == entry.dot)
    };
    if let Some(entry) = strays.beside.iter().find(|entry| !is_gone(entry)) {
        let missed = ended || unknown || strays.gone || !knows(entry.dot);
        let ends_ms = |life| here.deadline_of(life, None);
        let apart = strays.apart || ends_ms(life) != ends_ms(entry.life);
        return (missed && apart && life != entry.life).then_some(Joins::Life(entry.life));
    }
    if ended {
        return Some(Joins::New);
    }
    // What was seen by whoever joined it, and what the delta has taken the place of.
    let own = |dot: Dot| delta.mutations.iter().any(|mutation| mutation.dot == dot);
    let known = stands_beside.visible_entries(wall_ms).map(|entry| entry.dot).filter(|dot| !own(*dot));
    let counted = effects().filter_map(|(dot, effect)| match effect.put {
        Some(Put::Tally { run, .. }) => Some(Dot { counter: run + 1, ..dot }).filter(|first| *first != dot),
        _ => None,
    });
    // A value stands for itself.
    let alone = effects().any(|(_, effect)| matches!(effect.put, Some(Put::Register { .. })));
    let beside = delta.basis.as_ref().and_then(|basis| basis.beside.as_ref());
    let gone = beside.map(|entry| entry.dot).filter(|_| strays.gone);
    let mut witnesses = known.chain(replaced()).chain(counted).filter(|dot| !alone && Some(*dot) != gone).peekable();
    let missed = match witnesses.peek() {
        None => unknown || strays.gone,
        // It sees more than it told of.
        Some(_) if strays.beside.len() >= BESIDE_MAX => false,
        Some(_) => witnesses.all(|dot| strays.seen.contains(dot)),
    };
    missed.then_some(Joins::New)
}

/// Does it put something without asking first what a read level of owners hold, so that its coordinator may not know what it stands beside?
pub fn may_stray(op: &Op) -> bool {
    match op {
        Op::Set { expiry, .. } => *expiry == SetExpiry::Never,
        Op::SetAdd { .. } | Op::HashSet { .. } | Op::Increment { .. } | Op::HashIncrement { .. } => true,
        Op::SiblingsPut { .. } | Op::FlagSet { on: true } => true,
        _ => false,
    }
}

/// Puts once more, in the life that it should have joined, what a delta has put elsewhere, and takes it away from there: by name, a count
/// by just what it added. What has been removed since, or replaced, is left so. `object`: what stands here of its scope, the delta's own
/// among it. Nothing is returned when nothing of it stands. What took the place of something is not put any more by the delta itself.
pub fn moved(op: &Op, facts: &Facts, delta: &mut Delta, mint: &mut Mint) -> Option<(Vec<Mutation>, Reply)> {
    let life = delta.life()?;
    let rows = &facts.object.rows;
    let mut standing: Vec<(Dot, Effect)> = Vec::new();
    for mutation in &mut delta.mutations {
        for effect in &mut mutation.effects {
            let Some(put) = effect.put.take_if(|put| put.joined(&effect.path) == Some(life)) else { continue };
            if rows.get(&effect.path).is_some_and(|row| row.holds(mutation.dot)) {
                let path = effect.path.clone();
                standing.push((mutation.dot, Effect { path, removes: Vec::new(), put: Some(put) }));
            }
        }
    }
    let paths: BTreeSet<&Path> = standing.iter().map(|(_, effect)| &effect.path).collect();
    let stands = |component, name: &Bytes| paths.contains(&Path::new(component, name.clone()));
    let op = match op {
        _ if standing.is_empty() => return None,
        Op::Set { value, .. } => {
            Op::Set { value: value.clone(), expiry: SetExpiry::Never, condition: Condition::Always, old: false }
        }
        Op::HashSet { fields, .. } => {
            let fields = fields.iter().filter(|(field, _)| stands(Component::Field, field)).cloned().collect();
            Op::HashSet { fields, absent_only: false }
        }
        Op::SetAdd { members } => {
            let members = members.iter().filter(|member| stands(Component::Member, member)).cloned().collect();
            Op::SetAdd { members }
        }
        op => op.clone(),
    };
    let mut others = delta.left_out(rows.clone()).collect::<Vec<_>>();
    if matches!(op, Op::Set { .. }) {
        // What it replaces it has replaced.
        others.retain(|(path, _)| path.component == Component::Deadline);
    }
    // By the last dot of an operation it is known whether it counts: what counts comes last. One dot each, as with all that is taken away.
    let (mut list, mut again) = (Vec::new(), Vec::new());
    for (dot, Effect { path, put, .. }) in standing {
        let back = match put {
            Some(Put::Birth { .. } | Put::Field { .. }) => {
                again.push((path, dot));
                None
            }
            Some(Put::Sibling { .. }) => Some(Effect { path, removes: vec![dot], put: None }),
            Some(Put::Tally { .. }) => match (rows.get(&path), &op) {
                // It counts nothing else.
                (Some(row @ Row::Counter { tally: Some(held), .. }), _)
                    if held.dot == dot && held.dot.counter.checked_sub(1) == Some(held.run) =>
                {
                    floor(&path, row)
                }
                (
                    Some(Row::Counter { tally: Some(held), .. }),
                    Op::Increment { by, .. } | Op::HashIncrement { by, .. },
                ) => {
                    let total = held.total.saturating_sub(*by);
                    Some(Effect { path, removes: Vec::new(), put: Some(Put::Tally { run: held.run, total }) })
                }
                _ => None,
            },
            Some(Put::Retried { amount }) => {
                Some(Effect { path, removes: Vec::new(), put: Some(Put::RetriedRemoved { amount }) })
            }
            _ => None,
        };
        list.extend(back.map(|back| Mutation { dot: mint.dot(), effects: vec![back] }));
    }
    let (mut puts, reply) = plan(&op, &Facts { object: &Object::new(others), ..*facts }, mint).ok()?;
    for (path, dot) in again {
        let effects = puts.iter_mut().flat_map(|mutation| &mut mutation.effects);
        effects.filter(|effect| effect.path == path).for_each(|effect| effect.removes.push(dot));
    }
    list.append(&mut puts);
    Some((list, reply))
}
