//! Residual connections and layer normalisation, forward and under every rule.

use approx::assert_relative_eq;
use feedback_alignment::{
    Activations, AvgPool2d, Conv2d, Deltas, Error, Feedback, FeedbackInit, FeedbackRule,
    GradientCheck, Gradients, Loss, MaxPool2d, Network, NetworkBuilder, Part, Route, Trainer,
    nalgebra::DMatrix,
};

use crate::{
    helpers::{assert_input_gradient, numbers, sines, thirds},
    nets::residual_net,
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

/// Deltas and gradients of one batch.
fn pass(network: &Network<f64>, feedback: &Feedback<f64>) -> (Deltas<f64>, Gradients<f64>) {
    let (mut activations, mut deltas) = (Activations::seeded(1), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(&numbers(network.input_len(), 9, 1), &mut activations).unwrap();
    LOSS.error(&thirds(9), &activations, &mut deltas).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    (deltas, gradients)
}

#[test]
fn gradients_are_those_of_differences() {
    let plain = Network::<f64>::builder(5).dense(5).skip(1).layer_norm().tanh().dense(5).tanh();
    let from_input = Network::<f64>::builder(4).dense(7).tanh().dense(4).skip(2).logistic();
    for network in [
        residual_net(),
        plain.skip(2).dense(5).skip(1).skip(1).softplus().dense(3).build().unwrap(),
        from_input.batch_norm().dense(3).build().unwrap(),
    ] {
        let x = numbers(network.input_len(), 6, 3);
        let report = GradientCheck::default().run(&network, LOSS, &x, &thirds(6)).unwrap();
        assert!(report.relative_difference() < 1e-8, "{network}: {report}");
        assert!(report.tensors.iter().all(|tensor| tensor.checked > 0 && tensor.largest > 1e-6));
    }
}

/// `∂J/∂x`, to which the connection from the input adds, against differences of the loss.
#[test]
fn the_gradient_of_the_input_takes_the_short_way_too() {
    let builder = Network::<f64>::builder(4).dense(6).tanh().dense(4).layer_norm().skip(2).tanh();
    let network = builder.dense(3).build().unwrap();
    let (x, y) = (numbers(4, 5, 2), thirds(5));
    assert_input_gradient(&network, &x, &y);
}

/// Oracle: past one linear layer, `W h + h = (W + I) h`. With `W + I` in the place of `W`, and `B + I`
/// in the place of a random stand-in for it, a network without the connection has the same deltas
/// under every rule.
#[test]
fn a_connection_past_one_layer_is_an_identity_in_its_weights() {
    let list = || Network::<f64>::builder(7).dense(5).tanh().dense(5);
    let end = |builder: NetworkBuilder<f64>| {
        builder.tanh().dense(5).tanh().dense(3).seed(4).build().unwrap()
    };
    let (residual, mut plain) = (end(list().skip(1)), end(list()));
    let identity = DMatrix::<f64>::identity(5, 5);
    plain.set_weights(1, residual.layer(1).unwrap().weights() + &identity).unwrap();
    for rule in FeedbackRule::nokland() {
        let of = |network| Feedback::new(network, rule, FeedbackInit::Lillicrap, 3).unwrap();
        let (with, mut without) = (of(&residual), of(&plain));
        if rule == FeedbackRule::Fa {
            let matrix = without.matrix(0).unwrap().unwrap();
            without.set_matrix(0, matrix + &identity).unwrap();
        }
        let ((found, gradient), (expected, plain_gradient)) =
            (pass(&residual, &with), pass(&plain, &without));
        for layer in 0..4 {
            let (found, expected) = (found.delta(layer).unwrap(), expected.delta(layer).unwrap());
            assert!((found - expected).amax() < 1e-15, "{rule}, layer {layer}");
            let difference =
                gradient.weights(layer).unwrap() - plain_gradient.weights(layer).unwrap();
            assert!(difference.amax() < 1e-15, "{rule}, layer {layer}");
        }
    }
}

/// The way up, written out: a connection adds the `δ` of the layer that it comes from to what arrives.
#[test]
fn what_goes_up_takes_the_short_way_too() {
    let builder = Network::<f64>::builder((2, 1, 4)).dense(4).tanh().dense(4).skip(1).tanh();
    let network = builder.dense(4).tanh().skip(2).dense(3).build().unwrap();
    let feedback = Feedback::new(&network, FeedbackRule::Ifa, FeedbackInit::Lillicrap, 1).unwrap();
    let (deltas, _) = pass(&network, &feedback);
    let mut activations = Activations::seeded(1);
    network.forward(&numbers(8, 9, 1), &mut activations).unwrap();
    let w = |layer: usize| network.layer(layer).unwrap().weights().into_owned();
    let slope = |layer: usize| {
        // The activation of layer 1 stands after the connection, that of layer 2 before it.
        let a = activations.pre_activation(layer).unwrap().into_owned();
        match layer {
            1 => activations.output(1).unwrap().map(|h| 1.0 - h * h),
            _ => a.map(|a| 1.0 - a.tanh().powi(2)),
        }
    };
    let e = deltas.delta(3).unwrap();
    let first = (feedback.matrix(0).unwrap().unwrap() * e).component_mul(&slope(0));
    let second = (w(1) * &first + &first).component_mul(&slope(1));
    let third = (w(2) * &second + &first).component_mul(&slope(2));
    for (layer, expected) in [first, second, third].into_iter().enumerate() {
        let difference = (deltas.delta(layer).unwrap() - expected).amax();
        assert!(difference < 1e-15, "layer {layer}: {difference:e}");
    }
}

/// A layer that is sent the error straight receives nothing else.
#[test]
fn direct_feedback_does_not_take_the_short_way() {
    let list = |skip: bool| {
        let builder = Network::<f64>::builder(7).dense(5).tanh().dense(5);
        let builder = if skip { builder.skip(1) } else { builder };
        builder.dense(3).seed(4).build().unwrap()
    };
    let network = list(true);
    let feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 1).unwrap();
    let (deltas, _) = pass(&network, &feedback);
    let mut activations = Activations::seeded(1);
    network.forward(&numbers(7, 9, 1), &mut activations).unwrap();
    let slope = activations.pre_activation(0).unwrap().map(|a| 1.0 - a.tanh().powi(2));
    let expected =
        (feedback.matrix(0).unwrap().unwrap() * deltas.delta(2).unwrap()).component_mul(&slope);
    assert!((deltas.delta(0).unwrap() - expected).amax() < 1e-15);
    // Where the layer above is sent something else, what it sends down goes both ways.
    let route: Route = "3:B(t)->1,W(1)->0".parse().unwrap();
    let feedback = Feedback::with_route(&network, route, FeedbackInit::Nokland, 1).unwrap();
    let (deltas, _) = pass(&network, &feedback);
    let w = network.layer(1).unwrap().weights().transpose();
    let above = deltas.delta(1).unwrap();
    let expected = (w * above + above).component_mul(&slope);
    assert!((deltas.delta(0).unwrap() - expected).amax() < 1e-15);
}

#[test]
fn connections_that_cannot_be_are_refused_with_the_reason() {
    let start = || Network::<f64>::builder(4).dense(5).tanh();
    for (builder, reason) in [
        (start().skip(0).dense(2), "at least 1 layer"),
        (start().skip(2).dense(2), "at most the 1 before it"),
        (start().skip(usize::MAX).dense(2), "at most the 1 before it"),
        (Network::builder(4).skip(1).dense(2), "at most the 0 before it"),
        (start().skip(1).dense(2), "the shape 4 to what has the shape 5"),
        (start().dense(5).max_pool2d(MaxPool2d::new(1, 1)).skip(2).dense(2), "shape 4"),
    ] {
        let refused = builder.build().unwrap_err();
        assert!(matches!(refused, Error::Skip { .. }), "{refused}");
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    let at_output = start().dense(5).skip(1).build().unwrap_err();
    assert!(matches!(at_output, Error::OutputNotLinear { .. }), "{at_output}");
}

/// What comes back along a connection has to be there when the layer has its turn.
#[test]
fn a_route_that_needs_a_delta_too_early_is_refused() {
    let builder = Network::<f64>::builder(4).dense(5).tanh().dense(5).tanh().dense(5).skip(2);
    let network = builder.tanh().dense(2).build().unwrap();
    let with = |text: &str| {
        let route: Route = text.parse().unwrap();
        Feedback::with_route(&network, route, FeedbackInit::Nokland, 1)
    };
    let refused = with("4:B(e)->1,W(1)->0,B(0)->2").unwrap_err();
    assert!(refused.to_string().contains("residual connection from layer 0 to layer 2"));
    assert!(with("4:B(e)->0,W(0)->1,W(1)->2").is_ok());
    // In whatever order the hops are written, the highest layer that can is first.
    assert!(with("4:B(e)->1,W(1)->0,B(e)->2").is_ok());
    let feedback = with("4:W(e)->2,W(2)->1,W(1)->0").unwrap();
    let without = Network::<f64>::builder(4).dense(5).tanh().dense(5).tanh().dense(5).relu();
    let without = without.tanh().dense(2).build().unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    without.forward(&numbers(4, 3, 1), &mut activations).unwrap();
    LOSS.error(&[0, 1, 0], &activations, &mut deltas).unwrap();
    let refused = feedback.deliver(&without, &activations, &mut deltas).unwrap_err();
    assert!(refused.to_string().contains("residual connections"), "{refused}");
}

/// A frozen layer normalises as ever, and its neighbours go on learning through it.
#[test]
fn a_frozen_layer_keeps_its_layer_norm() {
    for rule in FeedbackRule::nokland() {
        let network = residual_net();
        let mut trainer = Trainer::builder(network.clone()).rule(rule).build().unwrap();
        trainer.freeze(1).unwrap();
        for seed in 0..3 {
            trainer.step(&numbers(72, 9, seed), &thirds(9)).unwrap();
        }
        for part in [Part::Weights, Part::Bias, Part::Scale, Part::Shift] {
            let (old, new) = (network.parameters(), trainer.network().parameters());
            assert_eq!(old.get(1, part), new.get(1, part), "{rule}");
        }
        assert_ne!(trainer.network().layer(0).unwrap(), network.layer(0).unwrap());
    }
}

/// A convolution with layer normalisation and a connection from the input, and a dense layer that a
/// connection leads past, computed with PyTorch 2.15 as well:
///
/// ```python
/// torch.set_default_dtype(torch.float64)
/// fill = lambda *shape: torch.sin(torch.arange(1, 1 + torch.Size(shape).numel()) * 0.7).reshape(shape) * 0.5
/// W1, b1, W2, b2, W3, b3 = fill(2, 2, 3, 3), fill(2), fill(8, 8), fill(8), fill(3, 8), fill(3)
/// g1, s1 = fill(2, 2, 4) + 1, fill(2, 2, 4)
/// x, y = fill(2, 2, 2, 4), torch.tensor([2, 0])
/// F = torch.nn.functional
/// P = [p.requires_grad_() for p in (W1, b1, g1, s1, W2, b2, W3, b3)]
/// h1 = torch.tanh(F.layer_norm(F.conv2d(x, W1, b1, padding=1), (2, 2, 4), g1, s1, 1e-5) + x)
/// p1 = F.avg_pool2d(h1, (1, 2)).flatten(1)
/// h2 = torch.tanh(F.linear(p1, W2, b2)) + p1
/// loss = F.cross_entropy(F.linear(h2, W3, b3), y)
/// digest = lambda t: [t.flatten()[0].item(), t.flatten()[-1].item(), t.sum().item(), t.abs().sum().item()]
/// print(loss.item(), [digest(g) for g in torch.autograd.grad(loss, P)])
/// ```
#[test]
fn gradients_are_those_of_pytorch() {
    let conv = Conv2d { padding: (1, 1), ..Conv2d::new(2, 3) };
    let builder = Network::<f64>::builder((2, 2, 4)).conv2d(conv).layer_norm().skip(1).tanh();
    let builder = builder.avg_pool2d(AvgPool2d { kernel: (1, 2), stride: (1, 2) });
    let mut network = builder.dense(8).tanh().skip(1).dense(3).build().unwrap();
    for (layer, rows, columns) in [(0, 2, 18), (1, 8, 8), (2, 3, 8)] {
        network.set_weights(layer, sines(rows, columns)).unwrap();
        network.set_parameter(layer, Part::Bias, sines(rows, 1).as_slice()).unwrap();
    }
    network.set_parameter(0, Part::Scale, sines(16, 1).add_scalar(1.0).as_slice()).unwrap();
    network.set_parameter(0, Part::Shift, sines(16, 1).as_slice()).unwrap();
    let x = sines(2, 16).transpose();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    network.forward(&x, &mut activations).unwrap();
    let loss = LOSS.error(&[2, 0], &activations, &mut deltas).unwrap();
    assert_relative_eq!(loss, 0.881_290_444_443_956_1, max_relative = 1e-14);
    let bp = Feedback::new(&network, FeedbackRule::Bp, FeedbackInit::default(), 0).unwrap();
    bp.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    for (layer, part, first, last, sum_of_magnitudes) in PYTORCH {
        let found = gradients.get(layer, part).unwrap().unwrap();
        let magnitudes: f64 = found.iter().map(|g| g.abs()).sum();
        let found = [found[0], found[found.len() - 1], magnitudes];
        for (found, expected) in found.into_iter().zip([first, last, sum_of_magnitudes]) {
            assert!(
                (found - expected).abs() < 1e-13,
                "{part} of layer {layer}: {found}, {expected}"
            );
        }
    }
}

/// First and last entry and sum of magnitudes of each gradient.
const PYTORCH: [(usize, Part, f64, f64, f64); 8] = [
    (0, Part::Weights, 0.078_205_034_191_339_41, 0.200_911_617_639_271_2, 5.461_024_063_092_013_5),
    (0, Part::Bias, -0.404_983_792_332_649_36, 0.404_983_792_332_649_36, 0.809_967_584_665_298_7),
    (0, Part::Scale, -0.041_142_619_997_856_68, 0.076_229_450_398_269_4, 0.966_853_000_090_166_2),
    (0, Part::Shift, -0.166_077_624_449_517_3, 0.022_150_101_577_518_15, 0.716_010_908_009_008_5),
    (
        1,
        Part::Weights,
        -0.015_165_517_262_148_15,
        -0.015_832_696_673_593_726,
        2.027_066_910_575_324,
    ),
    (1, Part::Bias, -0.070_686_112_125_331_25, -0.048_432_619_986_097_73, 0.366_969_687_990_446_6),
    (
        2,
        Part::Weights,
        0.036_208_154_759_379_704,
        0.180_376_998_164_206_58,
        2.428_555_753_850_026_6,
    ),
    (2, Part::Bias, -0.261_213_814_881_252_17, -0.067_199_551_118_764_72, 0.656_826_732_000_033_8),
];

#[cfg(feature = "safetensors")]
#[test]
fn residual_networks_come_back_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let network = residual_net();
    network.save(&path).unwrap();
    let loaded = Network::<f64>::load(&path).unwrap();
    assert_eq!(loaded, network);
    assert_eq!(loaded.to_string(), network.to_string());
    let mut trainer = Trainer::builder(network).batch_size(5).build().unwrap();
    trainer.step(&numbers(72, 9, 0), &thirds(9)).unwrap();
    trainer.save(&path).unwrap();
    let mut resumed = Trainer::<f64>::load(&path).unwrap();
    for trainer in [&mut trainer, &mut resumed] {
        trainer.step(&numbers(72, 9, 1), &thirds(9)).unwrap();
    }
    assert_eq!(resumed.network(), trainer.network());
}
