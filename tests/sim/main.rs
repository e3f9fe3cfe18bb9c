//! The simulator as a test: fresh seeds, and every failure that was ever found, kept.
//!
//! More seeds, and one of them line by line: `tidewater sim --help`.

mod planted;

use tidewater::sim::summary::Summary;
use tidewater::sim::{self, Lines, SimOptions, Verdict};

/// Seeds that broke a promise once, with what was found by them.
const KEPT: &[u64] = &[
    // A late copy of a removal took what was added after the removal had been answered.
    0,
    33,
    117,
    295, // "Nothing happened", said of a mutation that another coordinator was doing.
    31,
    2730, // A retried increment counted twice.
    22,
    98,
    179,
    299,
    978,
    2308,
    7585,
    // Flags read along with strings by some replicas only, and taken for removed.
    4535,
    4712,
    5765,
    7241,
    9634,
    // What one replica removed because another lacked it, a third kept for good.
    7015,
    8308,
    4316,
    6916,
    // A wiped node had nothing to report, and so its peers believed what it had said before.
    1189, // An acknowledgement for an earlier process, taken for one to this.
    6249,
    9704, // Receipts and checkers: what was lost with a disk, what clocks and unseen removals allow.
    326,
    400,
    1546,
    2108,
    2829,
    3315,
    3531,
    3744,
    6035,
    // A full sync did not tell what had been removed before it came. A stand-in's answer for one owner counted for another.
    36,
    470,
    // What had been removed was told without who had removed it, who was lost before he told it himself.
    3994, // A stand-in without room for all hints kept some, and said that it had done nothing.
    6001, // A log entry whose row had been dropped was served as if the row were gone, and what it had superseded stayed.
    1175, // The hint of a clock that was an hour ahead was refused by its owners for that hour.
    4275755885275,
];

/// The usual seeds differ from commit to commit, so that more and more are tried; the same commit tries the same.
fn fresh() -> std::ops::Range<u64> {
    let head = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
    let head = head.map(|out| String::from_utf8_lossy(&out.stdout).chars().take(8).collect::<String>());
    let first = head.ok().and_then(|head| u64::from_str_radix(&head, 16).ok()).unwrap_or(0) * 1000;
    first..first + 300
}

fn told(verdict: &Verdict) -> String {
    let violation = verdict.violation.as_ref().expect("it failed");
    format!(
        "seed {} broke '{}' at {} us: {}\nreplay: cargo run --no-default-features -- sim --seed {} --trace",
        verdict.seed, violation.checker, violation.at_us, violation.message, verdict.seed
    )
}

#[test]
fn seeds_hold() {
    let mut summary = Summary::default();
    for seed in fresh() {
        summary.add(sim::run(seed, &SimOptions::default()));
    }
    let failures: Vec<String> = summary.failures.values().map(told).collect();
    assert!(failures.is_empty(), "{} of {} seeds failed\n{}", failures.len(), summary.seeds, failures.join("\n"));
    // A load that does nothing proves nothing.
    for met in ["calls_acked", "duplicates_total", "full_syncs_total", "hints_delivered_total", "read_repairs_total"] {
        assert!(summary.coverage.get(met).is_some_and(|count| *count > 0), "{met} was never met");
    }
}

#[test]
fn kept_seeds_hold() {
    for &seed in KEPT {
        let verdict = sim::run(seed, &SimOptions::default());
        assert!(verdict.violation.is_none(), "{}", told(&verdict));
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..3 {
        let one = sim::run(seed, &SimOptions::default());
        let two = sim::run(seed, &SimOptions { lines: Lines::Tail, ..SimOptions::default() });
        assert_eq!(one.trace_hash, two.trace_hash, "seed {seed}");
    }
}
