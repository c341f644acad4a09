//! What `mnist` and `cifar` share: a line after every epoch.

use std::io::{self, Write};

use feedback_alignment::{Epoch, Evaluation, Trainer};

use crate::{
    common::{Result, Split, progress},
    runs::Run,
    training::train,
};

/// Trains for some epochs, prints a line after each and what `more` has to say of it, if anything.
pub fn train_aloud(
    trainer: Trainer<f32>,
    data: &Split,
    epochs: u64,
    mut more: impl FnMut(&Trainer<f32>, &Epoch, &Evaluation) -> Result<Option<String>>,
) -> Result<Run> {
    let (rule, loss) = (trainer.feedback().rule_name(), trainer.loss());
    let mut out = io::stdout();
    writeln!(out, "\n{rule}, {}, {loss} loss", trainer.network())?;
    let bar = progress(epochs)?.with_message(rule);
    bar.tick(); // Shown from the start: an epoch can take a while.
    let run = train(trainer, data, epochs, |trainer, epoch, test| {
        bar.inc(1);
        let more = more(trainer, epoch, test)?.map_or(String::new(), |more| format!("\n{more}"));
        bar.suspend(|| writeln!(out, "{epoch}  test {test}{more}"))?;
        Ok(())
    });
    bar.finish_and_clear();
    run
}
