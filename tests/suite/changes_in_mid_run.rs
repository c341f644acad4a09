//! Settings that change while a run goes on, settings that contradict each other, batches that are
//! left out, and targets that are classes without being labels.

use feedback_alignment::{
    Adam, Dataset, Decay, Error, Feedback, FeedbackInit, FeedbackRule, Init, Loss, Momentum,
    Network, RmsProp, Sgd, StoppingRule, Trainer, data::Augmentation, nalgebra::DMatrix,
};

fn data() -> Dataset<f64> {
    let x = DMatrix::from_fn(4, 22, |i, j| ((i * 5 + j * j * 3) % 13) as f64 / 8.0 - 0.7);
    Dataset::new(x, (0..22).map(|j| j * j % 3).collect()).unwrap()
}

fn network() -> Network<f64> {
    Network::builder(4).dense(6).batch_norm().tanh().dense(3).seed(2).build().unwrap()
}

/// One run whose settings change after an epoch is the run that was set up so and took the state
/// of the first at that point: moments, counters and order are kept.
#[test]
fn setters_keep_moments_counters_and_order() {
    let builder = || Trainer::builder(network()).optimizer(Adam::default()).batch_size(5);
    let mut trainer = builder().build().unwrap();
    trainer.epoch(&data()).unwrap();
    let moments = format!("{:?}", trainer.optimizer());
    let steps = trainer.optimizer().steps();
    trainer.set_learning_rate(0.5).unwrap();
    assert_eq!(trainer.optimizer().learning_rate(), 0.5);
    trainer.set_schedule(Decay::Exponential { every: 1, factor: 0.5 }).unwrap();
    assert_eq!(trainer.optimizer().learning_rate(), 0.5 * 0.5_f64.powi(5));
    trainer.set_schedule(Decay::Constant).unwrap();
    trainer.set_learning_rate(1e-3).unwrap();
    trainer.set_max_norm(Some(2.0)).unwrap();
    assert_eq!(trainer.optimizer().max_norm(), Some(2.0));
    trainer.set_max_norm(None).unwrap();
    trainer.set_optimizer(Adam { beta1: 0.5, ..Adam::default() }).unwrap();
    trainer.set_optimizer(Adam::default()).unwrap();
    assert_eq!(format!("{:?}", trainer.optimizer()), moments);
    assert_eq!((trainer.optimizer().steps(), trainer.epochs()), (steps, 1));
    // It goes on as if nothing had been.
    let mut twin = builder().build().unwrap();
    twin.epoch(&data()).unwrap();
    assert_eq!(trainer.epoch(&data()).unwrap(), twin.epoch(&data()).unwrap());
    assert_eq!(trainer.network(), twin.network());

    trainer.set_batch_size(7).unwrap();
    trainer.set_loss(Loss::LogisticCrossEntropy).unwrap();
    trainer.set_drop_last(true);
    trainer.set_stopping(Some(StoppingRule::default())).unwrap();
    trainer.set_adversarial(Some(0.1)).unwrap();
    let images = Augmentation { shape: (1, 2, 2), crop_padding: 1, ..Augmentation::default() };
    trainer.set_augmentation(Some(images)).unwrap();
    assert_eq!((trainer.batch_size(), trainer.drop_last()), (7, true));
    assert_eq!(trainer.stopping(), Some(StoppingRule::default()));
    assert_eq!((trainer.adversarial(), trainer.augmentation()), (Some(0.1), Some(images)));
    trainer.epoch(&data()).unwrap();
    assert_eq!(trainer.optimizer().steps(), 2 * steps + 3);
}

/// What a setter refuses leaves the old setting.
#[test]
fn setters_refuse_what_the_builder_refuses() {
    let mut trainer = Trainer::builder(network()).optimizer(RmsProp::default()).build().unwrap();
    let before = format!("{trainer:?}");
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(trainer.set_learning_rate(rate).is_err());
        assert!(trainer.set_max_norm(Some(rate)).is_err());
    }
    assert!(trainer.set_schedule(Decay::Cosine { steps: 0 }).is_err());
    assert!(trainer.set_batch_size(0).is_err());
    for (momentum, threshold) in [(1.0, 0.0), (0.5, -1.0), (0.5, f64::INFINITY)] {
        assert!(trainer.set_stopping(Some(StoppingRule { momentum, threshold })).is_err());
    }
    assert!(trainer.set_adversarial(Some(-0.1)).is_err());
    assert!(trainer.set_augmentation(Some(Augmentation::default())).is_err());
    assert!(trainer.set_threads(0).is_err());
    let refused = trainer.set_optimizer(Adam::default()).unwrap_err();
    assert!(matches!(refused, Error::OptimizerKind { expected: "RMSprop", found: "Adam" }));
    assert!(trainer.set_optimizer(RmsProp { decay: 1.0, ..RmsProp::default() }).is_err());
    assert_eq!(format!("{trainer:?}"), before);
    let single = Network::<f64>::builder(1).dense(1).build().unwrap();
    let builder = Trainer::builder(single).loss(Loss::MeanSquaredError);
    assert!(builder.build().unwrap().set_loss(Loss::SoftmaxCrossEntropy).is_err());
}

#[test]
fn momentum_comes_and_goes() {
    let sgd = Sgd { learning_rate: 0.05, ..Sgd::default() };
    let heavy = Sgd { momentum: Momentum::Classical(0.9), ..sgd };
    let mut trainer = Trainer::builder(network()).optimizer(sgd).build().unwrap();
    trainer.epoch(&data()).unwrap();
    trainer.set_optimizer(heavy).unwrap();
    // As a trainer of that network whose momentum starts at 0.
    let mut fresh = Trainer::builder(trainer.network().clone()).optimizer(heavy).build().unwrap();
    let (x, labels) = (data().inputs(), data());
    trainer.step(&x, labels.targets()).unwrap();
    fresh.step(&x, labels.targets()).unwrap();
    assert_eq!(trainer.network(), fresh.network());
    trainer.set_optimizer(sgd).unwrap();
    trainer.step(&x, labels.targets()).unwrap();
}

#[cfg(feature = "safetensors")]
#[test]
fn a_run_whose_schedule_has_ended_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let builder = Trainer::builder(network()).schedule(Decay::Cosine { steps: 1 }).drop_last(true);
    let mut trainer = builder.batch_size(5).build().unwrap();
    trainer.epoch(&data()).unwrap();
    trainer.save(&path).unwrap();
    let mut resumed = Trainer::<f64>::load(&path).unwrap();
    assert!(resumed.drop_last());
    assert_eq!(resumed.optimizer().learning_rate(), 0.0);
    let before = resumed.network().clone();
    resumed.epoch(&data()).unwrap();
    assert_eq!(resumed.network().layer(0).unwrap(), before.layer(0).unwrap());
    resumed.set_schedule(Decay::Constant).unwrap();
    resumed.epoch(&data()).unwrap();
    assert_ne!(resumed.network().layer(0).unwrap(), before.layer(0).unwrap());
}

#[test]
fn settings_that_make_each_other_useless_are_refused() {
    let network = network();
    let dfa = || Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 3).unwrap();
    let builder = || Trainer::builder(network.clone());
    let conflict = |result: Result<Trainer<f64>, Error>, parts: [&str; 2]| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
    };
    let parts = [".rule(FA)", ".feedback(..) of DFA"];
    conflict(builder().rule(FeedbackRule::Fa).feedback(dfa()).build(), parts);
    conflict(builder().feedback(dfa()).rule(FeedbackRule::Fa).build(), parts);
    let drawn = builder().feedback_init(FeedbackInit::Lillicrap).feedback(dfa()).build();
    conflict(drawn, [".feedback_init(Lillicrap)", ".feedback(..)"]);
    let own = builder().rule(FeedbackRule::Dfa).feedback(dfa()).build().unwrap();
    assert_eq!(own.feedback(), &dfa());

    let init = |rule| Network::<f64>::builder(4).dense(5).tanh().dense(3).init(Init::nokland(rule));
    let dfa = init(FeedbackRule::Dfa).build().unwrap();
    for rule in [FeedbackRule::Fa, FeedbackRule::Bp] {
        conflict(Trainer::builder(dfa.clone()).rule(rule).build(), ["Init::nokland(DFA)", "rule"]);
    }
    let mut trainer = Trainer::builder(dfa).rule(FeedbackRule::Dfa).build().unwrap();
    trainer.set_rule(FeedbackRule::Fa).unwrap(); // In mid-run it is meant.
}

#[test]
fn a_smaller_last_batch_is_left_out_on_demand() {
    let mut trainer = Trainer::builder(network()).batch_size(7).drop_last(true).build().unwrap();
    trainer.epoch(&data()).unwrap();
    assert_eq!(trainer.optimizer().steps(), 3);
    // The same order: the epoch is that of the first three batches.
    let mut by_hand = Trainer::builder(network()).batch_size(7).build().unwrap();
    for batch in data().batches(7, 0, 0).unwrap().take(data().len() / 7) {
        by_hand.step(batch.inputs(), batch.targets()).unwrap();
    }
    assert_eq!(trainer.network(), by_hand.network());
    // A last batch of one would have no variance.
    let refused = by_hand.epoch(&data()).unwrap_err();
    assert!(refused.to_string().contains("drop_last"), "{refused}");
    trainer.set_batch_size(23).unwrap();
    let refused = trainer.epoch(&data()).unwrap_err();
    assert!(refused.to_string().contains("22 samples make no batch of 23"), "{refused}");
    trainer.set_batch_size(usize::MAX).unwrap();
    assert!(matches!(trainer.epoch(&data()), Err(Error::BatchTooSmall { .. })));
    trainer.set_drop_last(false);
    trainer.epoch(&data()).unwrap();
    assert_eq!(data().batches(usize::MAX, 0, 0).unwrap().count(), 1);
}

fn one_hot(labels: &[usize]) -> DMatrix<f64> {
    DMatrix::from_fn(3, labels.len(), |i, j| f64::from(u8::from(labels[j] == i)))
}

#[test]
fn one_hot_and_soft_targets_are_scored_as_classes() {
    let labels: Vec<usize> = (0..22).map(|j| j * j % 3).collect();
    let hot = Dataset::with_values(data().inputs(), &one_hot(&labels)).unwrap();
    for loss in Loss::all() {
        let run = |data: &Dataset<f64>| {
            let mut trainer =
                Trainer::builder(network()).loss(loss).batch_size(11).build().unwrap();
            (trainer.epoch(data).unwrap(), trainer.evaluate(data).unwrap())
        };
        let ((epoch, evaluation), (expected, of_labels)) = (run(&hot), run(&data()));
        assert_eq!((epoch, &evaluation), (expected, &of_labels), "{loss}");
        assert!(epoch.error_rate.is_some() && evaluation.confusion.is_some());
    }
    // Probabilities count by the largest under softmax, and not at all under the others.
    let soft = one_hot(&labels).map(|y| 0.1 + 0.7 * y);
    let soft = Dataset::with_values(data().inputs(), &soft).unwrap();
    for loss in Loss::all() {
        let trainer = Trainer::builder(network()).loss(loss).build().unwrap();
        let (found, of_labels) =
            (trainer.evaluate(&soft).unwrap(), trainer.evaluate(&data()).unwrap());
        let is_softmax = loss == Loss::SoftmaxCrossEntropy;
        assert_eq!(found.error_rate, of_labels.error_rate.filter(|_| is_softmax), "{loss}");
        assert_eq!(found.confusion, of_labels.confusion.filter(|_| is_softmax), "{loss}");
        assert_eq!(trainer.top_k_error(&soft, 1).is_ok(), is_softmax);
    }
    // One column that is no class leaves the whole set without an error rate.
    let mut mixed = one_hot(&labels);
    mixed[(0, 21)] = 0.5;
    let mixed = Dataset::with_values(data().inputs(), &mixed).unwrap();
    let builder = Trainer::builder(network()).loss(Loss::MeanSquaredError).batch_size(2);
    let mut trainer = builder.build().unwrap();
    assert_eq!(trainer.epoch(&mixed).unwrap().error_rate, None);
    assert_eq!(trainer.evaluate(&mixed).unwrap().error_rate, None);
}

#[test]
fn numbers_0_and_1_of_a_single_output_are_classes() {
    let network = Network::<f64>::builder(4).dense(1).build().unwrap();
    let labels: Vec<usize> = (0..22).map(|j| j % 2).collect();
    let of_labels = Dataset::new(data().inputs(), labels.clone()).unwrap();
    let values = DMatrix::from_fn(1, 22, |_, j| labels[j] as f64);
    let of_values = Dataset::with_values(data().inputs(), &values).unwrap();
    for loss in [Loss::LogisticCrossEntropy, Loss::MeanSquaredError] {
        let trainer = Trainer::builder(network.clone()).loss(loss).build().unwrap();
        assert_eq!(trainer.evaluate(&of_values).unwrap(), trainer.evaluate(&of_labels).unwrap());
    }
}

#[test]
fn the_top_k_error_counts_what_is_further_down() {
    let trainer = Trainer::builder(network()).build().unwrap();
    let data = Dataset::new(data().inputs(), (0..22).map(|j| j % 3).collect()).unwrap();
    let errors = [1, 2, 3].map(|k| trainer.top_k_error(&data, k).unwrap());
    assert_eq!(Some(errors[0]), trainer.evaluate(&data).unwrap().error_rate);
    assert!(errors[0] > errors[1] && errors[1] > 0.0 && errors[2] == 0.0, "{errors:?}");
    // By hand.
    let logits = trainer.network().predict(&data.inputs()).unwrap();
    let beyond = |j: usize| {
        let z = logits.column(j);
        (0..3).filter(|&k| z[k] > z[j % 3]).count() >= 2
    };
    assert_eq!(errors[1], (0..22).filter(|&j| beyond(j)).count() as f64 / 22.0);
    for k in [0, 4, usize::MAX] {
        assert!(matches!(trainer.top_k_error(&data, k), Err(Error::InvalidParameter { .. })));
    }
}

#[test]
fn a_network_with_very_many_outputs_can_be_evaluated() {
    let network = Network::<f32>::builder(1).dense(200_000).build().unwrap();
    let trainer = Trainer::builder(network).build().unwrap();
    let data = Dataset::new(DMatrix::from_element(1, 3, 0.5), vec![0, 7, 199_999]).unwrap();
    let confusion = trainer.evaluate(&data).unwrap().confusion.unwrap();
    assert_eq!((confusion.classes(), confusion.samples()), (200_000, 3));
    assert!(confusion.to_string().lines().count() <= 4);
}

#[test]
fn an_augmentation_of_another_networks_images_is_refused() {
    let builder = Network::<f64>::builder((1, 2, 2)).dense(3).build().unwrap();
    let images = Augmentation { shape: (1, 2, 2), crop_padding: 1, ..Augmentation::default() };
    let mut trainer = Trainer::builder(builder).augmentation(images).build().unwrap();
    *trainer.network_mut() = Network::builder(6).dense(3).build().unwrap();
    let data = Dataset::new(DMatrix::zeros(6, 4), vec![0; 4]).unwrap();
    assert!(matches!(trainer.epoch(&data), Err(Error::ShapeMismatch { .. })));
}

#[test]
fn samples_in_rows_are_told_to_be_transposed() {
    let rows = DMatrix::<f64>::zeros(150, 4);
    let told = |error: Error| {
        assert!(matches!(error, Error::SamplesInRows { found: (150, 4), .. }), "{error}");
        assert!(error.to_string().contains("samples are columns"), "{error}");
    };
    told(Dataset::new(rows.clone(), vec![0; 150]).unwrap_err());
    told(Dataset::with_values(rows.clone(), &DMatrix::zeros(3, 150)).unwrap_err());
    told(network().predict(&rows).unwrap_err());
    let mut trainer = Trainer::builder(network()).build().unwrap();
    told(trainer.step(&rows, &[0; 150]).unwrap_err());
    let error = trainer.step(&DMatrix::zeros(4, 7), &DMatrix::zeros(7, 3)).unwrap_err();
    assert!(matches!(error, Error::SamplesInRows { found: (7, 3), .. }), "{error}");
    // Neither way round.
    let error = network().predict(&DMatrix::zeros(5, 6)).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    let error = Dataset::<f64>::new(DMatrix::zeros(0, 3), vec![0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "the dataset (0 features, 3 targets) is empty");
}
