//! The RESP door: any Redis client, RESP2 and RESP3, may ask any node for any key.
//!
//! ```text
//!  TCP or TLS stream                                                             commands/*: arguments -> Plan (pure)
//!    -> parser (bytes -> commands) -> session (state, wrappers) -> plan -> queue (order by key) -> execute -> Door
//!    <- frame (replies -> bytes)   <-------------------------------------- queue (answers in order) <- letters -/
//! ```
//! The commands of one pipeline overlap where their keys differ, keep their order where they share one, and are answered in order.
//! Never `MOVED`: the node forwards what it does not own. Cluster-aware clients learn the owners from `CLUSTER SLOTS` and `COMMAND`
//! and go straight to them.
//!
//! What an eventually consistent store cannot keep (transactions, blocking lists, ordered structures, scripts) is refused with a
//! sentence that says why and what to use. `TW.*` commands give what Redis has no words for: consistency per connection or per
//! command, receipts, siblings, operation ids.
//!
//! Trusts: the door to answer by its deadline, the acceptor for TLS. Does not: keep data, cache, or know replicas.

pub mod commands;
pub mod connection;
pub mod execute;
pub mod frame;
pub mod glob;
pub mod letters;
pub mod parser;
pub mod plan;
pub mod queue;
pub mod refusal;
pub mod session;
pub mod whole;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::door::Door;
use crate::data::consistency::Consistency;

/// Settings of the RESP door.
#[derive(Clone, Debug)]
pub struct RespOptions {
    /// Any of these authenticates the user `default`; none: everybody is let in.
    pub passwords: Vec<String>,
    /// Connections served at once; one more is told so and closed.
    pub max_connections: usize,
    /// Largest value, set member, hash field or its value, in bytes.
    pub value_size_max: usize,
    /// Largest key, in bytes.
    pub key_size_max: usize,
    /// Deadline of a request unless `TW.CONSISTENCY` or `TW.WITH` says otherwise, in milliseconds.
    pub timeout_ms: u64,
    /// Commands of one connection that are under way or unanswered at once; further ones wait in the socket.
    pub pipeline_max: usize,
    /// What connections begin with.
    pub consistency: Consistency,
}

impl Default for RespOptions {
    fn default() -> Self {
        Self {
            passwords: Vec::new(),
            max_connections: 10_000,
            value_size_max: 8 << 20,
            key_size_max: 32 << 10,
            timeout_ms: 2_000,
            pipeline_max: 1_024,
            consistency: Consistency::default(),
        }
    }
}

/// Makes a stream of an accepted connection: itself, or TLS around it.
pub trait Accept: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Shakes hands. An error ends this connection only.
    fn accept(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// No TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Accept for Plain {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// A client that takes longer to shake hands is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is under way at shutdown is waited for this long.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after the machine refused a connection (no more file descriptors): trying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves RESP on `listener` until `shutdown` turns true (or its sender is gone); then takes no more, answers what is under way and
/// returns.
pub async fn serve<A: Accept, D: Door>(
    listener: TcpListener,
    accept: A,
    door: D,
    options: RespOptions,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let server = Arc::new(session::Server::new(options, port));
    let mut connections = JoinSet::new();
    let stop = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_one(stream, accept.clone(), door.clone(), server.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a RESP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "RESP connections were cut off at shutdown");
    }
    Ok(())
}

async fn serve_one<A: Accept, D: Door>(
    mut stream: TcpStream,
    accept: A,
    door: D,
    server: Arc<session::Server>,
    stop: watch::Receiver<bool>,
) {
    let address =
        |found: io::Result<std::net::SocketAddr>| found.map_or_else(|_| "?".into(), |found| found.to_string());
    let (peer, local) = (address(stream.peer_addr()), address(stream.local_addr()));
    let Some(client) = server.enter(peer, local, door.wall_ms()) else {
        let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
        return;
    };
    let _leave = Leave { server: &server, id: client.id };
    // Answers are written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE, accept.accept(stream)).await {
        Ok(Ok(stream)) => connection::run(stream, door, server.clone(), client.clone(), stop).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = client.peer, "a RESP client failed to shake hands"),
        Err(_) => tracing::debug!(peer = client.peer, "a RESP client was too slow to shake hands"),
    }
}

/// Takes a connection off the list however it ends.
struct Leave<'a> {
    server: &'a session::Server,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.server.leave(self.id);
    }
}
