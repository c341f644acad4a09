//! Delivering the signals of a route to the hidden layers. Here, and nowhere else, the rules differ.

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
    /// Fills `δ_l` of every hidden layer that the route leads to: `δ_l = f'(a_l) ∘ Σ M · signal`,
    /// summed over the hops to that layer. It starts from `δ_L`, which has to be there. Other hidden
    /// layers do not learn.
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
        network.layout.memory.reserve::<T>()?; // The forward pass may have been on another thread.
        self.deliver_checked(network, activations, deltas)
    }

    /// [`deliver`](Self::deliver) without the checks, which the caller has made.
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

    /// Has to come before the first hop: checks the signs and makes the signals of the output.
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

    /// The part of [`deliver`](Self::deliver) that makes the delta of one layer. `hops` are all hops to
    /// it.
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
        let mut went_up = false;
        let mut send = |index: usize, deltas: &mut Deltas<T>, then: Derivative<'_, T>| {
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
                block.receive_from_below(saved, &mut at[0], (!went_up).then_some(&*below));
                went_up = true;
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

    /// Writes what hop number `index` alone brings to the end of its layer, before the layer's
    /// derivatives.
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

    /// Makes the signals of the output, and makes room for the numbers between two factors of a matrix.
    pub(crate) fn prepare(&self, deltas: &mut Deltas<T>) -> Result<()> {
        if self.has_factors {
            self.make_room(deltas)?;
        }
        if self.sends_target {
            deltas.require_target()?;
        }
        deltas.make(&self.made)
    }

    /// Makes room for the numbers between two factors of a matrix, and for the products with them.
    fn make_room(&self, deltas: &mut Deltas<T>) -> Result<()> {
        self.memory.reserve::<T>()?;
        for (index, hop) in self.route.hops().iter().enumerate() {
            let rows = self.between(index);
            if rows > 0 {
                deltas.blocks[hop.to].reserve_between(index, rows)?;
            }
        }
        Ok(())
    }

    /// How many numbers per sample stand between the two factors of a hop's matrix; 0 if it has no
    /// factors.
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

    /// Whether it sends the targets. The loss then has to store them in the deltas.
    pub(crate) fn sends_target(&self) -> bool {
        self.sends_target
    }

    /// For a [direct](Route::is_direct) route: an upper bound of the squares of the entries of a hidden
    /// layer's matrix.
    pub(crate) fn direct_squares(&self, layer: usize) -> f64 {
        self.drawn(self.direct_hop(layer)).squares
    }

    /// Makes `δ_l = (B_l e) ∘ f'(a_l)` of hidden layer `layer` in one go, or the same with another
    /// signal of the output. The route has to be [direct](Route::is_direct). The block `receiver` may
    /// have at most an activation after its layer, because nothing else is done after the product.
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

    /// Writes `M · signal` of one hop to the end of the receiving block. Applies `then` to each piece
    /// while it is still in cache.
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
                // The signal goes where the forward pass goes: it comes from the end of the sender, so
                // after its pooling, passes the receiver's weights, and later the receiver's pooling.
                let (map, matrix) = layer(hop.to);
                let then = |place, delta: &mut [T], _: &mut [T]| then.multiply(place, delta);
                map.apply(matrix, None, source.end(), &mut to.stages[0], &mut [], &then);
            }
            Transport::Straight => self.send_straight(index, source, to, then),
        }
    }

    /// The same for a hop of [`Transport::Straight`].
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
