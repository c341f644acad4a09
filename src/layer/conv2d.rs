//! The convolution: a linear map whose weights are shared between positions.

use std::fmt;

use nalgebra::{DMatrix, DVector};

use super::{Bias, Shape, Windows};
use crate::{
    error::{Error, Result},
    linalg::{self, Start},
    scalar::Scalar,
    threads::{Chunks, pieces, share_out},
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

/// A convolution over an input of known shape.
///
/// A sample is unrolled into a matrix `P` of positions × `fan_in`: column `(c, i, j)` is the plane
/// of channel `c` as pixel `(i, j)` of the kernel sees it. The convolution is then a product for
/// each sample, and samples (or, for the weight gradient, columns of `P`) are shared out among
/// threads.
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
        weights: &DMatrix<T>,
        bias: Option<&DVector<T>>,
        x: &[T],
        y: &mut [T],
        z: &mut [T],
        finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
    ) {
        let Windows { input, output, .. } = self.windows;
        let samples = x.len() / input.len();
        let size = output.len();
        let out = (Chunks { data: y, size }, Chunks { data: z, size });
        share_out(out, 0..samples, self.parts(samples), &|range, (y, z)| {
            T::with_scratch(output.plane() * self.fan_in, |unrolled| {
                let mut z = z.data.chunks_exact_mut(size);
                for (sample, y) in range.zip(y.data.chunks_exact_mut(size)) {
                    self.unroll(&x[sample * input.len()..][..input.len()], 0, unrolled);
                    let mut start = Start::Zero;
                    if let Some(bias) = bias {
                        for (plane, &b) in y.chunks_exact_mut(output.plane()).zip(bias.iter()) {
                            plane.fill(b);
                        }
                        start = Start::Present;
                    }
                    let unrolled = linalg::mat(unrolled, output.plane());
                    let weights = linalg::of(weights).transpose();
                    linalg::product_on_one_thread(unrolled, weights, start, y);
                    finish(sample * size, y, z.next().unwrap_or_default());
                }
            });
        });
    }

    /// `x ← Wᵀ ∗ y`, the transposed convolution, sample by sample, then `finish(place, x)` for
    /// each.
    pub(crate) fn apply_transpose<T: Scalar>(
        &self,
        weights: &DMatrix<T>,
        y: &[T],
        x: &mut [T],
        finish: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        let Windows { input, output, .. } = self.windows;
        let samples = y.len() / output.len();
        let size = input.len();
        let out = Chunks { data: x, size };
        share_out(out, 0..samples, self.parts(samples), &|range, x| {
            T::with_scratch(output.plane() * self.fan_in, |unrolled| {
                for (sample, x) in range.zip(x.data.chunks_exact_mut(size)) {
                    let y = &y[sample * output.len()..][..output.len()];
                    let y = linalg::mat(y, output.plane());
                    linalg::product_on_one_thread(y, linalg::of(weights), Start::Zero, unrolled);
                    self.fold(unrolled, x);
                    finish(sample * size, x);
                }
            });
        });
    }

    /// `∂W ← Σ δ Pᵀ` over the samples: the columns of `∂W` from `first` on, as many as `gradient`
    /// has, with room for as many columns of `P` in `unrolled`.
    pub(crate) fn weight_gradient<T: Scalar>(
        &self,
        delta: &[T],
        h: &[T],
        first: usize,
        gradient: &mut [T],
        unrolled: &mut [T],
    ) {
        let Windows { input, output, .. } = self.windows;
        let unrolled = &mut unrolled[..output.plane() * (gradient.len() / output.channels)];
        let samples = h.chunks_exact(input.len()).zip(delta.chunks_exact(output.len()));
        let mut start = Start::Zero;
        for (h, delta) in samples {
            self.unroll(h, first, unrolled);
            let delta = linalg::mat(delta, output.plane()).transpose();
            let unrolled = linalg::mat(unrolled, output.plane());
            linalg::product_on_one_thread(delta, unrolled, start, gradient);
            start = Start::Present;
        }
    }

    /// `∂b ← Σ δ` over samples and positions.
    pub(crate) fn bias_gradient<T: Scalar>(&self, delta: &[T], gradient: &mut [T]) {
        let output = self.windows.output;
        gradient.fill(T::zero());
        for sample in delta.chunks_exact(output.len()) {
            for (sum, plane) in gradient.iter_mut().zip(sample.chunks_exact(output.plane())) {
                *sum += linalg::sum(plane);
            }
        }
    }

    /// Into how many parts the work on so many samples is worth sharing out.
    fn parts(&self, samples: usize) -> usize {
        pieces(self.windows.output.len().saturating_mul(samples), self.fan_in)
    }

    /// Columns `first…` of `P` of the sample `x`, as many as `unrolled` holds.
    fn unroll<T: Scalar>(&self, x: &[T], first: usize, unrolled: &mut [T]) {
        let Windows { input, output, .. } = self.windows;
        for (index, column) in unrolled.chunks_exact_mut(output.plane()).enumerate() {
            let (channel, i, j) = self.tap(first + index);
            let plane = &x[channel * input.plane()..][..input.plane()];
            if self.windows.stride == (1, 1) && input.width == output.width {
                self.shift_plane(plane, i, j, column);
                continue;
            }
            for (oy, row) in column.chunks_exact_mut(output.width).enumerate() {
                let (inside, iy) = self.row(oy, i);
                if inside {
                    self.copy_row(&plane[iy * input.width..][..input.width], j, row);
                } else {
                    row.fill(T::zero());
                }
            }
        }
    }

    /// A column of `P` where the output is as wide as the input and every pixel is visited: the
    /// plane, moved as a whole, but for what slid in from the neighbouring row.
    fn shift_plane<T: Scalar>(&self, plane: &[T], i: usize, j: usize, column: &mut [T]) {
        let Windows { input, output, padding, .. } = self.windows;
        let width = input.width;
        // The rows of the output that see the image through row `i` of the kernel.
        let top = padding.0.saturating_sub(i).min(output.height);
        let bottom = (input.height + padding.0).saturating_sub(i).min(output.height).max(top);
        column[..top * width].fill(T::zero());
        column[bottom * width..].fill(T::zero());
        if top == bottom {
            return;
        }
        let from = &plane[(top + i - padding.0) * width..][..(bottom - top) * width];
        let to = &mut column[top * width..bottom * width];
        let (left, right) = (padding.1.saturating_sub(j), j.saturating_sub(padding.1));
        let (left, right) = (left.min(width), right.min(width));
        to[left..].iter_mut().zip(&from[right..]).for_each(|(to, &from)| *to = from);
        for row in to.chunks_exact_mut(width) {
            row[..left].fill(T::zero());
            row[width - right..].fill(T::zero());
        }
    }

    /// `x ←` the sum of what the columns of `P` contribute to each pixel: the transpose of
    /// [`unroll`](Self::unroll).
    fn fold<T: Scalar>(&self, unrolled: &[T], x: &mut [T]) {
        let Windows { input, output, stride, padding, .. } = self.windows;
        x.fill(T::zero());
        for (index, column) in unrolled.chunks_exact(output.plane()).enumerate() {
            let (channel, i, j) = self.tap(index);
            let plane = &mut x[channel * input.plane()..][..input.plane()];
            for (oy, row) in column.chunks_exact(output.width).enumerate() {
                let (true, iy) = self.row(oy, i) else { continue };
                let into = &mut plane[iy * input.width..][..input.width];
                let (start, end) = self.span(j);
                if stride.1 == 1 {
                    let from = &row[start..end];
                    let offset = start + j - padding.1;
                    for (x, &value) in into[offset..].iter_mut().zip(from) {
                        *x += value;
                    }
                } else {
                    for ox in start..end {
                        into[ox * stride.1 + j - padding.1] += row[ox];
                    }
                }
            }
        }
    }

    /// Channel, row and column of the kernel that column `index` of `P` belongs to.
    fn tap(&self, index: usize) -> (usize, usize, usize) {
        let (height, width) = self.windows.kernel;
        (index / (height * width), index / width % height, index % width)
    }

    /// Whether row `oy` of the output sees a row of the input through row `i` of the kernel, and
    /// which.
    fn row(&self, oy: usize, i: usize) -> (bool, usize) {
        let Windows { input, stride, padding, .. } = self.windows;
        let iy = (oy * stride.0 + i).wrapping_sub(padding.0);
        (iy < input.height, iy)
    }

    /// The columns of the output that see the input through column `j` of the kernel.
    fn span(&self, j: usize) -> (usize, usize) {
        let Windows { input, output, stride, padding, .. } = self.windows;
        let start = padding.1.saturating_sub(j).div_ceil(stride.1).min(output.width);
        let end = match (input.width + padding.1).checked_sub(j + 1) {
            Some(last) => (last / stride.1 + 1).min(output.width),
            None => 0,
        };
        (start, end.max(start))
    }

    /// One row of the input as column `j` of the kernel sees it.
    fn copy_row<T: Scalar>(&self, from: &[T], j: usize, to: &mut [T]) {
        let Windows { stride, padding, .. } = self.windows;
        let (start, end) = self.span(j);
        to[..start].fill(T::zero());
        to[end..].fill(T::zero());
        if start == end {
            return;
        }
        let offset = start * stride.1 + j - padding.1;
        if stride.1 == 1 {
            to[start..end].copy_from_slice(&from[offset..offset + end - start]);
        } else {
            for (to, &value) in
                to[start..end].iter_mut().zip(from[offset..].iter().step_by(stride.1))
            {
                *to = value;
            }
        }
    }
}
