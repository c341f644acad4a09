//! Scratch memory of a training step: activations, deltas and gradients.
//!
//! Each grows to the largest batch it has seen and then never allocates again; a smaller batch
//! uses the first columns. None of it outlives its meaning: every stage overwrites what it fills.

mod layout;

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nalgebra::{DMatrix, DMatrixView, DVector};

pub(crate) use layout::{BlockLayout, Layout, Needs, require_layout};

use crate::{
    buffer::{Columns, Notes, Pass, Statistics},
    error::{Error, Result, require_finite},
    layer::{LayerGradient, NormGradient},
    scalar::Scalar,
};

/// What the forward pass leaves behind: `h_0 = x`, and `a_l`, `h_l` of every block.
///
/// Fitted to the network and the batch by [`Network::forward`](crate::Network::forward), so that
/// one value serves any network. Layers are counted from 0; the last one is the output layer.
#[derive(Clone, Debug)]
pub struct Activations<T> {
    pub(crate) layout: Arc<Layout>,
    pub(crate) batch: usize,
    /// Which forward pass of this process it was, so that a later stage can tell whether it was
    /// given the same one; 0 before the first.
    pub(crate) pass: usize,
    /// Whether there is room for everything.
    fits: bool,
    pub(crate) input: Columns<T>,
    /// A number that no `x²` exceeds.
    pub(crate) input_squares: f64,
    pub(crate) input_operations: Vec<Record<T>>,
    pub(crate) blocks: Vec<BlockActivations<T>>,
    /// Seed and time of the dropout masks.
    seed: u64,
    time: u64,
}

/// `a` of one block and what each of its local operations made of it, the last being `h`.
#[derive(Clone, Debug)]
pub(crate) struct BlockActivations<T> {
    pub(crate) a: Columns<T>,
    /// A number that no `|a|` exceeds; ∞ if some `a` is NaN or infinite.
    pub(crate) bound: f64,
    /// Whether `a`, and the statistics of batch normalisation, are free of NaN and infinities.
    pub(crate) finite: bool,
    pub(crate) operations: Vec<Record<T>>,
}

/// What one operation made of its input.
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
    fn set_batch(&mut self, batch: usize, needs: Needs) -> Result<()> {
        self.output.set_batch(batch)?;
        let Notes { winners, kept, statistics } = &mut self.notes;
        let length = self.output.as_slice().len();
        match needs {
            Needs::Nothing => Ok(()),
            Needs::Winners => reserve(winners, length),
            Needs::Kept => reserve(kept, length),
            Needs::Channels(channels) => {
                let Statistics { mean, variance, inverse_deviation, .. } = statistics;
                let all = [mean, variance, inverse_deviation];
                all.into_iter().try_for_each(|numbers| reserve(numbers, channels))
            }
        }
    }
}

/// A number that no other forward pass of this process has. Each thread takes many at once, since
/// threads that count together slow each other down.
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

/// Makes room for `length` elements in all.
fn reserve<E>(to: &mut Vec<E>, length: usize) -> Result<()> {
    let more = length.saturating_sub(to.len());
    to.try_reserve_exact(more).map_err(|_| Error::TooLarge { rows: length, columns: 1 })
}

impl<T: Scalar> BlockActivations<T> {
    /// `h`, what the block passes on.
    pub(crate) fn output(&self) -> &Columns<T> {
        self.operations.last().map_or(&self.a, |record| &record.output)
    }

    /// Fails with the first number of weighted layer `layer` that is not finite.
    fn require_finite(&self, layer: usize) -> Result<()> {
        let what = || format!("a of weighted layer {layer} (units × samples)");
        require_finite(what, self.a.rows(), self.a.as_slice())?;
        for Record { notes: Notes { statistics, .. }, .. } in &self.operations {
            let what = |name| format!("the {name} of batch normalisation after layer {layer}");
            let Statistics { mean, variance, .. } = statistics;
            require_finite(|| what("mean"), mean.len(), mean)?;
            // The running variance follows n/(n − 1) times that of the batch, at most twice.
            let doubled: Vec<T> = variance.iter().map(|&v| v + v).collect();
            require_finite(|| what("variance"), doubled.len(), &doubled)?;
        }
        Ok(())
    }

    /// What operation `index` was given.
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

    /// Empty scratch for any network. The first forward pass draws the dropout masks of the first
    /// step of a training run with this seed, the next one those of the second, and so on.
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

    /// Makes room for the next `batch` samples in a network of this layout.
    pub(crate) fn fit(&mut self, layout: &Arc<Layout>, batch: usize) -> Result<()> {
        self.pass = 0;
        let same = Layout::same(&self.layout, layout);
        if same && self.batch == batch && self.fits {
            return Ok(());
        }
        self.fits = false;
        if !same {
            self.layout = Arc::clone(layout);
            self.input = Columns::new(layout.inputs);
            self.input_operations =
                (0..layout.input_operations).map(|_| Record::new(layout.inputs)).collect();
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
        // Deep inside a pass, where the scratch is taken, it is too late for an error.
        if !T::reserve_scratch(layout.scratch) {
            return Err(Error::TooLarge { rows: layout.scratch, columns: 1 });
        }
        self.batch = batch;
        self.input.set_batch(batch)?;
        let mut on_input = self.input_operations.iter_mut();
        on_input.try_for_each(|record| record.set_batch(batch, Needs::Kept))?;
        for (block, needs) in self.blocks.iter_mut().zip(&layout.notes) {
            block.a.set_batch(batch)?;
            let mut records = block.operations.iter_mut().zip(needs);
            records.try_for_each(|(record, &needs)| record.set_batch(batch, needs))?;
        }
        self.fits = true;
        Ok(())
    }

    /// The next training pass; time moves on.
    pub(crate) fn next_pass(&mut self) -> Pass {
        self.pass = unique_pass();
        let pass = Pass::Training { seed: self.seed, time: self.time };
        self.time += 1;
        pass
    }

    /// Sets the seed of the dropout masks.
    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Sets the time of the next training pass.
    pub(crate) fn set_time(&mut self, time: u64) {
        self.time = time;
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

    /// What block `layer` reads: the output of the one below, or the input.
    pub(crate) fn entering(&self, layer: usize) -> &Columns<T> {
        match layer {
            0 => self.input_operations.last().map_or(&self.input, |record| &record.output),
            _ => self.blocks[layer - 1].output(),
        }
    }

    /// Fails if some `a`, or a variance of batch normalisation, has overflowed. The loss need not
    /// show it: `σ(∞)`, `tanh ∞` and `1/√∞` are fine numbers. An `h` that overflows shows in the
    /// next `a`.
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

/// What each layer learns from: `δ_l`, of shape `n_l × N`, for every block.
///
/// [`Loss::error`](crate::Loss::error) writes the last one, `δ_L = e`;
/// [`Feedback::deliver`](crate::Feedback::deliver) the hidden ones. Under backpropagation `δ_l` is
/// `∂J/∂a_l`; under the other rules it stands in its place.
#[derive(Clone, Debug)]
pub struct Deltas<T> {
    pub(crate) layout: Arc<Layout>,
    pub(crate) batch: usize,
    /// The forward pass that they belong to.
    pub(crate) pass: usize,
    /// Whether feedback has reached the hidden layers.
    pub(crate) delivered: bool,
    /// Whether there is room for everything.
    fits: bool,
    pub(crate) blocks: Vec<BlockDeltas<T>>,
}

/// The delta of one block on its way back.
#[derive(Clone, Debug)]
pub(crate) struct BlockDeltas<T> {
    /// First `δ`, at `a`; then, for each pooling operation, what is at its output. Feedback
    /// arrives in the last one.
    pub(crate) stages: Vec<Columns<T>>,
    /// For each operation what batch normalisation learns on the way; empty for the others.
    pub(crate) norms: Vec<NormGradient<T>>,
}

impl<T: Scalar> BlockDeltas<T> {
    /// `δ`, at `a`.
    pub(crate) fn delta(&self) -> &Columns<T> {
        &self.stages[0]
    }

    /// What is at the end of the block.
    pub(crate) fn end(&self) -> &Columns<T> {
        self.stages.last().expect("a block has at least one stage")
    }

    /// Where feedback arrives, at the end of the block.
    pub(crate) fn arrival(&mut self) -> &mut Columns<T> {
        self.stages.last_mut().expect("a block has at least one stage")
    }
}

/// Makes room for what batch normalisation learns.
pub(crate) fn reserve_norm<T: Scalar>(norm: &mut NormGradient<T>, needs: Needs) -> Result<()> {
    let Needs::Channels(channels) = needs else { return Ok(()) };
    let NormGradient { scale, shift, mean, variance } = norm;
    let all = [scale, shift, mean, variance];
    all.into_iter().try_for_each(|numbers| reserve(numbers, channels))
}

impl<T: Scalar> Deltas<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layout: Arc::default(),
            batch: 0,
            pass: 0,
            delivered: false,
            fits: false,
            blocks: Vec::new(),
        }
    }

    /// Makes room for the deltas of a forward pass.
    pub(crate) fn fit(&mut self, activations: &Activations<T>) -> Result<()> {
        let Activations { layout, batch, .. } = activations;
        (self.pass, self.delivered) = (0, false);
        let same = Layout::same(&self.layout, layout);
        if same && self.batch == *batch && self.fits {
            self.pass = activations.pass;
            return Ok(());
        }
        self.fits = false;
        if !same {
            self.layout = Arc::clone(layout);
            self.blocks = layout
                .blocks
                .iter()
                .map(|block| BlockDeltas {
                    stages: block.stages.iter().map(|&size| Columns::new(size)).collect(),
                    norms: block.operations.iter().map(|_| NormGradient::empty()).collect(),
                })
                .collect();
        }
        self.batch = *batch;
        let mut stages = self.blocks.iter_mut().flat_map(|block| &mut block.stages);
        stages.try_for_each(|stage| stage.set_batch(*batch))?;
        for (block, needs) in self.blocks.iter_mut().zip(&layout.notes) {
            let mut norms = block.norms.iter_mut().zip(needs);
            norms.try_for_each(|(norm, &needs)| reserve_norm(norm, needs))?;
        }
        self.pass = activations.pass;
        self.fits = true;
        Ok(())
    }

    /// `e`, the delta of the output layer, and those of the hidden layers.
    pub(crate) fn split_error(&mut self) -> (&BlockDeltas<T>, &mut [BlockDeltas<T>]) {
        let (e, hidden) = self.blocks.split_last_mut().expect("a network has an output layer");
        (e, hidden)
    }

    /// `e`, the delta of the output layer.
    pub(crate) fn error_mut(&mut self) -> &mut Columns<T> {
        self.blocks.last_mut().expect("a network has an output layer").arrival()
    }

    /// `δ_l`, of shape `n_l × N`; layers are counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last pass has no such layer.
    pub fn delta(&self, layer: usize) -> Result<DMatrixView<'_, T>> {
        self.blocks.get(layer).map(|block| block.delta().view()).ok_or(Error::NoSuchLayer {
            what: "weighted layer",
            layer,
            count: self.blocks.len(),
        })
    }
}

impl<T: Scalar> Default for Deltas<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// `∂W_l = δ_l h_{l-1}ᵀ` and `∂b_l = Σ δ_l` of every layer, each in the shape of its parameter.
#[derive(Clone, Debug)]
pub struct Gradients<T> {
    /// The network that they are of.
    pub(crate) layout: Arc<Layout>,
    pub(crate) layers: Vec<LayerGradient<T>>,
    /// For each block and operation; empty but for batch normalisation.
    pub(crate) norms: Vec<Vec<NormGradient<T>>>,
}

impl<T: Scalar> Gradients<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        Self { layout: Arc::default(), layers: Vec::new(), norms: Vec::new() }
    }

    /// `∂W_l`, `n_l × n_{l-1}`; layers are counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn weights(&self, layer: usize) -> Result<&DMatrix<T>> {
        self.layer(layer).map(|gradient| &gradient.weights)
    }

    /// `∂b_l`, of length `n_l`, unless the layer has no bias.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn bias(&self, layer: usize) -> Result<Option<&DVector<T>>> {
        self.layer(layer).map(|gradient| gradient.bias.as_ref())
    }

    /// `∂γ` and `∂β` of the batch normalisation after layer `layer`, the first if there are
    /// several; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn batch_norm(&self, layer: usize) -> Result<Option<(&[T], &[T])>> {
        self.layer(layer)?;
        let norm = self.norms[layer].iter().find(|norm| !norm.scale.is_empty());
        Ok(norm.map(|norm| (&norm.scale[..], &norm.shift[..])))
    }

    fn layer(&self, layer: usize) -> Result<&LayerGradient<T>> {
        self.layers.get(layer).ok_or(Error::NoSuchLayer {
            what: "weighted layer",
            layer,
            count: self.layers.len(),
        })
    }
}

impl<T: PartialEq> PartialEq for Gradients<T> {
    /// Compares what has been learned, not the network that it is of.
    fn eq(&self, other: &Self) -> bool {
        self.layers == other.layers && self.norms == other.norms
    }
}

impl<T: Scalar> Default for Gradients<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Fails unless `deltas` come of the forward pass that left these `activations`, and both are of a
/// network of `layout`.
pub(crate) fn require_match<T: Scalar>(
    stage: &'static str,
    layout: &Arc<Layout>,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> Result<()> {
    require_layout(stage, "activations", layout, &activations.layout)?;
    require_layout(stage, "deltas", layout, &deltas.layout)?;
    let pass = |pass, batch| match pass {
        0 => "no forward pass".to_owned(),
        _ => format!("forward pass {pass} ({batch} samples)"),
    };
    if activations.pass == 0 || deltas.pass != activations.pass {
        return Err(Error::StageMismatch {
            stage,
            what: "deltas",
            expected: pass(activations.pass, activations.batch),
            found: pass(deltas.pass, deltas.batch),
        });
    }
    Ok(())
}

/// [`require_match`], of deltas that feedback has been delivered to.
pub(crate) fn require_delivered<T: Scalar>(
    stage: &'static str,
    layout: &Arc<Layout>,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> Result<()> {
    require_match(stage, layout, activations, deltas)?;
    if deltas.delivered || deltas.blocks.len() == 1 {
        return Ok(());
    }
    let expected = "deltas of every layer: call Feedback::deliver first".to_owned();
    let found = "that of the output layer alone".to_owned();
    Err(Error::StageMismatch { stage, what: "deltas", expected, found })
}
