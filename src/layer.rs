//! The parts of a network: weighted layers, and the local operations between them.
//!
//! A weighted layer is a linear map whose weights are passed in as an argument. So a feedback rule can
//! send deltas through other matrices than the layer's own, and no layer knows which rule is at work. A
//! local operation sends a delta at its output back to its input by its exact derivative.

// The order is that of dependence, as in `lib.rs`.
mod shape;
mod windows;
mod bias;
mod field;
mod thread_memory;
mod slide;
mod tiles;
mod conv2d;
mod transposed;
mod weight_gradient;
mod linear;
mod gradient;
mod pool2d;
mod batch_norm;
mod layer_norm;
mod dropout;
mod skip;
mod operation;
mod weighted;

pub use batch_norm::BatchNorm;
pub use bias::Bias;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use layer_norm::LayerNorm;
pub use operation::Operation;
pub use pool2d::{AvgPool2d, MaxPool2d, Pool2d};
pub use shape::Shape;
pub use skip::Skip;
pub use weighted::Layer;

pub(crate) use gradient::UPDATE_COST;
pub(crate) use linear::LinearMap;
pub(crate) use skip::add;
pub(crate) use thread_memory::ThreadMemory;
