//! What clients asked and were told: the only thing that the end-to-end checkers believe.

use bytes::Bytes;

use crate::data::consistency::Receipt;
use crate::data::id::OpId;
use crate::data::op::{Op, Reply, Request};

/// How a call ended, all its tries together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Still waited for.
    Open,
    Acked,
    /// Every try was told that nothing happened.
    NotApplied,
    /// It may have happened, once or never, then or later.
    Unknown,
}

/// One thing that a client wanted, however many tries it took.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: usize,
    pub request: Request,
    pub begun_us: u64,
    /// `u64::MAX` while it is open or its outcome is unknown: it may yet happen.
    pub ended_us: u64,
    pub end: End,
    pub tries: u32,
    /// Some try may have happened.
    pub maybe: bool,
    pub reply: Option<Reply>,
    pub receipt: Option<Receipt>,
    /// Siblings that the context given with a put had read.
    pub read: Vec<Bytes>,
}

impl Call {
    pub fn op(&self) -> &Op {
        &self.request.op
    }

    pub fn op_id(&self) -> OpId {
        self.request.op_id.expect("every call of the simulator has an operation id")
    }

    /// May this call have left an effect?
    pub fn may_have_happened(&self) -> bool {
        self.end != End::NotApplied
    }

    /// Owners that acknowledged, stand-ins not counted.
    pub fn owner_acks(&self) -> usize {
        self.receipt.as_ref().map_or(0, Receipt::owners)
    }
}

#[derive(Default)]
pub struct History {
    pub calls: Vec<Call>,
}

impl History {
    /// Mutations of keys whose name begins with `kind`, with their numbers.
    pub fn mutations(&self, kind: u8) -> impl Iterator<Item = (usize, &Call)> {
        self.calls
            .iter()
            .enumerate()
            .filter(move |(_, call)| !call.op().is_read() && call.request.key.bytes.first() == Some(&kind))
    }

    /// Reads, answered, of keys whose name begins with `kind`.
    pub fn reads(&self, kind: u8) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| {
            call.op().is_read() && call.end == End::Acked && call.request.key.bytes.first() == Some(&kind)
        })
    }
}
