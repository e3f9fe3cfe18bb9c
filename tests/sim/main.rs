//! The simulator as a test: fresh seeds, and every failure that was ever found, kept.
//!
//! `TIDEWATER_SIM_SEEDS=A..B` runs a range of seeds instead of the usual ones; `TIDEWATER_SIM_SEED=N` runs one and prints what
//! happened.

use std::collections::BTreeMap;
use std::time::Instant;

use tidewater::sim::{self, Lines, SimOptions, Verdict};

/// Seeds that broke a promise once, with what was found by them.
const KEPT: &[u64] = &[
    // A late copy of a removal took what was added after the removal had been answered.
    0, 33, 117, 295, // "Nothing happened", said of a mutation that another coordinator was doing.
    31, 2730, // A retried increment counted twice.
    22, 98, 179, 299, 978, 2308, 7585,
    // Flags read along with strings by some replicas only, and taken for removed.
    4535, 4712, 5765, 7241, 9634,
    // What one replica removed because another lacked it, a third kept for good.
    7015, 8308, 4316, 6916,
    // A wiped node had nothing to report, and so its peers believed what it had said before.
    1189, // An acknowledgement for an earlier process, taken for one to this.
    6249, 9704, // Receipts and checkers: what was lost with a disk, what clocks and unseen removals allow.
    326, 400, 1546, 2108, 2829, 3315, 3531, 3744, 6035,
];

/// The usual seeds differ from commit to commit, so that more and more are tried; the same commit tries the same.
fn range() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("TIDEWATER_SIM_SEEDS") else {
        let head = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
        let head = head.map(|out| String::from_utf8_lossy(&out.stdout).chars().take(8).collect::<String>());
        let first = head.ok().and_then(|head| u64::from_str_radix(&head, 16).ok()).unwrap_or(0) * 1000;
        return first..first + 300;
    };
    let (from, to) = text.split_once("..").expect("TIDEWATER_SIM_SEEDS is A..B");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn fail(verdict: &Verdict) -> ! {
    let violation = verdict.violation.as_ref().expect("it failed");
    panic!(
        "seed {} broke '{}' at {} us: {}\nreplay: TIDEWATER_SIM_SEED={} cargo test --no-default-features --test sim one_seed -- --nocapture",
        verdict.seed, violation.checker, violation.at_us, violation.message, verdict.seed
    );
}

#[test]
fn seeds_hold() {
    let begun = Instant::now();
    let mut failed: Vec<Verdict> = Vec::new();
    let mut coverage: BTreeMap<String, u64> = BTreeMap::new();
    let (mut events, mut simulated_us, mut level_us, mut runs) = (0, 0, 0, 0);
    for seed in range() {
        let verdict = sim::run(seed, &SimOptions::default());
        runs += 1;
        events += verdict.events;
        simulated_us += verdict.simulated_us;
        level_us = level_us.max(verdict.level_after_us);
        for (name, count) in &verdict.coverage {
            *coverage.entry(name.clone()).or_insert(0) += count;
        }
        if verdict.violation.is_some() {
            failed.push(verdict);
        }
    }
    println!(
        "{runs} seeds, {events} events, {} simulated s in {} ms, level within {} ms",
        simulated_us / 1_000_000,
        begun.elapsed().as_millis(),
        level_us / 1000
    );
    for (name, count) in &coverage {
        println!("{count:>12}  {name}");
    }
    let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for verdict in &failed {
        kinds.entry(verdict.violation.as_ref().expect("failed").checker).or_default().push(verdict.seed);
    }
    for (kind, seeds) in &kinds {
        println!("FAILED {kind}: {} seeds, {:?}", seeds.len(), &seeds[..seeds.len().min(12)]);
    }
    for verdict in failed.iter().take(40) {
        let violation = verdict.violation.as_ref().expect("failed");
        let message: String = violation.message.chars().take(400).collect();
        println!("seed {}: {}: {message}", verdict.seed, violation.checker);
    }
    if let Some(verdict) = failed.first() {
        fail(verdict);
    }
}

#[test]
fn kept_seeds_hold() {
    for &seed in KEPT {
        let verdict = sim::run(seed, &SimOptions::default());
        if verdict.violation.is_some() {
            fail(&verdict);
        }
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

#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("TIDEWATER_SIM_SEED") else { return };
    let seed = seed.parse().expect("a number");
    let verdict = sim::run(seed, &SimOptions { lines: Lines::All, ..SimOptions::default() });
    for line in &verdict.lines {
        println!("{line}");
    }
    println!("hash {:016x}, coverage {:#?}", verdict.trace_hash, verdict.coverage);
    if verdict.violation.is_some() {
        fail(&verdict);
    }
}
