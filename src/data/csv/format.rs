//! How a comma-separated file is written, and which of its columns are what.

/// How a file is written, and which columns are what.
///
/// The default is Kaggle's: commas, a header, and a column called `label` of whole numbers.
///
/// ```
/// use feedback_alignment::data::csv::{Format, Header, Target};
///
/// // 5.1,3.5,1.4,0.2,Iris-setosa
/// let iris = Format {
///     header: Header::Absent,
///     target: Target::Text(4.into()),
///     ..Format::default()
/// };
/// // "fixed acidity";"volatile acidity";…;"quality", and what is to be predicted is a number.
/// let wine = Format {
///     delimiter: b';',
///     target: Target::Values(vec!["quality".into()]),
///     leave_out: vec!["Unnamed: 0".into()],
///     ..Format::default()
/// };
/// assert_ne!(iris, wine);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Format {
    /// Whether the first line names the columns; [`Header::Present`] by default.
    pub header: Header,
    /// What stands between two cells, an ASCII character; `b','` by default. `b';'` and `b'\t'` are
    /// common too.
    pub delimiter: u8,
    /// What is to be learned; the class in the column named `label` by default.
    pub target: Target,
    /// Columns that are neither features nor targets; none by default. A name leaves out every
    /// column of that name.
    pub leave_out: Vec<Column>,
    /// What is done about a feature that numbers the rows; [`RowNumbers::Refuse`] by default.
    pub row_numbers: RowNumbers,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            header: Header::Present,
            delimiter: b',',
            target: Target::Class("label".into()),
            leave_out: Vec::new(),
            row_numbers: RowNumbers::Refuse,
        }
    }
}

/// Whether the first line names the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Header {
    /// The first line names the columns. Names that are all numbers are taken for a sample and
    /// refused, except `0,1,2,…`, which pandas gives to columns without names.
    Present,
    /// The first line names the columns, by numbers: wavelengths, say.
    Numbers,
    /// The first line is a sample.
    Absent,
}

/// A column of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Column {
    /// By the name in the header.
    Name(String),
    /// By position, counted from 0.
    Index(usize),
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Column {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// What is to be learned of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Target {
    /// A class, a whole number from 0 to 2³² − 1, which may be written `3.0`.
    Class(Column),
    /// A class, by its name. The classes are the names in the file, in the order of their bytes:
    /// [`Table::classes`](super::Table::classes) has them.
    Text(Column),
    /// A class, by its name, which is one of these: so that a test set has the same classes as the
    /// training set, whichever of them occur in it.
    OneOf(Column, Vec<String>),
    /// Real values, in the order of this list.
    Values(Vec<Column>),
}

/// What is done about a feature that numbers the rows: one that is called `id`, `index` or
/// `Unnamed: 0` or has no name, as pandas and R write it, and holds another whole number in every
/// row; or, without a header, a first column that counts ten or more rows. A network learns the
/// order of the file from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum RowNumbers {
    /// It is refused: it can be left out ([`Format::leave_out`]).
    Refuse,
    /// It is a feature like any other.
    Keep,
}
