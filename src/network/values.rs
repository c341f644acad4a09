//! The numbers of a network's parameters, one parameter after the other.

use nalgebra::DVector;

use super::Network;
use crate::{
    layer::{BatchNorm, Operation},
    scalar::Scalar,
};

impl<T: Scalar> Network<T> {
    /// The numbers of every parameter as they stand in memory, matrices column by column.
    pub(crate) fn values(&self) -> Vec<&[T]> {
        let mut values = Vec::new();
        for block in &self.blocks {
            values.push(block.layer.weights.as_slice());
            values.extend(block.layer.bias.iter().map(DVector::as_slice));
            for operation in &block.operations {
                if let Operation::BatchNorm(norm) = operation {
                    let BatchNorm { scale, shift, running_mean, running_variance, .. } = norm;
                    let vectors = [scale, shift, running_mean, running_variance];
                    values.extend(vectors.map(DVector::as_slice));
                }
            }
        }
        values
    }

    /// [`values`](Self::values), to be written.
    pub(super) fn values_mut(&mut self) -> Vec<&mut [T]> {
        let mut values = Vec::new();
        for block in &mut self.blocks {
            values.push(block.layer.weights.as_mut_slice());
            values.extend(block.layer.bias.iter_mut().map(DVector::as_mut_slice));
            for operation in &mut block.operations {
                if let Operation::BatchNorm(norm) = operation {
                    let BatchNorm { scale, shift, running_mean, running_variance, .. } = norm;
                    let vectors = [scale, shift, running_mean, running_variance];
                    values.extend(vectors.map(DVector::as_mut_slice));
                }
            }
        }
        values
    }
}
