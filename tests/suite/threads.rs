//! The same bits on any number of threads: for every layer, rule, optimiser and scalar.

use feedback_alignment::{
    Activation, Adam, AdamW, AvgPool2d, Bias, Conv2d, Error, FeedbackRule, Init, Loss, MaxPool2d,
    Mirror, Momentum, Network, NetworkBuilder, Optimizer, RmsProp, Scalar, Sgd, Trainer,
    WeightDecay, nalgebra::DMatrix,
};

const THREADS: [usize; 6] = [2, 3, 5, 8, 16, 32];

/// A small generator, so that a failure can be named by the number of its draw.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % bound
    }

    fn from(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high + 1 - low)
    }

    fn optimizer(&mut self) -> Optimizer {
        let sgd = Sgd { learning_rate: 0.05, ..Sgd::default() };
        match self.below(6) {
            0 => sgd.into(),
            1 => Sgd { momentum: Momentum::Nesterov(0.9), ..sgd }.into(),
            2 => Sgd {
                momentum: Momentum::Classical(0.5),
                weight_decay: WeightDecay::L2(0.01),
                ..sgd
            }
            .into(),
            3 => RmsProp { learning_rate: 1e-3, ..RmsProp::default() }.into(),
            4 => Adam::default().into(),
            _ => AdamW::default().into(),
        }
    }

    fn activation<T: Scalar>(
        &mut self,
        builder: NetworkBuilder<T>,
        batch: usize,
    ) -> NetworkBuilder<T> {
        let builder = if batch > 1 && self.below(4) == 0 { builder.batch_norm() } else { builder };
        let all: Vec<Activation> = Activation::all().collect();
        let builder = builder.activation(all[self.below(all.len())]);
        let builder = if self.below(5) == 0 { builder.layer_norm() } else { builder };
        if self.below(5) == 0 { builder.dropout(0.3) } else { builder }
    }

    /// Dense layers, wide enough together for threads to share them.
    fn dense<T: Scalar>(&mut self) -> (NetworkBuilder<T>, usize, usize) {
        let batch: usize = [1, 2, 3, 7, 33, 64, 65, 129, 513][self.below(9)];
        let most = if batch == 1 { 1500 } else { (4_000_000 / batch / 3).isqrt().min(900) };
        let inputs = self.from(1, most);
        let mut builder = Network::builder(inputs);
        for _ in 0..self.from(1, 3) {
            let width = if self.below(6) == 0 { self.from(1, 5) } else { self.from(2, most) };
            builder = if self.below(4) == 0 {
                builder.dense_without_bias(width)
            } else {
                builder.dense(width)
            };
            builder = self.activation(builder, batch);
            if self.below(3) == 0 {
                builder = self.activation(builder.dense(width).skip(1), batch);
            }
        }
        (builder, inputs, batch)
    }

    /// Convolutions of any shape, then perhaps a dense layer.
    fn conv<T: Scalar>(&mut self) -> (NetworkBuilder<T>, usize, usize) {
        let side = self.from(5, 28);
        let (channels, width) = (self.from(1, 4), side + self.below(3));
        let batch = [2, 3, 16, 64, 129][self.below(5)].min(1 + 50_000 / (side * width * channels));
        let mut builder = Network::builder((channels, side, width));
        let mut rows = side.min(width);
        for _ in 0..self.from(1, 2) {
            let kernel = self.from(1, 5.min(rows));
            let (stride, padding) = (self.from(1, 2), self.below(kernel.div_ceil(2) + 1));
            let bias = if self.below(3) == 0 { Bias::Without } else { Bias::With };
            builder = builder.conv2d(Conv2d {
                kernel: (kernel, self.from(1, kernel)),
                stride: (stride, 1),
                padding: (padding, padding.min(1)),
                bias,
                ..Conv2d::new(self.from(1, 40), 1)
            });
            builder = self.activation(builder, batch);
            rows = ((rows + 2 * padding - kernel) / stride + 1).min(rows);
            if rows >= 4 && self.below(2) == 0 {
                let pool = self.from(2, 3);
                rows = (rows - pool) / 2 + 1;
                builder = if self.below(2) == 0 {
                    builder.max_pool2d(MaxPool2d::new(pool, 2))
                } else {
                    builder.avg_pool2d(AvgPool2d::new(pool, 2))
                };
            }
            if rows < 3 {
                break;
            }
        }
        if self.below(2) == 0 {
            builder = builder.dense(self.from(2, 60)).tanh();
        }
        (builder, channels * side * width, batch.max(2))
    }
}

/// A step and an evaluation pass on so many threads.
fn run<T: Scalar>(
    network: &Network<T>,
    (rule, optimizer): (FeedbackRule, Optimizer),
    batch: usize,
    threads: usize,
) -> (Network<T>, String, DMatrix<T>) {
    let trainer = Trainer::builder(network.clone())
        .rule(rule)
        .optimizer(optimizer)
        .max_norm(3.0)
        .loss(Loss::LogisticCrossEntropy)
        .threads(threads)
        .build();
    // Without feedback batch normalisation is refused.
    let mut trainer = match trainer {
        Err(Error::Conflict { .. }) if rule == FeedbackRule::Shallow => {
            return (network.clone(), String::new(), DMatrix::zeros(0, 0));
        }
        trainer => trainer.unwrap(),
    };
    let mirror = Mirror { before: 1, batch: 40, ..Mirror::default() };
    trainer.feedback_mut().set_mirror(mirror).unwrap();
    let x = DMatrix::from_fn(network.input_len(), batch, |i, j| {
        T::of(((i * 37 + j * 101 + i * j) % 211) as f64 / 105.0 - 1.0)
    });
    let labels: Vec<usize> = (0..batch).map(|j| j * 7 % network.output_len().max(2)).collect();
    trainer.step(&x, &labels).unwrap();
    let moments = format!("{:?} {:?}", trainer.optimizer(), trainer.feedback());
    let predicted = trainer.network().predict(&x).unwrap();
    (trainer.into_network(), moments, predicted)
}

fn check<T: Scalar>(name: &str, builder: NetworkBuilder<T>, batch: usize, draw: &mut Draw) {
    let outputs = draw.from(1, 12);
    let network = builder.dense(outputs).init(Init::GlorotUniform).build().unwrap();
    let rule = FeedbackRule::all().nth(draw.below(FeedbackRule::all().len())).unwrap();
    let how = (rule, draw.optimizer());
    // A network that is worth sharing at all.
    let one = run(&network, how, batch, 1);
    for threads in THREADS {
        let same = run(&network, how, batch, threads) == one;
        assert!(same, "{name}: {network}, {how:?}, batch {batch}, {threads} threads");
    }
}

fn check_many(dense: usize, conv: usize, seed: u64) {
    for number in 0..dense + conv {
        let draw = &mut Draw(seed + number as u64 * 0x9e37_79b9);
        draw.below(2);
        let name = format!("draw {number} of seed {seed}");
        if draw.below(2) == 0 {
            let (builder, _, batch) =
                if number < dense { draw.dense::<f32>() } else { draw.conv() };
            check(&name, builder, batch, draw);
        } else {
            let (builder, _, batch) =
                if number < dense { draw.dense::<f64>() } else { draw.conv() };
            check(&name, builder, batch, draw);
        }
    }
}

#[test]
fn dense_networks_have_the_same_bits_on_any_number_of_threads() {
    check_many(120, 0, 1);
}

#[test]
fn convolutional_networks_have_the_same_bits_on_any_number_of_threads() {
    check_many(0, 120, 2);
}

/// The shapes that once had other bits.
#[test]
fn first_layers_of_known_networks_have_the_same_bits_on_any_number_of_threads() {
    fn step<T: Scalar>(
        shape: (usize, usize, usize),
        conv: Conv2d,
        batch: usize,
        rule: FeedbackRule,
    ) {
        let builder = Network::<T>::builder(shape).conv2d(conv).tanh();
        let builder = if shape.1 > 22 { builder.max_pool2d(MaxPool2d::new(2, 2)) } else { builder };
        let network = builder.dense(10).build().unwrap();
        let how = (rule, Sgd::default().into());
        let one = run(&network, how, batch, 1);
        for threads in THREADS {
            assert!(run(&network, how, batch, threads) == one, "{network}, {threads} threads");
        }
    }
    let padded = |channels, kernel, padding| Conv2d {
        padding: (padding, padding),
        ..Conv2d::new(channels, kernel)
    };
    step::<f64>((1, 28, 28), padded(32, 3, 1), 64, FeedbackRule::Bp);
    step::<f64>((2, 28, 28), padded(16, 5, 0), 64, FeedbackRule::Dfa);
    step::<f32>((1, 32, 32), padded(6, 5, 0), 64, FeedbackRule::Fa);
    step::<f32>((3, 32, 32), padded(32, 5, 2), 64, FeedbackRule::Dfa);
    step::<f32>((2, 21, 21), padded(3, 1, 0), 129, FeedbackRule::Ifa);
    step::<f32>((17, 21, 21), padded(33, 1, 0), 64, FeedbackRule::Bp);
}
