//! Who may ASK: the doors of a node. Each translates its own language to [`crate::data::op`] and back; none decides anything.
//!
//! ```text
//!  redis-cli, any Redis client --TCP or TLS--> resp --\
//!  (the native and HTTP doors stand beside it)         >-- door::Door --> host::Handle --> lanes
//! ```
//!
//! Trusts: the [`door::Door`] to answer every request by its deadline. Does not: know replicas, quorums or storage; it holds no
//! data and no cache, so any node's door answers for any key.

pub mod door;
pub mod http;
pub mod resp;
