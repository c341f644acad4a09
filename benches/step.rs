//! Times one training step: `cargo bench --bench step -- [--list] [--only SUBSTRING] [--threads N]
//! [--json]`.
//!
//! Inputs are random in [0, 1), a pool of batches is cycled, the loss is softmax cross-entropy
//! (logistic with one output), gradients are means over the batch. Floating-point operations of a
//! step are counted as `2·W·N` forward, `2·W·N` weight gradients, under BP and FA `2·N·(W − W_1)`
//! deltas, under IFA `2·N·(hidden-to-hidden W)`, with `W` weights that stand for `W·positions` in a
//! convolution, and `N` samples.

use std::time::{Duration, Instant};

use clap::Parser;
use feedback_alignment::{
    Conv2d, FeedbackRule, Loss, MaxPool2d, Network, Optimizer, RmsProp, Scalar, Sgd, Trainer,
    nalgebra::DMatrix,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};

/// Times one training step of every case.
#[derive(Parser)]
struct Options {
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only cases of so many threads.
    #[arg(long)]
    threads: Option<usize>,
    /// One line of JSON for each case instead of the table.
    #[arg(long)]
    json: bool,
    /// Print the names of the cases and stop.
    #[arg(long)]
    list: bool,
    /// Seconds to spend on a case.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// `cargo bench` passes this; it means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Case {
    arch: &'static str,
    batch: usize,
    rule: FeedbackRule,
    optimizer: &'static str,
    dtype: &'static str,
    threads: usize,
}

impl Case {
    fn name(&self) -> String {
        let Self { arch, batch, rule, optimizer, dtype, threads } = self;
        format!("{arch} batch {batch} {rule} {optimizer} {dtype} {threads} thread(s)")
    }
}

const DEEP: &str = "784-240x7-10";
const VERY_DEEP: &str = "784-240x100-10";
const CIFAR: &str = "3072-1000-1000-1000-10";
const MNIST: &str = "784-800-800-10";

fn cases() -> Vec<Case> {
    let all: Vec<FeedbackRule> = FeedbackRule::all().collect();
    let two = [FeedbackRule::Bp, FeedbackRule::Dfa];
    let both = ["sgd", "rmsprop"];
    let mut cases = Vec::new();
    let mut add = |arch, batch, rules: &[FeedbackRule], optimizers: &[&'static str], dtype| {
        for &rule in rules {
            for &optimizer in optimizers {
                for threads in [1, 2] {
                    cases.push(Case { arch, batch, rule, optimizer, dtype, threads });
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
    if arch == "conv" {
        let conv = |channels| Conv2d { padding: (2, 2), ..Conv2d::new(channels, 5) };
        let builder = Network::builder((3, 32, 32));
        return [32, 64, 64]
            .into_iter()
            .fold(builder, |b, channels| {
                b.conv2d(conv(channels)).tanh().max_pool2d(MaxPool2d::new(3, 2))
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

/// Floating-point operations of one step, as the head of this file counts them.
fn operations<T: Scalar>(
    network: &Network<T>,
    rule: FeedbackRule,
    batch: usize,
    conv: bool,
) -> f64 {
    // Positions that share the weights of each layer of the convolutional net.
    let positions = [32 * 32, 15 * 15, 7 * 7];
    let work: Vec<f64> = (0..network.layers())
        .map(|l| {
            let shared = if conv { positions.get(l).copied().unwrap_or(1) } else { 1 };
            (network.layer(l).expect("a layer").weights().len() * shared) as f64
        })
        .collect();
    let all: f64 = work.iter().sum();
    let deltas = match rule {
        FeedbackRule::Bp | FeedbackRule::Fa => all - work[0],
        FeedbackRule::Ifa => all - work[0] - work[work.len() - 1],
        _ => 0.0,
    };
    2.0 * batch as f64 * (2.0 * all + deltas)
}

/// Seconds of single steps, sorted.
fn time<T: Scalar>(case: &Case, seconds: f64) -> (Vec<f64>, f64) {
    let network = network::<T>(case.arch);
    let operations = operations(&network, case.rule, case.batch, case.arch == "conv");
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let (inputs, outputs) = (network.inputs(), network.outputs());
    let pool: Vec<(DMatrix<T>, Vec<usize>)> = (0..60)
        .map(|_| {
            let x = DMatrix::from_fn(inputs, case.batch, |_, _| T::of(rng.random_range(0.0..1.0)));
            let labels = (0..case.batch).map(|_| rng.random_range(0..outputs.max(2))).collect();
            (x, labels)
        })
        .collect();
    let optimizer: Optimizer = match case.optimizer {
        "sgd" => Sgd { learning_rate: 1e-3, ..Sgd::default() }.into(),
        _ => RmsProp { learning_rate: 1e-5, ..RmsProp::default() }.into(),
    };
    let loss = if outputs == 1 { Loss::LogisticCrossEntropy } else { Loss::SoftmaxCrossEntropy };
    let mut trainer = Trainer::builder(network)
        .rule(case.rule)
        .optimizer(optimizer)
        .loss(loss)
        .build()
        .expect("a trainer");
    let mut batches = pool.iter().cycle();
    let mut run = |steps: usize| {
        let start = Instant::now();
        for _ in 0..steps {
            let (x, labels) = batches.next().expect("an endless pool");
            trainer.step(x, labels).expect("a step");
        }
        start.elapsed()
    };
    // As many steps at once as take some milliseconds, so that the clock does not matter.
    run(3);
    let once = run(3).as_secs_f64() / 3.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A small positive number.
    let steps = (2e-3 / once).clamp(1.0, 100_000.0) as usize;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let mut times = Vec::new();
    while Instant::now() < deadline || times.len() < 5 {
        times.push(run(steps).as_secs_f64() / steps as f64);
    }
    times.sort_by(f64::total_cmp);
    (times, operations)
}

fn main() {
    let options = Options::parse();
    let chosen = |case: &Case| {
        case.name().contains(&options.only)
            && options.threads.is_none_or(|threads| threads == case.threads)
    };
    let cases: Vec<Case> = cases().into_iter().filter(chosen).collect();
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name()));
        return;
    }
    if !options.json {
        println!(
            "{:<60} {:>10} {:>10} {:>10} {:>12} {:>8}",
            "case", "median", "p10", "p90", "samples/s", "GFLOP/s"
        );
    }
    for (index, case) in cases.iter().enumerate() {
        eprint!("\r{}/{} {:<60}\r", index + 1, cases.len(), case.name());
        let measure = || match case.dtype {
            "f64" => time::<f64>(case, options.seconds),
            _ => time::<f32>(case, options.seconds),
        };
        let (times, operations) = on_threads(case.threads, measure);
        let [p10, median, p90] = [1, 5, 9].map(|tenth| times[times.len() * tenth / 10]);
        let (rate, gflops) = (case.batch as f64 / median, operations / median / 1e9);
        if options.json {
            let Case { arch, batch, rule, optimizer, dtype, threads } = case;
            let act = "tanh";
            let rule = rule.to_string().to_lowercase();
            println!(
                r#"{{"arch":"{arch}","act":"{act}","batch":{batch},"rule":"{rule}","opt":"{optimizer}","dtype":"{dtype}","threads":{threads},"median_s":{median:e},"p10_s":{p10:e},"p90_s":{p90:e},"samples_per_s":{rate:.1},"gflops":{gflops:.2}}}"#
            );
        } else {
            println!(
                "{:<60} {:>10} {:>10} {:>10} {rate:>12.0} {gflops:>8.1}",
                case.name(),
                readable(median),
                readable(p10),
                readable(p90)
            );
        }
    }
}

/// Runs the measurement in a pool of so many threads.
#[cfg(feature = "parallel")]
fn on_threads<R: Send>(threads: usize, measure: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(measure)
}

#[cfg(not(feature = "parallel"))]
fn on_threads<R>(_: usize, measure: impl FnOnce() -> R) -> R {
    measure()
}

fn readable(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.2} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}
