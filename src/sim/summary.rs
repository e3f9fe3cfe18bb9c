//! What a range of seeds came to: how much was simulated, what was met, what broke.

use std::collections::BTreeMap;

use super::Verdict;
use super::plan::Kind;

/// Failures that are kept whole; of more only the count and the seeds are.
const FAILURES_MAX: usize = 100;
/// A range of so many seeds must have met everything in [`RARE`] and every kind of fault.
pub const SEEDS_THAT_MEET_ALL: u64 = 1_000;

/// Paths that a run of many seeds must have been through, by the name of their count, or it has proved less than it seems.
pub const RARE: &[(&str, &str)] = &[
    ("calls_acked", "calls answered as done"),
    ("calls_unknown", "calls of unknown outcome"),
    ("clock_ahead_refused_total", "a stamp refused that was too far ahead"),
    ("counter_rows_dropped_total", "a removed count dropped"),
    ("crash_between_commit_and_send", "a crash between the commit and the sending"),
    ("deadlines_dropped_total", "a deadline dropped with its life"),
    ("delete_rows_dropped_total", "a delete row dropped"),
    ("dots_lost_with_disks", "a write lost with the only disk that had it"),
    ("duplicates_total", "an operation found done"),
    ("exchange_rows_taken_total", "log rows taken in an exchange"),
    ("expired_rows_dropped_total", "what had expired dropped"),
    ("floors_total", "a floor that all members answered"),
    ("forwards_total", "a request sent on to an owner"),
    ("full_syncs_total", "a partition sent whole, since the log no longer had it"),
    ("hedges_total", "a slow owner hedged"),
    ("hints_delivered_total", "hints handed to their owner"),
    ("hints_kept_total", "a hint kept by a stand-in"),
    ("hints_refused_total", "a hint refused for want of room"),
    (
        "hints_collapsed_total",
        "a hint that the other owners took instead, for want of room or because its owner is fenced",
    ),
    ("members_fenced_out", "a member that was away beyond the horizon, emptied and taken back"),
    ("lives_reopened_total", "life 0 begun again after it had ended"),
    ("log_trimmed_total", "log entries dropped that every owner has"),
    ("op_ids_forgotten_total", "operation ids forgotten after their window"),
    ("power_cut_batches_lost", "batches lost with the power"),
    ("pulls_total", "an exchange asked for"),
    ("read_repairs_total", "an owner repaired by a read"),
    ("refused_timeout", "a call told that too few answered in time"),
    ("refused_unavailable", "a call told that too few are up"),
    ("sim_incarnations_minted", "an incarnation minted at a start"),
    ("sim_messages_cut", "messages that met a cut"),
    ("increments_doubted_total", "an increment that two owners' answers may count twice, asked about"),
    ("sim_messages_doubled", "messages that came twice"),
    ("sim_messages_lost", "messages lost"),
    ("sim_messages_not_taken", "messages not taken for sending"),
    ("moved_over_total", "what one that lagged had put, put again where it belongs"),
    ("stamped_again_total", "a write stamped again above a newer one"),
    ("stand_in_coordinated_total", "a write coordinated by a stand-in"),
    ("silent_passed_over_total", "an owner passed over because it had been silent"),
    ("stand_ins_asked_total", "a stand-in asked to keep a write"),
    ("sync_rows_entered_total", "rows entered of a full sync that did not come to its end"),
    ("scrub_partitions_forgotten_total", "a partition that a scrub found to be damaged, taken anew"),
    ("sim_rows_damaged", "a row damaged and nobody told"),
    ("sim_disks_restored", "an old copy of a disk restored"),
    ("sim_inputs_without_room", "a write met a disk that was nearly full"),
    ("stores_failed", "a store that failed and was fenced"),
    ("syncing_refused_total", "a write refused in the middle of a full sync"),
];

/// One kind of fault over a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCount {
    /// How often it struck.
    pub times: u64,
    /// In how many seeds.
    pub seeds: u64,
    /// How many of these broke a promise.
    pub failed: u64,
}

/// Verdicts added up.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub seeds: u64,
    pub events: u64,
    pub simulated_us: u64,
    /// The longest that owners took to hold the same after all had healed.
    pub level_after_max_us: u64,
    pub coverage: BTreeMap<String, u64>,
    pub faults: BTreeMap<&'static str, FaultCount>,
    /// The seeds that failed, by the checker that found it.
    pub failed: BTreeMap<&'static str, Vec<u64>>,
    /// The first failures, by seed.
    pub failures: BTreeMap<u64, Verdict>,
}

impl Summary {
    pub fn add(&mut self, verdict: Verdict) {
        self.seeds += 1;
        self.events += verdict.events;
        self.simulated_us += verdict.simulated_us;
        self.level_after_max_us = self.level_after_max_us.max(verdict.level_after_us);
        for (name, count) in &verdict.coverage {
            *self.coverage.entry(name.clone()).or_insert(0) += count;
        }
        for kind in Kind::ALL {
            let times = verdict.coverage.get(&format!("fault_{}", kind.name())).copied().unwrap_or(0);
            if times > 0 {
                let count = self.faults.entry(kind.name()).or_default();
                count.times += times;
                count.seeds += 1;
                count.failed += u64::from(verdict.violation.is_some());
            }
        }
        if let Some(violation) = &verdict.violation {
            self.failed.entry(violation.checker).or_default().push(verdict.seed);
            self.failures.insert(verdict.seed, verdict);
            if self.failures.len() > FAILURES_MAX {
                self.failures.pop_last();
            }
        }
    }

    pub fn failed_count(&self) -> u64 {
        self.failed.values().map(|seeds| seeds.len() as u64).sum()
    }

    /// What was never met, though so many seeds were run that it should have been: names and what they mean.
    pub fn unmet(&self) -> Vec<(String, &'static str)> {
        if self.seeds < SEEDS_THAT_MEET_ALL {
            return Vec::new();
        }
        let faults = Kind::ALL.map(|kind| (format!("fault_{}", kind.name()), "this kind of fault"));
        let rare = RARE.iter().map(|(name, what)| (name.to_string(), *what));
        rare.chain(faults).filter(|(name, _)| self.coverage.get(name).copied().unwrap_or(0) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::check::Violation;

    fn verdict(seed: u64, coverage: &[(&str, u64)], broke: bool) -> Verdict {
        Verdict {
            seed,
            violation: broke.then(|| Violation { checker: "sets", at_us: 1, message: String::new() }),
            trace_hash: 0,
            coverage: coverage.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            events: 10,
            simulated_us: 1_000,
            level_after_us: seed,
            lines: Vec::new(),
        }
    }

    #[test]
    fn verdicts_add_up() {
        let mut summary = Summary::default();
        summary.add(verdict(1, &[("fault_kill", 2), ("hedges_total", 1)], false));
        summary.add(verdict(2, &[("fault_kill", 1)], true));
        assert_eq!((summary.seeds, summary.events, summary.level_after_max_us), (2, 20, 2));
        assert_eq!(summary.faults["kill"], FaultCount { times: 3, seeds: 2, failed: 1 });
        assert_eq!(summary.failed["sets"], [2]);
        assert_eq!(summary.failed_count(), 1);
    }

    #[test]
    fn what_was_never_met_is_told_once_there_were_seeds_enough() {
        let mut summary = Summary::default();
        for seed in 0..SEEDS_THAT_MEET_ALL {
            assert!(summary.unmet().is_empty(), "too few seeds to tell");
            summary.add(verdict(seed, &[("hedges_total", 1)], false));
        }
        let unmet: Vec<String> = summary.unmet().into_iter().map(|(name, _)| name).collect();
        assert!(unmet.contains(&"fault_wipe".to_string()) && unmet.contains(&"full_syncs_total".to_string()));
        assert!(!unmet.contains(&"hedges_total".to_string()));
    }
}
