//! The IDX format of MNIST and its relatives, plain or compressed with gzip.
//!
//! A file begins with the bytes `00 00 t d`: `t` is the type of the numbers, and `d` the number of
//! dimensions (3 for images, 1 for labels). Then come `d` sizes as big-endian `u32`, and then the
//! numbers, big-endian, with the last index running fastest (LeCun, Cortes and Burges, "The MNIST
//! database of handwritten digits"):
//!
//! | `t` | 08 | 09 | 0b | 0c | 0d | 0e |
//! |---|---|---|---|---|---|---|
//! | numbers | `u8` | `i8` | `i16` | `i32` | `f32` | `f64` |
//!
//! [`load`] makes a dataset from a file of images and a file of labels. [`load_dir`] and
//! [`load_emnist`] know the usual file names. [`read`] reads any IDX file.

use std::path::{Path, PathBuf};

use nalgebra::DMatrix;

use crate::{
    data::{dataset::Dataset, number::whole_number, scaling::Scaling},
    error::{Error, Result},
    files::{OpenFile, Wanted, first_of, require_folder},
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

/// The splits of EMNIST (Cohen, Afshar, Tapson and van Schaik, "EMNIST: an extension of MNIST to
/// handwritten letters", 2017).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Emnist {
    /// 814,255 digits and letters of 62 classes.
    ByClass,
    /// 814,255 digits and letters of 47 classes: letters that look alike in both cases are one.
    ByMerge,
    /// 131,600 digits and letters of 47 classes, as many of each.
    Balanced,
    /// 145,600 letters of 26 classes, which the files count from 1: a network needs 27 outputs.
    Letters,
    /// 280,000 digits.
    Digits,
    /// 70,000 digits.
    Mnist,
}

impl Emnist {
    /// Its name in file names.
    fn name(self) -> &'static str {
        match self {
            Self::ByClass => "byclass",
            Self::ByMerge => "bymerge",
            Self::Balanced => "balanced",
            Self::Letters => "letters",
            Self::Digits => "digits",
            Self::Mnist => "mnist",
        }
    }
}

/// Loads the four files of MNIST from a folder, each plain or with `.gz`: `train-images-idx3-ubyte`,
/// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`. (A dot in place of
/// the dash before `idx` is fine too.) Pixels are divided by 255.
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
    load_sets(folder.as_ref(), ["train", "t10k"], load)
}

/// Loads the four files of a split of EMNIST from a folder, each plain or with `.gz`:
/// `emnist-letters-train-images-idx3-ubyte` and so on. Pixels are divided by 255.
///
/// EMNIST stores an image column by column where MNIST stores it row by row. Rows and columns are
/// exchanged here, so that a digit looks as it does in MNIST. Labels are those of the files.
///
/// ```no_run
/// use feedback_alignment::data::idx::{Emnist, load_emnist};
///
/// let letters = load_emnist::<f32>("data/emnist", Emnist::Letters)?;
/// assert_eq!((letters.train.len(), letters.test.len()), (124_800, 20_800));
/// assert_eq!(letters.train.classes(), Some(27));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// Those of [`load_dir`].
pub fn load_emnist<T: Scalar>(folder: impl AsRef<Path>, split: Emnist) -> Result<Mnist<T>> {
    let sets = ["train", "test"].map(|set| format!("emnist-{}-{set}", split.name()));
    load_sets(folder.as_ref(), [&sets[0], &sets[1]], |images: PathBuf, labels: PathBuf| {
        dataset(Array::open(&images, Some(3))?.transposed_images(), &images, &labels)
    })
}

fn load_sets<T: Scalar>(
    folder: &Path,
    sets: [&str; 2],
    load: impl Fn(PathBuf, PathBuf) -> Result<Dataset<T>>,
) -> Result<Mnist<T>> {
    require_folder(folder)?;
    let set = |name: &str| {
        let images = find(folder, &format!("{name}-images"), "idx3-ubyte")?;
        let labels = find(folder, &format!("{name}-labels"), "idx1-ubyte")?;
        load(images, labels)
    };
    Ok(Mnist { train: set(sets[0])?, test: set(sets[1])? })
}

/// The file in `folder` with one of the names in use.
fn find(folder: &Path, stem: &str, kind: &str) -> Result<PathBuf> {
    let names = ["", ".gz"]
        .iter()
        .flat_map(|end| [format!("{stem}-{kind}{end}"), format!("{stem}.{kind}{end}")])
        .collect();
    first_of(folder, names)
}

/// Loads a file of images and the file of their labels. Pixels that are bytes stay bytes in memory and
/// are divided by 255 when they are used. Numbers of other types are taken unchanged. Labels are whole
/// numbers of any type.
///
/// ```
/// use feedback_alignment::data::idx;
///
/// let folder = std::env::temp_dir().join(format!("idx-{}", std::process::id()));
/// std::fs::create_dir_all(&folder).unwrap();
/// let (images, labels) = (folder.join("images"), folder.join("labels"));
/// std::fs::write(&images, [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 51, 255]).unwrap();
/// std::fs::write(&labels, [0, 0, 8, 1, 0, 0, 0, 1, 7]).unwrap();
/// let data = idx::load::<f64>(&images, &labels)?;
/// assert_eq!(data.inputs().as_slice(), [0.2, 1.0]);
/// assert_eq!(data.classes(), Some(8));
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`], [`Error::WrongFormat`], [`Error::IdxDimensions`], [`Error::Truncated`],
/// [`Error::TrailingBytes`] and [`Error::GzipDisabled`] for files that cannot be read or are not in
/// this format. [`Error::LabelNumber`] for a label that is not a whole number from 0.
/// [`Error::SampleCount`] if there are not as many labels as images. [`Error::Content`] for a NaN, an
/// infinity, or a number too large for `T`. [`Error::Empty`].
pub fn load<T: Scalar>(images: impl AsRef<Path>, labels: impl AsRef<Path>) -> Result<Dataset<T>> {
    let images = images.as_ref();
    dataset(Array::open(images, Some(3))?, images, labels.as_ref())
}

fn dataset<T: Scalar>(images: Array, path: &Path, labels: &Path) -> Result<Dataset<T>> {
    let labels = Array::open(labels, Some(1))?.into_labels(labels)?;
    let (count, features) = (images.sizes[0], images.sizes[1].saturating_mul(images.sizes[2]));
    if count != labels.len() {
        return Err(Error::SampleCount { inputs: count, targets: labels.len() });
    }
    if let Type::U8 = images.kind {
        let data = Dataset::from_bytes(features, images.bytes, labels)?;
        return data.scaled(&Scaling::divide_by(T::from(255)));
    }
    let data = Dataset::new(DMatrix::from_vec(features, count, images.numbers()), labels);
    data.map_err(|error| match error {
        Error::Empty { .. } => error,
        error => Error::Content { path: path.to_owned(), cause: Box::new(error) },
    })
}

/// Reads a file with any number of dimensions and any type of numbers. Returns its sizes and its
/// numbers, rounded to `T`, with the last index running fastest. If the first index counts the samples,
/// the numbers form a column-major matrix with a column for each sample.
///
/// ```
/// use feedback_alignment::{data::idx, nalgebra::DMatrix};
///
/// let path = std::env::temp_dir().join(format!("values-{}.idx", std::process::id()));
/// // Two samples of three numbers of 16 bits.
/// let bytes = [0, 0, 0x0b, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 1, 0, 2, 0, 3, 255, 255, 1, 0, 0, 6];
/// std::fs::write(&path, bytes).unwrap();
/// let (sizes, numbers) = idx::read::<f32>(&path)?;
/// assert_eq!((&sizes[..], &numbers[..]), (&[2, 3][..], &[1., 2., 3., -1., 256., 6.][..]));
/// assert_eq!(DMatrix::from_vec(sizes[1], sizes[0], numbers)[(1, 1)], 256.0);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`], [`Error::WrongFormat`], [`Error::Truncated`], [`Error::TrailingBytes`] and
/// [`Error::GzipDisabled`] for files that cannot be read or are not in this format.
/// [`Error::NonFinite`] for a NaN, an infinity, or a number too large for `T`.
pub fn read<T: Scalar>(path: impl AsRef<Path>) -> Result<(Vec<usize>, Vec<T>)> {
    let path = path.as_ref();
    let array = Array::open(path, None)?;
    let numbers: Vec<T> = array.numbers();
    let last = array.sizes.last().copied().unwrap_or(1);
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(at) => Err(Error::NonFinite {
            what: path.display().to_string(),
            row: at / last,
            column: at % last,
            found: numbers[at].as_f64(),
        }),
        None => Ok((array.sizes, numbers)),
    }
}

/// The content of a file.
struct Array {
    kind: Type,
    sizes: Vec<usize>,
    bytes: Vec<u8>,
}

/// The type of the numbers.
#[derive(Clone, Copy)]
enum Type {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Type {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            0x08 => Self::U8,
            0x09 => Self::I8,
            0x0b => Self::I16,
            0x0c => Self::I32,
            0x0d => Self::F32,
            0x0e => Self::F64,
            _ => return None,
        })
    }

    fn size(self) -> u8 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl Array {
    /// Reads a file with this number of dimensions, or with any number.
    fn open(path: &Path, expected: Option<usize>) -> Result<Self> {
        let mut source = OpenFile::open(path, Wanted::Idx)?;
        let magic = source.read_exactly(4)?;
        let kind = Type::of(magic[2]).ok_or_else(|| source.refuse())?;
        let dimensions = usize::from(magic[3]);
        if let Some(expected) = expected.filter(|&expected| expected != dimensions) {
            let (path, found) = (path.to_owned(), dimensions);
            return Err(Error::IdxDimensions { path, expected, found });
        }
        let header = source.read_exactly(4 * dimensions as u128)?;
        let (sizes, _) = header.as_chunks();
        let sizes = sizes.iter().map(|&bytes| u32::from_be_bytes(bytes));
        let numbers = length(sizes.clone());
        // The header alone is not trusted: its sizes have to fit what the file can hold, and memory
        // grows only as bytes arrive.
        let expected = numbers.saturating_mul(kind.size().into());
        let mut bytes = source.read_exactly(expected)?;
        if !source.is_at_end()? {
            return Err(Error::TrailingBytes { path: path.to_owned(), expected });
        }
        bytes.shrink_to_fit();
        Ok(Self { kind, sizes: sizes.map(|size| size as usize).collect(), bytes })
    }

    /// All numbers as `f64`, which represents each of them exactly.
    fn values(&self) -> Box<dyn Iterator<Item = f64> + '_> {
        fn each<const SIZE: usize>(
            bytes: &[u8],
            number: impl Fn([u8; SIZE]) -> f64,
        ) -> impl Iterator<Item = f64> {
            bytes.as_chunks().0.iter().map(move |&bytes| number(bytes))
        }
        let bytes = &self.bytes[..];
        match self.kind {
            Type::U8 => Box::new(each(bytes, |bytes| u8::from_be_bytes(bytes).into())),
            Type::I8 => Box::new(each(bytes, |bytes| i8::from_be_bytes(bytes).into())),
            Type::I16 => Box::new(each(bytes, |bytes| i16::from_be_bytes(bytes).into())),
            Type::I32 => Box::new(each(bytes, |bytes| i32::from_be_bytes(bytes).into())),
            Type::F32 => Box::new(each(bytes, |bytes| f32::from_be_bytes(bytes).into())),
            Type::F64 => Box::new(each(bytes, f64::from_be_bytes)),
        }
    }

    fn numbers<T: Scalar>(&self) -> Vec<T> {
        self.values().map(T::of).collect()
    }

    /// The numbers of one dimension as labels.
    fn into_labels(self, path: &Path) -> Result<Vec<usize>> {
        if let Type::U8 = self.kind {
            return Ok(self.bytes.into_iter().map(usize::from).collect());
        }
        let label = |(sample, found): (usize, f64)| {
            let refused = || Error::LabelNumber { path: path.to_owned(), sample, found };
            whole_number(found).ok_or_else(refused)
        };
        self.values().enumerate().map(label).collect()
    }

    /// Images with rows and columns exchanged.
    fn transposed_images(mut self) -> Self {
        let [_, height, width] = self.sizes[..] else { unreachable!("three dimensions") };
        let size = usize::from(self.kind.size());
        let line = width * size;
        if !self.bytes.is_empty() {
            for image in self.bytes.chunks_exact_mut(height * line) {
                let before = image.to_vec();
                let pixels = (0..width).flat_map(|column| {
                    before.chunks_exact(line).map(move |row| &row[column * size..][..size])
                });
                for (to, from) in image.chunks_exact_mut(size).zip(pixels) {
                    to.copy_from_slice(from);
                }
            }
        }
        self.sizes.swap(1, 2);
        self
    }
}

/// How many numbers an array with these sizes has.
fn length(sizes: impl Iterator<Item = u32> + Clone) -> u128 {
    if sizes.clone().any(|size| size == 0) {
        return 0;
    }
    // On overflow it stays at the maximum, which is more than any file holds.
    sizes.fold(1, |product, size| product.saturating_mul(size.into()))
}
