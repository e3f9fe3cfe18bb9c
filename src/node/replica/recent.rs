//! Operation ids of the last moments, in memory: what answers a door's own retries.

use std::collections::{HashMap, VecDeque}; // lookup only

use serde::{Deserialize, Serialize};

use crate::data::id::{Dot, OpId};

/// About sixty megabytes at most; a door retries for seconds.
const REMEMBERED_MAX: usize = 1 << 19;

/// What an operation became.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    pub dot: Dot,
    /// It is contained in a tally.
    pub tally: bool,
}

#[derive(Default)]
pub struct RecentOps {
    known: HashMap<OpId, Known>, // lookup only
    order: VecDeque<(OpId, u64)>,
}

impl RecentOps {
    pub fn get(&self, op_id: OpId) -> Option<Known> {
        self.known.get(&op_id).copied()
    }

    pub fn insert(&mut self, op_id: OpId, known: Known, at_us: u64) {
        match self.known.get_mut(&op_id) {
            // A retry that was counted on its own meets the tally that contains it: the tally is what counts.
            Some(held) if known.tally && !held.tally => *held = known,
            Some(_) => {}
            None => {
                self.known.insert(op_id, known);
                self.order.push_back((op_id, at_us));
            }
        }
        while self.order.len() > REMEMBERED_MAX {
            self.drop_oldest();
        }
    }

    pub fn forget(&mut self, before_us: u64) {
        while self.order.front().is_some_and(|(_, at_us)| *at_us < before_us) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((op_id, _)) = self.order.pop_front() {
            self.known.remove(&op_id);
        }
    }
}
