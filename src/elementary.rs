//! Transcendental functions for loops that are compiled for several instruction sets.
//!
//! They are plain arithmetic without branches and without fused operations. So loops over them can be
//! vectorised, and they give the same bits on every instruction set.

/// `tanh a` in `f32`, within 8 units in the last place. It is exactly odd, never beyond ±1, and NaN for
/// NaN.
///
/// A quotient of polynomials in `a²`, fitted to make the largest relative error on `|a| ≤ 9.01` as
/// small as possible. Beyond that `tanh a` rounds to ±1.
#[allow(clippy::excessive_precision)] // Rounded to `f32` by the compiler, to the digit.
#[allow(clippy::inline_always)] // Or it would not be vectorised.
#[inline(always)]
pub(crate) fn tanh_f32(a: f32) -> f32 {
    const LIMIT: f32 = 9.01;
    const P: [f32; 4] = [0.137_858_69, 4.009_153_2e-3, 3.160_308e-5, 5.081_152_6e-8];
    const Q: [f32; 5] = [0.471_192_03, 2.773_984_1e-2, 4.208_573e-4, 1.618_572_8e-6, 7.384_365e-10];
    let a = a.clamp(-LIMIT, LIMIT);
    let s = a * a;
    let p = (((P[3] * s + P[2]) * s + P[1]) * s + P[0]) * s + 1.0;
    let q = ((((Q[4] * s + Q[3]) * s + Q[2]) * s + Q[1]) * s + Q[0]) * s + 1.0;
    (a * p / q).clamp(-1.0, 1.0)
}

/// `tanh a` in `f64`, within 3 units in the last place. It is exactly odd, never beyond ±1, and NaN for
/// NaN.
///
/// `tanh |a| = E/(E + 2)` with `E = e^{2|a|} − 1 = 2ⁿ(e^r − 1) + (2ⁿ − 1)`.
#[allow(clippy::inline_always)] // Or it would not be vectorised.
#[inline(always)]
pub(crate) fn tanh_f64(a: f64) -> f64 {
    /// From here on `tanh a` rounds to 1.
    const LIMIT: f64 = 19.1;
    let (half, small) = reduce_f64(2.0 * a.abs().min(LIMIT));
    let power = 2.0 * half;
    let e = power * small + (power - 1.0);
    let h = e / (e + 2.0);
    // `min` drops a NaN, so it is taken from `a` again.
    if a.is_nan() { a } else { h.copysign(a) }
}

/// The exponential function and the logarithm for one type.
macro_rules! exponential {
    (
        $type:ident, $exp:ident, $reduce:ident, $ln_1p:ident, mantissa: $mantissa:literal,
        ln_2: $ln_2:expr, limits: $limits:expr, terms: $terms:literal, ln_terms: $ln_terms:literal
    ) => {
        /// `2ⁿ⁻¹` and `e^r − 1` for `x = n ln 2 + r`, `|r| ≤ ½ ln 2`, by the Taylor series.
        #[allow(clippy::inline_always)] // Or it would not be vectorised.
        #[inline(always)]
        fn $reduce(x: $type) -> ($type, $type) {
            /// Adding this rounds to an integer, whose bits are then the lowest bits of the sum.
            #[allow(clippy::cast_precision_loss)] // It is exact.
            const ROUND: $type = (3_u64 << ($mantissa - 1)) as $type;
            /// 1, 1/2!, 1/3!, …
            const SERIES: [$type; $terms] = {
                let mut series = [1.0; $terms];
                let mut k = 1;
                while k < $terms {
                    #[allow(clippy::cast_precision_loss)] // A small number.
                    let factor = (k + 1) as $type;
                    series[k] = series[k - 1] / factor;
                    k += 1;
                }
                series
            };
            let shifted = x * std::$type::consts::LOG2_E + ROUND;
            let n = shifted - ROUND;
            let exponent = shifted.to_bits().wrapping_sub(1) << $mantissa;
            let half = <$type>::from_bits(exponent.wrapping_add((1.0 as $type).to_bits()));
            let r = (x - n * $ln_2[0]) - n * $ln_2[1];
            let series = SERIES.iter().rev().fold(0.0, |sum, term| sum * r + term);
            (half, r * series)
        }

        /// `eˣ` within 3 units in the last place. It is 0 where the result is close to the smallest
        /// normal number or below, and ∞ where it overflows.
        #[allow(clippy::inline_always)] // Or it would not be vectorised.
        #[inline(always)]
        pub(crate) fn $exp(x: $type) -> $type {
            let (half, small) = $reduce(x.clamp($limits[0], $limits[1]));
            let y = (half + half * small) * 2.0;
            let y = if x < $limits[0] { 0.0 } else { y };
            if x > $limits[1] { $type::INFINITY } else { y }
        }

        /// `ln(1 + x)` for `0 ≤ x ≤ 1` within 4 units in the last place:
        /// `2 artanh s = 2 (s + s³/3 + s⁵/5 + …)` with `s = x/(2 + x) ≤ ⅓`.
        #[allow(clippy::inline_always)] // Or it would not be vectorised.
        #[inline(always)]
        pub(crate) fn $ln_1p(x: $type) -> $type {
            /// 1/3, 1/5, …
            const SERIES: [$type; $ln_terms] = {
                let mut series = [0.0; $ln_terms];
                let mut k = 0;
                while k < $ln_terms {
                    #[allow(clippy::cast_precision_loss)] // A small number.
                    let odd = (2 * k + 3) as $type;
                    series[k] = 1.0 / odd;
                    k += 1;
                }
                series
            };
            let s = x / (2.0 + x);
            let square = s * s;
            let series = SERIES.iter().rev().fold(0.0, |sum, term| (sum + term) * square);
            2.0 * (s + s * series)
        }
    };
}

// `ln 2` is split in two parts. The first has trailing zeros, so that `n` times it is exact.
exponential!(
    f32, exp_f32, reduce_f32, ln_1p_f32, mantissa: 23,
    ln_2: [0.693_359_4, -2.121_944_4e-4], limits: [-86.0, 88.7], terms: 8, ln_terms: 7
);
exponential!(
    f64, exp_f64, reduce_f64, ln_1p_f64, mantissa: 52,
    ln_2: [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10],
    limits: [-707.0, 709.7], terms: 14, ln_terms: 16
);

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // Rounding is what it is for.
mod tests {
    use super::*;

    /// Every 509th `f32` there is, some eight million of them.
    #[test]
    fn tanh_f32_stays_within_its_bound_and_is_odd() {
        for a in (0..0x7f80_0000_u32).step_by(509).map(f32::from_bits) {
            let (h, mirrored) = (tanh_f32(a), tanh_f32(-a));
            let exact = f64::from(a).tanh();
            let rounded = exact as f32;
            let unit = f64::from(rounded.next_up()) - f64::from(rounded);
            assert!(
                (f64::from(h) - exact).abs() <= 8.0 * unit,
                "tanh {a:e} = {h:e}, not {exact:e}"
            );
            assert_eq!(mirrored.to_bits(), (-h).to_bits(), "tanh is odd at {a:e}");
            assert!(h <= 1.0);
        }
    }

    /// Against the standard library, which is within one unit: all magnitudes, two million of them.
    #[test]
    fn tanh_f64_stays_within_its_bound_and_is_odd() {
        let tiny = (0..0x7ff0_u64 << 48).step_by((0x7ff0 << 48) / 1_000_003).map(f64::from_bits);
        let usual = (0..1_000_003).map(|i| f64::from(i) * 2e-5);
        for a in tiny.chain(usual) {
            let (h, mirrored, exact) = (tanh_f64(a), tanh_f64(-a), a.tanh());
            let unit = exact.next_up() - exact;
            assert!((h - exact).abs() <= 3.0 * unit, "tanh {a:e} = {h:e}, not {exact:e}");
            assert_eq!(mirrored.to_bits(), (-h).to_bits(), "tanh is odd at {a:e}");
            assert!(h <= 1.0);
        }
    }

    #[test]
    fn tanh_of_the_special_values() {
        for (a, h) in [(0.0, 0.0), (-0.0, -0.0), (f64::INFINITY, 1.0), (f64::NEG_INFINITY, -1.0)] {
            assert_eq!(tanh_f64(a).to_bits(), f64::to_bits(h));
        }
        for a in [0.0_f32, -0.0] {
            assert_eq!(tanh_f32(a).to_bits(), a.to_bits());
        }
        let top = tanh_f32(f32::INFINITY);
        assert!((1.0 - 4.0 * f32::EPSILON..=1.0).contains(&top));
        assert_eq!(tanh_f32(f32::NEG_INFINITY), -top);
        assert!(tanh_f32(f32::NAN).is_nan() && tanh_f64(f64::NAN).is_nan());
    }

    #[test]
    fn exponential_stays_within_its_bound() {
        for i in -88_600..88_690 {
            let x = i as f32 * 1e-3;
            let (y, exact) = (f64::from(exp_f32(x)), f64::from(x).exp());
            let bound = if x < -86.0 { exact } else { 3.0 * exact * f64::from(f32::EPSILON) };
            assert!((y - exact).abs() <= bound, "exp {x} = {y:e}, not {exact:e}");
        }
        for i in -708_000..709_700 {
            let x = f64::from(i) * 1e-3;
            let (y, exact) = (exp_f64(x), x.exp());
            let bound = if x < -707.0 { exact } else { 3.0 * exact * f64::EPSILON };
            assert!((y - exact).abs() <= bound, "exp {x} = {y:e}, not {exact:e}");
        }
        assert_eq!((exp_f32(0.0), exp_f64(0.0)), (1.0, 1.0));
        assert_eq!((exp_f32(-1e9), exp_f64(f64::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!((exp_f32(f32::INFINITY), exp_f64(1e9)), (f32::INFINITY, f64::INFINITY));
        assert!(exp_f32(f32::NAN).is_nan() && exp_f64(f64::NAN).is_nan());
    }

    #[test]
    fn logarithm_stays_within_its_bound() {
        for i in 0..=1_000_000 {
            let x = f64::from(i) * 1e-6;
            for x in [x, x * 1e-6, x * 1e-30] {
                let (y, exact) = (ln_1p_f64(x), x.ln_1p());
                assert!((y - exact).abs() <= 4.0 * exact * f64::EPSILON, "{x}: {y:e}, {exact:e}");
                let x = x as f32;
                let (y, exact) = (f64::from(ln_1p_f32(x)), f64::from(x).ln_1p());
                let bound = 4.0 * exact * f64::from(f32::EPSILON) + f64::from(f32::MIN_POSITIVE);
                assert!((y - exact).abs() <= bound, "{x}: {y:e}, {exact:e}");
            }
        }
        assert!(ln_1p_f32(f32::NAN).is_nan() && ln_1p_f64(f64::NAN).is_nan());
    }
}
