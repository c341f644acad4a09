//! A walk through the public surface with numbers that nobody should pass: nothing panics, nothing
//! aborts, nothing takes memory without bound, and what is said to have worked is finite.

use feedback_alignment::{
    Activation, Activations, Adam, AdamW, AvgPool2d, Conv2d, Dataset, Decay, Deltas, Diagnostics,
    EarlyStopping, FastGradientSign, Feedback, FeedbackInit, FeedbackRule, GradientCheck,
    Gradients, Init, Loss, MaxPool2d, Momentum, Network, NetworkBuilder, Optimizer, OptimizerState,
    Part, Plateau, Result, RmsProp, Route, Scalar, Scaling, Schedule, Sgd, Shape, StoppingRule,
    Trainer, WeightDecay,
    data::{Augmentation, Flip, Whitening},
    nalgebra::{DMatrix, DVector},
    rand::{SeedableRng, rngs::Xoshiro256PlusPlus},
};

/// Sizes: what fits, what cannot be counted, and what no memory holds.
const SIZES: [usize; 7] = [0, 1, 2, 3, 1 << 48, usize::MAX / 2, usize::MAX];

const NUMBERS: [f64; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.0 - 1e-9,
    5e-324,
    1e-310,
    f64::MIN_POSITIVE,
    1e-46,
    1e38,
    3.5e38,
    1e39,
    f64::MAX,
    f64::MIN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

fn network() -> Network<f32> {
    let conv = Conv2d { padding: (1, 1), ..Conv2d::new(2, 3) };
    let builder = Network::builder((1, 4, 4)).conv2d(conv).batch_norm().tanh();
    builder.max_pool2d(MaxPool2d::new(2, 2)).dropout(0.1).dense(3).build().unwrap()
}

/// Uses a network that was built after all: it works or says why not.
fn use_network(network: &Network<f32>) {
    if network.input_len() > 1 << 20 {
        return;
    }
    let x = DMatrix::from_element(network.input_len(), 2, 0.5);
    if let Ok(logits) = network.predict(&x) {
        assert!(logits.iter().all(|z| z.is_finite()));
    }
    let builder = Trainer::builder(network.clone()).loss(Loss::MeanSquaredError);
    let y = DMatrix::from_element(network.output_len(), 2, 0.25);
    if let Ok(mut trainer) = builder.threads(1).build()
        && let Ok(step) = trainer.step(&x, &y)
    {
        assert!(step.loss.is_finite());
        assert!(trainer.network().predict(&x).is_ok());
    }
    let _ = network.to_string();
}

fn build(builder: NetworkBuilder<f32>) {
    if let Ok(network) = builder.build() {
        use_network(&network);
    }
}

#[test]
fn sizes_of_networks() {
    for a in SIZES {
        build(Network::builder(a).dense(2));
        build(Network::builder(2).dense(a).tanh().dense(2));
        build(Network::builder(2).dense_without_bias(a).batch_norm().dense(2));
        let shape = Shape::from((a, a, 1));
        assert!(shape.len() == shape.channels.saturating_mul(a) && !shape.to_string().is_empty());
        for b in SIZES {
            build(Network::builder((a, b, 2)).dense(2));
            build(Network::builder((1, a, b)).batch_norm().dense(1));
            for c in [0, 1, 3, usize::MAX] {
                let shape = Shape::from((a, b, c));
                let _ = (shape.len(), shape.to_string());
                let conv =
                    Conv2d { kernel: (1, c), stride: (a, 1), padding: (b, 0), ..Conv2d::new(2, 1) };
                build(Network::builder((1, 4, 4)).conv2d(conv).tanh().dense(2));
                let conv = Conv2d { kernel: (a, b), padding: (c, c), ..Conv2d::new(2, 1) };
                build(Network::builder((1, 4, 4)).conv2d(conv).dense(2));
                let conv = || Network::builder((1, 4, 4)).conv2d(Conv2d::new(2, 1));
                build(conv().max_pool2d(MaxPool2d { kernel: (a, 1), stride: (b, c) }).dense(2));
                build(conv().avg_pool2d(AvgPool2d { kernel: (1, a), stride: (c, b) }).dense(2));
            }
        }
        build(Network::builder((1, 4, 4)).conv2d(Conv2d::new(a, 2)).dense(1));
    }
    for size in [usize::MAX, 1 << 62] {
        build(Network::builder((1, 1, 1)).conv2d(Conv2d::new(size, 1)).dense(1));
    }
    // There is a single row of windows, so the stride downwards is never taken.
    let tall = Conv2d { stride: (usize::MAX, 1), padding: (2, 2), ..Conv2d::new(1, 3) };
    assert!(Network::<f32>::builder((1, 3, 3)).conv2d(tall).dense(1).build().is_ok());
    build(Network::builder(3));
    build(Network::builder(3).tanh().dense(2));
    build(Network::builder(3).dense(2).tanh());
    // Steps beyond every count, where windows do fit.
    let pool = MaxPool2d { kernel: (2, 2), stride: (usize::MAX, usize::MAX) };
    build(Network::builder((1, 4, 4)).conv2d(Conv2d::new(2, 1)).max_pool2d(pool).dense(2));
}

/// Sizes of the image, the kernel, the stride and the padding, along one side and along both. Each network is
/// built or refused at once, so no loop may run up to such a size.
#[test]
fn convolutions_with_huge_sides() {
    const HUGE: usize = 1 << 40;
    const LARGE: usize = 1 << 24;
    for (size, kernel, stride, padding) in [
        (3, 2, LARGE, 1),
        (3, LARGE, LARGE, LARGE - 1),
        (HUGE, 1, HUGE, 0),
        (HUGE, HUGE, 1, 0),
        (LARGE, LARGE, LARGE, 0),
        (1, usize::MAX, 1, usize::MAX / 2),
        (1, 1, usize::MAX, usize::MAX / 2),
        (1 << 62, 1 << 62, 1, 0),
    ] {
        for across in [false, true] {
            let pair = |side: usize, none: usize| (side, if across { side } else { none });
            let (height, width) = pair(size, 1);
            let conv = Conv2d {
                kernel: pair(kernel, 1),
                stride: pair(stride, 1),
                padding: pair(padding, 0),
                ..Conv2d::new(1, 1)
            };
            build(Network::builder((1, height, width)).conv2d(conv).dense(2));
        }
    }
}

#[test]
fn settings_of_layers_and_initial_weights() {
    for a in NUMBERS {
        let builder = || Network::builder(3).dense(4);
        build(builder().leaky_relu(a).dense(2));
        build(builder().elu(a).dense(2));
        build(builder().dropout(a).dense(2));
        build(builder().init(Init::Uniform { bound: a }).tanh().dense(2));
        build(builder().init(Init::Normal { std: a }).relu().dense(2));
        for b in NUMBERS {
            build(builder().batch_norm_with(a, b).dense(2));
        }
        for f in Activation::all()
            .chain([Activation::LeakyRelu { slope: a }, Activation::Elu { alpha: a }])
        {
            for at in NUMBERS {
                let _ = (f.value(at), f.derivative(at), f.to_string());
                let _ = (f.value(f32::of(at)), f.derivative(f32::of(at)));
            }
        }
    }
}

#[test]
fn settings_of_optimizers_and_trainers() {
    let network = network();
    let x = DMatrix::from_element(16, 2, 0.5);
    for a in NUMBERS {
        for b in [0.9, 0.0, 1.0, 5e-324, 1e39, f64::NAN, f64::INFINITY] {
            let sgd = Sgd { learning_rate: a, ..Sgd::default() };
            let optimizers: [Optimizer; 9] = [
                sgd.into(),
                Sgd { momentum: Momentum::Classical(b), ..sgd }.into(),
                Sgd { momentum: Momentum::Nesterov(b), ..sgd }.into(),
                Sgd { weight_decay: WeightDecay::L2(b), ..sgd }.into(),
                Sgd { weight_decay: WeightDecay::Decoupled(b), ..sgd }.into(),
                RmsProp { learning_rate: a, epsilon: b, ..RmsProp::default() }.into(),
                RmsProp { decay: a, epsilon: b, ..RmsProp::default() }.into(),
                Adam { learning_rate: a, beta1: b, ..Adam::default() }.into(),
                AdamW { weight_decay: a, adam: Adam { beta2: b, ..Adam::default() } }.into(),
            ];
            for optimizer in optimizers {
                let builder = Trainer::builder(network.clone()).optimizer(optimizer).threads(1);
                let Ok(mut trainer) = builder.max_norm(1.0).build() else { continue };
                let before = trainer.network().clone();
                match trainer.step(&x, &[0, 2]) {
                    Ok(step) => {
                        assert!(step.loss.is_finite());
                        let moved = trainer.network();
                        let weights = moved.layer(0).unwrap().weights();
                        assert!(weights.iter().all(|w| w.is_finite()), "{optimizer:?}");
                    }
                    Err(_) => assert_eq!(*trainer.network(), before, "{optimizer:?}"),
                }
                let _ = (trainer.set_learning_rate(b), trainer.set_max_norm(Some(b)));
                let _ = (trainer.set_adversarial(Some(b)), trainer.step(&x, &[1, 1]));
            }
            let stopping = StoppingRule { momentum: a, threshold: b };
            let _ = Trainer::builder(network.clone()).stopping(stopping).build();
            let decays = [0, 1, u64::MAX].map(|every| {
                [
                    Decay::Step { every, factor: a },
                    Decay::Exponential { every, factor: a },
                    Decay::Cosine { steps: every },
                ]
            });
            for decay in decays.into_iter().flatten() {
                for warm_up in [0, 1, u64::MAX] {
                    let schedule = Schedule { warm_up, decay };
                    let _ = [0, 1, u64::MAX].map(|steps| schedule.factor(steps));
                    let _ = Trainer::builder(network.clone()).schedule(schedule).build();
                }
            }
        }
        let _ = FastGradientSign::new(&network, a);
        let _ = Diagnostics::new(&network).unwrap().with_saturation(a);
        let check = GradientCheck { step: a, entries: 3 };
        let _ = check.run(&network, Loss::SoftmaxCrossEntropy, &x, &[0, 1]);
        for init in [FeedbackInit::Uniform { bound: a }, FeedbackInit::Normal { std: a }] {
            for rule in FeedbackRule::all() {
                let _ = Feedback::new(&network, rule, init, u64::MAX);
            }
        }
        let mut stopping = EarlyStopping::new(1).unwrap();
        let _ = (stopping.observe(&network, a), stopping.is_finished());
    }
    for size in SIZES {
        let _ = Trainer::builder(network.clone()).batch_size(size).build();
        let mut trainer = Trainer::builder(network.clone()).threads(1).build().unwrap();
        let _ = (trainer.set_batch_size(size), trainer.freeze(size), trainer.release(size));
        if size == 0 || size > 1024 {
            assert!(trainer.set_threads(size).is_err());
            assert!(Trainer::builder(network.clone()).threads(size).build().is_err());
        }
        let data = Dataset::new(DMatrix::from_element(16, 6, 0.5), vec![1; 6]).unwrap();
        let _ = (trainer.epoch(&data), trainer.top_k_error(&data, size));
        let _ = EarlyStopping::<f32>::new(size as u64);
        let _ = (data.split_stratified(size, 1), data.folds(size, 1).map(Iterator::count));
        let check = GradientCheck { entries: size, ..GradientCheck::default() };
        let _ = check.run(&network, Loss::LogisticCrossEntropy, &x, &[0, 1]);
    }
}

/// Matrices of wrong shapes, without rows or columns, and of numbers that are none.
fn matrices() -> Vec<DMatrix<f32>> {
    let mut matrices: Vec<_> =
        [(0, 0), (0, 3), (16, 0), (16, 1), (16, 3), (3, 16), (1, 1), (17, 2)]
            .map(|(rows, columns)| DMatrix::from_element(rows, columns, 0.5))
            .to_vec();
    let bad = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, f32::MIN, 1e-45, 1e20, -1e30];
    matrices.extend(bad.map(|number| {
        let mut matrix = DMatrix::from_element(16, 3, 0.5);
        matrix[(7, 1)] = number;
        matrix
    }));
    matrices
}

#[test]
fn matrices_labels_and_indices() {
    let network = network();
    let labels = [vec![], vec![0; 3], vec![3; 3], vec![usize::MAX; 3], vec![1]];
    for x in matrices() {
        for labels in &labels {
            let mut trainer = Trainer::builder(network.clone()).threads(1).build().unwrap();
            match trainer.step(&x, labels) {
                Ok(step) => assert!(step.loss.is_finite()),
                Err(_) => assert_eq!(*trainer.network(), network),
            }
            let mut diagnostics = Diagnostics::new(&network).unwrap();
            let _ = diagnostics.observe(&trainer, &x, labels);
            let mut attack = FastGradientSign::new(&network, 0.1).unwrap();
            let _ = attack.perturb(&network, Loss::SoftmaxCrossEntropy, &x, labels);
            let _ = attack.input_gradient(&network, Loss::MeanSquaredError, &x, labels);
            let _ = GradientCheck::default().run(&network, Loss::default(), &x, labels);
            if let Ok(data) = Dataset::new(x.clone(), labels.clone()) {
                let _ = (data.classes(), data.split(usize::MAX, 1), data.split(0, 1));
                let _ = (
                    data.labels(),
                    data.split_stratified(1, 1),
                    data.folds(2, 1).map(Iterator::count),
                );
                let _ = (data.subset(&[]), data.subset(&[usize::MAX]), trainer.epoch(&data));
                if let Ok(evaluation) = trainer.evaluate(&data) {
                    assert!(evaluation.loss.is_finite());
                }
                let _ = (Scaling::min_max(&data), Scaling::min_max_per_feature(&data));
                let _ = Whitening::fit(&data, 1e-5, |_| ());
                let _ = SIZES.map(|n| Scaling::standardize_per_channel(&data, n).is_ok());
                for scaling in [Scaling::standardize(&data), Scaling::constant(1e30, 1e-30)] {
                    let Ok(scaling) = scaling else { continue };
                    if let Ok(scaled) = data.clone().scaled(&scaling) {
                        assert!(scaled.inputs().iter().all(|x| x.is_finite()));
                    }
                }
            }
            let _ = Dataset::<f32>::from_bytes(x.nrows(), vec![7; x.len()], labels.clone());
        }
        for y in matrices() {
            let _ = Dataset::with_values(x.clone(), &y);
            let mut trainer = Trainer::builder(network.clone()).threads(1).build().unwrap();
            let _ = trainer.step(&x, &y);
        }
        for loss in Loss::all() {
            if let Ok(y) = loss.probabilities(&x) {
                assert!(y.iter().all(|y| (0.0..=1.0).contains(y)));
            }
            let _ = loss.classes(&x);
        }
        if let Ok(logits) = network.predict(&x) {
            assert!(logits.iter().all(|z| z.is_finite()));
        }
        let mut changed = network.clone();
        for layer in SIZES {
            let _ = changed.layer(layer).is_ok();
            let vector = DVector::from_column_slice(x.as_slice());
            let _ = changed.set_weights(layer, x.clone());
            let _ = changed.set_bias(layer, vector.clone());
            for part in [Part::Weights, Part::Bias, Part::Scale, Part::RunningVariance] {
                let _ = changed.set_parameter(layer, part, vector.as_slice());
                let _ = changed.parameters().get(layer, part);
            }
            let mut feedback =
                Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::Nokland, 1).unwrap();
            let _ = (feedback.matrix(layer).is_ok(), feedback.set_matrix(layer, x.clone()));
        }
        assert_eq!(changed, network);
        let _ = Feedback::from_matrices(&network, FeedbackRule::Dfa, vec![x.clone(), x.clone()]);
        let images = [(0, 0, 0), (1, 4, 4), (usize::MAX, 2, 2), (1, usize::MAX, usize::MAX)];
        for (shape, crop_padding) in images.into_iter().flat_map(|s| SIZES.map(|p| (s, p))) {
            let augmentation = Augmentation { shape, flip: Flip::Horizontal, crop_padding };
            let _ = augmentation.augment(1, 2, &[0, 1, usize::MAX], &mut x.clone());
            let builder = Trainer::builder(network.clone()).augmentation(augmentation);
            let _ = builder.build().and_then(|mut t| t.set_augmentation(Some(augmentation)));
        }
    }
    let shape = (2, usize::MAX / 2 + 1, 2);
    let augmentation = Augmentation { shape, flip: Flip::Never, crop_padding: 0 };
    let mut none = DMatrix::<f32>::zeros(usize::MAX, 0);
    assert!(augmentation.augment(1, 2, &[], &mut none).is_err());
    let normal = feedback_alignment::rand_distr::Normal::new(0.0, 1e38).unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let _ = Feedback::sample(&network, FeedbackRule::Dfa, &normal, &mut rng);
}

/// Stages in any order, with scratch of anything.
#[test]
fn stages_out_of_order() {
    let networks = [network(), Network::builder(2).dense(1).build().unwrap()];
    let scratch = || -> Vec<(Activations<f32>, Deltas<f32>, Gradients<f32>)> {
        let mut all = vec![(Activations::new(), Deltas::new(), Gradients::new())];
        for network in &networks {
            let mut activations = Activations::seeded(u64::MAX);
            let x = DMatrix::from_element(network.input_len(), 2, 0.5);
            network.forward(&x, &mut activations).unwrap();
            let mut deltas = Deltas::new();
            Loss::LogisticCrossEntropy.error(&[0, 1], &activations, &mut deltas).unwrap();
            all.push((activations, deltas, Gradients::new()));
        }
        all
    };
    for network in &networks {
        for other in &networks {
            for (a, (activations, ..)) in scratch().iter().enumerate() {
                for (d, (_, mut deltas, mut gradients)) in scratch().into_iter().enumerate() {
                    let feedback =
                        Feedback::new(other, FeedbackRule::Ifa, FeedbackInit::Nokland, 1).unwrap();
                    let mut optimizer = OptimizerState::new(other, Sgd::default()).unwrap();
                    let mut copy = network.clone();
                    let results: [Result<()>; 5] = [
                        feedback.deliver(network, activations, &mut deltas),
                        network.gradients(activations, &deltas, &mut gradients),
                        optimizer.step(&mut copy, &gradients),
                        optimizer.learn(&mut copy, activations, &deltas),
                        optimizer.deliver_and_learn(&mut copy, &feedback, activations, &mut deltas),
                    ];
                    // Only what belongs together works, and scratch of two calls never does.
                    assert!(results.iter().all(Result::is_err), "{a}, {d}");
                    for layer in SIZES {
                        let _ = (activations.pre_activation(layer), activations.output(layer));
                        let _ = (deltas.delta(layer), gradients.weights(layer));
                        let _ = (gradients.bias(layer), gradients.get(layer, Part::Scale));
                    }
                    let _ = (activations.logits(), activations.batch());
                }
            }
        }
    }
}

#[test]
fn scores_and_settings_of_a_plateau() {
    for a in NUMBERS {
        for b in NUMBERS {
            for patience in [0, 1, u64::MAX] {
                let Ok(plateau) = Plateau::new(a, patience) else { continue };
                let _ = (plateau.with_factor(b), plateau.with_threshold(b), plateau.with_lowest(b));
                let mut plateau = plateau.with_factor(0.5).unwrap();
                for score in NUMBERS {
                    if let Ok(Some(rate)) = plateau.observe(score) {
                        assert!(rate > 0.0 && rate <= a);
                    }
                    let _ = plateau.observe(b);
                }
            }
        }
    }
}

#[test]
fn names_that_are_none() {
    assert!("1099511627776:".parse::<Route>().is_err());
    for text in ["", " ", "\0", "BP ", "softmax\n", "ReLU\u{301}", &"x".repeat(100_000)] {
        assert!(text.parse::<FeedbackRule>().is_err());
        assert!(text.parse::<Loss>().is_err());
        assert!(text.parse::<Activation>().is_err());
    }
    for rule in FeedbackRule::all() {
        let _ = [0, 1, 2, 3, 1 << 16].map(|layers| rule.route(layers).unwrap());
        assert!(
            [(1 << 16) + 1, usize::MAX].map(|layers| rule.route(layers)).iter().all(Result::is_err)
        );
    }
}
