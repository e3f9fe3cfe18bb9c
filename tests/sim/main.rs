//! The simulator as a test: fresh seeds, and every failure that was ever found, kept.
//!
//! `TIDEWATER_SIM_SEEDS=A..B` runs a range of seeds instead of the usual ones; `TIDEWATER_SIM_SEED=N` runs one and prints what
//! happened.

use std::collections::BTreeMap;
use std::time::Instant;

use tidewater::sim::{self, Lines, SimOptions, Verdict};

fn range() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("TIDEWATER_SIM_SEEDS") else { return 0..200 };
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
