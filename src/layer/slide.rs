//! How the sums of a convolution are computed from a field.

use std::{iter::StepBy, slice::Iter};

use crate::scalar::Scalar;

/// This many terms are added up separately, and then added to the sum of the others. So the part of the
/// panel in use stays in cache, and rounding errors stay small.
pub(super) const TERMS: usize = 128;

/// About this many sums are computed in one go. They fill whole tiles of registers, and are still in
/// cache when they are handed on.
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
    /// How many terms a sum has.
    pub(super) terms: usize,
    pub(super) units: usize,
    /// How many units are summed up side by side.
    pub(super) lanes: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Slide {
    /// How many numbers a panel has. A panel holds the weights of `lanes` units: for each term, the
    /// weights of all these units side by side.
    fn panel(&self) -> usize {
        self.terms.saturating_mul(self.lanes)
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
        self.terms.saturating_add(self.rows * self.columns)
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
        let (terms, places) = lists.split_at(self.terms);
        let parts = terms.len().div_ceil(TERMS);
        let rows = (PLACES / columns).max(1);
        for (block, panel) in panels.chunks_exact(self.panel()).enumerate() {
            let first = block * lanes;
            let steps = panel.chunks(TERMS * lanes).zip(terms.chunks(TERMS));
            for (part, (panel, terms)) in steps.enumerate() {
                let groups = sums.chunks_mut(rows * columns * lanes);
                for (group, (sums, places)) in groups.zip(places.chunks(rows * columns)).enumerate()
                {
                    T::correlate(panel, field, (terms, places), sums, part > 0);
                    // The sums are handed on while they are in cache.
                    if part + 1 == parts {
                        for lane in 0..lanes.min(units - first) {
                            for (row, sums) in sums.chunks_exact(columns * lanes).enumerate() {
                                let sums = sums[lane..].iter().step_by(lanes);
                                take(first + lane, group * rows + row, sums);
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
