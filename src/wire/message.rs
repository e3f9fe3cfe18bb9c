//! What nodes say to each other.
//!
//! A frame carries any number of messages; each names its partition, so that the receiver hands it to the lane that keeps it. Answers
//! carry the asker's ticket back. Nothing here is authoritative by arriving: a lost, late or repeated message is harmless, because
//! deltas and rows merge under contexts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::data::clock::{Hlc, Stamp};
use crate::data::context::Context;
use crate::data::id::{Dot, NodeId, OpId, Partition, StoreId};
use crate::data::mutation::{Delta, Entry};
use crate::data::op::{Key, Request, RequestError, Response, ScanPage, ScanRequest};
use crate::data::path::{Component, PLACES, Path};
use crate::data::row::Row;
use crate::wire::packed_log::PackedLog;

/// Asker's number for a request under way; the lane is in its top byte.
pub type Ticket = u64;

/// A peer message with the partition that it is about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerMessage {
    pub partition: Partition,
    pub body: Body,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Keep this. `sync`: fsync before acknowledging.
    Replicate {
        ticket: Ticket,
        delta: Delta,
        role: Role,
        sync: bool,
    },
    ReplicateAck {
        ticket: Ticket,
        result: Result<Kept, Refusal>,
    },
    /// Send these rows. `digest`: of the asker's own; equal rows are answered by `Same`.
    Read {
        ticket: Ticket,
        key: Key,
        scope: Scope,
        digest: Option<u128>,
        op_id: Option<OpId>,
    },
    ReadReply {
        ticket: Ticket,
        result: Result<Reading, Refusal>,
    },
    /// Coordinate this; you own its partition.
    Forward {
        ticket: Ticket,
        request: Request,
    },
    ForwardReply {
        ticket: Ticket,
        response: Box<Response>,
    },
    /// Read repair: rows as merged. They add; what was removed is told by name, in the log. Acknowledged as a delta is, if there is
    /// a ticket.
    Repair {
        ticket: Option<Ticket>,
        key: Key,
        rows: Vec<RepairRow>,
        /// The log's rows of an operation that was found done, and is to be brought to as many as its level asks.
        entries: Vec<LogRow>,
        /// Put after the rows: that an operation has been answered, though it had nothing to do.
        note: Option<Delta>,
        sync: bool,
    },
    /// The digest of what I have seen of this partition. Who has seen the same knows by it what I have; who has not answers with a report.
    ReportDigest {
        digest: u128,
        answer: bool,
    },
    /// What I have seen of this partition.
    Report {
        seen: Context,
        /// Tell me what you have seen: by what I was told you lack something for longer than it should take.
        answer: bool,
    },
    /// Send what I have not seen.
    Pull {
        have: Context,
    },
    PullReply {
        entries: PackedLog,
        more: bool,
        trimmed: bool,
    },
    /// Full sync: send the rows after this one.
    SyncPull {
        after: Option<Bytes>,
    },
    SyncPage {
        /// What has been seen: an absent row's dots in here are gone. The asker has seen it too when it has all pages.
        seen: Context,
        /// What was removed before it came: gone as well, and not to be put when it comes. The asker keeps it so.
        dead: Vec<Dot>,
        after: Option<Bytes>,
        rows: Vec<(Bytes, Row)>,
        next: Option<Bytes>,
    },
    /// May what nobody needs any more be dropped (`node::floor`)?
    Ask {
        number: Ticket,
        question: Question,
    },
    Answered {
        number: Ticket,
        answer: Answer,
    },
    /// Scrub: if you have seen just this, what is the digest of your rows with these key hashes?
    Compare {
        number: Ticket,
        seen: Context,
        from: u64,
        /// `None`: to the end.
        to: Option<u64>,
        /// The asker's time, by which lives have ended or not.
        wall_ms: u64,
    },
    /// `None`: other things have been seen here.
    Compared {
        number: Ticket,
        digest: Option<u128>,
    },
    /// Nothing of yours is taken: you were away beyond the horizon, and what lies in this store is no part of the cluster any more.
    Fenced {
        store: StoreId,
    },
    Scan {
        ticket: Ticket,
        scan: ScanRequest,
    },
    ScanReply {
        ticket: Ticket,
        page: Result<ScanPage, RequestError>,
    },
    /// Which of these operations do you know to be counted within a total?
    AskTallied {
        ticket: Ticket,
        op_ids: Vec<OpId>,
    },
    /// Those, each with the dot that counted it. `None`: refused, which says nothing of them.
    Tallied {
        ticket: Ticket,
        dots: Option<Vec<(OpId, Dot)>>,
    },
}

/// A member that was away beyond the horizon, and what its data lay in: nothing that comes from there is taken any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Fence {
    pub node: NodeId,
    pub store: StoreId,
}

/// What a member is asked before an owner drops anything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Question {
    /// Promise to mint nothing more here below a time of yours, and to take nothing from these any more.
    Floor { without: Vec<Fence> },
    /// Are these away, as you see it, and have been for so long that nothing of theirs is under way to you?
    Away { members: Vec<Fence> },
    /// Do you keep hints here?
    Hints,
    /// What have you seen?
    Seen,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// `None`: it keeps hints, and can promise nothing for them; or one of those to be fenced is here.
    Floor(Option<Hlc>),
    Away(bool),
    Hints(bool),
    Seen(Context),
}

/// How a delta was taken.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub fsynced: bool,
    /// A row holds a newer stamp than the one brought: the coordinator must stamp again above it.
    pub newer: Option<Stamp>,
    /// It may not have been put where it belongs.
    pub strays: Option<Box<Strays>>,
}

/// Entries that an owner tells of.
pub const BESIDE_MAX: usize = 16;

/// Why an owner thinks that what was put does not belong to the life that it was put in. One of the two does not know all; by this the
/// coordinator finds out who.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Strays {
    /// The stamp of that life's deadline here, when it is newer than the one that the coordinator went by.
    pub news: Option<Stamp>,
    /// By that deadline it has ended.
    pub ended: bool,
    /// What is visible beside it, up to [`BESIDE_MAX`], first what ends last.
    pub beside: Vec<Entry>,
    /// The first of that ends at another time.
    pub apart: bool,
    /// What the coordinator went by has been removed here.
    pub gone: bool,
    /// What the owner had seen, or knew to be removed.
    pub seen: Context,
}

/// Why a replica did not do as asked. Nothing was changed there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// Not an owner of this partition in the replica's layout.
    NotOwner {
        layout: u64,
    },
    /// The delta is stamped too far ahead of the replica's clock.
    ClockAhead {
        bound_ms: u64,
    },
    /// No room for another hint.
    HintsFull,
    /// The replica is taking in all rows of the partition, this delta's among them: it must not come in between.
    Syncing,
    /// What it puts would have ended before it began: the coordinator has missed a deadline.
    Ended(Box<Strays>),
    StoreFailed {
        cause: String,
    },
    /// No room for it now: the queue to the replica is full, or its disk nearly is.
    Busy {
        cause: String,
    },
}

impl Refusal {
    /// The same for who asked for a whole request or a page.
    fn error(&self, node: &str) -> RequestError {
        match self {
            Refusal::StoreFailed { cause } => {
                RequestError::StoreFailed { node: node.to_owned(), cause: cause.clone(), mutation: false }
            }
            Refusal::Busy { cause } => RequestError::Overloaded(format!("{node}: {cause}")),
            Refusal::NotOwner { .. }
            | Refusal::ClockAhead { .. }
            | Refusal::HintsFull
            | Refusal::Syncing
            | Refusal::Ended(_) => RequestError::Protocol(format!("{node} refuses: {self:?}")),
        }
    }
}

impl Body {
    /// Would taking this message make the store grow?
    pub fn grows(&self) -> bool {
        match self {
            Body::Replicate { delta, .. } => !delta.only_removes(),
            Body::Repair { .. } | Body::PullReply { .. } | Body::SyncPage { .. } => true,
            Body::Forward { request, .. } => request.op.asks_for_room(),
            _ => false,
        }
    }
}

impl PeerMessage {
    /// What the node called `name` says when it takes nothing of this message. `None`: nobody waits for an answer to it.
    pub fn refused(self, name: &str, refusal: Refusal) -> Option<PeerMessage> {
        let body = match self.body {
            Body::Replicate { ticket, .. } | Body::Repair { ticket: Some(ticket), .. } => {
                Body::ReplicateAck { ticket, result: Err(refusal) }
            }
            Body::Read { ticket, .. } => Body::ReadReply { ticket, result: Err(refusal) },
            Body::Forward { ticket, .. } => {
                let response = Response { result: Err(refusal.error(name)), receipt: Default::default() };
                Body::ForwardReply { ticket, response: Box::new(response) }
            }
            Body::AskTallied { ticket, .. } => Body::Tallied { ticket, dots: None },
            Body::Scan { ticket, .. } => Body::ScanReply { ticket, page: Err(refusal.error(name)) },
            _ => return None,
        };
        Some(PeerMessage { partition: self.partition, body })
    }
}

/// As what a node is asked to keep a delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// As an owner. Nobody has been told yet that it is kept.
    Owner,
    /// As a stand-in for that owner, as a hint.
    StandInFor(NodeId),
    /// As an owner, of a hint that comes home. Somebody may have been told that it is kept, so it is not refused for its time, no more
    /// than what comes by exchange is.
    OwnerOfHint,
}

/// Which rows of a key a request is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// The string: register, counter, deadlines.
    Text,
    Flag,
    Siblings,
    Fields(Vec<Bytes>),
    AllFields,
    Members(Vec<Bytes>),
    AllMembers,
    /// The members of a set or the fields of a map that stand at the first `limit` places (see [`Path::place`]) from `from` on and
    /// below `upto`: fewer when they hold [`PAGE_BYTES`] before. Deadlines.
    Page {
        of: Collection,
        from: u64,
        upto: Option<u64>,
        limit: u32,
    },
    /// The first [`GLANCE`] rows of each component: enough to tell what a key is and when it ends.
    Glance,
    Everything,
}

impl Scope {
    /// Is a row at this path one of them (or would it be, within the bounds of a glance)?
    pub fn covers(&self, path: &Path) -> bool {
        match self {
            Scope::Everything | Scope::Glance => true,
            _ if path.component == Component::Deadline => true,
            Scope::Text => matches!(path.component, Component::Register | Component::Counter | Component::Retry),
            Scope::Flag => path.component == Component::Flag,
            Scope::Siblings => path.component == Component::Sibling,
            Scope::Members(members) => path.component == Component::Member && members.contains(&path.member),
            Scope::AllMembers => path.component == Component::Member,
            Scope::AllFields => path.field().is_some(),
            Scope::Fields(fields) => path.field().is_some_and(|field| fields.contains(&field)),
            Scope::Page { of, from, upto, .. } => {
                of.components().contains(&path.component)
                    && path.place().is_some_and(|place| place >= *from && upto.is_none_or(|upto| place < upto))
            }
        }
    }

    /// Of rows among which all are that stand at the first places of a page, leaves just the page. Other scopes have no bound.
    pub fn cut(&self, rows: &mut Vec<(Path, Row)>) {
        if let Some(end) = self.end(rows.iter().map(|(path, row)| (path, row))) {
            // What has no place, a deadline, goes with every page.
            rows.retain(|(path, _)| path.place() < Some(end));
        }
    }

    /// Ends a page at a place, unless it ends before.
    pub fn up_to(&mut self, end: Option<u64>) {
        if let Scope::Page { upto, .. } = self {
            *upto = (*upto).into_iter().chain(end).min();
        }
    }

    /// The place behind the last that a page reaches, by what stands there; `None`: it reaches to the end. Whatever stands behind it,
    /// nothing has been said about it.
    pub fn end<'a>(&self, rows: impl Iterator<Item = (&'a Path, &'a Row)>) -> Option<u64> {
        let Scope::Page { upto, limit, .. } = self else { return None };
        let rows = rows.filter_map(|(path, row)| Some((path.place()?, row_bytes(path, row))));
        let mut rows: Vec<(u64, usize)> = rows.collect();
        rows.sort_unstable();
        let (mut bytes, mut places) = (0, 0);
        for same in rows.chunk_by(|(one, _), (two, _)| one == two) {
            bytes += same.iter().map(|(_, bytes)| bytes).sum::<usize>();
            places += 1;
            if places >= *limit || bytes >= PAGE_BYTES {
                return same.first().map(|(place, _)| place + 1).filter(|end| *end < PLACES).or(*upto);
            }
        }
        *upto
    }
}

/// What a row counts in a page. The same wherever it is read, since pages are compared.
pub fn row_bytes(path: &Path, row: &Row) -> usize {
    let payload = match row {
        Row::Field(entries) => {
            entries.iter().map(|entry| 32 + entry.payload.as_ref().map_or(0, |payload| payload.len())).sum()
        }
        Row::Births(births) => births.len() * 32,
        _ => 32,
    };
    path.member.len() + payload
}

/// What a walk goes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Collection {
    Members,
    Fields,
}

impl Collection {
    /// In which components it stands.
    pub fn components(self) -> &'static [Component] {
        match self {
            Collection::Members => &[Component::Member],
            Collection::Fields => &[Component::Field, Component::FieldCounter, Component::FieldRetry],
        }
    }
}

/// Places in a page, at most.
pub const PAGE_PLACES: u32 = 10_000;
/// A page ends where it holds so much.
pub const PAGE_BYTES: usize = 1 << 20;

/// Rows of each component in a glance. A component with fewer is all there.
pub const GLANCE: usize = 64;

/// A replica's rows of a scope.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reading {
    pub rows: Rows,
    /// The replica knows the operation id asked about. Its rows in the log; none when every owner has had them for long.
    pub op_known: Option<Vec<LogRow>>,
    /// A stand-in's answer: it may add to what owners say, and its silence means nothing.
    pub stand_in: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Rows {
    /// Equal to the asker's.
    Same,
    /// With what the replica knows of the partition, which is what makes an absent row mean "removed".
    Held { rows: Vec<(Path, Row)>, context: Context },
    /// A stand-in's hints for this key.
    Hinted { deltas: Vec<Delta> },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RepairRow {
    pub path: Path,
    pub row: Row,
}

/// A log entry with the present state of the rows that it touched.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LogRow {
    pub dot: Dot,
    pub key: Key,
    pub rows: Vec<(Path, Option<Row>)>,
    /// What the mutation removed by name. An asker that does not know these yet must not take them for news when they come.
    pub removes: Vec<Dot>,
    /// The mutation put something, and did not only remove.
    pub puts: bool,
    pub tally: bool,
    pub op_id: Option<OpId>,
    pub remember: bool,
    pub made: Hlc,
}
