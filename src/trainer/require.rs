//! Refusing settings with which feedback could not work.

use crate::{
    activation::Activation,
    error::{Error, Result},
    feedback::Feedback,
    layer::Operation,
    network::Network,
    scalar::Scalar,
};

/// Fails if the hidden layers would never learn. Some routes carry no signal if all weights are zero, and
/// a first layer of zeros that does not learn lets nothing of the input through. Biases are not looked
/// at: only some of them would let the layers begin to learn.
pub(super) fn require_movable<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
) -> Result<()> {
    let hidden = &network.blocks[..network.layer_count() - 1];
    let moves = |numbers: &[T]| numbers.iter().any(|&number| number != T::zero());
    let layer = |layer: usize| network.parameters.layer(layer);
    let refuse = |reason| Err(Error::CannotLearn { rule: feedback.rule_name(), reason });
    let past_first =
        |operation: &Operation| operation.skip().is_some_and(|skip| skip.from.is_none());
    let has_way_past = hidden.iter().any(|block| block.operations.iter().any(past_first));
    if !feedback.route().serves(0) && !has_way_past && !moves(layer(0).weights()) {
        return refuse("no feedback leads to the first layer, and it lets nothing through");
    }
    if (0..network.layer_count()).any(|index| moves(layer(index).weights())) {
        return Ok(());
    }
    let is_relu = |operation: &Operation| match operation {
        Operation::Activation(Activation::LeakyRelu { slope }) => *slope == 0.0,
        other => *other == Operation::Activation(Activation::Relu),
    };
    let relu = hidden.iter().any(|block| block.operations.iter().any(is_relu));
    if relu {
        return refuse("a ReLU unit that receives nothing has a derivative of 0");
    }
    if feedback.route().reads_weights() || feedback.route().has_slopes() {
        return refuse("its feedback passes through the weights, or learns what they do");
    }
    Ok(())
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
