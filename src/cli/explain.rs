//! `tidewater explain`: what every node knows of one key, side by side, in words. Asked of each node itself, so that a node that is
//! wrong shows it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::args::Output;
use super::args::keys::KeyArgs;
use super::render::{self, columns, json_bytes, text};
use super::status::held_by;
use super::{CliError, EXIT_FAILED, print};
use crate::client::Client;
use crate::data::clock::Stamp;
use crate::data::context::Context;
use crate::data::id::Dot;
use crate::data::path::{Component, Path};
use crate::data::row::{Life, Row, tally_is_live, tally_value};
use crate::ring::layout::Member;
use crate::wire::status::KeyStatus;

type Told = (Member, Result<KeyStatus, String>);

pub async fn run(client: &Client, args: &KeyArgs) -> Result<ExitCode, CliError> {
    let (layout, _) = client.layout();
    let mut asked = JoinSet::new();
    for (at, member) in layout.members.iter().cloned().enumerate() {
        let (client, key) = (client.clone(), args.key.clone());
        asked.spawn(async move {
            let known = client.explain(member.id, key).await.map_err(|error| error.to_string());
            (at, (member, known))
        });
    }
    let mut nodes: BTreeMap<usize, Told> = BTreeMap::new();
    while let Some(told) = asked.join_next().await {
        nodes.extend(told.ok());
    }
    let nodes: Vec<Told> = nodes.into_values().collect();
    match args.request.connect.output {
        Output::Text => print(&page(&nodes))?,
        Output::Json => {
            let nodes: Vec<Value> = nodes.iter().map(node_json).collect();
            print(&format!("{}\n", json!({ "key": json_bytes(&args.key), "nodes": nodes })))?;
        }
    }
    Ok(if nodes.iter().all(|(_, known)| known.is_ok()) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// Everything that some owner has seen.
fn union(nodes: &[Told]) -> Context {
    let mut seen = Context::default();
    owners(nodes).for_each(|(_, known)| seen.join(&known.seen));
    seen
}

fn owners(nodes: &[Told]) -> impl Iterator<Item = (&str, &KeyStatus)> {
    nodes.iter().filter_map(|(member, known)| {
        let known = known.as_ref().ok().filter(|known| known.owner)?;
        Some((member.name.as_str(), known))
    })
}

fn page(nodes: &[Told]) -> String {
    let seen = union(nodes);
    let mut lines = Vec::new();
    let mut notes = String::new();
    for (member, known) in nodes {
        let name = &member.name;
        match known {
            Ok(known) => {
                let part = if known.owner { "owner" } else { "stand-in" };
                let mut says = Vec::new();
                if known.owner {
                    let more = if known.more { " and more" } else { "" };
                    says.push(format!("{}{more}", render::counted(known.rows.len() as u64, "row")));
                    match known.seen.lacks(&seen) {
                        0 => says.push("has seen all".to_owned()),
                        lacks => says.push(format!("lacks {} of the partition", render::counted(lacks, "mutation"))),
                    }
                    if known.syncing {
                        says.push("is taking all rows of the partition".to_owned());
                    }
                    if !known.dead.is_empty() {
                        let count = known.dead.len() as u64;
                        says.push(format!("knows of {} removed before they came", render::counted(count, "mutation")));
                    }
                }
                for (owner, count) in &known.hints {
                    says.push(format!("keeps {} for {owner}", render::counted(*count, "hint")));
                }
                if says.is_empty() {
                    says.push("holds nothing of it".to_owned());
                }
                lines.push(vec![name.clone(), part.to_owned(), says.join(", ")]);
                if known.owner && known.rows.iter().any(|(_, row)| waits(row)) {
                    let _ = match &known.held {
                        Some(held) => writeln!(notes, "{name} {}", held_by(held)),
                        None => writeln!(notes, "{name} will ask when what has been deleted can be dropped"),
                    };
                }
            }
            Err(why) => lines.push(vec![name.clone(), "-".to_owned(), format!("does not answer: {why}")]),
        }
    }
    let partition = nodes.iter().find_map(|(_, known)| known.as_ref().ok()).map(|known| known.partition.0);
    let title = partition.map(|partition| format!("partition {partition}\n")).unwrap_or_default();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{title}{}\n{}{gap}{notes}", columns(&lines), rows(nodes))
}

/// Each row once, with who holds it so.
fn rows(nodes: &[Told]) -> String {
    let all: Vec<&str> = owners(nodes).map(|(name, _)| name).collect();
    let silent = nodes.iter().any(|(_, known)| known.is_err());
    let everywhere = if silent { "on all owners that answered" } else { "on all owners" };
    let mut holders: BTreeMap<(Path, String), Vec<&str>> = BTreeMap::new();
    for (name, known) in owners(nodes) {
        for (path, row) in &known.rows {
            for entry in entries(path, row, known.wall_ms) {
                holders.entry((path.clone(), entry)).or_default().push(name);
            }
        }
    }
    if holders.is_empty() {
        return "no owner that answered holds anything of it\n".to_owned();
    }
    let line = |((_, entry), names): ((Path, String), Vec<&str>)| {
        let on = if names == all { everywhere.to_owned() } else { format!("only on {}", names.join(", ")) };
        vec![entry, on]
    };
    columns(&holders.into_iter().map(line).collect::<Vec<_>>())
}

/// Is this a row that is kept only until the floor has passed it?
fn waits(row: &Row) -> bool {
    match row {
        Row::Register(register) => register.payload.is_none(),
        Row::Counter { tally, floor } => !tally_is_live(tally, floor),
        Row::Retried(retried) => retried.removed,
        _ => false,
    }
}

fn entries(path: &Path, row: &Row, wall_ms: u64) -> Vec<String> {
    let field = |path: &Path| path.field().map(|field| format!(" in field {}", text(&field))).unwrap_or_default();
    match row {
        Row::Register(register) => {
            let what = match &register.payload {
                Some(payload) => format!("string {}", shortened(payload)),
                None => "delete row".to_owned(),
            };
            vec![format!(
                "{what}{}{}{}",
                by(register.dot),
                when(register.stamp, wall_ms),
                ends(register.deadline_ms, wall_ms)
            )]
        }
        Row::Field(entries) => entries
            .iter()
            .map(|entry| {
                let value = entry.payload.as_ref().map(|payload| shortened(payload)).unwrap_or_default();
                let of = (of_life(entry.life), by(entry.dot), when(entry.stamp, wall_ms));
                format!("field {} = {value}{}{}{}", text(&path.member), of.0, of.1, of.2)
            })
            .collect(),
        Row::Births(births) => births
            .iter()
            .map(|birth| {
                let what = match path.component {
                    Component::Flag => "flag on".to_owned(),
                    _ => format!("member {}", text(&path.member)),
                };
                format!("{what}{}{}", of_life(birth.life), by(birth.dot))
            })
            .collect(),
        Row::Sibling(sibling) => {
            vec![format!("sibling {}{}{}", shortened(&sibling.payload), of_life(sibling.life), by(sibling.dot))]
        }
        Row::Counter { tally, floor } => {
            let worth = tally_value(tally, floor);
            let life = path.life().map(of_life).unwrap_or_default();
            let tally = tally.map(|tally| by(tally.dot)).unwrap_or_default();
            let floor = floor.map(|floor| format!(", {} removed{}", floor.total, by(floor.dot))).unwrap_or_default();
            vec![format!("count of {worth}{}{life}{tally}{floor}", field(path))]
        }
        Row::Retried(retried) => {
            let dots: Vec<String> = retried.dots.iter().map(Dot::to_string).collect();
            let removed = if retried.removed { ", removed" } else { "" };
            let op_id = path.op_id().map(|op_id| op_id.to_string()).unwrap_or_default();
            let tallied = if retried.tallies.is_empty() { "" } else { ", counted already" };
            vec![format!(
                "retried increment of {}{} {op_id} by {}{tallied}{removed}",
                retried.amount,
                field(path),
                dots.join(", ")
            )]
        }
        Row::Deadline(deadline) => {
            let life = path.life().map(of_life).unwrap_or_default();
            let at = match deadline.at_ms {
                Some(_) => ends(deadline.at_ms, wall_ms),
                None => ", none".to_owned(),
            };
            vec![format!("deadline{life}{at}{}{}", by(deadline.dot), when(deadline.stamp, wall_ms))]
        }
    }
}

fn by(dot: Dot) -> String {
    format!(", by {dot}")
}

fn when(stamp: Stamp, wall_ms: u64) -> String {
    let at_ms = stamp.hlc.wall_ms();
    format!(", {}", moment(at_ms, wall_ms))
}

fn moment(at_ms: u64, wall_ms: u64) -> String {
    let away = render::duration(Duration::from_millis(at_ms.abs_diff(wall_ms)));
    if at_ms > wall_ms { format!("in {away}") } else { format!("{away} ago") }
}

fn ends(at_ms: Option<u64>, wall_ms: u64) -> String {
    match at_ms {
        Some(at_ms) if at_ms > wall_ms => format!(", ends {}", moment(at_ms, wall_ms)),
        Some(at_ms) => format!(", ended {}", moment(at_ms, wall_ms)),
        None => String::new(),
    }
}

/// Life 0 is the usual one.
fn of_life(life: Life) -> String {
    if life == Life(0) { String::new() } else { format!(" of life {:x}", life.0) }
}

fn shortened(payload: &[u8]) -> String {
    const SHOWN_MAX: usize = 60;
    match payload.get(..SHOWN_MAX) {
        Some(head) if payload.len() > SHOWN_MAX => format!("{}... ({} bytes)", text(head), payload.len()),
        _ => text(payload),
    }
}

fn node_json((member, known): &Told) -> Value {
    match known {
        Ok(known) => json!({
            "name": member.name,
            "owner": known.owner,
            "partition": known.partition.0,
            "rows": known.rows.iter().map(|(path, row)| json!({
                "component": format!("{:?}", path.component),
                "member": json_bytes(&path.member),
                "dots": row.dots().iter().map(Dot::to_string).collect::<Vec<_>>(),
                "entries": entries(path, row, known.wall_ms),
            })).collect::<Vec<_>>(),
            "more": known.more,
            "seen": known.seen.vector().map(|(incarnation, upto)| (incarnation.to_string(), json!(upto))).collect::<serde_json::Map<_, _>>(),
            "seen_above_holes": known.seen.cloud().map(|dot| dot.to_string()).collect::<Vec<_>>(),
            "dead": known.dead.iter().map(Dot::to_string).collect::<Vec<_>>(),
            "hints": known.hints,
            "garbage": known.garbage,
            "held": known.held.as_ref().map(|held| json!({ "by": held.by, "for_ms": held.for_ms, "told": held.told })),
            "syncing": known.syncing,
        }),
        Err(why) => json!({ "name": member.name, "why": why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::clock::Hlc;
    use crate::data::id::{Incarnation, NodeId, Partition};
    use crate::data::row::Register;
    use crate::wire::status::HeldStatus;

    fn member(name: &str) -> Member {
        Member {
            id: NodeId::from_name(name),
            name: name.into(),
            zone: "a".into(),
            weight: 1,
            quic: String::new(),
            resp: String::new(),
            http: String::new(),
        }
    }

    fn known(name: &str, counter: u64, payload: Option<&'static [u8]>) -> KeyStatus {
        let dot = Dot { incarnation: Incarnation(7 << 32), counter };
        let stamp = Stamp { hlc: Hlc::from_wall_ms(5_000), incarnation: dot.incarnation };
        let payload = payload.map(bytes::Bytes::from_static);
        let register = Register { dot, stamp, life: Life(0), deadline_ms: None, payload, removes: Vec::new() };
        KeyStatus {
            name: name.into(),
            partition: Partition(3),
            owner: true,
            rows: vec![(Path::new(Component::Register, ""), Row::Register(register))],
            more: false,
            seen: (1..=counter).map(|counter| Dot { counter, ..dot }).collect(),
            dead: Vec::new(),
            hints: BTreeMap::new(),
            garbage: 0,
            held: None,
            syncing: false,
            wall_ms: 9_000,
        }
    }

    #[test]
    fn it_says_who_differs_and_what_a_delete_row_waits_for() {
        let held = HeldStatus { partition: Partition(3), for_ms: 70_000, by: vec!["n3".into()], told: false };
        let deleted = KeyStatus { held: Some(held), ..known("n1", 2, None) };
        let stale = KeyStatus { hints: [("n3".to_owned(), 1)].into(), ..known("n2", 1, Some(b"hello")) };
        let nodes =
            [(member("n1"), Ok(deleted)), (member("n2"), Ok(stale)), (member("n3"), Err("no answer".to_owned()))];
        let page = page(&nodes);
        for told in [
            "partition 3",
            "n2  owner  1 row, lacks 1 mutation of the partition, keeps 1 hint for n3",
            "n3  -      does not answer: no answer",
            "delete row, by 00000007.2, 4.0 s ago",
            "only on n1",
            "string hello, by 00000007.1",
            "n1 has waited",
            "no answer yet from n3",
        ] {
            assert!(page.contains(told), "{told:?} is not in\n{page}");
        }
    }
}
