//! The binary format of CIFAR-10 and CIFAR-100, plain or compressed with gzip.
//!
//! A file is a sequence of records without a header. A record is one label byte (CIFAR-10, 0 to 9) or
//! two (CIFAR-100, coarse 0 to 19 and fine 0 to 99), and then the 3072 bytes of an image: red, green
//! and blue, each 32 × 32 row by row (Krizhevsky, "Learning multiple layers of features from tiny
//! images", 2009, and the page of the datasets).

use std::path::{Path, PathBuf};

use crate::{
    data::{dataset::Dataset, scaling::Scaling},
    error::{Error, Result},
    files::{OpenFile, Wanted, first_of, require_folder},
    scalar::Scalar,
};

/// Channels, height and width of every image.
pub const SHAPE: (usize, usize, usize) = (3, 32, 32);

/// Bytes of an image.
const PIXELS: usize = SHAPE.0 * SHAPE.1 * SHAPE.2;

/// The most records read from one file. The whole of CIFAR-10 has 60,000, and without a limit a
/// compressed file could go on for ever.
const MOST_RECORDS: usize = 100_000;

/// The two sets of CIFAR-10 or CIFAR-100.
#[derive(Clone, Debug, PartialEq)]
pub struct Cifar<T> {
    /// 50,000 samples in the original.
    pub train: Dataset<T>,
    /// 10,000 samples in the original.
    pub test: Dataset<T>,
}

/// Which of CIFAR-100's two labels is used as the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Labels {
    /// The 100 classes, such as "maple".
    Fine,
    /// The 20 superclasses, such as "trees".
    Coarse,
}

/// Loads the six files of CIFAR-10 from a folder, each plain or with `.gz`: `data_batch_1.bin` to
/// `data_batch_5.bin`, which make the training set in this order, and `test_batch.bin`. Pixels are
/// divided by 255.
///
/// ```no_run
/// let cifar = feedback_alignment::data::cifar::load10_dir::<f32>("cifar-10-batches-bin")?;
/// assert_eq!((cifar.train.len(), cifar.test.len()), (50_000, 10_000));
/// assert_eq!((cifar.train.features(), cifar.train.classes()), (3 * 32 * 32, Some(10)));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be read, [`Error::MissingFile`], and those of [`load10`].
pub fn load10_dir<T: Scalar>(folder: impl AsRef<Path>) -> Result<Cifar<T>> {
    let train: Vec<String> = (1..=5).map(|batch| format!("data_batch_{batch}.bin")).collect();
    load_dir(folder.as_ref(), &train, "test_batch.bin", CIFAR_10)
}

/// Loads one file of CIFAR-10. In memory the pixels stay bytes; they are divided by 255 when they are
/// used.
///
/// ```
/// use feedback_alignment::data::cifar;
///
/// let path = std::env::temp_dir().join(format!("one-cat-{}.bin", std::process::id()));
/// let record: Vec<u8> = std::iter::once(3).chain([51; 3072]).collect();
/// std::fs::write(&path, record).unwrap();
/// let cat = cifar::load10::<f32>(&path)?;
/// assert_eq!((cat.len(), cat.features(), cat.classes()), (1, 3072, Some(4)));
/// assert_eq!(cat.inputs()[0], 51.0 / 255.0);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] and [`Error::GzipDisabled`] for files that cannot be read. [`Error::WrongFormat`],
/// [`Error::PartialRecord`], [`Error::TooManyRecords`] above 100,000, and [`Error::LabelByte`] for
/// files that are not in this format.
pub fn load10<T: Scalar>(path: impl AsRef<Path>) -> Result<Dataset<T>> {
    load(&[path.as_ref().to_owned()], CIFAR_10)
}

/// Loads the two files of CIFAR-100 from a folder, each plain or with `.gz`: `train.bin` and
/// `test.bin`. Pixels are divided by 255.
///
/// ```no_run
/// use feedback_alignment::data::cifar::{Labels, load100_dir};
///
/// let cifar = load100_dir::<f32>("cifar-100-binary", Labels::Fine)?;
/// assert_eq!((cifar.train.len(), cifar.train.classes()), (50_000, Some(100)));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be read, [`Error::MissingFile`], and those of [`load10`].
pub fn load100_dir<T: Scalar>(folder: impl AsRef<Path>, labels: Labels) -> Result<Cifar<T>> {
    load_dir(folder.as_ref(), &["train.bin".to_owned()], "test.bin", labels.format())
}

/// Loads one file of CIFAR-100. In memory the pixels stay bytes; they are divided by 255 when they are
/// used.
///
/// ```
/// use feedback_alignment::data::cifar::{Labels, load100};
///
/// let path = std::env::temp_dir().join(format!("one-maple-{}.bin", std::process::id()));
/// let record: Vec<u8> = [17, 47].into_iter().chain([0; 3072]).collect();
/// std::fs::write(&path, record).unwrap();
/// assert_eq!(load100::<f32>(&path, Labels::Fine)?.classes(), Some(48));
/// assert_eq!(load100::<f32>(&path, Labels::Coarse)?.classes(), Some(18));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// Those of [`load10`]. Both labels of every record have to be in range.
pub fn load100<T: Scalar>(path: impl AsRef<Path>, labels: Labels) -> Result<Dataset<T>> {
    load(&[path.as_ref().to_owned()], labels.format())
}

/// The label bytes of a record.
#[derive(Clone, Copy)]
struct Format {
    /// The number of classes of each label byte.
    classes: &'static [u8],
    /// Which of the label bytes is the target.
    target: usize,
}

const CIFAR_10: Format = Format { classes: &[10], target: 0 };

impl Labels {
    fn format(self) -> Format {
        let target = match self {
            Self::Coarse => 0,
            Self::Fine => 1,
        };
        Format { classes: &[20, 100], target }
    }
}

fn load_dir<T: Scalar>(
    folder: &Path,
    train: &[String],
    test: &str,
    format: Format,
) -> Result<Cifar<T>> {
    require_folder(folder)?;
    let find = |name: &str| first_of(folder, vec![name.to_owned(), format!("{name}.gz")]);
    // All files are found before the first one is read.
    let train = train.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
    let test = [find(test)?];
    Ok(Cifar { train: load(&train, format)?, test: load(&test, format)? })
}

fn load<T: Scalar>(paths: &[PathBuf], format: Format) -> Result<Dataset<T>> {
    let mut records = Records::default();
    for path in paths {
        records.append(path, format)?;
    }
    let Records { labels, mut pixels } = records;
    pixels.shrink_to_fit();
    Dataset::from_bytes(PIXELS, pixels, labels)?.scaled(&Scaling::divide_by(T::from(255)))
}

/// The records read so far.
#[derive(Default)]
struct Records {
    labels: Vec<usize>,
    pixels: Vec<u8>,
}

impl Records {
    /// Reads a file record by record, so that memory grows only as bytes arrive.
    fn append(&mut self, path: &Path, format: Format) -> Result<()> {
        let mut source = OpenFile::open(path, Wanted::Cifar)?;
        let expected = format.classes.len() + PIXELS;
        let mut record = Vec::new();
        for count in 0.. {
            record.clear();
            let found = source.read_up_to(expected, &mut record)?;
            if found == 0 {
                break;
            }
            let (path, offset) = (|| path.to_owned(), (count * expected) as u64);
            if count == MOST_RECORDS {
                return Err(Error::TooManyRecords { path: path(), expected: count, offset });
            }
            let labels = record.iter().zip(format.classes).zip(offset..);
            for ((&found, &expected), offset) in labels {
                if found >= expected {
                    let error = Error::LabelByte { path: path(), offset, expected, found };
                    return Err(source.blame(error));
                }
            }
            if found < expected {
                let error = Error::PartialRecord { path: path(), offset, expected, found };
                return Err(source.blame(error));
            }
            let (labels, pixels) = record.split_at(format.classes.len());
            self.labels.push(usize::from(labels[format.target]));
            self.pixels.extend_from_slice(pixels);
        }
        Ok(())
    }
}
