//! The network: forward parameters and nothing else.

mod block;
mod builder;
mod convert;
#[cfg(feature = "safetensors")]
mod description;
#[cfg(feature = "safetensors")]
mod file;
#[cfg(feature = "safetensors")]
mod parameters;
#[cfg(feature = "safetensors")]
mod tensor_names;

use std::{fmt, sync::Arc};

use nalgebra::{DMatrix, DMatrixView, DVector};

pub use builder::NetworkBuilder;

use block::operate;
pub(crate) use block::{Block, Derivative};

#[cfg(feature = "safetensors")]
pub(crate) use parameters::{column_major, row_major};
#[cfg(feature = "safetensors")]
pub use tensor_names::LoadOptions;

use crate::{
    architecture::Architecture,
    buffer::{Columns, Pass, When},
    error::{Error, Result, require, require_finite, require_samples, require_shape},
    layer::{Layer, LinearMap, Operation, Shape, Tile, add},
    linalg::zero_matrix,
    parameters::{Parameters, Part, Slot},
    rule::FeedbackRule,
    scalar::Scalar,
    threads::Chunks,
    vector::bound_of_squares,
    workspace::{Activations, Below, Deltas, Gradients, Layout, require_delivered, require_match},
};

/// A feed-forward network, `a_l = W_l h_{l-1} + b_l`, `h_l = f_l(a_l)`, `h_0 = x`.
///
/// It holds the forward parameters only: the same type whatever rule trains it. Samples are
/// columns, layers are counted from 0, and the last layer is linear: what it yields are logits,
/// for a [`Loss`](crate::Loss) to interpret.
///
/// ```
/// use feedback_alignment::{Network, nalgebra::DMatrix};
///
/// let network = Network::<f64>::builder(2).dense(8).tanh().dense(3).build()?;
/// let x = DMatrix::from_column_slice(2, 4, &[0., 0., 0., 1., 1., 0., 1., 1.]);
/// assert_eq!(network.predict(&x)?.shape(), (3, 4));
/// assert_eq!(network.parameter_count(), 8 * 2 + 8 + 3 * 8 + 3);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Network<T> {
    architecture: Architecture,
    pub(crate) layout: Arc<Layout>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) parameters: Parameters<T>,
    /// The rule for which [`Init::Nokland`](crate::Init) drew the weights.
    pub(crate) drawn_for: Option<FeedbackRule>,
}

impl<T: PartialEq> PartialEq for Network<T> {
    /// Compares layers and parameters, not which of them are frozen or how they were drawn.
    fn eq(&self, other: &Self) -> bool {
        self.architecture == other.architecture && self.parameters == other.parameters
    }
}

impl<T: Scalar> Network<T> {
    /// Starts a network that reads so many features, or images of a shape such as `(3, 32, 32)`:
    /// channels, height, width.
    pub fn builder(input: impl std::convert::Into<Shape>) -> NetworkBuilder<T> {
        NetworkBuilder::new(input.into())
    }

    /// Number of features that the network reads, `n_0`.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.layout.inputs
    }

    /// Number of outputs, `n_L`.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.layout.output(self.layer_count() - 1)
    }

    /// Number of weighted layers, `L`: the hidden ones and the output layer.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.blocks.len()
    }

    /// Number of weights and biases, and of scales and shifts of normalisations.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let learned = self.parameters.slots().iter().filter(|slot| slot.part.is_learned());
        learned.map(Slot::len).sum()
    }

    /// All parameters, and the running statistics of batch normalisation.
    #[must_use]
    pub fn parameters(&self) -> &Parameters<T> {
        &self.parameters
    }

    /// Weighted layer `layer`, counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn layer(&self, layer: usize) -> Result<Layer<'_, T>> {
        let block = self.blocks.get(layer).ok_or_else(|| self.no_such_layer(layer))?;
        Ok(Layer { parameters: self.parameters.layer(layer), operations: &block.operations })
    }

    /// All weighted layers, from the first up.
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// let shapes: Vec<_> = network.layers().map(|layer| layer.weights().shape()).collect();
    /// assert_eq!(shapes, [(3, 4), (2, 3)]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    #[must_use]
    pub fn layers(&self) -> impl ExactSizeIterator<Item = Layer<'_, T>> {
        self.blocks.iter().enumerate().map(|(layer, block)| Layer {
            parameters: self.parameters.layer(layer),
            operations: &block.operations,
        })
    }

    /// Replaces a parameter of weighted layer `layer`, or of the first normalisation after it that
    /// has one, by numbers in the order of [`Slot`]: a matrix column by column.
    ///
    /// ```
    /// use feedback_alignment::{Network, Part};
    ///
    /// let mut network = Network::<f64>::builder(2).dense(3).batch_norm().relu().dense(1).build()?;
    /// network.set_parameter(0, Part::Scale, &[0.5, 1.0, 2.0])?;
    /// assert_eq!(network.parameters().get(0, Part::Scale).unwrap()[2], 2.0);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoSuchParameter`], [`Error::ShapeMismatch`] for another
    /// number of numbers, [`Error::NonFinite`], [`Error::InvalidParameter`] for a variance below 0;
    /// nothing has then changed.
    pub fn set_parameter(&mut self, layer: usize, part: Part, values: &[T]) -> Result<()> {
        self.layer(layer)?;
        let slot = self.parameters.find(layer, part);
        let slot = slot.ok_or_else(|| Error::NoSuchParameter { layer, part: part.to_string() })?;
        require_shape(|| slot.to_string(), (slot.len(), 1), (values.len(), 1))?;
        require_finite(|| slot.to_string(), slot.rows, values)?;
        if part == Part::RunningVariance {
            let smallest = values.iter().fold(T::zero(), |min, &v| min.min(v)).as_f64();
            require(smallest >= 0.0, "running variance", smallest, "at least 0")?;
        }
        self.parameters.slot_mut(&slot).copy_from_slice(values);
        Ok(())
    }

    /// Leaves weighted layer `layer` as it is while the others are trained, until it is
    /// [released](Self::release): its weights, its bias, and the batch normalisation after it,
    /// which normalises by its running statistics in training as in evaluation. Its moments rest
    /// too, and no gradient is computed for it where that can be saved. Layers are counted from
    /// 0. To freeze a layer twice is to freeze it.
    ///
    /// Which layers are frozen is part of training, not of the network: comparing networks and
    /// [saving](Self::save) one ignore it, a checkpoint keeps it.
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let mut network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// network.freeze(0)?;
    /// assert_eq!(network.frozen().collect::<Vec<_>>(), [0]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn freeze(&mut self, layer: usize) -> Result<()> {
        self.set_frozen(layer, true)
    }

    /// Lets layer `layer` learn again, from where it and its moments were.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn release(&mut self, layer: usize) -> Result<()> {
        self.set_frozen(layer, false)
    }

    /// The layers that are frozen, in order.
    pub fn frozen(&self) -> impl Iterator<Item = usize> + '_ {
        self.blocks.iter().enumerate().filter(|(_, block)| block.frozen).map(|(layer, _)| layer)
    }

    fn set_frozen(&mut self, layer: usize, frozen: bool) -> Result<()> {
        self.layer(layer)?;
        self.blocks[layer].frozen = frozen;
        Ok(())
    }

    /// Replaces `W` of a layer; see [`Layer`] for its shape.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::ShapeMismatch`], or [`Error::NonFinite`] for an entry that
    /// is not a number; the old weights then stay.
    pub fn set_weights(&mut self, layer: usize, weights: DMatrix<T>) -> Result<()> {
        let what = || format!("W of weighted layer {layer}");
        require_shape(what, self.layer(layer)?.weights().shape(), weights.shape())?;
        self.set_parameter(layer, Part::Weights, weights.as_slice())
    }

    /// Replaces `b` of a layer, one entry for each row of `W`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoSuchParameter`] if the layer was built without one,
    /// [`Error::ShapeMismatch`], or [`Error::NonFinite`]; the old bias then stays.
    pub fn set_bias(&mut self, layer: usize, bias: DVector<T>) -> Result<()> {
        self.set_parameter(layer, Part::Bias, bias.as_slice())
    }

    /// The training pass: computes `a_l` and `h_l` of every layer for the samples `x`, of shape
    /// `n_0 × N`: a matrix, or a view of some columns, a vector, a slice. Dropout draws the masks of
    /// the seed and time that `activations` keeps.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, [`Error::Empty`] for no samples,
    /// [`Error::NonFinite`] for a NaN or an infinity in `x` or in what a layer makes of it,
    /// [`Error::BatchTooSmall`] if batch normalisation would see a single value,
    /// [`Error::TooLarge`] if there is no memory for the activations.
    pub fn forward<'x>(
        &self,
        x: impl Into<DMatrixView<'x, T>>,
        activations: &mut Activations<T>,
    ) -> Result<()> {
        self.train_pass(x.into(), activations, When::Next)?;
        activations.require_finite()
    }

    /// [`forward`](Self::forward) at a given time, without a look at what comes out.
    pub(crate) fn train_pass(
        &self,
        x: DMatrixView<T>,
        activations: &mut Activations<T>,
        when: When,
    ) -> Result<()> {
        self.check_input(x)?;
        if x.ncols() < self.smallest_batch() {
            return Err(Error::BatchTooSmall {
                what: "batch normalisation needs two values of each feature: this batch is a single sample".into(),
            });
        }
        self.pass(activations, x.ncols(), when, |input| {
            copy(x, input);
            let squares = bound_of_squares(input);
            if squares == f64::INFINITY {
                require_finite(|| INPUT.to_owned(), x.nrows(), input)?;
            }
            Ok(squares)
        })
    }

    /// A pass over so many samples, which `write` puts into the input, or finds there if the pass before
    /// was over as many. It returns a number that no `x²` exceeds; in evaluation nobody asks for it.
    pub(crate) fn pass(
        &self,
        activations: &mut Activations<T>,
        samples: usize,
        when: When,
        write: impl FnOnce(&mut [T]) -> Result<f64>,
    ) -> Result<()> {
        activations.fit(&self.layout, samples)?;
        activations.input_squares = write(activations.input.as_mut_slice())?;
        let pass = activations.begin_pass(when);
        self.forward_loaded(activations, pass);
        Ok(())
    }

    /// A pass over the samples that already stand in `activations.input`.
    fn forward_loaded(&self, activations: &mut Activations<T>, pass: Pass) {
        let Activations { input, input_operations, .. } = activations;
        let with = (self.parameters.layer(0), Below::of_input(input));
        operate((&self.layout.input_operations, 0), with, input, input_operations, (pass, false));
        for (index, block) in self.blocks.iter().enumerate() {
            let (below, from) = activations.split_at(index);
            block.forward(self.parameters.layer(index), below, &mut from[0], pass);
        }
    }

    /// What a step takes, as [`Block::work`] counts it.
    pub(crate) fn work(&self, samples: usize) -> usize {
        self.blocks.iter().map(|block| block.work(samples)).fold(0, usize::saturating_add)
    }

    /// How many samples a training batch needs: two, where batch normalisation sees one value of
    /// each.
    pub(crate) fn smallest_batch(&self) -> usize {
        let single = |operation: &Operation| matches!(operation, Operation::BatchNorm(norm) if norm.plane() == 1);
        let learning = self.blocks.iter().filter(|block| !block.frozen);
        let any = learning.flat_map(|block| &block.operations).any(single);
        if any { 2 } else { 1 }
    }

    /// `x ← ∂J/∂x` under backpropagation, of the deltas that it has delivered: one more hop.
    pub(crate) fn input_gradient(
        &self,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        gradient: &mut Columns<T>,
    ) {
        let weights = self.parameters.layer(0).weights();
        let delta = deltas.blocks[0].delta();
        self.blocks[0].map.apply_transpose(weights, delta, gradient, &|_, _| ());
        for (block, operations) in deltas.blocks.iter().zip(&self.layout.operations) {
            for (copy, operation) in block.skipped.iter().zip(operations) {
                if operation.skip().is_some_and(|skip| skip.from.is_none()) {
                    add(gradient.as_mut_slice(), copy.as_slice());
                }
            }
        }
        for (operation, record) in
            self.layout.input_operations.iter().zip(&activations.input_operations).rev()
        {
            if let Operation::Dropout(dropout) = operation {
                dropout.backward(&record.notes.kept, gradient.as_mut_slice());
            }
        }
    }

    /// `δ_l ← δ_l ∘ f'(a_l)` of hidden layer `layer`: takes what stands at the end of the layer
    /// ([`Deltas::arriving_mut`]) back through its pooling, normalisation, dropout and activation
    /// by their exact derivatives. The layer then learns from it. With this, whoever invents a rule
    /// writes its feedback in a few lines.
    ///
    /// ```
    /// use feedback_alignment::*;
    /// use nalgebra::DMatrix;
    ///
    /// // Direct random target projection (Frenkel, Lefebvre and Bol 2021): in the place of the
    /// // error each hidden layer is sent the target.
    /// fn deliver_targets(
    ///     network: &Network<f64>,
    ///     b: &[DMatrix<f64>],
    ///     targets: &DMatrix<f64>,
    ///     activations: &Activations<f64>,
    ///     deltas: &mut Deltas<f64>,
    /// ) -> Result<()> {
    ///     for (layer, b) in b.iter().enumerate() {
    ///         let signal = b * targets / targets.ncols() as f64;
    ///         deltas.arriving_mut(layer)?.copy_from(&signal);
    ///         network.backward(layer, activations, deltas)?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let mut network = Network::builder(2).dense(8).tanh().dense(2).seed(1).build()?;
    /// let b = [DMatrix::from_fn(8, 2, |i, j| if (i + j) % 2 == 0 { 0.3 } else { -0.3 })];
    /// let x = DMatrix::from_column_slice(2, 2, &[0.0, 1.0, 1.0, 1.0]);
    /// let targets = DMatrix::from_column_slice(2, 2, &[0.0, 1.0, 1.0, 0.0]);
    /// let mut optimizer = OptimizerState::new(&network, Sgd::default())?;
    /// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    /// let mut gradients = Gradients::new();
    /// let mut loss = f64::INFINITY;
    /// for _ in 0..100 {
    ///     network.forward(&x, &mut activations)?;
    ///     loss = Loss::SoftmaxCrossEntropy.error(&targets, &activations, &mut deltas)?;
    ///     deliver_targets(&network, &b, &targets, &activations, &mut deltas)?;
    ///     network.gradients(&activations, &deltas, &mut gradients)?;
    ///     optimizer.step(&mut network, &gradients)?;
    /// }
    /// assert!(loss < 0.1, "{loss}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] for a layer that is not hidden, [`Error::StageMismatch`] if the
    /// activations or deltas are of another network, or of two forward passes.
    pub fn backward(
        &self,
        layer: usize,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        require_match("backward", &self.layout, activations, deltas)?;
        let count = self.layer_count() - 1;
        if layer >= count {
            return Err(Error::NoSuchLayer { what: "hidden layer", layer, count });
        }
        let (saved, deltas_of) = (&activations.blocks[layer], &mut deltas.blocks[layer]);
        self.blocks[layer].backward(self.parameters.layer(layer), saved, deltas_of);
        deltas.serve(layer);
        Ok(())
    }

    /// The evaluation pass: the logits of the samples `x`, of shape `n_L × N`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), for a batch of any size.
    pub fn predict<'x>(&self, x: impl Into<DMatrixView<'x, T>>) -> Result<DMatrix<T>> {
        let x = x.into();
        self.check_input(x)?;
        if let Some(at) = x.iter().position(|x| !x.is_finite()) {
            let (row, column) = (at % x.nrows(), at / x.nrows());
            let found = x[(row, column)].as_f64();
            return Err(Error::NonFinite { what: INPUT.into(), row, column, found });
        }
        let mut logits = zero_matrix(self.output_len(), x.ncols())?;
        let mut activations = Activations::new();
        let batches = logits.as_mut_slice().chunks_mut(EVALUATION_BATCH * self.output_len());
        for (index, logits) in batches.enumerate() {
            let samples = logits.len() / self.output_len();
            let x = x.columns(index * EVALUATION_BATCH, samples);
            self.pass(&mut activations, samples, When::Evaluating, |input| {
                copy(x, input);
                Ok(f64::INFINITY)
            })?;
            activations.require_finite()?;
            logits.copy_from_slice(activations.logit_columns()?.as_slice());
        }
        Ok(logits)
    }

    /// The gradients of every parameter, whatever rule delivered the deltas:
    /// `∂W_l = δ_l h_{l-1}ᵀ` and `∂b_l = Σ δ_l` over the samples (Nøkland 2016, eq. 10; the mean
    /// over the batch is in `δ`). They are 0 where no feedback has arrived.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if the activations or deltas are of another network, or of two
    /// forward passes, or if feedback has not been delivered; [`Error::TooLarge`].
    pub fn gradients(
        &self,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        gradients: &mut Gradients<T>,
    ) -> Result<()> {
        require_delivered("gradients", &self.layout, activations, deltas)?;
        gradients.fit(&self.layout)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let deltas = &deltas.blocks[layer];
            for (index, slot) in self.layout.table.of_layer(layer).iter().enumerate() {
                let (to, learned) = gradients.slot_mut(layer, index);
                let learns = match slot.operation {
                    None => deltas.served,
                    Some(operation) => !deltas.learned[operation][slot.number].is_empty(),
                };
                *learned = learns;
                if !learns {
                    to.fill(T::zero());
                    continue;
                }
                let (delta, h) = (deltas.delta(), activations.entering(layer));
                match slot.operation {
                    Some(operation) => {
                        to.copy_from_slice(&deltas.learned[operation][slot.number]);
                    }
                    None if slot.part == Part::Bias => block.map.bias_gradient(delta, to),
                    None => {
                        let tiles = block.map.tiles(slot.rows, slot.columns, activations.batch);
                        let out = Chunks { data: to, size: tiles.size };
                        let of = (tiles, slot.len(), 0);
                        let store = |tile: Tile<T>, out: Chunks<T>, scratch: &mut [T]| {
                            tile.make(out.data, scratch);
                        };
                        block.map.gradient_tiles(of, delta, h, out, &store);
                    }
                }
            }
        }
        Ok(())
    }

    fn check_input(&self, x: DMatrixView<T>) -> Result<()> {
        if x.ncols() == 0 {
            return Err(Error::Empty { what: "the batch".into() });
        }
        require_samples(INPUT, (self.input_len(), x.ncols()), x.shape())
    }

    fn no_such_layer(&self, layer: usize) -> Error {
        Error::NoSuchLayer { what: "weighted layer", layer, count: self.layer_count() }
    }
}

/// What errors call it.
const INPUT: &str = "the input (features × samples)";

/// Copies a matrix whose columns may lie apart.
fn copy<T: Scalar>(x: DMatrixView<T>, to: &mut [T]) {
    for (to, x) in to.chunks_exact_mut(x.nrows()).zip(x.column_iter()) {
        to.copy_from_slice(x.as_slice());
    }
}

/// How many samples go through an evaluation pass at once: enough for the products to run at full
/// speed, few enough for the activations to stay in cache.
pub(crate) const EVALUATION_BATCH: usize = 256;

impl<T: Scalar> fmt::Display for Network<T> {
    /// The layers and operations, such as `784-800 tanh-10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout.inputs)?;
        self.layout.input_operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        for block in &self.blocks {
            match &block.map {
                LinearMap::Dense => write!(f, "-{}", block.shape.0)?,
                LinearMap::Conv2d(conv) => write!(f, "-{}", conv.output())?,
            }
            block.operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        }
        Ok(())
    }
}
