//! Classes that count more or less than others in the loss.

use approx::assert_relative_eq;
use feedback_alignment::{
    Activations, Dataset, Deltas, Diagnostics, Error, Feedback, FeedbackInit, FeedbackRule, Loss,
    Network, Result, Scalar, Targets, Trainer,
    nalgebra::{DMatrix, DVector},
};

/// A network whose logits are its inputs.
fn identity<T: Scalar>(outputs: usize) -> Network<T> {
    let mut network = Network::builder(outputs).dense(outputs).build().unwrap();
    network.set_weights(0, DMatrix::identity(outputs, outputs)).unwrap();
    network.set_bias(0, DVector::zeros(outputs)).unwrap();
    network
}

/// `J` and `e` of these logits.
fn weighted<'a, T: Scalar>(
    loss: Loss,
    logits: &DMatrix<T>,
    targets: impl Into<Targets<'a, T>>,
    weights: &[f64],
) -> Result<(f64, DMatrix<T>)> {
    let network = identity(logits.nrows());
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(logits, &mut activations)?;
    let loss = loss.error_weighted(targets, weights, &activations, &mut deltas)?;
    Ok((loss, deltas.delta(0)?.into_owned()))
}

/// Three samples of five features, more of them by repetition, and their classes.
fn samples(count: usize) -> (DMatrix<f64>, Vec<usize>) {
    let x = DMatrix::from_fn(5, count, |i, j| ((i * 7 + j * 5) % 13) as f64 / 6.0 - 1.0);
    (x, (0..count).map(|j| j * j % 3).collect())
}

fn network() -> Network<f64> {
    Network::builder(5).dense(6).tanh().dense(3).seed(3).build().unwrap()
}

/// `torch.nn.CrossEntropyLoss(weight=w)(z.T, y)`, whose definition is
/// `Σ −w_y ln softmax(z)_y / Σ w_y`: the logits are logarithms of probabilities.
#[test]
fn the_loss_is_the_mean_weighted_by_classes_as_in_pytorch() {
    let p = DMatrix::from_column_slice(3, 3, &[0.5, 0.25, 0.25, 0.1, 0.7, 0.2, 0.2, 0.3, 0.5]);
    let (z, y) = (p.map(f64::ln), [0, 2, 1]);
    let (ln2, ln5, ln3) = (2_f64.ln(), 5_f64.ln(), (10.0 / 3.0_f64).ln());
    for (w, expected) in [
        ([1.0, 2.0, 4.0], (ln2 + 4.0 * ln5 + 2.0 * ln3) / 7.0),
        ([0.1, 0.1, 5.0], (0.1 * ln2 + 5.0 * ln5 + 0.1 * ln3) / 5.2),
        ([3.0, 3.0, 3.0], (ln2 + ln5 + ln3) / 3.0),
    ] {
        let (loss, e) = weighted(Loss::SoftmaxCrossEntropy, &z, &y, &w).unwrap();
        assert_relative_eq!(loss, expected, max_relative = 1e-14);
        let sum: f64 = w.iter().sum();
        for (j, &class) in y.iter().enumerate() {
            for k in 0..3 {
                let one_hot = f64::from(u8::from(k == class));
                let expected = w[class] * (p[(k, j)] - one_hot) / sum;
                assert_relative_eq!(e[(k, j)], expected, epsilon = 1e-15);
            }
        }
    }
    // Of a batch of one class, its weight cancels.
    let (loss, _) = weighted(Loss::SoftmaxCrossEntropy, &z, &[1, 1, 1], &[1.0, 9.0, 1.0]).unwrap();
    assert_relative_eq!(loss, -(0.25_f64 * 0.7 * 0.3).ln() / 3.0, max_relative = 1e-14);
}

#[test]
fn the_error_is_the_derivative_of_the_weighted_loss() {
    let weights = [0.5, 3.0, 0.01];
    let z = DMatrix::from_fn(3, 4, |i, j| ((i * 5 + j * 3) % 7) as f64 / 2.0 - 1.0);
    let labels = [2, 0, 1, 0];
    let hot = DMatrix::from_fn(3, 4, |i, j| f64::from(u8::from(labels[j] == i)));
    for loss in Loss::all() {
        let (value, e) = weighted(loss, &z, &labels, &weights).unwrap();
        assert_eq!(weighted(loss, &z, &hot, &weights).unwrap(), (value, e.clone()), "{loss}");
        for index in 0..z.len() {
            let shifted = |by: f64| {
                let mut z = z.clone();
                z[index] += by;
                weighted(loss, &z, &labels, &weights).unwrap().0
            };
            let difference = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert_relative_eq!(e[index], difference, epsilon = 1e-9);
        }
    }
}

#[test]
fn equal_weights_change_nothing() {
    let (z, labels) = (DMatrix::from_fn(3, 7, |i, j| (i * j) as f32 / 4.0), [0, 1, 2, 1, 0, 1, 1]);
    for loss in Loss::all() {
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        identity(3).forward(&z, &mut activations).unwrap();
        let plain = loss.error(&labels, &activations, &mut deltas).unwrap();
        let (value, e) = weighted(loss, &z, &labels, &[0.1; 3]).unwrap();
        assert_relative_eq!(value, plain, max_relative = 1e-6);
        assert_eq!(e, deltas.delta(0).unwrap().into_owned(), "{loss}");
    }
}

#[test]
fn a_class_of_weight_three_is_as_good_as_three_of_each_sample() {
    let (x, labels) = samples(10);
    let often: Vec<usize> =
        (0..10).flat_map(|j| vec![j; if labels[j] == 1 { 3 } else { 1 }]).collect();
    let repeated = x.select_columns(&often);
    let of_repeated: Vec<usize> = often.iter().map(|&j| labels[j]).collect();
    for loss in Loss::all() {
        for rule in FeedbackRule::nokland() {
            let builder = || Trainer::builder(network()).loss(loss).rule(rule).seed(1);
            let mut by_weight = builder().class_weights([0.5, 1.5, 0.5]).build().unwrap();
            let mut by_count = builder().build().unwrap();
            let step = by_weight.step(&x, &labels).unwrap();
            let other = by_count.step(&repeated, &of_repeated).unwrap();
            assert_relative_eq!(step.loss, other.loss, max_relative = 1e-12);
            assert_relative_eq!(step.weight, 0.5 * other.weight, max_relative = 1e-12);
            assert_eq!((step.samples, other.samples as f64), (10, other.weight));
            for layer in 0..2 {
                let weights = |trainer: &Trainer<f64>| {
                    trainer.network().layer(layer).unwrap().weights().into_owned()
                };
                assert_relative_eq!(weights(&by_weight), weights(&by_count), epsilon = 1e-9);
            }
        }
    }
}

#[test]
fn losses_of_many_batches_are_weighted_as_those_of_one() {
    let (x, labels) = samples(600);
    let data = Dataset::new(x.clone(), labels.clone()).unwrap();
    let weights = [0.2, 1.0, 7.0];
    let builder = Trainer::builder(network()).class_weights(weights).batch_size(7);
    let mut trainer = builder.build().unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    trainer.network().forward(&x, &mut activations).unwrap();
    let loss = trainer.loss();
    let whole = loss.error_weighted(&labels, &weights, &activations, &mut deltas).unwrap();
    assert_relative_eq!(trainer.evaluate(&data).unwrap().loss, whole, max_relative = 1e-12);
    // Steps so small that they do not matter.
    trainer.set_learning_rate(1e-12).unwrap();
    assert_relative_eq!(trainer.epoch(&data).unwrap().loss, whole, max_relative = 1e-9);
}

#[test]
fn a_diagnosis_is_of_the_deltas_that_are_learned() {
    let (x, labels) = samples(9);
    let weights = [0.2, 1.0, 7.0];
    let network = network();
    let feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::default(), 1).unwrap();
    let builder = Trainer::builder(network.clone()).feedback(feedback.clone());
    let mut trainer = builder.class_weights(weights).build().unwrap();
    let mut diagnostics = Diagnostics::new(&network).unwrap();
    let observed = diagnostics.observe(&trainer, &x, &labels).unwrap();

    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&x, &mut activations).unwrap();
    let loss = trainer.loss();
    loss.error_weighted(&labels, &weights, &activations, &mut deltas).unwrap();
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    let by_hand = diagnostics.compare(&network, &feedback, &activations, &deltas).unwrap();
    assert_eq!(observed, by_hand);
    trainer.set_class_weights(None).unwrap();
    assert_ne!(diagnostics.observe(&trainer, &x, &labels).unwrap(), observed);
}

#[test]
fn weights_of_all_magnitudes_leave_numbers() {
    let z = DMatrix::from_fn(2, 3, |i, j| (i + j) as f32);
    for weights in [[1e100, 1e100], [1e100, 5e-324], [5e-324, 5e-324], [1e-30, 1e30]] {
        for labels in [[0, 1, 0], [1, 1, 1], [0, 0, 0]] {
            for loss in Loss::all() {
                let (loss, e) = weighted(loss, &z, &labels, &weights).unwrap();
                assert!(loss.is_finite() && loss > 0.0, "{weights:?}: {loss}");
                assert!(e.iter().all(|e| e.is_finite()) && e.amax() > 0.0, "{weights:?}: {e}");
            }
        }
    }
}

#[test]
fn weights_that_are_none_are_refused_and_the_old_ones_stay() {
    let mut trainer = Trainer::builder(network()).class_weights([1.0, 2.0, 3.0]).build().unwrap();
    let build = |weights: &[f64]| Trainer::builder(network()).class_weights(weights).build();
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.1e100] {
        let weights = [1.0, wrong, 1.0];
        let message = build(&weights).unwrap_err().to_string();
        assert!(message.contains("class weight") && message.contains("positive"), "{message}");
        let refused = trainer.set_class_weights(Some(weights.to_vec()));
        assert!(matches!(refused, Err(Error::InvalidParameter { name: "class weight", .. })));
        let z = DMatrix::<f64>::zeros(3, 1);
        assert!(weighted(Loss::SoftmaxCrossEntropy, &z, &[0], &weights).is_err());
    }
    for weights in [&[][..], &[1.0; 2], &[1.0; 4]] {
        assert!(matches!(build(weights), Err(Error::ShapeMismatch { expected: (3, 1), .. })));
        assert!(trainer.set_class_weights(Some(weights.to_vec())).is_err());
    }
    assert_eq!(trainer.class_weights(), Some(&[1.0, 2.0, 3.0][..]));
    // One output tells two classes apart.
    let single = || Trainer::builder(Network::<f64>::builder(1).dense(1).build().unwrap());
    let single = || single().loss(Loss::LogisticCrossEntropy);
    assert!(single().class_weights([1.0]).build().is_err());
    let mut single = single().class_weights([1.0, 2.0]).build().unwrap();
    single.step(&DMatrix::zeros(1, 2), &[0, 1]).unwrap();
    assert_eq!(single.class_weights(), Some(&[1.0, 2.0][..]));
}

#[test]
fn targets_that_are_no_classes_and_another_network_are_refused() {
    let x = samples(2).0;
    let soft = DMatrix::from_element(3, 2, 0.25);
    let builder = || Trainer::builder(network()).class_weights([1.0, 2.0, 3.0]);
    let mut trainer = builder().loss(Loss::LogisticCrossEntropy).build().unwrap();
    let before = trainer.network().clone();
    let refused = trainer.step(&x, &soft);
    assert!(matches!(refused, Err(Error::NoClasses { .. })), "{refused:?}");
    let data = Dataset::with_values(x.clone(), &soft).unwrap();
    assert!(matches!(trainer.epoch(&data), Err(Error::NoClasses { .. })));
    assert!(matches!(trainer.evaluate(&data), Err(Error::NoClasses { .. })));
    assert_eq!(*trainer.network(), before);

    let data = Dataset::new(x.clone(), vec![3, 0]).unwrap();
    let mut trainer = builder().build().unwrap();
    *trainer.network_mut() = Network::builder(5).dense(6).tanh().dense(4).build().unwrap();
    assert!(matches!(trainer.step(&x, &[3, 0]), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(trainer.evaluate(&data), Err(Error::ShapeMismatch { .. })));
}

/// Under batch normalisation the error of every sample reaches every input, so class weights change the
/// signs of `∂J/∂x` too.
#[test]
fn adversarial_training_goes_along_the_weighted_loss() {
    let builder = Network::<f64>::builder(2).dense(3).batch_norm().tanh().dense(2);
    let network = builder.seed(2).build().unwrap();
    let loss = Loss::SoftmaxCrossEntropy;
    let (weights, labels, epsilon) = ([1.0, 100.0], [0, 1, 0, 0, 1], 0.05);
    let x = DMatrix::from_fn(2, 5, |i, j| ((i * 7 + j * j * 3 + 1) % 11) as f64 / 5.0 - 1.0);
    let value = |weights: &[f64], x: &DMatrix<f64>| {
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        network.forward(x, &mut activations).unwrap();
        loss.error_weighted(&labels, weights, &activations, &mut deltas).unwrap()
    };
    let signs = |weights: &[f64]| {
        DMatrix::from_fn(2, 5, |i, j| {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[(i, j)] += by;
                value(weights, &x)
            };
            (moved(1e-5) - moved(-1e-5)).signum()
        })
    };
    assert_ne!(signs(&weights), signs(&[1.0, 1.0]), "the weights make no difference here");
    let builder = || Trainer::builder(network.clone()).loss(loss).class_weights(weights);
    let (mut found, mut expected) =
        (builder().adversarial(epsilon).build().unwrap(), builder().build().unwrap());
    found.step(&x, &labels).unwrap();
    expected.step(&(&x + signs(&weights) * epsilon), &labels).unwrap();
    let layer = |trainer: &Trainer<f64>| trainer.network().layer(0).unwrap().weights().into_owned();
    assert_relative_eq!(layer(&found), layer(&expected), epsilon = 1e-12);
    assert_ne!(layer(&found), network.layer(0).unwrap().weights());
}
