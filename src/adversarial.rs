//! The fast-gradient-sign perturbation of the input.

use nalgebra::{DMatrix, DMatrixView};

use crate::{
    buffer::Columns,
    error::{Result, require_finite, require_not_negative},
    feedback::Feedback,
    init::FeedbackInit,
    loss::Loss,
    network::Network,
    rule::FeedbackRule,
    scalar::Scalar,
    targets::Targets,
    workspace::{Activations, Deltas},
};

/// The fast-gradient-sign method (Goodfellow, Shlens and Szegedy 2015): `x ← x + ε sign(∂J/∂x)`,
/// not clipped, with `∂J/∂x` from true backpropagation whatever rule trains the network, and
/// `sign(0) = 0`.
///
/// Nøkland (2016) regularises with `ε = 0.08` on pixels in `[0, 1]`: training uses only the perturbed
/// batch. With zero weights nothing is perturbed, because then `∂J/∂x = 0`.
///
/// It keeps its scratch memory, so one value perturbs many batches without allocating.
///
/// ```
/// use feedback_alignment::{FastGradientSign, Loss, Network, nalgebra::DMatrix};
///
/// let network = Network::<f64>::builder(2).dense(4).tanh().dense(2).build()?;
/// let mut attack = FastGradientSign::new(&network, 0.08)?;
/// let x = DMatrix::from_column_slice(2, 1, &[0.2, 0.7]);
/// let loss = Loss::SoftmaxCrossEntropy;
/// let perturbed = attack.perturb(&network, loss, &x, &[1])?;
/// assert!((perturbed - x).iter().all(|step| (step.abs() - 0.08).abs() < 1e-12));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FastGradientSign<T> {
    epsilon: f64,
    backpropagation: Feedback<T>,
    activations: Activations<T>,
    deltas: Deltas<T>,
    gradient: Columns<T>,
}

impl<T: Scalar> FastGradientSign<T> {
    /// Perturbations of size `epsilon`, at least 0, for networks with the same layers as this one.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) if `epsilon` is negative or not
    /// finite in the scalar type.
    pub fn new(network: &Network<T>, epsilon: f64) -> Result<Self> {
        require_not_negative::<T>("epsilon", epsilon)?;
        let nothing = FeedbackInit::default();
        Ok(Self {
            epsilon,
            backpropagation: Feedback::new(network, FeedbackRule::Bp, nothing, 0)?,
            activations: Activations::new(),
            deltas: Deltas::new(),
            gradient: Columns::new(network.input_len()),
        })
    }

    /// `ε`.
    #[must_use]
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// `x + ε sign(∂J/∂x)`, of the shape of `x`. `J` is the loss of a training pass: batch normalisation
    /// uses the statistics of these samples, and dropout draws masks that differ from call to call.
    ///
    /// # Errors
    /// Those of [`Network::forward`] and [`Loss::error`],
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) for a network with other layers, and
    /// [`Error::NonFinite`](crate::Error::NonFinite) if a perturbed number overflows.
    pub fn perturb<'x, 'a>(
        &mut self,
        network: &Network<T>,
        loss: Loss,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<DMatrix<T>> {
        let x = x.into();
        let mut perturbed = x.into_owned();
        let mut activations = std::mem::take(&mut self.activations);
        let result = network.forward(x, &mut activations).and_then(|()| {
            let targets = &targets.into();
            self.add_to(perturbed.as_mut_slice(), network, (loss, &[]), &activations, targets)
        });
        self.activations = activations;
        result?;
        let what = || "the perturbed input (features × samples)".to_owned();
        require_finite(what, perturbed.nrows(), perturbed.as_slice())?;
        Ok(perturbed)
    }

    /// `∂J/∂x` for the samples `x`, in the same shape, by backpropagation; `J` as for
    /// [`perturb`](Self::perturb).
    ///
    /// # Errors
    /// Those of [`perturb`](Self::perturb).
    pub fn input_gradient<'x, 'a>(
        &mut self,
        network: &Network<T>,
        loss: Loss,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<DMatrix<T>> {
        self.perturb(network, loss, x, targets)?;
        Ok(self.gradient.view().into_owned())
    }

    /// Adds the perturbation to `x`. `activations` are those of a training pass over the unperturbed
    /// samples.
    pub(crate) fn add_to(
        &mut self,
        x: &mut [T],
        network: &Network<T>,
        (loss, class_weights): (Loss, &[f64]),
        activations: &Activations<T>,
        targets: &Targets<T>,
    ) -> Result<()> {
        loss.error_by(class_weights, targets, activations, &mut self.deltas)?;
        self.backpropagation.deliver(network, activations, &mut self.deltas)?;
        self.gradient.set_batch(activations.batch())?;
        network.input_gradient(activations, &self.deltas, &mut self.gradient);
        let epsilon = T::of(self.epsilon);
        for (x, &slope) in x.iter_mut().zip(self.gradient.as_slice()) {
            // Not `signum`, which counts 0 as positive.
            if slope > T::zero() {
                *x += epsilon;
            } else if slope < T::zero() {
                *x -= epsilon;
            }
        }
        Ok(())
    }
}
