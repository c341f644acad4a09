//! Layers that are worked on in pieces: gradients of many tiles, products and updates that threads
//! share, for a batch and for a single sample. Each is compared with three plain loops in `f64`,
//! and the trainer's fused step with the plain stages, bit for bit.

use crate::helpers::{Pass, labels, optimizers};

use feedback_alignment::{
    Activation, Adam, AvgPool2d, Bias, Conv2d, Feedback, FeedbackInit, FeedbackRule, Init, Loss,
    MaxPool2d, Network, Optimizer, OptimizerState, Part, Scalar, Trainer,
    nalgebra::{DMatrix, DMatrixView},
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

/// Runs `work` on so many threads.
fn on_threads<R: Send>(count: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap().install(work)
}

/// Numbers from −1 to 1 from a hash, so that inputs need no generator.
fn samples<T: Scalar>(inputs: usize, count: usize, seed: usize) -> DMatrix<T> {
    DMatrix::from_fn(inputs, count, |i, j| {
        let mut z = ((seed * 7919 + j) * 104_729 + i) as u64;
        z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        T::of((z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
    })
}

/// A net of tanh units, with weights of the size that training has.
fn dense<T: Scalar>(widths: &[usize]) -> Network<T> {
    let mut builder = Network::builder(widths[0]);
    for &units in &widths[1..widths.len() - 1] {
        builder = builder.dense(units).tanh();
    }
    builder.dense(widths[widths.len() - 1]).init(Init::FanIn).seed(3).build().unwrap()
}

fn feedback<T: Scalar>(network: &Network<T>, rule: FeedbackRule) -> Feedback<T> {
    Feedback::new(network, rule, FeedbackInit::Nokland, 7).unwrap()
}

/// `a·b` and `|a|·|b|`, by three loops.
fn product(a: &DMatrix<f64>, b: &DMatrix<f64>) -> (DMatrix<f64>, DMatrix<f64>) {
    assert_eq!(a.ncols(), b.nrows());
    let (mut c, mut sizes) =
        (DMatrix::zeros(a.nrows(), b.ncols()), DMatrix::zeros(a.nrows(), b.ncols()));
    for j in 0..b.ncols() {
        let (mut c, mut sizes) = (c.column_mut(j), sizes.column_mut(j));
        for k in 0..a.ncols() {
            let (column, b) = (a.column(k), b[(k, j)]);
            for i in 0..a.nrows() {
                c[i] += column[i] * b;
                sizes[i] += (column[i] * b).abs();
            }
        }
    }
    (c, sizes)
}

fn wide<T: Scalar>(matrix: DMatrixView<T>) -> DMatrix<f64> {
    matrix.map(Scalar::as_f64)
}

/// Fails unless `found` is `expected` up to the rounding of sums of `terms` products whose
/// magnitudes add up to `sizes`: no more than `terms` times that of a single operation.
fn assert_close<T: Scalar>(
    found: DMatrixView<T>,
    (expected, sizes): &(DMatrix<f64>, DMatrix<f64>),
    terms: usize,
    what: &str,
) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let epsilon = if size_of::<T>() == 4 { f64::from(f32::EPSILON) } else { f64::EPSILON };
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        // One half is of the expected value itself, in `f64` nets.
        let bound = 2.0 * epsilon * (terms + 10) as f64 * sizes[index] + 1e-300;
        let difference = (found.as_f64() - expected).abs();
        assert!(difference <= bound, "{what}, entry {index}: {found:?} against {expected}");
    }
}

/// Every product of a pass through a net of tanh units, each on what the crate gave it.
fn check_products<T: Scalar>(
    network: &Network<T>,
    rule: FeedbackRule,
    count: usize,
    threads: usize,
) {
    let feedback = feedback(network, rule);
    let (x, labels) =
        (samples::<T>(network.input_len(), count, 1), labels(count, network.output_len()));
    let mut pass = Pass::new(0);
    on_threads(threads, || pass.run(network, &feedback, &x, &labels));
    let last = network.layer_count() - 1;
    let weights: Vec<_> =
        (0..=last).map(|l| wide(network.layer(l).unwrap().weights().as_view())).collect();
    let deltas: Vec<_> = (0..=last).map(|l| wide(pass.deltas.delta(l).unwrap())).collect();
    for l in 0..=last {
        let what = |name: &str| {
            format!("{name} of layer {l} of {network}, {rule}, batch {count}, {threads} threads")
        };
        let h = match l {
            0 => wide(x.as_view()),
            _ => wide(pass.activations.output(l - 1).unwrap()),
        };
        let (mut a, mut sizes) = product(&weights[l], &h);
        let bias = network.layer(l).unwrap().bias().unwrap();
        for j in 0..count {
            for i in 0..a.nrows() {
                a[(i, j)] += bias[i].as_f64();
                sizes[(i, j)] += bias[i].as_f64().abs();
            }
        }
        let found = pass.activations.pre_activation(l).unwrap();
        assert_close(found, &(a, sizes), h.nrows(), &what("a"));

        let gradient = pass.gradients.weights(l).unwrap();
        let expected = product(&deltas[l], &h.transpose());
        assert_close(gradient.as_view(), &expected, count, &what("∂W"));
        let gradient = pass.gradients.bias(l).unwrap().unwrap();
        let expected = product(&deltas[l], &DMatrix::from_element(count, 1, 1.0));
        assert_close(gradient.as_view(), &expected, count, &what("∂b"));

        if l == last {
            continue;
        }
        let matrix = || wide(feedback.matrix(l).unwrap().unwrap().as_view());
        let (by, signal) = match rule {
            FeedbackRule::Bp => (weights[l + 1].transpose(), &deltas[l + 1]),
            FeedbackRule::Fa => (matrix(), &deltas[l + 1]),
            FeedbackRule::Ifa if l > 0 => (weights[l].clone(), &deltas[l - 1]),
            _ => (matrix(), &deltas[last]),
        };
        let (mut delta, sizes) = product(&by, signal);
        let a = pass.activations.pre_activation(l).unwrap();
        for (delta, a) in delta.iter_mut().zip(a.iter()) {
            *delta *= Activation::Tanh.derivative(a.as_f64());
        }
        let found = pass.deltas.delta(l).unwrap();
        assert_close(found, &(delta, sizes), by.ncols(), &what("δ"));
    }
}

/// Widths at which a gradient has several tiles; the second leaves a single column over, and the
/// third is of tiles of the smallest width with one left over.
const WIDTHS: [&[usize]; 3] = [&[300, 200, 170, 5], &[164, 200, 7, 3], &[33, 2048, 33, 2]];

#[test]
fn products_in_many_tiles_agree_with_three_loops() {
    for widths in WIDTHS {
        for count in [1, 2, 64] {
            for rule in FeedbackRule::nokland() {
                check_products::<f32>(&dense(widths), rule, count, 2);
                check_products::<f64>(&dense(widths), rule, count, 2);
            }
        }
    }
}

#[test]
fn products_that_threads_share_agree_with_three_loops() {
    let widths = [784, 600, 600, 10];
    check_products::<f32>(&dense(&widths), FeedbackRule::Bp, 64, 3);
    check_products::<f64>(&dense(&widths), FeedbackRule::Ifa, 64, 5);
    // Few rows: whole columns are shared out, with one left over.
    check_products::<f32>(&dense(&[500, 130, 400, 2]), FeedbackRule::Dfa, 97, 3);
    check_products::<f64>(&dense(&[500, 130, 400, 2]), FeedbackRule::Fa, 97, 3);
}

/// A product with a single column takes a quarter of the time of its multiply-adds to share out.
#[test]
fn products_of_a_single_sample_that_threads_share_agree_with_three_loops() {
    for rule in FeedbackRule::nokland() {
        check_products::<f32>(&dense(&[1700, 1501, 1601, 3]), rule, 1, 3);
    }
    check_products::<f64>(&dense(&[1700, 1501, 1601, 3]), FeedbackRule::Bp, 1, 4);
}

/// Three steps of the trainer, and the same by stages on a single thread, which goes through all
/// tiles in a row: gradients that are stored first, deltas that are delivered first, and all at
/// once.
fn check_steps<T: Scalar>(
    network: &Network<T>,
    (rule, optimizer, max_norm): (FeedbackRule, Optimizer, Option<f64>),
    count: usize,
    threads: usize,
) {
    let mut builder = Trainer::builder(network.clone()).rule(rule).loss(LOSS);
    builder = builder.optimizer(optimizer).seed(9).threads(1);
    if let Some(max_norm) = max_norm {
        builder = builder.max_norm(max_norm);
    }
    let mut trainer = builder.build().unwrap();
    trainer.set_threads(threads).unwrap();
    let feedback = trainer.feedback().clone();
    let mut state = OptimizerState::new(network, optimizer).unwrap();
    state.set_max_norm(max_norm).unwrap();
    let [mut plain, mut fused, mut direct] = [(); 3].map(|()| (network.clone(), state.clone()));
    let mut passes = [(); 3].map(|()| Pass::new(9));
    for step in 0..3 {
        let x = samples(network.input_len(), count, step);
        let labels = labels(count, network.output_len());
        trainer.step(&x, &labels).unwrap();
        on_threads(1, || {
            let [of_plain, of_fused, of_direct] = &mut passes;
            of_plain.run(&plain.0, &feedback, &x, &labels);
            plain.1.step(&mut plain.0, &of_plain.gradients).unwrap();
            of_fused.run(&fused.0, &feedback, &x, &labels);
            fused.1.learn(&mut fused.0, &of_fused.activations, &of_fused.deltas).unwrap();
            let Pass { activations, deltas, .. } = of_direct;
            direct.0.forward(&x, activations).unwrap();
            LOSS.error(&labels, activations, deltas).unwrap();
            direct.1.deliver_and_learn(&mut direct.0, &feedback, activations, deltas).unwrap();
        });
        let what = || {
            format!(
                "step {step} of {network}, {rule}, {optimizer:?}, max-norm {max_norm:?}, \
                 batch {count}, {threads} threads"
            )
        };
        assert!(fused == plain, "learn, {}", what());
        assert!(direct == plain, "deliver_and_learn, {}", what());
        assert!(*trainer.network() == plain.0, "trainer, {}", what());
        assert!(*trainer.optimizer() == plain.1, "moments of the trainer, {}", what());
    }
    assert!(plain.0 != *network);
}

/// Lengths of the rows of `W` as the tests draw it, some above and some below.
const MAX_NORM: Option<f64> = Some(0.577);

#[test]
fn steps_in_many_tiles_are_those_of_plain_stages() {
    for rule in FeedbackRule::nokland() {
        for optimizer in optimizers() {
            for max_norm in [None, MAX_NORM] {
                for count in [1, 64] {
                    let how = (rule, optimizer, max_norm);
                    check_steps::<f32>(&dense(&[300, 200, 170, 5]), how, count, 3);
                }
            }
        }
    }
}

#[test]
fn steps_in_uneven_tiles_are_those_of_plain_stages() {
    for (number, optimizer) in optimizers().into_iter().enumerate() {
        let rule = FeedbackRule::nokland().into_iter().nth(number % 4).unwrap();
        for widths in &WIDTHS[1..] {
            check_steps::<f64>(&dense(widths), (rule, optimizer, MAX_NORM), 1, 2);
            check_steps::<f64>(&dense(widths), (rule, optimizer, MAX_NORM), 3, 3);
        }
    }
}

#[test]
fn steps_that_threads_share_are_those_of_plain_stages() {
    let network = dense::<f32>(&[784, 600, 600, 10]);
    // A single sample takes more weights to be shared.
    let wider = dense::<f32>(&[1100, 1001, 900, 3]);
    for (number, optimizer) in optimizers().into_iter().enumerate() {
        for (turn, rule) in FeedbackRule::nokland().into_iter().enumerate() {
            let max_norm = if number % 2 == 0 { None } else { MAX_NORM };
            if (number + turn) % 4 == 0 {
                check_steps(&wider, (rule, optimizer, max_norm), 1, 3);
                check_steps(&network, (rule, optimizer, max_norm), 64, 3);
            }
        }
    }
}

/// Convolutional nets of several tiles: with one product for each row of the kernel and with a
/// single one, with and without a bias, with every kind of operation.
fn convolutional<T: Scalar>() -> [Network<T>; 3] {
    let wide = Network::builder((16, 9, 8))
        .conv2d(Conv2d {
            kernel: (3, 4),
            stride: (2, 1),
            padding: (1, 2),
            bias: Bias::Without,
            ..Conv2d::new(24, 1)
        })
        .batch_norm()
        .tanh()
        .dropout(0.2)
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(9, 3) })
        .softplus()
        .max_pool2d(MaxPool2d::new(2, 1))
        .dense(4);
    let narrow = Network::builder((3, 16, 16))
        .conv2d(Conv2d { padding: (2, 2), ..Conv2d::new(32, 5) })
        .relu()
        .avg_pool2d(AvgPool2d::new(3, 2))
        .conv2d(Conv2d { bias: Bias::Without, ..Conv2d::new(20, 3) })
        .tanh()
        .dense_without_bias(60)
        .elu(0.5)
        .dense(10);
    let single = Network::builder((1, 12, 11))
        .conv2d(Conv2d { stride: (1, 2), ..Conv2d::new(5, 3) })
        .tanh()
        .dense(3);
    [wide, narrow, single].map(|builder| builder.init(Init::FanIn).seed(2).build().unwrap())
}

#[test]
fn steps_of_convolutions_are_those_of_plain_stages() {
    for (turn, rule) in FeedbackRule::nokland().into_iter().enumerate() {
        for (number, optimizer) in optimizers().into_iter().enumerate() {
            for (index, network) in convolutional::<f32>().iter().enumerate() {
                let max_norm = if (number + turn) % 2 == 0 { None } else { MAX_NORM };
                check_steps(network, (rule, optimizer, max_norm), 2 - index.min(1), 3);
                if (number + turn + index) % 8 == 0 {
                    check_steps(network, (rule, optimizer, max_norm), 64, 3);
                }
            }
        }
        let [wide, ..] = convolutional::<f64>();
        check_steps(&wide, (rule, Adam::default().into(), MAX_NORM), 5, 2);
    }
}

/// A longer row is scaled down as a whole, over all tiles; a shorter one keeps its bits.
#[test]
fn max_norm_scales_whole_rows() {
    let network = dense::<f64>(&[300, 200, 170, 5]);
    for count in [1, 64] {
        let step = |max_norm: Option<f64>| {
            let mut trainer = Trainer::builder(network.clone()).loss(LOSS).build().unwrap();
            trainer.set_max_norm(max_norm).unwrap();
            trainer.step(&samples(300, count, 5), &labels(count, 5)).unwrap();
            trainer.into_network()
        };
        let (free, bounded) = (step(None), step(MAX_NORM));
        let bound = MAX_NORM.unwrap();
        let (mut longer, mut shorter) = (0, 0);
        for l in 0..2 {
            let (free, bounded) = (free.layer(l).unwrap(), bounded.layer(l).unwrap());
            assert_eq!(free.bias(), bounded.bias());
            for (free, bounded) in free.weights().row_iter().zip(bounded.weights().row_iter()) {
                let length = free.iter().map(|w| w * w).sum::<f64>().sqrt();
                if length <= bound {
                    shorter += 1;
                    assert_eq!(free, bounded);
                } else {
                    longer += 1;
                    assert!((free * (bound / length) - bounded).amax() < 1e-14, "{length}");
                }
            }
        }
        assert!(longer > 50 && shorter > 50, "{longer} longer, {shorter} shorter");
    }
}

/// `∂β = Σ δ` and `∂γ = Σ δ x̂` of what arrives at the end of a block, by plain loops.
#[test]
fn gradients_of_batch_normalisation_are_sums_over_the_batch() {
    let network = Network::<f64>::builder(5)
        .dense(4)
        .tanh()
        .batch_norm()
        .dense(6)
        .tanh()
        .dense(3)
        .build()
        .unwrap();
    let (x, labels) = (samples(5, 9, 1), labels(9, 3));
    for rule in FeedbackRule::nokland() {
        let feedback = feedback(&network, rule);
        let mut pass = Pass::new(0);
        pass.run(&network, &feedback, &x, &labels);
        let (from, e) = (pass.deltas.delta(1).unwrap(), pass.deltas.delta(2).unwrap());
        let matrix = feedback.matrix(0).unwrap();
        let arrives = match rule {
            FeedbackRule::Bp => network.layer(1).unwrap().weights().transpose() * from,
            FeedbackRule::Fa => matrix.unwrap() * from,
            _ => matrix.unwrap() * e,
        };
        let of = |part| pass.gradients.get(0, part).unwrap().unwrap();
        let (scale, shift) = (of(Part::Scale), of(Part::Shift));
        assert_eq!((scale.len(), shift.len()), (4, 4));
        let a = pass.activations.pre_activation(0).unwrap();
        for channel in 0..4 {
            let h: Vec<f64> = a.row(channel).iter().map(|a| a.tanh()).collect();
            let mean = h.iter().sum::<f64>() / 9.0;
            let variance = h.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / 9.0;
            let (mut of_scale, mut of_shift) = (0.0, 0.0);
            for (h, arrives) in h.iter().zip(arrives.row(channel).iter()) {
                of_scale += arrives * (h - mean) / (variance + 1e-5).sqrt();
                of_shift += arrives;
            }
            assert!((scale[channel] - of_scale).abs() < 1e-13, "{rule}");
            assert!((shift[channel] - of_shift).abs() < 1e-13, "{rule}");
        }
        assert_eq!(pass.gradients.get(1, Part::Scale).unwrap(), None);
        assert!(pass.gradients.get(3, Part::Scale).is_err());
    }
}
