//! Delivering the error to the hidden layers: the one place where the learning rules differ.

use std::sync::Arc;

use nalgebra::DMatrix;
use rand::Rng;
use rand_distr::Distribution;

use crate::{
    error::{Error, Result, require_finite, require_shape},
    init::FeedbackInit,
    layer::Layer,
    linalg::{self, Start, zero_matrix},
    network::{Block, Network},
    rule::{FeedbackRule, Hop, Source, Transport},
    scalar::Scalar,
    seed::{Purpose, stream},
    vector::bound_of_squares,
    workspace::{Activations, BlockActivations, BlockDeltas, Deltas, Layout, require_match},
};

/// A learning rule at work on one network: its route and its fixed random matrices.
///
/// Hidden layers are counted from 0. Their feedback matrices have these shapes:
///
/// | rule | matrix of hidden layer `l` | shape |
/// |---|---|---|
/// | BP | none | |
/// | FA | `B_lᵀ`, stored in the shape of `W_{l+1}` | `n_{l+1} × n_l` |
/// | DFA | `B_l` | `n_l × n_L` |
/// | IFA | `B_1` for the first, none above | `n_1 × n_L` |
///
/// ```
/// use feedback_alignment::{Feedback, FeedbackInit, FeedbackRule, Network};
///
/// let network = Network::<f32>::builder(7).dense(6).tanh().dense(5).tanh().dense(4).build()?;
/// let fa = Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::Nokland, 1)?;
/// assert_eq!(fa.matrix(0)?.unwrap().shape(), (5, 6));
/// let dfa = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 1)?;
/// assert_eq!(dfa.matrix(0)?.unwrap().shape(), (6, 4));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback<T> {
    rule: FeedbackRule,
    layout: Arc<Layout>,
    hops: Vec<Hop>,
    /// One slot for each hidden block.
    matrices: Vec<Option<DMatrix<T>>>,
    /// For each matrix, a number that no square of an entry exceeds.
    squares: Vec<f64>,
}

impl<T: Scalar> Feedback<T> {
    /// Draws the matrices of `rule` from a named distribution; each hidden layer has a stream of
    /// its own, independent of the weights of the same seed.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a scale that is not positive, [`Error::NonFinite`] for one
    /// that overflows the scalar, [`Error::TooLarge`].
    pub fn new(
        network: &Network<T>,
        rule: FeedbackRule,
        init: FeedbackInit,
        seed: u64,
    ) -> Result<Self> {
        init.check()?;
        let feedback = Self::build(network, rule, |hop, matrix| {
            // The units that receive are the rows of `B`, which is stored transposed under FA.
            let (receivers, senders) = match hop.transport {
                Transport::RandomTransposed => (matrix.ncols(), matrix.nrows()),
                _ => matrix.shape(),
            };
            let mut rng = stream(seed, Purpose::Feedback, hop.to as u64, 0);
            init.spread(receivers, senders).fill(matrix.as_mut_slice(), &mut rng);
        })?;
        for (layer, matrix) in feedback.matrices.iter().enumerate() {
            let Some(matrix) = matrix else { continue };
            require_finite(|| name(rule, layer), matrix.nrows(), matrix.as_slice())?;
        }
        Ok(feedback.bounded())
    }

    /// The same, with the bounds of its matrices.
    fn bounded(mut self) -> Self {
        let bound_of = |matrix: &Option<DMatrix<T>>| {
            matrix.as_ref().map_or(0.0, |matrix| bound_of_squares(matrix.as_slice()))
        };
        self.squares = self.matrices.iter().map(bound_of).collect();
        self
    }

    /// Draws the entries of the matrices from any distribution, layer by layer from the first
    /// hidden one, column by column.
    ///
    /// ```
    /// use feedback_alignment::{Feedback, FeedbackRule, Network, rand, rand_distr};
    /// use rand::SeedableRng;
    ///
    /// let network = Network::<f32>::builder(4).dense(6).tanh().dense(3).build()?;
    /// let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(1);
    /// let cauchy = rand_distr::Cauchy::new(0.0, 0.1).expect("a positive scale");
    /// let feedback = Feedback::sample(&network, FeedbackRule::Dfa, &cauchy, &mut rng)?;
    /// assert_eq!(feedback.matrix(0)?.unwrap().shape(), (6, 3));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the distribution yields a NaN or an infinity, [`Error::TooLarge`].
    pub fn sample<D: Distribution<f64>, R: Rng + ?Sized>(
        network: &Network<T>,
        rule: FeedbackRule,
        distribution: &D,
        rng: &mut R,
    ) -> Result<Self> {
        let mut feedback = Self::build(network, rule, |_, _| ())?;
        for (layer, matrix) in feedback.matrices.iter_mut().enumerate() {
            let Some(matrix) = matrix else { continue };
            matrix.iter_mut().for_each(|entry| *entry = T::of(distribution.sample(rng)));
            require_finite(|| name(rule, layer), matrix.nrows(), matrix.as_slice())?;
        }
        Ok(feedback.bounded())
    }

    /// Takes the matrices of one's own: one for each hidden layer that has one under `rule`, in
    /// order from the first.
    ///
    /// # Errors
    /// [`Error::FeedbackCount`] for another number of them, [`Error::ShapeMismatch`] for another
    /// shape, [`Error::NonFinite`].
    pub fn from_matrices(
        network: &Network<T>,
        rule: FeedbackRule,
        matrices: Vec<DMatrix<T>>,
    ) -> Result<Self> {
        let mut feedback = Self::build(network, rule, |_, _| ())?;
        let receivers: Vec<usize> =
            (0..feedback.matrices.len()).filter(|&l| feedback.matrices[l].is_some()).collect();
        if receivers.len() != matrices.len() {
            let (expected, found) = (receivers.len(), matrices.len());
            return Err(Error::FeedbackCount { rule: rule.to_string(), expected, found });
        }
        for (layer, matrix) in receivers.into_iter().zip(matrices) {
            feedback.set_matrix(layer, matrix)?;
        }
        Ok(feedback)
    }

    /// Zero matrices of the shapes that the route needs, filled by `fill`.
    fn build(
        network: &Network<T>,
        rule: FeedbackRule,
        mut fill: impl FnMut(&Hop, &mut DMatrix<T>),
    ) -> Result<Self> {
        let hops = rule.hops(network.layers());
        let mut matrices = vec![None; network.layers() - 1];
        for hop in &hops {
            let Some((rows, columns)) = shape(network, hop) else { continue };
            let mut matrix = zero_matrix(rows, columns)?;
            fill(hop, &mut matrix);
            matrices[hop.to] = Some(matrix);
        }
        let squares = vec![0.0; matrices.len()];
        Ok(Self { rule, layout: Arc::clone(&network.layout), hops, matrices, squares })
    }

    /// The hidden layers that have a matrix of their own under `rule`, in order from the first,
    /// with its rows and columns.
    #[cfg(feature = "safetensors")]
    pub(crate) fn shapes(network: &Network<T>, rule: FeedbackRule) -> Vec<(usize, (usize, usize))> {
        let hops = rule.hops(network.layers());
        let mut shapes: Vec<_> =
            hops.iter().filter_map(|hop| Some((hop.to, shape(network, hop)?))).collect();
        shapes.sort_unstable(); // A route may come down from the top.
        shapes
    }

    /// The learning rule.
    #[must_use]
    pub fn rule(&self) -> FeedbackRule {
        self.rule
    }

    /// The matrix through which hidden layer `layer` receives its feedback, if it has one of its
    /// own: `B_l`, under FA stored as `B_lᵀ`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network has no such hidden layer.
    pub fn matrix(&self, layer: usize) -> Result<Option<&DMatrix<T>>> {
        let count = self.matrices.len();
        let slot = self.matrices.get(layer);
        slot.map(Option::as_ref).ok_or(Error::NoSuchLayer { what: "hidden layer", layer, count })
    }

    /// Replaces the feedback matrix of hidden layer `layer`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoFeedback`] if the rule has none there,
    /// [`Error::ShapeMismatch`], [`Error::NonFinite`]; the old matrix then stays.
    pub fn set_matrix(&mut self, layer: usize, matrix: DMatrix<T>) -> Result<()> {
        let rule = self.rule;
        let old = self
            .matrix(layer)?
            .ok_or_else(|| Error::NoFeedback { rule: rule.to_string(), layer })?;
        let what = || name(rule, layer);
        require_shape(what, old.shape(), matrix.shape())?;
        require_finite(what, matrix.nrows(), matrix.as_slice())?;
        self.squares[layer] = bound_of_squares(matrix.as_slice());
        self.matrices[layer] = Some(matrix);
        Ok(())
    }

    /// A number that no square of an entry of a hidden layer's matrix exceeds; 0 where it has none.
    pub(crate) fn squares(&self, layer: usize) -> f64 {
        self.squares[layer]
    }

    /// Fills `δ_l` of every hidden layer, from `δ_L` and along the route of the rule: each hop is
    /// `δ_to = (M · source) ∘ f'(a_to)`.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if the network, activations and deltas do not belong together.
    pub fn deliver(
        &self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        self.require_network(network)?;
        require_match("deliver", &network.layout, activations, deltas)?;
        self.deliver_checked(network, activations, deltas);
        Ok(())
    }

    /// [`deliver`](Self::deliver) of what belongs together.
    pub(crate) fn deliver_checked(
        &self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) {
        let (e, hidden) = deltas.split_error();
        for hop in &self.hops {
            let (source, to) = match hop.source {
                Source::Delta(from) if from < hidden.len() => {
                    let pair = hidden.get_disjoint_mut([from, hop.to]);
                    let [source, to] = pair.expect("a hop leads from one block to another");
                    if hop.transport == Transport::ReceiverForward {
                        network.blocks[from].relay(&activations.blocks[from], source);
                    }
                    (&*source, to)
                }
                _ => (e, &mut hidden[hop.to]),
            };
            self.carry(hop, network, activations, source, to);
        }
        deltas.delivered = true;
    }

    /// Whether every hidden layer receives the error itself, so that none waits for another.
    pub(crate) fn is_direct(&self) -> bool {
        let all = self.hops.len() == self.matrices.len();
        all && self.hops.iter().all(|hop| hop.source == Source::Error)
    }

    /// `δ_l = (B_l e) ∘ f'(a_l)` in hidden layer `layer`, the block `receiver`.
    pub(crate) fn send_error(
        &self,
        layer: usize,
        receiver: &Block<T>,
        activations: &BlockActivations<T>,
        e: &BlockDeltas<T>,
        to: &mut BlockDeltas<T>,
    ) {
        let matrix = linalg::of(self.drawn(layer));
        let derivative = receiver.derivative(activations);
        let finish = |place, delta: &mut [T], _: &mut [T]| derivative(place, delta);
        let (e, delta) = (e.delta().mat(), to.arrival().as_mut_slice());
        linalg::product_then(matrix, e, Start::Zero, delta, &mut [], &finish);
        receiver.backward(activations, to);
    }

    /// The matrix of a hop that has one.
    fn drawn(&self, layer: usize) -> &DMatrix<T> {
        self.matrices[layer].as_ref().expect("drawn for every hop that needs one")
    }

    /// Fails unless the matrices were made for a network of this layout.
    pub(crate) fn require_network(&self, network: &Network<T>) -> Result<()> {
        let mismatch = |expected: String, found: String| Error::StageMismatch {
            stage: "deliver",
            what: "feedback matrices",
            expected,
            found,
        };
        if Layout::same(&self.layout, &network.layout) {
            return Ok(());
        }
        if !self.layout.has_sizes_of(&network.layout) {
            return Err(mismatch(network.layout.to_string(), self.layout.to_string()));
        }
        // Kernels of other sizes can make the same layout.
        for hop in &self.hops {
            let (expected, found) =
                (shape(network, hop), self.matrices[hop.to].as_ref().map(DMatrix::shape));
            if expected != found {
                return Err(mismatch(format!("{expected:?}"), format!("{found:?}")));
            }
        }
        Ok(())
    }

    /// One hop, from the delta of one block to that of another.
    fn carry(
        &self,
        hop: &Hop,
        network: &Network<T>,
        activations: &Activations<T>,
        source: &BlockDeltas<T>,
        to: &mut BlockDeltas<T>,
    ) {
        let receiver = &network.blocks[hop.to];
        let activations = &activations.blocks[hop.to];
        // Where a block is a layer and an activation, its derivative is part of the product.
        let derivative = receiver.derivative(activations);
        let finish = |place, delta: &mut [T], _: &mut [T]| derivative(place, delta);
        match (hop.transport, hop.source) {
            (Transport::SenderTransposed, Source::Delta(from)) => {
                let Layer { map, weights, .. } = &network.blocks[from].layer;
                map.apply_transpose(weights, source.delta(), to.arrival(), &derivative);
            }
            (Transport::RandomTransposed, Source::Delta(from)) => {
                let map = network.blocks[from].layer.map;
                map.apply_transpose(self.drawn(hop.to), source.delta(), to.arrival(), &derivative);
            }
            (Transport::ReceiverForward, _) => {
                // Up through what the forward pass goes through: the sender's pooling, from whose
                // end the signal comes, the receiver's weights, the receiver's pooling.
                let Layer { map, weights, .. } = &receiver.layer;
                map.apply(weights, None, source.end(), &mut to.stages[0], &mut [], &finish);
                receiver.relay(activations, to);
            }
            (Transport::RandomDirect, _) | (_, Source::Error) => {
                return self.send_error(hop.to, receiver, activations, source, to);
            }
        }
        receiver.backward(activations, to);
    }
}

/// Rows and columns of the matrix that a hop draws, if it has one of its own.
fn shape<T: Scalar>(network: &Network<T>, hop: &Hop) -> Option<(usize, usize)> {
    match hop.transport {
        Transport::RandomTransposed => Some(network.blocks[hop.to + 1].layer.weights.shape()),
        Transport::RandomDirect => Some((network.layout.output(hop.to), network.outputs())),
        Transport::SenderTransposed | Transport::ReceiverForward => None,
    }
}

/// What errors call a matrix.
fn name(rule: FeedbackRule, layer: usize) -> String {
    format!("the {rule} feedback matrix of hidden layer {layer}")
}
