//! The way back through a convolution.

use std::ops::Range;

use super::{
    conv2d::Convolution,
    field::Field,
    slide::{LEFT_OUT, Slide, aligned, grid},
    thread_memory::with_places,
    windows::Windows,
};
use crate::{
    linalg,
    scalar::Scalar,
    threads::{Chunks, share_out},
};

impl Convolution {
    /// `x ← Wᵀ ∗ y`, the transposed convolution, sample by sample. Calls `finish(place, x)` for each
    /// sample.
    pub(crate) fn apply_transpose<T: Scalar>(
        &self,
        weights: &[T],
        y: &[T],
        x: &mut [T],
        finish: &(impl Fn(usize, &mut [T]) + Sync),
    ) {
        let Windows { input, output, .. } = self.windows;
        if self.is_pointwise() {
            let weights = linalg::mat(weights, output.channels);
            let finish = |place: usize, x: &mut [T], _: &mut [T]| finish(place, x);
            return self.mix(weights, None, y, (x, &mut []), &finish);
        }
        let field = self.output_field();
        let (samples, size) = (y.len() / output.len(), input.len());
        let out = Chunks { data: x, size };
        let work = |range: Range<usize>, x: &mut [T], lists: &[usize]| {
            T::with_scratch(self.backward_scratch::<T>(), |scratch| {
                let (seen, scratch) = scratch.split_at_mut(field.plane() * output.channels);
                let (sums, panels) = aligned(scratch).split_at_mut(self.backward_sums::<T>());
                self.pack_ways(weights, panels);
                seen.fill(T::zero());
                for (sample, x) in range.zip(x.chunks_exact_mut(size)) {
                    field.place(output, &y[sample * output.len()..][..output.len()], seen);
                    self.slide_ways(panels, seen, lists, sums, x);
                    finish(sample * size, x);
                }
            });
        };
        share_out(out, 0..samples, self.parts(samples), &|range, x| {
            let lists = self.ways().flat_map(|way| self.places_of::<T>(way));
            with_places(lists, |lists| work(range, x.data, lists));
        });
    }

    /// Copies into panels the weights through which each group of pixels is seen.
    fn pack_ways<T: Scalar>(&self, weights: &[T], mut panels: &mut [T]) {
        let Windows { output, kernel, .. } = self.windows;
        for (down, across) in self.ways() {
            let slide = self.backward_slide::<T>((down, across));
            let (here, rest) = panels.split_at_mut(slide.panels());
            let starts = slide
                .order()
                .map(|[o, i, j]| (down.tap(i) * kernel.1 + across.tap(j)) * output.channels + o);
            slide.pack(weights, starts, kernel.0 * kernel.1 * output.channels, here);
            panels = rest;
        }
    }

    /// The sums of one sample, group by group. Pixels that no window covers get 0.
    fn slide_ways<T: Scalar>(
        &self,
        mut panels: &[T],
        seen: &[T],
        mut lists: &[usize],
        sums: &mut [T],
        x: &mut [T],
    ) {
        let Windows { input, stride, .. } = self.windows;
        if self.ways().map(|(down, across)| down.count * across.count).sum::<usize>()
            < input.plane()
        {
            x.fill(T::zero());
        }
        for way in self.ways() {
            let slide = self.backward_slide::<T>(way);
            let (panels_here, other_panels) = panels.split_at(slide.panels());
            let (lists_here, other_lists) = lists.split_at(slide.places());
            let sums = &mut sums[..slide.sums()];
            slide.slide(panels_here, seen, lists_here, sums, |channel, row, sums| {
                let row = channel * input.height + way.0.to + row * stride.0;
                let x = x[row * input.width + way.1.to..].iter_mut();
                x.step_by(stride.1).zip(sums).for_each(|(x, &sum)| *x = sum);
            });
            (panels, lists) = (other_panels, other_lists);
        }
    }

    /// The lists of a group's [`Slide`].
    fn places_of<T: Scalar>(
        &self,
        (down, across): (Way, Way),
    ) -> impl Iterator<Item = usize> + use<T> {
        let field = self.output_field();
        let start = field.at(0, down.from, across.from);
        let order = self.backward_slide::<T>((down, across)).order();
        let terms = order.map(move |[channel, i, j]| field.at(channel, i, j));
        let places = grid([1, down.count, across.count], [0, field.width, 1]);
        terms.chain(places.map(move |place| start + place))
    }

    /// The field of an output: the numbers that pixels of the input read from on the way back.
    fn output_field(&self) -> Field {
        let Windows { output, kernel, stride, .. } = self.windows;
        let padding = ((kernel.0 - 1) / stride.0, (kernel.1 - 1) / stride.1);
        Field {
            height: output.height.saturating_add(padding.0.saturating_mul(2)),
            width: output.width.saturating_add(padding.1.saturating_mul(2)),
            padding,
        }
    }

    /// The pixels of the input in groups. All pixels of a group are seen through the same taps
    /// (entries) of the kernel. With stride 1 there is one group.
    fn ways(&self) -> impl Iterator<Item = (Way, Way)> {
        let Windows { input, output, kernel, stride, padding } = self.windows;
        // A phase is the remainder of a place, padding included, by the stride. These are the phases of
        // pixels that are also phases of taps. They are computed, not searched for, because a stride may
        // be far larger than the kernel and the image.
        let phases = |size: usize, kernel: usize, stride: usize, padding: usize| {
            let (first, most) = (padding % stride, kernel.min(stride));
            let end = first + size.min(stride);
            (0..end.saturating_sub(stride).min(most)).chain(first.min(most)..end.min(most))
        };
        let all = phases(input.height, kernel.0, stride.0, padding.0).flat_map(move |phase| {
            let down = Way::new(phase, input.height, output.height, kernel.0, stride.0, padding.0);
            phases(input.width, kernel.1, stride.1, padding.1).map(move |phase| {
                (down, Way::new(phase, input.width, output.width, kernel.1, stride.1, padding.1))
            })
        });
        all.filter(|(down, across)| down.count > 0 && across.count > 0)
    }

    /// The sums for one group of pixels, with a unit for each channel of the input.
    fn backward_slide<T: Scalar>(&self, (down, across): (Way, Way)) -> Slide {
        let (Windows { input, output, .. }, field) = (self.windows, self.output_field());
        Slide {
            channels: output.channels,
            taps: (down.taps, across.taps),
            units: input.channels,
            lanes: T::lanes(input.channels),
            rows: down.count,
            columns: across.count,
            first_row: down.from,
            row_step: 1,
            inside: (field.padding.0, field.padding.0.saturating_add(output.height)),
        }
    }

    /// How many numbers the sums of the largest group of pixels take.
    fn backward_sums<T: Scalar>(&self) -> usize {
        self.ways().map(|way| self.backward_slide::<T>(way).sums()).max().unwrap_or(0)
    }

    /// How many places the lists of all groups have together, whatever the scalar.
    pub(super) fn backward_places(&self) -> usize {
        let places = self.ways().map(|way| self.backward_slide::<f32>(way).places());
        places.fold(0, usize::saturating_add)
    }

    /// How many numbers of scratch the way back needs.
    pub(super) fn backward_scratch<T: Scalar>(&self) -> usize {
        let seen = self.output_field().plane().saturating_mul(self.windows.output.channels);
        let seen = seen.saturating_add(LEFT_OUT);
        let panels = self.ways().map(|way| self.backward_slide::<T>(way).panels());
        panels.fold(seen.saturating_add(self.backward_sums::<T>()), usize::saturating_add)
    }
}

/// Along one side of an image: the pixels whose place (padding counted) leaves the same remainder when
/// divided by the stride. All of them are seen through the same taps of the kernel.
#[derive(Clone, Copy, Debug)]
struct Way {
    phase: usize,
    stride: usize,
    taps: usize,
    count: usize,
    /// The place of the first such pixel in the image.
    to: usize,
    /// The place of the first output that this pixel reads, in the field.
    from: usize,
}

impl Way {
    fn new(
        phase: usize,
        size: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        let taps = (kernel - phase).div_ceil(stride);
        let around = (kernel - 1) / stride;
        let first = padding.saturating_sub(phase).div_ceil(stride);
        // Pixels beyond this are covered by no window.
        let end = (padding + size).saturating_sub(phase).div_ceil(stride).min(outputs + around);
        Self {
            phase,
            stride,
            taps,
            count: end.saturating_sub(first),
            to: first.saturating_mul(stride).saturating_add(phase).saturating_sub(padding),
            from: first + (around + 1 - taps),
        }
    }

    /// The tap of the kernel through which the output at place `index` sees a pixel. Places count from
    /// the first output that sees the pixel, which does so through the last tap.
    fn tap(&self, index: usize) -> usize {
        self.phase + self.stride * (self.taps - 1 - index)
    }
}
