//! The language of scenarios. One line, one fault:
//!
//! ```text
//! # comment
//! with --workload mix --duration 60s          options of the run; those on the command line win
//! at 10s partition n1 | n2,n3 for 20s         nobody on one side hears anybody on another
//! at 10s cut n1 -> n2 for 20s                 n2 hears nothing from n1
//! at 10s delay n1 | n2,n3 20ms jitter 5ms for 20s
//! at 10s loss n1 | n2,n3 5% for 20s
//! at 10s duplicate n1 | n2,n3 5% for 20s
//! at 10s reorder n1 | n2,n3 for 20s           packets overtake each other by up to 20 ms
//! at 10s pause n1 for 5s                      the process stands still
//! at 10s kill n1 for 20s                      as by kill -9, then started again
//! at 10s wipe n1 for 20s                      the same, and its disk is lost
//! at 10s restart n1                           stopped in order and started
//! at 10s clock n1 +1h for 20s                 its wall clock is wrong
//! ```
//!
//! Times count from the beginning of the measured part. Without `for` a fault lasts until the end of the run.

use std::fmt;
use std::time::Duration;

use super::words::Words;

/// Faults in a scenario; more is a mistake.
const FAULTS_MAX: usize = 1_000;
const REORDER_BY: Duration = Duration::from_millis(20);
const ACTIONS: &str = "partition, cut, delay, loss, duplicate, reorder, pause, kill, wipe, restart or clock";

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Between each side and all others, both ways.
    Network {
        sides: Vec<Vec<String>>,
        effect: Effect,
    },
    /// What `from` sends to `to`.
    OneWay {
        from: Vec<String>,
        to: Vec<String>,
    },
    Pause {
        nodes: Vec<String>,
    },
    Kill {
        nodes: Vec<String>,
    },
    Wipe {
        nodes: Vec<String>,
    },
    Restart {
        nodes: Vec<String>,
    },
    Clock {
        nodes: Vec<String>,
        offset_ms: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    Cut,
    Delay { delay: Duration, jitter: Duration },
    Loss { ppm: u32 },
    Duplicate { ppm: u32 },
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub at: Duration,
    pub lasts: Option<Duration>,
    pub action: Action,
    /// As written, without the times.
    pub text: String,
}

impl Fault {
    pub fn ends(&self) -> Option<Duration> {
        self.lasts.map(|lasts| self.at + lasts)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &String> {
        let (first, second): (&[Vec<String>], &[&Vec<String>]) = match &self.action {
            Action::Network { sides, .. } => (sides, &[]),
            Action::OneWay { from, to } => (&[], &[from, to]),
            Action::Pause { nodes }
            | Action::Kill { nodes }
            | Action::Wipe { nodes }
            | Action::Restart { nodes }
            | Action::Clock { nodes, .. } => (&[], &[nodes]),
        };
        first.iter().flatten().chain(second.iter().flat_map(|nodes| nodes.iter())).collect::<Vec<_>>().into_iter()
    }
}

/// A scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// In order of their beginnings.
    pub faults: Vec<Fault>,
    /// Options of the run.
    pub options: Vec<String>,
}

impl Schedule {
    /// When the last fault with an end ends.
    pub fn ends(&self) -> Duration {
        self.faults.iter().map(|fault| fault.ends().unwrap_or(fault.at)).max().unwrap_or_default()
    }

    /// Every node must be one of these, and must not be stopped twice at once.
    pub fn check(&self, known: &[String]) -> Result<(), String> {
        let stops = |fault: &&Fault| !matches!(fault.action, Action::Network { .. } | Action::OneWay { .. });
        for (at, fault) in self.faults.iter().enumerate().filter(|(_, fault)| stops(fault)) {
            for later in self.faults[at + 1..].iter().filter(stops) {
                let is_over = fault.ends().is_some_and(|end| end <= later.at);
                let is_short = matches!(fault.action, Action::Restart { .. });
                if let Some(node) =
                    fault.nodes().find(|node| !is_over && !is_short && later.nodes().any(|other| other == *node))
                {
                    return Err(format!(
                        "'{}' begins while '{}' is on: {node} cannot have both",
                        later.text, fault.text
                    ));
                }
            }
        }
        for fault in &self.faults {
            if let Some(node) = fault.nodes().find(|node| !known.contains(node)) {
                return Err(format!("'{}': there is no node {node}; there are {}", fault.text, known.join(", ")));
            }
        }
        Ok(())
    }
}

/// What is wrong with a scenario, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleError {
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ScheduleError {}

/// Reads a scenario.
pub fn parse(text: &str) -> Result<Schedule, ScheduleError> {
    let mut schedule = Schedule::default();
    for (at, line) in text.lines().enumerate() {
        let words = Words::of(line, at + 1);
        match words.peek() {
            None => {}
            Some("with") => {
                let rest = line.trim_start().trim_start_matches("with");
                let options = shlex::split(rest).ok_or_else(|| words.here("a quotation mark is not closed"))?;
                schedule.options.extend(options);
            }
            Some("at") => schedule.faults.push(fault(words)?),
            Some(other) => {
                return Err(words.here(format!("'{other}' does not begin a line: use `at TIME ...` or `with OPTIONS`")));
            }
        }
        if schedule.faults.len() > FAULTS_MAX {
            return Err(ScheduleError {
                line: at + 1,
                column: 1,
                message: format!("a scenario has {FAULTS_MAX} faults at most"),
            });
        }
    }
    schedule.faults.sort_by_key(|fault| fault.at);
    Ok(schedule)
}

fn fault(mut words: Words) -> Result<Fault, ScheduleError> {
    words.next();
    let at = words.time("a time, as in `at 10s`")?;
    let begins = words.column();
    let action = match words.peek() {
        Some("partition") => {
            words.next();
            Action::Network { sides: words.sides()?, effect: Effect::Cut }
        }
        Some("cut") => {
            words.next();
            let from = words.nodes()?;
            words.expect("->", "as in `cut n1 -> n2`; both ways is `partition n1 | n2`")?;
            Action::OneWay { from, to: words.nodes()? }
        }
        Some("delay") => {
            words.next();
            let sides = words.sides()?;
            let delay = words.short("a delay, as in `delay n1 | n2 20ms`")?;
            let jitter = match words.peek() {
                Some("jitter") => {
                    words.next();
                    words.short("how much, as in `jitter 5ms`")?
                }
                _ => Duration::ZERO,
            };
            Action::Network { sides, effect: Effect::Delay { delay, jitter } }
        }
        Some("loss") => {
            words.next();
            Action::Network { sides: words.sides()?, effect: Effect::Loss { ppm: words.share()? } }
        }
        Some("duplicate") => {
            words.next();
            Action::Network { sides: words.sides()?, effect: Effect::Duplicate { ppm: words.share()? } }
        }
        Some("reorder") => {
            words.next();
            let effect = Effect::Delay { delay: Duration::ZERO, jitter: REORDER_BY };
            Action::Network { sides: words.sides()?, effect }
        }
        Some(verb @ ("pause" | "kill" | "wipe" | "restart")) => {
            words.next();
            let nodes = words.nodes()?;
            match verb {
                "pause" => Action::Pause { nodes },
                "kill" => Action::Kill { nodes },
                "wipe" => Action::Wipe { nodes },
                _ => Action::Restart { nodes },
            }
        }
        Some("clock") => {
            words.next();
            Action::Clock { nodes: words.nodes()?, offset_ms: words.offset()? }
        }
        Some(other) => return Err(words.here(format!("'{other}' is no fault: use {ACTIONS}"))),
        None => return Err(words.here(format!("a fault is missing: {ACTIONS}"))),
    };
    let text = words.since(begins);
    let lasts = match words.peek() {
        Some("for") if matches!(action, Action::Restart { .. }) => {
            return Err(
                words.here("a restart takes as long as it takes: use `kill n1 for 20s` for a node that is away")
            );
        }
        Some("for") => {
            words.next();
            Some(words.time("how long, as in `for 20s`")?)
        }
        _ => None,
    };
    words.expect_end(if lasts.is_some() { "the end of the line" } else { "`for TIME` or the end of the line" })?;
    Ok(Fault { at, lasts, action, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Fault {
        let mut schedule = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(schedule.faults.len(), 1, "{line}");
        schedule.faults.remove(0)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_fault_is_understood() {
        let sides = || vec![names(&["n1"]), names(&["n2", "n3"])];
        let delay = |delay, jitter| Effect::Delay {
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
        };
        let network = |effect| Action::Network { sides: sides(), effect };
        for (text, action) in [
            ("partition n1 | n2,n3", network(Effect::Cut)),
            ("partition n1|n2, n3", network(Effect::Cut)),
            ("cut n1 -> n2", Action::OneWay { from: names(&["n1"]), to: names(&["n2"]) }),
            ("delay n1 | n2,n3 20ms", network(delay(20, 0))),
            ("delay n1 | n2,n3 20ms jitter 5ms", network(delay(20, 5))),
            ("reorder n1 | n2,n3", network(delay(0, 20))),
            ("loss n1 | n2,n3 0.5%", network(Effect::Loss { ppm: 5_000 })),
            ("duplicate n1 | n2,n3 5%", network(Effect::Duplicate { ppm: 50_000 })),
            ("pause n1", Action::Pause { nodes: names(&["n1"]) }),
            ("kill n1,n2", Action::Kill { nodes: names(&["n1", "n2"]) }),
            ("wipe n1", Action::Wipe { nodes: names(&["n1"]) }),
            ("clock n1 +1h", Action::Clock { nodes: names(&["n1"]), offset_ms: 3_600_000 }),
            ("clock n1 -500ms", Action::Clock { nodes: names(&["n1"]), offset_ms: -500 }),
        ] {
            let fault = one(&format!("  at 10s {text} for 1m  # why"));
            assert_eq!(fault.action, action, "{text}");
            assert_eq!((fault.at.as_secs(), fault.ends().map(|end| end.as_secs())), (10, Some(70)), "{text}");
        }
        let restart = one("at 500ms restart n1");
        assert_eq!((restart.at.as_millis(), restart.lasts), (500, None));
        assert_eq!(one("at 1s partition n1|n2, n3 for 2s").text, "partition n1 | n2, n3");
    }

    #[test]
    fn a_scenario_is_lines_in_any_order() {
        let text =
            "# two faults\nwith --workload counter --keys 10\n\nat 20s kill n2 for 5s\nat 10s pause n1 for 30s\n";
        let schedule = parse(text).expect("a scenario");
        assert_eq!(schedule.options, ["--workload", "counter", "--keys", "10"]);
        assert_eq!(
            schedule.faults.iter().map(|fault| fault.text.as_str()).collect::<Vec<_>>(),
            ["pause n1", "kill n2"]
        );
        assert_eq!(schedule.ends().as_secs(), 40);
        assert!(schedule.check(&names(&["n1", "n2"])).is_ok());
        assert_eq!(
            schedule.check(&names(&["n1", "n3"])).expect_err("n2"),
            "'kill n2': there is no node n2; there are n1, n3"
        );
        assert_eq!(parse("").expect("nothing"), Schedule::default());
        let both = parse("at 1s kill n1 for 5s\nat 2s partition n1 | n2\nat 5s pause n1 for 1s").expect("lines");
        let error = both.check(&names(&["n1", "n2"])).expect_err("both at once");
        assert_eq!(error, "'pause n1' begins while 'kill n1' is on: n1 cannot have both");
        let turns = parse("at 1s kill n1 for 5s\nat 6s pause n1 for 1s\nat 2s pause n2 for 9s").expect("lines");
        assert_eq!(turns.check(&names(&["n1", "n2"])), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place, told) in [
            ("\nkill n1", (2, 1), "'kill' does not begin a line"),
            ("at", (1, 3), "a time, as in `at 10s`"),
            ("at ten kill n1", (1, 4), "'ten' is not a time"),
            ("at 10s", (1, 7), "a fault is missing"),
            ("at 10s explode n1", (1, 8), "'explode' is no fault: use partition, cut"),
            ("at 10s kill", (1, 12), "a node's name"),
            ("at 10s kill n1 n2", (1, 16), "'n2' is not `for TIME`"),
            ("at 10s kill n1 for", (1, 19), "how long"),
            ("at 10s kill n1 for 5s now", (1, 23), "the end of the line"),
            ("at 10s kill n1,n1", (1, 13), "n1 is named twice"),
            ("at 10s partition n1", (1, 20), "the other side"),
            ("at 10s partition n1 | n2,n1", (1, 23), "n1 is on two sides"),
            ("at 10s cut n1 | n2", (1, 15), "'|' is not '->'"),
            ("at 10s loss n1 | n2 5", (1, 21), "as 5%"),
            ("at 10s loss n1 | n2 0%", (1, 21), "above 0 %"),
            ("at 10s loss n1 | n2 120%", (1, 21), "up to 100 %"),
            ("at 10s delay n1 | n2", (1, 21), "a delay"),
            ("at 10s delay n1 | n2 1m", (1, 22), "10 s at most"),
            ("at 10s clock n1 1h", (1, 17), "as +1h"),
            ("at 10s clock n1 +2days", (1, 17), "up to a day"),
            ("at 10s restart n1 for 5s", (1, 19), "kill n1 for 20s"),
            ("at 10weeks kill n1", (1, 4), "longer than a week"),
            ("with --title 'a", (1, 1), "not closed"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.line, error.column), place, "{text}: {error}");
            assert!(error.message.contains(told), "{text}: {error}");
        }
    }
}
