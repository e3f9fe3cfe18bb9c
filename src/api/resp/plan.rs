//! What a command turns into: requests for single keys and how their replies become one frame. Commands are pure functions to
//! this; `execute.rs` carries it out.

use bytes::Bytes;

use crate::api::resp::frame::Frame;
use crate::api::resp::queue::Touched;
use crate::api::resp::refusal;
use crate::data::consistency::Consistency;
use crate::data::id::{OpId, hash64};
use crate::data::op::{Key, Kind, Op, Reply, RequestError};
use crate::wire::status::NodeStatus;

/// How one reply becomes a frame.
pub enum Shape {
    Plain(fn(Reply) -> Frame),
    With(Box<dyn FnOnce(Reply) -> Frame + Send>),
}

impl Shape {
    pub fn frame(self, result: Result<Reply, RequestError>) -> Frame {
        match (result, self) {
            (Ok(reply), Shape::Plain(shape)) => shape(reply),
            (Ok(reply), Shape::With(shape)) => shape(reply),
            (Err(error), _) => refusal::frame(&error),
        }
    }
}

/// What became of one part of a command over several keys.
pub type Part = Result<Reply, RequestError>;

/// What remains to be done for a command.
pub enum Plan {
    /// Answered.
    Now(Frame),
    /// One request.
    One(Key, Op, Shape),
    /// Several requests, run at once, joined; the joining may ask for more.
    Many(Box<Many>),
    /// A walk over the keys of all partitions.
    Walk(Box<Walk>),
    /// Needs the node's account of itself.
    Status(Box<dyn FnOnce(NodeStatus) -> Frame + Send>),
}

/// Several requests and what comes of their answers, which are in the order of the requests.
pub struct Many {
    pub parts: Vec<(Key, Op)>,
    /// Keys that the plan made by `join` writes.
    pub later: Vec<Bytes>,
    pub join: Box<dyn FnOnce(Vec<Part>) -> Plan + Send>,
}

/// A walk over the keys of all partitions, in the order of partitions and key hashes.
pub struct Walk {
    pub goal: Goal,
    pub pattern: Option<Bytes>,
    pub kind: Option<Kind>,
}

/// What a walk is for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// `SCAN`: from a cursor, about so many keys.
    Page { cursor: u64, count: u32 },
    /// `KEYS`: all of them, within a bound.
    All,
    /// `DBSIZE`.
    Count,
    /// `RANDOMKEY`: the first after a random place.
    Any { seed: u64 },
}

/// Under which terms the requests of a command run.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub consistency: Consistency,
    pub timeout_us: u64,
    /// Given by the client: remembered, and asked for at the owners first.
    pub op_id: Option<OpId>,
}

impl Plan {
    pub fn one(key: &Bytes, op: Op, shape: fn(Reply) -> Frame) -> Self {
        Plan::One(Key::new(key.clone()), op, Shape::Plain(shape))
    }

    pub fn one_with(key: &Bytes, op: Op, shape: impl FnOnce(Reply) -> Frame + Send + 'static) -> Self {
        Plan::One(Key::new(key.clone()), op, Shape::With(Box::new(shape)))
    }

    /// The same question of several keys; the first error is the answer when any part failed.
    pub fn each(
        keys: &[Bytes],
        op: impl Fn(&Bytes) -> Op,
        join: impl FnOnce(Vec<Reply>) -> Frame + Send + 'static,
    ) -> Self {
        Plan::many(keys.iter().map(|key| (Key::new(key.clone()), op(key))).collect(), join)
    }

    /// Several requests; the first error is the answer when any part failed.
    pub fn many(parts: Vec<(Key, Op)>, join: impl FnOnce(Vec<Reply>) -> Frame + Send + 'static) -> Self {
        Plan::Many(Box::new(Many {
            parts,
            later: Vec::new(),
            join: Box::new(|parts| {
                Plan::Now(match parts.into_iter().collect::<Result<Vec<Reply>, RequestError>>() {
                    Ok(replies) => join(replies),
                    Err(error) => refusal::frame(&error),
                })
            }),
        }))
    }

    pub fn status(shape: impl FnOnce(NodeStatus) -> Frame + Send + 'static) -> Self {
        Plan::Status(Box::new(shape))
    }

    /// The keys this plan touches, for keeping their order.
    pub fn touched(&self) -> Touched {
        match self {
            Plan::One(key, op, _) => Touched::One(hash64(&key.bytes), !op.is_read()),
            Plan::Many(many) => Touched::many(
                many.parts
                    .iter()
                    .map(|(key, op)| (hash64(&key.bytes), !op.is_read()))
                    .chain(many.later.iter().map(|key| (hash64(key), true)))
                    .collect(),
            ),
            Plan::Now(_) | Plan::Walk(_) | Plan::Status(_) => Touched::Many(Vec::new()),
        }
    }

    /// Refuses keys and values above the limits before anything is sent.
    pub fn check(&self, key_size_max: usize, value_size_max: usize) -> Result<(), RequestError> {
        let check = |key: &Bytes, op: Option<&Op>| {
            if key.len() > key_size_max {
                return Err(RequestError::KeyTooLarge { size: key.len() as u64, limit: key_size_max as u64 });
            }
            let largest = op.map_or(0, largest_value);
            if largest > value_size_max {
                return Err(RequestError::ValueTooLarge { size: largest as u64, limit: value_size_max as u64 });
            }
            Ok(())
        };
        match self {
            Plan::One(key, op, _) => check(&key.bytes, Some(op)),
            Plan::Many(many) => {
                many.parts.iter().try_for_each(|(key, op)| check(&key.bytes, Some(op)))?;
                many.later.iter().try_for_each(|key| check(key, None))
            }
            Plan::Now(_) | Plan::Walk(_) | Plan::Status(_) => Ok(()),
        }
    }
}

fn largest_value(op: &Op) -> usize {
    let longest = |values: &[Bytes]| values.iter().map(Bytes::len).max().unwrap_or(0);
    match op {
        Op::Set { value, .. } | Op::Append { value } | Op::SiblingsPut { value, .. } => value.len(),
        Op::SetAdd { members } | Op::SetRemove { members } | Op::SetContains { members } => longest(members),
        Op::HashSet { fields, .. } => {
            fields.iter().map(|(field, value)| field.len().max(value.len())).max().unwrap_or(0)
        }
        Op::HashGet { fields } | Op::HashRemove { fields } => longest(fields),
        Op::HashIncrement { field, .. } => field.len(),
        _ => 0,
    }
}

/// A reply of a kind that the request cannot have: a bug, told rather than hidden.
pub fn unexpected(reply: &Reply) -> Frame {
    let kind = format!("{reply:?}");
    let kind = kind.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or("nothing").to_string();
    Frame::error(format!("ERR internal error: the node answered with {kind}, which this command does not know"))
}

/// The common shapes.
pub mod shape {
    use super::*;

    pub fn integer(reply: Reply) -> Frame {
        match reply {
            Reply::Integer(number) => Frame::Integer(number),
            Reply::Bool(yes) => Frame::Integer(i64::from(yes)),
            other => unexpected(&other),
        }
    }

    /// `OK`, or null when the condition did not hold.
    pub fn ok_or_null(reply: Reply) -> Frame {
        match reply {
            Reply::Bool(true) => Frame::OK,
            Reply::Bool(false) => Frame::Null,
            other => unexpected(&other),
        }
    }

    pub fn value(reply: Reply) -> Frame {
        match reply {
            Reply::Value(value) | Reply::Old { value, .. } => Frame::bulk(value),
            other => unexpected(&other),
        }
    }

    /// A float as a bulk string, as Redis tells it.
    pub fn decimal(reply: Reply) -> Frame {
        match reply {
            Reply::Decimal(number) => Frame::text(number.to_string()),
            Reply::Integer(number) => Frame::text(number.to_string()),
            other => unexpected(&other),
        }
    }

    pub fn set(reply: Reply) -> Frame {
        match reply {
            Reply::Members(members) => Frame::Set(Frame::bulks(members)),
            other => unexpected(&other),
        }
    }

    pub fn array(reply: Reply) -> Frame {
        match reply {
            Reply::Members(members) => Frame::Array(Frame::bulks(members)),
            other => unexpected(&other),
        }
    }

    /// The first member, or null.
    pub fn first(reply: Reply) -> Frame {
        match reply {
            Reply::Members(members) => Frame::bulk(members.into_iter().next()),
            other => unexpected(&other),
        }
    }

    pub fn values(reply: Reply) -> Frame {
        match reply {
            Reply::Values(values) => Frame::Array(values.into_iter().map(Frame::bulk).collect()),
            other => unexpected(&other),
        }
    }

    pub fn first_value(reply: Reply) -> Frame {
        match reply {
            Reply::Values(values) => Frame::bulk(values.into_iter().next().flatten()),
            other => unexpected(&other),
        }
    }

    pub fn bools(reply: Reply) -> Frame {
        match reply {
            Reply::Bools(bools) => Frame::Array(bools.into_iter().map(|yes| Frame::Integer(i64::from(yes))).collect()),
            other => unexpected(&other),
        }
    }

    pub fn first_bool(reply: Reply) -> Frame {
        match reply {
            Reply::Bools(bools) => Frame::Integer(i64::from(bools.first() == Some(&true))),
            other => unexpected(&other),
        }
    }

    pub fn pairs(reply: Reply) -> Frame {
        match reply {
            Reply::Pairs(pairs) => Frame::Pairs(pairs),
            other => unexpected(&other),
        }
    }
}
