//! What the parameters follow.

use std::sync::Arc;

use nalgebra::{DMatrixView, DMatrixViewMut, DVectorView, DVectorViewMut};

use super::layout::{Layout, require_layout};
use crate::{
    angle::norm,
    buffer::Columns,
    error::{Error, Result, require, require_finite, require_positive},
    parameters::{OfLayer, Parameters, Part},
    scalar::Scalar,
};

/// What every parameter follows: `∂W_l = δ_l h_{l-1}ᵀ`, `∂b_l = Σ δ_l`, `∂γ_l` and `∂β_l`, and of
/// running statistics those of the batch.
#[derive(Clone, Debug)]
pub struct Gradients<T> {
    /// The network that they are of.
    pub(crate) layout: Arc<Layout>,
    pub(crate) numbers: Parameters<T>,
    /// Whether each parameter, by its slot, has something to follow. Where no feedback has arrived
    /// it has not, which is more than a gradient of 0: its moments rest too.
    learned: Vec<bool>,
    /// The gradients of feedback matrices, one for each hop; empty where a matrix has none of its own.
    feedback: Vec<Columns<T>>,
}

impl<T: Scalar> Gradients<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        let layout = Arc::<Layout>::default();
        let numbers = Parameters::none(&layout.table);
        Self { layout, numbers, learned: Vec::new(), feedback: Vec::new() }
    }

    /// Gives them the shapes of the parameters, if they have others.
    pub(crate) fn fit(&mut self, layout: &Arc<Layout>) -> Result<()> {
        if !Layout::same(&self.layout, layout) {
            self.layout = Arc::default(); // Until everything has its memory.
            self.numbers = Parameters::zeros(&layout.table)?;
            self.learned.clear();
            self.learned.resize(layout.table.slots().len(), false);
            self.layout = Arc::clone(layout);
        }
        Ok(())
    }

    /// The numbers of slot `index` of a layer, and whether there is something to follow in them.
    pub(crate) fn slot_mut(&mut self, layer: usize, index: usize) -> (&mut [T], &mut bool) {
        let place = self.layout.table.indices(layer).start + index;
        let slot = self.layout.table.slots()[place];
        (self.numbers.slot_mut(&slot), &mut self.learned[place])
    }

    /// The numbers of a layer, and for each of its slots whether there is something to follow.
    pub(crate) fn of_layer(&self, layer: usize) -> (OfLayer<'_, T>, &[bool]) {
        (self.numbers.layer(layer), &self.learned[self.layout.table.indices(layer)])
    }

    /// Removes the gradients of feedback matrices.
    pub(crate) fn clear_feedback(&mut self) {
        self.feedback.clear();
    }

    /// Makes room for gradients of these shapes, one for each hop of a route.
    pub(crate) fn fit_feedback(
        &mut self,
        shapes: impl ExactSizeIterator<Item = (usize, usize)>,
    ) -> Result<()> {
        self.feedback.resize_with(shapes.len(), Columns::default);
        let mut all = self.feedback.iter_mut().zip(shapes);
        all.try_for_each(|(gradient, (rows, columns))| gradient.set_shape(rows, columns))
    }

    /// The gradient of the matrix of a hop, to be written.
    pub(crate) fn feedback_mut(&mut self, hop: usize) -> &mut [T] {
        self.feedback[hop].as_mut_slice()
    }

    /// The gradient of the matrix of a hop, if there is one of this shape.
    pub(crate) fn of_feedback(&self, hop: usize, shape: (usize, usize)) -> Option<&[T]> {
        let found = self.feedback.get(hop)?;
        ((found.rows(), found.batch()) == shape).then(|| found.as_slice())
    }

    /// The gradients of feedback matrices that have one of their own, array by array; no
    /// [norm](Self::norm) counts them, and nothing clips them. With [`as_slice`](Self::as_slice) this
    /// is all that a step follows.
    pub fn feedback_values(&self) -> impl Iterator<Item = &[T]> {
        self.feedback.iter().filter(|gradient| gradient.rows() > 0).map(Columns::as_slice)
    }

    /// The same, to be changed.
    pub fn feedback_values_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        self.feedback.iter_mut().filter(|gradient| gradient.rows() > 0).map(Columns::as_mut_slice)
    }

    /// `∂W_l`, `n_l × n_{l-1}`; layers are counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn weights(&self, layer: usize) -> Result<DMatrixView<'_, T>> {
        let found = self.get(layer, Part::Weights)?;
        Ok(found.expect("every layer has weights"))
    }

    /// `∂b_l`, of length `n_l`, unless the layer has no bias.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn bias(&self, layer: usize) -> Result<Option<DVectorView<'_, T>>> {
        self.require_layer(layer)?;
        let slot = self.numbers.find(layer, Part::Bias);
        Ok(slot.map(|slot| DVectorView::from_slice(self.numbers.slot(&slot), slot.rows)))
    }

    /// What any parameter of layer `layer` follows, or of the first normalisation after it that has
    /// it; `None` if there is no such parameter.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn get(&self, layer: usize, part: Part) -> Result<Option<DMatrixView<'_, T>>> {
        self.require_layer(layer)?;
        Ok(self.numbers.get(layer, part))
    }

    /// `∂W_l`, to be changed before the optimiser's step.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn weights_mut(&mut self, layer: usize) -> Result<DMatrixViewMut<'_, T>> {
        self.require_layer(layer)?;
        let found = self.numbers.get_mut(layer, Part::Weights);
        Ok(found.expect("every layer has weights"))
    }

    /// `∂b_l`, to be changed before the optimiser's step; `None` if the layer has no bias.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn bias_mut(&mut self, layer: usize) -> Result<Option<DVectorViewMut<'_, T>>> {
        self.require_layer(layer)?;
        let slot = self.numbers.find(layer, Part::Bias);
        Ok(slot.map(|slot| DVectorViewMut::from_slice(self.numbers.slot_mut(&slot), slot.rows)))
    }

    /// All numbers one after the other, as [`Parameters::as_slice`] has them: gradients, statistics
    /// of the batch, and zeros between them. This is what processes that share a batch average.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        self.numbers.as_slice()
    }

    /// [`as_slice`](Self::as_slice), to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.numbers.as_mut_slice()
    }

    /// All gradients, array by array: for each layer `∂W` column by column, `∂b`, and `∂γ` and `∂β`
    /// of its normalisations.
    pub fn values(&self) -> impl Iterator<Item = &[T]> {
        let slots = self.numbers.slots().iter().filter(|slot| slot.part.is_learned());
        slots.map(|slot| self.numbers.slot(slot))
    }

    /// The same, to be changed: to add noise, or to clip them in a way of one's own.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let table = Arc::clone(self.numbers.table());
        let (mut rest, mut taken) = (self.numbers.as_mut_slice(), 0);
        (0..table.slots().len()).filter_map(move |index| {
            let slot = &table.slots()[index];
            let range = slot.range();
            let (_, from) = std::mem::take(&mut rest).split_at_mut(range.start - taken);
            let (values, after) = from.split_at_mut(range.len());
            (rest, taken) = (after, range.end);
            slot.part.is_learned().then_some(values)
        })
    }

    /// The Euclidean norm of all [values](Self::values), `‖g‖`.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.values().map(norm).fold(0.0, f64::hypot)
    }

    /// Scales all [values](Self::values) down so that their [norm](Self::norm) is at most
    /// `largest`: `g ← g · min(1, largest/‖g‖)` (Pascanu, Mikolov and Bengio 2013, algorithm 1).
    /// Returns the norm that they had.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `largest` is positive in the scalar,
    /// [`Error::NonFinite`] for gradients that are not finite.
    pub fn clip_norm(&mut self, largest: f64) -> Result<f64> {
        require_positive::<T>("the largest norm", largest)?;
        let norm = self.norm();
        require_finite(|| "the norm of the gradients".into(), 1, &[norm])?;
        if norm > largest {
            let factor = T::of(largest / norm);
            self.values_mut().flatten().for_each(|g| *g *= factor);
        }
        Ok(norm)
    }

    /// Moves every one of the [values](Self::values) into `[−largest, largest]`; NaN stays NaN.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `largest` is positive in the scalar.
    pub fn clip_values(&mut self, largest: f64) -> Result<()> {
        require_positive::<T>("the largest value", largest)?;
        let largest = T::of(largest);
        self.values_mut().flatten().for_each(|g| {
            if *g > largest {
                *g = largest;
            } else if *g < -largest {
                *g = -largest;
            }
        });
        Ok(())
    }

    /// Adds `factor` times other gradients of the same network, batch statistics included: with a
    /// factor of `1/k` for each of `k` equal parts of a batch, this is the gradient of the whole,
    /// where there is no batch normalisation. [`Gradients::new`] begins at 0.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if the others are of another network, [`Error::InvalidParameter`]
    /// unless the factor is finite in the scalar; nothing has then changed.
    pub fn add(&mut self, other: &Self, factor: f64) -> Result<()> {
        let by = T::of(factor);
        require(by.is_finite(), "factor", factor, "a finite number")?;
        if self.learned.is_empty() {
            self.fit(&other.layout)?;
        }
        require_layout("add", "gradients", &self.layout, &other.layout)?;
        if self.feedback.is_empty() && !other.feedback.is_empty() {
            self.fit_feedback(other.feedback.iter().map(|there| (there.rows(), there.batch())))?;
            self.feedback_values_mut().for_each(|values| values.fill(T::zero()));
        }
        for (to, from) in self.feedback.iter_mut().zip(&other.feedback) {
            let both = to.as_mut_slice().iter_mut().zip(from.as_slice());
            both.for_each(|(to, &from)| *to += by * from);
        }
        for (learned, &there) in self.learned.iter_mut().zip(&other.learned) {
            *learned |= there;
        }
        let numbers = self.numbers.as_mut_slice().iter_mut();
        numbers.zip(other.numbers.as_slice()).for_each(|(to, &from)| *to += by * from);
        Ok(())
    }

    /// Fails unless they are of a network of this layout.
    pub(crate) fn require(&self, layout: &Arc<Layout>) -> Result<()> {
        require_layout("gradients", "gradients", layout, &self.layout)
    }

    fn require_layer(&self, layer: usize) -> Result<()> {
        let count = self.layout.blocks.len();
        if layer < count {
            return Ok(());
        }
        Err(Error::NoSuchLayer { what: "weighted layer", layer, count })
    }
}

impl<T: Scalar> PartialEq for Gradients<T> {
    /// Compares what is to be learned, not the network that it is of.
    fn eq(&self, other: &Self) -> bool {
        (&self.numbers, &self.learned) == (&other.numbers, &other.learned)
            && self.feedback_values().eq(other.feedback_values())
    }
}

impl<T: Scalar> Default for Gradients<T> {
    fn default() -> Self {
        Self::new()
    }
}
