//! The flat list that a network is built from.

use crate::{
    activation::Activation,
    error::{Error, Result},
    layer::{AvgPool2d, Bias, Conv2d, MaxPool2d, Shape},
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
    BatchNorm { momentum: f64, epsilon: f64 },
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
                Item::Conv2d(_) | Item::MaxPool2d(_) | Item::AvgPool2d(_) => is_image = true,
                Item::Flatten => is_image = false,
                Item::Dense { .. } => {
                    if is_image {
                        items.push(Item::Flatten);
                    }
                    is_image = false;
                }
                Item::Activation(_) | Item::BatchNorm { .. } | Item::Dropout(_) => {}
            }
            items.push(item);
        }
        Ok(Self { input, items })
    }
}
