//! The formulas of the losses, over the logits of a batch.

use multiversion::multiversion;

use crate::{
    activation::{logistic, softplus},
    scalar::Scalar,
    targets::Targets,
    vector::sum_in_order,
};

/// `y ← softmax(z)`
pub(super) fn softmax<T: Scalar>(z: &[T], y: &mut [T]) {
    let max = largest(z);
    y.iter_mut().zip(z).for_each(|(y, &z)| *y = z - max);
    exponentials(y);
    let sum = sum_in_order(y);
    y.iter_mut().for_each(|y| *y /= sum);
}

/// The largest value; NaN if there is one.
fn largest<T: Scalar>(z: &[T]) -> T {
    z.iter().fold(z[0], |max, &z| if z <= max { max } else { z })
}

/// `Σ −y ln ŷ` over the samples, each a column of `outputs` numbers; `e ← ŷ − y`.
pub(super) fn softmax_cross_entropy<T: Scalar>(
    targets: &Targets<T>,
    z: &[T],
    e: &mut [T],
    outputs: usize,
) -> f64 {
    /// Samples that are worked on together.
    const PIECE: usize = 64;
    let (mut loss, mut sample) = (0.0, 0);
    for (z, e) in z.chunks(PIECE * outputs).zip(e.chunks_mut(PIECE * outputs)) {
        let mut maxima = [T::zero(); PIECE];
        let columns = z.chunks_exact(outputs).zip(e.chunks_exact_mut(outputs));
        for ((z, e), max) in columns.zip(&mut maxima) {
            *max = largest(z);
            e.iter_mut().zip(z).for_each(|(e, &z)| *e = z - *max);
        }
        exponentials(e);
        let columns = z.chunks_exact(outputs).zip(e.chunks_exact_mut(outputs));
        for ((z, e), &max) in columns.zip(&maxima) {
            let sum = sum_in_order(e);
            e.iter_mut().for_each(|e| *e /= sum);
            // −Σ y_k ln ŷ_k = Σ y_k (ln Σ_j e^{z_j} − z_k); no term is negative.
            let log_sum = sum.ln();
            let mut learn = |k: usize, y: T| {
                e[k] -= y;
                y * (log_sum + (max - z[k]))
            };
            let of_sample = match targets {
                Targets::Labels(labels) => learn(labels[sample], T::one()).as_f64(),
                Targets::Values(values) => {
                    let mut loss = 0.0;
                    for k in 0..outputs {
                        let y = values[(k, sample)];
                        if y != T::zero() {
                            loss += learn(k, y).as_f64();
                        }
                    }
                    loss
                }
            };
            loss += of_sample;
            sample += 1;
        }
    }
    loss
}

/// `e ← eᵉ`, element by element.
#[multiversion(targets = "simd")]
fn exponentials<T: Scalar>(e: &mut [T]) {
    e.iter_mut().for_each(|e| *e = e.fast_exp());
}

/// The sum of a loss. Pieces of 256 numbers are added up in the scalar type, and the results in `f64`.
pub(super) fn by_pieces<T: Scalar>(
    z: &[T],
    e: &mut [T],
    loss: impl Fn(&[T], &mut [T]) -> T,
) -> f64 {
    const PIECE: usize = 256;
    z.chunks(PIECE).zip(e.chunks_mut(PIECE)).map(|(z, e)| loss(z, e).as_f64()).sum()
}

/// `Σ −y ln σ(z) − (1 − y) ln σ(−z)`, computed with `−ln σ(−z) = softplus(z)`. On entry `e` holds `y`,
/// on return `σ(z) − y`.
#[multiversion(targets = "simd")]
pub(super) fn logistic_cross_entropy<T: Scalar>(z: &[T], e: &mut [T]) -> T {
    element_by_element(z, e, |z, y| {
        let certain = y == T::one();
        let loss = softplus(if certain { -z } else { z }) - if certain { T::zero() } else { y * z };
        (logistic(z) - y, loss)
    })
}

/// `Σ ½ (z − y)²`. On entry `e` holds `y`, on return `z − y`.
#[multiversion(targets = "simd")]
pub(super) fn squared_error<T: Scalar>(z: &[T], e: &mut [T]) -> T {
    element_by_element(z, e, |z, y| (z - y, T::of(0.5) * (z - y) * (z - y)))
}

/// `(e, loss) ← f(z, e)` for each element. Returns the sum of the losses, summed in 16 lanes so that
/// the compiler can vectorise it.
#[allow(clippy::inline_always)] // Or it would not be.
#[inline(always)]
fn element_by_element<T: Scalar>(z: &[T], e: &mut [T], f: impl Fn(T, T) -> (T, T)) -> T {
    let mut sums = [T::zero(); 16];
    for (z, e) in z.chunks(16).zip(e.chunks_mut(16)) {
        for ((sum, &z), e) in sums.iter_mut().zip(z).zip(e) {
            let (error, loss) = f(z, *e);
            *e = error;
            *sum += loss;
        }
    }
    // Lanes that no number was added to are 0, so skipping them saves time and changes nothing.
    let used = z.len().min(sums.len());
    sums[..used].iter().fold(T::zero(), |sum, &part| sum + part)
}
