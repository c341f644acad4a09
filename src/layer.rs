//! Weighted layers: linear maps whose weights are an argument.
//!
//! Because the weights are passed in, a feedback rule can send deltas through other matrices than
//! the layer's own, and no layer ever learns which rule is at work.

mod dense;

use nalgebra::{DMatrix, DVector};

pub(crate) use dense::Bias;
pub use dense::Dense;

/// `∂J/∂W` and `∂J/∂b` of one layer, in the shapes of `W` and `b`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerGradient<T> {
    pub(crate) weights: DMatrix<T>,
    pub(crate) bias: Option<DVector<T>>,
}
