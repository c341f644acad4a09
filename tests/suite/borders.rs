//! Borders: ties, kinks, exact zeros and last rows, where one comparison or one term decides.

use feedback_alignment::{
    Activation, Activations, Adam, AdamW, Dataset, Deltas, Error, Feedback, FeedbackInit,
    FeedbackRule, GradientCheck, Gradients, Init, Loss, Momentum, Network, NetworkBuilder,
    Operation, Optimizer, OptimizerState, Part, RmsProp, Scalar, Sgd, Targets, Trainer, data,
    nalgebra::{DMatrix, DVector},
};

#[test]
fn targets_are_empty_where_there_are_no_samples() {
    let (none, some) = (DMatrix::<f64>::zeros(3, 0), DMatrix::<f64>::zeros(3, 2));
    assert!(Targets::from(&none).is_empty() && !Targets::from(&some).is_empty());
    assert!(Targets::<f64>::Labels(&[]).is_empty() && !Targets::<f64>::Labels(&[0]).is_empty());
}

/// ReLU has no derivative at 0, but what does not move a unit away from there can be checked.
#[test]
fn a_unit_that_rests_at_its_kink_keeps_no_other_parameter_from_being_checked() {
    let mut network = Network::<f64>::builder(2).dense(2).relu().dense(2).build().unwrap();
    network.set_weights(0, DMatrix::from_row_slice(2, 2, &[0.5, 0.25, 0.0, 0.0])).unwrap();
    network.set_bias(0, DVector::from_vec(vec![0.1, 0.0])).unwrap();
    let x = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.75, 1.0]);
    let report =
        GradientCheck::default().run(&network, Loss::SoftmaxCrossEntropy, &x, &[0, 1]).unwrap();
    for tensor in &report.tensors {
        let resting = match (tensor.layer, tensor.part) {
            (0, Part::Weights) => 2,
            (0, Part::Bias) => 1,
            _ => 0,
        };
        assert_eq!(tensor.skipped, resting, "{report}");
    }
    assert!(report.relative_difference() < 1e-6, "{report}");
}

/// Of equal outputs the first counts as the largest, as it does for a prediction.
#[test]
fn among_equal_outputs_the_first_is_ahead() {
    let network = Network::<f64>::builder(1).dense(3).init(Init::Zeros).build().unwrap();
    let trainer = Trainer::builder(network).build().unwrap();
    let x = DMatrix::zeros(1, 3);
    assert_eq!(trainer.predict_classes(&x).unwrap(), [0; 3]);
    let data = Dataset::new(x, vec![0, 1, 2]).unwrap();
    let errors = [1, 2, 3].map(|k| trainer.top_k_error(&data, k).unwrap());
    assert_eq!(errors, [2.0 / 3.0, 1.0 / 3.0, 0.0]);
    let text = trainer.evaluate(&data).unwrap().to_string();
    assert_eq!(text, "loss 1.0986  error 66.67 %"); // ln 3
}

/// Nøkland's zeros are for networks in which every hidden unit saturates.
#[test]
fn noklands_weights_are_zero_only_where_all_hidden_units_saturate() {
    let init = Init::nokland(FeedbackRule::Dfa);
    let build = |builder: NetworkBuilder<f32>| builder.dense(2).init(init).build().unwrap();
    let net = || Network::builder(3).dense(4);
    let is_zero = |network: Network<f32>| {
        let weights = |l| network.layer(l).unwrap().weights();
        (0..network.layer_count()).all(|l| weights(l).iter().all(|&w| w == 0.0))
    };
    assert!(is_zero(build(net().tanh())));
    assert!(is_zero(build(net().logistic().dense(3).tanh())));
    assert!(!is_zero(build(net().relu())));
    assert!(!is_zero(build(net().tanh().dense(3).relu())));
    assert!(!is_zero(build(net().dense(3).tanh())));
}

#[test]
fn gradients_are_equal_only_if_all_their_numbers_are() {
    let network = Network::<f64>::builder(2).dense(2).batch_norm().tanh().dense(2).build().unwrap();
    let of = |x: &DMatrix<f64>| {
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        let mut gradients = Gradients::new();
        let feedback = Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::Nokland, 0).unwrap();
        network.forward(x, &mut activations).unwrap();
        Loss::SoftmaxCrossEntropy.error(&[0, 1], &activations, &mut deltas).unwrap();
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        gradients
    };
    let x = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.75, -1.0]);
    let gradients = of(&x);
    assert!(gradients == of(&x));
    assert!(gradients != of(&(&x * 2.0)) && gradients != Gradients::new());
}

/// Between the last exponential that is a number and ∞ there is nothing to lose.
#[test]
fn a_logistic_unit_is_not_quite_zero_at_the_last_exponential() {
    let (single, double) = (-88.7_f32, -709.7_f64);
    let logistic = Activation::Logistic;
    assert!(logistic.value(single) > 0.0 && logistic.value(double) > 0.0);
    assert_eq!((logistic.value(-100.0_f32), logistic.value(-800.0_f64)), (0.0, 0.0));
}

/// Only what is below the smallest normal number is taken for nothing.
#[test]
fn the_smallest_normal_number_is_a_moment_still() {
    fn check<T: Scalar>(smallest: f64, root: f64) {
        assert_eq!(root * root, smallest);
        let mut network = Network::<T>::builder(1).dense_without_bias(1).build().unwrap();
        network.set_weights(0, DMatrix::zeros(1, 1)).unwrap();
        let momentum = Momentum::Classical(0.5);
        let sgd = Sgd { learning_rate: 1.0, momentum, ..Sgd::default() };
        let builder = Trainer::builder(network).loss(Loss::MeanSquaredError).optimizer(sgd);
        let mut trainer = builder.build().unwrap();
        let one = |value: f64| DMatrix::from_element(1, 1, T::of(value));
        // The gradient is −√smallest · √smallest.
        trainer.step(&one(root), &one(root)).unwrap();
        assert_eq!(trainer.network().layer(0).unwrap().weights()[0].as_f64(), smallest);
        // The moment has become subnormal now.
        trainer.step(&one(0.0), &one(0.0)).unwrap();
        assert_eq!(trainer.network().layer(0).unwrap().weights()[0].as_f64(), smallest);
    }
    check::<f32>(f64::from(f32::MIN_POSITIVE), 2_f64.powi(-63));
    check::<f64>(f64::MIN_POSITIVE, 2_f64.powi(-511));
}

/// A step that has to fail and to leave everything as it was.
fn refused(trainer: &mut Trainer<f32>, x: f32, y: f32) {
    let before = (trainer.network().clone(), trainer.optimizer().clone());
    let one = |value| DMatrix::from_element(1, 1, value);
    let error = trainer.step(&one(x), &one(y)).unwrap_err();
    assert!(error.to_string().contains("after this step"), "{error}");
    assert_eq!((trainer.network(), trainer.optimizer()), (&before.0, &before.1));
}

/// The bound on a gradient has the square of the largest activation, not the activation.
#[test]
fn large_activations_and_a_large_rate_overflow_nothing() {
    let builder = Network::<f32>::builder(1).dense_without_bias(1).dense_without_bias(1);
    let mut network = builder.build().unwrap();
    network.set_weights(0, DMatrix::from_element(1, 1, 1e9)).unwrap();
    network.set_weights(1, DMatrix::zeros(1, 1)).unwrap();
    let sgd = Sgd { learning_rate: 1e21, ..Sgd::default() };
    let builder = Trainer::builder(network).loss(Loss::MeanSquaredError).optimizer(sgd);
    refused(&mut builder.build().unwrap(), 1e9, -1.0);
}

/// However small a gradient is, a step of RMSprop can be ten times the rate.
#[test]
fn a_step_of_rmsprop_on_the_largest_weight_overflows_nothing() {
    let mut network = Network::<f32>::builder(1).dense_without_bias(1).build().unwrap();
    network.set_weights(0, DMatrix::from_element(1, 1, f32::MAX)).unwrap();
    let rms = RmsProp { learning_rate: 2e30, epsilon: 1e-20, ..RmsProp::default() };
    let builder = Trainer::builder(network).loss(Loss::MeanSquaredError).optimizer(rms);
    refused(&mut builder.build().unwrap(), 1e-25, 7e13);
}

/// A file of numbers that are none says where: the row and the column of the last dimension.
#[test]
fn a_number_in_an_idx_file_that_is_none_has_a_row_and_a_column() {
    let mut bytes = vec![0, 0, 0x0d, 2, 0, 0, 0, 2, 0, 0, 0, 3];
    for value in [1.0, 2.0, 3.0, 4.0, 5.0, f32::NAN] {
        bytes.extend(f32::to_be_bytes(value));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.idx");
    std::fs::write(&path, bytes).unwrap();
    let error = data::idx::read::<f64>(&path).unwrap_err();
    assert!(matches!(error, Error::NonFinite { row: 1, column: 2, .. }), "{error}");
}

/// The length of a name in a zip file has two bytes.
#[test]
fn a_zip_file_with_a_long_name_is_recognised() {
    let name = [&[b'x'; 291][..], b"/data.pkl"].concat();
    let length = u16::try_from(name.len()).unwrap().to_le_bytes();
    let bytes = [b"PK\x03\x04", &[0; 22][..], &length, &[0, 0], &name, &[7; 4000]].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.idx");
    std::fs::write(&path, bytes).unwrap();
    let error = data::idx::read::<f32>(&path).unwrap_err().to_string();
    assert!(error.contains("torch.save"), "{error}");
}

/// Fractions begin with 0: no momentum, and averages that remember nothing.
#[test]
fn fractions_of_zero_are_taken() {
    let network = Network::<f32>::builder(2).dense(2).build().unwrap();
    let adam = Adam { beta1: 0.0, beta2: 0.0, ..Adam::default() };
    let optimizers: [Optimizer; 5] = [
        Sgd { momentum: Momentum::Classical(0.0), ..Sgd::default() }.into(),
        Sgd { momentum: Momentum::Nesterov(0.0), ..Sgd::default() }.into(),
        RmsProp { decay: 0.0, ..RmsProp::default() }.into(),
        adam.into(),
        AdamW { adam, ..AdamW::default() }.into(),
    ];
    for optimizer in optimizers {
        assert!(OptimizerState::new(&network, optimizer).is_ok(), "{optimizer:?}");
    }
}

/// A variance of 10³⁰ is a number in `f32`, though its square is not; what overflows above it is
/// not put down to it.
#[test]
fn a_large_variance_is_normalised() {
    let network = Network::<f32>::builder(1).dense_without_bias(2).batch_norm().tanh().dense(2);
    let mut network = network.build().unwrap();
    network.set_weights(0, DMatrix::from_element(2, 1, 1.0)).unwrap();
    let x = DMatrix::from_row_slice(1, 2, &[1e15, -1e15]);
    let mut trainer = Trainer::builder(network.clone()).build().unwrap();
    trainer.step(&x, &[0, 1]).unwrap();
    let variance = trainer.network().parameters().get(0, Part::RunningVariance).unwrap();
    assert!((1e28..1e31).contains(&variance[0]));

    network.set_weights(1, DMatrix::from_element(2, 2, 3e38)).unwrap();
    let error = network.forward(&x, &mut Activations::new()).unwrap_err();
    assert!(error.to_string().contains("a of weighted layer 1"), "{error}");
}

/// A variance of two thirds of the largest number is one still: the two units become 1 and −1.
#[test]
fn the_largest_variance_of_a_sample_is_normalised() {
    let network = Network::<f32>::builder(1).dense_without_bias(2).layer_norm().dense(2);
    let mut network = network.build().unwrap();
    network.set_weights(0, DMatrix::from_row_slice(2, 1, &[1.0, -1.0])).unwrap();
    let mut activations = Activations::new();
    network.forward(&DMatrix::from_element(1, 1, 1.5e19), &mut activations).unwrap();
    let h = activations.output(0).unwrap();
    assert!((h[0] - 1.0).abs() < 1e-6 && (h[1] + 1.0).abs() < 1e-6, "{h}");
}

#[test]
fn operations_tell_their_sizes() {
    let builder = Network::<f32>::builder(5).dense(4).tanh().dense(4).dense(4).skip(2);
    let network = builder.layer_norm().dense(2).build().unwrap();
    let [Operation::Skip(skip), Operation::LayerNorm(norm)] =
        network.layer(2).unwrap().operations()
    else {
        panic!("a residual connection and a normalisation")
    };
    assert_eq!((skip.layers(), norm.values()), (2, 4));
}

#[test]
fn an_identity_changes_nothing() {
    let plain = Network::<f32>::builder(2).dense(3).dense(2).seed(1).build().unwrap();
    let same = Network::<f32>::builder(2).dense(3).identity().dense(2).seed(1).build().unwrap();
    let x = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.75, -1.0]);
    assert_eq!(plain.predict(&x).unwrap(), same.predict(&x).unwrap());
}
