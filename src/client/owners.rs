//! Who owns a key, as far as a client must know it: to ask an owner rather than somebody who has to ask one.

use std::sync::Arc;

use crate::data::id::{NodeId, Partition};
use crate::data::op::Key;
use crate::ring::layout::Layout;
use crate::ring::view::View;

/// The owners of each partition under one layout. Built once per layout; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    view: Arc<View>,
    lists: Arc<Vec<Vec<NodeId>>>,
}

impl Owners {
    /// Refuses a layout that no node can have meant.
    pub fn of(layout: &Layout) -> Result<Self, String> {
        if layout.members.is_empty() || layout.partitions == 0 {
            return Err("the layout that the node told has no members or no partitions".into());
        }
        let view = View::new(Arc::new(layout.clone()));
        let lists = (0..layout.partitions).map(|number| view.owners(Partition(number)).collect()).collect();
        Ok(Self { view: Arc::new(view), lists: Arc::new(lists) })
    }

    pub fn partition(&self, key: &Key) -> Partition {
        self.view.partition_of(&key.bytes)
    }

    pub fn list(&self, partition: Partition) -> &[NodeId] {
        self.lists.get(usize::from(partition.0)).map(Vec::as_slice).unwrap_or_default()
    }
}
