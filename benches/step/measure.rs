//! How long a step takes, as a whole and stage by stage.

use std::time::{Duration, Instant};

use feedback_alignment::{Activations, Deltas, Gradients, OptimizerState, Scalar};

use crate::cases::Case;

/// Quantiles of the seconds that something took.
pub struct Times {
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
}

impl Times {
    fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let [p10, median, p90] = [1, 5, 9].map(|tenth| seconds[seconds.len() * tenth / 10]);
        Self { p10, median, p90 }
    }
}

/// Times of a trainer's steps, measured for so many seconds.
pub fn step<T: Scalar>(case: &Case, seconds: f64) -> Times {
    let (mut trainer, pool) = (case.trainer::<T>(), case.pool::<T>());
    let mut batches = pool.iter().cycle();
    let mut run = |steps: usize| {
        let start = Instant::now();
        for _ in 0..steps {
            let (x, labels) = batches.next().expect("an endless pool");
            trainer.step(x, labels).expect("a step");
        }
        start.elapsed().as_secs_f64() / steps as f64
    };
    // As many steps at once as take some milliseconds, so that the clock does not matter.
    run(3);
    let once = run(3);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A small positive number.
    let steps = (2e-3 / once).clamp(1.0, 100_000.0) as usize;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let mut times = Vec::new();
    while Instant::now() < deadline || times.len() < 5 {
        times.push(run(steps));
    }
    Times::new(times)
}

/// What [`stages`] measures. The first five are the plain way; the trainer's replaces the last three
/// of them by one pass, which is the last.
pub const STAGES: [&str; 6] =
    ["forward", "error", "deliver", "gradients", "update", "deliver..update"];

/// Times of the five stages called one after the other, and of the one call that the trainer makes
/// of the last three, step about: the clock is read between them, which costs some tens of
/// nanoseconds each.
pub fn stages<T: Scalar>(case: &Case, seconds: f64) -> [Times; 6] {
    let (mut network, pool) = (case.network::<T>(), case.pool::<T>());
    let loss = case.loss();
    let feedback = case.feedback(&network);
    let mut optimizer = OptimizerState::new(&network, case.optimizer()).expect("a state");
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();

    let mut times: [Vec<f64>; 6] = Default::default();
    let mut batches = pool.iter().cycle();
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < deadline || times[0].len() < 20 {
        let (x, labels) = batches.next().expect("an endless pool");
        let mut clock = Instant::now();
        let mut lap = |stage: usize| {
            let now = Instant::now();
            times[stage].push((now - clock).as_secs_f64());
            clock = now;
        };
        network.forward(x, &mut activations).expect("a pass");
        lap(0);
        loss.error(labels, &activations, &mut deltas).expect("an error");
        lap(1);
        feedback.deliver(&network, &activations, &mut deltas).expect("deltas");
        lap(2);
        network.gradients(&activations, &deltas, &mut gradients).expect("gradients");
        lap(3);
        optimizer.step(&mut network, &gradients).expect("an update");
        lap(4);

        let (x, labels) = batches.next().expect("an endless pool");
        network.forward(x, &mut activations).expect("a pass");
        loss.error(labels, &activations, &mut deltas).expect("an error");
        let start = Instant::now();
        optimizer
            .deliver_and_learn(&mut network, &feedback, &activations, &mut deltas)
            .expect("an update");
        times[5].push(start.elapsed().as_secs_f64());
    }
    times.map(Times::new)
}
