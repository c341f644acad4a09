//! Inputs, targets and passes that several tests use.

use feedback_alignment::{
    Activations, Adam, AdamW, Dataset, Deltas, Feedback, Gradients, Loss, Momentum, Network,
    Optimizer, RmsProp, Scalar, Sgd, Targets, WeightDecay,
    nalgebra::DMatrix,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};

/// Numbers from −1 to 1.
pub fn random(rows: usize, columns: usize, seed: u64) -> DMatrix<f64> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    DMatrix::from_fn(rows, columns, |_, _| rng.random_range(-1.0..1.0))
}

/// Classes in no simple order.
pub fn labels(samples: usize, classes: usize) -> Vec<usize> {
    (0..samples).map(|j| j * j % classes).collect()
}

/// The labels of a dataset that has some.
pub fn labels_in<T: Scalar>(data: &Dataset<T>) -> Vec<usize> {
    match data.targets() {
        Targets::Labels(labels) => labels.to_vec(),
        Targets::Values(_) => panic!("expected labels"),
    }
}

/// Every optimiser, with every kind of momentum and weight decay.
pub fn optimizers() -> [Optimizer; 8] {
    let sgd = Sgd { learning_rate: 0.03, ..Sgd::default() };
    [
        sgd.into(),
        Sgd { momentum: Momentum::Classical(0.9), ..sgd }.into(),
        Sgd { momentum: Momentum::Nesterov(0.7), weight_decay: WeightDecay::L2(1e-3), ..sgd }
            .into(),
        Sgd { weight_decay: WeightDecay::Decoupled(1e-2), ..sgd }.into(),
        RmsProp { learning_rate: 1e-3, ..RmsProp::default() }.into(),
        RmsProp { learning_rate: 1e-3, decay: 0.9, epsilon: 1e-6 }.into(),
        Adam { learning_rate: 0.01, ..Adam::default() }.into(),
        AdamW { adam: Adam { learning_rate: 0.01, ..Adam::default() }, weight_decay: 0.1 }.into(),
    ]
}

/// Stages 1 to 4.
pub struct Pass<T> {
    pub activations: Activations<T>,
    pub deltas: Deltas<T>,
    pub gradients: Gradients<T>,
}

impl<T: Scalar> Pass<T> {
    pub fn new(seed: u64) -> Self {
        let activations = Activations::seeded(seed);
        Self { activations, deltas: Deltas::new(), gradients: Gradients::new() }
    }

    pub fn run(
        &mut self,
        network: &Network<T>,
        feedback: &Feedback<T>,
        x: &DMatrix<T>,
        labels: &[usize],
    ) {
        network.forward(x, &mut self.activations).unwrap();
        Loss::SoftmaxCrossEntropy.error(labels, &self.activations, &mut self.deltas).unwrap();
        feedback.deliver(network, &self.activations, &mut self.deltas).unwrap();
        network.gradients(&self.activations, &self.deltas, &mut self.gradients).unwrap();
    }
}
