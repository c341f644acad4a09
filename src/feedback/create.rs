//! Making the matrices: drawn from a distribution, or given.

use std::sync::Arc;

use nalgebra::DMatrix;
use rand::Rng;
use rand_distr::Distribution;

use super::{
    Feedback,
    hops::{Transport, matrix_hops, skipped, stored_shape},
};
use crate::{
    error::{Error, Result, require_finite},
    init::FeedbackInit,
    linalg::zero_matrix,
    network::Network,
    route::{Route, Through},
    rule::FeedbackRule,
    scalar::Scalar,
    seed::{Purpose, stream},
    signal::Signal,
    vector::bound_of_squares,
};

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
        let made = route.made_of_error();
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
            made,
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
}
