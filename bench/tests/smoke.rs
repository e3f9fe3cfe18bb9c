//! Whole runs of `tidewater-bench` on real nodes. Left out when the program `tidewater` is not beside it: `cargo build` makes it.

use std::path::Path;
use std::process::{Command, Output};

use bench::results::Results;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidewater-bench");

fn bench(words: &[&str]) -> Output {
    Command::new(PROGRAM).args(words).output().expect("the program was built for this test")
}

/// What a run with these words leaves behind; `None`: there is no node to run.
fn run(port: &str, words: &[&str]) -> Option<Results> {
    if !Path::new(PROGRAM).with_file_name("tidewater").exists() {
        eprintln!("left out: there is no tidewater beside {PROGRAM}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let usual = ["--port", port, "--keys", "300", "--connections", "8", "--warm-up", "500ms", "--out"];
    let all: Vec<&str> = ["run"].iter().chain(words).chain(&usual).copied().chain(out.to_str()).collect();
    let ended = bench(&all);
    let told = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{told}");
    let json = std::fs::read(out.join("results.json")).expect("results");
    Some(serde_json::from_slice(&json).expect("results of this version"))
}

#[test]
fn a_node_is_killed_and_nothing_is_lost() {
    let words = ["--duration", "6s", "--delete-share", "0.1", "--fault", "at 1s kill n2 for 2s"];
    let Some(results) = run("22100", &words) else { return };
    let check = &results.check;
    assert!(check.verified > 0 && check.keys_read_at_end == 300, "{check:?}");
    assert_eq!(check.lost + check.duplicated + check.resurrected + check.invented, 0, "{check:?}");
    assert_eq!((results.slices.len(), results.faults.len(), results.healings.len()), (6, 1, 1));
    let fault = &results.faults[0];
    assert!(fault.text == "kill n2" && fault.to_s.is_some_and(|to| to > fault.from_s), "{fault:?}");
    assert!(results.slices.iter().map(|slice| slice.done).sum::<u64>() > 0);
    let names: Vec<&str> = results.operations.iter().map(|operation| operation.name.as_str()).collect();
    assert_eq!(names, ["read", "update", "delete"]);
    assert!(!results.receipts.is_empty() && results.staleness.iter().any(|levels| levels.buckets[0].reads > 0));
    assert!(results.cost.server_cpu_us_per_operation.is_some_and(|us| us > 0.0));
}

#[test]
fn counters_over_redis_protocol_by_the_clock() {
    let words = ["--duration", "3s", "--protocol", "resp", "--workload", "counter", "--rate", "200"];
    let Some(results) = run("22120", &words) else { return };
    let check = &results.check;
    assert!(check.verified > 0 && check.keys_read_at_end == 300, "{check:?}");
    assert_eq!(check.lost + check.duplicated + check.invented + check.stale_against_promise, 0, "{check:?}");
    assert_eq!(results.setting.offered_rate, Some(200.0));
    let asked: u64 = results.operations.iter().map(|operation| operation.latency.count).sum();
    let failed: u64 = results.operations.iter().flat_map(|operation| &operation.errors).map(|(_, times)| times).sum();
    assert!((590..=610).contains(&(asked + failed)), "{asked} answered and {failed} failed of 600");
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_begins() {
    for (words, told) in [
        (&["run", "--workload", "z"][..], "use one of a, b"),
        (&["run", "no-such-scenario"], "neither a scenario (canonical"),
        (&["run", "--fault", "at 1s explode n1"], "column 7: 'explode' is no fault"),
        (&["run", "wipe", "--duration", "3s"], "make it longer"),
    ] {
        let ended = bench(words);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains(told), "{words:?}: {said}");
    }
    assert_eq!(bench(&["run", "--keys", "0"]).status.code(), Some(2));
    let listed = bench(&["scenarios"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("canonical"));
}
