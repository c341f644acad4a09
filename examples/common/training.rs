//! What `digits`, `mnist` and `cifar` share: the loop over epochs.

use std::time::Instant;

use feedback_alignment::{Epoch, Evaluation, Trainer};

use crate::{
    common::{Result, Split},
    runs::Run,
};

/// Trains for some epochs, evaluates after each and shows both to `watch`.
pub fn train(
    mut trainer: Trainer<f32>,
    data: &Split,
    epochs: u64,
    mut watch: impl FnMut(&Trainer<f32>, &Epoch, &Evaluation) -> Result<()>,
) -> Result<Run> {
    let (mut test_errors, mut seconds) = (Vec::new(), 0.0);
    let before = trainer.evaluate(&data.train)?.loss;
    let mut losses = [before; 2];
    for _ in 0..epochs {
        let start = Instant::now();
        let epoch = trainer.epoch(&data.train)?;
        seconds += start.elapsed().as_secs_f64();
        losses[1] = epoch.loss;

        let evaluation = trainer.evaluate(&data.test)?;
        test_errors.push(percent(&evaluation));
        watch(&trainer, &epoch, &evaluation)?;
    }
    let training_error = percent(&trainer.evaluate(&data.train)?);
    Ok(Run { name: trainer.feedback().rule_name(), test_errors, training_error, seconds, losses })
}

/// The error rate in percent; there is one, since the targets are classes.
fn percent(evaluation: &Evaluation) -> f64 {
    evaluation.error_rate.map_or(f64::NAN, |rate| 100.0 * rate)
}
