//! Who has been away for too long, and must come back empty.
//!
//! An absent member holds the floor for all (`node::floor`): it may keep hints, and writes that nobody else has seen. Beyond a declared
//! horizon it is fenced instead: what its store held by then is no part of the cluster any more, and nothing that comes from it is
//! taken. It is known by its store's id, so it is taken back when it has been emptied, and only then.
//!
//! A member may begin to fence only while it is with more than half of all members, and an absent one no longer counts for a floor only
//! when every other has fenced it too, durably, before it promised: what came from it until then is asked about like anything else.
//!
//! ```text
//! Meta  'f' node u64 | store u64  -> fenced
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::data::id::{NodeId, StoreId};
use crate::ring::view::View;
use crate::storage::{Space, Storage, StoreError};
use crate::wire::message::Fence;

use super::replica::{Turn, upper_bound};

const TAG: u8 = b'f';

/// How one member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absence {
    /// Microseconds since it was last up, or since this process began.
    pub for_us: u64,
    /// Microseconds until it is fenced; `None`: it is, or never will be.
    pub left_us: Option<u64>,
    pub fenced: bool,
}

#[derive(Default)]
pub struct Fences {
    fenced: BTreeMap<NodeId, BTreeSet<StoreId>>,
    absent_since_us: BTreeMap<NodeId, u64>,
    /// 0: nobody is ever fenced.
    horizon_us: u64,
}

impl Fences {
    /// Reads who has been fenced.
    pub fn load(turn: &Turn, horizon_us: u64) -> Result<Self, StoreError> {
        let mut fences = Self { horizon_us, ..Self::default() };
        turn.scan(Space::Meta, &[TAG], &upper_bound(&[TAG]), &mut |key, _| {
            if let (Some(node), Some(store)) = (number_at(key, 1), number_at(key, 9)) {
                fences.fenced.entry(NodeId(node)).or_default().insert(StoreId(store));
            }
            true
        })?;
        Ok(fences)
    }

    /// Takes note of who is up.
    pub fn observe(&mut self, view: &View, me: NodeId, now_us: u64) {
        for member in view.peers_of(me) {
            if view.is_up(member.id) {
                self.absent_since_us.remove(&member.id);
            } else {
                self.absent_since_us.entry(member.id).or_insert(now_us);
            }
        }
    }

    /// Is what this member has to say not to be taken? What its data lie in must be known when one of its stores was ever fenced.
    pub fn is_fenced(&self, view: &View, node: NodeId) -> bool {
        let store = view.store_of(node);
        self.fenced.get(&node).is_some_and(|stores| store == StoreId::default() || stores.contains(&store))
    }

    /// Was this store of a member ever fenced?
    pub fn has_fenced(&self, node: NodeId, store: StoreId) -> bool {
        self.fenced.get(&node).is_some_and(|stores| stores.contains(&store))
    }

    /// Whom a floor may be asked for without: those that are fenced, and those that are to be.
    pub fn without(&self, view: &View, me: NodeId, now_us: u64) -> Vec<Fence> {
        let most = view.up_members().count() * 2 > view.layout.members.len();
        let mut without = Vec::new();
        for member in view.peers_of(me).filter(|member| !view.is_up(member.id)) {
            let node = member.id;
            let known = view.store_of(node);
            let before = self.fenced.get(&node).and_then(|stores| stores.last().copied());
            if self.is_fenced(view, node) {
                let store = if known == StoreId::default() { before.unwrap_or_default() } else { known };
                without.push(Fence { node, store });
            } else if most
                && self.horizon_us > 0
                && known != StoreId::default()
                && self.away_us(node, now_us) >= self.horizon_us
            {
                without.push(Fence { node, store: known });
            }
        }
        without
    }

    /// May this member be fenced? It is, or it has been emptied since, or it has been away for `settle_us` from here.
    pub fn is_away(&self, view: &View, fence: Fence, now_us: u64, settle_us: u64) -> bool {
        let known = view.store_of(fence.node);
        let emptied = known != StoreId::default() && known != fence.store;
        let away = !view.is_up(fence.node) && self.away_us(fence.node, now_us) >= settle_us;
        emptied || away || self.has_fenced(fence.node, fence.store)
    }

    /// Fences a member that another has found to be away for too long, unless it is here. What was under way from it must have arrived,
    /// so it must have been away for `settle_us` from here too. `Some(true)`: it is fenced from now on, and that must be made durable.
    pub fn agree(&mut self, turn: &mut Turn, view: &View, fence: Fence, now_us: u64, settle_us: u64) -> Option<bool> {
        if self.has_fenced(fence.node, fence.store) {
            return Some(false);
        }
        if !self.is_away(view, fence, now_us, settle_us) {
            return None;
        }
        let key = [&[TAG][..], &fence.node.0.to_be_bytes(), &fence.store.0.to_be_bytes()].concat();
        turn.put(Space::Meta, key, Vec::new());
        self.fenced.entry(fence.node).or_default().insert(fence.store);
        Some(true)
    }

    /// Those that are away, and those that are fenced.
    pub fn absences<'a>(
        &'a self,
        view: &'a View,
        me: NodeId,
        now_us: u64,
    ) -> impl Iterator<Item = (NodeId, Absence)> + 'a {
        view.peers_of(me).map(|member| member.id).filter_map(move |node| {
            let fenced = self.is_fenced(view, node);
            let away = self.absent_since_us.contains_key(&node);
            let for_us = self.away_us(node, now_us);
            let left_us = (self.horizon_us > 0 && !fenced).then(|| self.horizon_us.saturating_sub(for_us));
            (fenced || away).then_some((node, Absence { for_us, left_us, fenced }))
        })
    }

    fn away_us(&self, node: NodeId, now_us: u64) -> u64 {
        self.absent_since_us.get(&node).map_or(0, |since_us| now_us.saturating_sub(*since_us))
    }
}

/// Which stores of which members a store says are fenced. For whoever checks it from outside.
pub fn inspect(store: &dyn Storage) -> Result<BTreeSet<(NodeId, StoreId)>, StoreError> {
    let fences = Fences::load(&Turn::new(store), 0)?;
    Ok(fences
        .fenced
        .into_iter()
        .flat_map(|(node, stores)| stores.into_iter().map(move |store| (node, store)))
        .collect())
}

fn number_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ring::layout::{Layout, Member};
    use crate::storage::MemoryStore;

    const HORIZON_US: u64 = 1_000;
    const SETTLE_US: u64 = 100;

    fn view(up: [bool; 3]) -> View {
        let members = (0..3).map(|number| {
            let name = format!("n{number}");
            let id = NodeId::from_name(&name);
            let address = String::from("sim:1");
            Member {
                id,
                zone: "z".into(),
                weight: 1,
                quic: address.clone(),
                resp: address.clone(),
                http: address,
                name,
            }
        });
        let layout = Layout { version: 1, parent: 0, replicas: 3, partitions: 4, members: members.collect() };
        let mut view = View::new(Arc::new(layout));
        for number in 0..3 {
            view = view.with_store(node(number), StoreId(number + 10));
        }
        view.with_flags(&up)
    }

    fn node(number: u64) -> NodeId {
        NodeId::from_name(&format!("n{number}"))
    }

    #[test]
    fn who_is_away_beyond_the_horizon_is_fenced_until_it_is_empty() {
        let store = MemoryStore::default();
        let mut turn = Turn::new(&store as &dyn Storage);
        let mut fences = Fences::load(&turn, HORIZON_US).unwrap();
        let away = view([true, true, false]);
        let fence = Fence { node: node(2), store: StoreId(12) };
        fences.observe(&away, node(0), 5);
        assert!(fences.without(&away, node(0), 5 + HORIZON_US - 1).is_empty());
        assert_eq!(fences.without(&away, node(0), 5 + HORIZON_US), [fence]);
        assert_eq!(fences.agree(&mut turn, &away, fence, 5 + SETTLE_US - 1, SETTLE_US), None, "it was here just now");
        assert!(!fences.is_fenced(&away, node(2)));
        assert_eq!(fences.agree(&mut turn, &away, fence, 5 + SETTLE_US, SETTLE_US), Some(true));
        assert_eq!(fences.agree(&mut turn, &away, fence, 5 + SETTLE_US, SETTLE_US), Some(false));
        store.commit(&turn.into_batch(), true).unwrap();
        let turn = Turn::new(&store as &dyn Storage);
        let fences = Fences::load(&turn, HORIZON_US).unwrap();
        let back = view([true, true, true]);
        assert!(fences.is_fenced(&back, node(2)) && !fences.is_fenced(&back, node(1)), "it is remembered");
        assert!(fences.is_fenced(&back.with_store(node(2), StoreId(0)), node(2)), "nobody knows what it brings");
        assert!(!fences.is_fenced(&back.with_store(node(2), StoreId(99)), node(2)), "it has been emptied");
    }

    #[test]
    fn a_minority_fences_nobody() {
        let store = MemoryStore::default();
        let turn = Turn::new(&store as &dyn Storage);
        let mut fences = Fences::load(&turn, HORIZON_US).unwrap();
        let alone = view([true, false, false]);
        fences.observe(&alone, node(0), 0);
        assert!(fences.without(&alone, node(0), 9 * HORIZON_US).is_empty());
        let mut never = Fences::load(&turn, 0).unwrap();
        let away = view([true, true, false]);
        never.observe(&away, node(0), 0);
        assert!(never.without(&away, node(0), u64::MAX).is_empty());
    }
}
