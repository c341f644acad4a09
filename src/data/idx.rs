//! The IDX format of MNIST and its relatives, plain or compressed with gzip.
//!
//! A file is the bytes `00 00 08 d`, where 08 stands for unsigned bytes and `d` is the number of
//! dimensions (3 for images, 1 for labels), then `d` sizes as big-endian `u32`, then the bytes
//! themselves (LeCun, Cortes and Burges, "The MNIST database of handwritten digits").

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::{
    data::{Dataset, Scaling},
    error::{Error, Result},
    files::{first_of, open},
    scalar::Scalar,
};

/// The two sets of MNIST, or of another dataset under the same file names.
#[derive(Clone, Debug, PartialEq)]
pub struct Mnist<T> {
    /// 60,000 samples in the original.
    pub train: Dataset<T>,
    /// 10,000 samples in the original.
    pub test: Dataset<T>,
}

/// Loads the four files of MNIST from a folder, each plain or with `.gz`: `train-images-idx3-ubyte`,
/// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte` (a dot in
/// place of the last dash but one is fine too). Pixels are divided by 255.
///
/// ```no_run
/// let mnist = feedback_alignment::data::idx::load_dir::<f32>("data/mnist")?;
/// assert_eq!((mnist.train.len(), mnist.test.len()), (60_000, 10_000));
/// assert_eq!(mnist.train.features(), 28 * 28);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be read, [`Error::MissingFile`], and those of [`load`].
pub fn load_dir<T: Scalar>(folder: impl AsRef<Path>) -> Result<Mnist<T>> {
    let folder = folder.as_ref();
    std::fs::read_dir(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let set = |name: &str| {
        let images = find(folder, &format!("{name}-images"), "idx3-ubyte")?;
        let labels = find(folder, &format!("{name}-labels"), "idx1-ubyte")?;
        load(images, labels)
    };
    Ok(Mnist { train: set("train")?, test: set("t10k")? })
}

/// The file in `folder` that is called by any of the names in use.
fn find(folder: &Path, stem: &str, kind: &str) -> Result<PathBuf> {
    let names = ["", ".gz"]
        .iter()
        .flat_map(|end| [format!("{stem}-{kind}{end}"), format!("{stem}.{kind}{end}")])
        .collect();
    first_of(folder, names)
}

/// Loads a file of images and the file of their labels. The bytes stay bytes in memory and are
/// divided by 255 as they are used.
///
/// # Errors
/// [`Error::Io`], [`Error::IdxMagic`], [`Error::IdxDimensions`], [`Error::Truncated`],
/// [`Error::TrailingBytes`] and [`Error::GzipDisabled`] for files that are not what they should
/// be, [`Error::SampleCount`] if there are not as many labels as images, [`Error::Empty`].
pub fn load<T: Scalar>(images: impl AsRef<Path>, labels: impl AsRef<Path>) -> Result<Dataset<T>> {
    let (sizes, pixels) = read(images.as_ref(), 3)?;
    let (_, labels) = read(labels.as_ref(), 1)?;
    let [count, height, width] = sizes[..] else { unreachable!("three sizes were read") };
    if count != labels.len() {
        return Err(Error::SampleCount { inputs: count, targets: labels.len() });
    }
    let labels = labels.into_iter().map(usize::from).collect();
    Dataset::from_bytes(height * width, pixels, labels)?.scaled(&Scaling::divide_by(T::from(255)))
}

/// Reads a file of `dimensions` dimensions: its sizes and its bytes.
fn read(path: &Path, dimensions: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let (mut reader, limit) = open(path)?;
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut read_exactly = |length: usize| {
        let mut bytes = Vec::new();
        reader.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(io)?;
        let (expected, found) = (length as u128, bytes.len() as u128);
        if found == expected {
            Ok(bytes)
        } else {
            Err(Error::Truncated { path: path.to_owned(), expected, found })
        }
    };

    let magic = read_exactly(4)?;
    if magic[..3] != [0, 0, 8] {
        return Err(Error::IdxMagic {
            path: path.to_owned(),
            found: [magic[0], magic[1], magic[2]],
        });
    }
    let found = usize::from(magic[3]);
    if found != dimensions {
        return Err(Error::IdxDimensions { path: path.to_owned(), expected: dimensions, found });
    }
    let sizes = read_exactly(4 * dimensions)?;
    let sizes: Vec<u32> = sizes
        .chunks_exact(4)
        .map(|bytes| u32::from_be_bytes(bytes.try_into().expect("four bytes")))
        .collect();

    // Nothing is reserved on the word of the header: it has to fit what the file can hold, and
    // memory grows only as bytes arrive.
    let expected: u128 = sizes.iter().map(|&size| u128::from(size)).product();
    if expected > limit {
        return Err(Error::Truncated { path: path.to_owned(), expected, found: limit });
    }
    let length = usize::try_from(expected).map_err(|_| Error::Truncated {
        path: path.to_owned(),
        expected,
        found: limit,
    })?;
    let mut bytes = read_exactly(length)?;
    if reader.read(&mut [0]).map_err(io)? > 0 {
        return Err(Error::TrailingBytes { path: path.to_owned(), expected });
    }
    bytes.shrink_to_fit();
    Ok((sizes.into_iter().map(|size| size as usize).collect(), bytes))
}
