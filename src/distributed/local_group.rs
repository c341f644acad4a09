//! A group whose processes are threads of one program.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::group::{Group, require_length};
use crate::error::{Error, Result};

/// A [`Group`] whose processes are threads of one program, for trials and tests. (To use the cores of
/// one machine, [`TrainerBuilder::threads`](crate::TrainerBuilder::threads) is simpler.)
#[derive(Debug)]
pub struct LocalGroup {
    rank: usize,
    /// To each thread of the group, and from each.
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl LocalGroup {
    /// Runs `work` on `size` threads, each with its member of the group. Returns the results in the
    /// order of the ranks.
    ///
    /// # Panics
    /// If `work` panics on one of them.
    pub fn run<R: Send>(size: usize, work: impl Fn(&Self) -> R + Sync) -> Vec<R> {
        let work = &work;
        thread::scope(|scope| {
            let members = Self::members(size).into_iter();
            let threads: Vec<_> =
                members.map(|member| scope.spawn(move || work(&member))).collect();
            let results = threads.into_iter().map(thread::ScopedJoinHandle::join);
            results.map(|result| result.expect("the work of every member ends")).collect()
        })
    }

    fn members(size: usize) -> Vec<Self> {
        let new = |rank| Self { rank, to: Vec::new(), from: Vec::new() };
        let mut members: Vec<_> = (0..size).map(new).collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = channel();
                members[from].to.push(sender);
                members[to].from.push(receiver);
            }
        }
        members
    }

    fn gone(other: usize) -> Error {
        Error::Process { process: other, message: "is gone".into() }
    }
}

impl Group for LocalGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<()> {
        self.to[to].send(message.to_vec()).map_err(|_| Self::gone(to))
    }

    fn receive(&self, from: usize, message: &mut [u8]) -> Result<()> {
        let received = self.from[from].recv().map_err(|_| Self::gone(from))?;
        require_length(from, message.len(), received.len())?;
        message.copy_from_slice(&received);
        Ok(())
    }

    fn exchange(&self, other: usize, message: &[u8], answer: &mut [u8]) -> Result<()> {
        self.send(other, message)?;
        self.receive(other, answer)
    }
}
