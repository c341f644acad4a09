//! The results of a diagnosis, as numbers and as a table.

use std::fmt;

/// The results of [`Diagnostics`](crate::Diagnostics) on one batch.
///
/// Its `Display` is a table with a row for each layer. `–` stands for `None`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Diagnosis {
    /// The rule whose deltas are compared with those of backpropagation; the route if it has no name.
    pub rule: String,
    /// All weighted layers from the first hidden one to the output.
    pub layers: Vec<LayerDiagnosis>,
}

impl Diagnosis {
    /// The hidden layers, from the first up: all layers but the last.
    #[must_use]
    pub fn hidden(&self) -> &[LayerDiagnosis] {
        self.layers.split_last().map_or(&[], |(_, hidden)| hidden)
    }
}

/// One layer of a [`Diagnosis`]. All norms are square roots of sums of squares. All angles are in
/// degrees, from 0 to 180.
///
/// The output layer has the same delta under every rule, so its angles are 0 (`None` if the error is
/// zero). For it only the norms are of interest.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LayerDiagnosis {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Between the rule's `δ_l` and that of backpropagation, `n_l × N` numbers each. `None` if one of
    /// them is zero, or if no feedback arrives.
    pub delta_angle: Option<f64>,
    /// Between the rule's `∂W_l` and `∂J/∂W_l`; `None` if one of them is zero.
    pub gradient_angle: Option<f64>,
    /// Between the feedback matrix of the layer and the weights that it stands in for. If the layer has
    /// several matrices, the first one counts.
    ///
    /// - A matrix in place of weights is compared with those weights: under FA `B_l` with `W_{l+1}ᵀ`.
    /// - A matrix for the error, or for a signal made from it, is compared with the product of all
    ///   weights above: under DFA, and in the first hidden layer under IFA, `B_l` with
    ///   `(W_L ⋯ W_{l+1})ᵀ`.
    ///
    /// `None` if one of the two is zero, or if the layer has no such matrix. Also `None` in the second
    /// case if pooling or a residual connection stands between the layer and the output: then the
    /// product is not one matrix.
    pub feedback_angle: Option<f64>,
    /// `‖W_l‖`
    pub weight_norm: f64,
    /// `‖W_l − W_l⁰‖`, how far the weights are from those that the diagnostics started with.
    pub change_norm: f64,
    /// `‖δ_l‖` of the rule.
    pub delta_norm: f64,
    /// `‖δ_l‖` of backpropagation.
    pub bp_delta_norm: f64,
    /// `‖∂W_l‖` of the rule.
    pub gradient_norm: f64,
    /// The fraction of the outputs of tanh and logistic units, over the batch, that are beyond the
    /// threshold, from 0 to 1. `None` if there are no such units.
    pub saturated: Option<f64>,
    /// How evenly the units of the layer can learn: `(Σ u_i)² / (n Σ u_i²)`, where `u_i` is the mean of
    /// `f'(a_i)²` over the batch. If some units have the same slope and all others have none, it is the
    /// fraction of units that can learn. It uses the last activation function of the layer. `None` if
    /// there is none, or if all derivatives are 0.
    pub participation: Option<f64>,
    /// The mean, over all pairs of samples, of the cosine between their `h_l`. At 1 the layer no longer
    /// tells samples apart. Samples whose `h_l` is zero do not count. `None` if fewer than two samples
    /// are left.
    pub sample_cosine: Option<f64>,
    /// How many directions the `h_l` of the samples use: the exponential of the entropy of the
    /// eigenvalues of `h_l h_lᵀ`, taken as fractions of their sum. (These are the squared singular
    /// values of `h_l`; its mean is not subtracted.) It is 1 if all samples lie on one line, and at
    /// most the number of units or samples, whichever is smaller. For a layer of more than 512 units
    /// only the first 512 samples are used. `None` if all `h_l` are 0.
    pub effective_rank: Option<f64>,
    /// The part of the rule's `δ_l` that all samples have in common: `N ‖δ̄‖² / Σ‖δ‖²`, where `δ̄` is
    /// the mean over the batch, from 0 to 1. In the output layer this is the common mode of the error
    /// `e`. `None` if `δ_l` is zero, or if no feedback arrives.
    pub common_mode: Option<f64>,
}

impl LayerDiagnosis {
    /// All numbers but that of the layer, with the names of the fields.
    pub(crate) fn numbers(&self) -> [(&'static str, Option<f64>); 13] {
        [
            ("delta_angle", self.delta_angle),
            ("gradient_angle", self.gradient_angle),
            ("feedback_angle", self.feedback_angle),
            ("weight_norm", Some(self.weight_norm)),
            ("change_norm", Some(self.change_norm)),
            ("delta_norm", Some(self.delta_norm)),
            ("bp_delta_norm", Some(self.bp_delta_norm)),
            ("gradient_norm", Some(self.gradient_norm)),
            ("saturated", self.saturated),
            ("participation", self.participation),
            ("sample_cosine", self.sample_cosine),
            ("effective_rank", self.effective_rank),
            ("common_mode", self.common_mode),
        ]
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, layers } = self;
        let w0 = "‖W−W⁰‖";
        // A route is too long for the first column.
        let name = if rule.len() > 3 { "" } else { &**rule };
        if name.is_empty() {
            writeln!(f, "{rule}")?;
        }
        write!(f, "{name:<3} layer  δ to BP ∂W to BP  B to Wᵀ       ‖W‖ {w0:>9}       ‖δ‖")?;
        write!(f, "   ‖δ‖ (BP)      ‖∂W‖  saturated  particip. cos of h  rank of h  common δ")?;
        for row in layers {
            write!(f, "\n{:>9}", row.layer)?;
            for angle in [row.delta_angle, row.gradient_angle, row.feedback_angle] {
                write_or_dash(f, angle, |angle| format!("{angle:.2}°"), 8)?;
            }
            write!(f, " {:>9.4} {:>9.4}", row.weight_norm, row.change_norm)?;
            write!(f, " {:>9.2e} {:>10.2e}", row.delta_norm, row.bp_delta_norm)?;
            write!(f, " {:>9.2e}", row.gradient_norm)?;
            let percent = |share| format!("{:.2} %", 100.0 * share);
            write_or_dash(f, row.saturated, percent, 10)?;
            write_or_dash(f, row.participation, percent, 10)?;
            write_or_dash(f, row.sample_cosine, |cosine| format!("{cosine:.3}"), 8)?;
            write_or_dash(f, row.effective_rank, |rank| format!("{rank:.2}"), 10)?;
            write_or_dash(f, row.common_mode, percent, 9)?;
        }
        Ok(())
    }
}

fn write_or_dash(
    f: &mut fmt::Formatter<'_>,
    value: Option<f64>,
    text: impl FnOnce(f64) -> String,
    width: usize,
) -> fmt::Result {
    write!(f, " {:>width$}", value.map_or_else(|| "–".to_owned(), text))
}
