//! How the hops of a route act on a network.

use crate::{
    error::{Error, Result},
    network::Network,
    route::{Hop, Route, Through},
    scalar::Scalar,
    workspace::Layout,
};

/// How a hop of a route acts on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// From the layer above the receiver, through the transposed weights of the upper layer, or through
    /// random ones in their place.
    Down,
    /// From the layer below the receiver, through the receiver's weights, or through random ones in
    /// their place.
    Up,
    /// From any layer, through a matrix.
    Straight,
}

impl Transport {
    pub(super) fn of(route: &Route, hop: Hop) -> Self {
        if hop.through.is_straight() {
            Self::Straight
        } else if route.sender(hop) > hop.to {
            Self::Down
        } else {
            Self::Up
        }
    }
}

/// The shapes of what is stored for the matrix of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shapes {
    /// The matrix.
    Whole(usize, usize),
    /// The two factors `U V` of a matrix of small rank.
    LowRank { receivers: usize, rank: usize, senders: usize },
    /// The two factors `B R` of what stands in for weights.
    Product { rows: usize, between: usize, columns: usize },
    /// A sparse matrix with this many entries in each row. It has a row for each receiver and a column
    /// for each sender.
    Sparse { receivers: usize, entries: usize, senders: usize },
    /// The part of the shared matrix that a hop takes.
    Leading(usize, usize),
}

impl Shapes {
    /// The shapes of what a hop stores; `None` if it has no matrix.
    pub(super) fn of<T: Scalar>(network: &Network<T>, route: &Route, hop: Hop) -> Option<Self> {
        let receivers = network.layout.output(hop.to);
        let senders = network.layout.blocks[route.sender(hop)].a;
        let (rows, columns) = network.blocks[route.owner(hop)].shape;
        Some(match hop.through {
            Through::Weights => return None,
            Through::LikeWeights | Through::Signs(_) | Through::KolenPollack | Through::Mirror => {
                Self::Whole(rows, columns)
            }
            Through::Matrix | Through::DirectKolenPollack | Through::Jacobian => {
                Self::Whole(receivers, senders)
            }
            Through::Sparse(entries) => Self::Sparse { receivers, entries, senders },
            Through::LowRank(rank) => Self::LowRank { receivers, rank, senders },
            Through::Shared => Self::Leading(receivers, senders),
            Through::Product(width) => {
                Self::Product { rows, between: rows.saturating_mul(width), columns }
            }
        })
    }

    /// Rows and columns of the numbers that are stored; what stands beside them does not count.
    pub(super) fn numbers(&self) -> (usize, usize) {
        match *self {
            Self::Whole(rows, columns) => (rows, columns),
            Self::LowRank { receivers, rank, .. } => (receivers, rank),
            Self::Product { between, columns, .. } => (between, columns),
            Self::Sparse { receivers, entries, .. } => (entries, receivers),
            Self::Leading(..) => (1, 1),
        }
    }
}

/// Fails for a hop whose matrix cannot have that many entries in a row, or that large a rank.
pub(super) fn check<T: Scalar>(network: &Network<T>, route: &Route, hop: Hop) -> Result<()> {
    let refuse = |reason| Err(Error::ImpossibleHop { hop: hop.to_string(), reason });
    match Shapes::of(network, route, hop) {
        Some(Shapes::Sparse { entries, senders, .. }) if entries > senders => {
            refuse("fewer units than that send")
        }
        // A file stores the number of each entry's column as a `T`, which has to hold it exactly.
        Some(Shapes::Sparse { senders, .. })
            if u32::try_from(senders).is_err() || senders as f64 * T::EPSILON > 2.0 =>
        {
            refuse("more units send than a sparse matrix can name")
        }
        Some(Shapes::LowRank { receivers, rank, senders }) if rank > receivers.min(senders) => {
            refuse("the rank is larger than the number of rows or columns")
        }
        _ => Ok(()),
    }
}

/// Tells for each hidden layer whether a residual connection sends a copy of a delta down to it. That
/// needs two things: the layer's feedback comes down from the layer above, and a residual connection
/// that starts here ends in a layer that learns.
pub(super) fn skipped<T: Scalar>(network: &Network<T>, route: &Route) -> Result<Vec<bool>> {
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
pub(super) fn is_transposed(layout: &Layout, route: &Route, hop: Hop) -> bool {
    Transport::of(route, hop) == Transport::Down && layout.is_dense(route.sender(hop))
}

/// The indices of the hops that have a matrix, sorted by the hidden layer they lead to, lowest first.
pub(super) fn matrix_hops(route: &Route) -> Vec<usize> {
    let hops = route.hops();
    let mut with: Vec<usize> =
        (0..hops.len()).filter(|&index| hops[index].through != Through::Weights).collect();
    with.sort_by_key(|&index| hops[index].to);
    with
}
