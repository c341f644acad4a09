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
        }
        self.check_moments(network)
    }

    /// Fails unless the moments have the shapes of the network's parameters.
    pub(super) fn check_moments(&self, network: &Network<T>) -> Result<()> {
        let require = |what, expected: usize, found: usize| {
            if expected == found {
                return Ok(());
            }
            let (expected, found) = (expected.to_string(), found.to_string());
            Err(Error::StageMismatch { stage: "optimizer step", what, expected, found })
        };
        require("moments of layers", network.layers(), self.blocks.len())?;
        if self.optimizer.moments() == 0 {
            return Ok(());
        }
        for (block, moments) in network.blocks.iter().zip(&self.blocks) {
            let bias = block.layer.bias.as_ref().map_or(0, DVector::len);
            require("moments of weights", block.layer.weights.len(), moments.weights[0].len())?;
            require("moments of a bias", bias, moments.bias[0].len())?;
            require("moments of operations", block.operations.len(), moments.norms.len())?;
            for (operation, [scale, _]) in block.operations.iter().zip(&moments.norms) {
                let what = "moments of batch normalisation";
                require(what, channels(operation), scale[0].len())?;
            }
        }
        Ok(())
    }
}
