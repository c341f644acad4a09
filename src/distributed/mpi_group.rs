//! The processes that `mpirun` has started. No other file uses the crate `mpi`.

use std::{iter::StepBy, ops::Range, thread};

use mpi::{
    Threading,
    environment::Universe,
    point_to_point::send_receive_into,
    topology::SimpleCommunicator,
    traits::{Communicator, Destination, Source},
};

use super::group::{Group, require_length};
use crate::error::{Error, Result};

/// The processes that `mpirun` has started. A program that runs without it is a group of one process.
/// Only one thread of a process may use the group.
///
/// If a process is killed, panics, or ends without the others, MPI ends the whole job with an error
/// within seconds. Files that were written before, such as the last checkpoint, stay intact.
pub struct MpiGroup {
    world: SimpleCommunicator,
    /// Has to be dropped last, because dropping it says goodbye to the other processes.
    _universe: Universe,
}

impl MpiGroup {
    /// Joins the processes of this job. A process can do this only once.
    ///
    /// # Errors
    /// [`Error::Process`] if MPI has been started before.
    pub fn join() -> Result<Self> {
        // Only one thread calls MPI, because a group cannot be sent to another thread.
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, _) = started.ok_or_else(|| Error::Process {
            process: 0,
            message: "has joined its group already, which can be done once".into(),
        })?;
        Ok(Self { world: universe.world(), _universe: universe })
    }

    /// Ends all processes at once, with an error.
    pub fn abort(&self) -> ! {
        self.world.abort(1)
    }

    /// MPI's number of a process.
    fn number(process: usize) -> i32 {
        i32::try_from(process).expect("MPI counts processes by numbers of this type")
    }
}

impl Drop for MpiGroup {
    /// If a process panics, the others would wait for it for ever, so it ends the job.
    fn drop(&mut self) {
        if thread::panicking() {
            self.abort();
        }
    }
}

impl Group for MpiGroup {
    fn rank(&self) -> usize {
        usize::try_from(self.world.rank()).unwrap_or(0)
    }

    fn size(&self) -> usize {
        usize::try_from(self.world.size()).unwrap_or(1)
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        let process = self.world.process_at_rank(Self::number(to));
        pieces(message.len()).for_each(|start| process.send(&message[piece(start, message.len())]));
        Ok(())
    }

    fn receive(&self, from: usize, message: &mut [u8]) -> Result<()> {
        let process = self.world.process_at_rank(Self::number(from));
        pieces(message.len()).try_for_each(|start| {
            let place = piece(start, message.len());
            let message = &mut message[place];
            let status = process.receive_into(message);
            require_received(from, message.len(), &status)
        })
    }

    fn exchange(&self, other: usize, message: &[u8], answer: &mut [u8]) -> Result<()> {
        let process = self.world.process_at_rank(Self::number(other));
        // Both sides know both lengths. Beyond the end of the shorter one its pieces are empty.
        pieces(message.len().max(answer.len())).try_for_each(|start| {
            let message = &message[piece(start, message.len())];
            let place = piece(start, answer.len());
            let answer = &mut answer[place];
            let status = send_receive_into(message, &process, answer, &process);
            require_received(other, answer.len(), &status)
        })
    }
}

/// MPI counts the bytes of a message in 31 bits, so longer ones go in pieces of this many.
const PIECE: usize = 1 << 30;

/// Where the pieces of a message begin. An empty message is one empty piece.
fn pieces(length: usize) -> StepBy<Range<usize>> {
    (0..length.max(1)).step_by(PIECE)
}

/// The piece that begins at `start`, of a message of `length` bytes.
fn piece(start: usize, length: usize) -> Range<usize> {
    start.min(length)..start.saturating_add(PIECE).min(length)
}

fn require_received(
    from: usize,
    expected: usize,
    status: &mpi::point_to_point::Status,
) -> Result<()> {
    let found = status.count(<u8 as mpi::traits::Equivalence>::equivalent_datatype());
    require_length(from, expected, usize::try_from(found).unwrap_or(0))
}
