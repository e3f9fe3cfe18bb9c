//! WHAT THE CHECKER FOUND, in words.

use super::words::{count, plural};
use crate::results::{Check, Results};

/// So many of what is wrong are told in full.
const EXAMPLES_MOST: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All that was promised was kept.
    Kept,
    /// Something was not.
    Broken,
    /// Nothing was compared, or not all that would have to be.
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub headline: String,
    /// What it rests on, and what it does not say.
    pub details: Vec<String>,
    pub examples: Vec<String>,
    /// Examples that are not among them.
    pub examples_left: usize,
}

impl Verdict {
    pub fn of(results: &Results) -> Self {
        let check = &results.check;
        let wrongs = wrongs(check);
        let (state, headline) = if !wrongs.is_empty() {
            (State::Broken, format!("Broken: {}.", wrongs.join(", ")))
        } else if check.verified == 0 && check.keys_read_at_end == 0 {
            (State::Open, "Nothing was checked: this run says nothing about correctness.".to_owned())
        } else if check.keys_read_at_end == 0 {
            let headline =
                "No wrong answer, but the keys were not read at the end: a lost write would not have been noticed.";
            (State::Open, headline.to_owned())
        } else {
            let headline = "Kept: nothing lost, counted twice, resurrected or invented, and no read staler than its levels \
                            promise.";
            (State::Kept, headline.to_owned())
        };
        Self {
            state,
            headline,
            details: details(check),
            examples: check.examples.iter().take(EXAMPLES_MOST).cloned().collect(),
            examples_left: check.examples.len().saturating_sub(EXAMPLES_MOST),
        }
    }

    /// For those who do not see the colour.
    pub fn sign(&self) -> &'static str {
        match self.state {
            State::Kept => "✓",
            State::Broken => "✗",
            State::Open => "?",
        }
    }
}

fn wrongs(check: &Check) -> Vec<String> {
    let told = [
        (check.lost, "acknowledged write lost", "acknowledged writes lost"),
        (check.duplicated, "write counted more than once", "writes counted more than once"),
        (check.resurrected, "removed value came back", "removed values came back"),
        (check.invented, "value that nobody wrote", "values that nobody wrote"),
        (check.stale_against_promise, "read stale against its promise", "reads stale against their promise"),
    ];
    let wrong = told.into_iter().filter(|(number, _, _)| *number > 0);
    wrong.map(|(number, one, many)| plural(number, one, many)).collect()
}

fn details(check: &Check) -> Vec<String> {
    let mut details = vec![format!(
        "{} compared with what had been acknowledged; {} read from all owners at the end.",
        plural(check.verified, "answer was", "answers were"),
        plural(check.keys_read_at_end, "key was", "keys were")
    )];
    let allowed = check.stale.saturating_sub(check.stale_against_promise);
    if allowed > 0 {
        let said = plural(allowed, "read was", "reads were");
        details.push(format!("{said} stale where the levels asked for do not promise otherwise: no fault."));
    }
    if check.unknown > 0 {
        let said = plural(check.unknown, "write has an unknown outcome", "writes have an unknown outcome");
        details.push(format!("{said}: it may or may not be there, and neither counts as a fault."));
    }
    if check.doubted > 0 {
        let said = plural(check.doubted, "counter was", "counters were");
        details.push(format!("{said} read too high by no more than the receipt said might be counted twice."));
    }
    if check.unknown > check.verified && check.verified > 0 {
        details.push(format!("More outcomes are unknown than answers verified ({}).", count(check.verified)));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(check: Check) -> Verdict {
        Verdict::of(&Results { check, ..Results::default() })
    }

    #[test]
    fn nothing_checked_is_not_called_good() {
        assert_eq!(verdict(Check::default()).state, State::Open);
        let not_at_end = verdict(Check { verified: 5, ..Check::default() });
        assert_eq!(not_at_end.state, State::Open);
        assert!(not_at_end.headline.contains("not read at the end"));
        assert_eq!(
            verdict(Check { verified: 5, keys_read_at_end: 1, stale: 3, ..Check::default() }).state,
            State::Kept
        );
    }

    #[test]
    fn each_wrong_is_named() {
        let check = Check {
            lost: 1,
            duplicated: 2,
            resurrected: 3,
            invented: 4,
            stale_against_promise: 5,
            examples: (0..25).map(|at| format!("example {at}")).collect(),
            ..Check::default()
        };
        let verdict = verdict(check);
        assert_eq!(verdict.state, State::Broken);
        assert_eq!(
            verdict.headline,
            "Broken: 1 acknowledged write lost, 2 writes counted more than once, 3 removed values came back, \
             4 values that nobody wrote, 5 reads stale against their promise."
        );
        assert_eq!((verdict.examples.len(), verdict.examples_left), (10, 15));
    }
}
