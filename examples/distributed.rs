//! One network on several processes: how fast it learns, what crosses between them, and a hash of what
//! comes out, which does not depend on their number.
//!
//! ```text
//! cargo build --release --features mpi --example distributed
//! mpirun -n 2 target/release/examples/distributed --mode data --rule bp --batch 512
//! mpirun -n 2 target/release/examples/distributed --mode layers --rule dfa --net 784-800x4-10
//! mpirun -n 2 target/release/examples/distributed --mode pipeline --rule drtp --net 784-800x4-10
//! target/release/examples/distributed --help
//! ```
//!
//! Without `--data` the samples are made up, in the width of the network, since only speed is asked for.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::Instant,
};

use clap::{Parser, ValueEnum};
use feedback_alignment::{
    Dataset, FeedbackRule, Init, Network, Optimizer, Result, RmsProp, Sgd, Trainer,
    data::idx,
    distributed::{
        Counted, DataParallel, Group, LayerParallel, MpiGroup, Pipeline, Traffic, agree,
        fingerprint,
    },
    nalgebra::DMatrix,
};

/// Shows training on the processes that mpirun has started, or on one: how fast it goes, what crosses between
/// them, and a hash of the weights, which is the same on any number.
#[derive(Parser)]
struct Args {
    /// What is shared out
    #[arg(long, value_enum, default_value_t = Mode::Data)]
    mode: Mode,

    /// The learning rule
    #[arg(long, default_value_t = FeedbackRule::Dfa)]
    rule: FeedbackRule,

    /// Widths from the input to the output; 800x4 is 800-800-800-800
    #[arg(long, default_value = "784-800-800-10")]
    net: Widths,

    /// Pieces that a batch is cut into, whatever the number of processes; in mode data
    #[arg(long, default_value_t = 4)]
    shards: usize,

    /// Training steps
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,

    /// Steps between two lines of progress
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,

    /// Samples in a step
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,

    /// How many batches late the error comes; in modes layers and pipeline
    #[arg(long, default_value_t = 0)]
    delay: usize,

    /// What turns gradients into steps
    #[arg(long, value_enum, default_value_t = OptimizerName::Rmsprop)]
    optimizer: OptimizerName,

    /// Learning rate [default: 1e-4 for rmsprop, 0.1 for sgd]
    #[arg(long)]
    learning_rate: Option<f64>,

    /// Seed of the weights, the feedback matrices and the order of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Threads of each process
    #[arg(long, default_value_t = 1)]
    threads: usize,

    /// Folder with the four files of MNIST, plain or .gz
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// The samples of a batch
    Data,
    /// The layers, all on the same batch
    Layers,
    /// The layers, each on another batch
    Pipeline,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Sgd,
    Rmsprop,
}

/// The widths of a network: at least an input and an output.
#[derive(Clone)]
struct Widths(Vec<usize>);

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let some = |part: &str| {
            let (width, times) = part.split_once('x').unwrap_or((part, "1"));
            let times = times.parse().ok().filter(|&times: &usize| times <= 10_000)?;
            Some(vec![width.parse().ok()?; times])
        };
        let widths: Option<Vec<Vec<usize>>> = text.split('-').map(some).collect();
        let widths = widths.map(|widths| widths.concat()).filter(|widths| widths.len() > 1);
        widths.map(Self).ok_or_else(|| format!("'{text}' is not of the form 784-800x4-10"))
    }
}

fn main() -> ExitCode {
    match MpiGroup::join().and_then(|group| run(&Args::parse(), &Counted::new(group))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A trainer whose layers or samples are shared out.
enum Shared<'g, G> {
    Data(Box<DataParallel<'g, f32, G>>),
    Layers(Box<LayerParallel<'g, f32, G>>),
    Pipeline(Box<Pipeline<'g, f32, G>>),
}

impl<G: Group> Shared<'_, G> {
    fn epoch(&mut self, data: &Dataset<f32>) -> Result<feedback_alignment::Epoch> {
        match self {
            Self::Data(shared) => shared.epoch(data),
            Self::Layers(shared) => shared.epoch(data),
            Self::Pipeline(shared) => shared.epoch(data),
        }
    }

    fn trainer(&mut self) -> Result<&Trainer<f32>> {
        match self {
            Self::Data(shared) => Ok(shared.trainer()),
            Self::Layers(shared) => shared.trainer(),
            Self::Pipeline(shared) => shared.trainer(),
        }
    }
}

fn run<G: Group>(args: &Args, group: &Counted<G>) -> Result<()> {
    // An error of one process is an error of all, so that none waits for another.
    let (train, test) = agree(group, args.data())?;
    let trainer = agree(group, args.trainer(&train))?;
    let mut shared = match args.mode {
        Mode::Data => Shared::Data(DataParallel::new(group, trainer, args.shards)?.into()),
        Mode::Layers => Shared::Layers(LayerParallel::new(group, trainer, args.delay)?.into()),
        Mode::Pipeline => Shared::Pipeline(Pipeline::new(group, trainer, args.delay)?.into()),
    };
    let (speaks, mut out) = (group.rank() == 0, io::stdout());
    let mut say = |text: String| {
        if speaks {
            writeln!(out, "{text}").unwrap_or(());
        }
    };

    let (mut seconds, mut done, before) = (0.0, 0, group.traffic());
    while done < args.steps {
        let steps = args.every.min(args.steps - done);
        let part = agree(group, args.part(&train, done, steps))?;
        let start = Instant::now();
        let epoch = shared.epoch(&part)?;
        seconds += start.elapsed().as_secs_f64();
        done += steps;
        let error = 100.0 * epoch.error_rate.unwrap_or(f64::NAN);
        say(format!("step {done}  loss {:.4}  error {error:.2} %", epoch.loss));
    }
    let speed = (args.steps * args.batch) as f64 / seconds;
    say(format!("{} processes, {speed:.0} samples per second", group.size()));
    for (rank, traffic) in all_traffic(group, before)?.into_iter().enumerate() {
        let each = |count: u64| count as f64 / args.steps as f64;
        let (bytes, messages) = (each(traffic.bytes), each(traffic.messages));
        say(format!("process {rank} sends {bytes:.0} bytes in {messages:.2} messages per step"));
    }
    let trainer = shared.trainer()?;
    if let Some(test) = test {
        say(format!("test {}", agree(group, trainer.evaluate(&test))?));
    }
    say(format!("weights {:016x}", fingerprint(trainer.network())));
    Ok(())
}

/// What each process has sent since `before`, on process 0.
fn all_traffic<G: Group>(group: &Counted<G>, before: Traffic) -> Result<Vec<Traffic>> {
    let now = group.traffic();
    let own = [now.messages - before.messages, now.bytes - before.bytes];
    let traffic = |[messages, bytes]: [u64; 2]| {
        let mut traffic = Traffic::default();
        (traffic.messages, traffic.bytes) = (messages, bytes);
        traffic
    };
    if group.rank() > 0 {
        group.send(0, &own.map(u64::to_be_bytes).concat())?;
        return Ok(Vec::new());
    }
    let mut all = vec![traffic(own)];
    for from in 1..group.size() {
        let (mut messages, mut bytes) = ([0; 8], [0; 8]);
        let mut both = [0; 16];
        group.receive(from, &mut both)?;
        messages.copy_from_slice(&both[..8]);
        bytes.copy_from_slice(&both[8..]);
        all.push(traffic([messages, bytes].map(u64::from_be_bytes)));
    }
    Ok(all)
}

impl Args {
    /// What to learn from, and what to be judged by, if that is of interest.
    fn data(&self) -> Result<(Dataset<f32>, Option<Dataset<f32>>)> {
        if let Some(folder) = &self.data {
            let idx::Mnist { train, test } = idx::load_dir(folder)?;
            return Ok((train, Some(test)));
        }
        let (features, classes) = (self.net.0[0], self.net.0[self.net.0.len() - 1]);
        let samples = 16 * self.batch();
        let pixel = |i: usize, j: usize| ((i * 31 + j * 17 + i * j) % 101) as f32 / 100.0;
        let labels = (0..samples).map(|j| j * 7 % classes.max(2)).collect();
        Ok((Dataset::new(DMatrix::from_fn(features, samples, pixel), labels)?, None))
    }

    /// The samples of so many steps, from step `done` on, over and over.
    fn part(&self, data: &Dataset<f32>, done: u64, steps: u64) -> Result<Dataset<f32>> {
        let place = |steps: u64| usize::try_from(steps * self.batch).unwrap_or(usize::MAX);
        let samples = place(done)..place(done + steps);
        data.subset(&samples.map(|sample| sample % data.len()).collect::<Vec<_>>())
    }

    fn batch(&self) -> usize {
        usize::try_from(self.batch).unwrap_or(usize::MAX)
    }

    fn trainer(&self, data: &Dataset<f32>) -> Result<Trainer<f32>> {
        let (outputs, hidden) = self.net.0[1..].split_last().expect("an input and an output");
        let builder = Network::builder(data.features());
        let builder = hidden.iter().fold(builder, |network, &units| network.dense(units).tanh());
        // From zero, as in the paper, all layers would be alike, and a hash would say little.
        let network = builder.dense(*outputs).init(Init::FanIn).seed(self.seed).build()?;
        let rate = |default| self.learning_rate.unwrap_or(default);
        let optimizer: Optimizer = match self.optimizer {
            OptimizerName::Sgd => Sgd { learning_rate: rate(0.1), ..Sgd::default() }.into(),
            OptimizerName::Rmsprop => {
                RmsProp { learning_rate: rate(1e-4), ..RmsProp::default() }.into()
            }
        };
        Trainer::builder(network)
            .rule(self.rule)
            .optimizer(optimizer)
            .batch_size(self.batch())
            .seed(self.seed)
            .threads(self.threads)
            .build()
    }
}
