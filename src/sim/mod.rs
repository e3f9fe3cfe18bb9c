//! WHETHER it holds: the real node code of a whole cluster in one thread, driven by one seed, in a world that tries to break it.
//!
//! ```text
//!   seed ──> plan (cluster, load, every fault with its moment)
//!               │
//!   heap of events ──> world ──┬── node: real Shard + simulated disk + two clocks
//!               ^              ├── network: loss, delay, doubles, cuts
//!               └──────────────┴── clients: operations, retries ──> history
//!                                        every batch ──> ghost (which disk held what, when)
//!   phase one hurts; phase two heals ──> check/*: one file for each promise
//!   many seeds ──> summary: what was met, what broke      a failing one ──> shrink: a smaller world that still fails
//! ```
//! Same seed, same trace, on every machine: nothing here reads a clock, the environment or the order of a hash map. The checkers
//! believe the history and the disks, never a node's word.
//!
//! It does not simulate threads, QUIC, RocksDB or membership: those have tests of their own.

pub mod check;
pub mod disk;
pub mod ghost;
pub mod history;
pub mod load;
pub mod plan;
pub mod random;
pub mod shrink;
pub mod summary;
pub mod trace;
pub mod world;

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use crate::node::planted::Planted;
use check::{Violation, convergence};
use plan::{Aim, Plan};
use random::Random;
use trace::Trace;
use world::World;

/// All partitions of a small cluster, compared three times where they differ.
const SCRUBBED_WITHIN_US: u64 = 120_000_000;
/// A partition taken anew.
const MENDED_WITHIN_US: u64 = 60_000_000;

/// How a run is made. The defaults are what the tests run.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// How long phase one lasts, in microseconds of simulated time. A plan may take three times as long.
    pub hurt_us: u64,
    /// Within this much simulated time after healing all owners must hold the same.
    pub level_within_us: u64,
    /// Within this much nothing may be left in hints and logs, and nothing wait to be dropped.
    pub idle_within_us: u64,
    /// Keep a readable line for each event: the last ones, or all.
    pub lines: Lines,
    /// Which worlds are drawn.
    pub aim: Aim,
    /// A rule that the nodes break, to see whether it is seen.
    pub planted: Planted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lines {
    None,
    Tail,
    All,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            hurt_us: 8_000_000,
            level_within_us: 30_000_000,
            idle_within_us: 240_000_000,
            lines: Lines::None,
            aim: Aim::Usual,
            planted: Planted::None,
        }
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub seed: u64,
    pub violation: Option<Violation>,
    /// Equal for equal seeds, on every machine.
    pub trace_hash: u64,
    /// How often each fault and each rare path was met.
    pub coverage: BTreeMap<String, u64>,
    pub events: u64,
    pub simulated_us: u64,
    /// Simulated time from healing until all owners held the same.
    pub level_after_us: u64,
    pub lines: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, options: &SimOptions) -> Verdict {
    run_plan(seed, Plan::draw(&Random::new(seed), options.hurt_us, options.aim), options)
}

/// Runs a plan. The seed draws what the plan leaves open: delays, clients' choices, identities. A panic of a node is a broken promise
/// like any other.
pub fn run_plan(seed: u64, plan: Plan, options: &SimOptions) -> Verdict {
    catch_unwind(|| run_world(seed, plan, options)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with nothing said");
        let violation = Violation { checker: "panic", at_us: 0, message: text.to_string() };
        Verdict {
            seed,
            violation: Some(violation),
            trace_hash: 0,
            coverage: BTreeMap::new(),
            events: 0,
            simulated_us: 0,
            level_after_us: 0,
            lines: Vec::new(),
        }
    })
}

fn run_world(seed: u64, plan: Plan, options: &SimOptions) -> Verdict {
    let trace = Trace::new(options.lines != Lines::None, options.lines == Lines::All);
    let hurt_us = plan.hurt_us;
    let mut world = World::new(seed, plan, trace, options.planted);
    world.run_until(hurt_us);
    let level_after_us = heal(&mut world, options);
    world.finish();
    Verdict {
        seed,
        violation: world.violation.take(),
        trace_hash: world.trace.hash(),
        coverage: std::mem::take(&mut world.coverage),
        events: world.trace.events,
        simulated_us: world.now_us,
        level_after_us,
        lines: world.trace.into_lines(),
    }
}

/// Phase two. Gives the time until all was equal.
fn heal(world: &mut World, options: &SimOptions) -> u64 {
    if world.violation.is_some() {
        return 0;
    }
    world.heal();
    let healed_us = world.now_us;
    let mut level_after_us = None;
    while world.violation.is_none() {
        world.run_until(world.now_us + 500_000);
        let since_us = world.now_us - healed_us;
        if level_after_us.is_none() {
            match convergence::equal(world) {
                Ok(()) if !world.is_calling() => level_after_us = Some(since_us),
                Ok(()) => {}
                Err(message) if since_us > options.level_within_us => world.violate("convergence", message),
                Err(_) => {}
            }
        } else {
            match convergence::idle(world) {
                Ok(()) => break,
                Err(message) if since_us > options.idle_within_us => world.violate("idle", message),
                Err(_) => {}
            }
        }
    }
    if world.violation.is_none()
        && let Err(message) = convergence::equal(world)
    {
        world.violate("convergence", format!("level before and not any more: {message}"));
    }
    if world.violation.is_none()
        && let Err((checker, message)) = check::final_state(world)
    {
        world.violate(checker, message);
    }
    scrub(world);
    level_after_us.unwrap_or(0)
}

/// All is level: a scrub must find nothing, and then what was damaged under everybody's eyes; and it is mended.
fn scrub(world: &mut World) {
    if !run_scrub(world) {
        return;
    }
    // Later an owner may have just forgotten what was damaged.
    let mut shards = world.nodes.iter().flat_map(|node| &node.shard);
    if shards.any(|shard| shard.status().scrub.skipped > 0) {
        return world.violate("scrub", "a scrub of owners that are level could not compare them".into());
    }
    let findings = |world: &World, of: &dyn Fn(usize) -> bool| -> u64 {
        let shards = world.nodes.iter().enumerate().filter(|(node, _)| of(*node)).flat_map(|(_, node)| &node.shard);
        shards.map(|shard| shard.status().scrub.findings).sum()
    };
    if findings(world, &|_| true) > 0 {
        return world.violate("scrub", "a scrub of owners that are level found that they differ".into());
    }
    let Some(victim) = world.damage() else { return };
    if !run_scrub(world) {
        return;
    }
    if findings(world, &|node| node == victim) == 0 {
        let scrubs: Vec<_> =
            world.nodes.iter().flat_map(|node| &node.shard).map(|shard| shard.status().scrub).collect();
        return world.violate("scrub", format!("node {victim} did not find its damaged row: {scrubs:?}"));
    }
    let mut until_us = world.now_us + MENDED_WITHIN_US;
    let mut again = true;
    while let Err(message) = convergence::equal(world) {
        if world.now_us > until_us && std::mem::take(&mut again) {
            // A node that minted something while it compared does not drop that with the rest, and says that it is to be scrubbed again.
            if !run_scrub(world) {
                return;
            }
            until_us = world.now_us + MENDED_WITHIN_US;
            continue;
        }
        if world.now_us > until_us {
            world.violate("scrub", format!("what a scrub found was not mended: {message}"));
        }
        if world.violation.is_some() {
            return;
        }
        world.run_until(world.now_us + 500_000);
    }
    if let Err((_, message)) = check::final_state(world) {
        world.violate("scrub", format!("mended, and not what it was: {message}"));
    }
}

/// Scrubs everywhere. False: a promise was broken.
fn run_scrub(world: &mut World) -> bool {
    if world.violation.is_some() {
        return false;
    }
    world.scrub();
    let until_us = world.now_us + SCRUBBED_WITHIN_US;
    world.run_until(world.now_us + 100_000);
    while world.violation.is_none() && world.is_scrubbing() {
        if world.now_us > until_us {
            world.violate("scrub", "a scrub does not come to its end".into());
        }
        world.run_until(world.now_us + 100_000);
    }
    world.violation.is_none()
}
