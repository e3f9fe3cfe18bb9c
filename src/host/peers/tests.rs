//! Nodes on loopback that find, lose and find each other again. Every wait is bounded.

use std::net::UdpSocket;

use tokio::sync::mpsc;

use super::*;
use crate::net::fault::{FaultControl, FaultSocket, Rule};
use crate::net::options::NetOptions;
use crate::net::tests::{authority, bind_again, identity};
use crate::net::tls::{ClusterAuthority, Identity, Role};

#[derive(Debug, PartialEq)]
enum Seen {
    Frames(NodeId, Class, Vec<Bytes>),
    Datagram(NodeId, Bytes),
    Up(NodeId),
    Down(NodeId),
    Client(Vec<Bytes>),
    ClientGone,
}

/// Tells everything, and answers clients with what they said.
struct Tell(mpsc::UnboundedSender<Seen>);

impl Tell {
    fn say(&self, seen: Seen) {
        let _ = self.0.send(seen);
    }
}

impl Inbound for Tell {
    fn on_frames(&self, from: NodeId, class: Class, frames: Vec<Bytes>) {
        self.say(Seen::Frames(from, class, frames));
    }
    fn on_datagram(&self, from: NodeId, datagram: Bytes) {
        self.say(Seen::Datagram(from, datagram));
    }
    fn on_up(&self, node: NodeId) {
        self.say(Seen::Up(node));
    }
    fn on_down(&self, node: NodeId, _: &str) {
        self.say(Seen::Down(node));
    }
    fn on_client_frames(&self, link: &Link, frames: Vec<Bytes>) {
        link.send_all(Class::Foreground, &frames).1.unwrap();
        self.say(Seen::Client(frames));
    }
    fn on_client_gone(&self, _: &Link) {
        self.say(Seen::ClientGone);
    }
}

struct Node {
    member: PeerMember,
    peers: Peers,
    told: mpsc::UnboundedReceiver<Seen>,
}

impl Node {
    fn start(authority: &ClusterAuthority, name: &str, socket: UdpSocket) -> Self {
        Self::start_with(authority, name, socket, FaultControl::new(0), NetOptions::default())
    }

    fn start_with(
        authority: &ClusterAuthority,
        name: &str,
        socket: UdpSocket,
        control: Arc<FaultControl>,
        options: NetOptions,
    ) -> Self {
        let identity = identity(authority, name, Role::Node);
        Self::start_as(identity, socket, control, options, PeersOptions::default())
    }

    fn start_as(
        identity: Identity,
        socket: UdpSocket,
        control: Arc<FaultControl>,
        options: NetOptions,
        peers_options: PeersOptions,
    ) -> Self {
        let name = identity.bearer().name().to_owned();
        let addr = socket.local_addr().unwrap().to_string();
        let id = NodeId::from_name(&name);
        let socket = FaultSocket::wrap(socket, 1 << 20, control).unwrap();
        let endpoint = Endpoint::bind_with_socket(socket, identity, options).unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        let peers = Peers::start(id, endpoint, Arc::new(Tell(tell)), peers_options);
        Self { member: PeerMember { id, name, addr }, peers, told }
    }

    /// Waits for this, letting other things pass.
    async fn sees(&mut self, wanted: Seen) {
        let found = async { while self.told.recv().await.expect("open") != wanted {} };
        let found = timeout(Duration::from_secs(15), found).await;
        found.unwrap_or_else(|_| panic!("{} never saw {wanted:?}", self.member.name));
    }
}

fn free_socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Two nodes that know each other; the first has the smaller id.
fn two(authority: &ClusterAuthority) -> (Node, Node) {
    let mut names = ["n1", "n2"];
    names.sort_by_key(|name| NodeId::from_name(name));
    let a = Node::start(authority, names[0], free_socket());
    let b = Node::start(authority, names[1], free_socket());
    (a, b)
}

fn introduce(nodes: &[&Node]) {
    let members: Vec<PeerMember> = nodes.iter().map(|node| node.member.clone()).collect();
    for node in nodes {
        node.peers.set_members(members.clone());
    }
}

#[tokio::test]
async fn members_find_each_other_and_speak() {
    let authority = authority("shop");
    let (mut a, mut b) = two(&authority);
    let (a_id, b_id) = (a.member.id, b.member.id);
    let hello = Bytes::from_static(b"hello");
    assert_eq!(a.peers.send(b_id, Class::Foreground, &hello), Err(SendError::NotMember));
    introduce(&[&a, &b]);
    a.sees(Seen::Up(b_id)).await;
    b.sees(Seen::Up(a_id)).await;
    assert!(a.peers.connected(b_id) && b.peers.connected(a_id) && !a.peers.connected(a_id));
    a.peers.send(b_id, Class::Background, &hello).unwrap();
    b.sees(Seen::Frames(a_id, Class::Background, vec![hello.clone()])).await;
    b.peers.send(a_id, Class::Foreground, &hello).unwrap();
    a.sees(Seen::Frames(b_id, Class::Foreground, vec![hello.clone()])).await;
    b.peers.send_datagram(a_id, hello.clone()).unwrap();
    a.sees(Seen::Datagram(b_id, hello)).await;
    let report = &a.peers.report()[0];
    assert!(report.connected && report.sent_frames == 1 && report.sent_bytes == 5, "{report:?}");
    // The courtesy of the one with the larger id leaves one link.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(a.peers.0.endpoint.stats().counts().links_dialled, 1);
    assert_eq!(b.peers.0.endpoint.stats().counts().links_dialled, 0);

    // Who leaves the layout loses its link and is not let in again.
    a.peers.set_members([]);
    a.sees(Seen::Down(b_id)).await;
    b.sees(Seen::Down(a_id)).await;
    timeout(Duration::from_secs(10), async {
        while a.peers.refused().1 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let report = &b.peers.report()[0];
    assert!(!report.connected);
    assert_eq!(b.peers.send(a_id, Class::Foreground, &Bytes::from_static(b"x")), Err(SendError::NotConnected));
    assert_eq!(b.peers.report()[0].dropped.not_connected, 1);
}

#[tokio::test]
async fn either_side_may_dial_when_the_other_cannot() {
    let authority = authority("shop");
    let (mut a, mut b) = two(&authority);
    let (a_id, b_id) = (a.member.id, b.member.id);
    // a knows a wrong address of b, so b must dial; and a's answers go on b's link.
    let nowhere = PeerMember { addr: "127.0.0.1:1".to_owned(), ..b.member.clone() };
    a.peers.set_members([nowhere]);
    b.peers.set_members([a.member.clone()]);
    a.sees(Seen::Up(b_id)).await;
    b.sees(Seen::Up(a_id)).await;
    let frame = Bytes::from_static(b"over your link");
    a.peers.send(b_id, Class::Foreground, &frame).unwrap();
    b.sees(Seen::Frames(a_id, Class::Foreground, vec![frame])).await;
}

#[tokio::test]
async fn a_peer_that_dies_and_comes_back_is_linked_again() {
    let authority = authority("shop");
    let mut names = ["n1", "n2"];
    names.sort_by_key(|name| NodeId::from_name(name));
    // Once the one that dials dies, once the other; and once with a new key, so that its word about old links is not believed.
    for (staying, dying, same_key) in
        [(names[0], names[1], true), (names[1], names[0], true), (names[0], names[1], false)]
    {
        let settled = PeersOptions { settle_ms: 0, ..PeersOptions::default() };
        let a_identity = identity(&authority, staying, Role::Node);
        let quiet = FaultControl::new(0);
        let mut a = Node::start_as(a_identity, free_socket(), quiet.clone(), NetOptions::default(), settled);
        let first_identity = identity(&authority, dying, Role::Node);
        let second_identity = if same_key { first_identity.clone() } else { identity(&authority, dying, Role::Node) };
        let socket = free_socket();
        let addr = socket.local_addr().unwrap();
        let control = FaultControl::new(0);
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = process.enter();
        let start = |identity, socket, control| {
            Node::start_as(identity, socket, control, NetOptions::default(), PeersOptions::default())
        };
        let b = start(first_identity, socket, control.clone());
        b.peers.set_members([a.member.clone()]);
        drop(entered);
        a.peers.set_members([b.member.clone()]);
        let (a_id, b_id) = (a.member.id, b.member.id);
        a.sees(Seen::Up(b_id)).await;
        // Gone without a word, as by SIGKILL.
        control.set_everybody(Rule { cut_in: true, cut_out: true, ..Rule::default() });
        process.shutdown_background();
        drop(b);
        let mut b = start(second_identity, bind_again(addr).await, quiet);
        b.peers.set_members([a.member.clone()]);
        let frame = Bytes::from_static(b"again");
        let linked = timeout(Duration::from_secs(4), async {
            loop {
                // Whatever is sent on the old link makes a find out that it is over.
                let _ = a.peers.send(b_id, Class::Foreground, &frame);
                match timeout(Duration::from_millis(20), b.told.recv()).await {
                    Ok(Some(Seen::Frames(from, ..))) => return assert_eq!(from, a_id),
                    _ => continue,
                }
            }
        });
        linked.await.unwrap_or_else(|_| panic!("{dying} came back, {staying} did not notice ({same_key})"));
        a.peers.shutdown(0).await;
    }
}

#[tokio::test]
async fn dials_back_off_and_the_circuit_shows_it() {
    let authority = authority("shop");
    let options = NetOptions { dial_timeout_ms: 20, ..NetOptions::default() };
    let a = Node::start_with(&authority, "n1", free_socket(), FaultControl::new(0), options);
    let silent = free_socket();
    let id = NodeId::from_name("n2");
    let addr = silent.local_addr().unwrap().to_string();
    a.peers.set_members([PeerMember { id, name: "n2".to_owned(), addr }]);
    timeout(Duration::from_secs(15), async {
        while a.peers.report()[0].circuit != Circuit::Open {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let report = &a.peers.report()[0];
    assert!(report.dials_failed >= 5 && report.trouble.contains("no answer"), "{report:?}");
    assert_eq!(a.peers.send(id, Class::Foreground, &Bytes::from_static(b"x")), Err(SendError::NotConnected));
    a.peers.kick(id);
    assert_eq!(a.peers.report()[0].circuit, Circuit::Closed);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_opens_its_circuit() {
    let authority = authority("shop");
    let mut a = {
        let options = NetOptions { queue_bytes_max: 64 << 10, stream_window_bytes: 64 << 10, ..NetOptions::default() };
        Node::start_with(&authority, "n1", free_socket(), FaultControl::new(0), options)
    };
    let control = FaultControl::new(0);
    let b = Node::start_with(&authority, "n2", free_socket(), control.clone(), NetOptions::default());
    introduce(&[&a, &b]);
    let b_id = b.member.id;
    a.sees(Seen::Up(b_id)).await;
    control.set_everybody(Rule { cut_in: true, cut_out: true, ..Rule::default() });
    let frame = Bytes::from(vec![1; 8 << 10]);
    let mut seen = Vec::new();
    timeout(Duration::from_secs(7), async {
        while seen.last() != Some(&SendError::CircuitOpen) {
            if let Err(error) = a.peers.send(b_id, Class::Foreground, &frame) {
                seen.push(error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(seen[0], SendError::Full);
    assert_eq!(a.peers.report()[0].circuit, Circuit::Open);
    control.heal();
    timeout(Duration::from_secs(15), async {
        while a.peers.send(b_id, Class::Foreground, &frame).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(a.peers.report()[0].circuit, Circuit::Closed);
}

#[tokio::test]
async fn clients_are_answered_on_their_link_and_bounded() {
    struct Quiet(mpsc::UnboundedSender<Vec<Bytes>>);
    impl Sink for Quiet {
        fn on_frames(&self, _: &Link, _: Class, frames: Vec<Bytes>) {
            let _ = self.0.send(frames);
        }
        fn on_datagram(&self, _: &Link, _: Bytes) {}
        fn on_closed(&self, _: &Link, _: &LinkEnd) {}
    }
    let authority = authority("shop");
    let socket = free_socket();
    let addr = socket.local_addr().unwrap().to_string();
    let options = PeersOptions { clients_max: 1, ..PeersOptions::default() };
    let endpoint = Endpoint::bind_socket(socket, identity(&authority, "n1", Role::Node), NetOptions::default());
    let (tell, mut told) = mpsc::unbounded_channel();
    let peers = Peers::start(NodeId::from_name("n1"), endpoint.unwrap(), Arc::new(Tell(tell)), options);
    peers.set_members([]);
    let client = Endpoint::client(identity(&authority, "ops", Role::Client), NetOptions::default()).unwrap();
    let (answer, mut answers) = mpsc::unbounded_channel();
    let sink = Arc::new(Quiet(answer));
    let link = client.dial(&addr, "n1", sink.clone()).await.unwrap();
    let ask = Bytes::from_static(b"ask");
    link.send(Class::Foreground, &ask).unwrap();
    assert_eq!(answers.recv().await, Some(vec![ask.clone()]));
    assert_eq!(told.recv().await, Some(Seen::Client(vec![ask])));
    let error = client.dial(&addr, "n1", sink.clone()).await.unwrap_err();
    assert!(error.to_string().contains("too many clients"), "{error}");
    assert_eq!(peers.refused().0, 1);
    link.close(CloseCode::Done, "");
    assert_eq!(told.recv().await, Some(Seen::ClientGone));
    assert_eq!(peers.clients(), 0);
    client.dial(&addr, "n1", sink).await.unwrap();
}
