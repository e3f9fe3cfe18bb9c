//! What was typed: the clap types of every verb, with help and examples. Nothing here does anything; `config.rs` and the
//! verbs say what it means.

pub mod faults;
pub mod keys;
pub mod sim;
pub mod start;
pub mod tls;

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::data::consistency::{Consistency, Level};
use crate::data::id::OpId;

const EXAMPLES: &str = "\
Examples:
  tidewater dev                          a three-node cluster on this machine
  tidewater put greeting hello           write at quorum
  tidewater get greeting --explain       read, and see who answered
  tidewater where greeting               which nodes hold a key
  tidewater status                       how the nodes are

Exit codes:
  0  done
  1  refused or failed; nothing was changed, or the message says what was
  2  wrong usage or bad configuration; nothing was tried
  3  the outcome is unknown: it may have happened; repeat with the --op-id that the message names
  4  the key, member or field asked for is not there
";

/// An eventually consistent, sharded key-value store: consistency is chosen per request.
#[derive(Debug, Parser)]
#[command(name = "tidewater", version, after_help = EXAMPLES, max_term_width = 100, subcommand_required = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a cluster of real node processes on this machine
    Dev(start::DevArgs),
    /// Run one node in the foreground
    Node(start::NodeArgs),
    /// Show how the nodes are: up, owning, behind, keeping hints
    Status(StatusArgs),
    /// Compare all rows between their owners, now, and show what was found
    Scrub(ScrubArgs),
    /// Hurt a running cluster on purpose: cut it apart, delay, pause, kill, wipe; and heal it
    Faults(faults::FaultsArgs),
    #[command(flatten)]
    Keys(keys::KeysVerb),
    /// Write files, folders and NDJSON into the cluster
    Import(ImportArgs),
    /// Write every key as NDJSON to a file or the standard output
    Export(ExportArgs),
    /// Make and show the certificates of a cluster
    Tls(tls::TlsArgs),
    /// Watch a cluster take real data, lose a node and come level again
    Demo(start::DemoArgs),
    /// Run the real node code in a simulated world that tries to break it
    Sim(sim::SimArgs),
    /// Load a cluster, hurt it, check every answer (`tidewater bench --help`)
    #[command(disable_help_flag = true)]
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Which cluster, by which certificate, and in which form to answer.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// QUIC addresses of some nodes; any one that answers is enough
    #[arg(
        long,
        value_name = "HOST:PORT[,…]",
        env = "TIDEWATER_CONNECT",
        value_delimiter = ',',
        default_value = "127.0.0.1:9001",
        value_parser = host_port
    )]
    pub connect: Vec<String>,
    /// Folder with ca.crt, client.crt and client.key
    #[arg(long, value_name = "DIR", env = "TIDEWATER_TLS", default_value = "./tidewater-data/tls")]
    pub tls_dir: PathBuf,
    /// The longest to wait for an answer, as 500ms, 2s or 1m
    #[arg(long, value_name = "TIME", env = "TIDEWATER_TIMEOUT", default_value = "2s", value_parser = duration)]
    pub timeout: Duration,
    /// The form of what is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// For people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Everything that any request for a key may choose.
#[derive(Args, Clone, Debug)]
pub struct RequestArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub consistency: ConsistencyArgs,
    /// Print the receipt: who answered, who was missing, what was repaired
    #[arg(long, help_heading = "Consistency")]
    pub explain: bool,
    /// Name the change, so that repeating it counts once: a version 7 UUID (one is made when absent)
    #[arg(long, value_name = "UUID", value_parser = op_id, help_heading = "Consistency")]
    pub op_id: Option<OpId>,
}

/// What the request asks of the replicas. What is absent is the default of [`Consistency`].
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Consistency")]
pub struct ConsistencyArgs {
    /// Answers a read waits for: one, two, three, quorum, all, local-quorum, each-quorum or a number [default: quorum]
    #[arg(long, value_name = "LEVEL", env = "TIDEWATER_READ")]
    pub read: Option<Level>,
    /// Acknowledgements a write waits for: any, or as --read [default: quorum]
    #[arg(long, value_name = "LEVEL", env = "TIDEWATER_WRITE")]
    pub write: Option<Level>,
    /// Of those, how many must have fsynced [default: none is waited for]
    #[arg(long, value_name = "LEVEL", env = "TIDEWATER_DURABLE")]
    pub durable: Option<Level>,
    /// The least number of distinct zones among the acknowledgements [default: 1]
    #[arg(long, value_name = "COUNT", env = "TIDEWATER_ZONES")]
    pub zones: Option<u8>,
    /// Count owners only, no stand-ins
    #[arg(long, env = "TIDEWATER_OWNERS", value_parser = clap::builder::FalseyValueParser::new())]
    pub owners: bool,
}

impl ConsistencyArgs {
    /// The choices with the defaults filled in. Whether they can be met is judged where the number of replicas is known.
    pub fn consistency(&self) -> Consistency {
        let default = Consistency::default();
        Consistency {
            read: self.read.unwrap_or(default.read),
            write: self.write.unwrap_or(default.write),
            durable: self.durable.or(default.durable),
            zones: self.zones.unwrap_or(default.zones),
            owners_only: self.owners,
        }
    }
}

/// `tidewater status`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater status
  tidewater status --wait level --timeout 60s     wait until no node lacks anything
  tidewater status --output json | jq '.nodes[].hints'

PARTITIONS  how many of all this node owns
HINTS       writes that it keeps for nodes that are away
LOG         changes of which it does not know yet that every owner has them
LAG         changes that it has and other owners, by their last word, have not
BEHIND      changes that it knows of and has not; with HINTS and LAG at 0 on every node the cluster is level")]
pub struct StatusArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Return only when it is so, or fail at --timeout
    #[arg(long, value_enum, value_name = "STATE")]
    pub wait: Option<StatusWait>,
}

/// `tidewater scrub`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Every node compares its rows with those of the other owners, byte for byte, and does so by itself once
in scrub_interval. An owner that is not like all others drops the partition and takes it from
them anew. Exit code 1: something was found, or could not be compared.

Examples:
  tidewater scrub
  tidewater scrub --wait 1h --output json")]
pub struct ScrubArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How long to wait until all is compared; afterwards it goes on in the background
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub wait: Duration,
}

/// What `status --wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusWait {
    /// Every member answers
    Up,
    /// Every member answers, no hints are pending and nobody lacks anything
    Level,
}

/// `tidewater import PATH...`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater import photos/ notes.txt --prefix backup/
  tidewater import data.ndjson --write one
  tidewater import big/ --journal big.journal     repeat after an interruption: goes on where it stopped

A file becomes a string under its path; a folder, every file in it. A line of an .ndjson file is one key:
  {\"key\":\"a\",\"string\":\"x\"}            {\"key\":\"n\",\"counter\":5}
  {\"key\":\"s\",\"set\":[\"x\",\"y\"]}         {\"key\":\"h\",\"hash\":{\"f\":\"v\"}}
Bytes that are no text are written as {\"base64\":\"...\"} wherever a text may stand.
Counters are added to what is there and siblings put beside it. The same line of the same file counts once, however often
the command is repeated: that is remembered in a file .tidewater-import-… in this folder.
Exit code 0 says that all of it was acknowledged.")]
pub struct ImportArgs {
    /// Files, folders and .ndjson files; - reads NDJSON from the standard input
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Put this before each key made from a path
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
    /// Requests under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub concurrency: u16,
    /// Remember here what was acknowledged, and go on from there
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// How often to try one key again before giving it up
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pub retries: u32,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater export`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater export > all.ndjson
  tidewater export --out all.ndjson --prefix user: --read one")]
pub struct ExportArgs {
    /// Write here; absent: the standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only keys that begin so
    #[arg(long, value_name = "TEXT", value_parser = bytes())]
    pub prefix: Option<Bytes>,
    /// Requests under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub concurrency: u16,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// For tidewater-bench, as they are
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

/// `tidewater completions SHELL`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater completions bash > ~/.local/share/bash-completion/completions/tidewater
  tidewater completions zsh > \"${fpath[1]}/_tidewater\"
  tidewater completions fish > ~/.config/fish/completions/tidewater.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Any bytes that an argument may hold, text or not.
fn bytes() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|text: OsString| Bytes::from(text.into_vec()))
}

/// Reads `250us`, `500ms`, `2s`, `1m`, `12h`, `7d`; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("'{text}' is not a time: use a whole number with a unit, as 250us, 500ms, 2s, 1m, 12h or 7d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_us: u64 = match &text[digits..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(wrong()),
    };
    let total_us = number.checked_mul(unit_us).ok_or_else(|| format!("'{text}' is too long a time"))?;
    Ok(Duration::from_micros(total_us))
}

/// Accepts `host:port`, `1.2.3.4:port` and `[::1]:port`; gives it back as it was typed.
pub fn host_port(text: &str) -> Result<String, String> {
    let wrong =
        || format!("'{text}' is not an address: use host:port, as n1.example.net:9001, 10.0.0.1:9001 or [::1]:9001");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fine = match bare {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    if !fine || port == 0 {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

fn op_id(text: &str) -> Result<OpId, String> {
    OpId::parse(text).ok_or_else(|| format!("'{text}' is not a version 7 UUID"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::data::decimal::Decimal;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_agree_with_themselves() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands() {
            assert!(verb.get_about().is_some(), "{} has no help", verb.get_name());
        }
    }

    #[test]
    fn consistency_is_read_with_its_defaults() {
        let cli = parse("tidewater get k --read one --durable quorum --zones 2 --owners").expect("fine");
        let Verb::Keys(verb) = cli.verb else { panic!("get is about a key") };
        let chosen = verb.request().consistency.consistency();
        assert_eq!(chosen.read, Level::Count(1));
        assert_eq!(chosen.write, Level::Quorum);
        assert_eq!(chosen.durable, Some(Level::Quorum));
        assert_eq!(chosen.zones, 2);
        assert!(chosen.owners_only);
    }

    #[test]
    fn wrong_words_are_refused_with_what_is_allowed() {
        for (line, told) in [
            ("tidewater get k --read most", "any, one, two, three, quorum"),
            ("tidewater get k --timeout 5", "500ms, 2s"),
            ("tidewater get k --connect nowhere", "host:port"),
            ("tidewater get k --connect host:0", "host:port"),
            ("tidewater get k --op-id 7", "version 7 UUID"),
            ("tidewater incr k many", "decimal number"),
            ("tidewater put k", "VALUE"),
            ("tidewater put k v --file f", "cannot be used"),
            ("tidewater siblings put k v --context xyz", "hexadecimal"),
            ("tidewater dev --nodes 0", "1..=64"),
            ("tidewater dev --restart 1 --nodes 3", "cannot be used"),
            ("tidewater gett k", "get"),
            ("tidewater get k --raed one", "--read"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn several_addresses_and_negative_numbers_are_fine() {
        let cli = parse("tidewater incr k -5 --connect a:1,[::1]:2 --connect 10.0.0.1:3").expect("fine");
        let Verb::Keys(keys::KeysVerb::Incr(args)) = cli.verb else { panic!("incr") };
        assert_eq!(args.by, Decimal::from_integer(-5));
        assert_eq!(args.request.connect.connect, ["a:1", "[::1]:2", "10.0.0.1:3"]);
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for text in ["", "5", "s", "-1s", "1.5s", "1w", "99999999999999999999s", "9999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
