//! THE LOAD: what is asked, how fast, and how long it took.
//!
//! ```text
//!   crew       threads with workers on them; stages: fill, run, last look
//!   worker     draws an operation and a key, asks, has the answer judged and its time taken
//!   keys, workload, values      what is drawn (pure)        pace      when (closed loop, or by the clock)
//!   recorder   histograms per kind and per second
//! ```
//!
//! Frugal by design: few threads, each with a runtime of its own and its own histograms; a worker's requests reuse their room. In an open
//! loop latency counts from when a request should have been sent, so that a server that stalls is charged for all who waited.

pub mod crew;
pub mod keys;
pub mod pace;
pub mod recorder;
pub mod values;
pub mod worker;
pub mod workload;
pub mod world;
