//! How far a long verb has come: a bar on a terminal, now and then a plain line where nobody watches, nothing when asked to be quiet.
//! Always on the standard error.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::render;
use crate::net::entropy;

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Counts items and bytes and shows them.
pub struct Progress {
    label: &'static str,
    /// What an item is called, in the plural.
    noun: &'static str,
    look: Look,
    items: AtomicU64,
    bytes: AtomicU64,
    total: Option<AtomicU64>,
    began: Instant,
    spoke: Mutex<Instant>,
}

enum Look {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// `total`: items to come, where that is known.
    pub fn new(label: &'static str, noun: &'static str, total: Option<u64>, quiet: bool) -> Self {
        let look = if quiet {
            Look::Nothing
        } else if std::io::stderr().is_terminal() {
            Look::Bar(bar(label, total))
        } else {
            Look::Lines
        };
        let began = entropy::instant();
        Self {
            label,
            noun,
            look,
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            total: total.map(AtomicU64::new),
            began,
            spoke: Mutex::new(began),
        }
    }

    /// One more item of so many bytes.
    pub fn advance(&self, bytes: u64) {
        let items = self.items.fetch_add(1, Ordering::Relaxed) + 1;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        match &self.look {
            Look::Bar(bar) => {
                bar.set_position(items);
                if items.is_multiple_of(16) {
                    bar.set_message(self.rate());
                }
            }
            Look::Lines => {
                let now = entropy::instant();
                let Ok(mut spoke) = self.spoke.try_lock() else { return };
                if now - *spoke >= LINE_EVERY {
                    *spoke = now;
                    eprintln!("{}: {}", self.label, self.line());
                }
            }
            Look::Nothing => {}
        }
    }

    /// It turned out to be another number of items, where one was known.
    pub fn set_total(&self, items: u64) {
        if let Some(total) = &self.total {
            total.store(items, Ordering::Relaxed);
        }
        if let Look::Bar(bar) = &self.look {
            bar.set_length(items);
        }
    }

    /// Prints a line without disturbing the bar.
    pub fn say(&self, line: &str) {
        self.suspend(|| eprintln!("{line}"));
    }

    /// Lets something else print while the bar is away.
    pub fn suspend(&self, print: impl FnOnce()) {
        match &self.look {
            Look::Bar(bar) => bar.suspend(print),
            Look::Lines | Look::Nothing => print(),
        }
    }

    pub fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn elapsed(&self) -> Duration {
        entropy::instant() - self.began
    }

    /// Takes the bar away. What was counted is still there.
    pub fn finish(&self) {
        if let Look::Bar(bar) = &self.look {
            bar.finish_and_clear();
        }
    }

    fn line(&self) -> String {
        let of = match &self.total {
            Some(total) => format!(" of {}", render::count(total.load(Ordering::Relaxed))),
            None => String::new(),
        };
        format!("{}{of} {}, {}", render::count(self.items()), self.noun, self.rate())
    }

    /// `123 files/s, 4.5 MiB/s`
    pub fn rate(&self) -> String {
        let seconds = self.elapsed().as_secs_f64().max(1e-3);
        let items = (self.items() as f64 / seconds).round() as u64;
        match self.bytes() {
            0 => format!("{} {}/s", render::count(items), self.noun),
            bytes => {
                let bytes = (bytes as f64 / seconds) as u64;
                format!("{} {}/s, {}/s", render::count(items), self.noun, render::bytes(bytes))
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(label: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "  {prefix:<12} {bar:28.cyan/dim} {pos:>8}/{len}  {msg:.dim}"),
        None => (ProgressBar::no_length(), "  {prefix:<12} {spinner:.cyan} {pos:>8}  {msg:.dim}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant that the tests have built");
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(style.progress_chars("━╸─"));
    bar.with_prefix(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_can_be_built() {
        bar("import", Some(10)).finish_and_clear();
        bar("import", None).finish_and_clear();
    }

    #[test]
    fn what_is_counted_is_told() {
        let progress = Progress::new("import", "files", Some(1_500), true);
        progress.advance(10);
        progress.advance(20);
        assert_eq!((progress.items(), progress.bytes()), (2, 30));
        assert!(progress.line().starts_with("2 of 1,500 files, "), "{}", progress.line());
    }
}
