//! Numbers at the edge of what a scalar can represent: either the right value or a named error,
//! after which nothing has changed.

use feedback_alignment::{
    Activation, Adam, AdamW, Dataset, Error, FastGradientSign, FeedbackInit, FeedbackRule, Init,
    Loss, Momentum, Network, Optimizer, OptimizerState, Part, RmsProp, Scalar, Sgd, Targets,
    Trainer, WeightDecay,
    nalgebra::{DMatrix, DVector},
};

/// Everything of a trainer that lasts.
fn state<T: Scalar>(trainer: &Trainer<T>) -> (Network<T>, OptimizerState<T>, u64) {
    (trainer.network().clone(), trainer.optimizer().clone(), trainer.epochs())
}

/// A step that has to fail with a number that is not finite, and to change nothing.
fn refused<'a, T: Scalar>(
    trainer: &mut Trainer<T>,
    x: &DMatrix<T>,
    targets: impl Into<Targets<'a, T>>,
) -> String {
    let before = state(trainer);
    let error = trainer.step(x, targets).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. } | Error::NonFiniteLoss { .. }), "{error}");
    assert_eq!(state(trainer), before, "{error}");
    error.to_string()
}

fn optimizers() -> [Optimizer; 8] {
    let sgd = Sgd { learning_rate: 0.01, ..Sgd::default() };
    let heavy = Sgd { momentum: Momentum::Classical(0.9), ..sgd };
    [
        sgd.into(),
        heavy.into(),
        Sgd { momentum: Momentum::Nesterov(0.9), ..sgd }.into(),
        Sgd { weight_decay: WeightDecay::L2(0.1), ..heavy }.into(),
        Sgd { weight_decay: WeightDecay::Decoupled(0.1), ..sgd }.into(),
        RmsProp { learning_rate: 0.01, ..RmsProp::default() }.into(),
        Adam::default().into(),
        AdamW::default().into(),
    ]
}

/// The variance of 10²⁵ overflows, and 1/√∞ = 0 would hide it.
#[test]
fn a_variance_that_overflows_is_an_error() {
    let build = || {
        let builder = Network::<f32>::builder(8).dense(4).batch_norm().relu().dense(2);
        builder.init(Init::Uniform { bound: 0.5 }).build().unwrap()
    };
    let x = DMatrix::from_fn(8, 2, |i, j| if j == 0 { 1e25 * (i as f32 - 3.5) } else { 0.1 });
    for rule in FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow) {
        let mut trainer = Trainer::builder(build()).rule(rule).build().unwrap();
        let message = refused(&mut trainer, &x, &[0, 1]);
        assert!(message.contains("the variance of the normalisation after layer 0"), "{message}");
        let running = trainer.network().parameters().get(0, Part::RunningVariance).unwrap();
        assert!(running.iter().all(|&v| v == 1.0));
        let data = Dataset::new(x.clone(), vec![0, 1]).unwrap();
        assert!(matches!(trainer.epoch(&data), Err(Error::NonFinite { .. })));
    }
    let mut activations = feedback_alignment::Activations::new();
    assert!(matches!(build().forward(&x, &mut activations), Err(Error::NonFinite { .. })));
    let by_sample =
        Network::<f32>::builder(8).dense(4).layer_norm().relu().dense(2).build().unwrap();
    let message = by_sample.forward(&x, &mut activations).unwrap_err().to_string();
    assert!(message.contains("the variance of the normalisation after layer 0"), "{message}");
}

#[test]
fn a_step_that_would_overflow_leaves_everything_as_it_was() {
    let x = DMatrix::from_element(2, 3, 100.0_f32);
    let y = DMatrix::from_element(2, 3, 5.0_f32);
    for rule in FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow) {
        for deep in [false, true] {
            let builder = Network::<f32>::builder(2).dense(3);
            let network = if deep { builder.batch_norm().tanh().dense(4).relu() } else { builder }
                .dense(2)
                .build()
                .unwrap();
            let sgd = Sgd { learning_rate: 3e38, ..Sgd::default() };
            let mut trainer = Trainer::builder(network)
                .rule(rule)
                .loss(Loss::MeanSquaredError)
                .optimizer(sgd)
                .max_norm(1.0)
                .build()
                .unwrap();
            let message = refused(&mut trainer, &x, &y);
            assert!(message.contains("after this step"), "{message}");
        }
    }
}

/// Every way to go beyond the largest number, from an ordinary network, in both scalars.
fn check_overflow<T: Scalar>(x: f64, y: f64) {
    for optimizer in optimizers() {
        let network = Network::<T>::builder(1).dense(1).build().unwrap();
        let mut trainer = Trainer::builder(network)
            .loss(Loss::MeanSquaredError)
            .optimizer(optimizer)
            .build()
            .unwrap();
        let (x, y) = (DMatrix::from_element(1, 1, T::of(x)), DMatrix::from_element(1, 1, T::of(y)));
        let before = state(&trainer);
        if trainer.step(&x, &y).is_ok() {
            let text = format!("{:?}", state(&trainer));
            assert!(!text.contains("inf,") && !text.contains("NaN,"), "{optimizer:?}: {text}");
            continue;
        }
        assert_eq!(state(&trainer), before, "{optimizer:?}");
        // The run goes on as if nothing had been.
        let small = DMatrix::from_element(1, 1, T::one());
        let weight = trainer.network().layer(0).unwrap().weights()[0];
        for _ in 0..20 {
            trainer.step(&small, &(&small * T::of(5.0))).unwrap();
        }
        assert_ne!(trainer.network().layer(0).unwrap().weights()[0], weight, "{optimizer:?}");
    }
}

/// An outlier whose squared gradient overflows once killed the weight: its moment was ∞ for ever.
#[test]
fn one_outlier_does_not_kill_a_parameter() {
    check_overflow::<f32>(3e9, 3e12);
    check_overflow::<f32>(1e12, 1e15);
    check_overflow::<f64>(1e80, 1e90);
    let network = Network::<f32>::builder(1).dense(1).build().unwrap();
    let mut trainer = Trainer::builder(network)
        .loss(Loss::MeanSquaredError)
        .optimizer(RmsProp { learning_rate: 1e-2, ..RmsProp::default() })
        .build()
        .unwrap();
    let one = |value| DMatrix::from_element(1, 1, value);
    let message = refused(&mut trainer, &one(3e9), &one(3e12));
    assert!(message.contains("a moment of W of weighted layer 0"), "{message}");
    let before = trainer.network().layer(0).unwrap().weights()[0];
    for _ in 0..100 {
        trainer.step(&one(1.0), &one(5.0)).unwrap();
    }
    assert!(trainer.network().layer(0).unwrap().weights()[0] > before + 0.5);
}

/// A matrix of one's own counts in the bound of a step as a drawn one does.
#[test]
fn feedback_of_large_numbers_is_seen_before_the_step() {
    let one = |value| DMatrix::from_element(1, 1, value);
    let network = Network::<f32>::builder(1).dense(1).tanh().dense(1).build().unwrap();
    let mut trainer = Trainer::builder(network)
        .loss(Loss::MeanSquaredError)
        .optimizer(RmsProp::default())
        .build()
        .unwrap();
    trainer.feedback_mut().set_matrix(0, one(1e30)).unwrap();
    let message = refused(&mut trainer, &one(1.0), &one(5.0));
    assert!(message.contains("a moment of W of weighted layer 0"), "{message}");
}

/// The way with a copy gives the bits of the way without.
#[test]
fn a_step_with_large_numbers_is_the_plain_step() {
    let one = |value: f64| DMatrix::from_element(1, 1, value);
    let network = Network::<f64>::builder(1).dense(1).build().unwrap();
    let start = network.layer(0).unwrap();
    let (w, b) = (start.weights()[0], start.bias().unwrap()[0]);
    let sgd = Sgd { learning_rate: 0.25, ..Sgd::default() };
    let builder = Trainer::builder(network).loss(Loss::MeanSquaredError).optimizer(sgd);
    let mut trainer = builder.build().unwrap();
    let (x, y) = (2_f64.powi(300), 2_f64.powi(310)); // Their product is beyond the bound.
    trainer.step(&one(x), &one(y)).unwrap();
    let e = w * x + b - y;
    let layer = trainer.network().layer(0).unwrap();
    assert_eq!(layer.weights()[0], w - 0.25 * (e * x));
    assert_eq!(layer.bias().unwrap()[0], b - 0.25 * e);
    assert_eq!(trainer.optimizer().steps(), 1);
}

#[test]
fn max_norm_keeps_the_direction_of_rows_whose_squares_are_out_of_range() {
    let check = |weights: [f32; 4], bound: f64, expected: [f64; 4]| {
        let mut network = Network::<f32>::builder(2).dense_without_bias(2).build().unwrap();
        network.set_weights(0, DMatrix::from_row_slice(2, 2, &weights)).unwrap();
        let sgd = Sgd { learning_rate: 1e-30, ..Sgd::default() };
        let mut trainer = Trainer::builder(network)
            .loss(Loss::MeanSquaredError)
            .optimizer(sgd)
            .max_norm(bound)
            .build()
            .unwrap();
        let x = DMatrix::zeros(2, 1);
        trainer.step(&x, &DMatrix::zeros(2, 1)).unwrap();
        let found = trainer.network().layer(0).unwrap().weights().transpose();
        for (found, expected) in found.iter().zip(expected) {
            let close = (f64::from(*found) - expected).abs() <= 1e-6 * bound;
            assert!(close, "{weights:?} under {bound}: {found}, not {expected}");
        }
    };
    check([2e19, 0.0, 0.3, 0.4], 1.0, [1.0, 0.0, 0.3, 0.4]);
    check([3e38, -3e38, 3e38, 0.0], 5.0, [5.0 / 2_f64.sqrt(), -5.0 / 2_f64.sqrt(), 5.0, 0.0]);
    check([3e-25, 4e-25, 0.0, 0.0], 1e-25, [6e-26, 8e-26, 0.0, 0.0]);
    check([3e-25, 4e-25, 0.0, 0.0], 1.0, [3e-25, 4e-25, 0.0, 0.0]);
}

#[test]
fn what_is_no_number_is_of_no_class() {
    for loss in Loss::all() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for outputs in [1, 3] {
                let mut logits = DMatrix::zeros(outputs, 2);
                logits[(outputs - 1, 1)] = bad;
                let classes = loss.classes(&logits).unwrap_err();
                assert!(classes.to_string().contains("column 1"), "{classes}");
                assert!(loss.probabilities(&logits).is_err());
            }
        }
        for (rows, columns) in [(0, 0), (0, 3), (3, 0)] {
            let empty = DMatrix::<f64>::zeros(rows, columns);
            assert!(matches!(loss.classes(&empty), Err(Error::Empty { .. })));
            assert!(loss.probabilities(&empty).is_err());
        }
    }
    let mut network = Network::<f32>::builder(1).dense(2).build().unwrap();
    network.set_weights(0, DMatrix::from_element(2, 1, 3e38)).unwrap();
    let x = DMatrix::from_element(1, 3, 10.0);
    assert!(matches!(network.predict(&x), Err(Error::NonFinite { .. })));
    let trainer = Trainer::builder(network).build().unwrap();
    assert!(matches!(trainer.predict_classes(&x), Err(Error::NonFinite { .. })));
    let data = Dataset::new(x, vec![0, 1, 0]).unwrap();
    assert!(matches!(trainer.evaluate(&data), Err(Error::NonFinite { .. })));
}

/// An overflow in the middle of a network that the last layer does not show.
#[test]
fn a_prediction_does_not_hide_an_overflow_below() {
    let mut network = Network::<f32>::builder(1).dense(2).tanh().dense(2).build().unwrap();
    network.set_weights(0, DMatrix::from_element(2, 1, 3e38)).unwrap();
    let x = DMatrix::from_element(1, 1, 10.0);
    let refused = network.predict(&x).unwrap_err();
    assert!(refused.to_string().contains("layer 0"), "{refused}");
}

/// Settings are `f64`; what counts is what the scalar makes of them.
#[test]
fn settings_that_the_scalar_cannot_represent_are_refused() {
    let network = Network::<f32>::builder(2).dense(2).tanh().dense(2).build().unwrap();
    let is_refused = |optimizer: Optimizer| {
        matches!(OptimizerState::new(&network, optimizer), Err(Error::InvalidParameter { .. }))
    };
    let almost = 1.0 - 1e-9; // 1 in f32.
    let (sgd, rms, adam) = (Sgd::default(), RmsProp::default(), Adam::default());
    for optimizer in [
        Sgd { learning_rate: 1e39, ..sgd }.into(),
        Sgd { weight_decay: WeightDecay::L2(1e39), ..sgd }.into(),
        Sgd { weight_decay: WeightDecay::Decoupled(1e39), ..sgd }.into(),
        Sgd { learning_rate: 1e20, weight_decay: WeightDecay::Decoupled(1e20), ..sgd }.into(),
        Sgd { momentum: Momentum::Classical(almost), ..sgd }.into(),
        Sgd { momentum: Momentum::Nesterov(almost), ..sgd }.into(),
        RmsProp { learning_rate: 1e39, ..rms }.into(),
        RmsProp { epsilon: 1e39, ..rms }.into(),
        RmsProp { decay: almost, ..rms }.into(),
        Adam { beta1: almost, ..adam }.into(),
        Adam { beta2: almost, ..adam }.into(),
        Adam { epsilon: 1e39, ..adam }.into(),
        AdamW { weight_decay: 1e39, ..AdamW::default() }.into(),
    ] {
        assert!(is_refused(optimizer), "{optimizer:?}");
    }
    let state = OptimizerState::new(&network, sgd).unwrap();
    assert!(state.with_max_norm(1e39).is_err());
    assert!(FastGradientSign::new(&network, 1e39).is_err());
    assert!(Trainer::builder(network.clone()).adversarial(1e39).build().is_err());
    let builder = || Network::<f32>::builder(2).dense(2);
    assert!(builder().leaky_relu(1e39).dense(1).build().is_err());
    assert!(builder().activation(Activation::Elu { alpha: 1e39 }).dense(1).build().is_err());
    assert!(builder().activation(Activation::Elu { alpha: 1e-60 }).dense(1).build().is_err());
    assert!(builder().batch_norm_with(0.1, 1e39).dense(1).build().is_err());
    assert!(builder().init(Init::Uniform { bound: 1e39 }).build().is_err());
    assert!(builder().init(Init::Normal { std: 1e39 }).build().is_err());
    for init in [FeedbackInit::Uniform { bound: 1e39 }, FeedbackInit::Normal { std: 1e39 }] {
        assert!(Trainer::builder(network.clone()).feedback_init(init).build().is_err());
    }
}

#[test]
fn a_perturbation_that_overflows_is_an_error() {
    let network = Network::<f32>::builder(2).dense(2).build().unwrap();
    let mut attack = FastGradientSign::new(&network, 1e38).unwrap();
    let x = DMatrix::from_element(2, 1, 0.5);
    assert!(attack.perturb(&network, Loss::MeanSquaredError, &x, &[0]).is_ok());
    let mut largest = |sign: f32| {
        let x = DMatrix::from_column_slice(2, 1, &[sign * f32::MAX, 0.0]);
        // For one of the two classes the step leads beyond the largest number.
        [0, 1].map(|class| attack.perturb(&network, Loss::SoftmaxCrossEntropy, &x, &[class]))
    };
    for sign in [1.0, -1.0] {
        let refused = largest(sign).into_iter().filter_map(Result::err);
        assert!(refused.into_iter().any(|error| matches!(error, Error::NonFinite { .. })));
    }
}

/// The loss of each batch is finite, but their sum is not.
#[test]
fn the_mean_of_large_losses_is_finite() {
    let network = Network::<f64>::builder(1).dense(1).build().unwrap();
    let trainer = Trainer::builder(network).loss(Loss::MeanSquaredError).build().unwrap();
    let y = DMatrix::from_element(1, 600, 1e153);
    let data = Dataset::with_values(DMatrix::zeros(1, 600), &y).unwrap();
    let loss = trainer.evaluate(&data).unwrap().loss;
    assert!(loss > 1e305 && loss.is_finite(), "{loss}");
}

/// A parameter whose gradient has become 0 loses its moments entirely, on every machine: numbers
/// below the smallest normal one take many times as long.
#[test]
fn moments_of_silent_parameters_become_zero() {
    fn check<T: Scalar>(steps: usize) {
        for optimizer in optimizers() {
            let mut network = Network::<T>::builder(2).dense(1).build().unwrap();
            network.set_bias(0, DVector::zeros(1)).unwrap();
            let mut trainer = Trainer::builder(network)
                .loss(Loss::MeanSquaredError)
                .optimizer(optimizer)
                .build()
                .unwrap();
            let x = |silent: f64| DMatrix::from_column_slice(2, 1, &[T::one(), T::of(silent)]);
            let y = DMatrix::from_element(1, 1, T::one());
            trainer.step(&x(1e-3), &y).unwrap();
            let started = format!("{:?}", trainer.optimizer());
            for _ in 0..steps {
                trainer.step(&x(0.0), &y).unwrap();
            }
            let text = format!("{:?}", trainer.optimizer());
            assert_ne!(started, text);
            let weights = trainer.network().layer(0).unwrap().weights();
            assert!(weights.iter().all(T::is_finite));
            for number in text.split(|c: char| !(c.is_ascii_digit() || ".e-".contains(c))) {
                let Ok(number) = number.parse::<f64>() else { continue };
                let subnormal = T::of(number) != T::zero()
                    && T::of(number).abs()
                        < T::of(if T::NAME == "f32" { 1.2e-38 } else { 2.3e-308 });
                assert!(!subnormal, "{optimizer:?}: {number}");
            }
        }
    }
    check::<f32>(10_000);
}
