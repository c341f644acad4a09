//! Whether gradients and moments are of the network on which a step is to be made.

use nalgebra::DVector;

use super::{OptimizerState, channels};
use crate::{
    error::{Error, Result, require_shape},
    network::Network,
    scalar::Scalar,
    workspace::Gradients,
};

impl<T: Scalar> OptimizerState<T> {
    /// Fails unless gradients and moments have the shapes of the network's parameters.
    pub(super) fn check_shapes(
        &self,
        network: &Network<T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        let mismatch = |what, expected: usize, found: usize| Error::StageMismatch {
            stage: "optimizer step",
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        };
        let layers = network.layers();
        if gradients.layers.len() != layers {
            return Err(mismatch("gradients of layers", layers, gradients.layers.len()));
        }
        if self.blocks.len() != layers {
            return Err(mismatch("moments of layers", layers, self.blocks.len()));
        }
        for (index, block) in network.blocks.iter().enumerate() {
            let (expected, found) = (block.operations.len(), gradients.norms[index].len());
            if expected != found {
                return Err(mismatch("gradients of operations", expected, found));
            }
            let (layer, gradient) = (&block.layer, &gradients.layers[index]);
            let what = || format!("the gradient of W of weighted layer {index}");
            require_shape(what, layer.weights.shape(), gradient.weights.shape())?;
            let length = |bias: &Option<DVector<T>>| bias.as_ref().map_or(0, DVector::len);
            if length(&layer.bias) != length(&gradient.bias) {
                let (expected, found) = (length(&layer.bias), length(&gradient.bias));
                return Err(mismatch("gradients of a bias of", expected, found));
            }
            if self.optimizer.moments() > 0 {
                let moments = &self.blocks[index];
                let (expected, found) = (layer.weights.len(), moments.weights[0].len());
                if expected != found || length(&layer.bias) != moments.bias[0].len() {
                    return Err(mismatch("moments of weights", expected, found));
                }
                let (expected, found) = (block.operations.len(), moments.norms.len());
                if expected != found {
                    return Err(mismatch("moments of operations", expected, found));
                }
                for (operation, [scale, _]) in block.operations.iter().zip(&moments.norms) {
                    let (expected, found) = (channels(operation), scale[0].len());
                    if expected != found {
                        return Err(mismatch("moments of batch normalisation", expected, found));
                    }
                }
            }
        }
        Ok(())
    }
}
