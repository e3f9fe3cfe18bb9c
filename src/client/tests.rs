//! The client against a cluster that lies, stalls, refuses and vanishes. No network: frames are handed over in memory.
//!
//! What it proves: a call is answered as long as some node answers; a mutation that was tried several times counts once; a failure
//! says whether it may have been applied; no caller waits beyond its timeout; what is under way is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::link::{BoxFuture, Dialled, Ear, SendRefused, Transport, Wire};
use super::*;
use crate::data::consistency::{Ack, Level, Receipt};
use crate::data::op::{Outcome, RequestError, Response};
use crate::net::tls::{ClusterAuthority, Identity, Role};
use crate::wire::codec;
use crate::wire::fault::FaultOrder;

#[derive(Clone, Debug, PartialEq)]
enum Mood {
    Answers,
    /// Cannot be dialled; open links have broken.
    Down,
    /// Takes requests, says nothing.
    Silent,
    /// Does what it is asked, and the link breaks before the answer.
    BreaksAfterDoing,
    Refuses(RequestError),
    /// As long as it has waited for others in vain.
    RefusesAfter(Duration, RequestError),
    /// Answers with bytes that are no message.
    Babbles,
}

#[derive(Default)]
struct World {
    moods: BTreeMap<String, Mood>,
    asked: BTreeMap<String, usize>,
    strings: BTreeMap<Bytes, Bytes>,
    counters: BTreeMap<Bytes, i64>,
    done: BTreeSet<OpId>,
    /// Operation ids by the times they were sent, with `fresh`.
    sent: Vec<(OpId, bool)>,
    ears: Vec<(String, Arc<dyn Ear>)>,
    up: Vec<bool>,
    dials: usize,
}

#[derive(Clone)]
struct Cluster(Arc<Mutex<World>>);

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

fn address(name: &str) -> String {
    format!("{name}:9001")
}

impl Cluster {
    fn new() -> Self {
        let moods = NAMES.iter().map(|name| (name.to_string(), Mood::Answers)).collect();
        Self(Arc::new(Mutex::new(World { moods, up: vec![true; 3], ..World::default() })))
    }

    fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().expect("no panic under the lock"))
    }

    fn mood(&self, name: &str, mood: Mood) {
        let ears = self.world(|world| {
            world.moods.insert(name.to_owned(), mood.clone());
            if mood == Mood::Down { ears_of(world, name) } else { Vec::new() }
        });
        for ear in ears {
            ear.on_closed("it was killed");
        }
    }

    fn layout() -> Layout {
        let member = |name: &&str| Member {
            id: NodeId::from_name(name),
            name: name.to_string(),
            zone: "z".into(),
            weight: 1,
            quic: address(name),
            resp: String::new(),
            http: String::new(),
        };
        Layout { version: 1, parent: 0, replicas: 3, partitions: 16, members: NAMES.iter().map(member).collect() }
    }

    async fn client(&self) -> Client {
        self.client_with(|_| {}).await
    }

    async fn client_with(&self, change: impl FnOnce(&mut ClientOptions)) -> Client {
        let mut options = options();
        change(&mut options);
        Client::connect_over(Arc::new(self.clone()), options).await.expect("a seed answers")
    }

    fn handle(&self, name: &str, message: ClientMessage) -> Option<ServerMessage> {
        self.world(|world| {
            *world.asked.entry(name.to_owned()).or_insert(0) += 1;
            match message {
                ClientMessage::Layout { ticket } => {
                    Some(ServerMessage::Layout { ticket, layout: Self::layout(), up: world.up.clone() })
                }
                ClientMessage::Request { ticket, request } => {
                    let response = respond(world, name, request);
                    Some(ServerMessage::Response { ticket, response })
                }
                ClientMessage::Scan { ticket, scan } => {
                    let after = scan.after.unwrap_or(0);
                    let keys = vec![(Key::new(format!("{}-{after}", scan.partition)), Kind::String)];
                    let next = (after < 2).then_some(after + 1);
                    Some(ServerMessage::ScanPage { ticket, page: Ok(ScanPage { keys, next }) })
                }
                ClientMessage::Fault { ticket, order: FaultOrder::Heal } => {
                    let status = Err(RequestError::FaultRefused("nothing here".into()));
                    Some(ServerMessage::Fault { ticket, status })
                }
                ClientMessage::Fault { .. }
                | ClientMessage::Where { .. }
                | ClientMessage::Status { .. }
                | ClientMessage::Explain { .. }
                | ClientMessage::Scrub { .. } => None,
            }
        })
    }
}

fn ears_of(world: &mut World, name: &str) -> Vec<Arc<dyn Ear>> {
    let (gone, left) = std::mem::take(&mut world.ears).into_iter().partition(|(of, _)| of == name);
    world.ears = left;
    let gone: Vec<(String, Arc<dyn Ear>)> = gone;
    gone.into_iter().map(|(_, ear)| ear).collect()
}

fn respond(world: &mut World, name: &str, request: Request) -> Response {
    let ack = |name: &&str| Ack { node: NodeId::from_name(name), zone: 0, stand_in_for: None, fsynced: false };
    let acks = NAMES.iter().take(2).map(ack);
    let receipt = Receipt { coordinator: Some(NodeId::from_name(name)), acks: acks.collect(), ..Receipt::default() };
    if let Some(op_id) = request.op_id {
        world.sent.push((op_id, request.fresh));
    }
    if let Some(Mood::Refuses(error) | Mood::RefusesAfter(_, error)) = world.moods.get(name) {
        return Response { result: Err(error.clone()), receipt };
    }
    let again = request.op_id.is_some_and(|op_id| !world.done.insert(op_id));
    let key = request.key.bytes;
    let reply = match request.op {
        Op::Get => Reply::Value(world.strings.get(&key).cloned()),
        Op::Set { value, .. } => {
            world.strings.insert(key, value);
            Reply::Bool(true)
        }
        Op::Increment { by, .. } => {
            let sum = world.counters.entry(key).or_insert(0);
            if !again {
                *sum += by.to_integer().expect("integers in these tests");
            }
            Reply::Integer(*sum)
        }
        // A wrong answer, for one test.
        _ => Reply::Integer(-1),
    };
    Response { result: Ok(reply), receipt: Receipt { duplicate: again, ..receipt } }
}

impl Transport for Cluster {
    fn dial<'a>(
        &'a self,
        at: &'a str,
        name: Option<&'a str>,
        ear: Arc<dyn Ear>,
    ) -> BoxFuture<'a, Result<Dialled, String>> {
        Box::pin(async move {
            let node = NAMES.iter().find(|node| address(node) == at).ok_or("no such address")?.to_string();
            assert!(name.is_none_or(|name| name == node), "dialled under the wrong name");
            self.world(|world| {
                world.dials += 1;
                if world.moods[&node] == Mood::Down {
                    return Err("nobody there".to_owned());
                }
                world.ears.push((node.clone(), ear.clone()));
                let wire = Box::new(FakeWire { cluster: self.clone(), node: node.clone(), ear });
                Ok(Dialled { name: node, wire })
            })
        })
    }

    fn close(&self) {}
}

struct FakeWire {
    cluster: Cluster,
    node: String,
    ear: Arc<dyn Ear>,
}

impl Wire for FakeWire {
    fn send(&self, frame: &Bytes) -> Result<(), SendRefused> {
        let mood = self.cluster.world(|world| world.moods[&self.node].clone());
        let message: ClientMessage = codec::decode(frame, 1 << 20).expect("the client speaks well");
        let answer = match &mood {
            Mood::Down => return Err(SendRefused::Closed),
            Mood::Silent => return Ok(()),
            Mood::Babbles => Bytes::from_static(b"\x01\xff\xff"),
            Mood::BreaksAfterDoing => {
                self.cluster.handle(&self.node, message);
                let ear = self.ear.clone();
                tokio::spawn(async move { ear.on_closed("the link was cut") });
                return Ok(());
            }
            Mood::Answers | Mood::Refuses(_) | Mood::RefusesAfter(..) => match self.cluster.handle(&self.node, message)
            {
                Some(answer) => codec::encode(&answer),
                None => return Ok(()),
            },
        };
        let ear = self.ear.clone();
        let after = if let Mood::RefusesAfter(after, _) = mood { after } else { Duration::ZERO };
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            ear.on_frames(vec![answer]);
        });
        Ok(())
    }

    fn close(&self, _: &str) {}
}

fn options() -> ClientOptions {
    let wall_ms = entropy::wall_ms();
    let authority = ClusterAuthority::create("test", 30, wall_ms).expect("an authority");
    let issued = authority.issue("tester", Role::Client, &[], 30, wall_ms).expect("a certificate");
    let identity = Identity::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem, wall_ms);
    ClientOptions {
        timeout: Duration::from_secs(5),
        first_try_timeout: Duration::from_millis(60),
        dial_timeout: Duration::from_millis(200),
        ..ClientOptions::new(NAMES.map(address), identity.expect("an identity"))
    }
}

#[tokio::test]
async fn a_value_is_written_and_read() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let written = client.set("a", "1").await.expect("written");
    assert_eq!(written.attempts, 1);
    assert!(written.op_id.is_some() && !written.receipt.duplicate);
    let read = client.get("a").await.expect("read");
    assert_eq!(read.value.as_deref(), Some(&b"1"[..]));
    assert_eq!(read.op_id, None);
    assert_eq!(client.get("b").await.expect("read").value, None);
}

#[tokio::test]
async fn the_seeds_are_asked_in_turn_and_told_when_none_answers() {
    let cluster = Cluster::new();
    cluster.mood("n1", Mood::Down);
    cluster.mood("n2", Mood::Silent);
    let client = cluster.client().await;
    assert_eq!(client.layout().0, Cluster::layout());

    cluster.mood("n3", Mood::Babbles);
    let failed = Client::connect_over(Arc::new(cluster), options()).await.expect_err("no seed answers");
    let told = failed.to_string();
    for part in ["n1:9001 (nobody there)", "n2:9001 (no answer)", "n3:9001"] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(failed.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn an_increment_counts_once_however_often_it_is_tried() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    for name in ["n1", "n2"] {
        cluster.mood(name, Mood::BreaksAfterDoing);
    }
    let mut retried = 0;
    for _ in 0..30 {
        retried += client.increment("n", 1).await.expect("some node answers").attempts - 1;
    }
    assert_eq!(cluster.world(|world| world.counters[&Bytes::from("n")]), 30);
    assert!(retried > 0, "the test must have hit a broken link");
    let sent = cluster.world(|world| world.sent.clone());
    let mut seen = BTreeSet::new();
    for (op_id, fresh) in sent {
        assert_eq!(fresh, seen.insert(op_id), "only the first sending is fresh");
    }
}

#[tokio::test]
async fn one_node_down_or_silent_is_no_error() {
    let refuses = Mood::Refuses;
    for mood in [
        Mood::Down,
        Mood::Silent,
        Mood::Babbles,
        refuses(RequestError::Stopping { node: "n2".into() }),
        // Its clock is ahead: the id has just been made.
        refuses(RequestError::OpIdExpired { window_ms: 600_000 }),
    ] {
        let cluster = Cluster::new();
        let client = cluster.client().await;
        client.set("warm", "up").await.expect("written");
        cluster.mood("n2", mood.clone());
        let mut calls = tokio::task::JoinSet::new();
        for at in 0..64 {
            let client = client.clone();
            calls.spawn(async move { client.set(format!("k{at}"), "v").await });
        }
        while let Some(done) = calls.join_next().await {
            done.expect("no panic").unwrap_or_else(|error| panic!("{mood:?}: {error}"));
        }
        assert_eq!(cluster.world(|world| world.strings.len()), 65, "{mood:?}");
    }
}

#[tokio::test]
async fn a_silent_node_is_left_alone_after_it_was_found_out() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    cluster.mood("n2", Mood::Silent);
    let mut slow = 0;
    for at in 0..60 {
        slow += usize::from(client.set(format!("k{at}"), "v").await.expect("written").attempts > 1);
    }
    assert!(slow <= 4, "{slow} of 60 went to the silent node first");
}

/// It takes the others for down, and says so when it is asked who is up.
#[tokio::test]
async fn a_node_that_is_cut_off_draws_nobody_to_itself() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    for at in 0..20 {
        client.set(format!("k{at}"), "v").await.expect("written");
    }
    let unavailable = RequestError::Unavailable { needed: 2, reachable: 1, missing: vec!["n2".into(), "n3".into()] };
    cluster.mood("n1", Mood::Refuses(unavailable));
    cluster.world(|world| world.up = vec![true, false, false]);
    client.refresh_layout().await.expect("refreshed");
    let mut again = 0;
    for at in 0..60 {
        again += usize::from(client.set(format!("k{at}"), "v").await.expect("written").attempts > 1);
    }
    assert!(again <= 2, "{again} of 60 went to the isolated node first");
}

/// Before anybody knows of the partition the node waits for the others with every request. Many callers must learn of it once, not each
/// again and again; and when it is healed the node gets its share back.
#[tokio::test]
async fn of_many_callers_one_at_a_time_waits_for_a_node_that_has_just_been_cut_off() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let timeout = RequestError::Timeout { needed: 2, got: 1, missing: vec!["n2".into(), "n3".into()], mutation: true };
    cluster.mood("n1", Mood::RefusesAfter(Duration::from_millis(40), timeout));
    let work = async |rounds: u32| {
        let before = cluster.world(|world| world.asked.get("n1").copied().unwrap_or(0));
        let callers = (0..16).map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..rounds {
                    client.set(format!("{caller}-{round}"), "v").await.expect("written");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.expect("no panic");
        }
        cluster.world(|world| world.asked["n1"]) - before
    };
    let asked = work(400).await;
    assert!((1..=40).contains(&asked), "{asked} of 6,400 requests went to the node that is cut off");
    cluster.mood("n1", Mood::Answers);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let asked = work(400).await;
    assert!(asked > 1_000, "{asked} of 6,400 requests went to the node that is healed");
}

#[tokio::test]
async fn an_operation_id_that_has_expired_for_all_is_refused() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    for name in NAMES {
        cluster.mood(name, Mood::Refuses(RequestError::OpIdExpired { window_ms: 600_000 }));
    }
    let error = client.set("a", "1").await.expect_err("refused");
    assert!(matches!(error, ClientError::Refused { attempts, .. } if attempts as usize == NAMES.len()), "{error}");
    let old = OpId::new(1, [0; 10]);
    let error = client.named(old).set("a", "1").await.expect_err("refused");
    assert!(matches!(error, ClientError::Refused { attempts: 1, .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn a_refusal_for_good_is_told_at_once() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    for name in NAMES {
        cluster.mood(name, Mood::Refuses(RequestError::WrongType));
    }
    let error = client.set("a", "1").await.expect_err("refused");
    assert_eq!(error.refusal(), Some(&RequestError::WrongType));
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(matches!(error, ClientError::Refused { attempts: 1, .. }));
}

#[tokio::test]
async fn an_impossible_consistency_is_refused_before_it_is_sent() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let impossible = Consistency { write: Level::Count(4), ..Consistency::default() };
    let error = client.with(impossible).set("a", "1").await.expect_err("refused");
    assert!(matches!(error.refusal(), Some(RequestError::BadConsistency(_))));
    assert!(cluster.world(|world| world.sent.is_empty()));
}

#[tokio::test]
async fn a_failure_says_whether_it_may_have_been_applied() {
    let cluster = Cluster::new();
    let client = cluster.client().await.within(Duration::from_millis(300));

    // Known before anything was written, everywhere: not applied.
    let unavailable = RequestError::Unavailable { needed: 3, reachable: 2, missing: vec!["n4".into()] };
    for name in NAMES {
        cluster.mood(name, Mood::Refuses(unavailable.clone()));
    }
    let error = client.increment("n", 1).await.expect_err("unavailable");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(error.refusal(), Some(&unavailable));

    // Nobody says anything: unknown for a mutation, harmless for a read.
    for name in NAMES {
        cluster.mood(name, Mood::Silent);
    }
    let started = entropy::instant();
    let error = client.increment("n", 1).await.expect_err("silence");
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(error.op_id().is_some(), "there must be a name to repeat it under");
    assert_eq!(client.get("n").await.expect_err("silence").outcome(), Outcome::NotApplied);

    // Nobody could even be asked: not applied.
    for name in NAMES {
        cluster.mood(name, Mood::Down);
    }
    assert_eq!(client.increment("n", 1).await.expect_err("down").outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn two_silent_nodes_leave_time_for_the_third() {
    let cluster = Cluster::new();
    cluster.mood("n1", Mood::Silent);
    cluster.mood("n3", Mood::Silent);
    for at in 0..8 {
        // Each as if it were the first to find out.
        let client = cluster.client_with(|options| {
            options.seeds = vec![address("n2")];
            options.first_try_timeout = Duration::from_millis(400);
        });
        client.await.within(Duration::from_secs(1)).set(format!("k{at}"), "v").await.expect("n2 answers");
    }
}

#[tokio::test]
async fn what_cannot_be_met_is_told_before_the_time_is_over() {
    let cluster = Cluster::new();
    let client = cluster.client().await.within(Duration::from_secs(2));
    let unavailable = RequestError::Unavailable { needed: 2, reachable: 1, missing: vec!["n2".into(), "n3".into()] };
    for name in NAMES {
        cluster.mood(name, Mood::Refuses(unavailable.clone()));
    }
    let started = entropy::instant();
    let error = client.set("a", "1").await.expect_err("unavailable");
    assert_eq!(error.refusal(), Some(&unavailable));
    assert!(started.elapsed() >= Duration::from_millis(500), "a moment in which nodes find each other is waited for");
    assert!(started.elapsed() < Duration::from_millis(1_900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_is_said_to_be_away_is_sent_no_mutation_before_it_answers() {
    let cluster = Cluster::new();
    cluster.world(|world| world.up = vec![true, false, false]);
    let unavailable = RequestError::Unavailable { needed: 2, reachable: 1, missing: vec!["n2".into(), "n3".into()] };
    cluster.mood("n1", Mood::Refuses(unavailable.clone()));
    cluster.mood("n2", Mood::Silent);
    cluster.mood("n3", Mood::Silent);
    let client = cluster.client_with(|options| options.seeds = vec![address("n1")]).await;
    let error = client.within(Duration::from_secs(3)).set("a", "1").await.expect_err("n1 is alone");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    // Cut off from n1 alone, they answer, and are asked.
    cluster.mood("n2", Mood::Answers);
    client.within(Duration::from_secs(10)).set("a", "1").await.expect("n2 answers");
}

#[tokio::test]
async fn an_earlier_try_that_may_have_been_applied_is_not_forgotten() {
    let cluster = Cluster::new();
    let client = cluster.client().await.within(Duration::from_millis(400));
    for name in NAMES {
        cluster.mood(name, Mood::BreaksAfterDoing);
    }
    let waiting = tokio::spawn(async move { client.increment("n", 1).await });
    tokio::time::sleep(Duration::from_millis(5)).await;
    for name in NAMES {
        cluster.mood(name, Mood::Refuses(RequestError::Unavailable { needed: 2, reachable: 1, missing: vec![] }));
    }
    let error = waiting.await.expect("no panic").expect_err("unavailable in the end");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(cluster.world(|world| world.counters[&Bytes::from("n")]), 1);
}

#[tokio::test]
async fn a_named_operation_counts_once_over_two_calls() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let op_id = Client::new_op_id();
    client.freshly_named(op_id).increment("n", 5).await.expect("counted");
    let again = client.named(op_id).increment("n", 5).await.expect("not counted again");
    assert_eq!(again.value, 5);
    assert!(again.receipt.duplicate);
    assert_eq!(cluster.world(|world| world.sent.clone()), [(op_id, true), (op_id, false)]);
}

#[tokio::test]
async fn what_is_under_way_is_bounded() {
    let cluster = Cluster::new();
    let client = cluster.client_with(|options| options.in_flight_max = 4).await.within(Duration::from_millis(150));
    for name in NAMES {
        cluster.mood(name, Mood::Silent);
    }
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..100 {
        let client = client.clone();
        calls.spawn(async move { client.set(format!("k{at}"), "v").await });
    }
    let mut overloaded = 0;
    while let Some(done) = calls.join_next().await {
        let error = done.expect("no panic").expect_err("nobody answers");
        overloaded += usize::from(matches!(error.refusal(), Some(RequestError::Overloaded(_))));
    }
    assert!(overloaded > 0, "some must have been refused here");
}

#[tokio::test]
async fn a_dropped_call_gives_its_ticket_back() {
    let cluster = Cluster::new();
    let client = cluster.client_with(|options| options.in_flight_max = 2).await;
    for name in NAMES {
        cluster.mood(name, Mood::Silent);
    }
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(1), client.get("a")).await;
    }
    for name in NAMES {
        cluster.mood(name, Mood::Answers);
    }
    client.get("a").await.expect("there is room again");
}

#[tokio::test]
async fn many_callers_share_one_dial() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let before = cluster.world(|world| world.dials);
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..50 {
        let client = client.clone();
        calls.spawn(async move { client.set(format!("k{at}"), "v").await.map(|_| ()) });
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no panic").expect("written");
    }
    assert!(cluster.world(|world| world.dials) - before <= 2, "one dial per node that was not a seed");
}

#[tokio::test]
async fn who_is_down_is_learnt_from_those_who_are_up() {
    let cluster = Cluster::new();
    cluster.world(|world| world.up = vec![true, true, false]);
    // Which has not heard from the third itself.
    let client = cluster.client_with(|options| options.seeds = vec![address("n1")]).await;
    let (_, up) = client.refresh_layout().await.expect("refreshed");
    assert_eq!(up, [true, true, false]);
    cluster.world(|world| world.asked.clear());
    for at in 0..30 {
        client.set(format!("k{at}"), "v").await.expect("written");
    }
    assert_eq!(cluster.world(|world| world.asked.get("n3").copied()), None);
}

#[tokio::test]
async fn a_wrong_answer_is_told_as_such() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let error = client.set_members("a").await.expect_err("an integer is no page of members");
    assert!(matches!(error, ClientError::UnexpectedReply { wanted: "a page of members", .. }));
    assert!(matches!(client.status(NodeId(5)).await, Err(ClientError::UnknownNode { .. })));
    assert!(client.member("n9").expect_err("no such member").to_string().contains("n1, n2, n3"));
}

#[tokio::test]
async fn a_scan_walks_every_page_of_every_partition() {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    let mut scan = client.scan(10);
    let mut keys = Vec::new();
    while let Some(page) = scan.next_page().await.expect("a page") {
        keys.extend(page);
    }
    assert_eq!(keys.len(), 16 * 3);
    assert_eq!(scan.progress(), (16, 16));
}

#[tokio::test]
async fn an_order_to_die_is_given_once_and_without_an_answer_it_may_have_been_obeyed() {
    let cluster = Cluster::new();
    let client = cluster.client().await.within(Duration::from_millis(200));
    let node = NodeId::from_name("n2");
    let asked = || cluster.world(|world| world.asked.get("n2").copied().unwrap_or(0));
    let before = asked();
    let error = client.fault(node, FaultOrder::Kill).await.expect_err("no answer comes");
    assert_eq!((error.outcome(), asked()), (Outcome::Unknown, before + 1));
    let error = client.fault(node, FaultOrder::Heal).await.expect_err("it is refused");
    assert_eq!(error.refusal(), Some(&RequestError::FaultRefused("nothing here".into())));
    assert_eq!(error.outcome(), Outcome::NotApplied);
}
