//! The gradient of the weights and biases of a convolution.

use std::ops::Range;

use super::{conv2d::Convolution, slide::TERMS, tiles::Tiles, windows::Windows};
use crate::{
    correlate::{MOST_LANES, Runs},
    scalar::Scalar,
    threads::pieces,
    vector::{sum, sum_of},
};

impl Convolution {
    /// How the weight gradient of this many samples is cut: into about as many tiles as threads work on
    /// it.
    pub(crate) fn tiles(&self, samples: usize) -> Tiles {
        self.in_tiles(pieces(self.elements(samples), self.fan_in))
    }

    /// The gradient in `count` tiles, or fewer: the row of a kernel over one channel is never cut. Each
    /// number is a sum of its own, so the cuts do not change its bits.
    pub(crate) fn in_tiles(&self, count: usize) -> Tiles {
        let Windows { input, output, kernel, .. } = self.windows;
        let lines = input.channels * kernel.0;
        let shares = count.min(lines);
        let width = lines.div_ceil(shares) * kernel.1;
        // A tile of several lines may begin and end within a channel.
        let channels = (width / kernel.1).div_ceil(kernel.0).saturating_add(1).min(input.channels);
        let seen = self.input_field().plane().saturating_mul(channels);
        let panel = self.rows_at_once().saturating_mul(output.width).saturating_mul(MOST_LANES);
        let sums = output.channels.next_multiple_of(MOST_LANES).saturating_mul(width);
        Tiles {
            width,
            size: output.channels * width,
            count: self.fan_in.div_ceil(width),
            scratch: seen.saturating_add(panel).saturating_add(sums),
        }
    }

    /// How many rows of a delta are added up separately, before their sum is added to that of the
    /// others.
    fn rows_at_once(&self) -> usize {
        let output = self.windows.output;
        (TERMS / output.width).clamp(1, output.height)
    }

    /// `∂W ← Σ δ Pᵀ` over the samples, where `P` are the pixels in the windows. Computes the columns of
    /// `∂W` from `first` on that `gradient` has room for, in the scratch of a [tile](Self::tiles).
    pub(crate) fn weight_gradient<T: Scalar>(
        &self,
        delta: &[T],
        h: &[T],
        first: usize,
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        let Windows { input, output, kernel, stride, .. } = self.windows;
        let field = self.input_field();
        let lanes = T::lanes(output.channels, kernel.1.div_ceil(stride.1));
        let columns = gradient.len() / output.channels;
        let lines = first / kernel.1..(first + columns) / kernel.1;
        let channels = lines.start / kernel.0..lines.end.div_ceil(kernel.0);
        let (seen, scratch) = scratch.split_at_mut(channels.len() * field.plane());
        let (sums, panel) = scratch.split_at_mut(output.channels.next_multiple_of(lanes) * columns);
        seen.fill(T::zero());
        sums.fill(T::zero());
        for (h, delta) in h.chunks_exact(input.len()).zip(delta.chunks_exact(output.len())) {
            let h = &h[channels.start * input.plane()..channels.end * input.plane()];
            field.place(input, h, seen);
            for (block, sums) in sums.chunks_exact_mut(columns * lanes).enumerate() {
                let delta = &delta[block * lanes * output.plane()..];
                self.add_sample(delta, seen, lines.clone(), (&mut *panel, lanes), sums);
            }
        }
        self.store(sums, lanes, gradient);
    }

    /// Adds one sample's part of the gradient to the sums of `lanes` units.
    fn add_sample<T: Scalar>(
        &self,
        delta: &[T],
        seen: &[T],
        lines: Range<usize>,
        (panel, lanes): (&mut [T], usize),
        sums: &mut [T],
    ) {
        let output = self.windows.output;
        for top in (0..output.height).step_by(self.rows_at_once()) {
            let rows = self.rows_at_once().min(output.height - top);
            let panel = &mut panel[..rows * output.width * lanes];
            pack_delta(&delta[top * output.width..], output.plane(), lanes, panel);
            self.add_rows(panel, &seen[top * self.row_step()..], rows, lines.clone(), sums);
        }
    }

    /// Adds the part of some rows of the delta, packed in a panel, to the sums. A line is one row of
    /// the kernel over one channel of the input.
    fn add_rows<T: Scalar>(
        &self,
        panel: &[T],
        seen: &[T],
        rows: usize,
        lines: Range<usize>,
        mut sums: &mut [T],
    ) {
        let Windows { output, kernel, stride, .. } = self.windows;
        let field = self.input_field();
        let lanes = panel.len() / (rows * output.width);
        let runs = Runs {
            counts: [1, rows],
            steps: [0, self.row_step()],
            taps: output.width,
            phases: 1,
            phase: 0,
        };
        let first = lines.start / kernel.0;
        for line in lines {
            let row = (line / kernel.0 - first) * field.plane() + line % kernel.0 * field.row();
            for phase in 0..field.phases {
                let taps = (kernel.1 - phase).div_ceil(stride.1);
                let (here, rest) = sums.split_at_mut(taps * lanes);
                T::correlate(panel, &seen[row + phase * field.width..], runs, here, taps);
                sums = rest;
            }
        }
    }

    /// Copies the sums to the gradient, in the order of the weights.
    fn store<T: Scalar>(&self, sums: &[T], lanes: usize, gradient: &mut [T]) {
        let Windows { output, kernel, .. } = self.windows;
        let order = self.forward_slide::<T>().runs;
        let columns = gradient.len() / output.channels;
        for (block, sums) in sums.chunks_exact(columns * lanes).enumerate() {
            let gradient = gradient.chunks_exact_mut(output.channels * kernel.1);
            for (gradient, sums) in gradient.zip(sums.chunks_exact(kernel.1 * lanes)) {
                for (tap, sums) in order.order().zip(sums.chunks_exact(lanes)) {
                    let column = &mut gradient[tap * output.channels..][..output.channels];
                    let column = &mut column[block * lanes..];
                    column.iter_mut().zip(sums).for_each(|(to, &sum)| *to = sum);
                }
            }
        }
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
}

/// Copies deltas to a panel. In `delta` each channel is in one piece; in the panel the channels of a
/// position stand side by side. Lanes without a channel are zero.
fn pack_delta<T: Scalar>(delta: &[T], plane: usize, lanes: usize, panel: &mut [T]) {
    /// Positions handled at a time: their part of the panel stays in the first-level cache.
    const POSITIONS: usize = 16;
    let channels = delta.len().div_ceil(plane).min(lanes);
    if channels < lanes {
        panel.fill(T::zero());
    }
    for (part, panel) in panel.chunks_mut(POSITIONS * lanes).enumerate() {
        for lane in 0..channels {
            let from = &delta[lane * plane + part * POSITIONS..];
            let to = panel[lane..].iter_mut().step_by(lanes);
            to.zip(from).for_each(|(to, &from)| *to = from);
        }
    }
}
