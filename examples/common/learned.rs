//! Whether training has done any good.

use crate::common::Result;

/// Fails if the loss is higher after training than before.
pub fn require(name: &str, [before, after]: [f64; 2]) -> Result<()> {
    if after <= before {
        return Ok(());
    }
    Err(format!(
        "{name} has made the network worse: the loss was {before:.3} before training and is {after:.3} \
         now. Try a smaller learning rate"
    )
    .into())
}
