//! Networks that several tests use.

use feedback_alignment::{Conv2d, MaxPool2d, Network};

/// Widths of which no two are equal, with a layer without bias.
pub fn dense_net() -> Network<f64> {
    let builder = Network::builder(7).dense(6).tanh().dense_without_bias(5).logistic();
    builder.dense(4).tanh().dense(3).seed(3).build().unwrap()
}

/// Blocks that are more than a layer and an activation: with dropout, batch normalisation, pooling.
pub fn conv_net() -> Network<f64> {
    Network::builder((1, 8, 8))
        .dropout(0.1)
        .conv2d(Conv2d::new(3, 3))
        .batch_norm()
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d::new(4, 2))
        .tanh()
        .dropout(0.2)
        .dense(6)
        .logistic()
        .dense(3)
        .seed(2)
        .build()
        .unwrap()
}

/// Residual connections past one layer and two, before and after pooling, from the input and to a
/// smaller image of more channels, and layer normalisation.
pub fn residual_net() -> Network<f64> {
    let same = Conv2d { padding: (1, 1), ..Conv2d::new(2, 3) };
    Network::builder((2, 6, 6))
        .dropout(0.1)
        .conv2d(same)
        .tanh()
        .skip(1)
        .conv2d(Conv2d { stride: (2, 2), padding: (1, 1), ..Conv2d::new(5, 3) })
        .layer_norm()
        .skip(1)
        .skip(2)
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 1))
        .dense(20)
        .logistic()
        .skip(1)
        .dense(3)
        .seed(2)
        .build()
        .unwrap()
}
