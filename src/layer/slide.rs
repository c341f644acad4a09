//! How the sums of a convolution are made from a field.

use std::{iter::StepBy, slice::Iter};

use crate::{correlate::Runs, scalar::Scalar};

/// About so many terms are added up by themselves; then their sum is added to that of the others. So the part
/// of the panel that is read stays in cache, and rounding errors stay small.
pub(super) const TERMS: usize = 128;

/// What is summed up over a field: for each unit (a channel of the result) a matrix of sums. Each sum is
/// that of the unit's weights times numbers of the field. Where those lie is told by the [`Runs`], counted
/// from the place that belongs to the sum's row and column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slide {
    pub(super) runs: Runs,
    pub(super) units: usize,
    /// Units that are summed up side by side.
    pub(super) lanes: usize,
    pub(super) rows: usize,
    /// How far apart the places of two rows are in the field. Those of two columns are neighbours.
    pub(super) step: usize,
    pub(super) columns: usize,
}

impl Slide {
    /// How many numbers a panel has. It holds the weights of as many units as there are lanes: for each
    /// term, those of all units side by side.
    fn panel(&self) -> usize {
        self.runs.terms() * self.lanes
    }

    /// How many numbers all panels have.
    pub(super) fn panels(&self) -> usize {
        self.units.div_ceil(self.lanes).saturating_mul(self.panel())
    }

    /// How many numbers the sums of one panel's units take.
    pub(super) fn sums(&self) -> usize {
        self.rows.saturating_mul(self.columns).saturating_mul(self.lanes)
    }

    /// Packs weights into panels; those of tap `t` of the run `(a, b)` stand from `place(a, b, t)` on,
    /// `step` apart for the units.
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

    /// Makes the sums, and calls `take(unit, row, sums of its columns)` for each row.
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
                    // A row is cleared and taken away while it is in cache.
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
