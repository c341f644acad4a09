//! The layers of one process, and its part of the stages.

use std::{collections::VecDeque, mem::swap, ops::Range};

use super::{
    fingerprint::{require_equal, require_same},
    group::Group,
    score::{row as row_of, step},
    share::share,
    together::{agree, broadcast},
};
use crate::{
    buffer::Columns,
    data::Dataset,
    error::{Error, Result, require},
    feedback::Learning,
    layer::Operation,
    route::{Hop, Through},
    scalar::{Scalar, kernel::Kernel},
    signal::Signal,
    targets::BatchTargets,
    trainer::{Epoch, Step, Tally, Trainer},
    workspace::{Activations, Deltas},
};

/// The part of one process: the neighbouring layers that it computes. It also holds the other layers,
/// as they were when the layers were last collected.
#[derive(Debug)]
pub(super) struct Part<'g, T, G> {
    pub(super) group: &'g G,
    pub(super) trainer: Trainer<T>,
    /// The layers of each process.
    pub(super) shares: Vec<Range<usize>>,
    /// How many batches late the error reaches the hidden layers.
    pub(super) delay: usize,
    /// Whether some hidden layer needs something that depends on the output.
    pub(super) waits: bool,
    /// The batches whose hidden layers have not learned yet, the oldest first.
    pub(super) under_way: VecDeque<Batch<T>>,
    pub(super) spare: Vec<Batch<T>>,
    /// Whether steps have been made since the layers were last collected.
    pub(super) scattered: bool,
}

/// What a process keeps of a batch until its hidden layers have learned from it.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) activations: Activations<T>,
    pub(super) deltas: Deltas<T>,
    targets: BatchTargets<T>,
}

impl<'g, T: Scalar, G: Group> Part<'g, T, G> {
    pub(super) fn new(group: &'g G, trainer: Trainer<T>, delay: usize) -> Result<Self> {
        require_same(group, &trainer)?;
        let layers = trainer.network.layer_count();
        let expected = "at most the number of weighted layers";
        require(group.size() <= layers, "processes", group.size() as f64, expected)?;
        let expected = "at most 1024, and 0 where there is no hidden layer";
        let most = if layers > 1 { 1024 } else { 0 };
        require(delay <= most, "delay", delay as f64, expected)?;
        require_parts(&trainer)?;
        let samples = trainer.batch_size;
        let work: Vec<_> = trainer.network.blocks.iter().map(|block| block.work(samples)).collect();
        let waits = trainer.feedback.route().hops().iter().any(|hop| hop.signal != Signal::Target);
        Ok(Self {
            group,
            shares: share(&work, group.size()),
            delay: if waits { delay } else { 0 },
            waits,
            under_way: VecDeque::new(),
            spare: Vec::new(),
            scattered: false,
            trainer,
        })
    }

    /// The layers of this process.
    pub(super) fn own(&self) -> Range<usize> {
        self.shares[self.group.rank()].clone()
    }

    pub(super) fn is_top(&self) -> bool {
        self.group.rank() + 1 == self.group.size()
    }

    pub(super) fn owner(&self, layer: usize) -> usize {
        let owner = self.shares.iter().position(|share| share.contains(&layer));
        owner.expect("every layer has a process")
    }

    pub(super) fn output(&self) -> usize {
        self.trainer.network.layer_count() - 1
    }

    /// Length of the activations that process `rank` passes up, for one sample.
    pub(super) fn leaving_len(&self, rank: usize) -> usize {
        self.trainer.network.layout.output(self.shares[rank].end - 1)
    }

    /// Whether processes without the output layer need its error.
    pub(super) fn sends_error(&self) -> bool {
        let sent = |hop: &Hop| {
            hop.through.is_straight()
                && hop.signal != Signal::Target
                && self.owner(hop.to) + 1 < self.group.size()
        };
        self.trainer.feedback.route().hops().iter().any(sent)
    }

    /// Makes room for a new batch, the newest of those under way.
    pub(super) fn begin(&mut self, train: &Dataset<T>, indices: &[usize]) -> Result<()> {
        let mut batch = self.spare.pop().unwrap_or_else(|| Batch {
            activations: Activations::seeded(self.trainer.seed),
            deltas: Deltas::new(),
            targets: BatchTargets::Labels(Vec::new()),
        });
        let fits = batch.activations.fit(&self.trainer.network.layout, indices.len());
        train.gather_targets(indices, &mut batch.targets);
        self.under_way.push_back(batch);
        fits
    }

    /// The input of this process's layers, to be written before [`pass`](Self::pass). `bound` is an
    /// upper bound of all `|a|` in the layer below.
    pub(super) fn entering_mut(&mut self, bound: f64) -> &mut [T] {
        let first = self.own().start;
        self.newest().activations.blocks[first - 1].write_output(bound).as_mut_slice()
    }

    /// The output of this process's layers, and an upper bound of its `|a|`.
    pub(super) fn leaving(&mut self) -> (&[T], f64) {
        let last = self.own().end - 1;
        let block = &self.newest().activations.blocks[last];
        (block.output().as_slice(), block.bound)
    }

    /// Stage 1 of the newest batch, in the layers of this process. A process without the output layer
    /// also does what stage 2 would do: it stores the targets if they are sent, and makes room for the
    /// error.
    pub(super) fn pass(&mut self, train: &Dataset<T>, indices: &[usize]) -> Result<()> {
        let own = self.own();
        self.with_newest(|trainer| {
            let threads = trainer.threads.clone();
            threads.run(trainer.network.work(indices.len()), || {
                trainer.pass_part_on(train, indices, own);
            });
            trainer.scratch.activations.require_finite()
        })?;
        if self.is_top() {
            return Ok(());
        }
        let (keep, outputs) =
            (self.trainer.feedback.sends_target(), self.trainer.network.output_len());
        let Batch { activations, deltas, targets } = self.newest();
        deltas.keep_target(keep);
        deltas.fit(activations)?;
        deltas.set_target(|target| targets.as_targets().write(target, outputs))
    }

    /// Stage 2, on the process with the output layer.
    pub(super) fn score(&mut self) -> Result<Step> {
        self.with_newest(Trainer::score_gathered)
    }

    fn newest(&mut self) -> &mut Batch<T> {
        self.under_way.back_mut().expect("a batch has been begun")
    }

    /// `e` of the batch that came `before` batches before the newest, if it is still there.
    pub(super) fn error_mut(&mut self, before: usize) -> Option<&mut Columns<T>> {
        let place = self.under_way.len().checked_sub(before + 1)?;
        Some(self.under_way[place].deltas.error_mut())
    }

    /// Calls `work` with the newest batch in place of the one in the trainer's scratch memory.
    fn with_newest<R>(&mut self, work: impl FnOnce(&mut Trainer<T>) -> R) -> R {
        let batch = self.under_way.back_mut().expect("a batch has been begun");
        swap_in(batch, &mut self.trainer);
        let result = work(&mut self.trainer);
        swap_in(batch, &mut self.trainer);
        result
    }

    /// An epoch whose steps are made by `run`, for batches with these indices. `run` returns the scores
    /// of the steps on the process with the output layer. If `whole` is set, an error undoes the whole
    /// epoch.
    pub(super) fn epoch_by(
        &mut self,
        train: &Dataset<T>,
        whole: bool,
        run: impl FnOnce(&mut Self, &[&[usize]]) -> Result<Vec<Step>>,
    ) -> Result<Epoch> {
        let (group, trainer) = (self.group, &mut self.trainer);
        agree(group, trainer.check(train).and_then(|()| trainer.check_batches(train)))?;
        let reason = "all have to train on the same samples";
        require_equal(group, "the number of samples", train.len() as u64, reason)?;
        let before = whole.then(|| {
            (trainer.network.clone(), trainer.optimizer.clone(), trainer.feedback.clone())
        });
        let learning_rate = trainer.optimizer.learning_rate();
        let order = trainer.take_order(train);
        let batches: Vec<_> = trainer.batches_of(&order).collect();
        let result = run(self, &batches).and_then(|steps| self.publish(batches.len(), &steps));
        self.trainer.scratch.order = order;
        self.spare.extend(self.under_way.drain(..));
        if let (Err(_), Some(before)) = (&result, before) {
            let Trainer { network, optimizer, feedback, .. } = &mut self.trainer;
            (*network, *optimizer, *feedback) = before;
        }
        Ok(self.trainer.end_epoch(&result?, learning_rate))
    }

    /// Sends the scores of the steps to all processes.
    fn publish(&self, count: usize, steps: &[Step]) -> Result<Tally> {
        let mut rows = vec![row_of(None); count];
        rows.iter_mut().zip(steps).for_each(|(row, step)| *row = row_of(Some(step)));
        broadcast(self.group, self.group.size() - 1, bytemuck::cast_slice_mut(&mut rows))?;
        let mut tally = Tally::default();
        rows.into_iter().filter_map(step).for_each(|step| tally.add(&step));
        Ok(tally)
    }

    /// How many batches the hidden layers have not learned from yet.
    pub(super) fn waiting(&self) -> usize {
        self.under_way.len()
    }

    /// The trainer with the present state of all layers, on all processes.
    pub(super) fn collected(&mut self) -> Result<&Trainer<T>> {
        self.collect()?;
        Ok(&self.trainer)
    }

    /// Saves the training run from process 0.
    #[cfg(feature = "safetensors")]
    pub(super) fn save(&mut self, path: &std::path::Path) -> Result<()> {
        let group = self.group;
        let trainer = self.collected()?;
        agree(group, if group.rank() == 0 { trainer.save(path) } else { Ok(()) })
    }

    /// Sends every layer from the process that computes it to all others.
    fn collect(&mut self) -> Result<()> {
        if !self.scattered {
            return Ok(());
        }
        let (group, layers) = (self.group, self.trainer.network.layer_count());
        let owners: Vec<_> = (0..layers).map(|layer| self.owner(layer)).collect();
        let Trainer { network, feedback, optimizer, .. } = &mut self.trainer;
        let mut numbers = optimizer.all_numbers(network);
        for (layer, &owner) in owners.iter().enumerate() {
            for numbers in numbers.layer(layer).into_iter().filter(|numbers| !numbers.is_empty()) {
                broadcast(group, owner, Kernel::bytes_mut(numbers))?;
            }
        }
        for Learning { layer, matrix, moments, .. } in feedback.learning() {
            let [first, second] = moments;
            for numbers in [matrix.as_mut_slice(), first, second] {
                broadcast(group, owners[layer], Kernel::bytes_mut(numbers))?;
            }
        }
        optimizer.measure_moments();
        feedback.measure_moments();
        self.scattered = false;
        Ok(())
    }
}

/// Swaps a batch with the one in the trainer's scratch memory.
fn swap_in<T>(batch: &mut Batch<T>, trainer: &mut Trainer<T>) {
    swap(&mut batch.activations, &mut trainer.scratch.activations);
    swap(&mut batch.deltas, &mut trainer.scratch.deltas);
    swap(&mut batch.targets, &mut trainer.scratch.targets);
}

/// Fails if the layers of a training run cannot be divided among processes.
fn require_parts<T: Scalar>(trainer: &Trainer<T>) -> Result<()> {
    let refuse = |first: String, reason| {
        Err(Error::Conflict { first, second: "layers on several processes".into(), reason })
    };
    if trainer.adversarial.is_some() {
        let reason = "the perturbation needs the gradient of the input, through all layers: share out the samples instead";
        return refuse("adversarial training".into(), reason);
    }
    let is_skip = |operation: &Operation| operation.skip().is_some();
    if trainer.network.layout.operations.iter().flatten().any(is_skip) {
        let reason = "it would lead from one process to another: share out the samples instead";
        return refuse("a residual connection".into(), reason);
    }
    let route = trainer.feedback.route();
    let hops = route.hops();
    let direct = |hop: &Hop| !hop.through.is_straight() || !matches!(hop.signal, Signal::Delta(_));
    if hops.windows(2).any(|pair| pair[0].to == pair[1].to) || !hops.iter().all(direct) {
        let reason = "one hop may lead to a layer, from the output or from a neighbour through weights or what stands in their place";
        return refuse(format!("the route {route}"), reason);
    }
    let local = |through: Through| !through.has_gradient() && through != Through::Mirror;
    if let Some(hop) = hops.iter().find(|hop| !local(hop.through)) {
        let reason = "its matrix learns from what stands on another process";
        return refuse(format!("the hop {hop}"), reason);
    }
    Ok(())
}
