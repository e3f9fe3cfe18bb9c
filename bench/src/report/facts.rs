//! WHAT THE RESULTS AMOUNT TO: the single numbers that the page, the summary and the comparison say.

use super::words;
use crate::results::{FaultSpan, Operation, Receipts, Results, Slice, Staleness};

/// No more letters of a title in legends and tables.
const LABEL_LETTERS: usize = 48;

/// A number of each run.
pub struct Fact {
    pub name: String,
    /// Of each run, in their order; nothing where it was not measured.
    pub values: Vec<Option<f64>>,
    pub say: fn(f64) -> String,
}

impl Fact {
    /// How a run's value compares with the first run's.
    pub fn ratio(&self, run: usize) -> String {
        match (self.values.first().copied().flatten(), self.values.get(run).copied().flatten()) {
            (Some(first), Some(value)) => words::ratio(first, value),
            _ => words::NONE.to_owned(),
        }
    }

    pub fn said(&self, run: usize) -> String {
        self.values.get(run).copied().flatten().map_or_else(|| words::NONE.to_owned(), self.say)
    }
}

/// A short name for each run; no two are the same.
pub fn labels(results: &[Results]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::with_capacity(results.len());
    for (at, run) in results.iter().enumerate() {
        let title = run.setting.title.trim();
        let title = if title.is_empty() { format!("run {}", at + 1) } else { words::cut(title, LABEL_LETTERS) };
        let again =
            results[..at].iter().filter(|before| before.setting.title.trim() == run.setting.title.trim()).count();
        labels.push(if again == 0 { title } else { format!("{title} ({})", again + 1) });
    }
    labels
}

/// How long the measured part was.
pub fn length_s(run: &Results) -> f64 {
    let seen = run.slices.last().map_or(0.0, |slice| slice.at_s + 1.0);
    if seen > 0.0 { seen } else { run.setting.measured_s }
}

/// When a fault began and ended, within the measured part; nothing if it was not on then.
pub fn span(fault: &FaultSpan, length_s: f64) -> Option<(f64, f64)> {
    let from = fault.from_s.max(0.0);
    let to = fault.to_s.unwrap_or(length_s).min(length_s);
    (from <= to && from < length_s).then_some((from, to))
}

/// Was a fault on at any time of this second?
pub fn is_hurt(run: &Results, slice: &Slice) -> bool {
    let is_on = |fault: &FaultSpan| fault.from_s < slice.at_s + 1.0 && fault.to_s.is_none_or(|to| to > slice.at_s);
    run.faults.iter().any(is_on)
}

/// Did all runs have the same faults at the same times, to a second?
pub fn are_hurt_alike(results: &[Results]) -> bool {
    let alike = |one: &FaultSpan, other: &FaultSpan| {
        let ends = match (one.to_s, other.to_s) {
            (Some(one), Some(other)) => (one - other).abs() <= 1.0,
            (one, other) => one == other,
        };
        one.text == other.text && (one.from_s - other.from_s).abs() <= 1.0 && ends
    };
    results.windows(2).all(|pair| {
        let (one, other) = (&pair[0].faults, &pair[1].faults);
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
    })
}

pub fn done(run: &Results) -> u64 {
    run.slices.iter().map(|slice| slice.done).sum()
}

pub fn errors(run: &Results) -> u64 {
    run.slices.iter().map(|slice| slice.errors).sum()
}

/// Answers per second over these; nothing over none.
fn mean<'a>(slices: impl Iterator<Item = &'a Slice>) -> Option<f64> {
    let (mut done, mut seconds) = (0, 0_u64);
    for slice in slices {
        done += slice.done;
        seconds += 1;
    }
    (seconds > 0).then(|| done as f64 / seconds as f64)
}

pub fn rate(run: &Results) -> Option<f64> {
    mean(run.slices.iter())
}

/// While no fault was on, and while one was.
pub fn rates_apart(run: &Results) -> (Option<f64>, Option<f64>) {
    let hurt = |wanted: bool| move |slice: &&Slice| is_hurt(run, slice) == wanted;
    (mean(run.slices.iter().filter(hurt(false))), mean(run.slices.iter().filter(hurt(true))))
}

pub fn least_rate(run: &Results) -> Option<u64> {
    run.slices.iter().map(|slice| slice.done).min()
}

pub fn silent_seconds(run: &Results) -> u64 {
    run.slices.iter().filter(|slice| slice.done == 0).count() as u64
}

/// Stale reads and those that could be judged, while no fault was on and while one was.
pub struct Stale {
    pub healthy: (u64, u64),
    pub hurt: (u64, u64),
}

pub fn stale(staleness: &Staleness) -> Stale {
    let mut sum = Stale { healthy: (0, 0), hurt: (0, 0) };
    for bucket in &staleness.buckets {
        sum.healthy.0 += bucket.stale_healthy;
        sum.healthy.1 += bucket.reads_healthy;
        sum.hurt.0 += bucket.stale.saturating_sub(bucket.stale_healthy);
        sum.hurt.1 += bucket.reads.saturating_sub(bucket.reads_healthy);
    }
    sum
}

pub fn operation_errors(operation: &Operation) -> u64 {
    operation.errors.iter().map(|(_, number)| number).sum()
}

/// What was said how often over all operations, the most frequent first.
pub fn error_kinds(run: &Results) -> Vec<(String, u64)> {
    let mut kinds: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for (said, number) in run.operations.iter().flat_map(|operation| &operation.errors) {
        *kinds.entry(said).or_default() += number;
    }
    let mut kinds: Vec<(String, u64)> = kinds.into_iter().map(|(said, number)| (said.to_owned(), number)).collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    kinds
}

/// Names of all pairs that any run has, in the order in which they are met first.
pub fn pairs<'a, T: 'a>(
    results: &'a [Results],
    of: impl Fn(&'a Results) -> &'a [T],
    name: impl Fn(&'a T) -> (&'a str, &'a str),
) -> Vec<(&'a str, &'a str)> {
    let mut pairs = Vec::new();
    for pair in results.iter().flat_map(of).map(name) {
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs
}

pub fn operation_pairs(results: &[Results]) -> Vec<(&str, &str)> {
    pairs(results, |run| run.operations.as_slice(), |one| (one.name.as_str(), one.level.as_str()))
}

pub fn staleness_pairs(results: &[Results]) -> Vec<(&str, &str)> {
    pairs(results, |run| run.staleness.as_slice(), |one| (one.write_level.as_str(), one.read_level.as_str()))
}

pub fn receipt_pairs(results: &[Results]) -> Vec<(&str, &str)> {
    pairs(results, |run| run.receipts.as_slice(), |one: &Receipts| (one.operation.as_str(), one.level.as_str()))
}

/// An operation at a level, of one run.
pub fn operation<'a>(run: &'a Results, pair: (&str, &str)) -> Option<&'a Operation> {
    run.operations.iter().find(|one| (one.name.as_str(), one.level.as_str()) == pair)
}

/// "read at quorum"; the level is left out where there is none.
pub fn pair_name(pair: (&str, &str)) -> String {
    if pair.1.is_empty() { pair.0.to_owned() } else { format!("{} at {}", pair.0, pair.1) }
}

fn percent(share: f64) -> String {
    words::percent(share)
}

fn whole(number: f64) -> String {
    words::count(number as u64)
}

fn bytes(number: f64) -> String {
    words::bytes(number as u64)
}

/// The numbers that a run is judged by, of all runs side by side. What no run has is left out.
pub fn all(results: &[Results]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name: &str, say: fn(f64) -> String, of: &dyn Fn(&Results) -> Option<f64>| {
        let values: Vec<Option<f64>> = results.iter().map(|run| of(run).filter(|value| value.is_finite())).collect();
        if values.iter().any(Option::is_some) {
            facts.push(Fact { name: name.to_owned(), values, say });
        }
    };
    let asked = |done: u64, errors: u64| (done + errors > 0).then(|| errors as f64 / (done + errors) as f64);
    add("throughput, mean", words::rate, &rate);
    if results.iter().any(|run| !run.faults.is_empty()) {
        add("throughput, no fault on", words::rate, &|run| rates_apart(run).0);
        add("throughput, a fault on", words::rate, &|run| rates_apart(run).1);
    }
    add("throughput, slowest second", words::rate, &|run| least_rate(run).map(|rate| rate as f64));
    add("seconds without an answer", whole, &|run| (!run.slices.is_empty()).then(|| silent_seconds(run) as f64));
    add("errors, share of all requests", percent, &|run| asked(done(run), errors(run)));
    let stale_share = |(stale, judged): (u64, u64)| (judged > 0).then(|| stale as f64 / judged as f64);
    add("stale reads, of those judged", percent, &|run| {
        stale_share(run.slices.iter().fold((0, 0), |sum, slice| (sum.0 + slice.stale, sum.1 + slice.judged)))
    });
    add("level again after healing, longest", words::seconds, &|run| {
        let times: Option<Vec<f64>> = run.healings.iter().map(|healing| healing.level_after_s).collect();
        times.filter(|times| !times.is_empty()).map(|times| times.into_iter().fold(0.0, f64::max))
    });
    add("server CPU per operation", words::time, &|run| run.cost.server_cpu_us_per_operation);
    add("server memory", bytes, &|run| run.cost.server_memory_bytes.map(|bytes| bytes as f64));
    let was_metered = |run: &Results| run.cost.own_cpu_share > 0.0;
    add("load generator, share of all cores", percent, &|run| was_metered(run).then_some(run.cost.own_cpu_share));
    add("load generator, CPU per operation", words::time, &|run| {
        was_metered(run).then_some(run.cost.own_cpu_us_per_operation)
    });
    facts
}
