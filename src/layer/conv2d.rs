//! The convolution: a linear map whose weights are shared between positions.

use std::{fmt, ops::Range};

use super::{
    bias::Bias,
    field::Field,
    shape::Shape,
    slide::{LEFT_OUT, Slide, aligned, grid},
    thread_memory::{ThreadMemory, with_places},
    windows::Windows,
};
use crate::{
    error::{Error, Result},
    linalg::{self, Mat, Start},
    scalar::Scalar,
    threads::{Chunks, share_out, small_pieces},
};

/// A two-dimensional convolution (strictly a cross-correlation, as in every deep-learning library):
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
    /// Whether there is a bias for each channel; there is one by default.
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

/// A convolution over an input of known shape. Its three passes go sample by sample. The pixels that
/// the windows see are copied to a [`Field`], and several outputs, or several weights, are summed up from
/// there at a time. If every window is a single pixel, a pass is a product of matrices instead. Threads
/// share the samples, or the columns of the weight gradient.
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

    /// `y ← W ∗ x (+ b)` sample by sample. Calls `finish(place, y, z)` for each sample.
    pub(crate) fn apply<T: Scalar>(
        &self,
        weights: &[T],
        bias: Option<&[T]>,
        x: &[T],
        y: &mut [T],
        z: &mut [T],
        finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
    ) {
        let Windows { input, output, kernel, .. } = self.windows;
        if self.is_pointwise() {
            let weights = linalg::mat(weights, output.channels).transpose();
            return self.mix(weights, bias, x, (y, z), finish);
        }
        let (field, slide) = (self.input_field(), self.forward_slide::<T>());
        let (samples, size) = (x.len() / input.len(), output.len());
        let out = (Chunks { data: y, size }, Chunks { data: z, size });
        let scratch = self.forward_scratch::<T>();
        let work = |range: Range<usize>, y: &mut [T], z: &mut [T], lists: &[usize]| {
            T::with_scratch(scratch, |scratch| {
                let (seen, scratch) = scratch.split_at_mut(field.plane() * input.channels);
                let (sums, panels) = aligned(scratch).split_at_mut(slide.sums());
                let starts = slide.order().map(|[channel, i, j]| {
                    ((channel * kernel.0 + i) * kernel.1 + j) * output.channels
                });
                let panels = &mut panels[..slide.panels()];
                slide.pack(weights, starts, 1, panels);
                seen.fill(T::zero());
                let mut z = z.chunks_exact_mut(size);
                for (sample, y) in range.zip(y.chunks_exact_mut(size)) {
                    field.place(input, &x[sample * input.len()..][..input.len()], seen);
                    slide.slide(panels, seen, lists, sums, |channel, row, sums| {
                        let bias = bias.map_or(T::zero(), |bias| bias[channel]);
                        let y = &mut y[(channel * output.height + row) * output.width..];
                        y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = sum + bias);
                    });
                    finish(sample * size, y, z.next().unwrap_or_default());
                }
            });
        };
        share_out(out, 0..samples, self.parts(samples), &|range, (y, z)| {
            let places = slide.order().map(move |[channel, i, j]| field.at(channel, i, j));
            let lists = places.chain(self.positions());
            with_places(lists, |lists| work(range, y.data, z.data, lists));
        });
    }

    /// The field of an input.
    pub(super) fn input_field(&self) -> Field {
        let Windows { output, kernel, stride, padding, .. } = self.windows;
        let size = |count: usize, stride, kernel| {
            usize::saturating_mul(count - 1, stride).saturating_add(kernel)
        };
        Field {
            height: size(output.height, stride.0, kernel.0),
            width: size(output.width, stride.1, kernel.1),
            padding,
        }
    }

    /// The place of each window's first pixel in the field of the input. There is a window for each
    /// position of the output.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> + use<> {
        let Windows { output, stride, .. } = self.windows;
        let row = stride.0.saturating_mul(self.input_field().width);
        grid([1, output.height, output.width], [0, row, stride.1])
    }

    /// The sums of the forward pass: a unit for each channel of the output.
    fn forward_slide<T: Scalar>(&self) -> Slide {
        let Windows { input, output, kernel, stride, padding } = self.windows;
        Slide {
            channels: input.channels,
            taps: kernel,
            units: output.channels,
            lanes: T::lanes(output.channels),
            rows: output.height,
            columns: output.width,
            first_row: 0,
            row_step: stride.0,
            inside: (padding.0, padding.0.saturating_add(input.height)),
        }
    }

    /// How many numbers of scratch the forward pass needs.
    fn forward_scratch<T: Scalar>(&self) -> usize {
        let (field, slide) = (self.input_field(), self.forward_slide::<T>());
        let seen = field.plane().saturating_mul(self.windows.input.channels);
        let seen = seen.saturating_add(LEFT_OUT);
        seen.saturating_add(slide.sums()).saturating_add(slide.panels())
    }

    /// How much memory of its own a thread needs for the forward pass, the way back and the gradient.
    pub(crate) fn thread_memory<T: Scalar>(&self) -> ThreadMemory {
        let tiles = self.in_tiles(1); // A single tile is the largest.
        let scratch = tiles.size.saturating_add(tiles.scratch);
        if self.is_pointwise() {
            return ThreadMemory { scratch, ..ThreadMemory::default() };
        }
        let positions = self.windows.output.plane();
        ThreadMemory {
            scratch: scratch.max(self.forward_scratch::<T>()).max(self.backward_scratch::<T>()),
            // The lists of the forward pass and of the gradient have the same length.
            places: self.fan_in.saturating_add(positions).max(self.backward_places()),
            ..ThreadMemory::default()
        }
    }

    /// The same convolution with `by` times as many kernels.
    pub(crate) fn widened(mut self, by: usize) -> Self {
        self.windows.output.channels *= by;
        self
    }

    /// Whether every window is a single pixel, one for each pixel of the input. Then a sample is a matrix
    /// of pixels and channels, and the convolution multiplies it by the weights.
    pub(super) fn is_pointwise(&self) -> bool {
        let Windows { kernel, stride, padding, .. } = self.windows;
        (kernel, stride, padding) == ((1, 1), (1, 1), (0, 0))
    }

    /// `y ← x B (+ b)` for each sample. The rows of `x` are the positions of a sample, and its columns the
    /// channels. Calls `finish(place, y, z)` for each sample; `z` may be empty.
    pub(crate) fn mix<T: Scalar>(
        &self,
        b: Mat<T>,
        bias: Option<&[T]>,
        x: &[T],
        (y, z): (&mut [T], &mut [T]),
        finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
    ) {
        let (plane, (from, to)) = (self.windows.output.plane(), b.shape());
        let (samples, size) = (x.len() / (plane * from), plane * to);
        let out = (Chunks { data: y, size }, Chunks { data: z, size });
        share_out(out, 0..samples, self.parts(samples), &|range, (y, z)| {
            let mut z = z.data.chunks_exact_mut(size);
            for (sample, y) in range.zip(y.data.chunks_exact_mut(size)) {
                let x = linalg::mat(&x[sample * plane * from..][..plane * from], plane);
                let start = match bias {
                    None => Start::Zero,
                    Some(bias) => {
                        y.chunks_exact_mut(plane).zip(bias).for_each(|(y, &bias)| y.fill(bias));
                        Start::Present
                    }
                };
                linalg::product_on_one_thread(x, b, start, y);
                finish(sample * size, y, z.next().unwrap_or_default());
            }
        });
    }

    /// Into how many parts the work on this many samples is worth dividing among threads.
    pub(super) fn parts(&self, samples: usize) -> usize {
        small_pieces(self.elements(samples), self.fan_in)
    }

    /// The number of outputs of this many samples. Each takes [`fan_in`](Self::fan_in) multiply-adds.
    pub(super) fn elements(&self, samples: usize) -> usize {
        self.windows.output.len().saturating_mul(samples)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            LinearMap,
            windows::tests::{any_windows, integers, pixel},
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

        let (of_delta, of_x) = (columns(&delta, samples), columns(&x, samples));
        for tiles in [1, 2, 3, 7].map(|count| conv.in_tiles(count)) {
            let mut gradient = vec![nan; weights.len()];
            for (index, tile) in gradient.chunks_mut(tiles.size).enumerate() {
                let out = (tile, &mut vec![nan; tiles.scratch][..]);
                LinearMap::Conv2d(conv).gradient(&of_delta, &of_x, tiles, index, out);
            }
            prop_assert_eq!(gradient.len().div_ceil(tiles.size), tiles.count);
            prop_assert_eq!(&gradient, &expected_gradient);
        }

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

    /// Several vectors of channels, and more terms than are added up at once.
    #[test]
    fn a_large_convolution_is_six_loops() {
        for (channels, side, outputs, kernel, samples) in [
            (3, 20, 33, 5, 3),
            (1, 28, 32, 3, 40),
            (64, 10, 5, 3, 2),
            (22, 12, 17, 3, 2),
            (9, 7, 5, 1, 600),
        ] {
            let input = Shape { channels, height: side, width: side + 1 };
            let padding = if kernel == 1 { (0, 0) } else { (2, 1) };
            let conv = Conv2d { padding, ..Conv2d::new(outputs, kernel) };
            let conv = conv.over(input).unwrap();
            for bias in [false, true] {
                check::<f32>(conv.windows, samples, bias).unwrap();
                check::<f64>(conv.windows, samples, bias).unwrap();
            }
        }
    }
}
