//! One step on a block of a network.

use super::{Optimizer, update::Update};
use crate::{
    buffer::Columns,
    layer::{Operation, UPDATE_COST},
    network::Block,
    parameters::{Layers, OfLayer, Part, Slot},
    scalar::Scalar,
    threads::{Chunks, share_out, small_pieces},
    vector::sum_columns,
    workspace::BlockDeltas,
};

/// A piece of the weights, and the same piece of both moments, if they exist.
type Tiled<'a, T> = (Chunks<'a, T>, (Chunks<'a, T>, Chunks<'a, T>));

/// The parameters of several neighbouring layers and both their moments, which may be empty.
pub(crate) struct Numbers<'a, T>([Layers<'a, T>; 3]);

impl<'a, T> Numbers<'a, T> {
    pub(super) fn new(numbers: [Layers<'a, T>; 3]) -> Self {
        Self(numbers)
    }

    /// The numbers of the layers before layer `middle`, and the rest.
    #[inline]
    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        let [w, m, v] = self.0;
        let (w, w_rest) = w.split_at(middle);
        let (m, m_rest) = m.split_at(middle);
        let (v, v_rest) = v.split_at(middle);
        (Self([w, m, v]), Self([w_rest, m_rest, v_rest]))
    }

    /// Parameters and moments of a layer.
    #[inline]
    pub(crate) fn layer(&mut self, layer: usize) -> [&mut [T]; 3] {
        let [w, m, v] = &mut self.0;
        [w.layer(layer), m.layer(layer), v.layer(layer)]
    }
}

/// The next step: what it does to the parameters of every layer.
pub(crate) struct NextStep<'a, T> {
    pub(super) weights: Update<T>,
    /// The same without weight decay, for everything else.
    pub(super) others: Update<T>,
    pub(super) max_norm: Option<T>,
    /// The learning rate and the number of this step.
    pub(super) at: (Optimizer, f64, u64),
    /// The factor of each layer's learning rate; empty if all factors are 1.
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

    /// The update of a layer's weights.
    fn of_weights(&self, layer: usize) -> Update<T> {
        let (optimizer, rate, t) = self.at;
        match self.rates.get(layer) {
            None => self.weights,
            Some(factor) => Update::new(optimizer, rate * factor, t),
        }
    }

    /// The update of a layer's other parameters.
    fn of_others(&self, layer: usize) -> Update<T> {
        if self.rates.is_empty() { self.others } else { self.of_weights(layer).without_decay() }
    }

    /// The update of the layer with the largest learning rate.
    pub(super) fn longest(&self) -> Update<T> {
        let (optimizer, rate, t) = self.at;
        if self.rates.is_empty() {
            return self.weights;
        }
        Update::new(optimizer, rate * self.rates.iter().copied().fold(0.0, f64::max), t)
    }

    /// Computes the gradient of a block tile by tile, and updates the weights by each tile while it is
    /// in cache. So the whole gradient is never in memory.
    pub(crate) fn learn_block(
        &self,
        (layer, block, slots): (usize, &Block, &[Slot]),
        numbers: [&mut [T]; 3],
        h: &Columns<T>,
        deltas: &BlockDeltas<T>,
    ) {
        let update = self.of_weights(layer);
        let (delta, map, (rows, columns)) = (deltas.delta(), block.map, block.shape);
        let tiles = map.tiles(rows, columns, h.batch());
        let more = if map.is_outer(h.batch()) { 0 } else { tiles.size };
        let of = (tiles, rows * columns, more);
        let [w, m, v] = numbers;
        let weights = &slots[0];
        let out = chunks([weights.of_mut(w), weights.of_mut(m), weights.of_mut(v)], tiles.size);
        map.gradient_tiles(of, delta, h, out, &|tile, (w, (m, v)): Tiled<T>, scratch| {
            if let Some(product) = tile.outer() {
                return update.apply_outer(w.data, product, [m.data, v.data]);
            }
            let (gradient, scratch) = scratch.split_at_mut(tiles.size);
            let gradient = &mut gradient[..w.data.len()];
            tile.make(gradient, scratch);
            update.apply(w.data, gradient, [m.data, v.data]);
        });
        self.bound(slots[0].of_mut(w), rows);
        let mut finish = |bias: &[T]| {
            for slot in &slots[1..] {
                let gradient = match slot.operation {
                    None => bias,
                    Some(operation) => &deltas.learned[operation][slot.number],
                };
                self.finish(slot, block, [&mut *w, &mut *m, &mut *v], gradient);
            }
        };
        if map.is_outer(h.batch()) {
            return finish(delta.as_slice()); // For one sample the bias gradient is the delta itself.
        }
        let biases = slots.get(1).filter(|slot| slot.part == Part::Bias).map_or(0, Slot::len);
        T::with_scratch(biases, |bias| {
            if !bias.is_empty() {
                map.bias_gradient(delta, bias);
            }
            finish(bias);
        });
    }

    /// Updates a layer by stored gradients. Skips parameters that `learned` marks as having no
    /// gradient.
    pub(super) fn follow(
        &self,
        (layer, block): (usize, &Block),
        [w, m, v]: [&mut [T]; 3],
        gradient: OfLayer<T>,
        learned: &[bool],
    ) {
        for (slot, _) in gradient.slots.iter().zip(learned).filter(|(_, learned)| **learned) {
            let numbers = [&mut *w, &mut *m, &mut *v];
            let gradient = slot.of(gradient.numbers);
            if slot.part != Part::Weights {
                self.finish(slot, block, numbers, gradient);
                continue;
            }
            let [w, m, v] = numbers;
            let numbers = [slot.of_mut(w), slot.of_mut(m), slot.of_mut(v)];
            self.follow_matrix(layer, numbers, gradient);
            self.bound(slot.of_mut(w), slot.rows);
        }
    }

    /// Updates a matrix as the weights of a layer are updated, but without max-norm. `numbers` are the
    /// matrix and its moments.
    pub(crate) fn follow_matrix(&self, layer: usize, numbers: [&mut [T]; 3], gradient: &[T]) {
        /// The elements of one piece of work of a thread.
        const SIZE: usize = 1 << 14;
        let update = self.of_weights(layer);
        let (count, parts) =
            (gradient.len().div_ceil(SIZE), small_pieces(gradient.len(), UPDATE_COST));
        let out = chunks(numbers, SIZE);
        share_out(out, 0..count, parts, &|range, (w, (m, v)): Tiled<T>| {
            let gradient = &gradient[range.start * SIZE..][..w.data.len()];
            update.apply(w.data, gradient, [m.data, v.data]);
        });
    }

    /// Scales down every row of `weights` that is longer than the max-norm.
    pub(super) fn bound(&self, weights: &mut [T], rows: usize) {
        let Some(bound) = self.max_norm else { return };
        // If the bound is this small, squares of the weights lose digits near the smallest number.
        let tiny = bound.as_f64() * bound.as_f64() * T::EPSILON <= T::SMALLEST_NORMAL;
        T::with_scratch(rows, |factors| {
            sum_columns(weights, factors, |w| w * w);
            for (row, factor) in factors.iter_mut().enumerate() {
                *factor = if tiny || !factor.is_finite() {
                    factor_of(weights.iter().skip(row).step_by(rows), bound)
                } else {
                    let length = factor.sqrt();
                    if length > bound { bound / length } else { T::one() }
                };
            }
            for column in weights.chunks_exact_mut(rows) {
                for (w, &factor) in column.iter_mut().zip(factors.iter()) {
                    *w *= factor;
                }
            }
        });
    }

    /// Updates a parameter that is not a weight matrix. An empty gradient changes nothing.
    fn finish(&self, slot: &Slot, block: &Block, numbers: [&mut [T]; 3], gradient: &[T]) {
        if gradient.is_empty() {
            return;
        }
        let [w, m, v] = numbers;
        let (w, m, v) = (slot.of_mut(w), slot.of_mut(m), slot.of_mut(v));
        let operation = slot.operation.map(|index| &block.operations[index]);
        match operation {
            Some(Operation::BatchNorm(norm)) if !slot.part.is_learned() => norm.follow(w, gradient),
            _ => self.of_others(slot.layer).apply(w, gradient, [m, v]),
        }
    }
}

/// The factor that makes a row of weights at most `bound` long, for weights whose squares are too large
/// or too small for the scalar type.
fn factor_of<'a, T: Scalar>(row: impl Iterator<Item = &'a T> + Clone, bound: T) -> T {
    let largest = row.clone().fold(T::zero(), |largest, w| largest.max(w.abs()));
    if largest == T::zero() {
        return T::one();
    }
    // The length is this many times the largest weight: a number from 1 to √n.
    let squares = row.map(|&w| (w.as_f64() / largest.as_f64()).powi(2)).sum::<f64>();
    T::of((bound.as_f64() / largest.as_f64() / squares.sqrt()).min(1.0))
}

/// Weights and their moments in chunks of `size`.
#[inline]
fn chunks<T>([w, m, v]: [&mut [T]; 3], size: usize) -> Tiled<'_, T> {
    let chunks = |data| Chunks { data, size };
    (chunks(w), (chunks(m), chunks(v)))
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use nalgebra::DMatrix;

    use super::*;
    use crate::optimizer::Sgd;

    #[test]
    fn rows_are_bounded_and_keep_their_direction() {
        let mut weights = DMatrix::from_row_slice(3, 2, &[3.0, 4.0, 0.3, 0.4, 0.0, 0.0]);
        let step = NextStep::new(Sgd::default().into(), (0.1, 1), Some(1.0), &[]);
        step.bound(weights.as_mut_slice(), 3);
        let expected = DMatrix::from_row_slice(3, 2, &[0.6, 0.8, 0.3, 0.4, 0.0, 0.0]);
        assert_relative_eq!(weights, expected, epsilon = 1e-15);
    }
}
