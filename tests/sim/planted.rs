//! The checkers checked: every rule broken on purpose is seen to be, within a bounded number of seeds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewater::node::planted::Planted;
use tidewater::sim::{self, SimOptions};

/// Seeds that are tried for each.
const SEEDS_MAX: u64 = 3_000;

#[test]
fn every_planted_bug_is_seen() {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let Some(planted) = Planted::ALL.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let options = SimOptions { planted, ..SimOptions::default() };
                    let seen = (0..SEEDS_MAX).find_map(|seed| {
                        let violation = sim::run(seed, &options).violation?;
                        // It is to be the planted bug that was seen.
                        let sound = sim::run(seed, &SimOptions::default()).violation.is_none();
                        sound.then_some((seed, violation))
                    });
                    found.lock().expect("nothing panics under it").insert(planted, seen);
                }
            });
        }
    });
    let found = found.into_inner().expect("nothing panics under it");
    println!("{:<26} {:>6}  {:<12} rule", "planted", "seeds", "checker");
    for (planted, seen) in &found {
        let (seeds, checker) = match seen {
            Some((seed, violation)) => ((seed + 1).to_string(), violation.checker),
            None => ("-".to_string(), "-"),
        };
        println!("{:<26} {seeds:>6}  {checker:<12} {}", planted.name(), planted.breaks());
    }
    let missed: Vec<&str> = found.iter().filter(|(_, seen)| seen.is_none()).map(|(bug, _)| bug.name()).collect();
    assert!(missed.is_empty(), "not seen within {SEEDS_MAX} seeds: {missed:?}");
}
