//! What can happen, and the order in which it does: by time, then by a draw, so that no order is the only one tried.

use std::cmp::Ordering;

use crate::data::id::StoreId;
use crate::data::op::Response;
use crate::node::turn::Input;
use crate::wire::message::PeerMessage;

pub(super) enum Event {
    Deliver {
        to: usize,
        process: u64,
        from: usize,
        store: StoreId,
        message: PeerMessage,
    },
    Input {
        to: usize,
        process: u64,
        input: Input,
    },
    Turn {
        node: usize,
        process: u64,
    },
    Wake {
        node: usize,
        process: u64,
    },
    Sync {
        node: usize,
        process: u64,
    },
    Resume {
        node: usize,
        process: u64,
    },
    Start {
        node: usize,
    },
    /// A node learns whether another is up; `forced` whatever the truth.
    Notice {
        at: usize,
        of: usize,
        forced: Option<bool>,
    },
    Fault(usize),
    /// One more of a loop of crashes.
    Crash {
        node: usize,
        down_us: u64,
    },
    /// A disk works again; a node that had failed by it is restarted.
    Mend {
        node: usize,
        down_us: u64,
    },
    /// An old copy is put in place of a node's disk.
    Restore {
        node: usize,
        down_us: u64,
    },
    /// A clock that leapt is set right.
    SetClock {
        node: usize,
        skew_ms: i64,
    },
    Reopen {
        from: usize,
        to: usize,
    },
    Client {
        client: usize,
    },
    Try {
        call: usize,
    },
    Answer {
        ticket: u64,
        response: Response,
    },
    GiveUp {
        ticket: u64,
    },
}

pub(super) struct Item {
    pub at_us: u64,
    pub tie: u64,
    pub number: u64,
    pub event: Event,
}

impl Item {
    fn order(&self) -> (u64, u64, u64) {
        (self.at_us, self.tie, self.number)
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}
