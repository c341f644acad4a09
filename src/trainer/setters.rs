//! Changing settings in the middle of a run. Everything can change but the seed and the shapes of the
//! network. Weights, moments, counters and the order of the samples stay.

use super::{
    require::{require_movable, require_statistics},
    state::Trainer,
    stopping::StoppingRule,
};
use crate::{
    adversarial::FastGradientSign,
    data::{Augmentation, require_batch_size},
    error::Result,
    feedback::Feedback,
    loss::{Loss, require_class_weights},
    optimizer::{Optimizer, Schedule},
    rule::FeedbackRule,
    scalar::Scalar,
    threads::Threads,
};

impl<T: Scalar> Trainer<T> {
    /// Sets another learning rate, before the schedule's factor.
    ///
    /// ```
    /// use feedback_alignment::{Network, Trainer};
    ///
    /// let network = Network::<f32>::builder(2).dense(2).build()?;
    /// let mut trainer = Trainer::builder(network).build()?;
    /// trainer.set_learning_rate(1e-5)?;
    /// assert_eq!(trainer.optimizer().learning_rate(), 1e-5);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless it is positive in the
    /// scalar; nothing has then changed.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        self.optimizer.set_learning_rate(learning_rate)
    }

    /// Multiplies the learning rate of layer `layer` by `factor` from now on; see
    /// [`OptimizerState::set_rate_factor`](crate::OptimizerState::set_rate_factor).
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`](crate::Error::NoSuchLayer),
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless it is positive in the
    /// scalar; nothing has then changed.
    pub fn set_rate_factor(&mut self, layer: usize, factor: f64) -> Result<()> {
        self.optimizer.set_rate_factor(layer, factor)
    }

    /// Sets other constants of the same kind of optimiser. The moments stay. If [`Sgd`](crate::Sgd) had
    /// no momentum before, it starts at 0.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a hyper-parameter out of its
    /// range, [`Error::OptimizerKind`](crate::Error::OptimizerKind) for another kind, whose moments
    /// mean something else; nothing has then changed.
    pub fn set_optimizer(&mut self, optimizer: impl Into<Optimizer>) -> Result<()> {
        self.optimizer.set_optimizer(&self.network, optimizer)
    }

    /// Sets a separate optimiser for feedback that learns, or none; see
    /// [`OptimizerState::set_feedback_optimizer`](crate::OptimizerState::set_feedback_optimizer).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a hyper-parameter out of its
    /// range; the old one then stays.
    pub fn set_feedback_optimizer(&mut self, optimizer: Option<Optimizer>) -> Result<()> {
        self.optimizer.set_feedback_optimizer(optimizer)?;
        self.optimizer.begin_feedback_anew(&mut self.feedback);
        Ok(())
    }

    /// Sets another schedule. Its steps count from the beginning of the run.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a schedule out of its range;
    /// the old one then stays.
    pub fn set_schedule(&mut self, schedule: impl Into<Schedule>) -> Result<()> {
        self.optimizer.set_schedule(schedule)
    }

    /// Sets another bound on the norm of every unit's incoming weights, or none.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) unless it is positive in the
    /// scalar; the old one then stays.
    pub fn set_max_norm(&mut self, max_norm: Option<f64>) -> Result<()> {
        self.optimizer.set_max_norm(max_norm)
    }

    /// Sets another size of batches, from the next epoch on.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for 0.
    pub fn set_batch_size(&mut self, batch_size: usize) -> Result<()> {
        require_batch_size(batch_size)?;
        self.batch_size = batch_size;
        Ok(())
    }

    /// Whether a smaller last batch is left out from now on.
    pub fn set_drop_last(&mut self, drop_last: bool) {
        self.drop_last = drop_last;
    }

    /// Sets another stopping rule, or none. The running average stays. It covers the epochs that had a
    /// rule, and starts from 1.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a rule out of its range; the
    /// old one then stays.
    pub fn set_stopping(&mut self, rule: Option<StoppingRule>) -> Result<()> {
        if let Some(rule) = rule {
            rule.check()?;
        }
        self.stopping = rule;
        Ok(())
    }

    /// Sets another loss.
    ///
    /// # Errors
    /// [`Error::SoftmaxNeedsTwoOutputs`](crate::Error::SoftmaxNeedsTwoOutputs); the old one then
    /// stays.
    pub fn set_loss(&mut self, loss: Loss) -> Result<()> {
        loss.check_outputs(self.network.output_len())?;
        self.loss = loss;
        Ok(())
    }

    /// Sets other weights of the classes in the loss, or none; see
    /// [`TrainerBuilder::class_weights`](crate::TrainerBuilder::class_weights).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if their number is not the number of
    /// classes, [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a weight that is not
    /// positive or is above 1e100. After an error the old weights stay.
    pub fn set_class_weights(&mut self, weights: Option<Vec<f64>>) -> Result<()> {
        if let Some(weights) = &weights {
            require_class_weights(weights, self.network.output_len())?;
        }
        self.class_weights = weights.unwrap_or_default();
        Ok(())
    }

    /// Sets other random variations of the images, or none.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter),
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the images have another shape than the
    /// network's input. After an error the old setting stays.
    pub fn set_augmentation(&mut self, augmentation: Option<Augmentation>) -> Result<()> {
        if let Some(augmentation) = &augmentation {
            augmentation.require_fits(self.network.input_len())?;
        }
        self.augmentation = augmentation;
        Ok(())
    }

    /// Sets another size of the perturbations, or none.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter); the old one then stays.
    pub fn set_adversarial(&mut self, epsilon: Option<f64>) -> Result<()> {
        let attack = epsilon.map(|epsilon| FastGradientSign::new(&self.network, epsilon));
        self.adversarial = attack.transpose()?;
        Ok(())
    }

    /// Sets another learning rule. Its feedback matrices are drawn from the trainer's seed. Weights and
    /// optimiser state stay.
    ///
    /// # Errors
    /// [`Error::CannotLearn`] if the rule cannot leave the present weights, [`Error::Conflict`] if no
    /// feedback would lead to a layer with batch normalisation that is not frozen, and
    /// [`Error::TooLarge`] without memory for the matrices; nothing has then changed.
    ///
    /// [`Error::CannotLearn`]: crate::Error::CannotLearn
    /// [`Error::Conflict`]: crate::Error::Conflict
    /// [`Error::TooLarge`]: crate::Error::TooLarge
    pub fn set_rule(&mut self, rule: FeedbackRule) -> Result<()> {
        let feedback = Feedback::new(&self.network, rule, self.feedback_init, self.seed)?;
        self.set_feedback(feedback)
    }

    /// Sets feedback that you have made yourself.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if it was made for another network, [`Error::CannotLearn`],
    /// [`Error::Conflict`] for batch normalisation after a layer that no feedback leads to and that
    /// is not frozen; the old feedback then stays.
    ///
    /// [`Error::CannotLearn`]: crate::Error::CannotLearn
    /// [`Error::Conflict`]: crate::Error::Conflict
    /// [`Error::StageMismatch`]: crate::Error::StageMismatch
    pub fn set_feedback(&mut self, feedback: Feedback<T>) -> Result<()> {
        feedback.require_network(&self.network)?;
        require_movable(&self.network, &feedback)?;
        require_statistics(&self.network, &feedback)?;
        self.feedback = feedback;
        Ok(())
    }

    /// Uses a pool of `threads` threads from now on; see [`TrainerBuilder::threads`].
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for 0, for more than 1024, or for more than the system can start.
    ///
    /// [`Error::InvalidParameter`]: crate::Error::InvalidParameter
    /// [`TrainerBuilder::threads`]: crate::TrainerBuilder::threads
    pub fn set_threads(&mut self, threads: usize) -> Result<()> {
        self.threads = Threads::new(threads)?;
        Ok(())
    }

    /// Keeps weighted layer `layer` as it is until it is [released](Self::release). Nøkland (2016,
    /// figure 2) does so with the first hidden layer. See [`Network::freeze`]; checkpoints keep it.
    ///
    /// ```
    /// use feedback_alignment::{Network, Trainer, nalgebra::DMatrix};
    ///
    /// let network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// let mut trainer = Trainer::builder(network.clone()).build()?;
    /// trainer.freeze(0)?;
    /// trainer.step(&DMatrix::from_element(4, 1, 0.5), &[1])?;
    /// assert_eq!(trainer.network().layer(0)?, network.layer(0)?);
    /// assert_ne!(trainer.network().layer(1)?, network.layer(1)?);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    ///
    /// [`Error::NoSuchLayer`]: crate::Error::NoSuchLayer
    /// [`Network::freeze`]: crate::Network::freeze
    pub fn freeze(&mut self, layer: usize) -> Result<()> {
        self.network.freeze(layer)
    }

    /// Lets a frozen layer learn again.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`]; [`Error::Conflict`] for a layer with batch normalisation that no
    /// feedback leads to, which then stays frozen.
    ///
    /// [`Error::Conflict`]: crate::Error::Conflict
    /// [`Error::NoSuchLayer`]: crate::Error::NoSuchLayer
    pub fn release(&mut self, layer: usize) -> Result<()> {
        let is_frozen = self.network.frozen().any(|frozen| frozen == layer);
        self.network.release(layer)?;
        let result = require_statistics(&self.network, &self.feedback);
        if result.is_err() && is_frozen {
            self.network.freeze(layer)?;
        }
        result
    }

    /// Samples in a step of [`epoch`](Self::epoch).
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Whether a smaller last batch is left out.
    #[must_use]
    pub fn drop_last(&self) -> bool {
        self.drop_last
    }

    /// The stopping rule.
    #[must_use]
    pub fn stopping(&self) -> Option<StoppingRule> {
        self.stopping
    }

    /// How images are varied.
    #[must_use]
    pub fn augmentation(&self) -> Option<Augmentation> {
        self.augmentation
    }

    /// The size of the perturbations that are trained on.
    #[must_use]
    pub fn adversarial(&self) -> Option<f64> {
        self.adversarial.as_ref().map(FastGradientSign::epsilon)
    }
}
