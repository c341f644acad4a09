//! What is timed: the cases, their networks, trainers and data, and how many operations a step is.

use feedback_alignment::{
    Conv2d, Feedback, FeedbackInit, FeedbackRule, Loss, MaxPool2d, Network, Optimizer, RmsProp,
    Scalar, Sgd, Through, Trainer,
    nalgebra::DMatrix,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};

/// Batches that are cycled, so that an input is not in cache when its turn comes.
const POOL: usize = 60;

/// One row of the table.
pub struct Case {
    pub arch: &'static str,
    pub batch: usize,
    pub rule: FeedbackRule,
    /// The form of the matrices of DFA; full elsewhere.
    pub matrices: Through,
    pub optimizer: &'static str,
    pub dtype: &'static str,
    pub threads: usize,
}

impl Case {
    pub fn name(&self) -> String {
        let Self { arch, batch, optimizer, dtype, threads, .. } = self;
        let rule = self.rule_name();
        format!("{arch} batch {batch} {rule} {optimizer} {dtype} {threads} thread(s)")
    }

    /// The rule, and the form of its matrices where they are not full.
    pub fn rule_name(&self) -> String {
        match self.matrices {
            Through::Matrix => self.rule.to_string(),
            matrices => format!("{}-{matrices}", self.rule),
        }
    }

    pub fn feedback<T: Scalar>(&self, network: &Network<T>) -> Feedback<T> {
        if self.matrices == Through::Matrix {
            return Feedback::new(network, self.rule, FeedbackInit::Nokland, 0).expect("feedback");
        }
        let route =
            self.rule.route(network.layer_count()).unwrap().with(Through::Matrix, self.matrices);
        let route = route.expect("a route through other matrices");
        Feedback::with_route(network, route, FeedbackInit::Nokland, 0).expect("feedback")
    }
}

const DEEP: &str = "784-240x7-10";
const VERY_DEEP: &str = "784-240x100-10";
const CIFAR: &str = "3072-1000-1000-1000-10";
const MNIST: &str = "784-800-800-10";
const MANY_CLASSES: &str = "784-800-800-1000";

/// Three convolutions of 32, 64 and 64 kernels over images of 3×32×32, then 128 units and 10.
struct Convolutional {
    name: &'static str,
    kernel: usize,
    padding: usize,
    stride: usize,
    /// Whether a max-pooling of 3×3 with stride 2 follows each convolution.
    pools: bool,
    /// How many positions the output of each convolution has. They share its weights.
    positions: [usize; 3],
}

const CONVOLUTIONAL: [Convolutional; 4] = [
    pooled("conv", 5, 2),
    pooled("conv-3x3", 3, 1),
    pooled("conv-1x1", 1, 0),
    Convolutional {
        name: "conv-stride-2",
        kernel: 5,
        padding: 2,
        stride: 2,
        pools: false,
        positions: [16 * 16, 8 * 8, 4 * 4],
    },
];

const fn pooled(name: &'static str, kernel: usize, padding: usize) -> Convolutional {
    let positions = [32 * 32, 15 * 15, 7 * 7];
    Convolutional { name, kernel, padding, stride: 1, pools: true, positions }
}

fn convolutional(arch: &str) -> Option<&'static Convolutional> {
    CONVOLUTIONAL.iter().find(|conv| conv.name == arch)
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let all: Vec<FeedbackRule> = FeedbackRule::nokland().into_iter().collect();
    let two = [FeedbackRule::Bp, FeedbackRule::Dfa];
    let both = ["sgd", "rmsprop"];
    let mut cases = Vec::new();
    let mut add = |arch, batch, rules: &[FeedbackRule], optimizers: &[&'static str], dtype| {
        let matrices = Through::Matrix;
        for &rule in rules {
            for &optimizer in optimizers {
                for threads in [1, 2] {
                    cases.push(Case { arch, batch, rule, matrices, optimizer, dtype, threads });
                }
            }
        }
    };
    for batch in [64, 1, 512] {
        add(MNIST, batch, &all, &both, "f32");
    }
    add(MNIST, 64, &all, &both, "f64");
    add(DEEP, 64, &all, &both, "f32");
    add(CIFAR, 64, &all, &both, "f32");
    add(VERY_DEEP, 64, &two, &both, "f32");
    for batch in [64, 1] {
        add("64-32-10", batch, &all, &both, "f32");
        add("2-8-1", batch, &all, &both, "f32");
    }
    add("conv", 64, &two, &both, "f32");
    add("conv", 64, &two, &["sgd"], "f64");
    for conv in &CONVOLUTIONAL[1..] {
        add(conv.name, 64, &two, &["sgd"], "f32");
    }
    let others: Vec<FeedbackRule> =
        FeedbackRule::all().filter(|rule| !all.contains(rule)).collect();
    add(MNIST, 64, &others, &["rmsprop"], "f32");
    let forms = [Through::Matrix, Through::Sparse(1), Through::LowRank(1), Through::Shared];
    for (arch, forms) in [(MNIST, &forms[1..]), (MANY_CLASSES, &forms)] {
        for &matrices in forms {
            let (rule, optimizer, dtype) = (FeedbackRule::Dfa, "rmsprop", "f32");
            cases.push(Case { arch, batch: 64, rule, matrices, optimizer, dtype, threads: 1 });
        }
    }
    cases
}

/// The widths of `784-240x7-10`.
fn widths(arch: &str) -> Vec<usize> {
    let number = |text: &str| text.parse::<usize>().expect("a width");
    arch.split('-')
        .flat_map(|part| match part.split_once('x') {
            Some((width, times)) => vec![number(width); number(times)],
            None => vec![number(part)],
        })
        .collect()
}

fn network<T: Scalar>(arch: &str) -> Network<T> {
    if let Some(&Convolutional { kernel, padding, stride, pools, .. }) = convolutional(arch) {
        let (padding, stride) = ((padding, padding), (stride, stride));
        return [32, 64, 64]
            .into_iter()
            .fold(Network::builder((3, 32, 32)), |builder, channels| {
                let conv = Conv2d { padding, stride, ..Conv2d::new(channels, kernel) };
                let builder = builder.conv2d(conv).tanh();
                if pools { builder.max_pool2d(MaxPool2d::new(3, 2)) } else { builder }
            })
            .dense(128)
            .tanh()
            .dense(10)
            .build()
            .expect("a network");
    }
    let widths = widths(arch);
    let hidden = &widths[1..widths.len() - 1];
    hidden
        .iter()
        .fold(Network::builder(widths[0]), |builder, &units| builder.dense(units).tanh())
        .dense(widths[widths.len() - 1])
        .build()
        .expect("a network")
}

/// Inputs and labels.
pub type Batch<T> = (DMatrix<T>, Vec<usize>);

impl Case {
    /// The network, not yet trained.
    pub fn network<T: Scalar>(&self) -> Network<T> {
        network(self.arch)
    }

    pub fn optimizer(&self) -> Optimizer {
        match self.optimizer {
            "sgd" => Sgd { learning_rate: 1e-3, ..Sgd::default() }.into(),
            _ => RmsProp { learning_rate: 1e-5, ..RmsProp::default() }.into(),
        }
    }

    pub fn loss(&self) -> Loss {
        match self.arch {
            "2-8-1" => Loss::LogisticCrossEntropy,
            _ => Loss::SoftmaxCrossEntropy,
        }
    }

    pub fn trainer<T: Scalar>(&self) -> Trainer<T> {
        let network = self.network();
        let feedback = self.feedback(&network);
        Trainer::builder(network)
            .feedback(feedback)
            .optimizer(self.optimizer())
            .loss(self.loss())
            .build()
            .expect("a trainer")
    }

    /// Random inputs in [0, 1) with random labels.
    pub fn pool<T: Scalar>(&self) -> Vec<Batch<T>> {
        let network = self.network::<T>();
        let (inputs, classes) = (network.input_len(), network.output_len().max(2));
        drop(network);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut batch = |_| {
            let x = DMatrix::from_fn(inputs, self.batch, |_, _| T::of(rng.random_range(0.0..1.0)));
            (x, (0..self.batch).map(|_| rng.random_range(0..classes)).collect())
        };
        (0..POOL).map(&mut batch).collect()
    }

    /// Floating-point operations of one step with `N` samples: `2·W·N` forward, as many for the
    /// weight gradients, and `2·N·W'` for the deltas, where `W'` are the weights that a delta goes
    /// through: all but the first layer's under BP and FA, those between hidden layers under IFA,
    /// none under DFA. In a convolution `W` stands for the weights times the positions.
    pub fn operations(&self) -> f64 {
        let conv = convolutional(self.arch);
        let positions: &[usize] = conv.map_or(&[], |conv| &conv.positions);
        let network = self.network::<f32>();
        let work: Vec<f64> = (0..network.layer_count())
            .map(|l| {
                let weights = network.layer(l).expect("a layer").weights().len();
                (weights * positions.get(l).unwrap_or(&1)) as f64
            })
            .collect();
        let all: f64 = work.iter().sum();
        let deltas = match self.rule {
            FeedbackRule::Bp
            | FeedbackRule::Fa
            | FeedbackRule::USf
            | FeedbackRule::FrSf
            | FeedbackRule::BrSf
            | FeedbackRule::Kp
            | FeedbackRule::Wm => all - work[0],
            // Ten times, and once more through the fixed factor and for the gradient.
            FeedbackRule::Pfa => 20.0 * (all - work[0]),
            FeedbackRule::Ifa => all - work[0] - work[work.len() - 1],
            _ => 0.0,
        };
        2.0 * self.batch as f64 * (2.0 * all + deltas)
    }
}
