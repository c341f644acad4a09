//! The arithmetic of an optimiser: a parameter's new value from its gradient and moments.

use multiversion::multiversion;

use super::{Adam, AdamW, Momentum, Optimizer, RmsProp, Sgd, WeightDecay};
use crate::scalar::Scalar;

/// One step of an optimiser, with its constants in the network's scalar type. It treats every parameter
/// the same.
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

    /// Two upper bounds for this step: of the change of a parameter, its decay aside, and of the first
    /// moments after it. Known are bounds before it: of gradients (`g`), of first moments (`moment`)
    /// and of weights (`weights()`). The bounds are infinite if nothing better can be said.
    pub(super) fn largest_change(
        self,
        g: f64,
        moment: f64,
        weights: impl FnOnce() -> f64,
    ) -> (f64, f64) {
        match self {
            Self::Sgd { rate, l2, keep, momentum } => {
                let (rate, l2) = (rate.as_f64(), l2.as_f64());
                if keep.abs() > T::one() || l2 > 1.0 || rate * l2 > 1.0 {
                    return (f64::INFINITY, f64::INFINITY); // Such a decay would make weights grow.
                }
                let Some((mu, _)) = momentum else { return (rate * g, 0.0) };
                let g = if l2 > 0.0 { g + l2 * weights() } else { g };
                let moment = mu.as_f64() * moment + g;
                (rate * (g + moment), moment)
            }
            Self::RmsProp { rate, fresh, epsilon, .. } => {
                // √m is at least √fresh·|g|, unless m was so small that it became 0.
                let (rate, root) = (rate.as_f64(), fresh.as_f64().sqrt());
                let vanished = T::SMALLEST_NORMAL.sqrt() / root / epsilon.as_f64();
                (rate * 2.0 * (1.0 / root + vanished), 0.0)
            }
            Self::Adam { rate, keep, beta1, fresh1, epsilon, .. } => {
                if keep.abs() > T::one() {
                    return (f64::INFINITY, f64::INFINITY); // As above.
                }
                let moment = beta1.as_f64() * moment + fresh1.as_f64() * g;
                (rate.as_f64() * moment / epsilon.as_f64(), moment)
            }
        }
    }

    /// Makes the step on the parameters `w` with gradients `g`. A moment that the optimiser has is as
    /// long as `w`.
    pub(super) fn apply(&self, w: &mut [T], g: &[T], moments: [&mut [T]; 2]) {
        if !g.is_empty() {
            self.apply_outer(w, (g, &[T::one()]), moments);
        }
    }

    /// Makes the step on whole columns `w` with the gradient `δ hᵀ` of a single sample. The product is
    /// never stored.
    pub(super) fn apply_outer(
        &self,
        w: &mut [T],
        (delta, h): (&[T], &[T]),
        [first, second]: [&mut [T]; 2],
    ) {
        // A matrix of one row is treated as one column, to work on all of it at once.
        let (delta, h) = if let [_] = delta { (h, delta) } else { (delta, h) };
        if w.len() < FEW {
            return step_on_columns(self, w, delta, h, first, second);
        }
        apply_outer(self, w, delta, h, first, second);
    }
}

/// For fewer numbers, choosing an instruction set takes longer than it saves.
const FEW: usize = 16;

/// [`step_on_columns`], for the instruction set of this processor.
#[multiversion(targets = "simd")]
fn apply_outer<T: Scalar>(
    update: &Update<T>,
    w: &mut [T],
    delta: &[T],
    h: &[T],
    first: &mut [T],
    second: &mut [T],
) {
    step_on_columns(update, w, delta, h, first, second);
}

/// [`Update::apply_outer`]
#[allow(clippy::inline_always)] // Or it would not be compiled for an instruction set.
#[inline(always)]
fn step_on_columns<T: Scalar>(
    update: &Update<T>,
    mut w: &mut [T],
    delta: &[T],
    h: &[T],
    mut first: &mut [T],
    mut second: &mut [T],
) {
    let rows = delta.len();
    match *update {
        Update::Sgd { rate, l2, keep, momentum: None } => {
            for &h in h {
                for (w, &delta) in next_column(&mut w, rows).iter_mut().zip(delta) {
                    let g = delta * h;
                    *w = keep * *w - rate * (g + l2 * *w);
                }
            }
        }
        Update::Sgd { rate, l2, keep, momentum: Some((mu, lookahead)) } => {
            for &h in h {
                let (w, v) = (next_column(&mut w, rows), next_column(&mut first, rows));
                for ((w, &delta), v) in w.iter_mut().zip(delta).zip(v) {
                    let g = delta * h + l2 * *w;
                    *v = (mu * *v + g).without_subnormals();
                    let step = if lookahead == Lookahead::Yes { g + mu * *v } else { *v };
                    *w = keep * *w - rate * step;
                }
            }
        }
        Update::RmsProp { rate, decay, fresh, epsilon } => {
            for &h in h {
                let (w, m) = (next_column(&mut w, rows), next_column(&mut first, rows));
                for ((w, &delta), m) in w.iter_mut().zip(delta).zip(m) {
                    let g = delta * h;
                    *m = normal_or_zero(decay * *m + fresh * (g * g));
                    *w -= rate * g / (m.sqrt() + epsilon);
                }
            }
        }
        Update::Adam { rate, keep, beta1, fresh1, beta2, fresh2, correction, epsilon } => {
            for &h in h {
                let (m, v) = (next_column(&mut first, rows), next_column(&mut second, rows));
                let w = next_column(&mut w, rows);
                for (((w, &delta), m), v) in w.iter_mut().zip(delta).zip(m).zip(v) {
                    let g = delta * h;
                    *m = (beta1 * *m + fresh1 * g).without_subnormals();
                    *v = normal_or_zero(beta2 * *v + fresh2 * (g * g));
                    *w = keep * *w - rate * *m / (v.sqrt() * correction + epsilon);
                }
            }
        }
    }
}

/// A mean of squares, with subnormal numbers set to 0. It is never negative, so its sign need not be
/// checked.
#[allow(clippy::inline_always)] // As below.
#[inline(always)]
fn normal_or_zero<T: Scalar>(mean: T) -> T {
    if mean < T::of(T::SMALLEST_NORMAL) { T::zero() } else { mean }
}

/// Takes one column off. Iterating over chunks would divide to count them, which takes as long as a
/// small matrix does.
#[allow(clippy::inline_always)] // For loops that are vectorised.
#[inline(always)]
#[allow(clippy::mut_mut)] // It takes off what it returns.
fn next_column<'a, T>(rest: &mut &'a mut [T], rows: usize) -> &'a mut [T] {
    rest.split_off_mut(..rows).expect("as many columns as h has numbers")
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    /// Three steps on a parameter of 1 with gradients 0.5, −0.2, 0.1.
    fn three_steps(optimizer: impl Into<Optimizer>) -> f64 {
        let optimizer = optimizer.into();
        let mut w = [1.0_f64];
        let (mut m, mut v) = ([0.0], [0.0]);
        for (t, g) in [(1, 0.5), (2, -0.2), (3, 0.1)] {
            let update = Update::new(optimizer, optimizer.learning_rate(), t);
            update.apply(&mut w, &[g], [&mut m, &mut v]);
        }
        w[0]
    }

    /// Values computed with PyTorch, in float64:
    /// ```python
    /// def run(make):
    ///     w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    ///     optimizer = make([w])
    ///     for g in (0.5, -0.2, 0.1):
    ///         w.grad = torch.tensor([g], dtype=torch.float64)
    ///         optimizer.step()
    ///     return w.item()
    /// ```
    #[test]
    fn three_steps_are_those_of_pytorch() {
        let sgd = Sgd { learning_rate: 0.1, ..Sgd::default() };
        let adam = Adam { learning_rate: 0.1, ..Adam::default() };
        let cases: [(Optimizer, f64); 8] = [
            (sgd.into(), 0.96),
            (Sgd { momentum: Momentum::Classical(0.9), ..sgd }.into(), 0.8925),
            (Sgd { momentum: Momentum::Nesterov(0.9), ..sgd }.into(), 0.863_25),
            (Sgd { weight_decay: WeightDecay::L2(0.3), ..sgd }.into(), 0.875_028),
            (
                Sgd {
                    momentum: Momentum::Nesterov(0.9),
                    weight_decay: WeightDecay::L2(0.3),
                    ..sgd
                }
                .into(),
                0.647_084_352,
            ),
            (RmsProp { learning_rate: 0.1, ..RmsProp::default() }.into(), 0.188_770_030_209_380_57),
            (adam.into(), 0.827_500_240_835_695_6),
            (AdamW { adam, weight_decay: 0.3 }.into(), 0.747_120_058_234_000_2),
        ];
        for (optimizer, expected) in cases {
            assert_relative_eq!(three_steps(optimizer), expected, max_relative = 1e-14);
        }
    }

    /// `w ← w − η (g + v) − η λ w`, by hand.
    #[test]
    fn decoupled_decay_stands_beside_the_momentum() {
        let sgd = Sgd {
            learning_rate: 0.1,
            momentum: Momentum::Classical(0.5),
            weight_decay: WeightDecay::Decoupled(0.2),
        };
        let w1 = 1.0 - 0.1 * 0.5 - 0.02;
        let w2 = w1 - 0.1 * (0.25 - 0.2) - 0.02 * w1;
        let w3 = w2 - 0.1 * (0.025 + 0.1) - 0.02 * w2;
        assert_relative_eq!(three_steps(sgd), w3, max_relative = 1e-14);
    }

    /// Oracle: `η g / (√0.01 |g| + 1e-8)`, nearly `10 η sign(g)` whatever the gradient.
    #[test]
    fn the_first_step_of_rmsprop_is_ten_times_the_learning_rate() {
        for g in [3.0_f64, 1e-2, -1e-3] {
            let mut w = [0.0];
            let optimizer = Optimizer::default();
            Update::new(optimizer, 1e-4, 1).apply(&mut w, &[g], [&mut [0.0], &mut []]);
            let exact = -1e-4 * g / (0.01_f64.sqrt() * g.abs() + 1e-8);
            assert_relative_eq!(w[0], exact, max_relative = 1e-12);
            assert_relative_eq!(w[0], -1e-3 * g.signum(), max_relative = 1e-3);
        }
    }
}
