//! Counting what a process sends.

use std::cell::Cell;

use super::group::Group;
use crate::error::Result;

/// The amount that a process has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of messages.
    pub messages: u64,
    /// The bytes in these messages, without what the network protocol adds.
    pub bytes: u64,
}

/// A [`Group`] that counts what this process sends.
#[derive(Debug)]
pub struct Counted<G> {
    group: G,
    traffic: Cell<Traffic>,
}

impl<G: Group> Counted<G> {
    /// Starts counting at 0.
    pub fn new(group: G) -> Self {
        Self { group, traffic: Cell::default() }
    }

    /// What has been sent since the beginning.
    pub fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    fn count(&self, message: &[u8]) {
        let Traffic { messages, bytes } = self.traffic.get();
        let bytes = bytes + message.len() as u64;
        self.traffic.set(Traffic { messages: messages + 1, bytes });
    }
}

impl<G: Group> Group for Counted<G> {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        self.count(message);
        self.group.send(to, message)
    }

    fn receive(&self, from: usize, message: &mut [u8]) -> Result<()> {
        self.group.receive(from, message)
    }

    fn exchange(&self, other: usize, message: &[u8], answer: &mut [u8]) -> Result<()> {
        self.count(message);
        self.group.exchange(other, message, answer)
    }
}
