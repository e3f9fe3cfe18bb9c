//! What one key is, as a person thinks of it: one value at most, of one kind, with at most one deadline.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidewater::data::decimal::Decimal;
use tidewater::data::op::{Condition, DeadlineCondition, Kind, Op, Reply, RequestError, SetExpiry};

/// No deadline.
const NEVER: Option<u64> = None;

#[derive(Clone, PartialEq, Debug)]
enum Value {
    Text(Bytes),
    Set(BTreeSet<Bytes>),
    Hash(BTreeMap<Bytes, Bytes>),
    Siblings(Vec<Bytes>),
    Flag,
}

impl Value {
    fn kind(&self) -> Kind {
        match self {
            Value::Text(_) => Kind::String,
            Value::Set(_) => Kind::Set,
            Value::Hash(_) => Kind::Hash,
            Value::Siblings(_) => Kind::Siblings,
            Value::Flag => Kind::Flag,
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Value::Text(_) | Value::Flag => false,
            Value::Set(members) => members.is_empty(),
            Value::Hash(fields) => fields.is_empty(),
            Value::Siblings(values) => values.is_empty(),
        }
    }
}

pub type Told = Result<Reply, RequestError>;

#[derive(Default)]
pub struct Model {
    held: Option<(Value, Option<u64>)>,
    /// What the siblings were that the last answer told.
    told: Vec<Bytes>,
}

fn number(text: Option<&Bytes>, by: Decimal) -> Decimal {
    let before = text.map_or(Decimal::ZERO, |text| Decimal::parse(text).expect("only numbers are written"));
    before.checked_add(by).expect("small numbers")
}

impl Model {
    /// Does the operation, and judges what was answered: that it is right, and for a pick that it may be.
    /// Else gives what it should have been.
    pub fn judge(&mut self, op: &Op, wall_ms: u64, told: &Told) -> Result<(), (Told, String)> {
        if self.held.as_ref().is_some_and(|(_, at_ms)| at_ms.is_some_and(|at_ms| at_ms <= wall_ms)) {
            self.held = None;
        }
        let expected = self.done(op, told.as_ref().ok());
        if self.held.as_ref().is_some_and(|(value, _)| value.is_nothing()) {
            self.held = None;
        }
        let sorted = |told: &Told| match told.clone() {
            Ok(Reply::Siblings { mut values, context }) => {
                values.sort();
                Ok(Reply::Siblings { values, context })
            }
            told => told,
        };
        if sorted(told) == sorted(&expected) {
            return Ok(());
        }
        let message = format!("{told:?}, and should be {expected:?}");
        Err((expected, message))
    }

    fn done(&mut self, op: &Op, told: Option<&Reply>) -> Result<Reply, RequestError> {
        let wanted = match op {
            Op::Get | Op::GetDelete | Op::GetExpire { .. } | Op::Append { .. } | Op::Increment { .. } => {
                Some(Kind::String)
            }
            Op::Set { old: true, .. } => Some(Kind::String),
            Op::SetAdd { .. } | Op::SetRemove { .. } | Op::SetMembers | Op::SetPage { .. } => Some(Kind::Set),
            Op::SetContains { .. } | Op::SetLength | Op::SetPick { .. } => Some(Kind::Set),
            Op::HashSet { .. } | Op::HashGet { .. } | Op::HashAll | Op::HashPage { .. } => Some(Kind::Hash),
            Op::HashRemove { .. } | Op::HashLength | Op::HashIncrement { .. } => Some(Kind::Hash),
            Op::SiblingsGet | Op::SiblingsPut { .. } => Some(Kind::Siblings),
            Op::FlagGet | Op::FlagSet { .. } => Some(Kind::Flag),
            Op::Kind | Op::Exists | Op::Deadline | Op::SetDeadline { .. } | Op::Delete | Op::Set { .. } => None,
        };
        // A walk that is under way goes on.
        let under_way = matches!(op, Op::SetPage { from: 1.., .. } | Op::HashPage { from: 1.., .. });
        let kind = self.held.as_ref().map(|(value, _)| value.kind());
        if !under_way && wanted.is_some() && kind.is_some_and(|kind| Some(kind) != wanted) {
            return Err(RequestError::WrongType);
        }
        let at_ms = self.held.as_ref().map_or(NEVER, |(_, at_ms)| *at_ms);
        let text = match &self.held {
            Some((Value::Text(text), _)) => Some(text.clone()),
            _ => None,
        };
        Ok(match op {
            Op::Kind => Reply::Kind(kind),
            Op::Exists => Reply::Bool(kind.is_some()),
            Op::Deadline => Reply::Deadline(kind.map(|_| at_ms)),
            Op::Delete => Reply::Bool(self.held.take().is_some()),
            Op::SetDeadline { at_ms: to, condition } => {
                let holds = match condition {
                    DeadlineCondition::Always => to.is_some() || at_ms.is_some(),
                    DeadlineCondition::None => at_ms.is_none(),
                    DeadlineCondition::Some => at_ms.is_some(),
                    DeadlineCondition::Greater => at_ms.zip(*to).is_some_and(|(at_ms, to)| to > at_ms),
                    DeadlineCondition::Less => at_ms.is_none_or(|at_ms| to.is_some_and(|to| to < at_ms)),
                };
                match &mut self.held {
                    Some((_, at_ms)) if holds => *at_ms = *to,
                    _ => return Ok(Reply::Bool(false)),
                }
                Reply::Bool(true)
            }

            Op::Get => Reply::Value(text),
            Op::Set { value, expiry, condition, old } => {
                let written = match condition {
                    Condition::Always => true,
                    Condition::Absent => kind.is_none(),
                    Condition::Present => kind.is_some(),
                };
                if written {
                    let at_ms = match expiry {
                        SetExpiry::Never => NEVER,
                        SetExpiry::Keep => at_ms,
                        SetExpiry::At(at_ms) => Some(*at_ms),
                    };
                    self.held = Some((Value::Text(value.clone()), at_ms));
                }
                if *old { Reply::Old { written, value: text } } else { Reply::Bool(written) }
            }
            Op::GetDelete => {
                self.held = None;
                Reply::Value(text)
            }
            Op::GetExpire { at_ms: to } => {
                if let (Some((_, at_ms)), Some(to)) = (&mut self.held, to) {
                    *at_ms = *to;
                }
                Reply::Value(text)
            }
            Op::Append { value } => {
                let whole = [&text.unwrap_or_default()[..], &value[..]].concat();
                let length = whole.len() as i64;
                self.held = Some((Value::Text(whole.into()), at_ms));
                Reply::Integer(length)
            }
            Op::Increment { by, integer } => {
                let sum = number(text.as_ref(), *by);
                self.held = Some((Value::Text(sum.to_string().into()), at_ms));
                if *integer { Reply::Integer(sum.to_integer().unwrap()) } else { Reply::Decimal(sum) }
            }

            Op::SetAdd { .. } | Op::SetRemove { .. } | Op::SetMembers | Op::SetPage { .. } => self.set(op, told),
            Op::SetContains { .. } | Op::SetLength | Op::SetPick { .. } => self.set(op, told),
            Op::HashSet { .. } | Op::HashGet { .. } | Op::HashAll | Op::HashPage { .. } => self.hash(op, told),
            Op::HashRemove { .. } | Op::HashLength | Op::HashIncrement { .. } => self.hash(op, told),

            Op::SiblingsGet | Op::SiblingsPut { .. } => {
                let mut values = match self.held.take() {
                    Some((Value::Siblings(values), _)) => values,
                    _ => Vec::new(),
                };
                if let Op::SiblingsPut { value, context } = op {
                    values.retain(|value| context.is_none() || !self.told.contains(value));
                    values.push(value.clone());
                }
                self.told.clone_from(&values);
                self.held = Some((Value::Siblings(values.clone()), at_ms));
                Reply::Siblings { values, context: Bytes::new() }
            }
            Op::FlagGet => Reply::Bool(kind.is_some()),
            Op::FlagSet { on } => {
                self.held = on.then_some((Value::Flag, at_ms));
                Reply::Bool(kind.is_some())
            }
        })
    }

    fn set(&mut self, op: &Op, told: Option<&Reply>) -> Reply {
        if !matches!(self.held, Some((Value::Set(_), _))) {
            if !matches!(op, Op::SetAdd { .. }) {
                return Model { held: Some((Value::Set(BTreeSet::new()), NEVER)), told: Vec::new() }.set(op, told);
            }
            self.held = Some((Value::Set(BTreeSet::new()), NEVER));
        }
        let Some((Value::Set(held), _)) = &mut self.held else { unreachable!("put there above") };
        let before = held.len() as i64;
        match op {
            Op::SetAdd { members } => {
                held.extend(members.iter().cloned());
                Reply::Integer(held.len() as i64 - before)
            }
            Op::SetRemove { members } => {
                held.retain(|member| !members.contains(member));
                Reply::Integer(before - held.len() as i64)
            }
            Op::SetMembers => Reply::Members(held.iter().cloned().collect()),
            Op::SetContains { members } => Reply::Bools(members.iter().map(|member| held.contains(member)).collect()),
            Op::SetLength => Reply::Integer(before),
            // Whichever: as many as were asked for, of what is there.
            Op::SetPick { count, remove, .. } => {
                let picked = match told {
                    Some(Reply::Members(picked)) => picked.clone(),
                    _ => Vec::new(),
                };
                let right =
                    picked.len() == held.len().min(*count as usize) && picked.iter().all(|one| held.contains(one));
                held.retain(|member| !remove || !picked.contains(member));
                Reply::Members(if right { picked } else { vec![Bytes::from_static(b"as many, of what is there")] })
            }
            _ => match told {
                Some(Reply::MemberPage { members, next }) if members.iter().all(|member| held.contains(member)) => {
                    Reply::MemberPage { members: members.clone(), next: *next }
                }
                _ => Reply::MemberPage { members: held.iter().cloned().collect(), next: None },
            },
        }
    }

    fn hash(&mut self, op: &Op, told: Option<&Reply>) -> Reply {
        if !matches!(self.held, Some((Value::Hash(_), _))) {
            if !matches!(op, Op::HashSet { .. } | Op::HashIncrement { .. }) {
                return Model { held: Some((Value::Hash(BTreeMap::new()), NEVER)), told: Vec::new() }.hash(op, told);
            }
            self.held = Some((Value::Hash(BTreeMap::new()), NEVER));
        }
        let Some((Value::Hash(held), _)) = &mut self.held else { unreachable!("put there above") };
        let before = held.len() as i64;
        match op {
            Op::HashSet { fields, absent_only } => {
                let there = held.clone();
                for (field, value) in fields.iter().filter(|(field, _)| !absent_only || !there.contains_key(field)) {
                    held.insert(field.clone(), value.clone());
                }
                Reply::Integer(held.len() as i64 - before)
            }
            Op::HashGet { fields } => Reply::Values(fields.iter().map(|field| held.get(field).cloned()).collect()),
            Op::HashAll => Reply::Pairs(held.clone().into_iter().collect()),
            Op::HashRemove { fields } => {
                held.retain(|field, _| !fields.contains(field));
                Reply::Integer(before - held.len() as i64)
            }
            Op::HashLength => Reply::Integer(before),
            Op::HashIncrement { field, by, integer } => {
                let sum = number(held.get(field), *by);
                held.insert(field.clone(), sum.to_string().into());
                if *integer { Reply::Integer(sum.to_integer().unwrap()) } else { Reply::Decimal(sum) }
            }
            _ => match told {
                Some(Reply::PairPage { pairs, next })
                    if pairs.iter().all(|(field, value)| held.get(field) == Some(value)) =>
                {
                    Reply::PairPage { pairs: pairs.clone(), next: *next }
                }
                _ => Reply::PairPage { pairs: held.clone().into_iter().collect(), next: None },
            },
        }
    }
}
