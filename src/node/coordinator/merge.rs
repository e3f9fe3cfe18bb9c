//! Joins what replicas answered into one object, and tells who lacked what.

use std::collections::BTreeMap;

use crate::data::context::Context;
use crate::data::id::NodeId;
use crate::data::mutation::{Delta, apply};
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

/// The join of all answers, and what is known in all of them together.
pub fn join(held: &[(NodeId, Held)], hinted: &[Delta], scope: &Scope) -> (Object, Context) {
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
    (Object { rows: sum.rows }, sum.context)
}

/// What one owner must be sent to hold the merged object.
pub fn repair(held: &Held, merged: &Object) -> Vec<RepairRow> {
    let wanting = merged.rows.iter().filter(|(path, row)| held.rows.get(*path) != Some(*row));
    let surplus = held.rows.keys().filter(|path| !merged.rows.contains_key(*path));
    wanting
        .map(|(path, row)| RepairRow { path: path.clone(), row: Some(row.clone()) })
        .chain(surplus.map(|path| RepairRow { path: path.clone(), row: None }))
        .collect()
}

/// A glance cut short says nothing about what lies behind it: keep what all of them reached.
fn cut_to_common(parts: &mut [Held]) {
    for component in Component::ALL {
        let end = parts
            .iter()
            .filter_map(|part| {
                let mut paths = part.rows.keys().filter(|path| path.component == component);
                paths.nth(GLANCE - 1).cloned()
            })
            .min();
        if let Some(end) = end {
            for part in parts.iter_mut() {
                part.rows.retain(|path, _| path.component != component || *path <= end);
            }
        }
    }
}
