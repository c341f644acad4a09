//! Real handwritten digits with nothing to download: `smartcore` carries them.

use feedback_alignment::{Dataset, Scaling, nalgebra::DMatrix};
use smartcore::dataset::digits::load_dataset;

use super::{Result, Split};

/// Test samples that no training sees.
const HELD_OUT: usize = 500;

/// Which samples these are. Fixed, so that results can be compared whatever else is drawn anew;
/// shuffled, since the last digits of the file come from writers that the others do not.
const SPLIT_SEED: u64 = 0;

/// The UCI handwritten digits: 1,797 images of 8×8 pixels, brought into the range from 0 to 1.
pub fn digits() -> Result<Split> {
    let file = load_dataset();
    // One image after the other in memory is one image a column.
    let pixels = DMatrix::from_vec(file.num_features, file.num_samples, file.data);
    let labels: Option<Vec<usize>> = file.target.into_iter().map(class).collect();
    let labels = labels.ok_or("a label of the digits is not one of 0 to 9")?;

    let (train, test) = Dataset::new(pixels, labels)?.split(HELD_OUT, SPLIT_SEED)?;
    let scaling = Scaling::min_max(&train)?; // The test set must not have a say in it.
    Ok(Split { train: train.scaled(&scaling)?, test: test.scaled(&scaling)? })
}

/// The digit that a label stands for; the file has numbers with a fraction.
fn class(label: f32) -> Option<usize> {
    (0_u8..10).position(|digit| f32::from(digit) == label)
}
