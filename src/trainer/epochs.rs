//! Epochs: steps over all samples of a dataset.

#[cfg(feature = "mpi")]
use std::ops::Range;

use super::{
    scores::{Epoch, Step, Tally},
    state::{Scratch, Trainer},
};
use crate::{
    bound::bound_of_squares,
    buffer::When,
    data::{Augmentation, Dataset},
    error::{Error, Result},
    scalar::Scalar,
    targets::BatchTargets,
    workspace::Gradients,
};

impl<T: Scalar> Trainer<T> {
    /// One epoch: every sample once, in batches. The order is drawn from the seed and the number of the
    /// epoch. The last batch may be smaller; [`drop_last`](crate::TrainerBuilder::drop_last) leaves it
    /// out.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for the wrong number of features. Those of [`Loss::error_weighted`] for
    /// targets that do not fit. [`Error::BatchTooSmall`] if batch normalisation would see a single
    /// value in the last batch, or if there are too few samples for one full batch with `drop_last`.
    /// [`Error::NoClasses`] for targets without classes, if a stopping rule needs an error rate or
    /// there are class weights. All of these come before anything is learned. [`Error::NonFiniteLoss`]
    /// or [`Error::NonFinite`] come in the step that meets such a number; the weights are then as they
    /// were before that step.
    ///
    /// [`Loss::error_weighted`]: crate::Loss::error_weighted
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        let threads = self.threads.clone();
        threads.run(self.network.work(self.batch_size), || {
            self.epoch_by(train, |trainer, indices| {
                trainer.pass_on(train, indices)?;
                let step = trainer.score_gathered()?;
                trainer.learn()?;
                Ok(step)
            })
        })
    }

    /// [`epoch`](Self::epoch), but in every step `change` gets the gradients before the optimiser does,
    /// as in [`step_with`](Self::step_with).
    ///
    /// # Errors
    /// Those of [`epoch`](Self::epoch), and any error that `change` returns. The epoch then ends in
    /// that step, with the weights as they were before it.
    pub fn epoch_with(
        &mut self,
        train: &Dataset<T>,
        mut change: impl FnMut(&mut Gradients<T>) -> Result<()>,
    ) -> Result<Epoch> {
        self.epoch_by(train, |trainer, indices| {
            let step = trainer.stages_to_gradients(train, indices)?;
            change(&mut trainer.scratch.gradients)?;
            trainer.follow_gradients()?;
            Ok(step)
        })
    }

    /// Stages 1 to 4 for some samples of a checked dataset. The gradients go to the scratch memory.
    fn stages_to_gradients(&mut self, train: &Dataset<T>, indices: &[usize]) -> Result<Step> {
        let threads = self.threads.clone();
        threads.run(self.network.work(indices.len()), || {
            self.pass_on(train, indices)?;
            let step = self.score_gathered()?;
            self.find_gradients()?;
            Ok(step)
        })
    }

    /// The same, but the gradients go to `gradients`.
    #[cfg(feature = "mpi")]
    pub(crate) fn gradients_on(
        &mut self,
        train: &Dataset<T>,
        indices: &[usize],
        gradients: &mut Gradients<T>,
    ) -> Result<Step> {
        std::mem::swap(&mut self.scratch.gradients, gradients);
        let step = self.stages_to_gradients(train, indices);
        std::mem::swap(&mut self.scratch.gradients, gradients);
        step
    }

    /// An epoch whose steps are made by `step`. It gets the indices of the samples of each batch.
    pub(crate) fn epoch_by(
        &mut self,
        train: &Dataset<T>,
        mut step: impl FnMut(&mut Self, &[usize]) -> Result<Step>,
    ) -> Result<Epoch> {
        self.check(train)?;
        self.check_batches(train)?;
        let learning_rate = self.optimizer.learning_rate();
        let (order, mut tally) = (self.take_order(train), Tally::default());
        let result = self.batches_of(&order).try_for_each(|indices| {
            tally.add(&step(self, indices)?);
            Ok(())
        });
        self.scratch.order = order;
        result?;
        Ok(self.end_epoch(&tally, learning_rate))
    }

    /// The order of the samples in this epoch. It is taken out of the scratch memory; put it back after
    /// the epoch.
    pub(crate) fn take_order(&mut self, train: &Dataset<T>) -> Vec<usize> {
        let mut order = std::mem::take(&mut self.scratch.order);
        train.shuffle(self.seed, self.epochs, &mut order);
        order
    }

    /// The batches of an epoch whose samples have this order.
    pub(crate) fn batches_of<'o>(
        &self,
        order: &'o [usize],
    ) -> impl ExactSizeIterator<Item = &'o [usize]> + use<'o, T> {
        let left_out = if self.drop_last { order.len() % self.batch_size } else { 0 };
        order[..order.len() - left_out].chunks(self.batch_size)
    }

    /// Counts a finished epoch and returns its scores.
    pub(crate) fn end_epoch(&mut self, tally: &Tally, learning_rate: f64) -> Epoch {
        self.epochs += 1;
        let (loss, error_rate) = (tally.loss(), tally.error_rate());
        if let (Some(rule), Some(error)) = (self.stopping, error_rate) {
            self.running_error = rule.average(self.running_error, error);
        }
        Epoch { number: self.epochs, loss, error_rate, learning_rate }
    }

    /// Stage 1 for some samples of a checked dataset. Their targets are gathered too.
    pub(crate) fn pass_on(&mut self, train: &Dataset<T>, indices: &[usize]) -> Result<()> {
        let Scratch { activations, targets, .. } = &mut self.scratch;
        train.gather_targets(indices, targets);
        let when = When::At(self.optimizer.steps());
        self.network.pass(activations, indices.len(), when, |x| {
            let varied = self.augmentation.as_ref();
            Ok(write(train, indices, varied.map(|by| (by, self.seed, self.epochs)), x))
        })
    }

    /// The part of [`pass_on`](Self::pass_on) that goes through some layers. The input of the first of
    /// them has to stand in the activations already, unless it is the input of the network.
    #[cfg(feature = "mpi")]
    pub(crate) fn pass_part_on(
        &mut self,
        train: &Dataset<T>,
        indices: &[usize],
        layers: Range<usize>,
    ) {
        let activations = &mut self.scratch.activations;
        if layers.start == 0 {
            let varied = self.augmentation.as_ref().map(|by| (by, self.seed, self.epochs));
            activations.input_squares =
                write(train, indices, varied, activations.input.as_mut_slice());
        }
        let when = When::At(self.optimizer.steps());
        self.network.pass_through(layers, activations, when);
    }

    /// [`score`](Self::score) with the targets that were gathered.
    pub(crate) fn score_gathered(&mut self) -> Result<Step> {
        let nothing = BatchTargets::Labels(Vec::new());
        let targets = std::mem::replace(&mut self.scratch.targets, nothing);
        let step = self.score(&targets.as_targets());
        self.scratch.targets = targets;
        step
    }

    /// The size of the last batch of an epoch with `samples` samples. It is the smallest batch.
    pub(crate) fn last_batch(&self, samples: usize) -> usize {
        if self.drop_last { self.batch_size } else { (samples - 1) % self.batch_size + 1 }
    }

    /// Fails if the stopping rule could never fire, if the augmentation is for images of another shape,
    /// or if some batch could not be trained on.
    pub(crate) fn check_batches(&self, train: &Dataset<T>) -> Result<()> {
        if self.stopping.is_some() && !self.loss.has_classes(&train.targets()) {
            return Err(Error::NoClasses { what: "a stopping rule" });
        }
        if let Some(augmentation) = &self.augmentation {
            augmentation.require_fits(self.network.input_len())?;
        }
        let (samples, size) = (train.len(), self.batch_size);
        if self.drop_last && samples < size {
            let what = format!("{samples} samples make no batch of {size}");
            return Err(Error::BatchTooSmall { what });
        }
        let last = self.last_batch(samples);
        if last < self.network.smallest_batch() {
            let what = format!(
                "batch normalisation needs two values of each feature: {samples} samples in batches of {size} leave a last one of {last}, which drop_last leaves out"
            );
            return Err(Error::BatchTooSmall { what });
        }
        Ok(())
    }
}

/// Writes samples to `x`, varied by an augmentation of this seed and epoch. Returns an upper bound of
/// all `x²`.
fn write<T: Scalar>(
    train: &Dataset<T>,
    indices: &[usize],
    varied: Option<(&Augmentation, u64, u64)>,
    x: &mut [T],
) -> f64 {
    train.gather_inputs(indices, x);
    if let Some((augmentation, seed, epoch)) = varied {
        augmentation.apply_to_batch(seed, epoch, indices, x);
    }
    bound_of_squares(x)
}
