//! What a native client and a node say to each other. One link carries many requests at once; tickets match answers to them.

use serde::{Deserialize, Serialize};

use crate::data::op::{Key, Request, RequestError, Response, ScanPage, ScanRequest, Whereabouts};
use crate::ring::layout::Layout;
use crate::wire::fault::{FaultOrder, FaultStatus};
use crate::wire::status::{KeyStatus, NodeStatus};

/// Client to node. `ticket` is the client's, unique among its requests under way on this link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ClientMessage {
    Request {
        ticket: u64,
        request: Request,
    },
    Scan {
        ticket: u64,
        scan: ScanRequest,
    },
    Where {
        ticket: u64,
        key: Key,
    },
    Status {
        ticket: u64,
    },
    /// What does this node know of a key?
    Explain {
        ticket: u64,
        key: Key,
    },
    /// Compare all rows with the other owners, now. Answered by a status, which tells how far it has come.
    Scrub {
        ticket: u64,
    },
    /// Answered with the layout and who is up.
    Layout {
        ticket: u64,
    },
    /// Suffer this, if faults are allowed here.
    Fault {
        ticket: u64,
        order: FaultOrder,
    },
}

/// Node to client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum ServerMessage {
    Response {
        ticket: u64,
        response: Response,
    },
    ScanPage {
        ticket: u64,
        page: Result<ScanPage, RequestError>,
    },
    Where {
        ticket: u64,
        whereabouts: Whereabouts,
    },
    Status {
        ticket: u64,
        status: Box<NodeStatus>,
    },
    Explained {
        ticket: u64,
        known: Result<Box<KeyStatus>, RequestError>,
    },
    /// `up[i]` speaks of `layout.members[i]`.
    Layout {
        ticket: u64,
        layout: Layout,
        up: Vec<bool>,
    },
    /// Every fault that is on now; or why nothing was changed.
    Fault {
        ticket: u64,
        status: Result<Box<FaultStatus>, RequestError>,
    },
}
