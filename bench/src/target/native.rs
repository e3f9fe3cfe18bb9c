//! Tidewater's own client: QUIC, straight to an owner, tried again under the same operation id, a receipt with every answer.

use bytes::Bytes;
use futures_util::future::join_all;
use tidewater::data::consistency::{Ack, Consistency, Level, Receipt};
use tidewater::data::decimal::Decimal;
use tidewater::data::id::{NodeId, Partition};
use tidewater::data::op::{Condition, Op, Outcome as Effect, Reply, RequestError, SetExpiry};
use tidewater::{Client, ClientError};

use super::{Answer, Backing, Call, Refusal, Target, Told, Verb};
use crate::load::values::{Name, Seen, Value, write_number};

/// One caller. Callers of a thread share links.
pub struct Native {
    client: Client,
    careful: Client,
    partitions: u16,
    /// Members, in the layout's order.
    members: Vec<NodeId>,
}

impl Native {
    pub fn new(client: &Client, consistency: Consistency) -> Self {
        let all = Consistency { read: Level::All, ..consistency };
        let layout = client.layout().0;
        let members = layout.members.iter().map(|member| member.id).collect();
        let partitions = layout.partitions.max(1);
        Self { client: client.with(consistency), careful: client.with(all), partitions, members }
    }

    async fn ask_one(&self, call: &Call) -> Answer {
        if call.verb == Verb::Scan { self.scan(call).await } else { ask(&self.client, call, &self.members).await }
    }

    async fn scan(&self, call: &Call) -> Answer {
        let partition = Partition((call.number % u32::from(self.partitions)) as u16);
        match self.client.scan_page(partition, None, call.part).await {
            Ok(page) => {
                let keys = page.keys.iter().filter_map(|(key, _)| Name::parse(call.value.run, &key.bytes));
                Answer::plain(Ok(Told::Keys(keys.collect())))
            }
            Err(error) => Answer::plain(Err(refusal(&error))),
        }
    }
}

impl Target for Native {
    async fn call(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
        match calls {
            [call] => answers.push(self.ask_one(call).await),
            calls => answers.extend(join_all(calls.iter().map(|call| self.ask_one(call))).await),
        }
    }

    async fn call_all(&mut self, calls: &[Call], answers: &mut Vec<Answer>) {
        answers.extend(join_all(calls.iter().map(|call| ask(&self.careful, call, &self.members))).await);
    }
}

async fn ask(client: &Client, call: &Call, members: &[NodeId]) -> Answer {
    match client.request(call.key.as_bytes(), op(call)).await {
        Ok(answer) => {
            let receipt = Some(backing(&answer.receipt, members));
            Answer { told: told(call, answer.value), receipt, sent_once: answer.attempts <= 1 }
        }
        Err(error) => Answer::plain(Err(refusal(&error))),
    }
}

fn backing(receipt: &Receipt, members: &[NodeId]) -> Backing {
    let place = |ack: &Ack| members.iter().take(64).position(|member| *member == ack.node);
    let nodes = receipt.acks.iter().filter_map(place).fold(0, |nodes, at| nodes | 1 << at);
    Backing { owners: receipt.owners() as u8, stand_ins: receipt.stand_ins() as u8, nodes, doubted: receipt.doubted }
}

fn op(call: &Call) -> Op {
    let part = || {
        let mut digits = [0; 10];
        let length = write_number(&mut digits, call.part);
        Bytes::copy_from_slice(&digits[..length])
    };
    let value = || {
        let mut bytes = Vec::with_capacity(call.value.length as usize);
        call.value.write(&mut bytes);
        Bytes::from(bytes)
    };
    let one = || Decimal::from_integer(1);
    match call.verb {
        Verb::Get | Verb::GetCounter | Verb::Scan => Op::Get,
        Verb::Set => Op::Set { value: value(), expiry: SetExpiry::Never, condition: Condition::Always, old: false },
        Verb::Delete => Op::Delete,
        Verb::Increment => Op::Increment { by: one(), integer: true },
        Verb::Add => Op::SetAdd { members: vec![part()] },
        Verb::Remove => Op::SetRemove { members: vec![part()] },
        Verb::Members => Op::SetMembers,
        Verb::Contains => Op::SetContains { members: vec![part()] },
        Verb::SetField => Op::HashSet { fields: vec![(part(), value())], absent_only: false },
        Verb::GetField | Verb::GetFieldCounter => Op::HashGet { fields: vec![part()] },
        Verb::IncrementField => Op::HashIncrement { field: part(), by: one(), integer: true },
        Verb::Siblings => Op::SiblingsGet,
        Verb::PutSibling => Op::SiblingsPut { value: value(), context: call.context.clone() },
    }
}

fn told(call: &Call, reply: Reply) -> Result<Told, Refusal> {
    let seen = |bytes: &Option<Bytes>| seen(call, bytes.as_deref());
    Ok(match (call.verb, reply) {
        (Verb::Get, Reply::Value(bytes)) => Told::Value(seen(&bytes)),
        (Verb::GetField, Reply::Values(each)) => Told::Value(seen(each.first().unwrap_or(&None))),
        (Verb::GetCounter, Reply::Value(bytes)) => Told::Sum(sum(bytes.as_deref())),
        (Verb::GetFieldCounter, Reply::Values(each)) => Told::Sum(sum(each.first().and_then(Option::as_deref))),
        (Verb::Members, Reply::Members(members)) => {
            let numbers: Vec<u32> = members.iter().filter_map(|member| number(member)).collect();
            let foreign = numbers.len() < members.len();
            Told::Members(numbers, foreign)
        }
        (Verb::Contains, Reply::Bools(each)) => Told::There(each.first().copied().unwrap_or(false)),
        (Verb::Remove, Reply::Integer(count)) => Told::There(count > 0),
        (Verb::Siblings | Verb::PutSibling, Reply::Siblings { values, context }) => {
            Told::Siblings(values.iter().map(|value| seen(&Some(value.clone()))).collect(), context)
        }
        (verb, _) if !verb.is_read() => Told::Done,
        _ => return Err(Refusal { why: "an answer that does not fit", may_have_happened: false }),
    })
}

/// What the bytes under a string or field are.
pub(super) fn seen(call: &Call, bytes: Option<&[u8]>) -> Seen {
    bytes.map_or(Seen::Nothing, |bytes| Value::parse(call.value.run, call.value.item, bytes))
}

/// A counter's sum; nothing is 0, and what is no number is below every sum that there may be.
pub(super) fn sum(bytes: Option<&[u8]>) -> i64 {
    let text = bytes.map_or(Ok("0"), std::str::from_utf8);
    text.ok().and_then(|text| text.parse().ok()).unwrap_or(-1)
}

pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn refusal(error: &ClientError) -> Refusal {
    let why = match error {
        ClientError::Refused { error, .. } => match error {
            RequestError::Unavailable { .. } => "not enough owners",
            RequestError::Timeout { .. } => "timeout",
            RequestError::Overloaded(_) => "overloaded",
            RequestError::StoreFailed { .. } => "store failed",
            RequestError::ClockAhead { .. } => "clock ahead",
            RequestError::Disconnected { .. } => "disconnected",
            RequestError::Stopping { .. } => "stopping",
            RequestError::OpIdExpired { .. } => "operation id expired",
            RequestError::TooManySiblings { .. } => "too many siblings",
            RequestError::BadConsistency(_) => "impossible consistency",
            _ => "refused",
        },
        ClientError::NoAnswer { .. } => "no answer in time",
        ClientError::NoSeed { .. } => "no node answered",
        _ => "an answer that does not fit",
    };
    Refusal { why, may_have_happened: error.outcome() == Effect::Unknown }
}
