//! Length and angle of arrays of numbers, in `f64` whatever their type.

use crate::scalar::Scalar;

/// `‖v‖`
pub(super) fn norm(v: impl Iterator<Item = f64> + Clone) -> f64 {
    Length::of(v).map_or(0.0, |Length { largest, scaled }| largest * scaled)
}

/// The entries of an array, exactly.
pub(super) fn exact<T: Scalar>(v: &[T]) -> impl Iterator<Item = f64> + Clone {
    v.iter().map(|v| v.as_f64())
}

/// The angle between two arrays in degrees, from 0 to 180; none where one of them is zero.
///
/// As `2 atan2(‖û − v̂‖, ‖û + v̂‖)` of the unit vectors (Kahan 2006, "How futile are mindless
/// assessments of roundoff in floating-point computation?"), which is exact at 0 and at 180. There
/// the cosine is flat: `acos` would make 10⁻⁶ degrees of its last digit.
pub(super) fn angle<T: Scalar>(u: &[T], v: &[T]) -> Option<f64> {
    debug_assert_eq!(u.len(), v.len());
    let (of_u, of_v) = (Length::of(exact(u))?, Length::of(exact(v))?);
    let (mut apart, mut along) = (0.0, 0.0);
    for (u, v) in exact(u).zip(exact(v)) {
        let (u, v) = (of_u.unit(u), of_v.unit(v));
        apart += (u - v) * (u - v);
        along += (u + v) * (u + v);
    }
    Some((2.0 * apart.sqrt().atan2(along.sqrt())).to_degrees())
}

/// The length of an array that is not zero, in two factors: squares of entries that have been
/// divided by the largest neither overflow nor vanish.
struct Length {
    largest: f64,
    scaled: f64,
}

impl Length {
    fn of(v: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let largest = v.clone().fold(0.0, |largest: f64, v| largest.max(v.abs()));
        let squares = v.map(|v| (v / largest).powi(2));
        (largest > 0.0).then(|| Self { largest, scaled: squares.sum::<f64>().sqrt() })
    }

    /// An entry of the unit vector.
    fn unit(&self, v: f64) -> f64 {
        v / self.largest / self.scaled
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn angles_by_hand() {
        assert_eq!(angle(&[1.0, 0.0], &[0.0, 2.0]), Some(90.0));
        assert_relative_eq!(angle(&[1.0, 1.0], &[3.0, 0.0]).unwrap(), 45.0, epsilon = 1e-14);
        assert_relative_eq!(angle(&[1.0_f32, 0.0, 1.0], &[-1.0, 1.0, 0.0]).unwrap(), 120.0);
        // Far below what a cosine can tell from 1.
        let small = 1e-12_f64;
        let found = angle(&[1.0, 0.0], &[small.cos(), small.sin()]).unwrap();
        assert_relative_eq!(found, small.to_degrees(), max_relative = 1e-12);
        assert_eq!(norm(exact(&[3.0_f32, -4.0])), 5.0);
    }

    #[test]
    fn zero_has_no_direction() {
        for (u, v) in [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, -0.0]), ([0.0; 2], [0.0; 2])] {
            assert_eq!(angle(&u, &v), None);
        }
        assert_eq!(angle::<f32>(&[], &[]), None);
        assert_eq!((norm(exact(&[0.0, -0.0])), norm(exact::<f32>(&[]))), (0.0, 0.0));
    }

    #[test]
    fn the_ends_of_the_range_are_numbers_like_others() {
        for scale in [1e-320, f64::MIN_POSITIVE, 1e-200, 1e200, 1e307] {
            let (u, v) = ([scale, 0.0], [2.0 * scale, 2.0 * scale]);
            assert_relative_eq!(angle(&u, &v).unwrap(), 45.0, epsilon = 1e-12);
            let length = norm([3.0 * scale, 4.0 * scale].into_iter());
            assert_relative_eq!(length, 5.0 * scale, max_relative = 1e-3);
        }
        assert_eq!(angle(&[f64::MAX; 9], &[f64::MIN; 9]), Some(180.0));
    }

    proptest! {
        #[test]
        fn parallel_is_0_opposite_is_180_and_scale_does_not_matter(
            u in prop::collection::vec(-1.0..1.0_f64, 1..40), factor in 1e-3..1e3_f64,
        ) {
            prop_assume!(u.iter().any(|&u| u != 0.0));
            let opposite: Vec<f64> = u.iter().map(|u| -u).collect();
            prop_assert_eq!(angle(&u, &u), Some(0.0));
            prop_assert_eq!(angle(&u, &opposite), Some(180.0));
            let scaled: Vec<f64> = u.iter().map(|u| factor * u).collect();
            prop_assert!(angle(&u, &scaled).unwrap() < 1e-13);
            let mut other = u.clone();
            other.rotate_left(1);
            let (plain, of_scaled) = (angle(&u, &other).unwrap(), angle(&scaled, &other).unwrap());
            prop_assert!((plain - of_scaled).abs() < 1e-12);
            prop_assert_eq!(angle(&other, &u).unwrap(), plain);
            let dot: f64 = u.iter().zip(&other).map(|(u, v)| u * v).sum();
            let cosine = (dot / norm(exact(&u)) / norm(exact(&other))).clamp(-1.0, 1.0);
            prop_assert!((plain.to_radians().cos() - cosine).abs() < 1e-14);
        }
    }
}
