//! A RUN WHILE IT GOES ON, once a second: a few lines drawn in place on a terminal, one plain line where nobody
//! watches. Always on the standard error.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};

use console::{Style, Term};

use super::words;
use crate::results::Slice;

/// Seconds in the curves.
const HISTORY: usize = 60;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The bar of how far the run is.
const BAR_WIDTH: usize = 24;
/// What stands left of a curve.
const LEFT_WIDTH: usize = 24;
/// Below this a curve says nothing.
const CURVE_LEAST: usize = 8;

/// The last second, and how far the run is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// Seconds since the measured part began; below 0 while it warms up.
    pub at_s: f64,
    /// How long the measured part is.
    pub total_s: f64,
    pub slice: Slice,
    /// All since the measured part began: of each kind of operation what was answered.
    pub operations: Vec<(String, u64)>,
    pub errors: u64,
    pub stale: u64,
    pub judged: u64,
    /// What is on now, as in a scenario.
    pub faults: Vec<String>,
}

/// How it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// In place, at most so wide and so high.
    Terminal { width: usize, height: usize, colors: bool },
    /// A line for each second.
    Lines,
}

/// Draws what it is shown.
pub struct View<W: Write> {
    out: W,
    look: Look,
    /// Ask the terminal for its size each time: windows are resized.
    term: Option<Term>,
    history: VecDeque<Slice>,
    /// Lines that are to be drawn over.
    drawn: usize,
}

impl View<Term> {
    /// On the standard error. `NO_COLOR` is heeded.
    pub fn stderr() -> Self {
        let term = Term::buffered_stderr();
        if !io::stderr().is_terminal() {
            return Self::new(term, Look::Lines);
        }
        let colors = console::colors_enabled_stderr();
        let view = Self::new(term.clone(), Look::Terminal { width: 80, height: 24, colors });
        Self { term: Some(term), ..view }
    }
}

impl<W: Write> View<W> {
    pub fn new(out: W, look: Look) -> Self {
        Self { out, look, term: None, history: VecDeque::with_capacity(HISTORY), drawn: 0 }
    }

    /// Draws the last second. That nobody can be shown it is no reason to end a run: the error may be ignored.
    pub fn show(&mut self, live: &Live) -> io::Result<()> {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(live.slice.clone());
        if let (Some(term), Look::Terminal { colors, .. }) = (&self.term, self.look) {
            let (height, width) = term.size();
            self.look = Look::Terminal { width: usize::from(width), height: usize::from(height), colors };
        }
        match self.look {
            Look::Terminal { width, height, colors } => {
                let mut lines = lines(live, &self.history, width, colors);
                // Where it does not fit, what is most important is on top.
                lines.truncate(height.saturating_sub(1).max(1));
                self.draw(&lines)
            }
            Look::Lines => {
                writeln!(self.out, "{}", plain(live))?;
                self.out.flush()
            }
        }
    }

    /// Prints a line that stays, above what is drawn.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        if let Look::Terminal { .. } = self.look {
            let up = self.up();
            write!(self.out, "{up}\x1b[J")?;
            self.drawn = 0;
        }
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Takes away what is drawn in place.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Look::Terminal { .. } = self.look {
            let up = self.up();
            write!(self.out, "{up}\x1b[J")?;
            self.drawn = 0;
        }
        self.out.flush()
    }

    fn up(&self) -> String {
        if self.drawn > 0 { format!("\x1b[{}A\r", self.drawn) } else { String::new() }
    }

    /// In one piece, each line cleared behind its end: nothing flickers.
    fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = self.up();
        for line in lines {
            text.push_str(line);
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// How far the run is: "82 s of 150 s", "warm-up, 3 s left".
fn progress(live: &Live) -> String {
    if live.at_s < 0.0 {
        return format!("warm-up, {} left", words::seconds((-live.at_s).ceil()));
    }
    format!("{} of {}", words::seconds(live.at_s.round()), words::seconds(live.total_s.round()))
}

fn plain(live: &Live) -> String {
    let slice = &live.slice;
    let mut line = format!(
        "{}  {}  p50 {}  p99 {}  p99.9 {}  errors {}",
        progress(live),
        words::rate(slice.done as f64),
        words::time(slice.p50_us as f64),
        words::time(slice.p99_us as f64),
        words::time(slice.p999_us as f64),
        words::count(slice.errors)
    );
    if slice.judged > 0 {
        line += &format!("  stale {}", words::share(slice.stale, slice.judged));
    }
    if let Some(behind) = slice.behind {
        line += &format!("  behind {}", words::count(behind));
    }
    for fault in &live.faults {
        line += &format!("  [{fault}]");
    }
    line
}

fn lines(live: &Live, history: &VecDeque<Slice>, width: usize, colors: bool) -> Vec<String> {
    let paint = |style: Style, text: &str| style.force_styling(colors).apply_to(text).to_string();
    let quiet = |text: &str| paint(Style::new().dim(), text);
    let slice = &live.slice;
    // The last column stays empty: some terminals wrap when it is written.
    let width = width.saturating_sub(1).max(1);
    let curve_width = width.saturating_sub(LEFT_WIDTH + 26).min(HISTORY);
    let curve = |values: Vec<f64>, top: f64, style: Style| match curve_width {
        least if least < CURVE_LEAST => String::new(),
        most => format!("{}  ", paint(style, &sparkline(&values, top, most))),
    };
    let rates = history.iter().map(|slice| slice.done as f64).collect();
    // Latency by its size, from the least on: 1 ms to 1 s would be all or nothing otherwise. Less than tenfold is no
    // peak.
    let least = history.iter().map(|slice| slice.p99_us).filter(|us| *us > 0).min().unwrap_or(1) as f64;
    let tails = history.iter().map(|slice| (slice.p99_us as f64 / least).max(1.0).log10()).collect();

    let faults = match live.faults.is_empty() {
        true => quiet("no fault on"),
        false => paint(Style::new().yellow().bold(), &live.faults.join(" · ")),
    };
    let errors = words::plural(slice.errors, "error", "errors");
    let errors = if slice.errors > 0 { paint(Style::new().red(), &errors) } else { errors };
    let done: u64 = live.operations.iter().map(|(_, number)| number).sum();
    let kinds: Vec<String> =
        live.operations.iter().map(|(name, number)| format!("{name} {}", words::rough(*number as f64))).collect();
    let rate = words::rate(slice.done as f64);
    let tail = words::time(slice.p99_us as f64);
    let mut lines = vec![
        format!("{}  {}  {faults}", bar(live), paint(Style::new().bold(), &progress(live))),
        format!(
            "{:<8}{:>14}  {}{}",
            "answers",
            rate,
            curve(rates, 0.0, Style::new().cyan()),
            quiet(&format!("{} in all", words::count(done)))
        ),
        format!(
            "{:<8}{:>14}  {}{}",
            "p99",
            tail,
            curve(tails, 1.0, Style::new().magenta()),
            quiet(&format!("p50 {}  p99.9 {}", words::time(slice.p50_us as f64), words::time(slice.p999_us as f64)))
        ),
        format!(
            "{errors} this second, {} in all ({})",
            words::count(live.errors),
            words::share(live.errors, live.errors + done)
        ),
    ];
    let mut state = match live.judged {
        0 => "no read judged yet".to_owned(),
        judged => {
            format!("stale: {} of {} judged", words::share(live.stale, judged), words::plural(judged, "read", "reads"))
        }
    };
    if let Some(behind) = slice.behind {
        state += &format!("; {} behind", words::plural(behind, "mutation", "mutations"));
    }
    lines.push(state);
    if !kinds.is_empty() {
        lines.push(quiet(&kinds.join("  ")));
    }
    lines.iter().map(|line| console::truncate_str(line, width, "…").into_owned()).collect()
}

fn bar(live: &Live) -> String {
    let share = if live.total_s > 0.0 { (live.at_s / live.total_s).clamp(0.0, 1.0) } else { 0.0 };
    let full = (share * BAR_WIDTH as f64).round() as usize;
    format!("{}{}", "━".repeat(full), "╌".repeat(BAR_WIDTH - full))
}

/// The last values, from 0 to the largest of them, or to `top` if that is larger.
fn sparkline(values: &[f64], top: f64, most: usize) -> String {
    let values = &values[values.len().saturating_sub(most)..];
    let top = values.iter().copied().fold(top, f64::max);
    let level = |value: &f64| match top {
        top if top > 0.0 => LEVELS[((value / top * 7.0).round() as usize).min(7)],
        _ => LEVELS[0],
    };
    let line: String = values.iter().map(level).collect();
    format!("{line:<most$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(at_s: f64) -> Live {
        Live {
            at_s,
            total_s: 150.0,
            slice: Slice {
                at_s,
                done: 9_812,
                errors: 3,
                stale: 1,
                judged: 500,
                p50_us: 410,
                p99_us: 3_200,
                p999_us: 12_000,
                max_us: 31_000,
                behind: Some(212),
            },
            operations: vec![("read".to_owned(), 617_000), ("update".to_owned(), 308_000)],
            errors: 1_204,
            stale: 10,
            judged: 40_000,
            faults: vec!["partition n1 | n2,n3".to_owned()],
        }
    }

    fn shown(view: View<Vec<u8>>) -> String {
        String::from_utf8(view.out).expect("text")
    }

    #[test]
    fn a_pipe_gets_plain_lines() {
        let mut view = View::new(Vec::new(), Look::Lines);
        view.show(&live(82.0)).expect("written");
        view.say("healed").expect("written");
        view.finish().expect("written");
        assert_eq!(
            shown(view),
            "82 s of 2 min 30 s  9,812/s  p50 410 µs  p99 3.2 ms  p99.9 12 ms  errors 3  stale 0.2 %  behind 212  \
             [partition n1 | n2,n3]\nhealed\n"
        );
    }

    #[test]
    fn a_terminal_is_drawn_over_and_never_wraps() {
        for width in [1, 20, 60, 80, 200] {
            let mut view = View::new(Vec::new(), Look::Terminal { width, height: 24, colors: false });
            view.show(&live(81.0)).expect("written");
            view.show(&live(82.0)).expect("written");
            let text = shown(view);
            let second = text.split("\x1b[6A\r").nth(1).expect("goes up over the six lines before it draws again");
            let lines: Vec<&str> = second.trim_end_matches("\x1b[J").lines().collect();
            assert_eq!(lines.len(), 6);
            for line in lines {
                let line = line.strip_suffix("\x1b[K").expect("cleared behind its end");
                assert!(!line.contains('\x1b'), "no colours were asked for: {line:?}");
                assert!(console::measure_text_width(line) < width.max(2), "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn a_low_terminal_gets_the_first_lines_and_colours_are_kept_to_their_line() {
        let mut view = View::new(Vec::new(), Look::Terminal { width: 100, height: 4, colors: true });
        view.show(&live(82.0)).expect("written");
        let text = shown(view);
        assert_eq!(text.lines().filter(|line| line.ends_with("\x1b[K")).count(), 3);
        assert!(text.contains("\x1b[33m"), "a fault is yellow: {text:?}");
    }

    #[test]
    fn curves_show_the_last_minute_only() {
        assert_eq!(sparkline(&[0.0, 5.0, 10.0], 0.0, 3), "▁▅█");
        assert_eq!(sparkline(&[9.0, 0.0, 5.0, 10.0], 0.0, 3), "▁▅█");
        assert_eq!(sparkline(&[0.0, 1.0], 7.0, 3), "▁▂ ");
        let mut view = View::new(Vec::new(), Look::Lines);
        (0..200).for_each(|at| view.show(&live(f64::from(at))).expect("written"));
        assert_eq!(view.history.len(), HISTORY);
    }

    #[test]
    fn warming_up_is_said() {
        assert_eq!(progress(&live(-2.4)), "warm-up, 3 s left");
    }
}
