//! Answers: what a node says to another is true when it says it, and is taken for an answer to nothing else.
//!
//! 1. A member that keeps a hint of a partition promises no floor in it, and does not say that it keeps none.
//! 2. An owner that holds a newer write says so when it acknowledges an older one.
//! 3. A ticket names one question over all processes of a node: an answer to an earlier process is not one to this.
//!
//! Judged is what stood on the disk before the turn and stands after it, since a turn takes several inputs in a row; of the second only
//! writes that came alone. Not judged: a write that somebody saw and overwrote before it came, which has no order to lose, what a node
//! says of itself to itself, and answers that were never sent.

use std::collections::BTreeMap;

use crate::data::clock::{Hlc, Stamp};
use crate::data::id::{Dot, Incarnation, NodeId, Partition};
use crate::data::path::{key_prefix, row_key};
use crate::data::row::{Register, Row};
use crate::node::replica::inspect;
use crate::node::turn::{Input, Outbox};
use crate::storage::{Space, Storage, StoreError};
use crate::wire::codec;
use crate::wire::message::{Answer, Body, Kept, PeerMessage, Question, Role, Ticket};

/// Everything is stamped above it.
const FIRST: Stamp = Stamp { hlc: Hlc(0), incarnation: Incarnation(0) };

/// What a turn's answers will be judged by.
#[derive(Default)]
pub struct Facts {
    /// Keys of the hints of partitions that are asked about.
    hints: BTreeMap<Partition, Vec<Vec<u8>>>,
    newer: Vec<Newer>,
}

/// A row that stands above a write that is being brought.
struct Newer {
    asker: NodeId,
    ticket: Ticket,
    row: Vec<u8>,
    dots: Vec<Dot>,
}

impl Facts {
    /// Before the turn.
    pub fn gather(disk: &dyn Storage, inputs: &[Input]) -> Result<Self, StoreError> {
        let mut facts = Self::default();
        for input in inputs {
            let Input::Message { from, message } = input else { continue };
            match &message.body {
                Body::Ask { question: Question::Floor { .. } | Question::Hints, .. } => {
                    facts.hints.insert(message.partition, hints(disk, message.partition)?);
                }
                Body::Replicate { ticket, delta, role: Role::Owner | Role::OwnerOfHint, .. } => {
                    if inputs.iter().filter(|other| brings(other, message.partition)).count() > 1 {
                        continue;
                    }
                    let prefix = key_prefix(message.partition, &delta.key);
                    for mutation in &delta.mutations {
                        for effect in &mutation.effects {
                            let Some(stamp) = effect.put.as_ref().and_then(|put| put.stamp()) else { continue };
                            let row = row_key(&prefix, &effect.path);
                            let dots = dots_above(disk, &row, stamp)?;
                            if !dots.is_empty() && !inspect(disk, message.partition)?.dead.contains(&mutation.dot) {
                                facts.newer.push(Newer { asker: *from, ticket: *ticket, row, dots });
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// After its commit.
    pub fn judge(&self, disk: &dyn Storage, out: &Outbox) -> Result<(), String> {
        let unread = |error: StoreError| format!("a disk that works is not read: {error}");
        for (to, _, PeerMessage { partition, body }) in &out.sends {
            match body {
                Body::Answered { answer: answer @ (Answer::Floor(Some(_)) | Answer::Hints(false)), .. } => {
                    let kept = hints(disk, *partition).map_err(unread)?;
                    if self.hints.get(partition).is_some_and(|hints| hints.iter().any(|hint| kept.contains(hint))) {
                        return Err(format!("{answer:?} of {partition:?} is said by a node that keeps hints there"));
                    }
                }
                Body::ReplicateAck { ticket, result: Ok(Kept { newer: None, .. }) } => {
                    for newer in self.newer.iter().filter(|newer| newer.asker == *to && newer.ticket == *ticket) {
                        let above = dots_above(disk, &newer.row, FIRST).map_err(unread)?;
                        if let Some(dot) = newer.dots.iter().find(|dot| above.contains(dot)) {
                            return Err(format!(
                                "a write was acknowledged as the newest, and {dot:?} of {partition:?} stood above it"
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// May an input change rows of this partition?
fn brings(input: &Input, partition: Partition) -> bool {
    match input {
        Input::Message { message, .. } if message.partition == partition => matches!(
            message.body,
            Body::Replicate { .. }
                | Body::Repair { .. }
                | Body::PullReply { .. }
                | Body::SyncPage { .. }
                | Body::ReadReply { .. }
                | Body::ReplicateAck { .. }
                | Body::Forward { .. }
        ),
        Input::Request { .. } => true,
        _ => false,
    }
}

fn hints(disk: &dyn Storage, partition: Partition) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut hints = Vec::new();
    let (from, to) = (partition.0.to_be_bytes(), (partition.0 + 1).to_be_bytes());
    disk.scan(Space::Hints, &from, &to, &mut |key, _| {
        hints.push(key.to_vec());
        true
    })?;
    Ok(hints)
}

/// The dots of what stands in a row above a stamp.
fn dots_above(disk: &dyn Storage, row: &[u8], stamp: Stamp) -> Result<Vec<Dot>, StoreError> {
    let Some(value) = disk.get(Space::Rows, row)? else { return Ok(Vec::new()) };
    let above = |register: &Register| (register.stamp > stamp).then_some(register.dot);
    Ok(match codec::decode::<Row>(&value, 1 << 20) {
        Ok(Row::Register(register)) => above(&register).into_iter().collect(),
        Ok(Row::Field(entries)) => entries.iter().filter_map(above).collect(),
        Ok(Row::Deadline(deadline)) if deadline.stamp > stamp => vec![deadline.dot],
        _ => Vec::new(),
    })
}

/// Which process of a node asked what first.
#[derive(Default)]
pub struct Tickets(BTreeMap<(usize, Ticket), u64>);

impl Tickets {
    /// A process of a node sends this.
    pub fn sent(&mut self, node: usize, process: u64, body: &Body) -> Result<(), String> {
        let ticket = match body {
            Body::Replicate { ticket, .. }
            | Body::Repair { ticket: Some(ticket), .. }
            | Body::Read { ticket, .. }
            | Body::AskTallied { ticket, .. }
            | Body::Forward { ticket, .. }
            | Body::Scan { ticket, .. }
            | Body::Ask { number: ticket, .. }
            | Body::Compare { number: ticket, .. } => *ticket,
            _ => return Ok(()),
        };
        match *self.0.entry((node, ticket)).or_insert(process) {
            first if first == process => Ok(()),
            first => Err(format!("ticket {ticket:x} of node {node} was used by process {first} and by {process}")),
        }
    }
}
