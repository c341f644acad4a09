//! The results of the forward pass.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nalgebra::DMatrixView;

use super::layout::Layout;
use crate::{
    buffer::{Columns, Notes, Pass, Statistics, When},
    error::{Error, Result, require_finite},
    layer::Operation,
    scalar::Scalar,
};

/// The results of the forward pass: `h_0 = x`, and `a_l`, `h_l` of every block.
///
/// [`Network::forward`](crate::Network::forward) fits it to the network and the batch, so one value
/// serves any network. Layers are counted from 0; the last one is the output layer.
#[derive(Clone, Debug)]
pub struct Activations<T> {
    pub(crate) layout: Arc<Layout>,
    pub(crate) batch: usize,
    /// A number for the forward pass, unique in this process, by which later stages recognise it; 0
    /// before the first.
    pub(crate) pass: usize,
    /// Whether there is room for everything.
    fits: bool,
    pub(crate) input: Columns<T>,
    /// An upper bound of all `x²`.
    pub(crate) input_squares: f64,
    pub(crate) input_operations: Vec<Record<T>>,
    pub(crate) blocks: Vec<BlockActivations<T>>,
    /// Seed and time of the dropout masks.
    seed: u64,
    time: u64,
}

/// `a` of one block and the output of each of its local operations. The last output is `h`.
#[derive(Clone, Debug)]
pub(crate) struct BlockActivations<T> {
    pub(crate) a: Columns<T>,
    /// An upper bound of all `|a|`; ∞ if some `a` is NaN or infinite.
    pub(crate) bound: f64,
    /// Whether `a`, and the statistics of batch normalisation, are free of NaN and infinities.
    pub(crate) finite: bool,
    pub(crate) operations: Vec<Record<T>>,
}

/// The output of one operation, and its notes for the way back.
#[derive(Clone, Debug)]
pub(crate) struct Record<T> {
    pub(crate) output: Columns<T>,
    pub(crate) notes: Notes<T>,
}

impl<T: Scalar> Record<T> {
    fn new(size: usize) -> Self {
        let notes = Notes::new();
        Self { output: Columns::new(size), notes }
    }

    /// Makes room for `batch` samples.
    fn set_batch(&mut self, batch: usize, operation: &Operation) -> Result<()> {
        self.output.set_batch(batch)?;
        operation.reserve_notes(&mut self.notes, self.output.rows(), batch)
    }
}

/// A number that no other forward pass of this process has. Each thread reserves many at once, because
/// threads that share one counter slow each other down.
fn unique_pass() -> usize {
    const MANY: usize = 1 << 16;
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LAST: Cell<usize> = const { Cell::new(0) };
    }
    let mut last = LAST.get();
    if last.is_multiple_of(MANY) {
        last = TAKEN.fetch_add(MANY, Ordering::Relaxed);
    }
    LAST.set(last + 1);
    last + 1
}

/// The results of the forward pass below a block.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a, T> {
    input: &'a Columns<T>,
    blocks: &'a [BlockActivations<T>],
}

impl<'a, T: Scalar> Below<'a, T> {
    /// The input of the block.
    pub(crate) fn entering(self) -> &'a Columns<T> {
        self.blocks.last().map_or(self.input, BlockActivations::output)
    }

    /// The second input of an operation of the block: for a residual connection, the values it adds.
    pub(crate) fn beside(self, operation: &Operation) -> &'a [T] {
        match operation.skip().map(|skip| skip.from) {
            None => &[],
            Some(None) => self.input.as_slice(),
            Some(Some(layer)) => self.blocks[layer].output().as_slice(),
        }
    }

    /// Only an input, and no blocks.
    pub(crate) fn of_input(input: &'a Columns<T>) -> Self {
        Self { input, blocks: &[] }
    }
}

impl<T: Scalar> BlockActivations<T> {
    /// `h`, what the block passes on.
    pub(crate) fn output(&self) -> &Columns<T> {
        self.operations.last().map_or(&self.a, |record| &record.output)
    }

    /// [`output`](Self::output), for a caller that writes it in place of a forward pass. `bound` is an
    /// upper bound of all `|a|`.
    #[cfg(feature = "mpi")]
    pub(crate) fn write_output(&mut self, bound: f64) -> &mut Columns<T> {
        self.bound = bound;
        self.operations.last_mut().map_or(&mut self.a, |record| &mut record.output)
    }

    /// Fails at the first number of weighted layer `layer` that is not finite.
    fn require_finite(&self, layer: usize) -> Result<()> {
        let what = || format!("a of weighted layer {layer} (units × samples)");
        require_finite(what, self.a.rows(), self.a.as_slice())?;
        for Record { notes: Notes { statistics, .. }, .. } in &self.operations {
            let what = |name| format!("the {name} of the normalisation after layer {layer}");
            let Statistics { mean, variance, .. } = statistics;
            require_finite(|| what("mean"), mean.len(), mean)?;
            // The running variance follows `n/(n − 1)` times the variance of the batch, at most twice
            // as much.
            let doubled: Vec<T> = variance.iter().map(|&v| v + v).collect();
            require_finite(|| what("variance"), doubled.len(), &doubled)?;
        }
        Ok(())
    }

    /// The input of operation `index`.
    pub(crate) fn before(&self, index: usize) -> &Columns<T> {
        match index {
            0 => &self.a,
            _ => &self.operations[index - 1].output,
        }
    }
}

impl<T: Scalar> Activations<T> {
    /// Empty scratch for any network, with dropout masks of seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// Empty scratch for any network. The first forward pass draws the dropout masks of the first step
    /// of a training run with this seed, the second pass those of the second step, and so on.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            layout: Arc::default(),
            batch: 0,
            pass: 0,
            fits: false,
            input: Columns::new(0),
            input_squares: f64::INFINITY,
            input_operations: Vec::new(),
            blocks: Vec::new(),
            seed,
            time: 0,
        }
    }

    /// Makes room for `batch` samples in a network of this layout.
    pub(crate) fn fit(&mut self, layout: &Arc<Layout>, batch: usize) -> Result<()> {
        self.pass = 0;
        // The last pass may have been on another thread.
        layout.memory.reserve::<T>()?;
        let same = Layout::same(&self.layout, layout);
        if same && self.batch == batch && self.fits {
            return Ok(());
        }
        self.fits = false;
        if !same {
            self.layout = Arc::clone(layout);
            self.input = Columns::new(layout.inputs);
            self.input_operations =
                layout.input_operations.iter().map(|_| Record::new(layout.inputs)).collect();
            self.blocks = layout
                .blocks
                .iter()
                .map(|block| BlockActivations {
                    a: Columns::new(block.a),
                    bound: f64::INFINITY,
                    finite: true,
                    operations: block.operations.iter().map(|&size| Record::new(size)).collect(),
                })
                .collect();
        }
        self.batch = batch;
        self.input.set_batch(batch)?;
        let mut on_input = self.input_operations.iter_mut().zip(&layout.input_operations);
        on_input.try_for_each(|(record, operation)| record.set_batch(batch, operation))?;
        for (block, operations) in self.blocks.iter_mut().zip(&layout.operations) {
            block.a.set_batch(batch)?;
            let mut records = block.operations.iter_mut().zip(operations);
            records.try_for_each(|(record, operation)| record.set_batch(batch, operation))?;
        }
        self.fits = true;
        Ok(())
    }

    /// Begins a pass: gives it a number and a time if it is a training pass.
    pub(crate) fn begin_pass(&mut self, when: When) -> Pass {
        match when {
            When::Next => {}
            When::At(time) => self.time = time,
            When::Evaluating => return Pass::Evaluation,
        }
        self.pass = unique_pass();
        self.time += 1;
        Pass::Training { seed: self.seed, time: self.time - 1 }
    }

    /// The time of the last training pass.
    pub(crate) fn last_time(&self) -> u64 {
        self.time.saturating_sub(1)
    }

    /// Sets the seed of the dropout masks.
    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Number of samples of the last forward pass.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// `a_l = W_l h_{l-1} + b_l`, of shape `n_l × N`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last forward pass has no such layer.
    pub fn pre_activation(&self, layer: usize) -> Result<DMatrixView<'_, T>> {
        self.block(layer).map(|block| block.a.view())
    }

    /// `h_l = f(a_l)`, what layer `l` passes on, of shape `n_l × N`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last forward pass has no such layer.
    pub fn output(&self, layer: usize) -> Result<DMatrixView<'_, T>> {
        self.block(layer).map(|block| block.output().view())
    }

    /// The output of the network, `a_L`, of shape `n_L × N`.
    ///
    /// # Errors
    /// [`Error::Empty`] before the first forward pass.
    pub fn logits(&self) -> Result<DMatrixView<'_, T>> {
        self.logit_columns().map(Columns::view)
    }

    pub(crate) fn logit_columns(&self) -> Result<&Columns<T>> {
        self.blocks
            .last()
            .map(BlockActivations::output)
            .ok_or_else(|| Error::Empty { what: "the activations".into() })
    }

    /// The results below block `layer`, and the blocks from `layer` on.
    pub(crate) fn split_at(&mut self, layer: usize) -> (Below<'_, T>, &mut [BlockActivations<T>]) {
        let (blocks, from) = self.blocks.split_at_mut(layer);
        let input = self.input_operations.last().map_or(&self.input, |record| &record.output);
        (Below { input, blocks }, from)
    }

    /// The input of block `layer`: the output of the block below, or the input of the network.
    pub(crate) fn entering(&self, layer: usize) -> &Columns<T> {
        match layer {
            0 => self.input_operations.last().map_or(&self.input, |record| &record.output),
            _ => self.blocks[layer - 1].output(),
        }
    }

    /// Fails if some `a`, or a variance of batch normalisation, has overflowed. The loss alone would
    /// not show it, because `σ(∞)`, `tanh ∞` and `1/√∞` are finite. If an `h` overflows, the next `a`
    /// does too.
    pub(crate) fn require_finite(&self) -> Result<()> {
        match self.blocks.iter().position(|block| !block.finite) {
            Some(layer) => self.blocks[layer].require_finite(layer),
            None => Ok(()),
        }
    }

    fn block(&self, layer: usize) -> Result<&BlockActivations<T>> {
        self.blocks.get(layer).ok_or(Error::NoSuchLayer {
            what: "weighted layer",
            layer,
            count: self.blocks.len(),
        })
    }
}

impl<T: Scalar> Default for Activations<T> {
    fn default() -> Self {
        Self::new()
    }
}
