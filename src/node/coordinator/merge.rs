//! Joins what replicas answered into one object, and tells who lacked what.

use std::collections::BTreeMap;

use crate::data::context::Context;
use crate::data::id::{Dot, NodeId};
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
        for effect in mutation.effects.iter().filter(|effect| in_scope(scope, &effect.path)) {
            let row = sum.rows.remove(&effect.path);
            if let Some(row) = apply(effect, mutation.dot, row, false).row {
                sum.rows.insert(effect.path.clone(), row);
            }
        }
    }
    Object { rows: sum.rows }
}

/// What one owner must be sent to hold the merged object.
pub fn repair(held: &Held, merged: &Object) -> Vec<RepairRow> {
    let mut repairs = Vec::new();
    for (path, row) in &merged.rows {
        let mine = held.rows.get(path);
        if mine != Some(row) {
            repairs.push(RepairRow { path: path.clone(), row: Some(row.clone()), removed: gone(mine, Some(row)) });
        }
    }
    for (path, mine) in &held.rows {
        if !merged.rows.contains_key(path) {
            repairs.push(RepairRow { path: path.clone(), row: None, removed: gone(Some(mine), None) });
        }
    }
    repairs
}

fn gone(mine: Option<&Row>, merged: Option<&Row>) -> Vec<Dot> {
    let kept = merged.map(Row::removable).unwrap_or_default();
    mine.map(Row::removable).unwrap_or_default().into_iter().filter(|dot| !kept.contains(dot)).collect()
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

fn in_scope(scope: &Scope, path: &Path) -> bool {
    match scope {
        Scope::Everything | Scope::Glance => true,
        _ if path.component == Component::Deadline => true,
        Scope::Text => matches!(path.component, Component::Register | Component::Counter | Component::Retry),
        Scope::Flag => path.component == Component::Flag,
        Scope::Siblings => path.component == Component::Sibling,
        Scope::Members(members) => path.component == Component::Member && members.contains(&path.member),
        Scope::AllMembers => path.component == Component::Member,
        Scope::AllFields => path.field().is_some(),
        Scope::Fields(fields) => path.field().is_some_and(|field| fields.contains(&field)),
    }
}
