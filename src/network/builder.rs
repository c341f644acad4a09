//! From the user's flat list to the blocks of a network.

use std::sync::Arc;

use super::{Block, Network};
use crate::{
    activation::Activation,
    architecture::{Architecture, Item},
    error::{Error, Result, require_finite},
    init::Init,
    layer::{
        AvgPool2d, BatchNorm, Bias, Conv2d, Dropout, Layer, LinearMap, MaxPool2d, Operation, Shape,
    },
    scalar::Scalar,
    seed::{Purpose, stream},
    workspace::{BlockLayout, Layout, Needs},
};

/// Lists the layers of a [`Network`] from the input to the output.
#[derive(Clone, Debug)]
#[must_use = "a network comes of `.build()`"]
pub struct NetworkBuilder<T> {
    input: Shape,
    items: Vec<Item>,
    init: Init,
    seed: u64,
    scalar: std::marker::PhantomData<T>,
}

impl<T: Scalar> NetworkBuilder<T> {
    pub(super) fn new(input: Shape) -> Self {
        Self {
            input,
            items: Vec::new(),
            init: Init::default(),
            seed: 0,
            scalar: std::marker::PhantomData,
        }
    }

    /// A fully connected layer, `a = W h + b`.
    pub fn dense(self, outputs: usize) -> Self {
        self.push(Item::Dense { outputs, bias: Bias::With })
    }

    /// A fully connected layer without a bias, `a = W h`.
    pub fn dense_without_bias(self, outputs: usize) -> Self {
        self.push(Item::Dense { outputs, bias: Bias::Without })
    }

    /// A convolution.
    pub fn conv2d(self, conv: Conv2d) -> Self {
        self.push(Item::Conv2d(conv))
    }

    /// The largest value of each window.
    pub fn max_pool2d(self, pool: MaxPool2d) -> Self {
        self.push(Item::MaxPool2d(pool))
    }

    /// The mean of each window.
    pub fn avg_pool2d(self, pool: AvgPool2d) -> Self {
        self.push(Item::AvgPool2d(pool))
    }

    /// Batch normalisation with a momentum of 0.1 and `ε` of 1e-5; see [`BatchNorm`].
    pub fn batch_norm(self) -> Self {
        let (momentum, epsilon) = BatchNorm::<T>::DEFAULTS;
        self.batch_norm_with(momentum, epsilon)
    }

    /// Batch normalisation with a momentum in (0, 1] and a positive `ε` of one's own.
    pub fn batch_norm_with(self, momentum: f64, epsilon: f64) -> Self {
        self.push(Item::BatchNorm { momentum, epsilon })
    }

    /// Dropout with a probability in `[0, 1)`; also directly on the input.
    pub fn dropout(self, probability: f64) -> Self {
        self.push(Item::Dropout(probability))
    }

    /// From here on the values of an image are plain features: they stay where they are, channel
    /// by channel and row by row, but batch normalisation takes each by itself. A dense layer
    /// flattens what it reads anyway.
    pub fn flatten(self) -> Self {
        self.push(Item::Flatten)
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
    /// [`Error::OperationBeforeFirstLayer`], [`Error::OutputNotLinear`], [`Error::Window`] for a
    /// kernel that does not fit, [`Error::InvalidParameter`] for an activation, dropout,
    /// normalisation or [`Init`] out of range, [`Error::NonFinite`] where the scalar cannot
    /// represent what is drawn, and [`Error::TooLarge`] where memory does not suffice.
    pub fn build(self) -> Result<Network<T>> {
        self.init.check()?;
        let mut network = assemble(Architecture::new(self.input, self.items)?)?;
        draw(&mut network.blocks, self.init, self.seed)?;
        if let Init::Nokland { rule } = self.init {
            network.drawn_for = Some(rule);
        }
        Ok(network)
    }

    fn push(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }
}

/// The network of an architecture, with all weights and biases zero.
pub(super) fn assemble<T: Scalar>(architecture: Architecture) -> Result<Network<T>> {
    let items = architecture.items.clone();
    let mut assembly = Assembly::new(architecture);
    items.into_iter().try_for_each(|item| assembly.add(item))?;
    assembly.finish()
}

/// A network that is being put together, and the shape of what it yields so far.
struct Assembly<T> {
    network: Network<T>,
    shape: Shape,
    dropouts: u64,
}

impl<T: Scalar> Assembly<T> {
    fn new(architecture: Architecture) -> Self {
        let input = architecture.input;
        let layout = Arc::new(Layout { inputs: input.len(), ..Layout::default() });
        let (input_operations, blocks) = (Vec::new(), Vec::new());
        let network = Network { architecture, layout, input_operations, blocks, drawn_for: None };
        Self { network, shape: input, dropouts: 0 }
    }

    fn add(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Dense { outputs, bias } => {
                self.require_units(outputs)?;
                let inputs = self.shape.len();
                let layer = Layer::zeros(LinearMap::Dense, outputs, inputs, bias)?;
                self.require_scratch(LinearMap::Dense.tiles(outputs, inputs, 2).size);
                self.add_layer(layer, outputs.into());
            }
            Item::Conv2d(config) => {
                self.require_units(config.channels)?;
                let conv = config.over(self.shape)?;
                let map = LinearMap::Conv2d(conv);
                let layer = Layer::zeros(map, config.channels, conv.fan_in, config.bias)?;
                let tiles = conv.tiles(1);
                self.require_scratch(tiles.size.saturating_add(tiles.scratch));
                self.require_scratch(conv.unrolled().saturating_add(layer.weights.len()));
                self.add_layer(layer, conv.output());
            }
            Item::Activation(activation) => {
                activation.check::<T>()?;
                self.add_operation(Operation::Activation(activation))?;
            }
            Item::MaxPool2d(pool) => {
                self.add_operation(Operation::Pool2d(pool.over(self.shape)?))?;
            }
            Item::AvgPool2d(pool) => {
                self.add_operation(Operation::Pool2d(pool.over(self.shape)?))?;
            }
            Item::BatchNorm { momentum, epsilon } => {
                let norm = BatchNorm::new(self.shape, momentum, epsilon)?;
                self.add_operation(Operation::BatchNorm(norm))?;
            }
            Item::Dropout(probability) => {
                let dropout = Dropout::new(probability, self.dropouts)?;
                self.dropouts += 1;
                self.add_operation(Operation::Dropout(dropout))?;
            }
            Item::Flatten => self.shape = self.shape.len().into(),
        }
        Ok(())
    }

    fn require_units(&self, units: usize) -> Result<()> {
        match units {
            0 => Err(Error::ZeroWidth { layer: self.network.blocks.len() + 1 }),
            _ => Ok(()),
        }
    }

    fn add_layer(&mut self, layer: Layer<T>, output: Shape) {
        let a = output.len();
        let sizes = BlockLayout { a, operations: Vec::new(), stages: vec![a] };
        let layout = Arc::make_mut(&mut self.network.layout);
        layout.blocks.push(sizes);
        layout.notes.push(Vec::new());
        self.network.blocks.push(Block { layer, operations: Vec::new(), frozen: false });
        self.shape = output;
    }

    /// Notes how many numbers a thread will need for itself.
    fn require_scratch(&mut self, numbers: usize) {
        let layout = Arc::make_mut(&mut self.network.layout);
        layout.scratch = layout.scratch.max(numbers);
    }

    fn add_operation(&mut self, operation: Operation<T>) -> Result<()> {
        let Network { layout, input_operations, blocks, .. } = &mut self.network;
        let layout = Arc::make_mut(layout);
        let (Some(block), Some(sizes)) = (blocks.last_mut(), layout.blocks.last_mut()) else {
            if !matches!(operation, Operation::Dropout(_)) {
                let operation = operation.to_string();
                return Err(Error::OperationBeforeFirstLayer { operation });
            }
            input_operations.push(operation);
            layout.input_operations += 1;
            return Ok(());
        };
        if let Some(pool) = operation.pooling() {
            layout.scratch = layout.scratch.max(self.shape.plane().saturating_mul(4));
            self.shape = pool.output();
            sizes.stages.push(self.shape.len());
        }
        sizes.operations.push(self.shape.len());
        let needs = match &operation {
            Operation::Activation(_) => Needs::Nothing,
            Operation::Pool2d(_) => Needs::Winners,
            Operation::Dropout(_) => Needs::Kept,
            Operation::BatchNorm(norm) => Needs::Channels(norm.scale.len()),
        };
        layout.notes.last_mut().expect("there is a block").push(needs);
        block.operations.push(operation);
        Ok(())
    }

    fn finish(mut self) -> Result<Network<T>> {
        let description = self.network.to_string();
        let layout = Arc::make_mut(&mut self.network.layout);
        layout.name = description;
        layout.architecture = Some(self.network.architecture.clone());
        let last = self.network.blocks.last().ok_or(Error::NoWeightedLayer)?;
        match last.operations.first() {
            Some(operation) => Err(Error::OutputNotLinear { operation: operation.to_string() }),
            None => Ok(self.network),
        }
    }
}

/// Draws weights and biases of every layer, each layer from a stream of its own.
fn draw<T: Scalar>(blocks: &mut [Block<T>], init: Init, seed: u64) -> Result<()> {
    let saturates = |operation: &Operation<T>| matches!(operation, Operation::Activation(activation) if activation.saturates());
    let hidden = &blocks[..blocks.len() - 1];
    let saturating = hidden.iter().all(|block| block.operations.iter().any(saturates));
    for (index, Block { layer, .. }) in blocks.iter_mut().enumerate() {
        let mut rng = stream(seed, Purpose::Weights, index as u64, 0);
        let (fan_in, fan_out) = layer.fans();
        let (weights, bias) = init.spread(fan_in, fan_out, saturating);
        weights.fill(layer.weights.as_mut_slice(), &mut rng);
        if let Some(values) = &mut layer.bias {
            bias.fill(values.as_mut_slice(), &mut rng);
        }
        // A scale that suits `f64` may overflow in `f32`; a bias has that of its weights or none.
        let what = || format!("W of weighted layer {index}");
        require_finite(what, layer.weights.nrows(), layer.weights.as_slice())?;
    }
    Ok(())
}
