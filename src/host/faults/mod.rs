//! Faults on demand, for a node that was started with `allow_faults`: it cuts itself off, stands still, dies, loses its disk or reads
//! the wrong time when it is told to.
//!
//! ```text
//!   client's order --> Plan (which faults are on, until when) --> rules by peer --> FaultControl --> the node's UDP socket
//!                        |                                    '-> offset -------> host::clock
//!                        '--> doom, met after the answer --> process: pause, kill; the folder's mark: wipe
//! ```
//!
//! 1. What a node does between its peers and itself is done on the one socket on which it listens and from which it dials, by the
//!    peer's address. Clients have other addresses and are never touched.
//! 2. A peer is at the addresses of its name in the layout, and at those of the links to it.
//! 3. A fault with a time ends by itself, whoever is still there to heal it; those without are told by every status.
//!
//! Nothing here runs in a node that does not allow faults.

mod plan;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock;
use super::options::NodeConfig;
use super::peers::Peers;
use crate::data::id::NodeId;
use crate::data::op::RequestError;
use crate::net::fault::FaultControl;
use crate::net::link::Link;
use crate::ring::view::View;
use crate::storage::wipe;
use crate::wire::fault::{Doom, FaultOrder, FaultStatus, PeerFault};
use crate::wire::frame::Class;

use plan::Plan;

/// How often the links are looked at for addresses of peers that have moved, while there are rules.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long finding the address of a name may take.
const LOOKUP_MAX: Duration = Duration::from_secs(1);
/// Addresses of one peer.
const ADDRESSES_MAX: usize = 16;
/// After an answer has left the queue, until it has left the machine.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// An answer that has not left the queue by then is not waited for.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// The faults of one node.
pub struct Faults {
    me: NodeId,
    name: String,
    folder: PathBuf,
    control: Arc<FaultControl>,
    peers: Peers,
    state: Mutex<State>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    /// Where the peers of the plan are.
    addresses: BTreeMap<NodeId, BTreeSet<SocketAddr>>,
    /// What the clock was told last.
    clock_offset_ms: i64,
}

impl Faults {
    /// Must be called inside a tokio runtime. `control` is that of the socket on which `peers` are.
    pub fn start(config: &NodeConfig, control: Arc<FaultControl>, peers: Peers) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let faults = Arc::new(Self {
            me: config.id(),
            name: config.name.clone(),
            folder: config.data.clone(),
            control,
            peers,
            state: Mutex::default(),
            changed: changed.clone(),
        });
        tokio::spawn(keep(Arc::downgrade(&faults), changed));
        faults
    }

    /// Takes an order, or says why not and changes nothing. A doom in the answer is to be met with [`meet`] once it has been said.
    pub async fn take(&self, order: FaultOrder, client: &str, view: &View) -> Result<FaultStatus, RequestError> {
        let refuse = |why: String| RequestError::FaultRefused(format!("{}: {why}", self.name));
        let mut found = BTreeMap::new();
        if let FaultOrder::Network { peers, .. } = &order {
            for member in view.peers_of(self.me).filter(|member| peers.contains(&member.id)) {
                found.insert(member.id, self.find(member.id, &member.quic).await.map_err(refuse)?);
            }
        }
        if order == FaultOrder::Wipe {
            let (folder, name) = (self.folder.clone(), self.name.clone());
            let marked = tokio::task::spawn_blocking(move || wipe::mark(&folder, &name)).await;
            let marked = marked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            marked.map_err(|error| refuse(format!("the mark that has the store wiped cannot be written: {error}")))?;
        }
        let is_peer = |node| found.contains_key(&node);
        let doom = {
            let mut state = self.lock();
            let doom = state.plan.take(clock::mono_us(), &order, is_peer).map_err(refuse)?;
            state.addresses.extend(found);
            self.apply(&mut state);
            doom
        };
        tracing::warn!(client, "a fault was ordered: {order:?}");
        self.changed.notify_one();
        Ok(FaultStatus { soon: doom, ..self.status(view) })
    }

    /// Every fault that is on.
    pub fn status(&self, view: &View) -> FaultStatus {
        let (state, now_us) = (self.lock(), clock::mono_us());
        let peer = |(peer, fault, left_ms)| PeerFault { peer, name: view.name_of(peer).to_string(), fault, left_ms };
        let mut network: Vec<PeerFault> = state.plan.network(now_us).map(peer).collect();
        network.sort_by(|one, other| (&one.name, one.fault).cmp(&(&other.name, other.fault)));
        FaultStatus { network, clock: state.plan.clock(now_us), soon: None, counts: self.control.counts() }
    }

    /// The addresses of a peer, by its name and by the links to it.
    async fn find(&self, peer: NodeId, quic: &str) -> Result<BTreeSet<SocketAddr>, String> {
        let mut addresses: BTreeSet<SocketAddr> = self.peers.remotes(peer).into_iter().collect();
        let found = match tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host(quic)).await {
            Ok(Ok(found)) => {
                addresses.extend(found.take(ADDRESSES_MAX));
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", LOOKUP_MAX.as_millis())),
        };
        match found {
            // Where the link is will do.
            Err(why) if addresses.is_empty() => Err(format!("the address {quic} cannot be found: {why}")),
            _ => Ok(addresses),
        }
    }

    /// Ends what is over, learns where peers have moved to, and says when to look again.
    fn tend(&self) -> Duration {
        let mut state = self.lock();
        let now_us = clock::mono_us();
        if state.plan.expire(now_us) {
            tracing::warn!("a fault that had been ordered has ended");
        }
        self.apply(&mut state);
        let left = state.plan.poll_timeout().map(|at_us| Duration::from_micros(at_us.saturating_sub(now_us)));
        left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))
    }

    fn apply(&self, state: &mut State) {
        let rules = state.plan.rules();
        state.addresses.retain(|peer, _| rules.contains_key(peer));
        for (peer, addresses) in &mut state.addresses {
            if addresses.len() < ADDRESSES_MAX * 2 {
                addresses.extend(self.peers.remotes(*peer));
            }
        }
        let addresses = &state.addresses;
        let of = |peer: &NodeId| addresses.get(peer).into_iter().flatten().copied();
        self.control.set_peers(rules.iter().flat_map(|(peer, rule)| of(peer).map(|address| (address, *rule))));
        let offset_ms = state.plan.clock_offset_ms();
        if std::mem::replace(&mut state.clock_offset_ms, offset_ms) != offset_ms {
            clock::set_wall_offset_ms(offset_ms);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that can panic happens under the lock")
    }
}

/// Ends with the node.
async fn keep(faults: Weak<Faults>, changed: Arc<Notify>) {
    loop {
        let Some(wait) = faults.upgrade().map(|faults| faults.tend()) else { return };
        // An order wakes it; otherwise it is time.
        let _ = tokio::time::timeout(wait, changed.notified()).await;
    }
}

/// Does what was ordered for after the answer, which is on `link`.
pub async fn meet(doom: Doom, link: &Link) {
    let said = async {
        while link.end().is_none() && link.waiting(Class::Foreground) != (0, 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS_MAX, said).await;
    tokio::time::sleep(LAST_WORDS).await;
    match doom {
        Doom::Pause { for_ms } => {
            let paused = tokio::task::spawn_blocking(move || process::pause(for_ms)).await;
            match paused.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(()) => tracing::warn!(for_ms, "goes on after a pause that had been ordered"),
                Err(error) => tracing::error!(%error, "the pause that had been ordered cannot be made"),
            }
        }
        Doom::Kill | Doom::Wipe => process::kill(),
    }
}
