//! The simulator as a test: fresh seeds, and every failure that was ever found, kept.
//!
//! More seeds, and one of them line by line: `tidewater sim --help`.

mod planted;

use tidewater::sim::plan::Aim;
use tidewater::sim::summary::Summary;
use tidewater::sim::{self, Lines, SimOptions, Verdict};

/// Seeds that broke a promise once, by what was found with them.
const KEPT: &[(&str, Aim, &[u64])] = &[
    (
        "a late copy of a removal took what was added after the removal had been answered",
        Aim::Usual,
        &[0, 33, 117, 295],
    ),
    ("'nothing happened', said of a mutation that another coordinator was doing", Aim::Usual, &[31, 2730]),
    ("a retried increment counted twice", Aim::Usual, &[22, 98, 179, 299, 978, 2308, 7585]),
    (
        "flags read along with strings by some replicas only, and taken for removed",
        Aim::Usual,
        &[4535, 4712, 5765, 7241, 9634],
    ),
    (
        "what one replica removed because another lacked it, a third kept for good",
        Aim::Usual,
        &[7015, 8308, 4316, 6916],
    ),
    ("a wiped node had nothing to report, and so its peers believed what it had said before", Aim::Usual, &[1189]),
    ("an acknowledgement for an earlier process, taken for one to this", Aim::Usual, &[6249, 9704]),
    (
        "receipts and checkers: what was lost with a disk, what clocks and unseen removals allow",
        Aim::Usual,
        &[326, 400, 1546, 2108, 2829, 2944, 3266, 3315, 3531, 3744, 6035],
    ),
    (
        "a full sync did not tell what had been removed before; a stand-in's answer for one owner counted for another",
        Aim::Usual,
        &[36, 470],
    ),
    (
        "what had been removed was told without who had removed it, who was lost before he told it himself",
        Aim::Usual,
        &[3994],
    ),
    ("a stand-in without room for all hints kept some, and said that it had done nothing", Aim::Usual, &[6001]),
    (
        "a log entry whose row had been dropped was served as if the row were gone, and what it had superseded stayed",
        Aim::Usual,
        &[1175],
    ),
    (
        "the hint of a clock that was an hour ahead was refused by its owners for that hour",
        Aim::Usual,
        &[4275755885275],
    ),
    ("rows that a full sync had left were entered a page a round", Aim::FullSyncs, &[1130, 1190, 1272, 1302, 1448]),
    ("what a full sync had in its rows, a read in the middle of it took for news", Aim::FullSyncs, &[1117, 2477]),
    ("a write that came as a row before it came itself was not told what stood above it", Aim::FullSyncs, &[1049]),
    ("a mutation made while others were taken had the dot of one of them", Aim::Hints, &[1085]),
    (
        "what a full sync brought beyond its promise was seen by nobody when its sender was wiped",
        Aim::FullSyncs,
        &[5066],
    ),
    ("a request that another node might have done was said not to be, when a read failed", Aim::Usual, &[5136]),
    ("a removal by name looked like a dropped row, and cost a full sync", Aim::Hints, &[1206]),
    ("a removal that was tried again at level one took what had come since", Aim::Usual, &[4960]),
    ("a full sync went on with what its source had left after losing its disk", Aim::FullSyncs, &[173]),
    (
        "a wiped owner was believed to have what it had said before, and had told no more than a digest",
        Aim::Usual,
        &[2503],
    ),
    ("an emptied owner had told what it has seen to those who took nothing from it yet", Aim::Usual, &[2245]),
    (
        "a read counted an increment twice: as one owner's total had it, and as another had it under its id",
        Aim::Usual,
        &[10, 54, 122, 262],
    ),
    (
        "who had dropped a value that ended did not remove what was counted on it, and others kept that for good",
        Aim::OldDisks,
        &[101, 144],
    ),
    (
        "a life began again on the word of one note, under the cut by which another had removed the last of it",
        Aim::Absences,
        &[628, 1096, 1424, 1740, 2973, 3027],
    ),
    (
        "what an emptied member's old store had said was believed, and what it was told before the news of it held for told",
        Aim::Absences,
        &[5347, 5687],
    ),
    (
        "a value written over a count kept the count's deadline, and ended by it when it had been made to persist",
        Aim::Absences,
        &[4631],
    ),
    (
        "a count put in its third place was taken away from the first once more, and not from the second",
        Aim::Retries,
        &[4135749244027],
    ),
    (
        "what a count was taken away by bore the dot of where it was put again, and only one of the two came",
        Aim::FullSyncs,
        &[20607, 21631, 22852, 23478, 23765],
    ),
    ("what a count was taken away by bore the dot of where it was put again", Aim::Hints, &[22048]),
    ("who doubted a report at the end of each round never asked for what it lacked", Aim::Absences, &[8967]),
];
/// Fresh seeds of the usual worlds, and of each other kind.
const USUAL: u64 = 300;
const AIMED: u64 = 60;

/// The first of the fresh seeds. They differ from commit to commit, so that more and more are tried; the same commit tries the same.
fn first() -> u64 {
    let head = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
    let head = head.map(|out| String::from_utf8_lossy(&out.stdout).chars().take(8).collect::<String>());
    head.ok().and_then(|head| u64::from_str_radix(&head, 16).ok()).unwrap_or(0) * 1000
}

fn told(verdict: &Verdict, aim: Aim) -> String {
    let violation = verdict.violation.as_ref().expect("it failed");
    let (seed, checker, message) = (verdict.seed, violation.checker, &violation.message);
    let replay = format!("cargo run --no-default-features -- sim --aim {} --seed {seed} --trace", aim.name());
    format!("seed {seed} broke '{checker}' at {} us: {message}\nreplay: {replay}", violation.at_us)
}

/// Runs fresh seeds; what was met.
fn hold(aim: Aim, count: u64) -> Summary {
    let options = SimOptions { aim, ..SimOptions::default() };
    let first = first();
    let mut summary = Summary::default();
    for seed in first..first + count {
        summary.add(sim::run(seed, &options));
    }
    let failures: Vec<String> = summary.failures.values().map(|verdict| told(verdict, aim)).collect();
    assert!(failures.is_empty(), "{} of {} seeds failed\n{}", failures.len(), summary.seeds, failures.join("\n"));
    summary
}

#[test]
fn seeds_hold() {
    let summary = hold(Aim::Usual, USUAL);
    // A load that does nothing proves nothing.
    for met in ["calls_acked", "duplicates_total", "full_syncs_total", "hints_delivered_total", "read_repairs_total"] {
        assert!(summary.coverage.get(met).is_some_and(|count| *count > 0), "{met} was never met");
    }
}

#[test]
fn seeds_of_every_aim_hold() {
    for aim in Aim::ALL.into_iter().filter(|aim| *aim != Aim::Usual) {
        hold(aim, AIMED);
    }
}

#[test]
fn kept_seeds_hold() {
    for (found, aim, seeds) in KEPT {
        for seed in *seeds {
            let verdict = sim::run(*seed, &SimOptions { aim: *aim, ..SimOptions::default() });
            assert!(verdict.violation.is_none(), "found once: {found}\n{}", told(&verdict, *aim));
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
