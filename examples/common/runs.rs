//! How training by some rules went, as a table and a picture.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

use crate::{
    common::Result,
    curves::{self, Curve},
};

/// How training by one rule went.
pub struct Run {
    /// Of the rule.
    pub name: String,
    /// Share of test samples put into the wrong class, in percent, after each epoch.
    pub test_errors: Vec<f64>,
    /// The same for the training samples, after the last epoch.
    pub training_error: f64,
    /// Time spent on learning; evaluations do not count.
    pub seconds: f64,
}

/// Prints the table, draws the plot and says where it is.
pub fn report(runs: &[Run], title: &str, plot: &Path) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", Table(runs))?;
    let curve = |run: &Run| Curve {
        name: run.name.clone(),
        test: run.test_errors.clone(),
        training: Vec::new(),
    };
    curves::save(&runs.iter().map(curve).collect::<Vec<_>>(), title, plot)?;
    writeln!(out, "Plot of the test error per epoch: {}", plot.display())?;
    Ok(())
}

/// One row for each rule.
struct Table<'a>(&'a [Run]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|run| run.name.len()).max().unwrap_or(0).max(4);
        writeln!(f, "{:<width$}   test error   training error   seconds", "rule")?;
        for Run { name, test_errors, training_error, seconds } in self.0 {
            let test_error = test_errors.last().copied().unwrap_or(f64::NAN);
            writeln!(
                f,
                "{name:<width$} {test_error:>10.2} % {training_error:>14.2} % {seconds:>9.1}"
            )?;
        }
        Ok(())
    }
}
