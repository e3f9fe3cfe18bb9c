//! A lane's brain: one match from input to the machine that owns it, and the clockwork of background rounds.
//!
//! It decides nothing about requests (that is the coordinator), rows (the replica), hints or rounds (the exchange); it hands each
//! input to its machine and carries answers from one to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::data::clock::Now;
use crate::data::context::Context;
use crate::data::id::{Dot, Incarnation, NodeId, Partition, StoreId, mix64};
use crate::data::object::Object;
use crate::data::op::Key;
use crate::data::op::{RequestError, Response, ScanPage, ScanRequest};
use crate::data::path::{Path, parse_row_key};
use crate::data::row::Row;
use crate::ring::view::View;
use crate::storage::{Space, Storage, StoreError};
use crate::wire::message::{
    Answer, Body, Fence, Kept, PeerMessage, Question, Reading, Refusal, Role, Rows, Scope, Ticket,
};
use crate::wire::packed_log::PackedLog;
use crate::wire::status::{HeldStatus, KeyStatus, ScrubStatus, SyncStatus};

use super::coordinator::{Coordinator, Desk, Origin, digest, plan};
use super::exchange::{Exchange, Promise};
use super::fence::{Absence, Fences};
use super::floor::{Cut, Floors, Held};
use super::hints::Hints;
use super::planted::Planted;
use super::repair::Repairs;
use super::replica::collect::Position;
use super::replica::sync::{RowPage, size as row_bytes};
use super::replica::{Replica, Turn, decode, upper_bound};
use super::scrub::{Finding, PIECE_ROWS, Piece, Scrub};
use super::turn::{DoorTicket, Input, Outbox, ShardOptions, Stats, Traffic};

/// Rows that a scan looks at before it ends its page, found something or not.
const SCAN_ROWS_MAX: usize = 20_000;
/// Operation ids that doors made are kept for this long.
const RECENT_US: u64 = 60_000_000;
/// A page of hints that is not acknowledged for this long is sent again.
const HINT_RETRY_US: u64 = 3_000_000;

/// Partitions that begin to be asked for a floor in one round.
const ASKS_MAX: usize = 64;
/// Between two steps of the collector: whoever waits comes first.
const COLLECT_PAUSE_US: u64 = 5_000;
/// Between two pages of rows that a full sync left, entered as seen.
const ENTER_PAUSE_US: u64 = 5_000;

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
        let mut replica = Replica::new(incarnation, partitions);
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
        self.replica.incarnation = incarnation;
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
                let result = result.map(|newer| Kept { fsynced: sync, newer });
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
                    let rows = self.replica.read(turn, &key, &scope)?;
                    let object = Object::new(rows);
                    if theirs.is_some_and(|theirs| theirs == digest(&object.rows)) {
                        Rows::Same
                    } else {
                        let context = self.replica.state(turn, partition)?.knowledge();
                        Rows::Held { rows: object.rows.into_iter().collect(), context }
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
                } else if self.view.is_owner(partition, self.options.me) {
                    self.replica.take_repair(turn, now, &key, rows)?;
                    self.replica.take_log_rows(turn, now, partition, entries)?;
                    if let Some(note) = &note {
                        self.replica.take(turn, now, note, false)?;
                    }
                    self.stats.add("repairs_taken_total", 1);
                    out.sync |= sync;
                    Ok(Kept { fsynced: sync, newer: None })
                } else {
                    Err(Refusal::NotOwner { layout: self.view.layout.version })
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
                    } else if self.exchange.must_report(from, partition, state.version)
                        || answer
                        || self.options.me < from
                    {
                        // When both have told each other their digests, one of them begins.
                        let seen = state.seen.clone();
                        background(out, from, partition, Body::Report { seen, answer: true });
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
                    self.stats.add("full_syncs_total", 1);
                    background(out, from, partition, Body::SyncPull { after: None });
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
    ) -> Result<Result<Option<crate::data::clock::Stamp>, Refusal>, StoreError> {
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
            return Ok(if kept { Ok(None) } else { Err(Refusal::HintsFull) });
        }
        if !self.view.is_owner(partition, self.options.me) {
            return Ok(Err(Refusal::NotOwner { layout: self.view.layout.version }));
        }
        if self.in_sync(turn, partition, delta.mutations.iter().map(|mutation| mutation.dot))? {
            self.stats.add("syncing_refused_total", 1);
            return Ok(Err(Refusal::Syncing));
        }
        let taken = self.replica.take(turn, now, delta, false)?;
        Ok(Ok(taken.newer))
    }

    /// Is one of these dots, not seen yet, among what a full sync under way is going to bring, or to tell that it is dead? It might be put after its page has
    /// passed, and be taken for seen and standing at the end though the page said that it is gone.
    fn in_sync(
        &mut self,
        turn: &Turn,
        partition: Partition,
        mut dots: impl Iterator<Item = Dot>,
    ) -> Result<bool, StoreError> {
        let Some(promised) = self.exchange.promised(partition) else { return Ok(false) };
        if self.options.planted == Planted::WritesAmidSync {
            return Ok(false);
        }
        let seen = &self.replica.state(turn, partition)?.seen;
        Ok(dots.any(|dot| (promised.seen.contains(dot) || promised.dead.contains(&dot)) && !seen.contains(dot)))
    }

    fn handle_view(&mut self, now: Now, view: Arc<View>, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut self.view, view);
        self.fences.observe(&self.view, self.options.me, now.mono_us);
        let peers: Vec<NodeId> = self.view.peers_of(self.options.me).map(|member| member.id).collect();
        for peer in peers {
            match (before.is_up(peer), self.view.is_up(peer)) {
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
        self.exchange.peer_returned(peer);
        let owed: Vec<Partition> = self.hints.owed().filter(|(owner, _)| *owner == peer).map(|(_, at)| at).collect();
        for partition in owed {
            self.deliver_hints(now, peer, partition, turn, out)?;
        }
        // At once, not at the next round.
        self.round_at_us = now.mono_us;
        Ok(())
    }

    // --- background

    fn round(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        self.rounds += 1;
        self.exchange.begin_round(now.mono_us);
        self.replica.forget_recent(now.mono_us, RECENT_US);
        let me = self.options.me;
        let view = self.view.clone();
        let mut stable = Vec::new();
        for (partition, state) in self.replica.partitions_loaded() {
            if !view.is_owner(partition, me) {
                continue;
            }
            let mut digest = None;
            // Nothing seen is worth a word too: it may have been more before the disk was lost.
            for peer in view.owners(partition).filter(|peer| *peer != me && view.is_up(*peer)) {
                let answer = self.exchange.doubts(peer, partition, &state.seen);
                if self.exchange.must_report(peer, partition, state.version) || answer {
                    let digest = *digest.get_or_insert_with(|| state.seen.digest());
                    background(out, peer, partition, Body::ReportDigest { digest, answer });
                }
            }
            if state.log_entries > 0 {
                if self.cuts.get(&partition).is_some_and(|(_, at_us)| at_us + self.options.log_keep_us <= now.mono_us)
                    && let Some((cut, _)) = self.cuts.remove(&partition)
                {
                    stable.push((partition, cut));
                }
                let early = self.options.planted == Planted::LogDroppedEarly;
                let fences = &self.fences;
                let others =
                    view.owners(partition).filter(|peer| *peer != me && !early && !fences.is_fenced(&view, *peer));
                let cut = || (self.exchange.stable(partition, &state.seen, others), now.mono_us);
                self.cuts.entry(partition).or_insert_with(cut);
            }
        }
        for (partition, cut) in stable {
            let dropped = self.replica.trim(turn, partition, &cut)?;
            self.stats.add("log_trimmed_total", dropped);
        }
        let replica = &self.replica;
        self.exchange.end_round(|partition| Some(replica.loaded(partition)?.seen.clone()));
        self.pull_next(now, turn, out)?;
        self.seek_floors(now, turn, out)?;
        self.begin_entering(now);
        self.deliveries.retain(|_, delivery| delivery.deadline_us > now.mono_us);
        self.collapses.retain(|_, collapse| collapse.deadline_us > now.mono_us);
        let collapses = &self.collapses;
        self.collapsing.retain(|_, at| collapses.contains_key(at));
        let owed: Vec<(NodeId, Partition)> = self.hints.owed().collect();
        for (owner, partition) in owed {
            if self.fences.is_fenced(&view, owner) || self.is_short_of_room() && !view.is_up(owner) {
                self.collapse_hints(now, owner, partition, turn, out)?;
            } else {
                self.deliver_hints(now, owner, partition, turn, out)?;
            }
        }
        Ok(())
    }

    /// Begins to ask for a floor where something waits for one, and goes on where it has begun.
    fn seek_floors(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let view = self.view.clone();
        let me = self.options.me;
        let without = self.fences.without(&view, me, now.mono_us);
        let all: Vec<NodeId> = view.layout.members.iter().map(|member| member.id).collect();
        self.floors.leave_out(&without, &all);
        let wall_ms = self.replica.clock.last().wall_ms().max(now.wall_ms);
        let begin: Vec<Partition> = self
            .replica
            .partitions_loaded()
            .map(|(partition, _)| partition)
            .filter(|partition| view.is_owner(*partition, self.options.me))
            .filter(|partition| self.replica.has_due(*partition, wall_ms))
            .filter(|partition| self.floors.may_begin(*partition, now.mono_us))
            .filter(|partition| self.collecting.as_ref().is_none_or(|(at, ..)| at != partition))
            .take(ASKS_MAX)
            .collect();
        for partition in begin {
            let began = self.replica.clock.tick(now, crate::data::clock::Hlc(0));
            if self.options.planted == Planted::FloorNotAsked {
                let target = self.replica.state(turn, partition)?.seen.clone();
                self.collecting = Some((partition, Cut { floor: began, began, target }, Position::default()));
                self.collect_at_us = now.mono_us;
                break;
            }
            let number = self.next;
            self.next += 1;
            self.floors.begin(partition, number, began, now.mono_us, all.iter().copied(), without.clone());
        }
        self.ask(now, turn, out)
    }

    /// Sends owners what a read found them to lack and they have not seen since, as it stands here now.
    fn repair(&mut self, now: Now, turn: &Turn, out: &mut Outbox) -> Result<(), StoreError> {
        while let Some(lack) = self.repairs.next(now.mono_us) {
            let partition = self.replica.partition_of(&lack.key);
            let still = lack.still(self.exchange.seen_by(lack.node, partition));
            if still.is_empty() || !self.view.is_up(lack.node) || !self.view.is_owner(partition, lack.node) {
                continue;
            }
            let rows = self.replica.rows_at(turn, &lack.key, still)?;
            if rows.is_empty() {
                continue;
            }
            self.stats.add("read_repairs_total", 1);
            let body = Body::Repair { ticket: None, key: lack.key, rows, entries: Vec::new(), note: None, sync: false };
            background(out, lack.node, partition, body);
        }
        Ok(())
    }

    /// Where a full sync did not come to its end, its rows are to be entered as seen.
    fn begin_entering(&mut self, now: Now) {
        let exchange = &self.exchange;
        let left = |(partition, state): &(Partition, &super::replica::PartitionState)| {
            state.unsure && !exchange.is_pulling(*partition) && self.options.planted != Planted::SyncRowsNotSeen
        };
        let left: Vec<Partition> = self.replica.partitions_loaded().filter(left).map(|(at, _)| at).collect();
        for partition in left {
            self.entering.entry(partition).or_default();
        }
        if !self.entering.is_empty() {
            self.enter_at_us = self.enter_at_us.min(now.mono_us);
        }
    }

    /// The next page of them. A pause after each: requests go on meanwhile.
    fn enter_rows(&mut self, now: Now, turn: &mut Turn) -> Result<(), StoreError> {
        if now.mono_us < self.enter_at_us {
            return Ok(());
        }
        // A sync that has begun anew brings them again.
        let exchange = &self.exchange;
        self.entering.retain(|partition, _| !exchange.is_pulling(*partition));
        if let Some((partition, after)) = self.entering.pop_first() {
            let next = self.replica.enter_rows(turn, now, partition, after.as_ref(), self.options.page_bytes)?;
            self.stats.add("sync_rows_entered_total", 1);
            self.entering.extend(next.map(|next| (partition, Some(next))));
        }
        self.enter_at_us = if self.entering.is_empty() { u64::MAX } else { now.mono_us + ENTER_PAUSE_US };
        Ok(())
    }

    fn ask(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let view = self.view.clone();
        let members: Vec<NodeId> = view.layout.members.iter().map(|member| member.id).collect();
        loop {
            let me = self.options.me;
            let owners = |partition| view.owners(partition).collect();
            let questions = self.floors.poll(now.mono_us, &members, owners, |node| node == me || view.is_up(node));
            let mut own = Vec::new();
            for (partition, node, number, question) in questions {
                if node == me {
                    own.push((partition, number, self.answer(now, partition, question, turn, out)?));
                } else {
                    background(out, node, partition, Body::Ask { number, question });
                }
            }
            if own.is_empty() {
                break;
            }
            for (partition, number, answer) in own {
                self.floors.take(now.mono_us, me, partition, number, answer);
            }
        }
        self.begin_collecting(now);
        Ok(())
    }

    fn answer(
        &mut self,
        now: Now,
        partition: Partition,
        question: Question,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<Answer, StoreError> {
        let keeps = self.hints.has_any(partition) && self.options.planted != Planted::HintsHoldNothing;
        Ok(match question {
            Question::Floor { without } if !self.fence(now, &without, turn, out) || keeps => Answer::Floor(None),
            Question::Floor { .. } => {
                // A promise that a power cut takes back is none.
                out.sync = true;
                Answer::Floor(Some(self.replica.promise(turn, now, partition)?))
            }
            Question::Away { members } => {
                let is_away =
                    |fence: &Fence| self.fences.is_away(&self.view, *fence, now.mono_us, self.options.settle_us);
                Answer::Away(members.iter().all(is_away) || self.options.planted == Planted::FencesNotAgreed)
            }
            Question::Hints => Answer::Hints(keeps),
            Question::Seen => Answer::Seen(self.replica.state(turn, partition)?.seen.clone()),
        })
    }

    /// Are all of these fenced here, now if not before?
    fn fence(&mut self, now: Now, without: &[Fence], turn: &mut Turn, out: &mut Outbox) -> bool {
        if self.options.planted == Planted::FencesNotAgreed {
            return true;
        }
        let settle_us = self.options.settle_us;
        without.iter().all(|fence| match self.fences.agree(turn, &self.view, *fence, now.mono_us, settle_us) {
            None => false,
            Some(false) => true,
            Some(true) => {
                out.sync = true;
                self.stats.add("members_fenced_total", 1);
                let name = self.view.name_of(fence.node);
                self.alarms.push(format!(
                    "{name} has been away beyond the horizon and is fenced: empty its data folder before it comes back"
                ));
                true
            }
        })
    }

    /// Another says that this node has been away beyond the horizon.
    fn fence_out(&mut self, now: Now, by: NodeId, out: &mut Outbox) {
        self.fenced_out = true;
        let name = self.view.name_of(self.options.me).to_string();
        let by = self.view.name_of(by);
        self.alarms.push(format!("{by} has fenced this node: {FENCED_OUT}"));
        self.fail_all(now, out, |mutation| RequestError::StoreFailed {
            node: name.clone(),
            cause: FENCED_OUT.to_string(),
            mutation,
        });
    }

    /// Why this node takes nothing any more, if others have fenced it.
    pub fn fenced_out(&self) -> Option<&'static str> {
        self.fenced_out.then_some(FENCED_OUT)
    }

    /// Has this node fenced a store?
    pub fn has_fenced(&self, node: NodeId, store: StoreId) -> bool {
        self.fences.has_fenced(node, store)
    }

    /// Hints fill so much of their room that those collapse which the other owners can bring themselves.
    fn is_short_of_room(&self) -> bool {
        self.hints.bytes > self.options.hint_bytes_max / 4 * 3
    }

    /// Hands hints for an owner that is away, or fenced, to the other owners instead. When enough of them hold the writes durably,
    /// exchange brings those to the one that is away, and the hints go.
    fn collapse_hints(
        &mut self,
        now: Now,
        owner: NodeId,
        partition: Partition,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let view = self.view.clone();
        let is_there = |node: &NodeId| *node != owner && view.is_up(*node) && !self.fences.is_fenced(&view, *node);
        let others: Vec<NodeId> = view.owners(partition).filter(is_there).collect();
        // As many as a quorum of stand-ins would have been, so that no acknowledgement gets weaker.
        let needed = if self.fences.is_fenced(&view, owner) { 1 } else { 2.min(view.owner_count().saturating_sub(1)) };
        if others.len() < needed.max(1) {
            return Ok(());
        }
        for (at, delta) in self.hints.page(turn, owner, partition, self.options.page_bytes)? {
            if self.collapses.contains_key(&at) {
                continue;
            }
            let waiting = others.iter().copied().filter(|node| *node != self.options.me).collect();
            let collapse = Collapse { waiting, deadline_us: now.mono_us + HINT_RETRY_US };
            if others.contains(&self.options.me) {
                self.replica.take(turn, now, &delta, false)?;
                out.sync = true;
            }
            for to in &collapse.waiting {
                let ticket = self.next;
                self.next += 1;
                self.collapsing.insert(ticket, at.clone());
                let delta = delta.clone();
                background(out, *to, partition, Body::Replicate { ticket, delta, role: Role::OwnerOfHint, sync: true });
            }
            if collapse.waiting.is_empty() {
                self.hints.drop_one(turn, &at)?;
                self.stats.add("hints_collapsed_total", 1);
            } else {
                self.collapses.insert(at, collapse);
            }
        }
        Ok(())
    }

    fn take_collapsed(&mut self, from: NodeId, at: Vec<u8>, taken: bool, turn: &mut Turn) -> Result<(), StoreError> {
        let Some(collapse) = self.collapses.get_mut(&at) else { return Ok(()) };
        if taken {
            collapse.waiting.remove(&from);
        }
        if !taken || collapse.waiting.is_empty() {
            self.collapses.remove(&at);
        }
        if taken && !self.collapses.contains_key(&at) {
            self.hints.drop_one(turn, &at)?;
            self.stats.add("hints_collapsed_total", 1);
        }
        Ok(())
    }

    fn begin_collecting(&mut self, now: Now) {
        if self.collecting.is_some() {
            return;
        }
        let replica = &self.replica;
        let next = self.floors.next_cut(now.mono_us, |partition| Some(&replica.loaded(partition)?.seen));
        if let Some((partition, cut)) = next {
            self.stats.add("floors_total", 1);
            self.collecting = Some((partition, cut, Position::default()));
            self.collect_at_us = now.mono_us;
        }
    }

    /// One step of dropping what nobody needs any more.
    fn collect(&mut self, now: Now, turn: &mut Turn) -> Result<(), StoreError> {
        self.collect_at_us = u64::MAX;
        let Some((partition, cut, mut position)) = self.collecting.take() else { return Ok(()) };
        if !self.view.is_owner(partition, self.options.me) {
            return Ok(());
        }
        let names = self.view.owners(partition).next() == Some(self.options.me);
        let collected = self.replica.collect(turn, now, partition, &cut, &mut position, names)?;
        self.stats.add("delete_rows_dropped_total", collected.delete_rows);
        self.stats.add("expired_rows_dropped_total", collected.expired_rows);
        self.stats.add("counter_rows_dropped_total", collected.counter_rows);
        self.stats.add("deadlines_dropped_total", collected.deadlines);
        self.stats.add("lives_reopened_total", collected.reopened);
        self.stats.add("op_ids_forgotten_total", collected.op_ids);
        if collected.done {
            self.begin_collecting(now);
        } else {
            self.collecting = Some((partition, cut, position));
            self.collect_at_us = now.mono_us + COLLECT_PAUSE_US;
        }
        Ok(())
    }

    fn begin_scrub(&mut self, now: Now, pause_us: u64) {
        let me = self.options.me;
        let (lane, lanes) = (self.options.lane, self.options.lanes);
        let view = self.view.clone();
        let mine = view.partitions_owned(me).filter(|partition| partition.0 % lanes == lane);
        self.scrub.begin(mine, now.mono_us, pause_us);
    }

    /// The next piece of a scrub: read here, and asked for of the other owners.
    fn scrub(&mut self, now: Now, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        let Some(Piece { partition, from }) = self.scrub.next(now.mono_us) else { return Ok(()) };
        let me = self.options.me;
        let others: Vec<NodeId> = self.view.owners(partition).filter(|owner| *owner != me).collect();
        let busy = self.exchange.is_pulling(partition) || self.replica.state(turn, partition)?.unsure;
        if busy || !others.iter().all(|owner| self.view.is_up(*owner)) {
            self.scrub.cannot_ask(now.mono_us);
            return Ok(());
        }
        let wall_ms = now.wall_ms;
        let digest = self.replica.digest(turn, partition, from, None, PIECE_ROWS, wall_ms)?;
        self.stats.add("scrub_rows_total", digest.rows);
        if digest.unseen > 0 {
            // They reach the others when they are entered.
            self.stats.add("scrub_findings_total", 1);
            self.stats.add("scrub_rows_unseen_total", digest.unseen);
            self.replica.begin_sync(turn, partition)?;
        }
        let number = self.next;
        self.next += 1;
        let seen = self.replica.state(turn, partition)?.seen.clone();
        self.scrub_seen = seen.clone();
        for owner in &others {
            let seen = seen.clone();
            background(out, *owner, partition, Body::Compare { number, seen, from, to: digest.next, wall_ms });
        }
        let finding = self.scrub.ask(number, digest.sum, digest.next, digest.rows, others.into_iter(), now.mono_us);
        self.found(finding, turn)
    }

    /// What a scrub found is told by the host, which sees the count; here it is repaired if it is this node that is wrong.
    fn found(&mut self, finding: Option<Finding>, turn: &mut Turn) -> Result<(), StoreError> {
        let Some(finding) = finding else { return Ok(()) };
        self.stats.add("scrub_findings_total", 1);
        let text = match finding {
            // What has been taken since may be nowhere else: it must not be forgotten with the rest.
            Finding::OddOneOut(partition) if self.replica.state(turn, partition)?.seen != self.scrub_seen => {
                format!("{partition:?} here is not what all other owners held, and has changed since: scrub again")
            }
            Finding::OddOneOut(partition) => {
                self.stats.add("scrub_partitions_forgotten_total", 1);
                self.replica.forget_partition(turn, partition)?;
                format!("{partition:?} here is not what all other owners hold: it is dropped and taken from them anew")
            }
            Finding::Differs(partition, others) => {
                let names: Vec<&str> = others.iter().map(|node| self.view.name_of(*node)).collect();
                format!("{partition:?} here is not what {} holds, and it cannot be told who is wrong", names.join(", "))
            }
        };
        self.alarms.push(text);
        Ok(())
    }

    /// What a person must be told, once.
    pub fn take_alarms(&mut self) -> Vec<String> {
        std::mem::take(&mut self.alarms)
    }

    /// Sends as many pulls as there is room for.
    fn pull_next(&mut self, now: Now, turn: &Turn, out: &mut Outbox) -> Result<(), StoreError> {
        while let Some((partition, from)) = self.exchange.next_pull(now.mono_us) {
            let have = self.replica.state(turn, partition)?.seen.clone();
            // What has come in the meantime needs no asking.
            let lacks = self.exchange.seen_by(from, partition).is_some_and(|theirs| have.lacks(theirs) > 0);
            if !lacks || !self.view.is_up(from) {
                self.exchange.end_pull(partition);
                continue;
            }
            self.stats.add("pulls_total", 1);
            background(out, from, partition, Body::Pull { have });
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn take_sync_page(
        &mut self,
        now: Now,
        from: NodeId,
        partition: Partition,
        seen: Context,
        dead: Vec<Dot>,
        after: Option<bytes::Bytes>,
        rows: Vec<(bytes::Bytes, Row)>,
        next: Option<bytes::Bytes>,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        if !self.exchange.answers_pull(partition, from, now.mono_us) {
            return Ok(());
        }
        if !self.exchange.expects_page(partition, after.as_ref()) {
            return Ok(());
        }
        let first = after.is_none() || self.options.planted == Planted::SyncTrustedLate;
        let context: Context = {
            let mut context = seen.clone();
            dead.iter().for_each(|dot| {
                context.insert(*dot);
            });
            context
        };
        if first {
            // What it brings may lie before the place that has been come to.
            self.entering.remove(&partition);
            let left = self.replica.begin_sync(turn, partition)?;
            let left = left || self.exchange.promised(partition).is_some_and(|before| before.left);
            self.exchange.begin_full_sync(partition, Promise { seen, dead, left, after: after.clone(), due_us: None });
        }
        let known = &self.replica.state(turn, partition)?.seen;
        let is_new = |dot: &Dot| {
            !known.contains(*dot)
                && self.exchange.promised(partition).is_some_and(|promise| !promise.seen.contains(*dot))
        };
        if rows.iter().any(|(_, row)| row.dots().iter().any(is_new)) && self.options.planted != Planted::NewsOfSyncsLost
        {
            self.exchange.bring_more(partition);
        }
        let Promise { seen: promised, dead, left, .. } = self.exchange.promised(partition).cloned().unwrap_or_default();
        self.stats.add("sync_rows_total", rows.len() as u64);
        let bytes: u64 = rows.iter().map(|(at, row)| (at.len() + row_bytes(row)) as u64).sum();
        self.stats.add("sync_bytes_total", bytes);
        if let Some(wait_us) = bytes.saturating_mul(1_000_000).checked_div(self.options.sync_bytes_per_second) {
            self.page_at_us = self.page_at_us.max(now.mono_us) + wait_us;
        }
        self.replica.take_row_page(turn, now, partition, &context, after.as_ref(), rows, next.as_ref())?;
        let dead = if self.options.planted == Planted::DeadNotSent { Vec::new() } else { dead };
        if self.options.planted == Planted::SyncTrustedEarly {
            self.replica.finish_sync(turn, partition, &promised, &dead, left)?;
        }
        match next {
            Some(next) => {
                self.exchange.ask_page(partition, next, now.mono_us.max(self.page_at_us));
                self.ask_pages(now, out);
            }
            None => {
                self.replica.finish_sync(turn, partition, &promised, &dead, left)?;
                self.stats.add("syncs_done_total", 1);
                self.exchange.end_pull(partition);
                self.pull_next(now, turn, out)?;
            }
        }
        Ok(())
    }

    /// Asks for the next pages of full syncs, as fast as they may come.
    fn ask_pages(&mut self, now: Now, out: &mut Outbox) {
        while let Some((from, partition, after)) = self.exchange.next_page(now.mono_us) {
            background(out, from, partition, Body::SyncPull { after: Some(after) });
        }
    }

    /// Sends the next hints of a partition to their owner, unless some are under way.
    fn deliver_hints(
        &mut self,
        now: Now,
        owner: NodeId,
        partition: Partition,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let under_way =
            self.deliveries.values().any(|delivery| delivery.owner == owner && delivery.partition == partition);
        if under_way || !self.view.is_up(owner) || self.fences.is_fenced(&self.view, owner) {
            return Ok(());
        }
        if owner == self.options.me {
            for (at, delta) in self.hints.page(turn, owner, partition, self.options.page_bytes)? {
                self.replica.take(turn, now, &delta, false)?;
                self.hints.drop_one(turn, &at)?;
            }
            return Ok(());
        }
        for (at, delta) in self.hints.page(turn, owner, partition, self.options.page_bytes)? {
            let ticket = self.next;
            self.next += 1;
            let deadline_us = now.mono_us + HINT_RETRY_US;
            if self.options.planted == Planted::HintsDroppedEarly {
                self.hints.drop_one(turn, &at)?;
            }
            self.deliveries.insert(ticket, Delivery { owner, partition, at, deadline_us });
            // The owner fsyncs before it acknowledges: the hint may be the only durable copy.
            background(out, owner, partition, Body::Replicate { ticket, delta, role: Role::OwnerOfHint, sync: true });
        }
        Ok(())
    }

    // --- scans

    fn handle_scan(
        &mut self,
        now: Now,
        ticket: DoorTicket,
        scan: ScanRequest,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let partition = scan.partition;
        if partition.0 >= self.view.layout.partitions {
            let error = RequestError::Protocol(format!("there is no partition {partition}"));
            out.pages.push((ticket, Err(error)));
            return Ok(());
        }
        let me = self.options.me;
        if self.view.is_owner(partition, me) {
            let page = self.scan_here(now, &scan, turn)?;
            out.pages.push((ticket, Ok(page)));
            return Ok(());
        }
        let Some(to) = self.view.owners(partition).find(|node| self.view.is_up(*node)) else {
            let missing = self.view.owners(partition).map(|node| self.view.name_of(node).to_string()).collect();
            out.pages.push((ticket, Err(RequestError::Unavailable { needed: 1, reachable: 0, missing })));
            return Ok(());
        };
        let asked = self.next;
        self.next += 1;
        let deadline_us = now.mono_us + scan.timeout_us;
        self.scans.insert(asked, Scanning { ticket, to, deadline_us });
        reply(out, to, partition, Body::Scan { ticket: asked, scan });
        Ok(())
    }

    fn scan_here(&mut self, now: Now, scan: &ScanRequest, turn: &Turn) -> Result<ScanPage, StoreError> {
        let start = scan.partition.0.to_be_bytes();
        let from = match scan.after {
            None => start.to_vec(),
            Some(u64::MAX) => return Ok(ScanPage { keys: Vec::new(), next: None }),
            Some(after) => [&start[..], &(after + 1).to_be_bytes()[..]].concat(),
        };
        let limit = scan.limit.clamp(1, 10_000) as usize;
        let wall_ms = now.wall_ms;
        let mut page = ScanPage { keys: Vec::new(), next: None };
        let mut current: Option<(u64, Key)> = None;
        let mut rows: Vec<(Path, Row)> = Vec::new();
        let mut looked = 0;
        let mut damaged = None;
        let close = |rows: &mut Vec<(Path, Row)>, key: Key, page: &mut ScanPage| {
            let object = Object::new(rows.drain(..));
            if let Some(kind) = plan::kind(&object, wall_ms) {
                page.keys.push((key, kind));
            }
        };
        turn.scan(Space::Rows, &from, &upper_bound(&start), &mut |at, value| {
            let Some((_, hash, key, path)) = parse_row_key(at) else {
                damaged = Some(super::replica::corrupt("a row key"));
                return false;
            };
            looked += 1;
            let same = current.as_ref().is_some_and(|(_, held)| *held == key);
            if !same {
                if let Some((before, held)) = current.take() {
                    close(&mut rows, held, &mut page);
                    if before != hash && (page.keys.len() >= limit || looked > SCAN_ROWS_MAX) {
                        page.next = Some(before);
                        return false;
                    }
                }
                current = Some((hash, key));
            }
            // A large collection is told by its first rows.
            if rows.len() < 256 {
                match decode::<Row>(value, "a row") {
                    Ok(row) => rows.push((path, row)),
                    Err(error) => {
                        damaged = Some(error);
                        return false;
                    }
                }
            }
            true
        })?;
        if let Some((_, held)) = current {
            close(&mut rows, held, &mut page);
        }
        match damaged {
            Some(error) => Err(error),
            None => Ok(page),
        }
    }

    fn fail_scans(&mut self, out: &mut Outbox, which: impl Fn(&Scanning) -> bool) {
        let failed: Vec<Ticket> =
            self.scans.iter().filter(|(_, scanning)| which(scanning)).map(|(ticket, _)| *ticket).collect();
        for ticket in failed {
            if let Some(scanning) = self.scans.remove(&ticket) {
                let missing = vec![self.view.name_of(scanning.to).to_string()];
                let error = RequestError::Timeout { needed: 1, got: 0, missing, mutation: false };
                out.pages.push((scanning.ticket, Err(error)));
            }
        }
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
