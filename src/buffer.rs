//! Memory that is used again and again. It grows to the largest batch it has seen and then never
//! allocates again.

use nalgebra::{DMatrixView, DMatrixViewMut};

use crate::{
    error::{Error, Result},
    linalg::Mat,
    scalar::Scalar,
};

/// A matrix of fixed height whose first `batch` columns are in use.
#[derive(Clone, Debug)]
pub(crate) struct Columns<T> {
    rows: usize,
    batch: usize,
    data: Vec<T>,
}

impl<T> Default for Columns<T> {
    fn default() -> Self {
        Self { rows: 0, batch: 0, data: Vec::new() }
    }
}

impl<T: Scalar> Columns<T> {
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, batch: 0, data: Vec::new() }
    }

    /// Makes room for `batch` columns, or fails if there is not enough memory. Their content is
    /// unspecified.
    pub(crate) fn set_batch(&mut self, batch: usize) -> Result<()> {
        let too_large = || Error::TooLarge { rows: self.rows, columns: batch };
        let length = self.rows.checked_mul(batch).ok_or_else(too_large)?;
        if let Some(more) = length.checked_sub(self.data.len()).filter(|&more| more > 0) {
            self.data.try_reserve_exact(more).map_err(|_| too_large())?;
            self.data.resize(length, T::zero());
        }
        self.batch = batch;
        Ok(())
    }

    /// Makes room for columns of another height.
    pub(crate) fn set_shape(&mut self, rows: usize, batch: usize) -> Result<()> {
        self.rows = rows;
        self.set_batch(batch)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.data[..self.rows * self.batch]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data[..self.rows * self.batch]
    }

    pub(crate) fn mat(&self) -> Mat<'_, T> {
        Mat::from_column_major_slice(self.as_slice(), self.rows, self.batch)
    }

    pub(crate) fn view(&self) -> DMatrixView<'_, T> {
        DMatrixView::from_slice(self.as_slice(), self.rows, self.batch)
    }

    pub(crate) fn view_mut(&mut self) -> DMatrixViewMut<'_, T> {
        let (rows, batch) = (self.rows, self.batch);
        DMatrixViewMut::from_slice(self.as_mut_slice(), rows, batch)
    }

    /// How many columns are in use.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }
}

/// Makes room for `length` elements in total.
pub(crate) fn reserve<E>(to: &mut Vec<E>, length: usize) -> Result<()> {
    let more = length.saturating_sub(to.len());
    to.try_reserve_exact(more).map_err(|_| Error::TooLarge { rows: length, columns: 1 })
}

/// The kind of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Dropout is on, with masks of this seed and time, and batch normalisation uses the batch.
    Training { seed: u64, time: u64 },
    /// Nothing is random, and samples do not depend on each other.
    Evaluation,
}

/// The time of a pass, counted in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// In training, one step after the last pass.
    Next,
    /// In training, at this step.
    At(u64),
    /// Not in training.
    Evaluating,
}

/// What an operation keeps of the forward pass for the way back, in addition to its input and output.
#[derive(Clone, Debug)]
pub(crate) struct Notes<T> {
    /// Max-pooling: the place of each maximum.
    pub(crate) winners: Vec<u32>,
    /// Dropout: which units were kept.
    pub(crate) kept: Vec<bool>,
    /// The statistics that a normalisation used.
    pub(crate) statistics: Statistics<T>,
    /// Layer normalisation: `x̂`, before scale and shift.
    pub(crate) normalised: Vec<T>,
}

/// Mean, variance and `1/√(variance + ε)` of each channel, or of each sample.
#[derive(Clone, Debug)]
pub(crate) struct Statistics<T> {
    pub(crate) mean: Vec<T>,
    pub(crate) variance: Vec<T>,
    pub(crate) inverse_deviation: Vec<T>,
    /// Whether they are statistics of the batch, which depend on every sample. Otherwise they are
    /// running statistics.
    pub(crate) of_batch: bool,
}

impl<T> Notes<T> {
    pub(crate) fn new() -> Self {
        let (mean, variance, inverse_deviation) = (Vec::new(), Vec::new(), Vec::new());
        let statistics = Statistics { mean, variance, inverse_deviation, of_batch: false };
        Self { winners: Vec::new(), kept: Vec::new(), statistics, normalised: Vec::new() }
    }
}

/// What an operation with parameters finds on the way back, in the order of its slots: gradients, and
/// statistics of the batch for running ones to follow. Empty if there is nothing to learn.
pub(crate) type Learned<T> = [Vec<T>; 4];
