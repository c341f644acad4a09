//! Length and angle of arrays of numbers, computed in `f64` for every scalar type.

use crate::scalar::Scalar;

/// `‖v‖`
pub(crate) fn norm<T: Scalar>(v: &[T]) -> f64 {
    Length::of(v, v, |v, _| v).map_or(0.0, Length::value)
}

/// `‖u − v‖`
pub(crate) fn distance<T: Scalar>(u: &[T], v: &[T]) -> f64 {
    Length::of(u, v, |u, v| u - v).map_or(0.0, Length::value)
}

/// The angle between two arrays in degrees, from 0 to 180; `None` if one of them is zero.
///
/// Computed as `2 atan2(‖û − v̂‖, ‖û + v̂‖)` of the unit vectors (Kahan 2006, "How futile are mindless
/// assessments of roundoff in floating-point computation?"). This is exact at 0 and at 180. The cosine
/// is flat there, so `acos` would turn a rounding error in its last digit into 10⁻⁶ degrees.
pub(crate) fn angle<T: Scalar>(u: &[T], v: &[T]) -> Option<f64> {
    let to_unit = |v: &[T]| {
        Length::of(v, v, |v, _| v).map(|Length { scale, scaled }| (scale, scaled.recip()))
    };
    let ((scale_u, of_u), (scale_v, of_v)) = (to_unit(u)?, to_unit(v)?);
    let [apart, along] = sums(u, v, |u, v| {
        let (u, v) = (u * scale_u * of_u, v * scale_v * of_v);
        [(u - v) * (u - v), (u + v) * (u + v)]
    });
    Some((2.0 * apart.sqrt().atan2(along.sqrt())).to_degrees())
}

/// The length of an array that is not zero: `scaled / scale`. Entries are multiplied by `scale`, a
/// power of two, so that their squares neither overflow nor vanish.
#[derive(Clone, Copy)]
struct Length {
    scale: f64,
    scaled: f64,
}

impl Length {
    /// The length of the array with the entries `entry(u, v)`.
    fn of<T: Scalar>(u: &[T], v: &[T], entry: impl Fn(f64, f64) -> f64) -> Option<Self> {
        let scaled = |scale: f64| {
            let [squares] = sums(u, v, |u, v| [(entry(u, v) * scale).powi(2)]);
            squares
        };
        let squares = scaled(1.0);
        if (1e-280..1e300).contains(&squares) {
            return Some(Self { scale: 1.0, scaled: squares.sqrt() });
        }
        let entries = u.iter().zip(v).map(|(u, v)| entry(u.as_f64(), v.as_f64()).abs());
        let largest = entries.fold(0.0, f64::max);
        // Subnormal numbers, below 2⁻¹⁰²², cannot be scaled quite up to 1, but close enough.
        let scale = (-largest.log2().floor()).clamp(-1023.0, 1023.0).exp2();
        (largest > 0.0).then(|| Self { scale, scaled: scaled(scale).sqrt() })
    }

    fn value(self) -> f64 {
        self.scaled / self.scale
    }
}

/// Sums over the entries of two arrays, in eight interleaved parts, so that the compiler can vectorise
/// them.
fn sums<T: Scalar, const N: usize>(
    u: &[T],
    v: &[T],
    term: impl Fn(f64, f64) -> [f64; N],
) -> [f64; N] {
    debug_assert_eq!(u.len(), v.len());
    let mut parts = [[0.0; 8]; N];
    let mut add = |lane: usize, u: T, v: T| {
        let terms = term(u.as_f64(), v.as_f64());
        parts.iter_mut().zip(terms).for_each(|(parts, term)| parts[lane] += term);
    };
    let ((chunks_u, rest_u), (chunks_v, rest_v)) = (u.as_chunks::<8>(), v.as_chunks::<8>());
    for (u, v) in chunks_u.iter().zip(chunks_v) {
        (0..8).for_each(|lane| add(lane, u[lane], v[lane]));
    }
    rest_u.iter().zip(rest_v).enumerate().for_each(|(lane, (&u, &v))| add(lane, u, v));
    parts.map(|parts| parts.iter().sum())
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
        assert_eq!(norm(&[3.0_f32, -4.0]), 5.0);
        assert_eq!(distance(&[1.0_f32, 5.0, 2.0], &[4.0, 1.0, 2.0]), 5.0);
        assert_eq!(distance(&[0.1; 9], &[0.1; 9]), 0.0);
    }

    #[test]
    fn zero_has_no_direction() {
        for (u, v) in [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, -0.0]), ([0.0; 2], [0.0; 2])] {
            assert_eq!(angle(&u, &v), None);
        }
        assert_eq!(angle::<f32>(&[], &[]), None);
        assert_eq!((norm(&[0.0, -0.0]), norm::<f32>(&[])), (0.0, 0.0));
    }

    #[test]
    fn the_ends_of_the_range_are_numbers_like_others() {
        for scale in [1e-320, f64::MIN_POSITIVE, 1e-200, 1e200, 1e307] {
            let (u, v) = ([scale, 0.0], [2.0 * scale, 2.0 * scale]);
            assert_relative_eq!(angle(&u, &v).unwrap(), 45.0, epsilon = 1e-12);
            let length = norm(&[3.0 * scale, 4.0 * scale]);
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
            let cosine = (dot / norm(&u) / norm(&other)).clamp(-1.0, 1.0);
            prop_assert!((plain.to_radians().cos() - cosine).abs() < 1e-14);
        }
    }
}
