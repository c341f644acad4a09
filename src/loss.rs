//! Losses on logits, and the error `e = ∂J/∂a_L` that every learning rule starts from.

// The order is that of dependence, as in `lib.rs`.
mod formulas;
mod kinds;
mod check;
mod stage;
mod weighted;
mod prior;

pub use kinds::Loss;

pub(crate) use weighted::require_class_weights;
