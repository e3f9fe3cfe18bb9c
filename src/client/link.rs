//! One link to one node, with many questions under way on it: tickets go out, answers find their way back by them.
//!
//! What carries the frames is behind two traits, so that everything above can be tried against a node that lies, stalls or
//! vanishes without a network.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::wire::client::{ClientMessage, ServerMessage};
use crate::wire::codec;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens links. `name`: the node that must be at the other end; `None`: any node of the cluster.
pub(crate) trait Transport: Send + Sync + 'static {
    fn dial<'a>(
        &'a self,
        address: &'a str,
        name: Option<&'a str>,
        ear: Arc<dyn Ear>,
    ) -> BoxFuture<'a, Result<Dialled, String>>;

    /// No more links: those that are open are closed.
    fn close(&self);
}

/// A link that was opened, and the name of the node that it leads to.
pub(crate) struct Dialled {
    pub name: String,
    pub wire: Box<dyn Wire>,
}

/// The sending half.
pub(crate) trait Wire: Send + Sync + 'static {
    fn send(&self, frame: &Bytes) -> Result<(), SendRefused>;
    fn close(&self, why: &str);
}

/// The receiving half.
pub(crate) trait Ear: Send + Sync + 'static {
    fn on_frames(&self, frames: Vec<Bytes>);
    fn on_closed(&self, why: &str);
}

/// Nothing of the frame was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SendRefused {
    Full,
    Closed,
    TooLarge { size: u64, limit: u64 },
}

/// Why a question on a link got no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CallFailure {
    /// Too much is under way; nothing was sent.
    Full,
    /// The message cannot be sent to anybody; nothing was sent.
    TooLarge { size: u64, limit: u64 },
    /// The link is over. `sent`: the question may have arrived.
    Broken { why: String, sent: bool },
    /// No answer came in time; the question may have arrived.
    Silent,
}

/// After so many questions in a row without an answer, the link is given up and a new one is dialled.
const SILENT_MAX: u32 = 3;

/// An open link.
pub(crate) struct Link {
    wire: Box<dyn Wire>,
    desk: Arc<Desk>,
}

/// Where answers wait to be fetched. It is there before the link is, because answers may come as soon as there is one.
pub(crate) struct Desk {
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<ServerMessage>>>,
    in_flight_max: usize,
    frame_bytes_max: usize,
    next_ticket: AtomicU64,
    silent: AtomicU32,
    /// Why it is over, once it is.
    over: OnceLock<String>,
}

impl Desk {
    pub fn new(in_flight_max: usize, frame_bytes_max: usize) -> Self {
        Self {
            waiting: Mutex::new(BTreeMap::new()),
            in_flight_max,
            frame_bytes_max,
            next_ticket: AtomicU64::new(1),
            silent: AtomicU32::new(0),
            over: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<ServerMessage>>> {
        self.waiting.lock().expect("nothing that can panic happens under the lock")
    }

    fn end(&self, why: &str) {
        let _ = self.over.set(why.to_owned());
        // Dropping the senders wakes everybody who waits.
        drop(std::mem::take(&mut *self.lock()));
    }
}

impl Ear for Desk {
    fn on_frames(&self, frames: Vec<Bytes>) {
        self.silent.store(0, Ordering::Relaxed);
        for frame in frames {
            let message: ServerMessage = match codec::decode(&frame, self.frame_bytes_max) {
                Ok(message) => message,
                Err(error) => return self.end(&error.to_string()),
            };
            // Nobody waits any more for an answer that comes late.
            if let Some(asker) = self.lock().remove(&ticket(&message)) {
                let _ = asker.send(message);
            }
        }
    }

    fn on_closed(&self, why: &str) {
        self.end(why);
    }
}

fn ticket(message: &ServerMessage) -> u64 {
    match message {
        ServerMessage::Response { ticket, .. }
        | ServerMessage::ScanPage { ticket, .. }
        | ServerMessage::Where { ticket, .. }
        | ServerMessage::Status { ticket, .. }
        | ServerMessage::Explained { ticket, .. }
        | ServerMessage::Layout { ticket, .. }
        | ServerMessage::Fault { ticket, .. } => *ticket,
    }
}

/// Takes a ticket back when nobody waits any more, be it by time or because the caller was dropped.
struct Ticket<'a> {
    desk: &'a Desk,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.desk.lock().remove(&self.number);
    }
}

impl Link {
    pub fn new(wire: Box<dyn Wire>, desk: Arc<Desk>) -> Self {
        Self { wire, desk }
    }

    pub fn is_over(&self) -> bool {
        self.desk.over.get().is_some()
    }

    pub fn close(&self, why: &str) {
        self.wire.close(why);
        self.desk.end(why);
    }

    fn broken(&self, sent: bool) -> CallFailure {
        let why = self.desk.over.get().cloned().unwrap_or_else(|| "the link is closed".into());
        CallFailure::Broken { why, sent }
    }

    /// Asks and waits, `patience` at most. `question` is given its ticket.
    pub async fn call(
        &self,
        question: impl FnOnce(u64) -> ClientMessage,
        patience: Duration,
    ) -> Result<ServerMessage, CallFailure> {
        let number = self.desk.next_ticket.fetch_add(1, Ordering::Relaxed);
        let frame = codec::encode(&question(number));
        let (asker, answer) = oneshot::channel();
        {
            let mut waiting = self.desk.lock();
            if waiting.len() >= self.desk.in_flight_max {
                return Err(CallFailure::Full);
            }
            waiting.insert(number, asker);
        }
        let _ticket = Ticket { desk: &self.desk, number };
        // Looked at after the ticket is in: an end that comes from here on finds it.
        if self.is_over() {
            return Err(self.broken(false));
        }
        match self.wire.send(&frame) {
            Ok(()) => {}
            Err(SendRefused::Full) => return Err(CallFailure::Full),
            Err(SendRefused::TooLarge { size, limit }) => return Err(CallFailure::TooLarge { size, limit }),
            Err(SendRefused::Closed) => return Err(self.broken(false)),
        }
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(_)) => Err(self.broken(true)),
            Err(_) => {
                if self.desk.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_MAX {
                    self.close("no answers");
                }
                Err(CallFailure::Silent)
            }
        }
    }
}
