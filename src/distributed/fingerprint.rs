//! Hashes to check that all processes have the same numbers.

use super::{
    group::Group,
    together::{SIZE, agree, gather},
};
use crate::{
    adversarial::FastGradientSign,
    error::{Error, Result},
    network::Network,
    scalar::{Scalar, kernel::Kernel},
    trainer::Trainer,
};

/// A hash that tells whether two networks have exactly the same parameters and running statistics:
/// 64-bit FNV-1a (Fowler, Noll and Vo) over their bytes.
#[must_use]
pub fn fingerprint<T: Scalar>(network: &Network<T>) -> u64 {
    let parameters = network.parameters();
    parameters.slots().iter().fold(START, |hash, slot| {
        let numbers = &parameters.as_slice()[slot.range()];
        add(hash, Kernel::bytes(numbers))
    })
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Fails unless all processes have the same training run: network, feedback matrices, settings and
/// counters. Moments and the seeds of noise are not compared.
pub(super) fn require_same<T: Scalar>(group: &impl Group, trainer: &Trainer<T>) -> Result<()> {
    // If one process has no memory for it, the others do not wait for its hash.
    let hash = agree(group, hash_of(trainer))?;
    let reason = "all have to begin with the same network, feedback and settings";
    require_equal(group, "the trainer", hash, reason)
}

/// The hash of what [`require_same`] compares.
fn hash_of<T: Scalar>(trainer: &Trainer<T>) -> Result<u64> {
    let mut hash = add(START, &fingerprint(&trainer.network).to_ne_bytes());
    for matrix in trainer.feedback.matrices() {
        let (hop, matrix) = matrix?;
        hash = add(hash, hop.to_string().as_bytes());
        hash = add(hash, Kernel::bytes(matrix.as_slice()));
    }
    let optimizer = &trainer.optimizer;
    let rates: Vec<_> =
        (0..trainer.network.layer_count()).map(|layer| optimizer.rate_factor(layer).ok()).collect();
    let settings = format!(
        "{} {} {:?} {:?} {:?} {:?} {:?} {:?}",
        trainer.network,
        trainer.feedback.route(),
        (trainer.loss, &trainer.class_weights, trainer.stopping, trainer.augmentation),
        (trainer.batch_size, trainer.drop_last, trainer.seed, trainer.epochs),
        (optimizer.config(), optimizer.schedule(), optimizer.max_norm(), optimizer.steps()),
        (rates, optimizer.feedback_optimizer(), trainer.feedback.mirror()),
        trainer.adversarial.as_ref().map(FastGradientSign::epsilon),
        trainer.network.frozen().collect::<Vec<_>>(),
    );
    Ok(add(hash, settings.as_bytes()))
}

/// Fails unless `number` is the same on all processes.
pub(super) fn require_equal(
    group: &impl Group,
    what: &str,
    number: u64,
    reason: &'static str,
) -> Result<()> {
    let mut numbers = vec![number; group.size()];
    let bytes = bytemuck::cast_slice_mut(&mut numbers);
    gather(group, |rank| rank * SIZE..(rank + 1) * SIZE, bytes)?;
    match numbers.iter().position(|&other| other != numbers[0]) {
        None => Ok(()),
        Some(process) => Err(Error::Conflict {
            first: format!("{what} of process 0"),
            second: format!("that of process {process}"),
            reason,
        }),
    }
}
