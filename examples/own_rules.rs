//! Learning rules written outside the library, with its public functions.
//!
//! ```text
//! cargo run --release --example own_rules
//! ```
//!
//! Each function below is a rule: a route of one's own, feedback that follows the signs of the
//! weights, feedback that learns, and feedback that never sees the output. All train the same
//! network on the same digits as the example `digits`.

#[path = "common/bands.rs"]
mod bands;
mod common;
#[path = "common/curves.rs"]
mod curves;
#[path = "common/learned.rs"]
mod learned;
#[path = "common/runs.rs"]
mod runs;
#[path = "common/spread.rs"]
mod spread;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use common::Result;
use feedback_alignment::{
    Activations, Dataset, Deltas, Feedback, FeedbackInit, FeedbackRule, Gradients, Loss, Network,
    OptimizerState, Route, Sgd, Targets, Trainer, nalgebra::DMatrix,
};
use runs::Run;

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

/// Shows rules written outside the library, each a function of this program. Prints a table of errors
/// and draws the test error per epoch.
#[derive(Parser)]
struct Args {
    /// How often every training image is seen
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Seed of the weights, the feedback matrices and the order of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// SVG file to draw the test error per epoch into
    #[arg(long, default_value = "target/own_rules.svg")]
    plot: PathBuf,
}

/// Trains a network, and shows it to `watch` after every epoch.
type Rule = fn(Network<f32>, &Dataset<f32>, &Args, &mut Watch) -> Result<()>;
type Watch<'a> = dyn FnMut(&Network<f32>) -> Result<()> + 'a;

const RULES: [(&str, Rule); 4] = [
    ("a rule per layer", a_rule_per_layer),
    ("sign symmetry", sign_symmetry),
    ("Kolen-Pollack", kolen_pollack),
    ("target projection", target_projection),
];

fn main() -> ExitCode {
    common::exit(compare(&Args::parse()))
}

fn compare(args: &Args) -> Result<()> {
    let data = common::digits()?;
    let network = Network::builder(data.train.features()).dense(100).tanh().dense(100).tanh();
    let network = network.dense(10).seed(args.seed).build()?;
    let bar = common::progress(args.epochs * RULES.len() as u64)?;
    let mut judge = Trainer::builder(network.clone()).loss(LOSS).build()?;
    let mut evaluate = |network: &Network<f32>, data: &Dataset<f32>| -> Result<(f64, f64)> {
        judge.network_mut().clone_from(network);
        let evaluation = judge.evaluate(data)?;
        Ok((evaluation.loss, 100.0 * evaluation.error_rate.ok_or("labels are classes")?))
    };
    let (untrained, _) = evaluate(&network, &data.train)?;
    let mut runs = Vec::new();
    for (name, rule) in RULES {
        let (start, mut judged) = (Instant::now(), 0.0);
        let (mut test_errors, mut last) = (Vec::new(), network.clone());
        rule(network.clone(), &data.train, args, &mut |network| {
            let now = Instant::now();
            test_errors.push(evaluate(network, &data.test)?.1);
            last.clone_from(network);
            bar.set_message(name);
            bar.inc(1);
            judged += now.elapsed().as_secs_f64();
            Ok(())
        })?;
        let seconds = start.elapsed().as_secs_f64() - judged;
        let (loss, training_error) = evaluate(&last, &data.train)?;
        let losses = [untrained, loss];
        runs.push(Run { name: name.into(), test_errors, training_error, seconds, losses });
    }
    bar.finish_and_clear();
    runs::report(runs.into_iter().map(Ok), "Rules written outside the library", &args.plot)
}

fn sgd() -> Sgd {
    Sgd { learning_rate: 0.2, ..Sgd::default() }
}

/// The error goes straight to the upper hidden layer, through a random matrix, and from there to
/// the lower one by backpropagation.
fn a_rule_per_layer(
    network: Network<f32>,
    data: &Dataset<f32>,
    args: &Args,
    watch: &mut Watch,
) -> Result<()> {
    let route: Route = "3:B(e)->1,W(1)->0".parse()?;
    let feedback = Feedback::with_route(&network, route, FeedbackInit::default(), args.seed)?;
    let builder = Trainer::builder(network).feedback(feedback).optimizer(sgd());
    let mut trainer = builder.seed(args.seed).build()?;
    for _ in 0..args.epochs {
        trainer.epoch(data)?;
        watch(trainer.network())?;
    }
    Ok(())
}

/// Feedback alignment whose matrices have the signs of the weights and one magnitude (Liao, Leibo
/// and Poggio 2016; "uniform sign-concordant feedback").
fn sign_symmetry(
    network: Network<f32>,
    data: &Dataset<f32>,
    args: &Args,
    watch: &mut Watch,
) -> Result<()> {
    let builder = Trainer::builder(network).rule(FeedbackRule::Fa);
    let mut trainer = builder.optimizer(sgd()).seed(args.seed).build()?;
    for epoch in 0..args.epochs {
        for batch in data.batches(64, args.seed, epoch)? {
            for layer in 0..2 {
                let weights = trainer.network().layer(layer + 1)?.weights();
                let (rows, columns) = weights.shape();
                let magnitude = (2.0 / (rows + columns) as f32).sqrt();
                let signs = weights.map(|w| magnitude * w.signum()).transpose();
                trainer.feedback_mut().set_matrix(layer, signs)?;
            }
            trainer.step(batch.inputs(), batch.targets())?;
        }
        watch(trainer.network())?;
    }
    Ok(())
}

/// Feedback alignment whose matrices get the update of the weights that they stand in for, without
/// ever reading these, and shrink a little in every step (Kolen and Pollack 1994).
fn kolen_pollack(
    network: Network<f32>,
    data: &Dataset<f32>,
    args: &Args,
    watch: &mut Watch,
) -> Result<()> {
    let (rate, keep) = (0.2_f32, 1.0 - 1e-4_f32);
    let builder = Trainer::builder(network).rule(FeedbackRule::Fa);
    let mut trainer = builder.optimizer(sgd()).seed(args.seed).build()?;
    for epoch in 0..args.epochs {
        for batch in data.batches(64, args.seed, epoch)? {
            let mut updates = Vec::new();
            trainer.step_with(batch.inputs(), batch.targets(), |gradients| {
                for layer in 1..3 {
                    updates.push(gradients.weights(layer)?.transpose() * rate);
                }
                Ok(())
            })?;
            for (layer, update) in updates.into_iter().enumerate() {
                let b = trainer.feedback().matrix(layer)?.ok_or("FA has a matrix here")?;
                trainer.feedback_mut().set_matrix(layer, b * keep - update)?;
            }
        }
        watch(trainer.network())?;
    }
    Ok(())
}

/// Hidden layers are sent the target in the place of the error, so that they can learn before the
/// output is known (Frenkel, Lefebvre and Bol 2021). This one is written stage by stage.
fn target_projection(
    mut network: Network<f32>,
    data: &Dataset<f32>,
    args: &Args,
    watch: &mut Watch,
) -> Result<()> {
    let init = FeedbackInit::Frenkel;
    let drawn = Feedback::new(&network, FeedbackRule::Dfa, init, args.seed)?;
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    let mut optimizer = OptimizerState::new(&network, sgd())?;
    for epoch in 0..args.epochs {
        for batch in data.batches(64, args.seed, epoch)? {
            let Targets::Labels(labels) = batch.targets() else { continue };
            let share = 1.0 / labels.len() as f32; // The error is that of a mean over the batch too.
            let targets = DMatrix::from_fn(10, labels.len(), |class, sample| {
                if labels[sample] == class { share } else { 0.0 }
            });
            network.forward(batch.inputs(), &mut activations)?;
            LOSS.error(batch.targets(), &activations, &mut deltas)?;
            for matrix in drawn.matrices() {
                let (hop, b) = matrix?;
                deltas.arriving_mut(hop.to)?.copy_from(&(b * &targets));
                network.backward(hop.to, &activations, &mut deltas)?;
            }
            network.gradients(&activations, &deltas, &mut gradients)?;
            optimizer.step(&mut network, &gradients)?;
        }
        watch(&network)?;
    }
    Ok(())
}
