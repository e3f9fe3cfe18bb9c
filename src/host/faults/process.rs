//! What a node does to its own process: stand still for a while, be gone.

use std::io;

/// Stops all threads of this process for `for_ms`, as SIGSTOP from outside does: sockets stay open, the kernel takes packets, nobody
/// answers. Returns when it goes on.
///
/// Before it stops, a timer of the kernel is set that sends this process SIGCONT; it fires whether the process runs or not. A helper
/// process could be killed, or wake a stranger that has got this one's id meanwhile; a timer ends with its process. It repeats every
/// second until it is taken back here, so a stop that comes late is continued too, and so does an outside `kill -CONT` end it early.
pub fn pause(for_ms: u64) -> io::Result<()> {
    // SAFETY: for this plain struct of integers and unions of them all zeroes are a value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGCONT;
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: both pointers are to live locals; the timer is deleted below on every path.
    check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
    let time = libc::itimerspec {
        it_value: libc::timespec { tv_sec: (for_ms / 1_000) as _, tv_nsec: (for_ms % 1_000 * 1_000_000) as _ },
        it_interval: libc::timespec { tv_sec: 1, tv_nsec: 0 },
    };
    // SAFETY: `timer` was created above, `time` lives, and the former time is not asked for. `raise` touches no memory; its signal is
    // this thread's own, so it has been acted upon, and continued, when `raise` returns: only then is the timer taken back.
    unsafe {
        let stopped = check(libc::timer_settime(timer, 0, &time, std::ptr::null_mut()))
            .and_then(|()| check(libc::raise(libc::SIGSTOP)));
        libc::timer_delete(timer);
        stopped
    }
}

/// Nothing is flushed, nobody is told.
pub fn kill() -> ! {
    // SAFETY: `raise` touches no memory.
    unsafe { libc::raise(libc::SIGKILL) };
    // Not reached: this signal cannot be caught, blocked or ignored.
    std::process::abort()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
