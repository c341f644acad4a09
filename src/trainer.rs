//! The training loop: the five stages in a row, epoch after epoch.

mod builder;
#[cfg(feature = "safetensors")]
mod checkpoint;
#[cfg(feature = "serde")]
mod counts;
mod early_stopping;
mod evaluation;
mod scores;
mod setters;
#[cfg(feature = "safetensors")]
mod settings;
mod stopping;

use nalgebra::DMatrixView;

pub use builder::TrainerBuilder;
pub use early_stopping::EarlyStopping;
pub use scores::{ConfusionMatrix, Epoch, Evaluation, Step};
pub use stopping::StoppingRule;

use builder::{require_movable, require_statistics};
use evaluation::count_errors;
use scores::Tally;

use crate::{
    adversarial::FastGradientSign,
    buffer::When,
    data::{Augmentation, Dataset},
    error::{Error, Result, require_shape},
    feedback::Feedback,
    init::FeedbackInit,
    layer::UPDATE_COST,
    loss::Loss,
    network::Network,
    optimizer::OptimizerState,
    rule::FeedbackRule,
    scalar::Scalar,
    targets::{BatchTargets, Targets},
    threads::Threads,
    vector::bound_of_squares,
    workspace::{Activations, Deltas, Gradients},
};

/// Trains a network: owns it, the feedback, the optimiser's state and the scratch memory.
///
/// A step is five calls, which anyone can make without a trainer and get the same bits:
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
    network: Network<T>,
    feedback: Feedback<T>,
    feedback_init: FeedbackInit,
    loss: Loss,
    /// For each class, or empty.
    class_weights: Vec<f64>,
    optimizer: OptimizerState<T>,
    batch_size: usize,
    drop_last: bool,
    seed: u64,
    stopping: Option<StoppingRule>,
    /// The running average of the stopping rule.
    running_error: f64,
    augmentation: Option<Augmentation>,
    adversarial: Option<FastGradientSign<T>>,
    epochs: u64,
    threads: Threads,
    scratch: Scratch<T>,
}

/// Memory that steps use again and again.
#[derive(Clone, Debug)]
struct Scratch<T> {
    activations: Activations<T>,
    deltas: Deltas<T>,
    order: Vec<usize>,
    targets: BatchTargets<T>,
    /// Used only by those calls that show gradients.
    gradients: Gradients<T>,
}

impl<T: Scalar> Trainer<T> {
    /// Starts a trainer of `network`.
    pub fn builder(network: Network<T>) -> TrainerBuilder<T> {
        TrainerBuilder::new(network)
    }

    /// One training step on the samples `x`, of shape `n_0 × N`.
    ///
    /// # Errors
    /// Those of [`Network::forward`] and [`Loss::error_weighted`] for inputs and targets that do not fit,
    /// [`Error::NonFiniteLoss`], or [`Error::NonFinite`] for an overflow in a layer that the loss
    /// does not see and for a step that would leave a parameter that is not finite. Weights,
    /// moments, running statistics and counters are then as they were.
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

    /// [`step`](Self::step), but `change` gets the gradients before the optimiser does: to clip
    /// them, add noise, or look at them. If it changes nothing, the result is that of
    /// [`step`](Self::step) to the bit; it takes longer, because the gradients are stored.
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
    /// As for [`step`](Self::step), and whatever error `change` returns; nothing has then been
    /// learned.
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

    /// Computes the gradients that [`step`](Self::step) would follow, and leaves the weights as they
    /// are: stages 1 to 4. Several batches can so be added up to one step of
    /// [`apply`](Self::apply).
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
    /// Dropout draws the masks of the next step, so that several batches of one step share them.
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

    /// One step of the optimiser along these gradients: stage 5.
    ///
    /// # Errors
    /// Those of [`OptimizerState::step`].
    pub fn apply(&mut self, gradients: &Gradients<T>) -> Result<()> {
        let Self { network, optimizer, threads, .. } = self;
        let work = network.parameter_count().saturating_mul(UPDATE_COST);
        threads.run(work, || optimizer.step(network, gradients))
    }

    /// [`apply`](Self::apply) of the gradients in the scratch.
    fn follow_gradients(&mut self) -> Result<()> {
        let Self { network, optimizer, threads, scratch: Scratch { gradients, .. }, .. } = self;
        let work = network.parameter_count().saturating_mul(UPDATE_COST);
        threads.run(work, || optimizer.step(network, gradients))
    }

    /// Stages 1 to 4, into the gradients in the scratch.
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

    /// Stages 3 and 4, into the gradients in the scratch.
    fn find_gradients(&mut self) -> Result<()> {
        let Scratch { activations, deltas, gradients, .. } = &mut self.scratch;
        self.feedback.deliver(&self.network, activations, deltas)?;
        self.network.gradients(activations, deltas, gradients)
    }

    /// One epoch: every sample once, in an order drawn from the seed and the epoch's number, in
    /// batches of which the last may be smaller, or is [left out](TrainerBuilder::drop_last).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, those of [`Loss::error_weighted`] for
    /// targets that do not fit, [`Error::BatchTooSmall`] if batch normalisation would see a single
    /// value in the last batch or if no batch is whole, [`Error::NoClasses`] if a stopping rule has
    /// no error rate to go by or class weights no classes, all before anything is learned; [`Error::NonFiniteLoss`] or
    /// [`Error::NonFinite`] in the step that finds it, with the weights as they were before it.
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        let threads = self.threads.clone();
        threads.run(self.network.work(self.batch_size), || {
            self.epoch_by(train, |trainer, indices| {
                trainer.pass_on(train, indices)?;
                let step = trainer.score_gathered()?;
                trainer.learn()?;
                Ok(step)
            })
        })
    }

    /// [`epoch`](Self::epoch), but `change` gets the gradients of every step before the optimiser
    /// does, as in [`step_with`](Self::step_with).
    ///
    /// # Errors
    /// As for [`epoch`](Self::epoch), and whatever error `change` returns: the epoch then ends in
    /// that step, with the weights as they were before it.
    pub fn epoch_with(
        &mut self,
        train: &Dataset<T>,
        mut change: impl FnMut(&mut Gradients<T>) -> Result<()>,
    ) -> Result<Epoch> {
        let threads = self.threads.clone();
        self.epoch_by(train, |trainer, indices| {
            let step = threads.run(trainer.network.work(indices.len()), || {
                trainer.pass_on(train, indices)?;
                let step = trainer.score_gathered()?;
                trainer.find_gradients()?;
                Ok(step)
            })?;
            change(&mut trainer.scratch.gradients)?;
            trainer.follow_gradients()?;
            Ok(step)
        })
    }

    /// An epoch whose steps are made by `step`, of the samples of these indices.
    fn epoch_by(
        &mut self,
        train: &Dataset<T>,
        mut step: impl FnMut(&mut Self, &[usize]) -> Result<Step>,
    ) -> Result<Epoch> {
        self.check(train)?;
        self.check_batches(train)?;
        let mut order = std::mem::take(&mut self.scratch.order);
        train.shuffle(self.seed, self.epochs, &mut order);
        let learning_rate = self.optimizer.learning_rate();
        let mut tally = Tally::default();
        let left_out = if self.drop_last { train.len() % self.batch_size } else { 0 };
        let kept = &order[..order.len() - left_out];
        let result = kept.chunks(self.batch_size).try_for_each(|indices| {
            tally.add(&step(self, indices)?);
            Ok(())
        });
        self.scratch.order = order;
        result?;
        self.epochs += 1;
        let (loss, error_rate) = (tally.loss(), tally.error_rate());
        if let (Some(rule), Some(error)) = (self.stopping, error_rate) {
            self.running_error = rule.average(self.running_error, error);
        }
        Ok(Epoch { number: self.epochs, loss, error_rate, learning_rate })
    }

    /// Stage 1, on some samples of a dataset that has been checked; their targets are gathered.
    fn pass_on(&mut self, train: &Dataset<T>, indices: &[usize]) -> Result<()> {
        let Scratch { activations, targets, .. } = &mut self.scratch;
        train.gather_targets(indices, targets);
        let when = When::At(self.optimizer.steps());
        self.network.pass(activations, indices.len(), when, |x| {
            train.gather_inputs(indices, x);
            if let Some(augmentation) = &self.augmentation {
                augmentation.apply_to_batch(self.seed, self.epochs, indices, x);
            }
            Ok(bound_of_squares(x))
        })
    }

    /// [`score`](Self::score) by the targets that were gathered.
    fn score_gathered(&mut self) -> Result<Step> {
        let nothing = BatchTargets::Labels(Vec::new());
        let targets = std::mem::replace(&mut self.scratch.targets, nothing);
        let step = self.score(&targets.as_targets());
        self.scratch.targets = targets;
        step
    }

    /// Perturbs the samples of the last forward pass, where that is wanted, and passes again. Class
    /// weights do not show in the sign of a sample's gradient.
    fn perturb(&mut self, targets: &Targets<T>) -> Result<()> {
        let Some(attack) = &mut self.adversarial else { return Ok(()) };
        let activations = &mut self.scratch.activations;
        let mut x = std::mem::take(&mut activations.input);
        let result =
            attack.add_to(x.as_mut_slice(), &self.network, self.loss, activations, targets);
        activations.input = x;
        result?;
        let (samples, when) = (activations.batch(), When::At(self.optimizer.steps()));
        self.network.pass(activations, samples, when, |x| Ok(bound_of_squares(x)))
    }

    /// Stage 2, after a forward pass.
    fn score(&mut self, targets: &Targets<T>) -> Result<Step> {
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
    fn learn(&mut self) -> Result<()> {
        let Scratch { activations, deltas, .. } = &mut self.scratch;
        self.optimizer.deliver_and_learn(&mut self.network, &self.feedback, activations, deltas)
    }

    /// Goes on with another learning rule: its feedback matrices are drawn from the trainer's
    /// seed, weights and optimiser state stay.
    ///
    /// # Errors
    /// [`Error::CannotLearn`] if the rule cannot leave the present weights; nothing has then
    /// changed.
    pub fn set_rule(&mut self, rule: FeedbackRule) -> Result<()> {
        let feedback = Feedback::new(&self.network, rule, self.feedback_init, self.seed)?;
        self.set_feedback(feedback)
    }

    /// Goes on with feedback of one's own.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if it was made for another network, [`Error::CannotLearn`],
    /// [`Error::Conflict`] for batch normalisation after a layer that no feedback leads to and that
    /// is not frozen; the old feedback then stays.
    pub fn set_feedback(&mut self, feedback: Feedback<T>) -> Result<()> {
        feedback.require_network(&self.network)?;
        require_movable(&self.network, &feedback)?;
        require_statistics(&self.network, &feedback)?;
        self.feedback = feedback;
        Ok(())
    }

    /// Works on so many threads of its own from now on; see [`TrainerBuilder::threads`].
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for 0, or more than the system can start.
    pub fn set_threads(&mut self, threads: usize) -> Result<()> {
        self.threads = Threads::new(threads)?;
        Ok(())
    }

    /// Leaves weighted layer `layer` as it is from now on, until it is
    /// [released](Self::release), as Nøkland (2016, figure 2) does with the first hidden layer.
    /// See [`Network::freeze`]; checkpoints keep it.
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
    pub fn freeze(&mut self, layer: usize) -> Result<()> {
        self.network.freeze(layer)
    }

    /// Lets a frozen layer learn again.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`]; [`Error::Conflict`] for a layer with batch normalisation that no
    /// feedback leads to, which then stays frozen.
    pub fn release(&mut self, layer: usize) -> Result<()> {
        let is_frozen = self.network.frozen().any(|frozen| frozen == layer);
        self.network.release(layer)?;
        let result = require_statistics(&self.network, &self.feedback);
        if result.is_err() && is_frozen {
            self.network.freeze(layer)?;
        }
        result
    }

    /// The network as it is now.
    #[must_use]
    pub fn network(&self) -> &Network<T> {
        &self.network
    }

    /// The network, to set weights from outside. Put a network of other shapes in its place and the
    /// next step is refused with [`Error::StageMismatch`].
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

    /// The feedback, to change its matrices from step to step, as a rule does whose feedback
    /// learns. Put feedback of another network in its place and the next step is refused with
    /// [`Error::StageMismatch`].
    pub fn feedback_mut(&mut self) -> &mut Feedback<T> {
        &mut self.feedback
    }

    /// The loss.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The weight of each class in the loss; `None` where all count the same.
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

    /// Number of epochs made.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// Whether the stopping rule says that training is done; never, without one.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stopping.is_some_and(|rule| self.running_error <= rule.threshold)
    }

    /// Fails if the stopping rule could never fire, if the augmentation is of other images, or if
    /// some batch could not be trained on.
    fn check_batches(&self, train: &Dataset<T>) -> Result<()> {
        if self.stopping.is_some() && !self.loss.has_classes(&train.targets()) {
            return Err(Error::NoClasses { what: "a stopping rule" });
        }
        if let Some(augmentation) = &self.augmentation {
            augmentation.require_fits(self.network.input_len())?;
        }
        let (samples, size) = (train.len(), self.batch_size);
        if self.drop_last && samples < size {
            let what = format!("{samples} samples make no batch of {size}");
            return Err(Error::BatchTooSmall { what });
        }
        let last = if self.drop_last { size } else { (samples - 1) % size + 1 };
        if last < self.network.smallest_batch() {
            let what = format!(
                "batch normalisation needs two values of each feature: {samples} samples in batches of {size} leave a last one of {last}, which drop_last leaves out"
            );
            return Err(Error::BatchTooSmall { what });
        }
        Ok(())
    }

    /// Fails unless the dataset suits network and loss.
    fn check(&self, data: &Dataset<T>) -> Result<()> {
        require_shape(
            || "the dataset's input (features × samples)".into(),
            (self.network.input_len(), data.len()),
            (data.features(), data.len()),
        )?;
        self.loss.check(&data.targets(), self.network.output_len(), data.len())?;
        self.loss.check_weights(&self.class_weights, &data.targets(), self.network.output_len())
    }
}
