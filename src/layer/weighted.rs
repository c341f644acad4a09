//! A weighted layer in the form that users see.

use nalgebra::{DMatrixView, DVectorView};

use super::operation::Operation;
use crate::{parameters::OfLayer, scalar::Scalar};

/// A weighted layer, `a = W h + b`: fully connected, or a convolution. For a convolution `h` is the
/// part of the input under a kernel.
///
/// | layer | `W` | `b` |
/// |---|---|---|
/// | dense | `outputs × inputs` | `outputs` |
/// | convolution | `C_out × (C_in · kh · kw)`, the kernels as rows, in the order of the image | `C_out` |
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    pub(crate) parameters: OfLayer<'a, T>,
    pub(crate) operations: &'a [Operation],
}

impl<T: PartialEq> PartialEq for Layer<'_, T> {
    /// Compares `W` and `b`, not the operations that follow.
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.parameters, other.parameters);
        one.slots[0].rows == two.slots[0].rows
            && one.weights() == two.weights()
            && one.bias() == two.bias()
    }
}

impl<'a, T: Scalar> Layer<'a, T> {
    /// `W`.
    #[must_use]
    pub fn weights(self) -> DMatrixView<'a, T> {
        let slot = &self.parameters.slots[0];
        DMatrixView::from_slice(self.parameters.weights(), slot.rows, slot.columns)
    }

    /// `b`; `None` if the layer was built without a bias.
    #[must_use]
    pub fn bias(self) -> Option<DVectorView<'a, T>> {
        self.parameters.bias().map(|bias| DVectorView::from_slice(bias, bias.len()))
    }

    /// The operations after the layer, in order. If there are none, the layer is linear.
    #[must_use]
    pub fn operations(self) -> &'a [Operation] {
        self.operations
    }
}
