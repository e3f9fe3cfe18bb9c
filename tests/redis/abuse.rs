//! What no client would send, and more of it than a client would. The answer is clear, the node lives on, nothing is lost.

use std::net::{Shutdown, TcpStream};

use crate::harness::{Cluster, encode, until};

/// Values that are there before and must be there after.
fn keep(cluster: &Cluster, prefix: &str) {
    let mut resp = cluster.resp(1);
    for key in 0..50 {
        assert_eq!(resp.line(&format!("SET {prefix}:{key} {key}")), "+OK");
    }
}

#[track_caller]
fn check_kept(cluster: &Cluster, prefix: &str) {
    cluster.check_alive();
    let mut resp = cluster.resp(3);
    for key in 0..50 {
        assert_eq!(resp.line(&format!("GET {prefix}:{key}")), key.to_string());
    }
}

#[test]
fn broken_frames() {
    let cluster = Cluster::shared();
    keep(&cluster, "frames");
    for (bytes, told) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"* 1\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*2\r\n$4\r\nECHO\r\n*1\r\n$1\r\na\r\n", "expected '$', got '*'"),
        (b"*3\r\n$3\r\nSET\r\n$8\r\nframes:1\r\n\0\0\0\0", "expected '$', got ' '"),
        (b"GET \"frames:1\r\n", "unbalanced quotes in request"),
        (b"GET 'frames:1'x\r\n", "unbalanced quotes in request"),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET frames:1 stolen\r\n",
            "this is HTTP, and this door speaks RESP",
        ),
    ] {
        for number in 1..=3 {
            let mut resp = cluster.resp(number);
            // What came before is still done, what comes after is not read.
            resp.send(b"*2\r\n$4\r\nINCR\r\n$12\r\nframes:count\r\n");
            resp.send(&[bytes, b"\r\nSET frames:1 after\r\n"].concat());
            assert!(resp.reply().starts_with(':'));
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
            assert_eq!(resp.reply(), format!("-ERR Protocol error: {told}"), "{shown:?}");
            assert_eq!(resp.reply(), "(end)", "{shown:?}");
        }
    }
    assert_eq!(cluster.resp(1).line("GET frames:count"), (3 * 16).to_string());
    // Lines without end.
    let long_length = [b"*1\r\n$".to_vec(), vec![b'1'; 70_000]].concat();
    for (bytes, told) in [
        (&[b'a'; 70_000][..], "too big inline request"),
        (&[b'*'; 70_000], "too big mbulk count string"),
        (&long_length, "too big bulk count string"),
    ] {
        let mut resp = cluster.resp(1);
        resp.send(bytes);
        assert_eq!(resp.reply(), format!("-ERR Protocol error: {told}"));
        assert_eq!(resp.reply(), "(end)");
    }
    check_kept(&cluster, "frames");
}

#[test]
fn what_is_no_command() {
    let cluster = Cluster::shared();
    keep(&cluster, "noise");
    let mut resp = cluster.resp(2);
    // NUL ends a word, as a space does.
    resp.send(b"\x00\x00PING\x00\r\n");
    assert_eq!(resp.reply(), "+PONG");
    for noise in [&b"\xff\xfe\xfd\r\n"[..], b"+OK\r\n", b"~2\r\n", b"*1\r\n$0\r\n\r\n", b"*1\r\n$3\r\n\x00\r\n\r\n"] {
        resp.send(noise);
        let told = resp.reply();
        assert!(told.starts_with("-ERR unknown command '"), "{told}");
        assert_eq!(resp.line("PING"), "+PONG", "the connection lives on");
    }
    // Random bytes, many connections: whatever is told, no node minds.
    let mut random = 1_u32;
    for at in 0..300 {
        let mut stream = TcpStream::connect(cluster.address(at % 3 + 1)).expect("the door is open");
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let byte = (random >> 24) as u8;
                if byte < 100 { b"*$\r\n1023 GET:"[usize::from(byte) % 13] } else { byte }
            })
            .collect();
        let _ = std::io::Write::write_all(&mut stream, &bytes);
        if at % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    check_kept(&cluster, "noise");
}

#[test]
fn sizes_over_the_limits() {
    let cluster = Cluster::shared();
    keep(&cluster, "sizes");
    let key_limit = 32 << 10;
    let value_limit = 8 << 20;
    let key = "k".repeat(key_limit);
    let mut resp = cluster.resp(1);
    assert_eq!(resp.ask(&["SET", &key, "v"]), "+OK", "as large as may be");
    assert_eq!(cluster.resp(2).ask(&["GET", &key]), "v");
    let key = "k".repeat(key_limit + 1);
    for words in [
        &["SET", &key, "v"][..],
        &["GET", &key],
        &["DEL", &key],
        &["SADD", &key, "m"],
        &["MSET", "sizes:1", "not", &key, "v"],
        &["TW.WITH", "--", "INCR", &key],
    ] {
        let told = resp.ask(words);
        assert!(told.starts_with("-ERR ") && told.contains("32769") && told.contains("32768"), "{told}");
    }
    let value = "v".repeat(value_limit);
    assert_eq!(resp.ask(&["SET", "sizes:large", &value]), "+OK", "as large as may be");
    assert_eq!(cluster.resp(3).line("STRLEN sizes:large"), format!(":{value_limit}"));
    let told = resp.line("APPEND sizes:large x");
    assert!(told.starts_with("-ERR ") && told.contains("8388608"), "{told}");
    let value = "v".repeat(value_limit + 1);
    for words in [
        &["SET", "sizes:1", &value][..],
        &["SADD", "sizes:s", "m", &value],
        &["HSET", "sizes:h", "f", &value],
        &["HSET", "sizes:h", &value, "v"],
        &["MSET", "sizes:1", "not", "sizes:2", &value],
        &["TW.PUT", "sizes:p", &value],
        &["ECHO", &value],
    ] {
        let told = resp.ask(words);
        assert!(told.starts_with("-ERR ") && told.contains("8388609") && told.contains("8388608"), "{told}");
        assert_eq!(resp.line("EXISTS sizes:s sizes:h sizes:p"), ":0", "nothing in part");
    }
    assert_eq!(resp.line("DEL sizes:large"), ":1");
    check_kept(&cluster, "sizes");
}

#[test]
fn large_values_do_not_shut_out_the_rest() {
    let cluster = Cluster::shared();
    keep(&cluster, "beside");
    let asked = encode(&["SET", "beside:large", &"v".repeat(8 << 20)]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut resp = cluster.resp(1);
            for _ in 0..10 {
                resp.send(&asked);
                assert_eq!(resp.reply(), "+OK");
            }
        });
        let mut resp = cluster.resp(1);
        let mut key = 0;
        while !writer.is_finished() {
            assert_eq!(resp.line(&format!("GET beside:{key}")), key.to_string());
            key = (key + 1) % 50;
        }
    });
    assert_eq!(cluster.resp(2).line("DEL beside:large"), ":1");
    check_kept(&cluster, "beside");
}

/// A command's arguments together have a bound too.
#[test]
fn a_command_larger_than_any_may_be() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(2);
    let value = vec![b'v'; 8 << 20];
    let mut words: Vec<&[u8]> = vec![b"SADD", b"bulky"];
    words.extend(std::iter::repeat_n(&value[..], 9));
    let told = resp.ask(&words);
    assert!(told.starts_with("-ERR the arguments of one command may have 67108864 bytes together"), "{told}");
    assert_eq!(resp.line("EXISTS bulky"), ":0");
    cluster.check_alive();
}

#[test]
fn connections_that_say_nothing_or_half() {
    let cluster = Cluster::shared();
    keep(&cluster, "half");
    let mut held = Vec::new();
    for at in 0..1_500_u32 {
        let mut stream = TcpStream::connect(cluster.address(1)).expect("the door is open");
        let half: &[u8] = match at % 4 {
            0 => b"",
            1 => b"*3\r\n$3\r\nSET\r\n$6\r\nhalf:1\r\n$1000\r\nhalf of it",
            2 => b"GET half:",
            // Much is announced, nothing comes: nothing may be set aside for it.
            _ => b"*1000000\r\n$8388608\r\n",
        };
        std::io::Write::write_all(&mut stream, half).expect("it is read");
        held.push(stream);
    }
    let mut resp = cluster.resp(1);
    for key in 0..50 {
        assert_eq!(resp.line(&format!("GET half:{key}")), key.to_string());
    }
    assert_eq!(resp.line("INCR half:count"), ":1");
    let listed = |text: &str| text.lines().filter(|line| line.starts_with("id=")).count();
    until("all are listed", || listed(&cluster.redis_cli(1, &["CLIENT", "LIST"], "")) >= 1_500);
    drop(held);
    until("all are gone", || listed(&cluster.redis_cli(1, &["CLIENT", "LIST"], "")) < 100);
    check_kept(&cluster, "half");
}

#[test]
fn who_hangs_up_in_the_middle_loses_nothing_that_was_acknowledged() {
    let cluster = Cluster::shared();
    for round in 0..20 {
        let mut resp = cluster.resp(round % 3 + 1);
        let bytes: Vec<u8> = (0..200).flat_map(|_| encode(&["INCR", "cut:count"])).collect();
        resp.send(&bytes);
        assert!(resp.reply().starts_with(':'));
    }
    // Each round had at least one acknowledged, and none counts twice.
    let count: u32 = cluster.resp(1).line("GET cut:count").parse().expect("a number");
    assert!((20..=4_000).contains(&count), "{count}");
    cluster.check_alive();
}
