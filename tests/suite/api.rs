//! The public face: what a user relies on without reading the source.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::{Debug, Display},
    fs,
    path::Path,
    str::FromStr,
};

use approx::assert_relative_eq;
use feedback_alignment::{
    Activation, Adam, Dataset, Decay, Error, Feedback, FeedbackInit, FeedbackRule, Loss, Momentum,
    Network, NetworkBuilder, Operation, RmsProp, Scalar, Schedule, Sgd, StoppingRule, Targets,
    Trainer,
    nalgebra::{DMatrix, DVector},
    rand::{SeedableRng, rngs::Xoshiro256PlusPlus},
    rand_distr::Uniform,
};

/// Asserts the traits of every type in a list, and returns their names.
macro_rules! names_of {
    ($bounds:ident: $($type:ty),* $(,)?) => {
        [$($bounds::<$type>()),*]
    };
}

/// The last part of a type's path, without parameters.
fn name<T: ?Sized>() -> &'static str {
    let path = std::any::type_name::<T>();
    path.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap()
}

fn value<T: Send + Sync + Unpin + Clone + Debug>() -> &'static str {
    name::<T>()
}

fn error<T: std::error::Error + Send + Sync + 'static>() -> &'static str {
    name::<T>()
}

/// The types that the sources declare `pub` outside functions and modules.
fn declared(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(declared(&path));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        names.extend(text.lines().filter_map(|line| {
            let rest = line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum "))?;
            Some(rest.chars().take_while(|c| c.is_alphanumeric()).collect())
        }));
    }
    names
}

#[test]
fn every_public_type_can_be_sent_shared_cloned_and_shown() {
    use feedback_alignment::{
        Activations, AdamW, AvgPool2d, BatchNorm, Bias, ConfusionMatrix, Conv2d, Deltas, Diagnosis,
        Diagnostics, Dropout, EarlyStopping, Epoch, Evaluation, FastGradientSign, GradientCheck,
        GradientReport, Gradients, Hop, Init, Layer, LayerDiagnosis, LayerNorm, LayerSummary, Log,
        Magnitudes, MaxPool2d, Mirror, Optimizer, OptimizerState, Parameters, Part, Plateau,
        Pool2d, Route, Scaling, Shape, Signal, Skip, Slot, Step, Summary, TensorCheck, Threshold,
        Through, TrainerBuilder, WeightDecay,
        data::{
            Augmentation, Batch, Flip, Whitening,
            cifar::{Cifar, Labels},
            idx::{Emnist, Mnist},
            whitening::{Progress, Stage},
        },
    };
    let mut tested: BTreeSet<&str> = names_of!(value:
        Activation, Activations<f32>, Adam, AdamW, Augmentation, AvgPool2d, Batch<f32>,
        BatchNorm, Bias, Cifar<f32>, ConfusionMatrix, Conv2d, Dataset<f32>, Decay,
        Deltas<f32>, Diagnosis, Emnist, Diagnostics<f32>, Dropout, FastGradientSign<f32>, GradientCheck,
        GradientReport, LayerDiagnosis, LayerSummary, Log<Vec<u8>>, Part, Plateau, Summary, TensorCheck, Flip, Labels, Layer<'static, f32>, LayerNorm, Skip, Parameters<f32>, Slot, MaxPool2d, Mirror,
        Operation, Pool2d, Progress, Shape, Stage, Whitening<f32>, EarlyStopping<f32>, Epoch, Evaluation, Feedback<f32>, FeedbackInit,
        FeedbackRule, Gradients<f32>, Hop, Init, Loss, Magnitudes, Mnist<f32>, Momentum, Network<f32>,
        NetworkBuilder<f32>, Optimizer, OptimizerState<f32>, RmsProp, Scaling<f32>, Schedule, Sgd,
        Route, Signal, Step, StoppingRule, Targets<'static, f32>, Trainer<f32>, TrainerBuilder<f32>,
        Threshold, Through, WeightDecay,
    )
    .into();
    tested.insert(error::<Error>());
    #[cfg(feature = "csv")]
    {
        use feedback_alignment::data::csv::{Column, Format, Header, RowNumbers, Table, Target};
        tested.extend(names_of!(value: Column, Format, Header, RowNumbers, Table<f32>, Target));
    }
    let mut declared = declared(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    #[cfg(feature = "safetensors")]
    tested.extend(names_of!(value: feedback_alignment::LoadOptions));
    if !cfg!(feature = "safetensors") {
        declared.remove("LoadOptions");
    }
    if !cfg!(feature = "csv") {
        declared.retain(|name| {
            !["Column", "Format", "Header", "RowNumbers", "Table", "Target"]
                .contains(&name.as_str())
        });
    }
    // A group of processes is neither cloned nor shared by threads, nor is what works on it.
    let of_groups = [
        "Counted",
        "DataParallel",
        "LayerParallel",
        "LocalGroup",
        "MpiGroup",
        "Pipeline",
        "Traffic",
    ];
    declared.retain(|name| !of_groups.contains(&name.as_str()));
    assert_eq!(tested, declared.iter().map(String::as_str).collect());
}

#[test]
fn every_name_is_read_back_in_any_case_and_unknown_ones_are_answered_with_a_list() {
    fn round_trip<T>(all: impl Iterator<Item = T>)
    where
        T: Copy + PartialEq + Debug + Display + FromStr<Err = feedback_alignment::Error>,
    {
        let names: Vec<String> = all
            .map(|value| {
                let name = value.to_string();
                for spelling in [name.clone(), name.to_uppercase(), name.to_lowercase()] {
                    assert_eq!(spelling.parse::<T>().unwrap(), value, "{spelling}");
                }
                name
            })
            .collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        for unknown in ["", "backprop", " ", &format!("{} ", names[0])] {
            let message = unknown.parse::<T>().unwrap_err().to_string();
            assert!(message.contains(&format!("'{unknown}'")), "{message}");
            assert!(message.contains(&names.join(", ")), "{message}");
        }
    }
    round_trip(FeedbackRule::all());
    round_trip(Activation::all());
    round_trip(Loss::all());
}

/// Three classes of points around (0, 1), (1, 0) and (−1, −1), class 0 twice as often.
fn clusters(samples: usize) -> Dataset<f32> {
    let labels: Vec<usize> = (0..samples).map(|j| [0, 1, 2, 0][j % 4]).collect();
    let centres = [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]];
    let x = DMatrix::from_fn(2, samples, |i, j| {
        centres[labels[j]][i] + ((j * 7 + i * 3) % 11) as f32 / 50.0
    });
    Dataset::new(x, labels).unwrap()
}

#[test]
fn a_user_builds_trains_predicts_and_evaluates() {
    let (train, test) = clusters(400).split(100, 1).unwrap();
    for rule in FeedbackRule::nokland() {
        let network = Network::builder(2).dense(16).tanh().dense(16).tanh().dense(3).build();
        let builder = Trainer::builder(network.unwrap()).rule(rule).batch_size(32);
        let mut trainer =
            builder.optimizer(Adam { learning_rate: 0.01, ..Adam::default() }).build().unwrap();
        let before = trainer.evaluate(&test).unwrap();
        for number in 1..=10 {
            let epoch = trainer.epoch(&train).unwrap();
            assert_eq!((epoch.number, trainer.epochs()), (number, number));
            assert_eq!(epoch.learning_rate, 0.01);
        }
        let after = trainer.evaluate(&test).unwrap();
        assert_eq!(after.error_rate, Some(0.0), "{rule}");
        assert!(after.loss < before.loss, "{rule}: {} → {}", before.loss, after.loss);
        assert_eq!(after, trainer.evaluate(&test).unwrap(), "an evaluation changes nothing");

        let classes = trainer.predict_classes(&test.inputs()).unwrap();
        let labels = test.labels().unwrap();
        assert_eq!(classes, labels);
        let logits = trainer.network().predict(&test.inputs()).unwrap();
        assert_eq!(trainer.loss().classes(&logits).unwrap(), classes);
        let probabilities = trainer.loss().probabilities(&logits).unwrap();
        assert!(probabilities.column_iter().all(|column| (column.sum() - 1.0).abs() < 1e-5));
        assert_eq!(trainer.into_network().predict(&test.inputs()).unwrap(), logits);
    }
}

#[test]
fn the_confusion_matrix_counts_every_sample_once_in_the_row_of_its_class() {
    // 300 samples, so that the evaluation takes more than one pass.
    let data = clusters(300);
    let network = Network::builder(2).dense(4).tanh().dense(3).build().unwrap();
    let trainer = Trainer::builder(network).build().unwrap();
    let evaluation = trainer.evaluate(&data).unwrap();
    let confusion = evaluation.confusion.unwrap();
    let labels = data.labels().unwrap();
    let classes = trainer.predict_classes(&data.inputs()).unwrap();
    assert_eq!(confusion.classes(), 3);
    for actual in 0..3 {
        for predicted in 0..3 {
            let pairs = labels.iter().zip(&classes);
            let expected = pairs.filter(|&pair| pair == (&actual, &predicted)).count();
            assert_eq!(confusion.count(actual, predicted), expected);
        }
        let row: usize = (0..3).map(|predicted| confusion.count(actual, predicted)).sum();
        assert_eq!(row, labels.iter().filter(|&&label| label == actual).count());
    }
    let right: usize = (0..3).map(|class| confusion.count(class, class)).sum();
    assert!(right < 300, "an untrained network errs");
    assert_eq!(evaluation.error_rate, Some((300 - right) as f64 / 300.0));
    assert_eq!((confusion.count(3, 0), confusion.count(0, usize::MAX)), (0, 0));
    assert_eq!(confusion.to_string().lines().count(), 4);
}

#[test]
fn real_valued_targets_have_no_errors_to_count() {
    let x = DMatrix::from_fn(2, 30, |i, j| ((i + 1) * j) as f64 / 60.0);
    let y = DMatrix::from_fn(2, 30, |i, j| 0.5 * x[(i, j)] - x[(1 - i, j)]);
    let data = Dataset::with_values(x.clone(), &y).unwrap();
    let network = Network::builder(2).dense(8).tanh().dense(2).build().unwrap();
    let stopping = StoppingRule { threshold: 1.0, ..StoppingRule::default() };
    let builder = Trainer::builder(network).loss(Loss::MeanSquaredError).stopping(stopping);
    let mut trainer = builder.optimizer(Sgd::default()).batch_size(8).build().unwrap();
    // The rule could never fire.
    assert!(matches!(
        trainer.epoch(&data),
        Err(feedback_alignment::Error::NoClasses { what: "a stopping rule" })
    ));
    trainer.set_stopping(None).unwrap();
    let before = trainer.evaluate(&data).unwrap();
    assert_eq!((before.error_rate, &before.confusion), (None, &None));
    assert_eq!(trainer.step(&x, &y).unwrap().errors, None);
    let epochs = [(); 30].map(|()| trainer.epoch(&data).unwrap());
    assert!(epochs.iter().all(|epoch| epoch.error_rate.is_none()));
    assert!(!epochs[0].to_string().contains('%'), "{}", epochs[0]);
    let after = trainer.evaluate(&data).unwrap();
    assert!(after.loss < before.loss / 10.0, "{} → {}", before.loss, after.loss);
}

/// What an epoch says is what its steps saw, samples of a smaller last batch counting alike.
#[test]
fn an_epoch_is_its_steps() {
    let data = clusters(43);
    for rule in FeedbackRule::nokland() {
        let network = Network::builder(2).dense(5).relu().dense(3).build().unwrap();
        let builder = Trainer::builder(network).rule(rule).batch_size(10).seed(9);
        let mut by_epoch = builder.build().unwrap();
        let mut by_step = by_epoch.clone();
        for number in 0..3 {
            let epoch = by_epoch.epoch(&data).unwrap();
            let (mut loss, mut errors, mut sizes) = (0.0, 0, Vec::new());
            for batch in data.batches(10, 9, number).unwrap() {
                let step = by_step.step(batch.inputs(), batch.targets()).unwrap();
                loss += step.loss * step.samples as f64;
                errors += step.errors.unwrap();
                sizes.push(step.samples);
            }
            assert_eq!(sizes, [10, 10, 10, 10, 3]);
            assert_relative_eq!(epoch.loss, loss / 43.0, max_relative = 1e-12);
            assert_eq!(epoch.error_rate, Some(f64::from(u32::try_from(errors).unwrap()) / 43.0));
        }
        assert_eq!(by_epoch.network(), by_step.network(), "{rule}");
    }
}

#[test]
fn switching_the_rule_keeps_weights_and_optimiser() {
    let data = clusters(40);
    let network = Network::builder(2).dense(5).tanh().dense(4).tanh().dense(3).build().unwrap();
    let adam = Adam::default();
    for (from, to) in FeedbackRule::nokland()
        .into_iter()
        .flat_map(|a| FeedbackRule::nokland().into_iter().map(move |b| (a, b)))
    {
        let build = |rule| {
            let builder = Trainer::builder(network.clone()).rule(rule).optimizer(adam);
            builder.feedback_init(FeedbackInit::Lillicrap).batch_size(16).seed(3).build().unwrap()
        };
        let mut switched = build(from);
        switched.epoch(&data).unwrap();
        let before = (switched.network().clone(), switched.optimizer().clone());
        switched.set_rule(to).unwrap();
        assert_eq!((switched.network(), switched.optimizer()), (&before.0, &before.1));
        assert_eq!(switched.epochs(), 1);
        // The matrices are those that a trainer of that rule starts with.
        assert_eq!(switched.feedback(), build(to).feedback(), "{from} → {to}");

        let mut stayed = build(from);
        stayed.epoch(&data).unwrap();
        stayed.epoch(&data).unwrap();
        switched.epoch(&data).unwrap();
        assert_eq!(switched.network() == stayed.network(), from == to, "{from} → {to}");
    }
}

/// Numbers whose bits are easily lost: subnormal, negative zero, the ends of the range.
#[test]
fn weights_and_feedback_of_ones_own_come_back_to_the_last_bit() {
    let odd = [f32::MIN_POSITIVE / 3.0, -0.0, f32::MAX, f32::MIN, 0.1, -1e-45];
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let mut network =
        Network::<f32>::builder(2).dense(3).tanh().dense_without_bias(2).build().unwrap();
    network.set_weights(0, DMatrix::from_column_slice(3, 2, &odd)).unwrap();
    network.set_weights(1, DMatrix::from_column_slice(2, 3, &odd)).unwrap();
    network.set_bias(0, DVector::from_column_slice(&odd[..3])).unwrap();
    for layer in 0..2 {
        assert_eq!(
            bits(network.layer(layer).unwrap().weights().into_owned().as_slice()),
            bits(&odd)
        );
    }
    assert_eq!(bits(network.layer(0).unwrap().bias().unwrap().as_slice()), bits(&odd[..3]));
    assert_eq!(network.layer(1).unwrap().bias(), None);
    assert_eq!(network.layer(0).unwrap().operations(), [Operation::Activation(Activation::Tanh)]);
    assert_eq!(network.layer(1).unwrap().operations(), []);
    assert_eq!(network.to_string(), "2-3 tanh-2");
    assert_eq!((network.input_len(), network.output_len(), network.layer_count()), (2, 2, 2));
    assert_eq!(network.parameter_count(), 6 + 3 + 6);

    for (rule, rows, columns) in
        [(FeedbackRule::Fa, 3, 2), (FeedbackRule::Dfa, 3, 2), (FeedbackRule::Ifa, 3, 2)]
    {
        let own = DMatrix::from_column_slice(rows, columns, &odd);
        let made = Feedback::from_matrices(&network, rule, vec![own.clone()]).unwrap();
        let mut set = Feedback::new(&network, rule, FeedbackInit::Nokland, 0).unwrap();
        set.set_matrix(0, own).unwrap();
        for feedback in [made, set] {
            let trainer = Trainer::builder(network.clone()).feedback(feedback).build().unwrap();
            let matrix = trainer.feedback().matrix(0).unwrap().unwrap();
            assert_eq!(bits(matrix.as_slice()), bits(&odd), "{rule}");
            assert_eq!(trainer.feedback().rule(), Some(rule));
        }
    }
}

#[test]
fn feedback_is_fixed_and_drawn_from_any_distribution() {
    let network =
        Network::<f64>::builder(2).dense(3).tanh().dense(3).tanh().dense(3).build().unwrap();
    let (distribution, data) = (Uniform::new(2.0, 3.0).unwrap(), clusters(40));
    let inputs = data.inputs().map(f64::from);
    let labels = data.labels().unwrap();
    for rule in FeedbackRule::nokland() {
        let draw = |seed| {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            Feedback::sample(&network, rule, &distribution, &mut rng).unwrap()
        };
        let feedback = draw(1);
        assert_eq!(feedback, draw(1));
        for layer in 0..2 {
            if let Some(matrix) = feedback.matrix(layer).unwrap() {
                assert!(matrix.iter().all(|b| (2.0..3.0).contains(b)), "{rule}: {matrix}");
                assert_ne!(Some(&matrix), draw(2).matrix(layer).unwrap().as_ref());
            }
        }
        let mut trainer =
            Trainer::builder(network.clone()).feedback(feedback.clone()).build().unwrap();
        for _ in 0..3 {
            trainer.step(&inputs, labels).unwrap();
        }
        assert_eq!(*trainer.feedback(), feedback, "{rule}");
        assert_ne!(*trainer.network(), network);
    }
}

#[test]
fn narrow_and_deep_networks_and_odd_batches_learn_under_every_rule() {
    let deep = |builder: NetworkBuilder<f32>, layers: usize, width: usize| {
        (0..layers).fold(builder, |builder, _| builder.dense(width).tanh())
    };
    let two = || Network::builder(2);
    for (name, builder, batch_size) in [
        ("batches of one", two().dense(4).tanh().dense(3), 1),
        ("a batch that is larger than the set", two().dense(4).tanh().dense(3), usize::MAX),
        ("a last batch of one", two().dense(4).tanh().dense(3), 6),
        ("no hidden layer", two().dense(3), 4),
        ("one hidden unit", two().dense(1).tanh().dense(3), 4),
        ("one hidden unit in every layer", deep(two(), 3, 1).dense(3), 4),
        ("100 hidden layers", deep(two(), 100, 3).dense(3), 4),
        ("no activation", two().dense(4).dense(4).dense(3), 4),
        ("three activations in a row", two().dense(4).tanh().softplus().elu(1.0).dense(3), 4),
        ("no bias", two().dense_without_bias(4).tanh().dense_without_bias(3), 4),
    ] {
        let network = builder.build().unwrap();
        for rule in FeedbackRule::nokland() {
            let builder = Trainer::builder(network.clone()).rule(rule).batch_size(batch_size);
            let mut trainer = builder
                .optimizer(RmsProp { learning_rate: 1e-3, ..RmsProp::default() })
                .build()
                .unwrap();
            let epoch = trainer.epoch(&clusters(13)).unwrap();
            let steps = 13_usize.div_ceil(batch_size) as u64;
            assert_eq!((epoch.number, trainer.optimizer().steps()), (1, steps), "{name}, {rule}");
            for layer in 0..network.layer_count() {
                let (old, new) =
                    (network.layer(layer).unwrap(), trainer.network().layer(layer).unwrap());
                // Through 100 layers the signal may well vanish, unless it comes directly.
                let vanishes = network.layer_count() > 100 && rule != FeedbackRule::Dfa;
                let moved = old.weights() != new.weights();
                assert!(moved || vanishes, "{name}, {rule}: layer {layer} stands still");
                assert!(
                    new.weights().iter().all(|w| w.is_finite()),
                    "{name}, {rule}: layer {layer}"
                );
            }
            let output = network.layer_count() - 1;
            assert_ne!(network.layer(output).unwrap(), trainer.network().layer(output).unwrap());
        }
    }
}

#[test]
fn one_output_tells_two_classes_apart_under_every_rule() {
    let x = DMatrix::from_fn(2, 40, |i, j| ((j * 3 + i * 5) % 7) as f32 / 3.0 - 1.0);
    let labels = x.column_iter().map(|x| usize::from(x[0] + x[1] > 0.0)).collect::<Vec<_>>();
    let data = Dataset::new(x, labels).unwrap();
    for loss in [Loss::LogisticCrossEntropy, Loss::MeanSquaredError] {
        for rule in FeedbackRule::nokland() {
            let network = Network::builder(2).dense(8).tanh().dense(1).build().unwrap();
            let builder = Trainer::builder(network).rule(rule).loss(loss).batch_size(8);
            let mut trainer =
                builder.optimizer(Adam { learning_rate: 0.02, ..Adam::default() }).build().unwrap();
            for _ in 0..60 {
                trainer.epoch(&data).unwrap();
            }
            let evaluation = trainer.evaluate(&data).unwrap();
            assert_eq!(evaluation.error_rate, Some(0.0), "{rule}, {loss}");
            assert_eq!(evaluation.confusion.unwrap().classes(), 2);
        }
    }
}

#[test]
fn the_stopping_rule_averages_the_training_error_from_one() {
    let data = clusters(40);
    let network = || Network::builder(2).dense(8).tanh().dense(3).build().unwrap();
    let adam = Adam { learning_rate: 0.01, ..Adam::default() };
    for stopping in [StoppingRule::default(), StoppingRule { momentum: 0.5, threshold: 0.2 }] {
        let builder = Trainer::builder(network()).optimizer(adam).batch_size(8).stopping(stopping);
        let mut trainer = builder.build().unwrap();
        let mut running = 1.0;
        let mut epochs = 0;
        assert!(!trainer.is_finished());
        while running > stopping.threshold {
            assert!(!trainer.is_finished(), "after {epochs} epochs at {running}");
            let error = trainer.epoch(&data).unwrap().error_rate.unwrap();
            running = stopping.momentum * running + (1.0 - stopping.momentum) * error;
            epochs += 1;
        }
        assert!(trainer.is_finished(), "after {epochs} epochs at {running}");
        // Even without a single error the average has to come down from 1.
        let fewest = stopping.threshold.ln() / stopping.momentum.ln();
        assert!(f64::from(epochs) >= fewest, "{epochs} epochs, at least {fewest}");
    }
    assert_eq!(StoppingRule::default(), StoppingRule { momentum: 0.75, threshold: 1e-4 });
    let mut endless = Trainer::builder(network()).optimizer(adam).build().unwrap();
    for _ in 0..60 {
        endless.epoch(&data).unwrap();
    }
    assert!(!endless.is_finished(), "without a rule training never ends by itself");
}

#[test]
fn no_row_of_weights_is_longer_than_max_norm_after_any_step() {
    let data = clusters(40);
    // Small steps creep over the bound, large ones leap.
    for (bound, learning_rate) in [(0.05, 1.0), (0.5, 1.0), (0.5, 0.01)] {
        for rule in FeedbackRule::nokland() {
            let network = Network::<f32>::builder(2).dense(6).tanh().dense(3).build().unwrap();
            let sgd = Sgd { learning_rate, momentum: Momentum::Classical(0.9), ..Sgd::default() };
            let builder =
                Trainer::builder(network).rule(rule).optimizer(sgd).max_norm(f64::from(bound));
            let mut trainer = builder.build().unwrap();
            let mut reached = false;
            for batch in data.batches(8, 0, 0).unwrap() {
                trainer.step(batch.inputs(), batch.targets()).unwrap();
                for layer in 0..2 {
                    for row in trainer.network().layer(layer).unwrap().weights().row_iter() {
                        assert!(row.norm() <= bound * (1.0 + 1e-6), "{rule}: {}", row.norm());
                        reached |= row.norm() > bound * (1.0 - 1e-6);
                    }
                }
            }
            assert!(reached, "{rule}: a bound that binds nothing proves nothing");
        }
    }
}

#[test]
fn schedules_change_the_learning_rate_from_step_to_step() {
    let data = clusters(40); // 5 steps an epoch
    for schedule in [
        Schedule::default(),
        Schedule { warm_up: 7, decay: Decay::Constant },
        Schedule { warm_up: 2, decay: Decay::Step { every: 3, factor: 0.5 } },
        Decay::Exponential { every: 4, factor: 0.5 }.into(),
        Decay::Cosine { steps: 12 }.into(),
    ] {
        let network = Network::<f32>::builder(2).dense(3).build().unwrap();
        let sgd = Sgd { learning_rate: 0.2, ..Sgd::default() };
        let builder = Trainer::builder(network).optimizer(sgd).schedule(schedule).batch_size(8);
        let mut trainer = builder.build().unwrap();
        for steps in 0..10 {
            let rate = trainer.optimizer().learning_rate();
            assert_eq!(rate, 0.2 * schedule.factor(steps), "{schedule:?}, {steps} steps");
            // Plain SGD: the step is the learning rate times the gradient at the same weights.
            let mut unscheduled = Trainer::builder(trainer.network().clone())
                .optimizer(Sgd::default())
                .build()
                .unwrap();
            let before = trainer.network().layer(0).unwrap().weights().into_owned();
            let batch = data.subset(&[0, 1, 2]).unwrap();
            trainer.step(&batch.inputs(), batch.targets()).unwrap();
            unscheduled.step(&batch.inputs(), batch.targets()).unwrap();
            let step =
                |trainer: &Trainer<f32>| trainer.network().layer(0).unwrap().weights() - &before;
            let expected = step(&unscheduled) * f32::of(rate / 0.1);
            assert_relative_eq!(step(&trainer), expected, epsilon = 1e-6);
        }
        assert_eq!(trainer.epoch(&data).unwrap().learning_rate, 0.2 * schedule.factor(10));
        assert_eq!(trainer.optimizer().steps(), 15);
        // After the end of a cosine the weights stand still.
        if let Decay::Cosine { .. } = schedule.decay {
            let before = trainer.network().clone();
            trainer.epoch(&data).unwrap();
            assert_eq!(*trainer.network(), before);
        }
    }
}

/// Some columns of a matrix, some rows of a larger one, a single vector and a slice go in as they are.
#[test]
fn inputs_are_views() {
    let network = Network::<f64>::builder(3).dense(4).dropout(0.2).tanh().dense(2).build().unwrap();
    let all = DMatrix::from_fn(5, 9, |i, j| ((i * 7 + j * 5) % 11) as f64 / 5.0 - 1.0);
    let (view, copy) = (all.view((1, 2), (3, 6)), all.view((1, 2), (3, 6)).into_owned());
    assert_eq!(network.predict(view).unwrap(), network.predict(&copy).unwrap());
    let labels = [0, 1, 1, 0, 1, 0];
    let trainer = || Trainer::builder(network.clone()).build().unwrap();
    let (mut by_view, mut by_copy) = (trainer(), trainer());
    let step = by_view.step(view, &labels).unwrap();
    assert_eq!(step, by_copy.step(&copy, &labels).unwrap());
    assert_eq!(by_view.network(), by_copy.network());
    assert_eq!(by_view.predict_classes(view).unwrap(), by_copy.predict_classes(&copy).unwrap());

    let first = copy.column(0).into_owned();
    let expected = network.predict(copy.columns(0, 1)).unwrap();
    assert_eq!(network.predict(&first).unwrap(), expected);
    let slice = nalgebra::DMatrixView::from_slice(&copy.as_slice()[..3], 3, 1);
    assert_eq!(network.predict(slice).unwrap(), expected);

    // What is wrong in a view is found where it is in the view.
    let mut wrong = all.clone();
    wrong[(2, 7)] = f64::NAN;
    let refused = network.predict(wrong.view((1, 2), (3, 6))).unwrap_err();
    assert!(matches!(refused, Error::NonFinite { row: 1, column: 5, .. }), "{refused}");
    let refused = by_view.step(wrong.view((1, 2), (3, 6)), &labels).unwrap_err();
    assert!(matches!(refused, Error::NonFinite { row: 1, column: 5, .. }), "{refused}");
}
