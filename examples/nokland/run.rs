//! Trains one row under one rule from one seed, or goes on where an earlier run was interrupted.

use feedback_alignment::{Diagnostics, Error, FeedbackRule, Trainer};
use indicatif::ProgressBar;

use crate::{
    Args,
    common::Result,
    data::Data,
    lines::{End, Writer},
    record::{Header, Point, Record},
    rows::Row,
};

/// A run does not converge if its loss overflows, or if after so many epochs it is hardly better than
/// guessing, which puts 90 % of ten classes and 99 % of a hundred into the wrong one.
const ENOUGH: u64 = 20;

/// By how many percent it has to be better.
const BETTER: f64 = 10.0;

/// Images over which angles are measured, the first of those to learn from.
const OBSERVED: usize = 1000;

/// Runs, or finds that it has been run, and returns the record; nothing if another process is at it.
pub fn run(
    args: &Args,
    row: &Row,
    rule: FeedbackRule,
    seed: u64,
    data: &Data,
) -> Result<Option<Record>> {
    let freezes = args.freeze_first > 0;
    let trainer = row.trainer(data.input, data.classes, rule, freezes, seed)?;
    let header = Header {
        table: row.table,
        row: row.name.into(),
        rule: rule.to_string(),
        seed,
        data: data.name.into(),
        frozen: args.freeze_first,
        parameters: trainer.network().parameter_count(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let record = header.record(&args.out);
    let Some(_claim) = record.claim()? else { return Ok(None) };
    let (mut record, mut trainer) = resume(record, trainer)?;
    let limit = args.epochs();
    let finished = match record.end {
        Some(End::Epochs) => trainer.epochs() >= limit,
        Some(End::Stopped | End::DoesNotConverge) => true,
        None => false,
    };
    if finished || record.points.last().is_some_and(|last| last.epoch >= limit) {
        let (path, first) = (record.path().display(), record.points.first());
        if args.angles && first.is_some_and(|point| point.angles.is_none()) {
            eprintln!("{path} is a finished run without angles");
        }
        if args.clean && first.is_some_and(|point| point.clean_train_error.is_none()) {
            eprintln!("{path} is a finished run without clean training errors");
        }
        return Ok(Some(shortened(record, limit)));
    }
    record.require_checkpoint()?;
    record.end = None;
    let mut writer = record.begin(|path| trainer.save(path))?;
    let bar = crate::common::progress(limit)?.with_message(format!("{} {rule}", row.name));
    bar.set_position(trainer.epochs());
    bar.reset_eta();
    let result = go_on(&mut trainer, &mut record, &mut writer, data, args, &bar);
    bar.finish_and_clear();
    let end = result?;
    writer.end(end)?;
    record.end = Some(end);
    Ok(Some(record))
}

/// What an earlier run left: lines up to its last checkpoint, and the checkpoint. Lines that it
/// wrote later are forgotten; they will be written again.
fn resume(fresh: Record, trainer: Trainer<f32>) -> Result<(Record, Trainer<f32>)> {
    let Some(mut record) = fresh.earlier()? else { return Ok((fresh, trainer)) };
    if record.end == Some(End::DoesNotConverge) {
        return Ok((record, trainer));
    }
    if !fresh.checkpoint().exists() {
        return Ok((record, trainer)); // The caller asks for the checkpoint if there is more to do.
    }
    let trainer = Trainer::load(fresh.checkpoint())?;
    let epochs = trainer.epochs();
    if record.points.last().map_or(0, |last| last.epoch) < epochs {
        let path = fresh.checkpoint();
        let message = format!("{} is of epoch {epochs}, its lines end earlier", path.display());
        return Err(message.into());
    }
    if record.points.last().is_some_and(|last| last.epoch > epochs) {
        record.points.retain(|point| point.epoch <= epochs);
        record.end = None;
    }
    Ok((record, trainer))
}

/// The first epochs of a run that was longer: they are those of a shorter one, to the bit.
fn shortened(mut record: Record, limit: u64) -> Record {
    let made = record.points.last().map_or(0, |last| last.epoch);
    if made > limit {
        record.points.retain(|point| point.epoch <= limit);
        record.end = Some(End::Epochs);
        let path = record.path().display();
        eprintln!("{path} has {made} epochs: these are its first {limit}");
    }
    record
}

/// Epoch after epoch until there is a reason to end.
fn go_on(
    trainer: &mut Trainer<f32>,
    record: &mut Record,
    writer: &mut Writer,
    data: &Data,
    args: &Args,
    bar: &ProgressBar,
) -> Result<End> {
    let observed: Vec<usize> = (0..OBSERVED.min(data.split.train.len())).collect();
    let observed = data.split.train.subset(&observed)?;
    let x = observed.inputs();
    let mut diagnostics = Diagnostics::new(trainer.network())?;
    loop {
        // The first layer is frozen while the epoch that begins is one of the first so many.
        if trainer.epochs() < args.freeze_first {
            trainer.freeze(0)?;
        } else {
            trainer.release(0)?;
        }
        let epoch = match trainer.epoch(&data.split.train) {
            Ok(epoch) => epoch,
            Err(Error::NonFiniteLoss { .. } | Error::NonFinite { .. }) => {
                return Ok(End::DoesNotConverge);
            }
            Err(error) => return Err(error.into()),
        };
        let test = trainer.evaluate(&data.split.test)?;
        let percent = |rate: Option<f64>| rate.map(|rate| 100.0 * rate).ok_or("no labels");
        let mut point = Point {
            epoch: epoch.number,
            train_loss: epoch.loss,
            train_error: percent(epoch.error_rate)?,
            test_loss: test.loss,
            test_error: percent(test.error_rate)?,
            clean_train_error: None,
            angles: None,
        };
        if args.clean {
            let clean = trainer.evaluate(&data.split.train)?;
            point.clean_train_error = Some(percent(clean.error_rate)?);
        }
        if args.angles {
            let diagnosis = diagnostics.observe(trainer, &x, observed.targets())?;
            let angles = diagnosis.hidden().iter().map(|layer| layer.delta_angle);
            point.angles = Some(angles.collect());
        }
        writer.line(&point)?;
        bar.set_position(epoch.number);
        bar.set_message(format!(
            "{} {}: test error {:.2} %, training {:.2} %,",
            record.header.row, record.header.rule, point.test_error, point.train_error
        ));
        let guessing = 100.0 - 100.0 / data.classes as f64;
        let diverged = point.epoch >= ENOUGH && point.test_error > guessing - BETTER;
        record.points.push(point);
        let end = if diverged {
            Some(End::DoesNotConverge)
        } else if trainer.is_finished() {
            Some(End::Stopped)
        } else if epoch.number >= args.epochs() {
            Some(End::Epochs)
        } else {
            None
        };
        if end.is_some() || epoch.number.is_multiple_of(args.save_every) {
            trainer.save(record.checkpoint())?;
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use feedback_alignment::Network;

    use super::*;

    fn record(folder: &Path, epochs: u64, end: Option<End>) -> Record {
        let header = Header {
            table: 1,
            row: "1x800-tanh".into(),
            rule: "BP".into(),
            seed: 0,
            data: "MNIST".into(),
            frozen: 0,
            parameters: 1,
            version: "0".into(),
        };
        let mut record = header.record(folder);
        record.points = (1..=epochs)
            .map(|epoch| Point {
                epoch,
                train_loss: 1.0,
                train_error: 1.0,
                test_loss: 1.0,
                test_error: epoch as f64,
                clean_train_error: None,
                angles: None,
            })
            .collect();
        record.end = end;
        record
    }

    /// They could not go on, and are not written over.
    #[test]
    fn lines_without_a_checkpoint_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let trainer = || {
            let network = Network::builder(2).dense(2).build().unwrap();
            Trainer::builder(network).build().unwrap()
        };
        let begun = record(folder.path(), 3, None);
        begun.rewrite().unwrap();
        let (kept, _) = resume(record(folder.path(), 0, None), trainer()).unwrap();
        assert_eq!(kept.points, begun.points);
        assert!(kept.require_checkpoint().is_err());
    }

    #[test]
    fn a_run_begins_with_a_checkpoint_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let trainer = |seed| {
            let network = Network::builder(2).dense(2).seed(seed).build().unwrap();
            Trainer::builder(network).build().unwrap()
        };
        let fresh = record(folder.path(), 0, None);
        trainer(1).save(fresh.checkpoint()).unwrap(); // Of a run whose lines somebody removed.
        fresh.begin(|path| trainer(2).save(path)).unwrap();
        // It is killed after three epochs, without another checkpoint.
        record(folder.path(), 3, None).rewrite().unwrap();
        let (again, resumed) = resume(record(folder.path(), 0, None), trainer(3)).unwrap();
        assert_eq!((again.points.len(), resumed.epochs()), (0, 0));
        assert_eq!(resumed.network(), trainer(2).network());
        // A run that did not converge is over, whatever its checkpoint.
        let mut lines = record(folder.path(), 3, None).rewrite().unwrap();
        lines.end(End::DoesNotConverge).unwrap();
        let (over, _) = resume(record(folder.path(), 0, None), trainer(3)).unwrap();
        assert_eq!((over.points.len(), over.end), (3, Some(End::DoesNotConverge)));
    }

    #[test]
    fn a_shorter_run_is_the_beginning_of_a_longer_one() {
        for end in [End::Stopped, End::Epochs, End::DoesNotConverge] {
            let whole = || record(Path::new("nowhere"), 40, Some(end));
            let short = shortened(whole(), 3);
            assert_eq!((short.points.len(), short.end), (3, Some(End::Epochs)));
            assert_eq!(short.points, whole().points[..3]);
            let whole = shortened(whole(), 40);
            assert_eq!((whole.points.len(), whole.end), (40, Some(end)));
        }
    }
}
