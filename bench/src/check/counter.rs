//! One counter: any number of writers, since increments commute. The truth lies between what was acknowledged and that with all whose
//! outcome is unknown.

use super::register::{Before, End, Verdict, Wrong};

#[derive(Clone, Debug, Default)]
pub struct Counter {
    acknowledged: u64,
    unsure: u64,
    under_way: u64,
    acknowledged_at_us: u64,
    stand_ins: bool,
}

impl Counter {
    /// One increment by one.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    pub fn end(&mut self, end: End) {
        self.under_way -= 1;
        match end {
            End::Acknowledged { at_us, stand_ins, .. } => {
                self.acknowledged += 1;
                self.acknowledged_at_us = at_us;
                // A reader is owed all of them, so that one kept by a stand-in clears the debt until the end.
                self.stand_ins |= stand_ins;
            }
            End::Refused => {}
            End::Unknown => self.unsure += 1,
        }
    }

    pub fn is_written(&self) -> bool {
        self.acknowledged + self.unsure > 0
    }

    pub fn before(&self) -> Before {
        Before { acknowledged: self.acknowledged, at_us: self.acknowledged_at_us, stand_ins: self.stand_ins, nodes: 0 }
    }

    /// A read that began at `before` brought this sum, and with it how many increments it may count twice; no sum is 0.
    pub fn judge(&self, before: Before, sum: i64, doubted: u32) -> Verdict {
        let most = self.acknowledged + self.unsure + self.under_way;
        match u64::try_from(sum) {
            Ok(sum) if sum > most + u64::from(doubted) => Verdict::Duplicated,
            Ok(sum) if sum > most => Verdict::Open,
            Ok(sum) if sum < before.acknowledged => Verdict::Stale,
            Ok(_) => Verdict::Fresh,
            Err(_) => Verdict::Invented,
        }
    }

    pub fn judge_last(&self, sum: i64) -> Option<Wrong> {
        match self.judge(self.before(), sum, 0) {
            Verdict::Stale => Some(Wrong::Lost),
            Verdict::Duplicated => Some(Wrong::Duplicated),
            Verdict::Invented => Some(Wrong::Invented),
            Verdict::Fresh | Verdict::Open => None,
        }
    }

    pub fn told(&self) -> String {
        let Self { acknowledged, unsure, under_way, .. } = self;
        format!("{acknowledged} acknowledged, {under_way} under way, {unsure} of unknown outcome")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_lies_between_what_is_known_and_what_may_be() {
        let mut counter = Counter::default();
        for end in [
            End::Acknowledged { at_us: 1, stand_ins: false, nodes: 0 },
            End::Acknowledged { at_us: 2, stand_ins: false, nodes: 0 },
            End::Unknown,
            End::Refused,
        ] {
            counter.begin();
            counter.end(end);
        }
        assert_eq!(counter.judge_last(1), Some(Wrong::Lost));
        assert_eq!(counter.judge_last(2), None);
        assert_eq!(counter.judge_last(3), None);
        assert_eq!(counter.judge_last(4), Some(Wrong::Duplicated));
        assert_eq!(counter.judge_last(-1), Some(Wrong::Invented));
        let before = counter.before();
        counter.begin();
        assert_eq!(counter.judge(before, 4, 0), Verdict::Fresh, "one is under way");
        counter.end(End::Acknowledged { at_us: 3, stand_ins: true, nodes: 0 });
        assert_eq!(counter.judge(before, 2, 0), Verdict::Fresh, "acknowledged after the read began");
        assert_eq!(counter.judge(counter.before(), 2, 0), Verdict::Stale);
        assert!(counter.before().stand_ins);
        assert_eq!(counter.judge(before, 5, 0), Verdict::Duplicated);
        assert_eq!(counter.judge(before, 5, 1), Verdict::Open, "the answer says so itself");
        assert_eq!(counter.judge(before, 6, 1), Verdict::Duplicated);
    }
}
