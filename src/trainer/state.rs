//! The trainer itself: its parts, and the methods to look at them.

use super::stopping::StoppingRule;
use crate::{
    adversarial::FastGradientSign,
    data::{Augmentation, Dataset},
    error::{Result, require_shape},
    feedback::Feedback,
    init::FeedbackInit,
    loss::Loss,
    network::Network,
    optimizer::OptimizerState,
    scalar::Scalar,
    summary::Summary,
    targets::BatchTargets,
    threads::Threads,
    workspace::{Activations, Deltas, Gradients},
};

/// Trains a network. It owns the network, the feedback, the optimiser's state and the scratch memory.
///
/// A step is these calls. You can make them without a trainer and get the same result, bit for bit:
///
/// ```
/// use feedback_alignment::{
///     Activations, Deltas, Feedback, FeedbackInit, FeedbackRule, Gradients, Loss, Network,
///     OptimizerState, Sgd, Trainer, nalgebra::DMatrix,
/// };
///
/// let x = DMatrix::from_column_slice(2, 4, &[0.0, 0., 0., 1., 1., 0., 1., 1.]);
/// let labels = [0, 1, 1, 0];
/// let mut network = Network::<f64>::builder(2).dense(8).tanh().dense(2).build()?;
/// let mut trainer = Trainer::builder(network.clone()).optimizer(Sgd::default()).build()?;
///
/// let feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 0)?;
/// let mut optimizer = OptimizerState::new(&network, Sgd::default())?;
/// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
/// let mut gradients = Gradients::new();
/// for _ in 0..10 {
///     network.forward(&x, &mut activations)?;
///     let loss = Loss::SoftmaxCrossEntropy.error(&labels, &activations, &mut deltas)?;
///     feedback.deliver(&network, &activations, &mut deltas)?;
///     network.gradients(&activations, &deltas, &mut gradients)?;
///     optimizer.step(&mut network, &gradients)?;
///
///     assert_eq!(trainer.step(&x, &labels)?.loss, loss);
/// }
/// assert_eq!(*trainer.network(), network);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trainer<T> {
    pub(crate) network: Network<T>,
    pub(crate) feedback: Feedback<T>,
    pub(crate) feedback_init: FeedbackInit,
    pub(crate) loss: Loss,
    /// One for each class, or empty.
    pub(crate) class_weights: Vec<f64>,
    pub(crate) optimizer: OptimizerState<T>,
    pub(crate) batch_size: usize,
    pub(crate) drop_last: bool,
    pub(crate) seed: u64,
    pub(crate) stopping: Option<StoppingRule>,
    /// The running average of the stopping rule.
    pub(crate) running_error: f64,
    pub(crate) augmentation: Option<Augmentation>,
    pub(crate) adversarial: Option<FastGradientSign<T>>,
    pub(crate) epochs: u64,
    pub(crate) threads: Threads,
    pub(crate) scratch: Scratch<T>,
}

/// Memory that steps use again and again.
#[derive(Clone, Debug)]
pub(crate) struct Scratch<T> {
    pub(crate) activations: Activations<T>,
    pub(crate) deltas: Deltas<T>,
    pub(crate) order: Vec<usize>,
    pub(crate) targets: BatchTargets<T>,
    /// Used only by methods that store gradients.
    pub(crate) gradients: Gradients<T>,
}

impl<T: Scalar> Trainer<T> {
    /// The network as it is now.
    #[must_use]
    pub fn network(&self) -> &Network<T> {
        &self.network
    }

    /// The network, for example to set its weights. If you replace it by a network of other shapes, the
    /// next step fails with [`Error::StageMismatch`](crate::Error::StageMismatch).
    pub fn network_mut(&mut self) -> &mut Network<T> {
        &mut self.network
    }

    /// The network, when training is done.
    #[must_use]
    pub fn into_network(self) -> Network<T> {
        self.network
    }

    /// The learning rule with its feedback matrices.
    #[must_use]
    pub fn feedback(&self) -> &Feedback<T> {
        &self.feedback
    }

    /// The feedback, for example to change its matrices between steps, as a learning rule of your own
    /// may do. If you replace it by feedback of another network, the next step fails with
    /// [`Error::StageMismatch`](crate::Error::StageMismatch).
    pub fn feedback_mut(&mut self) -> &mut Feedback<T> {
        &mut self.feedback
    }

    /// The layers of the network with their sizes and their feedback, as a table.
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the network or the feedback was
    /// replaced and they no longer fit each other.
    pub fn summary(&self) -> Result<Summary> {
        self.feedback.summary(&self.network)
    }

    /// The loss.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The weight of each class in the loss; `None` if all count the same.
    #[must_use]
    pub fn class_weights(&self) -> Option<&[f64]> {
        Some(&*self.class_weights).filter(|weights| !weights.is_empty())
    }

    /// The optimiser's state.
    #[must_use]
    pub fn optimizer(&self) -> &OptimizerState<T> {
        &self.optimizer
    }

    /// The seed of the feedback matrices, the order of samples and the dropout masks.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Number of finished epochs.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// Whether the stopping rule says that training is done. Without a rule it is always false.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stopping.is_some_and(|rule| self.running_error <= rule.threshold)
    }

    /// Fails unless the dataset fits the network and the loss.
    pub(crate) fn check(&self, data: &Dataset<T>) -> Result<()> {
        require_shape(
            || "the dataset's input (features × samples)".into(),
            (self.network.input_len(), data.len()),
            (data.features(), data.len()),
        )?;
        self.loss.check(&data.targets(), self.network.output_len(), data.len())?;
        self.loss.check_weights(&self.class_weights, &data.targets(), self.network.output_len())
    }
}
