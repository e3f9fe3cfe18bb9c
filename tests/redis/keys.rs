//! Whole keys: deletion, existence, kind, expiry, and walks over all keys of the cluster.

use std::collections::BTreeSet;

use crate::harness::{Cluster, Resp};

const SYNTAX: &str = "(error) ERR syntax error";
const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";

#[test]
fn keys_come_and_go() {
    Cluster::shared().check_table(&[
        ("MSET %a 1 %b 2 %c 3", "OK"),
        ("SADD %s m", "(integer) 1"),
        ("HSET %h f v", "(integer) 1"),
        ("EXISTS %a %a %s %nosuch", "(integer) 3"),
        ("TOUCH %a %nosuch", "(integer) 1"),
        ("TYPE %a", "string"),
        ("TYPE %s", "set"),
        ("TYPE %h", "hash"),
        ("TYPE %nosuch", "none"),
        ("DEL %a %a %nosuch", "(integer) 1"),
        ("DEL %a", "(integer) 0"),
        ("UNLINK %b %c %s", "(integer) 3"),
        ("UNLINK %h", "(integer) 1"),
        ("EXISTS %a %b %c %s %h", "(integer) 0"),
        ("OBJECT REFCOUNT %nosuch", "(nil)"),
        ("DEL", "(error) ERR wrong number of arguments for 'del' command"),
        ("UNLINK", "(error) ERR wrong number of arguments for 'unlink' command"),
        ("EXISTS", "(error) ERR wrong number of arguments for 'exists' command"),
        ("TYPE", "(error) ERR wrong number of arguments for 'type' command"),
    ]);
}

#[test]
fn expiry() {
    Cluster::shared().check_table(&[
        ("EXPIRE %nosuch 10", "(integer) 0"),
        ("TTL %nosuch", "(integer) -2"),
        ("PTTL %nosuch", "(integer) -2"),
        ("PERSIST %nosuch", "(integer) 0"),
        ("SET %k v", "OK"),
        ("TTL %k", "(integer) -1"),
        ("PTTL %k", "(integer) -1"),
        ("PERSIST %k", "(integer) 0"),
        ("EXPIRE %k 100", "(integer) 1"),
        ("TTL %k", "about 100"),
        ("PTTL %k", "about 100000"),
        ("PEXPIRE %k 200000", "(integer) 1"),
        ("TTL %k", "about 200"),
        ("EXPIREAT %k 99999999999", "(integer) 1"),
        ("EXPIRETIME %k", "(integer) 99999999999"),
        ("PEXPIREAT %k 99999999999123", "(integer) 1"),
        ("PEXPIRETIME %k", "(integer) 99999999999123"),
        ("EXPIRE %k 100 NX", "(integer) 0"),
        ("EXPIRE %k 100 XX", "(integer) 1"),
        ("EXPIRE %k 50 GT", "(integer) 0"),
        ("EXPIRE %k 200 GT", "(integer) 1"),
        ("EXPIRE %k 300 LT", "(integer) 0"),
        ("EXPIRE %k 150 LT", "(integer) 1"),
        ("EXPIRE %k 120 XX LT", "(integer) 1"),
        ("TTL %k", "about 120"),
        ("PERSIST %k", "(integer) 1"),
        ("TTL %k", "(integer) -1"),
        ("EXPIRE %k 100 GT", "(integer) 0"),
        ("EXPIRE %k 100 XX LT", "(integer) 0"),
        ("EXPIRE %k 100 LT", "(integer) 1"),
        ("EXPIRE %k x", NOT_INTEGER),
        ("EXPIRE %k 9223372036854775807", "(error) ERR invalid expire time in 'expire' command"),
        ("PEXPIRE %k 9223372036854775807", "(error) ERR invalid expire time in 'pexpire' command"),
        ("EXPIRE %k 10 FOO", "(error) ERR Unsupported option FOO"),
        ("EXPIRE %k 10 NX XX", "(error) ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE %k 10 GT LT", "(error) ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE %k", "(error) ERR wrong number of arguments for 'expire' command"),
        ("TTL", "(error) ERR wrong number of arguments for 'ttl' command"),
        ("EXPIRE %k 0", "(integer) 1"),
        ("EXISTS %k", "(integer) 0"),
        ("SET %k v", "OK"),
        ("PEXPIRE %k -1", "(integer) 1"),
        ("GET %k", "(nil)"),
        ("SET %k v", "OK"),
        ("EXPIREAT %k 1", "(integer) 1"),
        ("TYPE %k", "none"),
    ]);
}

#[test]
fn collections_expire_whole() {
    Cluster::shared().check_table(&[
        ("SADD %s a b", "(integer) 2"),
        ("EXPIRE %s 100", "(integer) 1"),
        ("SADD %s a", "(integer) 0"),
        ("SREM %s b", "(integer) 1"),
        ("TTL %s", "about 100"),
        ("SREM %s a", "(integer) 1"),
        ("TTL %s", "(integer) -2"),
        ("SADD %s a", "(integer) 1"),
        ("TTL %s", "(integer) -1"),
        ("HSET %h f v", "(integer) 1"),
        ("PEXPIRE %h 100000", "(integer) 1"),
        ("HSET %h f w", "(integer) 0"),
        ("TTL %h", "about 100"),
        ("PERSIST %h", "(integer) 1"),
        ("TTL %h", "(integer) -1"),
        ("EXPIRE %h 0", "(integer) 1"),
        ("HLEN %h", "(integer) 0"),
        ("HSET %h g w", "(integer) 1"),
        ("HGETALL %h", "list: g w"),
    ]);
}

/// What is added to a collection ends with it.
#[test]
fn additions_do_not_outlive_their_collection() {
    Cluster::shared().check_table(&[
        ("SADD %s a", "(integer) 1"),
        ("EXPIRE %s 100", "(integer) 1"),
        ("SADD %s b", "(integer) 1"),
        ("TTL %s", "about 100"),
        ("HSET %h f v", "(integer) 1"),
        ("EXPIRE %h 100", "(integer) 1"),
        ("HSET %h g w", "(integer) 1"),
        ("HINCRBY %h n 1", "(integer) 1"),
        ("TTL %h", "about 100"),
    ]);
}

#[test]
fn what_walks_refuse() {
    Cluster::shared().check_table(&[
        ("SCAN x", "(error) ERR invalid cursor"),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT x", NOT_INTEGER),
        ("SCAN 0 COUNT", SYNTAX),
        ("SCAN 0 FOO bar", SYNTAX),
        ("SCAN 0 TYPE cheese", "(error) ERR unknown type name 'cheese'"),
        ("SCAN", "(error) ERR wrong number of arguments for 'scan' command"),
        ("DBSIZE x", "(error) ERR wrong number of arguments for 'dbsize' command"),
        ("KEYS", "(error) ERR wrong number of arguments for 'keys' command"),
        ("KEYS nosuch:*", "(empty array)"),
    ]);
}

/// Alone in its cluster, since it counts all keys.
#[test]
fn walks_over_all_keys() {
    let cluster = Cluster::start("");
    let mut first = cluster.resp(1);
    assert_eq!(first.line("TW.CONSISTENCY WRITE all"), "+OK");
    crate::harness::until("all owners acknowledge", || first.line("SET walk:0 v") == "+OK");
    for number in 1..300 {
        assert_eq!(first.line(&format!("SET walk:{number} v")), "+OK");
    }
    for number in 0..50 {
        assert_eq!(first.line(&format!("SADD walk:s{number} m")), ":1");
    }
    assert_eq!(first.line("DEL walk:s0 walk:s1"), ":2");
    assert_eq!(first.line("PEXPIRE walk:s2 1"), ":1");
    crate::harness::until("it is gone", || first.line("EXISTS walk:s2") == ":0");

    let wanted: BTreeSet<String> =
        (0..300).map(|number| number.to_string()).chain((3..50).map(|number| format!("s{number}"))).collect();
    let wanted: BTreeSet<String> = wanted.iter().map(|name| format!("walk:{name}")).collect();
    let mut nodes = [cluster.resp(1), cluster.resp(2), cluster.resp(3)];
    for count in ["7", "1000"] {
        assert_eq!(walk(&mut nodes, &format!("COUNT {count}")), wanted, "in steps of {count}");
    }
    let sets: BTreeSet<String> = wanted.iter().filter(|name| name.starts_with("walk:s")).cloned().collect();
    assert_eq!(walk(&mut nodes, "TYPE set COUNT 100"), sets);
    assert_eq!(walk(&mut nodes, "MATCH walk:s* COUNT 100"), sets);
    assert_eq!(walk(&mut nodes, "MATCH nosuch* COUNT 100"), BTreeSet::new());
    for number in 1..=3 {
        let printed = cluster.redis_cli(number, &["--scan", "--pattern", "walk:*"], "");
        assert_eq!(printed.lines().map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
        assert_eq!(cluster.redis_cli(number, &["DBSIZE"], ""), "347\n");
        assert_eq!(cluster.redis_cli(number, &["KEYS", "walk:s?"], "").lines().count(), 7);
        let some = cluster.redis_cli(number, &["RANDOMKEY"], "");
        assert!(wanted.contains(some.trim_end()), "{some}");
    }
    cluster.check_alive();
}

/// A whole `SCAN`, each page from another node.
fn walk(nodes: &mut [Resp; 3], options: &str) -> BTreeSet<String> {
    let (mut cursor, mut pages, mut found) = ("0".to_owned(), 0, BTreeSet::new());
    loop {
        let page = nodes[pages % 3].line(&format!("SCAN {cursor} {options}"));
        let (next, keys) =
            page.strip_prefix('[').and_then(|page| page.split_once(", [")).unwrap_or_else(|| panic!("{page}"));
        found.extend(keys.trim_end_matches(']').split(", ").filter(|key| !key.is_empty()).map(str::to_owned));
        pages += 1;
        if next == "0" {
            return found;
        }
        assert!(pages < 2_000, "the walk ends");
        cursor = next.to_owned();
    }
}
