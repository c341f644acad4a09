//! How a comma-separated file is written, and the roles of its columns.

/// How a file is written, and the roles of its columns.
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
    /// The ASCII character between two cells; `b','` by default. `b';'` and `b'\t'` are common too.
    pub delimiter: u8,
    /// The target; by default the class in the column named `label`.
    pub target: Target,
    /// Columns that are neither features nor targets; none by default. A name leaves out every
    /// column of that name.
    pub leave_out: Vec<Column>,
    /// What to do with a feature that numbers the rows; [`RowNumbers::Refuse`] by default.
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
    /// The first line names the columns. If all names are numbers, the line is taken for a sample and
    /// is an error. An exception is `0,1,2,…`, which pandas gives to columns without names.
    Present,
    /// The first line names the columns by numbers, for example wavelengths.
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

/// The target of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Target {
    /// A class as a whole number from 0 to 2³² − 1, which may be written `3.0`.
    Class(Column),
    /// A class by its name. The classes are all names in the file, sorted by their bytes;
    /// [`Table::classes`](super::Table::classes) lists them.
    Text(Column),
    /// A class by its name, which has to be in this list. So a test set has the same classes as the
    /// training set, even if some of them do not occur in it.
    OneOf(Column, Vec<String>),
    /// Real values, in the order of this list.
    Values(Vec<Column>),
}

/// What to do with a feature that numbers the rows, because a network would learn the order of the file
/// from it. With a header, it is a column named `id`, `index`, `Unnamed: 0` or similar, or without a
/// name, as pandas and R write it, with a different whole number in every row. Without a header, it is
/// a first column that counts at least ten rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum RowNumbers {
    /// It is an error. You can leave the column out ([`Format::leave_out`]).
    Refuse,
    /// It is a feature like any other.
    Keep,
}
