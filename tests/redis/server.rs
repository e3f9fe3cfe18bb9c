//! The connection, what is told about server and cluster, and what is refused.

use std::collections::BTreeSet;

use crate::harness::Cluster;

#[test]
fn the_connection() {
    Cluster::shared().check_table(&[
        ("PING", "PONG"),
        ("ping hello", "\"hello\""),
        ("PING a b", "(error) ERR wrong number of arguments for 'ping' command"),
        ("ECHO hi", "\"hi\""),
        ("ECHO", "(error) ERR wrong number of arguments for 'echo' command"),
        ("SELECT 0", "OK"),
        ("SELECT 1", "(error) ERR DB index is out of range"),
        ("SELECT x", "(error) ERR value is not an integer or out of range"),
        ("READONLY", "OK"),
        ("READWRITE", "OK"),
        ("ASKING", "OK"),
        (
            "AUTH x",
            "(error) ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        ("AUTH default x", "OK"),
        ("AUTH nobody x", "(error) WRONGPASS invalid username-password pair or user is disabled."),
        ("AUTH a b c", "(error) ERR syntax error"),
        ("CLIENT SETNAME me", "OK"),
        ("CLIENT GETNAME", "\"me\""),
        (
            "CLIENT SETNAME \"a b\"",
            "(error) ERR Client names cannot contain spaces, newlines or special characters.",
        ),
        ("CLIENT SETINFO LIB-NAME tester", "OK"),
        ("CLIENT INFO", "starts: id="),
        ("CLIENT FOO", "(error) ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("CLIENT NO-EVICT ON", "OK"),
        ("CONFIG GET databases", "list: databases 1"),
        ("CONFIG GET nosuch", "(empty array)"),
        ("CONFIG GET save appendonly", "starts: 1) \"appendonly\"\n2) \"no\"\n3) \"save\"\n4) \"\""),
        ("CONFIG GET", "(error) ERR wrong number of arguments for 'config|get' command"),
        ("CONFIG SET maxmemory 1", "starts: (error) ERR CONFIG SET is not supported: settings are in the node's"),
        ("CONFIG FOO", "(error) ERR unknown subcommand 'FOO'. Try CONFIG HELP."),
        ("FOO bar", "(error) ERR unknown command 'FOO', with args beginning with: 'bar'"),
        ("WAIT 0 0", "(integer) 0"),
        ("TIME", "starts: 1) \""),
    ]);
}

#[test]
fn hello_chooses_the_protocol() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(1);
    let told = resp.line("HELLO");
    assert!(told.starts_with("[server, redis, version, 7.") && told.contains("proto, :2"), "{told}");
    assert_eq!(resp.line("HELLO 4"), "-NOPROTO unsupported protocol version");
    assert_eq!(resp.line("HELLO x"), "-ERR Protocol version is not an integer or out of range");
    assert_eq!(resp.line("HELLO 2 FOO"), "-ERR Syntax error in HELLO option 'FOO'");
    assert_eq!(resp.line("HELLO 2 AUTH nobody x"), "-WRONGPASS invalid username-password pair or user is disabled.");
    assert!(resp.line("HELLO 2 AUTH default x SETNAME mine").starts_with("[server"));
    assert_eq!(resp.line("CLIENT GETNAME"), "mine");
    assert_eq!(resp.line("HELLO 3"), "%7");
    for _ in 0..13 {
        resp.reply();
    }
    assert_eq!(resp.reply(), "[]", "no modules");
    assert_eq!(resp.line("GET hello:nosuch"), "_");
    assert_eq!(resp.line("RESET"), "+RESET");
    assert_eq!(resp.line("GET hello:nosuch"), "(nil)");
    assert_eq!(resp.line("CLIENT GETNAME"), "(nil)");
    assert_eq!(resp.line("QUIT"), "+OK");
    assert_eq!(resp.reply(), "(end)");
}

#[test]
fn answers_can_be_switched_off() {
    let cluster = Cluster::shared();
    let mut resp = cluster.resp(2);
    resp.send(b"CLIENT REPLY SKIP\r\nSET quiet 1\r\nGET quiet\r\nCLIENT REPLY OFF\r\nINCR quiet\r\nNONSENSE\r\n");
    assert_eq!(resp.reply(), "1");
    assert_eq!(resp.line("CLIENT REPLY ON"), "+OK");
    assert_eq!(resp.line("GET quiet"), "2");
}

#[test]
fn commands_tell_where_their_keys_are() {
    let cluster = Cluster::shared();
    cluster.check_table(&[
        ("COMMAND GETKEYS GET a", "list: a"),
        ("COMMAND GETKEYS MSET a 1 b 2", "list: a b"),
        ("COMMAND GETKEYS SINTERCARD 2 a b LIMIT 1", "list: a b"),
        ("COMMAND GETKEYS TW.WITH READ one -- GET a", "list: a"),
        ("COMMAND GETKEYS PING x", "(error) ERR The command has no key arguments"),
        ("COMMAND GETKEYS NONSENSE x", "(error) ERR Invalid command specified"),
        ("COMMAND INFO nosuch", "1) (nil)"),
        ("COMMAND LIST FILTERBY PATTERN inc*", "any: incr incrby incrbyfloat"),
        ("COMMAND FOO", "(error) ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
    ]);
    let mut resp = cluster.resp(3);
    let count: usize = resp.line("COMMAND COUNT")[1..].parse().expect("a number");
    let all = resp.line("COMMAND");
    assert!(count > 90 && all.contains("[set, :-3, ") && all.contains("[mset, :-3, "), "{count}: {all}");
    let list = resp.line("COMMAND LIST");
    assert_eq!(list.split(", ").count(), count);
    assert!(resp.line("COMMAND INFO get").starts_with("[[get, :2, [+readonly, +fast], :1, :1, :1, "));
    assert!(resp.line("COMMAND DOCS get").contains("summary"));
}

#[test]
fn info_tells_what_tools_look_for() {
    let cluster = Cluster::shared();
    let info = cluster.redis_cli(1, &["INFO"], "");
    for line in ["redis_version:7.", "redis_mode:cluster", "role:master", "cluster_enabled:1", "# Server", "# Clients"]
    {
        assert!(info.contains(line), "no {line} in\n{info}");
    }
    let port = format!("tcp_port:{}", cluster.port(2));
    let server = cluster.redis_cli(2, &["INFO", "server"], "");
    assert!(server.contains(&port) && !server.contains("# Clients"), "{server}");
    assert_eq!(cluster.redis_cli(1, &["INFO", "nosuch"], "").trim(), "");
    let clients = cluster.redis_cli(1, &["CLIENT", "LIST"], "");
    assert!(clients.contains("cmd=client") && clients.contains("addr=127.0.0.1:"), "{clients}");
}

#[test]
fn the_layout_in_the_words_of_redis_cluster() {
    let cluster = Cluster::shared();
    cluster.check_table(&[
        ("CLUSTER KEYSLOT foo", "(integer) 12182"),
        ("CLUSTER KEYSLOT {foo}bar", "(integer) 12182"),
        ("CLUSTER KEYSLOT", "(error) ERR wrong number of arguments for 'cluster|keyslot' command"),
        ("CLUSTER FOO", "(error) ERR unknown subcommand 'FOO'. Try CLUSTER HELP."),
        ("CLUSTER MEET 127.0.0.1 1", "starts: (error) ERR CLUSTER MEET is not supported: who owns what is the layout"),
        ("CLUSTER COUNTKEYSINSLOT 1", "starts: (error) ERR keys are not indexed by slot"),
    ]);
    let mut ids = BTreeSet::new();
    let mut masters = BTreeSet::new();
    for number in 1..=3 {
        let info = cluster.redis_cli(number, &["CLUSTER", "INFO"], "");
        for line in ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:3", "cluster_size:3"] {
            assert!(info.contains(line), "no {line} in\n{info}");
        }
        let id = cluster.redis_cli(number, &["CLUSTER", "MYID"], "").trim_end().to_owned();
        assert!(id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let nodes = cluster.redis_cli(number, &["CLUSTER", "NODES"], "");
        assert_eq!(nodes.lines().count(), 3);
        let own = nodes.lines().find(|line| line.contains("myself,master")).expect("it knows itself");
        assert!(own.starts_with(&id) && own.contains(cluster.address(number)), "{own}");
        ids.insert(id);

        // Every slot has one master and two replicas, in one order for all who ask.
        let slots = cluster.redis_cli(number, &["CLUSTER", "SLOTS"], "");
        let mut lines = slots.lines();
        let (mut next, mut owners) = (0, Vec::new());
        while let Some(from) = lines.next() {
            let to: u32 = lines.next().expect("a range's end").parse().expect("a slot");
            assert_eq!(from.parse::<u32>().expect("a slot"), next);
            next = to + 1;
            for _ in 0..3 {
                assert_eq!(lines.next(), Some("127.0.0.1"));
                owners.push(lines.next().expect("a port").to_owned());
                assert_eq!(lines.next().map(str::len), Some(40));
                assert_eq!(lines.next(), Some(""), "no more is told of a node");
            }
        }
        assert_eq!(next, 16_384);
        masters.insert(owners.iter().step_by(3).cloned().collect::<Vec<_>>());
        let shards = cluster.redis_cli(number, &["CLUSTER", "SHARDS"], "");
        assert_eq!(shards.lines().filter(|line| *line == "master").count(), 3);
        assert_eq!(shards.lines().filter(|line| *line == "online").count(), 9);
    }
    assert_eq!(ids.len(), 3);
    assert_eq!(masters.len(), 1, "all tell the same");
}

#[test]
fn what_cannot_be_kept_is_refused_with_the_reason() {
    let mut table = Vec::new();
    for (commands, reason) in [
        (&["MULTI", "EXEC", "DISCARD", "WATCH %k", "UNWATCH"][..], "a transaction needs one order for all its keys"),
        (&["BLPOP %k 1", "BRPOP %k 1", "BZPOPMIN %k 1"], "handing an element to exactly one waiting client"),
        (&["LPUSH %k a", "RPOP %k", "LRANGE %k 0 -1", "LLEN %k"], "a list's order cannot be merged"),
        (&["ZADD %k 1 a", "ZRANGE %k 0 -1", "GEOADD %k 1 1 a"], "sorted sets are not kept"),
        (&["XADD %k * f v", "XREAD STREAMS %k 0"], "a stream needs one order of its entries"),
        (&["PUBLISH c m"], "messages are not passed on between clients"),
        (&["EVAL \"return 1\" 0", "FCALL f 0"], "a script reads and writes in one step"),
        (&["RENAME %k %l", "MSETNX %k 1", "COPY %k %l", "SMOVE %k %l m"], "its keys live on different nodes"),
        (&["SETRANGE %k 1 a", "SETBIT %k 1 1", "BITCOUNT %k"], "a register is written whole"),
        (&["PFADD %k a"], "sketches are not kept"),
        (&["DUMP %k", "RESTORE %k 0 a"], "a value's history of writes cannot leave its cluster"),
        (&["FLUSHALL", "FLUSHDB"], "deleting everything at once"),
        (&["SAVE", "BGSAVE"], "every write is kept on disk already"),
        (&["REPLICAOF no one"], "there is no master and nothing to promote"),
        (&["SHUTDOWN NOSAVE", "DEBUG sleep 1", "ACL list"], "the node is run from its command line"),
    ] {
        for command in commands {
            let name = command.split(' ').next().expect("a word");
            table.push((*command, format!("starts: (error) ERR {name} is not supported: {reason}")));
        }
    }
    let table: Vec<(&str, &str)> = table.iter().map(|(command, told)| (*command, told.as_str())).collect();
    let cluster = Cluster::shared();
    cluster.check_table(&table);
    cluster.check_alive();
}
