//! A route at work on one network, with its matrices.

// The order is that of dependence, as in `lib.rs`.
mod hops;
mod stored;
mod mirror;
mod matrices;
mod noise;
mod signs;
mod learn;
mod create;
mod align;
mod deliver;
#[cfg(feature = "safetensors")]
mod tensors;

pub use matrices::Feedback;
pub use mirror::Mirror;

pub(crate) use learn::Learning;
