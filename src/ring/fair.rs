//! What is fair: how many of the owner places (Q partitions with N owners each) each member should have.
//!
//! By weight, within two limits that no weight can lift: a member owns a partition once, so at most Q; and the owners of each
//! partition spread over as many zones as there are, as evenly as the zones' sizes allow, so that a zone's share is bounded from
//! both sides ([`Spread`]). Water-filling: shares grow with the weights until the places are used up, and what reached a limit
//! stays there while the others go on. In integers, so that every machine finds the same.

/// Shares are counted in partitions times this.
pub(super) const UNIT: u64 = 1 << 16;

/// How many owners of one partition each zone has: `low` or `low + 1` where `high` says so, and `extra` zones have the one more.
///
/// N owners are dealt to the zones one round after the other; a zone with no member left drops out. All rounds but the last
/// are the same for every partition (`low`); in the last (`extra` places) the zones with a member left take turns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spread {
    pub owners: usize,
    pub low: Vec<usize>,
    pub high: Vec<usize>,
    pub extra: usize,
}

impl Spread {
    /// `zones[member]` is below `zone_count`. With fewer members than `replicas`, all of them are owners.
    pub fn new(zones: &[u16], zone_count: usize, replicas: usize) -> Self {
        let mut sizes = vec![0_usize; zone_count];
        for zone in zones {
            sizes[usize::from(*zone)] += 1;
        }
        let owners = replicas.min(zones.len());
        let dealt = |rounds: usize| sizes.iter().map(|size| *size.min(&rounds)).collect::<Vec<usize>>();
        let rounds = (0..=owners).find(|rounds| dealt(*rounds).iter().sum::<usize>() >= owners);
        let rounds = rounds.expect("with one round per owner even a single zone has dealt all its members");
        let (low, high) = (dealt(rounds.saturating_sub(1)), dealt(rounds));
        let extra = owners - low.iter().sum::<usize>();
        Self { owners, low, high, extra }
    }

    /// The first owners along a walk that keep to this.
    pub fn pick(&self, walk: impl IntoIterator<Item = u16>, zones: &[u16], picked: &mut Vec<u16>) {
        picked.clear();
        let mut counts = vec![0; self.low.len()];
        let mut extra = self.extra;
        for member in walk {
            if picked.len() == self.owners {
                return;
            }
            let zone = usize::from(zones[usize::from(member)]);
            if counts[zone] >= self.low[zone] {
                if extra == 0 || counts[zone] >= self.high[zone] {
                    continue;
                }
                extra -= 1;
            }
            counts[zone] += 1;
            picked.push(member);
        }
    }

    /// May `coming` take the place of `going` (`None`: a place nobody has) among these owners?
    pub fn allows(&self, owners: &[u16], going: Option<u16>, coming: u16, zones: &[u16]) -> bool {
        let mut counts = vec![0; self.low.len()];
        for owner in owners.iter().filter(|owner| Some(**owner) != going).chain([&coming]) {
            counts[usize::from(zones[usize::from(*owner)])] += 1;
        }
        let over = counts.iter().zip(&self.low).map(|(count, low)| usize::saturating_sub(*count, *low)).sum::<usize>();
        over <= self.extra && counts.iter().zip(&self.high).all(|(count, high)| count <= high)
    }
}

/// Each member's fair share in [`UNIT`]s. Their sum is `partitions * spread.owners` but for rounding.
pub(super) fn shares(weights: &[u32], zones: &[u16], spread: &Spread, partitions: u16) -> Vec<u64> {
    let mut by_zone: Vec<Vec<u32>> = vec![Vec::new(); spread.low.len()];
    for (weight, zone) in weights.iter().zip(zones) {
        by_zone[usize::from(*zone)].push(*weight);
    }
    let places = |count: usize| u128::from(partitions) * count as u128 * FINE;
    let of_zone = |zone: usize, level: u128| filled(&by_zone[zone], level, partitions);
    let zone_at =
        |zone: usize, level: u128| of_zone(zone, level).clamp(places(spread.low[zone]), places(spread.high[zone]));
    let level = lowest(partitions, |level| {
        (0..by_zone.len()).map(|zone| zone_at(zone, level)).sum::<u128>() >= places(spread.owners)
    });
    // A zone held at a limit of its own has a level of its own.
    let levels: Vec<u128> = (0..by_zone.len())
        .map(|zone| {
            let target = zone_at(zone, level);
            lowest(partitions, |level| of_zone(zone, level) >= target)
        })
        .collect();
    let share = |(weight, zone): (&u32, &u16)| {
        let fine = filled(&[*weight], levels[usize::from(*zone)], partitions);
        u64::try_from((fine + ROUND / 2) / ROUND).expect("at most Q times UNIT")
    };
    weights.iter().zip(zones).map(share).collect()
}

/// The level is searched in steps this many times finer than a partition per unit of weight.
const FINE: u128 = 1 << 40;
const ROUND: u128 = FINE / UNIT as u128;

/// What members of these weights hold together when the water stands at `level`.
fn filled(weights: &[u32], level: u128, partitions: u16) -> u128 {
    let full = u128::from(partitions) * FINE;
    weights.iter().map(|weight| full.min(level * u128::from(*weight))).sum()
}

/// The lowest level that is `enough`. At one partition per unit of weight times Q everybody is full.
fn lowest(partitions: u16, enough: impl Fn(u128) -> bool) -> u128 {
    let (mut low, mut high) = (0, u128::from(partitions) * FINE);
    while low < high {
        let middle = (low + high) / 2;
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fair(weights: &[u32], zones: &[u16], replicas: usize, partitions: u16) -> Vec<f64> {
        let zone_count = usize::from(zones.iter().max().unwrap() + 1);
        let spread = Spread::new(zones, zone_count, replicas);
        let shares = shares(weights, zones, &spread, partitions);
        shares.into_iter().map(|share| (share as f64 / UNIT as f64 * 100.0).round() / 100.0).collect()
    }

    #[test]
    fn shares_follow_the_weights_up_to_every_partition() {
        assert_eq!(fair(&[1, 1, 1], &[0, 0, 0], 3, 1_024), [1_024.0; 3]);
        assert_eq!(fair(&[7; 4], &[0; 4], 3, 1_024), [768.0; 4]);
        assert_eq!(fair(&[1, 2, 3], &[0; 3], 1, 600), [100.0, 200.0, 300.0]);
        assert_eq!(fair(&[10, 1, 1], &[0; 3], 2, 1_000), [1_000.0, 500.0, 500.0], "the heavy one owns each once");
        assert_eq!(fair(&[1_000, 1], &[0; 2], 1, 1_001), [1_000.0, 1.0]);
        assert_eq!(fair(&[5], &[0], 3, 16), [16.0]);
    }

    #[test]
    fn zones_bound_the_shares() {
        // One zone of three has a single member: it must own all, and the others share what is left.
        assert_eq!(fair(&[1; 5], &[0, 1, 1, 2, 2], 3, 1_000), [1_000.0, 500.0, 500.0, 500.0, 500.0]);
        // Two zones, three owners: one or two in each, and the bigger zone takes the second one as often as its weight says.
        assert_eq!(fair(&[1; 6], &[0, 0, 0, 1, 1, 1], 3, 1_000), [500.0; 6]);
        assert_eq!(fair(&[1; 6], &[0, 0, 1, 1, 1, 1], 3, 1_200), [600.0; 6]);
        assert_eq!(fair(&[1; 10], &[0, 0, 1, 1, 1, 1, 1, 1, 1, 1], 3, 1_200), {
            let mut shares = [300.0; 10];
            shares[..2].fill(600.0);
            shares
        });
    }

    #[test]
    fn owners_are_dealt_to_the_zones_in_rounds() {
        let spread = Spread::new(&[0, 1, 1, 1, 2, 2], 3, 5);
        assert_eq!(spread, Spread { owners: 5, low: vec![1, 1, 1], high: vec![1, 2, 2], extra: 2 });
        let spread = Spread::new(&[0, 0, 0], 1, 2);
        assert_eq!(spread, Spread { owners: 2, low: vec![1], high: vec![2], extra: 1 });
        assert_eq!(Spread::new(&[0, 1], 2, 3).owners, 2);
    }

    #[test]
    fn a_pick_keeps_to_the_walk_as_far_as_the_zones_allow() {
        let zones = [0, 0, 1, 1, 2, 2];
        let mut picked = Vec::new();
        Spread::new(&zones, 3, 3).pick([0, 1, 2, 3, 4, 5], &zones, &mut picked);
        assert_eq!(picked, [0, 2, 4]);
        Spread::new(&zones, 3, 4).pick([1, 0, 3, 2, 4, 5], &zones, &mut picked);
        assert_eq!(picked, [1, 0, 3, 4], "each zone once and one more");
        assert!(Spread::new(&zones, 3, 4).allows(&picked, Some(0), 5, &zones));
        assert!(!Spread::new(&zones, 3, 4).allows(&picked, Some(4), 2, &zones), "one zone would have none");
    }
}
