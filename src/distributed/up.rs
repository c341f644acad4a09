//! The activations that go up from process to process.

use super::{group::Group, part::Part};
use crate::scalar::{Scalar, kernel::Kernel};

/// What comes before the activations in a message: whether all is well below, and an upper bound of all
/// `|a|`.
type Head = [f64; 2];

const HEAD: usize = size_of::<Head>();

/// The bytes that process `rank` passes up for this many samples.
pub(super) fn up_len<T: Scalar, G: Group>(part: &Part<T, G>, rank: usize, samples: usize) -> usize {
    HEAD + part.leaving_len(rank) * samples * size_of::<T>()
}

/// The message of a process that has passed the newest batch through its layers, or has failed to do
/// so.
pub(super) fn write_up<T: Scalar, G: Group>(
    part: &mut Part<T, G>,
    length: usize,
    fine: bool,
) -> Vec<u8> {
    let mut message = vec![0; length];
    if fine {
        let (numbers, bound) = if length > HEAD { part.leaving() } else { (&[][..], 0.0) };
        message[..HEAD].copy_from_slice(bytemuck::bytes_of(&[1.0, bound]));
        message[HEAD..].copy_from_slice(Kernel::bytes(numbers));
    }
    message
}

/// Reads such a message into the input of this process's layers, if there is `room`. Returns whether
/// all is well below.
pub(super) fn read_up<T: Scalar, G: Group>(
    part: &mut Part<T, G>,
    message: &[u8],
    room: bool,
) -> bool {
    let [fine, bound]: Head = bytemuck::pod_read_unaligned(&message[..HEAD]);
    if room && fine > 0.0 && message.len() > HEAD {
        Kernel::bytes_mut(part.entering_mut(bound)).copy_from_slice(&message[HEAD..]);
    }
    fine > 0.0
}
