//! Feedback matrices that learn: direct Kolen-Pollack, weight mirrors, products.

#[cfg(feature = "safetensors")]
use crate::nets::conv_net;
use crate::{
    helpers::{
        assert_weights, hundred_steps, magnitude, numbers, numpy_net, numpy_sgd, sines, thirds,
    },
    nets::dense_net,
};
use feedback_alignment::{
    Activation, Activations, Adam, Conv2d, Deltas, Diagnostics, Error, Feedback, FeedbackInit,
    FeedbackRule, Gradients, Loss, MaxPool2d, Mirror, Momentum, Network, Optimizer, OptimizerState,
    RmsProp, Route, Sgd, Trainer, WeightDecay, nalgebra::DMatrix,
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

/// Convolutions with strides and padding, one of them without pooling.
fn kernels() -> Network<f64> {
    Network::builder((2, 7, 6))
        .conv2d(Conv2d { padding: (1, 0), ..Conv2d::new(3, 3) })
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d { stride: (1, 2), padding: (0, 1), ..Conv2d::new(4, 2) })
        .logistic()
        .dense(5)
        .tanh()
        .dense(3)
        .seed(2)
        .build()
        .unwrap()
}

fn on(network: &Network<f64>, route: &str) -> Feedback<f64> {
    let route: Route = route.parse().unwrap();
    Feedback::with_route(network, route, FeedbackInit::Lillicrap, 7).unwrap()
}

fn optimizers() -> [Optimizer; 4] {
    let momentum = Momentum::Nesterov(0.9);
    [
        Sgd { learning_rate: 0.2, weight_decay: WeightDecay::L2(0.1), ..Sgd::default() }.into(),
        Sgd { learning_rate: 0.05, momentum, ..Sgd::default() }.into(),
        RmsProp { learning_rate: 1e-3, ..RmsProp::default() }.into(),
        Adam { learning_rate: 1e-3, ..Adam::default() }.into(),
    ]
}

fn trained(
    network: &Network<f64>,
    feedback: Feedback<f64>,
    optimizer: Optimizer,
    steps: usize,
) -> Trainer<f64> {
    let builder = Trainer::builder(network.clone()).feedback(feedback).optimizer(optimizer);
    let mut trainer = builder.build().unwrap();
    for step in 0..steps {
        trainer.step(&numbers(network.input_len(), 9, step), &thirds(9)).unwrap();
    }
    trainer
}

fn close(found: &DMatrix<f64>, expected: &DMatrix<f64>, within: f64) -> bool {
    (found - expected).amax() <= within * expected.amax() && expected.amax() > 1e-3
}

/// The last hidden layer of direct Kolen-Pollack has the matrix of Kolen-Pollack, `∂B = (∂W_L)ᵀ`, by
/// every optimiser; with one hidden layer that is all.
#[test]
fn the_last_direct_matrix_is_that_of_kolen_and_pollack() {
    for (network, direct, other) in [
        (dense_net(), "4:D(e)->2,B(e)->1,B(e)->0", "4:K(e)->2,B(e)->1,B(e)->0"),
        (kernels(), "4:D(e)->2,B(e)->1,B(e)->0", "4:K(e)->2,B(e)->1,B(e)->0"),
        (
            Network::builder(7).dense(6).tanh().dense(3).seed(1).build().unwrap(),
            "2:D(e)->0",
            "2:K(e)->0",
        ),
    ] {
        for optimizer in optimizers() {
            let (direct, mut kp) = (on(&network, direct), on(&network, other));
            let last = network.layer_count() - 2;
            for layer in 0..=last {
                kp.set_matrix(layer, direct.matrix(layer).unwrap().unwrap()).unwrap();
            }
            let direct = trained(&network, direct, optimizer, 10);
            let kp = trained(&network, kp, optimizer, 10);
            let [one, two] =
                [&direct, &kp].map(|trainer| trainer.feedback().matrix(last).unwrap().unwrap());
            assert!(close(&one, &two, 1e-11), "{optimizer:?}: {}", (one - two).amax());
            for layer in 0..network.layer_count() {
                let weights = |trainer: &Trainer<f64>| {
                    trainer.network().layer(layer).unwrap().weights().into_owned()
                };
                assert!(close(&weights(&direct), &weights(&kp), 1e-11), "{optimizer:?}");
            }
        }
    }
}

/// Under plain SGD `B R_t − (1−λη)ᵗ B R_0 = B Bᵀ (W_t − (1−λη)ᵗ W_0)`: what the product learns is what
/// the weights learn, seen through the fixed factor.
#[test]
fn a_product_learns_what_the_weights_learn() {
    for network in [dense_net(), kernels()] {
        for lambda in [0.0, 0.1] {
            let sgd = Sgd {
                learning_rate: 0.3,
                weight_decay: WeightDecay::Decoupled(lambda),
                ..Sgd::default()
            };
            let start = on(&network, "4:P3(e)->2,P2(2)->1,P1(1)->0");
            let trainer = trained(&network, start.clone(), sgd.into(), 12);
            let left = (1.0 - 0.3 * lambda).powi(12);
            for layer in 0..3 {
                let [r, b] = trainer.feedback().factors(layer).unwrap().unwrap();
                let [r_before, b_before] = start.factors(layer).unwrap().unwrap();
                assert_eq!(b, b_before, "the fixed factor is fixed");
                let weights = |network: &Network<f64>| {
                    network.layer(layer + 1).unwrap().weights().into_owned()
                };
                let learned = weights(trainer.network()) - weights(&network) * left;
                let expected = &b * b.transpose() * learned;
                let found = &b * r - &b * r_before * left;
                assert!(close(&found, &expected, 1e-11), "{network}, layer {layer}");
            }
        }
    }
}

/// With `B = 1` and `R_0 = W_0` it is backpropagation, by every optimiser.
#[test]
fn a_product_that_begins_as_the_weights_is_backpropagation() {
    for network in [dense_net(), kernels()] {
        for optimizer in optimizers() {
            let mut product = on(&network, "4:P1(e)->2,P1(2)->1,P1(1)->0");
            for layer in 0..3 {
                let weights = network.layer(layer + 1).unwrap().weights().into_owned();
                let one = DMatrix::identity(weights.nrows(), weights.nrows());
                product.set_factors(layer, [weights, one]).unwrap();
            }
            let bp = Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::Nokland, 1).unwrap();
            let (found, expected) =
                (trained(&network, product, optimizer, 5), trained(&network, bp, optimizer, 5));
            for layer in 0..4 {
                let weights = |trainer: &Trainer<f64>| {
                    trainer.network().layer(layer).unwrap().weights().into_owned()
                };
                assert!(close(&weights(&found), &weights(&expected), 1e-12), "{optimizer:?}");
            }
        }
    }
}

/// The rows of the fixed factor are close to orthonormal, so that the product is as large as `R`.
#[test]
fn the_fixed_factor_keeps_lengths() {
    let network = Network::<f64>::builder(4).dense(30).tanh().dense(20).build().unwrap();
    let feedback = Feedback::new(&network, FeedbackRule::Pfa, FeedbackInit::Nokland, 1).unwrap();
    let [r, b] = feedback.factors(0).unwrap().unwrap();
    assert_eq!((r.shape(), b.shape()), ((200, 30), (20, 200)));
    let square = &b * b.transpose() - DMatrix::identity(20, 20);
    assert!(square.amax() < 0.35, "{}", square.amax());
    let whole = feedback.matrix(0).unwrap().unwrap();
    assert_eq!(whole.shape(), (30, 20));
    let deviation = |m: &DMatrix<f64>| (m.norm_squared() / m.len() as f64).sqrt();
    assert!((deviation(&whole) / deviation(&r) - 1.0).abs() < 0.1);
}

/// What noise makes of a mirror: `ΔB = rate Σ x yᵀ − decay B`, from which follows all of the rest.
fn reflect(network: &Network<f64>, feedback: &mut Feedback<f64>, times: usize) {
    let mut activations = Activations::new();
    for _ in 0..times {
        network.forward(&numbers(network.input_len(), 2, 1), &mut activations).unwrap();
        feedback.follow(network, &activations).unwrap();
    }
}

/// Linear units without bias: `ΔB = rate Σ x xᵀ Wᵀ`, and the identity tells what `Σ x xᵀ` is.
#[test]
fn a_mirror_of_linear_units_adds_what_the_weights_make_of_the_noise() {
    let with = |weights: &DMatrix<f64>| {
        let builder = Network::builder(3).dense(5).tanh().dense_without_bias(5);
        let mut network = builder.dense(2).build().unwrap();
        network.set_weights(1, weights.clone()).unwrap();
        let mut mirror = on(&network, "3:M(1)->0,B(e)->1");
        let how = Mirror {
            rate: 0.1,
            decay: 0.25,
            bound: 0.5,
            batch: 33,
            before: 1,
            ..Mirror::default()
        };
        mirror.set_mirror(how).unwrap();
        let before = mirror.matrix(0).unwrap().unwrap();
        reflect(&network, &mut mirror, 1);
        mirror.matrix(0).unwrap().unwrap() - before * 0.75
    };
    // `rate Σ x xᵀ`, symmetric, with the variance of the noise in its diagonal.
    let squares = with(&DMatrix::identity(5, 5));
    assert!((&squares - squares.transpose()).amax() < 1e-14);
    let variance = squares.trace() / 5.0 / (0.1 * 33.0);
    assert!((variance / (0.25 / 3.0) - 1.0).abs() < 0.2, "{variance}");
    let weights = numbers(5, 5, 3);
    let (found, expected) = (with(&weights), &squares * weights.transpose());
    assert!(close(&found, &expected, 1e-13), "{found} {expected}");
}

/// It turns to the weights, dense or kernels, up to a factor for each answer's slope, and by default has
/// their size in the end.
#[test]
fn a_mirror_turns_to_the_weights() {
    let builder = Network::builder((2, 7, 6)).conv2d(Conv2d::new(3, 3)).tanh();
    let builder = builder.conv2d(Conv2d { padding: (1, 0), ..Conv2d::new(2, 2) });
    let network = builder.dense(6).tanh().dense(4).seed(4).build().unwrap();
    let mut mirrors =
        Feedback::new(&network, FeedbackRule::Wm, FeedbackInit::Lillicrap, 3).unwrap();
    let x = numbers(84, 9, 1);
    let angles = |feedback: &Feedback<f64>| {
        let builder = Trainer::builder(network.clone()).feedback(feedback.clone());
        let trainer = builder.build().unwrap();
        let mut diagnostics = Diagnostics::new(&network).unwrap();
        let found = diagnostics.observe(&trainer, &x, &[1; 9]).unwrap();
        found.hidden().iter().map(|layer| layer.feedback_angle.unwrap()).collect::<Vec<_>>()
    };
    let before = angles(&mirrors);
    assert!(before.iter().all(|angle| (60.0..120.0).contains(angle)), "{before:?}");
    let how = Mirror {
        before: 6000,
        batch: 32,
        decay: 0.01 * 32.0 * 0.05 * 0.05 / 3.0,
        ..Mirror::default()
    };
    mirrors.set_mirror(Mirror { bound: 0.5, decay: how.decay * 100.0, ..how }).unwrap();
    reflect(&network, &mut mirrors, 1);
    let after = angles(&mirrors);
    assert!(after.iter().all(|&angle| angle < 12.0), "{after:?}");
    let (b, w) = (mirrors.matrix(2).unwrap().unwrap(), network.layer(3).unwrap());
    let size = b.norm() / w.weights().norm();
    assert!((size - 1.0).abs() < 0.2, "{size}");
    // A second time in the same pass it does not look again.
    let (mut activations, same) = (Activations::new(), mirrors.clone());
    network.forward(&x, &mut activations).unwrap();
    mirrors.follow(&network, &activations).unwrap();
    let once = mirrors.clone();
    mirrors.follow(&network, &activations).unwrap();
    assert!(mirrors == once && once != same);
}

/// What the output layer answers with counts for its mirror alone.
#[test]
fn the_output_answers_as_it_is_told() {
    let network = dense_net();
    let with = |output| {
        let mut mirrors =
            Feedback::new(&network, FeedbackRule::Wm, FeedbackInit::Lillicrap, 3).unwrap();
        mirrors.set_mirror(Mirror { before: 1, output, ..Mirror::default() }).unwrap();
        reflect(&network, &mut mirrors, 1);
        [0, 1, 2].map(|layer| mirrors.matrix(layer).unwrap().unwrap())
    };
    let (plain, logistic) = (with(Activation::Identity), with(Activation::Logistic));
    assert_eq!([0, 1], [0, 1].map(|layer| if plain[layer] == logistic[layer] { layer } else { 9 }));
    assert_ne!(plain[2], logistic[2]);
}

/// Constants out of range, and mirrors that would overflow, change nothing.
#[test]
fn impossible_mirrors_are_refused() {
    let network = dense_net();
    let mut mirrors =
        Feedback::new(&network, FeedbackRule::Wm, FeedbackInit::Lillicrap, 3).unwrap();
    let plain = Mirror::default();
    let before = mirrors.clone();
    for bad in [
        Mirror { rate: 0.0, ..plain },
        Mirror { rate: f64::NAN, ..plain },
        Mirror { decay: 1.0, ..plain },
        Mirror { decay: -0.1, ..plain },
        Mirror { bound: f64::INFINITY, ..plain },
        Mirror { batch: 0, ..plain },
        Mirror { before: 0, ..plain },
        Mirror { before: 1_000_001, ..plain },
        Mirror { output: Activation::LeakyRelu { slope: f64::NAN }, ..plain },
    ] {
        assert!(mirrors.set_mirror(bad).is_err(), "{bad:?}");
    }
    assert_eq!(mirrors, before);
    let mut activations = Activations::new();
    network.forward(&numbers(7, 2, 1), &mut activations).unwrap();
    for (rate, batch, bound) in
        [(1e308, 9, 0.05), (1.0, usize::MAX, 0.05), (1e200, 9, 0.05), (1e-300, 9, 1e300)]
    {
        mirrors.set_mirror(Mirror { rate, batch, bound, ..plain }).unwrap();
        let before = mirrors.clone();
        let refused = mirrors.follow(&network, &activations).unwrap_err();
        assert!(matches!(refused, Error::NonFinite { .. } | Error::TooLarge { .. }), "{refused}");
        assert_eq!(mirrors, before);
    }
    // All batches before the first step count, but with decay not for ever.
    let accepts = |rate: f64, decay: f64, before: usize| {
        let mut mirrors = mirrors.clone();
        mirrors.set_mirror(Mirror { rate, decay, before, batch: 2, ..plain }).unwrap();
        mirrors.follow(&network, &activations).is_ok()
    };
    let doubled = std::iter::successors(Some(1e100), |rate| Some(rate * 2.0));
    let most = doubled.take_while(|&rate| accepts(rate, 0.0, 1)).last().unwrap();
    assert!(!accepts(most, 0.0, 100) && accepts(most / 200.0, 0.0, 100));
    assert!(!accepts(most, 0.01, 100) && accepts(most / 4.0, 0.5, 100));
}

/// In `f32` noise is refused if an answer to it, a product with the answer, or a square of the matrix would
/// overflow. It is accepted with large weights if a bounded activation keeps the answers small.
#[test]
fn mirrors_that_would_overflow_in_single_precision_are_refused() {
    let x = DMatrix::from_element(3, 2, 0.5_f32);
    let follow = |activation: Activation, weight: f32, mirror: Mirror| {
        let builder = Network::<f32>::builder(3).dense(4).activation(activation);
        let mut network = builder.dense(4).activation(activation).dense(2).build().unwrap();
        network.set_weights(1, DMatrix::from_element(4, 4, weight)).unwrap();
        let mut mirrors =
            Feedback::new(&network, FeedbackRule::Wm, FeedbackInit::Lillicrap, 3).unwrap();
        mirrors.set_mirror(mirror).unwrap();
        let (before, mut activations) = (mirrors.clone(), Activations::new());
        network.forward(&x, &mut activations).unwrap();
        let followed = mirrors.follow(&network, &activations);
        assert!(followed.is_ok() || mirrors == before);
        for matrix in mirrors.matrices() {
            assert!(matrix.unwrap().1.iter().all(|entry| (entry * entry).is_finite()));
        }
        followed
    };
    let plain = Mirror { decay: 0.0, before: 1, batch: 2, ..Mirror::default() };
    let (linear, tanh) = (Activation::Identity, Activation::Tanh);
    follow(linear, 1.0, Mirror::default()).unwrap();
    follow(tanh, 1e15, plain).unwrap();
    for (activation, weight, mirror) in [
        (linear, 1.0, Mirror { rate: 1e22, ..plain }),
        (linear, 1.0, Mirror { rate: 1e-30, bound: 1e20, ..plain }),
        (tanh, 1e15, Mirror { rate: 1e-30, bound: 1e25, output: tanh, ..plain }),
    ] {
        let refused = follow(activation, weight, mirror).unwrap_err();
        assert!(matches!(refused, Error::NonFinite { .. }), "{refused}");
    }
}

/// Gradients of feedback add up over the parts of a batch as those of the network do.
#[test]
fn gradients_of_feedback_add_up() {
    for (network, rule) in [dense_net(), kernels()].into_iter().flat_map(|network| {
        [FeedbackRule::Dkp, FeedbackRule::Pfa].map(|rule| (network.clone(), rule))
    }) {
        let sgd = Sgd { learning_rate: 0.2, ..Sgd::default() };
        let mut trainer =
            Trainer::builder(network.clone()).rule(rule).optimizer(sgd).build().unwrap();
        let mut twin = trainer.clone();
        let (x, y) = (numbers(network.input_len(), 8, 1), thirds(8));
        let (mut part, mut whole) = (Gradients::new(), Gradients::new());
        for half in [0, 4] {
            trainer.gradients(x.columns(half, 4), &y[half..half + 4], &mut part).unwrap();
            whole.add(&part, 0.5).unwrap();
        }
        assert_eq!(whole.feedback_values().count(), 3);
        trainer.apply(&whole).unwrap();
        twin.step(&x, &y).unwrap();
        for layer in 0..3 {
            let [one, two] =
                [&trainer, &twin].map(|trainer| trainer.feedback().matrix(layer).unwrap().unwrap());
            assert!(close(&one, &two, 1e-13), "{rule}, layer {layer}");
            assert_ne!(
                one,
                Trainer::builder(network.clone())
                    .rule(rule)
                    .build()
                    .unwrap()
                    .feedback()
                    .matrix(layer)
                    .unwrap()
                    .unwrap()
            );
        }
        // A rule without such gradients leaves none behind.
        trainer.set_rule(FeedbackRule::Kp).unwrap();
        trainer.gradients(&x, &y, &mut part).unwrap();
        assert_eq!(part.feedback_values().count(), 0);
        let mut other = Trainer::builder(network).rule(rule).build().unwrap();
        let refused = other.apply(&part).unwrap_err().to_string();
        assert!(refused.contains("Feedback::gradients"), "{refused}");
    }
}

/// What another feedback has delivered is no source of gradients for this one.
#[test]
fn gradients_want_what_this_feedback_has_delivered() {
    let network = dense_net();
    let (product, kp) = (on(&network, "4:P3(e)->2,P2(2)->1,P1(1)->0"), on(&network, "4:K(e)->2"));
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(&numbers(7, 9, 1), &mut activations).unwrap();
    LOSS.error(&thirds(9), &activations, &mut deltas).unwrap();
    kp.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    let refused = product.gradients(&network, &activations, &deltas, &mut gradients).unwrap_err();
    assert!(matches!(refused, Error::StageMismatch { .. }), "{refused}");
    product.deliver(&network, &activations, &mut deltas).unwrap();
    product.gradients(&network, &activations, &deltas, &mut gradients).unwrap();
    let refused = product.gradients(&kernels(), &activations, &deltas, &mut gradients).unwrap_err();
    assert!(matches!(refused, Error::StageMismatch { .. }), "{refused}");
}

/// A frozen layer's feedback rests, and a step that would overflow changes nothing.
#[test]
fn matrices_rest_with_the_layer_that_sends_to_them() {
    let network = dense_net();
    let feedback = on(&network, "4:P2(e)->2,P2(2)->1,D(1)->0");
    let builder = Trainer::builder(network).feedback(feedback.clone());
    let mut trainer = builder.optimizer(Adam::default()).build().unwrap();
    trainer.freeze(2).unwrap();
    trainer.step(&numbers(7, 9, 1), &thirds(9)).unwrap();
    let same = |layer| trainer.feedback().matrix(layer).unwrap() == feedback.matrix(layer).unwrap();
    assert_eq!([0, 1, 2].map(same), [false, true, false]);

    let mut small = Network::<f32>::builder(2).dense(3).dense(2).build().unwrap();
    let mut dkp = Feedback::new(&small, FeedbackRule::Dkp, FeedbackInit::Nokland, 1).unwrap();
    dkp.set_matrix(0, DMatrix::from_element(3, 2, 3e38)).unwrap();
    let sgd = Sgd { learning_rate: 1e-3, weight_decay: WeightDecay::L2(0.5), ..Sgd::default() };
    let mut optimizer = OptimizerState::new(&small, sgd).unwrap();
    let huge = Sgd { learning_rate: 3e38, ..Sgd::default() };
    optimizer.set_feedback_optimizer(Some(huge.into())).unwrap();
    let bp = Feedback::new(&small, FeedbackRule::Bp, FeedbackInit::Nokland, 1).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    small.forward(&DMatrix::from_element(2, 1, 9.0), &mut activations).unwrap();
    LOSS.error(&[0], &activations, &mut deltas).unwrap();
    bp.deliver(&small, &activations, &mut deltas).unwrap();
    small.gradients(&activations, &deltas, &mut gradients).unwrap();
    dkp.gradients(&small, &activations, &deltas, &mut gradients).unwrap();
    let (old, before) = (small.clone(), dkp.clone());
    let refused = optimizer.step_with_feedback(&mut small, &mut dkp, &gradients).unwrap_err();
    assert!(matches!(refused, Error::NonFinite { .. }), "{refused}");
    assert_eq!((small, dkp, optimizer.steps()), (old, before, 0));
}

/// A velocity is no mean of squares: with another kind of optimiser the moments of the feedback start at
/// 0, as those of new feedback with the same matrices do.
#[test]
fn another_kind_of_optimizer_for_the_feedback_starts_without_moments() {
    let network = dense_net();
    let momentum = Sgd { momentum: Momentum::Classical(0.9), ..Sgd::default() };
    let rms = RmsProp { learning_rate: 1e-3, ..RmsProp::default() };
    let step = |trainer: &mut Trainer<f64>, step| {
        trainer.step(&numbers(network.input_len(), 9, step), &thirds(9)).unwrap();
    };
    for rule in [FeedbackRule::Dkp, FeedbackRule::Kp] {
        let builder = Trainer::builder(network.clone()).rule(rule).optimizer(Sgd::default());
        let mut trainer = builder.feedback_optimizer(momentum).build().unwrap();
        (0..3).for_each(|number| step(&mut trainer, number));
        trainer.set_feedback_optimizer(Some(rms.into())).unwrap();

        let mut feedback =
            Feedback::new(trainer.network(), rule, FeedbackInit::Nokland, 9).unwrap();
        for layer in 0..network.layer_count() - 1 {
            let matrix = trainer.feedback().matrix(layer).unwrap().unwrap();
            feedback.set_matrix(layer, matrix).unwrap();
        }
        let fresh = Trainer::builder(trainer.network().clone()).feedback(feedback);
        let fresh = fresh.optimizer(Sgd::default()).feedback_optimizer(rms);
        let mut fresh = fresh.build().unwrap();
        for number in 3..6 {
            step(&mut trainer, number);
            step(&mut fresh, number);
            assert_eq!(trainer.network(), fresh.network(), "{rule}");
            assert_eq!(trainer.feedback(), fresh.feedback(), "{rule}");
        }
    }
}

#[test]
fn gradients_of_other_feedback_are_not_added() {
    let network = dense_net();
    let gradients = |rule| {
        let builder = Trainer::builder(network.clone()).rule(rule);
        let (mut trainer, mut gradients) = (builder.build().unwrap(), Gradients::new());
        let x = numbers(network.input_len(), 9, 1);
        trainer.gradients(&x, &thirds(9), &mut gradients).unwrap();
        gradients
    };
    let (dkp, pfa) = (gradients(FeedbackRule::Dkp), gradients("pfa".parse().unwrap()));
    let mut sum = dkp.clone();
    let refused = sum.add(&pfa, 1.0).unwrap_err();
    assert!(matches!(refused, Error::StageMismatch { .. }), "{refused}");
    assert_eq!(sum, dkp);
    sum.add(&gradients(FeedbackRule::Bp), 0.5).unwrap();
    sum.add(&dkp, 0.5).unwrap();
}

/// 100 steps of SGD with momentum and decay, computed with NumPy in float64; once with Adam for `B`:
///
/// ```python
/// import numpy as np
/// def fill(rows, columns): return 0.5 * np.sin(0.7 * np.arange(1, rows * columns + 1)).reshape(rows, columns)
/// def run(rule, steps=100, rate=0.1, mu=0.9, decay=0.01, k=2):
///     n = [5, 6, 4, 3]
///     W = [fill(n[l + 1], n[l]) for l in range(3)]; b = [fill(n[l + 1], 1) for l in range(3)]
///     # What learns: B_l, n_l x n_L, of DKP; R_l, k n_{l+1} x n_l, of PFA, beside F_l, n_{l+1} x k n_{l+1}.
///     P = [fill(n[l + 1], n[3]) + 0.1 if rule != "PFA" else fill(k * n[l + 2], n[l + 1]) + 0.1 for l in range(2)]
///     F = [fill(n[l + 2], k * n[l + 2]) - 0.1 for l in range(2)]
///     x, t = fill(8, 5).T, np.eye(3)[[0, 2, 1, 0, 2, 1, 0, 2]].T
///     vW, vb, vP = [0 * w for w in W], [0 * v for v in b], [0 * v for v in P]; m = [0 * v for v in P]
///     for step in range(1, steps + 1):
///         h = [x]
///         for l in range(2): h.append(np.tanh(W[l] @ h[l] + b[l]))
///         a = W[2] @ h[2] + b[2]
///         p = np.exp(a) / np.exp(a).sum(0)
///         d = [None, None, (p - t) / 8]; gP = [None, None]
///         for l in (1, 0):
///             if rule == "PFA": s = F[l].T @ d[l + 1]; gP[l] = s @ h[l + 1].T; s = P[l].T @ s
///             else: s = P[l] @ d[2]; gP[l] = h[l + 1] @ d[2].T
///             d[l] = s * (1 - h[l + 1] ** 2)
///         for l in range(2):
///             if rule == "DKP by Adam":
///                 m[l] = 0.9 * m[l] + 0.1 * gP[l]; vP[l] = 0.999 * vP[l] + 0.001 * gP[l] ** 2
///                 P[l] = P[l] - 0.01 * (m[l] / (1 - 0.9 ** step)) / (np.sqrt(vP[l] / (1 - 0.999 ** step)) + 1e-8)
///             else: vP[l] = mu * vP[l] + gP[l] + decay * P[l]; P[l] = P[l] - rate * vP[l]
///         for l in range(3):
///             vW[l] = mu * vW[l] + d[l] @ h[l].T + decay * W[l]; W[l] = W[l] - rate * vW[l]
///             vb[l] = mu * vb[l] + d[l].sum(1, keepdims=True); b[l] = b[l] - rate * vb[l]
///     return [np.abs(v).sum() for v in W] + [W[0][1, 2], np.abs(P[0]).sum()]
/// ```
#[test]
fn a_hundred_steps_are_those_of_numpy() {
    let network = numpy_net();
    let x = sines(8, 5).transpose();
    let adam = Adam { learning_rate: 0.01, ..Adam::default() };
    for (route, own, expected) in [
        ("3:D(e)->0,D(e)->1", None, DKP),
        ("3:D(e)->0,D(e)->1", Some(adam), DKP_BY_ADAM),
        ("3:P2(1)->0,P2(e)->1", None, PFA),
    ] {
        let mut feedback = on(&network, route);
        for layer in 0..2 {
            if let Some([r, b]) = feedback.factors(layer).unwrap() {
                let r = sines(r.nrows(), r.ncols()).add_scalar(0.1);
                let b = sines(b.nrows(), b.ncols()).add_scalar(-0.1);
                feedback.set_factors(layer, [r, b]).unwrap();
            } else {
                let (rows, columns) = feedback.matrix(layer).unwrap().unwrap().shape();
                feedback.set_matrix(layer, sines(rows, columns).add_scalar(0.1)).unwrap();
            }
        }
        let mut builder =
            Trainer::builder(network.clone()).feedback(feedback).optimizer(numpy_sgd());
        if let Some(adam) = own {
            builder = builder.feedback_optimizer(adam);
        }
        let trainer = hundred_steps(builder, &x);
        assert_weights(route, &trainer, &expected, 1e-12);
        let learned = match trainer.feedback().factors(0).unwrap() {
            Some([r, _]) => r,
            None => trainer.feedback().matrix(0).unwrap().unwrap(),
        };
        let found = magnitude(&learned);
        assert!((found / expected[4] - 1.0).abs() < 1e-12, "{route}: B {found}");
    }
}

/// `Σ|W_1|`, `Σ|W_2|`, `Σ|W_3|`, an entry of `W_1`, and the sum over what learns at the first layer.
const DKP: [f64; 5] = [
    17.164_087_431_635_473,
    7.690_558_870_153_972,
    5.817_164_833_555_331,
    -0.700_553_756_721_058_5,
    10.612_214_715_469_399,
];
const DKP_BY_ADAM: [f64; 5] = [
    17.348_279_160_079_78,
    9.953_632_578_452_702,
    5.859_059_308_457_143,
    -0.477_416_902_195_865_86,
    11.798_414_222_701_37,
];
const PFA: [f64; 5] = [
    5.175_364_189_781_344,
    6.601_394_300_597_472,
    4.364_824_401_491_104,
    -0.138_720_504_878_874_9,
    7.423_323_153_335_15,
];

/// A run that is saved in its middle goes on to the bit: moments of feedback's own optimiser, factors,
/// and the noise of mirrors.
#[cfg(feature = "safetensors")]
#[test]
fn runs_go_on_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for network in [dense_net(), kernels(), conv_net()] {
        for route in ["4:D(e)->2,P2(2)->1,M(1)->0", "4:M(e)->2,D(e)->1,P1(1)->0"] {
            for own in [None, Some(Adam::default().into()), Some(Sgd::default().into())] {
                let mut mirrors = on(&network, route);
                let output = Activation::LeakyRelu { slope: 0.3 };
                mirrors.set_mirror(Mirror { before: 3, output, ..Mirror::default() }).unwrap();
                let builder = Trainer::builder(network.clone()).feedback(mirrors).seed(5);
                let mut trainer = builder.optimizer(RmsProp::default()).build().unwrap();
                trainer.set_feedback_optimizer(own).unwrap();
                for step in 0..3 {
                    trainer.save(&path).unwrap();
                    let mut resumed = Trainer::<f64>::load(&path).unwrap();
                    for trainer in [&mut trainer, &mut resumed] {
                        let x = numbers(network.input_len(), 9, step);
                        trainer.step(&x, &thirds(9)).unwrap();
                    }
                    assert_eq!(resumed.network(), trainer.network());
                    assert_eq!(resumed.feedback(), trainer.feedback());
                    assert_eq!(resumed.optimizer(), trainer.optimizer());
                    trainer = resumed;
                }
            }
        }
    }
}
