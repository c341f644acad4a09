//! One convolutional network, computed with PyTorch 2.15 as well: forward pass, gradients by
//! backpropagation, and gradients by direct feedback alignment with given feedback.
//!
//! ```python
//! import torch
//! torch.set_default_dtype(torch.float64)
//! fill = lambda *shape: torch.sin(torch.arange(1, 1 + torch.Size(shape).numel()) * 0.7).reshape(shape) * 0.5
//! W1, b1, W2, b2, W3, b3 = fill(3, 2, 3, 3), fill(3), fill(4, 3, 2, 2), fill(4), fill(3, 16), fill(3)
//! B1, B2 = fill(12, 3).flip(0), fill(16, 3).flip(1)
//! x, y = fill(2, 2, 5, 5), torch.tensor([2, 0])
//! P = [p.requires_grad_() for p in (W1, b1, W2, b2, W3, b3)]
//! F = torch.nn.functional
//! h1 = F.max_pool2d(torch.tanh(F.conv2d(x, W1, b1, padding=1)), 3, 2)  # 3 x 2 x 2
//! h2 = torch.tanh(F.conv2d(h1, W2, b2, padding=1, stride=2))            # 4 x 2 x 2
//! z = F.linear(h2.flatten(1), W3, b3)
//! loss = F.cross_entropy(z, y)
//! bp = torch.autograd.grad(loss, P, retain_graph=True)
//! e = torch.autograd.grad(loss, z, retain_graph=True)[0]                # N x n_L
//! # B e arrives at the output of each block and goes back through that block alone.
//! g1 = torch.autograd.grad(h1, [W1, b1], (e @ B1.T).reshape(h1.shape), retain_graph=True)
//! g2 = torch.autograd.grad(h2, [W2, b2], (e @ B2.T).reshape(h2.shape), retain_graph=True)
//! digest = lambda t: [t.flatten()[0].item(), t.flatten()[-1].item(), t.sum().item(), t.abs().sum().item()]
//! ```

#![allow(clippy::too_many_lines)] // One network, all its numbers.

use feedback_alignment::{
    Activations, Conv2d, Deltas, Feedback, FeedbackInit, FeedbackRule, Gradients, Loss, MaxPool2d,
    Network,
    nalgebra::{DMatrix, DVector},
};

/// The snippet's `fill`, row by row.
fn fill(rows: usize, columns: usize) -> DMatrix<f64> {
    let values = (1..=rows * columns).map(|k| 0.5 * (k as f64 * 0.7).sin());
    DMatrix::from_row_iterator(rows, columns, values)
}

fn network() -> Network<f64> {
    let mut network = Network::builder((2, 5, 5))
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(3, 3) })
        .tanh()
        .max_pool2d(MaxPool2d::new(3, 2))
        .conv2d(Conv2d { padding: (1, 1), stride: (2, 2), ..Conv2d::new(4, 2) })
        .tanh()
        .flatten()
        .dense(3)
        .build()
        .unwrap();
    for (layer, (rows, columns)) in [(3, 18), (4, 12), (3, 16)].into_iter().enumerate() {
        network.set_weights(layer, fill(rows, columns)).unwrap();
        let bias = fill(rows, 1);
        network.set_bias(layer, DVector::from_column_slice(bias.as_slice())).unwrap();
    }
    network
}

/// First and last element, sum, and sum of magnitudes.
fn assert_digest(found: &[f64], expected: [f64; 4], what: &str) {
    let digest = [
        found[0],
        found[found.len() - 1],
        found.iter().sum(),
        found.iter().map(|v| v.abs()).sum::<f64>(),
    ];
    for (found, expected) in digest.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-14, "{what}: {digest:?}");
    }
}

#[test]
fn forward_pass_bp_and_dfa_are_those_of_pytorch() {
    let network = network();
    let x = fill(2, 50).transpose();
    let labels = [2, 0];
    let mut activations = Activations::new();
    network.forward(&x, &mut activations).unwrap();
    let logits = [
        0.359_496_920_713_593_1,
        0.591_679_053_545_577_8,
        0.434_392_969_372_011_6,
        0.371_105_086_826_014_6,
        0.549_301_923_390_901_4,
        0.405_579_276_187_430_9,
    ];
    for (found, expected) in activations.logits().unwrap().iter().zip(logits) {
        assert!((found - expected).abs() < 1e-15);
    }

    let mut deltas = Deltas::new();
    let mut gradients = Gradients::new();
    let mut learn = |feedback: &Feedback<f64>| {
        let loss = Loss::SoftmaxCrossEntropy.error(&labels, &activations, &mut deltas).unwrap();
        assert!((loss - 1.151_667_953_729_486_3).abs() < 1e-15, "{loss}");
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        (0..3)
            .map(|l| {
                let weights = gradients.weights(l).unwrap().transpose().as_slice().to_vec();
                (weights, gradients.bias(l).unwrap().unwrap().as_slice().to_vec())
            })
            .collect::<Vec<_>>()
    };

    let output = (
        [-0.102_546_828_137_542_98, -0.051_320_430_085_129_88, 0.0, 4.528_260_470_049_156],
        [-0.195_467_766_624_788_85, -0.178_392_785_879_003_9, 0.0, 0.747_721_105_007_585_4],
    );
    let bp = learn(&Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::Nokland, 0).unwrap());
    let expected = [
        (
            [
                0.069_764_663_930_056_62,
                0.011_918_921_545_233_436,
                0.288_589_559_011_399_2,
                1.460_840_299_286_078,
            ],
            [
                -0.021_431_575_777_522_072,
                0.009_065_388_820_203_552,
                -0.006_460_239_667_614_595,
                0.036_402_911_887_429_55,
            ],
        ),
        (
            [
                0.080_705_568_166_647_17,
                0.103_347_040_073_723_74,
                0.618_186_781_925_424_1,
                2.676_507_516_949_692,
            ],
            [
                0.102_482_052_452_185_06,
                0.238_348_886_934_871_44,
                0.288_646_431_234_260_2,
                0.486_193_715_901_771_9,
            ],
        ),
        output,
    ];
    for (l, (w, b)) in expected.into_iter().enumerate() {
        assert_digest(&bp[l].0, w, &format!("BP, W_{}", l + 1));
        assert_digest(&bp[l].1, b, &format!("BP, b_{}", l + 1));
    }

    let flipped = |m: DMatrix<f64>, by_rows: bool| {
        DMatrix::from_fn(m.nrows(), m.ncols(), |i, j| {
            if by_rows { m[(m.nrows() - 1 - i, j)] } else { m[(i, m.ncols() - 1 - j)] }
        })
    };
    let matrices = vec![flipped(fill(12, 3), true), flipped(fill(16, 3), false)];
    let dfa = learn(&Feedback::from_matrices(&network, FeedbackRule::Dfa, matrices).unwrap());
    let expected = [
        (
            [
                0.042_670_714_434_255_914,
                0.016_202_423_235_558_85,
                0.214_895_334_704_466_23,
                1.189_085_500_952_187,
            ],
            [
                -0.068_963_905_948_691_83,
                0.053_725_549_170_087_08,
                -0.004_328_891_725_914_857,
                0.133_598_920_171_468_8,
            ],
        ),
        (
            [
                0.024_557_857_589_042_65,
                0.029_777_772_794_526_963,
                0.124_877_058_313_805_44,
                0.948_366_264_350_488,
            ],
            [
                0.051_058_123_260_075_04,
                0.053_581_791_157_313_007,
                0.080_705_985_450_142_6,
                0.128_573_843_384_633_5,
            ],
        ),
        output,
    ];
    for (l, (w, b)) in expected.into_iter().enumerate() {
        assert_digest(&dfa[l].0, w, &format!("DFA, W_{}", l + 1));
        assert_digest(&dfa[l].1, b, &format!("DFA, b_{}", l + 1));
    }
}
