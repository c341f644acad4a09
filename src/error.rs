//! What can go wrong, with both sides of every mismatch.

// The order is that of dependence, as in `lib.rs`.
mod kinds;
mod require;

pub use kinds::{Error, Result};

pub(crate) use require::*;
