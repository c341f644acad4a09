//! How the sums of a convolution are computed from a field.

use std::{iter::StepBy, slice::Iter};

use crate::{correlate::Runs, scalar::Scalar};

/// About this many terms are added up separately, and then added to the sum of the others. So the part
/// of the panel in use stays in cache, and rounding errors stay small.
pub(super) const TERMS: usize = 128;

/// A set of sums over a field: a matrix of sums for each unit (a channel of the result). Each sum adds
/// up the unit's weights times numbers of the field. [`Runs`] tells where those numbers are, relative
/// to the place that belongs to the sum's row and column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slide {
    pub(super) runs: Runs,
    pub(super) units: usize,
    /// How many units are summed up side by side.
    pub(super) lanes: usize,
    pub(super) rows: usize,
    /// The distance in the field between the places of two neighbouring rows. Places of neighbouring
    /// columns are neighbours.
    pub(super) step: usize,
    pub(super) columns: usize,
}

impl Slide {
    /// How many numbers a panel has. A panel holds the weights of `lanes` units: for each term, the
    /// weights of all these units side by side.
    fn panel(&self) -> usize {
        self.runs.terms() * self.lanes
    }

    /// How many numbers all panels have together.
    pub(super) fn panels(&self) -> usize {
        self.units.div_ceil(self.lanes).saturating_mul(self.panel())
    }

    /// How many numbers the sums of one panel's units take.
    pub(super) fn sums(&self) -> usize {
        self.rows.saturating_mul(self.columns).saturating_mul(self.lanes)
    }

    /// Copies weights into panels. The weights of tap `t` of the run `(a, b)` begin at
    /// `place(a, b, t)`, and those of two neighbouring units are `step` apart.
    pub(super) fn pack<T: Scalar>(
        &self,
        weights: &[T],
        place: impl Fn(usize, usize, usize) -> usize,
        step: usize,
        panels: &mut [T],
    ) {
        let Self { runs, units, lanes, .. } = *self;
        for (block, panel) in panels.chunks_exact_mut(self.panel()).enumerate() {
            let taps = (0..runs.counts[0]).flat_map(|a| {
                (0..runs.counts[1]).flat_map(move |b| runs.order().map(move |tap| (a, b, tap)))
            });
            let first = block * lanes;
            for ((a, b, tap), panel) in taps.zip(panel.chunks_exact_mut(lanes)) {
                let from = weights[place(a, b, tap) + first * step..].iter().step_by(step);
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
        sums: &mut [T],
        mut take: impl FnMut(usize, usize, StepBy<Iter<T>>),
    ) {
        let Self { runs, units, lanes, step, columns, .. } = *self;
        let part = runs.terms() / runs.counts[0];
        let most = (TERMS / part).clamp(1, runs.counts[0]);
        let groups = runs.counts[0].div_ceil(most);
        for (block, panel) in panels.chunks_exact(self.panel()).enumerate() {
            let first = block * lanes;
            for (group, panel) in panel.chunks(most * part * lanes).enumerate() {
                let counts = [panel.len() / (part * lanes), runs.counts[1]];
                let runs = Runs { counts, ..runs };
                let field = &field[group * most * runs.steps[0]..];
                for (row, sums) in sums.chunks_exact_mut(columns * lanes).enumerate() {
                    // A row is set to 0 and handed on while it is in cache.
                    if group == 0 {
                        sums.fill(T::zero());
                    }
                    T::correlate(panel, &field[row * step..], runs, sums, columns);
                    if group + 1 == groups {
                        for lane in 0..lanes.min(units - first) {
                            take(first + lane, row, sums[lane..].iter().step_by(lanes));
                        }
                    }
                }
            }
        }
    }
}
