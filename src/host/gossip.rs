//! Drives the membership machine: datagrams and time in, datagrams and a new view out.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::data::id::NodeId;
use crate::host::clock;
use crate::host::handle::Handle;
use crate::host::lane::LaneInput;
use crate::host::peers::Peers;
use crate::node::membership::{Membership, MembershipEvent};

/// Datagrams and link changes that may wait; more are dropped, as the network drops them.
const QUEUE_MAX: usize = 4_096;

pub enum GossipInput {
    Datagram {
        from: NodeId,
        bytes: Bytes,
    },
    LinkUp(NodeId),
    LinkDown(NodeId),
    /// Say goodbye, so that the others need not find out; answered when it has been said.
    Leave(oneshot::Sender<()>),
}

pub type GossipSender = mpsc::Sender<GossipInput>;

pub fn channel() -> (GossipSender, mpsc::Receiver<GossipInput>) {
    mpsc::channel(QUEUE_MAX)
}

/// Runs until the node has left.
pub async fn run(mut membership: Membership, mut inputs: mpsc::Receiver<GossipInput>, handle: Handle, peers: Peers) {
    loop {
        publish(&mut membership, &handle).await;
        while let Some((to, datagram)) = membership.poll_transmit() {
            // A lost datagram is what SWIM expects.
            let _ = peers.send_datagram(to, datagram);
        }
        let now_us = clock::mono_us();
        let wait_us = membership.poll_timeout().map_or(1_000_000, |at_us| at_us.saturating_sub(now_us));
        let input = tokio::time::timeout(std::time::Duration::from_micros(wait_us), inputs.recv()).await;
        let now_us = clock::mono_us();
        match input {
            Err(_) => membership.handle_timeout(now_us),
            Ok(None) => return,
            Ok(Some(GossipInput::Datagram { from, bytes })) => membership.handle_datagram(now_us, from, &bytes),
            Ok(Some(GossipInput::LinkUp(node))) => {
                membership.link_up(now_us, node);
                for lane in handle.lanes() {
                    drop(lane.try_send(LaneInput::LinkUp(node)));
                }
            }
            Ok(Some(GossipInput::LinkDown(node))) => {
                membership.link_down(now_us, node);
                for lane in handle.lanes() {
                    // A full lane finds out by its deadlines.
                    drop(lane.try_send(LaneInput::LinkDown(node)));
                }
            }
            Ok(Some(GossipInput::Leave(done))) => {
                membership.leave(now_us);
                while let Some((to, datagram)) = membership.poll_transmit() {
                    let _ = peers.send_datagram(to, datagram);
                }
                let _ = done.send(());
                return;
            }
        }
        if membership.poll_timeout().is_some_and(|at_us| at_us <= now_us) {
            membership.handle_timeout(now_us);
        }
    }
}

async fn publish(membership: &mut Membership, handle: &Handle) {
    let mut view = None;
    while let Some(event) = membership.poll_event() {
        let (node, up, store) = match event {
            MembershipEvent::Up { node, store, .. } => (node, true, Some(store)),
            MembershipEvent::Restarted { node, store, .. } => (node, membership.is_up(node), Some(store)),
            MembershipEvent::Down { node } => (node, false, None),
        };
        let base = view.take().unwrap_or_else(|| handle.view());
        let base = store.map_or(base.clone(), |store| Arc::new(base.with_store(node, store)));
        let name = base.name_of(node).to_string();
        if base.is_up(node) != up {
            tracing::info!(node = name, up, "liveness");
        }
        // A restart too quick to be seen as down is still a return: what was under way with the old process is lost.
        let base = if matches!(event, MembershipEvent::Restarted { .. }) && base.is_up(node) {
            handle.set_view(Arc::new(base.with_up(node, false))).await;
            handle.view()
        } else {
            base
        };
        view = Some(Arc::new(base.with_up(node, up)));
    }
    if let Some(view) = view {
        handle.set_view(view).await;
    }
}
