//! What people and machines get wrong, a test each: what they are told, and that the node goes on.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tidewater::cli::tls::{Bearer, create_authority, issue_certificate};
use tidewater::client::Client;
use tidewater::data::consistency::{Consistency, Level};
use tidewater::data::op::{Outcome, RequestError};
use tidewater::net::endpoint::Endpoint;
use tidewater::net::link::{Link, LinkEnd, Sink};
use tidewater::net::options::NetOptions;
use tidewater::net::tls::{Identity, Role};
use tidewater::storage::folder::FORMAT;
use tidewater::wire::frame::Class;
use tidewater::{ClientError, ClientOptions};
use tokio::task::JoinSet;

use crate::harness::{Cluster, PATIENCE, Said, command, free_ports, http_get, said, until, within};

const LONGEST: Duration = Duration::from_secs(60);

/// `tidewater node` with a cluster's settings and what else is given.
async fn node(config: &Path, more: &[&str]) -> Said {
    said(command(["node", "--config"]).arg(config).args(more)).await
}

#[track_caller]
fn told(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "wanted: {part}\ngot: {text}");
    }
}

/// The node is the process that it was, and serves.
async fn goes_on(cluster: &mut Cluster, number: u16, pid: u32) {
    cluster.local.poll();
    assert_eq!(cluster.node(number).pid(), Some(pid), "{}", cluster.log(number));
    let mut resp = cluster.resp(number).await;
    assert_eq!(resp.line("SET alive yes").await, "+OK");
    assert_eq!(resp.line("GET alive").await, "yes");
    assert!(!cluster.log(number).contains("panicked"), "{}", cluster.log(number));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_or_value_too_large_is_refused_and_nothing_is_written() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(1).await;
        let pid = cluster.pid(1);
        let client = cluster.client().await;
        let key = vec![b'k'; (32 << 10) + 1];
        let refused = client.set(&key, "x").await.expect_err("too large");
        let limit = RequestError::KeyTooLarge { size: (32 << 10) + 1, limit: 32 << 10 };
        assert_eq!(refused.refusal(), Some(&limit));
        told(&refused.to_string(), &["32769 bytes", "32768 are allowed", "key_size_max"]);
        client.set(&key[1..], "x").await.expect("just large enough");

        // The one above the node's limit, the other above what fits into a message: neither is tried twice.
        for size in [(8 << 20) + 1, 20 << 20] {
            let refused = client.within(PATIENCE).set("large", vec![b'v'; size]).await.expect_err("too large");
            assert!(matches!(refused, ClientError::Refused { attempts: 1, .. }), "{refused:?}");
            assert!(matches!(refused.refusal(), Some(RequestError::ValueTooLarge { .. })), "{refused}");
            assert_eq!(refused.outcome(), Outcome::NotApplied);
        }
        let refused = client.add_to_set("large", [vec![b'm'; (8 << 20) + 1]]).await.expect_err("too large");
        assert!(matches!(refused.refusal(), Some(RequestError::ValueTooLarge { .. })), "{refused}");
        assert!(!client.exists("large").await.expect("read").value);
        client.within(PATIENCE).set("large", vec![b'v'; 8 << 20]).await.expect("just large enough");

        let mut resp = cluster.resp(1).await;
        let refused = resp.ask(&[b"SET", b"resp", &vec![b'v'; (8 << 20) + 1]]).await;
        told(&refused, &["-ERR", "8388609 bytes", "value_size_max"]);
        assert_eq!(resp.line("EXISTS resp").await, ":0");

        let file = cluster.path().join("large.bin");
        std::fs::write(&file, vec![0; (8 << 20) + 1]).expect("written");
        let said = cluster.run(["put", "cli", "--file", file.to_str().expect("text")]).await.expect(1);
        told(&said.err, &["8388609 bytes", "value_size_max"]);
        goes_on(&mut cluster, 1, pid).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_settings_are_told_with_line_field_and_what_is_allowed() {
    within(LONGEST, async {
        let cluster = Cluster::make(1).await;
        let config = &cluster.node(1).config;
        let good = std::fs::read_to_string(config).expect("there");
        let bad = config.with_file_name("bad.toml");
        let text = good.replace("memory = \"128MiB\"", "memroy = \"128MiB\"").replace("replicas = 1", "replicas = 9");
        std::fs::write(&bad, &text).expect("written");
        let line_of = |what: &str| text.lines().position(|line| line.starts_with(what)).expect("there") + 1;
        for more in [&["--check"][..], &[]] {
            let said = node(&bad, more).await.expect(2);
            told(
                &said.err,
                &[
                    &format!(
                        "bad.toml:{}:1: memroy: there is no such setting; did you mean memory?",
                        line_of("memroy")
                    ),
                    &format!(
                        "bad.toml:{}:1: layout.replicas: 9 is not allowed: use a whole number from 1 to 7",
                        line_of("replicas")
                    ),
                ],
            );
            assert!(!cluster.node(1).store.exists(), "nothing was tried");
        }
        let said = node(config, &["--set", "swim.probe_period=1ms"]).await.expect(2);
        told(&said.err, &["--set", "swim.probe_period", "use a time from"]);
        let said = node(config, &["--set", "colour=red"]).await.expect(2);
        told(&said.err, &["--set: colour: there is no such setting"]);
        let said = node(&config.with_file_name("nowhere.toml"), &[]).await.expect(2);
        told(&said.err, &["cannot read the settings", "nowhere.toml"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_type_is_refused_and_leaves_the_value() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(1).await;
        let pid = cluster.pid(1);
        let client = cluster.client().await;
        client.set("text", "hello").await.expect("written");
        for refused in [
            client.add_to_set("text", ["m"]).await.map(|_| ()).expect_err("a string is no set"),
            client.hash_set("text", [("f", "v")]).await.map(|_| ()).expect_err("a string is no hash"),
            client.set_members("text").await.map(|_| ()).expect_err("a string is no set"),
        ] {
            assert_eq!(refused.refusal(), Some(&RequestError::WrongType));
            assert_eq!(refused.outcome(), Outcome::NotApplied);
        }
        let refused = client.increment("text", 1).await.expect_err("hello is no number");
        assert_eq!(refused.refusal(), Some(&RequestError::NotInteger));
        let mut resp = cluster.resp(1).await;
        assert!(resp.line("SADD text m").await.starts_with("-WRONGTYPE "));
        assert!(resp.line("INCR text").await.starts_with("-ERR value is not an integer"));
        let said = cluster.run(["sadd", "text", "m"]).await.expect(1);
        told(&said.err, &["wrong kind of value"]);
        assert_eq!(client.get("text").await.expect("read").value.as_deref(), Some(&b"hello"[..]));
        goes_on(&mut cluster, 1, pid).await;
    })
    .await;
}

/// Remembers how its link ended.
struct Ends(tokio::sync::mpsc::UnboundedSender<LinkEnd>);

impl Sink for Ends {
    fn on_frames(&self, _: &Link, _: Class, _: Vec<Bytes>) {}
    fn on_datagram(&self, _: &Link, _: Bytes) {}
    fn on_closed(&self, _: &Link, end: &LinkEnd) {
        let _ = self.0.send(end.clone());
    }
}

/// Dials as `identity` and sends each of these as a frame; gives how the link ended.
async fn send_frames(identity: Identity, address: &str, frames: &[Bytes]) -> LinkEnd {
    // What this side holds for a frame may be more than what the other does.
    let options = NetOptions { frame_bytes_max: 64 << 20, ..NetOptions::default() };
    let endpoint = Endpoint::client(identity, options).expect("a socket");
    let (tell, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let link = endpoint.dial_any(address, Arc::new(Ends(tell))).await.expect("let in");
    for frame in frames {
        // It may be over already.
        let _ = link.send(Class::Foreground, frame);
    }
    within(PATIENCE, ends.recv()).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_from_a_client_ends_its_link_and_is_counted() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(1).await;
        let pid = cluster.pid(1);
        let address = cluster.node(1).quic.clone();
        let noise: Vec<u8> = (0..4_096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for frame in [Bytes::from_static(&[0xff; 64]), Bytes::from(noise.clone()), Bytes::from_static(&[0])] {
            let end = send_frames(cluster.identity(), &address, &[frame]).await;
            assert_eq!(end.code, Some(2), "a bad frame, and it says so: {end:?}");
            assert!(!end.text.is_empty());
        }
        assert_eq!(cluster.metric(1, "frames_refused_total").await, 3);
        told(&cluster.log(1), &["a client's frame is no message", "client=\"client\""]);

        let end = send_frames(cluster.identity(), &address, &[Bytes::from(vec![0; 17 << 20])]).await;
        assert_eq!(end.code, Some(2), "{end:?}");
        told(&end.text, &["17825792 bytes", "quic.frame_size_max"]);
        assert_eq!(cluster.metric(1, "frames_broken_total").await, 1);

        // No QUIC at all.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for piece in noise.chunks(1_200) {
            socket.send_to(piece, &address).expect("sent");
        }
        goes_on(&mut cluster, 1, pid).await;
        let client = cluster.client().await;
        client.set("a", "x").await.expect("other links are not disturbed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_from_a_peer_is_dropped_and_counted() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(3).await;
        cluster.until_all_see_each_other().await;
        cluster.kill(3).await;
        let pid = cluster.pid(1);
        let folder = cluster.node(3).config.parent().expect("a folder").to_owned();
        let file = |name: &str| folder.join(name);
        let wall_ms = tidewater::net::entropy::wall_ms();
        let n3 = Identity::load(&file("ca.crt"), &file("n3.crt"), &file("n3.key"), wall_ms).expect("n3's own");
        let endpoint = Endpoint::client(n3, NetOptions::default()).expect("a socket");
        let (tell, _ends) = tokio::sync::mpsc::unbounded_channel();
        let link = endpoint.dial_any(&cluster.node(1).quic, Arc::new(Ends(tell))).await.expect("let in");
        for byte in 0..32_u8 {
            link.send(Class::ALL[usize::from(byte) % 3], &Bytes::from(vec![0xff - byte; 100])).expect("taken");
            link.send_datagram(Bytes::from(vec![byte; 100])).expect("taken");
        }
        until("the frames are counted", PATIENCE, async || cluster.metric(1, "frames_refused_total").await == 32).await;
        told(&cluster.log(1), &["a peer's frame is no message"]);
        goes_on(&mut cluster, 1, pid).await;
        link.close(tidewater::net::link::CloseCode::Done, "done");
        cluster.restart(3).await;
        let client = cluster.client().await;
        cluster.level(&client).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_resp_frame_ends_its_connection_with_a_word() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(1).await;
        let pid = cluster.pid(1);
        let mut other = cluster.resp(1).await;
        for (bytes, word) in [
            (&b"*1\r\nGET\r\n"[..], "expected '$', got 'G'"),
            (b"*x\r\n", "invalid multibulk length"),
            (b"*1\r\n$-5\r\n", "invalid bulk length"),
            (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n", "invalid bulk length"),
            (b"SET a \"b\r\n", "unbalanced quotes"),
        ] {
            let mut resp = cluster.resp(1).await;
            resp.send(bytes).await;
            let said = resp.reply().await;
            assert!(said.starts_with("-ERR Protocol error") && said.contains(word), "{said}");
            assert_eq!(resp.reply().await, "(end)");
        }
        let mut resp = cluster.resp(1).await;
        resp.send(&[0xff; 100_000]).await;
        let said = resp.reply().await;
        assert!(said.starts_with("-ERR") || said == "(end)", "{said}");
        assert_eq!(other.line("PING").await, "+PONG", "other connections are not disturbed");
        goes_on(&mut cluster, 1, pid).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_certificate_is_refused_with_its_reason() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(1).await;
        let pid = cluster.pid(1);
        let foreign = cluster.path().join("foreign");
        // Of the same name: only the authority's key tells them apart.
        let authority = create_authority(&foreign, "dev", 30).expect("made");
        for (name, role) in [("client", Role::Client), ("n1", Role::Node)] {
            let bearer = Bearer { name, role, hosts: &[], days: 30 };
            issue_certificate(&authority, &foreign, bearer, false).expect("issued");
        }
        let identity = tidewater::cli::connect::identity(&foreign).expect("good in itself");
        let options = ClientOptions::new(cluster.local.addresses(), identity);
        let refused = Client::connect(options).await.expect_err("not of this cluster").to_string();
        told(&refused, &["another authority issued its certificate", &cluster.node(1).quic]);
        until("the node counts it", PATIENCE, async || cluster.metric(1, "handshakes_failed_total").await > 0).await;
        told(&cluster.log(1), &["no link:"]);

        let said =
            said(command(["get", "a", "--connect", &cluster.node(1).quic, "--tls-dir"]).arg(&foreign)).await.expect(1);
        told(&said.err, &["another authority issued its certificate"]);

        // One who believes in this cluster's authority, with a certificate of the other.
        let mixed = cluster.path().join("mixed");
        std::fs::create_dir(&mixed).expect("made");
        std::fs::copy(cluster.local.tls_dir().join("ca.crt"), mixed.join("ca.crt")).expect("copied");
        for name in ["client.crt", "client.key"] {
            std::fs::copy(foreign.join(name), mixed.join(name)).expect("copied");
        }
        let refused = tidewater::cli::connect::identity(&mixed).expect_err("they do not fit").to_string();
        told(&refused, &["was not issued by the authority", "client.crt"]);

        // A node with a foreign certificate does not even start.
        let (certificate, key) = (foreign.join("n1.crt"), foreign.join("n1.key"));
        cluster.stop(1).await;
        let config = cluster.node(1).config.clone();
        let certificate = format!("tls.certificate={}", certificate.display());
        let key = format!("tls.key={}", key.display());
        let said = node(&config, &["--set", &certificate, "--set", &key]).await.expect(1);
        told(&said.err, &["was not issued by the authority"]);
        cluster.restart(1).await;
        assert_ne!(cluster.pid(1), pid);
        let pid = cluster.pid(1);
        goes_on(&mut cluster, 1, pid).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_of_another_node_or_format_or_in_use_is_left_as_it_is() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(2).await;
        let client = cluster.client().await;
        let all = Consistency { write: Level::All, ..Consistency::default() };
        client.with(all).set("a", "x").await.expect("written");
        cluster.stop(2).await;
        let config = cluster.node(2).config.clone();
        let folder_of = |number: u16| cluster.node(number).store.clone();
        let (first, second) = (folder_of(1), folder_of(2));
        let other = format!("data={}", first.display());
        let said = node(&config, &["--set", &other]).await.expect(1);
        let holder = format!("{}", cluster.pid(1));
        assert!(said.err.contains("is in use by") && said.err.contains(&holder), "{}", said.err);

        cluster.stop(1).await;
        let before = picture(&first);
        let said = node(&config, &["--set", &other]).await.expect(1);
        told(&said.err, &["belongs to node \"n1\"", "this node is called \"n2\"", &first.display().to_string()]);
        let strange = format!("data={}", cluster.path().display());
        let said = node(&config, &["--set", &strange]).await.expect(1);
        told(&said.err, &["is not Tidewater's"]);
        assert_eq!(picture(&first), before, "it is as it was");

        let marker = second.join("tidewater.toml");
        let good = std::fs::read_to_string(&marker).expect("there");
        std::fs::write(&marker, good.replace(&format!("format = {FORMAT}"), "format = 99")).expect("written");
        let before = picture(&second);
        let said = node(&config, &[]).await.expect(1);
        told(&said.err, &["has format 99", &format!("reads only format {FORMAT}"), "the version that wrote it"]);
        assert_eq!(picture(&second), before, "it is as it was");
        std::fs::write(&marker, good).expect("written");

        cluster.start_all().await;
        let client = cluster.client().await;
        assert_eq!(client.get("a").await.expect("read").value.as_deref(), Some(&b"x"[..]));
    })
    .await;
}

/// The files of a folder with their lengths, but for the lock, which says who had it last.
fn picture(folder: &Path) -> Vec<(PathBuf, u64)> {
    let files = tidewater::cli::import::walk(folder.to_owned()).map(|file| file.expect("readable"));
    let named = |file: PathBuf| (file.metadata().expect("there").len(), file);
    let mut files: Vec<_> = files.map(named).map(|(length, file)| (file, length)).collect();
    files.retain(|(file, _)| file.file_name().is_none_or(|name| name != "lock"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_told_with_its_setting() {
    within(LONGEST, async {
        let cluster = Cluster::make(1).await;
        let config = cluster.node(1).config.clone();
        let port = free_ports(1);
        let address = format!("127.0.0.1:{port}");
        let _tcp = TcpListener::bind(&address).expect("free");
        let _udp = UdpSocket::bind(&address).expect("free");
        for (door, setting) in [("RESP", "resp.listen"), ("HTTP", "http.listen"), ("UDP", "quic.listen")] {
            let listen = format!("{setting}={address}");
            let began = Instant::now();
            let said = node(&config, &["--set", &listen]).await.expect(1);
            told(&said.err, &["cannot listen", door, &address, setting]);
            told(&said.err.to_lowercase(), &["in use"]);
            assert!(began.elapsed() < PATIENCE);
        }
    })
    .await;
}

/// A small file system of its own, gone at the end.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    const MIB: u64 = 160;

    /// `None`: this machine does not let us.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={}m", Self::MIB);
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tidewater-test"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            other => {
                eprintln!(
                    "SKIPPED, NOT PROVED: what happens on a full disk, for no tmpfs can be mounted here: {other:?}"
                );
                None
            }
        }
    }

    /// Takes room until `left` bytes are free; no more than is there.
    fn fill(&self, left: u64) {
        use std::io::Write as _;
        let mut file = std::fs::File::options().create(true).append(true).open(self.ballast()).expect("opened");
        // At once: n3 looks at its disk every now and then, and this is about what comes between two looks.
        let piece = vec![0; 64 << 10];
        let wanted = self.free().saturating_sub(left).div_ceil(64 << 10) + u64::from(left == 0);
        for _ in 0..wanted {
            if file.write_all(&piece).is_err() {
                return;
            }
        }
    }

    fn free(&self) -> u64 {
        let output =
            Command::new("stat").args(["-f", "-c", "%a %S"]).arg(self.folder.path()).output().expect("stat runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (blocks, size) = text.trim().split_once(' ').expect("two numbers");
        blocks.parse::<u64>().expect("a number") * size.parse::<u64>().expect("a number")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("it is ours");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, should a node of a failed test still be ending.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_its_node_and_nothing_else() {
    within(Duration::from_secs(90), async {
        // Declared first, so that it goes after the nodes.
        let Some(disk) = SmallDisk::mount() else { return };
        let mut cluster = Cluster::make_alone(3).await;
        let config = cluster.node(3).config.clone();
        let text = std::fs::read_to_string(&config).expect("there");
        let store = cluster.node(3).store.clone();
        std::os::unix::fs::symlink(disk.folder.path().join("store"), &store).expect("linked");
        std::fs::create_dir(disk.folder.path().join("store")).expect("made");
        // A little memory, so that little is enough to fill it.
        std::fs::write(&config, text.replace("128MiB", "32MiB")).expect("written");
        cluster.start_all().await;
        cluster.until_all_see_each_other().await;
        let pid = cluster.pid(3);
        let client = cluster.client().await.within(Duration::from_secs(10));

        // Nearly full: that node refuses what would grow and says why; the others go on; removing is how room is made.
        client.set("to be removed", vec![b'x'; 1 << 20]).await.expect("there is room");
        disk.fill(50 << 20);
        let mut third = cluster.resp(3).await;
        until("n3 refuses writes", PATIENCE, async || third.line("SET a x").await.starts_with("-OVERLOADED ")).await;
        told(&third.line("SET a x").await, &["n3", "the disk is nearly full"]);
        client.set("while n3 is nearly full", "x").await.expect("n1 and n2 take it");
        assert_eq!(third.ask(&[b"GET", b"while n3 is nearly full"]).await, "x");
        assert_eq!(third.ask(&[b"DEL", b"to be removed"]).await, ":1");
        disk.empty();
        until("n3 takes writes again", PATIENCE, async || third.line("SET a x").await == "+OK").await;

        // Full all at once, while it writes.
        let mut acknowledged = Vec::new();
        let began = Instant::now();
        'rounds: for round in 0.. {
            assert!(round < 8 && began.elapsed() < Duration::from_secs(45), "n3 did not notice");
            let mut writes = JoinSet::new();
            for at in 0..48 {
                let (client, key) = (client.clone(), format!("large:{round}:{at}"));
                writes.spawn(async move { client.set(&key, vec![at; 1 << 20]).await.map(|_| (key, at)) });
                if at == 2 {
                    disk.fill(0);
                }
            }
            while let Some(written) = writes.join_next().await {
                acknowledged.push(written.expect("no panic").expect("n1 and n2 are enough"));
            }
            for _ in 0..30 {
                if http_get(&cluster.node(3).http, "/health").await.is_some_and(|(code, _)| code == 503) {
                    break 'rounds;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            disk.empty();
            until("n3 takes writes again", PATIENCE, async || third.line("SET a x").await == "+OK").await;
        }
        let (_, health) = http_get(&cluster.node(3).http, "/health").await.expect("the node is alive");
        told(&health, &["fenced"]);
        told(&cluster.log(3), &["the store failed and is fenced"]);
        cluster.local.poll();
        assert_eq!(cluster.node(3).pid(), Some(pid), "alive");
        let refused = third.line("TW.WITH WRITE one -- SET a x").await;
        told(&refused, &["-STOREFAILED ", "n3", "fenced"]);
        let said = cluster.run(["status"]).await.expect(1);
        told(&said.out, &["n3 is fenced: ", "fenced"]);

        // The others do not miss it, and nothing that was acknowledged is missing.
        for at in 0..20 {
            let key = format!("after:{at}");
            client.set(&key, "x").await.expect("n1 and n2 are enough");
            acknowledged.push((key, b'x'));
        }
        for (key, byte) in &acknowledged {
            let found = client.get(key).await.expect("read").value.expect("it is there");
            assert!(!found.is_empty() && found.iter().all(|found| found == byte), "{key}");
        }

        // With room again and after a restart it comes level.
        disk.empty();
        cluster.stop(3).await;
        cluster.restart(3).await;
        let client = cluster.client().await.within(Duration::from_secs(10));
        cluster.level(&client).await;
        let all = client.with(Consistency { read: Level::All, ..Consistency::default() });
        for (key, byte) in acknowledged.iter().step_by(7) {
            let found = all.get(key).await.expect("all answer").value.expect("it is there");
            assert!(found.iter().all(|found| found == byte), "{key}");
        }
    })
    .await;
}
