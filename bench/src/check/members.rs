//! One set: the members of the last 64 that were ever added.
//!
//! A member is a number; it is added once and removed once, so that no read can mix up two lives of it. An add-wins set removes what the
//! removal saw: only when it was said that the member was there is it owed to be gone. The set has one writer at a time.

use super::register::{Before, End, Verdict, Wrong};

/// Members that are remembered.
const WINDOW: u32 = 64;
/// Members that a set has at most; its writer removes one before it adds another.
const LIVE_MAX: u32 = 32;

/// A change of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub member: u32,
    pub adds: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Members {
    /// The number of the next member.
    next: u32,
    /// One bit for each of the last [`WINDOW`], by number modulo that: acknowledged and not removed.
    present: u64,
    /// An outcome is unknown, or something is under way.
    unsure: u64,
    /// Some member whose outcome is unknown is older than those remembered.
    forgot_unsure: bool,
    busy: bool,
    acknowledged_at_us: u64,
    stand_ins: bool,
}

/// What was owed when a read began.
#[derive(Clone, Copy, Debug, Default)]
pub struct MembersBefore {
    pub before: Before,
    next: u32,
    present: u64,
    unsure: u64,
}

impl Members {
    /// The next change: adding or removing as `adds` wishes, the other when that cannot be. `None` while one is under way.
    pub fn begin(&mut self, adds: bool) -> Option<Change> {
        if self.busy || self.next == u32::MAX {
            return None;
        }
        let oldest = self.oldest();
        let adds = match oldest {
            None => true,
            Some(_) if self.present.count_ones() >= LIVE_MAX => false,
            // The place of a member that is still there is not given away.
            Some(_) if self.present & bit(self.next) != 0 => false,
            Some(_) => adds,
        };
        let member = if adds { self.add_next() } else { oldest? };
        self.busy = true;
        self.unsure |= bit(member);
        Some(Change { member, adds })
    }

    fn add_next(&mut self) -> u32 {
        let member = self.next;
        self.forgot_unsure |= self.unsure & bit(member) != 0;
        self.next += 1;
        member
    }

    /// The oldest member that is certainly there.
    fn oldest(&self) -> Option<u32> {
        self.window().find(|member| self.present & bit(*member) != 0 && self.unsure & bit(*member) == 0)
    }

    fn window(&self) -> impl Iterator<Item = u32> + use<> {
        self.next.saturating_sub(WINDOW)..self.next
    }

    /// `certain`: of an add that it was sent once, of a removal that it saw the member.
    pub fn end(&mut self, change: Change, end: End, certain: bool) {
        self.busy = false;
        let bit = bit(change.member);
        match end {
            End::Acknowledged { at_us, stand_ins, .. } => {
                self.acknowledged_at_us = at_us;
                self.stand_ins |= stand_ins;
                match (change.adds, certain) {
                    (true, true) => (self.present, self.unsure) = (self.present | bit, self.unsure & !bit),
                    (false, true) => (self.present, self.unsure) = (self.present & !bit, self.unsure & !bit),
                    (true, false) | (false, false) => self.present &= !bit,
                }
            }
            // An add that was refused is as if the member had been removed.
            End::Refused => self.unsure &= !bit,
            End::Unknown => self.present &= !bit,
        }
    }

    pub fn is_written(&self) -> bool {
        self.next > 0
    }

    pub fn before(&self) -> MembersBefore {
        let acknowledged = u64::from(self.present.count_ones());
        let before = Before { acknowledged, at_us: self.acknowledged_at_us, stand_ins: self.stand_ins, nodes: 0 };
        MembersBefore { before, next: self.next, present: self.present, unsure: self.unsure }
    }

    /// A read of all members that began at `before` brought these.
    pub fn judge(&self, before: MembersBefore, got: &[u32]) -> Verdict {
        if got.iter().any(|member| *member >= self.next) {
            return Verdict::Invented;
        }
        let wrong = self.owed(before).any(|(member, there)| got.contains(&member) != there);
        if wrong { Verdict::Stale } else { Verdict::Fresh }
    }

    /// A read of one member that began at `before` said so.
    pub fn judge_one(&self, before: MembersBefore, member: u32, there: bool) -> Verdict {
        match self.owed(before).find(|(owed, _)| *owed == member) {
            Some((_, owed)) if owed == there => Verdict::Fresh,
            Some(_) => Verdict::Stale,
            None => Verdict::Open,
        }
    }

    /// Members that were certainly there, or certainly not, from the beginning of a read until now.
    fn owed(&self, before: MembersBefore) -> impl Iterator<Item = (u32, bool)> + '_ {
        let first = self.next.saturating_sub(WINDOW);
        (first..before.next).filter_map(move |member| {
            let bit = bit(member);
            let unsure = (before.unsure | self.unsure) & bit != 0;
            let (was, is) = (before.present & bit != 0, self.present & bit != 0);
            (!unsure && was == is).then_some((member, is))
        })
    }

    /// One of the members that are remembered, by a number drawn at random.
    pub fn pick(&self, random: u32) -> u32 {
        let first = self.next.saturating_sub(WINDOW);
        if self.next == first { 0 } else { first + random % (self.next - first) }
    }

    pub fn judge_last(&self, got: &[u32]) -> Option<(Wrong, u32)> {
        if let Some(member) = got.iter().find(|member| **member >= self.next) {
            return Some((Wrong::Invented, *member));
        }
        let first = self.next.saturating_sub(WINDOW);
        let old = got.iter().find(|member| **member < first && !self.forgot_unsure);
        if let Some(member) = old {
            return Some((Wrong::Resurrected, *member));
        }
        let (member, owed) = self.owed(self.before()).find(|(member, owed)| got.contains(member) != *owed)?;
        Some((if owed { Wrong::Lost } else { Wrong::Resurrected }, member))
    }

    pub fn told(&self) -> String {
        let list = |bits: u64| {
            let members: Vec<String> =
                self.window().filter(|member| bits & bit(*member) != 0).map(|member| member.to_string()).collect();
            if members.is_empty() { "none".to_owned() } else { members.join(" ") }
        };
        format!("acknowledged: {}; of unknown outcome: {}", list(self.present), list(self.unsure))
    }
}

fn bit(member: u32) -> u64 {
    1 << (member % WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: End = End::Acknowledged { at_us: 1, stand_ins: false, nodes: 0 };

    fn change(set: &mut Members, adds: bool, end: End, certain: bool) -> Change {
        let change = set.begin(adds).expect("one at a time");
        set.end(change, end, certain);
        change
    }

    #[test]
    fn members_are_owed_until_they_are_removed() {
        let mut set = Members::default();
        assert_eq!(change(&mut set, false, DONE, true), Change { member: 0, adds: true }, "nothing to remove");
        change(&mut set, true, DONE, true);
        assert_eq!(set.judge_last(&[0, 1]), None);
        assert_eq!(set.judge_last(&[0]), Some((Wrong::Lost, 1)));
        assert_eq!(set.judge_last(&[0, 1, 2]), Some((Wrong::Invented, 2)));
        assert_eq!(change(&mut set, false, DONE, true), Change { member: 0, adds: false });
        assert_eq!(set.judge_last(&[1]), None);
        assert_eq!(set.judge_last(&[0, 1]), Some((Wrong::Resurrected, 0)));
    }

    #[test]
    fn a_removal_that_did_not_see_the_member_owes_nothing() {
        let mut set = Members::default();
        change(&mut set, true, DONE, true);
        change(&mut set, false, DONE, false);
        assert_eq!((set.judge_last(&[0]), set.judge_last(&[])), (None, None));
    }

    #[test]
    fn unknown_outcomes_are_open_and_refusals_are_not() {
        let mut set = Members::default();
        change(&mut set, true, End::Unknown, true);
        assert_eq!((set.judge_last(&[0]), set.judge_last(&[])), (None, None));
        change(&mut set, true, End::Refused, true);
        assert_eq!(set.judge_last(&[1]), Some((Wrong::Resurrected, 1)));
        assert_eq!(change(&mut set, true, DONE, true).member, 2);
        assert_eq!(change(&mut set, false, End::Refused, false), Change { member: 2, adds: false });
        assert_eq!(set.judge_last(&[]), Some((Wrong::Lost, 2)), "it stays when its removal was refused");
    }

    #[test]
    fn reads_are_judged_by_what_did_not_change_meanwhile() {
        let mut set = Members::default();
        change(&mut set, true, DONE, true);
        let before = set.before();
        let adding = set.begin(true).expect("idle");
        assert_eq!(set.judge_one(before, 0, false), Verdict::Stale);
        assert_eq!(set.judge(before, &[]), Verdict::Stale);
        assert_eq!(set.judge(before, &[0]), Verdict::Fresh);
        assert_eq!(set.judge_one(before, adding.member, true), Verdict::Open, "under way");
        set.end(adding, DONE, true);
        assert_eq!(set.judge(before, &[0]), Verdict::Fresh, "added after the read began");
        assert_eq!(set.judge(set.before(), &[0]), Verdict::Stale);
        assert_eq!(set.judge(before, &[0, 2]), Verdict::Invented);
    }

    #[test]
    fn a_set_stays_small_and_remembers_the_last() {
        let mut set = Members::default();
        let mut there = Vec::new();
        for _ in 0..500 {
            let change = change(&mut set, true, DONE, true);
            there.retain(|member| *member != change.member);
            if change.adds {
                there.push(change.member);
            }
            assert!(there.len() <= LIVE_MAX as usize);
            assert_eq!(set.judge_last(&there), None);
        }
        assert!(set.next > WINDOW);
        there.push(0);
        assert_eq!(set.judge_last(&there), Some((Wrong::Resurrected, 0)));
        assert!((0..200).all(|random| set.pick(random) < set.next && set.pick(random) + WINDOW >= set.next));
    }
}
