//! Samples and their targets: in memory, in shuffled batches, from files.

use nalgebra::DMatrix;
use rand::seq::SliceRandom;

use crate::{
    error::{Error, Result, require, require_finite},
    linalg::filled,
    scalar::Scalar,
    seed::{Purpose, stream},
    targets::{BatchTargets, Targets},
    threads::{Chunks, pieces, share_out},
};

mod scaling;
pub mod cifar;
#[cfg(feature = "csv")]
pub mod csv;
pub mod idx;
mod augment;
pub mod whitening;

pub use augment::{Augmentation, Flip};
pub use scaling::Scaling;
pub use whitening::Whitening;

/// Samples with their targets: a class label or a column of real values for each.
///
/// Inputs are `features × samples`. Those that come as bytes (images) stay bytes in memory and
/// become numbers as they are used: MNIST takes 55 MB rather than 220 or 440.
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

/// Inputs in column-major order, one column a sample.
#[derive(Clone, Debug, PartialEq)]
enum Inputs<T> {
    Values(Vec<T>),
    /// Bytes, and what is done to them in turn as they become numbers.
    Bytes(Vec<u8>, Vec<Scaling<T>>),
}

/// More classes than any network has outputs.
const MOST_CLASSES: usize = 1 << (usize::BITS / 2);

impl<T: Scalar> Dataset<T> {
    /// Samples with class labels, counted from 0; `inputs` is `features × samples`.
    ///
    /// # Errors
    /// [`Error::Empty`] without samples or features, [`Error::SampleCount`] for another number of
    /// labels, [`Error::NonFinite`] for a NaN or an infinity.
    pub fn new(inputs: DMatrix<T>, labels: Vec<usize>) -> Result<Self> {
        Self::from_matrix(inputs, BatchTargets::Labels(labels))
    }

    /// Samples with real-valued targets; `inputs` is `features × samples`, `values` is
    /// `outputs × samples`.
    ///
    /// # Errors
    /// As for [`new`](Self::new), for `values` too.
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

    /// Samples of bytes with class labels; one sample after the other, `features` bytes each,
    /// which count as numbers from 0 to 255 until [`scaled`](Self::scaled).
    ///
    /// # Errors
    /// [`Error::Empty`] without samples or features, [`Error::SampleCount`] if the bytes are not
    /// `features` for each label.
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

    fn assemble(features: usize, inputs: Inputs<T>, targets: BatchTargets<T>) -> Result<Self> {
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

    /// The largest label plus one; `None` where targets are real values.
    #[must_use]
    pub fn classes(&self) -> Option<usize> {
        match &self.targets {
            BatchTargets::Labels(labels) => labels.iter().max().map(|max| max + 1),
            BatchTargets::Values { .. } => None,
        }
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
        /// How many multiply-adds take as long as to make a value of a byte.
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

    /// The dataset with every input scaled: fit the [`Scaling`] on the training set and apply it
    /// to all sets.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the scaling was fitted to another number of features,
    /// [`Error::NonFinite`] if a scaled number overflows.
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
                // What is finite for the smallest and the largest byte is so between them.
                for byte in [0, 255] {
                    let mut x = filled(self.features, T::from(byte), (self.features, 1))?;
                    scalings.iter().for_each(|scaling| scaling.scale(&mut x));
                    require_finite(what, self.features, &x)?;
                }
            }
        }
        Ok(self)
    }

    /// The dataset with every input whitened: fit the [`Whitening`] on the training set and apply
    /// it to all sets.
    ///
    /// The inputs are values from here on, even if they were bytes: CIFAR-10's 50,000 training
    /// images take 614 MB in `f32`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the whitening was fitted to another number of features,
    /// [`Error::TooLarge`] if there is no memory for the values, [`Error::NonFinite`] if one of
    /// them overflows.
    pub fn whitened(self, whitening: &Whitening<T>) -> Result<Self> {
        let inputs = Inputs::Values(whitening.whiten(&self)?.data.into());
        Ok(Self { inputs, ..self })
    }

    /// The samples `indices`, in that order; an index may come more than once.
    ///
    /// # Errors
    /// [`Error::Empty`] without indices, [`Error::NoSuchSample`].
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        if let Some(&sample) = indices.iter().find(|&&index| index >= self.len()) {
            return Err(Error::NoSuchSample { sample, count: self.len() });
        }
        let slices = indices.iter().map(|index| index * self.features..(index + 1) * self.features);
        let inputs = match &self.inputs {
            Inputs::Values(values) => {
                Inputs::Values(slices.flat_map(|range| &values[range]).copied().collect())
            }
            Inputs::Bytes(bytes, scalings) => Inputs::Bytes(
                slices.flat_map(|range| &bytes[range]).copied().collect(),
                scalings.clone(),
            ),
        };
        let mut targets = BatchTargets::Labels(Vec::new());
        self.gather_targets(indices, &mut targets);
        Self::assemble(self.features, inputs, targets)
    }

    /// Shuffles and splits: all but `held_out` samples, and those.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless both parts get a sample.
    pub fn split(&self, held_out: usize, seed: u64) -> Result<(Self, Self)> {
        let valid = held_out > 0 && held_out < self.len();
        let expected = "at least 1 and less than the number of samples";
        require(valid, "held_out", held_out as f64, expected)?;
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut stream(seed, Purpose::Split, 0, 0));
        let (rest, held_out) = order.split_at(self.len() - held_out);
        Ok((self.subset(rest)?, self.subset(held_out)?))
    }

    /// The batches of one epoch: all samples in an order drawn from `seed` and `epoch`,
    /// `batch_size` at a time; the last batch may be smaller.
    ///
    /// These are the batches of [`Trainer::epoch`](crate::Trainer::epoch) with that seed, for
    /// loops of one's own.
    ///
    /// A trainer that drops a smaller last batch has those of [`len`](Self::len) `/ batch_size`
    /// batches: `take` as many.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a batch size of 0.
    pub fn batches(
        &self,
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Result<impl Iterator<Item = Batch<T>>> {
        require_batch_size(batch_size)?;
        let mut order = Vec::new();
        self.shuffle(seed, epoch, &mut order);
        let starts = (0..self.len()).step_by(batch_size);
        Ok(starts.map(move |start| {
            let indices = &order[start..self.len().min(start.saturating_add(batch_size))];
            let mut inputs = DMatrix::zeros(self.features, indices.len());
            self.gather_inputs(indices, inputs.as_mut_slice());
            let mut targets = BatchTargets::Labels(Vec::new());
            self.gather_targets(indices, &mut targets);
            Batch { inputs, targets }
        }))
    }

    /// `order ←` the order of the samples in an epoch.
    pub(crate) fn shuffle(&self, seed: u64, epoch: u64, order: &mut Vec<usize>) {
        order.clear();
        order.extend(0..self.len());
        order.shuffle(&mut stream(seed, Purpose::Shuffle, 0, epoch));
    }
}

/// Some samples of a dataset, for one training step.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    inputs: DMatrix<T>,
    targets: BatchTargets<T>,
}

impl<T: Scalar> Batch<T> {
    /// The inputs, `features × samples`.
    #[must_use]
    pub fn inputs(&self) -> &DMatrix<T> {
        &self.inputs
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> Targets<'_, T> {
        self.targets.as_targets()
    }
}

/// The class or label that a number is: whole, from 0 to 2³² − 1.
fn whole_number(number: f64) -> Option<usize> {
    let is_label = number.is_sign_positive() && number <= u32::MAX.into() && number.fract() == 0.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is one of them.
    is_label.then_some(number as usize)
}

pub(crate) fn require_batch_size(batch_size: usize) -> Result<()> {
    require(batch_size > 0, "batch_size", 0.0, "at least 1")
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
    fn an_epoch_visits_every_sample_once_and_keeps_input_and_target_together() {
        let data = numbered(10);
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        for batch in data.batches(4, 1, 0).unwrap() {
            let Targets::Labels(labels) = batch.targets() else { panic!("labels") };
            for (label, x) in labels.iter().zip(batch.inputs().column_iter()) {
                assert_eq!(x.as_slice(), [(10 * label) as f64, (10 * label + 1) as f64]);
            }
            sizes.push(labels.len());
            seen.extend_from_slice(labels);
        }
        assert_eq!(sizes, [4, 4, 2]);
        assert_ne!(seen, (0..10).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert!(data.batches(0, 1, 0).is_err());
    }

    #[test]
    fn orders_differ_by_seed_and_epoch() {
        let order = |seed, epoch| {
            let mut order = Vec::new();
            numbered(20).shuffle(seed, epoch, &mut order);
            order
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }

    #[test]
    fn a_split_loses_nothing() {
        let data = numbered(10);
        let (train, held_out) = data.split(3, 5).unwrap();
        let labels = |data: &Dataset<f64>| match data.targets() {
            Targets::Labels(labels) => labels.to_vec(),
            Targets::Values(_) => panic!("labels"),
        };
        let mut all = [labels(&train), labels(&held_out)].concat();
        assert_eq!((train.len(), held_out.len()), (7, 3));
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert!(data.split(0, 5).is_err() && data.split(10, 5).is_err());
    }

    #[test]
    fn real_valued_targets_travel_with_their_samples() {
        let x = DMatrix::from_fn(1, 5, |_, j| j as f64);
        let y = DMatrix::from_fn(2, 5, |i, j| (j * 100 + i) as f64);
        let data = Dataset::with_values(x, &y).unwrap();
        assert_eq!(data.classes(), None);
        for batch in data.batches(2, 3, 1).unwrap() {
            let Targets::Values(values) = batch.targets() else { panic!("values") };
            for (x, y) in batch.inputs().column_iter().zip(values.column_iter()) {
                assert_eq!((y[0], y[1]), (x[0] * 100.0, x[0] * 100.0 + 1.0));
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
