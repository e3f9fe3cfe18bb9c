//! What a request asks for and what it achieved: four orthogonal choices in, a receipt out.
//!
//! Acks (how many), placement (which zones; owners only or stand-ins too) and durability (how many must have fsynced) are
//! separate, so that no name hides a combination. Impossible combinations are refused when they are set, by [`Consistency::check`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::NodeId;

/// How many replicas must answer. With N owners a quorum is N / 2 + 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Level {
    /// Writes only: kept on disk by any node at all, owner or stand-in.
    Any,
    /// This many.
    Count(u8),
    /// A majority of the owners.
    Quorum,
    /// Every owner.
    All,
    /// A majority of the owners in the coordinator's zone.
    LocalQuorum,
    /// A majority of the owners in each zone that has owners.
    EachQuorum,
}

/// One request's choices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Consistency {
    /// Answers a read waits for.
    pub read: Level,
    /// Acknowledgements a write waits for.
    pub write: Level,
    /// Of those, how many must have fsynced; `None` waits for no fsync.
    pub durable: Option<Level>,
    /// Least number of distinct zones among the acknowledgements; 1 asks nothing.
    pub zones: u8,
    /// True: stand-ins do not count towards the level.
    pub owners_only: bool,
}

impl Default for Consistency {
    fn default() -> Self {
        Self { read: Level::Quorum, write: Level::Quorum, durable: None, zones: 1, owners_only: false }
    }
}

impl Consistency {
    pub const ONE: Self =
        Self { read: Level::Count(1), write: Level::Count(1), durable: None, zones: 1, owners_only: false };

    /// Refuses what can never be met with `replicas` owners. The sentence names the option and what is allowed.
    pub fn check(&self, replicas: u8) -> Result<(), String> {
        if self.read == Level::Any {
            return Err("READ any is not a level: a read needs an owner to be authoritative; use one".into());
        }
        for (name, level) in [("READ", Some(self.read)), ("WRITE", Some(self.write)), ("DURABLE", self.durable)] {
            if let Some(Level::Count(count)) = level
                && (count == 0 || count > replicas)
            {
                return Err(format!("{name} {count} is out of range: with {replicas} replicas use 1 to {replicas}"));
            }
        }
        if self.durable == Some(Level::Any) {
            return Err("DURABLE any is not a level: use a number, quorum or all".into());
        }
        if self.write == Level::Any && self.owners_only {
            return Err("WRITE any counts stand-ins: it contradicts OWNERS yes".into());
        }
        if let Some(durable) = self.durable
            && durable.needed(replicas) > self.write.needed(replicas)
        {
            return Err("DURABLE asks for more fsyncs than WRITE asks for acknowledgements: raise WRITE".into());
        }
        if self.zones == 0 || self.zones > self.write.needed(replicas).max(1) {
            return Err(format!(
                "ZONES {} cannot be met: with this WRITE level use 1 to {}",
                self.zones,
                self.write.needed(replicas).max(1)
            ));
        }
        Ok(())
    }
}

impl Level {
    /// Acknowledgements this level takes of `replicas` owners when zones do not matter.
    pub fn needed(self, replicas: u8) -> u8 {
        match self {
            Level::Any => 1,
            Level::Count(count) => count,
            Level::Quorum | Level::LocalQuorum | Level::EachQuorum => replicas / 2 + 1,
            Level::All => replicas,
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "any" => Level::Any,
            "one" => Level::Count(1),
            "two" => Level::Count(2),
            "three" => Level::Count(3),
            "quorum" => Level::Quorum,
            "all" => Level::All,
            "local-quorum" => Level::LocalQuorum,
            "each-quorum" => Level::EachQuorum,
            number => match number.parse::<u8>() {
                Ok(count) if count > 0 => Level::Count(count),
                _ => {
                    return Err(format!(
                        "'{text}' is not a level: use any, one, two, three, quorum, all, local-quorum, each-quorum or a number"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Level::Any => out.write_str("any"),
            Level::Count(1) => out.write_str("one"),
            Level::Count(2) => out.write_str("two"),
            Level::Count(3) => out.write_str("three"),
            Level::Count(count) => write!(out, "{count}"),
            Level::Quorum => out.write_str("quorum"),
            Level::All => out.write_str("all"),
            Level::LocalQuorum => out.write_str("local-quorum"),
            Level::EachQuorum => out.write_str("each-quorum"),
        }
    }
}

/// One node's part in an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    pub node: NodeId,
    /// The node's zone in the layout.
    pub zone: u16,
    /// `None`: an owner. `Some(owner)`: a stand-in for that owner.
    pub stand_in_for: Option<NodeId>,
    /// The node had fsynced when it answered.
    pub fsynced: bool,
}

/// What a request achieved, with who answered and how they agreed. Every answer has one, refusals too.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// The node that coordinated.
    pub coordinator: Option<NodeId>,
    /// Layout version the request ran under.
    pub layout: u64,
    /// Who acknowledged by the time of the answer, the coordinator included.
    pub acks: Vec<Ack>,
    /// Acknowledgements that were needed.
    pub needed: u8,
    /// Owners that had not answered when the answer was given.
    pub missing: Vec<NodeId>,
    /// Reads: owners whose copy differed from the merged one.
    pub disagreed: Vec<NodeId>,
    /// Reads: owners that lacked something. They are sent it if it has not come by itself two rounds of exchange later.
    pub repaired: Vec<NodeId>,
    /// Writes: the write was stamped again above a newer one that it met, or put again where a replica knew it to belong: with a key
    /// that had a deadline, or apart from one that had ended.
    pub stamped_again: bool,
    /// The operation id was known already: the effect is the earlier one's.
    pub duplicate: bool,
    /// Nothing was to be done, so nothing was written: those who acknowledged are those who were asked for what they hold.
    pub unchanged: bool,
    /// Reads: increments of the answer that may be counted twice. They were tried more than once, and an owner that may have counted a try
    /// within its total was not asked, or did not answer.
    pub doubted: u32,
    /// Microseconds from the coordinator's taking the request to its answer.
    pub took_us: u64,
}

impl Receipt {
    /// The receipt of a request that was made in two parts, one after the other: the acknowledgements of the weaker, and what happened in
    /// either.
    pub fn and(self, other: Receipt) -> Receipt {
        let unite = |one: &[NodeId], two: &[NodeId]| {
            let mut nodes = [one, two].concat();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        let missing = unite(&self.missing, &other.missing);
        let disagreed = unite(&self.disagreed, &other.disagreed);
        let repaired = unite(&self.repaired, &other.repaired);
        let doubted = self.doubted.saturating_add(other.doubted);
        let took_us = self.took_us.saturating_add(other.took_us);
        Receipt { missing, disagreed, repaired, doubted, took_us, ..self.weaker(other) }
    }

    /// Of the receipts of two requests that are one to who asked, the one with the fewest acknowledgements for what it needed.
    pub fn weaker(self, other: Receipt) -> Receipt {
        let strength = |receipt: &Receipt| receipt.acks.len() as i64 - i64::from(receipt.needed);
        if strength(&other) < strength(&self) { other } else { self }
    }

    pub fn owners(&self) -> usize {
        self.acks.iter().filter(|ack| ack.stand_in_for.is_none()).count()
    }

    pub fn stand_ins(&self) -> usize {
        self.acks.len() - self.owners()
    }

    pub fn fsynced(&self) -> usize {
        self.acks.iter().filter(|ack| ack.fsynced).count()
    }

    pub fn zones(&self) -> usize {
        let mut zones: Vec<u16> = self.acks.iter().map(|ack| ack.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_print_as_they_parse() {
        for text in ["any", "one", "two", "three", "4", "quorum", "all", "local-quorum", "each-quorum"] {
            assert_eq!(text.parse::<Level>().expect("a level").to_string(), text);
        }
        assert!("0".parse::<Level>().is_err());
        assert!("most".parse::<Level>().is_err());
    }

    #[test]
    fn impossible_combinations_are_refused() {
        let fine = Consistency::default();
        assert!(fine.check(3).is_ok());
        assert!(Consistency { read: Level::Any, ..fine }.check(3).is_err());
        assert!(Consistency { write: Level::Count(4), ..fine }.check(3).is_err());
        assert!(Consistency { write: Level::Any, owners_only: true, ..fine }.check(3).is_err());
        assert!(Consistency { write: Level::Count(1), durable: Some(Level::Quorum), ..fine }.check(3).is_err());
        assert!(Consistency { zones: 3, ..fine }.check(3).is_err());
        assert!(Consistency { zones: 2, ..fine }.check(3).is_ok());
    }
}
