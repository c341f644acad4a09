//! A fair comparison of learning rules: each at the learning rate that suits it.
//!
//! ```text
//! cargo run --release --example sweep
//! cargo run --release --example sweep -- --rule dfa,drtp,shallow --rates 1e-3,1e-2 --seeds 10
//! ```
//!
//! A rate that is right for backpropagation may be wrong for random feedback, so a comparison at one
//! rate compares rates. Here every rule tries all of them, from one seed, and is judged by digits held out
//! of those to learn from. Then it trains at the best rate on all of these from several other seeds, and the
//! test digits, which had no say so far, give mean and standard deviation. `shallow`, under which hidden
//! layers stay random, is the control: a rule that is no better has taught them nothing.

#[allow(dead_code)] // Nothing is drawn here.
mod common;
#[path = "common/counts.rs"]
mod counts;
#[path = "common/rules.rs"]
mod rules;
#[path = "common/spread.rs"]
mod spread;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use common::{Result, Split};
use feedback_alignment::{Adam, Dataset, Error, FeedbackRule, Network, Trainer};
use indicatif::ProgressBar;
use rules::Rules;

/// Shows how to compare learning rules fairly: picks a learning rate for each on held-out digits, then
/// tests it from several seeds. Prints the errors of all rates, and mean ± standard deviation at the best.
#[derive(Parser)]
struct Args {
    /// Learning rules, separated by commas, or `all`
    #[arg(long, value_delimiter = ',', default_value = "shallow,bp,fa,dfa,ifa")]
    rule: Vec<Rules>,

    /// Learning rates of Adam to try, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1", value_parser = rate)]
    rates: Vec<f64>,

    /// Units of the hidden layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100,100", value_parser = counts::at_least_one)]
    hidden: Vec<usize>,

    /// How often every training image is seen
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,

    /// Seed of the sweep; the tests take those after it
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// How many seeds are tested at the best rate
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=1000))]
    seeds: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "give a positive number, such as 1e-3".into())
}

fn main() -> ExitCode {
    common::exit(sweep(&Args::parse()))
}

fn sweep(args: &Args) -> Result<()> {
    let Split { train, test } = common::digits()?;
    let (learned, held_out) = train.split_stratified(train.len() / 5, args.seed)?;
    let rules: Vec<_> = args.rule.iter().flat_map(|Rules(rules)| rules.iter().copied()).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "Error on {} held-out digits, in percent, by learning rate\n", held_out.len())?;
    write!(out, "{:<8}", "rule")?;
    args.rates.iter().try_for_each(|rate| write!(out, " {rate:>7}"))?;
    writeln!(out, "   best rate   test error, {} seeds", args.seeds)?;
    let runs = (args.rates.len() as u64 + args.seeds) * rules.len() as u64;
    let bar = common::progress(runs * args.epochs)?;
    for rule in rules {
        let scores: Result<Vec<Score>> = args
            .rates
            .iter()
            .map(|&rate| learn(args, (rule, rate, args.seed), (&learned, &held_out), &bar))
            .collect();
        let row = Row { rule, rates: &args.rates, scores: scores?, tested: Vec::new() };
        let row = row.tested(args, (&train, &test), &bar)?;
        bar.suspend(|| writeln!(out, "{row}"))?;
    }
    bar.finish_and_clear();
    writeln!(out, "\n– diverges, * at an end of the rates: try further ones with --rates")?;
    Ok(())
}

/// What a run comes to: error rate in percent and loss; none if it diverges.
type Score = Option<(f64, f64)>;

/// Trains by one rule, at one rate, from one seed, and evaluates.
fn learn(
    args: &Args,
    (rule, learning_rate, seed): (FeedbackRule, f64, u64),
    (train, test): (&Dataset<f32>, &Dataset<f32>),
    bar: &ProgressBar,
) -> Result<Score> {
    let mut network = Network::builder(train.features()).seed(seed);
    for &units in &args.hidden {
        network = network.dense(units).tanh();
    }
    let mut trainer = Trainer::builder(network.dense(10).build()?)
        .rule(rule)
        .optimizer(Adam { learning_rate, ..Adam::default() })
        .batch_size(32)
        .seed(seed)
        .build()?;
    bar.set_message(format!("{rule:<7} at {learning_rate}, seed {seed},"));
    let mut epochs = || -> feedback_alignment::Result<Score> {
        for _ in 0..args.epochs {
            trainer.epoch(train)?;
            bar.inc(1);
        }
        let evaluation = trainer.evaluate(test)?;
        Ok(evaluation.error_rate.map(|rate| (100.0 * rate, evaluation.loss)))
    };
    match epochs() {
        Err(Error::NonFiniteLoss { .. } | Error::NonFinite { .. }) => Ok(None),
        score => Ok(score?),
    }
}

/// What came out for one rule.
struct Row<'a> {
    rule: FeedbackRule,
    rates: &'a [f64],
    /// On what was held out, for each rate.
    scores: Vec<Score>,
    /// Test errors at the best rate, for each seed.
    tested: Vec<Option<f64>>,
}

impl Row<'_> {
    /// The rate with the fewest errors; of several the one with the lowest loss.
    fn best(&self) -> Option<usize> {
        let converged =
            self.scores.iter().enumerate().filter_map(|(at, score)| Some((at, (*score)?)));
        let best = converged.min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        best.map(|(at, _)| at)
    }

    /// The same with tests from other seeds, at the best rate.
    fn tested(
        mut self,
        args: &Args,
        data: (&Dataset<f32>, &Dataset<f32>),
        bar: &ProgressBar,
    ) -> Result<Self> {
        let Some(best) = self.best() else { return Ok(self) };
        for seed in 1..=args.seeds {
            let seed = args.seed.wrapping_add(seed);
            let score = learn(args, (self.rule, self.rates[best], seed), data, bar)?;
            self.tested.push(score.map(|(error, _)| error));
        }
        Ok(self)
    }
}

impl std::fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<8}", self.rule.to_string())?;
        for score in &self.scores {
            let error = score.map_or("–".into(), |(error, _)| format!("{error:.2}"));
            write!(f, " {error:>7}")?;
        }
        let Some(best) = self.best() else { return write!(f, "   {:>9}", "–") };
        let at_end = self.rates.len() > 1 && (best == 0 || best == self.rates.len() - 1);
        let rate = format!("{}{}", self.rates[best], if at_end { "*" } else { "" });
        write!(f, "   {rate:>9}   ")?;
        let tested: Vec<f64> = self.tested.iter().copied().flatten().collect();
        if tested.is_empty() {
            return write!(f, "diverges");
        }
        write!(f, "{:.2}", spread::mean(&tested))?;
        if let Some(deviation) = spread::deviation(&tested) {
            write!(f, " ± {deviation:.2}")?;
        }
        write!(f, " %")?;
        let diverged = self.tested.len() - tested.len();
        if diverged > 0 { write!(f, ", {diverged} more diverge") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_rate_has_the_fewest_errors_then_the_lowest_loss_and_converges() {
        let best = |scores: &[Score]| {
            let (rule, tested) = (FeedbackRule::Bp, Vec::new());
            Row { rule, rates: &[], scores: scores.to_vec(), tested }.best()
        };
        assert_eq!(best(&[Some((3.0, 0.1)), Some((2.0, 0.5)), None]), Some(1));
        assert_eq!(best(&[None, Some((2.0, 0.5)), Some((2.0, 0.4))]), Some(2));
        assert_eq!(best(&[None, None]), None);
    }
}
