//! The deltas: what each layer learns from.

use std::sync::Arc;

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::{
    activations::Activations,
    block_deltas::BlockDeltas,
    layout::{Layout, require_layout},
    signals::{AtOutput, Made},
};
use crate::{
    buffer::Columns,
    error::{Error, Result},
    scalar::Scalar,
    signal::Signal,
};

/// What each layer learns from: `δ_l`, of shape `n_l × N`, for every block.
///
/// [`Loss::error`](crate::Loss::error) writes the last one, `δ_L = e`, and
/// [`Feedback::deliver`](crate::Feedback::deliver) writes the hidden ones. Under backpropagation `δ_l`
/// is `∂J/∂a_l`; other rules put something else in its place.
#[derive(Clone, Debug)]
pub struct Deltas<T> {
    pub(crate) layout: Arc<Layout>,
    pub(crate) batch: usize,
    /// The forward pass that the deltas belong to.
    pub(crate) pass: usize,
    /// Whether feedback has reached the hidden layers.
    pub(crate) delivered: bool,
    /// Whether there is room for everything.
    fits: bool,
    pub(crate) blocks: Vec<BlockDeltas<T>>,
    made: Made<T>,
    /// `t/N`
    target: BlockDeltas<T>,
    kept: Kept,
}

/// Whether the targets of the samples are stored, for a route that sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// No hop sends the targets, so no loss has to store them. Only a trainer knows this beforehand.
    Unwanted,
    /// No loss has stored them yet. A loss of your own never does.
    Missing,
    Present,
}

impl<T: Scalar> Deltas<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layout: Arc::default(),
            batch: 0,
            pass: 0,
            delivered: false,
            fits: false,
            blocks: Vec::new(),
            made: Made::default(),
            target: BlockDeltas::new(&[0], &[]),
            kept: Kept::Missing,
        }
    }

    /// Makes room for the deltas of a forward pass.
    pub(crate) fn fit(&mut self, activations: &Activations<T>) -> Result<()> {
        let Activations { layout, batch, .. } = activations;
        self.pass = 0;
        self.begin_delivery();
        self.delivered = false;
        if self.kept == Kept::Present {
            self.kept = Kept::Missing;
        }
        let same = Layout::same(&self.layout, layout);
        if same && self.batch == *batch && self.fits {
            self.pass = activations.pass;
            return Ok(());
        }
        self.fits = false;
        if !same {
            self.layout = Arc::clone(layout);
            self.blocks = layout
                .blocks
                .iter()
                .zip(&layout.operations)
                .map(|(block, operations)| BlockDeltas::new(&block.stages, operations))
                .collect();
            let outputs = layout.blocks.last().map_or(0, |output| output.a);
            self.made = Made::default();
            self.target = BlockDeltas::new(&[outputs], &[]);
            self.begin_delivery();
            self.delivered = false;
        }
        self.batch = *batch;
        let mut stages = self.blocks.iter_mut().flat_map(|block| &mut block.stages);
        stages.try_for_each(|stage| stage.set_batch(*batch))?;
        for (block, operations) in self.blocks.iter_mut().zip(&layout.operations) {
            let mut learned = block.learned.iter_mut().zip(operations);
            learned.try_for_each(|(learned, operation)| operation.reserve_learned(learned))?;
            block.skipped.iter_mut().try_for_each(|copy| copy.set_batch(*batch))?;
        }
        self.pass = activations.pass;
        self.fits = true;
        Ok(())
    }

    /// Forgets which hidden layers feedback has reached; the output layer has its error.
    pub(crate) fn begin_delivery(&mut self) {
        let output = self.blocks.len().saturating_sub(1);
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            (block.served, block.sent_up) = (layer == output, false);
            block.learned.iter_mut().flatten().for_each(Vec::clear);
        }
        self.delivered = true;
    }

    /// Notes that feedback has reached a layer.
    pub(crate) fn serve(&mut self, layer: usize) {
        self.blocks[layer].served = true;
        self.delivered = true;
    }

    /// Fails if a route sends the targets but they are not stored.
    pub(crate) fn require_target(&self) -> Result<()> {
        if self.kept == Kept::Present {
            return Ok(());
        }
        Err(Error::StageMismatch {
            stage: "deliver",
            what: "deltas",
            expected: "the targets, which the route sends".into(),
            found: "deltas that no Loss began".into(),
        })
    }

    /// Makes these signals from the error.
    pub(crate) fn make(&mut self, signals: &[Signal]) -> Result<()> {
        self.blocks.last().map_or(Ok(()), |e| self.made.make(signals, e.delta()))
    }

    /// The signal that a hop sends.
    pub(crate) fn signal(&self, signal: Signal) -> &BlockDeltas<T> {
        match signal {
            Signal::Delta(from) => &self.blocks[from],
            _ => self.at_output().get(signal),
        }
    }

    /// The signal that a hop sends, and the block that it leads to.
    pub(crate) fn sent(
        &mut self,
        signal: Signal,
        to: usize,
    ) -> (&BlockDeltas<T>, &mut BlockDeltas<T>) {
        let from = match signal {
            Signal::Error => self.blocks.len() - 1,
            Signal::Delta(from) => from,
            Signal::Target => return (&self.target, &mut self.blocks[to]),
            made => return (self.made.get(made), &mut self.blocks[to]),
        };
        let pair = self.blocks.get_disjoint_mut([from, to]);
        let [from, to] = pair.expect("a hop leads from one block to another");
        (from, to)
    }

    /// Adds the copies that residual connections send down to a layer to what has arrived there.
    pub(crate) fn add_what_was_skipped(&mut self, to: usize) {
        let (below, above) = self.blocks.split_at_mut(to + 1);
        let arrived = below[to].arrival().as_mut_slice();
        for (block, operations) in above.iter().zip(&self.layout.operations[to + 1..]) {
            for (copy, operation) in block.skipped.iter().zip(operations) {
                let skip = operation.skip().filter(|skip| skip.from == Some(to));
                if let Some(skip) = skip.filter(|_| block.served) {
                    skip.add_down(copy.as_slice(), arrived);
                }
            }
        }
    }

    /// The signals of the output, and the deltas of the hidden layers.
    pub(crate) fn split_output(&mut self) -> (AtOutput<'_, T>, &mut [BlockDeltas<T>]) {
        let (e, hidden) = self.blocks.split_last_mut().expect("a network has an output layer");
        (AtOutput { e, made: &self.made, target: &self.target }, hidden)
    }

    /// The signals that come from the output layer.
    pub(crate) fn at_output(&self) -> AtOutput<'_, T> {
        let e = self.blocks.last().expect("a network has an output layer");
        AtOutput { e, made: &self.made, target: &self.target }
    }

    /// Whether losses have to store the targets here from now on.
    pub(crate) fn keep_target(&mut self, keep: bool) {
        match keep {
            false => self.kept = Kept::Unwanted,
            true if self.kept == Kept::Unwanted => self.kept = Kept::Missing,
            true => {}
        }
    }

    /// Stores `t/N`, if the targets are wanted. `write` writes a target for every number of `e`.
    pub(crate) fn set_target(&mut self, write: impl FnOnce(&mut [T])) -> Result<()> {
        if self.kept == Kept::Unwanted {
            return Ok(());
        }
        self.target.stages[0].set_batch(self.batch)?;
        let target = self.target.stages[0].as_mut_slice();
        write(target);
        let share = T::of((self.batch as f64).recip());
        target.iter_mut().for_each(|target| *target *= share);
        self.kept = Kept::Present;
        Ok(())
    }

    /// `e`, the delta of the output layer.
    pub(crate) fn error_mut(&mut self) -> &mut Columns<T> {
        self.blocks.last_mut().expect("a network has an output layer").arrival()
    }

    /// Begins the deltas of a forward pass for a loss of your own, in place of a [`Loss`](crate::Loss).
    /// Write `e = ∂J/∂a_L`, of shape `n_L × N`, into the result. `J` is the mean over the batch, so the
    /// `e` of each sample carries a factor `1/N`. The old content is unspecified, so write every entry.
    ///
    /// ```
    /// use feedback_alignment::*;
    /// use nalgebra::DMatrix;
    ///
    /// // J = mean of |a − t|
    /// let network = Network::<f64>::builder(2).dense(3).tanh().dense(1).build()?;
    /// let (x, t) = (DMatrix::from_element(2, 4, 0.5), DMatrix::from_element(1, 4, 1.0));
    /// let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    /// network.forward(&x, &mut activations)?;
    /// let e = (activations.logits()? - &t).map(|difference| difference.signum() / 4.0);
    /// deltas.begin(&activations)?.copy_from(&e);
    /// Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::default(), 0)?
    ///     .deliver(&network, &activations, &mut deltas)?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Empty`] before the first forward pass, [`Error::TooLarge`].
    pub fn begin(&mut self, activations: &Activations<T>) -> Result<DMatrixViewMut<'_, T>> {
        activations.logit_columns()?;
        self.fit(activations)?;
        Ok(self.error_mut().view_mut())
    }

    /// The feedback at the end of layer `layer`, after its pooling, for a rule of your own to write.
    /// [`Network::backward`](crate::Network::backward) then turns it into `δ_l`. At the output layer
    /// this is `e`.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last pass has no such layer.
    pub fn arriving_mut(&mut self, layer: usize) -> Result<DMatrixViewMut<'_, T>> {
        self.block_mut(layer).map(|block| block.arrival().view_mut())
    }

    /// `δ_l`, to change it after [`Feedback::deliver`](crate::Feedback::deliver), or to write it
    /// without that call. The layer learns from what you leave there. A normalisation after the layer
    /// still learns from what was delivered, and from nothing if nothing was.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last pass has no such layer.
    pub fn delta_mut(&mut self, layer: usize) -> Result<DMatrixViewMut<'_, T>> {
        self.block_mut(layer)?;
        self.serve(layer);
        Ok(self.blocks[layer].stages[0].view_mut())
    }

    fn block_mut(&mut self, layer: usize) -> Result<&mut BlockDeltas<T>> {
        let count = self.blocks.len();
        let what = "weighted layer";
        self.blocks.get_mut(layer).ok_or(Error::NoSuchLayer { what, layer, count })
    }

    /// `δ_l`, of shape `n_l × N`; layers are counted from 0. If no feedback has reached the layer, the
    /// content is unspecified.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if the network of the last pass has no such layer.
    pub fn delta(&self, layer: usize) -> Result<DMatrixView<'_, T>> {
        self.blocks.get(layer).map(|block| block.delta().view()).ok_or(Error::NoSuchLayer {
            what: "weighted layer",
            layer,
            count: self.blocks.len(),
        })
    }
}

impl<T: Scalar> Default for Deltas<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Fails unless `deltas` and `activations` belong to the same forward pass of a network of `layout`.
pub(crate) fn require_match<T: Scalar>(
    stage: &'static str,
    layout: &Arc<Layout>,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> Result<()> {
    require_layout(stage, "activations", layout, &activations.layout)?;
    require_layout(stage, "deltas", layout, &deltas.layout)?;
    let pass = |pass, batch| match pass {
        0 => "no forward pass".to_owned(),
        _ => format!("forward pass {pass} ({batch} samples)"),
    };
    if activations.pass == 0 || deltas.pass != activations.pass {
        return Err(Error::StageMismatch {
            stage,
            what: "deltas",
            expected: pass(activations.pass, activations.batch),
            found: pass(deltas.pass, deltas.batch),
        });
    }
    Ok(())
}

/// [`require_match`] for deltas that feedback must have been delivered to.
pub(crate) fn require_delivered<T: Scalar>(
    stage: &'static str,
    layout: &Arc<Layout>,
    activations: &Activations<T>,
    deltas: &Deltas<T>,
) -> Result<()> {
    require_match(stage, layout, activations, deltas)?;
    if deltas.delivered || deltas.blocks.len() == 1 {
        return Ok(());
    }
    let expected = "deltas of every layer: call Feedback::deliver first".to_owned();
    let found = "that of the output layer alone".to_owned();
    Err(Error::StageMismatch { stage, what: "deltas", expected, found })
}
