//! The same network in another scalar.

use std::sync::Arc;

use super::{Block, Network};
use crate::{
    layer::{Layer, Operation},
    scalar::Scalar,
};

impl<T: Scalar> Network<T> {
    /// The same network in `f64`, with the same dropout masks for the same seed and time.
    pub(crate) fn to_f64(&self) -> Network<f64> {
        let operations =
            |operations: &[Operation<T>]| operations.iter().map(Operation::to_f64).collect();
        let block = |Block { layer, operations: after, frozen }: &Block<T>| Block {
            layer: Layer {
                map: layer.map,
                weights: layer.weights.map(T::as_f64),
                bias: layer.bias.as_ref().map(|bias| bias.map(T::as_f64)),
            },
            operations: operations(after),
            frozen: *frozen,
        };
        Network {
            architecture: self.architecture.clone(),
            layout: Arc::clone(&self.layout),
            input_operations: operations(&self.input_operations),
            blocks: self.blocks.iter().map(block).collect(),
            drawn_for: self.drawn_for,
        }
    }
}

impl<T: Scalar> Operation<T> {
    fn to_f64(&self) -> Operation<f64> {
        match self {
            Self::Activation(activation) => Operation::Activation(*activation),
            Self::Pool2d(pool) => Operation::Pool2d(*pool),
            Self::BatchNorm(norm) => Operation::BatchNorm(norm.to_f64()),
            Self::Dropout(dropout) => Operation::Dropout(*dropout),
        }
    }
}
