//! What a node believes at one moment: the layout, and who is up. Never changes; a new belief is a new view.

use std::sync::Arc;

use super::layout::{Layout, Member};
use super::slot;
use super::table::Table;
use crate::data::id::{NodeId, Partition, StoreId};
use crate::data::op::{Key, Whereabouts};

/// Layout, table and liveness. Cloning it, or changing who is up, copies one flag per member and shares the rest.
#[derive(Clone, Debug)]
pub struct View {
    pub layout: Arc<Layout>,
    places: Arc<Places>,
    /// `up[i]` speaks of `layout.members[i]`.
    up: Vec<bool>,
    /// What each member's data lie in, as far as it is known.
    stores: Vec<StoreId>,
}

/// What a layout alone decides, laid out for looking up.
#[derive(Debug)]
struct Places {
    table: Table,
    /// Sorted; with each member's place in the layout.
    index: Vec<(NodeId, u16)>,
    /// The owners of partition p, then of p + 1 and so on: asked for every request.
    owners: Vec<NodeId>,
    /// By place in the layout.
    zones: Vec<u16>,
    zone_names: Vec<String>,
}

impl View {
    /// Everybody is down: what a node knows before it has heard of anybody. Builds the table, so not for the hot path; see
    /// [`View::with_up`] for what changes often.
    pub fn new(layout: Arc<Layout>) -> Self {
        let up = vec![false; layout.members.len()];
        Self::with_liveness(layout, up)
    }

    /// As told by another node: `up[i]` speaks of `layout.members[i]`. Whoever it does not reach is down.
    pub fn with_liveness(layout: Arc<Layout>, mut up: Vec<bool>) -> Self {
        up.resize(layout.members.len(), false);
        let places = Arc::new(Places::new(&layout));
        let stores = vec![StoreId::default(); up.len()];
        Self { layout, places, up, stores }
    }

    /// The same with everybody up.
    pub fn all_up(&self) -> Self {
        Self { up: vec![true; self.up.len()], ..self.clone() }
    }

    /// The same layout with `up[i]` for each of its members. Whoever it does not reach is down.
    pub fn with_flags(&self, up: &[bool]) -> Self {
        let mut up = up.to_vec();
        up.resize(self.up.len(), false);
        Self { up, ..self.clone() }
    }

    /// The same with one member up or down. A stranger changes nothing.
    pub fn with_up(&self, node: NodeId, up: bool) -> Self {
        let mut view = self.clone();
        if let Some(flag) = self.place(node).and_then(|at| view.up.get_mut(at)) {
            *flag = up;
        }
        view
    }

    /// The same with what a member's data lie in. A stranger changes nothing.
    pub fn with_store(&self, node: NodeId, store: StoreId) -> Self {
        let mut view = self.clone();
        if let Some(held) = self.place(node).and_then(|at| view.stores.get_mut(at)) {
            *held = store;
        }
        view
    }

    /// What a member's data lie in, as it said when it was last up. `StoreId(0)`: not known.
    pub fn store_of(&self, node: NodeId) -> StoreId {
        self.place(node).map_or(StoreId::default(), |at| self.stores[at])
    }

    /// The owners of a partition, the first to be asked first. None for a partition that there is not.
    pub fn owners(&self, partition: Partition) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        self.owner_ids(partition).iter().copied()
    }

    /// How many owners each partition has: N, or the number of members when that is less.
    pub fn owner_count(&self) -> usize {
        self.places.table.owner_count()
    }

    /// Is this node one of the owners?
    pub fn is_owner(&self, partition: Partition, node: NodeId) -> bool {
        self.owner_ids(partition).contains(&node)
    }

    /// All members that are not owners, in the order in which they are to stand in.
    pub fn stand_ins(&self, partition: Partition) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        let preference = self.places.table.preference(partition);
        let owners = self.owner_count().min(preference.len());
        preference[owners..].iter().map(|at| self.layout.members[usize::from(*at)].id)
    }

    /// Is this member up? A stranger is not.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.place(node).is_some_and(|at| self.up[at])
    }

    /// Who is up, in the order of the layout's members.
    pub fn up(&self) -> &[bool] {
        &self.up
    }

    /// The members that are up, in the order of the layout.
    pub fn up_members(&self) -> impl Iterator<Item = &Member> + '_ {
        self.layout.members.iter().zip(&self.up).filter(|(_, up)| **up).map(|(member, _)| member)
    }

    /// Every member but this one, in the order of the layout.
    pub fn peers_of(&self, me: NodeId) -> impl Iterator<Item = &Member> + '_ {
        self.layout.members.iter().filter(move |member| member.id != me)
    }

    /// The member with this id.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.place(node).map(|at| &self.layout.members[at])
    }

    /// Its name; `?` for a stranger.
    pub fn name_of(&self, node: NodeId) -> &str {
        self.member(node).map_or("?", |member| &member.name)
    }

    /// The number of its zone, the same on every node: a place among the sorted zone names. `u16::MAX` for a stranger.
    pub fn zone_of(&self, node: NodeId) -> u16 {
        self.place(node).map_or(u16::MAX, |at| self.places.zones[at])
    }

    /// The name of its zone; `?` for a stranger.
    pub fn zone_name(&self, node: NodeId) -> &str {
        self.member(node).map_or("?", |member| &member.zone)
    }

    /// The sorted zone names, numbered as by [`View::zone_of`].
    pub fn zone_names(&self) -> &[String] {
        &self.places.zone_names
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        slot::partition(key, self.layout.partitions)
    }

    /// The partitions this node owns, in order.
    pub fn partitions_owned(&self, node: NodeId) -> impl Iterator<Item = Partition> + '_ {
        (0..self.layout.partitions).map(Partition).filter(move |partition| self.is_owner(*partition, node))
    }

    /// Where a key lives, for a person.
    pub fn whereabouts(&self, key: &Key) -> Whereabouts {
        let slot = slot::slot(&key.bytes);
        let partition = slot::partition_of_slot(slot, self.layout.partitions);
        let owners = self.owners(partition).map(|node| (node, true));
        let nodes = owners.chain(self.stand_ins(partition).map(|node| (node, false)));
        let tell = |(node, owner)| {
            let (name, zone) = (self.name_of(node).to_owned(), self.zone_name(node).to_owned());
            (node, name, zone, owner, self.is_up(node))
        };
        Whereabouts { slot, partition, layout: self.layout.version, nodes: nodes.map(tell).collect() }
    }

    fn owner_ids(&self, partition: Partition) -> &[NodeId] {
        let count = self.owner_count();
        let from = usize::from(partition.0) * count;
        self.places.owners.get(from..from + count).unwrap_or_default()
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        let index = &self.places.index;
        let at = index.binary_search_by_key(&node, |(id, _)| *id).ok()?;
        Some(usize::from(index[at].1))
    }
}

impl Places {
    fn new(layout: &Layout) -> Self {
        let table = Table::build(layout);
        let ids = layout.members.iter().map(|member| member.id);
        let mut index: Vec<(NodeId, u16)> = ids.zip(0..=u16::MAX).collect();
        index.sort_unstable();
        let partitions = (0..layout.partitions).map(Partition);
        let owners = partitions.flat_map(|partition| table.owners(partition));
        let owners = owners.map(|at| layout.members[usize::from(*at)].id).collect();
        let names = layout.zones();
        let zone = |member: &Member| {
            let at = names.binary_search(&member.zone.as_str()).expect("a member's zone is among the zones");
            u16::try_from(at).unwrap_or(u16::MAX)
        };
        let zones = layout.members.iter().map(zone).collect();
        let zone_names = names.into_iter().map(str::to_owned).collect();
        Self { table, index, owners, zones, zone_names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let member = |at: u16| {
            let name = format!("n{at}");
            let door = |base: u16| format!("127.0.0.1:{}", base + at);
            let zone = ["east", "west"][usize::from(at % 2)].to_owned();
            let id = NodeId::from_name(&name);
            Member { id, name, zone, weight: 1, quic: door(9_000), resp: door(7_000), http: door(8_000) }
        };
        View::new(Arc::new(Layout::first(3, 64, (1..=5).map(member).collect()).unwrap()))
    }

    fn id(name: &str) -> NodeId {
        NodeId::from_name(name)
    }

    #[test]
    fn who_is_up_changes_in_a_new_view_only() {
        let before = view();
        let after = before.with_up(id("n2"), true).with_up(id("stranger"), true);
        assert!(!before.is_up(id("n2")) && after.is_up(id("n2")) && !after.is_up(id("stranger")));
        assert_eq!(after.up_members().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["n2"]);
        assert!(!after.with_up(id("n2"), false).is_up(id("n2")));
        assert_eq!(after.all_up().up(), [true; 5]);
        assert!(Arc::ptr_eq(&before.places, &after.places), "the table is shared");
        assert_eq!(View::with_liveness(before.layout.clone(), vec![true]).up(), [true, false, false, false, false]);
    }

    #[test]
    fn owners_and_stand_ins_are_all_members_once() {
        let view = view();
        assert_eq!(view.owner_count(), 3);
        for partition in (0..64).map(Partition) {
            let (owners, stand_ins) = (view.owners(partition), view.stand_ins(partition));
            assert_eq!((owners.len(), stand_ins.len()), (3, 2));
            for owner in owners.clone() {
                assert!(view.is_owner(partition, owner) && !stand_ins.clone().any(|node| node == owner));
            }
            for node in stand_ins {
                assert!(!view.is_owner(partition, node));
            }
        }
        let places: usize = view.layout.members.iter().map(|member| view.partitions_owned(member.id).count()).sum();
        assert_eq!(places, 3 * 64);
        assert_eq!(view.owners(Partition(64)).len() + view.stand_ins(Partition(64)).len(), 0);
        assert!(!view.is_owner(Partition(u16::MAX), id("n1")));
    }

    #[test]
    fn names_and_zones_are_found_by_id() {
        let view = view();
        assert_eq!((view.name_of(id("n4")), view.zone_name(id("n4")), view.zone_of(id("n4"))), ("n4", "east", 0));
        assert_eq!((view.name_of(id("n9")), view.zone_name(id("n9")), view.zone_of(id("n9"))), ("?", "?", u16::MAX));
        assert_eq!(view.zone_names(), ["east", "west"]);
        assert_eq!(view.member(id("n5")).unwrap().quic, "127.0.0.1:9005");
        assert_eq!(view.peers_of(id("n1")).count(), 4);
    }

    #[test]
    fn whereabouts_tell_owners_first() {
        let view = view().with_up(id("n1"), true);
        let found = view.whereabouts(&Key::new("foo"));
        assert_eq!((found.slot, found.partition, found.layout), (12_182, view.partition_of(b"foo"), 1));
        let roles: Vec<bool> = found.nodes.iter().map(|node| node.3).collect();
        assert_eq!(roles, [true, true, true, false, false]);
        for (node, name, _, _, up) in &found.nodes {
            assert_eq!((name == "n1", view.name_of(*node)), (*up, name.as_str()));
        }
    }
}
