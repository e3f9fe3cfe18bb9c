//! WHAT a node decides. Pure: time, seeds and views are handed in; nothing here reads a clock, a socket or a disk of its own.
//!
//! ```text
//!            Input ──> shard (one match) ──┬── coordinator   the life of a request: route, gather, decide, replicate
//!                                          ├── replica       rows, seen, log; applying, reading, minting
//!                                          ├── hints         what is kept for owners that are away
//!                                          ├── exchange      who lacks what, and asking for it
//!                                          ├── repair        what a read found lacking, looked at again
//!                                          ├── floor         what nobody needs any more
//!                                          ├── fence         who was away for so long that it must come back empty
//!                                          └── scrub         whether owners really hold the same
//!            datagrams ──> membership ──> who is up
//! ```
//! A lane's turn: inputs are handled one by one over one overlay of the store; the overlay is committed once; only then is the outbox
//! sent and answered. Whatever is said is therefore on disk before it is said.
//!
//! It trusts the store to be atomic and honest about errors, and the layout about ownership. It does not trust clocks, liveness or
//! the order, number and freshness of messages.

pub mod coordinator;
pub mod exchange;
pub mod fence;
pub mod floor;
pub mod hints;
pub mod membership;
pub mod planted;
pub mod repair;
pub mod replica;
pub mod scrub;
pub mod shard;
pub mod turn;
