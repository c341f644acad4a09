//! The gradients: what an optimiser's step follows.

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

/// The gradient of every parameter: `∂W_l = δ_l h_{l-1}ᵀ`, `∂b_l = Σ δ_l`, `∂γ_l` and `∂β_l`. For
/// running statistics, which have no gradient, the statistics of the batch.
#[derive(Clone, Debug)]
pub struct Gradients<T> {
    /// The network that they belong to.
    pub(crate) layout: Arc<Layout>,
    pub(crate) numbers: Parameters<T>,
    /// Whether each parameter, by its slot, has a gradient. If no feedback has arrived it has none.
    /// That is not the same as a gradient of 0: without a gradient its moments do not change either.
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

    /// Gives the gradients the shapes of the parameters, if they do not have them yet.
    pub(crate) fn fit(&mut self, layout: &Arc<Layout>) -> Result<()> {
        if !Layout::same(&self.layout, layout) {
            self.layout = Arc::default(); // An error below must not leave a layout without its memory.
            self.numbers = Parameters::zeros(&layout.table)?;
            self.learned.clear();
            self.learned.resize(layout.table.slots().len(), false);
            self.layout = Arc::clone(layout);
        }
        Ok(())
    }

    /// The numbers of slot `index` of a layer, and whether it has a gradient.
    pub(crate) fn slot_mut(&mut self, layer: usize, index: usize) -> (&mut [T], &mut bool) {
        let place = self.layout.table.indices(layer).start + index;
        let slot = self.layout.table.slots()[place];
        (self.numbers.slot_mut(&slot), &mut self.learned[place])
    }

    /// The numbers of a layer, and for each of its slots whether it has a gradient.
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

    /// The gradient of a hop's matrix, for writing.
    pub(crate) fn feedback_mut(&mut self, hop: usize) -> &mut [T] {
        self.feedback[hop].as_mut_slice()
    }

    /// The gradient of a hop's matrix, if there is one of this shape.
    pub(crate) fn of_feedback(&self, hop: usize, shape: (usize, usize)) -> Option<&[T]> {
        let found = self.feedback.get(hop)?;
        ((found.rows(), found.batch()) == shape).then(|| found.as_slice())
    }

    /// The gradients of feedback matrices that have their own, array by array. The [norm](Self::norm)
    /// does not include them, and clipping leaves them alone. Together with
    /// [`as_slice`](Self::as_slice) they are all that a step uses.
    pub fn feedback_values(&self) -> impl Iterator<Item = &[T]> {
        self.feedback.iter().filter(|gradient| gradient.rows() > 0).map(Columns::as_slice)
    }

    /// The same, for changing them.
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

    /// The gradient of any parameter of layer `layer`, or of the first normalisation after it that has
    /// such a parameter; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn get(&self, layer: usize, part: Part) -> Result<Option<DMatrixView<'_, T>>> {
        self.require_layer(layer)?;
        Ok(self.numbers.get(layer, part))
    }

    /// `∂W_l`, for changing it before the optimiser's step.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn weights_mut(&mut self, layer: usize) -> Result<DMatrixViewMut<'_, T>> {
        self.require_layer(layer)?;
        let found = self.numbers.get_mut(layer, Part::Weights);
        Ok(found.expect("every layer has weights"))
    }

    /// `∂b_l`, for changing it before the optimiser's step; `None` if the layer has no bias.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn bias_mut(&mut self, layer: usize) -> Result<Option<DVectorViewMut<'_, T>>> {
        self.require_layer(layer)?;
        let slot = self.numbers.find(layer, Part::Bias);
        Ok(slot.map(|slot| DVectorViewMut::from_slice(self.numbers.slot_mut(&slot), slot.rows)))
    }

    /// All numbers in a row, in the order of [`Parameters::as_slice`]: gradients, statistics of the
    /// batch, and zeros between them. Processes that share a batch average exactly these numbers.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        self.numbers.as_slice()
    }

    /// [`as_slice`](Self::as_slice), for writing.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.numbers.as_mut_slice()
    }

    /// All gradients, array by array: for each layer `∂W` column by column, `∂b`, and `∂γ` and `∂β`
    /// of its normalisations.
    pub fn values(&self) -> impl Iterator<Item = &[T]> {
        let slots = self.numbers.slots().iter().filter(|slot| slot.part.is_learned());
        slots.map(|slot| self.numbers.slot(slot))
    }

    /// The same, for changing them: to add noise, or to clip them in another way.
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

    /// Scales all [values](Self::values) down so that their [norm](Self::norm) is at most `largest`:
    /// `g ← g · min(1, largest/‖g‖)` (Pascanu, Mikolov and Bengio 2013, algorithm 1). Returns the norm
    /// before scaling.
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

    /// Limits every one of the [values](Self::values) to `[−largest, largest]`; NaN stays NaN.
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

    /// Adds `factor` times the gradients of another batch for the same network; statistics of the batch
    /// too. If a batch is cut into `k` equal parts, adding all parts with a factor of `1/k` gives the
    /// gradient of the whole batch, provided there is no batch normalisation. [`Gradients::new`] is 0.
    ///
    /// # Errors
    /// [`Error::StageMismatch`] if the other gradients belong to another network, or have gradients of
    /// feedback matrices of other shapes,
    /// [`Error::InvalidParameter`] unless the factor is finite in the scalar type. After an error
    /// nothing has changed.
    pub fn add(&mut self, other: &Self, factor: f64) -> Result<()> {
        let by = T::of(factor);
        require(by.is_finite(), "factor", factor, "a finite number")?;
        if self.learned.is_empty() {
            self.fit(&other.layout)?;
        }
        require_layout("add", "gradients", &self.layout, &other.layout)?;
        let fits = self.feedback.iter().map(shape).eq(other.feedback.iter().map(shape));
        if !fits && !self.feedback.is_empty() && !other.feedback.is_empty() {
            let shapes = |feedback: &[Columns<T>]| feedback.iter().map(shape).collect::<Vec<_>>();
            return Err(Error::StageMismatch {
                stage: "add",
                what: "gradients of feedback",
                expected: format!("matrices of {:?} rows and columns", shapes(&self.feedback)),
                found: format!("matrices of {:?}", shapes(&other.feedback)),
            });
        }
        if self.feedback.is_empty() && !other.feedback.is_empty() {
            self.fit_feedback(other.feedback.iter().map(shape))?;
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

    /// Fails unless they belong to a network of this layout.
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
    /// Compares the gradients, not the network that they belong to.
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

/// Rows and columns of the gradient of a feedback matrix.
fn shape<T: Scalar>(matrix: &Columns<T>) -> (usize, usize) {
    (matrix.rows(), matrix.batch())
}
