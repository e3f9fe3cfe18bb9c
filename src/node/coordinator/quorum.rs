//! When is a level met? Counting acknowledgements by kind: sets of nodes, never numbers.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::data::consistency::{Ack, Consistency, Level};
use crate::data::id::NodeId;

use super::few::NodeMap;

/// Owners of a partition and their zones.
pub type Owners = SmallVec<[(NodeId, u16); 4]>;

/// What a request needs of the owners of its partition.
#[derive(Clone, Debug)]
pub struct Quorum {
    level: Level,
    durable: Option<Level>,
    zones: u8,
    owners_only: bool,
    /// Owner and its zone.
    owners: Owners,
    my_zone: u16,
}

impl Quorum {
    pub fn read(consistency: &Consistency, owners: Owners, my_zone: u16) -> Self {
        Self { level: consistency.read, durable: None, zones: 1, owners_only: consistency.owners_only, owners, my_zone }
    }

    pub fn write(consistency: &Consistency, owners: Owners, my_zone: u16) -> Self {
        Self {
            level: consistency.write,
            durable: consistency.durable,
            zones: consistency.zones,
            owners_only: consistency.owners_only,
            owners,
            my_zone,
        }
    }

    /// How many distinct nodes must answer, zones aside.
    pub fn needed(&self) -> u8 {
        let count = self.owners.len() as u8;
        match self.level {
            Level::LocalQuorum => majority(self.in_zone(self.local_zone())),
            Level::EachQuorum => self.each_zone().values().map(|owners| majority(*owners)).sum(),
            // A cluster smaller than the level asks for can still be used whole.
            level => level.needed(count).min(count.max(1)),
        }
    }

    /// Do these answers meet it?
    pub fn met(&self, acks: &NodeMap<Ack>) -> bool {
        let any = self.level == Level::Any || !self.owners_only;
        let counted = || acks.values().filter(|ack| ack.stand_in_for.is_none() || any);
        // One owner's place is filled once, by itself or by its stand-in; one node fills one place.
        let place = |ack: &Ack| ack.stand_in_for.unwrap_or(ack.node);
        let filled = |zone: u16| {
            let here = self.owners.iter().filter(|owner| owner.1 == zone);
            here.filter(|owner| counted().any(|ack| place(ack) == owner.0)).count() as u8
        };
        let level = match self.level {
            Level::LocalQuorum => {
                let zone = self.local_zone();
                filled(zone) >= majority(self.in_zone(zone))
            }
            Level::EachQuorum => self.each_zone().iter().all(|(zone, owners)| filled(*zone) >= majority(*owners)),
            _ => distinct(counted(), place) >= usize::from(self.needed()),
        };
        let fsynced = counted().filter(|ack| ack.fsynced).count();
        let durable = self.durable.map_or(0, |level| level.needed(self.owners.len() as u8));
        level && distinct(counted(), |ack| ack.zone) >= usize::from(self.zones) && fsynced >= usize::from(durable)
    }

    fn local_zone(&self) -> u16 {
        // A coordinator in a zone without owners: the first owner's zone is the nearest there is.
        if self.in_zone(self.my_zone) > 0 { self.my_zone } else { self.owners.first().map_or(0, |owner| owner.1) }
    }

    fn in_zone(&self, zone: u16) -> u8 {
        self.owners.iter().filter(|owner| owner.1 == zone).count() as u8
    }

    fn each_zone(&self) -> BTreeMap<u16, u8> {
        let mut zones = BTreeMap::new();
        for (_, zone) in &self.owners {
            *zones.entry(*zone).or_insert(0) += 1;
        }
        zones
    }
}

/// How many different values there are of something of which there is only a handful.
fn distinct<'a, T: PartialEq>(acks: impl Iterator<Item = &'a Ack> + Clone, of: impl Fn(&Ack) -> T) -> usize {
    let first = |(at, ack): &(usize, &Ack)| !acks.clone().take(*at).any(|other| of(other) == of(ack));
    acks.clone().enumerate().filter(first).count()
}

fn majority(count: u8) -> u8 {
    count / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        smallvec::smallvec![(NodeId(1), 0), (NodeId(2), 0), (NodeId(3), 1)]
    }

    fn acks(list: &[(u64, Option<u64>, u16, bool)]) -> NodeMap<Ack> {
        list.iter()
            .map(|(node, place, zone, fsynced)| {
                let ack = Ack { node: NodeId(*node), zone: *zone, stand_in_for: place.map(NodeId), fsynced: *fsynced };
                (NodeId(*node), ack)
            })
            .collect()
    }

    fn write(level: Level) -> Consistency {
        Consistency { write: level, ..Consistency::default() }
    }

    #[test]
    fn a_stand_in_fills_its_owners_place_once() {
        let quorum = Quorum::write(&write(Level::Quorum), owners(), 0);
        assert!(!quorum.met(&acks(&[(1, None, 0, false)])));
        assert!(quorum.met(&acks(&[(1, None, 0, false), (9, Some(2), 0, false)])));
        assert!(!quorum.met(&acks(&[(2, None, 0, false), (9, Some(2), 0, false)])), "one place, filled twice");
        let strict = Consistency { owners_only: true, ..write(Level::Quorum) };
        let strict = Quorum::write(&strict, owners(), 0);
        assert!(!strict.met(&acks(&[(1, None, 0, false), (9, Some(2), 0, false)])));
    }

    #[test]
    fn zones_and_fsyncs_are_asked_apart() {
        let zones = Quorum::write(&Consistency { zones: 2, ..write(Level::Quorum) }, owners(), 0);
        assert!(!zones.met(&acks(&[(1, None, 0, false), (2, None, 0, false)])));
        assert!(zones.met(&acks(&[(1, None, 0, false), (3, None, 1, false)])));
        let durable = Consistency { durable: Some(Level::Count(1)), ..write(Level::Quorum) };
        let durable = Quorum::write(&durable, owners(), 0);
        assert!(!durable.met(&acks(&[(1, None, 0, false), (2, None, 0, false)])));
        assert!(durable.met(&acks(&[(1, None, 0, true), (2, None, 0, false)])));
    }

    #[test]
    fn local_and_each_quorum_count_by_zone() {
        let local = Quorum::write(&write(Level::LocalQuorum), owners(), 0);
        assert_eq!(local.needed(), 2);
        assert!(!local.met(&acks(&[(1, None, 0, false), (3, None, 1, false)])));
        assert!(local.met(&acks(&[(1, None, 0, false), (2, None, 0, false)])));
        let each = Quorum::write(&write(Level::EachQuorum), owners(), 0);
        assert_eq!(each.needed(), 3);
        assert!(!each.met(&acks(&[(1, None, 0, false), (2, None, 0, false)])));
        assert!(each.met(&acks(&[(1, None, 0, false), (2, None, 0, false), (3, None, 1, false)])));
    }
}
