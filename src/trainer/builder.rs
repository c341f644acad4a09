//! Setting up a trainer.

use super::{
    require::{require_movable, require_statistics},
    state::{Scratch, Trainer},
    stopping::StoppingRule,
};
use crate::{
    adversarial::FastGradientSign,
    data::{Augmentation, require_batch_size},
    error::{Error, Result},
    feedback::Feedback,
    init::FeedbackInit,
    loss::{Loss, require_class_weights},
    network::Network,
    optimizer::{Optimizer, OptimizerState, Schedule},
    rule::FeedbackRule,
    scalar::Scalar,
    signal::Signal,
    targets::BatchTargets,
    threads::Threads,
    workspace::{Activations, Deltas, Gradients},
};

/// Sets up a [`Trainer`].
#[derive(Clone, Debug)]
#[must_use = "a trainer comes of `.build()`"]
pub struct TrainerBuilder<T> {
    network: Network<T>,
    rule: Option<FeedbackRule>,
    feedback_init: Option<FeedbackInit>,
    feedback: Option<Feedback<T>>,
    signal: Option<Signal>,
    aligned: bool,
    prior: Option<Vec<f64>>,
    loss: Loss,
    class_weights: Option<Vec<f64>>,
    optimizer: Optimizer,
    feedback_optimizer: Option<Optimizer>,
    schedule: Schedule,
    max_norm: Option<f64>,
    rate_factors: Vec<(usize, f64)>,
    batch_size: usize,
    drop_last: bool,
    seed: u64,
    stopping: Option<StoppingRule>,
    augmentation: Option<Augmentation>,
    adversarial: Option<f64>,
    threads: Option<usize>,
}

impl<T: Scalar> Trainer<T> {
    /// Starts a trainer of `network`.
    pub fn builder(network: Network<T>) -> TrainerBuilder<T> {
        TrainerBuilder::new(network)
    }
}

impl<T: Scalar> TrainerBuilder<T> {
    fn new(network: Network<T>) -> Self {
        Self {
            network,
            rule: None,
            feedback_init: None,
            feedback: None,
            signal: None,
            aligned: false,
            prior: None,
            loss: Loss::default(),
            class_weights: None,
            optimizer: Optimizer::default(),
            feedback_optimizer: None,
            schedule: Schedule::default(),
            max_norm: None,
            rate_factors: Vec::new(),
            batch_size: 64,
            drop_last: false,
            seed: 0,
            stopping: None,
            augmentation: None,
            adversarial: None,
            threads: None,
        }
    }

    /// The learning rule; [`FeedbackRule::Dfa`] by default.
    pub fn rule(mut self, rule: FeedbackRule) -> Self {
        self.rule = Some(rule);
        self
    }

    /// What feedback matrices are drawn from; [`FeedbackInit::Nokland`] by default.
    pub fn feedback_init(mut self, init: FeedbackInit) -> Self {
        self.feedback_init = Some(init);
        self
    }

    /// Feedback with your own matrices or route, in place of [`rule`](Self::rule) and
    /// [`feedback_init`](Self::feedback_init).
    pub fn feedback(mut self, feedback: Feedback<T>) -> Self {
        self.feedback = Some(feedback);
        self
    }

    /// The signal that hidden layers receive in place of the error; the error itself by default. With
    /// it any rule can learn from a centred error, which shortens the stall at the start of training,
    /// or from a ternary one. Such feedback has no rule's name, so a checkpoint saves its route.
    /// [`Trainer::set_rule`] goes back to the error, and [`Feedback::set_signal`] sets any signal.
    ///
    /// ```
    /// use feedback_alignment::{FeedbackRule, Network, Signal, Threshold, Trainer};
    ///
    /// let network = Network::<f32>::builder(2).dense(8).tanh().dense(8).tanh().dense(2).build()?;
    /// let trainer = Trainer::builder(network)
    ///     .rule(FeedbackRule::Fa)
    ///     .signal(Signal::ErrorCentred(Threshold::ZERO))
    ///     .build()?;
    /// assert_eq!(trainer.feedback().rule_name(), "3:R(centred>0.0)->1,R(1)->0");
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signal = Some(signal);
        self
    }

    /// Starts with feedback matrices along the weights that they stand in for, see [`Feedback::align`];
    /// off by default. Matrices that [`Trainer::set_rule`] draws later are not aligned.
    pub fn aligned(mut self) -> Self {
        self.aligned = true;
        self
    }

    /// The mean target of each output. The output bias starts from it, see
    /// [`Network::set_output_prior`]. For class labels it is the share of each class,
    /// [`Dataset::mean_target`](crate::Dataset::mean_target). By default the bias stays as it was
    /// drawn.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::DMatrix};
    ///
    /// let x = DMatrix::from_fn(2, 40, |i, j| ((i * 7 + j * 3) % 11) as f32 / 11.0);
    /// let data = Dataset::new(x, (0..40).map(|j| usize::from(j % 4 == 3)).collect())?;
    /// let network = Network::<f32>::builder(2).dense(8).tanh().dense(2).build()?;
    /// let trainer = Trainer::builder(network).prior(data.mean_target(2)?).build()?;
    /// let bias = trainer.network().layer(1)?.bias().unwrap().into_owned();
    /// assert_eq!(bias.as_slice(), [0.75_f32.ln(), 0.25_f32.ln()]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    pub fn prior(mut self, prior: impl Into<Vec<f64>>) -> Self {
        self.prior = Some(prior.into());
        self
    }

    /// The loss; [`Loss::SoftmaxCrossEntropy`] by default.
    pub fn loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    /// A weight `w_c` for each class, so that rare classes are not neglected. The loss of steps, epochs
    /// and evaluations becomes `J = Σ w_{y_i} ℓ_i / Σ w_{y_i}` over each batch. By default all classes
    /// count the same. Error rates and confusion matrices always count samples. See
    /// [`Loss::error_weighted`].
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::DMatrix};
    ///
    /// // Three samples of class 0 for each of class 1.
    /// let x = DMatrix::from_fn(2, 40, |i, j| ((i * 7 + j * 3) % 11) as f32 / 11.0);
    /// let data = Dataset::new(x, (0..40).map(|j| usize::from(j % 4 == 3)).collect())?;
    /// let network = Network::<f32>::builder(2).dense(2).build()?;
    /// let mut trainer = Trainer::builder(network).class_weights([40.0 / 30.0, 40.0 / 10.0]).build()?;
    /// trainer.epoch(&data)?;
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    pub fn class_weights(mut self, weights: impl Into<Vec<f64>>) -> Self {
        self.class_weights = Some(weights.into());
        self
    }

    /// The optimiser; [`RmsProp::default`](crate::RmsProp::default) by default.
    pub fn optimizer(mut self, optimizer: impl Into<Optimizer>) -> Self {
        self.optimizer = optimizer.into();
        self
    }

    /// A separate optimiser for feedback that learns, as under KP, DKP, FDFA and PFA; by default it is
    /// the network's. See [`set_feedback_optimizer`](OptimizerState::set_feedback_optimizer).
    pub fn feedback_optimizer(mut self, optimizer: impl Into<Optimizer>) -> Self {
        self.feedback_optimizer = Some(optimizer.into());
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

    /// Multiplies the learning rate of layer `layer`, counted from 0, by `factor`; 1 by default. See
    /// [`OptimizerState::set_rate_factor`]. A fast output layer (a factor of 10 is good) soon learns
    /// how often each class occurs. That ends the stall of deep networks under DFA.
    pub fn rate_factor(mut self, layer: usize, factor: f64) -> Self {
        self.rate_factors.push((layer, factor));
        self
    }

    /// Samples in a step of [`Trainer::epoch`]; 64 by default.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Leaves out the last batch of an epoch if it is smaller than the others; off by default. This
    /// helps batch normalisation, whose statistics are poor on a small batch.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The seed of the feedback matrices and of the order of samples; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// When [`Trainer::is_finished`] becomes true; never by default.
    pub fn stopping(mut self, rule: StoppingRule) -> Self {
        self.stopping = Some(rule);
        self
    }

    /// Varies the images of each epoch of [`Trainer::epoch`] at random; off by default.
    pub fn augmentation(mut self, augmentation: Augmentation) -> Self {
        self.augmentation = Some(augmentation);
        self
    }

    /// Trains on samples perturbed by [`FastGradientSign`] of this `epsilon` instead of the
    /// samples themselves; off by default.
    pub fn adversarial(mut self, epsilon: f64) -> Self {
        self.adversarial = Some(epsilon);
        self
    }

    /// How many threads steps and evaluations may use. The results do not depend on it.
    ///
    /// By default the threads are those of the rayon pool that the caller runs in, or of the global
    /// pool. The global pool has one thread per core unless `RAYON_NUM_THREADS` says otherwise. With a
    /// number, the trainer has a pool of its own; with 1 it works on the caller's thread only. If a
    /// network is too small for sharing to pay, its step runs on one thread. Without the feature
    /// `parallel` there is always one thread.
    ///
    /// The number is not saved in a checkpoint, because training may continue on another machine. There
    /// [`Trainer::set_threads`] sets it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Draws the feedback matrices.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a hyper-parameter out of its range. [`Error::ShapeMismatch`] for
    /// an augmentation of images of another shape, or if the number of class weights is not the number
    /// of classes. [`Error::SoftmaxNeedsTwoOutputs`]. [`Error::StageMismatch`] for feedback of another
    /// network. [`Error::NoSuchLayer`] for the [rate factor](Self::rate_factor) of a layer that does
    /// not exist. Those of [`Network::set_output_prior`] for a [prior](Self::prior).
    ///
    /// [`Error::Conflict`] if one setting makes another useless:
    ///
    /// - a rule beside feedback of another rule,
    /// - a distribution beside feedback with its own matrices,
    /// - weights that [`Init::nokland`](crate::Init::nokland) drew for another rule,
    /// - batch normalisation after a layer that no feedback leads to and that is not frozen,
    /// - a [signal](Self::signal) if no hop sends the error,
    /// - [aligned](Self::aligned) matrices if there is nothing to align.
    ///
    /// [`Error::CannotLearn`] for a network whose weights are all zero, whatever its biases, if feedback
    /// would not change that: it passes through the weights (BP with a hidden layer, IFA with two or
    /// more), or learns what they do (FDFA), or a ReLU receives nothing because no residual connection
    /// leads to it. And for a hidden layer of zeros that no feedback leads to (shallow) and no residual
    /// connection leads past.
    ///
    /// [`Error::CannotLearn`]: crate::Error::CannotLearn
    /// [`Error::Conflict`]: crate::Error::Conflict
    /// [`Error::InvalidParameter`]: crate::Error::InvalidParameter
    /// [`Error::NoSuchLayer`]: crate::Error::NoSuchLayer
    /// [`Error::ShapeMismatch`]: crate::Error::ShapeMismatch
    /// [`Error::SoftmaxNeedsTwoOutputs`]: crate::Error::SoftmaxNeedsTwoOutputs
    /// [`Error::StageMismatch`]: crate::Error::StageMismatch
    pub fn build(self) -> Result<Trainer<T>> {
        let Self { mut network, .. } = self;
        require_batch_size(self.batch_size)?;
        self.loss.check_outputs(network.output_len())?;
        if let Some(weights) = &self.class_weights {
            require_class_weights(weights, network.output_len())?;
        }
        let mut optimizer =
            OptimizerState::new(&network, self.optimizer)?.with_schedule(self.schedule)?;
        optimizer.set_feedback_optimizer(self.feedback_optimizer)?;
        if let Some(max_norm) = self.max_norm {
            optimizer = optimizer.with_max_norm(max_norm)?;
        }
        for (layer, factor) in self.rate_factors {
            optimizer.set_rate_factor(layer, factor)?;
        }
        if let Some(rule) = self.stopping {
            rule.check()?;
        }
        if let Some(augmentation) = &self.augmentation {
            augmentation.require_fits(network.input_len())?;
        }
        let threads = self.threads.map(Threads::new).transpose()?.unwrap_or_default();
        require_no_conflict(self.rule, self.feedback_init, self.feedback.as_ref())?;
        let feedback_init = self.feedback_init.unwrap_or_default();
        let mut feedback = if let Some(feedback) = self.feedback {
            feedback
        } else {
            let rule = self.rule.unwrap_or(FeedbackRule::Dfa);
            Feedback::new(&network, rule, feedback_init, self.seed)?
        };
        feedback.require_network(&network)?;
        require_drawn_for(&network, &feedback)?;
        require_movable(&network, &feedback)?;
        require_statistics(&network, &feedback)?;
        if let Some(signal) = self.signal {
            feedback.set_signal(signal)?;
        }
        if self.aligned {
            feedback.align(&network)?;
        }
        if let Some(prior) = &self.prior {
            network.set_output_prior(self.loss, prior)?;
        }
        let adversarial =
            self.adversarial.map(|epsilon| FastGradientSign::new(&network, epsilon)).transpose()?;
        Ok(Trainer {
            augmentation: self.augmentation,
            adversarial,
            network,
            feedback,
            feedback_init,
            loss: self.loss,
            class_weights: self.class_weights.unwrap_or_default(),
            optimizer,
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            seed: self.seed,
            stopping: self.stopping,
            running_error: 1.0,
            epochs: 0,
            threads,
            scratch: Scratch {
                activations: Activations::seeded(self.seed),
                deltas: Deltas::new(),
                order: Vec::new(),
                targets: BatchTargets::Labels(Vec::new()),
                gradients: Gradients::new(),
            },
        })
    }
}

/// Fails if the user gives feedback together with settings that it makes useless.
fn require_no_conflict<T: Scalar>(
    rule: Option<FeedbackRule>,
    init: Option<FeedbackInit>,
    feedback: Option<&Feedback<T>>,
) -> Result<()> {
    let Some(feedback) = feedback else { return Ok(()) };
    let own = format!(".feedback(..) of {}", feedback.rule_name());
    if let Some(rule) = rule.filter(|&rule| Some(rule) != feedback.rule()) {
        let reason = "feedback brings its own rule, so leave .rule(..) out";
        return Err(Error::Conflict { first: format!(".rule({rule})"), second: own, reason });
    }
    if let Some(init) = init {
        let reason = "feedback brings its own matrices, so nothing is drawn";
        let first = format!(".feedback_init({init:?})");
        return Err(Error::Conflict { first, second: own, reason });
    }
    Ok(())
}

/// Fails if the weights were drawn for another rule. Feedback on a route without a name always passes.
fn require_drawn_for<T: Scalar>(network: &Network<T>, feedback: &Feedback<T>) -> Result<()> {
    let another = |&drawn: &FeedbackRule| feedback.rule().is_some_and(|rule| rule != drawn);
    let Some(other) = network.drawn_for.filter(another) else { return Ok(()) };
    Err(Error::Conflict {
        first: format!("Init::nokland({other})"),
        second: format!("the rule {}", feedback.rule_name()),
        reason: "the paper's initialisation depends on the rule: name the same one in both places",
    })
}
