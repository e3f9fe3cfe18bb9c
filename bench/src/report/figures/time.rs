//! Over time: throughput, latency, errors, mutations behind, one below the other, with the faults through all of them.

use super::{Drawing, Figure, NARROW_WIDTH, WIDE_WIDTH, legend_of_runs};
use crate::report::plot::{Axis, Group, Hint, Look, Marks, Panel, Plot, Scale, Series, Span, groups};
use crate::report::{facts, words};
use crate::results::Results;

/// Points along a drawing; a run of more seconds is thinned to this.
const POINTS_MOST: usize = 600;
/// Strips that say something when pointed at.
const HINTS_MOST: usize = 300;
/// Faults that are drawn; more would cover everything.
const SPANS_MOST: usize = 200;

/// How it is called, and where it is.
type Percentile = (&'static str, fn(&Group) -> f64);

/// The percentiles that are drawn over time.
const PERCENTILES: [Percentile; 3] =
    [("p50", |group| group.p50_us), ("p99", |group| group.p99_us), ("p99.9", |group| group.p999_us)];

pub fn over_time(results: &[Results], labels: &[String]) -> Option<Figure> {
    let runs: Vec<Vec<Group>> = results.iter().map(|run| groups(&run.slices, POINTS_MOST)).collect();
    if runs.iter().all(Vec::is_empty) {
        return None;
    }
    let one = results.len() == 1;
    let legend = if one {
        PERCENTILES.iter().enumerate().map(|(at, (name, _))| (percentile_look(at), format!("latency {name}"))).collect()
    } else {
        legend_of_runs(labels)
    };
    let longest = results.iter().map(|run| run.slices.len()).max().unwrap_or(0);
    let each = longest.div_ceil(POINTS_MOST);
    let mut note = String::from("Each point is one second. ");
    if each > 1 {
        note = format!(
            "Each point is {each} seconds: the mean rate with the range of its seconds shaded, the worst second of \
             everything else (p50: the median second). "
        );
    }
    note += "Latency is counted from the intended start to the answer, errors left out.";
    if results.iter().any(|run| !run.faults.is_empty()) {
        note += " Shaded: a fault was on.";
    }
    let drawings = vec![Drawing::Full {
        wide: plot(results, labels, &runs, WIDE_WIDTH),
        narrow: plot(results, labels, &runs, NARROW_WIDTH),
    }];
    Some(Figure { legend, note, drawings })
}

/// p50 blue, p99 green, p99.9 vermilion: from the ordinary to the alarming.
fn percentile_look(at: usize) -> Look {
    Look { color: [0, 2, 1][at], dash: 0 }
}

fn plot(results: &[Results], labels: &[String], runs: &[Vec<Group>], width: f64) -> Plot {
    let length = results.iter().map(facts::length_s).fold(1.0, f64::max);
    Plot {
        width,
        about: "Throughput, latency, errors and mutations behind over time".to_owned(),
        across: Axis {
            name: "seconds since the measured part began".to_owned(),
            scale: Scale::Linear { from: 0.0, to: length },
            say: words::short,
        },
        panels: panels(runs, labels),
        spans: spans(results),
        hints: if let [run] = results { hints(run) } else { Vec::new() },
    }
}

fn panels(runs: &[Vec<Group>], labels: &[String]) -> Vec<Panel> {
    let one = runs.len() == 1;
    let all = || runs.iter().flatten();
    let rates = Panel {
        name: "answers per second".to_owned(),
        height: 130.0,
        scale: Scale::from_zero(all().map(|group| group.most).fold(0.0, f64::max)),
        say: words::rough,
        series: rates(runs, labels),
    };
    let mut panels = vec![rates];
    let panel = |name: String, height: f64, series: Vec<Series>, values: Vec<f64>| Panel {
        name,
        height,
        scale: Scale::log_around(values.into_iter()),
        say: words::time,
        series,
    };
    if one {
        let series = |(at, (name, of)): (usize, &Percentile)| Series {
            name: (*name).to_owned(),
            look: percentile_look(at),
            marks: line(&runs[0], *of),
        };
        let values = PERCENTILES.iter().flat_map(|(_, of)| runs[0].iter().map(of)).collect();
        let series = PERCENTILES.iter().enumerate().map(series).collect();
        panels.push(panel("latency: p50, p99, p99.9".to_owned(), 190.0, series, values));
    } else {
        // The same axis for all three, so that they can be compared.
        let values: Vec<f64> = PERCENTILES.iter().flat_map(|(_, of)| all().map(of)).collect();
        for (name, of) in &PERCENTILES {
            panels.push(panel(format!("latency, {name}"), 105.0, lines(runs, labels, *of), values.clone()));
        }
    }
    let errors = all().map(|group| group.errors).fold(0.0, f64::max);
    if errors > 0.0 {
        panels.push(Panel {
            name: "errors per second".to_owned(),
            height: 70.0,
            scale: Scale::from_zero(errors),
            say: words::rough,
            series: errors_of(runs, labels),
        });
    }
    let behind = all().filter_map(|group| group.behind).fold(0.0, f64::max);
    if behind > 0.0 {
        panels.push(Panel {
            name: "mutations behind, over all owners".to_owned(),
            height: 70.0,
            scale: Scale::from_zero(behind),
            say: words::rough,
            series: lines(runs, labels, |group| group.behind.unwrap_or(f64::NAN)),
        });
    }
    panels
}

fn middle(group: &Group) -> f64 {
    (group.from_s + group.to_s) / 2.0
}

fn line(groups: &[Group], of: fn(&Group) -> f64) -> Marks {
    Marks::Line(groups.iter().map(|group| (middle(group), of(group))).collect())
}

fn lines(runs: &[Vec<Group>], labels: &[String], of: fn(&Group) -> f64) -> Vec<Series> {
    let number = runs.len();
    let runs = runs.iter().zip(labels).enumerate();
    runs.map(|(at, (groups, name))| Series {
        name: name.clone(),
        look: look_of_run(at, number),
        marks: line(groups, of),
    })
    .collect()
}

/// A run alone is drawn in grey where there is one line: blue is the p50.
fn look_of_run(at: usize, runs: usize) -> Look {
    if runs == 1 { Look { color: 6, dash: 0 } } else { Look::of(at) }
}

/// The mean rate, over its range where seconds have been put together.
fn rates(runs: &[Vec<Group>], labels: &[String]) -> Vec<Series> {
    let thinned = |groups: &[Group]| groups.iter().any(|group| group.to_s - group.from_s > 1.5);
    let ranges = runs.iter().enumerate().filter(|(_, groups)| thinned(groups)).map(|(at, groups)| Series {
        name: "range".to_owned(),
        look: look_of_run(at, runs.len()),
        marks: Marks::Band(groups.iter().map(|group| (middle(group), group.least, group.most)).collect()),
    });
    let mut series: Vec<Series> = ranges.collect();
    series.extend(lines(runs, labels, |group| group.mean));
    series
}

/// Bars for one run; those of several would hide each other, so they are lines.
fn errors_of(runs: &[Vec<Group>], labels: &[String]) -> Vec<Series> {
    let [groups] = runs else { return lines(runs, labels, |group| group.errors) };
    let bars = groups.iter().map(|group| (group.from_s, group.to_s, group.errors)).collect();
    vec![Series { name: "errors".to_owned(), look: Look { color: 1, dash: 0 }, marks: Marks::Bars(bars) }]
}

/// The faults; in the colours of the runs if these were not hurt alike.
fn spans(results: &[Results]) -> Vec<Span> {
    let alike = facts::are_hurt_alike(results);
    let runs = if alike { &results[..1] } else { results };
    let mut spans = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let length = facts::length_s(run);
        for fault in &run.faults {
            if let Some((from, to)) = facts::span(fault, length) {
                spans.push(Span { from, to, name: fault.text.clone(), color: (!alike).then_some(at) });
            }
        }
    }
    spans.sort_by(|a, b| a.from.total_cmp(&b.from));
    spans.truncate(SPANS_MOST);
    spans
}

fn hints(run: &Results) -> Vec<Hint> {
    let hint = |group: &Group| {
        let when = match group.to_s - group.from_s {
            length if length < 1.5 => format!("second {}", group.from_s.round()),
            _ => format!("seconds {} to {}", group.from_s.round(), group.to_s.round()),
        };
        let mut text = format!(
            "{when}: {}, p50 {}, p99 {}, p99.9 {}, {} errors",
            words::rate(group.mean),
            words::time(group.p50_us),
            words::time(group.p99_us),
            words::time(group.p999_us),
            group.errors
        );
        if group.judged > 0 {
            text += &format!(", {} of judged reads stale", words::share(group.stale, group.judged));
        }
        if let Some(behind) = group.behind {
            text += &format!(", {behind} mutations behind");
        }
        Hint { from: group.from_s, to: group.to_s, text }
    };
    groups(&run.slices, HINTS_MOST).iter().map(hint).collect()
}
