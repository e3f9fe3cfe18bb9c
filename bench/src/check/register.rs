//! One value that is replaced: a string, a field of a map, siblings.
//!
//! It has one writer at a time, and each write has a sequence number, so that "newer" means something. A write whose outcome is unknown
//! may take effect at any later time, also above writes that were acknowledged after it: its number is remembered, and a read that
//! brings it proves nothing. When there are too many of these, reads of the item are no longer judged.

/// Unknown outcomes remembered for one item.
const UNSURE_MAX: usize = 16;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Acknowledged {
        at_us: u64,
        stand_ins: bool,
        nodes: u64,
    },
    /// Nothing happened, it was said.
    Refused,
    Unknown,
}

/// What had been acknowledged when a read began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    pub acknowledged: u64,
    pub at_us: u64,
    /// The last acknowledgement counted stand-ins.
    pub stand_ins: bool,
    /// Who acknowledged it: one bit per member. 0: not known.
    pub nodes: u64,
}

/// What a read is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fresh,
    /// Older than what had been acknowledged before it began.
    Stale,
    /// It may be right or wrong: an outcome is unknown.
    Open,
    /// Nobody wrote that, or it was said not to have been written.
    Invented,
    /// Counted more than was asked for.
    Duplicated,
}

/// What is wrong at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Lost,
    Resurrected,
    Duplicated,
    Invented,
}

#[derive(Clone, Debug, Default)]
pub struct Register {
    issued: u32,
    acknowledged: u32,
    acknowledged_at_us: u64,
    /// The newest write that deletes.
    newest_delete: u32,
    nodes: u64,
    deleted: bool,
    stand_ins: bool,
    busy: bool,
    overflown: bool,
    /// Writes of unknown outcome, and whether they delete.
    unsure: Vec<(u32, bool)>,
}

impl Register {
    /// The next write's number; `None` while one is under way.
    pub fn begin(&mut self, deletes: bool) -> Option<u32> {
        if self.busy || self.issued == u32::MAX {
            return None;
        }
        self.busy = true;
        self.issued += 1;
        if deletes {
            self.newest_delete = self.issued;
        }
        Some(self.issued)
    }

    pub fn end(&mut self, sequence: u32, deletes: bool, end: End) {
        self.busy = false;
        match end {
            End::Acknowledged { at_us, stand_ins, nodes } => {
                self.acknowledged = sequence;
                self.acknowledged_at_us = at_us;
                self.deleted = deletes;
                self.stand_ins = stand_ins;
                self.nodes = nodes;
            }
            End::Refused => {}
            End::Unknown if self.unsure.len() < UNSURE_MAX => self.unsure.push((sequence, deletes)),
            End::Unknown => self.overflown = true,
        }
    }

    pub fn is_written(&self) -> bool {
        self.issued > 0
    }

    pub fn before(&self) -> Before {
        Before {
            acknowledged: u64::from(self.acknowledged),
            at_us: self.acknowledged_at_us,
            stand_ins: self.stand_ins,
            nodes: self.nodes,
        }
    }

    /// A read that began at `before` brought this sequence number; `None`: nothing.
    pub fn judge(&self, before: Before, seen: Option<u32>) -> Verdict {
        match seen {
            Some(sequence) if sequence > self.issued => Verdict::Invented,
            _ if self.overflown => Verdict::Open,
            Some(sequence) => self.judge_value(before, sequence),
            None => self.judge_nothing(before),
        }
    }

    fn judge_value(&self, before: Before, sequence: u32) -> Verdict {
        let unsure = self.unsure.iter().any(|(unsure, _)| *unsure == sequence);
        let under_way = self.busy && sequence == self.issued;
        match u64::from(sequence) >= before.acknowledged {
            true if sequence <= self.acknowledged || unsure || under_way => Verdict::Fresh,
            true => Verdict::Invented,
            false if unsure => Verdict::Open,
            false => Verdict::Stale,
        }
    }

    fn judge_nothing(&self, before: Before) -> Verdict {
        // What was acknowledged then deletes, or a later write does that may have come already.
        let fresh = before.acknowledged == 0 || u64::from(self.newest_delete) >= before.acknowledged;
        match fresh {
            true => Verdict::Fresh,
            false if self.unsure.iter().any(|(_, deletes)| *deletes) => Verdict::Open,
            false => Verdict::Stale,
        }
    }

    /// After everything: a read of all owners brought this. `None`: it is right, or may be.
    pub fn judge_last(&self, seen: Option<u32>) -> Option<Wrong> {
        match self.judge(self.before(), seen) {
            Verdict::Stale if self.deleted => Some(Wrong::Resurrected),
            Verdict::Stale => Some(Wrong::Lost),
            Verdict::Invented => Some(Wrong::Invented),
            _ => None,
        }
    }

    /// For examples.
    pub fn told(&self) -> String {
        let what = if self.deleted { "a delete" } else { "a write" };
        let unsure: Vec<String> = self.unsure.iter().map(|(sequence, _)| sequence.to_string()).collect();
        let unsure =
            if unsure.is_empty() { String::new() } else { format!("; of unknown outcome: {}", unsure.join(", ")) };
        format!("acknowledged last: {what}, number {}, of {} begun{unsure}", self.acknowledged, self.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: End = End::Acknowledged { at_us: 10, stand_ins: false, nodes: 0 };

    /// After these writes: (deletes, what became of it).
    fn after(writes: &[(bool, End)]) -> Register {
        let mut register = Register::default();
        for (deletes, end) in writes {
            let sequence = register.begin(*deletes).expect("one at a time");
            register.end(sequence, *deletes, *end);
        }
        register
    }

    #[test]
    fn an_older_value_is_stale_and_lost_at_the_end() {
        let register = after(&[(false, DONE), (false, DONE)]);
        assert_eq!(register.judge(register.before(), Some(2)), Verdict::Fresh);
        assert_eq!(register.judge(register.before(), Some(1)), Verdict::Stale);
        assert_eq!(register.judge(register.before(), None), Verdict::Stale);
        assert_eq!(register.judge_last(Some(2)), None);
        assert_eq!(register.judge_last(Some(1)), Some(Wrong::Lost));
        assert_eq!(register.judge_last(None), Some(Wrong::Lost));
    }

    #[test]
    fn what_a_read_may_miss_is_what_was_acknowledged_after_it_began() {
        let mut register = after(&[(false, DONE)]);
        let before = register.before();
        let second = register.begin(false).expect("idle");
        assert_eq!(register.judge(before, Some(2)), Verdict::Fresh, "under way");
        register.end(second, false, DONE);
        assert_eq!(register.judge(before, Some(1)), Verdict::Fresh);
        assert_eq!(register.judge(register.before(), Some(1)), Verdict::Stale);
    }

    #[test]
    fn what_was_deleted_stays_away() {
        let register = after(&[(false, DONE), (true, DONE)]);
        assert_eq!(register.judge(register.before(), None), Verdict::Fresh);
        assert_eq!(register.judge(register.before(), Some(1)), Verdict::Stale);
        assert_eq!(register.judge_last(Some(1)), Some(Wrong::Resurrected));
        assert_eq!(register.judge_last(None), None);
        let written_again = after(&[(false, DONE), (true, DONE), (false, DONE)]);
        assert_eq!(written_again.judge_last(None), Some(Wrong::Lost));
        assert_eq!(written_again.judge_last(Some(1)), Some(Wrong::Lost));
    }

    #[test]
    fn an_unknown_outcome_may_come_late_and_may_not_come() {
        let register = after(&[(false, DONE), (false, End::Unknown), (false, DONE)]);
        assert_eq!(register.judge(register.before(), Some(3)), Verdict::Fresh);
        assert_eq!(register.judge(register.before(), Some(2)), Verdict::Open);
        assert_eq!(register.judge(register.before(), Some(1)), Verdict::Stale);
        assert_eq!(register.judge_last(Some(2)), None);
        let deleted = after(&[(false, DONE), (true, End::Unknown), (false, DONE)]);
        assert_eq!(deleted.judge_last(None), None);
        let newest = after(&[(false, DONE), (false, End::Unknown)]);
        assert_eq!((newest.judge_last(Some(1)), newest.judge_last(Some(2))), (None, None));
    }

    #[test]
    fn what_was_refused_or_never_written_is_invented() {
        let register = after(&[(false, DONE), (false, End::Refused)]);
        assert_eq!(register.judge(register.before(), Some(2)), Verdict::Invented);
        assert_eq!(register.judge(register.before(), Some(3)), Verdict::Invented);
        assert_eq!(register.judge_last(Some(2)), Some(Wrong::Invented));
        assert_eq!(register.judge(register.before(), Some(1)), Verdict::Fresh);
    }

    #[test]
    fn nothing_is_right_before_anything_was_acknowledged() {
        assert_eq!(Register::default().judge(Before::default(), None), Verdict::Fresh);
        let unknown = after(&[(false, End::Unknown)]);
        assert_eq!(unknown.judge_last(None), None);
        assert_eq!(unknown.judge_last(Some(1)), None);
    }

    #[test]
    fn one_writer_at_a_time_and_a_bound_on_what_is_remembered() {
        let mut register = Register::default();
        assert_eq!(register.begin(false), Some(1));
        assert_eq!(register.begin(false), None);
        register.end(1, false, DONE);
        for _ in 0..UNSURE_MAX {
            let sequence = register.begin(false).expect("idle");
            register.end(sequence, false, End::Unknown);
        }
        assert_eq!(register.judge_last(None), Some(Wrong::Lost));
        let sequence = register.begin(false).expect("idle");
        register.end(sequence, false, End::Unknown);
        assert_eq!(register.judge_last(None), None, "no longer judged");
        assert_eq!(register.judge_last(Some(sequence + 1)), Some(Wrong::Invented), "but for what was never written");
    }
}
