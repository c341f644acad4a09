//! The training loop: the five stages one after the other, epoch after epoch.

// The order is that of dependence, as in `lib.rs`.
mod stopping;
mod early_stopping;
mod plateau;
mod confusion;
mod scores;
mod state;
mod require;
mod builder;
mod setters;
mod evaluation;
mod steps;
mod epochs;
#[cfg(feature = "safetensors")]
mod feedback_lines;
#[cfg(feature = "safetensors")]
mod settings;
#[cfg(feature = "safetensors")]
mod checkpoint;

pub use builder::TrainerBuilder;
pub use confusion::ConfusionMatrix;
pub use early_stopping::EarlyStopping;
pub use plateau::Plateau;
pub use scores::{Epoch, Evaluation, Step};
pub use state::Trainer;
pub use stopping::StoppingRule;

#[cfg(feature = "mpi")]
pub(crate) use scores::Tally;
