//! `CLIENT`: a connection about itself and the others.

use std::sync::atomic::Ordering;

use super::{
    Command, LOADING, STALE, all, integer_or, is, plain, server::set_name, subcommand_arity, unknown_subcommand, word,
};
use crate::api::resp::frame::Frame;
use crate::api::resp::plan::Plan;
use crate::api::resp::refusal::{Refusal, SYNTAX};
use crate::api::resp::session::{Call, Client, ReplyMode};

pub const COMMANDS: &[Command] =
    &[plain("client", -2, LOADING | STALE, "connection", "About this connection and the others", client)];

fn client(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let own = call.session.client.clone();
    let rest = &call.arguments[2..];
    let frame = match word(&call.arguments[1]).as_str() {
        "ID" => {
            subcommand_arity(call, 2..=2)?;
            Frame::Integer(own.id as i64)
        }
        "GETNAME" => {
            subcommand_arity(call, 2..=2)?;
            match own.texts().name {
                name if name.is_empty() => Frame::Null,
                name => Frame::text(name),
            }
        }
        "SETNAME" => {
            subcommand_arity(call, 3..=3)?;
            set_name(&own, &rest[0])?;
            Frame::OK
        }
        "SETINFO" => {
            subcommand_arity(call, 4..=4)?;
            set_info(&own, &rest[0], &rest[1])?;
            Frame::OK
        }
        "INFO" => {
            subcommand_arity(call, 2..=2)?;
            Frame::Verbatim(line(&own, call.facts.wall_ms()) + "\n")
        }
        "LIST" => list(call, rest)?,
        "REPLY" => {
            subcommand_arity(call, 3..=3)?;
            call.session.reply_mode = match word(&rest[0]).as_str() {
                "ON" => ReplyMode::On,
                "OFF" => ReplyMode::Off,
                "SKIP" if call.session.reply_mode == ReplyMode::Off => ReplyMode::Off,
                "SKIP" => ReplyMode::SkipNext,
                _ => return Err(SYNTAX.into()),
            };
            Frame::OK
        }
        "NO-EVICT" | "NO-TOUCH" => {
            subcommand_arity(call, 3..=3)?;
            match word(&rest[0]).as_str() {
                "ON" | "OFF" => Frame::OK,
                _ => return Err(SYNTAX.into()),
            }
        }
        "TRACKING" | "CACHING" | "TRACKINGINFO" | "GETREDIR" => {
            return Err("ERR CLIENT TRACKING is not supported: nodes do not watch keys for clients".into());
        }
        "KILL" | "PAUSE" | "UNPAUSE" | "UNBLOCK" => {
            return Err(
                "ERR CLIENT KILL, PAUSE and UNBLOCK are not supported: connections end by themselves or with the node"
                    .into(),
            );
        }
        "HELP" => Frame::Array(
            [
                "CLIENT ID",
                "CLIENT GETNAME",
                "CLIENT SETNAME <name>",
                "CLIENT SETINFO <option> <value>",
                "CLIENT INFO",
                "CLIENT LIST",
                "CLIENT REPLY (ON|OFF|SKIP)",
            ]
            .into_iter()
            .map(Frame::Simple)
            .collect(),
        ),
        _ => return Err(unknown_subcommand(call)),
    };
    Ok(Plan::Now(frame))
}

fn set_info(own: &Client, option: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let (library, what) = match word(option).as_str() {
        "LIB-NAME" => (true, "lib-name"),
        "LIB-VER" => (false, "lib-ver"),
        _ => return Err(format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(option)).into()),
    };
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(format!("ERR {what} cannot contain spaces, newlines or special characters.").into());
    }
    let value = String::from_utf8_lossy(value).into_owned();
    own.tell(|texts| if library { texts.library = value } else { texts.library_version = value });
    Ok(())
}

fn list(call: &Call<'_>, options: &[bytes::Bytes]) -> Result<Frame, Refusal> {
    let ids: Option<Vec<u64>> = match options {
        [] => None,
        [option, kind] if is(option, "TYPE") => match word(kind).as_str() {
            "NORMAL" => None,
            "MASTER" | "REPLICA" | "SLAVE" | "PUBSUB" => Some(Vec::new()),
            other => return Err(format!("ERR Unknown client type '{other}'").into()),
        },
        [option, ids @ ..] if is(option, "ID") && !ids.is_empty() => Some(
            ids.iter()
                .map(|id| integer_or(id, "ERR Invalid client ID").map(|id| id as u64))
                .collect::<Result<Vec<u64>, Refusal>>()?,
        ),
        _ => return Err(SYNTAX.into()),
    };
    let now = call.facts.wall_ms();
    let clients = call.server.clients();
    let wanted = clients.iter().filter(|client| ids.as_ref().is_none_or(|ids| ids.contains(&client.id)));
    Ok(Frame::Verbatim(wanted.map(|client| line(client, now) + "\n").collect()))
}

/// One connection in the format of Redis; what has no meaning here is told as Redis tells it when unused.
fn line(client: &Client, now_ms: u64) -> String {
    let texts = client.texts();
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1_000;
    let command = all().get(client.command.load(Ordering::Relaxed)).map_or("NULL", |command| command.name);
    format!(
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 events=r cmd={command} \
         user=default redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.peer,
        client.local,
        texts.name,
        seconds(client.since_ms),
        seconds(client.active_ms.load(Ordering::Relaxed)),
        if texts.three { 3 } else { 2 },
        texts.library,
        texts.library_version,
    )
}
