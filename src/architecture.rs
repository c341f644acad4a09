//! The flat list that a network is built from.

use crate::{
    activation::Activation,
    error::{Error, Result},
    layer::{AvgPool2d, Bias, Conv2d, MaxPool2d, Shape},
    parameters::{Part, Slot, Table},
};

/// What a network reads and the entries of its list, from the input to the output. Together with
/// the parameters it is the whole network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Architecture {
    pub(crate) input: Shape,
    /// With a [`Item::Flatten`] wherever a dense layer reads an image: PyTorch needs it, and its
    /// names for parameters count it.
    pub(crate) items: Vec<Item>,
}

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

impl Architecture {
    /// Takes the user's list.
    pub(crate) fn new(input: Shape, list: Vec<Item>) -> Result<Self> {
        match input.checked_len() {
            Some(0) => return Err(Error::ZeroWidth { layer: 0 }),
            Some(_) => {}
            None => {
                let Shape { channels, height, width } = input;
                return Err(Error::TooLarge {
                    rows: channels,
                    columns: height.saturating_mul(width),
                });
            }
        }
        let mut items = Vec::with_capacity(list.len());
        let mut is_image = input.plane() != 1;
        for item in list {
            match item {
                Item::Conv2d(_)
                | Item::MaxPool2d(_)
                | Item::AvgPool2d(_)
                | Item::GlobalAvgPool2d => is_image = true,
                Item::Flatten => is_image = false,
                Item::Dense { .. } => {
                    if is_image {
                        items.push(Item::Flatten);
                    }
                    is_image = false;
                }
                Item::Activation(_)
                | Item::BatchNorm { .. }
                | Item::LayerNorm { .. }
                | Item::Skip { .. }
                | Item::Dropout(_) => {}
            }
            items.push(item);
        }
        Ok(Self { input, items })
    }

    /// The shape of what entry `index` of the list is given, of a list that has one.
    #[cfg(feature = "safetensors")]
    pub(crate) fn shape_before(&self, index: usize) -> Shape {
        let items = self.items[..index].iter();
        items.fold(self.input, |shape, item| item.output(shape).unwrap_or(shape))
    }

    /// The shape of what each weighted layer yields, with the operations after it.
    pub(crate) fn outputs(&self) -> Vec<Shape> {
        let (mut shape, mut outputs) = (self.input, Vec::new());
        for item in &self.items {
            shape = item.output(shape).unwrap_or(shape);
            match item {
                Item::Dense { .. } | Item::Conv2d(_) => outputs.push(shape),
                Item::Flatten => {} // Belongs to what reads it.
                _ => outputs.iter_mut().last().into_iter().for_each(|output| *output = shape),
            }
        }
        outputs
    }

    /// All parameters of the network. Only sizes are computed: the network of a file may be larger
    /// than memory.
    pub(crate) fn table(&self) -> Result<Table> {
        let (mut shape, mut slots) = (self.input, Vec::new());
        let (mut layers, mut operations): (usize, usize) = (0, 0);
        for (index, item) in self.items.iter().enumerate() {
            let is_layer = matches!(item, Item::Dense { .. } | Item::Conv2d(_));
            if is_layer {
                (layers, operations) = (layers + 1, 0);
            }
            let at = (index, layers.saturating_sub(1), (!is_layer).then_some(operations));
            slots.extend(item.parts(shape).into_iter().enumerate().map(|part| Slot::new(at, part)));
            operations += usize::from(!is_layer && !matches!(item, Item::Flatten));
            shape = item.output(shape)?;
        }
        Table::new(slots)
    }
}

impl Item {
    /// The parameters of an entry that is given an `input` of this shape, with their rows and
    /// columns. This is the only list of what a layer has.
    fn parts(&self, input: Shape) -> Vec<(Part, usize, usize)> {
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

    /// The shape of what it makes of an `input` of this shape.
    fn output(&self, input: Shape) -> Result<Shape> {
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
}
