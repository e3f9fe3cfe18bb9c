//! HOW it is kept: an ordered store of bytes, one atomic batch at a time.
//!
//! ```text
//!   a lane's turn                                    the machine's disk
//!   ┌───────────────────────────────┐
//!   │ Overlay: this turn's writes   │  get, scan: overlay first, then the store
//!   │   └─ Fenced: broken stays so  │  commit: one Batch over all spaces, all or nothing
//!   │        └─ Storage             │  sync: what was committed survives a power cut
//!   │            ├─ memory (tests, simulator)
//!   │            └─ rocks  (RocksDB) ──────────────────▶ DataFolder/store
//!   └───────────────────────────────┘                    DataFolder/{tidewater.toml, lock, clean}
//! ```
//!
//! - `contract`: the words [`Storage`], [`Batch`], [`Space`], [`StoreError`], and what an engine promises.
//! - `overlay`: a turn reads its own writes before they are committed.
//! - `fence`: after the first error a store answers nothing but that error.
//! - `memory`, `rocks`: the engines. One suite (`tests/suites`) proves them the same. `torn_log` stands before RocksDB's replay.
//! - `folder`: whose data folder this is, who holds it, and whether the last shutdown was clean. `wipe`: losing the store on purpose.
//!
//! It knows bytes and their order only: what a row means, how a key is built and when something may be dropped is decided in
//! `node`. It trusts that one process holds the folder (the lock sees to it) and that lanes write to disjoint ranges of keys:
//! engines do not detect two lanes that overwrite each other. It does not replicate, does not merge, and does not encrypt.

mod contract;
mod fence;
pub mod folder;
mod memory;
mod overlay;
#[cfg(feature = "rocks")]
mod rocks;
#[cfg(feature = "rocks")]
mod torn_log;
pub mod wipe;

pub use contract::{Batch, MAX_BATCH_BYTES, Op, SharedStorage, Space, Storage, StoreError, prefix_end};
pub use fence::Fenced;
pub use folder::{DataFolder, FolderError, Start};
pub use memory::MemoryStore;
pub use overlay::Overlay;
#[cfg(feature = "rocks")]
pub use rocks::{RocksOptions, RocksStore};
