//! A training step: the five stages one after the other.

use nalgebra::DMatrixView;

use super::{
    evaluation::count_errors,
    scores::Step,
    state::{Scratch, Trainer},
};
use crate::{
    bound::bound_of_squares,
    buffer::When,
    error::{Error, Result},
    layer::UPDATE_COST,
    scalar::Scalar,
    targets::Targets,
    workspace::Gradients,
};

impl<T: Scalar> Trainer<T> {
    /// One training step on the samples `x`, of shape `n_0 × N`.
    ///
    /// # Errors
    /// Those of [`Network::forward`] and [`Loss::error_weighted`] for inputs and targets that do not
    /// fit. [`Error::NonFiniteLoss`]. [`Error::NonFinite`] if a layer overflows without the loss
    /// showing it, or if the step would make a parameter that is not finite. Weights, moments, running
    /// statistics and counters are then as they were.
    ///
    /// [`Loss::error_weighted`]: crate::Loss::error_weighted
    /// [`Network::forward`]: crate::Network::forward
    pub fn step<'x, 'a>(
        &mut self,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<Step> {
        let (x, targets) = (x.into(), targets.into());
        let threads = self.threads.clone();
        threads.run(self.network.work(x.ncols()), || {
            self.pass(x)?;
            let step = self.score(&targets)?;
            self.learn()?;
            Ok(step)
        })
    }

    /// [`step`](Self::step), but `change` gets the gradients before the optimiser does: to clip them,
    /// add noise, or look at them. If it changes nothing, the result is the same as that of
    /// [`step`](Self::step), bit for bit. It is slower, because the gradients are stored.
    ///
    /// ```
    /// use feedback_alignment::{Network, Trainer, nalgebra::DMatrix};
    ///
    /// let network = Network::<f32>::builder(2).dense(8).tanh().dense(2).build()?;
    /// let mut trainer = Trainer::builder(network).build()?;
    /// let x = DMatrix::from_column_slice(2, 2, &[0.0, 1.0, 1.0, 1.0]);
    /// let mut norm = 0.0;
    /// trainer.step_with(&x, &[0, 1], |gradients| {
    ///     norm = gradients.clip_norm(1.0)?;
    ///     Ok(())
    /// })?;
    /// assert!(norm > 0.0);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`step`](Self::step), and any error that `change` returns. After an error nothing has
    /// been learned.
    pub fn step_with<'x, 'a>(
        &mut self,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
        change: impl FnOnce(&mut Gradients<T>) -> Result<()>,
    ) -> Result<Step> {
        let step = self.step_to_gradients(x.into(), &targets.into())?;
        change(&mut self.scratch.gradients)?;
        self.follow_gradients()?;
        Ok(step)
    }

    /// Computes the gradients that [`step`](Self::step) would use, and leaves the weights as they are:
    /// stages 1 to 4. So you can add up the gradients of several batches and make one step of
    /// [`apply`](Self::apply) with the sum.
    ///
    /// ```
    /// use feedback_alignment::{Gradients, Network, Trainer, nalgebra::DMatrix};
    ///
    /// let network = Network::<f64>::builder(2).dense(8).tanh().dense(2).build()?;
    /// let mut trainer = Trainer::builder(network).build()?;
    /// let mut twin = trainer.clone();
    /// let x = DMatrix::from_column_slice(2, 4, &[0.0, 0., 0., 1., 1., 0., 1., 1.]);
    /// let labels = [0, 1, 1, 0];
    ///
    /// let (mut part, mut whole) = (Gradients::new(), Gradients::new());
    /// for half in [0, 2] {
    ///     let x = x.columns(half, 2);
    ///     trainer.gradients(x, &labels[half..half + 2], &mut part)?;
    ///     whole.add(&part, 0.5)?;
    /// }
    /// trainer.apply(&whole)?;
    ///
    /// twin.step(&x, &labels)?;
    /// let (w, v) = (trainer.network().layer(0)?, twin.network().layer(0)?);
    /// assert!((w.weights() - v.weights()).amax() < 1e-12);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// Dropout draws the masks of the next step, so all batches of one step share them.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    pub fn gradients<'x, 'a>(
        &mut self,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
        gradients: &mut Gradients<T>,
    ) -> Result<Step> {
        let (x, targets) = (x.into(), targets.into());
        std::mem::swap(&mut self.scratch.gradients, gradients);
        let step = self.step_to_gradients(x, &targets);
        std::mem::swap(&mut self.scratch.gradients, gradients);
        step
    }

    /// One step of the optimiser along these gradients: stage 5. Feedback that learns, as under KP,
    /// makes its step too.
    ///
    /// # Errors
    /// Those of [`OptimizerState::step`](crate::OptimizerState::step).
    pub fn apply(&mut self, gradients: &Gradients<T>) -> Result<()> {
        let Self { network, feedback, optimizer, threads, .. } = self;
        let work = network.parameter_count().saturating_mul(UPDATE_COST);
        threads.run(work, || optimizer.step_with_feedback(network, feedback, gradients))
    }

    /// [`apply`](Self::apply) with the gradients in the scratch memory.
    pub(crate) fn follow_gradients(&mut self) -> Result<()> {
        let Self { network, feedback, optimizer, threads, .. } = self;
        let gradients = &self.scratch.gradients;
        let work = network.parameter_count().saturating_mul(UPDATE_COST);
        threads.run(work, || optimizer.step_with_feedback(network, feedback, gradients))
    }

    /// Stages 1 to 4. The gradients go to the scratch memory.
    fn step_to_gradients(&mut self, x: DMatrixView<T>, targets: &Targets<T>) -> Result<Step> {
        let threads = self.threads.clone();
        threads.run(self.network.work(x.ncols()), || {
            self.pass(x)?;
            let step = self.score(targets)?;
            self.find_gradients()?;
            Ok(step)
        })
    }

    /// Stage 1.
    fn pass(&mut self, x: DMatrixView<T>) -> Result<()> {
        let when = When::At(self.optimizer.steps());
        self.network.train_pass(x, &mut self.scratch.activations, when)
    }

    /// Stages 3 and 4. The gradients go to the scratch memory.
    pub(crate) fn find_gradients(&mut self) -> Result<()> {
        let Scratch { activations, deltas, gradients, .. } = &mut self.scratch;
        self.feedback.follow(&self.network, activations)?;
        self.feedback.deliver(&self.network, activations, deltas)?;
        self.network.gradients(activations, deltas, gradients)?;
        self.feedback.gradients(&self.network, activations, deltas, gradients)
    }

    /// If adversarial training is on, perturbs the samples of the last forward pass and makes the pass
    /// again.
    fn perturb(&mut self, targets: &Targets<T>) -> Result<()> {
        let Some(attack) = &mut self.adversarial else { return Ok(()) };
        let activations = &mut self.scratch.activations;
        let mut x = std::mem::take(&mut activations.input);
        let loss = (self.loss, &*self.class_weights);
        let result = attack.add_to(x.as_mut_slice(), &self.network, loss, activations, targets);
        activations.input = x;
        result?;
        let (samples, when) = (activations.batch(), When::At(self.optimizer.steps()));
        self.network.pass(activations, samples, when, |x| Ok(bound_of_squares(x)))
    }

    /// Stage 2, after a forward pass.
    pub(crate) fn score(&mut self, targets: &Targets<T>) -> Result<Step> {
        self.perturb(targets)?;
        let Scratch { activations, deltas, .. } = &mut self.scratch;
        deltas.keep_target(self.feedback.sends_target());
        let (loss, weight) =
            self.loss.error_by(&self.class_weights, targets, activations, deltas)?;
        if !loss.is_finite() {
            let (epoch, step) = (self.epochs + 1, self.optimizer.steps() + 1);
            return Err(Error::NonFiniteLoss { loss, epoch, step });
        }
        activations.require_finite()?;
        let errors = count_errors(self.loss, targets, activations.logit_columns()?);
        Ok(Step { loss, samples: targets.len(), weight, errors })
    }

    /// Stages 3 to 5 in one.
    pub(crate) fn learn(&mut self) -> Result<()> {
        if self.feedback.learns() {
            // The feedback matrices learn from whole gradients, so these have to be stored first.
            self.find_gradients()?;
            let Self { network, feedback, optimizer, scratch: Scratch { gradients, .. }, .. } =
                self;
            return optimizer.step_with_feedback(network, feedback, gradients);
        }
        self.feedback.follow(&self.network, &self.scratch.activations)?;
        let Scratch { activations, deltas, .. } = &mut self.scratch;
        self.optimizer.deliver_and_learn(&mut self.network, &self.feedback, activations, deltas)
    }
}
