//! What a request cannot cost less than: the CPU of the parts that any node on this base needs, without a line of the node.
//!
//! 1. a framed echo of 140 bytes on one long-lived QUIC stream, 64 in flight, two endpoints on a thread each
//! 2. a RocksDB batch of row and log entry per operation, WAL without sync, in batches of 1, 8 and 32; and a get
//! 3. a RESP-sized round trip over TCP, 64 connections, to a server that answers `+OK` to whatever comes
//!
//! and the sums: a `SET` at `quorum` on three nodes is one of 3, two of 1 (both sides) and three operations' share of 2; a `GET`
//! at `one` is one of 3 and one get. Divide what a node really uses by these.
//!
//! `cargo run -p bench --bin floor -- [--json] [--rounds N] [--only quic|storage|resp]`, one second per round.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bench::{Arguments, Cpu, Figure, Machine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A request between peers: key, value of 100 bytes, dot, header.
const MESSAGE_BYTES: usize = 140;
const FRAME_BYTES: usize = 4 + MESSAGE_BYTES;
const IN_FLIGHT: usize = 64;
const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(1);

fn main() -> Outcome<()> {
    let arguments = Arguments::read("What a request cannot cost less than.", 7);
    let machine = Machine::watch();
    let mut figures = Vec::new();
    let mut parts = Parts::default();
    if arguments.wants("quic") {
        parts.quic = Some(quic(arguments.rounds, &mut figures)?);
    }
    if arguments.wants("storage") {
        storage(arguments.rounds, &mut figures, &mut parts)?;
    }
    if arguments.wants("resp") {
        parts.resp = Some(resp(arguments.rounds, &mut figures)?);
    }
    figures.extend(parts.sums());
    let title = "What a request cannot cost less than, in microseconds of CPU (user + system)";
    bench::print(title, &figures, &machine, arguments.json);
    Ok(())
}

/// The figures that the sums are made of.
#[derive(Default)]
struct Parts {
    /// Both sides together.
    quic: Option<Figure>,
    /// Per operation, by size of batch.
    batches: Vec<(usize, Figure)>,
    get: Option<Figure>,
    /// The server's side.
    resp: Option<Figure>,
}

impl Parts {
    fn sums(&self) -> Vec<Figure> {
        let mut sums = Vec::new();
        if let (Some(resp), Some(quic)) = (&self.resp, &self.quic) {
            for (size, batch) in &self.batches {
                let sum = |of: fn(&Figure) -> f64| of(resp) + 2.0 * of(quic) + 3.0 * of(batch);
                sums.push(Figure {
                    name: format!("SET at quorum, three nodes, batches of {size}"),
                    unit: "us",
                    least: sum(|figure| figure.least),
                    median: sum(|figure| figure.median),
                    note: "resp + 2 quic + 3 storage".to_owned(),
                });
            }
        }
        if let (Some(resp), Some(get)) = (&self.resp, &self.get) {
            sums.push(Figure {
                name: "GET at one".to_owned(),
                unit: "us",
                least: resp.least + get.least,
                median: resp.median + get.median,
                note: "resp + get".to_owned(),
            });
        }
        sums
    }
}

/// CPU per operation, round by round, of one side.
#[derive(Default)]
struct Rounds {
    total_us: Vec<f64>,
    user_us: f64,
    system_us: f64,
}

impl Rounds {
    fn add(&mut self, used: Cpu, operations: u64) {
        let operations = operations.max(1) as f64;
        self.total_us.push(used.total_us() / operations);
        self.user_us += used.user_us;
        self.system_us += used.system_us;
    }

    fn figure(&self, name: &str) -> Figure {
        let percent = 100.0 * self.system_us / (self.user_us + self.system_us).max(1.0);
        Figure::of(name, "us", self.total_us.clone()).noting(format!("{percent:.0} % of it in the kernel"))
    }
}

/// A thread with a runtime of its own, so that its CPU time is that of one side and of nothing else. Ends when dropped.
struct Side {
    /// Closing it ends the thread.
    samples: Option<mpsc::Sender<oneshot::Sender<Cpu>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Side {
    fn start<F>(work: impl FnOnce() -> F + Send + 'static) -> Outcome<Self>
    where
        F: Future<Output = Outcome<()>> + 'static,
    {
        let (samples, mut asked) = mpsc::channel::<oneshot::Sender<Cpu>>(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let answer_samples = async move {
                    while let Some(answer) = asked.recv().await {
                        // Nobody waiting for it any more is no reason to stop.
                        let _ = answer.send(Cpu::of_this_thread());
                    }
                };
                tokio::select! {
                    () = answer_samples => {}
                    outcome = work() => {
                        if let Err(error) = outcome {
                            eprintln!("a side ended early: {error}");
                        }
                    }
                }
            });
        });
        Ok(Self { samples: Some(samples), thread: Some(thread) })
    }

    async fn cpu(&self) -> Outcome<Cpu> {
        let (answer, waits) = oneshot::channel();
        self.samples.as_ref().ok_or("the side has ended")?.send(answer).await?;
        Ok(waits.await?)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.samples = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has printed itself.
            let _ = thread.join();
        }
    }
}

/// Samples two sides before and after each round of counting.
fn rounds(count: usize, sides: [&Side; 2], done: &AtomicU64) -> Outcome<[Rounds; 2]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut measured = [Rounds::default(), Rounds::default()];
        tokio::time::sleep(WARM_UP).await;
        for _ in 0..count {
            let before = (sides[0].cpu().await?, sides[1].cpu().await?, done.load(Ordering::Relaxed));
            tokio::time::sleep(ROUND).await;
            let after = (sides[0].cpu().await?, sides[1].cpu().await?, done.load(Ordering::Relaxed));
            let operations = after.2 - before.2;
            if operations == 0 {
                return Err("nothing was answered for a whole round".into());
            }
            measured[0].add(after.0.since(before.0), operations);
            measured[1].add(after.1.since(before.1), operations);
        }
        Ok(measured)
    })
}

fn together(name: &str, sides: &[Rounds; 2]) -> Figure {
    let sums = sides[0].total_us.iter().zip(&sides[1].total_us).map(|(one, other)| one + other).collect();
    Figure::of(name, "us", sums)
}

// ---- QUIC

fn quic(count: usize, figures: &mut Vec<Figure>) -> Outcome<Figure> {
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = authority.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(authority.signing_key.serialize_der());
    let server_config = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client_config = quinn::ClientConfig::with_root_certificates(Arc::new(roots))?;

    let (address_known, address) = std::sync::mpsc::channel();
    let server = Side::start(move || quic_server(server_config, address_known))?;
    let address = address.recv()?;
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    let client = Side::start(move || quic_client(client_config, address, counted))?;

    let sides = rounds(count, [&client, &server], &done)?;
    // The asking side first: an answering side whose peer has gone would complain.
    drop(client);
    drop(server);
    figures.push(sides[0].figure("quic: echo, the asking side"));
    figures.push(sides[1].figure("quic: echo, the answering side"));
    let both = together("quic: echo, both sides", &sides);
    figures.push(both.clone());
    Ok(both)
}

async fn quic_server(config: quinn::ServerConfig, address: std::sync::mpsc::Sender<SocketAddr>) -> Outcome<()> {
    let endpoint = quinn::Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    address.send(endpoint.local_addr()?)?;
    let connection = endpoint.accept().await.ok_or("the endpoint closed")?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut waiting = Vec::new();
    loop {
        let frames = read_frames(&mut receive, &mut waiting).await?;
        // All answers to what came together leave together.
        send.write_all(&frames).await?;
    }
}

async fn quic_client(config: quinn::ClientConfig, address: SocketAddr, done: Arc<AtomicU64>) -> Outcome<()> {
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(address, "localhost")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let frame: Vec<u8> = (MESSAGE_BYTES as u32).to_be_bytes().into_iter().chain([7; MESSAGE_BYTES]).collect();
    send.write_all(&frame.repeat(IN_FLIGHT)).await?;
    let mut waiting = Vec::new();
    loop {
        let answers = read_frames(&mut receive, &mut waiting).await?.len() / FRAME_BYTES;
        done.fetch_add(answers as u64, Ordering::Relaxed);
        send.write_all(&frame.repeat(answers)).await?;
    }
}

/// Waits until at least one whole frame is there and takes all whole ones.
async fn read_frames(receive: &mut quinn::RecvStream, waiting: &mut Vec<u8>) -> Outcome<Vec<u8>> {
    loop {
        let mut whole = 0;
        while let Some(length) = waiting[whole..].first_chunk::<4>() {
            let end = whole + 4 + u32::from_be_bytes(*length) as usize;
            if end > waiting.len() {
                break;
            }
            whole = end;
        }
        if whole > 0 {
            let rest = waiting.split_off(whole);
            return Ok(std::mem::replace(waiting, rest));
        }
        let chunk = receive.read_chunk(64 * 1024, true).await?.ok_or("the stream ended")?;
        waiting.extend_from_slice(&chunk.bytes);
    }
}

// ---- RESP

fn resp(count: usize, figures: &mut Vec<Figure>) -> Outcome<Figure> {
    let request = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$100\r\n{}\r\n", "v".repeat(100)).into_bytes();
    let request_bytes = request.len();
    let (address_known, address) = std::sync::mpsc::channel();
    let server = Side::start(move || resp_server(request_bytes, address_known))?;
    let address = address.recv()?;
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    let client = Side::start(move || resp_clients(request, address, counted))?;

    let sides = rounds(count, [&client, &server], &done)?;
    drop(client);
    drop(server);
    figures.push(sides[0].figure("resp: round trip, the client"));
    let answering = sides[1].figure("resp: round trip, the server");
    figures.push(answering.clone());
    Ok(answering)
}

async fn resp_server(request_bytes: usize, address: std::sync::mpsc::Sender<SocketAddr>) -> Outcome<()> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    address.send(listener.local_addr()?)?;
    loop {
        let (mut socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            let mut held = 0;
            while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                held += read;
                let answers = held / request_bytes;
                held %= request_bytes;
                for _ in 0..answers {
                    if socket.write_all(b"+OK\r\n").await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

async fn resp_clients(request: Vec<u8>, address: SocketAddr, done: Arc<AtomicU64>) -> Outcome<()> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let (request, done) = (request.clone(), done.clone());
        clients.push(tokio::spawn(async move {
            let mut socket = tokio::net::TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let mut answer = [0; 5];
            loop {
                socket.write_all(&request).await?;
                socket.read_exact(&mut answer).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            #[expect(unreachable_code, reason = "names the error type of a loop without end")]
            Outcome::Ok(())
        }));
    }
    for client in clients {
        client.await??;
    }
    Ok(())
}

// ---- storage

#[cfg(feature = "rocks")]
fn storage(count: usize, figures: &mut Vec<Figure>, parts: &mut Parts) -> Outcome<()> {
    for size in [1, 8, 32] {
        let store = Store::create()?;
        let (working, all) = store.batches(size, count)?;
        figures.push(working.figure(&format!("storage: row and log entry, batches of {size}, the writing thread")));
        let all = all.figure(&format!("storage: row and log entry, batches of {size}, with flush and compaction"));
        figures.push(all.clone());
        parts.batches.push((size, all));
        if size == 32 {
            let get = store.gets(count)?.figure("storage: get a row");
            figures.push(get.clone());
            parts.get = Some(get);
        }
    }
    Ok(())
}

#[cfg(not(feature = "rocks"))]
fn storage(_count: usize, _figures: &mut Vec<Figure>, parts: &mut Parts) -> Outcome<()> {
    eprintln!("built without the feature `rocks`: no storage figures and no sums");
    parts.batches.clear();
    parts.get = None;
    Ok(())
}

#[cfg(feature = "rocks")]
struct Store {
    database: rocksdb::DB,
    /// Removed with its files when the store goes.
    _folder: tempfile::TempDir,
}

#[cfg(feature = "rocks")]
impl Store {
    const ROWS: u64 = 100_000;

    fn create() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        // One thread writes: entering the memtable as one of several costs a tenth to a quarter more.
        options.set_allow_concurrent_memtable_write(false);
        let database = rocksdb::DB::open(&options, folder.path())?;
        Ok(Self { database, _folder: folder })
    }

    /// Partition, hash, namespace, key, component: 30 bytes. With a payload of 70 the row is 100.
    fn row(number: u64) -> [u8; 30] {
        let mut key = [b'k'; 30];
        key[..2].copy_from_slice(&((number % 1024) as u16).to_be_bytes());
        key[2..10].copy_from_slice(&tidewater::data::id::mix64(number).to_be_bytes());
        key[10..18].copy_from_slice(&number.to_be_bytes());
        key
    }

    /// Partition, incarnation, counter: 18 bytes. With the row's hash and the rest of its name the entry is 40.
    fn log(number: u64, counter: u64) -> [u8; 18] {
        let mut key = [b'i'; 18];
        key[..2].copy_from_slice(&((number % 1024) as u16).to_be_bytes());
        key[10..].copy_from_slice(&counter.to_be_bytes());
        key
    }

    /// The writing thread's CPU per operation, and the whole process's.
    fn batches(&self, size: usize, count: usize) -> Outcome<(Rounds, Rounds)> {
        let mut working = Rounds::default();
        let mut all = Rounds::default();
        let mut random = 1;
        let mut counter = 0;
        let mut write = |duration: Duration| -> Outcome<u64> {
            let start = std::time::Instant::now();
            let before = counter;
            while start.elapsed() < duration {
                let mut batch = rocksdb::WriteBatch::default();
                for _ in 0..size {
                    random = tidewater::data::id::mix64(random + counter);
                    counter += 1;
                    let number = random % Self::ROWS;
                    batch.put(Self::row(number), [7; 70]);
                    batch.put(Self::log(number, counter), [9; 22]);
                }
                self.database.write(batch)?;
            }
            Ok(counter - before)
        };
        write(WARM_UP)?;
        for _ in 0..count {
            let before = (Cpu::of_this_thread(), Cpu::of_this_process());
            let operations = write(ROUND)?;
            working.add(Cpu::of_this_thread().since(before.0), operations);
            all.add(Cpu::of_this_process().since(before.1), operations);
        }
        Ok((working, all))
    }

    fn gets(&self, count: usize) -> Outcome<Rounds> {
        let mut rounds = Rounds::default();
        let mut random = 1;
        for _ in 0..count {
            let before = Cpu::of_this_thread();
            let start = std::time::Instant::now();
            let mut operations = 0;
            while start.elapsed() < ROUND {
                for _ in 0..64 {
                    random = tidewater::data::id::mix64(random + 1);
                    std::hint::black_box(self.database.get_pinned(Self::row(random % Self::ROWS))?);
                }
                operations += 64;
            }
            rounds.add(Cpu::of_this_thread().since(before), operations);
        }
        Ok(rounds)
    }
}
