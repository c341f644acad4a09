//! The second stage of a training step.

use super::{
    Loss,
    formulas::{by_pieces, logistic_cross_entropy, softmax_cross_entropy, squared_error},
};
use crate::{
    buffer::Columns,
    error::Result,
    scalar::Scalar,
    targets::Targets,
    workspace::{Activations, Deltas},
};

impl Loss {
    /// Returns `J`, and writes `e = ∂J/∂a_L` to `deltas` as the delta of the output layer.
    ///
    /// `J` may be infinite or NaN after an overflow. The caller has to check that.
    ///
    /// # Errors
    /// [`Error::SampleCount`], [`Error::ShapeMismatch`], [`Error::LabelOutOfRange`] and
    /// [`Error::TargetOutOfRange`] for targets that do not fit the logits or the loss,
    /// [`Error::SoftmaxNeedsTwoOutputs`], [`Error::TooLarge`], and [`Error::Empty`] before the first
    /// forward pass.
    ///
    /// [`Error::Empty`]: crate::Error::Empty
    /// [`Error::LabelOutOfRange`]: crate::Error::LabelOutOfRange
    /// [`Error::SampleCount`]: crate::Error::SampleCount
    /// [`Error::ShapeMismatch`]: crate::Error::ShapeMismatch
    /// [`Error::SoftmaxNeedsTwoOutputs`]: crate::Error::SoftmaxNeedsTwoOutputs
    /// [`Error::TargetOutOfRange`]: crate::Error::TargetOutOfRange
    /// [`Error::TooLarge`]: crate::Error::TooLarge
    pub fn error<'a, T: Scalar>(
        self,
        targets: impl Into<Targets<'a, T>>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<f64> {
        let targets = targets.into();
        let logits = self.prepare(&targets, activations, deltas)?;
        Ok(self.evaluate(&targets, logits, deltas.error_mut()))
    }

    /// Checks the targets, makes room in the deltas, and returns the logits.
    pub(super) fn prepare<'a, T: Scalar>(
        self,
        targets: &Targets<T>,
        activations: &'a Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<&'a Columns<T>> {
        let logits = activations.logit_columns()?;
        self.check(targets, logits.rows(), activations.batch)?;
        deltas.fit(activations)?;
        deltas.set_target(|target| targets.write(target, logits.rows()))?;
        Ok(logits)
    }

    /// `J` of logits and targets that have been checked; `e ← ∂J/∂a_L`.
    pub(crate) fn evaluate<T: Scalar>(
        self,
        targets: &Targets<T>,
        logits: &Columns<T>,
        e: &mut Columns<T>,
    ) -> f64 {
        let e = e.as_mut_slice();
        let sum = self.sum(targets, logits.as_slice(), e, logits.rows());
        let batch = targets.len() as f64;
        let scale = T::of(batch);
        e.iter_mut().for_each(|e| *e /= scale);
        sum / batch
    }

    /// The sum of the losses of the samples, each a column of `outputs` numbers; `e ← ŷ − y`.
    pub(super) fn sum<T: Scalar>(
        self,
        targets: &Targets<T>,
        z: &[T],
        e: &mut [T],
        outputs: usize,
    ) -> f64 {
        match self {
            Self::SoftmaxCrossEntropy => softmax_cross_entropy(targets, z, e, outputs),
            Self::LogisticCrossEntropy => {
                targets.write(e, outputs);
                by_pieces(z, e, logistic_cross_entropy)
            }
            Self::MeanSquaredError => {
                targets.write(e, outputs);
                by_pieces(z, e, squared_error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use nalgebra::DMatrix;

    use super::*;

    fn loss_and_error(loss: Loss, z: &[f64], y: &[f64]) -> (f64, Vec<f64>) {
        let mut logits = Columns::new(z.len());
        logits.set_batch(1).unwrap();
        logits.as_mut_slice().copy_from_slice(z);
        let mut e = logits.clone();
        let y = DMatrix::from_column_slice(y.len(), 1, y);
        let value = loss.evaluate(&Targets::from(&y), &logits, &mut e);
        (value, e.as_slice().to_vec())
    }

    #[test]
    fn errors_are_the_derivatives_of_the_losses() {
        let z = [0.3, -1.2, 2.0];
        for (loss, y) in [
            (Loss::SoftmaxCrossEntropy, [0.2, 0.5, 0.3]),
            (Loss::SoftmaxCrossEntropy, [0.0, 1.0, 0.0]),
            (Loss::LogisticCrossEntropy, [0.2, 1.0, 0.0]),
            (Loss::MeanSquaredError, [-3.0, 0.5, 7.0]),
        ] {
            let (_, e) = loss_and_error(loss, &z, &y);
            for k in 0..3 {
                let shifted = |by: f64| {
                    let mut z = z;
                    z[k] += by;
                    loss_and_error(loss, &z, &y).0
                };
                let difference = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert_relative_eq!(e[k], difference, epsilon = 1e-9);
            }
        }
    }

    /// Expected values from the definitions, in exact arithmetic where the limits are.
    #[test]
    fn extreme_logits_stay_finite() {
        let (value, e) = loss_and_error(Loss::SoftmaxCrossEntropy, &[1e4, -1e4], &[0.0, 1.0]);
        assert_eq!((value, e), (2e4, vec![1.0, -1.0]));
        let (value, e) = loss_and_error(Loss::SoftmaxCrossEntropy, &[1e4, -1e4], &[1.0, 0.0]);
        assert_eq!((value, e), (0.0, vec![0.0, 0.0]));
        let (value, e) = loss_and_error(Loss::LogisticCrossEntropy, &[1e4, -1e4], &[0.0, 1.0]);
        assert_eq!((value, e), (2e4, vec![1.0, -1.0]));
        let (value, e) = loss_and_error(Loss::LogisticCrossEntropy, &[1e4, -1e4], &[1.0, 0.0]);
        assert_eq!((value, e), (0.0, vec![0.0, 0.0]));
        let logits = DMatrix::from_column_slice(2, 1, &[1e4_f32, -1e4]);
        for loss in [Loss::SoftmaxCrossEntropy, Loss::LogisticCrossEntropy] {
            assert_eq!(loss.probabilities(&logits).unwrap().as_slice(), [1.0, 0.0]);
        }
    }

    #[test]
    fn labels_are_one_hot_targets() {
        let mut logits = Columns::new(3);
        logits.set_batch(2).unwrap();
        logits.as_mut_slice().copy_from_slice(&[0.1, 0.2, -0.4, 1.0, 0.0, 0.5]);
        let one_hot = DMatrix::from_column_slice(3, 2, &[0., 0., 1., 1., 0., 0.]);
        for loss in Loss::all() {
            let (mut by_label, mut by_value) = (logits.clone(), logits.clone());
            let labels = loss.evaluate(&Targets::from(&[2, 0]), &logits, &mut by_label);
            let values = loss.evaluate(&Targets::from(&one_hot), &logits, &mut by_value);
            assert_eq!(labels, values);
            assert_eq!(by_label.as_slice(), by_value.as_slice());
        }
    }
}
