//! HOW bytes travel: QUIC with both sides' certificates shown. The one door to quinn and rustls, shared by nodes and clients.
//!
//! ```text
//!   dial / accept        Link::send(class, frame)                       Sink::on_frames(link, class, frames)
//!        |                      |                                                ^
//!   [endpoint] ---> [link]  3 bounded queues -> one writer ==3 streams==> 3 readers, frames cut from large reads
//!        |                                     datagrams <-------------> Sink::on_datagram
//!    [socket]  <- [fault]  loss, delay, cuts: a foreign UDP socket, in tests and where `allow_faults` is set
//! ```
//!
//! One endpoint per process dials and accepts on one UDP socket. A link carries, each way, one long-lived unidirectional stream per
//! [`Class`](crate::wire::frame::Class): stream 0 foreground, 1 background, 2 transfer. Nothing opens a stream per message, because
//! that costs ten times as much as a frame. All frames that wait are written together, all that arrived are handed over together.
//!
//! Trusts: the cluster's authority ([`tls`]), and QUIC for integrity and order within a stream. A link that breaks loses what was on its
//! way, and nothing tells what that was: whoever sends keeps its own deadline. A frame that cannot be one closes its link with
//! [`CloseCode::BadFrame`](link::CloseCode) and disturbs nothing else.
//!
//! Does not do: reconnecting and choosing whom to talk to (`host::peers`), knowing what a frame says (`wire`), detecting failures. The
//! idle timeout only clears away links whose other end is gone; a one-way cut may need twice its length to be noticed.

pub mod endpoint;
pub mod entropy;
pub mod fault;
pub mod link;
pub mod options;
mod seed;
mod socket;
pub mod stats;
pub mod tls;

#[cfg(test)]
pub(crate) mod tests;
