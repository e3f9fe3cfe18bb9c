//! The checkers checked: every rule broken on purpose is seen to be, within a bounded number of seeds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewater::node::planted::Planted;
use tidewater::sim::check::Violation;
use tidewater::sim::plan::Aim;
use tidewater::sim::{self, SimOptions};

/// Seeds that are tried for each.
const SEEDS_MAX: u64 = 3_000;

/// In which worlds a bug is looked for, and the first seed that saw it when this was last written down (what `tidewater sim --aim AIM
/// --plant BUG --first` finds). It is tried first. A change of the protocol changes what comes of every seed: then the search is made
/// again, and what is printed belongs here.
const SEEN_AT: &[(Planted, Aim, u64)] = &[
    (Planted::OldRowsHeld, Aim::Usual, 1),
    (Planted::IncarnationResumed, Aim::Usual, 1),
    (Planted::RepliesBeforeCommit, Aim::Usual, 50),
    (Planted::SeenNotAsked, Aim::Usual, 2),
    (Planted::PeersSeenFromOneKey, Aim::Usual, 0),
    (Planted::DeadForgotten, Aim::Usual, 5),
    (Planted::RemovesUnseen, Aim::Usual, 1),
    (Planted::RepairsNotSeen, Aim::FullSyncs, 13),
    (Planted::RemovalsUnnamed, Aim::Usual, 0),
    (Planted::AbsenceRemoves, Aim::Usual, 13),
    (Planted::LogDroppedEarly, Aim::Hints, 1412),
    (Planted::SyncTrustedEarly, Aim::Usual, 1),
    (Planted::SyncTrustedLate, Aim::FullSyncs, 3),
    (Planted::OperationsForgotten, Aim::Usual, 2),
    (Planted::RetriesCountedAgain, Aim::FullSyncs, 29),
    (Planted::FloorsRemoveAll, Aim::Usual, 2),
    (Planted::BlindBelowNewest, Aim::Usual, 1),
    (Planted::StandInsCountAsOwners, Aim::Usual, 0),
    (Planted::AnswersCountTwice, Aim::Usual, 0),
    (Planted::HintsNotKept, Aim::Usual, 0),
    (Planted::HintsDroppedEarly, Aim::Removals, 146),
    (Planted::FsyncClaimed, Aim::Usual, 4),
    (Planted::DeadlinesForgotten, Aim::Usual, 0),
    (Planted::FloorNotAsked, Aim::Removals, 25),
    (Planted::ReadErrorsHidden, Aim::Usual, 28),
    (Planted::NotStampedAgain, Aim::FullSyncs, 9),
    (Planted::StandInsCountAnew, Aim::Hints, 31),
    (Planted::HintsDoubted, Aim::Hints, 5),
    (Planted::FloorsCountedOn, Aim::Hints, 81),
    (Planted::SyncRowsNotSeen, Aim::FullSyncs, 3),
    (Planted::WritesAmidSync, Aim::FullSyncs, 1),
    (Planted::DeadNotSent, Aim::FullSyncs, 464),
    (Planted::TalliesNotAsked, Aim::Hints, 99),
    (Planted::DotsUsedTwice, Aim::Removals, 418),
    (Planted::SyncSourceTrusted, Aim::LostSources, 1),
    (Planted::HintsHoldNothing, Aim::Usual, 0),
    (Planted::LifeReopenedEarly, Aim::OldDisks, 31),
    (Planted::FencesNotAgreed, Aim::Absences, 0),
    (Planted::DroppedRowsServed, Aim::OldDisks, 10),
    (Planted::OwnersNotAsked, Aim::Usual, 2),
    (Planted::PromiseForgotten, Aim::Hints, 0),
    (Planted::TicketsUsedAgain, Aim::Usual, 1),
    (Planted::SeenNotJudged, Aim::Usual, 1),
    (Planted::NewsOfSyncsLost, Aim::LostSources, 1),
    (Planted::FloorOfTheFastest, Aim::Usual, 0),
];

/// What a seed sees of a bug. It is to be the planted bug that was seen, and none of our own.
fn seen(planted: Planted, aim: Aim, seed: u64) -> Option<Violation> {
    let violation = sim::run(seed, &SimOptions { planted, aim, ..SimOptions::default() }).violation?;
    sim::run(seed, &SimOptions { aim, ..SimOptions::default() }).violation.is_none().then_some(violation)
}

fn first_seen(planted: Planted) -> (Aim, Option<(u64, Violation)>) {
    let known = SEEN_AT.iter().find(|(known, ..)| *known == planted);
    let aim = known.map(|(_, aim, _)| *aim).unwrap_or_default();
    let seeds = known.map(|(.., seed)| *seed).into_iter().chain(0..SEEDS_MAX);
    (aim, seeds.into_iter().find_map(|seed| Some((seed, seen(planted, aim, seed)?))))
}

#[test]
fn every_planted_bug_is_seen() {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let Some(planted) = Planted::ALL.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let one = first_seen(planted);
                    found.lock().expect("nothing panics under it").insert(planted, one);
                }
            });
        }
    });
    let found = found.into_inner().expect("nothing panics under it");
    println!("{:<26} {:<11} {:>5}  {:<12} rule", "planted", "worlds", "seeds", "checker");
    for (planted, (aim, seen)) in &found {
        let (seeds, checker) = match seen {
            Some((seed, violation)) => ((seed + 1).to_string(), violation.checker),
            None => ("-".to_string(), "-"),
        };
        println!("{:<26} {:<11} {seeds:>5}  {checker:<12} {}", planted.name(), aim.name(), planted.breaks());
    }
    let missed: Vec<&str> = found.iter().filter(|(_, (_, seen))| seen.is_none()).map(|(bug, _)| bug.name()).collect();
    assert!(missed.is_empty(), "not seen within {SEEDS_MAX} seeds: {missed:?}");
}
