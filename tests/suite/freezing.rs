//! Frozen layers: they keep their bits, and nothing else notices.

use feedback_alignment::{
    Activations, Adam, Dataset, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Gradients,
    Loss, Network, OptimizerState, Part, RmsProp, Trainer, nalgebra::DMatrix,
};

#[cfg(feature = "safetensors")]
use crate::craft;

#[cfg(feature = "safetensors")]
use craft::Craft;

fn data() -> Dataset<f64> {
    let x = DMatrix::from_fn(6, 20, |i, j| ((i * 5 + j * j * 3) % 13) as f64 / 8.0 - 0.7);
    Dataset::new(x, (0..20).map(|j| j * j % 3).collect()).unwrap()
}

fn network() -> Network<f64> {
    let builder = Network::builder(6).dense(7).batch_norm().tanh().dense(5).tanh().dense(3);
    builder.seed(4).build().unwrap()
}

/// The rules that train a network with batch normalisation: all whose feedback gets everywhere.
fn with_norm() -> impl Iterator<Item = FeedbackRule> {
    FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow)
}

fn trainer(rule: FeedbackRule) -> Trainer<f64> {
    let optimizer = Adam { learning_rate: 0.02, ..Adam::default() };
    let builder = Trainer::builder(network()).rule(rule).optimizer(optimizer).batch_size(5);
    builder.build().unwrap()
}

#[test]
fn a_frozen_layer_keeps_its_bits_and_the_others_learn() {
    for rule in with_norm() {
        for frozen in 0..3 {
            let (mut trainer, start) = (trainer(rule), network());
            trainer.freeze(frozen).unwrap();
            trainer.freeze(frozen).unwrap();
            assert_eq!(trainer.network().frozen().collect::<Vec<_>>(), [frozen]);
            trainer.epoch(&data()).unwrap();
            for layer in 0..3 {
                let (old, new) = (start.layer(layer).unwrap(), trainer.network().layer(layer));
                assert_eq!(old == new.unwrap(), layer == frozen, "{rule}, {layer} of {frozen}");
            }
            // Scale, shift and running statistics belong to the first layer.
            for part in [Part::Scale, Part::Shift, Part::RunningMean, Part::RunningVariance] {
                let norm = trainer.network().parameters().get(0, part).unwrap();
                let old = start.parameters().get(0, part).unwrap();
                assert_eq!(norm == old, frozen == 0, "{rule}, {part}");
            }
            trainer.release(frozen).unwrap();
            trainer.epoch(&data()).unwrap();
            let (old, new) = (start.layer(frozen).unwrap(), trainer.network().layer(frozen));
            assert_ne!(old, new.unwrap(), "{rule}");
        }
    }
}

/// The step of the others is the one they would have made anyway.
#[test]
fn the_first_step_of_the_others_does_not_depend_on_a_frozen_layer() {
    for rule in with_norm() {
        let (mut free, mut held) = (trainer(rule), trainer(rule));
        held.freeze(1).unwrap();
        let (x, labels) =
            (data().inputs(), vec![0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(free.step(&x, &labels).unwrap(), held.step(&x, &labels).unwrap());
        for layer in [0, 2] {
            let pair = (free.network().layer(layer), held.network().layer(layer));
            assert_eq!(pair.0.unwrap(), pair.1.unwrap(), "{rule}");
        }
    }
}

/// Moments rest: a layer that is released goes on as if the time between had not been.
#[test]
fn moments_rest_while_a_layer_is_frozen() {
    let (x, labels) = (data().inputs(), vec![1; 20]);
    let network = Network::<f64>::builder(6).dense(3).build().unwrap();
    let build = || Trainer::builder(network.clone()).optimizer(RmsProp::default()).build().unwrap();
    let (mut straight, mut paused) = (build(), build());
    for step in 0..6 {
        if step == 3 {
            paused.freeze(0).unwrap();
            for _ in 0..5 {
                paused.step(&x, &labels).unwrap();
            }
            paused.release(0).unwrap();
        }
        straight.step(&x, &labels).unwrap();
        paused.step(&x, &labels).unwrap();
    }
    assert_eq!(straight.network(), paused.network());
    assert_eq!(straight.optimizer().steps() + 5, paused.optimizer().steps());
}

#[test]
fn every_way_to_make_a_step_leaves_it_alone() {
    let data = data();
    let (x, labels) = (data.inputs(), data.targets());
    for rule in FeedbackRule::nokland() {
        let mut network = network();
        let feedback = Feedback::new(&network, rule, FeedbackInit::Nokland, 1).unwrap();
        let optimizer = OptimizerState::new(&network, Adam::default()).unwrap();
        network.freeze(0).unwrap();
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        network.forward(&x, &mut activations).unwrap();
        Loss::SoftmaxCrossEntropy.error(labels, &activations, &mut deltas).unwrap();
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        let mut gradients = Gradients::new();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();

        let [mut plain, mut fused, mut direct] =
            [(); 3].map(|()| (network.clone(), optimizer.clone()));
        plain.1.step(&mut plain.0, &gradients).unwrap();
        fused.1.learn(&mut fused.0, &activations, &deltas).unwrap();
        let (network, optimizer) = &mut direct;
        optimizer.deliver_and_learn(network, &feedback, &activations, &mut deltas).unwrap();
        assert_eq!(plain, fused);
        assert_eq!(plain, direct);
        assert_ne!(plain.0, self::network());
    }
}

#[test]
fn a_layer_that_is_not_there_is_refused() {
    let mut trainer = trainer(FeedbackRule::Dfa);
    for result in [trainer.freeze(3), trainer.release(3)] {
        let refused = result.unwrap_err();
        assert!(matches!(refused, Error::NoSuchLayer { layer: 3, count: 3, .. }), "{refused}");
    }
}

#[cfg(feature = "safetensors")]
#[test]
fn checkpoints_keep_what_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut whole = trainer(FeedbackRule::Dfa);
    whole.freeze(0).unwrap();
    whole.freeze(2).unwrap();
    whole.epoch(&data()).unwrap();
    whole.save(&path).unwrap();
    let mut resumed = Trainer::<f64>::load(&path).unwrap();
    assert_eq!(resumed.network().frozen().collect::<Vec<_>>(), [0, 2]);
    for trainer in [&mut whole, &mut resumed] {
        trainer.epoch(&data()).unwrap();
        trainer.release(0).unwrap();
        trainer.epoch(&data()).unwrap();
    }
    assert_eq!(whole.network(), resumed.network());
    assert_eq!(whole.optimizer(), resumed.optimizer());

    // Files that freeze what cannot be frozen, with the checksum of what they say.
    for (line, expected) in [
        ("frozen layer=7", "there is no weighted layer 7"),
        ("frozen layer=0", "frozen"),
        ("frozen layer=-1", "frozen"),
    ] {
        let damaged = folder.path().join("damaged");
        Craft::open(&path).replace("frozen layer=2", line).write(&damaged);
        let refused = Trainer::<f64>::load(&damaged).unwrap_err().to_string();
        assert!(refused.contains(expected), "{line}: {refused}");
    }
}
