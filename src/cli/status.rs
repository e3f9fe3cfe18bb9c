//! `tidewater status`: every node's own account, side by side. Exit code 1 when a node is down, does not answer or has fenced its
//! store, so that a script need not read the table.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::args::{Output, StatusArgs, StatusWait};
use super::faults::words;
use super::render::{self, columns};
use super::{CliError, EXIT_FAILED, connect, print};
use crate::client::{Client, ClientError};
use crate::data::consistency::Consistency;
use crate::net::entropy;
use crate::ring::layout::Member;
use crate::wire::status::{AbsenceStatus, HeldStatus, NodeStatus, PeerStatus, SyncStatus};

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long one node is given when several looks are wanted.
const LOOK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Whoever keeps delete rows from being dropped is named after this: it takes a while when all is well.
const HELD_TOLD_MS: u64 = 60_000;

/// A member that answers is told to have been away by others only after this: just started, it has not been heard by all yet.
const AWAY_TOLD_MS: u64 = 2_000;

/// What every member said of itself, or why it said nothing, in the layout's order.
pub struct Census {
    pub layout: u64,
    pub nodes: Vec<(Member, Result<NodeStatus, String>)>,
}

impl Census {
    /// Asks all members at once; takes `timeout` at most.
    pub async fn take(client: &Client, timeout: Duration) -> Self {
        let (layout, _) = client.layout();
        let asker = client.within(timeout);
        let mut asked = JoinSet::new();
        for (at, member) in layout.members.iter().enumerate() {
            let (asker, id) = (asker.clone(), member.id);
            asked.spawn(async move { (at, asker.status(id).await.map_err(reason)) });
        }
        let mut nodes: Vec<_> =
            layout.members.into_iter().map(|member| (member, Err("it was not asked".to_owned()))).collect();
        while let Some(told) = asked.join_next().await {
            if let Ok((at, status)) = told {
                nodes[at].1 = status;
            }
        }
        Self { layout: layout.version, nodes }
    }

    /// Every member answers and none has fenced its store.
    pub fn is_well(&self) -> bool {
        self.nodes.iter().all(|(_, status)| status.as_ref().is_ok_and(|status| status.fenced.is_none()))
    }

    /// Every member answers, keeps no hints, lacks nothing, and knows of nobody who lacks something.
    pub fn is_level(&self) -> bool {
        self.is_well() && self.nodes.iter().all(|(_, status)| status.as_ref().is_ok_and(lacks_nothing))
    }

    /// What is still to be brought level: hints kept, mutations that somebody lacks; `None` when a node does not answer.
    pub fn behind(&self) -> Option<u64> {
        self.nodes.iter().map(|(_, status)| status.as_ref().ok().map(open_work)).sum()
    }

    /// How long a member has been away, by those who have missed it longest.
    fn absence_of(&self, member: &Member) -> Option<AbsenceStatus> {
        let told = self.nodes.iter().filter_map(|(_, status)| status.as_ref().ok()).flat_map(|status| &status.peers);
        told.filter(|peer| peer.node == member.id)
            .filter_map(|peer| peer.absence)
            .max_by_key(|absence| (absence.fenced, absence.for_ms))
    }

    /// The table.
    pub fn text(&self) -> String {
        let heads = [
            "NODE",
            "ZONE",
            "UP",
            "PARTITIONS",
            "HINTS",
            "LOG",
            "LAG",
            "BEHIND",
            "TO DROP",
            "STORE",
            "UPTIME",
            "VERSION",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        let mut notes = String::new();
        for (member, status) in &self.nodes {
            let (name, zone) = (member.name.clone(), member.zone.clone());
            match status {
                Ok(status) => {
                    let lag: u64 = status.peer_lag.values().sum();
                    rows.push(vec![
                        name.clone(),
                        zone,
                        if status.fenced.is_some() { "fenced" } else { "up" }.to_owned(),
                        format!("{}/{}", status.partitions_owned, status.partitions),
                        render::count(status.hints),
                        render::count(status.log_entries),
                        render::count(lag),
                        render::count(status.behind),
                        render::count(status.garbage),
                        render::bytes(status.store_bytes),
                        render::duration(Duration::from_millis(status.uptime_ms)),
                        status.version.clone(),
                    ]);
                    for (peer, hints) in status.hints_for.iter().filter(|(_, hints)| **hints > 0) {
                        let _ = writeln!(notes, "{name} keeps {} for {peer}", render::counted(*hints, "hint"));
                    }
                    if let Some(held) = status.held.as_ref().filter(|held| held.for_ms > HELD_TOLD_MS) {
                        let _ = writeln!(notes, "{name} {}", held_by(held));
                    }
                    if let Some(told) = sync_note(&status.sync) {
                        let _ = writeln!(notes, "{name} {told}");
                    }
                    if status.scrub.running {
                        let (done, all) = (status.scrub.partitions_done, status.scrub.partitions);
                        let _ = writeln!(notes, "{name} is comparing its rows: {done} of {all} partitions");
                    }
                    if status.scrub.findings > 0 {
                        let found = render::counted(status.scrub.findings, "partition");
                        let _ =
                            writeln!(notes, "{name} found {found} unlike other owners' in its last scrub: see its log");
                    }
                    if let Some(cause) = &status.fenced {
                        let _ = writeln!(notes, "{name} is fenced: {cause}");
                    }
                    for line in status.faults.iter().flat_map(words::lines) {
                        let _ = writeln!(notes, "{name} {line}: a fault made on purpose");
                    }
                }
                Err(why) => {
                    let mut row = vec![name.clone(), zone, "down".to_owned()];
                    row.resize(heads.len(), "-".to_owned());
                    rows.push(row);
                    let _ = writeln!(notes, "{name} does not answer: {why}");
                }
            }
            let told = |absence: &AbsenceStatus| status.is_err() || absence.fenced || absence.for_ms > AWAY_TOLD_MS;
            if let Some(absence) = self.absence_of(member).filter(told) {
                let _ = writeln!(notes, "{} {}", member.name, absence_note(&absence));
            }
        }
        let hurtable = |(member, status): &(Member, Result<NodeStatus, String>)| {
            status.as_ref().is_ok_and(|status| status.faults.is_some()).then(|| member.name.clone())
        };
        let hurtable: Vec<String> = self.nodes.iter().filter_map(hurtable).collect();
        if !hurtable.is_empty() {
            let _ = writeln!(notes, "any client may hurt {} on purpose (--allow-faults)", hurtable.join(", "));
        }
        let gap = if notes.is_empty() { "" } else { "\n" };
        format!("{}{gap}{notes}", columns(&rows))
    }

    fn json(&self) -> Value {
        let node = |(member, status): &(Member, Result<NodeStatus, String>)| match status {
            Ok(status) => {
                let mut object = json!({
                    "name": member.name, "zone": member.zone, "up": true, "fenced": status.fenced,
                    "quic": member.quic, "resp": member.resp, "http": member.http,
                    "version": status.version, "incarnation": status.incarnation.to_string(),
                    "uptime_ms": status.uptime_ms, "layout": status.layout,
                    "partitions_owned": status.partitions_owned, "partitions": status.partitions,
                    "hints": status.hints, "hint_bytes": status.hint_bytes, "hints_for": status.hints_for,
                    "log_entries": status.log_entries, "peer_lag": status.peer_lag, "behind": status.behind,
                    "garbage": status.garbage,
                    "held": status.held.as_ref().map(|held| json!({
                        "partition": held.partition.0, "for_ms": held.for_ms, "by": held.by, "told": held.told,
                    })),
                    "scrub": {
                        "running": status.scrub.running, "partitions": status.scrub.partitions,
                        "partitions_done": status.scrub.partitions_done, "skipped": status.scrub.skipped,
                        "rows": status.scrub.rows, "findings": status.scrub.findings,
                    },
                    "sync": {
                        "under_way": status.sync.under_way, "permille": status.sync.permille,
                        "waiting": status.sync.waiting, "done": status.sync.done, "rows": status.sync.rows,
                    },
                    "store_bytes": status.store_bytes, "counters": status.counters,
                    "faults": status.faults.as_ref().map(words::json),
                });
                let peer = |peer: &PeerStatus| {
                    json!({
                        "name": peer.name, "zone": peer.zone, "up": peer.up, "connected": peer.connected,
                        "absence": peer.absence.map(|absence| json!({
                            "for_ms": absence.for_ms, "left_ms": absence.left_ms, "fenced": absence.fenced,
                        })),
                    })
                };
                object["peers"] = status.peers.iter().map(peer).collect();
                object
            }
            Err(why) => json!({ "name": member.name, "zone": member.zone, "up": false, "why": why }),
        };
        json!({
            "layout": self.layout,
            "well": self.is_well(),
            "level": self.is_level(),
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
        })
    }
}

/// Who keeps delete rows from being dropped.
pub fn held_by(held: &HeldStatus) -> String {
    let since = render::duration(Duration::from_millis(held.for_ms));
    let waited = format!("has waited {since} to drop delete rows in partition {}", held.partition.0);
    let names = held.by.join(", ");
    match (held.by.is_empty(), held.told) {
        (true, _) => format!("{waited}; all have answered and it is soon done"),
        (false, true) => format!("{waited}: there are hints at, or something is lacking at {names}"),
        (false, false) => format!("{waited}: no answer yet from {names}"),
    }
}

/// How far taking whole partitions has come; `None`: nothing is being taken.
fn sync_note(sync: &SyncStatus) -> Option<String> {
    if sync.under_way == 0 {
        return None;
    }
    let under_way = render::counted(sync.under_way, "partition");
    let share = if sync.permille > 0 { format!(" ({} % of that so far)", sync.permille / 10) } else { String::new() };
    Some(format!(
        "takes {under_way} whole from other owners{share}; {} more to ask for, {} done",
        render::count(sync.waiting),
        render::count(sync.done),
    ))
}

/// What has come, or will come, of a member's absence.
fn absence_note(absence: &AbsenceStatus) -> String {
    let time = |ms| render::duration(Duration::from_millis(ms));
    let since = time(absence.for_ms);
    match (absence.fenced, absence.left_ms) {
        (true, _) => {
            "was away beyond the horizon and is fenced: nothing that its store holds is taken; start it with an \
                      empty folder"
                .to_owned()
        }
        (false, Some(left)) => format!(
            "has been away for {since}; in {} it is fenced, and then it must come back with an empty folder",
            time(left)
        ),
        (false, None) => format!("has been away for {since}; delete rows stay until it is back"),
    }
}

/// Why a node said nothing. It was asked once, so that how often and how long is no news.
fn reason(error: ClientError) -> String {
    match error {
        ClientError::NoAnswer { last, .. } => last,
        other => other.to_string(),
    }
}

fn lacks_nothing(status: &NodeStatus) -> bool {
    open_work(status) == 0
}

fn open_work(status: &NodeStatus) -> u64 {
    let lag = status.peer_lag.values().fold(0_u64, |sum, lag| sum.saturating_add(*lag));
    status.hints.saturating_add(status.behind).saturating_add(lag)
}

/// Shows how the nodes are; with `--wait`, once they are so.
pub async fn run(args: StatusArgs) -> Result<ExitCode, CliError> {
    let client = connect::connect(&args.connect, Consistency::default()).await?;
    let census = match args.wait {
        None => Census::take(&client, args.connect.timeout).await,
        Some(state) => wait(&client, state, args.connect.timeout).await?,
    };
    match args.connect.output {
        Output::Text => print(&census.text())?,
        Output::Json => print(&format!("{}\n", census.json()))?,
    }
    client.close();
    Ok(if census.is_well() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

async fn wait(client: &Client, state: StatusWait, timeout: Duration) -> Result<Census, CliError> {
    let until = entropy::instant() + timeout;
    loop {
        let left = until.saturating_duration_since(entropy::instant());
        let census = Census::take(client, LOOK_TIMEOUT.min(left.max(LOOK_EVERY))).await;
        let so = match state {
            StatusWait::Up => census.is_well(),
            StatusWait::Level => census.is_level(),
        };
        if so {
            return Ok(census);
        }
        if left < LOOK_EVERY {
            let wanted = match state {
                StatusWait::Up => "up",
                StatusWait::Level => "level",
            };
            return Err(CliError::failed(format!(
                "the cluster is not {wanted} after {}:\n{}",
                render::duration(timeout),
                census.text().trim_end()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::id::{Incarnation, NodeId};
    use crate::wire::fault::FaultStatus;

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

    fn status(name: &str) -> NodeStatus {
        NodeStatus {
            node: NodeId::from_name(name),
            name: name.into(),
            version: "0.1.0".into(),
            incarnation: Incarnation(1),
            uptime_ms: 90_000,
            layout: 1,
            partitions_owned: 16,
            partitions: 16,
            hints: 0,
            hint_bytes: 0,
            hints_for: BTreeMap::new(),
            log_entries: 3,
            peer_lag: BTreeMap::new(),
            behind: 0,
            garbage: 0,
            scrub: Default::default(),
            sync: Default::default(),
            held: None,
            store_bytes: 2048,
            fenced: None,
            faults: None,
            peers: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    fn census(nodes: Vec<(&str, Result<NodeStatus, String>)>) -> Census {
        Census { layout: 1, nodes: nodes.into_iter().map(|(name, status)| (member(name), status)).collect() }
    }

    #[test]
    fn level_means_that_nobody_lacks_anything() {
        assert!(census(vec![("n1", Ok(status("n1"))), ("n2", Ok(status("n2")))]).is_level());
        let hints = NodeStatus { hints: 1, ..status("n2") };
        let behind = NodeStatus { behind: 2, ..status("n2") };
        let lag = NodeStatus { peer_lag: [("n1".to_owned(), 3)].into(), ..status("n2") };
        for (unlevel, open) in [(hints, 1), (behind, 2), (lag, 3)] {
            let census = census(vec![("n1", Ok(status("n1"))), ("n2", Ok(unlevel))]);
            assert!(census.is_well() && !census.is_level());
            assert_eq!(census.behind(), Some(open));
        }
        let silent = census(vec![("n1", Ok(status("n1"))), ("n2", Err("no answer".into()))]);
        assert!(!silent.is_level() && !silent.is_well());
        assert_eq!(silent.behind(), None);
    }

    #[test]
    fn a_node_that_is_silent_fenced_or_keeping_hints_is_named() {
        let fenced = NodeStatus { fenced: Some("checksum mismatch".into()), ..status("n2") };
        let hints = NodeStatus { hints: 4, hints_for: [("n3".to_owned(), 4)].into(), ..status("n1") };
        let census = census(vec![("n1", Ok(hints)), ("n2", Ok(fenced)), ("n3", Err("no answer".into()))]);
        let text = census.text();
        for told in ["n1 keeps 4 hints for n3", "n2 is fenced: checksum mismatch", "n3 does not answer"] {
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(census.json()["nodes"][2]["up"], false);
        assert_eq!(census.json()["well"], false);
    }

    #[test]
    fn who_is_away_is_warned_of_before_it_is_fenced() {
        let away = |for_ms, left_ms, fenced| NodeStatus {
            peers: vec![PeerStatus {
                node: NodeId::from_name("n3"),
                name: "n3".into(),
                zone: "a".into(),
                quic: String::new(),
                up: false,
                connected: false,
                absence: Some(AbsenceStatus { for_ms, left_ms, fenced }),
            }],
            ..status("n1")
        };
        let look = |one: NodeStatus| {
            census(vec![("n1", Ok(one)), ("n2", Ok(away(1_000, Some(9_000), false))), ("n3", Err("no answer".into()))])
        };
        let warned = look(away(7_000, Some(3_000), false)).text();
        assert!(warned.contains("n3 has been away for 7.0 s; in 3.0 s it is fenced"), "{warned}");
        let fenced = look(away(11_000, None, true));
        assert!(fenced.text().contains("n3 was away beyond the horizon and is fenced"), "{}", fenced.text());
        assert_eq!(fenced.json()["nodes"][0]["peers"][0]["absence"]["fenced"], true);
        let never = look(away(11_000, None, false)).text();
        assert!(never.contains("delete rows stay until it is back"), "{never}");
        let started = census(vec![("n1", Ok(away(7, Some(9_000), false))), ("n3", Ok(status("n3")))]).text();
        assert!(!started.contains("away"), "just started, it answers: {started}");
    }

    #[test]
    fn who_can_be_hurt_and_who_is_hurt_on_purpose_is_told() {
        let clock = crate::wire::fault::ClockFault { offset_ms: 60_000, left_ms: None };
        let hurt = FaultStatus { clock: Some(clock), ..FaultStatus::default() };
        let census = census(vec![
            ("n1", Ok(NodeStatus { faults: Some(hurt), ..status("n1") })),
            ("n2", Ok(NodeStatus { faults: Some(FaultStatus::default()), ..status("n2") })),
            ("n3", Ok(status("n3"))),
        ]);
        let text = census.text();
        for told in [
            "n1 has its clock 1 m 00 s ahead (until it is healed): a fault made on purpose",
            "any client may hurt n1, n2 on purpose",
        ] {
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(census.json()["nodes"][0]["faults"]["clock"]["offset_ms"], 60_000);
        assert!(census.json()["nodes"][2]["faults"].is_null());
    }

    #[test]
    fn a_node_that_takes_partitions_whole_says_how_far_it_is() {
        let sync = SyncStatus { under_way: 2, permille: 434, waiting: 30, done: 8, rows: 99 };
        let census = census(vec![("n1", Ok(NodeStatus { sync, ..status("n1") }))]);
        let text = census.text();
        assert!(
            text.contains("n1 takes 2 partitions whole from other owners (43 % of that so far); 30 more"),
            "{text}"
        );
        assert_eq!(census.json()["nodes"][0]["sync"]["permille"], 434);
    }
}
