//! Stages 3 to 5 of a training step in one: this is what a trainer calls.
//!
//! The gradient is computed in tiles, and each tile's weights are updated while the tile is in cache.
//! All layers and all tiles are independent, so threads share them. If the route is direct, each layer
//! also makes its own delta just before.

use crate::{
    bound::bound_of_squares,
    error::{Error, Result},
    feedback::{Feedback, Learning},
    layer::Operation,
    network::{Block, Network},
    optimizer::{NextStep, Numbers, OptimizerState, of_gradients, of_learned},
    scalar::Scalar,
    signal::Signal,
    threads,
    workspace::{
        Activations, AtOutput, BlockDeltas, Deltas, Gradients, require_delivered, require_match,
    },
};

impl<T: Scalar> OptimizerState<T> {
    /// Stages 4 and 5 in one. The result is the same, bit for bit, as that of [`Network::gradients`]
    /// followed by [`step`](Self::step). It is faster: a tile of `∂W_l = δ_l h_{l-1}ᵀ` is computed and
    /// its weights are updated while it is in cache, so the whole gradient is never in memory. All
    /// layers and all tiles are independent, so threads share them.
    ///
    /// ```
    /// # use feedback_alignment::*;
    /// # use feedback_alignment::nalgebra::DMatrix;
    /// # let x = DMatrix::from_element(4, 2, 0.5);
    /// let mut network = Network::<f64>::builder(4).dense(3).tanh().dense(2).build()?;
    /// let mut twin = network.clone();
    /// let mut optimizer = OptimizerState::new(&network, RmsProp::default())?;
    /// let feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 0)?;
    /// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    /// network.forward(&x, &mut activations)?;
    /// Loss::SoftmaxCrossEntropy.error(&[0, 1], &activations, &mut deltas)?;
    /// feedback.deliver(&network, &activations, &mut deltas)?;
    ///
    /// let mut gradients = Gradients::new();
    /// network.gradients(&activations, &deltas, &mut gradients)?;
    /// optimizer.clone().step(&mut twin, &gradients)?;
    /// optimizer.learn(&mut network, &activations, &deltas)?;
    /// assert_eq!(network, twin);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the activations, the deltas or this
    /// state belong to another network or to different forward passes, or if feedback has not been
    /// delivered. [`Error::NonFinite`](crate::Error::NonFinite) as for [`step`](Self::step). After an
    /// error nothing has changed.
    pub fn learn(
        &mut self,
        network: &mut Network<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
    ) -> Result<()> {
        require_delivered("learn", &network.layout, activations, deltas)?;
        self.require_network(network)?;
        network.layout.memory.reserve::<T>()?; // The forward pass may have been on another thread.
        self.learn_checked(network, activations, deltas)
    }

    fn learn_checked(
        &mut self,
        network: &mut Network<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
    ) -> Result<()> {
        let bound = bound_of_deltas(network, activations, deltas);
        self.guarded(network, bound, |step, blocks, numbers| {
            learn(step, (blocks, 0), numbers, activations, Arriving::Delivered(&deltas.blocks));
        })
    }

    /// Whether the step that [`learn`](Self::learn) would make is certain not to overflow.
    #[cfg(feature = "mpi")]
    pub(crate) fn learns_safely(
        &self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &Deltas<T>,
    ) -> bool {
        self.is_safe(network, bound_of_deltas(network, activations, deltas))
    }

    /// Whether [`step_with_feedback`](Self::step_with_feedback) is certain not to overflow, and an
    /// upper bound of the feedback's first moments after that step.
    pub(crate) fn steps_safely(
        &self,
        network: &Network<T>,
        feedback: &mut Feedback<T>,
        gradients: &Gradients<T>,
    ) -> (bool, f64) {
        let squares = of_gradients(network, gradients);
        let own = gradients.feedback_values().map(bound_of_squares).fold(squares, f64::max);
        let (next, largest) = (self.next_feedback_step(), feedback.largest_moment());
        let (is_safe, moment) = next.is_safe(own, largest, || feedback.largest_entry());
        (is_safe && self.is_safe(network, squares), moment)
    }

    /// Empties the moments of the feedback if they are those of another kind of optimiser.
    pub(crate) fn begin_feedback_anew(&mut self, feedback: &mut Feedback<T>) {
        if std::mem::take(&mut self.feedback_begins_anew) {
            feedback.forget_moments();
        }
    }

    /// [`step`](Self::step), and a step of the feedback matrices that learn. They have moments of their
    /// own and no max-norm. Matrices of [`KolenPollack`](crate::Through::KolenPollack) follow the
    /// gradient of the weights that they replace. Those of
    /// [`DirectKolenPollack`](crate::Through::DirectKolenPollack),
    /// [`Jacobian`](crate::Through::Jacobian) and [`Product`](crate::Through::Product) follow gradients
    /// of their own, which [`Feedback::gradients`] computes. All use the network's optimiser, unless
    /// there is [one for feedback](Self::set_feedback_optimizer).
    ///
    /// A matrix does not change while the layer that sends to it is frozen; for `Jacobian`, while the
    /// layer that it leads to is frozen. If no matrix learns, this is [`step`](Self::step).
    ///
    /// # Errors
    /// Those of [`step`](Self::step), for the feedback too. [`Error::StageMismatch`] if the gradients
    /// of the feedback are missing. After an error neither network nor feedback has changed.
    pub fn step_with_feedback(
        &mut self,
        network: &mut Network<T>,
        feedback: &mut Feedback<T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        if !feedback.learns() {
            return self.step(network, gradients);
        }
        feedback.require_network(network)?;
        self.require_gradients(network, gradients)?;
        feedback.require_gradients(gradients)?;
        self.begin_feedback_anew(feedback);
        feedback.fit_moments(self.feedback_moments())?;
        let (is_safe, moment) = self.steps_safely(network, feedback, gradients);
        let before = (!is_safe).then(|| feedback.copy());
        let next = self.next_feedback_step();
        for Learning { own_gradient, layer, matrix, moments } in feedback.learning() {
            let (of_weights, learned) = gradients.of_layer(layer);
            if learned[0] && !network.blocks[layer].frozen {
                let own = own_gradient.and_then(|hop| gradients.of_feedback(hop, matrix.shape()));
                let [m, v] = moments;
                let numbers = [matrix.as_mut_slice(), m, v];
                next.follow_matrix(layer, numbers, own.unwrap_or(of_weights.weights()));
            }
        }
        feedback.set_largest_moment(moment);
        let Some(before) = before else { return self.step(network, gradients) };
        feedback.measure_moments();
        let result = feedback.require_finite().and_then(|()| self.step(network, gradients));
        if result.is_err() {
            feedback.go_back(before);
        }
        result
    }

    /// Stages 3 to 5 in one. The result is the same, bit for bit, as that of [`Feedback::deliver`]
    /// followed by [`learn`](Self::learn). On a [direct](crate::Route::is_direct) route, as under DFA,
    /// no layer waits for another: each makes its own `δ_l`, gradient and update in one go, and all
    /// layers do so at once.
    ///
    /// # Errors
    /// Those of [`Feedback::deliver`] and [`learn`](Self::learn).
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) for feedback whose matrices learn, which
    /// needs [`step_with_feedback`](Self::step_with_feedback). After an error nothing has been learned.
    pub fn deliver_and_learn(
        &mut self,
        network: &mut Network<T>,
        feedback: &Feedback<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        feedback.require_network(network)?;
        require_match("deliver", &network.layout, activations, deltas)?;
        self.require_network(network)?;
        if feedback.learns() {
            return Err(Error::StageMismatch {
                stage: "deliver and learn",
                what: "feedback matrices",
                expected: "matrices that stay as they are".into(),
                found: format!("{}, which step_with_feedback teaches", feedback.rule_name()),
            });
        }
        network.layout.memory.reserve::<T>()?; // As in `learn`.
        if feedback.is_direct() && is_plain(network) {
            feedback.prepare(deltas)?;
            deltas.begin_delivery();
            let bound = bound_of_error(network, feedback, activations, deltas);
            return self.guarded(network, bound, |step, blocks, numbers| {
                let (output, hidden) = deltas.split_output();
                let arriving = Arriving::Direct { feedback, output, hidden };
                learn(step, (blocks, 0), numbers, activations, arriving);
            });
        }
        feedback.deliver_checked(network, activations, deltas)?;
        self.learn_checked(network, activations, deltas)
    }
}

/// Where the deltas of some blocks come from.
enum Arriving<'a, T> {
    /// They have been delivered.
    Delivered(&'a [BlockDeltas<T>]),
    /// The error goes to each hidden block just before the block needs its delta. The delta is then
    /// still in cache for the gradient, and no block waits for another.
    Direct { feedback: &'a Feedback<T>, output: AtOutput<'a, T>, hidden: &'a mut [BlockDeltas<T>] },
}

impl<T: Scalar> Arriving<'_, T> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        match self {
            Self::Delivered(deltas) => {
                let (left, right) = deltas.split_at(middle);
                (Self::Delivered(left), Self::Delivered(right))
            }
            Self::Direct { feedback, output, hidden } => {
                let (left, right) = hidden.split_at_mut(middle);
                let direct = |hidden| Self::Direct { feedback, output, hidden };
                (direct(left), direct(right))
            }
        }
    }

    /// The delta of weighted layer `layer`, which is number `place` in this part of the network. If it
    /// has not been delivered, it is made now.
    fn at(
        &mut self,
        (place, layer): (usize, usize),
        block: &Block,
        activations: &Activations<T>,
    ) -> &BlockDeltas<T> {
        match self {
            Self::Delivered(deltas) => &deltas[place],
            Self::Direct { feedback, output, hidden } => match hidden.get_mut(place) {
                None => output.get(Signal::Error),
                Some(to) => {
                    feedback.send_direct(layer, block, &activations.blocks[layer], *output, to);
                    to
                }
            },
        }
    }
}

/// Computes gradients and updates for a part of the network whose first block is layer `first`. Frozen
/// blocks, and blocks that no feedback has reached, stay as they are.
fn learn<T: Scalar>(
    step: &NextStep<T>,
    (blocks, first): (&[Block], usize),
    mut numbers: Numbers<T>,
    activations: &Activations<T>,
    mut deltas: Arriving<T>,
) {
    let learning = blocks.iter().filter(|block| !block.frozen);
    let work = learning.map(|block| block.work(activations.batch));
    let work = work.fold(0, usize::saturating_add);
    if blocks.len() == 1 || threads::pieces(work, 1) == 1 {
        for (place, block) in blocks.iter().enumerate().filter(|(_, block)| !block.frozen) {
            let layer = first + place;
            let deltas = deltas.at((place, layer), block, activations);
            if deltas.served {
                let of = (layer, block, activations.layout.table.of_layer(layer));
                step.learn_block(of, numbers.layer(layer), activations.entering(layer), deltas);
            }
        }
        return;
    }
    let middle = blocks.len() / 2;
    let (left, right) = blocks.split_at(middle);
    let (left_numbers, right_numbers) = numbers.split_at(first + middle);
    let (left_deltas, right_deltas) = deltas.split_at(middle);
    threads::join(
        || learn(step, (left, first), left_numbers, activations, left_deltas),
        || learn(step, (right, first + middle), right_numbers, activations, right_deltas),
    );
}

/// An upper bound of the squares of the gradients that these deltas will make.
fn bound_of_deltas<T: Scalar>(
    network: &Network<T>,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> f64 {
    largest(network, activations, |layer| {
        let deltas = &deltas.blocks[layer];
        if !deltas.served {
            return (0.0, 0.0);
        }
        (bound_of_squares(deltas.delta().as_slice()), of_learned(&deltas.learned))
    })
}

/// Whether every hidden block has nothing after its layer, or only an activation.
fn is_plain<T: Scalar>(network: &Network<T>) -> bool {
    let hidden = &network.blocks[..network.layer_count() - 1];
    hidden.iter().all(|block| matches!(block.operations[..], [] | [Operation::Activation(_)]))
}

/// The same bound before the deltas are made, for a [plain](is_plain) network and a
/// [direct](crate::Route::is_direct) route: `|δ| ≤ n_L max|B| max|e| max|f'|`.
fn bound_of_error<T: Scalar>(
    network: &Network<T>,
    feedback: &Feedback<T>,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> f64 {
    let output = network.layer_count() - 1;
    let at_output = deltas.at_output();
    let e = bound_of_squares(at_output.get(Signal::Error).delta().as_slice());
    let sent = f64::max(e, at_output.squares_beside_error());
    let outputs = network.output_len() as f64;
    largest(network, activations, |layer| {
        if layer == output {
            return (e, 0.0);
        }
        let factor = outputs * network.blocks[layer].steepest();
        (sent * factor * factor * feedback.direct_squares(layer), 0.0)
    })
}

/// An upper bound of the squares of the gradients of all layers that learn. `squares` gives bounds for
/// a layer: of its squared deltas, and of the squared gradients of its normalisations.
fn largest<T: Scalar>(
    network: &Network<T>,
    activations: &Activations<T>,
    squares: impl Fn(usize) -> (f64, f64),
) -> f64 {
    let blocks = network.blocks.iter().enumerate().filter(|(_, block)| !block.frozen);
    blocks.fold(0.0, |largest, (layer, block)| {
        let (delta, norms) = squares(layer);
        let products = block.map.gradient_cost(activations.batch) as f64;
        let h = match layer {
            0 if activations.input_operations.is_empty() => activations.input_squares,
            0 => bound_of_squares(activations.entering(0).as_slice()),
            _ => network.blocks[layer - 1].output_squares(&activations.blocks[layer - 1]),
        };
        // The gradient of a bias has a 1 in place of `h`.
        f64::max(largest, f64::max(products * products * delta * h.max(1.0), norms))
    })
}
