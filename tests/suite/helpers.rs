//! Inputs, targets and passes that several tests use.

use approx::assert_relative_eq;
use feedback_alignment::{
    Activations, Adam, AdamW, Dataset, Deltas, FastGradientSign, Feedback, Gradients, Loss,
    Momentum, Network, Optimizer, RmsProp, Scalar, Sgd, Targets, Trainer, TrainerBuilder,
    WeightDecay,
    nalgebra::{DMatrix, DVector},
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};

/// Numbers from −1 to 1.
pub fn random(rows: usize, columns: usize, seed: u64) -> DMatrix<f64> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    DMatrix::from_fn(rows, columns, |_, _| rng.random_range(-1.0..1.0))
}

/// Numbers from −1 to 1 in a pattern, for tests whose numbers are to be the same everywhere.
pub fn numbers(rows: usize, columns: usize, seed: usize) -> DMatrix<f64> {
    DMatrix::from_fn(rows, columns, |i, j| {
        ((i * 37 + j * 101 + seed * 13) % 61) as f64 / 30.0 - 1.0
    })
}

/// Three classes in turn.
pub fn thirds(samples: usize) -> Vec<usize> {
    (0..samples).map(|j| j * 2 % 3).collect()
}

/// What runs with NumPy begin with: row by row the sines of 0.7, 1.4, … times one half.
pub fn sines(rows: usize, columns: usize) -> DMatrix<f64> {
    let values = (1..=rows * columns).map(|k| 0.5 * (k as f64 * 0.7).sin());
    DMatrix::from_row_iterator(rows, columns, values)
}

/// The network of the runs with NumPy.
pub fn numpy_net() -> Network<f64> {
    let widths = [5, 6, 4, 3];
    let builder = Network::<f64>::builder(5).dense(6).tanh().dense(4).tanh().dense(3);
    let mut network = builder.build().unwrap();
    for layer in 0..3 {
        let (rows, columns) = (widths[layer + 1], widths[layer]);
        network.set_weights(layer, sines(rows, columns)).unwrap();
        network.set_bias(layer, DVector::from_column_slice(sines(rows, 1).as_slice())).unwrap();
    }
    network
}

/// The optimiser of most runs elsewhere.
pub fn numpy_sgd() -> Sgd {
    let (momentum, weight_decay) = (Momentum::Classical(0.9), WeightDecay::L2(0.01));
    Sgd { learning_rate: 0.1, momentum, weight_decay }
}

/// 100 steps on eight samples, as the runs elsewhere make them.
pub fn hundred_steps(builder: TrainerBuilder<f64>, x: &DMatrix<f64>) -> Trainer<f64> {
    let mut trainer = builder.build().unwrap();
    for _ in 0..100 {
        trainer.step(x, &[0, 2, 1, 0, 2, 1, 0, 2]).unwrap();
    }
    trainer
}

/// `Σ|M|`
pub fn magnitude(matrix: &DMatrix<f64>) -> f64 {
    matrix.iter().map(|v| v.abs()).sum()
}

/// Whether the weights are those of a run elsewhere: `Σ|W_1|`, `Σ|W_2|`, `Σ|W_3|`, and an entry of `W_1`.
pub fn assert_weights(run: &str, trainer: &Trainer<f64>, expected: &[f64], tolerance: f64) {
    let weights = |layer| trainer.network().layer(layer).unwrap().weights().into_owned();
    let [one, two, three] = [0, 1, 2].map(|layer| magnitude(&weights(layer)));
    for (found, expected) in [one, two, three, weights(0)[(1, 2)]].into_iter().zip(expected) {
        assert!((found / expected - 1.0).abs() < tolerance, "{run}: {found}, {expected}");
    }
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

/// Compares `∂J/∂x` of softmax cross-entropy with differences of the loss.
pub fn assert_input_gradient(network: &Network<f64>, x: &DMatrix<f64>, y: &[usize]) {
    const LOSS: Loss = Loss::SoftmaxCrossEntropy;
    let mut attack = FastGradientSign::new(network, 0.1).unwrap();
    let found = attack.input_gradient(network, LOSS, x, y).unwrap();
    let loss = |x: &DMatrix<f64>| {
        let mut activations = Activations::new();
        network.forward(x, &mut activations).unwrap();
        LOSS.error(y, &activations, &mut Deltas::new()).unwrap()
    };
    for index in 0..x.len() {
        let (mut up, mut down) = (x.clone(), x.clone());
        (up[index], down[index]) = (x[index] + 1e-5, x[index] - 1e-5);
        let slope = (loss(&up) - loss(&down)) / (up[index] - down[index]);
        assert_relative_eq!(found[index], slope, epsilon = 1e-9);
    }
}
