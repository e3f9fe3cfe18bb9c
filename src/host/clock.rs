//! The only clock and the only entropy. Everything else is told the time and handed its random bits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::data::clock::Now;

/// Microseconds since this process first asked; never goes back.
pub fn mono_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// How far the wall clock is off on purpose (`host::faults`). Of the process, as the clock is.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// Puts the wall clock this far from the machine's, until it is put elsewhere; 0: right.
pub(super) fn set_wall_offset_ms(offset_ms: i64) {
    OFFSET_MS.store(offset_ms, Ordering::Relaxed);
}

/// Milliseconds since 1970 as this machine believes; may jump both ways. A clock before 1970 reads 0.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    ms.saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed))
}

/// Both clocks at this moment.
pub fn now() -> Now {
    Now { mono_us: mono_us(), wall_ms: wall_ms() }
}

/// Random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .expect("an operating system without entropy cannot run a node: incarnations would repeat");
    bytes
}

/// 64 random bits from the operating system.
pub fn random_u64() -> u64 {
    u64::from_le_bytes(random_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_bits_differ() {
        let before = mono_us();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(mono_us() >= before + 2_000);
        assert!(now().wall_ms > 1_700_000_000_000);
        assert_ne!(random_u64(), random_u64());
    }

    #[test]
    fn a_wrong_clock_is_wrong_by_just_that_and_time_still_passes() {
        let true_ms = wall_ms();
        let mono = mono_us();
        set_wall_offset_ms(-3_600_000);
        let wrong_ms = wall_ms();
        set_wall_offset_ms(0);
        let late_ms = (wrong_ms + 3_600_000).checked_sub(true_ms).expect("an hour behind and no more");
        assert!(late_ms < 60_000 && mono_us() >= mono && wall_ms() >= true_ms);
    }
}
