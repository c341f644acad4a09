//! A start that does not stall: the output bias of the prior, matrices along the weights, and what
//! diagnoses say of it.

use approx::assert_relative_eq;
use feedback_alignment::{
    Activations, AvgPool2d, Conv2d, Dataset, Deltas, Diagnosis, Diagnostics, Error, Feedback,
    FeedbackInit, FeedbackRule, Loss, Momentum, Network, Scalar, Sgd, Trainer, WeightDecay,
    nalgebra::{DMatrix, DVector},
};
use proptest::prelude::*;

use crate::{
    helpers::{labels, numpy_net, optimizers, random, sines},
    nets::{conv_net, residual_net},
};

fn dense<T: Scalar>() -> Network<T> {
    let builder = Network::builder(7).dense(6).tanh().dense_without_bias(5).logistic();
    builder.dense(4).tanh().dense(3).seed(3).build().unwrap()
}

/// A network whose hidden layers send nothing up.
fn silent(outputs: usize) -> Network<f64> {
    let mut network = Network::builder(2).dense(3).tanh().dense(outputs).build().unwrap();
    network.set_weights(1, DMatrix::zeros(outputs, 3)).unwrap();
    network
}

proptest! {
    /// The answer is the prior, and over samples of these shares the error has no mean.
    #[test]
    fn a_network_answers_its_prior(counts in prop::collection::vec(1..9_usize, 2..6)) {
        let labels: Vec<usize> =
            counts.iter().enumerate().flat_map(|(class, &n)| vec![class; n]).collect();
        let (outputs, samples) = (counts.len(), labels.len());
        let data = Dataset::new(random(2, samples, 1), labels).unwrap();
        let prior = data.mean_target(outputs).unwrap();
        for (share, &count) in prior.iter().zip(&counts) {
            prop_assert_eq!(*share, count as f64 / samples as f64);
        }
        for loss in Loss::all() {
            let mut network = silent(outputs);
            network.set_output_prior(loss, &prior).unwrap();
            let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
            network.forward(&data.inputs(), &mut activations).unwrap();
            loss.error(data.targets(), &activations, &mut deltas).unwrap();
            prop_assert!(deltas.delta(1).unwrap().column_mean().amax() < 1e-16, "{loss}");
            let answer = activations.logits().unwrap().into_owned();
            let answer = loss.probabilities(&answer).unwrap_or(answer);
            for (answer, share) in answer.column(0).iter().zip(&prior) {
                prop_assert!((answer - share).abs() < 1e-15, "{loss}: {answer}, {share}");
            }
        }
    }
}

#[test]
fn mean_targets_are_those_of_the_dataset() {
    let x = DMatrix::<f32>::zeros(1, 4);
    let labels = Dataset::new(x.clone(), vec![1, 0, 1, 1]).unwrap();
    assert_eq!(labels.mean_target(1).unwrap(), [0.75]);
    assert_eq!(labels.mean_target(3).unwrap(), [0.25, 0.75, 0.0]);
    let values = DMatrix::from_column_slice(2, 4, &[1.0, -1.0, 2.0, 0.5, 0.0, 0.0, 0.0, 4.5]);
    let values = Dataset::with_values(x.clone(), &values).unwrap();
    assert_eq!(values.mean_target(2).unwrap(), [0.75, 1.0]);
    assert!(matches!(values.mean_target(3), Err(Error::ShapeMismatch { .. })));
    let three = Dataset::new(x, vec![2, 0, 1, 1]).unwrap();
    for outputs in [1, 2] {
        assert!(matches!(three.mean_target(outputs), Err(Error::LabelOutOfRange { .. })));
    }
    let zeros = Dataset::new(DMatrix::zeros(1, 2), vec![0, 0]).unwrap();
    for data in [&three, &values, &zeros] {
        assert!(matches!(data.mean_target(0), Err(Error::InvalidParameter { .. })));
    }
    assert!(matches!(values.mean_target(usize::MAX), Err(Error::ShapeMismatch { .. })));
}

#[test]
fn a_prior_that_makes_no_sense_is_refused_and_changes_nothing() {
    use Loss::{LogisticCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy};
    let mut network = silent(2);
    network.set_bias(1, DVector::from_element(2, 0.125)).unwrap();
    let before = network.clone();
    for loss in Loss::all() {
        let short = network.set_output_prior(loss, &[0.5]);
        assert!(matches!(short, Err(Error::ShapeMismatch { expected: (2, 1), found: (1, 1), .. })));
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(network.set_output_prior(loss, &[bad, 0.5]).is_err(), "{loss}: {bad}");
        }
    }
    // A class without a sample, counts in the place of shares, numbers below 0.
    for bad in [[0.0, 1.0], [1.0, 0.0], [3.0, 5.0], [-0.5, 1.5], [0.3, 0.3]] {
        let refused = network.set_output_prior(SoftmaxCrossEntropy, &bad);
        assert!(matches!(refused, Err(Error::InvalidParameter { .. })), "{bad:?}");
    }
    for bad in [[0.0, 0.5], [1.0, 0.5], [0.5, -0.1]] {
        let refused = network.set_output_prior(LogisticCrossEntropy, &bad).unwrap_err();
        assert!(refused.to_string().contains("every class needs a sample"), "{refused}");
    }
    assert_eq!(network, before);
    network.set_output_prior(LogisticCrossEntropy, &[0.3, 0.3]).unwrap();
    network.set_output_prior(MeanSquaredError, &[-3.0, 0.0]).unwrap();
    // What the scalar cannot hold.
    let mut single = Network::<f32>::builder(2).dense(1).build().unwrap();
    let huge = single.set_output_prior(MeanSquaredError, &[1e300]);
    assert!(matches!(huge, Err(Error::NonFinite { .. })));
    assert!(matches!(
        single.set_output_prior(SoftmaxCrossEntropy, &[0.5]),
        Err(Error::SoftmaxNeedsTwoOutputs)
    ));
    let mut bare = Network::<f32>::builder(2).dense_without_bias(2).build().unwrap();
    let refused = bare.set_output_prior(SoftmaxCrossEntropy, &[0.5, 0.5]);
    assert!(matches!(refused, Err(Error::NoSuchParameter { .. })));
    let builder = Trainer::builder(before).prior([0.0, 1.0]);
    assert!(matches!(builder.build(), Err(Error::InvalidParameter { .. })));
}

/// `ln 0.25`, `ln(0.25/0.75)`: written out.
#[test]
fn biases_are_logarithms_and_logits() {
    let bias = |loss| {
        let mut network = silent(2);
        network.set_output_prior(loss, &[0.25, 0.75]).unwrap();
        network.layer(1).unwrap().bias().unwrap().into_owned()
    };
    let softmax = bias(Loss::SoftmaxCrossEntropy);
    assert_relative_eq!(softmax[0], -1.386_294_361_119_890_6, max_relative = 1e-15);
    assert_relative_eq!(softmax[1], -0.287_682_072_451_780_9, max_relative = 1e-15);
    let logistic = bias(Loss::LogisticCrossEntropy);
    assert_relative_eq!(logistic[0], -1.098_612_288_668_109_8, max_relative = 1e-15);
    assert_relative_eq!(logistic[1], 1.098_612_288_668_109_8, max_relative = 1e-15);
    assert_eq!(bias(Loss::MeanSquaredError).as_slice(), [0.25, 0.75]);
}

fn feedback<T: Scalar>(network: &Network<T>, rule: FeedbackRule) -> Feedback<T> {
    Feedback::new(network, rule, FeedbackInit::Lillicrap, 7).unwrap()
}

fn diagnose(network: &Network<f64>, feedback: &Feedback<f64>) -> Diagnosis {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let x = random(network.input_len(), 9, 1);
    network.forward(&x, &mut activations).unwrap();
    Loss::SoftmaxCrossEntropy
        .error(&labels(9, network.output_len()), &activations, &mut deltas)
        .unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    let mut diagnostics = Diagnostics::new(network).unwrap();
    diagnostics.compare(network, feedback, &activations, &deltas).unwrap()
}

/// The matrices are `c_l (W_L ⋯ W_{l+1})ᵀ`, or `c_l W_{l+1}ᵀ`, and as long as they were.
#[test]
fn aligned_matrices_are_products_of_the_weights() {
    let network = dense::<f64>();
    let weights = |layer| network.layer(layer).unwrap().weights().into_owned();
    let own = [FeedbackRule::Fa, FeedbackRule::Kp, FeedbackRule::FrSf];
    for rule in own.into_iter().chain([FeedbackRule::Dfa, FeedbackRule::SDfa, FeedbackRule::Ifa]) {
        let start = feedback(&network, rule);
        let mut aligned = start.clone();
        aligned.align(&network).unwrap();
        let mut product = DMatrix::identity(3, 3);
        for layer in (0..3).rev() {
            product *= weights(layer + 1);
            let Some(old) = start.matrix(layer).unwrap() else { continue };
            let new = aligned.matrix(layer).unwrap().unwrap();
            let expected = if own.contains(&rule) { &weights(layer + 1) } else { &product };
            let expected = expected.transpose() * (old.norm() / expected.norm());
            assert!((&new - expected).amax() < 1e-14, "{rule}, layer {layer}");
            assert_relative_eq!(new.norm(), old.norm(), max_relative = 1e-14);
        }
        let again = {
            let mut again = aligned.clone();
            again.align(&network).unwrap();
            again
        };
        for (layer, (one, other)) in again.matrices().zip(aligned.matrices()).enumerate() {
            let (one, other) = (one.unwrap().1, other.unwrap().1);
            assert!((one - other).amax() < 1e-15, "{rule}, layer {layer}");
        }
        if rule == FeedbackRule::FrSf {
            continue; // It follows a forward pass.
        }
        for row in diagnose(&network, &aligned).hidden() {
            if let Some(angle) = row.feedback_angle {
                assert!(angle < 1e-6, "{rule}, {row:?}");
            }
        }
    }
}

/// Kernels stand where kernels do, and the product goes through convolutions. FA is then
/// backpropagation but for the lengths, whatever the layers do.
#[test]
fn aligned_feedback_goes_through_convolutions() {
    let bare = Network::<f64>::builder((2, 6, 5))
        .conv2d(Conv2d { stride: (2, 1), padding: (1, 0), ..Conv2d::new(3, 2) })
        .tanh()
        .conv2d(Conv2d::new(4, 2))
        .batch_norm()
        .logistic()
        .avg_pool2d(AvgPool2d::new(2, 1))
        .dense(4)
        .tanh()
        .dense(3)
        .seed(2)
        .build()
        .unwrap();
    for network in [&bare, &conv_net(), &residual_net()] {
        let mut fa = feedback(network, FeedbackRule::Fa);
        fa.align(network).unwrap();
        for row in diagnose(network, &fa).hidden() {
            assert!(row.feedback_angle.unwrap() < 1e-6, "{row:?}");
            // A residual connection adds what has been scaled to what has not.
            if !network.to_string().contains("skip") {
                assert!(row.delta_angle.unwrap() < 1e-6, "{row:?}");
            }
        }
    }
    // Pooling after layer 1 is fine for its own matrix, and ends the product.
    let route = "4:B(e)->2,B(e)->1".parse().unwrap();
    let mut direct = Feedback::with_route(&bare, route, FeedbackInit::Nokland, 1).unwrap();
    direct.align(&bare).unwrap();
    for row in &diagnose(&bare, &direct).hidden()[1..] {
        assert!(row.feedback_angle.unwrap() < 1e-6, "{row:?}");
    }
    feedback(&conv_net(), FeedbackRule::Dfa).align(&conv_net()).unwrap();
    for network in [&bare, &residual_net()] {
        for rule in [FeedbackRule::Dfa, FeedbackRule::Ifa] {
            let mut feedback = feedback(network, rule);
            let before = feedback.clone();
            let refused = feedback.align(network).unwrap_err().to_string();
            assert!(refused.contains("pooling or a residual connection"), "{refused}");
            assert_eq!(feedback, before);
        }
    }
}

/// Where hidden units are linear, aligned DFA points where backpropagation does.
#[test]
fn aligned_direct_feedback_is_at_0_for_linear_units() {
    let builder = Network::<f64>::builder(7).dense(6).dense(5).dense(4).dense(3);
    let network = builder.seed(4).build().unwrap();
    for rule in [FeedbackRule::Dfa, FeedbackRule::Fa] {
        let mut aligned = feedback(&network, rule);
        aligned.align(&network).unwrap();
        for row in diagnose(&network, &aligned).hidden() {
            assert!(row.delta_angle.unwrap() < 1e-6, "{rule}: {row:?}");
        }
    }
}

#[test]
fn what_cannot_be_aligned_is_refused() {
    let network = dense::<f32>();
    for rule in [
        FeedbackRule::Bp,
        FeedbackRule::Shallow,
        FeedbackRule::Drtp,
        FeedbackRule::USf,
        FeedbackRule::BrSf,
    ] {
        let refused = Trainer::builder(network.clone()).rule(rule).aligned().build();
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{rule}");
    }
    let mut zero = network.clone();
    zero.set_weights(3, DMatrix::zeros(3, 4)).unwrap();
    for rule in [FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let mut feedback = feedback(&zero, rule);
        let before = feedback.clone();
        let result = feedback.align(&zero);
        assert!(matches!(result, Err(Error::Conflict { .. })), "{rule}: {result:?}");
        assert_eq!(feedback, before);
        let other = Network::builder(7).dense(6).tanh().dense(3).build().unwrap();
        assert!(matches!(feedback.align(&other), Err(Error::StageMismatch { .. })));
    }
    let mut huge = network;
    for layer in [2, 3] {
        let (rows, columns) = huge.layer(layer).unwrap().weights().shape();
        huge.set_weights(layer, DMatrix::from_element(rows, columns, 1e25)).unwrap();
    }
    let refused = feedback(&huge, FeedbackRule::Dfa).align(&huge);
    assert!(matches!(refused, Err(Error::NonFinite { .. })), "{refused:?}");
}

#[cfg(feature = "safetensors")]
#[test]
fn a_checkpoint_keeps_every_cure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let signal = "centred>0.3".parse().unwrap();
    let builder = Trainer::builder(dense::<f32>()).rule(FeedbackRule::Dfa).signal(signal).aligned();
    let mut whole = builder.prior([0.5, 0.3, 0.2]).rate_factor(3, 10.0).build().unwrap();
    let x = random(7, 9, 1).map(f32::of);
    whole.step(&x, &labels(9, 3)).unwrap();
    whole.save(&path).unwrap();
    let mut resumed = Trainer::<f32>::load(&path).unwrap();
    for trainer in [&mut whole, &mut resumed] {
        trainer.step(&x, &labels(9, 3)).unwrap();
    }
    assert_eq!((resumed.network(), resumed.feedback()), (whole.network(), whole.feedback()));
    assert_eq!(resumed.optimizer().rate_factor(3).unwrap(), 10.0);
}

/// Biases decide how steep units are.
fn with_biases(biases: &[f64]) -> Diagnosis {
    let units = biases.len();
    let mut network = Network::<f64>::builder(2).dense(units).tanh().dense(2).build().unwrap();
    network.set_weights(0, DMatrix::zeros(units, 2)).unwrap();
    network.set_bias(0, DVector::from_column_slice(biases)).unwrap();
    diagnose(&network, &feedback(&network, FeedbackRule::Dfa))
}

#[test]
fn participation_is_the_share_of_units_that_can_learn() {
    let participation = |biases: &[f64]| with_biases(biases).layers[0].participation;
    assert_eq!(participation(&[0.0; 4]), Some(1.0));
    assert_relative_eq!(participation(&[0.7; 5]).unwrap(), 1.0, max_relative = 1e-14);
    assert_eq!(participation(&[0.0, 100.0, -100.0, 100.0]), Some(0.25));
    assert_eq!(participation(&[0.0, 100.0, 0.0, 100.0]), Some(0.5));
    assert_eq!(participation(&[100.0, -100.0]), None);
    // u = 1 and (1 − tanh²)² = s: (1 + s)²/(2 (1 + s²)).
    let s = (1.0 - 0.5_f64.tanh().powi(2)).powi(2);
    let expected = (1.0 + s).powi(2) / (2.0 * (1.0 + s * s));
    assert_relative_eq!(participation(&[0.0, 0.5]).unwrap(), expected, max_relative = 1e-14);
    // All samples look the same to such a layer.
    let found = with_biases(&[0.3, -0.2, 1.0]);
    assert_relative_eq!(found.layers[0].sample_cosine.unwrap(), 1.0, max_relative = 1e-14);
    assert_relative_eq!(found.layers[0].effective_rank.unwrap(), 1.0, max_relative = 1e-12);
    assert_eq!(found.layers[1].participation, None, "the output is linear");
}

/// Samples that make the same error have nothing but a common mode; two that make opposite ones
/// have none.
#[test]
fn the_common_mode_is_what_samples_share() {
    let mut network = silent(1);
    network.set_bias(1, DVector::from_element(1, 0.5)).unwrap();
    let builder = Trainer::builder(network.clone()).loss(Loss::MeanSquaredError);
    let trainer = builder.build().unwrap();
    let mut diagnostics = Diagnostics::new(&network).unwrap();
    let mut shares = |y: &[usize]| {
        let x = DMatrix::from_element(2, y.len(), 0.3);
        let found = diagnostics.observe(&trainer, &x, y).unwrap();
        [0, 1].map(|layer: usize| found.layers[layer].common_mode.unwrap())
    };
    assert_eq!(shares(&[1, 0, 0, 1]), [0.0; 2]);
    for (y, expected) in [([1, 1, 1, 1], 1.0), ([1, 1, 1, 0], 0.25)] {
        for share in shares(&y) {
            assert_relative_eq!(share, expected, max_relative = 1e-14);
        }
    }
}

/// After 20 steps of the run with NumPy in `signals.rs`, DFA with the plain error, NumPy finds:
///
/// ```python
/// W, b, x, t, B = ...
/// h = [x]
/// for l in range(2): h.append(np.tanh(W[l] @ h[l] + b[l]))
/// a = W[2] @ h[2] + b[2]
/// e = (np.exp(a) / np.exp(a).sum(0) - t) / 8
/// for l in (1, 2, 3):
///     H = h[l] if l < 3 else a
///     d = (B[l - 1] @ e) * (1 - H ** 2) if l < 3 else e
///     u = ((1 - H ** 2) ** 2).mean(1)
///     participation = u.sum() ** 2 / (len(u) * (u ** 2).sum())
///     c = H / np.linalg.norm(H, axis=0)
///     cosine = ((c.T @ c).sum() - 8) / 56
///     s = np.linalg.svd(H, compute_uv=False) ** 2; s = s / s.sum()
///     print(participation, cosine, np.exp(-(s * np.log(s)).sum()), share(d))
/// ```
#[test]
fn what_diagnoses_say_is_what_numpy_finds() {
    let network = numpy_net();
    let mut own = feedback(&network, FeedbackRule::Dfa);
    own.set_matrix(0, sines(6, 3).add_scalar(0.1)).unwrap();
    own.set_matrix(1, sines(4, 3).add_scalar(0.1)).unwrap();
    let sgd = Sgd { learning_rate: 0.1, ..Sgd::default() };
    let mut trainer = Trainer::builder(network).feedback(own).optimizer(sgd).build().unwrap();
    let (x, y) = (sines(8, 5).transpose(), [0, 2, 1, 0, 2, 1, 0, 2]);
    for _ in 0..20 {
        trainer.step(&x, &y).unwrap();
    }
    let found = Diagnostics::new(trainer.network()).unwrap().observe(&trainer, &x, &y).unwrap();
    let expected = [
        [
            Some(0.997_908_030_265_172_2),
            Some(0.270_899_887_400_893_55),
            Some(2.627_694_592_656_917),
            Some(0.000_382_683_690_652_048),
        ],
        [
            Some(0.759_456_566_609_465_5),
            Some(0.984_489_440_552_571_5),
            Some(1.081_804_268_395_566),
            Some(6.639_583_790_602_053e-5),
        ],
        [
            None,
            Some(0.999_219_305_698_517_6),
            Some(1.006_018_634_218_746),
            Some(0.001_297_634_183_417_825_6),
        ],
    ];
    for (row, expected) in found.layers.iter().zip(expected) {
        let found = [row.participation, row.sample_cosine, row.effective_rank, row.common_mode];
        for (found, expected) in found.into_iter().zip(expected) {
            assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                assert_relative_eq!(found, expected, max_relative = 1e-9);
            }
        }
    }
}

/// `J` along the change that a step makes, by central differences.
#[test]
fn the_descent_is_the_slope_along_the_step() {
    fn loss(network: &Network<f64>, x: &DMatrix<f64>, y: &[usize]) -> f64 {
        let (mut activations, mut deltas) = (Activations::seeded(4), Deltas::new());
        network.forward(x, &mut activations).unwrap();
        Loss::SoftmaxCrossEntropy.error(y, &activations, &mut deltas).unwrap()
    }
    for network in [dense(), conv_net(), residual_net()] {
        let (x, y) = (random(network.input_len(), 9, 1), labels(9, 3));
        for rule in [FeedbackRule::Bp, FeedbackRule::Dfa, FeedbackRule::Ifa, FeedbackRule::Kp] {
            for optimizer in optimizers() {
                let mut trainer = Trainer::builder(network.clone())
                    .rule(rule)
                    .optimizer(optimizer)
                    .max_norm(1.4)
                    .seed(4)
                    .build()
                    .unwrap();
                let mut diagnostics = Diagnostics::new(&network).unwrap();
                let descent = diagnostics.descent(&trainer, &x, &y).unwrap();
                assert_eq!(trainer.network(), &network);
                trainer.step(&x, &y).unwrap();
                for (layer, &found) in descent.iter().enumerate() {
                    let along = |by: f64| {
                        let mut moved = network.clone();
                        for slot in network.parameters().slots() {
                            if slot.layer != layer || !slot.part.is_learned() {
                                continue;
                            }
                            let (old, new) = (network.parameters(), trainer.network().parameters());
                            let range = slot.range();
                            let (old, new) =
                                (&old.as_slice()[range.clone()], &new.as_slice()[range]);
                            let values: Vec<f64> = old
                                .iter()
                                .zip(new)
                                .map(|(old, new)| old + by * (new - old))
                                .collect();
                            moved.set_parameter(layer, slot.part, &values).unwrap();
                        }
                        loss(&moved, &x, &y)
                    };
                    // Small enough that tanh does not bend, large enough against rounding.
                    let step = 1e-3;
                    let expected = (along(-step) - along(step)) / (2.0 * step);
                    let error = (found - expected).abs();
                    assert!(
                        error < 1e-6 * expected.abs() + 1e-10,
                        "{network}, {rule}, {optimizer:?}, layer {layer}: {found}, {expected}"
                    );
                }
                if rule == FeedbackRule::Bp
                    && matches!(optimizer, feedback_alignment::Optimizer::Sgd(sgd) if sgd.weight_decay == WeightDecay::None && sgd.momentum == Momentum::None)
                {
                    assert!(descent.iter().all(|&descent| descent >= 0.0), "{descent:?}");
                }
            }
        }
    }
}

/// A layer that stays goes nowhere.
#[test]
fn a_frozen_layer_and_one_without_feedback_have_no_descent() {
    let mut network = dense::<f32>();
    network.freeze(1).unwrap();
    let (x, y) = (random(7, 9, 1).map(f32::of), labels(9, 3));
    let mut diagnostics = Diagnostics::new(&network).unwrap();
    let builder = Trainer::builder(network.clone()).rule(FeedbackRule::Bp);
    let descent = diagnostics.descent(&builder.build().unwrap(), &x, &y).unwrap();
    assert_eq!(descent.iter().map(|&d| d > 0.0).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(descent[1], 0.0);
    let shallow = Trainer::builder(network).rule(FeedbackRule::Shallow).build().unwrap();
    let descent = diagnostics.descent(&shallow, &x, &y).unwrap();
    assert_eq!(descent[..3], [0.0; 3]);
    assert!(descent[3] > 0.0);
    assert!(diagnostics.descent(&shallow, &random(6, 9, 1).map(f32::of), &y).is_err());
}
