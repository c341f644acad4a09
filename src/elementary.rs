//! Elementary functions over whole slices, in a form that the compiler turns into vector code.
//!
//! The standard library's `tanh` takes 11 ns a value, more than the matrix products of a small
//! network. Plain arithmetic without branches is vectorised, for the widest registers that the
//! processor has; no operations are fused or reordered, so the bits are the same on all of them.

use multiversion::multiversion;

/// `h ← tanh a` in `f32`, within 8 units in the last place; odd to the bit, never beyond ±1, and
/// NaN for NaN.
///
/// A quotient of polynomials in `a²`, fitted to the smallest largest relative error on `|a| ≤ 9.01`,
/// beyond which `tanh a` rounds to ±1.
#[allow(clippy::excessive_precision)] // Rounded to `f32` by the compiler, to the digit.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn tanh_f32(a: &[f32], h: &mut [f32]) {
    const LIMIT: f32 = 9.01;
    const P: [f32; 4] = [0.137_858_69, 4.009_153_2e-3, 3.160_308e-5, 5.081_152_6e-8];
    const Q: [f32; 5] = [0.471_192_03, 2.773_984_1e-2, 4.208_573e-4, 1.618_572_8e-6, 7.384_365e-10];
    for (h, &a) in h.iter_mut().zip(a) {
        let a = a.clamp(-LIMIT, LIMIT);
        let s = a * a;
        let p = (((P[3] * s + P[2]) * s + P[1]) * s + P[0]) * s + 1.0;
        let q = ((((Q[4] * s + Q[3]) * s + Q[2]) * s + Q[1]) * s + Q[0]) * s + 1.0;
        *h = (a * p / q).clamp(-1.0, 1.0);
    }
}

/// `h ← tanh a` in `f64`: the standard library's.
pub(crate) fn tanh_f64(a: &[f64], h: &mut [f64]) {
    for (h, &a) in h.iter_mut().zip(a) {
        *h = a.tanh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 509th `f32` there is, some eight million of them.
    #[test]
    fn tanh_stays_within_its_bound_and_is_odd() {
        let positive: Vec<f32> = (0..0x7f80_0000_u32).step_by(509).map(f32::from_bits).collect();
        let negative: Vec<f32> = positive.iter().map(|a| -a).collect();
        let (mut up, mut down) = (vec![0.0; positive.len()], vec![0.0; positive.len()]);
        tanh_f32(&positive, &mut up);
        tanh_f32(&negative, &mut down);
        for ((&a, &h), &mirrored) in positive.iter().zip(&up).zip(&down) {
            let exact = f64::from(a).tanh();
            #[allow(clippy::cast_possible_truncation)] // Rounding is what it is for.
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

    #[test]
    fn tanh_of_the_special_values() {
        let mut h = [0.5; 5];
        tanh_f32(&[0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN], &mut h);
        assert_eq!((h[0].to_bits(), h[1].to_bits()), (0.0_f32.to_bits(), (-0.0_f32).to_bits()));
        assert!(h[2] <= 1.0 && h[2] >= 1.0 - 4.0 * f32::EPSILON && h[3] == -h[2]);
        assert!(h[4].is_nan());
    }
}
