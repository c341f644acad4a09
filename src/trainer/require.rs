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
/// a hidden layer of zeros that no feedback leads to lets nothing of the input through. Biases are not
/// looked at: only some of them would let the layers begin to learn. A frozen layer counts as one that
/// learns, because it may be released. Where all weights are zero, what learns slowly may be refused too.
/// Where some are not, nothing is refused but the hidden layer of zeros.
pub(super) fn require_movable<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
) -> Result<()> {
    let (route, hidden) = (feedback.route(), &network.blocks[..network.layer_count() - 1]);
    let refuse = |reason: &str| {
        Err(Error::CannotLearn { rule: feedback.rule_name(), reason: reason.into() })
    };
    let is_zero = |layer: usize| {
        network.parameters.layer(layer).weights().iter().all(|&weight| weight == T::zero())
    };

    // Whether the output of each layer depends on the input, or may when the layers have learned.
    let mut depends: Vec<bool> = Vec::new();
    for (layer, block) in hidden.iter().enumerate() {
        let below = depends.last().is_none_or(|&below| below);
        let past = block.operations.iter().any(|operation| adds_some(operation, &depends));
        depends.push(past || below && (route.serves(layer) || !is_zero(layer)));
    }
    if depends.last() == Some(&false) {
        let layer = depends.iter().rposition(|&depends| depends).map_or(0, |last| last + 1);
        let why = "lets nothing through, and no feedback leads there";
        return refuse(&format!("hidden layer {layer} {why}"));
    }
    if !(0..network.layer_count()).all(is_zero) {
        return Ok(());
    }

    // All weights are zero. Only residual connections carry something yet.
    let mut carries: Vec<bool> = Vec::new();
    for block in hidden {
        let mut carried = false;
        for operation in &block.operations {
            carried |= adds_some(operation, &carries);
            if is_relu(operation) && !carried {
                return refuse("a ReLU unit that receives nothing has a derivative of 0");
            }
        }
        carries.push(carried);
    }
    if route.reads_weights() || route.has_slopes() {
        return refuse("its feedback passes through the weights, or learns what they do");
    }
    Ok(())
}

/// Whether the operation is a residual connection that starts at the input of the network, or at a layer
/// that is marked.
fn adds_some(operation: &Operation, marked: &[bool]) -> bool {
    operation.skip().is_some_and(|skip| skip.from.is_none_or(|layer| marked[layer]))
}

fn is_relu(operation: &Operation) -> bool {
    match operation {
        Operation::Activation(Activation::LeakyRelu { slope }) => *slope == 0.0,
        other => *other == Operation::Activation(Activation::Relu),
    }
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
