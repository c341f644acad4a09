//! The fully connected layer.

use nalgebra::{DMatrix, DVector};

use super::LayerGradient;
use crate::{
    error::Result,
    linalg::{self, Into, Mat, MatMut, zero_matrix},
    scalar::Scalar,
};

/// A fully connected layer, `a = W h + b`, with `W : outputs × inputs` and `b : outputs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense<T> {
    pub(crate) weights: DMatrix<T>,
    pub(crate) bias: Option<DVector<T>>,
}

impl<T: Scalar> Dense<T> {
    /// A layer of zeros.
    pub(crate) fn zeros(inputs: usize, outputs: usize, bias: Bias) -> Result<Self> {
        Ok(Self {
            weights: zero_matrix(outputs, inputs)?,
            bias: match bias {
                Bias::With => Some(DVector::zeros(outputs)),
                Bias::Without => None,
            },
        })
    }

    /// `W`, of shape `outputs × inputs`.
    #[must_use]
    pub fn weights(&self) -> &DMatrix<T> {
        &self.weights
    }

    /// `b`, of length `outputs`, unless the layer was built without one.
    #[must_use]
    pub fn bias(&self) -> Option<&DVector<T>> {
        self.bias.as_ref()
    }

    /// `a ← W h + b`
    pub(crate) fn forward(&self, h: Mat<T>, mut a: MatMut<T>) {
        let into = match &self.bias {
            Some(bias) => {
                linalg::fill_columns(bias, a.as_mut_slice());
                Into::Add
            }
            None => Into::Overwrite,
        };
        linalg::product(Mat::from(&self.weights), h, into, a);
    }

    /// `y ← M x` with any `M` in the shape of `W`.
    pub(crate) fn apply(&self, weights: &DMatrix<T>, x: Mat<T>, y: MatMut<T>) {
        debug_assert_eq!(weights.shape(), self.weights.shape());
        linalg::product(weights.into(), x, Into::Overwrite, y);
    }

    /// `y ← Mᵀ x` with any `M` in the shape of `W`.
    pub(crate) fn apply_transpose(&self, weights: &DMatrix<T>, x: Mat<T>, y: MatMut<T>) {
        debug_assert_eq!(weights.shape(), self.weights.shape());
        linalg::product(Mat::from(weights).t(), x, Into::Overwrite, y);
    }

    /// `∂W ← δ hᵀ` and `∂b ← Σ δ` over the columns.
    pub(crate) fn gradient(&self, delta: Mat<T>, h: Mat<T>, gradient: &mut LayerGradient<T>) {
        debug_assert_eq!(gradient.weights.shape(), self.weights.shape());
        linalg::product(delta, h.t(), Into::Overwrite, (&mut gradient.weights).into());
        if let Some(bias) = &mut gradient.bias {
            linalg::sum_columns(delta.elements(), bias);
        }
    }
}

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    With,
    Without,
}
