//! A link to every other member, kept: whom to dial and when, which link to send on, whom to let in.
//!
//! ```text
//!   send(node, class, frame) --> [peer: breaker, current link] --> net
//!   set_members, kick ---------> [keeper task per peer: dial, back off, dial again]
//!   net: arrivals -------------> node of the layout? its links.   client? handed on with its link.   else: refused
//! ```
//!
//! Either of two nodes may dial the other. Both send on the link that the one with the smaller id dialled; while there is none they send
//! on the other, if there is one. So two dials at once need no settling: the second link is a spare, which costs a keep-alive now and
//! then. The node with the larger id waits a moment before it dials, so that mostly there is only one link: on one link answers carry the
//! acknowledgements of what they answer, on two each would need packets of its own.
//!
//! When a link breaks, what was on its way is lost without a word: whoever sends keeps a deadline. A send to a peer without a link fails
//! at once and is not kept for later: by then it would be late.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::breaker::{Backoff, Breaker, Circuit};
use super::clock;
use crate::data::id::NodeId;
use crate::net::endpoint::{Arrival, Endpoint};
use crate::net::link::{self, CloseCode, Link, LinkEnd, Sink};
use crate::net::stats::NetCounts;
use crate::net::tls::PeerIdentity;
use crate::wire::frame::{Class, FrameError};

/// A link that lives this long was a good one.
const LIVED_US: u64 = 1_000_000;

/// What comes in. Called on the network's tasks: must not block, and must not call [`Peers::set_members`].
pub trait Inbound: Send + Sync + 'static {
    /// Frames of a member, at least one, in order per link and class. They may come a moment before `on_up` is called and after
    /// `on_down`.
    fn on_frames(&self, from: NodeId, class: Class, frames: Vec<Bytes>);
    fn on_datagram(&self, from: NodeId, datagram: Bytes);
    /// There is a link to this member, where there was none. Up and down take turns, per member.
    fn on_up(&self, node: NodeId);
    /// The last link to this member is gone. That is no verdict on the member: SWIM gives those.
    fn on_down(&self, node: NodeId, why: &str);
    /// Frames of a client; answers go back on `link`.
    fn on_client_frames(&self, link: &Link, frames: Vec<Bytes>);
    /// A client's link is over; answers to it go nowhere.
    fn on_client_gone(&self, link: &Link);
}

/// A member to keep a link to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerMember {
    pub id: NodeId,
    /// As its certificate names it.
    pub name: String,
    /// `host:port`.
    pub addr: String,
}

#[derive(Clone, Debug)]
pub struct PeersOptions {
    /// Between dials that fail.
    pub backoff: Backoff,
    /// Failures in a row that open a peer's circuit.
    pub failures_max: u32,
    /// A queue full for this long counts as one failure.
    pub stalled_ms: u64,
    /// The node with the larger id gives the other this long to dial first.
    pub courtesy_ms: u64,
    /// A node dials only when it has no link. So when one arrives from a peer that this node has dialled longer ago than this, the peer
    /// has lost that link (it was restarted), and it is given up; a younger one is a dial that crossed. More than dialling takes.
    pub settle_ms: u64,
    /// Links of clients at one time.
    pub clients_max: usize,
}

impl Default for PeersOptions {
    fn default() -> Self {
        Self {
            backoff: Backoff { first_ms: 50, most_ms: 2_000 },
            failures_max: 5,
            stalled_ms: 500,
            courtesy_ms: 250,
            settle_ms: 5_000,
            clients_max: 1_024,
        }
    }
}

/// Why a frame was not taken. Nothing of it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    #[error("no such member")]
    NotMember,
    #[error("no link to this member now")]
    NotConnected,
    #[error("this member has taken nothing for a while; its circuit is open")]
    CircuitOpen,
    #[error("too much waits for this member already")]
    Full,
    #[error("cannot be sent: {0}")]
    Unframeable(#[from] FrameError),
    #[error("a datagram of {len} bytes, but the link carries at most {max}")]
    DatagramTooLarge { len: usize, max: usize },
}

/// How things stand with one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    pub id: NodeId,
    pub name: String,
    pub addr: String,
    pub connected: bool,
    pub circuit: Circuit,
    /// Frames and bytes taken for sending.
    pub sent_frames: u64,
    pub sent_bytes: u64,
    pub dropped: Dropped,
    /// Links that came up after the first.
    pub reconnects: u64,
    pub dials_failed: u64,
    pub round_trip_us: u64,
    /// Why the last dial failed or the last link ended; empty while all is well.
    pub trouble: String,
}

/// Frames and datagrams not taken, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub not_connected: u64,
    pub circuit_open: u64,
    pub full: u64,
    pub unframeable: u64,
}

/// A handle to all peers; clones are the same.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    me: NodeId,
    endpoint: Endpoint,
    inbound: Arc<dyn Inbound>,
    options: PeersOptions,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    clients: AtomicUsize,
    clients_refused: AtomicU64,
    strangers_refused: AtomicU64,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

struct Peer {
    member: PeerMember,
    /// This node's id is the smaller one.
    dials_first: bool,
    links: Mutex<Links>,
    /// The one of `links` to send on: a copy under a lock of its own, because every send reads it.
    current: RwLock<Option<Link>>,
    /// What `Inbound` believes.
    told_up: Mutex<bool>,
    /// Ask the breaker before sending.
    troubled: AtomicBool,
    breaker: Mutex<Breaker>,
    /// When the queue was first found full since it last took something; 0: it is not.
    full_since_us: AtomicU64,
    /// Tells the keeper to look again.
    look: Notify,
    /// Dial now, whatever the wait.
    kicked: AtomicBool,
    removed: AtomicBool,
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
    not_connected: AtomicU64,
    circuit_open: AtomicU64,
    full: AtomicU64,
    unframeable: AtomicU64,
    ups: AtomicU64,
    dials_failed: AtomicU64,
    trouble: Mutex<String>,
}

#[derive(Default)]
struct Links {
    dialled: Option<Link>,
    dialled_us: u64,
    accepted: Option<Link>,
}

impl Peers {
    /// Must be called inside the tokio runtime the endpoint was bound in. No member is known yet, and so nobody is let in: whoever
    /// arrives waits for [`Peers::set_members`].
    pub fn start(me: NodeId, endpoint: Endpoint, inbound: Arc<dyn Inbound>, options: PeersOptions) -> Self {
        Self(Arc::new(Inner {
            me,
            endpoint,
            inbound,
            options,
            peers: RwLock::default(),
            clients: AtomicUsize::new(0),
            clients_refused: AtomicU64::new(0),
            strangers_refused: AtomicU64::new(0),
            acceptor: Mutex::new(None),
        }))
    }

    /// From now on exactly these are members; this node itself is left out. Who is no longer one, or has moved, loses its links. The
    /// first call opens the door: before it a member would be refused as a stranger.
    pub fn set_members(&self, members: impl IntoIterator<Item = PeerMember>) {
        let mut wanted: BTreeMap<NodeId, PeerMember> =
            members.into_iter().filter(|member| member.id != self.0.me).map(|member| (member.id, member)).collect();
        let mut gone = Vec::new();
        let mut peers = self.0.peers.write().expect("nothing that can panic happens under the lock");
        peers.retain(|id, peer| {
            let stays = wanted.get(id) == Some(&peer.member);
            if stays {
                wanted.remove(id);
            } else {
                gone.push(peer.clone());
            }
            stays
        });
        for (id, member) in wanted {
            let peer = Arc::new(Peer::new(member, self.0.me, &self.0.options));
            tokio::spawn(keep(Arc::downgrade(&self.0), peer.clone()));
            peers.insert(id, peer);
        }
        drop(peers);
        for peer in gone {
            self.0.part(&peer);
        }
        let accept = || tokio::spawn(accept(self.0.endpoint.clone(), Arc::downgrade(&self.0)));
        hold(&self.0.acceptor).get_or_insert_with(accept);
    }

    /// Takes one frame for a member; never waits.
    pub fn send(&self, to: NodeId, class: Class, frame: &Bytes) -> Result<(), SendError> {
        self.send_all(to, class, std::slice::from_ref(frame)).1
    }

    /// Takes frames for a member in order until one is refused; returns how many were taken, and why not all. Costs one lock and one
    /// wake-up for all of them, so whoever has several should use this.
    pub fn send_all(&self, to: NodeId, class: Class, frames: &[Bytes]) -> (usize, Result<(), SendError>) {
        match self.0.peer(to) {
            Some(peer) => peer.send_all(class, frames, self.0.options.stalled_ms),
            None => (0, Err(SendError::NotMember)),
        }
    }

    /// Sends a datagram to a member: at once or never.
    pub fn send_datagram(&self, to: NodeId, datagram: Bytes) -> Result<(), SendError> {
        let peer = self.0.peer(to).ok_or(SendError::NotMember)?;
        let Some(link) = peer.current() else {
            count(&peer.not_connected, 1);
            return Err(SendError::NotConnected);
        };
        link.send_datagram(datagram).map_err(|error| peer.refused(error, 1))
    }

    /// Whether there is a link to this member now.
    pub fn connected(&self, node: NodeId) -> bool {
        self.0.peer(node).is_some_and(|peer| peer.current().is_some())
    }

    /// Where this member is on the links to it: usually where it listens, since a node dials from the socket on which it listens.
    pub fn remotes(&self, node: NodeId) -> Vec<SocketAddr> {
        let Some(peer) = self.0.peer(node) else { return Vec::new() };
        let links = hold(&peer.links);
        [&links.dialled, &links.accepted].into_iter().flatten().map(Link::remote).collect()
    }

    /// SWIM has seen this member back: dial at once, and believe in it again.
    pub fn kick(&self, node: NodeId) {
        if let Some(peer) = self.0.peer(node) {
            peer.trust();
            peer.kicked.store(true, Ordering::Relaxed);
            peer.look.notify_one();
        }
    }

    /// How things stand with each member, sorted by id.
    pub fn report(&self) -> Vec<PeerReport> {
        let peers = self.0.peers.read().expect("nothing that can panic happens under the lock");
        peers.values().map(|peer| peer.report()).collect()
    }

    /// Links of clients now.
    pub fn clients(&self) -> usize {
        self.0.clients.load(Ordering::Relaxed)
    }

    /// Clients refused because there were too many, and nodes refused because they are no members.
    pub fn refused(&self) -> (u64, u64) {
        (self.0.clients_refused.load(Ordering::Relaxed), self.0.strangers_refused.load(Ordering::Relaxed))
    }

    /// What the endpoint has counted.
    pub fn net_counts(&self) -> NetCounts {
        self.0.endpoint.stats().counts()
    }

    /// Stops dialling and accepting, and closes all links; waits up to `wait_ms` for the others to have heard.
    pub async fn shutdown(&self, wait_ms: u64) {
        if let Some(acceptor) = hold(&self.0.acceptor).take() {
            acceptor.abort();
        }
        let peers = std::mem::take(&mut *self.0.peers.write().expect("nothing that can panic happens under the lock"));
        for peer in peers.values() {
            peer.removed.store(true, Ordering::Relaxed);
            peer.look.notify_one();
        }
        self.0.endpoint.close(CloseCode::Shutdown, "this node is shutting down", wait_ms).await;
    }
}

impl Inner {
    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().expect("nothing that can panic happens under the lock").get(&node).cloned()
    }

    /// The member that a link belongs to.
    fn peer_of(&self, link: &Link) -> Option<Arc<Peer>> {
        self.member(link.peer())
    }

    fn member(&self, identity: &PeerIdentity) -> Option<Arc<Peer>> {
        let PeerIdentity::Node(name) = identity else { return None };
        self.peer(NodeId::from_name(name)).filter(|peer| peer.member.name == *name)
    }

    /// A new link to or from a member.
    fn join(&self, peer: &Peer, link: Link) {
        let mut links = hold(&peer.links);
        if peer.removed.load(Ordering::Relaxed) {
            return link.close(CloseCode::NotMember, "no longer a member");
        }
        let now_us = clock::mono_us();
        let mut lost = None;
        let replaced = if link.dialled() {
            links.dialled_us = now_us;
            links.dialled.replace(link.clone())
        } else {
            if now_us.saturating_sub(links.dialled_us) >= self.options.settle_ms * 1000 {
                lost = links.dialled.take();
            }
            links.accepted.replace(link.clone())
        };
        // It may have ended before it had a place, and nobody would tell again.
        if link.end().is_some() {
            links.remove(&link);
        }
        peer.choose(&links);
        drop(links);
        for replaced in [replaced, lost].into_iter().flatten() {
            replaced.close(CloseCode::Replaced, "a newer link takes its place");
        }
        self.tell(peer, "it ended as soon as it had begun");
    }

    /// A link of a member is over.
    fn leave(&self, peer: &Peer, link: &Link, why: &str) {
        let mut links = hold(&peer.links);
        links.remove(link);
        peer.choose(&links);
        drop(links);
        self.tell(peer, why);
    }

    /// Tells of the difference between what is and what was told last, so that up and down take turns whichever task comes first.
    fn tell(&self, peer: &Peer, why: &str) {
        let mut told_up = hold(&peer.told_up);
        let is_up = peer.current().is_some();
        if *told_up == is_up {
            return;
        }
        *told_up = is_up;
        if is_up {
            count(&peer.ups, 1);
            peer.trust();
            hold(&peer.trouble).clear();
            self.inbound.on_up(peer.member.id);
        } else {
            *hold(&peer.trouble) = why.to_owned();
            self.inbound.on_down(peer.member.id, why);
            peer.look.notify_one();
        }
    }

    /// A member is none any more (or has moved).
    fn part(&self, peer: &Peer) {
        peer.removed.store(true, Ordering::Relaxed);
        peer.look.notify_one();
        let mut held = hold(&peer.links);
        let links = std::mem::take(&mut *held);
        peer.choose(&held);
        drop(held);
        self.tell(peer, "no longer a member");
        for link in [links.dialled, links.accepted].into_iter().flatten() {
            link.close(CloseCode::NotMember, "the layout has changed");
        }
    }

    fn arrive(self: &Arc<Self>, arrival: Arrival) {
        match arrival.peer() {
            PeerIdentity::Node(name) => match self.member(arrival.peer()) {
                Some(peer) => {
                    let link = arrival.welcome(self.clone());
                    self.join(&peer, link);
                }
                None => {
                    let text = format!("{name} is not a member of the layout");
                    let refused = self.strangers_refused.fetch_add(1, Ordering::Relaxed) + 1;
                    // It will try again and again: told for the 1st, 2nd, 4th, 8th ... time, counted always.
                    if refused.is_power_of_two() {
                        tracing::warn!(remote = %arrival.remote(), refused, "refused: {text}");
                    }
                    arrival.refuse(CloseCode::NotMember, &text);
                }
            },
            PeerIdentity::Client(_) => {
                if self.clients.fetch_add(1, Ordering::Relaxed) >= self.options.clients_max {
                    self.clients.fetch_sub(1, Ordering::Relaxed);
                    count(&self.clients_refused, 1);
                    return arrival.refuse(CloseCode::Overloaded, "too many clients on this node; try another");
                }
                arrival.welcome(self.clone());
            }
        }
    }
}

impl Sink for Inner {
    fn on_frames(&self, link: &Link, class: Class, frames: Vec<Bytes>) {
        match link.peer() {
            PeerIdentity::Node(name) => self.inbound.on_frames(NodeId::from_name(name), class, frames),
            PeerIdentity::Client(_) => self.inbound.on_client_frames(link, frames),
        }
    }

    fn on_datagram(&self, link: &Link, datagram: Bytes) {
        // Only members gossip.
        if let PeerIdentity::Node(name) = link.peer() {
            self.inbound.on_datagram(NodeId::from_name(name), datagram);
        }
    }

    fn on_closed(&self, link: &Link, end: &LinkEnd) {
        match link.peer() {
            PeerIdentity::Node(_) => {
                if let Some(peer) = self.peer_of(link) {
                    self.leave(&peer, link, &end.text);
                }
            }
            PeerIdentity::Client(_) => {
                self.clients.fetch_sub(1, Ordering::Relaxed);
                self.inbound.on_client_gone(link);
            }
        }
    }
}

impl Peer {
    fn new(member: PeerMember, me: NodeId, options: &PeersOptions) -> Self {
        Self {
            dials_first: me < member.id,
            member,
            links: Mutex::default(),
            current: RwLock::default(),
            told_up: Mutex::default(),
            troubled: AtomicBool::new(false),
            breaker: Mutex::new(Breaker::new(options.failures_max, options.backoff)),
            full_since_us: AtomicU64::new(0),
            look: Notify::new(),
            kicked: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            sent_frames: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            not_connected: AtomicU64::new(0),
            circuit_open: AtomicU64::new(0),
            full: AtomicU64::new(0),
            unframeable: AtomicU64::new(0),
            ups: AtomicU64::new(0),
            dials_failed: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    fn send_all(&self, class: Class, frames: &[Bytes], stalled_ms: u64) -> (usize, Result<(), SendError>) {
        let current = self.current.read().expect("nothing that can panic happens under the lock");
        let Some(link) = current.as_ref() else {
            count(&self.not_connected, frames.len() as u64);
            return (0, Err(SendError::NotConnected));
        };
        let troubled = self.troubled.load(Ordering::Relaxed);
        if troubled && !hold(&self.breaker).admit(clock::mono_us()) {
            count(&self.circuit_open, frames.len() as u64);
            return (0, Err(SendError::CircuitOpen));
        }
        let (taken, outcome) = link.send_all(class, frames);
        drop(current);
        if taken > 0 {
            count(&self.sent_frames, taken as u64);
            count(&self.sent_bytes, frames[..taken].iter().map(|frame| frame.len() as u64).sum());
        }
        match outcome {
            Ok(()) => {
                if troubled {
                    self.trust();
                }
                (taken, Ok(()))
            }
            Err(error) => {
                if error == link::SendError::Full {
                    self.stalled(taken > 0, stalled_ms);
                }
                (taken, Err(self.refused(error, (frames.len() - taken) as u64)))
            }
        }
    }

    /// The queue is full. Once in a burst that is nothing; when it lasts, the peer takes nothing and the breaker hears of it.
    fn stalled(&self, took_some: bool, stalled_ms: u64) {
        let now_us = clock::mono_us().max(1);
        let since_us = self.full_since_us.load(Ordering::Relaxed);
        self.troubled.store(true, Ordering::Relaxed);
        if took_some || since_us == 0 {
            self.full_since_us.store(now_us, Ordering::Relaxed);
            return;
        }
        let mut breaker = hold(&self.breaker);
        // The one try of a half-open circuit has its answer at once.
        if breaker.circuit() == Circuit::HalfOpen || now_us.saturating_sub(since_us) >= stalled_ms * 1000 {
            self.full_since_us.store(now_us, Ordering::Relaxed);
            breaker.fail(now_us, clock::random_u64());
        }
    }

    /// It works (again).
    fn trust(&self) {
        self.full_since_us.store(0, Ordering::Relaxed);
        let mut breaker = hold(&self.breaker);
        breaker.succeed();
        self.troubled.store(false, Ordering::Relaxed);
    }

    fn refused(&self, error: link::SendError, frames: u64) -> SendError {
        let (counter, error) = match error {
            link::SendError::Full => (&self.full, SendError::Full),
            link::SendError::Closed => (&self.not_connected, SendError::NotConnected),
            link::SendError::Unframeable(error) => (&self.unframeable, SendError::Unframeable(error)),
            link::SendError::DatagramTooLarge { len, max } => {
                (&self.unframeable, SendError::DatagramTooLarge { len, max })
            }
        };
        count(counter, frames);
        error
    }

    fn current(&self) -> Option<Link> {
        self.current.read().expect("nothing that can panic happens under the lock").clone()
    }

    /// Both sides prefer the link that the one with the smaller id dialled.
    fn choose(&self, links: &Links) {
        let (first, second) = match self.dials_first {
            true => (&links.dialled, &links.accepted),
            false => (&links.accepted, &links.dialled),
        };
        let chosen = first.as_ref().or(second.as_ref()).cloned();
        *self.current.write().expect("nothing that can panic happens under the lock") = chosen;
    }

    fn report(&self) -> PeerReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let current = self.current();
        PeerReport {
            id: self.member.id,
            name: self.member.name.clone(),
            addr: self.member.addr.clone(),
            connected: current.is_some(),
            circuit: hold(&self.breaker).circuit(),
            sent_frames: read(&self.sent_frames),
            sent_bytes: read(&self.sent_bytes),
            dropped: Dropped {
                not_connected: read(&self.not_connected),
                circuit_open: read(&self.circuit_open),
                full: read(&self.full),
                unframeable: read(&self.unframeable),
            },
            reconnects: read(&self.ups).saturating_sub(1),
            dials_failed: read(&self.dials_failed),
            round_trip_us: current.map_or(0, |link| link.path().round_trip_us),
            trouble: hold(&self.trouble).clone(),
        }
    }
}

impl Links {
    /// Takes it out if it is one of these.
    fn remove(&mut self, link: &Link) {
        let place = if link.dialled() { &mut self.dialled } else { &mut self.accepted };
        if place.as_ref() == Some(link) {
            *place = None;
        }
    }
}

/// Lets in whoever may.
async fn accept(endpoint: Endpoint, inner: Weak<Inner>) {
    while let Some(arrival) = endpoint.accept().await {
        let Some(inner) = inner.upgrade() else { return };
        inner.arrive(arrival);
    }
}

/// Keeps one peer linked: dials when there is no link, waits when there is. Ends when the peer is removed or nobody holds `Peers`.
async fn keep(inner: Weak<Inner>, peer: Arc<Peer>) {
    let mut wait_ms = 0;
    let mut short_lived = 0;
    while !peer.removed.load(Ordering::Relaxed) {
        if peer.current().is_some() {
            let since_us = clock::mono_us();
            while peer.current().is_some() && !peer.removed.load(Ordering::Relaxed) {
                peer.look.notified().await;
            }
            let Some(peers) = inner.upgrade() else { return };
            // A link that breaks as soon as it is there has a reason to, so the next one must wait as after a failed dial.
            let lived = clock::mono_us().saturating_sub(since_us) >= LIVED_US;
            short_lived = if lived { 0 } else { short_lived + 1 };
            wait_ms = if lived { 0 } else { peers.options.backoff.wait_ms(short_lived, clock::random_u64()) };
            continue;
        }
        let Some(peers) = inner.upgrade() else { return };
        let courtesy_ms = if peer.dials_first { 0 } else { peers.options.courtesy_ms };
        drop(peers);
        // The wait is cut short by a kick; that the peer has dialled meanwhile is seen after it.
        let kicked = async {
            while !peer.kicked.load(Ordering::Relaxed) && !peer.removed.load(Ordering::Relaxed) {
                peer.look.notified().await;
            }
        };
        let _ = timeout(Duration::from_millis(wait_ms + courtesy_ms), kicked).await;
        let Some(peers) = inner.upgrade() else { return };
        if peer.current().is_none() && !peer.removed.load(Ordering::Relaxed) {
            peer.kicked.store(false, Ordering::Relaxed);
            wait_ms = dial(&peers, &peer).await;
        }
    }
}

/// Tries once; returns how long to wait before the next time.
async fn dial(peers: &Arc<Inner>, peer: &Peer) -> u64 {
    // The wait before this try was the breaker's, so it says yes, and remembers that this is the one that decides.
    let _ = hold(&peer.breaker).admit(clock::mono_us());
    match peers.endpoint.dial(&peer.member.addr, &peer.member.name, peers.clone()).await {
        Ok(link) => {
            peers.join(peer, link);
            0
        }
        Err(error) => {
            let text = error.to_string();
            count(&peer.dials_failed, 1);
            let mut trouble = hold(&peer.trouble);
            if *trouble != text {
                tracing::info!(peer = peer.member.name, "{text}");
                *trouble = text;
            }
            drop(trouble);
            let random = clock::random_u64();
            let mut breaker = hold(&peer.breaker);
            breaker.fail(clock::mono_us(), random);
            peers.options.backoff.wait_ms(breaker.failures(), random)
        }
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing that can panic happens under the lock")
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
