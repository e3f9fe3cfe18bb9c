//! When the next request is due. A closed loop sends when it has been answered; an open loop by the clock, whatever happens.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

/// Moments at a fixed distance, a share of the whole rate for each worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    first_us: f64,
    every_us: f64,
    sent: u64,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send; it should have been sent at this time.
    Now(u64),
    /// Nothing until this time.
    At(u64),
    /// So many could not be sent in time.
    Missed(u64),
}

impl Pace {
    /// Of `workers` that make `rate` requests a second together, the one with this number; they take turns.
    pub fn new(from_us: u64, rate: f64, workers: usize, number: usize) -> Self {
        let every_us = 1e6 * workers as f64 / rate;
        Self { first_us: from_us as f64 + every_us * number as f64 / workers as f64, every_us, sent: 0 }
    }

    fn next_us(&self) -> u64 {
        (self.first_us + self.every_us * self.sent as f64) as u64
    }

    /// Takes what is due. Whatever is later than `patience_us` is given up at once.
    pub fn due(&mut self, now_us: u64, patience_us: u64) -> Due {
        let next = self.next_us();
        if next > now_us {
            return Due::At(next);
        }
        let late = now_us - next;
        if late > patience_us {
            let missed = ((late - patience_us) as f64 / self.every_us).ceil().max(1.0) as u64;
            self.sent += missed;
            return Due::Missed(missed);
        }
        self.sent += 1;
        Due::Now(next)
    }

    /// How many were due before `until_us` and have not been taken.
    pub fn left(&self, until_us: u64) -> u64 {
        let left_us = until_us as f64 - (self.first_us + self.every_us * self.sent as f64);
        if left_us <= 0.0 { 0 } else { (left_us / self.every_us).ceil() as u64 }
    }
}

/// Wakes at a moment, to some 50 microseconds: the runtime's own timer counts in milliseconds.
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes two integers and gives a descriptor or -1.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made and belongs to nobody else.
        let timer = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: `timer` is moved in and never replaced, so that it stays open for as long as it is registered.
        Ok(Self { timer: unsafe { AsyncFd::register(timer)? } })
    }

    pub async fn sleep(&self, longest: Duration) -> io::Result<()> {
        // Zero would switch the timer off.
        let nanos = longest.as_nanos().clamp(1, i64::MAX as u128) as i64;
        let value = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
        let once = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the descriptor is open, `once` is whole, and the old setting is not asked for.
        if unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &once, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        loop {
            let mut ready = self.timer.readable().await?;
            let mut times = 0_u64;
            // SAFETY: the descriptor is open and `times` has the eight bytes that are read.
            let read = unsafe { libc::read(self.timer.as_raw_fd(), (&raw mut times).cast(), 8) };
            if read == 8 {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_turns_at_the_rate() {
        let mut paces: Vec<Pace> = (0..4).map(|number| Pace::new(1_000, 1_000.0, 4, number)).collect();
        let first: Vec<Due> = paces.iter_mut().map(|pace| pace.due(0, 1_000)).collect();
        assert_eq!(first, [Due::At(1_000), Due::At(2_000), Due::At(3_000), Due::At(4_000)]);
        assert_eq!(paces[1].due(2_500, 1_000), Due::Now(2_000));
        assert_eq!(paces[1].due(2_500, 1_000), Due::At(6_000));
    }

    #[test]
    fn what_is_too_late_is_counted_and_the_rest_is_charged_for_its_waiting() {
        let mut pace = Pace::new(0, 1_000.0, 1, 0);
        assert_eq!(pace.due(10_500, 5_000), Due::Missed(6));
        assert_eq!(pace.due(10_500, 5_000), Due::Now(6_000));
        assert_eq!(pace.due(10_500, 5_000), Due::Now(7_000));
        assert_eq!(pace.left(20_000), 12);
        assert_eq!(pace.left(3_000), 0);
    }

    #[tokio::test]
    async fn an_alarm_wakes_again_and_again_and_not_before_its_time() {
        let alarm = Alarm::new().expect("a timer");
        for _ in 0..3 {
            let began = std::time::Instant::now();
            alarm.sleep(Duration::from_micros(300)).await.expect("a timer");
            assert!(began.elapsed() >= Duration::from_micros(300));
        }
    }
}
