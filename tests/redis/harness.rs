//! Clusters for tests, the tools that ask them, and tables of what is asked and answered.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewater::cli::local::{LocalCluster, Wish};
use tidewater::cli::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::runtime::{Builder, Runtime};

/// How long anything may take that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const NODES: u16 = 3;
/// The first line of a table. An addition (`INCR`, `SADD`, `HSET`) is answered by what its coordinator has heard, which is all only if
/// writes waited for all.
const ALL_HEAR: &str = "TW.CONSISTENCY WRITE all\n";

/// Three nodes in a folder of their own, on free ports; gone when this is.
pub struct Cluster {
    local: LocalCluster,
    folder: TempDir,
    runtime: Runtime,
}

impl Cluster {
    /// The cluster of all tests that keep to keys of their own. It lives as long as anybody holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start(""));
            cluster.until_all_answer();
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// A cluster whose `[resp]` settings have these lines too.
    pub fn start(resp_settings: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let first = free_ports();
        let wish = Wish {
            nodes: Some(NODES),
            resp_port: Some(first),
            quic_port: Some(first),
            http_port: Some(first + NODES),
            ..Wish::default()
        };
        let program = PathBuf::from(env!("CARGO_BIN_EXE_tidewater"));
        let local = LocalCluster::open(&folder.path().join("data"), &wish, program).expect("made");
        for node in local.nodes() {
            let text = std::fs::read_to_string(&node.config).expect("made with the cluster");
            let text = text.replace("[resp]\n", &format!("[resp]\n{resp_settings}\n"));
            std::fs::write(&node.config, text).expect("ours");
        }
        let mut cluster = Self { local, folder, runtime };
        let Self { local, runtime, .. } = &mut cluster;
        runtime.block_on(local.start_all(PATIENCE)).expect("all start");
        cluster
    }

    /// Waits until every node reaches every other.
    fn until_all_answer(&self) {
        for number in 1..=NODES {
            let mut resp = self.resp(number);
            until("all owners acknowledge", || resp.line("TW.WITH WRITE all -- SET started 1") == "+OK");
        }
    }

    /// `127.0.0.1:port` of a node's RESP door.
    pub fn address(&self, number: u16) -> &str {
        &self.local.nodes()[usize::from(number) - 1].resp
    }

    pub fn port(&self, number: u16) -> &str {
        self.address(number).rsplit_once(':').expect("host:port").1
    }

    pub fn tls_dir(&self) -> PathBuf {
        self.local.tls_dir()
    }

    pub fn resp(&self, number: u16) -> Resp {
        Resp::connect(self.address(number))
    }

    /// redis-cli against one node, with `input` as what is typed.
    pub fn redis_cli(&self, number: u16, arguments: &[&str], input: &str) -> String {
        let port = ["-h", "127.0.0.1", "-p", self.port(number)];
        self.run("redis-cli", port.iter().chain(arguments), input)
    }

    /// A script of this folder in a Python that has redis-py. Its arguments: the addresses, then `arguments`.
    pub fn python(&self, script: &str, arguments: &[&str]) -> String {
        let python = std::env::var_os("TIDEWATER_PYTHON").unwrap_or_else(|| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis").join(script);
        let addresses = (1..=NODES).map(|number| OsStr::new(self.address(number)));
        let all = std::iter::once(script.as_os_str()).chain(addresses).chain(arguments.iter().map(OsStr::new));
        self.run(&python, all, "")
    }

    /// What a tool printed, standard error included; it must end well and in time.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> String {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).kill_on_drop(true);
        command.env_remove("REDISCLI_AUTH").env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The runtime of the cluster may be in use by another test.
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ended = runtime.block_on(async {
            let mut child = command.spawn().unwrap_or_else(|error| {
                panic!("{} cannot be run ({error}): run `make setup`", program.display());
            });
            let mut stdin = child.stdin.take().expect("it is piped");
            let feed = async move {
                // Who ends early says why in its output.
                let _ = stdin.write_all(input.as_bytes()).await;
            };
            let both = async { tokio::join!(feed, child.wait_with_output()).1 };
            tokio::time::timeout(PATIENCE, both).await
        });
        let output = ended.unwrap_or_else(|_| panic!("{} not done in time", program.display())).expect("it ends");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("No module named 'redis'"), "{} has no redis-py: run `make setup`", program.display());
        assert!(output.status.success(), "{} ended with {}:\n{text}", program.display(), output.status);
        text
    }

    /// Every node answers, and none has panicked.
    #[track_caller]
    pub fn check_alive(&self) {
        for node in self.local.nodes() {
            assert_eq!(Resp::connect(&node.resp).line("PING"), "+PONG", "{}", node.name);
            let log = std::fs::read_to_string(&node.log).expect("the log is there");
            assert!(!log.contains("panicked"), "{log}");
        }
    }

    /// Asks redis-cli every command of a table on every node and compares what it prints. `%` in the table stands for a prefix that
    /// is new for every node, and so for every run.
    #[track_caller]
    pub fn check_table(&self, table: &[(&str, &str)]) {
        static RUN: AtomicU16 = AtomicU16::new(0);
        for number in 1..=NODES {
            let prefix = format!("t{}:", RUN.fetch_add(1, Ordering::Relaxed));
            // What a cluster-aware redis-cli sees is no different: nobody redirects.
            let arguments: &[&str] = if number == 2 { &["--no-raw", "-c"] } else { &["--no-raw"] };
            check(&self.told(number, arguments, ALL_HEAR, table, &prefix), table, &prefix);
        }
    }

    /// As [`check_table`](Self::check_table) in RESP3, on one node.
    #[track_caller]
    pub fn check_table_3(&self, prefix: &str, table: &[(&str, &str)]) {
        check(&self.told(1, &["--no-raw", "-3"], ALL_HEAR, table, prefix), table, prefix);
    }

    /// As [`check_table`](Self::check_table) on one node, with the consistency that connections begin with.
    #[track_caller]
    pub fn check_table_as_it_begins(&self, prefix: &str, table: &[(&str, &str)]) {
        check(&self.told(1, &["--no-raw"], "", table, prefix), table, prefix);
    }

    fn told(
        &self,
        number: u16,
        arguments: &[&str],
        all_hear: &str,
        table: &[(&str, &str)],
        prefix: &str,
    ) -> Vec<String> {
        let mut input = all_hear.to_owned();
        for (command, _) in table {
            writeln!(input, "{}\nECHO ----", command.replace('%', prefix)).expect("written");
        }
        let output = self.redis_cli(number, arguments, &input);
        let output = output.strip_prefix("OK\n").filter(|_| !all_hear.is_empty()).unwrap_or(&output);
        let mut answers: Vec<String> = output.split("\"----\"\n").map(|text| text.trim_end().to_owned()).collect();
        assert_eq!(answers.pop().as_deref(), Some(""), "the last answer is an echo:\n{output}");
        assert_eq!(answers.len(), table.len(), "{output}");
        answers
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.local.poll();
        for number in 1..=NODES {
            let _ = self.local.signal(number, Signal::Kill);
        }
        // The folder goes next, and nobody may be writing there.
        let began = Instant::now();
        while self.local.is_running() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
            self.local.poll();
        }
    }
}

#[track_caller]
fn check(answers: &[String], table: &[(&str, &str)], prefix: &str) {
    let mut wrong = String::new();
    for ((command, wanted), told) in table.iter().zip(answers) {
        let wanted = wanted.replace('%', prefix);
        if !fits(&wanted, told) {
            writeln!(wrong, "{command}\n  wanted {wanted}\n  told   {told}").expect("written");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Is this what redis-cli should print? `list: a b` are the elements of an array, `any: a b` in whatever order, `one of: a b` is one of
/// these strings, `about 9` a number not much below, `starts: text` more than is worth repeating; all else is to the letter.
fn fits(wanted: &str, told: &str) -> bool {
    let quoted = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(quote).collect::<Vec<_>>();
    if let Some(words) = wanted.strip_prefix("list:") {
        elements(told) == quoted(words)
    } else if let Some(words) = wanted.strip_prefix("any:") {
        let (mut wanted, mut told) = (quoted(words), elements(told));
        wanted.sort();
        told.sort();
        wanted == told
    } else if let Some(words) = wanted.strip_prefix("one of:") {
        quoted(words).iter().any(|word| word == told)
    } else if let Some(number) = wanted.strip_prefix("about ") {
        let number: i64 = number.parse().expect("a number");
        let told = told.strip_prefix("(integer) ").and_then(|told| told.parse::<i64>().ok());
        told.is_some_and(|told| told <= number && told > number * 3 / 4)
    } else if let Some(start) = wanted.strip_prefix("starts: ") {
        told.starts_with(start)
    } else {
        wanted == told
    }
}

/// A word as redis-cli prints a string; `(nil)` and `(integer)N` as themselves.
fn quote(word: &str) -> String {
    match word.strip_prefix("(integer)") {
        Some(number) => format!("(integer) {number}"),
        None if word == "(nil)" => word.to_owned(),
        None => format!("\"{word}\""),
    }
}

/// The lines of an array that redis-cli printed, without their numbers.
fn elements(told: &str) -> Vec<String> {
    if told.starts_with("(empty") {
        return Vec::new();
    }
    told.lines().map(|line| line.split_once(") ").map_or(line, |(_, rest)| rest).trim().to_owned()).collect()
}

/// Waits until it is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client that knows no more than it must, and sends whatever it is told to.
pub struct Resp {
    reader: BufReader<TcpStream>,
}

impl Resp {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the door is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // Who is thrown out may find the door shut.
        let _ = self.reader.get_mut().write_all(bytes);
    }

    /// For a thread that sends while another reads.
    pub fn sender(&self) -> TcpStream {
        self.reader.get_ref().try_clone().expect("a second handle")
    }

    /// A reply in one line: `+OK`, `-ERR ...`, `:1`, the value itself, `(nil)`, `[a, b]`; `(end)` when the connection is over.
    pub fn reply(&mut self) -> String {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => return "(end)".into(),
            Ok(_) => {}
            // What was sent after the end makes a reset of it.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return "(end)".into(),
            Err(error) => panic!("no answer: {error}"),
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (kind, rest) = line.split_at(1);
        match (kind, rest.parse::<usize>()) {
            ("$", Ok(length)) => {
                let mut value = vec![0; length + 2];
                self.reader.read_exact(&mut value).expect("the value comes");
                value.truncate(length);
                String::from_utf8_lossy(&value).into_owned()
            }
            ("*", Ok(count)) => {
                let elements: Vec<String> = (0..count).map(|_| self.reply()).collect();
                format!("[{}]", elements.join(", "))
            }
            ("$" | "*", Err(_)) => "(nil)".into(),
            _ => line,
        }
    }

    pub fn ask<A: AsRef<[u8]>>(&mut self, words: &[A]) -> String {
        self.send(&encode(words));
        self.reply()
    }

    /// Words between single spaces.
    pub fn line(&mut self, line: &str) -> String {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }
}

pub fn encode<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
        bytes.extend_from_slice(word.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The first of as many ports as a cluster needs, free for TCP and UDP at this moment and used by no other test of this process.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = 2 * NODES;
    for _ in 0..1_000 {
        let at = (std::process::id() % 180) as u16 * 10 + NEXT.fetch_add(1, Ordering::Relaxed) * 10;
        let first = 10_000 + at % 1_900;
        let is_free =
            |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no free ports");
}
