//! What all workers share, whatever thread they are on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::keys::Distribution;
use super::workload::Workload;
use crate::check::ledger::Ledger;

/// What all workers share.
pub struct World {
    pub began: Instant,
    pub ledger: Ledger,
    pub workload: Workload,
    pub distribution: Distribution,
    /// The least and the most bytes of a value.
    pub sizes: (u32, u32),
    /// Requests of a worker under way at once.
    pub pipeline: usize,
    /// Altogether, per second; `None`: a closed loop.
    pub rate: Option<f64>,
    pub workers: usize,
    /// Names of the members in the layout's order; none where there is no layout.
    pub members: Vec<String>,
    /// Read and write level together exceed the number of owners.
    pub intersecting: bool,
    /// Microseconds after `began`; set when the run begins.
    pub measured_from_us: AtomicU64,
    pub until_us: AtomicU64,
    /// Faults that are on, and a number that changes with each that comes or goes.
    pub faults_on: AtomicU32,
    pub faults_changed: AtomicU32,
    /// What is on now, for examples.
    pub faults_text: Mutex<String>,
    /// It is over before its time.
    pub stopped: AtomicBool,
}

impl World {
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    pub fn faults_text(&self) -> String {
        let text = self.faults_text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if text.is_empty() { "no fault was on".into() } else { format!("while: {text}") }
    }

    /// The members of these bits, for examples.
    pub fn names(&self, nodes: u64) -> String {
        let names = self.members.iter().take(64).enumerate().filter(|(at, _)| nodes & 1 << at != 0);
        let names: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
        if names.is_empty() { "nodes that are not known".into() } else { names.join(" and ") }
    }

    pub fn health(&self) -> Option<u32> {
        (self.faults_on.load(Ordering::Relaxed) == 0).then(|| self.faults_changed.load(Ordering::Relaxed))
    }

    pub fn length(&self, random: &mut SmallRng) -> u32 {
        let (least, most) = self.sizes;
        if least == most { least } else { random.random_range(least..=most) }
    }
}
