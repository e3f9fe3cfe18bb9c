//! `tidewater-bench`: reads the command line, runs, leaves the results behind.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bench::args::{self, CompareArgs, RunArgs, Verb};
use bench::cluster::Outcome;
use bench::faults::scenarios::{SHIPPED, heading};
use bench::report;
use bench::report::live::{Live, View};
use bench::results::Results;
use bench::run::{Progress, default_folder, run};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let done = match args::parse(words.clone()) {
        Ok(cli) => match cli.verb {
            Some(Verb::Run(args)) => start(&args, &words),
            Some(Verb::Compare(args)) => compare(&args),
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

/// Once a second what happens.
async fn show(mut progress: mpsc::Receiver<Progress>) {
    let mut view = View::stderr();
    let mut phase = String::new();
    let mut live = Live::default();
    let mut answers = 0;
    // That nobody can be shown it is no reason to end a run.
    while let Some(now) = progress.recv().await {
        if now.phase != phase {
            let _ = view.say(&now.phase);
            phase = now.phase;
        }
        if let Some(slice) = now.slice {
            answers += slice.done;
            live = Live {
                at_s: slice.at_s + 1.0,
                total_s: now.measured_s,
                operations: vec![("answers".into(), answers)],
                errors: live.errors + slice.errors,
                stale: live.stale + slice.stale,
                judged: live.judged + slice.judged,
                faults: if now.faults.is_empty() { Vec::new() } else { vec![now.faults] },
                slice,
            };
            let _ = view.show(&live);
        }
    }
    let _ = view.finish();
}

/// Leaves what was measured in the folder, and says what it came to.
fn finish(results: &Results, folder: &Path) -> Outcome<()> {
    let written = report::write(std::slice::from_ref(results), folder)?;
    print!("{}", report::summary(results));
    println!("\nreport      {}", written.page.display());
    Ok(())
}

fn compare(args: &CompareArgs) -> Outcome<bool> {
    let written = report::compare(&args.runs, &args.out)?;
    println!("report      {}", written.page.display());
    Ok(true)
}
