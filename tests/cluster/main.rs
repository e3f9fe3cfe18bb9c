//! Clusters of real node processes on this machine: killed, paused, given rubbish, filled up, and asked by the command line.
//!
//! ```text
//!  harness    a cluster in a folder of its own, on free ports; no process outlives the test, however it ends
//!  outage     one node away: nobody sees an error; two away: what may be written is, what may not is refused at once
//!  bad_input  what people and machines get wrong, and what they are told
//!  commands   the verbs of the command line
//!  faults     what `tidewater faults` does to a running cluster, and to one that does not allow it
//! ```

#![cfg(feature = "rocks")]

mod bad_input;
mod commands;
mod faults;
mod harness;
mod outage;
