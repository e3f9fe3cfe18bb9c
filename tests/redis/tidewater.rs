//! `TW.*`: what Redis has no words for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::Cluster;

#[test]
fn consistency_of_a_connection() {
    let table = &[
        (
            "TW.CONSISTENCY",
            "list: read quorum write quorum durable none zones (integer)1 owners no timeout (integer)2000",
        ),
        ("TW.CONSISTENCY READ one WRITE all DURABLE quorum OWNERS yes TIMEOUT 5000", "OK"),
        ("TW.CONSISTENCY", "list: read one write all durable quorum zones (integer)1 owners yes timeout (integer)5000"),
        ("SET %a 1", "OK"),
        ("GET %a", "\"1\""),
        ("TW.CONSISTENCY READ 3 WRITE any DURABLE none OWNERS no", "OK"),
        ("SET %a 2", "OK"),
        ("GET %a", "\"2\""),
        (
            "TW.CONSISTENCY READ lots",
            "starts: (error) ERR 'lots' is not a level: use any, one, two, three, quorum, all",
        ),
        ("TW.CONSISTENCY READ any", "starts: (error) ERR READ any is not a level"),
        ("TW.CONSISTENCY WRITE 9", "(error) ERR WRITE 9 is out of range: with 3 replicas use 1 to 3"),
        ("TW.CONSISTENCY DURABLE all WRITE one", "starts: (error) ERR DURABLE asks for more fsyncs than WRITE"),
        ("TW.CONSISTENCY OWNERS maybe", "(error) ERR OWNERS 'maybe' is neither yes nor no"),
        ("TW.CONSISTENCY TIMEOUT 0", "(error) ERR TIMEOUT is in milliseconds, from 1 to 600000"),
        (
            "TW.CONSISTENCY FOO bar",
            "(error) ERR unknown option 'FOO': use READ, WRITE, DURABLE, ZONES, OWNERS or TIMEOUT",
        ),
        ("TW.CONSISTENCY READ", "(error) ERR syntax error"),
        // What was refused changed nothing, not in part either.
        ("TW.CONSISTENCY READ one WRITE lots", "starts: (error) ERR 'lots'"),
        ("TW.CONSISTENCY", "list: read three write any durable none zones (integer)1 owners no timeout (integer)5000"),
        ("RESET", "RESET"),
        (
            "TW.CONSISTENCY",
            "list: read quorum write quorum durable none zones (integer)1 owners no timeout (integer)2000",
        ),
    ];
    Cluster::shared().check_table_as_it_begins("chosen:", table);
}

#[test]
fn consistency_of_a_command() {
    let cluster = Cluster::shared();
    cluster.check_table(&[
        ("TW.WITH WRITE all DURABLE all -- SET %a 1", "OK"),
        ("TW.WITH READ one -- GET %a", "\"1\""),
        ("TW.WITH -- GET %a", "\"1\""),
        ("TW.WITH READ all -- TW.WITH TIMEOUT 1000 -- GET %a", "\"1\""),
        ("TW.WITH WRITE all -- SET %a", "(error) ERR wrong number of arguments for 'set' command"),
        ("TW.WITH WRITE all -- MULTI", "starts: (error) ERR MULTI is not supported"),
        ("TW.WITH WRITE all SET %a 1", "(error) ERR TW.WITH needs -- and then a command"),
        ("TW.WITH WRITE all --", "(error) ERR TW.WITH needs -- and then a command"),
        ("TW.WITH FOO bar -- GET %a", "starts: (error) ERR unknown option 'FOO'"),
        ("TW.CONSISTENCY", "starts:  1) \"read\"\n 2) \"quorum\"\n 3) \"write\"\n 4) \"all\""),
        ("TW.NONSENSE", "starts: (error) ERR unknown command 'TW.NONSENSE'"),
    ]);
    let mut resp = cluster.resp(1);
    assert_eq!(resp.line("TW.WITH WRITE all DURABLE all -- SET with:a 1"), "+OK");
    let receipt = resp.line("TW.RECEIPT");
    assert!(receipt.contains("needed, :3") && receipt.contains("missing, []"), "{receipt}");
    assert_eq!(receipt.matches("kind, owner").count(), 3, "{receipt}");
    assert_eq!(receipt.matches("fsynced, :1").count(), 3, "{receipt}");
}

#[test]
fn receipts_tell_what_was_achieved() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(2);
    assert_eq!(resp.line("TW.RECEIPT"), "(nil)");
    assert_eq!(resp.line("SET receipt:a 1"), "+OK");
    let receipt = resp.line("TW.RECEIPT");
    for part in ["coordinator, n", "needed, :2", "duplicate, :0", "took-us, :", "requests, :1"] {
        assert!(receipt.contains(part), "no {part} in {receipt}");
    }
    assert_eq!(resp.line("MSET receipt:a 1 receipt:b 2 receipt:c 3"), "+OK");
    assert!(resp.line("TW.RECEIPT").contains("requests, :3"));
    assert_eq!(resp.line("PING"), "+PONG");
    assert!(resp.line("TW.RECEIPT").contains("requests, :3"), "PING has none");
    assert_eq!(resp.line("TW.WITH READ one -- GET receipt:a"), "1");
    assert!(resp.line("TW.RECEIPT").contains("needed, :1"));
}

#[test]
fn every_node_knows_where_a_key_lives() {
    let cluster = Cluster::shared();
    let told: Vec<String> = (1..=3).map(|number| cluster.resp(number).line("TW.WHERE foo")).collect();
    assert!(told[0].starts_with("[slot, :12182, partition, :761, layout, :1, nodes, [[node, n"), "{}", told[0]);
    assert_eq!(told[0].matches("kind, owner, up, :1").count(), 3, "{}", told[0]);
    assert!(told.iter().all(|other| *other == told[0]), "{told:#?}");
    cluster.check_table(&[("TW.WHERE", "(error) ERR wrong number of arguments for 'tw.where' command")]);
}

#[test]
fn siblings_appear_and_are_joined() {
    let cluster = Cluster::shared();
    let mut nodes = [cluster.resp(1), cluster.resp(2), cluster.resp(3)];
    assert!(nodes[0].line("TW.GET cart").starts_with("[[], "), "nothing yet");
    // Neither has seen the other.
    nodes[0].line("TW.PUT cart apple");
    nodes[1].line("TW.PUT cart pear");
    let told = nodes[2].line("TW.GET cart");
    assert!(told.starts_with("[[apple, pear], ") || told.starts_with("[[pear, apple], "), "{told}");
    // Who has seen both replaces both; who has not, does not.
    let context = |told: &str| told.rsplit_once(", ").expect("a context").1.trim_end_matches(']').to_owned();
    let seen = context(&told);
    nodes[1].line(&format!("TW.PUT cart fruit CONTEXT {seen}"));
    assert!(nodes[0].line("TW.GET cart").starts_with("[[fruit], "));
    nodes[2].line(&format!("TW.PUT cart salad CONTEXT {seen}"));
    let told = nodes[0].line("TW.GET cart");
    assert!(told.starts_with("[[fruit, salad], ") || told.starts_with("[[salad, fruit], "), "{told}");
    nodes[2].line(&format!("TW.PUT cart meal CONTEXT {}", context(&told)));
    assert!(nodes[1].line("TW.GET cart").starts_with("[[meal], "));
    // Removed with all that was seen.
    assert_eq!(nodes[1].line("DEL cart"), ":1");
    assert!(nodes[0].line("TW.GET cart").starts_with("[[], "));

    cluster.check_table(&[
        ("TW.PUT %s v", "starts: 1) 1) \"v\"\n2) \""),
        ("TYPE %s", "siblings"),
        ("GET %s", "(error) WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("TW.PUT %s w CONTEXT zz", "starts: (error) BADCONTEXT the context is not one that was given out for this key"),
        ("TW.PUT %s w CONTEXT 00", "starts: (error) BADCONTEXT"),
        ("TW.PUT %s w CONTEXT", "(error) ERR syntax error"),
        ("TW.PUT %s w FOO 00", "(error) ERR syntax error"),
        ("TW.PUT %s", "(error) ERR wrong number of arguments for 'tw.put' command"),
        ("SET %t v", "OK"),
        ("TW.GET %t", "(error) WRONGTYPE Operation against a key holding the wrong kind of value"),
    ]);
    // A context of another key is none of this one.
    let other = context(&nodes[0].line("TW.PUT basket nut"));
    assert!(nodes[0].line(&format!("TW.PUT cart nut CONTEXT {other}")).starts_with("-BADCONTEXT"));
}

#[test]
fn the_same_id_counts_once_through_whatever_node() {
    let cluster = Cluster::shared();
    let mut nodes = [cluster.resp(1), cluster.resp(2), cluster.resp(3)];
    for key in 0..20 {
        let id = op_id();
        for at in 0..4 {
            let told = nodes[(key + at) % 3].line(&format!("TW.ID {id} -- INCRBY once:{key} 5"));
            assert_eq!(told, ":5", "sent {} times", at + 1);
        }
        assert_eq!(nodes[key % 3].line(&format!("GET once:{key}")), "5");
    }
    let id = op_id();
    assert_eq!(nodes[0].line(&format!("TW.ID {id} -- SADD once:s m")), ":1");
    assert_eq!(nodes[1].line("SREM once:s m"), ":1");
    assert_eq!(nodes[2].line(&format!("TW.ID {id} -- SADD once:s m")), ":0", "it was done once, and removed since");
    assert!(nodes[2].line("TW.RECEIPT").contains("duplicate, :1"));
    // Another id is another increment, whatever wraps it.
    assert_eq!(nodes[0].line(&format!("TW.WITH WRITE all -- TW.ID {} -- INCR once:w", op_id())), ":1");
    assert_eq!(nodes[1].line(&format!("TW.ID {} -- TW.WITH WRITE all -- INCR once:w", op_id())), ":2");
    // Several keys in one command: each once.
    let id = op_id();
    for node in &mut nodes {
        assert_eq!(node.line(&format!("TW.ID {id} -- MSET once:x 1 once:y 2")), "+OK");
    }

    cluster.check_table(&[
        ("TW.ID nonsense -- INCR %a", "starts: (error) ERR the operation id must be a UUID of version 7"),
        (
            "TW.ID 0190163d-8694-739b-aea5-966c26f8ad91 -- INCR %a",
            "starts: (error) OPIDEXPIRED the operation id is older than the window",
        ),
        ("TW.ID a b -- INCR %a", "(error) ERR TW.ID takes one operation id before --"),
        ("TW.ID a INCR %a", "(error) ERR TW.ID needs -- and then a command"),
        ("EXISTS %a", "(integer) 0"),
    ]);
}

#[test]
fn flags() {
    Cluster::shared().check_table(&[
        ("TW.FLAG %f", "(integer) 0"),
        ("TW.FLAG %f ON", "(integer) 0"),
        ("TW.FLAG %f", "(integer) 1"),
        ("TW.FLAG %f off", "(integer) 1"),
        ("TW.FLAG %f", "(integer) 0"),
        ("TW.FLAG %f maybe", "(error) ERR syntax error"),
        ("TW.HELP", "starts:  1) TW.CONSISTENCY"),
    ]);
}

/// A UUID of version 7 that no other call gave.
fn op_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let (ms, next) = (since.as_millis() as u64, NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{:08x}-{:04x}-7{:03x}-8000-{:012x}", ms >> 16, ms & 0xffff, next & 0xfff, since.subsec_nanos())
}
