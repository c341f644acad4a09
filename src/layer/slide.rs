//! How the sums of a convolution are computed from a field.

use std::{
    iter::{self, StepBy},
    ops::Range,
    slice::Iter,
};

use crate::scalar::Scalar;

/// At most this many terms are added up separately, and then added to the sum of the others. So the part
/// of the panel in use stays in cache, and rounding errors stay small.
pub(super) const TERMS: usize = 128;

/// At most about this many sums are computed in one go. But for the rows at the edge of an image they fill
/// whole tiles of registers, and they are still in cache when they are handed on.
const PLACES: usize = 96;

/// The bytes of a vector of AVX-512, and of a line of the cache of most processors.
const VECTOR: usize = 64;

/// [`aligned`] leaves out fewer numbers than this.
pub(super) const LEFT_OUT: usize = VECTOR / size_of::<f32>();

/// Leaves out the numbers before the first multiple of 64 bytes. Panels are read faster if no vector lies
/// in two lines of the cache.
pub(super) fn aligned<T>(numbers: &mut [T]) -> &mut [T] {
    match numbers.as_ptr().align_offset(VECTOR) {
        first if first < LEFT_OUT => &mut numbers[first..],
        _ => numbers,
    }
}

/// A set of sums over a field: a matrix of sums for each unit (a channel of the result). Each sum adds
/// up the unit's weights times numbers of the field. Two lists tell where these numbers are: the places
/// of the terms, relative to the place of the sum, and after them the places of the sums, row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slide {
    /// The terms of a sum: channels of the field, and rows and columns of taps (entries of a kernel).
    pub(super) channels: usize,
    pub(super) taps: (usize, usize),
    pub(super) units: usize,
    /// How many units are summed up side by side.
    pub(super) lanes: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The row of the field that the first tap of the first row of sums sees, and how far it is to that of
    /// the next row.
    pub(super) first_row: usize,
    pub(super) row_step: usize,
    /// The rows of the field that are not padding: the first of them, and the first after them. Terms of
    /// other rows would be 0, and are left out.
    pub(super) inside: (usize, usize),
}

/// Terms that are summed up together: those of a group of channels, or some of them if they are more than
/// [`TERMS`].
struct Part {
    /// The place in the list where the terms of the group begin.
    start: usize,
    /// How many terms of the group belong to one row of taps.
    row: usize,
    /// Which terms of the group belong to the part.
    range: Range<usize>,
}

impl Slide {
    /// How many terms a sum has.
    fn terms(&self) -> usize {
        self.taps.0.saturating_mul(self.taps.1).saturating_mul(self.channels)
    }

    /// The terms in the order of the list, each with its channel and its row and column of taps. Channels
    /// come in groups of about [`TERMS`] terms. Within a group the terms of all its channels come row by
    /// row of taps, so that those of neighbouring rows are one piece of the list.
    pub(super) fn order(&self) -> impl Iterator<Item = [usize; 3]> + Clone + use<> {
        let Self { channels, taps, .. } = *self;
        let size = self.group_size();
        (0..channels).step_by(size).flat_map(move |first| {
            let channels = first..channels.min(first + size);
            (0..taps.0).flat_map(move |row| {
                channels
                    .clone()
                    .flat_map(move |channel| (0..taps.1).map(move |column| [channel, row, column]))
            })
        })
    }

    /// How many channels a group has.
    fn group_size(&self) -> usize {
        (TERMS / self.taps.0.saturating_mul(self.taps.1).max(1)).max(1)
    }

    /// All terms, in parts. A group of several channels is a single part. So the last of the terms that are
    /// summed up at a time is the largest, as `correlate` requires.
    fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let Self { channels, taps, .. } = *self;
        let size = self.group_size();
        (0..channels).step_by(size).flat_map(move |first| {
            let row = size.min(channels - first) * taps.1;
            let (start, count) = (first * taps.0 * taps.1, row * taps.0);
            (0..count).step_by(TERMS).map(move |from| Part {
                start,
                row,
                range: from..count.min(from + TERMS),
            })
        })
    }

    /// The rows of taps through which this row of sums sees no padding.
    fn seen_from(&self, row: usize) -> Range<usize> {
        let start = self.first_row + row * self.row_step;
        let [from, to] =
            [self.inside.0, self.inside.1].map(|end| end.saturating_sub(start).min(self.taps.0));
        from..to
    }

    /// All rows of sums, at most `most` at a time, with the rows of taps through which these see no padding.
    fn rows_and_taps(&self, most: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut row = 0;
        iter::from_fn(move || {
            let (first, taps) = (row, self.seen_from(row));
            while row < self.rows && row - first < most && self.seen_from(row) == taps {
                row += 1;
            }
            (row > first).then_some((first..row, taps))
        })
    }

    /// How many numbers a panel has. A panel holds the weights of `lanes` units: for each term, the
    /// weights of all these units side by side.
    fn panel(&self) -> usize {
        self.terms().saturating_mul(self.lanes)
    }

    /// How many numbers all panels have together.
    pub(super) fn panels(&self) -> usize {
        self.units.div_ceil(self.lanes).saturating_mul(self.panel())
    }

    /// How many numbers the sums of one panel's units take.
    pub(super) fn sums(&self) -> usize {
        self.rows.saturating_mul(self.columns).saturating_mul(self.lanes)
    }

    /// How many places the two lists have together.
    pub(super) fn places(&self) -> usize {
        self.terms().saturating_add(self.rows * self.columns)
    }

    /// Copies weights into panels. The weights of the terms begin at `starts`, and those of two
    /// neighbouring units are `step` apart.
    pub(super) fn pack<T: Scalar>(
        &self,
        weights: &[T],
        starts: impl Iterator<Item = usize> + Clone,
        step: usize,
        panels: &mut [T],
    ) {
        let Self { units, lanes, .. } = *self;
        for (block, panel) in panels.chunks_exact_mut(self.panel()).enumerate() {
            let first = block * lanes;
            for (start, panel) in starts.clone().zip(panel.chunks_exact_mut(lanes)) {
                let from = weights[start + first * step..].iter().step_by(step);
                let count = lanes.min(units - first);
                panel[..count].iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                panel[count..].fill(T::zero());
            }
        }
    }

    /// Computes the sums, and calls `take(unit, row, sums of its columns)` for each row.
    pub(super) fn slide<T: Scalar>(
        &self,
        panels: &[T],
        field: &[T],
        lists: &[usize],
        sums: &mut [T],
        mut take: impl FnMut(usize, usize, StepBy<Iter<T>>),
    ) {
        let Self { units, lanes, columns, .. } = *self;
        let (terms, places) = lists.split_at(self.terms());
        let most = (PLACES / columns).max(1);
        for (block, panel) in panels.chunks_exact(self.panel()).enumerate() {
            let first = block * lanes;
            let mut parts = self.parts().enumerate().peekable();
            while let Some((index, part)) = parts.next() {
                for (rows, taps) in self.rows_and_taps(most) {
                    let places = &places[rows.start * columns..rows.end * columns];
                    let sums = &mut sums[rows.start * columns * lanes..rows.end * columns * lanes];
                    let from = part.range.start.max(taps.start * part.row);
                    let to = part.range.end.min(taps.end * part.row);
                    if from < to {
                        let (from, to) = (part.start + from, part.start + to);
                        let panel = &panel[from * lanes..to * lanes];
                        T::correlate(panel, field, (&terms[from..to], places), sums, index > 0);
                    } else if index == 0 {
                        sums.fill(T::zero());
                    }
                    // The sums are handed on while they are in cache.
                    if parts.peek().is_none() {
                        for lane in 0..lanes.min(units - first) {
                            for (row, sums) in rows.clone().zip(sums.chunks_exact(columns * lanes))
                            {
                                take(first + lane, row, sums[lane..].iter().step_by(lanes));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The places of a grid in a field: `a·steps[0] + b·steps[1] + c·steps[2]`, with `a`, `b` and `c` each from
/// 0 to below its count. `c` changes from one place to the next, `a` last.
pub(super) fn grid(counts: [usize; 3], steps: [usize; 3]) -> impl Iterator<Item = usize> {
    (0..counts[0]).flat_map(move |a| {
        (0..counts[1]).flat_map(move |b| {
            (0..counts[2]).map(move |c| a * steps[0] + b * steps[1] + c * steps[2])
        })
    })
}
