//! Checking that targets fit the loss and the logits.

use super::Loss;
use crate::{
    error::{Error, Result, require_shape},
    scalar::Scalar,
    targets::Targets,
    vector::sum_in_order,
};

impl Loss {
    /// Fails unless `targets` fit this loss with `outputs` logits for each of `batch` samples.
    pub(crate) fn check<T: Scalar>(
        self,
        targets: &Targets<T>,
        outputs: usize,
        batch: usize,
    ) -> Result<()> {
        self.check_outputs(outputs)?;
        if let Targets::Values(values) = targets
            && values.shape() == (batch, outputs)
            && batch != outputs
        {
            let what = "the target (outputs × samples)".to_owned();
            return Err(Error::SamplesInRows { what, found: values.shape() });
        }
        if targets.len() != batch {
            return Err(Error::SampleCount { inputs: batch, targets: targets.len() });
        }
        match targets {
            Targets::Labels(labels) => {
                let classes = outputs.max(2);
                match labels.iter().position(|&label| label >= classes) {
                    Some(sample) => Err(Error::LabelOutOfRange {
                        label: labels[sample],
                        sample,
                        outputs,
                        classes,
                    }),
                    None => Ok(()),
                }
            }
            Targets::Values(values) => {
                let what = || "the target (outputs × samples)".to_owned();
                require_shape(what, (outputs, batch), values.shape())?;
                (0..batch).try_for_each(|sample| {
                    self.check_values(sample, values.column(sample).as_slice())
                })
            }
        }
    }

    pub(crate) fn check_outputs(self, outputs: usize) -> Result<()> {
        match self {
            Self::SoftmaxCrossEntropy if outputs < 2 => Err(Error::SoftmaxNeedsTwoOutputs),
            _ => Ok(()),
        }
    }

    fn check_values<T: Scalar>(self, sample: usize, y: &[T]) -> Result<()> {
        let refuse = |expected, found: T| {
            let (loss, found) = (self.name(), found.as_f64());
            Err(Error::TargetOutOfRange { loss, sample, expected, found })
        };
        if let Some(&y) = y.iter().find(|y| !y.is_finite()) {
            return refuse("finite", y);
        }
        if self == Self::MeanSquaredError {
            return Ok(());
        }
        if let Some(&y) = y.iter().find(|&&y| y < T::zero() || y > T::one()) {
            return refuse("in [0, 1]", y);
        }
        let sum = sum_in_order(y);
        if self == Self::SoftmaxCrossEntropy && (sum - T::one()).abs() > T::of(1e-4) {
            return refuse("probabilities that sum to 1", sum);
        }
        Ok(())
    }
}
