//! What an outage costs: three real nodes under load, one of them away for a while by each means, then back.
//!
//! For each means (`kill`: kill -9; `pause`: SIGSTOP; `cut`: its network namespace is cut off, needs root) a new cluster is filled,
//! loaded, hurt and healed. Told: what was written meanwhile, how soon all is level after the return, what the nodes sent each other in
//! the background for that, what clients were told, and what a scrub finds. At the end the healthy cluster is loaded as hard as the
//! clients can: what it repaired, and what its background traffic was.
//!
//! `cargo build && cargo run -p bench --bin outage -- [--away SECONDS] [--rate PER_SECOND] [--keys N] [--only kill|pause|cut] [--wipe]`

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewater::cli::connect;
use tidewater::cli::local::{LocalCluster, Wish};
use tidewater::cli::status::Census;
use tidewater::wire::status::ScrubStatus;
use tidewater::{Client, ClientOptions};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const NODES: u16 = 3;
/// The node that goes away.
const VICTIM: usize = 2;
const CONNECTIONS: usize = 64;
const VALUE_BYTES: usize = 100;
/// Loaded for so long before anything happens.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long the healthy cluster is loaded as hard as it goes.
const FULL_LOAD: Duration = Duration::from_secs(20);
const LEVEL_WITHIN: Duration = Duration::from_secs(120);

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

struct Node {
    config: PathBuf,
    store: PathBuf,
    log: PathBuf,
    /// Its network namespace.
    namespace: Option<String>,
    child: Option<Child>,
}

struct Cluster {
    nodes: Vec<Node>,
    client: Client,
    program: PathBuf,
    _namespaces: Option<Namespaces>,
    _folder: TempDir,
}

impl Cluster {
    /// Running nodes; each in a network namespace of its own if `apart`.
    async fn start(apart: bool) -> Outcome<Self> {
        let program = std::env::current_exe()?.with_file_name("tidewater");
        if !program.exists() {
            return Err(format!("{} is missing: `cargo build` makes it", program.display()).into());
        }
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let first = 17_000;
        let wish = Wish {
            nodes: Some(NODES),
            resp_port: Some(first),
            quic_port: Some(first),
            http_port: Some(first + NODES),
            ..Wish::default()
        };
        let local = LocalCluster::open(&data, &wish, program.clone())?;
        let mut seeds = local.addresses();
        let identity = connect::identity(&local.tls_dir())?;
        let namespaces = if apart { Some(Namespaces::make()?) } else { None };
        let mut nodes = Vec::new();
        for (at, node) in local.nodes().iter().enumerate() {
            if apart {
                let moved = Namespaces::move_addresses(&fs::read_to_string(&node.config)?, first);
                // Nobody else is in this network.
                let moved = moved.replace("[resp]\n", "[resp]\nopen = true\n");
                fs::write(&node.config, moved)?;
                seeds[at] = Namespaces::move_addresses(&seeds[at], first);
            }
            let namespace = apart.then(|| Namespaces::name(at));
            let (config, store, log) = (node.config.clone(), node.store.clone(), node.log.clone());
            nodes.push(Node { config, store, log, namespace, child: None });
        }
        // It would stop the nodes that it knows, and knows none.
        drop(local);
        for node in &mut nodes {
            node.spawn(&program)?;
        }
        let options = ClientOptions::new(seeds, identity);
        let began = Instant::now();
        let client = loop {
            match Client::connect(options.clone()).await {
                Ok(client) => break client,
                Err(error) if began.elapsed() > Duration::from_secs(20) => {
                    return Err(format!("{error}\n{}", nodes[0].last_words()).into());
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        let cluster = Self { nodes, client, program, _namespaces: namespaces, _folder: folder };
        cluster.until_level().await?;
        Ok(cluster)
    }

    fn spawn(&mut self, at: usize) -> Outcome<()> {
        self.nodes[at].spawn(&self.program)
    }

    fn kill(&mut self, at: usize) -> Outcome<()> {
        if let Some(mut child) = self.nodes[at].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn signal(&self, at: usize, signal: libc::c_int) -> Outcome<()> {
        let child = self.nodes[at].child.as_ref().ok_or("it does not run")?;
        // SAFETY: kill takes two integers; the process is a child of ours that has not been waited for.
        match unsafe { libc::kill(child.id() as libc::pid_t, signal) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }

    fn set_link(&self, at: usize, state: &str) -> Outcome<()> {
        ip(&format!("link set {} {state}", Namespaces::link(at)))
    }

    async fn until_open(&self, at: usize) -> Outcome<()> {
        let began = Instant::now();
        loop {
            let census = Census::take(&self.client, Duration::from_millis(300)).await;
            if census.nodes[at].1.is_ok() {
                return Ok(());
            }
            if began.elapsed() > LEVEL_WITHIN {
                return Err(format!("node {} does not answer:\n{}", at + 1, self.nodes[at].last_words()).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_level(&self) -> Outcome<()> {
        let began = Instant::now();
        loop {
            let census = Census::take(&self.client, Duration::from_secs(1)).await;
            if census.is_level() {
                return Ok(());
            }
            if began.elapsed() > LEVEL_WITHIN {
                return Err(format!("not level after {LEVEL_WITHIN:?}:\n{}", census.text()).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Of each node; 0 of one that does not answer.
    async fn counters(&self, name: &str) -> Vec<u64> {
        let census = Census::take(&self.client, Duration::from_secs(1)).await;
        let of = |status: &Result<tidewater::wire::status::NodeStatus, String>| {
            status.as_ref().ok().and_then(|status| status.counters.get(name).copied()).unwrap_or(0)
        };
        census.nodes.iter().map(|(_, status)| of(status)).collect()
    }

    async fn total(&self, name: &str) -> u64 {
        self.counters(name).await.iter().sum()
    }

    /// Makes every node compare all it has with the others. What came of it, over all nodes.
    async fn scrub(&self) -> Outcome<ScrubStatus> {
        let (layout, _) = self.client.layout();
        for member in &layout.members {
            self.client.scrub(member.id).await?;
        }
        let done = async {
            loop {
                let census = Census::take(&self.client, Duration::from_secs(1)).await;
                let told: Vec<_> = census.nodes.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
                if told.len() == self.nodes.len() && told.iter().all(|status| !status.scrub.running) {
                    return told.iter().fold(ScrubStatus::default(), |sum, status| ScrubStatus {
                        partitions_done: sum.partitions_done + status.scrub.partitions_done,
                        skipped: sum.skipped + status.scrub.skipped,
                        rows: sum.rows + status.scrub.rows,
                        findings: sum.findings + status.scrub.findings,
                        ..sum
                    });
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        Ok(timeout(LEVEL_WITHIN, done).await.map_err(|_| "the scrub did not end")?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.nodes.len() {
            let _ = self.kill(at);
        }
    }
}

impl Node {
    fn spawn(&mut self, program: &Path) -> Outcome<()> {
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                // `ip netns exec` becomes the program: its process is the node.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
        };
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.arg("node").arg("--config").arg(&self.config);
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// One for each node, all on one bridge. Needs root and iproute2. Gone when this is dropped.
struct Namespaces;

impl Namespaces {
    const BRIDGE: &'static str = "twoutage";
    const NET: &'static str = "10.213.77";

    fn name(at: usize) -> String {
        format!("tidewater-outage-{}", at + 1)
    }

    /// The end of a node's wire that is in the bridge.
    fn link(at: usize) -> String {
        format!("twoutage{}", at + 1)
    }

    /// The address of the node whose port it is, instead of this machine's.
    fn move_addresses(text: &str, first: u16) -> String {
        let mut text = text.to_owned();
        for at in 0..NODES {
            for port in [first + at, first + NODES + at] {
                text = text.replace(&format!("127.0.0.1:{port}"), &format!("{}.{}:{port}", Self::NET, at + 1));
            }
        }
        text
    }

    fn make() -> Outcome<Self> {
        // What an earlier run left that was killed.
        Self::unmake();
        let made = Self;
        let (bridge, net) = (Self::BRIDGE, Self::NET);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {net}.254/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for at in 0..usize::from(NODES) {
            let (name, link, number) = (Self::name(at), Self::link(at), at + 1);
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {link} master {bridge} up"))?;
            ip(&format!("-n {name} addr add {net}.{number}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(made)
    }

    fn unmake() {
        for at in 0..usize::from(NODES) {
            let _ = ip(&format!("netns del {}", Self::name(at)));
            let _ = ip(&format!("link del {}", Self::link(at)));
        }
        let _ = ip(&format!("link del {}", Self::BRIDGE));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        Self::unmake();
    }
}

fn ip(words: &str) -> Outcome<()> {
    let done = Command::new("ip").args(words.split(' ')).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim()).into())
}
