//! How pixels are prepared for a network.

use feedback_alignment::{Dataset, Scaling, data::Whitening};

use crate::common::{self, Result, Split};

/// From 0 to 1, by the smallest and the largest pixel of the training images.
pub fn scale(train: Dataset<f32>, test: Dataset<f32>) -> Result<Split> {
    let scaling = Scaling::min_max(&train)?;
    Ok(Split { train: train.scaled(&scaling)?, test: test.scaled(&scaling)? })
}

/// ZCA whitening of whole images, fitted on those to learn from.
pub fn whiten(train: Dataset<f32>, test: Dataset<f32>) -> Result<Split> {
    let bar = common::progress(100)?.with_message("whitening");
    let whitening = Whitening::fit(&train, Whitening::<f32>::EPSILON, |now| {
        bar.set_message(format!("whitening: {:?}", now.stage));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 0 to 100.
        bar.set_position((100.0 * now.fraction) as u64);
    })?;
    bar.finish_and_clear();
    Ok(Split { train: train.whitened(&whitening)?, test: test.whitened(&whitening)? })
}
