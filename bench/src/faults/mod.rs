//! WHAT GOES WRONG, and when: a scenario is read, played on the cluster, and what comes after it is watched.
//!
//! ```text
//!   schedule    a scenario's text -> faults with their times (pure)
//!   scenarios   those that are shipped, found by name
//!   surgeon     does it: to processes of our own, or by asking nodes that allow it
//!   player      when; tells what is on, and how long healing takes
//! ```

pub mod player;
pub mod scenarios;
pub mod schedule;
pub mod surgeon;
mod words;
