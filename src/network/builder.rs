//! From the user's flat list to the blocks of a network.

use std::sync::Arc;

use super::{Block, Network};
use crate::{
    activation::Activation,
    architecture::{Architecture, Item},
    error::{Error, Result, require_finite},
    init::Init,
    layer::{
        AvgPool2d, BatchNorm, Bias, Conv2d, LayerNorm, LinearMap, MaxPool2d, Operation, Shape, Skip,
    },
    parameters::{Parameters, Part},
    scalar::Scalar,
    seed::{Purpose, stream},
    workspace::{BlockLayout, Layout},
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

impl<T: Scalar> Network<T> {
    /// Starts a network. `input` is a number of features, or the shape of an image such as
    /// `(3, 32, 32)`: channels, height, width.
    pub fn builder(input: impl std::convert::Into<Shape>) -> NetworkBuilder<T> {
        NetworkBuilder::new(input.into())
    }
}

impl<T: Scalar> NetworkBuilder<T> {
    fn new(input: Shape) -> Self {
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

    /// The mean of each channel over the whole image: one feature per channel.
    pub fn global_avg_pool2d(self) -> Self {
        self.push(Item::GlobalAvgPool2d)
    }

    /// Batch normalisation with a momentum of 0.1 and `ε` of 1e-5; see [`BatchNorm`].
    pub fn batch_norm(self) -> Self {
        let (momentum, epsilon) = BatchNorm::DEFAULTS;
        self.batch_norm_with(momentum, epsilon)
    }

    /// Batch normalisation with your own momentum in (0, 1] and your own positive `ε`.
    pub fn batch_norm_with(self, momentum: f64, epsilon: f64) -> Self {
        self.push(Item::BatchNorm { momentum, epsilon })
    }

    /// Layer normalisation with an `ε` of 1e-5; see [`LayerNorm`].
    pub fn layer_norm(self) -> Self {
        self.layer_norm_with(LayerNorm::EPSILON)
    }

    /// Layer normalisation with your own positive `ε`.
    pub fn layer_norm_with(self, epsilon: f64) -> Self {
        self.push(Item::LayerNorm { epsilon })
    }

    /// A residual connection past the last `layers` weighted layers, at least 1. It adds what entered
    /// the first of these layers to the values at this place. Both have to have the same shape. Or this
    /// place has an image with every second, third, ... row and column of the other, and at least as
    /// many channels; see [`Skip`].
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// // h = f(W₂ f(W₁ x + b₁) + b₂ + x), a block of two layers as in He et al. (2016).
    /// let network = Network::<f32>::builder(8).dense(20).relu().dense(8).skip(2).relu().dense(3);
    /// assert_eq!(network.build()?.to_string(), "8-20 relu-8 skip 2 relu-3");
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    pub fn skip(self, layers: usize) -> Self {
        self.push(Item::Skip { layers })
    }

    /// Dropout with a probability in `[0, 1)`. It may also stand directly on the input.
    pub fn dropout(self, probability: f64) -> Self {
        self.push(Item::Dropout(probability))
    }

    /// From here on the values of an image count as plain features. They keep their order, channel by
    /// channel and row by row. The difference is that batch normalisation then treats each value as a
    /// feature of its own. A dense layer needs no `flatten` before it: it does the same.
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

    /// [`Activation::Gelu`]
    pub fn gelu(self) -> Self {
        self.activation(Activation::Gelu)
    }

    /// [`Activation::Softplus`]
    pub fn softplus(self) -> Self {
        self.activation(Activation::Softplus)
    }

    /// The distribution of the weights and biases; [`Init::FanIn`] by default.
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
    /// [`Error::OperationBeforeFirstLayer`], [`Error::OutputNotLinear`], [`Error::Window`] for a kernel
    /// that does not fit, [`Error::Skip`] for a residual connection that does not fit,
    /// [`Error::InvalidParameter`] for an activation, dropout, normalisation or [`Init`] out of range,
    /// [`Error::NonFinite`] if the scalar type cannot represent a drawn number, and [`Error::TooLarge`]
    /// if there is not enough memory.
    pub fn build(self) -> Result<Network<T>> {
        self.init.check()?;
        let mut network = assemble(Architecture::new(self.input, self.items)?)?;
        draw(&mut network, self.init, self.seed)?;
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
    let mut assembly = Assembly::<T>::new(architecture.input);
    architecture.items.iter().try_for_each(|&item| assembly.add(item))?;
    assembly.finish(architecture)
}

/// A network that is being put together, and the shape of its output so far.
struct Assembly<T> {
    layout: Layout,
    blocks: Vec<Block>,
    shape: Shape,
    /// The shape of the input of each layer.
    entering: Vec<Shape>,
    dropouts: u64,
    scalar: std::marker::PhantomData<T>,
}

impl<T: Scalar> Assembly<T> {
    fn new(input: Shape) -> Self {
        Self {
            layout: Layout { inputs: input.len(), ..Layout::default() },
            blocks: Vec::new(),
            shape: input,
            entering: Vec::new(),
            dropouts: 0,
            scalar: std::marker::PhantomData,
        }
    }

    fn add(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Dense { outputs, .. } => {
                self.require_units(outputs)?;
                let shape = (outputs, self.shape.len());
                let too_large = Error::TooLarge { rows: shape.0, columns: shape.1 };
                shape.0.checked_mul(shape.1).ok_or(too_large)?;
                self.add_layer(LinearMap::Dense, shape, outputs.into());
            }
            Item::Conv2d(config) => {
                self.require_units(config.channels)?;
                let conv = config.over(self.shape)?;
                let too_large = Error::TooLarge { rows: config.channels, columns: conv.fan_in };
                config.channels.checked_mul(conv.fan_in).ok_or(too_large)?;
                let shape = (config.channels, conv.fan_in);
                self.add_layer(LinearMap::Conv2d(conv), shape, conv.output());
            }
            Item::Skip { layers } => self.add_skip(layers)?,
            Item::Flatten => self.shape = self.shape.len().into(),
            _ => {
                let Some(operation) = item.operation::<T>(self.shape, self.dropouts)? else {
                    unreachable!("what is no operation has an arm above");
                };
                self.dropouts += u64::from(matches!(operation, Operation::Dropout(_)));
                self.add_operation(operation)?;
            }
        }
        Ok(())
    }

    fn require_units(&self, units: usize) -> Result<()> {
        match units {
            0 => Err(Error::ZeroWidth { layer: self.blocks.len() + 1 }),
            _ => Ok(()),
        }
    }

    fn add_skip(&mut self, layers: usize) -> Result<()> {
        let count = self.blocks.len();
        let refuse = |reason: String| Err(Error::Skip { layers, reason });
        let Some(start) = count.checked_sub(layers).filter(|_| layers > 0) else {
            return refuse(format!(
                "it leads past at least 1 layer, and at most the {count} before it"
            ));
        };
        let (from, to) = (self.entering[start], self.shape);
        match Skip::new(count - 1, layers, from, to) {
            Some(skip) => self.add_operation(Operation::Skip(skip)),
            None => {
                refuse(format!("it would add what has the shape {from} to what has the shape {to}"))
            }
        }
    }

    fn add_layer(&mut self, map: LinearMap, shape: (usize, usize), output: Shape) {
        let a = output.len();
        self.layout.blocks.push(BlockLayout { a, operations: Vec::new(), stages: vec![a] });
        self.layout.operations.push(Vec::new());
        self.entering.push(self.shape);
        self.blocks.push(Block { map, shape, operations: Vec::new(), frozen: false });
        self.shape = output;
    }

    fn add_operation(&mut self, operation: Operation) -> Result<()> {
        let (Some(block), Some(sizes)) = (self.blocks.last_mut(), self.layout.blocks.last_mut())
        else {
            if !matches!(operation, Operation::Dropout(_)) {
                let operation = operation.to_string();
                return Err(Error::OperationBeforeFirstLayer { operation });
            }
            self.layout.input_operations.push(operation);
            return Ok(());
        };
        if let Some(pool) = operation.pooling() {
            self.layout.memory.include(pool.thread_memory());
            self.shape = pool.output();
            sizes.stages.push(self.shape.len());
        }
        sizes.operations.push(self.shape.len());
        self.layout.operations.last_mut().expect("there is a block").push(operation);
        block.operations.push(operation);
        Ok(())
    }

    fn finish(self, architecture: Architecture) -> Result<Network<T>> {
        let Self { mut layout, blocks, .. } = self;
        let last = blocks.last().ok_or(Error::NoWeightedLayer)?;
        if let Some(operation) = last.operations.first() {
            return Err(Error::OutputNotLinear { operation: operation.to_string() });
        }
        layout.table = Arc::new(architecture.table()?);
        layout.architecture = Some(architecture.clone());
        let parameters = Parameters::initial(&layout.table)?;
        // This takes time for every entry of a kernel. A kernel too large for the memory has been refused
        // just before.
        for block in &blocks {
            layout.memory.include(block.map.thread_memory::<T>(block.shape));
        }
        let mut network =
            Network { architecture, layout: Arc::new(layout), blocks, parameters, drawn_for: None };
        let name = network.to_string();
        Arc::make_mut(&mut network.layout).name = name;
        Ok(network)
    }
}

/// Draws the weights and biases. Each layer has a random stream of its own.
fn draw<T: Scalar>(network: &mut Network<T>, init: Init, seed: u64) -> Result<()> {
    let Network { blocks, parameters, .. } = network;
    let saturates = |operation: &Operation| matches!(operation, Operation::Activation(activation) if activation.saturates());
    let hidden = &blocks[..blocks.len() - 1];
    let saturating = hidden.iter().all(|block| block.operations.iter().any(saturates));
    for (layer, block) in blocks.iter().enumerate() {
        let mut rng = stream(seed, Purpose::Weights, layer as u64, 0);
        let (fan_in, fan_out) = block.map.fans(block.shape);
        let (weights, bias) = init.spread(fan_in, fan_out, saturating);
        for (part, spread) in [(Part::Weights, weights), (Part::Bias, bias)] {
            let Some(slot) = parameters.find(layer, part) else { continue };
            spread.fill(parameters.slot_mut(&slot), &mut rng);
            // A scale that suits `f64` may overflow in `f32`.
            require_finite(|| slot.to_string(), slot.rows, parameters.slot(&slot))?;
        }
    }
    Ok(())
}
