//! `tidewater sim`: the simulator by hand. One seed replayed line by line, a range on all cores, or a failing seed made smaller.
//!
//! The same seed gives the same trace, and so the same hash, on every machine and with every number of jobs.

use std::collections::VecDeque;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Output;
use super::args::sim::SimArgs;
use super::progress::Progress;
use super::render::{self, columns};
use super::{CliError, EXIT_FAILED, print};
use crate::net::entropy;
use crate::sim::plan::{Aim, Plan};
use crate::sim::random::Random;
use crate::sim::shrink::{Shrunk, shrink};
use crate::sim::summary::{FaultCount, RARE, Summary};
use crate::sim::{self, Lines, SimOptions, Verdict};

/// Failures that are told in full.
const TOLD_MAX: usize = 20;
/// Seeds of one checker's failures that are listed.
const LISTED_MAX: usize = 12;

pub async fn run(args: SimArgs) -> Result<ExitCode, CliError> {
    // It computes and nothing else, for minutes: not on the runtime's own threads.
    tokio::task::spawn_blocking(move || simulate(&args))
        .await
        .map_err(|error| CliError::failed(format!("the simulation ended early: {error}")))?
}

fn simulate(args: &SimArgs) -> Result<ExitCode, CliError> {
    match (args.seed, args.shrink) {
        (Some(seed), true) => smaller(args, seed),
        (Some(seed), false) => one(args, seed),
        (None, _) => range(args),
    }
}

fn options(args: &SimArgs, lines: Lines) -> SimOptions {
    SimOptions {
        hurt_us: u64::try_from(args.hurt.as_micros()).unwrap_or(u64::MAX),
        lines,
        aim: args.aim,
        planted: args.plant.unwrap_or_default(),
        ..SimOptions::default()
    }
}

fn exit(failed: bool) -> ExitCode {
    if failed { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
}

// --- one seed

fn one(args: &SimArgs, seed: u64) -> Result<ExitCode, CliError> {
    let lines = if args.trace { Lines::All } else { Lines::None };
    let verdict = sim::run(seed, &options(args, lines));
    match args.output {
        Output::Json => print(&format!("{}\n", verdict_json(&verdict)))?,
        Output::Text => {
            let mut out = String::new();
            for line in &verdict.lines {
                let _ = writeln!(out, "{line}");
            }
            let _ = writeln!(out, "seed          {seed}");
            let _ = writeln!(out, "trace hash    {:016x}", verdict.trace_hash);
            let _ = writeln!(out, "simulated     {}", seconds(verdict.simulated_us));
            let _ = writeln!(out, "events        {}", render::count(verdict.events));
            match &verdict.violation {
                None => {
                    let _ = writeln!(out, "level after   {}", seconds(verdict.level_after_us));
                    let _ = writeln!(out, "every promise was kept");
                }
                Some(violation) => {
                    let _ = writeln!(
                        out,
                        "BROKEN        '{}' at {}: {}",
                        violation.checker,
                        seconds(violation.at_us),
                        violation.message
                    );
                    if !args.trace {
                        let _ = writeln!(out, "to see how    {}", command(args, seed, " --trace"));
                    }
                    let _ = writeln!(out, "smaller       {}", command(args, seed, " --shrink"));
                }
            }
            print(&out)?;
        }
    }
    Ok(exit(verdict.violation.is_some()))
}

/// What to type to have this seed again.
fn command(args: &SimArgs, seed: u64, more: &str) -> String {
    let hurt = if args.hurt == SimArgs::HURT { String::new() } else { format!(" --hurt {}ms", args.hurt.as_millis()) };
    let plant = args.plant.map(|planted| format!(" --plant {}", planted.name())).unwrap_or_default();
    let aim = if args.aim == Aim::Usual { String::new() } else { format!(" --aim {}", args.aim.name()) };
    format!("tidewater sim --seed {seed}{aim}{hurt}{plant}{more}")
}

fn verdict_json(verdict: &Verdict) -> Value {
    let violation = verdict
        .violation
        .as_ref()
        .map(|found| json!({ "checker": found.checker, "at_us": found.at_us, "message": found.message }));
    json!({
        "seed": verdict.seed,
        "trace_hash": format!("{:016x}", verdict.trace_hash),
        "violation": violation,
        "events": verdict.events,
        "simulated_us": verdict.simulated_us,
        "level_after_us": verdict.level_after_us,
        "coverage": verdict.coverage,
        "lines": verdict.lines,
    })
}

fn seconds(us: u64) -> String {
    format!("{}.{:03} s", render::count(us / 1_000_000), us / 1_000 % 1_000)
}

// --- a smaller world

fn smaller(args: &SimArgs, seed: u64) -> Result<ExitCode, CliError> {
    let options = options(args, Lines::All);
    let plan = Plan::draw(&Random::new(seed), options.hurt_us, options.aim);
    let whole = plan.clone();
    let progress = Progress::new("shrinking", "smaller worlds", None, args.output == Output::Json);
    let found = shrink(seed, plan, &options, args.tries, |best: &Shrunk| {
        progress.advance(0);
        progress.say(&format!("{} tried: {}", render::count(best.tried), size(&best.plan)));
    });
    progress.finish();
    let Some(found) = found else {
        print(&format!("seed {seed} keeps every promise: there is nothing to shrink\n"))?;
        return Ok(ExitCode::SUCCESS);
    };
    let violation = found.verdict.violation.as_ref().expect("it fails, or nothing would have been found");
    match args.output {
        Output::Json => {
            let mut told = verdict_json(&found.verdict);
            told["plan"] = json!(format!("{:?}", found.plan));
            told["tried"] = json!(found.tried);
            print(&format!("{told}\n"))?;
        }
        Output::Text => {
            let mut out = String::new();
            if args.trace {
                for line in &found.verdict.lines {
                    let _ = writeln!(out, "{line}");
                }
            }
            let _ = writeln!(out, "from    {}", size(&whole));
            let _ = writeln!(out, "to      {}", size(&found.plan));
            let _ =
                writeln!(out, "BROKEN  '{}' at {}: {}", violation.checker, seconds(violation.at_us), violation.message);
            let _ = writeln!(out, "plan    {:#?}", found.plan);
            if !args.trace {
                let _ = writeln!(out, "to see how    {}", command(args, seed, " --shrink --trace"));
            }
            print(&out)?;
        }
    }
    Ok(exit(true))
}

fn size(plan: &Plan) -> String {
    format!(
        "{} nodes, {} owners, {} partitions, {} clients, {} keys of a kind, {} of trouble with {}",
        plan.nodes,
        plan.replicas,
        plan.partitions,
        plan.clients,
        plan.keys,
        seconds(plan.hurt_us),
        render::counted(plan.faults.len() as u64, "fault")
    )
}

// --- a range

fn range(args: &SimArgs) -> Result<ExitCode, CliError> {
    let seeds = args.seeds.clone();
    let count = seeds.end - seeds.start;
    let jobs = match args.jobs {
        Some(jobs) => usize::from(jobs),
        None => std::thread::available_parallelism().map_or(1, |count| count.get()),
    };
    let progress = Progress::new("simulating", "seeds", Some(count), args.output == Output::Json);
    let begun = entropy::instant();
    let left: Mutex<VecDeque<u64>> = Mutex::new(seeds.clone().collect());
    let summary = Mutex::new(Summary::default());
    let options = options(args, Lines::None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = left.lock().expect("no panic is possible under the lock").pop_front();
                    let Some(seed) = seed else { break };
                    let verdict = sim::run(seed, &options);
                    if let Some(violation) = &verdict.violation {
                        if args.first {
                            left.lock().expect("no panic is possible under the lock").clear();
                        }
                        progress.say(&format!("seed {seed} broke '{}': {}", violation.checker, violation.message));
                    }
                    progress.advance(0);
                    summary.lock().expect("no panic is possible under the lock").add(verdict);
                }
            });
        }
    });
    progress.finish();
    let summary = summary.into_inner().expect("no panic is possible under the lock");
    let took = entropy::instant() - begun;
    match args.output {
        Output::Json => print(&format!("{}\n", summary_json(args, &summary, took)))?,
        Output::Text => print(&summary_text(args, &summary, took))?,
    }
    Ok(exit(summary.failed_count() > 0 || !unmet(args, &summary).is_empty()))
}

/// What should have been met. Of worlds with an aim it is not expected that they meet everything.
fn unmet(args: &SimArgs, summary: &Summary) -> Vec<(String, &'static str)> {
    if args.aim == Aim::Usual { summary.unmet() } else { Vec::new() }
}

fn summary_text(args: &SimArgs, summary: &Summary, took: Duration) -> String {
    let mut out = String::new();
    let simulated_s = summary.simulated_us / 1_000_000;
    let _ = writeln!(
        out,
        "{} seeds, {} events, {} simulated seconds ({:.1} hours) in {}: level within {} of healing\n",
        render::count(summary.seeds),
        render::count(summary.events),
        render::count(simulated_s),
        simulated_s as f64 / 3_600.0,
        render::duration(took),
        seconds(summary.level_after_max_us)
    );
    let mut rows = vec![["FAULT", "TIMES", "SEEDS", "FAILED"].map(str::to_owned).to_vec()];
    for (name, FaultCount { times, seeds, failed }) in &summary.faults {
        rows.push(vec![name.to_string(), render::count(*times), render::count(*seeds), render::count(*failed)]);
    }
    out.push_str(&columns(&rows));
    out.push('\n');
    let mut rows = vec![["PATH", "TIMES", "WHAT"].map(str::to_owned).to_vec()];
    for (name, what) in RARE {
        let count = summary.coverage.get(*name).copied().unwrap_or(0);
        rows.push(vec![name.to_string(), render::count(count), what.to_string()]);
    }
    let known = |name: &str| name.starts_with("fault_") || RARE.iter().any(|(rare, _)| *rare == name);
    for (name, count) in summary.coverage.iter().filter(|(name, _)| !known(name)) {
        rows.push(vec![name.clone(), render::count(*count)]);
    }
    out.push_str(&columns(&rows));
    for (name, what) in unmet(args, summary) {
        let _ = writeln!(out, "\nNEVER MET in {} seeds: {name} ({what})", render::count(summary.seeds));
    }
    for (checker, seeds) in &summary.failed {
        let listed: Vec<String> = seeds.iter().take(LISTED_MAX).map(u64::to_string).collect();
        let more = if seeds.len() > LISTED_MAX { ", ..." } else { "" };
        let _ = writeln!(out, "\nBROKEN '{checker}' by {} seeds: {}{more}", seeds.len(), listed.join(", "));
    }
    for (seed, verdict) in summary.failures.iter().take(TOLD_MAX) {
        if let Some(violation) = &verdict.violation {
            let _ = writeln!(
                out,
                "\nseed {seed}, '{}' at {}: {}",
                violation.checker,
                seconds(violation.at_us),
                violation.message
            );
            let _ = writeln!(out, "  replay: {}", command(args, *seed, " --trace"));
        }
    }
    if summary.failed_count() == 0 && unmet(args, summary).is_empty() {
        out.push_str("\nevery promise was kept\n");
    }
    out
}

fn summary_json(args: &SimArgs, summary: &Summary, took: Duration) -> Value {
    let faults: Value = summary
        .faults
        .iter()
        .map(|(name, count)| {
            let told = json!({ "times": count.times, "seeds": count.seeds, "failed": count.failed });
            (name.to_string(), told)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "seeds": summary.seeds,
        "events": summary.events,
        "simulated_us": summary.simulated_us,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "level_after_max_us": summary.level_after_max_us,
        "faults": faults,
        "coverage": summary.coverage,
        "unmet": unmet(args, summary).into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "failed": summary.failed,
        "failures": summary.failures.values().map(verdict_json).collect::<Vec<_>>(),
    })
}
