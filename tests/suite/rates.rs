//! Learning rates of single layers.

use feedback_alignment::{
    Activations, Adam, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Gradients, Loss,
    Momentum, Network, Optimizer, OptimizerState, RmsProp, Sgd, Trainer, TrainerBuilder,
    WeightDecay, nalgebra::DMatrix,
};

fn network() -> Network<f64> {
    let builder = Network::builder(5).dense(6).batch_norm().tanh().dense(4).tanh().dense(3);
    builder.seed(3).build().unwrap()
}

fn batch(seed: usize) -> (DMatrix<f64>, [usize; 8]) {
    let x = DMatrix::from_fn(5, 8, |i, j| ((i * 7 + j * 5 + seed * 3) % 13) as f64 / 6.0 - 1.0);
    (x, [0, 1, 2, 0, 2, 1, 1, 0])
}

fn optimizers(rate: f64) -> [Optimizer; 5] {
    let sgd = Sgd { learning_rate: rate, ..Sgd::default() };
    let momentum = Momentum::Classical(0.9);
    [
        Sgd { weight_decay: WeightDecay::Decoupled(0.1), ..sgd }.into(),
        Sgd { momentum, weight_decay: WeightDecay::L2(0.1), ..sgd }.into(),
        Sgd { momentum: Momentum::Nesterov(0.5), ..sgd }.into(),
        RmsProp { learning_rate: rate, ..RmsProp::default() }.into(),
        Adam { learning_rate: rate, ..Adam::default() }.into(),
    ]
}

fn trained(builder: TrainerBuilder<f64>) -> Trainer<f64> {
    let mut trainer = builder.build().unwrap();
    for seed in 0..4 {
        let (x, labels) = batch(seed);
        trainer.step(&x, &labels).unwrap();
    }
    trainer
}

/// The first step is that of the layer's own rate, in every layer by itself; if all layers have the
/// same factor, so are all steps.
#[test]
fn a_factor_is_a_learning_rate_of_the_layers_own() {
    for (slow, fast) in optimizers(0.01).into_iter().zip(optimizers(0.08)) {
        let start = |optimizer| Trainer::builder(network()).optimizer(optimizer);
        let all = (0..3).fold(start(slow), |builder, layer| builder.rate_factor(layer, 8.0));
        assert_eq!(trained(all).network(), trained(start(fast)).network(), "{slow:?}");

        let first = |builder: TrainerBuilder<f64>| {
            let mut trainer = builder.build().unwrap();
            let (x, labels) = batch(0);
            trainer.step(&x, &labels).unwrap();
            trainer.into_network()
        };
        let (at_slow, at_fast) = (first(start(slow)), first(start(fast)));
        for layer in 0..3 {
            let mixed = first(start(slow).rate_factor(layer, 8.0));
            for other in 0..3 {
                let expected = if other == layer { &at_fast } else { &at_slow };
                assert_eq!(mixed.layer(other).unwrap(), expected.layer(other).unwrap());
            }
        }
    }
}

#[test]
fn stages_and_trainer_make_the_same_steps_at_rates_of_their_own() {
    for optimizer in optimizers(0.02) {
        let builder = Trainer::builder(network()).rule(FeedbackRule::Fa).optimizer(optimizer);
        let trainer = trained(builder.rate_factor(2, 10.0).rate_factor(0, 0.25));
        let mut plain = network();
        let feedback = Feedback::new(&plain, FeedbackRule::Fa, FeedbackInit::default(), 0).unwrap();
        let mut state = OptimizerState::new(&plain, optimizer).unwrap();
        state.set_rate_factor(0, 0.25).unwrap();
        state.set_rate_factor(2, 10.0).unwrap();
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        let mut gradients = Gradients::new();
        for seed in 0..4 {
            let (x, labels) = batch(seed);
            plain.forward(&x, &mut activations).unwrap();
            Loss::SoftmaxCrossEntropy.error(&labels, &activations, &mut deltas).unwrap();
            feedback.deliver(&plain, &activations, &mut deltas).unwrap();
            plain.gradients(&activations, &deltas, &mut gradients).unwrap();
            state.step(&mut plain, &gradients).unwrap();
        }
        assert_eq!((trainer.network(), trainer.optimizer()), (&plain, &state));
    }
}

/// Set in mid-run, kept by a checkpoint, and lifted again.
#[cfg(feature = "safetensors")]
#[test]
fn a_checkpoint_keeps_the_factors() {
    let folder = crate::common::Folder::new();
    let path = folder.path("run.safetensors");
    let mut trainer = trained(Trainer::builder(network()).optimizer(Adam::default()));
    let without = trainer.clone();
    trainer.set_rate_factor(1, 3.0).unwrap();
    assert_ne!(trainer.optimizer(), without.optimizer());
    trainer.save(&path).unwrap();
    let mut resumed = Trainer::<f64>::load(&path).unwrap();
    assert_eq!(resumed.optimizer().rate_factor(1).unwrap(), 3.0);
    let (x, labels) = batch(9);
    assert_eq!(resumed.step(&x, &labels).unwrap(), trainer.step(&x, &labels).unwrap());
    assert_eq!(resumed.network(), trainer.network());
    resumed.set_rate_factor(1, 1.0).unwrap();
    assert_eq!(resumed.optimizer().rate_factor(1).unwrap(), 1.0);
}

#[test]
fn impossible_factors_are_refused() {
    let mut trainer = trained(Trainer::builder(network()));
    let before = trainer.optimizer().clone();
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-320] {
        let error = trainer.set_rate_factor(1, factor).unwrap_err();
        assert!(matches!(error, Error::InvalidParameter { .. }), "{factor}: {error}");
    }
    for layer in [3, usize::MAX] {
        let error = trainer.set_rate_factor(layer, 2.0).unwrap_err();
        assert!(matches!(error, Error::NoSuchLayer { count: 3, .. }), "{error}");
        assert!(trainer.optimizer().rate_factor(layer).is_err());
        assert!(Trainer::builder(network()).rate_factor(layer, 2.0).build().is_err());
    }
    assert_eq!(*trainer.optimizer(), before);
    // The rate of a layer is looked at when either of its parts changes.
    let mut slow = trained(Trainer::builder(network()).rate_factor(1, 1e-200));
    let before = slow.optimizer().clone();
    let too_small = RmsProp { learning_rate: 1e-200, ..RmsProp::default() };
    for error in [slow.set_learning_rate(1e-200), slow.set_optimizer(too_small)] {
        assert!(matches!(error, Err(Error::InvalidParameter { .. })));
    }
    assert_eq!(*slow.optimizer(), before);
    // A rate at which the step overflows is found before anything has changed.
    let sgd = Sgd { learning_rate: 1e10, ..Sgd::default() };
    let builder = Trainer::builder(network()).optimizer(sgd).loss(Loss::MeanSquaredError);
    let mut trainer = builder.build().unwrap();
    trainer.set_rate_factor(2, 1e298).unwrap();
    let far = DMatrix::from_element(3, 8, 1e6);
    let error = trainer.step(&batch(0).0, &far).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert_eq!(*trainer.network(), network());
}
