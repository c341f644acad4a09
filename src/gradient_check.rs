//! Comparing gradients with central differences of the loss.

use std::fmt;

use nalgebra::{DMatrix, DMatrixView};
use rand::seq::index;

use crate::{
    buffer::{Columns, When},
    error::{Result, require, require_finite},
    feedback::Feedback,
    init::FeedbackInit,
    layer::Operation,
    loss::Loss,
    network::Network,
    parameters::{Part, Slot},
    rule::FeedbackRule,
    scalar::Scalar,
    seed::{Purpose, stream},
    targets::Targets,
    workspace::{Activations, Deltas, Gradients},
};

/// Compares the gradients of backpropagation with central differences of the loss: for every
/// parameter `w`
///
/// ```text
/// ∂J/∂w ≈ (J(w + h) − J(w − h)) / 2h      with h = step · max(1, |w|)
/// ```
///
/// on one batch. Dropout masks are held fixed (those of seed 0, step 1), and batch normalisation uses
/// the batch, as in training. The differences are taken in `f64` for every scalar type. So gradients in
/// `f32` are measured to their own precision.
///
/// With the default step, and unless the gradient is nearly zero everywhere,
/// [`GradientReport::relative_difference`] should be below 1e-6 in `f64` and below 1e-5 in `f32`. It is
/// relative to the largest entry of the whole gradient. A ratio for each entry would say nothing about
/// entries that are small only because their terms cancel.
///
/// A parameter is skipped if its step takes a unit over the kink of ReLU, leaky ReLU or ELU, or changes
/// the winner of a max-pooling window. The loss then has no derivative to compare with.
///
/// It takes two forward passes for each parameter that is checked.
///
/// ```
/// use feedback_alignment::{GradientCheck, Loss, Network, nalgebra::DMatrix};
///
/// let network = Network::<f64>::builder(3).dense(5).tanh().dropout(0.2).dense(2).build()?;
/// let x = DMatrix::from_fn(3, 4, |i, j| (i as f64 - j as f64) / 3.0);
/// let report =
///     GradientCheck::default().run(&network, Loss::SoftmaxCrossEntropy, &x, &[0, 1, 1, 0])?;
/// assert!(report.relative_difference() < 1e-6, "{report}");
/// assert_eq!(report.tensors.len(), 4); // W and b of two layers
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct GradientCheck {
    /// `h` for parameters of magnitude 1 or less, positive; 1e-5 by default. There the error of the
    /// difference, of order `h²`, and the rounding error, of order `10⁻¹⁶ J/h`, are both small.
    pub step: f64,
    /// How many entries of each tensor are checked, at least 1; all by default. They are chosen at
    /// random, but always the same ones.
    pub entries: usize,
}

impl Default for GradientCheck {
    fn default() -> Self {
        Self { step: 1e-5, entries: usize::MAX }
    }
}

/// The results of a [`GradientCheck`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GradientReport {
    /// All tensors of parameters, from the first layer up.
    pub tensors: Vec<TensorCheck>,
}

/// The results of a [`GradientCheck`] for one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TensorCheck {
    /// The weighted layer that it belongs to, counted from 0.
    pub layer: usize,
    /// Which of the layer's parameters it is.
    pub part: Part,
    /// Entries that were compared.
    pub checked: usize,
    /// Entries that were skipped because a kink or another winner is within a step.
    pub skipped: usize,
    /// Largest difference between a gradient and its central difference; 0 if none were compared.
    pub difference: f64,
    /// Largest magnitude of a central difference; 0 if none were compared.
    pub largest: f64,
}

impl GradientReport {
    /// Largest difference between a gradient and its central difference.
    #[must_use]
    pub fn difference(&self) -> f64 {
        self.tensors.iter().fold(0.0, |most, tensor| tensor.difference.max(most))
    }

    /// Largest magnitude of a central difference, over all tensors.
    #[must_use]
    pub fn largest(&self) -> f64 {
        self.tensors.iter().fold(0.0, |most, tensor| tensor.largest.max(most))
    }

    /// The largest difference divided by the largest central difference; 0 if the difference is 0.
    ///
    /// A gradient that is nearly zero everywhere has no scale to compare with. Below about `10⁻⁵ J` the
    /// result shows only the rounding of the differences.
    #[must_use]
    pub fn relative_difference(&self) -> f64 {
        match self.difference() {
            0.0 => 0.0,
            difference => difference / self.largest(),
        }
    }
}

impl GradientCheck {
    /// Checks the gradients of `loss` on the samples `x`, of shape `n_0 × N`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a step that is not positive or no entries, those of
    /// [`Network::forward`] and [`Loss::error`], and [`Error::NonFinite`] if something overflows.
    ///
    /// [`Error::InvalidParameter`]: crate::Error::InvalidParameter
    /// [`Error::NonFinite`]: crate::Error::NonFinite
    pub fn run<'x, 'a, T: Scalar>(
        self,
        network: &Network<T>,
        loss: Loss,
        x: impl Into<DMatrixView<'x, T>>,
        targets: impl Into<Targets<'a, T>>,
    ) -> Result<GradientReport> {
        let valid = self.step > 0.0 && self.step.is_finite();
        require(valid, "step", self.step, "a positive number")?;
        require(self.entries > 0, "entries", 0.0, "at least 1")?;
        let (x, targets) = (x.into(), targets.into());
        let gradients = backpropagate(network, loss, x, targets)?;
        let values = match targets {
            Targets::Values(values) => values.map(T::as_f64),
            Targets::Labels(_) => DMatrix::zeros(0, 0),
        };
        let targets = match targets {
            Targets::Labels(labels) => Targets::Labels(labels),
            Targets::Values(_) => Targets::Values(DMatrixView::from(&values)),
        };
        self.compare(&mut Differences::new(network.cast()?, loss, x, targets)?, &gradients)
    }

    /// Compares any gradients with the differences.
    fn compare<T: Scalar>(
        self,
        differences: &mut Differences,
        gradients: &Gradients<T>,
    ) -> Result<GradientReport> {
        let slots = gradients.layout.table.slots().iter().filter(|slot| slot.part.is_learned());
        let tensors = slots.enumerate().map(|(number, slot)| {
            let gradient = gradients.numbers.slot(slot);
            require_finite(|| format!("the gradient of {slot}"), gradient.len(), gradient)?;
            let mut check = TensorCheck {
                layer: slot.layer,
                part: slot.part,
                checked: 0,
                skipped: 0,
                difference: 0.0,
                largest: 0.0,
            };
            for index in self.choose(number, gradient.len()) {
                match differences.at(slot, index, self.step)? {
                    Some(slope) => {
                        let difference = (gradient[index].as_f64() - slope).abs();
                        check.checked += 1;
                        check.difference = check.difference.max(difference);
                        check.largest = check.largest.max(slope.abs());
                    }
                    None => check.skipped += 1,
                }
            }
            Ok(check)
        });
        Ok(GradientReport { tensors: tensors.collect::<Result<_>>()? })
    }

    /// The entries to check of tensor `number`, which has `length` of them.
    fn choose(self, number: usize, length: usize) -> Vec<usize> {
        if length <= self.entries {
            return (0..length).collect();
        }
        let mut rng = stream(0, Purpose::GradientCheck, number as u64, 0);
        let mut chosen = index::sample(&mut rng, length, self.entries).into_vec();
        chosen.sort_unstable();
        chosen
    }
}

/// Stages 1 to 4, by backpropagation.
fn backpropagate<T: Scalar>(
    network: &Network<T>,
    loss: Loss,
    x: DMatrixView<T>,
    targets: Targets<T>,
) -> Result<Gradients<T>> {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    let mut gradients = Gradients::new();
    let feedback = Feedback::new(network, FeedbackRule::Bp, FeedbackInit::default(), 0)?;
    network.forward(x, &mut activations)?;
    loss.error(targets, &activations, &mut deltas)?;
    feedback.deliver(network, &activations, &mut deltas)?;
    network.gradients(&activations, &deltas, &mut gradients)?;
    Ok(gradients)
}

/// The loss of a batch as a function of the parameters.
struct Differences<'a> {
    network: Network<f64>,
    loss: Loss,
    targets: Targets<'a, f64>,
    /// The activations with the parameters as they are.
    base: Activations<f64>,
    /// The activations with a step in one parameter.
    stepped: Activations<f64>,
    /// Scratch for the error at the output.
    e: Columns<f64>,
}

impl<'a> Differences<'a> {
    /// For checked samples and targets.
    fn new<T: Scalar>(
        network: Network<f64>,
        loss: Loss,
        x: DMatrixView<T>,
        targets: Targets<'a, f64>,
    ) -> Result<Self> {
        let mut base = Activations::new();
        network.pass(&mut base, x.ncols(), FIRST, |input| {
            input.iter_mut().zip(x.iter()).for_each(|(to, from)| *to = from.as_f64());
            Ok(f64::INFINITY)
        })?;
        let stepped = base.clone();
        let mut e = Columns::new(network.output_len());
        e.set_batch(x.ncols())?;
        Ok(Self { network, loss, targets, base, stepped, e })
    }

    /// The slope of the loss along one parameter; `None` if there is a kink within the step.
    fn at(&mut self, slot: &Slot, index: usize, step: f64) -> Result<Option<f64>> {
        let middle = self.network.parameters.slot(slot)[index];
        let h = step * middle.abs().max(1.0);
        let ends = [middle + h, middle - h];
        let losses = ends.map(|value| {
            self.network.parameters.slot_mut(slot)[index] = value;
            self.loss()
        });
        self.network.parameters.slot_mut(slot)[index] = middle;
        let [Some(up), Some(down)] = losses else { return Ok(None) };
        // Not 2h, because the ends have been rounded.
        let slope = (up - down) / (ends[0] - ends[1]);
        let what = || format!("the central difference of entry {index} of {slot}");
        require_finite(what, 1, &[slope])?;
        Ok(Some(slope))
    }

    /// The loss; `None` if a unit has crossed a kink or a window has another winner.
    fn loss(&mut self) -> Option<f64> {
        let samples = self.stepped.batch();
        let write = |_: &mut [f64]| Ok(f64::INFINITY);
        self.network.pass(&mut self.stepped, samples, FIRST, write).ok()?;
        let logits = self.stepped.blocks.last()?.output();
        let loss = self.loss.evaluate(&self.targets, logits, &mut self.e);
        self.on_same_branch().then_some(loss)
    }

    fn on_same_branch(&self) -> bool {
        let blocks =
            self.network.blocks.iter().zip(self.base.blocks.iter().zip(&self.stepped.blocks));
        blocks.into_iter().all(|(block, (base, stepped))| {
            block.operations.iter().enumerate().all(|(index, operation)| match operation {
                Operation::Activation(activation) if activation.has_kink() => {
                    let (base, stepped) = (base.before(index), stepped.before(index));
                    base.as_slice()
                        .iter()
                        .zip(stepped.as_slice())
                        .all(|(a, b)| (*a > 0.0) == (*b > 0.0))
                }
                Operation::Pool2d(_) => {
                    let (base, stepped) = (&base.operations[index], &stepped.operations[index]);
                    base.notes.winners == stepped.notes.winners
                }
                _ => true,
            })
        })
    }
}

/// The first training pass of `Activations::new`, again and again.
const FIRST: When = When::At(0);

impl fmt::Display for GradientReport {
    /// A row for each tensor, and what it comes to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "layer    checked  skipped  difference  largest entry")?;
        for TensorCheck { layer, part, checked, skipped, difference, largest } in &self.tensors {
            write!(f, "{layer:>5} {part} {checked:>8} {skipped:>8}")?;
            writeln!(f, " {difference:>11.1e} {largest:>14.1e}")?;
        }
        let (difference, largest) = (self.difference(), self.largest());
        write!(
            f,
            "largest difference {difference:.1e}, {:.1e} of the largest entry {largest:.1e}",
            self.relative_difference()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network<f64> {
        let builder = Network::builder(3).dropout(0.3).dense(4).batch_norm().tanh().dropout(0.3);
        builder.dense_without_bias(5).logistic().dense(2).build().unwrap()
    }

    fn batch() -> (DMatrix<f64>, [usize; 5]) {
        (DMatrix::from_fn(3, 5, |i, j| ((3 * i + 5 * j) % 7) as f64 / 3.0 - 1.0), [0, 1, 1, 0, 1])
    }

    /// The report on gradients of which one entry has been changed by some part of the largest.
    fn report_on_wrong(layer: usize, part: Part, by: f64) -> GradientReport {
        let (network, (x, y)) = (network(), batch());
        let loss = Loss::SoftmaxCrossEntropy;
        let mut gradients = backpropagate(&network, loss, x.as_view(), (&y).into()).unwrap();
        let right = GradientCheck::default().run(&network, loss, &x, &y).unwrap();
        assert!(right.relative_difference() < 1e-8, "{right}");
        let slot = gradients.numbers.find(layer, part).unwrap();
        let entries = gradients.numbers.slot_mut(&slot);
        entries[entries.len() / 2 - 1] += by * right.largest();
        let mut differences =
            Differences::new(network, loss, x.as_view(), Targets::from(&y)).unwrap();
        GradientCheck::default().compare(&mut differences, &gradients).unwrap()
    }

    #[test]
    fn a_wrong_entry_of_any_tensor_is_found() {
        for (layer, part) in [
            (0, Part::Weights),
            (0, Part::Bias),
            (0, Part::Scale),
            (0, Part::Shift),
            (1, Part::Weights),
            (2, Part::Weights),
            (2, Part::Bias),
        ] {
            let report = report_on_wrong(layer, part, 1e-3);
            assert!((report.relative_difference() - 1e-3).abs() < 1e-7, "{report}");
            assert_eq!(report.tensors.len(), 7);
            for tensor in &report.tensors {
                let wrong = (tensor.layer, tensor.part) == (layer, part);
                let found = tensor.difference > 1e-7 * report.largest();
                assert_eq!(found, wrong, "{report}");
            }
        }
    }

    #[test]
    fn every_parameter_is_checked_or_as_many_as_are_wanted() {
        let (network, (x, y)) = (network(), batch());
        let run = |check: GradientCheck| {
            let report = check.run(&network, Loss::SoftmaxCrossEntropy, &x, &y).unwrap();
            assert!(report.tensors.iter().all(|tensor| tensor.skipped == 0));
            report.tensors.iter().map(|tensor| tensor.checked).collect::<Vec<_>>()
        };
        let all = run(GradientCheck::default());
        assert_eq!(all, [12, 4, 4, 4, 20, 10, 2]);
        assert_eq!(all.iter().sum::<usize>(), network.parameter_count());
        let some = GradientCheck { entries: 5, ..GradientCheck::default() };
        assert_eq!(run(some), [5, 4, 4, 4, 5, 5, 2]);
        let chosen = some.choose(0, 1000);
        assert_eq!(chosen, some.choose(0, 1000));
        assert!(chosen.is_sorted_by(|a, b| a < b) && chosen[4] > 500, "{chosen:?}");
        assert_ne!(chosen, some.choose(1, 1000));
    }

    /// A unit within a step of its kink has no derivative to compare with; nor has a window
    /// whose two largest pixels change places.
    #[test]
    fn steps_across_a_kink_are_skipped() {
        let mut network = Network::<f64>::builder(1).dense(2).relu().dense(2).build().unwrap();
        network.set_weights(0, DMatrix::from_element(2, 1, 1.0)).unwrap();
        network.set_bias(0, nalgebra::DVector::from_vec(vec![-1.0 + 1e-7, -0.5])).unwrap();
        let x = DMatrix::from_element(1, 1, 1.0);
        let run = |network: &Network<f64>, step| {
            let check = GradientCheck { step, ..GradientCheck::default() };
            let report = check.run(network, Loss::SoftmaxCrossEntropy, &x, &[0]).unwrap();
            assert!(report.relative_difference() < 1e-6, "{report}");
            report.tensors.iter().map(|tensor| tensor.skipped).collect::<Vec<_>>()
        };
        assert_eq!(run(&network, 1e-5), [1, 1, 0, 0]);
        assert_eq!(run(&network, 1e-8), [0, 0, 0, 0]);

        let conv = crate::Conv2d::new(1, 1);
        let builder = Network::<f64>::builder((1, 1, 2)).conv2d(conv);
        let pool = crate::MaxPool2d { kernel: (1, 2), stride: (1, 1) };
        let mut network = builder.max_pool2d(pool).dense(2).build().unwrap();
        network.set_weights(0, DMatrix::from_element(1, 1, 0.0)).unwrap();
        let x = DMatrix::from_column_slice(2, 1, &[1.0, 2.0]);
        let report =
            GradientCheck::default().run(&network, Loss::SoftmaxCrossEntropy, &x, &[0]).unwrap();
        // With w = 0 the two pixels are equal; the bias moves both.
        let skipped: Vec<_> = report.tensors.iter().map(|tensor| tensor.skipped).collect();
        assert_eq!(skipped, [1, 0, 0, 0]);
        assert_eq!((report.tensors[0].checked, report.tensors[0].difference), (0, 0.0));
    }

    /// Parameters come back to the last bit, so that the next difference is of the same network.
    #[test]
    fn differences_leave_the_parameters_as_they_were() {
        let (network, (x, y)) = (network(), batch());
        let mut differences = Differences::new(
            network.clone(),
            Loss::LogisticCrossEntropy,
            x.as_view(),
            Targets::from(&y),
        )
        .unwrap();
        for slot in network.parameters.slots().iter().filter(|slot| slot.part.is_learned()) {
            assert!(differences.at(slot, 1, 0.1).unwrap().is_some());
        }
        assert_eq!(differences.network, network);
    }

    #[test]
    fn a_gradient_of_zero_has_no_difference_to_zero() {
        let (network, (x, _)) = (network(), batch());
        let mut network = network;
        network.set_weights(2, DMatrix::zeros(2, 5)).unwrap();
        network.set_bias(2, nalgebra::DVector::zeros(2)).unwrap();
        let targets = DMatrix::zeros(2, 5);
        let report =
            GradientCheck::default().run(&network, Loss::MeanSquaredError, &x, &targets).unwrap();
        assert_eq!((report.largest(), report.relative_difference()), (0.0, 0.0));
        let report = GradientReport { tensors: Vec::new() };
        assert_eq!(report.relative_difference(), 0.0);
    }
}
