//! Checkpoints: training that goes on from one is the training that was never interrupted.

use crate::{craft, helpers::optimizers};

use std::{
    fs,
    path::{Path, PathBuf},
};

use craft::{Craft, Tensor};
use feedback_alignment::{
    Adam, AvgPool2d, Conv2d, Dataset, Decay, Epoch, Error, Feedback, FeedbackInit, FeedbackRule,
    Loss, MaxPool2d, Momentum, Network, NetworkBuilder, Optimizer, RmsProp, Scalar, Schedule, Sgd,
    StoppingRule, Trainer, TrainerBuilder,
    data::{Augmentation, Flip},
    nalgebra::DMatrix,
};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

/// Images of 1 × 4 × 4, of three classes.
fn data<T: Scalar>() -> Dataset<T> {
    let x = DMatrix::from_fn(16, 22, |i, j| T::of(((i * 5 + j * j * 3) % 13) as f64 / 8.0 - 0.7));
    Dataset::new(x, (0..22).map(|j| j * j % 3).collect()).unwrap()
}

fn networks<T: Scalar>() -> [NetworkBuilder<T>; 3] {
    [
        Network::builder(16).dropout(0.1).dense(6).tanh().dropout(0.4).dense(5).relu().dense(3),
        Network::builder(16).dense(7).batch_norm().elu(0.8).dense_without_bias(4).tanh().dense(3),
        Network::builder((1, 4, 4))
            .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(2, 3) })
            .batch_norm()
            .tanh()
            .dropout(0.2)
            .max_pool2d(MaxPool2d::new(2, 1))
            .conv2d(Conv2d::new(3, 2))
            .softplus()
            .avg_pool2d(AvgPool2d::new(2, 2))
            .dense(4)
            .logistic()
            .dense(3),
    ]
}

/// Everything on.
fn full<T: Scalar>(network: NetworkBuilder<T>) -> TrainerBuilder<T> {
    let augmentation = Augmentation { shape: (1, 4, 4), flip: Flip::Horizontal, crop_padding: 1 };
    Trainer::builder(network.seed(2).build().unwrap())
        .feedback_init(FeedbackInit::Lillicrap)
        .loss(Loss::LogisticCrossEntropy)
        .class_weights([0.5, 0.1 + 0.2, 2.0])
        .schedule(Schedule { warm_up: 3, decay: Decay::Exponential { every: 5, factor: 0.8 } })
        .max_norm(1.3)
        .batch_size(6)
        .seed(11)
        .stopping(StoppingRule { momentum: 0.6, threshold: 0.5 })
        .augmentation(augmentation)
        .adversarial(0.05)
}

/// All that lasts, to the bit; and the file that would be saved.
fn state<T: Scalar>(trainer: &Trainer<T>, folder: &TempDir) -> (String, Vec<u8>) {
    let path = folder.path().join("state");
    trainer.save(&path).unwrap();
    let (network, feedback) = (trainer.network(), trainer.feedback());
    let (steps, rate) = (trainer.optimizer().steps(), trainer.optimizer().learning_rate());
    let done = (trainer.epochs(), trainer.is_finished(), trainer.loss());
    (format!("{network:?} {feedback:?} {steps} {rate:?} {done:?}"), fs::read(path).unwrap())
}

fn save_and_load<T: Scalar>(trainer: &Trainer<T>, folder: &TempDir) -> Trainer<T> {
    let path = folder.path().join("run");
    trainer.save(&path).unwrap();
    Trainer::load(&path).unwrap()
}

fn every_rule_and_optimizer<T: Scalar>() {
    let (folder, data) = (tempdir().unwrap(), data::<T>());
    for network in networks::<T>() {
        // Without feedback batch normalisation is refused.
        for rule in FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow) {
            for optimizer in optimizers() {
                let builder = full(network.clone()).rule(rule).optimizer(optimizer);
                let mut whole = builder.build().unwrap();
                let mut resumed = save_and_load(&whole, &folder);
                for _ in 0..3 {
                    assert_eq!(resumed.epoch(&data).unwrap(), whole.epoch(&data).unwrap());
                    resumed = save_and_load(&resumed, &folder);
                }
                assert_eq!(whole.optimizer().steps(), 12);
                let (whole, resumed) = (state(&whole, &folder), state(&resumed, &folder));
                assert!(whole == resumed, "{rule}, {optimizer:?}");
            }
        }
    }
}

#[test]
fn training_goes_on_as_if_never_interrupted_under_every_rule_and_optimizer() {
    every_rule_and_optimizer::<f32>();
    every_rule_and_optimizer::<f64>();
}

/// What is done with a trainer, one after the other.
#[derive(Clone, Copy, Debug)]
enum Action {
    Epoch,
    /// Single steps on so many samples each.
    Steps(usize, usize),
    Switch(FeedbackRule),
    Redraw,
    Evaluate,
}

fn act(trainer: &mut Trainer<f32>, action: Action, data: &Dataset<f32>) -> Vec<Epoch> {
    match action {
        Action::Epoch => return vec![trainer.epoch(data).unwrap()],
        Action::Steps(count, samples) => {
            for step in 0..count {
                let indices: Vec<usize> = (0..samples).map(|i| (step * 3 + i) % 22).collect();
                let batch = data.subset(&indices).unwrap();
                trainer.step(&batch.inputs(), batch.targets()).unwrap();
            }
        }
        Action::Switch(rule) => trainer.set_rule(rule).unwrap(),
        Action::Redraw => {
            let rule = trainer.feedback().rule().unwrap();
            let init = FeedbackInit::Normal { std: 0.3 };
            let feedback = Feedback::new(trainer.network(), rule, init, 77).unwrap();
            trainer.set_feedback(feedback).unwrap();
        }
        Action::Evaluate => drop(trainer.evaluate(data).unwrap()),
    }
    Vec::new()
}

fn rules() -> impl Strategy<Value = FeedbackRule> {
    let rules = FeedbackRule::all().filter(|&rule| rule != FeedbackRule::Shallow);
    prop::sample::select(rules.collect::<Vec<_>>())
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Epoch),
        3 => (1..5_usize, 2..9_usize).prop_map(|(count, samples)| Action::Steps(count, samples)),
        1 => rules().prop_map(Action::Switch),
        1 => Just(Action::Redraw),
        1 => Just(Action::Evaluate),
    ]
}

/// Trainers of all kinds.
fn trainers() -> impl Strategy<Value = Trainer<f32>> {
    let feedback_init = prop_oneof![
        Just(FeedbackInit::Nokland),
        Just(FeedbackInit::LightOn),
        (0.01..1.0).prop_map(|bound| FeedbackInit::Uniform { bound }),
    ];
    let decay = prop_oneof![
        Just(Decay::Constant),
        (1..9_u64, 0.1..1.0).prop_map(|(every, factor)| Decay::Step { every, factor }),
        (1..9_u64, 0.1..1.0).prop_map(|(every, factor)| Decay::Exponential { every, factor }),
        (1..30_u64).prop_map(|steps| Decay::Cosine { steps }),
    ];
    let schedule = (0..6_u64, decay).prop_map(|(warm_up, decay)| Schedule { warm_up, decay });
    let loss = (0..3_usize).prop_map(|index| Loss::all().nth(index).unwrap());
    let stopping =
        (0.0..1.0, 0.0..1.0).prop_map(|(momentum, threshold)| StoppingRule { momentum, threshold });
    let augmentation = (any::<bool>(), 0..3_usize).prop_map(|(flips, crop_padding)| {
        let flip = if flips { Flip::Horizontal } else { Flip::Never };
        Augmentation { shape: (1, 4, 4), flip, crop_padding }
    });
    let fixed = (0..3_usize, rules(), 0..8_usize, loss, feedback_init, schedule);
    let options = (
        prop::option::of(0.1..2.0),
        prop::option::of(0.0..0.2),
        prop::option::of(stopping),
        prop::option::of(augmentation),
    );
    let sizes = (2..12_usize, any::<u64>());
    (fixed, options, sizes).prop_map(|(fixed, options, (batch_size, seed))| {
        let (network, rule, optimizer, loss, feedback_init, schedule) = fixed;
        let network = networks()[network].clone().seed(seed).build().unwrap();
        let mut builder = Trainer::builder(network)
            .rule(rule)
            .optimizer(optimizers()[optimizer])
            .loss(loss)
            .feedback_init(feedback_init)
            .schedule(schedule)
            // 22 samples leave no last batch of one, which batch normalisation refuses.
            .batch_size(if batch_size == 3 || batch_size == 7 { 5 } else { batch_size })
            .seed(seed);
        let (max_norm, adversarial, stopping, augmentation) = options;
        if let Some(bound) = max_norm {
            builder = builder.max_norm(bound);
        }
        if let Some(epsilon) = adversarial {
            builder = builder.adversarial(epsilon);
        }
        if let Some(rule) = stopping {
            builder = builder.stopping(rule);
        }
        if let Some(augmentation) = augmentation {
            builder = builder.augmentation(augmentation);
        }
        builder.build().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_not_matter_where_training_is_interrupted(
        mut whole in trainers(),
        plan in prop::collection::vec((actions(), any::<bool>()), 1..8),
    ) {
        let (folder, data) = (tempdir().unwrap(), data());
        let mut resumed = whole.clone();
        for &(action, interrupted) in &plan {
            if interrupted {
                resumed = save_and_load(&resumed, &folder);
            }
            prop_assert_eq!(act(&mut resumed, action, &data), act(&mut whole, action, &data));
        }
        resumed = save_and_load(&resumed, &folder);
        prop_assert_eq!(resumed.optimizer(), whole.optimizer());
        prop_assert!(state(&resumed, &folder) == state(&whole, &folder));
    }
}

/// For loops of one's own: the place within an epoch is the number of steps made.
#[test]
fn a_run_by_single_steps_goes_on_in_the_middle_of_an_epoch() {
    let (folder, data) = (tempdir().unwrap(), data::<f32>());
    let build = || {
        let network = networks()[0].clone().build().unwrap();
        Trainer::builder(network).batch_size(6).seed(3).build().unwrap()
    };
    let mut whole = build();
    whole.epoch(&data).unwrap();
    whole.epoch(&data).unwrap();
    for interruption in 0..8 {
        let mut trainer = build();
        for _ in 0..2 {
            let per_epoch = 4;
            let epoch = trainer.optimizer().steps() / per_epoch;
            for batch in data.batches(6, 3, epoch).unwrap() {
                if trainer.optimizer().steps() == interruption {
                    trainer = save_and_load(&trainer, &folder);
                }
                trainer.step(batch.inputs(), batch.targets()).unwrap();
            }
        }
        assert_eq!(format!("{:?}", trainer.network()), format!("{:?}", whole.network()));
    }
}

#[test]
fn the_same_state_makes_the_same_file_and_says_what_it_is() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("run");
    let network = Network::<f32>::builder(16).dense(4).batch_norm().tanh().dense(3);
    let mut trainer =
        full(network).rule(FeedbackRule::Fa).optimizer(Adam::default()).build().unwrap();
    trainer.epoch(&data()).unwrap();
    trainer.save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    trainer.clone().save(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let file = Craft::open(&path);
    let learned = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"];
    let mut names: Vec<String> = learned.map(String::from).to_vec();
    names.extend(["1.running_mean", "1.running_var", "feedback.0"].map(String::from));
    for moment in ["first_moment", "second_moment"] {
        names.extend(learned.map(|name| format!("{moment}.{name}")));
    }
    names.sort();
    assert_eq!(file.tensors.keys().cloned().collect::<Vec<_>>(), names);
    let matrix = trainer.feedback().matrix(0).unwrap().unwrap().transpose();
    assert_eq!(file.tensors["feedback.0"], Tensor::of(&[4, 3], matrix.as_slice()));
    let mut lines: Vec<&str> = file.description.lines().skip(2).collect();
    let running: f64 = {
        let start = lines[1].find("running_error=").unwrap();
        lines[1][start + 14..].parse().unwrap()
    };
    assert!(running < 1.0);
    let trainer = format!(
        "trainer rule=FA loss=logistic batch_size=6 drop_last=no seed=11 epochs=1 steps=4 running_error={running:?}"
    );
    assert_eq!(lines.remove(1), trainer);
    assert_eq!(
        lines,
        [
            "kind checkpoint",
            "feedback init=lillicrap",
            "optimizer name=adam learning_rate=0.001 beta1=0.9 beta2=0.999 epsilon=1e-8",
            "schedule warm_up=3 decay=exponential every=5 factor=0.8",
            "max-norm bound=1.3",
            "class-weight class=0 weight=0.5",
            "class-weight class=1 weight=0.30000000000000004",
            "class-weight class=2 weight=2.0",
            "adversarial epsilon=0.05",
            "stopping momentum=0.6 threshold=0.5",
            "augmentation shape=1x4x4 flip=horizontal crop_padding=1",
            "input shape=16x1x1",
            "dense outputs=4 bias=with",
            "batch-norm momentum=0.1 epsilon=1e-5",
            "tanh",
            "dense outputs=3 bias=with",
        ]
    );
}

/// A good checkpoint, and where to write a bad one.
fn good(rule: FeedbackRule, optimizer: Optimizer, folder: &TempDir) -> (Craft, PathBuf) {
    let path = folder.path().join("run");
    let mut trainer =
        full(networks::<f32>()[2].clone()).rule(rule).optimizer(optimizer).build().unwrap();
    trainer.epoch(&data()).unwrap();
    trainer.save(&path).unwrap();
    (Craft::open(&path), path)
}

fn refusal(file: &Craft, path: &Path) -> Error {
    file.write(path);
    let error = Trainer::<f32>::load(path).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = tempdir().unwrap();
    let (file, path) = good(FeedbackRule::Dfa, Adam::default().into(), &folder);
    Trainer::<f32>::load(&path).unwrap();
    for name in
        ["0.weight", "1.running_var", "feedback.1", "first_moment.5.bias", "second_moment.1.bias"]
    {
        let mut bad = file.clone();
        bad.tensors.remove(name).unwrap();
        let error = refusal(&bad, &path);
        assert!(
            matches!(&error, Error::MissingTensor { expected, .. } if expected == name),
            "{error}"
        );

        let mut bad = file.clone();
        bad.tensors.get_mut(name).unwrap().shape.push(1);
        let error = refusal(&bad, &path);
        assert!(matches!(&error, Error::TensorShape { tensor, .. } if tensor == name), "{error}");

        let mut bad = file.clone();
        bad.tensors.get_mut(name).unwrap().dtype = safetensors::Dtype::I32;
        let error = refusal(&bad, &path);
        assert!(matches!(&error, Error::TensorType { tensor, .. } if tensor == name), "{error}");

        let mut bad = file.clone();
        bad.tensors.get_mut(name).unwrap().bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = refusal(&bad, &path);
        assert!(
            matches!(&error, Error::NonFinite { what, row: 0, column: 0, .. } if what.contains(name)),
            "{error}"
        );
        let mut bad = file.clone();
        bad.tensors.get_mut(name).unwrap().bytes[..4].copy_from_slice(&(-1_f32).to_le_bytes());
        if name == "1.running_var" || name.starts_with("second") {
            let error = refusal(&bad, &path);
            assert!(matches!(&error, Error::TensorValue { tensor, .. } if tensor == name));
        } else {
            bad.write(&path);
            Trainer::<f32>::load(&path).unwrap();
        }
    }
    for name in
        ["feedback.3", "feedback.00", "third_moment.0.weight", "first_moment.1.running_mean"]
    {
        let error = refusal(&file.clone().with(name, Tensor::of(&[1], &[0.0])), &path);
        assert!(matches!(&error, Error::UnexpectedTensor { tensor, .. } if tensor == name));
    }
    // The moment of RMSprop is a mean of squares, that of momentum is not.
    for (optimizer, is_square) in [
        (RmsProp::default().into(), true),
        (Sgd { momentum: Momentum::Classical(0.9), ..Sgd::default() }.into(), false),
    ] {
        let (mut bad, path) = good(FeedbackRule::Dfa, optimizer, &folder);
        let moment = bad.tensors.get_mut("first_moment.0.bias").unwrap();
        moment.bytes[..4].copy_from_slice(&(-1_f32).to_le_bytes());
        bad.write(&path);
        assert_eq!(Trainer::<f32>::load(&path).is_err(), is_square, "{optimizer:?}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let folder = tempdir().unwrap();
    let (file, path) = good(FeedbackRule::Dfa, Adam::default().into(), &folder);
    let refuse = |from: &str, to: &str| refusal(&file.clone().replace(from, to), &path);
    // Other matrices than the file has.
    for (rule, missing) in [("BP", ""), ("IFA", "")] {
        let error = refuse("rule=DFA", &format!("rule={rule}"));
        assert!(matches!(error, Error::UnexpectedTensor { .. }), "{missing}{error}");
    }
    let error = refuse("rule=DFA", "rule=FA");
    assert!(
        matches!(&error, Error::TensorShape { tensor, .. } if tensor == "feedback.0"),
        "{error}"
    );
    // Other moments than the file has.
    let adam = "optimizer name=adam learning_rate=0.001 beta1=0.9 beta2=0.999 epsilon=1e-8";
    let error = refuse(adam, "optimizer name=rmsprop learning_rate=0.001 decay=0.9 epsilon=1e-8");
    assert!(matches!(error, Error::UnexpectedTensor { .. }), "{error}");
    // Values that no trainer takes.
    for (from, to, expected) in [
        ("learning_rate=0.001", "learning_rate=0.0", "learning_rate is 0,"),
        ("learning_rate=0.001", "learning_rate=1e-60", "learning_rate is 0.000"),
        ("beta2=0.999", "beta2=1.0", "beta2 is 1,"),
        ("factor=0.8", "factor=NaN", "factor is NaN,"),
        ("every=5", "every=0", "every is 0,"),
        ("bound=1.3", "bound=-1.3", "max_norm is -1.3,"),
        ("class=2 weight=2.0", "class=2 weight=-2.0", "class weight is -2,"),
        ("class-weight class=2 weight=2.0\n", "", "3 × 1"),
        ("adversarial epsilon=0.05", "adversarial epsilon=-0.05", "epsilon is -0.05,"),
        ("momentum=0.6", "momentum=1.6", "momentum is 1.6,"),
        ("threshold=0.5", "threshold=-0.5", "threshold is -0.5,"),
        ("shape=1x4x4 flip", "shape=1x4x5 flip", "1 × 4 × 5"),
        ("crop_padding=1", "crop_padding=4", "crop_padding is 4,"),
        ("batch_size=6", "batch_size=0", "batch_size is 0,"),
        ("init=lillicrap", "init=uniform bound=-1.0", "bound is -1,"),
        ("dense outputs=3 bias=with\n", "dense outputs=3 bias=with\ntanh\n", "output layer"),
    ] {
        let error = refuse(from, to);
        assert!(matches!(error, Error::Content { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "'{error}' does not name '{expected}'");
    }
    for (from, to, line) in [
        ("seed=11", "seed=+11", 5),
        ("steps=4", "steps=9007199254740992", 5),
        ("feedback init=lillicrap\n", "", 6),
        ("max-norm bound=1.3\n", "max-norm bound=1.3\nmax-norm bound=1.3\n", 10),
        ("stopping momentum", "stepping momentum", 14),
        ("input shape", "inputs shape", 16),
    ] {
        let error = refuse(from, to);
        let found = matches!(error, Error::Description { line: found, .. } if found == line);
        assert!(found, "{from} → {to}: {error}");
    }
    // Softmax over one output, and weights that the rule cannot leave.
    let build = |outputs: usize| {
        let network = Network::<f32>::builder(2).dense(2).tanh().dense(outputs).build().unwrap();
        Trainer::builder(network).loss(Loss::LogisticCrossEntropy).build().unwrap()
    };
    build(1).save(&path).unwrap();
    let error = refusal(&Craft::open(&path).replace("loss=logistic", "loss=softmax"), &path);
    assert!(error.to_string().contains("softmax over a single output"), "{error}");
    build(2).save(&path).unwrap();
    let mut zero = Craft::open(&path).replace("rule=DFA", "rule=BP");
    zero.tensors.remove("feedback.0");
    zero.tensors.values_mut().for_each(|tensor| tensor.bytes.fill(0));
    let error = refusal(&zero, &path);
    assert!(error.to_string().contains("weights are zero"), "{error}");
}

#[test]
fn other_kinds_and_scalars_are_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file");
    let trainer = full(networks::<f32>()[0].clone()).build().unwrap();
    trainer.network().save(&path).unwrap();
    let error = Trainer::<f32>::load(&path).unwrap_err();
    assert!(matches!(error, Error::FileKind { expected: "checkpoint", .. }), "{error}");
    assert!(error.to_string().contains("a network"), "{error}");
    trainer.save(&path).unwrap();
    for error in [
        Network::<f32>::load(&path).unwrap_err(),
        trainer.network().clone().load_parameters(&path).unwrap_err(),
    ] {
        assert!(matches!(error, Error::FileKind { expected: "network", .. }), "{error}");
        assert!(error.to_string().contains("a checkpoint"), "{error}");
    }
    let error = Trainer::<f64>::load(&path).unwrap_err();
    assert!(matches!(error, Error::TensorType { expected: "f64", .. }), "{error}");
    let missing = folder.path().join("none/file");
    assert!(matches!(trainer.save(&missing), Err(Error::Io { .. })));
    assert!(matches!(Trainer::<f32>::load(&missing), Err(Error::Io { .. })));
}

/// Put another network in its place, and there is no run to go on with.
#[test]
fn a_trainer_whose_network_was_exchanged_is_not_saved() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("run");
    let conv = |kernel: usize| {
        let padding = (kernel / 2, kernel / 2);
        Network::<f32>::builder((1, 4, 4))
            .conv2d(Conv2d::new(2, 3))
            .tanh()
            .conv2d(Conv2d { padding, ..Conv2d::new(2, kernel) })
            .tanh()
            .dense(3)
    };
    let plain = || Network::<f32>::builder(16).dense(4).tanh().dense(3);
    let (sgd, adam) = (Optimizer::from(Sgd::default()), Optimizer::from(Adam::default()));
    for (own, other, optimizer) in [
        // Told by the feedback matrices, since this optimiser has no moments.
        (plain(), Network::builder(16).dense(5).tanh().dense(3), sgd),
        (conv(1), conv(3), sgd),
        // Told by the moments.
        (plain(), Network::builder(16).dense_without_bias(4).tanh().dense(3), adam),
        (plain(), Network::builder(16).dense(4).batch_norm().dense(3), adam),
    ] {
        let builder = Trainer::builder(own.build().unwrap()).rule(FeedbackRule::Fa);
        let mut trainer = builder.optimizer(optimizer).build().unwrap();
        trainer.save(&path).unwrap();
        let before = fs::read(&path).unwrap();
        *trainer.network_mut() = other.build().unwrap();
        let error = trainer.save(&path).unwrap_err();
        assert!(matches!(error, Error::StageMismatch { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let step = trainer.step(&data().subset(&[0, 1]).unwrap().inputs(), &[0, 1]);
        assert!(matches!(step, Err(Error::StageMismatch { .. } | Error::ShapeMismatch { .. })));
    }
}
