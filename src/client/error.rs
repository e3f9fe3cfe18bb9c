//! What can go wrong between a program and its cluster, and what state that leaves.

use thiserror::Error;

use crate::data::consistency::Receipt;
use crate::data::id::OpId;
use crate::data::op::{Outcome, RequestError};

/// Why a call did not give what it was asked for. [`ClientError::outcome`] says what became of it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The certificate or the key cannot be used; nothing was sent.
    #[error("the client's identity cannot be used: {cause}")]
    Identity { cause: String },
    /// No seed told the layout; nothing was asked of the data.
    #[error("no node answered: {}", told(.tried))]
    NoSeed {
        /// Each address and what went wrong there.
        tried: Vec<(String, String)>,
    },
    /// A node refused the request, or could not meet it, on the last try.
    #[error("{error}")]
    Refused {
        error: RequestError,
        /// Of all tries together: an earlier one may have been applied though the last was not.
        outcome: Outcome,
        /// What to name a repetition of this mutation, so that it counts once.
        op_id: Option<OpId>,
        /// What the last try achieved.
        receipt: Box<Receipt>,
        attempts: u32,
    },
    /// No node gave an answer in time.
    #[error("no answer within {waited_ms} ms{}: {last}", tries(*.attempts))]
    NoAnswer { last: String, waited_ms: u64, outcome: Outcome, op_id: Option<OpId>, attempts: u32 },
    /// The node answered something else than what was asked: a bug or another version. A mutation may have been applied.
    #[error("the node's answer does not fit the question: wanted {wanted}, got {got}")]
    UnexpectedReply { wanted: &'static str, got: String },
    /// No member of the layout has this id or name; nothing was sent.
    #[error("the layout has no node {node}; it has {members}")]
    UnknownNode { node: String, members: String },
}

fn tries(attempts: u32) -> String {
    if attempts == 1 { String::new() } else { format!(" and {attempts} tries; the last") }
}

fn told(tried: &[(String, String)]) -> String {
    let each: Vec<String> = tried.iter().map(|(address, cause)| format!("{address} ({cause})")).collect();
    if each.is_empty() { "there are no seeds to ask".into() } else { each.join(", ") }
}

impl ClientError {
    /// What became of the request. Reads are never `Unknown`.
    pub fn outcome(&self) -> Outcome {
        match self {
            ClientError::Refused { outcome, .. } | ClientError::NoAnswer { outcome, .. } => *outcome,
            ClientError::UnexpectedReply { .. } => Outcome::Unknown,
            ClientError::Identity { .. } | ClientError::NoSeed { .. } | ClientError::UnknownNode { .. } => {
                Outcome::NotApplied
            }
        }
    }

    /// The name to repeat a mutation under when its outcome is unknown.
    pub fn op_id(&self) -> Option<OpId> {
        match self {
            ClientError::Refused { op_id, .. } | ClientError::NoAnswer { op_id, .. } => *op_id,
            _ => None,
        }
    }

    /// The node's own words, when it was a node that refused.
    pub fn refusal(&self) -> Option<&RequestError> {
        match self {
            ClientError::Refused { error, .. } => Some(error),
            _ => None,
        }
    }

    /// May the same call, made again later, be met?
    pub fn retryable(&self) -> bool {
        match self {
            ClientError::Refused { error, .. } => error.retryable(),
            ClientError::NoAnswer { .. } | ClientError::NoSeed { .. } => true,
            _ => false,
        }
    }
}
