//! The batches of an epoch.

use nalgebra::DMatrix;
use rand::seq::SliceRandom;

use super::dataset::Dataset;
use crate::{
    error::{Result, require},
    scalar::Scalar,
    seed::{Purpose, stream},
    targets::{BatchTargets, Targets},
};

/// Some samples of a dataset, for one training step.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    inputs: DMatrix<T>,
    targets: BatchTargets<T>,
}

impl<T: Scalar> Batch<T> {
    /// The inputs, `features × samples`.
    #[must_use]
    pub fn inputs(&self) -> &DMatrix<T> {
        &self.inputs
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> Targets<'_, T> {
        self.targets.as_targets()
    }
}

impl<T: Scalar> Dataset<T> {
    /// The batches of one epoch: all samples, `batch_size` at a time, in an order drawn from `seed` and
    /// `epoch`. The last batch may be smaller.
    ///
    /// These are the same batches as those of [`Trainer::epoch`](crate::Trainer::epoch) with that seed,
    /// for training loops of your own.
    ///
    /// A trainer with `drop_last` uses only the first [`len`](Self::len) `/ batch_size` of them: `take`
    /// that many.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a batch size of 0.
    pub fn batches(
        &self,
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Result<impl Iterator<Item = Batch<T>>> {
        require_batch_size(batch_size)?;
        let mut order = Vec::new();
        self.shuffle(seed, epoch, &mut order);
        let starts = (0..self.len()).step_by(batch_size);
        Ok(starts.map(move |start| {
            let indices = &order[start..self.len().min(start.saturating_add(batch_size))];
            let mut inputs = DMatrix::zeros(self.features(), indices.len());
            self.gather_inputs(indices, inputs.as_mut_slice());
            let mut targets = BatchTargets::Labels(Vec::new());
            self.gather_targets(indices, &mut targets);
            Batch { inputs, targets }
        }))
    }

    /// Fills `order` with the order of the samples in an epoch.
    pub(crate) fn shuffle(&self, seed: u64, epoch: u64, order: &mut Vec<usize>) {
        order.clear();
        order.extend(0..self.len());
        order.shuffle(&mut stream(seed, Purpose::Shuffle, 0, epoch));
    }
}

pub(crate) fn require_batch_size(batch_size: usize) -> Result<()> {
    require(batch_size > 0, "batch_size", 0.0, "at least 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(samples: usize) -> Dataset<f64> {
        let x = DMatrix::from_fn(2, samples, |i, j| (10 * j + i) as f64);
        Dataset::new(x, (0..samples).collect()).unwrap()
    }

    #[test]
    fn an_epoch_visits_every_sample_once_and_keeps_input_and_target_together() {
        let data = numbered(10);
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        for batch in data.batches(4, 1, 0).unwrap() {
            let Targets::Labels(labels) = batch.targets() else { panic!("labels") };
            for (label, x) in labels.iter().zip(batch.inputs().column_iter()) {
                assert_eq!(x.as_slice(), [(10 * label) as f64, (10 * label + 1) as f64]);
            }
            sizes.push(labels.len());
            seen.extend_from_slice(labels);
        }
        assert_eq!(sizes, [4, 4, 2]);
        assert_ne!(seen, (0..10).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert!(data.batches(0, 1, 0).is_err());
    }

    #[test]
    fn orders_differ_by_seed_and_epoch() {
        let order = |seed, epoch| {
            let mut order = Vec::new();
            numbered(20).shuffle(seed, epoch, &mut order);
            order
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }

    #[test]
    fn real_valued_targets_travel_with_their_samples() {
        let x = DMatrix::from_fn(1, 5, |_, j| j as f64);
        let y = DMatrix::from_fn(2, 5, |i, j| (j * 100 + i) as f64);
        let data = Dataset::with_values(x, &y).unwrap();
        assert_eq!(data.classes(), None);
        for batch in data.batches(2, 3, 1).unwrap() {
            let Targets::Values(values) = batch.targets() else { panic!("values") };
            for (x, y) in batch.inputs().column_iter().zip(values.column_iter()) {
                assert_eq!((y[0], y[1]), (x[0] * 100.0, x[0] * 100.0 + 1.0));
            }
        }
    }
}
