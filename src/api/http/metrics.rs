//! `/metrics`: the node's account of itself in Prometheus's text format, version 0.0.4.
//!
//! Written by hand: a registry would have to be filled from the account at every scrape, only to print what is at hand.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Site, answer};
use crate::api::door::Door;
use crate::wire::status::{NodeStatus, PeerStatus};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub async fn metrics<D: Door>(State(site): State<Site<D>>) -> Response {
    answer::page(StatusCode::OK, PROMETHEUS, text(&site.door.status().await))
}

/// Everything in `status`, each family with its help and type.
pub fn text(status: &NodeStatus) -> String {
    let mut page = Page::default();
    let (node, incarnation) = (status.node.to_string(), status.incarnation.to_string());
    let about =
        [("node", node.as_str()), ("name", &status.name), ("version", &status.version), ("incarnation", &incarnation)];
    page.family("info", Kind::Gauge, "Which node this is; always 1.").sample(&about, 1);
    let uptime = format!("{}.{:03}", status.uptime_ms / 1_000, status.uptime_ms % 1_000);
    page.gauge("uptime_seconds", "Seconds since this node started.", uptime);
    page.gauge("layout_version", "Version of the layout in force.", status.layout);
    page.gauge("partitions_owned", "Partitions that this node owns.", status.partitions_owned);
    page.gauge("partitions", "Partitions that there are.", status.partitions);
    page.gauge("hints", "Hints kept here for owners that were away.", status.hints);
    page.gauge("hint_bytes", "Bytes of the hints kept here.", status.hint_bytes);
    let hints_for = status.hints_for.iter().map(|(owner, count)| (owner.as_str(), *count));
    page.by("hints_for", "Hints kept here, by the owner they are for.", "owner", hints_for);
    page.gauge("log_entries", "Log entries that some owner may still miss.", status.log_entries);
    let peer_lag = status.peer_lag.iter().map(|(peer, lag)| (peer.as_str(), *lag));
    page.by("peer_lag", "Mutations known here that a peer lacks, by its last report; 0 is level.", "peer", peer_lag);
    page.gauge("behind", "Mutations that some peer reported and this node lacks.", status.behind);
    page.gauge(
        "garbage",
        "Rows that wait to be dropped: delete rows, ended lives, floors of counters.",
        status.garbage,
    );
    let held_ms = status.held.as_ref().map_or(0, |held| held.for_ms);
    let held = format!("{}.{:03}", held_ms / 1_000, held_ms % 1_000);
    page.gauge(
        "garbage_held_seconds",
        "Seconds since the oldest asking to drop them; status tells who holds it.",
        held,
    );
    let sync = &status.sync;
    page.gauge("syncing_partitions", "Partitions that are taken whole from another owner.", sync.under_way);
    page.gauge("syncing_permille", "How far those have come on average, in thousandths.", sync.permille);
    page.gauge("syncs_waiting", "Partitions that are to be asked for, whole or in part.", sync.waiting);
    page.gauge("store_bytes", "Bytes of the store on disk.", status.store_bytes);
    let fenced = u8::from(status.fenced.is_some());
    page.gauge("fenced", "1 when the store is fenced and answers for nothing; /health tells why.", fenced);
    page.by("peer_up", "1 when this node sees the peer up.", "peer", each(&status.peers, |peer| peer.up));
    let connected = each(&status.peers, |peer| peer.connected);
    page.by("peer_connected", "1 when a link to the peer is open.", "peer", connected);
    let absences = || status.peers.iter().filter_map(|peer| Some((peer.name.as_str(), peer.absence?)));
    let fenced_peers = absences().map(|(name, absence)| (name, u64::from(absence.fenced)));
    page.by("peer_fenced", "1 when the absent peer was away beyond the horizon and is fenced.", "peer", fenced_peers);
    let left = absences().filter_map(|(name, absence)| Some((name, absence.left_ms? / 1_000)));
    page.by("peer_fenced_in_seconds", "Seconds until the absent peer is fenced.", "peer", left);
    for (name, count) in &status.counters {
        let words = name.trim_end_matches("_total").replace('_', " ");
        match name.ends_with("_total") {
            true => page.family(name, Kind::Counter, &format!("Since this node started: {words}.")).sample(&[], count),
            false => page.family(name, Kind::Gauge, &format!("At this moment: {words}.")).sample(&[], count),
        }
    }
    page.text
}

fn each(peers: &[PeerStatus], is: impl Fn(&PeerStatus) -> bool) -> impl Iterator<Item = (&str, u64)> {
    peers.iter().map(move |peer| (peer.name.as_str(), is(peer).into()))
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text so far, and the families in it: a scrape with one twice is refused as a whole.
#[derive(Default)]
struct Page {
    text: String,
    names: BTreeSet<String>,
}

/// A family that has its help and type; its samples come next.
struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let known = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let mut name = format!("tidewater_{}", name.replace(|letter| !known(letter), "_"));
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        print(&mut self.text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.text, name }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// One sample for each value of one label.
    fn by<'v>(&mut self, name: &str, help: &str, label: &str, samples: impl Iterator<Item = (&'v str, u64)>) {
        let mut family = self.family(name, Kind::Gauge, help);
        for (value, count) in samples {
            family.sample(&[(label, value)], count);
        }
    }
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let name = &self.name;
        match labels.is_empty() {
            true => print(self.text, format_args!("{name} {value}\n")),
            false => print(self.text, format_args!("{name}{{{}}} {value}\n", labels.join(","))),
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn print(text: &mut String, what: std::fmt::Arguments) {
    text.write_fmt(what).expect("writing into a string does not fail");
}
