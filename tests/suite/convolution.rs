//! Convolution, pooling, batch normalisation and dropout: against naive loops, against central
//! differences, against dense layers, and under every rule.

use crate::helpers::{Pass, labels, random};

use feedback_alignment::{
    Activations, AvgPool2d, Bias, Conv2d, Deltas, FastGradientSign, Feedback, FeedbackInit,
    FeedbackRule, GradientCheck, Init, Loss, MaxPool2d, Network, NetworkBuilder, Operation,
    OptimizerState, Part, Sgd, Trainer,
    nalgebra::{DMatrix, DVector},
};
use proptest::prelude::*;

fn pass(
    network: &Network<f64>,
    feedback: &Feedback<f64>,
    x: &DMatrix<f64>,
    y: &[usize],
) -> Pass<f64> {
    let mut pass = Pass::new(1);
    pass.run(network, feedback, x, y);
    pass
}

fn feedback(network: &Network<f64>, rule: FeedbackRule) -> Feedback<f64> {
    Feedback::new(network, rule, FeedbackInit::Lillicrap, 5).unwrap()
}

/// An image, kernels over it, and how they move.
#[derive(Clone, Copy, Debug)]
struct Case {
    image: (usize, usize, usize),
    conv: Conv2d,
}

fn any_case() -> impl Strategy<Value = Case> {
    let sides = (1..9_usize, 1..9_usize);
    (
        1..4_usize,
        sides,
        1..4_usize,
        (1..5_usize, 1..5_usize),
        (1..4_usize, 1..4_usize),
        (0..3_usize, 0..3_usize),
    )
        .prop_map(|(channels, (height, width), outputs, kernel, stride, padding)| Case {
            image: (channels, height, width),
            conv: Conv2d { kernel, stride, padding, ..Conv2d::new(outputs, 1) },
        })
        .prop_filter("the kernel fits", |Case { image, conv }| {
            image.1 + 2 * conv.padding.0 >= conv.kernel.0
                && image.2 + 2 * conv.padding.1 >= conv.kernel.1
        })
}

/// The definition of the convolution, as six loops; returns the output and its height and width.
fn naive_convolution(
    case: Case,
    w: &DMatrix<f64>,
    b: &DVector<f64>,
    x: &[f64],
) -> (Vec<f64>, usize, usize) {
    let Case { image: (channels, height, width), conv } = case;
    let (rows, columns) = (
        (height + 2 * conv.padding.0 - conv.kernel.0) / conv.stride.0 + 1,
        (width + 2 * conv.padding.1 - conv.kernel.1) / conv.stride.1 + 1,
    );
    let mut a = Vec::new();
    for o in 0..conv.channels {
        for y in 0..rows {
            for z in 0..columns {
                let mut sum = b[o];
                for c in 0..channels {
                    for i in 0..conv.kernel.0 {
                        for j in 0..conv.kernel.1 {
                            let row = (y * conv.stride.0 + i).checked_sub(conv.padding.0);
                            let column = (z * conv.stride.1 + j).checked_sub(conv.padding.1);
                            if let (Some(row), Some(column)) = (row, column)
                                && row < height
                                && column < width
                            {
                                sum += w[(o, (c * conv.kernel.0 + i) * conv.kernel.1 + j)]
                                    * x[(c * height + row) * width + column];
                            }
                        }
                    }
                }
                a.push(sum);
            }
        }
    }
    (a, rows, columns)
}

/// The matrix that does to a whole image what the convolution does.
fn toeplitz(case: Case, w: &DMatrix<f64>) -> DMatrix<f64> {
    let inputs = case.image.0 * case.image.1 * case.image.2;
    let zero = DVector::zeros(case.conv.channels);
    let columns: Vec<DVector<f64>> = (0..inputs)
        .map(|index| {
            let mut x = vec![0.0; inputs];
            x[index] = 1.0;
            DVector::from_vec(naive_convolution(case, w, &zero, &x).0)
        })
        .collect();
    DMatrix::from_columns(&columns)
}

fn close(found: &DMatrix<f64>, expected: &DMatrix<f64>) -> bool {
    found.shape() == expected.shape() && (found - expected).amax() < 1e-12
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Forward pass, weight gradient, and the way back, for random shapes: a convolution is the
    /// dense layer of its unrolled weight, with gradients summed over what shares a weight.
    #[test]
    fn a_convolution_is_a_dense_layer_with_shared_weights(
        case in any_case(), samples in 1..4_usize, seed in 0..1000_u64,
    ) {
        let Case { image, conv } = case;
        let inputs = image.0 * image.1 * image.2;
        let network = Network::<f64>::builder(image).conv2d(conv).tanh().dense(3).seed(seed).build().unwrap();
        let (w, b) = (&network.layer(0).unwrap().weights().into_owned(), &network.layer(0).unwrap().bias().unwrap().into_owned());
        let (x, y) = (random(inputs, samples, seed), labels(samples, 3));

        let unrolled = toeplitz(case, w);
        let units = unrolled.nrows();
        let mut dense = Network::<f64>::builder(inputs).dense(units).tanh().dense(3).build().unwrap();
        dense.set_weights(0, unrolled).unwrap();
        let plane = units / conv.channels;
        dense.set_bias(0, DVector::from_fn(units, |unit, _| b[unit / plane])).unwrap();
        let top = network.layer(1).unwrap();
        dense.set_weights(1, top.weights().into_owned()).unwrap();
        dense.set_bias(1, top.bias().unwrap().into_owned()).unwrap();

        for rule in [FeedbackRule::Bp, FeedbackRule::Dfa, FeedbackRule::Ifa] {
            let here = feedback(&network, rule);
            let matrices = here.matrix(0).unwrap().into_iter().collect();
            let there = Feedback::from_matrices(&dense, rule, matrices).unwrap();
            let (here, there) = (pass(&network, &here, &x, &y), pass(&dense, &there, &x, &y));
            let a = here.activations.pre_activation(0).unwrap().into_owned();
            prop_assert!(close(&a, &there.activations.pre_activation(0).unwrap().into_owned()));
            let delta = here.deltas.delta(0).unwrap().into_owned();
            prop_assert!(close(&delta, &there.deltas.delta(0).unwrap().into_owned()), "{}", rule);
            for (column, x) in x.column_iter().enumerate() {
                let (expected, _, _) = naive_convolution(case, w, b, x.as_slice());
                prop_assert!((a.column(column) - DVector::from_vec(expected)).amax() < 1e-12);
            }

            // Sum the dense gradient over the entries that one kernel weight stands in.
            let full = there.gradients.weights(0).unwrap();
            let here_full = here.gradients.weights(0).unwrap().into_owned();
            let mut shared = DMatrix::zeros(w.nrows(), w.ncols());
            for o in 0..w.nrows() {
                for k in 0..w.ncols() {
                    let mut only = DMatrix::zeros(w.nrows(), w.ncols());
                    only[(o, k)] = 1.0;
                    shared[(o, k)] = toeplitz(case, &only).dot(&full);
                }
            }
            prop_assert!(close(&here_full, &shared), "{}", rule);
            let bias = there.gradients.bias(0).unwrap().unwrap();
            let summed = DVector::from_fn(conv.channels, |o, _| bias.rows(o * plane, plane).sum());
            prop_assert!((here.gradients.bias(0).unwrap().unwrap() - summed).amax() < 1e-12);
        }
    }

    /// `⟨W ∗ x, y⟩ = ⟨x, Wᵀ ∗ y⟩`, through the input gradient of a linear convolution.
    #[test]
    fn the_transposed_convolution_is_the_transpose(case in any_case(), seed in 0..1000_u64) {
        let Case { image, conv } = case;
        let inputs = image.0 * image.1 * image.2;
        let network = Network::<f64>::builder(image)
            .conv2d(Conv2d { bias: Bias::Without, ..conv })
            .seed(seed)
            .build()
            .unwrap();
        let x = random(inputs, 2, seed);
        let y = random(network.output_len(), 2, seed + 1);
        let mut attack = FastGradientSign::new(&network, 0.0).unwrap();
        // With squared error the delta at the output is (a − y)/N: feed what makes it y.
        let a = network.predict(&x).unwrap();
        let back = attack.input_gradient(&network, Loss::MeanSquaredError, &x, &(&a - &y * 2.0)).unwrap();
        prop_assert!((a.dot(&y) - x.dot(&back)).abs() < 1e-10);
    }
}

/// The naive definition of pooling over one plane.
fn naive_pool(
    x: &[f64],
    (height, width): (usize, usize),
    kernel: (usize, usize),
    stride: (usize, usize),
    of: fn(&[f64]) -> f64,
) -> Vec<f64> {
    let mut y = Vec::new();
    for top in (0..=height - kernel.0).step_by(stride.0) {
        for left in (0..=width - kernel.1).step_by(stride.1) {
            let window: Vec<f64> = (0..kernel.0 * kernel.1)
                .map(|k| x[(top + k / kernel.1) * width + left + k % kernel.1])
                .collect();
            y.push(of(&window));
        }
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn pooling_agrees_with_naive_loops(
        channels in 1..4_usize, height in 1..9_usize, width in 1..9_usize,
        kernel in (1..4_usize, 1..4_usize), stride in (1..4_usize, 1..4_usize), seed in 0..1000_u64,
    ) {
        prop_assume!(kernel.0 <= height && kernel.1 <= width);
        let identity = |builder: NetworkBuilder<f64>| {
            let mut network = builder.build().unwrap();
            let units = network.layer(0).unwrap().weights().nrows();
            network.set_weights(0, DMatrix::identity(units, units)).unwrap();
            network
        };
        let start = || Network::<f64>::builder((channels, height, width))
            .conv2d(Conv2d { bias: Bias::Without, ..Conv2d::new(channels, 1) });
        let max = identity(start().max_pool2d(MaxPool2d { kernel, stride }).dense(2));
        let mean = identity(start().avg_pool2d(AvgPool2d { kernel, stride }).dense(2));
        let x = random(channels * height * width, 2, seed);
        for (network, of) in [
            (&max, (|w| w.iter().copied().fold(f64::MIN, f64::max)) as fn(&[f64]) -> f64),
            (&mean, |w| w.iter().sum::<f64>() / w.len() as f64),
        ] {
            let mut activations = Activations::new();
            network.forward(&x, &mut activations).unwrap();
            let expected: Vec<f64> = x
                .as_slice()
                .chunks_exact(height * width)
                .flat_map(|plane| naive_pool(plane, (height, width), kernel, stride, of))
                .collect();
            let found = activations.output(0).unwrap();
            let found: Vec<f64> = found.iter().copied().collect();
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-14);
            }
        }
    }
}

/// A network with everything in it, over 2 × 7 × 6 images.
fn everything(max: bool) -> Network<f64> {
    let builder = Network::<f64>::builder((2, 7, 6))
        .dropout(0.2)
        .conv2d(Conv2d { padding: (1, 2), ..Conv2d::new(3, 3) })
        .batch_norm()
        .tanh();
    let builder = if max {
        builder.max_pool2d(MaxPool2d { kernel: (3, 2), stride: (2, 2) })
    } else {
        builder.avg_pool2d(AvgPool2d { kernel: (3, 2), stride: (2, 2) })
    };
    builder
        .dropout(0.3)
        .conv2d(Conv2d { stride: (2, 1), bias: Bias::Without, ..Conv2d::new(4, 2) })
        .softplus()
        .flatten()
        .dense(6)
        .batch_norm()
        .tanh()
        .dense(3)
        .seed(4)
        .build()
        .unwrap()
}

/// Oracle 1 for whole convolutional networks, through dropout, normalisation and pooling.
#[test]
fn bp_gradients_of_convolutional_nets_match_central_differences() {
    for max in [true, false] {
        let network = everything(max);
        let (x, y) = (random(84, 4, 3), labels(4, 3));
        let report = GradientCheck::default().run(&network, Loss::SoftmaxCrossEntropy, &x, &y);
        let report = report.unwrap();
        assert!(report.relative_difference() <= 1e-6, "{report}");
        // A step may well give one of the windows another winner, but not often.
        let checked: usize = report.tensors.iter().map(|tensor| tensor.checked).sum();
        assert!(checked >= network.parameter_count() - 2, "{report}");
    }
}

/// `∂J/∂x` is that of backpropagation, through dropout on the input too.
#[test]
fn the_input_gradient_matches_central_differences() {
    let network = everything(true);
    let (x, y) = (random(84, 4, 3), labels(4, 3));
    let attack = || FastGradientSign::new(&network, 0.1).unwrap();
    let mut masked = Activations::<f64>::seeded(0);
    network.forward(&x, &mut masked).unwrap();
    let at = |index: usize, by: f64| {
        let mut x = x.clone();
        x[index] += by;
        let (mut activations, mut deltas) = (Activations::seeded(0), Deltas::new());
        network.forward(&x, &mut activations).unwrap();
        Loss::SoftmaxCrossEntropy.error(&y, &activations, &mut deltas).unwrap()
    };
    let found = attack().input_gradient(&network, Loss::SoftmaxCrossEntropy, &x, &y).unwrap();
    let largest = found.amax();
    for index in 0..x.len() {
        let numeric = (at(index, 1e-5) - at(index, -1e-5)) / 2e-5;
        assert!((found[index] - numeric).abs() <= 1e-6 * largest, "{index}");
    }
    let perturbed = attack().perturb(&network, Loss::SoftmaxCrossEntropy, &x, &y).unwrap();
    for (index, step) in (perturbed - &x).iter().enumerate() {
        let expected = if found[index] == 0.0 { 0.0 } else { 0.1 * found[index].signum() };
        assert!((step - expected).abs() < 1e-12);
    }
    assert!(found.iter().any(|&slope| slope == 0.0), "dropped pixels have no slope");
}

/// From zero weights `∂J/∂x = 0`, so the batch stays as it is.
#[test]
fn from_zero_weights_nothing_is_perturbed() {
    let network =
        Network::<f64>::builder(4).dense(3).tanh().dense(2).init(Init::Zeros).build().unwrap();
    let x = random(4, 5, 1);
    let mut attack = FastGradientSign::new(&network, 0.08).unwrap();
    assert_eq!(attack.perturb(&network, Loss::LogisticCrossEntropy, &x, &labels(5, 2)).unwrap(), x);
    assert!(FastGradientSign::new(&network, -0.1).is_err());
}

/// Adversarial training learns the perturbed batch, and nothing else.
#[test]
fn adversarial_training_is_training_on_perturbed_batches() {
    for rule in FeedbackRule::nokland() {
        let network =
            Network::<f64>::builder(4).dense(6).tanh().dense(5).tanh().dense(2).build().unwrap();
        let builder = || Trainer::builder(network.clone()).rule(rule);
        let mut adversarial = builder().adversarial(0.08).build().unwrap();
        let mut by_hand = builder().build().unwrap();
        let mut attack = FastGradientSign::new(&network, 0.08).unwrap();
        for step in 0..5 {
            let (x, y) = (random(4, 6, step), labels(6, 2));
            adversarial.step(&x, &y).unwrap();
            let perturbed = attack.perturb(by_hand.network(), by_hand.loss(), &x, &y).unwrap();
            by_hand.step(&perturbed, &y).unwrap();
            assert_eq!(adversarial.network(), by_hand.network(), "{rule}");
        }
    }
}

/// Convolutional DFA is direct: every position of a channel has feedback of its own, unlike where
/// one signal for each channel is tiled over its positions.
#[test]
fn positions_of_a_channel_receive_different_feedback() {
    let network =
        Network::<f64>::builder((1, 6, 6)).conv2d(Conv2d::new(2, 3)).dense(3).build().unwrap();
    let feedback = feedback(&network, FeedbackRule::Dfa);
    assert_eq!(feedback.matrix(0).unwrap().unwrap().shape(), (2 * 4 * 4, 3));
    let pass = pass(&network, &feedback, &random(36, 2, 1), &labels(2, 3));
    let delta = pass.deltas.delta(0).unwrap();
    for plane in delta.column(0).as_slice().chunks_exact(16) {
        let distinct = plane.iter().filter(|&&v| (v - plane[0]).abs() > 1e-9).count();
        assert!(distinct >= 14, "{plane:?}");
    }
}

/// The indirect route through pooling: the relay picks the winners of the forward pass.
#[test]
fn ifa_climbs_through_pooling() {
    let network = Network::<f64>::builder((1, 5, 5))
        .conv2d(Conv2d::new(2, 2))
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(3, 2) })
        .avg_pool2d(AvgPool2d::new(3, 1))
        .tanh()
        .dense(3)
        .build()
        .unwrap();
    let feedback = feedback(&network, FeedbackRule::Ifa);
    assert!(feedback.matrix(1).unwrap().is_none());
    let x = random(25, 1, 2);
    let pass = pass(&network, &feedback, &x, &[1]);
    let (delta, a) = (pass.deltas.delta(0).unwrap(), pass.activations.pre_activation(0).unwrap());

    // relay_1: of each 2 × 2 window of the 4 × 4 planes the place where tanh a is largest.
    let mut relayed = Vec::new();
    for plane in 0..2 {
        for (top, left) in [(0, 0), (0, 2), (2, 0), (2, 2)] {
            let winner = [(0, 0), (0, 1), (1, 0), (1, 1)]
                .map(|(i, j)| plane * 16 + (top + i) * 4 + left + j)
                .into_iter()
                .max_by(|&p, &q| a[p].total_cmp(&a[q]))
                .unwrap();
            relayed.push(delta[winner]);
        }
    }
    // W_2 without its bias, then relay_2, the mean of the one 3 × 3 window of each plane.
    let case = Case { image: (2, 2, 2), conv: Conv2d { padding: (1, 1), ..Conv2d::new(3, 2) } };
    let w = network.layer(1).unwrap().weights().into_owned();
    let (up, ..) = naive_convolution(case, &w, &DVector::zeros(3), &relayed);
    let arrived: Vec<f64> =
        up.chunks_exact(9).map(|plane| plane.iter().sum::<f64>() / 9.0).collect();
    // backward_2: f' at the mean, then an equal share to each pixel of the window.
    let (delta, a) = (pass.deltas.delta(1).unwrap(), pass.activations.pre_activation(1).unwrap());
    for (channel, arrived) in arrived.iter().enumerate() {
        let mean = a.column(0).rows(channel * 9, 9).mean();
        for position in 0..9 {
            let expected = arrived * (1.0 - mean.tanh().powi(2)) / 9.0;
            assert!((delta[channel * 9 + position] - expected).abs() < 1e-14);
        }
    }
}

/// Oracle 17, and the expectation.
#[test]
fn dropout_masks_activations_and_deltas_alike() {
    let network =
        Network::<f64>::builder(20).dense(40).tanh().dropout(0.4).dense(3).build().unwrap();
    let (x, y) = (random(20, 1, 1), [2]);
    for rule in FeedbackRule::nokland() {
        let pass = pass(&network, &feedback(&network, rule), &x, &y);
        let h = pass.activations.output(0).unwrap();
        let dropped = h.iter().filter(|&&h| h == 0.0).count();
        assert!((5..30).contains(&dropped), "{dropped} of 40 units dropped");
        for unit in 0..40 {
            let a = pass.activations.pre_activation(0).unwrap()[unit];
            let gradient = pass.gradients.weights(0).unwrap();
            let row = gradient.row(unit).amax();
            if h[unit] == 0.0 {
                assert_eq!(
                    (row, pass.gradients.bias(0).unwrap().unwrap()[unit]),
                    (0.0, 0.0),
                    "{rule}"
                );
            } else {
                assert!((h[unit] - a.tanh() / 0.6).abs() < 1e-15);
                assert!(row > 0.0, "{rule}");
            }
        }
    }
    // Over many masks the mean is what evaluation computes.
    let mut activations = Activations::seeded(3);
    let mut sum = DVector::zeros(40);
    for _ in 0..4000 {
        network.forward(&x, &mut activations).unwrap();
        sum += activations.output(0).unwrap().column(0);
    }
    let clean = activations.pre_activation(0).unwrap().map(f64::tanh);
    for unit in 0..40 {
        let error = (sum[unit] / 4000.0 - clean[unit]).abs();
        assert!(error < 5.0 * clean[unit].abs() * (0.4_f64 / 0.6 / 4000.0).sqrt(), "unit {unit}");
    }
    // And evaluation itself drops nothing.
    let w = network.layer(1).unwrap();
    let expected = w.weights() * &clean + w.bias().unwrap();
    assert!((network.predict(&x).unwrap() - expected).amax() < 1e-14);
}

#[test]
fn batch_norm_in_evaluation_is_the_affine_map_of_its_running_statistics() {
    let mut network = Network::<f64>::builder((2, 3, 3))
        .conv2d(Conv2d::new(2, 2))
        .batch_norm()
        .dense(2)
        .build()
        .unwrap();
    let [scale, shift, mean, variance] =
        [[2.0, -1.0], [0.5, 0.1], [0.3, -0.4], [4.0, 0.25]].map(|v| DVector::from_row_slice(&v));
    for (part, values) in [
        (Part::Scale, &scale),
        (Part::Shift, &shift),
        (Part::RunningMean, &mean),
        (Part::RunningVariance, &variance),
    ] {
        network.set_parameter(0, part, values.as_slice()).unwrap();
    }
    let x = random(18, 3, 1);
    let mut activations = Activations::new();
    network.forward(&x, &mut activations).unwrap();
    let h = DMatrix::from_fn(8, 3, |row, sample| {
        let c = row / 4;
        let a = activations.pre_activation(0).unwrap()[(row, sample)];
        scale[c] * (a - mean[c]) / (variance[c] + 1e-5).sqrt() + shift[c]
    });
    let top = network.layer(1).unwrap();
    let expected =
        top.weights() * h + DMatrix::from_columns(&vec![top.bias().unwrap().into_owned(); 3]);
    assert!((network.predict(&x).unwrap() - expected).amax() < 1e-13);

    // In training it is normalised by the batch itself...
    let h = activations.output(0).unwrap();
    for c in 0..2 {
        let values = h.rows(c * 4, 4);
        let mean = values.mean();
        assert!((mean - shift[c]).abs() < 1e-14);
        let deviation = (values.map(|v| (v - mean).powi(2)).mean()).sqrt();
        assert!((deviation / scale[c].abs() - 1.0).abs() < 1e-3);
    }
    // ... and the running statistics follow with the optimiser's step.
    let a = activations.pre_activation(0).unwrap().rows(0, 4).into_owned();
    let batch_mean = a.mean();
    let batch_variance = a.map(|v| (v - batch_mean).powi(2)).sum() / 11.0;
    let before = network.clone();
    let gradients =
        pass(&network, &feedback(&network, FeedbackRule::Bp), &x, &labels(3, 2)).gradients;
    assert_eq!(network, before);
    OptimizerState::new(&network, Sgd::default()).unwrap().step(&mut network, &gradients).unwrap();
    let running = |part| network.parameters().get(0, part).unwrap()[0];
    assert!((running(Part::RunningMean) - (0.9 * 0.3 + 0.1 * batch_mean)).abs() < 1e-14);
    assert!((running(Part::RunningVariance) - (0.9 * 4.0 + 0.1 * batch_variance)).abs() < 1e-14);
}

/// The convolutional network of Nøkland (2016) for CIFAR-10.
fn nokland() -> NetworkBuilder<f32> {
    let conv = |channels| Conv2d { padding: (2, 2), ..Conv2d::new(channels, 5) };
    Network::<f32>::builder((3, 32, 32))
        .conv2d(conv(96))
        .tanh()
        .max_pool2d(MaxPool2d::new(3, 2))
        .conv2d(conv(128))
        .tanh()
        .max_pool2d(MaxPool2d::new(3, 2))
        .conv2d(conv(256))
        .tanh()
        .max_pool2d(MaxPool2d::new(3, 2))
        .flatten()
        .dense(2048)
        .tanh()
        .dense(2048)
        .tanh()
        .dense(10)
}

#[test]
fn the_papers_network_has_its_shapes() {
    let network = nokland().build().unwrap();
    assert_eq!(network.parameter_count(), 10_071_562);
    let feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 0).unwrap();
    let rows = (0..5).map(|l| feedback.matrix(l).unwrap().unwrap().nrows());
    assert_eq!(rows.collect::<Vec<_>>(), [21_600, 6_272, 2_304, 2_048, 2_048]);
    let fa = Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::Nokland, 0).unwrap();
    assert_eq!(fa.matrix(0).unwrap().unwrap().shape(), (128, 96 * 25));
    let bound = 1.0 / (96.0_f32 * 25.0).sqrt();
    assert!(fa.matrix(0).unwrap().unwrap().amax() <= bound);
}

#[test]
fn shapes_that_do_not_fit_are_refused_by_name() {
    let refused = |builder: NetworkBuilder<f32>| builder.dense(2).build().unwrap_err().to_string();
    let image = || Network::<f32>::builder((3, 4, 4));
    let message = refused(image().conv2d(Conv2d::new(2, 5)));
    assert!(message.contains("5×5") && message.contains("3×4×4"), "{message}");
    let message = refused(image().conv2d(Conv2d { stride: (0, 1), ..Conv2d::new(2, 3) }));
    assert!(message.contains("stride of 0") && message.contains("3×4×4"), "{message}");
    let message = refused(image().conv2d(Conv2d::new(2, 3)).max_pool2d(MaxPool2d::new(3, 1)));
    assert!(message.contains("max-pool2d 3×3") && message.contains("2×2×2"), "{message}");
    let message = refused(image().conv2d(Conv2d::new(2, 3)).avg_pool2d(AvgPool2d::new(2, 0)));
    assert!(message.contains("avg-pool2d 2×2, stride 0×0"), "{message}");
    refused(image().conv2d(Conv2d::new(2, 0)));
    refused(image().conv2d(Conv2d::new(0, 1)));
    refused(image().conv2d(Conv2d { padding: (usize::MAX, 0), ..Conv2d::new(1, 1) }));
    refused(image().dropout(1.0));
    refused(image().dense(3).dropout(f64::NAN));
    refused(image().dense(3).batch_norm_with(0.0, 1e-5));
    refused(image().dense(3).batch_norm_with(0.1, 0.0));
    refused(image().batch_norm());
    refused(Network::<f32>::builder((3, 0, 4)));
}

#[test]
fn a_single_value_cannot_be_normalised() {
    use feedback_alignment::{Dataset, Error};
    let network = Network::<f64>::builder(4).dense(3).batch_norm().tanh().dense(2).build().unwrap();
    let mut trainer = Trainer::builder(network).batch_size(4).build().unwrap();
    let before = trainer.network().clone();
    let data = Dataset::new(random(4, 9, 1), labels(9, 2)).unwrap();
    let message = trainer.epoch(&data).unwrap_err().to_string();
    assert!(message.contains("9 samples in batches of 4"), "{message}");
    let single = trainer.step(&random(4, 1, 1), &[0]);
    assert!(matches!(single, Err(Error::BatchTooSmall { .. })));
    assert_eq!(*trainer.network(), before);
    // Evaluation has running statistics, a convolution has positions.
    trainer.evaluate(&data.subset(&[0]).unwrap()).unwrap();
    let conv = Network::<f64>::builder((1, 2, 2)).conv2d(Conv2d::new(2, 1)).batch_norm().dense(2);
    Trainer::builder(conv.build().unwrap()).build().unwrap().step(&random(4, 1, 1), &[0]).unwrap();
}

/// Every rule trains a convolutional network with everything in it; what each reads stays apart.
#[test]
fn every_rule_trains_a_convolutional_network() {
    for rule in FeedbackRule::nokland() {
        let network = Network::<f64>::builder((1, 6, 6))
            .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(4, 3) })
            .batch_norm()
            .tanh()
            .max_pool2d(MaxPool2d::new(2, 2))
            .conv2d(Conv2d::new(6, 2))
            .tanh()
            .dense(12)
            .tanh()
            .dense(3)
            .build()
            .unwrap();
        assert!(matches!(network.layer(0).unwrap().operations()[2], Operation::Pool2d(_)));
        let sgd = Sgd { learning_rate: 0.2, ..Sgd::default() };
        let mut trainer = Trainer::builder(network).rule(rule).optimizer(sgd).build().unwrap();
        let (x, y) = (random(36, 12, 1), labels(12, 3));
        let first = trainer.step(&x, &y).unwrap().loss;
        let last = (0..150).map(|_| trainer.step(&x, &y).unwrap().loss).last().unwrap();
        assert!(last < 0.5 * first, "{rule}: {first} to {last}");
    }
}

/// The trainer varies the images of every epoch, by seed and epoch, and learns the varied ones.
#[test]
fn augmented_epochs_learn_varied_images() {
    use feedback_alignment::{
        Dataset,
        data::{Augmentation, Flip},
    };
    let augmentation = Augmentation { shape: (1, 4, 4), flip: Flip::Horizontal, crop_padding: 1 };
    let data = Dataset::new(random(16, 10, 1), labels(10, 3)).unwrap();
    let network = Network::<f64>::builder((1, 4, 4))
        .conv2d(Conv2d::new(2, 3))
        .tanh()
        .dense(3)
        .build()
        .unwrap();
    let builder = || Trainer::builder(network.clone()).batch_size(10).seed(3);
    let mut trainer = builder().augmentation(augmentation).build().unwrap();
    let mut by_hand = builder().build().unwrap();
    for epoch in 0..4 {
        trainer.epoch(&data).unwrap();
        let batch = data.batches(10, 3, epoch).unwrap().next().unwrap();
        let mut x = batch.inputs().clone();
        // Each column is a sample of the dataset; find which, since the variation depends on it.
        let all = data.inputs();
        let which: Vec<usize> = x
            .column_iter()
            .map(|column| all.column_iter().position(|other| other == column).unwrap())
            .collect();
        augmentation.augment(3, epoch, &which, &mut x).unwrap();
        assert_ne!(x, *batch.inputs());
        by_hand.step(&x, batch.targets()).unwrap();
        assert_eq!(trainer.network(), by_hand.network());
    }
    let wrong = Augmentation { shape: (1, 5, 5), ..augmentation };
    assert!(builder().augmentation(wrong).build().is_err());
}

/// Samples, columns of gradients and windows are shared out among threads; sums are not.
#[cfg(feature = "parallel")]
#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let x = DMatrix::from_fn(3 * 16 * 16, 30, |i, j| ((i * 31 + j * 17) % 29) as f32 / 29.0);
    let train = |rule: FeedbackRule, threads: usize| {
        let network = Network::<f32>::builder((3, 16, 16))
            .conv2d(Conv2d { padding: (2, 2), ..Conv2d::new(24, 5) })
            .batch_norm()
            .tanh()
            .max_pool2d(MaxPool2d::new(3, 2))
            .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(20, 3) })
            .tanh()
            .dropout(0.2)
            .dense(10)
            .build()
            .unwrap();
        let mut trainer = Trainer::builder(network).rule(rule).build().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for _ in 0..3 {
            pool.install(|| trainer.step(&x, &labels(30, 10))).unwrap();
        }
        trainer.into_network()
    };
    for rule in FeedbackRule::nokland() {
        let alone = train(rule, 1);
        for threads in 2..5 {
            assert_eq!(train(rule, threads), alone, "{rule}, {threads} threads");
        }
    }
}
