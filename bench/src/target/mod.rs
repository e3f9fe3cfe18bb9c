//! WHOM IT ASKS: one trait, and behind it the native client and Redis's protocol.

pub mod native;
pub mod resp;
pub mod slots;
pub mod wire;

use bytes::Bytes;

use crate::check::register::End;
use crate::load::values::{Name, Seen, Value};

/// What a target is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Set,
    Delete,
    Increment,
    GetCounter,
    Add,
    Remove,
    Members,
    Contains,
    SetField,
    GetField,
    IncrementField,
    GetFieldCounter,
    Siblings,
    PutSibling,
    Scan,
}

impl Verb {
    pub fn is_read(self) -> bool {
        use Verb::*;
        matches!(self, Get | GetCounter | Members | Contains | GetField | GetFieldCounter | Siblings | Scan)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: Verb,
    pub key: Name,
    pub number: u32,
    /// The member or field, or how many keys to scan.
    pub part: u32,
    pub value: Value,
    /// For siblings: what was seen.
    pub context: Option<Bytes>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Done,
    Value(Seen),
    /// A counter's sum.
    Sum(i64),
    /// Members, in any order, and whether there was one that is no number.
    Members(Vec<u32>, bool),
    /// It is, or was, there.
    There(bool),
    Siblings(Vec<Seen>, Bytes),
    /// Keys of this run.
    Keys(Vec<u32>),
}

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: &'static str,
    /// A change may have been made nevertheless.
    pub may_have_happened: bool,
}

/// What stood behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    pub owners: u8,
    pub stand_ins: u8,
    /// One bit for each member of the layout, up to the 64th.
    pub nodes: u64,
    /// Increments of the answer that it says it may count twice.
    pub doubted: u32,
}

/// An answer with what stood behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub told: Result<Told, Refusal>,
    /// `None`: the target does not tell.
    pub receipt: Option<Backing>,
    /// It took one try.
    pub sent_once: bool,
}

impl Answer {
    pub fn plain(told: Result<Told, Refusal>) -> Self {
        Self { told, receipt: None, sent_once: true }
    }

    /// What became of the write that this answers at this time.
    pub fn end(&self, at_us: u64) -> End {
        match &self.told {
            Ok(_) => End::Acknowledged {
                at_us,
                stand_ins: self.receipt.is_some_and(|backing| backing.stand_ins > 0),
                nodes: self.receipt.map_or(0, |backing| backing.nodes),
            },
            Err(refusal) if refusal.may_have_happened => End::Unknown,
            Err(_) => End::Refused,
        }
    }
}

/// Somebody who answers requests. Each worker has one of its own; it is used from one thread.
#[allow(async_fn_in_trait, reason = "workers are generic over it and stay on their thread")]
pub trait Target {
    /// Does these side by side or one after the other, and gives as many answers in their order.
    async fn call(&mut self, calls: &[Call], answers: &mut Vec<Answer>);

    /// The same at the level all, for the last look.
    async fn call_all(&mut self, calls: &[Call], answers: &mut Vec<Answer>);
}
