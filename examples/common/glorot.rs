//! Weights and feedback that are drawn alike, as BioTorch draws them.

use feedback_alignment::{Feedback, FeedbackInit, FeedbackRule, Init, Network, NetworkBuilder};

use crate::common::Result;

/// A network with Glorot's uniform weights, and feedback for it. Under FA and frSF its matrices are the
/// weights of another such network, since they stand in their place.
pub fn alike(
    builder: NetworkBuilder<f32>,
    rule: FeedbackRule,
    seed: u64,
) -> Result<(Network<f32>, Feedback<f32>)> {
    let builder = builder.init(Init::GlorotUniform);
    let another = builder.clone().seed(!seed).build()?;
    let network = builder.seed(seed).build()?;
    let mut feedback = Feedback::new(&network, rule, FeedbackInit::default(), seed)?;
    if matches!(rule, FeedbackRule::Fa | FeedbackRule::FrSf) {
        for layer in 0..network.layer_count() - 1 {
            let weights = another.layer(layer + 1)?.weights();
            let kernels = feedback.matrix(layer)?.is_some_and(|b| b.shape() == weights.shape());
            let b = if kernels { weights.into_owned() } else { weights.transpose() };
            feedback.set_matrix(layer, b)?;
        }
    }
    Ok((network, feedback))
}
