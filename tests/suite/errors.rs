//! Bad input: every case has its named error, whose message shows both sides, and nothing that
//! lasts has changed.

use feedback_alignment::{
    Activation, Activations, Adam, Dataset, Decay, Deltas, Error, Feedback, FeedbackInit,
    FeedbackRule, Gradients, Init, Loss, Momentum, Network, OptimizerState, RmsProp, Schedule, Sgd,
    StoppingRule, Trainer, WeightDecay,
    nalgebra::{DMatrix, DVector},
    rand::{SeedableRng, rngs::Xoshiro256PlusPlus},
    rand_distr::Cauchy,
};

/// Asserts that a result is an error of a pattern and that its message has all the parts: a list
/// of texts of any type, or a value that holds them.
macro_rules! assert_refused {
    ($result:expr, $pattern:pat, [$($part:expr),* $(,)?]) => {{
        let message = message_of!($result, $pattern);
        $(assert_names(&message, &$part);)*
    }};
    ($result:expr, $pattern:pat, $parts:expr) => {{
        let message = message_of!($result, $pattern);
        $parts.iter().for_each(|part| assert_names(&message, part));
    }};
}

macro_rules! message_of {
    ($result:expr, $pattern:pat) => {{
        let error = $result.err().expect("should be refused");
        assert!(matches!(error, $pattern), "{error:?}");
        error.to_string()
    }};
}

fn assert_names(message: &str, part: impl AsRef<str>) {
    let part = part.as_ref();
    assert!(message.contains(part), "'{message}' does not name '{part}'");
}

/// 2-3-2 with tanh, and what belongs to it.
fn network() -> Network<f64> {
    Network::builder(2).dense(3).tanh().dense(2).build().unwrap()
}

fn trainer() -> Trainer<f64> {
    Trainer::builder(network()).batch_size(2).build().unwrap()
}

/// Ones, which suit everything but the checks under test.
fn ones(rows: usize, columns: usize) -> DMatrix<f64> {
    DMatrix::from_element(rows, columns, 1.0)
}

fn data(features: usize, labels: &[usize]) -> Dataset<f64> {
    Dataset::new(ones(features, labels.len()), labels.to_vec()).unwrap()
}

/// All that lasts in a trainer, to the last bit: `Debug` tells every number from its neighbours.
fn state<T: feedback_alignment::Scalar>(trainer: &Trainer<T>) -> String {
    format!(
        "{:?} {:?} {:?} {}",
        trainer.network(),
        trainer.feedback(),
        trainer.optimizer(),
        trainer.epochs()
    )
}

/// Every error along `source()` is complete without the next, and the first says what is behind it.
fn assert_told_once(error: &(dyn std::error::Error + 'static), cause: &str) {
    let message = error.to_string();
    assert_eq!(message.matches(cause).count(), 1, "'{message}' does not name '{cause}' once");
    let mut chain = Some(error);
    while let Some(error) = chain {
        chain = error.source();
        if let Some(source) = chain {
            let (message, source) = (error.to_string(), source.to_string());
            assert!(!message.contains(&source), "'{message}' is followed by '{source}'");
        }
    }
}

#[test]
fn a_cause_is_told_once_by_those_who_print_an_error_and_all_behind_it() {
    let path = std::path::Path::new("nowhere").join("at all");
    let missing = feedback_alignment::data::idx::read::<f32>(&path).unwrap_err();
    let Error::Io { cause, .. } = &missing else { panic!("{missing}") };
    assert_told_once(&missing, &cause.to_string());

    let cause = network().layer(7).unwrap_err();
    let text = cause.to_string();
    let refused = Error::Content { path: path.clone(), cause: Box::new(cause) };
    assert_told_once(&refused, &text);
    assert_told_once(&Error::Content { path, cause: Box::new(refused) }, &text);

    #[cfg(feature = "safetensors")]
    {
        let folder = crate::common::Folder::new();
        let path = folder.write("damaged", b"\x02\0\0\0\0\0\0\0{]");
        let damaged = Network::<f32>::load(path).unwrap_err();
        let Error::Safetensors { reason, .. } = &damaged else { panic!("{damaged}") };
        assert!(reason.contains("header"), "{reason}");
        assert_told_once(&damaged, reason);
    }
}

#[test]
fn a_layer_without_units_is_named_by_number() {
    let refuse = |network: Result<Network<f32>, Error>, number: usize| {
        assert_refused!(network, Error::ZeroWidth { .. }, [format!("layer {number} ")]);
    };
    refuse(Network::builder(0).dense(2).build(), 0);
    refuse(Network::builder(2).dense(0).tanh().dense(2).build(), 1);
    refuse(Network::builder(2).dense(2).tanh().dense_without_bias(0).tanh().dense(2).build(), 2);
    refuse(Network::builder(2).dense(2).tanh().dense(0).build(), 2);
}

#[test]
fn a_list_that_is_no_network_is_refused() {
    let builder = || Network::<f32>::builder(2);
    assert_refused!(builder().build(), Error::NoWeightedLayer, [".dense("]);
    for activation in Activation::all() {
        let name = activation.to_string();
        assert_refused!(
            builder().activation(activation).dense(2).build(),
            Error::OperationBeforeFirstLayer { .. },
            [&name, ".dense("]
        );
        assert_refused!(
            builder().dense(3).tanh().dense(2).activation(activation).build(),
            Error::OutputNotLinear { .. },
            [&name, ".dense(", "linear"]
        );
    }
    for (network, name, value) in [
        (builder().dense(2).elu(0.0).dense(2), "alpha", "0"),
        (builder().dense(2).elu(f64::NAN).dense(2), "alpha", "NaN"),
        (builder().dense(2).leaky_relu(f64::INFINITY).dense(2), "slope", "inf"),
        (builder().dense(2).init(Init::Uniform { bound: -1.0 }), "bound", "-1"),
        (builder().dense(2).init(Init::Normal { std: f64::NAN }), "std", "NaN"),
    ] {
        assert_refused!(network.build(), Error::InvalidParameter { .. }, [name, value, "number"]);
    }
}

#[test]
fn a_network_larger_than_memory_is_an_error_not_an_abort() {
    const MAX: usize = usize::MAX;
    const HALF: usize = 1 << (usize::BITS / 2);
    for widths in
        [[MAX, 1, 1], [1, MAX, 1], [1, 1, MAX], [MAX; 3], [HALF, HALF, 1], [2, MAX / 4, 1]]
    {
        let [inputs, hidden, outputs] = widths;
        let single = Network::<f32>::builder(inputs).dense(hidden).relu().dense(outputs).build();
        assert_refused!(single, Error::TooLarge { .. }, [" × ", "memory"]);
        let double = Network::<f64>::builder(inputs).dense(hidden).relu().dense(outputs).build();
        assert_refused!(double, Error::TooLarge { .. }, [" × ", "memory"]);
    }
    let network = Network::<f32>::builder(7).dense(MAX).build();
    assert_refused!(network, Error::TooLarge { rows: MAX, columns: 7 }, [MAX.to_string(), " × 7"]);
}

#[test]
fn a_wrong_number_of_features_is_named_with_the_right_one() {
    let (mut trainer, network) = (trainer(), network());
    let before = state(&trainer);
    for features in [1, 3] {
        let (wrong, data) = (ones(features, 4), data(features, &[0, 1, 0, 1]));
        let sides = ["2 × 4".to_owned(), format!("{features} × 4")];
        let sides = [&*sides[0], &*sides[1], "features × samples"];
        assert_refused!(network.predict(&wrong), Error::ShapeMismatch { .. }, sides);
        let forward = network.forward(&wrong, &mut Activations::new());
        assert_refused!(forward, Error::ShapeMismatch { .. }, sides);
        let step = trainer.step(&wrong, &[0, 1, 0, 1]);
        assert_refused!(step, Error::ShapeMismatch { .. }, sides);
        assert_refused!(trainer.predict_classes(&wrong), Error::ShapeMismatch { .. }, sides);
        assert_refused!(trainer.epoch(&data), Error::ShapeMismatch { .. }, sides);
        assert_refused!(trainer.evaluate(&data), Error::ShapeMismatch { .. }, sides);
    }
    assert_eq!(state(&trainer), before);
}

#[test]
fn nothing_is_learned_of_no_samples() {
    let (mut trainer, network) = (trainer(), network());
    let before = state(&trainer);
    let none = ones(2, 0);
    assert_refused!(network.predict(&none), Error::Empty { .. }, ["batch", "empty"]);
    let forward = network.forward(&none, &mut Activations::new());
    assert_refused!(forward, Error::Empty { .. }, ["batch"]);
    assert_refused!(trainer.step(&none, &[]), Error::Empty { .. }, ["batch"]);
    assert_refused!(trainer.predict_classes(&none), Error::Empty { .. }, ["batch"]);
    assert_eq!(state(&trainer), before);

    for dataset in [
        Dataset::new(ones(2, 0), vec![]),
        Dataset::new(ones(0, 2), vec![0, 1]),
        Dataset::with_values(ones(2, 0), &ones(1, 0)),
        Dataset::with_values(ones(2, 3), &ones(0, 3)),
        Dataset::from_bytes(2, vec![], vec![]),
        data(2, &[0]).subset(&[]),
    ] {
        assert_refused!(dataset, Error::Empty { .. }, ["dataset", "empty"]);
    }
}

#[test]
fn targets_must_be_as_many_as_inputs() {
    let mut trainer = trainer();
    let before = state(&trainer);
    let sides = ["4 inputs", "3 targets"];
    assert_refused!(trainer.step(&ones(2, 4), &[0, 1, 0]), Error::SampleCount { .. }, sides);
    let values = ones(2, 3) * 0.5;
    assert_refused!(trainer.step(&ones(2, 4), &values), Error::SampleCount { .. }, sides);
    for dataset in [
        Dataset::new(ones(2, 4), vec![0, 1, 0]),
        Dataset::with_values(ones(2, 4), &ones(1, 3)),
        Dataset::from_bytes(2, vec![0; 8], vec![0, 1, 0]),
    ] {
        assert_refused!(dataset, Error::SampleCount { .. }, sides);
    }
    assert_eq!(state(&trainer), before);
}

#[test]
fn targets_of_the_wrong_height_are_named_with_the_right_one() {
    for loss in Loss::all() {
        let mut trainer = Trainer::builder(network()).loss(loss).build().unwrap();
        let before = state(&trainer);
        for outputs in [1, 3] {
            let targets = ones(outputs, 4) / outputs as f64;
            let found = format!("{outputs} × 4");
            let sides = ["target", "2 × 4", &found];
            let data = Dataset::with_values(ones(2, 4), &targets).unwrap();
            let step = trainer.step(&ones(2, 4), &targets);
            assert_refused!(step, Error::ShapeMismatch { .. }, sides);
            assert_refused!(trainer.epoch(&data), Error::ShapeMismatch { .. }, sides);
            assert_refused!(trainer.evaluate(&data), Error::ShapeMismatch { .. }, sides);
        }
        assert_eq!(state(&trainer), before);
    }
}

#[test]
fn a_label_that_no_output_stands_for_is_named_with_its_sample() {
    for (outputs, loss, classes) in [
        (3, Loss::SoftmaxCrossEntropy, 3),
        (3, Loss::LogisticCrossEntropy, 3),
        (3, Loss::MeanSquaredError, 3),
        (1, Loss::LogisticCrossEntropy, 2),
        (1, Loss::MeanSquaredError, 2),
    ] {
        let network = Network::<f64>::builder(2).dense(outputs).build().unwrap();
        let mut trainer = Trainer::builder(network).loss(loss).build().unwrap();
        trainer.step(&ones(2, 2), &[0, classes - 1]).unwrap();
        let before = state(&trainer);
        for label in [classes, usize::MAX] {
            let labels = vec![0, label];
            let sides = [
                format!("label {label} of sample 1"),
                format!("{outputs} output"),
                format!("{classes} classes"),
            ];
            let step = trainer.step(&ones(2, 2), &labels);
            assert_refused!(step, Error::LabelOutOfRange { sample: 1, .. }, sides);
            if label < usize::MAX {
                let data = data(2, &labels);
                let epoch = trainer.epoch(&data);
                assert_refused!(epoch, Error::LabelOutOfRange { sample: 1, .. }, sides);
                let evaluation = trainer.evaluate(&data);
                assert_refused!(evaluation, Error::LabelOutOfRange { sample: 1, .. }, sides);
            }
        }
        assert_eq!(state(&trainer), before);
    }
}

#[test]
fn a_target_without_meaning_to_the_loss_is_named_with_its_sample() {
    let (softmax, logistic, squared) =
        (Loss::SoftmaxCrossEntropy, Loss::LogisticCrossEntropy, Loss::MeanSquaredError);
    for (loss, target, found, expected) in [
        (softmax, [0.5, 0.6], "1.1", "sum to 1"),
        (softmax, [0.0, 0.0], "0", "sum to 1"),
        (softmax, [1.5, -0.5], "1.5", "[0, 1]"),
        (logistic, [1.0, 1.001], "1.001", "[0, 1]"),
        (logistic, [-0.1, 1.0], "-0.1", "[0, 1]"),
        (softmax, [f64::NAN, 1.0], "NaN", "finite"),
        (logistic, [0.0, f64::NAN], "NaN", "finite"),
        (squared, [f64::NAN, 0.0], "NaN", "finite"),
        (squared, [0.0, f64::NEG_INFINITY], "-inf", "finite"),
    ] {
        let mut trainer = Trainer::builder(network()).loss(loss).build().unwrap();
        let before = state(&trainer);
        let targets = DMatrix::from_column_slice(2, 2, &[0.5, 0.5, target[0], target[1]]);
        assert_refused!(
            trainer.step(&ones(2, 2), &targets),
            Error::TargetOutOfRange { sample: 1, .. },
            ["sample 1", found, expected, &loss.to_string()]
        );
        assert_eq!(state(&trainer), before);
    }
    let infinite = DMatrix::from_row_slice(1, 3, &[0.0, 1.0, f64::INFINITY]);
    let dataset = Dataset::with_values(ones(2, 3), &infinite);
    assert_refused!(dataset, Error::NonFinite { .. }, ["target", "inf", "row 0, column 2"]);
}

/// `max(NaN, 0)` is 0, so a ReLU could hide what tanh shows.
#[test]
fn an_input_that_is_no_number_is_named_whatever_the_units() {
    for activation in Activation::all() {
        let network: Network<f64> =
            Network::builder(2).dense(3).activation(activation).dense(2).build().unwrap();
        let mut trainer = Trainer::builder(network.clone()).build().unwrap();
        let before = state(&trainer);
        for (bad, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")]
        {
            let mut x = ones(2, 3);
            x[(1, 2)] = bad;
            let sides = ["input", name, "row 1, column 2"];
            let forward = network.forward(&x, &mut Activations::new());
            assert_refused!(forward, Error::NonFinite { row: 1, column: 2, .. }, sides);
            assert_refused!(network.predict(&x), Error::NonFinite { .. }, sides);
            assert_refused!(trainer.step(&x, &[0, 1, 0]), Error::NonFinite { .. }, sides);
            assert_refused!(trainer.predict_classes(&x), Error::NonFinite { .. }, sides);
            assert_refused!(Dataset::new(x, vec![0; 3]), Error::NonFinite { .. }, sides);
        }
        assert_eq!(state(&trainer), before);
    }
}

#[test]
fn hyper_parameters_out_of_range_are_named_with_value_and_range() {
    let network = || Network::<f32>::builder(2).dense(2).build().unwrap();
    let builder = || Trainer::builder(network());
    let sgd = Sgd::default();
    let mut cases = vec![(builder().batch_size(0), "batch_size", 0.0)];
    for bad in [0.0, -0.1, f64::NAN, f64::INFINITY, 1e-60] {
        cases.extend([
            (builder().optimizer(Sgd { learning_rate: bad, ..sgd }), "learning_rate", bad),
            (
                builder().optimizer(RmsProp { learning_rate: bad, ..RmsProp::default() }),
                "learning_rate",
                bad,
            ),
            (
                builder().optimizer(Adam { learning_rate: bad, ..Adam::default() }),
                "learning_rate",
                bad,
            ),
            (builder().optimizer(Adam { epsilon: bad, ..Adam::default() }), "epsilon", bad),
            (builder().max_norm(bad), "max_norm", bad),
        ]);
    }
    for bad in [-0.1, 1.0, 1.5, f64::NAN] {
        let stopping = StoppingRule { momentum: bad, ..StoppingRule::default() };
        cases.extend([
            (
                builder().optimizer(Sgd { momentum: Momentum::Classical(bad), ..sgd }),
                "momentum",
                bad,
            ),
            (
                builder().optimizer(Sgd { momentum: Momentum::Nesterov(bad), ..sgd }),
                "momentum",
                bad,
            ),
            (builder().optimizer(RmsProp { decay: bad, ..RmsProp::default() }), "decay", bad),
            (builder().optimizer(Adam { beta1: bad, ..Adam::default() }), "beta1", bad),
            (builder().optimizer(Adam { beta2: bad, ..Adam::default() }), "beta2", bad),
            (builder().stopping(stopping), "momentum", bad),
        ]);
    }
    for bad in [-0.1, f64::NAN] {
        let stopping = StoppingRule { threshold: bad, ..StoppingRule::default() };
        let l2 = Sgd { weight_decay: WeightDecay::L2(bad), ..sgd };
        let decoupled = Sgd { weight_decay: WeightDecay::Decoupled(bad), ..sgd };
        cases.extend([
            (builder().stopping(stopping), "threshold", bad),
            (builder().optimizer(l2), "weight_decay", bad),
            (builder().optimizer(decoupled), "weight_decay", bad),
        ]);
    }
    for bad in [0.0, 1.5, f64::NAN] {
        cases.push((builder().schedule(Decay::Step { every: 3, factor: bad }), "factor", bad));
        cases.push((
            builder().schedule(Decay::Exponential { every: 3, factor: bad }),
            "factor",
            bad,
        ));
    }
    for decay in
        [Decay::Step { every: 0, factor: 0.5 }, Decay::Exponential { every: 0, factor: 0.5 }]
    {
        cases.push((builder().schedule(Schedule { warm_up: 3, decay }), "every", 0.0));
    }
    cases.push((builder().schedule(Decay::Cosine { steps: 0 }), "steps", 0.0));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        cases.push((builder().feedback_init(FeedbackInit::Uniform { bound: bad }), "bound", bad));
        cases.push((builder().feedback_init(FeedbackInit::Normal { std: bad }), "std", bad));
    }
    for (builder, name, value) in cases {
        let value = format!("{name} is {value}, expected ");
        assert_refused!(builder.build(), Error::InvalidParameter { .. }, [value]);
    }
    assert_refused!(
        data(2, &[0]).batches(0, 0, 0),
        Error::InvalidParameter { .. },
        ["batch_size is 0"]
    );
    for held_out in [0, 3, 4] {
        let split = data(2, &[0, 1, 0]).split(held_out, 0);
        assert_refused!(split, Error::InvalidParameter { .. }, [format!("held_out is {held_out}")]);
    }
}

/// A scale that suits `f64` can be infinite in `f32`, and so can what a normal distribution makes
/// of one that suits both.
#[test]
fn what_is_drawn_must_be_finite_in_the_scalar() {
    for (init, feedback_init) in [
        (Init::Uniform { bound: 1e300 }, FeedbackInit::Uniform { bound: 1e300 }),
        (Init::Normal { std: 3e38 }, FeedbackInit::Normal { std: 3e38 }),
    ] {
        let network = Network::<f32>::builder(20).dense(20).tanh().dense(20).init(init).build();
        assert_refused!(network, Error::NonFinite { .. }, ["W of weighted layer 0", "inf"]);
        let network = Network::<f32>::builder(20).dense(20).tanh().dense(20).build().unwrap();
        let feedback = Feedback::new(&network, FeedbackRule::Dfa, feedback_init, 0);
        assert_refused!(
            feedback,
            Error::NonFinite { .. },
            ["DFA feedback matrix", "layer 0", "inf"]
        );
    }
    let network = Network::<f32>::builder(20).dense(20).tanh().dense(20).build().unwrap();
    let wild = Cauchy::new(0.0, 1e38).unwrap();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let feedback = Feedback::sample(&network, FeedbackRule::Fa, &wild, &mut rng);
    assert_refused!(feedback, Error::NonFinite { .. }, ["FA feedback matrix", "layer 0", "inf"]);
}

#[test]
fn weights_and_biases_of_the_wrong_shape_or_no_number_are_refused() {
    let mut network: Network<f64> =
        Network::builder(2).dense(3).tanh().dense_without_bias(2).build().unwrap();
    let before = network.clone();
    let shape = network.set_weights(0, ones(2, 3));
    assert_refused!(
        shape,
        Error::ShapeMismatch { .. },
        ["W of weighted layer 0", "3 × 2", "2 × 3"]
    );
    let shape = network.set_bias(0, DVector::zeros(2));
    assert_refused!(
        shape,
        Error::ShapeMismatch { .. },
        ["b of weighted layer 0", "3 × 1", "2 × 1"]
    );
    let weights = DMatrix::from_row_slice(2, 3, &[1., 1., 1., 1., f64::NAN, 1.]);
    let number = network.set_weights(1, weights);
    assert_refused!(number, Error::NonFinite { .. }, ["layer 1", "NaN", "row 1, column 1"]);
    let number = network.set_bias(0, DVector::from_vec(vec![0.0, 0.0, f64::INFINITY]));
    assert_refused!(number, Error::NonFinite { .. }, ["layer 0", "inf", "row 2, column 0"]);
    let none = network.set_bias(1, DVector::zeros(2));
    assert_refused!(none, Error::NoSuchParameter { layer: 1, .. }, ["layer 1"]);
    assert_refused!(network.set_weights(2, ones(2, 2)), Error::NoSuchLayer { .. }, ["2", "has 2"]);
    assert_eq!(network, before);
}

#[test]
fn a_layer_that_is_not_there_is_named_with_how_many_there_are() {
    let (mut trainer, network) = (trainer(), network());
    trainer.step(&ones(2, 1), &[0]).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&ones(2, 1), &mut activations).unwrap();
    Loss::default().error(&[0], &activations, &mut deltas).unwrap();
    for layer in [2, usize::MAX] {
        let sides = [format!("weighted layer {layer}"), "has 2".into()];
        assert_refused!(network.layer(layer), Error::NoSuchLayer { .. }, sides);
        assert_refused!(activations.pre_activation(layer), Error::NoSuchLayer { .. }, sides);
        assert_refused!(activations.output(layer), Error::NoSuchLayer { .. }, sides);
        assert_refused!(deltas.delta(layer), Error::NoSuchLayer { .. }, sides);
        let bias = trainer.network_mut().set_bias(layer, DVector::zeros(3));
        assert_refused!(bias, Error::NoSuchLayer { .. }, sides);
    }
    let gradients = Gradients::<f64>::new();
    assert_refused!(gradients.weights(0), Error::NoSuchLayer { .. }, ["layer 0", "has 0"]);
    assert_refused!(gradients.bias(0), Error::NoSuchLayer { .. }, ["layer 0", "has 0"]);
    for layer in [1, usize::MAX] {
        let sides = [format!("hidden layer {layer}"), "has 1".into()];
        assert_refused!(trainer.feedback().matrix(layer), Error::NoSuchLayer { .. }, sides);
        let set = trainer.feedback().clone().set_matrix(layer, ones(3, 2));
        assert_refused!(set, Error::NoSuchLayer { .. }, sides);
    }
    let subset = data(2, &[0, 1]).subset(&[0, 2]);
    assert_refused!(subset, Error::NoSuchSample { .. }, ["sample 2", "has 2"]);
}

#[test]
fn feedback_matrices_of_the_wrong_number_shape_or_content_are_refused() {
    use FeedbackRule::{Bp, Dfa, Fa, Ifa};
    // 5-4-3-2: the shapes of the two matrices are all different, and none is square.
    let network: Network<f64> =
        Network::builder(5).dense(4).tanh().dense(3).tanh().dense(2).build().unwrap();
    for (rule, shapes) in
        [(Bp, vec![]), (Fa, vec![(4, 3), (3, 2)]), (Dfa, vec![(4, 2), (3, 2)]), (Ifa, vec![(4, 2)])]
    {
        let name = rule.to_string();
        let matrices =
            || shapes.iter().map(|&(rows, columns)| ones(rows, columns)).collect::<Vec<_>>();
        let mut feedback = Feedback::from_matrices(&network, rule, matrices()).unwrap();
        let before = feedback.clone();

        let too_many = [matrices(), vec![ones(3, 2)]].concat();
        let count = Feedback::from_matrices(&network, rule, too_many);
        let (expected, found) = (shapes.len(), shapes.len() + 1);
        let (expected, found) = (format!("{name} has {expected}"), format!("found {found}"));
        assert_refused!(count, Error::FeedbackCount { .. }, [expected, found]);

        for (layer, &(rows, columns)) in shapes.iter().enumerate() {
            let sides = [format!("{rows} × {columns}"), format!("{columns} × {rows}")];
            let [expected, found] = &sides;
            let mut transposed = matrices();
            transposed[layer] = transposed[layer].transpose();
            let made = Feedback::from_matrices(&network, rule, transposed.clone());
            assert_refused!(made, Error::ShapeMismatch { .. }, [&name, expected, found]);
            let set = feedback.set_matrix(layer, transposed.swap_remove(layer));
            assert_refused!(set, Error::ShapeMismatch { .. }, [&name, expected, found]);
            let mut bad = ones(rows, columns);
            bad[(1, 1)] = f64::NAN;
            let set = feedback.set_matrix(layer, bad);
            assert_refused!(set, Error::NonFinite { .. }, [&name, "NaN", "row 1, column 1"]);
        }
        for layer in shapes.len()..2 {
            let set = feedback.set_matrix(layer, ones(3, 2));
            assert_refused!(set, Error::NoFeedback { .. }, [&name, &format!("layer {layer}")]);
        }
        assert_eq!(feedback, before);
    }
}

#[test]
fn softmax_needs_two_outputs() {
    let network = || Network::<f64>::builder(2).dense(1).build().unwrap();
    let built = Trainer::builder(network()).build();
    assert_refused!(built, Error::SoftmaxNeedsTwoOutputs, ["two outputs", "LogisticCrossEntropy"]);
    let mut activations = Activations::new();
    network().forward(&ones(2, 1), &mut activations).unwrap();
    let error = Loss::SoftmaxCrossEntropy.error(&[0], &activations, &mut Deltas::new());
    assert_refused!(error, Error::SoftmaxNeedsTwoOutputs, ["single output"]);
    let probabilities = Loss::SoftmaxCrossEntropy.probabilities(&ones(1, 1));
    assert_refused!(probabilities, Error::SoftmaxNeedsTwoOutputs, ["single output"]);
    let probabilities = Loss::MeanSquaredError.probabilities(&ones(2, 1));
    assert_refused!(probabilities, Error::NoProbabilities { .. }, ["mse"]);
    for loss in [Loss::LogisticCrossEntropy, Loss::MeanSquaredError] {
        Trainer::builder(network()).loss(loss).build().unwrap().step(&ones(2, 1), &[1]).unwrap();
    }
}

/// `inputs 2`, `depth` hidden layers of 3 units, 2 outputs, all zero.
fn zeros(depth: usize, activation: Activation) -> Network<f64> {
    let builder =
        (0..depth).fold(Network::builder(2), |builder, _| builder.dense(3).activation(activation));
    builder.dense(2).init(Init::Zeros).build().unwrap()
}

#[test]
fn zero_weights_are_refused_exactly_where_nothing_would_be_learned() {
    for rule in FeedbackRule::nokland() {
        for activation in Activation::all() {
            for depth in 0..4 {
                let learns = depth == 0
                    || activation != Activation::Relu
                        && match rule {
                            FeedbackRule::Bp => false,
                            FeedbackRule::Ifa => depth == 1,
                            _ => true,
                        };
                let case = format!("{rule}, {depth} hidden layers of {activation}");
                let network = zeros(depth, activation);
                let built = Trainer::builder(network.clone()).rule(rule).build();
                let feedback = Feedback::new(&network, rule, FeedbackInit::Nokland, 0).unwrap();
                let with_feedback = Trainer::builder(network).feedback(feedback).build();
                assert_eq!((built.is_ok(), with_feedback.is_ok()), (learns, learns), "{case}");
                if !learns {
                    assert_refused!(
                        built,
                        Error::CannotLearn { .. },
                        [&*rule.to_string(), "zero", "Init"]
                    );
                }
            }
        }
    }
}

#[test]
fn where_zero_weights_are_accepted_every_layer_learns() {
    for (rule, depth) in [
        (FeedbackRule::Bp, 0),
        (FeedbackRule::Fa, 3),
        (FeedbackRule::Dfa, 3),
        (FeedbackRule::Ifa, 1),
    ] {
        let mut trainer =
            Trainer::builder(zeros(depth, Activation::Tanh)).rule(rule).build().unwrap();
        for _ in 0..=depth {
            trainer.step(&ones(2, 2), &[0, 0]).unwrap();
        }
        for layer in 0..=depth {
            let weights = trainer.network().layer(layer).unwrap().weights();
            assert!(weights.iter().all(|&w| w != 0.0), "{rule}, layer {layer}: {weights}");
        }
    }
}

#[test]
fn one_relu_among_others_and_one_weight_among_zeros_decide() {
    let mixed = Network::<f64>::builder(2).dense(3).tanh().dense(3).relu().dense(2);
    let mixed = mixed.init(Init::Zeros).build().unwrap();
    let built = Trainer::builder(mixed.clone()).rule(FeedbackRule::Dfa).build();
    assert_refused!(built, Error::CannotLearn { .. }, ["DFA", "ReLU"]);
    // The same function by another name.
    let leaky = |slope| {
        let network = Network::<f64>::builder(2).dense(3).leaky_relu(slope).dense(2);
        let network = network.init(Init::Zeros).build().unwrap();
        Trainer::builder(network).rule(FeedbackRule::Dfa).build()
    };
    assert_refused!(leaky(0.0), Error::CannotLearn { .. }, ["DFA", "ReLU"]);
    assert!(leaky(0.01).is_ok());
    // A first layer of zeros that does not learn lets nothing through, but a residual connection does.
    let past = Network::<f64>::builder(3).dense(3).skip(1).tanh().dense(2);
    let past = past.init(Init::Zeros).build().unwrap();
    assert!(Trainer::builder(past).rule(FeedbackRule::Shallow).build().is_ok());
    let mut blind = Network::<f64>::builder(2).dense(3).tanh().dense(2).build().unwrap();
    blind.set_weights(0, DMatrix::zeros(3, 2)).unwrap();
    let built = Trainer::builder(blind).rule(FeedbackRule::Shallow).build();
    assert_refused!(built, Error::CannotLearn { .. }, ["shallow", "lets nothing through"]);
    let mut moved = mixed;
    let mut weights = DMatrix::zeros(2, 3);
    weights[(1, 2)] = 1e-3;
    moved.set_weights(2, weights).unwrap();
    for rule in FeedbackRule::nokland() {
        assert!(Trainer::builder(moved.clone()).rule(rule).build().is_ok(), "{rule}");
    }
}

/// Layers of zeros are looked at one by one: what leads to each, and what leads past it.
#[test]
fn a_hidden_layer_of_zeros_is_refused_only_where_it_stays_one() {
    let zeros_at = |layer: usize, skips: bool| {
        let builder = Network::<f64>::builder(3).dense(3).tanh().dense(3);
        let builder = if skips { builder.skip(1) } else { builder };
        let mut network = builder.tanh().dense(2).build().unwrap();
        network.set_weights(layer, DMatrix::zeros(3, 3)).unwrap();
        network
    };
    let learns = |network: Network<f64>, route: &str| {
        let feedback =
            Feedback::with_route(&network, route.parse().unwrap(), FeedbackInit::default(), 1);
        let mut trainer = Trainer::builder(network).feedback(feedback.unwrap()).build()?;
        let x = DMatrix::from_fn(3, 2, |i, j| 0.1 * (1 + i) as f64 - 0.3 * j as f64);
        for _ in 0..3 {
            trainer.step(&x, &[0, 1]).unwrap();
        }
        let logits = trainer.network().predict(&x).unwrap();
        assert_ne!(logits.column(0), logits.column(1), "the input is not seen");
        Ok::<_, Error>(())
    };
    for (layer, route, skips, accepted) in [
        (0, "3:B(e)->0", false, true),
        (0, "3:B(e)->1", false, false),
        (0, "3:B(e)->1", true, false),
        (1, "3:B(e)->1", false, true),
        (1, "3:B(e)->0", false, false),
        (1, "3:B(e)->0", true, true),
    ] {
        let found = learns(zeros_at(layer, skips), route);
        assert_eq!(found.is_ok(), accepted, "layer {layer}, {route}, {skips}: {found:?}");
        if !accepted {
            let name = format!("hidden layer {layer} lets nothing through");
            assert_refused!(found, Error::CannotLearn { .. }, [&*name]);
        }
    }
    // All layers are of zeros. A residual connection leads past the first two, so the third is in the way.
    let past = Network::<f64>::builder(3).dense(3).tanh().dense(3).skip(2).tanh().dense(3);
    let past = past.tanh().dense(2).init(Init::Zeros).build().unwrap();
    let found = learns(past, "4:B(e)->1");
    assert_refused!(found, Error::CannotLearn { .. }, ["hidden layer 2 lets nothing through"]);
    // A ReLU that a residual connection reaches has a derivative, if the connection carries something.
    let relu = |from_zeros: bool| {
        let builder = Network::<f64>::builder(3);
        let builder = if from_zeros { builder.dense(3).tanh() } else { builder };
        builder.dense(3).skip(1).relu().dense(2).init(Init::Zeros).build().unwrap()
    };
    learns(relu(false), "2:B(e)->0").unwrap();
    let found = learns(relu(true), "3:B(e)->0,B(e)->1");
    assert_refused!(found, Error::CannotLearn { .. }, ["ReLU"]);
}

#[test]
fn a_rule_that_cannot_leave_zero_weights_is_not_switched_to() {
    let mut trainer = Trainer::builder(zeros(2, Activation::Tanh)).build().unwrap();
    let before = state(&trainer);
    for rule in [FeedbackRule::Bp, FeedbackRule::Ifa] {
        let name = rule.to_string();
        assert_refused!(trainer.set_rule(rule), Error::CannotLearn { .. }, [&name]);
        let feedback = Feedback::new(trainer.network(), rule, FeedbackInit::Nokland, 0).unwrap();
        assert_refused!(trainer.set_feedback(feedback), Error::CannotLearn { .. }, [&name]);
    }
    assert_eq!(state(&trainer), before);
    trainer.set_rule(FeedbackRule::Fa).unwrap();
}

#[test]
fn stages_by_hand_accept_zero_weights() {
    for rule in FeedbackRule::nokland() {
        let mut network = zeros(2, Activation::Relu);
        let feedback = Feedback::new(&network, rule, FeedbackInit::Nokland, 0).unwrap();
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        let mut gradients = Gradients::new();
        network.forward(&ones(2, 2), &mut activations).unwrap();
        Loss::default().error(&[0, 0], &activations, &mut deltas).unwrap();
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
        optimizer.step(&mut network, &gradients).unwrap();
        let weights = |layer: usize| network.layer(layer).unwrap().weights().amax();
        assert_eq!([weights(0), weights(1), weights(2)], [0.0; 3]);
        assert!(network.layer(2).unwrap().bias().unwrap().amax() > 0.0);
    }
}

mod divergence {
    use super::*;

    /// `f32`, squared error: squares overflow from 2e19 on.
    fn trainer(rule: FeedbackRule, learning_rate: f64) -> Trainer<f32> {
        let network = Network::builder(2).dense(3).tanh().dense(2).seed(3).build().unwrap();
        let sgd = Sgd { learning_rate, momentum: Momentum::Classical(0.5), ..Sgd::default() };
        let builder = Trainer::builder(network).rule(rule).loss(Loss::MeanSquaredError);
        builder.optimizer(sgd).batch_size(2).seed(5).build().unwrap()
    }

    #[test]
    fn a_huge_learning_rate_is_told_from_the_loss_and_leaves_all_as_it_was() {
        let x = DMatrix::from_column_slice(2, 2, &[0.5_f32, -0.3, 0.2, 0.9]);
        for rule in FeedbackRule::nokland() {
            let mut trainer = trainer(rule, 1e25);
            trainer.step(&x, &[0, 1]).unwrap();
            let before = state(&trainer);
            for _ in 0..2 {
                let step = trainer.step(&x, &[0, 1]);
                assert_refused!(
                    step,
                    Error::NonFiniteLoss { epoch: 1, step: 2, .. },
                    ["loss is inf", "epoch 1", "step 2", "learning rate"]
                );
                assert_eq!(state(&trainer), before, "{rule}");
            }
        }
    }

    #[test]
    fn training_goes_on_after_a_step_that_was_refused() {
        let good = DMatrix::from_column_slice(2, 2, &[0.5_f32, -0.3, 0.2, 0.9]);
        let targets = DMatrix::from_column_slice(2, 2, &[1.0_f32, 0.0, 0.0, 1.0]);
        let huge = &targets * 1e30;
        for rule in FeedbackRule::nokland() {
            let (mut disturbed, mut calm) = (trainer(rule, 0.1), trainer(rule, 0.1));
            for _ in 0..3 {
                disturbed.step(&good, &targets).unwrap();
                calm.step(&good, &targets).unwrap();
                let refused = disturbed.step(&good, &huge);
                assert_refused!(refused, Error::NonFiniteLoss { .. }, ["loss is inf"]);
            }
            assert_eq!(state(&disturbed), state(&calm), "{rule}");
        }
    }

    #[test]
    fn an_epoch_stops_with_the_weights_before_the_step_that_diverged() {
        let x = DMatrix::from_fn(2, 8, |i, j| (i + j) as f32 / 8.0);
        let good = DMatrix::from_fn(2, 8, |i, j| (i * j) as f32 / 8.0);
        let mut bad = good.clone();
        bad[(0, 6)] = 1e30;
        let good = Dataset::with_values(x.clone(), &good).unwrap();
        let bad = Dataset::with_values(x, &bad).unwrap();
        for rule in FeedbackRule::nokland() {
            let (mut by_epoch, mut by_step) = (trainer(rule, 0.1), trainer(rule, 0.1));
            let error = by_epoch.epoch(&bad).unwrap_err();
            let mut steps = 0;
            for batch in bad.batches(2, 5, 0).unwrap() {
                if by_step.step(batch.inputs(), batch.targets()).is_err() {
                    break;
                }
                steps += 1;
            }
            assert!((1..3).contains(&steps), "the order leaves steps before and after");
            assert_refused!(
                Err::<(), _>(error),
                Error::NonFiniteLoss { epoch: 1, .. },
                ["epoch 1", &format!("step {}", steps + 1)]
            );
            assert_eq!(state(&by_epoch), state(&by_step), "{rule}");
            assert_eq!(by_epoch.epoch(&good).unwrap().number, 1);
            assert_eq!(by_epoch.optimizer().steps(), steps + 4);
        }
    }

    #[test]
    fn an_evaluation_refuses_a_loss_that_overflows() {
        let trainer = trainer(FeedbackRule::Dfa, 0.1);
        let huge = DMatrix::from_element(2, 3, 1e30_f32);
        let data = Dataset::with_values(DMatrix::zeros(2, 3), &huge).unwrap();
        let before = state(&trainer);
        let refused = trainer.evaluate(&data);
        assert_refused!(refused, Error::NonFinite { .. }, ["loss of the evaluation", "inf"]);
        assert_eq!(state(&trainer), before);
    }

    /// σ(∞) = 1 is a fine prediction with a loss of 0, and tanh(∞) = 1 a fine unit, but 0 · ∞ in
    /// the gradients is NaN.
    #[test]
    fn an_overflow_that_the_loss_does_not_see_leaves_all_as_it_was() {
        let networks = [
            Network::<f32>::builder(1).dense(2).relu().dense(1),
            Network::<f32>::builder(1).dense(2).relu().dense(2).tanh().dense(1),
        ];
        for network in networks.map(|builder| builder.build().unwrap()) {
            for rule in FeedbackRule::nokland() {
                let mut network = network.clone();
                network.set_weights(0, DMatrix::from_element(2, 1, 10.0)).unwrap();
                let mut weights = network.layer(1).unwrap().weights().into_owned();
                weights.fill(1.0);
                network.set_weights(1, weights).unwrap();
                let builder = Trainer::builder(network).rule(rule).loss(Loss::LogisticCrossEntropy);
                let mut trainer = builder.optimizer(Sgd::default()).build().unwrap();
                trainer.step(&DMatrix::from_element(1, 2, 0.1), &[1, 1]).unwrap();
                let before = state(&trainer);
                let step = trainer.step(&DMatrix::from_row_slice(1, 2, &[0.1, 1e38]), &[1, 1]);
                assert_refused!(
                    step,
                    Error::NonFinite { column: 1, .. },
                    ["weighted layer 0", "inf"]
                );
                assert_eq!(state(&trainer), before, "{rule}");
            }
        }
    }
}

/// What one stage leaves behind fits only the network and the batch it was made for.
mod stages {
    use super::*;

    struct Scratch {
        network: Network<f64>,
        activations: Activations<f64>,
        deltas: Deltas<f64>,
        gradients: Gradients<f64>,
        feedback: Feedback<f64>,
        optimizer: OptimizerState<f64>,
    }

    /// One whole pass of `batch` samples.
    fn pass(network: Network<f64>, batch: usize) -> Scratch {
        let feedback =
            Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 0).unwrap();
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        let mut gradients = Gradients::new();
        network.forward(&ones(network.input_len(), batch), &mut activations).unwrap();
        Loss::default().error(&vec![0; batch], &activations, &mut deltas).unwrap();
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        let optimizer = OptimizerState::new(&network, Adam::default()).unwrap();
        Scratch { network, activations, deltas, gradients, feedback, optimizer }
    }

    fn other_networks() -> [Network<f64>; 4] {
        let builder = Network::builder;
        [
            builder(2).dense(2),                                 // less deep
            builder(2).dense(4).tanh().dense(2),                 // another width
            builder(3).dense(3).tanh().dense(2),                 // another input
            builder(2).dense(3).tanh().dense(3).tanh().dense(2), // deeper
        ]
        .map(|builder| builder.build().unwrap())
    }

    #[test]
    fn scratch_of_another_network_is_refused() {
        for other in other_networks().map(|other| pass(other, 4)) {
            let mut own = pass(network(), 4);
            let sides = [own.network.to_string(), other.network.to_string()];
            let mut gradients = Gradients::new();

            let matrices = other.feedback.deliver(&own.network, &own.activations, &mut own.deltas);
            assert_refused!(
                matrices,
                Error::StageMismatch { .. },
                ["feedback matrices", sides[0], sides[1]]
            );
            let activations =
                own.feedback.deliver(&own.network, &other.activations, &mut own.deltas);
            assert_refused!(
                activations,
                Error::StageMismatch { .. },
                ["deliver: activations", sides[0], sides[1]]
            );
            let deltas =
                own.feedback.deliver(&own.network, &own.activations, &mut other.deltas.clone());
            assert_refused!(
                deltas,
                Error::StageMismatch { .. },
                ["deliver: deltas", sides[0], sides[1]]
            );
            let activations =
                own.network.gradients(&other.activations, &own.deltas, &mut gradients);
            assert_refused!(
                activations,
                Error::StageMismatch { .. },
                ["gradients: activations", sides[0], sides[1]]
            );
            let deltas = own.network.gradients(&own.activations, &other.deltas, &mut gradients);
            assert_refused!(
                deltas,
                Error::StageMismatch { .. },
                ["gradients: deltas", sides[0], sides[1]]
            );
            assert_eq!(gradients, Gradients::new());

            let before = (own.network.clone(), own.optimizer.clone());
            let step = own.optimizer.step(&mut own.network, &other.gradients);
            assert!(matches!(step, Err(Error::StageMismatch { .. } | Error::ShapeMismatch { .. })));
            assert_eq!((own.network, own.optimizer), before);
            let mut own = pass(network(), 4);
            let step = other.optimizer.clone().step(&mut own.network, &own.gradients);
            assert_refused!(step, Error::StageMismatch { .. }, ["optimizer step", "moments"]);
            assert_eq!(own.network, network());

            let built = Trainer::builder(network()).feedback(other.feedback.clone()).build();
            assert_refused!(
                built,
                Error::StageMismatch { .. },
                ["feedback matrices", sides[0], sides[1]]
            );
            let set = trainer().set_feedback(other.feedback);
            assert_refused!(
                set,
                Error::StageMismatch { .. },
                ["feedback matrices", sides[0], sides[1]]
            );
        }
    }

    /// Operations of equal sizes leave other things behind for the way back; feedback does not
    /// care.
    #[test]
    fn scratch_of_other_operations_is_refused_and_feedback_is_not() {
        let builder = || Network::builder(2).dense(3);
        let networks = [
            network(),
            builder().batch_norm().dense(2).build().unwrap(),
            builder().dropout(0.5).dense(2).build().unwrap(),
            builder().relu().dense(2).build().unwrap(),
        ];
        for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))).filter(|(i, j)| i != j) {
            let (mut own, other) = (pass(networks[i].clone(), 4), pass(networks[j].clone(), 4));
            let sides = [own.network.to_string(), other.network.to_string()];
            let deliver = own.feedback.deliver(&own.network, &other.activations, &mut own.deltas);
            assert_refused!(deliver, Error::StageMismatch { .. }, sides);
            let made =
                own.network.gradients(&own.activations, &other.deltas, &mut Gradients::new());
            assert_refused!(made, Error::StageMismatch { .. }, sides);
            other.feedback.deliver(&own.network, &own.activations, &mut own.deltas).unwrap();
        }
    }

    #[test]
    fn deltas_of_another_batch_are_refused() {
        let (mut small, large) = (pass(network(), 3), pass(network(), 5));
        let deliver = small.feedback.deliver(&small.network, &large.activations, &mut small.deltas);
        assert_refused!(
            deliver,
            Error::StageMismatch { .. },
            ["deltas", "(5 samples)", "(3 samples)"]
        );
        let made = small.network.gradients(&small.activations, &large.deltas, &mut small.gradients);
        assert_refused!(
            made,
            Error::StageMismatch { .. },
            ["deltas", "(3 samples)", "(5 samples)"]
        );
    }

    #[test]
    fn stages_out_of_order_are_refused() {
        let mut own = pass(network(), 3);
        let fresh = Activations::<f64>::new();
        let error = Loss::default().error(&[0; 3], &fresh, &mut Deltas::new());
        assert_refused!(error, Error::Empty { .. }, ["activations"]);
        assert_refused!(fresh.logits(), Error::Empty { .. }, ["activations"]);
        let deliver = own.feedback.deliver(&own.network, &own.activations, &mut Deltas::new());
        assert_refused!(deliver, Error::StageMismatch { .. }, ["deltas"]);
        let made = own.network.gradients(&own.activations, &Deltas::new(), &mut own.gradients);
        assert_refused!(made, Error::StageMismatch { .. }, ["deltas"]);
        let step = own.optimizer.step(&mut own.network, &Gradients::new());
        assert_refused!(
            step,
            Error::StageMismatch { .. },
            ["gradients", "2-3 tanh-2", "found nothing"]
        );
        assert_eq!((own.network, own.optimizer.steps()), (network(), 0));
    }

    #[test]
    fn gradients_for_a_bias_that_the_layer_lacks_are_refused() {
        let with = pass(network(), 2);
        let without = Network::builder(2).dense(3).tanh().dense_without_bias(2).build().unwrap();
        let mut without = pass(without, 2);
        let before = without.network.clone();
        let step = without.optimizer.step(&mut without.network, &with.gradients);
        assert_refused!(
            step,
            Error::StageMismatch { .. },
            ["gradients", "bias: Without", "bias: With"]
        );
        assert_eq!(without.network, before);
    }
}
