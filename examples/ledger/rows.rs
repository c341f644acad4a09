//! The rows of the ledger: what each source ran, and the numbers that it reports.

mod akrout;
mod biotorch;
mod check;
mod frenkel;
mod stall;
mod webstah;

use feedback_alignment::{Dataset, Trainer, TrainerBuilder};

use crate::{
    common::{Result, Split},
    data::Task,
    lines::{End, Lines},
    record::{Header, Point},
};

pub type Record = Lines<Header, Point>;

/// What one source ran under several rules.
pub struct Row {
    pub name: &'static str,
    /// Author, year, and the table or file that the numbers are from.
    pub source: &'static str,
    pub task: Task,
    /// The rules, and other arms that are compared under a name.
    pub arms: Vec<&'static str>,
    /// Epochs, or steps, of a run.
    pub length: u64,
    pub plan: Plan,
    /// A new network and what trains it: the arm, what it will learn from, the seed.
    pub trainer: fn(&str, &Split, u64) -> Result<TrainerBuilder<f32>>,
    pub figures: Vec<Figure>,
}

pub type After = fn(&Moment, &mut Trainer<f32>) -> Result<()>;

/// Where a run is.
pub struct Moment<'a> {
    pub split: &'a Split,
    /// Steps made so far, and in all.
    pub step: u64,
    pub steps: u64,
}

/// How a run goes, beside what a trainer does.
#[derive(Clone, Copy)]
pub struct Plan {
    pub order: Order,
    /// What the gradients of the biases are multiplied by.
    pub bias_factor: f32,
    pub observed: Observed,
    /// What else becomes of a trainer before the first step, and after each.
    pub after: Option<After>,
    /// Whether that depends on how many steps there are in all, so that a run cannot become longer.
    pub scheduled: bool,
}

impl Plan {
    pub const EPOCHS: Self = Self {
        order: Order::Shuffled,
        bias_factor: 1.0,
        observed: Observed::Nothing,
        after: None,
        scheduled: false,
    };
}

/// Which samples make the batches of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All of them, in an order of the epoch.
    Shuffled,
    /// All of them, as they come.
    AsTheyCome,
    /// So many batches, each drawn with replacement.
    Drawn(u64),
}

/// What is measured after a round beside the error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    Nothing,
    /// The angle of the first hidden layer's delta to backpropagation's, on the first sample.
    Angle,
    /// The mean cosine between two samples' outputs of the last hidden layer.
    Cosine,
}

/// A number that a source reports.
pub struct Figure {
    pub arm: &'static str,
    pub quantity: Quantity,
    pub value: f64,
    pub deviation: Option<f64>,
}

/// What a number is of. Accuracies and errors are in percent.
#[derive(Clone, Copy)]
pub enum Quantity {
    Accuracy(u64),
    /// At the end.
    FinalAccuracy,
    FinalError,
    BestError,
    /// What the error at the end has to be below.
    Bound,
    Angle(u64),
    /// Steps until the accuracy is so high; of several runs the median.
    StepsTo(f64),
    LargestCosine,
}

impl Row {
    pub fn all() -> Vec<Self> {
        let mut rows = vec![check::row(), stall::row()];
        rows.extend(frenkel::rows());
        rows.extend([akrout::row(), biotorch::row(), webstah::row()]);
        rows
    }

    pub fn find(name: &str) -> Result<Self> {
        let mut rows = Self::all();
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        let index = names.iter().position(|&other| other == name);
        let index = index
            .ok_or_else(|| format!("the ledger has no row {name}, only {}", names.join(", ")))?;
        Ok(rows.swap_remove(index))
    }

    /// What a round counts: an epoch, or so many steps.
    pub fn round(&self) -> u64 {
        match self.plan.order {
            Order::Drawn(steps) => steps,
            Order::Shuffled | Order::AsTheyCome => 1,
        }
    }

    pub fn unit(&self) -> &'static str {
        if self.round() == 1 { "epochs" } else { "steps" }
    }
}

impl Quantity {
    /// What a run came to, if it got so far.
    pub fn of(self, run: &Record) -> Option<f64> {
        let at = |at| run.points.iter().find(|point| point.at == at);
        let mut errors = run.points.iter().map(|point| point.error);
        match self {
            _ if run.end == Some(End::DoesNotConverge) => None,
            Self::Accuracy(epoch) => at(epoch).map(|point| 100.0 - point.error),
            Self::FinalAccuracy => errors.next_back().map(|error| 100.0 - error),
            Self::FinalError | Self::Bound => errors.next_back(),
            Self::BestError => errors.reduce(f64::min),
            Self::Angle(epoch) => at(epoch)?.angle,
            Self::StepsTo(accuracy) => {
                let reached = |point: &&Point| 100.0 - point.error >= accuracy;
                run.points.iter().find(reached).map(|point| point.at as f64)
            }
            Self::LargestCosine => {
                run.points.iter().filter_map(|point| point.cosine).reduce(f64::max)
            }
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::Accuracy(epoch) => format!("accuracy, epoch {epoch}"),
            Self::FinalAccuracy => "accuracy".into(),
            Self::FinalError => "test error".into(),
            Self::BestError => "best test error".into(),
            Self::Bound => "test error, below".into(),
            Self::Angle(epoch) => format!("angle to BP, epoch {epoch}"),
            Self::StepsTo(accuracy) => format!("steps to {accuracy} %"),
            Self::LargestCosine => "largest mean cosine".into(),
        }
    }
}

/// Figures of one arm.
fn figures(arm: &'static str, values: &[(Quantity, f64)]) -> Vec<Figure> {
    let figure = |&(quantity, value)| Figure { arm, quantity, value, deviation: None };
    values.iter().map(figure).collect()
}

/// A figure with its standard deviation.
fn spread(arm: &'static str, quantity: Quantity, value: f64, deviation: f64) -> Figure {
    Figure { arm, quantity, value, deviation: Some(deviation) }
}

/// The classes of what is to be learned.
fn classes(train: &Dataset<f32>) -> Result<usize> {
    Ok(train.classes().ok_or("the samples have no labels")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_of_an_arm_that_can_be_set_up() {
        let digits = crate::common::digits().unwrap();
        let blank = |pixels| {
            let x = feedback_alignment::nalgebra::DMatrix::zeros(pixels, 10);
            let train = Dataset::new(x, (0..10).collect()).unwrap();
            Split { test: train.clone(), train }
        };
        for row in Row::all() {
            let figures = row.figures.iter();
            figures.for_each(|figure| assert!(row.arms.contains(&figure.arm), "{}", figure.arm));
            let split = match row.task {
                Task::Mnist32 => &blank(32 * 32),
                Task::Cifar10 => &blank(3 * 32 * 32),
                _ => &digits,
            };
            for arm in &row.arms {
                let trainer = (row.trainer)(arm, split, 1).unwrap().build();
                assert!(trainer.is_ok(), "{} {arm}: {:?}", row.name, trainer.err());
            }
        }
    }

    #[test]
    fn quantities_are_read_off_the_points() {
        let header = Header {
            row: "stall".into(),
            arm: "dfa".into(),
            seed: 0,
            data: "MNIST".into(),
            length: None,
            version: "0".into(),
        };
        let mut run = Record::new("nowhere".into(), header);
        let point = |at, error, cosine| Point { at, error, angle: Some(2.0 * error), cosine };
        run.points = vec![
            point(10, 60.0, Some(0.5)),
            point(20, 18.0, Some(0.9)),
            point(30, 20.0, Some(0.7)),
        ];
        for (quantity, expected) in [
            (Quantity::Accuracy(10), Some(40.0)),
            (Quantity::Accuracy(15), None),
            (Quantity::FinalAccuracy, Some(80.0)),
            (Quantity::FinalError, Some(20.0)),
            (Quantity::BestError, Some(18.0)),
            (Quantity::Angle(20), Some(36.0)),
            (Quantity::StepsTo(50.0), Some(20.0)),
            (Quantity::StepsTo(90.0), None),
            (Quantity::LargestCosine, Some(0.9)),
        ] {
            assert_eq!(quantity.of(&run), expected, "{}", quantity.name());
        }
        run.end = Some(End::DoesNotConverge);
        assert_eq!(Quantity::FinalError.of(&run), None);
    }
}
