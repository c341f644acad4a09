//! What `digits`, `mnist` and `cifar` share: the loop over epochs and the report.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    time::Instant,
};

use feedback_alignment::{Epoch, Evaluation, FeedbackRule, Trainer};

use crate::{
    common::{Result, Split},
    curves::{self, Curve},
};

/// How training by one rule went.
pub struct Run {
    pub rule: FeedbackRule,
    /// Share of test samples put into the wrong class, in percent, after each epoch.
    pub test_errors: Vec<f64>,
    /// The same for the training samples, after the last epoch.
    pub training_error: f64,
    /// Time spent on learning; evaluations do not count.
    pub seconds: f64,
}

/// Trains for some epochs, evaluates after each and shows both to `watch`.
pub fn train(
    mut trainer: Trainer<f32>,
    data: &Split,
    epochs: u64,
    mut watch: impl FnMut(&Epoch, &Evaluation) -> Result<()>,
) -> Result<Run> {
    let (mut test_errors, mut seconds) = (Vec::new(), 0.0);
    for _ in 0..epochs {
        let start = Instant::now();
        let epoch = trainer.epoch(&data.train)?;
        seconds += start.elapsed().as_secs_f64();

        let evaluation = trainer.evaluate(&data.test)?;
        test_errors.push(percent(&evaluation));
        watch(&epoch, &evaluation)?;
    }
    let training_error = percent(&trainer.evaluate(&data.train)?);
    Ok(Run { rule: trainer.feedback().rule(), test_errors, training_error, seconds })
}

/// The error rate in percent; there is one, since the targets are classes.
fn percent(evaluation: &Evaluation) -> f64 {
    evaluation.error_rate.map_or(f64::NAN, |rate| 100.0 * rate)
}

/// Prints the table, draws the plot and says where it is.
pub fn report(runs: &[Run], title: &str, plot: &Path) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", Table(runs))?;
    let curve =
        |run: &Run| Curve { rule: run.rule, test: run.test_errors.clone(), training: Vec::new() };
    curves::save(&runs.iter().map(curve).collect::<Vec<_>>(), title, plot)?;
    writeln!(out, "Plot of the test error per epoch: {}", plot.display())?;
    Ok(())
}

/// One row for each rule.
struct Table<'a>(&'a [Run]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rule   test error   training error   seconds")?;
        for Run { rule, test_errors, training_error, seconds } in self.0 {
            let test_error = test_errors.last().copied().unwrap_or(f64::NAN);
            writeln!(f, "{rule:<4} {test_error:>10.2} % {training_error:>14.2} % {seconds:>9.1}")?;
        }
        Ok(())
    }
}
