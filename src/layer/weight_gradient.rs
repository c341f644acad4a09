//! The gradient of the weights and biases of a convolution.

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
        let area = kernel.0 * kernel.1;
        let channels = first / area..(first + columns).div_ceil(area);
        let (seen, scratch) = scratch.split_at_mut(channels.len() * field.plane());
        let length = output.channels.next_multiple_of(lanes) * columns;
        let (sums, panel) = aligned(scratch).split_at_mut(length);
        seen.fill(T::zero());
        gradient.fill(T::zero());
        let mut add = |block: usize, sums: &[T]| {
            let gradient = gradient.chunks_exact_mut(output.channels);
            for (gradient, sums) in gradient.zip(sums.chunks_exact(lanes)) {
                let gradient = &mut gradient[block * lanes..];
                gradient.iter_mut().zip(sums).for_each(|(to, &sum)| *to += sum);
            }
        };
        let entries = self.entries(channels.len()).skip(first % area).take(columns);
        with_places(self.positions().chain(entries), |lists| {
            let (terms, places) = lists.split_at(output.plane());
            let parts = terms.len().div_ceil(TERMS);
            let samples = h.chunks_exact(input.len()).zip(delta.chunks_exact(output.len()));
            for (sample, (h, delta)) in samples.enumerate() {
                let h = &h[channels.start * input.plane()..channels.end * input.plane()];
                field.place(input, h, seen);
                for (block, sums) in sums.chunks_exact_mut(columns * lanes).enumerate() {
                    let delta = &delta[block * lanes * output.plane()..];
                    for (part, terms) in terms.chunks(TERMS).enumerate() {
                        let before = sample * parts + part;
                        let begins = before % PARTS == 0;
                        if begins && before > 0 {
                            add(block, sums);
                        }
                        let panel = &mut panel[..terms.len() * lanes];
                        pack_delta(&delta[part * TERMS..], output.plane(), lanes, panel);
                        T::correlate(panel, seen, (terms, places), sums, !begins);
                    }
                }
            }
        });
        let blocks = sums.chunks_exact(columns * lanes).enumerate();
        blocks.for_each(|(block, sums)| add(block, sums));
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
