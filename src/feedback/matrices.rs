//! The feedback of one network: the matrices of a route, and what is known about them.

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
    layer::ThreadMemory,
    linalg::zero_matrix,
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
/// | DFA, sDFA, DRTP, DKP, FDFA | `B_l` | `n_l × n_L` |
/// | IFA | `B_1` for the first, none above | `n_1 × n_L` |
///
/// A matrix that replaces the kernels of a convolution ([`LikeWeights`](crate::Through::LikeWeights),
/// as under FA) holds kernels itself, in the shape of the weights.
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
    /// The rule that the route belongs to, if it is a named one.
    pub(super) rule: Option<FeedbackRule>,
    pub(super) route: Route,
    pub(super) layout: Arc<Layout>,
    /// For each hop its matrix, if it has one.
    pub(super) matrices: Vec<Option<Stored<T>>>,
    /// The matrix that hops with [`Through::Shared`](crate::Through::Shared) take their parts from;
    /// empty if none does.
    pub(super) shared: DMatrix<T>,
    /// For each hidden layer the first hop to it that has a matrix of its own.
    pub(super) first: Vec<Option<usize>>,
    /// For each hidden layer whether a residual connection sends a copy of a delta down to it.
    pub(super) skipped: Vec<bool>,
    /// [`Route::is_direct`]
    pub(super) direct: bool,
    /// Whether some matrix is stored as two factors.
    pub(super) has_factors: bool,
    /// The memory that each thread needs for convolutions whose feedback passes through a product of two
    /// factors in place of the kernels.
    pub(super) memory: ThreadMemory,
    /// The signals it sends that are made from the error.
    pub(super) made: Vec<Signal>,
    pub(super) sends_target: bool,
    /// The distribution and seed of the magnitudes, if they are drawn anew for every step (brSF).
    pub(super) magnitudes: Option<(FeedbackInit, u64)>,
    /// The forward pass whose weights the matrices followed last; 0 if none.
    pub(super) followed: usize,
    /// Settings and state of the matrices that learn the weights from noise (WM).
    pub(super) mirroring: Mirroring<T>,
    /// The noise from which matrices learn the slopes of the outputs (FDFA).
    pub(super) slopes: Slopes<T>,
    /// An upper bound of the magnitudes of all first moments.
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
    /// Compares the rule, the route, the matrices with their moments, the settings by which they
    /// change, and the network that they are for.
    fn eq(&self, other: &Self) -> bool {
        (self.rule, &self.route, &self.layout) == (other.rule, &other.route, &other.layout)
            && (&self.matrices, &self.shared) == (&other.matrices, &other.shared)
            && (self.magnitudes, &self.mirroring) == (other.magnitudes, &other.mirroring)
            && self.slopes == other.slopes
    }
}

impl<T: Scalar> Feedback<T> {
    /// For each hidden layer with a matrix: its first matrix, multiplied out if it is stored in parts,
    /// and the hop. A matrix that replaces weights has the shape of the weights.
    pub(crate) fn first_matrices(&self) -> impl Iterator<Item = Result<(Hop, DMatrix<T>)>> {
        let hops = self.first.iter().flatten();
        hops.map(|&index| Ok((self.route.hops()[index], self.drawn(index).whole(&self.shared)?)))
    }

    /// A hop's matrix in the shape that users see.
    pub(super) fn shown(&self, index: usize) -> Result<DMatrix<T>> {
        let matrix = self.drawn(index).whole(&self.shared)?;
        if is_transposed(&self.layout, &self.route, self.route.hops()[index]) {
            let mut transposed = zero_matrix(matrix.ncols(), matrix.nrows())?;
            matrix.transpose_to(&mut transposed);
            Ok(transposed)
        } else {
            Ok(matrix)
        }
    }

    /// Rows and columns of a hop's matrix in the shape that users see.
    fn shown_shape(&self, index: usize) -> (usize, usize) {
        let (rows, columns) = self.drawn(index).shape();
        if is_transposed(&self.layout, &self.route, self.route.hops()[index]) {
            (columns, rows)
        } else {
            (rows, columns)
        }
    }

    /// Replaces a hop's matrix, given in the shape that users see.
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

    /// The two factors of the matrix through which hidden layer `layer` receives its feedback, if that
    /// matrix is a product. For a matrix `U V` of low rank they are `U`, `n_l × r`, and `V`, `r × n_L`.
    /// For PFA's `Rᵀ Bᵀ` they are `R`, `k n_{l+1} × n_l`, and `B`, `n_{l+1} × k n_{l+1}`. A signal
    /// passes through the second factor first.
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

    /// Replaces the two [`factors`](Self::factors) of hidden layer `layer`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoFeedback`] if its matrix has no factors,
    /// [`Error::ShapeMismatch`], [`Error::NonFinite`]. After an error the old factors stay.
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

    /// How error messages call a matrix.
    pub(super) fn name(&self, layer: usize) -> String {
        format!("the {} feedback matrix of hidden layer {layer}", self.rule_name())
    }

    /// The name of the rule; the route as text if it has no name.
    #[must_use]
    pub fn rule_name(&self) -> String {
        self.rule.map_or_else(|| self.route.to_string(), |rule| rule.to_string())
    }

    /// The learning rule; `None` if the feedback has a route without a name.
    #[must_use]
    pub fn rule(&self) -> Option<FeedbackRule> {
        self.rule
    }

    /// The route of the feedback.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Copies of all matrices, each with its hop, in the order in which
    /// [`with_route_and_matrices`](Self::with_route_and_matrices) takes them.
    ///
    /// # Errors
    /// [`Error::TooLarge`] in place of a matrix that does not fit into memory. A sparse matrix and one of
    /// small rank are stored in parts, which may be far smaller than the matrix itself.
    pub fn matrices(&self) -> impl Iterator<Item = Result<(Hop, DMatrix<T>)>> {
        let hops = matrix_hops(&self.route).into_iter();
        hops.map(|index| Ok((self.route.hops()[index], self.shown(index)?)))
    }

    /// How many numbers the matrices store, factors included.
    #[must_use]
    pub fn matrix_entries(&self) -> usize {
        self.shared.len() + self.matrices.iter().flatten().map(Stored::len).sum::<usize>()
    }

    /// All hops to a layer. Each has the shape of its matrix as users see it; `None` for the forward
    /// weights.
    pub(crate) fn hops_to(&self, layer: usize) -> Vec<(Hop, Option<(usize, usize)>)> {
        let hops = self.route.hops().iter().enumerate().filter(|(_, hop)| hop.to == layer);
        let shape = |index: usize| self.matrices[index].as_ref().map(|_| self.shown_shape(index));
        hops.map(|(index, &hop)| (hop, shape(index))).collect()
    }

    /// A copy of the matrix `B_l` through which hidden layer `layer` receives its feedback. `None` if
    /// the layer has no matrix of its own. If several hops lead to the layer, it is the first matrix
    /// among them.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network has no such hidden layer, [`Error::TooLarge`] as for
    /// [`matrices`](Self::matrices).
    pub fn matrix(&self, layer: usize) -> Result<Option<DMatrix<T>>> {
        self.require_hidden(layer)?;
        self.first[layer].map(|index| self.shown(index)).transpose()
    }

    /// Replaces the feedback matrix `B_l` of hidden layer `layer`. If several hops lead to the layer,
    /// it is the first matrix among them.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::NoFeedback`] if the layer has no matrix, [`Error::Conflict`] if
    /// the matrix is stored as factors or is part of the shared one, [`Error::ShapeMismatch`],
    /// [`Error::NonFinite`]. After an error the old matrix stays.
    pub fn set_matrix(&mut self, layer: usize, matrix: DMatrix<T>) -> Result<()> {
        self.require_hidden(layer)?;
        let index =
            self.first[layer].ok_or_else(|| Error::NoFeedback { rule: self.rule_name(), layer })?;
        self.set(index, matrix)
    }

    /// From now on sends `signal` in place of the error, or of a signal made from it; the matrices
    /// stay. See [`Route::with_signal`]. The feedback keeps the name of its rule only if the new route
    /// is still the route of that rule.
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
    /// Those of [`Route::with_signal`]; after an error the old signal stays.
    pub fn set_signal(&mut self, signal: Signal) -> Result<()> {
        let route = self.route.with_signal(signal)?;
        self.rule =
            self.rule.filter(|rule| rule.route(route.layer_count()).is_ok_and(|own| own == route));
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

    /// The stored matrix of a hop. Only call it for a hop that has one.
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
        // Two networks can have layouts of the same sizes but kernels of different sizes.
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
