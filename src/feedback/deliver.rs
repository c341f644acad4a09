//! Delivering what a route sends to the hidden layers: the one place where the learning rules differ.

use std::ops::Range;

use super::{Feedback, hops::Transport, stored::Beside};
use crate::{
    buffer::Columns,
    error::Result,
    linalg,
    network::{Block, Derivative, Network},
    scalar::Scalar,
    workspace::{Activations, AtOutput, BlockActivations, BlockDeltas, Deltas, require_match},
};

impl<T: Scalar> Feedback<T> {
    /// Fills `δ_l` of every hidden layer that the route leads to, from `δ_L` on:
    /// `δ_l = f'(a_l) ∘ Σ M · signal` over the hops to it. The others do not learn.
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the network, activations and deltas do not belong together;
    /// [`Error::TooLarge`](crate::Error::TooLarge).
    pub fn deliver(
        &self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        self.require_network(network)?;
        require_match("deliver", &network.layout, activations, deltas)?;
        self.deliver_checked(network, activations, deltas)
    }

    /// [`deliver`](Self::deliver) of what belongs together.
    pub(crate) fn deliver_checked(
        &self,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        self.begin_delivery(activations, deltas)?;
        let mut first = 0;
        for hops in self.route.hops().chunk_by(|one, other| one.to == other.to) {
            self.deliver_hops(first..first + hops.len(), network, activations, deltas)?;
            first += hops.len();
        }
        Ok(())
    }

    /// What comes before the first hop.
    pub(crate) fn begin_delivery(
        &self,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        self.require_followed(activations)?;
        self.prepare(deltas)?;
        deltas.begin_delivery();
        Ok(())
    }

    /// The part of [`deliver`](Self::deliver) that makes the delta of one layer: all hops that lead
    /// there.
    pub(crate) fn deliver_hops(
        &self,
        hops: Range<usize>,
        network: &Network<T>,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        let to = self.route.hops()[hops.start].to;
        if hops.len() > 1 {
            deltas.blocks[to].reserve_sum()?;
        }
        let (block, saved) = (&network.blocks[to], &activations.blocks[to]);
        let send = |index: usize, deltas: &mut Deltas<T>, then: Derivative<'_, T>| {
            let hop = self.route.hops()[index];
            let up = Transport::of(&self.route, hop) == Transport::Up;
            if up {
                let from = self.route.sender(hop);
                if !deltas.blocks[from].sent_up {
                    network.blocks[from]
                        .send_up(&activations.blocks[from], &mut deltas.blocks[from]);
                }
            }
            let (source, receiver) = deltas.sent(hop.signal, to);
            self.send(index, network, source, receiver, then);
            if up {
                let (below, at) = deltas.blocks.split_at_mut(to);
                block.receive_from_below(saved, &mut at[0], below);
            }
        };
        let skipped = self.skipped[to];
        let way_back = block.way_back(saved, hops.len() == 1 && !skipped);
        send(hops.start, deltas, way_back.beside_product);
        for index in hops.skip(1) {
            deltas.blocks[to].put_aside();
            send(index, deltas, Derivative::none());
            deltas.blocks[to].add_what_was_put_aside();
        }
        if skipped {
            deltas.add_what_was_skipped(to);
        }
        way_back.finish(network.parameters.layer(to), &mut deltas.blocks[to]);
        deltas.blocks[to].served = true;
        Ok(())
    }

    /// What hop number `index` alone brings to the end of the layer that it leads to, before the
    /// layer's derivatives.
    #[cfg(feature = "mpi")]
    pub(crate) fn bring(&self, index: usize, network: &Network<T>, deltas: &mut Deltas<T>) {
        let hop = self.route.hops()[index];
        let (source, receiver) = deltas.sent(hop.signal, hop.to);
        self.send(index, network, source, receiver, Derivative::none());
    }

    /// [`Route::is_direct`]
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Makes the signals of the output, and room for the signals between two factors.
    pub(crate) fn prepare(&self, deltas: &mut Deltas<T>) -> Result<()> {
        if self.has_factors {
            self.make_room(deltas)?;
        }
        if self.sends_target {
            deltas.require_target()?;
        }
        deltas.make(&self.made)
    }

    /// Makes room for the signals between two factors.
    fn make_room(&self, deltas: &mut Deltas<T>) -> Result<()> {
        for (index, hop) in self.route.hops().iter().enumerate() {
            let rows = self.between(index);
            if rows > 0 {
                deltas.blocks[hop.to].reserve_between(index, rows)?;
            }
        }
        Ok(())
    }

    /// How many numbers of a sample stand between the two factors of a hop; 0 if it has no two.
    pub(super) fn between(&self, index: usize) -> usize {
        match self.matrices[index].as_ref().map(|matrix| &matrix.beside) {
            Some(Beside::Right(v)) => v.nrows(),
            Some(Beside::Left(b)) => {
                let sender = self.route.sender(self.route.hops()[index]);
                self.layout.blocks[sender].a / b.nrows() * b.ncols()
            }
            Some(Beside::Nothing | Beside::Places(..) | Beside::Leading(..)) | None => 0,
        }
    }

    /// Whether it sends the targets, which a loss then has to leave in the deltas.
    pub(crate) fn sends_target(&self) -> bool {
        self.sends_target
    }

    /// Where the route is [direct](Route::is_direct), a number that no square of an entry of a
    /// hidden layer's matrix exceeds.
    pub(crate) fn direct_squares(&self, layer: usize) -> f64 {
        self.drawn(self.direct_hop(layer)).squares
    }

    /// `δ_l = (B_l e) ∘ f'(a_l)` in hidden layer `layer`, the block `receiver`, where the route is
    /// [direct](Route::is_direct) and the block at most a layer and an activation, so that nothing is left
    /// to do after the product; or with another signal of the output.
    pub(crate) fn send_direct(
        &self,
        layer: usize,
        receiver: &Block,
        activations: &BlockActivations<T>,
        output: AtOutput<T>,
        to: &mut BlockDeltas<T>,
    ) {
        let index = self.direct_hop(layer);
        let way_back = receiver.way_back(activations, true);
        let signal = output.get(self.route.hops()[index].signal);
        self.send_straight(index, signal, to, way_back.beside_product);
        to.served = true;
    }

    fn direct_hop(&self, layer: usize) -> usize {
        self.first[layer].expect("a direct route leads to every layer")
    }

    /// `M · signal` of one hop, to the end of the receiving block, and `then` on it while it is in
    /// cache.
    fn send(
        &self,
        index: usize,
        network: &Network<T>,
        source: &BlockDeltas<T>,
        to: &mut BlockDeltas<T>,
        then: Derivative<T>,
    ) {
        let hop = self.route.hops()[index];
        let layer = |layer: usize| {
            let own = || network.parameters.layer(layer).weights();
            (
                network.blocks[layer].map,
                self.matrices[index].as_ref().map_or_else(own, |stored| stored.numbers.as_slice()),
            )
        };
        match Transport::of(&self.route, hop) {
            Transport::Down => {
                let (map, matrix) = layer(self.route.sender(hop));
                let then = |place, delta: &mut [T]| then.multiply(place, delta);
                let beside = self.matrices[index].as_ref().map(|stored| &stored.beside);
                let (between, arrival) = to.between_and_arrival(index);
                if let (Some(Beside::Left(b)), Some(between)) = (beside, between) {
                    map.mix(linalg::of(b), source.delta(), between);
                    let map = map.widened(b.ncols() / b.nrows());
                    map.apply_transpose(matrix, between, arrival, &then);
                } else {
                    map.apply_transpose(matrix, source.delta(), arrival, &then);
                }
            }
            Transport::Up => {
                // Through what the forward pass goes through: the sender's pooling, from whose
                // end the signal comes, the receiver's weights, the receiver's pooling.
                let (map, matrix) = layer(hop.to);
                let then = |place, delta: &mut [T], _: &mut [T]| then.multiply(place, delta);
                map.apply(matrix, None, source.end(), &mut to.stages[0], &mut [], &then);
            }
            Transport::Straight => self.send_straight(index, source, to, then),
        }
    }

    /// A hop of [`Transport::Straight`].
    fn send_straight(
        &self,
        index: usize,
        source: &BlockDeltas<T>,
        to: &mut BlockDeltas<T>,
        then: Derivative<T>,
    ) {
        let (between, arrival) = to.between_and_arrival(index);
        let between = between.map_or(&mut [][..], Columns::as_mut_slice);
        let (signal, delta) = (source.delta().mat(), arrival.as_mut_slice());
        self.drawn(index).send(&self.shared, signal, between, delta, then);
    }
}
