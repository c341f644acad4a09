//! Sums and bounds of slices.
//!
//! Adding many numbers one by one loses digits as their count grows. Here short runs are added in a
//! row, and the sums of the runs pairwise. So the rounding error grows only with the logarithm of the
//! count. The order of additions depends on the count alone.

use std::ops::Range;

use multiversion::multiversion;

use crate::scalar::Scalar;

/// Up to this many numbers are added in a row.
pub(crate) const RUN: usize = 128;

/// Of more numbers, this many are added in a row, and the results pairwise.
const SHORT_RUN: usize = 32;

/// Sums that are computed side by side, so that the processor adds several at once.
const LANES: usize = 16;

/// The two halves of a range; the first is a multiple of `unit` long.
fn halves(range: Range<usize>, unit: usize) -> (Range<usize>, Range<usize>) {
    let middle = range.start + (range.len() / 2).next_multiple_of(unit);
    (range.start..middle, middle..range.end)
}

/// `Σ v`.
pub(crate) fn sum<T: Scalar>(values: &[T]) -> T {
    if values.len() > INTERLEAVED * RUN { pairwise(values) } else { sum_interleaved(values) }
}

/// The number of parts of a sum that are computed side by side.
const INTERLEAVED: usize = 8;

fn pairwise<T: Scalar>(values: &[T]) -> T {
    if values.len() > INTERLEAVED * SHORT_RUN {
        let (left, right) = halves(0..values.len(), INTERLEAVED * SHORT_RUN);
        return pairwise(&values[left]) + pairwise(&values[right]);
    }
    sum_interleaved(values)
}

fn sum_interleaved<T: Scalar>(values: &[T]) -> T {
    let mut parts = [T::zero(); INTERLEAVED];
    let chunks = values.chunks_exact(INTERLEAVED);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (part, &value) in parts.iter_mut().zip(chunk) {
            *part += value;
        }
    }
    parts.iter().chain(rest).fold(T::zero(), |sum, &value| sum + value)
}

/// `Σ v`, added in a row if there are few numbers.
pub(crate) fn sum_in_order<T: Scalar>(values: &[T]) -> T {
    match values.len() {
        0..=RUN => values.iter().fold(T::zero(), |sum, &value| sum + value),
        _ => sum(values),
    }
}

/// Adds up `value(index)` over a range: in a row if it is short, else pairwise.
pub(crate) fn sum_of<T: Scalar>(range: Range<usize>, value: &impl Fn(usize) -> T) -> T {
    fn pairwise<T: Scalar>(range: Range<usize>, value: &impl Fn(usize) -> T) -> T {
        if range.len() > SHORT_RUN {
            let (left, right) = halves(range, SHORT_RUN);
            return pairwise(left, value) + pairwise(right, value);
        }
        range.fold(T::zero(), |sum, index| sum + value(index))
    }
    if range.len() > RUN {
        return pairwise(range, value);
    }
    range.fold(T::zero(), |sum, index| sum + value(index))
}

/// `sums ← Σ f(a)` over the columns of the column-major matrix `a`.
pub(crate) fn sum_columns<T: Scalar>(a: &[T], sums: &mut [T], f: impl Fn(T) -> T + Copy) {
    let rows = sums.len();
    if a.len() == rows {
        return sums.iter_mut().zip(a).for_each(|(sum, &value)| *sum = T::zero() + f(value));
    }
    if a.len() <= RUN * rows {
        return few_columns(a, sums, f);
    }
    for (part, first) in sums.chunks_mut(LANES).zip((0..).step_by(LANES)) {
        let columns = 0..a.len() / rows;
        let total = sum_rows(a, rows, first..first + part.len(), columns, f);
        part.copy_from_slice(&total[..part.len()]);
    }
}

/// Some rows of [`sum_columns`], summed over some columns.
fn sum_rows<T: Scalar>(
    a: &[T],
    rows: usize,
    some: Range<usize>,
    columns: Range<usize>,
    f: impl Fn(T) -> T + Copy,
) -> [T; LANES] {
    if columns.len() > SHORT_RUN {
        let (left, right) = halves(columns, SHORT_RUN);
        let mut sums = sum_rows(a, rows, some.clone(), left, f);
        let others = sum_rows(a, rows, some, right, f);
        sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        return sums;
    }
    let mut sums = [T::zero(); LANES];
    add_rows(&a[columns.start * rows..columns.end * rows], rows, some, &mut sums, f);
    sums
}

#[multiversion(targets = "simd")]
fn add_rows<T: Scalar, F: Fn(T) -> T + Copy>(
    a: &[T],
    rows: usize,
    some: Range<usize>,
    sums: &mut [T; LANES],
    f: F,
) {
    for column in a.chunks_exact(rows) {
        for (sum, &value) in sums.iter_mut().zip(&column[some.clone()]) {
            *sum += f(value);
        }
    }
}

/// [`sum_columns`] of a single run.
#[multiversion(targets = "simd")]
fn few_columns<T: Scalar, F: Fn(T) -> T + Copy>(a: &[T], sums: &mut [T], f: F) {
    let mut first = 0;
    // This many sums stay in registers during the pass over the columns.
    while first + 32 <= sums.len() {
        register_rows::<T, F, 32>(a, sums, first, f);
        first += 32;
    }
    while first + 8 <= sums.len() {
        register_rows::<T, F, 8>(a, sums, first, f);
        first += 8;
    }
    while first < sums.len() {
        register_rows::<T, F, 1>(a, sums, first, f);
        first += 1;
    }
}

/// Computes `N` of the sums, from number `first` on.
#[allow(clippy::inline_always)] // Or it would not be vectorised.
#[inline(always)]
fn register_rows<T: Scalar, F: Fn(T) -> T + Copy, const N: usize>(
    a: &[T],
    sums: &mut [T],
    first: usize,
    f: F,
) {
    let mut parts = [T::zero(); N];
    for column in a.chunks_exact(sums.len()) {
        for (part, &value) in parts.iter_mut().zip(&column[first..first + N]) {
            *part += f(value);
        }
    }
    sums[first..first + N].copy_from_slice(&parts);
}

/// Calls `put(c, Σ f(c, x, y))` for each channel `c`, in order, with the sum over all samples and
/// positions. `x` and `y` hold, for each sample, `channels` channels of `plane` numbers. The sums are
/// in `f64`, which keeps a mean of `f32` numbers exact to the last digit.
pub(crate) fn sum_channels<T: Scalar>(
    x: &[T],
    y: &[T],
    (channels, plane): (usize, usize),
    f: impl Fn(usize, T, T) -> f64 + Copy,
    mut put: impl FnMut(usize, f64),
) {
    let samples = 0..x.len() / (channels * plane);
    if plane == 1 {
        for first in (0..channels).step_by(LANES) {
            let some = first..channels.min(first + LANES);
            let sums = channel_rows(x, y, channels, some.clone(), samples.clone(), f);
            some.zip(sums).for_each(|(channel, sum)| put(channel, sum));
        }
        return;
    }
    for channel in 0..channels {
        let of_sample = |sample| {
            let start = (sample * channels + channel) * plane;
            let range = start..start + plane;
            sum_plane(&x[range.clone()], &y[range], |x, y| f(channel, x, y))
        };
        put(channel, sum_of(samples.clone(), &of_sample));
    }
}

/// `Σ f(x, y)`.
pub(crate) fn sum_plane<T: Scalar>(x: &[T], y: &[T], f: impl Fn(T, T) -> f64 + Copy) -> f64 {
    if x.len() > LANES * RUN {
        let (left, right) = halves(0..x.len(), LANES * RUN);
        return sum_plane(&x[left.clone()], &y[left], f)
            + sum_plane(&x[right.clone()], &y[right], f);
    }
    sum_short_plane(x, y, f)
}

#[multiversion(targets = "simd")]
fn sum_short_plane<T: Scalar, F: Fn(T, T) -> f64 + Copy>(x: &[T], y: &[T], f: F) -> f64 {
    let mut sums = [0.0; LANES];
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += f(x, y);
        }
    }
    sums.iter().sum()
}

/// The sums of some channels over some samples, for channels with one number per sample.
fn channel_rows<T: Scalar>(
    x: &[T],
    y: &[T],
    channels: usize,
    some: Range<usize>,
    samples: Range<usize>,
    f: impl Fn(usize, T, T) -> f64 + Copy,
) -> [f64; LANES] {
    if samples.len() > RUN {
        let (left, right) = halves(samples, RUN);
        let mut sums = channel_rows(x, y, channels, some.clone(), left, f);
        let others = channel_rows(x, y, channels, some, right, f);
        sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        return sums;
    }
    let range = samples.start * channels..samples.end * channels;
    let mut sums = [0.0; LANES];
    add_channels(&x[range.clone()], &y[range], channels, some, &mut sums, f);
    sums
}

#[multiversion(targets = "simd")]
fn add_channels<T: Scalar, F: Fn(usize, T, T) -> f64 + Copy>(
    x: &[T],
    y: &[T],
    channels: usize,
    some: Range<usize>,
    sums: &mut [f64; LANES],
    f: F,
) {
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact(channels)) {
        let numbers = x[some.clone()].iter().zip(&y[some.clone()]);
        for ((sum, channel), (&x, &y)) in sums.iter_mut().zip(some.clone()).zip(numbers) {
            *sum += f(channel, x, y);
        }
    }
}

/// `Σ v²`, roughly, to bound the values: `|v| ≤ √Σv²` for every `v`. NaN or infinite if a value or its
/// square is.
#[inline]
pub(crate) fn energy<T: Scalar>(data: &[T]) -> T {
    if data.len() < LANES {
        return data.iter().fold(T::zero(), |sum, &value| sum + value * value);
    }
    long_energy(data)
}

#[multiversion(targets = "simd")]
fn long_energy<T: Scalar>(data: &[T]) -> T {
    let mut sums = [T::zero(); LANES];
    let chunks = data.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += value * value;
    }
    sums.iter().fold(T::zero(), |all, &sum| all + sum)
}

/// Numbers below this cannot come near an overflow.
pub(crate) const ORDINARY: f64 = 1e6;

/// Whether all numbers are certainly below [`ORDINARY`]. It looks only at the sum of their squares.
pub(crate) fn is_ordinary<T: Scalar>(data: &[T]) -> bool {
    energy(data) < T::of(ORDINARY * ORDINARY)
}

/// The largest `|v|`; ∞ if a value is NaN or infinite.
pub(crate) fn magnitude<T: Scalar>(data: &[T]) -> f64 {
    data.iter().fold(0.0, |largest, v| {
        if v.is_finite() { f64::max(largest, v.as_f64().abs()) } else { f64::INFINITY }
    })
}

/// Whether there is no NaN and no infinity.
pub(crate) fn all_finite<T: Scalar>(data: &[T]) -> bool {
    energy(data).is_finite() || data.iter().all(T::is_finite)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers around 1000, which a sum in a row spoils as it grows.
    fn numbers<T: Scalar>(length: usize, seed: usize) -> Vec<T> {
        (0..length).map(|i| T::of(1000.0 + ((i * 37 + seed * 11) % 101) as f64 / 7.0)).collect()
    }

    /// The sum of what stands in memory, by pairs from the first level on, in `f64`.
    fn exact<T: Scalar>(values: &[T]) -> f64 {
        match values {
            [] => 0.0,
            [one] => one.as_f64(),
            _ => {
                let (left, right) = values.split_at(values.len() / 2);
                exact(left) + exact(right)
            }
        }
    }

    /// Rounding of a sum of runs of `RUN` in the worst case is far above this.
    fn close(found: f64, expected: f64, epsilon: f64) -> bool {
        (found - expected).abs() <= 30.0 * epsilon * expected.abs()
    }

    fn check<T: Scalar>(length: usize, rows: usize, seed: usize, epsilon: f64) {
        let values = numbers::<T>(length * rows, seed);
        assert!(close(sum(&values).as_f64(), exact(&values), epsilon), "{length} × {rows}");
        let by_index = sum_of(0..values.len(), &|index| values[index]).as_f64();
        assert!(close(by_index, exact(&values), epsilon), "{length} × {rows}");
        assert!(close(sum_in_order(&values).as_f64(), exact(&values), epsilon));
        let mut sums = vec![T::zero(); rows];
        sum_columns(&values, &mut sums, |value| value);
        for (row, sum) in sums.iter().enumerate() {
            let row: Vec<T> = values.iter().skip(row).step_by(rows).copied().collect();
            assert!(close(sum.as_f64(), exact(&row), epsilon), "{length} × {rows}");
        }
    }

    #[test]
    fn long_sums_are_as_exact_as_pairwise_ones() {
        for (length, rows) in [(1, 1), (127, 3), (128, 40), (129, 33), (1000, 17), (100_000, 3)] {
            check::<f32>(length, rows, length, f64::from(f32::EPSILON));
            check::<f64>(length, rows, length, f64::EPSILON);
        }
        // Rounding that always goes the same way: in a row it would be off by a part in 100.
        let million = vec![0.1_f32; 1_000_000];
        let exact = 1e6 * f64::from(0.1_f32);
        assert!((sum(&million).as_f64() - exact).abs() < 1e-6 * exact);
        let mut of_column = [0.0];
        sum_columns(&million, &mut of_column, |value| value);
        assert!((of_column[0].as_f64() - exact).abs() < 1e-6 * exact);
    }

    #[test]
    fn short_sums_are_added_up_in_order() {
        let values = numbers::<f32>(RUN, 3);
        let in_order = values.iter().fold(0.0, |sum, value| sum + value);
        assert_eq!(sum_in_order(&values).to_bits(), f32::to_bits(in_order));
        assert_eq!(sum_of(0..RUN, &|index| values[index]).to_bits(), f32::to_bits(in_order));
        let mut sums = [0.0];
        sum_columns(&values, &mut sums, |value| value);
        assert_eq!(sums[0].to_bits(), f32::to_bits(in_order));
    }

    proptest! {
        #[test]
        fn channels_are_summed_over_samples_and_positions(
            samples in 1..300_usize, channels in 1..40_usize, plane in 1..40_usize,
        ) {
            let x = numbers::<f32>(samples * channels * plane, samples);
            let y = numbers::<f32>(x.len(), plane);
            let mut next = 0;
            sum_channels(&x, &y, (channels, plane), |c, x, y| {
                c as f64 + x.as_f64() * y.as_f64()
            }, |channel, sum| {
                assert_eq!(channel, next);
                next += 1;
                let mut expected = 0.0;
                for sample in 0..samples {
                    for i in 0..plane {
                        let at = (sample * channels + channel) * plane + i;
                        expected += channel as f64 + f64::from(x[at]) * f64::from(y[at]);
                    }
                }
                assert!((sum - expected).abs() <= 1e-11 * expected, "{sum}, not {expected}");
            });
            prop_assert_eq!(next, channels);
        }

        #[test]
        fn what_is_ordinary_or_finite_is_found(
            values in prop::collection::vec(prop::num::f32::ANY, 0..70), small: bool,
        ) {
            let values: Vec<f32> =
                values.into_iter().map(|v| if small { v % 10.0 } else { v }).collect();
            let finite = values.iter().all(|value| value.is_finite());
            prop_assert_eq!(all_finite(&values), finite);
            let largest = values.iter().fold(0.0, |most, v| f32::max(most, v.abs()));
            let largest = if finite { f64::from(largest) } else { f64::INFINITY };
            prop_assert_eq!(magnitude(&values), largest);
            prop_assert!(!is_ordinary(&values) || largest < ORDINARY);
        }
    }
}
