//! Commands that are sent without waiting: they overlap where their keys differ, keep their order where they share one, and are
//! answered in order. And commands that are typed.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::harness::{Cluster, Resp, encode};

/// Sends all while another thread's reads keep the way free; gives the answers.
fn pipelined(resp: &mut Resp, bytes: Vec<u8>, answers: usize) -> Vec<String> {
    let mut sender = resp.sender();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&bytes).expect("all is taken"));
        (0..answers).map(|_| resp.reply()).collect()
    })
}

#[test]
fn ten_thousand_mixed_commands_are_answered_in_order() {
    let cluster = Cluster::shared();
    let mut bytes = Vec::new();
    let mut wanted = Vec::new();
    // What a single thread would have made of it.
    let (mut counters, mut texts, mut sizes) = ([0_u32; 50], [None; 50], [0_u32; 50]);
    let mut random = 7_u32;
    for at in 0..10_000_u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = (random >> 8) as usize % 50;
        let (line, answer) = match (random >> 16) % 8 {
            0 | 1 => {
                counters[key] += 1;
                (format!("INCR mix:c{key}"), format!(":{}", counters[key]))
            }
            2 => {
                texts[key] = Some(at);
                (format!("SET mix:t{key} {at}"), "+OK".into())
            }
            3 => {
                let text: Option<u32> = texts[key];
                (format!("GET mix:t{key}"), text.map_or("(nil)".into(), |text| text.to_string()))
            }
            4 => {
                sizes[key] += 1;
                (format!("SADD mix:s{key} m{at}"), ":1".into())
            }
            5 => (format!("SCARD mix:s{key}"), format!(":{}", sizes[key])),
            6 => (format!("GET mix:c{key} extra"), "-ERR wrong number of arguments for 'get' command".into()),
            _ => (format!("ECHO {at}"), at.to_string()),
        };
        bytes.extend(encode(&line.split(' ').collect::<Vec<_>>()));
        wanted.push(answer);
    }
    let told = pipelined(&mut cluster.resp(1), bytes, wanted.len());
    for (at, (told, wanted)) in told.iter().zip(&wanted).enumerate() {
        assert_eq!(told, wanted, "answer {at}");
    }
    let mut other = cluster.resp(2);
    for (key, count) in counters.iter().enumerate() {
        let wanted = if *count == 0 { "(nil)".into() } else { count.to_string() };
        assert_eq!(other.line(&format!("GET mix:c{key}")), wanted);
    }
}

#[test]
fn increments_through_all_nodes_at_once_all_count() {
    let cluster = Cluster::shared();
    std::thread::scope(|scope| {
        for at in 0..6 {
            let cluster = &cluster;
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..500).flat_map(|_| encode(&["INCR", "together"])).collect();
                let told = pipelined(&mut cluster.resp(at % 3 + 1), bytes, 500);
                assert!(told.iter().all(|answer| answer.starts_with(':')), "{told:?}");
            });
        }
    });
    for number in 1..=3 {
        assert_eq!(cluster.resp(number).line("GET together"), "3000");
    }
}

#[test]
fn commands_over_several_keys_keep_their_place_too() {
    let cluster = Cluster::shared();
    let (mut lines, mut wanted) = (String::new(), Vec::new());
    for at in 0..200 {
        write!(lines, "MSET pipe:a {at} pipe:b {at}\r\nMGET pipe:b pipe:a pipe:none\r\nDEL pipe:a\r\n")
            .expect("written");
        write!(lines, "EXISTS pipe:a pipe:b\r\nSADD pipe:s{at} x\r\nSUNION pipe:s{at} pipe:none\r\n").expect("written");
        for answer in ["+OK", &format!("[{at}, {at}, (nil)]"), ":1", ":1", ":1", "[x]"] {
            wanted.push(answer.to_owned());
        }
    }
    assert_eq!(pipelined(&mut cluster.resp(3), lines.into_bytes(), wanted.len()), wanted);
}

#[test]
fn what_looks_at_the_connection_waits_for_what_came_before() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(2);
    resp.send(b"SET before 1\r\nWAIT 1 0\r\nSET before 2\r\nTW.RECEIPT\r\nGET before\r\nQUIT\r\nSET before 3\r\n");
    assert_eq!(resp.reply(), "+OK");
    let others: i64 = resp.reply()[1..].parse().expect("a number");
    assert!((1..=2).contains(&others), "{others} others acknowledged");
    assert_eq!(resp.reply(), "+OK");
    assert!(resp.reply().contains("needed, :2"));
    assert_eq!(resp.reply(), "2");
    assert_eq!(resp.reply(), "+OK");
    assert_eq!(resp.reply(), "(end)", "what comes after QUIT is not read");
    assert_eq!(cluster.resp(1).line("GET before"), "2");
}

#[test]
fn large_answers_to_a_client_that_reads_late() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(1);
    let value = "x".repeat(100_000);
    assert_eq!(resp.ask(&["SET", "late", &value]), "+OK");
    // 40 MB, more than any buffer on the way holds.
    let asked: Vec<u8> = (0..400).flat_map(|_| encode(&["GET", "late"])).collect();
    resp.send(&asked);
    assert_eq!(cluster.resp(1).line("PING"), "+PONG", "others are served meanwhile");
    for _ in 0..400 {
        assert!(resp.reply() == value);
    }
}

#[test]
fn commands_can_be_typed() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(1);
    for (line, answer) in [
        ("PING", "+PONG"),
        ("  set   typed\t'a b'  ", "+OK"),
        ("get typed", "a b"),
        (r#"SET typed "\x41\n\"""#, "+OK"),
        ("GET typed", "A\n\""),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("NONSENSE a b", "-ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b'"),
    ] {
        for end in ["\r\n", "\n"] {
            resp.send(format!("{line}{end}").as_bytes());
            assert_eq!(resp.reply(), answer, "{line}");
        }
    }
    // Empty lines are nothing, and both forms may follow each other.
    resp.send(b"\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\nECHO x\r\n*0\r\nPING\r\n");
    assert_eq!([resp.reply(), resp.reply(), resp.reply(), resp.reply()], ["+PONG", "+PONG", "x", "+PONG"]);
    // However slowly it is typed.
    for byte in b"ECHO slow\r\n*2\r\n$4\r\nECHO\r\n$4\r\nslow\r\n" {
        resp.send(&[*byte]);
    }
    assert_eq!([resp.reply(), resp.reply()], ["slow", "slow"]);
}

#[test]
fn any_node_answers_for_any_key() {
    let cluster = Cluster::shared();
    let mut nodes = [cluster.resp(1), cluster.resp(2), cluster.resp(3)];
    // Or a node that has not heard of the last write yet would add to what it has.
    for node in &mut nodes {
        assert_eq!(node.line("TW.CONSISTENCY WRITE all"), "+OK");
    }
    for key in 0..60 {
        let mut turn = (key..).map(|at| at % 3);
        let mut next = |line: String| nodes[turn.next().expect("endless")].line(&line);
        assert_eq!(next(format!("SET any:{key} {key}")), "+OK");
        assert_eq!(next(format!("GET any:{key}")), key.to_string());
        assert_eq!(next(format!("INCR any:{key}")), format!(":{}", key + 1));
        assert_eq!(next(format!("GETDEL any:{key}")), (key + 1).to_string());
        assert_eq!(next(format!("EXISTS any:{key}")), ":0");
        assert_eq!(next(format!("HSET any:{key} f v")), ":1");
        assert_eq!(next(format!("HGETALL any:{key}")), "[f, v]");
        assert_eq!(next(format!("DEL any:{key}")), ":1");
        assert_eq!(next(format!("SADD any:{key} m")), ":1");
        assert_eq!(next(format!("SPOP any:{key}")), "m");
        assert_eq!(next(format!("TYPE any:{key}")), "+none");
    }
}
