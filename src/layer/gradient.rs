//! The gradient of a layer's weights, computed tile by tile.

use super::{linear::LinearMap, tiles::Tiles};
use crate::{
    buffer::Columns,
    linalg::{self, Start, cut},
    scalar::Scalar,
    threads::{Chunks, Divide, share_out, small_pieces},
    vector::sum_columns,
};

/// The cost of updating one weight, in multiply-adds.
pub(crate) const UPDATE_COST: usize = 16;

/// One tile of a gradient, not computed yet.
pub(crate) struct Tile<'a, T> {
    map: &'a LinearMap,
    delta: &'a Columns<T>,
    h: &'a Columns<T>,
    tiles: Tiles,
    index: usize,
}

impl<'a, T: Scalar> Tile<'a, T> {
    /// Computes this tile, some columns of `∂W ← δ hᵀ` over samples (and positions, for a convolution).
    pub(crate) fn make(&self, columns: &mut [T], scratch: &mut [T]) {
        let Self { map, delta, h, tiles, index } = *self;
        map.gradient(delta, h, tiles, index, (columns, scratch));
    }

    /// If the gradient is a single outer product: `δ`, and the `h` of the tile's columns. A caller can
    /// then use the product without storing it.
    pub(crate) fn outer(&self) -> Option<(&'a [T], &'a [T])> {
        self.map.is_outer(self.h.batch()).then(|| {
            let (first, h) = (self.index * self.tiles.width, self.h.as_slice());
            (self.delta.as_slice(), &h[first..h.len().min(first + self.tiles.width)])
        })
    }
}

impl LinearMap {
    /// Calls `work` for every tile of `∂W`, a matrix of `weights` numbers. `work` gets the part of
    /// `out` that belongs to the tile, and scratch for what [`Tile::make`] needs plus `more` numbers.
    /// It decides what to do with the tile: one caller stores it, another updates weights with it.
    /// Threads share the tiles.
    pub(crate) fn gradient_tiles<T: Scalar, D: Divide>(
        &self,
        (tiles, weights, more): (Tiles, usize, usize),
        delta: &Columns<T>,
        h: &Columns<T>,
        out: D,
        work: &(impl Fn(Tile<T>, D, &mut [T]) + Sync),
    ) {
        let parts = small_pieces(self.work(weights, h.batch()), 1);
        let length = tiles.scratch + more;
        share_out(out, 0..tiles.count, parts, &|range, mut out| {
            let all = |scratch: &mut [T]| {
                let tile = |index| Tile { map: self, delta, h, tiles, index };
                let last = range.end - 1;
                for index in range.start..last {
                    let (here, rest) = out.divide(1);
                    work(tile(index), here, scratch);
                    out = rest;
                }
                work(tile(last), out, scratch);
            };
            if length == 0 { all(&mut []) } else { T::with_scratch(length, all) }
        });
    }

    /// Computes the whole of `∂W ← δ hᵀ`, a matrix of this shape.
    pub(crate) fn store_gradient<T: Scalar>(
        &self,
        (rows, columns): (usize, usize),
        delta: &Columns<T>,
        h: &Columns<T>,
        gradient: &mut [T],
    ) {
        let tiles = self.tiles(rows, columns, h.batch());
        let out = Chunks { data: gradient, size: tiles.size };
        let store = |tile: Tile<T>, out: Chunks<T>, scratch: &mut [T]| {
            tile.make(out.data, scratch);
        };
        self.gradient_tiles((tiles, rows * columns, 0), delta, h, out, &store);
    }

    /// Whether the gradient of this many samples is a single outer product, without a sum.
    pub(crate) fn is_outer(&self, samples: usize) -> bool {
        samples == 1 && matches!(self, Self::Dense)
    }

    /// How many multiply-adds the gradient and update of this many weights cost. With a single sample,
    /// reading and writing the weights is all that counts.
    pub(crate) fn work(&self, weights: usize, samples: usize) -> usize {
        match self.gradient_cost(samples) {
            1 => weights,
            cost => weights.saturating_mul(cost.saturating_add(UPDATE_COST)),
        }
    }

    /// The tiles in which the gradient of a `rows × columns` matrix of weights is computed. They have
    /// few enough columns to stay in cache until they are used. For a dense layer they depend on shapes
    /// alone, never on the number of threads: with other columns in a tile the rounding of its sums
    /// could differ.
    pub(crate) fn tiles(&self, rows: usize, columns: usize, samples: usize) -> Tiles {
        const ELEMENTS: usize = 1 << 15;
        let width = match self {
            // An outer product has no sum, so any tiles give the same bits. Its cost is writing to
            // memory.
            Self::Dense if self.is_outer(samples) && rows * columns <= ELEMENTS / 8 => columns,
            Self::Dense if self.is_outer(samples) => cut(columns, ELEMENTS / 8 / rows, 1),
            Self::Dense => cut(columns, (ELEMENTS / rows).max(16), 2),
            Self::Conv2d(conv) => return conv.tiles(samples),
        };
        let count = if width == columns { 1 } else { columns.div_ceil(width) };
        Tiles { width, size: rows * width, count, scratch: 0 }
    }

    /// Computes tile `index` of `∂W ← δ hᵀ` over samples (and positions, for a convolution).
    pub(crate) fn gradient<T: Scalar>(
        &self,
        delta: &Columns<T>,
        h: &Columns<T>,
        tiles: Tiles,
        index: usize,
        (tile, scratch): (&mut [T], &mut [T]),
    ) {
        match self {
            Self::Dense => {
                let rows = delta.rows();
                let (first, columns) = (index * tiles.width, tile.len() / rows);
                let h = h.mat().subrows(first, columns);
                linalg::product_on_one_thread(delta.mat(), h.transpose(), Start::Zero, tile);
            }
            Self::Conv2d(conv) => {
                let first = index * tiles.width;
                conv.weight_gradient(delta.as_slice(), h.as_slice(), first, tile, scratch);
            }
        }
    }

    /// `∂b ← Σ δ` over samples (and positions, for a convolution).
    pub(crate) fn bias_gradient<T: Scalar>(&self, delta: &Columns<T>, gradient: &mut [T]) {
        match self {
            Self::Dense => sum_columns(delta.as_slice(), gradient, |delta| delta),
            Self::Conv2d(conv) => conv.bias_gradient(delta.as_slice(), gradient),
        }
    }

    /// How many multiply-adds each weight's gradient takes for this many samples.
    pub(crate) fn gradient_cost(&self, samples: usize) -> usize {
        match self {
            Self::Dense => samples,
            Self::Conv2d(conv) => samples.saturating_mul(conv.output().plane()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::{
        Shape,
        conv2d::Convolution,
        windows::{self, Windows},
    };

    fn columns(rows: usize, count: usize, seed: usize) -> Columns<f32> {
        let mut columns = Columns::new(rows);
        columns.set_batch(count).unwrap();
        for (i, value) in columns.as_mut_slice().iter_mut().enumerate() {
            *value = ((i * 37 + i / 7 * 11 + seed * 13) % 17) as f32 / 4.0 - 2.0;
        }
        columns
    }

    /// Quarters of small numbers have exact sums, whatever the order: so every tile has to be the
    /// columns that it stands for, to the last bit.
    fn check_tiles(rows: usize, inputs: usize, samples: usize) {
        let (delta, h) = (columns(rows, samples, 1), columns(inputs, samples, 2));
        let tiles = LinearMap::Dense.tiles(rows, inputs, samples);
        let mut gradient = vec![f32::NAN; rows * inputs];
        let mut count = 0;
        for (index, tile) in gradient.chunks_mut(tiles.size).enumerate() {
            assert_eq!(tile.len() % rows, 0);
            assert!(tile.len() > rows || samples == 1 || inputs == 1, "a single column is left");
            LinearMap::Dense.gradient(&delta, &h, tiles, index, (tile, &mut []));
            count += 1;
        }
        assert_eq!((count, tiles.scratch), (tiles.count, 0));
        let expected = delta.view() * h.view().transpose();
        assert_eq!(gradient, expected.as_slice(), "{rows}, {inputs}, {samples}");
    }

    #[test]
    fn tiles_of_a_gradient_are_its_columns() {
        // One column more than a whole number of tiles, and one less.
        for (rows, inputs) in [(200, 164), (200, 162), (2048, 33), (2048, 31), (5000, 17), (1, 9)] {
            for samples in [1, 2, 5] {
                check_tiles(rows, inputs, samples);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

        #[test]
        fn tiles_of_any_gradient_are_its_columns(
            rows in 1..700_usize, inputs in 1..700_usize, samples in 1..6_usize,
        ) {
            check_tiles(rows, inputs, samples);
        }

        /// Every column belongs to one tile, of a dense layer and of a convolution.
        #[test]
        fn every_column_is_in_one_tile(
            windows in windows::tests::any_windows(), more in 0..400_usize, samples in 1..300_usize,
        ) {
            let fan_in = windows.input.channels * windows.kernel.0 * windows.kernel.1;
            let windows = Windows { output: Shape { channels: 1 + more, ..windows.output }, ..windows };
            let conv = LinearMap::Conv2d(Convolution { windows, fan_in });
            for (map, rows) in [(conv, 1 + more), (LinearMap::Dense, 1 + more * 20)] {
                let tiles = map.tiles(rows, fan_in, samples);
                prop_assert!(tiles.size > 0 && tiles.size % rows == 0);
                prop_assert_eq!((rows * fan_in).div_ceil(tiles.size), tiles.count);
            }
        }
    }
}
