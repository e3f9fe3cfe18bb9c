//! How a message becomes bytes and back: one version byte, then bincode (varints, little endian). The one file that names bincode.
//!
//! ```text
//!   | version u8 | bincode of the value ... |
//! ```
//!
//! What it promises to whoever feeds it bytes from outside: it never panics, it reads no further than the slice, it refuses a
//! slice that is longer than the caller allows before looking at it, and it never sets aside much more memory than the sender
//! has sent (see [`decode`]). A value is the whole slice: bytes left over are an error, because they mean that the two sides do
//! not agree on what was said.
//!
//! What it does not do: framing (that is `wire/frame.rs`), checksums (QUIC has them), hashing. Never compare or hash encoded
//! bytes to learn whether two values are equal.

use std::cell::Cell;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version of everything that is said over the wire. A peer that speaks another one is told so and not guessed at.
pub const PROTOCOL_VERSION: u8 = 3;

/// No message is ever longer, whatever limit a caller gives.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

// bincode counts what a value takes in memory, and a one-byte varint may become sixteen bytes (an i128). So the budget is sixteen
// times the slice, rounded up to one of three steps because bincode wants it as a constant.
type Budget<const BYTES: usize> = Configuration<LittleEndian, Varint, Limit<BYTES>>;
const SMALL: usize = 4 << 10;
const MEDIUM: usize = 256 << 10;
const MEMORY_PER_BYTE: usize = 16;

/// Why bytes are not the message they should be. Nothing has been changed by trying.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    #[error("empty message: not even a version byte")]
    Empty,
    #[error(
        "the message speaks protocol version {theirs}, this node speaks {ours}: run the same version on both sides"
    )]
    WrongVersion { theirs: u8, ours: u8 },
    #[error("the message has {size} bytes; at most {limit} are allowed")]
    TooLarge { size: usize, limit: usize },
    #[error("the message ends too early")]
    Truncated,
    #[error("the message asks for more memory than its size allows")]
    Oversized,
    #[error("{left} bytes are left over after the message")]
    Trailing { left: usize },
    #[error("the message is malformed: {detail}")]
    Malformed { detail: String },
}

/// A message longer than this is given away as it was written, and the next begins with new memory.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Where messages are written before their length is known. Empty between two of them.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes of a message.
///
/// ```
/// use tidewater::data::id::Dot;
/// use tidewater::data::id::Incarnation;
/// use tidewater::wire::codec;
///
/// let dot = Dot { incarnation: Incarnation(7), counter: 1 };
/// let bytes = codec::encode(&dot);
/// assert_eq!(codec::decode::<Dot>(&bytes, 1024), Ok(dot));
/// ```
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    struct Append<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    let mut out = SCRATCH.take();
    out.push(PROTOCOL_VERSION);
    bincode::serde::encode_into_writer(value, Append(&mut out), bincode::config::standard())
        .expect("writing to memory does not fail and our types know their lengths");
    if out.len() > SCRATCH_BYTES_MAX {
        return Bytes::from(out);
    }
    // One piece of memory of just the right size, instead of several that grow.
    let bytes = Bytes::copy_from_slice(&out);
    out.clear();
    SCRATCH.set(out);
    bytes
}

/// The message that `bytes` are, all of them. At most `limit` bytes (and never more than [`MESSAGE_BYTES_MAX`]) are looked at.
///
/// A length inside the message is believed only up to a budget that follows from the size of the slice: 64 KiB for a slice of up
/// to 4 KiB, 4 MiB up to 256 KiB, 256 MiB above. So ten hostile bytes cannot make this process set aside a gigabyte.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    let limit = limit.min(MESSAGE_BYTES_MAX);
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit });
    }
    let Some((&version, body)) = bytes.split_first() else {
        return Err(DecodeError::Empty);
    };
    if version != PROTOCOL_VERSION {
        return Err(DecodeError::WrongVersion { theirs: version, ours: PROTOCOL_VERSION });
    }
    let decoded = if body.len() <= SMALL {
        bincode::serde::decode_from_slice(body, budget::<{ SMALL * MEMORY_PER_BYTE }>())
    } else if body.len() <= MEDIUM {
        bincode::serde::decode_from_slice(body, budget::<{ MEDIUM * MEMORY_PER_BYTE }>())
    } else {
        bincode::serde::decode_from_slice(body, budget::<{ 256 << 20 }>())
    };
    let (value, read) = decoded.map_err(|error| match error {
        bincode::error::DecodeError::UnexpectedEnd { .. } => DecodeError::Truncated,
        bincode::error::DecodeError::LimitExceeded => DecodeError::Oversized,
        other => DecodeError::Malformed { detail: other.to_string() },
    })?;
    match body.len() - read {
        0 => Ok(value),
        left => Err(DecodeError::Trailing { left }),
    }
}

fn budget<const BYTES: usize>() -> Budget<BYTES> {
    bincode::config::standard().with_limit::<BYTES>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::consistency::{Ack, Consistency, Level, Receipt};
    use crate::data::decimal::Decimal;
    use crate::data::id::{NodeId, OpId};
    use crate::data::op::{Condition, Key, Op, Reply, Request, RequestError, Response, SetExpiry};
    use crate::wire::client::{ClientMessage, ServerMessage};

    const LIMIT: usize = 1 << 20;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            Just(Op::Get),
            Just(Op::SiblingsGet),
            (bytes(), any::<u64>(), any::<bool>()).prop_map(|(value, at, old)| Op::Set {
                value,
                expiry: SetExpiry::At(at),
                condition: Condition::Absent,
                old
            }),
            (any::<i128>(), any::<bool>()).prop_map(|(by, integer)| Op::Increment { by: Decimal(by), integer }),
            prop::collection::vec(bytes(), 0..8).prop_map(|members| Op::SetAdd { members }),
            prop::collection::vec((bytes(), bytes()), 0..8)
                .prop_map(|fields| Op::HashSet { fields, absent_only: false }),
        ]
    }

    fn request() -> impl Strategy<Value = ClientMessage> {
        (any::<u64>(), bytes(), op(), any::<[u8; 10]>(), any::<u64>()).prop_map(
            |(ticket, key, op, random, timeout_us)| ClientMessage::Request {
                ticket,
                request: Request {
                    consistency: Consistency { write: Level::Count(2), ..Consistency::default() },
                    timeout_us,
                    op_id: Some(OpId::new(ticket, random)),
                    ..Request::new(Key::new(key), op)
                },
            },
        )
    }

    fn response() -> impl Strategy<Value = ServerMessage> {
        let result = prop_oneof![
            bytes().prop_map(|value| Ok(Reply::Value(Some(value)))),
            prop::collection::vec(bytes(), 0..8).prop_map(|members| Ok(Reply::Members(members))),
            any::<i128>().prop_map(|number| Ok(Reply::Decimal(Decimal(number)))),
            ".*".prop_map(|text| Err(RequestError::Protocol(text))),
        ];
        (any::<u64>(), result, any::<u64>()).prop_map(|(ticket, result, node)| ServerMessage::Response {
            ticket,
            response: Response {
                result,
                receipt: Receipt {
                    acks: vec![Ack { node: NodeId(node), zone: 3, stand_in_for: Some(NodeId(ticket)), fsynced: true }],
                    ..Receipt::default()
                },
            },
        })
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_heard(request in request(), response in response()) {
            prop_assert_eq!(decode::<ClientMessage>(&encode(&request), LIMIT), Ok(request));
            prop_assert_eq!(decode::<ServerMessage>(&encode(&response), LIMIT), Ok(response));
        }

        #[test]
        fn hostile_bytes_are_an_answer(mut noise in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<ClientMessage>(&noise, LIMIT);
            if let Some(first) = noise.first_mut() {
                *first = PROTOCOL_VERSION;
            }
            let _ = decode::<ClientMessage>(&noise, LIMIT);
            let _ = decode::<ServerMessage>(&noise, LIMIT);
        }

        #[test]
        fn a_damaged_message_is_refused_or_another_message(
            request in request(), at in any::<prop::sample::Index>(), bit in 0..8_u8
        ) {
            let mut bytes = encode(&request).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode::<ClientMessage>(&bytes, LIMIT);
        }

        #[test]
        fn a_prefix_is_never_a_message(request in request(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&request);
            let cut = cut.index(bytes.len());
            prop_assert!(decode::<ClientMessage>(&bytes[..cut], LIMIT).is_err());
        }

        #[test]
        fn what_follows_a_message_is_refused(request in request(), extra in 1..9_usize) {
            let mut bytes = encode(&request).to_vec();
            bytes.resize(bytes.len() + extra, 0);
            prop_assert_eq!(decode::<ClientMessage>(&bytes, LIMIT), Err(DecodeError::Trailing { left: extra }));
        }
    }

    #[test]
    fn a_message_does_not_know_the_one_before() {
        let (long, short) = (vec![7_u8; 3 * SCRATCH_BYTES_MAX], vec![9_u8; 300]);
        for message in [&short, &long, &short, &Vec::new(), &long, &short] {
            assert_eq!(decode::<Vec<u8>>(&encode(message), LIMIT).as_ref(), Ok(message));
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&5_u64).to_vec();
        bytes[0] = 9;
        let error = decode::<u64>(&bytes, LIMIT).expect_err("another version");
        assert_eq!(error, DecodeError::WrongVersion { theirs: 9, ours: PROTOCOL_VERSION });
        assert!(error.to_string().contains('9'));
        assert_eq!(decode::<u64>(&[], LIMIT), Err(DecodeError::Empty));
    }

    #[test]
    fn a_claimed_length_buys_no_memory() {
        // Varint 253: an u64 follows. Claims of 2^60 bytes, of 2^60 strings and of 1 GiB in a slice of ten bytes.
        for claimed in [1_u64 << 60, 1 << 30, u64::MAX] {
            let mut bytes = vec![PROTOCOL_VERSION, 253];
            bytes.extend_from_slice(&claimed.to_le_bytes());
            assert!(decode::<Bytes>(&bytes, LIMIT).is_err());
            assert!(decode::<String>(&bytes, LIMIT).is_err());
            assert!(decode::<Vec<String>>(&bytes, LIMIT).is_err());
            assert!(decode::<std::collections::BTreeMap<String, u64>>(&bytes, LIMIT).is_err());
        }
    }

    #[test]
    fn size_is_judged_before_content() {
        let bytes = encode(&Bytes::from(vec![7; 100]));
        assert_eq!(decode::<Bytes>(&bytes, 50), Err(DecodeError::TooLarge { size: bytes.len(), limit: 50 }));
    }

    #[test]
    fn big_values_and_dense_integers_fit_the_budget() {
        for size in [SMALL - 8, SMALL + 8, MEDIUM + 8, 8 << 20, 20 << 20] {
            let value = Bytes::from(vec![1; size]);
            assert_eq!(decode::<Bytes>(&encode(&value), usize::MAX), Ok(value));
        }
        // The worst case for the budget: sixteen bytes of memory for each byte sent.
        for size in [SMALL - 8, MEDIUM - 8, 4 << 20] {
            let value = vec![0_i128; size];
            assert_eq!(decode::<Vec<i128>>(&encode(&value), usize::MAX), Ok(value));
        }
    }
}
