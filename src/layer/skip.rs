//! Residual connections.

use std::fmt;

use crate::scalar::Scalar;

/// A residual connection (He et al. 2016, eq. 1): `y = x + h`, where `h` is what an earlier layer
/// passes on, of the same shape.
///
/// On its way back a delta goes on unchanged, and a copy of it takes the short way to the end of the
/// layer that `h` is from. That copy belongs to the way *down*: it arrives there under BP and FA, and
/// on every [`Route`](crate::Route) whose hop to that layer comes down from the next one through its
/// weights, or through random ones in their place. A layer that receives its feedback straight, as
/// under DFA, receives nothing but that. On the way *up*, under IFA, the connection adds what goes up
/// as it adds activations in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The layer that `h` is from, or the input.
    pub(crate) from: Option<usize>,
    /// How many layers lie between.
    layers: usize,
    /// Length of `h`.
    size: usize,
}

impl Skip {
    /// From so many layers below `layer`.
    pub(crate) fn new(layer: usize, layers: usize, size: usize) -> Self {
        Self { from: layer.checked_sub(layers), layers, size }
    }

    /// How many weighted layers it leads past.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// `y ← x + h`
    pub(crate) fn forward<T: Scalar>(x: &[T], h: &[T], y: &mut [T]) {
        for ((y, &x), &h) in y.iter_mut().zip(x).zip(h) {
            *y = x + h;
        }
    }
}

/// `to ← to + more`: what takes the short way, beside what has come the long one.
pub(crate) fn add<T: Scalar>(to: &mut [T], more: &[T]) {
    to.iter_mut().zip(more).for_each(|(to, &more)| *to += more);
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip {}", self.layers)
    }
}
