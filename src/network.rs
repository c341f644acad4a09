//! The network: it holds the forward parameters and nothing else.

// The order is that of dependence, as in `lib.rs`.
mod block;
mod definition;
mod builder;
mod convert;
mod forward;
mod gradients;
mod tangent;
mod product;
#[cfg(feature = "safetensors")]
mod parameters;
#[cfg(feature = "safetensors")]
mod tensor_names;
#[cfg(feature = "safetensors")]
mod file;

pub use builder::NetworkBuilder;
pub use definition::Network;
#[cfg(feature = "safetensors")]
pub use tensor_names::LoadOptions;

pub(crate) use block::{Block, Derivative};
pub(crate) use forward::EVALUATION_BATCH;
#[cfg(feature = "safetensors")]
pub(crate) use parameters::{column_major, row_major};
