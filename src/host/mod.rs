//! How a node RUNS on a machine: the async shell around the pure core.
//!
//! ```text
//!  doors ── Handle ──> lane (task): drain, decide (node::Shard), commit once, then speak ──> Peers ──QUIC──> others
//!  Reception <──QUIC── others: frames to lanes, datagrams to gossip
//!  gossip (task): Membership -> View -> lanes          keeper (thread): fsync every few ms, disk space, background errors
//! ```
//! This is the room that owns the clock, the threads and the sockets' life. What a node decides is in `node`; how bytes travel is in
//! `net`. Nothing here decides what an operation means.

pub mod breaker;
pub mod clock;
pub mod faults;
pub mod gossip;
pub mod handle;
pub mod lane;
pub mod native;
pub mod options;
pub mod peers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::data::id::{Incarnation, StoreId};
use crate::net::endpoint::{Endpoint, NetError};
use crate::net::fault::FaultControl;
use crate::net::link::CloseCode;
use crate::net::options::NetOptions;
use crate::net::tls::{Identity, TlsError};
use crate::node::membership::Membership;
use crate::node::replica::Turn;
use crate::node::shard::Shard;
use crate::node::turn::ShardOptions;
use crate::ring::view::View;
use crate::storage::wipe::{self, Wiped};
use crate::storage::{Batch, DataFolder, Fenced, FolderError, SharedStorage, Space, Storage, StoreError};

use faults::Faults;
use gossip::GossipInput;
use handle::Handle;
use lane::{Common, LaneInput};
use native::{Reception, TrafficCounts};
use options::NodeConfig;
use peers::{PeerMember, Peers, PeersOptions};

/// Below this much free space writes are refused, so that what is there can still be compacted and deleted.
const DISK_RESERVE_BYTES: u64 = 64 << 20;

/// Why a node did not start, or did not stop in order. Whatever had been written is kept.
#[derive(Debug, Error)]
pub enum HostError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the settings do not fit together: {0}")]
    Config(String),
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// A running node without its RESP and HTTP doors.
pub struct Host {
    handle: Handle,
    folder: DataFolder,
    incarnation: Incarnation,
    common: Arc<Common>,
    endpoint: Endpoint,
    gossip: gossip::GossipSender,
    lanes: Vec<tokio::task::JoinHandle<()>>,
    keeper: Keeper,
}

impl Host {
    /// Starts a node: data folder, store, network, lanes, membership, in this order. On an error nothing is left running.
    pub async fn start(config: &NodeConfig) -> Result<Self, HostError> {
        if let Some(fault) = config.faults().first() {
            return Err(HostError::Config(format!("{}: {}", fault.field, fault.message)));
        }
        let me = config.id();
        match wipe::settle(&config.data, &config.name, &config.cluster, config.allow_faults)? {
            Wiped::Nothing => {}
            Wiped::All => tracing::warn!("the store has been wiped, as was ordered"),
            Wiped::Refused => tracing::warn!("the store was to be wiped, but faults are not allowed: it is kept"),
        }
        let (folder, start) = DataFolder::open(&config.data, &config.name, &config.cluster)?;
        let incarnation = start.clean.unwrap_or_else(|| Incarnation(clock::random_u64()));
        tracing::info!(
            node = config.name,
            %incarnation,
            resumed = start.clean.is_some(),
            first = start.first,
            "starting"
        );
        let identity =
            Identity::load(&config.tls.authority, &config.tls.certificate, &config.tls.key, clock::wall_ms())?;
        let days = identity.days_left(clock::wall_ms());
        if days < 30 {
            tracing::warn!(days, "this node's certificate expires soon: issue a new one");
        }
        let engine = open_store(&folder.store_path(), config.memory_bytes.saturating_sub(objects_bytes(config)))?;
        let store = Arc::new(Fenced::new(engine));
        let store_id = store_id(&*store)?;
        let net = NetOptions::for_frames(config.quic.frame_bytes_max as usize);
        let control = config.allow_faults.then(|| FaultControl::new(clock::random_u64()));
        let endpoint = match &control {
            Some(control) => Endpoint::bind_with_faults(config.quic.listen, identity, net, control.clone())?,
            None => Endpoint::bind(config.quic.listen, identity, net)?,
        };
        let (gossip_sender, gossip_inputs) = gossip::channel();
        let traffic = Arc::new(TrafficCounts::default());
        let frame_bytes_max = config.quic.frame_bytes_max as usize;
        let reception = Arc::new(Reception::new(gossip_sender.clone(), frame_bytes_max, traffic.clone()));
        let peers = Peers::start(me, endpoint.clone(), reception.clone(), PeersOptions::default());
        let common = Arc::new(Common {
            name: config.name.clone(),
            store: store.clone(),
            peers: peers.clone(),
            faults: control.map(|control| Faults::start(config, control, peers.clone())),
            traffic,
            unsynced: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            commit_inputs: AtomicU64::new(0),
            amnesia: AtomicBool::new(false),
        });
        let view = Arc::new(View::new(Arc::new(config.layout.clone())).with_up(me, true));
        let lane_count = lane_count(config);
        let mut senders = Vec::new();
        let mut lanes = Vec::new();
        for lane in 0..lane_count {
            let options = ShardOptions { store: store_id, ..shard_options(config, lane, lane_count) };
            let mut turn = Turn::new(&*store as &dyn Storage);
            let shard = Shard::start(options, view.clone(), incarnation, clock::now(), &mut turn)?;
            drop(turn);
            let (sender, task) = lane::start(shard, view.clone(), common.clone());
            senders.push(sender);
            lanes.push(task);
        }
        let requests_max = config.limits.requests_max as usize;
        let handle = Handle::new(me, incarnation, senders, view, common.clone(), requests_max);
        let keeper = Keeper::start(common.clone(), gossip_sender.clone(), config.fsync_interval_ms)?;
        reception.ready(&handle);
        let members: Vec<_> = config.layout.members.iter().map(|member| member.id).collect();
        // Later starts are newer: the wall clock only breaks no tie that the start count has not broken.
        let generation = (start.starts << 32) | (clock::random_u64() >> 32);
        let membership = Membership::new(me, generation, store_id, &members, config.swim.clone(), clock::random_u64());
        tokio::spawn(gossip::run(membership, gossip_inputs, handle.clone(), peers.clone()));
        peers.set_members(config.layout.members.iter().map(|member| PeerMember {
            id: member.id,
            name: member.name.clone(),
            addr: member.quic.clone(),
        }));
        Ok(Self { handle, folder, incarnation, common, endpoint, gossip: gossip_sender, lanes, keeper })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops in order: says goodbye, takes no more, ends what is under way, flushes, closes the store, and only then says that the
    /// incarnation may be resumed.
    pub async fn stop(self) -> Result<(), HostError> {
        let Self { handle, folder, incarnation, common, endpoint, gossip, lanes, keeper } = self;
        let (done, left) = oneshot::channel();
        if gossip.send(GossipInput::Leave(done)).await.is_ok() {
            drop(tokio::time::timeout(Duration::from_millis(500), left).await);
        }
        handle.stop_taking();
        // What others are waiting for gets a moment to be answered.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for lane in handle.lanes() {
            lane.send(LaneInput::Stop).await;
        }
        for lane in lanes {
            drop(lane.await);
        }
        drop(tokio::task::spawn_blocking(move || keeper.stop()).await);
        endpoint.close(CloseCode::Shutdown, "the node stops", 500).await;
        let resumable = !common.amnesia.load(Ordering::Relaxed) && common.store.fenced().is_none();
        common.store.flush()?;
        drop(handle);
        // The engine closes with its last holder; without that the mark would speak too soon.
        for _ in 0..200 {
            if Arc::strong_count(&common) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let alone = Arc::strong_count(&common) == 1;
        drop(common);
        if resumable && alone {
            folder.mark_clean(incarnation)?;
            tracing::info!("stopped in order");
        } else {
            tracing::warn!("stopped, but not in order: the next start takes a new incarnation");
        }
        Ok(())
    }
}

fn shard_options(config: &NodeConfig, lane: u16, lanes: u16) -> ShardOptions {
    let defaults = ShardOptions::new(config.id());
    ShardOptions {
        me: config.id(),
        lane,
        lanes,
        key_size_max: config.limits.key_bytes_max,
        value_size_max: config.limits.value_bytes_max,
        siblings_max: config.limits.siblings_max.into(),
        hint_bytes_max: config.limits.hint_bytes_max / u64::from(lanes),
        requests_max: config.limits.requests_max as usize,
        clock_ahead_max_ms: config.clock_ahead_max_ms,
        op_id_window_ms: config.op_id_window_ms,
        scrub_interval_us: config.scrub_interval_ms * 1_000,
        horizon_us: config.horizon_ms * 1_000,
        sync_bytes_per_second: config.sync_bytes_per_second.div_ceil(u64::from(lanes)),
        // No request may outlive it.
        settle_us: defaults.settle_us.max(config.timeout_ms * 2_000),
        exchange_interval_us: config.exchange_interval_ms * 1_000,
        objects_bytes: objects_bytes(config) / u64::from(lanes),
        seed: clock::random_u64(),
        ..defaults
    }
}

/// What the store needs at the least of the memory.
const STORE_BYTES_MIN: u64 = 32 << 20;
const OBJECTS_BYTES_MIN: u64 = 1 << 20;

/// A quarter of the memory holds objects as they are answered, the rest is the store's. A little is always there: without it every
/// `SET` would have to look what it replaces.
fn objects_bytes(config: &NodeConfig) -> u64 {
    (config.memory_bytes / 4).min(config.memory_bytes.saturating_sub(STORE_BYTES_MIN)).max(OBJECTS_BYTES_MIN)
}

/// What the store is known by: drawn when it is empty, and gone when it is emptied.
fn store_id(store: &dyn Storage) -> Result<StoreId, StoreError> {
    // Meta  'i'  -> it
    const AT: &[u8] = b"i";
    if let Some(bytes) = store.get(Space::Meta, AT)? {
        let damaged = || StoreError::Corrupt { doing: "starting", message: "the store's id is not 8 bytes".into() };
        return Ok(StoreId(u64::from_be_bytes(bytes[..].try_into().map_err(|_| damaged())?)));
    }
    let id = StoreId(clock::random_u64().max(1));
    let mut batch = Batch::new();
    batch.put(Space::Meta, AT, id.0.to_be_bytes().to_vec());
    store.commit(&batch, true)?;
    Ok(id)
}

/// Half of the threads may be deciding while the others read and write for them.
fn lane_count(config: &NodeConfig) -> u16 {
    match config.lanes {
        0 => config.thread_count().div_ceil(2),
        lanes => lanes,
    }
}

#[cfg(feature = "rocks")]
fn open_store(path: &Path, memory_bytes: u64) -> Result<SharedStorage, StoreError> {
    let options = crate::storage::RocksOptions { memory_bytes: memory_bytes as usize };
    Ok(Arc::new(crate::storage::RocksStore::open(path, options)?))
}

/// Without the feature `rocks` a node keeps its data in memory, which is only good for trying its doors.
#[cfg(not(feature = "rocks"))]
fn open_store(_: &Path, _: u64) -> Result<SharedStorage, StoreError> {
    tracing::warn!("built without RocksDB: the data is in memory and ends with the process");
    Ok(Arc::new(crate::storage::MemoryStore::default()))
}

/// Looks after the store: fsyncs what was committed without, watches the disk.
struct Keeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Keeper {
    fn start(common: Arc<Common>, gossip: gossip::GossipSender, interval_ms: u64) -> Result<Self, HostError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let interval = Duration::from_millis(interval_ms.max(1));
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || {
            let mut looked_us = 0;
            let mut gone = false;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(interval);
                if common.unsynced.swap(false, Ordering::Relaxed)
                    && let Err(error) = common.store.sync()
                {
                    tracing::error!(%error, "fsync failed");
                }
                let now_us = clock::mono_us();
                if now_us.saturating_sub(looked_us) >= 1_000_000 {
                    looked_us = now_us;
                    look(&common);
                    if common.store.fenced().is_some() && !gone {
                        // Others should not have to find out by waiting.
                        let (done, _) = oneshot::channel();
                        gone = gossip.try_send(GossipInput::Leave(done)).is_ok();
                    }
                }
            }
        });
        Ok(Self { stop, thread: thread.map_err(HostError::Thread)? })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.join());
    }
}

fn look(common: &Common) {
    if common.store.fenced().is_some() {
        return;
    }
    if let Err(error) = common.store.check() {
        tracing::error!(%error, "the store reports a background error");
    }
    if let Some(free) = common.store.free_bytes() {
        let low = free < DISK_RESERVE_BYTES;
        if common.disk_low.swap(low, Ordering::Relaxed) != low {
            tracing::warn!(free_bytes = free, low, "disk space");
        }
    }
}
