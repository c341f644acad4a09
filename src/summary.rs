//! An overview of a network and its feedback.

use std::fmt;

use crate::{
    error::Result,
    feedback::Feedback,
    layer::{LinearMap, Operation, Shape},
    network::{Block, Network},
    parameters::Slot,
    route::Hop,
    scalar::Scalar,
};

/// The layers of a network: their kind, sizes and parameters, and how feedback reaches them.
///
/// Its `Display` is a table with a row for each weighted layer, counted from 0. `–` stands for nothing.
///
/// ```
/// use feedback_alignment::{FeedbackRule, Network, Trainer};
///
/// let network = Network::<f32>::builder(784).dense(800).tanh().dense(100).tanh().dense(10).build()?;
/// let trainer = Trainer::builder(network).rule(FeedbackRule::Dfa).build()?;
/// assert_eq!(trainer.summary()?.to_string(), "\
/// layer              output  parameters  feedback under DFA
/// input                 784           –  –
/// 0      dense tanh     800     628,000  B(e) 800×10
/// 1      dense tanh     100      80,100  B(e) 100×10
/// 2      dense           10       1,010  –
/// all                           709,110  9,000 numbers");
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Summary {
    /// The shape of the input.
    pub input: Shape,
    /// The operations on the input, such as `dropout 0.1`; usually there are none.
    pub input_operations: String,
    /// The weighted layers, from the first up.
    pub layers: Vec<LayerSummary>,
    /// The learning rule, or the route if it has no name; `None` for a network without feedback.
    pub rule: Option<String>,
    /// How many numbers all feedback matrices store together. A shared matrix counts once.
    pub feedback_entries: usize,
}

/// One weighted layer of a [`Summary`], with the operations after it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LayerSummary {
    /// The layer, counted from 0.
    pub layer: usize,
    /// The kind of layer and the operations after it, such as `dense tanh` or
    /// `conv2d 5×5 batch-norm relu`.
    pub kind: String,
    /// The shape of the output, after the last operation.
    pub output: Shape,
    /// Number of weights and biases, and of scales and shifts of normalisations.
    pub parameters: usize,
    /// Whether training leaves the layer as it is.
    pub frozen: bool,
    /// The layer's feedback: each hop of the route, with rows and columns of its matrix; `None` if it
    /// goes through the forward weights.
    pub feedback: Vec<(Hop, Option<(usize, usize)>)>,
}

impl Summary {
    /// Number of weights and biases, and of scales and shifts of normalisations, in all.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameters).fold(0, usize::saturating_add)
    }
}

impl<T: Scalar> Network<T> {
    /// The layers and their sizes as a table. [`Feedback::summary`] adds the feedback.
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let network = Network::<f32>::builder(4).dense(3).tanh().dense(2).build()?;
    /// let summary = network.summary();
    /// assert_eq!(summary.layers[0].parameters, 3 * 4 + 3);
    /// assert_eq!(summary.parameters(), network.parameter_count());
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    #[must_use]
    pub fn summary(&self) -> Summary {
        let outputs = self.architecture.outputs();
        let layers = self.blocks.iter().zip(outputs).enumerate();
        let layers = layers.map(|(layer, (block, output))| {
            let slots = self.parameters.slots().iter().filter(|slot| slot.layer == layer);
            let parameters = slots.filter(|slot| slot.part.is_learned()).map(Slot::len).sum();
            let (kind, frozen) = (kind(block), block.frozen);
            LayerSummary { layer, kind, output, parameters, frozen, feedback: Vec::new() }
        });
        Summary {
            input: self.architecture.input,
            input_operations: names(&self.layout.input_operations).join(" "),
            layers: layers.collect(),
            rule: None,
            feedback_entries: 0,
        }
    }
}

impl<T: Scalar> Feedback<T> {
    /// The layers of the network and the feedback that each of them gets, as a table.
    ///
    /// # Errors
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) for another network.
    pub fn summary(&self, network: &Network<T>) -> Result<Summary> {
        self.require_network(network)?;
        let mut summary = network.summary();
        for row in &mut summary.layers {
            row.feedback = self.hops_to(row.layer);
        }
        summary.rule = Some(self.rule_name());
        summary.feedback_entries = self.matrix_entries();
        Ok(summary)
    }
}

fn kind(block: &Block) -> String {
    let own = match &block.map {
        LinearMap::Dense => "dense".into(),
        LinearMap::Conv2d(conv) => {
            let windows = conv.windows;
            let besides = |name, (down, right): (usize, usize), usual| {
                if (down, right) == usual {
                    String::new()
                } else {
                    format!(" {name} {down}×{right}")
                }
            };
            let stride = besides("stride", windows.stride, (1, 1));
            let padding = besides("padding", windows.padding, (0, 0));
            format!("conv2d {}×{}{stride}{padding}", windows.kernel.0, windows.kernel.1)
        }
    };
    [vec![own], names(&block.operations)].concat().join(" ")
}

fn names(operations: &[Operation]) -> Vec<String> {
    operations.iter().map(ToString::to_string).collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head =
            self.rule.as_ref().map_or(String::new(), |rule| format!("feedback under {rule}"));
        let input = (self.input.to_string(), dash(), dash());
        let mut rows = vec![
            ["layer".into(), String::new(), "output".into(), "parameters".into(), head],
            ["input".into(), self.input_operations.clone(), input.0, input.1, input.2],
        ];
        rows.extend(self.layers.iter().map(LayerSummary::cells));
        let entries = format!("{} numbers", grouped(self.feedback_entries));
        rows.push([
            "all".into(),
            String::new(),
            String::new(),
            grouped(self.parameters()),
            entries,
        ]);
        if self.rule.is_none() {
            rows.iter_mut().for_each(|row| row[4].clear());
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let [first, kind, output, parameters] =
            [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
        for (number, [a, b, c, d, e]) in rows.iter().enumerate() {
            let line = format!("{a:<first$}  {b:<kind$}  {c:>output$}  {d:>parameters$}  {e}");
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl LayerSummary {
    /// The cells of its row in the table.
    fn cells(&self) -> [String; 5] {
        let frozen = if self.frozen { " (frozen)" } else { "" };
        let hop = |&(hop, shape): &(Hop, Option<(usize, usize)>)| {
            let shape = shape.map(|(rows, columns)| format!(" {rows}×{columns}"));
            format!("{}({}){}", hop.through, hop.signal, shape.unwrap_or_default())
        };
        let feedback = match &self.feedback[..] {
            [] => dash(),
            hops => hops.iter().map(hop).collect::<Vec<_>>().join(" + "),
        };
        [
            self.layer.to_string(),
            format!("{}{frozen}", self.kind),
            self.output.to_string(),
            grouped(self.parameters),
            feedback,
        ]
    }
}

fn dash() -> String {
    "–".into()
}

/// The number with a comma before every three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        let pairs = [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456")];
        assert!(pairs.into_iter().all(|(number, text)| grouped(number) == text));
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}
