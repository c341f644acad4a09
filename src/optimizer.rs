//! Turning gradients into steps: SGD, RMSprop, Adam and AdamW, learning-rate schedules, max-norm.
//!
//! An optimiser is a plain value with its constants. What it remembers from step to step is the
//! [`OptimizerState`].

// The order is that of dependence, as in `lib.rs`.
mod schedule;
mod config;
#[cfg(feature = "safetensors")]
mod description;
mod update;
mod step;
mod state;
mod guard;
mod stage;
#[cfg(feature = "safetensors")]
mod moments;

pub use config::{Adam, AdamW, Momentum, Optimizer, RmsProp, Sgd, WeightDecay};
pub use schedule::{Decay, Schedule};
pub use state::OptimizerState;

#[cfg(feature = "safetensors")]
pub(crate) use {
    description::{FEEDBACK_OPTIMIZER, OPTIMIZER, SCHEDULE},
    moments::MOMENTS,
};

pub(crate) use guard::{of_gradients, of_learned};
pub(crate) use step::{NextStep, Numbers};
