//! Sums stay exact however long they are: rounding does not grow with the number of terms.

use feedback_alignment::{
    Activations, AvgPool2d, Bias, Conv2d, Deltas, Feedback, FeedbackInit, FeedbackRule, Gradients,
    Loss, Network, OptimizerState, Part, Sgd, Targets, Trainer,
    nalgebra::{DMatrix, DVector},
};

/// The gradients of one pass under backpropagation, with the network's output.
fn gradients<'a>(
    network: &Network<f32>,
    loss: Loss,
    x: &DMatrix<f32>,
    targets: impl Into<Targets<'a, f32>>,
) -> (Activations<f32>, Gradients<f32>) {
    let feedback = Feedback::new(network, FeedbackRule::Bp, FeedbackInit::Nokland, 0).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(x, &mut activations).unwrap();
    loss.error(targets, &activations, &mut deltas).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    (activations, gradients)
}

/// A 1×1 convolution that passes the image on, normalised and flattened to one output.
fn normalising(height: usize, width: usize) -> Network<f32> {
    let conv = Conv2d { bias: Bias::Without, ..Conv2d::new(1, 1) };
    let mut network = Network::<f32>::builder((1, height, width))
        .conv2d(conv)
        .batch_norm()
        .dense(1)
        .build()
        .unwrap();
    network.set_weights(0, DMatrix::from_element(1, 1, 1.0)).unwrap();
    network
}

fn normalised(network: &Network<f32>, x: &DMatrix<f32>) -> Vec<f64> {
    let mut activations = Activations::new();
    network.forward(x, &mut activations).unwrap();
    activations.output(0).unwrap().iter().map(|&y| f64::from(y)).collect()
}

#[test]
fn a_constant_channel_is_normalised_to_zero() {
    let network = normalising(28, 28);
    let y = normalised(&network, &DMatrix::from_element(28 * 28, 64, 14.62));
    assert!(y.iter().all(|&y| y == 0.0), "{}", y[0]);
}

#[test]
fn a_large_channel_gets_mean_zero_and_deviation_one() {
    let network = normalising(64, 64);
    let noise = |i: usize| ((i * 7919 + i / 97) % 2001) as f32 / 200.0 - 5.0;
    let x = DMatrix::from_fn(64 * 64, 365, |i, j| 293.0 + noise(i + 4096 * j));
    let y = normalised(&network, &x);
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    let deviation = (y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / y.len() as f64).sqrt();
    assert!(mean.abs() < 1e-5, "mean {mean}");
    assert!((deviation - 1.0).abs() < 1e-5, "deviation {deviation}");
}

/// After a dense layer a channel is a row, after a convolution it is a plane: both sum 2²⁰ terms.
#[test]
fn gradients_of_batch_normalisation_do_not_drift() {
    let count = 1 << 20;
    let noise = |i: usize| ((i * 7919) % 1013) as f32 / 100.0;
    for (network, x) in [
        (normalising(64, 64), DMatrix::from_fn(4096, count / 4096, |i, j| noise(i + 4096 * j))),
        (
            Network::builder(1).dense_without_bias(1).batch_norm().dense(1).build().unwrap(),
            DMatrix::from_fn(1, count, |_, j| noise(j)),
        ),
    ] {
        let y = DMatrix::from_element(1, x.ncols(), 300.0);
        let loss = Loss::MeanSquaredError;
        let (activations, gradients) = gradients(&network, loss, &x, &y);
        // ∂β in f64, from the activations that the network made.
        let w = network.layer(1).unwrap().weights();
        let mut expected = 0.0;
        for (sample, z) in activations.logits().unwrap().iter().enumerate() {
            let e = f64::from((z - y[sample]) / x.ncols() as f32);
            expected += w.iter().map(|&w| f64::from(w) * e).sum::<f64>();
        }
        let shift = gradients.get(0, Part::Shift).unwrap().unwrap();
        let found = f64::from(shift[0]);
        assert!((found / expected - 1.0).abs() < 2e-6, "{found}, not {expected}");
    }
}

#[test]
fn the_bias_gradient_of_a_million_samples_is_exact() {
    let samples = 1_000_000;
    let network = Network::<f32>::builder(1).dense(3).build().unwrap();
    let x = DMatrix::zeros(1, samples);
    let y = DMatrix::from_fn(3, samples, |i, j| 0.1 + i as f32 + ((j * 31) % 17) as f32 * 1e-3);
    let (activations, gradients) = gradients(&network, Loss::MeanSquaredError, &x, &y);
    let z = activations.logits().unwrap();
    for (row, &found) in gradients.bias(0).unwrap().unwrap().iter().enumerate() {
        let terms = (0..samples).map(|j| f64::from((z[(row, j)] - y[(row, j)]) / samples as f32));
        let expected: f64 = terms.sum();
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{found}, not {expected}");
    }
}

#[test]
fn softmax_over_a_million_classes_sums_to_one() {
    let classes = 1_000_000;
    let logits = DMatrix::from_fn(classes, 1, |i, _| ((i * 7) % 13) as f32 * 0.01);
    let y = Loss::SoftmaxCrossEntropy.probabilities(&logits).unwrap();
    let sum: f64 = y.iter().map(|&y| f64::from(y)).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");

    let mut network = Network::<f32>::builder(1).dense(classes).build().unwrap();
    network.set_bias(0, DVector::from_column_slice(logits.as_slice())).unwrap();
    let x = DMatrix::zeros(1, 1);
    let loss = Loss::SoftmaxCrossEntropy;
    let (_, gradients_of_label) = gradients(&network, loss, &x, &[5]);
    let e = gradients_of_label.bias(0).unwrap().unwrap();
    let sum: f64 = e.iter().map(|&e| f64::from(e)).sum();
    assert!(sum.abs() < 1e-6, "Σe = {sum}");

    // Targets that sum to 1 are found to do so, and their loss is that of f64.
    let even = DMatrix::from_element(classes, 1, 1e-6_f32);
    let mut activations = Activations::new();
    network.forward(&x, &mut activations).unwrap();
    let found = loss.error(&even, &activations, &mut Deltas::new()).unwrap();
    let z: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
    let log_sum = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    let expected = z.iter().map(|z| log_sum - z).sum::<f64>() * f64::from(1e-6_f32);
    assert!((found / expected - 1.0).abs() < 1e-6, "{found}, not {expected}");
}

#[test]
fn the_mean_of_a_large_window_is_exact() {
    let conv = Conv2d { bias: Bias::Without, ..Conv2d::new(1, 1) };
    let builder = Network::<f32>::builder((1, 1000, 1000)).conv2d(conv);
    let mut network = builder.avg_pool2d(AvgPool2d::new(1000, 1)).dense(1).build().unwrap();
    network.set_weights(0, DMatrix::from_element(1, 1, 1.0)).unwrap();
    let y = normalised(&network, &DMatrix::from_element(1_000_000, 1, 0.1));
    assert!((y[0] - f64::from(0.1_f32)).abs() < 1e-7, "{}", y[0]);
}

#[test]
fn the_length_of_a_long_row_is_exact() {
    let inputs = 1_000_000;
    let mut network = Network::<f32>::builder(inputs).dense_without_bias(1).build().unwrap();
    network.set_weights(0, DMatrix::from_element(1, inputs, 0.1)).unwrap();
    let mut state =
        OptimizerState::new(&network, Sgd::default()).unwrap().with_max_norm(1.0).unwrap();
    let x = DMatrix::zeros(inputs, 1);
    let (_, gradients) = gradients(&network, Loss::MeanSquaredError, &x, &[0]);
    state.step(&mut network, &gradients).unwrap();
    let weights = network.layer(0).unwrap().weights();
    let length = weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    assert!((length - 1.0).abs() < 1e-6, "{length}");
}

/// What is long enough to be cut is still added up in one order.
#[test]
fn long_sums_do_not_depend_on_the_number_of_threads() {
    let x = DMatrix::from_fn(20, 1000, |i, j| ((i * 31 + j * 17) % 101) as f32 / 101.0);
    let labels: Vec<usize> = (0..1000).map(|j| j * 7 % 3).collect();
    let run = |threads| {
        let network = Network::builder(20).dense(300).batch_norm().tanh().dense(3).build().unwrap();
        let mut trainer = Trainer::builder(network).threads(threads).build().unwrap();
        trainer.step(&x, &labels).unwrap();
        trainer.step(&x, &labels).unwrap();
        trainer.into_network()
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}

/// With inputs of 1 the gradient of every weight is that of the bias. Single rows and columns, and the
/// planes of a convolution, have loops of their own.
#[test]
fn the_weight_gradients_of_a_million_samples_are_exact() {
    let samples = 1_000_000;
    let pixel = || Network::<f32>::builder((1, 1, 1));
    // With a stride the convolution is not computed as a product of matrices, though one pixel has no next.
    let slid = Conv2d { stride: (2, 2), ..Conv2d::new(3, 1) };
    for network in [
        Network::<f32>::builder(2).dense(1).build().unwrap(),
        Network::<f32>::builder(1).dense(3).build().unwrap(),
        Network::<f32>::builder(1).dense(1).build().unwrap(),
        Network::<f32>::builder(2).dense(3).build().unwrap(),
        pixel().conv2d(Conv2d::new(3, 1)).dense(1).build().unwrap(),
        pixel().conv2d(slid).dense(1).build().unwrap(),
    ] {
        let x = DMatrix::from_element(network.input_len(), samples, 1.0);
        let outputs = network.output_len();
        let y = DMatrix::from_fn(outputs, samples, |i, j| 0.1 + i as f32 + (j % 17) as f32 * 1e-3);
        let (_, gradients) = gradients(&network, Loss::MeanSquaredError, &x, &y);
        let bias = gradients.bias(0).unwrap().unwrap();
        for (place, &found) in gradients.weights(0).unwrap().iter().enumerate() {
            let expected = bias[place % bias.len()];
            assert!((found / expected - 1.0).abs() < 1e-4, "{network}: {found}, not {expected}");
        }
    }
}

/// With one channel, the gradient of a 1×1 convolution is a product of a matrix with a long vector.
#[test]
fn the_weight_gradient_of_a_million_pixels_is_exact() {
    let conv = Network::<f32>::builder((1, 1000, 1000)).conv2d(Conv2d::new(2, 1));
    let mut network = conv.avg_pool2d(AvgPool2d::new(1000, 1)).dense(1).build().unwrap();
    network.set_weights(1, DMatrix::from_element(1, 2, 1.0)).unwrap();
    let x = DMatrix::from_element(1_000_000, 1, 1.0);
    let y = DMatrix::from_element(1, 1, 7.0);
    let (_, gradients) = gradients(&network, Loss::MeanSquaredError, &x, &y);
    let bias = gradients.bias(0).unwrap().unwrap();
    for (&found, &expected) in gradients.weights(0).unwrap().iter().zip(bias.iter()) {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found}, not {expected}");
    }
}

/// A sample is summed up as well alone as among others.
#[test]
fn a_single_sample_of_a_million_inputs_is_exact() {
    let inputs = 1_000_000;
    for outputs in [1, 3, 300] {
        let inputs = inputs / outputs;
        let mut network =
            Network::<f32>::builder(inputs).dense_without_bias(outputs).build().unwrap();
        network.set_weights(0, DMatrix::from_element(outputs, inputs, 0.1)).unwrap();
        let expected = inputs as f32 * 0.1;
        for samples in [1, 2] {
            let y = network.predict(&DMatrix::from_element(inputs, samples, 1.0)).unwrap();
            for &y in &y {
                assert!((y / expected - 1.0).abs() < 1e-4, "{outputs}, {samples}: {y}");
            }
        }
    }
}

/// `Wᵀδ` of a single sample has a term for each output.
#[test]
fn the_way_back_of_a_million_outputs_is_exact() {
    let outputs = 1_000_000;
    let mut network =
        Network::<f32>::builder(1).dense(2).dense_without_bias(outputs).build().unwrap();
    network.set_weights(1, DMatrix::from_element(outputs, 2, 0.1)).unwrap();
    network.set_bias(0, DVector::zeros(2)).unwrap();
    for samples in [1, 2] {
        let x = DMatrix::zeros(1, samples);
        let y = DMatrix::from_element(outputs, samples, 7.0);
        let (_, gradients) = gradients(&network, Loss::MeanSquaredError, &x, &y);
        for &found in gradients.bias(0).unwrap().unwrap() {
            let expected = -0.7 * outputs as f32;
            assert!((found / expected - 1.0).abs() < 1e-5, "{samples}: {found}");
        }
    }
}
