//! Training with the samples of a batch divided among processes.

use std::ops::Range;

use nalgebra::DMatrixView;

use super::{
    fingerprint::{require_equal, require_same},
    group::Group,
    score::{failed_elsewhere, gather_steps},
    together::{agree, gather},
    tree::{own, sum},
};
use crate::{
    data::Dataset,
    error::{Error, Result, require},
    network::EVALUATION_BATCH,
    route::{Route, Through},
    scalar::Scalar,
    seed::of_shard,
    signal::Signal,
    targets::Targets,
    trainer::{Epoch, Evaluation, Step, Tally, Trainer},
    workspace::Gradients,
};

/// The most shards that a batch may be divided into.
const MOST_SHARDS: usize = 1 << 16;

/// Trains on batches whose samples are divided among processes. It works with every rule whose feedback
/// depends on single samples only. So it does not work with DKP, FDFA, PFA and WM, nor with the centred
/// error.
///
/// A batch of `N` samples is cut into `S` shards, whatever the number of processes, and each process
/// gets some neighbouring shards. Let `g_s` be the gradients of a shard, and `w_s` its weight in the
/// loss (its number of samples, unless classes have weights). Then all processes use
///
/// ```text
/// g = Σ_s w_s g_s / Σ_s w_s        summed pairwise, in an order that depends on S alone
/// ```
///
/// so the result has the same bits on any number of processes from 1 to `S`. It is the gradient of the
/// whole batch, up to rounding. With one shard it is that of [`Trainer::step`], bit for bit. Where
/// samples depend on each other, each shard counts as a batch:
///
/// - Batch normalisation is over the shard. The running statistics follow the means of those of the
///   shards, weighted by their numbers of samples.
/// - Dropout draws a mask for each shard, from seed, place, step and shard.
///
/// The order of samples and the [augmentation](crate::TrainerBuilder::augmentation) are those of
/// [`Trainer::epoch`]. Every process holds the whole dataset and the whole network.
#[derive(Debug)]
pub struct DataParallel<'g, T, G> {
    group: &'g G,
    trainer: Trainer<T>,
    shards: usize,
    /// The gradients of each shard of this process.
    gradients: Vec<Gradients<T>>,
    /// Room for the numbers that another process sends.
    buffer: Vec<T>,
}

impl<'g, T: Scalar, G: Group> DataParallel<'g, T, G> {
    /// Divides each batch of `trainer` into `shards` shards. All processes have to build or load the
    /// trainer in the same way.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there are fewer shards than processes, or more than 65,536.
    /// [`Error::Conflict`] if the processes have different trainers or numbers of shards.
    /// [`Error::Conflict`] too for feedback that needs the whole batch: the centred error, and matrices
    /// that learn from noise or along gradients of their own. And for class weights beside a signal that
    /// does not carry them: the signs of the error, whole or thresholded, and the targets.
    pub fn new(group: &'g G, trainer: Trainer<T>, shards: usize) -> Result<Self> {
        let reason = "all have to cut a batch into as many shards";
        require_equal(group, "the number of shards", shards as u64, reason)?;
        require_same(group, &trainer)?;
        let expected = "at least the number of processes, and at most 65,536";
        let valid = (group.size()..=MOST_SHARDS).contains(&shards);
        require(valid, "shards", shards as f64, expected)?;
        require_shared(trainer.feedback.route())?;
        require_weighted_signals(&trainer)?;
        let count = own(group.rank(), shards, group.size()).len();
        let gradients = (0..count).map(|_| Gradients::new()).collect();
        Ok(Self { group, trainer, shards, gradients, buffer: Vec::new() })
    }

    /// The trainer, which is the same on all processes.
    #[must_use]
    pub fn trainer(&self) -> &Trainer<T> {
        &self.trainer
    }

    /// The trainer, when training is done.
    #[must_use]
    pub fn into_trainer(self) -> Trainer<T> {
        self.trainer
    }

    /// One training step on the samples `x`, of shape `n_0 × N`. All processes pass the whole batch,
    /// and the result is for the whole batch too.
    ///
    /// # Errors
    /// Those of [`Trainer::step`], and [`Error::BatchTooSmall`] if a shard would have too few samples.
    /// An error of one process is an error of all ([`agree`]). After an error nothing has changed.
    pub fn step<'x, 'a>(
        &mut self,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<Step> {
        let (x, targets) = (x.into(), targets.into());
        let samples = x.ncols();
        let fits = require_shards(&self.trainer, self.shards, samples).and_then(|()| {
            let (inputs, targets) = (samples, targets.len());
            if inputs == targets { Ok(()) } else { Err(Error::SampleCount { inputs, targets }) }
        });
        agree(self.group, fits)?;
        self.step_by(samples, |trainer, shard, gradients| {
            let x = x.columns(shard.start, shard.len());
            trainer.gradients(x, targets.some(shard), gradients)
        })
    }

    /// One epoch, as [`Trainer::epoch`] makes it.
    ///
    /// # Errors
    /// Those of [`Trainer::epoch`], [`Error::BatchTooSmall`] if a shard of the last batch would have
    /// too few samples, and [`Error::Conflict`] if the datasets have different lengths. An error of one
    /// process is an error of all. The weights are then as they were before the step that failed.
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        let trainer = &self.trainer;
        let checked = trainer.check(train).and_then(|()| trainer.check_batches(train));
        agree(
            self.group,
            checked.and_then(|()| {
                let last = trainer.last_batch(train.len());
                require_shards(trainer, self.shards, last)
            }),
        )?;
        let reason = "all have to train on the same samples";
        require_equal(self.group, "the number of samples", train.len() as u64, reason)?;
        let learning_rate = self.trainer.optimizer.learning_rate();
        let (order, mut tally) = (self.trainer.take_order(train), Tally::default());
        let result = self.trainer.batches_of(&order).try_for_each(|indices| {
            tally.add(&self.step_by(indices.len(), |trainer, shard, gradients| {
                trainer.gradients_on(train, &indices[shard], gradients)
            })?);
            Ok(())
        });
        self.trainer.scratch.order = order;
        result?;
        Ok(self.trainer.end_epoch(&tally, learning_rate))
    }

    /// One step on `samples` samples. `gradients_of` computes the gradients of a range of them.
    fn step_by(
        &mut self,
        samples: usize,
        gradients_of: impl Fn(&mut Trainer<T>, Range<usize>, &mut Gradients<T>) -> Result<Step>,
    ) -> Result<Step> {
        let Self { group, trainer, shards, gradients, buffer } = self;
        let (group, count, seed) = (*group, *shards, trainer.seed);
        let own_of = |process| own(process, count, group.size());
        let own = own_of(group.rank());
        let scored: Result<Vec<Step>> = own
            .clone()
            .zip(gradients.iter_mut())
            .map(|(shard, to)| {
                trainer.scratch.activations.set_seed(of_shard(seed, shard));
                gradients_of(trainer, samples_of(shard, count, samples), to)
            })
            .collect();
        trainer.scratch.activations.set_seed(seed);
        let Some(steps) = gather_steps(group, own_of, count, &scored)? else {
            return agree(group, scored).and(Err(failed_elsewhere()));
        };
        let weight: f64 = steps.iter().map(|step| step.weight).sum();
        for (shard, gradients) in own.zip(gradients.iter_mut()) {
            let Step { weight: share, samples: among, .. } = steps[shard];
            scale(gradients, share / weight, among as f64 / samples as f64);
        }
        let mut terms: Vec<_> = gradients.iter_mut().map(Gradients::as_mut_slice).collect();
        sum(group, count, &mut terms, buffer)?;
        trainer.apply(&gradients[0])?;
        let mut tally = Tally::default();
        steps.iter().for_each(|step| tally.add(step));
        Ok(Step { loss: tally.loss(), samples, weight, errors: tally.errors() })
    }

    /// [`Trainer::evaluate`] with the batches divided among processes. The result is the same, bit for
    /// bit.
    ///
    /// # Errors
    /// Those of [`Trainer::evaluate`]. An error of one process is an error of all.
    pub fn evaluate(&self, data: &Dataset<T>) -> Result<Evaluation> {
        let (group, trainer) = (self.group, &self.trainer);
        agree(group, trainer.check(data))?;
        let reason = "all have to evaluate the same samples";
        require_equal(group, "the number of samples", data.len() as u64, reason)?;
        let batches = data.len().div_ceil(EVALUATION_BATCH);
        // There may be fewer batches than processes. Some processes then have none.
        let own = |process| own(process, batches, group.size());
        let samples = |process| {
            let part: Range<usize> = own(process);
            let end = |batch: usize| data.len().min(batch * EVALUATION_BATCH);
            end(part.start)..end(part.end)
        };
        let scored = trainer.score_batches(data, samples(group.rank()));
        let (steps, own_classes) = agree(group, scored)?;
        let steps = gather_steps(group, own, batches, &Ok(steps))?;
        let mut classes = vec![0_usize; data.len()];
        for (to, class) in classes[samples(group.rank())].iter_mut().zip(own_classes) {
            *to = class;
        }
        let bytes = |process| {
            let Range { start, end } = samples(process);
            start * size_of::<usize>()..end * size_of::<usize>()
        };
        gather(group, bytes, bytemuck::cast_slice_mut(&mut classes))?;
        Ok(trainer.evaluation(data, &steps.unwrap_or_default(), &classes))
    }

    /// Saves the training run, as [`Trainer::save`] does: process 0 writes the file. Any number of
    /// processes can [load](Trainer::load) it and go on.
    ///
    /// # Errors
    /// As for [`Trainer::save`], on all processes.
    #[cfg(feature = "safetensors")]
    pub fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        agree(self.group, if self.group.rank() == 0 { self.trainer.save(path) } else { Ok(()) })
    }
}

/// The samples of a shard, for a batch of `samples` samples.
fn samples_of(shard: usize, shards: usize, samples: usize) -> Range<usize> {
    own(shard, samples, shards)
}

/// Fails if a shard of a batch of this many samples would be too small to learn from.
fn require_shards<T: Scalar>(trainer: &Trainer<T>, shards: usize, samples: usize) -> Result<()> {
    let smallest = trainer.network.smallest_batch();
    if samples / shards >= smallest {
        return Ok(());
    }
    let what = format!(
        "a batch of {samples} samples has fewer than {smallest} for each of {shards} shards: take fewer, or leave out a small last batch by drop_last"
    );
    Err(Error::BatchTooSmall { what })
}

/// Multiplies gradients with one factor, and statistics of the batch with another.
fn scale<T: Scalar>(gradients: &mut Gradients<T>, learned: f64, statistics: f64) {
    let table = gradients.numbers.table().clone();
    for slot in table.slots() {
        let factor = T::of(if slot.part.is_learned() { learned } else { statistics });
        gradients.numbers.slot_mut(slot).iter_mut().for_each(|number| *number *= factor);
    }
}

/// Fails if class weights are set and a signal does not depend on them. A shard's gradient counts by the
/// sum of its samples' class weights, which would be wrong for such a signal.
fn require_weighted_signals<T: Scalar>(trainer: &Trainer<T>) -> Result<()> {
    let unweighted =
        |signal| matches!(signal, Signal::ErrorSign | Signal::ErrorTernary(_) | Signal::Target);
    let hop = trainer.feedback.route().hops().iter().find(|hop| unweighted(hop.signal));
    match hop {
        Some(hop) if !trainer.class_weights.is_empty() => Err(Error::Conflict {
            first: format!("the hop {hop}"),
            second: "class weights on several processes".into(),
            reason: "what it sends does not carry the weights",
        }),
        _ => Ok(()),
    }
}

/// Fails for feedback whose result would change if each process sees only a part of the batch.
fn require_shared(route: &Route) -> Result<()> {
    let centred = |signal| matches!(signal, Signal::ErrorCentred(_));
    let other = |through: Through| through.has_gradient() || through == Through::Mirror;
    let hop = route.hops().iter().find(|hop| centred(hop.signal) || other(hop.through));
    hop.map_or(Ok(()), |hop| {
        Err(Error::Conflict {
            first: format!("the hop {hop}"),
            second: "samples on several processes".into(),
            reason: "it needs the whole batch at once",
        })
    })
}
