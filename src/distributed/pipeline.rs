//! The layers of a network on several processes, each on another batch.

use super::{
    fingerprint::require_equal,
    group::Group,
    part::Part,
    score::failed_elsewhere,
    together::agree,
    up::{read_up, up_len, write_up},
};
use crate::{
    data::Dataset,
    error::{Error, Result},
    scalar::{Scalar, kernel::Kernel},
    signal::Signal,
    trainer::{Epoch, Step, Trainer},
};

/// Trains a network whose layers are shared out among processes, while each works on another batch: the
/// first on batch `t + 1` while the second works on batch `t`.
///
/// Where hidden layers need no error (DRTP, shallow), a process learns as soon as it has passed its
/// activations on, and the results are those of [`Trainer::epoch`] to the bit. Where they need the error
/// itself (DFA, sDFA), it comes `k` batches late, and the results are those of
/// [`LayerParallel`](super::LayerParallel) with that delay, to the bit, on any number of processes from 1
/// to `k + 1`: it takes a step to come down past each process.
///
/// Rules whose deltas go from layer to layer cannot be run like this without keeping the weights of every
/// batch under way; `LayerParallel` has the delay for them too.
#[derive(Debug)]
pub struct Pipeline<'g, T, G> {
    part: Part<'g, T, G>,
}

impl<'g, T: Scalar, G: Group> Pipeline<'g, T, G> {
    /// Shares out the layers of `trainer`, which all processes have built or loaded in the same way.
    ///
    /// # Errors
    /// As for [`LayerParallel::new`](super::LayerParallel::new), and [`Error::Conflict`] for a rule whose
    /// deltas go from layer to layer, and for a delay of fewer batches than there are processes above the
    /// first, if the rule needs the error.
    pub fn new(group: &'g G, trainer: Trainer<T>, delay: usize) -> Result<Self> {
        require_equal(group, "the delay", delay as u64, "all have to wait for the same error")?;
        let part = Part::new(group, trainer, delay)?;
        let route = part.trainer.feedback.route();
        let from_output = |signal| !matches!(signal, Signal::Delta(_));
        if !route.hops().iter().all(|hop| from_output(hop.signal) && hop.through.is_straight()) {
            return Err(Error::Conflict {
                first: format!("the rule {}", part.trainer.feedback.rule_name()),
                second: "a pipeline".into(),
                reason: "deltas go from layer to layer, through weights that have changed by then: LayerParallel has a delay for it",
            });
        }
        if part.waits && part.delay + 1 < group.size() {
            return Err(Error::Conflict {
                first: format!("a delay of {delay}"),
                second: format!("{} processes", group.size()),
                reason: "the error takes a step to come down past each process: let it come later, or take fewer processes",
            });
        }
        Ok(Self { part })
    }

    /// One epoch: every sample once, in the batches of [`Trainer::epoch`], and at most `k` steps more until
    /// all have learned from the last of them.
    ///
    /// # Errors
    /// As for [`LayerParallel::epoch`](super::LayerParallel::epoch), and [`Error::BatchTooSmall`] if there
    /// are fewer batches than processes above the first, and these wait for errors. The weights are then as
    /// they were before the epoch.
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        self.part.epoch_by(train, true, |part, batches| {
            if part.waits && batches.len() + 1 < part.group.size() {
                let (batches, processes) = (batches.len(), part.group.size());
                let what = format!("an epoch of {batches} batches ends before an error is past {processes} processes");
                return Err(Error::BatchTooSmall { what });
            }
            Run::new(part, train, batches).all()
        })
    }

    /// The trainer with all layers as they are now. All processes have to call it.
    ///
    /// # Errors
    /// [`Error::Process`] if another process is gone.
    pub fn trainer(&mut self) -> Result<&Trainer<T>> {
        self.part.collected()
    }

    /// Saves the training run, as [`Trainer::save`] does: process 0 writes the file. Any number of
    /// processes can [load](Trainer::load) it and go on.
    ///
    /// # Errors
    /// As for [`Trainer::save`], on all processes.
    #[cfg(feature = "safetensors")]
    pub fn save(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        self.part.save(path.as_ref())
    }
}

/// An epoch of a process. In step `t` it speaks once with each neighbour: the activations of batch `t` go
/// up, and the error of an earlier batch comes down, one process a step.
struct Run<'a, 'g, T, G> {
    part: &'a mut Part<'g, T, G>,
    train: &'a Dataset<T>,
    batches: &'a [&'a [usize]],
    steps: Vec<Step>,
    /// What went wrong here, and whether something did anywhere.
    own: Result<()>,
    failed: bool,
    /// Whether this process still exchanges messages with its neighbour below, and with the one above.
    /// Both sides stop after one has told the other of a failure.
    below: bool,
    above: bool,
}

/// What stands before an error: whether all is well above.
const HEAD: usize = 1;

impl<'a, 'g, T: Scalar, G: Group> Run<'a, 'g, T, G> {
    fn new(
        part: &'a mut Part<'g, T, G>,
        train: &'a Dataset<T>,
        batches: &'a [&'a [usize]],
    ) -> Self {
        let (below, above) = (part.group.rank() > 0, !part.is_top());
        let (steps, own, failed) = (Vec::new(), Ok(()), false);
        Self { part, train, batches, steps, own, failed, below, above }
    }

    fn all(mut self) -> Result<Vec<Step>> {
        let last = self.batches.len();
        for step in 0..last + self.part.delay.min(last) {
            self.step(step)?;
            if self.failed && !self.below && !self.above {
                break;
            }
        }
        agree(self.part.group, self.own)?;
        if self.failed { Err(failed_elsewhere()) } else { Ok(self.steps) }
    }

    fn step(&mut self, step: usize) -> Result<()> {
        let batch = self.batches.get(step).copied();
        if let Some(indices) = batch {
            self.attempt(|run| run.part.begin(run.train, indices));
        }
        self.speak_below(step)?;
        if let Some(indices) = batch {
            self.attempt(|run| run.part.pass(run.train, indices));
        }
        self.speak_above(step)?;
        if self.part.is_top() && batch.is_some() {
            self.attempt(|run| {
                let step = run.part.score()?;
                run.steps.push(step);
                Ok(())
            });
        }
        self.attempt(|run| run.part.learn(batch.is_some(), false));
        Ok(())
    }

    /// Does `work`, unless an earlier part of the epoch has failed.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) {
        if !self.failed {
            self.own = work(self);
            self.failed = self.own.is_err();
        }
    }

    /// Passes an error down, and takes what comes up.
    fn speak_below(&mut self, step: usize) -> Result<()> {
        if !self.below {
            return Ok(());
        }
        let rank = self.part.group.rank();
        let mut message = vec![0; self.down_len(step, rank - 1)];
        let told = self.failed;
        if !told {
            message[0] = 1;
            if let Some(e) = self.error(step, rank - 1) {
                message[HEAD..].copy_from_slice(Kernel::bytes(e));
            }
        }
        let mut answer = vec![0; self.up_len(step, rank - 1)];
        self.part.group.exchange(rank - 1, &message, &mut answer)?;
        let fine = read_up(self.part, &answer, !self.failed);
        self.below = fine && !told;
        self.failed |= !fine;
        Ok(())
    }

    /// Passes the activations up, and takes the error that comes down.
    fn speak_above(&mut self, step: usize) -> Result<()> {
        if !self.above {
            return Ok(());
        }
        let rank = self.part.group.rank();
        let (length, told) = (self.up_len(step, rank), self.failed);
        let message = write_up(self.part, length, !told);
        let mut answer = vec![0; self.down_len(step, rank)];
        self.part.group.exchange(rank + 1, &message, &mut answer)?;
        let fine = answer[0] == 1;
        if fine
            && !told
            && let Some(e) = self.error(step, rank)
        {
            Kernel::bytes_mut(e).copy_from_slice(&answer[HEAD..]);
        }
        self.above = fine && !told;
        self.failed |= !fine;
        Ok(())
    }

    /// Bytes that process `rank` passes up in a step: none where all batches have gone up.
    fn up_len(&self, step: usize, rank: usize) -> usize {
        up_len(self.part, rank, self.batches.get(step).map_or(0, |batch| batch.len()))
    }

    /// The batch whose error comes down to process `rank` in a step, if there is one.
    fn comes_down(&self, step: usize, rank: usize) -> Option<usize> {
        let batch = step.checked_sub(self.part.group.size() - 1 - rank)?;
        (self.part.sends_error() && batch < self.batches.len()).then_some(batch)
    }

    fn down_len(&self, step: usize, rank: usize) -> usize {
        let samples = self.comes_down(step, rank).map_or(0, |batch| self.batches[batch].len());
        HEAD + samples * self.part.trainer.network.output_len() * size_of::<T>()
    }

    /// Where this process keeps the error that comes down to process `rank`.
    fn error(&mut self, step: usize, rank: usize) -> Option<&mut [T]> {
        let newest = step.min(self.batches.len() - 1);
        let before = newest - self.comes_down(step, rank)?;
        Some(self.part.error_mut(before)?.as_mut_slice())
    }
}
