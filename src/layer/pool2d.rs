//! Pooling: one value for each window of a channel.

use std::fmt;

use multiversion::multiversion;

use super::{
    shape::Shape,
    thread_memory::{ThreadMemory, with_offsets},
    windows::Windows,
};
use crate::{
    error::{Error, Result},
    scalar::Scalar,
    threads::{Chunks, pieces, share_out},
    vector::{RUN, sum_in_order, sum_of},
};

/// The largest value of each window; of several equal ones the first. The way back gives the whole
/// delta to this winner.
///
/// Only windows that lie wholly within the image count: `⌊(size − kernel)/stride⌋ + 1` along each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct MaxPool2d {
    /// Height and width of a window.
    pub kernel: (usize, usize),
    /// Vertical and horizontal step from one window to the next.
    pub stride: (usize, usize),
}

impl MaxPool2d {
    /// Square windows of `kernel × kernel`, `stride` apart.
    #[must_use]
    pub fn new(kernel: usize, stride: usize) -> Self {
        Self { kernel: (kernel, kernel), stride: (stride, stride) }
    }

    pub(crate) fn over(self, input: Shape) -> Result<Pool2d> {
        Pool2d::new(Pooling::Max, input, self.kernel, self.stride)
    }
}

/// The mean of each window. The way back gives each pixel of the window an equal share of the delta.
///
/// Only windows that lie wholly within the image count: `⌊(size − kernel)/stride⌋ + 1` along each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct AvgPool2d {
    /// Height and width of a window.
    pub kernel: (usize, usize),
    /// Vertical and horizontal step from one window to the next.
    pub stride: (usize, usize),
}

impl AvgPool2d {
    /// Square windows of `kernel × kernel`, `stride` apart.
    #[must_use]
    pub fn new(kernel: usize, stride: usize) -> Self {
        Self { kernel: (kernel, kernel), stride: (stride, stride) }
    }

    /// A single window over the whole of each channel.
    pub(crate) fn whole(input: Shape) -> Self {
        Self { kernel: (input.height, input.width), stride: (1, 1) }
    }

    pub(crate) fn over(self, input: Shape) -> Result<Pool2d> {
        Pool2d::new(Pooling::Mean, input, self.kernel, self.stride)
    }
}

/// How a window becomes one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    Max,
    Mean,
}

/// [`MaxPool2d`] or [`AvgPool2d`] over an input of known shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    kind: Pooling,
    windows: Windows,
}

impl Pool2d {
    fn new(
        kind: Pooling,
        input: Shape,
        kernel: (usize, usize),
        stride: (usize, usize),
    ) -> Result<Self> {
        let name = Name { kind, kernel, stride };
        let windows = Windows::new(&name, input, input.channels, kernel, stride, (0, 0))?;
        if u32::try_from(input.len()).is_err() {
            // The place of a winner within its sample is stored in 32 bits.
            return Err(Error::TooLarge { rows: input.channels, columns: input.plane() });
        }
        Ok(Self { kind, windows })
    }

    pub(crate) fn output(&self) -> Shape {
        self.windows.output
    }

    /// How much memory of its own a thread needs to do this pooling.
    pub(crate) fn thread_memory(&self) -> ThreadMemory {
        let plane = self.windows.input.plane();
        match self.kind {
            Pooling::Max => ThreadMemory {
                scratch: plane.saturating_mul(2),
                offsets: plane.saturating_mul(3),
                ..ThreadMemory::default()
            },
            Pooling::Mean => ThreadMemory::default(),
        }
    }

    /// `y ←` maximum or mean of each window. `winners` are written as in [`max`].
    pub(crate) fn forward<T: Scalar>(&self, x: &[T], y: &mut [T], winners: &mut Vec<u32>) {
        match self.kind {
            Pooling::Max => {
                winners.resize(y.len(), 0);
                let Windows { input, output, kernel, .. } = self.windows;
                // Comparing two values and their places takes about as long as ten multiply-adds.
                let parts = pieces(y.len(), 10 * kernel.0 * kernel.1);
                let samples = x.len() / input.len();
                let size = output.len();
                let out = (Chunks { data: y, size }, Chunks { data: winners, size });
                share_out(out, 0..samples, parts, &|range, (y, winners)| {
                    let x = &x[range.start * input.len()..range.end * input.len()];
                    max(&self.windows, x, y.data, winners.data);
                });
            }
            Pooling::Mean => self.mean(x, y),
        }
    }

    /// `y ←` the mean of each window.
    fn mean<T: Scalar>(&self, x: &[T], y: &mut [T]) {
        let Windows { input, output, kernel, .. } = self.windows;
        let share = T::of(1.0 / (kernel.0 * kernel.1) as f64);
        for (x, y) in x.chunks_exact(input.len()).zip(y.chunks_exact_mut(output.len())) {
            for (start, y) in self.starts().zip(y) {
                let row = |i: usize| &x[start + i * input.width..][..kernel.1];
                *y = share
                    * if kernel.0 * kernel.1 <= RUN {
                        (0..kernel.0).flat_map(row).fold(T::zero(), |sum, &value| sum + value)
                    } else {
                        sum_of(0..kernel.0, &|i| sum_in_order(row(i)))
                    };
            }
        }
    }

    /// Sends the delta of each window back to its pixels. `to` has the shape of the input.
    pub(crate) fn backward<T: Scalar>(&self, winners: &[u32], from: &[T], to: &mut [T]) {
        let Windows { input, output, kernel, .. } = self.windows;
        let share = T::of(1.0 / (kernel.0 * kernel.1) as f64);
        let count = from.len() / output.len();
        let parts = pieces(to.len(), 4);
        let out = Chunks { data: to, size: input.len() };
        share_out(out, 0..count, parts, &|range, to| {
            to.data.fill(T::zero());
            for (sample, to) in range.zip(to.data.chunks_exact_mut(input.len())) {
                let from = &from[sample * output.len()..][..output.len()];
                match self.kind {
                    Pooling::Max => {
                        let winners = &winners[sample * output.len()..][..output.len()];
                        for (&delta, &winner) in from.iter().zip(winners) {
                            to[winner as usize] += delta;
                        }
                    }
                    Pooling::Mean => {
                        for (start, &delta) in self.starts().zip(from) {
                            for i in 0..kernel.0 {
                                let row = &mut to[start + i * input.width..][..kernel.1];
                                row.iter_mut().for_each(|to| *to += share * delta);
                            }
                        }
                    }
                }
            }
        });
    }

    /// Takes a signal up: for each window the value at the forward pass's winner, or the mean.
    pub(crate) fn relay<T: Scalar>(&self, winners: &[u32], from: &[T], to: &mut [T]) {
        let Windows { input, output, .. } = self.windows;
        match self.kind {
            Pooling::Max => {
                let samples = from.chunks_exact(input.len()).zip(to.chunks_exact_mut(output.len()));
                for ((from, to), winners) in samples.zip(winners.chunks_exact(output.len())) {
                    for (to, &winner) in to.iter_mut().zip(winners) {
                        *to = from[winner as usize];
                    }
                }
            }
            Pooling::Mean => self.mean(from, to),
        }
    }

    /// The first pixel of every window of a sample, in the order of the output.
    fn starts(&self) -> impl Iterator<Item = usize> {
        let Windows { input, output, stride, .. } = self.windows;
        (0..output.channels).flat_map(move |channel| {
            (0..output.height).flat_map(move |y| {
                let row = channel * input.plane() + y * stride.0 * input.width;
                (0..output.width).map(move |x| row + x * stride.1)
            })
        })
    }
}

/// `y ←` the maximum of each window; `winners` are the places of the maxima within the sample.
///
/// The maxima are taken along rows of the windows first, then along columns of the results. This is
/// done at every pixel, even where no window begins, because then many pixels can be handled at once.
#[allow(clippy::cast_possible_truncation)] // Checked when the network was built.
fn max<T: Scalar>(windows: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
    let Windows { input, output, stride, kernel, .. } = *windows;
    let size = input.plane();
    T::with_scratch(2 * size, |scratch| {
        with_offsets(3 * size, |offsets| {
            let (along, all) = scratch.split_at_mut(size);
            let (none, offsets) = offsets.split_at_mut(size);
            let (along_offsets, all_offsets) = offsets.split_at_mut(size);
            none.fill(0);
            let outputs =
                y.chunks_exact_mut(output.plane()).zip(winners.chunks_exact_mut(output.plane()));
            for (plane, (x, (y, winners))) in x.chunks_exact(size).zip(outputs).enumerate() {
                slide((x, none), (kernel.1, 1), (along, along_offsets));
                slide((along, along_offsets), (kernel.0, input.width), (all, all_offsets));
                let first = plane % input.channels * size;
                let rows =
                    y.chunks_exact_mut(output.width).zip(winners.chunks_exact_mut(output.width));
                for (row, (y, winners)) in rows.enumerate() {
                    let first_start = row * stride.0 * input.width;
                    for (column, (y, winner)) in y.iter_mut().zip(winners).enumerate() {
                        let start = first_start + column * stride.1;
                        *y = all[start];
                        *winner = (first + start) as u32 + all_offsets[start];
                    }
                }
            }
        });
    });
}

/// At each value: the largest of the `count` values that follow at distances of `step`, the value
/// itself included, and how far away it is. Of several equal ones the first counts. Where fewer values
/// follow, at the end, no window begins, and what is written there means nothing.
#[multiversion(targets = "simd")]
fn slide<T: Scalar>(
    (from, from_offsets): (&[T], &[u32]),
    (count, step): (usize, usize),
    (best, offsets): (&mut [T], &mut [u32]),
) {
    // The first three values are compared before anything is written. Rewriting `best` under a condition
    // is slow on some processors. If there are fewer values, the last is compared with itself.
    let shifts = [0, 1, 2].map(|k: usize| k.min(count - 1) * step);
    let length = from.len() - shifts[2];
    let [one, second, third] = shifts.map(|shift| &from[shift..][..length]);
    let [of_one, of_second, of_third] = shifts.map(|shift| &from_offsets[shift..][..length]);
    let (best, offsets) = (&mut best[..length], &mut offsets[..length]);
    for i in 0..length {
        let found = larger((one[i], of_one[i]), (second[i], of_second[i]), shifts[1]);
        (best[i], offsets[i]) = larger(found, (third[i], of_third[i]), shifts[2]);
    }
    for shift in (3..count).map(|k| k * step) {
        let others = from[shift..].iter().zip(&from_offsets[shift..]);
        for ((best, offset), other) in best.iter_mut().zip(&mut *offsets).zip(others) {
            (*best, *offset) = larger((*best, *offset), (*other.0, *other.1), shift);
        }
    }
}

/// The larger of two values with its offset. If it is the second one, `shift` is added to its offset.
#[allow(clippy::cast_possible_truncation)] // As above.
#[allow(clippy::inline_always)] // For loops that are vectorised.
#[inline(always)]
fn larger<T: Scalar>(one: (T, u32), other: (T, u32), shift: usize) -> (T, u32) {
    // Chosen without a branch, because a processor would guess it wrong half the time. A NaN wins, so
    // that it stays visible.
    let wins = (other.0 > one.0) | other.0.partial_cmp(&other.0).is_none();
    (if wins { other.0 } else { one.0 }, if wins { shift as u32 + other.1 } else { one.1 })
}

impl fmt::Display for Pool2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Windows { kernel, stride, .. } = self.windows;
        Name { kind: self.kind, kernel, stride }.fmt(f)
    }
}

/// How error messages call a pooling operation.
struct Name {
    kind: Pooling,
    kernel: (usize, usize),
    stride: (usize, usize),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, kernel, stride } = self;
        let kind = if *kind == Pooling::Max { "max-pool2d" } else { "avg-pool2d" };
        write!(f, "{kind} {}×{}, stride {}×{}", kernel.0, kernel.1, stride.0, stride.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Windows of a pooling operation, and samples of few different numbers: many ties.
    fn any_case() -> impl Strategy<Value = (Pool2d, Pool2d, Vec<f64>)> {
        let pair = |most: usize| (1..=most, 1..=most);
        let shape = (1..4_usize, pair(9)).prop_map(|(channels, (height, width))| Shape {
            channels,
            height,
            width,
        });
        (shape, pair(4), pair(4), 1..4_usize, 2..5_u8)
            .prop_filter_map("the window fits", |(shape, kernel, stride, samples, values)| {
                let max = MaxPool2d { kernel, stride }.over(shape).ok()?;
                let mean = AvgPool2d { kernel, stride }.over(shape).ok()?;
                Some((max, mean, samples * shape.len(), values))
            })
            .prop_flat_map(|(max, mean, length, values)| {
                let x = prop::collection::vec((0..values).prop_map(f64::from), length);
                (Just(max), Just(mean), x)
            })
    }

    /// The pixels of every window of a sample, row by row.
    fn windows(pool: &Pool2d) -> Vec<Vec<usize>> {
        let Windows { input, output, kernel, stride, .. } = pool.windows;
        let place = |channel: usize, row: usize, column: usize| {
            (channel * input.height + row) * input.width + column
        };
        let mut all = Vec::new();
        for channel in 0..output.channels {
            for (y, z) in (0..output.plane()).map(|p| (p / output.width, p % output.width)) {
                let pixel = |k: usize| {
                    let (row, column) = (k / kernel.1, k % kernel.1);
                    place(channel, y * stride.0 + row, z * stride.1 + column)
                };
                all.push((0..kernel.0 * kernel.1).map(pixel).collect());
            }
        }
        all
    }

    proptest! {
        /// The first of equal pixels wins: it gives its value, and has the delta to itself.
        #[test]
        fn the_first_of_the_largest_wins((max, _, x) in any_case()) {
            let (windows, size) = (windows(&max), max.windows.input.len());
            let (mut expected, mut places) = (Vec::new(), Vec::new());
            for sample in x.chunks_exact(size) {
                for window in &windows {
                    let mut winner = window[0];
                    for &pixel in window {
                        if sample[pixel] > sample[winner] {
                            winner = pixel;
                        }
                    }
                    expected.push(sample[winner]);
                    places.push(u32::try_from(winner).unwrap());
                }
            }
            let (mut y, mut winners) = (vec![f64::NAN; expected.len()], vec![7; 1]);
            max.forward(&x, &mut y, &mut winners);
            prop_assert_eq!(&y, &expected);
            prop_assert_eq!(&winners, &places);

            let delta: Vec<f64> = (0..y.len()).map(|i| (i % 13) as f64 - 6.0).collect();
            let mut back = vec![f64::NAN; x.len()];
            max.backward(&winners, &delta, &mut back);
            let mut naive = vec![0.0; x.len()];
            for (index, (&delta, &winner)) in delta.iter().zip(&places).enumerate() {
                naive[index / windows.len() * size + winner as usize] += delta;
            }
            prop_assert_eq!(back, naive);

            let signal: Vec<f64> = (0..x.len()).map(|i| i as f64).collect();
            let mut relayed = vec![f64::NAN; y.len()];
            max.relay(&winners, &signal, &mut relayed);
            for (index, (&relayed, &winner)) in relayed.iter().zip(&places).enumerate() {
                prop_assert_eq!(relayed, (index / windows.len() * size + winner as usize) as f64);
            }
        }

        #[test]
        fn the_mean_is_shared_alike((_, mean, x) in any_case()) {
            let (windows, size) = (windows(&mean), mean.windows.input.len());
            let count = windows[0].len() as f64;
            let mut y = vec![f64::NAN; x.len() / size * windows.len()];
            mean.forward(&x, &mut y, &mut Vec::new());
            let delta: Vec<f64> = (0..y.len()).map(|i| (i % 13) as f64 - 6.0).collect();
            let mut back = vec![f64::NAN; x.len()];
            mean.backward(&[], &delta, &mut back);
            let mut naive = vec![0.0; x.len()];
            for (sample, x) in x.chunks_exact(size).enumerate() {
                for (number, window) in windows.iter().enumerate() {
                    let index = sample * windows.len() + number;
                    let sum: f64 = window.iter().map(|&pixel| x[pixel]).sum();
                    prop_assert!((y[index] - sum / count).abs() < 1e-14);
                    for &pixel in window {
                        naive[sample * size + pixel] += delta[index] / count;
                    }
                }
            }
            for (back, naive) in back.into_iter().zip(naive) {
                prop_assert!((back - naive).abs() < 1e-12, "{back}, not {naive}");
            }
            let mut relayed = vec![f64::NAN; y.len()];
            mean.relay(&[], &x, &mut relayed);
            prop_assert_eq!(relayed, y);
        }
    }

    #[test]
    fn both_zeros_are_equal_and_nan_wins() {
        let pool = MaxPool2d::new(2, 2).over(Shape { channels: 1, height: 2, width: 2 }).unwrap();
        let winner = |x: [f32; 4]| {
            let (mut y, mut winners) = ([0.0], Vec::new());
            pool.forward(&x, &mut y, &mut winners);
            (y[0], winners[0])
        };
        let (value, place) = winner([-1.0, -0.0, 0.0, 0.0]);
        assert!(value == 0.0 && value.is_sign_negative() && place == 1);
        let (value, place) = winner([3.0, 1.0, f32::NAN, 4.0]);
        assert!(value.is_nan() && place == 2);
        assert_eq!(winner([f32::NEG_INFINITY; 4]), (f32::NEG_INFINITY, 0));
    }
}
