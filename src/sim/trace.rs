//! What happened, as one number and, if asked, one line for each event.

use std::collections::VecDeque;

use crate::data::id::mix64;

/// Lines kept when only the end of a failing run is of interest.
const TAIL_LINES: usize = 400;

#[derive(Default)]
pub struct Trace {
    hash: u64,
    pub events: u64,
    lines: Option<VecDeque<String>>,
    whole: bool,
}

impl Trace {
    /// `keep`: lines are written. `whole`: all of them stay.
    pub fn new(keep: bool, whole: bool) -> Self {
        Self { lines: keep.then(VecDeque::new), whole, ..Self::default() }
    }

    /// Enters an event into the hash: never addresses, never text.
    pub fn mark(&mut self, words: &[u64]) {
        self.events += 1;
        for word in words {
            self.hash = mix64(self.hash ^ word).wrapping_mul(0x2545_f491_4f6c_dd1d);
        }
    }

    pub fn line(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if !self.whole && lines.len() >= TAIL_LINES {
                lines.pop_front();
            }
            lines.push_back(line());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }
}
