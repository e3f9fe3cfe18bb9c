//! What an operation does to what was gathered: pure, for every type. Out come mutations and the answer.
//!
//! A removal removes just what was gathered. An addition supersedes what it saw of its own row. Whatever nothing visible precedes
//! starts a new life when the old one has a deadline (rule 23: a deadline belongs to a life of the value).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::data::decimal::Decimal;
use crate::data::id::{Dot, OpId, mix64};
use crate::data::mutation::{Basis, Delta, Effect, Entry, Mutation, context_token, parse_context_token};
use crate::data::object::Object;
use crate::data::op::{Condition, DeadlineCondition, Key, Kind, Op, Reply, RequestError, SetExpiry};
use crate::data::path::{Component, PLACES, Path, place_order};
use crate::data::row::{Life, Put, Row, tally_is_live};
use crate::node::planted::Planted;
use crate::node::replica::Mint;
use crate::wire::message::{Collection, PAGE_PLACES, Scope};

/// Rows that one removal names at most; a larger collection is removed by several mutations.
const REMOVALS_MAX: usize = 4096;

/// The life that what strays should have joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joins {
    Life(Life),
    /// One of its own.
    New,
}

/// Everything a plan is made from.
pub struct Facts<'a> {
    pub key: &'a Key,
    /// The rows of [`scope`], merged.
    pub object: &'a Object,
    /// What this coordinator holds of the key's other components (all of it for `Set` and `Delete`, else a glance).
    pub others: &'a Object,
    /// Of what is visible at the coordinator, named or not, that which ends last, when nothing named is visible; only known of keys that have
    /// deadlines.
    pub beside: Option<&'a Entry>,
    /// Where an owner that knows more of the key says that it belongs.
    pub joins: Option<Joins>,
    pub wall_ms: u64,
    pub siblings_max: u64,
    pub op_id: Option<OpId>,
    /// The operation id was never sent before.
    pub fresh: bool,
    /// This coordinator holds all that it has ever counted here, and may count on.
    pub counts_on: bool,
    /// See [`Planted`].
    pub planted: Planted,
}

/// How much of a set is looked at for members picked at random. Most sets are small, and of a large one some stretch will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Its beginning, which may be all of it.
    Beginning,
    /// Where the dice fell.
    Somewhere,
    /// From there it goes round to the beginning, where so many places are still to be looked at.
    Around {
        places: u32,
    },
    Whole,
}

/// Members are picked from so many places at least, so that the gaps between them matter little: the wider the gap before a stretch, the
/// likelier it is looked at.
const PICK_PLACES: u32 = 64;

/// Where to look next, when a pick has seen so much: `None` when it is enough. What was seen before is kept when it goes round.
pub fn further(op: &Op, reach: Reach, object: &Object, next: Option<u64>, wall_ms: u64) -> Option<Reach> {
    let Op::SetPick { count, .. } = op else { return None };
    let is_enough = || object.members(wall_ms).count() >= *count as usize;
    match reach {
        Reach::Beginning => next.map(|_| Reach::Somewhere),
        Reach::Somewhere if next.is_none() => {
            let places: BTreeSet<u64> = object.rows.keys().filter_map(Path::place).collect();
            // Each owner may have reached the end with other rows; one place at least is looked at.
            let places = pick_places(*count).saturating_sub(u32::try_from(places.len()).unwrap_or(u32::MAX)).max(1);
            Some(Reach::Around { places })
        }
        Reach::Somewhere | Reach::Around { .. } => (!is_enough()).then_some(Reach::Whole),
        Reach::Whole => None,
    }
}

fn pick_places(count: u32) -> u32 {
    (count * 2).max(PICK_PLACES)
}

/// Which rows an operation must see.
pub fn scope(op: &Op, reach: Reach) -> Scope {
    match op {
        Op::SetPick { count, seed, .. } if reach != Reach::Whole && *count <= PAGE_PLACES / 2 => {
            let somewhere = mix64(*seed) % PLACES;
            match reach {
                Reach::Somewhere => page(Collection::Members, somewhere, pick_places(*count)),
                Reach::Around { places } => {
                    let mut scope = page(Collection::Members, 0, places);
                    scope.up_to(Some(somewhere));
                    scope
                }
                _ => page(Collection::Members, 0, pick_places(*count)),
            }
        }
        Op::Kind | Op::Exists | Op::Deadline | Op::SetDeadline { .. } => Scope::Glance,
        Op::Delete => Scope::Everything,
        Op::Get | Op::Set { .. } | Op::GetDelete | Op::GetExpire { .. } | Op::Append { .. } | Op::Increment { .. } => {
            Scope::Text
        }
        Op::SetAdd { members } | Op::SetRemove { members } | Op::SetContains { members } => {
            Scope::Members(members.clone())
        }
        Op::SetMembers | Op::SetLength | Op::SetPick { .. } => Scope::AllMembers,
        Op::SetPage { from, limit } => page(Collection::Members, *from, *limit),
        Op::HashPage { from, limit } => page(Collection::Fields, *from, *limit),
        Op::HashSet { fields, .. } => Scope::Fields(fields.iter().map(|(field, _)| field.clone()).collect()),
        Op::HashGet { fields } | Op::HashRemove { fields } => Scope::Fields(fields.clone()),
        Op::HashIncrement { field, .. } => Scope::Fields(vec![field.clone()]),
        Op::HashAll | Op::HashLength => Scope::AllFields,
        Op::SiblingsGet | Op::SiblingsPut { .. } => Scope::Siblings,
        Op::FlagGet | Op::FlagSet { .. } => Scope::Flag,
    }
}

fn page(of: Collection, from: u64, limit: u32) -> Scope {
    Scope::Page { of, from, upto: None, limit: limit.clamp(1, PAGE_PLACES) }
}

/// Must a mutation first see what a read level of replicas hold? True for whatever judges or removes; an addition or an overwrite
/// is right on what its coordinator has.
pub fn gathers(op: &Op) -> bool {
    match op {
        Op::Set { expiry, condition, old, .. } => *condition != Condition::Always || *old || *expiry == SetExpiry::Keep,
        Op::HashSet { absent_only, .. } => *absent_only,
        Op::Delete
        | Op::SetDeadline { .. }
        | Op::GetDelete
        | Op::GetExpire { .. }
        | Op::Append { .. }
        | Op::SetRemove { .. }
        | Op::SetPick { remove: true, .. }
        | Op::HashRemove { .. }
        | Op::FlagSet { on: false } => true,
        _ => false,
    }
}

/// Does it write the same whatever string was there before?
pub fn is_blind(op: &Op) -> bool {
    matches!(op, Op::Set { .. }) && !gathers(op)
}

/// Is one coordinator for all of a key's requests of this kind worth a hop? What judges first then judges in turn.
pub fn prefers_first_owner(op: &Op) -> bool {
    gathers(op) && !matches!(op, Op::Delete | Op::SetRemove { .. } | Op::HashRemove { .. } | Op::FlagSet { .. })
}

/// The components that an operation is about; `None`: all of them.
pub fn own_components(op: &Op) -> Option<&'static [Component]> {
    match op {
        Op::Kind | Op::Exists | Op::Deadline | Op::SetDeadline { .. } | Op::Delete => None,
        Op::Get | Op::Set { .. } | Op::GetDelete | Op::GetExpire { .. } | Op::Append { .. } | Op::Increment { .. } => {
            Some(&[Component::Register, Component::Counter, Component::Retry])
        }
        Op::SetAdd { .. }
        | Op::SetRemove { .. }
        | Op::SetMembers
        | Op::SetPage { .. }
        | Op::SetContains { .. }
        | Op::SetLength
        | Op::SetPick { .. } => Some(&[Component::Member]),
        Op::HashSet { .. }
        | Op::HashGet { .. }
        | Op::HashAll
        | Op::HashPage { .. }
        | Op::HashRemove { .. }
        | Op::HashLength
        | Op::HashIncrement { .. } => Some(&[Component::Field, Component::FieldCounter, Component::FieldRetry]),
        Op::SiblingsGet | Op::SiblingsPut { .. } => Some(&[Component::Sibling]),
        Op::FlagGet | Op::FlagSet { .. } => Some(&[Component::Flag]),
    }
}

/// Refuses an operation on a key that visibly holds something else and nothing of its own. `mine`: something of its own is visible
/// at the coordinator.
pub fn check_kind(op: &Op, mine: bool, others: &Object, wall_ms: u64) -> Result<(), RequestError> {
    let Some(own) = own_components(op) else { return Ok(()) };
    // A walk that has begun goes on, whatever was written beside it.
    let under_way = matches!(op, Op::SetPage { from: 1.., .. } | Op::HashPage { from: 1.., .. });
    if mine || under_way || matches!(op, Op::Set { old: false, .. }) {
        return Ok(());
    }
    let foreign = others
        .rows
        .iter()
        .any(|(path, row)| !own.contains(&path.component) && others.path_is_visible(path, row, wall_ms));
    if foreign { Err(RequestError::WrongType) } else { Ok(()) }
}

/// Answers a read. `next`: where to go on, of a page.
pub fn answer(op: &Op, key: &Key, object: &Object, next: Option<u64>, wall_ms: u64) -> Reply {
    match op {
        Op::Kind => Reply::Kind(kind(object, wall_ms)),
        Op::Exists => Reply::Bool(object.is_visible(wall_ms)),
        Op::Deadline => Reply::Deadline(object.is_visible(wall_ms).then(|| deadline(object, wall_ms))),
        Op::Get => Reply::Value(object.text(None, wall_ms)),
        Op::SetMembers => Reply::Members(object.members(wall_ms).cloned().collect()),
        Op::SetPage { .. } => {
            let mut members: Vec<Bytes> = object.members(wall_ms).cloned().collect();
            members.sort_by_cached_key(|member| place_order(member));
            Reply::MemberPage { members, next }
        }
        Op::SetContains { members } => {
            Reply::Bools(members.iter().map(|member| object.has_member(member, wall_ms)).collect())
        }
        Op::SetLength => Reply::Integer(object.members(wall_ms).count() as i64),
        Op::SetPick { count, repeat, seed, .. } => {
            Reply::Members(pick(object.members(wall_ms).cloned().collect(), *count, *repeat, *seed))
        }
        Op::HashGet { fields } => Reply::Values(fields.iter().map(|field| object.text(Some(field), wall_ms)).collect()),
        Op::HashAll => Reply::Pairs(object.fields(wall_ms)),
        Op::HashPage { .. } => {
            let mut pairs = object.fields(wall_ms);
            pairs.sort_by_cached_key(|(field, _)| place_order(field));
            Reply::PairPage { pairs, next }
        }
        Op::HashLength => Reply::Integer(object.fields(wall_ms).len() as i64),
        Op::SiblingsGet => siblings(key, object, wall_ms),
        Op::FlagGet => Reply::Bool(object.flag(wall_ms)),
        _ => unreachable!("a mutation is planned, not answered"),
    }
}

/// Plans a mutation: what it does and what it is answered. No mutations: nothing needs doing.
pub fn plan(op: &Op, facts: &Facts, mint: &mut Mint) -> Result<(Vec<Mutation>, Reply), RequestError> {
    let Facts { object, wall_ms, .. } = *facts;
    let mut out = Mutations { mint, list: Vec::new() };
    let reply = match op {
        Op::Delete => {
            let was = object.is_visible(wall_ms);
            out.remove_all(object, None);
            Reply::Bool(was)
        }
        Op::SetDeadline { at_ms, condition } => {
            Reply::Bool(object.is_visible(wall_ms) && set_deadline(&mut out, facts, *at_ms, *condition))
        }
        Op::Set { value, expiry, condition, old } => {
            let former = object.text(None, wall_ms);
            let holds = match condition {
                Condition::Always => true,
                Condition::Absent => former.is_none() && !facts.others.is_visible(wall_ms),
                Condition::Present => former.is_some() || facts.others.is_visible(wall_ms),
            };
            if holds {
                set(&mut out, facts, value.clone(), *expiry);
            }
            if *old { Reply::Old { written: holds, value: former } } else { Reply::Bool(holds) }
        }
        Op::GetDelete => {
            let former = object.text(None, wall_ms);
            if former.is_some() {
                out.remove_all(object, None);
            }
            Reply::Value(former)
        }
        Op::GetExpire { at_ms } => {
            let former = object.text(None, wall_ms);
            if let (Some(_), Some(at_ms)) = (&former, at_ms) {
                set_deadline(&mut out, facts, *at_ms, DeadlineCondition::Always);
            }
            Reply::Value(former)
        }
        Op::Append { value } => {
            let mut text = object.text(None, wall_ms).map(|text| text.to_vec()).unwrap_or_default();
            text.extend_from_slice(value);
            let length = text.len() as i64;
            set(&mut out, facts, text.into(), SetExpiry::Keep);
            Reply::Integer(length)
        }
        Op::Increment { by, integer } => increment(&mut out, facts, None, *by, *integer)?,
        Op::HashIncrement { field, by, integer } => increment(&mut out, facts, Some(field), *by, *integer)?,
        Op::SetAdd { members } => {
            let life = collection_life(&mut out, facts);
            let mut added = 0;
            for member in distinct(members) {
                added += i64::from(!object.has_member(member, wall_ms));
                out.put(Path::new(Component::Member, member.clone()), object, Put::Birth { life });
            }
            Reply::Integer(added)
        }
        Op::SetRemove { members } => {
            let gone: Vec<&Bytes> = distinct(members).collect();
            let count = gone.iter().filter(|member| object.has_member(member, wall_ms)).count();
            let paths = gone.into_iter().map(|member| Path::new(Component::Member, member.clone()));
            out.remove(paths.collect(), object);
            Reply::Integer(count as i64)
        }
        Op::SetPick { count, repeat, remove: _, seed } => {
            let picked = pick(object.members(wall_ms).cloned().collect(), *count, *repeat, *seed);
            let paths = picked.iter().map(|member| Path::new(Component::Member, member.clone()));
            out.remove(paths.collect(), object);
            Reply::Members(picked)
        }
        Op::HashSet { fields, absent_only } => hash_set(&mut out, facts, fields, *absent_only),
        Op::HashRemove { fields } => {
            let gone: Vec<&Bytes> = distinct(fields).collect();
            let count = gone.iter().filter(|field| object.text(Some(field), wall_ms).is_some()).count();
            for field in gone {
                out.remove_all(object, Some(field));
            }
            Reply::Integer(count as i64)
        }
        Op::SiblingsPut { value, context } => {
            let replaced = match context {
                None => Vec::new(),
                Some(token) => parse_context_token(facts.key, token).ok_or(RequestError::BadContext)?,
            };
            siblings_put(&mut out, facts, value, replaced)?
        }
        Op::FlagSet { on } => {
            let was = object.flag(wall_ms);
            let path = Path::new(Component::Flag, Bytes::new());
            if *on {
                let life = collection_life(&mut out, facts);
                out.put(path, object, Put::Birth { life });
            } else {
                out.remove(vec![path], object);
            }
            Reply::Bool(was)
        }
        read => answer(read, facts.key, object, None, wall_ms),
    };
    Ok((out.list, reply))
}

struct Mutations<'a> {
    mint: &'a mut Mint,
    list: Vec<Mutation>,
}

impl Mutations<'_> {
    fn push(&mut self, effects: Vec<Effect>) -> Dot {
        let dot = self.mint.dot();
        self.list.push(Mutation { dot, effects });
        dot
    }

    /// Puts an entry that supersedes what is known of its row.
    fn put(&mut self, path: Path, object: &Object, put: Put) {
        let removes = match path.component {
            // The stamp decides: naming what is overwritten would only cost a read at every replica.
            Component::Register | Component::Deadline => Vec::new(),
            _ => object.rows.get(&path).map(Row::removable).unwrap_or_default(),
        };
        self.push(vec![Effect { path, removes, put: Some(put) }]);
    }

    /// Removes what is known of these rows, by name.
    fn remove(&mut self, paths: Vec<Path>, object: &Object) {
        let effects = paths
            .into_iter()
            .filter_map(|path| {
                let removes = object.rows.get(&path)?.removable();
                (!removes.is_empty()).then_some(Effect { path, removes, put: None })
            })
            .collect();
        self.chunked(effects);
    }

    /// One dot each: what is put is told by its dot wherever it stands, without the rest of a mutation.
    fn floors(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.push(vec![effect]);
        }
    }

    /// Removals, many to a dot.
    fn chunked(&mut self, mut effects: Vec<Effect>) {
        while effects.len() > REMOVALS_MAX {
            let rest = effects.split_off(REMOVALS_MAX);
            self.push(std::mem::replace(&mut effects, rest));
        }
        if !effects.is_empty() {
            self.push(effects);
        }
    }

    /// Removes everything known: members, siblings, fields and flags by name, counters by a floor, the register by an empty write.
    /// `field`: only that field.
    fn remove_all(&mut self, object: &Object, field: Option<&Bytes>) {
        let (mut effects, mut floors) = (Vec::new(), Vec::new());
        let mut register = false;
        for (path, row) in &object.rows {
            if field.is_some() && path.field().as_ref() != field {
                continue;
            }
            match row {
                Row::Register(held) if path.component == Component::Register => register = held.payload.is_some(),
                Row::Deadline(_) => {}
                Row::Counter { .. } | Row::Retried(_) => floors.extend(floor(path, row)),
                named => {
                    effects.push(Effect { path: path.clone(), removes: named.removable(), put: None });
                }
            }
        }
        self.chunked(effects);
        self.floors(floors);
        if register {
            let stamp = self.mint.stamp;
            let put = Put::Register { stamp, life: Life(0), deadline_ms: None, payload: None };
            self.put(Path::new(Component::Register, Bytes::new()), object, put);
        }
    }

    /// A life that nobody else can have started.
    fn new_life(&self) -> Life {
        Life(mix64(self.mint.stamp.hlc.0 ^ self.mint.incarnation.0.rotate_left(32)) | 1)
    }
}

/// What takes a counter row out of the sum.
pub fn floor(path: &Path, row: &Row) -> Option<Effect> {
    let put = match row {
        Row::Counter { tally: Some(tally), floor } if tally_is_live(&Some(*tally), floor) => {
            Put::Floor { upto: tally.dot.counter, total: tally.total }
        }
        Row::Retried(retried) if !retried.removed => Put::RetriedRemoved { amount: retried.amount },
        _ => return None,
    };
    Some(Effect { path: path.clone(), removes: Vec::new(), put: Some(put) })
}

fn set(out: &mut Mutations, facts: &Facts, value: Bytes, expiry: SetExpiry) {
    let Facts { object, wall_ms, .. } = *facts;
    let register = object.register(None, wall_ms);
    let counted = object.tallies(None, wall_ms).next().and_then(|(path, ..)| path.life());
    let kept = match register {
        Some(register) => Some((register.life, register.deadline_ms)),
        None => counted.map(|life| (life, object.deadline_of(life, None).filter(|_| life != Life(0)))),
    };
    let (life, deadline_ms) = match (expiry, kept) {
        (SetExpiry::Keep, Some(kept)) => kept,
        (SetExpiry::At(at_ms), _) => (out.new_life(), Some(at_ms)),
        // What it replaces was of another kind.
        (SetExpiry::Keep, None) if let Some(at_ms) = deadline(facts.others, wall_ms) => (out.new_life(), Some(at_ms)),
        // Life 0 is for values that never had a deadline: once it has one, a value without starts anew.
        _ if facts.joins.is_some() || object.rows.contains_key(&Path::deadline(Life(0))) => (out.new_life(), None),
        _ => (Life(0), None),
    };
    let stamp = out.mint.stamp;
    let put = Put::Register { stamp, life, deadline_ms, payload: Some(value) };
    out.put(Path::new(Component::Register, Bytes::new()), object, put);
    let floors = [Component::Counter, Component::Retry]
        .into_iter()
        .flat_map(|component| object.of(component))
        .filter_map(|(path, row)| floor(path, row))
        .collect();
    out.floors(floors);
    let mut others = facts.others.clone();
    others.rows.retain(|path, _| {
        !matches!(path.component, Component::Register | Component::Counter | Component::Retry | Component::Deadline)
    });
    out.remove_all(&others, None);
}

/// The life that an addition to a collection joins: that of what is there, so that it ends with it. Any other that has not ended may be
/// that of a value deleted before its deadline. Starting one is itself written down, so that it can be given a deadline later.
fn collection_life(out: &mut Mutations, facts: &Facts) -> Life {
    let Facts { object, joins, .. } = *facts;
    match joins {
        Some(Joins::Life(life)) => return life,
        Some(Joins::New) => return new_collection_life(out, object),
        None if object.deadlines().next().is_none() => return Life(0),
        None => {}
    }
    let endless = || object.endless_life().filter(|_| !object.will_end(facts.wall_ms));
    match beside(facts).map(|entry| entry.life).or_else(endless) {
        Some(life) => life,
        None => new_collection_life(out, object),
    }
}

/// What an addition stands beside.
pub fn beside(facts: &Facts) -> Option<Entry> {
    let Facts { object, wall_ms, .. } = *facts;
    let elsewhere = || facts.beside.filter(|entry| object.is_alive(entry.life, None, wall_ms)).cloned();
    object.last_visible(wall_ms).or_else(elsewhere)
}

/// What a delta goes by that was made of these facts.
pub fn basis(facts: &Facts, delta: &Delta) -> Basis {
    let object = facts.object;
    let stamp_of = |life| match object.rows.get(&Path::deadline(life)) {
        Some(Row::Deadline(deadline)) => Some(deadline.stamp),
        _ => None,
    };
    let beside = || beside(facts).filter(|entry| object.deadline_of(entry.life, None).is_some());
    let Some(life) = delta.life().filter(|_| object.deadlines().next().is_some()) else { return Basis::default() };
    Basis { deadline: stamp_of(life), beside: beside().filter(|entry| entry.life == life).map(Box::new) }
}

fn new_collection_life(out: &mut Mutations, object: &Object) -> Life {
    let life = out.new_life();
    let stamp = out.mint.stamp;
    out.put(Path::deadline(life), object, Put::Deadline { stamp, at_ms: None });
    life
}

fn increment(
    out: &mut Mutations,
    facts: &Facts,
    field: Option<&Bytes>,
    by: Decimal,
    integer: bool,
) -> Result<Reply, RequestError> {
    let Facts { object, wall_ms, .. } = *facts;
    let field = field.map(|field| &field[..]);
    let now = object.number(field, integer, wall_ms).map_err(|_| match (field, integer) {
        (None, true) => RequestError::NotInteger,
        (None, false) => RequestError::NotFloat,
        (Some(_), true) => RequestError::HashNotInteger,
        (Some(_), false) => RequestError::HashNotFloat,
    })?;
    let sum = now.checked_add(by).ok_or(RequestError::Overflow)?;
    if integer && sum.to_integer().is_none() {
        return Err(RequestError::Overflow);
    }
    let counted = || object.tallies(field, wall_ms).next().and_then(|(path, ..)| path.life());
    let stands = object.register(field, wall_ms).map(|register| register.life).or_else(counted);
    let life = match stands.filter(|_| facts.joins.is_none()) {
        Some(life) => life,
        None => collection_life(out, facts),
    };
    // A stand-in has handed over what it counted before: were it to begin a new total, that would take the place of the earlier one.
    let apart = (!facts.counts_on && facts.planted != Planted::StandInsCountAnew).then(|| out.mint.op_id(wall_ms));
    match facts.op_id.filter(|_| !facts.fresh || apart.is_some()).or(apart) {
        Some(op_id) => {
            let path = Path::retry(field, life, op_id);
            out.push(vec![Effect { path, removes: Vec::new(), put: Some(Put::Retried { amount: by }) }]);
        }
        None => {
            let path = Path::tally(field, life, out.mint.incarnation);
            // What a floor has taken away whole is not counted on: a replica may have dropped both.
            let held = match object.rows.get(&path) {
                Some(Row::Counter { tally, floor }) => {
                    tally.filter(|_| tally_is_live(tally, floor) || facts.planted == Planted::FloorsCountedOn)
                }
                _ => None,
            };
            let dot = out.mint.dot();
            let put = match held {
                Some(tally) => Put::Tally { run: tally.run, total: tally.total.saturating_add(by) },
                None => Put::Tally { run: dot.counter - 1, total: by },
            };
            let effect = Effect { path, removes: Vec::new(), put: Some(put) };
            out.list.push(Mutation { dot, effects: vec![effect] });
        }
    }
    Ok(if integer { Reply::Integer(sum.to_integer().expect("checked above")) } else { Reply::Decimal(sum) })
}

fn hash_set(out: &mut Mutations, facts: &Facts, fields: &[(Bytes, Bytes)], absent_only: bool) -> Reply {
    let Facts { object, wall_ms, .. } = *facts;
    let life = collection_life(out, facts);
    let mut added = 0;
    // The last of several values for one field is the one that counts.
    let last: BTreeMap<&Bytes, &Bytes> = fields.iter().map(|(field, value)| (field, value)).collect();
    for (field, value) in last {
        let known = object.text(Some(field), wall_ms).is_some();
        if absent_only && known {
            continue;
        }
        added += i64::from(!known);
        let stamp = out.mint.stamp;
        let put = Put::Field { stamp, life, payload: value.clone() };
        out.put(Path::new(Component::Field, field.clone()), object, put);
        let floors = object
            .rows
            .iter()
            .filter(|(path, _)| path.component != Component::Field && path.field().as_ref() == Some(field))
            .filter_map(|(path, row)| floor(path, row))
            .collect();
        out.floors(floors);
    }
    Reply::Integer(added)
}

fn siblings_put(out: &mut Mutations, facts: &Facts, value: &Bytes, replaced: Vec<Dot>) -> Result<Reply, RequestError> {
    let Facts { key, object, wall_ms, siblings_max, .. } = *facts;
    let kept: Vec<(Dot, Bytes)> =
        object.siblings(wall_ms).into_iter().filter(|(dot, _)| !replaced.contains(dot)).collect();
    let count = kept.len() as u64 + 1;
    if count > siblings_max {
        return Err(RequestError::TooManySiblings { count, limit: siblings_max });
    }
    let life = collection_life(out, facts);
    let dot = out.mint.dot();
    let put = Some(Put::Sibling { life, payload: value.clone() });
    // The new one first: whoever has only this yet sees a sibling too many, never one too few.
    out.list.push(Mutation { dot, effects: vec![Effect { path: sibling_path(dot), removes: Vec::new(), put }] });
    let effects =
        replaced.into_iter().map(|gone| Effect { path: sibling_path(gone), removes: vec![gone], put: None }).collect();
    out.chunked(effects);
    let mut after = kept;
    after.push((dot, value.clone()));
    after.sort_by_key(|(dot, _)| *dot);
    let dots: Vec<Dot> = after.iter().map(|(dot, _)| *dot).collect();
    Ok(Reply::Siblings {
        values: after.into_iter().map(|(_, value)| value).collect(),
        context: context_token(key, &dots),
    })
}

fn sibling_path(dot: Dot) -> Path {
    let mut member = Vec::with_capacity(16);
    member.extend_from_slice(&dot.incarnation.0.to_be_bytes());
    member.extend_from_slice(&dot.counter.to_be_bytes());
    Path::new(Component::Sibling, member)
}

fn siblings(key: &Key, object: &Object, wall_ms: u64) -> Reply {
    let siblings = object.siblings(wall_ms);
    let dots: Vec<Dot> = siblings.iter().map(|(dot, _)| *dot).collect();
    Reply::Siblings {
        values: siblings.into_iter().map(|(_, value)| value).collect(),
        context: context_token(key, &dots),
    }
}

/// What a repeated operation is told, when its effect is found in place.
pub fn repeated(op: &Op, key: &Key, object: &Object, wall_ms: u64) -> Reply {
    let number = |field: Option<&[u8]>, integer: bool| match object.number(field, integer, wall_ms) {
        Ok(sum) if integer => Reply::Integer(sum.to_integer().unwrap_or(i64::MAX)),
        Ok(sum) => Reply::Decimal(sum),
        Err(_) => Reply::Decimal(Decimal::ZERO),
    };
    match op {
        Op::Increment { integer, .. } => number(None, *integer),
        Op::HashIncrement { field, integer, .. } => number(Some(field), *integer),
        Op::Append { .. } => Reply::Integer(object.text(None, wall_ms).map_or(0, |text| text.len() as i64)),
        Op::SetAdd { .. } | Op::SetRemove { .. } | Op::HashSet { .. } | Op::HashRemove { .. } => Reply::Integer(0),
        Op::SetPick { .. } => Reply::Members(Vec::new()),
        Op::GetDelete | Op::GetExpire { .. } => Reply::Value(None),
        Op::Set { old: true, .. } => Reply::Old { written: true, value: None },
        Op::SiblingsPut { .. } => siblings(key, object, wall_ms),
        _ => Reply::Bool(true),
    }
}

fn set_deadline(out: &mut Mutations, facts: &Facts, at_ms: Option<u64>, condition: DeadlineCondition) -> bool {
    let Facts { object, wall_ms, .. } = *facts;
    let current = deadline(object, wall_ms);
    let holds = match condition {
        DeadlineCondition::Always => at_ms.is_some() || current.is_some(),
        DeadlineCondition::None => current.is_none(),
        DeadlineCondition::Some => current.is_some(),
        // No deadline counts as later than any.
        DeadlineCondition::Greater => current.is_some_and(|current| at_ms.is_some_and(|at_ms| at_ms > current)),
        DeadlineCondition::Less => current.is_none_or(|current| at_ms.is_some_and(|at_ms| at_ms < current)),
    };
    if holds {
        let stamp = out.mint.stamp;
        for life in lives(object, wall_ms) {
            out.put(Path::deadline(life), object, Put::Deadline { stamp, at_ms });
        }
    }
    holds
}

/// The lives that are visible now: the register's and the tallies', and of collections every life that may have members.
fn lives(object: &Object, wall_ms: u64) -> Vec<Life> {
    let mut lives: Vec<Life> = object.visible_entries(wall_ms).map(|entry| entry.life).collect();
    let alone = [Component::Register, Component::Counter, Component::Retry];
    let collection = object.visible_entries(wall_ms).any(|entry| !alone.contains(&entry.path.component));
    if collection {
        lives.push(Life(0));
        lives.extend(object.deadlines().map(|(life, _)| life));
    }
    lives.sort_unstable();
    lives.dedup();
    lives.retain(|life| object.is_alive(*life, None, wall_ms));
    lives
}

/// When the key ends: the latest deadline of what is visible, `None` when some of it never does.
fn deadline(object: &Object, wall_ms: u64) -> Option<u64> {
    let mut latest = None;
    let is_visible = |life| object.visible_entries(wall_ms).any(|entry| entry.life == life);
    for life in lives(object, wall_ms) {
        match object.deadline_of(life, None) {
            // A life of a collection may have no members left, or never had any: life 0 most of all.
            None if object.deadlines().next().is_some() && !is_visible(life) => {}
            None => return None,
            Some(at_ms) => latest = latest.max(Some(at_ms)),
        }
    }
    latest
}

pub fn kind(object: &Object, wall_ms: u64) -> Option<Kind> {
    let visible: Vec<Component> = object
        .rows
        .iter()
        .filter(|(path, row)| object.path_is_visible(path, row, wall_ms))
        .map(|(path, _)| path.component)
        .collect();
    let has = |components: &[Component]| visible.iter().any(|component| components.contains(component));
    if has(&[Component::Register, Component::Counter, Component::Retry]) {
        Some(Kind::String)
    } else if has(&[Component::Member]) {
        Some(Kind::Set)
    } else if has(&[Component::Field, Component::FieldCounter, Component::FieldRetry]) {
        Some(Kind::Hash)
    } else if has(&[Component::Sibling]) {
        Some(Kind::Siblings)
    } else if has(&[Component::Flag]) {
        Some(Kind::Flag)
    } else {
        None
    }
}

/// The listed ones, each once, in the order of their first mention.
fn distinct(list: &[Bytes]) -> impl Iterator<Item = &Bytes> {
    let mut met = BTreeSet::new();
    list.iter().filter(move |one| met.insert(*one))
}

fn pick(mut from: Vec<Bytes>, count: u32, repeat: bool, seed: u64) -> Vec<Bytes> {
    let mut state = seed;
    let mut draw = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix64(state) % below as u64) as usize
    };
    if from.is_empty() {
        return from;
    }
    if repeat {
        return (0..count).map(|_| from[draw(from.len())].clone()).collect();
    }
    let take = from.len().min(count as usize);
    for at in 0..take {
        let other = at + draw(from.len() - at);
        from.swap(at, other);
    }
    from.truncate(take);
    from
}
