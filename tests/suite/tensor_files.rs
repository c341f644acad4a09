//! Parameters of other types and under other names, and networks in the other scalar.

use crate::craft;

use std::{fs, path::PathBuf};

use craft::{Craft, Tensor};
use feedback_alignment::{
    Activations, Conv2d, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Gradients,
    LoadOptions, Loss, Network, NetworkBuilder, OptimizerState, Part, Scalar, Sgd, Trainer,
    nalgebra::{DMatrix, DVector},
};
use safetensors::Dtype;
use tempfile::{TempDir, tempdir};

fn list<T: Scalar>() -> NetworkBuilder<T> {
    Network::builder((2, 5, 4))
        .conv2d(Conv2d::new(3, 2))
        .batch_norm()
        .tanh()
        .dense(4)
        .relu()
        .dense(2)
}

/// Weights that are no numbers of 16 bits, and running statistics that have moved.
fn trained<T: Scalar>() -> Network<T> {
    let mut trainer = Trainer::builder(list::<T>().seed(4).build().unwrap()).build().unwrap();
    let x = DMatrix::from_fn(40, 6, |i, j| T::of(((i * 7 + j * 5) % 11) as f64 / 8.0));
    trainer.step(&x, &[0, 1, 0, 1, 1, 0]).unwrap();
    trainer.into_network()
}

/// A file of another program with this network's parameters.
fn foreign<T: Scalar>(network: &Network<T>) -> (TempDir, PathBuf, Craft) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model");
    network.save(&path).unwrap();
    let file = Craft::open(&path);
    (folder, path, file)
}

fn write(file: &Craft, path: &PathBuf) {
    let views = file.tensors.iter().map(|(name, Tensor { dtype, shape, bytes })| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The tensor with each number put through `convert`, of another type.
fn converted<const SIZE: usize>(
    tensor: &Tensor,
    dtype: Dtype,
    convert: impl Fn(f32) -> [u8; SIZE],
) -> Tensor {
    let (numbers, _) = tensor.bytes.as_chunks();
    let bytes = numbers.iter().flat_map(|&bytes| convert(f32::from_le_bytes(bytes))).collect();
    Tensor { dtype, shape: tensor.shape.clone(), bytes }
}

#[allow(clippy::cast_possible_truncation)] // None is.
/// The bits of a positive or negative number, rounded towards 0, in binary16.
fn half(number: f32) -> [u8; 2] {
    let bits = number.to_bits();
    let exponent = (bits >> 23 & 0xff).cast_signed() - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = match exponent {
        ..=0 => 0,
        31.. => panic!("{number} is too large"),
        exponent => (exponent.cast_unsigned() << 10 | bits >> 13 & 0x3ff) as u16,
    };
    (sign | magnitude).to_le_bytes()
}

fn brain(number: f32) -> [u8; 2] {
    ((number.to_bits() >> 16) as u16).to_le_bytes()
}

/// A network whose parameters are all numbers of 16 bits.
fn short<T: Scalar>() -> Network<T> {
    let mut network = list::<T>().build().unwrap();
    let number = |i: usize| T::of(((i * 37) % 101) as f64 / 64.0 - 0.75);
    for layer in 0..network.layer_count() {
        let (rows, columns) = network.layer(layer).unwrap().weights().shape();
        network
            .set_weights(layer, DMatrix::from_fn(rows, columns, |i, j| number(7 * i + j)))
            .unwrap();
        network.set_bias(layer, DVector::from_fn(rows, |i, _| number(i))).unwrap();
    }
    network
}

#[test]
fn shorter_types_are_read_exactly_into_both_scalars() {
    let (single, double) = (short::<f32>(), short::<f64>());
    let (_folder, path, file) = foreign(&single);
    for (dtype, name) in [(Dtype::F16, "f16"), (Dtype::BF16, "bf16"), (Dtype::F32, "f32")] {
        let mut short = file.clone();
        for tensor in short.tensors.values_mut() {
            *tensor = match dtype {
                Dtype::F16 => converted(tensor, dtype, half),
                Dtype::BF16 => converted(tensor, dtype, brain),
                _ => converted(tensor, dtype, f32::to_le_bytes),
            };
        }
        // Running statistics stay `f32` in PyTorch's files.
        let statistics = ["1.running_mean", "1.running_var"];
        let mut mixed = short.clone();
        mixed.tensors.extend(statistics.map(|name| (name.to_owned(), file.tensors[name].clone())));
        for file in [short, mixed] {
            write(&file, &path);
            let mut network = list::<f32>().seed(9).build().unwrap();
            network.load_parameters(&path).unwrap();
            assert_eq!(network, single, "{name}");
            let mut network = list::<f64>().seed(9).build().unwrap();
            network.load_parameters(&path).unwrap();
            assert_eq!(network, double, "{name}");
            // A file of ours, too, and with its architecture.
            file.write(&path);
            assert_eq!(Network::<f64>::load(&path).unwrap(), double);
            assert_eq!(Network::<f32>::load(&path).unwrap(), single);
        }
    }
    // A checkpoint goes on as if never interrupted, which it would not in another scalar.
    let trainer = Trainer::builder(single).build().unwrap();
    trainer.save(&path).unwrap();
    assert!(matches!(Trainer::<f64>::load(&path), Err(Error::TensorType { .. })));
}

#[test]
fn infinities_of_short_types_are_refused() {
    let (_folder, path, file) = foreign(&short::<f32>());
    for (dtype, bits) in [
        (Dtype::F16, 0x7c00_u16),
        (Dtype::F16, 0xfe00),
        (Dtype::BF16, 0xff80),
        (Dtype::BF16, 0x7fc0),
    ] {
        let mut bad = file.clone();
        let bytes = bits.to_le_bytes();
        bad.tensors.insert(
            "6.bias".into(),
            Tensor { dtype, shape: vec![2], bytes: [[0; 2], bytes].concat() },
        );
        write(&bad, &path);
        for narrow in [false, true] {
            let options = LoadOptions { narrow, ..LoadOptions::default() };
            let error = list::<f32>().build().unwrap().load_parameters_with(&path, &options);
            assert!(matches!(error, Err(Error::NonFinite { row: 1, .. })), "{error:?}");
        }
    }
}

#[test]
fn narrowing_is_asked_for_and_what_does_not_fit_is_refused() {
    let network = trained::<f64>();
    let (_folder, path, file) = foreign(&network);
    let mut single = list::<f32>().seed(9).build().unwrap();
    let before = single.clone();
    for path in [&path, &{
        let other = path.with_extension("other");
        write(&file, &other);
        other
    }] {
        single = before.clone();
        let refused = single.load_parameters(path).unwrap_err();
        assert!(matches!(refused, Error::TensorType { expected: "f32", .. }), "{refused}");
        assert!(refused.to_string().contains("load_parameters_with"), "{refused}");
        assert_eq!(single, before);
        let options = LoadOptions { narrow: true, ..LoadOptions::default() };
        single.load_parameters_with(path, &options).unwrap();
        assert_eq!(single, network.cast().unwrap());
    }
    let mut large = file.clone();
    let numbers: Vec<u8> = [1e39, -2e300].iter().flat_map(|x: &f64| x.to_le_bytes()).collect();
    large.tensors.get_mut("6.bias").unwrap().bytes = numbers;
    large.write(&path);
    let options = LoadOptions { narrow: true, ..LoadOptions::default() };
    let refused = single.load_parameters_with(&path, &options).unwrap_err();
    let named = matches!(&refused, Error::TensorValue { tensor, found, .. } if tensor == "6.bias" && *found == -2e300);
    assert!(named && refused.to_string().contains("fit into f32"), "{refused}");
    assert_eq!(single, network.cast().unwrap());
    list::<f64>().build().unwrap().load_parameters_with(&path, &options).unwrap();
}

/// Tensors under the names that `rename` gives them.
fn renamed(file: &Craft, rename: impl Fn(&str) -> String) -> Craft {
    let tensors = file.tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone()));
    Craft { tensors: tensors.collect(), ..file.clone() }
}

#[test]
fn prefixes_and_names_are_mapped() {
    let network = trained::<f32>();
    let (_folder, path, file) = foreign(&network);
    let names = |name: &str| {
        let (place, rest) = name.split_once('.').unwrap();
        let layer = ["conv1", "bn1", "", "", "fc1", "", "head.out"];
        // Place 3 is a flatten.
        format!("{}.{rest}", layer[place.parse::<usize>().unwrap()])
    };
    let rename = || {
        [("conv1", "0"), ("bn1", "1"), ("fc1", "4"), ("head.out", "6")]
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .to_vec()
    };
    let strip = || vec!["_orig_mod.".to_owned(), "module.".to_owned()];
    let options = LoadOptions { strip: strip(), rename: rename(), ..LoadOptions::default() };
    for prefix in
        ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
    {
        write(&renamed(&file, |name| format!("{prefix}{}", names(name))), &path);
        let mut other = list::<f32>().seed(9).build().unwrap();
        other.load_parameters_with(&path, &options).unwrap();
        assert_eq!(other, network, "{prefix}");
        let refused = list::<f32>().build().unwrap().load_parameters(&path).unwrap_err();
        assert!(matches!(refused, Error::MissingTensor { .. }), "{refused}");
        // The places alone.
        write(&renamed(&file, |name| format!("{prefix}{name}")), &path);
        let stripped = LoadOptions { strip: strip(), ..LoadOptions::default() };
        let mut other = list::<f32>().seed(9).build().unwrap();
        other.load_parameters_with(&path, &stripped).unwrap();
        assert_eq!(other, network, "{prefix}");
    }
    // Whole names, before those of their layers.
    let odd = renamed(&file, |name| match name {
        "6.weight" => "out.kernel".into(),
        "6.bias" => "out.offset".into(),
        name => name.into(),
    });
    write(&odd, &path);
    let whole = [("out.kernel", "6.weight"), ("out.offset", "6.bias"), ("out", "nothing")];
    let rename = whole.map(|(from, to)| (from.to_owned(), to.to_owned())).to_vec();
    let mut other = list::<f32>().seed(9).build().unwrap();
    other.load_parameters_with(&path, &LoadOptions { rename, ..LoadOptions::default() }).unwrap();
    assert_eq!(other, network);
}

#[test]
fn names_that_fit_nothing_or_meet_are_refused() {
    let network = trained::<f32>();
    let (_folder, path, file) = foreign(&network);
    write(&file, &path);
    let mut other = list::<f32>().seed(9).build().unwrap();
    let before = other.clone();
    let mut refuse = |options: LoadOptions| {
        let refused = other.load_parameters_with(&path, &options).unwrap_err();
        assert_eq!(other, before);
        refused
    };
    let pair = |from: &str, to: &str| vec![(from.to_owned(), to.to_owned())];
    let rename =
        |from: &str, to: &str| LoadOptions { rename: pair(from, to), ..LoadOptions::default() };
    for absent in ["fc1", "0.weights", "0.weigh", "", "6.weight.", "."] {
        let refused = refuse(rename(absent, "0"));
        let named = matches!(&refused, Error::MissingTensor { expected, .. } if expected == absent);
        assert!(named, "{refused}");
    }
    let refused = refuse(rename("6", "4"));
    let Error::SameTensor { tensor, found, .. } = &refused else { panic!("{refused}") };
    assert_eq!((&**tensor, found.each_ref().map(|name| &**name)), ("4.bias", ["4.bias", "6.bias"]));
    let refused =
        refuse(LoadOptions { strip: vec!["4.".into(), "6.".into()], ..LoadOptions::default() });
    assert!(matches!(refused, Error::SameTensor { .. }), "{refused}");
    let refused = refuse(LoadOptions { ignore: vec!["6".into()], ..LoadOptions::default() });
    assert!(matches!(refused, Error::MissingTensor { .. }), "{refused}");
    for layer in [3, usize::MAX] {
        let refused = refuse(LoadOptions { keep: vec![0, layer], ..LoadOptions::default() });
        assert!(matches!(refused, Error::NoSuchLayer { count: 3, .. }), "{refused}");
    }
    let refused = refuse(LoadOptions { keep: vec![2, 0, 1, 1], ..LoadOptions::default() });
    assert!(matches!(refused, Error::InvalidParameter { name: "keep", .. }), "{refused}");
    // An empty prefix does nothing.
    let options = LoadOptions { strip: vec![String::new()], ..LoadOptions::default() };
    other.load_parameters_with(&path, &options).unwrap();
    assert_eq!(other, network);
}

#[test]
fn layers_are_kept_and_tensors_ignored() {
    let network = trained::<f32>();
    let (_folder, path, file) = foreign(&network);
    write(&file, &path);
    let norm = |network: &Network<f32>| {
        let parts = [Part::Scale, Part::Shift, Part::RunningMean, Part::RunningVariance];
        parts.map(|part| network.parameters().get(0, part).unwrap().into_owned())
    };
    for keep in 0..3 {
        let mut other = list::<f32>().seed(9).build().unwrap();
        let before = other.clone();
        let options = LoadOptions { keep: vec![keep], ..LoadOptions::default() };
        other.load_parameters_with(&path, &options).unwrap();
        for layer in 0..3 {
            let expected = if layer == keep { &before } else { &network };
            assert_eq!(other.layer(layer).unwrap(), expected.layer(layer).unwrap());
        }
        assert_eq!(norm(&other), norm(if keep == 0 { &before } else { &network }));
    }
    // Another output layer, whether the file's has its name, another, or is not there.
    let three = || {
        let list = Network::<f32>::builder((2, 5, 4)).conv2d(Conv2d::new(3, 2)).batch_norm().tanh();
        list.dense(4).relu().dense(3).seed(9).build().unwrap()
    };
    let named = renamed(&file, |name| name.replace("6.", "head."));
    let mut without = file.clone();
    without.tensors.retain(|name, _| !name.starts_with("6."));
    for (file, ignore) in [(&file, vec![]), (&named, vec!["head".to_owned()]), (&without, vec![])] {
        write(file, &path);
        let mut other = three();
        let options = LoadOptions { keep: vec![2], ignore, ..LoadOptions::default() };
        other.load_parameters_with(&path, &options).unwrap();
        assert_eq!(other.layer(1).unwrap(), network.layer(1).unwrap());
        assert_eq!(other.layer(2).unwrap(), three().layer(2).unwrap());
        let alone = LoadOptions { keep: vec![2], ..LoadOptions::default() };
        let refused = three().load_parameters_with(&path, &alone);
        assert_eq!(refused.is_ok(), !std::ptr::eq(file, &raw const named), "{refused:?}");
    }
}

/// The weights after a step of `f64` or `f32`.
fn after_a_step<T: Scalar>(network: &Network<T>) -> Vec<DMatrix<f64>> {
    let x = DMatrix::from_fn(6, 16, |i, j| T::of(((i * 5 + j * 3) % 7) as f64 / 3.0));
    let labels: Vec<usize> = (0..16).map(|j| j % 3).collect();
    let feedback = Feedback::new(network, FeedbackRule::Dfa, FeedbackInit::Nokland, 0).unwrap();
    let mut optimizer = OptimizerState::new(network, Sgd::default()).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    let mut network = network.clone();
    network.forward(&x, &mut activations).unwrap();
    Loss::SoftmaxCrossEntropy.error(&labels, &activations, &mut deltas).unwrap();
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    optimizer.step(&mut network, &gradients).unwrap();
    (0..3).map(|layer| network.layer(layer).unwrap().weights().map(T::as_f64)).collect()
}

/// A step in both scalars drops the same units, or it would end elsewhere.
#[test]
fn a_network_in_the_other_scalar_is_the_same_network() {
    let list = || list::<f32>().seed(3);
    let single: Network<f32> = {
        let list = Network::<f32>::builder(6).dropout(0.3).dense(40).elu(0.7).dropout(0.5);
        list.dense(30).batch_norm().leaky_relu(0.2).dense(3).seed(8).build().unwrap()
    };
    let double = single.cast::<f64>().unwrap();
    assert_eq!(double.cast::<f32>().unwrap(), single);
    assert_eq!(double.to_string(), single.to_string());
    assert_eq!(
        list().build().unwrap().cast::<f64>().unwrap().cast().unwrap(),
        list().build().unwrap()
    );
    assert_eq!(trained::<f32>().cast::<f64>().unwrap().cast().unwrap(), trained::<f32>());

    for (a, b) in after_a_step(&single).iter().zip(&after_a_step(&double)) {
        assert!((a - b).amax() < 1e-5, "{}", (a - b).amax());
    }
}

#[test]
fn what_does_not_fit_the_other_scalar_is_refused() {
    let mut network = list::<f64>().build().unwrap();
    let mut bias = network.layer(2).unwrap().bias().unwrap().into_owned();
    bias[1] = -1e39;
    network.set_bias(2, bias).unwrap();
    let refused = network.cast::<f32>().unwrap_err();
    assert!(matches!(refused, Error::NonFinite { row: 1, column: 0, .. }), "{refused}");
    assert!(refused.to_string().contains("rounded to f32"), "{refused}");
    assert_eq!(network.cast::<f64>().unwrap(), network);
    // ε would be 0.
    let tiny = Network::<f64>::builder(2).dense(3).batch_norm_with(0.1, 1e-60).relu().dense(2);
    let refused = tiny.build().unwrap().cast::<f32>().unwrap_err();
    assert!(matches!(refused, Error::InvalidParameter { name: "epsilon", .. }), "{refused}");
}
