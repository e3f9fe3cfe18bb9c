//! Every verb of the command line, as a person or a script meets it: what is printed, where, and the exit code.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewater::cli::process::{ReadyFile, Signal};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::RwLockReadGuard;

use crate::harness::{
    Cluster, PATIENCE, PROGRAM, Resp, Said, command, free_ports, http_get, light_turn, said, until, within,
};

const LONGEST: Duration = Duration::from_secs(60);

#[track_caller]
fn told(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "wanted: {part}\ngot: {text}");
    }
}

/// `words` as typed, but for quotes.
async fn run(cluster: &Cluster, line: &str) -> Said {
    cluster.run(line.split(' ')).await
}

/// The exit code, and the standard output without the last line end.
async fn asked(cluster: &Cluster, line: &str) -> (i32, String) {
    let said = run(cluster, line).await;
    (said.code, said.out.trim_end().to_owned())
}

// --- dev

/// `tidewater dev`, and the nodes that it leaves behind if the test fails.
struct Dev {
    child: Child,
    data: PathBuf,
    nodes: u16,
    said: Arc<Mutex<String>>,
    _turn: RwLockReadGuard<'static, ()>,
}

impl Dev {
    async fn start(data: &Path, nodes: u16, first: u16) -> Self {
        let turn = light_turn().await;
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--data"])
            .arg(data)
            .args(["--nodes", &nodes.to_string(), "--resp-port", &first.to_string(), "--quic-port", &first.to_string()])
            .args(["--http-port", &(first + nodes).to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut heard = heard.lock().expect("no panic under it");
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        Self { child, data: data.to_owned(), nodes, said, _turn: turn }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic under it").clone()
    }

    async fn says(&self, part: &str) {
        until(&format!("dev says {part:?}"), PATIENCE, async || self.said().contains(part)).await;
    }

    fn pid(&self, number: u16) -> Option<u32> {
        ReadyFile::read(&self.data.join(format!("n{number}/store"))).map(|process| process.pid)
    }

    fn interrupt(&self) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes two integers; the process is a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    }

    /// Ctrl-C; gives the exit code.
    async fn stop(&mut self) -> Option<i32> {
        self.interrupt();
        let mut status = None;
        until("dev ends", PATIENCE, async || {
            status = self.child.try_wait().expect("ours");
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.interrupt();
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(10)
                && self.child.try_wait().is_ok_and(|status| status.is_none())
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for number in 1..=self.nodes {
            if let Some(process) = ReadyFile::read(&self.data.join(format!("n{number}/store"))) {
                let _ = process.signal(Signal::Kill);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_shows_its_nodes_and_leaves_a_killed_one_down_until_it_is_restarted() {
    within(LONGEST, async {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("tide");
        let first = free_ports(3);
        let mut dev = Dev::start(&data, 3, first).await;
        dev.says("Ctrl-C stops all nodes.").await;
        let welcome = dev.said();
        told(
            &welcome,
            &["3 nodes, 3 owners of each key, in ", "NODE", "PID", "REDIS", "QUIC", "HTTP", "LOG", "redis-cli -p"],
        );
        for number in 1..=3 {
            let row =
                welcome.lines().find(|line| line.trim_start().starts_with(&format!("n{number} "))).expect("a row");
            let (redis, http) = (first + number - 1, first + 3 + number - 1);
            let pid = dev.pid(number).expect("it is open");
            told(
                row,
                &[&pid.to_string(), &format!("127.0.0.1:{redis}"), &format!("http://127.0.0.1:{http}"), "node.log"],
            );
        }
        let mut resp = Resp::connect(&format!("127.0.0.1:{first}")).await;
        assert_eq!(resp.line("SET a kept").await, "+OK");
        // The commands that it suggests are right as they stand.
        let suggested =
            welcome.lines().find_map(|line| line.trim().strip_prefix("tidewater status")).expect("suggested");
        let status = said(&mut command(["status"].into_iter().chain(suggested.split_whitespace()))).await.expect(0);
        assert_eq!(status.out.lines().count(), 4, "{}", status.out);

        let dev_with = async |words: &[&str]| said(command(["dev", "--data"]).arg(&data).args(words)).await;
        told(&dev_with(&[]).await.expect(1).err, &["another `tidewater dev` watches", "--data"]);
        told(&dev_with(&["--nodes", "5"]).await.expect(2).err, &["was made with --nodes 3", "layout is fixed"]);

        ReadyFile::read(&data.join("n2/store")).expect("open").signal(Signal::Kill).expect("ours");
        dev.says("n2 was killed (signal 9, SIGKILL). Start it again: tidewater dev --data ").await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(dev.pid(2), None, "it stays down");
        assert!(http_get(&format!("127.0.0.1:{}", first + 4), "/health").await.is_none(), "it stays down");

        told(&dev_with(&["--restart", "7"]).await.expect(2).err, &["there is no node 7", "1 to 3"]);
        told(&dev_with(&["--restart", "1"]).await.expect(1).err, &["n1 runs already (pid "]);
        told(&dev_with(&["--restart", "2"]).await.expect(0).out, &["n2 is back (pid "]);
        dev.says("n2 is back (pid ").await;

        assert_eq!(dev.stop().await, Some(0));
        dev.says("All are stopped; the data is kept.").await;
        for number in 1..=3 {
            assert_eq!(dev.pid(number), None, "n{number}, whoever started it");
        }
        drop(dev);

        let nowhere =
            said(command(["dev", "--restart", "1", "--data"]).arg(folder.path().join("nowhere"))).await.expect(1);
        told(&nowhere.err, &["holds no cluster made by `tidewater dev`", "--data"]);
        let foreign = said(command(["dev", "--data"]).arg(folder.path())).await.expect(2);
        told(&foreign.err, &["is not empty and was not made by `tidewater dev`"]);

        let mut dev = Dev::start(&data, 3, first).await;
        dev.says("Ctrl-C stops all nodes.").await;
        let mut resp = Resp::connect(&format!("127.0.0.1:{}", first + 1)).await;
        assert_eq!(resp.line("GET a").await, "kept");
        assert_eq!(dev.stop().await, Some(0));
    })
    .await;
}

// --- node, status

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_check_tells_every_setting_and_probe_whether_it_is_open() {
    within(LONGEST, async {
        let mut cluster = Cluster::make(1).await;
        let config = cluster.node(1).config.clone();
        let node = async |words: &[&str]| {
            said(command(["node", "--config"]).arg(&config).args(words).env("TIDEWATER_SWIM__PROBE_PERIOD", "500ms"))
                .await
        };
        let checked = node(&["--check", "--set", "limits.value_size_max=1MiB"]).await.expect(0);
        for (setting, value, place) in [
            ("name", "= n1 ", "# line 5"),
            ("limits.value_size_max", "1MiB", "# --set"),
            ("swim.probe_period", "500ms", "# TIDEWATER_SWIM__PROBE_PERIOD"),
            ("limits.key_size_max", "32KiB", "# default"),
        ] {
            let line = checked.out.lines().find(|line| line.split(' ').next() == Some(setting));
            let line = line.unwrap_or_else(|| panic!("no {setting} in\n{}", checked.out));
            told(line, &[value, place]);
        }
        assert!(!cluster.node(1).store.exists(), "nothing was started");
        told(&node(&["--probe"]).await.expect(1).err, &["n1 is not open"]);
        cluster.start_all().await;
        told(&node(&["--probe"]).await.expect(0).out, &[&format!("n1 is open (pid {})", cluster.pid(1))]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_how_the_nodes_are_in_words_and_by_exit_code() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(3).await;
        let level = run(&cluster, "status --wait level --timeout 20s").await.expect(0);
        let lines: Vec<&str> = level.out.lines().collect();
        assert_eq!(lines.len(), 4, "{}", level.out);
        told(lines[0], &["NODE", "ZONE", "UP", "PARTITIONS", "HINTS", "LAG", "BEHIND", "STORE", "UPTIME", "VERSION"]);
        told(lines[1], &["n1", "z1", "up", "1024/1024", env!("CARGO_PKG_VERSION")]);

        let status = run(&cluster, "status --output json").await.expect(0).json();
        assert_eq!((&status["well"], &status["level"]), (&json!(true), &json!(true)), "{status}");
        assert_eq!(status["nodes"].as_array().expect("a list").len(), 3);
        assert_eq!(status["nodes"][2]["name"], "n3");
        assert_eq!(status["nodes"][2]["partitions_owned"], 1024);

        cluster.kill(3).await;
        let status = run(&cluster, "status --timeout 1s").await.expect(1);
        told(&status.out, &["n3    z1    down", "n3 does not answer: n3 cannot be reached"]);
        let status = run(&cluster, "status --timeout 1s --output json").await.expect(1).json();
        assert_eq!((&status["well"], &status["nodes"][2]["up"]), (&json!(false), &json!(false)));
        assert!(status["nodes"][2]["why"].as_str().is_some_and(|why| why.contains("cannot be reached")), "{status}");
        let waited = run(&cluster, "status --wait up --timeout 1s").await.expect(1);
        told(&waited.err, &["the cluster is not up after 1.0 s", "n3 does not answer"]);
        cluster.restart(3).await;
        run(&cluster, "status --wait up --timeout 20s").await.expect(0);
    })
    .await;
}

// --- keys

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_about_keys_prints_its_answer_and_its_exit_code() {
    within(LONGEST, async {
        let cluster = Cluster::start(1).await;
        for (line, code, out) in [
            ("put greeting hello", 0, "written"),
            ("get greeting", 0, "hello"),
            ("set greeting moin", 0, "written"),
            ("get greeting", 0, "moin"),
            ("get nothing", 4, ""),
            ("put greeting again --if-absent", 4, "not written: the key is there"),
            ("put other again --if-present", 4, "not written: the key is not there"),
            ("put -- -5 -7", 0, "written"),
            ("get -- -5", 0, "-7"),
            ("exists greeting", 0, "yes"),
            ("exists nothing", 4, "no"),
            ("ttl greeting", 0, "never expires"),
            ("ttl nothing", 4, ""),
            ("expire greeting 2h", 0, "expires in 2 h 00 m"),
            ("ttl greeting", 0, "1 h 59 m"),
            ("expire greeting --never", 0, "never expires"),
            ("ttl greeting", 0, "never expires"),
            ("expire nothing 1h", 4, ""),
            ("put brief x --expire 12h", 0, "written"),
            ("put brief y --keep-ttl", 0, "written"),
            ("ttl brief", 0, "11 h 59 m"),
            ("incr visits", 0, "1"),
            ("incr visits 10", 0, "11"),
            ("decr visits 3", 0, "8"),
            ("incr visits -5", 0, "3"),
            ("incr visits 0.25", 0, "3.25"),
            ("get visits", 0, "3.25"),
            ("sadd fruit pear apple pear", 0, "2 added"),
            ("smembers fruit", 0, "apple\npear"),
            ("sismember fruit apple", 0, "yes"),
            ("srem fruit pear plum", 0, "1 removed"),
            ("smembers nothing", 4, ""),
            ("hset ada born 1815 died 1852", 0, "written, 2 new"),
            ("hget ada born", 0, "1815"),
            ("hget ada height", 4, ""),
            ("hget ada born height", 4, "born    1815\nheight  (not there)"),
            ("hgetall ada", 0, "born  1815\ndied  1852"),
            ("hdel ada died height", 0, "1 removed"),
            ("hgetall nothing", 4, ""),
            ("flag maintenance", 0, "off"),
            ("flag maintenance on", 0, "on (was off)"),
            ("flag maintenance", 0, "on"),
            ("del greeting", 0, "deleted"),
            ("del greeting visits", 0, "greeting: nothing was there\nvisits: deleted"),
            ("get visits", 4, ""),
        ] {
            assert_eq!(asked(&cluster, line).await, (code, out.to_owned()), "{line}");
        }
        told(&run(&cluster, "get nothing").await.err, &["(not there)"]);
        told(&asked(&cluster, "sismember fruit apple plum").await.1, &["apple", "yes", "plum", "no"]);

        // Siblings are written against the context that was read.
        for value in ["[1]", "[2]"] {
            run(&cluster, &format!("siblings put cart {value}")).await.expect(0);
        }
        let (code, both) = asked(&cluster, "siblings get cart").await;
        let context = both.lines().last().and_then(|line| line.strip_prefix("context ")).expect("a context").to_owned();
        assert_eq!((code, both.lines().count()), (0, 3), "{both}");
        let joined = run(&cluster, &format!("siblings put cart [1,2] --context {context}")).await.expect(0);
        assert_eq!(joined.out.lines().next(), Some("[1,2]"), "{}", joined.out);
        assert_eq!(joined.out.lines().count(), 2, "{}", joined.out);
        assert_eq!(asked(&cluster, "siblings get nothing").await.0, 4);
        let wrong = run(&cluster, &format!("siblings put other x --context {context}")).await.expect(1);
        told(&wrong.err, &["context is not one that was given out for this key"]);

        // Bytes go in and out as they are.
        let picture: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let (file, copy) = (cluster.path().join("picture"), cluster.path().join("copy"));
        std::fs::write(&file, &picture).expect("written");
        run(&cluster, "put picture --file picture").await.expect(0);
        let mut raw = command(["get", "picture", "--raw", "--connect", &cluster.node(1).quic, "--tls-dir"]);
        raw.arg(cluster.local.tls_dir()).stdout(std::fs::File::create(&copy).expect("made"));
        assert!(raw.status().await.expect("it runs").success());
        assert!(std::fs::read(&copy).expect("there") == picture);
        let shown = run(&cluster, "get picture").await.expect(0);
        assert!(shown.out.starts_with("\"\\x00\\x01") && shown.out.lines().count() == 1, "escaped, on one line");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_speaks_json() {
    within(LONGEST, async {
        let cluster = Cluster::start(1).await;
        for (line, value) in [
            ("put a x", json!(true)),
            ("get a", json!("x")),
            ("exists a", json!(true)),
            ("ttl a", json!({ "expire_at_ms": null })),
            ("incr n 2", json!(2)),
            ("decr n", json!(1)),
            ("incr n 0.5", json!("1.5")),
            ("sadd s x y", json!(2)),
            ("smembers s", json!(["x", "y"])),
            ("srem s y", json!(1)),
            ("hset h f v", json!(1)),
            ("hget h f", json!(["v"])),
            ("hgetall h", json!([["f", "v"]])),
            ("hdel h f", json!(1)),
            ("flag f on", json!(false)),
            ("flag f", json!(true)),
            ("expire a 1h", json!(true)),
            ("del a", json!(true)),
        ] {
            let answer = run(&cluster, &format!("{line} --output json")).await.expect(0).json();
            assert_eq!(answer["value"], value, "{line}: {answer}");
            assert_eq!(answer["receipt"]["coordinator"], "n1", "{line}: {answer}");
            assert_eq!(answer["attempts"], 1, "{line}: {answer}");
        }
        let absent = run(&cluster, "get a --output json").await.expect(4).json();
        assert_eq!(absent["value"], Value::Null);
        let each = run(&cluster, "sismember s x y --output json").await.expect(4).json();
        told(&each["value"].to_string(), &["true", "false"]);
        run(&cluster, "siblings put c x").await.expect(0);
        let siblings = run(&cluster, "siblings get c --output json").await.expect(0).json();
        assert_eq!(siblings["value"]["values"], json!(["x"]));
        std::fs::write(cluster.path().join("bytes"), [0xff, 0]).expect("written");
        run(&cluster, "put bytes --file bytes").await.expect(0);
        let bytes = run(&cluster, "get bytes --output json").await.expect(0).json();
        assert_eq!(bytes["value"], json!({ "base64": "/wA=" }));
        // One object a line, also for several keys.
        let several = run(&cluster, "del c bytes --output json").await.expect(0);
        for line in several.out.lines() {
            let answer: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(answer["value"], true, "{line}");
        }
        assert_eq!(several.out.lines().count(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_explained_compared_and_dropped() {
    within(LONGEST, async {
        let cluster = Cluster::start(3).await;
        cluster.until_all_see_each_other().await;
        run(&cluster, "put gone x --write all --timeout 10s").await.expect(0);
        run(&cluster, "sadd kept a b --write all --timeout 10s").await.expect(0);
        told(
            &run(&cluster, "explain kept").await.expect(0).out,
            &["n2  owner  2 rows", "member a, by ", "on all owners"],
        );
        run(&cluster, "del gone --write all --timeout 10s").await.expect(0);
        let explained = run(&cluster, "explain gone").await.expect(0);
        told(&explained.out, &["n1  owner  1 row", "delete row, by ", "drop"]);
        let json = run(&cluster, "explain gone --output json").await.expect(0).json();
        assert_eq!(json["nodes"].as_array().map(Vec::len), Some(3), "{json}");
        assert_eq!(json["nodes"][0]["rows"][0]["component"], "Register", "{json}");
        told(&run(&cluster, "scrub --wait 60s").await.expect(0).out, &["NODE  PARTITIONS", "n3    1,024"]);
        // All nodes are there: nothing keeps the delete row for long.
        loop {
            let status = run(&cluster, "status --output json").await.expect(0).json();
            let left = |node: &Value| node["garbage"].as_u64();
            if status["nodes"].as_array().expect("nodes").iter().all(|node| left(node) == Some(0)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        told(&run(&cluster, "explain gone").await.expect(0).out, &["no owner that answered holds anything of it"]);
        run(&cluster, "get gone --read all").await.expect(4);
        assert_eq!(run(&cluster, "sismember kept a b --read all").await.expect(0).err, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_and_explain_tell_who_holds_a_key_and_who_answered() {
    within(LONGEST, async {
        let mut cluster = Cluster::start(3).await;
        cluster.until_all_see_each_other().await;
        let found = run(&cluster, "where user:17").await.expect(0);
        told(found.out.lines().next().expect("a line"), &["slot ", "partition ", "layout 1"]);
        for name in ["n1", "n2", "n3"] {
            told(&found.out, &[&format!("{name}  owner  zone z1  up")]);
        }
        let tagged = run(&cluster, "where {cart}:1 --output json").await.expect(0).json();
        let other = run(&cluster, "where {cart}:2 --output json").await.expect(0).json();
        assert_eq!(tagged["slot"], other["slot"], "keys with one tag live together");
        assert_eq!(tagged["nodes"].as_array().map(Vec::len), Some(3));

        // The value on the standard output, the receipt beside it.
        let written = run(&cluster, "put a x --write all --durable quorum --timeout 10s --explain").await.expect(0);
        assert_eq!(written.out, "written\n");
        told(
            &written.err,
            &["asked         write all: 3 acknowledgements, durable quorum", "coordinator", "operation"],
        );
        for name in ["n1", "n2", "n3"] {
            told(&written.err, &[&format!("{name}  owner  zone z1")]);
        }
        assert!(written.err.matches("fsynced").count() >= 2, "{}", written.err);
        assert!(!written.err.contains("missing"), "{}", written.err);
        let read = run(&cluster, "get a --read one --owners --explain").await.expect(0);
        assert_eq!(read.out, "x\n");
        told(&read.err, &["asked         read one: 1 answer, owners only"]);
        let read = run(&cluster, "get a --read 3 --explain --output json").await.expect(0).json();
        assert_eq!(read["receipt"]["acks"].as_array().map(Vec::len), Some(3), "{read}");
        for level in ["any", "one", "two", "quorum", "all", "2"] {
            run(&cluster, &format!("put a x --write {level} --timeout 10s")).await.expect(0);
        }

        // By its name a change counts once, whoever repeats it.
        let op_id = tidewater::Client::new_op_id();
        for _ in 0..2 {
            let counted = run(&cluster, &format!("incr n 5 --op-id {op_id} --explain")).await.expect(0);
            assert_eq!(counted.out, "5\n");
            told(&counted.err, &[&op_id.to_string()]);
        }
        told(&run(&cluster, &format!("incr n 5 --op-id {op_id} --explain")).await.err, &["counts once"]);

        // Impossible combinations are refused before anything is tried.
        for (line, part) in [
            ("put a y --write 4", "WRITE 4 is out of range: with 3 replicas use 1 to 3"),
            ("get a --read 9", "READ 9 is out of range"),
            ("put a y --write one --durable all", "raise WRITE"),
            ("put a y --write one --zones 2", "ZONES 2 cannot be met"),
            ("put a y --write any --owners", "contradicts OWNERS"),
        ] {
            told(&run(&cluster, line).await.expect(2).err, &[part]);
        }
        // All nodes are in one zone.
        let zones = run(&cluster, "put a y --zones 2").await.expect(1);
        told(&zones.err, &["the 3 replicas that can be reached are enough but not in the zones"]);
        assert_eq!(asked(&cluster, "get a").await, (0, "x".to_owned()));

        // Not known whether it happened: the exit code says so, the message how to find out. When the nodes that are silent happen to
        // be tried first, or are known to be away before the write is sent on, then nothing happened, and that is said as well.
        let mut message = String::new();
        for round in 1.. {
            cluster.pause(2);
            cluster.pause(3);
            let unknown = run(&cluster, "incr n 5 --write all --owners --timeout 1s").await;
            cluster.resume(2);
            cluster.resume(3);
            message.clone_from(&unknown.err);
            if unknown.code == 3 {
                break;
            }
            unknown.expect(1);
            assert!(round < 10, "never met a silent owner: {message}");
            until("all are up again", PATIENCE, async || {
                run(&cluster, "get n --read all --owners --timeout 5s").await.code == 0
            })
            .await;
        }
        told(&message, &["It may have been applied. Repeat it with --op-id "]);
        let named = message.split("--op-id ").nth(1).and_then(|rest| rest.split(':').next()).expect("a name");
        until("all are up again", PATIENCE, async || {
            run(&cluster, &format!("incr n 5 --write all --op-id {named} --timeout 5s")).await.code == 0
        })
        .await;
        assert_eq!(asked(&cluster, "get n --read all --timeout 10s").await, (0, "10".to_owned()));
        cluster.kill(2).await;
        cluster.until_seen_up(1, &["n3"]).await;
        cluster.until_seen_up(3, &["n1"]).await;
        let refused = run(&cluster, "put a y --write all --timeout 4s").await.expect(1);
        told(&refused.err, &["needs 3 replicas and only 2 can be reached; missing: n2"]);
        told(&run(&cluster, "where a").await.expect(0).out, &["n2  owner  zone z1  down"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_are_spread_over_zones_when_asked() {
    within(LONGEST, async {
        // n1 and n3 are in z1, n2 in z2.
        let mut cluster = Cluster::start_in_zones(3, 2).await;
        cluster.until_all_see_each_other().await;
        told(&run(&cluster, "where a").await.expect(0).out, &["n1  owner  zone z1  up", "n2  owner  zone z2  up"]);
        for at in 0..8 {
            let line = format!("put key:{at} x --zones 2 --timeout 10s --explain");
            told(&run(&cluster, &line).await.expect(0).err, &["2 acknowledgements, 2 zones", "n2  owner  zone z2"]);
            run(&cluster, &format!("put key:{at} x --write each-quorum --read local-quorum --timeout 10s"))
                .await
                .expect(0);
        }
        cluster.kill(2).await;
        cluster.until_seen_up(1, &["n3"]).await;
        cluster.until_seen_up(3, &["n1"]).await;
        let refused = run(&cluster, "put a x --zones 2").await.expect(1);
        told(&refused.err, &["the 2 replicas that can be reached are enough but not in the zones", "missing: n2"]);
        run(&cluster, "put a x").await.expect(0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_options_and_a_cluster_out_of_reach_are_told_with_what_to_do() {
    within(LONGEST, async {
        let cluster = Cluster::make(1).await;
        for (line, part) in [
            ("gett a", "'get'"),
            ("get", "<KEY>"),
            ("get a --raed one", "'--read'"),
            ("get a --read most", "'most' is not a level: use any, one, two, three, quorum"),
            ("get a --timeout 5", "'5' is not a time: use a whole number with a unit, as 250us, 500ms, 2s"),
            ("get a --connect nowhere", "'nowhere' is not an address: use host:port"),
            ("put a", "<VALUE>"),
            ("put a b --file f", "cannot be used with"),
            ("incr n many", "'many' is not a number"),
            ("incr n --op-id 7", "'7' is not a version 7 UUID"),
            ("hset h f v g", "the last field has no value"),
            ("del a b --op-id 01890000-0000-7000-8000-000000000000", "delete one key with it"),
            ("siblings put c x --context xyz", "is not a context"),
            ("flag f maybe", "[possible values: on, off]"),
            ("import", "<PATH>"),
            ("import nowhere.ndjson", "nowhere.ndjson: No such file"),
            ("status --wait calm", "[possible values: up, level]"),
            ("dev --nodes 0", "1..=64"),
            ("dev --nodes 2 --replicas 3", "--replicas 3: use 1 to 2"),
            ("tls issue --dir x --name n", "--role"),
            ("completions cmd", "[possible values: bash"),
        ] {
            let said = run_bare(&cluster, line).await.expect(2);
            told(&said.err, &[part]);
            assert!(said.out.is_empty(), "{line}: {}", said.out);
        }
        let nothing = run_bare(&cluster, "").await.expect(2);
        told(&nothing.err, &["Usage: tidewater", "Exit codes:", "status", "import"]);
        told(&run_bare(&cluster, "--help").await.expect(0).out, &["Usage: tidewater", "Exit codes:"]);
        told(&run_bare(&cluster, "--version").await.expect(0).out, &[env!("CARGO_PKG_VERSION")]);
        for verb in ["dev", "node", "status", "put", "import", "export", "tls", "demo"] {
            told(&run_bare(&cluster, &format!("{verb} --help")).await.expect(0).out, &["Usage: tidewater"]);
        }

        let missing = run_bare(&cluster, "get a --tls-dir nowhere").await.expect(1);
        told(&missing.err, &["nowhere", "ca.crt", "`tidewater dev` makes them", "tidewater tls issue --role client"]);
        let asleep = run(&cluster, "get a --timeout 1s").await.expect(1);
        told(&asleep.err, &["no node answered", &cluster.node(1).quic, "Is the cluster running?", "tidewater dev"]);
    })
    .await;
}

/// Without an address and a certificate.
async fn run_bare(cluster: &Cluster, line: &str) -> Said {
    said(command(line.split_whitespace()).current_dir(cluster.path())).await
}

// --- import and export

const TYPED: &str = r#"{"key":"plain","string":"text"}
{"key":"bytes","string":{"base64":"/wA="}}
{"key":"number","counter":5}
{"key":"fraction","counter":"0.5"}
{"key":"fruit","set":["pear","apple"]}
{"key":"ada","hash":{"born":"1815"}}
{"key":"cart","siblings":["x","y"]}
{"key":"on","flag":true}

{"key":"brief","string":"x","expire_at_ms":4000000000000}
"#;

fn journals(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").path());
    entries.filter(|path| path.to_string_lossy().contains(".tidewater-import-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_typed_lines_go_in_and_come_out_the_same() {
    within(LONGEST, async {
        let cluster = Cluster::start(1).await;
        let at = |name: &str| cluster.path().join(name);
        std::fs::create_dir_all(at("photos/2024")).expect("made");
        let picture: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        std::fs::write(at("photos/2024/a.jpg"), &picture).expect("written");
        std::fs::write(at("photos/empty"), "").expect("written");
        std::fs::write(at("notes.txt"), "hello").expect("written");
        std::fs::write(at("typed.ndjson"), TYPED).expect("written");

        let files = run(&cluster, "import photos ./notes.txt --prefix backup/").await.expect(0);
        told(&files.out, &["import: 3 items acknowledged, "]);
        assert!(journals(cluster.path()).is_empty(), "nothing is left to remember");
        assert_eq!(asked(&cluster, "get backup/notes.txt").await, (0, "hello".to_owned()));
        assert_eq!(asked(&cluster, "get backup/photos/empty").await, (0, String::new()));
        let found = run(&cluster, "get backup/photos/2024/a.jpg --output json").await.expect(0).json();
        assert!(tidewater::cli::render::bytes_of_json(&found["value"]).expect("bytes") == picture);

        for round in 0..2 {
            let typed = run(&cluster, "import typed.ndjson --output json --quiet").await.expect(0).json();
            assert_eq!(typed["complete"], true, "{typed}");
            // Those that would count twice are passed by the second time.
            let acknowledged = if round == 0 { (9, 0) } else { (6, 3) };
            assert_eq!(
                (&typed["acknowledged"], &typed["acknowledged_before"]),
                (&json!(acknowledged.0), &json!(acknowledged.1))
            );
        }
        for (line, code, out) in [
            ("get plain", 0, "text"),
            ("get number", 0, "5"),
            ("get fraction", 0, "0.5"),
            ("smembers fruit", 0, "apple\npear"),
            ("hgetall ada", 0, "born  1815"),
            ("flag on", 0, "on"),
        ] {
            assert_eq!(asked(&cluster, line).await, (code, out.to_owned()), "{line}");
        }
        assert_eq!(asked(&cluster, "siblings get cart").await.1.lines().count(), 3);

        // What is piped in is meant each time.
        for sum in ["1", "2"] {
            let mut pipe = command(["import", "-", "--connect", &cluster.node(1).quic, "--tls-dir"]);
            pipe.arg(cluster.local.tls_dir()).current_dir(cluster.path()).stdin(Stdio::piped());
            let mut child = pipe.spawn().expect("it runs");
            let mut input = child.stdin.take().expect("piped");
            input.write_all(b"{\"key\":\"piped\",\"counter\":1}\n").await.expect("taken");
            drop(input);
            assert!(child.wait().await.expect("it ends").success());
            assert_eq!(asked(&cluster, "get piped").await.1, sum);
        }

        let all = run(&cluster, "export --quiet").await.expect(0);
        told(&all.err, &["export: 13 keys, "]);
        run(&cluster, "export --out all.ndjson --quiet").await.expect(0);
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let first = sorted(&std::fs::read_to_string(at("all.ndjson")).expect("there"));
        assert_eq!(first, sorted(&all.out));
        assert_eq!(first.len(), 13);
        let only = run(&cluster, "export --prefix backup/ --quiet").await.expect(0);
        assert_eq!(only.out.lines().count(), 3);

        // Into an empty cluster, and out again.
        let other = Cluster::start(1).await;
        std::fs::copy(at("all.ndjson"), other.path().join("all.ndjson")).expect("copied");
        told(&run(&other, "import all.ndjson").await.expect(0).out, &["13 items acknowledged"]);
        let again = run(&other, "export --quiet").await.expect(0);
        assert_eq!(sorted(&again.out), first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_says_what_it_could_not_write_and_does_the_rest() {
    within(LONGEST, async {
        let cluster = Cluster::start(1).await;
        let lines = [
            r#"{"key":"good","string":"x"}"#,
            r#"{"key":"bad","strin":"x"}"#,
            "rubbish",
            r#"{"key":"n","counter":7}"#,
            r#"{"key":"good","set":["a set beside a string"]}"#,
        ];
        std::fs::write(cluster.path().join("mixed.ndjson"), lines.join("\n")).expect("written");
        std::fs::write(cluster.path().join("large.bin"), vec![b'x'; (8 << 20) + 1]).expect("written");
        std::fs::write(cluster.path().join("small.bin"), "x").expect("written");
        run(&cluster, "put n 1").await.expect(0);
        for round in 0..2 {
            let said =
                run(&cluster, "import mixed.ndjson large.bin small.bin --concurrency 1 --retries 1").await.expect(1);
            told(
                &said.err,
                &[
                    "mixed.ndjson:2: \"strin\" is not known: use key, string, counter",
                    "mixed.ndjson:3: no JSON",
                    "mixed.ndjson:5: Operation against a key holding the wrong kind of value",
                    "large.bin: the value has 8388609 bytes; at most 8388608 are allowed",
                ],
            );
            let acknowledged = if round == 0 { "import: 3 items acknowledged" } else { "import: 0 items acknowledged" };
            told(&said.out, &[acknowledged, "1 too large", "3 failed", "not all was acknowledged; repeat the command"]);
            assert_eq!(asked(&cluster, "get n").await.1, "8", "round {round}");
        }
        assert_eq!(asked(&cluster, "get small.bin").await.1, "x");
        let said =
            run(&cluster, "import mixed.ndjson large.bin small.bin --output json --quiet").await.expect(1).json();
        assert_eq!(
            (&said["complete"], &said["acknowledged_before"], &said["failed"]),
            (&json!(false), &json!(3), &json!(3))
        );
        assert!(said["journal"].as_str().is_some_and(|path| cluster.path().join(path).exists()), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_killed_goes_on_and_counts_nothing_twice() {
    const ITEMS: usize = 6_000;
    within(LONGEST, async {
        let cluster = Cluster::start(1).await;
        let lines: String = (0..ITEMS).map(|at| format!("{{\"key\":\"n{}\",\"counter\":1}}\n", at % 100)).collect();
        std::fs::write(cluster.path().join("counts.ndjson"), lines).expect("written");
        let import = |more: &[&str]| {
            let mut command = command(["import", "counts.ndjson", "--connect", &cluster.node(1).quic, "--tls-dir"]);
            command.arg(cluster.local.tls_dir()).args(more).current_dir(cluster.path());
            command
        };
        let done = || {
            let text = journals(cluster.path()).first().and_then(|path| std::fs::read_to_string(path).ok());
            text.map_or(0, |text| text.lines().filter(|line| line.starts_with("done ")).count())
        };
        // Killed outright, then asked to stop.
        let mut child = import(&["--concurrency", "16"]).spawn().expect("it runs");
        until("some of it is in", PATIENCE, async || done() > 100).await;
        child.kill().await.expect("ours");
        let killed_at = done();
        assert!(killed_at < ITEMS, "killed too late to prove anything");

        let child = import(&["--concurrency", "16"]).spawn().expect("it runs");
        until("more of it is in", PATIENCE, async || done() > killed_at + 100).await;
        let pid = libc::pid_t::try_from(child.id().expect("it runs")).expect("a process id");
        // SAFETY: kill takes two integers; the process is a child of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
        let stopped = child.wait_with_output().await.expect("it ends");
        assert_eq!(stopped.status.code(), Some(1));
        told(&String::from_utf8_lossy(&stopped.stderr), &["import: going on after ", "import: stopping"]);
        told(&String::from_utf8_lossy(&stopped.stdout), &["not all was acknowledged; repeat the command to go on"]);

        let said = said(&mut import(&["--output", "json"])).await.expect(0).json();
        let (now, before) = (said["acknowledged"].as_u64().expect("a number"), said["acknowledged_before"].as_u64());
        assert_eq!(now + before.expect("a number"), ITEMS as u64);
        assert!(now < ITEMS as u64 - 200, "it went on, and did not begin again: {said}");
        let again = self::said(&mut import(&[])).await.expect(0);
        told(&again.out, &["0 items acknowledged", "6,000 acknowledged before", "would count twice"]);
        let all = run(&cluster, "export --quiet").await.expect(0);
        assert_eq!(all.out.lines().count(), 100);
        for line in all.out.lines() {
            assert!(line.ends_with(r#""string":"60"}"#), "{line}");
        }
    })
    .await;
}

// --- tls, completions

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_made_shown_and_good() {
    within(LONGEST, async {
        let cluster = Cluster::start(1).await;
        let at = |name: &str| cluster.path().join(name);
        let made = run_bare(&cluster, "tls init --dir ca --cluster shop").await.expect(0);
        told(
            &made.out,
            &["The authority of the cluster 'shop' is in ca", "tidewater tls issue --dir ca --name n1 --role node"],
        );
        told(&run_bare(&cluster, "tls init --dir ca --cluster shop").await.expect(1).err, &["exists already"]);
        let issued = run_bare(&cluster, "tls issue --dir ca --name n1 --role node --host n1.example.net --out n1")
            .await
            .expect(0);
        told(&issued.out, &["n1/n1.crt and n1/n1.key are good for 825 days"]);
        let issue = "tls issue --dir ca --name client --role client --days 30";
        run_bare(&cluster, issue).await.expect(0);
        told(&run_bare(&cluster, issue).await.expect(1).err, &["exists already: replace it with --force"]);
        run_bare(&cluster, &format!("{issue} --force")).await.expect(0);
        for key in ["ca/ca.key", "ca/client.key", "n1/n1.key"] {
            let mode = std::fs::metadata(at(key)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        assert!(at("n1/ca.crt").exists() && !at("n1/ca.key").exists(), "the authority's key stays where it is");
        told(
            &run_bare(&cluster, "tls issue --dir nowhere --name n --role node").await.expect(1).err,
            &["tidewater tls init --dir nowhere"],
        );
        for name in ["../n1", "ca"] {
            assert_ne!(
                run_bare(&cluster, &format!("tls issue --dir ca --name {name} --role node")).await.code,
                0,
                "{name}"
            );
        }
        let shown = run_bare(&cluster, "tls show --dir ca").await.expect(0);
        told(&shown.out, &["NAME", "ROLE", "CLUSTER", "client", "shop", " days"]);
        let shown = run_bare(&cluster, "tls show --dir n1 --output json").await.expect(0).json();
        assert_eq!(
            (&shown["certificates"][0]["name"], &shown["certificates"][0]["role"]),
            (&json!("n1"), &json!("node"))
        );

        // One of this cluster's authority opens its door, one of the shop's does not.
        let tls = cluster.local.tls_dir();
        said(
            command(["tls", "issue", "--name", "client", "--role", "client", "--dir"])
                .arg(&tls)
                .arg("--out")
                .arg(at("app")),
        )
        .await
        .expect(0);
        let get = async |folder: &str| {
            said(command(["exists", "a", "--connect", &cluster.node(1).quic, "--tls-dir"]).arg(at(folder))).await
        };
        get("app").await.expect(4);
        told(&get("ca").await.expect(1).err, &["is no node of this cluster", "another cluster"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_are_scripts_that_know_every_verb() {
    within(LONGEST, async {
        let cluster = Cluster::make(1).await;
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = run_bare(&cluster, &format!("completions {shell}")).await.expect(0).out;
            told(&script, &["dev", "status", "smembers", "import", "completions"]);
            if shell == "bash" {
                std::fs::write(cluster.path().join("script"), &script).expect("written");
                let read = Command::new("bash").args(["-n", "script"]).current_dir(cluster.path()).status();
                assert!(read.expect("bash runs").success(), "bash can read it");
            }
        }
    })
    .await;
}
