//! Nodes go away while clients write. What was acknowledged is there afterwards, counted exactly; what could not be is said at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidewater::cli::status::Census;
use tidewater::data::consistency::{Consistency, Level};
use tidewater::data::op::{Outcome, RequestError};
use tidewater::{Client, ClientError, ClientOptions};
use tokio::task::JoinSet;

use crate::harness::{Cluster, until, within};

const CLIENTS: usize = 64;
/// Several clients share each of these.
const SHARED: usize = 8;
/// Between two rounds of one client: enough load to have everything under way, not so much that only the machine is measured.
const PAUSE: Duration = Duration::from_millis(10);

/// What the clients were told.
#[derive(Default)]
struct Account {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    retried: AtomicU64,
    errors: Mutex<Vec<String>>,
    /// Key and its last value, by one client each.
    registers: Mutex<BTreeMap<String, String>>,
    counters: Mutex<BTreeMap<String, i64>>,
    sets: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Account {
    /// Notes one answer; true: it was acknowledged.
    fn note<T>(&self, what: &str, answer: Result<tidewater::client::Answer<T>, ClientError>) -> bool {
        match answer {
            Ok(answer) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.retried.fetch_add(u64::from(answer.attempts > 1), Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.errors.lock().expect("no panic under it").push(format!("{what}: {error}"));
                false
            }
        }
    }

    async fn write_on(&self, client: Client, number: usize) {
        let shared = number % SHARED;
        let (counter, set) = (format!("counter:{shared}"), format!("set:{shared}"));
        for round in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // One that is written over and over, and now and then one that is new.
            let register = if round % 4 == 0 { format!("new:{number}:{round}") } else { format!("last:{number}") };
            let value = format!("{number} in round {round}");
            if self.note("set", client.set(&register, value.clone()).await) {
                self.registers.lock().expect("no panic under it").insert(register, value);
            }
            let by = 1 + (round % 3) as i64;
            let op_id = Client::new_op_id();
            if self.note("increment", client.freshly_named(op_id).increment(&counter, by).await) {
                *self.counters.lock().expect("no panic under it").entry(counter.clone()).or_default() += by;
                if round % 5 == 0 {
                    // An asker who did not hear the answer asks again: it counts once.
                    self.note("increment again", client.named(op_id).increment(&counter, by).await);
                }
            }
            let member = format!("{number}-{round}");
            if self.note("add", client.add_to_set(&set, [&member]).await) {
                self.sets.lock().expect("no panic under it").entry(set.clone()).or_default().insert(member);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Compares everything, each key as all owners have it; gives what is wrong.
    async fn audit(&self, client: &Client) -> Vec<String> {
        let all = client.with(Consistency { read: Level::All, ..Consistency::default() });
        let mut wrong = Vec::new();
        let registers = self.registers.lock().expect("no panic under it").clone();
        let counters = self.counters.lock().expect("no panic under it").clone();
        let sets = self.sets.lock().expect("no panic under it").clone();
        let mut reads = JoinSet::new();
        for (key, value) in registers {
            while reads.len() >= 64 {
                wrong.extend(reads.join_next().await.expect("there are some").expect("no panic"));
            }
            let all = all.clone();
            reads.spawn(async move {
                let found = all.get(&key).await.map(|answer| (answer.value, answer.receipt.disagreed.len()));
                match found {
                    Ok((Some(found), 0)) if found == value => None,
                    other => Some(format!("{key}: {other:?} instead of {value}")),
                }
            });
        }
        while let Some(read) = reads.join_next().await {
            wrong.extend(read.expect("no panic"));
        }
        for (key, sum) in counters {
            let found = all.get(&key).await.expect("it answers");
            let text = found.value.map(|value| String::from_utf8_lossy(&value).into_owned());
            if text.as_deref() != Some(&sum.to_string()) || !found.receipt.disagreed.is_empty() {
                wrong.push(format!("{key}: {text:?} instead of {sum}, disagreed {}", found.receipt.disagreed.len()));
            }
        }
        for (key, members) in sets {
            let found = all.set_members(&key).await.expect("it answers");
            let names: BTreeSet<String> =
                found.value.iter().map(|member| String::from_utf8_lossy(member).into_owned()).collect();
            if names != members || !found.receipt.disagreed.is_empty() {
                let (lost, more) = (members.difference(&names).count(), names.difference(&members).count());
                wrong.push(format!("{key}: {lost} of {} lost, {more} that nobody added", members.len()));
            }
        }
        wrong
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_in_turn_is_killed_and_no_client_sees_an_error() {
    within(Duration::from_secs(120), async {
        let mut cluster = Cluster::start_alone(3).await;
        let account = Arc::new(Account::default());
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let options = ClientOptions { timeout: Duration::from_secs(10), ..cluster.client_options() };
            let account = account.clone();
            clients.spawn(async move {
                let client = Client::connect(options).await.expect("all nodes are up");
                account.write_on(client.clone(), number).await;
                client.close();
            });
        }
        let acknowledged = || account.acknowledged.load(Ordering::Relaxed);
        for victim in 1..=3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let before = acknowledged();
            cluster.kill(victim).await;
            // Longer than the others need to take it for down.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            assert!(acknowledged() - before > 200, "writing goes on without n{victim}");
            cluster.restart(victim).await;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        account.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended.expect("no client panics");
        }
        let errors = account.errors.lock().expect("no panic under it").clone();
        assert!(errors.is_empty(), "{} of {}: {:#?}", errors.len(), acknowledged(), &errors[..errors.len().min(8)]);
        assert!(account.retried.load(Ordering::Relaxed) > 0, "the kills were felt");

        let client = cluster.client().await;
        cluster.level(&client).await;
        let wrong = account.audit(&client).await;
        assert!(wrong.is_empty(), "{} of {}: {:#?}", wrong.len(), acknowledged(), &wrong[..wrong.len().min(8)]);
    })
    .await;
}

/// With n1 alone: what needs one node is done, what needs two owners is refused at once, by every door, with the names of those missing.
async fn alone(cluster: &Cluster, client: &Client, round: &str) {
    client.refresh_layout().await.expect("n1 answers");
    for level in [Level::Count(1), Level::Any] {
        let client = client.with(Consistency { write: level, ..Consistency::default() });
        client
            .set(format!("{round}:{level}"), "written alone")
            .await
            .unwrap_or_else(|error| panic!("{level}: {error}"));
        client.increment(format!("{round}:count"), 1).await.unwrap_or_else(|error| panic!("{level}: {error}"));
    }
    let owners = Consistency { owners_only: true, ..Consistency::default() };
    let began = Instant::now();
    let timeout = Duration::from_secs(8);
    let refused =
        client.with(owners).within(timeout).set(format!("{round}:refused"), "x").await.expect_err("n1 is alone");
    let took = began.elapsed();
    let Some(RequestError::Unavailable { needed: 2, reachable: 1, missing }) = refused.refusal() else {
        panic!("{refused:?}")
    };
    let mut missing = missing.clone();
    missing.sort();
    assert_eq!(missing, ["n2", "n3"], "{refused}");
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    assert!(took < timeout / 2, "{took:?}");

    let mut resp = cluster.resp(1).await;
    let began = Instant::now();
    let refused = resp.line(&format!("TW.WITH OWNERS yes -- SET {round}:refused x")).await;
    let took = began.elapsed();
    assert!(refused.starts_with("-NOREPLICAS ") && refused.contains("n2") && refused.contains("n3"), "{refused}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(resp.line(&format!("TW.WITH READ one -- EXISTS {round}:refused")).await, ":0");

    let census = Census::take(client, Duration::from_secs(1)).await;
    assert!(!census.is_well() && !census.is_level());
    assert!(census.text().contains("n2 does not answer") && census.text().contains("n3 does not answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_of_three_away_one_goes_on_and_two_owners_are_refused_at_once() {
    within(Duration::from_secs(90), async {
        let mut cluster = Cluster::start_alone(3).await;
        let client = cluster.client().await;
        client.set("before", "x").await.expect("all are up");

        cluster.kill(2).await;
        cluster.kill(3).await;
        cluster.until_seen_up(1, &[]).await;
        alone(&cluster, &client, "killed").await;
        cluster.restart(2).await;
        cluster.restart(3).await;
        cluster.level(&client).await;

        cluster.pause(2);
        cluster.pause(3);
        // Nobody knows yet: what is written to one or to any does not wait for those who do not answer.
        let one = client.with(Consistency { write: Level::Count(1), ..Consistency::default() });
        let began = Instant::now();
        one.set("paused:at once", "x").await.expect("n1 answers");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(4)).await;
        alone(&cluster, &client, "paused").await;
        cluster.resume(2);
        cluster.resume(3);
        cluster.level(&client).await;

        let all = client.with(Consistency { read: Level::All, ..Consistency::default() });
        for round in ["killed", "paused"] {
            for level in [Level::Count(1), Level::Any] {
                let found = all.get(format!("{round}:{level}")).await.expect("all answer");
                assert_eq!(found.value.as_deref(), Some(&b"written alone"[..]));
                assert!(found.receipt.disagreed.is_empty(), "level means level: {:?}", found.receipt);
            }
            assert_eq!(all.get(format!("{round}:count")).await.expect("all answer").value.as_deref(), Some(&b"2"[..]));
            assert_eq!(all.get(format!("{round}:refused")).await.expect("all answer").value, None);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stopped_in_order_resumes_and_a_killed_one_does_not() {
    within(Duration::from_secs(60), async {
        let mut cluster = Cluster::start(2).await;
        let client = cluster.client().await;
        let member = client.member("n2").expect("it is one");
        client.set("a", "x").await.expect("written");
        let incarnation = client.status(member.id).await.expect("it answers").incarnation;
        cluster.stop(2).await;
        assert!(cluster.log(2).contains("stopped in order"), "{}", cluster.log(2));
        cluster.restart(2).await;
        let client = cluster.client().await;
        assert_eq!(client.status(member.id).await.expect("it answers").incarnation, incarnation);
        cluster.kill(2).await;
        cluster.restart(2).await;
        let client = cluster.client().await;
        assert_ne!(client.status(member.id).await.expect("it answers").incarnation, incarnation);
        // A start in order is no event to warn of.
        cluster.level(&client).await;
        assert!(!cluster.log(1).contains("is not a member"), "{}", cluster.log(1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_filled_while_the_others_serve_and_goes_on_where_it_was_killed() {
    const KEYS: usize = 20_000;
    let value = |at: usize| format!("{at}:{}", "v".repeat(90));
    within(Duration::from_secs(150), async {
        let mut cluster = Cluster::make_alone(3).await;
        for number in 1..=3 {
            let config = &cluster.node(number).config;
            let text = std::fs::read_to_string(config).expect("made");
            std::fs::write(config, format!("sync_rate = \"512KiB\"\n{text}")).expect("ours");
        }
        cluster.start_all().await;
        let client = cluster.client().await;
        let mut resp = cluster.resp(1).await;
        for first in (0..KEYS).step_by(500) {
            let line = |at: usize| format!("SET k{at} {}\r\n", value(at));
            resp.send((first..first + 500).map(line).collect::<String>().as_bytes()).await;
            for _ in 0..500 {
                assert_eq!(resp.reply().await, "+OK");
            }
        }
        cluster.level(&client).await;
        // What the log still has would be sent from there.
        let nodes: Vec<_> = client.layout().0.members.iter().map(|member| member.id).collect();
        until("no log is left", Duration::from_secs(60), async || {
            let mut left = 0;
            for node in &nodes {
                left += client.status(*node).await.expect("it is up").log_entries;
            }
            left == 0
        })
        .await;

        cluster.kill(3).await;
        std::fs::remove_dir_all(&cluster.node(3).store).expect("it is gone");
        let stop = Arc::new(AtomicBool::new(false));
        let reads = tokio::spawn({
            let (client, stop) = (client.clone(), stop.clone());
            async move {
                let mut served = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    let at = served * 7_919 % KEYS;
                    let read = client.get(format!("k{at}")).await.expect("two owners have it");
                    assert_eq!(read.value.as_deref(), Some(value(at).as_bytes()), "k{at}: {:?}", read.receipt);
                    served += 1;
                }
                served
            }
        });
        cluster.restart(3).await;
        let mut done = 0;
        until("a third is taken", Duration::from_secs(40), async || {
            if let Ok(status) = client.status(nodes[2]).await {
                done = status.sync.done;
            }
            done > 1024 / 3
        })
        .await;
        cluster.kill(3).await;
        assert!(done < 1024, "it was killed on the way, with {done} of 1024 partitions");

        cluster.restart(3).await;
        cluster.level(&client).await;
        let more = client.status(nodes[2]).await.expect("it is up").sync.done;
        // What was under way is begun again; what was done is not.
        assert!(more <= 1024 - done + 64, "{more} of 1024 partitions were taken after {done} had been");
        assert!(more >= 1024 - done - 64, "{more} of 1024 partitions were taken, and {done} before");
        stop.store(true, Ordering::Relaxed);
        let served = reads.await.expect("no read was wrong");
        assert!(served > 100, "{served} reads were served meanwhile");

        let all = client.with(Consistency { read: Level::All, ..Consistency::default() });
        for first in (0..KEYS).step_by(100) {
            let mut reads = JoinSet::new();
            for at in first..first + 100 {
                let all = all.clone();
                reads.spawn(async move { (at, all.get(format!("k{at}")).await.expect("all are up")) });
            }
            while let Some(read) = reads.join_next().await {
                let (at, read) = read.expect("no panic");
                assert_eq!(read.value.as_deref(), Some(value(at).as_bytes()), "k{at}");
                assert!(read.receipt.disagreed.is_empty(), "k{at}: {:?}", read.receipt);
            }
        }
        client.close();
    })
    .await;
}
