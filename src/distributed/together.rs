//! Communication in which all processes of a group take part.

use std::ops::Range;

use super::group::Group;
use crate::error::{Error, Result};

/// Gives all processes the message of process `root`.
pub(super) fn broadcast(group: &impl Group, root: usize, message: &mut [u8]) -> Result<()> {
    let (size, place) = (group.size(), (group.rank() + group.size() - root) % group.size());
    let process = |place: usize| (place + root) % size;
    // The first `have` processes have the message, and as many others get it next.
    let mut have = 1;
    while have < size {
        if place < have && place + have < size {
            group.send(process(place + have), message)?;
        } else if (have..2 * have).contains(&place) {
            group.receive(process(place - have), message)?;
        }
        have *= 2;
    }
    Ok(())
}

/// Gives all processes the whole message. Each process has one part of it. The parts are neighbouring
/// ranges, in the order of the processes.
pub(super) fn gather(
    group: &impl Group,
    part: impl Fn(usize) -> Range<usize>,
    message: &mut [u8],
) -> Result<()> {
    match group.rank() {
        0 => {
            (1..group.size()).try_for_each(|from| group.receive(from, &mut message[part(from)]))?;
        }
        rank => group.send(0, &message[part(rank)])?,
    }
    broadcast(group, 0, message)
}

/// Bytes of a `u64`.
pub(super) const SIZE: usize = size_of::<u64>();

/// Whether all processes say yes.
pub(super) fn all(group: &impl Group, yes: bool) -> Result<bool> {
    let mut answers = vec![1; group.size()];
    answers[group.rank()] = u8::from(yes);
    gather(group, |rank| rank..rank + 1, &mut answers)?;
    Ok(answers.iter().all(|&yes| yes == 1))
}

/// Makes an error of one process an error of all. Returns the process's own error, or else that of the
/// first process that has one. All processes have to call it. So nobody waits for a process that has
/// given up.
///
/// ```
/// use feedback_alignment::{Error, distributed::{Group, LocalGroup, agree}};
///
/// let messages = LocalGroup::run(2, |group| {
///     let own = if group.rank() == 1 { Err(Error::NoWeightedLayer) } else { Ok(5) };
///     agree(group, own).unwrap_err().to_string()
/// });
/// assert!(messages[0].starts_with("process 1: the network has no weighted layer"));
/// assert!(messages[1].starts_with("the network has no weighted layer"));
/// ```
///
/// # Errors
/// The process's own error, or [`Error::Process`] with that of another.
pub fn agree<R>(group: &impl Group, own: Result<R>) -> Result<R> {
    let text = own.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let mut lengths = vec![0; group.size()];
    // The length is stored plus 1, so that 0 means success.
    lengths[group.rank()] = if own.is_err() { text.len() as u64 + 1 } else { 0 };
    let bytes = bytemuck::cast_slice_mut(&mut lengths);
    gather(group, |rank| rank * SIZE..(rank + 1) * SIZE, bytes)?;
    let Some(process) = lengths.iter().position(|&length| length > 0) else { return own };
    let length = usize::try_from(lengths[process] - 1).unwrap_or(0);
    let mut message = if group.rank() == process { text.into_bytes() } else { vec![0; length] };
    broadcast(group, process, &mut message)?;
    own.and_then(|_| {
        let message = String::from_utf8_lossy(&message).into_owned();
        Err(Error::Process { process, message })
    })
}
