//! What a door needs of the node behind it, as a trait: so that doors are tested against a model and run against the host.

use std::future::Future;
use std::sync::Arc;

use crate::data::id::{NodeId, OpId, Partition};
use crate::data::op::{Key, Request, RequestError, Response, ScanPage, ScanRequest, Whereabouts};
use crate::host::clock;
use crate::host::handle::Handle;
use crate::host::lane::Reply;
use crate::ring::layout::Layout;
use crate::wire::status::NodeStatus;

/// A node as its doors see it. Cheap to clone: each connection holds one.
pub trait Door: Clone + Send + Sync + 'static {
    /// Runs one request. Always answers, at the latest shortly after the request's deadline; a full node answers `Overloaded`.
    fn submit(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// The same, and the answer is handed to `reply`, on somebody else's time; dropped without one, it is as [`Door::lost`] says.
    fn submit_with(&self, request: Request, reply: Reply);

    /// What a request comes to that nobody answered.
    fn lost(&self, mutation: bool) -> Response;

    /// One page of the keys of one partition.
    fn scan(&self, scan: ScanRequest) -> impl Future<Output = Result<ScanPage, RequestError>> + Send;

    /// Where `key` lives and who of its replicas is up.
    fn whereabouts(&self, key: &Key) -> Whereabouts;

    /// The layout in force, and for each of its members whether it is up as this node sees it.
    fn layout(&self) -> (Arc<Layout>, Vec<bool>);

    /// For one partition: indices into the layout's members, owners in order of preference.
    fn owners(&self, partition: Partition) -> Vec<usize>;

    /// This node's account of itself.
    fn status(&self) -> impl Future<Output = NodeStatus> + Send;

    /// This node's id.
    fn me(&self) -> NodeId;

    /// Milliseconds since 1970 by the node's clock.
    fn wall_ms(&self) -> u64;

    /// A fresh operation id by the node's clock.
    fn op_id(&self) -> OpId;

    /// 64 random bits.
    fn random_u64(&self) -> u64;
}

impl Door for Handle {
    async fn submit(&self, request: Request) -> Response {
        Handle::submit(self, request).await
    }

    fn submit_with(&self, request: Request, reply: Reply) {
        Handle::submit_with(self, request, reply);
    }

    fn lost(&self, mutation: bool) -> Response {
        Handle::lost(self, mutation)
    }

    async fn scan(&self, scan: ScanRequest) -> Result<ScanPage, RequestError> {
        Handle::scan(self, scan).await
    }

    fn whereabouts(&self, key: &Key) -> Whereabouts {
        Handle::whereabouts(self, key)
    }

    fn layout(&self) -> (Arc<Layout>, Vec<bool>) {
        let view = self.view();
        let up = view.layout.members.iter().map(|member| view.is_up(member.id)).collect();
        (view.layout.clone(), up)
    }

    fn owners(&self, partition: Partition) -> Vec<usize> {
        let view = self.view();
        view.owners(partition).filter_map(|owner| view.layout.index_of(owner)).collect()
    }

    async fn status(&self) -> NodeStatus {
        Handle::status(self).await
    }

    fn me(&self) -> NodeId {
        Handle::me(self)
    }

    fn wall_ms(&self) -> u64 {
        clock::wall_ms()
    }

    fn op_id(&self) -> OpId {
        Handle::op_id(self)
    }

    fn random_u64(&self) -> u64 {
        clock::random_u64()
    }
}
