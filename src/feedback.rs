//! A route at work on one network, with its matrices.

// The order is that of dependence, as in `lib.rs`.
mod hops;
mod matrices;
mod signs;
mod learn;
mod create;
mod align;
mod deliver;

pub use matrices::Feedback;

pub(crate) use learn::Learning;
