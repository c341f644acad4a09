//! Tangents: small changes, and how the network passes them on from layer to layer.

use super::{block::Block, definition::Network};
use crate::{
    buffer::Columns,
    layer::add,
    parameters::OfLayer,
    scalar::Scalar,
    workspace::{Activations, BlockActivations, BlockDeltas, Deltas},
};

impl<T: Scalar> Network<T> {
    /// Adds small changes to the outputs of hidden layers, in the forward pass that left `activations`,
    /// and computes their effect: the change `ȧ_L` of the network's outputs, to first order.
    ///
    /// ```text
    /// ȧ_l = W_l ḣ_{l-1}        ḣ_l = ∂h_l/∂a_l ȧ_l + v_l        ḣ_0 = 0
    /// ```
    ///
    /// `noise` has the `v_l` of each hidden layer; `None` stands for 0. The tangents are stored in
    /// `tangents`, a [`Deltas`] that already has room for this pass.
    pub(crate) fn tangents(
        &self,
        activations: &Activations<T>,
        noise: &[Option<Columns<T>>],
        tangents: &mut Deltas<T>,
    ) {
        for (layer, block) in self.blocks.iter().enumerate() {
            let (below, here) = tangents.blocks.split_at_mut(layer);
            let parameters = self.parameters.layer(layer);
            block.tangent(parameters, &activations.blocks[layer], below, &mut here[0]);
            if let Some(Some(noise)) = noise.get(layer) {
                add(here[0].arrival().as_mut_slice(), noise.as_slice());
            }
        }
    }
}

impl Block {
    /// The change at each operation of this block, up to its end, that follows from the changes at the
    /// ends of the blocks `below`.
    fn tangent<T: Scalar>(
        &self,
        parameters: OfLayer<T>,
        activations: &BlockActivations<T>,
        below: &[BlockDeltas<T>],
        here: &mut BlockDeltas<T>,
    ) {
        let BlockDeltas { stages, learned, .. } = here;
        match below.last() {
            Some(below) => {
                let (weights, a) = (parameters.weights(), &mut stages[0]);
                self.map.apply(weights, None, below.end(), a, &mut [], &|_, _, _| ());
            }
            None => stages[0].as_mut_slice().fill(T::zero()),
        }
        let mut stage = 0;
        for (index, operation) in self.operations.iter().enumerate() {
            let record = &activations.operations[index];
            if let Some(pool) = operation.pooling() {
                let (from, to) = stages.split_at_mut(stage + 1);
                pool.relay(&record.notes.winners, from[stage].as_slice(), to[0].as_mut_slice());
                stage += 1;
                continue;
            }
            let xy = (activations.before(index).as_slice(), record.output.as_slice());
            let from = operation.skip().and_then(|skip| skip.from);
            let beside = from.map_or(&[][..], |from| below[from].end().as_slice());
            let (of, noted) = ((parameters, index), (&record.notes, beside));
            operation.tangent(of, xy, noted, stages[stage].as_mut_slice(), &mut learned[index]);
        }
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::*;
    use crate::{
        layer::{AvgPool2d, Conv2d, MaxPool2d},
        network::NetworkBuilder,
    };

    /// The samples are the columns of the unit matrix: then the first layer passes on its weights, and a
    /// change of these is one of each sample by itself.
    fn outputs(network: &Network<f64>) -> Activations<f64> {
        let mut activations = Activations::seeded(5);
        let samples = network.input_len();
        network.forward(&DMatrix::identity(samples, samples), &mut activations).unwrap();
        activations
    }

    /// Tangents against central differences.
    fn check(name: &str, builder: NetworkBuilder<f64>) {
        let mut network = builder.seed(3).build().unwrap();
        let activations = outputs(&network);
        let weights = network.layer(0).unwrap().weights().clone_owned();
        let (rows, samples) = weights.shape();
        let change =
            DMatrix::from_fn(rows, samples, |i, j| ((i * 5 + j * 3) % 7) as f64 / 7.0 - 0.4);

        let mut noise = Columns::new(rows);
        noise.set_batch(samples).unwrap();
        noise.as_mut_slice().copy_from_slice(change.as_slice());
        let mut tangents = Deltas::new();
        tangents.fit(&activations).unwrap();
        network.tangents(&activations, &[Some(noise)], &mut tangents);
        let found = tangents.blocks.last().unwrap().delta().view().clone_owned();

        let mut at = |step: f64| {
            network.set_weights(0, &weights + &change * step).unwrap();
            outputs(&network).logits().unwrap().clone_owned()
        };
        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!(expected.amax() > 1e-3, "{name}: nothing arrives");
        let error = (&found - &expected).amax();
        assert!(error < 1e-8 * expected.amax().max(1.0), "{name}: off by {error}");
    }

    #[test]
    fn tangents_are_what_small_changes_make() {
        let first = || Network::<f64>::builder(6).dense(16).identity();
        check("dense", first().dense(5).tanh().dense(4));
        check("bends", first().dense(9).softplus().dense(8).logistic().dense(3));
        check("batch norm", first().dense(7).batch_norm().tanh().dense(4));
        check("layer norm", first().dense(7).layer_norm().tanh().dense(4));
        check("dropout", first().dense(12).tanh().dropout(0.4).dense(4));
        check("skip", first().dense(16).tanh().skip(1).dense(16).skip(2).tanh().dense(4));
        let image = || Network::<f64>::builder((6, 1, 1)).conv2d(Conv2d::new(16, 1));
        check("kernels", image().conv2d(Conv2d::new(8, 1)).tanh().dense(3));
    }

    /// Pooling, and a residual connection to a smaller image, on images that a first convolution makes
    /// of pixels.
    #[test]
    fn tangents_go_through_pooling_and_shortcuts() {
        let halving = Conv2d { stride: (2, 2), padding: (1, 1), ..Conv2d::new(5, 3) };
        let kernels = || Network::<f64>::builder((1, 6, 6)).conv2d(Conv2d::new(2, 1));
        for (name, builder) in [
            ("max", kernels().conv2d(Conv2d::new(3, 3)).tanh().max_pool2d(MaxPool2d::new(2, 2))),
            ("mean", kernels().conv2d(Conv2d::new(3, 3)).avg_pool2d(AvgPool2d::new(2, 2)).tanh()),
            ("skip", kernels().conv2d(halving).skip(1).tanh()),
        ] {
            let mut network = builder.dense(4).seed(3).build().unwrap();
            let x = DMatrix::from_fn(36, 5, |i, j| ((i * 7 + j * 11) % 17) as f64 / 8.0 - 1.0);
            let pass = |network: &Network<f64>| {
                let mut activations = Activations::seeded(5);
                network.forward(&x, &mut activations).unwrap();
                activations
            };
            let activations = pass(&network);
            // A change of the bias of the first layer is one of all its pixels.
            let bias = network.layer(0).unwrap().bias().unwrap().clone_owned();
            let mut noise = Columns::new(72);
            noise.set_batch(5).unwrap();
            let of_channel = |i: usize| if i % 72 < 36 { 1.0 } else { -0.5 };
            noise.as_mut_slice().iter_mut().enumerate().for_each(|(i, v)| *v = of_channel(i));
            let mut tangents = Deltas::new();
            tangents.fit(&activations).unwrap();
            network.tangents(&activations, &[Some(noise)], &mut tangents);
            let found = tangents.blocks.last().unwrap().delta().view().clone_owned();
            let mut at = |step: f64| {
                let change = nalgebra::DVector::from_vec(vec![step, -0.5 * step]);
                network.set_bias(0, &bias + change).unwrap();
                pass(&network).logits().unwrap().clone_owned()
            };
            let expected = (at(1e-6) - at(-1e-6)) / 2e-6;
            let error = (&found - &expected).amax();
            assert!(expected.amax() > 1e-3 && error < 1e-7, "{name}: off by {error}");
        }
    }
}
