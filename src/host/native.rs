//! What comes in over QUIC: peers' frames to the lanes, clients' frames to the handle, datagrams to the gossip.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::data::id::NodeId;
use crate::host::faults;
use crate::host::gossip::{GossipInput, GossipSender};
use crate::host::handle::{Handle, WeakHandle};
use crate::host::lane::{LaneInput, ReplyTo, ScanReplyTo, say};
use crate::host::peers::Inbound;
use crate::net::link::{CloseCode, Link};
use crate::wire::client::{ClientMessage, ServerMessage};
use crate::wire::codec;
use crate::wire::frame::Class;
use crate::wire::message::PeerMessage;

/// What was said to other nodes, and what came in and went nowhere.
#[derive(Debug, Default)]
pub struct TrafficCounts {
    /// Bytes of frames to other nodes that clients wait for.
    pub foreground_sent_bytes: AtomicU64,
    /// Bytes of frames to other nodes that nobody waits for: exchange, hints, full syncs, scrub.
    pub background_sent_bytes: AtomicU64,
    /// Frames that were no message.
    pub refused: AtomicU64,
    /// Messages for which a lane had no room.
    pub dropped: AtomicU64,
}

/// The network's side of a node. Frames that come before the node is ready, or when it has ended, are dropped, as if they had been lost.
pub struct Reception {
    /// Weak: the node holds its network, and a network that held the node in turn would keep the store open for ever.
    handle: OnceLock<WeakHandle>,
    gossip: GossipSender,
    frame_bytes_max: usize,
    runtime: tokio::runtime::Handle,
    traffic: Arc<TrafficCounts>,
}

impl Reception {
    pub fn new(gossip: GossipSender, frame_bytes_max: usize, traffic: Arc<TrafficCounts>) -> Self {
        Self { handle: OnceLock::new(), gossip, frame_bytes_max, runtime: tokio::runtime::Handle::current(), traffic }
    }

    pub fn ready(&self, handle: &Handle) {
        let _ = self.handle.set(handle.downgrade());
    }

    fn handle(&self) -> Option<Handle> {
        self.handle.get().and_then(WeakHandle::upgrade)
    }

    fn refuse(&self) -> u64 {
        self.traffic.refused.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn tell_gossip(&self, input: GossipInput) {
        // Full: dropped, as a network would.
        drop(self.gossip.try_send(input));
    }

    fn take_client_message(&self, handle: &Handle, link: &Link, message: ClientMessage) {
        match message {
            ClientMessage::Request { ticket, request } => {
                handle.submit_to(request, ReplyTo::Native { link: link.clone(), ticket });
            }
            ClientMessage::Scan { ticket, scan } => {
                handle.scan_to(scan, ScanReplyTo::Native { link: link.clone(), ticket });
            }
            ClientMessage::Where { ticket, key } => {
                say(link, &ServerMessage::Where { ticket, whereabouts: handle.whereabouts(&key) });
            }
            ClientMessage::Status { ticket } | ClientMessage::Scrub { ticket } => {
                let scrub = matches!(message, ClientMessage::Scrub { .. });
                let (handle, link) = (handle.clone(), link.clone());
                self.runtime.spawn(async move {
                    for lane in handle.lanes().iter().filter(|_| scrub) {
                        lane.send(LaneInput::Scrub).await;
                    }
                    let status = Box::new(handle.status().await);
                    say(&link, &ServerMessage::Status { ticket, status });
                });
            }
            ClientMessage::Explain { ticket, key } => {
                let (handle, link) = (handle.clone(), link.clone());
                self.runtime.spawn(async move {
                    let known = handle.explain(key).await.map(Box::new);
                    say(&link, &ServerMessage::Explained { ticket, known });
                });
            }
            ClientMessage::Fault { ticket, order } => {
                let (handle, link) = (handle.clone(), link.clone());
                self.runtime.spawn(async move {
                    let status = handle.fault(order, link.peer().name()).await.map(Box::new);
                    let doom = status.as_ref().ok().and_then(|status| status.soon);
                    say(&link, &ServerMessage::Fault { ticket, status });
                    if let Some(doom) = doom {
                        faults::meet(doom, &link).await;
                    }
                });
            }
            ClientMessage::Layout { ticket } => {
                let view = handle.view();
                let up = view.layout.members.iter().map(|member| view.is_up(member.id)).collect();
                say(link, &ServerMessage::Layout { ticket, layout: (*view.layout).clone(), up });
            }
        }
    }
}

impl Inbound for Reception {
    fn on_frames(&self, from: NodeId, _: Class, frames: Vec<Bytes>) {
        let Some(handle) = self.handle() else { return };
        let lanes = handle.lanes();
        let mut by_lane: Vec<Vec<PeerMessage>> = (0..lanes.len()).map(|_| Vec::new()).collect();
        for frame in frames {
            match codec::decode::<Vec<PeerMessage>>(&frame, self.frame_bytes_max) {
                Ok(messages) => {
                    for message in messages {
                        by_lane[message.partition.0 as usize % lanes.len()].push(message);
                    }
                }
                Err(error) => {
                    self.refuse();
                    tracing::warn!(?from, %error, "a peer's frame is no message");
                }
            }
        }
        for (lane, messages) in lanes.iter().zip(by_lane) {
            let count = messages.len() as u64;
            if count > 0 && lane.try_send(LaneInput::Messages { from, messages }).is_err() {
                self.traffic.dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn on_datagram(&self, from: NodeId, datagram: Bytes) {
        self.tell_gossip(GossipInput::Datagram { from, bytes: datagram });
    }

    fn on_up(&self, node: NodeId) {
        self.tell_gossip(GossipInput::LinkUp(node));
    }

    fn on_down(&self, node: NodeId, why: &str) {
        tracing::debug!(?node, why, "the link is down");
        self.tell_gossip(GossipInput::LinkDown(node));
    }

    fn on_client_frames(&self, link: &Link, frames: Vec<Bytes>) {
        let Some(handle) = self.handle() else { return };
        for frame in frames {
            match codec::decode::<ClientMessage>(&frame, self.frame_bytes_max) {
                Ok(message) => self.take_client_message(&handle, link, message),
                Err(error) => {
                    // Any client can cause this: told for the 1st, 2nd, 4th, 8th ... time, counted always.
                    let refused = self.refuse();
                    if refused.is_power_of_two() {
                        let client = link.peer().name();
                        tracing::warn!(client, remote = %link.remote(), refused, %error, "a client's frame is no message");
                    }
                    link.close(CloseCode::BadFrame, &error.to_string());
                    return;
                }
            }
        }
    }

    fn on_client_gone(&self, _: &Link) {}
}
