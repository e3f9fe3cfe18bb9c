//! How latency is distributed, with the tail as large as the rest.

use super::{Drawing, Figure, HALF_WIDTH, NARROW_WIDTH, WIDE_WIDTH, legend_of_runs};
use crate::report::plot::{Axis, Look, Marks, Panel, Plot, Scale, Series};
use crate::report::{facts, words};
use crate::results::{Latency, Operation, Results};

/// The axis ends at this many nines at most.
const NINES_MOST: f64 = 6.0;
/// Operations in one drawing of one run; the next ones get another drawing.
const SERIES_MOST: usize = 7;
/// Drawings of operations of several runs.
const DRAWINGS_MOST: usize = 24;

pub fn latency(results: &[Results], labels: &[String]) -> Option<Figure> {
    let measured = |operation: &&Operation| operation.latency.count > 0 && !operation.latency.cdf.is_empty();
    let curves = || results.iter().flat_map(|run| &run.operations).filter(measured);
    let most = curves().map(|operation| operation.latency.count).max()?;
    let nines = (most as f64).log10().ceil().clamp(2.0, NINES_MOST);
    // One axis for all, so that drawings can be compared.
    let across = Scale::log_around(
        curves().flat_map(|one| [one.latency.cdf.first(), one.latency.cdf.last()]).flatten().map(|(us, _)| *us as f64),
    );
    let plot = |name: String, width: f64, series: Vec<Series>| Plot {
        width,
        about: format!("Share of answers that took no longer than a time: {name}"),
        across: Axis { name: "time to the answer".to_owned(), scale: across, say: words::time },
        panels: vec![Panel { name, height: 230.0, scale: Scale::Nines { most: nines }, say: words::percent, series }],
        spans: Vec::new(),
        hints: Vec::new(),
    };
    let mut drawings = Vec::new();
    let legend;
    if let [run] = results {
        let operations: Vec<&Operation> = run.operations.iter().filter(measured).collect();
        let named = |at: usize, one: &Operation| (Look::of(at), facts::pair_name((&one.name, &one.level)));
        legend = operations.iter().enumerate().map(|(at, one)| named(at, one)).collect();
        for (part, operations) in operations.chunks(SERIES_MOST).enumerate() {
            let curve = |(at, one): (usize, &&Operation)| {
                let (look, name) = named(part * SERIES_MOST + at, one);
                curve(&one.latency, look, name)
            };
            let draw = |width: f64| {
                let series = operations.iter().enumerate().flat_map(curve).collect();
                plot("share of answers that took no longer".to_owned(), width, series)
            };
            drawings.push(Drawing::Full { wide: draw(WIDE_WIDTH), narrow: draw(NARROW_WIDTH) });
        }
    } else {
        legend = legend_of_runs(labels);
        for pair in facts::operation_pairs(results).into_iter().take(DRAWINGS_MOST) {
            let operations = results.iter().map(|run| facts::operation(run, pair)).enumerate();
            let measured = operations.filter_map(|(at, one)| Some((at, one.filter(measured)?)));
            let curves = measured.flat_map(|(at, one)| curve(&one.latency, Look::of(at), labels[at].clone()));
            let series: Vec<Series> = curves.collect();
            if !series.is_empty() {
                drawings.push(Drawing::Half(plot(facts::pair_name(pair), HALF_WIDTH, series)));
            }
        }
    }
    let note = "Each step upwards is ten times rarer: above 99 % stands the slowest hundredth of all answers. A curve \
                ends at its slowest answer. Dots: p50, p90, p99, p99.9, p99.99."
        .to_owned();
    Some(Figure { legend, note, drawings })
}

/// The curve and the dots on it.
fn curve(latency: &Latency, look: Look, name: String) -> [Series; 2] {
    // The slowest of n answers stands at 1 - 1/n: "all of them" would be infinitely high.
    let last = 1.0 - 1.0 / latency.count.max(2) as f64;
    let points = latency
        .cdf
        .iter()
        .filter(|(_, share)| share.is_finite())
        .map(|(us, share)| (*us as f64, share.min(last)))
        .collect();
    let dots = [
        ("p50", 0.5, latency.p50_us),
        ("p90", 0.9, latency.p90_us),
        ("p99", 0.99, latency.p99_us),
        ("p99.9", 0.999, latency.p999_us),
        ("p99.99", 0.9999, latency.p9999_us),
    ];
    let dots = dots.into_iter().filter(|(_, share, _)| *share <= last);
    let dots = dots.map(|(dot, share, us)| (us as f64, share, format!("{name}: {dot} {}", words::time(us as f64))));
    let dots = dots.collect();
    [
        Series { name, look, marks: Marks::Line(points) },
        Series { name: String::new(), look, marks: Marks::Points(dots) },
    ]
}
