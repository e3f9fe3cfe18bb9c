//! `tidewater sim`: which worlds, and what is to be seen of them.

use std::time::Duration;

use clap::Args;

use super::{Output, duration};
use crate::node::planted::Planted;
use crate::sim::plan::Aim;

/// `tidewater sim`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater sim                            the seeds 0 to 99, on all cores
  tidewater sim --seeds 0..10000 --jobs 2
  tidewater sim --seed 4711                one seed: its verdict, and the hash of its trace
  tidewater sim --seed 4711 --trace        the same, with one line for each event
  tidewater sim --seed 4711 --shrink       look for a smaller world that fails the same way

A seed holds a whole cluster, its clients and every fault. The same seed gives the same trace on
every machine. Exit code 1: a promise was broken, or a range of 1,000 seeds and more never met
some fault or rare path.")]
pub struct SimArgs {
    /// Run this seed alone
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "jobs"])]
    pub seed: Option<u64>,
    /// Run the seeds from A up to, but not with, B
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = seeds)]
    pub seeds: std::ops::Range<u64>,
    /// How many seeds at a time [default: one for each core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// End with the first seed that breaks a promise
    #[arg(long, conflicts_with = "seed")]
    pub first: bool,
    /// Print a line for each event
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// Look for a smaller world that fails the same way
    #[arg(long, requires = "seed")]
    pub shrink: bool,
    /// Worlds to try at most for --shrink
    #[arg(long, value_name = "COUNT", default_value_t = 500, requires = "shrink")]
    pub tries: u64,
    /// Which worlds: usual (anything), or one thing all the time: full_syncs, hints, removals, old_disks, lost_sources, retries or
    /// absences
    #[arg(long, value_name = "WORLDS", default_value = "usual", value_parser = aim)]
    pub aim: Aim,
    /// Break one rule of the nodes on purpose, to see whether it is seen: a name of those that an unknown one lists
    #[arg(long, value_name = "BUG", value_parser = planted)]
    pub plant: Option<Planted>,
    /// How long trouble lasts before all is healed, in simulated time, up to 10m
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = hurt)]
    pub hurt: Duration,
    /// The form of what is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

impl SimArgs {
    /// What `--hurt` is when nothing else is said.
    pub const HURT: Duration = Duration::from_secs(8);
}

fn planted(name: &str) -> Result<Planted, String> {
    let names: Vec<&str> = Planted::ALL.into_iter().map(Planted::name).collect();
    let found = Planted::ALL.into_iter().find(|planted| planted.name() == name);
    found.ok_or_else(|| format!("there is no such bug; there are: {}", names.join(", ")))
}

fn aim(name: &str) -> Result<Aim, String> {
    let names: Vec<&str> = Aim::ALL.into_iter().map(Aim::name).collect();
    let found = Aim::ALL.into_iter().find(|aim| aim.name() == name);
    found.ok_or_else(|| format!("there are no such worlds; there are: {}", names.join(", ")))
}

/// Reads `0..10000`: at least one seed, at most ten million.
fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("'{text}' is not a range of seeds: use A..B with A below B, as 0..10000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let (from, to): (u64, u64) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    match to.checked_sub(from) {
        None | Some(0) => Err(wrong()),
        Some(count) if count > 10_000_000 => Err(format!("'{text}' are {count} seeds: use at most 10000000 at a time")),
        Some(_) => Ok(from..to),
    }
}

/// A time of trouble: 100 ms to 10 minutes.
fn hurt(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&time) {
        Ok(time)
    } else {
        Err(format!("'{text}' is not between 100ms and 10m"))
    }
}
