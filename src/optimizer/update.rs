//! The arithmetic of an optimiser: what becomes of a parameter, given its gradient and moments.

use multiversion::multiversion;

use super::{Adam, AdamW, Momentum, Optimizer, RmsProp, Sgd, WeightDecay};
use crate::scalar::Scalar;

/// One step of an optimiser with its constants in the network's scalar: the same function of a
/// parameter, its gradient and its moments for every parameter.
#[derive(Clone, Copy)]
pub(super) enum Update<T> {
    Sgd { rate: T, l2: T, keep: T, momentum: Option<(T, Lookahead)> },
    RmsProp { rate: T, decay: T, fresh: T, epsilon: T },
    Adam { rate: T, keep: T, beta1: T, fresh1: T, beta2: T, fresh2: T, correction: T, epsilon: T },
}

/// Whether a momentum step looks ahead, as Nesterov's does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookahead {
    No,
    Yes,
}

impl<T: Scalar> Update<T> {
    /// Step number `t`, counted from 1, at learning rate `rate`.
    pub(super) fn new(optimizer: Optimizer, rate: f64, t: u64) -> Self {
        let adam = |adam: Adam, weight_decay: f64| {
            let t = i32::try_from(t).unwrap_or(i32::MAX);
            Self::Adam {
                rate: T::of(rate / (1.0 - adam.beta1.powi(t))),
                keep: T::of(1.0 - rate * weight_decay),
                beta1: T::of(adam.beta1),
                fresh1: T::of(1.0 - adam.beta1),
                beta2: T::of(adam.beta2),
                fresh2: T::of(1.0 - adam.beta2),
                correction: T::of((1.0 - adam.beta2.powi(t)).sqrt().recip()),
                epsilon: T::of(adam.epsilon),
            }
        };
        match optimizer {
            Optimizer::Sgd(Sgd { momentum, weight_decay, .. }) => {
                let (l2, decoupled) = match weight_decay {
                    WeightDecay::None => (0.0, 0.0),
                    WeightDecay::L2(lambda) => (lambda, 0.0),
                    WeightDecay::Decoupled(lambda) => (0.0, lambda),
                };
                Self::Sgd {
                    rate: T::of(rate),
                    l2: T::of(l2),
                    keep: T::of(1.0 - rate * decoupled),
                    momentum: match momentum {
                        Momentum::None => None,
                        Momentum::Classical(mu) => Some((T::of(mu), Lookahead::No)),
                        Momentum::Nesterov(mu) => Some((T::of(mu), Lookahead::Yes)),
                    },
                }
            }
            Optimizer::RmsProp(RmsProp { decay, epsilon, .. }) => Self::RmsProp {
                rate: T::of(rate),
                decay: T::of(decay),
                fresh: T::of(1.0 - decay),
                epsilon: T::of(epsilon),
            },
            Optimizer::Adam(config) => adam(config, 0.0),
            Optimizer::AdamW(AdamW { adam: config, weight_decay }) => adam(config, weight_decay),
        }
    }

    /// The same step without weight decay, for biases.
    pub(super) fn without_decay(mut self) -> Self {
        match &mut self {
            Self::Sgd { l2, keep, .. } => (*l2, *keep) = (T::zero(), T::one()),
            Self::RmsProp { .. } => {}
            Self::Adam { keep, .. } => *keep = T::one(),
        }
        self
    }

    /// Steps on the parameters `w` with gradients `g`; the moments are as long as `w`, where the
    /// optimiser has them.
    pub(super) fn apply(self, w: &mut [T], g: &[T], [first, second]: [&mut [T]; 2]) {
        apply(self, w, g, first, second);
    }

    /// Steps on whole columns `w` with the gradient `δ hᵀ` of a single sample, which is never in
    /// memory.
    pub(super) fn apply_outer(
        self,
        w: &mut [T],
        (delta, h): (&[T], &[T]),
        [first, second]: [&mut [T]; 2],
    ) {
        apply_outer(self, w, delta, h, first, second);
    }

    /// The step on one parameter after the other.
    #[allow(clippy::inline_always)] // Or it would not be vectorised.
    #[inline(always)]
    fn each(
        self,
        w: &mut [T],
        gradients: impl Iterator<Item = T>,
        first: &mut [T],
        second: &mut [T],
    ) {
        match self {
            Self::Sgd { rate, l2, keep, momentum: None } => {
                for (w, g) in w.iter_mut().zip(gradients) {
                    *w = keep * *w - rate * (g + l2 * *w);
                }
            }
            Self::Sgd { rate, l2, keep, momentum: Some((mu, lookahead)) } => {
                for ((w, g), v) in w.iter_mut().zip(gradients).zip(first) {
                    let g = g + l2 * *w;
                    *v = mu * *v + g;
                    let step = if lookahead == Lookahead::Yes { g + mu * *v } else { *v };
                    *w = keep * *w - rate * step;
                }
            }
            Self::RmsProp { rate, decay, fresh, epsilon } => {
                for ((w, g), m) in w.iter_mut().zip(gradients).zip(first) {
                    *m = decay * *m + fresh * (g * g);
                    *w -= rate * g / (m.sqrt() + epsilon);
                }
            }
            Self::Adam { rate, keep, beta1, fresh1, beta2, fresh2, correction, epsilon } => {
                for (((w, g), m), v) in w.iter_mut().zip(gradients).zip(first).zip(second) {
                    *m = beta1 * *m + fresh1 * g;
                    *v = beta2 * *v + fresh2 * (g * g);
                    *w = keep * *w - rate * *m / (v.sqrt() * correction + epsilon);
                }
            }
        }
    }
}

/// [`Update::apply`], for the instruction set of this processor.
#[multiversion(targets = "simd")]
fn apply<T: Scalar>(update: Update<T>, w: &mut [T], g: &[T], first: &mut [T], second: &mut [T]) {
    update.each(w, g.iter().copied(), first, second);
}

/// [`Update::apply_outer`], for the instruction set of this processor.
#[multiversion(targets = "simd")]
fn apply_outer<T: Scalar>(
    update: Update<T>,
    w: &mut [T],
    delta: &[T],
    h: &[T],
    first: &mut [T],
    second: &mut [T],
) {
    let rows = delta.len();
    let (mut first, mut second) = (first.chunks_mut(rows), second.chunks_mut(rows));
    for (w, &h) in w.chunks_exact_mut(rows).zip(h) {
        let gradients = delta.iter().map(|&delta| delta * h);
        let (first, second) = (first.next().unwrap_or_default(), second.next().unwrap_or_default());
        update.each(w, gradients, first, second);
    }
}
