//! Tidewater: an eventually consistent, sharded key-value store.
//!
//! A key is routed over a consistent-hash ring, through QUIC, to N replicas. Each request chooses its own consistency. A sloppy quorum
//! keeps taking writes while nodes are cut off, CRDTs merge what diverged, and read repair, hints and exchange bring replicas level.
//!
//! What counts, in this order: **(1)** an acknowledged write is never lost and a deleted value never comes back; **(2)** every live
//! node answers; **(3)** it is fast; **(4)** a person can see why it answered as it did.
//!
//! # A request's way
//!
//! ```text
//!  redis-cli, any Redis client      tidewater's commands, client::Client        curl, Prometheus
//!        |  RESP2/3 (TCP, TLS)             |  QUIC, mutual TLS                       |  HTTP
//!     api::resp                       host::native                             api::http
//!        '------------------------------- | ----------------------------------------'
//!                       Op + Consistency + deadline + operation id
//!                                         v
//!                     host::Handle   bounded; full is an answer: Overloaded
//!                                         v
//!     host::lane   one task, some partitions:  drain inputs -> node::Shard decides -> one storage batch -> send -> reply
//!                                         |
//!        node::coordinator   admit, route, gather, decide (plan), replicate, answer with a receipt
//!        node::replica       rows, seen, log, small objects remembered: apply, read, mint
//!        node::hints         what is kept for owners that are away
//!        node::exchange      who lacks what, and asking for it
//!        node::floor         when a delete row may go; node::scrub  whether owners hold the same
//!                                         |
//!     host::peers   one link to every member; many messages a frame, many frames a write, three classes of urgency
//! ```
//!
//! *Write before you speak* is the lane's loop and nothing else: whatever is sent or answered was committed before.
//!
//! # Where a key lives (`ring`)
//! `slot = CRC16(hash tag or key) mod 16384`, as in Redis Cluster; `partition = slot * Q / 16384`. Each partition has a preference list
//! of all nodes: its N owners first, then the stand-ins. The list follows from the layout alone. Liveness (SWIM, `node::membership`)
//! says who is asked; it never says who owns.
//!
//! # What is stored (`data`)
//! An object is a product of components (register, counter, set members, map fields, siblings, flag, deadlines), each made of rows. Every
//! mutation is a dot, `(incarnation, counter)`, counted per node and partition without holes. A replica keeps, per partition, **seen**:
//! all dots whose effects it has incorporated. Merge, for all types, is one sentence: *keep a dot iff both store it, or the one that
//! lacks it has not seen it*. So removal leaves nothing behind, and late or repeated messages are harmless. Reads and full syncs
//! merge by it. Where this page's authors chose a way of their own:
//!
//! - **Superseded before it came.** A removal may name a dot that has not arrived. That dot is *dead* here, not *seen*: it will not be put,
//!   but the message that carries it is still needed, because it may itself supersede others. Exchange asks for what is not seen, so
//!   no such message is missed (`node::replica`).
//! - **Counters** are running totals per incarnation over a floor of what was removed. One row is written by one incarnation only, a
//!   later total contains every earlier one, and a removal raises the floor to just what it saw. An increment that may have been sent
//!   before stands in a row under its operation id instead, and is void where a total is known to contain it. Nothing needs folding,
//!   and counts stay exact under concurrent reset and retry (`data::row`, `node::coordinator::plan`). A read that merges the one with the
//!   other asks who knows; what is left in doubt its receipt tells (`node::coordinator::naming`).
//! - **A string** is a register and a counter seen as one: its text is the register's, or its number plus what was counted since. `INCR`
//!   is therefore exact under partitions, and `SET` resets what it saw. A map field is the same in small.
//! - **Blind writes.** A replica knows a bound on all stamps of a partition. A register write stamped above it cannot lose, so it needs no
//!   read before it; any other reads first.
//! - **Large sets and maps.** Members and fields lie in the order of their names' hashes, so a page of a walk is one range of rows and its
//!   cursor a number that needs no memory. A page reaches as far as every owner that answered has reached; within it merge is as ever.
//!   The doors read whole collections by pages (`wire::message::Scope`, `api::resp::whole`).
//! - **Deadlines** belong to a life of the value. A `SET` with one starts a life and carries it; `EXPIRE` writes a row for the lives that it
//!   saw. Values without a deadline share life 0 until it is given one, and what is added joins the life of what is there. A coordinator
//!   may have missed a deadline or a deletion, and does not ask before it adds: each delta says what it goes by (`data::mutation::Basis`),
//!   an owner that knows more says so with its answer, or refuses what would have ended before it began, and the coordinator puts once
//!   more, elsewhere, what still stands (`node::coordinator::moving::moved`). Hints and levels below a quorum go without that, and so
//!   does an addition beside a value whose birth with a deadline its coordinator has missed: it stands for longer than the value.
//!
//! # Coming level again
//! Owners report what they have seen about once a second, changed partitions only, and everything at once when a peer or the link to it
//! is back: first its digest, and in full only to who holds something else. What has been missing over two rounds is pulled from the
//! sender's log. An entry of the log carries its dot, the rows that it touched as they stand, and by name what it removed: **a removal
//! travels by name only**. That a row is missing elsewhere is never a reason to drop it here, since the other may not have had it yet;
//! read repair only adds. The one exception is a full sync's page, which carries the sender's context, and what it removes is minted as a
//! mutation of the receiver's own, so that it has a name from then on. The log is dropped up to the cut that every owner has reported.
//! Who lacks what is below that cut (a new or wiped disk, a lost tail) is sent the partition's rows instead, and takes the sender's
//! context only at the end. Whoever seems to lag for longer than it should take is asked again. Hints are handed over when their owner is
//! back, and deleted after it has fsynced them.
//!
//! # Letting go
//! A replica that has seen an entry and does not hold it has let it go, for whatever reason. So a delete row, an ended life, the floor
//! of a counter or an operation id is dropped by each owner for itself, without a word, as soon as nothing can come any more that it
//! would have to hold off. That is asked of *every* member, since any may be a stand-in: a time below which it mints nothing more,
//! and that it keeps no hints; then, of the owners, that all have seen what any of them had (`node::floor`). A member that is away
//! holds it, and is named, until it has been away beyond the horizon: then all others fence it, durably and known by its store, before
//! they let go without it (`node::fence`), and it must come back empty. Life 0, which may begin again, is ended in three steps instead
//! (`node::replica::collect`). A scrub compares what owners hold byte for byte, what merely waits to be dropped left out, and has the
//! odd one out start anew (`node::scrub`).
//!
//! # Hurt on purpose
//! A node started with `allow_faults` has a socket that loses, delays and cuts off what it and a named peer say to each other, below QUIC
//! and by the peer's address; it stops, dies, forgets its disk or steps its wall clock when a client orders it (`host::faults`). The
//! simulator does the same to the same code without machines; this is for real processes, by hand and for the benchmarks.
//!
//! # The rooms
//! One direction: `data < ring < wire < storage < node < net < {host, sim, client} < api < cli < main`. A room imports rooms to its
//! left only. The rooms that decide (`data`, `ring`, `wire`, `node`, `sim`) see no clock, no socket, no thread and no RocksDB. Each third-party
//! library has one door. `tests/tidy.rs` holds all of this.

pub mod api;
pub mod cli;
pub mod client;
pub mod data;
pub mod host;
pub mod net;
pub mod node;
pub mod ring;
pub mod sim;
pub mod storage;
pub mod wire;

pub use client::{Client, ClientError, ClientOptions};
