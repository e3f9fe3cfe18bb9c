//! `tidewater demo`: the main job, before the user's eyes.
//!
//! ```text
//!  start   three node processes on this machine
//!  write   real files as strings, their words as counters, an inverted index as sets
//!  kill    one node by SIGKILL, while all of that goes on
//!  restart it, still writing; wait until nobody lacks anything
//!  read    everything, from every owner, and compare with what was acknowledged
//! ```
//!
//! It keeps its own account of what was acknowledged and compares exactly: strings byte for byte, counters to the last one, every
//! member of every set. Exit code 1 when anything is missing, when a client saw an error, or when the cluster did not come level.
//! No process outlives it, by whichever way it ends; its folder goes too unless `--keep` or something was wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::start::DemoArgs;
use super::dev::{StopSignals, own_program};
use super::local::{LocalCluster, LocalEvent, Wish};
use super::process::Signal;
use super::progress::Progress;
use super::render::{self, count};
use super::stage::Stage;
use super::status::Census;
use super::words::{self, Text};
use super::{CliError, EXIT_FAILED, connect};
use crate::client::{Client, ClientError, ClientOptions};
use crate::data::consistency::{Consistency, Level};
use crate::data::op::Outcome;
use crate::net::entropy;

const NODES: u16 = 3;
/// The node that is killed.
const VICTIM: u16 = 2;
/// At which part of the writing it is killed, and started again.
const KILL_AT_PERCENT: usize = 35;
const RESTART_AT_PERCENT: usize = 80;
/// Clients at work at once.
const WORKERS: usize = 64;
/// How long writing may take on a slow machine: what would take longer is left out, and told.
const WRITING_MAX: Duration = Duration::from_secs(150);
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const LEVEL_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long the cluster must stay level to be called so: reports are about a second old.
const LEVEL_FOR: Duration = Duration::from_secs(2);
/// A call may take this long, all tries together: far longer than an outage needs.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_TRY: Duration = Duration::from_secs(1);
const TOLD_MAX: usize = 8;
/// The mark of a folder that the demo made and may take away.
const MARK: &str = "made-by-tidewater-demo";

/// Runs the whole story. Exit code 0: nothing was lost and no client saw an error.
pub async fn run(args: DemoArgs) -> Result<ExitCode, CliError> {
    // Before anything is started, so that no Ctrl-C leaves it behind.
    let mut stop = StopSignals::listen()?;
    let stage = Stage::new();
    stage.title("Tidewater: three nodes, real files, one node killed while it writes");
    let texts = words::collect(&args.from, args.files as usize)?;
    let mut nodes = Nodes::open(&args).await?;
    let told = tokio::select! {
        told = story(&stage, &mut nodes, texts) => told,
        () = stop.received() => {
            stage.line("");
            Err(CliError::failed("the demo was interrupted"))
        }
    };
    nodes.stop().await;
    let fine = matches!(told, Ok(true));
    let kept = args.keep || !fine;
    nodes.end(kept)?;
    if kept {
        stage.line(&format!("The nodes' data and logs are kept in {}.", args.data.display()));
    }
    if told? {
        stage.closing(&args.data, args.keep);
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::from(EXIT_FAILED))
    }
}

/// The node processes. Whatever happens, they are gone when this is.
struct Nodes {
    cluster: LocalCluster,
}

impl Nodes {
    async fn open(args: &DemoArgs) -> Result<Self, CliError> {
        let (program, data) = (own_program()?, args.data.as_path());
        clear(data, &program).await?;
        let wish = |shift: u16| Wish {
            nodes: Some(NODES),
            resp_port: args.resp_port.checked_add(shift),
            quic_port: args.quic_port.checked_add(shift),
            http_port: args.http_port.checked_add(shift),
            replicas: Some(NODES as u8),
            zones: Some(NODES),
            allow_faults: false,
        };
        // Another demo, or anything else, may have the ports: then others will do.
        let free = (0..20).map(|step| wish(step * 10)).find(ports_are_free);
        let cluster = LocalCluster::open(data, &free.unwrap_or_else(|| wish(0)), program)?;
        let mark = data.join(MARK);
        std::fs::write(&mark, "").map_err(CliError::io(format!("writing {}", mark.display())))?;
        Ok(Self { cluster })
    }

    fn name(&self, number: u16) -> String {
        self.cluster.nodes()[usize::from(number) - 1].name.clone()
    }

    fn pid(&self, number: u16) -> u32 {
        self.cluster.nodes()[usize::from(number) - 1].pid().unwrap_or_default()
    }

    async fn client(&self) -> Result<Client, CliError> {
        let identity = connect::identity(&self.cluster.tls_dir())?;
        let options = ClientOptions {
            timeout: CALL_TIMEOUT,
            first_try_timeout: FIRST_TRY,
            ..ClientOptions::new(self.cluster.addresses(), identity)
        };
        Ok(Client::connect(options).await?)
    }

    async fn stop(&mut self) {
        self.cluster.stop_all(STOP_GRACE).await;
    }

    /// Takes the folder away unless it is to be kept.
    fn end(self, keep: bool) -> Result<(), CliError> {
        let data = self.cluster.data.clone();
        drop(self);
        if keep { Ok(()) } else { remove(&data) }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // On the orderly way there is nobody left. On any other, a panic too, nobody may be left.
        self.cluster.poll();
        for number in 1..=NODES {
            let _ = self.cluster.signal(number, Signal::Kill);
        }
    }
}

/// What an earlier demo left, processes included, goes; what is not a demo's stays.
async fn clear(data: &Path, program: &Path) -> Result<(), CliError> {
    if !data.join(MARK).exists() {
        if data.join("dev.toml").exists() {
            return Err(CliError::usage(format!(
                "{} is a cluster that the demo did not make: give another --data",
                data.display()
            )));
        }
        return Ok(());
    }
    let mut earlier = LocalCluster::open(data, &Wish::default(), program.to_owned())?;
    earlier.stop_all(STOP_GRACE).await;
    drop(earlier);
    remove(data)
}

fn remove(data: &Path) -> Result<(), CliError> {
    std::fs::remove_dir_all(data).map_err(CliError::io(format!("removing {}", data.display())))
}

fn ports_are_free(wish: &Wish) -> bool {
    let all_free = |first: Option<u16>, is_free: fn(u16) -> bool| {
        first.is_some_and(|first| (0..NODES).all(|at| first.checked_add(at).is_some_and(is_free)))
    };
    let tcp: fn(u16) -> bool = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let udp: fn(u16) -> bool = |port| std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok();
    all_free(wish.resp_port, tcp) && all_free(wish.http_port, tcp) && all_free(wish.quic_port, udp)
}

/// The five acts. True: nothing was lost and nobody saw an error.
async fn story(stage: &Stage, nodes: &mut Nodes, texts: Vec<Text>) -> Result<bool, CliError> {
    let size: u64 = texts.iter().map(|text| text.content.len() as u64).sum();
    stage.line(&format!(
        "{} files, {}, from {}",
        count(texts.len() as u64),
        render::bytes(size),
        words::source_of(&texts).display()
    ));

    // --- start
    let act = stage.act("start", "three node processes, QUIC with mutual TLS, three owners of each key");
    nodes.cluster.start_all(READY_TIMEOUT).await?;
    let client = nodes.client().await?;
    let pids: Vec<String> =
        (1..=NODES).map(|number| format!("{} (pid {})", nodes.name(number), nodes.pid(number))).collect();
    act.done(&pids.join(", "));

    // --- write, kill, restart
    let work = Arc::new(Work::new(client.clone(), texts));
    stage
        .act("write", "each file as a string; its most frequent words as counters and as an inverted index of sets")
        .note("every write at quorum: acknowledged by two nodes of three, under an operation id");
    let mut writing = Writing::begin(&work);
    let times = disturb(stage, nodes, &work, &mut writing).await?;
    writing.finish().await;
    let account = &work.account;
    stage.act("written", "").done(&format!(
        "{} files, {} writes acknowledged, {} ({})",
        count(work.progress.items()),
        count(account.acknowledged.load(Ordering::Relaxed)),
        render::bytes(work.progress.bytes()),
        work.progress.rate()
    ));

    // --- level
    let levelled = level(stage, &client, times.back).await;

    // --- read
    let act = stage.act("read", "everything again, each key from all three owners");
    let audit = Audit::take(&work).await;
    act.done(&format!("{} keys compared", count(audit.compared)));
    let fine = report(stage, &work, &audit, &times, levelled);
    client.close();
    Ok(fine)
}

/// When the node went and when it was back.
struct Times {
    killed: Instant,
    back: Instant,
    /// Acknowledged between the two.
    acknowledged_meanwhile: u64,
}

/// Kills the victim midway, starts it again later, both while the writing goes on.
async fn disturb(stage: &Stage, nodes: &mut Nodes, work: &Arc<Work>, writing: &mut Writing) -> Result<Times, CliError> {
    let acknowledged = || work.account.acknowledged.load(Ordering::Relaxed);
    writing.until(KILL_AT_PERCENT).await;
    let (name, pid) = (nodes.name(VICTIM), nodes.pid(VICTIM));
    let before = acknowledged();
    work.account.outage.store(true, Ordering::Relaxed);
    let killed = entropy::instant();
    nodes.cluster.signal(VICTIM, Signal::Kill)?;
    work.progress
        .suspend(|| stage.act("kill", &format!("kill -9 {pid} ({name}) after {} writes", count(before))).end());
    until_gone(nodes).await?;

    writing.until(RESTART_AT_PERCENT).await;
    let meanwhile = acknowledged() - before;
    let slowest = Duration::from_micros(work.account.slowest_us.load(Ordering::Relaxed));
    work.progress.suspend(|| {
        stage.act("outage", &format!("{name} is away")).done(&format!(
            "{} more writes acknowledged meanwhile, {} errors; the slowest took {}",
            count(meanwhile),
            count(work.account.errors.load(Ordering::Relaxed)),
            render::duration(slowest)
        ));
    });
    nodes.cluster.start(VICTIM, READY_TIMEOUT).await?;
    let back = entropy::instant();
    work.account.outage.store(false, Ordering::Relaxed);
    let pid = nodes.pid(VICTIM);
    work.progress.suspend(|| {
        stage
            .act("restart", &format!("{name} again, on its old data"))
            .done(&format!("pid {pid}, {} after it was killed", render::duration(back - killed)));
    });
    Ok(Times { killed, back, acknowledged_meanwhile: acknowledged() - before })
}

async fn until_gone(nodes: &mut Nodes) -> Result<(), CliError> {
    for _ in 0..200 {
        let gone = |event: &LocalEvent| matches!(event, LocalEvent::Ended { number: VICTIM, .. });
        if nodes.cluster.poll().iter().any(gone) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(CliError::failed("the killed node is still there after ten seconds"))
}

/// Waits until nobody lacks anything and it stays so. `None`: it did not come about in time.
async fn level(stage: &Stage, client: &Client, back: Instant) -> Option<Duration> {
    let act = stage.act("level", "waiting until no node lacks anything: hints handed over, missing writes fetched");
    let began = entropy::instant();
    let mut level_since: Option<Instant> = None;
    let mut most_open = 0;
    loop {
        let census = Census::take(client, Duration::from_secs(2)).await;
        let now = entropy::instant();
        let open = census.behind();
        most_open = most_open.max(open.unwrap_or(0));
        if census.is_level() {
            let since = *level_since.get_or_insert(now);
            if now - since >= LEVEL_FOR {
                let took = since.saturating_duration_since(back);
                act.done(&format!("level {} after it was back", render::duration(took)));
                return Some(took);
            }
        } else {
            level_since = None;
            let open = open.map_or("a node does not answer yet".to_owned(), |open| format!("{} to go", count(open)));
            act.tick(&open, now - began);
            if now - began > LEVEL_TIMEOUT {
                act.failed(&format!("not level after {}: {open}", render::duration(LEVEL_TIMEOUT)));
                stage.block(&census.text());
                return None;
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// What the client was told, to be compared with what the cluster holds.
#[derive(Default)]
struct Account {
    acknowledged: AtomicU64,
    /// Took more than one try.
    retried: AtomicU64,
    errors: AtomicU64,
    told: Mutex<Vec<String>>,
    /// The victim is away.
    outage: AtomicBool,
    /// The slowest write of the outage.
    slowest_us: AtomicU64,
    words: Mutex<BTreeMap<String, WordAccount>>,
    /// `files[i]`: what became of the string of `texts[i]`.
    files: Mutex<BTreeMap<usize, Written>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Acknowledged,
    /// An error left it open.
    Perhaps,
}

#[derive(Default)]
struct WordAccount {
    sum: i64,
    /// Increments whose outcome an error left open.
    sum_perhaps: i64,
    files: BTreeMap<usize, Written>,
}

impl Account {
    /// Notes how a write went. `None`: nothing was written.
    fn note<T>(&self, began: Instant, done: &Result<crate::client::Answer<T>, ClientError>) -> Option<Written> {
        if self.outage.load(Ordering::Relaxed) {
            let us = u64::try_from((entropy::instant() - began).as_micros()).unwrap_or(u64::MAX);
            self.slowest_us.fetch_max(us, Ordering::Relaxed);
        }
        match done {
            Ok(answer) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.retried.fetch_add(u64::from(answer.attempts > 1), Ordering::Relaxed);
                Some(Written::Acknowledged)
            }
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                let mut told = self.told.lock().expect("nothing that can panic happens under the lock");
                if told.len() < TOLD_MAX {
                    told.push(error.to_string());
                }
                (error.outcome() == Outcome::Unknown).then_some(Written::Perhaps)
            }
        }
    }
}

/// The texts, and how far writing them has come.
struct Work {
    client: Client,
    texts: Vec<Text>,
    /// How many of them are to be written: fewer than there are when the machine is slow.
    total: AtomicUsize,
    next: AtomicUsize,
    done: AtomicUsize,
    progress: Progress,
    account: Account,
}

fn file_key(text: &Text) -> String {
    format!("file:{}", text.name)
}

fn word_key(word: &str) -> String {
    format!("word:{word}")
}

fn index_key(word: &str) -> String {
    format!("files-with:{word}")
}

impl Work {
    fn new(client: Client, texts: Vec<Text>) -> Self {
        let total = texts.len();
        Self {
            client,
            total: AtomicUsize::new(total),
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            progress: Progress::new("writing", "files", Some(total as u64), false),
            account: Account::default(),
            texts,
        }
    }

    /// Writes texts until there are no more.
    async fn write_on(&self) {
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= self.total.load(Ordering::Relaxed) {
                return;
            }
            self.write(at).await;
            self.progress.advance(self.texts[at].content.len() as u64);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn write(&self, at: usize) {
        let text = &self.texts[at];
        let account = &self.account;
        let began = entropy::instant();
        let done = self.client.set(file_key(text), text.content.clone()).await;
        if let Some(written) = account.note(began, &done) {
            account.files.lock().expect("nothing that can panic happens under the lock").insert(at, written);
        }
        for (word, times) in &text.words {
            let began = entropy::instant();
            let counted = account.note(began, &self.client.increment(word_key(word), *times).await);
            let began = entropy::instant();
            let indexed = account.note(began, &self.client.add_to_set(index_key(word), [&text.name]).await);
            let mut words = account.words.lock().expect("nothing that can panic happens under the lock");
            let word = words.entry(word.clone()).or_default();
            match counted {
                Some(Written::Acknowledged) => word.sum += times,
                Some(Written::Perhaps) => word.sum_perhaps += times,
                None => {}
            }
            if let Some(written) = indexed {
                word.files.insert(at, written);
            }
        }
    }

    /// On a machine that would take too long, writes less.
    fn fit(&self) {
        let (done, elapsed) = (self.done.load(Ordering::Relaxed), self.progress.elapsed());
        if elapsed < Duration::from_secs(5) || done == 0 {
            return;
        }
        let fits = (done as f64 * WRITING_MAX.as_secs_f64() / elapsed.as_secs_f64()) as usize;
        let total = self.total.load(Ordering::Relaxed);
        if fits < total {
            self.total.store(fits.max(self.next.load(Ordering::Relaxed)), Ordering::Relaxed);
            self.progress.set_total(fits as u64);
        }
    }
}

/// The workers that write.
struct Writing {
    work: Arc<Work>,
    workers: JoinSet<()>,
}

impl Writing {
    fn begin(work: &Arc<Work>) -> Self {
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let work = work.clone();
            workers.spawn(async move { work.write_on().await });
        }
        Self { work: work.clone(), workers }
    }

    /// Waits until this part of the files is written.
    async fn until(&mut self, percent: usize) {
        loop {
            // Judged before the node is killed only: the outage is not to count against the machine.
            if percent == KILL_AT_PERCENT {
                self.work.fit();
            }
            let (done, total) = (self.work.done.load(Ordering::Relaxed), self.work.total.load(Ordering::Relaxed));
            if done * 100 >= total * percent || self.workers.is_empty() {
                return;
            }
            while self.workers.try_join_next().is_some() {}
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn finish(mut self) {
        while self.workers.join_next().await.is_some() {}
        self.work.progress.finish();
    }
}

/// One thing to compare.
enum Check {
    File(usize, Written),
    Word(String, WordAccount),
}

/// What reading everything back showed.
#[derive(Default)]
struct Audit {
    compared: u64,
    /// Acknowledged and not there, or not as it was written.
    lost: Vec<String>,
    lost_count: u64,
    /// Could not be read from all owners.
    unread: Vec<String>,
    unread_count: u64,
    /// Reads in which an owner still differed.
    disagreed: u64,
    strings: u64,
    counters: u64,
    members: u64,
}

impl Audit {
    async fn take(work: &Arc<Work>) -> Self {
        let everyone = Consistency { read: Level::All, ..Consistency::default() };
        let client = work.client.with(everyone);
        let take = |mutex: &Mutex<BTreeMap<usize, Written>>| {
            std::mem::take(&mut *mutex.lock().expect("nothing that can panic happens under the lock"))
        };
        let files = take(&work.account.files);
        let words = std::mem::take(&mut *work.account.words.lock().expect("as above"));
        let checks: Vec<Check> = files
            .into_iter()
            .map(|(at, written)| Check::File(at, written))
            .chain(words.into_iter().map(|(word, account)| Check::Word(word, account)))
            .collect();
        let progress = Arc::new(Progress::new("reading", "keys", Some(checks.len() as u64), false));
        let audit = Arc::new(Mutex::new(Self::default()));
        let checks = Arc::new(Mutex::new(checks.into_iter()));
        let mut readers = JoinSet::new();
        for _ in 0..WORKERS {
            let (work, client, checks) = (work.clone(), client.clone(), checks.clone());
            let (audit, progress) = (audit.clone(), progress.clone());
            readers.spawn(async move {
                loop {
                    let next = checks.lock().expect("nothing that can panic happens under the lock").next();
                    let Some(check) = next else { return };
                    let found = Finding::of(&client, &work.texts, check).await;
                    audit.lock().expect("as above").add(found);
                    progress.advance(0);
                }
            });
        }
        while readers.join_next().await.is_some() {}
        progress.finish();
        std::mem::take(&mut *audit.lock().expect("as above"))
    }

    fn add(&mut self, found: Finding) {
        self.compared += found.keys;
        self.strings += found.strings;
        self.counters += found.counters;
        self.members += found.members;
        self.disagreed += found.disagreed;
        self.lost_count += found.lost.len() as u64;
        self.unread_count += found.unread.len() as u64;
        for (all, new) in [(&mut self.lost, found.lost), (&mut self.unread, found.unread)] {
            let room = TOLD_MAX.saturating_sub(all.len());
            all.extend(new.into_iter().take(room));
        }
    }
}

/// What reading one file or one word showed.
#[derive(Default)]
struct Finding {
    keys: u64,
    strings: u64,
    counters: u64,
    members: u64,
    disagreed: u64,
    lost: Vec<String>,
    unread: Vec<String>,
}

impl Finding {
    async fn of(client: &Client, texts: &[Text], check: Check) -> Self {
        let mut finding = Self::default();
        match check {
            Check::File(at, written) => finding.file(client, &texts[at], written).await,
            Check::Word(word, account) => finding.word(client, texts, &word, &account).await,
        }
        finding
    }

    /// The value, if it could be read from all owners.
    fn read<T>(&mut self, key: &str, answer: Result<crate::client::Answer<T>, ClientError>) -> Option<T> {
        self.keys += 1;
        match answer {
            Ok(answer) => {
                self.disagreed += u64::from(!answer.receipt.disagreed.is_empty());
                Some(answer.value)
            }
            Err(error) => {
                self.unread.push(format!("{key}: {error}"));
                None
            }
        }
    }

    async fn file(&mut self, client: &Client, text: &Text, written: Written) {
        let key = file_key(text);
        let Some(value) = self.read(&key, client.get(&key).await) else { return };
        match value {
            Some(value) if value == text.content => self.strings += 1,
            None if written == Written::Perhaps => {}
            Some(value) => self.lost.push(format!(
                "{key}: {} of another content, {} were written",
                render::bytes(value.len() as u64),
                render::bytes(text.content.len() as u64)
            )),
            None => self.lost.push(format!("{key}: not there")),
        }
    }

    async fn word(&mut self, client: &Client, texts: &[Text], word: &str, account: &WordAccount) {
        let key = word_key(word);
        if let Some(value) = self.read(&key, client.get(&key).await) {
            let least = account.sum;
            let most = account.sum + account.sum_perhaps;
            match number(value.as_deref()) {
                Some(sum) if (least..=most).contains(&sum) => self.counters += 1,
                sum => self.lost.push(format!(
                    "{key}: {} instead of {least}",
                    sum.map_or("no number".into(), |sum| sum.to_string())
                )),
            }
        }
        let key = index_key(word);
        if let Some(members) = self.read(&key, client.set_members(&key).await) {
            let mut unexplained = members.len();
            for (at, written) in &account.files {
                // Members come sorted.
                let there = members.binary_search_by(|member| member[..].cmp(texts[*at].name.as_bytes())).is_ok();
                unexplained -= usize::from(there);
                match (there, written) {
                    (true, _) => self.members += 1,
                    (false, Written::Perhaps) => {}
                    (false, Written::Acknowledged) => self.lost.push(format!("{key}: {} is missing", texts[*at].name)),
                }
            }
            if unexplained > 0 {
                self.lost.push(format!("{key}: {unexplained} members that nobody added"));
            }
        }
    }
}

/// A counter that is not there counts nothing.
fn number(value: Option<&[u8]>) -> Option<i64> {
    match value {
        None => Some(0),
        Some(text) => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

/// Says how it went. True: as promised.
fn report(stage: &Stage, work: &Work, audit: &Audit, times: &Times, levelled: Option<Duration>) -> bool {
    let account = &work.account;
    let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let errors = number(&account.errors);
    let outage = times.back - times.killed;
    stage.line("");
    stage.fact("written", &format!("{} files, {}", count(work.progress.items()), render::bytes(work.progress.bytes())));
    stage.fact(
        "acknowledged",
        &format!(
            "{} writes, {} of them while a node was away; {} took more than one try",
            count(number(&account.acknowledged)),
            count(times.acknowledged_meanwhile),
            count(number(&account.retried))
        ),
    );
    stage.fact("errors", &format!("{} seen by the client", count(errors)));
    stage.fact(
        "read back",
        &format!(
            "{} strings byte for byte, {} counters exactly, {} set members; owners disagreed on {}",
            count(audit.strings),
            count(audit.counters),
            count(audit.members),
            count(audit.disagreed)
        ),
    );
    stage.fact("outage", &render::duration(outage));
    stage.fact("levelling", &levelled.map_or("did not come about".into(), render::duration));
    let fine = audit.lost_count == 0 && audit.unread_count == 0 && errors == 0 && levelled.is_some();
    stage.verdict("lost", &count(audit.lost_count), audit.lost_count == 0);
    for (what, lines, all) in [
        ("lost", &audit.lost, audit.lost_count),
        ("could not be read", &audit.unread, audit.unread_count),
        ("error", &*account.told.lock().expect("nothing that can panic happens under the lock"), errors),
    ] {
        for line in lines {
            stage.line(&format!("  {what}: {line}"));
        }
        if all > lines.len() as u64 {
            stage.line(&format!("  {what}: and {} more", count(all - lines.len() as u64)));
        }
    }
    fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_added_up_and_told_up_to_a_bound() {
        let mut audit = Audit::default();
        for at in 0..20 {
            audit.add(Finding { keys: 1, lost: vec![format!("k{at}")], ..Finding::default() });
        }
        assert_eq!((audit.compared, audit.lost_count, audit.lost.len()), (20, 20, TOLD_MAX));
    }

    #[test]
    fn an_absent_counter_is_nought_and_a_text_is_none() {
        assert_eq!(number(None), Some(0));
        assert_eq!(number(Some(b"-12")), Some(-12));
        assert_eq!(number(Some(b"twelve")), None);
    }

    #[tokio::test]
    async fn a_cluster_that_the_demo_did_not_make_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("dev.toml"), "").expect("written");
        let refused = clear(folder.path(), Path::new("/bin/false")).await.expect_err("not ours");
        assert!(refused.to_string().contains("did not make"), "{refused}");
        assert!(folder.path().join("dev.toml").exists());
        clear(&folder.path().join("new"), Path::new("/bin/false")).await.expect("nothing there");
    }
}
