//! One entry of the list. For every kind of entry this file, and no other, knows its parameters, its
//! output shape and its text form.

#[cfg(feature = "safetensors")]
use crate::files::{Entry, Line};
use crate::{
    activation::Activation,
    error::Result,
    layer::{AvgPool2d, BatchNorm, Bias, Conv2d, Dropout, LayerNorm, MaxPool2d, Operation, Shape},
    parameters::Part,
    scalar::Scalar,
};

/// One entry of the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item {
    Dense { outputs: usize, bias: Bias },
    Conv2d(Conv2d),
    Activation(Activation),
    MaxPool2d(MaxPool2d),
    AvgPool2d(AvgPool2d),
    GlobalAvgPool2d,
    BatchNorm { momentum: f64, epsilon: f64 },
    LayerNorm { epsilon: f64 },
    Skip { layers: usize },
    Dropout(f64),
    Flatten,
}

impl Item {
    /// The parameters of an entry with this `input` shape: kind, rows and columns. Nothing else lists
    /// the parameters of a layer.
    pub(super) fn parts(&self, input: Shape) -> Vec<(Part, usize, usize)> {
        let layer = |rows, columns, bias| match bias {
            Bias::With => vec![(Part::Weights, rows, columns), (Part::Bias, rows, 1)],
            Bias::Without => vec![(Part::Weights, rows, columns)],
        };
        match *self {
            Self::Dense { outputs, bias } => layer(outputs, input.len(), bias),
            Self::Conv2d(Conv2d { channels, kernel: (height, width), bias, .. }) => {
                let pixels = height.saturating_mul(width);
                layer(channels, input.channels.saturating_mul(pixels), bias)
            }
            Self::BatchNorm { .. } => {
                [Part::Scale, Part::Shift, Part::RunningMean, Part::RunningVariance]
                    .map(|part| (part, input.channels, 1))
                    .to_vec()
            }
            Self::LayerNorm { .. } => {
                [Part::Scale, Part::Shift].map(|part| (part, input.len(), 1)).to_vec()
            }
            Self::Activation(_)
            | Self::Skip { .. }
            | Self::MaxPool2d(_)
            | Self::AvgPool2d(_)
            | Self::GlobalAvgPool2d
            | Self::Dropout(_)
            | Self::Flatten => Vec::new(),
        }
    }

    /// The output shape for an `input` of this shape.
    pub(super) fn output(&self, input: Shape) -> Result<Shape> {
        Ok(match *self {
            Self::Dense { outputs, .. } => outputs.into(),
            Self::Conv2d(config) => config.over(input)?.output(),
            Self::MaxPool2d(pool) => pool.over(input)?.output(),
            Self::AvgPool2d(pool) => pool.over(input)?.output(),
            Self::GlobalAvgPool2d => input.channels.into(),
            Self::Flatten => input.len().into(),
            Self::Activation(_)
            | Self::BatchNorm { .. }
            | Self::LayerNorm { .. }
            | Self::Skip { .. }
            | Self::Dropout(_) => input,
        })
    }

    /// The operation of this entry on samples of this shape; `dropouts` dropouts come before it. `None`
    /// for entries that the network puts together itself: weighted layers, residual connections, which
    /// reach back, and `flatten`, which moves no number.
    pub(crate) fn operation<T: Scalar>(
        &self,
        input: Shape,
        dropouts: u64,
    ) -> Result<Option<Operation>> {
        Ok(Some(match *self {
            Self::Activation(activation) => {
                activation.check::<T>()?;
                Operation::Activation(activation)
            }
            Self::MaxPool2d(pool) => Operation::Pool2d(pool.over(input)?),
            Self::AvgPool2d(pool) => Operation::Pool2d(pool.over(input)?),
            Self::GlobalAvgPool2d => Operation::Pool2d(AvgPool2d::whole(input).over(input)?),
            Self::BatchNorm { momentum, epsilon } => {
                Operation::BatchNorm(BatchNorm::new::<T>(input, momentum, epsilon)?)
            }
            Self::LayerNorm { epsilon } => {
                Operation::LayerNorm(LayerNorm::new::<T>(input, epsilon)?)
            }
            Self::Dropout(probability) => Operation::Dropout(Dropout::new(probability, dropouts)?),
            Self::Dense { .. } | Self::Conv2d(_) | Self::Skip { .. } | Self::Flatten => {
                return Ok(None);
            }
        }))
    }
}

/// The text form: a line for each entry.
#[cfg(feature = "safetensors")]
impl Item {
    pub(super) fn line(&self) -> Line {
        match *self {
            Self::Dense { outputs, bias } => {
                Line::new("dense").with("outputs", outputs).word("bias", bias_word(bias))
            }
            Self::Conv2d(Conv2d { channels, kernel, stride, padding, bias }) => Line::new("conv2d")
                .with("channels", channels)
                .with("kernel", kernel)
                .with("stride", stride)
                .with("padding", padding)
                .word("bias", bias_word(bias)),
            Self::Activation(activation) => {
                activation.constants(Line::new(&activation.to_string()))
            }
            Self::MaxPool2d(MaxPool2d { kernel, stride }) => {
                Line::new("max-pool2d").with("kernel", kernel).with("stride", stride)
            }
            Self::AvgPool2d(AvgPool2d { kernel, stride }) => {
                Line::new("avg-pool2d").with("kernel", kernel).with("stride", stride)
            }
            Self::GlobalAvgPool2d => Line::new("global-avg-pool2d"),
            Self::BatchNorm { momentum, epsilon } => {
                Line::new("batch-norm").with("momentum", momentum).with("epsilon", epsilon)
            }
            Self::LayerNorm { epsilon } => Line::new("layer-norm").with("epsilon", epsilon),
            Self::Skip { layers } => Line::new("skip").with("layers", layers),
            Self::Dropout(probability) => Line::new("dropout").with("probability", probability),
            Self::Flatten => Line::new("flatten"),
        }
    }

    pub(super) fn read(entry: &Entry) -> Result<Self> {
        Ok(match entry.name() {
            "dense" => Self::Dense { outputs: entry.field("outputs")?, bias: read_bias(entry)? },
            "conv2d" => Self::Conv2d(Conv2d {
                channels: entry.field("channels")?,
                kernel: entry.field("kernel")?,
                stride: entry.field("stride")?,
                padding: entry.field("padding")?,
                bias: read_bias(entry)?,
            }),
            "max-pool2d" => Self::MaxPool2d(MaxPool2d {
                kernel: entry.field("kernel")?,
                stride: entry.field("stride")?,
            }),
            "avg-pool2d" => Self::AvgPool2d(AvgPool2d {
                kernel: entry.field("kernel")?,
                stride: entry.field("stride")?,
            }),
            "global-avg-pool2d" => Self::GlobalAvgPool2d,
            "batch-norm" => Self::BatchNorm {
                momentum: entry.field("momentum")?,
                epsilon: entry.field("epsilon")?,
            },
            "layer-norm" => Self::LayerNorm { epsilon: entry.field("epsilon")? },
            "skip" => Self::Skip { layers: entry.field("layers")? },
            "dropout" => Self::Dropout(entry.field("probability")?),
            "flatten" => Self::Flatten,
            name => {
                let known = name.parse::<Activation>();
                let known = known.map_err(|_| entry.refuse("an entry of the network's list"))?;
                Self::Activation(known.with_constants(entry)?)
            }
        })
    }
}

#[cfg(feature = "safetensors")]
impl Activation {
    /// Adds the constants of this function to a line.
    pub(crate) fn constants(self, line: Line) -> Line {
        match self {
            Self::LeakyRelu { slope } => line.with("slope", slope),
            Self::Elu { alpha } => line.with("alpha", alpha),
            _ => line,
        }
    }

    /// The same function with the constants that a line has.
    pub(crate) fn with_constants(mut self, entry: &Entry) -> Result<Self> {
        match &mut self {
            Self::LeakyRelu { slope } => *slope = entry.field("slope")?,
            Self::Elu { alpha } => *alpha = entry.field("alpha")?,
            _ => {}
        }
        Ok(self)
    }
}

#[cfg(feature = "safetensors")]
fn bias_word(bias: Bias) -> &'static str {
    match bias {
        Bias::With => "with",
        Bias::Without => "without",
    }
}

#[cfg(feature = "safetensors")]
fn read_bias(entry: &Entry) -> Result<Bias> {
    match entry.word("bias")? {
        "with" => Ok(Bias::With),
        "without" => Ok(Bias::Without),
        _ => Err(entry.refuse("'bias=with' or 'bias=without'")),
    }
}
