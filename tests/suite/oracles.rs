//! What has to hold of the learning rules, whatever the numbers: finite differences, identities
//! between the rules, and what each rule can and cannot read or move.

use feedback_alignment::{
    Activation, Activations, Deltas, Feedback, FeedbackInit, FeedbackRule, GradientCheck,
    Gradients, Init, Loss, Momentum, Network, OptimizerState, RmsProp, Sgd, Targets, Trainer,
    nalgebra::{DMatrix, DVector},
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};
use proptest::prelude::*;

fn random(rows: usize, columns: usize, rng: &mut Xoshiro256PlusPlus) -> DMatrix<f64> {
    DMatrix::from_fn(rows, columns, |_, _| rng.random_range(-1.0..1.0))
}

fn mlp(widths: &[usize], activation: Activation, init: Init, seed: u64) -> Network<f64> {
    let mut builder = Network::builder(widths[0]);
    for &units in &widths[1..widths.len() - 1] {
        builder = builder.dense(units).activation(activation);
    }
    builder.dense(widths[widths.len() - 1]).init(init).seed(seed).build().unwrap()
}

/// Input and labels for a network; every class comes, not equally often.
fn batch(network: &Network<f64>, samples: usize, seed: u64) -> (DMatrix<f64>, Vec<usize>) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let x = random(network.input_len(), samples, &mut rng);
    let classes = network.output_len().max(2);
    let labels =
        (0..samples).map(|_| rng.random_range(0..classes).min(rng.random_range(0..classes)));
    (x, labels.collect())
}

/// Stages 1 to 4.
struct Pass {
    activations: Activations<f64>,
    deltas: Deltas<f64>,
    gradients: Gradients<f64>,
}

fn pass<'a>(
    network: &Network<f64>,
    feedback: &Feedback<f64>,
    loss: Loss,
    x: &DMatrix<f64>,
    targets: impl Into<Targets<'a, f64>>,
) -> Pass {
    let mut pass = Pass {
        activations: Activations::new(),
        deltas: Deltas::new(),
        gradients: Gradients::new(),
    };
    network.forward(x, &mut pass.activations).unwrap();
    loss.error(targets, &pass.activations, &mut pass.deltas).unwrap();
    feedback.deliver(network, &pass.activations, &mut pass.deltas).unwrap();
    network.gradients(&pass.activations, &pass.deltas, &mut pass.gradients).unwrap();
    pass
}

fn feedback(network: &Network<f64>, rule: FeedbackRule) -> Feedback<f64> {
    Feedback::new(network, rule, FeedbackInit::Lillicrap, 11).unwrap()
}

fn weights(network: &Network<f64>, layer: usize) -> DMatrix<f64> {
    network.layer(layer).unwrap().weights().into_owned()
}

fn bias(network: &Network<f64>, layer: usize) -> DVector<f64> {
    network.layer(layer).unwrap().bias().unwrap().into_owned()
}

fn loss_of(network: &Network<f64>, loss: Loss, x: &DMatrix<f64>, targets: Targets<f64>) -> f64 {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(x, &mut activations).unwrap();
    loss.error(targets, &activations, &mut deltas).unwrap()
}

fn any_widths() -> impl Strategy<Value = Vec<usize>> {
    (1..6_usize, prop::collection::vec(1..7_usize, 0..4), 2..5_usize)
        .prop_map(|(inputs, hidden, outputs)| [vec![inputs], hidden, vec![outputs]].concat())
}

/// A number that no logit exceeds, whatever the signs of what is added up to make it: the rounding
/// of a logit is some units in the last place of this, not of the logit, which may have cancelled.
fn size_of_logits(network: &Network<f64>, x: &DMatrix<f64>) -> f64 {
    let mut size = x.amax();
    for l in 0..network.layer_count() {
        // |f(a)| ≤ |a| + 1 for every activation.
        let reach = if l == 0 { size } else { size + 1.0 };
        let row = |row: usize| weights(network, l).row(row).iter().map(|w| w.abs()).sum::<f64>();
        let rows = (0..network.layer(l).unwrap().weights().nrows()).map(row);
        size = rows.fold(0.0, f64::max) * reach + bias(network, l).amax();
    }
    size
}

/// What rounding of the losses makes of a central difference with this step, at most: an error of
/// `c ε J` in both of them, over `2h`. The loss and what it is made of are of the order of `size`.
fn rounding_of_difference(network: &Network<f64>, loss: Loss, size: f64, step: f64) -> f64 {
    let each = if loss == Loss::MeanSquaredError { (size + 1.0).powi(2) } else { size + 1.0 };
    let operations = 4.0 * network.layer_count() as f64;
    operations * f64::EPSILON * each * network.output_len() as f64 / step
}

/// Gradients against differences, for all activations and losses. Two steps are tried: the error
/// of a difference is of order `h²` and its rounding of order `1/h`, so a gradient that is right
/// agrees at one of them, and a wrong one at neither.
fn check_gradients(widths: &[usize], samples: usize, seed: u64) {
    for activation in Activation::all() {
        let network = mlp(widths, activation, Init::LecunNormal, seed);
        let (x, labels) = batch(&network, samples, seed);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let values = random(network.output_len(), samples, &mut rng);
        let probabilities = values.map(|v| 0.5 + v / 2.0);
        let size = size_of_logits(&network, &x);
        for (loss, targets) in [
            (Loss::SoftmaxCrossEntropy, Targets::from(&labels)),
            (Loss::LogisticCrossEntropy, Targets::from(&labels)),
            (Loss::LogisticCrossEntropy, Targets::from(&probabilities)),
            (Loss::MeanSquaredError, Targets::from(&labels)),
            (Loss::MeanSquaredError, Targets::from(&values)),
        ] {
            let run = |step: f64| {
                let check = GradientCheck { step, ..GradientCheck::default() };
                let report = check.run(&network, loss, &x, targets).unwrap();
                let rounding = rounding_of_difference(&network, loss, size, step);
                let agrees = report.difference() <= 1e-6 * report.largest() + rounding;
                (agrees, report)
            };
            let (agrees, report) = run(1e-5);
            assert!(agrees || run(1e-6).0, "{activation}, {loss}, {widths:?}, {seed}:\n{report}");
        }
    }
}

/// A net whose gradient has all but vanished: its differences are mostly rounding.
#[test]
fn differences_of_a_vanishing_gradient_are_rounding() {
    check_gradients(&[1, 2, 1, 2], 2, 5_766_710_022_851_223_552);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Oracle 1.
    #[test]
    fn bp_gradients_match_central_differences(
        widths in any_widths(), samples in 1..5_usize, seed in any::<u64>(),
    ) {
        check_gradients(&widths, samples, seed);
    }

    #[test]
    fn feedback_matrices_have_the_shapes_of_the_paper(widths in any_widths(), seed in any::<u64>()) {
        let network = mlp(&widths, Activation::Tanh, Init::FanIn, seed);
        let hidden = widths.len() - 2;
        let outputs = widths[widths.len() - 1];
        for rule in FeedbackRule::nokland() {
            let feedback = Feedback::new(&network, rule, FeedbackInit::Nokland, seed).unwrap();
            for l in 0..hidden {
                let units = widths[l + 1];
                let expected = match rule {
                    FeedbackRule::Fa => Some((units, widths[l + 2])),
                    FeedbackRule::Dfa => Some((units, outputs)),
                    FeedbackRule::Ifa if l == 0 => Some((units, outputs)),
                    _ => None,
                };
                let matrix = feedback.matrix(l).unwrap();
                prop_assert_eq!(matrix.as_ref().map(DMatrix::shape), expected, "{} layer {}", rule, l);
                // Oracle 13: the units that receive set the scale.
                let bound = 1.0 / (units as f64).sqrt();
                prop_assert!(matrix.is_none_or(|b| b.amax() <= bound));
            }
            prop_assert!(feedback.matrix(hidden).is_err());
        }
    }

    /// Oracle 5, and the delta of the output layer with it.
    #[test]
    fn all_rules_agree_on_the_output_layer(
        widths in any_widths(), samples in 1..5_usize, seed in any::<u64>(),
    ) {
        let network = mlp(&widths, Activation::Softplus, Init::FanIn, seed);
        let (x, labels) = batch(&network, samples, seed);
        let last = network.layer_count() - 1;
        let of = |rule| pass(&network, &feedback(&network, rule), Loss::SoftmaxCrossEntropy, &x, &labels);
        let bp = of(FeedbackRule::Bp);
        for rule in FeedbackRule::nokland() {
            let found = of(rule);
            prop_assert_eq!(found.deltas.delta(last).unwrap(), bp.deltas.delta(last).unwrap());
            prop_assert_eq!(found.gradients.weights(last).unwrap(), bp.gradients.weights(last).unwrap());
            prop_assert_eq!(found.gradients.bias(last).unwrap(), bp.gradients.bias(last).unwrap());
        }
    }

    /// Oracle 15.
    #[test]
    fn the_gradient_of_a_batch_is_the_mean_over_its_samples(
        widths in any_widths(), samples in 1..6_usize, seed in any::<u64>(),
    ) {
        let network = mlp(&widths, Activation::Tanh, Init::FanIn, seed);
        let (x, labels) = batch(&network, samples, seed);
        for rule in FeedbackRule::nokland() {
            let feedback = feedback(&network, rule);
            let of = |x: &DMatrix<f64>, labels: &[usize]| {
                pass(&network, &feedback, Loss::LogisticCrossEntropy, x, labels).gradients
            };
            let whole = of(&x, &labels);
            let singles: Vec<_> = (0..samples)
                .map(|j| of(&x.columns(j, 1).into_owned(), &labels[j..=j]))
                .collect();
            for l in 0..network.layer_count() {
                let mean = singles.iter().map(|g| g.weights(l).unwrap().into_owned()).sum::<DMatrix<f64>>() / samples as f64;
                let difference = (whole.weights(l).unwrap() - mean).amax();
                prop_assert!(difference < 1e-14, "{rule}, layer {l}: {difference:e}");
                let mean = singles.iter().map(|g| g.bias(l).unwrap().unwrap().into_owned()).sum::<DVector<f64>>() / samples as f64;
                prop_assert!((whole.bias(l).unwrap().unwrap() - mean).amax() < 1e-14);
            }
        }
    }

    /// The five stages called by hand give the trainer's bits, for every rule.
    #[test]
    fn the_trainer_is_its_five_stages(
        widths in any_widths(), samples in 1..6_usize, seed in any::<u64>(),
    ) {
        for rule in FeedbackRule::nokland() {
            let mut network = mlp(&widths, Activation::Tanh, Init::FanIn, seed);
            let sgd = Sgd { momentum: Momentum::Nesterov(0.9), ..Sgd::default() };
            let mut trainer =
                Trainer::builder(network.clone()).rule(rule).optimizer(sgd).seed(seed).build().unwrap();
            let feedback = Feedback::new(&network, rule, FeedbackInit::Nokland, seed).unwrap();
            let mut optimizer = OptimizerState::new(&network, sgd).unwrap();
            for step in 0..3 {
                let (x, labels) = batch(&network, samples + step, seed ^ step as u64);
                let pass = pass(&network, &feedback, Loss::SoftmaxCrossEntropy, &x, &labels);
                optimizer.step(&mut network, &pass.gradients).unwrap();
                trainer.step(&x, &labels).unwrap();
                prop_assert_eq!(&network, trainer.network());
            }
        }
    }
}

/// Oracle 2: FA with `B_l = W_{l+1}ᵀ`, refreshed at each step, is BP bit for bit.
#[test]
fn fa_through_the_forward_weights_is_bp() {
    let network = mlp(&[7, 6, 5, 4, 3], Activation::Tanh, Init::FanIn, 3);
    let trainer = |rule| Trainer::builder(network.clone()).rule(rule).build().unwrap();
    let (mut bp, mut fa) = (trainer(FeedbackRule::Bp), trainer(FeedbackRule::Fa));
    for step in 0..10 {
        let (x, labels) = batch(&network, 5, step);
        let matrices = (1..4).map(|l| weights(fa.network(), l).transpose()).collect();
        let aligned = Feedback::from_matrices(fa.network(), FeedbackRule::Fa, matrices).unwrap();
        fa.set_feedback(aligned).unwrap();
        bp.step(&x, &labels).unwrap();
        fa.step(&x, &labels).unwrap();
        assert_eq!(bp.network(), fa.network(), "after step {step}");
    }
    assert_ne!(*bp.network(), network);
}

/// Oracle 3: with one hidden layer FA, DFA and IFA are the same rule, bit for bit.
#[test]
fn with_one_hidden_layer_fa_dfa_and_ifa_are_one_rule() {
    let network = mlp(&[7, 6, 3], Activation::Logistic, Init::FanIn, 3);
    let b = random(6, 3, &mut Xoshiro256PlusPlus::seed_from_u64(5));
    let train = |rule, matrix| {
        let feedback = Feedback::from_matrices(&network, rule, vec![matrix]).unwrap();
        let mut trainer = Trainer::builder(network.clone()).feedback(feedback).build().unwrap();
        for step in 0..10 {
            let (x, labels) = batch(&network, 5, step);
            trainer.step(&x, &labels).unwrap();
        }
        trainer.into_network()
    };
    let dfa = train(FeedbackRule::Dfa, b.clone());
    assert_eq!(train(FeedbackRule::Fa, b.clone()), dfa);
    assert_eq!(train(FeedbackRule::Ifa, b), dfa);
    assert_ne!(dfa, network);
}

/// Oracle 4: where hidden units are linear, chains of matrices are one matrix.
#[test]
fn with_linear_units_chained_and_direct_feedback_are_one() {
    let network = mlp(&[7, 6, 5, 3], Activation::Identity, Init::FanIn, 3);
    let (x, labels) = batch(&network, 5, 1);
    let deltas = |rule, matrices| {
        let feedback = Feedback::from_matrices(&network, rule, matrices).unwrap();
        let pass = pass(&network, &feedback, Loss::SoftmaxCrossEntropy, &x, &labels);
        [0, 1].map(|l| pass.deltas.delta(l).unwrap().into_owned())
    };
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(9);
    let (b1, b2) = (random(6, 5, &mut rng), random(5, 3, &mut rng));
    let (w2, w3) = (weights(&network, 1), weights(&network, 2));
    let same = |left: [DMatrix<f64>; 2], right: [DMatrix<f64>; 2]| {
        for (left, right) in left.iter().zip(&right) {
            assert!((left - right).amax() < 1e-15, "{left} {right}");
            assert!(left.amax() > 1e-3);
        }
    };
    same(
        deltas(FeedbackRule::Fa, vec![b1.clone(), b2.clone()]),
        deltas(FeedbackRule::Dfa, vec![&b1 * &b2, b2]),
    );
    same(
        deltas(FeedbackRule::Dfa, vec![(&w3 * &w2).transpose(), w3.transpose()]),
        deltas(FeedbackRule::Bp, vec![]),
    );
}

/// Oracle 6: at a fixed error, which weights each rule reads to deliver it.
#[test]
fn each_rule_reads_only_the_weights_that_its_equation_names() {
    let network = mlp(&[7, 6, 5, 4, 3], Activation::Tanh, Init::FanIn, 3);
    let (x, labels) = batch(&network, 5, 1);
    for rule in FeedbackRule::nokland() {
        let feedback = feedback(&network, rule);
        let before = pass(&network, &feedback, Loss::SoftmaxCrossEntropy, &x, &labels);
        for perturbed in 0..4 {
            let mut other = network.clone();
            other.set_weights(perturbed, weights(&network, perturbed) * 1.5).unwrap();
            let mut deltas = before.deltas.clone();
            feedback.deliver(&other, &before.activations, &mut deltas).unwrap();
            for hidden in 0..3 {
                let changed = deltas.delta(hidden).unwrap() != before.deltas.delta(hidden).unwrap();
                let reads = match rule {
                    FeedbackRule::Bp => perturbed > hidden,
                    FeedbackRule::Ifa => perturbed >= 1 && perturbed <= hidden,
                    _ => false,
                };
                assert_eq!(changed, reads, "{rule}: δ_{} and W_{}", hidden + 1, perturbed + 1);
            }
        }
    }
}

/// Oracle 7: what moves in the first step from zero.
#[test]
fn from_zero_the_first_step_moves_what_it_can() {
    for (activation, rule, moving) in [
        (Activation::Tanh, FeedbackRule::Bp, "b3"),
        (Activation::Tanh, FeedbackRule::Fa, "W1 b1 b2 b3"),
        (Activation::Tanh, FeedbackRule::Dfa, "W1 b1 b2 b3"),
        (Activation::Tanh, FeedbackRule::Ifa, "W1 b1 b3"),
        (Activation::Relu, FeedbackRule::Bp, "b3"),
        (Activation::Relu, FeedbackRule::Fa, "b3"),
        (Activation::Relu, FeedbackRule::Dfa, "b3"),
        (Activation::Relu, FeedbackRule::Ifa, "b3"),
    ] {
        let network = mlp(&[7, 6, 5, 3], activation, Init::Zeros, 0);
        let x = random(7, 4, &mut Xoshiro256PlusPlus::seed_from_u64(1));
        let gradients =
            pass(&network, &feedback(&network, rule), Loss::SoftmaxCrossEntropy, &x, &[0, 0, 1, 0])
                .gradients;
        let mut found = Vec::new();
        for l in 0..3 {
            if gradients.weights(l).unwrap().amax() > 0.0 {
                found.push(format!("W{}", l + 1));
            }
            if gradients.bias(l).unwrap().unwrap().amax() > 0.0 {
                found.push(format!("b{}", l + 1));
            }
        }
        assert_eq!(found.join(" "), moving, "{activation}, {rule}");
    }
}

/// Oracle 8: IFA never leaves zero above the first layer; DFA learns from there.
#[test]
fn from_zero_dfa_learns_and_ifa_does_not() {
    let run = |rule| {
        let mut network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::Zeros, 0);
        let feedback = feedback(&network, rule);
        let mut optimizer =
            OptimizerState::new(&network, Sgd { learning_rate: 0.5, ..Sgd::default() }).unwrap();
        let (x, labels) = batch(&network, 12, 4);
        for _ in 0..200 {
            let pass = pass(&network, &feedback, Loss::SoftmaxCrossEntropy, &x, &labels);
            optimizer.step(&mut network, &pass.gradients).unwrap();
        }
        let loss = loss_of(&network, Loss::SoftmaxCrossEntropy, &x, Targets::from(&labels));
        (network, loss)
    };
    let (network, stuck) = run(FeedbackRule::Ifa);
    assert_eq!(weights(&network, 1).amax(), 0.0);
    assert_eq!(weights(&network, 2).amax(), 0.0);
    assert_eq!(bias(&network, 1).amax(), 0.0);
    assert!(weights(&network, 0).amax() > 0.0);
    let (_, learned) = run(FeedbackRule::Dfa);
    assert!(learned < 0.5 * stuck, "DFA {learned}, IFA {stuck}");
}

/// Oracle 9: with an odd activation and from zero, the sign of the feedback does not matter.
#[test]
fn the_sign_of_the_feedback_does_not_matter() {
    let network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::Zeros, 0);
    for rule in [FeedbackRule::Fa, FeedbackRule::Dfa] {
        let positive = feedback(&network, rule);
        let mut negative = positive.clone();
        for l in 0..2 {
            negative.set_matrix(l, -positive.matrix(l).unwrap().unwrap()).unwrap();
        }
        let trainer = |feedback: Feedback<f64>| {
            let sgd = Sgd { learning_rate: 0.5, ..Sgd::default() };
            Trainer::builder(network.clone()).feedback(feedback).optimizer(sgd).build().unwrap()
        };
        let (mut a, mut b) = (trainer(positive), trainer(negative));
        for step in 0..50 {
            let (x, labels) = batch(&network, 6, step);
            a.step(&x, &labels).unwrap();
            b.step(&x, &labels).unwrap();
            assert_eq!(a.network().predict(&x).unwrap(), b.network().predict(&x).unwrap());
        }
        assert_ne!(a.network(), b.network());
    }
}

/// Oracle 10: RMSprop does not see the scale of the feedback, SGD does.
#[test]
fn rmsprop_does_not_see_the_scale_of_the_feedback() {
    let network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::FanIn, 2);
    let small = feedback(&network, FeedbackRule::Dfa);
    let mut large = small.clone();
    for l in 0..2 {
        large.set_matrix(l, small.matrix(l).unwrap().unwrap() * 8.0).unwrap();
    }
    let run = |feedback: &Feedback<f64>, optimizer: feedback_alignment::Optimizer| {
        let mut trainer = Trainer::builder(network.clone())
            .feedback(feedback.clone())
            .optimizer(optimizer)
            .build()
            .unwrap();
        for step in 0..20 {
            let (x, labels) = batch(&network, 6, step);
            trainer.step(&x, &labels).unwrap();
        }
        trainer.into_network()
    };
    let rmsprop = RmsProp { learning_rate: 1e-2, epsilon: 1e-30, ..RmsProp::default() };
    assert_eq!(run(&small, rmsprop.into()), run(&large, rmsprop.into()));
    assert_ne!(run(&small, Sgd::default().into()), run(&large, Sgd::default().into()));
}

/// Oracle 13: the moments of a large matrix, and that training leaves it alone.
#[test]
fn feedback_is_drawn_once_from_the_papers_distribution() {
    let network = mlp(&[20, 300, 200, 100], Activation::Tanh, Init::FanIn, 2);
    for rule in [FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let mut trainer = Trainer::builder(network.clone()).rule(rule).build().unwrap();
        let before = trainer.feedback().clone();
        let b = before.matrix(0).unwrap().unwrap();
        let n = b.len() as f64;
        let variance = b.map(|v| v * v).mean();
        assert!(b.mean().abs() < 4.0 / (900.0 * n).sqrt(), "{rule}: mean {}", b.mean());
        assert!((variance * 900.0 - 1.0).abs() < 0.03, "{rule}: variance {variance}");
        for step in 0..5 {
            let (x, labels) = batch(&network, 8, step);
            trainer.step(&x, &labels).unwrap();
        }
        assert_eq!(*trainer.feedback(), before, "{rule}");
    }
}

/// Oracle 18: the rule changes what is learned, not what is computed.
#[test]
fn the_forward_pass_knows_no_rule() {
    let network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::FanIn, 2);
    let (x, labels) = batch(&network, 6, 1);
    let mut trainer = Trainer::builder(network.clone()).rule(FeedbackRule::Bp).build().unwrap();
    let first = trainer.clone().step(&x, &labels).unwrap();
    let logits = network.predict(&x).unwrap();
    let mut learned = Vec::new();
    for rule in FeedbackRule::nokland() {
        trainer.set_rule(rule).unwrap();
        assert_eq!(trainer.network().predict(&x).unwrap(), logits, "{rule}");
        let mut copy = trainer.clone();
        assert_eq!(copy.step(&x, &labels).unwrap(), first, "{rule}");
        learned.push(copy.into_network());
    }
    for (i, a) in learned.iter().enumerate() {
        assert!(learned[i + 1..].iter().all(|b| a != b));
    }
}

/// Oracle 21: under DFA the hidden weights do move, and not as under BP.
#[test]
fn dfa_trains_the_hidden_layers_and_is_not_bp() {
    let network = mlp(&[7, 6, 5, 3], Activation::Tanh, Init::FanIn, 2);
    let (x, labels) = batch(&network, 6, 1);
    let of = |rule| {
        pass(&network, &feedback(&network, rule), Loss::SoftmaxCrossEntropy, &x, &labels).gradients
    };
    let bp = of(FeedbackRule::Bp);
    for rule in [FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let found = of(rule);
        for l in 0..2 {
            let (found, bp) = (found.weights(l).unwrap(), bp.weights(l).unwrap());
            assert!(found.amax() > 1e-4, "{rule}: hidden layer {l} does not move");
            assert!((found - bp).amax() > 0.1 * bp.amax(), "{rule}: hidden layer {l} learns as BP");
        }
    }
}
