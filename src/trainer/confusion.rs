//! The confusion matrix: which classes were taken for which.

use std::{collections::BTreeMap, fmt};

/// How often samples of one class were taken for another.
///
/// ```
/// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::{DMatrix, DVector}};
///
/// // A network that takes everything for class 0.
/// let mut network = Network::<f32>::builder(1).dense(2).build()?;
/// network.set_weights(0, DMatrix::zeros(2, 1))?;
/// network.set_bias(0, DVector::from_column_slice(&[1.0, 0.0]))?;
/// let trainer = Trainer::builder(network).build()?;
/// let data = Dataset::new(DMatrix::zeros(1, 4), vec![0, 0, 0, 1])?;
/// let confusion = trainer.evaluate(&data)?.confusion.expect("labels are classes");
/// assert_eq!(confusion.count(1, 0), 1);
/// assert_eq!((confusion.precision(0), confusion.recall(0)), (Some(0.75), Some(1.0)));
/// assert_eq!((confusion.precision(1), confusion.recall(1)), (None, Some(0.0)));
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "Counts", try_from = "Counts")
)]
pub struct ConfusionMatrix {
    classes: usize,
    /// Counts by actual and predicted class. Pairs that never occurred take no memory, because a
    /// network may have many classes.
    counts: BTreeMap<(usize, usize), usize>,
}

impl ConfusionMatrix {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes, counts: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, actual: usize, predicted: usize) {
        *self.counts.entry((actual, predicted)).or_default() += 1;
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Samples of class `actual` that were taken for `predicted`; 0 for a class that does not exist.
    #[must_use]
    pub fn count(&self, actual: usize, predicted: usize) -> usize {
        self.counts.get(&(actual, predicted)).copied().unwrap_or(0)
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.counts.values().sum()
    }

    /// Precision of a class, `TP / (TP + FP)`: of the samples taken for this class, the share that
    /// belongs to it. `None` if no sample was taken for it.
    #[must_use]
    pub fn precision(&self, class: usize) -> Option<f64> {
        precision(self.of_class(class))
    }

    /// Recall of a class, `TP / (TP + FN)`: of the samples of this class, the share that was
    /// recognised. `None` if it has no samples.
    #[must_use]
    pub fn recall(&self, class: usize) -> Option<f64> {
        recall(self.of_class(class))
    }

    /// F1 of a class, `2 TP / (2 TP + FP + FN)`: the harmonic mean of precision and recall. `None`
    /// if it has no samples and nothing was taken for it.
    #[must_use]
    pub fn f1(&self, class: usize) -> Option<f64> {
        f1(self.of_class(class))
    }

    /// The mean of [`precision`](Self::precision) over all classes that have samples or were predicted.
    /// `None` counts as 0 in it, as in scikit-learn's macro average. The result is `None` if there are
    /// no samples.
    #[must_use]
    pub fn macro_precision(&self) -> Option<f64> {
        self.mean(precision)
    }

    /// The same mean of [`recall`](Self::recall).
    #[must_use]
    pub fn macro_recall(&self) -> Option<f64> {
        self.mean(recall)
    }

    /// The same mean of [`f1`](Self::f1).
    #[must_use]
    pub fn macro_f1(&self) -> Option<f64> {
        self.mean(f1)
    }

    fn mean(&self, score: impl Fn(OfClass) -> Option<f64>) -> Option<f64> {
        let mut classes = BTreeMap::<usize, OfClass>::new();
        for (&(actual, predicted), &count) in &self.counts {
            let count = count as f64;
            classes.entry(actual).or_default().actual += count;
            let of_class = classes.entry(predicted).or_default();
            of_class.predicted += count;
            of_class.right += if actual == predicted { count } else { 0.0 };
        }
        let sum: f64 = classes.values().map(|&of_class| score(of_class).unwrap_or(0.0)).sum();
        (!classes.is_empty()).then(|| sum / classes.len() as f64)
    }

    fn of_class(&self, class: usize) -> OfClass {
        let sum = |of: fn(&(usize, usize)) -> usize| {
            let counts = self.counts.iter().filter(|(pair, _)| of(pair) == class);
            counts.map(|(_, &count)| count as f64).sum()
        };
        let right = self.count(class, class) as f64;
        OfClass { right, actual: sum(|pair| pair.0), predicted: sum(|pair| pair.1) }
    }
}

/// Counts of one class: samples that belong to it, samples that were taken for it, and samples that are
/// both.
#[derive(Clone, Copy, Default)]
struct OfClass {
    right: f64,
    actual: f64,
    predicted: f64,
}

fn precision(OfClass { right, predicted, .. }: OfClass) -> Option<f64> {
    ratio(right, predicted)
}

fn recall(OfClass { right, actual, .. }: OfClass) -> Option<f64> {
    ratio(right, actual)
}

fn f1(OfClass { right, actual, predicted }: OfClass) -> Option<f64> {
    ratio(2.0 * right, actual + predicted)
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// More classes than this make no table that anyone reads.
const WIDEST_TABLE: usize = 50;

impl fmt::Display for ConfusionMatrix {
    /// A row for each actual class, a column for each predicted one; of more than 50 classes a
    /// line for each pair that was seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.classes > WIDEST_TABLE {
            write!(f, "actual  predicted  samples")?;
            return self.counts.iter().try_for_each(|((actual, predicted), count)| {
                write!(f, "\n{actual:>6}  {predicted:>9}  {count:>7}")
            });
        }
        let largest = self.counts.values().copied().max().unwrap_or(0).max(self.classes);
        let width = largest.to_string().len().max(2);
        write!(f, "actual \\ predicted")?;
        (0..self.classes).try_for_each(|class| write!(f, " {class:>width$}"))?;
        for actual in 0..self.classes {
            write!(f, "\n{actual:>18}")?;
            let row = (0..self.classes).map(|predicted| self.count(actual, predicted));
            row.into_iter().try_for_each(|count| write!(f, " {count:>width$}"))?;
        }
        Ok(())
    }
}

/// The form in which serde sees a confusion matrix, since few formats have maps whose keys are
/// pairs: a list of the counts that are not 0, in order.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(rename = "ConfusionMatrix")]
struct Counts {
    classes: usize,
    counts: Vec<Count>,
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize, serde::Serialize)]
struct Count {
    actual: usize,
    predicted: usize,
    samples: usize,
}

#[cfg(feature = "serde")]
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

#[cfg(feature = "serde")]
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Actual classes in rows: 0: [5, 1, 0], 1: [2, 3, 0], 2: [0, 1, 0]; class 3 never occurs.
    fn matrix() -> ConfusionMatrix {
        let mut matrix = ConfusionMatrix::new(4);
        for (actual, predicted, count) in [(0, 0, 5), (0, 1, 1), (1, 0, 2), (1, 1, 3), (2, 1, 1)] {
            (0..count).for_each(|_| matrix.add(actual, predicted));
        }
        matrix
    }

    #[test]
    fn scores_of_a_class_are_those_of_their_formulas() {
        let matrix = matrix();
        assert_eq!((matrix.classes(), matrix.samples()), (4, 12));
        let scores = |class| (matrix.precision(class), matrix.recall(class), matrix.f1(class));
        assert_eq!(scores(0), (Some(5.0 / 7.0), Some(5.0 / 6.0), Some(10.0 / 13.0)));
        assert_eq!(scores(1), (Some(3.0 / 5.0), Some(3.0 / 5.0), Some(6.0 / 10.0)));
        assert_eq!(scores(2), (None, Some(0.0), Some(0.0)));
        assert_eq!(scores(3), (None, None, None));
        assert_eq!(scores(usize::MAX), (None, None, None));
        // As scikit-learn's precision_recall_fscore_support(average="macro", zero_division=0).
        let mean = |values: [f64; 3]| Some(values.iter().sum::<f64>() / 3.0);
        assert_eq!(matrix.macro_precision(), mean([5.0 / 7.0, 0.6, 0.0]));
        assert_eq!(matrix.macro_recall(), mean([5.0 / 6.0, 0.6, 0.0]));
        assert_eq!(matrix.macro_f1(), mean([10.0 / 13.0, 0.6, 0.0]));
        assert_eq!(ConfusionMatrix::new(3).macro_f1(), None);
    }

    #[test]
    fn a_table_is_shown_of_few_classes_and_a_list_of_many() {
        let table = matrix().to_string();
        let expected = "actual \\ predicted  0  1  2  3\n                 0  5  1  0  0";
        assert!(table.starts_with(expected) && table.lines().count() == 5, "{table}");
        let mut many = ConfusionMatrix::new(1_000_000);
        many.add(999_999, 3);
        let list = many.to_string();
        assert_eq!(
            list.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["999999", "3", "1"]
        );
    }
}
