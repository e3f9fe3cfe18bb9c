//! One run from beginning to end: a cluster, keys, warm-up, measuring with faults, healing, the last look.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::Cpu;
use crate::args::RunArgs;
use crate::check::ledger::Ledger;
use crate::cluster::{Cluster, Outcome};
use crate::faults::player::{Look, Player, look, until_level};
use crate::faults::schedule::{Fault, Schedule};
use crate::faults::surgeon::{Hands, Surgeon};
use crate::load::crew::{Crew, Stage};
use crate::load::workload::Workload;
use crate::load::world::World;
use crate::machine::{Meter, made};
use crate::results::{Cost, FORMAT, Results, Setting, Slice, Staleness};
use crate::subject::{Subject, subject};

/// How long servers that cannot be asked are given to come level.
const BLIND_SETTLE: Duration = Duration::from_secs(10);
/// How long the cluster is given to come level after it was filled, before the load begins.
const FILLED_LEVEL: Duration = Duration::from_secs(60);

/// What a run tells while it goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// What it is at: "filling 100000 keys", "warming up", "measuring", "waiting until all is level" ...
    pub phase: String,
    /// The second that has just ended; `None` in the other phases.
    pub slice: Option<Slice>,
    /// Faults that are on.
    pub faults: String,
    /// Of the measured part, in seconds.
    pub measured_s: f64,
}

/// Nobody to hurt anything: servers that are not Tidewater's, or that cannot be asked.
enum Surgery {
    Hands(Box<Hands>),
    None,
}

impl Surgeon for Surgery {
    fn check(&self, fault: &Fault) -> Result<(), String> {
        match self {
            Self::Hands(hands) => hands.check(fault),
            Self::None => Err(format!(
                "'{}': faults need Tidewater nodes that were started with --allow-faults, and for resp:// targets --quic and --tls-dir",
                fault.text
            )),
        }
    }

    async fn begin(&mut self, fault: &Fault) -> Outcome<()> {
        match self {
            Self::Hands(hands) => hands.begin(fault).await,
            Self::None => Err("there is nobody to do it".into()),
        }
    }

    async fn end(&mut self, fault: &Fault) -> Outcome<()> {
        match self {
            Self::Hands(hands) => hands.end(fault).await,
            Self::None => Ok(()),
        }
    }
}

impl Surgery {
    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Hands(hands) => hands.local().map(Cluster::pids).unwrap_or_default(),
            Self::None => Vec::new(),
        }
    }
}

/// Everything that was typed, checked.
struct Plan {
    args: RunArgs,
    schedule: Schedule,
    workload: Workload,
    duration: Duration,
}

/// Runs and gives what was measured. `words`: the command line as typed.
pub async fn run(args: &RunArgs, words: &[String], tell: &mpsc::Sender<Progress>) -> Outcome<Results> {
    let schedule = args.schedule()?;
    let workload = args.checked_workload()?;
    let duration = args.checked_duration(&schedule)?;
    let plan = Plan { args: args.clone(), schedule, workload, duration };
    let made = made(words);
    say(tell, if args.target.is_some() { "connecting" } else { "starting a cluster" });
    let mut subject = subject(args).await?;
    args.consistency().check(subject.replicas)?;
    if subject.client.is_some() {
        plan.schedule.check(&subject.nodes)?;
    }
    let surgery = match (&subject.client, subject.local.take()) {
        (Some(client), local) => Surgery::Hands(Box::new(Hands::new(client.clone(), local))),
        (None, _) => Surgery::None,
    };
    for fault in &plan.schedule.faults {
        surgery.check(fault)?;
    }
    let world = Arc::new(world(&plan, &subject));
    let mut crew = Crew::start(&world, &subject.door, threads(args))?;
    let (tell_look, looks) = watch::channel(None);
    let looker = subject.client.clone().map(|client| tokio::spawn(look(client, world.clone(), tell_look)));
    let mut player = Player::new(surgery, plan.schedule.clone(), world.clone(), looks);

    say(tell, &format!("filling {} keys", args.keys));
    crew.go(Stage::Fill).await?;
    if looker.is_some() {
        say(tell, "waiting until all is level");
        if !until_level(&mut player, FILLED_LEVEL).await {
            return Err("the cluster does not come level by itself after it was filled: see `tidewater status`".into());
        }
    }
    let measured = measure(&plan, &world, &mut crew, &mut player, tell).await;
    let measured = match measured {
        Ok(measured) => measured,
        Err(error) => {
            // What is cut off in somebody else's cluster must not stay so; the first error is the one that counts.
            let _ = player.heal().await;
            return Err(error);
        }
    };

    say(tell, "waiting until all is level");
    if looker.is_some() {
        until_level(&mut player, args.settle).await;
    } else {
        sleep(BLIND_SETTLE.min(args.settle)).await;
    }
    say(tell, "reading every key once more");
    let step = world.ledger.claimed().div_ceil(args.verify_keys).max(1);
    crew.go(Stage::Last(step)).await?;
    if let Some(looker) = looker {
        looker.abort();
    }

    let sum = crew.sum();
    let level = |kind: crate::load::workload::Kind| {
        if kind.is_read() { subject.levels.1.clone() } else { subject.levels.0.clone() }
    };
    let staleness = Staleness {
        write_level: subject.levels.0.clone(),
        read_level: subject.levels.1.clone(),
        buckets: sum.tally.staleness(),
    };
    Ok(Results {
        format: FORMAT,
        made,
        setting: setting(&plan, &subject),
        slices: measured.slices,
        operations: sum.operations(level),
        faults: player.played.spans.clone(),
        staleness: vec![staleness],
        check: sum.tally.check.clone(),
        healings: player.played.healings.clone(),
        receipts: sum.receipts(level),
        cost: measured.cost,
    })
}

struct Measured {
    slices: Vec<Slice>,
    cost: Cost,
}

async fn measure(
    plan: &Plan,
    world: &Arc<World>,
    crew: &mut Crew,
    player: &mut Player<Surgery>,
    tell: &mpsc::Sender<Progress>,
) -> Outcome<Measured> {
    let from_us = world.now_us() + plan.args.warm_up.as_micros() as u64;
    let until_us = from_us + plan.duration.as_micros() as u64;
    world.measured_from_us.store(from_us, Ordering::Relaxed);
    world.until_us.store(until_us, Ordering::Relaxed);
    crew.begin(Stage::Run);
    say(tell, "warming up");
    // Looks meanwhile are what is usual under load.
    player.play_nothing(0.0).await;
    crew.second();
    let (cpu, began) = (Cpu::of_this_process(), Instant::now());
    let mut meter = Meter::default();
    let pids = Arc::new(Mutex::new(pids(plan, player)));
    let mut slices = Vec::new();
    let mut looks = player.looks.clone();
    let ticking = async {
        for at in 1..=plan.duration.as_secs() {
            let due_us = from_us + at * 1_000_000;
            sleep(Duration::from_micros(due_us.saturating_sub(world.now_us()))).await;
            meter.look(&pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            let look: Option<Look> = *looks.borrow_and_update();
            let recent = look.filter(|look| world.now_us() < look.at_us + 2_000_000);
            let slice = crew.second().slice((at - 1) as f64, recent.and_then(|look| look.behind));
            slices.push(slice.clone());
            let faults = world.faults_text.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let measured_s = plan.duration.as_secs_f64();
            // Whoever shows it and cannot keep up misses some.
            let _ = tell.try_send(Progress { phase: "measuring".into(), slice: Some(slice), faults, measured_s });
        }
    };
    let until_s = plan.duration.as_secs_f64();
    let playing = async {
        // The processes are others after each fault.
        let (pids, args) = (pids.clone(), plan.args.server_pids.clone());
        player
            .play(until_s, |surgery: &Surgery| {
                let now = if args.is_empty() { surgery.pids() } else { args.clone() };
                *pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
            })
            .await
    };
    let ((), played) = tokio::join!(ticking, playing);
    played?;
    timeout(plan.args.timeout * 4 + Duration::from_secs(10), crew.end())
        .await
        .map_err(|_| "requests under way at the end did not end")??;
    let used_us = Cpu::of_this_process().since(cpu).total_us();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let all_us = began.elapsed().as_micros() as f64 * cores as f64;
    let (done, errors) = crew.sum().totals();
    let operations = (done + errors).max(1) as f64;
    let cost = Cost {
        own_cpu_share: used_us / all_us,
        own_cpu_us_per_operation: used_us / operations,
        server_cpu_us_per_operation: (!meter.is_empty()).then(|| meter.used_us() as f64 / operations),
        server_memory_bytes: (!meter.is_empty()).then_some(meter.memory_bytes),
    };
    Ok(Measured { slices, cost })
}

fn pids(plan: &Plan, player: &Player<Surgery>) -> Vec<u32> {
    if plan.args.server_pids.is_empty() { player.surgeon.pids() } else { plan.args.server_pids.clone() }
}

fn say(tell: &mpsc::Sender<Progress>, phase: &str) {
    let _ = tell.try_send(Progress { phase: phase.to_owned(), ..Progress::default() });
}

fn threads(args: &RunArgs) -> usize {
    let half = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1);
    args.threads.map_or(half, |threads| threads as usize)
}

fn world(plan: &Plan, subject: &Subject) -> World {
    let args = &plan.args;
    let consistency = args.consistency();
    let n = subject.replicas;
    let intersecting = subject.is_tidewater
        && u16::from(consistency.read.needed(n)) + u16::from(consistency.write.needed(n)) > u16::from(n);
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Nanoseconds are as good as drawn: two runs that are begun by hand do not agree in 32 bits of them but by a rare chance.
    let run = (run.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    World {
        began: Instant::now(),
        ledger: Ledger::new(run as u32, plan.workload.model, args.keys),
        distribution: args.distribution.unwrap_or(plan.workload.distribution),
        workload: plan.workload.clone(),
        sizes: args.value_bytes,
        pipeline: args.pipeline as usize,
        rate: args.rate,
        workers: args.connections as usize,
        members: subject.nodes.clone(),
        intersecting,
        measured_from_us: AtomicU64::new(u64::MAX),
        until_us: AtomicU64::new(0),
        faults_on: AtomicU32::new(0),
        faults_changed: AtomicU32::new(0),
        faults_text: Mutex::new(String::new()),
        stopped: AtomicBool::new(false),
    }
}

fn setting(plan: &Plan, subject: &Subject) -> Setting {
    let args = &plan.args;
    let (least, most) = args.value_bytes;
    let distribution = args.distribution.unwrap_or(plan.workload.distribution);
    let title = args.title.clone().unwrap_or_else(|| {
        let name = args.scenario_name().map(|name| format!(", {name}")).unwrap_or_default();
        format!("{} at {}{name}", args.workload, subject.levels.0)
    });
    Setting {
        title,
        target: subject.text.clone(),
        durability: args.durability.clone().unwrap_or_else(|| subject.durability.clone()),
        workload: plan.workload.text.clone(),
        write_level: subject.levels.0.clone(),
        read_level: subject.levels.1.clone(),
        keys: u64::from(args.keys),
        distribution: distribution.to_string(),
        value_bytes: if least == most { least.to_string() } else { format!("{least} to {most}") },
        connections: args.connections,
        offered_rate: args.rate,
        warm_up_s: args.warm_up.as_secs_f64(),
        measured_s: plan.duration.as_secs_f64(),
    }
}

/// Where results go when it was not said.
pub fn default_folder() -> PathBuf {
    let time = crate::machine::now().replace(':', "-");
    PathBuf::from("bench-out").join(time)
}
