//! From a world that fails to a smaller one that still does: fewer faults, fairer weather, fewer clients, nodes and keys, less time.
//!
//! Any smaller plan is a world of its own, in which the failure may or may not come about: what is looked for is one in which it does,
//! by the same checker. Faults go by delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
//! 2002), everything else by trying what is smaller.

use super::plan::{Plan, Weather};
use super::{SimOptions, Verdict, run_plan};

/// What was found.
pub struct Shrunk {
    pub plan: Plan,
    pub verdict: Verdict,
    /// Worlds that were run for it.
    pub tried: u64,
}

/// Looks for a smaller plan that fails by the same checker, in at most `tries_max` runs. `None`: the seed does not fail.
pub fn shrink(
    seed: u64,
    plan: Plan,
    options: &SimOptions,
    tries_max: u64,
    mut progress: impl FnMut(&Shrunk),
) -> Option<Shrunk> {
    let verdict = run_plan(seed, plan.clone(), options);
    let checker = verdict.violation.as_ref()?.checker;
    let mut best = Shrunk { plan, verdict, tried: 1 };
    let mut attempt = |best: &mut Shrunk, plan: Plan| {
        if best.tried >= tries_max {
            return false;
        }
        best.tried += 1;
        let verdict = run_plan(seed, plan.clone(), options);
        let fails = verdict.violation.as_ref().is_some_and(|violation| violation.checker == checker);
        if fails {
            (best.plan, best.verdict) = (plan, verdict);
            progress(best);
        }
        fails
    };
    loop {
        let before = best.tried;
        let mut smaller = cut_short(&mut best, &mut attempt);
        smaller |= drop_faults(&mut best, &mut attempt);
        smaller |= simplify(&mut best, &mut attempt);
        if !smaller || best.tried == before || best.tried >= tries_max {
            return Some(best);
        }
    }
}

/// Nothing after the failure matters.
fn cut_short(best: &mut Shrunk, attempt: &mut impl FnMut(&mut Shrunk, Plan) -> bool) -> bool {
    let failed_us = best.verdict.violation.as_ref().map_or(0, |violation| violation.at_us);
    let mut any = false;
    for share in [1, 2, 3] {
        let hurt_us = failed_us.min(best.plan.hurt_us) * share / 4;
        let mut plan = best.plan.clone();
        plan.hurt_us = hurt_us.max(100_000);
        plan.faults.retain(|fault| fault.at_us < plan.hurt_us);
        if plan.hurt_us < best.plan.hurt_us && attempt(best, plan) {
            any = true;
            break;
        }
    }
    any
}

fn drop_faults(best: &mut Shrunk, attempt: &mut impl FnMut(&mut Shrunk, Plan) -> bool) -> bool {
    let mut any = false;
    let mut size = best.plan.faults.len().div_ceil(2).max(1);
    while !best.plan.faults.is_empty() {
        let mut from = 0;
        let mut found = false;
        while from < best.plan.faults.len() {
            let mut plan = best.plan.clone();
            plan.faults.drain(from..(from + size).min(plan.faults.len()));
            if attempt(best, plan) {
                (any, found) = (true, true);
            } else {
                from += size;
            }
        }
        if !found && size == 1 {
            break;
        }
        size = (size / 2).max(1);
    }
    any
}

fn simplify(best: &mut Shrunk, attempt: &mut impl FnMut(&mut Shrunk, Plan) -> bool) -> bool {
    let steps: [fn(&mut Plan); 11] = [
        |plan| plan.weather = Weather { loss_ppm: 0, ..plan.weather },
        |plan| plan.weather = Weather { full_ppm: 0, ..plan.weather },
        |plan| plan.weather = Weather { double_ppm: 0, ..plan.weather },
        |plan| plan.weather = Weather { tail_ppm: 0, ..plan.weather },
        |plan| plan.crash_at_turn_ppm = 0,
        |plan| plan.skew_ms = 0,
        |plan| plan.keys = 1,
        |plan| plan.kinds = &plan.kinds[..plan.kinds.len().div_ceil(2)],
        |plan| plan.partitions = 1,
        |plan| plan.clients = (plan.clients - 1).max(1),
        |plan| {
            let least = usize::from(plan.replicas).max(3);
            plan.nodes = (plan.nodes - 1).max(least);
            let nodes = plan.nodes;
            plan.faults.retain(|fault| fault.node < nodes && fault.other < nodes);
        },
    ];
    let mut any = false;
    for step in steps {
        loop {
            let mut plan = best.plan.clone();
            step(&mut plan);
            if plan == best.plan || !attempt(best, plan) {
                break;
            }
            any = true;
        }
    }
    any
}
