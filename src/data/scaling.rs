//! Bringing inputs into range.

use std::ops::Range;

use crate::{
    data::Dataset,
    error::{Error, Result},
    scalar::Scalar,
};

/// An affine map of the inputs, `x ← (x − offset) / divisor`, fitted on a training set and
/// applied to every set by [`Dataset::scaled`].
///
/// ```
/// use feedback_alignment::{data::{Dataset, Scaling}, nalgebra::DMatrix};
///
/// let train = Dataset::new(DMatrix::from_column_slice(1, 3, &[2.0, 4.0, 6.0]), vec![0, 0, 1])?;
/// let test = Dataset::new(DMatrix::from_column_slice(1, 1, &[8.0]), vec![1])?;
/// let scaling = Scaling::min_max(&train);
/// assert_eq!(train.scaled(&scaling)?.inputs().as_slice(), [0.0, 0.5, 1.0]);
/// assert_eq!(test.scaled(&scaling)?.inputs().as_slice(), [1.5]);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling<T> {
    /// One entry for each feature, or a single one for all.
    offset: Vec<T>,
    /// As `offset`; infinite where there is nothing to scale, so that the result is 0.
    divisor: Vec<T>,
}

impl<T: Scalar> Scaling<T> {
    /// Maps the smallest number in the whole set to 0 and the largest to 1, as Nøkland (2016)
    /// does; all to 0 if they are equal.
    #[must_use]
    pub fn min_max(train: &Dataset<T>) -> Self {
        let ranges = Ranges::of(train);
        let min = ranges.min.into_iter().reduce(T::min).expect("a dataset has features");
        let max = ranges.max.into_iter().reduce(T::max).expect("a dataset has features");
        Self::new(vec![min], vec![max - min])
    }

    /// Maps the smallest number of each feature to 0 and the largest to 1; a feature that is
    /// constant in the training set becomes 0 in every set.
    #[must_use]
    pub fn min_max_per_feature(train: &Dataset<T>) -> Self {
        let Ranges { min, max, .. } = Ranges::of(train);
        let range = min.iter().zip(&max).map(|(&min, &max)| max - min).collect();
        Self::new(min, range)
    }

    /// Subtracts the mean of each feature and divides by its standard deviation (of the
    /// population); a feature that is constant in the training set becomes 0 in every set.
    #[must_use]
    pub fn standardize(train: &Dataset<T>) -> Self {
        let Ranges { min, max, mean, variance } = Ranges::of(train);
        let deviation = (0..mean.len()).map(|feature| {
            // Rounding leaves a constant feature a variance that is not quite zero.
            let constant = min[feature] == max[feature];
            if constant { T::zero() } else { T::of(variance[feature].sqrt()) }
        });
        Self::new(mean.iter().map(|&mean| T::of(mean)).collect(), deviation.collect())
    }

    /// Subtracts the mean of each channel and divides by its standard deviation (of the
    /// population of all its pixels); a channel that is constant in the training set becomes 0 in
    /// every set.
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
    /// [`Error::Channels`] unless the features divide into `channels` equal parts.
    pub fn standardize_per_channel(train: &Dataset<T>, channels: usize) -> Result<Self> {
        let features = train.features();
        if channels == 0 || !features.is_multiple_of(channels) {
            return Err(Error::Channels { features, channels });
        }
        let ranges = Ranges::of(train);
        let pixels = features / channels;
        let (mut offset, mut divisor) = (Vec::new(), Vec::new());
        for start in (0..features).step_by(pixels) {
            let (mean, deviation) = ranges.pooled(start..start + pixels);
            offset.resize(start + pixels, T::of(mean));
            divisor.resize(start + pixels, T::of(deviation));
        }
        Ok(Self::new(offset, divisor))
    }

    /// Divides every number by `divisor`.
    pub(crate) fn divide_by(divisor: T) -> Self {
        Self::new(vec![T::zero()], vec![divisor])
    }

    fn new(offset: Vec<T>, mut divisor: Vec<T>) -> Self {
        for divisor in &mut divisor {
            if *divisor <= T::zero() {
                *divisor = T::of(f64::INFINITY);
            }
        }
        Self { offset, divisor }
    }

    /// The number of features it was fitted to, unless it treats all alike.
    pub(crate) fn features(&self) -> Option<usize> {
        Some(self.offset.len()).filter(|&features| features > 1)
    }

    /// Scales one sample.
    pub(crate) fn apply(&self, x: &mut [T]) {
        if let ([offset], [divisor]) = (&self.offset[..], &self.divisor[..]) {
            x.iter_mut().for_each(|x| *x = (*x - *offset) / *divisor);
        } else {
            for ((x, &offset), &divisor) in x.iter_mut().zip(&self.offset).zip(&self.divisor) {
                *x = (*x - offset) / divisor;
            }
        }
    }
}

/// What the features of a dataset range over; moments in `f64`.
struct Ranges<T> {
    min: Vec<T>,
    max: Vec<T>,
    mean: Vec<f64>,
    variance: Vec<f64>,
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
        let variance = squares.into_iter().map(|sum| sum / data.len() as f64).collect();
        Self { min, max, mean, variance }
    }

    /// Mean and standard deviation of several features together; the deviation is exactly 0 where
    /// they are all one constant.
    fn pooled(&self, features: Range<usize>) -> (f64, f64) {
        let (min, max) = (&self.min[features.clone()], &self.max[features.clone()]);
        if min.iter().chain(max).all(|value| *value == min[0]) {
            return (min[0].as_f64(), 0.0);
        }
        let count = features.len() as f64;
        let (means, variances) = (&self.mean[features.clone()], &self.variance[features]);
        let mean = means.iter().sum::<f64>() / count;
        // The variance within the features and the variance between them.
        let parts = means.iter().zip(variances).map(|(m, v)| v + (m - mean) * (m - mean));
        (mean, (parts.sum::<f64>() / count).sqrt())
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
        let scaled = data().scaled(&Scaling::min_max(&data())).unwrap().inputs();
        let expected = data().inputs().map(|x| (x + 5.0) / 11.0);
        assert_relative_eq!(scaled, expected, epsilon = 1e-15);
        assert_eq!((scaled.min(), scaled.max()), (0.0, 1.0));
    }

    #[test]
    fn features_have_ranges_of_their_own_and_constant_ones_become_zero() {
        let fitted = Scaling::min_max_per_feature(&data());
        let scaled = data().scaled(&fitted).unwrap().inputs();
        assert_relative_eq!(scaled.row(0).transpose().as_slice(), &[0.0, 0.2, 0.4, 1.0][..]);
        assert_eq!(scaled.row(1).iter().copied().collect::<Vec<_>>(), [0.0; 4]);
        let unseen = Dataset::new(DMatrix::from_element(3, 1, 7.0), vec![0]).unwrap();
        assert_eq!(unseen.scaled(&fitted).unwrap().inputs()[1], 0.0);
    }

    #[test]
    fn standardised_features_have_mean_zero_and_variance_one() {
        let scaled = data().scaled(&Scaling::standardize(&data())).unwrap().inputs();
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
        let per_feature = data.clone().scaled(&Scaling::standardize(&data)).unwrap().inputs();
        let six = Scaling::standardize_per_channel(&data, 6).unwrap();
        assert_relative_eq!(data.clone().scaled(&six).unwrap().inputs(), per_feature);
        for channels in [0, 4, 7] {
            let refused = Scaling::standardize_per_channel(&data, channels).unwrap_err();
            assert!(matches!(refused, Error::Channels { features: 6, .. }), "{refused}");
        }
    }
}
