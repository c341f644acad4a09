//! Training with the layers of a network divided among processes, all on the same batch.

use super::{
    fingerprint::require_equal,
    group::Group,
    part::Part,
    score::{ROW, failed_elsewhere, row, step as step_of},
    together::{agree, broadcast},
    up::{read_up, up_len, write_up},
};
use crate::{
    data::Dataset,
    error::Result,
    scalar::{Scalar, kernel::Kernel},
    trainer::{Epoch, Step, Trainer},
};

/// Trains a network whose layers are divided among processes. Each process has some neighbouring
/// layers, chosen so that the process with the most work has as little as possible.
///
/// In a step the activations go up from process to process. The process with the output layer
/// broadcasts the loss and, if the rule needs it, the error `e`. Under DFA all layers then learn at
/// once. Under BP, FA, KP and the rules that follow signs, a process sends the result of a hop, `M δ`,
/// down to the next, because it has the matrix. Under IFA a process sends `δ` up. The results are those
/// of [`Trainer::epoch`], bit for bit, on any number of processes. Each process has the whole dataset
/// and room for the whole network, but computes only its own layers.
///
/// With a delay `k` the hidden layers learn from the error of `k` batches ago, with the activations of
/// that time and the weights of now. The output layer does not wait, because the error is made there.
/// Rules whose hidden layers need no error (DRTP, shallow) do not wait either. An epoch ends when all
/// layers have learned from all of its batches, which takes at most `k` steps more. Use this to study
/// the effect of a late error. To gain time by it, use [`Pipeline`](super::Pipeline).
#[derive(Debug)]
pub struct LayerParallel<'g, T, G> {
    part: Part<'g, T, G>,
}

impl<'g, T: Scalar, G: Group> LayerParallel<'g, T, G> {
    /// Divides the layers of `trainer` among the processes. All processes have to build or load the
    /// trainer in the same way. The error comes `delay` batches late; 0 means no delay.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for more processes than layers, for
    /// a delay above 1024, and for any delay without hidden layers.
    /// [`Error::Conflict`](crate::Error::Conflict) for trainers that differ, and for what cannot be
    /// divided: residual connections, adversarial training, feedback that learns from whole gradients or
    /// from noise (DKP, FDFA, PFA and WM), and routes with several hops to a layer or with hops past a
    /// layer.
    pub fn new(group: &'g G, trainer: Trainer<T>, delay: usize) -> Result<Self> {
        require_equal(group, "the delay", delay as u64, "all have to wait for the same error")?;
        Ok(Self { part: Part::new(group, trainer, delay)? })
    }

    /// One epoch, as [`Trainer::epoch`] makes it.
    ///
    /// # Errors
    /// Those of [`Trainer::epoch`], and [`Error::Conflict`](crate::Error::Conflict) if the datasets
    /// have different lengths. An error of one process is an error of all ([`agree`]). The weights are
    /// then as they were before the step that failed; with a delay, as before the epoch.
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        let whole = self.part.delay > 0;
        self.part.epoch_by(train, whole, |part, batches| {
            let steps = batches.iter().map(|indices| {
                let step = begin(part, train, indices)?;
                part.learn(true, true)?;
                Ok(step)
            });
            let steps: Vec<Step> = steps.collect::<Result<_>>()?;
            while part.waiting() > 0 {
                part.learn(false, true)?;
            }
            Ok(steps)
        })
    }

    /// The trainer with the present state of all layers. All processes have to call it.
    ///
    /// # Errors
    /// [`Error::Process`](crate::Error::Process) if another process is gone.
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

/// Stages 1 and 2 of a batch on all processes.
fn begin<T: Scalar, G: Group>(
    part: &mut Part<T, G>,
    train: &Dataset<T>,
    indices: &[usize],
) -> Result<Step> {
    let (group, rank, samples) = (part.group, part.group.rank(), indices.len());
    let mut own = part.begin(train, indices);
    let mut fine = true;
    if rank > 0 {
        let mut message = vec![0; up_len(part, rank - 1, samples)];
        group.receive(rank - 1, &mut message)?;
        fine = read_up(part, &message, own.is_ok());
    }
    if fine {
        own = own.and_then(|()| part.pass(train, indices));
    }
    if !part.is_top() {
        let length = up_len(part, rank, samples);
        group.send(rank + 1, &write_up(part, length, fine && own.is_ok()))?;
    }
    let scored = match own {
        Ok(()) if fine && part.is_top() => part.score().map(Some),
        own => own.map(|()| None),
    };
    let sent = if part.sends_error() { part.trainer.network.output_len() * samples } else { 0 };
    let mut message = vec![0; ROW + sent * size_of::<T>()];
    let step = scored.as_ref().ok().and_then(Option::as_ref);
    message[..ROW].copy_from_slice(bytemuck::bytes_of(&row(step)));
    if step.is_some()
        && sent > 0
        && let Some(e) = part.error_mut(0)
    {
        message[ROW..].copy_from_slice(Kernel::bytes(e.as_slice()));
    }
    broadcast(group, group.size() - 1, &mut message)?;
    let Some(step) = step_of(bytemuck::pod_read_unaligned(&message[..ROW])) else {
        return agree(group, scored).and(Err(failed_elsewhere()));
    };
    if sent > 0
        && let Some(e) = part.error_mut(0)
    {
        Kernel::bytes_mut(e.as_mut_slice()).copy_from_slice(&message[ROW..]);
    }
    Ok(step)
}
