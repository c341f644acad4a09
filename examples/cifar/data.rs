//! What the networks learn from.

use std::{
    io::{self, Write},
    path::Path,
};

use feedback_alignment::{
    Dataset, Scaling,
    data::cifar,
    nalgebra::DMatrix,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};

use crate::{
    common::{self, Result, Split},
    folders, pixels,
};

/// Mean and deviation of each channel of the training images, as BioTorch writes them down.
const MEAN: [f64; 3] = [0.4914, 0.4821, 0.4465];
const DEVIATION: [f64; 3] = [0.2470, 0.2435, 0.2616];

/// How images are prepared for a network.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// From 0 to 1.
    Pixels,
    /// Whitened (ZCA).
    Whitened,
    /// Each channel by its mean and deviation.
    Standardised,
}

/// Loads CIFAR-10.
pub fn cifar10(folder: &Path, prepared: Prepared) -> Result<Split> {
    let cifar::Cifar { train, test } =
        folders::load(folder, folders::CIFAR10, |it| cifar::load10_dir(it))?;
    match prepared {
        Prepared::Whitened => pixels::whiten(train, test),
        Prepared::Pixels => pixels::scale(train, test),
        Prepared::Standardised => {
            let plane = cifar::SHAPE.1 * cifar::SHAPE.2;
            let scaling = Scaling::per_channel(&MEAN, &DEVIATION, plane)?;
            Ok(Split { train: train.scaled(&scaling)?, test: test.scaled(&scaling)? })
        }
    }
}

/// The small digits.
pub fn digits() -> Result<Split> {
    let hint = "No --data DIR given: the small digits stand in for CIFAR-10 (see --help)";
    writeln!(io::stdout(), "{hint}")?;
    common::digits()
}

/// Noise with a pattern of its own for each of ten classes; a tenth of it to test.
pub fn synthetic(count: usize, seed: u64) -> Result<Split> {
    if count < 10 {
        return Err("--synthetic takes at least 10 images".into());
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let pixels = cifar::SHAPE.0 * cifar::SHAPE.1 * cifar::SHAPE.2;
    let labels: Vec<usize> = (0..count).map(|sample| sample % 10).collect();
    let x = DMatrix::from_fn(pixels, count, |pixel, sample| {
        // Waves over the plane, of another direction and length for each class.
        let (row, column) = (pixel / cifar::SHAPE.2 % cifar::SHAPE.1, pixel % cifar::SHAPE.2);
        let class = labels[sample] as f32;
        let wave = (row as f32 * (0.2 + 0.1 * class) + column as f32 * (1.1 - 0.1 * class)).sin();
        0.3 * wave + rng.random_range(-0.5_f32..0.5)
    });
    let (train, test) = Dataset::new(x, labels)?.split(count / 10, seed)?;
    Ok(Split { train, test })
}

/// The first so many images to learn from.
pub fn first(split: Split, count: usize) -> Result<Split> {
    let Split { train, test } = split;
    if !(1..=train.len()).contains(&count) {
        return Err(format!("--images takes from 1 to {} images here", train.len()).into());
    }
    let train = train.subset(&(0..count).collect::<Vec<_>>())?;
    Ok(Split { train, test })
}
