//! The digits, split as in the example `digits`.

use feedback_alignment::{Dataset, Result, Scaling};

/// 1,797 images of 8×8 pixels from 0 to 16, one after the other, and what they show; `digits.rs`
/// beside the manifest writes both.
const PIXELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pixels"));
const LABELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/labels"));

/// Pixels of an image.
pub const INPUTS: usize = 64;

/// Digits there are.
pub const CLASSES: usize = 10;

/// The pixel of a stroke that fills it.
const BLACK: f64 = 16.0;

/// Images that no training sees.
const HELD_OUT: usize = 500;

/// How many images angles are measured on: enough for a quiet curve, and a small part of an epoch.
const OBSERVED: usize = 256;

/// Which images are held out, whatever the seed of a run.
const SPLIT_SEED: u64 = 0;

/// Images to learn from, and others to test.
pub struct Digits {
    pub train: Dataset<f32>,
    pub test: Dataset<f32>,
    /// Those of the images to learn from on which angles are measured.
    pub observed: Dataset<f32>,
}

impl Digits {
    /// The digits with pixels from 0 to 1.
    pub fn new() -> Result<Self> {
        let labels = LABELS.iter().map(|&label| label.into()).collect();
        let all = Dataset::from_bytes(INPUTS, PIXELS.to_vec(), labels)?;
        // One divisor for all pixels: strokes of a visitor go where those of the file never do.
        let all = all.scaled(&Scaling::constant(0.0, BLACK)?)?;
        let (train, test) = all.split(HELD_OUT, SPLIT_SEED)?;
        let observed = train.subset(&(0..OBSERVED).collect::<Vec<_>>())?;
        Ok(Self { train, test, observed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_whole_and_split() {
        let digits = Digits::new().unwrap();
        assert_eq!((digits.train.len(), digits.test.len()), (1297, 500));
        assert_eq!((digits.train.features(), digits.train.classes()), (INPUTS, Some(CLASSES)));
        let pixels = digits.train.inputs();
        assert_eq!((pixels.min(), pixels.max()), (0.0, 1.0));
    }
}
