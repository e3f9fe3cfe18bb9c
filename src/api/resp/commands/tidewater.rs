//! `TW.*`: what Redis has no words for: consistency chosen per connection or command, receipts, siblings, operation ids, flags.

use bytes::Bytes;

use super::{
    Command, DENYOOM, FAST, LOADING, MOVABLE, READ, STALE, WRITE, barrier, integer_or, is, keyed, plain, word,
};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::{Plan, Terms, unexpected};
use crate::api::resp::refusal::{self, Refusal, SYNTAX};
use crate::api::resp::session::{Call, Facts, parse_op_id};
use crate::data::consistency::{Consistency, Level, Receipt};
use crate::data::id::NodeId;
use crate::data::op::{Key, Op, Reply};
use crate::ring::layout::Layout;

/// No deadline is further away than this, in milliseconds.
const TIMEOUT_MAX_MS: i64 = 600_000;

pub const COMMANDS: &[Command] = &[
    plain(
        "tw.consistency",
        -1,
        LOADING | STALE | FAST,
        "tidewater",
        "Show or choose the connection's consistency",
        consistency,
    ),
    plain("tw.with", -3, MOVABLE, "tidewater", "Choose the consistency of one command", wrapper),
    plain("tw.id", -4, MOVABLE, "tidewater", "Name one command's effect across retries", wrapper),
    barrier(plain("tw.receipt", 1, LOADING | STALE | FAST, "tidewater", "What the last command achieved", receipt)),
    keyed("tw.where", 2, READ | FAST, "tidewater", "Where a key lives, and who is up", whereabouts),
    keyed("tw.get", 2, READ | FAST, "tidewater", "Get all siblings and their context", get),
    keyed("tw.put", -3, WRITE | DENYOOM | FAST, "tidewater", "Put a value in place of the siblings seen", put),
    keyed("tw.flag", -2, WRITE | FAST, "tidewater", "Read or set a flag in which on wins", flag),
    plain("tw.help", -1, LOADING | STALE | FAST, "tidewater", "These commands", help),
];

const HELP: &[&str] = &[
    "TW.CONSISTENCY [READ level] [WRITE level] [DURABLE level|none] [ZONES n] [OWNERS yes|no] [TIMEOUT ms]",
    "    For this connection; without arguments shows what is chosen.",
    "    level: any (writes only), one, two, three, quorum, all, local-quorum, each-quorum or a number.",
    "TW.WITH <the same options> -- <command>",
    "    For one command.",
    "TW.ID <UUIDv7> -- <command>",
    "    The command's effect happens once, however often it is sent with this id.",
    "TW.RECEIPT",
    "    Who acknowledged the last command of this connection, who is missing, what was repaired.",
    "TW.WHERE key",
    "    Slot, partition, owners and stand-ins of a key.",
    "TW.GET key",
    "    All concurrent values, and the context that stands for having seen them.",
    "TW.PUT key value [CONTEXT context]",
    "    Replaces the values that the context has seen; without it adds one beside them.",
    "TW.FLAG key [ON|OFF]",
    "    A flag; switching on wins over a concurrent switching off. Answers the former state.",
];

/// Owners of a key in this cluster.
fn replicas(facts: &dyn Facts) -> u8 {
    let (layout, _) = facts.layout();
    layout.replicas.min(u8::try_from(layout.members.len()).unwrap_or(u8::MAX))
}

/// Reads options into `consistency` and `timeout_ms`; nothing is changed when any is refused.
fn options(
    arguments: &[Bytes],
    consistency: &mut Consistency,
    timeout_ms: &mut u64,
    facts: &dyn Facts,
) -> Result<(), Refusal> {
    let mut chosen = *consistency;
    let mut timeout = *timeout_ms;
    let mut rest = arguments;
    while let [option, value, after @ ..] = rest {
        let text = String::from_utf8_lossy(&value[..value.len().min(64)]);
        let level = || text.parse::<Level>().map_err(|error| Refusal::from(format!("ERR {error}")));
        match word(option).as_str() {
            "READ" => chosen.read = level()?,
            "WRITE" => chosen.write = level()?,
            "DURABLE" if is(value, "none") => chosen.durable = None,
            "DURABLE" => chosen.durable = Some(level()?),
            "ZONES" => {
                chosen.zones = text.parse().map_err(|_| format!("ERR ZONES '{text}' is not a number from 1 to 255"))?;
            }
            "OWNERS" if is(value, "yes") => chosen.owners_only = true,
            "OWNERS" if is(value, "no") => chosen.owners_only = false,
            "OWNERS" => return Err(format!("ERR OWNERS '{text}' is neither yes nor no").into()),
            "TIMEOUT" => {
                const RANGE: &str = "ERR TIMEOUT is in milliseconds, from 1 to 600000";
                timeout = match integer_or(value, RANGE)? {
                    ms @ 1..=TIMEOUT_MAX_MS => ms as u64,
                    _ => return Err(RANGE.into()),
                };
            }
            other => return Err(unknown_option(other)),
        }
        rest = after;
    }
    if let [option] = rest {
        return Err(match word(option).as_str() {
            "READ" | "WRITE" | "DURABLE" | "ZONES" | "OWNERS" | "TIMEOUT" => SYNTAX.into(),
            other => unknown_option(other),
        });
    }
    chosen.check(replicas(facts)).map_err(|error| format!("ERR {error}"))?;
    *consistency = chosen;
    *timeout_ms = timeout;
    Ok(())
}

fn unknown_option(option: &str) -> Refusal {
    format!("ERR unknown option '{option}': use READ, WRITE, DURABLE, ZONES, OWNERS or TIMEOUT").into()
}

/// When `name` is a wrapper, takes its options into `terms` and tells how many arguments they were.
pub fn unwrap(
    name: &'static str,
    arguments: &[Bytes],
    terms: &mut Terms,
    facts: &dyn Facts,
) -> Result<Option<usize>, Refusal> {
    if name != "tw.with" && name != "tw.id" {
        return Ok(None);
    }
    let dashes = arguments.iter().position(|argument| argument.as_ref() == b"--");
    let Some(dashes) = dashes.filter(|dashes| dashes + 1 < arguments.len()) else {
        return Err(format!("ERR {} needs -- and then a command", name.to_ascii_uppercase()).into());
    };
    let given = &arguments[1..dashes];
    if name == "tw.with" {
        let mut timeout_ms = terms.timeout_us / 1_000;
        options(given, &mut terms.consistency, &mut timeout_ms, facts)?;
        terms.timeout_us = timeout_ms.saturating_mul(1_000);
    } else {
        let [id] = given else { return Err("ERR TW.ID takes one operation id before --".into()) };
        if terms.op_id.is_some() {
            return Err("ERR TW.ID is given twice".into());
        }
        terms.op_id = Some(parse_op_id(id)?);
    }
    Ok(Some(dashes + 1))
}

/// Never reached: [`unwrap`] takes wrappers off before a command runs.
fn wrapper(_: &mut Call<'_>) -> Result<Plan, Refusal> {
    Err(SYNTAX.into())
}

fn consistency(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let session = &mut *call.session;
    if call.arguments.len() > 1 {
        options(&call.arguments[1..], &mut session.consistency, &mut session.timeout_ms, call.facts)?;
        return Ok(Plan::Now(Frame::OK));
    }
    let Consistency { read, write, durable, zones, owners_only } = session.consistency;
    Ok(Plan::Now(Frame::map(vec![
        ("read", Frame::text(read.to_string())),
        ("write", Frame::text(write.to_string())),
        ("durable", Frame::text(durable.map_or("none".to_string(), |level| level.to_string()))),
        ("zones", Frame::Integer(i64::from(zones))),
        ("owners", Frame::text(if owners_only { "yes" } else { "no" })),
        ("timeout", Frame::Integer(i64::try_from(session.timeout_ms).unwrap_or(i64::MAX))),
    ])))
}

/// Names of nodes, by a layout.
struct Names<'a>(&'a Layout);

impl Names<'_> {
    fn node(&self, id: NodeId) -> Frame {
        match self.0.members.iter().find(|member| member.id == id) {
            Some(member) => Frame::text(member.name.clone()),
            None => Frame::text(id.to_string()),
        }
    }

    fn nodes(&self, ids: &[NodeId]) -> Frame {
        Frame::Array(ids.iter().map(|id| self.node(*id)).collect())
    }

    fn zone(&self, id: NodeId) -> Frame {
        let member = self.0.members.iter().find(|member| member.id == id);
        Frame::text(member.map_or(String::new(), |member| member.zone.clone()))
    }
}

fn receipt(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let Some((receipt, requests)) = &call.session.receipt else { return Ok(Plan::Now(Frame::Null)) };
    let Receipt {
        coordinator,
        layout,
        acks,
        needed,
        missing,
        disagreed,
        repaired,
        stamped_again,
        duplicate,
        unchanged,
        doubted,
        took_us,
    } = receipt;
    let (members, _) = call.facts.layout();
    let names = Names(&members);
    let acks = acks.iter().map(|ack| {
        Frame::map(vec![
            ("node", names.node(ack.node)),
            ("zone", names.zone(ack.node)),
            ("kind", Frame::text(if ack.stand_in_for.is_none() { "owner" } else { "stand-in" })),
            ("for", ack.stand_in_for.map_or(Frame::Null, |owner| names.node(owner))),
            ("fsynced", Frame::Boolean(ack.fsynced)),
        ])
    });
    Ok(Plan::Now(Frame::map(vec![
        ("coordinator", coordinator.map_or(Frame::Null, |id| names.node(id))),
        ("layout", Frame::Integer(*layout as i64)),
        ("needed", Frame::Integer(i64::from(*needed))),
        ("acks", Frame::Array(acks.collect())),
        ("missing", names.nodes(missing)),
        ("disagreed", names.nodes(disagreed)),
        ("repaired", names.nodes(repaired)),
        ("stamped-again", Frame::Boolean(*stamped_again)),
        ("duplicate", Frame::Boolean(*duplicate)),
        ("unchanged", Frame::Boolean(*unchanged)),
        ("doubted", Frame::Integer(i64::from(*doubted))),
        ("took-us", Frame::Integer(i64::try_from(*took_us).unwrap_or(i64::MAX))),
        // Of a command over several keys this is the weakest of so many receipts.
        ("requests", Frame::Integer(*requests as i64)),
    ])))
}

fn whereabouts(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let found = call.facts.whereabouts(&Key::new(call.arguments[1].clone()));
    let nodes = found.nodes.into_iter().map(|(_, name, zone, owner, up)| {
        Frame::map(vec![
            ("node", Frame::text(name)),
            ("zone", Frame::text(zone)),
            ("kind", Frame::text(if owner { "owner" } else { "stand-in" })),
            ("up", Frame::Boolean(up)),
        ])
    });
    Ok(Plan::Now(Frame::map(vec![
        ("slot", Frame::Integer(i64::from(found.slot))),
        ("partition", Frame::Integer(i64::from(found.partition.0))),
        ("layout", Frame::Integer(found.layout as i64)),
        ("nodes", Frame::Array(nodes.collect())),
    ])))
}

/// The values, then the context as hexadecimal text.
fn siblings(reply: Reply) -> Frame {
    match reply {
        Reply::Siblings { values, context } => {
            let context: String = context.iter().map(|byte| format!("{byte:02x}")).collect();
            Frame::Array(vec![Frame::Array(Frame::bulks(values)), Frame::text(context)])
        }
        other => unexpected(&other),
    }
}

fn get(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::one(&call.arguments[1], Op::SiblingsGet, siblings))
}

fn put(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let context = match &call.arguments[3..] {
        [] => None,
        [option, text] if is(option, "CONTEXT") => {
            let unread = || refusal::of(&crate::data::op::RequestError::BadContext);
            Some(context(text).ok_or_else(unread)?).filter(|context| !context.is_empty())
        }
        _ => return Err(SYNTAX.into()),
    };
    let value = call.arguments[2].clone();
    Ok(Plan::one(&call.arguments[1], Op::SiblingsPut { value, context }, siblings))
}

/// A context from its hexadecimal text.
fn context(text: &[u8]) -> Option<Bytes> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.chunks_exact(2).map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect()
}

fn flag(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let op = match &call.arguments[2..] {
        [] => Op::FlagGet,
        [state] if is(state, "on") => Op::FlagSet { on: true },
        [state] if is(state, "off") => Op::FlagSet { on: false },
        _ => return Err(SYNTAX.into()),
    };
    Ok(Plan::one(&call.arguments[1], op, |reply| match reply {
        Reply::Bool(on) => Frame::Boolean(on),
        other => unexpected(&other),
    }))
}

fn help(_: &mut Call<'_>) -> Result<Plan, Refusal> {
    Ok(Plan::Now(Frame::Array(HELP.iter().map(|line| Frame::Simple(line)).collect())))
}
