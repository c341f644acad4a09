//! The training loop: the five stages in a row, epoch after epoch.

mod builder;
#[cfg(feature = "safetensors")]
mod checkpoint;
mod early_stopping;
mod scores;
mod setters;
#[cfg(feature = "safetensors")]
mod settings;

use nalgebra::DMatrix;

pub use builder::TrainerBuilder;
pub use early_stopping::EarlyStopping;
pub use scores::{ConfusionMatrix, Epoch, Evaluation, Step};

use scores::Tally;

use crate::{
    activation::Activation,
    adversarial::FastGradientSign,
    buffer::{Columns, Pass},
    data::{Augmentation, BatchTargets, Dataset},
    error::{Error, Result, require, require_finite, require_shape},
    feedback::Feedback,
    init::FeedbackInit,
    layer::Operation,
    loss::{Loss, Targets},
    network::{EVALUATION_BATCH, Network},
    optimizer::OptimizerState,
    rule::FeedbackRule,
    scalar::Scalar,
    threads::Threads,
    vector::bound_of_squares,
    workspace::{Activations, Deltas},
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

/// Memory that steps and evaluations use again and again.
#[derive(Clone, Debug)]
struct Scratch<T> {
    activations: Activations<T>,
    deltas: Deltas<T>,
    order: Vec<usize>,
    targets: BatchTargets<T>,
}

impl<T: Scalar> Trainer<T> {
    /// Starts a trainer of `network`.
    pub fn builder(network: Network<T>) -> TrainerBuilder<T> {
        TrainerBuilder::new(network)
    }

    /// One training step on the samples `x`, of shape `n_0 × N`.
    ///
    /// # Errors
    /// Those of [`Network::forward`] and [`Loss::error`] for inputs and targets that do not fit,
    /// [`Error::NonFiniteLoss`], or [`Error::NonFinite`] for an overflow in a layer that the loss
    /// does not see and for a step that would leave a parameter that is not finite. Weights,
    /// moments, running statistics and counters are then as they were.
    pub fn step<'a>(&mut self, x: &DMatrix<T>, targets: impl Into<Targets<'a, T>>) -> Result<Step> {
        let targets = targets.into();
        let threads = self.threads.clone();
        threads.run(self.network.work(x.ncols()), || {
            self.scratch.activations.set_time(self.optimizer.steps());
            self.network.forward_unchecked(x, &mut self.scratch.activations)?;
            self.learn(&targets)
        })
    }

    /// One epoch: every sample once, in an order drawn from the seed and the epoch's number, in
    /// batches of which the last may be smaller, or is [left out](TrainerBuilder::drop_last).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, those of [`Loss::error`] for
    /// targets that do not fit, [`Error::BatchTooSmall`] if batch normalisation would see a single
    /// value in the last batch or if no batch is whole, [`Error::NoClasses`] if a stopping rule has
    /// no error rate to go by, all before anything is learned; [`Error::NonFiniteLoss`] or
    /// [`Error::NonFinite`] in the step that finds it, with the weights as they were before it.
    pub fn epoch(&mut self, train: &Dataset<T>) -> Result<Epoch> {
        self.check(train)?;
        self.check_batches(train)?;
        let mut order = std::mem::take(&mut self.scratch.order);
        train.shuffle(self.seed, self.epochs, &mut order);
        let learning_rate = self.optimizer.learning_rate();
        let mut tally = Tally::default();
        let threads = self.threads.clone();
        let whole = if self.drop_last { train.len() % self.batch_size } else { 0 };
        let kept = &order[..order.len() - whole];
        let result = threads.run(self.network.work(self.batch_size), || {
            kept.chunks(self.batch_size).try_for_each(|indices| {
                tally.add(&self.step_on(train, indices)?);
                Ok(())
            })
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
        activations.fit(&self.network.layout, indices.len())?;
        train.gather_inputs(indices, activations.input.as_mut_slice());
        train.gather_targets(indices, targets);
        activations.set_time(self.optimizer.steps());
        if let Some(augmentation) = &self.augmentation {
            let x = activations.input.as_mut_slice();
            augmentation.apply_to_batch(self.seed, self.epochs, indices, x);
        }
        activations.input_squares = bound_of_squares(activations.input.as_slice());
        let pass = activations.next_pass();
        self.network.forward_loaded(activations, pass);
        let targets = std::mem::replace(targets, BatchTargets::Labels(Vec::new()));
        let step = self.learn(&targets.as_targets());
        self.scratch.targets = targets;
        step
    }

    /// Perturbs the samples of the last forward pass, where that is wanted, and passes again.
    fn perturb(&mut self, targets: &Targets<T>) -> Result<()> {
        let Some(attack) = &mut self.adversarial else { return Ok(()) };
        let activations = &mut self.scratch.activations;
        let mut x = std::mem::take(&mut activations.input);
        let result =
            attack.add_to(x.as_mut_slice(), &self.network, self.loss, activations, targets);
        activations.input = x;
        result?;
        activations.input_squares = bound_of_squares(activations.input.as_slice());
        activations.set_time(self.optimizer.steps());
        let pass = activations.next_pass();
        self.network.forward_loaded(activations, pass);
        Ok(())
    }

    /// Stages 2 to 5, after a forward pass.
    fn learn(&mut self, targets: &Targets<T>) -> Result<Step> {
        self.perturb(targets)?;
        let Scratch { activations, deltas, .. } = &mut self.scratch;
        let loss = self.loss.error(*targets, activations, deltas)?;
        if !loss.is_finite() {
            let (epoch, step) = (self.epochs + 1, self.optimizer.steps() + 1);
            return Err(Error::NonFiniteLoss { loss, epoch, step });
        }
        activations.require_finite()?;
        let errors = count_errors(self.loss, targets, activations.logit_columns()?);
        self.optimizer.deliver_and_learn(&mut self.network, &self.feedback, activations, deltas)?;
        Ok(Step { loss, samples: targets.len(), errors })
    }

    /// Loss, error rate and confusion matrix on a dataset; changes nothing.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], those of [`Loss::error`] for targets that do not fit, and
    /// [`Error::NonFinite`] where a layer or the loss overflows.
    pub fn evaluate(&mut self, data: &Dataset<T>) -> Result<Evaluation> {
        self.check(data)?;
        let threads = self.threads.clone();
        threads.run(self.network.work(EVALUATION_BATCH), || self.evaluate_checked(data))
    }

    fn evaluate_checked(&mut self, data: &Dataset<T>) -> Result<Evaluation> {
        let mut tally = Tally::default();
        let mut confusion = Some(ConfusionMatrix::new(self.network.outputs().max(2)));
        let mut e = Columns::new(self.network.outputs());
        let order: Vec<usize> = (0..data.len()).collect();
        for indices in order.chunks(EVALUATION_BATCH) {
            let Scratch { activations, targets, .. } = &mut self.scratch;
            activations.fit(&self.network.layout, indices.len())?;
            data.gather_inputs(indices, activations.input.as_mut_slice());
            data.gather_targets(indices, targets);
            self.network.forward_loaded(activations, Pass::Evaluation);
            activations.require_finite()?;
            e.set_batch(indices.len())?;
            let logits = activations.logit_columns()?;
            let targets = targets.as_targets();
            let loss = self.loss.evaluate(&targets, logits, &mut e);
            require_finite(|| "the loss of the evaluation".into(), 1, &[loss])?;
            let errors = count_errors(self.loss, &targets, logits);
            tally.add(&Step { loss, samples: indices.len(), errors });
            if errors.is_none() {
                confusion = None;
            }
            if let Some(confusion) = &mut confusion {
                let columns = logits.as_slice().chunks_exact(logits.rows()).enumerate();
                for (sample, z) in columns {
                    let actual = targets.class(sample, self.loss).expect("errors were counted");
                    confusion.add(actual, self.loss.class(z));
                }
            }
        }
        Ok(Evaluation { loss: tally.loss(), error_rate: tally.error_rate(), confusion })
    }

    /// The share of samples whose class is not among the `k` that the network takes for the most
    /// likely, from 0 to 1; of equal logits the first counts as more likely. With `k = 1` it is
    /// the error rate.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::{DMatrix, DVector}};
    ///
    /// let mut network = Network::<f32>::builder(1).dense(3).build()?;
    /// network.set_weights(0, DMatrix::zeros(3, 1))?;
    /// network.set_bias(0, DVector::from_column_slice(&[1.0, 3.0, 2.0]))?;
    /// let trainer = Trainer::builder(network).build()?;
    /// let data = Dataset::new(DMatrix::zeros(1, 4), vec![0, 1, 1, 2])?;
    /// assert_eq!(trainer.top_k_error(&data, 1)?, 0.5);
    /// assert_eq!(trainer.top_k_error(&data, 2)?, 0.25);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`evaluate`](Self::evaluate); [`Error::InvalidParameter`] unless `k` is from 1 to
    /// the number of outputs, of which there are at least two; [`Error::NoClasses`].
    pub fn top_k_error(&self, data: &Dataset<T>, k: usize) -> Result<f64> {
        self.check(data)?;
        let outputs = self.network.outputs();
        let valid = (1..=outputs).contains(&k) && outputs > 1;
        require(valid, "k", k as f64, "a number from 1 to that of the outputs, at least two")?;
        self.threads.run(self.network.work(EVALUATION_BATCH), || self.top_k_error_checked(data, k))
    }

    fn top_k_error_checked(&self, data: &Dataset<T>, k: usize) -> Result<f64> {
        let outputs = self.network.outputs();
        let mut wrong = 0_usize;
        let order: Vec<usize> = (0..data.len()).collect();
        let (mut activations, mut targets) = (Activations::new(), BatchTargets::Labels(Vec::new()));
        for indices in order.chunks(EVALUATION_BATCH) {
            activations.fit(&self.network.layout, indices.len())?;
            data.gather_inputs(indices, activations.input.as_mut_slice());
            data.gather_targets(indices, &mut targets);
            self.network.forward_loaded(&mut activations, Pass::Evaluation);
            activations.require_finite()?;
            let logits = activations.logit_columns()?;
            for (sample, z) in logits.as_slice().chunks_exact(outputs).enumerate() {
                let class = targets.as_targets().class(sample, self.loss);
                let class = class.ok_or(Error::NoClasses { what: "the top-k error" })?;
                let (below, above) = z.split_at(class);
                let ahead = below.iter().filter(|&&other| other >= z[class]).count()
                    + above.iter().filter(|&&other| other > z[class]).count();
                wrong += usize::from(ahead >= k);
            }
        }
        Ok(wrong as f64 / data.len() as f64)
    }

    /// The class of each column of `x`, under the loss.
    ///
    /// # Errors
    /// As for [`Network::predict`].
    pub fn predict_classes(&self, x: &DMatrix<T>) -> Result<Vec<usize>> {
        let work = self.network.work(x.ncols());
        self.threads.run(work, || self.loss.classes(&self.network.predict(x)?))
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
    /// [`Error::NoSuchLayer`].
    pub fn release(&mut self, layer: usize) -> Result<()> {
        self.network.release(layer)
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
            augmentation.require_fits(self.network.inputs())?;
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
            (self.network.inputs(), data.len()),
            (data.features(), data.len()),
        )?;
        self.loss.check(&data.targets(), self.network.outputs(), data.len())
    }
}

/// How many samples are in the wrong class; unknown where targets are no classes.
fn count_errors<T: Scalar>(loss: Loss, targets: &Targets<T>, logits: &Columns<T>) -> Option<usize> {
    let mut columns = logits.as_slice().chunks_exact(logits.rows());
    if let Targets::Labels(labels) = targets {
        return Some(
            labels.iter().zip(columns).filter(|&(&label, z)| loss.class(z) != label).count(),
        );
    }
    (0..targets.len()).try_fold(0, |errors, sample| {
        let class = targets.class(sample, loss)?;
        Some(errors + usize::from(loss.class(columns.next()?) != class))
    })
}

/// Fails if nothing would move under `rule`: weights that are all zero stop some of the signals.
fn require_movable<T: Scalar>(network: &Network<T>, rule: FeedbackRule) -> Result<()> {
    let hidden = &network.blocks[..network.layers() - 1];
    if network.blocks.iter().any(|block| block.layer.weights.iter().any(|&w| w != T::zero())) {
        return Ok(());
    }
    let relu = hidden
        .iter()
        .any(|block| block.operations.contains(&Operation::Activation(Activation::Relu)));
    let reason = match rule {
        _ if relu => "a ReLU unit that receives nothing has a derivative of 0",
        FeedbackRule::Bp if !hidden.is_empty() => "the error travels back through the weights",
        FeedbackRule::Ifa if hidden.len() > 1 => "the signal travels up through the weights",
        _ => return Ok(()),
    };
    Err(Error::CannotLearn { rule: rule.to_string(), reason })
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
