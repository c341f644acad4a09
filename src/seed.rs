//! Random numbers: from one seed, a separate stream for every purpose.
//!
//! A stream is chosen by purpose, index and time. So nothing depends on the order in which things are
//! drawn, and a training run has no generator state to save.

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

/// The purpose of a stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Initial weights and biases; index: the weighted layer.
    Weights = 1,
    /// Feedback matrices; index: the hidden block, time: the number of the matrix among those of this
    /// block.
    Feedback = 2,
    /// Order of the samples; time: the epoch.
    Shuffle = 3,
    /// Train/validation split.
    Split = 4,
    /// Dropout masks; index: the operation, time: the step.
    Dropout = 5,
    /// Flips and crops of images; index: the sample; time: the epoch.
    Augmentation = 6,
    /// The entries that a gradient check compares; index: the tensor.
    GradientCheck = 7,
    /// Magnitudes of feedback matrices that are drawn anew in every step; index: the hop and the chunk
    /// of its matrix, time: the step.
    Magnitudes = 8,
    /// The feedback matrix that hops share.
    SharedFeedback = 9,
    /// The noise through a layer from which its mirror learns; index: the hop, time: the batch of
    /// noise.
    Mirror = 10,
    /// Noise in the hidden layers from which feedback learns the slopes of the outputs; index: the hidden
    /// block, time: the step.
    Slopes = 11,
}

/// The stream of `seed` for one purpose, index and time. The generator is xoshiro256++ (Blackman and
/// Vigna 2019), the same on every platform.
pub(crate) fn stream(seed: u64, purpose: Purpose, index: u64, time: u64) -> Xoshiro256PlusPlus {
    let key =
        [purpose as u64, index, time].into_iter().fold(mix(seed), |key, part| mix(key ^ part));
    Xoshiro256PlusPlus::seed_from_u64(key)
}

/// The seed of the dropout masks of one shard of a batch. The first shard has the seed itself, so a
/// batch in one shard has the usual masks.
#[cfg(feature = "mpi")]
pub(crate) fn of_shard(seed: u64, shard: usize) -> u64 {
    if shard == 0 { seed } else { mix(mix(seed) ^ shard as u64) }
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014). It is a bijection, and any change of the input
/// flips each output bit with a probability of about one half.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::Rng;

    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_key() {
        let mut firsts = HashSet::new();
        for seed in 0..5 {
            for purpose in [
                Purpose::Weights,
                Purpose::Feedback,
                Purpose::Shuffle,
                Purpose::Split,
                Purpose::Augmentation,
            ] {
                for index in 0..5 {
                    for time in 0..5 {
                        firsts.insert(stream(seed, purpose, index, time).next_u64());
                    }
                }
            }
        }
        assert_eq!(firsts.len(), 5 * 5 * 5 * 5);
    }

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of the published splitmix64.c from states 0 and 1234567.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }
}
