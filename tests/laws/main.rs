//! The laws: properties that hold for all inputs, each room's in a file of its own.

mod cluster;
mod collecting;
mod gathering;
mod lagging;
mod model;
mod placement;
mod straying;
