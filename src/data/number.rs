//! Labels that files write as numbers.

/// The class or label that a number stands for; `None` unless it is whole and from 0 to 2³² − 1.
pub(super) fn whole_number(number: f64) -> Option<usize> {
    let is_label = number.is_sign_positive() && number <= u32::MAX.into() && number.fract() == 0.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is one of them.
    is_label.then_some(number as usize)
}
