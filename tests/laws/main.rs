//! The laws: properties that hold for all inputs, each room's in a file of its own.

mod gathering;
mod placement;
