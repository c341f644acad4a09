//! Looking inside a network at one moment of its training.

use std::borrow::Cow;

use nalgebra::{DMatrix, DMatrixView};

use super::{
    activity::{effective_rank, participation, sample_cosine},
    report::{Diagnosis, LayerDiagnosis},
    weights::feedback_angles,
};
use crate::{
    angle::{angle, distance, norm},
    buffer::When,
    error::{Error, Result, require, require_finite, require_shape},
    feedback::Feedback,
    init::FeedbackInit,
    layer::Operation,
    linalg::zero_matrix,
    network::{Block, Network},
    rule::FeedbackRule,
    scalar::Scalar,
    targets::Targets,
    trainer::Trainer,
    workspace::{
        Activations, BlockActivations, BlockDeltas, Deltas, Gradients, common_mode,
        mean_over_batch, require_delivered,
    },
};

/// Shows how well a network learns: the angles between the rule's deltas and those of backpropagation,
/// the alignment of the weights with the feedback, norms, saturated units, how many units can still
/// learn, and whether the layers still tell samples apart. [`descent`](Self::descent) tells how much a
/// step lowers the loss.
///
/// The angle of layer `l` is between the rule's `δ_l` and backpropagation's. Both come from the same
/// activations and the same `e`, and each counts as one vector of `n_l · N` numbers:
///
/// ```text
/// angle(u, v) = arccos( ⟨u, v⟩ / (‖u‖ ‖v‖) ) · 180°/π
/// ```
///
/// Below 90° a small step along the rule's delta still lowers the loss. Lillicrap et al. (2016) show
/// that this angle falls while a network learns by feedback alignment, because the weights align with
/// the random feedback. Nøkland (2016) shows the same for direct feedback. Refinetti et al. (2021) show
/// that the layers align first and fit the data afterwards.
///
/// A diagnosis takes as long as two or three training steps: one training pass, and the deltas and
/// gradients of both the rule and backpropagation. In addition it computes the eigenvalues of a matrix
/// with a row for each unit of a layer, or for each sample if there are fewer. It stores a copy of the
/// starting weights, and scratch memory. Angles and norms are computed in `f64` for every scalar type.
/// The trainer is only read, and training without a diagnosis costs nothing extra.
///
/// ```
/// use feedback_alignment::{Diagnostics, FeedbackRule, Network, Sgd, Trainer, nalgebra::DMatrix};
///
/// let x = DMatrix::from_fn(6, 12, |i, j| ((i * 5 + j * 3) % 7) as f64 / 3.0 - 1.0);
/// let labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2];
/// let network = Network::<f64>::builder(6).dense(20).tanh().dense(20).tanh().dense(3).build()?;
/// let sgd = Sgd { learning_rate: 0.5, ..Sgd::default() };
/// let mut trainer =
///     Trainer::builder(network).rule(FeedbackRule::Dfa).optimizer(sgd).build()?;
/// let mut diagnostics = Diagnostics::new(trainer.network())?;
///
/// let before = diagnostics.observe(&trainer, &x, &labels)?;
/// for _ in 0..200 {
///     trainer.step(&x, &labels)?;
/// }
/// let after = diagnostics.observe(&trainer, &x, &labels)?;
/// println!("{after}");
/// for (before, after) in before.hidden().iter().zip(after.hidden()) {
///     assert!(after.delta_angle.unwrap() < before.delta_angle.unwrap());
///     assert!(after.change_norm > 0.0);
/// }
/// assert_eq!(after.layers[2].delta_angle, Some(0.0)); // The output layer is taught the same.
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Diagnostics<T> {
    /// A unit is saturated beyond this fraction of the way from the middle of its range to a bound.
    saturation: f64,
    /// `W_l⁰`, the starting weights.
    start: Vec<DMatrix<T>>,
    backpropagation: Feedback<T>,
    activations: Activations<T>,
    deltas: Deltas<T>,
    bp_deltas: Deltas<T>,
    gradients: Gradients<T>,
    /// The gradients of backpropagation from the last call.
    pub(super) bp_gradients: Gradients<T>,
}

impl<T: Scalar> Diagnostics<T> {
    /// Diagnostics for networks with the layers of this one. Its weights are the `W_l⁰` that changes
    /// are measured from. The threshold of saturation is 0.99.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if there is not enough memory for a copy of the weights.
    pub fn new(network: &Network<T>) -> Result<Self> {
        let copy = |layer: usize| {
            let (rows, columns) = network.blocks[layer].shape;
            let mut copy = zero_matrix(rows, columns)?;
            copy.copy_from_slice(network.parameters.layer(layer).weights());
            Ok(copy)
        };
        Ok(Self {
            saturation: 0.99,
            start: (0..network.layer_count()).map(copy).collect::<Result<_>>()?,
            backpropagation: Feedback::new(network, FeedbackRule::Bp, FeedbackInit::default(), 0)?,
            activations: Activations::new(),
            deltas: Deltas::new(),
            bp_deltas: Deltas::new(),
            gradients: Gradients::new(),
            bp_gradients: Gradients::new(),
        })
    }

    /// Sets the threshold of saturation, in `[0, 1)`; 0.99 by default. A tanh unit is saturated
    /// where `|h| > threshold`, a logistic unit where `|2h − 1| > threshold`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a threshold out of its range.
    pub fn with_saturation(mut self, threshold: f64) -> Result<Self> {
        let valid = (0.0..1.0).contains(&threshold);
        require(valid, "saturation", threshold, "a number from 0 up to, not including, 1")?;
        self.saturation = threshold;
        Ok(self)
    }

    /// What the trainer's next step would learn from the samples `x`, of shape `n_0 × N`. It uses the
    /// dropout masks of that step, and batch normalisation by these samples. If the trainer perturbs
    /// its samples, they are observed without perturbation. Matrices that learn from noise are observed
    /// as they are now.
    ///
    /// # Errors
    /// Those of [`Network::forward`], [`Loss::error`](crate::Loss::error) and
    /// [`compare`](Self::compare).
    pub fn observe<'x, 'a>(
        &mut self,
        trainer: &Trainer<T>,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<Diagnosis> {
        let (network, mut feedback) = (trainer.network(), Cow::Borrowed(trainer.feedback()));
        self.with_pass(trainer, x.into(), &targets.into(), |this, activations, deltas| {
            if feedback.route().has_signs() {
                feedback.to_mut().follow(network, activations)?;
            }
            feedback.deliver(network, activations, deltas)?;
            this.compare(network, &feedback, activations, deltas)
        })
    }

    /// Makes stages 1 and 2 of the trainer's next step, then calls `then`.
    pub(super) fn with_pass<R>(
        &mut self,
        trainer: &Trainer<T>,
        x: DMatrixView<T>,
        targets: &Targets<T>,
        then: impl FnOnce(&mut Self, &Activations<T>, &mut Deltas<T>) -> Result<R>,
    ) -> Result<R> {
        let mut activations = std::mem::take(&mut self.activations);
        let mut deltas = std::mem::take(&mut self.deltas);
        activations.set_seed(trainer.seed());
        let when = When::At(trainer.optimizer().steps());
        let result = trainer
            .network()
            .train_pass(x, &mut activations, when)
            .and_then(|()| activations.require_finite())
            .and_then(|()| {
                let weights = trainer.class_weights().unwrap_or_default();
                trainer.loss().error_by(weights, targets, &activations, &mut deltas)
            })
            .and_then(|_| then(self, &activations, &mut deltas));
        (self.activations, self.deltas) = (activations, deltas);
        result
    }

    /// The same for a program that calls the stages of a step itself. Call it after
    /// [`feedback.deliver`](Feedback::deliver), with that call's arguments. No forward pass is needed:
    /// the error at the output goes back a second time, by backpropagation, into scratch memory of its
    /// own.
    ///
    /// ```
    /// use feedback_alignment::*;
    ///
    /// # let x = nalgebra::DMatrix::from_fn(4, 6, |i, j| ((i * 5 + j * 3) % 7) as f32 / 7.0);
    /// # let labels = [0, 1, 2, 0, 1, 2];
    /// let network = Network::<f32>::builder(4).dense(8).tanh().dense(3).build()?;
    /// let w = network.layer(1)?.weights().into_owned();
    /// let aligned = Feedback::from_matrices(&network, FeedbackRule::Dfa, vec![w.transpose()])?;
    ///
    /// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    /// network.forward(&x, &mut activations)?;
    /// Loss::SoftmaxCrossEntropy.error(&labels, &activations, &mut deltas)?;
    /// aligned.deliver(&network, &activations, &mut deltas)?;
    /// let diagnosis =
    ///     Diagnostics::new(&network)?.compare(&network, &aligned, &activations, &deltas)?;
    /// assert_eq!(diagnosis.hidden()[0].delta_angle, Some(0.0));
    /// assert_eq!(diagnosis.hidden()[0].feedback_angle, Some(0.0));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::StageMismatch`] or [`Error::ShapeMismatch`] if something belongs to another network or
    /// batch, or if the diagnostics were made for another network. [`Error::NonFinite`] if activations,
    /// deltas or gradients have overflowed.
    pub fn compare(
        &mut self,
        network: &Network<T>,
        feedback: &Feedback<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
    ) -> Result<Diagnosis> {
        self.require_network(network)?;
        feedback.require_network(network)?;
        require_delivered("diagnose", &network.layout, activations, deltas)?;
        activations.require_finite()?;

        self.backpropagate(network, activations, deltas)?;
        network.gradients(activations, deltas, &mut self.gradients)?;

        let feedback_angles = feedback_angles(network, feedback)?;
        let layers = (0..network.layer_count()).map(|layer| {
            let feedback_angle = feedback_angles.get(layer).copied().flatten();
            self.layer(layer, network, activations, deltas, feedback_angle)
        });
        Ok(Diagnosis { rule: feedback.rule_name(), layers: layers.collect::<Result<_>>()? })
    }

    /// The deltas and gradients of backpropagation, from the same error.
    pub(super) fn backpropagate(
        &mut self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
    ) -> Result<()> {
        self.bp_deltas.fit(activations)?;
        let e = deltas.blocks[network.layer_count() - 1].delta();
        self.bp_deltas.error_mut().as_mut_slice().copy_from_slice(e.as_slice());
        self.backpropagation.deliver(network, activations, &mut self.bp_deltas)?;
        network.gradients(activations, &self.bp_deltas, &mut self.bp_gradients)
    }

    /// The diagnosis of one layer, after both ways back.
    fn layer(
        &self,
        layer: usize,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
        feedback_angle: Option<f64>,
    ) -> Result<LayerDiagnosis> {
        let finite = |name: &str, rows, values: &'_ [T]| {
            require_finite(|| format!("{name} of weighted layer {layer}"), rows, values)
        };
        let bp_delta = self.bp_deltas.blocks[layer].delta();
        finite("the δ of backpropagation", bp_delta.rows(), bp_delta.as_slice())?;
        // If no feedback has arrived, the memory of the delta holds old numbers without meaning.
        let served = Some(&deltas.blocks[layer]).filter(|block| block.served);
        let delta = served.map_or(&[][..], |block| block.delta().as_slice());
        finite("δ", bp_delta.rows(), delta)?;
        let gradient = self.gradients.of_layer(layer).0.weights();
        let bp_gradient = self.bp_gradients.of_layer(layer).0.weights();
        let block = &network.blocks[layer];
        finite("∂W", block.shape.0, gradient)?;
        finite("the ∂W of backpropagation", block.shape.0, bp_gradient)?;
        let (weights, start) =
            (network.parameters.layer(layer).weights(), self.start[layer].as_slice());
        let records = &activations.blocks[layer];
        let h = records.output();
        Ok(LayerDiagnosis {
            layer,
            delta_angle: (!delta.is_empty()).then(|| angle(delta, bp_delta.as_slice())).flatten(),
            gradient_angle: angle(gradient, bp_gradient),
            feedback_angle,
            weight_norm: norm(weights),
            change_norm: distance(weights, start),
            delta_norm: norm(delta),
            bp_delta_norm: norm(bp_delta.as_slice()),
            gradient_norm: norm(gradient),
            saturated: self.saturated(block, records),
            participation: participation(block, records),
            sample_cosine: sample_cosine(h),
            effective_rank: effective_rank(h)?,
            common_mode: served.map(BlockDeltas::delta).and_then(|delta| {
                let mut mean = Vec::new();
                mean_over_batch(delta, &mut mean);
                common_mode(delta, &mean)
            }),
        })
    }

    /// Fails unless the network has the same layers as the one that the diagnostics were made for.
    pub(super) fn require_network(&self, network: &Network<T>) -> Result<()> {
        let (expected, found) = (self.start.len(), network.layer_count());
        if expected != found {
            return Err(Error::StageMismatch {
                stage: "diagnose",
                what: "the first weights",
                expected: format!("{found} layers"),
                found: format!("{expected} layers"),
            });
        }
        network.blocks.iter().zip(&self.start).enumerate().try_for_each(
            |(layer, (block, start))| {
                let what = || format!("W of weighted layer {layer} in the diagnostics");
                require_shape(what, block.shape, start.shape())
            },
        )
    }

    /// The fraction of saturated units after the last bounded activation of a block.
    fn saturated(&self, block: &Block, activations: &BlockActivations<T>) -> Option<f64> {
        let mut operations = block.operations.iter().zip(&activations.operations).rev();
        let ((low, high), h) = operations.find_map(|(operation, record)| match operation {
            Operation::Activation(activation) => {
                activation.bounds().map(|bounds| (bounds, record.output.as_slice()))
            }
            _ => None,
        })?;
        let (middle, far) = (0.5 * (low + high), 0.5 * self.saturation * (high - low));
        let saturated = h.iter().filter(|h| (h.as_f64() - middle).abs() > far).count();
        Some(saturated as f64 / h.len() as f64)
    }
}
