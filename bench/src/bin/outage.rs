//! What an outage costs: three real nodes under load, one of them away for a while by each means, then back.
//!
//! For each means (`kill`: kill -9; `pause`: SIGSTOP; `cut`: its network namespace is cut off, needs root) a new cluster is filled,
//! loaded, hurt and healed. Told: what was written meanwhile, how soon all is level after the return, what the nodes sent each other in
//! the background for that, what clients were told, and what a scrub finds. At the end the healthy cluster is loaded as hard as the
//! clients can: what it repaired, and what its background traffic was.
//!
//! `cargo build && cargo run -p bench --bin outage -- [--away SECONDS] [--rate PER_SECOND] [--keys N] [--only kill|pause|cut] [--wipe]`

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::cluster::{Cluster, NODES, Outcome};
use tidewater::Client;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// The node that goes away.
const VICTIM: usize = 2;
const CONNECTIONS: usize = 64;
const VALUE_BYTES: usize = 100;
/// Loaded for so long before anything happens.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long the healthy cluster is loaded as hard as it goes.
const FULL_LOAD: Duration = Duration::from_secs(20);

struct Wishes {
    away: Duration,
    rate: u64,
    keys: usize,
    only: Option<String>,
    wipe: bool,
}

impl Wishes {
    fn read() -> Self {
        let mut read = Self { away: Duration::from_secs(60), rate: 2_000, keys: 20_000, only: None, wipe: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).filter(|number| *number > 0);
            let understood = match word.as_str() {
                "--away" => number().map(|seconds| read.away = Duration::from_secs(seconds)),
                "--rate" => number().map(|rate| read.rate = rate),
                "--keys" => number().map(|keys| read.keys = keys as usize),
                "--wipe" => {
                    read.wipe = true;
                    Some(())
                }
                "--only" => {
                    read.only = words.next();
                    read.only.as_deref().filter(|only| Means::ALL.iter().any(|means| means.name() == *only)).map(|_| ())
                }
                _ => None,
            };
            if understood.is_none() {
                eprintln!(
                    "What an outage costs.\n\nusage: [--away SECONDS (default 60)] [--rate PER_SECOND (default 2000)] [--keys N \
                     (default 20000)] [--only kill|pause|cut] [--wipe: a killed node loses its disk]"
                );
                std::process::exit(if matches!(word.as_str(), "--help" | "-h") { 0 } else { 2 });
            }
        }
        read
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    Kill,
    Pause,
    Cut,
}

impl Means {
    const ALL: [Means; 3] = [Means::Kill, Means::Pause, Means::Cut];

    fn name(self) -> &'static str {
        match self {
            Means::Kill => "kill",
            Means::Pause => "pause",
            Means::Cut => "cut",
        }
    }
}

fn main() -> Outcome<()> {
    let wishes = Wishes::read();
    tokio::runtime::Runtime::new()?.block_on(run(&wishes))
}

async fn run(wishes: &Wishes) -> Outcome<()> {
    println!(
        "{NODES} nodes, all owners; {} requests/s, half SET, half GET, at quorum, {VALUE_BYTES}-byte values, {} keys; one node away for {} s",
        wishes.rate,
        wishes.keys,
        wishes.away.as_secs()
    );
    for means in Means::ALL {
        if wishes.only.as_deref().is_some_and(|only| only != means.name()) {
            continue;
        }
        // SAFETY: asks for a number.
        if means == Means::Cut && unsafe { libc::geteuid() } != 0 {
            println!("\ncut: left out, it needs root to make network namespaces");
            continue;
        }
        outage(means, wishes).await?;
    }
    Ok(())
}

async fn outage(means: Means, wishes: &Wishes) -> Outcome<()> {
    let mut cluster = Cluster::start(means == Means::Cut).await?;
    let load = Arc::new(Load::new(wishes.keys));
    load.fill(&cluster.client).await?;
    cluster.until_level().await?;

    let clients = load.start(&cluster.client, Some(wishes.rate));
    sleep(WARM_UP).await;
    let before = load.told();
    load.forget_changes();
    match means {
        Means::Kill => cluster.kill(VICTIM)?,
        Means::Pause => cluster.signal(VICTIM, libc::SIGSTOP)?,
        Means::Cut => cluster.set_link(VICTIM, "down")?,
    }
    if means == Means::Kill && wishes.wipe {
        fs::remove_dir_all(&cluster.nodes[VICTIM].store)?;
    }
    sleep(wishes.away).await;
    let told = load.told();
    load.stop(clients).await;
    let (objects, bytes) = load.changes();

    let sent = cluster.counters("background_sent_bytes_total").await;
    let began = Instant::now();
    match means {
        Means::Kill => cluster.spawn(VICTIM)?,
        Means::Pause => cluster.signal(VICTIM, libc::SIGCONT)?,
        Means::Cut => cluster.set_link(VICTIM, "up")?,
    }
    cluster.until_open(VICTIM).await?;
    let open = began.elapsed();
    cluster.until_level().await?;
    let level = began.elapsed();
    let now = cluster.counters("background_sent_bytes_total").await;
    // Who was killed began counting anew.
    let exchanged: u64 =
        now.iter().zip(&sent).map(|(now, before)| if now < before { *now } else { now - before }).sum();

    println!("\n{}{}", means.name(), if wishes.wipe && means == Means::Kill { ", disk lost" } else { "" });
    println!("  while away      {} acknowledged, {} failed", told.0 - before.0, told.1 - before.1);
    println!("  changed         {objects} objects, {bytes} bytes");
    println!("  answers after   {:.1} s", open.as_secs_f64());
    println!("  level after     {:.1} s", level.as_secs_f64());
    println!("  sent for it     {exchanged} bytes, {:.2} times the changed objects", exchanged as f64 / bytes as f64);

    let scrub = cluster.scrub().await?;
    println!(
        "  scrub           {} partitions, {} rows compared, {} skipped, {} findings",
        scrub.partitions_done, scrub.rows, scrub.skipped, scrub.findings
    );

    let repairs = cluster.total("read_repairs_total").await;
    let background = cluster.total("background_sent_bytes_total").await;
    let foreground = cluster.total("foreground_sent_bytes_total").await;
    let (before, began) = (load.told(), Instant::now());
    let clients = load.start(&cluster.client, None);
    sleep(FULL_LOAD).await;
    let told = load.told();
    let rate = (told.0 - before.0) as f64 / began.elapsed().as_secs_f64();
    load.stop(clients).await;
    let repairs = cluster.total("read_repairs_total").await - repairs;
    let background = cluster.total("background_sent_bytes_total").await - background;
    let foreground = cluster.total("foreground_sent_bytes_total").await - foreground;
    let share = 100.0 * background as f64 / (foreground + background) as f64;
    println!("  then, all up    {rate:.0}/s from {CONNECTIONS} callers, {} failed", told.1 - before.1);
    println!(
        "                  {repairs} read repairs, {share:.1} % of the bytes between nodes were background traffic"
    );
    cluster.until_level().await
}

/// What the clients do and were told.
struct Load {
    keys: usize,
    changed: Vec<AtomicBool>,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    stopped: AtomicBool,
}

impl Load {
    fn new(keys: usize) -> Self {
        Self {
            keys,
            changed: (0..keys).map(|_| AtomicBool::new(false)).collect(),
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    fn key(at: usize) -> String {
        format!("key:{at:08}")
    }

    async fn fill(self: &Arc<Self>, client: &Client) -> Outcome<()> {
        let mut writers = JoinSet::new();
        for first in 0..CONNECTIONS {
            let (load, client) = (self.clone(), client.clone());
            writers.spawn(async move {
                for at in (first..load.keys).step_by(CONNECTIONS) {
                    client.set(Self::key(at), vec![b'.'; VALUE_BYTES]).await?;
                }
                Ok::<(), tidewater::ClientError>(())
            });
        }
        while let Some(written) = writers.join_next().await {
            written??;
        }
        Ok(())
    }

    /// `rate`: requests a second altogether; `None`: as many as are answered.
    fn start(self: &Arc<Self>, client: &Client, rate: Option<u64>) -> JoinSet<()> {
        self.stopped.store(false, Ordering::Relaxed);
        let mut callers = JoinSet::new();
        for number in 0..CONNECTIONS {
            let (load, client) = (self.clone(), client.within(Duration::from_secs(10)));
            let every = rate.map(|rate| Duration::from_secs(1) * CONNECTIONS as u32 / rate as u32);
            callers.spawn(async move { load.call(&client, number, every).await });
        }
        callers
    }

    async fn call(&self, client: &Client, number: usize, every: Option<Duration>) {
        let mut ticks = every.map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        });
        // A multiplicative generator is random enough to choose keys.
        let mut state = number as u64 + 1;
        while !self.stopped.load(Ordering::Relaxed) {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let at = (state >> 33) as usize % self.keys;
            let done = if state >> 63 == 0 {
                let done = client.set(Self::key(at), format!("{state:0>VALUE_BYTES$}")).await.is_ok();
                self.changed[at].store(true, Ordering::Relaxed);
                done
            } else {
                client.get(Self::key(at)).await.is_ok()
            };
            let count = if done { &self.acknowledged } else { &self.failed };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn stop(&self, mut callers: JoinSet<()>) {
        self.stopped.store(true, Ordering::Relaxed);
        while callers.join_next().await.is_some() {}
    }

    /// Acknowledged and failed, so far.
    fn told(&self) -> (u64, u64) {
        (self.acknowledged.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    fn forget_changes(&self) {
        self.changed.iter().for_each(|changed| changed.store(false, Ordering::Relaxed));
    }

    /// Objects that were written since, and the bytes of their keys and values.
    fn changes(&self) -> (u64, u64) {
        let count = self.changed.iter().filter(|changed| changed.load(Ordering::Relaxed)).count() as u64;
        (count, count * (Self::key(0).len() + VALUE_BYTES) as u64)
    }
}
