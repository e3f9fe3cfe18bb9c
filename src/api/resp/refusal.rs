//! What clients are told when a command is not met: Redis's text where Redis has one, else a first word that programs can tell
//! apart and a sentence that people can act on.
//!
//! | first word | when |
//! |---|---|
//! | `ERR`, `WRONGTYPE`, `NOAUTH`, `WRONGPASS`, `NOPROTO` | as Redis |
//! | `NOREPLICAS` | too few replicas can be reached for the level asked; nothing was written |
//! | `TIMEOUT` | too few replicas answered by the deadline |
//! | `OVERLOADED` | a bound was reached; nothing was written; retry after a pause |
//! | `STOREFAILED` | a node's disk failed; it is fenced until repaired |
//! | `CLOCKAHEAD` | the coordinator's clock is wrong |
//! | `DISCONNECTED` | the link to the coordinator broke before the answer |
//! | `STOPPING` | the node is shutting down: go to another |
//! | `OPIDEXPIRED` | the operation id is older than what is remembered |
//! | `BADCONTEXT`, `SIBLINGS` | `TW.PUT`: a context of another key; too many siblings |
//!
//! A refused mutation that may nevertheless have happened says so in its last words.

use std::borrow::Cow;

use crate::api::resp::frame::Frame;
use crate::data::op::{Outcome, RequestError};

/// An error line.
pub type Refusal = Cow<'static, str>;

pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
pub const NOT_FLOAT: &str = "ERR value is not a valid float";
pub const INFINITE_SUM: &str = "ERR increment would produce NaN or Infinity";
pub const INFINITE: &str = "ERR value is NaN or Infinity";
pub const NO_SUCH_KEY: &str = "ERR no such key";
pub const NO_AUTH: &str = "NOAUTH Authentication required.";
pub const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

pub fn wrong_arity(command: &str) -> Refusal {
    format!("ERR wrong number of arguments for '{command}' command").into()
}

pub fn invalid_expire(command: &str) -> Refusal {
    format!("ERR invalid expire time in '{command}' command").into()
}

/// The error line for a request that was not met.
pub fn of(error: &RequestError) -> Refusal {
    let word = match error {
        RequestError::WrongType => "WRONGTYPE",
        RequestError::Unavailable { .. } => "NOREPLICAS",
        RequestError::Timeout { .. } => "TIMEOUT",
        RequestError::Overloaded(_) => "OVERLOADED",
        RequestError::StoreFailed { .. } => "STOREFAILED",
        RequestError::ClockAhead { .. } => "CLOCKAHEAD",
        RequestError::Disconnected { .. } => "DISCONNECTED",
        RequestError::Stopping { .. } => "STOPPING",
        RequestError::OpIdExpired { .. } => "OPIDEXPIRED",
        RequestError::BadContext => "BADCONTEXT",
        RequestError::TooManySiblings { .. } => "SIBLINGS",
        RequestError::NotInteger
        | RequestError::NotFloat
        | RequestError::HashNotInteger
        | RequestError::HashNotFloat
        | RequestError::Overflow
        | RequestError::KeyTooLarge { .. }
        | RequestError::ValueTooLarge { .. }
        | RequestError::CollectionTooLarge { .. }
        | RequestError::BadConsistency(_)
        | RequestError::FaultRefused(_)
        | RequestError::Protocol(_) => "ERR",
    };
    match error.outcome() {
        Outcome::NotApplied => format!("{word} {error}").into(),
        Outcome::Unknown => format!("{word} {error} (it may have happened: read, or retry with the same TW.ID)").into(),
    }
}

/// The error reply for a request that was not met.
pub fn frame(error: &RequestError) -> Frame {
    Frame::Error(of(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_texts_are_kept_to_the_letter() {
        for (error, text) in [
            (RequestError::WrongType, "WRONGTYPE Operation against a key holding the wrong kind of value"),
            (RequestError::NotInteger, NOT_INTEGER),
            (RequestError::NotFloat, NOT_FLOAT),
            (RequestError::HashNotInteger, "ERR hash value is not an integer"),
            (RequestError::HashNotFloat, "ERR hash value is not a float"),
            (RequestError::Overflow, "ERR increment or decrement would overflow"),
        ] {
            assert_eq!(of(&error), text);
        }
    }

    #[test]
    fn what_may_have_happened_is_said() {
        let missing = vec!["b".to_string()];
        let timeout = RequestError::Timeout { needed: 2, got: 1, missing: missing.clone(), mutation: true };
        assert!(of(&timeout).starts_with("TIMEOUT 1 of 2 replicas answered in time; missing: b (it may have happened"));
        let unavailable = RequestError::Unavailable { needed: 2, reachable: 1, missing };
        assert_eq!(of(&unavailable), "NOREPLICAS needs 2 replicas and only 1 can be reached; missing: b");
    }
}
