//! The network: forward parameters and nothing else.

use std::fmt;

use nalgebra::{DMatrix, DVector};

use crate::{
    activation::Activation,
    error::{Error, Result, require_finite, require_shape},
    init::Init,
    layer::{Bias, Dense, LayerGradient},
    linalg::{Mat, zero_matrix},
    scalar::Scalar,
    seed::{Purpose, stream},
    workspace::{Activations, BlockActivations, Columns, Deltas, Gradients, Layout, require_match},
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
#[derive(Clone, Debug, PartialEq)]
pub struct Network<T> {
    pub(crate) layout: Layout,
    pub(crate) blocks: Vec<Block<T>>,
}

/// A weighted layer and the local operations after it, up to the next weighted layer. Feedback
/// enters at the end of a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block<T> {
    pub(crate) layer: Dense<T>,
    pub(crate) operations: Vec<Activation>,
}

impl<T: Scalar> Block<T> {
    /// `a ← W h + b`, then every local operation in turn.
    fn forward(&self, h: Mat<T>, into: &mut BlockActivations<T>) {
        self.layer.forward(h, into.a.mat_mut());
        let mut from = &into.a;
        for (operation, to) in self.operations.iter().zip(&mut into.operations) {
            operation.apply(from.as_slice(), to.as_mut_slice());
            from = to;
        }
    }

    /// `δ ← δ ∘ f'(a)`: takes what arrives at the end of the block back through its operations.
    pub(crate) fn backward(&self, activations: &BlockActivations<T>, delta: &mut Columns<T>) {
        for (index, operation) in self.operations.iter().enumerate().rev() {
            let before = match index {
                0 => &activations.a,
                _ => &activations.operations[index - 1],
            };
            let after = &activations.operations[index];
            operation.multiply_derivative(
                before.as_slice(),
                after.as_slice(),
                delta.as_mut_slice(),
            );
        }
    }
}

impl<T: Scalar> Network<T> {
    /// Starts a network that reads `inputs` features.
    pub fn builder(inputs: usize) -> NetworkBuilder<T> {
        NetworkBuilder {
            inputs,
            items: Vec::new(),
            init: Init::default(),
            seed: 0,
            scalar: std::marker::PhantomData,
        }
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

    /// Number of weights and biases.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let count =
            |layer: &Dense<T>| layer.weights.len() + layer.bias.as_ref().map_or(0, DVector::len);
        self.blocks.iter().map(|block| count(&block.layer)).sum()
    }

    /// Weighted layer `layer`, counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn layer(&self, layer: usize) -> Result<&Dense<T>> {
        self.blocks.get(layer).map(|block| &block.layer).ok_or_else(|| self.no_such_layer(layer))
    }

    /// The activation functions that follow weighted layer `layer`, in order; none means that the
    /// layer is linear.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn activations(&self, layer: usize) -> Result<&[Activation]> {
        self.blocks
            .get(layer)
            .map(|block| block.operations.as_slice())
            .ok_or_else(|| self.no_such_layer(layer))
    }

    /// Replaces `W` of a layer, of shape `n_l × n_{l-1}`.
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

    /// Replaces `b` of a layer, of length `n_l`.
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
    /// `n_0 × N`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, [`Error::Empty`] for no samples,
    /// [`Error::NonFinite`] for a NaN or an infinity.
    pub fn forward(&self, x: &DMatrix<T>, activations: &mut Activations<T>) -> Result<()> {
        self.check_input(x)?;
        activations.fit(&self.layout, x.ncols());
        activations.input.as_mut_slice().copy_from_slice(x.as_slice());
        self.forward_loaded(activations);
        Ok(())
    }

    /// [`forward`](Self::forward) for samples that already stand in `activations.input`.
    pub(crate) fn forward_loaded(&self, activations: &mut Activations<T>) {
        let Activations { input, blocks, .. } = activations;
        for (index, block) in self.blocks.iter().enumerate() {
            let (below, from) = blocks.split_at_mut(index);
            let h = below.last().map_or(&*input, BlockActivations::output);
            block.forward(h.mat(), &mut from[0]);
        }
    }

    /// The evaluation pass: the logits of the samples `x`, of shape `n_L × N`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn predict(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.check_input(x)?;
        let mut logits = zero_matrix(self.outputs(), x.ncols())?;
        let mut activations = Activations::new();
        let batches = x
            .as_slice()
            .chunks(EVALUATION_BATCH * self.inputs())
            .zip(logits.as_mut_slice().chunks_mut(EVALUATION_BATCH * self.outputs()));
        for (x, logits) in batches {
            activations.fit(&self.layout, x.len() / self.inputs());
            activations.input.as_mut_slice().copy_from_slice(x);
            self.forward_loaded(&mut activations);
            logits.copy_from_slice(activations.logit_columns()?.as_slice());
        }
        Ok(logits)
    }

    /// The gradients of every parameter, whatever rule delivered the deltas:
    /// `∂W_l = δ_l h_{l-1}ᵀ` and `∂b_l = Σ δ_l` over the samples (Nøkland 2016, eq. 10; the mean
    /// over the batch is in `δ`).
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if the activations or deltas are of another network, or of two
    /// different batches.
    pub fn gradients(
        &self,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        gradients: &mut Gradients<T>,
    ) -> Result<()> {
        require_match("gradients", &self.layout, activations, deltas)?;
        self.fit_gradients(gradients)?;
        for (index, block) in self.blocks.iter().enumerate() {
            block.layer.gradient(
                deltas.blocks[index].mat(),
                activations.entering(index).mat(),
                &mut gradients.layers[index],
            );
        }
        Ok(())
    }

    /// Gives `gradients` the shapes of the parameters, if it has others.
    fn fit_gradients(&self, gradients: &mut Gradients<T>) -> Result<()> {
        let fits = gradients.layers.len() == self.layers()
            && self.blocks.iter().zip(&gradients.layers).all(|(block, gradient)| {
                block.layer.weights.shape() == gradient.weights.shape()
                    && block.layer.bias.is_some() == gradient.bias.is_some()
            });
        if !fits {
            gradients.layers = self
                .blocks
                .iter()
                .map(|Block { layer, .. }| {
                    Ok(LayerGradient {
                        weights: zero_matrix(layer.weights.nrows(), layer.weights.ncols())?,
                        bias: layer.bias.as_ref().map(|bias| DVector::zeros(bias.len())),
                    })
                })
                .collect::<Result<_>>()?;
        }
        Ok(())
    }

    fn check_input(&self, x: &DMatrix<T>) -> Result<()> {
        if x.ncols() == 0 {
            return Err(Error::Empty { what: "the batch".into() });
        }
        let what = || "the input (features × samples)".to_owned();
        require_shape(what, (self.inputs(), x.ncols()), x.shape())?;
        require_finite(what, x.nrows(), x.as_slice())
    }

    fn no_such_layer(&self, layer: usize) -> Error {
        Error::NoSuchLayer { what: "weighted layer", layer, count: self.layers() }
    }
}

/// How many samples go through an evaluation pass at once: enough for the products to run at full
/// speed, few enough for the activations to stay in cache.
pub(crate) const EVALUATION_BATCH: usize = 256;

impl<T: Scalar> fmt::Display for Network<T> {
    /// The widths and activations, such as `784-800 tanh-10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout.inputs)?;
        for block in &self.blocks {
            write!(f, "-{}", block.layer.weights.nrows())?;
            block.operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        }
        Ok(())
    }
}

/// Lists the layers of a [`Network`] from the input to the output.
#[derive(Clone, Debug)]
#[must_use = "a network comes of `.build()`"]
pub struct NetworkBuilder<T> {
    inputs: usize,
    items: Vec<Item>,
    init: Init,
    seed: u64,
    scalar: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Dense { outputs: usize, bias: Bias },
    Activation(Activation),
}

impl<T: Scalar> NetworkBuilder<T> {
    /// A fully connected layer, `a = W h + b`.
    pub fn dense(self, outputs: usize) -> Self {
        self.push(Item::Dense { outputs, bias: Bias::With })
    }

    /// A fully connected layer without a bias, `a = W h`.
    pub fn dense_without_bias(self, outputs: usize) -> Self {
        self.push(Item::Dense { outputs, bias: Bias::Without })
    }

    /// Any activation function.
    pub fn activation(self, activation: Activation) -> Self {
        self.push(Item::Activation(activation))
    }

    /// [`Activation::Identity`]
    pub fn identity(self) -> Self {
        self.activation(Activation::Identity)
    }

    /// [`Activation::Tanh`]
    pub fn tanh(self) -> Self {
        self.activation(Activation::Tanh)
    }

    /// [`Activation::Logistic`]
    pub fn logistic(self) -> Self {
        self.activation(Activation::Logistic)
    }

    /// [`Activation::Relu`]
    pub fn relu(self) -> Self {
        self.activation(Activation::Relu)
    }

    /// [`Activation::LeakyRelu`]
    pub fn leaky_relu(self, slope: f64) -> Self {
        self.activation(Activation::LeakyRelu { slope })
    }

    /// [`Activation::Elu`]
    pub fn elu(self, alpha: f64) -> Self {
        self.activation(Activation::Elu { alpha })
    }

    /// [`Activation::Softplus`]
    pub fn softplus(self) -> Self {
        self.activation(Activation::Softplus)
    }

    /// What the weights and biases are drawn from; [`Init::FanIn`] by default.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// The seed of the weights; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Draws the weights.
    ///
    /// # Errors
    /// [`Error::ZeroWidth`] for an input or a layer without units, [`Error::NoWeightedLayer`],
    /// [`Error::OperationBeforeFirstLayer`], [`Error::OutputNotLinear`],
    /// [`Error::InvalidParameter`] for an activation or [`Init`] out of range,
    /// [`Error::NonFinite`] where the scalar cannot represent what is drawn, and
    /// [`Error::TooLarge`] where memory does not suffice.
    pub fn build(self) -> Result<Network<T>> {
        self.init.check()?;
        let mut layout = Layout { inputs: self.inputs, blocks: Vec::new() };
        if self.inputs == 0 {
            return Err(Error::ZeroWidth { layer: 0 });
        }
        let mut blocks: Vec<Block<T>> = Vec::new();
        let mut width = self.inputs;
        for item in self.items {
            match item {
                Item::Dense { outputs: 0, .. } => {
                    return Err(Error::ZeroWidth { layer: blocks.len() + 1 });
                }
                Item::Dense { outputs, bias } => {
                    let layer = Dense::zeros(width, outputs, bias)?;
                    blocks.push(Block { layer, operations: Vec::new() });
                    layout.blocks.push(vec![outputs]);
                    width = outputs;
                }
                Item::Activation(activation) => {
                    activation.check()?;
                    let (Some(block), Some(sizes)) = (blocks.last_mut(), layout.blocks.last_mut())
                    else {
                        return Err(Error::OperationBeforeFirstLayer {
                            operation: activation.to_string(),
                        });
                    };
                    block.operations.push(activation);
                    sizes.push(width);
                }
            }
        }
        match blocks.last() {
            None => return Err(Error::NoWeightedLayer),
            Some(Block { operations, .. }) => {
                if let Some(operation) = operations.first() {
                    return Err(Error::OutputNotLinear { operation: operation.to_string() });
                }
            }
        }
        draw(&mut blocks, self.init, self.seed)?;
        Ok(Network { layout, blocks })
    }

    fn push(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }
}

/// Draws weights and biases of every layer, each layer from a stream of its own.
fn draw<T: Scalar>(blocks: &mut [Block<T>], init: Init, seed: u64) -> Result<()> {
    let hidden = &blocks[..blocks.len() - 1];
    let saturating =
        hidden.iter().all(|block| block.operations.iter().any(|operation| operation.saturates()));
    for (index, Block { layer, .. }) in blocks.iter_mut().enumerate() {
        let mut rng = stream(seed, Purpose::Weights, index as u64, 0);
        let (outputs, inputs) = layer.weights.shape();
        let (weights, bias) = init.spread(inputs, outputs, saturating);
        weights.fill(layer.weights.as_mut_slice(), &mut rng);
        if let Some(values) = &mut layer.bias {
            bias.fill(values.as_mut_slice(), &mut rng);
        }
        // A scale that suits `f64` may overflow in `f32`; a bias has that of its weights or none.
        let what = || format!("W of weighted layer {index}");
        require_finite(what, outputs, layer.weights.as_slice())?;
    }
    Ok(())
}
