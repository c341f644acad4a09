//! Routes that no rule has a name for, rules from outside the crate, and gradients that are changed
//! before the step.

use crate::nets::{conv_net, residual_net};
use feedback_alignment::{
    Activations, Adam, Dataset, Deltas, Diagnostics, Error, Feedback, FeedbackInit, FeedbackRule,
    Gradients, Hop, Init, Loss, Momentum, Network, Optimizer, OptimizerState, Part, Result,
    RmsProp, Route, Sgd, Signal, Through, Trainer, WeightDecay,
    nalgebra::{DMatrix, DVector},
};
use proptest::prelude::*;

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

fn numbers(rows: usize, columns: usize, seed: usize) -> DMatrix<f64> {
    DMatrix::from_fn(rows, columns, |i, j| ((i * 37 + j * 11 + seed * 29) % 23) as f64 / 11.0 - 1.0)
}

fn labels(count: usize, classes: usize) -> Vec<usize> {
    (0..count).map(|i| (i * i + i / 2) % classes).collect()
}

/// Four layers, none as wide as another.
fn mlp() -> Network<f64> {
    let builder = Network::builder(7).dense(6).tanh().dense(5).logistic().dense(4).tanh();
    builder.dense(3).seed(3).build().unwrap()
}

fn route(text: &str) -> Route {
    text.parse().unwrap()
}

fn feedback(network: &Network<f64>, text: &str) -> Feedback<f64> {
    Feedback::with_route(network, route(text), FeedbackInit::Lillicrap, 11).unwrap()
}

/// The deltas of all layers.
fn deltas(network: &Network<f64>, feedback: &Feedback<f64>, seed: usize) -> Vec<DMatrix<f64>> {
    let x = numbers(network.input_len(), 9, seed);
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&x, &mut activations).unwrap();
    LOSS.error(&labels(9, network.output_len()), &activations, &mut deltas).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    (0..network.layer_count()).map(|l| deltas.delta(l).unwrap().into_owned()).collect()
}

fn close(found: &DMatrix<f64>, expected: &DMatrix<f64>) -> bool {
    (found - expected).amax() <= 1e-14 * expected.amax() && expected.amax() > 1e-6
}

/// Each matrix of a layer has a random stream of its own.
#[test]
fn matrices_of_one_layer_differ() {
    let feedback = feedback(&mlp(), "4:B(e)->0,B(e)->0");
    let matrices: Vec<_> = feedback.matrices().map(|matrix| matrix.unwrap().1).collect();
    assert_eq!((matrices.len(), matrices[0].shape()), (2, matrices[1].shape()));
    assert_ne!(matrices[0], matrices[1]);
}

/// Routes of every kind through four layers: mixed, with sums, skips, loops up and down.
const ROUTES: [&str; 10] = [
    "4:Bs2(e)->2,Br1(2)->1,Bc(1)->0,Bc(e)->0",
    "4:B(e)->2,W(2)->1,W(1)->0",
    "4:B(e)->2,B(2)->0,R(0)->1",
    "4:W(e)->2,B(e)->2,R(2)->1,B(e)->1,W(1)->0",
    "4:B(e)->0,W(0)->1,R(1)->2,B(0)->2",
    "4:B(e)->0,B(e)->0,R(0)->1,B(e)->1,W(1)->2,W(e)->2",
    "4:W(e)->2",
    "4:B(e)->0",
    "4:B(e)->1,W(1)->0",
    "4:",
];

/// `δ_l = f'(a_l) ∘ Σ M · signal`, with nothing but matrices.
#[test]
fn what_arrives_is_the_sum_over_the_hops() {
    let network = mlp();
    let learning = [
        "4:Br2(e)->2,Br1(e)->2,P3(2)->1,Bs1(e)->1,M(1)->0",
        "4:D(e)->2,D(2)->0,K(e)->2,P1(2)->1,M(1)->0",
    ];
    for text in ROUTES.into_iter().chain(learning) {
        let feedback = feedback(&network, text);
        let x = numbers(7, 9, 1);
        let (mut activations, mut pass) = (Activations::new(), Deltas::new());
        network.forward(&x, &mut activations).unwrap();
        LOSS.error(&labels(9, 3), &activations, &mut pass).unwrap();
        let mut expected = vec![DMatrix::zeros(0, 0); 4];
        expected[3] = pass.delta(3).unwrap().into_owned();
        feedback.deliver(&network, &activations, &mut pass).unwrap();

        let weights = |l: usize| network.layer(l).unwrap().weights().into_owned();
        let mut matrices: Vec<_> = feedback.matrices().map(Result::unwrap).collect();
        assert_eq!(
            matrices.len(),
            feedback.route().hops().iter().filter(|hop| has_matrix(**hop)).count()
        );
        for hops in feedback.route().hops().chunk_by(|one, other| one.to == other.to) {
            let to = hops[0].to;
            let mut arrived = DMatrix::zeros(network.layer(to).unwrap().weights().nrows(), 9);
            for hop in hops {
                let from = match hop.signal {
                    Signal::Delta(from) => from,
                    _ => 3,
                };
                let matrix = match hop.through {
                    Through::Weights if from > to => weights(from).transpose(),
                    Through::Weights => weights(to),
                    _ => {
                        let next = matrices.iter().position(|(other, _)| other == hop).unwrap();
                        matrices.remove(next).1
                    }
                };
                arrived += matrix * &expected[from];
            }
            let a = activations.pre_activation(to).unwrap();
            let slope = |a: f64| match to {
                1 => a.exp() / (1.0 + a.exp()).powi(2),
                _ => 1.0 - a.tanh().powi(2),
            };
            expected[to] = arrived.component_mul(&a.map(slope));
            let found = pass.delta(to).unwrap().into_owned();
            assert!(close(&found, &expected[to]), "{text}, layer {to}: {found} {}", expected[to]);
        }
    }
}

fn has_matrix(hop: Hop) -> bool {
    hop.through != Through::Weights
}

/// A route by its hops is the rule of that route, to the last bit of a training run.
#[test]
fn a_rule_is_nothing_but_its_route() {
    for network in [mlp(), conv_net(), residual_net()] {
        let data = data(&network);
        for rule in FeedbackRule::nokland() {
            let by_route =
                Feedback::with_route(&network, rule.route(4).unwrap(), FeedbackInit::default(), 0);
            let mut one = Trainer::builder(network.clone()).rule(rule).build().unwrap();
            let builder = Trainer::builder(network.clone()).feedback(by_route.unwrap());
            let mut other = builder.build().unwrap();
            assert_eq!((one.feedback().rule(), other.feedback().rule()), (Some(rule), None));
            assert_eq!(one.epoch(&data).unwrap(), other.epoch(&data).unwrap());
            assert_eq!(one.network(), other.network(), "{rule}");
        }
    }
}

fn data(network: &Network<f64>) -> Dataset<f64> {
    Dataset::new(numbers(network.input_len(), 150, 5), labels(150, 3)).unwrap()
}

/// Two signals to one layer add up also where a block pools and normalises, which is linear in what
/// arrives: the deltas of the sum are the sums of the deltas.
#[test]
fn signals_add_up_in_blocks_that_pool_and_normalise() {
    let network = conv_net();
    for (sum, parts, at) in [
        ("4:B(e)->1,R(1)->0,B(e)->0", ["4:B(e)->1,R(1)->0", "4:B(e)->0"], 0),
        ("4:B(e)->0,W(0)->1,B(e)->1", ["4:B(e)->0,W(0)->1", "4:B(e)->1"], 1),
        ("4:W(e)->2,R(2)->1,W(2)->1", ["4:W(e)->2,R(2)->1", "4:W(e)->2,W(2)->1"], 1),
    ] {
        let whole = feedback(&network, sum);
        // Each hop of a part takes the matrix that it has in the sum.
        let part = |text: &str| {
            let mut left: Vec<_> = whole.matrices().map(Result::unwrap).collect();
            let mut hops: Vec<Hop> =
                route(text).hops().iter().copied().filter(|&hop| has_matrix(hop)).collect();
            hops.sort_by_key(|hop| hop.to);
            let matrices = hops.iter().map(|hop| {
                let next = left.iter().position(|(other, _)| other == hop).unwrap();
                left.remove(next).1
            });
            Feedback::with_route_and_matrices(&network, route(text), matrices.collect()).unwrap()
        };
        let [one, other] = parts.map(|text| deltas(&network, &part(text), 1)[at].clone());
        let found = &deltas(&network, &whole, 1)[at];
        assert!(close(found, &(&one + &other)), "{sum}");
        assert!(one.amax() > 1e-6 && other.amax() > 1e-6);
    }
}

/// IFA through random weights that happen to be the network's own is IFA, and FA is BP.
#[test]
fn random_weights_stand_exactly_where_weights_would() {
    for network in [mlp(), conv_net(), residual_net()] {
        for (own, random) in [
            ("4:B(e)->0,W(0)->1,W(1)->2", "4:B(e)->0,R(0)->1,R(1)->2"),
            ("4:W(e)->2,W(2)->1,W(1)->0", "4:R(e)->2,R(2)->1,R(1)->0"),
        ] {
            let own = feedback(&network, own);
            let mut random = feedback(&network, random);
            for hop in random.route().hops().to_vec() {
                let from = match hop.signal {
                    Signal::Delta(from) => from,
                    _ => 3,
                };
                let owner = from.max(hop.to);
                let weights = network.layer(owner).unwrap().weights().into_owned();
                // What a dense layer sends down is shown as `B`; kernels are shown as they are.
                let is_dense = weights.nrows() == pre_activations(&network, owner);
                match hop.through {
                    Through::LikeWeights if from > hop.to && is_dense => {
                        random.set_matrix(hop.to, weights.transpose()).unwrap();
                    }
                    Through::LikeWeights => random.set_matrix(hop.to, weights).unwrap(),
                    _ => random.set_matrix(0, own.matrix(0).unwrap().unwrap()).unwrap(),
                }
            }
            assert_eq!(deltas(&network, &own, 1), deltas(&network, &random, 1));
        }
    }
}

/// How many numbers a layer computes for a sample.
fn pre_activations(network: &Network<f64>, layer: usize) -> usize {
    let mut activations = Activations::new();
    network.forward(&numbers(network.input_len(), 2, 1), &mut activations).unwrap();
    activations.pre_activation(layer).unwrap().nrows()
}

/// Routes of other signals of the output.
const SIGNALS: [&str; 4] = [
    "4:B(sign)->0,B(sign)->1,B(sign)->2",
    "4:B(t)->0,B(t)->1,B(t)->2",
    "4:B(t)->0,B(sign)->1,B(e)->2",
    "4:B(t)->0,B(e)->0,W(sign)->2,W(0)->1",
];

/// With the layers frozen that have batch normalisation and get no feedback.
fn frozen_where_needed(mut network: Network<f64>, text: &str) -> Network<f64> {
    for layer in 0..4 {
        if network.parameters().get(layer, Part::Scale).is_some() && !route(text).serves(layer) {
            network.freeze(layer).unwrap();
        }
    }
    network
}

/// Otherwise training would normalise by the batch and evaluation by statistics that stay.
#[test]
fn batch_normalisation_without_feedback_has_to_be_frozen() {
    let conflict = |error| match error {
        Error::Conflict { first, second, .. } => {
            assert!(first.contains("4:W(e)->2") && second.contains("hidden layer 0"), "{second}");
        }
        other => panic!("{other}"),
    };
    let (mut network, text) = (conv_net(), "4:W(e)->2");
    let upper = feedback(&network, text);
    let builder = Trainer::builder(network.clone()).feedback(upper.clone());
    conflict(builder.build().unwrap_err());
    let mut trainer = Trainer::builder(network.clone()).build().unwrap();
    conflict(trainer.set_feedback(upper.clone()).unwrap_err());
    assert_eq!(trainer.feedback().rule(), Some(FeedbackRule::Dfa));
    network.freeze(0).unwrap();
    let mut trainer = Trainer::builder(network.clone()).feedback(upper).build().unwrap();
    conflict(trainer.release(0).unwrap_err());
    assert_eq!(trainer.network().frozen().collect::<Vec<_>>(), [0]);
    trainer.freeze(1).unwrap();
    trainer.release(1).unwrap();
    trainer.epoch(&data(&network)).unwrap();
    assert_eq!(
        trainer.network().layer(0).unwrap().operations(),
        network.layer(0).unwrap().operations()
    );
}

/// Weights that were drawn for a rule can be trained by a route, which has no name to be drawn for.
#[test]
fn weights_drawn_for_a_rule_can_be_trained_by_a_route() {
    let rule = FeedbackRule::Dfa;
    let builder = Network::<f64>::builder(7).dense(6).tanh().dense(5).tanh().dense(3);
    let network = builder.init(Init::nokland(rule)).build().unwrap();
    let build = |feedback| Trainer::builder(network.clone()).feedback(feedback).build();
    assert!(build(feedback(&network, "3:B(e)->0,B(sign)->1")).is_ok());
    let through_weights = build(feedback(&network, "3:B(e)->0,W(0)->1"));
    assert!(matches!(through_weights, Err(Error::CannotLearn { .. })));
    let other = Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::default(), 0).unwrap();
    assert!(matches!(build(other), Err(Error::Conflict { .. })));
}

/// A delta that somebody wrote says nothing of batch normalisation: what an earlier pass has left
/// there must not be learned again.
#[test]
fn a_written_delta_does_not_bring_back_an_earlier_batch() {
    let network =
        Network::<f64>::builder(7).dense(4).batch_norm().tanh().dense(3).seed(1).build().unwrap();
    let dfa = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::default(), 0).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    for seed in [1, 2] {
        network.forward(&numbers(7, 9, seed), &mut activations).unwrap();
        LOSS.error(&labels(9, 3), &activations, &mut deltas).unwrap();
        if seed == 1 {
            dfa.deliver(&network, &activations, &mut deltas).unwrap();
        } else {
            deltas.delta_mut(0).unwrap().fill(0.1);
        }
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        let scale = gradients.get(0, Part::Scale).unwrap().unwrap();
        assert_eq!(scale.amax() > 0.0, seed == 1);
    }
    let mut after = network.clone();
    let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    optimizer.step(&mut after, &gradients).unwrap();
    for part in [Part::Scale, Part::Shift, Part::RunningMean, Part::RunningVariance] {
        assert_eq!(after.parameters().get(0, part), network.parameters().get(0, part));
    }
    assert_ne!(after.layer(0).unwrap(), network.layer(0).unwrap());
}

/// A diagnosis says nothing of a delta that is not there, whatever stands in its place.
#[test]
fn a_layer_without_feedback_has_no_delta_to_diagnose() {
    let network = mlp();
    let mut trainer = Trainer::builder(network.clone()).build().unwrap();
    let mut diagnostics = Diagnostics::new(&network).unwrap();
    let (x, y) = (numbers(7, 9, 1), labels(9, 3));
    diagnostics.observe(&trainer, &x, &y).unwrap(); // Fills the scratch with deltas of DFA.
    trainer.set_feedback(feedback(&network, "4:B(sign)->1,R(1)->0,B(e)->0")).unwrap();
    let found = diagnostics.observe(&trainer, &x, &y).unwrap();
    let [below, direct, none, _] = &found.layers[..] else { panic!("four layers") };
    for angle in [none.delta_angle, none.gradient_angle, none.feedback_angle] {
        assert_eq!(angle, None);
    }
    assert_eq!((none.delta_norm, none.gradient_norm), (0.0, 0.0));
    assert!(none.bp_delta_norm > 0.0 && direct.delta_angle.is_some());
    assert!(direct.feedback_angle.is_some() && below.feedback_angle.is_some());
    let table = found.to_string();
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("4:B(sign)->1,R(1)->0,B(e)->0"));
    assert!(lines.next().unwrap().starts_with("    layer"), "{table}");
    assert_eq!(table.lines().count(), 6);
}

fn optimizers() -> [Optimizer; 4] {
    let momentum = Momentum::Nesterov(0.9);
    let decay = WeightDecay::Decoupled(0.1);
    [
        Sgd { learning_rate: 0.1, weight_decay: decay, ..Sgd::default() }.into(),
        Sgd { momentum, weight_decay: WeightDecay::L2(0.1), ..Sgd::default() }.into(),
        RmsProp::default().into(),
        Adam::default().into(),
    ]
}

/// Whatever the route: a trainer's step, a step whose gradients somebody looked at, and the stages
/// one after the other are the same, and layers that no feedback reaches keep every bit.
#[test]
fn all_ways_of_making_a_step_are_one() {
    let rules = FeedbackRule::nokland().into_iter().map(|rule| rule.route(4).unwrap().to_string());
    let routes: Vec<String> =
        ROUTES.into_iter().chain(SIGNALS).map(String::from).chain(rules).collect();
    for (index, text) in routes.iter().enumerate() {
        for network in
            [mlp(), conv_net(), residual_net()].map(|network| frozen_where_needed(network, text))
        {
            let optimizer = optimizers()[index % 4];
            let feedback = feedback(&network, text);
            let trainer = || {
                let builder = Trainer::builder(network.clone()).feedback(feedback.clone());
                builder.optimizer(optimizer).max_norm(1.5).batch_size(40).build().unwrap()
            };
            let (mut fused, mut seen) = (trainer(), trainer());
            let mut plain = network.clone();
            let mut state = OptimizerState::new(&plain, optimizer).unwrap();
            state = state.with_max_norm(1.5).unwrap();
            let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
            let mut gradients = Gradients::new();
            for seed in 0..3 {
                let (x, y) = (numbers(network.input_len(), 9, seed), labels(9, 3));
                let step = fused.step(&x, &y).unwrap();
                assert_eq!(seen.step_with(&x, &y, |_| Ok(())).unwrap(), step);
                plain.forward(&x, &mut activations).unwrap();
                LOSS.error(&y, &activations, &mut deltas).unwrap();
                feedback.deliver(&plain, &activations, &mut deltas).unwrap();
                plain.gradients(&activations, &deltas, &mut gradients).unwrap();
                state.step(&mut plain, &gradients).unwrap();
                assert_eq!(fused.network(), seen.network(), "{text}");
                assert_eq!(*fused.network(), plain, "{text}");
            }
            assert_eq!((fused.optimizer(), seen.optimizer()), (&state, &state));
            let data = data(&network);
            assert_eq!(fused.epoch(&data).unwrap(), seen.epoch_with(&data, |_| Ok(())).unwrap());
            assert_eq!(fused.network(), seen.network(), "{text}");
            for layer in 0..4 {
                let same = network.layer(layer).unwrap() == fused.network().layer(layer).unwrap();
                let scale = |network: &Network<f64>| {
                    network
                        .parameters()
                        .get(layer, Part::Scale)
                        .map(nalgebra::DMatrixView::into_owned)
                };
                let (norm, learned) = (scale(&network), scale(fused.network()));
                let (norm, learned) = (norm.is_some(), norm != learned);
                assert_eq!(same, !feedback.route().serves(layer), "{text}, {layer}");
                assert_eq!(learned, norm && feedback.route().serves(layer), "{text}, {layer}");
            }
        }
    }
}

/// A training run by a route is saved with it and goes on to the bit.
#[cfg(feature = "safetensors")]
#[test]
fn a_checkpoint_keeps_a_route() {
    let folder = crate::common::Folder::new();
    for (index, text) in ROUTES.into_iter().chain(SIGNALS).enumerate() {
        let network = if index % 2 == 0 { mlp() } else { conv_net() };
        let network = frozen_where_needed(network, text);
        let data = data(&network);
        let builder = Trainer::builder(network.clone()).feedback(feedback(&network, text));
        let mut trainer = builder.build().unwrap();
        trainer.epoch(&data).unwrap();
        let path = folder.path("run.safetensors");
        trainer.save(&path).unwrap();
        let mut resumed = Trainer::<f64>::load(&path).unwrap();
        assert_eq!(resumed.feedback(), trainer.feedback());
        assert_eq!(resumed.epoch(&data).unwrap(), trainer.epoch(&data).unwrap());
        assert_eq!(resumed.network(), trainer.network(), "{text}");
    }
}

#[test]
fn a_route_through_another_number_of_layers_is_refused() {
    let network = mlp();
    for text in ["3:B(e)->0", "1:", "5:B(e)->0", "0:"] {
        let made = Feedback::with_route(&network, route(text), FeedbackInit::Nokland, 0);
        match made {
            Err(Error::StageMismatch { what: "the route", expected, found, .. }) => {
                assert!(expected.contains("4 layers") && found.contains(text), "{found}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let one_too_many = Feedback::with_route_and_matrices(
        &network,
        route("4:B(e)->0,B(e)->0"),
        vec![DMatrix::zeros(6, 3); 3],
    );
    let message = one_too_many.unwrap_err().to_string();
    assert!(message.contains("4:B(e)->0,B(e)->0") && message.contains("found 3"), "{message}");
}

/// The rule of Kolen and Pollack (1994), written by a user: the feedback gets the update of the
/// weights. Under SGD with decay `B − Wᵀ` then shrinks by `1 − η λ` with every step.
#[test]
fn kolen_and_pollacks_rule_can_be_written_outside_the_crate() {
    let network = mlp();
    let (rate, decay) = (0.1, 0.2);
    let weight_decay = WeightDecay::Decoupled(decay);
    let sgd = Sgd { learning_rate: rate, weight_decay, ..Sgd::default() };
    let builder = Trainer::builder(network.clone()).rule(FeedbackRule::Fa).optimizer(sgd);
    let mut trainer = builder.build().unwrap();
    let apart = |trainer: &Trainer<f64>, layer: usize| {
        let weights = trainer.network().layer(layer + 1).unwrap().weights().transpose();
        trainer.feedback().matrix(layer).unwrap().unwrap() - weights
    };
    let before: Vec<_> = (0..3).map(|layer| apart(&trainer, layer)).collect();
    let (x, y) = (numbers(7, 9, 1), labels(9, 3));
    for _ in 0..20 {
        let mut updates = Vec::new();
        trainer
            .step_with(&x, &y, |gradients| {
                updates =
                    (1..4).map(|l| gradients.weights(l).unwrap().transpose() * rate).collect();
                Ok(())
            })
            .unwrap();
        for (layer, update) in updates.into_iter().enumerate() {
            let b = trainer.feedback().matrix(layer).unwrap().unwrap();
            let b = b * (1.0 - rate * decay) - update;
            trainer.feedback_mut().set_matrix(layer, b).unwrap();
        }
    }
    for (layer, before) in before.into_iter().enumerate() {
        let expected = before * (1.0_f64 - rate * decay).powi(20);
        assert!((apart(&trainer, layer) - &expected).amax() < 1e-13 && expected.amax() > 0.1);
    }
}

/// An output delta, a hidden delta and what arrives can all be written from outside: with
/// backpropagation's numbers the step is backpropagation's.
#[test]
fn every_stage_can_be_replaced() {
    let network = mlp();
    let bp = Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::default(), 0).unwrap();
    let x = numbers(7, 9, 1);
    let (mut activations, mut by_crate, mut own) =
        (Activations::new(), Deltas::new(), Deltas::new());
    network.forward(&x, &mut activations).unwrap();
    LOSS.error(&labels(9, 3), &activations, &mut by_crate).unwrap();
    bp.deliver(&network, &activations, &mut by_crate).unwrap();
    let mut expected = Gradients::new();
    network.gradients(&activations, &by_crate, &mut expected).unwrap();

    let e = by_crate.delta(3).unwrap().into_owned();
    own.begin(&activations).unwrap().copy_from(&e);
    // Nothing has arrived at any hidden layer.
    let refused = network.gradients(&activations, &own, &mut Gradients::new());
    assert!(matches!(refused, Err(Error::StageMismatch { .. })));
    let arrives = network.layer(3).unwrap().weights().transpose() * &e;
    own.arriving_mut(2).unwrap().copy_from(&arrives);
    network.backward(2, &activations, &mut own).unwrap();
    own.delta_mut(1).unwrap().copy_from(&by_crate.delta(1).unwrap());
    own.delta_mut(0).unwrap().copy_from(&by_crate.delta(0).unwrap());
    let mut found = Gradients::new();
    network.gradients(&activations, &own, &mut found).unwrap();
    for layer in 0..4 {
        let (found, expected) = (found.weights(layer).unwrap(), expected.weights(layer).unwrap());
        assert!(close(&found.into_owned(), &expected.into_owned()));
    }
    for layer in [3, 4, usize::MAX] {
        let refused = network.backward(layer, &activations, &mut own);
        assert!(matches!(refused, Err(Error::NoSuchLayer { count: 3, .. })));
    }
    assert!(matches!(own.arriving_mut(4), Err(Error::NoSuchLayer { count: 4, .. })));
    assert!(matches!(own.delta_mut(4), Err(Error::NoSuchLayer { count: 4, .. })));
    // An error of one's own that is not finite is found before anything is learned.
    own.begin(&activations).unwrap().fill(f64::NAN);
    bp.deliver(&network, &activations, &mut own).unwrap();
    let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    let mut after = network.clone();
    let refused = optimizer.learn(&mut after, &activations, &own);
    assert!(matches!(refused, Err(Error::NonFinite { .. })));
    assert_eq!((after, optimizer.steps()), (network, 0));
    let empty = own.begin(&Activations::new()).map(|e| e.len());
    assert!(matches!(empty, Err(Error::Empty { .. })));
}

/// What a trainer's step would follow.
fn gradients(network: &Network<f64>, samples: usize) -> Gradients<f64> {
    let mut trainer = Trainer::builder(network.clone()).build().unwrap();
    let mut gradients = Gradients::new();
    let x = numbers(network.input_len(), samples, 4);
    trainer.gradients(&x, &labels(samples, 3), &mut gradients).unwrap();
    assert_eq!((trainer.network(), trainer.optimizer().steps()), (network, 0));
    gradients
}

#[test]
fn gradients_show_all_that_is_learned() {
    for network in [mlp(), conv_net(), residual_net()] {
        let mut gradients = gradients(&network, 9);
        let count: usize = gradients.values().map(<[f64]>::len).sum();
        assert_eq!(count, network.parameter_count());
        gradients.weights_mut(0).unwrap().fill(2.0);
        gradients.bias_mut(0).unwrap().unwrap().fill(3.0);
        let mut values = gradients.values();
        assert!(values.next().unwrap().iter().all(|&g| g == 2.0));
        assert!(values.next().unwrap().iter().all(|&g| g == 3.0));
        drop(values);
        let copy: Vec<Vec<f64>> = gradients.values().map(<[f64]>::to_vec).collect();
        for (values, copy) in gradients.values_mut().zip(&copy) {
            assert_eq!(values, copy);
        }
        let refused = [gradients.weights_mut(4).map(drop), gradients.bias_mut(4).map(drop)];
        for refused in refused {
            assert!(matches!(refused, Err(Error::NoSuchLayer { .. })));
        }
    }
}

proptest! {
    /// The norm is the root of the sum of squares; clipped gradients have the largest norm, and
    /// their direction.
    #[test]
    fn clipping_bounds_norm_and_values(largest in 1e-3..10.0_f64, scale in -3..4_i32) {
        let mut gradients = gradients(&conv_net(), 9);
        let factor = 10_f64.powi(scale);
        gradients.values_mut().flatten().for_each(|g| *g *= factor);
        let flat = |gradients: &Gradients<f64>| {
            DVector::from_vec(gradients.values().flatten().copied().collect::<Vec<f64>>())
        };
        let before = flat(&gradients);
        prop_assert!((gradients.norm() / before.norm() - 1.0).abs() < 1e-14);
        let mut by_values = gradients.clone();
        prop_assert!((gradients.clip_norm(largest).unwrap() / before.norm() - 1.0).abs() < 1e-14);
        let after = flat(&gradients);
        if before.norm() <= largest {
            prop_assert_eq!(&after, &before);
        } else {
            prop_assert!((after.norm() / largest - 1.0).abs() < 1e-14);
            prop_assert!((after - &before * (largest / before.norm())).amax() < 1e-14 * largest);
        }
        by_values.clip_values(largest).unwrap();
        for (after, before) in flat(&by_values).iter().zip(&before) {
            prop_assert_eq!(*after, before.clamp(-largest, largest));
        }
    }

    /// Without batch normalisation the gradient of a batch is the mean of those of its parts.
    #[test]
    fn gradients_of_parts_add_up_to_that_of_the_whole(parts in 1..5_usize, rule in 0..4_usize) {
        let network = mlp();
        let rule = FeedbackRule::nokland().into_iter().nth(rule).unwrap();
        let mut trainer = Trainer::builder(network.clone()).rule(rule).build().unwrap();
        let (x, y) = (numbers(7, 6 * parts, 2), labels(6 * parts, 3));
        let (mut whole, mut part, mut sum) = (Gradients::new(), Gradients::new(), Gradients::new());
        trainer.gradients(&x, &y, &mut whole).unwrap();
        for index in 0..parts {
            let x = x.columns(index * 6, 6).into_owned();
            trainer.gradients(&x, &y[index * 6..index * 6 + 6], &mut part).unwrap();
            sum.add(&part, 1.0 / parts as f64).unwrap();
        }
        for (sum, whole) in sum.values().zip(whole.values()) {
            for (sum, whole) in sum.iter().zip(whole) {
                prop_assert!((sum - whole).abs() < 1e-14);
            }
        }
    }
}

/// Batch statistics are added with the gradients, so that running ones follow their mean; clipping
/// leaves them alone.
#[test]
fn running_statistics_follow_the_mean_of_the_parts() {
    let network =
        Network::<f64>::builder(7).dense(4).batch_norm().tanh().dense(3).seed(1).build().unwrap();
    let mut trainer = Trainer::builder(network.clone()).build().unwrap();
    let (mut part, mut sum) = (Gradients::new(), Gradients::new());
    let mut mean = DVector::zeros(4);
    for seed in 0..2 {
        let x = numbers(7, 9, seed);
        trainer.gradients(&x, &labels(9, 3), &mut part).unwrap();
        sum.add(&part, 0.5).unwrap();
        let mut a = network.layer(0).unwrap().weights() * &x;
        a.column_iter_mut().for_each(|mut a| a += network.layer(0).unwrap().bias().unwrap());
        mean += a.column_mean() * 0.5;
    }
    sum.clip_norm(1e-6).unwrap();
    trainer.apply(&sum).unwrap();
    let running = trainer.network().parameters().get(0, Part::RunningMean).unwrap();
    assert!((running - mean * 0.1).amax() < 1e-14);
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let network = mlp();
    let data = data(&network);
    let mut trainer = Trainer::builder(network.clone()).build().unwrap();
    let (x, y) = (numbers(7, 9, 1), labels(9, 3));
    let refuse = |gradients: &mut Gradients<f64>| -> Result<()> { gradients.clip_values(-1.0) };
    let invalid = |error| matches!(error, Error::InvalidParameter { .. });
    assert!(invalid(trainer.step_with(&x, &y, refuse).unwrap_err()));
    assert!(invalid(trainer.epoch_with(&data, refuse).unwrap_err()));
    let spoil = |gradients: &mut Gradients<f64>| {
        gradients.weights_mut(1).unwrap()[(0, 0)] = f64::INFINITY;
        Ok(())
    };
    let error = trainer.step_with(&x, &y, spoil).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    let clip = trainer.step_with(&x, &y, |gradients| {
        gradients.values_mut().next().unwrap()[0] = f64::NAN;
        gradients.clip_norm(1.0).map(drop)
    });
    assert!(matches!(clip, Err(Error::NonFinite { .. })));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = trainer.step_with(&x, &y, |gradients| gradients.clip_norm(bad).map(drop));
        assert!(invalid(refused.unwrap_err()));
    }
    let own = gradients(&network, 9);
    let mut sum = gradients(&conv_net(), 9);
    let before = sum.clone();
    assert!(matches!(sum.add(&own, 1.0), Err(Error::StageMismatch { .. })));
    assert!(invalid(sum.add(&before, f64::NAN).unwrap_err()));
    assert_eq!(sum, before);
    assert_eq!((trainer.network(), trainer.optimizer().steps()), (&network, 0));
    assert_eq!(trainer.epochs(), 0);
}

/// Whatever is sent from the output in the place of the error: one bit of it, or the target.
#[test]
fn signs_and_targets_are_sent_like_the_error() {
    for network in [mlp(), conv_net(), residual_net()] {
        let x = numbers(network.input_len(), 9, 1);
        let y = labels(9, 3);
        let (mut activations, mut pass) = (Activations::new(), Deltas::new());
        network.forward(&x, &mut activations).unwrap();
        LOSS.error(&y, &activations, &mut pass).unwrap();
        let e = pass.delta(3).unwrap().into_owned();
        let signs = e.map(|e| e.signum() / 9.0);
        let targets = DMatrix::from_fn(3, 9, |i, j| if y[j] == i { 1.0 / 9.0 } else { 0.0 });
        for (name, signal) in [("sign", signs), ("t", targets)] {
            let text = format!("4:B({name})->0,B({name})->1,W({name})->2");
            let by_signal = feedback(&network, &text);
            let mut found = Deltas::new();
            LOSS.error(&y, &activations, &mut found).unwrap();
            by_signal.deliver(&network, &activations, &mut found).unwrap();
            // The same route with the signal in the place of the error.
            let by_error = feedback(&network, &text.replace(name, "e"));
            let mut expected = Deltas::new();
            expected.begin(&activations).unwrap().copy_from(&signal);
            by_error.deliver(&network, &activations, &mut expected).unwrap();
            for layer in 0..3 {
                let (found, expected) =
                    (found.delta(layer).unwrap(), expected.delta(layer).unwrap());
                assert_eq!(found, expected, "{text}, {layer}");
            }
            // The output layer learns from the error as ever.
            assert_eq!(found.delta(3).unwrap(), e);
        }
    }
}

/// Under sDFA hidden layers do not see the scale of the error; with probabilities its signs are
/// those of `1 − 2t`.
#[test]
fn signs_do_not_see_the_scale_of_the_error() {
    let network = mlp();
    let signs = feedback(&network, "4:B(sign)->0,B(sign)->1,B(sign)->2");
    let x = numbers(7, 9, 1);
    let mut activations = Activations::new();
    network.forward(&x, &mut activations).unwrap();
    let deltas = |factor: f64| {
        let mut deltas = Deltas::new();
        LOSS.error(&labels(9, 3), &activations, &mut deltas).unwrap();
        let e = deltas.delta(3).unwrap() * factor;
        deltas.begin(&activations).unwrap().copy_from(&e);
        signs.deliver(&network, &activations, &mut deltas).unwrap();
        [0, 1, 2].map(|layer| deltas.delta(layer).unwrap().into_owned())
    };
    assert_eq!(deltas(1.0), deltas(1e-3));
    assert_eq!(deltas(1.0), deltas(1e9));
    assert_ne!(deltas(1.0), deltas(-1.0));
    let mut pass = Deltas::new();
    LOSS.error(&labels(9, 3), &activations, &mut pass).unwrap();
    let y = labels(9, 3);
    for (i, e) in pass.delta(3).unwrap().iter().enumerate() {
        let t = f64::from(u8::from(y[i / 3] == i % 3));
        assert_eq!(e.signum(), 1.0 - 2.0 * t);
    }
    // An error of 0 sends nothing, and one that is not a number is found.
    assert!(deltas(0.0).iter().all(|delta| delta.iter().all(|&delta| delta == 0.0)));
    assert!(deltas(f64::NAN).iter().all(|delta| delta.iter().all(|delta| delta.is_nan())));
}

/// DRTP's hidden layers never read the output: with another output layer they learn the same bits.
#[test]
fn targets_do_not_see_the_output() {
    for network in [mlp(), conv_net(), residual_net()] {
        let text = "4:B(t)->0,B(t)->1,B(t)->2";
        let mut other = network.clone();
        other.set_weights(3, network.layer(3).unwrap().weights() * -3.0).unwrap();
        let train = |network: &Network<f64>| {
            let builder = Trainer::builder(network.clone()).feedback(feedback(network, text));
            let mut trainer = builder.optimizer(Adam::default()).build().unwrap();
            trainer.epoch(&data(network)).unwrap();
            trainer.into_network()
        };
        let (one, two) = (train(&network), train(&other));
        for layer in 0..3 {
            assert_eq!(one.layer(layer).unwrap(), two.layer(layer).unwrap());
            assert_ne!(one.layer(layer).unwrap(), network.layer(layer).unwrap());
        }
        assert_ne!(one.layer(3).unwrap(), two.layer(3).unwrap());
    }
}

/// Targets of every kind, and no targets at all.
#[test]
fn targets_are_sent_as_the_loss_takes_them() {
    let network = Network::<f64>::builder(2).dense(3).identity().dense(1).build().unwrap();
    let feedback = feedback(&network, "2:B(t)->0");
    let b = feedback.matrix(0).unwrap().unwrap();
    let x = numbers(2, 4, 1);
    let mut activations = Activations::new();
    network.forward(&x, &mut activations).unwrap();
    let values = DMatrix::from_row_slice(1, 4, &[0.5, -2.0, 0.0, 3.0]);
    let mut deltas = Deltas::new();
    Loss::MeanSquaredError.error(&values, &activations, &mut deltas).unwrap();
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    assert_eq!(deltas.delta(0).unwrap(), &b * (&values / 4.0));
    let classes = DMatrix::from_row_slice(1, 4, &[0.25, 0.0, 0.0, 0.25]);
    Loss::LogisticCrossEntropy.error(&[1, 0, 0, 1], &activations, &mut deltas).unwrap();
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    assert_eq!(deltas.delta(0).unwrap(), &b * classes);
    // A loss of one's own has no targets to send.
    deltas.begin(&activations).unwrap().fill(0.1);
    let error = feedback.deliver(&network, &activations, &mut deltas).unwrap_err();
    assert!(matches!(error, Error::StageMismatch { .. }), "{error}");
    assert!(error.to_string().contains("targets"), "{error}");
    let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    let mut after = network.clone();
    let refused = optimizer.deliver_and_learn(&mut after, &feedback, &activations, &mut deltas);
    assert!(matches!(refused, Err(Error::StageMismatch { .. })));
    assert_eq!(after, network);
}

/// The order of hops as the rule for it says, layer by layer: the highest layer whose hops send nothing
/// that is still missing.
fn in_order(mut waiting: Vec<Hop>) -> Option<Vec<Hop>> {
    let mut hops: Vec<Hop> = Vec::new();
    while !waiting.is_empty() {
        let here = |signal| match signal {
            Signal::Delta(from) => hops.iter().any(|hop| hop.to == from),
            _ => true,
        };
        let ready = |to| waiting.iter().filter(|hop| hop.to == to).all(|hop| here(hop.signal));
        let next = waiting.iter().map(|hop| hop.to).filter(|&to| ready(to)).max()?;
        hops.extend(waiting.extract_if(.., |hop| hop.to == next));
    }
    Some(hops)
}

proptest! {
    #[test]
    fn hops_are_sorted_as_the_rule_says(
        hops in prop::collection::vec((0..6_usize, prop::option::weighted(0.8, 0..6_usize)), 0..9),
    ) {
        let hops: Vec<Hop> = hops
            .into_iter()
            .map(|(to, from)| Hop {
                to,
                signal: from.map_or(Signal::Error, Signal::Delta),
                through: Through::Matrix,
            })
            .collect();
        match (Route::new(7, hops.clone()), in_order(hops)) {
            (Ok(route), Some(expected)) => prop_assert_eq!(route.hops(), expected),
            (Err(Error::ImpossibleHop { .. }), None) => {}
            (found, expected) => prop_assert!(false, "{:?}, not {:?}", found, expected),
        }
    }
}

/// A text of a hundred kilobytes, as a forged checkpoint could have it, is read at once.
#[test]
fn routes_of_many_layers_are_sorted_quickly() {
    let layers = 10_001;
    for rule in [FeedbackRule::Bp, FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let route = rule.route(layers).unwrap();
        assert_eq!(route.to_string().parse::<Route>().unwrap(), route);
        assert_eq!(route.is_direct(), rule == FeedbackRule::Dfa);
        assert!(route.serves(layers - 1) && !route.serves(layers) && !route.serves(usize::MAX));
    }
    let twice =
        format!("{},B(e)->7", FeedbackRule::Dfa.route(layers).unwrap()).parse::<Route>().unwrap();
    assert!(!twice.is_direct());
}

/// What a residual connection brings up arrives once, however many hops go up to the layer.
#[test]
fn two_hops_up_share_a_residual_connection() {
    let builder = Network::builder(3).dense(4).tanh().dense(4).skip(1).tanh();
    let network = builder.dense(2).seed(5).build().unwrap();
    let (one, two) = ("3:B(e)->0,W(0)->1", "3:B(e)->0,W(0)->1,R(0)->1");
    let (one, two) = (feedback(&network, one), feedback(&network, two));
    let (found_one, found_two) = (deltas(&network, &one, 1), deltas(&network, &two, 1));
    assert_eq!(found_one[0], found_two[0]);
    let mut activations = Activations::new();
    network.forward(&numbers(3, 9, 1), &mut activations).unwrap();
    let slope = activations.output(1).unwrap().map(|h| 1.0 - h * h);
    let more = (two.matrix(1).unwrap().unwrap() * &found_two[0]).component_mul(&slope);
    assert!(close(&found_two[1], &(&found_one[1] + more)));
}
