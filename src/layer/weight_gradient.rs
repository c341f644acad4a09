//! The gradient of the weights and biases of a convolution.

use std::{iter::StepBy, ops::Range};

use super::{
    conv2d::Convolution,
    slide::{LEFT_OUT, TERMS, aligned},
    thread_memory::with_places,
    tiles::Tiles,
    windows::Windows,
};
use crate::{
    correlate::MOST_LANES,
    linalg::{Start, cut, mat, product_on_one_thread, smallest_part},
    scalar::Scalar,
    threads::{Chunks, pieces, share_out},
    vector::{sum, sum_of},
};

/// So many sums over [`TERMS`] terms, or over a sample, are added up before the result goes to the
/// gradient. Rounding errors stay small in this way, however many samples there are.
const PARTS: usize = 512;

/// The same row of the kernels over several channels. A row over one channel is called a line here.
struct Bundle {
    lines: StepBy<Range<usize>>,
    /// The rows of the output for which this row of the kernels lies inside the image. The terms of other rows would be 0,
    /// and are left out.
    rows: Range<usize>,
}

impl Convolution {
    /// How the weight gradient of this many samples is cut: into about as many tiles as threads work on
    /// it.
    pub(crate) fn tiles(&self, samples: usize) -> Tiles {
        self.in_tiles(pieces(self.elements(samples), self.fan_in))
    }

    /// The gradient in `count` tiles, or fewer: the row of a kernel over one channel is never cut. Each
    /// number is a sum of its own, so the cuts do not change its bits. Where the sums are those of a
    /// product, no tile is so small that the product would add up in another order.
    pub(crate) fn in_tiles(&self, count: usize) -> Tiles {
        let Windows { input, output, kernel, .. } = self.windows;
        let lines = input.channels * kernel.0;
        let shares = count.min(lines);
        let least =
            if self.is_pointwise() { smallest_part(output.channels, output.plane()) } else { 1 };
        let width = cut(lines, lines.div_ceil(shares), least) * kernel.1;
        let (size, count) = (output.channels * width, self.fan_in.div_ceil(width));
        if self.is_pointwise() {
            return Tiles { width, size, count, scratch: size };
        }
        // A tile of several lines may begin and end within a channel.
        let channels = (width / kernel.1).div_ceil(kernel.0).saturating_add(1).min(input.channels);
        let seen = self.input_field().plane().saturating_mul(channels).saturating_add(LEFT_OUT);
        let panel = TERMS * MOST_LANES;
        let sums = output.channels.checked_next_multiple_of(MOST_LANES).unwrap_or(usize::MAX);
        let sums = sums.saturating_mul(width);
        Tiles { width, size, count, scratch: seen.saturating_add(panel).saturating_add(sums) }
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
        if self.is_pointwise() {
            return self.pointwise_gradient(delta, h, first, gradient, scratch);
        }
        let Windows { input, output, kernel, .. } = self.windows;
        let field = self.input_field();
        let lanes = T::lanes(output.channels);
        let columns = gradient.len() / output.channels;
        let lines = first / kernel.1..(first + columns) / kernel.1;
        let channels = lines.start / kernel.0..lines.end.div_ceil(kernel.0);
        let (seen, scratch) = scratch.split_at_mut(channels.len() * field.plane());
        let length = output.channels.next_multiple_of(lanes) * columns;
        let (sums, panel) = aligned(scratch).split_at_mut(length);
        seen.fill(T::zero());
        gradient.fill(T::zero());
        let bundles = self.bundles(lines.clone());
        let all = bundles.clone().flat_map(|bundle| bundle.lines);
        let mut add = |block: usize, sums: &[T]| {
            for (line, sums) in all.clone().zip(sums.chunks_exact(kernel.1 * lanes)) {
                let start = (line - lines.start) * kernel.1 * output.channels;
                let gradient = gradient[start..].chunks_exact_mut(output.channels);
                for (gradient, sums) in gradient.zip(sums.chunks_exact(lanes)) {
                    let gradient = &mut gradient[block * lanes..];
                    gradient.iter_mut().zip(sums).for_each(|(to, &sum)| *to += sum);
                }
            }
        };
        let entries = all.clone().flat_map(|line| {
            let (channel, row) = (line / kernel.0 - channels.start, line % kernel.0);
            (0..kernel.1).map(move |column| field.at(channel, row, column))
        });
        with_places(self.positions().chain(entries), |lists| {
            let parts = output.plane().div_ceil(TERMS);
            let samples = h.chunks_exact(input.len()).zip(delta.chunks_exact(output.len()));
            for (sample, (h, delta)) in samples.enumerate() {
                let h = &h[channels.start * input.plane()..channels.end * input.plane()];
                field.place(input, h, seen);
                for (block, sums) in sums.chunks_exact_mut(columns * lanes).enumerate() {
                    let delta = &delta[block * lanes * output.plane()..];
                    for part in 0..parts {
                        let before = sample * parts + part;
                        let begins = before % PARTS == 0;
                        if begins && before > 0 {
                            add(block, sums);
                        }
                        let part = part * TERMS..output.plane().min((part + 1) * TERMS);
                        let panel = &mut panel[..part.len() * lanes];
                        pack_delta(&delta[part.start..], output.plane(), lanes, panel);
                        let bundles = bundles.clone();
                        self.sum_up(bundles, (panel, part), (seen, lists), sums, !begins);
                    }
                }
            }
        });
        let blocks = sums.chunks_exact(columns * lanes).enumerate();
        blocks.for_each(|(block, sums)| add(block, sums));
    }

    /// Sums up the terms of a part of the positions, bundle by bundle. With `adds` the sums are added to
    /// those that are there, otherwise they replace them. The panel has the deltas of these positions. The lists are the places of all positions and
    /// those of the entries.
    fn sum_up<T: Scalar>(
        &self,
        bundles: impl Iterator<Item = Bundle>,
        (panel, part): (&[T], Range<usize>),
        (seen, lists): (&[T], &[usize]),
        mut sums: &mut [T],
        adds: bool,
    ) {
        let Windows { output, kernel, .. } = self.windows;
        let (terms, mut places) = lists.split_at(output.plane());
        let lanes = panel.len() / part.len();
        for Bundle { lines, rows } in bundles {
            let count = lines.len() * kernel.1;
            let (entries, other_places) = places.split_at(count);
            let (here, others) = sums.split_at_mut(count * lanes);
            let from = part.start.max(rows.start * output.width);
            let to = part.end.min(rows.end * output.width);
            if from < to {
                let panel = &panel[(from - part.start) * lanes..(to - part.start) * lanes];
                T::correlate(panel, seen, (&terms[from..to], entries), here, adds);
            } else if !adds {
                here.fill(T::zero());
            }
            (places, sums) = (other_places, others);
        }
    }

    /// These lines in bundles.
    fn bundles(&self, lines: Range<usize>) -> impl Iterator<Item = Bundle> + Clone + use<> {
        let Windows { input, output, kernel, stride, padding } = self.windows;
        let bundle = move |row: usize| {
            let first = lines.start + (row + kernel.0 - lines.start % kernel.0) % kernel.0;
            let [from, to] = [padding.0, padding.0.saturating_add(input.height)]
                .map(|end| end.saturating_sub(row).div_ceil(stride.0).min(output.height));
            Bundle { lines: (first..lines.end).step_by(kernel.0), rows: from..to }
        };
        (0..kernel.0).map(bundle).filter(|bundle| bundle.lines.len() > 0)
    }

    /// The same where every window is a pixel: `Σ δᵀ x` over the samples, with `δ` and `x` as matrices of
    /// positions and channels.
    fn pointwise_gradient<T: Scalar>(
        &self,
        delta: &[T],
        h: &[T],
        first: usize,
        gradient: &mut [T],
        scratch: &mut [T],
    ) {
        let Windows { input, output, .. } = self.windows;
        let plane = input.plane();
        let seen = first * plane..(first + gradient.len() / output.channels) * plane;
        let sums = &mut scratch[..gradient.len()];
        gradient.fill(T::zero());
        let mut add = |sums: &[T]| gradient.iter_mut().zip(sums).for_each(|(to, &sum)| *to += sum);
        let samples = h.chunks_exact(input.len()).zip(delta.chunks_exact(output.len()));
        for (sample, (h, delta)) in samples.enumerate() {
            let begins = sample % PARTS == 0;
            if begins && sample > 0 {
                add(sums);
            }
            let start = if begins { Start::Zero } else { Start::Present };
            let (delta, h) = (mat(delta, plane).transpose(), mat(&h[seen.clone()], plane));
            product_on_one_thread(delta, h, start, sums);
        }
        add(sums);
    }

    /// `∂b ← Σ δ` over samples and positions.
    pub(crate) fn bias_gradient<T: Scalar>(&self, delta: &[T], gradient: &mut [T]) {
        let output = self.windows.output;
        let samples = delta.len() / output.len();
        let out = Chunks { data: gradient, size: 1 };
        share_out(out, 0..output.channels, pieces(delta.len(), 1), &|channels, gradient| {
            for (channel, gradient) in channels.zip(gradient.data) {
                let of_sample = |sample| {
                    let start = sample * output.len() + channel * output.plane();
                    sum(&delta[start..start + output.plane()])
                };
                *gradient = sum_of(0..samples, &of_sample);
            }
        });
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
        let from = |lane: usize| &delta[lane * plane + part * POSITIONS..];
        let fours = channels / 4 * 4;
        for lane in (0..fours).step_by(4) {
            // Written together, four take hardly longer than one.
            let [a, b, c, d] = [0, 1, 2, 3].map(|next| from(lane + next).iter());
            let from = a.zip(b).zip(c.zip(d));
            for (to, ((&a, &b), (&c, &d))) in panel[lane..].chunks_mut(lanes).zip(from) {
                to[..4].copy_from_slice(&[a, b, c, d]);
            }
        }
        for lane in fours..channels {
            let to = panel[lane..].iter_mut().step_by(lanes);
            to.zip(from(lane)).for_each(|(to, &from)| *to = from);
        }
    }
}
