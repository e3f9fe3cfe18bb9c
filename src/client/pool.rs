//! One link per node, dialled when it is needed, and which nodes to leave alone for a while.
//!
//! Many callers may want the same node at once: one dial serves them all, and its failure is told to them all. A node that could
//! not be reached, or did not answer, rests; the pause doubles while it goes on failing. When the pause is over one request goes
//! there and finds out; the others wait for what it finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::link::{Desk, Link, Transport};
use super::routing::backoff;
use crate::data::id::NodeId;
use crate::net::entropy;

const REST_BASE: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(5);
/// So long a node is left alone that is cut off from owners: others may not be. Then one request finds out whether it still is.
const ISOLATED_REST: Duration = Duration::from_millis(500);
/// A node that meets whatever it is asked, and is asked for nothing that needs others, is left alone no longer than this.
const ISOLATED_MAX: Duration = Duration::from_secs(5);
/// Who has answered within this time is up, whatever others say of it.
const ANSWER_HOLDS: Duration = Duration::from_secs(1);

pub(crate) struct Pool {
    transport: Arc<dyn Transport>,
    slots: Mutex<BTreeMap<NodeId, Slot>>,
    options: PoolOptions,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolOptions {
    pub in_flight_max: usize,
    pub frame_bytes_max: usize,
    pub dial_timeout: Duration,
}

type DialResult = Result<Arc<Link>, String>;

#[derive(Default)]
struct Slot {
    state: State,
    failures: u32,
    failed_at: Option<Instant>,
    rests_until: Option<Instant>,
    answered_at: Option<Instant>,
    isolated: Option<Isolated>,
}

/// A node that answers and is cut off from owners, as far as is known.
struct Isolated {
    since: Instant,
    /// Until then nobody else finds out whether it still is.
    until: Instant,
}

/// How this client has fared with a node of late.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Standing {
    /// It is to be left alone for a while.
    pub rests: bool,
    /// It has answered.
    pub answers: bool,
    /// It answers and is cut off from owners.
    pub isolated: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Dialling(watch::Receiver<Option<DialResult>>),
    Open(Arc<Link>),
}

impl Pool {
    pub fn new(transport: Arc<dyn Transport>, options: PoolOptions) -> Self {
        Self { transport, slots: Mutex::new(BTreeMap::new()), options }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Slot>> {
        self.slots.lock().expect("nothing that can panic happens under the lock")
    }

    /// A link to whichever node of the cluster is at `address`. It is kept under that node's name.
    pub async fn seed(self: &Arc<Self>, address: &str) -> DialResult {
        let (name, link) = dial(self, address, None).await?;
        let link = Arc::new(link);
        self.lock().entry(NodeId::from_name(&name)).or_default().state = State::Open(link.clone());
        Ok(link)
    }

    /// The open link to a node, or a new one.
    pub async fn link(self: &Arc<Self>, node: NodeId, name: &str, address: &str) -> DialResult {
        let mut dialling = {
            let mut slots = self.lock();
            let slot = slots.entry(node).or_default();
            match &slot.state {
                State::Open(link) if !link.is_over() => return Ok(link.clone()),
                State::Dialling(result) if result.has_changed().is_ok() => result.clone(),
                State::Open(_) | State::Idle | State::Dialling(_) => {
                    let (tell, result) = watch::channel(None);
                    slot.state = State::Dialling(result.clone());
                    let (pool, name, address) = (self.clone(), name.to_owned(), address.to_owned());
                    // A task of its own: the caller who came first may give up, the others still want the link.
                    tokio::spawn(async move {
                        let dialled = dial(&pool, &address, Some(&name)).await.map(|(_, link)| Arc::new(link));
                        pool.settle(node, &dialled);
                        let _ = tell.send(Some(dialled));
                    });
                    result
                }
            }
        };
        match dialling.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for some"),
            Err(_) => Err("dialling was broken off".into()),
        }
    }

    fn settle(&self, node: NodeId, dialled: &DialResult) {
        let mut slots = self.lock();
        let slot = slots.entry(node).or_default();
        slot.state = match dialled {
            Ok(link) => State::Open(link.clone()),
            Err(_) => State::Idle,
        };
    }

    pub fn standing(&self, node: NodeId, now: Instant) -> Standing {
        let slots = self.lock();
        let Some(slot) = slots.get(&node) else { return Standing::default() };
        Standing {
            rests: slot.rests_until.is_some_and(|until| now < until),
            answers: slot.answered_at.is_some_and(|answered| now < answered + ANSWER_HOLDS),
            isolated: slot.isolated.as_ref().is_some_and(|isolated| now < isolated.until),
        }
    }

    /// A request goes to `node`. If it has failed before, this is the one that finds out: the others leave it alone until then.
    pub fn handle_try(&self, node: NodeId, now: Instant, patience: Duration) {
        if let Some(slot) = self.lock().get_mut(&node)
            && slot.failures > 0
        {
            slot.rests_until = Some(now + patience);
        }
    }

    /// `node` answered, whatever it said.
    pub fn handle_answer(&self, node: NodeId, now: Instant) {
        if let Some(slot) = self.lock().get_mut(&node) {
            slot.answered_at = Some(now);
            if slot.failures > 0 {
                slot.failures = 0;
                slot.rests_until = None;
            }
        }
    }

    /// A request about a key goes to `node`. If it was cut off from owners, this is the one that finds out whether it still is.
    pub fn handle_probe(&self, node: NodeId, now: Instant, patience: Duration) {
        if let Some(isolated) = self.lock().get_mut(&node).and_then(|slot| slot.isolated.as_mut()) {
            isolated.until = now + patience;
        }
    }

    /// `node` did what it was asked about a key. `reached`: with so many owners that it cannot be cut off from them.
    pub fn handle_done(&self, node: NodeId, reached: bool, now: Instant) {
        if let Some(slot) = self.lock().get_mut(&node) {
            slot.isolated.take_if(|isolated| reached || now > isolated.since + ISOLATED_MAX);
        }
    }

    /// `node` answered, and is cut off from owners.
    pub fn handle_isolated(&self, node: NodeId, now: Instant) {
        if let Some(slot) = self.lock().get_mut(&node) {
            let until = now + ISOLATED_REST;
            slot.isolated.get_or_insert(Isolated { since: now, until }).until = until;
        }
    }

    /// `node` could not be reached or did not answer a try that began at `began`.
    pub fn handle_failure(&self, node: NodeId, began: Instant, now: Instant) {
        let mut slots = self.lock();
        let slot = slots.entry(node).or_default();
        // Many requests that fail together are one piece of news.
        if slot.failed_at.is_some_and(|failed| began < failed) {
            return;
        }
        slot.failed_at = Some(now);
        slot.answered_at = None;
        slot.failures = slot.failures.saturating_add(1);
        let pause = REST_BASE / 2 + backoff(slot.failures, REST_BASE, REST_MAX, entropy::random_u64());
        slot.rests_until = Some(now + pause);
    }

    /// Closes all links and lets nobody dial again.
    pub fn close(&self) {
        for (_, slot) in std::mem::take(&mut *self.lock()) {
            if let State::Open(link) = slot.state {
                link.close("the client is done");
            }
        }
        self.transport.close();
    }
}

async fn dial(pool: &Pool, address: &str, name: Option<&str>) -> Result<(String, Link), String> {
    let desk = Arc::new(Desk::new(pool.options.in_flight_max, pool.options.frame_bytes_max));
    match tokio::time::timeout(pool.options.dial_timeout, pool.transport.dial(address, name, desk.clone())).await {
        Ok(Ok(dialled)) => Ok((dialled.name, Link::new(dialled.wire, desk))),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no answer to the dial within {} ms", pool.options.dial_timeout.as_millis())),
    }
}
