//! The architecture as text, in the metadata of a file.

use super::architecture::{Architecture, Item};
use crate::{
    activation::Activation,
    error::Result,
    files::{Entry, Line, Lines},
    layer::{AvgPool2d, Bias, Conv2d, MaxPool2d, Shape},
};

impl Architecture {
    /// A line for the input and one for every entry of the list.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let Shape { channels, height, width } = self.input;
        let input = Line::new("input").with("shape", (channels, height, width));
        std::iter::once(input).chain(self.items.iter().map(Item::line)).collect()
    }

    /// Takes all lines that are left.
    pub(crate) fn read(lines: &mut Lines) -> Result<Self> {
        let input = lines.take("input")?;
        let shape = input.field::<(usize, usize, usize)>("shape")?;
        let items = std::iter::from_fn(|| lines.next()).map(|entry| Item::read(&entry));
        let items = items.collect::<Result<_>>()?;
        Self::new(shape.into(), items).map_err(|error| lines.blame(error))
    }
}

impl Item {
    fn line(&self) -> Line {
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
                let line = Line::new(&activation.to_string());
                match activation {
                    Activation::LeakyRelu { slope } => line.with("slope", slope),
                    Activation::Elu { alpha } => line.with("alpha", alpha),
                    _ => line,
                }
            }
            Self::MaxPool2d(MaxPool2d { kernel, stride }) => {
                Line::new("max-pool2d").with("kernel", kernel).with("stride", stride)
            }
            Self::AvgPool2d(AvgPool2d { kernel, stride }) => {
                Line::new("avg-pool2d").with("kernel", kernel).with("stride", stride)
            }
            Self::BatchNorm { momentum, epsilon } => {
                Line::new("batch-norm").with("momentum", momentum).with("epsilon", epsilon)
            }
            Self::Dropout(probability) => Line::new("dropout").with("probability", probability),
            Self::Flatten => Line::new("flatten"),
        }
    }

    fn read(entry: &Entry) -> Result<Self> {
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
            "batch-norm" => Self::BatchNorm {
                momentum: entry.field("momentum")?,
                epsilon: entry.field("epsilon")?,
            },
            "dropout" => Self::Dropout(entry.field("probability")?),
            "flatten" => Self::Flatten,
            name => {
                let known = name.parse::<Activation>();
                let mut activation =
                    known.map_err(|_| entry.refuse("an entry of the network's list"))?;
                match &mut activation {
                    Activation::LeakyRelu { slope } => *slope = entry.field("slope")?,
                    Activation::Elu { alpha } => *alpha = entry.field("alpha")?,
                    _ => {}
                }
                Self::Activation(activation)
            }
        })
    }
}

fn bias_word(bias: Bias) -> &'static str {
    match bias {
        Bias::With => "with",
        Bias::Without => "without",
    }
}

fn read_bias(entry: &Entry) -> Result<Bias> {
    match entry.word("bias")? {
        "with" => Ok(Bias::With),
        "without" => Ok(Bias::Without),
        _ => Err(entry.refuse("'bias=with' or 'bias=without'")),
    }
}
