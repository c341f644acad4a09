//! Files of networks: what comes back, how PyTorch would read it, and what is refused.

use crate::craft;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use craft::{Craft, Tensor};
use feedback_alignment::{
    Activation, AvgPool2d, Bias, Conv2d, Error, Init, Loss, MaxPool2d, Network, NetworkBuilder,
    Part, Scalar, Sgd, Trainer,
    nalgebra::{DMatrix, DVector},
};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use tempfile::{TempDir, tempdir};

/// `Debug` tells every number from its neighbours, and −0 from 0.
fn bits<T: Scalar>(network: &Network<T>) -> String {
    format!("{network:?}")
}

/// Every kind of entry, none square.
fn convolutional<T: Scalar>() -> NetworkBuilder<T> {
    Network::builder((2, 9, 7))
        .dropout(0.1)
        .conv2d(Conv2d { kernel: (3, 2), stride: (2, 1), padding: (1, 0), ..Conv2d::new(3, 1) })
        .batch_norm()
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 1))
        .dropout(0.3)
        .conv2d(Conv2d { bias: Bias::Without, ..Conv2d::new(4, 2) })
        .elu(0.7)
        .avg_pool2d(AvgPool2d { kernel: (2, 1), stride: (1, 2) })
        .dense_without_bias(6)
        .batch_norm_with(0.3, 1e-4)
        .leaky_relu(0.2)
        .dense(5)
}

fn dense<T: Scalar>() -> NetworkBuilder<T> {
    let list = Activation::all().fold(Network::builder(3), |list, f| list.dense(4).activation(f));
    list.dense(2)
}

/// A network whose running statistics and other parameters have moved from where they start.
fn trained<T: Scalar>(list: NetworkBuilder<T>) -> Network<T> {
    let network = list.build().unwrap();
    let x =
        DMatrix::from_fn(network.input_len(), 6, |i, j| T::of(((i * 7 + j * 5) % 11) as f64 / 8.0));
    let mut trainer = Trainer::builder(network).build().unwrap();
    for _ in 0..3 {
        trainer.step(&x, &[0, 1, 0, 1, 1, 0]).unwrap();
    }
    trainer.into_network()
}

fn comes_back<T: Scalar>() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    for list in [dense::<T>(), convolutional(), convolutional().seed(3).init(Init::Zeros)] {
        for network in [list.clone().build().unwrap(), trained(list.init(Init::FanIn))] {
            network.save(&path).unwrap();
            let loaded = Network::<T>::load(&path).unwrap();
            assert_eq!(bits(&loaded), bits(&network));
            let x = DMatrix::from_fn(network.input_len(), 3, |i, j| T::of((i + j) as f64 / 9.0));
            assert_eq!(loaded.predict(&x).unwrap(), network.predict(&x).unwrap());
            // The same network makes the same file.
            let bytes = fs::read(&path).unwrap();
            loaded.save(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}

#[test]
fn a_network_comes_back_to_the_bit() {
    comes_back::<f32>();
    comes_back::<f64>();
}

/// Numbers whose bits are easily lost: subnormal, negative zero, the ends of the range.
#[test]
fn odd_numbers_come_back_to_the_bit() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("odd");
    let odd = [f64::MIN_POSITIVE / 3.0, -0.0, f64::MAX, f64::MIN, 0.1, -5e-324];
    let mut network = Network::<f64>::builder(2).dense(3).build().unwrap();
    network.set_weights(0, DMatrix::from_column_slice(3, 2, &odd)).unwrap();
    network.set_bias(0, DVector::from_column_slice(&odd[..3])).unwrap();
    network.save(&path).unwrap();
    assert_eq!(bits(&Network::<f64>::load(&path).unwrap()), bits(&network));

    let odd = [f32::MIN_POSITIVE / 3.0, -0.0, f32::MAX, f32::MIN, 0.1, -1e-45];
    let mut network = Network::<f32>::builder(2).dense(3).build().unwrap();
    network.set_weights(0, DMatrix::from_column_slice(3, 2, &odd)).unwrap();
    network.set_bias(0, DVector::from_column_slice(&odd[..3])).unwrap();
    network.save(&path).unwrap();
    assert_eq!(bits(&Network::<f32>::load(&path).unwrap()), bits(&network));
}

/// `torch.nn.Sequential(Dropout, Conv2d, BatchNorm2d, Tanh, MaxPool2d, Dropout, Conv2d, ELU,
/// AvgPool2d, Flatten, Linear, BatchNorm1d, LeakyReLU, Linear)`
#[test]
fn tensors_are_named_shaped_and_ordered_as_in_pytorch() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("network");
    let network = trained::<f32>(convolutional());
    network.save(&path).unwrap();
    let file = Craft::open(&path);
    let shapes: BTreeMap<&str, &[usize]> =
        file.tensors.iter().map(|(name, tensor)| (&**name, &*tensor.shape)).collect();
    let expected: BTreeMap<&str, &[usize]> = [
        ("1.weight", &[3, 2, 3, 2][..]),
        ("1.bias", &[3]),
        ("2.weight", &[3]),
        ("2.bias", &[3]),
        ("2.running_mean", &[3]),
        ("2.running_var", &[3]),
        ("6.weight", &[4, 3, 2, 2]),
        ("10.weight", &[6, 16]),
        ("11.weight", &[6]),
        ("11.bias", &[6]),
        ("11.running_mean", &[6]),
        ("11.running_var", &[6]),
        ("13.weight", &[5, 6]),
        ("13.bias", &[5]),
    ]
    .into();
    assert_eq!(shapes, expected);

    // Row by row.
    for (name, layer) in [("1.weight", 0), ("6.weight", 1), ("10.weight", 2), ("13.weight", 3)] {
        let weights = network.layer(layer).unwrap().weights().transpose();
        assert_eq!(file.tensors[name].bytes, Tensor::of(&[], weights.as_slice()).bytes, "{name}");
    }
    for (name, part) in [
        ("11.weight", Part::Scale),
        ("11.bias", Part::Shift),
        ("11.running_mean", Part::RunningMean),
        ("11.running_var", Part::RunningVariance),
    ] {
        assert_eq!(
            file.tensors[name],
            Tensor::of(&[6], network.parameters().get(2, part).unwrap().into_owned().as_slice()),
            "{name}"
        );
    }
    assert_eq!(
        file.description,
        concat!(
            "format 1\n",
            "crate ",
            env!("CARGO_PKG_VERSION"),
            "\n",
            "kind network\n",
            "input shape=2x9x7\n",
            "dropout probability=0.1\n",
            "conv2d channels=3 kernel=3x2 stride=2x1 padding=1x0 bias=with\n",
            "batch-norm momentum=0.1 epsilon=1e-5\n",
            "tanh\n",
            "max-pool2d kernel=2x2 stride=1x1\n",
            "dropout probability=0.3\n",
            "conv2d channels=4 kernel=2x2 stride=1x1 padding=0x0 bias=without\n",
            "elu alpha=0.7\n",
            "avg-pool2d kernel=2x1 stride=1x2\n",
            "flatten\n",
            "dense outputs=6 bias=without\n",
            "batch-norm momentum=0.3 epsilon=0.0001\n",
            "leaky-relu slope=0.2\n",
            "dense outputs=5 bias=with\n",
        )
    );
    // The documented checksum is the one in the file.
    assert_eq!(fs::read(&path).unwrap().len(), file.seal().len());
    file.write(&path);
    assert_eq!(bits(&Network::<f32>::load(&path).unwrap()), bits(&network));
}

/// After `flatten` every pixel is a feature of its own, as for PyTorch's `BatchNorm1d`.
#[test]
fn a_named_flatten_counts_as_pytorch_counts_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("network");
    let list = || Network::<f64>::builder((2, 4, 4)).conv2d(Conv2d::new(3, 3)).relu();
    for (list, names, channels) in [
        (list().batch_norm().dense(2), ["0.weight", "2.weight", "4.weight"], 3),
        (list().batch_norm().flatten().dense(2), ["0.weight", "2.weight", "4.weight"], 3),
        (list().flatten().batch_norm().dense(2), ["0.weight", "3.weight", "4.weight"], 12),
        (
            list().flatten().flatten().batch_norm().dense(2),
            ["0.weight", "4.weight", "5.weight"],
            12,
        ),
    ] {
        let network = trained(list);
        assert_eq!(network.parameters().get(0, Part::Scale).unwrap().len(), channels);
        network.save(&path).unwrap();
        let file = Craft::open(&path);
        let weights = file.tensors.keys().filter(|name| name.ends_with("weight"));
        assert_eq!(weights.collect::<Vec<_>>(), names);
        assert_eq!(bits(&Network::<f64>::load(&path).unwrap()), bits(&network));
    }
}

/// Saves as another program would: no description, or nothing but PyTorch's mark.
fn write_foreign(file: &Craft, marked: bool, path: &Path) {
    let views = file.tensors.iter().map(|(name, Tensor { dtype, shape, bytes })| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let metadata = marked.then(|| [("format".to_owned(), "pt".to_owned())].into_iter().collect());
    fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

#[test]
fn parameters_are_loaded_from_files_of_other_programs() {
    let folder = tempdir().unwrap();
    let (own, foreign) = (folder.path().join("own"), folder.path().join("foreign"));
    let trained = trained::<f32>(convolutional());
    trained.save(&own).unwrap();
    let counter = Tensor { dtype: Dtype::I64, shape: vec![], bytes: 3_i64.to_le_bytes().to_vec() };
    let plain = Craft::open(&own);
    let counting = plain
        .clone()
        .with("2.num_batches_tracked", counter.clone())
        .with("11.num_batches_tracked", counter.clone());
    for (file, marked) in [(&plain, false), (&plain, true), (&counting, true)] {
        write_foreign(file, marked, &foreign);
        let mut network = convolutional::<f32>().seed(8).build().unwrap();
        assert_ne!(bits(&network), bits(&trained));
        network.load_parameters(&foreign).unwrap();
        assert_eq!(bits(&network), bits(&trained));
        let refused = Network::<f32>::load(&foreign).unwrap_err();
        assert!(matches!(refused, Error::FileKind { expected: "network", .. }), "{refused}");
    }
    // A counter of something that is no batch normalisation has no place.
    write_foreign(&plain.with("13.num_batches_tracked", counter), true, &foreign);
    let refused = convolutional::<f32>().build().unwrap().load_parameters(&foreign).unwrap_err();
    assert!(matches!(refused, Error::UnexpectedTensor { .. }), "{refused}");
}

#[test]
fn parameters_of_our_own_files_are_loaded_whatever_the_operations() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("network");
    let saved = trained::<f64>(Network::builder(3).dense(4).tanh().dropout(0.5).dense(2));
    saved.save(&path).unwrap();
    let mut network =
        Network::<f64>::builder(3).dense(4).relu().dropout(0.1).dense(2).seed(5).build().unwrap();
    let operations = network.layer(0).unwrap().operations().to_vec();
    network.load_parameters(&path).unwrap();
    for layer in 0..2 {
        assert_eq!(network.layer(layer).unwrap(), saved.layer(layer).unwrap());
    }
    assert_eq!(network.layer(0).unwrap().operations(), operations);
}

/// Loads what both ways refuse alike, and finds the network untouched.
fn refusal(path: &Path) -> Error {
    let mut network = trained::<f32>(convolutional());
    let before = bits(&network);
    let own = Network::<f32>::load(path).unwrap_err();
    let parameters = network.load_parameters(path).unwrap_err();
    assert_eq!(own.to_string(), parameters.to_string());
    assert_eq!(bits(&network), before);
    own
}

macro_rules! assert_refused {
    ($path:expr, $pattern:pat $(if $guard:expr)?, [$($part:expr),*]) => {{
        let error = refusal(&$path);
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        let message = error.to_string();
        for part in [$path.to_str().unwrap(), $($part),*] {
            assert!(message.contains(part), "'{message}' does not name '{part}'");
        }
    }};
}

/// A good file, and where to write a bad one.
fn good(folder: &TempDir) -> (Craft, PathBuf) {
    let path = folder.path().join("network");
    trained::<f32>(convolutional()).save(&path).unwrap();
    (Craft::open(&path), path)
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = tempdir().unwrap();
    let (file, path) = good(&folder);

    let mut bad = file.clone();
    bad.tensors.remove("6.weight");
    bad.write(&path);
    assert_refused!(
        path,
        Error::MissingTensor { expected, .. } if expected == "6.weight",
        ["no tensor '6.weight'", "1.weight", "13.bias"]
    );
    file.clone().with("12.weight", Tensor::of(&[1], &[0.0])).write(&path);
    assert_refused!(
        path,
        Error::UnexpectedTensor { tensor, .. } if tensor == "12.weight",
        ["'12.weight'", "13.weight"]
    );
    let mut bad = file.clone();
    bad.tensors.get_mut("10.weight").unwrap().shape = vec![16, 6];
    bad.write(&path);
    assert_refused!(
        path,
        Error::TensorShape { tensor, .. } if tensor == "10.weight",
        ["'10.weight'", "[6, 16]", "[16, 6]"]
    );
    let mut bad = file.clone();
    bad.tensors.get_mut("1.weight").unwrap().shape = vec![3, 12];
    bad.write(&path);
    assert_refused!(path, Error::TensorShape { .. }, ["'1.weight'", "[3, 2, 3, 2]", "[3, 12]"]);
    for dtype in [Dtype::I32, Dtype::U32] {
        let mut bad = file.clone();
        bad.tensors.get_mut("2.running_mean").unwrap().dtype = dtype;
        bad.write(&path);
        assert_refused!(
            path,
            Error::TensorType { expected: "f32", .. },
            ["'2.running_mean'", "f32", &dtype.to_string()]
        );
    }
    trained::<f64>(convolutional()).save(&path).unwrap();
    assert_refused!(path, Error::TensorType { .. }, ["'1.weight'", "f32", "F64"]);
    for (number, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut bad = file.clone();
        bad.tensors.get_mut("10.weight").unwrap().bytes[(2 * 16 + 7) * 4..][..4]
            .copy_from_slice(&number.to_le_bytes());
        bad.write(&path);
        assert_refused!(
            path,
            Error::NonFinite { row: 2, column: 7, .. },
            ["'10.weight'", name, "row 2, column 7"]
        );
    }
    let variance = Tensor::of(&[3], &[1.0, -1e-30, 1.0]);
    file.clone().with("2.running_var", variance).write(&path);
    assert_refused!(
        path,
        Error::TensorValue { .. },
        ["'2.running_var'", "-0.000000000000000000000000000001", "at least 0"]
    );
    // A mean may be negative.
    file.with("2.running_mean", Tensor::of(&[3], &[1.0, -1.0, 1.0])).write(&path);
    Network::<f32>::load(&path).unwrap();
}

#[test]
fn another_architecture_is_told_by_its_tensors() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("network");
    let list = || Network::<f32>::builder(4).dense(8).tanh().dense(3);
    list().build().unwrap().save(&path).unwrap();
    let load = |list: NetworkBuilder<f32>| {
        let mut network = list.build().unwrap();
        let before = bits(&network);
        let error = network.load_parameters(&path).unwrap_err();
        assert_eq!(bits(&network), before);
        error
    };
    for (other, tensor) in [
        (Network::builder(5).dense(8).tanh().dense(3), "0.weight"),
        (Network::builder(4).dense(7).tanh().dense(3), "0.weight"),
        (Network::builder(4).dense(8).tanh().dense(2), "2.weight"),
    ] {
        let error = load(other);
        assert!(matches!(&error, Error::TensorShape { tensor: found, .. } if found == tensor));
    }
    for (other, tensor) in [
        (Network::builder(4).dense(8).tanh().dense(3).tanh().dense(3), "4.weight"),
        (Network::builder(4).dense(8).dropout(0.1).tanh().dense(3), "3.weight"),
        (Network::builder(4).dense(8).batch_norm().dense(3), "1.weight"),
        (Network::builder((4, 1, 1)).conv2d(Conv2d::new(8, 1)).tanh().dense(3), "0.weight"),
    ] {
        match load(other) {
            Error::MissingTensor { expected, .. } => assert_eq!(expected, tensor),
            Error::TensorShape { tensor: found, .. } => assert_eq!(found, tensor),
            other => panic!("{other}"),
        }
    }
    let error = load(Network::builder(4).dense_without_bias(8).tanh().dense(3));
    assert!(matches!(&error, Error::UnexpectedTensor { tensor, .. } if tensor == "0.bias"));
}

#[test]
fn a_description_that_makes_no_sense_is_named_with_its_line() {
    let folder = tempdir().unwrap();
    let (file, path) = good(&folder);
    let load = |file: &Craft| {
        file.write(&path);
        Network::<f32>::load(&path).unwrap_err()
    };
    for (from, to, line) in [
        ("kind network\n", "kind network\n\n", 5),
        ("input shape=2x9x7", "input shape=2x9", 5),
        ("probability=0.1", "probability=.1", 6),
        ("kernel=3x2", "kernel=3x2x1", 7),
        ("tanh", "tanhh", 9),
        ("flatten\n", "", 15),
        ("dense outputs=5 bias=with\n", "dense outputs=5 bias=with\ndense", 20),
        ("dense outputs=5 bias=with\n", "dense outputs=5 bias=with", 20),
    ] {
        let error = load(&file.clone().replace(from, to));
        let found = matches!(error, Error::Description { line: found, .. } if found == line);
        assert!(found, "{from} → {to}: {error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    for (from, to, expected) in [
        ("probability=0.3", "probability=1.0", "probability is 1,"),
        ("probability=0.3", "probability=NaN", "probability is NaN,"),
        ("momentum=0.3 epsilon=0.0001", "momentum=2.0 epsilon=0.0001", "momentum is 2,"),
        ("momentum=0.3 epsilon=0.0001", "momentum=0.3 epsilon=1e-60", "epsilon is 0.000"),
        ("alpha=0.7", "alpha=-0.7", "alpha is -0.7,"),
        ("stride=1x2", "stride=1x0", "a stride of 0"),
        ("kernel=2x1", "kernel=2x100", "larger than its padded input"),
        ("leaky-relu slope=0.2\n", "leaky-relu slope=inf\n", "slope is inf,"),
        ("dropout probability=0.1\n", "tanh\n", "before the first weighted layer"),
        ("dense outputs=5 bias=with\n", "dense outputs=5 bias=with\ntanh\n", "output layer"),
    ] {
        let error = load(&file.clone().replace(from, to));
        assert!(matches!(error, Error::Content { .. }), "{from} → {to}: {error:?}");
        let message = error.to_string();
        for part in [path.to_str().unwrap(), expected] {
            assert!(message.contains(part), "'{message}' does not name '{part}'");
        }
    }
    let empty = load(&Craft::new("network", "input shape=3x1x1\n"));
    assert!(empty.to_string().contains("no weighted layer"), "{empty}");
    let empty = load(&Craft::new("network", ""));
    assert!(matches!(empty, Error::Description { line: 5, .. }), "{empty}");
}

#[test]
fn other_kinds_and_versions_are_named() {
    let folder = tempdir().unwrap();
    let (file, path) = good(&folder);
    file.clone().replace("kind network", "kind cake").write(&path);
    assert_refused!(path, Error::FileKind { expected: "network", .. }, ["a network", "a cake"]);
    let future = file.clone().replace("format 1\ncrate 0.1.0", "format 2\ncrate 7.8.9");
    future.write(&path);
    assert_refused!(path, Error::FormatVersion { .. }, ["7.8.9", "format 2", "format 1"]);
    // Whatever else the future holds.
    let mut future = Craft::new("", "");
    future.description = "format 10\ncrate 9.0.0".into();
    fs::write(&path, future.seal_with("cathedral of tensors")).unwrap();
    assert_refused!(path, Error::FormatVersion { .. }, ["9.0.0", "format 10"]);
    for (cut, line) in [("", 1), ("format 1", 2), ("format 1\ncrate 0.1.0", 3)] {
        let mut bad = file.clone();
        bad.description = cut.into();
        fs::write(&path, bad.seal_with("")).unwrap();
        let error = refusal(&path);
        let found = matches!(error, Error::Description { line: found, .. } if found == line);
        assert!(found, "{cut:?}: {error}");
    }
    for checksum in ["checksum", "checksum 0", "checksum 000000000", "checksum +0000000", "sum 1"] {
        fs::write(&path, file.seal_with(checksum)).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, Error::Description { line: 4, .. } | Error::Checksum { .. }));
    }
    let digits = format!("{:08x}", file.checksum());
    fs::write(&path, file.seal_with("checksum 00000000")).unwrap();
    assert_refused!(path, Error::Checksum { .. }, ["damaged", "00000000", &digits]);
}

/// Parsing takes many times the header, so that a long one is worth making up.
#[test]
fn a_header_beyond_all_measure_is_refused() {
    let folder = tempdir().unwrap();
    let (file, path) = good(&folder);
    let mut bytes = file.seal();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    let end = 8 + usize::try_from(header).unwrap();
    for (length, is_good) in [(16 << 20, true), ((16 << 20) + 1, false)] {
        let spaces = vec![b' '; length - (end - 8)];
        let mut long = [&bytes[..end], &spaces, &bytes[end..]].concat();
        long[..8].copy_from_slice(&(length as u64).to_le_bytes());
        fs::write(&path, &long).unwrap();
        let loaded = Network::<f32>::load(&path);
        assert_eq!(loaded.is_ok(), is_good, "{length}");
        if let Err(error) = loaded {
            let source = SafeTensorError::HeaderTooLarge;
            assert_eq!(error.to_string(), format!("{}: {source}", path.display()));
        }
    }
    bytes.truncate(end);
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(Network::<f32>::load(&path), Err(Error::Safetensors { .. })));
}

#[test]
fn what_diverged_does_not_take_the_place_of_what_did_not() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("network");
    let network = Network::<f32>::builder(2).dense(2).build().unwrap();
    network.save(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let sgd = Sgd { learning_rate: 1e38, ..Sgd::default() };
    let builder = Trainer::builder(network.clone()).loss(Loss::MeanSquaredError).optimizer(sgd);
    let mut trainer = builder.build().unwrap();
    let refused = trainer.step(&DMatrix::from_element(2, 1, 100.0), &[0]).unwrap_err();
    let named = matches!(&refused, Error::NonFinite { what, .. } if what.contains("layer 0"));
    assert!(named, "{refused}");
    trainer.network().save(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_folder_that_is_not_there_or_no_file_is_refused() {
    let folder = tempdir().unwrap();
    let inner = folder.path().join("folder");
    fs::create_dir(&inner).unwrap();
    let mut network = dense::<f32>().build().unwrap();
    for path in [folder.path().join("none/network"), inner, "/".into(), "".into()] {
        assert!(matches!(network.save(&path), Err(Error::Io { .. })), "{path:?}");
        assert!(matches!(Network::<f32>::load(&path), Err(Error::Io { .. })), "{path:?}");
        assert!(matches!(network.load_parameters(&path), Err(Error::Io { .. })), "{path:?}");
    }
    // Nothing is left beside the folder that could not be replaced.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What `files/replace.rs` tests in detail holds for everything that is saved.
#[cfg(unix)]
#[test]
fn links_modes_and_kinds_of_files_are_respected() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    type Save<'a> = &'a dyn Fn(&Path) -> Result<(), Error>;

    let network = dense::<f32>().build().unwrap();
    let trainer = Trainer::builder(network.clone()).build().unwrap();
    let savers: [Save; 2] = [&|path| network.save(path), &|path| trainer.save(path)];
    for save in savers {
        let folder = tempdir().unwrap();
        let (path, link) = (folder.path().join("n".repeat(255)), folder.path().join("link"));
        symlink(&path, &link).unwrap();
        save(&link).unwrap(); // It leads nowhere yet.
        let before = fs::read(&path).unwrap();
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        set_mode(0o600);
        fs::write(&path, "old").unwrap();
        save(&link).unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o600, before.clone()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        set_mode(0o444);
        for path in [&path, &link, Path::new("/dev/null"), folder.path()] {
            let refused = save(path).unwrap_err();
            assert!(matches!(refused, Error::Io { .. }), "{refused}");
            assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
        }
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o444, before));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

/// Lists of entries over small images; not all of them are networks.
fn lists() -> impl Strategy<Value = NetworkBuilder<f64>> {
    let pair = || (1..4_usize, 1..4_usize);
    let padding = (0..3_usize, 0..3_usize);
    let entry = prop_oneof![
        (1..5_usize).prop_map(|units| Entry::Dense(units, Bias::With)),
        (1..5_usize).prop_map(|units| Entry::Dense(units, Bias::Without)),
        (1..4_usize, pair(), pair(), padding, any::<bool>()).prop_map(
            |(channels, kernel, stride, padding, with)| {
                let bias = if with { Bias::With } else { Bias::Without };
                Entry::Conv2d(Conv2d { channels, kernel, stride, padding, bias })
            }
        ),
        (pair(), pair()).prop_map(|(kernel, stride)| Entry::Max(MaxPool2d { kernel, stride })),
        (pair(), pair()).prop_map(|(kernel, stride)| Entry::Mean(AvgPool2d { kernel, stride })),
        (0.01..1.0, 1e-6..1e-2).prop_map(|(m, epsilon)| Entry::Norm(m, epsilon)),
        (0.0..0.99).prop_map(Entry::Dropout),
        (1e-6..1e-2).prop_map(Entry::LayerNorm),
        (1..3_usize).prop_map(Entry::Skip),
        Just(Entry::Global),
        (0..Activation::all().len())
            .prop_map(|index| Entry::Activation(Activation::all().nth(index).unwrap())),
        (-2.0..2.0).prop_map(|slope| Entry::Activation(Activation::LeakyRelu { slope })),
        Just(Entry::Flatten),
    ];
    let shape = (1..4_usize, 1..7_usize, 1..7_usize);
    (shape, prop::collection::vec(entry, 0..9), 1..4_usize, any::<u64>()).prop_map(
        |(shape, entries, outputs, seed)| {
            let list = Network::builder(shape).seed(seed);
            let list = entries.into_iter().fold(list, |list, entry| match entry {
                Entry::Dense(units, Bias::With) => list.dense(units),
                Entry::Dense(units, Bias::Without) => list.dense_without_bias(units),
                Entry::Conv2d(conv) => list.conv2d(conv),
                Entry::Max(pool) => list.max_pool2d(pool),
                Entry::Mean(pool) => list.avg_pool2d(pool),
                Entry::Norm(momentum, epsilon) => list.batch_norm_with(momentum, epsilon),
                Entry::Dropout(probability) => list.dropout(probability),
                Entry::LayerNorm(epsilon) => list.layer_norm_with(epsilon),
                Entry::Skip(layers) => list.skip(layers),
                Entry::Global => list.global_avg_pool2d(),
                Entry::Activation(activation) => list.activation(activation),
                Entry::Flatten => list.flatten(),
            });
            list.dense(outputs)
        },
    )
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Dense(usize, Bias),
    Conv2d(Conv2d),
    Max(MaxPool2d),
    Mean(AvgPool2d),
    Norm(f64, f64),
    Dropout(f64),
    Activation(Activation),
    LayerNorm(f64),
    Skip(usize),
    Global,
    Flatten,
}

#[test]
fn any_network_that_can_be_built_comes_back() {
    let folder = tempdir().unwrap();
    let built = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 600, failure_persistence: None, ..<_>::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&lists(), |list| {
        let Ok(network) = list.build() else { return Ok(()) };
        built.set(built.get() + 1);
        let path = folder.path().join(format!("network-{}", built.get()));
        network.save(&path).unwrap();
        prop_assert_eq!(bits(&Network::<f64>::load(&path).unwrap()), bits(&network));
        let mut other = network.clone();
        let zeros = network.layer(0).unwrap().weights() * 0.0;
        other.set_weights(0, zeros).unwrap();
        other.load_parameters(&path).unwrap();
        prop_assert_eq!(bits(&other), bits(&network));
        Ok(())
    });
    result.unwrap();
    assert!(built.get() > 100, "only {} lists were networks", built.get());
}
