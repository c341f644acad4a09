//! A starting bias with which the output already knows how often each class occurs.

use nalgebra::DVector;

use super::Loss;
use crate::{
    error::{Result, require, require_shape},
    network::Network,
    scalar::Scalar,
};

impl<T: Scalar> Network<T> {
    /// Sets the output bias so that the network predicts `prior`, the mean target of each output, while
    /// the hidden layers send nothing. The bias is `ln p` under the softmax loss, the logit
    /// `ln(p/(1−p))` under the logistic loss, and `p` itself under the mean squared error. Then the
    /// errors of the first batches cancel on average and do not push all samples the same way. The mean
    /// targets of a dataset are [`Dataset::mean_target`](crate::Dataset::mean_target).
    ///
    /// ```
    /// use feedback_alignment::{Loss, Network, nalgebra::DMatrix};
    ///
    /// let mut network = Network::<f64>::builder(2).dense(4).tanh().dense(3).build()?;
    /// network.set_weights(1, DMatrix::zeros(3, 4))?;
    /// network.set_output_prior(Loss::SoftmaxCrossEntropy, &[0.5, 0.3, 0.2])?;
    /// let logits = network.predict(&DMatrix::from_element(2, 1, 0.7))?;
    /// let answer = Loss::SoftmaxCrossEntropy.probabilities(&logits)?;
    /// assert!((answer[1] - 0.3).abs() < 1e-12);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if `prior` does not have one number for each output.
    /// [`Error::InvalidParameter`] for a probability that is not between 0 and 1, such as that of a
    /// class without samples, and under the softmax loss for a sum that is not 1.
    /// [`Error::SoftmaxNeedsTwoOutputs`]. [`Error::NoSuchParameter`] if the output layer has no bias.
    /// After an error the old bias stays.
    ///
    /// [`Error::InvalidParameter`]: crate::Error::InvalidParameter
    /// [`Error::NoSuchParameter`]: crate::Error::NoSuchParameter
    /// [`Error::ShapeMismatch`]: crate::Error::ShapeMismatch
    /// [`Error::SoftmaxNeedsTwoOutputs`]: crate::Error::SoftmaxNeedsTwoOutputs
    pub fn set_output_prior(&mut self, loss: Loss, prior: &[f64]) -> Result<()> {
        loss.check_outputs(self.output_len())?;
        let what = || "the prior (outputs × 1)".to_owned();
        require_shape(what, (self.output_len(), 1), (prior.len(), 1))?;
        if loss == Loss::SoftmaxCrossEntropy {
            let sum: f64 = prior.iter().sum();
            let valid = (sum - 1.0).abs() <= 1e-4; // The same tolerance as for targets under this loss.
            require(valid, "the sum of the prior", sum, "1 under the softmax loss")?;
        }
        let bias = prior.iter().map(|&p| loss.logit(p).map(T::of)).collect::<Result<Vec<_>>>()?;
        self.set_bias(self.layer_count() - 1, DVector::from_vec(bias))
    }
}

impl Loss {
    /// The logit for which the network predicts `p`.
    fn logit(self, p: f64) -> Result<f64> {
        if self == Self::MeanSquaredError {
            require(p.is_finite(), "the prior", p, "a finite number")?;
            return Ok(p);
        }
        let expected = "a probability above 0 and below 1: every class needs a sample";
        require(p > 0.0 && p < 1.0, "the prior", p, expected)?;
        Ok(match self {
            Self::LogisticCrossEntropy => p.ln() - (-p).ln_1p(),
            _ => p.ln(),
        })
    }
}
