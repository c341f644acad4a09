//! How well the weights stand where their stand-ins, the feedback matrices, would have them.

use crate::{
    angle::angle,
    buffer::Columns,
    error::{Result, require_finite},
    feedback::Feedback,
    network::Network,
    route::{Signal, Through},
    scalar::Scalar,
};

/// For each hidden layer the angle between its feedback matrix and the weights that this stands in
/// for, where there are both.
pub(super) fn feedback_angles<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
) -> Result<Vec<Option<f64>>> {
    let hidden = network.layer_count() - 1;
    let mut angles = vec![None; hidden];
    let mut direct = vec![None; hidden];
    for (hop, matrix) in feedback.first_matrices() {
        match (hop.through, hop.signal) {
            (through, _) if through.is_like_weights() || matches!(through, Through::Product(_)) => {
                let owner = feedback.route().owner(hop);
                let weights = network.parameters.layer(owner).weights();
                angles[hop.to] = angle(matrix.as_slice(), weights);
            }
            (through, Signal::Error | Signal::ErrorSign) if through.is_straight() => {
                direct[hop.to] = Some(matrix);
            }
            _ => {}
        }
    }
    let Some(lowest) = direct.iter().position(Option::is_some) else { return Ok(angles) };
    descend(network, lowest, |layer, weights| {
        if let Some(matrix) = &direct[layer] {
            angles[layer] = angle(matrix.as_slice(), weights);
        }
    })?;
    Ok(angles)
}

/// Calls `visit` with `(W_L ⋯ W_{l+1})ᵀ` of every hidden layer from the last down to `lowest`, as
/// far as it is defined: pooling and residual connections end it.
///
/// The product is what becomes of a batch of unit errors that goes back through the weights alone,
/// which is `n_L` columns for each layer instead of a product of whole matrices, and does not care
/// whether a layer is a convolution.
fn descend<T: Scalar>(
    network: &Network<T>,
    lowest: usize,
    mut visit: impl FnMut(usize, &[T]),
) -> Result<()> {
    let outputs = network.output_len();
    let mut errors = Columns::new(outputs);
    errors.set_batch(outputs)?;
    errors.as_mut_slice().iter_mut().step_by(outputs + 1).for_each(|one| *one = T::one());
    for layer in (lowest..network.layer_count() - 1).rev() {
        let rows = network.layout.output(layer);
        let mut arrived = Columns::new(rows);
        arrived.set_batch(outputs)?;
        let weights = network.parameters.layer(layer + 1).weights();
        let map = network.blocks[layer + 1].map;
        map.apply_transpose(weights, &errors, &mut arrived, &|_, _| ());
        let what = || format!("the product of the weights above weighted layer {layer}");
        require_finite(what, rows, arrived.as_slice())?;
        visit(layer, arrived.as_slice());
        let mut operations = network.blocks[layer].operations.iter();
        if operations.any(|operation| operation.pooling().is_some() || operation.skip().is_some()) {
            break;
        }
        errors = arrived;
    }
    Ok(())
}
