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
    pub(super) fn of(route: &Route, hop: Hop) -> Self {
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

/// Rows and columns of a hop's matrix as it is stored, if it has one.
pub(super) fn stored_shape<T: Scalar>(
    network: &Network<T>,
    route: &Route,
    hop: Hop,
) -> Option<(usize, usize)> {
    match hop.through {
        Through::Weights => None,
        Through::LikeWeights | Through::Signs(_) | Through::KolenPollack => {
            Some(network.blocks[route.owner(hop)].shape)
        }
        Through::Matrix => {
            let sender = &network.layout.blocks[route.sender(hop)];
            Some((network.layout.output(hop.to), sender.a))
        }
    }
}

/// For each hidden layer whether residual connections send something down to it: something comes down
/// from the layer above, and a connection from here leads to a layer that feedback reaches.
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

/// The indices of the hops that have a matrix, those to the first hidden layer first.
pub(super) fn matrix_hops(route: &Route) -> Vec<usize> {
    let hops = route.hops();
    let mut with: Vec<usize> =
        (0..hops.len()).filter(|&index| hops[index].through != Through::Weights).collect();
    with.sort_by_key(|&index| hops[index].to);
    with
}
