//! HOW FAST, and how true: the benchmark of a cluster, and what the smaller binaries beside it share.
//!
//! ```text
//!  tidewater-bench: args -> run -> cluster (its own, or somebody else's)
//!                            |-- load     what is asked, when, how long it took        target   whom: the native client, Redis's protocol
//!                            |-- check    every answer against what was acknowledged
//!                            |-- faults   what goes wrong and when, and how long healing takes
//!                            '-> results  the one shape that a run leaves behind -> report   page, tables, terminal
//! ```
//!
//! The others, each for one question:
//!
//! - `micro`: what one call costs (nanoseconds)
//! - `floor`: what a request cannot cost less than, from the parts that any implementation needs (microseconds of CPU)
//! - `outage`: what an outage of real nodes costs (seconds, bytes)
//! - `compare`: Tidewater beside Redis Cluster, the same load in turn (ratios of throughput and of CPU)
//! - `deletes`: what becomes of many deletes while an owner is away (seconds, rows, bytes on disk)
//!
//! Nothing here asserts a time: machines differ, and a busy one more so. Figures are given as the least and the median of many
//! short rounds. What other processes took of the machine meanwhile is printed below them: they make caches colder, but also
//! batches larger, so that on a busy machine some figures are too high and some too low.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;

pub mod args;
pub mod check;
pub mod cluster;
pub mod faults;
pub mod load;
pub mod machine;
pub mod report;
pub mod results;
pub mod run;
pub mod subject;
pub mod target;

/// What the command line may say: `--json`, `--rounds N`, `--only TEXT`.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// Print one JSON document instead of a table.
    pub json: bool,
    /// How many rounds each figure is measured in.
    pub rounds: usize,
    /// Measure only what has this in its name.
    pub only: Option<String>,
}

impl Arguments {
    /// Reads the command line; on anything else says what is allowed and exits with 2.
    pub fn read(what: &str, rounds: usize) -> Self {
        let mut read = Self { json: false, rounds, only: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let understood = match word.as_str() {
                "--json" => {
                    read.json = true;
                    true
                }
                "--rounds" => match words.next().and_then(|number| number.parse().ok()) {
                    Some(number) if (1..=10_000).contains(&number) => {
                        read.rounds = number;
                        true
                    }
                    _ => false,
                },
                "--only" => {
                    read.only = words.next();
                    read.only.is_some()
                }
                _ => false,
            };
            if !understood {
                eprintln!("{what}\n\nusage: [--json] [--rounds 1..10000 (default {rounds})] [--only TEXT]");
                std::process::exit(if matches!(word.as_str(), "--help" | "-h") { 0 } else { 2 });
            }
        }
        read
    }

    /// Whether a figure of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// One line of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub least: f64,
    pub median: f64,
    /// What else is worth knowing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Figure {
    /// The least and the median of `rounds`, which must not be empty.
    pub fn of(name: &str, unit: &'static str, mut rounds: Vec<f64>) -> Self {
        assert!(!rounds.is_empty(), "a figure needs a round");
        rounds.sort_by(f64::total_cmp);
        Self { name: name.to_owned(), unit, least: rounds[0], median: rounds[rounds.len() / 2], note: String::new() }
    }

    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Prints figures as a table, or as one JSON document:
/// `{"title": .., "others_percent": .., "figures": [{name, unit, least, median, note}]}`.
pub fn print(title: &str, figures: &[Figure], machine: &Machine, json: bool) {
    let others = machine.others_percent();
    if json {
        println!("{}", serde_json::json!({ "title": title, "others_percent": others, "figures": figures }));
        return;
    }
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    println!("{title}\n\n{:width$}  {:>9}  {:>9}", "", "least", "median");
    for Figure { name, unit, least, median, note } in figures {
        println!("{name:width$}  {least:>9.2}  {median:>9.2}  {unit:3} {note}");
    }
    if let Some(others) = others {
        let advice = if others > 5.0 { ": measure again when it is quiet" } else { "" };
        println!("\nOther processes used {others:.0} % of the machine meanwhile{advice}.");
    }
}

/// What the whole machine did since this was made.
pub struct Machine {
    start: Instant,
    busy_start_us: Option<f64>,
    mine_start: Cpu,
}

impl Machine {
    pub fn watch() -> Self {
        Self { start: Instant::now(), busy_start_us: Self::busy_us(), mine_start: Cpu::of_this_process() }
    }

    /// CPU used by other processes, in percent of all there was. `None` where the system does not tell.
    fn others_percent(&self) -> Option<f64> {
        let busy_us = Self::busy_us()? - self.busy_start_us?;
        let mine_us = Cpu::of_this_process().since(self.mine_start).total_us();
        let cores = std::thread::available_parallelism().ok()?.get() as f64;
        let all_us = self.start.elapsed().as_micros() as f64 * cores;
        Some((100.0 * (busy_us - mine_us) / all_us).clamp(0.0, 100.0))
    }

    /// Microseconds that all cores together were not idle since the machine started, from the first line of `/proc/stat`.
    fn busy_us() -> Option<f64> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<f64> =
            text.lines().next()?.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect();
        // user, nice, system, (idle, waiting for disks,) interrupts, soft interrupts, stolen; what follows is counted in user.
        let busy: f64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
        // SAFETY: asks for a constant; no pointers.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        (per_second > 0).then(|| busy * 1e6 / per_second as f64)
    }
}

/// Nanoseconds per call of `work`, over `rounds` rounds of about two milliseconds.
pub fn time<T>(name: &str, rounds: usize, mut work: impl FnMut() -> T) -> Figure {
    const ROUND: Duration = Duration::from_millis(2);
    let mut run = |calls: u64| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(work());
        }
        start.elapsed()
    };
    // Doubling until a round is long enough also warms the caches.
    let mut calls = 1;
    while run(calls) < ROUND && calls < 1 << 30 {
        calls *= 2;
    }
    let rounds = (0..rounds).map(|_| run(calls).as_nanos() as f64 / calls as f64).collect();
    Figure::of(name, "ns", rounds)
}

/// CPU time used so far, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub user_us: f64,
    pub system_us: f64,
}

impl Cpu {
    /// Of the calling thread.
    pub fn of_this_thread() -> Self {
        Self::usage(libc::RUSAGE_THREAD)
    }

    /// Of all threads of this process, ended ones too.
    pub fn of_this_process() -> Self {
        Self::usage(libc::RUSAGE_SELF)
    }

    pub fn total_us(self) -> f64 {
        self.user_us + self.system_us
    }

    pub fn since(self, earlier: Self) -> Self {
        Self { user_us: self.user_us - earlier.user_us, system_us: self.system_us - earlier.system_us }
    }

    fn usage(who: libc::c_int) -> Self {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is to a whole rusage, and all zeroes is a valid one should the call fail.
        let usage = unsafe {
            libc::getrusage(who, usage.as_mut_ptr());
            usage.assume_init()
        };
        let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
        Self { user_us: micros(usage.ru_utime), system_us: micros(usage.ru_stime) }
    }
}
