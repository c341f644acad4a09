//! The form in which serde sees a confusion matrix: few formats have maps whose keys are pairs.

use serde::{Deserialize, Serialize};

use super::ConfusionMatrix;

/// A confusion matrix as a list of the counts that are not 0, in order.
#[derive(Deserialize, Serialize)]
#[serde(rename = "ConfusionMatrix")]
pub(super) struct Counts {
    classes: usize,
    counts: Vec<Count>,
}

#[derive(Deserialize, Serialize)]
struct Count {
    actual: usize,
    predicted: usize,
    samples: usize,
}

impl From<ConfusionMatrix> for Counts {
    fn from(ConfusionMatrix { classes, counts }: ConfusionMatrix) -> Self {
        let counts = counts.into_iter().map(|((actual, predicted), samples)| Count {
            actual,
            predicted,
            samples,
        });
        Self { classes, counts: counts.collect() }
    }
}

impl TryFrom<Counts> for ConfusionMatrix {
    type Error = String;

    /// Fails for what no evaluation makes.
    fn try_from(Counts { classes, counts }: Counts) -> Result<Self, String> {
        let mut matrix = Self::new(classes);
        let mut total = 0_usize;
        for Count { actual, predicted, samples } in counts {
            let pair = format!("class {actual} taken for {predicted}");
            if actual.max(predicted) >= classes {
                return Err(format!("{pair}: there are {classes} classes, counted from 0"));
            }
            if samples == 0 || matrix.counts.insert((actual, predicted), samples).is_some() {
                return Err(format!("{pair}: expected one count of at least 1"));
            }
            total = total.checked_add(samples).ok_or("more samples than can be counted")?;
        }
        Ok(matrix)
    }
}
