//! The training loop: the five stages in a row, epoch after epoch.

use std::fmt;

use nalgebra::DMatrix;

use crate::{
    activation::Activation,
    data::{BatchTargets, Dataset, require_batch_size},
    error::{Error, Result, require, require_shape},
    feedback::Feedback,
    init::FeedbackInit,
    loss::{Loss, Targets},
    network::{EVALUATION_BATCH, Network},
    optimizer::{Optimizer, OptimizerState, Schedule},
    rule::FeedbackRule,
    scalar::Scalar,
    workspace::{Activations, Columns, Deltas, Gradients},
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
    optimizer: OptimizerState<T>,
    batch_size: usize,
    seed: u64,
    stopping: Option<StoppingRule>,
    /// The running average of the stopping rule.
    running_error: f64,
    epochs: u64,
    scratch: Scratch<T>,
}

/// Memory that steps and evaluations use again and again.
#[derive(Clone, Debug)]
struct Scratch<T> {
    activations: Activations<T>,
    deltas: Deltas<T>,
    gradients: Gradients<T>,
    order: Vec<usize>,
    targets: BatchTargets<T>,
}

impl<T: Scalar> Trainer<T> {
    /// Starts a trainer of `network`.
    pub fn builder(network: Network<T>) -> TrainerBuilder<T> {
        TrainerBuilder {
            network,
            rule: FeedbackRule::Dfa,
            feedback_init: FeedbackInit::default(),
            feedback: None,
            loss: Loss::default(),
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            max_norm: None,
            batch_size: 64,
            seed: 0,
            stopping: None,
        }
    }

    /// One training step on the samples `x`, of shape `n_0 × N`.
    ///
    /// # Errors
    /// Those of [`Network::forward`] and [`Loss::error`] for inputs and targets that do not fit,
    /// [`Error::NonFiniteLoss`], or [`Error::NonFinite`] for an overflow in a layer that the loss
    /// does not see; the weights are then as they were.
    pub fn step<'a>(&mut self, x: &DMatrix<T>, targets: impl Into<Targets<'a, T>>) -> Result<Step> {
        self.network.forward(x, &mut self.scratch.activations)?;
        self.learn(&targets.into())
    }

    /// One epoch: every sample once, in an order drawn from the seed and the epoch's number, in
    /// batches of which the last may be smaller.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, those of [`Loss::error`] for
    /// targets that do not fit, before anything is learned; [`Error::NonFiniteLoss`] or
    /// [`Error::NonFinite`] in the step that finds it, with the weights as they were before it.
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        self.check(train)?;
        let mut order = std::mem::take(&mut self.scratch.order);
        train.shuffle(self.seed, self.epochs, &mut order);
        let learning_rate = self.optimizer.learning_rate();
        let mut tally = Tally::default();
        let result = order.chunks(self.batch_size).try_for_each(|indices| {
            tally.add(&self.step_on(train, indices)?);
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

    /// One step on some samples of a dataset that has been checked.
    fn step_on(&mut self, train: &Dataset<T>, indices: &[usize]) -> Result<Step> {
        let Scratch { activations, targets, .. } = &mut self.scratch;
        activations.fit(&self.network.layout, indices.len());
        train.gather_inputs(indices, activations.input.as_mut_slice());
        train.gather_targets(indices, targets);
        self.network.forward_loaded(activations);
        let targets = std::mem::replace(targets, BatchTargets::Labels(Vec::new()));
        let step = self.learn(&targets.as_targets());
        self.scratch.targets = targets;
        step
    }

    /// Stages 2 to 5, after a forward pass.
    fn learn(&mut self, targets: &Targets<T>) -> Result<Step> {
        let Scratch { activations, deltas, gradients, .. } = &mut self.scratch;
        let loss = self.loss.error(*targets, activations, deltas)?;
        if !loss.is_finite() {
            let (epoch, step) = (self.epochs + 1, self.optimizer.steps() + 1);
            return Err(Error::NonFiniteLoss { loss, epoch, step });
        }
        activations.require_finite()?;
        let errors = count_errors(self.loss, targets, activations.logit_columns()?);
        self.feedback.deliver(&self.network, activations, deltas)?;
        self.network.gradients(activations, deltas, gradients)?;
        self.optimizer.step(&mut self.network, gradients)?;
        Ok(Step { loss, samples: targets.len(), errors })
    }

    /// Loss, error rate and confusion matrix on a dataset; changes nothing.
    ///
    /// # Errors
    /// As for [`epoch`](Self::epoch), except that a loss that is not finite is returned, not an
    /// error.
    pub fn evaluate(&mut self, data: &Dataset<T>) -> Result<Evaluation> {
        self.check(data)?;
        let mut tally = Tally::default();
        let mut confusion =
            data.classes().map(|_| ConfusionMatrix::new(self.network.outputs().max(2)));
        let mut e = Columns::new(self.network.outputs());
        let order: Vec<usize> = (0..data.len()).collect();
        for indices in order.chunks(EVALUATION_BATCH) {
            let Scratch { activations, targets, .. } = &mut self.scratch;
            activations.fit(&self.network.layout, indices.len());
            data.gather_inputs(indices, activations.input.as_mut_slice());
            data.gather_targets(indices, targets);
            self.network.forward_loaded(activations);
            e.set_batch(indices.len());
            let logits = activations.logit_columns()?;
            let targets = targets.as_targets();
            let loss = self.loss.evaluate(&targets, logits, &mut e);
            let errors = count_errors(self.loss, &targets, logits);
            tally.add(&Step { loss, samples: indices.len(), errors });
            if let (Some(confusion), Targets::Labels(labels)) = (&mut confusion, targets) {
                let columns = logits.as_slice().chunks_exact(logits.rows());
                for (&actual, z) in labels.iter().zip(columns) {
                    confusion.add(actual, self.loss.class(z));
                }
            }
        }
        Ok(Evaluation { loss: tally.loss(), error_rate: tally.error_rate(), confusion })
    }

    /// The class of each column of `x`, under the loss.
    ///
    /// # Errors
    /// As for [`Network::predict`].
    pub fn predict_classes(&self, x: &DMatrix<T>) -> Result<Vec<usize>> {
        Ok(self.loss.classes(&self.network.predict(x)?))
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
    /// [`Error::StageMismatch`] if it was made for another network, [`Error::CannotLearn`].
    pub fn set_feedback(&mut self, feedback: Feedback<T>) -> Result<()> {
        feedback.require_network(&self.network)?;
        require_movable(&self.network, feedback.rule())?;
        self.feedback = feedback;
        Ok(())
    }

    /// The network as it is now.
    #[must_use]
    pub fn network(&self) -> &Network<T> {
        &self.network
    }

    /// The network, to set weights from outside; its shape cannot change.
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

    /// The loss.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The optimiser's state.
    #[must_use]
    pub fn optimizer(&self) -> &OptimizerState<T> {
        &self.optimizer
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

    /// Fails unless the dataset suits network and loss.
    fn check(&self, data: &Dataset<T>) -> Result<()> {
        require_shape(
            || "the dataset's input (features × samples)".into(),
            (self.network.inputs(), data.len()),
            (data.features(), data.len()),
        )?;
        self.loss.check(&data.targets(), self.network.outputs(), data.len())
    }
}

/// How many samples are in the wrong class; unknown where targets are real values.
fn count_errors<T: Scalar>(loss: Loss, targets: &Targets<T>, logits: &Columns<T>) -> Option<usize> {
    let Targets::Labels(labels) = targets else {
        return None;
    };
    let columns = logits.as_slice().chunks_exact(logits.rows());
    Some(labels.iter().zip(columns).filter(|&(&label, z)| loss.class(z) != label).count())
}

/// Fails if nothing would move under `rule`: weights that are all zero stop some of the signals.
fn require_movable<T: Scalar>(network: &Network<T>, rule: FeedbackRule) -> Result<()> {
    let hidden = &network.blocks[..network.layers() - 1];
    if network.blocks.iter().any(|block| block.layer.weights.iter().any(|&w| w != T::zero())) {
        return Ok(());
    }
    let relu = hidden.iter().any(|block| block.operations.contains(&Activation::Relu));
    let reason = match rule {
        _ if relu => "a ReLU unit that receives nothing has a derivative of 0",
        FeedbackRule::Bp if !hidden.is_empty() => "the error travels back through the weights",
        FeedbackRule::Ifa if hidden.len() > 1 => "the signal travels up through the weights",
        _ => return Ok(()),
    };
    Err(Error::CannotLearn { rule: rule.to_string(), reason })
}

/// Sets up a [`Trainer`].
#[derive(Clone, Debug)]
#[must_use = "a trainer comes of `.build()`"]
pub struct TrainerBuilder<T> {
    network: Network<T>,
    rule: FeedbackRule,
    feedback_init: FeedbackInit,
    feedback: Option<Feedback<T>>,
    loss: Loss,
    optimizer: Optimizer,
    schedule: Schedule,
    max_norm: Option<f64>,
    batch_size: usize,
    seed: u64,
    stopping: Option<StoppingRule>,
}

impl<T: Scalar> TrainerBuilder<T> {
    /// The learning rule; [`FeedbackRule::Dfa`] by default.
    pub fn rule(mut self, rule: FeedbackRule) -> Self {
        self.rule = rule;
        self.feedback = None;
        self
    }

    /// What feedback matrices are drawn from; [`FeedbackInit::Nokland`] by default.
    pub fn feedback_init(mut self, init: FeedbackInit) -> Self {
        self.feedback_init = init;
        self
    }

    /// A rule with matrices of one's own, in place of [`rule`](Self::rule).
    pub fn feedback(mut self, feedback: Feedback<T>) -> Self {
        self.feedback = Some(feedback);
        self
    }

    /// The loss; [`Loss::SoftmaxCrossEntropy`] by default.
    pub fn loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    /// The optimiser; [`RmsProp::default`](crate::RmsProp::default) by default.
    pub fn optimizer(mut self, optimizer: impl Into<Optimizer>) -> Self {
        self.optimizer = optimizer.into();
        self
    }

    /// The schedule of the learning rate; constant by default.
    pub fn schedule(mut self, schedule: impl Into<Schedule>) -> Self {
        self.schedule = schedule.into();
        self
    }

    /// A bound on the norm of every unit's incoming weights; none by default.
    pub fn max_norm(mut self, max_norm: f64) -> Self {
        self.max_norm = Some(max_norm);
        self
    }

    /// Samples in a step of [`Trainer::epoch`]; 64 by default.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// The seed of the feedback matrices and of the order of samples; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// When [`Trainer::is_finished`] says so; never by default.
    pub fn stopping(mut self, rule: StoppingRule) -> Self {
        self.stopping = Some(rule);
        self
    }

    /// Draws the feedback matrices.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a hyper-parameter out of its range,
    /// [`Error::SoftmaxNeedsTwoOutputs`], [`Error::StageMismatch`] for feedback of another
    /// network, and [`Error::CannotLearn`] for a network whose weights are all zero where the rule
    /// cannot leave that point: BP with a hidden layer, IFA with two or more, any rule with a
    /// hidden ReLU.
    pub fn build(self) -> Result<Trainer<T>> {
        let Self { network, .. } = self;
        require_batch_size(self.batch_size)?;
        self.loss.check_outputs(network.outputs())?;
        let mut optimizer =
            OptimizerState::new(&network, self.optimizer)?.with_schedule(self.schedule)?;
        if let Some(max_norm) = self.max_norm {
            optimizer = optimizer.with_max_norm(max_norm)?;
        }
        if let Some(rule) = self.stopping {
            rule.check()?;
        }
        let feedback = match self.feedback {
            Some(feedback) => feedback,
            None => Feedback::new(&network, self.rule, self.feedback_init, self.seed)?,
        };
        feedback.require_network(&network)?;
        require_movable(&network, feedback.rule())?;
        Ok(Trainer {
            network,
            feedback,
            feedback_init: self.feedback_init,
            loss: self.loss,
            optimizer,
            batch_size: self.batch_size,
            seed: self.seed,
            stopping: self.stopping,
            running_error: 1.0,
            epochs: 0,
            scratch: Scratch {
                activations: Activations::new(),
                deltas: Deltas::new(),
                gradients: Gradients::new(),
                order: Vec::new(),
                targets: BatchTargets::Labels(Vec::new()),
            },
        })
    }
}

/// Stops by a running average of the training error: `m ← μ m + (1 − μ) E` after every epoch,
/// from `m = 1`; finished at `m ≤ threshold`. `E` is the error rate counted on the training
/// passes as they happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoppingRule {
    /// `μ` in `[0, 1)`; 0.75 by default.
    pub momentum: f64,
    /// At least 0; 1e-4 by default.
    pub threshold: f64,
}

impl Default for StoppingRule {
    /// The rule of Nøkland (2016), who also stops at 300 epochs.
    fn default() -> Self {
        Self { momentum: 0.75, threshold: 1e-4 }
    }
}

impl StoppingRule {
    fn average(self, average: f64, error: f64) -> f64 {
        self.momentum * average + (1.0 - self.momentum) * error
    }

    fn check(self) -> Result<()> {
        let momentum = (0.0..1.0).contains(&self.momentum);
        require(momentum, "momentum", self.momentum, "a number from 0 up to, not including, 1")?;
        require(self.threshold >= 0.0, "threshold", self.threshold, "a number of at least 0")
    }
}

/// What one training step saw, before it changed the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// `J`, the mean loss of the batch.
    pub loss: f64,
    /// Samples in the batch.
    pub samples: usize,
    /// Samples put into the wrong class; `None` where targets are real values.
    pub errors: Option<usize>,
}

/// What the training passes of one epoch saw, as they happened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epoch {
    /// Number of the epoch, counted from 1.
    pub number: u64,
    /// Mean loss of a sample.
    pub loss: f64,
    /// Share of samples put into the wrong class, from 0 to 1; `None` where targets are real
    /// values.
    pub error_rate: Option<f64>,
    /// The learning rate of the epoch's first step.
    pub learning_rate: f64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {:>3}  ", self.number)?;
        write_scores(f, self.loss, self.error_rate)
    }
}

/// How a network does on a dataset.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// Mean loss of a sample.
    pub loss: f64,
    /// Share of samples put into the wrong class, from 0 to 1; `None` where targets are real
    /// values.
    pub error_rate: Option<f64>,
    /// Which classes are taken for which; `None` where targets are real values.
    pub confusion: Option<ConfusionMatrix>,
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scores(f, self.loss, self.error_rate)
    }
}

fn write_scores(f: &mut fmt::Formatter<'_>, loss: f64, error_rate: Option<f64>) -> fmt::Result {
    write!(f, "loss {loss:.4}")?;
    match error_rate {
        Some(rate) => write!(f, "  error {:.2} %", 100.0 * rate),
        None => Ok(()),
    }
}

/// How often samples of one class were taken for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// Row after row; a row is an actual class.
    counts: Vec<usize>,
}

impl ConfusionMatrix {
    fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    fn add(&mut self, actual: usize, predicted: usize) {
        self.counts[actual * self.classes + predicted] += 1;
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Samples of class `actual` that were taken for `predicted`; 0 for classes there are not.
    #[must_use]
    pub fn count(&self, actual: usize, predicted: usize) -> usize {
        let known = actual < self.classes && predicted < self.classes;
        if known { self.counts[actual * self.classes + predicted] } else { 0 }
    }
}

impl fmt::Display for ConfusionMatrix {
    /// A row for each actual class, a column for each predicted one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.counts.iter().copied().max().unwrap_or(0).max(self.classes);
        let width = largest.to_string().len().max(2);
        write!(f, "actual \\ predicted")?;
        (0..self.classes).try_for_each(|class| write!(f, " {class:>width$}"))?;
        for (class, row) in self.counts.chunks_exact(self.classes).enumerate() {
            write!(f, "\n{class:>18}")?;
            row.iter().try_for_each(|count| write!(f, " {count:>width$}"))?;
        }
        Ok(())
    }
}

/// Adds up what steps saw.
#[derive(Default)]
struct Tally {
    loss: f64,
    samples: usize,
    errors: Option<usize>,
}

impl Tally {
    fn add(&mut self, step: &Step) {
        self.loss += step.loss * step.samples as f64;
        self.samples += step.samples;
        self.errors = step.errors.map(|errors| self.errors.unwrap_or(0) + errors);
    }

    fn loss(&self) -> f64 {
        self.loss / self.samples as f64
    }

    fn error_rate(&self) -> Option<f64> {
        self.errors.map(|errors| errors as f64 / self.samples as f64)
    }
}
