//! The last look: when all is healed and level, every key is read from all owners and must be what was acknowledged.

use std::time::Duration;

use tokio::time::sleep;

use super::register::Wrong;
use super::tally::Tally;
use crate::load::values::{Name, Seen, Value};
use crate::load::worker::{Worker, brief, sequence};
use crate::load::workload::{FIELDS, Model};
use crate::load::world::World;
use crate::target::{Call, Refusal, Target, Told, Verb};

/// Keys of one worker that are read at once.
const BATCH: usize = 8;
/// A key that cannot be read is tried again so often, with a pause between.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// Reads this worker's share of the keys that `step` divides.
pub async fn look<T: Target>(worker: &mut Worker<T>, step: u32) {
    let world = worker.world.clone();
    let keys = (0..world.ledger.claimed()).step_by(step.max(1) as usize);
    let mine = keys.enumerate().filter(|(at, _)| at % world.workers == worker.number).map(|(_, key)| key);
    let written: Vec<u32> = mine.filter(|key| world.ledger.is_written(*key)).collect();
    let mut answers = Vec::new();
    for keys in written.chunks(BATCH) {
        if world.is_stopped() {
            return;
        }
        let mut calls: Vec<Call> = keys.iter().flat_map(|key| calls_of(&world, *key)).collect();
        worker.recorder().tally.check.keys_read_at_end += keys.len() as u64;
        for tried in 1.. {
            answers.clear();
            worker.target.call_all(&calls, &mut answers).await;
            let mut again = Vec::new();
            for (call, answer) in calls.drain(..).zip(&answers) {
                match &answer.told {
                    Ok(told) => judge(&world, &call, told, &mut worker.recorder().tally),
                    Err(refusal) if tried == TRIES => unread(&call, refusal, &mut worker.recorder().tally),
                    Err(_) => again.push(call),
                }
            }
            if again.is_empty() {
                break;
            }
            calls = again;
            sleep(PAUSE).await;
        }
    }
}

fn calls_of(world: &World, key: u32) -> Vec<Call> {
    let call = |verb, item, part| {
        let value = Value { run: world.ledger.run, item, sequence: 0, length: 0 };
        Call { verb, key: Name::of(world.ledger.run, key), number: key, part, value, context: None }
    };
    match world.ledger.model {
        Model::Strings => vec![call(Verb::Get, key, 0)],
        Model::Counters => vec![call(Verb::GetCounter, key, 0)],
        Model::Sets => vec![call(Verb::Members, key, 0)],
        Model::Siblings => vec![call(Verb::Siblings, key, 0)],
        Model::Maps => {
            let fields = (0..FIELDS).map(|field| call(Verb::GetField, key * FIELDS + field, field));
            fields.chain([call(Verb::GetFieldCounter, key, FIELDS)]).collect()
        }
    }
}

fn judge(world: &World, call: &Call, told: &Told, tally: &mut Tally) {
    let ledger = &world.ledger;
    tally.check.verified += 1;
    let (wrong, known) = match told {
        Told::Value(Seen::Foreign) => (Some(Wrong::Invented), String::new()),
        Told::Value(seen) => {
            let register = ledger.register(call.value.item);
            let wrong = register.judge_last(sequence(*seen));
            (wrong, if wrong.is_some() { register.told() } else { String::new() })
        }
        Told::Siblings(each, _) => {
            let register = ledger.register(call.value.item);
            let newest = each.iter().filter_map(|seen| sequence(*seen)).max();
            let wrong = if each.contains(&Seen::Foreign) { Some(Wrong::Invented) } else { register.judge_last(newest) };
            (wrong, if wrong.is_some() { register.told() } else { String::new() })
        }
        Told::Sum(sum) => {
            let counter = ledger.counter(call.number);
            (counter.judge_last(*sum), counter.told())
        }
        Told::Members(_, true) => (Some(Wrong::Invented), String::new()),
        Told::Members(members, false) => {
            let set = ledger.members(call.number);
            let wrong = set.judge_last(members);
            let known = wrong.map(|(_, member)| format!("member {member}; {}", set.told())).unwrap_or_default();
            (wrong.map(|(wrong, _)| wrong), known)
        }
        Told::Done | Told::There(_) | Told::Keys(_) => (None, String::new()),
    };
    let Some(wrong) = wrong else { return };
    let count = match wrong {
        Wrong::Lost => &mut tally.check.lost,
        Wrong::Resurrected => &mut tally.check.resurrected,
        Wrong::Duplicated => &mut tally.check.duplicated,
        Wrong::Invented => &mut tally.check.invented,
    };
    *count += 1;
    tally.example(|| {
        let name = String::from_utf8_lossy(call.key.as_bytes()).into_owned();
        let part = if world.ledger.model == Model::Maps { format!(" field {}", call.part) } else { String::new() };
        format!("at the end, {name}{part}: {wrong:?}: got {}; {known}", brief(told))
    });
}

fn unread(call: &Call, refusal: &Refusal, tally: &mut Tally) {
    tally.check.keys_read_at_end = tally.check.keys_read_at_end.saturating_sub(1);
    tally.example(|| {
        let name = String::from_utf8_lossy(call.key.as_bytes()).into_owned();
        format!("at the end, {name} could not be read: {}", refusal.why)
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use super::*;
    use crate::check::ledger::Ledger;
    use crate::load::keys::Distribution;
    use crate::load::recorder::Recorder;
    use crate::load::workload::Workload;
    use crate::target::Answer;

    /// A store in memory that can be made to do wrong.
    #[derive(Default)]
    struct Liar {
        values: BTreeMap<Vec<u8>, Vec<u32>>,
        forgets: bool,
        counts_twice: bool,
        writes: u64,
    }

    impl Target for Liar {
        async fn call(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
            for call in calls {
                let held = self.values.entry(call.key.as_bytes().to_vec()).or_default();
                let told = match call.verb {
                    Verb::Get => Told::Value(held.last().map_or(Seen::Nothing, |sequence| Seen::Sequence(*sequence))),
                    Verb::GetCounter => Told::Sum(held.len() as i64),
                    _ => {
                        self.writes += 1;
                        let odd = self.writes.is_multiple_of(50);
                        for _ in 0..if odd && self.forgets { 0 } else { 1 + usize::from(odd && self.counts_twice) } {
                            match call.verb {
                                Verb::Delete => held.clear(),
                                _ => held.push(call.value.sequence),
                            }
                        }
                        Told::Done
                    }
                };
                answers.push(Answer { told: Ok(told), receipt: None, sent_once: true });
            }
        }

        async fn call_all(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
            self.call(calls, answers).await;
        }
    }

    async fn checked(workload: &str, target: Liar) -> crate::results::Check {
        let deletes = if workload == "mix" { 0.1 } else { 0.0 };
        let workload = Workload::named(workload, None, deletes).expect("a workload");
        let world = Arc::new(World {
            began: Instant::now(),
            ledger: Ledger::new(9, workload.model, 50),
            workload,
            distribution: Distribution::Uniform,
            sizes: (16, 16),
            pipeline: 4,
            rate: None,
            workers: 1,
            members: Vec::new(),
            intersecting: true,
            measured_from_us: AtomicU64::new(0),
            until_us: AtomicU64::new(30_000),
            faults_on: AtomicU32::new(0),
            faults_changed: AtomicU32::new(0),
            faults_text: Mutex::new(String::new()),
            stopped: AtomicBool::new(false),
        });
        let recorder = Arc::new(Mutex::new(Recorder::default()));
        let mut worker = Worker::new(world, target, 0, recorder.clone());
        worker.run().await.expect("no timers are used");
        look(&mut worker, 1).await;
        let recorder = recorder.lock().expect("nobody panicked");
        recorder.tally.check.clone()
    }

    #[tokio::test]
    async fn an_honest_store_passes() {
        for workload in ["a", "mix", "counter"] {
            let check = checked(workload, Liar::default()).await;
            assert!(check.verified > 100 && check.keys_read_at_end == 50, "{workload}: {check:?}");
            let wrong = check.stale + check.lost + check.duplicated + check.resurrected + check.invented;
            assert_eq!((wrong, check.examples.len()), (0, 0), "{workload}: {check:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_forgets_is_found_out() {
        let check = checked("counter", Liar { forgets: true, ..Liar::default() }).await;
        assert!(check.lost > 0 && check.stale_against_promise > 0 && !check.examples.is_empty(), "{check:?}");
        let check = checked("mix", Liar { forgets: true, ..Liar::default() }).await;
        assert!(check.stale_against_promise > 0, "{check:?}");
    }

    #[tokio::test]
    async fn a_store_that_counts_twice_is_found_out() {
        let check = checked("counter", Liar { counts_twice: true, ..Liar::default() }).await;
        assert!(check.duplicated > 0, "{check:?}");
    }
}
