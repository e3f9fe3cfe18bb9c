//! WHERE a key lives. Pure.
//!
//! ```text
//!  key --CRC16 of its hash tag--> slot (16384) --range--> partition (Q) --table--> preference list
//!                                                                           owners | stand-ins
//!  layout: who the members are (a person decides)  --built once-->  table
//!  layout + table + who is up (SWIM decides)       ------------->  view: what everybody else asks
//! ```
//!
//! A [`layout::Layout`] is all that two nodes must agree on: the [`table::Table`] is a function of it and of nothing else, in
//! integers only, so that every node and every client computes the same one. A [`view::View`] adds who is up, on which nodes may
//! differ; it moves nothing, it only says whom to ask.
//!
//! Trusts: that a layout was validated before it is agreed on. (A table can be built of one that was not, without a panic; its
//! balance is then nobody's promise.) Does not do: decide who is up (`node::membership`), move data between layouts, or pick whom
//! to ask among the owners (`node::coordinator`).
//!
//! The only room that names the library `hashring`, and only `table` does.

pub mod layout;
pub mod slot;
pub mod table;
pub mod view;

mod assign;
mod fair;
