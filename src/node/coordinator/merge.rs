//! Joins what replicas answered into one object, and tells who lacked what.

use std::collections::BTreeMap;

use crate::data::context::Context;
use crate::data::id::{Dot, NodeId};
use crate::data::mutation::{Delta, Effect, apply};
use crate::data::object::Object;
use crate::data::path::{Component, Path};
use crate::data::row::{Row, merge};
use crate::wire::message::{GLANCE, RepairRow, Scope};

/// One owner's rows of a scope with what it knows of the partition.
#[derive(Clone, Debug)]
pub struct Held {
    pub rows: BTreeMap<Path, Row>,
    pub context: Context,
}

impl Held {
    pub fn new(rows: Vec<(Path, Row)>, context: Context) -> Self {
        Self { rows: rows.into_iter().collect(), context }
    }
}

/// The join of all answers.
pub fn join(held: &[(NodeId, Held)], hinted: &[Delta], scope: &Scope) -> Object {
    let mut parts: Vec<Held> = held.iter().map(|(_, held)| held.clone()).collect();
    if *scope == Scope::Glance {
        cut_to_common(&mut parts);
    }
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or(Held { rows: BTreeMap::new(), context: Context::default() });
    for part in parts {
        let mut rows = BTreeMap::new();
        let paths: Vec<Path> = sum.rows.keys().chain(part.rows.keys()).cloned().collect();
        for path in paths {
            if rows.contains_key(&path) {
                continue;
            }
            let mine = sum.rows.get(&path).cloned();
            let theirs = part.rows.get(&path).cloned();
            if let Some(row) = merge(mine, &sum.context, theirs, &part.context) {
                rows.insert(path, row);
            }
        }
        sum.rows = rows;
        sum.context.join(&part.context);
    }
    for mutation in hinted.iter().flat_map(|delta| &delta.mutations) {
        if sum.context.contains(mutation.dot) {
            continue;
        }
        for removed in mutation.effects.iter().flat_map(|effect| &effect.removes) {
            sum.context.insert(*removed);
        }
        for effect in mutation.effects.iter().filter(|effect| scope.covers(&effect.path)) {
            let row = sum.rows.remove(&effect.path);
            if let Some(row) = apply(effect, mutation.dot, row, false).row {
                sum.rows.insert(effect.path.clone(), row);
            }
        }
    }
    Object { rows: sum.rows }
}

/// What one owner must be sent to hold the merged object. What it holds too much it will be told by name, from the log.
pub fn repair(held: &Held, merged: &Object) -> Vec<RepairRow> {
    let adds = |path: &Path, row: &Row| match held.rows.get(path) {
        None => true,
        Some(had) if had == row => false,
        Some(had) => {
            let dots = had.dots();
            row.dots().iter().any(|dot| !dots.contains(dot)) || row.removable().is_empty()
        }
    };
    merged
        .rows
        .iter()
        .filter(|(path, row)| adds(path, row))
        .map(|(path, row)| RepairRow { path: path.clone(), row: row.clone() })
        .collect()
}

/// What somebody still holds though somebody else knows that it was removed, as effects that remove it.
pub fn surplus(held: &[(NodeId, Held)], merged: &Object) -> Vec<Effect> {
    let mut gone: BTreeMap<&Path, Vec<Dot>> = BTreeMap::new();
    for (path, row) in held.iter().flat_map(|(_, held)| &held.rows) {
        let kept = merged.rows.get(path).map(Row::removable).unwrap_or_default();
        if path.component == Component::Register {
            continue;
        }
        for dot in row.removable().into_iter().filter(|dot| !kept.contains(dot)) {
            gone.entry(path).or_default().push(dot);
        }
    }
    gone.into_iter()
        .map(|(path, mut removes)| {
            removes.sort_unstable();
            removes.dedup();
            Effect { path: path.clone(), removes, put: None }
        })
        .collect()
}

/// A glance cut short says nothing about what lies behind it: keep what all of them reached.
fn cut_to_common(parts: &mut [Held]) {
    for component in Component::ALL {
        let end = parts
            .iter()
            .filter_map(|part| {
                let mut paths: Vec<&Path> = part.rows.keys().filter(|path| path.component == component).collect();
                paths.sort_by_cached_key(|path| path.name_hash());
                paths.get(GLANCE - 1).map(|path| (*path).clone())
            })
            .min_by(|one, two| one.order().cmp(&two.order()));
        if let Some(end) = end {
            for part in parts.iter_mut() {
                part.rows.retain(|path, _| path.component != component || path.order() <= end.order());
            }
        }
    }
}
