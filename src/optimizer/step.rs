//! One step on a block of a network.

use nalgebra::{DMatrix, DVector};

use super::{BlockMoments, Optimizer, update::Update};
use crate::{
    buffer::Columns,
    layer::{Layer, NormGradient, Operation, UPDATE_COST},
    network::Block,
    scalar::Scalar,
    threads::{Chunks, share_out, small_pieces},
    vector::sum_columns,
    workspace::BlockDeltas,
};

/// A piece of the weights, and of both moments where there are some.
type Tiled<'a, T> = (Chunks<'a, T>, (Chunks<'a, T>, Chunks<'a, T>));

/// What a step does to every layer.
pub(crate) struct NextStep<'a, T> {
    pub(super) weights: Update<T>,
    /// The same without weight decay, for everything else.
    pub(super) others: Update<T>,
    pub(super) max_norm: Option<T>,
    /// The learning rate and the number of this step.
    pub(super) at: (Optimizer, f64, u64),
    /// What the learning rate of each layer is multiplied by; empty if all factors are 1.
    pub(super) rates: &'a [f64],
}

impl<'a, T: Scalar> NextStep<'a, T> {
    /// Step number `t`, counted from 1, at learning rate `rate`.
    pub(super) fn new(
        optimizer: Optimizer,
        (rate, t): (f64, u64),
        max_norm: Option<f64>,
        rates: &'a [f64],
    ) -> Self {
        let weights = Update::new(optimizer, rate, t);
        let others = weights.without_decay();
        Self { weights, others, max_norm: max_norm.map(T::of), at: (optimizer, rate, t), rates }
    }

    /// The step of a layer's weights.
    fn of_weights(&self, layer: usize) -> Update<T> {
        let (optimizer, rate, t) = self.at;
        match self.rates.get(layer) {
            None => self.weights,
            Some(factor) => Update::new(optimizer, rate * factor, t),
        }
    }

    /// The step of everything else in a layer.
    fn of_others(&self, layer: usize) -> Update<T> {
        if self.rates.is_empty() { self.others } else { self.of_weights(layer).without_decay() }
    }

    /// The step of the layer with the largest rate.
    pub(super) fn longest(&self) -> Update<T> {
        let (optimizer, rate, t) = self.at;
        if self.rates.is_empty() {
            return self.weights;
        }
        Update::new(optimizer, rate * self.rates.iter().copied().fold(0.0, f64::max), t)
    }

    /// Makes the gradient of a block tile by tile and updates the weights by each tile while it is in
    /// cache. The whole gradient is never in memory.
    pub(crate) fn learn_block(
        &self,
        (layer, block): (usize, &mut Block<T>),
        moments: &mut BlockMoments<T>,
        h: &Columns<T>,
        deltas: &BlockDeltas<T>,
    ) {
        let update = self.of_weights(layer);
        let (delta, Layer { map, weights, bias }) = (deltas.delta(), &mut block.layer);
        let (map, biases) = (*map, bias.as_ref().map_or(0, DVector::len));
        let tiles = map.tiles(weights.nrows(), weights.ncols(), h.batch());
        let more = if map.is_outer(h.batch()) { 0 } else { tiles.size };
        let of = (tiles, weights.len(), more);
        let out = chunks(weights.as_mut_slice(), &mut moments.weights, tiles.size);
        map.gradient_tiles(of, delta, h, out, &|tile, (w, (m, v)): Tiled<T>, scratch| {
            if let Some(product) = tile.outer() {
                return update.apply_outer(w.data, product, [m.data, v.data]);
            }
            let (gradient, scratch) = scratch.split_at_mut(tiles.size);
            let gradient = &mut gradient[..w.data.len()];
            tile.make(gradient, scratch);
            update.apply(w.data, gradient, [m.data, v.data]);
        });
        self.bound(weights);
        T::with_scratch(biases, |gradient| {
            if !gradient.is_empty() {
                map.bias_gradient(delta, gradient);
            }
            self.finish((layer, block), Some(gradient), &deltas.norms, moments);
        });
    }

    /// Updates the weights of a layer by a gradient that is stored.
    pub(super) fn follow(
        &self,
        (layer, weights): (usize, &mut DMatrix<T>),
        moments: &mut [Vec<T>; 2],
        gradient: &DMatrix<T>,
    ) {
        /// Elements that a thread takes on at least.
        const SIZE: usize = 1 << 14;
        let update = self.of_weights(layer);
        let (count, parts) =
            (weights.len().div_ceil(SIZE), small_pieces(weights.len(), UPDATE_COST));
        let out = chunks(weights.as_mut_slice(), moments, SIZE);
        share_out(out, 0..count, parts, &|range, (w, (m, v)): Tiled<T>| {
            let gradient = &gradient.as_slice()[range.start * SIZE..][..w.data.len()];
            update.apply(w.data, gradient, [m.data, v.data]);
        });
        self.bound(weights);
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
        (layer, block): (usize, &mut Block<T>),
        bias_gradient: Option<&[T]>,
        norms: &[NormGradient<T>],
        moments: &mut BlockMoments<T>,
    ) {
        let update = self.of_others(layer);
        if let (Some(bias), Some(gradient)) = (&mut block.layer.bias, bias_gradient) {
            update.apply(bias.as_mut_slice(), gradient, slices(&mut moments.bias));
        }
        let operations = block.operations.iter_mut().zip(norms).zip(&mut moments.norms);
        for ((operation, gradient), [scale, shift]) in operations {
            if let Operation::BatchNorm(norm) = operation {
                update.apply(norm.scale.as_mut_slice(), &gradient.scale, slices(scale));
                update.apply(norm.shift.as_mut_slice(), &gradient.shift, slices(shift));
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

/// Weights and their moments in chunks of `size`.
fn chunks<'a, T>(w: &'a mut [T], moments: &'a mut [Vec<T>; 2], size: usize) -> Tiled<'a, T> {
    let [m, v] = slices(moments);
    (Chunks { data: w, size }, (Chunks { data: m, size }, Chunks { data: v, size }))
}
