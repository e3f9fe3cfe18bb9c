//! Sets and maps of the handful of nodes that a request has to do with: in order, and without memory of their own up to four.

use smallvec::SmallVec;

use crate::data::id::NodeId;

#[derive(Clone, Debug)]
pub struct NodeMap<V> {
    entries: SmallVec<[(NodeId, V); 4]>,
}

impl<V> Default for NodeMap<V> {
    fn default() -> Self {
        Self { entries: SmallVec::new() }
    }
}

impl<V> NodeMap<V> {
    fn find(&self, node: NodeId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&node, |(node, _)| *node)
    }

    /// What was there before.
    pub fn insert(&mut self, node: NodeId, value: V) -> Option<V> {
        match self.find(node) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, value)),
            Err(at) => {
                self.entries.insert(at, (node, value));
                None
            }
        }
    }

    pub fn remove(&mut self, node: NodeId) -> Option<V> {
        self.find(node).ok().map(|at| self.entries.remove(at).1)
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.find(node).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &V)> + Clone {
        self.entries.iter().map(|(node, value)| (*node, value))
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.entries.iter().map(|(node, _)| *node)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.entries.iter().map(|(_, value)| value)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<V> Extend<(NodeId, V)> for NodeMap<V> {
    fn extend<I: IntoIterator<Item = (NodeId, V)>>(&mut self, entries: I) {
        for (node, value) in entries {
            self.insert(node, value);
        }
    }
}

impl<V> FromIterator<(NodeId, V)> for NodeMap<V> {
    fn from_iter<I: IntoIterator<Item = (NodeId, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<V> IntoIterator for NodeMap<V> {
    type Item = (NodeId, V);
    type IntoIter = smallvec::IntoIter<[(NodeId, V); 4]>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[derive(Clone, Debug, Default)]
pub struct NodeSet {
    map: NodeMap<()>,
}

impl NodeSet {
    /// True when it was not there.
    pub fn insert(&mut self, node: NodeId) -> bool {
        self.map.insert(node, ()).is_none()
    }

    pub fn remove(&mut self, node: NodeId) -> bool {
        self.map.remove(node).is_some()
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.map.contains(node)
    }

    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.map.nodes()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl Extend<NodeId> for NodeSet {
    fn extend<I: IntoIterator<Item = NodeId>>(&mut self, nodes: I) {
        self.map.extend(nodes.into_iter().map(|node| (node, ())));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_tree_does(steps in proptest::collection::vec((0..9_u64, 0..3_u8, any::<u8>()), 0..40)) {
            let (mut few, mut tree) = (NodeMap::default(), BTreeMap::new());
            for (node, step, value) in steps {
                let node = NodeId(node);
                if step == 0 {
                    prop_assert_eq!(few.remove(node), tree.remove(&node));
                } else {
                    prop_assert_eq!(few.insert(node, value), tree.insert(node, value));
                }
                prop_assert_eq!(few.contains(node), tree.contains_key(&node));
                prop_assert_eq!((few.len(), few.is_empty()), (tree.len(), tree.is_empty()));
                prop_assert!(few.iter().eq(tree.iter().map(|(node, value)| (*node, value))));
            }
            prop_assert!(few.into_iter().eq(tree));
        }
    }
}
