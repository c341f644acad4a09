//! What a seed draws stays what it is, release after release, and training from it gives the same
//! bits whenever and on however many threads it runs.
//!
//! A change that breaks one of the expected values changes the results of everyone who fixed a
//! seed: it belongs into the changelog, and the new value here.

use approx::assert_relative_eq;
use feedback_alignment::{
    Adam, AdamW, Dataset, Decay, Feedback, FeedbackInit, FeedbackRule, Init, Loss, Momentum,
    Network, Optimizer, RmsProp, Scalar, Schedule, Sgd, Targets, Trainer, WeightDecay,
    nalgebra::DMatrix,
};

/// 4-5 tanh-4 logistic-3: no two shapes alike.
fn network<T: Scalar>(init: Init, seed: u64) -> Network<T> {
    let builder = Network::builder(4).dense(5).tanh().dense(4).logistic().dense(3);
    builder.init(init).seed(seed).build().unwrap()
}

/// Sixteen samples of three classes with inputs between −1 and 1.
fn data<T: Scalar>(features: usize) -> Dataset<T> {
    let x = DMatrix::from_fn(features, 16, |i, j| T::of(((i * 7 + j * 5) % 13) as f64 / 6.0 - 1.0));
    Dataset::new(x, (0..16).map(|j| j % 3).collect()).unwrap()
}

fn labels<T: Scalar>(targets: Targets<T>) -> Vec<usize> {
    match targets {
        Targets::Labels(labels) => labels.to_vec(),
        Targets::Values(_) => panic!("labels"),
    }
}

/// Every weight and bias, in bits.
fn bits<T: Scalar>(network: &Network<T>) -> Vec<u64> {
    network.parameters().as_slice().iter().map(|number| number.as_f64().to_bits()).collect()
}

#[test]
fn a_seed_draws_the_same_weights_for_ever() {
    for (init, seed, layer, expected) in [
        (
            Init::FanIn,
            0,
            0,
            [-0.244_031_392_593_906_83, -0.300_814_401_400_206_3, -0.255_075_986_589_514],
        ),
        (
            Init::FanIn,
            0,
            2,
            [0.442_052_523_746_047_1, -0.100_853_476_207_150_02, -0.465_640_489_654_941_76],
        ),
        (
            Init::FanIn,
            42,
            1,
            [0.294_866_615_336_797_75, -0.285_598_731_012_373_65, -0.311_227_362_948_391_1],
        ),
        (
            Init::GlorotUniform,
            42,
            1,
            [0.538_350_322_250_543, -0.521_429_557_901_091, -0.568_220_823_998_937_9],
        ),
        (
            Init::HeNormal,
            42,
            1,
            [0.493_344_998_368_868_7, -0.736_093_090_606_715_9, -0.736_772_694_690_089_3],
        ),
        (
            Init::Normal { std: 0.1 },
            7,
            0,
            [-0.039_418_087_880_092_115, 0.274_071_912_686_306, 0.219_517_313_414_346_85],
        ),
    ] {
        let network = network::<f64>(init, seed);
        let weights = network.layer(layer).unwrap().weights();
        assert_eq!(
            weights.iter().copied().take(3).collect::<Vec<_>>(),
            expected,
            "{init:?}, seed {seed}, layer {layer}"
        );
    }
}

#[test]
fn a_seed_draws_the_same_biases_for_ever() {
    let network = network::<f64>(Init::FanIn, 0);
    let bias = network.layer(1).unwrap().bias().unwrap();
    assert_eq!(
        bias.as_slice(),
        [
            0.044_689_102_571_127_93,
            -0.080_296_379_917_495_66,
            -0.435_153_708_006_563_33,
            -0.206_533_530_104_651_4
        ]
    );
}

#[test]
fn a_seed_draws_the_same_feedback_for_ever() {
    let network = network::<f64>(Init::FanIn, 0);
    for (rule, init, layer, expected) in [
        (
            FeedbackRule::Fa,
            FeedbackInit::Nokland,
            0,
            [0.104_410_251_797_326_83, -0.118_952_276_335_509_66, -0.171_809_389_694_785_26],
        ),
        (
            FeedbackRule::Fa,
            FeedbackInit::Nokland,
            1,
            [-0.085_586_205_177_960_34, -0.158_590_937_502_038, -0.302_892_138_975_269_9],
        ),
        (
            FeedbackRule::Dfa,
            FeedbackInit::Nokland,
            0,
            [0.104_410_251_797_326_83, -0.118_952_276_335_509_66, -0.171_809_389_694_785_26],
        ),
        (
            FeedbackRule::Dfa,
            FeedbackInit::Lillicrap,
            0,
            [0.116_734_210_283_346_18, -0.132_992_687_982_269_6, -0.192_088_737_265_145_86],
        ),
        (
            FeedbackRule::Dfa,
            FeedbackInit::Frenkel,
            1,
            [-0.209_642_531_707_150_36, -0.388_466_874_709_610_1, -0.741_931_187_589_580_4],
        ),
        (
            FeedbackRule::Dfa,
            FeedbackInit::LightOn,
            1,
            [-0.116_923_388_939_166_37, -0.128_899_727_273_569_4, -0.211_800_335_859_424_26],
        ),
        (
            FeedbackRule::Ifa,
            FeedbackInit::Normal { std: 0.3 },
            0,
            [0.098_133_414_461_923_83, -0.168_662_961_433_904_33, -0.074_533_777_960_153_83],
        ),
    ] {
        let feedback = Feedback::new(&network, rule, init, 42).unwrap();
        let mut matrix = feedback.matrix(layer).unwrap().unwrap();
        if rule == FeedbackRule::Fa {
            matrix = matrix.transpose(); // Drawn row by row.
        }
        assert_eq!(matrix.as_slice()[..3], expected, "{rule}, {init:?}, layer {layer}");
    }
}

#[test]
fn a_seed_shuffles_and_splits_alike_for_ever() {
    let x = DMatrix::from_element(1, 12, 0.0_f32);
    let data = Dataset::new(x, (0..12).collect()).unwrap();
    for (seed, epoch, expected) in [
        (0, 0, [6, 2, 3, 0, 7, 11, 5, 9, 1, 4, 8, 10]),
        (0, 1, [10, 5, 7, 3, 9, 11, 6, 2, 4, 8, 1, 0]),
        (42, 0, [0, 3, 10, 7, 9, 4, 1, 5, 2, 6, 8, 11]),
    ] {
        let order: Vec<usize> = data
            .batches(5, seed, epoch)
            .unwrap()
            .flat_map(|batch| labels(batch.targets()))
            .collect();
        assert_eq!(order, expected, "seed {seed}, epoch {epoch}");
    }
    let (train, held_out) = data.split(4, 42).unwrap();
    assert_eq!(labels(train.targets()), [9, 2, 7, 0, 11, 10, 4, 6]);
    assert_eq!(labels(held_out.targets()), [1, 3, 8, 5]);
}

#[test]
fn both_scalars_draw_the_same_numbers() {
    for init in [Init::FanIn, Init::GlorotNormal] {
        let (single, double) = (network::<f32>(init, 5), network::<f64>(init, 5));
        for layer in 0..3 {
            let (single, double) = (single.layer(layer).unwrap(), double.layer(layer).unwrap());
            assert_eq!(single.weights().into_owned(), double.weights().map(f32::of));
            assert_eq!(single.bias().unwrap().into_owned(), double.bias().unwrap().map(f32::of));
        }
        for rule in FeedbackRule::nokland() {
            let draw = FeedbackInit::LightOn;
            let single = Feedback::new(&single, rule, draw, 5).unwrap();
            let double = Feedback::new(&double, rule, draw, 5).unwrap();
            for layer in 0..2 {
                let rounded = double.matrix(layer).unwrap().map(|matrix| matrix.map(f32::of));
                assert_eq!(single.matrix(layer).unwrap(), rounded, "{rule}");
            }
        }
    }
}

/// Kernels differ between processors in the last digits, so these are not exact.
#[test]
fn trained_values_stay_what_they_are() {
    // The loss of the last epoch, and one weight of each layer.
    for (rule, expected) in [
        (
            FeedbackRule::Bp,
            [
                1.099_218_128_098_479_9,
                -0.138_337_969_280_900_2,
                0.392_782_004_848_401_37,
                -0.337_699_939_156_791_4,
            ],
        ),
        (
            FeedbackRule::Fa,
            [
                1.100_488_639_970_004,
                -0.124_856_360_773_178_9,
                0.387_059_128_097_939,
                -0.339_588_819_750_358_8,
            ],
        ),
        (
            FeedbackRule::Dfa,
            [
                1.100_425_174_585_126_3,
                -0.152_619_918_963_647_77,
                0.394_733_724_990_616_2,
                -0.339_799_774_394_767_66,
            ],
        ),
        (
            FeedbackRule::Ifa,
            [
                1.099_797_423_146_562,
                -0.152_569_578_128_667_48,
                0.392_732_548_695_085_8,
                -0.339_352_362_155_148_25,
            ],
        ),
    ] {
        let sgd = Sgd { learning_rate: 0.1, momentum: Momentum::Classical(0.5), ..Sgd::default() };
        let builder = Trainer::builder(network(Init::FanIn, 1)).rule(rule).optimizer(sgd);
        let mut trainer = builder.batch_size(5).seed(2).build().unwrap();
        let losses = [(); 5].map(|()| trainer.epoch(&data::<f64>(4)).unwrap().loss);
        let weight = |layer: usize| trainer.network().layer(layer).unwrap().weights()[(2, 3)];
        let found = [losses[4], weight(0), weight(1), weight(2)];
        for (found, expected) in found.into_iter().zip(expected) {
            assert_relative_eq!(found, expected, max_relative = 1e-5);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_whatever_trains() {
    let optimizers: [Optimizer; 6] = [
        Sgd::default().into(),
        Sgd {
            momentum: Momentum::Classical(0.9),
            weight_decay: WeightDecay::L2(1e-3),
            ..Sgd::default()
        }
        .into(),
        Sgd {
            momentum: Momentum::Nesterov(0.9),
            weight_decay: WeightDecay::Decoupled(1e-3),
            ..Sgd::default()
        }
        .into(),
        RmsProp::default().into(),
        Adam::default().into(),
        AdamW::default().into(),
    ];
    let data = data::<f32>(4);
    for rule in FeedbackRule::nokland() {
        for optimizer in optimizers {
            let train = |seed: u64| {
                let builder = Trainer::builder(network(Init::FanIn, seed)).rule(rule);
                let builder = builder.loss(Loss::LogisticCrossEntropy).optimizer(optimizer);
                let builder =
                    builder.schedule(Schedule { warm_up: 3, decay: Decay::Cosine { steps: 40 } });
                let mut trainer = builder.max_norm(2.0).batch_size(5).seed(seed).build().unwrap();
                let epochs = [(); 5].map(|()| trainer.epoch(&data).unwrap());
                let evaluation = trainer.evaluate(&data).unwrap();
                (bits(trainer.network()), epochs, evaluation)
            };
            let (first, again, other) = (train(3), train(3), train(4));
            assert_eq!(first, again, "{rule}, {optimizer:?}");
            assert_ne!(first.0, other.0, "{rule}, {optimizer:?}");
        }
    }
}

/// An evaluation in the middle, an error, or another user of the same memory leave no trace.
#[test]
fn what_happens_between_the_steps_does_not_matter() {
    for rule in FeedbackRule::nokland() {
        let trainer = || {
            Trainer::builder(network::<f32>(Init::FanIn, 1))
                .rule(rule)
                .batch_size(5)
                .build()
                .unwrap()
        };
        let (data, larger) =
            (data(4), Dataset::new(DMatrix::from_element(4, 700, 0.5), vec![1; 700]).unwrap());
        let (mut calm, mut busy) = (trainer(), trainer());
        for _ in 0..3 {
            calm.epoch(&data).unwrap();
            busy.epoch(&data).unwrap();
            busy.evaluate(&larger).unwrap();
            busy.predict_classes(&larger.inputs()).unwrap();
            assert!(busy.step(&larger.inputs(), &[9]).is_err());
            busy.clone().epoch(&larger).unwrap();
        }
        assert_eq!(bits(calm.network()), bits(busy.network()), "{rule}");
    }
}

/// Wide enough that every product of the hidden layers is split: 256 · 128 · 256 multiply-adds are
/// eight pieces.
#[cfg(feature = "parallel")]
#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let pixels = |i: usize, j: usize| ((i * 31 + j * 17) % 29) as f32 / 29.0;
    let x = DMatrix::from_fn(784, 300, pixels);
    let data = Dataset::new(x, (0..300).map(|j| j % 10).collect()).unwrap();
    for rule in FeedbackRule::nokland() {
        let train = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let network =
                    Network::<f32>::builder(784).dense(256).tanh().dense(256).tanh().dense(10);
                let builder = Trainer::builder(network.build().unwrap()).rule(rule);
                let mut trainer = builder.batch_size(128).build().unwrap();
                let epochs = [(); 2].map(|()| trainer.epoch(&data).unwrap());
                let logits = trainer.network().predict(&data.inputs()).unwrap();
                (bits(trainer.network()), logits, epochs, trainer.evaluate(&data).unwrap())
            })
        };
        let one = train(1);
        for threads in 2..=4 {
            assert!(train(threads) == one, "{rule} on {threads} threads");
        }
    }
}
