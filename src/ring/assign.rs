//! Who gets what when everybody wants the nearest and nobody may be overfull: consistent hashing with bounded loads.
//!
//! Each partition wants the first members of its walk; each member takes at most its `cap`. A partition asks along its walk; a
//! member that is asked by more than its cap keeps the nearest and turns away the farthest, which asks on. This is deferred
//! acceptance (Gale and Shapley 1962) on the walks of consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016):
//! the outcome hangs neither on the order of asking nor on numbering, and a member more or less moves little beyond what it must,
//! where filling members up in the order of the ring lets every overflow push the next. Measured over 3 to 30 equal members: see
//! `tests/laws/placement.rs`.

use std::collections::BTreeSet;

use super::fair::Spread;

/// What is to be assigned. `members` is the number of members, `walks[p]` the members that partition `p` would have, nearest
/// first, `distances[p * members + m]` how far `m` is from `p`, `caps[m]` how many partitions `m` takes.
pub(super) struct Wishes<'a> {
    pub members: usize,
    pub walks: &'a [Vec<u16>],
    pub distances: &'a [u64],
    pub zones: &'a [u16],
    pub spread: &'a Spread,
    pub caps: &'a [usize],
}

/// The owners of each partition, nearest first. Caps are kept unless the zones leave no way to.
pub(super) fn assign(wishes: &Wishes<'_>) -> Vec<Vec<u16>> {
    let mut market = Market {
        wishes,
        owners: vec![Vec::new(); wishes.walks.len()],
        kept: vec![BTreeSet::new(); wishes.members],
        refused: vec![false; wishes.walks.len() * wishes.members],
    };
    market.settle();
    market.complete();
    for (partition, owners) in market.owners.iter_mut().enumerate() {
        owners.sort_unstable_by_key(|owner| (wishes.distance(partition, *owner), *owner));
    }
    market.owners
}

impl Wishes<'_> {
    fn distance(&self, partition: usize, member: u16) -> u64 {
        self.distances[partition * self.members + usize::from(member)]
    }
}

struct Market<'a> {
    wishes: &'a Wishes<'a>,
    owners: Vec<Vec<u16>>,
    /// By member, what it keeps: distance and partition.
    kept: Vec<BTreeSet<(u64, usize)>>,
    /// `refused[p * members + m]`: `m` turned `p` away, and always would.
    refused: Vec<bool>,
}

impl Market<'_> {
    /// Every partition asks until nobody is turned away. Ends, since nobody asks twice where it was refused.
    fn settle(&mut self) {
        let mut asking: Vec<usize> = (0..self.owners.len()).rev().collect();
        let mut picked = Vec::new();
        while let Some(partition) = asking.pop() {
            let Wishes { members, walks, zones, spread, .. } = *self.wishes;
            let refused = &self.refused[partition * members..][..members];
            let open = walks[partition].iter().copied().filter(|member| !refused[usize::from(*member)]);
            spread.pick(open, zones, &mut picked);
            let before = std::mem::replace(&mut self.owners[partition], picked.clone());
            for member in before.iter().filter(|member| !picked.contains(member)) {
                self.kept[usize::from(*member)].remove(&(self.wishes.distance(partition, *member), partition));
            }
            for member in &picked {
                let kept = &mut self.kept[usize::from(*member)];
                kept.insert((self.wishes.distance(partition, *member), partition));
                if kept.len() > self.wishes.caps[usize::from(*member)] {
                    let (_, last) = kept.pop_last().expect("it was just added to");
                    self.owners[last].retain(|owner| owner != member);
                    self.refused[last * members + usize::from(*member)] = true;
                    asking.push(last);
                }
            }
        }
    }

    /// A partition whose members were all full or all its own has a place open. Rare: only where caps are tight.
    fn complete(&mut self) {
        for partition in 0..self.owners.len() {
            while self.owners[partition].len() < self.wishes.spread.owners {
                if !self.make_room(partition) {
                    break;
                }
            }
        }
    }

    /// Fills one open place by the shortest chain of hand-overs that ends at a member with room: `p` takes `a`, which hands `q` to
    /// `b`, which has room. Without any such chain the relatively emptiest member goes over its cap. False: nobody may take it.
    fn make_room(&mut self, partition: usize) -> bool {
        let members = self.wishes.members;
        // How each member reached by the search is relieved: who handed what to it. Breadth first, nearest first.
        let mut reached: Vec<Option<(u16, usize)>> = vec![None; members];
        let mut start: Vec<u16> =
            self.wishes.walks[partition].iter().copied().filter(|to| self.may_take(partition, None, *to)).collect();
        start.sort_unstable_by_key(|member| self.wishes.distance(partition, *member));
        let mut queue: Vec<u16> = start.clone();
        let mut at = 0;
        while at < queue.len() {
            let full = queue[at];
            at += 1;
            if self.kept[usize::from(full)].len() < self.wishes.caps[usize::from(full)] {
                self.hand_over(partition, full, &start, &reached);
                return true;
            }
            for (_, other) in &self.kept[usize::from(full)] {
                for to in &self.wishes.walks[*other] {
                    let new = reached[usize::from(*to)].is_none() && !start.contains(to);
                    if new && self.may_take(*other, Some(full), *to) {
                        reached[usize::from(*to)] = Some((full, *other));
                        queue.push(*to);
                    }
                }
            }
        }
        let load = |member: &u16| {
            let (kept, cap) = (self.kept[usize::from(*member)].len(), self.wishes.caps[usize::from(*member)].max(1));
            (kept * 1_000 / cap, *member)
        };
        let Some(emptiest) = start.into_iter().min_by_key(load) else { return false };
        self.give(partition, emptiest);
        true
    }

    fn may_take(&self, partition: usize, going: Option<u16>, coming: u16) -> bool {
        let owners = &self.owners[partition];
        !owners.contains(&coming) && self.wishes.spread.allows(owners, going, coming, self.wishes.zones)
    }

    fn hand_over(&mut self, partition: usize, last: u16, start: &[u16], reached: &[Option<(u16, usize)>]) {
        let mut to = last;
        while !start.contains(&to) {
            let (from, other) = reached[usize::from(to)].expect("the search came here from somewhere");
            self.kept[usize::from(from)].remove(&(self.wishes.distance(other, from), other));
            self.owners[other].retain(|owner| *owner != from);
            self.give(other, to);
            to = from;
        }
        self.give(partition, to);
    }

    fn give(&mut self, partition: usize, to: u16) {
        self.kept[usize::from(to)].insert((self.wishes.distance(partition, to), partition));
        self.owners[partition].push(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(walks: &[Vec<u16>], caps: &[usize], owners: usize) -> Vec<Vec<u16>> {
        let members = caps.len();
        let mut distances = vec![u64::MAX; walks.len() * members];
        for (partition, walk) in walks.iter().enumerate() {
            for (rank, member) in walk.iter().enumerate() {
                distances[partition * members + usize::from(*member)] = rank as u64;
            }
        }
        let zones = vec![0; members];
        let spread = Spread::new(&zones, 1, owners);
        assign(&Wishes { members, walks, distances: &distances, zones: &zones, spread: &spread, caps })
    }

    #[test]
    fn the_nearest_are_taken_while_there_is_room() {
        let walks = [vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1]];
        assert_eq!(run(&walks, &[2, 2, 2], 2), [vec![0, 1], vec![1, 2], vec![2, 0]]);
    }

    #[test]
    fn who_is_farthest_from_a_full_member_asks_on() {
        // Both want 0, which takes one; the second comes first in number but is equally near: the lower number stays.
        assert_eq!(run(&[vec![0, 1], vec![0, 1]], &[1, 2], 1), [vec![0], vec![1]]);
        // The second wants 0 most, the first only after 1, which has no room at all.
        assert_eq!(run(&[vec![1, 0, 2], vec![0, 1, 2]], &[1, 0, 2], 1), [vec![2], vec![0]]);
    }

    #[test]
    fn an_open_place_is_filled_by_a_chain_of_hand_overs() {
        // Partition 1 knows only member 0; when 0 keeps the nearer partition 0, that one has to go to 1.
        assert_eq!(run(&[vec![0, 1], vec![1, 0], vec![0]], &[1, 2, 1], 1), [vec![1], vec![1], vec![0]]);
    }

    #[test]
    fn caps_give_way_before_a_place_stays_empty() {
        assert_eq!(run(&[vec![0], vec![0]], &[1, 1], 1), [vec![0], vec![0]]);
    }
}
