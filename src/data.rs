//! Samples and their targets: in memory, in shuffled batches, and from files.

// The order is that of dependence, as in `lib.rs`.
mod scaling;
mod dataset;
mod split;
mod batches;
mod fit;
pub mod whitening;
mod number;
pub mod cifar;
#[cfg(feature = "csv")]
pub mod csv;
pub mod idx;
mod augment;

pub use augment::{Augmentation, Flip};
pub use batches::Batch;
pub use dataset::Dataset;
pub use scaling::Scaling;
pub use whitening::Whitening;

pub(crate) use batches::require_batch_size;
