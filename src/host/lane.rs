//! A lane: one thread, one shard, some partitions. Take all that waits, decide, commit once, then speak.
//!
//! Group commit, back-pressure and *write before you speak* are this one loop. What one turn costs the disk is shared by all requests
//! that came in during the turn before. A failed commit is never spoken of: the outbox is thrown away, everything under way is told
//! that the store failed, and from then on the lane only says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::data::id::NodeId;
use crate::data::op::{Key, Request, RequestError, Response, ScanPage, ScanRequest};
use crate::host::clock;
use crate::host::faults::Faults;
use crate::host::native::TrafficCounts;
use crate::host::peers::Peers;
use crate::net::link::Link;
use crate::node::replica::Turn;
use crate::node::shard::{Shard, ShardStatus};
use crate::node::turn::{Input, Outbox, Traffic};
use crate::ring::view::View;
use crate::storage::{Fenced, SharedStorage, Storage, StoreError};
use crate::wire::client::ServerMessage;
use crate::wire::codec;
use crate::wire::frame::Class;
use crate::wire::message::{Body, PeerMessage, Refusal};
use crate::wire::status::KeyStatus;

/// Inputs that one turn takes at most: a bound on how long the first waits for the last.
const TURN_INPUTS_MAX: usize = 512;
/// Bytes of writes after which a turn ends.
const TURN_BYTES_MAX: usize = 16 << 20;
/// Inputs that may wait for a lane.
const QUEUE_MAX: usize = 64 << 10;
/// Messages to one peer share a frame up to about this size.
const FRAME_MESSAGES_BYTES: usize = 128 << 10;
/// A lane looks up at least this often.
const IDLE_MS: u64 = 1_000;

/// What is put into a lane.
pub enum LaneInput {
    Request { request: Request, reply: ReplyTo },
    Scan { scan: ScanRequest, reply: ScanReplyTo },
    Messages { from: NodeId, messages: Vec<PeerMessage> },
    View(Arc<View>),
    LinkUp(NodeId),
    LinkDown(NodeId),
    Status(oneshot::Sender<ShardStatus>),
    Scrub,
    Explain { key: Key, reply: oneshot::Sender<KeyStatus> },
    Stop,
}

/// Where an answer goes.
pub enum ReplyTo {
    Door(oneshot::Sender<Response>),
    Native { link: Link, ticket: u64 },
}

pub enum ScanReplyTo {
    Door(oneshot::Sender<Result<ScanPage, RequestError>>),
    Native { link: Link, ticket: u64 },
}

impl ReplyTo {
    pub fn answer(self, response: Response) {
        match self {
            // The asker may have gone: then nobody misses the answer.
            ReplyTo::Door(reply) => drop(reply.send(response)),
            ReplyTo::Native { link, ticket } => say(&link, &ServerMessage::Response { ticket, response }),
        }
    }
}

impl ScanReplyTo {
    pub fn answer(self, page: Result<ScanPage, RequestError>) {
        match self {
            ScanReplyTo::Door(reply) => drop(reply.send(page)),
            ScanReplyTo::Native { link, ticket } => say(&link, &ServerMessage::ScanPage { ticket, page }),
        }
    }
}

/// An answer on a client's link. One that does not fit its queue is dropped: the client's deadline tells it.
pub fn say(link: &Link, message: &ServerMessage) {
    if let Err(error) = link.send(Class::Foreground, &codec::encode(message)) {
        tracing::debug!(peer = link.peer().name(), %error, "an answer was not sent");
    }
}

/// What all lanes of a node share.
pub struct Common {
    pub name: String,
    pub store: Arc<Fenced<SharedStorage>>,
    pub peers: Peers,
    /// `None`: it takes no orders for faults.
    pub faults: Option<Arc<Faults>>,
    pub traffic: Arc<TrafficCounts>,
    /// Something was committed without fsync since the last one.
    pub unsynced: AtomicBool,
    /// The disk is so full that writes are refused before they fail.
    pub disk_low: AtomicBool,
    pub commits: AtomicU64,
    pub commit_inputs: AtomicU64,
    /// A lane met an own dot that it never minted: the incarnation must not be resumed.
    pub amnesia: AtomicBool,
}

/// The way into a lane.
#[derive(Clone)]
pub struct LaneSender {
    /// Boxed, because the channel is one piece of memory with room for all that may wait.
    inputs: SyncSender<Box<LaneInput>>,
}

impl LaneSender {
    /// Gives the input back when the lane has more waiting than it can take.
    #[allow(clippy::result_large_err, reason = "what comes back is what was given, by move")]
    pub fn try_send(&self, input: LaneInput) -> Result<(), LaneInput> {
        self.inputs.try_send(Box::new(input)).map_err(|error| match error {
            TrySendError::Full(input) | TrySendError::Disconnected(input) => *input,
        })
    }

    /// For what must arrive: waits while the lane is full. Not for the network's tasks.
    pub fn send(&self, input: LaneInput) {
        // A lane that is gone needs no news.
        drop(self.inputs.send(Box::new(input)));
    }
}

/// Starts a lane's thread.
pub fn start(
    number: u16,
    shard: Shard,
    view: Arc<View>,
    common: Arc<Common>,
) -> std::io::Result<(LaneSender, JoinHandle<()>)> {
    let (inputs, receiver) = sync_channel(QUEUE_MAX);
    let thread = std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
        Lane {
            shard,
            common,
            receiver,
            replies: HashMap::new(),
            scans: HashMap::new(),
            next: 0,
            failed: None,
            unsent: Vec::new(),
            view,
        }
        .run();
    })?;
    Ok((LaneSender { inputs }, thread))
}

struct Lane {
    shard: Shard,
    common: Arc<Common>,
    receiver: Receiver<Box<LaneInput>>,
    replies: HashMap<u64, ReplyTo>,
    scans: HashMap<u64, ScanReplyTo>,
    next: u64,
    failed: Option<String>,
    view: Arc<View>,
    /// What is to be said to those who wait for messages that were not taken for sending: the next turn's first inputs.
    unsent: Vec<Input>,
}

impl Lane {
    fn run(mut self) {
        loop {
            let now_us = clock::mono_us();
            let wait = match self.failed {
                Some(_) => Duration::from_millis(IDLE_MS),
                None if !self.unsent.is_empty() => Duration::ZERO,
                None => Duration::from_micros(self.shard.poll_timeout().saturating_sub(now_us).min(IDLE_MS * 1_000)),
            };
            let first = match self.receiver.recv_timeout(wait) {
                Ok(input) => Some(*input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if self.turn(first) {
                break;
            }
        }
        self.stop();
    }

    /// One turn. True: it was told to stop.
    fn turn(&mut self, first: Option<LaneInput>) -> bool {
        let common = self.common.clone();
        let store: &dyn Storage = &*common.store;
        let mut turn = Turn::new(store);
        let mut out = Outbox::default();
        let mut stop = false;
        let mut result = Ok(());
        let mut taken = 0;
        let mut input = first;
        let now = clock::now();
        for refusal in std::mem::take(&mut self.unsent) {
            if self.failed.is_none() && result.is_ok() {
                result = self.shard.handle(now, refusal, &mut turn, &mut out);
            }
        }
        while let Some(next) = input.take() {
            match next {
                LaneInput::Stop => stop = true,
                other => result = self.take(now, other, &mut turn, &mut out),
            }
            taken += 1;
            if stop || result.is_err() || taken >= TURN_INPUTS_MAX || turn.bytes() >= TURN_BYTES_MAX {
                break;
            }
            input = self.receiver.try_recv().ok().map(|input| *input);
        }
        if self.failed.is_none() {
            let result = result.and_then(|()| {
                if self.shard.poll_timeout() <= now.mono_us {
                    self.shard.handle_timeout(now, &mut turn, &mut out)?;
                }
                self.shard.finish(&mut turn);
                self.commit(turn, out.sync)
            });
            if let Err(error) = result {
                self.fail(error, &mut out);
            }
            for alarm in self.shard.take_alarms() {
                tracing::error!("ALARM: {alarm}");
            }
            if self.shard.take_amnesia() {
                tracing::error!(
                    "this store no longer holds all writes that its own incarnation made: going on under a new one"
                );
                self.common.amnesia.store(true, Ordering::Relaxed);
                self.shard.reincarnate(crate::data::id::Incarnation(clock::random_u64()));
            }
        }
        self.speak(out);
        stop
    }

    fn take(
        &mut self,
        now: crate::data::clock::Now,
        input: LaneInput,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        if let Some(cause) = &self.failed {
            refuse(&self.common.name, cause, input, out);
            return Ok(());
        }
        match input {
            LaneInput::Request { request, reply } => {
                if self.common.disk_low.load(Ordering::Relaxed) && request.op.asks_for_room() {
                    reply.answer(disk_low(&self.common.name));
                    return Ok(());
                }
                let ticket = self.ticket();
                self.replies.insert(ticket, reply);
                self.shard.handle(now, Input::Request { ticket, request }, turn, out)
            }
            LaneInput::Scan { scan, reply } => {
                let ticket = self.ticket();
                self.scans.insert(ticket, reply);
                self.shard.handle(now, Input::Scan { ticket, scan }, turn, out)
            }
            LaneInput::Messages { from, messages } => {
                let low = self.common.disk_low.load(Ordering::Relaxed);
                for message in messages {
                    if low && message.body.grows() {
                        let refusal = Refusal::Busy { cause: DISK_LOW.to_string() };
                        refuse_message(&self.common.name, refusal, from, message, out);
                        continue;
                    }
                    self.shard.handle(now, Input::Message { from, message }, turn, out)?;
                }
                Ok(())
            }
            LaneInput::View(view) => {
                self.view = view.clone();
                self.shard.handle(now, Input::View(view), turn, out)
            }
            LaneInput::LinkUp(node) => self.shard.handle(now, Input::LinkUp(node), turn, out),
            LaneInput::LinkDown(node) => self.shard.handle(now, Input::LinkDown(node), turn, out),
            LaneInput::Status(reply) => {
                drop(reply.send(self.shard.status()));
                Ok(())
            }
            LaneInput::Scrub => self.shard.handle(now, Input::Scrub, turn, out),
            LaneInput::Explain { key, reply } => {
                drop(reply.send(self.shard.explain(now, &key, turn)?));
                Ok(())
            }
            LaneInput::Stop => Ok(()),
        }
    }

    fn commit(&self, turn: Turn, sync: bool) -> Result<(), StoreError> {
        let batch = turn.into_batch();
        if batch.is_empty() && !sync {
            return Ok(());
        }
        self.common.store.commit(&batch, sync)?;
        self.common.commits.fetch_add(1, Ordering::Relaxed);
        self.common.commit_inputs.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if !sync {
            self.common.unsynced.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The store failed: nothing of this turn is said, and everybody who waits is told.
    fn fail(&mut self, error: StoreError, out: &mut Outbox) {
        let cause = error.to_string();
        tracing::error!(%cause, "the store failed and is fenced: this node answers for no data any more");
        self.common.store.fence(cause.clone());
        *out = Outbox::default();
        let name = self.common.name.clone();
        self.shard.fail_all(clock::now(), out, |mutation| RequestError::StoreFailed {
            node: name.clone(),
            cause: cause.clone(),
            mutation,
        });
        self.failed = Some(cause.clone());
        // Answered in this turn and so neither under way nor to be believed.
        let answered: Vec<u64> = out.replies.iter().map(|(ticket, _)| *ticket).collect();
        for (ticket, reply) in std::mem::take(&mut self.replies) {
            if answered.contains(&ticket) {
                self.replies.insert(ticket, reply);
            } else {
                let result =
                    Err(RequestError::StoreFailed { node: name.clone(), cause: cause.clone(), mutation: true });
                reply.answer(Response { result, receipt: Default::default() });
            }
        }
    }

    fn speak(&mut self, out: Outbox) {
        let mut frames: Vec<(NodeId, Traffic, Vec<PeerMessage>, usize)> = Vec::new();
        for (node, traffic, message) in out.sends {
            let size = weight(&message);
            let open = frames.iter_mut().rev().find(|frame| frame.0 == node && frame.1 == traffic);
            match open {
                Some(frame) if frame.3 + size <= FRAME_MESSAGES_BYTES => {
                    frame.2.push(message);
                    frame.3 += size;
                }
                _ => frames.push((node, traffic, vec![message], size)),
            }
        }
        for (node, traffic, messages, _) in frames {
            let counts = &self.common.traffic;
            let (class, sent_bytes) = match traffic {
                Traffic::Foreground => (Class::Foreground, &counts.foreground_sent_bytes),
                Traffic::Background => (Class::Background, &counts.background_sent_bytes),
            };
            let frame: Bytes = codec::encode(&messages);
            // Refusals are counted there. Whoever waits for an answer is told at once that none will come; repair makes good the rest.
            if let Err(error) = self.common.peers.send(node, class, &frame) {
                let refusal = Refusal::Busy { cause: error.to_string() };
                let name = self.view.name_of(node);
                let answers = messages.into_iter().filter_map(|message| message.refused(name, refusal.clone()));
                self.unsent.extend(answers.map(|message| Input::Message { from: node, message }));
            } else {
                sent_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
        }
        for (ticket, response) in out.replies {
            if let Some(reply) = self.replies.remove(&ticket) {
                reply.answer(response);
            }
        }
        for (ticket, page) in out.pages {
            if let Some(reply) = self.scans.remove(&ticket) {
                reply.answer(page);
            }
        }
    }

    fn stop(&mut self) {
        let mut out = Outbox::default();
        let name = self.common.name.clone();
        self.shard.fail_all(clock::now(), &mut out, |mutation| {
            if mutation {
                RequestError::Disconnected { node: name.clone(), mutation: true }
            } else {
                RequestError::Stopping { node: name.clone() }
            }
        });
        self.speak(out);
    }

    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

const DISK_LOW: &str = "the disk is nearly full: free some space";

fn disk_low(name: &str) -> Response {
    let error = RequestError::Overloaded(format!("{name}: {DISK_LOW}"));
    Response { result: Err(error), receipt: Default::default() }
}

/// What a lane without a store says.
fn refuse(name: &str, cause: &str, input: LaneInput, out: &mut Outbox) {
    let error = |mutation| RequestError::StoreFailed { node: name.to_string(), cause: cause.to_string(), mutation };
    match input {
        LaneInput::Request { reply, .. } => {
            reply.answer(Response { result: Err(error(false)), receipt: Default::default() });
        }
        LaneInput::Scan { reply, .. } => reply.answer(Err(error(false))),
        LaneInput::Messages { from, messages } => {
            for message in messages {
                refuse_message(name, Refusal::StoreFailed { cause: cause.to_string() }, from, message, out);
            }
        }
        LaneInput::Status(reply) => drop(reply.send(ShardStatus::default())),
        // Whoever waits learns that the lane has no answer.
        LaneInput::Explain { .. } => {}
        LaneInput::Scrub | LaneInput::View(_) | LaneInput::LinkUp(_) | LaneInput::LinkDown(_) | LaneInput::Stop => {}
    }
}

fn refuse_message(name: &str, refusal: Refusal, from: NodeId, message: PeerMessage, out: &mut Outbox) {
    out.sends.extend(message.refused(name, refusal).map(|answer| (from, Traffic::Foreground, answer)));
}

/// About how many bytes a message takes, for packing frames.
fn weight(message: &PeerMessage) -> usize {
    match &message.body {
        Body::Replicate { delta, .. } => 64 + delta.bytes(),
        Body::ReadReply { .. } | Body::Repair { .. } | Body::ForwardReply { .. } | Body::Forward { .. } => 1024,
        Body::AskTallied { op_ids, .. } => 64 + 17 * op_ids.len(),
        Body::Tallied { dots: Some(dots), .. } => 64 + 36 * dots.len(),
        // A page fills a frame.
        Body::PullReply { .. } | Body::SyncPage { .. } | Body::ScanReply { .. } => FRAME_MESSAGES_BYTES,
        _ => 128,
    }
}
