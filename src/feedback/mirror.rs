//! Matrices that learn the weights from noise: weight mirrors.

use super::{Feedback, stored::Stored};
use crate::{
    activation::Activation,
    buffer::Columns,
    error::{Error, Result, require, require_fraction, require_positive},
    init::Spread,
    layer::Operation,
    network::Network,
    route::Through,
    scalar::Scalar,
    seed::{Purpose, stream},
    threads::Chunks,
    vector::bound_of_squares,
};

/// How a weight mirror learns (Akrout et al. 2019). Noise `x ~ U(±bound)` of `batch` samples enters
/// the layer above by itself, which answers `y = f(W x + b)`, and
///
/// ```text
/// B ← (1 − decay) B + rate · Σ x yᵀ      summed over the batch
/// ```
///
/// so that `B` turns towards `Wᵀ`, which it never reads. `f` is the activation that follows the layer
/// at once, if one does. With decay, `B` tends to `rate · batch · bound²/3 / decay` times `f' Wᵀ`, to
/// `f' Wᵀ` by default; without, as in the authors' runs, it grows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Mirror {
    /// The learning rate; 0.01 by default.
    pub rate: f64,
    /// What part of `B` is lost with every batch of noise; 0.01 · 128 · 0.05²/3 by default.
    pub decay: f64,
    /// The largest magnitude of the noise; 0.05 by default.
    pub bound: f64,
    /// Samples in a batch of noise; 128 by default.
    pub batch: usize,
    /// Batches of noise before the first step, at least 1; 468 by default. Before every other step
    /// there is one.
    pub before: usize,
    /// What the output layer answers with; the identity by default.
    pub output: Activation,
}

impl Default for Mirror {
    fn default() -> Self {
        let decay = 0.01 * 128.0 * 0.05 * 0.05 / 3.0;
        let (batch, before, output) = (128, 468, Activation::Identity);
        Self { rate: 0.01, decay, bound: 0.05, batch, before, output }
    }
}

impl Mirror {
    /// Fails for constants out of their range.
    pub(crate) fn check<T: Scalar>(&self) -> Result<()> {
        require_positive::<T>("the rate of a mirror", self.rate)?;
        require_fraction::<T>("the decay of a mirror", self.decay)?;
        require_positive::<T>("the bound of a mirror's noise", self.bound)?;
        let batch = self.batch as f64;
        require(self.batch > 0, "the batch of a mirror", batch, "at least 1")?;
        let before = self.before as f64;
        require(self.before > 0, "a mirror's batches before the first step", before, "at least 1")?;
        self.output.check::<T>()
    }
}

/// A mirror at work.
#[derive(Clone, Debug)]
pub(super) struct Mirroring<T> {
    pub(super) how: Mirror,
    pub(super) seed: u64,
    /// Batches of noise so far.
    pub(super) seen: u64,
    /// `x`, `a` and `y` of the last one.
    noise: [Columns<T>; 3],
}

impl<T: Scalar> Default for Mirroring<T> {
    fn default() -> Self {
        Self { how: Mirror::default(), seed: 0, seen: 0, noise: Default::default() }
    }
}

impl<T> PartialEq for Mirroring<T> {
    /// Compares what will be done, not the memory for it.
    fn eq(&self, other: &Self) -> bool {
        (self.how, self.seed, self.seen) == (other.how, other.seed, other.seen)
    }
}

impl<T: Scalar> Feedback<T> {
    /// How matrices learn that learn from noise, those of [`Mirror`](Through::Mirror).
    #[must_use]
    pub fn mirror(&self) -> Mirror {
        self.mirroring.how
    }

    /// From now on they learn so.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for constants out of their range, [`Error::TooLarge`]; nothing has
    /// then changed.
    pub fn set_mirror(&mut self, mirror: Mirror) -> Result<()> {
        mirror.check::<T>()?;
        self.mirroring.how = mirror;
        Ok(())
    }

    /// The seed of the noise, and how many batches of it there have been.
    #[cfg(feature = "safetensors")]
    pub(crate) fn mirrored(&self) -> (u64, u64) {
        (self.mirroring.seed, self.mirroring.seen)
    }

    /// Goes on after so many batches of noise of this seed.
    #[cfg(feature = "safetensors")]
    pub(crate) fn restore_mirror(&mut self, seed: u64, seen: u64) {
        (self.mirroring.seed, self.mirroring.seen) = (seed, seen);
    }

    /// Lets mirrors see the weights: before the first step many times, before any other once.
    pub(super) fn look_into_mirrors(&mut self, network: &Network<T>) -> Result<()> {
        let batches = if self.mirroring.seen == 0 { self.mirroring.how.before } else { 1 };
        for _ in 0..batches {
            self.require_room(network)?;
            for (index, &hop) in self.route.hops().iter().enumerate() {
                if hop.through == Through::Mirror
                    && let Some(matrix) = &mut self.matrices[index]
                {
                    matrix.mirror(network, (self.route.owner(hop), index), &mut self.mirroring)?;
                    matrix.measure(&self.shared);
                }
            }
            self.mirroring.seen += 1;
        }
        Ok(())
    }

    /// Fails, before anything changes, if a matrix could overflow by the next batch.
    fn require_room(&self, network: &Network<T>) -> Result<()> {
        let Mirror { rate, batch, bound, .. } = self.mirroring.how;
        for (&hop, matrix) in self.route.hops().iter().zip(&self.matrices) {
            let (Through::Mirror, Some(matrix)) = (hop.through, matrix) else { continue };
            let owner = self.route.owner(hop);
            let (block, parameters) = (&network.blocks[owner], network.parameters.layer(owner));
            let root = |numbers: &[T]| bound_of_squares(numbers).sqrt();
            let (_, columns) = block.shape;
            let largest = columns as f64 * bound * root(parameters.weights())
                + parameters.bias().map_or(0.0, root);
            let terms = block.map.gradient_cost(batch) as f64;
            let after = matrix.squares.sqrt() + rate * terms * bound * largest;
            if !(after < T::LARGEST / 8.0) {
                let what = format!("the mirror of weighted layer {owner} after this step");
                return Err(Error::NonFinite { what, row: 0, column: 0, found: after });
            }
        }
        Ok(())
    }
}

impl<T: Scalar> Stored<T> {
    /// A batch of noise for the mirror of a layer's weights, which has their shape, of hop `index`.
    fn mirror(
        &mut self,
        network: &Network<T>,
        (layer, index): (usize, usize),
        mirroring: &mut Mirroring<T>,
    ) -> Result<()> {
        let Mirroring { how, seed, seen, noise: [x, a, y] } = mirroring;
        let block = &network.blocks[layer];
        let inputs = match layer {
            0 => network.layout.inputs,
            _ => network.layout.output(layer - 1),
        };
        let outputs = network.layout.blocks[layer].a;
        for (columns, rows) in [(&mut *x, inputs), (&mut *a, outputs), (&mut *y, outputs)] {
            columns.set_shape(rows, how.batch)?;
        }
        let mut rng = stream(*seed, Purpose::Mirror, index as u64, *seen);
        Spread::Uniform(how.bound).fill(x.as_mut_slice(), &mut rng);
        let f = match block.operations.first() {
            Some(Operation::Activation(f)) => *f,
            None if layer + 1 == network.layer_count() => how.output,
            _ => Activation::Identity,
        };
        block.map.forward(network.parameters.layer(layer), x, a, Some((f, &mut *y)));

        let (rate, kept) = (T::of(how.rate), T::of(1.0 - how.decay));
        let (rows, columns) = self.numbers.shape();
        let tiles = block.map.tiles(rows, columns, how.batch);
        let out = Chunks { data: self.numbers.as_mut_slice(), size: tiles.size };
        let of = (tiles, rows * columns, tiles.size);
        block.map.gradient_tiles(of, y, x, out, &|tile, b: Chunks<T>, scratch| {
            let (product, scratch) = scratch.split_at_mut(tiles.size);
            let product = &mut product[..b.data.len()];
            tile.make(product, scratch);
            for (b, &product) in b.data.iter_mut().zip(&*product) {
                *b = kept * *b + rate * product;
            }
        });
        Ok(())
    }
}
