//! Refusing settings with which feedback could not work.

use crate::{
    activation::Activation,
    error::{Error, Result},
    feedback::Feedback,
    layer::Operation,
    network::Network,
    scalar::Scalar,
};

/// Fails if no weight would ever change: if all weights are zero, some routes carry no signal.
pub(super) fn require_movable<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
) -> Result<()> {
    let hidden = &network.blocks[..network.layer_count() - 1];
    let mut layers =
        (0..network.layer_count()).map(|layer| network.parameters.layer(layer).weights());
    if layers.any(|weights| weights.iter().any(|&w| w != T::zero())) {
        return Ok(());
    }
    let is_relu = |operation: &Operation| match operation {
        Operation::Activation(Activation::LeakyRelu { slope }) => *slope == 0.0,
        other => *other == Operation::Activation(Activation::Relu),
    };
    let relu = hidden.iter().any(|block| block.operations.iter().any(is_relu));
    let reason = if relu {
        "a ReLU unit that receives nothing has a derivative of 0"
    } else if feedback.route().needs_weights() {
        "its feedback passes through the weights, or learns what they do"
    } else {
        return Ok(());
    };
    Err(Error::CannotLearn { rule: feedback.rule_name(), reason })
}

/// Fails if a layer that no feedback leads to has batch normalisation and is not frozen. Training would
/// use the statistics of the batch, but evaluation would use running statistics that never change.
pub(super) fn require_statistics<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
) -> Result<()> {
    let is_norm = |operation: &Operation| matches!(operation, Operation::BatchNorm(_));
    let mut blocks = network.blocks.iter().enumerate();
    let found = blocks.find(|&(layer, block)| {
        !block.frozen && !feedback.route().serves(layer) && block.operations.iter().any(is_norm)
    });
    let Some((layer, _)) = found else { return Ok(()) };
    Err(Error::Conflict {
        first: format!("the route {}", feedback.route()),
        second: format!("batch normalisation after hidden layer {layer}"),
        reason: "no feedback leads there, so its running statistics would stay: freeze the layer",
    })
}
