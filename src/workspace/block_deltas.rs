//! The delta of one block.

use crate::{
    buffer::{Columns, Learned},
    error::Result,
    layer::{Operation, Skip, add},
    scalar::Scalar,
};

/// The delta of one block on its way back.
#[derive(Clone, Debug)]
pub(crate) struct BlockDeltas<T> {
    /// First `δ`, at `a`; then, for each pooling operation, the delta at its output. Feedback arrives
    /// in the last one.
    pub(crate) stages: Vec<Columns<T>>,
    /// The gradients that each operation finds on the way.
    pub(crate) learned: Vec<Learned<T>>,
    /// For each operation that is a residual connection: the copy of the delta that it sends down. The
    /// copy has the shape at this end; adding it below converts it.
    pub(crate) skipped: Vec<Columns<T>>,
    /// Whether the signal has been taken to the end of the block, from where it goes up.
    pub(crate) sent_up: bool,
    /// Whether feedback has arrived. Only then does the block learn.
    pub(crate) served: bool,
    /// Signals between the two factors of a matrix. For each hop to this block with such a matrix: its
    /// index, and the signal after the first factor.
    between: Vec<(usize, Columns<T>)>,
    /// The sum of the hops so far, while the next one is made. It takes no memory if a single hop leads
    /// to the block.
    sum: Columns<T>,
}

impl<T: Scalar> BlockDeltas<T> {
    /// For a block with these operations, whose delta needs buffers of these sizes on its way back.
    pub(super) fn new(stages: &[usize], operations: &[Operation]) -> Self {
        let skips = |operation: &Operation| operation.skip().map_or(0, Skip::size);
        Self {
            stages: stages.iter().map(|&size| Columns::new(size)).collect(),
            learned: operations.iter().map(|_| Learned::default()).collect(),
            skipped: operations.iter().map(skips).map(Columns::new).collect(),
            sent_up: false,
            served: false,
            between: Vec::new(),
            sum: Columns::new(stages.last().copied().unwrap_or(0)),
        }
    }

    /// `δ`, at `a`.
    pub(crate) fn delta(&self) -> &Columns<T> {
        &self.stages[0]
    }

    /// Makes room for the signal between the two factors of a hop.
    pub(crate) fn reserve_between(&mut self, hop: usize, rows: usize) -> Result<()> {
        let samples = self.end().batch();
        if !self.between.iter().any(|(of, _)| *of == hop) {
            self.between.push((hop, Columns::default()));
        }
        let mut all = self.between.iter_mut().filter(|(of, _)| *of == hop);
        all.try_for_each(|(_, columns)| columns.set_shape(rows, samples))
    }

    /// The signal between the two factors of a hop's matrix; `None` if it has no factors.
    pub(crate) fn between(&self, hop: usize) -> Option<&Columns<T>> {
        self.between.iter().find(|(of, _)| *of == hop).map(|(_, columns)| columns)
    }

    /// The signal between the two factors of a hop, and the buffer in which feedback arrives.
    pub(crate) fn between_and_arrival(
        &mut self,
        hop: usize,
    ) -> (Option<&mut Columns<T>>, &mut Columns<T>) {
        let between = self.between.iter_mut().find(|(of, _)| *of == hop);
        let end = self.stages.last_mut().expect("a block has at least one stage");
        (between.map(|(_, columns)| columns), end)
    }

    /// Makes room for [`put_aside`](Self::put_aside).
    pub(crate) fn reserve_sum(&mut self) -> Result<()> {
        self.sum.set_batch(self.end().batch())
    }

    /// Makes room at the end of the block for the result of another hop.
    pub(crate) fn put_aside(&mut self) {
        let end = self.stages.last_mut().expect("a block has at least one stage");
        std::mem::swap(end, &mut self.sum);
    }

    /// Adds what arrived before.
    pub(crate) fn add_what_was_put_aside(&mut self) {
        let end = self.stages.last_mut().expect("a block has at least one stage");
        add(end.as_mut_slice(), self.sum.as_slice());
    }

    /// The signal at the end of the block.
    pub(crate) fn end(&self) -> &Columns<T> {
        self.stages.last().expect("a block has at least one stage")
    }

    /// The place at the end of the block where feedback arrives.
    pub(crate) fn arrival(&mut self) -> &mut Columns<T> {
        self.stages.last_mut().expect("a block has at least one stage")
    }
}
