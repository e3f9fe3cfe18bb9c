//! FEWER POINTS than there are seconds: a run of hours has more slices than a screen has pixels.

use crate::results::Slice;

/// Some slices as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub from_s: f64,
    pub to_s: f64,
    /// Answers per second: the slowest second, all of them, the fastest.
    pub least: f64,
    pub mean: f64,
    pub most: f64,
    /// The worst second's.
    pub errors: f64,
    /// The median of the seconds' medians.
    pub p50_us: f64,
    /// The worst seconds'.
    pub p99_us: f64,
    pub p999_us: f64,
    pub behind: Option<f64>,
    pub stale: u64,
    pub judged: u64,
}

/// At most so many groups of as many slices each. A group tells the mean rate and its range, and the worst of all else:
/// what hurts must not vanish by averaging.
pub fn groups(slices: &[Slice], most: usize) -> Vec<Group> {
    let size = slices.len().div_ceil(most.max(1)).max(1);
    slices.chunks(size).map(group).collect()
}

fn group(slices: &[Slice]) -> Group {
    let rates = || slices.iter().map(|slice| slice.done as f64);
    let worst = |of: fn(&Slice) -> u64| slices.iter().map(of).max().unwrap_or(0) as f64;
    let mut medians: Vec<u64> = slices.iter().filter(|slice| slice.done > 0).map(|slice| slice.p50_us).collect();
    medians.sort_unstable();
    Group {
        from_s: slices.first().map_or(0.0, |slice| slice.at_s),
        to_s: slices.last().map_or(0.0, |slice| slice.at_s) + 1.0,
        least: rates().fold(f64::INFINITY, f64::min),
        mean: rates().sum::<f64>() / slices.len().max(1) as f64,
        most: rates().fold(0.0, f64::max),
        errors: worst(|slice| slice.errors),
        p50_us: medians.get(medians.len() / 2).copied().unwrap_or(0) as f64,
        p99_us: worst(|slice| slice.p99_us),
        p999_us: worst(|slice| slice.p999_us),
        behind: slices.iter().filter_map(|slice| slice.behind).max().map(|behind| behind as f64),
        stale: slices.iter().map(|slice| slice.stale).sum(),
        judged: slices.iter().map(|slice| slice.judged).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(number: u64) -> Vec<Slice> {
        let slice = |at: u64| Slice { at_s: at as f64, done: 100 + at % 7, p50_us: 10, p99_us: 50, ..Slice::default() };
        (0..number).map(slice).collect()
    }

    #[test]
    fn a_short_run_is_left_as_it_is() {
        let groups = groups(&slices(150), 300);
        assert_eq!(groups.len(), 150);
        assert_eq!((groups[3].from_s, groups[3].to_s, groups[3].mean), (3.0, 4.0, 103.0));
    }

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_worst_second() {
        let mut slices = slices(10_000);
        slices[7_777].p999_us = 900_000;
        slices[7_777].errors = 12;
        slices[8_000].done = 0;
        let groups = groups(&slices, 300);
        assert!(groups.len() <= 300 && groups.len() > 250, "{}", groups.len());
        assert_eq!(groups.iter().filter(|group| group.p999_us == 900_000.0 && group.errors == 12.0).count(), 1);
        assert!(groups.iter().any(|group| group.least == 0.0 && group.mean > 90.0), "the empty second shows");
        assert_eq!(groups[0].from_s, 0.0);
        assert_eq!(groups.last().map(|group| group.to_s), Some(10_000.0));
        assert!(groups.windows(2).all(|pair| pair[0].to_s == pair[1].from_s), "no gap");
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(groups(&[], 300).is_empty());
    }
}
