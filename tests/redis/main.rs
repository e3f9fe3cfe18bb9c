//! The RESP door of real clusters, asked by Redis's own tools: redis-cli, redis-benchmark, redis-py; and by bytes no tool would send.
//!
//! ```text
//!  harness      clusters of three node processes, the tools, tables of commands and answers; no process outlives its test
//!  strings      GET SET and their like, counters               \
//!  collections  sets and hashes                                 > tables: what redis-cli prints is what Redis's would print
//!  keys         deletion, expiry, walks over all keys          /
//!  server       the connection and what is told about the server and the cluster; what is refused, and why
//!  tidewater    TW.*: consistency, receipts, siblings, operation ids
//!  pipelines    order within a connection, inline commands
//!  clients      redis-py and redis-benchmark
//!  doors        TLS, passwords, the bound on connections
//!  abuse        broken frames, sizes over the limits, connections that never speak
//! ```
//! A missing tool is a failure that says how to install it: a door that no client was held against is not tested.

#![cfg(feature = "rocks")]

mod abuse;
mod clients;
mod collections;
mod doors;
mod harness;
mod keys;
mod pipelines;
mod server;
mod strings;
mod tidewater;
