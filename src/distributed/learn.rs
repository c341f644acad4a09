//! Learning in the layers of one process: its part of stages 3 to 5.

use std::mem::swap;

use super::{
    group::Group,
    part::{Batch, Part},
    together::{agree, all},
};
use crate::{
    error::Result,
    scalar::{Scalar, kernel::Kernel},
    trainer::Trainer,
    workspace::{Activations, Deltas},
};

impl<T: Scalar, G: Group> Part<'_, T, G> {
    /// Stages 3 to 5 in the layers of this process. The hidden layers learn from the oldest batch, if
    /// its error is due. The output layer learns from the newest batch, if there is one. If `together`
    /// is set, either all processes make the step or none does.
    pub(super) fn learn(&mut self, with_newest: bool, together: bool) -> Result<()> {
        let due = self.under_way.len() > self.delay || !with_newest;
        let mut oldest = if due { self.under_way.pop_front() } else { None };
        // If no batch is due, only the output layer has something to learn.
        let mut batch =
            oldest.take().or_else(|| self.under_way.pop_back()).expect("a batch has been begun");
        let result = self.learn_from(&mut batch, due, with_newest, together);
        if due {
            self.spare.push(batch);
        } else {
            self.under_way.push_back(batch);
        }
        self.scattered = true;
        result
    }

    fn learn_from(
        &mut self,
        batch: &mut Batch<T>,
        due: bool,
        with_newest: bool,
        together: bool,
    ) -> Result<()> {
        if due {
            self.deliver(batch)?;
        } else {
            batch.deltas.begin_delivery();
        }
        let (output, mut newest) = (self.output(), None);
        batch.deltas.blocks[output].served = with_newest && self.own().contains(&output);
        if due && with_newest {
            newest = self.under_way.pop_back(); // `None` if the batch is itself the newest.
        }
        if let Some(newest) = &mut newest {
            swap_output(batch, newest);
        }
        let result = self.step(batch, together);
        if let Some(mut newest) = newest {
            swap_output(batch, &mut newest);
            self.under_way.push_back(newest);
        }
        result
    }

    /// Stage 3: this process's part of every hop.
    fn deliver(&mut self, batch: &mut Batch<T>) -> Result<()> {
        let Batch { activations, deltas, .. } = batch;
        self.trainer.feedback.follow(&self.trainer.network, activations)?;
        self.trainer.feedback.begin_delivery(activations, deltas)?;
        for index in 0..self.trainer.feedback.route().hops().len() {
            let route = self.trainer.feedback.route();
            let hop = route.hops()[index];
            let (from, to) = (self.owner(route.sender(hop)), self.owner(hop.to));
            let me = self.group.rank();
            if from == to || hop.through.is_straight() {
                if to == me {
                    let Trainer { network, feedback, threads, .. } = &self.trainer;
                    threads.run(network.work(activations.batch), || {
                        feedback.deliver_hops(index..index + 1, network, activations, deltas)
                    })?;
                }
            } else if from == me {
                self.send_hop(index, to, activations, deltas)?;
            } else if to == me {
                self.receive_hop(index, from, activations, deltas)?;
            }
        }
        Ok(())
    }

    /// Sends what a hop needs from this process. On the way down it is `M δ`, because the matrix is
    /// here. On the way up it is `δ`, because the matrix is there.
    fn send_hop(
        &self,
        index: usize,
        to: usize,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        let Trainer { network, feedback, threads, .. } = &self.trainer;
        let hop = feedback.route().hops()[index];
        let from = feedback.route().sender(hop);
        let end = if from > hop.to {
            threads.run(network.work(activations.batch), || feedback.bring(index, network, deltas));
            deltas.blocks[hop.to].end()
        } else {
            network.blocks[from].send_up(&activations.blocks[from], &mut deltas.blocks[from]);
            deltas.blocks[from].end()
        };
        self.group.send(to, Kernel::bytes(end.as_slice()))
    }

    /// Receives at this process what [`send_hop`](Self::send_hop) has sent.
    fn receive_hop(
        &self,
        index: usize,
        process: usize,
        activations: &Activations<T>,
        deltas: &mut Deltas<T>,
    ) -> Result<()> {
        let Trainer { network, feedback, .. } = &self.trainer;
        let hop = feedback.route().hops()[index];
        let from = feedback.route().sender(hop);
        if from > hop.to {
            let to = &mut deltas.blocks[hop.to];
            self.group.receive(process, Kernel::bytes_mut(to.arrival().as_mut_slice()))?;
            let parameters = network.parameters.layer(hop.to);
            network.blocks[hop.to].backward(parameters, &activations.blocks[hop.to], to);
            to.served = true;
            return Ok(());
        }
        let sender = &mut deltas.blocks[from];
        self.group.receive(process, Kernel::bytes_mut(sender.arrival().as_mut_slice()))?;
        sender.sent_up = true;
        feedback.deliver_hops(index..index + 1, network, activations, deltas)
    }

    /// Stages 4 and 5 in the layers that have something to learn.
    fn step(&mut self, batch: &Batch<T>, together: bool) -> Result<()> {
        let Batch { activations, deltas, .. } = batch;
        let Trainer { network, feedback, optimizer, threads, scratch, .. } = &mut self.trainer;
        let (gradients, learns) = (&mut scratch.gradients, feedback.learns());
        let work = network.work(activations.batch);
        if learns {
            threads.run(work, || network.gradients(activations, deltas, gradients))?;
        }
        // A process that steps without a copy could not go back if another process fails.
        let safe = !together
            || all(
                self.group,
                if learns {
                    optimizer.steps_safely(network, feedback, gradients).0
                } else {
                    optimizer.learns_safely(network, activations, deltas)
                },
            )?;
        let before = (!safe).then(|| (network.clone(), optimizer.clone(), feedback.clone()));
        let result = threads.run(work, || {
            if learns {
                optimizer.step_with_feedback(network, feedback, gradients)
            } else {
                optimizer.learn(network, activations, deltas)
            }
        });
        let Some(before) = before else { return result };
        let result = agree(self.group, result);
        if result.is_err() {
            (*network, *optimizer, *feedback) = before;
        }
        result
    }
}

/// Lets the output layer learn from another batch: swaps its input and its error.
fn swap_output<T>(one: &mut Batch<T>, other: &mut Batch<T>) {
    let output = one.deltas.blocks.len() - 1;
    swap(&mut one.activations.blocks[output - 1], &mut other.activations.blocks[output - 1]);
    let (e, other_e) = (&mut one.deltas.blocks[output], &mut other.deltas.blocks[output]);
    swap(&mut e.stages, &mut other_e.stages);
}
