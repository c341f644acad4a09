//! XOR, the classic task that no network without a hidden layer can do, learned by all four rules.
//!
//! ```text
//! cargo run --release --example xor
//! ```
//!
//! The crate on one page: data, network, trainer, predictions. There are two hidden layers, since
//! with a single one FA, DFA and IFA are the same rule.

use clap::Parser;
use feedback_alignment::{Adam, FeedbackRule, Loss, Network, Result, Trainer, nalgebra::DMatrix};

/// The steps at which the loss is printed.
const MILESTONES: [u32; 4] = [1, 100, 200, 400];

/// Shows the crate on one page: a network learns XOR by backpropagation, feedback alignment, direct and
/// indirect feedback alignment, and answers. There is nothing to choose.
#[derive(Parser)]
struct Args {}

fn main() -> Result<()> {
    Args::parse();
    // A sample is a column: two features (a and b), four samples. Class 1 is "a xor b".
    let x = DMatrix::from_column_slice(2, 4, &[0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    let labels = [0, 1, 1, 0];

    println!("      loss in step                     | probability of class 1 at a, b =");
    println!("rule  {} |    0, 0    0, 1    1, 0    1, 1", row(&MILESTONES, 0));
    for rule in FeedbackRule::nokland() {
        let mut trainer = trainer(rule)?;
        let mut losses = Vec::new();
        for step in 1..=MILESTONES[MILESTONES.len() - 1] {
            // All four samples at once.
            let seen = trainer.step(&x, &labels)?;
            if MILESTONES.contains(&step) {
                losses.push(seen.loss);
            }
        }
        // The network answers in logits; the loss knows which probabilities they stand for.
        let logits = trainer.network().predict(&x)?;
        let probabilities = trainer.loss().probabilities(&logits)?;
        println!("{rule:<4}  {} | {}", row(&losses, 4), row(probabilities.as_slice(), 3));
    }
    println!("\nRounded, all rows should read 0, 1, 1, 0.");
    Ok(())
}

/// A 2-8-8-1 network with tanh units and what trains it.
fn trainer(rule: FeedbackRule) -> Result<Trainer<f64>> {
    let network = Network::builder(2).dense(8).tanh().dense(8).tanh().dense(1).build()?;
    Trainer::builder(network)
        .rule(rule) // Nothing else differs between the four.
        .loss(Loss::LogisticCrossEntropy) // One output, yes or no.
        .optimizer(Adam { learning_rate: 0.01, ..Adam::default() })
        .build()
}

/// Numbers side by side.
fn row<N: std::fmt::Display>(numbers: &[N], decimals: usize) -> String {
    let cells: Vec<_> = numbers.iter().map(|number| format!("{number:>7.decimals$}")).collect();
    cells.join(" ")
}
