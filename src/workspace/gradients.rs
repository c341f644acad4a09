//! What the parameters follow.

use std::sync::Arc;

use nalgebra::{DMatrix, DMatrixViewMut, DVector, DVectorViewMut};

use super::layout::{Layout, require_layout};
use crate::{
    angle::norm,
    error::{Error, Result, require, require_finite, require_positive},
    layer::{LayerGradient, NormGradient},
    scalar::Scalar,
};

/// `∂W_l = δ_l h_{l-1}ᵀ` and `∂b_l = Σ δ_l` of every layer, each in the shape of its parameter.
#[derive(Clone, Debug)]
pub struct Gradients<T> {
    /// The network that they are of.
    pub(crate) layout: Arc<Layout>,
    pub(crate) layers: Vec<LayerGradient<T>>,
    /// For each block and operation; empty but for batch normalisation.
    pub(crate) norms: Vec<Vec<NormGradient<T>>>,
    /// Whether feedback has reached a block; one that it has not does not learn.
    pub(crate) served: Vec<bool>,
}

impl<T: Scalar> Gradients<T> {
    /// Empty scratch for any network.
    #[must_use]
    pub fn new() -> Self {
        let (layers, norms, served) = (Vec::new(), Vec::new(), Vec::new());
        Self { layout: Arc::default(), layers, norms, served }
    }

    /// `∂W_l`, `n_l × n_{l-1}`; layers are counted from 0.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn weights(&self, layer: usize) -> Result<&DMatrix<T>> {
        self.layer(layer).map(|gradient| &gradient.weights)
    }

    /// `∂b_l`, of length `n_l`, unless the layer has no bias.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn bias(&self, layer: usize) -> Result<Option<&DVector<T>>> {
        self.layer(layer).map(|gradient| gradient.bias.as_ref())
    }

    /// `∂γ` and `∂β` of the batch normalisation after layer `layer`, the first if there are
    /// several; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn batch_norm(&self, layer: usize) -> Result<Option<(&[T], &[T])>> {
        self.layer(layer)?;
        let norm = self.norms[layer].iter().find(|norm| !norm.scale.is_empty());
        Ok(norm.map(|norm| (&norm.scale[..], &norm.shift[..])))
    }

    /// `∂W_l`, to be changed before the optimiser's step.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn weights_mut(&mut self, layer: usize) -> Result<DMatrixViewMut<'_, T>> {
        self.layer(layer)?;
        Ok(self.layers[layer].weights.as_view_mut())
    }

    /// `∂b_l`, to be changed before the optimiser's step; `None` if the layer has no bias.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] if there is no such layer.
    pub fn bias_mut(&mut self, layer: usize) -> Result<Option<DVectorViewMut<'_, T>>> {
        self.layer(layer)?;
        Ok(self.layers[layer].bias.as_mut().map(DVector::as_view_mut))
    }

    /// All numbers that parameters follow, array by array: for each layer `∂W` column by column,
    /// `∂b`, and `∂γ` and `∂β` of its batch normalisations.
    pub fn values(&self) -> impl Iterator<Item = &[T]> {
        self.layers.iter().zip(&self.norms).flat_map(|(layer, norms)| {
            let bias = layer.bias.as_ref().map(DVector::as_slice);
            let norms = norms.iter().flat_map(|norm| [&norm.scale[..], &norm.shift[..]]);
            [layer.weights.as_slice()].into_iter().chain(bias).chain(norms)
        })
    }

    /// The same, to be changed: to add noise, or to clip them in a way of one's own.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        self.layers.iter_mut().zip(&mut self.norms).flat_map(|(layer, norms)| {
            let bias = layer.bias.as_mut().map(DVector::as_mut_slice);
            let norms =
                norms.iter_mut().flat_map(|norm| [&mut norm.scale[..], &mut norm.shift[..]]);
            [layer.weights.as_mut_slice()].into_iter().chain(bias).chain(norms)
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
        if self.layers.is_empty() {
            *self = other.clone();
            self.values_mut().for_each(|values| values.fill(T::zero()));
            self.statistics_mut().for_each(|values| values.fill(T::zero()));
        }
        require_layout("add", "gradients", &self.layout, &other.layout)?;
        for (served, &there) in self.served.iter_mut().zip(&other.served) {
            *served |= there;
        }
        for (to, from) in self.norms.iter_mut().flatten().zip(other.norms.iter().flatten()) {
            to.fill_up_to(from);
        }
        let add = |to: &mut [T], from: &[T]| {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += by * from);
        };
        self.values_mut().zip(other.values()).for_each(|(to, from)| add(to, from));
        self.statistics_mut().zip(other.statistics()).for_each(|(to, from)| add(to, from));
        Ok(())
    }

    /// The statistics of the batch that running ones follow.
    fn statistics(&self) -> impl Iterator<Item = &[T]> {
        self.norms.iter().flatten().flat_map(|norm| [&norm.mean[..], &norm.variance[..]])
    }

    fn statistics_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let norms = self.norms.iter_mut().flatten();
        norms.flat_map(|norm| [&mut norm.mean[..], &mut norm.variance[..]])
    }

    fn layer(&self, layer: usize) -> Result<&LayerGradient<T>> {
        self.layers.get(layer).ok_or(Error::NoSuchLayer {
            what: "weighted layer",
            layer,
            count: self.layers.len(),
        })
    }
}

impl<T: PartialEq> PartialEq for Gradients<T> {
    /// Compares what is to be learned and by which layers, not the network that it is of.
    fn eq(&self, other: &Self) -> bool {
        self.layers == other.layers && self.norms == other.norms && self.served == other.served
    }
}

impl<T: Scalar> Default for Gradients<T> {
    fn default() -> Self {
        Self::new()
    }
}
