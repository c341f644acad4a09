//! The activity of a layer's units: whether all units can still learn, and whether samples can still be
//! told apart.

use nalgebra::DMatrix;

use crate::{
    angle::norm,
    buffer::Columns,
    error::Result,
    layer::Operation,
    linalg::{self, Start, zero_matrix},
    network::Block,
    scalar::Scalar,
    vector::magnitude,
    workspace::BlockActivations,
};

/// `(Σ u_i)² / (n Σ u_i²)`, where `u_i` is the mean of `f'(a_i)²` over the samples, for the last
/// activation function of a block. `None` if there is no such function, or if all derivatives are 0.
pub(super) fn participation<T: Scalar>(
    block: &Block,
    activations: &BlockActivations<T>,
) -> Option<f64> {
    let mut operations = block.operations.iter().enumerate().rev();
    let (index, activation) = operations.find_map(|(index, operation)| match operation {
        Operation::Activation(activation) => Some((index, activation)),
        _ => None,
    })?;
    let (a, h) = (activations.before(index), &activations.operations[index].output);
    let mut squares = vec![0.0; a.rows()];
    let mut slopes = vec![T::zero(); a.rows()];
    for (a, h) in a.as_slice().chunks_exact(a.rows()).zip(h.as_slice().chunks_exact(a.rows())) {
        slopes.fill(T::one());
        activation.multiply_derivative(a, h, &mut slopes);
        let all = squares.iter_mut().zip(&slopes);
        all.for_each(|(sum, slope)| *sum += slope.as_f64().powi(2));
    }
    let largest = squares.iter().copied().fold(0.0, f64::max);
    let units = squares.iter().map(|u| u / largest); // Proportional to the means; the factor cancels below.
    let (sum, of_squares) = (units.clone().sum::<f64>(), units.map(|u| u * u).sum::<f64>());
    (largest > 0.0).then(|| sum * sum / (squares.len() as f64 * of_squares))
}

/// The mean, over all pairs of samples, of the cosine between their `h`. A sample whose `h` is zero has
/// no direction and does not count. `None` if fewer than two samples are left.
///
/// The unit vectors `ĥ` of `M` samples have `‖Σ ĥ‖² = M + Σ cos` over the ordered pairs.
pub(super) fn sample_cosine<T: Scalar>(h: &Columns<T>) -> Option<f64> {
    let (mut sum, mut samples) = (vec![0.0; h.rows()], 0.0);
    for h in h.as_slice().chunks_exact(h.rows()) {
        let length = norm(h);
        if length > 0.0 {
            samples += 1.0;
            sum.iter_mut().zip(h).for_each(|(sum, h)| *sum += h.as_f64() / length);
        }
    }
    let squares = sum.iter().map(|sum| sum * sum).sum::<f64>();
    (samples > 1.0).then(|| ((squares - samples) / (samples * (samples - 1.0))).clamp(-1.0, 1.0))
}

/// The exponential of the entropy of the eigenvalues of `h hᵀ`, taken as fractions of their sum. `None`
/// if all `h` are 0. If there are too many units and samples, only the first samples count.
pub(super) fn effective_rank<T: Scalar>(h: &Columns<T>) -> Result<Option<f64>> {
    /// Computing the eigenvalues of a larger matrix would take longer than a training step.
    const LARGEST: usize = 512;
    let samples = if h.rows() > LARGEST { h.batch().min(LARGEST) } else { h.batch() };
    let h = DMatrix::from_iterator(
        h.rows(),
        samples,
        h.as_slice()[..h.rows() * samples].iter().map(|h| h.as_f64()),
    );
    let largest = magnitude(h.as_slice());
    if largest == 0.0 {
        return Ok(None);
    }
    let h = h / largest;
    // Both products have the same eigenvalues, apart from zeros.
    let (left, right) = (linalg::of(&h), linalg::of(&h).transpose());
    let (left, right) = if h.nrows() > samples { (right, left) } else { (left, right) };
    let mut product = zero_matrix(left.nrows(), left.nrows())?;
    linalg::product(left, right, Start::Zero, product.as_mut_slice());
    let eigenvalues = product.symmetric_eigenvalues();
    // Rounding can turn an eigenvalue of zero into a negative one.
    let sum: f64 = eigenvalues.iter().map(|value| value.max(0.0)).sum();
    let shares = eigenvalues.iter().map(|value| value / sum).filter(|&share| share > 0.0);
    Ok(Some(shares.map(|share| -share * share.ln()).sum::<f64>().exp()))
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn columns<T: Scalar>(rows: usize, values: &[f64]) -> Columns<T> {
        let mut columns = Columns::new(rows);
        columns.set_batch(values.len() / rows).unwrap();
        columns.as_mut_slice().iter_mut().zip(values).for_each(|(to, &v)| *to = T::of(v));
        columns
    }

    fn cosine(rows: usize, values: &[f64]) -> Option<f64> {
        sample_cosine(&columns::<f64>(rows, values))
    }

    fn rank(rows: usize, values: &[f64]) -> Option<f64> {
        effective_rank(&columns::<f64>(rows, values)).unwrap()
    }

    #[test]
    fn samples_that_are_the_same_have_one_direction() {
        for scale in [1e-300, 1.0, 1e300] {
            let same = [0.5, -1.0, 2.0].repeat(4).iter().map(|h| h * scale).collect::<Vec<_>>();
            assert_relative_eq!(cosine(3, &same).unwrap(), 1.0, max_relative = 1e-15);
            assert_relative_eq!(rank(3, &same).unwrap(), 1.0, max_relative = 1e-12);
        }
        // Lengths do not matter to the cosine, nor signs to the rank.
        assert_relative_eq!(cosine(2, &[1.0, 2.0, 3.0, 6.0]).unwrap(), 1.0);
        assert_eq!(cosine(2, &[1.0, 2.0, -1.0, -2.0]), Some(-1.0));
        assert_relative_eq!(rank(2, &[1.0, 2.0, -1.0, -2.0]).unwrap(), 1.0, max_relative = 1e-12);
    }

    #[test]
    fn orthogonal_samples_have_a_direction_each() {
        let mut identity = [0.0; 12];
        for j in 0..3 {
            identity[4 * j + j] = 3.0;
        }
        assert_eq!(cosine(4, &identity), Some(0.0));
        assert_relative_eq!(rank(4, &identity).unwrap(), 3.0, max_relative = 1e-12);
        // Twice the one, once the other: cosines 1, 0, 0 and shares 2/3, 1/3.
        let three = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        assert_relative_eq!(cosine(2, &three).unwrap(), 1.0 / 3.0);
        let entropy = (2.0 * 1.5_f64.ln() + 3.0_f64.ln()) / 3.0;
        assert_relative_eq!(rank(2, &three).unwrap(), entropy.exp(), max_relative = 1e-12);
        // Units and samples may change places.
        assert_relative_eq!(
            rank(3, &[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]).unwrap(),
            entropy.exp(),
            max_relative = 1e-12
        );
    }

    #[test]
    fn what_is_zero_has_no_direction() {
        assert_eq!((cosine(2, &[0.0; 6]), rank(2, &[0.0; 6])), (None, None));
        assert_eq!(cosine(2, &[1.0, 1.0]), None);
        assert_eq!(cosine(2, &[1.0, 1.0, 0.0, 0.0]), None);
        assert_eq!(cosine(2, &[1.0, 0.0, 0.0, 0.0, 0.0, -2.0]), Some(0.0));
    }
}
