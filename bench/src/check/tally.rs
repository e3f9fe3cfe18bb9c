//! What verdicts add up to: how many reads were stale and how old what they missed was, and what must never be.

use super::register::{Before, Verdict};
use crate::results::{Check, StalenessBucket};

/// Buckets by the time since the newest acknowledged write: up to 1 ms, 2 ms, 4 ms ... 65 s, and older.
const BUCKETS: usize = 18;
/// Told in full.
pub const EXAMPLES_MAX: usize = 20;

/// How a read stood to what is promised.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Read and write level together exceed the number of owners.
    pub intersecting: bool,
    /// The read counted stand-ins.
    pub stand_ins: bool,
    /// No fault was on when it began, nor is one now.
    pub healthy: bool,
    /// It belongs to the measured part.
    pub measured: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub check: Check,
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    reads: u64,
    stale: u64,
    reads_healthy: u64,
    stale_healthy: u64,
}

impl Tally {
    /// Takes a verdict; `told` tells the whole story of one that is wrong. `began_us`: when the read did.
    pub fn take(
        &mut self,
        verdict: Verdict,
        before: Before,
        began_us: u64,
        circumstances: Circumstances,
        told: impl FnOnce() -> String,
    ) {
        if verdict == Verdict::Open {
            return;
        }
        self.check.verified += 1;
        let stale = verdict == Verdict::Stale;
        if before.acknowledged > 0 && circumstances.measured && matches!(verdict, Verdict::Fresh | Verdict::Stale) {
            let bucket = &mut self.buckets[bucket_of(began_us.saturating_sub(before.at_us))];
            bucket.reads += 1;
            bucket.stale += u64::from(stale);
            bucket.reads_healthy += u64::from(circumstances.healthy);
            bucket.stale_healthy += u64::from(stale && circumstances.healthy);
        }
        match verdict {
            Verdict::Fresh | Verdict::Open => {}
            Verdict::Stale => {
                self.check.stale += 1;
                if circumstances.intersecting && !circumstances.stand_ins && !before.stand_ins {
                    self.check.stale_against_promise += 1;
                    self.example(told);
                }
            }
            Verdict::Invented => {
                self.check.invented += 1;
                self.example(told);
            }
            Verdict::Duplicated => {
                self.check.duplicated += 1;
                self.example(told);
            }
        }
    }

    pub fn example(&mut self, told: impl FnOnce() -> String) {
        if self.check.examples.len() < EXAMPLES_MAX {
            self.check.examples.push(told());
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, other) in self.buckets.iter_mut().zip(&other.buckets) {
            mine.reads += other.reads;
            mine.stale += other.stale;
            mine.reads_healthy += other.reads_healthy;
            mine.stale_healthy += other.stale_healthy;
        }
        let (mine, other) = (&mut self.check, &other.check);
        mine.verified += other.verified;
        mine.keys_read_at_end += other.keys_read_at_end;
        mine.lost += other.lost;
        mine.duplicated += other.duplicated;
        mine.resurrected += other.resurrected;
        mine.invented += other.invented;
        mine.stale += other.stale;
        mine.stale_against_promise += other.stale_against_promise;
        mine.unknown += other.unknown;
        mine.doubted += other.doubted;
        let room = EXAMPLES_MAX - mine.examples.len().min(EXAMPLES_MAX);
        mine.examples.extend(other.examples.iter().take(room).cloned());
    }

    pub fn staleness(&self) -> Vec<StalenessBucket> {
        let last = BUCKETS - 1;
        let told = |(at, bucket): (usize, &Bucket)| StalenessBucket {
            from_us: if at == 0 { 0 } else { 1_000 << (at - 1) },
            to_us: (at < last).then(|| 1_000 << at),
            reads: bucket.reads,
            stale: bucket.stale,
            reads_healthy: bucket.reads_healthy,
            stale_healthy: bucket.stale_healthy,
        };
        self.buckets.iter().enumerate().map(told).collect()
    }
}

fn bucket_of(age_us: u64) -> usize {
    let ms = age_us / 1_000;
    (u64::BITS - ms.leading_zeros()).min(BUCKETS as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: Circumstances =
        Circumstances { intersecting: true, stand_ins: false, healthy: true, measured: true };

    fn before(at_us: u64) -> Before {
        Before { acknowledged: 1, at_us, stand_ins: false, nodes: 0 }
    }

    #[test]
    fn reads_fall_into_the_bucket_of_their_age() {
        let mut tally = Tally::default();
        let ages =
            [(0, 0), (999, 0), (1_000, 1), (1_999, 1), (2_000, 2), (65_535_999, 16), (65_536_000, 17), (u64::MAX, 17)];
        for (age, at) in ages {
            assert_eq!(bucket_of(age), at, "{age}");
        }
        tally.take(Verdict::Stale, before(0), 2_500, HEALTHY, String::new);
        tally.take(Verdict::Fresh, before(0), 2_500, Circumstances { healthy: false, ..HEALTHY }, String::new);
        tally.take(Verdict::Fresh, before(0), 2_500, Circumstances { measured: false, ..HEALTHY }, String::new);
        let buckets = tally.staleness();
        assert_eq!((buckets[2].from_us, buckets[2].to_us), (2_000, Some(4_000)));
        assert_eq!((buckets[2].reads, buckets[2].stale), (2, 1));
        assert_eq!((buckets[2].reads_healthy, buckets[2].stale_healthy), (1, 1));
        assert!(buckets.windows(2).all(|pair| pair[0].to_us == Some(pair[1].from_us)), "no gaps");
        assert_eq!(tally.check.verified, 3);
    }

    #[test]
    fn stale_is_against_the_promise_only_where_it_was_promised() {
        let mut tally = Tally::default();
        let stand_in = Before { stand_ins: true, ..before(0) };
        tally.take(Verdict::Stale, before(0), 1, Circumstances { intersecting: false, ..HEALTHY }, String::new);
        tally.take(Verdict::Stale, before(0), 1, Circumstances { stand_ins: true, ..HEALTHY }, String::new);
        tally.take(Verdict::Stale, stand_in, 1, HEALTHY, String::new);
        assert_eq!((tally.check.stale, tally.check.stale_against_promise), (3, 0));
        tally.take(Verdict::Stale, before(0), 1, HEALTHY, || "key 7".into());
        assert_eq!((tally.check.stale, tally.check.stale_against_promise), (4, 1));
        assert_eq!(tally.check.examples, ["key 7"]);
        tally.take(Verdict::Open, before(0), 1, HEALTHY, String::new);
        assert_eq!(tally.check.verified, 4);
    }

    #[test]
    fn examples_are_the_first_few() {
        let mut tally = Tally::default();
        for number in 0..100 {
            tally.take(Verdict::Invented, before(0), 1, HEALTHY, || number.to_string());
        }
        let mut all = Tally::default();
        all.add(&tally);
        all.add(&tally);
        assert_eq!((all.check.invented, all.check.examples.len()), (200, EXAMPLES_MAX));
    }
}
