//! The interface to processes that work together. The rest of this folder knows nothing else of them.

use crate::error::{Error, Result};

/// Processes that work together, as seen by one of them. Messages between two processes arrive in the
/// order in which they were sent.
pub trait Group {
    /// The number of this process, counted from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn size(&self) -> usize;

    /// Sends a message. It may wait until the other side receives.
    ///
    /// # Errors
    /// [`Error::Process`] if the other process is gone.
    fn send(&self, to: usize, message: &[u8]) -> Result<()>;

    /// Waits for the next message from process `from`, which has to have the length of `message`.
    ///
    /// # Errors
    /// [`Error::Process`] if the other process is gone, or has sent another number of bytes.
    fn receive(&self, from: usize, message: &mut [u8]) -> Result<()>;

    /// Sends a message to process `other` and receives one from it, both at once.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`receive`](Self::receive).
    fn exchange(&self, other: usize, message: &[u8], answer: &mut [u8]) -> Result<()>;
}

impl<G: Group> Group for &G {
    fn rank(&self) -> usize {
        (*self).rank()
    }

    fn size(&self) -> usize {
        (*self).size()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        (*self).send(to, message)
    }

    fn receive(&self, from: usize, message: &mut [u8]) -> Result<()> {
        (*self).receive(from, message)
    }

    fn exchange(&self, other: usize, message: &[u8], answer: &mut [u8]) -> Result<()> {
        (*self).exchange(other, message, answer)
    }
}

/// Fails unless a message has the expected length.
pub(super) fn require_length(from: usize, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let message = format!("sent {found} bytes where {expected} were expected");
    Err(Error::Process { process: from, message })
}
