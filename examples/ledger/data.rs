//! What the sources learned from.

use std::path::Path;

use feedback_alignment::{
    Dataset, Scaling,
    data::{cifar, idx},
    nalgebra::DMatrix,
};

use crate::{
    common::{self, Result, Split},
    folders::{self, CIFAR10, MNIST},
    lines::STAND_IN,
};

/// A task of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Mnist,
    /// The first 12,000 training images, all test images.
    MnistStart,
    /// The first 50,000 training images; 2,048 of the others, drawn by the seed, are the judges.
    MnistHeldOut,
    /// MNIST at 32×32, standardised.
    Mnist32,
    Cifar10,
}

impl Task {
    /// What the lines call it, and the samples: pixels are from 0 to 1 unless said otherwise. Without
    /// a folder the small digits stand in for MNIST.
    pub fn load(self, folder: Option<&Path>, seed: u64) -> Result<(&'static str, Split)> {
        let images = matches!(self, Self::Mnist32 | Self::Cifar10);
        let (name, split) = match folder {
            None if images => {
                let hint = if self == Self::Cifar10 { CIFAR10 } else { MNIST };
                let message =
                    format!("this row needs larger images than the small digits\n\n{hint}");
                return Err(message.into());
            }
            None => (STAND_IN, common::digits()?),
            Some(folder) if self == Self::Cifar10 => {
                let cifar::Cifar { train, test } =
                    folders::load(folder, CIFAR10, |it| cifar::load10_dir(it))?;
                ("CIFAR-10", Split { train, test })
            }
            Some(folder) => {
                let idx::Mnist { train, test } =
                    folders::load(folder, MNIST, |it| idx::load_dir(it))?;
                ("MNIST", Split { train, test })
            }
        };
        let Split { train, test } = split;
        let count = train.len();
        let split = match self {
            Self::Mnist => Split { train, test },
            Self::MnistStart => Split { train: part(&train, 0, count.min(12_000))?, test },
            Self::MnistHeldOut => {
                let learned = count / 6 * 5;
                let (_, judges) =
                    part(&train, learned, count)?.split(2048.min(count - learned - 1), seed)?;
                Split { train: part(&train, 0, learned)?, test: judges }
            }
            Self::Mnist32 => {
                let scaling = Scaling::constant(0.1307, 0.3081)?;
                Split {
                    train: enlarged(&train)?.scaled(&scaling)?,
                    test: enlarged(&test)?.scaled(&scaling)?,
                }
            }
            Self::Cifar10 => {
                let scaling = Scaling::constant(0.5, 0.5)?;
                Split { train: train.scaled(&scaling)?, test: test.scaled(&scaling)? }
            }
        };
        Ok((name, split))
    }
}

/// The samples from `start` up to `end`.
fn part(data: &Dataset<f32>, start: usize, end: usize) -> Result<Dataset<f32>> {
    Ok(data.subset(&(start..end).collect::<Vec<_>>())?)
}

/// Images of 28×28 brought to 32×32 by linear interpolation, in both directions.
fn enlarged(data: &Dataset<f32>) -> Result<Dataset<f32>> {
    const FROM: usize = 28;
    const TO: usize = 32;
    /// The two pixels next to a place, and the share of the second; beyond the edge is the edge.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A place within an image.
    fn neighbours(place: usize) -> (usize, usize, f32) {
        let from = (place as f32 + 0.5) * FROM as f32 / TO as f32 - 0.5;
        let from = from.clamp(0.0, (FROM - 1) as f32);
        let first = from as usize;
        (first, (first + 1).min(FROM - 1), from - first as f32)
    }
    let labels = data.labels().ok_or("no labels")?;
    let from = data.inputs();
    let mut to = DMatrix::zeros(TO * TO, data.len());
    for (from, mut to) in from.column_iter().zip(to.column_iter_mut()) {
        for row in 0..TO {
            let (above, below, down) = neighbours(row);
            for column in 0..TO {
                let (left, right, across) = neighbours(column);
                let line = |row: usize| {
                    let (l, r) = (from[row * FROM + left], from[row * FROM + right]);
                    l + across * (r - l)
                };
                to[row * TO + column] = line(above) + down * (line(below) - line(above));
            }
        }
    }
    Ok(Dataset::new(to, labels.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// import numpy as np
    /// from PIL import Image
    /// r, c = np.mgrid[0:28, 0:28]
    /// x = ((7*r*r + 13*c + 3*r*c) % 251).astype(np.float32)
    /// y = np.asarray(Image.fromarray(x, mode="F").resize((32, 32), Image.BILINEAR))
    /// [y[p] for p in [(0, 0), (0, 31), (31, 0), (31, 31), (5, 9), (16, 16), (30, 2)]], y.sum(dtype=float)
    /// ```
    #[test]
    fn images_are_enlarged_as_by_pillow() {
        let pixel = |r: usize, c: usize| ((7 * r * r + 13 * c + 3 * r * c) % 251) as f32;
        let x = DMatrix::from_fn(28 * 28, 2, |place, _| pixel(place / 28, place % 28));
        let y = enlarged(&Dataset::new(x, vec![0, 1]).unwrap()).unwrap().inputs();
        for (row, column, expected) in [
            (0, 0, 0.0),
            (0, 31, 100.0),
            (31, 0, 83.0),
            (31, 31, 111.0),
            (5, 9, 83.324_22),
            (16, 16, 131.824_22),
            (30, 2, 107.656_25),
        ] {
            assert!((y[(row * 32 + column, 1)] - expected).abs() < 1e-4, "{row}, {column}");
        }
        let sum: f64 = y.column(1).iter().map(|&value| f64::from(value)).sum();
        assert!((sum - 125_300.125).abs() < 0.01, "{sum}");
    }
}
