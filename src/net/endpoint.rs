//! One UDP socket that dials and accepts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, EndpointConfig, Incoming, RecvStream, ServerConfig,
    TokioRuntime, TransportErrorCode, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::timeout;

use super::fault::{FaultControl, FaultSocket};
use super::link::{CloseCode, Link, Sink, WELCOME};
use super::options::NetOptions;
use super::socket::{self, Segmented};
use super::stats::{NetStats, add};
use super::tls::{Identity, PeerIdentity, Role, TlsError};

/// Stands for the name of a node when any will do.
const ANY: &str = "(any)";
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// What can go wrong in opening sockets and links. No link remains.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot listen on {addr} (UDP, setting quic.listen): {source}; is another node running there?")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("cannot use the UDP socket: {source}")]
    Socket { source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{addr} is no address: {why}")]
    Resolve { addr: String, why: String },
    #[error("no answer from {addr} within {timeout_ms} ms")]
    Silent { addr: String, timeout_ms: u64 },
    #[error("whoever answers at {addr} is {} of this cluster: {why}", not(.expected))]
    NotTrusted { addr: String, expected: String, why: String },
    #[error("{addr} refuses this {bearer}: {why}")]
    Refused { addr: String, bearer: PeerIdentity, why: String },
    #[error("cannot reach {addr}: {why}")]
    Unreachable { addr: String, why: String },
    #[error("the endpoint is closed")]
    Closed,
}

fn not(expected: &str) -> String {
    if expected == ANY { "no node".to_owned() } else { format!("not node {expected}") }
}

/// A handle to an endpoint; clones are the same one. When the last is dropped, its socket and links are closed.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    quinn: quinn::Endpoint,
    identity: Identity,
    /// For dialling without knowing the name.
    any_node: ClientConfig,
    options: NetOptions,
    stats: Arc<NetStats>,
    arrivals: Mutex<mpsc::Receiver<Proven>>,
    links: AtomicU64,
}

/// Somebody of this cluster at the door. Dropping it refuses it.
pub struct Arrival {
    proven: Option<Proven>,
    endpoint: Endpoint,
}

/// A connection whose other end has proved who it is.
struct Proven {
    connection: Connection,
    peer: PeerIdentity,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "Endpoint({:?})", self.0.identity)
    }
}

impl Endpoint {
    /// Listens on `addr`, as a node does. Must be called inside a tokio runtime, on which all links will run.
    pub fn bind(addr: SocketAddr, identity: Identity, options: NetOptions) -> Result<Self, NetError> {
        let socket = UdpSocket::bind(addr).map_err(|source| NetError::Bind { addr, source })?;
        Self::bind_socket(socket, identity, options)
    }

    /// Listens on a socket that is bound already.
    pub fn bind_socket(socket: UdpSocket, identity: Identity, options: NetOptions) -> Result<Self, NetError> {
        let socket = socket::wrap(socket, options.socket_buffer_bytes).map_err(|source| NetError::Socket { source })?;
        Self::bind_with_socket(socket, identity, options)
    }

    /// As [`bind`](Self::bind), on a socket that loses, delays and cuts off as `control` says.
    pub fn bind_with_faults(
        addr: SocketAddr,
        identity: Identity,
        options: NetOptions,
        control: Arc<FaultControl>,
    ) -> Result<Self, NetError> {
        let socket = UdpSocket::bind(addr).map_err(|source| NetError::Bind { addr, source })?;
        let socket = FaultSocket::wrap(socket, options.socket_buffer_bytes, control)
            .map_err(|source| NetError::Socket { source })?;
        Self::bind_with_socket(socket, identity, options)
    }

    /// Listens on a socket of the caller's making.
    pub fn bind_with_socket(
        socket: Arc<dyn AsyncUdpSocket>,
        identity: Identity,
        options: NetOptions,
    ) -> Result<Self, NetError> {
        let options = options.clamped();
        let mut server = ServerConfig::with_crypto(Arc::new(identity.quic_server()?));
        server.transport_config(Arc::new(options.transport()));
        server.max_incoming(options.handshakes_max * 4);
        Self::open(socket, Some(server), identity, options)
    }

    /// An endpoint that only dials, from any free port, as a client does.
    pub fn client(identity: Identity, options: NetOptions) -> Result<Self, NetError> {
        let options = options.clamped();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = UdpSocket::bind(any)
            .or_else(|_| UdpSocket::bind(any_v4))
            .and_then(|socket| socket::wrap(socket, options.socket_buffer_bytes))
            .map_err(|source| NetError::Socket { source })?;
        Self::open(socket, None, identity, options)
    }

    fn open(
        socket: Arc<dyn AsyncUdpSocket>,
        server: Option<ServerConfig>,
        identity: Identity,
        options: NetOptions,
    ) -> Result<Self, NetError> {
        // Together these two let a node that was restarted tell its peers so at their next packet: it recognizes the connection ids of
        // its former life as its own, and its answer is believed. Otherwise they would wait for the idle timeout.
        let mut config = EndpointConfig::new(identity.reset_key());
        let connection_id_key = identity.connection_id_key();
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));
        config.max_udp_payload_size(options.udp_bytes_max.max(1_472)).expect("clamped far below QUIC's own limit");
        let accepts = server.is_some();
        let socket = Arc::new(Segmented::new(socket, options.udp_bytes_max));
        let mut quinn = quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
            .map_err(|source| NetError::Socket { source })?;
        let mut client = ClientConfig::new(Arc::new(identity.quic_client()?));
        client.transport_config(Arc::new(options.transport()));
        quinn.set_default_client_config(client);
        let mut any_node = ClientConfig::new(Arc::new(identity.quic_client_of_any_node()?));
        any_node.transport_config(Arc::new(options.transport()));

        let stats = Arc::new(NetStats::default());
        let (proven, arrivals) = mpsc::channel(options.handshakes_max);
        if accepts {
            tokio::spawn(accept(quinn.clone(), identity.clone(), options.clone(), stats.clone(), proven));
        }
        let arrivals = Mutex::new(arrivals);
        Ok(Self(Arc::new(Inner { quinn, identity, any_node, options, stats, arrivals, links: AtomicU64::new(0) })))
    }

    /// Opens a link to the node called `expect` at `addr` (`host:port`). It is good when this returns: the other side has checked our
    /// certificate too and wants us.
    pub async fn dial(&self, addr: &str, expect: &str, sink: Arc<dyn Sink>) -> Result<Link, NetError> {
        self.dial_expecting(addr, Some(expect), sink).await
    }

    /// Opens a link to whichever node of this cluster is at `addr`: how a client that knows no names begins.
    pub async fn dial_any(&self, addr: &str, sink: Arc<dyn Sink>) -> Result<Link, NetError> {
        self.dial_expecting(addr, None, sink).await
    }

    async fn dial_expecting(&self, addr: &str, expect: Option<&str>, sink: Arc<dyn Sink>) -> Result<Link, NetError> {
        let timeout_ms = self.0.options.dial_timeout_ms;
        let dialled = timeout(Duration::from_millis(timeout_ms), self.try_addresses(addr, expect));
        let dialled = dialled.await.unwrap_or_else(|_| Err(NetError::Silent { addr: addr.to_owned(), timeout_ms }));
        match dialled {
            Ok((proven, foreground)) => {
                add(&self.0.stats.links_dialled, 1);
                Ok(self.start(proven, Some(foreground), sink))
            }
            Err(error) => {
                add(&self.0.stats.dials_failed, 1);
                Err(error)
            }
        }
    }

    /// The next peer that has proved to be of this cluster; `None` when the endpoint is closed (or only dials).
    pub async fn accept(&self) -> Option<Arrival> {
        let proven = self.0.arrivals.lock().await.recv().await?;
        Some(Arrival { proven: Some(proven), endpoint: self.clone() })
    }

    /// Where it listens; with port 0 asked, the port given.
    pub fn local_addr(&self) -> Result<SocketAddr, NetError> {
        self.0.quinn.local_addr().map_err(|source| NetError::Socket { source })
    }

    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub fn stats(&self) -> &NetStats {
        &self.0.stats
    }

    /// Closes all links with this reason, and waits up to `wait_ms` for the peers to have heard of it.
    pub async fn close(&self, code: CloseCode, text: &str, wait_ms: u64) {
        self.0.quinn.close(VarInt::from_u32(code as u32), text.as_bytes());
        // Whoever has not heard by then will find out by itself.
        let _ = timeout(Duration::from_millis(wait_ms), self.0.quinn.wait_idle()).await;
    }

    fn start(&self, proven: Proven, welcomed: Option<RecvStream>, sink: Arc<dyn Sink>) -> Link {
        let id = self.0.links.fetch_add(1, Ordering::Relaxed);
        let Proven { connection, peer } = proven;
        Link::start(id, connection, peer, welcomed, sink, &self.0.options, self.0.stats.clone())
    }

    /// One address of the name after the other; the last failure is told.
    async fn try_addresses(&self, addr: &str, expect: Option<&str>) -> Result<(Proven, RecvStream), NetError> {
        let resolve = |why: String| NetError::Resolve { addr: addr.to_owned(), why };
        let own = self.local_addr()?;
        let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host(addr)
            .await
            .map_err(|error| resolve(error.to_string()))?
            .filter(|address| address.is_ipv4() || own.is_ipv6())
            .take(ADDRESSES_MAX)
            .collect();
        // IPv4 first: where `localhost` has both, nodes listen on 127.0.0.1 more often than not.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let share_ms = self.0.options.dial_timeout_ms / (addresses.len().max(1) as u64);
        let mut failed = resolve("it has no address that this socket can reach".to_owned());
        for address in addresses {
            match timeout(Duration::from_millis(share_ms), self.try_address(addr, address, expect)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = NetError::Silent { addr: addr.to_owned(), timeout_ms: share_ms },
            }
        }
        Err(failed)
    }

    async fn try_address(
        &self,
        addr: &str,
        address: SocketAddr,
        expect: Option<&str>,
    ) -> Result<(Proven, RecvStream), NetError> {
        let unreachable = |why: String| NetError::Unreachable { addr: addr.to_owned(), why };
        let connecting = match expect {
            Some(name) => self.0.quinn.connect(address, &self.0.identity.server_name(name)?),
            None => {
                // A name has to be sent; nobody looks at it.
                let server_name = self.0.identity.server_name("any")?;
                self.0.quinn.connect_with(self.0.any_node.clone(), address, &server_name)
            }
        };
        let connecting = connecting.map_err(|error| unreachable(error.to_string()))?;
        let expected = expect.unwrap_or(ANY);
        let lost = |error: ConnectionError| self.dial_error(addr, expected, error);
        let connection = connecting.await.map_err(lost)?;
        let peer = identify(&connection, &self.0.identity)?;
        // webpki has compared the names as DNS does, without case; nodes are told apart by case too.
        if peer.role() != Role::Node || expect.is_some_and(|name| name != peer.name()) {
            let (addr, expected, why) = (addr.to_owned(), expected.to_owned(), format!("it is {peer}"));
            return Err(NetError::NotTrusted { addr, expected, why });
        }
        let mut foreground = connection.accept_uni().await.map_err(lost)?;
        let mut welcome = [0; WELCOME.len()];
        match foreground.read_exact(&mut welcome).await {
            Ok(()) if &welcome == WELCOME => Ok((Proven { connection, peer }, foreground)),
            Ok(()) => Err(unreachable("it does not begin with a welcome".to_owned())),
            Err(error) => Err(connection.close_reason().map_or_else(|| unreachable(error.to_string()), lost)),
        }
    }

    fn dial_error(&self, addr: &str, expect: &str, error: ConnectionError) -> NetError {
        let addr = addr.to_owned();
        let refused =
            |why: String| NetError::Refused { addr: addr.clone(), bearer: self.0.identity.bearer().clone(), why };
        match error {
            ConnectionError::TimedOut => NetError::Silent { addr, timeout_ms: self.0.options.dial_timeout_ms },
            // Our own TLS ended it: we did not like the other's certificate.
            ConnectionError::TransportError(error) if alert(error.code).is_some() => {
                let why = if ["UnknownIssuer", "BadSignature"].iter().any(|sign| error.reason.contains(sign)) {
                    "another authority issued its certificate".to_owned()
                } else if expect == ANY && error.reason.ends_with("NotValidForName") {
                    "its certificate is of another cluster".to_owned()
                } else {
                    error.reason
                };
                NetError::NotTrusted { addr, expected: expect.to_owned(), why }
            }
            ConnectionError::ConnectionClosed(close) if alert(close.error_code).is_some() => {
                refused(alert_sentence(alert(close.error_code).unwrap_or_default()).to_owned())
            }
            ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                refused("it accepts no links now (too many handshakes under way, or shutting down)".to_owned())
            }
            ConnectionError::ApplicationClosed(close) => refused(String::from_utf8_lossy(&close.reason).into_owned()),
            ConnectionError::LocallyClosed => NetError::Closed,
            error => NetError::Unreachable { addr, why: error.to_string() },
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quinn.close(VarInt::from_u32(CloseCode::Done as u32), b"endpoint dropped");
    }
}

impl Arrival {
    pub fn peer(&self) -> &PeerIdentity {
        &self.proven().peer
    }

    pub fn remote(&self) -> SocketAddr {
        self.proven().connection.remote_address()
    }

    /// Lets it in.
    pub fn welcome(mut self, sink: Arc<dyn Sink>) -> Link {
        let proven = self.proven.take().expect("taken only by the methods that consume the arrival");
        add(&self.endpoint.0.stats.links_accepted, 1);
        self.endpoint.start(proven, None, sink)
    }

    /// Sends it away, saying why.
    pub fn refuse(mut self, code: CloseCode, text: &str) {
        if let Some(proven) = self.proven.take() {
            proven.connection.close(VarInt::from_u32(code as u32), text.as_bytes());
        }
    }

    fn proven(&self) -> &Proven {
        self.proven.as_ref().expect("taken only by the methods that consume the arrival")
    }
}

/// Runs the handshakes of those who dial us, some at a time, until the endpoint is closed.
async fn accept(
    quinn: quinn::Endpoint,
    identity: Identity,
    options: NetOptions,
    stats: Arc<NetStats>,
    arrivals: mpsc::Sender<Proven>,
) {
    let under_way = Arc::new(Semaphore::new(options.handshakes_max));
    let limit = Duration::from_millis(options.dial_timeout_ms);
    while let Some(incoming) = quinn.accept().await {
        let Ok(permit) = under_way.clone().try_acquire_owned() else {
            add(&stats.handshakes_refused, 1);
            incoming.refuse();
            continue;
        };
        let (identity, stats, arrivals) = (identity.clone(), stats.clone(), arrivals.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let remote = incoming.remote_address();
            let outcome = match timeout(limit, handshake(incoming, &identity)).await {
                Ok(Ok(proven)) => timeout(limit, arrivals.send(proven))
                    .await
                    .map(|_| ())
                    .map_err(|_| "nobody took it: this node is too busy".to_owned()),
                Ok(Err(why)) => Err(why),
                Err(_) => Err(format!("its handshake took longer than {} ms", limit.as_millis())),
            };
            if let Err(why) = outcome {
                add(&stats.handshakes_failed, 1);
                let failed = stats.handshakes_failed.load(Ordering::Relaxed);
                // Whoever can reach the port can cause this: told for the 1st, 2nd, 4th, 8th ... time, counted always.
                if failed.is_power_of_two() {
                    tracing::warn!(%remote, failed, "no link: {why}");
                }
            }
        });
    }
}

async fn handshake(incoming: Incoming, identity: &Identity) -> Result<Proven, String> {
    let connection = incoming.await.map_err(|error| match &error {
        ConnectionError::TransportError(inner) if alert(inner.code).is_some() => inner.reason.clone(),
        _ => error.to_string(),
    })?;
    match identify(&connection, identity) {
        Ok(peer) => Ok(Proven { connection, peer }),
        Err(error) => {
            connection.close(VarInt::from_u32(CloseCode::NotMember as u32), error.to_string().as_bytes());
            Err(error.to_string())
        }
    }
}

fn identify(connection: &Connection, identity: &Identity) -> Result<PeerIdentity, TlsError> {
    let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    match chain.as_deref().and_then(|chain| chain.first()) {
        Some(certificate) => identity.identify(certificate),
        None => Err(TlsError::Setup { why: "the handshake ended without the peer's certificate".to_owned() }),
    }
}

/// The TLS alert in a transport error code (RFC 9001, 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some((code & 0xff) as u8)
}

/// What it means when the other side says this alert (RFC 8446, 6.2).
fn alert_sentence(alert: u8) -> &'static str {
    match alert {
        42 | 43 | 46 | 49 => "it does not accept our certificate",
        44 => "our certificate has been revoked",
        45 => "our certificate has expired (or its clock is wrong)",
        48 | 51 => "our certificate is not of its cluster (another authority issued it)",
        112 | 116 => "it wants another kind of certificate",
        120 => "it speaks another version of the protocol",
        _ => "the TLS handshake failed there",
    }
}
