//! A cluster of real node processes on this machine, for `dev` and `demo`: its folder, its processes, its end.
//!
//! ```text
//!  DIR/dev.toml           what the cluster was made with; written first, so that an interrupted making goes on
//!  DIR/dev.lock           held by the one that watches the nodes
//!  DIR/tls/               ca.crt ca.key client.crt client.key
//!  DIR/nK/node.toml       made once, yours to change but for the layout
//!  DIR/nK/node.log        what the node said; the one before: node.log.1
//!  DIR/nK/store/          the node's data, with node.pid while it is open
//! ```
//!
//! 1. What was written once is not changed: other numbers of nodes, ports, replicas or zones are refused.
//! 2. Signals go only to processes that this cluster started or found open on its own folders, by id and beginning.
//! 3. Each node is a process group of its own: Ctrl-C in the terminal reaches the watcher alone, which stops them in order.
//! 4. A node that ended stays down until somebody starts it again; whoever did, the watcher sees and watches it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::net::tls::Role;

use super::CliError;
use super::process::{FolderLock, ProcessId, ReadyFile, Signal, last_lines};
use super::tls::{Bearer, create_authority, issue_certificate, open_authority};

const POLL: Duration = Duration::from_millis(50);
/// A log longer than this is put aside when its node starts.
const LOG_BYTES_MAX: u64 = 16 << 20;
const CERTIFICATE_DAYS: u32 = 3_650;
const CLUSTER: &str = "dev";

/// What a cluster is made with. On disk: `dev.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub nodes: u16,
    /// Ports of the first node; the others count up.
    pub resp_port: u16,
    pub quic_port: u16,
    pub http_port: u16,
    pub replicas: u8,
    pub zones: u16,
}

/// What is wished of a plan; `None`: whatever it has.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub nodes: Option<u16>,
    pub resp_port: Option<u16>,
    pub quic_port: Option<u16>,
    pub http_port: Option<u16>,
    pub replicas: Option<u8>,
    pub zones: Option<u16>,
    /// The nodes that are started take orders for faults. Not part of the plan: the next time it may be otherwise.
    pub allow_faults: bool,
}

/// One node of the cluster.
#[derive(Debug)]
pub struct LocalNode {
    /// From 1.
    pub number: u16,
    pub name: String,
    pub config: PathBuf,
    /// The node's own data folder.
    pub store: PathBuf,
    pub log: PathBuf,
    /// `host:port` of each door.
    pub resp: String,
    pub quic: String,
    pub http: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Down,
    Child(Box<Child>, ProcessId),
    /// Started by somebody else on our folder.
    Found(ProcessId),
}

/// Something that happened to a node without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalEvent {
    Ended { number: u16, name: String, how: String, log_tail: Vec<String> },
    Back { name: String, pid: u32 },
}

/// The folder, and the processes that run on it.
#[derive(Debug)]
pub struct LocalCluster {
    pub data: PathBuf,
    pub plan: Plan,
    pub allow_faults: bool,
    program: PathBuf,
    nodes: Vec<LocalNode>,
    _lock: FolderLock,
}

impl LocalCluster {
    /// Opens the cluster in `data`, making what is not there yet: plan, certificates, settings. Starts nothing; nodes that run
    /// already are found. `program` is the binary to run as a node.
    pub fn open(data: &Path, wish: &Wish, program: PathBuf) -> Result<Self, CliError> {
        let stored = stored_plan(data)?;
        let plan = match &stored {
            Some(plan) => plan.agreeing(wish, data)?,
            None => Plan::new(wish)?,
        };
        plan.check()?;
        if stored.is_none() {
            refuse_foreign_folder(data)?;
        }
        fs::create_dir_all(data).map_err(CliError::io(format!("cannot make the folder {}", data.display())))?;
        let lock_path = data.join("dev.lock");
        let lock = FolderLock::take(&lock_path).map_err(CliError::io(lock_path.display().to_string()))?;
        let lock = lock.ok_or_else(|| {
            let data = data.display();
            CliError::failed(format!(
                "another `tidewater dev` watches {data} already: stop it with Ctrl-C, or give another --data (and ports)"
            ))
        })?;
        if stored.is_none() {
            let text = toml::to_string(&plan).map_err(|error| CliError::failed(format!("dev.toml: {error}")))?;
            write_whole(&data.join("dev.toml"), &text)?;
        }
        make_certificates(data, &plan)?;
        make_settings(data, &plan)?;
        let nodes = plan.local_nodes(data);
        let mut cluster =
            Self { data: data.to_owned(), plan, allow_faults: wish.allow_faults, program, nodes, _lock: lock };
        cluster.poll();
        Ok(cluster)
    }

    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// The QUIC addresses, for clients.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.quic.clone()).collect()
    }

    /// The client's certificate is here.
    pub fn tls_dir(&self) -> PathBuf {
        self.data.join("tls")
    }

    /// Starts every node that is down and waits until all are open. On an error what was started is still running.
    pub async fn start_all(&mut self, ready_timeout: Duration) -> Result<(), CliError> {
        self.check_ports()?;
        let down: Vec<u16> = self.nodes.iter().filter(|node| node.pid().is_none()).map(|node| node.number).collect();
        for number in &down {
            self.spawn(*number)?;
        }
        self.wait_ready(&down, ready_timeout).await
    }

    /// Starts one node and waits until it is open.
    pub async fn start(&mut self, number: u16, ready_timeout: Duration) -> Result<(), CliError> {
        self.poll();
        if let Some(pid) = self.node(number)?.pid() {
            return Err(CliError::failed(format!("n{number} runs already (pid {pid})")));
        }
        self.spawn(number)?;
        self.wait_ready(&[number], ready_timeout).await
    }

    /// Tells one node. It is reported as ended by [`poll`](Self::poll) once it is.
    pub fn signal(&self, number: u16, signal: Signal) -> Result<(), CliError> {
        match self.node(number)?.process() {
            Some(process) => process.signal(signal).map_err(CliError::io(format!("cannot signal n{number}"))),
            None => Ok(()),
        }
    }

    /// Looks at every process once: who has ended, who is back.
    pub fn poll(&mut self) -> Vec<LocalEvent> {
        self.nodes.iter_mut().filter_map(LocalNode::poll).collect()
    }

    /// Is any of them running?
    pub fn is_running(&self) -> bool {
        self.nodes.iter().any(|node| node.pid().is_some())
    }

    /// Stops all nodes in order, and by force those that are not gone after `grace`; gives the names of these.
    pub async fn stop_all(&mut self, grace: Duration) -> Vec<String> {
        self.signal_all(Signal::Terminate);
        if self.wait_down(grace).await {
            return Vec::new();
        }
        let late = self.nodes.iter().filter(|node| node.pid().is_some()).map(|node| node.name.clone()).collect();
        self.signal_all(Signal::Kill);
        // A killed process ends unless the kernel holds it; then nobody can do more.
        self.wait_down(Duration::from_secs(10)).await;
        late
    }

    fn signal_all(&mut self, signal: Signal) {
        self.poll();
        for process in self.nodes.iter().filter_map(LocalNode::process) {
            // What cannot be signalled is found to be alive after the grace, and told.
            let _ = process.signal(signal);
        }
    }

    async fn wait_down(&mut self, longest: Duration) -> bool {
        let wait = async {
            while self.is_running() {
                self.poll();
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(longest, wait).await.is_ok()
    }

    fn node(&self, number: u16) -> Result<&LocalNode, CliError> {
        let at = usize::from(number).checked_sub(1);
        at.and_then(|at| self.nodes.get(at)).ok_or_else(|| no_such_node(number, self.plan.nodes))
    }

    fn spawn(&mut self, number: u16) -> Result<(), CliError> {
        self.node(number)?;
        let node = &mut self.nodes[usize::from(number) - 1];
        let (child, process) = node.spawn(&self.program, self.allow_faults)?;
        node.state = State::Child(Box::new(child), process);
        Ok(())
    }

    async fn wait_ready(&mut self, numbers: &[u16], longest: Duration) -> Result<(), CliError> {
        let wait = async {
            loop {
                for event in self.poll() {
                    if let LocalEvent::Ended { name, how, log_tail, number } = event
                        && numbers.contains(&number)
                    {
                        let log = self.node(number)?.log.display().to_string();
                        return Err(not_started(&name, &how, &log, &log_tail));
                    }
                }
                let mut asked = self.nodes.iter().filter(|node| numbers.contains(&node.number));
                if asked.all(LocalNode::is_open) {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        if let Ok(result) = tokio::time::timeout(longest, wait).await {
            return result;
        }
        let late: Vec<&LocalNode> =
            self.nodes.iter().filter(|node| numbers.contains(&node.number) && !node.is_open()).collect();
        let mut message = format!("not ready after {} s:", longest.as_secs());
        for node in late {
            let _ = write!(message, "\n  {}, whose log {} ends in:", node.name, node.log.display());
            indent(&mut message, &last_lines(&node.log, 5));
        }
        Err(CliError::failed(message))
    }

    fn check_ports(&self) -> Result<(), CliError> {
        for node in self.nodes.iter().filter(|node| node.pid().is_none()) {
            let plan = &self.plan;
            let offset = node.number - 1;
            let tcp = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
            let udp = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
            for (door, flag, port, result) in [
                ("RESP", "--resp-port", plan.resp_port + offset, tcp(plan.resp_port + offset)),
                ("QUIC", "--quic-port", plan.quic_port + offset, udp(plan.quic_port + offset)),
                ("HTTP", "--http-port", plan.http_port + offset, tcp(plan.http_port + offset)),
            ] {
                if let Err(error) = result {
                    return Err(CliError::failed(format!(
                        "port {port} ({door} of {}) cannot be used: {error}\nFree it, or make a cluster elsewhere: {flag} PORT \
                         --data DIR",
                        node.name
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Drop for LocalCluster {
    /// Nobody watches any longer: what we started is told to stop. [`LocalCluster::stop_all`] also waits.
    fn drop(&mut self) {
        for node in &self.nodes {
            if let State::Child(_, process) = &node.state {
                let _ = process.signal(Signal::Terminate);
            }
        }
    }
}

impl LocalNode {
    pub fn pid(&self) -> Option<u32> {
        self.process().map(|process| process.pid)
    }

    /// Are its doors open?
    pub fn is_open(&self) -> bool {
        self.process().is_some() && ReadyFile::read(&self.store) == self.process()
    }

    fn process(&self) -> Option<ProcessId> {
        match &self.state {
            State::Down => None,
            State::Child(_, process) | State::Found(process) => Some(*process),
        }
    }

    fn poll(&mut self) -> Option<LocalEvent> {
        let how = match &mut self.state {
            State::Down => {
                let process = ReadyFile::read(&self.store)?;
                self.state = State::Found(process);
                return Some(LocalEvent::Back { name: self.name.clone(), pid: process.pid });
            }
            State::Child(child, _) => match child.try_wait() {
                Ok(None) => return None,
                Ok(Some(status)) => told(status),
                Err(error) => format!("cannot be watched: {error}"),
            },
            State::Found(process) if process.is_alive() => return None,
            State::Found(_) => "ended".into(),
        };
        self.state = State::Down;
        let log_tail = last_lines(&self.log, 5);
        Some(LocalEvent::Ended { number: self.number, name: self.name.clone(), how, log_tail })
    }

    fn spawn(&self, program: &Path, allow_faults: bool) -> Result<(Child, ProcessId), CliError> {
        let log_error = || CliError::io(format!("cannot write the log {}", self.log.display()));
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&self.log, self.log.with_extension("log.1")).map_err(log_error())?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).map_err(log_error())?;
        let mut command = Command::new(program);
        command.arg("node").arg("--config").arg(&self.config);
        if allow_faults {
            command.arg("--allow-faults");
        }
        // What is meant for our own verb would set the same for all nodes.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("TIDEWATER_") {
                command.env_remove(variable);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(log_error())?).stderr(log).process_group(0);
        let child = command.spawn().map_err(CliError::io(format!("cannot run {}", program.display())))?;
        // Not yet waited for, so the id is its own; a child that is dead already has no entry and no signals to get.
        let pid = child.id().unwrap_or(0);
        let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
        Ok((child, process))
    }
}

impl Plan {
    fn new(wish: &Wish) -> Result<Self, CliError> {
        let nodes = wish.nodes.unwrap_or(3);
        let most = u8::try_from(nodes).unwrap_or(u8::MAX);
        let plan = Self {
            nodes,
            resp_port: wish.resp_port.unwrap_or(7001),
            quic_port: wish.quic_port.unwrap_or(9001),
            http_port: wish.http_port.unwrap_or(8001),
            replicas: wish.replicas.unwrap_or(3.min(most)),
            zones: wish.zones.unwrap_or(1),
        };
        Ok(plan)
    }

    /// This plan, if it is what is wished for.
    fn agreeing(&self, wish: &Wish, data: &Path) -> Result<Self, CliError> {
        let differs = |wished: Option<u16>, made: u16| wished.is_some_and(|wished| wished != made);
        let differences: Vec<String> = [
            ("--nodes", differs(wish.nodes, self.nodes), self.nodes),
            ("--resp-port", differs(wish.resp_port, self.resp_port), self.resp_port),
            ("--quic-port", differs(wish.quic_port, self.quic_port), self.quic_port),
            ("--http-port", differs(wish.http_port, self.http_port), self.http_port),
            ("--replicas", differs(wish.replicas.map(u16::from), self.replicas.into()), self.replicas.into()),
            ("--zones", differs(wish.zones, self.zones), self.zones),
        ]
        .into_iter()
        .filter(|(_, differs, _)| *differs)
        .map(|(flag, _, made)| format!("{flag} {made}"))
        .collect();
        if differences.is_empty() {
            return Ok(self.clone());
        }
        let (data, made) = (data.display(), differences.join(" "));
        Err(CliError::usage(format!(
            "the cluster in {data} was made with {made}, and its layout is fixed: leave that out, give another --data, or remove \
             {data} with all that it holds"
        )))
    }

    fn check(&self) -> Result<(), CliError> {
        let refuse = |message: String| Err(CliError::usage(message));
        if self.nodes == 0 || self.nodes > 64 {
            return refuse(format!("--nodes {}: use 1 to 64", self.nodes));
        }
        if self.replicas == 0 || self.replicas > 7 || u16::from(self.replicas) > self.nodes {
            return refuse(format!("--replicas {}: use 1 to {}", self.replicas, self.nodes.min(7)));
        }
        if self.zones == 0 || self.zones > self.nodes {
            return refuse(format!("--zones {}: use 1 to {}, the number of nodes", self.zones, self.nodes));
        }
        let ports = [("--resp-port", self.resp_port), ("--quic-port", self.quic_port), ("--http-port", self.http_port)];
        for (flag, port) in ports {
            if port == 0 || port.checked_add(self.nodes - 1).is_none() {
                let most = u16::MAX - (self.nodes - 1);
                return refuse(format!("{flag} {port}: with {} nodes use 1 to {most}", self.nodes));
            }
        }
        if self.resp_port.abs_diff(self.http_port) < self.nodes {
            let (resp, http, nodes) = (self.resp_port, self.http_port, self.nodes);
            return refuse(format!(
                "--resp-port {resp} and --http-port {http} overlap: {nodes} nodes need {nodes} ports of each"
            ));
        }
        Ok(())
    }

    fn local_nodes(&self, data: &Path) -> Vec<LocalNode> {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let node = |number: u16| {
            let name = format!("n{number}");
            let folder = data.join(&name);
            LocalNode {
                number,
                config: folder.join("node.toml"),
                store: folder.join("store"),
                log: folder.join("node.log"),
                resp: address(self.resp_port + number - 1),
                quic: address(self.quic_port + number - 1),
                http: address(self.http_port + number - 1),
                state: State::Down,
                name,
            }
        };
        (1..=self.nodes).map(node).collect()
    }

    fn node_toml(&self, node: &LocalNode, nodes: &[LocalNode]) -> String {
        let LocalNode { name, resp, quic, http, .. } = node;
        // They share this machine.
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
        let threads = (cpus / usize::from(self.nodes)).max(1);
        let mut text = format!(
            "# Made by `tidewater dev`. Yours to change but for the layout, which all nodes share.\n\
             # deploy/node.toml tells every setting.\n\n\
             cluster = \"{CLUSTER}\"\nname = \"{name}\"\ndata = \"store\"\nmemory = \"128MiB\"\nthreads = {threads}\n\n\
             [quic]\nlisten = \"{quic}\"\n\n[resp]\nlisten = \"{resp}\"\n\n[http]\nlisten = \"{http}\"\n\n\
             [tls]\nauthority = \"ca.crt\"\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\n\n\
             [layout]\nreplicas = {}\n",
            self.replicas
        );
        for member in nodes {
            let zone = (member.number - 1) % self.zones + 1;
            let LocalNode { name, resp, quic, http, .. } = member;
            let _ = write!(
                text,
                "\n[[layout.members]]\nname = \"{name}\"\nzone = \"z{zone}\"\nquic = \"{quic}\"\nresp = \"{resp}\"\nhttp = \
                 \"{http}\"\n"
            );
        }
        text
    }
}

/// The command that starts a node that is down, for people.
pub fn restart_command(data: &Path, number: u16, allow_faults: bool) -> String {
    let faults = if allow_faults { " --allow-faults" } else { "" };
    match data == Path::new("./tidewater-data") {
        true => format!("tidewater dev --restart {number}{faults}"),
        false => format!("tidewater dev --data {} --restart {number}{faults}", data.display()),
    }
}

/// Starts node `number` of the cluster in `data` beside whoever watches it, and waits until it is open; gives its process id.
pub async fn restart(
    data: &Path,
    number: u16,
    program: &Path,
    allow_faults: bool,
    longest: Duration,
) -> Result<u32, CliError> {
    let plan = stored_plan(data)?.ok_or_else(|| {
        CliError::failed(format!("{} holds no cluster made by `tidewater dev`: is --data right?", data.display()))
    })?;
    plan.check()?;
    let at = usize::from(number).checked_sub(1).filter(|at| *at < usize::from(plan.nodes));
    let at = at.ok_or_else(|| no_such_node(number, plan.nodes))?;
    let node = plan.local_nodes(data).swap_remove(at);
    if let Some(process) = ReadyFile::read(&node.store) {
        return Err(CliError::failed(format!("{} runs already (pid {})", node.name, process.pid)));
    }
    let (mut child, process) = node.spawn(program, allow_faults)?;
    let wait = async {
        loop {
            match child.try_wait() {
                Ok(None) if ReadyFile::read(&node.store) == Some(process) => return Ok(process.pid),
                Ok(None) => tokio::time::sleep(POLL).await,
                Ok(Some(status)) => {
                    let log = node.log.display().to_string();
                    return Err(not_started(&node.name, &told(status), &log, &last_lines(&node.log, 5)));
                }
                Err(error) => return Err(CliError::Io { what: format!("{} cannot be watched", node.name), error }),
            }
        }
    };
    tokio::time::timeout(longest, wait).await.unwrap_or_else(|_| {
        let mut message =
            format!("{} (pid {}) runs and is not ready after {} s:", node.name, process.pid, longest.as_secs());
        indent(&mut message, &last_lines(&node.log, 5));
        Err(CliError::failed(message))
    })
}

fn stored_plan(data: &Path) -> Result<Option<Plan>, CliError> {
    let path = data.join("dev.toml");
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .map_err(|error| CliError::failed(format!("{} is damaged: {}", path.display(), error.message()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::Io { what: path.display().to_string(), error }),
    }
}

/// A folder with other people's things in it is left alone.
fn refuse_foreign_folder(data: &Path) -> Result<(), CliError> {
    let mut entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CliError::Io { what: format!("the folder {}", data.display()), error }),
    };
    let is_ours = |entry: &io::Result<fs::DirEntry>| {
        entry.as_ref().is_ok_and(|entry| ["dev.lock", "dev.toml.new"].iter().any(|name| entry.file_name() == *name))
    };
    match entries.find(|entry| !is_ours(entry)) {
        None => Ok(()),
        Some(_) => Err(CliError::usage(format!(
            "{} is not empty and was not made by `tidewater dev`: give another --data",
            data.display()
        ))),
    }
}

fn make_certificates(data: &Path, plan: &Plan) -> Result<(), CliError> {
    let folder = data.join("tls");
    let is_whole = folder.join("ca.crt").exists() && folder.join("ca.key").exists();
    let authority = if is_whole {
        open_authority(&folder)?
    } else {
        // Half an authority is left of a making that was interrupted before anything could be issued.
        let _ = fs::remove_file(folder.join("ca.key"));
        create_authority(&folder, CLUSTER, CERTIFICATE_DAYS)?
    };
    let hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let issue = |out: &Path, name: &str, role: Role| {
        let is_whole = out.join(format!("{name}.crt")).exists() && out.join(format!("{name}.key")).exists();
        let hosts = if role == Role::Node { &hosts[..] } else { &[] };
        let bearer = Bearer { name, role, hosts, days: CERTIFICATE_DAYS };
        if is_whole { Ok(()) } else { issue_certificate(&authority, out, bearer, true) }
    };
    issue(&folder, "client", Role::Client)?;
    for number in 1..=plan.nodes {
        let name = format!("n{number}");
        issue(&data.join(&name), &name, Role::Node)?;
    }
    Ok(())
}

fn make_settings(data: &Path, plan: &Plan) -> Result<(), CliError> {
    let nodes = plan.local_nodes(data);
    for node in nodes.iter().filter(|node| !node.config.exists()) {
        write_whole(&node.config, &plan.node_toml(node, &nodes))?;
    }
    Ok(())
}

fn write_whole(path: &Path, text: &str) -> Result<(), CliError> {
    let new = path.with_extension("toml.new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(CliError::io(format!("cannot write {}", path.display())))
}

fn no_such_node(number: u16, nodes: u16) -> CliError {
    CliError::usage(format!("there is no node {number}: this cluster has 1 to {nodes}"))
}

fn not_started(name: &str, how: &str, log: &str, log_tail: &[String]) -> CliError {
    let mut message = format!("{name} could not start ({how}); its log {log} ends in:");
    indent(&mut message, log_tail);
    CliError::failed(message)
}

fn indent(message: &mut String, lines: &[String]) {
    for line in lines {
        let _ = write!(message, "\n    {line}");
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".into(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(libc::SIGKILL)) => "was killed (signal 9, SIGKILL)".into(),
        (None, Some(libc::SIGTERM)) => "was killed (signal 15, SIGTERM)".into(),
        (None, Some(libc::SIGSEGV)) => "crashed (signal 11, SIGSEGV)".into(),
        (None, Some(libc::SIGABRT)) => "crashed (signal 6, SIGABRT)".into(),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;
    use crate::cli::config;

    /// Stands in for a node: says that it is open, and ends when told to.
    const OBEDIENT: &str = r#"#!/bin/sh
store=$(dirname "$3")/store
mkdir -p "$store"
stat=$(cat /proc/$$/stat)
set -- $stat
trap 'rm -f "$store/node.pid"; exit 0' TERM
echo "opening"
echo "$1 ${22}" > "$store/node.pid"
while :; do sleep 0.05; done
"#;
    const LONGEST: Duration = Duration::from_secs(30);

    fn program(folder: &Path, text: &str) -> PathBuf {
        use std::io::Write;
        let path = folder.join("program");
        // Written by another process: a descriptor of ours could be inherited by a child of another test, and what is open for
        // writing cannot be run.
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg("cat > \"$0\"").arg(&path).stdin(Stdio::piped());
        let mut writer = command.spawn().expect("sh runs");
        writer.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("written");
        assert!(writer.wait().expect("it ends").success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }

    fn wish(nodes: u16) -> Wish {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let bound = |port: u16| {
            let address = (Ipv4Addr::LOCALHOST, port);
            TcpListener::bind(address).is_err() || UdpSocket::bind(address).is_err()
        };
        let first = 21_000 + (std::process::id() % 110) as u16 * 100;
        let base = loop {
            let base = first + NEXT.fetch_add(1, Ordering::Relaxed) % 400 * 9;
            if !(base..base + 9).any(bound) {
                break base;
            }
        };
        Wish {
            nodes: Some(nodes),
            resp_port: Some(base),
            quic_port: Some(base),
            http_port: Some(base + nodes),
            ..Wish::default()
        }
    }

    async fn until_event(cluster: &mut LocalCluster) -> LocalEvent {
        let wait = async {
            loop {
                if let Some(event) = cluster.poll().pop() {
                    return event;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(LONGEST, wait).await.expect("something happens")
    }

    #[tokio::test]
    async fn nodes_start_die_come_back_and_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(folder.path(), OBEDIENT);
        let data = folder.path().join("data");
        let mut cluster = LocalCluster::open(&data, &wish(3), program.clone()).expect("made");
        cluster.start_all(LONGEST).await.expect("started");
        assert!(cluster.nodes().iter().all(LocalNode::is_open));

        cluster.signal(2, Signal::Kill).expect("signalled");
        let event = until_event(&mut cluster).await;
        let LocalEvent::Ended { number: 2, how, log_tail, .. } = event else { panic!("{event:?}") };
        assert!(how.contains("SIGKILL"), "{how}");
        assert_eq!(log_tail, ["opening"]);
        assert_eq!(cluster.nodes()[1].pid(), None);

        let pid = restart(&data, 2, &program, false, LONGEST).await.expect("started beside");
        assert_eq!(until_event(&mut cluster).await, LocalEvent::Back { name: "n2".into(), pid });
        let again = restart(&data, 2, &program, false, LONGEST).await.expect_err("it runs").to_string();
        assert!(again.contains("runs already"), "{again}");

        let processes: Vec<ProcessId> = cluster.nodes().iter().filter_map(LocalNode::process).collect();
        assert_eq!(processes.len(), 3);
        assert_eq!(cluster.stop_all(LONGEST).await, Vec::<String>::new());
        assert!(!processes.into_iter().any(ProcessId::is_alive));
    }

    #[tokio::test]
    async fn who_does_not_stop_is_stopped_by_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(
            folder.path(),
            &OBEDIENT.replace("trap '", "trap '' TERM; trap '").replace("exit 0' TERM", "' HUP"),
        );
        let mut cluster = LocalCluster::open(&folder.path().join("data"), &wish(1), program).expect("made");
        cluster.start_all(LONGEST).await.expect("started");
        assert_eq!(cluster.stop_all(Duration::from_millis(300)).await, ["n1"]);
        assert!(!cluster.is_running());
    }

    #[tokio::test]
    async fn a_node_that_cannot_start_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(folder.path(), "#!/bin/sh\necho 'the disk is made of cheese' >&2\nexit 2\n");
        let data = folder.path().join("data");
        let mut cluster = LocalCluster::open(&data, &wish(2), program.clone()).expect("made");
        let error = cluster.start_all(LONGEST).await.expect_err("it cannot").to_string();
        assert!(error.contains("could not start (ended with exit code 2)"), "{error}");
        assert!(error.contains("the disk is made of cheese"), "{error}");
        let error = restart(&data, 1, &program, false, LONGEST).await.expect_err("it cannot").to_string();
        assert!(error.contains("made of cheese"), "{error}");
        let error = restart(&data, 7, &program, false, LONGEST).await.expect_err("there is none").to_string();
        assert!(error.contains("has 1 to 2"), "{error}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_its_flag() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(folder.path(), OBEDIENT);
        for (flag, is_udp) in [("--resp-port", false), ("--quic-port", true)] {
            let wish = wish(2);
            let port = if is_udp { wish.quic_port } else { wish.resp_port }.expect("it is set") + 1;
            let tcp = (!is_udp).then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free"));
            let udp = is_udp.then(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("free"));
            let mut cluster = LocalCluster::open(&folder.path().join(flag), &wish, program.clone()).expect("made");
            let error = cluster.start_all(LONGEST).await.expect_err("it is taken").to_string();
            assert!(
                error.contains(&format!("port {port} (")) && error.contains("of n2)") && error.contains(flag),
                "{error}"
            );
            assert!(!cluster.is_running(), "nothing was started");
            drop((tcp, udp));
        }
    }

    #[tokio::test]
    async fn what_was_made_once_is_not_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let program = PathBuf::from("/bin/false");
        let first = wish(3);
        let cluster = LocalCluster::open(&data, &first, program.clone()).expect("made");
        let held = LocalCluster::open(&data, &first, program.clone()).expect_err("it is watched").to_string();
        assert!(held.contains("another `tidewater dev`"), "{held}");
        drop(cluster);
        let text = fs::read_to_string(data.join("n1/node.toml")).expect("there");
        fs::write(data.join("n1/node.toml"), text.replace("128MiB", "64MiB")).expect("ours");
        drop(LocalCluster::open(&data, &Wish::default(), program.clone()).expect("the same"));
        drop(LocalCluster::open(&data, &first, program.clone()).expect("the same"));
        assert!(
            fs::read_to_string(data.join("n1/node.toml")).expect("there").contains("64MiB"),
            "people's changes stay"
        );
        let other = Wish { nodes: Some(5), ..Wish::default() };
        let refused = LocalCluster::open(&data, &other, program.clone()).expect_err("another number").to_string();
        assert!(refused.contains("was made with --nodes 3"), "{refused}");

        let foreign = folder.path().join("home");
        fs::create_dir(&foreign).expect("made");
        fs::write(foreign.join("letter.txt"), "dear").expect("written");
        let refused = LocalCluster::open(&foreign, &first, program).expect_err("not ours").to_string();
        assert!(refused.contains("is not empty"), "{refused}");
        assert_eq!(fs::read_dir(&foreign).expect("there").count(), 1);
    }

    #[test]
    fn impossible_plans_are_refused() {
        let plan = Plan { nodes: 3, resp_port: 7001, quic_port: 9001, http_port: 8001, replicas: 3, zones: 1 };
        plan.check().expect("fine");
        for (wrong, told) in [
            (Plan { replicas: 4, ..plan.clone() }, "--replicas 4: use 1 to 3"),
            (Plan { zones: 4, ..plan.clone() }, "--zones 4: use 1 to 3"),
            (Plan { nodes: 65, ..plan.clone() }, "--nodes 65: use 1 to 64"),
            (Plan { resp_port: 65_534, ..plan.clone() }, "--resp-port 65534: with 3 nodes use 1 to 65533"),
            (Plan { http_port: 7003, ..plan.clone() }, "overlap"),
        ] {
            let error = wrong.check().expect_err(told).to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_settings_made_are_good_and_share_one_layout() {
        let plan = Plan { nodes: 5, resp_port: 7001, quic_port: 9001, http_port: 8001, replicas: 3, zones: 2 };
        let nodes = plan.local_nodes(Path::new("data"));
        let judge = |node: &LocalNode| {
            let text = plan.node_toml(node, &nodes);
            config::parse("node.toml", &text, Path::new("data"), &[], &[])
                .unwrap_or_else(|error| panic!("{error}"))
                .config
        };
        let configs: Vec<_> = nodes.iter().map(judge).collect();
        assert!(configs.iter().all(|config| config.layout == configs[0].layout));
        assert_eq!(configs[4].resp.listen.to_string(), "127.0.0.1:7005");
        assert_eq!(configs[1].layout.members[1].zone, "z2");
    }
}
