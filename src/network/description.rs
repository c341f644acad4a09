//! The architecture as text, in the metadata of a file.

use crate::{
    activation::Activation,
    architecture::{Architecture, Item},
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

impl Activation {
    /// A line with the constants of this function.
    pub(crate) fn constants(self, line: Line) -> Line {
        match self {
            Self::LeakyRelu { slope } => line.with("slope", slope),
            Self::Elu { alpha } => line.with("alpha", alpha),
            _ => line,
        }
    }

    /// The same function with the constants of a line.
    pub(crate) fn with_constants(mut self, entry: &Entry) -> Result<Self> {
        match &mut self {
            Self::LeakyRelu { slope } => *slope = entry.field("slope")?,
            Self::Elu { alpha } => *alpha = entry.field("alpha")?,
            _ => {}
        }
        Ok(self)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{error::Error, files::text};

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
