//! Rows as they are compared and held: one after the other, in the order of their paths, each as it is on disk.
//!
//! ```text
//!   | component u8 | member length u32 | row length u32 | member | row |   ... the next
//! ```
//! Rows are canonical, so equal rows are equal bytes: two replicas find by a digest of these whether they hold the same, and what is held
//! so is told the same without being decoded.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::data::path::{Component, Path};
use crate::data::row::Row;
use crate::wire::codec;

const HEAD_BYTES: usize = 1 + 4 + 4;

/// Rows of one object, packed. Made here only, so what is in it can be taken apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packed(Box<[u8]>);

/// One packed row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    pub component: Component,
    pub member: &'a [u8],
    /// As on disk.
    pub row: &'a [u8],
}

impl Piece<'_> {
    /// Paths in order are pieces in this order.
    fn order(&self) -> (Component, &[u8]) {
        (self.component, self.member)
    }
}

impl Packed {
    /// Pieces in the order of their paths.
    pub fn new<'a>(pieces: impl Iterator<Item = Piece<'a>> + Clone) -> Self {
        let bytes = pieces.clone().map(|piece| HEAD_BYTES + piece.member.len() + piece.row.len()).sum();
        let mut packed = Vec::with_capacity(bytes);
        pieces.for_each(|piece| push(&mut packed, piece));
        Self(packed.into())
    }

    /// What is held in memory.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    pub fn rows(&self) -> usize {
        self.pieces().count()
    }

    pub fn pieces(&self) -> Pieces<'_> {
        Pieces(&self.0)
    }

    /// With a row in the place of the one with its path, or without it.
    pub fn with(&self, component: Component, member: &[u8], row: Option<&[u8]>) -> Self {
        let new = row.map(|row| Piece { component, member, row });
        let at = (component, member);
        let before = self.pieces().take_while(|piece| piece.order() < at);
        let after = self.pieces().skip_while(|piece| piece.order() <= at);
        Self::new(before.chain(new).chain(after))
    }

    /// See [`digest`].
    pub fn digest(&self) -> u128 {
        xxh3_128(&self.0)
    }
}

#[derive(Clone)]
pub struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (head, rest) = self.0.split_first_chunk::<HEAD_BYTES>()?;
        let [component, member @ .., _, _, _, _] = *head;
        let [.., r0, r1, r2, r3] = *head;
        let component = Component::from_byte(component)?;
        let (member, rest) = rest.split_at_checked(u32::from_be_bytes(member) as usize)?;
        let (row, rest) = rest.split_at_checked(u32::from_be_bytes([r0, r1, r2, r3]) as usize)?;
        self.0 = rest;
        Some(Piece { component, member, row })
    }
}

fn push(packed: &mut Vec<u8>, Piece { component, member, row }: Piece) {
    packed.push(component as u8);
    packed.extend_from_slice(&(member.len() as u32).to_be_bytes());
    packed.extend_from_slice(&(row.len() as u32).to_be_bytes());
    packed.extend_from_slice(member);
    packed.extend_from_slice(row);
}

/// A digest of rows by which two replicas find that they hold the same.
pub fn digest(rows: &BTreeMap<Path, Row>) -> u128 {
    let mut packed = Vec::new();
    for (path, row) in rows {
        push(&mut packed, Piece { component: path.component, member: &path.member, row: &codec::encode(row) });
    }
    xxh3_128(&packed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_a_map_from_paths_to_rows(
            changes in proptest::collection::vec((1..=10_u8, "[ab]{0,2}", proptest::option::of("[xy]{0,3}")), 0..30),
        ) {
            let mut packed = Packed::default();
            let mut model = BTreeMap::new();
            for (component, member, row) in &changes {
                let component = Component::from_byte(*component).expect("one of them");
                packed = packed.with(component, member.as_bytes(), row.as_ref().map(|row| row.as_bytes()));
                match row {
                    Some(row) => model.insert((component, member.as_bytes()), row.as_bytes()),
                    None => model.remove(&(component, member.as_bytes())),
                };
                let wanted = model.iter().map(|(&(component, member), &row)| Piece { component, member, row });
                prop_assert!(packed.pieces().eq(wanted.clone()));
                prop_assert_eq!(&packed, &Packed::new(wanted));
                prop_assert_eq!(packed.rows(), model.len());
            }
        }
    }
}
