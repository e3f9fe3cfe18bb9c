//! A target that speaks Redis's protocol: one Redis, a Redis Cluster, or Tidewater's RESP door.
//!
//! Each caller has a connection to each node that it needs. A batch of requests goes out in one write per node. In a cluster the slots
//! say who is asked; `MOVED` and `ASK` are followed. Requests are sent once: what breaks on the way has an unknown outcome.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis_protocol::resp2::types::RangeFrame;
use tidewater::ring::slot::slot;
use tokio::time::timeout;

use super::native::{number, seen, sum};
use super::slots::{Map, Shared};
use super::wire::{Wire, bulk, header};
use super::{Answer, Call, Refusal, Target, Told, Verb};
use crate::load::values::{Name, write_number};

/// How often `MOVED` or `ASK` is followed for one request.
const HOPS_MAX: usize = 5;
/// Answers of servers that did nothing. Anything else may have happened.
const NOT_DONE: [(&str, &str); 16] = [
    ("MOVED", "moved on and on"),
    ("ASK", "moved on and on"),
    ("CLUSTERDOWN", "CLUSTERDOWN"),
    ("LOADING", "LOADING"),
    ("MASTERDOWN", "MASTERDOWN"),
    ("READONLY", "READONLY"),
    ("MISCONF", "MISCONF"),
    ("OOM", "OOM"),
    ("TRYAGAIN", "TRYAGAIN"),
    ("WRONGTYPE", "WRONGTYPE"),
    ("NOAUTH", "NOAUTH"),
    ("NOREPLICAS", "not enough owners"),
    ("OVERLOADED", "overloaded"),
    ("CLOCKAHEAD", "clock ahead"),
    ("OPIDEXPIRED", "operation id expired"),
    ("ERR", "ERR"),
];
const NO_ANSWER: Refusal = Refusal { why: "no answer in time", may_have_happened: true };
const BROKEN: Refusal = Refusal { why: "disconnected", may_have_happened: true };
const NOT_SENT: Refusal = Refusal { why: "cannot connect", may_have_happened: false };

/// What every connection is opened with.
#[derive(Clone, Debug)]
pub struct Manner {
    pub timeout: Duration,
    /// Replicas that must have a write, by `WAIT`; 0: do not ask.
    pub wait: u32,
    /// Sent on each new connection: `TW.CONSISTENCY ...`.
    pub greeting: Option<Vec<String>>,
    /// The same for the last look.
    pub greeting_all: Option<Vec<String>>,
}

/// One caller.
pub struct Resp {
    shared: Arc<Shared>,
    manner: Arc<Manner>,
    map: Arc<Map>,
    version: u32,
    wires: Vec<Option<Wire>>,
    careful: bool,
    /// Whom it asks when any node answers.
    home: usize,
    /// Per call of the batch: which node, or why none.
    routes: Vec<Result<usize, Refusal>>,
}

impl Resp {
    pub fn new(shared: Arc<Shared>, manner: Arc<Manner>, number: usize) -> Self {
        let mut version = 0;
        let map = shared.newer(&mut version).unwrap_or_default();
        let home = number % map.nodes.len().max(1);
        Self { shared, manner, map, version, wires: Vec::new(), careful: false, home, routes: Vec::new() }
    }

    async fn batch(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
        if let Some(map) = self.shared.newer(&mut self.version) {
            self.map = map;
        }
        let first = answers.len();
        self.routes.clear();
        for call in calls {
            let route = self.route(call);
            let opened = match self.wire(route).await {
                Ok(()) => Ok(route),
                Err(refusal) => match self.elsewhere(route).await {
                    Some(other) => Ok(other),
                    None => Err(refusal),
                },
            };
            if let Ok(node) = opened
                && let Some(wire) = &mut self.wires[node]
            {
                encode(wire.out(), call);
                if self.manner.wait > 0 && !call.verb.is_read() {
                    wait(wire.out(), self.manner.wait);
                }
            }
            self.routes.push(opened);
        }
        for node in 0..self.wires.len() {
            let Some(wire) = &mut self.wires[node] else { continue };
            if !wire.out().is_empty() && wire.send().await.is_err() {
                self.lose(node).await;
            }
        }
        for (at, call) in calls.iter().enumerate() {
            let told = match self.routes[at] {
                Ok(node) => self.take(node, call).await,
                Err(refusal) => Err(refusal),
            };
            answers.push(Answer::plain(told));
        }
        // What has moved is asked again, one by one, after the batch.
        for (call, answer) in calls.iter().zip(&mut answers[first..]) {
            if let Err(Refusal { why: FOLLOW, .. }) = answer.told {
                answer.told = self.follow(call).await;
            }
        }
    }

    fn route(&self, call: &Call) -> usize {
        let owner = match call.verb {
            Verb::Scan => None,
            _ => self.map.owner(slot(call.key.as_bytes())),
        };
        owner.unwrap_or(self.home)
    }

    /// Another node when this one is away, where any node answers.
    async fn elsewhere(&mut self, away: usize) -> Option<usize> {
        if !self.shared.any_answers && self.map.owner(0).is_some() {
            return None;
        }
        for step in 1..self.map.nodes.len() {
            let other = (away + step) % self.map.nodes.len();
            if self.wire(other).await.is_ok() {
                self.home = other;
                return Some(other);
            }
        }
        None
    }

    /// Sees to it that there is a connection.
    async fn wire(&mut self, node: usize) -> Result<(), Refusal> {
        if self.wires.len() <= node {
            self.wires.resize_with(node + 1, || None);
        }
        if self.wires[node].is_some() {
            return Ok(());
        }
        if self.shared.is_away(node) {
            return Err(NOT_SENT);
        }
        let Some(address) = self.map.nodes.get(node).cloned() else { return Err(NOT_SENT) };
        match timeout(self.manner.timeout, self.open(&address)).await {
            Ok(Ok(wire)) => {
                self.wires[node] = Some(wire);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                self.shared.set_away(node);
                self.shared.refresh().await;
                Err(NOT_SENT)
            }
        }
    }

    async fn open(&self, address: &str) -> io::Result<Wire> {
        let mut wire = Wire::open(address).await?;
        let greeting = if self.careful { &self.manner.greeting_all } else { &self.manner.greeting };
        if let Some(words) = greeting {
            let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
            if let RangeFrame::Error(range) = wire.ask(&words).await? {
                return Err(io::Error::other(wire.text(range)));
            }
        }
        Ok(wire)
    }

    async fn lose(&mut self, node: usize) {
        self.wires[node] = None;
        self.shared.refresh().await;
    }

    async fn take(&mut self, node: usize, call: &Call) -> Result<Told, Refusal> {
        // A connection that broke earlier in the batch took the replies of the others with it.
        let Some(wire) = &mut self.wires[node] else { return Err(BROKEN) };
        let waits = self.manner.wait > 0 && !call.verb.is_read();
        let came = timeout(self.manner.timeout, async {
            let told = wire.reply().await.map(|frame| told(wire, call, frame))?;
            if !waits {
                return Ok(told);
            }
            let replicas = wire.reply().await?;
            let enough = matches!(replicas, RangeFrame::Integer(count) if count >= i64::from(self.manner.wait));
            let few = Refusal { why: "too few replicas", may_have_happened: true };
            Ok::<_, io::Error>(if enough { told } else { told.and(Err(few)) })
        });
        let failed = match came.await {
            Ok(Ok(told)) => return told,
            Ok(Err(_)) => BROKEN,
            Err(_) => NO_ANSWER,
        };
        self.lose(node).await;
        Err(Refusal { may_have_happened: !call.verb.is_read(), ..failed })
    }

    /// Asks where the answer before sent us.
    async fn follow(&mut self, call: &Call) -> Result<Told, Refusal> {
        let moved = Refusal { why: "moved on and on", may_have_happened: false };
        let mut to = self.route(call);
        let mut asking = false;
        for _ in 0..HOPS_MAX {
            self.wire(to).await?;
            let Some(wire) = &mut self.wires[to] else { return Err(NOT_SENT) };
            if asking {
                bulk_command(wire.out(), &[b"ASKING"]);
            }
            encode(wire.out(), call);
            let waits = self.manner.wait > 0 && !call.verb.is_read();
            if waits {
                wait(wire.out(), self.manner.wait);
            }
            if wire.send().await.is_err() || (asking && wire.reply().await.is_err()) {
                self.lose(to).await;
                return Err(BROKEN);
            }
            let Ok(Ok(frame)) = timeout(self.manner.timeout, wire.reply()).await else {
                self.lose(to).await;
                return Err(NO_ANSWER);
            };
            let target = if let RangeFrame::Error(range) = frame { redirection(&wire.text(range)) } else { None };
            let told = told(wire, call, frame);
            if waits {
                let enough = match timeout(self.manner.timeout, wire.reply()).await {
                    Ok(Ok(RangeFrame::Integer(count))) => count >= i64::from(self.manner.wait),
                    _ => false,
                };
                if !enough && target.is_none() {
                    return told.and(Err(Refusal { why: "too few replicas", may_have_happened: true }));
                }
            }
            let Some((is_ask, slot, address)) = target else { return told };
            asking = is_ask;
            to = self.shared.moved(if is_ask { u16::MAX } else { slot }, &address);
            if let Some(map) = self.shared.newer(&mut self.version) {
                self.map = map;
            }
        }
        Err(moved)
    }
}

impl Target for Resp {
    async fn call(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
        self.batch(calls, answers).await;
    }

    async fn call_all(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
        if !self.careful {
            self.careful = true;
            self.wires.clear();
        }
        self.batch(calls, answers).await;
    }
}

/// Marks an answer that says where to go.
const FOLLOW: &str = "follow";

/// Whether it is `ASK`, the slot and the address of `MOVED 7 host:port`.
fn redirection(text: &str) -> Option<(bool, u16, String)> {
    let mut words = text.split(' ');
    let is_ask = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    Some((is_ask, words.next()?.parse().ok()?, words.next()?.to_owned()))
}

fn bulk_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    super::wire::command(out, words);
}

fn wait(out: &mut Vec<u8>, replicas: u32) {
    let mut digits = [0; 10];
    let length = write_number(&mut digits, replicas);
    bulk_command(out, &[b"WAIT", &digits[..length], b"1000"]);
}

fn encode(out: &mut Vec<u8>, call: &Call) {
    let mut digits = [0; 10];
    let length = write_number(&mut digits, call.part);
    let part = &digits[..length];
    let key = call.key.as_bytes();
    let words: &[&[u8]] = match call.verb {
        Verb::Get | Verb::GetCounter => &[b"GET", key],
        Verb::Delete => &[b"DEL", key],
        Verb::Increment => &[b"INCR", key],
        Verb::Add => &[b"SADD", key, part],
        Verb::Remove => &[b"SREM", key, part],
        Verb::Members => &[b"SMEMBERS", key],
        Verb::Contains => &[b"SISMEMBER", key, part],
        Verb::GetField | Verb::GetFieldCounter => &[b"HGET", key, part],
        Verb::IncrementField => &[b"HINCRBY", key, part, b"1"],
        Verb::Scan => &[b"SCAN", b"0", b"COUNT", part],
        Verb::Set => return with_value(out, call, &[b"SET", key]),
        Verb::SetField => return with_value(out, call, &[b"HSET", key, part]),
        // Refused before the run begins: Redis has no words for it.
        Verb::Siblings | Verb::PutSibling => &[b"PING"],
    };
    bulk_command(out, words);
}

/// The value is made where it is sent from.
fn with_value(out: &mut Vec<u8>, call: &Call, words: &[&[u8]]) {
    header(out, b'*', words.len() + 1);
    for word in words {
        bulk(out, word);
    }
    header(out, b'$', call.value.length as usize);
    call.value.write(out);
    out.extend_from_slice(b"\r\n");
}

fn told(wire: &Wire, call: &Call, frame: RangeFrame) -> Result<Told, Refusal> {
    if let RangeFrame::Error(range) = frame {
        return Err(refusal(wire.bytes(range), call));
    }
    let bytes = match &frame {
        RangeFrame::BulkString(range) | RangeFrame::SimpleString(range) => Some(wire.bytes(*range)),
        _ => None,
    };
    Ok(match (call.verb, &frame) {
        (Verb::Get | Verb::GetField, _) => Told::Value(seen(call, bytes)),
        (Verb::GetCounter | Verb::GetFieldCounter, _) => Told::Sum(sum(bytes)),
        (Verb::Contains | Verb::Remove, RangeFrame::Integer(count)) => Told::There(*count > 0),
        (Verb::Members, RangeFrame::Array(frames)) => {
            let numbers: Vec<u32> = frames.iter().filter_map(|frame| number(text(wire, frame)?)).collect();
            let foreign = numbers.len() < frames.len();
            Told::Members(numbers, foreign)
        }
        (Verb::Scan, RangeFrame::Array(parts)) => match parts.get(1) {
            Some(RangeFrame::Array(keys)) => {
                Told::Keys(keys.iter().filter_map(|key| Name::parse(call.value.run, text(wire, key)?)).collect())
            }
            _ => return Err(Refusal { why: "an answer that does not fit", may_have_happened: false }),
        },
        (verb, _) if !verb.is_read() => Told::Done,
        _ => return Err(Refusal { why: "an answer that does not fit", may_have_happened: false }),
    })
}

fn text<'a>(wire: &'a Wire, frame: &RangeFrame) -> Option<&'a [u8]> {
    match frame {
        RangeFrame::BulkString(range) | RangeFrame::SimpleString(range) => Some(wire.bytes(*range)),
        _ => None,
    }
}

fn refusal(text: &[u8], call: &Call) -> Refusal {
    let text = String::from_utf8_lossy(text);
    if redirection(&text).is_some() {
        return Refusal { why: FOLLOW, may_have_happened: false };
    }
    let word = text.split(' ').next().unwrap_or_default();
    let known = NOT_DONE.iter().find(|(known, _)| *known == word);
    let why = match known {
        Some((_, why)) => why,
        None => match word {
            "TIMEOUT" => "timeout",
            "STOREFAILED" => "store failed",
            "DISCONNECTED" => "disconnected",
            "STOPPING" => "stopping",
            _ => "refused",
        },
    };
    let may_have_happened = !call.verb.is_read() && (known.is_none() || text.contains("may have happened"));
    Refusal { why, may_have_happened }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::values::Value;

    fn call(verb: Verb) -> Call {
        let value = Value { run: 1, item: 2, sequence: 3, length: 16 };
        Call { verb, key: Name::of(1, 2), number: 2, part: 7, value, context: None }
    }

    #[test]
    fn redirections_are_read() {
        assert_eq!(redirection("MOVED 7 a:1"), Some((false, 7, "a:1".into())));
        assert_eq!(redirection("ASK 7 a:1"), Some((true, 7, "a:1".into())));
        assert_eq!(redirection("MOVED x a:1"), None);
        assert_eq!(redirection("ERR MOVED 7 a:1"), None);
    }

    #[test]
    fn a_write_may_have_happened_unless_the_server_says_that_it_has_not() {
        let of = |text: &str, verb| refusal(text.as_bytes(), &call(verb)).may_have_happened;
        assert!(!of("CLUSTERDOWN the cluster is down", Verb::Set));
        assert!(!of("NOREPLICAS needs 2", Verb::Set));
        assert!(of("NOREPLICAS needs 2 (it may have happened: read)", Verb::Set));
        assert!(of("TIMEOUT 1 of 2 answered", Verb::Increment));
        assert!(of("SOMETHING else", Verb::Set));
        assert!(!of("TIMEOUT 1 of 2 answered", Verb::Get));
    }

    #[test]
    fn values_are_written_in_place() {
        let mut out = Vec::new();
        encode(&mut out, &call(Verb::SetField));
        let mut expected = b"*4\r\n$4\r\nHSET\r\n$11\r\nb00000001:2\r\n$1\r\n7\r\n$16\r\n".to_vec();
        call(Verb::Set).value.write(&mut expected);
        expected.extend_from_slice(b"\r\n");
        assert_eq!(out, expected);
    }
}
