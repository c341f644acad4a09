//! Trains one row under one arm from one seed, or goes on where an earlier run was interrupted.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use feedback_alignment::{
    Activations, Dataset, Diagnostics, Error, Trainer,
    nalgebra::{DMatrix, DVector},
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom},
};

use crate::{
    common::{self, Result, Split},
    lines::{End, STAND_IN},
    record::{Header, Point, rounded},
    rows::{Moment, Observed, Order, Record, Row},
};

/// A checkpoint is written when the last is so old.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Samples between which cosines are measured.
const OBSERVED: usize = 256;

/// From here on, two seeds would have the same random numbers.
pub const SEEDS: u64 = 1 << 24;

/// Random numbers of a seed for one purpose.
pub fn stream(seed: u64, purpose: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed << 40 | purpose)
}

/// One run.
pub struct Run<'a> {
    pub row: &'a Row,
    pub arm: &'a str,
    pub seed: u64,
    /// Of the data.
    pub name: &'a str,
    pub split: &'a Split,
}

impl Run<'_> {
    /// Trains for `length` epochs or steps in all, or finds that it has been done, and returns the
    /// record, whose file and checkpoint are in `folder`; nothing if another process is at it.
    pub fn make(&self, length: u64, folder: &Path) -> Result<Option<Record>> {
        let Self { row, arm, seed, .. } = *self;
        let data = if self.name == STAND_IN { "-digits" } else { "" };
        let file = format!("{}-{arm}{data}-seed{seed}.jsonl", row.name);
        let header = Header {
            row: row.name.into(),
            arm: arm.into(),
            seed,
            data: self.name.into(),
            length: row.plan.scheduled.then_some(length),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let fresh = Record::new(folder.join(file), header);
        let Some(_claim) = fresh.claim()? else { return Ok(None) };
        let trainer = (row.trainer)(arm, self.split, seed)?.seed(seed).build()?;
        let (mut record, mut trainer) = self.resume(fresh, trainer)?;
        let reached = record.points.last().map_or(0, |last| last.at);
        if reached > length {
            let (path, unit) = (record.path().display(), row.unit());
            eprintln!("{path} has {reached} {unit}: these are its first {length}");
            record.points.retain(|point| point.at <= length);
            record.end = Some(End::Epochs);
        }
        if record.end == Some(End::DoesNotConverge) || reached >= length {
            return Ok(Some(record));
        }
        record.require_checkpoint()?;
        trainer.set_threads(1)?; // Several runs side by side take less time than one on all cores.
        self.go_on(&mut record, &mut trainer, length)?;
        Ok(Some(record))
    }

    /// What an earlier run left: lines up to its last checkpoint, and the checkpoint.
    fn resume(&self, fresh: Record, trainer: Trainer<f32>) -> Result<(Record, Trainer<f32>)> {
        let Some(mut record) = fresh.earlier()? else { return Ok((fresh, trainer)) };
        if record.end == Some(End::DoesNotConverge) {
            return Ok((record, trainer));
        }
        if !fresh.checkpoint().exists() {
            return Ok((record, trainer)); // `make` asks for the checkpoint if there is more to do.
        }
        let route = trainer.feedback().route().clone();
        let trainer: Trainer<f32> = Trainer::load(fresh.checkpoint())?;
        if *trainer.feedback().route() != route {
            let (path, found) = (fresh.checkpoint(), trainer.feedback().route());
            let path = path.display();
            return Err(format!("{path} has the feedback {found}, not {route}: remove it").into());
        }
        let rounds = trainer.optimizer().steps() / self.steps(&trainer);
        let reached = rounds * self.row.round();
        record.points.retain(|point| point.at <= reached);
        if record.points.last().map_or(0, |last| last.at) < reached {
            let (path, unit) = (fresh.checkpoint(), self.row.unit());
            let path = path.display();
            return Err(format!("{path} has made {reached} {unit}, its lines end earlier").into());
        }
        Ok((record, trainer))
    }

    /// Steps of a round.
    fn steps(&self, trainer: &Trainer<f32>) -> u64 {
        let (samples, size) = (self.split.train.len(), trainer.batch_size());
        match self.row.plan.order {
            Order::Drawn(steps) => steps,
            _ if trainer.drop_last() => (samples / size) as u64,
            _ => samples.div_ceil(size) as u64,
        }
    }

    /// Round after round until the end.
    fn go_on(&self, record: &mut Record, trainer: &mut Trainer<f32>, length: u64) -> Result<()> {
        let row = self.row;
        let mut writer = record.begin(|path| trainer.save(path))?;
        record.end = None;
        let bar = common::progress(length)?.with_message(format!("{} {}", row.name, self.arm));
        let mut saved = Instant::now();
        let done = record.points.last().map_or(0, |last| last.at);
        let steps = length / row.round() * self.steps(trainer);
        if done == 0 {
            self.after(trainer, steps)?;
        }
        let mut observer = Observer::new(self, trainer)?;
        let mut end = End::Epochs;
        for at in (done + row.round()..=length).step_by(usize::try_from(row.round())?) {
            if let Err(error) = self.round(trainer, at, steps) {
                let Some(Error::NonFiniteLoss { .. } | Error::NonFinite { .. }) =
                    error.downcast_ref()
                else {
                    return Err(error);
                };
                end = End::DoesNotConverge;
                break;
            }
            let point = observer.point(trainer, at)?;
            writer.line(&point)?;
            bar.set_position(at);
            bar.set_message(format!("{} {}: {:.2} %", row.name, self.arm, point.error));
            record.points.push(point);
            if saved.elapsed() > SAVE_EVERY {
                trainer.save(record.checkpoint())?;
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        trainer.save(record.checkpoint())?;
        writer.end(end)?;
        record.end = Some(end);
        Ok(())
    }

    /// An epoch, or some steps, at the end of which so many have been made; of so many steps in all.
    fn round(&self, trainer: &mut Trainer<f32>, at: u64, in_all: u64) -> Result<()> {
        let (plan, train) = (self.row.plan, &self.split.train);
        let (steps, size) = (self.steps(trainer), trainer.batch_size());
        let order = order(plan.order, train.len(), size, &mut stream(self.seed, at));
        let batches = order.chunks(size).take(usize::try_from(steps).unwrap_or(usize::MAX));
        for indices in batches {
            let batch = train.subset(indices)?;
            let (x, targets) = (batch.inputs(), batch.targets());
            if plan.bias_factor == 1.0 {
                trainer.step(&x, targets)?;
            } else {
                let layers = trainer.network().layer_count();
                trainer.step_with(&x, targets, |gradients| {
                    for layer in 0..layers {
                        if let Some(mut bias) = gradients.bias_mut(layer)? {
                            bias *= plan.bias_factor;
                        }
                    }
                    Ok(())
                })?;
            }
            self.after(trainer, in_all)?;
        }
        Ok(())
    }

    /// What the row has to be done before the first step, and after each.
    fn after(&self, trainer: &mut Trainer<f32>, steps: u64) -> Result<()> {
        let Self { row, split, .. } = *self;
        let step = trainer.optimizer().steps();
        let after = row.plan.after.map(|after| after(&Moment { split, step, steps }, trainer));
        after.unwrap_or(Ok(()))
    }
}

/// The samples of a round, one batch after the other.
fn order(order: Order, samples: usize, size: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..samples).collect();
    match order {
        Order::Shuffled => indices.shuffle(rng),
        Order::AsTheyCome => {}
        Order::Drawn(steps) => {
            let count = usize::try_from(steps).unwrap_or(usize::MAX).saturating_mul(size);
            indices = (0..count).map(|_| rng.random_range(0..samples)).collect();
        }
    }
    indices
}

/// Measures what a line says.
struct Observer<'a> {
    observed: Observed,
    test: &'a Dataset<f32>,
    first: Dataset<f32>,
    some: Dataset<f32>,
    diagnostics: Diagnostics<f32>,
    activations: Activations<f32>,
}

impl<'a> Observer<'a> {
    fn new(run: &Run<'a>, trainer: &Trainer<f32>) -> Result<Self> {
        let test = &run.split.test;
        let some: Vec<usize> = (0..OBSERVED.min(test.len())).collect();
        Ok(Self {
            observed: run.row.plan.observed,
            test,
            first: run.split.train.subset(&[0])?,
            some: test.subset(&some)?,
            diagnostics: Diagnostics::new(trainer.network())?,
            activations: Activations::new(),
        })
    }

    fn point(&mut self, trainer: &Trainer<f32>, at: u64) -> Result<Point> {
        let error = trainer.evaluate(self.test)?.error_rate.ok_or("no labels")?;
        let mut point = Point { at, error: rounded(100.0 * error, 2), angle: None, cosine: None };
        match self.observed {
            Observed::Nothing => {}
            Observed::Angle => {
                let x = self.first.inputs();
                let seen = self.diagnostics.observe(trainer, &x, self.first.targets())?;
                point.angle = seen.hidden()[0].delta_angle.map(|angle| rounded(angle, 2));
            }
            Observed::Cosine => point.cosine = Some(rounded(self.mean_cosine(trainer)?, 3)),
        }
        Ok(point)
    }

    /// Of the last hidden layer's outputs. A diagnosis says it too, with much more that takes longer.
    fn mean_cosine(&mut self, trainer: &Trainer<f32>) -> Result<f64> {
        let network = trainer.network();
        network.forward(&self.some.inputs(), &mut self.activations)?;
        let h = self.activations.output(network.layer_count() - 2)?;
        Ok(mean_cosine(&h.map(f64::from)))
    }
}

/// Between the columns, over all pairs: with `s` the sum of the `N` columns brought to length 1,
/// `(‖s‖² − N) / (N (N − 1))`.
fn mean_cosine(h: &DMatrix<f64>) -> f64 {
    let count = h.ncols() as f64;
    let sum: DVector<f64> = h.column_iter().map(|column| column.normalize()).sum();
    (sum.norm_squared() - count) / (count * (count - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_cosine_is_that_of_all_pairs() {
        let h = DMatrix::from_fn(5, 7, |i, j| ((i * 3 + j * j) % 11) as f64 - 4.0);
        let mut cosines = Vec::new();
        for (index, one) in h.column_iter().enumerate() {
            for other in h.column_iter().skip(index + 1) {
                cosines.push(one.dot(&other) / one.norm() / other.norm());
            }
        }
        let expected = cosines.iter().sum::<f64>() / cosines.len() as f64;
        assert!((mean_cosine(&h) - expected).abs() < 1e-12);
        assert!((mean_cosine(&DMatrix::from_element(4, 6, 0.3)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn samples_come_in_the_order_that_a_source_has() {
        let of = |kind, round| order(kind, 10, 4, &mut stream(3, round));
        assert_eq!(of(Order::AsTheyCome, 1), (0..10).collect::<Vec<_>>());
        let (one, two) = (of(Order::Shuffled, 1), of(Order::Shuffled, 2));
        assert_ne!(one, two);
        let mut sorted = one;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        let drawn = of(Order::Drawn(50), 1);
        assert!(drawn.len() == 200 && drawn.iter().all(|&sample| sample < 10));
        assert_ne!(drawn, of(Order::Drawn(50), 2));
    }
}
