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
mod values;

use std::{fmt, sync::Arc};

use nalgebra::{DMatrix, DVector};

pub use builder::NetworkBuilder;

use block::operate;
pub(crate) use block::{Block, Derivative};

#[cfg(feature = "safetensors")]
pub(crate) use parameters::{Role, column_major, row_major};
#[cfg(feature = "safetensors")]
pub use tensor_names::LoadOptions;

use crate::{
    architecture::Architecture,
    buffer::{Columns, Pass},
    error::{Error, Result, require, require_finite, require_samples, require_shape},
    layer::{BatchNorm, Layer, LayerGradient, LinearMap, NormGradient, Operation, Shape},
    linalg::{filled_vector, zero_matrix},
    rule::FeedbackRule,
    scalar::Scalar,
    threads::Chunks,
    vector::bound_of_squares,
    workspace::{
        Activations, BlockActivations, Deltas, Gradients, Layout, Needs, require_delivered,
        require_match, reserve_norm,
    },
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
/// assert_eq!(network.parameters(), 8 * 2 + 8 + 3 * 8 + 3);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Network<T> {
    architecture: Architecture,
    pub(crate) layout: Arc<Layout>,
    /// Operations on the input: dropout.
    input_operations: Vec<Operation<T>>,
    pub(crate) blocks: Vec<Block<T>>,
    /// The rule for which [`Init::Nokland`](crate::Init) drew the weights.
    pub(crate) drawn_for: Option<FeedbackRule>,
}

impl<T: PartialEq> PartialEq for Network<T> {
    /// Compares layers and parameters, not which of them are frozen or how they were drawn.
    fn eq(&self, other: &Self) -> bool {
        let blocks = self.blocks.iter().zip(&other.blocks);
        let same =
            |(a, b): (&Block<T>, &Block<T>)| (&a.layer, &a.operations) == (&b.layer, &b.operations);
        self.architecture == other.architecture && blocks.into_iter().all(same)
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
    pub fn inputs(&self) -> usize {
        self.layout.inputs
    }

    /// Number of outputs, `n_L`.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.layout.output(self.layers() - 1)
    }

    /// Number of weighted layers, `L`: the hidden ones and the output layer.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Number of weights and biases, and of scales and shifts of batch normalisation.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let of_operation = |operation: &Operation<T>| match operation {
            Operation::BatchNorm(norm) => 2 * norm.scale.len(),
            _ => 0,
        };
        let of_block = |block: &Block<T>| {
            let bias = block.layer.bias.as_ref().map_or(0, DVector::len);
            let operations: usize = block.operations.iter().map(of_operation).sum();
            block.layer.weights.len() + bias + operations
        };
        self.blocks.iter().map(of_block).sum()
    }

    /// Weighted layer `layer`, counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn layer(&self, layer: usize) -> Result<&Layer<T>> {
        self.blocks.get(layer).map(|block| &block.layer).ok_or_else(|| self.no_such_layer(layer))
    }

    /// The operations that follow weighted layer `layer`, in order; none means that it is linear.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn operations(&self, layer: usize) -> Result<&[Operation<T>]> {
        self.blocks
            .get(layer)
            .map(|block| block.operations.as_slice())
            .ok_or_else(|| self.no_such_layer(layer))
    }

    /// The batch normalisation after weighted layer `layer`, the first if there are several.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn batch_norm(&self, layer: usize) -> Result<Option<&BatchNorm<T>>> {
        let mut operations = self.operations(layer)?.iter();
        Ok(operations.find_map(|operation| match operation {
            Operation::BatchNorm(norm) => Some(norm),
            _ => None,
        }))
    }

    /// Replaces `γ`, `β` and the running mean and variance of the batch normalisation after
    /// weighted layer `layer`, the first if there are several.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoBatchNorm`], [`Error::ShapeMismatch`], [`Error::NonFinite`], [`Error::InvalidParameter`] for a variance
    /// below 0; nothing has then changed.
    pub fn set_batch_norm(&mut self, layer: usize, values: [DVector<T>; 4]) -> Result<()> {
        let channels = self.batch_norm(layer)?.ok_or(Error::NoBatchNorm { layer })?.scale.len();
        for (name, vector) in ["γ", "β", "running mean", "running variance"].iter().zip(&values) {
            let what = || format!("{name} of the batch normalisation after weighted layer {layer}");
            require_shape(what, (channels, 1), vector.shape())?;
            require_finite(what, channels, vector.as_slice())?;
        }
        let smallest = values[3].iter().fold(T::zero(), |min, &v| min.min(v)).as_f64();
        require(smallest >= 0.0, "running variance", smallest, "at least 0")?;
        for operation in &mut self.blocks[layer].operations {
            if let Operation::BatchNorm(norm) = operation {
                let [scale, shift, mean, variance] = values;
                (norm.scale, norm.shift) = (scale, shift);
                (norm.running_mean, norm.running_variance) = (mean, variance);
                break;
            }
        }
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
        require_shape(what, self.layer(layer)?.weights.shape(), weights.shape())?;
        require_finite(what, weights.nrows(), weights.as_slice())?;
        self.blocks[layer].layer.weights = weights;
        Ok(())
    }

    /// Replaces `b` of a layer, one entry for each row of `W`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoBias`] if the layer was built without one,
    /// [`Error::ShapeMismatch`], or [`Error::NonFinite`]; the old bias then stays.
    pub fn set_bias(&mut self, layer: usize, bias: DVector<T>) -> Result<()> {
        let what = || format!("b of weighted layer {layer}");
        let old = self.layer(layer)?.bias().ok_or(Error::NoBias { layer })?;
        require_shape(what, old.shape(), bias.shape())?;
        require_finite(what, bias.nrows(), bias.as_slice())?;
        self.blocks[layer].layer.bias = Some(bias);
        Ok(())
    }

    /// The training pass: computes `a_l` and `h_l` of every layer for the samples `x`, of shape
    /// `n_0 × N`. Dropout draws the masks of the seed and time that `activations` keeps.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, [`Error::Empty`] for no samples,
    /// [`Error::NonFinite`] for a NaN or an infinity in `x` or in what a layer makes of it,
    /// [`Error::BatchTooSmall`] if batch normalisation would see a single value,
    /// [`Error::TooLarge`] if there is no memory for the activations.
    pub fn forward(&self, x: &DMatrix<T>, activations: &mut Activations<T>) -> Result<()> {
        self.forward_unchecked(x, activations)?;
        activations.require_finite()
    }

    /// [`forward`](Self::forward) without a look at what comes out.
    pub(crate) fn forward_unchecked(
        &self,
        x: &DMatrix<T>,
        activations: &mut Activations<T>,
    ) -> Result<()> {
        let squares = self.check_input(x)?;
        if x.ncols() < self.smallest_batch() {
            return Err(Error::BatchTooSmall {
                what: "batch normalisation needs two values of each feature: this batch is a single sample".into(),
            });
        }
        activations.fit(&self.layout, x.ncols())?;
        activations.input_squares = squares;
        activations.input.as_mut_slice().copy_from_slice(x.as_slice());
        let pass = activations.next_pass();
        self.forward_loaded(activations, pass);
        Ok(())
    }

    /// A pass over the samples that already stand in `activations.input`.
    pub(crate) fn forward_loaded(&self, activations: &mut Activations<T>, pass: Pass) {
        let Activations { input, input_operations, blocks, .. } = activations;
        operate(&self.input_operations, input, input_operations, pass, false);
        let input = input_operations.last().map_or(&*input, |record| &record.output);
        for (index, block) in self.blocks.iter().enumerate() {
            let (below, from) = blocks.split_at_mut(index);
            let h = below.last().map_or(input, BlockActivations::output);
            block.forward(h, &mut from[0], pass);
        }
    }

    /// What a step takes, as [`Block::work`] counts it.
    pub(crate) fn work(&self, samples: usize) -> usize {
        self.blocks.iter().map(|block| block.work(samples)).fold(0, usize::saturating_add)
    }

    /// How many samples a training batch needs: two, where batch normalisation sees one value of
    /// each.
    pub(crate) fn smallest_batch(&self) -> usize {
        let single = |operation: &Operation<T>| matches!(operation, Operation::BatchNorm(norm) if norm.plane() == 1);
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
        let first = &self.blocks[0].layer;
        let delta = deltas.blocks[0].delta();
        first.map.apply_transpose(&first.weights, delta, gradient, &|_, _| ());
        for (operation, record) in
            self.input_operations.iter().zip(&activations.input_operations).rev()
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
        let count = self.layers() - 1;
        if layer >= count {
            return Err(Error::NoSuchLayer { what: "hidden layer", layer, count });
        }
        self.blocks[layer].backward(&activations.blocks[layer], &mut deltas.blocks[layer]);
        deltas.serve(layer);
        Ok(())
    }

    /// The evaluation pass: the logits of the samples `x`, of shape `n_L × N`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), for a batch of any size.
    pub fn predict(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.check_input(x)?;
        let mut logits = zero_matrix(self.outputs(), x.ncols())?;
        let mut activations = Activations::new();
        let batches = x
            .as_slice()
            .chunks(EVALUATION_BATCH * self.inputs())
            .zip(logits.as_mut_slice().chunks_mut(EVALUATION_BATCH * self.outputs()));
        for (x, logits) in batches {
            activations.fit(&self.layout, x.len() / self.inputs())?;
            activations.input.as_mut_slice().copy_from_slice(x);
            self.forward_loaded(&mut activations, Pass::Evaluation);
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
        self.fit_gradients(gradients)?;
        let Gradients { layers, norms, served, .. } = gradients;
        served.clear();
        served.extend(deltas.blocks.iter().map(|block| block.served));
        for (index, (block, gradient)) in self.blocks.iter().zip(layers).enumerate() {
            if !served[index] {
                gradient.weights.fill(T::zero());
                gradient.bias.iter_mut().for_each(|bias| bias.fill(T::zero()));
                norms[index].clone_from_slice(&deltas.blocks[index].norms);
                continue;
            }
            let (delta, h) = (deltas.blocks[index].delta(), activations.entering(index));
            let map = block.layer.map;
            let (rows, columns) = gradient.weights.shape();
            let tiles = map.tiles(rows, columns, activations.batch);
            let out = Chunks { data: gradient.weights.as_mut_slice(), size: tiles.size };
            let of = (tiles, rows * columns, 0);
            map.gradient_tiles(of, delta, h, out, &|tile, out: Chunks<T>, scratch| {
                tile.make(out.data, scratch);
            });
            if let Some(bias) = &mut gradient.bias {
                map.bias_gradient(delta, bias.as_mut_slice());
            }
            norms[index].clone_from_slice(&deltas.blocks[index].norms);
        }
        Ok(())
    }

    /// Gives `gradients` the shapes of the parameters, if it has others.
    fn fit_gradients(&self, gradients: &mut Gradients<T>) -> Result<()> {
        if !Layout::same(&gradients.layout, &self.layout) {
            gradients.layout = Arc::default(); // Until everything has its memory.
            let empty = |needs: &Vec<Needs>| {
                let norms = needs.iter().map(|&needs| {
                    let mut norm = NormGradient::empty();
                    reserve_norm(&mut norm, needs).map(|()| norm)
                });
                norms.collect::<Result<Vec<_>>>()
            };
            gradients.norms = self.layout.notes.iter().map(empty).collect::<Result<_>>()?;
            gradients.layers = self
                .blocks
                .iter()
                .map(|Block { layer, .. }| {
                    let zeros = |bias: &DVector<T>| filled_vector(bias.len(), T::zero());
                    Ok(LayerGradient {
                        weights: zero_matrix(layer.weights.nrows(), layer.weights.ncols())?,
                        bias: layer.bias.as_ref().map(zeros).transpose()?,
                    })
                })
                .collect::<Result<_>>()?;
            gradients.served = Vec::with_capacity(self.layers());
            gradients.layout = Arc::clone(&self.layout);
        }
        Ok(())
    }

    /// Returns a number that no `x²` exceeds.
    fn check_input(&self, x: &DMatrix<T>) -> Result<f64> {
        const WHAT: &str = "the input (features × samples)";
        if x.ncols() == 0 {
            return Err(Error::Empty { what: "the batch".into() });
        }
        require_samples(WHAT, (self.inputs(), x.ncols()), x.shape())?;
        let squares = bound_of_squares(x.as_slice());
        if squares == f64::INFINITY {
            require_finite(|| WHAT.to_owned(), x.nrows(), x.as_slice())?;
        }
        Ok(squares)
    }

    fn no_such_layer(&self, layer: usize) -> Error {
        Error::NoSuchLayer { what: "weighted layer", layer, count: self.layers() }
    }
}

/// How many samples go through an evaluation pass at once: enough for the products to run at full
/// speed, few enough for the activations to stay in cache.
pub(crate) const EVALUATION_BATCH: usize = 256;

impl<T: Scalar> fmt::Display for Network<T> {
    /// The layers and operations, such as `784-800 tanh-10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout.inputs)?;
        self.input_operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        for block in &self.blocks {
            match &block.layer.map {
                LinearMap::Dense => write!(f, "-{}", block.layer.weights.nrows())?,
                LinearMap::Conv2d(conv) => write!(f, "-{}", conv.output())?,
            }
            block.operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        }
        Ok(())
    }
}
