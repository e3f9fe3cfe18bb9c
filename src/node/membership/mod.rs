//! WHO IS UP. The SWIM protocol (through `foca`, whose only door this folder is) as a machine without sockets, clocks or threads.
//!
//! ```text
//!   layout ----set_members----------\
//!   host::gossip                     v
//!     datagram in --handle_datagram--> Membership --poll_transmit--> datagram out
//!     clock --------handle_timeout-->    |    \-----poll_timeout---> when to come back
//!     net ------link_up/link_down-->     \--------poll_event ------> Up, Restarted, Down
//! ```
//!
//! The intuition: every half second a node pings one other; without an answer it asks a few others to ping for it; without any
//! answer it says aloud "I suspect it". The suspect, should it hear that, says "I live" with a higher number; else it is down
//! shortly after. News rides on the pings.
//!
//! Invariants:
//! 1. The layout says who the members are. Liveness never makes or removes a member and never touches who owns what: what is
//!    gossiped about a node outside the member list is dropped at the door, so nothing here outgrows the layout.
//! 2. A node is known by its id; the process behind it by (generation, renewals), and the higher pair wins. A restart raises
//!    the generation, a node that hears that it was declared down raises its renewals and is back.
//! 3. Evidence from the transport is not a verdict: a fresh link makes the node say hello at once, a lost one raises a suspicion
//!    that the suspect can refute through anybody.
//! 4. Same inputs, same seed: same outputs, byte for byte.
//!
//! It trusts that the transport authenticates the sender (`from` is who the certificate says) and delivers datagrams whole or
//! not at all; loss, delay, duplication and reordering are expected. Bytes are hostile until parsed. It does not detect slow
//! nodes, agree on anything, or know addresses.

mod options;
mod packet;
mod swim;

#[cfg(test)]
mod tests;

pub use options::{SwimOptions, SwimOptionsError};
pub use swim::{Membership, MembershipEvent, MembershipStats};
