//! The flat list that a network is built from.

#[cfg(feature = "safetensors")]
use crate::files::{Line, Lines};
use crate::{
    error::{Error, Result},
    layer::Shape,
    parameters::{Slot, Table},
};

mod item;

pub(crate) use item::Item;

/// The input shape of a network and the entries of its list, from the input to the output. Together
/// with the parameters this is the whole network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Architecture {
    pub(crate) input: Shape,
    /// An [`Item::Flatten`] is in it wherever a dense layer reads an image. PyTorch needs it, and its
    /// names for parameters count it.
    pub(crate) items: Vec<Item>,
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

    /// The input shape of entry `index` of the list. The list has to have such an entry.
    #[cfg(feature = "safetensors")]
    pub(crate) fn shape_before(&self, index: usize) -> Shape {
        let items = self.items[..index].iter();
        items.fold(self.input, |shape, item| item.output(shape).unwrap_or(shape))
    }

    /// The output shape of each weighted layer, after the operations that follow it.
    pub(crate) fn outputs(&self) -> Vec<Shape> {
        let (mut shape, mut outputs) = (self.input, Vec::new());
        for item in &self.items {
            shape = item.output(shape).unwrap_or(shape);
            match item {
                Item::Dense { .. } | Item::Conv2d(_) => outputs.push(shape),
                Item::Flatten => {} // It belongs to the dense layer that comes next.
                _ => outputs.iter_mut().last().into_iter().for_each(|output| *output = shape),
            }
        }
        outputs
    }

    /// All parameters of the network. Only sizes are computed, because the network of a file may be
    /// larger than memory.
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

/// The architecture as text, in the metadata of a file.
#[cfg(feature = "safetensors")]
impl Architecture {
    /// A line for the input and one for every entry of the list.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let Shape { channels, height, width } = self.input;
        let input = Line::new("input").with("shape", (channels, height, width));
        std::iter::once(input).chain(self.items.iter().map(Item::line)).collect()
    }

    /// Reads all remaining lines.
    pub(crate) fn read(lines: &mut Lines) -> Result<Self> {
        let input = lines.take("input")?;
        let shape = input.field::<(usize, usize, usize)>("shape")?;
        let items = std::iter::from_fn(|| lines.next()).map(|entry| Item::read(&entry));
        let items = items.collect::<Result<_>>()?;
        Self::new(shape.into(), items).map_err(|error| lines.blame(error))
    }
}

#[cfg(all(test, feature = "safetensors"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        activation::Activation,
        error::Error,
        files::text,
        layer::{AvgPool2d, Bias, Conv2d, MaxPool2d},
    };

    fn read(text: &str) -> Result<Architecture> {
        let mut lines = Lines::new(Path::new("file"), text, 0);
        let architecture = Architecture::read(&mut lines)?;
        lines.require(&architecture.lines())?;
        Ok(architecture)
    }

    #[test]
    fn every_entry_comes_back() {
        let conv = Conv2d { kernel: (3, 2), stride: (2, 1), padding: (0, 4), ..Conv2d::new(7, 1) };
        let mut list = vec![
            Item::Dropout(0.1 + 0.2),
            Item::Conv2d(conv),
            Item::BatchNorm { momentum: 0.1, epsilon: 1e-5 },
            Item::LayerNorm { epsilon: 1e-3 },
            Item::Skip { layers: 1 },
            Item::GlobalAvgPool2d,
            Item::MaxPool2d(MaxPool2d { kernel: (2, 3), stride: (1, 2) }),
            Item::Conv2d(Conv2d { bias: Bias::Without, ..conv }),
            Item::AvgPool2d(AvgPool2d { kernel: (1, 2), stride: (2, 3) }),
            Item::Flatten,
            Item::Dense { outputs: 5, bias: Bias::Without },
            Item::Activation(Activation::LeakyRelu { slope: 0.3 }),
            Item::Activation(Activation::Elu { alpha: 1e-3 }),
            Item::Dense { outputs: usize::MAX, bias: Bias::With },
        ];
        list.extend(Activation::all().map(Item::Activation));
        let architecture = Architecture::new((3, 32, 32).into(), list).unwrap();
        assert_eq!(read(&text(&architecture.lines())).unwrap(), architecture);
    }

    /// PyTorch's names count it, so the text names it.
    #[test]
    fn an_image_is_flattened_once_before_a_dense_layer() {
        let image = [Item::Conv2d(Conv2d::new(2, 3)), Item::Activation(Activation::Tanh)];
        let dense = [Item::Dense { outputs: 2, bias: Bias::With }; 2];
        let by_itself = [&image[..], &dense].concat();
        let by_name = [&image[..1], &[Item::Flatten], &image[1..], &dense].concat();
        let flattened = [&image[..], &[Item::Flatten], &dense].concat();
        let items = |shape: Shape, list| Architecture::new(shape, list).unwrap().items;
        assert_eq!(items((1, 4, 4).into(), by_itself), flattened);
        assert_eq!(items((1, 4, 4).into(), by_name.clone()), by_name);
        assert_eq!(items((1, 4, 4).into(), dense.to_vec())[0], Item::Flatten);
        assert_eq!(items(16.into(), dense.to_vec()), dense);
        // A convolution makes an image even of a single pixel; PyTorch sees four dimensions.
        let pixel = vec![Item::Conv2d(Conv2d::new(2, 1)), dense[0]];
        assert_eq!(items(3.into(), pixel)[1], Item::Flatten);
    }

    #[test]
    fn what_is_no_architecture_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("output shape=1x1x1\n", 1),
            ("input shape=1x1\n", 1),
            ("input shape=1x1x1\ndense outputs=2\n", 2),
            ("input shape=1x1x1\ndense outputs=2 bias=maybe\n", 2),
            ("input shape=1x1x1\ndense outputs=2 bias=with\ntransformer\n", 3),
            ("input shape=1x1x1\nTANH\n", 2),
            ("input shape=1x1x1\ndropout probability=0.50\n", 2),
            ("input shape=1x1x1\ntanh\n\n", 3),
            ("input shape=1x1x1\nelu\n", 2),
            ("input shape=1x1x1\nleaky-relu slope=x\n", 2),
            ("input shape=1x2x1\ndense outputs=2 bias=with\n", 2),
        ] {
            let refused = read(text).unwrap_err();
            let found = matches!(refused, Error::Description { line: found, .. } if found == line);
            assert!(found, "{text:?}: {refused}");
        }
        for text in ["input shape=0x1x1\n", "input shape=4294967296x4294967296x4294967296\n"] {
            let refused = read(text).unwrap_err();
            let Error::Content { cause, .. } = &refused else { panic!("{refused}") };
            assert!(matches!(**cause, Error::ZeroWidth { .. } | Error::TooLarge { .. }));
        }
    }
}
