//! The gradient check as a user meets it: both scalars, every activation and loss, what it refuses.

use feedback_alignment::{
    Activation, Conv2d, Error, GradientCheck, Loss, MaxPool2d, Network, Part, Scalar, Targets,
    nalgebra::DMatrix,
};

/// Values from −1 to 1 without order, or ties.
fn values<T: Scalar>(rows: usize, columns: usize) -> DMatrix<T> {
    DMatrix::from_fn(rows, columns, |i, j| {
        T::of(((i * 37 + j * 101 + 3) % 997) as f64 * 0.618 % 2.0 - 1.0)
    })
}

fn image_net<T: Scalar>(activation: Activation) -> Network<T> {
    Network::builder((2, 5, 5))
        .dropout(0.1)
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(3, 3) })
        .batch_norm()
        .activation(activation)
        .max_pool2d(MaxPool2d::new(2, 2))
        .dropout(0.2)
        .dense(5)
        .activation(activation)
        .dense(3)
        .seed(1)
        .build()
        .unwrap()
}

/// The largest relative difference over all losses and kinds of targets.
fn worst<T: Scalar>(activation: Activation) -> f64 {
    let (network, x) = (image_net::<T>(activation), values::<T>(50, 6));
    let labels = [0, 1, 2, 0, 0, 1];
    let probabilities = values::<T>(3, 6).map(|v| (v + T::one()) / T::of(2.0));
    let all = [
        (Loss::SoftmaxCrossEntropy, Targets::from(&labels)),
        (Loss::LogisticCrossEntropy, Targets::from(&labels)),
        (Loss::LogisticCrossEntropy, Targets::from(&probabilities)),
        (Loss::MeanSquaredError, Targets::from(&probabilities)),
    ];
    let relative = all.map(|(loss, targets)| {
        let report = GradientCheck::default().run(&network, loss, &x, targets).unwrap();
        let checked: usize = report.tensors.iter().map(|tensor| tensor.checked).sum();
        assert_eq!(checked, network.parameter_count(), "{activation}, {loss}:\n{report}");
        report.relative_difference()
    });
    relative.into_iter().fold(0.0, f64::max)
}

/// The bounds that the documentation names.
#[test]
fn gradients_are_right_to_the_precision_of_the_scalar() {
    for activation in Activation::all() {
        let (single, double) = (worst::<f32>(activation), worst::<f64>(activation));
        assert!(double < 1e-6, "{activation}: {double:e}");
        assert!(single < 1e-5, "{activation}: {single:e}");
    }
}

#[test]
fn the_report_names_every_tensor_in_order() {
    use Part::{Bias, Scale, Shift, Weights};
    let (network, x) = (image_net::<f64>(Activation::Tanh), values(50, 4));
    let check = GradientCheck { entries: 7, ..GradientCheck::default() };
    let report = check.run(&network, Loss::SoftmaxCrossEntropy, &x, &[0, 1, 2, 1]).unwrap();
    let names: Vec<_> = report.tensors.iter().map(|t| (t.layer, t.part, t.checked)).collect();
    let expected = [
        (0, Weights, 7),
        (0, Bias, 3),
        (0, Scale, 3),
        (0, Shift, 3),
        (1, Weights, 7),
        (1, Bias, 5),
        (2, Weights, 7),
        (2, Bias, 3),
    ];
    assert_eq!(names, expected);
    // A bias before batch normalisation changes nothing: the reason not to ask each tensor for a
    // small difference relative to itself.
    assert!(report.tensors[1].largest < 1e-9 && report.largest() > 1e-3, "{report}");
    let largest = report.tensors.iter().map(|t| t.largest).fold(0.0, f64::max);
    let difference = report.tensors.iter().map(|t| t.difference).fold(0.0, f64::max);
    assert_eq!((report.largest(), report.difference()), (largest, difference));
    assert_eq!(report.relative_difference(), difference / largest);

    let table = report.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + 8 + 1, "{table}");
    for ((layer, parameter, checked), line) in names.iter().zip(&lines[1..]) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let expected = [layer.to_string(), parameter.to_string(), checked.to_string(), "0".into()];
        assert_eq!(cells[..4], expected, "{table}");
    }
    assert!(lines[9].contains(&format!("{:.1e}", report.relative_difference())), "{table}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (network, x) = (image_net::<f32>(Activation::Tanh), values(50, 4));
    let run = |check: GradientCheck, x: &DMatrix<f32>, labels: &[usize]| {
        check.run(&network, Loss::SoftmaxCrossEntropy, x, labels).map(|_| ())
    };
    let labels = [0, 1, 2, 1];
    for step in [0.0, -1e-5, f64::NAN, f64::INFINITY] {
        let check = GradientCheck { step, ..GradientCheck::default() };
        let refused = run(check, &x, &labels);
        assert!(matches!(refused, Err(Error::InvalidParameter { name: "step", .. })), "{step}");
    }
    let none = GradientCheck { entries: 0, ..GradientCheck::default() };
    let refused = run(none, &x, &labels);
    assert!(matches!(refused, Err(Error::InvalidParameter { name: "entries", .. })));
    let check = GradientCheck::default();
    let refused = run(check, &values(49, 4), &labels);
    assert!(matches!(refused, Err(Error::ShapeMismatch { .. })));
    let refused = run(check, &x, &labels[..3]);
    assert!(matches!(refused, Err(Error::SampleCount { .. })));
    let refused = run(check, &x, &[0, 1, 2, 3]);
    assert!(matches!(refused, Err(Error::LabelOutOfRange { .. })));

    // What overflows is named, and does not pass for a small difference: here the gradient is a
    // number, but the loss is not.
    let mut network = Network::<f64>::builder(1).dense(1).build().unwrap();
    network.set_weights(0, DMatrix::from_element(1, 1, 1e160)).unwrap();
    let (x, y) = (DMatrix::from_element(1, 1, 1.0), DMatrix::from_element(1, 1, 0.0));
    let refused = GradientCheck::default().run(&network, Loss::MeanSquaredError, &x, &y);
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert!(error.to_string().contains("entry 0 of W of weighted layer 0"), "{error}");
}
