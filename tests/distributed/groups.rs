//! Training on several processes: the same bits on any number of them, and errors that are those of all.

use std::{sync::Mutex, time::Duration};

use feedback_alignment::{
    Conv2d, Dataset, Error, FeedbackRule, Init, MaxPool2d, Network, Optimizer, Result, RmsProp,
    Sgd, Signal, StoppingRule, Trainer, TrainerBuilder,
    data::{Augmentation, Flip},
    distributed::{
        Counted, DataParallel, Group, LayerParallel, LocalGroup, Pipeline, Traffic, agree,
        fingerprint,
    },
    nalgebra::DMatrix,
};
use proptest::prelude::*;

const BATCH: usize = 12;

fn data(features: usize) -> Dataset<f32> {
    let x =
        DMatrix::from_fn(features, 45, |i, j| ((i * 7 + j * 13 + i * j) % 23) as f32 / 11.0 - 1.0);
    Dataset::new(x, (0..45).map(|j| j % 3).collect()).unwrap()
}

fn dense() -> Network<f32> {
    let builder = Network::builder((1, 6, 6)).dense(9).tanh().dropout(0.2).dense(8).logistic();
    builder.dense(7).batch_norm().tanh().dense(5).relu().dense(3).seed(4).build().unwrap()
}

fn convolutional() -> Network<f32> {
    Network::builder((1, 6, 6))
        .dropout(0.1)
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(3, 3) })
        .batch_norm()
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d::new(4, 2))
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 1))
        .dense(6)
        .layer_norm()
        .logistic()
        .dense(3)
        .seed(5)
        .build()
        .unwrap()
}

fn optimizers() -> [Optimizer; 2] {
    [Sgd { learning_rate: 0.05, ..Sgd::default() }.into(), RmsProp::default().into()]
}

/// Batches of twelve, of which the last has nine samples.
fn builder(network: Network<f32>, rule: FeedbackRule) -> TrainerBuilder<f32> {
    Trainer::builder(network).rule(rule).batch_size(BATCH).seed(3)
}

/// Rules whose matrices learn from the whole batch or from what stands on other processes.
const WHOLE_BATCH: [FeedbackRule; 4] =
    [FeedbackRule::Dkp, FeedbackRule::Fdfa, FeedbackRule::Wm, FeedbackRule::Pfa];

/// All rules that can be run: batch normalisation wants every hidden layer to learn.
fn rules() -> impl Iterator<Item = FeedbackRule> {
    let not = [&[FeedbackRule::Shallow][..], &WHOLE_BATCH].concat();
    FeedbackRule::all().filter(move |rule| !not.contains(rule))
}

/// Every network under every rule and optimiser.
fn each_case(mut check: impl FnMut(&str, &(dyn Fn() -> Trainer<f32> + Sync))) {
    for (name, network) in [("dense", dense()), ("convolutional", convolutional())] {
        for rule in rules() {
            for optimizer in optimizers() {
                let trainer =
                    || builder(network.clone(), rule).optimizer(optimizer).build().unwrap();
                check(&format!("{name} {rule} {optimizer:?}"), &trainer);
            }
        }
    }
}

/// What two epochs make of a trainer: the bits of its parameters, and what it saw.
type Outcome = (u64, String);

fn outcome(trainer: &Trainer<f32>, seen: &[impl ToString]) -> Outcome {
    let seen = seen.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    (fingerprint(trainer.network()), format!("{seen} {}", trainer.optimizer().steps()))
}

fn alone(mut trainer: Trainer<f32>, data: &Dataset<f32>) -> Outcome {
    let seen = [(); 2].map(|()| format!("{:?}", trainer.epoch(data).unwrap()));
    outcome(&trainer, &seen)
}

fn data_parallel(
    group: &impl Group,
    trainer: Trainer<f32>,
    data: &Dataset<f32>,
) -> Result<Outcome> {
    let mut parallel = DataParallel::new(group, trainer, 4)?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(format!("{:?}", parallel.epoch(data)?));
    }
    Ok(outcome(parallel.trainer(), &seen))
}

fn layer_parallel(
    group: &impl Group,
    trainer: Trainer<f32>,
    delay: usize,
    data: &Dataset<f32>,
) -> Result<Outcome> {
    let mut parallel = LayerParallel::new(group, trainer, delay)?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(format!("{:?}", parallel.epoch(data)?));
    }
    Ok(outcome(parallel.trainer()?, &seen))
}

fn pipeline(
    group: &impl Group,
    trainer: Trainer<f32>,
    delay: usize,
    data: &Dataset<f32>,
) -> Result<Outcome> {
    let mut parallel = Pipeline::new(group, trainer, delay)?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(format!("{:?}", parallel.epoch(data)?));
    }
    Ok(outcome(parallel.trainer()?, &seen))
}

/// What all of so many processes agree on.
fn on<R: PartialEq + std::fmt::Debug + Send>(
    processes: usize,
    work: impl Fn(&LocalGroup) -> Result<R> + Sync,
) -> R {
    let mut results: Vec<_> = LocalGroup::run(processes, |group| work(group).unwrap());
    let first = results.swap_remove(0);
    results.iter().for_each(|other| assert_eq!(*other, first));
    first
}

#[test]
fn samples_on_several_processes_have_the_bits_of_one() {
    let data = data(36);
    each_case(|case, trainer| {
        let expected = on(1, |group| data_parallel(group, trainer(), &data));
        for processes in [2, 3, 4] {
            let found = on(processes, |group| data_parallel(group, trainer(), &data));
            assert_eq!(found, expected, "{case} on {processes}");
        }
        assert_ne!(expected.0, fingerprint(trainer().network()), "{case} has learned");
    });
}

#[test]
fn one_shard_has_the_bits_of_a_trainer() {
    let data = data(36);
    each_case(|case, trainer| {
        let found = on(1, |group| {
            let mut parallel = DataParallel::new(group, trainer(), 1)?;
            let seen = [(); 2].map(|()| format!("{:?}", parallel.epoch(&data).unwrap()));
            Ok(outcome(parallel.trainer(), &seen))
        });
        assert_eq!(found, alone(trainer(), &data), "{case}");
    });
}

#[test]
fn layers_on_several_processes_have_the_bits_of_a_trainer() {
    let data = data(36);
    each_case(|case, trainer| {
        let expected = alone(trainer(), &data);
        for processes in [1, 2, 3, 4] {
            let found = on(processes, |group| layer_parallel(group, trainer(), 0, &data));
            assert_eq!(found, expected, "{case} on {processes}");
        }
    });
}

/// What is made of the error is made of that of the whole batch, wherever the layer is.
#[test]
fn signals_on_several_processes_have_the_bits_of_a_trainer() {
    let data = data(36);
    for signal in ["centred>0.0", "centred>0.3", "ternary>0.1", "sign"] {
        let signal: Signal = signal.parse().unwrap();
        for rule in [FeedbackRule::Dfa, FeedbackRule::Ifa, FeedbackRule::Fa] {
            let trainer = || builder(dense(), rule).signal(signal).build().unwrap();
            let expected = alone(trainer(), &data);
            for processes in [1, 2, 3, 4] {
                let found = on(processes, |group| layer_parallel(group, trainer(), 0, &data));
                assert_eq!(found, expected, "{rule}, {signal} on {processes}");
            }
        }
    }
}

#[test]
fn a_late_error_is_as_late_on_any_number_of_processes() {
    let data = data(36);
    each_case(|case, trainer| {
        for delay in [1, 3, 9] {
            let expected = on(1, |group| layer_parallel(group, trainer(), delay, &data));
            for processes in [2, 4] {
                let found = on(processes, |group| layer_parallel(group, trainer(), delay, &data));
                assert_eq!(found, expected, "{case} on {processes}, {delay} late");
            }
        }
    });
}

#[test]
fn a_pipeline_without_errors_has_the_bits_of_a_trainer() {
    let data = data(36);
    for network in [dense(), convolutional()] {
        for optimizer in optimizers() {
            let trainer = || {
                builder(network.clone(), FeedbackRule::Drtp).optimizer(optimizer).build().unwrap()
            };
            let expected = alone(trainer(), &data);
            for processes in [1, 2, 3, 4] {
                for delay in [0, 2] {
                    let found = on(processes, |group| pipeline(group, trainer(), delay, &data));
                    assert_eq!(found, expected, "{processes}");
                }
            }
        }
    }
    let plain = || Network::builder(36).dense(8).tanh().dense(7).tanh().dense(3).build().unwrap();
    let shallow = || builder(plain(), FeedbackRule::Shallow).build().unwrap();
    let expected = alone(shallow(), &data);
    assert_eq!(on(3, |group| pipeline(group, shallow(), 0, &data)), expected);
    assert_eq!(on(3, |group| layer_parallel(group, shallow(), 0, &data)), expected);
}

#[test]
fn a_pipeline_with_late_errors_has_the_bits_of_layers_with_late_errors() {
    let data = data(36);
    for rule in [FeedbackRule::Dfa, FeedbackRule::SDfa] {
        for network in [dense(), convolutional()] {
            let trainer = || builder(network.clone(), rule).build().unwrap();
            for (delay, processes) in [(0, 1), (1, 1), (1, 2), (3, 2), (3, 4), (5, 3), (9, 4)] {
                let expected = on(1, |group| layer_parallel(group, trainer(), delay, &data));
                let found = on(processes, |group| pipeline(group, trainer(), delay, &data));
                assert_eq!(found, expected, "{rule} on {processes}, {delay} late");
            }
        }
    }
}

/// By the definition, with the stages: hidden layers learn from the batch of `DELAY` steps ago.
#[test]
fn a_late_error_is_what_the_definition_says() {
    use feedback_alignment::{
        Activations, Deltas, Feedback, FeedbackInit, Gradients, Loss, OptimizerState,
    };
    const DELAY: usize = 2;
    let data = data(36);
    for rule in [FeedbackRule::Bp, FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Ifa] {
        let network = || {
            let builder = Network::builder(36).dense(8).tanh().dense(7).tanh().dense(3);
            builder.init(Init::FanIn).seed(1).build().unwrap()
        };
        let optimizer = Sgd { learning_rate: 0.1, ..Sgd::default() };
        let trainer = builder(network(), rule).optimizer(optimizer).build().unwrap();
        let found = on(2, |group| {
            let mut parallel = LayerParallel::new(group, trainer.clone(), DELAY)?;
            parallel.epoch(&data)?;
            Ok(fingerprint(parallel.trainer()?.network()))
        });

        let mut network = network();
        let feedback = Feedback::new(&network, rule, FeedbackInit::default(), 3).unwrap();
        let mut optimizer = OptimizerState::new(&network, optimizer).unwrap();
        let batches: Vec<_> = data.batches(BATCH, 3, 0).unwrap().collect();
        let mut under_way: Vec<(Activations<f32>, Deltas<f32>)> = Vec::new();
        for step in 0..batches.len() + DELAY {
            let (mut now, mut late) = (Gradients::new(), Gradients::new());
            if let Some(batch) = batches.get(step) {
                let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
                network.forward(batch.inputs(), &mut activations).unwrap();
                let loss = Loss::SoftmaxCrossEntropy;
                loss.error(batch.targets(), &activations, &mut deltas).unwrap();
                let mut delivered = deltas.clone();
                feedback.deliver(&network, &activations, &mut delivered).unwrap();
                network.gradients(&activations, &delivered, &mut now).unwrap();
                under_way.push((activations, deltas));
            }
            if let Some(batch) = step.checked_sub(DELAY) {
                let (activations, deltas) = &mut under_way[batch];
                feedback.deliver(&network, activations, deltas).unwrap();
                network.gradients(activations, deltas, &mut late).unwrap();
            }
            // Plain SGD has nothing to remember, so a gradient of 0 is as good as none.
            let (from_late, from_now) = (step >= DELAY, step < batches.len());
            let mut both = if from_late { late.clone() } else { now.clone() };
            for layer in 0..3 {
                let from =
                    if layer < 2 { from_late.then_some(&late) } else { from_now.then_some(&now) };
                if let Some(from) = from {
                    both.weights_mut(layer).unwrap().copy_from(&from.weights(layer).unwrap());
                    let bias = from.bias(layer).unwrap().unwrap().into_owned();
                    both.bias_mut(layer).unwrap().unwrap().copy_from(&bias);
                } else {
                    both.weights_mut(layer).unwrap().fill(0.0);
                    both.bias_mut(layer).unwrap().unwrap().fill(0.0);
                }
            }
            optimizer.step(&mut network, &both).unwrap();
        }
        assert_eq!(found, fingerprint(&network), "{rule}");
    }
}

#[test]
fn a_number_of_shards_that_makes_no_sense_is_refused() {
    let network = || Network::<f64>::builder(2).dense(3).tanh().dense(2).build().unwrap();
    LocalGroup::run(2, |group| {
        for shards in [0, 1, 65_537, 1 << 40, usize::MAX] {
            let trainer = Trainer::builder(network()).build().unwrap();
            let refused = DataParallel::new(group, trainer, shards).unwrap_err();
            assert!(matches!(refused, Error::InvalidParameter { name: "shards", .. }), "{refused}");
        }
    });
}

/// A shard's gradient counts by its class weights, but the signs of the error and the targets do not
/// depend on them.
#[test]
fn class_weights_beside_signals_without_them_are_refused() {
    let network = || Network::<f64>::builder(2).dense(3).tanh().dense(2).build().unwrap();
    LocalGroup::run(2, |group| {
        for rule in [FeedbackRule::SDfa, FeedbackRule::Drtp] {
            let trainer = || Trainer::builder(network()).rule(rule);
            let weighted = trainer().class_weights([1.0, 3.0]).build().unwrap();
            let refused = DataParallel::new(group, weighted, 2).unwrap_err();
            assert!(matches!(refused, Error::Conflict { .. }), "{refused}");
            DataParallel::new(group, trainer().build().unwrap(), 2).unwrap();
        }
    });
}

/// Shards make the gradient of the whole batch, but for rounding.
#[test]
fn shards_make_the_step_of_the_whole_batch() {
    let network = || Network::<f64>::builder(36).dense(8).tanh().dense(3).seed(1).build().unwrap();
    let x = DMatrix::from_fn(36, 13, |i, j| ((i * 7 + j * 13 + i * j) % 23) as f64 / 11.0 - 1.0);
    let labels: Vec<usize> = (0..13).map(|j| j % 3).collect();
    let trainer = || {
        let sgd = Sgd { learning_rate: 0.1, ..Sgd::default() };
        Trainer::builder(network()).optimizer(sgd).class_weights([1.0, 3.0, 0.5]).build().unwrap()
    };
    let mut whole = trainer();
    let expected = whole.step(&x, &labels).unwrap();
    let steps = LocalGroup::run(3, |group| {
        let mut parallel = DataParallel::new(group, trainer(), 5).unwrap();
        let step = parallel.step(&x, &labels).unwrap();
        let weights = |trainer: &Trainer<f64>| trainer.network().parameters().as_slice().to_vec();
        let (found, expected) = (weights(parallel.trainer()), weights(&whole));
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14));
        step
    });
    for step in steps {
        assert!((step.loss - expected.loss).abs() < 1e-14);
        assert_eq!((step.samples, step.errors), (13, expected.errors));
        assert!((step.weight - expected.weight).abs() < 1e-12);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the sizes, shards, processes and threads.
    #[test]
    fn bits_depend_on_shards_alone(
        widths in prop::collection::vec(1..9_usize, 1..4), shards in 1..6_usize, batch in 6..20_usize,
    ) {
        let data = data(36);
        let trainer = |threads| {
            let builder = widths.iter().fold(Network::builder(36), |net, &units| net.dense(units).tanh());
            let network = builder.dense(3).seed(1).build().unwrap();
            Trainer::builder(network).batch_size(batch).drop_last(true).threads(threads).build().unwrap()
        };
        let run = |processes, threads| on(processes, |group| {
            let mut parallel = DataParallel::new(group, trainer(threads), shards)?;
            parallel.epoch(&data)?;
            Ok(fingerprint(parallel.trainer().network()))
        });
        let expected = run(1, 2);
        for processes in 2..=shards {
            prop_assert_eq!(run(processes, 1), expected);
        }
    }
}

#[test]
fn evaluation_is_that_of_a_trainer() {
    let x = DMatrix::from_fn(36, 700, |i, j| ((i * 7 + j * 13 + i * j) % 23) as f32 / 11.0 - 1.0);
    let data = Dataset::new(x, (0..700).map(|j| j % 3).collect()).unwrap();
    let trainer = || builder(dense(), FeedbackRule::Dfa).build().unwrap();
    let expected = trainer().evaluate(&data).unwrap();
    for processes in [1, 2, 4] {
        let found = on(processes, |group| DataParallel::new(group, trainer(), 4)?.evaluate(&data));
        assert_eq!(found, expected);
    }
    let y = DMatrix::from_fn(3, 700, |i, j| (i + j) as f32 / 1000.0);
    let values = Dataset::with_values(data.inputs(), &y).unwrap();
    let mse = || {
        let loss = feedback_alignment::Loss::MeanSquaredError;
        builder(dense(), FeedbackRule::Dfa).loss(loss).build().unwrap()
    };
    let found = on(2, |group| DataParallel::new(group, mse(), 4)?.evaluate(&values));
    assert_eq!(found, mse().evaluate(&values).unwrap());
}

#[test]
fn images_vary_in_the_same_way() {
    let data = data(36);
    let trainer = || {
        let varied = Augmentation { shape: (1, 6, 6), flip: Flip::Horizontal, crop_padding: 1 };
        let stopping = StoppingRule::default();
        builder(dense(), FeedbackRule::Dfa).augmentation(varied).stopping(stopping).build().unwrap()
    };
    let expected = alone(trainer(), &data);
    assert_eq!(on(3, |group| layer_parallel(group, trainer(), 0, &data)), expected);
    let shards = on(1, |group| data_parallel(group, trainer(), &data));
    assert_eq!(on(4, |group| data_parallel(group, trainer(), &data)), shards);
}

#[test]
fn frozen_layers_stay_on_whatever_process() {
    let data = data(36);
    for rule in [FeedbackRule::Bp, FeedbackRule::Dfa, FeedbackRule::Kp] {
        let trainer = || {
            let mut trainer = builder(dense(), rule).build().unwrap();
            trainer.network_mut().freeze(1).unwrap();
            trainer
        };
        let expected = alone(trainer(), &data);
        assert_eq!(on(3, |group| layer_parallel(group, trainer(), 0, &data)), expected);
        let shards = on(1, |group| data_parallel(group, trainer(), &data));
        assert_eq!(on(4, |group| data_parallel(group, trainer(), &data)), shards);
    }
}

#[cfg(feature = "safetensors")]
#[test]
fn a_run_goes_on_on_another_number_of_processes() {
    let (folder, data) = (tempfile::tempdir().unwrap(), data(36));
    for rule in [FeedbackRule::Bp, FeedbackRule::Kp, FeedbackRule::Drtp] {
        let path = folder.path().join(format!("{rule}.safetensors"));
        let trainer = || builder(dense(), rule).build().unwrap();
        let expected = on(1, |group| data_parallel(group, trainer(), &data));
        let load = || Trainer::<f32>::load(&path).unwrap();
        on(2, |group| {
            let mut parallel = DataParallel::new(group, trainer(), 4)?;
            parallel.epoch(&data)?;
            parallel.save(&path)
        });
        let found = on(4, |group| {
            let mut parallel = DataParallel::new(group, load(), 4)?;
            parallel.epoch(&data)?;
            Ok(fingerprint(parallel.trainer().network()))
        });
        assert_eq!(found, expected.0, "{rule}");

        let expected = alone(trainer(), &data);
        on(3, |group| {
            let mut parallel = LayerParallel::new(group, trainer(), 0)?;
            parallel.epoch(&data)?;
            parallel.save(&path)
        });
        let found = on(2, |group| {
            let mut parallel = LayerParallel::new(group, load(), 0)?;
            parallel.epoch(&data)?;
            Ok(fingerprint(parallel.trainer()?.network()))
        });
        assert_eq!(found, expected.0, "{rule}");
    }
}

/// A group whose second process fails in its data.
fn spoiled(rank: usize) -> Dataset<f32> {
    let good = data(36);
    if rank == 1 {
        Dataset::new(good.inputs().rows(0, 35).into_owned(), (0..45).map(|j| j % 3).collect())
            .unwrap()
    } else {
        good
    }
}

/// Runs `work` on so many processes and returns what each says, if they end within a minute.
fn errors(processes: usize, work: impl Fn(&LocalGroup) -> Result<()> + Sync) -> Vec<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let work = &work;
        let sender = Mutex::new(sender);
        scope.spawn(move || {
            let results = LocalGroup::run(processes, |group| work(group).unwrap_err().to_string());
            sender.lock().unwrap().send(results).unwrap();
        });
        receiver.recv_timeout(Duration::from_secs(60)).expect("nobody waits for ever")
    })
}

#[test]
fn bad_data_of_one_process_is_an_error_of_all() {
    let trainer = || builder(dense(), FeedbackRule::Dfa).build().unwrap();
    let each = |work: &(dyn Fn(&LocalGroup, &Dataset<f32>) -> Result<()> + Sync)| {
        let messages = errors(3, |group| work(group, &spoiled(group.rank())));
        assert!(messages[0].starts_with("process 1: the dataset's input"), "{messages:?}");
        assert!(messages[1].starts_with("the dataset's input"), "{messages:?}");
        assert_eq!(messages[0], messages[2]);
    };
    each(&|group, data| data_parallel(group, trainer(), data).map(drop));
    each(&|group, data| layer_parallel(group, trainer(), 0, data).map(drop));
    each(&|group, data| pipeline(group, trainer(), 2, data).map(drop));
    each(&|group, data| DataParallel::new(group, trainer(), 4)?.evaluate(data).map(drop));
}

/// Weights under which the third batch overflows in some layer, which is on one of the processes.
fn overflowing(layer: usize) -> (Trainer<f32>, Dataset<f32>) {
    let plain = Network::builder(36).dense(8).relu().dense(7).relu().dense(6).relu().dense(3);
    let mut network = plain.seed(2).build().unwrap();
    let shape = network.layer(layer).unwrap().weights().shape();
    network.set_weights(layer, DMatrix::from_element(shape.0, shape.1, 1e20)).unwrap();
    let huge = |i: usize, j: usize| if j == 20 { 1e25 } else { ((i + j) % 3) as f32 * 1e-30 };
    let x = DMatrix::from_fn(36, 45, huge);
    let data = Dataset::new(x, (0..45).map(|j| j % 3).collect()).unwrap();
    let rule = FeedbackRule::Dfa;
    (
        builder(network, rule)
            .optimizer(Sgd { learning_rate: 1e-30, ..Sgd::default() })
            .build()
            .unwrap(),
        data,
    )
}

#[test]
fn an_overflow_on_one_process_is_an_error_of_all_and_changes_nothing() {
    for layer in 0..4 {
        let (trainer, data) = overflowing(layer);
        let mut single = trainer.clone();
        let expected = single.epoch(&data).unwrap_err().to_string();
        let before = fingerprint(single.network());
        let check = |messages: Vec<String>| {
            let infinite = |message: &String| message.contains("inf") || message.contains("NaN");
            assert!(
                infinite(&expected) && messages.iter().all(infinite),
                "{messages:?}, {expected}"
            );
        };
        for processes in [2, 4] {
            check(errors(processes, |group| {
                let mut parallel = DataParallel::new(group, trainer.clone(), 4)?;
                let result = parallel.epoch(&data).map(drop);
                assert!(parallel.trainer().optimizer().steps() < 4);
                result
            }));
            check(errors(processes, |group| {
                let mut parallel = LayerParallel::new(group, trainer.clone(), 0)?;
                let result = parallel.epoch(&data).map(drop);
                assert_eq!(fingerprint(parallel.trainer()?.network()), before);
                result
            }));
            check(errors(processes, |group| {
                let mut parallel = Pipeline::new(group, trainer.clone(), 4)?;
                let result = parallel.epoch(&data).map(drop);
                let network = parallel.trainer()?.network();
                assert_eq!(fingerprint(network), fingerprint(trainer.network()));
                result
            }));
        }
    }
}

/// An update that overflows in the first layer alone: the process of the others has to go back.
#[test]
fn a_step_that_one_process_cannot_make_is_made_by_none() {
    let x = DMatrix::from_fn(36, 45, |i, j| ((i * 7 + j * 13) % 23) as f32 * 1e4);
    let data = Dataset::new(x, (0..45).map(|j| j % 3).collect()).unwrap();
    for rule in [FeedbackRule::Fa, FeedbackRule::Dfa, FeedbackRule::Kp] {
        let mut network = Network::builder(36)
            .dense(8)
            .dense(7)
            .dense(3)
            .init(Init::FanIn)
            .seed(2)
            .build()
            .unwrap();
        network.set_weights(0, DMatrix::from_element(8, 36, 1e-7)).unwrap();
        let rate = Sgd { learning_rate: 1e38, ..Sgd::default() };
        let trainer = builder(network, rule).optimizer(rate).build().unwrap();
        let before = fingerprint(trainer.network());
        let expected = trainer.clone().epoch(&data).unwrap_err().to_string();
        assert!(expected.contains("layer 0 after this step"), "{rule}: {expected}");
        let messages = errors(2, |group| {
            let mut parallel = LayerParallel::new(group, trainer.clone(), 0)?;
            let result = parallel.epoch(&data).map(drop);
            let trainer = parallel.trainer()?;
            assert_eq!(trainer.optimizer().steps(), 0, "{rule}");
            assert_eq!(fingerprint(trainer.network()), before, "{rule}");
            result
        });
        assert_eq!(messages, [expected.clone(), format!("process 0: {expected}")], "{rule}");
    }
}

#[test]
fn what_cannot_be_shared_out_is_refused_on_all() {
    let refused = |processes, work: &(dyn Fn(&LocalGroup) -> Result<()> + Sync), words: &str| {
        let messages = errors(processes, work);
        assert!(messages.iter().all(|message| message.contains(words)), "{messages:?}: {words}");
    };
    let trainer = |rule| builder(dense(), rule).build().unwrap();
    let (dfa, bp) = (FeedbackRule::Dfa, FeedbackRule::Bp);
    refused(3, &|group| DataParallel::new(group, trainer(dfa), 2).map(drop), "shards is 2");
    refused(6, &|group| LayerParallel::new(group, trainer(dfa), 0).map(drop), "processes is 6");
    refused(2, &|group| Pipeline::new(group, trainer(bp), 2).map(drop), "LayerParallel");
    refused(3, &|group| Pipeline::new(group, trainer(dfa), 1).map(drop), "a delay of 1");
    refused(2, &|group| LayerParallel::new(group, trainer(dfa), 2000).map(drop), "delay is 2000");
    refused(
        2,
        &|group| LayerParallel::new(group, trainer(dfa), group.rank()).map(drop),
        "the delay",
    );
    let shards = |group: &LocalGroup| 4 + group.rank();
    refused(
        2,
        &|group| DataParallel::new(group, trainer(dfa), shards(group)).map(drop),
        "the number of shards",
    );
    let seeds =
        |group: &LocalGroup| builder(dense(), dfa).seed(group.rank() as u64).build().unwrap();
    refused(2, &|group| DataParallel::new(group, seeds(group), 4).map(drop), "the trainer");
    let adversarial = || builder(dense(), dfa).adversarial(0.1).build().unwrap();
    refused(2, &|group| LayerParallel::new(group, adversarial(), 0).map(drop), "adversarial");
    let residual = || {
        let network = Network::builder(36).dense(8).tanh().dense(8).tanh().skip(1).dense(3);
        builder(network.build().unwrap(), dfa).build().unwrap()
    };
    refused(2, &|group| LayerParallel::new(group, residual(), 0).map(drop), "residual");
    let data = data(36);
    // The last batch has nine samples.
    refused(
        2,
        &|group| {
            let network = Network::builder(36).dense(8).tanh().dense(3).build()?;
            let trainer = builder(network, dfa).build()?;
            DataParallel::new(group, trainer, 10)?.epoch(&data).map(drop)
        },
        "9 samples",
    );
}

/// What the table of the documentation says, in bytes.
#[test]
fn what_crosses_is_what_the_rule_needs() {
    let data = data(36);
    let traffic = |rule, processes, delay: Option<usize>| -> Vec<Traffic> {
        let network = Network::builder(36).dense(8).tanh().dense(8).tanh().dense(3);
        let trainer = builder(network.build().unwrap(), rule).drop_last(true).build().unwrap();
        LocalGroup::run(processes, |group| {
            let group = Counted::new(group);
            let run = |trainer: Trainer<f32>| -> Result<()> {
                match delay {
                    None => LayerParallel::new(&group, trainer, 0)?.epoch(&data),
                    Some(delay) => Pipeline::new(&group, trainer, delay)?.epoch(&data),
                }
                .map(drop)
            };
            run(trainer.clone()).unwrap();
            group.traffic()
        })
    };
    let (h, e, number) = (8 * BATCH, 3 * BATCH, size_of::<f32>() as u64);
    let (h, e) = (h as u64 * number, e as u64 * number);
    let steps = 3;
    let bytes = |rule, delay| traffic(rule, 2, delay).iter().map(|t| t.bytes).collect::<Vec<_>>();
    let (bp, dfa) = (bytes(FeedbackRule::Bp, None), bytes(FeedbackRule::Dfa, None));
    // The activations go up alike; the output layer's process sends deltas, or the error.
    assert_eq!(bp[0], dfa[0]);
    assert!(bp[0] > steps * h && bp[0] < steps * (h + 100));
    assert_eq!(bp[1] - dfa[1], steps * (h - e));
    let (dfa, drtp) = (bytes(FeedbackRule::Dfa, Some(1)), bytes(FeedbackRule::Drtp, Some(1)));
    assert_eq!(dfa[1] - drtp[1], steps * e + 1);
}

#[test]
fn a_killed_member_is_an_error_of_the_others() {
    let data = data(36);
    let messages = errors(3, |group| {
        let trainer = builder(dense(), FeedbackRule::Dfa).build().unwrap();
        let mut parallel = LayerParallel::new(group, trainer, 0)?;
        if group.rank() == 1 {
            return Err(Error::NoWeightedLayer); // Without telling the others.
        }
        parallel.epoch(&data).map(drop)
    });
    assert!(
        messages
            .iter()
            .all(|message| message.contains("is gone") || message.contains("no weighted")),
        "{messages:?}"
    );
}

#[test]
fn agreement_is_the_own_error_or_the_first() {
    for processes in 1..6 {
        for failing in 0..processes {
            let results = LocalGroup::run(processes, |group| {
                let fails = group.rank() >= failing;
                agree(group, if fails { Err(Error::NoWeightedLayer) } else { Ok(()) })
            });
            for (rank, result) in results.into_iter().enumerate() {
                match result.unwrap_err() {
                    Error::NoWeightedLayer => assert!(rank >= failing),
                    Error::Process { process, .. } => assert!(process == failing && rank < failing),
                    other => panic!("{other}"),
                }
            }
        }
    }
}

/// What would be another rule on several processes is refused, with the reason.
#[test]
fn rules_that_need_the_whole_batch_are_refused() {
    let network = || Network::builder(4).dense(5).tanh().dense(3).build().unwrap();
    for rule in WHOLE_BATCH {
        LocalGroup::run(2, |group| {
            let trainer = || builder(network(), rule).build().unwrap();
            let data = DataParallel::new(group, trainer(), 2).unwrap_err().to_string();
            assert!(data.contains("the whole batch"), "{data}");
            let layers = LayerParallel::new(group, trainer(), 0).unwrap_err().to_string();
            assert!(layers.contains("another process"), "{layers}");
        });
    }
}
