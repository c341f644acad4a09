//! The rules beyond Nøkland's: each against an identity and against 100 steps computed elsewhere.

use approx::assert_abs_diff_eq;

use crate::{
    helpers::{
        assert_weights, hundred_steps, magnitude, numbers, numpy_net, numpy_sgd, sines, thirds,
    },
    nets::dense_net,
};
use feedback_alignment::{
    Activations, Adam, Conv2d, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Gradients,
    Loss, MaxPool2d, Momentum, Network, Optimizer, OptimizerState, Part, RmsProp, Sgd, Trainer,
    WeightDecay, nalgebra::DMatrix,
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

const SIGNS: [FeedbackRule; 3] = [FeedbackRule::USf, FeedbackRule::FrSf, FeedbackRule::BrSf];

fn conv_net() -> Network<f64> {
    Network::builder((2, 7, 6))
        .conv2d(Conv2d { padding: (1, 0), ..Conv2d::new(3, 3) })
        .batch_norm()
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d::new(4, 2))
        .logistic()
        .dense(5)
        .tanh()
        .dense(3)
        .seed(2)
        .build()
        .unwrap()
}

fn feedback(network: &Network<f64>, rule: FeedbackRule) -> Feedback<f64> {
    Feedback::new(network, rule, FeedbackInit::Lillicrap, 7).unwrap()
}

/// What goes back under a rule after a forward pass.
fn pass(network: &Network<f64>, feedback: &mut Feedback<f64>, seed: usize) -> Deltas<f64> {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&numbers(network.input_len(), 9, seed), &mut activations).unwrap();
    LOSS.error(&thirds(9), &activations, &mut deltas).unwrap();
    feedback.follow(network, &activations).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    deltas
}

/// `W_{l+1}` in the shape of the feedback matrix of layer `l`: transposed, unless it holds kernels.
fn as_feedback(network: &Network<f64>, feedback: &Feedback<f64>, layer: usize) -> DMatrix<f64> {
    let weights = network.layer(layer + 1).unwrap().weights().into_owned();
    let kernels = feedback.matrix(layer).unwrap().unwrap().shape() == weights.shape();
    if kernels { weights } else { weights.transpose() }
}

/// Whatever the weights do, the matrices have their signs in every step, and their own magnitudes.
#[test]
fn signs_follow_the_weights_and_magnitudes_do_not() {
    for network in [dense_net(), conv_net()] {
        for rule in SIGNS {
            let start = feedback(&network, rule);
            let sgd = Sgd { learning_rate: 5.0, ..Sgd::default() };
            let builder = Trainer::builder(network.clone()).feedback(start.clone());
            let mut trainer = builder.optimizer(sgd).build().unwrap();
            let mut changed = 0;
            let mut last = start.clone();
            for step in 0..8 {
                let before = trainer.network().clone();
                trainer.step(&numbers(network.input_len(), 9, step), &thirds(9)).unwrap();
                for layer in 0..network.layer_count() - 1 {
                    let b = trainer.feedback().matrix(layer).unwrap().unwrap();
                    let w = as_feedback(&before, trainer.feedback(), layer);
                    assert_eq!(b.map(f64::signum), w.map(f64::signum), "{rule}");
                    let first = start.matrix(layer).unwrap().unwrap();
                    let of_last = last.matrix(layer).unwrap().unwrap();
                    changed += b
                        .iter()
                        .zip(&first)
                        .filter(|(b, first)| b.signum() != first.signum())
                        .count();
                    match rule {
                        FeedbackRule::BrSf if step == 0 => assert_eq!(b.abs(), first.abs()),
                        FeedbackRule::BrSf => assert_ne!(b.abs(), of_last.abs()),
                        _ => assert_eq!(b.abs(), first.abs()),
                    }
                }
                last = trainer.feedback().clone();
            }
            assert!(changed > 0, "no weight has changed its sign under {rule}");
        }
        let uniform = feedback(&network, FeedbackRule::USf);
        let last = network.layer_count() - 2;
        let (rows, columns) = uniform.matrix(last).unwrap().unwrap().shape();
        let magnitude = (2.0 / (rows + columns) as f64).sqrt();
        assert!(uniform.matrix(last).unwrap().unwrap().iter().all(|b| b.abs() == magnitude));
    }
}

/// The matrix is large enough for several threads. The magnitudes of brSF are uniform between 0 and 0.5.
#[test]
fn large_matrices_have_all_their_signs() {
    let network = Network::builder(84).dense(800).tanh().dense(700).tanh().dense(3).seed(3);
    let network = network.build().unwrap();
    for rule in SIGNS {
        let mut feedback = feedback(&network, rule);
        pass(&network, &mut feedback, 1);
        let b = feedback.matrix(0).unwrap().unwrap();
        let w = as_feedback(&network, &feedback, 0);
        assert_eq!(b.map(f64::signum), w.map(f64::signum), "{rule}");
        if rule == FeedbackRule::BrSf {
            let magnitudes = b.abs();
            assert!(magnitudes.min() > 0.0 && magnitudes.max() < 0.5, "{}", magnitudes.max());
            assert_abs_diff_eq!(magnitudes.mean(), 0.25, epsilon = 0.001);
            assert_abs_diff_eq!(magnitudes.variance(), 0.25 / 12.0, epsilon = 0.0001);
        }
    }
}

/// With the magnitudes of the weights the deltas are those of backpropagation, bit for bit.
#[test]
fn signs_with_the_magnitudes_of_the_weights_are_backpropagation() {
    for network in [dense_net(), conv_net()] {
        let mut fixed = feedback(&network, FeedbackRule::FrSf);
        for layer in 0..network.layer_count() - 1 {
            let magnitudes = as_feedback(&network, &fixed, layer).abs();
            fixed.set_matrix(layer, magnitudes).unwrap();
        }
        let mut bp = feedback(&network, FeedbackRule::Bp);
        let (found, expected) = (pass(&network, &mut fixed, 1), pass(&network, &mut bp, 1));
        for layer in 0..network.layer_count() {
            assert_eq!(found.delta(layer).unwrap(), expected.delta(layer).unwrap(), "{network}");
        }
    }
}

/// Signs that are not those of this forward pass are an error, not a wrong answer.
#[test]
fn signs_of_other_weights_are_refused() {
    let network = dense_net();
    for rule in SIGNS {
        let mut signs = feedback(&network, rule);
        let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
        for step in 0..2 {
            network.forward(&numbers(7, 9, step), &mut activations).unwrap();
            LOSS.error(&thirds(9), &activations, &mut deltas).unwrap();
            let refused = signs.deliver(&network, &activations, &mut deltas).unwrap_err();
            assert!(refused.to_string().contains("Feedback::follow"), "{refused}");
            signs.follow(&network, &activations).unwrap();
            signs.deliver(&network, &activations, &mut deltas).unwrap();
        }
        // A matrix of one's own has signs of its own until it follows again.
        let own = signs.matrix(0).unwrap().unwrap().abs();
        signs.set_matrix(0, own).unwrap();
        assert!(signs.deliver(&network, &activations, &mut deltas).is_err(), "{rule}");
        signs.follow(&network, &activations).unwrap();
        signs.deliver(&network, &activations, &mut deltas).unwrap();
        let refused = signs.follow(&conv_net(), &activations).unwrap_err();
        assert!(matches!(refused, Error::StageMismatch { .. }), "{refused}");
    }
}

fn optimizers() -> [Optimizer; 4] {
    let momentum = Momentum::Nesterov(0.9);
    [
        Sgd { learning_rate: 0.2, ..Sgd::default() }.into(),
        Sgd { learning_rate: 0.05, momentum, ..Sgd::default() }.into(),
        RmsProp { learning_rate: 1e-3, ..RmsProp::default() }.into(),
        Adam { learning_rate: 1e-3, ..Adam::default() }.into(),
    ]
}

/// `B_l − W_{l+1}ᵀ` of every hidden layer.
fn differences(trainer: &Trainer<f64>) -> Vec<DMatrix<f64>> {
    let (network, feedback) = (trainer.network(), trainer.feedback());
    let hidden = 0..network.layer_count() - 1;
    hidden
        .map(|layer| {
            feedback.matrix(layer).unwrap().unwrap() - as_feedback(network, feedback, layer)
        })
        .collect()
}

/// `B_t − W_tᵀ = (1 − λη)ᵗ (B_0 − W_0ᵀ)`: equal updates keep the difference, and decay takes it away.
#[test]
fn what_kolen_and_pollack_differ_by_decays() {
    let decays = [0.0, 0.3].map(|lambda| {
        let sgd = Sgd { learning_rate: 0.2, ..Sgd::default() };
        let coupled = Sgd { weight_decay: WeightDecay::L2(lambda), ..sgd };
        let beside = Sgd { weight_decay: WeightDecay::Decoupled(lambda), ..sgd };
        [(coupled.into(), 1.0 - 0.2 * lambda), (beside.into(), 1.0 - 0.2 * lambda)]
    });
    let plain = optimizers().map(|optimizer| (optimizer, 1.0));
    for network in [dense_net(), conv_net()] {
        for (optimizer, factor) in decays.as_flattened().iter().copied().chain(plain) {
            let builder = Trainer::builder(network.clone()).rule(FeedbackRule::Kp).seed(5);
            let mut trainer = builder.optimizer(optimizer).build().unwrap();
            let (start, old) = (differences(&trainer), trainer.network().clone());
            let mut left = 1.0;
            for step in 0..10 {
                trainer.step(&numbers(network.input_len(), 9, step), &thirds(9)).unwrap();
                left *= factor;
            }
            for (start, now) in start.iter().zip(differences(&trainer)) {
                let error = (now - start * left).amax();
                assert!(error < 1e-13, "{optimizer:?}, {network}: {error:e}");
            }
            assert!(old.layer(0).unwrap() != trainer.network().layer(0).unwrap());
        }
    }
}

/// From `B = Wᵀ` on it is backpropagation, with every optimiser, by single steps and in sight of the
/// gradients, and moments of its own do not change that.
#[test]
fn kolen_and_pollack_from_the_weights_is_backpropagation() {
    for network in [dense_net(), conv_net()] {
        for optimizer in optimizers() {
            let mut kp = feedback(&network, FeedbackRule::Kp);
            for layer in 0..network.layer_count() - 1 {
                kp.set_matrix(layer, as_feedback(&network, &kp, layer)).unwrap();
            }
            let with = |feedback: Feedback<f64>| {
                let builder = Trainer::builder(network.clone()).feedback(feedback);
                builder.optimizer(optimizer).build().unwrap()
            };
            let bp = feedback(&network, FeedbackRule::Bp);
            let (mut found, mut expected) = (with(kp.clone()), with(bp));
            let mut seen = with(kp);
            for step in 0..5 {
                let (x, y) = (numbers(network.input_len(), 9, step), thirds(9));
                found.step(&x, &y).unwrap();
                expected.step(&x, &y).unwrap();
                seen.step_with(&x, &y, |_| Ok(())).unwrap();
            }
            assert_eq!(found.network(), expected.network(), "{optimizer:?}");
            assert_eq!((seen.network(), seen.feedback()), (found.network(), found.feedback()));
        }
    }
}

/// The feedback of a frozen layer rests with it, as do its moments.
#[test]
fn feedback_learns_with_its_layer() {
    let network = dense_net();
    let optimizer = Adam { learning_rate: 1e-2, ..Adam::default() };
    let builder = Trainer::builder(network.clone()).rule(FeedbackRule::Kp);
    let mut trainer = builder.optimizer(optimizer).build().unwrap();
    trainer.freeze(2).unwrap();
    let before = trainer.feedback().clone();
    trainer.step(&numbers(7, 9, 1), &thirds(9)).unwrap();
    let same = |layer| trainer.feedback().matrix(layer).unwrap() == before.matrix(layer).unwrap();
    // The feedback of layer 1 stands in for the weights of layer 2.
    assert_eq!([0, 1, 2].map(same), [false, true, false]);
}

/// A step that would leave the feedback infinite changes neither the feedback nor the network.
#[test]
fn a_step_that_the_feedback_cannot_make_changes_nothing() {
    let network = Network::<f32>::builder(2).dense(3).dense(2).build().unwrap();
    let mut kp = Feedback::new(&network, FeedbackRule::Kp, FeedbackInit::Nokland, 1).unwrap();
    kp.set_matrix(0, DMatrix::from_element(3, 2, 3e38)).unwrap();
    let sgd = Sgd { learning_rate: 1.0, weight_decay: WeightDecay::L2(0.5), ..Sgd::default() };
    let mut optimizer = OptimizerState::new(&network, sgd).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(&DMatrix::from_element(2, 1, 1.0), &mut activations).unwrap();
    LOSS.error(&[0], &activations, &mut deltas).unwrap();
    let bp = Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::Nokland, 1).unwrap();
    bp.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    gradients.weights_mut(1).unwrap().fill(-2e38);
    let (mut found, mut feedback) = (network.clone(), kp.clone());
    let refused = optimizer.step_with_feedback(&mut found, &mut feedback, &gradients).unwrap_err();
    assert!(refused.to_string().contains("B of the feedback"), "{refused}");
    assert_eq!((&found, &feedback, optimizer.steps()), (&network, &kp, 0));
    // A moment that is too large for the network's own step takes the feedback back as well.
    let mut huge = network.clone();
    huge.set_weights(1, DMatrix::from_element(2, 3, 3e38)).unwrap();
    kp.set_matrix(0, DMatrix::from_element(3, 2, 1.0)).unwrap();
    let (mut found, mut feedback) = (huge.clone(), kp.clone());
    let refused = optimizer.step_with_feedback(&mut found, &mut feedback, &gradients).unwrap_err();
    assert!(refused.to_string().contains("W of weighted layer 1"), "{refused}");
    assert_eq!((&found, &feedback, optimizer.steps()), (&huge, &kp, 0));
}

/// The network's moments can be too large where those of the feedback are not.
#[test]
fn feedback_goes_back_with_the_network() {
    let mut network = Network::<f32>::builder(2).dense(3).dense(2).build().unwrap();
    network.set_weights(1, DMatrix::from_element(2, 3, 3e38)).unwrap();
    let mut kp = Feedback::new(&network, FeedbackRule::Kp, FeedbackInit::Nokland, 1).unwrap();
    let (momentum, weight_decay) = (Momentum::Classical(0.9), WeightDecay::L2(1.0));
    let sgd = Sgd { learning_rate: 0.5, momentum, weight_decay };
    let mut optimizer = OptimizerState::new(&network, sgd).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(&DMatrix::zeros(2, 1), &mut activations).unwrap();
    LOSS.error(&[0], &activations, &mut deltas).unwrap();
    kp.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    // W and its moment: 3e38, 0; then 1.5e38, 3e38; then the moment would be 4.2e38.
    optimizer.step_with_feedback(&mut network, &mut kp, &gradients).unwrap();
    let (mut found, mut feedback) = (network.clone(), kp.clone());
    let refused = optimizer.step_with_feedback(&mut found, &mut feedback, &gradients).unwrap_err();
    assert!(refused.to_string().contains("W of weighted layer 1"), "{refused}");
    assert_eq!((&found, &feedback, optimizer.steps()), (&network, &kp, 1));
}

/// What would not be learned is refused.
#[test]
fn feedback_that_learns_wants_the_step_that_teaches_it() {
    let mut network = dense_net();
    let kp = feedback(&network, FeedbackRule::Kp);
    let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&numbers(7, 9, 1), &mut activations).unwrap();
    LOSS.error(&thirds(9), &activations, &mut deltas).unwrap();
    let refused = optimizer.deliver_and_learn(&mut network, &kp, &activations, &mut deltas);
    assert!(refused.unwrap_err().to_string().contains("step_with_feedback"));
}

#[test]
fn hidden_layers_of_a_shallow_network_keep_their_bits() {
    let network = dense_net();
    let mut trainer =
        Trainer::builder(network.clone()).rule(FeedbackRule::Shallow).build().unwrap();
    let mut dfa = Trainer::builder(network.clone()).rule(FeedbackRule::Dfa).build().unwrap();
    for (step, trainer) in [(1, &mut trainer), (1, &mut dfa)] {
        trainer.step(&numbers(7, 9, step), &thirds(9)).unwrap();
    }
    for layer in 0..3 {
        assert_eq!(trainer.network().layer(layer).unwrap(), network.layer(layer).unwrap());
    }
    // The gradient of the output layer is the same under all rules.
    assert_eq!(trainer.network().layer(3).unwrap(), dfa.network().layer(3).unwrap());
}

/// Hidden layers of DRTP never learn what the output was; those of sDFA see its signs only.
#[test]
fn projected_targets_do_not_see_the_output() {
    let (network, mut other) = (dense_net(), dense_net());
    let top = other.layer(3).unwrap().weights() * -0.7;
    other.set_weights(3, top).unwrap();
    let mut rule = feedback(&network, FeedbackRule::Drtp);
    let (one, two) = (pass(&network, &mut rule, 1), pass(&other, &mut rule, 1));
    for layer in 0..3 {
        assert_eq!(one.delta(layer).unwrap(), two.delta(layer).unwrap());
    }
    assert_ne!(one.delta(3).unwrap(), two.delta(3).unwrap());
}

/// 100 steps of SGD with momentum and decay, computed with NumPy in float64:
///
/// ```python
/// import numpy as np
/// def fill(rows, columns): return 0.5 * np.sin(0.7 * np.arange(1, rows * columns + 1)).reshape(rows, columns)
/// def run(rule, steps=100, rate=0.1, mu=0.9, decay=0.01):
///     n = [5, 6, 4, 3]
///     W = [fill(n[l + 1], n[l]) for l in range(3)]; b = [fill(n[l + 1], 1) for l in range(3)]
///     straight = rule in ("DFA", "sDFA", "DRTP")
///     B = [fill(n[l + 1], n[3] if straight else n[l + 2]) + 0.1 for l in range(2)]
///     x, t = fill(8, 5).T, np.eye(3)[[0, 2, 1, 0, 2, 1, 0, 2]].T
///     vW, vb, vB = [0 * w for w in W], [0 * v for v in b], [0 * v for v in B]
///     for _ in range(steps):
///         h = [x]
///         for l in range(2): h.append(np.tanh(W[l] @ h[l] + b[l]))
///         a = W[2] @ h[2] + b[2]
///         p = np.exp(a) / np.exp(a).sum(0)
///         e = (p - t) / 8
///         d = [None, None, e]
///         for l in (1, 0):
///             if straight: s = B[l] @ {"DFA": e, "sDFA": np.sign(e) / 8, "DRTP": t / 8}[rule]
///             else:
///                 s = {"FA": B[l], "KP": B[l], "frSF": np.abs(B[l]) * np.sign(W[l + 1].T),
///                      "uSF": np.sqrt(2 / (n[l + 1] + n[l + 2])) * np.sign(W[l + 1].T)}[rule] @ d[l + 1]
///             d[l] = s * (1 - h[l + 1] ** 2)
///         g = [d[l] @ h[l].T for l in range(3)]
///         if rule == "KP":
///             for l in range(2): vB[l] = mu * vB[l] + g[l + 1].T + decay * B[l]; B[l] = B[l] - rate * vB[l]
///         for l in range(3):
///             vW[l] = mu * vW[l] + g[l] + decay * W[l]; W[l] = W[l] - rate * vW[l]
///             vb[l] = mu * vb[l] + d[l].sum(1, keepdims=True); b[l] = b[l] - rate * vb[l]
///     return [np.abs(v).sum() for v in W] + [W[0][1, 2], np.abs(B[0]).sum()]
/// ```
#[test]
fn a_hundred_steps_are_those_of_numpy() {
    let network = numpy_net();
    let x = sines(8, 5).transpose();
    for (rule, expected) in NUMPY {
        let mut own = feedback(&network, rule);
        for layer in 0..2 {
            let (rows, columns) = own.matrix(layer).unwrap().unwrap().shape();
            own.set_matrix(layer, sines(rows, columns).add_scalar(0.1)).unwrap();
        }
        let builder = Trainer::builder(network.clone()).feedback(own).optimizer(numpy_sgd());
        let trainer = hundred_steps(builder, &x);
        assert_weights(&rule.to_string(), &trainer, &expected, 1e-12);
        // The magnitudes of uniform signs are not drawn.
        if rule != FeedbackRule::USf {
            let found = magnitude(&trainer.feedback().matrix(0).unwrap().unwrap());
            assert!((found / expected[4] - 1.0).abs() < 1e-12, "{rule}: B {found}");
        }
    }
}

/// `Σ|W_1|`, `Σ|W_2|`, `Σ|W_3|`, an entry of `W_1`, and `Σ|B_1|`.
const NUMPY: [(FeedbackRule, [f64; 5]); 7] = [
    (
        FeedbackRule::Fa,
        [
            3.344_378_508_115_784,
            2.889_325_874_450_195_3,
            1.963_689_616_879_738_4,
            -0.091_555_255_706_044_3,
            8.127_701_361_263_636,
        ],
    ),
    (
        FeedbackRule::Dfa,
        [
            7.729_046_464_361_123,
            3.776_585_739_412_397_4,
            3.723_402_167_353_327_3,
            -0.419_034_145_898_968_6,
            5.888_360_982_990_825,
        ],
    ),
    (
        FeedbackRule::SDfa,
        [
            1.402_877_705_734_851_6,
            6.351_535_488_638_916,
            1.413_128_330_613_579_1,
            -0.011_761_339_717_065_045,
            5.888_360_982_990_825,
        ],
    ),
    (
        FeedbackRule::Drtp,
        [
            1.704_566_276_524_975_2,
            6.183_758_790_868_891,
            1.371_138_671_227_130_7,
            -0.023_810_590_979_833_478,
            5.888_360_982_990_825,
        ],
    ),
    (
        FeedbackRule::USf,
        [
            15.184_890_793_303_087,
            11.669_651_553_880_808,
            9.654_065_408_192_247,
            0.311_224_048_808_840_47,
            8.127_701_361_263_636,
        ],
    ),
    (
        FeedbackRule::FrSf,
        [
            7.413_477_294_626_181,
            6.118_271_614_766_493,
            5.316_368_024_042_74,
            -0.017_982_248_158_820_102,
            8.127_701_361_263_636,
        ],
    ),
    (
        FeedbackRule::Kp,
        [
            7.466_392_800_294_863,
            5.818_526_330_541_244_5,
            3.598_553_733_682_379,
            -0.258_979_581_516_763_15,
            6.421_352_649_493_047,
        ],
    ),
];

/// The distribution and the seed of brSF's magnitudes are in a checkpoint, and in no other.
#[cfg(feature = "safetensors")]
#[test]
fn magnitudes_are_saved_where_they_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let own = Feedback::new(&dense_net(), FeedbackRule::BrSf, FeedbackInit::LightOn, 99).unwrap();
    let mut trainer = Trainer::builder(dense_net()).feedback(own).seed(5).build().unwrap();
    trainer.save(&path).unwrap();
    let mut resumed = Trainer::<f64>::load(&path).unwrap();
    for trainer in [&mut trainer, &mut resumed] {
        trainer.step(&numbers(7, 9, 1), &thirds(9)).unwrap();
        trainer.step(&numbers(7, 9, 2), &thirds(9)).unwrap();
    }
    assert_eq!((resumed.network(), resumed.feedback()), (trainer.network(), trainer.feedback()));
    let plain = Trainer::builder(dense_net()).rule(FeedbackRule::FrSf).batch_size(3).build();
    plain.unwrap().save(&path).unwrap();
    let damaged = folder.path().join("damaged");
    let line = "\nmagnitudes init=nokland seed=1\ninput ";
    crate::craft::Craft::open(&path).replace("\ninput ", line).write(&damaged);
    let refused = Trainer::<f64>::load(&damaged).unwrap_err().to_string();
    assert!(refused.contains("drawn anew"), "{refused}");
}

/// Scales and shifts of batch normalisation learn under every rule whose feedback gets there.
#[test]
fn normalisation_learns_where_feedback_gets() {
    for rule in FeedbackRule::all() {
        let mut network = conv_net();
        if rule == FeedbackRule::Shallow {
            network.freeze(0).unwrap();
        }
        let mut trainer = Trainer::builder(network.clone()).rule(rule).build().unwrap();
        for step in 1..3 {
            trainer.step(&numbers(84, 9, step), &thirds(9)).unwrap(); // FDFA's first is without feedback.
        }
        let (old, new) = (network.parameters(), trainer.network().parameters());
        let learned = old.get(0, Part::Scale) != new.get(0, Part::Scale);
        assert_eq!(learned, rule != FeedbackRule::Shallow, "{rule}");
    }
}
