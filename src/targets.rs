//! Targets: what the outputs should have been. [`Targets`] borrows them for one call, and
//! [`BatchTargets`] owns those of a dataset or a batch.

use std::ops::Range;

use nalgebra::{DMatrix, DMatrixView};

use crate::{buffer::reserve, error::Result, scalar::Scalar};

/// The targets of a batch: what its outputs should have been.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, T: Scalar> {
    /// The class of each sample, counted from 0.
    Labels(&'a [usize]),
    /// The target values, `n_L × N`.
    Values(DMatrixView<'a, T>),
}

impl<T: Scalar> Targets<'_, T> {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Values(values) => values.ncols(),
        }
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the targets of all samples to `y`: one-hot columns of `outputs` rows, or the values. With
    /// one output, labels become the numbers 0 and 1.
    pub(crate) fn write(&self, y: &mut [T], outputs: usize) {
        match self {
            Self::Labels(labels) => {
                y.fill(T::zero());
                for (y, &label) in y.chunks_exact_mut(outputs).zip(*labels) {
                    match y {
                        [y] => *y = T::of(label as f64),
                        _ => y[label] = T::one(),
                    }
                }
            }
            Self::Values(values) => {
                y.chunks_exact_mut(outputs)
                    .zip(values.column_iter())
                    .for_each(|(y, values)| y.iter_mut().zip(&values).for_each(|(y, &v)| *y = v));
            }
        }
    }

    /// The targets of one sample.
    pub(crate) fn only(&self, sample: usize) -> Targets<'_, T> {
        self.some(sample..sample + 1)
    }

    /// The targets of some consecutive samples.
    pub(crate) fn some(&self, samples: Range<usize>) -> Targets<'_, T> {
        match self {
            Self::Labels(labels) => Targets::Labels(&labels[samples]),
            Self::Values(values) => Targets::Values(values.columns(samples.start, samples.len())),
        }
    }
}

impl<'a, T: Scalar> From<&'a [usize]> for Targets<'a, T> {
    fn from(labels: &'a [usize]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T: Scalar, const N: usize> From<&'a [usize; N]> for Targets<'a, T> {
    fn from(labels: &'a [usize; N]) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T: Scalar> From<&'a Vec<usize>> for Targets<'a, T> {
    fn from(labels: &'a Vec<usize>) -> Self {
        Self::Labels(labels)
    }
}

impl<'a, T: Scalar> From<&'a DMatrix<T>> for Targets<'a, T> {
    fn from(values: &'a DMatrix<T>) -> Self {
        Self::Values(values.into())
    }
}

/// The targets of a dataset or of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BatchTargets<T> {
    Labels(Vec<usize>),
    /// Columns of `rows` values.
    Values {
        rows: usize,
        data: Vec<T>,
    },
}

impl<T: Scalar> BatchTargets<T> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Values { rows, data } => data.len() / rows,
        }
    }

    pub(crate) fn as_targets(&self) -> Targets<'_, T> {
        match self {
            Self::Labels(labels) => Targets::Labels(labels),
            Self::Values { rows, data } => {
                Targets::Values(DMatrixView::from_slice(data, *rows, data.len() / rows))
            }
        }
    }

    /// The targets of the samples `indices`.
    pub(crate) fn picked(&self, indices: &[usize]) -> Result<Self> {
        Ok(match self {
            Self::Labels(labels) => Self::Labels(picked(labels, 1, indices)?),
            Self::Values { rows, data } => {
                Self::Values { rows: *rows, data: picked(data, *rows, indices)? }
            }
        })
    }

    /// Copies the targets of the samples `indices` to `to`, reusing its memory.
    pub(crate) fn gather(&self, indices: &[usize], to: &mut Self) {
        match (self, &mut *to) {
            (Self::Labels(from), Self::Labels(to)) => {
                to.clear();
                to.extend(indices.iter().map(|&index| from[index]));
            }
            (Self::Values { rows, data: from }, Self::Values { rows: to_rows, data: to }) => {
                *to_rows = *rows;
                to.clear();
                for &index in indices {
                    to.extend_from_slice(&from[index * rows..(index + 1) * rows]);
                }
            }
            (Self::Labels(_), to) => {
                *to = Self::Labels(Vec::new());
                self.gather(indices, to);
            }
            (Self::Values { rows, .. }, to) => {
                *to = Self::Values { rows: *rows, data: Vec::new() };
                self.gather(indices, to);
            }
        }
    }
}

/// The columns `indices` of a matrix with this many rows, one after the other.
pub(crate) fn picked<E: Copy>(from: &[E], rows: usize, indices: &[usize]) -> Result<Vec<E>> {
    let mut columns = Vec::new();
    reserve(&mut columns, rows.saturating_mul(indices.len()))?;
    for &index in indices {
        columns.extend_from_slice(&from[index * rows..(index + 1) * rows]);
    }
    Ok(columns)
}
