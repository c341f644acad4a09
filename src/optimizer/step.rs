//! One step on every block of a network: tile by tile, shared out among threads.

use nalgebra::{DMatrix, DVector};

use super::{BlockMoments, update::Update};
use crate::{
    feedback::Feedback,
    layer::{Layer, LinearMap, NormGradient, Operation},
    network::Block,
    scalar::Scalar,
    threads::{self, Chunks, share_out, small_pieces},
    vector::sum_columns,
    workspace::{Activations, BlockDeltas},
};

/// What a step does to every layer.
pub(super) struct NextStep<T> {
    pub(super) weights: Update<T>,
    /// The same without weight decay, for everything else.
    pub(super) others: Update<T>,
    pub(super) max_norm: Option<T>,
}

/// Where the deltas of some blocks come from.
pub(super) enum Signal<'a, T> {
    /// They have been delivered.
    Delivered(&'a [BlockDeltas<T>]),
    /// The error goes to each hidden block when its turn comes, so that its delta is in cache when
    /// the gradient needs it, and no block waits for another.
    Direct { feedback: &'a Feedback<T>, e: &'a BlockDeltas<T>, hidden: &'a mut [BlockDeltas<T>] },
}

impl<'a, T: Scalar> Signal<'a, T> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        match self {
            Self::Delivered(deltas) => {
                let (left, right) = deltas.split_at(middle);
                (Self::Delivered(left), Self::Delivered(right))
            }
            Self::Direct { feedback, e, hidden } => {
                let (left, right) = hidden.split_at_mut(middle);
                let direct = |hidden| Self::Direct { feedback, e, hidden };
                (direct(left), direct(right))
            }
        }
    }

    /// The delta of the one block that is left, which has the number `index`.
    fn arrive(
        self,
        index: usize,
        block: &Block<T>,
        activations: &Activations<T>,
    ) -> &'a BlockDeltas<T> {
        match self {
            Self::Delivered(deltas) => &deltas[0],
            Self::Direct { feedback, e, hidden: [to] } => {
                feedback.send_error(index, block, &activations.blocks[index], e, to);
                to
            }
            Self::Direct { e, .. } => e,
        }
    }
}

impl<T: Scalar> NextStep<T> {
    /// Gradients and updates of some blocks, of which the first has the number `first`. Frozen
    /// ones stay as they are.
    pub(super) fn learn(
        &self,
        blocks: &mut [Block<T>],
        moments: &mut [BlockMoments<T>],
        first: usize,
        activations: &Activations<T>,
        signal: Signal<T>,
    ) {
        match blocks {
            [] => {}
            [block] if block.frozen => {}
            [block] => {
                let deltas = signal.arrive(first, block, activations);
                self.learn_block(block, &mut moments[0], first, activations, deltas);
            }
            _ => {
                let learning = blocks.iter().filter(|block| !block.frozen);
                let work = learning.map(|block| block.work(activations.batch));
                let work = work.fold(0, usize::saturating_add);
                let middle = blocks.len() / 2;
                let (left, right) = blocks.split_at_mut(middle);
                let (left_moments, right_moments) = moments.split_at_mut(middle);
                let (left_signal, right_signal) = signal.split_at(middle);
                threads::both(
                    work,
                    || self.learn(left, left_moments, first, activations, left_signal),
                    || {
                        let first = first + middle;
                        self.learn(right, right_moments, first, activations, right_signal);
                    },
                );
            }
        }
    }

    fn learn_block(
        &self,
        block: &mut Block<T>,
        moments: &mut BlockMoments<T>,
        index: usize,
        activations: &Activations<T>,
        deltas: &BlockDeltas<T>,
    ) {
        let (delta, h) = (deltas.delta(), activations.entering(index));
        let parts = small_pieces(block.work(activations.batch), 1);
        let Layer { map, weights, bias } = &mut block.layer;
        let (map, biases) = (*map, bias.as_ref().map_or(0, DVector::len));
        let tiles = map.tiles(weights.nrows(), weights.ncols(), activations.batch);
        let chunks = |data| Chunks { data, size: tiles.size };
        let [m, v] = slices(&mut moments.weights);
        let out = (chunks(weights.as_mut_slice()), (chunks(m), chunks(v)));
        share_out(out, 0..tiles.count, parts, &|range, (w, (m, v))| {
            if activations.batch == 1 && map == LinearMap::Dense {
                let rows = delta.rows();
                let first = range.start * tiles.size / rows;
                let h = &h.as_slice()[first..first + w.data.len() / rows];
                return self.weights.apply_outer(w.data, (delta.as_slice(), h), [m.data, v.data]);
            }
            T::with_scratch(tiles.size + tiles.scratch, |scratch| {
                let (gradient, scratch) = scratch.split_at_mut(tiles.size);
                let (mut m, mut v) = (m.data.chunks_mut(tiles.size), v.data.chunks_mut(tiles.size));
                for (tile, w) in range.zip(w.data.chunks_mut(tiles.size)) {
                    let gradient = &mut gradient[..w.len()];
                    map.gradient(delta, h, tiles, tile, (gradient, scratch));
                    let moments = [&mut m, &mut v].map(|tiles| tiles.next().unwrap_or_default());
                    self.weights.apply(w, gradient, moments);
                }
            });
        });
        self.bound(weights);
        T::with_scratch(biases, |gradient| {
            if !gradient.is_empty() {
                map.bias_gradient(delta, gradient);
            }
            self.finish(block, Some(gradient), &deltas.norms, moments);
        });
    }

    /// Scales down every row of `weights` that is longer than the max-norm.
    pub(super) fn bound(&self, weights: &mut DMatrix<T>) {
        let Some(bound) = self.max_norm else { return };
        let rows = weights.nrows();
        // Squares of so small a length, and of what is as small, would lose digits.
        let tiny = bound.as_f64() * bound.as_f64() * T::EPSILON <= T::SMALLEST_NORMAL;
        T::with_scratch(rows, |factors| {
            sum_columns(weights.as_slice(), factors, |w| w * w);
            for (row, factor) in factors.iter_mut().enumerate() {
                *factor = if tiny || !factor.is_finite() {
                    factor_of(weights.as_slice().iter().skip(row).step_by(rows), bound)
                } else {
                    let length = factor.sqrt();
                    if length > bound { bound / length } else { T::one() }
                };
            }
            for column in weights.as_mut_slice().chunks_exact_mut(rows) {
                for (w, &factor) in column.iter_mut().zip(factors.iter()) {
                    *w *= factor;
                }
            }
        });
    }

    /// What is left of a step when the weights of a block have been updated.
    pub(super) fn finish(
        &self,
        block: &mut Block<T>,
        bias_gradient: Option<&[T]>,
        norms: &[NormGradient<T>],
        moments: &mut BlockMoments<T>,
    ) {
        if let (Some(bias), Some(gradient)) = (&mut block.layer.bias, bias_gradient) {
            self.others.apply(bias.as_mut_slice(), gradient, slices(&mut moments.bias));
        }
        let operations = block.operations.iter_mut().zip(norms).zip(&mut moments.norms);
        for ((operation, gradient), [scale, shift]) in operations {
            if let Operation::BatchNorm(norm) = operation {
                self.others.apply(norm.scale.as_mut_slice(), &gradient.scale, slices(scale));
                self.others.apply(norm.shift.as_mut_slice(), &gradient.shift, slices(shift));
                norm.commit(gradient);
            }
        }
    }
}

/// What a row of weights is multiplied by so that its length is at most `bound`, where the squares
/// of the weights are out of range.
fn factor_of<'a, T: Scalar>(row: impl Iterator<Item = &'a T> + Clone, bound: T) -> T {
    let largest = row.clone().fold(T::zero(), |largest, w| largest.max(w.abs()));
    if largest == T::zero() {
        return T::one();
    }
    // The length is this many times the largest weight: a number from 1 to √n.
    let squares = row.map(|&w| (w.as_f64() / largest.as_f64()).powi(2)).sum::<f64>();
    T::of((bound.as_f64() / largest.as_f64() / squares.sqrt()).min(1.0))
}

pub(super) fn slices<T>([first, second]: &mut [Vec<T>; 2]) -> [&mut [T]; 2] {
    [first, second]
}
