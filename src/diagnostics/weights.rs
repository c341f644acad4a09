//! The alignment of the weights with the feedback matrices that stand in for them.

use crate::{
    angle::angle, error::Result, feedback::Feedback, network::Network, route::Through,
    scalar::Scalar,
};

/// For each hidden layer the angle between its feedback matrix and the weights that the matrix stands
/// in for. `None` if there is no such matrix.
pub(super) fn feedback_angles<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
) -> Result<Vec<Option<f64>>> {
    let hidden = network.layer_count() - 1;
    let mut angles = vec![None; hidden];
    let mut direct = vec![None; hidden];
    for first in feedback.first_matrices() {
        let (hop, matrix) = first?;
        match (hop.through, hop.signal) {
            (through, _) if through.is_like_weights() || matches!(through, Through::Product(_)) => {
                let owner = feedback.route().owner(hop);
                let weights = network.parameters.layer(owner).weights();
                angles[hop.to] = angle(matrix.as_slice(), weights);
            }
            (through, signal) if through.is_straight() && signal.is_error() => {
                direct[hop.to] = Some(matrix);
            }
            _ => {}
        }
    }
    let Some(lowest) = direct.iter().position(Option::is_some) else { return Ok(angles) };
    network.products_above(lowest, |layer, product| {
        if let Some(matrix) = &direct[layer] {
            angles[layer] = angle(matrix.as_slice(), product);
        }
    })?;
    Ok(angles)
}
