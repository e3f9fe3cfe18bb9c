//! What an endpoint has counted since it was bound. Written by tasks, read by whoever reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Live counters of one endpoint.
#[derive(Debug, Default)]
pub struct NetStats {
    pub(super) links_dialled: AtomicU64,
    pub(super) links_accepted: AtomicU64,
    pub(super) links_closed: AtomicU64,
    pub(super) dials_failed: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) handshakes_refused: AtomicU64,
    pub(super) bad_frames: AtomicU64,
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) queue_full: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    pub links_dialled: u64,
    pub links_accepted: u64,
    /// Links open now: dialled + accepted - closed.
    pub links_closed: u64,
    pub dials_failed: u64,
    /// Others' handshakes that failed: foreign certificates, port scans, silence.
    pub handshakes_failed: u64,
    /// Others' handshakes not begun because too many were under way.
    pub handshakes_refused: u64,
    /// Links closed because of a frame that was none.
    pub bad_frames: u64,
    pub frames_sent: u64,
    pub bytes_sent: u64,
    pub frames_received: u64,
    pub bytes_received: u64,
    /// Frames refused because a queue was full.
    pub queue_full: u64,
}

impl NetStats {
    pub fn counts(&self) -> NetCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetCounts {
            links_dialled: read(&self.links_dialled),
            links_accepted: read(&self.links_accepted),
            links_closed: read(&self.links_closed),
            dials_failed: read(&self.dials_failed),
            handshakes_failed: read(&self.handshakes_failed),
            handshakes_refused: read(&self.handshakes_refused),
            bad_frames: read(&self.bad_frames),
            frames_sent: read(&self.frames_sent),
            bytes_sent: read(&self.bytes_sent),
            frames_received: read(&self.frames_received),
            bytes_received: read(&self.bytes_received),
            queue_full: read(&self.queue_full),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
