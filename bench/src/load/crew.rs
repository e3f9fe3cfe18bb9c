//! Threads with workers on them. All go through the same stages: fill the keys, run, read every key once more.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidewater::data::consistency::Consistency;
use tidewater::{Client, ClientOptions};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::recorder::{Recorder, Second};
use super::values::{Name, Value};
use super::worker::{Worker, fill_kinds};
use super::workload::FIELDS;
use super::world::World;
use crate::check::last;
use crate::check::register::End;
use crate::cluster::Outcome;
use crate::target::native::Native;
use crate::target::resp::{Manner, Resp};
use crate::target::slots::Shared;
use crate::target::{Call, Target, Told, Verb};

/// A key that cannot be filled is tried again so often, with a pause between.
const FILL_TRIES: u32 = 10;
const FILL_PAUSE: Duration = Duration::from_millis(200);
/// Keys of one worker that are filled at once.
const FILL_BATCH: usize = 16;

/// How targets are made.
#[derive(Clone)]
pub enum Door {
    Native(Box<ClientOptions>, Consistency),
    Resp(Arc<Shared>, Arc<Manner>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Wait,
    Fill,
    Run,
    /// Every key whose number this divides.
    Last(u32),
    Over,
}

/// The threads. Dropping it ends them once they have done what they are at.
pub struct Crew {
    world: Arc<World>,
    stage: watch::Sender<Stage>,
    done: mpsc::Receiver<Result<(), String>>,
    recorders: Vec<Arc<Mutex<Recorder>>>,
    workers: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    pub fn start(world: &Arc<World>, door: &Door, threads: usize) -> Outcome<Self> {
        let (stage, _) = watch::channel(Stage::Wait);
        let (tell, done) = mpsc::channel(world.workers.max(1));
        let threads = threads.clamp(1, world.workers);
        let recorders: Vec<_> = (0..threads).map(|_| Arc::new(Mutex::new(Recorder::default()))).collect();
        let mut handles = Vec::new();
        for (number, recorder) in recorders.iter().enumerate() {
            let part = Part {
                world: world.clone(),
                numbers: (number..world.workers).step_by(threads).collect(),
                recorder: recorder.clone(),
                stage: stage.subscribe(),
                tell: tell.clone(),
            };
            let door = door.clone();
            handles.push(thread::Builder::new().name(format!("load-{number}")).spawn(move || part.work(door))?);
        }
        Ok(Self { world: world.clone(), stage, done, recorders, workers: world.workers, threads: handles })
    }

    /// Lets all workers do something, and waits until they have done it or one of them cannot.
    pub async fn go(&mut self, stage: Stage) -> Outcome<()> {
        self.begin(stage);
        self.end().await
    }

    pub fn begin(&mut self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub async fn end(&mut self) -> Outcome<()> {
        for _ in 0..self.workers {
            self.done.recv().await.ok_or("a thread of the load has ended")??;
        }
        Ok(())
    }

    /// What the last second was.
    pub fn second(&self) -> Second {
        let mut sum = Second::new();
        for recorder in &self.recorders {
            sum.take(&mut recorder.lock().unwrap_or_else(std::sync::PoisonError::into_inner).second);
        }
        sum
    }

    /// Everything so far.
    pub fn sum(&self) -> Recorder {
        let mut sum = Recorder::default();
        for recorder in &self.recorders {
            sum.add(&recorder.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        }
        sum
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stage.send_replace(Stage::Over);
        self.world.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
        // Whoever waits to tell is not waited for.
        self.done.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One thread's part.
struct Part {
    world: Arc<World>,
    numbers: Vec<usize>,
    recorder: Arc<Mutex<Recorder>>,
    stage: watch::Receiver<Stage>,
    tell: mpsc::Sender<Result<(), String>>,
}

impl Part {
    fn work(self, door: Door) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = self.tell.blocking_send(Err(format!("no runtime for the load: {error}")));
                return;
            }
        };
        LocalSet::new().block_on(&runtime, async move {
            match door {
                Door::Native(options, consistency) => match Client::connect(*options).await {
                    Ok(client) => self.employ(|_| Native::new(&client, consistency)).await,
                    Err(error) => {
                        let _ = self.tell.send(Err(error.to_string())).await;
                    }
                },
                Door::Resp(shared, manner) => {
                    self.employ(|number| Resp::new(shared.clone(), manner.clone(), number)).await;
                }
            }
        });
    }

    async fn employ<T: Target + 'static>(&self, target: impl Fn(usize) -> T) {
        let mut tasks = Vec::new();
        for number in &self.numbers {
            let worker = Worker::new(self.world.clone(), target(*number), *number, self.recorder.clone());
            tasks.push(tokio::task::spawn_local(stages(worker, self.stage.clone(), self.tell.clone())));
        }
        for task in tasks {
            if let Err(error) = task.await {
                let _ = self.tell.send(Err(format!("a worker of the load has ended: {error}"))).await;
            }
        }
    }
}

async fn stages<T: Target>(
    mut worker: Worker<T>,
    mut stage: watch::Receiver<Stage>,
    tell: mpsc::Sender<Result<(), String>>,
) {
    loop {
        let now = *stage.borrow_and_update();
        let done = match now {
            Stage::Wait => None,
            Stage::Fill => Some(fill(&mut worker).await),
            Stage::Run => Some(worker.run().await.map_err(|error| format!("a timer of the load: {error}"))),
            Stage::Last(step) => {
                last::look(&mut worker, step).await;
                Some(Ok(()))
            }
            Stage::Over => return,
        };
        if let Some(done) = done
            && tell.send(done).await.is_err()
        {
            return;
        }
        if stage.changed().await.is_err() {
            return;
        }
    }
}

/// Writes this worker's share of the keys for the first time.
async fn fill<T: Target>(worker: &mut Worker<T>) -> Result<(), String> {
    use rand::SeedableRng;
    let world = worker.world.clone();
    let mut random = rand::rngs::SmallRng::seed_from_u64(worker.number as u64);
    let verbs = fill_kinds(world.ledger.model);
    let mine: Vec<u32> = (worker.number as u32..world.ledger.count()).step_by(world.workers).collect();
    let mut answers = Vec::new();
    for keys in mine.chunks((FILL_BATCH / verbs.len()).max(1)) {
        let mut calls: Vec<Call> = Vec::new();
        for key in keys {
            for (part, verb) in verbs.iter().enumerate() {
                calls.push(first_call(&world, *key, part as u32, *verb, &mut random));
            }
        }
        if world.is_stopped() {
            return Ok(());
        }
        for tried in 1.. {
            answers.clear();
            worker.target.call(&calls, &mut answers).await;
            let now = world.now_us();
            let mut failed = None;
            let mut again = Vec::new();
            for (call, answer) in calls.drain(..).zip(&answers) {
                let end = answer.end(now);
                end_first(&world, &call, end, answer.sent_once && !matches!(answer.told, Ok(Told::There(false))));
                if let Err(refusal) = answer.told {
                    failed = Some(refusal.why);
                    again.push(first_call(&world, call.number, call.part, call.verb, &mut random));
                }
            }
            let Some(why) = failed else { break };
            if tried == FILL_TRIES {
                return Err(format!("the keys could not be filled: {why}, {tried} times over"));
            }
            calls = again;
            sleep(FILL_PAUSE).await;
        }
    }
    Ok(())
}

fn first_call(world: &World, key: u32, part: u32, verb: Verb, random: &mut rand::rngs::SmallRng) -> Call {
    let ledger = &world.ledger;
    let item = if verb == Verb::SetField { key * FIELDS + part } else { key };
    let mut part = part;
    let sequence = match verb {
        Verb::Increment => {
            ledger.counter(key).begin();
            0
        }
        Verb::Add => {
            // Nobody else writes it yet, so that one can be begun.
            part = ledger.members(key).begin(true).map_or(0, |change| change.member);
            0
        }
        _ => ledger.register(item).begin(false).unwrap_or(0),
    };
    let value = Value { run: ledger.run, item, sequence, length: world.length(random) };
    Call { verb, key: Name::of(ledger.run, key), number: key, part, value, context: None }
}

fn end_first(world: &World, call: &Call, end: End, certain: bool) {
    let ledger = &world.ledger;
    match call.verb {
        Verb::Increment => ledger.counter(call.number).end(end),
        Verb::Add => {
            let change = crate::check::members::Change { member: call.part, adds: true };
            ledger.members(call.number).end(change, end, certain);
        }
        _ => ledger.register(call.value.item).end(call.value.sequence, false, end),
    }
}
