//! THE PAGE: one HTML file that needs nothing else and no script. Every text of a run is escaped by the template.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::facts::{self, Fact};
use super::figures::{self, Figure};
use super::summary::asked;
use super::verdict::{State, Verdict};
use super::words;
use crate::results::{Latency, Results};

const STYLE: &str = include_str!("style.css");
const NOT_HEALED: &str = "No fault ended in this run, or nobody could be asked who lags.";
/// A longer table does not stand beside a drawing.
const BESIDE_MOST: usize = 3_000;
/// Rows of a table; the CSV files have all.
const ROWS_MOST: usize = 60;

pub fn page(results: &[Results], labels: &[String]) -> String {
    let title = if labels.len() == 1 { labels[0].clone() } else { labels.join(" · ") };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(results, labels, &title))
                    section {
                        h2 { "Verdict" }
                        @for (run, label) in results.iter().zip(labels) {
                            (verdict(run, (results.len() > 1).then_some(label)))
                        }
                    }
                    section { h2 { "In numbers" } (numbers(results, labels)) }
                    @for (name, figure, table, nothing) in parts(results, labels) { (part(name, figure, table, nothing)) }
                    section {
                        h2 { "What answers had behind them" }
                        @match figures::receipts(results, labels) {
                            Some(drawn) => (drawn),
                            None => p class="quiet" { "The target gives no receipts." },
                        }
                    }
                    (errors(results, labels))
                    section { h2 { "How it was made" } (made(results, labels)) }
                }
            }
        }
    };
    page.into_string()
}

type Part = (&'static str, Option<Figure>, Markup, &'static str);

/// What is drawn: under which name, the drawing, a table of the same, what to say if there is nothing to draw.
fn parts(results: &[Results], labels: &[String]) -> [Part; 4] {
    let (over_time, latency) = (figures::over_time(results, labels), figures::latency(results, labels));
    let (stale, healing) = (figures::staleness(results, labels), figures::healing(results, labels));
    [
        ("Over time", over_time, faults(results, labels), "No second was measured."),
        ("Latency", latency, latencies(results, labels), "No operation was answered."),
        ("Staleness", stale, staleness(results, labels), "No read could be judged."),
        ("Coming level again", healing, healings(results, labels), NOT_HEALED),
    ]
}

fn head(results: &[Results], labels: &[String], title: &str) -> Markup {
    html! {
        header {
            @if let [run] = results {
                h1 { (title) }
                p class="lead" { (run.setting.target) }
                p class="quiet" { (asked(&run.setting)) }
            } @else {
                h1 { (results.len()) " runs compared" }
                ol class="runs" {
                    @for (at, (run, label)) in results.iter().zip(labels).enumerate() {
                        li {
                            span class={ "block line c" (at) } {} b { (label) } ": " (run.setting.target) ". "
                            span class="quiet" { (asked(&run.setting)) }
                        }
                    }
                }
                p class="quiet" { "Ratios (×) compare with the first: " (labels[0]) "." }
            }
        }
    }
}

fn verdict(run: &Results, label: Option<&String>) -> Markup {
    let verdict = Verdict::of(run);
    let class = match verdict.state {
        State::Kept => "verdict kept",
        State::Broken => "verdict broken",
        State::Open => "verdict open",
    };
    html! {
        div class=(class) {
            p class="headline" {
                span class="sign" aria-hidden="true" { (verdict.sign()) }
                span { @if let Some(label) = label { (label) ": " } (verdict.headline) }
            }
            @for detail in &verdict.details { p { (detail) } }
            @if !verdict.examples.is_empty() {
                ul { @for example in &verdict.examples { li { code { (example) } } } }
            }
            @if verdict.examples_left > 0 { p { "And " (verdict.examples_left) " more in results.json." } }
        }
    }
}

/// A drawing and a table of the same, side by side where both are small.
fn part(name: &str, figure: Option<Figure>, table: Markup, nothing: &str) -> Markup {
    html! {
        section {
            h2 { (name) }
            @match figure {
                Some(figure) if figure.has_room() && table.0.len() < BESIDE_MOST => (figure.draw(Some(&table))),
                Some(figure) => { (figure.draw(None)) (table) },
                None => { p class="quiet" { (nothing) } (table) },
            }
        }
    }
}

/// The heads of the columns of several runs: each run, then what it is of the first.
fn run_heads(labels: &[String]) -> Markup {
    html! {
        @for (at, label) in labels.iter().enumerate() {
            th scope="col" class="number" { @if labels.len() > 1 { (label) } @else { "" } }
            @if at > 0 { th scope="col" class="number ratio" { "×" } }
        }
    }
}

fn fact_row(fact: &Fact, runs: usize) -> Markup {
    html! {
        tr {
            th scope="row" { (fact.name) }
            @for run in 0..runs {
                td class="number" { (fact.said(run)) }
                @if run > 0 { td class="number ratio" { (fact.ratio(run)) } }
            }
        }
    }
}

fn numbers(results: &[Results], labels: &[String]) -> Markup {
    let facts = facts::all(results);
    if facts.is_empty() {
        return html! { p class="quiet" { "Nothing was measured." } };
    }
    // Of one run there is room for two columns.
    let column = if results.len() == 1 { facts.len().div_ceil(2) } else { facts.len() };
    html! {
        div class=(if results.len() == 1 { "drawings" } else { "scroll" }) {
            @for facts in facts.chunks(column) {
                table class="facts" {
                    @if labels.len() > 1 { thead { tr { td {} (run_heads(labels)) } } }
                    tbody { @for fact in facts { (fact_row(fact, results.len())) } }
                }
            }
        }
    }
}

/// A table with its heads; the first `names` columns are words, the others numbers.
fn table(heads: &[&str], names: usize, rows: &[Vec<String>]) -> Markup {
    let class = |at: usize| if at < names { "" } else { "number" };
    html! {
        div class="scroll" {
            table {
                thead {
                    tr { @for (at, head) in heads.iter().enumerate() { th scope="col" class=(class(at)) { (head) } } }
                }
                tbody {
                    @for row in rows.iter().take(ROWS_MOST) {
                        tr { @for (at, cell) in row.iter().enumerate() { td class=(class(at)) { (cell) } } }
                    }
                }
            }
        }
        @if rows.len() > ROWS_MOST { p class="note" { "And " (rows.len() - ROWS_MOST) " more, in results.json." } }
    }
}

/// Puts the run in front where there are several.
fn with_run(labels: &[String], run: usize, cells: Vec<String>) -> Vec<String> {
    if labels.len() > 1 { std::iter::once(labels[run].clone()).chain(cells).collect() } else { cells }
}

fn heads<'a>(labels: &[String], heads: &[&'a str]) -> Vec<&'a str> {
    if labels.len() > 1 { std::iter::once("run").chain(heads.iter().copied()).collect() } else { heads.to_vec() }
}

fn table_of_runs(labels: &[String], named: &[&str], names: usize, rows: Vec<Vec<String>>) -> Markup {
    let names = names + usize::from(labels.len() > 1);
    html! { @if !rows.is_empty() { (table(&heads(labels, named), names, &rows)) } }
}

fn faults(results: &[Results], labels: &[String]) -> Markup {
    // Told once if all had the same.
    let (results, labels) =
        if facts::are_hurt_alike(results) { (&results[..1], &labels[..1]) } else { (results, labels) };
    let mut rows = Vec::new();
    for (at, run) in results.iter().enumerate() {
        for fault in &run.faults {
            let until = fault.to_s.map_or_else(|| "the end".to_owned(), words::seconds);
            rows.push(with_run(labels, at, vec![fault.text.clone(), words::seconds(fault.from_s), until]));
        }
    }
    table_of_runs(labels, &["fault", "from", "to"], 1, rows)
}

fn latencies(results: &[Results], labels: &[String]) -> Markup {
    type Column = (&'static str, fn(&Latency) -> f64);
    const COLUMNS: [Column; 7] = [
        ("mean", |latency| latency.mean_us),
        ("p50", |latency| latency.p50_us as f64),
        ("p90", |latency| latency.p90_us as f64),
        ("p99", |latency| latency.p99_us as f64),
        ("p99.9", |latency| latency.p999_us as f64),
        ("p99.99", |latency| latency.p9999_us as f64),
        ("max", |latency| latency.max_us as f64),
    ];
    let mut rows = Vec::new();
    for pair in facts::operation_pairs(results) {
        let first = results.first().and_then(|run| facts::operation(run, pair));
        for (at, run) in results.iter().enumerate() {
            let Some(one) = facts::operation(run, pair) else { continue };
            let errors = facts::operation_errors(one);
            let mut row = vec![facts::pair_name(pair), words::count(one.latency.count), words::count(errors)];
            row.extend(COLUMNS.map(|(_, of)| {
                if one.latency.count > 0 { words::time(of(&one.latency)) } else { words::NONE.to_owned() }
            }));
            rows.push(with_run(labels, at, row));
            let Some(first) = first.filter(|first| at > 0 && first.latency.count > 0 && one.latency.count > 0) else {
                continue;
            };
            let ratio = |a: f64, b: f64| words::ratio(a, b);
            let mut row = vec![
                String::new(),
                ratio(first.latency.count as f64, one.latency.count as f64),
                ratio(facts::operation_errors(first) as f64, errors as f64),
            ];
            row.extend(COLUMNS.map(|(_, of)| ratio(of(&first.latency), of(&one.latency))));
            row.insert(0, "× the first".to_owned());
            rows.push(row);
        }
    }
    let named: Vec<&str> =
        ["operation", "answers", "errors"].into_iter().chain(COLUMNS.map(|(name, _)| name)).collect();
    table_of_runs(labels, &named, 1, rows)
}

fn staleness(results: &[Results], labels: &[String]) -> Markup {
    let mut rows = Vec::new();
    for (at, run) in results.iter().enumerate() {
        for one in &run.staleness {
            let sum = facts::stale(one);
            let ((stale, reads), (stale_hurt, reads_hurt)) = (sum.healthy, sum.hurt);
            let cells = vec![
                format!("write {}, read {}", one.write_level, one.read_level),
                words::count(reads),
                words::count(stale),
                words::share(stale, reads),
                words::count(reads_hurt),
                words::count(stale_hurt),
                words::share(stale_hurt, reads_hurt),
            ];
            rows.push(with_run(labels, at, cells));
        }
    }
    let named = ["levels", "reads, no fault on", "stale", "share", "reads, a fault on", "stale", "share"];
    table_of_runs(labels, &named, 1, rows)
}

fn healings(results: &[Results], labels: &[String]) -> Markup {
    let mut rows = Vec::new();
    for (at, run) in results.iter().enumerate() {
        for one in &run.healings {
            let level = one.level_after_s.map_or_else(|| "not seen before the end".to_owned(), words::seconds);
            let most = one.behind.iter().map(|(_, behind)| *behind).max();
            let most = most.map_or_else(|| words::NONE.to_owned(), words::count);
            rows.push(with_run(labels, at, vec![words::seconds(one.healed_at_s), level, most]));
        }
    }
    table_of_runs(labels, &["healed at", "level after", "mutations behind at most"], 0, rows)
}

fn errors(results: &[Results], labels: &[String]) -> Markup {
    let mut rows = Vec::new();
    for (at, run) in results.iter().enumerate() {
        let all = facts::errors(run) + facts::done(run);
        for (said, number) in facts::error_kinds(run) {
            let cells = vec![words::cut(&said, 300), words::count(number), words::share(number, all)];
            rows.push(with_run(labels, at, cells));
        }
    }
    html! {
        section {
            h2 { "Errors" }
            @if rows.is_empty() { p class="quiet" { "None." } }
            (table_of_runs(labels, &["what was said", "times", "of all requests"], 1, rows))
        }
    }
}

fn made(results: &[Results], labels: &[String]) -> Markup {
    type Line = (&'static str, fn(&Results) -> String);
    const LINES: [Line; 16] = [
        ("command", |run| run.made.command.clone()),
        ("version", |run| run.made.version.clone()),
        ("commit", |run| run.made.commit.clone()),
        ("started", |run| run.made.started.clone()),
        ("machine", |run| {
            let machine = &run.made.machine;
            let cores = words::plural(u64::from(machine.cores), "core", "cores");
            format!("{}, {cores}, {}, {}", machine.processor, words::bytes(machine.memory_bytes), machine.system)
        }),
        ("target", |run| run.setting.target.clone()),
        ("an acknowledgement means", |run| run.setting.durability.clone()),
        ("write level", |run| run.setting.write_level.clone()),
        ("read level", |run| run.setting.read_level.clone()),
        ("workload", |run| run.setting.workload.clone()),
        ("keys", |run| format!("{}, {}", words::count(run.setting.keys), run.setting.distribution)),
        ("value bytes", |run| run.setting.value_bytes.clone()),
        ("connections", |run| words::count(u64::from(run.setting.connections))),
        ("offered", |run| {
            let each = "each connection sends when it has been answered";
            run.setting.offered_rate.map_or_else(|| each.to_owned(), words::rate)
        }),
        ("warm-up", |run| words::seconds(run.setting.warm_up_s)),
        ("measured", |run| words::seconds(run.setting.measured_s)),
    ];
    html! {
        div class="scroll" {
            table class="made" {
                @if labels.len() > 1 { thead { tr { td {} @for label in labels { th scope="col" { (label) } } } } }
                tbody {
                    @for (name, of) in LINES {
                        @let said: Vec<String> = results.iter().map(of).collect();
                        tr class=(if said.iter().any(|one| *one != said[0]) { "differs" } else { "" }) {
                            th scope="row" { (name) }
                            @for one in &said {
                                td {
                                    @if one.is_empty() { span class="quiet" { "not known" } }
                                    @else if name == "command" || name == "commit" { code { (one) } }
                                    @else { (one) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if labels.len() > 1 { p class="note" { "Bold: what the runs do not have in common." } }
    }
}
