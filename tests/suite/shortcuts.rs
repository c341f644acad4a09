//! Residual connections that end in a smaller image: every second row and column, and zeros for the
//! channels that are missing.

use approx::assert_relative_eq;
use feedback_alignment::{
    Activations, Conv2d, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, GradientCheck,
    Gradients, Loss, MaxPool2d, Network, NetworkBuilder, Part, Shape, Trainer, nalgebra::DMatrix,
};

use crate::helpers::{assert_input_gradient, numbers, sines, thirds};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

/// A convolution of 3×3 that keeps the size, or divides it.
fn conv(channels: usize, stride: usize) -> Conv2d {
    Conv2d { stride: (stride, stride), padding: (1, 1), ..Conv2d::new(channels, 3) }
}

/// The 0s and 1s of what a connection takes, written down from its definition.
fn taken(start: Shape, end: Shape, stride: usize) -> DMatrix<f64> {
    let before = (end.channels - start.channels) / 2;
    let mut taken = DMatrix::zeros(end.len(), start.len());
    for channel in 0..start.channels {
        for row in (0..start.height).step_by(stride) {
            for column in (0..start.width).step_by(stride) {
                let from = (channel * start.height + row) * start.width + column;
                let to = (before + channel) * end.height + row / stride;
                taken[(to * end.width + column / stride, from)] = 1.0;
            }
        }
    }
    taken
}

/// Two blocks as in He et al. (2016): their second halves the image and doubles the channels.
fn halved(input: (usize, usize, usize)) -> NetworkBuilder<f64> {
    let builder = Network::<f64>::builder(input).conv2d(conv(4, 1)).batch_norm().tanh();
    let builder = builder.conv2d(conv(4, 1)).batch_norm().tanh();
    let builder = builder.conv2d(conv(4, 1)).batch_norm().skip(2).tanh();
    let builder = builder.conv2d(conv(8, 2)).batch_norm().tanh();
    builder.conv2d(conv(8, 1)).batch_norm().skip(2).tanh().global_avg_pool2d().dense(3).seed(2)
}

#[test]
fn gradients_are_those_of_differences() {
    let thirds_of_it = Network::<f64>::builder((2, 7, 9)).conv2d(conv(2, 1)).tanh();
    let thirds_of_it = thirds_of_it.conv2d(conv(5, 3)).skip(1).layer_norm().skip(2).tanh();
    let flat = Network::<f64>::builder((3, 1, 8)).conv2d(Conv2d::new(4, 1)).logistic();
    let flat = flat.max_pool2d(MaxPool2d { kernel: (1, 2), stride: (1, 2) }).skip(1).tanh();
    let wider = Network::<f64>::builder((2, 4, 4)).conv2d(conv(7, 1)).skip(1).tanh();
    for network in [
        halved((2, 5, 6)).build().unwrap(),
        thirds_of_it.dense(3).build().unwrap(),
        flat.dense(3).build().unwrap(),
        wider.dense(3).build().unwrap(),
    ] {
        let x = numbers(network.input_len(), 6, 3);
        let report = GradientCheck::default().run(&network, LOSS, &x, &thirds(6)).unwrap();
        assert!(report.relative_difference() < 1e-8, "{network}: {report}");
    }
}

/// `∂J/∂x`, to which connections from the input add, against differences of the loss.
#[test]
fn the_gradient_of_the_input_takes_the_shortcut_too() {
    let builder = Network::<f64>::builder((2, 3, 4)).conv2d(conv(5, 2)).skip(1).tanh();
    let network = builder.conv2d(conv(5, 1)).skip(2).tanh().dense(3).build().unwrap();
    let (x, y) = (numbers(24, 2, 2), thirds(2));
    assert_input_gradient(&network, &x, &y);
}

/// Oracle: a network without the connection, with the same weights and the same error. The forward
/// pass differs by `S h`, BP and FA by `Sᵀ δ` below, IFA by `S δ` above, and DFA not at all; `S` is
/// written out.
#[test]
fn a_shortcut_is_a_matrix_of_zeros_and_ones() {
    for (start, stride, channels) in [((2, 5, 6), 2, 4), ((3, 7, 4), 3, 4), ((1, 3, 3), 1, 4)] {
        let list = |skip: bool| {
            let builder = Network::<f64>::builder((2, start.1, start.2)).conv2d(conv(start.0, 1));
            let builder = builder.conv2d(conv(channels, stride));
            let builder = if skip { builder.skip(1) } else { builder };
            builder.dense(3).seed(4).build().unwrap()
        };
        let (with, without) = (list(true), list(false));
        let end = (channels, start.1.div_ceil(stride), start.2.div_ceil(stride));
        let taken = taken(start.into(), end.into(), stride);
        let x = numbers(with.input_len(), 5, 1);
        let pass = |network: &Network<f64>, rule| {
            let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
            network.forward(&x, &mut activations).unwrap();
            deltas.begin(&activations).unwrap().copy_from(&numbers(3, 5, 2));
            let feedback = Feedback::new(network, rule, FeedbackInit::Lillicrap, 3).unwrap();
            feedback.deliver(network, &activations, &mut deltas).unwrap();
            (activations, [0, 1].map(|layer| deltas.delta(layer).unwrap().into_owned()))
        };
        for rule in FeedbackRule::nokland() {
            let ((activations, found), (_, plain)) = (pass(&with, rule), pass(&without, rule));
            let h = |layer| activations.output(layer).unwrap();
            assert_eq!(h(1), activations.pre_activation(1).unwrap() + &taken * h(0));
            let [mut below, mut above] = plain;
            match rule {
                FeedbackRule::Dfa => {}
                FeedbackRule::Ifa => above += &taken * &below,
                _ => below += taken.tr_mul(&above),
            }
            for (found, expected) in found.into_iter().zip([below, above]) {
                assert!((found - expected).amax() < 1e-14, "{rule}, {start:?}");
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused_by_name() {
    let start = || Network::<f64>::builder((4, 8, 8)).conv2d(conv(4, 1)).tanh();
    let strides = |stride| Conv2d { stride, ..conv(8, 1) };
    for (builder, to) in [
        (start().conv2d(conv(2, 2)), "2×4×4"),
        (start().conv2d(strides((2, 1))), "8×4×8"),
        (start().conv2d(strides((2, 3))), "8×4×3"),
        (start().conv2d(Conv2d::new(8, 3)), "8×6×6"),
        (start().conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(4, 1) }), "4×10×10"),
        // Whatever their number, plain features are no image.
        (start().dense(4), "4"),
        (start().conv2d(conv(4, 2)).flatten(), "64"),
        (start().conv2d(Conv2d::new(8, 8)), "8"),
    ] {
        let refused = builder.skip(1).dense(2).build().unwrap_err();
        let expected = format!("what has the shape 4×8×8 to what has the shape {to}");
        // A dense layer reads features, so that its connection begins with them.
        let of_features = format!("what has the shape 256 to what has the shape {to}");
        let text = refused.to_string();
        assert!(matches!(refused, Error::Skip { layers: 1, .. }), "{text}");
        assert!(text.ends_with(&expected) || text.ends_with(&of_features), "{text}");
    }
    let network = start().conv2d(conv(8, 2)).skip(1).relu().dense(2).build().unwrap();
    assert!(network.to_string().contains("skip 1 relu"), "{network}");
}

#[test]
#[allow(clippy::cast_possible_truncation)] // They are rounded.
fn shortcuts_have_the_same_bits_on_any_number_of_threads() {
    let builder = Network::<f32>::builder((3, 12, 12)).conv2d(conv(16, 1)).batch_norm().relu();
    let builder = builder.conv2d(conv(32, 2)).batch_norm().relu();
    let builder = builder.conv2d(conv(32, 1)).batch_norm().skip(2).relu();
    let network = builder.skip(3).global_avg_pool2d().dense(10).seed(1).build().unwrap();
    let x = numbers(432, 16, 1).map(|x| x as f32);
    let labels: Vec<usize> = (0..16).map(|sample| sample * 7 % 10).collect();
    for rule in FeedbackRule::nokland().into_iter().chain([FeedbackRule::FrSf, FeedbackRule::Fdfa])
    {
        let trained = |threads| {
            let builder = Trainer::builder(network.clone()).rule(rule).threads(threads);
            let mut trainer = builder.build().unwrap();
            trainer.step(&x, &labels).unwrap();
            trainer.into_network()
        };
        let one = trained(1);
        for threads in 2..=4 {
            assert_eq!(trained(threads), one, "{rule}, {threads} threads");
        }
    }
}

#[cfg(feature = "safetensors")]
#[test]
fn shortcuts_come_back_from_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let network = halved((2, 5, 6)).build().unwrap();
    let mut trainer = Trainer::builder(network).rule(FeedbackRule::Fa).build().unwrap();
    trainer.step(&numbers(60, 9, 0), &thirds(9)).unwrap();
    trainer.save(&path).unwrap();
    let mut resumed = Trainer::<f64>::load(&path).unwrap();
    for trainer in [&mut trainer, &mut resumed] {
        trainer.step(&numbers(60, 9, 1), &thirds(9)).unwrap();
    }
    assert_eq!(resumed.network(), trainer.network());
}

/// A connection past one convolution and one past two, from images of 3×4×5 and 2×4×5 to one of
/// 7×2×3, computed with PyTorch 2.15 as well:
///
/// ```python
/// torch.set_default_dtype(torch.float64)
/// fill = lambda *shape: torch.sin(torch.arange(1, 1 + torch.Size(shape).numel()) * 0.7).reshape(shape) * 0.5
/// W1, b1, W2, b2, W3, b3 = fill(3, 2, 3, 3), fill(3), fill(7, 3, 3, 3), fill(7), fill(3, 42), fill(3)
/// x, y = fill(2, 2, 4, 5), torch.tensor([2, 0])
/// F = torch.nn.functional
/// P = [p.requires_grad_() for p in (W1, b1, W2, b2, W3, b3)]
/// S = lambda h, before, after: F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, before, after))
/// h1 = torch.tanh(F.conv2d(x, W1, b1, padding=1))
/// h2 = torch.tanh(F.conv2d(h1, W2, b2, stride=2, padding=1) + S(h1, 2, 2) + S(x, 2, 3))
/// loss = F.cross_entropy(F.linear(h2.flatten(1), W3, b3), y)
/// digest = lambda t: [t.flatten()[0].item(), t.flatten()[-1].item(), t.abs().sum().item()]
/// print(loss.item(), [digest(g) for g in torch.autograd.grad(loss, P)])
/// ```
#[test]
fn gradients_are_those_of_pytorch() {
    let builder = Network::<f64>::builder((2, 4, 5)).conv2d(conv(3, 1)).tanh();
    let builder = builder.conv2d(conv(7, 2)).skip(1).skip(2).tanh();
    let mut network = builder.dense(3).build().unwrap();
    for (layer, rows, columns) in [(0, 3, 18), (1, 7, 27), (2, 3, 42)] {
        network.set_weights(layer, sines(rows, columns)).unwrap();
        network.set_parameter(layer, Part::Bias, sines(rows, 1).as_slice()).unwrap();
    }
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(&sines(2, 40).transpose(), &mut activations).unwrap();
    let loss = LOSS.error(&[2, 0], &activations, &mut deltas).unwrap();
    assert_relative_eq!(loss, 1.613_205_168_343_787_1, max_relative = 1e-14);
    let bp = Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::default(), 0).unwrap();
    bp.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    for (layer, part, expected) in PYTORCH {
        let found = gradients.get(layer, part).unwrap().unwrap();
        let magnitudes: f64 = found.iter().map(|g| g.abs()).sum();
        let found = [found[0], found[found.len() - 1], magnitudes];
        for (found, expected) in found.into_iter().zip(expected) {
            let difference = (found - expected).abs();
            assert!(difference < 1e-13, "{part} of layer {layer}: {found}, {expected}");
        }
    }
}

/// First and last entry and sum of magnitudes of each gradient.
const PYTORCH: [(usize, Part, [f64; 3]); 6] = [
    (
        0,
        Part::Weights,
        [-0.017_686_830_111_246_887, -0.075_602_604_073_993_6, 6.837_145_830_863_396],
    ),
    (0, Part::Bias, [0.736_260_379_316_543_2, 0.081_648_777_132_762_92, 0.914_354_087_425_483_2]),
    (1, Part::Weights, [0.181_284_519_442_907, -0.103_568_510_457_956_77, 26.677_782_028_133_976]),
    (
        1,
        Part::Bias,
        [-0.047_982_439_234_599_605, 0.112_612_662_053_062_53, 1.235_682_469_858_126_1],
    ),
    (
        2,
        Part::Weights,
        [-0.161_669_279_014_584_44, -0.472_356_799_282_639_33, 33.153_199_572_472_1],
    ),
    (
        2,
        Part::Bias,
        [-0.378_498_484_372_596_53, -0.004_080_498_453_275_017, 0.765_157_965_651_743_1],
    ),
];
