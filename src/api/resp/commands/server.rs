//! The connection itself, and what a client asks about the server before it trusts it.

use bytes::Bytes;

use super::{
    Command, FAST, LOADING, NO_AUTH, NOSCRIPT, READ, STALE, all, barrier, find, integer, integer_or, is, plain,
    subcommand_arity, unknown_subcommand, word,
};
use crate::api::resp::frame::{Frame, Version};
use crate::api::resp::glob;
use crate::api::resp::plan::Plan;
use crate::api::resp::refusal::{self, Refusal, SYNTAX, WRONG_PASSWORD};
use crate::api::resp::session::{Call, Client};

/// The Redis whose commands these are: clients ask it to know what they may use.
pub const REDIS_VERSION: &str = "7.2.4";

pub const COMMANDS: &[Command] = &[
    plain("ping", -1, FAST, "connection", "Is the server there?", ping),
    plain("echo", 2, LOADING | STALE | FAST, "connection", "Say it back", echo),
    plain("hello", -1, FREE, "connection", "Choose the protocol, authenticate, take a name", hello),
    plain("auth", -2, FREE, "connection", "Authenticate", auth),
    plain("quit", -1, FREE, "connection", "Close the connection", quit),
    plain("reset", 1, FREE, "connection", "Begin anew", reset),
    plain("select", 2, LOADING | STALE | FAST, "connection", "Choose database 0, the only one", select),
    plain("readonly", 1, LOADING | STALE | FAST, "cluster", "Accepted: every node answers reads anyway", fine),
    plain("readwrite", 1, LOADING | STALE | FAST, "cluster", "Accepted: every node answers writes anyway", fine),
    plain("asking", 1, FAST, "cluster", "Accepted: no node ever redirects", fine),
    barrier(plain("wait", 3, NOSCRIPT, "generic", "Acknowledgements that the last writes had", wait)),
    plain("time", 1, LOADING | STALE | FAST, "server", "The node's clock", time),
    plain("lolwut", -1, READ | FAST, "server", "The version, with a view", lolwut),
    plain("command", -1, LOADING | STALE, "server", "What the commands are", command),
    plain("config", -2, LOADING | STALE, "server", "Read settings", config),
];

const FREE: super::Flags = NOSCRIPT | LOADING | STALE | FAST | NO_AUTH;

fn now(frame: Frame) -> Result<Plan, Refusal> {
    Ok(Plan::Now(frame))
}

fn fine(_: &mut Call<'_>) -> Result<Plan, Refusal> {
    now(Frame::OK)
}

fn ping(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    match call.arguments {
        [_] => now(Frame::Simple("PONG")),
        [_, message] => now(Frame::Bulk(message.clone())),
        _ => Err(refusal::wrong_arity("ping")),
    }
}

fn echo(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    now(Frame::Bulk(call.arguments[1].clone()))
}

/// Compares without telling by its time where the first difference is.
fn equal(given: &[u8], wanted: &[u8]) -> bool {
    let mut difference = given.len() ^ wanted.len();
    for (at, byte) in given.iter().enumerate() {
        difference |= usize::from(byte ^ wanted.get(at).copied().unwrap_or(0));
    }
    difference == 0
}

/// Lets the connection in when user and password are right.
fn authenticate(call: &mut Call<'_>, user: &[u8], password: &[u8]) -> Result<(), Refusal> {
    let passwords = &call.server.options.passwords;
    // All are compared, whichever fits.
    let fits = passwords.iter().fold(false, |fits, wanted| fits | equal(password, wanted.as_bytes()));
    if user != b"default" || !(fits || passwords.is_empty()) {
        return Err(WRONG_PASSWORD.into());
    }
    call.session.authenticated = true;
    Ok(())
}

fn auth(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    match call.arguments {
        [_, _] if call.server.options.passwords.is_empty() => {
            Err("ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?"
                .into())
        }
        [_, password] => authenticate(call, b"default", password).and_then(|()| now(Frame::OK)),
        [_, user, password] => authenticate(call, user, password).and_then(|()| now(Frame::OK)),
        _ => Err(SYNTAX.into()),
    }
}

fn hello(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let mut version = call.session.version;
    let mut name: Option<&Bytes> = None;
    let mut credentials: Option<(&Bytes, &Bytes)> = None;
    if let Some(asked) = call.arguments.get(1) {
        version = match integer_or(asked, "ERR Protocol version is not an integer or out of range")? {
            2 => Version::Two,
            3 => Version::Three,
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
        let mut options = &call.arguments[2..];
        while let [option, rest @ ..] = options {
            options = match rest {
                [user, password, rest @ ..] if is(option, "AUTH") => {
                    credentials = Some((user, password));
                    rest
                }
                [given, rest @ ..] if is(option, "SETNAME") => {
                    name = Some(given);
                    rest
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
                }
            };
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(call, user, password)?;
    }
    if !call.session.authenticated {
        return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                    <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
                    same time"
            .into());
    }
    if let Some(name) = name {
        set_name(&call.session.client, name)?;
    }
    call.session.version = version;
    call.session.client.tell(|texts| texts.three = version == Version::Three);
    now(Frame::map(vec![
        ("server", Frame::text("redis")),
        ("version", Frame::text(REDIS_VERSION)),
        ("proto", Frame::Integer(if version == Version::Three { 3 } else { 2 })),
        ("id", Frame::Integer(call.session.client.id as i64)),
        ("mode", Frame::text("cluster")),
        ("role", Frame::text("master")),
        ("modules", Frame::Array(Vec::new())),
    ]))
}

/// Names the connection, as `CLIENT SETNAME` and `HELLO` do.
pub fn set_name(client: &Client, name: &[u8]) -> Result<(), Refusal> {
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err("ERR Client names cannot contain spaces, newlines or special characters.".into());
    }
    client.tell(|texts| texts.name = String::from_utf8_lossy(name).into_owned());
    Ok(())
}

fn quit(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    call.session.closing = true;
    now(Frame::OK)
}

fn reset(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    call.session.reset(&call.server.options);
    now(Frame::Simple("RESET"))
}

fn select(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    match integer(&call.arguments[1])? {
        0 => now(Frame::OK),
        _ => Err("ERR DB index is out of range".into()),
    }
}

/// Waiting changes nothing here: a write is answered when as many replicas have it as was asked for, and what it then had is what is
/// told: the least over the writes of this connection since the last `WAIT`, the coordinator not counted.
fn wait(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    integer(&call.arguments[1])?;
    if integer_or(&call.arguments[2], "ERR timeout is not an integer or out of range")? < 0 {
        return Err("ERR timeout is negative".into());
    }
    let acks = call.session.acks_least.take().unwrap_or(0);
    now(Frame::Integer(acks.saturating_sub(1) as i64))
}

fn time(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let ms = call.facts.wall_ms();
    let texts = [(ms / 1_000).to_string(), (ms % 1_000 * 1_000).to_string()];
    now(Frame::Array(texts.into_iter().map(Frame::text).collect()))
}

fn lolwut(_: &mut Call<'_>) -> Result<Plan, Refusal> {
    let tide = "   ~    ~  ~\n ~   ~~~    ~~~   ~\n~~~~~    ~~~    ~~~~~~\n";
    now(Frame::Verbatim(format!("{tide}Tidewater ver. {}\n", env!("CARGO_PKG_VERSION"))))
}

/// One command as `COMMAND` tells it. Its flags and key positions are what cluster-aware clients route by.
fn described(command: &Command) -> Frame {
    let (first, last, step) = command.keys;
    Frame::Array(vec![
        Frame::text(command.name),
        Frame::Integer(command.arity),
        Frame::Set(command.flag_names().map(Frame::Simple).collect()),
        Frame::Integer(first),
        Frame::Integer(last),
        Frame::Integer(step),
        Frame::Set(command.categories().into_iter().map(Frame::Simple).collect()),
        Frame::Array(Vec::new()),
        Frame::Array(key_specs(command)),
        Frame::Array(Vec::new()),
    ])
}

fn key_specs(command: &Command) -> Vec<Frame> {
    let (first, last, step) = command.keys;
    if first == 0 {
        return Vec::new();
    }
    let access = if command.has(super::WRITE) { "RW" } else { "RO" };
    // Relative to the first key, negative ones to the end.
    let last = if last < 0 { last } else { last - first };
    vec![Frame::map(vec![
        ("flags", Frame::Set(vec![Frame::Simple(access), Frame::Simple("access")])),
        (
            "begin_search",
            Frame::map(vec![
                ("type", Frame::text("index")),
                ("spec", Frame::map(vec![("index", Frame::Integer(first))])),
            ]),
        ),
        (
            "find_keys",
            Frame::map(vec![
                ("type", Frame::text("range")),
                (
                    "spec",
                    Frame::map(vec![
                        ("lastkey", Frame::Integer(last)),
                        ("keystep", Frame::Integer(step)),
                        ("limit", Frame::Integer(0)),
                    ]),
                ),
            ]),
        ),
    ])]
}

fn documented(command: &Command) -> (Frame, Frame) {
    let documents = vec![
        ("summary", Frame::text(command.summary)),
        ("since", Frame::text("1.0.0")),
        ("group", Frame::text(command.group)),
    ];
    (Frame::text(command.name), Frame::map(documents))
}

fn command(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let Some(subcommand) = call.arguments.get(1) else {
        return now(Frame::Array(all().iter().map(|command| described(command)).collect()));
    };
    let rest = &call.arguments[2..];
    match word(subcommand).as_str() {
        "COUNT" => {
            subcommand_arity(call, 2..=2)?;
            now(Frame::Integer(all().len() as i64))
        }
        "INFO" if rest.is_empty() => now(Frame::Array(all().iter().map(|command| described(command)).collect())),
        "INFO" => now(Frame::Array(
            rest.iter().map(|name| find(name).map_or(Frame::NullArray, |(_, command)| described(command))).collect(),
        )),
        "DOCS" if rest.is_empty() => now(Frame::Map(all().iter().map(|command| documented(command)).collect())),
        "DOCS" => {
            now(Frame::Map(rest.iter().filter_map(|name| find(name)).map(|(_, command)| documented(command)).collect()))
        }
        "LIST" => match rest {
            [] => now(Frame::Array(all().iter().map(|command| Frame::text(command.name)).collect())),
            [filter, by, pattern] if is(filter, "FILTERBY") && is(by, "PATTERN") => {
                let named = all().iter().filter(|command| glob::matches(pattern, command.name.as_bytes()));
                now(Frame::Array(named.map(|command| Frame::text(command.name)).collect()))
            }
            _ => Err(SYNTAX.into()),
        },
        "GETKEYS" => {
            subcommand_arity(call, 3..)?;
            keys_of(rest)
        }
        "HELP" => now(Frame::Array(
            [
                "COMMAND",
                "COMMAND COUNT",
                "COMMAND INFO [name ...]",
                "COMMAND DOCS [name ...]",
                "COMMAND LIST",
                "COMMAND GETKEYS <command>",
            ]
            .into_iter()
            .map(Frame::Simple)
            .collect(),
        )),
        _ => Err(unknown_subcommand(call)),
    }
}

/// The keys of a command line, wrappers (`TW.WITH ... -- GET a`) looked through.
fn keys_of(line: &[Bytes]) -> Result<Plan, Refusal> {
    let (_, found) = find(&line[0]).ok_or("ERR Invalid command specified")?;
    if found.has(super::MOVABLE) && found.group == "tidewater" {
        let inner = line.iter().position(|word| word.as_ref() == b"--").map(|at| &line[at + 1..]);
        return match inner {
            Some(inner @ [_, ..]) => keys_of(inner),
            _ => Err("ERR The command has no key arguments".into()),
        };
    }
    let count = line.len() as i64;
    if (found.arity > 0 && count != found.arity) || count < -found.arity {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let keys: Vec<Bytes> = if found.name == "sintercard" {
        let count = integer(&line[1]).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        line[2..].iter().take(count).cloned().collect()
    } else {
        line.iter().enumerate().filter(|(at, _)| found.is_key(*at)).map(|(_, key)| key.clone()).collect()
    };
    if keys.is_empty() {
        return Err("ERR The command has no key arguments".into());
    }
    now(Frame::Array(Frame::bulks(keys)))
}

fn config(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    match word(&call.arguments[1]).as_str() {
        "GET" => {
            subcommand_arity(call, 3..)?;
            let options = &call.server.options;
            // What tools ask: redis-benchmark, monitoring, client libraries. Settings of Redis that mean nothing here are told as
            // Redis tells them when off.
            let settings = [
                ("appendonly", "no".to_string()),
                ("cluster-enabled", "yes".to_string()),
                ("databases", "1".to_string()),
                ("maxclients", options.max_connections.to_string()),
                ("maxmemory", "0".to_string()),
                ("maxmemory-policy", "noeviction".to_string()),
                ("notify-keyspace-events", String::new()),
                ("port", call.server.port.to_string()),
                ("proto-max-bulk-len", options.value_size_max.to_string()),
                ("save", String::new()),
                ("timeout", "0".to_string()),
            ];
            let patterns = &call.arguments[2..];
            let wanted = settings.into_iter().filter(|(name, _)| {
                patterns.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
            });
            now(Frame::map(wanted.map(|(name, value)| (name, Frame::text(value))).collect()))
        }
        "SET" | "REWRITE" => {
            Err("ERR CONFIG SET is not supported: settings are in the node's configuration file; change it \
                                  and restart the node"
                .into())
        }
        "RESETSTAT" => {
            Err("ERR CONFIG RESETSTAT is not supported: counters only grow; compare two readings of INFO".into())
        }
        "HELP" => now(Frame::Array(vec![Frame::Simple("CONFIG GET <pattern>")])),
        _ => Err(unknown_subcommand(call)),
    }
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn passwords_are_compared_whole() {
        assert!(equal(b"secret", b"secret"));
        for other in [&b"secre"[..], b"secrets", b"Secret", b""] {
            assert!(!equal(other, b"secret"));
        }
        assert!(!equal(b"secret\0", b"secret"));
    }
}
