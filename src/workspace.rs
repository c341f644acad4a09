//! Scratch memory of a training step: activations, deltas and gradients.
//!
//! Each grows to the largest batch it has seen and then never allocates again; a smaller batch uses the
//! first columns. Every stage overwrites what it fills, so nothing has to be cleared in between.

// The order is that of dependence, as in `lib.rs`.
mod layout;
mod activations;
mod block_deltas;
mod signals;
mod deltas;
mod gradients;

pub use activations::Activations;
pub use deltas::Deltas;
pub use gradients::Gradients;

pub(crate) use activations::{Below, BlockActivations, Record};
pub(crate) use block_deltas::BlockDeltas;
pub(crate) use deltas::{require_delivered, require_match};
pub(crate) use layout::{BlockLayout, Layout, require_layout};
pub(crate) use signals::{AtOutput, common_mode, mean_over_batch};
