//! A route at work on one network, with its matrices.

mod deliver;
mod learn;
mod signs;

pub(crate) use learn::Learning;

use std::{fmt, sync::Arc};

use nalgebra::DMatrix;
use rand::Rng;
use rand_distr::Distribution;

use crate::{
    error::{Error, Result, require_finite, require_shape},
    init::FeedbackInit,
    linalg::zero_matrix,
    network::Network,
    route::{Hop, Route, Signal, Through},
    rule::FeedbackRule,
    scalar::Scalar,
    seed::{Purpose, stream},
    vector::bound_of_squares,
    workspace::Layout,
};

/// A learning rule at work on one network: its [`Route`] and the fixed random matrices of its hops.
///
/// Hidden layers are counted from 0. Their feedback matrices have these shapes:
///
/// | rule | matrix of hidden layer `l` | shape |
/// |---|---|---|
/// | BP | none | |
/// | FA | `B_l` | `n_l × n_{l+1}` |
/// | DFA | `B_l` | `n_l × n_L` |
/// | IFA | `B_1` for the first, none above | `n_1 × n_L` |
///
/// Where weights are replaced by random ones ([`Through::LikeWeights`], as under FA) and these are
/// the kernels of a convolution, the matrix holds kernels, in the shape of the weights.
///
/// ```
/// use feedback_alignment::{Feedback, FeedbackInit, FeedbackRule, Network};
///
/// let network = Network::<f32>::builder(7).dense(6).tanh().dense(5).tanh().dense(4).build()?;
/// let fa = Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::Nokland, 1)?;
/// assert_eq!(fa.matrix(0)?.unwrap().shape(), (6, 5));
/// let dfa = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::Nokland, 1)?;
/// assert_eq!(dfa.matrix(0)?.unwrap().shape(), (6, 4));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone)]
pub struct Feedback<T> {
    /// The rule whose route it is, if it has a name.
    rule: Option<FeedbackRule>,
    route: Route,
    layout: Arc<Layout>,
    /// One for each hop that has one. What stands in for weights is stored in their shape, so that
    /// it can take their place in the products of a layer.
    matrices: Vec<Option<DMatrix<T>>>,
    /// For each matrix, a number that no square of an entry exceeds.
    squares: Vec<f64>,
    /// For each hidden layer the first hop to it that has a matrix.
    first: Vec<Option<usize>>,
    /// For each hidden layer whether residual connections send something down to it.
    skipped: Vec<bool>,
    /// [`Route::is_direct`]
    direct: bool,
    /// Whether it sends something of the output beside the error, and whether the targets.
    beside_error: bool,
    sends_target: bool,
    /// What magnitudes are drawn from that are drawn anew for every step, if there are such.
    magnitudes: Option<(FeedbackInit, u64)>,
    /// The forward pass whose weights the matrices follow, if they follow weights.
    followed: usize,
    /// For each matrix that learns its moments; empty before the first step, and for all others.
    moments: Vec<[Vec<T>; 2]>,
    /// A number that none of the first moments exceeds.
    largest_moment: f64,
}

impl<T: fmt::Debug> fmt::Debug for Feedback<T> {
    /// What [`PartialEq`] compares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feedback")
            .field("rule", &self.rule)
            .field("route", &self.route)
            .field("network", &self.layout.name)
            .field("matrices", &self.matrices)
            .field("magnitudes", &self.magnitudes)
            .field("moments", &self.moments)
            .finish_non_exhaustive()
    }
}

impl<T: PartialEq> PartialEq for Feedback<T> {
    /// Compares the rule, the route, the matrices and their moments, and which network they are for.
    fn eq(&self, other: &Self) -> bool {
        (self.rule, &self.route, &self.layout) == (other.rule, &other.route, &other.layout)
            && (&self.matrices, self.magnitudes) == (&other.matrices, other.magnitudes)
            && self.moments == other.moments
    }
}

/// How a hop of a route acts on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// From the layer above the receiver, through the weights of that layer, transposed, or random
    /// ones in their place.
    Down,
    /// From the layer below the receiver, through the receiver's weights or random ones in their
    /// place.
    Up,
    /// From any layer, through a matrix.
    Straight,
}

impl Transport {
    fn of(route: &Route, hop: Hop) -> Self {
        match hop.through {
            Through::Matrix => Self::Straight,
            Through::Weights | Through::LikeWeights | Through::Signs(_) | Through::KolenPollack => {
                if route.sender(hop) > hop.to {
                    Self::Down
                } else {
                    Self::Up
                }
            }
        }
    }
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
        Self::draw(network, Some(rule), rule.route(network.layer_count()), init, seed)
    }

    /// Feedback on a route of one's own. Its matrices are drawn as [`new`](Self::new) draws them: the
    /// first of a hidden layer has the numbers that a named rule's matrix of this shape would have,
    /// and each further one has a random stream of its own.
    ///
    /// # Errors
    /// As for [`new`](Self::new); [`Error::StageMismatch`] for a route through another number of
    /// layers.
    pub fn with_route(
        network: &Network<T>,
        route: Route,
        init: FeedbackInit,
        seed: u64,
    ) -> Result<Self> {
        Self::draw(network, None, route, init, seed)
    }

    fn draw(
        network: &Network<T>,
        rule: Option<FeedbackRule>,
        route: Route,
        init: FeedbackInit,
        seed: u64,
    ) -> Result<Self> {
        init.check()?;
        let mut feedback = Self::build(network, rule, route)?;
        let mut drawn = vec![0; network.layer_count()];
        for index in 0..feedback.matrices.len() {
            let hop = feedback.route.hops()[index];
            let name = feedback.name(hop.to);
            let down = Transport::of(&feedback.route, hop) == Transport::Down;
            let Some(matrix) = &mut feedback.matrices[index] else { continue };
            // The units that receive are the rows of `B`, which is stored transposed on the way down.
            let (rows, columns) = matrix.shape();
            let (receivers, senders) = if down { (columns, rows) } else { (rows, columns) };
            let mut rng = stream(seed, Purpose::Feedback, hop.to as u64, drawn[hop.to]);
            drawn[hop.to] += 1;
            init.spread(receivers, senders).fill(matrix.as_mut_slice(), &mut rng);
            require_finite(|| name, rows, matrix.as_slice())?;
        }
        feedback.draw_magnitudes_from(init, seed);
        feedback.copy_signs(network, 0);
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
    /// hidden one, column by column (row by row of `B_l` under FA).
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
        let mut feedback = Self::build(network, Some(rule), rule.route(network.layer_count()))?;
        for layer in 0..network.layer_count() - 1 {
            let name = feedback.name(layer);
            let Some(index) = feedback.first[layer] else { continue };
            let Some(matrix) = &mut feedback.matrices[index] else { continue };
            matrix.iter_mut().for_each(|entry| *entry = T::of(distribution.sample(rng)));
            require_finite(|| name, matrix.nrows(), matrix.as_slice())?;
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
        let feedback = Self::build(network, Some(rule), rule.route(network.layer_count()))?;
        feedback.filled_with(matrices)
    }

    /// The same for a route of one's own: a matrix for each hop that has one, from the first hidden
    /// layer up, those of one layer in the order of the route's hops.
    ///
    /// # Errors
    /// As for [`from_matrices`](Self::from_matrices) and [`with_route`](Self::with_route).
    pub fn with_route_and_matrices(
        network: &Network<T>,
        route: Route,
        matrices: Vec<DMatrix<T>>,
    ) -> Result<Self> {
        Self::build(network, None, route)?.filled_with(matrices)
    }

    /// With matrices in the order of [`matrix_hops`].
    fn filled_with(mut self, matrices: Vec<DMatrix<T>>) -> Result<Self> {
        let hops = matrix_hops(&self.route);
        if hops.len() != matrices.len() {
            let (expected, found) = (hops.len(), matrices.len());
            return Err(Error::FeedbackCount { rule: self.rule_name(), expected, found });
        }
        for (index, matrix) in hops.into_iter().zip(matrices) {
            self.set(index, matrix)?;
        }
        Ok(self)
    }

    /// Zero matrices of the shapes that a route needs.
    fn build(network: &Network<T>, rule: Option<FeedbackRule>, route: Route) -> Result<Self> {
        Self::require_layers(network, &route)?;
        let (layers, layout) = (network.layer_count(), Arc::clone(&network.layout));
        let count = route.hops().len();
        let squares = vec![0.0; count];
        let hops = route.hops();
        let first =
            |layer| hops.iter().position(|hop| hop.to == layer && hop.through != Through::Weights);
        let first = (0..layers - 1).map(first).collect();
        let skipped = skipped(network, &route)?;
        let (direct, sends_target) = (route.is_direct(), route.sends(Signal::Target));
        let beside_error = sends_target || route.sends(Signal::ErrorSign);
        let matrices = vec![None; count];
        let mut feedback = Self {
            rule,
            route,
            layout,
            matrices,
            squares,
            first,
            skipped,
            direct,
            beside_error,
            sends_target,
            magnitudes: None,
            followed: 0,
            moments: (0..count).map(|_| Default::default()).collect(),
            largest_moment: 0.0,
        };
        for index in 0..count {
            let shape = stored_shape(network, &feedback.route, feedback.route.hops()[index]);
            let zeros = shape.map(|(rows, columns)| zero_matrix(rows, columns)).transpose()?;
            feedback.matrices[index] = zeros;
        }
        Ok(feedback)
    }

    /// Fails unless a route is through a network of so many layers.
    pub(crate) fn require_layers(network: &Network<T>, route: &Route) -> Result<()> {
        let (layers, of) = (network.layer_count(), route.layer_count());
        if layers == of {
            return Ok(());
        }
        let (expected, found) = (format!("{layers} layers"), format!("{of} layers: {route}"));
        Err(Error::StageMismatch { stage: "feedback", what: "the route", expected, found })
    }

    /// For each hidden layer that has a matrix the first one with its hop, as it is stored: what
    /// stands in for weights has their shape.
    pub(crate) fn first_matrices(&self) -> impl Iterator<Item = (Hop, &DMatrix<T>)> {
        let hops = self.first.iter().flatten();
        hops.map(|&index| (self.route.hops()[index], self.drawn(index)))
    }

    /// For each matrix of a route, in the order in which they are given, the layer that it leads
    /// to, its number among those of the layer, and its rows and columns.
    #[cfg(feature = "safetensors")]
    pub(crate) fn shapes(
        network: &Network<T>,
        route: &Route,
    ) -> impl Iterator<Item = (usize, usize, (usize, usize))> {
        let mut last = None;
        matrix_hops(route).into_iter().filter_map(move |index| {
            let hop = route.hops()[index];
            let number = last.filter(|&(to, _)| to == hop.to).map_or(0, |(_, number)| number + 1);
            last = Some((hop.to, number));
            let (rows, columns) = stored_shape(network, route, hop)?;
            let transposed = is_transposed(&network.layout, route, hop);
            Some((hop.to, number, if transposed { (columns, rows) } else { (rows, columns) }))
        })
    }

    /// A hop's matrix as users see it.
    fn shown(&self, index: usize) -> DMatrix<T> {
        let matrix = self.drawn(index);
        if is_transposed(&self.layout, &self.route, self.route.hops()[index]) {
            matrix.transpose()
        } else {
            matrix.clone()
        }
    }

    /// Takes a hop's matrix as users see it.
    fn set(&mut self, index: usize, matrix: DMatrix<T>) -> Result<()> {
        let transposed = is_transposed(&self.layout, &self.route, self.route.hops()[index]);
        let (rows, columns) = self.drawn(index).shape();
        let shape = if transposed { (columns, rows) } else { (rows, columns) };
        let name = || self.name(self.route.hops()[index].to);
        require_shape(name, shape, matrix.shape())?;
        require_finite(name, matrix.nrows(), matrix.as_slice())?;
        let stored = if transposed { matrix.transpose() } else { matrix };
        self.squares[index] = bound_of_squares(stored.as_slice());
        self.matrices[index] = Some(stored);
        Ok(())
    }

    /// What errors call a matrix.
    fn name(&self, layer: usize) -> String {
        format!("the {} feedback matrix of hidden layer {layer}", self.rule_name())
    }

    /// The name of the rule, or the route where it has none.
    #[must_use]
    pub fn rule_name(&self) -> String {
        self.rule.map_or_else(|| self.route.to_string(), |rule| rule.to_string())
    }

    /// The learning rule, unless the feedback has a route of one's own.
    #[must_use]
    pub fn rule(&self) -> Option<FeedbackRule> {
        self.rule
    }

    /// The way of the feedback.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Copies of all matrices, each with its hop, in the order in which
    /// [`with_route_and_matrices`](Self::with_route_and_matrices) takes them.
    pub fn matrices(&self) -> impl Iterator<Item = (Hop, DMatrix<T>)> {
        let hops = matrix_hops(&self.route).into_iter();
        hops.map(|index| (self.route.hops()[index], self.shown(index)))
    }

    /// How many random numbers its matrices hold.
    #[must_use]
    pub fn matrix_entries(&self) -> usize {
        self.matrices.iter().flatten().map(DMatrix::len).sum()
    }

    /// A copy of the matrix `B_l` through which hidden layer `layer` receives its feedback, if it
    /// has one of its own; the first, if the route has several.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network has no such hidden layer.
    pub fn matrix(&self, layer: usize) -> Result<Option<DMatrix<T>>> {
        self.require_hidden(layer)?;
        Ok(self.first[layer].map(|index| self.shown(index)))
    }

    /// Replaces the feedback matrix `B_l` of hidden layer `layer`; the first, if the route has
    /// several.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoFeedback`] if the rule has none there,
    /// [`Error::ShapeMismatch`], [`Error::NonFinite`]; the old matrix then stays.
    pub fn set_matrix(&mut self, layer: usize, matrix: DMatrix<T>) -> Result<()> {
        self.require_hidden(layer)?;
        let index =
            self.first[layer].ok_or_else(|| Error::NoFeedback { rule: self.rule_name(), layer })?;
        self.set(index, matrix)
    }

    fn require_hidden(&self, layer: usize) -> Result<()> {
        let count = self.route.layer_count() - 1;
        if layer < count {
            return Ok(());
        }
        Err(Error::NoSuchLayer { what: "hidden layer", layer, count })
    }

    /// The matrix of a hop that has one.
    fn drawn(&self, index: usize) -> &DMatrix<T> {
        self.matrices[index].as_ref().expect("made for every hop that needs one")
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
        if self.skipped != skipped(network, &self.route)? {
            let with = |layout: &Layout| format!("{layout}, with its residual connections");
            return Err(mismatch(with(&network.layout), with(&self.layout)));
        }
        // Kernels of other sizes can make the same layout.
        for (index, matrix) in self.matrices.iter().enumerate() {
            let hop = self.route.hops()[index];
            let expected = stored_shape(network, &self.route, hop);
            let found = matrix.as_ref().map(DMatrix::shape);
            if expected != found {
                return Err(mismatch(format!("{expected:?}"), format!("{found:?}")));
            }
        }
        Ok(())
    }
}

/// Rows and columns of a hop's matrix as it is stored, if it has one.
fn stored_shape<T: Scalar>(
    network: &Network<T>,
    route: &Route,
    hop: Hop,
) -> Option<(usize, usize)> {
    let from = route.sender(hop);
    match hop.through {
        Through::Weights => None,
        Through::LikeWeights | Through::Signs(_) | Through::KolenPollack => {
            Some(network.blocks[from.max(hop.to)].shape)
        }
        Through::Matrix => Some((network.layout.output(hop.to), network.layout.blocks[from].a)),
    }
}

/// For each hidden layer whether residual connections send something down to it: something comes down
/// from the layer above, and a connection from here leads to a layer that feedback reaches.
fn skipped<T: Scalar>(network: &Network<T>, route: &Route) -> Result<Vec<bool>> {
    let mut skipped = vec![false; network.layer_count() - 1];
    for (end, operations) in network.layout.operations.iter().enumerate() {
        for start in operations.iter().filter_map(|operation| operation.skip()?.from) {
            let place = |to: usize| route.hops().iter().position(|hop| hop.to == to);
            let down = |&hop: &Hop| hop.to == start && Transport::of(route, hop) == Transport::Down;
            if !route.hops().iter().any(down) || !route.serves(end) {
                continue;
            }
            if place(end) > place(start) {
                return Err(Error::Conflict {
                    first: format!("the route {route}"),
                    second: format!("the residual connection from layer {start} to layer {end}"),
                    reason: "what comes back along it would be needed before it is there",
                });
            }
            skipped[start] = true;
        }
    }
    Ok(skipped)
}

/// Whether the matrix of a hop is stored transposed: that of a dense layer on the way down.
fn is_transposed(layout: &Layout, route: &Route, hop: Hop) -> bool {
    Transport::of(route, hop) == Transport::Down && layout.is_dense(route.sender(hop))
}

/// The indices of the hops that have a matrix, those to the first hidden layer first.
fn matrix_hops(route: &Route) -> Vec<usize> {
    let hops = route.hops();
    let mut with: Vec<usize> =
        (0..hops.len()).filter(|&index| hops[index].through != Through::Weights).collect();
    with.sort_by_key(|&index| hops[index].to);
    with
}
