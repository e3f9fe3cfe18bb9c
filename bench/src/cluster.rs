//! A cluster of real nodes, each a process of its own, to be hurt and healed.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewater::cli::connect;
use tidewater::cli::local::{LocalCluster, Wish};
use tidewater::cli::status::Census;
use tidewater::wire::status::ScrubStatus;
use tidewater::{Client, ClientOptions};
use tokio::time::{sleep, timeout};

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

pub const NODES: u16 = 3;
const LEVEL_WITHIN: Duration = Duration::from_secs(120);

/// What a cluster is made with.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub nodes: u16,
    pub replicas: u8,
    /// The first of three ports per node.
    pub first_port: u16,
    /// Each node in a network namespace of its own.
    pub apart: bool,
    /// Nodes take orders to hurt themselves.
    pub allow_faults: bool,
}

/// A node's process and its files.
pub struct Node {
    pub name: String,
    /// `host:port` of its RESP door.
    pub resp: String,
    config: PathBuf,
    pub store: PathBuf,
    log: PathBuf,
    /// Its network namespace.
    namespace: Option<String>,
    child: Option<Child>,
}

/// Running nodes, each a process, and a client of theirs. Gone when this is dropped.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub client: Client,
    pub options: ClientOptions,
    program: PathBuf,
    _namespaces: Option<Namespaces>,
    _folder: TempDir,
}

impl Cluster {
    /// Three running nodes; each in a network namespace of its own if `apart`.
    pub async fn start(apart: bool) -> Outcome<Self> {
        Self::start_as(Wanted { nodes: NODES, replicas: 3, first_port: 17_000, apart, allow_faults: false }).await
    }

    pub async fn start_as(wanted: Wanted) -> Outcome<Self> {
        let Wanted { nodes: count, first_port: first, apart, .. } = wanted;
        let program = std::env::current_exe()?.with_file_name("tidewater");
        if !program.exists() {
            return Err(format!("{} is missing: `cargo build` makes it", program.display()).into());
        }
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let wish = Wish {
            nodes: Some(count),
            replicas: Some(wanted.replicas),
            resp_port: Some(first),
            quic_port: Some(first),
            http_port: Some(first + count),
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
            if wanted.allow_faults {
                let settings = fs::read_to_string(&node.config)?;
                fs::write(&node.config, format!("allow_faults = true\n{settings}"))?;
            }
            let namespace = apart.then(|| Namespaces::name(at));
            let (config, store, log) = (node.config.clone(), node.store.clone(), node.log.clone());
            let (name, resp) = (node.name.clone(), node.resp.clone());
            nodes.push(Node { name, resp, config, store, log, namespace, child: None });
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
        let cluster = Self { nodes, client, options, program, _namespaces: namespaces, _folder: folder };
        cluster.until_level().await?;
        Ok(cluster)
    }

    pub fn spawn(&mut self, at: usize) -> Outcome<()> {
        self.nodes[at].spawn(&self.program)
    }

    pub fn kill(&mut self, at: usize) -> Outcome<()> {
        if let Some(mut child) = self.nodes[at].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// The same without holding up anybody else; by force after half a minute.
    pub async fn stop_gently(&mut self, at: usize) -> Outcome<()> {
        self.signal(at, libc::SIGTERM)?;
        let began = Instant::now();
        while let Some(child) = &mut self.nodes[at].child
            && child.try_wait()?.is_none()
        {
            if began.elapsed() > Duration::from_secs(30) {
                return self.kill(at);
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.nodes[at].child = None;
        Ok(())
    }

    /// The processes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref().map(Child::id)).collect()
    }

    /// Asks a node to stop in order, and waits for it.
    pub fn stop(&mut self, at: usize) -> Outcome<()> {
        self.signal(at, libc::SIGTERM)?;
        if let Some(mut child) = self.nodes[at].child.take() {
            child.wait()?;
        }
        Ok(())
    }

    pub fn signal(&self, at: usize, signal: libc::c_int) -> Outcome<()> {
        let child = self.nodes[at].child.as_ref().ok_or("it does not run")?;
        // SAFETY: kill takes two integers; the process is a child of ours that has not been waited for.
        match unsafe { libc::kill(child.id() as libc::pid_t, signal) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }

    pub fn set_link(&self, at: usize, state: &str) -> Outcome<()> {
        ip(&format!("link set {} {state}", Namespaces::link(at)))
    }

    pub async fn until_open(&self, at: usize) -> Outcome<()> {
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

    pub async fn until_level(&self) -> Outcome<()> {
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
    pub async fn counters(&self, name: &str) -> Vec<u64> {
        let census = Census::take(&self.client, Duration::from_secs(1)).await;
        let of = |status: &Result<tidewater::wire::status::NodeStatus, String>| {
            status.as_ref().ok().and_then(|status| status.counters.get(name).copied()).unwrap_or(0)
        };
        census.nodes.iter().map(|(_, status)| of(status)).collect()
    }

    pub async fn total(&self, name: &str) -> u64 {
        self.counters(name).await.iter().sum()
    }

    /// Makes every node compare all it has with the others. What came of it, over all nodes.
    pub async fn scrub(&self) -> Outcome<ScrubStatus> {
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

    pub fn last_words(&self) -> String {
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
