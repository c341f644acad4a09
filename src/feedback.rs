//! Feedback: a route together with the matrices that one network needs for it.

// The order is that of dependence, as in `lib.rs`.
mod hops;
mod stored;
mod mirror;
mod slopes;
mod matrices;
mod noise;
mod tangents;
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
