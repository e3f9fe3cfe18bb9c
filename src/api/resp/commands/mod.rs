//! The commands, one family a file: each turns arguments into a [`Plan`] and knows nothing of connections or the door.
//!
//! A family's `COMMANDS` say what clients are told by `COMMAND` (arity, flags, key positions: what cluster-aware clients route by)
//! beside the function that is run. Semantics and texts are those of Redis 7; where the cluster cannot keep them, the command is
//! refused in `refused.rs` with the reason.

pub mod client;
pub mod cluster;
pub mod counters;
pub mod hashes;
pub mod info;
pub mod keys;
pub mod refused;
pub mod scan;
pub mod server;
pub mod sets;
pub mod strings;
pub mod tidewater;

use std::sync::LazyLock;

use bytes::Bytes;

use crate::api::resp::plan::Plan;
use crate::api::resp::refusal::{self, Refusal};
use crate::api::resp::session::Call;
use crate::data::decimal::Decimal;

/// What is run.
pub type Handler = fn(&mut Call<'_>) -> Result<Plan, Refusal>;

/// Flags, as bits.
pub type Flags = u16;
pub const WRITE: Flags = 1;
pub const READ: Flags = 1 << 1;
pub const FAST: Flags = 1 << 2;
/// Needs room: Redis refuses it when out of memory.
pub const DENYOOM: Flags = 1 << 3;
pub const ADMIN: Flags = 1 << 4;
/// Allowed before `AUTH`.
pub const NO_AUTH: Flags = 1 << 5;
/// Its keys are where `COMMAND GETKEYS` says.
pub const MOVABLE: Flags = 1 << 6;
pub const LOADING: Flags = 1 << 7;
pub const STALE: Flags = 1 << 8;
pub const NOSCRIPT: Flags = 1 << 9;

const FLAG_NAMES: [(Flags, &str); 10] = [
    (WRITE, "write"),
    (READ, "readonly"),
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (NOSCRIPT, "noscript"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
    (MOVABLE, "movablekeys"),
];

/// One command as clients and the dispatcher know it.
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least so many.
    pub arity: i64,
    pub flags: Flags,
    /// First and last key position and the step between; 0 0 0: no keys. A negative last counts from the end.
    pub keys: (i64, i64, i64),
    /// Redis's name of the family: `string`, `set`, `hash`, `generic`, `connection`, `server`, `cluster`, `tidewater`.
    pub group: &'static str,
    pub summary: &'static str,
    pub handler: Handler,
    /// Waits until everything before it is answered, and everything after it waits for it.
    pub barrier: bool,
}

impl Command {
    pub fn has(&self, flag: Flags) -> bool {
        self.flags & flag != 0
    }

    /// Is the argument at this place a key?
    pub fn is_key(&self, at: usize) -> bool {
        let (first, last, step) = self.keys;
        let at = at as i64;
        first > 0 && at >= first && (last < 0 || at <= last) && (at - first) % step.max(1) == 0
    }

    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> {
        FLAG_NAMES.into_iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }

    /// Access control categories, in Redis's names.
    pub fn categories(&self) -> Vec<&'static str> {
        let family = match self.group {
            "string" => Some("@string"),
            "set" => Some("@set"),
            "hash" => Some("@hash"),
            "generic" => Some("@keyspace"),
            "connection" => Some("@connection"),
            _ => None,
        };
        let speed = if self.has(FAST) { "@fast" } else { "@slow" };
        let access = [(WRITE, "@write"), (READ, "@read"), (ADMIN, "@admin")];
        let access = access.into_iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| name);
        family.into_iter().chain(access).chain([speed]).collect()
    }
}

/// A command without keys.
const fn plain(
    name: &'static str,
    arity: i64,
    flags: Flags,
    group: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Command {
    Command { name, arity, flags, keys: (0, 0, 0), group, summary, handler, barrier: false }
}

/// A command of one key, its first argument.
const fn keyed(
    name: &'static str,
    arity: i64,
    flags: Flags,
    group: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Command {
    Command { name, arity, flags, keys: (1, 1, 1), group, summary, handler, barrier: false }
}

/// A command of several keys, from the first argument on.
const fn multi(
    name: &'static str,
    arity: i64,
    flags: Flags,
    step: i64,
    group: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Command {
    Command { name, arity, flags, keys: (1, -1, step), group, summary, handler, barrier: false }
}

const fn barrier(command: Command) -> Command {
    Command { barrier: true, ..command }
}

/// All commands by name.
static ALL: LazyLock<Vec<&'static Command>> = LazyLock::new(|| {
    let families: [&'static [Command]; 11] = [
        strings::COMMANDS,
        counters::COMMANDS,
        sets::COMMANDS,
        hashes::COMMANDS,
        keys::COMMANDS,
        scan::COMMANDS,
        server::COMMANDS,
        info::COMMANDS,
        client::COMMANDS,
        cluster::COMMANDS,
        tidewater::COMMANDS,
    ];
    let mut all: Vec<&'static Command> = families.into_iter().flatten().collect();
    all.sort_unstable_by_key(|command| command.name);
    all
});

/// All commands, sorted by name.
pub fn all() -> &'static [&'static Command] {
    &ALL
}

/// The command called `name` in any case, and its place in [`all`].
pub fn find(name: &[u8]) -> Option<(usize, &'static Command)> {
    let mut lower = [0; 24];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let all = all();
    let place = all.binary_search_by(|command| command.name.as_bytes().cmp(lower)).ok()?;
    Some((place, all[place]))
}

/// What is said to a command that is not there: why, when Redis has it; else Redis's words, which tell the first 128 bytes.
pub fn unknown(arguments: &[Bytes]) -> Refusal {
    if let Some(refusal) = refused::reason(&arguments[0]) {
        return refusal;
    }
    let shown = |bytes: &[u8], most: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    let mut rest = String::new();
    for argument in &arguments[1..] {
        if rest.len() >= 128 {
            break;
        }
        rest.push_str(&format!("'{}' ", shown(argument, 128 - rest.len())));
    }
    format!("ERR unknown command '{}', with args beginning with: {rest}", shown(&arguments[0], 128)).into()
}

/// What is said to a subcommand that is not there.
pub fn unknown_subcommand(call: &Call<'_>) -> Refusal {
    let asked = String::from_utf8_lossy(&call.arguments[1][..call.arguments[1].len().min(128)]).into_owned();
    format!("ERR unknown subcommand '{asked}'. Try {} HELP.", call.name.to_ascii_uppercase()).into()
}

/// Is `argument` this word, in any case?
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// The word in upper case, for matching; too long ones match nothing.
pub fn word(argument: &[u8]) -> String {
    String::from_utf8_lossy(&argument[..argument.len().min(32)]).to_ascii_uppercase()
}

/// A 64-bit integer as Redis reads it, or `refusal`.
pub fn integer_or(argument: &[u8], refusal: &'static str) -> Result<i64, Refusal> {
    Decimal::parse_integer(argument).and_then(Decimal::to_integer).ok_or(Refusal::Borrowed(refusal))
}

/// A 64-bit integer as Redis reads it.
pub fn integer(argument: &[u8]) -> Result<i64, Refusal> {
    integer_or(argument, refusal::NOT_INTEGER)
}

/// A decimal number to add. Redis takes infinity for a number here and refuses what comes of it, in words of its own: `infinite`.
pub fn decimal(argument: &[u8], infinite: &'static str) -> Result<Decimal, Refusal> {
    let unsigned = argument.strip_prefix(b"-").or_else(|| argument.strip_prefix(b"+")).unwrap_or(argument);
    if is(unsigned, "inf") || is(unsigned, "infinity") {
        return Err(Refusal::Borrowed(infinite));
    }
    Decimal::parse(argument).ok_or(Refusal::Borrowed(refusal::NOT_FLOAT))
}

/// Refuses a subcommand with a wrong number of arguments, as `config|get`.
pub fn subcommand_arity(call: &Call<'_>, allowed: impl std::ops::RangeBounds<usize>) -> Result<(), Refusal> {
    if allowed.contains(&call.arguments.len()) {
        return Ok(());
    }
    let subcommand = String::from_utf8_lossy(&call.arguments[1]).to_ascii_lowercase();
    Err(refusal::wrong_arity(&format!("{}|{subcommand}", call.name)))
}

/// The values without repetitions, in the order of their first mention.
pub fn distinct(values: &[Bytes]) -> Vec<Bytes> {
    if values.len() == 1 {
        return values.to_vec();
    }
    let mut seen = std::collections::HashSet::with_capacity(values.len());
    values.iter().filter(|value| seen.insert(&***value)).cloned().collect()
}
