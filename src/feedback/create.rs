//! Making the matrices: drawn from a distribution, or given.

use std::sync::Arc;

use nalgebra::DMatrix;
use rand::Rng;
use rand_distr::Distribution;

use super::{
    Feedback,
    hops::{Shapes, Transport, check, matrix_hops, skipped},
    mirror::Mirroring,
    slopes::Slopes,
    stored::{Beside, Stored, name_of},
};
use crate::{
    error::{Error, Result, require_finite},
    init::{FeedbackInit, Spread},
    layer::{LinearMap, ThreadMemory},
    linalg::zero_matrix,
    network::Network,
    route::{Route, Through},
    rule::FeedbackRule,
    scalar::Scalar,
    seed::{Purpose, stream},
    signal::Signal,
};

impl<T: Scalar> Feedback<T> {
    /// Draws the matrices of `rule` from a named distribution. Each hidden layer has a random stream of
    /// its own. It is independent of the stream that draws the weights from the same seed.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a scale that is not positive, [`Error::NonFinite`] for a scale
    /// that overflows the scalar type, [`Error::TooLarge`] if there is not enough memory.
    pub fn new(
        network: &Network<T>,
        rule: FeedbackRule,
        init: FeedbackInit,
        seed: u64,
    ) -> Result<Self> {
        Self::draw(network, Some(rule), rule.route(network.layer_count())?, init, seed)
    }

    /// Feedback on a route that you write yourself. Its matrices are drawn as in [`new`](Self::new).
    /// The first matrix of a hidden layer gets the same numbers as a named rule's matrix of this shape.
    /// Each further one has a random stream of its own.
    ///
    /// # Errors
    /// As for [`new`](Self::new), [`Error::StageMismatch`] if the route is for another number of layers,
    /// [`Error::ImpossibleHop`] for matrices with more entries in a row, or a higher rank, than they have
    /// room for, and [`Error::Conflict`] for hops that residual connections forbid.
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
        let shared = feedback.shared.shape();
        for index in 0..feedback.matrices.len() {
            let hop = feedback.route.hops()[index];
            let name = feedback.name(hop.to);
            let down = Transport::of(&feedback.route, hop) == Transport::Down;
            let Some(matrix) = &mut feedback.matrices[index] else { continue };
            let mut rng = stream(seed, Purpose::Feedback, hop.to as u64, drawn[hop.to]);
            drawn[hop.to] += 1;
            if hop.through == Through::Jacobian {
                continue; // It starts from 0.
            }
            matrix.draw(init, down, shared, &mut rng);
            require_finite(|| name, matrix.numbers.nrows(), matrix.numbers.as_slice())?;
        }
        let mut rng = stream(seed, Purpose::SharedFeedback, 0, 0);
        init.spread(shared.0, shared.1).fill(feedback.shared.as_mut_slice(), &mut rng);
        let name = || "the shared feedback matrix".into();
        require_finite(name, shared.0, feedback.shared.as_slice())?;
        feedback.draw_magnitudes_from(init, seed);
        if feedback.route.has_mirrors() {
            feedback.mirroring.seed = seed;
        }
        feedback.draw_slopes_from(seed);
        feedback.copy_signs(network, 0);
        Ok(feedback.bounded())
    }

    /// The same feedback, with the bounds of its matrices computed.
    pub(super) fn bounded(mut self) -> Self {
        for matrix in self.matrices.iter_mut().flatten() {
            matrix.measure(&self.shared);
        }
        self
    }

    /// Draws the entries of the matrices from any distribution, layer by layer from the first hidden
    /// one, column by column (row by row of `B_l` under FA). Under PFA the entries of `R` are drawn
    /// this way.
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
        let mut feedback = Self::build(network, Some(rule), rule.route(network.layer_count())?)?;
        for layer in 0..network.layer_count() - 1 {
            let name = feedback.name(layer);
            let Some(index) = feedback.first[layer] else { continue };
            let Some(matrix) = &mut feedback.matrices[index] else { continue };
            let numbers = &mut matrix.numbers;
            numbers.iter_mut().for_each(|entry| *entry = T::of(distribution.sample(rng)));
            require_finite(|| name, numbers.nrows(), numbers.as_slice())?;
            if let Beside::Left(factor) = &mut matrix.beside {
                spread_of_factor(factor.ncols()).fill(factor.as_mut_slice(), rng);
            }
        }
        Ok(feedback.bounded())
    }

    /// Takes matrices of your own: one for each hidden layer that has one under `rule`, starting with
    /// the first hidden layer.
    ///
    /// # Errors
    /// [`Error::FeedbackCount`] for the wrong number of matrices, [`Error::ShapeMismatch`] for a wrong
    /// shape, [`Error::NonFinite`], and [`Error::Conflict`] for the products of PFA.
    pub fn from_matrices(
        network: &Network<T>,
        rule: FeedbackRule,
        matrices: Vec<DMatrix<T>>,
    ) -> Result<Self> {
        let feedback = Self::build(network, Some(rule), rule.route(network.layer_count())?)?;
        feedback.filled_with(matrices)
    }

    /// The same for a route that you write yourself: a matrix for each hop that has one. They start
    /// with the first hidden layer. Those of one layer come in the order of the route's hops.
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

    /// Fills the matrices, which come in the order of [`matrix_hops`].
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
    pub(super) fn build(
        network: &Network<T>,
        rule: Option<FeedbackRule>,
        route: Route,
    ) -> Result<Self> {
        Self::require_layers(network, &route)?;
        let (layers, layout) = (network.layer_count(), Arc::clone(&network.layout));
        let hops = route.hops();
        hops.iter().try_for_each(|&hop| check(network, &route, hop))?;
        let shapes = |&hop| Shapes::of(network, &route, hop);
        let matrices = hops.iter().map(|hop| shapes(hop).as_ref().map(Stored::zeros).transpose());
        let matrices = matrices.collect::<Result<_>>()?;
        let shared = shared_shape(hops.iter().filter_map(shapes));
        let shared = zero_matrix(shared.0, shared.1)?;
        let first =
            |layer| hops.iter().position(|hop| hop.to == layer && hop.through != Through::Weights);
        let first = (0..layers - 1).map(first).collect();
        let skipped = skipped(network, &route)?;
        let (direct, sends_target) = (route.is_direct(), route.sends(Signal::Target));
        let made = route.made_of_error();
        let mut memory = ThreadMemory::default();
        for &hop in route.hops() {
            if let Through::Product(width) = hop.through
                && let LinearMap::Conv2d(conv) = network.blocks[route.owner(hop)].map
            {
                memory.include(conv.widened(width).thread_memory::<T>());
            }
        }
        let has_factors =
            route.has(|through| matches!(through, Through::LowRank(_) | Through::Product(_)));
        Ok(Self {
            rule,
            route,
            layout,
            matrices,
            shared,
            first,
            skipped,
            direct,
            made,
            has_factors,
            memory,
            sends_target,
            magnitudes: None,
            mirroring: Mirroring::default(),
            slopes: Slopes::default(),
            followed: 0,
            largest_moment: 0.0,
        })
    }

    /// Fails unless the route has as many layers as the network.
    pub(crate) fn require_layers(network: &Network<T>, route: &Route) -> Result<()> {
        let (layers, of) = (network.layer_count(), route.layer_count());
        if layers == of {
            return Ok(());
        }
        let (expected, found) = (format!("{layers} layers"), format!("{of} layers: {route}"));
        Err(Error::StageMismatch { stage: "feedback", what: "the route", expected, found })
    }
}

/// The shape of the shared matrix: large enough for every hop that takes a part of it.
pub(super) fn shared_shape(shapes: impl Iterator<Item = Shapes>) -> (usize, usize) {
    shapes.fold((0, 0), |most, shapes| match shapes {
        Shapes::Leading(rows, columns) => (most.0.max(rows), most.1.max(columns)),
        _ => most,
    })
}

/// PFA's fixed factor has `columns = k n` columns, and its rows are nearly orthonormal: entries from
/// `U(±√(3/(k n)))` make `B Bᵀ` the identity on average.
fn spread_of_factor(columns: usize) -> Spread {
    Spread::Uniform((3.0 / columns as f64).sqrt())
}

impl<T: Scalar> Stored<T> {
    /// Draws all numbers that this matrix stores itself; the shared matrix, of shape `shared`, is drawn
    /// elsewhere. `down` says that the columns stand for the receiving units, as in a matrix that
    /// replaces weights.
    fn draw<R: Rng + ?Sized>(
        &mut self,
        init: FeedbackInit,
        down: bool,
        shared: (usize, usize),
        rng: &mut R,
    ) {
        let (rows, columns) = self.numbers.shape();
        let numbers = self.numbers.as_mut_slice();
        match &mut self.beside {
            Beside::Nothing => {
                let (receivers, senders) = if down { (columns, rows) } else { (rows, columns) };
                init.spread(receivers, senders).fill(numbers, rng);
            }
            // The rows of `B` have length 1, so that the product is as large as `R`.
            Beside::Left(b) => {
                init.spread(columns, b.nrows()).fill(numbers, rng);
                spread_of_factor(b.ncols()).fill(b.as_mut_slice(), rng);
            }
            Beside::Right(v) => {
                // An entry of `U V` is a sum of `r` products of two numbers from `U(±bound)`: variance
                // `r bound⁴/9`.
                let variance = init.of_rank(rows, v.ncols()).variance();
                let bound = (9.0 * variance / columns as f64).sqrt().sqrt();
                Spread::Uniform(bound).fill(numbers, rng);
                Spread::Uniform(bound).fill(v.as_mut_slice(), rng);
            }
            Beside::Places(places, senders) => {
                init.sparse(columns, *senders, rows).fill(numbers, rng);
                for places in places.chunks_exact_mut(rows) {
                    let drawn = rand::seq::index::sample(rng, *senders, rows);
                    places.iter_mut().zip(drawn).for_each(|(place, unit)| *place = name_of(unit));
                    places.sort_unstable();
                }
            }
            &mut Beside::Leading(rows, columns) => {
                let variance = |(rows, columns)| init.spread(rows, columns).variance();
                let factor = (variance((rows, columns)) / variance(shared)).sqrt();
                numbers.fill(T::of(factor));
            }
        }
    }
}
