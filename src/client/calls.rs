//! How a call becomes tries: which node, how long, what to make of a failure, when to ask for the layout again.
//!
//! ```text
//!   request --> next_hop --> link --> answer -------------------------------------------> done
//!                  ^                    | refused for good (a wrong type, a key too long) --> error
//!                  |                    v
//!                  +-- pause, budget -- silent, broken, overloaded, unavailable: same operation id, not fresh
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::error::ClientError;
use super::link::{CallFailure, Transport};
use super::options::ClientOptions;
use super::owners::Owners;
use super::pool::{Pool, PoolOptions};
use super::routing::{self, Hop, RetryBudget};
use crate::data::consistency::Receipt;
use crate::data::id::{NodeId, OpId, Partition};
use crate::data::op::{Key, Outcome, Reply, Request, RequestError, Response, ScanPage, ScanRequest};
use crate::net::entropy;
use crate::ring::layout::{Layout, Member};
use crate::wire::client::{ClientMessage, ServerMessage};

const BACKOFF_BASE: Duration = Duration::from_millis(10);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// A failure makes the client ask for the layout again, but not more often than this.
const REFRESH_GAP: Duration = Duration::from_millis(300);
/// After this part of its time, a quarter, a call that cannot be met is told so.
const UNAVAILABLE_SHARES: u32 = 4;
/// What a node is told of a try's time: nine tenths, so that its answer "not in time" still comes in time.
const NODE_TENTHS: u32 = 9;

/// What the client knows of the cluster.
pub(crate) struct Map {
    pub layout: Layout,
    /// `up[i]` speaks of `layout.members[i]`.
    pub up: Vec<bool>,
    owners: Owners,
}

impl Map {
    fn new(layout: Layout, mut up: Vec<bool>) -> Result<Self, String> {
        up.resize(layout.members.len(), false);
        let owners = Owners::of(&layout)?;
        Ok(Self { layout, up, owners })
    }

    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.layout.members.iter().find(|member| member.id == node)
    }
}

/// The inside of a [`Client`](super::Client), shared by its clones.
pub(crate) struct Calls {
    pool: Arc<Pool>,
    options: ClientOptions,
    map: RwLock<Arc<Map>>,
    budget: Mutex<RetryBudget>,
    born: Instant,
    refreshed: Mutex<Instant>,
    refreshing: AtomicBool,
}

/// What a question to the cluster is about, and so whom to ask first.
#[derive(Clone, Copy, Debug)]
enum About<'a> {
    Key(&'a Key),
    Partition(Partition),
    Nothing,
}

/// A try that gave no usable answer.
struct Miss {
    last: String,
    /// The node's words, when it said some.
    refused: Option<(RequestError, Receipt)>,
    /// The node may be away: others should be asked.
    node_failed: bool,
    /// The question may have arrived.
    sent: bool,
}

/// A request that was met.
pub(crate) struct Met {
    pub reply: Reply,
    pub receipt: Receipt,
    pub attempts: u32,
}

impl Calls {
    /// Asks the seeds for the layout, one after the other.
    pub async fn connect(transport: Arc<dyn Transport>, options: ClientOptions) -> Result<Arc<Self>, ClientError> {
        let pool = Arc::new(Pool::new(
            transport,
            PoolOptions {
                in_flight_max: options.in_flight_max.max(1),
                frame_bytes_max: options.frame_bytes_max,
                dial_timeout: options.dial_timeout,
            },
        ));
        let map = ask_seeds(&pool, &options).await.map_err(|tried| ClientError::NoSeed { tried })?;
        let now = entropy::instant();
        Ok(Arc::new(Self {
            pool,
            budget: Mutex::new(RetryBudget::new(options.retry_burst, 0)),
            map: RwLock::new(Arc::new(map)),
            born: now,
            refreshed: Mutex::new(now),
            refreshing: AtomicBool::new(false),
            options,
        }))
    }

    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub fn map(&self) -> Arc<Map> {
        self.map.read().expect("nothing that can panic happens under the lock").clone()
    }

    fn budget(&self) -> MutexGuard<'_, RetryBudget> {
        self.budget.lock().expect("nothing that can panic happens under the lock")
    }

    fn refreshed(&self) -> MutexGuard<'_, Instant> {
        self.refreshed.lock().expect("nothing that can panic happens under the lock")
    }

    /// Meets a request or says why not, within `timeout`. `request.fresh` speaks of the first try.
    pub async fn request(self: &Arc<Self>, mut request: Request, timeout: Duration) -> Result<Met, ClientError> {
        let (op_id, mutation) = (request.op_id, !request.op.is_read());
        let replicas = self.map().layout.replicas;
        if let Err(sentence) = request.consistency.check(replicas) {
            return Err(refused(
                RequestError::BadConsistency(sentence),
                Outcome::NotApplied,
                op_id,
                Receipt::default(),
                0,
            ));
        }
        let mut tries = Tries::begin(self, timeout, mutation);
        loop {
            let key = request.key.clone();
            let asked = &mut request;
            let answered = tries
                .ask(About::Key(&key), |ticket, left| {
                    asked.timeout_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
                    ClientMessage::Request { ticket, request: asked.clone() }
                })
                .await;
            let miss = match answered {
                Ok(ServerMessage::Response { response: Response { result: Ok(reply), receipt }, .. }) => {
                    return Ok(Met { reply, receipt, attempts: tries.attempts });
                }
                Ok(ServerMessage::Response { response: Response { result: Err(error), receipt }, .. }) => Miss {
                    last: error.to_string(),
                    node_failed: is_about_the_node(&error),
                    sent: error.outcome() == Outcome::Unknown,
                    refused: Some((error, receipt)),
                },
                Ok(other) => return Err(unexpected("a response", &other)),
                Err(miss) => miss,
            };
            if miss.sent {
                request.fresh = false;
            }
            tries.go_on(miss, op_id).await?;
        }
    }

    /// One page of the walk over a partition.
    pub async fn scan(self: &Arc<Self>, mut scan: ScanRequest, timeout: Duration) -> Result<ScanPage, ClientError> {
        let mut tries = Tries::begin(self, timeout, false);
        loop {
            let asked = &mut scan;
            let about = About::Partition(asked.partition);
            let answered = tries
                .ask(about, |ticket, left| {
                    asked.timeout_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
                    ClientMessage::Scan { ticket, scan: asked.clone() }
                })
                .await;
            let miss = match answered {
                Ok(ServerMessage::ScanPage { page: Ok(page), .. }) => return Ok(page),
                Ok(ServerMessage::ScanPage { page: Err(error), .. }) => Miss {
                    last: error.to_string(),
                    node_failed: is_about_the_node(&error),
                    sent: false,
                    refused: Some((error, Receipt::default())),
                },
                Ok(other) => return Err(unexpected("a page", &other)),
                Err(miss) => miss,
            };
            tries.go_on(miss, None).await?;
        }
    }

    /// A question that any node can answer, first of all an owner of `key`.
    pub async fn ask_any<T>(
        self: &Arc<Self>,
        key: Option<&Key>,
        question: impl Fn(u64) -> ClientMessage,
        wanted: &'static str,
        read: impl Fn(ServerMessage) -> Result<T, Box<ServerMessage>>,
    ) -> Result<T, ClientError> {
        let mut tries = Tries::begin(self, self.options.timeout, false);
        loop {
            match tries.ask(key.map_or(About::Nothing, About::Key), |ticket, _| question(ticket)).await {
                Ok(message) => return read(message).map_err(|other| unexpected(wanted, &other)),
                Err(miss) => tries.go_on(miss, None).await?,
            }
        }
    }

    /// A question to one node and no other. Tried once, and once more when the link turned out to be broken.
    pub async fn ask_node(
        self: &Arc<Self>,
        node: NodeId,
        question: impl Fn(u64) -> ClientMessage,
        timeout: Duration,
    ) -> Result<ServerMessage, ClientError> {
        self.ask_node_times(node, question, 2, timeout).await
    }

    /// As [`ask_node`](Self::ask_node). With one try nothing is asked twice: when no answer came, it may have been done.
    pub async fn ask_node_times(
        self: &Arc<Self>,
        node: NodeId,
        question: impl Fn(u64) -> ClientMessage,
        tries: u32,
        timeout: Duration,
    ) -> Result<ServerMessage, ClientError> {
        let map = self.map();
        let member = map.member(node).ok_or_else(|| unknown(&map, &node.to_string()))?;
        let began = entropy::instant();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let left = timeout.saturating_sub(entropy::instant() - began);
            let last = match self.ask_member(member, |ticket, _| question(ticket), left).await {
                Ok(message) => return Ok(message),
                Err(miss) => miss,
            };
            if attempts >= tries || !last.sent {
                let waited_ms = (entropy::instant() - began).as_millis() as u64;
                let outcome = if last.sent && tries == 1 { Outcome::Unknown } else { Outcome::NotApplied };
                return Err(ClientError::NoAnswer { last: last.last, waited_ms, outcome, op_id: None, attempts });
            }
        }
    }

    /// One try at one member; the pool is told how it went.
    async fn ask_member(
        &self,
        member: &Member,
        question: impl FnOnce(u64, Duration) -> ClientMessage,
        patience: Duration,
    ) -> Result<ServerMessage, Miss> {
        let began = entropy::instant();
        self.pool.handle_try(member.id, began, patience);
        let failed = |last: String, sent: bool| {
            self.pool.handle_failure(member.id, began, entropy::instant());
            Miss { last, refused: None, node_failed: true, sent }
        };
        let link = match tokio::time::timeout(patience, self.pool.link(member.id, &member.name, &member.quic)).await {
            Ok(Ok(link)) => link,
            Ok(Err(why)) => return Err(failed(format!("{} cannot be reached: {why}", member.name), false)),
            Err(_) => return Err(failed(format!("{} cannot be reached in time", member.name), false)),
        };
        let left = patience.saturating_sub(entropy::instant() - began);
        match link.call(|ticket| question(ticket, left * NODE_TENTHS / 10), left).await {
            Ok(message) => {
                self.pool.handle_answer(member.id, entropy::instant());
                Ok(message)
            }
            Err(CallFailure::Silent) => {
                Err(failed(format!("{} did not answer within {} ms", member.name, left.as_millis()), true))
            }
            Err(CallFailure::Broken { why, sent }) => {
                Err(failed(format!("the link to {} broke: {why}", member.name), sent))
            }
            Err(CallFailure::Full) => {
                let last = format!("too much is under way to {}", member.name);
                let refused = Some((RequestError::Overloaded(last.clone()), Receipt::default()));
                Err(Miss { last, refused, node_failed: false, sent: false })
            }
            Err(CallFailure::TooLarge { size, limit }) => {
                let error = RequestError::ValueTooLarge { size, limit };
                let last = error.to_string();
                Err(Miss { last, refused: Some((error, Receipt::default())), node_failed: false, sent: false })
            }
        }
    }

    /// Starts asking for the layout when what is known is older than `age`; never waits for it.
    fn refresh_when_older(self: &Arc<Self>, age: Duration) {
        if entropy::instant() - *self.refreshed() < age || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.refreshed() = entropy::instant();
        let calls = self.clone();
        tokio::spawn(async move {
            if let Err(cause) = calls.refresh().await {
                tracing::debug!("the layout could not be refreshed: {cause}");
            }
            calls.refreshing.store(false, Ordering::Release);
        });
    }

    /// Asks a few nodes, those in good standing first, then the seeds, for the layout.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<Map>, String> {
        let map = self.map();
        let mut failures = BTreeMap::new();
        let spread = entropy::random_u64();
        for _ in 0..3 {
            let hops = self.hops(&map, About::Nothing, &failures);
            let Some(member) = routing::next_hop(&hops, spread).and_then(|at| map.layout.members.get(at)) else {
                break;
            };
            let patience = self.options.first_try_timeout;
            match self.ask_member(member, |ticket, _| ClientMessage::Layout { ticket }, patience).await {
                Ok(ServerMessage::Layout { layout, up, .. }) => return self.learn(layout, up),
                Ok(_) | Err(_) => *failures.entry(member.id).or_insert(0) += 1,
            }
        }
        match ask_seeds(&self.pool, &self.options).await {
            Ok(map) => self.learn(map.layout, map.up),
            Err(tried) => Err(ClientError::NoSeed { tried }.to_string()),
        }
    }

    /// Takes over a layout unless a newer one is known.
    fn learn(&self, layout: Layout, up: Vec<bool>) -> Result<Arc<Map>, String> {
        let known = self.map();
        let news = if layout == known.layout {
            Map { layout, up, owners: known.owners.clone() }
        } else if layout.version < known.layout.version {
            return Ok(known);
        } else {
            Map::new(layout, up)?
        };
        let news = Arc::new(news);
        *self.map.write().expect("nothing that can panic happens under the lock") = news.clone();
        *self.refreshed() = entropy::instant();
        Ok(news)
    }

    fn hops(&self, map: &Map, about: About, failures: &BTreeMap<NodeId, u32>) -> Vec<Hop> {
        let now = entropy::instant();
        let partition = match about {
            About::Key(key) => Some(map.owners.partition(key)),
            About::Partition(partition) => Some(partition),
            About::Nothing => None,
        };
        let owners = partition.map(|partition| map.owners.list(partition)).unwrap_or_default();
        let hop = |(at, member): (usize, &Member)| {
            let standing = self.pool.standing(member.id, now);
            Hop {
                owner: owners.iter().position(|owner| *owner == member.id),
                up: map.up.get(at).copied().unwrap_or(false),
                answers: standing.answers,
                resting: standing.rests,
                isolated: standing.isolated,
                failures: failures.get(&member.id).copied().unwrap_or(0),
            }
        };
        map.layout.members.iter().enumerate().map(hop).collect()
    }

    pub fn close(&self) {
        self.pool.close();
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// The tries of one call: what has failed so far and how much time is left.
struct Tries<'a> {
    calls: &'a Arc<Calls>,
    began: Instant,
    timeout: Duration,
    mutation: bool,
    failures: BTreeMap<NodeId, u32>,
    spread: u64,
    attempts: u32,
    /// Some try of this mutation may have been applied.
    perhaps_applied: bool,
    /// The last words of a node that could not reach enough others.
    unavailable: Option<(RequestError, Receipt)>,
}

impl<'a> Tries<'a> {
    fn begin(calls: &'a Arc<Calls>, timeout: Duration, mutation: bool) -> Self {
        calls.budget().handle_first_try();
        calls.refresh_when_older(calls.options.layout_age_max);
        Self {
            calls,
            began: entropy::instant(),
            timeout,
            mutation,
            failures: BTreeMap::new(),
            spread: entropy::random_u64(),
            attempts: 0,
            perhaps_applied: false,
            unavailable: None,
        }
    }

    fn left(&self) -> Duration {
        self.timeout.saturating_sub(entropy::instant() - self.began)
    }

    /// One try at the node that looks best now.
    async fn ask(
        &mut self,
        about: About<'_>,
        question: impl FnOnce(u64, Duration) -> ClientMessage,
    ) -> Result<ServerMessage, Miss> {
        let map = self.calls.map();
        let hops = self.calls.hops(&map, about, &self.failures);
        let Some(chosen) = routing::next_hop(&hops, self.spread) else {
            let last = "the layout has no members".to_owned();
            return Err(Miss { last, refused: None, node_failed: true, sent: false });
        };
        let member = &map.layout.members[chosen];
        let others = routing::others_to_try(&hops, Some(chosen));
        let patience = routing::allowance(self.attempts, self.calls.options.first_try_timeout, self.left(), others);
        self.attempts += 1;
        self.calls.pool.handle_probe(member.id, entropy::instant(), patience);
        let asked = if self.mutation && hops[chosen].may_be_silent() {
            self.ask_doubtful(member, question, patience).await
        } else {
            self.calls.ask_member(member, question, patience).await
        };
        let failed = match &asked {
            Ok(ServerMessage::Response { response: Response { result, .. }, .. }) => result.is_err(),
            Ok(ServerMessage::ScanPage { page, .. }) => page.is_err(),
            Ok(_) => false,
            Err(_) => true,
        };
        if failed {
            *self.failures.entry(member.id).or_insert(0) += 1;
        }
        let (pool, replicas, now) = (&self.calls.pool, map.layout.replicas, entropy::instant());
        match &asked {
            Ok(ServerMessage::Response { response: Response { result: Err(error), .. }, .. })
                if routing::is_isolated(error, replicas) =>
            {
                pool.handle_isolated(member.id, now);
                self.calls.refresh_when_older(REFRESH_GAP);
            }
            Ok(ServerMessage::Response { response: Response { result: Ok(_), receipt }, .. }) => {
                pool.handle_done(member.id, routing::is_most(receipt.acks.len(), replicas), now);
            }
            _ => {}
        }
        asked
    }

    /// A mutation that is sent to a node which does not answer may have happened. So one that is probably away is asked something
    /// harmless first: only when it answers is it sent the mutation.
    async fn ask_doubtful(
        &self,
        member: &Member,
        question: impl FnOnce(u64, Duration) -> ClientMessage,
        patience: Duration,
    ) -> Result<ServerMessage, Miss> {
        let began = entropy::instant();
        let brief = patience.min(self.calls.options.first_try_timeout / 2);
        match self.calls.ask_member(member, |ticket, _| ClientMessage::Layout { ticket }, brief).await {
            Ok(ServerMessage::Layout { layout, up, .. }) => {
                // A layout that is not to be believed is no reason not to ask.
                let _ = self.calls.learn(layout, up);
            }
            Ok(_) => {}
            Err(miss) => return Err(Miss { sent: false, ..miss }),
        }
        let left = patience.saturating_sub(entropy::instant() - began);
        self.calls.ask_member(member, question, left).await
    }

    /// Returns after a pause when another try may be made, else with what to tell the caller.
    async fn go_on(&mut self, miss: Miss, op_id: Option<OpId>) -> Result<(), ClientError> {
        self.perhaps_applied |= self.mutation && miss.sent;
        let retryable = miss.refused.as_ref().is_none_or(|(error, _)| match (error, op_id) {
            // By our clock it has not: that node's is ahead, and others' may not be.
            (RequestError::OpIdExpired { window_ms }, Some(op_id)) => {
                let expires_ms = op_id.wall_ms().saturating_add(*window_ms);
                expires_ms >= entropy::wall_ms() && self.others_to_try() > 0
            }
            _ => error.retryable(),
        });
        if !retryable {
            return Err(self.give_up(miss, op_id));
        }
        if miss.node_failed {
            self.calls.refresh_when_older(REFRESH_GAP);
        }
        if let Some((RequestError::Unavailable { .. }, _)) = &miss.refused {
            self.unavailable = miss.refused.clone();
        }
        let pause = routing::backoff(self.attempts, BACKOFF_BASE, BACKOFF_CAP, entropy::random_u64());
        let Some(pause) = self.hope(pause).filter(|pause| *pause < self.left()) else {
            return Err(self.give_up(miss, op_id));
        };
        tokio::time::sleep(pause).await;
        loop {
            let now_ms = (entropy::instant() - self.calls.born).as_millis() as u64;
            // Taken before the wait: a lock must not be held across it.
            let taken = self.calls.budget().take(now_ms);
            let Err(wait_ms) = taken else { return Ok(()) };
            let wait = Duration::from_millis(wait_ms);
            if wait >= self.left() {
                return Err(self.give_up(miss, op_id));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The pause to make, if there is any hope. There is none when too few replicas can be reached, everybody who could be asked says so,
    /// and it is not the moment after a start or a crash any more, in which they find each other: the caller is better told now than
    /// at the end of its patience.
    fn hope(&self, pause: Duration) -> Option<Duration> {
        if self.unavailable.is_none() || self.others_to_try() > 0 {
            return Some(pause);
        }
        let moment = (self.timeout / UNAVAILABLE_SHARES).saturating_sub(entropy::instant() - self.began);
        (!moment.is_zero()).then_some(pause.min(moment))
    }

    /// Members that have not failed this call yet.
    fn others_to_try(&self) -> usize {
        routing::others_to_try(&self.calls.hops(&self.calls.map(), About::Nothing, &self.failures), None)
    }

    fn give_up(&mut self, miss: Miss, op_id: Option<OpId>) -> ClientError {
        let outcome = if self.perhaps_applied { Outcome::Unknown } else { Outcome::NotApplied };
        let waited_ms = (entropy::instant() - self.began).as_millis() as u64;
        // That somebody else did not answer is no news beside it.
        match miss.refused.or(self.unavailable.take()) {
            Some((error, receipt)) => refused(error, outcome, op_id, receipt, self.attempts),
            None => ClientError::NoAnswer { last: miss.last, waited_ms, outcome, op_id, attempts: self.attempts },
        }
    }
}

/// Does the error say that this node, rather than the cluster, cannot do it?
fn is_about_the_node(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::StoreFailed { .. }
            | RequestError::Stopping { .. }
            | RequestError::Disconnected { .. }
            | RequestError::ClockAhead { .. }
            | RequestError::OpIdExpired { .. }
            | RequestError::Unavailable { .. }
    )
}

fn refused(error: RequestError, outcome: Outcome, op_id: Option<OpId>, receipt: Receipt, attempts: u32) -> ClientError {
    ClientError::Refused { error, outcome, op_id, receipt: Box::new(receipt), attempts }
}

pub(crate) fn unexpected(wanted: &'static str, got: &ServerMessage) -> ClientError {
    let kind = match got {
        ServerMessage::Response { .. } => "a response",
        ServerMessage::ScanPage { .. } => "a page of a scan",
        ServerMessage::Where { .. } => "whereabouts",
        ServerMessage::Status { .. } => "a status",
        ServerMessage::Explained { .. } => "an explanation",
        ServerMessage::Layout { .. } => "a layout",
        ServerMessage::Fault { .. } => "a state of faults",
    };
    ClientError::UnexpectedReply { wanted, got: kind.into() }
}

pub(crate) fn unknown(map: &Map, node: &str) -> ClientError {
    let names: Vec<&str> = map.layout.members.iter().map(|member| member.name.as_str()).collect();
    ClientError::UnknownNode { node: node.to_owned(), members: names.join(", ") }
}

/// The first seed that tells a usable layout; else each with what went wrong.
async fn ask_seeds(pool: &Arc<Pool>, options: &ClientOptions) -> Result<Map, Vec<(String, String)>> {
    let mut tried = Vec::new();
    for seed in &options.seeds {
        let told = match pool.seed(seed).await {
            Ok(link) => link.call(|ticket| ClientMessage::Layout { ticket }, options.dial_timeout).await,
            Err(why) => {
                tried.push((seed.clone(), why));
                continue;
            }
        };
        let why = match told {
            Ok(ServerMessage::Layout { layout, up, .. }) => match Map::new(layout, up) {
                Ok(map) => return Ok(map),
                Err(why) => why,
            },
            Ok(other) => unexpected("a layout", &other).to_string(),
            Err(CallFailure::Broken { why, .. }) => why,
            Err(CallFailure::Full | CallFailure::Silent | CallFailure::TooLarge { .. }) => "no answer".into(),
        };
        tried.push((seed.clone(), why));
    }
    Err(tried)
}
