//! Elementwise activation functions and their derivatives.

use std::{fmt, str::FromStr};

use multiversion::multiversion;

use crate::{
    error::{Error, Result, require, require_positive},
    scalar::Scalar,
};

/// An elementwise activation function `h = f(a)`.
///
/// | function | `f(a)` | `f'(a)` |
/// |---|---|---|
/// | identity | `a` | `1` |
/// | tanh | `tanh a` | `1 − h²` |
/// | logistic | `σ(a) = 1/(1 + e⁻ᵃ)` | `h (1 − h)` |
/// | ReLU | `max(a, 0)` | `1` if `a > 0`, else `0` |
/// | leaky ReLU | `a` if `a > 0`, else `slope · a` | `1` if `a > 0`, else `slope` |
/// | ELU | `a` if `a > 0`, else `α(eᵃ − 1)` | `1` if `a > 0`, else `α eᵃ` |
/// | softplus | `ln(1 + eᵃ)` | `σ(a)` |
/// | GELU | `a σ(u)` with `u = √(8/π) (a + 0.044715 a³)` | `s + a s (1 − s) u'` with `s = σ(u)` |
///
/// Softmax and the logistic function of the output belong to the [`Loss`](crate::Loss).
///
/// ```
/// use feedback_alignment::Activation;
///
/// assert_eq!(Activation::Relu.value(-2.0), 0.0);
/// assert_eq!(Activation::Tanh.derivative(0.0), 1.0);
/// assert_eq!("leaky-relu".parse::<Activation>()?, Activation::LeakyRelu { slope: 0.01 });
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Activation {
    /// `f(a) = a`: a linear layer.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Logistic,
    /// Rectified linear unit; `f'(0) = 0`.
    Relu,
    /// Leaky rectified linear unit (Maas, Hannun and Ng 2013); `f'(0) = slope`.
    LeakyRelu {
        /// Slope for `a ≤ 0`, finite; 0.01 in the source.
        slope: f64,
    },
    /// Exponential linear unit (Clevert, Unterthiner and Hochreiter 2016); `f'(0) = α`.
    Elu {
        /// Minus the limit for `a → −∞`, positive; 1 in the source.
        alpha: f64,
    },
    /// A smooth rectifier (Dugas et al. 2001).
    Softplus,
    /// The Gaussian error linear unit in its form with `tanh` (Hendrycks and Gimpel 2016, section 2),
    /// `a (1 + tanh(u/2))/2`, which is PyTorch's `GELU(approximate="tanh")`.
    Gelu,
}

impl Activation {
    /// `f(a)`.
    pub fn value<T: Scalar>(self, a: T) -> T {
        let mut h = [T::zero()];
        self.apply(&[a], &mut h);
        h[0]
    }

    /// `f'(a)`.
    pub fn derivative<T: Scalar>(self, a: T) -> T {
        let mut delta = [T::one()];
        self.multiply_derivative(&[a], &[self.value(a)], &mut delta);
        delta[0]
    }

    /// `h ← f(a)`
    pub(crate) fn apply<T: Scalar>(self, a: &[T], h: &mut [T]) {
        match self {
            Self::Identity => h.copy_from_slice(a),
            Self::Tanh => map(a, h, T::fast_tanh),
            Self::Logistic => map(a, h, logistic),
            // Written so that a NaN passes through: `max(NaN, 0)` would hide it.
            Self::Relu => map(a, h, |a| if a <= T::zero() { T::zero() } else { a }),
            Self::LeakyRelu { slope } => {
                let slope = T::of(slope);
                map(a, h, |a| if a > T::zero() { a } else { slope * a });
            }
            Self::Elu { alpha } => {
                let alpha = T::of(alpha);
                map(a, h, |a| if a > T::zero() { a } else { alpha * a.exp_m1() });
            }
            Self::Softplus => map(a, h, softplus),
            Self::Gelu => map(a, h, |a| a * logistic(gelu(a).0)),
        }
    }

    /// `delta ← delta ∘ f'(a)`. `h = f(a)` is given too, so that nothing is computed twice.
    pub(crate) fn multiply_derivative<T: Scalar>(self, a: &[T], h: &[T], delta: &mut [T]) {
        match self {
            Self::Identity => {}
            Self::Tanh => scale(h, delta, |h| T::one() - h * h),
            Self::Logistic => scale(h, delta, |h| h * (T::one() - h)),
            Self::Relu => scale(a, delta, |a| if a > T::zero() { T::one() } else { T::zero() }),
            Self::LeakyRelu { slope } => {
                let slope = T::of(slope);
                scale(a, delta, |a| if a > T::zero() { T::one() } else { slope });
            }
            Self::Elu { alpha } => {
                // Computed from `a`: `h + α` would lose digits where h is close to −α.
                let alpha = T::of(alpha);
                scale(a, delta, |a| if a > T::zero() { T::one() } else { alpha * a.exp() });
            }
            Self::Softplus => scale(a, delta, logistic),
            Self::Gelu => scale(a, delta, |a| {
                let (u, slope) = gelu(a);
                let s = logistic(u);
                s + a * (s * (T::one() - s) * slope)
            }),
        }
    }

    /// The two limits of the function's values, if it is bounded on both sides.
    pub(crate) fn bounds(self) -> Option<(f64, f64)> {
        match self {
            Self::Tanh => Some((-1.0, 1.0)),
            Self::Logistic => Some((0.0, 1.0)),
            _ => None,
        }
    }

    /// An upper bound of `|f'(a)|`.
    pub(crate) fn steepest(self) -> f64 {
        match self {
            Self::Identity | Self::Tanh | Self::Logistic | Self::Relu | Self::Softplus => 1.0,
            Self::LeakyRelu { slope } => slope.abs().max(1.0),
            Self::Elu { alpha } => alpha.max(1.0),
            Self::Gelu => 1.13,
        }
    }

    /// An upper bound of `|f(a)|` for `|a|` up to `bound`.
    pub(crate) fn bound(self, bound: f64) -> f64 {
        match self {
            Self::Tanh | Self::Logistic => 1.0,
            Self::Identity | Self::Relu | Self::Gelu => bound,
            Self::LeakyRelu { slope } => bound * slope.abs().max(1.0),
            Self::Elu { alpha } => bound.max(alpha),
            Self::Softplus => bound + 1.0,
        }
    }

    /// Whether the function is bounded, so that a unit can saturate on both sides.
    pub(crate) fn saturates(self) -> bool {
        self.bounds().is_some()
    }

    /// Whether some derivative of the function jumps at 0.
    pub(crate) fn has_kink(self) -> bool {
        matches!(self, Self::Relu | Self::LeakyRelu { .. } | Self::Elu { .. })
    }

    pub(crate) fn check<T: Scalar>(self) -> Result<()> {
        match self {
            Self::LeakyRelu { slope } => {
                let expected = "a finite number that the scalar can represent";
                require(T::of(slope).is_finite(), "slope", slope, expected)
            }
            Self::Elu { alpha } => require_positive::<T>("alpha", alpha),
            _ => Ok(()),
        }
    }
}

#[multiversion(targets = "simd")]
fn map<T: Scalar, F: Fn(T) -> T>(a: &[T], h: &mut [T], f: F) {
    for (h, &a) in h.iter_mut().zip(a) {
        *h = f(a);
    }
}

#[multiversion(targets = "simd")]
fn scale<T: Scalar, F: Fn(T) -> T>(at: &[T], delta: &mut [T], derivative: F) {
    for (delta, &at) in delta.iter_mut().zip(at) {
        *delta *= derivative(at);
    }
}

/// `σ(a)`. The limits 0 and 1 come out right, because `e^∞ = ∞` and `1/∞ = 0`.
#[allow(clippy::inline_always)] // Or it would not be vectorised.
#[inline(always)]
pub(crate) fn logistic<T: Scalar>(a: T) -> T {
    T::one() / (T::one() + (-a).fast_exp())
}

/// `ln(1 + eᵃ)` without overflow: `max(a, 0) + ln(1 + e^{−|a|})`.
#[allow(clippy::inline_always)] // Or it would not be vectorised.
#[inline(always)]
pub(crate) fn softplus<T: Scalar>(a: T) -> T {
    let positive = if a <= T::zero() { T::zero() } else { a };
    positive + (-a.abs()).fast_exp().fast_ln_1p()
}

/// `u` of [`Activation::Gelu`] and its derivative. Beyond ±30, where `σ(u)` is 0 or 1 anyway, in `f64`
/// too, `a` is replaced by ±30, so that no power of it overflows.
#[allow(clippy::inline_always)] // Or it would not be vectorised.
#[inline(always)]
fn gelu<T: Scalar>(a: T) -> (T, T) {
    const FAR: f64 = 30.0;
    let (far, two_over_root) = (T::of(FAR), T::of((8.0 / std::f64::consts::PI).sqrt()));
    let cubic = T::of(0.044_715);
    // Written so that a NaN passes through.
    let a = if a > far {
        far
    } else if a < -far {
        -far
    } else {
        a
    };
    let square = cubic * a * a;
    (two_over_root * a * (T::one() + square), two_over_root * (T::one() + T::of(3.0) * square))
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Identity => "identity",
            Self::Tanh => "tanh",
            Self::Logistic => "logistic",
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "leaky-relu",
            Self::Elu { .. } => "elu",
            Self::Softplus => "softplus",
            Self::Gelu => "gelu",
        })
    }
}

impl Activation {
    /// All functions, with the parameters of their sources.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        [
            Self::Identity,
            Self::Tanh,
            Self::Logistic,
            Self::Relu,
            Self::LeakyRelu { slope: 0.01 },
            Self::Elu { alpha: 1.0 },
            Self::Softplus,
            Self::Gelu,
        ]
        .into_iter()
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// Reads the name that `Display` writes; parameters are those of [`all`](Activation::all).
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::all().find(|activation| activation.to_string().eq_ignore_ascii_case(text)).ok_or_else(
            || Error::UnknownName {
                what: "activation",
                found: text.to_owned(),
                expected: Self::all().map(|a| a.to_string()).collect::<Vec<_>>().join(", "),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    const POINTS: [f64; 9] = [-40.0, -3.0, -0.7, -1e-3, 1e-3, 0.4, 1.0, 2.5, 40.0];

    #[test]
    fn derivatives_match_central_differences() {
        for f in Activation::all()
            .chain([Activation::LeakyRelu { slope: 0.3 }, Activation::Elu { alpha: 0.5 }])
        {
            for a in POINTS {
                let step = 1e-6 * a.abs().max(1e-2);
                let difference = (f.value(a + step) - f.value(a - step)) / (2.0 * step);
                assert_relative_eq!(
                    f.derivative(a),
                    difference,
                    epsilon = 1e-9,
                    max_relative = 1e-6
                );
            }
        }
    }

    #[test]
    fn nothing_passes_the_bounds_of_a_function_and_its_derivative() {
        let steep = [Activation::LeakyRelu { slope: -3.0 }, Activation::Elu { alpha: 5.0 }];
        for f in Activation::all().chain(steep) {
            for a in POINTS {
                assert!(f.value(a).abs() <= f.bound(a.abs()), "{f} at {a}");
                assert!(f.derivative(a).abs() <= f.steepest(), "{f} at {a}");
            }
        }
    }

    #[test]
    fn kinks_take_the_left_derivative() {
        assert_eq!(Activation::Relu.derivative(0.0), 0.0);
        assert_eq!(Activation::LeakyRelu { slope: 0.25 }.derivative(0.0), 0.25);
        assert_eq!(Activation::Elu { alpha: 2.0 }.derivative(0.0), 2.0);
    }

    #[test]
    fn known_values() {
        assert_relative_eq!(Activation::Tanh.value(0.5), 0.462_117_157_260_009_8);
        assert_relative_eq!(Activation::Logistic.value(0.5), 0.622_459_331_201_854_6);
        assert_relative_eq!(Activation::Softplus.value(0.5), 0.974_076_984_180_106_7);
        assert_relative_eq!(Activation::Elu { alpha: 1.0 }.value(-0.5), -0.393_469_340_287_366_6);
        assert_relative_eq!(Activation::LeakyRelu { slope: 0.01 }.value(-0.5), -0.005);
    }

    /// Values computed with PyTorch, in float64:
    /// ```python
    /// a = torch.tensor([-3.0, -0.7, 0.4, 2.5], dtype=torch.float64, requires_grad=True)
    /// h = torch.nn.functional.gelu(a, approximate="tanh")
    /// h.sum().backward()
    /// print(h.tolist(), a.grad.tolist())
    /// ```
    #[test]
    fn gelu_is_that_of_pytorch() {
        for (a, h, slope) in [
            (-3.0, -0.003_637_392_081_772_994, -0.011_584_166_630_969_648),
            (-0.7, -0.169_429_865_294_883_2, 0.023_642_781_343_896_052),
            (0.4, 0.262_161_169_427_356_2, 0.802_658_834_420_561_4),
            (2.5, 2.484_915_733_910_001, 1.037_951_576_212_666),
        ] {
            assert_relative_eq!(Activation::Gelu.value(a), h, max_relative = 1e-13);
            assert_relative_eq!(Activation::Gelu.derivative(a), slope, max_relative = 1e-12);
        }
        for a in [-1e30_f32, 1e30] {
            assert_eq!(Activation::Gelu.value(a), a.max(0.0));
            assert_eq!(Activation::Gelu.derivative(a), if a > 0.0 { 1.0 } else { 0.0 });
        }
        for a in [-1e300_f64, -31.0, 31.0, 1e300] {
            assert_eq!(Activation::Gelu.value(a), a.max(0.0));
            assert_eq!(Activation::Gelu.derivative(a), if a > 0.0 { 1.0 } else { 0.0 });
        }
    }

    #[test]
    fn far_out_nothing_overflows() {
        for f in Activation::all() {
            for a in [-1e4_f32, 1e4] {
                assert!(f.value(a).is_finite() && f.derivative(a).is_finite(), "{f} at {a}");
            }
        }
        assert_eq!(Activation::Logistic.value(-1e4_f32), 0.0);
        assert_eq!(Activation::Softplus.value(1e4_f32), 1e4);
        for f in Activation::all() {
            assert!(f.value(f64::NAN).is_nan(), "{f} hides a NaN");
        }
    }

    #[test]
    fn names_round_trip_and_impossible_parameters_are_refused() {
        for f in Activation::all() {
            assert_eq!(f.to_string().parse::<Activation>().unwrap(), f);
        }
        assert!("swish".parse::<Activation>().is_err());
        assert!(Activation::Elu { alpha: 0.0 }.check::<f64>().is_err());
        assert!(Activation::LeakyRelu { slope: f64::NAN }.check::<f64>().is_err());
        for large in [Activation::Elu { alpha: 1e39 }, Activation::LeakyRelu { slope: -1e39 }] {
            assert!(large.check::<f64>().is_ok() && large.check::<f32>().is_err());
        }
    }
}
