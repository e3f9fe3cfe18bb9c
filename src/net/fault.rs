//! A UDP socket that misbehaves on demand, under real QUIC: loss, duplication, delay, cuts in either direction, per peer.
//!
//! A node has one only if it was started with `allow_faults`; without that setting no order can come here. While no rule is set it
//! passes everything through, batches and all. While one is, packets to the peers that have a rule go one by one; all others are as
//! fast as before but for a look at the rules.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{entropy, socket};
use crate::data::id::mix64;
pub use crate::wire::fault::FaultCounts;

/// Delayed packets under way at one moment; more are lost, as in a router.
const DELAYED_MAX: usize = 4096;

const PPM: u64 = 1_000_000;

/// What happens to packets to and from one address. Parts per million, microseconds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Nothing goes out.
    pub cut_out: bool,
    /// Nothing comes in.
    pub cut_in: bool,
    /// Of outgoing packets.
    pub loss_ppm: u32,
    pub duplicate_ppm: u32,
    pub delay_us: u32,
    /// Added to the delay, between 0 and this: it is what reorders packets.
    pub jitter_us: u32,
}

/// The levers. Shared: whoever holds it changes the rules of a running socket.
#[derive(Debug)]
pub struct FaultControl {
    active: AtomicBool,
    rules: RwLock<Rules>,
    dice: AtomicU64,
    delayed_now: AtomicUsize,
    lost: AtomicU64,
    duplicated: AtomicU64,
    delayed: AtomicU64,
    cut: AtomicU64,
    overflowed: AtomicU64,
}

#[derive(Debug, Default)]
struct Rules {
    everybody: Rule,
    peers: BTreeMap<SocketAddr, Rule>,
}

impl FaultControl {
    /// No rules yet. `seed` decides which packets are hit; the timing is the machine's, so a run is only roughly repeatable.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicBool::new(false),
            rules: RwLock::default(),
            dice: AtomicU64::new(seed),
            delayed_now: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            duplicated: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        })
    }

    /// The rule for all peers that have none of their own.
    pub fn set_everybody(&self, rule: Rule) {
        self.change(|rules| rules.everybody = rule);
    }

    /// The rule for one peer; a default rule exempts it from the one for everybody.
    pub fn set_peer(&self, peer: SocketAddr, rule: Rule) {
        self.change(|rules| {
            rules.peers.insert(plain(peer), rule);
        });
    }

    /// Just these peers have rules of their own from now on; all at once, so that no packet meets half of it.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = (SocketAddr, Rule)>) {
        let peers = peers.into_iter().map(|(peer, rule)| (plain(peer), rule)).collect();
        self.change(|rules| rules.peers = peers);
    }

    /// The network is well again.
    pub fn heal(&self) {
        self.change(|rules| *rules = Rules::default());
    }

    pub fn counts(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultCounts {
            lost: read(&self.lost),
            duplicated: read(&self.duplicated),
            delayed: read(&self.delayed),
            cut: read(&self.cut),
            overflowed: read(&self.overflowed),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        let mut rules = self.rules.write().expect("no holder of the rules panics");
        change(&mut rules);
        let any = rules.everybody != Rule::default() || rules.peers.values().any(|rule| *rule != Rule::default());
        self.active.store(any, Ordering::Relaxed);
    }

    fn active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    fn rule(&self, peer: SocketAddr) -> Rule {
        let rules = self.rules.read().expect("no holder of the rules panics");
        rules.peers.get(&plain(peer)).copied().unwrap_or(rules.everybody)
    }

    /// A counter through a mixer: splitmix64.
    fn roll(&self) -> u64 {
        mix64(self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    fn hit(&self, ppm: u32) -> bool {
        ppm > 0 && self.roll() % PPM < u64::from(ppm)
    }
}

/// The socket itself.
#[derive(Debug)]
pub struct FaultSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    control: Arc<FaultControl>,
    /// To those that hold packets back; never more than `DELAYED_MAX` are with them.
    late: mpsc::UnboundedSender<Late>,
}

/// A packet that is held back. The first to be sent is the greatest, as a heap wants it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    /// When, and, of packets that are due together, in the order in which they came.
    due: Reverse<(Instant, u64)>,
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: Option<u8>,
    contents: Vec<u8>,
}

impl FaultSocket {
    /// Wraps a bound socket. Must be called, and used, inside a tokio runtime.
    pub fn wrap(socket: UdpSocket, buffer_bytes: usize, control: Arc<FaultControl>) -> io::Result<Arc<Self>> {
        let inner = socket::wrap(socket, buffer_bytes)?;
        let (late, packets) = mpsc::unbounded_channel();
        tokio::spawn(send_late(inner.clone(), control.clone(), packets));
        Ok(Arc::new(Self { inner, control, late }))
    }

    fn send_one(&self, rule: Rule, packet: &Transmit) -> io::Result<()> {
        if rule.delay_us == 0 && rule.jitter_us == 0 {
            return match self.inner.try_send(packet) {
                // To say "not now" after part of a batch would have quinn send all of it again: a full buffer is a loss.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    add(&self.control.overflowed);
                    Ok(())
                }
                other => other,
            };
        }
        if self.control.delayed_now.fetch_add(1, Ordering::Relaxed) >= DELAYED_MAX {
            self.control.delayed_now.fetch_sub(1, Ordering::Relaxed);
            add(&self.control.overflowed);
            return Ok(());
        }
        let number = self.control.delayed.fetch_add(1, Ordering::Relaxed);
        let jitter_us = self.control.roll() % (u64::from(rule.jitter_us) + 1);
        let delay = Duration::from_micros(u64::from(rule.delay_us) + jitter_us);
        let late = Late {
            due: Reverse((entropy::instant() + delay, number)),
            destination: packet.destination,
            source: packet.src_ip,
            ecn: packet.ecn.map(|ecn| ecn as u8),
            contents: packet.contents.to_vec(),
        };
        // It fails only when the runtime ends, and the packet with it.
        let _ = self.late.send(late);
        Ok(())
    }
}

/// Holds packets back until they are due, then sends them in order: a delay without jitter must not reorder, which QUIC takes for loss.
/// Ends with the socket.
async fn send_late(
    inner: Arc<dyn AsyncUdpSocket>,
    control: Arc<FaultControl>,
    mut packets: mpsc::UnboundedReceiver<Late>,
) {
    let mut waiting: BinaryHeap<Late> = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|late| late.due.0.0);
        tokio::select! {
            late = packets.recv() => match late {
                Some(late) => waiting.push(late),
                None => return,
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(entropy::instant)), if next.is_some() => {
                while waiting.peek().is_some_and(|late| late.due.0.0 <= entropy::instant()) {
                    let Some(late) = waiting.pop() else { break };
                    let packet = Transmit {
                        destination: late.destination,
                        ecn: late.ecn.and_then(EcnCodepoint::from_bits),
                        contents: &late.contents,
                        segment_size: None,
                        src_ip: late.source,
                    };
                    if inner.try_send(&packet).is_err() {
                        add(&control.overflowed);
                    }
                    control.delayed_now.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl AsyncUdpSocket for FaultSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if !self.control.active() {
            return self.inner.try_send(transmit);
        }
        let rule = self.control.rule(transmit.destination);
        if rule == Rule::default() {
            return self.inner.try_send(transmit);
        }
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(segment) {
            if rule.cut_out {
                add(&self.control.cut);
                continue;
            }
            if self.control.hit(rule.loss_ppm) {
                add(&self.control.lost);
                continue;
            }
            let packet = Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: None,
                src_ip: transmit.src_ip,
            };
            self.send_one(rule, &packet)?;
            if self.control.hit(rule.duplicate_ppm) {
                add(&self.control.duplicated);
                self.send_one(rule, &packet)?;
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(count)) = received
            && self.control.active()
        {
            for packets in &mut meta[..count] {
                if self.control.rule(packets.addr).cut_in {
                    add(&self.control.cut);
                    // quinn skips what has no bytes.
                    packets.len = 0;
                }
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// An IPv4 peer of an IPv6 socket has two spellings; rules know the short one.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
