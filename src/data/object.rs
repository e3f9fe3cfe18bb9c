//! An object as a person sees it: rows of one key, judged at one moment.
//!
//! Visible is what belongs to a life whose deadline has not passed. A deadline row of a life outranks the deadline that the life
//! was born with, because whoever set it had seen the birth.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::decimal::Decimal;
use super::id::{Dot, OpId};
use super::mutation::Entry;
use super::path::{Component, Path, field_prefix};
use super::row::{Floor, Holds, Life, Register, Retried, Row, Tally, tally_holds, tally_is_live, tally_value};

/// Some or all rows of one key, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Object {
    pub rows: BTreeMap<Path, Row>,
}

/// Why a number could not be made of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotANumber;

impl Object {
    pub fn new(rows: impl IntoIterator<Item = (Path, Row)>) -> Self {
        Self { rows: rows.into_iter().collect() }
    }

    /// Rows of one component, in order of member.
    pub fn of(&self, component: Component) -> impl Iterator<Item = (&Path, &Row)> {
        let from = Path::new(component, Bytes::new());
        self.rows.range(from..).take_while(move |(path, _)| path.component == component)
    }

    /// Lives with a deadline row: `None` means that it was made to persist.
    pub fn deadlines(&self) -> impl Iterator<Item = (Life, Option<u64>)> + '_ {
        self.of(Component::Deadline).filter_map(|(path, row)| match row {
            Row::Deadline(deadline) => Some((path.life()?, deadline.at_ms)),
            _ => None,
        })
    }

    /// Is any life's deadline yet to come?
    pub fn will_end(&self, wall_ms: u64) -> bool {
        self.deadlines().any(|(_, at_ms)| at_ms.is_some_and(|at_ms| at_ms > wall_ms))
    }

    /// The latest life of those that never end, where some do.
    pub fn endless_life(&self) -> Option<Life> {
        let told = self.deadlines().filter(|(_, at_ms)| at_ms.is_none()).map(|(life, _)| life).max();
        told.or_else(|| (!self.rows.contains_key(&Path::deadline(Life(0)))).then_some(Life(0)))
    }

    /// When a life ends, given the deadline it was born with.
    pub fn deadline_of(&self, life: Life, born_with: Option<u64>) -> Option<u64> {
        match self.rows.get(&Path::deadline(life)) {
            Some(Row::Deadline(deadline)) => deadline.at_ms,
            // It has its deadline in a row of its own, or has none: a deadline of never goes as if it were not there.
            _ if life == Life(0) => None,
            // A string's counts live and die with its register.
            _ => born_with.or_else(|| match self.rows.get(&Path::new(Component::Register, Bytes::new())) {
                Some(Row::Register(register)) if register.life == life => register.deadline_ms,
                _ => None,
            }),
        }
    }

    pub fn is_alive(&self, life: Life, born_with: Option<u64>, wall_ms: u64) -> bool {
        self.deadline_of(life, born_with).is_none_or(|at_ms| at_ms > wall_ms)
    }

    /// The visible register of the key, or of a field.
    pub fn register(&self, field: Option<&[u8]>, wall_ms: u64) -> Option<&Register> {
        let shows = |register: &&Register| {
            register.payload.is_some() && self.is_alive(register.life, register.deadline_ms, wall_ms)
        };
        let path = match field {
            None => Path::new(Component::Register, Bytes::new()),
            Some(field) => Path::new(Component::Field, Bytes::copy_from_slice(field)),
        };
        match self.rows.get(&path)? {
            Row::Register(register) => Some(register).filter(shows),
            Row::Field(entries) => entries.iter().filter(shows).max_by_key(|entry| entry.stamp),
            _ => None,
        }
    }

    /// The visible tallies of the key or of a field.
    pub fn tallies(
        &self,
        field: Option<&[u8]>,
        wall_ms: u64,
    ) -> impl Iterator<Item = (&Path, &Option<Tally>, &Option<Floor>)> {
        let (component, prefix) = match field {
            None => (Component::Counter, Vec::new()),
            Some(field) => (Component::FieldCounter, field_prefix(field)),
        };
        let from = Path::new(component, prefix.clone());
        self.rows
            .range(from..)
            .take_while(move |(path, _)| path.component == component && path.member.starts_with(&prefix))
            .filter_map(move |(path, row)| match row {
                Row::Counter { tally, floor }
                    if tally_is_live(tally, floor) && self.is_alive(path.life()?, None, wall_ms) =>
                {
                    Some((path, tally, floor))
                }
                _ => None,
            })
    }

    /// The retried increments of the key or of a field.
    fn retries(&self, field: Option<&[u8]>, wall_ms: u64) -> impl Iterator<Item = (&Path, &Retried)> {
        let (component, prefix) = match field {
            None => (Component::Retry, Vec::new()),
            Some(field) => (Component::FieldRetry, field_prefix(field)),
        };
        let from = Path::new(component, prefix.clone());
        self.rows
            .range(from..)
            .take_while(move |(path, _)| path.component == component && path.member.starts_with(&prefix))
            .filter_map(move |(path, row)| match row {
                Row::Retried(retried) if self.is_alive(path.life()?, None, wall_ms) => Some((path, retried)),
                _ => None,
            })
    }

    /// How often a retried increment is still to be added to what the tallies say: once, or less than never when several contain it.
    pub fn times(&self, path: &Path, retried: &Retried) -> i64 {
        let mut wanted = i64::from(!retried.removed);
        let mut live = 0;
        for tally in &retried.tallies {
            let Some(life) = path.life() else { continue };
            let field = path.field();
            let row = self.rows.get(&Path::tally(field.as_deref(), life, tally.incarnation));
            let Some(Row::Counter { tally: held, floor }) = row else { continue };
            match tally_holds(held, floor, tally.counter) {
                Holds::Live => live += 1,
                // Who removed it from the tally has removed it.
                Holds::Removed => wanted = 0,
                Holds::Nothing => {}
            }
        }
        wanted - live
    }

    /// Retried increments that are added to what tallies of the same number say, none of which is known to contain them: their operation
    /// ids, and where they stand.
    pub fn counted_beside(&self) -> Vec<(OpId, Path)> {
        let mut beside = Vec::new();
        for (component, tallied) in
            [(Component::Retry, Component::Counter), (Component::FieldRetry, Component::FieldCounter)]
        {
            for (path, row) in self.of(component) {
                let (Row::Retried(retried), Some(op_id)) = (row, path.op_id()) else { continue };
                let prefix = path.field().map(|field| field_prefix(&field)).unwrap_or_default();
                let from = Path::new(tallied, prefix.clone());
                let mut tallies = self
                    .rows
                    .range(from..)
                    .take_while(|(other, _)| other.component == tallied && other.member.starts_with(&prefix));
                if self.times(path, retried) > 0 && tallies.any(|(other, _)| other.life() == path.life()) {
                    beside.push((op_id, path.clone()));
                }
            }
        }
        beside
    }

    /// The retried increment that stands here is within a tally, where this dot added it.
    pub fn tallied(&mut self, path: &Path, tally: Dot) {
        if let Some(Row::Retried(retried)) = self.rows.get_mut(path)
            && let Err(at) = retried.tallies.binary_search(&tally)
        {
            retried.tallies.insert(at, tally);
        }
    }

    /// What has been counted here; `None` when nothing has been that was not removed.
    pub fn count(&self, field: Option<&[u8]>, wall_ms: u64) -> Option<Decimal> {
        let mut sum = None;
        for (_, tally, floor) in self.tallies(field, wall_ms) {
            sum = Some(sum.unwrap_or(Decimal::ZERO).saturating_add(tally_value(tally, floor)));
        }
        for (path, retried) in self.retries(field, wall_ms) {
            let times = self.times(path, retried);
            if times > 0 {
                sum = Some(sum.unwrap_or(Decimal::ZERO).saturating_add(retried.amount));
            }
            for _ in times..0 {
                sum = sum.map(|sum| sum.saturating_sub(retried.amount));
            }
        }
        sum
    }

    /// The text of the string (or field): the register's, or its number plus the count. A register that is no number hides counts
    /// that came concurrently.
    pub fn text(&self, field: Option<&[u8]>, wall_ms: u64) -> Option<Bytes> {
        let register = self.register(field, wall_ms).and_then(|register| register.payload.clone());
        let Some(count) = self.count(field, wall_ms) else { return register };
        match register {
            None => Some(count.to_string().into()),
            Some(text) => match Decimal::parse(&text) {
                Some(base) => Some(base.saturating_add(count).to_string().into()),
                None => Some(text),
            },
        }
    }

    /// The string (or field) as a number, 0 when it is absent.
    pub fn number(&self, field: Option<&[u8]>, integer: bool, wall_ms: u64) -> Result<Decimal, NotANumber> {
        let base = match self.register(field, wall_ms).and_then(|register| register.payload.as_ref()) {
            None => Decimal::ZERO,
            Some(text) if integer => Decimal::parse_integer(text).ok_or(NotANumber)?,
            Some(text) => Decimal::parse(text).ok_or(NotANumber)?,
        };
        let sum = base.saturating_add(self.count(field, wall_ms).unwrap_or(Decimal::ZERO));
        if integer && sum.to_integer().is_none() {
            return Err(NotANumber);
        }
        Ok(sum)
    }

    /// Visible set members, in order.
    pub fn members(&self, wall_ms: u64) -> impl Iterator<Item = &Bytes> {
        self.of(Component::Member)
            .filter(move |(_, row)| self.row_is_visible(row, wall_ms))
            .map(|(path, _)| &path.member)
    }

    pub fn has_member(&self, member: &[u8], wall_ms: u64) -> bool {
        let path = Path::new(Component::Member, Bytes::copy_from_slice(member));
        self.rows.get(&path).is_some_and(|row| self.row_is_visible(row, wall_ms))
    }

    /// Visible fields with their texts, in order.
    pub fn fields(&self, wall_ms: u64) -> Vec<(Bytes, Bytes)> {
        let named: BTreeSet<Bytes> = [Component::Field, Component::FieldCounter, Component::FieldRetry]
            .into_iter()
            .flat_map(|component| self.of(component))
            .filter_map(|(path, _)| path.field())
            .collect();
        named.into_iter().filter_map(|field| Some((field.clone(), self.text(Some(&field), wall_ms)?))).collect()
    }

    /// Visible siblings, by birth.
    pub fn siblings(&self, wall_ms: u64) -> Vec<(Dot, Bytes)> {
        self.of(Component::Sibling)
            .filter_map(|(_, row)| match row {
                Row::Sibling(sibling) if self.is_alive(sibling.life, None, wall_ms) => {
                    Some((sibling.dot, sibling.payload.clone()))
                }
                _ => None,
            })
            .collect()
    }

    pub fn flag(&self, wall_ms: u64) -> bool {
        self.of(Component::Flag).any(|(_, row)| self.row_is_visible(row, wall_ms))
    }

    /// Is any entry of this row of a life that has not ended? For rows that do not carry their life in the path.
    pub fn row_is_visible(&self, row: &Row, wall_ms: u64) -> bool {
        match row {
            Row::Births(births) => births.iter().any(|birth| self.is_alive(birth.life, None, wall_ms)),
            Row::Sibling(sibling) => self.is_alive(sibling.life, None, wall_ms),
            Row::Field(entries) => entries.iter().any(|entry| self.is_alive(entry.life, entry.deadline_ms, wall_ms)),
            Row::Register(register) => {
                register.payload.is_some() && self.is_alive(register.life, register.deadline_ms, wall_ms)
            }
            _ => false,
        }
    }

    /// Is anything of this row visible, whatever its component?
    pub fn path_is_visible(&self, path: &Path, row: &Row, wall_ms: u64) -> bool {
        match row {
            Row::Counter { tally, floor } => {
                tally_is_live(tally, floor) && path.life().is_some_and(|life| self.is_alive(life, None, wall_ms))
            }
            Row::Retried(retried) => {
                self.times(path, retried) > 0 && path.life().is_some_and(|life| self.is_alive(life, None, wall_ms))
            }
            Row::Deadline(_) => false,
            other => self.row_is_visible(other, wall_ms),
        }
    }

    /// What of a row is not merely waiting to be dropped: the same at all owners that have seen the same, whatever each has dropped so
    /// far. Needs the key's register, deadlines and counts; its other rows only as they are asked about.
    pub fn essential(&self, path: &Path, row: &Row, wall_ms: u64) -> Option<Row> {
        let lives = |life, born_with| self.is_alive(life, born_with, wall_ms);
        if path.life().is_some_and(|life| !lives(life, None)) {
            return None;
        }
        match row {
            Row::Register(register) => {
                (register.payload.is_some() && lives(register.life, register.deadline_ms)).then(|| row.clone())
            }
            Row::Deadline(deadline) => deadline.at_ms.is_some().then(|| row.clone()),
            Row::Field(entries) => {
                let kept: Vec<_> =
                    entries.iter().filter(|entry| lives(entry.life, entry.deadline_ms)).cloned().collect();
                (!kept.is_empty()).then_some(Row::Field(kept))
            }
            Row::Births(births) => {
                let kept: Vec<_> = births.iter().filter(|birth| lives(birth.life, None)).cloned().collect();
                (!kept.is_empty()).then_some(Row::Births(kept))
            }
            Row::Sibling(sibling) => lives(sibling.life, None).then(|| row.clone()),
            Row::Counter { tally, floor } => tally_is_live(tally, floor).then(|| Row::Counter {
                tally: *tally,
                floor: floor.filter(|floor| tally.is_some_and(|tally| floor.upto > tally.run)),
            }),
            Row::Retried(retried) => (!retried.removed || self.times(path, retried) != 0).then(|| row.clone()),
        }
    }

    pub fn is_visible(&self, wall_ms: u64) -> bool {
        self.rows.iter().any(|(path, row)| self.path_is_visible(path, row, wall_ms))
    }

    /// What is visible, entry by entry.
    pub fn visible_entries(&self, wall_ms: u64) -> impl Iterator<Item = Entry> + '_ {
        let visible = self.rows.iter().filter(move |(path, row)| self.path_is_visible(path, row, wall_ms));
        visible.flat_map(move |(path, row)| {
            let counted = |dot: Dot| path.life().map(|life| (life, dot)).into_iter().collect();
            let entries: Vec<(Life, Dot)> = match row {
                Row::Register(register) => vec![(register.life, register.dot)],
                Row::Counter { tally, .. } => tally.map(|tally| tally.dot).map(counted).unwrap_or_default(),
                Row::Retried(retried) => retried.dots.first().copied().map(counted).unwrap_or_default(),
                Row::Births(births) => births.iter().map(|birth| (birth.life, birth.dot)).collect(),
                Row::Field(entries) => entries.iter().map(|entry| (entry.life, entry.dot)).collect(),
                Row::Sibling(sibling) => vec![(sibling.life, sibling.dot)],
                Row::Deadline(_) => Vec::new(),
            };
            // A row may have entries of several lives.
            let alive = entries.into_iter().filter(move |(life, _)| self.is_alive(*life, None, wall_ms));
            alive.map(|(life, dot)| Entry { path: path.clone(), life, dot })
        })
    }

    /// The visible entry whose life ends last.
    pub fn last_visible(&self, wall_ms: u64) -> Option<Entry> {
        self.visible_entries(wall_ms)
            .max_by_key(|entry| (self.deadline_of(entry.life, None).unwrap_or(u64::MAX), entry.life, entry.dot))
    }
}
