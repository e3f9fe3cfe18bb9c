//! A store that has failed once does not get a second chance before a restart.
//!
//! After a failed write nobody knows what the disk holds: an fsync that failed may have dropped the pages and succeed the next
//! time, a node that went on would acknowledge on top of a hole. After a failed read the rest of the disk is not to be trusted
//! either, and a node that went on answering some keys would look healthy while failing its share. So the first error closes the store: every
//! later call answers [`StoreError::Fenced`] with that first cause, which the node tells its peers, its clients and its people.

use std::sync::OnceLock;

use bytes::Bytes;

use super::contract::{Batch, Space, Storage, StoreError};

/// Any storage, closed for good by its first error (a caller's mistake, [`StoreError::Invalid`], is none).
///
/// The call that fails returns the error itself; calls that were under way on other threads may still succeed.
pub struct Fenced<S> {
    storage: S,
    cause: OnceLock<String>,
}

impl<S: Storage> Fenced<S> {
    pub fn new(storage: S) -> Self {
        Self { storage, cause: OnceLock::new() }
    }

    /// Why the store is closed, `None` while it is open.
    pub fn fenced(&self) -> Option<String> {
        self.cause.get().cloned()
    }

    /// Closes the store for a reason that the engine cannot know: a row that does not decode, a failed scrub. The first cause stays.
    pub fn fence(&self, cause: impl Into<String>) {
        let _ = self.cause.set(cause.into());
    }

    /// For who has answered without the store.
    pub fn ensure_open(&self) -> Result<(), StoreError> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(StoreError::Fenced { cause: cause.clone() }),
        }
    }

    pub fn inner(&self) -> &S {
        &self.storage
    }

    fn guard<T>(&self, call: impl FnOnce(&S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.ensure_open()?;
        let result = call(&self.storage);
        if let Err(error) = &result
            && !error.is_callers_mistake()
        {
            self.fence(match error {
                StoreError::Fenced { cause } => cause.clone(),
                error => error.to_string(),
            });
        }
        result
    }
}

impl<S: Storage> Storage for Fenced<S> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.guard(|storage| storage.get(space, key))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.guard(|storage| storage.scan(space, from, to, visit))
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.guard(|storage| storage.commit(batch, sync))
    }

    fn commit_at_once(&self, batch: &Batch) -> Result<bool, StoreError> {
        self.guard(|storage| storage.commit_at_once(batch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.guard(|storage| storage.sync())
    }

    /// Fails when fenced, so that a shutdown after an error cannot pass for a clean one.
    fn flush(&self) -> Result<(), StoreError> {
        self.guard(|storage| storage.flush())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.guard(|storage| storage.check())
    }

    fn size_bytes(&self) -> u64 {
        self.storage.size_bytes()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.storage.free_bytes()
    }
}
