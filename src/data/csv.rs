//! Comma-separated files of numeric features with a label column, such as Kaggle's Digit
//! Recognizer (`label,pixel0,…,pixel783`).

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use nalgebra::DMatrix;

use crate::{
    data::Dataset,
    error::{Error, Result},
    scalar::Scalar,
};

/// Where the labels stand and whether the first line names the columns.
///
/// The default is Kaggle's: a header, and the column called `label`.
///
/// ```
/// use feedback_alignment::data::csv::{Format, Header, Label};
///
/// let iris = Format { header: Header::Absent, label: Label::Index(4) };
/// assert_ne!(iris, Format::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Whether the first line names the columns; [`Header::Present`] by default.
    pub header: Header,
    /// The column of the labels; the one named `label` by default.
    pub label: Label,
}

impl Default for Format {
    fn default() -> Self {
        Self { header: Header::Present, label: Label::Name("label".into()) }
    }
}

/// Whether the first line names the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The first line names the columns.
    Present,
    /// The first line is a sample.
    Absent,
}

/// The column that holds the class of each sample, a whole number counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// By the name in the header.
    Name(String),
    /// By position, counted from 0.
    Index(usize),
}

/// Loads samples with their labels; every other column is a feature, in the order of the file.
///
/// Features that are whole numbers from 0 to 255 throughout stay bytes in memory.
///
/// ```no_run
/// use feedback_alignment::data::{Scaling, csv};
///
/// let digits = csv::load::<f32>("train.csv", &csv::Format::default())?;
/// let digits = digits.clone().scaled(&Scaling::min_max(&digits))?;
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`], [`Error::Csv`] for lines of different length or bytes that are not UTF-8,
/// [`Error::NoSuchColumn`], [`Error::Cell`] with line and column for a cell that is not a finite
/// number (or, for a label, not a whole number from 0 to 65,535), [`Error::Empty`].
pub fn load<T: Scalar>(path: impl AsRef<Path>, format: &Format) -> Result<Dataset<T>> {
    let mut labels = Vec::new();
    let (features, cells) = read(path.as_ref(), format.header, Some(&format.label), &mut labels)?;
    match cells {
        Cells::Bytes(bytes) => Dataset::from_bytes(features, bytes, labels),
        Cells::Values(values) => {
            Dataset::new(DMatrix::from_vec(features, labels.len(), values), labels)
        }
    }
}

/// Loads features alone, `features × samples`, from a file without labels.
///
/// # Errors
/// As for [`load`].
pub fn load_features<T: Scalar>(path: impl AsRef<Path>, header: Header) -> Result<DMatrix<T>> {
    let (features, cells) = read(path.as_ref(), header, None, &mut Vec::new())?;
    let values: Vec<T> = match cells {
        Cells::Bytes(bytes) => bytes.into_iter().map(T::from).collect(),
        Cells::Values(values) => values,
    };
    if values.is_empty() {
        return Err(Error::Empty { what: path.as_ref().display().to_string() });
    }
    Ok(DMatrix::from_vec(features, values.len() / features, values))
}

/// The features read so far: bytes until a number comes that is none.
enum Cells<T> {
    Bytes(Vec<u8>),
    Values(Vec<T>),
}

impl<T: Scalar> Cells<T> {
    fn push(&mut self, value: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Compared right after.
        let byte = value as u8;
        match self {
            // By bits, so that −0 stays what it is.
            Self::Bytes(bytes) if f64::from(byte).to_bits() == value.to_bits() => bytes.push(byte),
            Self::Bytes(bytes) => {
                let mut values: Vec<T> = bytes.iter().map(|&byte| T::from(byte)).collect();
                values.push(T::of(value));
                *self = Self::Values(values);
            }
            Self::Values(values) => values.push(T::of(value)),
        }
    }
}

/// Reads all cells; returns the number of features and the features, sample by sample.
fn read<T: Scalar>(
    path: &Path,
    header: Header,
    label: Option<&Label>,
    labels: &mut Vec<usize>,
) -> Result<(usize, Cells<T>)> {
    let csv_error = |source: ::csv::Error| Error::Csv { path: path.to_owned(), source };
    let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(header == Header::Present)
        .trim(::csv::Trim::All)
        .from_reader(file);
    let first = reader.headers().map_err(csv_error)?.clone();
    let label = label.map(|label| label.find(path, header, &first)).transpose()?;
    let mut cells = Cells::Bytes(Vec::new());
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(csv_error)? {
        let refuse = |column: usize, expected, found: &str| Error::Cell {
            path: path.to_owned(),
            line: record.position().map_or(0, |position| line(path, position)),
            column: column + 1,
            expected,
            found: found.to_owned(),
        };
        for (column, cell) in record.iter().enumerate() {
            if Some(column) == label {
                let class: u16 = cell
                    .parse()
                    .map_err(|_| refuse(column, "a class, a whole number from 0", cell))?;
                labels.push(usize::from(class));
            } else {
                let value = cell.parse().ok().filter(|&value: &f64| T::of(value).is_finite());
                cells.push(value.ok_or_else(|| refuse(column, "a finite number", cell))?);
            }
        }
    }
    Ok((first.len() - usize::from(label.is_some()), cells))
}

/// The line, counted from 1, of the record that was read from `position` on. The reader's own
/// count lags behind at `\r\n` and where blank lines stand before the record.
fn line(path: &Path, position: &::csv::Position) -> u64 {
    let Ok(file) = File::open(path) else { return position.line() };
    let (mut line, mut before) = (1, b' ');
    for (index, byte) in (0..).zip(BufReader::new(file).bytes()) {
        match byte {
            Ok(b'\r') => line += 1,
            Ok(b'\n') => line += u64::from(before != b'\r'),
            Ok(_) if index < position.byte() => {}
            _ => break,
        }
        before = byte.unwrap_or(before);
    }
    line
}

impl Label {
    /// The position of the column in a file that starts with the row `first`.
    fn find(&self, path: &Path, header: Header, first: &::csv::StringRecord) -> Result<usize> {
        let (position, name) = match self {
            Self::Name(name) => {
                let named = first.iter().position(|cell| cell == name);
                (named.filter(|_| header == Header::Present), format!("'{name}'"))
            }
            Self::Index(index) => (Some(*index), index.to_string()),
        };
        position.filter(|&position| position < first.len()).ok_or_else(|| Error::NoSuchColumn {
            path: path.to_owned(),
            expected: name,
            found: first.iter().take(5).collect::<Vec<_>>().join(","),
        })
    }
}
