//! An upper bound of many numbers. By such bounds a step is known not to overflow before it is made.

use crate::{
    scalar::Scalar,
    threads::{join, pieces},
    vector::energy,
};

/// An upper bound of all `v²`, at most some 65,536 times too large. ∞ if a value, or its square, is NaN or
/// infinite.
pub(crate) fn bound_of_squares<T: Scalar>(data: &[T]) -> f64 {
    /// The squares of so many values are added up, and the bound is the largest of these sums. So it does
    /// not depend on how threads share the work.
    const CHUNK: usize = 1 << 16;
    if data.len() > CHUNK {
        let (left, right) = data.split_at((data.len() / 2).next_multiple_of(CHUNK));
        let [mut one, mut other] = [0.0; 2];
        if pieces(data.len(), 1) > 1 {
            join(|| one = bound_of_squares(left), || other = bound_of_squares(right));
        } else {
            [one, other] = [left, right].map(bound_of_squares);
        }
        return f64::max(one, other);
    }
    // The square of a tiny number may have become 0.
    let bound = energy(data).as_f64() * 1.001 + f64::from(f32::MIN_POSITIVE);
    if bound.is_nan() { f64::INFINITY } else { bound }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::threads::Threads;

    proptest! {
        #[test]
        fn nothing_exceeds_its_bound(
            values in prop::collection::vec(prop::num::f32::ANY, 0..70), small: bool,
        ) {
            let values: Vec<f32> =
                values.into_iter().map(|v| if small { v % 10.0 } else { v }).collect();
            let bound = bound_of_squares(&values).sqrt();
            let finite = values.iter().all(|value| value.is_finite());
            prop_assert!(values.iter().all(|value| f64::from(value.abs()) <= bound || !finite));
            prop_assert!(finite || bound == f64::INFINITY);
        }

        /// Of many values, which several threads may share.
        #[test]
        fn the_bound_of_many_values_is_that_of_one_of_them(
            length in 1..300_000_usize, place: prop::sample::Index, largest in 2.0..9.0_f32,
        ) {
            let mut values = vec![1e-4; length];
            values[place.index(length)] = largest;
            let bounds = (1..5).map(|threads| {
                let threads = Threads::new(threads).unwrap();
                threads.run(1 << 30, || bound_of_squares(&values))
            });
            let bounds: Vec<f64> = bounds.collect();
            let exact = f64::from(largest * largest);
            prop_assert!((exact..1.002 * exact).contains(&bounds[0]), "{bounds:?}, not {exact}");
            prop_assert!(bounds.iter().all(|bound| bound == &bounds[0]));
            values[place.index(length)] = f32::NAN;
            prop_assert_eq!(bound_of_squares(&values), f64::INFINITY);
        }
    }
}
