//! The networks, and how each is trained.
//!
//! LeNet and ResNet-20 are those of BioTorch's benchmark (Sanfiz and Akrout 2021) with its settings:
//! Glorot's uniform weights and feedback, softmax, SGD with a momentum of 0.9 and a decay of 1e-4,
//! batches of 128, the last and smaller one left out, images mirrored at random and moved by up to
//! four pixels. Its rates are those of its files: 0.1, and less for FA and DFA. IFA, which it does
//! not have, gets the rate of DFA.
//!
//! What differs: there 45,000 images are learned from, 5,000 choose the epoch, and the rate falls
//! after 100, 150 and 200 of 250 epochs, which nobody waits for here. Its DFA is another rule, which
//! repeats one signal over all positions of an image. Its decay takes biases, scales and shifts
//! along, and a moved image is filled up with black instead of the mean.

use clap::ValueEnum;
use feedback_alignment::{
    Adam, AvgPool2d, Bias, Conv2d, FeedbackRule, Init, Loss, MaxPool2d, Momentum, Network,
    NetworkBuilder, Optimizer, RmsProp, Sgd, Shape, Trainer, TrainerBuilder, WeightDecay,
};

use crate::{common::Result, data::Prepared, glorot};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// Two small convolutions
    Small,
    /// Nøkland's: three convolutions of 96, 128 and 256 kernels, two layers of 2048 units
    Conv,
    /// Nøkland's, one layer of 1000 units
    #[value(name = "1x1000")]
    Shallow,
    /// Nøkland's, three layers of 1000 units
    #[value(name = "3x1000")]
    Deep,
    /// BioTorch's for CIFAR-10: three convolutions, a layer of 256 units
    #[value(name = "lenet")]
    #[allow(clippy::enum_variant_names)] // That is its name.
    LeNet,
    /// The residual network of He et al. (2016): 19 convolutions, 0.27 million weights
    #[value(name = "resnet20")]
    ResNet20,
}

impl Net {
    /// What to call it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// Whether it reads no images smaller than 3×32×32.
    pub fn needs_large_images(self) -> bool {
        matches!(self, Self::Conv | Self::LeNet)
    }

    pub fn is_biotorch(self) -> bool {
        matches!(self, Self::LeNet | Self::ResNet20)
    }

    pub fn prepared(self) -> Prepared {
        match self {
            Self::Shallow | Self::Deep => Prepared::Pixels,
            Self::Small | Self::Conv => Prepared::Whitened,
            Self::LeNet | Self::ResNet20 => Prepared::Standardised,
        }
    }

    /// A new network and what trains it; by its own learning rate, if none is given.
    pub fn trainer(
        self,
        shape: impl Into<Shape>,
        rule: FeedbackRule,
        rate: Option<f64>,
        seed: u64,
    ) -> Result<TrainerBuilder<f32>> {
        let rate = rate.unwrap_or(self.rate(rule));
        let builder = self.layers(Network::builder(shape)).dense(10);
        if self.is_biotorch() {
            let (network, feedback) = glorot::alike(builder, rule, seed)?;
            let (momentum, decay) = (Momentum::Classical(0.9), WeightDecay::L2(1e-4));
            let optimizer = Sgd { learning_rate: rate, momentum, weight_decay: decay };
            let builder = Trainer::builder(network).feedback(feedback).optimizer(optimizer);
            return Ok(builder.batch_size(128).drop_last(true).seed(seed));
        }
        let small = self == Self::Small;
        let init = if small { Init::FanIn } else { Init::nokland(rule) };
        let optimizer: Optimizer = if small {
            Adam { learning_rate: rate, ..Adam::default() }.into()
        } else {
            RmsProp { learning_rate: rate, ..RmsProp::default() }.into()
        };
        let loss = if small { Loss::SoftmaxCrossEntropy } else { Loss::LogisticCrossEntropy };
        let network = builder.init(init).seed(seed).build()?;
        Ok(Trainer::builder(network).rule(rule).loss(loss).optimizer(optimizer).seed(seed))
    }

    /// Nøkland's rate, that of BioTorch's files, and Adam's for the small net.
    pub fn rate(self, rule: FeedbackRule) -> f64 {
        use FeedbackRule::{Dfa, Fa, Ifa};
        match (self, rule) {
            (Self::Small, _) => Adam::default().learning_rate,
            (Self::Conv | Self::Shallow | Self::Deep, _) => 5e-5,
            (Self::LeNet, Dfa | Ifa) => 1e-4,
            (Self::LeNet, Fa) | (Self::ResNet20, Dfa | Ifa) => 1e-3,
            _ => 0.1,
        }
    }

    /// Everything before the output layer.
    fn layers(self, input: NetworkBuilder<f32>) -> NetworkBuilder<f32> {
        match self {
            Self::Small => input
                .conv2d(same(16, 3))
                .tanh()
                .max_pool2d(MaxPool2d::new(2, 2))
                .conv2d(same(32, 3))
                .tanh()
                .max_pool2d(MaxPool2d::new(2, 2))
                .flatten(),
            Self::Conv => [96, 128, 256]
                .into_iter()
                .fold(input, |net, channels| {
                    net.conv2d(same(channels, 5)).tanh().max_pool2d(MaxPool2d::new(3, 2))
                })
                .flatten()
                .dense(2048)
                .tanh()
                .dense(2048)
                .tanh(),
            Self::Shallow => input.dense(1000).tanh(),
            Self::Deep => (0..3).fold(input, |net, _| net.dense(1000).tanh()),
            Self::LeNet => {
                let conv = |channels| Conv2d::new(channels, 3);
                let net = input.conv2d(conv(32)).relu().max_pool2d(MaxPool2d::new(2, 2));
                let net = net.conv2d(conv(64)).relu().max_pool2d(MaxPool2d::new(2, 2));
                let net = net.conv2d(conv(128)).relu().avg_pool2d(AvgPool2d::new(4, 4));
                net.flatten().dense(256).relu()
            }
            Self::ResNet20 => {
                let net = normalised(input, 16, 1).relu();
                let stages = [(16, 1), (32, 2), (64, 2)].into_iter();
                let net = stages.fold(net, |net, (channels, stride)| {
                    [stride, 1, 1].into_iter().fold(net, |net, stride| {
                        let net = normalised(net, channels, stride).relu();
                        normalised(net, channels, 1).skip(2).relu()
                    })
                });
                net.global_avg_pool2d()
            }
        }
    }
}

/// A convolution that keeps the size.
fn same(channels: usize, kernel: usize) -> Conv2d {
    Conv2d { padding: (kernel / 2, kernel / 2), ..Conv2d::new(channels, kernel) }
}

/// A convolution of 3×3 without bias, normalised.
fn normalised(net: NetworkBuilder<f32>, channels: usize, stride: usize) -> NetworkBuilder<f32> {
    let conv = Conv2d { stride: (stride, stride), bias: Bias::Without, ..same(channels, 3) };
    net.conv2d(conv).batch_norm()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// He et al. (2016) have 0.27 million for ResNet-20; in PyTorch both nets have these numbers.
    #[test]
    fn networks_have_as_many_parameters_as_published() {
        for (net, layers, parameters) in [(Net::LeNet, 5, 128_842), (Net::ResNet20, 20, 269_722)] {
            for rule in ["bp", "fa", "dfa", "ifa", "usf", "brsf", "frsf"] {
                let rule = rule.parse().unwrap();
                let trainer = net.trainer((3, 32, 32), rule, None, 0).unwrap().build().unwrap();
                let network = trainer.network();
                assert_eq!(
                    (network.layer_count(), network.parameter_count()),
                    (layers, parameters)
                );
            }
        }
    }
}
