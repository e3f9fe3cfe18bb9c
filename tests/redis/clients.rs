//! redis-py and redis-benchmark, as people use them.

use crate::harness::Cluster;

#[test]
fn redis_py() {
    let cluster = Cluster::shared();
    for protocol in ["2", "3"] {
        assert_eq!(cluster.python("client.py", &[protocol]), "done\n");
    }
    cluster.check_alive();
}

#[test]
fn redis_py_cluster() {
    let cluster = Cluster::shared();
    for protocol in ["2", "3"] {
        assert_eq!(cluster.python("cluster.py", &[protocol]), "done\n");
    }
    cluster.check_alive();
}

#[test]
fn redis_benchmark() {
    let cluster = Cluster::shared();
    // Each command goes to one key: the worst there is for a store that keeps order by key.
    for (number, depth) in [(1, "1"), (2, "16")] {
        let address = ["-h", "127.0.0.1", "-p", cluster.port(number)];
        let load = ["-t", "set,get,incr,sadd,hset", "-n", "5000", "-c", "64", "-P", depth, "--csv"];
        let printed = cluster.run("redis-benchmark", address.iter().chain(&load), "");
        let words = printed.to_lowercase();
        assert!(!words.contains("error") && !words.contains("warn"), "{printed}");
        for test in ["SET", "GET", "INCR", "SADD", "HSET"] {
            assert!(printed.contains(&format!("\"{test}\",")), "no {test} in\n{printed}");
        }
    }
    // It sends whole pipelines, 313 of 16, and hangs up at the 5000th answer.
    let mut resp = cluster.resp(3);
    let count: u32 = resp.line("GET counter:__rand_int__").parse().expect("a number");
    assert!((10_000..=10_008).contains(&count), "every increment counts once: {count}");
    assert_eq!(resp.line("SCARD myset"), ":1");
    assert_eq!(resp.line("HLEN myhash"), ":1");
    cluster.check_alive();
}

#[test]
fn redis_cli_of_a_cluster_is_never_sent_elsewhere() {
    let cluster = Cluster::shared();
    for number in 1..=3 {
        for key in 0..20 {
            let name = format!("routed:{number}:{key}");
            assert_eq!(cluster.redis_cli(number, &["-c", "SET", &name, "v"], ""), "OK\n");
        }
    }
    let names: Vec<String> = (1..=3).flat_map(|n| (0..20).map(move |key| format!("routed:{n}:{key}"))).collect();
    let words: Vec<&str> = ["-c", "EXISTS"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert_eq!(cluster.redis_cli(2, &words, ""), "60\n");
}
