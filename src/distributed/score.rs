//! Messages with the loss and the errors of steps.

use std::ops::Range;

use super::{group::Group, together::gather};
use crate::{
    error::{Error, Result},
    trainer::Step,
};

/// A step as four numbers; all NaN if the step failed.
type Row = [f64; 4];

/// Bytes of a row.
pub(super) const ROW: usize = size_of::<Row>();

/// Stands for an unknown number of errors, if targets are not classes.
const UNKNOWN: f64 = -1.0;

pub(super) fn row(step: Option<&Step>) -> Row {
    let Some(step) = step else { return [f64::NAN; 4] };
    // Both are counts far below 2⁵³.
    let errors = step.errors.map_or(UNKNOWN, |errors| errors as f64);
    [step.loss, step.weight, step.samples as f64, errors]
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // They were counts before.
pub(super) fn step([loss, weight, samples, errors]: Row) -> Option<Step> {
    let errors = (errors != UNKNOWN).then_some(errors as usize);
    (!samples.is_nan()).then_some(Step { loss, weight, samples: samples as usize, errors })
}

/// Gives all processes all steps. Each process has made some of them. `None` if one of the steps
/// failed.
pub(super) fn gather_steps(
    group: &impl Group,
    part: impl Fn(usize) -> Range<usize>,
    count: usize,
    own: &Result<Vec<Step>>,
) -> Result<Option<Vec<Step>>> {
    let mut rows = vec![row(None); count];
    if let Ok(own) = own {
        let to = &mut rows[part(group.rank())];
        to.iter_mut().zip(own).for_each(|(to, own)| *to = row(Some(own)));
    }
    let bytes = bytemuck::cast_slice_mut(&mut rows);
    let bytes_of = |process| part(process).start * ROW..part(process).end * ROW;
    gather(group, bytes_of, bytes)?;
    Ok(rows.into_iter().map(step).collect())
}

/// The error on a process that did not fail itself, while another did.
pub(super) fn failed_elsewhere() -> Error {
    Error::Process { process: 0, message: "another process has failed".into() }
}
