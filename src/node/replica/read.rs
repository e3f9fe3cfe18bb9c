//! Reading: which kinds of rows an object has, and the rows of a scope of it, in as few steps through the store as may be.
//!
//! ```text
//!  touched by this turn ──no──▶ all rows held ──────────────────────────────────▶ those of the scope
//!          │ yes                     │ not held                                         ▲
//!          ▼                         ▼                                                  │
//!     the store, through what this turn has written; what is read of a small, untouched object is held
//! ```

use bytes::Bytes;

use super::keys::{after_components, component_start, upper_bound};
use super::objects::{Held, Mask, SMALL_BYTES, SMALL_ROWS};
use super::packed::{Packed, Piece};
use super::{Replica, Turn, corrupt, decode, get_row};
use crate::data::op::Key;
use crate::data::path::{Component, Path, field_prefix, key_prefix, parse_row_key, place_start, row_key};
use crate::data::row::Row;
use crate::storage::{Space, StoreError};
use crate::wire::message::{GLANCE, PAGE_BYTES, Scope, row_bytes};

impl Replica {
    /// Is it remembered of a key that it has no row but a register, and none that says when a life ends?
    pub fn is_plain_text(&self, key: &Key) -> bool {
        let prefix = key_prefix(self.partition_of(key), key);
        self.objects.get(&prefix).is_some_and(|known| known.mask.is_only(Component::Register))
    }

    /// Which components of a key may have rows: none that has is left out.
    pub fn mask(&mut self, turn: &Turn, key: &Key) -> Result<Mask, StoreError> {
        let prefix = key_prefix(self.partition_of(key), key);
        match self.objects.get(&prefix) {
            Some(known) => Ok(known.mask),
            None => self.find_mask(turn, &prefix),
        }
    }

    fn find_mask(&mut self, turn: &Turn, prefix: &[u8]) -> Result<Mask, StoreError> {
        let mut mask = Mask::default();
        let mut next = Component::Register as u8;
        let end = after_components(prefix);
        // Most objects are small, and a step of a walk costs less than the beginning of another one.
        let (mut ended, mut total) = (false, 0);
        while !ended {
            let (mut steps, mut unknown) = (0, false);
            ended = true;
            turn.scan(Space::Rows, &component_start(prefix, next), &end, &mut |at, _| {
                steps += 1;
                let component = at.get(prefix.len()).copied().and_then(Component::from_byte);
                let Some(component) = component else {
                    unknown = true;
                    return false;
                };
                mask.add(component);
                next = component as u8 + 1;
                ended = steps < SMALL_ROWS;
                ended
            })?;
            if unknown {
                return Err(corrupt("a row key"));
            }
            total += steps;
        }
        let held = if total < SMALL_ROWS { Held::Nothing } else { Held::TooMuch };
        self.objects.remember(prefix, mask, held);
        Ok(mask)
    }

    /// The rows of a scope, in order.
    pub fn read(&mut self, turn: &Turn, key: &Key, scope: &Scope) -> Result<Vec<(Path, Row)>, StoreError> {
        let prefix = key_prefix(self.partition_of(key), key);
        let touched = turn.touches(Space::Rows, &prefix);
        let mut mask = None;
        if let Some(known) = self.objects.get(&prefix) {
            match &known.held {
                Held::All(rows) if !touched => {
                    let mut rows = unpack(rows, scope)?;
                    self.objects.hits += 1;
                    scope.cut(&mut rows);
                    return Ok(rows);
                }
                Held::Nothing if !touched && !known.mask.is_only(Component::Register) => {}
                _ => mask = Some(known.mask),
            }
        }
        self.objects.misses += 1;
        let mask = match mask {
            Some(mask) => mask,
            None => match self.read_small(turn, &prefix, scope, touched)? {
                Some(rows) => return Ok(rows),
                None => self.find_mask(turn, &prefix)?,
            },
        };
        let mut rows = Vec::new();
        if mask.is_empty() {
            return Ok(rows);
        }
        match scope {
            Scope::Text if mask.is_only(Component::Register) => {
                let path = Path::new(Component::Register, Bytes::new());
                let Some(bytes) = turn.get(Space::Rows, &row_key(&prefix, &path))? else { return Ok(rows) };
                rows.push((path, decode(&bytes, "a row")?));
                if !touched {
                    let small = bytes.len() <= SMALL_BYTES;
                    let packed = || Packed::default().with(Component::Register, b"", Some(&bytes));
                    let held = if small { Held::All(packed()) } else { Held::TooMuch };
                    self.objects.remember(&prefix, mask, held);
                }
                return Ok(rows);
            }
            Scope::Text => {
                if mask.has_any(&[Component::Register, Component::Counter, Component::Retry, Component::Deadline]) {
                    range(turn, &prefix, Component::Register, Component::Retry, &mut rows)?;
                }
            }
            Scope::Glance => {
                for component in Component::ALL.into_iter().filter(|component| mask.has_any(&[*component])) {
                    let from = component_start(&prefix, component as u8);
                    let to = component_start(&prefix, component as u8 + 1);
                    collect(turn, &from, &to, GLANCE, &mut rows)?;
                }
            }
            Scope::Everything => range(turn, &prefix, Component::Register, Component::Member, &mut rows)?,
            Scope::Flag | Scope::Siblings | Scope::AllFields | Scope::AllMembers => {
                let (component, last) = match scope {
                    Scope::Flag => (Component::Flag, Component::Flag),
                    Scope::Siblings => (Component::Sibling, Component::Sibling),
                    Scope::AllFields => (Component::Field, Component::FieldRetry),
                    _ => (Component::Member, Component::Member),
                };
                self.deadlines(turn, &prefix, mask, &mut rows)?;
                range(turn, &prefix, component, last, &mut rows)?;
            }
            Scope::Members(members) => {
                self.deadlines(turn, &prefix, mask, &mut rows)?;
                if mask.has_any(&[Component::Member]) {
                    for member in members {
                        point(turn, &prefix, Path::new(Component::Member, member.clone()), &mut rows)?;
                    }
                }
            }
            Scope::Fields(fields) => {
                self.deadlines(turn, &prefix, mask, &mut rows)?;
                for field in fields {
                    if mask.has_any(&[Component::Field]) {
                        point(turn, &prefix, Path::new(Component::Field, field.clone()), &mut rows)?;
                    }
                    for component in [Component::FieldCounter, Component::FieldRetry] {
                        if mask.has_any(&[component]) {
                            let from = row_key(&prefix, &Path::new(component, field_prefix(field)));
                            let to = upper_bound(&from);
                            collect(turn, &from, &to, usize::MAX, &mut rows)?;
                        }
                    }
                }
            }
            Scope::Page { of, from, upto, limit } => {
                self.deadlines(turn, &prefix, mask, &mut rows)?;
                for component in of.components().iter().filter(|component| mask.has_any(&[**component])) {
                    page(turn, &prefix, *component, (*from, *upto), *limit, &mut rows)?;
                }
                scope.cut(&mut rows);
            }
        }
        rows.sort_by(|(one, _), (two, _)| one.cmp(two));
        rows.dedup_by(|(one, _), (two, _)| one == two);
        Ok(rows)
    }

    /// The digest of the rows of a scope, where they are held. `None` says nothing of them.
    pub fn held_digest(&self, turn: &Turn, key: &Key, scope: &Scope) -> Option<u128> {
        // Where a page ends is told by its rows.
        if matches!(scope, Scope::Page { .. }) {
            return None;
        }
        let prefix = key_prefix(self.partition_of(key), key);
        let Held::All(packed) = &self.objects.get(&prefix)?.held else { return None };
        if turn.touches(Space::Rows, &prefix) {
            return None;
        }
        let covers = |piece: &Piece| scope.covers(&path_of(piece));
        if packed.pieces().all(|piece| covers(&piece)) {
            return Some(packed.digest());
        }
        Some(Packed::new(packed.pieces().filter(covers)).digest())
    }

    /// The rows of a scope of an object of which nothing is held, if it is small: one walk over all its rows finds them and which
    /// components there are. `None`: it has many.
    fn read_small(
        &mut self,
        turn: &Turn,
        prefix: &[u8],
        scope: &Scope,
        touched: bool,
    ) -> Result<Option<Vec<(Path, Row)>>, StoreError> {
        let from = component_start(prefix, Component::Register as u8);
        let (mut mask, mut count, mut bytes, mut damaged) = (Mask::default(), 0, 0, None);
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        turn.scan(Space::Rows, &from, &after_components(prefix), &mut |at, value| {
            count += 1;
            bytes += at.len() + value.len();
            let Some((_, _, _, path)) = parse_row_key(at) else {
                damaged = Some(corrupt("a row key"));
                return false;
            };
            mask.add(path.component);
            // What is not of the scope is read to be held, as long as all of it may be.
            if bytes <= SMALL_BYTES {
                all.push((path.clone(), value.to_vec()));
            }
            if scope.covers(&path) {
                match decode::<Row>(value, "a row") {
                    Ok(row) => rows.push((path, row)),
                    Err(error) => damaged = Some(error),
                }
            }
            damaged.is_none() && count <= SMALL_ROWS
        })?;
        if let Some(error) = damaged {
            return Err(error);
        }
        if count > SMALL_ROWS {
            return Ok(None);
        }
        rows.sort_by(|(one, _), (two, _)| one.cmp(two));
        let held = match bytes {
            _ if touched => Held::Nothing,
            0..=SMALL_BYTES => {
                all.sort_by(|(one, _), (two, _)| one.cmp(two));
                let piece = |(path, row)| piece(path, row);
                Held::All(Packed::new(all.iter().map(|(path, row)| (path, &row[..])).map(piece)))
            }
            _ => Held::TooMuch,
        };
        self.objects.remember(prefix, mask, held);
        scope.cut(&mut rows);
        Ok(Some(rows))
    }

    fn deadlines(&self, turn: &Turn, prefix: &[u8], mask: Mask, rows: &mut Vec<(Path, Row)>) -> Result<(), StoreError> {
        if mask.has_any(&[Component::Deadline]) {
            range(turn, prefix, Component::Deadline, Component::Deadline, rows)?;
        }
        Ok(())
    }
}

fn piece<'a>(path: &'a Path, row: &'a [u8]) -> Piece<'a> {
    Piece { component: path.component, member: &path.member, row }
}

fn path_of(piece: &Piece) -> Path {
    Path::new(piece.component, Bytes::copy_from_slice(piece.member))
}

fn unpack(packed: &Packed, scope: &Scope) -> Result<Vec<(Path, Row)>, StoreError> {
    let paths = packed.pieces().map(|piece| (path_of(&piece), piece.row));
    paths.filter(|(path, _)| scope.covers(path)).map(|(path, row)| Ok((path, decode(row, "a row")?))).collect()
}

fn point(turn: &Turn, prefix: &[u8], path: Path, rows: &mut Vec<(Path, Row)>) -> Result<(), StoreError> {
    if let Some(row) = get_row(turn, &row_key(prefix, &path))? {
        rows.push((path, row));
    }
    Ok(())
}

fn range(
    turn: &Turn,
    prefix: &[u8],
    first: Component,
    last: Component,
    rows: &mut Vec<(Path, Row)>,
) -> Result<(), StoreError> {
    collect(turn, &component_start(prefix, first as u8), &component_start(prefix, last as u8 + 1), usize::MAX, rows)
}

/// The rows of one component at the first places from `from` on, with at most one more behind them.
fn page(
    turn: &Turn,
    prefix: &[u8],
    component: Component,
    (from, upto): (u64, Option<u64>),
    limit: u32,
    rows: &mut Vec<(Path, Row)>,
) -> Result<(), StoreError> {
    let at = |place| Some([&component_start(prefix, component as u8)[..], &place_start(place)?].concat());
    let Some(start) = at(from) else { return Ok(()) };
    let end = upto.and_then(at).unwrap_or_else(|| component_start(prefix, component as u8 + 1));
    let (mut places, mut bytes, mut last) = (0, 0, None);
    collect_while(turn, &start, &end, rows, |path, row| {
        let place = path.place();
        if last != place {
            if places >= limit || bytes >= PAGE_BYTES {
                return false;
            }
            places += 1;
            last = place;
        }
        bytes += row_bytes(path, row);
        true
    })
}

fn collect(turn: &Turn, from: &[u8], to: &[u8], limit: usize, rows: &mut Vec<(Path, Row)>) -> Result<(), StoreError> {
    let mut left = limit;
    collect_while(turn, from, to, rows, |_, _| {
        left -= 1;
        left > 0
    })
}

/// Rows in order, to the first of which it is not true, with that.
fn collect_while(
    turn: &Turn,
    from: &[u8],
    to: &[u8],
    rows: &mut Vec<(Path, Row)>,
    mut goes_on: impl FnMut(&Path, &Row) -> bool,
) -> Result<(), StoreError> {
    let mut damaged = None;
    turn.scan(Space::Rows, from, to, &mut |key, value| match (parse_row_key(key), decode::<Row>(value, "a row")) {
        (Some((_, _, _, path)), Ok(row)) => {
            let more = goes_on(&path, &row);
            rows.push((path, row));
            more
        }
        (None, _) => {
            damaged = Some(corrupt("a row key"));
            false
        }
        (_, Err(error)) => {
            damaged = Some(error);
            false
        }
    })?;
    match damaged {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::objects::Objects;
    use super::super::packed::digest;
    use super::*;
    use crate::data::id::{Dot, Incarnation, OpId};
    use crate::data::path::PLACES;
    use crate::data::row::{Birth, Life};
    use crate::storage::{MemoryStore, Storage};
    use crate::wire::codec;
    use crate::wire::message::Collection;

    fn path() -> impl Strategy<Value = Path> {
        let name = || proptest::sample::select(vec!["a", "b", "bb", "c"]);
        let field = || proptest::option::of(name());
        let life = || (0..2_u64).prop_map(Life);
        prop_oneof![
            3 => Just(Path::new(Component::Register, "")),
            1 => life().prop_map(Path::deadline),
            1 => (field(), life(), 0..2_u64)
                .prop_map(|(field, life, by)| Path::tally(field.map(str::as_bytes), life, Incarnation(by))),
            1 => (field(), life(), 0..2_u64)
                .prop_map(|(field, life, at)| Path::retry(field.map(str::as_bytes), life, OpId::new(at, [0; 10]))),
            1 => Just(Path::new(Component::Flag, "")),
            1 => "[ab]".prop_map(|member| Path::new(Component::Sibling, member)),
            1 => name().prop_map(|name| Path::new(Component::Field, name)),
            2 => "[a-e]{1,2}".prop_map(|name| Path::new(Component::Member, name)),
        ]
    }

    /// Any row will do: what is read is not looked at. Some are large.
    fn row() -> impl Strategy<Value = Row> {
        prop_oneof![5 => Just(0), 1 => Just(400)].prop_map(|removes| {
            let dot = |counter| Dot { incarnation: Incarnation(1 << 40), counter };
            let removes = (0..removes).map(|number| dot(1 << 40 | number)).collect();
            Row::Births(vec![Birth { dot: dot(1), life: Life(0), removes }])
        })
    }

    fn scopes() -> Vec<Scope> {
        let names = || ["a", "bb", "z"].map(|name| Bytes::from_static(name.as_bytes())).to_vec();
        let place = |component, name: &'static str| Path::new(component, name).place().expect("a place");
        let page = |of, from, upto, limit| Scope::Page { of, from, upto, limit };
        let (b, bb) = (place(Component::Member, "b"), place(Component::Field, "bb"));
        vec![
            page(Collection::Members, 0, None, 10_000),
            page(Collection::Members, 0, None, 1),
            page(Collection::Members, b, None, 3),
            page(Collection::Members, b + 1, Some(PLACES - 1), 2),
            page(Collection::Members, PLACES, None, 2),
            page(Collection::Fields, 0, None, 10_000),
            page(Collection::Fields, 0, Some(bb), 2),
            page(Collection::Fields, bb, None, 1),
            Scope::Text,
            Scope::Flag,
            Scope::Siblings,
            Scope::Fields(names()),
            Scope::AllFields,
            Scope::Members(names()),
            Scope::AllMembers,
            Scope::Glance,
            Scope::Everything,
        ]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, Path, Row),
        Delete(usize, Path),
        /// All that the first key's partition holds.
        Forget,
        Look,
        /// The turn ends and is committed.
        Commit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..3_usize, path(), row()).prop_map(|(key, path, row)| Step::Put(key, path, row)),
            4 => (0..3_usize, path()).prop_map(|(key, path)| Step::Delete(key, path)),
            1 => Just(Step::Forget),
            3 => Just(Step::Look),
            3 => Just(Step::Commit),
        ]
    }

    proptest! {
        /// The law: a scope is read alike, whether its object is remembered, in part remembered or forgotten, before a change, amid the
        /// turn that makes it and after that has been committed. A row that one replica counted to the scope and another did not would
        /// be taken for removed there.
        #[test]
        fn a_scope_is_read_alike_in_every_way(
            steps in proptest::collection::vec(step(), 1..60),
            scopes in Just(scopes()).prop_shuffle(),
            objects_bytes in proptest::sample::select(vec![0, 2 << 10, 1 << 20]),
        ) {
            let keys = ["one", "two", "three"].map(Key::new);
            let store = MemoryStore::new();
            let mut replica = Replica::new(Incarnation(1), 4, Objects::new(objects_bytes, 7));
            let prefixes = keys.clone().map(|key| key_prefix(replica.partition_of(&key), &key));
            let forgotten = replica.partition_of(&keys[0]);
            let mut models = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
            let mut turn = Turn::new(&store as &dyn Storage);
            for step in steps.into_iter().chain([Step::Look, Step::Commit, Step::Look, Step::Look]) {
                match step {
                    Step::Put(key, path, row) => {
                        replica.objects.saw(&prefixes[key], path.component);
                        turn.put(Space::Rows, row_key(&prefixes[key], &path), codec::encode(&row));
                        models[key].insert(path, row);
                    }
                    Step::Delete(key, path) => {
                        turn.delete(Space::Rows, row_key(&prefixes[key], &path));
                        models[key].remove(&path);
                    }
                    Step::Forget => {
                        replica.state(&turn, forgotten).unwrap();
                        replica.forget_partition(&mut turn, forgotten).unwrap();
                        for (key, model) in keys.iter().zip(&mut models) {
                            if replica.partition_of(key) == forgotten {
                                model.clear();
                            }
                        }
                    }
                    Step::Look => {
                        for (key, model) in keys.iter().zip(&models) {
                            for scope in &scopes {
                                let wanted = model.iter().filter(|(path, _)| scope.covers(path));
                                let mut wanted: Vec<_> =
                                    wanted.map(|(path, row)| (path.clone(), row.clone())).collect();
                                scope.cut(&mut wanted);
                                prop_assert_eq!(&replica.read(&turn, key, scope).unwrap(), &wanted, "{:?}", scope);
                                if let Some(held) = replica.held_digest(&turn, key, scope) {
                                    prop_assert_eq!(held, digest(&wanted.into_iter().collect()), "{:?}", scope);
                                }
                                let mask = replica.mask(&turn, key).unwrap();
                                prop_assert!(model.keys().all(|path| mask.has_any(&[path.component])));
                            }
                        }
                    }
                    Step::Commit => {
                        replica.finish(&mut turn);
                        store.commit(&turn.take_batch(), false).unwrap();
                    }
                }
            }
        }
    }
}
