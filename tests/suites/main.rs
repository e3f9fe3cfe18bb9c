//! One suite per trait, run over every implementation of it.

#[cfg(feature = "rocks")]
mod crash;
mod folder;
mod storage;
mod wipe;
