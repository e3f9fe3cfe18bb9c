//! One connection to one peer: frames in three classes, datagrams, and an end with a reason.
//!
//! ```text
//!   any thread: send --> [queue: encoded as it comes, bounded] --wake--> writer task --> quinn --> UDP
//!   reader task per class <-- quinn <-- UDP:   one read, all frames in it, one call of the sink
//! ```
//!
//! What a frame costs is what this file is about. A frame is copied once, under a short lock, behind those already waiting; the writer
//! takes all of them at once and hands quinn one piece of memory. While it is busy, or blocked, more gather: batches grow by waiting.
//!
//! Invariants:
//! 1. A class never waits for another. The writer offers each stream its own backlog and goes on when one does not take it.
//! 2. What waits is bounded by bytes and by count, the batch being written included; one frame may overshoot.
//! 3. A link ends once, for one reason, and the sink is told exactly once, after which its frames are no longer accepted.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendDatagramError, SendStream, VarInt};
use tokio::io::AsyncReadExt;

use super::options::NetOptions;
use super::stats::{NetStats, add};
use super::tls::PeerIdentity;
use crate::wire::frame::{Class, FrameError, FrameReader, FrameWriter, Gathered};

/// The first bytes on the acceptor's foreground stream. Until they come the dialler does not know whether it has been let in: in TLS 1.3
/// its own handshake is over before the other side has looked at its certificate.
pub(super) const WELCOME: &[u8; 8] = b"welcome\n";

/// Rounds of writing before other tasks get a turn.
const ROUNDS_MAX: usize = 16;

/// Takes what comes over links. Called on the network's own tasks: it must not block, and a panic closes the link.
pub trait Sink: Send + Sync + 'static {
    /// All frames of one read, at least one, in the order in which they were sent on this link in this class.
    fn on_frames(&self, link: &Link, class: Class, frames: Vec<Bytes>);
    /// A datagram; these come in any order or not at all.
    fn on_datagram(&self, link: &Link, datagram: Bytes);
    /// The link is over. Nothing more comes from it.
    fn on_closed(&self, link: &Link, end: &LinkEnd);
}

/// Why a link is closed, as said to the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum CloseCode {
    /// No longer needed.
    Done = 0,
    /// The process is going away.
    Shutdown = 1,
    /// What was sent is no frame.
    BadFrame = 2,
    /// The bearer of this certificate is not in the layout.
    NotMember = 3,
    /// A newer link of the same peer takes its place.
    Replaced = 4,
    /// Too many clients.
    Overloaded = 5,
    /// A bug here.
    Internal = 6,
}

/// Who or what ended a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedBy {
    Us,
    Peer,
    /// Silence, or packets that make no sense: the peer may be gone.
    Network,
}

/// How a link ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkEnd {
    pub by: EndedBy,
    /// A [`CloseCode`] as a number, where somebody gave one.
    pub code: Option<u64>,
    pub text: String,
}

/// Why a frame was not taken. Nothing of it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    #[error("the queue to this peer is full")]
    Full,
    #[error("the link is closed")]
    Closed,
    #[error("cannot be sent: {0}")]
    Unframeable(#[from] FrameError),
    #[error("a datagram of {len} bytes, but this link carries at most {max}")]
    DatagramTooLarge { len: usize, max: usize },
}

/// What one link has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub frames_sent: u64,
    pub bytes_sent: u64,
    pub frames_received: u64,
    pub bytes_received: u64,
    /// Reads that gave at least one frame: frames per read is how well batching works.
    pub reads: u64,
}

/// How the network between the two ends does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// The smoothed round trip.
    pub round_trip_us: u64,
    pub packets_sent: u64,
    /// Of those sent, held for lost and sent again.
    pub packets_lost: u64,
    /// Times the sender slowed down because of loss.
    pub slowdowns: u64,
    /// The largest packet that has proved to pass.
    pub packet_bytes: u16,
}

/// A handle to a link; clones are the same link. It stays open until somebody closes it, whoever drops handles.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    id: u64,
    peer: PeerIdentity,
    dialled: bool,
    connection: Connection,
    queue: Mutex<Queue>,
    queue_bytes_max: usize,
    queue_frames_max: usize,
    frame_bytes_max: usize,
    stats: Arc<NetStats>,
    end: OnceLock<LinkEnd>,
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    reads: AtomicU64,
}

struct Queue {
    classes: [Waiting; Class::COUNT],
    /// The writer, when it has nothing it could do.
    writer: Option<Waker>,
    closed: bool,
}

struct Waiting {
    frames: FrameWriter,
    /// Taken by the writer, not yet with quinn as a whole.
    writing_bytes: usize,
    writing_frames: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        let way = if self.0.dialled { "to" } else { "from" };
        write!(out, "Link({} {way} {})", self.0.id, self.0.peer)
    }
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Link {
    /// Unique among the links of one endpoint.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub fn peer(&self) -> &PeerIdentity {
        &self.0.peer
    }

    /// This side opened it.
    pub fn dialled(&self) -> bool {
        self.0.dialled
    }

    /// Where the peer is now.
    pub fn remote(&self) -> std::net::SocketAddr {
        self.0.connection.remote_address()
    }

    /// How the way to the peer does.
    pub fn path(&self) -> PathCounts {
        let path = self.0.connection.stats().path;
        PathCounts {
            round_trip_us: path.rtt.as_micros() as u64,
            packets_sent: path.sent_packets,
            packets_lost: path.lost_packets,
            slowdowns: path.congestion_events,
            packet_bytes: path.current_mtu,
        }
    }

    /// Takes one frame for sending; never waits. Frames of one class arrive in the order in which they were taken, if they arrive.
    pub fn send(&self, class: Class, frame: &Bytes) -> Result<(), SendError> {
        self.send_all(class, std::slice::from_ref(frame)).1
    }

    /// Takes frames in order until one is refused; returns how many were taken, and why not all. One lock and one wake-up for all.
    pub fn send_all(&self, class: Class, frames: &[Bytes]) -> (usize, Result<(), SendError>) {
        let mut queue = self.0.lock();
        if queue.closed {
            return (0, Err(SendError::Closed));
        }
        let waiting = &mut queue.classes[class.index()];
        let mut taken = 0;
        let mut outcome = Ok(());
        for frame in frames {
            if waiting.frames.bytes() + waiting.writing_bytes >= self.0.queue_bytes_max
                || waiting.frames.frames() + waiting.writing_frames >= self.0.queue_frames_max
            {
                outcome = Err(SendError::Full);
                break;
            }
            if let Err(error) = waiting.frames.push(frame) {
                outcome = Err(SendError::Unframeable(error));
                break;
            }
            taken += 1;
        }
        let writer = if taken > 0 { queue.writer.take() } else { None };
        drop(queue);
        if let Some(writer) = writer {
            writer.wake();
        }
        if outcome == Err(SendError::Full) {
            add(&self.0.stats.queue_full, (frames.len() - taken) as u64);
        }
        (taken, outcome)
    }

    /// Bytes and frames that wait in a class.
    pub fn waiting(&self, class: Class) -> (usize, usize) {
        let queue = self.0.lock();
        let waiting = &queue.classes[class.index()];
        (waiting.frames.bytes() + waiting.writing_bytes, waiting.frames.frames() + waiting.writing_frames)
    }

    /// Sends a datagram: at once, unordered, perhaps never arriving. When too many wait the oldest is given up.
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), SendError> {
        let len = datagram.len();
        self.0.connection.send_datagram(datagram).map_err(|error| match error {
            SendDatagramError::TooLarge => SendError::DatagramTooLarge { len, max: self.datagram_bytes_max() },
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                SendError::DatagramTooLarge { len, max: 0 }
            }
            SendDatagramError::ConnectionLost(_) => SendError::Closed,
        })
    }

    /// The largest datagram that goes over this link now: at least about 1,100 bytes, more when the path carries more.
    pub fn datagram_bytes_max(&self) -> usize {
        self.0.connection.max_datagram_size().unwrap_or(0)
    }

    /// Closes the link and says why. What waits is lost. Does nothing when it is over already.
    pub fn close(&self, code: CloseCode, text: &str) {
        // quinn would forget the reason it has if asked to close a second time.
        if self.0.connection.close_reason().is_none() {
            let end = LinkEnd { by: EndedBy::Us, code: Some(u64::from(code as u32)), text: text.to_owned() };
            self.0.end.get_or_init(|| end);
            self.0.connection.close(VarInt::from_u32(code as u32), text.as_bytes());
        }
    }

    /// Waits for the end.
    pub async fn closed(&self) -> LinkEnd {
        let reason = self.0.connection.closed().await;
        self.0.end.get_or_init(|| ending(reason)).clone()
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<&LinkEnd> {
        self.0.end.get()
    }

    pub fn counts(&self) -> LinkCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkCounts {
            frames_sent: read(&self.0.frames_sent),
            bytes_sent: read(&self.0.bytes_sent),
            frames_received: read(&self.0.frames_received),
            bytes_received: read(&self.0.bytes_received),
            reads: read(&self.0.reads),
        }
    }

    /// Starts the tasks of a link whose handshake is done. `welcomed`: on the dialling side, the peer's foreground stream after its
    /// welcome; on the accepting side nothing, and the welcome is sent.
    pub(super) fn start(
        id: u64,
        connection: Connection,
        peer: PeerIdentity,
        welcomed: Option<RecvStream>,
        sink: Arc<dyn Sink>,
        options: &NetOptions,
        stats: Arc<NetStats>,
    ) -> Self {
        let waiting =
            || Waiting { frames: FrameWriter::new(options.frame_bytes_max), writing_bytes: 0, writing_frames: 0 };
        let link = Self(Arc::new(Inner {
            id,
            peer,
            dialled: welcomed.is_some(),
            connection,
            queue: Mutex::new(Queue { classes: std::array::from_fn(|_| waiting()), writer: None, closed: false }),
            queue_bytes_max: options.queue_bytes_max,
            queue_frames_max: options.queue_frames_max,
            frame_bytes_max: options.frame_bytes_max,
            stats,
            end: OnceLock::new(),
            frames_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            frames_received: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }));
        tokio::spawn(write(link.clone()));
        tokio::spawn(read_datagrams(link.clone(), sink.clone()));
        tokio::spawn(live(link.clone(), welcomed, sink));
        link
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing that can panic happens under the lock")
    }
}

/// Reads until the end, then tells it. The sink is told after all its readers have stopped, so nothing comes after the end.
async fn live(link: Link, welcomed: Option<RecvStream>, sink: Arc<dyn Sink>) {
    let mut readers = tokio::task::JoinSet::new();
    if let Some(stream) = welcomed {
        readers.spawn(read(link.clone(), Class::Foreground, stream, sink.clone()));
    }
    // quinn gives streams in order of their numbers, and the transport settings allow no fourth.
    while let Ok(stream) = link.0.connection.accept_uni().await {
        let Some(class) = Class::ALL.get(stream.id().index() as usize) else { break };
        readers.spawn(read(link.clone(), *class, stream, sink.clone()));
    }
    let end = link.closed().await;
    let writer = {
        let mut queue = link.0.lock();
        queue.closed = true;
        queue.writer.take()
    };
    if let Some(writer) = writer {
        writer.wake();
    }
    while readers.join_next().await.is_some() {}
    add(&link.0.stats.links_closed, 1);
    tracing::debug!(link = ?link, by = ?end.by, "link over: {}", end.text);
    sink.on_closed(&link, &end);
}

/// Closes the link if its task ends by a panic: otherwise the peer would wait for a reader that is no more.
struct Guard<'a>(&'a Link);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(CloseCode::Internal, "internal error");
        }
    }
}

async fn read(link: Link, class: Class, mut stream: RecvStream, sink: Arc<dyn Sink>) {
    let _guard = Guard(&link);
    let mut reader = FrameReader::new(link.0.frame_bytes_max);
    loop {
        match stream.read_buf(reader.space()).await {
            Ok(0) => {
                return link.close(CloseCode::BadFrame, "a stream was finished; they stay open as long as the link");
            }
            Ok(_) => {}
            // Either the link is over, and `live` knows why, or the peer reset a stream, which none of ours does.
            Err(_) => return link.close(CloseCode::BadFrame, "a stream was reset"),
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        let wrong = loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    bytes += frame.len() as u64;
                    frames.push(frame);
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if !frames.is_empty() {
            let count = frames.len() as u64;
            add(&link.0.frames_received, count);
            add(&link.0.bytes_received, bytes);
            add(&link.0.reads, 1);
            add(&link.0.stats.frames_received, count);
            add(&link.0.stats.bytes_received, bytes);
            sink.on_frames(&link, class, frames);
        }
        if let Some(error) = wrong {
            add(&link.0.stats.bad_frames, 1);
            tracing::warn!(link = ?link, ?class, "closing: {error}");
            return link.close(CloseCode::BadFrame, &error.to_string());
        }
        tokio::task::coop::consume_budget().await;
    }
}

async fn read_datagrams(link: Link, sink: Arc<dyn Sink>) {
    let _guard = Guard(&link);
    while let Ok(datagram) = link.0.connection.read_datagram().await {
        sink.on_datagram(&link, datagram);
        tokio::task::coop::consume_budget().await;
    }
}

async fn write(link: Link) {
    let _guard = Guard(&link);
    let Some(mut outgoing) = Outgoing::open(&link).await else { return };
    poll_fn(|context| outgoing.poll(&link, context)).await;
}

/// The writer's side of the three streams.
struct Outgoing([Stream; Class::COUNT]);

struct Stream {
    stream: SendStream,
    /// Being written: `pieces[at..]` is what is left.
    batch: Gathered,
    at: usize,
    /// quinn takes no more now and will wake the writer when it does.
    blocked: bool,
}

impl Outgoing {
    /// Opens all three at once, which costs nothing until something is written; `None` when the link is over.
    async fn open(link: &Link) -> Option<Self> {
        let mut streams = Vec::with_capacity(Class::COUNT);
        for class in Class::ALL {
            let stream = link.0.connection.open_uni().await.ok()?;
            // Even what quinn holds already goes out in order of urgency.
            stream.set_priority(-(class.index() as i32)).ok()?;
            streams.push(Stream { stream, batch: Gathered::default(), at: 0, blocked: false });
        }
        if !link.0.dialled {
            streams[Class::Foreground.index()].batch.pieces.push(Bytes::from_static(WELCOME));
        }
        streams.try_into().ok().map(Self)
    }

    /// Writes until nothing waits or nothing is taken. Ready when the link is over.
    fn poll(&mut self, link: &Link, context: &mut Context<'_>) -> Poll<()> {
        for stream in &mut self.0 {
            stream.blocked = false;
        }
        for _ in 0..ROUNDS_MAX {
            if let Poll::Ready(more) = self.poll_refill(link, context) {
                if !more {
                    return Poll::Ready(());
                }
            } else {
                return Poll::Pending;
            }
            for stream in &mut self.0 {
                if stream.poll_write(context).is_err() {
                    return Poll::Ready(());
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes what waits for streams that have nothing left. Ready(true): there is something to write. Ready(false): the link is over.
    fn poll_refill(&mut self, link: &Link, context: &Context<'_>) -> Poll<bool> {
        let (mut frames, mut bytes, mut work) = (0, 0, false);
        let mut queue = link.0.lock();
        if queue.closed {
            return Poll::Ready(false);
        }
        for (stream, waiting) in self.0.iter_mut().zip(&mut queue.classes) {
            if stream.is_done() {
                waiting.writing_bytes = 0;
                waiting.writing_frames = 0;
                if !waiting.frames.is_empty() {
                    stream.batch = waiting.frames.take();
                    stream.at = 0;
                    waiting.writing_bytes = stream.batch.bytes;
                    waiting.writing_frames = stream.batch.frames;
                    frames += stream.batch.frames as u64;
                    bytes += stream.batch.bytes as u64;
                }
            }
            work |= !stream.is_done() && !stream.blocked;
        }
        if !work {
            queue.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(queue);
        if frames > 0 {
            add(&link.0.frames_sent, frames);
            add(&link.0.bytes_sent, bytes);
            add(&link.0.stats.frames_sent, frames);
            add(&link.0.stats.bytes_sent, bytes);
        }
        Poll::Ready(true)
    }
}

impl Stream {
    fn is_done(&self) -> bool {
        self.at >= self.batch.pieces.len()
    }

    /// Writes what quinn takes. An error means that the link is over or that the peer wants no more, which none of ours does.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), quinn::WriteError> {
        while !self.is_done() && !self.blocked {
            // Cancel-safe: what has not resolved has written nothing, and its waker stays with the stream.
            match pin!(self.stream.write_chunks(&mut self.batch.pieces[self.at..])).poll(context) {
                Poll::Ready(written) => self.at += written?.chunks,
                Poll::Pending => self.blocked = true,
            }
        }
        if self.is_done() {
            self.batch.pieces.clear();
            self.at = 0;
        }
        Ok(())
    }
}

fn ending(error: ConnectionError) -> LinkEnd {
    match error {
        ConnectionError::ApplicationClosed(close) => LinkEnd {
            by: EndedBy::Peer,
            code: Some(close.error_code.into_inner()),
            text: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::LocallyClosed => LinkEnd { by: EndedBy::Us, code: None, text: "closed here".to_owned() },
        ConnectionError::ConnectionClosed(close) => LinkEnd { by: EndedBy::Peer, code: None, text: close.to_string() },
        ConnectionError::Reset => LinkEnd {
            by: EndedBy::Peer,
            code: None,
            text: "the peer knows nothing of this link (it was restarted)".to_owned(),
        },
        ConnectionError::TimedOut => {
            LinkEnd { by: EndedBy::Network, code: None, text: "nothing heard for the idle timeout".to_owned() }
        }
        other => LinkEnd { by: EndedBy::Network, code: None, text: other.to_string() },
    }
}
