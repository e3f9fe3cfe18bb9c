//! The table: every partition's preference list, built once per layout. The one file that names `hashring`.
//!
//! 1. Each member has [`TOKENS`] tokens on a circle of 64 bits, at the hash of its id and the token's number, whoever else is there.
//! 2. A partition stands at an even distance from its neighbours. Its **walk** meets the members clockwise, each where its next token
//!    is, at a distance divided by its weight: tokens lie as if thrown at random, so the nearest of two members with weights 2
//!    and 1 is the first in two cases of three (the race of exponentials of weighted rendezvous hashing). Weighing the distance
//!    instead of the number of tokens keeps every other member's tokens where they are when a weight changes, and the ring small.
//! 3. The first N of the walk, zones spread, would be the owners. Loads are bounded: nobody owns more than 5 % above its fair share
//!    (`assign`, `fair`).
//! 4. Among its owners each partition has a first, whom readers and coordinators turn to: again the nearest with a bound on the load.
//! 5. All other members follow as stand-ins, by walk, the zones that have fewest so far first.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;

use super::assign::{Wishes, assign};
use super::fair::{Spread, UNIT, shares};
use super::layout::{Layout, MEMBERS_MAX};
use crate::data::id::{NodeId, Partition, hash64};

/// Tokens of each member. With fewer, loads are uneven before they are bounded, and more moves when the bound is kept; with many
/// more, neighbouring partitions have nothing in common and it is no better.
const TOKENS: u32 = 256;

/// Who owns each partition and who stands in. A function of the layout alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    partitions: u16,
    members: usize,
    owners: usize,
    /// `members` entries for each partition.
    preferences: Vec<u16>,
}

impl Table {
    /// Builds the table of a layout that [`Layout::validate`] accepts. (Of another one it builds something, without promises: members
    /// past the limit own nothing, a weight of 0 counts as 1.) Takes about 10 ms for 30 members and 1,024 partitions.
    pub fn build(layout: &Layout) -> Self {
        let members = &layout.members[..layout.members.len().min(MEMBERS_MAX)];
        let names = layout.zones();
        let zone = |name: &str| names.binary_search(&name).expect("a member's zone is among the zones") as u16;
        let zones: Vec<u16> = members.iter().map(|member| zone(&member.zone)).collect();
        let weights: Vec<u32> = members.iter().map(|member| member.weight.max(1)).collect();
        let ids: Vec<NodeId> = members.iter().map(|member| member.id).collect();

        let spread = Spread::new(&zones, names.len(), usize::from(layout.replicas));
        let fair = shares(&weights, &zones, &spread, layout.partitions);
        let distances = distances(&ids, &weights, layout.partitions);
        let walks = walks(&distances, members.len(), layout.partitions);
        let caps: Vec<usize> = fair.iter().map(|share| cap(*share, 5)).collect();
        let owners = assign(&Wishes {
            members: members.len(),
            walks: &walks,
            distances: &distances,
            zones: &zones,
            spread: &spread,
            caps: &caps,
        });
        let owners = first_owners_level(owners, &distances, &fair, &spread);
        let preferences =
            walks.iter().zip(&owners).flat_map(|(walk, owners)| preference(walk, owners, &zones)).collect();
        Self { partitions: layout.partitions, members: members.len(), owners: spread.owners, preferences }
    }

    /// The preference list of a partition, as places in `layout.members`: the first [`Table::owner_count`] are the owners, then come
    /// all other members as stand-ins. Empty for a partition that there is not.
    pub fn preference(&self, partition: Partition) -> &[u16] {
        let from = usize::from(partition.0) * self.members;
        if partition.0 < self.partitions { &self.preferences[from..from + self.members] } else { &[] }
    }

    /// How many owners each partition has: N, or the number of members when that is less.
    pub fn owner_count(&self) -> usize {
        self.owners
    }

    /// The owners of a partition, the first to be asked first.
    pub fn owners(&self, partition: Partition) -> &[u16] {
        let preference = self.preference(partition);
        &preference[..self.owners.min(preference.len())]
    }

    /// Q.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }
}

/// The most a member may have whose fair share is `share` ([`UNIT`]s): so many percent more, rounded down, but never so few that there is
/// not room for all.
fn cap(share: u64, percent: u64) -> usize {
    let bounded = share * (100 + percent) / 100 / UNIT;
    bounded.max(share.div_ceil(UNIT)) as usize
}

/// Puts one owner of each partition first, so that no member is first much more often than its part of what it owns.
fn first_owners_level(owners: Vec<Vec<u16>>, distances: &[u64], fair: &[u64], spread: &Spread) -> Vec<Vec<u16>> {
    let members = fair.len();
    let zones = vec![0; members];
    let one = Spread { owners: 1, low: vec![0], high: vec![1], extra: 1 };
    let caps: Vec<usize> = fair.iter().map(|share| cap(share / spread.owners.max(1) as u64, 5)).collect();
    let wishes = Wishes { members, walks: &owners, distances, zones: &zones, spread: &one, caps: &caps };
    let firsts = assign(&wishes);
    let lead = |(mut owners, first): (Vec<u16>, Vec<u16>)| {
        if let Some(at) = owners.iter().position(|owner| first.contains(owner)) {
            owners[..=at].rotate_right(1);
        }
        owners
    };
    owners.into_iter().zip(firsts).map(lead).collect()
}

/// Owners, then everybody else: who would be the only one in its zone first, then the second of each, and so on; by walk among equals.
fn preference(walk: &[u16], owners: &[u16], zones: &[u16]) -> Vec<u16> {
    let zone = |member: u16| usize::from(zones[usize::from(member)]);
    let mut counts = vec![0_usize; zones.iter().max().map_or(0, |zone| usize::from(*zone) + 1)];
    for owner in owners {
        counts[zone(*owner)] += 1;
    }
    let mut stand_ins: Vec<(usize, u16)> = Vec::with_capacity(walk.len());
    for member in walk.iter().filter(|member| !owners.contains(member)) {
        stand_ins.push((counts[zone(*member)], *member));
        counts[zone(*member)] += 1;
    }
    stand_ins.sort_by_key(|(before, _)| *before);
    owners.iter().copied().chain(stand_ins.into_iter().map(|(_, member)| member)).collect()
}

/// Each partition's members, nearest first.
fn walks(distances: &[u64], members: usize, partitions: u16) -> Vec<Vec<u16>> {
    (0..usize::from(partitions))
        .map(|partition| {
            let distances = &distances[partition * members..][..members];
            let mut walk: Vec<u16> = (0..members as u16).collect();
            walk.sort_unstable_by_key(|member| (distances[usize::from(*member)], *member));
            walk
        })
        .collect()
}

/// `distances[p * members + m]`: how far clockwise of partition `p` the next token of member `m` lies, divided by its weight.
fn distances(ids: &[NodeId], weights: &[u32], partitions: u16) -> Vec<u64> {
    let ring = ring(ids);
    let mut distances = vec![u64::MAX; usize::from(partitions) * ids.len()];
    let step = (1_u128 << 64) / u128::from(partitions.max(1));
    // Backwards along the circle, remembering each member's token last met. The first lap only makes its memory.
    let mut next = vec![0; ids.len()];
    for (point, member) in ring.iter().rev() {
        next[usize::from(*member)] = *point;
    }
    let mut tokens = ring.iter().rev().peekable();
    for partition in (0..usize::from(partitions)).rev() {
        let from = (step * partition as u128) as u64;
        while let Some((point, member)) = tokens.next_if(|(point, _)| *point >= from) {
            next[usize::from(*member)] = *point;
        }
        for (member, point) in next.iter().enumerate() {
            distances[partition * ids.len() + member] = point.wrapping_sub(from) / u64::from(weights[member]);
        }
    }
    distances
}

/// All tokens in the order of the circle, with their members. `hashring` puts them there; how far apart they are, which it keeps to
/// itself, comes from the same hash. It is asked just once, for everything: each asking copies the ring, and what it calls replicas
/// are tokens, one more than asked for, not members.
fn ring(ids: &[NodeId]) -> Vec<(u64, u16)> {
    let mut ring = HashRing::with_hasher(TokenPoints);
    let tokens = |(member, id): (usize, &NodeId)| {
        let id = *id;
        (0..TOKENS).map(move |number| Token { member: member as u16, id, number })
    };
    ring.batch_add(ids.iter().enumerate().flat_map(tokens).collect());
    let all = ring.get_with_replicas(&Origin, ring.len().saturating_sub(1)).unwrap_or_default();
    all.into_iter().map(|token| (TokenPoints.hash_one(&token), token.member)).collect()
}

/// Where the circle begins: writes nothing, and the hash of nothing is 0.
struct Origin;

impl Hash for Origin {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Debug)]
struct Token {
    member: u16,
    id: NodeId,
    number: u32,
}

impl Hash for Token {
    /// Explicit bytes: what a derived `Hash` writes is the library's and the machine's affair.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.id.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        state.write(&bytes);
    }
}

/// The hash of the house as `std` wants to see one.
#[derive(Clone, Copy)]
struct TokenPoints;

struct TokenPoint(u64);

impl BuildHasher for TokenPoints {
    type Hasher = TokenPoint;

    fn build_hasher(&self) -> TokenPoint {
        TokenPoint(0)
    }
}

impl Hasher for TokenPoint {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash64(bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::layout::Member;

    fn layout(replicas: u8, partitions: u16, zones: &[&str]) -> Layout {
        let member = |(at, zone): (usize, &&str)| {
            let name = format!("n{at}");
            let door = |base: usize| format!("127.0.0.1:{}", base + at);
            let id = NodeId::from_name(&name);
            let zone = zone.to_string();
            Member { id, name, zone, weight: 1, quic: door(9_000), resp: door(7_000), http: door(8_000) }
        };
        Layout::first(replicas, partitions, zones.iter().enumerate().map(member).collect()).unwrap()
    }

    #[test]
    fn every_list_names_every_member_once() {
        for (replicas, zones) in [(3, vec!["a"; 7]), (2, vec!["a", "b", "b", "c"]), (5, vec!["a", "b"]), (1, vec!["a"])]
        {
            let layout = layout(replicas, 64, &zones);
            let table = Table::build(&layout);
            assert_eq!(table.owner_count(), zones.len().min(replicas.into()));
            for partition in (0..64).map(Partition) {
                let mut list = table.preference(partition).to_vec();
                list.sort_unstable();
                assert_eq!(list, (0..zones.len() as u16).collect::<Vec<u16>>());
            }
            assert!(table.preference(Partition(64)).is_empty() && table.owners(Partition(64)).is_empty());
        }
    }

    #[test]
    fn a_table_is_a_function_of_the_layout() {
        // Pinned: nodes of different builds must agree. A change here is a change of placement and needs a new layout version.
        let table = Table::build(&layout(3, 1_024, &["a"; 5]));
        let bytes: Vec<u8> = table.preferences.iter().flat_map(|member| member.to_be_bytes()).collect();
        assert_eq!(hash64(&bytes), PINNED);
    }

    const PINNED: u64 = 13_336_680_218_453_314_818;

    #[test]
    fn owners_and_stand_ins_spread_over_the_zones() {
        let zones = ["a", "a", "b", "b", "c", "c"];
        let table = Table::build(&layout(3, 256, &zones));
        for partition in (0..256).map(Partition) {
            let zone = |member: &u16| zones[usize::from(*member)];
            for half in table.preference(partition).chunks(3) {
                let mut seen: Vec<&str> = half.iter().map(zone).collect();
                seen.sort_unstable();
                assert_eq!(seen, ["a", "b", "c"]);
            }
        }
    }

    #[test]
    fn what_was_never_validated_does_not_panic() {
        let mut odd = layout(3, 16, &["a"; 3]);
        odd.members.iter_mut().for_each(|member| member.weight = 0);
        Table::build(&odd);
        odd.partitions = 1_000;
        Table::build(&odd);
        odd.partitions = 0;
        assert!(Table::build(&odd).preference(Partition(0)).is_empty());
        odd.partitions = 16;
        odd.replicas = 0;
        assert!(Table::build(&odd).owners(Partition(0)).is_empty());
        odd.members.clear();
        assert!(Table::build(&odd).preference(Partition(0)).is_empty());
    }
}
