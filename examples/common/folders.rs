//! Folders with data, and what to say where they do not hold it.

#![allow(dead_code)] // No example but `nokland` reads all of them.

use std::path::Path;

use feedback_alignment::Error;

use crate::common::Result;

/// What `--data` takes for MNIST.
pub const MNIST: &str = "\
--data takes a folder with the four files of MNIST, plain or .gz, such as those of
https://ossci-datasets.s3.amazonaws.com/mnist/ (train-images-idx3-ubyte.gz, ...).";

/// The same for CIFAR-10.
pub const CIFAR10: &str = "\
--data takes the folder cifar-10-batches-bin of the binary version of CIFAR-10, from
https://www.cs.toronto.edu/~kriz/cifar.html.";

/// The same for CIFAR-100.
pub const CIFAR100: &str = "\
--data takes the folder cifar-100-binary of the binary version of CIFAR-100, from
https://www.cs.toronto.edu/~kriz/cifar.html.";

/// Loads what a folder holds; if it is not there, the error says what to give.
pub fn load<D>(
    folder: &Path,
    hint: &str,
    load: impl FnOnce(&Path) -> feedback_alignment::Result<D>,
) -> Result<D> {
    load(folder).map_err(|error| match error {
        Error::Io { .. } | Error::MissingFile { .. } => format!("{error}\n\n{hint}").into(),
        other => other.into(),
    })
}
