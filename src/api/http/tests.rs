//! The door over real sockets, against a node that is what a test says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{HttpOptions, metrics, serve};
use crate::api::door::Door;
use crate::data::id::{Incarnation, NodeId, OpId, Partition};
use crate::data::op::{Key, Request, RequestError, Response, ScanPage, ScanRequest, Whereabouts};
use crate::host::lane::Reply;
use crate::ring::layout::{Layout, Member};
use crate::wire::status::{AbsenceStatus, NodeStatus, PeerStatus, SyncStatus};

/// What the node is at the moment.
struct State {
    status: NodeStatus,
    layout: Layout,
    up: Vec<bool>,
    asked: Vec<Key>,
    /// The node gives no account of itself.
    silent: bool,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn new() -> Self {
        let members: Vec<_> = ["n1", "n2", "n3"].map(member).into();
        let layout = Layout { version: 7, parent: 0, replicas: 3, partitions: 1024, members };
        let up = vec![true; 3];
        Self(Arc::new(Mutex::new(State { status: status(), layout, up, asked: Vec::new(), silent: false })))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }
}

fn member(name: &str) -> Member {
    Member {
        id: NodeId::from_name(name),
        name: name.into(),
        zone: format!("z-{name}"),
        weight: 1,
        quic: "127.0.0.1:9001".into(),
        resp: "127.0.0.1:7001".into(),
        http: "127.0.0.1:8001".into(),
    }
}

fn status() -> NodeStatus {
    let peer = |name: &str, up, connected| PeerStatus {
        node: NodeId::from_name(name),
        name: name.into(),
        zone: format!("z-{name}"),
        quic: "127.0.0.1:9001".into(),
        up,
        connected,
        absence: (!up).then_some(AbsenceStatus { for_ms: 5_000, left_ms: Some(60_000), fenced: false }),
    };
    let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| (name.to_string(), *count)).collect();
    NodeStatus {
        node: NodeId::from_name("n1"),
        name: "n1".into(),
        version: "0.1.0".into(),
        incarnation: Incarnation(u64::MAX),
        uptime_ms: 61_005,
        layout: 7,
        partitions_owned: 340,
        partitions: 1024,
        hints: 5,
        hint_bytes: 640,
        hints_for: counts(&[("n2", 2), ("n3", 3)]),
        log_entries: 11,
        peer_lag: counts(&[("n2", 0), ("n3", 9)]),
        behind: 4,
        garbage: 7,
        scrub: Default::default(),
        sync: SyncStatus { under_way: 2, permille: 250, waiting: 8, done: 1, rows: 12 },
        held: None,
        store_bytes: 1 << 40,
        fenced: None,
        faults: None,
        peers: vec![peer("n2", true, true), peer("n3", false, true)],
        counters: counts(&[("reads_total", 12), ("writes_total", 0), ("syncs_under_way", 1)]),
    }
}

impl Door for Fake {
    async fn submit(&self, _: Request) -> Response {
        unreachable!("this door is read only")
    }

    fn submit_with(&self, _: Request, _: Reply) {
        unreachable!("this door is read only")
    }

    fn lost(&self, _: bool) -> Response {
        unreachable!("this door is read only")
    }

    async fn scan(&self, _: ScanRequest) -> Result<ScanPage, RequestError> {
        unreachable!("this door shows no keys")
    }

    fn whereabouts(&self, key: &Key) -> Whereabouts {
        let mut state = self.0.lock().unwrap();
        state.asked.push(key.clone());
        let node = |at: usize| {
            let member = &state.layout.members[at];
            (member.id, member.name.clone(), member.zone.clone(), at < 2, state.up[at])
        };
        Whereabouts { slot: 15_495, partition: Partition(968), layout: 7, nodes: vec![node(0), node(1), node(2)] }
    }

    fn layout(&self) -> (Arc<Layout>, Vec<bool>) {
        let state = self.0.lock().unwrap();
        (Arc::new(state.layout.clone()), state.up.clone())
    }

    fn owners(&self, _: Partition) -> Vec<usize> {
        vec![0, 1]
    }

    async fn status(&self) -> NodeStatus {
        let status = {
            let state = self.0.lock().unwrap();
            (!state.silent).then(|| state.status.clone())
        };
        match status {
            Some(status) => status,
            None => std::future::pending().await,
        }
    }

    fn me(&self) -> NodeId {
        NodeId::from_name("n1")
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn op_id(&self) -> OpId {
        OpId([0; 16])
    }

    fn random_u64(&self) -> u64 {
        0
    }
}

struct Site {
    node: Fake,
    at: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Site {
    async fn open(options: HttpOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let node = Fake::new();
        let served = tokio::spawn(serve(listener, node.clone(), options, stopped));
        Self { node, at, stop, served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(stream).await
    }
}

#[derive(Debug)]
struct Answer {
    code: u16,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    /// The only answer on `stream`, up to its end.
    async fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.into())).collect();
        Self { code, headers, body: body.into() }
    }

    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Code, and `status` and `reason` of the JSON.
    fn refusal(&self) -> (u16, String, String) {
        let json = self.json();
        (self.code, json["status"].as_str().unwrap().into(), json["reason"].as_str().unwrap().into())
    }
}

/// Fails instead of hanging.
async fn within<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("an answer in time")
}

fn quick() -> HttpOptions {
    HttpOptions { timeout_ms: 200, ..HttpOptions::default() }
}

fn told(code: u16, status: &str, reason: &str) -> (u16, String, String) {
    (code, status.into(), reason.into())
}

#[tokio::test]
async fn the_first_page_lists_the_others_and_they_are_there() {
    let site = Site::open(HttpOptions::default()).await;
    site.node.change(|node| node.layout.members[0].name = "<b>&".into());
    let page = site.get("/").await;
    assert_eq!((page.code, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    assert_eq!(page.body.lines().count(), 3);
    assert!(page.body.contains("&lt;b>&amp;"), "{}", page.body);
    let links: Vec<_> = page.body.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links, ["/health", "/ready", "/status", "/metrics", "/where?key=a"]);
    for link in links {
        let answer = site.get(link).await;
        assert_eq!((answer.code, answer.headers["cache-control"].as_str()), (200, "no-store"), "{link}");
    }
}

#[tokio::test]
async fn a_fenced_store_is_neither_healthy_nor_ready_but_tells_its_state() {
    let site = Site::open(HttpOptions::default()).await;
    assert_eq!(site.get("/health").await.body, "ok");
    assert_eq!(site.get("/ready").await.body, "ready");
    site.node.change(|node| node.status.fenced = Some("corruption: block \"7\"".into()));
    let fenced = told(503, "fenced", "corruption: block \"7\"");
    assert_eq!(site.get("/health").await.refusal(), fenced);
    assert_eq!(site.get("/ready").await.refusal(), fenced);
    assert_eq!(site.get("/status").await.json()["fenced"], "corruption: block \"7\"");
    assert!(site.get("/metrics").await.body.contains("\ntidewater_fenced 1\n"));
}

#[tokio::test]
async fn a_node_that_its_view_has_down_or_out_is_healthy_but_not_ready() {
    let site = Site::open(HttpOptions::default()).await;
    site.node.change(|node| node.up = vec![false, true, true]);
    assert_eq!(site.get("/health").await.code, 200);
    let reason = "the view of node n1 has the node itself down: it is joining or leaving";
    assert_eq!(site.get("/ready").await.refusal(), told(503, "down", reason));
    site.node.change(|node| {
        node.layout.members.remove(0);
        node.up.remove(0);
    });
    assert_eq!(site.get("/health").await.code, 200);
    let reason = format!("node {} is no member of layout 7", NodeId::from_name("n1"));
    assert_eq!(site.get("/ready").await.refusal(), told(503, "not a member", &reason));
    // Peers that are down do not make this node unready: every live node answers.
    site.node.change(|node| {
        node.layout.members = ["n1", "n2", "n3"].map(member).into();
        node.up = vec![true, false, false];
    });
    assert_eq!(site.get("/ready").await.code, 200);
}

#[tokio::test]
async fn the_status_is_all_of_it_and_no_number_is_beyond_what_json_readers_hold() {
    let site = Site::open(HttpOptions::default()).await;
    let answer = site.get("/status").await;
    assert_eq!(answer.code, 200);
    let json = answer.json();
    assert_eq!(json["node"], format!("{:016x}", NodeId::from_name("n1").0));
    assert_eq!(json["incarnation"], "ffffffffffffffff");
    assert_eq!(json["peers"][1]["node"], NodeId::from_name("n3").to_string());
    assert_eq!((&json["peers"][1]["up"], &json["peers"][1]["connected"]), (&false.into(), &true.into()));
    assert_eq!(json["hints_for"]["n3"], 3);
    assert_eq!(json["counters"]["reads_total"], 12);
    assert_eq!(json["fenced"], Value::Null);
    let fields = serde_json::to_value(status()).unwrap();
    for field in fields.as_object().unwrap().keys() {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_small(&json);
}

fn assert_small(value: &Value) {
    match value {
        Value::Number(number) => assert!(number.as_u64().unwrap() <= 1 << 53, "{number}"),
        Value::Array(values) => values.iter().for_each(assert_small),
        Value::Object(fields) => fields.values().for_each(assert_small),
        _ => {}
    }
}

/// Reads a scrape as a strict scraper would: every sample's family has been announced, once; none comes twice. Samples by name and
/// labels as they are written.
fn scrape(text: &str) -> BTreeMap<String, f64> {
    let name_ok = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    assert!(text.ends_with('\n'));
    let (mut families, mut family, mut helped) = (BTreeSet::new(), String::new(), String::new());
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0.into();
        } else if let Some(announced) = line.strip_prefix("# TYPE ") {
            let (name, kind) = announced.split_once(' ').unwrap();
            assert!(name.starts_with("tidewater_") && name_ok(name), "{line}");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.trim_end_matches('_').ends_with("_total"), "{line}");
            assert_eq!(name, helped);
            family = name.into();
            assert!(families.insert(family.clone()), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let labels = sample.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
            if !labels.is_empty() {
                let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                assert_labels(inner.unwrap_or_else(|| panic!("{line}")), name_ok);
            }
            assert!(samples.insert(sample.to_string(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    samples
}

/// `name="value",...` with `\\`, `\"` and `\n` escaped.
fn assert_labels(mut labels: &str, name_ok: impl Fn(&str) -> bool) {
    loop {
        let (name, value) = labels.split_once("=\"").unwrap();
        assert!(name_ok(name), "{name}");
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => assert!(matches!(letters.next(), Some((_, '\\' | '"' | 'n'))), "{value}"),
                _ => {}
            }
        };
        match value[end + 1..].strip_prefix(',') {
            Some(more) => labels = more,
            None => return assert_eq!(&value[end + 1..], ""),
        }
    }
}

#[tokio::test]
async fn metrics_tell_everything_in_a_form_that_scrapers_take() {
    let site = Site::open(HttpOptions::default()).await;
    let answer = site.get("/metrics").await;
    assert_eq!(
        (answer.code, answer.headers["content-type"].as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let samples = scrape(&answer.body);
    let about = format!(
        "tidewater_info{{node=\"{}\",name=\"n1\",version=\"0.1.0\",incarnation=\"ffffffffffffffff\"}}",
        NodeId::from_name("n1")
    );
    let expected = [
        (about.as_str(), 1.0),
        ("tidewater_uptime_seconds", 61.005),
        ("tidewater_layout_version", 7.0),
        ("tidewater_partitions_owned", 340.0),
        ("tidewater_partitions", 1024.0),
        ("tidewater_hints", 5.0),
        ("tidewater_hint_bytes", 640.0),
        ("tidewater_hints_for{owner=\"n2\"}", 2.0),
        ("tidewater_hints_for{owner=\"n3\"}", 3.0),
        ("tidewater_log_entries", 11.0),
        ("tidewater_peer_lag{peer=\"n2\"}", 0.0),
        ("tidewater_peer_lag{peer=\"n3\"}", 9.0),
        ("tidewater_behind", 4.0),
        ("tidewater_garbage", 7.0),
        ("tidewater_garbage_held_seconds", 0.0),
        ("tidewater_syncing_partitions", 2.0),
        ("tidewater_syncing_permille", 250.0),
        ("tidewater_syncs_waiting", 8.0),
        ("tidewater_store_bytes", (1_u64 << 40) as f64),
        ("tidewater_fenced", 0.0),
        ("tidewater_peer_up{peer=\"n2\"}", 1.0),
        ("tidewater_peer_up{peer=\"n3\"}", 0.0),
        ("tidewater_peer_connected{peer=\"n2\"}", 1.0),
        ("tidewater_peer_connected{peer=\"n3\"}", 1.0),
        ("tidewater_peer_fenced{peer=\"n3\"}", 0.0),
        ("tidewater_peer_fenced_in_seconds{peer=\"n3\"}", 60.0),
        ("tidewater_reads_total", 12.0),
        ("tidewater_writes_total", 0.0),
        ("tidewater_syncs_under_way", 1.0),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    assert_eq!(samples, expected);
}

#[test]
fn names_of_any_letters_do_not_break_a_scrape() {
    let mut status = status();
    status.name = "a \"quoted\"\\\nname} 1".into();
    status.hints_for = [("\\".into(), 1), ("\"".into(), 2), ("\n".into(), 3), ("é,x=\"".into(), 4)].into();
    // One that is taken, two that become one, one with a line's end.
    status.counters = [("hints", 1), ("a-b_total", 2), ("a.b_total", 3), ("c\nd", u64::MAX)]
        .map(|(name, count)| (name.to_string(), count))
        .into();
    let samples = scrape(&metrics::text(&status));
    assert_eq!(samples["tidewater_hints_for{owner=\"\\\\\"}"], 1.0);
    assert_eq!(samples["tidewater_hints_for{owner=\"\\\"\"}"], 2.0);
    assert_eq!(samples["tidewater_hints_for{owner=\"\\n\"}"], 3.0);
    assert_eq!((samples["tidewater_hints"], samples["tidewater_hints_"]), (5.0, 1.0));
    assert_eq!((samples["tidewater_a_b_total"], samples["tidewater_a_b_total_"]), (2.0, 3.0));
    assert_eq!(samples["tidewater_c_d"], u64::MAX as f64);
}

#[tokio::test]
async fn where_takes_any_key_and_tells_its_replicas() {
    let site = Site::open(HttpOptions { key_size_max: 8, ..HttpOptions::default() }).await;
    site.node.change(|node| node.up[1] = false);
    let answer = site.get("/where?key=a%00%FF+b").await;
    assert_eq!(answer.code, 200);
    site.node.change(|node| assert_eq!(node.asked, [Key::new(b"a\0\xff b".as_slice())]));
    let json = answer.json();
    assert_eq!((&json["slot"], &json["partition"], &json["layout"]), (&15_495.into(), &968.into(), &7.into()));
    let n2 = serde_json::json!({
        "node": NodeId::from_name("n2").to_string(), "name": "n2", "zone": "z-n2", "owner": true, "up": false
    });
    assert_eq!(json["nodes"][1], n2);
    assert_eq!(json["nodes"].as_array().unwrap().len(), 3);
    for (path, reason) in [
        ("/where", "no key was given: ask /where?key=..., any byte as %xx"),
        ("/where?key=123456789", "the key has 9 bytes: at most 8 are allowed"),
        ("/where?name=a", "unknown parameter 'name': only 'key' is known"),
    ] {
        assert_eq!(site.get(path).await.refusal(), told(400, "bad request", reason));
    }
    site.node.change(|node| assert_eq!(node.asked.len(), 1));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_in_json() {
    let site = Site::open(HttpOptions::default()).await;
    for path in ["/nothing", "/status/", "/health/x", "//"] {
        let reason = format!("there is no {path}: GET / lists what there is");
        assert_eq!(site.get(path).await.refusal(), told(404, "not found", &reason));
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = site.ask(method, "/status").await;
        assert_eq!(answer.refusal().0, 405, "{method}");
        assert_eq!(answer.headers["allow"], "GET,HEAD");
    }
    let head = site.ask("HEAD", "/status").await;
    assert_eq!((head.code, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_silent_node_is_answered_for_in_time() {
    let site = Site::open(quick()).await;
    site.node.change(|node| node.silent = true);
    let began = Instant::now();
    for path in ["/health", "/ready", "/status", "/metrics"] {
        let refusal = site.get(path).await.refusal();
        assert_eq!(refusal, told(503, "timeout", "the node gave no account of itself within 200 ms"), "{path}");
    }
    assert!(began.elapsed() >= Duration::from_millis(800));
    assert_eq!(site.get("/where?key=a").await.code, 200, "what needs no account is answered");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_places_come_free() {
    let site = Site::open(HttpOptions { max_connections: 2, ..HttpOptions::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        // A first answer proves that the connection has its place.
        let mut stream = site.connect().await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        within(stream.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        held.push(stream);
    }
    let reason = "too many HTTP connections at this node: try again";
    assert_eq!(site.get("/health").await.refusal(), told(503, "overloaded", reason));
    held.clear();
    let began = Instant::now();
    while site.get("/health").await.code != 200 {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn clients_that_dawdle_or_talk_nonsense_lose_only_their_connection() {
    let site = Site::open(quick()).await;
    let mut dawdler = site.connect().await;
    dawdler.write_all(b"GET /health HTTP/1.1\r\nhos").await.unwrap();
    let mut idle = site.connect().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    for stream in [&mut dawdler, &mut idle] {
        // Closed by the node: the read ends.
        within(stream.read_to_end(&mut Vec::new())).await.unwrap();
    }
    let long = format!("/{}", "x".repeat(70_000));
    assert_eq!(site.get(&long).await.code, 414);
    let mut stream = site.connect().await;
    stream.write_all(b"\x16\x03\x01 is not HTTP\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(stream).await.code, 400);
    let mut stream = site.connect().await;
    let request = format!("GET / HTTP/1.1\r\nhost: node\r\nx: {}\r\n\r\n", "x".repeat(super::HEAD_BYTES_MAX));
    // The node need not hear all of it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    assert_eq!(site.get("/health").await.code, 200);
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_answers_what_is_under_way() {
    let site = Site::open(HttpOptions { timeout_ms: 500, ..HttpOptions::default() }).await;
    let mut idle = site.connect().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    within(idle.read_exact(&mut first)).await.unwrap();
    site.node.change(|node| node.silent = true);
    let mut waiting = site.connect().await;
    waiting.write_all(b"GET /health HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.stop.send(true).unwrap();
    within(idle.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(Answer::read(waiting).await.refusal().1, "timeout");
    within(site.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(site.at).await.is_err());
}

#[tokio::test]
async fn a_client_that_takes_no_answers_does_not_hold_up_the_end() {
    let site = Site::open(quick()).await;
    let mut deaf = site.connect().await;
    let requests = b"GET /metrics HTTP/1.1\r\nhost: node\r\n\r\n".repeat(1_000);
    // Until both directions are full.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), deaf.write_all(&requests)).await {
        written.unwrap();
    }
    site.stop.send(true).unwrap();
    within(site.served).await.unwrap().unwrap();
}
