//! What was typed: the clap types of every verb, with help and examples. Nothing here does anything; `config.rs` and the
//! verbs say what it means.

pub mod faults;

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
use crate::data::decimal::Decimal;
use crate::data::id::OpId;
use crate::node::planted::Planted;
use crate::sim::plan::Aim;

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
    Dev(DevArgs),
    /// Run one node in the foreground
    Node(NodeArgs),
    /// Show how the nodes are: up, owning, behind, keeping hints
    Status(StatusArgs),
    /// Compare all rows between their owners, now, and show what was found
    Scrub(ScrubArgs),
    /// Hurt a running cluster on purpose: cut it apart, delay, pause, kill, wipe; and heal it
    Faults(faults::FaultsArgs),
    #[command(flatten)]
    Keys(KeysVerb),
    /// Write files, folders and NDJSON into the cluster
    Import(ImportArgs),
    /// Write every key as NDJSON to a file or the standard output
    Export(ExportArgs),
    /// Make and show the certificates of a cluster
    Tls(TlsArgs),
    /// Watch a cluster take real data, lose a node and come level again
    Demo(DemoArgs),
    /// Run the real node code in a simulated world that tries to break it
    Sim(SimArgs),
    /// Load a cluster, hurt it, check every answer (`tidewater bench --help`)
    #[command(disable_help_flag = true)]
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// The verbs that ask about one key or a few.
#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// Show where a key lives: slot, partition, owners and stand-ins
    Where(WhereArgs),
    /// Show what every node knows of a key: rows, hints, and what a delete row waits for
    Explain(ExplainArgs),
    /// Read a string
    Get(GetArgs),
    /// Write a string
    #[command(visible_alias = "set")]
    Put(PutArgs),
    /// Delete keys, whatever they hold
    Del(DelArgs),
    /// Say whether a key is there (exit code 4: it is not)
    Exists(KeyArgs),
    /// Show how long a key has to live
    Ttl(KeyArgs),
    /// Set or clear the time a key has to live
    Expire(ExpireArgs),
    /// Add to a counter
    Incr(IncrArgs),
    /// Subtract from a counter
    Decr(IncrArgs),
    /// Add members to a set
    Sadd(MembersArgs),
    /// Remove members from a set
    Srem(MembersArgs),
    /// Show the members of a set
    Smembers(KeyArgs),
    /// Say which members are in a set (exit code 4: not all of them)
    Sismember(MembersArgs),
    /// Set fields of a hash
    Hset(HsetArgs),
    /// Read fields of a hash
    Hget(FieldsArgs),
    /// Show all fields of a hash
    Hgetall(KeyArgs),
    /// Remove fields of a hash
    Hdel(FieldsArgs),
    /// Read and write concurrent values with a causal context
    Siblings(SiblingsArgs),
    /// Read and set a flag; enabling wins over a concurrent disabling
    Flag(FlagArgs),
}

impl KeysVerb {
    /// How the request is to be made, whichever verb it is.
    pub fn request(&self) -> &RequestArgs {
        match self {
            KeysVerb::Where(args) => &args.request,
            KeysVerb::Explain(args) => &args.request,
            KeysVerb::Get(args) => &args.request,
            KeysVerb::Put(args) => &args.request,
            KeysVerb::Del(args) => &args.request,
            KeysVerb::Exists(args) | KeysVerb::Ttl(args) | KeysVerb::Smembers(args) | KeysVerb::Hgetall(args) => {
                &args.request
            }
            KeysVerb::Expire(args) => &args.request,
            KeysVerb::Incr(args) | KeysVerb::Decr(args) => &args.request,
            KeysVerb::Sadd(args) | KeysVerb::Srem(args) | KeysVerb::Sismember(args) => &args.request,
            KeysVerb::Hset(args) => &args.request,
            KeysVerb::Hget(args) | KeysVerb::Hdel(args) => &args.request,
            KeysVerb::Siblings(args) => match &args.verb {
                SiblingsVerb::Get(args) => &args.request,
                SiblingsVerb::Put(args) => &args.request,
            },
            KeysVerb::Flag(args) => &args.request,
        }
    }
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

/// `tidewater dev`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater dev                               three nodes; redis-cli -p 7001 set a 1
  tidewater dev --nodes 5 --zones 3           five nodes in three zones
  tidewater dev --data /tmp/tide --resp-port 7101 --quic-port 9101 --http-port 8101
  tidewater dev --allow-faults                nodes that `tidewater faults` may cut off, stop and kill
  tidewater dev --restart 2                   from another terminal: start node 2 again after it was killed

Ctrl-C stops all nodes in an orderly way. A node that is killed stays down until it is started
again, by --restart or by its own command line `tidewater node --config DIR/nK/node.toml`.")]
pub struct DevArgs {
    /// How many nodes [default: 3, or what the data folder was made with]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: Option<u16>,
    /// Where certificates, settings, stores and logs are kept
    #[arg(long, value_name = "DIR", default_value = "./tidewater-data")]
    pub data: PathBuf,
    /// RESP port of the first node; the others count up [default: 7001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub resp_port: Option<u16>,
    /// QUIC port of the first node; the others count up [default: 9001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub quic_port: Option<u16>,
    /// HTTP port of the first node; the others count up [default: 8001]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: Option<u16>,
    /// Owners of each key [default: 3, or as many as there are nodes]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub replicas: Option<u8>,
    /// Spread the nodes over this many zones, turn by turn [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub zones: Option<u16>,
    /// Start node K again in a cluster that runs already, and return
    #[arg(
        long,
        value_name = "K",
        conflicts_with_all = ["nodes", "resp_port", "quic_port", "http_port", "replicas", "zones"],
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub restart: Option<u16>,
    /// Let `tidewater faults` hurt the nodes that are started now
    #[arg(long)]
    pub allow_faults: bool,
    /// How long to wait until every node is ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub ready_timeout: Duration,
}

/// `tidewater node`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater node --config /etc/tidewater/node.toml
  tidewater node --config node.toml --check
  tidewater node --config node.toml --set memory=1GiB --set swim.probe_period=500ms

Every setting may also be given in the environment: TIDEWATER_MEMORY=1GiB, or, with two underscores
for the dot, TIDEWATER_SWIM__PROBE_PERIOD=500ms. --set wins over it, and it over the file.")]
pub struct NodeArgs {
    /// The settings; deploy/node.toml tells them all
    #[arg(long, value_name = "FILE", env = "TIDEWATER_CONFIG")]
    pub config: PathBuf,
    /// Give one setting another value, as name=value or section.name=value
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub overrides: Vec<String>,
    /// Let every client hurt this node on purpose (`tidewater faults`); the same as --set allow_faults=true
    #[arg(long)]
    pub allow_faults: bool,
    /// Judge the settings, print what they mean and stop
    #[arg(long, conflicts_with = "probe")]
    pub check: bool,
    /// Say whether the node of these settings is open on this machine (exit code 0: it is; 1: it is not)
    #[arg(long)]
    pub probe: bool,
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
  tidewater scrub --timeout 1h --output json")]
pub struct ScrubArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What `status --wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusWait {
    /// Every member answers
    Up,
    /// Every member answers, no hints are pending and nobody lacks anything
    Level,
}

/// A verb with just a key.
#[derive(Args, Clone, Debug)]
pub struct KeyArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[command(flatten)]
    pub request: RequestArgs,
}

fn planted(name: &str) -> Result<Planted, String> {
    let names: Vec<&str> = Planted::ALL.into_iter().map(Planted::name).collect();
    let found = Planted::ALL.into_iter().find(|planted| planted.name() == name);
    found.ok_or_else(|| format!("there is no such bug; there are: {}", names.join(", ")))
}

fn aim(name: &str) -> Result<Aim, String> {
    let names: Vec<&str> = Aim::ALL.into_iter().map(Aim::name).collect();
    let found = Aim::ALL.into_iter().find(|aim| aim.name() == name);
    found.ok_or_else(|| format!("there are no such worlds; there are: {}", names.join(", ")))
}

/// `tidewater where KEY`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater where user:17
  tidewater where '{cart}:17' --output json      keys with one {tag} live together")]
pub struct WhereArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater explain KEY`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater explain user:17
  tidewater explain user:17 --output json | jq '.nodes[].rows'

A delete row is kept until no older write of the key can come any more; explain names the node that
it waits for.")]
pub struct ExplainArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater get KEY`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater get greeting
  tidewater get greeting --read one              the nearest copy
  tidewater get greeting --read all --explain    every owner, and who disagreed
  tidewater get picture --raw > picture.png

Exit code 4 says that the key is not there.")]
pub struct GetArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    /// Print the bytes as they are, with no line end
    #[arg(long, conflicts_with = "output")]
    pub raw: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater put KEY VALUE`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater put greeting hello
  tidewater put greeting hello --write all --durable quorum --explain
  tidewater put session:9 token --expire 30m
  tidewater put picture --file picture.png       a value from a file; - is the standard input
  tidewater put leader n1 --if-absent            best effort: two writers may both win")]
pub struct PutArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[arg(
        value_name = "VALUE",
        value_parser = bytes(),
        allow_hyphen_values = true,
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub value: Option<Bytes>,
    /// Take the value from a file; - is the standard input
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Let the value live this long, as 90s, 15m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expire: Option<Duration>,
    /// Keep the deadline that the key has
    #[arg(long, conflicts_with = "expire")]
    pub keep_ttl: bool,
    /// Write only when the key is not there (best effort)
    #[arg(long, conflicts_with = "if_present")]
    pub if_absent: bool,
    /// Write only when the key is there (best effort)
    #[arg(long)]
    pub if_present: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater del KEY...`
#[derive(Args, Clone, Debug)]
pub struct DelArgs {
    #[arg(value_name = "KEY", value_parser = bytes(), required = true)]
    pub keys: Vec<Bytes>,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater expire KEY TIME`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater expire session:9 30m
  tidewater expire session:9 --never")]
pub struct ExpireArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    /// From now, as 90s, 15m, 12h or 7d
    #[arg(value_name = "TIME", value_parser = duration, required_unless_present = "never", conflicts_with = "never")]
    pub after: Option<Duration>,
    /// Let it live for ever
    #[arg(long)]
    pub never: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater incr KEY [BY]`, `tidewater decr KEY [BY]`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater incr visits
  tidewater incr visits 10
  tidewater incr weight 0.25
  tidewater decr stock 3 --write all")]
pub struct IncrArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    /// By how much: an integer or a decimal number
    #[arg(value_name = "BY", default_value = "1", value_parser = decimal, allow_negative_numbers = true)]
    pub by: Decimal,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater sadd KEY MEMBER...` and its kin
#[derive(Args, Clone, Debug)]
pub struct MembersArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[arg(value_name = "MEMBER", value_parser = bytes(), required = true)]
    pub members: Vec<Bytes>,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater hset KEY FIELD VALUE...`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater hset user:17 name Ada born 1815
  tidewater hset user:17 name Ada --if-absent")]
pub struct HsetArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    /// Fields and values in turn
    #[arg(value_name = "FIELD VALUE", value_parser = bytes(), required = true, num_args = 2..)]
    pub pairs: Vec<Bytes>,
    /// Leave a field that is there (best effort)
    #[arg(long)]
    pub if_absent: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater hget KEY FIELD...`, `tidewater hdel KEY FIELD...`
#[derive(Args, Clone, Debug)]
pub struct FieldsArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[arg(value_name = "FIELD", value_parser = bytes(), required = true)]
    pub fields: Vec<Bytes>,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater siblings get|put`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater siblings get cart                          the values, and a context
  tidewater siblings put cart '[1,2]' --context CTX    replaces just the values that context saw
  tidewater siblings put cart '[3]'                    replaces nothing: adds a sibling")]
pub struct SiblingsArgs {
    #[command(subcommand)]
    pub verb: SiblingsVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum SiblingsVerb {
    /// Show the concurrent values and the context to write with
    Get(KeyArgs),
    /// Write one value in place of those that the context saw
    Put(SiblingsPutArgs),
}

#[derive(Args, Clone, Debug)]
pub struct SiblingsPutArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    #[arg(value_name = "VALUE", value_parser = bytes(), allow_hyphen_values = true)]
    pub value: Bytes,
    /// The context that an earlier get printed (hexadecimal)
    #[arg(long, value_name = "CTX", value_parser = hexadecimal)]
    pub context: Option<Bytes>,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// `tidewater flag KEY [on|off]`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater flag maintenance          prints on or off
  tidewater flag maintenance on")]
pub struct FlagArgs {
    #[arg(value_name = "KEY", value_parser = bytes())]
    pub key: Bytes,
    /// The new state; absent: show it
    #[arg(value_enum, value_name = "STATE")]
    pub state: Option<FlagState>,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlagState {
    On,
    Off,
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

/// `tidewater tls`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater tls init --dir ca --cluster shop
  tidewater tls issue --dir ca --name n1 --role node --host n1.example.net
  tidewater tls issue --dir ca --name client --role client
  tidewater tls show --dir ca

Keep ca.key away from the nodes: whoever has it can make members of this cluster.")]
pub struct TlsArgs {
    #[command(subcommand)]
    pub verb: TlsVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum TlsVerb {
    /// Make the authority of a new cluster: ca.crt and ca.key
    Init(TlsInitArgs),
    /// Issue a certificate for a node or a client: NAME.crt and NAME.key
    Issue(TlsIssueArgs),
    /// Show the certificates of a folder: names, roles and when they end
    Show(TlsShowArgs),
}

#[derive(Args, Clone, Debug)]
pub struct TlsInitArgs {
    /// Where ca.crt and ca.key are written
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The cluster's name; certificates of another name are refused
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// How many days the authority lasts
    #[arg(long, value_name = "COUNT", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

#[derive(Args, Clone, Debug)]
pub struct TlsIssueArgs {
    /// The folder that holds ca.crt and ca.key
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The node's name as in node.toml, or the client's
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What the certificate is for
    #[arg(long, value_enum, value_name = "ROLE")]
    pub role: TlsRole,
    /// A host name or address at which Redis clients reach the node over TLS; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Where NAME.crt, NAME.key and a copy of ca.crt are written [default: --dir]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How many days it lasts
    #[arg(long, value_name = "COUNT", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
    /// Replace a certificate of this name
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsRole {
    Node,
    Client,
}

#[derive(Args, Clone, Debug)]
pub struct TlsShowArgs {
    #[arg(long, value_name = "DIR", default_value = "./tidewater-data/tls")]
    pub dir: PathBuf,
    /// The form of what is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// `tidewater demo`
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Where the demo's cluster is kept
    #[arg(long, value_name = "DIR", default_value = "./tidewater-demo")]
    pub data: PathBuf,
    /// Files and folders to import [default: the sources of the crates in the local cargo registry]
    #[arg(long = "from", value_name = "PATH")]
    pub from: Vec<PathBuf>,
    /// Import at most this many files
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    pub files: u32,
    /// RESP port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 7401)]
    pub resp_port: u16,
    /// QUIC port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 9401)]
    pub quic_port: u16,
    /// HTTP port of the first node
    #[arg(long, value_name = "PORT", default_value_t = 8401)]
    pub http_port: u16,
    /// Keep the data folder when done
    #[arg(long)]
    pub keep: bool,
}

/// `tidewater sim`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater sim                            the seeds 0 to 99, on all cores
  tidewater sim --seeds 0..10000 --jobs 2
  tidewater sim --seed 4711                one seed: its verdict, and the hash of its trace
  tidewater sim --seed 4711 --trace        the same, with one line for each event
  tidewater sim --seed 4711 --shrink       look for a smaller world that fails the same way

A seed holds a whole cluster, its clients and every fault. The same seed gives the same trace on
every machine. Exit code 1: a promise was broken, or a range of 1,000 seeds and more never met
some fault or rare path.")]
pub struct SimArgs {
    /// Run this seed alone
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "jobs"])]
    pub seed: Option<u64>,
    /// Run the seeds from A up to, but not with, B
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = seeds)]
    pub seeds: std::ops::Range<u64>,
    /// How many seeds at a time [default: one for each core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// End with the first seed that breaks a promise
    #[arg(long, conflicts_with = "seed")]
    pub first: bool,
    /// Print a line for each event
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// Look for a smaller world that fails the same way
    #[arg(long, requires = "seed")]
    pub shrink: bool,
    /// Worlds to try at most for --shrink
    #[arg(long, value_name = "COUNT", default_value_t = 500, requires = "shrink")]
    pub tries: u64,
    /// Which worlds: usual (anything), or one thing all the time: full_syncs, hints, removals, old_disks, lost_sources, retries or
    /// absences
    #[arg(long, value_name = "WORLDS", default_value = "usual", value_parser = aim)]
    pub aim: Aim,
    /// Break one rule of the nodes on purpose, to see whether it is seen: a name of those that an unknown one lists
    #[arg(long, value_name = "BUG", value_parser = planted)]
    pub plant: Option<Planted>,
    /// How long trouble lasts before all is healed, in simulated time, up to 10m
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = hurt)]
    pub hurt: Duration,
    /// The form of what is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

impl SimArgs {
    /// What `--hurt` is when nothing else is said.
    pub const HURT: Duration = Duration::from_secs(8);
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

/// Reads `0..10000`: at least one seed, at most ten million.
fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("'{text}' is not a range of seeds: use A..B with A below B, as 0..10000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let (from, to): (u64, u64) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    match to.checked_sub(from) {
        None | Some(0) => Err(wrong()),
        Some(count) if count > 10_000_000 => Err(format!("'{text}' are {count} seeds: use at most 10000000 at a time")),
        Some(_) => Ok(from..to),
    }
}

/// A time of trouble: 100 ms to 10 minutes.
fn hurt(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&time) {
        Ok(time)
    } else {
        Err(format!("'{text}' is not between 100ms and 10m"))
    }
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

fn decimal(text: &str) -> Result<Decimal, String> {
    Decimal::parse(text.as_bytes())
        .ok_or_else(|| format!("'{text}' is not a number: use an integer or a decimal number"))
}

fn op_id(text: &str) -> Result<OpId, String> {
    OpId::parse(text).ok_or_else(|| format!("'{text}' is not a version 7 UUID"))
}

fn hexadecimal(text: &str) -> Result<Bytes, String> {
    let wrong = || format!("'{text}' is not a context: give the hexadecimal digits that `siblings get` printed");
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong()));
    pairs.collect::<Result<Vec<u8>, String>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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
        let Verb::Keys(KeysVerb::Incr(args)) = cli.verb else { panic!("incr") };
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
