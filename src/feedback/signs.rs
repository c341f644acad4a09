//! Matrices whose signs follow the signs of the weights.

use multiversion::multiversion;
use rand::Rng;

use super::{Feedback, hops::Transport};
use crate::{
    error::{Error, Result},
    init::{FeedbackInit, Spread},
    network::Network,
    route::{Magnitudes, Through},
    scalar::Scalar,
    seed::{Purpose, stream},
    threads::{Chunks, share_out, small_pieces},
    workspace::{Activations, require_layout},
};

impl<T: Scalar> Feedback<T> {
    /// Lets matrices follow the weights of the forward pass that left `activations`:
    ///
    /// - Under uSF, frSF and brSF they take the signs of the weights. [`deliver`](Self::deliver) fails
    ///   without it.
    /// - Under brSF the magnitudes are drawn anew. The distribution and the seed are those of
    ///   [`new`](Self::new) or [`with_route`](Self::with_route), or the defaults if the matrices were
    ///   made in another way.
    /// - Under WM noise passes through the layers, and the matrices learn from it ([`Mirror`]).
    /// - Under FDFA noise passes from the hidden layers to the output
    ///   ([`Jacobian`](Through::Jacobian)).
    ///
    /// The noise of WM and FDFA is drawn from the seed of [`new`](Self::new) or
    /// [`with_route`](Self::with_route), or from seed 0. Under all other rules this does nothing. A
    /// second call in the same forward pass does nothing either.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] for activations or a network that do not fit this feedback,
    /// [`Error::NonFinite`] for a mirror that could overflow, [`Error::TooLarge`].
    ///
    /// [`Mirror`]: crate::Mirror
    pub fn follow(&mut self, network: &Network<T>, activations: &Activations<T>) -> Result<()> {
        if !self.route.follows_weights() {
            return Ok(());
        }
        self.require_network(network)?;
        require_layout("follow", "activations", &network.layout, &activations.layout)?;
        if self.followed != activations.pass || activations.pass == 0 {
            self.send_noise(network, activations)?;
            self.look_into_mirrors(network)?;
            self.copy_signs(network, activations.last_time());
            self.followed = activations.pass;
        }
        Ok(())
    }

    /// Fails if some matrix has signs of weights, but not those of this forward pass.
    pub(super) fn require_followed(&self, activations: &Activations<T>) -> Result<()> {
        if self.followed == activations.pass || !self.route.has_signs() {
            return Ok(());
        }
        Err(Error::StageMismatch {
            stage: "deliver",
            what: "feedback matrices",
            expected: "signs of the weights of this forward pass, which Feedback::follow takes"
                .into(),
            found: "those of other weights".into(),
        })
    }

    /// Draws the magnitudes of every step from this distribution and seed, if the route has such
    /// matrices.
    pub(crate) fn draw_magnitudes_from(&mut self, init: FeedbackInit, seed: u64) {
        self.magnitudes = self.route.draws_magnitudes().then_some((init, seed));
    }

    /// The distribution and seed of these magnitudes.
    #[cfg(feature = "safetensors")]
    pub(crate) fn magnitudes(&self) -> Option<(FeedbackInit, u64)> {
        self.magnitudes
    }

    /// Copies the signs of the weights, and draws the magnitudes of step `time` where they are new in
    /// every step.
    pub(super) fn copy_signs(&mut self, network: &Network<T>, time: u64) {
        for (index, &hop) in self.route.hops().iter().enumerate() {
            let Through::Signs(magnitudes) = hop.through else { continue };
            let Some(matrix) = &mut self.matrices[index] else { continue };
            let owner = self.route.owner(hop);
            let (block, weights) =
                (&network.blocks[owner], network.parameters.layer(owner).weights());
            let matrix = &mut matrix.numbers;
            let (rows, columns) = matrix.shape();
            match magnitudes {
                Magnitudes::Uniform => {
                    let (fan_in, fan_out) = block.map.fans(block.shape);
                    let all = T::of((2.0 / (fan_in as f64 + fan_out as f64)).sqrt());
                    set_signs(matrix.as_mut_slice(), weights, &|_| all);
                    continue;
                }
                Magnitudes::Fixed => {}
                Magnitudes::New => {
                    let down = Transport::of(&self.route, hop) == Transport::Down;
                    let (receivers, senders) = if down { (columns, rows) } else { (rows, columns) };
                    let (init, seed) = self.magnitudes.unwrap_or_default();
                    let spread = init.spread(receivers, senders);
                    draw(matrix.as_mut_slice(), weights, spread, &|chunk| {
                        let index = (index as u64) << 32 | chunk as u64;
                        stream(seed, Purpose::Magnitudes, index, time)
                    });
                    continue;
                }
            }
            set_signs(matrix.as_mut_slice(), weights, &|b| b);
        }
    }
}

/// The elements of one chunk: each has a random stream of its own, so any number of threads draws the
/// same.
const SIZE: usize = 1 << 14;

/// Gives `matrix` the signs of `weights` and magnitudes from `spread`. `stream` makes the random stream
/// of a chunk of [`SIZE`] elements.
fn draw<T: Scalar, R: Rng>(
    matrix: &mut [T],
    weights: &[T],
    spread: Spread,
    stream: &(impl Fn(usize) -> R + Sync),
) {
    let (count, parts) = (matrix.len().div_ceil(SIZE), small_pieces(matrix.len(), 4));
    share_out(Chunks { data: matrix, size: SIZE }, 0..count, parts, &|range, matrix| {
        let weights = weights[range.start * SIZE..].chunks(SIZE);
        for (chunk, (matrix, weights)) in range.zip(matrix.data.chunks_mut(SIZE).zip(weights)) {
            let mut rng = stream(chunk);
            if let Spread::Uniform(bound) = spread {
                draw_uniform(matrix, weights, bound, &mut rng);
            } else {
                spread.fill(matrix, &mut rng);
                matrix.iter_mut().zip(weights).for_each(|(b, &w)| *b = b.copysign(w));
            }
        }
    });
}

/// [`draw`] of uniform magnitudes below `bound`. 16 random bits choose one of 65,536 equal steps, and
/// the magnitude is the middle of that step. So one random number of 64 bits makes four magnitudes.
fn draw_uniform<T: Scalar>(matrix: &mut [T], weights: &[T], bound: f64, rng: &mut impl Rng) {
    let mut quarters = [0; 1024];
    for (matrix, weights) in matrix.chunks_mut(quarters.len()).zip(weights.chunks(quarters.len())) {
        for four in quarters[..matrix.len().next_multiple_of(4)].as_chunks_mut().0 {
            let bits = rng.next_u64();
            #[allow(clippy::cast_possible_truncation)] // To what is left after the shift.
            let parts: [u16; 4] = std::array::from_fn(|part| (bits >> (16 * part)) as u16);
            *four = parts;
        }
        scale(matrix, weights, &quarters, bound / f64::from(1 << 16));
    }
}

/// `b ← ± scale (quarter + ½)`, with the sign of `w`.
#[multiversion(targets = "simd")]
fn scale<T: Scalar>(matrix: &mut [T], weights: &[T], quarters: &[u16], scale: f64) {
    for ((b, &w), &quarter) in matrix.iter_mut().zip(weights).zip(quarters) {
        *b = T::of((f64::from(quarter) + 0.5) * scale).copysign(w);
    }
}

/// Gives `matrix` the signs of `weights`. `magnitude` computes the new magnitude from the old one.
fn set_signs<T: Scalar>(matrix: &mut [T], weights: &[T], magnitude: &(impl Fn(T) -> T + Sync)) {
    let (count, parts) = (matrix.len().div_ceil(SIZE), small_pieces(matrix.len(), 1));
    let out = Chunks { data: matrix, size: SIZE };
    share_out(out, 0..count, parts, &|range, matrix| {
        for (b, &w) in matrix.data.iter_mut().zip(&weights[range.start * SIZE..]) {
            *b = magnitude(*b).copysign(w);
        }
    });
}
