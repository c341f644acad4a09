//! The checks that public methods make on their arguments.

use super::{Error, Result};
use crate::{scalar::Scalar, vector::all_finite};

/// Fails unless `condition` holds for the hyper-parameter `name`.
pub(crate) fn require(
    condition: bool,
    name: &'static str,
    found: f64,
    expected: &'static str,
) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::InvalidParameter { name, found, expected }) }
}

/// Fails unless `found` is positive and finite in the scalar type.
pub(crate) fn require_positive<T: Scalar>(name: &'static str, found: f64) -> Result<()> {
    let value = T::of(found);
    let valid = value > T::zero() && value.is_finite();
    require(valid, name, found, "a positive number that the scalar can represent")
}

/// Fails unless `found` is at least 0 and finite in the scalar type.
pub(crate) fn require_not_negative<T: Scalar>(name: &'static str, found: f64) -> Result<()> {
    let valid = found >= 0.0 && T::of(found).is_finite();
    require(valid, name, found, "a number of at least 0 that the scalar can represent")
}

/// Fails unless `found` is at least 0 and less than 1, in the scalar type too.
pub(crate) fn require_fraction<T: Scalar>(name: &'static str, found: f64) -> Result<()> {
    let valid = found >= 0.0 && T::of(found) < T::one();
    require(valid, name, found, "a number from 0 up to, not including, 1, also in the scalar")
}

/// Fails unless `found` is the shape `expected`.
pub(crate) fn require_shape(
    what: impl FnOnce() -> String,
    expected: (usize, usize),
    found: (usize, usize),
) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        Err(Error::ShapeMismatch { what: what(), expected, found })
    }
}

/// [`require_shape`] for a matrix whose columns are samples. If the samples stand in rows, the error
/// says so.
pub(crate) fn require_samples(
    what: &str,
    expected: (usize, usize),
    found: (usize, usize),
) -> Result<()> {
    if found.0 != expected.0 && found.1 == expected.0 {
        return Err(Error::SamplesInRows { what: what.to_owned(), found });
    }
    require_shape(|| what.to_owned(), expected, found)
}

/// Fails unless every entry of a column-major matrix of `rows` rows is finite.
pub(crate) fn require_finite<T: Scalar>(
    what: impl FnOnce() -> String,
    rows: usize,
    data: &[T],
) -> Result<()> {
    if all_finite(data) {
        return Ok(());
    }
    let at = data.iter().position(|value| !value.is_finite()).unwrap_or(0);
    Err(Error::NonFinite {
        what: what(),
        row: at % rows,
        column: at / rows,
        found: data[at].as_f64(),
    })
}
