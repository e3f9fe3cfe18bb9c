//! Who owns which slot, by the servers' own word, shared by all connections. A server without slots answers every key.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use redis_protocol::resp2::types::RangeFrame;
use tokio::time::timeout;

use super::wire::Wire;

const SLOTS: usize = 16_384;
/// The slots are asked for anew at most this often.
const REFRESH_EVERY: Duration = Duration::from_millis(250);
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that could not be reached is left alone for so long.
const AWAY_FOR: Duration = Duration::from_millis(200);
/// Nodes that are remembered; more than any cluster has.
const NODES_MAX: usize = 1_000;

/// Nodes and what they own. A node keeps its place once it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    pub nodes: Vec<String>,
    /// A place in `nodes` per slot; empty: any node answers any key.
    owners: Vec<u16>,
}

impl Map {
    pub fn owner(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).map(|at| usize::from(*at))
    }

    fn place(&mut self, address: String) -> u16 {
        let found = self.nodes.iter().position(|known| *known == address);
        let at = found.unwrap_or_else(|| {
            if self.nodes.len() < NODES_MAX {
                self.nodes.push(address);
            }
            self.nodes.len() - 1
        });
        at as u16
    }
}

/// What all connections share.
pub struct Shared {
    began: Instant,
    map: RwLock<Arc<Map>>,
    version: AtomicU32,
    refreshed_ms: AtomicU64,
    /// Any node answers any key, so that another one is asked when the owner is away.
    pub any_answers: bool,
    away_until_ms: Vec<AtomicU64>,
}

impl Shared {
    /// Asks the first of the addresses that answers. `any_answers`: see there.
    pub async fn open(addresses: &[String], any_answers: bool) -> io::Result<Self> {
        let map = Map { nodes: addresses.to_vec(), owners: Vec::new() };
        let shared = Self {
            began: Instant::now(),
            map: RwLock::new(Arc::new(map)),
            version: AtomicU32::new(1),
            refreshed_ms: AtomicU64::new(0),
            any_answers,
            away_until_ms: (0..NODES_MAX).map(|_| AtomicU64::new(0)).collect(),
        };
        shared.ask().await?;
        Ok(shared)
    }

    /// The map if it is another than that of `version`.
    pub fn newer(&self, version: &mut u32) -> Option<Arc<Map>> {
        let now = self.version.load(Ordering::Acquire);
        if now == *version {
            return None;
        }
        *version = now;
        Some(self.read())
    }

    fn read(&self) -> Arc<Map> {
        self.map.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn put(&self, map: Map) {
        let mut held = self.map.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if **held != map {
            *held = Arc::new(map);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// By a server's word a slot has moved. Gives the owner's place.
    pub fn moved(&self, slot: u16, address: &str) -> usize {
        let mut map = (*self.read()).clone();
        let at = map.place(address.to_owned());
        if let Some(owner) = map.owners.get_mut(usize::from(slot)) {
            *owner = at;
        }
        self.put(map);
        usize::from(at)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub fn set_away(&self, node: usize) {
        if let Some(until) = self.away_until_ms.get(node) {
            until.store(self.now_ms() + AWAY_FOR.as_millis() as u64, Ordering::Relaxed);
        }
    }

    pub fn is_away(&self, node: usize) -> bool {
        self.away_until_ms.get(node).is_some_and(|until| until.load(Ordering::Relaxed) > self.now_ms())
    }

    /// Asks for the slots anew, unless somebody has just done so.
    pub async fn refresh(&self) {
        let (now, last) = (self.now_ms(), self.refreshed_ms.load(Ordering::Relaxed));
        let due = now >= last + REFRESH_EVERY.as_millis() as u64;
        if due && self.refreshed_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // When nobody answers the old map stays, and the next failure asks again.
            let _ = self.ask().await;
        }
    }

    async fn ask(&self) -> io::Result<()> {
        let known = self.read();
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to ask");
        for address in &known.nodes {
            match timeout(DIAL_TIMEOUT, Self::ask_one(address, &known)).await {
                Ok(Ok(map)) => {
                    self.put(map);
                    return Ok(());
                }
                Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
            }
        }
        Err(last)
    }

    async fn ask_one(address: &str, known: &Map) -> io::Result<Map> {
        let mut wire = Wire::open(address).await?;
        let reply = wire.ask(&[b"CLUSTER", b"SLOTS"]).await?;
        Ok(match reply {
            RangeFrame::Array(entries) if !entries.is_empty() => {
                let mut map = Map { nodes: known.nodes.clone(), owners: vec![0; SLOTS] };
                for entry in &entries {
                    let (first, last, owner) = slots(&wire, entry, address)
                        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "CLUSTER SLOTS: not as in Redis"))?;
                    let at = map.place(owner);
                    map.owners[first..=last].fill(at);
                }
                map
            }
            // A single server, or one that is in no cluster yet.
            _ => Map { nodes: known.nodes.clone(), owners: Vec::new() },
        })
    }
}

/// First, last and owner's address of an entry of `CLUSTER SLOTS`.
fn slots(wire: &Wire, entry: &RangeFrame, asked: &str) -> Option<(usize, usize, String)> {
    let RangeFrame::Array(parts) = entry else { return None };
    let [RangeFrame::Integer(first), RangeFrame::Integer(last), RangeFrame::Array(owner), ..] = &parts[..] else {
        return None;
    };
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    let [host, RangeFrame::Integer(port), ..] = &owner[..] else { return None };
    let host = match host {
        RangeFrame::BulkString(range) if range.0 < range.1 => wire.text(*range),
        // It does not know its own address: the one at which it was asked.
        _ => asked.rsplit_once(':')?.0.to_owned(),
    };
    (first <= last && last < SLOTS).then(|| (first, last, format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn server(reply: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 64];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(reply).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn slots_are_learned_and_moved() {
        let reply = b"*2\r\n*3\r\n:0\r\n:99\r\n*2\r\n$3\r\n1.1\r\n:7\r\n*3\r\n:100\r\n:16383\r\n*2\r\n$-1\r\n:8\r\n";
        let address = server(reply).await;
        let shared = Shared::open(std::slice::from_ref(&address), false).await.expect("a server");
        let mut version = 0;
        let map = shared.newer(&mut version).expect("the first");
        assert_eq!(map.nodes, [address, "1.1:7".into(), "127.0.0.1:8".into()]);
        assert_eq!(
            (map.owner(0), map.owner(99), map.owner(100), map.owner(16_383)),
            (Some(1), Some(1), Some(2), Some(2))
        );
        assert!(shared.newer(&mut version).is_none());
        assert_eq!(shared.moved(99, "1.1:9"), 3);
        let map = shared.newer(&mut version).expect("a newer");
        assert_eq!((map.owner(98), map.owner(99)), (Some(1), Some(3)));
    }

    #[tokio::test]
    async fn a_server_without_slots_answers_every_key() {
        let address = server(b"-ERR This instance has cluster support disabled\r\n").await;
        let shared = Shared::open(&[address], false).await.expect("a server");
        assert_eq!(shared.newer(&mut 0).expect("the first").owner(5), None);
        let nonsense = server(b"*1\r\n:5\r\n").await;
        assert!(Shared::open(&[nonsense], false).await.is_err());
    }
}
