//! The convolution: a linear map whose weights are shared between positions.

use std::fmt;

use super::{bias::Bias, shape::Shape, tiles::Tiles, unroll::Unrolling, windows::Windows};
use crate::{
    error::{Error, Result},
    linalg::{self, Mat, Start, cut},
    scalar::Scalar,
    threads::{Chunks, share_out, small_pieces, worth},
    vector::{sum, sum_of},
};

/// A two-dimensional convolution (cross-correlation, as everywhere in the field):
/// `a[o, y, x] = b[o] + Σ_{c, i, j} W[o, (c, i, j)] · h[c, y·stride + i − padding, x·stride + j − padding]`,
/// with zeros outside the image.
///
/// The output has `⌊(size + 2·padding − kernel)/stride⌋ + 1` pixels along each side.
///
/// ```
/// use feedback_alignment::{Conv2d, MaxPool2d, Network};
///
/// let network = Network::<f32>::builder((3, 32, 32))
///     .conv2d(Conv2d { padding: (2, 2), ..Conv2d::new(96, 5) }) // 96 × 32 × 32
///     .tanh()
///     .max_pool2d(MaxPool2d::new(3, 2)) // 96 × 15 × 15
///     .dense(10)
///     .build()?;
/// assert_eq!(network.layer(0)?.weights().shape(), (96, 3 * 5 * 5));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct Conv2d {
    /// Number of kernels, `C_out`.
    pub channels: usize,
    /// Height and width of the kernels.
    pub kernel: (usize, usize),
    /// Vertical and horizontal step; (1, 1) by default.
    pub stride: (usize, usize),
    /// Rows of zeros above and below, columns of zeros left and right; (0, 0) by default.
    pub padding: (usize, usize),
    /// One bias for each channel; with, by default.
    pub bias: Bias,
}

impl Conv2d {
    /// `channels` kernels of `kernel × kernel`, with stride 1, without padding, with a bias.
    #[must_use]
    pub fn new(channels: usize, kernel: usize) -> Self {
        Self {
            channels,
            kernel: (kernel, kernel),
            stride: (1, 1),
            padding: (0, 0),
            bias: Bias::With,
        }
    }

    pub(crate) fn over(&self, input: Shape) -> Result<Convolution> {
        let Self { channels, kernel, stride, padding, .. } = *self;
        let windows = Windows::new(self, input, channels, kernel, stride, padding)?;
        let count =
            kernel.0.checked_mul(kernel.1).and_then(|area| area.checked_mul(input.channels));
        let count = count.ok_or(Error::TooLarge { rows: channels, columns: usize::MAX })?;
        Ok(Convolution { windows, fan_in: count })
    }
}

impl fmt::Display for Conv2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, kernel, stride, padding, .. } = self;
        write!(
            f,
            "conv2d of {channels} kernels {}×{}, stride {}×{}, padding {}×{}",
            kernel.0, kernel.1, stride.0, stride.1, padding.0, padding.1
        )
    }
}

/// A convolution over an input of known shape: products with the [unrolled](Unrolling) input, sample
/// by sample. Samples, or columns of the weight gradient, are shared out among threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convolution {
    pub(crate) windows: Windows,
    /// `C_in · kh · kw`, the number of weights of one kernel.
    pub(crate) fan_in: usize,
}

impl Convolution {
    pub(crate) fn output(&self) -> Shape {
        self.windows.output
    }

    /// `y ← W ∗ x (+ b)` sample by sample, then `finish(place, y, z)` for each.
    pub(crate) fn apply<T: Scalar>(
        &self,
        weights: &[T],
        bias: Option<&[T]>,
        x: &[T],
        y: &mut [T],
        z: &mut [T],
        finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
    ) {
        let Windows { input, output, .. } = self.windows;
        let unrolling = Unrolling::new(self.windows);
        let samples = x.len() / input.len();
        let size = output.len();
        let out = (Chunks { data: y, size }, Chunks { data: z, size });
        share_out(out, 0..samples, self.parts(samples), &|range, (y, z)| {
            self.with_scratch(weights, |unrolled, kernels| {
                let mut z = z.data.chunks_exact_mut(size);
                for (sample, y) in range.zip(y.data.chunks_exact_mut(size)) {
                    unrolling.unroll(&x[sample * input.len()..][..input.len()], 0, unrolled);
                    let mut start = Start::Zero;
                    if let Some(bias) = bias {
                        for (plane, &b) in y.chunks_exact_mut(output.plane()).zip(bias.iter()) {
                            plane.fill(b);
                        }
                        start = Start::Present;
                    }
                    let seen = linalg::mat(unrolled, unrolling.rows());
                    for (group, kernels) in self.groups(kernels).enumerate() {
                        let seen = seen.subrows(unrolling.start(group), output.plane());
                        linalg::product_on_one_thread(seen, kernels.transpose(), start, y);
                        start = Start::Present;
                    }
                    finish(sample * size, y, z.next().unwrap_or_default());
                }
            });
        });
    }

    /// The same convolution with so many times the kernels.
    pub(crate) fn widened(mut self, by: usize) -> Self {
        self.windows.output.channels *= by;
        self
    }

    /// `y ← x B` sample by sample, with the positions of a sample in the rows of `x` and its channels
    /// in the columns.
    pub(crate) fn mix<T: Scalar>(&self, b: Mat<T>, x: &[T], y: &mut [T]) {
        let (plane, (from, to)) = (self.windows.output.plane(), b.shape());
        let samples = x.len() / (plane * from);
        let out = Chunks { data: y, size: plane * to };
        share_out(out, 0..samples, self.parts(samples), &|range, y| {
            for (sample, y) in range.zip(y.data.chunks_exact_mut(plane * to)) {
                let x = linalg::mat(&x[sample * plane * from..][..plane * from], plane);
                linalg::product_on_one_thread(x, b, Start::Zero, y);
            }
        });
    }

    /// `x ← Wᵀ ∗ y`, the transposed convolution, sample by sample, then `finish(place, x)` for
    /// each.
    pub(crate) fn apply_transpose<T: Scalar>(
        &self,
        weights: &[T],
        y: &[T],
        x: &mut [T],
        finish: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        let Windows { input, output, .. } = self.windows;
        let unrolling = Unrolling::new(self.windows);
        let samples = y.len() / output.len();
        let size = input.len();
        let out = Chunks { data: x, size };
        share_out(out, 0..samples, self.parts(samples), &|range, x| {
            self.with_scratch(weights, |unrolled, kernels| {
                for (sample, x) in range.zip(x.data.chunks_exact_mut(size)) {
                    let y = &y[sample * output.len()..][..output.len()];
                    let y = linalg::mat(y, output.plane());
                    unrolled.fill(T::zero());
                    for (group, kernels) in self.groups(kernels).enumerate() {
                        let (rows, first) = (unrolling.rows(), unrolling.start(group));
                        linalg::add_to_rows(y, kernels, unrolled, rows, first);
                    }
                    unrolling.fold(unrolled, x);
                    finish(sample * size, x);
                }
            });
        });
    }

    /// Calls `work` with room for an unrolled sample, and with the weights in the order in which
    /// [`groups`](Self::groups) of them are used.
    fn with_scratch<T: Scalar>(&self, weights: &[T], work: impl FnOnce(&mut [T], &[T])) {
        let size = self.unrolled();
        let (channels, groups) = (self.windows.input.channels, Unrolling::new(self.windows).groups);
        T::with_scratch(size + weights.len(), |scratch| {
            let (unrolled, kernels) = scratch.split_at_mut(size);
            swap_blocks(weights, kernels, channels, groups);
            work(unrolled, kernels);
        });
    }

    /// Numbers of an unrolled sample.
    pub(crate) fn unrolled(&self) -> usize {
        let unrolling = Unrolling::new(self.windows);
        unrolling.rows().saturating_mul(self.fan_in / unrolling.groups)
    }

    /// The columns of the weights, in the order `(group, c, …)`, group by group.
    fn groups<'a, T: Scalar>(&self, kernels: &'a [T]) -> impl Iterator<Item = Mat<'a, T>> {
        let (groups, rows) = (Unrolling::new(self.windows).groups, self.windows.output.channels);
        kernels.chunks_exact(kernels.len() / groups).map(move |group| linalg::mat(group, rows))
    }

    /// How the weight gradient of so many samples is cut: at whole channels of the input where
    /// groups of rows of the kernel share what they see. At least [`SHARES`] tiles where the work
    /// is worth it, so that threads can share it, and more where what is unrolled of a sample for
    /// a tile would not stay in cache.
    pub(crate) fn tiles(&self, samples: usize) -> Tiles {
        /// What is unrolled of a sample for a tile is to stay in cache.
        const ELEMENTS: usize = 1 << 16;
        const SHARES: usize = 4;
        let unrolling = Unrolling::new(self.windows);
        let groups = unrolling.groups;
        // The smallest tile, in columns of the gradient.
        let unit = if groups == 1 { 1 } else { self.fan_in / self.windows.input.channels };
        let units = self.fan_in / unit;
        let count = (unrolling.rows().saturating_mul(self.fan_in) / groups).div_ceil(ELEMENTS);
        let shares = worth(self.elements(samples), self.fan_in).min(SHARES);
        let count = count.max(shares).min(units);
        // A single column is a product of a matrix and a vector, which takes longer.
        let width = cut(units, units.div_ceil(count), if unit == 1 { 2 } else { 1 }) * unit;
        let rows = self.windows.output.channels;
        Tiles {
            width,
            size: rows * width,
            count: self.fan_in.div_ceil(width),
            scratch: unrolling.rows().saturating_mul(width / groups).saturating_add(rows * width),
        }
    }

    /// `∂W ← Σ δ Pᵀ` over the samples: the columns of `∂W` from `first` on, as many as `gradient`
    /// has, in the scratch of a [tile](Self::tiles).
    pub(crate) fn weight_gradient<T: Scalar>(
        &self,
        delta: &[T],
        h: &[T],
        first: usize,
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        let Windows { input, output, .. } = self.windows;
        let unrolling = Unrolling::new(self.windows);
        let (groups, rows) = (unrolling.groups, unrolling.rows());
        let columns = gradient.len() / output.channels / groups;
        let (sums, unrolled) = scratch.split_at_mut(gradient.len());
        let unrolled = &mut unrolled[..rows * columns];
        let samples = h.chunks_exact(input.len()).zip(delta.chunks_exact(output.len()));
        let mut start = Start::Zero;
        for (h, delta) in samples {
            unrolling.unroll(h, first / groups, unrolled);
            let delta = linalg::mat(delta, output.plane()).transpose();
            let seen = linalg::mat(unrolled, rows);
            for (group, sum) in sums.chunks_exact_mut(output.channels * columns).enumerate() {
                let seen = seen.subrows(unrolling.start(group), output.plane());
                linalg::product_on_one_thread(delta, seen, start, sum);
            }
            start = Start::Present;
        }
        let channels = if groups == 1 { 1 } else { columns / unrolling.columns() };
        swap_blocks(sums, gradient, groups, channels);
    }

    /// `∂b ← Σ δ` over samples and positions.
    pub(crate) fn bias_gradient<T: Scalar>(&self, delta: &[T], gradient: &mut [T]) {
        let output = self.windows.output;
        let samples = delta.len() / output.len();
        for (channel, gradient) in gradient.iter_mut().enumerate() {
            let of_sample = |sample| {
                let start = sample * output.len() + channel * output.plane();
                sum(&delta[start..start + output.plane()])
            };
            *gradient = sum_of(0..samples, &of_sample);
        }
    }

    /// Into how many parts the work on so many samples is worth sharing out.
    fn parts(&self, samples: usize) -> usize {
        small_pieces(self.elements(samples), self.fan_in)
    }

    /// Outputs of so many samples, each of which takes [`fan_in`](Self::fan_in) multiply-adds.
    fn elements(&self, samples: usize) -> usize {
        self.windows.output.len().saturating_mul(samples)
    }
}

/// Copies `outer × inner` blocks of equal length to the order `inner × outer`.
fn swap_blocks<T: Scalar>(from: &[T], to: &mut [T], outer: usize, inner: usize) {
    let length = from.len() / (outer * inner);
    for (index, block) in from.chunks_exact(length).enumerate() {
        let place = (index % inner * outer + index / inner) * length;
        to[place..place + length].copy_from_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            LinearMap,
            unroll::tests::{any_windows, integers, pixel},
        },
        *,
    };
    use crate::buffer::Columns;

    /// The definition: calls `term(output, kernel entry, pixel)`, places in the output of a sample,
    /// in the column-major weights and in the sample, for each of its terms.
    fn terms(conv: &Convolution, mut term: impl FnMut(usize, usize, usize)) {
        let Windows { input, output, kernel, .. } = conv.windows;
        for o in 0..output.channels {
            for (y, z) in (0..output.plane()).map(|p| (p / output.width, p % output.width)) {
                for c in 0..input.channels {
                    for (i, j) in (0..kernel.0 * kernel.1).map(|k| (k / kernel.1, k % kernel.1)) {
                        if let Some(x) = pixel(&conv.windows, c, (y, i), (z, j)) {
                            let column = (c * kernel.0 + i) * kernel.1 + j;
                            let place = o * output.plane() + y * output.width + z;
                            term(place, column * output.channels + o, x);
                        }
                    }
                }
            }
        }
    }

    fn columns<T: Scalar>(data: &[T], count: usize) -> Columns<T> {
        let mut columns = Columns::new(data.len() / count);
        columns.set_batch(count).unwrap();
        columns.as_mut_slice().copy_from_slice(data);
        columns
    }

    fn check<T: Scalar>(windows: Windows, samples: usize, with: bool) -> Result<(), TestCaseError> {
        let Windows { input, output, kernel, .. } = windows;
        let conv = Convolution { windows, fan_in: input.channels * kernel.0 * kernel.1 };
        let numbers = |length, seed| -> Vec<T> {
            integers(length, seed).into_iter().map(|v| T::of(v / 4.0)).collect()
        };
        let (x, delta) = (numbers(input.len() * samples, 1), numbers(output.len() * samples, 2));
        let weights = numbers(output.channels * conv.fan_in, 3);
        let bias = with.then(|| numbers(output.channels, 4));

        let mut expected = vec![T::zero(); delta.len()];
        let mut expected_back = vec![T::zero(); x.len()];
        let mut expected_gradient = vec![T::zero(); weights.len()];
        for sample in 0..samples {
            let (x_start, y_start) = (sample * input.len(), sample * output.len());
            for (place, y) in expected[y_start..][..output.len()].iter_mut().enumerate() {
                *y = bias.as_ref().map_or(T::zero(), |bias| bias[place / output.plane()]);
            }
            terms(&conv, |y, w, p| {
                expected[y_start + y] += weights[w] * x[x_start + p];
                expected_back[x_start + p] += weights[w] * delta[y_start + y];
                expected_gradient[w] += delta[y_start + y] * x[x_start + p];
            });
        }

        let nan = T::of(f64::NAN);
        let (mut y, mut z) = (vec![nan; delta.len()], vec![nan; delta.len()]);
        conv.apply(&weights, bias.as_deref(), &x, &mut y, &mut z, &|place, y, z| {
            for (index, (&y, z)) in y.iter().zip(z).enumerate() {
                *z = y + T::of((place + index) as f64);
            }
        });
        prop_assert_eq!(&y, &expected);
        prop_assert!(z.iter().zip(&y).enumerate().all(|(i, (&z, &y))| z == y + T::of(i as f64)));

        let mut back = vec![nan; x.len()];
        conv.apply_transpose(&weights, &delta, &mut back, &|place, x| {
            x.iter_mut().enumerate().for_each(|(i, x)| *x += T::of((place + i) as f64));
        });
        let back = back.iter().enumerate().map(|(i, &x)| x - T::of(i as f64));
        prop_assert_eq!(back.collect::<Vec<T>>(), expected_back);

        let tiles = conv.tiles(samples);
        let mut gradient = vec![nan; weights.len()];
        let (of_delta, of_x) = (columns(&delta, samples), columns(&x, samples));
        for (index, tile) in gradient.chunks_mut(tiles.size).enumerate() {
            let out = (tile, &mut vec![nan; tiles.scratch][..]);
            LinearMap::Conv2d(conv).gradient(&of_delta, &of_x, tiles, index, out);
        }
        prop_assert_eq!(gradient.len().div_ceil(tiles.size), tiles.count);
        prop_assert_eq!(gradient, expected_gradient);

        let mut of_bias = vec![nan; output.channels];
        conv.bias_gradient(&delta, &mut of_bias);
        for (channel, found) in of_bias.into_iter().enumerate() {
            let planes = delta.chunks_exact(output.plane()).skip(channel);
            let sum = planes.step_by(output.channels).flatten().fold(T::zero(), |sum, &d| sum + d);
            prop_assert_eq!(found, sum);
        }
        Ok(())
    }

    proptest! {
        /// Quarters of small numbers have exact sums, whatever the order.
        #[test]
        fn a_convolution_is_six_loops(
            windows in any_windows(), samples in 1..5_usize, bias in any::<bool>(),
        ) {
            check::<f32>(windows, samples, bias)?;
            check::<f64>(windows, samples, bias)?;
        }
    }

    /// Gradients that are cut in several tiles: at any column, and at whole channels of the input.
    #[test]
    fn a_large_convolution_is_six_loops() {
        for (channels, side, outputs, kernel, samples) in
            [(3, 20, 33, 5, 3), (1, 28, 32, 3, 40), (64, 10, 5, 3, 2), (22, 12, 17, 3, 2)]
        {
            let input = Shape { channels, height: side, width: side + 1 };
            let conv = Conv2d { padding: (2, 1), ..Conv2d::new(outputs, kernel) };
            let conv = conv.over(input).unwrap();
            assert!(conv.tiles(samples).count > 1, "{conv:?}");
            for bias in [false, true] {
                check::<f32>(conv.windows, samples, bias).unwrap();
                check::<f64>(conv.windows, samples, bias).unwrap();
            }
        }
    }

    #[test]
    fn blocks_change_places() {
        let from: Vec<f32> = (0..24_u8).map(f32::from).collect();
        let mut to = vec![0.0; 24];
        swap_blocks(&from, &mut to, 3, 4);
        assert_eq!(to[..8], [0.0, 1.0, 8.0, 9.0, 16.0, 17.0, 2.0, 3.0]);
        let mut back = vec![0.0; 24];
        swap_blocks(&to, &mut back, 4, 3);
        assert_eq!(back, from);
    }
}
