//! A door that is guarded: TLS, passwords, a bound on connections.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Resp, until};

const NO_AUTH: &str = "-NOAUTH Authentication required.";
const WRONG_PASSWORD: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

#[test]
fn tls() {
    let cluster = Cluster::start("tls = true");
    let authority = cluster.tls_dir().join("ca.crt").display().to_string();
    for number in 1..=3 {
        let tls = ["--tls", "--cacert", &authority];
        let ask = |words: &[&str]| cluster.redis_cli(number, &[&tls[..], words].concat(), "");
        until("the node reaches the others", || ask(&["TW.WITH", "WRITE", "all", "--", "SET", "a", "1"]) == "OK\n");
        assert_eq!(ask(&["INCR", "a"]), "2\n");
        assert_eq!(ask(&["-c", "GET", "a"]), "2\n");
    }
    assert_eq!(cluster.python("tls.py", &[&authority]), "done\n");
    // Who speaks plainly is not heard.
    let mut plain = cluster.resp(1);
    plain.send(b"SET a plain\r\nGET a\r\n");
    plain.send(&[b'x'; 10_000]);
    let told = plain.reply();
    assert!(!told.contains("OK"), "{told}");
    let tls = ["--tls", "--cacert", &authority, "GET", "a"];
    assert_eq!(cluster.redis_cli(1, &tls, ""), "2\n");
}

#[test]
fn passwords() {
    let cluster = Cluster::start(r#"passwords = ["old secret", "new"]"#);
    let mut resp = cluster.resp(1);
    for line in ["GET a", "SET a 1", "PING", "COMMAND", "INFO", "CLUSTER SLOTS", "TW.WHERE a", "TW.WITH -- GET a"] {
        assert_eq!(resp.line(line), NO_AUTH, "{line}");
    }
    assert!(resp.line("HELLO 3").starts_with("-NOAUTH HELLO must be called with the client already authenticated"));
    assert_eq!(resp.line("AUTH wrong"), WRONG_PASSWORD);
    assert_eq!(resp.ask(&["AUTH", ""]), WRONG_PASSWORD);
    assert_eq!(resp.line("AUTH nobody new"), WRONG_PASSWORD);
    assert_eq!(resp.line("HELLO 2 AUTH default wrong"), WRONG_PASSWORD);
    assert_eq!(resp.line("GET a"), NO_AUTH);
    assert_eq!(resp.ask(&["AUTH", "old secret"]), "+OK");
    until("the node reaches the others", || resp.line("SET a 1") == "+OK");
    assert_eq!(resp.line("AUTH wrong"), WRONG_PASSWORD);
    assert_eq!(resp.line("GET a"), "1", "who is in stays in");
    assert_eq!(resp.line("RESET"), "+RESET");
    assert_eq!(resp.line("GET a"), NO_AUTH);
    assert_eq!(resp.line("AUTH default new"), "+OK");
    assert_eq!(resp.line("GET a"), "1");

    // Strangers may not fill the memory.
    for (bytes, told) in [
        (&b"*11\r\n"[..], "-ERR Protocol error: unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length"),
    ] {
        let mut stranger = cluster.resp(2);
        stranger.send(bytes);
        assert_eq!(stranger.reply(), told);
        assert_eq!(stranger.reply(), "(end)");
    }

    let with = |words: &[&str]| cluster.redis_cli(3, &[&["--no-auth-warning"], words].concat(), "");
    until("n3 reaches the others", || with(&["-a", "new", "GET", "a"]) == "1\n");
    assert_eq!(with(&["--user", "default", "--pass", "old secret", "GET", "a"]), "1\n");
    assert!(with(&["-a", "wrong", "GET", "a"]).contains("NOAUTH"));
    assert!(with(&["GET", "a"]).contains("NOAUTH"));
}

#[test]
fn one_connection_too_many_is_told_so() {
    let cluster = Cluster::start("connections_max = 20");
    let mut held: Vec<Resp> = (0..20).map(|_| cluster.resp(1)).collect();
    for resp in &mut held {
        assert_eq!(resp.line("PING"), "+PONG");
    }
    let mut late = cluster.resp(1);
    assert_eq!(late.reply(), "-ERR max number of clients reached");
    assert_eq!(late.reply(), "(end)");
    assert_eq!(held[19].line("PING"), "+PONG");
    held.truncate(10);
    let began = Instant::now();
    until("places are free again", || cluster.resp(1).line("PING") == "+PONG");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(cluster.resp(2).line("PING"), "+PONG", "each node counts for itself");
}
