//! How training by some rules went, as a table and a picture.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

use crate::{
    common::Result,
    curves::{self, Curve},
    learned, spread,
};

/// How training by one rule went, from one seed.
pub struct Run {
    /// Of the rule.
    pub name: String,
    /// Share of test samples put into the wrong class, in percent, after each epoch.
    pub test_errors: Vec<f64>,
    /// The same for the training samples, after the last epoch.
    pub training_error: f64,
    /// Time spent on learning; evaluations do not count.
    pub seconds: f64,
    /// The training loss before learning, and in the last epoch.
    pub losses: [f64; 2],
}

/// Makes all runs, prints the table, draws the plot and says where it is. Runs of one name are those of
/// several seeds. A run that fails is reported at once, and the others are still made.
///
/// # Errors
/// Where a run has failed, or a rule has made the network worse than it was.
pub fn report(runs: impl IntoIterator<Item = Result<Run>>, title: &str, plot: &Path) -> Result<()> {
    let (mut made, mut failed) = (Vec::new(), 0);
    for run in runs {
        match run {
            Ok(run) => made.push(run),
            Err(error) => {
                eprintln!("error: {error}");
                failed += 1;
            }
        }
    }
    if !made.is_empty() {
        show(&made, title, plot)?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(format!("{failed} of {} runs failed, as said above", failed + made.len()).into())
}

fn show(runs: &[Run], title: &str, plot: &Path) -> Result<()> {
    let mut out = io::stdout().lock();
    let groups: Vec<&[Run]> = runs.chunk_by(|one, other| one.name == other.name).collect();
    writeln!(out, "\n{}", Table(&groups))?;
    let curve = |seeds: &&[Run]| Curve {
        name: seeds[0].name.clone(),
        test: seeds.iter().map(|run| run.test_errors.clone()).collect(),
        training: Vec::new(),
    };
    curves::save(&groups.iter().map(curve).collect::<Vec<_>>(), title, plot)?;
    writeln!(out, "Plot of the test error per epoch: {}", plot.display())?;
    runs.iter().try_for_each(|run| learned::require(&run.name, run.losses))
}

/// One row for each rule.
struct Table<'a>(&'a [&'a [Run]]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|seeds| seeds[0].name.len()).max().unwrap_or(0).max(4);
        writeln!(f, "{:<width$}      test error   training error   seconds", "rule")?;
        for seeds in self.0 {
            let last = |run: &Run| run.test_errors.last().copied().unwrap_or(f64::NAN);
            let test = mean_and_deviation(seeds.iter().map(last));
            let training = mean_and_deviation(seeds.iter().map(|run| run.training_error));
            let seconds: f64 = seeds.iter().map(|run| run.seconds).sum();
            let name = &seeds[0].name;
            writeln!(f, "{name:<width$} {test:>13} % {training:>14} % {seconds:>9.1}")?;
        }
        Ok(())
    }
}

/// `1.74`, of several `1.74 ± 0.08`.
fn mean_and_deviation(numbers: impl Iterator<Item = f64>) -> String {
    let numbers: Vec<f64> = numbers.collect();
    let deviation = spread::deviation(&numbers).map(|deviation| format!(" ± {deviation:.2}"));
    format!("{:.2}{}", spread::mean(&numbers), deviation.unwrap_or_default())
}
