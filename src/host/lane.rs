//! A lane: one task, one shard, some partitions. Take all that waits, decide, commit once, then speak.
//!
//! It runs on the network's threads: what comes for it is decided where it was read, without waking another thread, and before a turn
//! everybody who is ready there gets to say what it has, so that turns are large when much comes and short when little does. What may
//! block for long (an fsync, an engine that is behind with its writes) is done with the thread's other tasks handed to another one.
//!
//! Group commit, back-pressure and *write before you speak* are this one loop. What one turn costs the disk is shared by all requests
//! that came in during the turn before. A failed commit is never spoken of: the outbox is thrown away, everything under way is told
//! that the store failed, and from then on the lane only says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Handle as Runtime, RuntimeFlavor};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinHandle};

use crate::data::clock::Now;
use crate::data::id::NodeId;
use crate::data::op::{self, Key, Request, RequestError, Response, ScanPage, ScanRequest};
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
use crate::wire::message::{Body, PeerMessage, Reading, Refusal, Rows, row_bytes};
use crate::wire::status::KeyStatus;

/// Inputs that one turn takes at most, each message of a frame one, and for how long: what came first waits for what came last, and
/// everything else on the thread waits for all of them.
const TURN_INPUTS_MAX: usize = 512;
const TURN_US_MAX: u64 = 5_000;
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

/// Takes an answer, on the lane's time: it hands it over and does nothing else. Dropped without one: none will come, and what became of
/// the request is not known.
pub type Reply = Box<dyn FnOnce(Response) + Send>;

/// One more of the requests that a node has under way, until it is dropped.
pub struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where an answer goes.
pub enum ReplyTo {
    Door { reply: Reply, under_way: UnderWay },
    Native { link: Link, ticket: u64 },
}

pub enum ScanReplyTo {
    Door(oneshot::Sender<Result<ScanPage, RequestError>>),
    Native { link: Link, ticket: u64 },
}

impl ReplyTo {
    pub fn answer(self, response: Response) {
        match self {
            ReplyTo::Door { reply, under_way } => {
                drop(under_way);
                reply(response);
            }
            ReplyTo::Native { link, ticket } => say(&link, &ServerMessage::Response { ticket, response }),
        }
    }
}

impl ScanReplyTo {
    pub fn answer(self, page: Result<ScanPage, RequestError>) {
        match self {
            // The asker may have gone: then nobody misses the answer.
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
    inputs: mpsc::Sender<LaneInput>,
}

impl LaneSender {
    /// Gives the input back when the lane has more waiting than it can take.
    #[allow(clippy::result_large_err, reason = "what comes back is what was given, by move")]
    pub fn try_send(&self, input: LaneInput) -> Result<(), LaneInput> {
        self.inputs.try_send(input).map_err(|error| match error {
            TrySendError::Full(input) | TrySendError::Closed(input) => input,
        })
    }

    /// For what must arrive: waits while the lane is full.
    pub async fn send(&self, input: LaneInput) {
        // A lane that is gone needs no news.
        drop(self.inputs.send(input).await);
    }
}

/// Starts a lane. Must be called within a runtime.
pub fn start(shard: Shard, view: Arc<View>, common: Arc<Common>) -> (LaneSender, JoinHandle<()>) {
    let (sender, inputs) = mpsc::channel(QUEUE_MAX);
    let lane = Lane {
        shard,
        common,
        inputs,
        replies: HashMap::new(),
        scans: HashMap::new(),
        next: 0,
        failed: None,
        unsent: Vec::new(),
        rest: None,
        taken: 0,
        began_us: 0,
        view,
    };
    (LaneSender { inputs: sender }, tokio::spawn(lane.run()))
}

struct Lane {
    shard: Shard,
    common: Arc<Common>,
    inputs: mpsc::Receiver<LaneInput>,
    replies: HashMap<u64, ReplyTo>,
    scans: HashMap<u64, ScanReplyTo>,
    next: u64,
    failed: Option<String>,
    view: Arc<View>,
    /// What is to be said to those who wait for messages that were not taken for sending: the next turn's first inputs.
    unsent: Vec<Input>,
    /// Messages of one frame that the last turn had no time for, and from whom.
    rest: Option<(NodeId, std::vec::IntoIter<PeerMessage>)>,
    /// Of the turn under way: how many inputs it has taken, and when it began.
    taken: usize,
    began_us: u64,
}

impl Lane {
    async fn run(mut self) {
        while let Some(first) = self.next().await {
            // Whoever else is ready on this thread first says what it has: one turn and one commit serve all.
            task::yield_now().await;
            if self.turn(first) {
                break;
            }
        }
        self.stop();
    }

    /// Waits for the first input of a turn, or for the moment when the shard wants one without (`Some(None)`). `None`: nobody holds the
    /// way in any more.
    async fn next(&mut self) -> Option<Option<LaneInput>> {
        if self.rest.is_some() {
            return Some(None);
        }
        match self.inputs.try_recv() {
            Ok(input) => return Some(Some(input)),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let wait_us = match self.failed {
            Some(_) => IDLE_MS * 1_000,
            None if !self.unsent.is_empty() => 0,
            None => self.shard.poll_timeout().saturating_sub(clock::mono_us()).min(IDLE_MS * 1_000),
        };
        if wait_us == 0 {
            return Some(None);
        }
        match tokio::time::timeout(Duration::from_micros(wait_us), self.inputs.recv()).await {
            Ok(Some(input)) => Some(Some(input)),
            Ok(None) => None,
            Err(_) => Some(None),
        }
    }

    /// One turn. True: it was told to stop.
    fn turn(&mut self, first: Option<LaneInput>) -> bool {
        let common = self.common.clone();
        let store: &dyn Storage = &*common.store;
        let mut turn = Turn::new(store);
        let mut out = Outbox::default();
        let mut stop = false;
        let mut result = Ok(());
        let now = clock::now();
        (self.taken, self.began_us) = (0, now.mono_us);
        for refusal in std::mem::take(&mut self.unsent) {
            if self.failed.is_none() && result.is_ok() {
                result = self.shard.handle(now, refusal, &mut turn, &mut out);
            }
        }
        if result.is_ok()
            && let Some((from, messages)) = self.rest.take()
        {
            result = self.take_messages(now, from, messages, &mut turn, &mut out);
        }
        // What came while others of this thread had their turn counts before the clock does.
        let mut input = match self.rest {
            // The turn is long already; another frame would take the place of what is left of this one.
            Some(_) => first,
            None => first.or_else(|| self.inputs.try_recv().ok()),
        };
        while result.is_ok()
            && !stop
            && let Some(next) = input.take()
        {
            match next {
                LaneInput::Stop => stop = true,
                other => result = self.take(now, other, &mut turn, &mut out),
            }
            if !self.is_long(&turn) {
                input = self.inputs.try_recv().ok();
            }
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
                if let Some(input) = input {
                    refuse(&self.common.name, self.failed.as_deref().unwrap_or_default(), input, &mut out);
                }
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

    /// The turn under way has taken as much as it may.
    fn is_long(&self, turn: &Turn) -> bool {
        self.taken >= TURN_INPUTS_MAX
            || turn.bytes() >= TURN_BYTES_MAX
            || clock::mono_us().saturating_sub(self.began_us) >= TURN_US_MAX
    }

    fn take_messages(
        &mut self,
        now: Now,
        from: NodeId,
        mut messages: std::vec::IntoIter<PeerMessage>,
        turn: &mut Turn,
        out: &mut Outbox,
    ) -> Result<(), StoreError> {
        let low = self.common.disk_low.load(Ordering::Relaxed);
        while let Some(message) = messages.next() {
            self.taken += 1;
            if let Some(cause) = &self.failed {
                let refusal = Refusal::StoreFailed { cause: cause.clone() };
                refuse_message(&self.common.name, refusal, from, message, out);
            } else if low && message.body.grows() {
                let refusal = Refusal::Busy { cause: DISK_LOW.to_string() };
                refuse_message(&self.common.name, refusal, from, message, out);
            } else {
                let result = self.shard.handle(now, Input::Message { from, message }, turn, out);
                if result.is_err() {
                    // Who sent those behind it is told in the next turn that the store failed, and not left to the deadline.
                    self.rest = Some((from, messages));
                    return result;
                }
            }
            if self.is_long(turn) && messages.len() > 0 {
                self.rest = Some((from, messages));
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, now: Now, input: LaneInput, turn: &mut Turn, out: &mut Outbox) -> Result<(), StoreError> {
        self.taken += 1;
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
            LaneInput::Messages { from, messages } => self.take_messages(now, from, messages.into_iter(), turn, out),
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
        let store = &self.common.store;
        let batch = turn.into_batch();
        if batch.is_empty() && !sync {
            // A turn that found all it needed in memory: a store that failed for others has failed for it too.
            return store.ensure_open();
        }
        if !store.commit_at_once(&batch)? {
            patiently(|| store.commit(&batch, false))?;
        }
        if sync {
            // Not with the batch: whoever commits meanwhile would have to wait for it.
            patiently(|| store.sync())?;
        }
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

/// Does what may block for long, and lets another thread take this one's other tasks meanwhile.
fn patiently<T>(work: impl FnOnce() -> T) -> T {
    match Runtime::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => task::block_in_place(work),
        // A runtime of one thread has nobody to give them to.
        _ => work(),
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

/// About how many bytes an answer takes that may be large.
fn reply_bytes(reply: &op::Reply) -> usize {
    match reply {
        op::Reply::Value(Some(value)) => value.len(),
        op::Reply::Values(values) => values.iter().flatten().map(Bytes::len).sum(),
        op::Reply::Members(members) | op::Reply::MemberPage { members, .. } => {
            members.iter().map(|member| member.len() + 8).sum()
        }
        op::Reply::Pairs(pairs) | op::Reply::PairPage { pairs, .. } => {
            pairs.iter().map(|(field, value)| field.len() + value.len() + 16).sum()
        }
        _ => 0,
    }
}

/// About how many bytes a message takes, for packing frames.
fn weight(message: &PeerMessage) -> usize {
    match &message.body {
        Body::Replicate { delta, .. } => 64 + delta.bytes(),
        Body::ReadReply { result: Ok(Reading { rows: Rows::Held { rows, .. }, .. }), .. } => {
            1024 + rows.iter().map(|(path, row)| row_bytes(path, row)).sum::<usize>()
        }
        Body::ForwardReply { response, .. } => 1024 + response.result.as_ref().map_or(0, reply_bytes),
        Body::ReadReply { .. } | Body::Repair { .. } | Body::Forward { .. } => 1024,
        Body::AskTallied { op_ids, .. } => 64 + 17 * op_ids.len(),
        Body::Tallied { dots: Some(dots), .. } => 64 + 36 * dots.len(),
        // A page fills a frame.
        Body::PullReply { .. } | Body::SyncPage { .. } | Body::ScanReply { .. } => FRAME_MESSAGES_BYTES,
        _ => 128,
    }
}
