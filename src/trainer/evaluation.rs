//! Evaluating a network on a dataset.

use std::ops::Range;

use nalgebra::DMatrixView;

use super::{
    confusion::ConfusionMatrix,
    scores::{Evaluation, Step, Tally},
    state::Trainer,
};
use crate::{
    buffer::{Columns, When, reserve},
    data::Dataset,
    error::{Error, Result, require, require_finite},
    loss::Loss,
    network::EVALUATION_BATCH,
    scalar::Scalar,
    targets::{BatchTargets, Targets},
    workspace::Activations,
};

impl<T: Scalar> Trainer<T> {
    /// Loss, error rate and confusion matrix on a dataset. It changes nothing, so several threads can
    /// evaluate one trainer at the same time. It needs the memory for one batch of 256 samples.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], those of [`Loss::error_weighted`] for targets that do not fit, and
    /// [`Error::NonFinite`] if a layer or the loss overflows.
    pub fn evaluate(&self, data: &Dataset<T>) -> Result<Evaluation> {
        self.check(data)?;
        let (steps, classes) = self.score_batches(data, 0..data.len())?;
        Ok(self.evaluation(data, &steps, &classes))
    }

    /// The scores of each batch of some samples of a checked dataset, and the predicted class of each
    /// sample.
    pub(crate) fn score_batches(
        &self,
        data: &Dataset<T>,
        samples: Range<usize>,
    ) -> Result<(Vec<Step>, Vec<usize>)> {
        let (mut steps, mut classes) = (Vec::new(), Vec::new());
        reserve(&mut steps, samples.len().div_ceil(EVALUATION_BATCH))?;
        reserve(&mut classes, samples.len())?;
        let mut e = Columns::new(self.network.output_len());
        self.for_each_batch(data, samples, |targets, logits| {
            e.set_batch(targets.len())?;
            let (loss, weight) =
                self.loss.evaluate_by(&self.class_weights, targets, logits, &mut e);
            require_finite(|| "the loss of the evaluation".into(), 1, &[loss])?;
            let errors = count_errors(self.loss, targets, logits);
            steps.push(Step { loss, samples: targets.len(), weight, errors });
            let columns = logits.as_slice().chunks_exact(logits.rows());
            classes.extend(columns.map(|z| self.loss.class(z)));
            Ok(())
        })?;
        Ok((steps, classes))
    }

    /// The evaluation of a whole dataset, from the scores of its batches.
    pub(crate) fn evaluation(
        &self,
        data: &Dataset<T>,
        steps: &[Step],
        classes: &[usize],
    ) -> Evaluation {
        let mut tally = Tally::default();
        steps.iter().for_each(|step| tally.add(step));
        let (error_rate, targets) = (tally.error_rate(), data.targets());
        let confusion = error_rate.map(|_| {
            let mut confusion = ConfusionMatrix::new(self.network.output_len().max(2));
            for (sample, &class) in classes.iter().enumerate() {
                let actual = targets.class(sample, self.loss).expect("errors were counted");
                confusion.add(actual, class);
            }
            confusion
        });
        Evaluation { loss: tally.loss(), error_rate, confusion }
    }

    /// The share of samples, from 0 to 1, whose class is not among the `k` most likely ones. Of two
    /// equal logits the first counts as more likely. With `k = 1` this is the error rate.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::{DMatrix, DVector}};
    ///
    /// let mut network = Network::<f32>::builder(1).dense(3).build()?;
    /// network.set_weights(0, DMatrix::zeros(3, 1))?;
    /// network.set_bias(0, DVector::from_column_slice(&[1.0, 3.0, 2.0]))?;
    /// let trainer = Trainer::builder(network).build()?;
    /// let data = Dataset::new(DMatrix::zeros(1, 4), vec![0, 1, 1, 2])?;
    /// assert_eq!(trainer.top_k_error(&data, 1)?, 0.5);
    /// assert_eq!(trainer.top_k_error(&data, 2)?, 0.25);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate). [`Error::InvalidParameter`] unless the network has at
    /// least two outputs and `k` is between 1 and their number. [`Error::NoClasses`].
    pub fn top_k_error(&self, data: &Dataset<T>, k: usize) -> Result<f64> {
        self.check(data)?;
        let outputs = self.network.output_len();
        let valid = (1..=outputs).contains(&k) && outputs > 1;
        require(valid, "k", k as f64, "a number from 1 to that of the outputs, at least two")?;
        let mut wrong = 0_usize;
        self.for_each_batch(data, 0..data.len(), |targets, logits| {
            for (sample, z) in logits.as_slice().chunks_exact(outputs).enumerate() {
                let class = targets.class(sample, self.loss);
                let class = class.ok_or(Error::NoClasses { what: "the top-k error" })?;
                let (below, above) = z.split_at(class);
                let ahead = below.iter().filter(|&&other| other >= z[class]).count()
                    + above.iter().filter(|&&other| other > z[class]).count();
                wrong += usize::from(ahead >= k);
            }
            Ok(())
        })?;
        Ok(wrong as f64 / data.len() as f64)
    }

    /// Calls `score` with the targets and logits of these samples of a checked dataset, batch by batch.
    /// The memory for one batch is taken once and given back at the end.
    fn for_each_batch(
        &self,
        data: &Dataset<T>,
        samples: Range<usize>,
        mut score: impl FnMut(&Targets<T>, &Columns<T>) -> Result<()> + Send,
    ) -> Result<()> {
        let order: Vec<usize> = samples.collect();
        self.threads.run(self.network.work(EVALUATION_BATCH), || {
            let mut activations = Activations::new();
            let mut targets = BatchTargets::Labels(Vec::new());
            order.chunks(EVALUATION_BATCH).try_for_each(|indices| {
                data.gather_targets(indices, &mut targets);
                let (samples, when) = (indices.len(), When::Evaluating);
                self.network.pass(&mut activations, samples, when, |x| {
                    data.gather_inputs(indices, x);
                    Ok(f64::INFINITY)
                })?;
                activations.require_finite()?;
                score(&targets.as_targets(), activations.logit_columns()?)
            })
        })
    }

    /// The predicted class of each column of `x`.
    ///
    /// # Errors
    /// As for [`Network::predict`](crate::Network::predict).
    pub fn predict_classes<'x>(&self, x: impl Into<DMatrixView<'x, T>>) -> Result<Vec<usize>> {
        let x = x.into();
        let work = self.network.work(x.ncols());
        self.threads.run(work, || self.loss.classes(&self.network.predict(x)?))
    }
}

/// How many samples are put into the wrong class; `None` if the targets are not classes.
pub(super) fn count_errors<T: Scalar>(
    loss: Loss,
    targets: &Targets<T>,
    logits: &Columns<T>,
) -> Option<usize> {
    let mut columns = logits.as_slice().chunks_exact(logits.rows());
    if let Targets::Labels(labels) = targets {
        return Some(
            labels.iter().zip(columns).filter(|&(&label, z)| loss.class(z) != label).count(),
        );
    }
    (0..targets.len()).try_fold(0, |errors, sample| {
        let class = targets.class(sample, loss)?;
        Some(errors + usize::from(loss.class(columns.next()?) != class))
    })
}
