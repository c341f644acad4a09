//! What `mnist` and `cifar` share: a line after every epoch.

use std::io::{self, Write};

use feedback_alignment::Trainer;

use crate::{
    common::{Result, Split, progress},
    runs::Run,
    training::train,
};

/// Trains for some epochs and prints a line after each.
pub fn train_aloud(trainer: Trainer<f32>, data: &Split, epochs: u64) -> Result<Run> {
    let (rule, loss) = (trainer.feedback().rule_name(), trainer.loss());
    let mut out = io::stdout();
    writeln!(out, "\n{rule}, {}, {loss} loss", trainer.network())?;
    let bar = progress(epochs)?.with_message(rule);
    bar.tick(); // Shown from the start: an epoch can take a while.
    let run = train(trainer, data, epochs, |epoch, test| {
        bar.inc(1);
        bar.suspend(|| writeln!(out, "{epoch}  test {test}"))?;
        Ok(())
    });
    bar.finish_and_clear();
    run
}
