//! The verbs that ask about one key or a few.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};

use super::{RequestArgs, bytes, duration};
use crate::data::decimal::Decimal;

const WHERE_EXAMPLES: &str = "\
Examples:
  tidewater where user:17
  tidewater where '{cart}:17' --output json      keys with one {tag} live together";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidewater explain user:17
  tidewater explain user:17 --output json | jq '.nodes[].rows'

A delete row is kept until no older write of the key can come any more; explain names the node that
it waits for.";

/// The verbs that ask about one key or a few.
#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// Show where a key lives: slot, partition, owners and stand-ins
    #[command(after_help = WHERE_EXAMPLES)]
    Where(KeyArgs),
    /// Show what every node knows of a key: rows, hints, and what a delete row waits for
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(KeyArgs),
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
            KeysVerb::Get(args) => &args.request,
            KeysVerb::Put(args) => &args.request,
            KeysVerb::Del(args) => &args.request,
            KeysVerb::Where(args)
            | KeysVerb::Explain(args)
            | KeysVerb::Exists(args)
            | KeysVerb::Ttl(args)
            | KeysVerb::Smembers(args)
            | KeysVerb::Hgetall(args) => &args.request,
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

/// A verb with just a key.
#[derive(Args, Clone, Debug)]
pub struct KeyArgs {
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

fn decimal(text: &str) -> Result<Decimal, String> {
    Decimal::parse(text.as_bytes())
        .ok_or_else(|| format!("'{text}' is not a number: use an integer or a decimal number"))
}

fn hexadecimal(text: &str) -> Result<Bytes, String> {
    let wrong = || format!("'{text}' is not a context: give the hexadecimal digits that `siblings get` printed");
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong()));
    pairs.collect::<Result<Vec<u8>, String>>().map(Bytes::from)
}
