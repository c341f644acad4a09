//! Classes that count more or less than others.

use super::Loss;
use crate::{
    buffer::Columns,
    error::{Error, Result, require, require_shape},
    scalar::Scalar,
    targets::Targets,
    workspace::{Activations, Deltas},
};

/// Sums of so many weights as there can be samples stay far from overflowing.
const LARGEST: f64 = 1e100;

impl Loss {
    /// [`error`](Self::error) with a weight for each class: the mean of the losses `ℓ_i` of the
    /// samples, weighted by their classes `y_i`,
    ///
    /// ```text
    /// J = Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}
    /// ```
    ///
    /// and `e = ∂J/∂a_L`, whose columns are those of the losses times `w_{y_i} / Σ_j w_{y_j}`. Both
    /// sums are over the batch, so only the ratios of the weights count, and equal weights give
    /// [`error`](Self::error). For labels and softmax this is PyTorch's
    /// `CrossEntropyLoss(weight=w)`. `class_weights` has a positive number for each class: for each
    /// output, or two where there is one output. Weights of `N / n_c` balance classes of `n_c`
    /// samples.
    ///
    /// Targets have to be classes, as for error rates: labels, one-hot columns, or, under softmax,
    /// probabilities, of which the largest is the class. (PyTorch weights the terms of such a column
    /// one by one instead, and divides by `N`.)
    ///
    /// ```
    /// use feedback_alignment::{Activations, Deltas, Loss, Network, nalgebra::DMatrix};
    ///
    /// let network = Network::<f64>::builder(2).dense(3).build()?;
    /// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    /// network.forward(&DMatrix::from_element(2, 2, 0.5), &mut activations)?;
    /// let loss = Loss::SoftmaxCrossEntropy;
    /// let plain = loss.error(&[0, 2], &activations, &mut deltas)?;
    /// let equal = loss.error_weighted(&[0, 2], &[0.5; 3], &activations, &mut deltas)?;
    /// assert!((plain - equal).abs() < 1e-12);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`error`](Self::error); [`Error::ShapeMismatch`] for another number of weights than
    /// of classes, [`Error::InvalidParameter`] for a weight that is not positive or above 1e100,
    /// [`Error::NoClasses`] for targets that are no classes.
    pub fn error_weighted<'a, T: Scalar>(
        self,
        targets: impl Into<Targets<'a, T>>,
        class_weights: &[f64],
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<f64> {
        require_class_weights(class_weights, activations.logit_columns()?.rows())?;
        Ok(self.error_by(class_weights, &targets.into(), activations, deltas)?.0)
    }

    /// [`error_weighted`](Self::error_weighted) by weights that have been checked, or
    /// [`error`](Self::error) without any; with the weight of the batch.
    pub(crate) fn error_by<T: Scalar>(
        self,
        class_weights: &[f64],
        targets: &Targets<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<(f64, f64)> {
        if class_weights.is_empty() {
            return Ok((self.error(*targets, activations, deltas)?, targets.len() as f64));
        }
        // Before deltas could be taken for those of these targets.
        let outputs = activations.logit_columns()?.rows();
        self.check(targets, outputs, activations.batch)?;
        self.check_weights(class_weights, targets, outputs)?;
        let logits = self.prepare(targets, activations, deltas)?;
        Ok(self.evaluate_by(class_weights, targets, logits, deltas.error_mut()))
    }

    /// [`evaluate`](Self::evaluate) by such weights, or without any; with the weight of the batch.
    /// Targets are classes, where there are weights.
    pub(crate) fn evaluate_by<T: Scalar>(
        self,
        class_weights: &[f64],
        targets: &Targets<T>,
        logits: &Columns<T>,
        e: &mut Columns<T>,
    ) -> (f64, f64) {
        if class_weights.is_empty() {
            return (self.evaluate(targets, logits, e), targets.len() as f64);
        }
        let weight_of = |sample: usize| {
            class_weights[targets.class(sample, self).expect("targets are classes")]
        };
        // Relative to the largest of the batch, so that no scalar overflows, not all vanish, and
        // equal weights are 1.
        let largest = (0..targets.len()).map(weight_of).fold(0.0, f64::max);
        let (outputs, e) = (logits.rows(), e.as_mut_slice());
        let columns = logits.as_slice().chunks_exact(outputs).zip(e.chunks_exact_mut(outputs));
        let (mut loss, mut sum) = (0.0, 0.0);
        for (sample, (z, e)) in columns.enumerate() {
            let weight = weight_of(sample) / largest;
            loss += weight * self.sum(&targets.only(sample), z, e, outputs);
            sum += weight;
            let scale = T::of(weight);
            e.iter_mut().for_each(|e| *e *= scale);
        }
        let scale = T::of(sum);
        e.iter_mut().for_each(|e| *e /= scale);
        (loss / sum, sum * largest)
    }

    /// Fails if there are weights of classes, but targets that are none, or weights for another
    /// number of outputs.
    pub(crate) fn check_weights<T: Scalar>(
        self,
        class_weights: &[f64],
        targets: &Targets<T>,
        outputs: usize,
    ) -> Result<()> {
        if class_weights.is_empty() {
            return Ok(());
        }
        require_length(class_weights, outputs)?;
        if self.has_classes(targets) {
            return Ok(());
        }
        Err(Error::NoClasses { what: "a weight for each class" })
    }
}

fn require_length(weights: &[f64], outputs: usize) -> Result<()> {
    let what = || "the list of class weights (classes × 1)".to_owned();
    require_shape(what, (outputs.max(2), 1), (weights.len(), 1))
}

/// Fails unless there is a valid weight for each class that so many outputs tell apart.
pub(crate) fn require_class_weights(weights: &[f64], outputs: usize) -> Result<()> {
    require_length(weights, outputs)?;
    let is_weight = |weight: f64| weight > 0.0 && weight <= LARGEST;
    weights.iter().try_for_each(|&weight| {
        require(is_weight(weight), "class weight", weight, "a positive number of at most 1e100")
    })
}
