//! The end of a run, in the terminal: what one wants to know before opening the page.

use std::fmt::Write;

use super::verdict::Verdict;
use super::{facts, words};
use crate::results::{Results, Setting};

/// Kinds of errors, healings and the like that are named; the page has all.
const LINES_MOST: usize = 8;
/// From this share of all cores on, the load generator itself may be what was measured.
const OWN_SHARE_HIGH: f64 = 0.5;

/// What a run amounts to, as lines of text.
pub fn summary(results: &Results) -> String {
    let mut text = String::new();
    head(&mut text, results);
    verdict(&mut text, results);
    throughput(&mut text, results);
    latency(&mut text, results);
    staleness(&mut text, results);
    healing(&mut text, results);
    cost(&mut text, results);
    text
}

/// A name in the left column and what belongs to it.
fn line(text: &mut String, name: &str, said: &str) {
    let _ = writeln!(text, "{}", format!("{name:<12}{said}").trim_end());
}

fn head(text: &mut String, results: &Results) {
    let setting = &results.setting;
    let title = &facts::labels(std::slice::from_ref(results))[0];
    let target = if setting.target.is_empty() { "unknown target" } else { setting.target.as_str() };
    let _ = writeln!(text, "{title}: {target}");
    let _ = writeln!(text, "{}\n", asked(setting));
}

/// The setting in one line; what is not known is left out.
pub fn asked(setting: &Setting) -> String {
    let offered = setting.offered_rate.map_or_else(
        || "each sends when it has been answered".to_owned(),
        |rate| format!("{} offered", words::rate(rate)),
    );
    let known = |text: &str, said: String| if text.is_empty() { None } else { Some(said) };
    let parts = [
        known(&setting.workload, setting.workload.clone()),
        (setting.keys > 0).then(|| words::plural(setting.keys, "key", "keys")),
        known(&setting.distribution, setting.distribution.clone()),
        known(&setting.value_bytes, format!("values of {} bytes", setting.value_bytes)),
        (setting.connections > 0).then(|| {
            format!("{}, {offered}", words::plural(u64::from(setting.connections), "connection", "connections"))
        }),
        (setting.measured_s > 0.0).then(|| format!("{} measured", words::seconds(setting.measured_s))),
        (setting.warm_up_s > 0.0).then(|| format!("{} of warm-up before", words::seconds(setting.warm_up_s))),
    ];
    parts.into_iter().flatten().collect::<Vec<String>>().join("; ")
}

fn verdict(text: &mut String, results: &Results) {
    let verdict = Verdict::of(results);
    let _ = writeln!(text, "{} {}", verdict.sign(), verdict.headline);
    for detail in &verdict.details {
        let _ = writeln!(text, "  {detail}");
    }
    for example in &verdict.examples {
        let _ = writeln!(text, "  - {example}");
    }
    if verdict.examples_left > 0 {
        let _ = writeln!(text, "  - and {} more in results.json", verdict.examples_left);
    }
    text.push('\n');
}

fn throughput(text: &mut String, results: &Results) {
    let Some(rate) = facts::rate(results) else {
        line(text, "throughput", "no second was measured");
        return;
    };
    let mut said = format!("{} mean", words::rate(rate));
    if let (Some(healthy), Some(hurt)) = facts::rates_apart(results) {
        said += &format!("; {} while no fault was on, {} while one was", words::rate(healthy), words::rate(hurt));
    }
    if let Some(least) = facts::least_rate(results) {
        said += &format!("; {} in the slowest second", words::rate(least as f64));
    }
    line(text, "throughput", &said);
    match facts::silent_seconds(results) {
        0 => {}
        silent => line(text, "", &format!("{} without any answer", words::plural(silent, "second", "seconds"))),
    }
    for (at, fault) in results.faults.iter().enumerate().take(LINES_MOST) {
        let until = fault.to_s.map_or_else(|| "the end".to_owned(), words::seconds);
        let name = if at == 0 { "faults" } else { "" };
        line(text, name, &format!("{} to {until}: {}", words::seconds(fault.from_s), fault.text));
    }
    left(text, results.faults.len());
    let errors = facts::errors(results);
    let all = errors + facts::done(results);
    line(text, "errors", &format!("{} ({} of all requests)", words::count(errors), words::share(errors, all)));
    let kinds = facts::error_kinds(results);
    for (said, number) in kinds.iter().take(LINES_MOST) {
        line(text, "", &format!("{:>9}  {}", words::count(*number), words::cut(said, 90)));
    }
    left(text, kinds.len());
    text.push('\n');
}

/// Says how many lines were left out.
fn left(text: &mut String, number: usize) {
    if number > LINES_MOST {
        line(text, "", &format!("and {} more, in report.html", number - LINES_MOST));
    }
}

fn latency(text: &mut String, results: &Results) {
    let heads = ["latency", "", "answers", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(str::to_owned);
    let mut rows = vec![heads.to_vec()];
    for one in results.operations.iter().filter(|one| one.latency.count > 0) {
        let latency = &one.latency;
        let times = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.p9999_us, latency.max_us];
        let mut row = vec![one.name.clone(), one.level.clone(), words::count(latency.count)];
        row.extend(times.map(|us| words::time(us as f64)));
        rows.push(row);
    }
    if rows.len() > 1 {
        table(text, &rows);
        text.push('\n');
    }
}

/// Columns as wide as they have to be: the first two to the left, numbers to the right.
fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut said = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if at < 2 { write!(said, "{cell:<width$}  ") } else { write!(said, "{cell:>width$}  ") };
        }
        let _ = writeln!(text, "{}", said.trim_end());
    }
}

fn staleness(text: &mut String, results: &Results) {
    for (at, one) in results.staleness.iter().enumerate().take(LINES_MOST) {
        let sum = facts::stale(one);
        let said = |(stale, reads): (u64, u64), when: &str| match reads {
            0 => format!("none judged {when}"),
            _ => format!("{} of {} {when}", words::share(stale, reads), words::plural(reads, "read", "reads")),
        };
        let said = format!(
            "write {}, read {}: {}, {}",
            one.write_level,
            one.read_level,
            said(sum.healthy, "while no fault was on"),
            said(sum.hurt, "while one was")
        );
        line(text, if at == 0 { "stale" } else { "" }, &said);
    }
    left(text, results.staleness.len());
}

fn healing(text: &mut String, results: &Results) {
    for (at, one) in results.healings.iter().enumerate().take(LINES_MOST) {
        let level = one.level_after_s.map_or_else(
            || "not seen level before the end".to_owned(),
            |level_s| format!("level after {}", words::seconds(level_s)),
        );
        let behind = match one.behind.iter().map(|(_, behind)| *behind).max() {
            Some(most) => format!(" ({} behind at most)", words::plural(most, "mutation", "mutations")),
            None => String::new(),
        };
        let said = format!("at {}: {level}{behind}", words::seconds(one.healed_at_s));
        line(text, if at == 0 { "healed" } else { "" }, &said);
    }
    left(text, results.healings.len());
}

fn cost(text: &mut String, results: &Results) {
    let cost = &results.cost;
    if let Some(us) = cost.server_cpu_us_per_operation {
        let memory =
            cost.server_memory_bytes.map_or_else(String::new, |bytes| format!(", {} of memory", words::bytes(bytes)));
        line(text, "servers", &format!("{} of CPU per operation{memory}", words::time(us)));
    }
    if cost.own_cpu_share > 0.0 {
        let share = words::percent(cost.own_cpu_share);
        let said = format!("{} of CPU per operation, {share} of all cores", words::time(cost.own_cpu_us_per_operation));
        line(text, "load", &said);
        if cost.own_cpu_share >= OWN_SHARE_HIGH {
            line(text, "", "This is much: servers on the same machine would be faster without it.");
        }
    }
}
