//! What a call gives back when it was met.

use bytes::Bytes;

use crate::data::consistency::Receipt;
use crate::data::id::OpId;

/// A value, and how it came about.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer<T> {
    pub value: T,
    /// Who answered, who was missing, what was repaired, how long the coordinator took.
    pub receipt: Receipt,
    /// The name of the operation, for mutations.
    pub op_id: Option<OpId>,
    /// How many tries it took.
    pub attempts: u32,
}

impl<T> Answer<T> {
    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), receipt: self.receipt, op_id: self.op_id, attempts: self.attempts }
    }
}

/// A piece of a set or of a hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// May be empty, and the walk not done.
    pub items: Vec<T>,
    /// From where the next page begins; `None`: this was the last. What stayed in the collection throughout a walk is in just one of its
    /// pages.
    pub next: Option<u64>,
}

/// Concurrent values of one key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Siblings {
    /// Sorted by birth. None: the key holds no siblings. More than one: they were written without knowledge of each other.
    pub values: Vec<Bytes>,
    /// What to give to [`put_sibling`](super::Client::put_sibling), so that the new value replaces these and no others.
    pub context: Bytes,
}
