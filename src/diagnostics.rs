//! Looking inside: how far the deltas of a rule are from those of backpropagation, and what
//! becomes of the layers.

// The order is that of dependence, as in `lib.rs`.
mod report;
mod activity;
mod weights;
mod observe;
mod descent;

pub use observe::Diagnostics;
pub use report::{Diagnosis, LayerDiagnosis};
