//! Losses in which some classes count more than others.

use super::Loss;
use crate::{
    buffer::Columns,
    error::{Error, Result, require, require_shape},
    scalar::Scalar,
    targets::Targets,
    workspace::{Activations, Deltas},
};

/// The largest weight. Sums of such weights over all samples stay far from overflowing.
const LARGEST: f64 = 1e100;

impl Loss {
    /// [`error`](Self::error) with a weight for each class: the mean of the losses `ℓ_i` of the
    /// samples, weighted by their classes `y_i`,
    ///
    /// ```text
    /// J = Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}
    /// ```
    ///
    /// and `e = ∂J/∂a_L`: each sample's error is multiplied by `w_{y_i} / Σ_j w_{y_j}`. Both sums are
    /// over the batch, so only the ratios of the weights count, and equal weights give
    /// [`error`](Self::error). For labels and softmax this is PyTorch's `CrossEntropyLoss(weight=w)`.
    /// `class_weights` has a positive number for each class. There are as many classes as outputs, or
    /// two if there is one output. Weights of `N / n_c` balance classes of `n_c` samples.
    ///
    /// Targets have to be classes, as for error rates: labels, one-hot columns, or, under softmax,
    /// probabilities, of which the largest gives the class. (For such columns PyTorch weights each term
    /// separately and divides by `N`.)
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
    /// Those of [`error`](Self::error). [`Error::ShapeMismatch`] if the number of weights is not the
    /// number of classes, [`Error::InvalidParameter`] for a weight that is not positive or is above
    /// 1e100, [`Error::NoClasses`] for targets that are not classes.
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

    /// [`error_weighted`](Self::error_weighted) with checked weights, or [`error`](Self::error) without
    /// weights. Returns the loss and the total weight of the batch.
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
        // Checked before `deltas` changes: after an error it must not look like the deltas of these
        // targets.
        let outputs = activations.logit_columns()?.rows();
        self.check(targets, outputs, activations.batch)?;
        self.check_weights(class_weights, targets, outputs)?;
        let logits = self.prepare(targets, activations, deltas)?;
        Ok(self.evaluate_by(class_weights, targets, logits, deltas.error_mut()))
    }

    /// [`evaluate`](Self::evaluate) with or without class weights. Returns the loss and the total
    /// weight of the batch. If there are weights, the targets have to be classes.
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
        // Weights are divided by the largest in the batch. So nothing overflows, not all become 0, and
        // equal weights are exactly 1.
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

    /// Fails if there are class weights, but the targets are not classes or the number of weights does
    /// not fit the outputs.
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

/// Fails unless there is a valid weight for each class that this many outputs can tell apart.
pub(crate) fn require_class_weights(weights: &[f64], outputs: usize) -> Result<()> {
    require_length(weights, outputs)?;
    let is_weight = |weight: f64| weight > 0.0 && weight <= LARGEST;
    weights.iter().try_for_each(|&weight| {
        require(is_weight(weight), "class weight", weight, "a positive number of at most 1e100")
    })
}
