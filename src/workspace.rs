//! Scratch memory of a training step: activations, deltas and gradients.
//!
//! Each grows to the largest batch it has seen and then never allocates again; a smaller batch
//! uses the first columns. None of it outlives its meaning: every stage overwrites what it fills.

use std::fmt;

use nalgebra::{DMatrix, DMatrixView, DVector};

use crate::{
    error::{Error, Result, require_finite},
    layer::LayerGradient,
    linalg::{Mat, MatMut},
    scalar::Scalar,
};

/// The sizes of everything that a network computes for one sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Number of inputs.
    pub(crate) inputs: usize,
    /// For each block the length of `a`, then the length of what each local operation yields.
    pub(crate) blocks: Vec<Vec<usize>>,
}

impl Layout {
    /// Length of what block `index` yields, `h`.
    pub(crate) fn output(&self, index: usize) -> usize {
        *self.blocks[index].last().expect("a block has at least its `a`")
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inputs)?;
        (0..self.blocks.len()).try_for_each(|block| write!(f, "-{}", self.output(block)))
    }
}

/// A matrix of fixed height whose first `batch` columns are in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns<T> {
    rows: usize,
    batch: usize,
    data: Vec<T>,
}

impl<T: Scalar> Columns<T> {
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, batch: 0, data: Vec::new() }
    }

    /// Makes room for `batch` columns; their content is unspecified.
    pub(crate) fn set_batch(&mut self, batch: usize) {
        self.batch = batch;
        let length = self.rows * batch;
        if self.data.len() < length {
            self.data.resize(length, T::zero());
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.data[..self.rows * self.batch]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data[..self.rows * self.batch]
    }

    pub(crate) fn mat(&self) -> Mat<'_, T> {
        Mat::new(self.as_slice(), self.rows)
    }

    pub(crate) fn mat_mut(&mut self) -> MatMut<'_, T> {
        let rows = self.rows;
        MatMut::new(self.as_mut_slice(), rows)
    }

    pub(crate) fn view(&self) -> DMatrixView<'_, T> {
        DMatrixView::from_slice(self.as_slice(), self.rows, self.batch)
    }
}

/// What the forward pass leaves behind: `h_0 = x`, and `a_l`, `h_l` of every block.
///
/// Fitted to the network and the batch by [`Network::forward`](crate::Network::forward), so that
/// one value serves any network. Layers are counted from 0; the last one is the output layer.
#[derive(Clone, Debug)]
pub struct Activations<T> {
    pub(crate) layout: Layout,
    pub(crate) batch: usize,
    pub(crate) input: Columns<T>,
    pub(crate) blocks: Vec<BlockActivations<T>>,
}

/// `a` of one block and what each of its local operations made of it, the last being `h`.
#[derive(Clone, Debug)]
pub(crate) struct BlockActivations<T> {
    pub(crate) a: Columns<T>,
    pub(crate) operations: Vec<Columns<T>>,
}

impl<T: Scalar> BlockActivations<T> {
    /// `h`, what the block passes on.
    pub(crate) fn output(&self) -> &Columns<T> {
        self.operations.last().unwrap_or(&self.a)
    }
}

impl<T: Scalar> Activations<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        Self { layout: Layout::default(), batch: 0, input: Columns::new(0), blocks: Vec::new() }
    }

    /// Makes room for `batch` samples in a network of this layout.
    pub(crate) fn fit(&mut self, layout: &Layout, batch: usize) {
        if self.layout != *layout {
            self.layout = layout.clone();
            self.input = Columns::new(layout.inputs);
            self.blocks = layout
                .blocks
                .iter()
                .map(|sizes| BlockActivations {
                    a: Columns::new(sizes[0]),
                    operations: sizes[1..].iter().map(|&size| Columns::new(size)).collect(),
                })
                .collect();
        }
        self.batch = batch;
        self.input.set_batch(batch);
        for block in &mut self.blocks {
            block.a.set_batch(batch);
            block.operations.iter_mut().for_each(|h| h.set_batch(batch));
        }
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
            0 => &self.input,
            _ => self.blocks[layer - 1].output(),
        }
    }

    /// Fails if some `a` has overflowed. The loss need not show it, since `σ(∞)` and `tanh ∞` are
    /// fine numbers; the gradients would, as `0 · ∞`. An `h` that overflows shows in the next `a`.
    pub(crate) fn require_finite(&self) -> Result<()> {
        self.blocks.iter().enumerate().try_for_each(|(layer, block)| {
            let what = || format!("a of weighted layer {layer} (units × samples)");
            require_finite(what, block.a.rows, block.a.as_slice())
        })
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
    pub(crate) layout: Layout,
    pub(crate) batch: usize,
    pub(crate) blocks: Vec<Columns<T>>,
}

impl<T: Scalar> Deltas<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        Self { layout: Layout::default(), batch: 0, blocks: Vec::new() }
    }

    pub(crate) fn fit(&mut self, layout: &Layout, batch: usize) {
        if self.layout != *layout {
            self.layout = layout.clone();
            self.blocks = layout.blocks.iter().map(|sizes| Columns::new(sizes[0])).collect();
        }
        self.batch = batch;
        self.blocks.iter_mut().for_each(|delta| delta.set_batch(batch));
    }

    /// `δ_l`, of shape `n_l × N`; layers are counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last pass has no such layer.
    pub fn delta(&self, layer: usize) -> Result<DMatrixView<'_, T>> {
        self.blocks.get(layer).map(Columns::view).ok_or(Error::NoSuchLayer {
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
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    pub(crate) layers: Vec<LayerGradient<T>>,
}

impl<T: Scalar> Gradients<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        Self { layers: Vec::new() }
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

    fn layer(&self, layer: usize) -> Result<&LayerGradient<T>> {
        self.layers.get(layer).ok_or(Error::NoSuchLayer {
            what: "weighted layer",
            layer,
            count: self.layers.len(),
        })
    }
}

impl<T: Scalar> Default for Gradients<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Fails unless `deltas` were computed from these `activations`, and both by a network of `layout`.
pub(crate) fn require_match<T: Scalar>(
    stage: &'static str,
    layout: &Layout,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> Result<()> {
    let mismatch = |what, expected: &dyn fmt::Display, found: &dyn fmt::Display| {
        Err(Error::StageMismatch {
            stage,
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        })
    };
    if activations.layout != *layout {
        return mismatch("activations", layout, &activations.layout);
    }
    if deltas.layout != *layout {
        return mismatch("deltas", layout, &deltas.layout);
    }
    if deltas.batch != activations.batch {
        return mismatch("deltas", &activations.batch, &deltas.batch);
    }
    Ok(())
}
