//! How likely a read is stale, by the time since the newest acknowledged write of its key.

use super::{Drawing, Figure, HALF_WIDTH, legend_of_runs};
use crate::report::plot::{Axis, Estimate, Look, Marks, Panel, Plot, Scale, Series};
use crate::report::{facts, words};
use crate::results::{Results, Staleness, StalenessBucket};

/// 95 % of a normal distribution lie within so many deviations.
const DEVIATIONS: f64 = 1.96;
/// Pairs of levels that are drawn; all are in the table and in staleness.csv.
const PAIRS_MOST: usize = 12;

#[derive(Clone, Copy, PartialEq)]
enum While {
    Healthy,
    Hurt,
}

impl While {
    /// Reads and the stale ones among them.
    fn of(self, bucket: &StalenessBucket) -> (u64, u64) {
        match self {
            While::Healthy => (bucket.reads_healthy, bucket.stale_healthy),
            While::Hurt => {
                (bucket.reads.saturating_sub(bucket.reads_healthy), bucket.stale.saturating_sub(bucket.stale_healthy))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            While::Healthy => "no fault on",
            While::Hurt => "a fault on",
        }
    }
}

pub fn staleness(results: &[Results], labels: &[String]) -> Option<Figure> {
    let pairs = facts::staleness_pairs(results);
    let buckets = || results.iter().flat_map(|run| &run.staleness).flat_map(|one| &one.buckets);
    let reads = |bucket: &StalenessBucket| bucket.reads.max(bucket.reads_healthy);
    if buckets().all(|bucket| reads(bucket) == 0) {
        return None;
    }
    // From the first bound that is not 0 to the last.
    let across = Scale::log_around(
        buckets()
            .filter(|one| reads(one) > 0)
            .flat_map(|one| [one.from_us, one.to_us.unwrap_or(0)])
            .map(|us| us as f64),
    );
    let Scale::Log { from, to } = across else { return None };
    // The first bucket and the last stand at the ends: with room for their bars.
    let across = Scale::Log { from: from / 1.6, to: to * 1.6 };
    let up = Scale::LogAndZero { from: least_share(results), to: 1.0 };
    let draw = |name: String, series: Vec<Series>| {
        Drawing::Half(Plot {
            width: HALF_WIDTH,
            about: format!("Share of reads that were stale: {name}"),
            across: Axis {
                name: "time since the newest acknowledged write".to_owned(),
                scale: across,
                say: words::time,
            },
            panels: vec![Panel { name, height: 190.0, scale: up, say: words::percent, series }],
            spans: Vec::new(),
            hints: Vec::new(),
        })
    };
    let one = |run: usize, pair: (&str, &str)| {
        let is_pair = |one: &&Staleness| (one.write_level.as_str(), one.read_level.as_str()) == pair;
        results[run].staleness.iter().find(is_pair)
    };
    let mut drawings = Vec::new();
    for pair in pairs.into_iter().take(PAIRS_MOST) {
        let name = format!("write {}, read {}", pair.0, pair.1);
        if results.len() == 1 {
            let series = |(at, state): (usize, While)| estimates(one(0, pair)?, state, (at, 2), state.name(), across);
            let series: Vec<Series> =
                [While::Healthy, While::Hurt].into_iter().enumerate().filter_map(series).collect();
            if !series.is_empty() {
                drawings.push(draw(name, series));
            }
            continue;
        }
        for state in [While::Healthy, While::Hurt] {
            let series = |run: usize| estimates(one(run, pair)?, state, (run, results.len()), &labels[run], across);
            let series: Vec<Series> = (0..results.len()).filter_map(series).collect();
            if !series.is_empty() {
                drawings.push(draw(format!("{name}, {}", state.name()), series));
            }
        }
    }
    let legend = if results.len() == 1 {
        [While::Healthy, While::Hurt]
            .iter()
            .enumerate()
            .map(|(at, state)| (Look::of(at), state.name().to_owned()))
            .collect()
    } else {
        legend_of_runs(labels)
    };
    let note =
        "Share of reads that did not return the newest acknowledged write or a later one. Bars: 95 % confidence. \
                Hollow: none was stale, and the bar says how many might be all the same."
            .to_owned();
    Some(Figure { legend, note, drawings })
}

/// The axis begins a decade below the least share that was seen, or that could have been.
fn least_share(results: &[Results]) -> f64 {
    let mut least = 0.01_f64;
    for bucket in results.iter().flat_map(|run| &run.staleness).flat_map(|one| &one.buckets) {
        for (reads, stale) in [While::Healthy.of(bucket), While::Hurt.of(bucket)] {
            if reads > 0 && stale > 0 {
                least = least.min(stale as f64 / reads as f64);
            }
        }
    }
    10_f64.powf(least.log10().floor()).clamp(1e-7, 0.01)
}

/// `place`: which series of how many this is; each stands a little aside of the others, so that their bars do not hide
/// each other.
fn estimates(one: &Staleness, state: While, place: (usize, usize), name: &str, across: Scale) -> Option<Series> {
    let aside = 1.12_f64.powf(place.0 as f64 - (place.1 as f64 - 1.0) / 2.0);
    let estimate = |bucket: &StalenessBucket| {
        let (reads, stale) = state.of(bucket);
        if reads == 0 {
            return None;
        }
        let (low, high) = confidence(stale, reads);
        let until = bucket.to_us.map_or_else(|| "or longer".to_owned(), |to| format!("to {}", words::time(to as f64)));
        let hint = format!(
            "{name}, {} {until} after the write: {} of {} reads stale ({}; 95 % confidence {} to {})",
            words::time(bucket.from_us as f64),
            words::count(stale),
            words::count(reads),
            words::share(stale, reads),
            words::percent(low),
            words::percent(high)
        );
        Some(Estimate {
            at: within(middle(bucket, across) * aside, across),
            value: stale as f64 / reads as f64,
            low,
            high,
            hint,
        })
    };
    let estimates: Vec<Estimate> = one.buckets.iter().filter_map(estimate).collect();
    (!estimates.is_empty()).then(|| Series {
        name: name.to_owned(),
        look: Look::of(place.0),
        marks: Marks::Estimates(estimates),
    })
}

/// Where a bucket stands on the logarithmic axis: in its middle, or at its only bound.
fn middle(bucket: &StalenessBucket, across: Scale) -> f64 {
    let Scale::Log { from, to } = across else { return bucket.from_us as f64 };
    match (bucket.from_us as f64, bucket.to_us.map(|to| to as f64)) {
        (begin, None) => begin.clamp(from, to),
        (0.0, Some(end)) => end.clamp(from, to),
        (begin, Some(end)) => (begin * end).sqrt().clamp(from, to),
    }
}

fn within(value: f64, across: Scale) -> f64 {
    let Scale::Log { from, to } = across else { return value };
    value.clamp(from, to)
}

/// Wilson's interval: holds for few reads and for none stale too.
fn confidence(part: u64, whole: u64) -> (f64, f64) {
    let (whole, share) = (whole as f64, part as f64 / whole as f64);
    let square = DEVIATIONS * DEVIATIONS;
    let middle = (share + square / (2.0 * whole)) / (1.0 + square / whole);
    let half =
        DEVIATIONS * (share * (1.0 - share) / whole + square / (4.0 * whole * whole)).sqrt() / (1.0 + square / whole);
    let low = if part == 0 { 0.0 } else { (middle - half).max(0.0) };
    (low, (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_wide_where_little_was_seen() {
        let (low, high) = confidence(0, 100);
        assert!(low == 0.0 && (high - 0.037).abs() < 0.001, "{high}");
        let (low, high) = confidence(50, 100);
        assert!((low - 0.404).abs() < 0.001 && (high - 0.596).abs() < 0.001, "{low} {high}");
        assert_eq!(confidence(3, 3).1, 1.0);
    }

    #[test]
    fn buckets_without_a_beginning_or_an_end_have_a_place() {
        let across = Scale::Log { from: 1_000.0, to: 10_000_000.0 };
        let bucket = |from_us, to_us| StalenessBucket { from_us, to_us, ..StalenessBucket::default() };
        assert_eq!(middle(&bucket(0, Some(1_000)), across), 1_000.0);
        assert_eq!(middle(&bucket(10_000_000, None), across), 10_000_000.0);
        assert!((middle(&bucket(1_000, Some(4_000)), across) - 2_000.0).abs() < 1e-6);
    }
}
