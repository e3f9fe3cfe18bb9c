//! A cluster for one test. Whatever becomes of the test, its processes are gone when the cluster is.

use std::ffi::OsStr;
use std::future::Future;
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewater::cli::connect;
use tidewater::cli::local::{LocalCluster, LocalNode, Wish};
use tidewater::cli::process::Signal;
use tidewater::cli::status::Census;
use tidewater::net::tls::Identity;
use tidewater::{Client, ClientOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tidewater");
/// How long anything may take that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Light tests run side by side, heavy ones alone: the machine may have two cores.
static TURN: RwLock<()> = RwLock::const_new(());

enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A light test's turn, for one that starts its processes itself.
pub async fn light_turn() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

/// Ends a test that hangs.
pub async fn within<T>(longest: Duration, test: impl Future<Output = T>) -> T {
    tokio::time::timeout(longest, test).await.unwrap_or_else(|_| panic!("not done after {longest:?}"))
}

/// Waits until it is so.
pub async fn until(what: &str, longest: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < longest, "not so after {longest:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub struct Cluster {
    pub local: LocalCluster,
    folder: TempDir,
    _turn: Turn,
}

impl Cluster {
    /// Running nodes; other tests may run meanwhile.
    pub async fn start(nodes: u16) -> Self {
        let mut cluster = Self::make(nodes).await;
        cluster.start_all().await;
        cluster
    }

    /// Running nodes, spread over zones turn by turn.
    pub async fn start_in_zones(nodes: u16, zones: u16) -> Self {
        let mut cluster = Self::open(nodes, zones, false, Turn::Shared { _guard: TURN.read().await });
        cluster.start_all().await;
        cluster
    }

    /// Running nodes, and no other test beside.
    pub async fn start_alone(nodes: u16) -> Self {
        let mut cluster = Self::open(nodes, 1, false, Turn::Alone { _guard: TURN.write().await });
        cluster.start_all().await;
        cluster
    }

    /// Running nodes that take orders for faults.
    pub async fn start_hurtable(nodes: u16) -> Self {
        let mut cluster = Self::open(nodes, 1, true, Turn::Shared { _guard: TURN.read().await });
        cluster.start_all().await;
        cluster
    }

    /// Folder, certificates and settings; nothing runs.
    pub async fn make(nodes: u16) -> Self {
        Self::open(nodes, 1, false, Turn::Shared { _guard: TURN.read().await })
    }

    /// As [`make`](Self::make), and no other test beside.
    pub async fn make_alone(nodes: u16) -> Self {
        Self::open(nodes, 1, false, Turn::Alone { _guard: TURN.write().await })
    }

    fn open(nodes: u16, zones: u16, allow_faults: bool, turn: Turn) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let first = free_ports(nodes);
        let wish = Wish {
            nodes: Some(nodes),
            resp_port: Some(first),
            quic_port: Some(first),
            http_port: Some(first + nodes),
            zones: Some(zones),
            allow_faults,
            ..Wish::default()
        };
        let local = LocalCluster::open(&folder.path().join("data"), &wish, PathBuf::from(PROGRAM)).expect("made");
        Self { local, folder, _turn: turn }
    }

    pub async fn start_all(&mut self) {
        self.local.start_all(PATIENCE).await.expect("all start");
    }

    /// A place for the test's own files.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn node(&self, number: u16) -> &LocalNode {
        &self.local.nodes()[usize::from(number) - 1]
    }

    pub fn pid(&self, number: u16) -> u32 {
        self.node(number).pid().unwrap_or_else(|| panic!("n{number} runs"))
    }

    pub fn log(&self, number: u16) -> String {
        std::fs::read_to_string(&self.node(number).log).expect("the log is there")
    }

    pub fn identity(&self) -> Identity {
        connect::identity(&self.local.tls_dir()).expect("made with the cluster")
    }

    pub fn client_options(&self) -> ClientOptions {
        ClientOptions::new(self.local.addresses(), self.identity())
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.client_options()).await.expect("a node answers")
    }

    /// kill -9; returns when it is gone.
    pub async fn kill(&mut self, number: u16) {
        self.local.signal(number, Signal::Kill).expect("ours");
        self.until_gone(number).await;
    }

    /// Stops one node in order.
    pub async fn stop(&mut self, number: u16) {
        self.local.signal(number, Signal::Terminate).expect("ours");
        self.until_gone(number).await;
    }

    pub async fn until_gone(&mut self, number: u16) {
        until("it is gone", PATIENCE, async || {
            self.local.poll();
            self.node(number).pid().is_none()
        })
        .await;
    }

    pub async fn restart(&mut self, number: u16) {
        self.local.start(number, PATIENCE).await.expect("it starts again");
    }

    /// Stands still, neither dead nor answering.
    pub fn pause(&self, number: u16) {
        self.tell(number, libc::SIGSTOP);
    }

    pub fn resume(&self, number: u16) {
        self.tell(number, libc::SIGCONT);
    }

    fn tell(&self, number: u16, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid(number)).expect("a process id");
        // SAFETY: kill takes two integers; the process is a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits until nobody lacks anything.
    pub async fn level(&self, client: &Client) {
        let mut last = String::new();
        let began = Instant::now();
        loop {
            let census = Census::take(client, Duration::from_secs(2)).await;
            if census.is_level() {
                return;
            }
            if census.text() != last {
                last = census.text();
            }
            assert!(began.elapsed() < Duration::from_secs(40), "not level:\n{last}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until `number` believes just these nodes to be up, itself left out.
    pub async fn until_seen_up(&self, number: u16, wanted: &[&str]) {
        let http = self.node(number).http.clone();
        until(&format!("n{number} sees {wanted:?} up"), PATIENCE, async || {
            let status: serde_json::Value = match http_get(&http, "/status").await {
                Some((200, body)) => serde_json::from_str(&body).expect("JSON"),
                _ => return false,
            };
            let peers = status["peers"].as_array().expect("a list");
            let up = peers.iter().filter(|peer| peer["up"] == true && peer["connected"] == true);
            let mut up: Vec<&str> = up.filter_map(|peer| peer["name"].as_str()).collect();
            up.sort_unstable();
            up == wanted
        })
        .await;
    }

    /// Waits until every node believes every other to be up; which of them a client asks is then the same.
    pub async fn until_all_see_each_other(&self) {
        let names: Vec<String> = self.local.nodes().iter().map(|node| node.name.clone()).collect();
        for (number, own) in (1..).zip(&names) {
            let others: Vec<&str> = names.iter().filter(|name| *name != own).map(String::as_str).collect();
            self.until_seen_up(number, &others).await;
        }
    }

    /// A number on a node's page of metrics.
    pub async fn metric(&self, number: u16, name: &str) -> u64 {
        let (_, page) = http_get(&self.node(number).http, "/metrics").await.expect("it answers");
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("tidewater_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().expect("a number")
    }

    pub async fn resp(&self, number: u16) -> Resp {
        Resp::connect(&self.node(number).resp).await
    }

    /// The command line against this cluster.
    pub async fn run<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Said {
        let mut command = command(words);
        command.env("TIDEWATER_CONNECT", self.local.addresses().join(",")).env("TIDEWATER_TLS", self.local.tls_dir());
        said(command.current_dir(self.path())).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.local.poll();
        for number in 1..=self.local.plan.nodes {
            let _ = self.local.signal(number, Signal::Kill);
        }
        // The folder goes next, and nobody may be writing there.
        for _ in 0..100 {
            self.local.poll();
            if !self.local.is_running() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

pub fn command<A: AsRef<OsStr>>(words: impl IntoIterator<Item = A>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(words);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TIDEWATER_") || variable == "RUST_LOG" {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub async fn said(command: &mut tokio::process::Command) -> Said {
    let output = within(Duration::from_secs(30), command.output()).await.expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A Redis client that knows no more than it must.
pub struct Resp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Resp {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the door is open");
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // Who is thrown out may find the door shut.
        let _ = self.writer.write_all(bytes).await;
    }

    /// A reply that is no array: `+OK`, `-ERR ...`, `:1`, or the value itself; "(end)" when the connection is over.
    pub async fn reply(&mut self) -> String {
        within(Duration::from_secs(30), async {
            let mut line = String::new();
            if self.reader.read_line(&mut line).await.unwrap_or(0) == 0 {
                return "(end)".to_owned();
            }
            let line = line.trim_end().to_owned();
            let Some(length) = line.strip_prefix('$') else { return line };
            let Ok(length) = length.parse::<usize>() else { return "(nil)".to_owned() };
            let mut value = vec![0; length + 2];
            self.reader.read_exact(&mut value).await.expect("the value comes");
            value.truncate(length);
            String::from_utf8_lossy(&value).into_owned()
        })
        .await
    }

    pub async fn ask(&mut self, words: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        write!(bytes, "*{}\r\n", words.len()).expect("written");
        for word in words {
            write!(bytes, "${}\r\n", word.len()).expect("written");
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.send(&bytes).await;
        self.reply().await
    }

    pub async fn line(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.ask(&words).await
    }
}

/// Status code and body; `None`: nobody answers.
pub async fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let question = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(10), ask).await.ok()?
}

/// The first of as many ports as some nodes need, free for TCP and UDP at this moment and used by no other test of this process.
pub fn free_ports(nodes: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = nodes * 2;
    for _ in 0..1_000 {
        let at = (std::process::id() as u16 % 600) * 10 + NEXT.fetch_add(1, Ordering::Relaxed) * 10;
        let first = 12_000 + at % 8_000;
        let is_free =
            |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no free ports");
}
