//! Noise in the hidden layers, and how it changes the outputs: matrices learn the slopes from it.

use super::{Feedback, slopes::Slopes};
use crate::{
    error::{Error, Result},
    init::Spread,
    layer::LinearMap,
    network::Network,
    route::Through,
    scalar::Scalar,
    seed::{Purpose, stream},
    workspace::Activations,
};

impl<T: Scalar> Feedback<T> {
    /// From now on draws the noise from this seed, if the route uses noise.
    pub(crate) fn draw_slopes_from(&mut self, seed: u64) {
        self.slopes.seed = if self.route.has_slopes() { seed } else { 0 };
    }

    /// The seed of the noise, if the route uses noise.
    #[cfg(feature = "safetensors")]
    pub(crate) fn seed_of_slopes(&self) -> Option<u64> {
        self.route.has_slopes().then_some(self.slopes.seed)
    }

    /// Draws noise for the hidden layers and computes how it changes the outputs, beside the forward
    /// pass that left `activations`.
    pub(super) fn send_noise(
        &mut self,
        network: &Network<T>,
        activations: &Activations<T>,
    ) -> Result<()> {
        if !self.route.has_slopes() {
            return Ok(());
        }
        let Slopes { seed, pass, noise, tangents } = &mut self.slopes;
        *pass = 0;
        noise.resize_with(network.layer_count() - 1, || None);
        for hop in self.route.hops().iter().filter(|hop| hop.through == Through::Jacobian) {
            let noise = noise[hop.to].get_or_insert_default();
            noise.set_shape(network.layout.output(hop.to), activations.batch)?;
            let mut rng = stream(*seed, Purpose::Slopes, hop.to as u64, activations.last_time());
            Spread::Normal(1.0).fill(noise.as_mut_slice(), &mut rng);
        }
        tangents.fit(activations)?;
        network.tangents(activations, noise, tangents);
        *pass = activations.pass;
        Ok(())
    }

    /// `∂B = B − v dᵀ`, the mean over the batch, for the hop to hidden layer `layer`.
    pub(super) fn gradient_of_slopes(&self, layer: usize, b: &[T], gradient: &mut [T]) {
        let Slopes { noise, tangents, .. } = &self.slopes;
        let v = noise[layer].as_ref().expect("require_slopes has seen to it");
        let d = tangents.blocks[tangents.blocks.len() - 1].delta();
        LinearMap::Dense.store_gradient((v.rows(), d.rows()), v, d, gradient);
        let samples = T::of(v.batch() as f64);
        gradient.iter_mut().zip(b).for_each(|(gradient, &b)| *gradient = b - *gradient / samples);
    }

    /// Fails unless [`send_noise`](Self::send_noise) has run for this forward pass.
    pub(super) fn require_slopes(&self, activations: &Activations<T>) -> Result<()> {
        if !self.route.has_slopes()
            || (self.slopes.pass == activations.pass && activations.pass != 0)
        {
            return Ok(());
        }
        Err(Error::StageMismatch {
            stage: "gradients",
            what: "feedback matrices",
            expected: "noise beside this forward pass, which Feedback::follow sends".into(),
            found: "none, or that of another pass".into(),
        })
    }
}
