//! The clocks and the random bits of a process that is a client and no node.
//!
//! A client may not see `host`, where a node's clock lives, so what both need stands in the room that both may see. Nothing that
//! is decided depends on it: the wall clock only dates operation ids, the random bits make them unique and spread retries.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use tokio::time::Instant;

/// A moment on the clock that timeouts are counted by.
pub fn instant() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970 as this machine believes. A clock before 1970 reads 0.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Random bytes, by a generator of this thread that is seeded by the operating system: a call of it for each operation would cost more
/// than all else that is done with the bytes.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// 64 random bits.
pub fn random_u64() -> u64 {
    u64::from_le_bytes(random_bytes())
}
