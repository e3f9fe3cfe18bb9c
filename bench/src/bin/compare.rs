//! Beside Redis Cluster: the same load on both, in turn, on this machine.
//!
//! Three Tidewater nodes with three copies of everything, and three Redis primaries with two replicas each, append-only file every
//! second: three copies too. Both are spoken to in Redis's protocol by `tidewater-bench`, 64 connections without pipelining, 100,000
//! keys drawn uniformly, values of 100 bytes. Only one of the two is loaded at a time; the runs alternate, so that a machine that grows
//! slower does so for both. What counts is the ratio; the durability of each side stands in the table.
//!
//! `cargo run -p bench --bin compare -- [--json] [--rounds N] [--only SET|GET|mix]`. Needs `redis-server` and `redis-cli`. What
//! each run left behind stays in `bench-out/compare-TIME`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::Arguments;
use bench::cluster::Outcome;
use bench::results::Results;
use serde::Serialize;
use tempfile::TempDir;

const PRIMARIES: usize = 3;
const COPIES: usize = 3;
const REDIS_PORT: u16 = 24_000;
const TIDEWATER_PORT: u16 = 24_100;
/// What both sides get.
const LOAD: &[&str] = &[
    "--keys",
    "100000",
    "--distribution",
    "uniform",
    "--value-bytes",
    "100",
    "--connections",
    "64",
    "--warm-up",
    "3s",
    "--duration",
    "10s",
    "--verify-keys",
    "2000",
    "--settle",
    "10s",
];

/// One system as it is set up for a case.
struct Contender {
    name: &'static str,
    durability: &'static str,
    redis: bool,
    extra: &'static [&'static str],
}

struct Case {
    name: &'static str,
    load: &'static [&'static str],
    /// The first is what the others are compared with.
    contenders: &'static [Contender],
}

const REDIS: Contender = Contender {
    name: "Redis Cluster",
    durability: "1 of 3 in memory, log fsynced every second",
    redis: true,
    extra: &[],
};
const REDIS_WAIT: Contender = Contender {
    name: "Redis Cluster, WAIT 1",
    durability: "2 of 3 in memory, log fsynced every second",
    redis: true,
    extra: &["--wait", "1"],
};
const QUORUM: Contender = Contender {
    name: "Tidewater, quorum",
    durability: "2 of 3 in the log file, fsynced within some ms",
    redis: false,
    extra: &["--read-level", "quorum", "--write-level", "quorum"],
};
const ONE: Contender = Contender {
    name: "Tidewater, one",
    durability: "1 of 3 asked",
    redis: false,
    extra: &["--read-level", "one", "--write-level", "quorum"],
};
const CASES: &[Case] = &[
    Case { name: "SET", load: &["--workload", "mix", "--read-share", "0"], contenders: &[QUORUM, REDIS, REDIS_WAIT] },
    Case {
        name: "GET",
        load: &["--workload", "c"],
        contenders: &[
            Contender { durability: "2 of 3 asked", ..QUORUM },
            ONE,
            Contender { durability: "1 of 3 asked", ..REDIS },
        ],
    },
    Case { name: "mix", load: &["--workload", "mix", "--read-share", "0.5"], contenders: &[QUORUM, REDIS, REDIS_WAIT] },
];

/// What a contender reached in a case, medians over the rounds.
#[derive(Serialize)]
struct Row {
    case: &'static str,
    system: &'static str,
    durability: &'static str,
    operations_per_second: f64,
    server_cpu_us_per_operation: f64,
    p99_us: f64,
    server_memory_bytes: f64,
    errors: u64,
    /// Of the first contender's throughput by this one's, and of its CPU per operation: medians of the ratios within a round.
    throughput_ratio: f64,
    cpu_ratio: f64,
}

/// One run.
#[derive(Clone, Copy)]
struct Run {
    rate: f64,
    cpu_us: f64,
    p99_us: f64,
    memory_bytes: f64,
    errors: u64,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::read("Tidewater beside Redis Cluster, the same load on both in turn.", 3);
    let program = std::env::current_exe()?.with_file_name("tidewater-bench");
    if !program.exists() {
        return Err(format!("{} is missing: `cargo build --workspace` makes it", program.display()).into());
    }
    let redis = Redis::start()?;
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let kept = PathBuf::from("bench-out").join(format!("compare-{started}"));
    let mut rows = Vec::new();
    for case in CASES.iter().filter(|case| arguments.wants(case.name)) {
        let mut runs = vec![Vec::new(); case.contenders.len()];
        for round in 0..arguments.rounds {
            for (at, contender) in case.contenders.iter().enumerate() {
                let folder = kept.join(format!("{}-{}-{round}", case.name, contender.name.replace([' ', ','], "")));
                let run = measure(&program, case, contender, &redis, &folder)?;
                if !arguments.json {
                    let (name, rate, cpu_us) = (contender.name, run.rate, run.cpu_us);
                    println!("{:4} round {}: {name:22} {rate:8.0}/s  {cpu_us:6.1} us", case.name, round + 1);
                }
                runs[at].push(run);
            }
        }
        for (at, contender) in case.contenders.iter().enumerate() {
            rows.push(row(case, contender, &runs[0], &runs[at]));
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print(&rows);
        println!("\nwhat each run left behind: {}", kept.display());
    }
    Ok(())
}

fn measure(program: &Path, case: &Case, contender: &Contender, redis: &Redis, folder: &Path) -> Outcome<Run> {
    let mut command = Command::new(program);
    command.arg("run").args(LOAD).args(case.load).args(contender.extra).arg("--out").arg(folder);
    command.args(["--title", contender.name, "--durability", contender.durability]);
    if contender.redis {
        command.args(["--target", &redis.target(), "--server-pids", &redis.pids()]);
    } else {
        command.args(["--protocol", "resp", "--port", &TIDEWATER_PORT.to_string()]);
    }
    fs::create_dir_all(folder)?;
    let log = folder.join("output.txt");
    let output = File::create(&log)?;
    let status = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).status()?;
    let results = fs::read(folder.join("results.json"))
        .map_err(|_| format!("{}: ended with {status}, see {}", contender.name, log.display()))?;
    let results: Results = serde_json::from_slice(&results)?;
    let done: u64 = results.slices.iter().map(|slice| slice.done).sum();
    Ok(Run {
        rate: done as f64 / results.setting.measured_s.max(1.0),
        cpu_us: results.cost.server_cpu_us_per_operation.ok_or("the servers' CPU is not known here")?,
        p99_us: results.operations.iter().map(|operation| operation.latency.p99_us).max().unwrap_or(0) as f64,
        memory_bytes: results.cost.server_memory_bytes.unwrap_or(0) as f64,
        errors: results.slices.iter().map(|slice| slice.errors).sum(),
    })
}

fn row(case: &Case, contender: &Contender, first: &[Run], runs: &[Run]) -> Row {
    let of = |what: fn(&Run) -> f64| median(runs.iter().map(what).collect());
    let ratio =
        |what: fn(&Run) -> f64| median(first.iter().zip(runs).map(|(one, two)| what(one) / what(two)).collect());
    Row {
        case: case.name,
        system: contender.name,
        durability: contender.durability,
        operations_per_second: of(|run| run.rate),
        server_cpu_us_per_operation: of(|run| run.cpu_us),
        p99_us: of(|run| run.p99_us),
        server_memory_bytes: of(|run| run.memory_bytes),
        errors: runs.iter().map(|run| run.errors).sum(),
        throughput_ratio: ratio(|run| run.rate),
        cpu_ratio: ratio(|run| run.cpu_us),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(rows: &[Row]) {
    println!(
        "\nMedians. Ratios: the case's first system by this one, throughput (more is better) and CPU (less is better).\n"
    );
    println!(
        "{:4} {:22} {:>9} {:>10} {:>8} {:>8} {:>7} {:>11} {:>6}  acknowledged means",
        "", "", "ops/s", "server us", "p99 ms", "MiB", "errors", "throughput", "CPU"
    );
    for row in rows {
        println!(
            "{:4} {:22} {:>9.0} {:>10.1} {:>8.1} {:>8.0} {:>7} {:>10.2}x {:>5.2}x  {}",
            row.case,
            row.system,
            row.operations_per_second,
            row.server_cpu_us_per_operation,
            row.p99_us / 1e3,
            row.server_memory_bytes / f64::from(1 << 20),
            row.errors,
            row.throughput_ratio,
            row.cpu_ratio,
            row.durability
        );
    }
}

/// Redis servers of a cluster of our own, gone when this is dropped.
struct Redis {
    servers: Vec<Child>,
    _folder: TempDir,
}

impl Redis {
    fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let mut redis = Self { servers: Vec::new(), _folder: folder };
        for port in ports() {
            let home = redis._folder.path().join(port.to_string());
            fs::create_dir_all(&home)?;
            let log = File::create(home.join("log"))?;
            let words = format!(
                "--bind 127.0.0.1 --port {port} --cluster-enabled yes --cluster-node-timeout 5000 --appendonly yes --appendfsync everysec"
            );
            let server = Command::new("redis-server")
                .args(words.split(' '))
                .args(["--save", ""])
                .arg("--dir")
                .arg(&home)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .map_err(|error| format!("redis-server: {error}; it is in the package redis-server"))?;
            redis.servers.push(server);
        }
        for port in ports() {
            until(&format!("the Redis server on port {port} answers"), || Ok(ask(port, &["ping"])?.trim() == "PONG"))?;
        }
        let mut create = vec!["--cluster".to_string(), "create".to_string()];
        create.extend(ports().map(|port| format!("127.0.0.1:{port}")));
        create.extend(["--cluster-replicas", &(COPIES - 1).to_string(), "--cluster-yes"].map(str::to_owned));
        let made = Command::new("redis-cli").args(&create).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(format!("redis-cli --cluster create: {}", String::from_utf8_lossy(&made.stdout)).into());
        }
        for port in ports() {
            until(&format!("the Redis server on port {port} sees a whole cluster"), || {
                let replication = ask(port, &["info", "replication"])?;
                let linked = match replication.contains("role:master") {
                    true => replication.contains(&format!("connected_slaves:{}", COPIES - 1)),
                    false => replication.contains("master_link_status:up"),
                };
                Ok(linked && ask(port, &["cluster", "info"])?.contains("cluster_state:ok"))
            })?;
        }
        Ok(redis)
    }

    fn target(&self) -> String {
        let nodes: Vec<String> = ports().take(PRIMARIES).map(|port| format!("127.0.0.1:{port}")).collect();
        format!("resp://{}", nodes.join(","))
    }

    fn pids(&self) -> String {
        self.servers.iter().map(|server| server.id().to_string()).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn ports() -> impl Iterator<Item = u16> {
    (0..PRIMARIES * COPIES).map(|at| REDIS_PORT + at as u16)
}

fn ask(port: u16, words: &[&str]) -> Outcome<String> {
    let answer = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .output()
        .map_err(|error| format!("redis-cli: {error}; it is in the package redis-tools"))?;
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

fn until(what: &str, mut done: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let began = Instant::now();
    while !done()? {
        if began.elapsed() > Duration::from_secs(30) {
            return Err(format!("30 seconds have gone by before {what}").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
