//! The demo's voice: one line an act, calm on a terminal, plain in a log.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::render;
use crate::net::entropy;

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "1;32";
const RED: &str = "1;31";
/// How often a long wait speaks where no terminal is.
const SPEAK_EVERY: Duration = Duration::from_secs(5);

/// Where it is told. A standard output that has gone does not stop the demo.
pub struct Stage {
    colours: bool,
    terminal: bool,
    began: Instant,
}

/// One act under way.
pub struct Act<'a> {
    stage: &'a Stage,
    spoke: Mutex<Instant>,
}

impl Stage {
    pub fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours, terminal, began: entropy::instant() }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn put(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    pub fn line(&self, line: &str) {
        self.put(&format!("{line}\n"));
    }

    /// Lines as they are, a little to the right.
    pub fn block(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    {line}"));
        }
    }

    pub fn title(&self, title: &str) {
        self.put(&format!("\n{}\n\n", self.paint(BOLD, title)));
    }

    /// Begins an act: when, what it is called, what happens.
    pub fn act(&self, name: &str, what: &str) -> Act<'_> {
        let at = format!("{:>6.1} s", (entropy::instant() - self.began).as_secs_f64());
        let head = format!("{}  {}", self.paint(DIM, &at), self.paint(BOLD, &format!("{name:<9}")));
        if what.is_empty() {
            self.put(&head);
        } else {
            self.put(&format!("{head} {what}\n"));
        }
        Act { stage: self, spoke: Mutex::new(entropy::instant()) }
    }

    /// One line of the account at the end.
    pub fn fact(&self, name: &str, what: &str) {
        self.line(&format!("  {name:<13} {what}"));
    }

    /// The line that matters.
    pub fn verdict(&self, name: &str, what: &str, good: bool) {
        let what = self.paint(if good { GREEN } else { RED }, what);
        self.line(&format!("  {name:<13} {what}\n"));
    }

    /// What to try next.
    pub fn closing(&self, data: &Path, kept: bool) {
        self.line(&format!("{} No process is left.", self.paint(BOLD, "That was all of it.")));
        self.line("\nTry next:");
        self.line("  tidewater dev                                  a cluster that stays; it tells how to reach it");
        self.line("  redis-cli -p 7001 set a 1; redis-cli -p 7003 get a");
        self.line("  tidewater get a --read all --explain           who answered, and who disagreed");
        self.line("  tidewater where a; tidewater status            where a key lives, how the nodes are");
        self.line("  tidewater import README.md src; tidewater export | head -3");
        if kept {
            self.line(&format!("  tidewater dev --data {}           the demo's own data", data.display()));
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

const INDENT: &str = "                    ";

impl Act<'_> {
    /// A further line under the act.
    pub fn note(&self, what: &str) {
        self.stage.line(&format!("{INDENT}{}", self.stage.paint(DIM, what)));
    }

    /// It has come about.
    pub fn done(self, what: &str) {
        self.clear();
        self.stage.line(&format!("{INDENT}{what}"));
    }

    /// There is nothing more to say about it.
    pub fn end(self) {
        self.clear();
    }

    /// It has not come about.
    pub fn failed(&self, what: &str) {
        self.clear();
        self.stage.line(&format!("{INDENT}{}", self.stage.paint(RED, what)));
    }

    /// It goes on: in place on a terminal, now and then a line elsewhere.
    pub fn tick(&self, what: &str, elapsed: Duration) {
        let line = format!("{INDENT}{what} ({})", render::duration(elapsed));
        if self.stage.terminal {
            self.stage.put(&format!("\r\x1b[2K{}", self.stage.paint(DIM, &line)));
            return;
        }
        let Ok(mut spoke) = self.spoke.try_lock() else { return };
        let now = entropy::instant();
        if now - *spoke >= SPEAK_EVERY {
            *spoke = now;
            self.stage.line(&line);
        }
    }

    fn clear(&self) {
        if self.stage.terminal {
            self.stage.put("\r\x1b[2K");
        }
    }
}
