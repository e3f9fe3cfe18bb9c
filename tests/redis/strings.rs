//! Strings and counters: what each command answers, at its edges too, in the words of Redis.

use crate::harness::{Cluster, until};

const NIL: &str = "(nil)";
const SYNTAX: &str = "(error) ERR syntax error";
const NOT_INTEGER: &str = "(error) ERR value is not an integer or out of range";
const NOT_FLOAT: &str = "(error) ERR value is not a valid float";
const OVERFLOW: &str = "(error) ERR increment or decrement would overflow";
const WRONG_TYPE: &str = "(error) WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
fn set_and_get() {
    Cluster::shared().check_table(&[
        ("GET %s", NIL),
        ("SET %s v", "OK"),
        ("get %s", r#""v""#),
        ("SET %s w NX", NIL),
        ("SET %s w XX", "OK"),
        ("SET %s x GET", r#""w""#),
        ("SET %s y NX GET", r#""x""#),
        ("SET %new y NX GET", NIL),
        ("GET %new", r#""y""#),
        ("SET %s z XX GET", r#""x""#),
        ("SET %none z XX", NIL),
        ("SET %none z XX GET", NIL),
        ("EXISTS %none", "(integer) 0"),
        ("SET %empty \"\"", "OK"),
        ("GET %empty", r#""""#),
        ("EXISTS %empty", "(integer) 1"),
        (r#"SET %binary "a\x00\r\n\xff""#, "OK"),
        ("GET %binary", r#""a\x00\r\n\xff""#),
        ("SET \"\" nameless", "OK"),
        ("GET \"\"", r#""nameless""#),
        ("SET %s", "(error) ERR wrong number of arguments for 'set' command"),
        ("GET", "(error) ERR wrong number of arguments for 'get' command"),
        ("GET %s %s", "(error) ERR wrong number of arguments for 'get' command"),
        ("SET %s v NX XX", SYNTAX),
        ("SET %s v FOO", SYNTAX),
        ("SET %s v EX", SYNTAX),
        ("SET %s v EX 10 PX 10", SYNTAX),
        ("SET %s v EX 10 KEEPTTL", SYNTAX),
        ("SET %s v KEEPTTL EX 10", SYNTAX),
        ("SET %s v EX ten FOO", SYNTAX),
        ("SET %s v EX ten", NOT_INTEGER),
        ("SET %s v EX 0", "(error) ERR invalid expire time in 'set' command"),
        ("SET %s v PX -5", "(error) ERR invalid expire time in 'set' command"),
        ("SET %s v EX 9223372036854775807", "(error) ERR invalid expire time in 'set' command"),
        ("GET %s", r#""z""#),
    ]);
}

#[test]
fn set_with_expiry() {
    Cluster::shared().check_table(&[
        ("SET %s v EX 100", "OK"),
        ("TTL %s", "about 100"),
        ("SET %s w KEEPTTL", "OK"),
        ("TTL %s", "about 100"),
        ("SET %s x", "OK"),
        ("TTL %s", "(integer) -1"),
        ("SET %s y PX 100000", "OK"),
        ("PTTL %s", "about 100000"),
        ("SET %s z EXAT 99999999999", "OK"),
        ("EXPIRETIME %s", "(integer) 99999999999"),
        ("SET %s z PXAT 99999999999123", "OK"),
        ("PEXPIRETIME %s", "(integer) 99999999999123"),
        ("SET %s gone EXAT 1", "OK"),
        ("GET %s", NIL),
        ("SETEX %s 100 v", "OK"),
        ("TTL %s", "about 100"),
        ("PSETEX %s 100000 v", "OK"),
        ("TTL %s", "about 100"),
        ("SETEX %s 0 v", "(error) ERR invalid expire time in 'setex' command"),
        ("PSETEX %s -1 v", "(error) ERR invalid expire time in 'psetex' command"),
        ("SETEX %s soon v", NOT_INTEGER),
        ("GETSET %s w", r#""v""#),
        ("TTL %s", "(integer) -1"),
        ("GETEX %s EX 100", r#""w""#),
        ("TTL %s", "about 100"),
        ("GETEX %s", r#""w""#),
        ("TTL %s", "about 100"),
        ("GETEX %s PERSIST", r#""w""#),
        ("TTL %s", "(integer) -1"),
        ("GETEX %s EX 0", "(error) ERR invalid expire time in 'getex' command"),
        ("GETEX %s FOO", SYNTAX),
        ("GETEX %nosuch EX 10", NIL),
        ("SET %n 1 EX 100", "OK"),
        ("INCR %n", "(integer) 2"),
        ("APPEND %n 5", "(integer) 2"),
        ("TTL %n", "about 100"),
    ]);
}

#[test]
fn what_expires_is_gone_at_every_node() {
    let cluster = Cluster::shared();
    assert_eq!(cluster.resp(1).line("SET soon:a v PX 300"), "+OK");
    assert_eq!(cluster.resp(2).line("TW.WITH WRITE all -- SADD soon:b m"), ":1");
    assert_eq!(cluster.resp(3).line("TW.WITH WRITE all -- PEXPIRE soon:b 300"), ":1");
    for number in 1..=3 {
        let mut resp = cluster.resp(number);
        until("both are gone", || resp.line("EXISTS soon:a soon:b") == ":0");
        assert_eq!(resp.line("TTL soon:a"), ":-2");
        assert_eq!(resp.line("TYPE soon:b"), "+none");
        assert_eq!(resp.line("SET soon:a w XX"), "(nil)");
    }
    // What comes after is of a new life.
    assert_eq!(cluster.resp(2).line("SADD soon:b n"), ":1");
    assert_eq!(cluster.resp(1).line("SMEMBERS soon:b"), "[n]");
    assert_eq!(cluster.resp(3).line("TTL soon:b"), ":-1");
}

#[test]
fn older_forms_and_parts() {
    Cluster::shared().check_table(&[
        ("SETNX %s v", "(integer) 1"),
        ("SETNX %s w", "(integer) 0"),
        ("SETNX %s", "(error) ERR wrong number of arguments for 'setnx' command"),
        ("GETSET %s x", r#""v""#),
        ("GETSET %new x", NIL),
        ("GETDEL %s", r#""x""#),
        ("GETDEL %s", NIL),
        ("EXISTS %s", "(integer) 0"),
        ("APPEND %a abc", "(integer) 3"),
        ("APPEND %a def", "(integer) 6"),
        ("APPEND %a \"\"", "(integer) 6"),
        ("APPEND %e \"\"", "(integer) 0"),
        ("EXISTS %e", "(integer) 1"),
        ("GET %a", r#""abcdef""#),
        ("STRLEN %a", "(integer) 6"),
        ("STRLEN %nosuch", "(integer) 0"),
        ("GETRANGE %a 0 -1", r#""abcdef""#),
        ("GETRANGE %a -2 100", r#""ef""#),
        ("GETRANGE %a 4 1", r#""""#),
        ("GETRANGE %a x 1", NOT_INTEGER),
        ("SUBSTR %a 1 2", r#""bc""#),
    ]);
}

#[test]
fn several_keys_at_once() {
    Cluster::shared().check_table(&[
        ("MSET %a 1 %b 2 %c 3", "OK"),
        ("MGET %a %b %nosuch %c %a", "list: 1 2 (nil) 3 1"),
        ("MSET %a 4 %a 5", "OK"),
        ("GET %a", r#""5""#),
        ("MSET %a", "(error) ERR wrong number of arguments for 'mset' command"),
        ("MSET %a 1 %b", "(error) ERR wrong number of arguments for 'mset' command"),
        ("MGET", "(error) ERR wrong number of arguments for 'mget' command"),
        ("SADD %s m", "(integer) 1"),
        ("MGET %a %s", "list: 5 (nil)"),
        ("MSET %s now-a-string %b 3", "OK"),
        ("MGET %s %b", "list: now-a-string 3"),
    ]);
}

#[test]
fn counters() {
    Cluster::shared().check_table(&[
        ("INCR %c", "(integer) 1"),
        ("INCRBY %c 41", "(integer) 42"),
        ("DECR %c", "(integer) 41"),
        ("DECRBY %c 50", "(integer) -9"),
        ("INCRBY %c -1", "(integer) -10"),
        ("GET %c", r#""-10""#),
        ("STRLEN %c", "(integer) 3"),
        ("TYPE %c", "string"),
        ("APPEND %c 5", "(integer) 4"),
        ("INCR %c", "(integer) -104"),
        ("SET %c 7", "OK"),
        ("INCR %c", "(integer) 8"),
        ("GETDEL %c", r#""8""#),
        ("INCR %c", "(integer) 1"),
        ("SET %t text", "OK"),
        ("INCR %t", NOT_INTEGER),
        ("DECRBY %t 1", NOT_INTEGER),
        ("SET %t \" 12\"", "OK"),
        ("INCR %t", NOT_INTEGER),
        ("SET %t 012", "OK"),
        ("INCR %t", NOT_INTEGER),
        ("SET %t 1.5", "OK"),
        ("INCR %t", NOT_INTEGER),
        ("INCRBY %c x", NOT_INTEGER),
        ("INCRBY %c 1.5", NOT_INTEGER),
        ("INCRBY %c 9223372036854775808", NOT_INTEGER),
        ("INCRBY %c", "(error) ERR wrong number of arguments for 'incrby' command"),
        ("SET %big 9223372036854775807", "OK"),
        ("INCR %big", OVERFLOW),
        ("DECR %big", "(integer) 9223372036854775806"),
        ("INCR %big", "(integer) 9223372036854775807"),
        ("SET %small -9223372036854775808", "OK"),
        ("DECR %small", OVERFLOW),
        ("DECRBY %c -9223372036854775808", "(error) ERR decrement would overflow"),
        ("GET %c", r#""1""#),
    ]);
}

#[test]
fn decimal_counters() {
    Cluster::shared().check_table(&[
        ("INCRBYFLOAT %f 10.5", r#""10.5""#),
        ("INCRBYFLOAT %f 0.1", r#""10.6""#),
        ("INCRBYFLOAT %f -5", r#""5.6""#),
        ("INCRBYFLOAT %f 5.0e3", r#""5005.6""#),
        ("INCR %f", NOT_INTEGER),
        ("INCRBYFLOAT %f .4", r#""5006""#),
        ("INCR %f", "(integer) 5007"),
        ("SET %f 3.0e3", "OK"),
        ("INCRBYFLOAT %f 200", r#""3200""#),
        ("INCRBYFLOAT %f x", NOT_FLOAT),
        ("INCRBYFLOAT %f \"\"", NOT_FLOAT),
        ("INCRBYFLOAT %f \" 1\"", NOT_FLOAT),
        ("INCRBYFLOAT %f nan", NOT_FLOAT),
        ("INCRBYFLOAT %f inf", "(error) ERR increment would produce NaN or Infinity"),
        ("INCRBYFLOAT %f -INF", "(error) ERR increment would produce NaN or Infinity"),
        ("SET %t text", "OK"),
        ("INCRBYFLOAT %t 1", NOT_FLOAT),
        ("GET %f", r#""3200""#),
    ]);
}

#[test]
fn a_set_is_no_string() {
    Cluster::shared().check_table(&[
        ("SADD %s m", "(integer) 1"),
        ("GET %s", WRONG_TYPE),
        ("SET %s v GET", WRONG_TYPE),
        ("GETSET %s v", WRONG_TYPE),
        ("GETDEL %s", WRONG_TYPE),
        ("GETEX %s", WRONG_TYPE),
        ("APPEND %s v", WRONG_TYPE),
        ("STRLEN %s", WRONG_TYPE),
        ("GETRANGE %s 0 1", WRONG_TYPE),
        ("INCR %s", WRONG_TYPE),
        ("INCRBYFLOAT %s 1", WRONG_TYPE),
        ("SETNX %s v", "(integer) 0"),
        ("SET %s v NX", NIL),
        ("SMEMBERS %s", "list: m"),
        ("SET %s v", "OK"),
        ("TYPE %s", "string"),
        ("SADD %s m", WRONG_TYPE),
        ("GET %s", r#""v""#),
    ]);
}
