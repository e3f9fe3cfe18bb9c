//! WHAT is said, between nodes and with native clients, and how it becomes bytes. Pure.

pub mod client;
pub mod codec;
pub mod fault;
pub mod frame;
pub mod message;
pub mod packed_log;
pub mod status;
