//! The matrices of a route, and what they are for.

use std::{fmt, sync::Arc};

use nalgebra::DMatrix;

use super::{
    hops::{Shapes, is_transposed, matrix_hops, skipped},
    mirror::Mirroring,
    slopes::Slopes,
    stored::{Beside, Stored},
};
use crate::{
    error::{Error, Result, require_finite, require_shape},
    init::FeedbackInit,
    network::Network,
    route::{Hop, Route},
    rule::FeedbackRule,
    scalar::Scalar,
    signal::Signal,
    workspace::Layout,
};

/// A learning rule at work on one network: its [`Route`] and the random matrices of its hops.
///
/// Hidden layers are counted from 0. Their feedback matrices have these shapes:
///
/// | rule | matrix of hidden layer `l` | shape |
/// |---|---|---|
/// | BP, shallow | none | |
/// | FA, uSF, frSF, brSF, KP, WM | `B_l` | `n_l × n_{l+1}` |
/// | PFA | `B_l = Rᵀ Bᵀ`, by its [factors](Self::factors) | `n_l × n_{l+1}` |
/// | DFA, sDFA, DRTP, DKP | `B_l` | `n_l × n_L` |
/// | IFA | `B_1` for the first, none above | `n_1 × n_L` |
///
/// Where weights are replaced by others ([`LikeWeights`](crate::Through::LikeWeights), as under FA) and these are
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
    pub(super) rule: Option<FeedbackRule>,
    pub(super) route: Route,
    pub(super) layout: Arc<Layout>,
    /// For each hop its matrix, if it has one.
    pub(super) matrices: Vec<Option<Stored<T>>>,
    /// The matrix that hops share, if some do.
    pub(super) shared: DMatrix<T>,
    /// For each hidden layer the first hop to it that has a matrix.
    pub(super) first: Vec<Option<usize>>,
    /// For each hidden layer whether residual connections send something down to it.
    pub(super) skipped: Vec<bool>,
    /// [`Route::is_direct`]
    pub(super) direct: bool,
    /// Whether some matrix is stored as two factors.
    pub(super) has_factors: bool,
    /// What it sends that is made of the error, and whether it sends the targets.
    pub(super) made: Vec<Signal>,
    pub(super) sends_target: bool,
    /// What magnitudes are drawn from that are drawn anew for every step, if there are such.
    pub(super) magnitudes: Option<(FeedbackInit, u64)>,
    /// The forward pass whose weights the matrices follow, if they follow weights.
    pub(super) followed: usize,
    /// How the matrices that learn from noise do so.
    pub(super) mirroring: Mirroring<T>,
    /// The noise from which matrices learn the slopes of the outputs.
    pub(super) slopes: Slopes<T>,
    /// A number that none of the first moments exceeds.
    pub(super) largest_moment: f64,
}

impl<T: fmt::Debug> fmt::Debug for Feedback<T> {
    /// What [`PartialEq`] compares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feedback")
            .field("rule", &self.rule)
            .field("route", &self.route)
            .field("network", &self.layout.name)
            .field("matrices", &self.matrices)
            .field("shared", &self.shared)
            .field("magnitudes", &self.magnitudes)
            .field("mirroring", &self.mirroring)
            .field("slopes", &self.slopes)
            .finish_non_exhaustive()
    }
}

impl<T: PartialEq> PartialEq for Feedback<T> {
    /// Compares the rule, the route, the matrices with their moments and with how they change, and
    /// which network they are for.
    fn eq(&self, other: &Self) -> bool {
        (self.rule, &self.route, &self.layout) == (other.rule, &other.route, &other.layout)
            && (&self.matrices, &self.shared) == (&other.matrices, &other.shared)
            && (self.magnitudes, &self.mirroring) == (other.magnitudes, &other.mirroring)
            && self.slopes == other.slopes
    }
}

impl<T: Scalar> Feedback<T> {
    /// For each hidden layer that has a matrix the first one with its hop, in one piece: what stands
    /// in for weights has their shape.
    pub(crate) fn first_matrices(&self) -> impl Iterator<Item = (Hop, DMatrix<T>)> {
        let hops = self.first.iter().flatten();
        hops.map(|&index| (self.route.hops()[index], self.drawn(index).whole(&self.shared)))
    }

    /// A hop's matrix as users see it.
    pub(super) fn shown(&self, index: usize) -> DMatrix<T> {
        let matrix = self.drawn(index).whole(&self.shared);
        if is_transposed(&self.layout, &self.route, self.route.hops()[index]) {
            matrix.transpose()
        } else {
            matrix
        }
    }

    /// Rows and columns of a hop's matrix as users see it.
    fn shown_shape(&self, index: usize) -> (usize, usize) {
        let (rows, columns) = self.drawn(index).shape();
        if is_transposed(&self.layout, &self.route, self.route.hops()[index]) {
            (columns, rows)
        } else {
            (rows, columns)
        }
    }

    /// Takes a hop's matrix as users see it.
    pub(super) fn set(&mut self, index: usize, matrix: DMatrix<T>) -> Result<()> {
        let hop = self.route.hops()[index];
        let stored = self.drawn(index);
        let transposed = is_transposed(&self.layout, &self.route, hop);
        let name = || self.name(hop.to);
        if let Beside::Left(_) | Beside::Right(_) | Beside::Leading(..) = &stored.beside {
            let first = format!("a matrix for the hop {hop}");
            let second = "what it is made of".to_owned();
            let reason = "it cannot be taken apart: give Feedback::set_factors its factors, or draw the matrix that is shared";
            return Err(Error::Conflict { first, second, reason });
        }
        require_shape(name, self.shown_shape(index), matrix.shape())?;
        require_finite(name, matrix.nrows(), matrix.as_slice())?;
        let numbers = if transposed { matrix.transpose() } else { matrix };
        let (name, shared) = (self.name(hop.to), &self.shared);
        let stored = self.matrices[index].as_mut().expect("it is there");
        if matches!(stored.beside, Beside::Places(..)) {
            stored.take_entries(&numbers, name)?;
        } else {
            stored.numbers = numbers;
        }
        stored.measure(shared);
        self.followed = 0; // Its signs are its own until it follows again.
        Ok(())
    }

    /// The two factors of the matrix through which hidden layer `layer` receives its feedback, where
    /// it is a product: `U`, `n_l × r`, and `V`, `r × n_L`, of a matrix `U V` of small rank; `R`,
    /// `k n_{l+1} × n_l`, and `B`, `n_{l+1} × k n_{l+1}`, of PFA's `Rᵀ Bᵀ`. A signal passes the second
    /// one first.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network has no such hidden layer.
    pub fn factors(&self, layer: usize) -> Result<Option<[DMatrix<T>; 2]>> {
        self.require_hidden(layer)?;
        Ok(self.first[layer].and_then(|index| {
            let stored = self.drawn(index);
            match &stored.beside {
                Beside::Left(first) | Beside::Right(first) => {
                    Some([stored.numbers.clone(), first.clone()])
                }
                Beside::Nothing | Beside::Places(..) | Beside::Leading(..) => None,
            }
        }))
    }

    /// Replaces these [`factors`](Self::factors).
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoFeedback`] where there are none, [`Error::ShapeMismatch`],
    /// [`Error::NonFinite`]; the old factors then stay.
    pub fn set_factors(&mut self, layer: usize, [last, first]: [DMatrix<T>; 2]) -> Result<()> {
        self.require_hidden(layer)?;
        let none = || Error::NoFeedback { rule: self.rule_name(), layer };
        let index = self.first[layer].ok_or_else(none)?;
        let name = || format!("a factor of {}", self.name(layer));
        let stored = self.drawn(index);
        let (Beside::Left(old) | Beside::Right(old)) = &stored.beside else { return Err(none()) };
        for (new, old) in [(&last, &stored.numbers), (&first, old)] {
            require_shape(name, old.shape(), new.shape())?;
            require_finite(name, new.nrows(), new.as_slice())?;
        }
        let stored = self.matrices[index].as_mut().expect("it is there");
        stored.numbers = last;
        if let Beside::Left(old) | Beside::Right(old) = &mut stored.beside {
            *old = first;
        }
        stored.measure(&self.shared);
        Ok(())
    }

    /// What errors call a matrix.
    pub(super) fn name(&self, layer: usize) -> String {
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
        self.shared.len() + self.matrices.iter().flatten().map(Stored::len).sum::<usize>()
    }

    /// The hops to a layer, each with the shape of its matrix, as users see it, if it has one.
    pub(crate) fn hops_to(&self, layer: usize) -> Vec<(Hop, Option<(usize, usize)>)> {
        let hops = self.route.hops().iter().enumerate().filter(|(_, hop)| hop.to == layer);
        let shape = |index: usize| self.matrices[index].as_ref().map(|_| self.shown_shape(index));
        hops.map(|(index, &hop)| (hop, shape(index))).collect()
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

    /// Sends `signal` from now on in the place of the error, or of what was made of it; the matrices
    /// stay. See [`Route::with_signal`]. The feedback has the name of its rule only as long as it
    /// has the rule's route.
    ///
    /// ```
    /// use feedback_alignment::{Feedback, FeedbackInit, FeedbackRule, Network, Signal, Threshold};
    ///
    /// let network = Network::<f32>::builder(4).dense(6).tanh().dense(3).build()?;
    /// let mut feedback = Feedback::new(&network, FeedbackRule::Dfa, FeedbackInit::default(), 1)?;
    /// feedback.set_signal(Signal::ErrorCentred(Threshold::ZERO))?;
    /// assert_eq!(feedback.rule_name(), "2:B(centred>0.0)->0");
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Route::with_signal`]; the old signal then stays.
    pub fn set_signal(&mut self, signal: Signal) -> Result<()> {
        let route = self.route.with_signal(signal)?;
        self.rule = self.rule.filter(|rule| rule.route(route.layer_count()) == route);
        self.made = route.made_of_error();
        self.sends_target = route.sends(Signal::Target);
        self.route = route;
        Ok(())
    }

    pub(super) fn require_hidden(&self, layer: usize) -> Result<()> {
        let count = self.route.layer_count() - 1;
        if layer < count {
            return Ok(());
        }
        Err(Error::NoSuchLayer { what: "hidden layer", layer, count })
    }

    /// The matrix of a hop that has one.
    pub(super) fn drawn(&self, index: usize) -> &Stored<T> {
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
            let shapes = Shapes::of(network, &self.route, hop);
            if let (Some(shapes), Some(matrix)) = (shapes, matrix)
                && !matrix.fits(&shapes)
            {
                let numbers =
                    |(rows, columns)| format!("{rows} × {columns} numbers for the hop {hop}");
                let found = numbers(matrix.numbers.shape());
                return Err(mismatch(numbers(shapes.numbers()), found));
            }
        }
        Ok(())
    }
}
