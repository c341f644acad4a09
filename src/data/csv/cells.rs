//! Turning cells into features and targets.

use std::{
    collections::{HashMap, TryReserveError},
    path::Path,
};

use super::{
    format::Target,
    rows::{Row, shortened},
};
use crate::{
    data::number::whole_number,
    error::{Error, Result},
    scalar::Scalar,
    targets::BatchTargets,
};

/// The features read so far. They are bytes until a number comes that is not a byte.
pub(super) enum Cells<T> {
    Bytes(Vec<u8>),
    Values(Vec<T>),
}

impl<T: Scalar> Cells<T> {
    /// Makes room for more.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), TryReserveError> {
        match self {
            Self::Bytes(bytes) => bytes.try_reserve(more),
            Self::Values(values) => values.try_reserve(more),
        }
    }

    pub(super) fn push(&mut self, value: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Compared right after.
        let byte = value as u8;
        match self {
            // Compared by bits, because −0 equals 0 but is not a byte.
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

/// The targets read so far.
pub(super) enum Collected<T> {
    Nothing,
    Classes(Vec<usize>),
    /// Classes by name. A name gets its number when it first comes.
    Names {
        numbers: HashMap<String, usize>,
        /// Whether any other name is an error.
        is_complete: bool,
        labels: Vec<usize>,
    },
    /// Columns of `rows` values. `set` values of the last column have come so far.
    Values {
        rows: usize,
        data: Vec<T>,
        set: usize,
    },
}

impl<T: Scalar> Collected<T> {
    pub(super) fn new(path: &Path, target: Option<&Target>) -> Result<Self> {
        Ok(match target {
            None => Self::Nothing,
            Some(Target::Class(_)) => Self::Classes(Vec::new()),
            Some(Target::Text(_)) => {
                Self::Names { numbers: HashMap::new(), is_complete: false, labels: Vec::new() }
            }
            Some(Target::OneOf(_, names)) => {
                let mut numbers = HashMap::new();
                for (number, name) in names.iter().enumerate() {
                    if numbers.insert(name.trim().to_owned(), number).is_some() {
                        let reason = format!("there are two classes '{}'", shortened(name));
                        return Err(Error::Columns { path: path.to_owned(), reason });
                    }
                }
                Self::Names { numbers, is_complete: true, labels: Vec::new() }
            }
            Some(Target::Values(columns)) => {
                Self::Values { rows: columns.len(), data: Vec::new(), set: 0 }
            }
        })
    }

    pub(super) fn push_class(&mut self, row: &Row, column: usize, cell: &str) -> Result<()> {
        let refuse = |expected| row.refuse(column, expected, cell);
        match self {
            Self::Names { numbers, is_complete, labels } => {
                let known = numbers.get(cell).copied();
                let number = match known {
                    Some(number) => number,
                    None if *is_complete => return Err(refuse("one of the classes")),
                    None if cell.is_empty() => return Err(refuse("the name of a class")),
                    None => {
                        let number = numbers.len();
                        numbers.insert(cell.to_owned(), number);
                        number
                    }
                };
                labels.push(number);
            }
            Self::Classes(labels) => {
                let class = cell.parse().ok().and_then(whole_number);
                labels.push(class.ok_or_else(|| {
                    refuse("a class, a whole number from 0 (Target::Text reads names)")
                })?);
            }
            Self::Nothing | Self::Values { .. } => {}
        }
        Ok(())
    }

    /// Sets value number `place` of a sample. The values of a sample may come in any order.
    pub(super) fn set_value(&mut self, place: usize, value: f64) {
        if let Self::Values { rows, data, set } = self {
            if *set == 0 {
                data.resize(data.len() + *rows, T::zero());
            }
            let sample = data.len() - *rows;
            data[sample + place] = T::of(value);
            *set = (*set + 1) % *rows;
        }
    }

    /// The targets, and the names of their classes. Names that were collected from the file are sorted.
    pub(super) fn finish(self) -> (BatchTargets<T>, Vec<String>) {
        match self {
            Self::Nothing => (BatchTargets::Labels(Vec::new()), Vec::new()),
            Self::Classes(labels) => (BatchTargets::Labels(labels), Vec::new()),
            Self::Values { rows, data, .. } => (BatchTargets::Values { rows, data }, Vec::new()),
            Self::Names { numbers, is_complete, mut labels } => {
                let mut classes: Vec<(String, usize)> = numbers.into_iter().collect();
                if is_complete {
                    classes.sort_by_key(|&(_, number)| number);
                } else {
                    classes.sort();
                }
                let mut sorted = vec![0; classes.len()];
                for (number, &(_, old)) in classes.iter().enumerate() {
                    sorted[old] = number;
                }
                labels.iter_mut().for_each(|label| *label = sorted[*label]);
                let names = classes.into_iter().map(|(name, _)| name).collect();
                (BatchTargets::Labels(labels), names)
            }
        }
    }
}
