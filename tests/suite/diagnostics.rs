//! Diagnostics: against the definitions, at the points where angles are known, and as witnesses
//! of alignment.

use crate::{
    helpers::{labels, random},
    nets::conv_net,
};
use approx::assert_relative_eq;
use feedback_alignment::{
    Activation, Activations, Adam, Bias, Conv2d, Dataset, Deltas, Diagnosis, Diagnostics, Error,
    Feedback, FeedbackInit, FeedbackRule, Gradients, Init, Loss, MaxPool2d, Network, Sgd, Targets,
    Trainer,
    nalgebra::{DMatrix, DVector},
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
    rand_distr::{Distribution, StandardNormal},
};
use proptest::prelude::*;

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

fn mlp(widths: &[usize], activation: Activation, init: Init, seed: u64) -> Network<f64> {
    let mut builder = Network::builder(widths[0]);
    for &units in &widths[1..widths.len() - 1] {
        builder = builder.dense(units).activation(activation);
    }
    builder.dense(widths[widths.len() - 1]).init(init).seed(seed).build().unwrap()
}

fn feedback(network: &Network<f64>, rule: FeedbackRule) -> Feedback<f64> {
    Feedback::new(network, rule, FeedbackInit::Lillicrap, 11).unwrap()
}

fn weights(network: &Network<f64>, layer: usize) -> DMatrix<f64> {
    network.layer(layer).unwrap().weights().into_owned()
}

/// Stages 1 to 3.
fn pass<'a>(
    network: &Network<f64>,
    feedback: &Feedback<f64>,
    x: &DMatrix<f64>,
    loss: Loss,
    targets: impl Into<Targets<'a, f64>>,
) -> (Activations<f64>, Deltas<f64>) {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(x, &mut activations).unwrap();
    loss.error(targets, &activations, &mut deltas).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    (activations, deltas)
}

/// What the diagnostics say of a network that has not been trained.
fn diagnose(network: &Network<f64>, feedback: &Feedback<f64>, x: &DMatrix<f64>) -> Diagnosis {
    let y = labels(x.ncols(), network.output_len());
    let (activations, deltas) = pass(network, feedback, x, LOSS, &y);
    let mut diagnostics = Diagnostics::new(network).unwrap();
    diagnostics.compare(network, feedback, &activations, &deltas).unwrap()
}

/// The definition, with its rounding: `arccos(⟨u, v⟩ / (‖u‖ ‖v‖))` in degrees.
fn angle(u: &DMatrix<f64>, v: &DMatrix<f64>) -> f64 {
    (u.dot(v) / u.norm() / v.norm()).clamp(-1.0, 1.0).acos().to_degrees()
}

fn any_widths() -> impl Strategy<Value = Vec<usize>> {
    (1..6_usize, prop::collection::vec(1..7_usize, 0..4), 2..5_usize)
        .prop_map(|(inputs, hidden, outputs)| [vec![inputs], hidden, vec![outputs]].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Everything that is said of deltas and gradients, recomputed from a second pass by
    /// backpropagation.
    #[test]
    fn angles_and_norms_are_those_of_the_definition(
        widths in any_widths(), samples in 1..6_usize, seed in 0..1000_u64,
    ) {
        let network = mlp(&widths, Activation::Softplus, Init::FanIn, seed);
        let (x, y) = (random(widths[0], samples, seed), labels(samples, network.output_len()));
        let bp = pass(&network, &feedback(&network, FeedbackRule::Bp), &x, LOSS, &y);
        let gradients = |(activations, deltas): &(Activations<f64>, Deltas<f64>)| {
            let mut gradients = Gradients::new();
            network.gradients(activations, deltas, &mut gradients).unwrap();
            gradients
        };
        for rule in FeedbackRule::nokland() {
            let feedback = feedback(&network, rule);
            let found = diagnose(&network, &feedback, &x);
            prop_assert_eq!((&found.rule, found.layers.len()), (&rule.to_string(), network.layer_count()));
            prop_assert_eq!(found.hidden(), &found.layers[..network.layer_count() - 1]);
            let here = pass(&network, &feedback, &x, LOSS, &y);
            let (gradient, bp_gradient) = (gradients(&here), gradients(&bp));
            for (layer, row) in found.layers.iter().enumerate() {
                prop_assert_eq!(row.layer, layer);
                let delta = here.1.delta(layer).unwrap().into_owned();
                let bp_delta = bp.1.delta(layer).unwrap().into_owned();
                let gradient = gradient.weights(layer).unwrap();
                let bp_gradient = bp_gradient.weights(layer).unwrap();
                for (found, expected) in [
                    (row.delta_angle.unwrap(), angle(&delta, &bp_delta)),
                    (row.gradient_angle.unwrap(), angle(&gradient.into_owned(), &bp_gradient.into_owned())),
                ] {
                    prop_assert!((found - expected).abs() < 1e-5, "{rule}: {found}, {expected}");
                }
                for (found, expected) in [
                    (row.delta_norm, delta.norm()),
                    (row.bp_delta_norm, bp_delta.norm()),
                    (row.gradient_norm, gradient.norm()),
                    (row.weight_norm, weights(&network, layer).norm()),
                ] {
                    prop_assert!((found - expected).abs() <= 1e-12 * expected, "{rule}");
                }
                prop_assert_eq!((row.change_norm, row.saturated), (0.0, None));
            }
            let output = found.layers[network.layer_count() - 1];
            prop_assert_eq!((output.delta_angle, output.gradient_angle), (Some(0.0), Some(0.0)));
            prop_assert_eq!(output.feedback_angle, None);
        }
    }

    /// The alignment of weights and feedback: `B_l` against `W_{l+1}ᵀ` under FA, against
    /// `(W_L ⋯ W_{l+1})ᵀ` under DFA and for the one matrix of IFA.
    #[test]
    fn feedback_angles_are_those_of_the_definition(widths in any_widths(), seed in 0..1000_u64) {
        let network = mlp(&widths, Activation::Tanh, Init::FanIn, seed);
        let x = random(widths[0], 3, seed);
        for rule in FeedbackRule::nokland() {
            let feedback = feedback(&network, rule);
            let found = diagnose(&network, &feedback, &x);
            let mut product = DMatrix::identity(network.output_len(), network.output_len());
            for (layer, row) in found.hidden().iter().enumerate().rev() {
                product *= weights(&network, layer + 1);
                let expected = feedback.matrix(layer).unwrap().map(|b| match rule {
                    FeedbackRule::Fa => angle(&b, &weights(&network, layer + 1).transpose()),
                    _ => angle(&b, &product.transpose()),
                });
                prop_assert_eq!(row.feedback_angle.is_some(), expected.is_some());
                if let (Some(found), Some(expected)) = (row.feedback_angle, expected) {
                    prop_assert!((found - expected).abs() < 1e-5, "{rule}: {found}, {expected}");
                }
            }
        }
    }

    /// Oracle 19: at the point where the rules are backpropagation the angle is 0, with the sign
    /// turned it is 180, to the last bit; a positive factor does not matter.
    #[test]
    fn angles_are_exact_where_feedback_is_aligned(widths in any_widths(), seed in 0..1000_u64) {
        let network = mlp(&widths, Activation::Tanh, Init::FanIn, seed);
        let (x, hidden) = (random(widths[0], 4, seed), widths.len() - 2);
        let bp = diagnose(&network, &feedback(&network, FeedbackRule::Bp), &x);
        for row in &bp.layers {
            prop_assert_eq!((row.delta_angle, row.gradient_angle), (Some(0.0), Some(0.0)));
            prop_assert_eq!(row.feedback_angle, None);
            prop_assert_eq!(row.delta_norm, row.bp_delta_norm);
        }
        let fa = |factor: f64| {
            let matrices = (0..hidden).map(|l| weights(&network, l + 1).transpose() * factor).collect();
            let fa = Feedback::from_matrices(&network, FeedbackRule::Fa, matrices).unwrap();
            diagnose(&network, &fa, &x)
        };
        for row in fa(1.0).hidden() {
            prop_assert_eq!((row.delta_angle, row.gradient_angle), (Some(0.0), Some(0.0)));
            prop_assert_eq!(row.feedback_angle, Some(0.0));
            prop_assert_eq!(row.delta_norm, row.bp_delta_norm);
        }
        // Each layer down turns the sign once more.
        for (above, row) in fa(-1.0).hidden().iter().rev().enumerate() {
            let expected = if above % 2 == 0 { 180.0 } else { 0.0 };
            prop_assert_eq!(row.delta_angle, Some(expected));
            prop_assert_eq!(row.gradient_angle, Some(expected));
            prop_assert_eq!(row.feedback_angle, Some(180.0));
        }
        // A power of two scales without rounding, so that not a bit may differ. (Another factor
        // rounds anew, by any amount where a sum almost cancels.)
        for row in fa(4.0).hidden() {
            for angle in [row.delta_angle, row.gradient_angle, row.feedback_angle] {
                prop_assert_eq!(angle, Some(0.0));
            }
        }
        for rule in [FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Ifa] {
            let plain = feedback(&network, rule);
            let mut scaled = plain.clone();
            for layer in 0..hidden {
                if let Some(matrix) = plain.matrix(layer).unwrap() {
                    scaled.set_matrix(layer, matrix * 2.0).unwrap();
                }
            }
            let (plain, scaled) = (diagnose(&network, &plain, &x), diagnose(&network, &scaled, &x));
            for (plain, scaled) in plain.hidden().iter().zip(scaled.hidden()) {
                prop_assert_eq!(plain.delta_angle, scaled.delta_angle);
                prop_assert_eq!(plain.gradient_angle, scaled.gradient_angle);
                prop_assert!(scaled.delta_norm > plain.delta_norm);
            }
        }
    }
}

/// With one hidden layer `B = W_Lᵀ` makes FA, DFA and IFA backpropagation.
#[test]
fn one_hidden_layer_with_aligned_feedback_is_at_0() {
    let network = mlp(&[7, 6, 3], Activation::Logistic, Init::FanIn, 3);
    for rule in [FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let aligned = weights(&network, 1).transpose();
        for (factor, expected) in [(1.0, 0.0), (8.0, 0.0), (-1.0, 180.0)] {
            let matrices = vec![&aligned * factor];
            let feedback = Feedback::from_matrices(&network, rule, matrices).unwrap();
            let row = diagnose(&network, &feedback, &random(7, 5, 1)).layers[0];
            let angles = [row.delta_angle, row.gradient_angle, row.feedback_angle];
            assert_eq!(angles, [Some(expected); 3], "{rule}");
            assert_relative_eq!(row.delta_norm, factor.abs() * row.bp_delta_norm);
        }
    }
}

/// Where hidden units are linear, DFA through the products of the weights is backpropagation.
#[test]
fn direct_feedback_through_the_products_is_at_0_for_linear_units() {
    let network = mlp(&[7, 6, 5, 4, 3], Activation::Identity, Init::FanIn, 3);
    let mut product = DMatrix::identity(3, 3);
    let mut matrices = Vec::new();
    for layer in (1..4).rev() {
        product *= weights(&network, layer);
        matrices.insert(0, product.transpose());
    }
    let feedback = Feedback::from_matrices(&network, FeedbackRule::Dfa, matrices).unwrap();
    for row in diagnose(&network, &feedback, &random(7, 5, 1)).hidden() {
        for angle in [row.delta_angle, row.gradient_angle, row.feedback_angle] {
            assert!(angle.unwrap() < 1e-12, "{row:?}");
        }
    }
}

/// Oracle 19: what is zero has no direction, and is not counted as aligned.
#[test]
fn zero_vectors_have_no_angle() {
    let x = random(7, 4, 1);
    let zero = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::Zeros, 0);
    for rule in FeedbackRule::nokland() {
        let found = diagnose(&zero, &feedback(&zero, rule), &x);
        for row in found.hidden() {
            let angles = [row.delta_angle, row.gradient_angle, row.feedback_angle];
            assert_eq!((angles, row.bp_delta_norm), ([None; 3], 0.0), "{rule}");
            // FA and DFA do have a delta, only nothing to compare it with; IFA has one below.
            let moves = match rule {
                FeedbackRule::Bp => false,
                FeedbackRule::Ifa => row.layer == 0,
                _ => true,
            };
            assert_eq!(row.delta_norm > 0.0, moves, "{rule}, layer {}", row.layer);
        }
        // The error is there, but h = 0 below the output layer.
        let output = found.layers[2];
        assert_eq!((output.delta_angle, output.gradient_angle), (Some(0.0), None));
    }

    // Dead ReLU units: biases so low that nothing passes.
    let mut dead = mlp(&[7, 6, 3], Activation::Relu, Init::FanIn, 1);
    dead.set_bias(0, DVector::from_element(6, -100.0)).unwrap();
    let row = diagnose(&dead, &feedback(&dead, FeedbackRule::Dfa), &x).layers[0];
    assert_eq!((row.delta_angle, row.gradient_angle, row.delta_norm), (None, None, 0.0));
    assert!(row.feedback_angle.is_some());

    // No error, no deltas.
    let network = mlp(&[7, 6, 3], Activation::Tanh, Init::FanIn, 1);
    let feedback = feedback(&network, FeedbackRule::Dfa);
    let y = network.predict(&x).unwrap();
    let (activations, deltas) = pass(&network, &feedback, &x, Loss::MeanSquaredError, &y);
    let mut diagnostics = Diagnostics::new(&network).unwrap();
    let found = diagnostics.compare(&network, &feedback, &activations, &deltas).unwrap();
    for row in &found.layers {
        assert_eq!((row.delta_angle, row.gradient_angle, row.delta_norm), (None, None, 0.0));
    }
    assert!(found.layers[0].feedback_angle.is_some());
}

/// Under convolution, pooling, normalisation and dropout backpropagation is still at 0 from
/// itself, and so is FA through the forward weights.
#[test]
fn convolutional_nets_are_compared_block_by_block() {
    let network = conv_net();
    let x = random(64, 6, 1);
    for row in diagnose(&network, &feedback(&network, FeedbackRule::Bp), &x).layers {
        assert_eq!((row.delta_angle, row.gradient_angle), (Some(0.0), Some(0.0)));
        assert!(row.delta_norm > 0.0);
    }
    // Kernels stay as they are.
    let [kernels, w, v] = [1, 2, 3].map(|layer| weights(&network, layer));
    let matrices = vec![kernels.clone(), w.transpose(), v.transpose()];
    let aligned = Feedback::from_matrices(&network, FeedbackRule::Fa, matrices).unwrap();
    for row in diagnose(&network, &aligned, &x).hidden() {
        let angles = [row.delta_angle, row.gradient_angle, row.feedback_angle];
        assert_eq!(angles, [Some(0.0); 3]);
    }
    for rule in [FeedbackRule::Dfa, FeedbackRule::Ifa] {
        for row in diagnose(&network, &feedback(&network, rule), &x).hidden() {
            let angle = row.delta_angle.unwrap();
            assert!((1.0..179.0).contains(&angle), "{rule}: {angle}");
        }
    }
}

/// The product of the weights goes through convolutions, not through pooling.
#[test]
fn the_product_of_the_weights_goes_through_convolutions() {
    let conv = Conv2d { stride: (2, 1), padding: (1, 0), ..Conv2d::new(3, 2) };
    let bare = Conv2d { bias: Bias::Without, ..conv };
    let image = || Network::<f64>::builder((2, 4, 4));
    // Pooling at the end of the block that receives is no matter.
    let network = image()
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(2, 2) })
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 1))
        .conv2d(conv)
        .tanh()
        .dense(5)
        .build()
        .unwrap();
    // What is above the first block, as a linear network of its own.
    let mut above = image().conv2d(bare).dense_without_bias(5).build().unwrap();
    for layer in 0..2 {
        above.set_weights(layer, weights(&network, layer + 1).clone()).unwrap();
    }
    let product = above.predict(&DMatrix::identity(32, 32)).unwrap();
    let x = random(32, 3, 1);
    for rule in [FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let drawn = feedback(&network, rule);
        let found = diagnose(&network, &drawn, &x).layers[0].feedback_angle.unwrap();
        let expected = angle(&drawn.matrix(0).unwrap().unwrap(), &product.transpose());
        assert_relative_eq!(found, expected, epsilon = 1e-5);
        let mut aligned = drawn.clone();
        aligned.set_matrix(0, product.transpose()).unwrap();
        assert!(diagnose(&network, &aligned, &x).layers[0].feedback_angle.unwrap() < 1e-12);
    }

    // Pooling on the way is, but only below it.
    let pooled = conv_net();
    let x = random(64, 6, 1);
    let defined = |rule| {
        let found = diagnose(&pooled, &feedback(&pooled, rule), &x);
        [0, 1, 2].map(|layer| found.layers[layer].feedback_angle.is_some())
    };
    assert_eq!(defined(FeedbackRule::Dfa), [true, true, true]);
    assert_eq!(defined(FeedbackRule::Ifa), [true, false, false]);
    let twice = Network::<f64>::builder((1, 8, 8))
        .conv2d(Conv2d::new(2, 3))
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d::new(2, 2))
        .max_pool2d(MaxPool2d::new(2, 2))
        .dense(3)
        .build()
        .unwrap();
    for (rule, expected) in [
        (FeedbackRule::Fa, [true, true]),
        (FeedbackRule::Dfa, [false, true]),
        (FeedbackRule::Ifa, [false, false]),
    ] {
        let found = diagnose(&twice, &feedback(&twice, rule), &x);
        let found = [0, 1].map(|layer| found.layers[layer].feedback_angle.is_some());
        assert_eq!(found, expected, "{rule}");
    }
}

#[test]
fn saturated_units_are_counted_where_a_function_is_bounded() {
    let a = [-5.0, -2.0, -0.1, 0.0, 0.5, 1.0, 3.0, 9.0];
    let x = DMatrix::from_element(1, 2, 1.0);
    let share = |activation, threshold: Option<f64>| {
        // Dropout comes after the function and does not hide a unit; nor does softplus.
        let builder = Network::builder(1).dense(8).activation(activation).dropout(0.5).softplus();
        let mut network = builder.dense(2).build().unwrap();
        network.set_weights(0, DMatrix::from_row_slice(8, 1, &a)).unwrap();
        network.set_bias(0, DVector::zeros(8)).unwrap();
        let feedback = feedback(&network, FeedbackRule::Dfa);
        let (activations, deltas) = pass(&network, &feedback, &x, LOSS, &[0, 1]);
        let mut diagnostics = Diagnostics::new(&network).unwrap();
        if let Some(threshold) = threshold {
            diagnostics = diagnostics.with_saturation(threshold).unwrap();
        }
        let found = diagnostics.compare(&network, &feedback, &activations, &deltas).unwrap();
        assert_eq!(found.layers[1].saturated, None, "the output is linear");
        found.layers[0].saturated
    };
    // tanh: 0.9999, 0.964, 0.0997, 0, 0.462, 0.762, 0.9951, 1.
    assert_eq!(share(Activation::Tanh, None), Some(3.0 / 8.0));
    assert_eq!(share(Activation::Tanh, Some(0.9)), Some(4.0 / 8.0));
    assert_eq!(share(Activation::Tanh, Some(0.0)), Some(7.0 / 8.0));
    // 2σ(a) − 1 = tanh(a/2): 0.987, 0.762, 0.05, 0, 0.245, 0.462, 0.905, 0.9998.
    assert_eq!(share(Activation::Logistic, None), Some(1.0 / 8.0));
    assert_eq!(share(Activation::Logistic, Some(0.9)), Some(3.0 / 8.0));
    for activation in [Activation::Relu, Activation::Identity, Activation::Elu { alpha: 1.0 }] {
        assert_eq!(share(activation, None), None, "{activation}");
    }
}

/// The diagnosis is that of the step to come, to its dropout masks, and of the way gone so far.
#[test]
fn a_diagnosis_tells_what_the_next_step_does() {
    let (x, y) = (random(64, 6, 1), labels(6, 3));
    for rule in FeedbackRule::nokland() {
        let sgd = Sgd { learning_rate: 0.25, ..Sgd::default() };
        let builder = Trainer::builder(conv_net()).rule(rule).optimizer(sgd).seed(5);
        let mut trainer = builder.build().unwrap();
        let mut since_start = Diagnostics::new(trainer.network()).unwrap();
        for step in 0..4 {
            let start = trainer.network().clone();
            let mut of_step = Diagnostics::new(&start).unwrap();
            let before = of_step.observe(&trainer, &x, &y).unwrap();
            trainer.step(&x, &y).unwrap();
            let after = of_step.observe(&trainer, &x, &y).unwrap();
            let total = since_start.observe(&trainer, &x, &y).unwrap();
            for layer in 0..4 {
                let (before, after) = (before.layers[layer], after.layers[layer]);
                assert_eq!(before.change_norm, 0.0);
                let expected = 0.25 * before.gradient_norm;
                assert_relative_eq!(after.change_norm, expected, max_relative = 1e-9);
                assert!(after.change_norm > 0.0, "{rule}, step {step}");
                assert_eq!(after.weight_norm, total.layers[layer].weight_norm);
                if step > 0 {
                    assert_ne!(after.change_norm, total.layers[layer].change_norm);
                }
            }
        }
    }
}

/// Nothing that lasts in the trainer changes, nor anything that it does later.
#[test]
fn observing_changes_nothing() {
    let data = Dataset::new(random(64, 40, 3), labels(40, 3)).unwrap();
    let (x, y) = (random(64, 7, 1), labels(7, 3));
    for rule in FeedbackRule::nokland() {
        let builder = Trainer::builder(conv_net()).rule(rule).optimizer(Adam::default());
        let mut observed = builder.batch_size(16).seed(9).build().unwrap();
        let mut alone = observed.clone();
        let mut diagnostics = Diagnostics::new(observed.network()).unwrap();
        for _ in 0..3 {
            let before = format!("{observed:?}");
            let first = diagnostics.observe(&observed, &x, &y).unwrap();
            assert_eq!(format!("{observed:?}"), before);
            // Nor does the diagnosis depend on those before it.
            assert_eq!(diagnostics.observe(&observed, &x, &y).unwrap(), first);
            let other = random(64, 3, 8);
            diagnostics.observe(&observed, &other, &labels(3, 3)).unwrap();
            assert_eq!(diagnostics.observe(&observed, &x, &y).unwrap(), first);

            assert_eq!(observed.epoch(&data).unwrap(), alone.epoch(&data).unwrap());
            assert_eq!(observed.step(&x, &y).unwrap(), alone.step(&x, &y).unwrap());
            assert_eq!(observed.network(), alone.network(), "{rule}");
            assert_eq!(observed.optimizer(), alone.optimizer(), "{rule}");
            assert_eq!(observed.evaluate(&data).unwrap(), alone.evaluate(&data).unwrap());
        }
    }
}

/// The stages written out give the diagnosis that the trainer gives.
#[test]
fn a_trainer_is_observed_as_its_stages_are() {
    let network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::FanIn, 3);
    let x = random(7, 5, 1);
    for rule in FeedbackRule::nokland() {
        let feedback = feedback(&network, rule);
        let builder = Trainer::builder(network.clone()).feedback(feedback.clone());
        let trainer = builder.build().unwrap();
        let mut diagnostics = Diagnostics::new(&network).unwrap();
        let found = diagnostics.observe(&trainer, &x, &labels(5, 3)).unwrap();
        assert_eq!(found, diagnose(&network, &feedback, &x));
    }
}

#[test]
fn single_precision_is_compared_in_double() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let x = DMatrix::from_fn(20, 30, |_, _| rng.random_range(-1.0..1.0_f32));
    let network = Network::<f32>::builder(20).dense(30).tanh().dense(30).tanh().dense(4);
    let trainer = |rule, network| Trainer::builder(network).rule(rule).build().unwrap();
    for rule in FeedbackRule::nokland() {
        let trainer = trainer(rule, network.clone().build().unwrap());
        let mut diagnostics = Diagnostics::new(trainer.network()).unwrap();
        let found = diagnostics.observe(&trainer, &x, &labels(30, 4)).unwrap();
        for row in found.hidden() {
            let angles = [row.delta_angle.unwrap(), row.gradient_angle.unwrap()];
            match rule {
                FeedbackRule::Bp => assert_eq!(angles, [0.0; 2]),
                _ => assert!(angles.iter().all(|angle| (40.0..140.0).contains(angle)), "{row:?}"),
            }
        }
    }
}

#[test]
fn the_table_has_a_row_for_each_layer() {
    let network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::FanIn, 3);
    for rule in FeedbackRule::nokland() {
        let found = diagnose(&network, &feedback(&network, rule), &random(7, 5, 1));
        let table = found.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 1 + 3, "{table}");
        let width = |line: &str| line.chars().count();
        assert!(lines.iter().all(|line| width(line) == width(lines[0])), "{table}");
        assert!(lines[0].starts_with(&rule.to_string()), "{table}");
        for (row, line) in found.layers.iter().zip(&lines[1..]) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(cells[0], row.layer.to_string());
            assert_eq!(cells[1], format!("{:.2}°", row.delta_angle.unwrap()));
            let feedback_angle = row.feedback_angle.map_or("–".into(), |a| format!("{a:.2}°"));
            assert_eq!(cells[3], feedback_angle);
        }
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(cells[9..11], ["–"; 2], "the output layer has no function");
        let common = found.layers[2].common_mode.unwrap();
        assert_eq!(cells[13..], [format!("{:.2}", 100.0 * common), "%".into()]);
    }
}

#[test]
fn what_does_not_belong_together_is_refused_and_leaves_the_diagnostics_usable() {
    let network = mlp(&[7, 6, 3], Activation::Tanh, Init::FanIn, 3);
    let trainer = Trainer::builder(network.clone()).build().unwrap();
    let mut diagnostics = Diagnostics::new(&network).unwrap();
    let (x, y) = (random(7, 5, 1), labels(5, 3));
    let good = diagnostics.observe(&trainer, &x, &y).unwrap();

    let wrong = diagnostics.observe(&trainer, &random(8, 5, 1), &y);
    assert!(matches!(wrong, Err(Error::ShapeMismatch { expected: (7, 5), found: (8, 5), .. })));
    let wrong = diagnostics.observe(&trainer, &x, &labels(4, 3));
    assert!(matches!(wrong, Err(Error::SampleCount { inputs: 5, targets: 4 })));

    let deeper = mlp(&[7, 6, 4, 3], Activation::Tanh, Init::FanIn, 3);
    let of_deeper = Trainer::builder(deeper).build().unwrap();
    let wrong = diagnostics.observe(&of_deeper, &x, &y).unwrap_err();
    assert!(matches!(wrong, Error::StageMismatch { stage: "diagnose", .. }));
    assert!(wrong.to_string().contains("expected 3 layers, found 2 layers"), "{wrong}");
    let wider = mlp(&[7, 8, 3], Activation::Tanh, Init::FanIn, 3);
    let of_wider = Trainer::builder(wider.clone()).build().unwrap();
    let wrong = diagnostics.observe(&of_wider, &x, &y);
    assert!(matches!(wrong, Err(Error::ShapeMismatch { expected: (8, 7), found: (6, 7), .. })));

    let dfa = feedback(&network, FeedbackRule::Dfa);
    let (activations, deltas) = pass(&network, &dfa, &x, LOSS, &y);
    let (of_four, _) = pass(&network, &dfa, &random(7, 4, 1), LOSS, &labels(4, 3));
    let wrong = diagnostics.compare(&network, &dfa, &of_four, &deltas);
    assert!(matches!(wrong, Err(Error::StageMismatch { stage: "diagnose", .. })));
    let foreign = feedback(&wider, FeedbackRule::Dfa);
    let wrong = diagnostics.compare(&network, &foreign, &activations, &deltas);
    assert!(matches!(wrong, Err(Error::StageMismatch { .. })));

    for threshold in [-0.1, 1.0, f64::NAN] {
        let wrong = Diagnostics::new(&network).unwrap().with_saturation(threshold);
        assert!(matches!(wrong, Err(Error::InvalidParameter { name: "saturation", .. })));
    }
    assert_eq!(diagnostics.observe(&trainer, &x, &y).unwrap(), good);
}

/// Kernels of other sizes over images of the same sizes: the layouts agree, the weights do not.
#[test]
fn feedback_of_other_kernels_is_refused() {
    let network = |kernel, padding| {
        Network::<f64>::builder((1, 4, 4))
            .conv2d(Conv2d::new(2, 1))
            .tanh()
            .conv2d(Conv2d { padding: (padding, padding), ..Conv2d::new(2, kernel) })
            .tanh()
            .dense(2)
            .build()
            .unwrap()
    };
    let (small, large) = (network(3, 1), network(5, 2));
    let foreign = feedback(&large, FeedbackRule::Fa);
    let own = feedback(&small, FeedbackRule::Fa);
    let (x, y) = (random(16, 3, 1), labels(3, 2));
    let (activations, mut deltas) = pass(&small, &own, &x, LOSS, &y);
    let expected = |wrong| match wrong {
        Error::StageMismatch { what: "feedback matrices", expected, found, .. } => {
            expected.contains("2 × 18") && found.contains("2 × 50")
        }
        _ => false,
    };
    assert!(expected(foreign.deliver(&small, &activations, &mut deltas).unwrap_err()));
    assert!(expected(Trainer::builder(small.clone()).feedback(foreign).build().unwrap_err()));
    let wrong = Diagnostics::new(&large).unwrap().compare(&small, &own, &activations, &deltas);
    assert!(matches!(wrong, Err(Error::ShapeMismatch { expected: (2, 18), .. })));
}

#[test]
fn overflow_is_named() {
    let mut network = Network::<f32>::builder(2).dense(2).dense(2).build().unwrap();
    network.set_weights(0, DMatrix::from_element(2, 2, 1.0)).unwrap();
    // Of one output only, since the errors of both add up to 0.
    let b = DMatrix::from_row_slice(2, 2, &[1e30_f32, 0.0, 1e30, 0.0]);
    let feedback = Feedback::from_matrices(&network, FeedbackRule::Dfa, vec![b]).unwrap();
    let trainer = Trainer::builder(network).feedback(feedback).build().unwrap();
    let mut diagnostics = Diagnostics::new(trainer.network()).unwrap();
    let mut observe = |x: f32| {
        let x = DMatrix::from_column_slice(2, 2, &[x, -x, x, x]);
        diagnostics.observe(&trainer, &x, &[0, 1])
    };
    let fine = observe(1.0).unwrap();
    assert!(fine.layers[0].delta_norm > 1e28 && fine.layers[0].delta_norm.is_finite());
    for (x, what) in [(1e12, "∂W of weighted layer 0"), (3e38, "a of weighted layer 0")] {
        let error = observe(x).unwrap_err();
        assert!(matches!(error, Error::NonFinite { .. }), "{error}");
        assert!(error.to_string().starts_with(what), "{error}");
    }
    assert_eq!(observe(1.0).unwrap(), fine);
}

/// Classes around centres drawn from `N(0, 1.5²)` with noise of `N(0, 1)`.
fn clusters(
    features: usize,
    classes: usize,
    samples: usize,
    seed: u64,
) -> (DMatrix<f64>, Vec<usize>) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut normal = |std: f64| -> f64 {
        let value: f64 = StandardNormal.sample(&mut rng);
        std * value
    };
    let centres = DMatrix::from_fn(features, classes, |_, _| normal(1.5));
    let labels: Vec<usize> = (0..samples).map(|j| j % classes).collect();
    let x = DMatrix::from_fn(features, samples, |i, j| centres[(i, labels[j])] + normal(1.0));
    (x, labels)
}

/// What is found on the clusters after so many steps.
fn found_after(steps: &[u32], rule: FeedbackRule, init: Init, seed: u64) -> Vec<Diagnosis> {
    let (x, y) = clusters(20, 5, 200, seed);
    let network = mlp(&[20, 30, 30, 5], Activation::Tanh, init, seed);
    let sgd = Sgd { learning_rate: 0.5, ..Sgd::default() };
    let builder = Trainer::builder(network).rule(rule).optimizer(sgd).seed(seed);
    let mut trainer = builder.build().unwrap();
    let mut diagnostics = Diagnostics::new(trainer.network()).unwrap();
    let after = |&step| {
        while trainer.optimizer().steps() < u64::from(step) {
            trainer.step(&x, &y).unwrap();
        }
        diagnostics.observe(&trainer, &x, &y).unwrap()
    };
    steps.iter().map(after).collect()
}

/// Oracle 20, and why it is so: a network comes to agree with its feedback. From small random
/// weights the deltas start at right angles to those of backpropagation and are below 60° after
/// 100 steps, because the weights have turned towards the feedback.
#[test]
fn angles_fall_from_small_weights() {
    for seed in 0..20 {
        for rule in [FeedbackRule::Dfa, FeedbackRule::Ifa] {
            let init = Init::Uniform { bound: 0.1 };
            let [first, last] = &found_after(&[0, 100], rule, init, seed)[..] else { panic!() };
            for (first, last) in first.hidden().iter().zip(last.hidden()) {
                let (start, end) = (first.delta_angle.unwrap(), last.delta_angle.unwrap());
                assert!((75.0..105.0).contains(&start), "{rule}, seed {seed}: {start}");
                assert!(end < 60.0, "{rule}, seed {seed}: {start} to {end}");
                if let (Some(start), Some(end)) = (first.feedback_angle, last.feedback_angle) {
                    assert!(end < start - 20.0, "{rule}, seed {seed}: {start} to {end}");
                }
                // Oracle 21: hidden layers do learn, and not what backpropagation would.
                assert!(last.change_norm > 0.1 * last.weight_norm, "{rule}, seed {seed}");
                assert!(last.gradient_angle.unwrap() > 1.0, "{rule}, seed {seed}");
            }
        }
    }
}

/// Oracle 20, from zero weights: there is no angle at first, and a small one from step 20 on.
#[test]
fn from_zero_weights_angles_are_small_soon() {
    for seed in 0..20 {
        for rule in [FeedbackRule::Fa, FeedbackRule::Dfa] {
            let found = found_after(&[0, 20, 50, 100], rule, Init::Zeros, seed);
            for (number, diagnosis) in found.iter().enumerate() {
                for row in diagnosis.hidden() {
                    match (number, row.delta_angle) {
                        (0, angle) => assert_eq!(angle, None),
                        (_, angle) => {
                            assert!(angle.unwrap() < 45.0, "{rule}, seed {seed}: {angle:?}");
                        }
                    }
                }
            }
        }
    }
}
