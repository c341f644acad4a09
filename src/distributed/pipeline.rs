//! Training with the layers of a network divided among processes, each on another batch.

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

/// Trains a network whose layers are divided among processes, while each process works on another
/// batch: the first process on batch `t + 1` while the second works on batch `t`.
///
/// If hidden layers need no error (DRTP, shallow), a process learns as soon as it has passed its
/// activations on. The results are those of [`Trainer::epoch`], bit for bit. If hidden layers need the
/// error itself (DFA, sDFA), it comes `k` batches late. The results are then those of
/// [`LayerParallel`](super::LayerParallel) with that delay, bit for bit, on any number of processes
/// from 1 to `k + 1`: the error needs one step to come down past each process.
///
/// Rules whose deltas go from layer to layer do not work here, because every process would have to keep
/// the weights of all batches under way. For them `LayerParallel` offers the delay too.
#[derive(Debug)]
pub struct Pipeline<'g, T, G> {
    part: Part<'g, T, G>,
}

impl<'g, T: Scalar, G: Group> Pipeline<'g, T, G> {
    /// Divides the layers of `trainer` among the processes. All processes have to build or load the
    /// trainer in the same way.
    ///
    /// # Errors
    /// Those of [`LayerParallel::new`](super::LayerParallel::new). [`Error::Conflict`] for a rule whose
    /// deltas go from layer to layer. [`Error::Conflict`] too if the rule needs the error and `delay`
    /// is smaller than the number of processes above the first.
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

    /// One epoch: every sample once, in the batches of [`Trainer::epoch`]. It takes at most `k` steps
    /// more, until all layers have learned from the last batch.
    ///
    /// # Errors
    /// Those of [`LayerParallel::epoch`](super::LayerParallel::epoch), and [`Error::BatchTooSmall`] if
    /// hidden layers need errors and there are fewer batches than processes above the first. The
    /// weights are then as they were before the epoch.
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

    /// The trainer with the present state of all layers. All processes have to call it.
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
    /// Those of [`Trainer::save`], on all processes.
    #[cfg(feature = "safetensors")]
    pub fn save(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        self.part.save(path.as_ref())
    }
}

/// An epoch of one process. In step `t` it exchanges messages once with each neighbour. The activations
/// of batch `t` go up. The error of an earlier batch comes down, past one process in each step.
struct Run<'a, 'g, T, G> {
    part: &'a mut Part<'g, T, G>,
    train: &'a Dataset<T>,
    batches: &'a [&'a [usize]],
    steps: Vec<Step>,
    /// What went wrong on this process, and whether something failed on any.
    own: Result<()>,
    failed: bool,
    /// Whether this process still exchanges messages with the neighbour below, and with the one above.
    /// Two neighbours stop after one has told the other of a failure.
    below: bool,
    above: bool,
}

/// Bytes before an error: one that says whether all is well above.
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

    /// Calls `work`, unless an earlier part of the epoch has failed.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) {
        if !self.failed {
            self.own = work(self);
            self.failed = self.own.is_err();
        }
    }

    /// Passes an error down and receives the activations from below.
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

    /// Passes the activations up and receives the error from above.
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

    /// Bytes that process `rank` passes up in a step. Without activations once all batches have gone
    /// up.
    fn up_len(&self, step: usize, rank: usize) -> usize {
        up_len(self.part, rank, self.batches.get(step).map_or(0, |batch| batch.len()))
    }

    /// The batch whose error comes down to process `rank` in a step; `None` if there is none.
    fn comes_down(&self, step: usize, rank: usize) -> Option<usize> {
        let batch = step.checked_sub(self.part.group.size() - 1 - rank)?;
        (self.part.sends_error() && batch < self.batches.len()).then_some(batch)
    }

    fn down_len(&self, step: usize, rank: usize) -> usize {
        let samples = self.comes_down(step, rank).map_or(0, |batch| self.batches[batch].len());
        HEAD + samples * self.part.trainer.network.output_len() * size_of::<T>()
    }

    /// Where this process stores the error that comes down to process `rank`.
    fn error(&mut self, step: usize, rank: usize) -> Option<&mut [T]> {
        let newest = step.min(self.batches.len() - 1);
        let before = newest - self.comes_down(step, rank)?;
        Some(self.part.error_mut(before)?.as_mut_slice())
    }
}
