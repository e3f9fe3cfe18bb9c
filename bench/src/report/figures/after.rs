//! What came after the faults, and what answers had behind them.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::{Drawing, Figure, HALF_WIDTH};
use crate::report::plot::{Axis, COLORS, DASHES, Look, Marks, Panel, Plot, Scale, Series};
use crate::report::{facts, words};
use crate::results::{Receipts, Results};

/// Healings in one drawing; all are in the table and in healing.csv.
const HEALINGS_MOST: usize = 14;
/// Points of a healing.
const POINTS_MOST: usize = 600;
/// A part of a bar that is narrower than this share is not written into.
const WRITTEN_SHARE: f64 = 0.07;

/// Mutations behind since the healing.
pub fn healing(results: &[Results], labels: &[String]) -> Option<Figure> {
    let mut legend = Vec::new();
    let mut series = Vec::new();
    let (mut last_s, mut most) = (1.0_f64, 0.0_f64);
    let mut left = 0;
    for (run, one) in results.iter().enumerate() {
        for (at, healing) in one.healings.iter().enumerate().filter(|(_, healing)| !healing.behind.is_empty()) {
            if legend.len() == HEALINGS_MOST {
                left += 1;
                continue;
            }
            let look = if results.len() == 1 { Look::of(at) } else { Look { color: run % COLORS, dash: at % DASHES } };
            let level = match healing.level_after_s {
                Some(level_s) => format!("level after {}", words::seconds(level_s)),
                None => "not seen level".to_owned(),
            };
            let whose = if results.len() == 1 { String::new() } else { format!("{}, ", labels[run]) };
            let name = format!("{whose}healed at {}: {level}", words::seconds(healing.healed_at_s));
            let every = healing.behind.len().div_ceil(POINTS_MOST);
            let worst = |part: &[(f64, u64)]| part.iter().copied().max_by_key(|(_, behind)| *behind);
            let mut points: Vec<(f64, f64)> =
                healing.behind.chunks(every).filter_map(worst).map(|(s, behind)| (s, behind as f64)).collect();
            points.retain(|(s, _)| s.is_finite());
            last_s = points
                .iter()
                .map(|(s, _)| *s)
                .chain(healing.level_after_s.filter(|s| s.is_finite()))
                .fold(last_s, f64::max);
            most = points.iter().map(|(_, behind)| *behind).fold(most, f64::max);
            series.push(Series { name: name.clone(), look, marks: Marks::Line(points) });
            if let Some(level_s) = healing.level_after_s {
                series.push(Series {
                    name: String::new(),
                    look,
                    marks: Marks::Points(vec![(level_s, 0.0, name.clone())]),
                });
            }
            legend.push((look, name));
        }
    }
    if legend.is_empty() {
        return None;
    }
    let plot = Plot {
        width: HALF_WIDTH,
        about: "Mutations behind after the faults ended".to_owned(),
        across: Axis {
            name: "seconds since healed".to_owned(),
            scale: Scale::Linear { from: 0.0, to: last_s * 1.02 },
            say: words::short,
        },
        panels: vec![Panel {
            name: "mutations behind, over all owners".to_owned(),
            height: 190.0,
            scale: Scale::from_zero(most),
            say: words::rough,
            series,
        }],
        spans: Vec::new(),
        hints: Vec::new(),
    };
    // A line alone needs its name too.
    let mut note = String::from("Dots: all owners hold the same.");
    if let [(_, name)] = &legend[..] {
        note = format!("The line: {name}. {note}");
    }
    if left > 0 {
        note += &format!(" {} more are in the table.", words::count(left));
    }
    Some(Figure { legend, note, drawings: vec![Drawing::Half(plot)] })
}

/// Bars: how many owners and stand-ins stood behind answers.
pub fn receipts(results: &[Results], labels: &[String]) -> Option<Markup> {
    let kinds = kinds(results);
    if kinds.is_empty() {
        return None;
    }
    let most_owners = kinds.iter().map(|(owners, _)| *owners).max().unwrap_or(0);
    let groups = facts::receipt_pairs(results);
    Some(html! {
        ul class="legend" {
            @for kind in &kinds { li { span class={ "block " (color(*kind, most_owners)) } {} (said(*kind)) } }
        }
        table class="bars-table" {
            tbody {
                @for pair in groups {
                    @for (run, one) in results.iter().enumerate() {
                        @let all: Vec<&Receipts> = of_pair(one, pair).collect();
                        @let total: u64 = all.iter().map(|one| one.count).sum();
                        @if total > 0 {
                            tr {
                                th scope="row" {
                                    (facts::pair_name(pair))
                                    @if results.len() > 1 { span class="quiet" { " " (labels[run]) } }
                                }
                                td class="bar-cell" { (bar(&all, total, &kinds, most_owners)) }
                                td class="number" { (words::count(total)) }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn of_pair<'a>(run: &'a Results, pair: (&'a str, &'a str)) -> impl Iterator<Item = &'a Receipts> {
    run.receipts.iter().filter(move |one| (one.operation.as_str(), one.level.as_str()) == pair && one.count > 0)
}

/// (owners, stand-ins), most owners first.
fn kinds(results: &[Results]) -> Vec<(u32, u32)> {
    let receipts = results.iter().flat_map(|run| &run.receipts).filter(|one| one.count > 0);
    let mut kinds: Vec<(u32, u32)> = receipts.map(|one| (one.owners, one.stand_ins)).collect();
    kinds.sort_by_key(|(owners, stand_ins)| Reverse((owners + stand_ins, *owners)));
    kinds.dedup();
    kinds
}

fn said((owners, stand_ins): (u32, u32)) -> String {
    let owners = words::plural(u64::from(owners), "owner", "owners");
    match stand_ins {
        0 => owners,
        number => format!("{owners} + {}", words::plural(u64::from(number), "stand-in", "stand-ins")),
    }
}

/// Blues for owners alone, oranges where stand-ins helped; the fewer owners, the paler.
fn color((owners, stand_ins): (u32, u32), most_owners: u32) -> String {
    let paler = most_owners.saturating_sub(owners).min(3);
    format!("{}{paler}", if stand_ins == 0 { "own" } else { "help" })
}

/// Short enough to be written into a part; what is not all is not said as 100. The rest is told when it is pointed at.
fn whole_percent(share: f64) -> String {
    let percent = (share * 100.0).round();
    format!("{} %", if share < 1.0 { percent.min(99.0) } else { percent })
}

fn bar(all: &[&Receipts], total: u64, kinds: &[(u32, u32)], most_owners: u32) -> Markup {
    let mut from = 0.0;
    let mut parts = Vec::new();
    for kind in kinds {
        let count: u64 = all.iter().filter(|one| (one.owners, one.stand_ins) == *kind).map(|one| one.count).sum();
        if count == 0 {
            continue;
        }
        let share = count as f64 / total as f64;
        parts.push((*kind, from, share, count));
        from += share;
    }
    html! {
        svg class="bar" role="img" xmlns="http://www.w3.org/2000/svg" width="100%" height="22" {
            @for (kind, from, share, count) in &parts {
                rect class=(color(*kind, most_owners)) x=(format!("{:.3}%", from * 100.0)) y="1" height="20"
                    width=(format!("{:.3}%", share * 100.0)) {
                    title { (said(*kind)) ": " (words::count(*count)) " (" (words::percent(*share)) ")" }
                }
            }
            @for (kind, from, share, _) in &parts {
                @if *share >= WRITTEN_SHARE {
                    @let middle = format!("{:.3}%", (from + share / 2.0) * 100.0);
                    text class={ "in-bar on-" (color(*kind, most_owners)) } x=(middle) y="15.5" {
                        (whole_percent(*share))
                    }
                }
            }
        }
    }
}
