//! Processes that work together: all that the rest of this folder knows of them.

use crate::error::{Error, Result};

/// Some processes that work together, as one of them sees it. Messages between two of them arrive in
/// the order in which they were sent.
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

    /// Waits for the next message from process `from`, which has to have this length.
    ///
    /// # Errors
    /// [`Error::Process`] if the other process is gone, or has sent another number of bytes.
    fn receive(&self, from: usize, message: &mut [u8]) -> Result<()>;

    /// Sends a message to process `other` and receives one from it, both at once.
    ///
    /// # Errors
    /// As for [`send`](Self::send) and [`receive`](Self::receive).
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

/// Fails unless a message has the length that was expected of it.
pub(super) fn require_length(from: usize, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let message = format!("sent {found} bytes where {expected} were expected");
    Err(Error::Process { process: from, message })
}
