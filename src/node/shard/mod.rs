//! A lane's brain: one match from input to the machine that owns it, and the clockwork of background rounds.
//!
//! It decides nothing about requests (that is the coordinator), rows (the replica), hints or rounds (the exchange); it hands each
//! input to its machine and carries answers from one to another. Here are the start, the turn, and what peers say; in the rooms below
//! what is done in rounds: `level` (reports, pulls, full syncs, repairs), `hinted` (hints on their way), `floors` (what may go, and who is
//! fenced), `scrubbing`, and `scans`.

mod floors;
mod hinted;
mod level;
mod scans;
mod scrubbing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::data::clock::Now;
use crate::data::context::Context;
use crate::data::id::{Dot, Incarnation, NodeId, Partition, StoreId, mix64};
use crate::data::object::Object;
use crate::data::op::Key;
use crate::data::op::{RequestError, Response};
use crate::ring::view::View;
use crate::storage::{Storage, StoreError};
use crate::wire::message::{Body, Kept, PeerMessage, Reading, Refusal, Role, Rows, Scope, Ticket};
use crate::wire::packed_log::PackedLog;
use crate::wire::status::{HeldStatus, KeyStatus, ScrubStatus, SyncStatus};

use super::coordinator::{Coordinator, Desk, Origin};
use super::exchange::Exchange;
use super::fence::{Absence, Fences};
use super::floor::{Cut, Floors, Held};
use super::hints::Hints;
use super::planted::Planted;
use super::repair::Repairs;
use super::replica::collect::Position;
use super::replica::objects::Objects;
use super::replica::packed::digest;
use super::replica::sync::RowPage;
use super::replica::{Replica, Turn};
use super::scrub::Scrub;
use super::turn::{DoorTicket, Input, Outbox, ShardOptions, Stats, Traffic};

/// Between two pieces of a scrub: one that was asked for, and one in the background.
const SCRUB_PAUSE_US: u64 = 5_000;
const SCRUB_BACKGROUND_PAUSE_US: u64 = 100_000;
/// What a node that was away beyond the horizon tells.
const FENCED_OUT: &str = "it was away for longer than the horizon, and what it holds is no part of the cluster any more; stop it, empty \
                          its data folder, and start it again: the others bring it everything";

/// Rows of one key that are told when it is explained.
const EXPLAINED_ROWS_MAX: usize = 256;

/// A scan that was sent to an owner.
struct Scanning {
    ticket: DoorTicket,
    to: NodeId,
    deadline_us: u64,
}

/// Hints on their way to an owner.
struct Delivery {
    owner: NodeId,
    partition: Partition,
    at: Vec<u8>,
    deadline_us: u64,
}

/// A hint on its way to the other owners, who bring it to the one that is away themselves.
struct Collapse {
    waiting: BTreeSet<NodeId>,
    deadline_us: u64,
}

/// What a lane tells about itself.
#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    pub hints: u64,
    pub hint_bytes: u64,
    pub hints_for: BTreeMap<NodeId, u64>,
    pub log_entries: u64,
    pub peer_lag: BTreeMap<NodeId, u64>,
    pub behind: u64,
    pub under_way: u64,
    pub pulls: u64,
    /// Rows that wait for the floor: delete rows, ended lives, floors of counters.
    pub garbage: u64,
    /// Partitions in which something waits for the floor: rows, or operation ids to be forgotten.
    pub due: u64,
    /// Who has held the floor for longest, since when, and where.
    pub held: Option<HeldStatus>,
    pub scrub: ScrubStatus,
    /// Partitions with rows of a full sync that did not come to its end, which are still being entered as seen.
    pub unsure: u64,
    pub sync: SyncStatus,
    /// Others have fenced this node, and why it takes nothing.
    pub fenced_out: Option<&'static str>,
    /// Members that are away, or fenced.
    pub absences: BTreeMap<NodeId, Absence>,
    pub stats: Stats,
}

pub struct Shard {
    options: ShardOptions,
    view: Arc<View>,
    replica: Replica,
    coordinator: Coordinator,
    hints: Hints,
    exchange: Exchange,
    floors: Floors,
    fences: Fences,
    /// Others have fenced this node.
    fenced_out: bool,
    /// A partition in which what the cut allows is being dropped.
    collecting: Option<(Partition, Cut, Position)>,
    collect_at_us: u64,
    repairs: Repairs,
    /// How far the rows of a full sync that did not come to its end have been entered as seen.
    entering: BTreeMap<Partition, Option<bytes::Bytes>>,
    enter_at_us: u64,
    scrub: Scrub,
    /// What had been seen of the piece's partition when the others were asked for theirs.
    scrub_seen: Context,
    alarms: Vec<String>,
    /// When the next scrub in the background begins.
    scrub_at_us: u64,
    /// Before this no further page of a full sync is asked for.
    page_at_us: u64,
    scans: BTreeMap<Ticket, Scanning>,
    deliveries: BTreeMap<Ticket, Delivery>,
    /// By where the hint lies; and which acknowledgement is for which.
    collapses: BTreeMap<Vec<u8>, Collapse>,
    collapsing: BTreeMap<Ticket, Vec<u8>>,
    /// What all owners had seen at an earlier moment: up to there the log goes when it is old enough.
    cuts: BTreeMap<Partition, (Context, u64)>,
    next: Ticket,
    round_at_us: u64,
    rounds: u64,
    stats: Stats,
}

impl Shard {
    /// A lane over a store that may hold earlier data. Reads what every owned partition has seen.
    pub fn start(
        options: ShardOptions,
        view: Arc<View>,
        incarnation: Incarnation,
        now: Now,
        turn: &mut Turn,
    ) -> Result<Self, StoreError> {
        let partitions = view.layout.partitions;
        let mut replica = Replica::new(incarnation, partitions, Objects::new(options.objects_bytes, options.seed));
        replica.now_us = now.mono_us;
        replica.planted = options.planted;
        replica.op_id_window_ms = options.op_id_window_ms;
        let mine = |partition: &Partition| partition.0 % options.lanes == options.lane;
        for partition in view.partitions_owned(options.me).filter(mine) {
            replica.state(turn, partition)?;
        }
        let hints = Hints::load(turn, (0..partitions).map(Partition).filter(mine))?;
        let mut exchange = Exchange::default();
        for peer in view.peers_of(options.me).map(|member| member.id).filter(|peer| view.is_up(*peer)) {
            exchange.peer_returned(peer);
        }
        // The lane above, who counts next (a coordinator or its shard), and where this process begins to count.
        let begin = if options.planted == Planted::TicketsUsedAgain { 0 } else { u64::MAX };
        let begin = begin & mix64(incarnation.0 ^ now.wall_ms.rotate_left(20) ^ now.mono_us) & ((1 << 40) - 1);
        let tickets = Ticket::from(options.lane) << 48 | begin;
        let mut floors = Floors::new(options.settle_us, options.collect_rest_us);
        floors.planted = options.planted;
        let mut fences = Fences::load(turn, options.horizon_us)?;
        fences.observe(&view, options.me, now.mono_us);
        Ok(Self {
            coordinator: Coordinator::new(tickets),
            replica,
            hints,
            exchange,
            floors,
            fences,
            fenced_out: false,
            collecting: None,
            collect_at_us: u64::MAX,
            repairs: Repairs::default(),
            entering: BTreeMap::new(),
            enter_at_us: u64::MAX,
            scrub: Scrub::default(),
            scrub_seen: Context::default(),
            alarms: Vec::new(),
            // Not all nodes at once, and none just after its start.
            scrub_at_us: match options.scrub_interval_us {
                0 => u64::MAX,
                interval_us => now.mono_us + interval_us / 2 + mix64(incarnation.0) % (interval_us / 2 + 1),
            },
            page_at_us: 0,
            scans: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            collapses: BTreeMap::new(),
            collapsing: BTreeMap::new(),
            cuts: BTreeMap::new(),
            next: tickets | (1 << 47),
            round_at_us: now.mono_us,
            rounds: 0,
            stats: Stats::default(),
            view,
            options,
        })
    }

    /// Takes one input. An error means that the store failed: the turn must be thrown away and the store fenced.
    pub fn handle(&mut self, now: Now, input: Input, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        if self.fenced_out {
            self.refuse(input, out);
            return Ok(());
        }
        match input {
            Input::Request { ticket, request } => {
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_request(&mut desk, Origin::Door(ticket), request)
            }
            Input::Scan { ticket, scan } => self.handle_scan(now, ticket, scan, turn, out),
            Input::Message { from, message } => self.handle_message(now, from, message, turn, out),
            Input::View(view) => self.handle_view(now, view, turn, out),
            Input::Scrub => {
                self.begin_scrub(now, SCRUB_PAUSE_US);
                Ok(())
            }
            Input::LinkUp(node) => self.greet(now, node, turn, out),
            Input::LinkDown(node) => {
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_link_down(&mut desk, node)?;
                self.exchange.peer_left(node);
                self.deliveries.retain(|_, delivery| delivery.owner != node);
                self.fail_scans(out, |scanning| scanning.to == node);
                Ok(())
            }
        }
    }

    /// Nothing is taken and nothing asked: what is held here is no part of the cluster any more.
    fn refuse(&mut self, input: Input, out: &mut Outbox) {
        let node = self.view.name_of(self.options.me).to_string();
        let cause = FENCED_OUT.to_string();
        match input {
            Input::Request { ticket, .. } => {
                let result = Err(RequestError::StoreFailed { node, cause, mutation: false });
                out.replies.push((ticket, Response { result, receipt: Default::default() }));
            }
            Input::Scan { ticket, .. } => {
                out.pages.push((ticket, Err(RequestError::StoreFailed { node, cause, mutation: false })));
            }
            Input::Message { from, message } => {
                let refused = message.refused(&node, Refusal::StoreFailed { cause });
                out.sends.extend(refused.map(|message| (from, Traffic::Foreground, message)));
            }
            Input::View(view) => self.view = view,
            Input::Scrub | Input::LinkUp(_) | Input::LinkDown(_) => {}
        }
    }

    pub fn handle_timeout(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        if self.fenced_out {
            return Ok(());
        }
        let (coordinator, mut desk) = self.desk(now, turn, out);
        coordinator.handle_timeout(&mut desk)?;
        if now.mono_us >= self.round_at_us {
            self.round(now, turn, out)?;
            self.round_at_us = now.mono_us + self.options.exchange_interval_us;
        }
        if now.mono_us >= self.scrub_at_us {
            self.scrub_at_us = now.mono_us + self.options.scrub_interval_us;
            self.begin_scrub(now, SCRUB_BACKGROUND_PAUSE_US);
        }
        self.scrub(now, turn, out)?;
        if now.mono_us >= self.collect_at_us {
            self.collect(now, turn)?;
        }
        self.ask_pages(now, out);
        self.enter_rows(now, turn)?;
        self.repair(now, turn, out)?;
        self.fail_scans(out, |scanning| scanning.deadline_us <= now.mono_us);
        Ok(())
    }

    /// When `handle_timeout` wants to be called next, in monotonic microseconds.
    pub fn poll_timeout(&self) -> u64 {
        if self.fenced_out {
            return u64::MAX;
        }
        let scans = self.scans.values().map(|scan| scan.deadline_us).min();
        let scrub = self.scrub_at_us.min(self.scrub.poll_timeout());
        let pages = self.exchange.pages_due_us();
        let others = [
            self.coordinator.poll_timeout(),
            scans,
            Some(self.collect_at_us),
            Some(scrub),
            pages,
            self.repairs.due_us(),
            Some(self.enter_at_us),
        ];
        others.into_iter().flatten().fold(self.round_at_us, u64::min)
    }

    /// Must be called once after the last input of a turn, before the commit.
    pub fn finish(&mut self, turn: &mut Turn) {
        self.replica.finish(turn);
    }

    /// Ends everything under way: the store failed or the node stops.
    pub fn fail_all(&mut self, now: Now, out: &mut Outbox, error: impl Fn(bool) -> RequestError) {
        self.coordinator.fail_all(&self.view, out, now, error);
        self.fail_scans(out, |_| true);
    }

    /// A dot of this incarnation came from outside that was never minted here: the store lost its memory, and the incarnation must
    /// not be used any more. Tells once.
    pub fn take_amnesia(&mut self) -> bool {
        std::mem::take(&mut self.replica.amnesia)
    }

    /// Goes on under another incarnation.
    pub fn reincarnate(&mut self, incarnation: Incarnation) {
        self.stats.add("incarnations_minted_total", 1);
        self.replica.reincarnate(incarnation);
    }

    pub fn status(&self) -> ShardStatus {
        let mut status = ShardStatus {
            hints: self.hints.count,
            hint_bytes: self.hints.bytes,
            hints_for: self.hints.by_owner(),
            log_entries: self.replica.log_entries,
            under_way: self.coordinator.under_way() as u64,
            pulls: self.exchange.pulls() as u64,
            held: self.floors.oldest(self.replica.now_us).map(|held| held_status(held, &self.view)),
            scrub: self.scrub.report(),
            sync: self.exchange.syncs(self.stats.get("syncs_done_total"), self.stats.get("sync_rows_total")),
            fenced_out: self.fenced_out(),
            absences: self.fences.absences(&self.view, self.options.me, self.replica.now_us).collect(),
            stats: self.stats.clone(),
            ..ShardStatus::default()
        };
        status.stats.add("objects_remembered_total", self.replica.objects.hits);
        status.stats.add("objects_read_total", self.replica.objects.misses);
        let nothing = Default::default();
        for (partition, state) in self.replica.partitions_loaded() {
            if !self.view.is_owner(partition, self.options.me) {
                continue;
            }
            status.garbage += state.garbage;
            status.unsure += u64::from(state.unsure);
            status.due += u64::from(self.replica.has_due(partition, self.replica.clock.last().wall_ms()));
            let mut behind = 0;
            for peer in self.view.owners(partition).filter(|peer| *peer != self.options.me) {
                let theirs = self.exchange.seen_by(peer, partition).unwrap_or(&nothing);
                *status.peer_lag.entry(peer).or_insert(0) += theirs.lacks(&state.seen);
                behind = behind.max(state.seen.lacks(theirs));
            }
            status.behind += behind;
        }
        status
    }

    /// What this node knows of a key.
    pub fn explain(&mut self, now: Now, key: &Key, turn: &Turn) -> Result<KeyStatus, StoreError> {
        let partition = self.replica.partition_of(key);
        let mut rows = self.replica.read(turn, key, &Scope::Glance)?;
        let more = rows.len() >= EXPLAINED_ROWS_MAX;
        rows.truncate(EXPLAINED_ROWS_MAX);
        let mut hints = BTreeMap::new();
        for owner in self.view.owners(partition) {
            let count = self.hints.of_key_for(turn, partition, owner, key)?;
            if count > 0 {
                hints.insert(self.view.name_of(owner).to_string(), count);
            }
        }
        let held = self.floors.held(partition, now.mono_us).map(|held| held_status(held, &self.view));
        let syncing = self.exchange.promised(partition).is_some();
        let state = self.replica.state(turn, partition)?;
        Ok(KeyStatus {
            name: self.view.name_of(self.options.me).to_string(),
            partition,
            owner: self.view.is_owner(partition, self.options.me),
            rows,
            more,
            seen: state.seen.clone(),
            dead: state.dead.iter().copied().take(EXPLAINED_ROWS_MAX).collect(),
            hints,
            garbage: state.garbage,
            held,
            syncing,
            wall_ms: now.wall_ms,
        })
    }

    /// What this lane has seen of a partition, if it has been touched since the start.
    pub fn seen(&self, partition: Partition) -> Option<&Context> {
        Some(&self.replica.loaded(partition)?.seen)
    }

    /// Is a full sync of a partition under way?
    pub fn is_syncing(&self, partition: Partition) -> bool {
        self.exchange.promised(partition).is_some()
    }

    fn desk<'a, 'b>(
        &'a mut self,
        now: Now,
        turn: &'a mut Turn<'b>,
        out: &'a mut Outbox,
    ) -> (&'a mut Coordinator, Desk<'a, 'b>) {
        let desk = Desk {
            now,
            view: &self.view,
            options: &self.options,
            replica: &mut self.replica,
            hints: &mut self.hints,
            repairs: &mut self.repairs,
            exchange: &self.exchange,
            turn,
            out,
            stats: &mut self.stats,
        };
        (&mut self.coordinator, desk)
    }

    fn handle_message(
        &mut self,
        now: Now,
        from: NodeId,
        message: PeerMessage,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let PeerMessage { partition, body } = message;
        self.coordinator.heard(from, now.mono_us);
        if partition.0 >= self.view.layout.partitions {
            self.stats.add("messages_refused_total", 1);
            return Ok(());
        }
        if let Body::Fenced { store } = body {
            // Not to be answered: two that fence each other would never end.
            if store == self.options.store {
                self.fence_out(now, from, out);
            }
            return Ok(());
        }
        if self.fences.is_fenced(&self.view, from) {
            self.stats.add("fenced_messages_total", 1);
            let store = self.view.store_of(from);
            if store != StoreId::default() {
                background(out, from, partition, Body::Fenced { store });
            }
            let name = self.view.name_of(self.options.me);
            let refusal = Refusal::Busy { cause: "the asker is fenced".to_string() };
            let refused = PeerMessage { partition, body }.refused(name, refusal);
            out.sends.extend(refused.map(|message| (from, Traffic::Foreground, message)));
            return Ok(());
        }
        match body {
            Body::Replicate { ticket, delta, role, sync } => {
                let result = self.replicate(now, partition, &delta, role, turn)?;
                out.sync |= sync && result.is_ok() && self.options.planted != Planted::FsyncClaimed;
                let result = result.map(|kept| Kept { fsynced: sync, ..kept });
                reply(out, from, partition, Body::ReplicateAck { ticket, result });
            }
            Body::ReplicateAck { ticket, result } => {
                if let Some(delivery) = self.deliveries.remove(&ticket) {
                    if result.is_ok() {
                        self.hints.drop_one(turn, &delivery.at)?;
                        self.stats.add("hints_delivered_total", 1);
                        self.deliver_hints(now, delivery.owner, delivery.partition, turn, out)?;
                    }
                    return Ok(());
                }
                if let Some(at) = self.collapsing.remove(&ticket) {
                    return self.take_collapsed(from, at, result.is_ok(), turn);
                }
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_ack(&mut desk, from, ticket, result)?;
            }
            Body::Read { ticket, key, scope, digest: theirs, op_id } => {
                let op_known = match op_id {
                    Some(op_id) => self.replica.op_rows(turn, partition, op_id)?,
                    None => None,
                };
                let owner = self.view.is_owner(partition, self.options.me);
                let rows = if owner {
                    if theirs.is_some() && theirs == self.replica.held_digest(turn, &key, &scope) {
                        self.replica.objects.hits += 1;
                        Rows::Same
                    } else {
                        let object = Object::new(self.replica.read(turn, &key, &scope)?);
                        if theirs.is_some_and(|theirs| theirs == digest(&object.rows)) {
                            Rows::Same
                        } else {
                            let context = self.replica.state(turn, partition)?.knowledge();
                            Rows::Held { rows: object.rows.into_iter().collect(), context }
                        }
                    }
                } else {
                    Rows::Hinted { deltas: self.hints.of_key(turn, partition, &key)? }
                };
                let result = Ok(Reading { rows, op_known, stand_in: !owner });
                reply(out, from, partition, Body::ReadReply { ticket, result });
            }
            Body::ReadReply { ticket, result } => {
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_read_reply(&mut desk, from, ticket, result)?;
            }
            Body::AskTallied { ticket, op_ids } => {
                let mut dots = Vec::new();
                for op_id in op_ids {
                    let known = self.replica.known_op(turn, partition, op_id)?;
                    dots.extend(known.filter(|known| known.tally).map(|known| (op_id, known.dot)));
                }
                reply(out, from, partition, Body::Tallied { ticket, dots: Some(dots) });
            }
            Body::Tallied { ticket, dots } => {
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_tallied(&mut desk, from, ticket, dots)?;
            }
            Body::Forward { ticket, request } => {
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_request(&mut desk, Origin::Peer { node: from, ticket }, request)?;
            }
            Body::ForwardReply { ticket, response } => {
                let (coordinator, mut desk) = self.desk(now, turn, out);
                coordinator.handle_forward_reply(&mut desk, from, ticket, *response)?;
            }
            Body::Repair { ticket, key, rows, entries, note, sync } => {
                let noted = note.iter().flat_map(|note| &note.mutations).map(|mutation| mutation.dot);
                let entered = entries.iter().map(|entry| entry.dot);
                let dots: Vec<Dot> = rows.iter().flat_map(|row| row.row.dots()).chain(noted).chain(entered).collect();
                let result = if self.in_sync(turn, partition, dots.into_iter())? {
                    self.stats.add("syncing_refused_total", 1);
                    Err(Refusal::Syncing)
                } else if !self.view.is_owner(partition, self.options.me) {
                    Err(Refusal::NotOwner { layout: self.view.layout.version })
                } else if ticket.is_some() && self.replica.came_too_late(turn, &entries)? {
                    Err(Refusal::Ended(Box::default()))
                } else {
                    self.replica.take_repair(turn, now, &key, rows)?;
                    self.replica.take_log_rows(turn, now, partition, entries)?;
                    if let Some(note) = &note {
                        self.replica.take(turn, now, note, false)?;
                    }
                    self.stats.add("repairs_taken_total", 1);
                    out.sync |= sync;
                    Ok(Kept { fsynced: sync, newer: None, strays: None })
                };
                if let Some(ticket) = ticket {
                    reply(out, from, partition, Body::ReplicateAck { ticket, result });
                }
            }
            Body::ReportDigest { digest, answer } => {
                if self.view.is_owner(partition, self.options.me) {
                    let state = self.replica.state(turn, partition)?;
                    if state.seen.digest() == digest {
                        self.exchange.take_report(from, partition, state.seen.clone(), &state.seen);
                        if answer {
                            self.exchange.must_report(from, partition, state.version);
                            background(out, from, partition, Body::ReportDigest { digest, answer: false });
                        }
                    } else {
                        // It may have lost its disk since it said that it has all of this.
                        let theirs = self.exchange.seen_by(from, partition);
                        let believed = theirs.is_some_and(|theirs| theirs.covers(&state.seen));
                        // What it was told before may have gone to one that took nothing from here yet.
                        let stranger = theirs.is_none();
                        if believed {
                            self.exchange.forget_report(from, partition);
                        }
                        let untold = self.exchange.must_report(from, partition, state.version);
                        // When both have told each other their digests, one of them begins.
                        if believed || stranger || untold || answer || self.options.me < from {
                            let seen = state.seen.clone();
                            background(out, from, partition, Body::Report { seen, answer: true });
                        }
                    }
                }
            }
            Body::Report { seen, answer } => {
                if self.view.is_owner(partition, self.options.me) {
                    let state = self.replica.state(turn, partition)?;
                    self.exchange.take_report(from, partition, seen, &state.seen);
                    if answer {
                        self.exchange.must_report(from, partition, state.version);
                        let seen = state.seen.clone();
                        background(out, from, partition, Body::Report { seen, answer: false });
                    }
                    self.pull_next(now, turn, out)?;
                }
            }
            Body::Pull { have } => {
                let page = self.replica.log_page(turn, partition, &have, self.options.page_bytes)?;
                self.stats.add("exchange_rows_sent_total", page.entries.len() as u64);
                let entries = PackedLog::pack(page.entries);
                let body = Body::PullReply { entries, more: page.more, trimmed: page.trimmed };
                background(out, from, partition, body);
            }
            Body::PullReply { entries, more, trimmed } => {
                if !self.exchange.answers_pull(partition, from, now.mono_us) {
                    return Ok(());
                }
                let taken = entries.len() as u64;
                self.stats.add("exchange_rows_taken_total", taken);
                self.replica.take_log_rows(turn, now, partition, entries.unpack())?;
                if trimmed {
                    // One that comes twice begins nothing.
                    if self.exchange.promised(partition).is_none() {
                        self.stats.add("full_syncs_total", 1);
                        self.exchange.ask_page(partition, None, now.mono_us.max(self.page_at_us));
                        self.ask_pages(now, out);
                    }
                } else if more && taken > 0 {
                    let have = self.replica.state(turn, partition)?.seen.clone();
                    background(out, from, partition, Body::Pull { have });
                } else {
                    self.exchange.end_pull(partition);
                    self.pull_next(now, turn, out)?;
                }
            }
            Body::SyncPull { after } => {
                let page = self.replica.row_page(turn, partition, after.as_ref(), self.options.page_bytes)?;
                let RowPage { seen, dead, rows, next } = page;
                let body = Body::SyncPage { seen, dead, after, rows, next };
                background(out, from, partition, body);
            }
            Body::SyncPage { seen, dead, after, rows, next } => {
                self.take_sync_page(now, from, partition, seen, dead, after, rows, next, turn, out)?;
            }
            Body::Ask { number, question } => {
                let answer = self.answer(now, partition, question, turn, out)?;
                background(out, from, partition, Body::Answered { number, answer });
            }
            Body::Answered { number, answer } => {
                self.floors.take(now.mono_us, from, partition, number, answer);
                self.ask(now, turn, out)?;
            }
            Body::Compare { number, seen, from: first, to, wall_ms } => {
                let mine = &self.replica.state(turn, partition)?.seen;
                let digest = if *mine == seen && self.view.is_owner(partition, self.options.me) {
                    Some(self.replica.digest(turn, partition, first, to, usize::MAX, wall_ms)?.sum)
                } else {
                    None
                };
                background(out, from, partition, Body::Compared { number, digest });
            }
            Body::Compared { number, digest } => {
                let finding = self.scrub.take(from, number, digest, now.mono_us);
                self.found(finding, turn)?;
            }
            // Taken above.
            Body::Fenced { .. } => {}
            Body::Scan { ticket, scan } => {
                let page = self.scan_here(now, &scan, turn)?;
                reply(out, from, partition, Body::ScanReply { ticket, page: Ok(page) });
            }
            Body::ScanReply { ticket, page } => {
                if let Some(scanning) = self.scans.remove(&ticket) {
                    out.pages.push((scanning.ticket, page));
                }
            }
        }
        Ok(())
    }

    fn replicate(
        &mut self,
        now: Now,
        partition: Partition,
        delta: &crate::data::mutation::Delta,
        role: Role,
        turn: &mut Turn,
    ) -> Result<Result<Kept, Refusal>, StoreError> {
        let bound_ms = self.options.clock_ahead_max_ms;
        let believed = self.replica.believes(turn, now, partition, delta.made, bound_ms)?;
        let doubted = role != Role::OwnerOfHint || self.options.planted == Planted::HintsDoubted;
        if !believed && doubted {
            self.stats.add("clock_ahead_refused_total", 1);
            return Ok(Err(Refusal::ClockAhead { bound_ms }));
        }
        if let Role::StandInFor(owner) = role {
            let limit = self.options.hint_bytes_max;
            let kept = self.options.planted == Planted::HintsNotKept
                || self.hints.keep(turn, partition, std::iter::once(owner), delta, limit)?;
            self.stats.add(if kept { "hints_kept_total" } else { "hints_refused_total" }, 1);
            return Ok(if kept {
                Ok(Kept { fsynced: false, newer: None, strays: None })
            } else {
                Err(Refusal::HintsFull)
            });
        }
        if !self.view.is_owner(partition, self.options.me) {
            return Ok(Err(Refusal::NotOwner { layout: self.view.layout.version }));
        }
        if self.in_sync(turn, partition, delta.mutations.iter().map(|mutation| mutation.dot))? {
            self.stats.add("syncing_refused_total", 1);
            return Ok(Err(Refusal::Syncing));
        }
        let strays = if role == Role::Owner { self.replica.strays(turn, now, delta)? } else { None };
        // Nor is it remembered as done, should another try come.
        if let Some(strays) = strays.as_ref().filter(|strays| strays.ended) {
            return Ok(Err(Refusal::Ended(strays.clone())));
        }
        let taken = self.replica.take(turn, now, delta, false)?;
        Ok(Ok(Kept { fsynced: false, newer: taken.newer, strays }))
    }

    fn handle_view(&mut self, now: Now, view: Arc<View>, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut self.view, view);
        self.fences.observe(&self.view, self.options.me, now.mono_us);
        let peers: Vec<NodeId> = self.view.peers_of(self.options.me).map(|member| member.id).collect();
        for peer in peers {
            // What its data lie in is another than before, and no word of that which came ahead of this news was taken if it was fenced.
            let emptied =
                before.store_of(peer) != self.view.store_of(peer) && before.store_of(peer) != StoreId::default();
            if emptied {
                self.exchange.forget_peer(peer);
                // They count on what it has reported.
                self.cuts.clear();
            }
            match (before.is_up(peer) && !emptied, self.view.is_up(peer)) {
                (false, true) => {
                    self.greet(now, peer, turn, out)?;
                }
                (true, false) => {
                    self.exchange.peer_left(peer);
                    let (coordinator, mut desk) = self.desk(now, turn, out);
                    coordinator.handle_link_down(&mut desk, peer)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A peer is back, or a link to it is: everything is reported to it, hints for it set off, and its reports acted on at once.
    fn greet(&mut self, now: Now, peer: NodeId, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        if !self.view.is_up(peer) {
            return Ok(());
        }
        self.coordinator.heard(peer, now.mono_us);
        self.exchange.peer_returned(peer);
        let owed: Vec<Partition> = self.hints.owed().filter(|(owner, _)| *owner == peer).map(|(_, at)| at).collect();
        for partition in owed {
            self.deliver_hints(now, peer, partition, turn, out)?;
        }
        // At once, not at the next round.
        self.round_at_us = now.mono_us;
        Ok(())
    }
}

fn held_status(held: Held, view: &View) -> HeldStatus {
    HeldStatus {
        partition: held.partition,
        for_ms: held.for_us / 1_000,
        by: held.by.into_iter().map(|node| view.name_of(node).to_string()).collect(),
        told: held.told,
    }
}

fn reply(out: &mut Outbox, to: NodeId, partition: Partition, body: Body) {
    out.sends.push((to, Traffic::Foreground, PeerMessage { partition, body }));
}

fn background(out: &mut Outbox, to: NodeId, partition: Partition, body: Body) {
    out.sends.push((to, Traffic::Background, PeerMessage { partition, body }));
}

/// Runs a whole turn over a store: inputs, commit, and what is to be said. For tests and simple hosts.
pub fn run_turn(
    shard: &mut Shard,
    now: Now,
    store: &dyn Storage,
    inputs: impl IntoIterator<Item = Input>,
) -> Result<Outbox, StoreError> {
    let mut turn = Turn::new(store);
    let mut out = Outbox::default();
    for input in inputs {
        shard.handle(now, input, &mut turn, &mut out)?;
    }
    shard.handle_timeout(now, &mut turn, &mut out)?;
    shard.finish(&mut turn);
    let batch = turn.into_batch();
    if !batch.is_empty() || out.sync {
        store.commit(&batch, out.sync)?;
    }
    Ok(out)
}
