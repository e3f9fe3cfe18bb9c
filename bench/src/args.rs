//! What was typed, and what it means. The one place that knows the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidewater::data::consistency::{Consistency, Level};

use crate::faults::{scenarios, schedule};
use crate::load::keys::Distribution;
use crate::load::values::{HEADER_BYTES, VALUE_BYTES_MAX};
use crate::load::workload::{Kind, Model, Workload};

const EXAMPLES: &str = "\
Examples:
  tidewater-bench                                        the canonical run: three nodes here, a partition, a kill (3 minutes)
  tidewater-bench run --workload b --write-level all     YCSB B on three nodes here
  tidewater-bench run flapping --duration 2m             a scenario that is shipped, for longer
  tidewater-bench run --fault 'at 10s kill n1 for 20s'   a fault of one's own
  tidewater-bench run --target quic://db1:9001 --tls-dir tls
  tidewater-bench run --target resp://db1:7001,db2:7001 --rate 20000
  tidewater-bench compare bench-out/A bench-out/B --out both   two runs in one report
  tidewater-bench scenarios                              what is shipped
";

/// Load a cluster, hurt it, check every answer, and tell how fast it was and what went wrong
#[derive(Debug, Parser)]
#[command(name = "tidewater-bench", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Measure
    Run(Box<RunArgs>),
    /// Put earlier runs into one report, over each other
    Compare(CompareArgs),
    /// Show the scenarios that are shipped
    Scenarios,
}

#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Folders that runs have left behind, or their results.json; the first is what the others are compared with
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The folder for the report
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Tidewater's own client over QUIC
    Native,
    /// Redis's protocol
    Resp,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub protocol: Protocol,
    pub nodes: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// A scenario: the name of one that is shipped, or a file
    #[arg(value_name = "SCENARIO")]
    pub scenario_name: Option<String>,
    /// The same
    #[arg(long = "scenario", value_name = "SCENARIO", conflicts_with = "scenario_name")]
    pub scenario: Option<String>,
    /// One more fault, as a line of a scenario; may be repeated
    #[arg(long = "fault", value_name = "LINE")]
    pub faults: Vec<String>,
    /// A short name of the run, for headings
    #[arg(long)]
    pub title: Option<String>,

    /// Nodes to load: quic://HOST:PORT,... or resp://HOST:PORT,...; without it a cluster is started here
    #[arg(long, value_parser = address, help_heading = "Target")]
    pub target: Option<Address>,
    /// The folder with ca.crt, client.crt and client.key, for quic:// (with resp:// too: to ask nodes how they are)
    #[arg(long, value_name = "DIR", help_heading = "Target")]
    pub tls_dir: Option<PathBuf>,
    /// QUIC addresses of the nodes behind resp://, so that they can be asked how they are and be hurt
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', requires = "tls_dir", help_heading = "Target")]
    pub quic: Vec<String>,
    /// Nodes of the cluster that is started here
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32), conflicts_with = "target", help_heading = "Target")]
    pub nodes: u16,
    /// Owners of each key in the cluster that is started here
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32), conflicts_with = "target", help_heading = "Target")]
    pub replicas: u8,
    /// First port of the cluster that is started here; three are used for each node
    #[arg(long, default_value_t = 17_000, value_parser = clap::value_parser!(u16).range(1_024..=65_000), conflicts_with = "target", help_heading = "Target")]
    pub port: u16,
    /// How to talk to the cluster that is started here
    #[arg(long, value_enum, default_value_t = Protocol::Native, conflicts_with = "target", help_heading = "Target")]
    pub protocol: Protocol,
    /// Processes of the servers on this machine, so that their CPU and memory are told
    #[arg(long, value_name = "PID,...", value_delimiter = ',', requires = "target", help_heading = "Target")]
    pub server_pids: Vec<u32>,
    /// What an acknowledgement means there, for the report
    #[arg(long, value_name = "TEXT", help_heading = "Target")]
    pub durability: Option<String>,

    /// a to f (YCSB), mix, counter, set, map or siblings
    #[arg(long, default_value = "mix", help_heading = "Load")]
    pub workload: String,
    /// Share of the reads: 0 to 1
    #[arg(long, value_parser = share, help_heading = "Load")]
    pub read_share: Option<f64>,
    /// Share of the writes that delete
    #[arg(long, value_parser = share, default_value = "0", help_heading = "Load")]
    pub delete_share: f64,
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000), help_heading = "Load")]
    pub keys: u32,
    /// uniform, zipfian, zipfian:EXPONENT or latest; without it what fits the workload
    #[arg(long, help_heading = "Load")]
    pub distribution: Option<Distribution>,
    /// Bytes of a value: 100, or drawn from 10..1000
    #[arg(long, default_value = "100", value_parser = sizes, help_heading = "Load")]
    pub value_bytes: (u32, u32),
    /// Callers, each with one request (or pipeline) under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000), help_heading = "Load")]
    pub connections: u32,
    /// Requests that each caller sends at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000), help_heading = "Load")]
    pub pipeline: u32,
    /// Requests per second, sent by the clock whatever happens; without it each caller sends when it has been answered
    #[arg(long, value_parser = rate, conflicts_with = "pipeline", help_heading = "Load")]
    pub rate: Option<f64>,
    /// How long is measured; without it 30s, or until 15s after the last fault
    #[arg(long, value_parser = time, help_heading = "Load")]
    pub duration: Option<Duration>,
    #[arg(long, value_parser = time, default_value = "5s", help_heading = "Load")]
    pub warm_up: Duration,
    /// The longest that a request may take
    #[arg(long, value_parser = time, default_value = "2s", help_heading = "Load")]
    pub timeout: Duration,
    /// Threads that make the load; without it one, or half of the cores
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Load")]
    pub threads: Option<u32>,

    /// Answers that a read waits for: one, two, three, quorum, all, local-quorum, each-quorum or a number
    #[arg(long, value_name = "LEVEL", help_heading = "Consistency")]
    pub read_level: Option<Level>,
    /// Acknowledgements that a write waits for: the same, or any
    #[arg(long, value_name = "LEVEL", help_heading = "Consistency")]
    pub write_level: Option<Level>,
    /// Of these, how many must have fsynced
    #[arg(long, value_name = "LEVEL", help_heading = "Consistency")]
    pub durable: Option<Level>,
    /// The least number of distinct zones among the acknowledgements
    #[arg(long, value_name = "N", help_heading = "Consistency")]
    pub zones: Option<u8>,
    /// Stand-ins do not count
    #[arg(long, help_heading = "Consistency")]
    pub owners_only: bool,
    /// Redis: after each write WAIT for so many replicas
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Consistency")]
    pub wait: u32,

    /// Keys that are read once more at the end, at most
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Result")]
    pub verify_keys: u32,
    /// How long to wait at the end until all owners hold the same; servers that cannot be asked are given 10s
    #[arg(long, value_parser = time, default_value = "120s", help_heading = "Result")]
    pub settle: Duration,
    /// The folder for what was measured; without it bench-out/TIME
    #[arg(long, value_name = "DIR", help_heading = "Result")]
    pub out: Option<PathBuf>,
}

/// What was typed, with what the scenario says put before it.
pub fn parse(typed: Vec<String>) -> Result<Cli, String> {
    let complain = |error: clap::Error| -> String { error.exit() };
    let cli = Cli::try_parse_from(&typed).map_err(complain)?;
    let run = match &cli.verb {
        Some(Verb::Run(run)) => run.clone(),
        Some(Verb::Scenarios | Verb::Compare(_)) => return Ok(cli),
        None => {
            let words = [typed.first().map_or("tidewater-bench", String::as_str), "run", "canonical"];
            return parse(words.map(String::from).into());
        }
    };
    let Some(name) = run.scenario_name() else { return Ok(cli) };
    let schedule = schedule::parse(&scenarios::find(name)?).map_err(|error| format!("{name}: {error}"))?;
    let (program, rest) = typed.split_at(2.min(typed.len()));
    let words = program.iter().chain(&schedule.options).chain(rest);
    Cli::try_parse_from(words).map_err(complain)
}

impl RunArgs {
    pub fn scenario_name(&self) -> Option<&str> {
        self.scenario_name.as_deref().or(self.scenario.as_deref())
    }

    /// The scenario's faults and those of `--fault`.
    pub fn schedule(&self) -> Result<schedule::Schedule, String> {
        let mut text = match self.scenario_name() {
            Some(name) => scenarios::find(name)?,
            None => String::new(),
        };
        for line in &self.faults {
            let line = line.trim();
            // By itself first, so that the place of a mistake is that in the option.
            schedule::parse(line)
                .map_err(|error| format!("--fault '{line}': column {}: {}", error.column, error.message))?;
            text.push('\n');
            text.push_str(line);
        }
        schedule::parse(&text).map_err(|error| error.to_string())
    }

    pub fn consistency(&self) -> Consistency {
        let fine = Consistency::default();
        Consistency {
            read: self.read_level.unwrap_or(fine.read),
            write: self.write_level.unwrap_or(fine.write),
            durable: self.durable,
            zones: self.zones.unwrap_or(fine.zones),
            owners_only: self.owners_only,
        }
    }

    /// Was any of it asked for by name?
    pub fn names_consistency(&self) -> bool {
        self.read_level.is_some()
            || self.write_level.is_some()
            || self.durable.is_some()
            || self.zones.is_some()
            || self.owners_only
    }

    pub fn protocol(&self) -> Protocol {
        self.target.as_ref().map_or(self.protocol, |target| target.protocol)
    }

    /// The workload, if everything fits together.
    pub fn checked_workload(&self) -> Result<Workload, String> {
        let workload = Workload::named(&self.workload, self.read_share, self.delete_share)?;
        if self.pipeline > 1
            && let Some(kind) = workload.kinds().find(|kind| !kind.is_single())
        {
            return Err(format!("--pipeline {}: {} needs an answer before it can go on", self.pipeline, kind.name()));
        }
        if self.protocol() == Protocol::Resp && workload.model == Model::Siblings {
            return Err("--workload siblings: Redis's protocol has no siblings; use --target quic://".into());
        }
        if self.protocol() == Protocol::Native && self.wait > 0 {
            return Err("--wait is Redis's: use --write-level".into());
        }
        match &self.target {
            Some(Address { protocol: Protocol::Native, .. }) if self.tls_dir.is_none() => {
                Err("--target quic:// needs --tls-dir: the folder with ca.crt, client.crt and client.key".into())
            }
            None if self.tls_dir.is_some() => {
                Err("--tls-dir is for --target: a cluster that is started here has its own".into())
            }
            _ => Ok(workload),
        }
    }

    /// How long is measured, and why that is not possible.
    pub fn checked_duration(&self, schedule: &schedule::Schedule) -> Result<Duration, String> {
        let ends = schedule.ends();
        let default = if schedule.faults.is_empty() { Duration::from_secs(30) } else { ends + Duration::from_secs(15) };
        let duration = self.duration.unwrap_or(default);
        // What is told is told by the second.
        let duration = Duration::from_secs(duration.as_millis().div_ceil(1_000) as u64);
        if duration < Duration::from_secs(1) {
            return Err("--duration is a second at least".into());
        }
        if ends > duration {
            return Err(format!(
                "the last fault ends at {}, and --duration is {}: make it longer",
                humantime::format_duration(ends),
                humantime::format_duration(duration)
            ));
        }
        Ok(duration)
    }

    pub fn level(&self, kind: Kind) -> String {
        let consistency = self.consistency();
        if kind.is_read() { consistency.read.to_string() } else { consistency.write.to_string() }
    }
}

fn address(text: &str) -> Result<Address, String> {
    let wrong = || format!("'{text}' is not a target: use quic://HOST:PORT,... or resp://HOST:PORT,...");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let protocol = match scheme {
        "quic" => Protocol::Native,
        "resp" | "redis" => Protocol::Resp,
        _ => return Err(wrong()),
    };
    let nodes: Vec<String> = rest.split(',').map(|node| node.trim().to_owned()).collect();
    let fits = |node: &String| {
        node.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if nodes.iter().all(fits) { Ok(Address { protocol, nodes }) } else { Err(wrong()) }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1.0..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number of requests per second from 1 to 10000000".into()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= Duration::from_secs(7 * 24 * 3_600) => Ok(time),
        Ok(_) => Err("a week is the longest".into()),
        Err(error) => Err(format!("{error}: use 500ms, 30s, 5m ...")),
    }
}

fn sizes(text: &str) -> Result<(u32, u32), String> {
    let wrong = || {
        format!(
            "'{text}' is not a size: use 100 or 100..1000, from {HEADER_BYTES} (a value says what it is) to {VALUE_BYTES_MAX}"
        )
    };
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    let (least, most) = (number(least)?, number(most)?);
    let fits = least as usize >= HEADER_BYTES && least <= most && most as usize <= VALUE_BYTES_MAX;
    if fits { Ok((least, most)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &str) -> RunArgs {
        let typed = std::iter::once("tidewater-bench").chain(words.split_whitespace()).map(String::from).collect();
        match parse(typed).expect(words).verb {
            Some(Verb::Run(run)) => *run,
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_it_is_the_canonical_run() {
        let run = run("");
        assert_eq!(run.scenario_name(), Some("canonical"));
        assert_eq!((run.connections, run.keys, run.nodes), (64, 100_000, 3));
        assert_eq!(run.title.as_deref(), Some("quorum, partition and kill"));
        let schedule = run.schedule().expect("a scenario");
        assert_eq!(schedule.faults.len(), 2);
        assert!(run.checked_duration(&schedule).is_ok() && run.checked_workload().is_ok());
    }

    #[test]
    fn what_is_typed_wins_over_the_scenario() {
        let run = run("run counters --keys 7 --duration 5m --workload mix");
        assert_eq!((run.keys, run.workload.as_str(), run.read_share), (7, "mix", Some(0.3)));
        assert_eq!(run.duration, Some(Duration::from_secs(300)));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |words: &str| run(words).checked_workload().expect_err(words);
        assert!(refused("run --workload f --pipeline 8").contains("read-modify-write"));
        assert!(refused("run --workload siblings --protocol resp").contains("quic://"));
        assert!(refused("run --target quic://a:1").contains("--tls-dir"));
        assert!(refused("run --wait 1").contains("--write-level"));
        let short = run("run wipe --duration 5s");
        let error = short.checked_duration(&short.schedule().expect("a scenario")).expect_err("too short");
        assert!(error.contains("ends at 20s") && error.contains("5s"), "{error}");
        let mut wrong = run("run");
        wrong.faults = vec!["at 1s explode n1".into()];
        assert!(wrong.schedule().expect_err("no fault").contains("column 7: 'explode'"));
    }

    #[test]
    fn words_are_read_or_refused() {
        assert_eq!(sizes("100"), Ok((100, 100)));
        assert_eq!(sizes("16..1000"), Ok((16, 1_000)));
        for wrong in ["15", "1000..100", "", "..", "9999999999", "x"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
        let nodes = vec!["a:1".to_owned(), "b:2".to_owned()];
        assert_eq!(address("resp://a:1,b:2"), Ok(Address { protocol: Protocol::Resp, nodes }));
        for wrong in ["a:1", "http://a:1", "quic://a", "quic://", "quic://a:0", "quic://a:1,"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert!(share("1.1").is_err() && rate("0").is_err() && time("5 parsecs").is_err());
    }
}
