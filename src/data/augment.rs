//! Random variations of images, so that a network sees each image a little differently in every epoch.

use nalgebra::DMatrix;
use rand::{Rng, RngExt};

use crate::{
    data::cifar,
    error::{Error, Result, require, require_shape},
    scalar::Scalar,
    seed::{Purpose, stream},
};

/// Random crops and horizontal flips of images. Every sample gets a new variation in every epoch.
///
/// An image is padded with `crop_padding` zeros on each of its four sides. A window of the size of the
/// image is cut out at a uniformly random place. Then the window is mirrored left to right with
/// probability 1/2 (He et al. 2016, "Deep residual learning for image recognition", 4.2). All channels
/// of an image move together. What the zeros look like depends on the scaling: black for pixels from 0
/// to 1, the mean after standardisation or whitening.
///
/// The default is the usual one for CIFAR: `3 × 32 × 32`, [`Flip::Horizontal`] and a padding of 4.
///
/// ```
/// use feedback_alignment::{data::{Augmentation, Flip}, nalgebra::DMatrix};
///
/// // One image of 1 × 2 × 2; a crop moves it by at most a pixel and fills up with zeros.
/// let shift = Augmentation { shape: (1, 2, 2), flip: Flip::Never, crop_padding: 1 };
/// let image = DMatrix::from_column_slice(4, 1, &[1.0_f32, 2.0, 3.0, 4.0]);
/// let (mut first, mut again) = (image.clone(), image.clone());
/// shift.augment(7, 0, &[0], &mut first)?;
/// shift.augment(7, 0, &[0], &mut again)?;
/// assert_eq!(first, again);
/// assert!(first.iter().all(|pixel| *pixel == 0.0 || image.iter().any(|other| other == pixel)));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Augmentation {
    /// Channels, height and width of an image, all at least 1. The pixels of a channel stand row by
    /// row, and the channels one after the other.
    pub shape: (usize, usize, usize),
    /// Whether images are mirrored.
    pub flip: Flip,
    /// The most pixels by which a crop moves the image in each direction. 0 turns crops off; it has to
    /// be less than the height and the width.
    pub crop_padding: usize,
}

/// Whether images are mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Flip {
    /// No image is mirrored.
    Never,
    /// Each image is mirrored left to right with probability 1/2.
    Horizontal,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { shape: cifar::SHAPE, flip: Flip::Horizontal, crop_padding: 4 }
    }
}

impl Augmentation {
    /// Varies the images `x`, `(C·H·W) × samples`, in place.
    ///
    /// The variation of a sample depends only on `seed`, `epoch` and its number in `samples`, not on
    /// its place in the batch or on other samples.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) unless each column is an image of
    /// [`shape`](Self::shape) and there are as many columns as `samples`,
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a shape or padding out of range.
    pub fn augment<T: Scalar>(
        &self,
        seed: u64,
        epoch: u64,
        samples: &[usize],
        x: &mut DMatrix<T>,
    ) -> Result<()> {
        self.require_fits(x.nrows())?;
        let what = || "the images (features × samples)".to_owned();
        require_shape(what, (x.nrows(), samples.len()), x.shape())?;
        self.apply_to_batch(seed, epoch, samples, x.as_mut_slice());
        Ok(())
    }

    /// Fails unless the parameters are in range and `features` is the size of an image.
    pub(crate) fn require_fits(&self, features: usize) -> Result<()> {
        let (channels, height, width) = self.shape;
        for (name, side) in [("channels", channels), ("height", height), ("width", width)] {
            require(side > 0, name, 0.0, "at least 1")?;
        }
        let valid = self.crop_padding < height.min(width);
        let expected = "less than the height and the width of the images";
        require(valid, "crop_padding", self.crop_padding as f64, expected)?;
        let image = channels.checked_mul(height).and_then(|plane| plane.checked_mul(width));
        if image == Some(features) {
            return Ok(());
        }
        let what = format!("an image of {channels} × {height} × {width}");
        let expected = (image.unwrap_or(usize::MAX), 1);
        Err(Error::ShapeMismatch { what, expected, found: (features, 1) })
    }

    /// Varies the samples `indices`, whose images stand in `x` one after the other. Allocates nothing.
    /// The caller has checked the parameters with [`require_fits`](Self::require_fits).
    pub(crate) fn apply_to_batch<T: Scalar>(
        &self,
        seed: u64,
        epoch: u64,
        indices: &[usize],
        x: &mut [T],
    ) {
        let (channels, height, width) = self.shape;
        let images = x.chunks_exact_mut(channels * height * width);
        debug_assert_eq!(images.len(), indices.len(), "an image for each index");
        for (&index, image) in indices.iter().zip(images) {
            self.apply(&mut stream(seed, Purpose::Augmentation, index as u64, epoch), image);
        }
    }

    /// Varies one image.
    fn apply<T: Scalar>(&self, rng: &mut impl Rng, image: &mut [T]) {
        let (_, height, width) = self.shape;
        let (down, right) = (self.draw_start(rng), self.draw_start(rng));
        let mirrored = self.flip == Flip::Horizontal && rng.random_bool(0.5);
        for channel in image.chunks_exact_mut(height * width) {
            crop(channel, width, self.crop_padding, (down, right));
            if mirrored {
                channel.chunks_exact_mut(width).for_each(<[T]>::reverse);
            }
        }
    }

    /// Where the window starts in the padded image, along one side.
    fn draw_start(&self, rng: &mut impl Rng) -> usize {
        rng.random_range(0..=2 * self.crop_padding)
    }
}

/// Puts `padding` zeros around a channel and replaces the channel, in place, by the window of its own
/// size that starts at row `down` and column `right`.
fn crop<T: Scalar>(channel: &mut [T], width: usize, padding: usize, (down, right): (usize, usize)) {
    let height = channel.len() / width;
    // The columns of the window that lie in the image, and where they begin in the image.
    let columns = padding.saturating_sub(right)..width - right.saturating_sub(padding);
    let first = columns.start + right - padding;
    for step in 0..height {
        // In this order no row is overwritten before it has been moved.
        let row = if down >= padding { step } else { height - 1 - step };
        let (start, end) = (row * width, (row + 1) * width);
        let from = (row + down).checked_sub(padding).filter(|&from| from < height);
        let Some(from) = from.map(|from| from * width + first) else {
            channel[start..end].fill(T::zero());
            continue;
        };
        channel.copy_within(from..from + columns.len(), start + columns.start);
        channel[start..start + columns.start].fill(T::zero());
        channel[start + columns.end..end].fill(T::zero());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The definition, pixel by pixel.
    fn naive(
        image: &[f64],
        (channels, height, width): (usize, usize, usize),
        padding: usize,
        (down, right): (usize, usize),
        mirrored: bool,
    ) -> Vec<f64> {
        let padded = |c: usize, y: usize, x: usize| {
            let inside =
                (padding..padding + height).contains(&y) && (padding..padding + width).contains(&x);
            if inside { image[(c * height + y - padding) * width + x - padding] } else { 0.0 }
        };
        let mut result = Vec::new();
        for c in 0..channels {
            for y in 0..height {
                for x in 0..width {
                    let x = if mirrored { width - 1 - x } else { x };
                    result.push(padded(c, y + down, x + right));
                }
            }
        }
        result
    }

    fn numbered(length: usize) -> Vec<f64> {
        (1..=length).map(|number| number as f64).collect()
    }

    fn shape() -> impl Strategy<Value = ((usize, usize, usize), usize)> {
        (1..4_usize, 1..7_usize, 1..7_usize)
            .prop_flat_map(|(c, h, w)| (Just((c, h, w)), 0..h.min(w)))
    }

    proptest! {
        #[test]
        fn crops_agree_with_loops_over_pixels(
            (shape, padding) in shape(), down in 0..12_usize, right in 0..12_usize,
        ) {
            let start = (down.min(2 * padding), right.min(2 * padding));
            let image = numbered(shape.0 * shape.1 * shape.2);
            let mut cropped = image.clone();
            for channel in cropped.chunks_exact_mut(shape.1 * shape.2) {
                crop(channel, shape.2, padding, start);
            }
            prop_assert_eq!(cropped, naive(&image, shape, padding, start, false));
        }

        #[test]
        fn every_variation_is_a_crop_or_its_mirror_image(
            (shape, padding) in shape(), seed in 0..1000_u64, epoch in 0..10_u64,
        ) {
            let augmentation = Augmentation { shape, flip: Flip::Horizontal, crop_padding: padding };
            let image = numbered(shape.0 * shape.1 * shape.2);
            let mut x = DMatrix::from_column_slice(image.len(), 1, &image);
            augmentation.augment(seed, epoch, &[3], &mut x).unwrap();
            let starts = (0..=2 * padding).flat_map(|y| (0..=2 * padding).map(move |x| (y, x)));
            let found = starts.flat_map(|start| [(start, false), (start, true)]).any(
                |(start, mirrored)| naive(&image, shape, padding, start, mirrored) == x.as_slice(),
            );
            prop_assert!(found);
        }
    }

    fn vary(augmentation: Augmentation, seed: u64, epoch: u64, samples: &[usize]) -> DMatrix<f64> {
        let (c, h, w) = augmentation.shape;
        let image = numbered(c * h * w);
        let mut x = DMatrix::from_fn(image.len(), samples.len(), |i, _| image[i]);
        augmentation.augment(seed, epoch, samples, &mut x).unwrap();
        x
    }

    #[test]
    fn a_variation_depends_on_seed_epoch_and_sample_alone() {
        let augmentation = Augmentation::default();
        let samples: Vec<usize> = (0..20).collect();
        let x = vary(augmentation, 1, 0, &samples);
        assert_eq!(x, vary(augmentation, 1, 0, &samples));
        assert_ne!(x, vary(augmentation, 2, 0, &samples));
        assert_ne!(x, vary(augmentation, 1, 1, &samples));
        let alone = vary(augmentation, 1, 0, &[13]);
        assert_eq!(x.column(13), alone.column(0));
        let distinct: HashSet<Vec<u64>> = x
            .column_iter()
            .map(|column| column.iter().map(|value| value.to_bits()).collect())
            .collect();
        assert!(distinct.len() > 10, "{}", distinct.len());
    }

    #[test]
    fn flips_and_crops_come_as_often_as_they_should() {
        let samples: Vec<usize> = (0..10_000).collect();
        let flips = Augmentation { shape: (1, 1, 2), flip: Flip::Horizontal, crop_padding: 0 };
        let x = vary(flips, 5, 0, &samples);
        let mirrored = x.row(0).iter().filter(|&&left| left == 2.0).count();
        assert!((4_800..5_200).contains(&mirrored), "{mirrored}");
        // A pixel in the middle of 3 × 3 comes from each of the nine places equally often.
        let crops = Augmentation { shape: (1, 3, 3), flip: Flip::Never, crop_padding: 1 };
        let x = vary(crops, 5, 0, &samples);
        for pixel in 1..=9 {
            let count = x.row(4).iter().filter(|&&middle| middle == f64::from(pixel)).count();
            assert!((950..1_280).contains(&count), "{pixel}: {count}");
        }
    }

    #[test]
    fn without_flip_and_crop_nothing_changes() {
        let nothing = Augmentation { flip: Flip::Never, crop_padding: 0, ..Default::default() };
        let x = vary(nothing, 1, 0, &[0, 1]);
        assert_eq!(x.column(1).as_slice(), numbered(3072));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut x = DMatrix::<f64>::zeros(12, 2);
        let mut refused = |shape, crop_padding, samples: &[usize]| {
            let augmentation = Augmentation { shape, flip: Flip::Never, crop_padding };
            augmentation.augment(0, 0, samples, &mut x).unwrap_err()
        };
        for shape in [(0, 3, 4), (1, 0, 4), (1, 3, 0)] {
            assert!(matches!(refused(shape, 0, &[0, 1]), Error::InvalidParameter { .. }));
        }
        for padding in [3, usize::MAX] {
            assert!(matches!(refused((1, 3, 4), padding, &[0, 1]), Error::InvalidParameter { .. }));
        }
        let huge = (usize::MAX, 2, 2);
        for (shape, samples) in [((1, 3, 3), &[0, 1][..]), ((1, 3, 4), &[0]), (huge, &[0, 1])] {
            assert!(matches!(refused(shape, 1, samples), Error::ShapeMismatch { .. }));
        }
    }
}
