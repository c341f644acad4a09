//! Signals made of the error: each against its definition, on every way that a step can take, and
//! against 100 steps computed elsewhere.

use feedback_alignment::{
    Activations, Adam, Conv2d, Deltas, Diagnostics, Error, Feedback, FeedbackInit, FeedbackRule,
    Gradients, Loss, MaxPool2d, Network, OptimizerState, Route, Scalar, Sgd, Signal, Threshold,
    Trainer,
    nalgebra::{DMatrix, DVector},
};
use proptest::prelude::*;

use crate::{
    helpers::{assert_weights, hundred_steps, labels, numpy_net, random, sines},
    nets::{conv_net, residual_net},
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

fn threshold(value: f64) -> Threshold {
    Threshold::new(value).unwrap()
}

fn centred(value: f64) -> Signal {
    Signal::ErrorCentred(threshold(value))
}

fn ternary(value: f64) -> Signal {
    Signal::ErrorTernary(threshold(value))
}

/// Rules to whose hidden layers an error is sent.
fn rules() -> impl Iterator<Item = FeedbackRule> {
    let without = [FeedbackRule::Shallow, FeedbackRule::Drtp];
    FeedbackRule::all().filter(move |rule| !without.contains(rule))
}

fn dense<T: Scalar>(widths: [usize; 5]) -> Network<T> {
    let builder = Network::builder(widths[0]).dense(widths[1]).tanh();
    let builder = builder.dense_without_bias(widths[2]).logistic().dense(widths[3]).tanh();
    builder.dense(widths[4]).seed(3).build().unwrap()
}

fn with_signal<T: Scalar>(network: &Network<T>, rule: FeedbackRule, signal: Signal) -> Feedback<T> {
    let mut feedback = Feedback::new(network, rule, FeedbackInit::Lillicrap, 7).unwrap();
    feedback.set_signal(signal).unwrap();
    feedback
}

/// What goes back after a forward pass.
fn pass<T: Scalar>(network: &Network<T>, feedback: &Feedback<T>, samples: usize) -> Deltas<T> {
    let x = random(network.input_len(), samples, 5).map(T::of);
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&x, &mut activations).unwrap();
    LOSS.error(&labels(samples, network.output_len()), &activations, &mut deltas).unwrap();
    let mut feedback = feedback.clone();
    feedback.follow(network, &activations).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    deltas
}

fn hidden<T: Scalar>(network: &Network<T>, deltas: &Deltas<T>) -> Vec<DMatrix<T>> {
    (0..network.layer_count() - 1).map(|l| deltas.delta(l).unwrap().into_owned()).collect()
}

/// Trains for some steps, in one call each or stage by stage.
fn train<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
    samples: usize,
    how: impl Fn(&mut Trainer<T>, &DMatrix<T>, &[usize]),
) -> Network<T> {
    let builder = Trainer::builder(network.clone()).feedback(feedback.clone());
    let mut trainer = builder.optimizer(Adam::default()).build().unwrap();
    for step in 0..3 {
        let x = random(network.input_len(), samples, step).map(T::of);
        how(&mut trainer, &x, &labels(samples, network.output_len()));
    }
    trainer.into_network()
}

fn fused<T: Scalar>(trainer: &mut Trainer<T>, x: &DMatrix<T>, y: &[usize]) {
    trainer.step(x, y).unwrap();
}

fn ternary_is_signs_at_0<T: Scalar>(network: &Network<T>) {
    for rule in rules() {
        let signs = with_signal(network, rule, Signal::ErrorSign);
        let zero = with_signal(network, rule, ternary(0.0));
        assert_eq!(train(network, &signs, 9, fused), train(network, &zero, 9, fused), "{rule}");
        let few = with_signal(network, rule, ternary(0.4));
        assert_ne!(train(network, &signs, 9, fused), train(network, &few, 9, fused), "{rule}");
    }
}

#[test]
fn ternary_errors_of_threshold_0_are_signs() {
    ternary_is_signs_at_0(&dense::<f32>([7, 6, 5, 4, 3]));
    ternary_is_signs_at_0(&dense::<f64>([7, 6, 5, 4, 3]));
    ternary_is_signs_at_0(&conv_net());
    let network = dense::<f64>([7, 6, 5, 4, 3]);
    let dfa = with_signal(&network, FeedbackRule::Dfa, ternary(0.0));
    let sdfa = Feedback::new(&network, FeedbackRule::SDfa, FeedbackInit::Lillicrap, 7).unwrap();
    assert_eq!(train(&network, &dfa, 9, fused), train(&network, &sdfa, 9, fused));
    // Nothing is sent where the threshold is beyond every error.
    let none = pass(&network, &with_signal(&network, FeedbackRule::Dfa, ternary(1.0)), 9);
    assert!(hidden(&network, &none).iter().all(|delta| delta.iter().all(|&d| d == 0.0)));
}

/// Routes on which all kinds of signals meet, and the same signal by two thresholds.
const MIXED: [&str; 3] = [
    "4:B(centred>0.0)->2,B(centred>0.01)->1,B(ternary>0.2)->0",
    "4:R(centred>0.0)->2,B(t)->1,R(2)->1,B(sign)->0,B(ternary>0.3)->0,B(e)->0",
    "4:B(ternary>0.2)->0,W(0)->1,W(centred>0.0)->2,W(1)->2",
];

fn all_feedback<T: Scalar>(network: &Network<T>) -> Vec<Feedback<T>> {
    let signals = [centred(0.0), centred(0.02), ternary(0.0), ternary(0.3)];
    let named = rules().flat_map(|rule| signals.map(|signal| with_signal(network, rule, signal)));
    let mixed = MIXED.iter().map(|text| {
        let route = text.parse::<Route>().unwrap();
        Feedback::with_route(network, route, FeedbackInit::Lillicrap, 7).unwrap()
    });
    named.chain(mixed).collect()
}

/// The five calls of a step, with the gradients in between.
fn by_stages<T: Scalar>(network: &Network<T>, feedback: &Feedback<T>) -> Network<T> {
    let (mut network, mut feedback) = (network.clone(), feedback.clone());
    let mut optimizer = OptimizerState::new(&network, Adam::default()).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    for step in 0..3 {
        let x = random(network.input_len(), 9, step).map(T::of);
        network.forward(&x, &mut activations).unwrap();
        LOSS.error(&labels(9, network.output_len()), &activations, &mut deltas).unwrap();
        feedback.follow(&network, &activations).unwrap();
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        feedback.gradients(&network, &activations, &deltas, &mut gradients).unwrap();
        optimizer.step_with_feedback(&mut network, &mut feedback, &gradients).unwrap();
    }
    network
}

fn ways_agree<T: Scalar>(network: &Network<T>) {
    for feedback in all_feedback(network) {
        let whole = train(network, &feedback, 9, fused);
        let seen = train(network, &feedback, 9, |trainer, x, y| {
            trainer.step_with(x, y, |_| Ok(())).unwrap();
        });
        let name = feedback.rule_name();
        assert_eq!(whole, seen, "{name}");
        assert_eq!(whole, by_stages(network, &feedback), "{name}");
    }
}

#[test]
fn a_step_in_one_has_the_bits_of_its_stages() {
    ways_agree(&dense::<f32>([7, 6, 5, 4, 3]));
    ways_agree(&dense::<f64>([7, 6, 5, 4, 3]));
    ways_agree(&conv_net());
    ways_agree(&residual_net());
}

/// Networks that threads do share.
#[test]
fn signals_have_the_same_bits_on_any_number_of_threads() {
    let images = Network::<f32>::builder((2, 16, 16))
        .conv2d(Conv2d::new(12, 5))
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .dense(90)
        .tanh()
        .dense(10)
        .build()
        .unwrap();
    for network in [dense([300, 280, 250, 260, 10]), images] {
        for signal in [centred(0.0), centred(0.05), ternary(0.1)] {
            for rule in [FeedbackRule::Dfa, FeedbackRule::Fa, FeedbackRule::Ifa] {
                let feedback = with_signal(&network, rule, signal);
                let on = |threads: usize| {
                    train(&network, &feedback, 65, |trainer, x, y| {
                        trainer.set_threads(threads).unwrap();
                        trainer.step(x, y).unwrap();
                    })
                };
                let one = on(1);
                for threads in 2..=8 {
                    assert!(on(threads) == one, "{network}, {rule}, {signal}, {threads} threads");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Where units are linear, what arrives is what they learn from: under every rule it sums to 0
    /// over the batch, unit by unit, up to rounding.
    #[test]
    fn centred_signals_sum_to_0_over_the_batch(
        samples in 1..300_usize, widths in prop::array::uniform4(2..9_usize), seed in 0..1000_u64,
    ) {
        let [inputs, one, two, outputs] = widths;
        let builder = Network::<f64>::builder(inputs).dense(one).dense(two).dense(outputs);
        let network = builder.seed(seed).build().unwrap();
        for rule in rules() {
            let deltas = pass(&network, &with_signal(&network, rule, centred(0.0)), samples);
            let plain = pass(&network, &with_signal(&network, rule, Signal::Error), samples);
            for (centred, plain) in hidden(&network, &deltas).iter().zip(hidden(&network, &plain)) {
                for (centred, plain) in centred.row_iter().zip(plain.row_iter()) {
                    let size: f64 = plain.iter().map(|d| d.abs()).sum();
                    // Every sum on the way has at most so many terms.
                    let bound = 1e-15 * (samples + 30) as f64 * (size + 1.0);
                    prop_assert!(centred.sum().abs() <= bound, "{rule}: {} {size}", centred.sum());
                }
            }
            prop_assert_eq!(deltas.delta(2).unwrap(), plain.delta(2).unwrap());
        }
    }

    /// `(B s) ∘ f'(a)` with nothing but matrices.
    #[test]
    fn what_arrives_is_the_signal_of_the_definition(
        samples in 1..20_usize, seed in 0..1000_u64, value in 0.0..1.0_f64,
    ) {
        let network = dense::<f64>([5, 6, 4, 5, 3]);
        let x = random(5, samples, seed);
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        network.forward(&x, &mut activations).unwrap();
        LOSS.error(&labels(samples, 3), &activations, &mut deltas).unwrap();
        let e = deltas.delta(3).unwrap().into_owned();
        let n = samples as f64;
        let mean = e.column_mean();
        let share = n * mean.norm_squared() / e.norm_squared();
        for signal in [centred(0.0), centred(value), ternary(value)] {
            let sent = match signal {
                Signal::ErrorTernary(_) => e.map(|e| {
                    if (e * n).abs() > value { e.signum() / n } else { 0.0 }
                }),
                Signal::ErrorCentred(threshold) if share <= threshold.value() => e.clone(),
                _ => DMatrix::from_fn(3, samples, |k, j| e[(k, j)] - mean[k]),
            };
            let feedback = with_signal(&network, FeedbackRule::Dfa, signal);
            feedback.deliver(&network, &activations, &mut deltas).unwrap();
            for layer in 0..3 {
                let slope = activations.output(layer).unwrap().map(|h| match layer {
                    1 => h * (1.0 - h),
                    _ => 1.0 - h * h,
                });
                let b = feedback.matrix(layer).unwrap().unwrap();
                let expected = (b * &sent).component_mul(&slope);
                let error = (deltas.delta(layer).unwrap() - expected).amax();
                prop_assert!(error <= 1e-15, "{signal}, layer {layer}: {error:e}");
            }
        }
    }
}

/// The gate opens where the common mode of the output, as a diagnosis tells it, exceeds the
/// threshold, and a closed gate is as if it were not there.
#[test]
fn the_gate_is_open_above_its_threshold() {
    for network in [dense([7, 6, 5, 4, 3]), conv_net(), residual_net()] {
        let builder = Trainer::builder(network.clone()).rule(FeedbackRule::Dfa);
        let trainer = builder.build().unwrap();
        let mut diagnostics = Diagnostics::new(&network).unwrap();
        let (x, y) = (random(network.input_len(), 9, 5), labels(9, 3));
        let share = diagnostics.observe(&trainer, &x, &y).unwrap().layers[3].common_mode.unwrap();
        assert!((0.001..0.9).contains(&share), "{share}");
        for rule in [FeedbackRule::Dfa, FeedbackRule::Fa, FeedbackRule::Ifa, FeedbackRule::Bp] {
            let deltas =
                |signal| hidden(&network, &pass(&network, &with_signal(&network, rule, signal), 9));
            let (plain, always) = (deltas(Signal::Error), deltas(centred(0.0)));
            assert_ne!(plain, always);
            assert_eq!(deltas(centred(share * 0.999)), always, "{rule}");
            assert_eq!(deltas(centred(share * 1.001)), plain, "{rule}");
            assert_eq!(deltas(centred(1.0)), plain, "{rule}");
        }
    }
}

/// Where the output is the mean of the targets there is no common mode to take away. All numbers
/// are powers of two, so that the mean of the error is exactly 0.
#[test]
fn a_batch_whose_output_is_the_mean_target_is_unchanged() {
    let mut network = Network::<f64>::builder(3).dense(5).tanh().dense(4).seed(1).build().unwrap();
    network.set_weights(1, DMatrix::zeros(4, 5)).unwrap();
    network.set_output_prior(Loss::MeanSquaredError, &[0.25; 4]).unwrap();
    let (x, y) = (random(3, 8, 1), [0, 1, 2, 3, 3, 2, 1, 0]);
    let deltas = |signal| {
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        network.forward(&x, &mut activations).unwrap();
        Loss::MeanSquaredError.error(&y, &activations, &mut deltas).unwrap();
        let feedback = with_signal(&network, FeedbackRule::Dfa, signal);
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        deltas.delta(0).unwrap().into_owned()
    };
    assert_eq!(deltas(centred(0.0)), deltas(Signal::Error));
    assert!(deltas(Signal::Error).amax() > 0.01);
    // It is not so from elsewhere.
    network.set_bias(1, DVector::from_element(4, 0.5)).unwrap();
    let feedback = |signal| with_signal(&network, FeedbackRule::Dfa, signal);
    let [one, other] = [centred(0.0), Signal::Error].map(|s| pass(&network, &feedback(s), 8));
    assert_ne!(one.delta(0).unwrap(), other.delta(0).unwrap());
}

#[test]
fn a_signal_that_nobody_would_get_is_refused() {
    let network = dense::<f32>([7, 6, 5, 4, 3]);
    for rule in [FeedbackRule::Shallow, FeedbackRule::Drtp] {
        let refused = Trainer::builder(network.clone()).rule(rule).signal(centred(0.0)).build();
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("centred>0.0") && message.contains("no hidden layer"),
            "{message}"
        );
        let mut feedback = Feedback::new(&network, rule, FeedbackInit::default(), 1).unwrap();
        let before = feedback.clone();
        assert!(matches!(feedback.set_signal(centred(0.0)), Err(Error::Conflict { .. })));
        assert_eq!(feedback, before);
    }
    let dfa = Trainer::builder(network.clone()).signal(Signal::Delta(1)).build();
    assert!(matches!(dfa, Err(Error::Conflict { .. })));
    // Without hidden layers there is nothing to replace, and nothing to complain about.
    let flat = Network::<f32>::builder(3).dense(2).build().unwrap();
    Trainer::builder(flat).signal(centred(0.5)).build().unwrap();
}

/// Matrices stay when the signal changes, and the name comes back with the route.
#[test]
fn a_signal_can_be_changed_in_mid_run() {
    let network = dense::<f64>([7, 6, 5, 4, 3]);
    let dfa = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::default(), 0).unwrap();
    let mut trainer = Trainer::builder(network).signal(centred(0.0)).build().unwrap();
    let name = "4:B(centred>0.0)->2,B(centred>0.0)->1,B(centred>0.0)->0";
    assert_eq!(trainer.feedback().rule_name(), name);
    let of = |feedback: &Feedback<f64>| -> Vec<_> {
        feedback.matrices().map(|matrix| matrix.unwrap().1).collect()
    };
    assert_eq!(of(trainer.feedback()), of(&dfa));
    trainer.step(&random(7, 9, 1), &labels(9, 3)).unwrap();
    trainer.feedback_mut().set_signal(Signal::Target).unwrap();
    trainer.step(&random(7, 9, 1), &labels(9, 3)).unwrap();
    trainer.set_rule(FeedbackRule::Dfa).unwrap();
    trainer.feedback_mut().set_signal(Signal::Error).unwrap();
    assert_eq!(trainer.feedback().rule(), Some(FeedbackRule::Dfa));
}

#[cfg(feature = "safetensors")]
#[test]
fn a_checkpoint_keeps_signals_to_the_bit() {
    fn check<T: Scalar>() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let network = dense::<T>([7, 6, 5, 4, 3]);
        let odd = [5e-324, 1e-10, 0.1 + 0.2, 0.0, f64::MAX];
        for signal in odd.into_iter().flat_map(|value| [centred(value), ternary(value)]) {
            for rule in rules() {
                let builder = Trainer::builder(network.clone()).rule(rule).signal(signal);
                let mut whole = builder.seed(5).build().unwrap();
                let x = random(7, 9, 1).map(T::of);
                whole.step(&x, &labels(9, 3)).unwrap();
                whole.save(&path).unwrap();
                let mut resumed = Trainer::<T>::load(&path).unwrap();
                assert_eq!(resumed.feedback().route(), whole.feedback().route());
                let [saved, found] = [&whole, &resumed]
                    .map(|trainer| trainer.feedback().matrices().map(Result::unwrap));
                assert!(found.eq(saved));
                for trainer in [&mut whole, &mut resumed] {
                    trainer.step(&x, &labels(9, 3)).unwrap();
                }
                assert_eq!(resumed.network(), whole.network(), "{rule}, {signal}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// 100 steps of SGD, computed with NumPy in float64:
///
/// ```python
/// import numpy as np
/// def fill(rows, columns): return 0.5 * np.sin(0.7 * np.arange(1, rows * columns + 1)).reshape(rows, columns)
/// def share(d): return 8 * (d.mean(1) ** 2).sum() / (d ** 2).sum()
/// def send(e, signal, threshold):
///     if signal == "ternary": return np.sign(e) / 8 * (np.abs(8 * e) > threshold)
///     return e - e.mean(1, keepdims=True) if share(e) > threshold else e
/// def run(rule, signal, threshold, prior=False, aligned=False, steps=100, rate=0.1):
///     n = [5, 6, 4, 3]
///     W = [fill(n[l + 1], n[l]) for l in range(3)]; b = [fill(n[l + 1], 1) for l in range(3)]
///     B = [fill(n[l + 1], n[3] if rule != "FA" else n[l + 2]) + 0.1 for l in range(2)]
///     x, t = fill(8, 5).T, np.eye(3)[[0, 2, 1, 0, 2, 1, 0, 2]].T
///     if prior: b[2] = np.log(t.mean(1, keepdims=True))
///     if aligned:
///         M = [(W[2] @ W[1]).T if rule != "FA" else W[1].T, W[2].T]
///         B = [m * np.linalg.norm(v) / np.linalg.norm(m) for m, v in zip(M, B)]
///     for _ in range(steps):
///         h = [x]
///         for l in range(2): h.append(np.tanh(W[l] @ h[l] + b[l]))
///         a = W[2] @ h[2] + b[2]
///         p = np.exp(a) / np.exp(a).sum(0)
///         e = (p - t) / 8
///         s = send(e, signal, threshold)
///         d = [None, None, e]
///         if rule == "IFA":
///             d[0] = (B[0] @ s) * (1 - h[1] ** 2); d[1] = (W[1] @ d[0]) * (1 - h[2] ** 2)
///         else:
///             for l in (1, 0): d[l] = (B[l] @ (s if rule == "DFA" or l == 1 else d[l + 1])) * (1 - h[l + 1] ** 2)
///         for l in range(3):
///             W[l] = W[l] - rate * d[l] @ h[l].T; b[l] = b[l] - rate * d[l].sum(1, keepdims=True)
///     return [np.abs(v).sum() for v in W] + [W[0][1, 2]]
/// ```
///
/// The gate of 0.0015 is open in 20 of the steps.
#[test]
fn a_hundred_steps_are_those_of_numpy() {
    let x = sines(8, 5).transpose();
    for (rule, signal, prior, aligned, expected) in NUMPY {
        let network = numpy_net();
        let mut own = Feedback::new(&network, rule, FeedbackInit::default(), 1).unwrap();
        for layer in 0..2 {
            let Some(matrix) = own.matrix(layer).unwrap() else { continue };
            own.set_matrix(layer, sines(matrix.nrows(), matrix.ncols()).add_scalar(0.1)).unwrap();
        }
        let sgd = Sgd { learning_rate: 0.1, ..Sgd::default() };
        let builder = Trainer::builder(network).feedback(own).optimizer(sgd);
        let builder = builder.signal(signal.parse().unwrap());
        let builder = if aligned { builder.aligned() } else { builder };
        let shares = [3.0 / 8.0, 2.0 / 8.0, 3.0 / 8.0];
        let builder = if prior { builder.prior(shares) } else { builder };
        let trainer = hundred_steps(builder, &x);
        assert_weights(&format!("{rule}, {signal}"), &trainer, &expected, 1e-12);
    }
}

/// Rule, signal, whether the bias starts from the prior and the matrices along the weights;
/// `Σ|W_1|`, `Σ|W_2|`, `Σ|W_3|`, and an entry of `W_1`.
const NUMPY: [(FeedbackRule, &str, bool, bool, [f64; 4]); 8] = [
    (
        FeedbackRule::Dfa,
        "centred>0.0",
        false,
        false,
        [
            10.341_289_726_111_935,
            7.735_840_891_684_845,
            3.736_695_414_736_003,
            -0.357_545_136_819_067_2,
        ],
    ),
    (
        FeedbackRule::Dfa,
        "centred>0.0015",
        false,
        false,
        [
            10.337_059_743_435_072,
            7.739_021_912_481_653,
            3.738_909_308_041_735_7,
            -0.357_110_929_481_754_1,
        ],
    ),
    (
        FeedbackRule::Dfa,
        "ternary>0.3",
        false,
        false,
        [
            10.213_019_436_293_456,
            6.981_444_000_909_975,
            3.978_081_059_555_324_7,
            -0.399_129_420_100_945_9,
        ],
    ),
    (
        FeedbackRule::Fa,
        "centred>0.0",
        false,
        false,
        [
            9.664_350_192_428_032,
            7.726_228_638_941_537,
            3.745_499_113_779_792,
            -0.310_342_348_235_181_75,
        ],
    ),
    (
        FeedbackRule::Ifa,
        "centred>0.0",
        false,
        false,
        [
            10.339_893_173_300_705,
            7.647_448_724_204_399,
            3.642_316_549_151_104_3,
            -0.358_172_783_701_447_3,
        ],
    ),
    (
        FeedbackRule::Dfa,
        "centred>1.0",
        true,
        true,
        [
            10.167_764_141_560_276,
            7.696_838_716_192_388,
            4.026_582_898_985_315,
            -0.379_286_662_350_917_3,
        ],
    ),
    (
        FeedbackRule::Fa,
        "centred>1.0",
        false,
        true,
        [
            9.776_868_100_431_804,
            7.870_510_384_659_354_5,
            4.412_401_505_973_151,
            -0.270_704_025_540_526_75,
        ],
    ),
    (
        FeedbackRule::Ifa,
        "ternary>0.3",
        true,
        true,
        [
            9.223_710_907_817_425,
            8.647_862_578_342_988,
            3.521_428_790_836_546,
            -0.461_734_463_504_499_1,
        ],
    ),
];
