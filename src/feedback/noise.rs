//! Weight mirrors: noise that passes through layers, from which matrices learn the weights.

use super::{
    Feedback,
    mirror::{Mirror, Mirroring},
    stored::Stored,
};
use crate::{
    activation::Activation,
    bound::bound_of_squares,
    error::{Error, Result},
    init::Spread,
    layer::Operation,
    network::Network,
    route::Through,
    scalar::Scalar,
    seed::{Purpose, stream},
    threads::Chunks,
};

impl<T: Scalar> Feedback<T> {
    /// The settings of the matrices that learn from noise through [`Mirror`](Through::Mirror).
    #[must_use]
    pub fn mirror(&self) -> Mirror {
        self.mirroring.how
    }

    /// Sets how these matrices learn from now on. The noise is drawn from the seed of
    /// [`new`](Self::new) or [`with_route`](Self::with_route), or from seed 0 if the matrices were made
    /// in another way.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for constants out of their range; nothing has then changed.
    pub fn set_mirror(&mut self, mirror: Mirror) -> Result<()> {
        mirror.check::<T>()?;
        self.mirroring.how = mirror;
        Ok(())
    }

    /// The seed of the noise, and how many batches of it have been drawn.
    #[cfg(feature = "safetensors")]
    pub(crate) fn mirrored(&self) -> (u64, u64) {
        (self.mirroring.seed, self.mirroring.seen)
    }

    /// Restores the seed of the noise and the number of batches drawn so far.
    #[cfg(feature = "safetensors")]
    pub(crate) fn restore_mirror(&mut self, seed: u64, seen: u64) {
        (self.mirroring.seed, self.mirroring.seen) = (seed, seen);
    }

    /// Sends noise through the layers: [`Mirror::before`] batches before the first step, one before
    /// each later step. After an error nothing has changed.
    pub(super) fn look_into_mirrors(&mut self, network: &Network<T>) -> Result<()> {
        if !self.route.has_mirrors() {
            return Ok(());
        }
        let batches = if self.mirroring.seen > 0 { 1 } else { self.mirroring.how.before };
        self.require_finite_mirrors(network, batches)?;
        self.reserve_noise(network)?;
        for _ in 0..batches {
            for (index, &hop) in self.route.hops().iter().enumerate() {
                if hop.through == Through::Mirror
                    && let Some(matrix) = &mut self.matrices[index]
                {
                    let of = (self.route.owner(hop), index);
                    matrix.learn_from_noise(network, of, &mut self.mirroring);
                    matrix.measure(&self.shared);
                }
            }
            self.mirroring.seen += 1;
        }
        Ok(())
    }

    /// Fails if a matrix, or what it learns from, could overflow with the next batches of noise.
    fn require_finite_mirrors(&self, network: &Network<T>, batches: usize) -> Result<()> {
        let Mirror { rate, decay, batch, bound, .. } = self.mirroring.how;
        for (&hop, matrix) in self.route.hops().iter().zip(&self.matrices) {
            let (Through::Mirror, Some(matrix)) = (hop.through, matrix) else { continue };
            let owner = self.route.owner(hop);
            let (block, parameters) = (&network.blocks[owner], network.parameters.layer(owner));
            let root = |numbers: &[T]| bound_of_squares(numbers).sqrt();
            let (_, columns) = block.shape;
            let a = columns as f64 * bound * root(parameters.weights())
                + parameters.bias().map_or(0.0, root);
            let y = self.mirroring.answer(network, owner).bound(a);
            let product = block.map.gradient_cost(batch) as f64 * bound * y;
            // Decay takes away again what earlier batches added. However many there are, they add at most
            // 1/decay times what one adds.
            let times = (batches as f64).min(1.0 / decay);
            let after = matrix.squares.sqrt() + times * rate * product;
            // Bounds of later steps are found from the sum of the squares of all entries.
            let squares = after * after * matrix.numbers.len() as f64;
            let too_large = |bound: &f64| bound.is_nan() || *bound >= T::LARGEST / 64.0;
            if [a, product, squares].iter().any(too_large) {
                let what = format!("the mirror of weighted layer {owner} after this step");
                return Err(Error::NonFinite { what, row: 0, column: 0, found: f64::INFINITY });
            }
        }
        Ok(())
    }

    /// Makes room for the noise of every matrix.
    fn reserve_noise(&mut self, network: &Network<T>) -> Result<()> {
        network.layout.memory.reserve::<T>()?;
        let mirrors = self.route.hops().iter().filter(|hop| hop.through == Through::Mirror);
        for &hop in mirrors {
            self.mirroring.set_shapes(network, self.route.owner(hop))?;
        }
        Ok(())
    }
}

impl<T: Scalar> Mirroring<T> {
    /// The activation between the noise that leaves a layer's weights and what its matrix learns from.
    fn answer(&self, network: &Network<T>, layer: usize) -> Activation {
        match network.blocks[layer].operations.first() {
            Some(Operation::Activation(f)) => *f,
            None if layer + 1 == network.layer_count() => self.how.output,
            _ => Activation::Identity,
        }
    }

    /// Gives the buffers of the noise the sizes of a layer's inputs and outputs.
    fn set_shapes(&mut self, network: &Network<T>, layer: usize) -> Result<()> {
        let inputs = match layer {
            0 => network.layout.inputs,
            _ => network.layout.output(layer - 1),
        };
        let outputs = network.layout.blocks[layer].a;
        let sizes = self.noise.iter_mut().zip([inputs, outputs, outputs]);
        sizes.into_iter().try_for_each(|(noise, rows)| noise.set_shape(rows, self.how.batch))
    }
}

impl<T: Scalar> Stored<T> {
    /// Learns from one batch of noise. `layer` is the layer whose weights this matrix mirrors, and
    /// `index` is the hop that passes through the matrix.
    fn learn_from_noise(
        &mut self,
        network: &Network<T>,
        (layer, index): (usize, usize),
        mirroring: &mut Mirroring<T>,
    ) {
        mirroring.set_shapes(network, layer).expect("there is room for the noise");
        let f = mirroring.answer(network, layer);
        let Mirroring { how, seed, seen, noise: [x, a, y] } = mirroring;
        let block = &network.blocks[layer];
        let mut rng = stream(*seed, Purpose::Mirror, index as u64, *seen);
        Spread::Uniform(how.bound).fill(x.as_mut_slice(), &mut rng);
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
    }
}
