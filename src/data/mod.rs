//! WHAT is stored, and the laws by which it merges. Pure: no clock, no randomness, no I/O.
//!
//! ```text
//! Op ──plan──> Delta { Mutation { dot, effects: remove these dots, put this } }
//!                 │ apply, in any order, twice, late
//!                 v
//!     rows: path -> entries with dots          seen: Context (which dots are incorporated)
//!                 │ merge: keep a dot iff both store it, or the one that lacks it has not seen it
//!                 v
//!              Object ──judged at a moment──> Reply
//! ```
//! The laws, held by property tests beside the code and in `tests/laws`: applying deltas commutes and is idempotent; merging rows
//! under contexts commutes, associates and is idempotent; equal states are equal representations.
//!
//! It trusts that one dot is bound to one mutation for ever (the node mints them so). It does not know where anything lives.

pub mod clock;
pub mod consistency;
pub mod context;
pub mod decimal;
pub mod id;
pub mod mutation;
pub mod object;
pub mod op;
pub mod path;
pub mod row;
