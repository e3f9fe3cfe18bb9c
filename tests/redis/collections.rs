//! Sets and hashes: what each command answers, at its edges too, in the words of Redis.

use crate::harness::Cluster;

const NIL: &str = "(nil)";
const EMPTY: &str = "(empty array)";
const SYNTAX: &str = "(error) ERR syntax error";
const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";
const NOT_POSITIVE: &str = "(error) ERR value is out of range, must be positive";
const WRONG_TYPE: &str = "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
fn sets() {
    Cluster::shared().check_table(&[
        ("SADD %s a b c b", "(integer) 3"),
        ("SADD %s a d", "(integer) 1"),
        ("SCARD %s", "(integer) 4"),
        ("SMEMBERS %s", "any: a b c d"),
        ("SISMEMBER %s a", "(integer) 1"),
        ("SISMEMBER %s z", "(integer) 0"),
        ("SISMEMBER %nosuch a", "(integer) 0"),
        ("SMISMEMBER %s a z b", "list: (integer)1 (integer)0 (integer)1"),
        ("SMISMEMBER %nosuch a b", "list: (integer)0 (integer)0"),
        ("SREM %s a z", "(integer) 1"),
        ("SREM %s a", "(integer) 0"),
        ("SREM %nosuch a", "(integer) 0"),
        ("SCARD %nosuch", "(integer) 0"),
        ("SMEMBERS %nosuch", EMPTY),
        ("TYPE %s", "set"),
        ("SREM %s b c d", "(integer) 3"),
        ("EXISTS %s", "(integer) 0"),
        ("SADD %s a", "(integer) 1"),
        ("DEL %s", "(integer) 1"),
        ("SADD %s b", "(integer) 1"),
        ("SMEMBERS %s", "list: b"),
        ("SADD %s", "(error) ERR wrong number of arguments for 'sadd' command"),
        ("SREM %s", "(error) ERR wrong number of arguments for 'srem' command"),
        ("SMISMEMBER %s", "(error) ERR wrong number of arguments for 'smismember' command"),
        ("SISMEMBER %s a b", "(error) ERR wrong number of arguments for 'sismember' command"),
    ]);
}

#[test]
fn random_members() {
    Cluster::shared().check_table(&[
        ("SPOP %nosuch", NIL),
        ("SPOP %nosuch 3", EMPTY),
        ("SRANDMEMBER %nosuch", NIL),
        ("SRANDMEMBER %nosuch 2", EMPTY),
        ("SADD %s a b c", "(integer) 3"),
        ("SRANDMEMBER %s", "one of: a b c"),
        ("SRANDMEMBER %s 10", "any: a b c"),
        ("SRANDMEMBER %s 0", EMPTY),
        ("SCARD %s", "(integer) 3"),
        ("SPOP %s 0", EMPTY),
        ("SPOP %s", "one of: a b c"),
        ("SCARD %s", "(integer) 2"),
        ("SPOP %s -1", NOT_POSITIVE),
        ("SPOP %s x", NOT_POSITIVE),
        ("SPOP %s 1 2", SYNTAX),
        ("SRANDMEMBER %s x", NOT_INTEGER),
        ("SRANDMEMBER %s 1 2", SYNTAX),
        ("SADD %one a", "(integer) 1"),
        ("SRANDMEMBER %one -3", "list: a a a"),
        ("SPOP %one 10", "list: a"),
        ("EXISTS %one", "(integer) 0"),
    ]);
}

#[test]
fn sets_combined() {
    Cluster::shared().check_table(&[
        ("SADD %1 a b c", "(integer) 3"),
        ("SADD %2 b c d", "(integer) 3"),
        ("SADD %3 c d e", "(integer) 3"),
        ("SUNION %1 %2 %nosuch", "any: a b c d"),
        ("SINTER %1 %2 %3", "list: c"),
        ("SINTER %1 %nosuch", EMPTY),
        ("SDIFF %1 %2", "list: a"),
        ("SDIFF %1 %1", EMPTY),
        ("SDIFF %nosuch %1", EMPTY),
        ("SUNION %1", "any: a b c"),
        ("SUNION", "(error) ERR wrong number of arguments for 'sunion' command"),
        ("SINTER", "(error) ERR wrong number of arguments for 'sinter' command"),
        ("SDIFF", "(error) ERR wrong number of arguments for 'sdiff' command"),
        ("SET %text v", "OK"),
        ("SUNION %1 %text", WRONG_TYPE),
        ("SINTER %1 %text", WRONG_TYPE),
        ("SDIFF %1 %text", WRONG_TYPE),
        ("SUNIONSTORE %to %1 %2", "(integer) 4"),
        ("SMEMBERS %to", "any: a b c d"),
        ("SINTERSTORE %to %1 %2", "(integer) 2"),
        ("SMEMBERS %to", "any: b c"),
        ("SDIFFSTORE %to %1 %1", "(integer) 0"),
        ("EXISTS %to", "(integer) 0"),
        ("SINTERCARD 2 %1 %2", "(integer) 2"),
        ("SINTERCARD 2 %1 %2 LIMIT 1", "(integer) 1"),
        ("SINTERCARD 0 %1", "(error) ERR numkeys should be greater than 0"),
        ("SINTERCARD 3 %1 %2", "(error) ERR Number of keys can't be greater than number of args"),
        ("SINTERCARD 2 %1 %2 LIMIT -1", "(error) ERR LIMIT can't be negative"),
    ]);
}

#[test]
fn hashes() {
    Cluster::shared().check_table(&[
        ("HSET %h f v", "(integer) 1"),
        ("HSET %h f w g x", "(integer) 1"),
        ("HGET %h f", r#""w""#),
        ("HSET %h f 1 f 2", "(integer) 0"),
        ("HGET %h f", r#""2""#),
        ("HGET %h nosuch", NIL),
        ("HGET %nosuch f", NIL),
        ("HMSET %h a 1 b 2", "OK"),
        ("HMGET %h a b nosuch", "list: 1 2 (nil)"),
        ("HMGET %nosuch a b", "list: (nil) (nil)"),
        ("HLEN %h", "(integer) 4"),
        ("HLEN %nosuch", "(integer) 0"),
        ("HKEYS %h", "any: a b f g"),
        ("HVALS %h", "any: 1 2 2 x"),
        ("HKEYS %nosuch", EMPTY),
        ("HVALS %nosuch", EMPTY),
        ("HGETALL %h", "any: a 1 b 2 f 2 g x"),
        ("HGETALL %nosuch", EMPTY),
        ("HEXISTS %h a", "(integer) 1"),
        ("HEXISTS %h z", "(integer) 0"),
        ("HEXISTS %nosuch a", "(integer) 0"),
        ("HDEL %h a a nosuch", "(integer) 1"),
        ("HDEL %h a", "(integer) 0"),
        ("HDEL %nosuch a", "(integer) 0"),
        ("HSETNX %h b 9", "(integer) 0"),
        ("HSETNX %h new 9", "(integer) 1"),
        ("HMGET %h b new", "list: 2 9"),
        ("HSTRLEN %h g", "(integer) 1"),
        ("HSET %h \"\" nameless empty \"\"", "(integer) 2"),
        ("HGET %h \"\"", r#""nameless""#),
        ("HGET %h empty", r#""""#),
        ("TYPE %h", "hash"),
        ("HRANDFIELD %nosuch", NIL),
        ("HDEL %h \"\" empty b f g new", "(integer) 6"),
        ("EXISTS %h", "(integer) 0"),
        ("HGET %h", "(error) ERR wrong number of arguments for 'hget' command"),
        ("HSET %h f", "(error) ERR wrong number of arguments for 'hset' command"),
        ("HSET %h f v g", "(error) ERR wrong number of arguments for 'hset' command"),
        ("HMSET %h f v g", "(error) ERR wrong number of arguments for 'hmset' command"),
        ("HDEL %h", "(error) ERR wrong number of arguments for 'hdel' command"),
        ("HSETNX %h f", "(error) ERR wrong number of arguments for 'hsetnx' command"),
    ]);
}

#[test]
fn counters_in_hashes() {
    Cluster::shared().check_table(&[
        ("HINCRBY %h n 5", "(integer) 5"),
        ("HINCRBY %h n -7", "(integer) -2"),
        ("HGET %h n", r#""-2""#),
        ("HSET %h n 10", "(integer) 0"),
        ("HINCRBY %h n 1", "(integer) 11"),
        ("HDEL %h n", "(integer) 1"),
        ("HINCRBY %h n 1", "(integer) 1"),
        ("HSET %h text v big 9223372036854775807", "(integer) 2"),
        ("HINCRBY %h text 1", "(error) ERR hash value is not an integer"),
        ("HINCRBY %h big 1", "(error) ERR increment or decrement would overflow"),
        ("HINCRBY %h n x", NOT_INTEGER),
        ("HINCRBY %h n 1.5", NOT_INTEGER),
        ("HINCRBY %h n", "(error) ERR wrong number of arguments for 'hincrby' command"),
        ("HINCRBYFLOAT %h n 0.5", r#""1.5""#),
        ("HINCRBY %h n 1", "(error) ERR hash value is not an integer"),
        ("HINCRBYFLOAT %h text 1", "(error) ERR hash value is not a float"),
        ("HINCRBYFLOAT %h n x", "(error) ERR value is not a valid float"),
        ("HINCRBYFLOAT %h n inf", "(error) ERR value is NaN or Infinity"),
        ("HGET %h n", r#""1.5""#),
    ]);
}

#[test]
fn a_string_is_neither_set_nor_hash() {
    Cluster::shared().check_table(&[
        ("SET %s v", "OK"),
        ("SADD %s m", WRONG_TYPE),
        ("SREM %s m", WRONG_TYPE),
        ("SMEMBERS %s", WRONG_TYPE),
        ("SISMEMBER %s m", WRONG_TYPE),
        ("SMISMEMBER %s m n", WRONG_TYPE),
        ("SCARD %s", WRONG_TYPE),
        ("SPOP %s", WRONG_TYPE),
        ("SPOP %s 2", WRONG_TYPE),
        ("SRANDMEMBER %s", WRONG_TYPE),
        ("SRANDMEMBER %s 2", WRONG_TYPE),
        ("SSCAN %s 0", WRONG_TYPE),
        ("HSET %s f v", WRONG_TYPE),
        ("HSETNX %s f v", WRONG_TYPE),
        ("HGET %s f", WRONG_TYPE),
        ("HMGET %s f", WRONG_TYPE),
        ("HGETALL %s", WRONG_TYPE),
        ("HDEL %s f", WRONG_TYPE),
        ("HEXISTS %s f", WRONG_TYPE),
        ("HLEN %s", WRONG_TYPE),
        ("HKEYS %s", WRONG_TYPE),
        ("HVALS %s", WRONG_TYPE),
        ("HINCRBY %s f 1", WRONG_TYPE),
        ("HSCAN %s 0", WRONG_TYPE),
        ("GET %s", r#""v""#),
    ]);
}

#[test]
fn walks_over_members() {
    let cluster = Cluster::shared();
    cluster.check_table(&[
        ("SADD %s a b ab", "(integer) 3"),
        // In the order of hashes.
        ("SSCAN %s 0 MATCH a* COUNT 100", "1) \"0\"\n2) 1) \"ab\"\n   2) \"a\""),
        ("SSCAN %s 0 MATCH b", "1) \"0\"\n2) 1) \"b\""),
        ("SSCAN %nosuch 0", "1) \"0\"\n2) (empty array)"),
        ("SSCAN %s x", "(error) ERR invalid cursor"),
        ("SSCAN %s 0 COUNT 0", SYNTAX),
        ("SSCAN %s 0 COUNT x", NOT_INTEGER),
        ("SSCAN %s 0 COUNT", SYNTAX),
        ("SSCAN %s 0 FOO bar", SYNTAX),
        ("SSCAN %s", "(error) ERR wrong number of arguments for 'sscan' command"),
        ("HSET %h f v g w", "(integer) 2"),
        ("HSCAN %h 0 MATCH f", "1) \"0\"\n2) 1) \"f\"\n   2) \"v\""),
        ("HSCAN %nosuch 0", "1) \"0\"\n2) (empty array)"),
        ("HSCAN %h x", "(error) ERR invalid cursor"),
    ]);
    // Each page goes to another node: a cursor means the same to all.
    let members: Vec<String> = (0..1_000).map(|number| format!("m{number}")).collect();
    let words = ["SADD", "walked"].into_iter().chain(members.iter().map(String::as_str)).collect::<Vec<_>>();
    assert_eq!(cluster.resp(1).ask(&words), ":1000");
    let mut nodes = [cluster.resp(1), cluster.resp(2), cluster.resp(3)];
    let (mut cursor, mut pages, mut found) = ("0".to_owned(), 0, Vec::new());
    loop {
        let page = nodes[pages % 3].line(&format!("SSCAN walked {cursor} COUNT 50"));
        let page = page.strip_prefix('[').and_then(|page| page.strip_suffix("]]")).expect("a list in a list");
        // The last may be empty: the one before ended just where the set does.
        let (next, rest) = page.split_once(", [").expect("a cursor and members");
        found.extend(rest.split(", ").filter(|member| !member.is_empty()).map(str::to_owned));
        cursor = next.to_owned();
        pages += 1;
        if cursor == "0" {
            break;
        }
    }
    assert!(pages >= 20, "{pages} pages");
    found.sort();
    let mut members = members;
    members.sort();
    assert_eq!(found, members);
}

/// RESP3 has sets, maps, doubles and booleans of its own.
#[test]
fn types_of_their_own() {
    Cluster::shared().check_table_3(
        "three:",
        &[
            ("SADD %s a", "(integer) 1"),
            ("SMEMBERS %s", "1~ \"a\""),
            ("SPOP %s 0", "(empty set)"),
            ("SMEMBERS %nosuch", "(empty set)"),
            ("SUNION %s %nosuch", "1~ \"a\""),
            ("SRANDMEMBER %s 2", "1) \"a\""),
            ("HSET %h f v", "(integer) 1"),
            ("HGETALL %h", "1# \"f\" => \"v\""),
            ("HGETALL %nosuch", "(empty hash)"),
            ("HKEYS %h", "1) \"f\""),
            ("HRANDFIELD %h 1 WITHVALUES", "1) 1) \"f\"\n   2) \"v\""),
            ("GET %nosuch", NIL),
            ("TW.FLAG %f ON", "(false)"),
            ("TW.FLAG %f", "(true)"),
            ("INCRBYFLOAT %d 1.5", "\"1.5\""),
            ("CONFIG GET databases", "1# \"databases\" => \"1\""),
        ],
    );
}
