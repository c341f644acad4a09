//! Samples in memory.

use nalgebra::DMatrix;

use super::scaling::Scaling;
use crate::{
    error::{Error, Result, require, require_finite},
    linalg::filled,
    loss::Loss,
    scalar::Scalar,
    targets::{BatchTargets, Targets, picked},
    threads::{Chunks, pieces, share_out},
    vector::sum_of,
};

/// Samples with their targets. A target is a class label or a column of real values.
///
/// Inputs are `features × samples`. Inputs that come as bytes (images) stay bytes in memory, and become
/// numbers when they are used. So MNIST takes 55 MB, and not 220 or 440.
///
/// ```
/// use feedback_alignment::{data::Dataset, nalgebra::DMatrix};
///
/// let x = DMatrix::from_column_slice(2, 4, &[0.0_f32, 0., 0., 1., 1., 0., 1., 1.]);
/// let xor = Dataset::new(x, vec![0, 1, 1, 0])?;
/// assert_eq!((xor.len(), xor.features(), xor.classes()), (4, 2, Some(2)));
/// let (train, validation) = xor.split(1, 7)?;
/// assert_eq!((train.len(), validation.len()), (3, 1));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset<T> {
    features: usize,
    inputs: Inputs<T>,
    targets: BatchTargets<T>,
}

/// Inputs in column-major order; a column is a sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Inputs<T> {
    Values(Vec<T>),
    /// Bytes, and the scalings that are applied in turn when the bytes become numbers.
    Bytes(Vec<u8>, Vec<Scaling<T>>),
}

/// More classes than any network can have outputs.
const MOST_CLASSES: usize = 1 << (usize::BITS / 2);

impl<T: Scalar> Dataset<T> {
    /// Samples with class labels, counted from 0; `inputs` is `features × samples`.
    ///
    /// # Errors
    /// [`Error::Empty`] without samples or features, [`Error::SampleCount`] if the number of labels is
    /// not the number of samples, [`Error::NonFinite`] for a NaN or an infinity.
    pub fn new(inputs: DMatrix<T>, labels: Vec<usize>) -> Result<Self> {
        Self::from_matrix(inputs, BatchTargets::Labels(labels))
    }

    /// Samples with real-valued targets; `inputs` is `features × samples`, `values` is
    /// `outputs × samples`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), for `values` too.
    pub fn with_values(inputs: DMatrix<T>, values: &DMatrix<T>) -> Result<Self> {
        if values.nrows() == 0 {
            return Err(Error::Empty { what: "the dataset's target".into() });
        }
        require_finite(
            || "the dataset's target (outputs × samples)".into(),
            values.nrows(),
            values.as_slice(),
        )?;
        let targets =
            BatchTargets::Values { rows: values.nrows(), data: values.as_slice().to_vec() };
        Self::from_matrix(inputs, targets)
    }

    /// Samples of bytes with class labels. The samples stand one after the other, each with `features`
    /// bytes. A byte counts as a number from 0 to 255 until the dataset is [`scaled`](Self::scaled).
    ///
    /// # Errors
    /// [`Error::Empty`] without samples or features, [`Error::SampleCount`] unless there are `features`
    /// bytes for each label.
    pub fn from_bytes(features: usize, bytes: Vec<u8>, labels: Vec<usize>) -> Result<Self> {
        Self::assemble(features, Inputs::Bytes(bytes, Vec::new()), BatchTargets::Labels(labels))
    }

    fn from_matrix(inputs: DMatrix<T>, targets: BatchTargets<T>) -> Result<Self> {
        let features = inputs.nrows();
        if inputs.ncols() != targets.len() && features == targets.len() && features > 0 {
            let what = "the dataset's input (features × samples)".to_owned();
            return Err(Error::SamplesInRows { what, found: inputs.shape() });
        }
        require_finite(
            || "the dataset's input (features × samples)".into(),
            features,
            inputs.as_slice(),
        )?;
        Self::assemble(features, Inputs::Values(inputs.data.into()), targets)
    }

    pub(super) fn assemble(
        features: usize,
        inputs: Inputs<T>,
        targets: BatchTargets<T>,
    ) -> Result<Self> {
        let numbers = match &inputs {
            Inputs::Values(values) => values.len(),
            Inputs::Bytes(bytes, _) => bytes.len(),
        };
        if numbers == 0 || targets.len() == 0 {
            let what = format!("the dataset ({features} features, {} targets)", targets.len());
            return Err(Error::Empty { what });
        }
        if let BatchTargets::Labels(labels) = &targets {
            let largest = labels.iter().copied().max().unwrap_or(0);
            let valid = largest < MOST_CLASSES;
            require(
                valid,
                "label",
                largest as f64,
                "a class below 2³² (2¹⁶ where addresses have 32 bits)",
            )?;
        }
        if features.checked_mul(targets.len()) != Some(numbers) {
            let inputs = numbers.checked_div(features).unwrap_or(0);
            return Err(Error::SampleCount { inputs, targets: targets.len() });
        }
        Ok(Self { features, inputs, targets })
    }

    /// Number of samples, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // A dataset is never empty.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Number of features of a sample.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// The largest label plus one; `None` if the targets are real values.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        self.labels()?.iter().max().map(|max| max + 1)
    }

    /// The class of each sample, counted from 0; `None` if the targets are real values.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, nalgebra::DMatrix};
    ///
    /// let data = Dataset::new(DMatrix::<f32>::zeros(1, 4), vec![0, 2, 0, 1])?;
    /// assert_eq!(data.labels(), Some(&[0, 2, 0, 1][..]));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    #[must_use]
    pub fn labels(&self) -> Option<&[usize]> {
        match &self.targets {
            BatchTargets::Labels(labels) => Some(labels),
            BatchTargets::Values { .. } => None,
        }
    }

    /// The mean target of each of `outputs` outputs. For labels it is the share of each class, or of
    /// class 1 if there is a single output. A network can [start](crate::Network::set_output_prior)
    /// from it.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, nalgebra::DMatrix};
    ///
    /// let data = Dataset::new(DMatrix::<f32>::zeros(1, 4), vec![0, 2, 0, 1])?;
    /// assert_eq!(data.mean_target(3)?, [0.5, 0.25, 0.25]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::ShapeMismatch`] for real-valued targets with another number
    /// of outputs, and [`Error::InvalidParameter`] for none.
    pub fn mean_target(&self, outputs: usize) -> Result<Vec<f64>> {
        require(outputs > 0, "the number of outputs", 0.0, "at least 1")?;
        let targets = self.targets();
        Loss::MeanSquaredError.check(&targets, outputs, self.len())?;
        let mut sums = filled(outputs, 0.0, (outputs, 1))?;
        match targets {
            Targets::Labels(labels) if outputs == 1 => {
                sums[0] = labels.iter().sum::<usize>() as f64;
            }
            Targets::Labels(labels) => labels.iter().for_each(|&label| sums[label] += 1.0),
            Targets::Values(values) => {
                let sum = |k| sum_of(0..self.len(), &|sample| values[(k, sample)].as_f64());
                sums.iter_mut().enumerate().for_each(|(k, of_output)| *of_output = sum(k));
            }
        }
        sums.iter_mut().for_each(|sum| *sum /= self.len() as f64);
        Ok(sums)
    }

    /// The targets of all samples.
    #[must_use]
    pub fn targets(&self) -> Targets<'_, T> {
        self.targets.as_targets()
    }

    /// The inputs of all samples as numbers, `features × samples`.
    #[must_use]
    pub fn inputs(&self) -> DMatrix<T> {
        let mut x = DMatrix::zeros(self.features, self.len());
        for (index, column) in x.as_mut_slice().chunks_exact_mut(self.features).enumerate() {
            self.copy_input(index, column);
        }
        x
    }

    /// Writes sample `index` into `x`.
    pub(crate) fn copy_input(&self, index: usize, x: &mut [T]) {
        let range = index * self.features..(index + 1) * self.features;
        match &self.inputs {
            Inputs::Values(values) => x.copy_from_slice(&values[range]),
            Inputs::Bytes(bytes, scalings) => {
                for (x, &byte) in x.iter_mut().zip(&bytes[range]) {
                    *x = T::from(byte);
                }
                scalings.iter().for_each(|scaling| scaling.scale(x));
            }
        }
    }

    /// Writes the samples `indices` into `x`, one after the other.
    pub(crate) fn gather_inputs(&self, indices: &[usize], x: &mut [T]) {
        /// The cost of turning a byte into a number, in multiply-adds.
        const COST: usize = 20;
        let parts = pieces(x.len(), COST);
        let out = Chunks { data: x, size: self.features };
        share_out(out, 0..indices.len(), parts, &|range, x| {
            for (&index, x) in indices[range].iter().zip(x.data.chunks_exact_mut(self.features)) {
                self.copy_input(index, x);
            }
        });
    }

    pub(crate) fn gather_targets(&self, indices: &[usize], to: &mut BatchTargets<T>) {
        self.targets.gather(indices, to);
    }

    /// The dataset with every input scaled. Fit the [`Scaling`] on the training set, and apply it to
    /// all sets.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the scaling is for another number of features, [`Error::NonFinite`]
    /// if a scaled number overflows.
    pub fn scaled(mut self, scaling: &Scaling<T>) -> Result<Self> {
        scaling.require_features(self.features, self.len())?;
        let what = || "the scaled input (features × samples)".to_owned();
        match &mut self.inputs {
            Inputs::Values(values) => {
                values.chunks_exact_mut(self.features).for_each(|x| scaling.scale(x));
                require_finite(what, self.features, values)?;
            }
            Inputs::Bytes(_, scalings) => {
                scalings.push(scaling.clone());
                // A scaling is affine: if it is finite for the smallest and the largest byte, it is so
                // for all.
                for byte in [0, 255] {
                    let mut x = filled(self.features, T::from(byte), (self.features, 1))?;
                    scalings.iter().for_each(|scaling| scaling.scale(&mut x));
                    require_finite(what, self.features, &x)?;
                }
            }
        }
        Ok(self)
    }

    /// The samples `indices`, in that order. An index may occur more than once.
    ///
    /// # Errors
    /// [`Error::Empty`] without indices, [`Error::NoSuchSample`], [`Error::TooLarge`] if they do not fit into
    /// memory.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        if let Some(&sample) = indices.iter().find(|&&index| index >= self.len()) {
            return Err(Error::NoSuchSample { sample, count: self.len() });
        }
        let inputs = match &self.inputs {
            Inputs::Values(values) => Inputs::Values(picked(values, self.features, indices)?),
            Inputs::Bytes(bytes, scalings) => {
                Inputs::Bytes(picked(bytes, self.features, indices)?, scalings.clone())
            }
        };
        Self::assemble(self.features, inputs, self.targets.picked(indices)?)
    }

    /// The same samples with other inputs of the same size.
    pub(super) fn with_inputs(self, inputs: DMatrix<T>) -> Self {
        Self { inputs: Inputs::Values(inputs.data.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(samples: usize) -> Dataset<f64> {
        let x = DMatrix::from_fn(2, samples, |i, j| (10 * j + i) as f64);
        Dataset::new(x, (0..samples).collect()).unwrap()
    }

    /// Large enough to be shared out among threads.
    #[test]
    fn gathered_samples_are_those_asked_for_on_any_number_of_threads() {
        let (features, samples) = (400, 100);
        let byte = |place: usize| u8::try_from(place % 251).unwrap();
        let bytes = (0..features * samples).map(byte).collect();
        let data = Dataset::<f32>::from_bytes(features, bytes, vec![0; samples]).unwrap();
        let indices: Vec<usize> = (0..samples).map(|k| k * 37 % samples).collect();
        for threads in 1..5 {
            let mut x = vec![0.0; features * samples];
            let threads = crate::threads::Threads::new(threads).unwrap();
            threads.run(1 << 30, || data.gather_inputs(&indices, &mut x));
            for (&index, x) in indices.iter().zip(x.chunks_exact(features)) {
                let expected = (0..features).map(|i| f32::from(byte(index * features + i)));
                assert!(x.iter().copied().eq(expected), "sample {index}");
            }
        }
    }

    #[test]
    fn bytes_become_numbers_as_values_do() {
        let bytes = vec![0_u8, 255, 51, 102, 7, 9];
        let as_bytes = Dataset::<f32>::from_bytes(2, bytes.clone(), vec![0, 1, 2]).unwrap();
        let values = DMatrix::from_iterator(2, 3, bytes.iter().map(|&byte| f32::from(byte)));
        let as_values = Dataset::new(values, vec![0, 1, 2]).unwrap();
        assert_eq!(as_bytes.inputs(), as_values.inputs());
        let scalings =
            [Scaling::min_max(&as_values).unwrap(), Scaling::standardize(&as_values).unwrap()];
        let (mut a, mut b) = (as_bytes, as_values);
        for scaling in &scalings {
            (a, b) = (a.scaled(scaling).unwrap(), b.scaled(scaling).unwrap());
            assert_eq!(a.inputs(), b.inputs());
            assert_eq!(a.subset(&[2, 0]).unwrap().inputs(), b.subset(&[2, 0]).unwrap().inputs());
        }
    }

    #[test]
    fn bad_samples_are_refused() {
        let x = |value| DMatrix::from_column_slice(2, 2, &[0.0, 1.0, value, 3.0]);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let message = Dataset::new(x(bad), vec![0, 1]).unwrap_err().to_string();
            assert!(message.contains("row 0, column 1"), "{message}");
            assert!(Dataset::with_values(x(0.0), &x(bad)).is_err());
        }
        let count = Dataset::new(x(0.0), vec![0]);
        assert!(matches!(count, Err(Error::SampleCount { inputs: 2, targets: 1 })));
        let empty = Dataset::<f64>::new(DMatrix::zeros(3, 0), vec![]);
        assert!(matches!(empty, Err(Error::Empty { .. })));
        assert!(Dataset::<f64>::new(DMatrix::zeros(0, 3), vec![0; 3]).is_err());
        assert!(Dataset::<f64>::from_bytes(2, vec![1, 2, 3], vec![0]).is_err());
        assert!(Dataset::<f64>::from_bytes(0, vec![1, 2, 3], vec![0]).is_err());
        assert!(numbered(3).subset(&[3]).is_err());
        assert!(numbered(3).subset(&[]).is_err());
        let other = Scaling::standardize(&numbered(3)).unwrap();
        let narrow = Dataset::new(DMatrix::<f64>::zeros(1, 3), vec![0; 3]).unwrap();
        assert!(matches!(narrow.scaled(&other), Err(Error::ShapeMismatch { .. })));
    }
}
