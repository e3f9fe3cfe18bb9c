//! The way into a node: what every door holds.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, Weak};

use tokio::sync::oneshot;

use crate::data::consistency::Receipt;
use crate::data::id::{Incarnation, NodeId, OpId, Partition};
use crate::data::op::{Key, Request, RequestError, Response, ScanPage, ScanRequest, Whereabouts};
use crate::host::clock;
use crate::host::lane::{Common, LaneInput, LaneSender, Reply, ReplyTo, ScanReplyTo, UnderWay};
use crate::node::shard::ShardStatus;
use crate::ring::view::View;
use crate::storage::Storage;
use crate::wire::fault::{FaultOrder, FaultStatus};
use crate::wire::status::{AbsenceStatus, KeyStatus, NodeStatus, PeerStatus};

/// A node, as its doors see it. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// The same for who must not keep the node from ending: the store closes only when the last [`Handle`] is gone.
#[derive(Clone)]
pub struct WeakHandle {
    inner: Weak<Inner>,
}

impl WeakHandle {
    /// `None`: the node has ended.
    pub fn upgrade(&self) -> Option<Handle> {
        Some(Handle { inner: self.inner.upgrade()? })
    }
}

struct Inner {
    me: NodeId,
    incarnation: Incarnation,
    started_us: u64,
    lanes: Vec<LaneSender>,
    view: RwLock<Arc<View>>,
    common: Arc<Common>,
    under_way: Arc<AtomicUsize>,
    requests_max: usize,
    stopping: AtomicBool,
}

impl Handle {
    pub(super) fn new(
        me: NodeId,
        incarnation: Incarnation,
        lanes: Vec<LaneSender>,
        view: Arc<View>,
        common: Arc<Common>,
        requests_max: usize,
    ) -> Self {
        let inner = Inner {
            me,
            incarnation,
            started_us: clock::mono_us(),
            lanes,
            view: RwLock::new(view),
            common,
            under_way: Arc::default(),
            requests_max,
            stopping: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn downgrade(&self) -> WeakHandle {
        WeakHandle { inner: Arc::downgrade(&self.inner) }
    }

    /// Runs a request. Always answers; a node that has too much under way answers `Overloaded` at once and does nothing.
    pub async fn submit(&self, request: Request) -> Response {
        let mutation = !request.op.is_read();
        let (reply, answer) = oneshot::channel();
        // The asker may have gone: then nobody misses the answer.
        self.submit_with(request, Box::new(move |response| drop(reply.send(response))));
        match answer.await {
            Ok(response) => response,
            Err(_) => self.lost(mutation),
        }
    }

    /// Runs a request and hands its answer to `reply`: now, when it is refused. Dropped without one: see [`Handle::lost`].
    pub fn submit_with(&self, request: Request, reply: Reply) {
        if let Some(error) = self.refusal() {
            return reply(self.refused(error));
        }
        let under_way = UnderWay::new(&self.inner.under_way);
        self.enter(request, ReplyTo::Door { reply, under_way });
    }

    /// The lane ended without an answer: it is stopping, and what it was doing is not known.
    pub fn lost(&self, mutation: bool) -> Response {
        self.refused(RequestError::Disconnected { node: self.name().into(), mutation })
    }

    /// Runs a request whose answer goes wherever `reply` says.
    pub fn submit_to(&self, request: Request, reply: ReplyTo) {
        if let Some(error) = self.refusal() {
            return reply.answer(self.refused(error));
        }
        self.enter(request, reply);
    }

    fn enter(&self, request: Request, reply: ReplyTo) {
        let lane = self.lane(self.view().partition_of(&request.key.bytes));
        if let Err(LaneInput::Request { reply, .. }) = lane.try_send(LaneInput::Request { request, reply }) {
            reply.answer(self.refused(RequestError::Overloaded("the lane's queue is full".into())));
        }
    }

    /// One page of the keys of one partition, from one owner.
    pub async fn scan(&self, scan: ScanRequest) -> Result<ScanPage, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.scan_to(scan, ScanReplyTo::Door(reply));
        match answer.await {
            Ok(page) => page,
            Err(_) => Err(RequestError::Stopping { node: self.name().into() }),
        }
    }

    pub fn scan_to(&self, scan: ScanRequest, reply: ScanReplyTo) {
        if let Some(error) = self.refusal() {
            return reply.answer(Err(error));
        }
        let lane = self.lane(scan.partition);
        if let Err(LaneInput::Scan { reply, .. }) = lane.try_send(LaneInput::Scan { scan, reply }) {
            reply.answer(Err(RequestError::Overloaded("the lane's queue is full".into())));
        }
    }

    fn refusal(&self) -> Option<RequestError> {
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Some(RequestError::Stopping { node: self.name().into() });
        }
        let under_way = self.inner.under_way.load(Ordering::Relaxed);
        (under_way >= self.inner.requests_max)
            .then(|| RequestError::Overloaded(format!("{under_way} requests are under way")))
    }

    fn refused(&self, error: RequestError) -> Response {
        let receipt = Receipt { coordinator: Some(self.inner.me), ..Receipt::default() };
        Response { result: Err(error), receipt }
    }

    fn lane(&self, partition: Partition) -> &LaneSender {
        &self.inner.lanes[partition.0 as usize % self.inner.lanes.len()]
    }

    pub(super) fn lanes(&self) -> &[LaneSender] {
        &self.inner.lanes
    }

    /// The layout and who is up, as this node sees it now.
    pub fn view(&self) -> Arc<View> {
        self.inner.view.read().expect("nobody panics while holding the view").clone()
    }

    pub(super) async fn set_view(&self, view: Arc<View>) {
        *self.inner.view.write().expect("nobody panics while holding the view") = view.clone();
        for lane in &self.inner.lanes {
            lane.send(LaneInput::View(view.clone())).await;
        }
    }

    pub(super) fn stop_taking(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    pub fn me(&self) -> NodeId {
        self.inner.me
    }

    pub fn name(&self) -> &str {
        &self.inner.common.name
    }

    pub fn whereabouts(&self, key: &Key) -> Whereabouts {
        self.view().whereabouts(key)
    }

    /// A fresh operation id by this node's clock.
    pub fn op_id(&self) -> OpId {
        OpId::new(clock::wall_ms(), clock::random_bytes())
    }

    /// Why the store answers for nothing any more, if so.
    pub fn fenced(&self) -> Option<String> {
        self.inner.common.store.fenced()
    }

    /// What this node knows of a key.
    pub async fn explain(&self, key: Key) -> Result<KeyStatus, RequestError> {
        let stopping = || RequestError::Stopping { node: self.name().into() };
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let (reply, answer) = oneshot::channel();
        let lane = self.lane(self.view().partition_of(&key.bytes));
        if lane.try_send(LaneInput::Explain { key, reply }).is_err() {
            return Err(RequestError::Overloaded("the lane's queue is full".into()));
        }
        answer.await.map_err(|_| match self.fenced() {
            Some(cause) => RequestError::StoreFailed { node: self.name().into(), cause, mutation: false },
            None => stopping(),
        })
    }

    /// Suffers a fault, or heals it, where that is allowed; `client` is who wants it.
    pub(super) async fn fault(&self, order: FaultOrder, client: &str) -> Result<FaultStatus, RequestError> {
        match &self.inner.common.faults {
            Some(faults) => faults.take(order, client, &self.view()).await,
            None => Err(RequestError::FaultRefused(format!(
                "{} takes no such orders: start it with --allow-faults, or allow_faults = true in its settings",
                self.name()
            ))),
        }
    }

    /// This node's account of itself. Asks every lane.
    pub async fn status(&self) -> NodeStatus {
        let mut sum = ShardStatus::default();
        let mut counters = std::collections::BTreeMap::new();
        for lane in &self.inner.lanes {
            let (reply, answer) = oneshot::channel();
            if lane.try_send(LaneInput::Status(reply)).is_err() {
                continue;
            }
            let Ok(part) = answer.await else { continue };
            sum.hints += part.hints;
            sum.hint_bytes += part.hint_bytes;
            sum.log_entries += part.log_entries;
            sum.behind += part.behind;
            sum.pulls += part.pulls;
            sum.garbage += part.garbage;
            sum.scrub.add(&part.scrub);
            sum.sync.add(&part.sync);
            sum.fenced_out = sum.fenced_out.or(part.fenced_out);
            sum.absences.extend(part.absences);
            sum.held = [sum.held, part.held].into_iter().flatten().max_by_key(|held| held.for_ms);
            for (node, count) in part.hints_for {
                *sum.hints_for.entry(node).or_insert(0) += count;
            }
            for (node, count) in part.peer_lag {
                *sum.peer_lag.entry(node).or_insert(0) += count;
            }
            for (name, count) in part.stats.iter() {
                *counters.entry(name.to_string()).or_insert(0) += count;
            }
        }
        let common = &self.inner.common;
        counters.insert("commits_total".into(), common.commits.load(Ordering::Relaxed));
        counters.insert("commit_steps_total".into(), common.commit_inputs.load(Ordering::Relaxed));
        counters.insert("syncs_under_way".into(), sum.pulls);
        let (net, (clients, strangers)) = (common.peers.net_counts(), common.peers.refused());
        let traffic = &common.traffic;
        for (name, count) in [
            ("foreground_sent_bytes_total", traffic.foreground_sent_bytes.load(Ordering::Relaxed)),
            ("background_sent_bytes_total", traffic.background_sent_bytes.load(Ordering::Relaxed)),
            ("links_accepted_total", net.links_accepted),
            ("handshakes_failed_total", net.handshakes_failed),
            ("clients_refused_total", clients),
            ("strangers_refused_total", strangers),
            ("frames_broken_total", net.bad_frames),
            ("frames_refused_total", traffic.refused.load(Ordering::Relaxed)),
            ("messages_dropped_total", traffic.dropped.load(Ordering::Relaxed)),
        ] {
            counters.insert(name.into(), count);
        }
        let view = self.view();
        let me = self.inner.me;
        let name_of = |node: NodeId| view.name_of(node).to_string();
        NodeStatus {
            node: me,
            name: self.name().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            incarnation: self.inner.incarnation,
            uptime_ms: (clock::mono_us() - self.inner.started_us) / 1_000,
            layout: view.layout.version,
            partitions_owned: view.partitions_owned(me).count() as u32,
            partitions: view.layout.partitions.into(),
            hints: sum.hints,
            hint_bytes: sum.hint_bytes,
            hints_for: sum.hints_for.into_iter().map(|(node, count)| (name_of(node), count)).collect(),
            log_entries: sum.log_entries,
            peer_lag: sum.peer_lag.into_iter().map(|(node, lag)| (name_of(node), lag)).collect(),
            behind: sum.behind,
            garbage: sum.garbage,
            scrub: sum.scrub,
            sync: sum.sync,
            held: sum.held,
            store_bytes: common.store.size_bytes(),
            fenced: common.store.fenced().or(sum.fenced_out.map(String::from)),
            faults: common.faults.as_ref().map(|faults| faults.status(&view)),
            peers: view
                .peers_of(me)
                .map(|member| PeerStatus {
                    node: member.id,
                    name: member.name.clone(),
                    zone: member.zone.clone(),
                    quic: member.quic.clone(),
                    up: view.is_up(member.id),
                    connected: common.peers.connected(member.id),
                    absence: sum.absences.get(&member.id).map(|absence| AbsenceStatus {
                        for_ms: absence.for_us / 1_000,
                        left_ms: absence.left_us.map(|left_us| left_us / 1_000),
                        fenced: absence.fenced,
                    }),
                })
                .collect(),
            counters,
        }
    }
}
