//! Blocks: a network as feedback sees it.

use crate::{
    activation::Activation,
    bound::bound_of_squares,
    buffer::{Columns, Pass},
    layer::{LinearMap, Operation},
    parameters::OfLayer,
    scalar::Scalar,
    workspace::{Below, BlockActivations, BlockDeltas, Record},
};

/// A weighted layer and the local operations after it, up to the next weighted layer. Feedback enters
/// at the end of a block. The numbers of its parameters are stored in the network.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) map: LinearMap,
    /// Rows and columns of the weights.
    pub(crate) shape: (usize, usize),
    pub(crate) operations: Vec<Operation>,
    /// Whether training leaves the block as it is.
    pub(crate) frozen: bool,
}

/// The way of a delta back through the operations of a block. It has two parts: one runs while the
/// product that brings the feedback is still in cache, the other afterwards.
#[must_use = "a delta is ready after `finish` alone"]
pub(crate) struct WayBack<'a, T> {
    block: &'a Block,
    activations: &'a BlockActivations<T>,
    /// The part that the product does, piece by piece.
    pub(crate) beside_product: Derivative<'a, T>,
}

impl<T: Scalar> WayBack<'_, T> {
    /// Does what the product has not done.
    pub(crate) fn finish(self, parameters: OfLayer<T>, deltas: &mut BlockDeltas<T>) {
        if self.beside_product.0.is_none() {
            self.block.backward(parameters, self.activations, deltas);
        }
    }
}

/// `f'(a)` over a batch: the activation `f` with its `a` and `h`. `None` stands for a factor of 1.
#[derive(Clone, Copy)]
pub(crate) struct Derivative<'a, T>(Option<(Activation, &'a [T], &'a [T])>);

impl<T: Scalar> Derivative<'_, T> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Multiplies a piece of a delta by `f'(a)`. The piece begins at number `place` of the batch.
    pub(crate) fn multiply(self, place: usize, delta: &mut [T]) {
        if let Some((activation, a, h)) = self.0 {
            let range = place..place + delta.len();
            activation.multiply_derivative(&a[range.clone()], &h[range], delta);
        }
    }
}

impl Block {
    /// How many multiply-adds the gradient and the update of this block take.
    pub(crate) fn work(&self, samples: usize) -> usize {
        self.map.work(self.shape.0 * self.shape.1, samples)
    }

    /// `a ← W h + b`, then every local operation in turn.
    pub(super) fn forward<T: Scalar>(
        &self,
        parameters: OfLayer<T>,
        below: Below<T>,
        into: &mut BlockActivations<T>,
        pass: Pass,
    ) {
        let BlockActivations { a, bound, finite, operations } = into;
        let (h, how) = (below.entering(), (pass, self.frozen));
        let with = (parameters, below);
        if let [Operation::Activation(activation), above @ ..] = &self.operations[..] {
            let (first, records) = operations.split_first_mut().expect("one for each operation");
            let then = Some((*activation, &mut first.output));
            *bound = self.map.forward(parameters, h, a, then);
            *finite = operate((above, 1), with, &first.output, records, how);
        } else {
            *bound = self.map.forward(parameters, h, a, None);
            *finite = operate((&self.operations, 0), with, a, operations, how);
        }
        *finite &= bound.is_finite();
    }

    /// The way back. The product can multiply by `f'` itself, piece by piece, if it alone brings all
    /// the feedback (`alone`) and the block is a layer with an activation and nothing else.
    pub(crate) fn way_back<'a, T: Scalar>(
        &'a self,
        activations: &'a BlockActivations<T>,
        alone: bool,
    ) -> WayBack<'a, T> {
        let activation = match self.operations[..] {
            [Operation::Activation(activation)] if alone => Some(activation),
            _ => None,
        };
        let (a, h) = (activations.a.as_slice(), activations.output().as_slice());
        let beside_product = Derivative(activation.map(|activation| (activation, a, h)));
        WayBack { block: self, activations, beside_product }
    }

    /// An upper bound of `|f'|`. The block may have at most an activation after its layer.
    pub(crate) fn steepest(&self) -> f64 {
        match self.operations[..] {
            [Operation::Activation(activation)] => activation.steepest().max(1.0),
            _ => 1.0,
        }
    }

    /// An upper bound of all `h²` of this block.
    pub(crate) fn output_squares<T: Scalar>(&self, activations: &BlockActivations<T>) -> f64 {
        let mut bound = activations.bound;
        for operation in &self.operations {
            bound = match operation {
                Operation::Activation(activation) => activation.bound(bound),
                // No maximum and no mean is larger than all its numbers. A mean is rounded, hence the factor.
                Operation::Pool2d(_) => bound * 1.001,
                _ => return bound_of_squares(activations.output().as_slice()),
            };
        }
        bound * bound
    }

    /// `δ ← δ ∘ f'(a)`: takes the feedback at the end of the block back through its operations.
    pub(crate) fn backward<T: Scalar>(
        &self,
        parameters: OfLayer<T>,
        activations: &BlockActivations<T>,
        deltas: &mut BlockDeltas<T>,
    ) {
        let BlockDeltas { stages, learned, skipped, .. } = deltas;
        let mut stage = stages.len() - 1;
        for (index, operation) in self.operations.iter().enumerate().rev() {
            let (before, record) = (activations.before(index), &activations.operations[index]);
            if let Some(pool) = operation.pooling() {
                let (to, from) = stages.split_at_mut(stage);
                stage -= 1;
                pool.backward(&record.notes.winners, from[0].as_slice(), to[stage].as_mut_slice());
            } else {
                let (x, y) = (before.as_slice(), record.output.as_slice());
                let delta = stages[stage].as_mut_slice();
                if operation.skip().is_some() {
                    skipped[index].as_mut_slice().copy_from_slice(delta);
                }
                let of = (parameters, index);
                operation.backward(of, (x, y), &record.notes, delta, &mut learned[index]);
            }
        }
    }

    /// Takes a signal from `a` up to the end of the block, from where hops go on. Only pooling changes
    /// it: it picks the units that won in the forward pass, or takes means.
    pub(crate) fn send_up<T: Scalar>(
        &self,
        activations: &BlockActivations<T>,
        deltas: &mut BlockDeltas<T>,
    ) {
        self.go_up(activations, &mut deltas.stages, |_, _| ());
        deltas.sent_up = true;
    }

    /// The same for a signal that has arrived at `a` from the block below. A residual connection adds
    /// what went up in the block where it starts, one of the blocks `below`: once, so there is nothing to
    /// add for a second signal.
    pub(crate) fn receive_from_below<T: Scalar>(
        &self,
        activations: &BlockActivations<T>,
        deltas: &mut BlockDeltas<T>,
        below: Option<&[BlockDeltas<T>]>,
    ) {
        self.go_up(activations, &mut deltas.stages, |signal, operation| {
            let (Some(skip), Some(below)) = (operation.skip(), below) else { return };
            if let Some(from) = skip.from.map(|from| &below[from]).filter(|from| from.sent_up) {
                skip.add_up(from.end().as_slice(), signal.as_mut_slice());
            }
        });
    }

    fn go_up<T: Scalar>(
        &self,
        activations: &BlockActivations<T>,
        stages: &mut [Columns<T>],
        at: impl Fn(&mut Columns<T>, &Operation),
    ) {
        let mut stage = 0;
        for (operation, record) in self.operations.iter().zip(&activations.operations) {
            at(&mut stages[stage], operation);
            if let Some(pool) = operation.pooling() {
                let (from, to) = stages.split_at_mut(stage + 1);
                let (from, to) = (from[stage].as_slice(), to[0].as_mut_slice());
                pool.relay(&record.notes.winners, from, to);
                stage += 1;
            }
        }
    }
}

/// Applies every operation in turn, beginning with `x`. `first` is the index of the first operation in
/// its block. Returns false if an operation met a number that is not finite and whose output does not
/// show it.
pub(super) fn operate<T: Scalar>(
    (operations, first): (&[Operation], usize),
    (parameters, below): (OfLayer<T>, Below<T>),
    x: &Columns<T>,
    records: &mut [Record<T>],
    how: (Pass, bool),
) -> bool {
    let (mut from, mut finite) = (x, true);
    for (index, (operation, Record { output, notes })) in operations.iter().zip(records).enumerate()
    {
        let (of, x) = ((parameters, first + index), (from.as_slice(), below.beside(operation)));
        finite &= operation.forward(of, x, output.as_mut_slice(), notes, how);
        from = output;
    }
    finite
}
