//! Real endpoints on loopback: what they carry, whom they refuse, what a fault costs. Every wait is bounded.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::endpoint::{Arrival, Endpoint, NetError};
use super::fault::{FaultControl, FaultSocket, Rule};
use super::link::{CloseCode, EndedBy, Link, LinkEnd, SendError, Sink};
use super::options::NetOptions;
use super::tls::{ClusterAuthority, Identity, PeerIdentity, Role};
use crate::wire::frame::Class;

pub(crate) const NOW_MS: u64 = 1_790_000_000_000;

/// An authority whose certificates are valid whenever this test runs: rustls looks at the machine's clock.
pub(crate) fn authority(cluster: &str) -> ClusterAuthority {
    ClusterAuthority::create(cluster, 36_500, 1_000_000_000_000).unwrap()
}

pub(crate) fn identity(authority: &ClusterAuthority, name: &str, role: Role) -> Identity {
    let issued = authority.issue(name, role, &[], 36_500, 1_000_000_000_000).unwrap();
    Identity::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem, NOW_MS).unwrap()
}

fn bind(authority: &ClusterAuthority, name: &str, options: NetOptions) -> (Endpoint, String) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = Endpoint::bind(any, identity(authority, name, Role::Node), options).unwrap();
    let addr = endpoint.local_addr().unwrap().to_string();
    (endpoint, addr)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("within twenty seconds")
}

enum Seen {
    Frames(Class, Vec<Bytes>),
    Datagram(Bytes),
    Closed(LinkEnd),
}

/// A sink that passes everything on.
struct Tell(mpsc::UnboundedSender<Seen>);

impl Tell {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Seen>) {
        let (tell, told) = mpsc::unbounded_channel();
        (Arc::new(Self(tell)), told)
    }
}

impl Sink for Tell {
    fn on_frames(&self, _: &Link, class: Class, frames: Vec<Bytes>) {
        let _ = self.0.send(Seen::Frames(class, frames));
    }

    fn on_datagram(&self, _: &Link, datagram: Bytes) {
        let _ = self.0.send(Seen::Datagram(datagram));
    }

    fn on_closed(&self, _: &Link, end: &LinkEnd) {
        let _ = self.0.send(Seen::Closed(end.clone()));
    }
}

/// A link between two endpoints, with what each side's sink is told.
struct Pair {
    dialled: Link,
    dialler_told: mpsc::UnboundedReceiver<Seen>,
    accepted: Link,
    acceptor_told: mpsc::UnboundedReceiver<Seen>,
}

async fn pair(dialler: &Endpoint, acceptor: &Endpoint, addr: &str, name: &str) -> Pair {
    let (dialler_sink, dialler_told) = Tell::new();
    let (acceptor_sink, acceptor_told) = Tell::new();
    let accept = async { acceptor.accept().await.expect("open").welcome(acceptor_sink) };
    let (dialled, accepted) = soon(async { tokio::join!(dialler.dial(addr, name, dialler_sink), accept) }).await;
    Pair { dialled: dialled.unwrap(), dialler_told, accepted, acceptor_told }
}

async fn next_end(told: &mut mpsc::UnboundedReceiver<Seen>) -> LinkEnd {
    soon(async {
        loop {
            if let Seen::Closed(end) = told.recv().await.expect("told before the sink goes") {
                return end;
            }
        }
    })
    .await
}

/// Sends with patience: full is an answer here, not an error.
async fn send(link: &Link, class: Class, frame: &Bytes) {
    while let Err(error) = link.send(class, frame) {
        assert_eq!(error, SendError::Full);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn numbered(number: u32, len: usize) -> Bytes {
    let mut frame = vec![number as u8; len.max(4)];
    frame[..4].copy_from_slice(&number.to_le_bytes());
    frame.into()
}

async fn ten_thousand_each(link: &Link, told: &mut mpsc::UnboundedReceiver<Seen>, count: u32) {
    let sender = link.clone();
    let sending = tokio::spawn(async move {
        for number in 0..count {
            for class in Class::ALL {
                send(&sender, class, &numbered(number, 20 + number as usize % 300)).await;
            }
        }
    });
    let mut next = [0; Class::COUNT];
    soon(async {
        while next.iter().any(|at| *at < count) {
            let Seen::Frames(class, frames) = told.recv().await.expect("open") else { continue };
            for frame in frames {
                let number = next[class.index()];
                assert_eq!(frame, numbered(number, 20 + number as usize % 300));
                next[class.index()] += 1;
            }
        }
    })
    .await;
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_each_class_arrive_whole_and_in_order_both_ways() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let (b, addr) = bind(&authority, "b", NetOptions::default());
    let mut pair = pair(&a, &b, &addr, "b").await;
    assert_eq!(pair.dialled.peer(), &PeerIdentity::Node("b".into()));
    assert_eq!(pair.accepted.peer(), &PeerIdentity::Node("a".into()));
    tokio::join!(
        ten_thousand_each(&pair.dialled, &mut pair.acceptor_told, 10_000),
        ten_thousand_each(&pair.accepted, &mut pair.dialler_told, 10_000)
    );
    let counts = pair.dialled.counts();
    assert_eq!((counts.frames_sent, counts.frames_received), (30_000, 30_000));
    assert_eq!(a.stats().counts().frames_sent, 30_000);
    pair.dialled.close(CloseCode::Done, "that was all");
    let end = next_end(&mut pair.acceptor_told).await;
    assert_eq!((end.by, end.code, end.text.as_str()), (EndedBy::Peer, Some(0), "that was all"));
    assert_eq!(next_end(&mut pair.dialler_told).await.by, EndedBy::Us);
    assert_eq!(pair.dialled.send(Class::Foreground, &numbered(0, 4)), Err(SendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_frame_does_not_hold_up_small_ones_of_another_class() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let (b, addr) = bind(&authority, "b", NetOptions::default());
    let mut pair = pair(&a, &b, &addr, "b").await;
    let big = numbered(7, 8 << 20);
    for _ in 0..3 {
        send(&pair.dialled, Class::Transfer, &big).await;
    }
    for number in 0..100 {
        pair.dialled.send(Class::Foreground, &numbered(number, 100)).unwrap();
    }
    let (mut small, mut bigs) = (0, 0);
    soon(async {
        while small < 100 || bigs < 3 {
            match pair.acceptor_told.recv().await.unwrap() {
                Seen::Frames(Class::Transfer, frames) => {
                    assert!(frames.iter().all(|frame| *frame == big));
                    bigs += frames.len();
                    assert!(bigs < 3 || small == 100, "the small ones came after 24 MiB of another class");
                }
                Seen::Frames(_, frames) => small += frames.len(),
                _ => {}
            }
        }
    })
    .await;
    let too_big = Bytes::from(vec![1; (16 << 20) + 1]);
    assert!(matches!(pair.dialled.send(Class::Foreground, &too_big), Err(SendError::Unframeable(_))));
    assert!(matches!(pair.dialled.send(Class::Foreground, &Bytes::new()), Err(SendError::Unframeable(_))));
}

#[tokio::test]
async fn a_stuck_class_fills_its_own_queue_and_no_other() {
    /// Never comes back from its first background frame until told.
    struct Stuck(Mutex<std::sync::mpsc::Receiver<()>>, mpsc::UnboundedSender<()>);
    impl Sink for Stuck {
        fn on_frames(&self, _: &Link, class: Class, _: Vec<Bytes>) {
            match class {
                Class::Background => {
                    let _ = tokio::task::block_in_place(|| self.0.lock().unwrap().recv());
                }
                _ => self.1.send(()).unwrap(),
            }
        }
        fn on_datagram(&self, _: &Link, _: Bytes) {}
        fn on_closed(&self, _: &Link, _: &LinkEnd) {}
    }
    // The stuck reader occupies a thread of its own runtime, as a stopped process would its own.
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let authority = authority("shop");
    let options = NetOptions { queue_bytes_max: 64 << 10, stream_window_bytes: 64 << 10, ..NetOptions::default() };
    let (a, _) = bind(&authority, "a", options.clone());
    let (release, released) = std::sync::mpsc::channel();
    let (got, mut foreground) = mpsc::unbounded_channel();
    let sink = Arc::new(Stuck(Mutex::new(released), got));
    let (addr, address) = tokio::sync::oneshot::channel();
    let serving = other.spawn(async move {
        let (b, local) = bind(&authority, "b", options);
        addr.send(local).unwrap();
        let _link = b.accept().await.unwrap().welcome(sink);
        std::future::pending::<()>().await;
    });
    let (quiet, _told) = Tell::new();
    let link = soon(a.dial(&address.await.unwrap(), "b", quiet)).await.unwrap();
    let frame = numbered(1, 1000);
    let full = soon(async {
        for sent in 0.. {
            if let Err(error) = link.send(Class::Background, &frame) {
                // Once the peer takes no more, it stays full.
                tokio::time::sleep(Duration::from_millis(100)).await;
                if link.send(Class::Background, &frame).is_err() {
                    return (sent, error);
                }
            }
            tokio::task::yield_now().await;
        }
        unreachable!("the queue has a bound")
    })
    .await;
    assert_eq!(full.1, SendError::Full);
    assert!(full.0 < 2000, "bounded by queue and windows, not {} frames", full.0);
    assert!(link.waiting(Class::Background).0 <= (64 << 10) + 1004);
    assert!(a.stats().counts().queue_full > 0);
    link.send(Class::Foreground, &frame).unwrap();
    soon(foreground.recv()).await.expect("foreground gets through");
    drop(release);
    serving.abort();
    other.shutdown_background();
}

#[tokio::test]
async fn datagrams_arrive_and_too_large_ones_are_refused() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let (b, addr) = bind(&authority, "B_1-x", NetOptions::default());
    let mut pair = pair(&a, &b, &addr, "B_1-x").await;
    assert!(pair.dialled.datagram_bytes_max() > 1_100);
    pair.dialled.send_datagram(Bytes::from_static(b"ping")).unwrap();
    let Some(Seen::Datagram(datagram)) = soon(pair.acceptor_told.recv()).await else { panic!("a datagram") };
    assert_eq!(datagram, "ping");
    let large = Bytes::from(vec![0; 40_000]);
    assert!(matches!(pair.dialled.send_datagram(large), Err(SendError::DatagramTooLarge { len: 40_000, .. })));
}

#[tokio::test]
async fn strangers_are_refused_both_ways_and_told_why() {
    let (ours, theirs) = (authority("shop"), authority("shop"));
    let (a, _) = bind(&ours, "a", NetOptions::default());
    let (b, addr) = bind(&ours, "b", NetOptions::default());
    let (foreign, foreign_addr) = bind(&theirs, "c", NetOptions::default());
    let (sink, _told) = Tell::new();

    // The one who is dialled is foreign: we see it.
    let error = soon(a.dial(&foreign_addr, "c", sink.clone())).await.unwrap_err();
    assert!(matches!(&error, NetError::NotTrusted { why, .. } if why.contains("another authority")), "{error}");
    // Both are foreign to each other, so make the dialler one that trusts b but whom b does not trust.
    let issued = theirs.issue("d", Role::Node, &[], 36_500, 1_000_000_000_000).unwrap();
    let both = format!("{}{}", ours.certificate_pem(), theirs.certificate_pem());
    let spy = Identity::from_pem(&both, &issued.certificate_pem, &issued.key_pem, NOW_MS).unwrap();
    let spy = Endpoint::client(spy, NetOptions::default()).unwrap();
    let error = soon(spy.dial(&addr, "b", sink.clone())).await.unwrap_err();
    assert!(matches!(&error, NetError::Refused { why, .. } if why.contains("another authority")), "{error}");

    // The right authority, the wrong name.
    let error = soon(a.dial(&addr, "z", sink.clone())).await.unwrap_err();
    assert!(
        matches!(&error, NetError::NotTrusted { expected, why, .. } if expected == "z" && why.contains("b.node.shop")),
        "{error}"
    );
    let error = soon(a.dial(&addr, "B", sink.clone())).await.unwrap_err();
    assert!(matches!(&error, NetError::NotTrusted { .. }), "{error}");
    assert_eq!(a.stats().counts().dials_failed, 3);
    // a's refusals of b count at b, the spy's too; the foreign one saw a's.
    soon(async {
        while b.stats().counts().handshakes_failed < 2 || foreign.stats().counts().handshakes_failed < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_is_a_client_and_never_a_node() {
    let authority = authority("shop");
    let (b, addr) = bind(&authority, "b", NetOptions::default());
    let client = Endpoint::client(identity(&authority, "n1", Role::Client), NetOptions::default()).unwrap();
    let link = pair(&client, &b, &addr, "b").await;
    assert_eq!(link.accepted.peer(), &PeerIdentity::Client("n1".into()), "whatever node is called so");

    // A client's certificate cannot serve: neither its name nor its purpose fits.
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let poser = Endpoint::bind(any, identity(&authority, "n1", Role::Client), NetOptions::default()).unwrap();
    let (sink, _told) = Tell::new();
    let at = poser.local_addr().unwrap().to_string();
    let error = soon(b.dial(&at, "n1", sink)).await.unwrap_err();
    assert!(matches!(&error, NetError::NotTrusted { .. }), "{error}");
}

#[tokio::test]
async fn whoever_is_sent_away_at_the_door_hears_the_reason() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let (b, addr) = bind(&authority, "b", NetOptions::default());
    let (sink, _told) = Tell::new();
    let refuse = async {
        let arrival: Arrival = b.accept().await.unwrap();
        assert_eq!(arrival.peer().name(), "a");
        arrival.refuse(CloseCode::NotMember, "a is not a member");
    };
    let (dialled, ()) = soon(async { tokio::join!(a.dial(&addr, "b", sink), refuse) }).await;
    let error = dialled.unwrap_err();
    assert!(matches!(&error, NetError::Refused { why, .. } if why == "a is not a member"), "{error}");
}

#[tokio::test]
async fn nobody_there_a_taken_port_and_a_bad_address_each_say_so() {
    let authority = authority("shop");
    let options = NetOptions { dial_timeout_ms: 200, ..NetOptions::default() };
    let (a, addr) = bind(&authority, "a", options);
    let (sink, _told) = Tell::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let error = soon(a.dial(&at, "b", sink.clone())).await.unwrap_err();
    assert!(matches!(error, NetError::Silent { timeout_ms: 200, .. }), "{error}");
    let error = soon(a.dial("no port", "b", sink)).await.unwrap_err();
    assert!(matches!(error, NetError::Resolve { .. }), "{error}");
    let taken: SocketAddr = addr.parse().unwrap();
    let error = Endpoint::bind(taken, identity(&authority, "b", Role::Node), NetOptions::default()).unwrap_err();
    assert!(error.to_string().contains(&addr), "{error}");
}

#[tokio::test]
async fn a_corrupt_frame_closes_its_link_and_no_other() {
    let authority = authority("shop");
    let (b, addr) = bind(&authority, "b", NetOptions::default());
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let mut good = pair(&a, &b, &addr, "b").await;

    // A node whose frames may be larger than b allows: the same as one that sends rubbish.
    let lavish = NetOptions { frame_bytes_max: 64 << 20, queue_bytes_max: 64 << 20, ..NetOptions::default() };
    let (c, _) = bind(&authority, "c", lavish);
    let mut bad = pair(&c, &b, &addr, "b").await;
    bad.dialled.send(Class::Background, &numbered(1, 10)).unwrap();
    bad.dialled.send(Class::Background, &numbered(2, 17 << 20)).unwrap();
    let end = next_end(&mut bad.dialler_told).await;
    assert_eq!((end.by, end.code), (EndedBy::Peer, Some(CloseCode::BadFrame as u64)));
    assert!(end.text.contains("bound"), "{}", end.text);
    let Some(Seen::Frames(_, frames)) = soon(bad.acceptor_told.recv()).await else { panic!("the good frame before") };
    assert_eq!(frames, [numbered(1, 10)]);
    assert_eq!(b.stats().counts().bad_frames, 1);

    good.dialled.send(Class::Foreground, &numbered(3, 10)).unwrap();
    let Some(Seen::Frames(_, frames)) = soon(good.acceptor_told.recv()).await else { panic!("undisturbed") };
    assert_eq!(frames, [numbered(3, 10)]);
}

/// Binds where a process that has just died was listening.
pub(crate) async fn bind_again(addr: SocketAddr) -> UdpSocket {
    soon(async {
        loop {
            match UdpSocket::bind(addr) {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_restarted_peer_is_noticed_at_the_next_packet() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let b_identity = identity(&authority, "b", Role::Node);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    // b's process: a runtime of its own, which dies without a word.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let control = FaultControl::new(1);
    let (b_control, first_identity) = (control.clone(), b_identity.clone());
    process.spawn(async move {
        let faulty = FaultSocket::wrap(socket, 1 << 20, b_control).unwrap();
        let b = Endpoint::bind_with_socket(faulty, first_identity, NetOptions::default()).unwrap();
        let (sink, _told) = Tell::new();
        let _link = b.accept().await.unwrap().welcome(sink);
        std::future::pending::<()>().await;
    });
    let (sink, mut told) = Tell::new();
    let link = soon(a.dial(&addr.to_string(), "b", sink)).await.unwrap();
    control.set_everybody(Rule { cut_out: true, cut_in: true, ..Rule::default() });
    process.shutdown_background();
    let _again = Endpoint::bind_socket(bind_again(addr).await, b_identity, NetOptions::default()).unwrap();
    link.send(Class::Foreground, &numbered(1, 100)).unwrap();
    let end = timeout(Duration::from_secs(4), link.closed()).await.expect("long before the idle timeout");
    assert!(end.text.contains("restarted"), "{end:?}");
    assert_eq!(next_end(&mut told).await, end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_get_through_loss_duplication_and_disorder() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let control = FaultControl::new(42);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let faulty = FaultSocket::wrap(socket, 1 << 20, control.clone()).unwrap();
    let b_identity = identity(&authority, "b", Role::Node);
    let b = Endpoint::bind_with_socket(faulty, b_identity, NetOptions::default()).unwrap();
    let mut pair = pair(&a, &b, &addr, "b").await;
    control.set_everybody(Rule { loss_ppm: 50_000, duplicate_ppm: 50_000, jitter_us: 1_000, ..Rule::default() });
    tokio::join!(
        ten_thousand_each(&pair.dialled, &mut pair.acceptor_told, 2_000),
        ten_thousand_each(&pair.accepted, &mut pair.dialler_told, 2_000)
    );
    let counts = control.counts();
    assert!(counts.lost > 0 && counts.duplicated > 0 && counts.delayed > 0, "{counts:?}");
    control.heal();
    pair.dialled.send(Class::Foreground, &numbered(1, 10)).unwrap();
    soon(pair.acceptor_told.recv()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_hits_the_peer_it_names_and_nobody_else() {
    let authority = authority("shop");
    let (a, a_addr) = bind(&authority, "a", NetOptions::default());
    let (c, _) = bind(&authority, "c", NetOptions::default());
    let control = FaultControl::new(7);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let faulty = FaultSocket::wrap(socket, 1 << 20, control.clone()).unwrap();
    let b = Endpoint::bind_with_socket(faulty, identity(&authority, "b", Role::Node), NetOptions::default()).unwrap();
    let mut cut = pair(&a, &b, &addr, "b").await;
    let mut other = pair(&c, &b, &addr, "b").await;
    let rule = Rule { cut_out: true, cut_in: true, ..Rule::default() };
    control.set_peers([(a_addr.parse().unwrap(), rule)]);
    for class in [Class::Foreground, Class::Background] {
        cut.dialled.send(class, &numbered(1, 100)).unwrap();
        other.dialled.send(class, &numbered(1, 100)).unwrap();
    }
    soon(other.acceptor_told.recv()).await.unwrap();
    assert!(timeout(Duration::from_millis(300), cut.acceptor_told.recv()).await.is_err(), "it is cut off");
    assert!(control.counts().cut > 0);
    control.set_peers([]);
    soon(cut.acceptor_told.recv()).await.unwrap();
}

#[tokio::test]
async fn closing_an_endpoint_ends_its_links_at_both_ends() {
    let authority = authority("shop");
    let (a, _) = bind(&authority, "a", NetOptions::default());
    let (b, addr) = bind(&authority, "b", NetOptions::default());
    let mut pair = pair(&a, &b, &addr, "b").await;
    soon(b.close(CloseCode::Shutdown, "going home", 1_000)).await;
    let end = next_end(&mut pair.dialler_told).await;
    assert_eq!((end.code, end.text.as_str()), (Some(CloseCode::Shutdown as u64), "going home"));
    assert_eq!(next_end(&mut pair.acceptor_told).await.by, EndedBy::Us);
    assert!(soon(b.accept()).await.is_none());
}
