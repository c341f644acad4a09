//! Routes: how feedback finds its way through a network, as a value that users can write down.

use std::{
    collections::{BTreeMap, BinaryHeap},
    fmt,
    str::FromStr,
};

use crate::{
    error::{Error, Result, require},
    signal::Signal,
};

mod through;

pub use through::{Magnitudes, Through};

/// How the error finds its way to the hidden layers: a list of [`Hop`]s. Hidden layer `l` receives
///
/// ```text
/// δ_l = f'(a_l) ∘ Σ M · signal        summed over the hops to l
/// ```
///
/// A [`FeedbackRule`](crate::FeedbackRule) is the name of a route. You can also write a route yourself:
/// a different rule for each layer, feedback that skips layers, or several signals that add up.
///
/// A layer that no hop leads to does not learn. Its moments and running statistics do not change
/// either. If such a layer has batch normalisation, a trainer asks you to
/// [freeze](crate::Network::freeze) it. Otherwise training would use the statistics of the batch and
/// evaluation would use running statistics that never changed.
///
/// ```
/// use feedback_alignment::{Feedback, FeedbackInit, Hop, Network, Route, Signal, Through};
///
/// // Direct feedback to the upper of two hidden layers, backpropagation from there to the lower.
/// let route = Route::new(3, [
///     Hop { to: 0, signal: Signal::Delta(1), through: Through::Weights },
///     Hop { to: 1, signal: Signal::Error, through: Through::Matrix },
/// ])?;
/// assert_eq!(route.to_string(), "3:B(e)->1,W(1)->0"); // In the order in which they are made.
/// assert_eq!("3:W(1)->0,B(e)->1".parse::<Route>()?, route);
///
/// let network = Network::<f32>::builder(4).dense(6).tanh().dense(5).tanh().dense(3).build()?;
/// let feedback = Feedback::with_route(&network, route, FeedbackInit::default(), 1)?;
/// assert_eq!(feedback.matrix(1)?.unwrap().shape(), (5, 3));
/// assert!(feedback.matrix(0)?.is_none());
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Number of weighted layers, the output layer included.
    layers: usize,
    /// Sorted so that every signal is complete before it is sent. Hops to the same layer stand
    /// together.
    hops: Vec<Hop>,
}

/// One leg of a [`Route`]: it adds `M · signal` to what arrives at the end of a hidden layer, after
/// its pooling if it has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The hidden layer that receives, counted from 0.
    pub to: usize,
    /// What is sent.
    pub signal: Signal,
    /// The matrix `M` that it passes through.
    pub through: Through,
}

impl Route {
    /// A route through a network with `layers` weighted layers, the output layer included. The hops may
    /// come in any order: they are sorted so that every signal is complete before it is sent.
    ///
    /// # Errors
    /// [`Error::ImpossibleHop`] for a hop that leads to a layer that is not hidden, or comes from a
    /// layer that does not exist. The same error for a hop that sends the delta of a layer which
    /// receives nothing, or which itself depends on the hop. And for a hop through weights between
    /// layers that are not neighbours, or through a matrix of size 0. [`Error::InvalidParameter`] for more
    /// than 65,536 layers.
    pub fn new(layers: usize, hops: impl IntoIterator<Item = Hop>) -> Result<Self> {
        require_layers(layers)?;
        let output = layers.saturating_sub(1);
        let mut given: Vec<Hop> = hops.into_iter().collect();
        for hop in &mut given {
            if hop.signal == Signal::Delta(output) {
                hop.signal = Signal::Error; // The delta of the output layer.
            }
            hop.check(output)?;
        }
        // For each layer the hops to it, and how many of them still wait for a delta.
        let mut waiting: BTreeMap<usize, (Vec<Hop>, usize)> = BTreeMap::new();
        // For each layer those that its delta is sent to, once for each hop.
        let mut receivers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &hop in &given {
            let (to_layer, missing) = waiting.entry(hop.to).or_default();
            to_layer.push(hop);
            if let Some(from) = hop.signal.layer() {
                *missing += 1;
                receivers.entry(from).or_default().push(hop.to);
            }
        }
        // The highest layer first: a residual connection sends a copy of a delta down to a lower
        // layer, so the upper delta has to be made before.
        let ready = waiting.iter().filter(|(_, (_, missing))| *missing == 0);
        let mut ready: BinaryHeap<usize> = ready.map(|(&layer, _)| layer).collect();
        let mut hops: Vec<Hop> = Vec::with_capacity(given.len());
        while let Some(layer) = ready.pop() {
            hops.extend(waiting.remove(&layer).into_iter().flat_map(|(to_layer, _)| to_layer));
            for to in receivers.remove(&layer).unwrap_or_default() {
                if let Some((_, missing)) = waiting.get_mut(&to) {
                    *missing -= 1;
                    if *missing == 0 {
                        ready.push(to);
                    }
                }
            }
        }
        // A layer whose delta was made has no receivers any more.
        let stuck =
            |hop: &&Hop| hop.signal.layer().is_some_and(|from| receivers.contains_key(&from));
        match given.iter().find(stuck) {
            Some(hop) => Err(hop.refuse("no delta is there to be sent when it is needed")),
            None => Ok(Self { layers, hops }),
        }
    }

    /// Number of weighted layers, the output layer included.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers
    }

    /// The hops, sorted so that every signal is complete before it is sent. Hops to the same layer
    /// stand together.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The same route with the matrix `new` in every hop that had `old`. For example, IFA with random
    /// matrices on its way up is `Weights` → `LikeWeights`, and DFA with sparse matrices is `Matrix` →
    /// `Sparse(1)`.
    ///
    /// ```
    /// use feedback_alignment::{FeedbackRule, Through};
    ///
    /// let ifa = FeedbackRule::Ifa.route(3)?.with(Through::Weights, Through::LikeWeights)?;
    /// assert_eq!(ifa.to_string(), "3:B(e)->0,R(0)->1");
    /// let fa = FeedbackRule::Fa.route(3)?.with(Through::LikeWeights, Through::LowRank(2))?;
    /// assert_eq!(fa.to_string(), "3:Br2(e)->1,Br2(1)->0");
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ImpossibleHop`] where a hop cannot go through `new`.
    pub fn with(mut self, old: Through, new: Through) -> Result<Self> {
        for hop in self.hops.iter_mut().filter(|hop| hop.through == old) {
            hop.through = new;
        }
        Self::new(self.layers, self.hops)
    }

    /// Whether the feedback passes through the forward weights or through their signs. BP and IFA need
    /// the weights; hardware would have to copy them to where the feedback runs.
    #[must_use]
    pub fn reads_weights(&self) -> bool {
        self.has(|through| matches!(through, Through::Weights | Through::Signs(_)))
    }

    /// Whether learning fails to start from weights that are all 0: the feedback passes through them, or
    /// learns what they do, or the first layer would stay 0 and let nothing through.
    pub(crate) fn needs_weights(&self) -> bool {
        self.reads_weights() || self.has_slopes() || !self.serves(0)
    }

    /// Whether some matrix follows the weights: it takes their signs, or learns from noise that passes
    /// through them. Such a route needs [`Feedback::follow`](crate::Feedback::follow) before each
    /// delivery.
    #[must_use]
    pub fn follows_weights(&self) -> bool {
        let follows =
            |through| matches!(through, Through::Signs(_) | Through::Mirror | Through::Jacobian);
        self.has(follows)
    }

    /// Whether some matrix has the signs of the weights.
    pub(crate) fn has_signs(&self) -> bool {
        self.has(|through| matches!(through, Through::Signs(_)))
    }

    /// Whether some matrix learns the weights from noise.
    pub(crate) fn has_mirrors(&self) -> bool {
        self.has(|through| through == Through::Mirror)
    }

    /// Whether some matrix learns the slopes of the outputs.
    pub(crate) fn has_slopes(&self) -> bool {
        self.has(|through| through == Through::Jacobian)
    }

    /// Whether the matrix of some hop satisfies `which`.
    pub(crate) fn has(&self, which: impl Fn(Through) -> bool) -> bool {
        self.hops.iter().any(|hop| which(hop.through))
    }

    /// Whether some matrix is drawn anew for every step.
    pub(crate) fn draws_magnitudes(&self) -> bool {
        self.has(|through| through == Through::Signs(Magnitudes::New))
    }

    /// The layer whose weights a hop passes through or replaces: the upper of the two layers that the
    /// hop connects.
    pub(crate) fn owner(&self, hop: Hop) -> usize {
        self.sender(hop).max(hop.to)
    }

    /// Whether some matrix gets a step of the optimiser.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.has(Through::learns)
    }

    /// Whether every hidden layer has exactly one hop, which comes straight from the output through a
    /// matrix of its own. It sends the error, something made of it, or the target. Then no layer waits
    /// for another.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        let direct = |hop: &Hop| hop.through.is_straight() && hop.signal.layer().is_none();
        self.hops.len() + 1 == self.layers
            && self.hops.iter().all(direct)
            && self.hops.windows(2).all(|pair| pair[0].to != pair[1].to) // So each has one.
    }

    /// Whether a layer learns: the output layer always does, a hidden one if a hop leads there.
    #[must_use]
    pub fn serves(&self, layer: usize) -> bool {
        self.layers.checked_sub(1) == Some(layer) || self.hops.iter().any(|hop| hop.to == layer)
    }

    /// The same route with `signal` in place of the error, or of a signal made from the error, in every
    /// hop that sends one. The rest of the route stays. For example, this lets any rule learn from a
    /// centred error.
    ///
    /// ```
    /// use feedback_alignment::{FeedbackRule, Signal, Threshold};
    ///
    /// let centred = Signal::ErrorCentred(Threshold::ZERO);
    /// let route = FeedbackRule::Ifa.route(3)?.with_signal(centred)?;
    /// assert_eq!(route.to_string(), "3:B(centred>0.0)->0,W(0)->1");
    /// assert_eq!(route.with_signal(Signal::Error)?, FeedbackRule::Ifa.route(3)?);
    /// let route = FeedbackRule::Dfa.route(3)?.with_signal(Signal::ErrorSign)?;
    /// assert_eq!(route, FeedbackRule::SDfa.route(3)?);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`] if `signal` is the delta of a hidden layer, or if there are hidden layers
    /// but no hop sends the error.
    pub fn with_signal(&self, signal: Signal) -> Result<Self> {
        let conflict = |reason| {
            let (first, second) = (format!("the signal {signal}"), format!("the route {self}"));
            Err(Error::Conflict { first, second, reason })
        };
        if signal.layer().is_some() {
            return conflict("what takes the place of the error comes from the output, as it does");
        }
        if self.layers > 1 && !self.hops.iter().any(|hop| hop.signal.is_error()) {
            return conflict("no hidden layer is sent the error");
        }
        let mut route = self.clone();
        let of_error = route.hops.iter_mut().filter(|hop| hop.signal.is_error());
        of_error.for_each(|hop| hop.signal = signal);
        Ok(route)
    }

    /// The signals of this route that are made from the error, each listed once.
    pub(crate) fn made_of_error(&self) -> Vec<Signal> {
        let mut made = Vec::new();
        for signal in self.hops.iter().map(|hop| hop.signal) {
            if signal.is_error() && signal != Signal::Error && !made.contains(&signal) {
                made.push(signal);
            }
        }
        made
    }

    /// Whether some hop sends this.
    pub(crate) fn sends(&self, signal: Signal) -> bool {
        self.hops.iter().any(|hop| hop.signal == signal)
    }

    /// The layer that a hop comes from.
    pub(crate) fn sender(&self, hop: Hop) -> usize {
        hop.signal.layer().unwrap_or(self.layers - 1)
    }
}

impl Hop {
    fn check(self, output: usize) -> Result<()> {
        if self.to >= output {
            return Err(self.refuse("feedback leads to hidden layers only"));
        }
        let from = self.signal.layer().unwrap_or(output);
        if from > output {
            return Err(self.refuse("it comes from a layer that is not there"));
        }
        match self.through {
            Through::Product(0) => Err(self.refuse("a factor of width 0 lets nothing through")),
            Through::Product(_) if from != self.to + 1 => {
                Err(self.refuse("a product stands in for the weights of the layer above"))
            }
            Through::Jacobian if self.signal.layer().is_some() => {
                Err(self.refuse("the slopes of the outputs take what comes from the output"))
            }
            Through::Sparse(0) => Err(self.refuse("a matrix without entries lets nothing through")),
            Through::LowRank(0) => Err(self.refuse("a matrix of rank 0 lets nothing through")),
            through if !through.is_straight() && from.abs_diff(self.to) != 1 => {
                Err(self.refuse("there are weights between neighbouring layers only"))
            }
            _ => Ok(()),
        }
    }

    fn refuse(self, reason: &'static str) -> Error {
        Error::ImpossibleHop { hop: self.to_string(), reason }
    }
}

impl fmt::Display for Hop {
    /// The matrix, what is sent through it, and the layer it leads to: `B(e)->0`, `W(2)->1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})->{}", self.through, self.signal, self.to)
    }
}

impl FromStr for Hop {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (matrix, rest) = text.split_once('(')?;
            let (signal, to) = rest.split_once(")->")?;
            Some(Self {
                to: to.parse().ok()?,
                signal: signal.parse().ok()?,
                through: matrix.parse().ok()?,
            })
        };
        parse().ok_or_else(|| Error::UnknownName {
            what: "hop",
            found: text.to_owned(),
            expected: "a matrix (W, R, B, Bs1, Br1, Bc, S, F, N, K, D, J, M or P1), a signal (e, sign, ternary>0.1, centred>0.0, t or the number of a layer), and the layer it leads to, as in B(e)->0".into(),
        })
    }
}

/// Fails for more layers than anybody trains. Without a limit the picture of a route, or the route of a rule,
/// could take all memory.
pub(crate) fn require_layers(layers: usize) -> Result<()> {
    let what = "the number of layers of a route";
    require(layers <= 1 << 16, what, layers as f64, "at most 65,536")
}

impl fmt::Display for Route {
    /// The number of layers and the hops: `3:W(e)->1,W(1)->0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.layers)?;
        self.hops.iter().enumerate().try_for_each(|(index, hop)| {
            f.write_str(if index == 0 { "" } else { "," }).and_then(|()| hop.fmt(f))
        })
    }
}

impl FromStr for Route {
    type Err = Error;

    /// Reads what `Display` writes; the hops may come in any order.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once(':').and_then(|(n, hops)| Some((n.parse().ok()?, hops)));
        let (layers, hops) = parts.ok_or_else(|| Error::UnknownName {
            what: "route",
            found: text.to_owned(),
            expected: "the number of layers, a colon and hops, as in 3:W(e)->1,W(1)->0".into(),
        })?;
        let hops = hops.split_terminator(',').map(str::parse).collect::<Result<Vec<Hop>>>()?;
        Self::new(layers, hops)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_hop(layers: usize) -> impl Strategy<Value = Hop> {
        let output = ["e", "sign", "ternary>0.1", "centred>0.0", "centred>0.25", "t"]
            .map(|text| text.parse::<Signal>().unwrap());
        let signal =
            prop_oneof![prop::sample::select(output.to_vec()), (0..layers).prop_map(Signal::Delta)];
        let through = prop::sample::select(
            "W R B Bs2 Br1 Bc S F N K D J M P3".split(' ').collect::<Vec<_>>(),
        )
        .prop_map(|letters| letters.parse().expect("the letters of a matrix"));
        (0..layers, signal, through).prop_map(|(to, signal, through)| Hop { to, signal, through })
    }

    proptest! {
        /// Whatever is accepted can be delivered from the first hop to the last, and nothing is
        /// lost of it.
        #[test]
        fn a_route_finds_every_signal_complete(
            layers in 1..6_usize, seed in prop::collection::vec(any_hop(6), 0..7),
        ) {
            let Ok(route) = Route::new(layers, seed.clone()) else { return Ok(()) };
            prop_assert_eq!(route.hops().len(), seed.len());
            let mut done = Vec::new();
            for group in route.hops().chunk_by(|one, other| one.to == other.to) {
                for hop in group {
                    if let Signal::Delta(from) = hop.signal {
                        prop_assert!(done.contains(&from), "{}: {}", route, hop);
                    }
                    prop_assert!(hop.to + 1 < layers);
                }
                prop_assert!(!done.contains(&group[0].to), "hops to a layer are apart: {route}");
                done.push(group[0].to);
            }
            prop_assert_eq!(route.to_string().parse::<Route>().unwrap(), route);
        }
    }

    #[test]
    fn impossible_routes_are_refused_with_the_hop_and_the_reason() {
        for (text, hop, reason) in [
            ("3:B(e)->2", "B(e)->2", "hidden layers only"),
            ("3:B(e)->7", "B(e)->7", "hidden layers only"),
            ("0:B(e)->0", "B(e)->0", "hidden layers only"),
            ("3:B(3)->0", "B(3)->0", "not there"),
            ("3:B(1)->0", "B(1)->0", "no delta"),
            ("3:B(0)->0", "B(0)->0", "no delta"),
            ("3:B(1)->0,B(0)->1", "B(1)->0", "no delta"),
            ("3:B(e)->1,B(0)->1,W(1)->0", "B(0)->1", "no delta"),
            ("3:W(e)->0", "W(e)->0", "neighbouring"),
            ("4:B(e)->2,R(2)->0", "R(2)->0", "neighbouring"),
            ("4:B(e)->2,P1(2)->0", "P1(2)->0", "the layer above"),
            ("3:B(e)->0,P1(0)->1", "P1(0)->1", "the layer above"),
            ("3:J(1)->0,B(e)->1", "J(1)->0", "what comes from the output"),
            ("3:P0(e)->1", "P0(e)->1", "width 0"),
            ("3:Bs0(e)->1", "Bs0(e)->1", "without entries"),
            ("3:Br0(e)->1", "Br0(e)->1", "rank 0"),
        ] {
            match text.parse::<Route>() {
                Err(Error::ImpossibleHop { hop: found, reason: why }) => {
                    assert!(found == hop && why.contains(reason), "{text}: {found}: {why}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in [
            "",
            "3",
            "x:B(e)->0",
            "3:B(e)->0,,",
            "3:C(e)->0",
            "3:B(f)->0",
            "3:Be->0",
            "3: B(e)->0",
            "3:é(e)->0",
            "3:Bs(e)->0",
            "3:B1(e)->0",
            "3:P99999999999999999999(e)->0",
        ] {
            assert!(matches!(text.parse::<Route>(), Err(Error::UnknownName { .. })), "{text}");
        }
    }

    #[test]
    fn a_route_knows_what_it_needs() {
        let route = |text: &str| text.parse::<Route>().unwrap();
        for text in [
            "3:B(e)->1,B(e)->0",
            "3:Bs1(t)->1,Bc(sign)->0",
            "3:B(ternary>0.1)->1,B(centred>0.5)->0",
            "1:",
        ] {
            assert!(route(text).is_direct() && !route(text).reads_weights(), "{text}");
        }
        for text in ["3:B(e)->0", "3:B(e)->0,B(e)->0", "3:B(e)->0,B(0)->1", "3:B(e)->0,W(0)->1"] {
            assert!(!route(text).is_direct(), "{text}");
        }
        assert!(route("3:B(e)->0,W(0)->1").reads_weights());
        assert!(!route("3:B(e)->0,R(0)->1").reads_weights());
        let slopes = route("3:J(e)->0,J(e)->1");
        assert!(!slopes.reads_weights() && slopes.needs_weights() && slopes.follows_weights());
        assert_eq!([0, 1, 2].map(|l| route("3:B(e)->1").serves(l)), [false, true, true]);
        // The delta of the output layer is the error.
        assert_eq!(route("3:W(2)->1"), route("3:W(e)->1"));
    }
}
