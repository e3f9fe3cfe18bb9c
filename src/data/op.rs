//! Everything a client may ask of one key, and everything it may be told.
//!
//! An [`Op`] names a key's component by its verb; commands over several keys are several requests. The doors (RESP, native,
//! HTTP) translate to this and back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::consistency::{Consistency, Receipt};
use super::decimal::Decimal;
use super::id::{Namespace, NodeId, OpId, Partition};

/// A key in a namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key {
    pub namespace: Namespace,
    pub bytes: Bytes,
}

impl Key {
    /// A key in the namespace `default`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { namespace: Namespace::default(), bytes: bytes.into() }
    }
}

/// What a register write does about expiry. Deadlines are absolute milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SetExpiry {
    /// The new value has none.
    Never,
    /// The new value keeps what the old one had.
    Keep,
    At(u64),
}

/// A condition judged on what the coordinator gathered: best effort, since two coordinators may judge at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Condition {
    Always,
    Absent,
    Present,
}

/// A condition on a deadline already there (`EXPIRE key s NX|XX|GT|LT`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeadlineCondition {
    Always,
    None,
    Some,
    Greater,
    Less,
}

/// What a key holds, as `TYPE` tells it. A key may hold several components at once after concurrent writes; the first in this
/// order is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    String,
    Set,
    Hash,
    Siblings,
    Flag,
}

/// One request for one key. Reads first, then writes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Op {
    // --- any component
    /// `Reply::Kind`.
    Kind,
    /// `Reply::Bool`: is anything visible here?
    Exists,
    /// `Reply::Deadline`.
    Deadline,
    /// `Reply::Bool`: false when the key was absent or the condition did not hold. `None` persists. A deadline in the past deletes.
    SetDeadline { at_ms: Option<u64>, condition: DeadlineCondition },
    /// Removes every component as observed. `Reply::Bool`: was anything there?
    Delete,

    // --- string: an LWW register and a counter seen as one. Its text is the register's, or, when counts are live, the
    //     register's number plus the counter's.
    /// `Reply::Value`.
    Get,
    /// `Reply::Old` when `old` is asked for, else `Reply::Bool` (false: the condition did not hold). Replaces other kinds, as Redis
    /// does, unless `old` is asked for and the key is not a string: then `WrongType`.
    Set { value: Bytes, expiry: SetExpiry, condition: Condition, old: bool },
    /// `Reply::Value`, the value removed.
    GetDelete,
    /// `Reply::Value`, the value whose deadline was set or cleared (`None` leaves it, `Some(None)` persists).
    GetExpire { at_ms: Option<Option<u64>> },
    /// `Reply::Integer`, the new length.
    Append { value: Bytes },
    /// `Reply::Integer` when `integer`, else `Reply::Decimal`: the new sum as this coordinator sees it.
    Increment { by: Decimal, integer: bool },

    // --- set
    /// `Reply::Integer`: how many this coordinator did not know yet.
    SetAdd { members: Vec<Bytes> },
    /// `Reply::Integer`: how many were there.
    SetRemove { members: Vec<Bytes> },
    /// `Reply::Members`, sorted.
    SetMembers,
    /// `Reply::MemberPage`: the members at the first `limit` places from `from` on (see `Path::place`), at least one and at most
    /// `PAGE_PLACES`.
    SetPage { from: u64, limit: u32 },
    /// `Reply::Bools`, in the order asked.
    SetContains { members: Vec<Bytes> },
    /// `Reply::Integer`.
    SetLength,
    /// `Reply::Members`: `count` members picked by `seed`, distinct unless `repeat`. Picked and removed when `remove`.
    SetPick { count: u32, repeat: bool, remove: bool, seed: u64 },

    // --- hash (map): each field an LWW register and a counter seen as one, like a string
    /// `Reply::Integer`: how many fields this coordinator did not know yet. With `absent_only` a field that is there is left.
    HashSet { fields: Vec<(Bytes, Bytes)>, absent_only: bool },
    /// `Reply::Values`, in the order asked.
    HashGet { fields: Vec<Bytes> },
    /// `Reply::Pairs`, sorted by field.
    HashAll,
    /// `Reply::PairPage`, as [`Op::SetPage`].
    HashPage { from: u64, limit: u32 },
    /// `Reply::Integer`: how many were there.
    HashRemove { fields: Vec<Bytes> },
    /// `Reply::Integer`.
    HashLength,
    /// `Reply::Integer` when `integer`, else `Reply::Decimal`.
    HashIncrement { field: Bytes, by: Decimal, integer: bool },

    // --- siblings: a multi-value register
    /// `Reply::Siblings`.
    SiblingsGet,
    /// Writes one value that replaces just the siblings in `context` (from an earlier `Reply::Siblings` of this key; `None`
    /// replaces nothing and so adds a sibling). `Reply::Siblings`, the state after it as this coordinator sees it.
    SiblingsPut { value: Bytes, context: Option<Bytes> },

    // --- flag
    /// `Reply::Bool`.
    FlagGet,
    /// Enabling wins over a disabling that did not see it. `Reply::Bool`, the former state.
    FlagSet { on: bool },
}

impl Op {
    /// Does this change nothing?
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Op::Kind
                | Op::Exists
                | Op::Deadline
                | Op::Get
                | Op::SetMembers
                | Op::SetPage { .. }
                | Op::SetContains { .. }
                | Op::SetLength
                | Op::SetPick { remove: false, .. }
                | Op::HashGet { .. }
                | Op::HashAll
                | Op::HashPage { .. }
                | Op::HashLength
                | Op::SiblingsGet
                | Op::FlagGet
        )
    }

    /// Does this nothing but take away?
    pub fn only_removes(&self) -> bool {
        matches!(
            self,
            Op::Delete
                | Op::GetDelete
                | Op::SetRemove { .. }
                | Op::SetPick { remove: true, .. }
                | Op::HashRemove { .. }
        )
    }
}

impl Op {
    /// Does this need room on a disk that has little left? Removing is how a person makes room: it is let through to the last.
    pub fn asks_for_room(&self) -> bool {
        !self.is_read() && !self.only_removes()
    }
}

/// One request as a door hands it in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    pub key: Key,
    pub op: Op,
    pub consistency: Consistency,
    /// Microseconds left until nobody waits for the answer any more. Travels with the request, lessened at each hop.
    pub timeout_us: u64,
    /// Mutations: names the effect across retries. A door that was given none makes one.
    pub op_id: Option<OpId>,
    /// The giver knows that `op_id` was never sent before. False makes the coordinator ask the owners first.
    pub fresh: bool,
    /// The client gave `op_id`: it is remembered for the whole window. False (a door made it): for as long as the door may retry.
    pub remember: bool,
}

impl Request {
    /// A request with the default consistency and two seconds to go.
    pub fn new(key: Key, op: Op) -> Self {
        Self {
            key,
            op,
            consistency: Consistency::default(),
            timeout_us: 2_000_000,
            op_id: None,
            fresh: true,
            remember: false,
        }
    }
}

/// What a request is told when it was met.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    Bool(bool),
    Integer(i64),
    Decimal(Decimal),
    Value(Option<Bytes>),
    /// `SET` with `GET`: whether it was written, and the value before.
    Old {
        written: bool,
        value: Option<Bytes>,
    },
    Values(Vec<Option<Bytes>>),
    Members(Vec<Bytes>),
    Bools(Vec<bool>),
    Pairs(Vec<(Bytes, Bytes)>),
    /// Members in the order of their places, and from which place to go on; `None`: these were the last. What stayed throughout a walk is told
    /// just once. A page may be empty and not the last.
    MemberPage {
        members: Vec<Bytes>,
        next: Option<u64>,
    },
    /// Fields with their values, likewise.
    PairPage {
        pairs: Vec<(Bytes, Bytes)>,
        next: Option<u64>,
    },
    /// Concurrent values (sorted by birth) and the context that a later put gives back.
    Siblings {
        values: Vec<Bytes>,
        context: Bytes,
    },
    Kind(Option<Kind>),
    /// `None`: no such key. `Some(None)`: never expires. Else milliseconds since 1970.
    Deadline(Option<Option<u64>>),
}

/// What became of a refused or failed request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing happened and nothing will.
    NotApplied,
    /// It may have happened, or may yet. Retry with the same operation id to know.
    Unknown,
}

/// Why a request was not met. Each says what to do; [`RequestError::outcome`] says what state it leaves.
#[derive(Clone, PartialEq, Debug, Error, Serialize, Deserialize)]
pub enum RequestError {
    #[error("Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("value is not an integer or out of range")]
    NotInteger,
    #[error("value is not a valid float")]
    NotFloat,
    #[error("hash value is not an integer")]
    HashNotInteger,
    #[error("hash value is not a float")]
    HashNotFloat,
    #[error("increment or decrement would overflow")]
    Overflow,
    #[error("the key has {size} bytes; at most {limit} are allowed (setting limits.key_size_max)")]
    KeyTooLarge { size: u64, limit: u64 },
    #[error("the value has {size} bytes; at most {limit} are allowed (setting limits.value_size_max)")]
    ValueTooLarge { size: u64, limit: u64 },
    #[error("{count} siblings are at the limit of {limit}: read the key and write with its context to join them")]
    TooManySiblings { count: u64, limit: u64 },
    #[error("the collection has over {entries} entries or {bytes} bytes: read it page by page (SSCAN, HSCAN)")]
    CollectionTooLarge { entries: u64, bytes: u64 },
    #[error("the context is not one that was given out for this key: read the key and use the context it returns")]
    BadContext,
    #[error("{0}")]
    BadConsistency(String),
    #[error("the operation id is older than the window of {window_ms} ms: its outcome is no longer remembered")]
    OpIdExpired { window_ms: u64 },
    /// Known before anything was written.
    #[error("{}", unavailable(*.needed, *.reachable, .missing))]
    Unavailable { needed: u8, reachable: u8, missing: Vec<String> },
    /// The deadline came first. For a mutation the outcome is unknown, for a read nothing happened.
    #[error("{got} of {needed} replicas answered in time; missing: {}", names(.missing))]
    Timeout { needed: u8, got: u8, missing: Vec<String>, mutation: bool },
    #[error("overloaded: {0}; retry after a pause")]
    Overloaded(String),
    #[error("the store of {node} failed and is fenced until it is repaired and restarted: {cause}")]
    StoreFailed { node: String, cause: String, mutation: bool },
    #[error("the coordinator's clock is more than {bound_ms} ms ahead of the replicas'; set it right")]
    ClockAhead { bound_ms: u64 },
    /// The link to the coordinator broke before its answer came.
    #[error("the connection to {node} broke before the answer")]
    Disconnected { node: String, mutation: bool },
    #[error("{node} is stopping")]
    Stopping { node: String },
    /// A bug or a peer of another version, told rather than hidden.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// A fault was ordered that the node does not take, or cannot make.
    #[error("no fault was made: {0}")]
    FaultRefused(String),
}

fn unavailable(needed: u8, reachable: u8, missing: &[String]) -> String {
    let missing = names(missing);
    if reachable < needed {
        return format!("needs {needed} replicas and only {reachable} can be reached; missing: {missing}");
    }
    format!(
        "the {reachable} replicas that can be reached are enough but not in the zones that the request asks for; missing: {missing}"
    )
}

fn names(missing: &[String]) -> String {
    if missing.is_empty() { "none".into() } else { missing.join(", ") }
}

impl RequestError {
    pub fn outcome(&self) -> Outcome {
        match self {
            RequestError::Timeout { mutation: true, .. }
            | RequestError::StoreFailed { mutation: true, .. }
            | RequestError::Disconnected { mutation: true, .. }
            // Written at the coordinator, refused by the others: it may yet spread.
            | RequestError::ClockAhead { .. }
            | RequestError::Protocol(_) => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }

    /// May another try, perhaps at another node, be met?
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            RequestError::Unavailable { .. }
                | RequestError::Timeout { .. }
                | RequestError::Overloaded(_)
                | RequestError::StoreFailed { .. }
                | RequestError::ClockAhead { .. }
                | RequestError::Disconnected { .. }
                | RequestError::Stopping { .. }
        )
    }
}

/// An answer: what was asked for or why not, and the receipt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Response {
    pub result: Result<Reply, RequestError>,
    pub receipt: Receipt,
}

/// One page of a walk over the keys of a partition, in the order of their hashes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ScanRequest {
    pub partition: Partition,
    /// Go on above this key hash; `None` starts.
    pub after: Option<u64>,
    /// About this many keys; the last hash is never split over two pages.
    pub limit: u32,
    pub timeout_us: u64,
}

/// Keys of a page with their kinds, and where to go on (`None`: the partition is done).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ScanPage {
    pub keys: Vec<(Key, Kind)>,
    pub next: Option<u64>,
}

/// Where a key lives and what is known of its replicas: `tidewater where`, `TW.WHERE`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Whereabouts {
    pub slot: u16,
    pub partition: Partition,
    pub layout: u64,
    /// Owners first, then stand-ins, in order of preference: id, name, zone name, is an owner, is up.
    pub nodes: Vec<(NodeId, String, String, bool, bool)>,
}
