//! Batch normalisation after a frozen layer: the same function in training and in evaluation.

use feedback_alignment::{
    Activations, Adam, Conv2d, Dataset, Deltas, FeedbackRule, GradientCheck, Loss, Network, Part,
    Trainer,
    nalgebra::{DMatrix, DVector},
};

/// Two classes of points, moved by `shift`.
fn points(shift: f64) -> Dataset<f64> {
    let x = DMatrix::from_fn(2, 40, |i, j| {
        let class = (j % 2) as f64 * 2.0 - 1.0;
        let noise = ((i * 17 + j * 29) % 23) as f64 / 23.0 - 0.5;
        class * if i == 0 { 1.0 } else { -1.0 } + noise + shift
    });
    Dataset::new(x, (0..40).map(|j| j % 2).collect()).unwrap()
}

/// Sets scale, shift, running mean and running variance.
fn set_norm(network: &mut Network<f64>, layer: usize, values: [DVector<f64>; 4]) {
    for (part, values) in NORM.into_iter().zip(values) {
        network.set_parameter(layer, part, values.as_slice()).unwrap();
    }
}

const NORM: [Part; 4] = [Part::Scale, Part::Shift, Part::RunningMean, Part::RunningVariance];

/// A network whose first layer is normalised by statistics that are far from those of any batch.
fn network() -> Network<f64> {
    let builder = Network::builder(2).dense(16).batch_norm().tanh().dense(2);
    let mut network = builder.build().unwrap();
    let vector = |start: f64| DVector::from_fn(16, |i, _| start + i as f64 / 16.0);
    set_norm(&mut network, 0, [vector(0.5), vector(-0.3), vector(-1.0), vector(0.7)]);
    network
}

#[test]
fn training_and_evaluation_of_a_frozen_layer_agree_to_the_bit() {
    let images = Network::<f64>::builder((1, 4, 4))
        .conv2d(Conv2d::new(3, 2))
        .batch_norm()
        .relu()
        .dense(2)
        .build()
        .unwrap();
    for mut network in [network(), images] {
        let x =
            DMatrix::from_fn(network.input_len(), 7, |i, j| ((i * 7 + j * 5) % 11) as f64 - 4.0);
        let mut activations = Activations::new();
        network.forward(&x, &mut activations).unwrap();
        assert_ne!(activations.logits().unwrap(), network.predict(&x).unwrap());
        network.freeze(0).unwrap();
        network.forward(&x, &mut activations).unwrap();
        assert_eq!(activations.logits().unwrap(), network.predict(&x).unwrap());
        network.release(0).unwrap();
        network.forward(&x, &mut activations).unwrap();
        assert_ne!(activations.logits().unwrap(), network.predict(&x).unwrap());
    }
}

#[test]
fn gradients_below_a_frozen_normalisation_are_those_of_differences() {
    let builder = Network::<f64>::builder(3).dense(5).tanh().dense(4).batch_norm().tanh().dense(2);
    let mut network = builder.build().unwrap();
    let vector = |start: f64| DVector::from_fn(4, |i, _| start + i as f64 / 4.0);
    set_norm(&mut network, 1, [vector(0.5), vector(-0.3), vector(-1.0), vector(0.7)]);
    network.freeze(1).unwrap();
    let x = DMatrix::from_fn(3, 6, |i, j| ((i * 7 + j * 5) % 11) as f64 / 5.0 - 1.0);
    let report = GradientCheck::default()
        .run(&network, Loss::SoftmaxCrossEntropy, &x, &[0, 1, 1, 0, 1, 0])
        .unwrap();
    assert!(report.relative_difference() < 1e-7, "{report}");
    assert!(report.tensors.len() == 8 && report.largest() > 1e-3);
}

/// The layer was trained on one set and is frozen while the network goes on with another, whose
/// mean is elsewhere: what training sees is what evaluation sees.
#[test]
fn a_frozen_layer_goes_on_with_shifted_data() {
    for rule in FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow) {
        let builder = Network::builder(2).dense(16).batch_norm().tanh().dense(2).seed(3);
        let mut trainer = Trainer::builder(builder.build().unwrap())
            .rule(rule)
            .optimizer(Adam { learning_rate: 0.01, ..Adam::default() })
            .batch_size(10)
            .build()
            .unwrap();
        for _ in 0..100 {
            trainer.epoch(&points(0.0)).unwrap();
        }
        trainer.freeze(0).unwrap();
        let before = trainer.network().clone();
        let mut last = None;
        for _ in 0..200 {
            last = trainer.epoch(&points(5.0)).unwrap().error_rate;
        }
        let evaluated = trainer.evaluate(&points(5.0)).unwrap().error_rate;
        assert!(
            (last.unwrap() - evaluated.unwrap()).abs() < 0.1,
            "{rule}: {last:?}, {evaluated:?}"
        );
        for part in NORM {
            let norm = trainer.network().parameters().get(0, part);
            assert_eq!(norm, before.parameters().get(0, part), "{part}");
        }
    }
}

/// A frozen normalisation needs no statistics of the batch: a single sample will do.
#[test]
fn a_single_sample_is_enough_for_a_frozen_normalisation() {
    let mut trainer = Trainer::builder(network()).build().unwrap();
    let x = DMatrix::from_element(2, 1, 0.3);
    assert!(trainer.step(&x, &[1]).is_err());
    trainer.freeze(0).unwrap();
    trainer.step(&x, &[1]).unwrap();
    trainer.release(0).unwrap();
    assert!(trainer.step(&x, &[1]).is_err());
}

#[test]
fn comparing_networks_ignores_what_is_frozen() {
    let mut network = network();
    let twin = network.clone();
    network.freeze(0).unwrap();
    assert_eq!(network, twin);
    assert_eq!((network.frozen().count(), twin.frozen().count()), (1, 0));
    let mut deltas = Deltas::new();
    let mut activations = Activations::new();
    network.forward(&DMatrix::zeros(2, 1), &mut activations).unwrap();
    Loss::default().error(&[0], &activations, &mut deltas).unwrap();
}
