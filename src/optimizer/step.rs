//! One step on every block of a network: tile by tile, shared out among threads.

use nalgebra::{DMatrix, DVector};

use super::{BlockMoments, update::Update};
use crate::{
    feedback::Feedback,
    layer::{Layer, LinearMap, NormGradient, Operation},
    network::Block,
    scalar::Scalar,
    threads::{self, Chunks, share_out, small_pieces},
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
    /// Gradients and updates of some blocks, of which the first has the number `first`.
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
            [block] => {
                let deltas = signal.arrive(first, block, activations);
                if !moments[0].frozen {
                    self.learn_block(block, &mut moments[0], first, activations, deltas);
                }
            }
            _ => {
                let awake = blocks.iter().zip(&*moments).filter(|(_, moments)| !moments.frozen);
                let work: usize = awake.map(|(block, _)| block.work(activations.batch)).sum();
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
        T::with_scratch(rows, |norms| {
            norms.fill(T::zero());
            for column in weights.as_slice().chunks_exact(rows) {
                for (norm, &w) in norms.iter_mut().zip(column) {
                    *norm += w * w;
                }
            }
            for norm in norms.iter_mut() {
                let length = norm.sqrt();
                *norm = if length > bound { bound / length } else { T::one() };
            }
            for column in weights.as_mut_slice().chunks_exact_mut(rows) {
                for (w, &scale) in column.iter_mut().zip(norms.iter()) {
                    *w *= scale;
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

pub(super) fn slices<T>([first, second]: &mut [Vec<T>; 2]) -> [&mut [T]; 2] {
    [first, second]
}
