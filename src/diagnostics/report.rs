//! What a diagnosis found, as numbers and as a table.

use std::fmt;

/// What [`Diagnostics`](crate::Diagnostics) found on one batch.
///
/// Its `Display` is a table with a row for each layer; `–` stands for `None`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Diagnosis {
    /// The rule whose deltas are compared with those of backpropagation, or the route if it has no
    /// name.
    pub rule: String,
    /// All weighted layers from the first hidden one to the output.
    pub layers: Vec<LayerDiagnosis>,
}

impl Diagnosis {
    /// The hidden layers, from the first up: all but the last.
    #[must_use]
    pub fn hidden(&self) -> &[LayerDiagnosis] {
        self.layers.split_last().map_or(&[], |(_, hidden)| hidden)
    }
}

/// One layer of a [`Diagnosis`]; all norms are square roots of sums of squares, all angles are
/// degrees from 0 to 180.
///
/// The output layer has the same delta under every rule, so its angles are 0 (`None` where there
/// is no error at all); what the diagnosis says of it are its norms.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LayerDiagnosis {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Between the rule's `δ_l` and that of backpropagation, `n_l × N` numbers each; `None` where
    /// one of them is zero, and where no feedback arrives.
    pub delta_angle: Option<f64>,
    /// Between the rule's `∂W_l` and `∂J/∂W_l`; `None` where one of them is zero.
    pub gradient_angle: Option<f64>,
    /// Between the feedback matrix of the layer, the first if it has several, and the weights it
    /// stands in for: under FA `B_l` and `W_{l+1}ᵀ`, under DFA, and in the first hidden layer under
    /// IFA, `B_l` and `(W_L ⋯ W_{l+1})ᵀ`; on other routes, random weights and the weights in whose
    /// place they are, a matrix for the error or its sign and that product. `None` where one of them
    /// is zero; in layers that have no such matrix; and, in the second case, where pooling stands between the layer and the output,
    /// since which pixels it lets through depends on the sample.
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
    /// The share of the outputs of tanh and logistic units, over the batch, that are beyond the
    /// threshold, from 0 to 1; `None` without such units.
    pub saturated: Option<f64>,
    /// How evenly the units of the layer can learn, `(Σ u_i)² / (n Σ u_i²)` with `u_i` the mean of
    /// `f'(a_i)²` over the batch: the share of units that do, if some have one slope and the others
    /// none. Of the last activation function of the layer; `None` without one, and where all
    /// derivatives are 0.
    pub participation: Option<f64>,
    /// The mean over all pairs of samples of the cosine between their `h_l`: 1 where the layer no
    /// longer tells samples apart. Samples that are 0 everywhere do not count; `None` where less than
    /// two are left.
    pub sample_cosine: Option<f64>,
    /// The exponential of the entropy of the eigenvalues of `h_l h_lᵀ`, as shares of their sum (the
    /// squared singular values of `h_l`, whose mean is not taken away): from 1, all samples on one
    /// line, to the smaller one of units and samples. Of a layer of more than 512 units over the
    /// first 512 samples. `None` where all `h_l` are 0.
    pub effective_rank: Option<f64>,
    /// The part of the rule's `δ_l` that all samples have in common: `N ‖δ̄‖² / Σ‖δ‖²`, with the mean
    /// `δ̄` over the batch, from 0 to 1. In the output layer this is the common mode of the error `e`.
    /// `None` where `δ_l` is zero, and where no feedback arrives.
    pub common_mode: Option<f64>,
}

impl LayerDiagnosis {
    /// Everything but the number of the layer, by the names of the fields.
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
