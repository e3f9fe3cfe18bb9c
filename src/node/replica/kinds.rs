//! Which components a key may have rows in: a bounded memory that spares the look.
//!
//! A remembered mask never leaves out a component that has rows, because every put goes through [`Kinds::saw`]; it may name one
//! whose rows have gone since. Two generations: when the younger is full it becomes the older, so what is used stays.

use std::collections::HashMap; // lookup only

use bytes::Bytes;

use crate::data::op::Key;
use crate::data::path::Component;

const GENERATION_MAX: usize = 1 << 16;

/// A set of components.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mask(u16);

impl Mask {
    pub fn add(&mut self, component: Component) {
        self.0 |= 1 << component as u8;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn is_only(self, component: Component) -> bool {
        self.0 == 1 << component as u8
    }

    pub fn has_any(self, components: &[Component]) -> bool {
        components.iter().any(|component| self.0 & (1 << *component as u8) != 0)
    }
}

#[derive(Default)]
pub struct Kinds {
    young: HashMap<Key, Mask>, // lookup only
    old: HashMap<Key, Mask>,   // lookup only
}

impl Kinds {
    pub fn get(&mut self, key: &Key) -> Option<Mask> {
        if let Some(mask) = self.young.get(key) {
            return Some(*mask);
        }
        let (key, mask) = self.old.remove_entry(key)?;
        self.insert(key, mask);
        Some(mask)
    }

    pub fn remember(&mut self, key: &Key, mask: Mask) {
        // A copy: a slice of a network buffer would keep all of that buffer in memory.
        let key = Key { namespace: key.namespace, bytes: Bytes::copy_from_slice(&key.bytes) };
        self.insert(key, mask);
    }

    /// A row was put. A key that is not remembered stays so: its mask is not known.
    pub fn saw(&mut self, key: &Key, component: Component) {
        if let Some(mask) = self.young.get_mut(key) {
            mask.add(component);
        } else if let Some(mask) = self.old.get_mut(key) {
            mask.add(component);
        }
    }

    fn insert(&mut self, key: Key, mask: Mask) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_never_forgets_a_component_and_memory_is_bounded() {
        let mut kinds = Kinds::default();
        let key = Key::new("a");
        assert_eq!(kinds.get(&key), None);
        kinds.saw(&key, Component::Member);
        assert_eq!(kinds.get(&key), None, "one sighting does not make a mask");
        kinds.remember(&key, Mask::default());
        kinds.saw(&key, Component::Member);
        assert!(kinds.get(&key).expect("remembered").has_any(&[Component::Member]));
        for number in 0..3 * GENERATION_MAX {
            kinds.remember(&Key::new(number.to_string()), Mask::default());
        }
        assert!(kinds.young.len() + kinds.old.len() <= 2 * GENERATION_MAX);
    }
}
