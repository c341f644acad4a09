//! The network itself: its parts, and the methods to look at them and to set them.

use std::{fmt, sync::Arc};

use nalgebra::{DMatrix, DVector};

use super::block::Block;
use crate::{
    architecture::Architecture,
    error::{Error, Result, require, require_finite, require_shape},
    layer::{Layer, LinearMap, Operation},
    parameters::{Parameters, Part, Slot},
    rule::FeedbackRule,
    scalar::Scalar,
    workspace::Layout,
};

/// A feed-forward network, `a_l = W_l h_{l-1} + b_l`, `h_l = f_l(a_l)`, `h_0 = x`.
///
/// It holds the forward parameters only, so its type is the same for every learning rule. Samples are
/// columns, and layers are counted from 0. The last layer is linear: its outputs are logits, and a
/// [`Loss`](crate::Loss) says what they mean.
///
/// ```
/// use feedback_alignment::{Network, nalgebra::DMatrix};
///
/// let network = Network::<f64>::builder(2).dense(8).tanh().dense(3).build()?;
/// let x = DMatrix::from_column_slice(2, 4, &[0., 0., 0., 1., 1., 0., 1., 1.]);
/// assert_eq!(network.predict(&x)?.shape(), (3, 4));
/// assert_eq!(network.parameter_count(), 8 * 2 + 8 + 3 * 8 + 3);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Network<T> {
    pub(crate) architecture: Architecture,
    pub(crate) layout: Arc<Layout>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) parameters: Parameters<T>,
    /// The rule for which [`Init::Nokland`](crate::Init) drew the weights.
    pub(crate) drawn_for: Option<FeedbackRule>,
}

impl<T: PartialEq> PartialEq for Network<T> {
    /// Compares layers and parameters, not which of them are frozen or how they were drawn.
    fn eq(&self, other: &Self) -> bool {
        self.architecture == other.architecture && self.parameters == other.parameters
    }
}

impl<T: Scalar> Network<T> {
    /// Number of features that the network reads, `n_0`.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.layout.inputs
    }

    /// Number of outputs, `n_L`.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.layout.output(self.layer_count() - 1)
    }

    /// Number of weighted layers, `L`: the hidden ones and the output layer.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.blocks.len()
    }

    /// Number of weights and biases, and of scales and shifts of normalisations.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let learned = self.parameters.slots().iter().filter(|slot| slot.part.is_learned());
        learned.map(Slot::len).sum()
    }

    /// All parameters, and the running statistics of batch normalisation.
    #[must_use]
    pub fn parameters(&self) -> &Parameters<T> {
        &self.parameters
    }

    /// Weighted layer `layer`, counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn layer(&self, layer: usize) -> Result<Layer<'_, T>> {
        let block = self.blocks.get(layer).ok_or_else(|| self.no_such_layer(layer))?;
        Ok(Layer { parameters: self.parameters.layer(layer), operations: &block.operations })
    }

    /// All weighted layers, from the first up.
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// let shapes: Vec<_> = network.layers().map(|layer| layer.weights().shape()).collect();
    /// assert_eq!(shapes, [(3, 4), (2, 3)]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    #[must_use]
    pub fn layers(&self) -> impl ExactSizeIterator<Item = Layer<'_, T>> {
        self.blocks.iter().enumerate().map(|(layer, block)| Layer {
            parameters: self.parameters.layer(layer),
            operations: &block.operations,
        })
    }

    /// Replaces a parameter of weighted layer `layer`, or of the first normalisation after it that has
    /// such a parameter. The order of `values` is that of [`Slot`]: a matrix column by column.
    ///
    /// ```
    /// use feedback_alignment::{Network, Part};
    ///
    /// let mut network = Network::<f64>::builder(2).dense(3).batch_norm().relu().dense(1).build()?;
    /// network.set_parameter(0, Part::Scale, &[0.5, 1.0, 2.0])?;
    /// assert_eq!(network.parameters().get(0, Part::Scale).unwrap()[2], 2.0);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoSuchParameter`], [`Error::ShapeMismatch`] if `values` has the
    /// wrong length, [`Error::NonFinite`], [`Error::InvalidParameter`] for a variance below 0. After an
    /// error nothing has changed.
    pub fn set_parameter(&mut self, layer: usize, part: Part, values: &[T]) -> Result<()> {
        self.layer(layer)?;
        let slot = self.parameters.find(layer, part);
        let slot = slot.ok_or_else(|| Error::NoSuchParameter { layer, part: part.to_string() })?;
        require_shape(|| slot.to_string(), (slot.len(), 1), (values.len(), 1))?;
        require_finite(|| slot.to_string(), slot.rows, values)?;
        if part == Part::RunningVariance {
            let smallest = values.iter().fold(T::zero(), |min, &v| min.min(v)).as_f64();
            require(smallest >= 0.0, "running variance", smallest, "at least 0")?;
        }
        self.parameters.slot_mut(&slot).copy_from_slice(values);
        Ok(())
    }

    /// Keeps weighted layer `layer` as it is while the others are trained, until it is
    /// [released](Self::release). That holds for its weights, its bias and the normalisations after it.
    /// Batch normalisation then uses its running statistics in training too. The layer's moments do not
    /// change, and its gradient is not computed where that saves time. Layers are counted from 0.
    /// Freezing a layer twice has no further effect.
    ///
    /// Which layers are frozen belongs to training, not to the network: comparing and
    /// [saving](Self::save) networks ignore it. A checkpoint of a trainer keeps it.
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let mut network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// network.freeze(0)?;
    /// assert_eq!(network.frozen().collect::<Vec<_>>(), [0]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn freeze(&mut self, layer: usize) -> Result<()> {
        self.set_frozen(layer, true)
    }

    /// Lets layer `layer` learn again, from where it and its moments were.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn release(&mut self, layer: usize) -> Result<()> {
        self.set_frozen(layer, false)
    }

    /// The layers that are frozen, in order.
    pub fn frozen(&self) -> impl Iterator<Item = usize> + '_ {
        self.blocks.iter().enumerate().filter(|(_, block)| block.frozen).map(|(layer, _)| layer)
    }

    fn set_frozen(&mut self, layer: usize, frozen: bool) -> Result<()> {
        self.layer(layer)?;
        self.blocks[layer].frozen = frozen;
        Ok(())
    }

    /// Replaces `W` of a layer; see [`Layer`] for its shape.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::ShapeMismatch`], or [`Error::NonFinite`] for an entry that
    /// is not a number; the old weights then stay.
    pub fn set_weights(&mut self, layer: usize, weights: DMatrix<T>) -> Result<()> {
        let what = || format!("W of weighted layer {layer}");
        require_shape(what, self.layer(layer)?.weights().shape(), weights.shape())?;
        self.set_parameter(layer, Part::Weights, weights.as_slice())
    }

    /// Replaces `b` of a layer, one entry for each row of `W`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoSuchParameter`] if the layer was built without one,
    /// [`Error::ShapeMismatch`], or [`Error::NonFinite`]; the old bias then stays.
    pub fn set_bias(&mut self, layer: usize, bias: DVector<T>) -> Result<()> {
        self.set_parameter(layer, Part::Bias, bias.as_slice())
    }

    /// The work of a step, counted as in [`Block::work`].
    pub(crate) fn work(&self, samples: usize) -> usize {
        self.blocks.iter().map(|block| block.work(samples)).fold(0, usize::saturating_add)
    }

    /// The smallest batch that can be trained on. It is 2 if a batch normalisation sees one value per
    /// sample, because one value has no variance.
    pub(crate) fn smallest_batch(&self) -> usize {
        let single = |operation: &Operation| matches!(operation, Operation::BatchNorm(norm) if norm.plane() == 1);
        let learning = self.blocks.iter().filter(|block| !block.frozen);
        let any = learning.flat_map(|block| &block.operations).any(single);
        if any { 2 } else { 1 }
    }

    fn no_such_layer(&self, layer: usize) -> Error {
        Error::NoSuchLayer { what: "weighted layer", layer, count: self.layer_count() }
    }
}

impl<T: Scalar> fmt::Display for Network<T> {
    /// The layers and operations, such as `784-800 tanh-10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout.inputs)?;
        self.layout.input_operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        for block in &self.blocks {
            match &block.map {
                LinearMap::Dense => write!(f, "-{}", block.shape.0)?,
                LinearMap::Conv2d(conv) => write!(f, "-{}", conv.output())?,
            }
            block.operations.iter().try_for_each(|operation| write!(f, " {operation}"))?;
        }
        Ok(())
    }
}
