//! IS IT TRUE: every answer is compared with what was acknowledged before.
//!
//! ```text
//!   ledger      a few numbers per key: what was begun, acknowledged, unknown      register, counter, members: the rules (pure)
//!   tally       what the verdicts add up to, per thread of the load
//!   last        at the end, all owners are asked for every key once more
//! ```
//!
//! What may be concluded is bounded by what is known. A value that is replaced has one writer at a time, through whichever nodes, so that
//! its sequence numbers tell which acknowledged write is the newer. A write whose outcome is unknown may take effect at any time, and
//! nothing is concluded from meeting it. What was refused as not done must not be met.

pub mod counter;
pub mod last;
pub mod ledger;
pub mod members;
pub mod register;
pub mod tally;
