//! `tidewater-bench`: reads the command line, runs, leaves the results behind.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bench::args::{self, RunArgs, Verb};
use bench::cluster::Outcome;
use bench::faults::scenarios::{SHIPPED, heading};
use bench::results::Results;
use bench::run::{Progress, default_folder, run};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let done = match args::parse(words.clone()) {
        Ok(cli) => match cli.verb {
            Some(Verb::Run(args)) => start(&args, &words),
            Some(Verb::Scenarios) | None => {
                for (name, text) in SHIPPED {
                    println!("{name:10} {}", heading(text));
                }
                return ExitCode::SUCCESS;
            }
        },
        Err(message) => {
            eprintln!("tidewater-bench: {message}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(is_true) => ExitCode::from(u8::from(!is_true)),
        Err(error) => {
            eprintln!("tidewater-bench: {error}");
            ExitCode::from(1)
        }
    }
}

/// False: something was found that must not be.
fn start(args: &RunArgs, words: &[String]) -> Outcome<bool> {
    let folder = args.out.clone().unwrap_or_else(default_folder);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(async {
        let (tell, progress) = mpsc::channel(256);
        let shown = tokio::spawn(show(progress));
        let results = tokio::select! {
            results = run(args, words, &tell) => results,
            () = told_to_stop() => Err("stopped before the end: there are no results".into()),
        };
        drop(tell);
        let _ = shown.await;
        results
    })?;
    finish(&results, &folder)?;
    let check = &results.check;
    let wrong = check.lost + check.duplicated + check.resurrected + check.invented + check.stale_against_promise;
    Ok(wrong == 0)
}

/// By Ctrl-C or by a signal; where signals cannot be heard, never.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// One line per second.
async fn show(mut progress: mpsc::Receiver<Progress>) {
    let mut phase = String::new();
    while let Some(now) = progress.recv().await {
        if now.phase != phase {
            println!("{}", now.phase);
            phase = now.phase;
        }
        if let Some(slice) = now.slice {
            println!(
                "{:4.0}/{:.0} s  {:7}/s  p50 {:6} us  p99 {:7} us  max {:8} us  {:6} errors  {:5} stale  behind {}  {}",
                slice.at_s + 1.0,
                now.measured_s,
                slice.done,
                slice.p50_us,
                slice.p99_us,
                slice.max_us,
                slice.errors,
                slice.stale,
                slice.behind.map_or("?".into(), |behind| behind.to_string()),
                now.faults
            );
        }
    }
}

/// Leaves what was measured in the folder, and says what it came to.
fn finish(results: &Results, folder: &Path) -> Outcome<()> {
    let path = folder.join("results.json");
    fs::write(&path, serde_json::to_vec_pretty(results)?).map_err(|error| format!("{}: {error}", path.display()))?;
    for operation in &results.operations {
        let latency = &operation.latency;
        println!(
            "{:18} {:12} {:9}  p50 {:6} us  p99 {:7} us  p99.9 {:7} us  max {:8} us",
            operation.name,
            operation.level,
            latency.count,
            latency.p50_us,
            latency.p99_us,
            latency.p999_us,
            latency.max_us
        );
        for (why, times) in &operation.errors {
            println!("{:31} {times:9}  {why}", "");
        }
    }
    for healing in &results.healings {
        let after = healing.level_after_s.map_or("not seen".into(), |after| format!("{after:.1} s"));
        println!("healed at {:.1} s, level after {after}", healing.healed_at_s);
    }
    let (check, cost) = (&results.check, &results.cost);
    println!(
        "checked {} answers, then {} keys at the end: lost {}, duplicated {}, resurrected {}, invented {}, stale {} ({} against the \
         promise), unknown outcomes {}",
        check.verified,
        check.keys_read_at_end,
        check.lost,
        check.duplicated,
        check.resurrected,
        check.invented,
        check.stale,
        check.stale_against_promise,
        check.unknown
    );
    for example in &check.examples {
        println!("  {example}");
    }
    let server = cost.server_cpu_us_per_operation.map(|us| format!(", servers {us:.1} us")).unwrap_or_default();
    println!(
        "CPU per operation: load {:.1} us ({:.0} % of the machine){server}",
        cost.own_cpu_us_per_operation,
        cost.own_cpu_share * 100.0
    );
    println!("results in {}", folder.display());
    Ok(())
}
