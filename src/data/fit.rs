//! Fitting a [`Scaling`] to a training set.

use std::ops::Range;

use super::{dataset::Dataset, scaling::Scaling};
use crate::{
    error::{Error, Result, require_finite},
    scalar::Scalar,
};

impl<T: Scalar> Scaling<T> {
    /// Maps the smallest number of the whole set to 0 and the largest to 1, as Nøkland (2016) does. If
    /// they are equal, all numbers become 0. The scaling fits any number of features.
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
    /// Those of [`min_max`](Self::min_max).
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
    /// Samples are images of `channels × height × width`, stored channel by channel.
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

    /// From a mean and a standard deviation for each feature. A deviation no larger than the rounding
    /// error of the mean counts as 0.
    fn of_moments(mean: Vec<f64>, deviation: Vec<f64>) -> Result<Self> {
        let divisor = mean.iter().zip(&deviation).map(|(mean, &deviation)| {
            T::of(if deviation <= T::EPSILON * mean.abs() { 0.0 } else { deviation })
        });
        let divisor: Vec<T> = divisor.collect();
        require_finite(|| "the deviation of a feature".into(), divisor.len(), &divisor)?;
        let features = Some(mean.len());
        Ok(Self { offset: mean.into_iter().map(T::of).collect(), divisor, features })
    }
}

/// Pixels of a channel.
fn pixels(features: usize, channels: usize) -> Result<usize> {
    match features.checked_rem(channels) {
        Some(0) => Ok(features / channels),
        _ => Err(Error::Channels { features, channels }),
    }
}

/// The range and the moments of each feature of a dataset; moments are in `f64`.
struct Ranges<T> {
    min: Vec<T>,
    max: Vec<T>,
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// The root of the variance; it is right even where the variance itself is out of range.
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
                // Welford's update, which loses no digits by cancellation.
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

    /// Computes again the deviation of features whose squared deviations were out of range, after
    /// dividing by the range of the feature. A feature with a range of 0 has a deviation of 0.
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
        // The position between the smallest and the largest number. It is computed from halves, because
        // the range itself could overflow.
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

    /// Mean and standard deviation of several features together. If all their numbers are equal, the
    /// deviation is exactly 0.
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
        // The variance within the features plus the variance between their means.
        let parts = means.iter().zip(variances).map(|(m, v)| v + (m - mean) * (m - mean));
        let variance = parts.sum::<f64>() / count;
        if (1e-280..1e280).contains(&variance) {
            return (mean, variance.sqrt());
        }
        // In units of the largest of them, because the squares are out of range.
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
