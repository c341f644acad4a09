//! A second implementation, written from the paper in the plainest possible way and sharing no
//! code with the crate: loops over samples, layers and units, numbers in nested vectors. The crate
//! has to agree with it, several steps deep, on random networks.

#![allow(clippy::needless_range_loop)] // Indices as in the paper.

use feedback_alignment::{
    Activation, Feedback, FeedbackInit, FeedbackRule, Init, Loss, Network, RmsProp, Sgd, Trainer,
    nalgebra::DMatrix,
};
use proptest::prelude::*;

type Matrix = Vec<Vec<f64>>;

struct Reference {
    w: Vec<Matrix>,
    b: Vec<Vec<f64>>,
    /// `B` of each hidden layer, `n_l` rows; empty where the rule has none.
    feedback: Vec<Matrix>,
    activation: Activation,
    /// RMSprop's averages of squared gradients.
    square_w: Vec<Matrix>,
    square_b: Vec<Vec<f64>>,
}

fn f(activation: Activation, a: f64) -> f64 {
    match activation {
        Activation::Tanh => a.tanh(),
        Activation::Logistic => 1.0 / (1.0 + (-a).exp()),
        Activation::Relu => f64::max(a, 0.0),
        Activation::LeakyRelu { slope } => {
            if a > 0.0 {
                a
            } else {
                slope * a
            }
        }
        Activation::Elu { alpha } => {
            if a > 0.0 {
                a
            } else {
                alpha * (a.exp() - 1.0)
            }
        }
        Activation::Softplus => (1.0 + a.exp()).ln(),
        Activation::Gelu => 0.5 * a * (1.0 + tanh_of_gelu(a)),
        _ => a,
    }
}

fn tanh_of_gelu(a: f64) -> f64 {
    (0.797_884_560_802_865_4 * (a + 0.044_715 * a.powi(3))).tanh()
}

fn f_prime(activation: Activation, a: f64) -> f64 {
    match activation {
        Activation::Tanh => 1.0 / a.cosh().powi(2),
        Activation::Logistic => f(activation, a) * f(activation, -a),
        Activation::Relu => {
            if a > 0.0 {
                1.0
            } else {
                0.0
            }
        }
        Activation::LeakyRelu { slope } => {
            if a > 0.0 {
                1.0
            } else {
                slope
            }
        }
        Activation::Elu { alpha } => {
            if a > 0.0 {
                1.0
            } else {
                alpha * a.exp()
            }
        }
        Activation::Softplus => f(Activation::Logistic, a),
        Activation::Gelu => {
            let (t, slope) = (tanh_of_gelu(a), 0.797_884_560_802_865_4 * (1.0 + 0.134_145 * a * a));
            0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * slope
        }
        _ => 1.0,
    }
}

fn prediction(loss: Loss, logits: &[f64]) -> Vec<f64> {
    match loss {
        Loss::SoftmaxCrossEntropy => {
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            logits.iter().map(|z| z.exp() / sum).collect()
        }
        Loss::LogisticCrossEntropy => logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        _ => logits.to_vec(),
    }
}

fn times(m: &Matrix, v: &[f64]) -> Vec<f64> {
    m.iter().map(|row| row.iter().zip(v).map(|(m, v)| m * v).sum()).collect()
}

fn transposed(m: &Matrix) -> Matrix {
    (0..m[0].len()).map(|j| m.iter().map(|row| row[j]).collect()).collect()
}

impl Reference {
    /// Gradients of all weights and biases, averaged over the samples.
    fn gradients(
        &self,
        rule: FeedbackRule,
        loss: Loss,
        xs: &[Vec<f64>],
        ys: &[Vec<f64>],
    ) -> (Vec<Matrix>, Vec<Vec<f64>>) {
        let last = self.w.len() - 1;
        let mut dw: Vec<Matrix> =
            self.w.iter().map(|w| vec![vec![0.0; w[0].len()]; w.len()]).collect();
        let mut db: Vec<Vec<f64>> = self.b.iter().map(|b| vec![0.0; b.len()]).collect();
        for (x, y) in xs.iter().zip(ys) {
            // Eq. 1-3.
            let mut a: Vec<Vec<f64>> = Vec::new();
            let mut h = vec![x.clone()];
            for l in 0..=last {
                let mut sum = times(&self.w[l], &h[l]);
                sum.iter_mut().zip(&self.b[l]).for_each(|(a, b)| *a += b);
                h.push(sum.iter().map(|&a| f(self.activation, a)).collect());
                a.push(sum);
            }
            // Eq. 5.
            let e: Vec<f64> =
                prediction(loss, &a[last]).iter().zip(y).map(|(p, y)| p - y).collect();
            // Eq. 6-9.
            let mut delta = vec![Vec::new(); last + 1];
            delta[last].clone_from(&e);
            let gate = |arriving: Vec<f64>, l: usize| -> Vec<f64> {
                arriving.iter().zip(&a[l]).map(|(r, &a)| r * f_prime(self.activation, a)).collect()
            };
            match rule {
                FeedbackRule::Bp => {
                    for l in (0..last).rev() {
                        delta[l] = gate(times(&transposed(&self.w[l + 1]), &delta[l + 1]), l);
                    }
                }
                FeedbackRule::Fa => {
                    for l in (0..last).rev() {
                        delta[l] = gate(times(&self.feedback[l], &delta[l + 1]), l);
                    }
                }
                FeedbackRule::Dfa => {
                    for l in 0..last {
                        delta[l] = gate(times(&self.feedback[l], &e), l);
                    }
                }
                FeedbackRule::Ifa => {
                    for l in 0..last {
                        let arriving = if l == 0 {
                            times(&self.feedback[0], &e)
                        } else {
                            times(&self.w[l], &delta[l - 1])
                        };
                        delta[l] = gate(arriving, l);
                    }
                }
                _ => unreachable!("no such rule in the paper"),
            }
            // Eq. 10, averaged over the batch.
            let n = xs.len() as f64;
            for l in 0..=last {
                for i in 0..delta[l].len() {
                    db[l][i] += delta[l][i] / n;
                    for j in 0..h[l].len() {
                        dw[l][i][j] += delta[l][i] * h[l][j] / n;
                    }
                }
            }
        }
        (dw, db)
    }

    fn largest_weight(&self) -> f64 {
        self.w.iter().flatten().flatten().fold(0.0, |largest, w| f64::max(largest, w.abs()))
    }

    fn each(
        &mut self,
        (dw, db): (Vec<Matrix>, Vec<Vec<f64>>),
        update: impl Fn(&mut f64, f64, &mut f64),
    ) {
        for l in 0..self.w.len() {
            for i in 0..self.w[l].len() {
                update(&mut self.b[l][i], db[l][i], &mut self.square_b[l][i]);
                for j in 0..self.w[l][i].len() {
                    update(&mut self.w[l][i][j], dw[l][i][j], &mut self.square_w[l][i][j]);
                }
            }
        }
    }
}

fn nested(m: &DMatrix<f64>) -> Matrix {
    m.row_iter().map(|row| row.iter().copied().collect()).collect()
}

fn columns(m: &DMatrix<f64>) -> Matrix {
    m.column_iter().map(|column| column.iter().copied().collect()).collect()
}

fn reference_of(
    network: &Network<f64>,
    feedback: &Feedback<f64>,
    activation: Activation,
) -> Reference {
    let layers: Vec<_> = (0..network.layer_count()).map(|l| network.layer(l).unwrap()).collect();
    let w: Vec<Matrix> = layers.iter().map(|layer| nested(&layer.weights().into_owned())).collect();
    let b: Vec<Vec<f64>> =
        layers.iter().map(|layer| layer.bias().unwrap().as_slice().to_vec()).collect();
    let matrix = |l| match feedback.matrix(l).unwrap() {
        Some(m) => nested(&m),
        None => Vec::new(),
    };
    Reference {
        square_w: w.iter().map(|w| vec![vec![0.0; w[0].len()]; w.len()]).collect(),
        square_b: b.iter().map(|b| vec![0.0; b.len()]).collect(),
        feedback: (0..network.layer_count() - 1).map(matrix).collect(),
        w,
        b,
        activation,
    }
}

/// A number in [-1, 1) from a hash, so that inputs need no generator.
fn noise(seed: u64, i: usize, j: usize) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ ((i * 7919 + j) as u64).wrapping_mul(0xd134_2543_de82_ef95);
    z ^= z >> 32;
    z = z.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

fn assert_close(found: &DMatrix<f64>, expected: &Matrix, what: &str) -> Result<(), TestCaseError> {
    for (i, row) in expected.iter().enumerate() {
        for (j, &expected) in row.iter().enumerate() {
            let found = found[(i, j)];
            let tolerance = 1e-10 * expected.abs().max(1.0);
            prop_assert!(
                (found - expected).abs() <= tolerance,
                "{what}[{i},{j}]: {found} against {expected}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_crate_agrees_with_the_plainest_implementation(
        inputs in 1..8_usize,
        hidden in prop::collection::vec(1..8_usize, 0..5),
        outputs in 2..6_usize,
        batch in 1..7_usize,
        rule in prop::sample::select(FeedbackRule::nokland().into_iter().collect::<Vec<_>>()),
        loss in prop::sample::select(Loss::all().collect::<Vec<_>>()),
        activation in prop::sample::select(Activation::all().collect::<Vec<_>>()),
        optimizer in prop::sample::select(vec!["sgd", "rmsprop"]),
        seed in any::<u64>(),
    ) {
        let mut builder = Network::<f64>::builder(inputs);
        for &units in &hidden {
            builder = builder.dense(units).activation(activation);
        }
        let network = builder.dense(outputs).init(Init::LecunNormal).seed(seed).build().unwrap();
        let feedback = Feedback::new(&network, rule, FeedbackInit::Lillicrap, seed).unwrap();
        let mut reference = reference_of(&network, &feedback, activation);

        let builder = Trainer::builder(network).feedback(feedback).loss(loss);
        let mut trainer = match optimizer {
            "sgd" => builder.optimizer(Sgd { learning_rate: 0.2, ..Sgd::default() }),
            // An ε that keeps tiny gradients from being blown up to full steps.
            _ => builder.optimizer(RmsProp { learning_rate: 0.01, epsilon: 1e-2, ..RmsProp::default() }),
        }
        .build()
        .unwrap();

        for step in 0..4_u64 {
            // A deep net that diverges squares its numbers with every step, and soon both
            // implementations have nothing but rounding and infinities.
            if reference.largest_weight() > 10.0 {
                break;
            }
            let x = DMatrix::from_fn(inputs, batch, |i, j| noise(seed ^ step, i, j));
            let labels: Vec<usize> = (0..batch)
                .map(|j| (inputs + j * 3 + usize::try_from(step).unwrap()) % outputs)
                .collect();
            let one_hot = |&label: &usize| -> Vec<f64> {
                (0..outputs).map(|k| f64::from(u8::from(k == label))).collect()
            };
            let y: Matrix = labels.iter().map(one_hot).collect();

            trainer.step(&x, &labels).unwrap();
            let gradients = reference.gradients(rule, loss, &columns(&x), &y);
            if optimizer == "sgd" {
                reference.each(gradients, |w, g, _| *w -= 0.2 * g);
            } else {
                reference.each(gradients, |w, g, m| {
                    *m = 0.99 * *m + 0.01 * g * g;
                    *w -= 0.01 * g / (m.sqrt() + 1e-2);
                });
            }
            for l in 0..=hidden.len() {
                let layer = trainer.network().layer(l).unwrap();
                assert_close(&layer.weights().into_owned(), &reference.w[l], &format!("step {step}, W_{}", l + 1))?;
                let bias = DMatrix::from_column_slice(layer.weights().nrows(), 1, layer.bias().unwrap().as_slice());
                let expected: Matrix = reference.b[l].iter().map(|&b| vec![b]).collect();
                assert_close(&bias, &expected, &format!("step {step}, b_{}", l + 1))?;
            }
        }
    }
}
