//! Faults on demand: a command hurts running nodes as it says, clients are not touched by what is done to packets, and a node that
//! does not allow it refuses.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::{Cluster, PATIENCE, Said, until, within};

const LONGEST: Duration = Duration::from_secs(90);

async fn run(cluster: &Cluster, line: &str) -> Said {
    cluster.run(line.split(' ')).await
}

#[track_caller]
fn told(said: &Said, parts: &[&str]) {
    for part in parts {
        assert!(said.out.contains(part), "wanted: {part}\ngot: {said:#?}");
    }
}

/// What `faults show` says of one node.
async fn shown(cluster: &Cluster, number: usize) -> Value {
    let said = run(cluster, "faults show --output json").await.expect(0);
    said.json()["nodes"][number - 1]["faults"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_cut_off_from_the_others_but_not_from_clients_until_it_is_healed() {
    within(LONGEST, async {
        let cluster = Cluster::start_hurtable(3).await;
        let client = cluster.client().await;
        run(&cluster, "put a before").await.expect(0);

        let cut = run(&cluster, "faults cut n1 n2,n3 --for 60s").await.expect(0);
        told(&cut, &["cut, n1 | n2, n3, for 1 m 00 s"]);
        let (mut one, mut two) = (cluster.resp(1).await, cluster.resp(2).await);
        cluster.until_seen_up(1, &[]).await;
        cluster.until_seen_up(2, &["n3"]).await;
        // The news that a link has broken may come a moment before that of who is down.
        let mut refused = one.line("TW.WITH OWNERS yes -- SET a lost").await;
        for _ in 0..20 {
            if refused.starts_with("-TIMEOUT") {
                tokio::time::sleep(Duration::from_millis(100)).await;
                refused = one.line("TW.WITH OWNERS yes -- SET a lost").await;
            }
        }
        assert!(refused.starts_with("-NOREPLICAS"), "{refused}");
        assert_eq!(one.line("TW.WITH WRITE any -- SADD members one").await, ":1", "n1 goes on by itself");
        assert_eq!(two.line("SET a after").await, "+OK", "two of three go on");
        // Asked over QUIC, as its peers ask it: n1 answers, so clients are not cut off.
        let status = run(&cluster, "status").await.expect(0);
        told(
            &status,
            &["n1 is cut off from n2 (", "n3 is cut off from n1 (", "any client may hurt n1, n2, n3 on purpose"],
        );
        assert!(shown(&cluster, 1).await["packets"]["cut"].as_u64() > Some(0));

        run(&cluster, "faults heal n1").await.expect(0);
        for number in 1..=3 {
            assert_eq!(shown(&cluster, number).await["network"], Value::Array(Vec::new()), "n{number}");
        }
        cluster.level(&client).await;
        assert_eq!(one.line("TW.WITH READ one -- GET a").await, "after");
        assert_eq!(two.line("TW.WITH READ one -- SCARD members").await, ":1");

        // One direction: either end suffices, and it heals by itself.
        run(&cluster, "faults cut n1 n2 --one-way --for 1s").await.expect(0);
        let ends = [shown(&cluster, 1).await, shown(&cluster, 2).await];
        assert_eq!(ends.map(|end| end["network"][0]["fault"].clone()), ["cut_out", "cut_in"]);
        run(&cluster, "faults delay n1 n3 5ms --jitter 2ms").await.expect(0);
        until("the cut is over, and the delay is not", PATIENCE, async || {
            let faults = shown(&cluster, 1).await["network"].clone();
            faults.as_array().is_some_and(|left| left.len() == 2 && left[0]["fault"] == "delay_us")
        })
        .await;
        run(&cluster, "faults heal").await.expect(0);
        cluster.level(&client).await;

        for (line, part) in [
            ("faults cut n1 n9", "the layout has no node 'n9'; it has n1, n2, n3"),
            ("faults cut n1,n2 n2,n3", "n2 is on both sides"),
        ] {
            let refused = run(&cluster, line).await.expect(2);
            assert!(refused.err.contains(part), "{refused:#?}");
        }
    })
    .await;
}

/// Seconds since 1970 by a node's `TIME`.
async fn time_of(resp: &mut crate::harness::Resp) -> i64 {
    assert_eq!(resp.line("TIME").await, "*2");
    let seconds = resp.reply().await.parse().expect("seconds");
    resp.reply().await;
    seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_stand_still_die_lose_their_disk_and_the_time_when_told() {
    within(LONGEST, async {
        let mut cluster = Cluster::start_hurtable(3).await;
        let client = cluster.client().await;
        for at in 0..50 {
            client.set(format!("key:{at}"), "x").await.expect("all are up");
        }

        let mut one = cluster.resp(1).await;
        let real_s = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        told(&run(&cluster, "faults clock n1 +1h").await.expect(0), &["clock 1 h 00 m ahead: n1", "n1  done"]);
        let ahead_s = time_of(&mut one).await - real_s();
        assert!((3_595..=3_605).contains(&ahead_s), "{ahead_s}");
        told(&run(&cluster, "status").await.expect(0), &["n1 has its clock 1 h 00 m ahead (until it is healed)"]);
        run(&cluster, "faults heal n1").await.expect(0);
        let ahead_s = time_of(&mut one).await - real_s();
        assert!(ahead_s.abs() <= 5, "{ahead_s}");

        let (mut two, pid) = (cluster.resp(2).await, cluster.pid(2));
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
            stat.rsplit_once(") ").expect("a stat").1.starts_with('T')
        };
        let began = Instant::now();
        run(&cluster, "faults pause n2 --for 2s").await.expect(0);
        until("n2 stands still", PATIENCE, async || is_stopped()).await;
        assert_eq!(two.line("PING").await, "+PONG");
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(!is_stopped() && cluster.pid(2) == pid, "the same process goes on by itself");

        run(&cluster, "faults kill n3").await.expect(0);
        cluster.until_gone(3).await;
        let unreached = run(&cluster, "faults loss n1 n3 5%").await.expect(1);
        told(&unreached, &["n1  done", "n3  NOT DONE"]);
        let enough = run(&cluster, "faults cut n1 n3").await.expect(0);
        told(&enough, &["n1  done", "n3  not done here, but the other side is enough"]);
        run(&cluster, "faults heal n1").await.expect(1);
        cluster.restart(3).await;

        run(&cluster, "faults wipe n3").await.expect(0);
        cluster.until_gone(3).await;
        cluster.restart(3).await;
        assert!(cluster.log(3).contains("the store has been wiped, as was ordered"), "{}", cluster.log(3));
        cluster.level(&client).await;
        let mut three = cluster.resp(3).await;
        for at in 0..50 {
            assert_eq!(
                three.line(&format!("TW.WITH READ one -- GET key:{at}")).await,
                "x",
                "it has got all from the others"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_allow_faults_refuses_each_and_says_how_to_allow_them() {
    within(LONGEST, async {
        let cluster = Cluster::start(2).await;
        let pid = cluster.pid(1);
        for line in [
            "faults kill n1",
            "faults wipe n1",
            "faults pause n1 --for 1s",
            "faults clock n1 -1h",
            "faults cut n1 n2",
            "faults heal n1",
        ] {
            let refused = run(&cluster, line).await.expect(1);
            told(&refused, &["n1  NOT DONE", "n1 takes no such orders: start it with --allow-faults"]);
        }
        told(&run(&cluster, "faults show").await.expect(0), &["n1  takes no orders for faults"]);
        assert_eq!(cluster.pid(1), pid);
        assert!(!cluster.node(1).store.join("wipe").exists());
        assert!(!run(&cluster, "status").await.expect(0).out.contains("on purpose"));
    })
    .await;
}
