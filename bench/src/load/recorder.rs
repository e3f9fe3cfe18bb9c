//! What a thread of the load has measured. One second is taken out at a time, the rest stays until the end.

use hdrhistogram::Histogram;

use super::workload::Kind;
use crate::check::tally::Tally;
use crate::results::{Latency, Operation, Receipts, Slice};
use crate::target::Backing;

/// Latencies above this are told as this.
const LONGEST_US: u64 = 120_000_000;
/// Owners and stand-ins beyond this are counted as this.
const PARTS: usize = 8;
/// Points of a curve per halving of what is left to the end.
const POINTS: u32 = 8;

/// Three digits are kept.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are allowed")
}

/// One second of one thread.
pub struct Second {
    pub histogram: Histogram<u64>,
    pub done: u64,
    pub errors: u64,
    pub stale: u64,
    pub judged: u64,
}

impl Second {
    pub fn new() -> Self {
        Self { histogram: histogram(), done: 0, errors: 0, stale: 0, judged: 0 }
    }

    /// Moves what `other` has here.
    pub fn take(&mut self, other: &mut Self) {
        self.histogram.add(&other.histogram).expect("the same bounds");
        other.histogram.reset();
        for (mine, other) in [
            (&mut self.done, &mut other.done),
            (&mut self.errors, &mut other.errors),
            (&mut self.stale, &mut other.stale),
            (&mut self.judged, &mut other.judged),
        ] {
            *mine += std::mem::take(other);
        }
    }

    pub fn slice(&self, at_s: f64, behind: Option<u64>) -> Slice {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Slice {
            at_s,
            done: self.done,
            errors: self.errors,
            stale: self.stale,
            judged: self.judged,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.histogram.max(),
            behind,
        }
    }
}

impl Default for Second {
    fn default() -> Self {
        Self::new()
    }
}

struct PerKind {
    histogram: Histogram<u64>,
    errors: Vec<(&'static str, u64)>,
    receipts: [[u64; PARTS]; PARTS],
}

/// Everything of one thread.
pub struct Recorder {
    pub second: Second,
    pub tally: Tally,
    kinds: Vec<Option<Box<PerKind>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { second: Second::new(), tally: Tally::default(), kinds: Kind::ALL.iter().map(|_| None).collect() }
    }
}

impl Recorder {
    fn kind(&mut self, kind: Kind) -> &mut PerKind {
        self.kinds[kind as usize].get_or_insert_with(|| {
            Box::new(PerKind { histogram: histogram(), errors: Vec::new(), receipts: [[0; PARTS]; PARTS] })
        })
    }

    pub fn done(&mut self, kind: Kind, took_us: u64, receipt: Option<Backing>) {
        self.second.done += 1;
        self.second.histogram.saturating_record(took_us.max(1));
        let per_kind = self.kind(kind);
        per_kind.histogram.saturating_record(took_us.max(1));
        if let Some(Backing { owners, stand_ins, .. }) = receipt {
            per_kind.receipts[usize::from(owners).min(PARTS - 1)][usize::from(stand_ins).min(PARTS - 1)] += 1;
        }
    }

    pub fn failed(&mut self, kind: Kind, why: &'static str, times: u64) {
        self.second.errors += times;
        let errors = &mut self.kind(kind).errors;
        match errors.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += times,
            None => errors.push((why, times)),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        for (kind, other) in Kind::ALL.into_iter().zip(&other.kinds) {
            let Some(other) = other else { continue };
            let mine = self.kind(kind);
            mine.histogram.add(&other.histogram).expect("the same bounds");
            for (why, times) in &other.errors {
                match mine.errors.iter_mut().find(|(known, _)| known == why) {
                    Some((_, count)) => *count += times,
                    None => mine.errors.push((why, *times)),
                }
            }
            for (mine, other) in mine.receipts.iter_mut().flatten().zip(other.receipts.iter().flatten()) {
                *mine += other;
            }
        }
    }

    /// Answers and errors so far.
    pub fn totals(&self) -> (u64, u64) {
        let kinds = self.kinds.iter().flatten();
        kinds.fold((0, 0), |(done, errors), kind| {
            (done + kind.histogram.len(), errors + kind.errors.iter().map(|(_, times)| times).sum::<u64>())
        })
    }

    pub fn operations(&self, level: impl Fn(Kind) -> String) -> Vec<Operation> {
        let told =
            Kind::ALL.into_iter().zip(&self.kinds).filter_map(|(kind, per_kind)| Some((kind, per_kind.as_ref()?)));
        told.map(|(kind, per_kind)| {
            let mut errors: Vec<(String, u64)> =
                per_kind.errors.iter().map(|(why, times)| ((*why).to_owned(), *times)).collect();
            errors.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
            Operation { name: kind.name().into(), level: level(kind), latency: latency(&per_kind.histogram), errors }
        })
        .collect()
    }

    pub fn receipts(&self, level: impl Fn(Kind) -> String) -> Vec<Receipts> {
        let mut told = Vec::new();
        for (kind, per_kind) in Kind::ALL.into_iter().zip(&self.kinds) {
            let Some(per_kind) = per_kind else { continue };
            for (owners, row) in per_kind.receipts.iter().enumerate() {
                for (stand_ins, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                    told.push(Receipts {
                        operation: kind.name().into(),
                        level: level(kind),
                        owners: owners as u32,
                        stand_ins: stand_ins as u32,
                        count: *count,
                    });
                }
            }
        }
        told
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    if histogram.is_empty() {
        return Latency::default();
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    let mut cdf: Vec<(u64, f64)> = vec![(histogram.min(), 0.0)];
    for step in histogram.iter_quantiles(POINTS) {
        let (us, share) = (step.value_iterated_to().min(histogram.max()), step.quantile());
        match cdf.last_mut() {
            Some(last) if last.0 >= us => last.1 = share.max(last.1),
            _ => cdf.push((us, share)),
        }
    }
    if let Some(last) = cdf.last_mut() {
        last.1 = 1.0;
    }
    Latency {
        count: histogram.len(),
        mean_us: histogram.mean(),
        min_us: histogram.min(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        p9999_us: at(0.9999),
        max_us: histogram.max(),
        cdf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_with_a_curve_that_rises_to_one() {
        let mut recorder = Recorder::default();
        for us in 1..=10_000 {
            recorder.done(Kind::Read, us, Some(Backing { owners: 2, stand_ins: 1, nodes: 7, doubted: 0 }));
        }
        let read = &recorder.operations(|_| "quorum".into())[0];
        assert_eq!((read.name.as_str(), read.level.as_str(), read.latency.count), ("read", "quorum", 10_000));
        let close = |got: u64, wanted: u64| got.abs_diff(wanted) <= wanted / 500;
        assert!(close(read.latency.p50_us, 5_000) && close(read.latency.p99_us, 9_900), "{:?}", read.latency);
        assert!(close(read.latency.max_us, 10_000) && read.latency.min_us == 1);
        let cdf = &read.latency.cdf;
        assert!(cdf.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{cdf:?}");
        assert_eq!(cdf.last().map(|(_, share)| *share), Some(1.0));
        assert!(cdf.len() > 20 && cdf.len() < 400, "{}", cdf.len());
        let one = Recorder::default();
        assert_eq!(one.operations(|_| String::new()), []);
    }

    #[test]
    fn threads_are_added_up() {
        let (mut all, mut one) = (Recorder::default(), Recorder::default());
        one.done(Kind::Update, 10, Some(Backing { owners: 1, stand_ins: 1, nodes: 3, doubted: 0 }));
        one.failed(Kind::Update, "timeout", 2);
        one.failed(Kind::Update, "overloaded", 1);
        one.failed(Kind::Update, "timeout", 1);
        all.add(&one);
        all.add(&one);
        assert_eq!(all.totals(), (2, 8));
        let update = &all.operations(|_| "one".into())[0];
        assert_eq!(update.errors, [("timeout".to_owned(), 6), ("overloaded".to_owned(), 2)]);
        let receipts = all.receipts(|_| "one".into());
        assert_eq!((receipts[0].owners, receipts[0].stand_ins, receipts[0].count, receipts.len()), (1, 1, 2, 1));
    }

    #[test]
    fn a_second_is_taken_out_once() {
        let (mut sum, mut recorder) = (Second::new(), Recorder::default());
        recorder.done(Kind::Read, 100, None);
        recorder.failed(Kind::Read, "timeout", 1);
        sum.take(&mut recorder.second);
        sum.take(&mut recorder.second);
        let slice = sum.slice(3.0, Some(2));
        assert_eq!((slice.done, slice.errors, slice.max_us, slice.behind), (1, 1, 100, Some(2)));
        assert_eq!(recorder.totals(), (1, 1), "the whole stays");
    }
}
