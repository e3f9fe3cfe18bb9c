//! The verbs about one key: ask, print, exit code. `--explain` tells the receipt on the standard error, so that the value alone is on
//! the standard output; `--output json` has both in one object.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use bytes::Bytes;
use serde_json::{Value, json};

use super::args::keys::{
    DelArgs, ExpireArgs, FieldsArgs, FlagArgs, FlagState, GetArgs, HsetArgs, IncrArgs, KeyArgs, KeysVerb, MembersArgs,
    PutArgs, SiblingsPutArgs, SiblingsVerb,
};
use super::args::{Output, RequestArgs};
use super::render::{self, Names, columns, json_bytes, text};
use super::{CliError, EXIT_ABSENT, connect, print};
use crate::client::{Answer, Client};
use crate::data::decimal::Decimal;
use crate::data::op::{Condition, Op, Reply, SetExpiry};
use crate::net::entropy;

/// Asks and prints.
///
/// # Errors
/// What the client or a node refused, with its exit code.
pub async fn run(verb: KeysVerb) -> Result<ExitCode, CliError> {
    check(&verb)?;
    let client = connect::for_request(verb.request()).await?;
    let done = match &verb {
        KeysVerb::Where(args) => whereabouts(&client, args).await,
        KeysVerb::Explain(args) => super::explain::run(&client, args).await,
        KeysVerb::Get(args) => get(&client, args).await,
        KeysVerb::Put(args) => put(&client, args).await,
        KeysVerb::Del(args) => del(&client, args).await,
        KeysVerb::Exists(args) => exists(&client, args).await,
        KeysVerb::Ttl(args) => ttl(&client, args).await,
        KeysVerb::Expire(args) => expire(&client, args).await,
        KeysVerb::Incr(args) => increment(&client, args, args.by).await,
        KeysVerb::Decr(args) => increment(&client, args, args.by.negated()).await,
        KeysVerb::Sadd(args) => members(&client, args, |members| Op::SetAdd { members }, "added").await,
        KeysVerb::Srem(args) => members(&client, args, |members| Op::SetRemove { members }, "removed").await,
        KeysVerb::Smembers(args) => set_members(&client, args).await,
        KeysVerb::Sismember(args) => set_contains(&client, args).await,
        KeysVerb::Hset(args) => hash_set(&client, args).await,
        KeysVerb::Hget(args) => hash_get(&client, args).await,
        KeysVerb::Hgetall(args) => hash_all(&client, args).await,
        KeysVerb::Hdel(args) => hash_remove(&client, args).await,
        KeysVerb::Siblings(args) => match &args.verb {
            SiblingsVerb::Get(args) => {
                let answer = ask(&client, &args.request, &args.key, Op::SiblingsGet).await?;
                siblings(&client, &args.request, &args.key, answer)
            }
            SiblingsVerb::Put(args) => siblings_put(&client, args).await,
        },
        KeysVerb::Flag(args) => flag(&client, args).await,
    };
    client.close();
    done
}

/// What clap cannot judge.
fn check(verb: &KeysVerb) -> Result<(), CliError> {
    match verb {
        KeysVerb::Hset(args) if args.pairs.len() % 2 != 0 => Err(CliError::usage(format!(
            "hset takes fields and values in turn; {} words were given: the last field has no value",
            args.pairs.len()
        ))),
        KeysVerb::Del(args) if args.keys.len() > 1 && args.request.op_id.is_some() => {
            Err(CliError::usage("--op-id names one change: delete one key with it"))
        }
        _ => Ok(()),
    }
}

/// One request under the name that was given, if one was.
async fn ask(client: &Client, request: &RequestArgs, key: &Bytes, op: Op) -> Result<Answer<Reply>, CliError> {
    let named = request.op_id.map(|op_id| client.named(op_id));
    Ok(named.as_ref().unwrap_or(client).request(key, op).await?)
}

/// What one answer looks like.
struct Shown {
    text: String,
    value: Value,
    absent: bool,
}

impl Shown {
    fn new(text: impl Into<String>, value: Value) -> Self {
        Self { text: text.into(), value, absent: false }
    }

    fn absent_when(self, absent: bool) -> Self {
        Self { absent, ..self }
    }

    /// Said on the standard error, and nothing on the standard output.
    fn absent() -> Self {
        Self { text: String::new(), value: Value::Null, absent: true }
    }
}

/// Prints an answer in the form asked for.
fn show<T>(
    client: &Client,
    request: &RequestArgs,
    key: &Bytes,
    read: bool,
    answer: &Answer<T>,
    shown: Shown,
) -> Result<ExitCode, CliError> {
    let (layout, _) = client.layout();
    let names = Names(&layout);
    match request.connect.output {
        Output::Text => {
            if shown.absent && shown.text.is_empty() {
                eprintln!("(not there)");
            } else {
                print(&format!("{}\n", shown.text))?;
            }
            if request.explain {
                eprint!("{}", render::receipt(answer, read, &request.consistency.consistency(), &names));
            }
        }
        Output::Json => {
            let object = json!({
                "key": json_bytes(key),
                "value": shown.value,
                "op_id": answer.op_id.map(|op_id| op_id.to_string()),
                "attempts": answer.attempts,
                "receipt": render::receipt_json(&answer.receipt, &names),
            });
            print(&format!("{object}\n"))?;
        }
    }
    Ok(ExitCode::from(if shown.absent { EXIT_ABSENT } else { super::EXIT_DONE }))
}

/// A bug, told: the reply is not what the operation promises.
fn odd(reply: &Reply) -> CliError {
    CliError::failed(format!("the node answered something that was not asked: {reply:?}"))
}

async fn get(client: &Client, args: &GetArgs) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, Op::Get).await?;
    let Reply::Value(value) = &answer.value else { return Err(odd(&answer.value)) };
    if let (true, Some(value)) = (args.raw, value) {
        let mut out = io::stdout().lock();
        out.write_all(value).and_then(|()| out.flush()).map_err(CliError::io("the standard output"))?;
        if args.request.explain {
            let consistency = args.request.consistency.consistency();
            eprint!("{}", render::receipt(&answer, true, &consistency, &Names(&client.layout().0)));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let shown = match value {
        Some(value) => Shown::new(text(value), json_bytes(value)),
        None => Shown::absent(),
    };
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn put(client: &Client, args: &PutArgs) -> Result<ExitCode, CliError> {
    let value = match (&args.value, &args.file) {
        (Some(value), _) => value.clone(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(CliError::io("the standard input"))?;
            Bytes::from(bytes)
        }
        (None, Some(path)) => {
            Bytes::from(std::fs::read(path).map_err(CliError::io(format!("reading {}", path.display())))?)
        }
        (None, None) => return Err(CliError::usage("put takes a value, or --file PATH")),
    };
    let condition = match (args.if_absent, args.if_present) {
        (true, _) => Condition::Absent,
        (_, true) => Condition::Present,
        _ => Condition::Always,
    };
    let expiry = match args.expire {
        Some(after) => SetExpiry::At(from_now(after)),
        None if args.keep_ttl => SetExpiry::Keep,
        None => SetExpiry::Never,
    };
    let answer = ask(client, &args.request, &args.key, Op::Set { value, expiry, condition, old: false }).await?;
    let Reply::Bool(written) = answer.value else { return Err(odd(&answer.value)) };
    let said = match (written, condition) {
        (true, _) => "written",
        (false, Condition::Absent) => "not written: the key is there",
        (false, _) => "not written: the key is not there",
    };
    show(client, &args.request, &args.key, false, &answer, Shown::new(said, json!(written)).absent_when(!written))
}

fn from_now(after: std::time::Duration) -> u64 {
    entropy::wall_ms().saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

async fn del(client: &Client, args: &DelArgs) -> Result<ExitCode, CliError> {
    let mut code = ExitCode::SUCCESS;
    for key in &args.keys {
        let answer = ask(client, &args.request, key, Op::Delete).await?;
        let Reply::Bool(deleted) = answer.value else { return Err(odd(&answer.value)) };
        let said = if deleted { "deleted" } else { "nothing was there" };
        let said = if args.keys.len() > 1 { format!("{}: {said}", text(key)) } else { said.to_owned() };
        let shown = show(client, &args.request, key, false, &answer, Shown::new(said, json!(deleted)))?;
        if shown != ExitCode::SUCCESS {
            code = shown;
        }
    }
    Ok(code)
}

async fn exists(client: &Client, args: &KeyArgs) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, Op::Exists).await?;
    let Reply::Bool(there) = answer.value else { return Err(odd(&answer.value)) };
    let shown = Shown::new(if there { "yes" } else { "no" }, json!(there)).absent_when(!there);
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn ttl(client: &Client, args: &KeyArgs) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, Op::Deadline).await?;
    let Reply::Deadline(deadline) = answer.value else { return Err(odd(&answer.value)) };
    let shown = match deadline {
        None => Shown::absent(),
        Some(None) => Shown::new("never expires", json!({ "expire_at_ms": null })),
        Some(Some(at_ms)) => {
            let left = std::time::Duration::from_millis(at_ms.saturating_sub(entropy::wall_ms()));
            Shown::new(render::duration(left), json!({ "expire_at_ms": at_ms, "left_ms": left.as_millis() as u64 }))
        }
    };
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn expire(client: &Client, args: &ExpireArgs) -> Result<ExitCode, CliError> {
    let at_ms = args.after.map(from_now);
    let condition = crate::data::op::DeadlineCondition::Always;
    let answer = ask(client, &args.request, &args.key, Op::SetDeadline { at_ms, condition }).await?;
    let Reply::Bool(done) = answer.value else { return Err(odd(&answer.value)) };
    let shown = match (done, args.after) {
        (false, _) => Shown::absent(),
        (true, Some(after)) => Shown::new(format!("expires in {}", render::duration(after)), json!(true)),
        (true, None) => Shown::new("never expires", json!(true)),
    };
    show(client, &args.request, &args.key, false, &answer, shown)
}

async fn increment(client: &Client, args: &IncrArgs, by: Decimal) -> Result<ExitCode, CliError> {
    // Asked as a decimal number, so that 0.5 and then 1 give 1.5; whole sums print as integers all the same.
    let answer = ask(client, &args.request, &args.key, Op::Increment { by, integer: false }).await?;
    let sum = match &answer.value {
        Reply::Decimal(sum) => *sum,
        Reply::Integer(sum) => Decimal::from_integer(*sum),
        other => return Err(odd(other)),
    };
    let value = match sum.to_integer() {
        Some(integer) => json!(integer),
        None => json!(sum.to_string()),
    };
    show(client, &args.request, &args.key, false, &answer, Shown::new(sum.to_string(), value))
}

async fn members(
    client: &Client,
    args: &MembersArgs,
    op: impl FnOnce(Vec<Bytes>) -> Op,
    done: &str,
) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, op(args.members.clone())).await?;
    let Reply::Integer(count) = answer.value else { return Err(odd(&answer.value)) };
    let shown = Shown::new(format!("{count} {done}"), json!(count));
    show(client, &args.request, &args.key, false, &answer, shown)
}

async fn set_members(client: &Client, args: &KeyArgs) -> Result<ExitCode, CliError> {
    let answer = client.set_members(&args.key).await?;
    let members = &answer.value;
    let lines: Vec<String> = members.iter().map(|member| text(member)).collect();
    let value = members.iter().map(|member| json_bytes(member)).collect();
    let shown = Shown::new(lines.join("\n"), value).absent_when(members.is_empty());
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn set_contains(client: &Client, args: &MembersArgs) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, Op::SetContains { members: args.members.clone() }).await?;
    let Reply::Bools(each) = &answer.value else { return Err(odd(&answer.value)) };
    let line = |(member, there): (&Bytes, &bool)| match (args.members.len(), there) {
        (1, true) => "yes".to_owned(),
        (1, false) => "no".to_owned(),
        (_, there) => format!("{}: {}", text(member), if *there { "yes" } else { "no" }),
    };
    let lines: Vec<String> = args.members.iter().zip(each).map(line).collect();
    let shown = Shown::new(lines.join("\n"), json!(each)).absent_when(!each.iter().all(|there| *there));
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn hash_set(client: &Client, args: &HsetArgs) -> Result<ExitCode, CliError> {
    let fields = args.pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let op = Op::HashSet { fields, absent_only: args.if_absent };
    let answer = ask(client, &args.request, &args.key, op).await?;
    let Reply::Integer(count) = answer.value else { return Err(odd(&answer.value)) };
    let said = format!("written, {count} new");
    show(client, &args.request, &args.key, false, &answer, Shown::new(said, json!(count)))
}

async fn hash_get(client: &Client, args: &FieldsArgs) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, Op::HashGet { fields: args.fields.clone() }).await?;
    let Reply::Values(values) = &answer.value else { return Err(odd(&answer.value)) };
    let json = values.iter().map(|value| value.as_deref().map_or(Value::Null, json_bytes)).collect();
    let shown = match &values[..] {
        [None] => Shown::absent(),
        [Some(value)] => Shown::new(text(value), json),
        several => {
            let row = |(field, value): (&Bytes, &Option<Bytes>)| {
                vec![text(field), value.as_deref().map_or_else(|| "(not there)".into(), text)]
            };
            let rows: Vec<_> = args.fields.iter().zip(several).map(row).collect();
            Shown::new(columns(&rows).trim_end(), json).absent_when(several.iter().any(Option::is_none))
        }
    };
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn hash_all(client: &Client, args: &KeyArgs) -> Result<ExitCode, CliError> {
    let answer = client.hash_all(&args.key).await?;
    let pairs = &answer.value;
    let rows: Vec<_> = pairs.iter().map(|(field, value)| vec![text(field), text(value)]).collect();
    let value = pairs.iter().map(|(field, value)| json!([json_bytes(field), json_bytes(value)])).collect();
    let shown = Shown::new(columns(&rows).trim_end(), value).absent_when(pairs.is_empty());
    show(client, &args.request, &args.key, true, &answer, shown)
}

async fn hash_remove(client: &Client, args: &FieldsArgs) -> Result<ExitCode, CliError> {
    let answer = ask(client, &args.request, &args.key, Op::HashRemove { fields: args.fields.clone() }).await?;
    let Reply::Integer(count) = answer.value else { return Err(odd(&answer.value)) };
    show(client, &args.request, &args.key, false, &answer, Shown::new(format!("{count} removed"), json!(count)))
}

async fn siblings_put(client: &Client, args: &SiblingsPutArgs) -> Result<ExitCode, CliError> {
    let op = Op::SiblingsPut { value: args.value.clone(), context: args.context.clone() };
    let answer = ask(client, &args.request, &args.key, op).await?;
    siblings(client, &args.request, &args.key, answer)
}

fn siblings(client: &Client, request: &RequestArgs, key: &Bytes, answer: Answer<Reply>) -> Result<ExitCode, CliError> {
    let Reply::Siblings { values, context } = &answer.value else { return Err(odd(&answer.value)) };
    let context = render::hexadecimal(context);
    let mut lines: Vec<String> = values.iter().map(|value| text(value)).collect();
    lines.push(format!("context {context}"));
    let each: Vec<Value> = values.iter().map(|value| json_bytes(value)).collect();
    let shown = Shown::new(lines.join("\n"), json!({ "values": each, "context": context }));
    show(client, request, key, answer.op_id.is_none(), &answer, shown.absent_when(values.is_empty()))
}

async fn flag(client: &Client, args: &FlagArgs) -> Result<ExitCode, CliError> {
    let op = match args.state {
        None => Op::FlagGet,
        Some(state) => Op::FlagSet { on: state == FlagState::On },
    };
    let answer = ask(client, &args.request, &args.key, op).await?;
    let Reply::Bool(is) = answer.value else { return Err(odd(&answer.value)) };
    let word = |on: bool| if on { "on" } else { "off" };
    let said = match args.state {
        None => word(is).to_owned(),
        Some(state) => format!("{} (was {})", word(state == FlagState::On), word(is)),
    };
    show(client, &args.request, &args.key, args.state.is_none(), &answer, Shown::new(said, json!(is)))
}

async fn whereabouts(client: &Client, args: &KeyArgs) -> Result<ExitCode, CliError> {
    let found = client.whereabouts(&args.key).await?;
    match args.request.connect.output {
        Output::Text => {
            let mut rows = Vec::new();
            for (_, name, zone, owner, up) in &found.nodes {
                let part = if *owner { "owner" } else { "stand-in" };
                let up = if *up { "up" } else { "down" };
                rows.push(vec![name.clone(), part.to_owned(), format!("zone {zone}"), up.to_owned()]);
            }
            print(&format!(
                "slot {}, partition {}, layout {}\n{}",
                found.slot,
                found.partition,
                found.layout,
                columns(&rows)
            ))?;
        }
        Output::Json => {
            let node = |(_, name, zone, owner, up): &(_, String, String, bool, bool)| json!({ "node": name, "zone": zone, "owner": owner, "up": up });
            let object = json!({
                "key": json_bytes(&args.key),
                "slot": found.slot,
                "partition": found.partition.0,
                "layout": found.layout,
                "nodes": found.nodes.iter().map(node).collect::<Vec<_>>(),
            });
            print(&format!("{object}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
