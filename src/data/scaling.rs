//! Bringing inputs into range.

use std::ops::Range;
#[cfg(feature = "safetensors")]
use std::{
    io::{Read, Write},
    path::Path,
};

use nalgebra::DMatrix;

#[cfg(feature = "safetensors")]
use crate::files::{Contents, Draft, Expected, File, Line, READER, WRITER, read, read_from};
use crate::{
    data::Dataset,
    error::{Error, Result, require, require_finite, require_positive, require_samples},
    linalg::filled,
    scalar::Scalar,
};

/// An affine map of the inputs, `x ← (x − offset) / divisor`, fitted on a training set, or made of
/// known constants, and applied to every set by [`Dataset::scaled`].
///
/// A feature that is constant in the training set, up to the rounding of its mean, has a divisor of
/// 0 and becomes 0 in every set.
///
/// ```
/// use feedback_alignment::{data::{Dataset, Scaling}, nalgebra::DMatrix};
///
/// let train = Dataset::new(DMatrix::from_column_slice(1, 3, &[2.0, 4.0, 6.0]), vec![0, 0, 1])?;
/// let test = Dataset::new(DMatrix::from_column_slice(1, 1, &[8.0]), vec![1])?;
/// let scaling = Scaling::min_max(&train)?;
/// assert_eq!((scaling.offset(), scaling.divisor()), (&[2.0][..], &[4.0][..]));
/// assert_eq!(train.scaled(&scaling)?.inputs().as_slice(), [0.0, 0.5, 1.0]);
/// assert_eq!(test.scaled(&scaling)?.inputs().as_slice(), [1.5]);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling<T> {
    /// One entry for each feature, or a single one for all.
    offset: Vec<T>,
    /// As `offset`; 0 where there is nothing to scale.
    divisor: Vec<T>,
    /// How many features it is for; none means any number, all treated alike.
    features: Option<usize>,
}

impl<T: Scalar> Scaling<T> {
    /// Maps the smallest number in the whole set to 0 and the largest to 1, as Nøkland (2016)
    /// does; all to 0 if they are equal. It serves any number of features.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the scalar cannot represent the range.
    pub fn min_max(train: &Dataset<T>) -> Result<Self> {
        let ranges = Ranges::of(train);
        let min = ranges.min.into_iter().reduce(T::min).expect("a dataset has features");
        let max = ranges.max.into_iter().reduce(T::max).expect("a dataset has features");
        Self::of_ranges(&[min], &[max], None)
    }

    /// Maps the smallest number of each feature to 0 and the largest to 1.
    ///
    /// # Errors
    /// As for [`min_max`](Self::min_max).
    pub fn min_max_per_feature(train: &Dataset<T>) -> Result<Self> {
        let Ranges { min, max, .. } = Ranges::of(train);
        Self::of_ranges(&min, &max, Some(min.len()))
    }

    fn of_ranges(min: &[T], max: &[T], features: Option<usize>) -> Result<Self> {
        let range = min.iter().zip(max).map(|(&min, &max)| {
            let largest = T::max(min.abs(), max.abs());
            let range = max - min;
            if range.as_f64() <= T::EPSILON * largest.as_f64() { T::zero() } else { range }
        });
        let range: Vec<T> = range.collect();
        require_finite(|| "the range of a feature".into(), range.len(), &range)?;
        Ok(Self { offset: min.to_vec(), divisor: range, features })
    }

    /// Subtracts the mean of each feature and divides by its standard deviation (of the
    /// population).
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the scalar cannot represent a deviation.
    pub fn standardize(train: &Dataset<T>) -> Result<Self> {
        let ranges = Ranges::of(train);
        let features = 0..train.features();
        let (offset, divisor) =
            features.map(|feature| ranges.moments(feature..feature + 1)).unzip();
        Self::of_moments(offset, divisor)
    }

    /// Subtracts the mean of each channel and divides by its standard deviation (of the
    /// population of all its pixels).
    ///
    /// Samples are images of `channels × height × width`, one channel after the other.
    ///
    /// ```
    /// use feedback_alignment::{data::{Dataset, Scaling}, nalgebra::DMatrix};
    ///
    /// // Two images of 2 × 1 × 2.
    /// let x = DMatrix::from_column_slice(4, 2, &[0.0, 2.0, 5.0, 5.0, 0.0, 2.0, 3.0, 3.0]);
    /// let images = Dataset::new(x, vec![0, 1])?;
    /// let scaled = images.clone().scaled(&Scaling::standardize_per_channel(&images, 2)?)?;
    /// assert_eq!(scaled.inputs().as_slice(), [-1., 1., 1., 1., -1., 1., -1., -1.]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Channels`] unless the features divide into `channels` equal parts,
    /// [`Error::NonFinite`] as for [`standardize`](Self::standardize).
    pub fn standardize_per_channel(train: &Dataset<T>, channels: usize) -> Result<Self> {
        let pixels = pixels(train.features(), channels)?;
        let ranges = Ranges::of(train);
        let (mut offset, mut divisor) = (Vec::new(), Vec::new());
        for start in (0..train.features()).step_by(pixels) {
            let (mean, deviation) = ranges.moments(start..start + pixels);
            offset.resize(start + pixels, mean);
            divisor.resize(start + pixels, deviation);
        }
        Self::of_moments(offset, divisor)
    }

    /// Of a mean and a standard deviation for each feature. A deviation that is no larger than the
    /// rounding of the mean is none.
    fn of_moments(mean: Vec<f64>, deviation: Vec<f64>) -> Result<Self> {
        let divisor = mean.iter().zip(&deviation).map(|(mean, &deviation)| {
            T::of(if deviation <= T::EPSILON * mean.abs() { 0.0 } else { deviation })
        });
        let divisor: Vec<T> = divisor.collect();
        require_finite(|| "the deviation of a feature".into(), divisor.len(), &divisor)?;
        let features = Some(mean.len());
        Ok(Self { offset: mean.into_iter().map(T::of).collect(), divisor, features })
    }

    /// Subtracts `offset` from every number and divides by `divisor`, such as the mean and the
    /// deviation of a dataset that others have published.
    ///
    /// ```
    /// use feedback_alignment::{data::Scaling, nalgebra::DMatrix};
    ///
    /// let mnist = Scaling::<f32>::constant(0.1307, 0.3081)?;
    /// let pixels = DMatrix::from_element(784, 1, 0.1307);
    /// assert_eq!(mnist.apply(&pixels)?, DMatrix::zeros(784, 1));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for an offset that is not finite or a divisor that is not
    /// positive in the scalar.
    pub fn constant(offset: f64, divisor: f64) -> Result<Self> {
        Self::of_constants(&[offset], &[divisor], 1, None)
    }

    /// Subtracts from each feature its own offset and divides by its own divisor.
    ///
    /// # Errors
    /// Those of [`constant`](Self::constant); [`Error::SampleCount`] if there are not as many of
    /// the one as of the other, [`Error::Empty`] if there are none.
    pub fn per_feature(offsets: &[f64], divisors: &[f64]) -> Result<Self> {
        Self::of_constants(offsets, divisors, 1, Some(offsets.len()))
    }

    /// Subtracts from each channel its own offset and divides by its own divisor, in images whose
    /// channels have so many pixels.
    ///
    /// ```
    /// use feedback_alignment::data::Scaling;
    ///
    /// let cifar = Scaling::<f32>::per_channel(&[0.491, 0.482, 0.447], &[0.247, 0.243, 0.262], 1024)?;
    /// assert_eq!(cifar.features(), Some(3072));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`per_feature`](Self::per_feature), and [`Error::Empty`] for no pixels.
    pub fn per_channel(offsets: &[f64], divisors: &[f64], pixels: usize) -> Result<Self> {
        let features = offsets.len().saturating_mul(pixels);
        Self::of_constants(offsets, divisors, pixels, Some(features))
    }

    fn of_constants(
        offsets: &[f64],
        divisors: &[f64],
        pixels: usize,
        features: Option<usize>,
    ) -> Result<Self> {
        if offsets.len() != divisors.len() {
            return Err(Error::SampleCount { inputs: offsets.len(), targets: divisors.len() });
        }
        let count = offsets.len().checked_mul(pixels).filter(|&count| count <= usize::MAX / 64);
        let count = count.ok_or(Error::TooLarge { rows: offsets.len(), columns: pixels })?;
        if count == 0 {
            return Err(Error::Empty { what: "the list of offsets".into() });
        }
        let spread = |numbers: &[f64]| {
            let numbers = numbers.iter().map(|&number| T::of(number));
            let mut spread = filled(count, T::zero(), (count, 1))?;
            for (to, number) in spread.chunks_exact_mut(pixels).zip(numbers) {
                to.fill(number);
            }
            Ok(spread)
        };
        for &offset in offsets {
            let expected = "a finite number that the scalar can represent";
            require(T::of(offset).is_finite(), "offset", offset, expected)?;
        }
        divisors.iter().try_for_each(|&divisor| require_positive::<T>("divisor", divisor))?;
        Ok(Self { offset: spread(offsets)?, divisor: spread(divisors)?, features })
    }

    /// Divides every number by `divisor`.
    pub(crate) fn divide_by(divisor: T) -> Self {
        Self { offset: vec![T::zero()], divisor: vec![divisor], features: None }
    }

    /// What is subtracted: a number for each feature, or a single one for all.
    #[must_use]
    pub fn offset(&self) -> &[T] {
        &self.offset
    }

    /// What is divided by: a number for each feature, or a single one for all; 0 for a feature
    /// that is constant.
    #[must_use]
    pub fn divisor(&self) -> &[T] {
        &self.divisor
    }

    /// How many features it is for; `None` if it treats any number of features alike.
    #[must_use]
    pub fn features(&self) -> Option<usize> {
        self.features
    }

    /// Scales each column of `x : features × samples`, for inputs that are in no dataset.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] or [`Error::SamplesInRows`] for another number of features,
    /// [`Error::Empty`], [`Error::NonFinite`] for a NaN, an infinity or a result that overflows.
    pub fn apply(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.map(x, Self::scale)
    }

    /// The way back, `x ← x · divisor + offset`; a constant feature becomes its constant.
    ///
    /// ```
    /// use feedback_alignment::{data::Scaling, nalgebra::DMatrix};
    ///
    /// let scaling = Scaling::per_feature(&[1.0, 10.0], &[2.0, 4.0])?;
    /// let x = DMatrix::from_column_slice(2, 1, &[5.0, 2.0]);
    /// assert_eq!(scaling.apply(&x)?.as_slice(), [2.0, -2.0]);
    /// assert_eq!(scaling.invert(&scaling.apply(&x)?)?, x);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`apply`](Self::apply).
    pub fn invert(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.map(x, |scaling, x| {
            let pairs = scaling.offset.iter().zip(&scaling.divisor).cycle();
            x.iter_mut().zip(pairs).for_each(|(x, (&offset, &divisor))| *x = *x * divisor + offset);
        })
    }

    fn map(&self, x: &DMatrix<T>, to: impl Fn(&Self, &mut [T])) -> Result<DMatrix<T>> {
        if x.is_empty() {
            return Err(Error::Empty { what: "the matrix to scale".into() });
        }
        self.require_features(x.nrows(), x.ncols())?;
        let what = || "the input to scale (features × samples)".to_owned();
        require_finite(what, x.nrows(), x.as_slice())?;
        let mut scaled = x.clone();
        scaled.as_mut_slice().chunks_exact_mut(x.nrows()).for_each(|sample| to(self, sample));
        let what = || "the scaled input (features × samples)".to_owned();
        require_finite(what, x.nrows(), scaled.as_slice())?;
        Ok(scaled)
    }

    /// Fails unless samples of so many features can be scaled.
    pub(crate) fn require_features(&self, features: usize, samples: usize) -> Result<()> {
        let expected = (self.features.unwrap_or(features), samples);
        require_samples("the input to scale (features × samples)", expected, (features, samples))
    }

    /// Scales one sample.
    pub(crate) fn scale(&self, x: &mut [T]) {
        let scaled = |x: T, offset: T, divisor: T| {
            if divisor == T::zero() { T::zero() } else { (x - offset) / divisor }
        };
        if let ([offset], [divisor]) = (&self.offset[..], &self.divisor[..]) {
            x.iter_mut().for_each(|x| *x = scaled(*x, *offset, *divisor));
        } else {
            for ((x, &offset), &divisor) in x.iter_mut().zip(&self.offset).zip(&self.divisor) {
                *x = scaled(*x, offset, divisor);
            }
        }
    }
}

/// Pixels of a channel.
fn pixels(features: usize, channels: usize) -> Result<usize> {
    match features.checked_rem(channels) {
        Some(0) => Ok(features / channels),
        _ => Err(Error::Channels { features, channels }),
    }
}

/// What the description of a scaling's file calls it.
#[cfg(feature = "safetensors")]
const KIND: &str = "scaling";

#[cfg(feature = "safetensors")]
impl<T: Scalar> Scaling<T> {
    /// Saves the scaling as a safetensors file with the tensors `offset` and `divisor`, of one
    /// entry for each feature or of a single one for all.
    ///
    /// The file is written under another name in the same folder and then takes the place of
    /// `path`: whatever happens, `path` holds the old content or the new.
    ///
    /// ```
    /// use feedback_alignment::data::Scaling;
    ///
    /// let scaling = Scaling::<f32>::constant(0.1307, 0.3081)?;
    /// let path = std::env::temp_dir().join(format!("scaling-{}.safetensors", std::process::id()));
    /// scaling.save(&path)?;
    /// assert_eq!(Scaling::load(&path)?, scaling);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.draft(path.as_ref())?.save()
    }

    /// Writes the bytes of the file that [`save`](Self::save) makes.
    ///
    /// # Errors
    /// Those of [`save`](Self::save); [`Error::Io`] if the writer fails.
    pub fn write_to(&self, writer: impl Write) -> Result<()> {
        self.draft(Path::new(WRITER))?.write_to(writer)
    }

    fn draft<'a>(&self, path: &'a Path) -> Result<Draft<'a>> {
        let [offset, divisor] = tensors(self.offset.len());
        let mut draft = Draft::new(path, KIND, &[line(self.features.is_some())]);
        draft.add(offset, &self.offset)?;
        draft.add(divisor, &self.divisor)?;
        Ok(draft)
    }

    /// Loads a scaling that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As for [`Whitening::load`](crate::data::Whitening::load), and [`Error::TensorValue`] for a
    /// divisor below 0.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_contents(path, &read(path)?)
    }

    /// [`load`](Self::load) from a reader, which has to end with the scaling; see
    /// [`files`](crate::files#readers-and-writers). Memory is taken only as bytes arrive.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn read_from(reader: impl Read) -> Result<Self> {
        let name = Path::new(READER);
        Self::from_contents(name, &read_from(reader, name)?)
    }

    fn from_contents(path: &Path, contents: &Contents) -> Result<Self> {
        let file = File::parse(path, contents)?;
        let mut lines = file.lines(KIND)?;
        let entry = lines.take("scaling")?;
        let each = match entry.word("for")? {
            "each" => true,
            "all" => false,
            _ => return Err(entry.refuse("'for=each' or 'for=all'")),
        };
        lines.require(&[line(each)])?;
        let count = if each { file.shape("offset")?.iter().product() } else { 1 };
        if count == 0 {
            return Err(Error::Empty { what: format!("{}: tensor 'offset'", path.display()) });
        }
        let expected = tensors(count);
        file.require_only(&expected, &[])?;
        let [offset, divisor] = expected;
        let (offset, divisor) = (file.read(&offset)?, file.read_squares(&divisor)?);
        Ok(Self { offset, divisor, features: each.then_some(count) })
    }
}

/// What a file holds.
#[cfg(feature = "safetensors")]
fn tensors(count: usize) -> [Expected; 2] {
    ["offset", "divisor"].map(|name| Expected { name: name.into(), shape: vec![count] })
}

#[cfg(feature = "safetensors")]
fn line(each: bool) -> Line {
    Line::new("scaling").word("for", if each { "each" } else { "all" })
}

/// What the features of a dataset range over; moments in `f64`.
struct Ranges<T> {
    min: Vec<T>,
    max: Vec<T>,
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// The root of the variance, also where that is out of range.
    deviation: Vec<f64>,
}

impl<T: Scalar> Ranges<T> {
    fn of(data: &Dataset<T>) -> Self {
        let features = data.features();
        let mut x = vec![T::zero(); features];
        data.copy_input(0, &mut x);
        let (mut min, mut max) = (x.clone(), x.clone());
        let (mut mean, mut squares) = (vec![0.0; features], vec![0.0; features]);
        for index in 0..data.len() {
            data.copy_input(index, &mut x);
            let count = (index + 1) as f64;
            for (feature, &value) in x.iter().enumerate() {
                min[feature] = min[feature].min(value);
                max[feature] = max[feature].max(value);
                // Welford's update, which does not cancel.
                let before = value.as_f64() - mean[feature];
                mean[feature] += before / count;
                squares[feature] += before * (value.as_f64() - mean[feature]);
            }
        }
        let variance: Vec<f64> = squares.iter().map(|sum| sum / data.len() as f64).collect();
        let deviation = variance.iter().map(|variance| variance.sqrt()).collect();
        let mut ranges = Self { min, max, mean, variance, deviation };
        ranges.mend(data);
        ranges
    }

    /// Looks again at features whose squared deviations were out of range, after dividing by how
    /// far they range; a feature that does not range at all does not deviate.
    fn mend(&mut self, data: &Dataset<T>) {
        let Self { min, max, mean, variance, deviation } = self;
        let out_of_range = |&feature: &usize| {
            let deviation = deviation[feature];
            min[feature] != max[feature] && !(1e-140..1e140).contains(&deviation)
        };
        let again: Vec<usize> = (0..mean.len()).filter(out_of_range).collect();
        for feature in (0..mean.len()).filter(|&feature| min[feature] == max[feature]) {
            (mean[feature], variance[feature]) = (min[feature].as_f64(), 0.0);
            deviation[feature] = 0.0;
        }
        if again.is_empty() {
            return;
        }
        let mut x = vec![T::zero(); mean.len()];
        let mut sums = vec![(0.0, 0.0); again.len()];
        // A part of the way from the smallest to the largest; the range itself could overflow.
        let part = |feature: usize, value: T| {
            let (low, high) = (0.5 * min[feature].as_f64(), 0.5 * max[feature].as_f64());
            (0.5 * value.as_f64() - low) / (high - low)
        };
        for index in 0..data.len() {
            data.copy_input(index, &mut x);
            for (sum, &feature) in sums.iter_mut().zip(&again) {
                sum.0 += part(feature, x[feature]);
            }
        }
        for index in 0..data.len() {
            data.copy_input(index, &mut x);
            for (sum, &feature) in sums.iter_mut().zip(&again) {
                sum.1 += (part(feature, x[feature]) - sum.0 / data.len() as f64).powi(2);
            }
        }
        for ((sum, squares), &feature) in sums.iter().zip(&again) {
            let (low, high) = (0.5 * min[feature].as_f64(), 0.5 * max[feature].as_f64());
            let range = high - low;
            mean[feature] = 2.0 * (low + range * (sum / data.len() as f64));
            deviation[feature] = 2.0 * (range * (squares / data.len() as f64).sqrt());
        }
    }

    /// Mean and standard deviation of several features together; the deviation is exactly 0 where
    /// they are all one constant.
    fn moments(&self, features: Range<usize>) -> (f64, f64) {
        if let [feature] = features.clone().collect::<Vec<_>>()[..] {
            return (self.mean[feature], self.deviation[feature]);
        }
        let (min, max) = (&self.min[features.clone()], &self.max[features.clone()]);
        if min.iter().chain(max).all(|value| *value == min[0]) {
            return (min[0].as_f64(), 0.0);
        }
        let count = features.len() as f64;
        let (means, variances) = (&self.mean[features.clone()], &self.variance[features.clone()]);
        let mean = means.iter().sum::<f64>() / count;
        // The variance within the features and the variance between them.
        let parts = means.iter().zip(variances).map(|(m, v)| v + (m - mean) * (m - mean));
        let variance = parts.sum::<f64>() / count;
        if (1e-280..1e280).contains(&variance) {
            return (mean, variance.sqrt());
        }
        // In units of the largest of them, since the squares are out of range.
        let deviations = means.iter().zip(&self.deviation[features]);
        let pairs: Vec<_> = deviations.map(|(m, &d)| (m - mean, d)).collect();
        let unit = pairs.iter().fold(0.0, |most, &(m, d)| f64::max(most, f64::max(m.abs(), d)));
        let parts = pairs.iter().map(|(m, d)| (m / unit).powi(2) + (d / unit).powi(2));
        (mean, unit * (parts.sum::<f64>() / count).sqrt())
    }
}

/// The mean of each feature.
pub(super) fn means<T: Scalar>(data: &Dataset<T>) -> Vec<f64> {
    Ranges::of(data).mean
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use nalgebra::DMatrix;

    use super::*;

    fn data() -> Dataset<f64> {
        // The second feature is constant, at a value that rounding does not forgive.
        let x =
            DMatrix::from_row_slice(3, 4, &[1., 2., 3., 6., 0.1, 0.1, 0.1, 0.1, -5., 5., 0., 0.]);
        Dataset::new(x, vec![0; 4]).unwrap()
    }

    #[test]
    fn the_whole_set_shares_one_range_by_default() {
        let scaled = data().scaled(&Scaling::min_max(&data()).unwrap()).unwrap().inputs();
        let expected = data().inputs().map(|x| (x + 5.0) / 11.0);
        assert_relative_eq!(scaled, expected, epsilon = 1e-15);
        assert_eq!((scaled.min(), scaled.max()), (0.0, 1.0));
    }

    #[test]
    fn features_have_ranges_of_their_own_and_constant_ones_become_zero() {
        let fitted = Scaling::min_max_per_feature(&data()).unwrap();
        let scaled = data().scaled(&fitted).unwrap().inputs();
        assert_relative_eq!(scaled.row(0).transpose().as_slice(), &[0.0, 0.2, 0.4, 1.0][..]);
        assert_eq!(scaled.row(1).iter().copied().collect::<Vec<_>>(), [0.0; 4]);
        let unseen = Dataset::new(DMatrix::from_element(3, 1, 7.0), vec![0]).unwrap();
        assert_eq!(unseen.scaled(&fitted).unwrap().inputs()[1], 0.0);
    }

    #[test]
    fn standardised_features_have_mean_zero_and_variance_one() {
        let scaled = data().scaled(&Scaling::standardize(&data()).unwrap()).unwrap().inputs();
        for feature in [0, 2] {
            assert_relative_eq!(scaled.row(feature).mean(), 0.0, epsilon = 1e-15);
            assert_relative_eq!(scaled.row(feature).variance(), 1.0, epsilon = 1e-14);
        }
        assert_eq!(scaled.row(1).amax(), 0.0);
    }

    #[test]
    fn standardised_channels_have_mean_zero_and_variance_one() {
        // Two channels of two pixels, and a third that is constant.
        let x = DMatrix::from_fn(6, 5, |i, j| match i {
            0..4 => ((i * 7 + j * 5) % 11) as f64 + 100.0 * (i / 2) as f64,
            _ => 0.1,
        });
        let data = Dataset::new(x, vec![0; 5]).unwrap();
        let scaling = Scaling::standardize_per_channel(&data, 3).unwrap();
        let scaled = data.clone().scaled(&scaling).unwrap().inputs();
        for start in [0, 2] {
            let channel = scaled.rows(start, 2);
            assert_relative_eq!(channel.mean(), 0.0, epsilon = 1e-13);
            assert_relative_eq!(channel.variance(), 1.0, epsilon = 1e-13);
        }
        assert_eq!(scaled.rows(4, 2).amax(), 0.0);
        let per_feature =
            data.clone().scaled(&Scaling::standardize(&data).unwrap()).unwrap().inputs();
        let six = Scaling::standardize_per_channel(&data, 6).unwrap();
        assert_relative_eq!(data.clone().scaled(&six).unwrap().inputs(), per_feature);
        for channels in [0, 4, 7] {
            let refused = Scaling::standardize_per_channel(&data, channels).unwrap_err();
            assert!(matches!(refused, Error::Channels { features: 6, .. }), "{refused}");
        }
    }
}
