//! Networks from PyTorch compute here what they compute there. The files, and the way back, are
//! the work of `pytorch_exchange.py`.
#![cfg(feature = "safetensors")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use feedback_alignment::{
    AvgPool2d, Bias, Conv2d, MaxPool2d, Network, NetworkBuilder, Scalar, Sgd, Trainer,
    nalgebra::DMatrix,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Where the script has its files, when it calls.
const FOLDER: &str = "PYTORCH_EXCHANGE";

fn dense<T: Scalar>() -> NetworkBuilder<T> {
    Network::builder(5)
        .dropout(0.1)
        .dense(7)
        .tanh()
        .dense_without_bias(6)
        .leaky_relu(0.2)
        .dropout(0.3)
        .dense(6)
        .batch_norm_with(0.3, 1e-3)
        .relu()
        .dense(5)
        .logistic()
        .dense(5)
        .identity()
        .dense(3)
}

fn convolutional<T: Scalar>() -> NetworkBuilder<T> {
    Network::builder((2, 9, 8))
        .conv2d(Conv2d { kernel: (3, 2), stride: (2, 1), padding: (1, 0), ..Conv2d::new(3, 1) })
        .batch_norm()
        .elu(0.7)
        .max_pool2d(MaxPool2d { kernel: (2, 3), stride: (1, 2) })
        .dropout(0.2)
        .conv2d(Conv2d { bias: Bias::Without, ..Conv2d::new(4, 2) })
        .softplus()
        .avg_pool2d(AvgPool2d::new(2, 1))
        .flatten()
        .batch_norm()
        .dense(6)
        .tanh()
        .dense(3)
}

/// A tensor of samples, a row each, as columns.
fn columns<T: Scalar>(file: &SafeTensors, name: &str) -> DMatrix<T> {
    let tensor = file.tensor(name).unwrap();
    let numbers = tensor.data().chunks_exact(size_of::<T>()).map(|bytes| {
        T::of(match tensor.dtype() {
            Dtype::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
            _ => f64::from_le_bytes(bytes.try_into().unwrap()),
        })
    });
    DMatrix::from_iterator(tensor.shape()[1], tensor.shape()[0], numbers)
}

/// What rounding may change, relative to the largest answer.
fn tolerance<T: Scalar>() -> f64 {
    if T::NAME == "f32" { 2e-6 } else { 1e-14 }
}

/// The network of a file from PyTorch, which answers as it did there.
fn load<T: Scalar>(list: NetworkBuilder<T>, folder: &Path, name: &str) -> Network<T> {
    let mut network = list.seed(7).build().unwrap();
    network.load_parameters(folder.join(format!("{name}.safetensors"))).unwrap();
    let bytes = fs::read(folder.join(format!("{name}.answers.safetensors"))).unwrap();
    let answers = SafeTensors::deserialize(&bytes).unwrap();
    let (x, expected) = (columns::<T>(&answers, "input"), columns::<T>(&answers, "output"));
    assert_eq!((x.shape(), expected.shape()), ((network.input_len(), 8), (3, 8)));
    let error = (network.predict(&x).unwrap() - &expected).amax().as_f64();
    let error = error / expected.amax().as_f64();
    assert!(error <= tolerance::<T>(), "{name}: relative error {error}");
    network
}

#[test]
fn networks_from_pytorch_answer_as_they_do_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    load::<f32>(dense(), &folder, "dense-f32");
    load::<f64>(dense(), &folder, "dense-f64");
    load::<f32>(convolutional(), &folder, "convolutional-f32");
    load::<f64>(convolutional(), &folder, "convolutional-f64");
}

/// Saves inputs and answers, a row for each sample.
fn save_answers<T: Scalar>(path: &Path, tensors: [(&str, &DMatrix<T>); 2]) {
    let encode = |matrix: &DMatrix<T>| -> Vec<u8> {
        let numbers = matrix.iter().map(|number| number.as_f64());
        #[allow(clippy::cast_possible_truncation)] // It was an `f32`.
        match T::NAME {
            "f32" => numbers.flat_map(|number| (number as f32).to_le_bytes()).collect(),
            _ => numbers.flat_map(f64::to_le_bytes).collect(),
        }
    };
    let dtype = if T::NAME == "f32" { Dtype::F32 } else { Dtype::F64 };
    let bytes = tensors.map(|(_, matrix)| encode(matrix));
    let views = tensors.iter().zip(&bytes).map(|((name, matrix), bytes)| {
        (*name, TensorView::new(dtype, vec![matrix.ncols(), matrix.nrows()], bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn there_and_back<T: Scalar>(list: NetworkBuilder<T>, folder: &Path, name: &str) {
    let network = load(list, folder, name);
    let x = DMatrix::from_fn(network.input_len(), 6, |i, j| {
        T::of(((i * 7 + j * j * 5) % 11) as f64 / 4.0 - 1.2)
    });
    let sgd = Sgd { learning_rate: 0.1, ..Sgd::default() };
    let mut trainer = Trainer::builder(network).optimizer(sgd).build().unwrap();
    for _ in 0..3 {
        trainer.step(&x, &[0, 1, 2, 2, 1, 0]).unwrap();
    }
    let network = trainer.into_network();
    network.save(folder.join(format!("{name}.ours.safetensors"))).unwrap();
    let path = folder.join(format!("{name}.ours.answers.safetensors"));
    save_answers(&path, [("input", &x), ("output", &network.predict(&x).unwrap())]);
}

#[test]
#[ignore = "called by pytorch_exchange.py, which says where the files are"]
fn networks_go_there_and_back() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    there_and_back::<f32>(dense(), &folder, "dense-f32");
    there_and_back::<f64>(dense(), &folder, "dense-f64");
    there_and_back::<f32>(convolutional(), &folder, "convolutional-f32");
    there_and_back::<f64>(convolutional(), &folder, "convolutional-f64");
}
