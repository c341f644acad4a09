//! Setting feedback matrices along the weights, where learning would otherwise have to take them.

use nalgebra::DMatrix;

use super::Feedback;
use crate::{
    angle::norm,
    error::{Error, Result, require_finite},
    network::Network,
    route::{Magnitudes, Through},
    scalar::Scalar,
};

impl<T: Scalar> Feedback<T> {
    /// Points the feedback matrices in the direction of the weights that they stand in for, as
    /// `network` has them now. Each matrix keeps its norm, the root of the sum of its squares.
    ///
    /// - A matrix for the error, or for a signal made from it, becomes `B_l ∝ (W_L ⋯ W_{l+1})ᵀ`.
    ///   Examples are DFA, and the first hidden layer under IFA.
    /// - A matrix in place of weights, as under FA, KP and WM, becomes `B_l ∝ W_{l+1}ᵀ`. Kernels of
    ///   convolutions too.
    /// - Under frSF the magnitudes become proportional to those of the weights.
    ///
    /// All other matrices stay as they are: those for targets, those straight from another hidden
    /// layer, those made anew in every step, those that are sparse, shared or a product, and FDFA's.
    ///
    /// This is the `aligned` start in the code of DFA-Stall (Kempner Institute 2026). As there, the
    /// matrices do not follow the weights afterwards.
    ///
    /// ```
    /// use feedback_alignment::{Feedback, FeedbackInit, FeedbackRule, Network};
    ///
    /// let network = Network::<f64>::builder(4).dense(6).tanh().dense(3).build()?;
    /// let mut feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::default(), 1)?;
    /// let norm = feedback.matrix(0)?.unwrap().norm();
    /// feedback.align(&network)?;
    /// let w = network.layer(1)?.weights().transpose();
    /// let aligned = &w * (norm / w.norm());
    /// assert!((feedback.matrix(0)?.unwrap() - aligned).amax() < 1e-12);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::StageMismatch`] for another network. [`Error::Conflict`] if there is nothing to align,
    /// if the weights are all zero, or if pooling or a residual connection stands between a layer and
    /// the output (the product then depends on the sample, or is a sum). [`Error::NonFinite`] if a
    /// product overflows. After an error nothing has changed.
    pub fn align(&mut self, network: &Network<T>) -> Result<()> {
        self.require_network(network)?;
        let hops = self.route.hops().iter().enumerate();
        let (mut aligned, mut direct) = (Vec::new(), Vec::new());
        for (index, &hop) in hops {
            match hop.through {
                Through::LikeWeights
                | Through::KolenPollack
                | Through::Mirror
                | Through::Signs(Magnitudes::Fixed) => {
                    let weights = network.parameters.layer(self.route.owner(hop)).weights();
                    aligned.push((index, self.along(index, weights)?));
                }
                Through::Matrix | Through::DirectKolenPollack if hop.signal.is_error() => {
                    direct.push((hop.to, index));
                }
                _ => {}
            }
        }
        if let Some(lowest) = direct.iter().map(|&(to, _)| to).min() {
            let mut results = Vec::new();
            network.products_above(lowest, |layer, product| {
                let here = direct.iter().filter(|&&(to, _)| to == layer);
                results.extend(here.map(|&(_, index)| (index, self.along(index, product))));
            })?;
            for (index, matrix) in results {
                aligned.push((index, matrix?));
            }
            let missing = |&&(_, index): &&(usize, usize)| aligned.iter().all(|a| a.0 != index);
            if let Some(&(layer, _)) = direct.iter().find(missing) {
                let reason = "the product of the weights between it and the output is not one \
                              matrix: pooling or a residual connection stands there";
                return Err(self.cannot_align(layer, reason));
            }
        }
        if aligned.is_empty() {
            return Err(Error::Conflict {
                first: "aligned feedback".into(),
                second: format!("the route {}", self.route),
                reason: "no matrix that stays stands in for weights",
            });
        }
        for (index, matrix) in aligned {
            let stored = self.matrices[index].as_mut().expect("it has been drawn");
            stored.numbers = matrix;
            stored.measure(&self.shared);
        }
        self.followed = 0; // The signs have to be copied again.
        Ok(())
    }

    /// A matrix with the direction of `weights` and the norm that the hop's matrix has now.
    fn along(&self, index: usize, weights: &[T]) -> Result<DMatrix<T>> {
        let (matrix, layer) = (&self.drawn(index).numbers, self.route.hops()[index].to);
        let (rows, columns) = matrix.shape();
        let of_weights = norm(weights);
        if of_weights == 0.0 {
            return Err(self.cannot_align(layer, "the weights that it stands in for are all zero"));
        }
        // Dividing first avoids an overflow on the way to a result that fits.
        let size = norm(matrix.as_slice());
        let entries = weights.iter().map(|w| T::of(w.as_f64() / of_weights * size));
        let aligned = DMatrix::from_iterator(rows, columns, entries);
        require_finite(|| self.name(layer), rows, aligned.as_slice())?;
        Ok(aligned)
    }

    fn cannot_align(&self, layer: usize, reason: &'static str) -> Error {
        Error::Conflict { first: "aligned feedback".into(), second: self.name(layer), reason }
    }
}
