//! Comma-separated files of numeric features with their targets, such as Kaggle's Digit Recognizer
//! (`label,pixel0,…,pixel783`).
//!
//! A file is text in UTF-8, plain or compressed with gzip, and may be a pipe. A file that contradicts
//! the given [`Format`] is an error: for example if the header looks like a sample, if a row has more
//! or fewer cells than the first, or if a column of row numbers would become a feature. A row may have
//! at most 64 MiB.

use std::path::Path;

use nalgebra::DMatrix;

use crate::{
    data::dataset::{Dataset, Inputs},
    error::{Error, Result, require},
    scalar::Scalar,
};

// The order is that of dependence, as in `lib.rs`.
mod format;
mod rows;
mod cells;
mod columns;

pub use format::{Column, Format, Header, RowNumbers, Target};

use cells::{Cells, Collected};
use columns::{Plan, Role};
use rows::{Row, Rows};

/// Samples, with the names that the file gives to features and classes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Table<T> {
    /// The samples with their targets.
    pub data: Dataset<T>,
    /// The names of the features, in their order; empty without a header.
    pub columns: Vec<String>,
    /// The names of the classes, for [`Target::Text`] and [`Target::OneOf`]; empty for other targets.
    pub classes: Vec<String>,
}

/// Loads samples with their targets. Every other column that is not left out becomes a feature, in the
/// order of the file. [`load_table`] keeps the names too.
///
/// If all features are whole numbers from 0 to 255, they stay bytes in memory.
///
/// ```
/// use feedback_alignment::data::csv;
///
/// let path = std::env::temp_dir().join(format!("digits-{}.csv", std::process::id()));
/// std::fs::write(&path, "label,pixel0,pixel1\n7,0,255\n1,31,4\n").unwrap();
/// let digits = csv::load::<f32>(&path, &csv::Format::default())?;
/// assert_eq!((digits.len(), digits.features(), digits.classes()), (2, 2, Some(8)));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`], also for a row of more than 64 MiB; [`Error::WrongFormat`] and
/// [`Error::GzipDisabled`] for a file that is not text; [`Error::NoSuchColumn`]; [`Error::Columns`] for
/// a header that looks like a sample, for a second column with the target's name, or for row numbers;
/// [`Error::RowLength`]; [`Error::Cell`] with line and column for a cell that is not a finite number,
/// not a class that the target allows, or not UTF-8; [`Error::InvalidParameter`] for a delimiter that
/// could be part of a number; [`Error::Empty`].
pub fn load<T: Scalar>(path: impl AsRef<Path>, format: &Format) -> Result<Dataset<T>> {
    load_table(path, format).map(|table| table.data)
}

/// Loads samples with their targets, and the names of features and classes.
///
/// ```
/// use feedback_alignment::data::csv::{Format, Target, load_table};
///
/// let path = std::env::temp_dir().join(format!("iris-{}.csv", std::process::id()));
/// std::fs::write(&path, "length,width,species\n5.1,3.5,setosa\n6.4,3.2,lutea\n").unwrap();
/// let format = Format { target: Target::Text("species".into()), ..Format::default() };
/// let iris = load_table::<f64>(&path, &format)?;
/// assert_eq!(iris.columns, ["length", "width"]);
/// assert_eq!(iris.classes, ["lutea", "setosa"]);
/// // Another file with the same classes, whichever of them occur in it.
/// let target = Target::OneOf("species".into(), iris.classes);
/// let test = load_table::<f64>(&path, &Format { target, ..format })?;
/// assert_eq!(test.data, iris.data);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
///
/// # Errors
/// Those of [`load`].
pub fn load_table<T: Scalar>(path: impl AsRef<Path>, format: &Format) -> Result<Table<T>> {
    let path = path.as_ref();
    let Content { columns, features, cells, targets } = read(path, format, Some(&format.target))?;
    let (targets, classes) = targets.finish();
    let inputs = match cells {
        Cells::Bytes(bytes) => Inputs::Bytes(bytes, Vec::new()),
        Cells::Values(values) => Inputs::Values(values),
    };
    let data = Dataset::assemble(features, inputs, targets);
    let data = data.map_err(|error| match error {
        Error::Empty { .. } => Error::Empty { what: path.display().to_string() },
        error => error,
    })?;
    Ok(Table { data, columns, classes })
}

/// Loads only the features, `features × samples`, from a file without targets. `format.target` is not
/// looked for.
///
/// # Errors
/// Those of [`load`]. Also [`Error::Columns`] for a column with the target's name.
pub fn load_features<T: Scalar>(path: impl AsRef<Path>, format: &Format) -> Result<DMatrix<T>> {
    let path = path.as_ref();
    let Content { features, cells, .. } = read(path, format, None)?;
    let values: Vec<T> = match cells {
        Cells::Bytes(bytes) => bytes.into_iter().map(T::from).collect(),
        Cells::Values(values) => values,
    };
    if values.is_empty() {
        return Err(Error::Empty { what: path.display().to_string() });
    }
    Ok(DMatrix::from_vec(features, values.len() / features, values))
}

/// The content of a file.
struct Content<T> {
    columns: Vec<String>,
    features: usize,
    cells: Cells<T>,
    targets: Collected<T>,
}

fn read<T: Scalar>(path: &Path, format: &Format, target: Option<&Target>) -> Result<Content<T>> {
    require_delimiter(format.delimiter)?;
    let mut rows = Rows::open(path, format.delimiter)?;
    let Some(first) = rows.next()? else {
        return Err(Error::Empty { what: path.display().to_string() });
    };
    let names = first.texts()?;
    let mut plan = Plan::new(path, &names, format, target)?;
    let mut content = Content {
        columns: plan.feature_names(&names, format.header),
        features: plan.features(),
        cells: Cells::Bytes(Vec::new()),
        targets: Collected::new(path, target)?,
    };
    let mut next = if format.header == Header::Absent { Some(first) } else { rows.next()? };
    while let Some(row) = next {
        content.take(&row, &mut plan)?;
        next = rows.next()?;
    }
    plan.require_no_row_numbers()?;
    Ok(content)
}

impl<T: Scalar> Content<T> {
    fn take(&mut self, row: &Row, plan: &mut Plan) -> Result<()> {
        row.require_length(plan.roles.len())?;
        self.cells.reserve(self.features).map_err(|_| row.too_large())?;
        for column in 0..plan.roles.len() {
            let cell = row.cell(column)?;
            match plan.roles[column] {
                Role::LeftOut => {}
                Role::Feature => {
                    self.cells.push(number::<T>(row, column, cell)?);
                    plan.look_at(column, cell);
                }
                Role::Value(place) => {
                    self.targets.set_value(place, number::<T>(row, column, cell)?);
                }
                Role::Class => self.targets.push_class(row, column, cell)?,
            }
        }
        Ok(())
    }
}

/// A cell that is a finite number in `T`.
fn number<T: Scalar>(row: &Row, column: usize, cell: &str) -> Result<f64> {
    let value = cell.parse().ok().filter(|&value: &f64| T::of(value).is_finite());
    value.ok_or_else(|| row.refuse(column, "a finite number", cell))
}

/// Fails for a delimiter that could be part of a cell, ends a line, or is not one ASCII character.
fn require_delimiter(delimiter: u8) -> Result<()> {
    let is_part = delimiter.is_ascii_alphanumeric() || b"+-.\"\r\n\0".contains(&delimiter);
    let valid = delimiter.is_ascii() && !is_part;
    let expected = "the code of an ASCII character that stands in no number or name, such as ';'";
    require(valid, "delimiter", delimiter.into(), expected)
}
