//! The signals that are made from the error before they are sent.

use std::cmp::Ordering;

use super::block_deltas::BlockDeltas;
use crate::{
    angle::norm, bound::bound_of_squares, buffer::Columns, error::Result, scalar::Scalar,
    signal::Signal, vector::sum_columns,
};

/// The signals that are made from the error, and its mean over the batch.
#[derive(Clone, Debug)]
pub(super) struct Made<T> {
    signals: Vec<(Signal, BlockDeltas<T>)>,
    mean: Vec<T>,
}

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self { signals: Vec::new(), mean: Vec::new() }
    }
}

impl<T: Scalar> Made<T> {
    /// Makes these signals from the error `e`. If an earlier route had more signals, the surplus ones
    /// stay, so that their memory can be used again.
    pub(super) fn make(&mut self, signals: &[Signal], e: &Columns<T>) -> Result<()> {
        for (place, &signal) in signals.iter().enumerate() {
            if place == self.signals.len() {
                self.signals.push((signal, BlockDeltas::new(&[e.rows()], &[])));
            }
            let (made, deltas) = &mut self.signals[place];
            *made = signal;
            make(signal, e, &mut self.mean, deltas.arrival())?;
        }
        Ok(())
    }

    /// A signal that has been made in this step.
    pub(super) fn get(&self, signal: Signal) -> &BlockDeltas<T> {
        let found = self.signals.iter().find(|(made, _)| *made == signal);
        &found.expect("what a route sends is made before it is delivered").1
    }
}

/// The signals that come from the output layer.
#[derive(Clone, Copy)]
pub(crate) struct AtOutput<'a, T> {
    pub(super) e: &'a BlockDeltas<T>,
    pub(super) made: &'a Made<T>,
    pub(super) target: &'a BlockDeltas<T>,
}

impl<'a, T: Scalar> AtOutput<'a, T> {
    /// The signal that a hop sends. Callers never ask for the delta of a hidden layer here.
    pub(crate) fn get(self, signal: Signal) -> &'a BlockDeltas<T> {
        match signal {
            Signal::Error | Signal::Delta(_) => self.e,
            Signal::Target => self.target,
            made => self.made.get(made),
        }
    }

    /// An upper bound of the squares of all signals that a hop could send, the error itself aside.
    pub(crate) fn squares_beside_error(self) -> f64 {
        // A signal that was never sent is empty, so its bound is 0.
        let made = self.made.signals.iter().map(|(_, made)| made);
        let all = made.chain([self.target]);
        all.fold(0.0, |most, sent| f64::max(most, bound_of_squares(sent.delta().as_slice())))
    }
}

/// `made ← signal` of the error `e`. `mean` is memory to work in.
fn make<T: Scalar>(
    signal: Signal,
    e: &Columns<T>,
    mean: &mut Vec<T>,
    made: &mut Columns<T>,
) -> Result<()> {
    made.set_batch(e.batch())?;
    let to = made.as_mut_slice();
    match signal {
        Signal::ErrorSign => write_ternary(e, 0.0, to),
        Signal::ErrorTernary(threshold) => write_ternary(e, threshold.value(), to),
        Signal::ErrorCentred(threshold) => write_centred(e, threshold.value(), mean, to),
        Signal::Error | Signal::Target | Signal::Delta(_) => to.copy_from_slice(e.as_slice()),
    }
    Ok(())
}

/// `sign(e)/N` where `|N e| > threshold`, else 0.
fn write_ternary<T: Scalar>(e: &Columns<T>, threshold: f64, to: &mut [T]) {
    let (batch, threshold) = (T::of(e.batch() as f64), T::of(threshold));
    let one = T::of((e.batch() as f64).recip());
    for (to, &e) in to.iter_mut().zip(e.as_slice()) {
        let above = (e * batch).abs() > threshold;
        *to = match e.partial_cmp(&T::zero()) {
            Some(Ordering::Less) if above => -one,
            Some(Ordering::Greater) if above => one,
            Some(_) => T::zero(),
            None => e, // NaN stays NaN.
        };
    }
}

/// `e − ē` if the common mode exceeds the threshold, else `e`.
fn write_centred<T: Scalar>(e: &Columns<T>, threshold: f64, mean: &mut Vec<T>, to: &mut [T]) {
    mean_over_batch(e, mean);
    to.copy_from_slice(e.as_slice());
    // An error of zero has no common mode, and nothing is subtracted.
    if threshold == 0.0 || common_mode(e, mean).is_some_and(|share| share > threshold) {
        for column in to.chunks_exact_mut(mean.len().max(1)) {
            column.iter_mut().zip(&*mean).for_each(|(to, &mean)| *to -= mean);
        }
    }
}

/// `mean ← Σ e / N`: a number for each row.
pub(crate) fn mean_over_batch<T: Scalar>(e: &Columns<T>, mean: &mut Vec<T>) {
    mean.clear();
    mean.resize(e.rows(), T::zero());
    sum_columns(e.as_slice(), mean, |e| e);
    let batch = T::of(e.batch() as f64);
    mean.iter_mut().for_each(|mean| *mean /= batch);
}

/// `N ‖ē‖² / Σ‖e‖²`, where `mean` is `ē`, from 0 to 1. `None` if `e` is zero.
pub(crate) fn common_mode<T: Scalar>(e: &Columns<T>, mean: &[T]) -> Option<f64> {
    let (of_mean, of_all) = (norm(mean), norm(e.as_slice()));
    (of_all > 0.0).then(|| (e.batch() as f64 * (of_mean / of_all).powi(2)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Threshold;

    fn made<T: Scalar>(signal: Signal, rows: usize, e: &[f64]) -> Vec<f64> {
        let (mut columns, mut to) = (Columns::<T>::new(rows), Columns::new(rows));
        columns.set_batch(e.len() / rows).unwrap();
        columns.as_mut_slice().iter_mut().zip(e).for_each(|(to, &e)| *to = T::of(e));
        make(signal, &columns, &mut Vec::new(), &mut to).unwrap();
        to.as_slice().iter().map(|v| v.as_f64()).collect()
    }

    fn ternary(threshold: f64) -> Signal {
        Signal::ErrorTernary(Threshold::new(threshold).unwrap())
    }

    fn centred(threshold: f64) -> Signal {
        Signal::ErrorCentred(Threshold::new(threshold).unwrap())
    }

    /// Powers of two, so that nothing is rounded.
    #[test]
    fn signals_are_those_of_their_definitions() {
        // Two outputs, four samples; ē = (0.5, −0.25), so 4 · 0.3125 / (3.5 + 1.375) of its energy.
        let e = [1.0, -1.0, 0.0, 0.5, 1.5, 0.0, -0.5, -0.5];
        let signs = [0.25, -0.25, 0.0, 0.25, 0.25, 0.0, -0.25, -0.25];
        assert_eq!(made::<f64>(Signal::ErrorSign, 2, &e), signs);
        assert_eq!(made::<f32>(ternary(0.0), 2, &e), signs);
        // |N e| = 2 does not exceed 2.
        let few = [0.25, -0.25, 0.0, 0.0, 0.25, 0.0, 0.0, 0.0];
        assert_eq!(made::<f32>(ternary(2.0), 2, &e), few);
        assert_eq!(made::<f64>(ternary(6.0), 2, &e), [0.0; 8]);
        let without = [0.5, -0.75, -0.5, 0.75, 1.0, 0.25, -1.0, -0.25];
        assert_eq!(made::<f64>(centred(0.0), 2, &e), without);
        let share = 4.0 * 0.3125 / 5.0;
        assert_eq!(made::<f32>(centred(share * 0.999), 2, &e), without);
        assert_eq!(made::<f32>(centred(share * 1.001), 2, &e), e);
        assert_eq!(made::<f64>(centred(1.0), 1, &[3.0, 3.0]), [3.0, 3.0]);
        assert_eq!(made::<f64>(centred(0.999), 1, &[3.0, 3.0]), [0.0, 0.0]);
    }

    /// Squares that overflow or vanish decide like any others.
    #[test]
    fn the_gate_knows_no_scale() {
        for scale in [1e-300, 1e-170, 1.0, 1e170, 1e300] {
            let e = [1.0, -1.0, 0.0, 0.5, 1.5, 0.0, -0.5, -0.5].map(|e| e * scale);
            assert_ne!(made::<f64>(centred(0.24), 2, &e), e, "{scale:e}");
            assert_eq!(made::<f64>(centred(0.26), 2, &e), e, "{scale:e}");
        }
        for signal in [Signal::ErrorSign, ternary(0.1), centred(0.0), centred(0.5)] {
            assert_eq!(made::<f64>(signal, 2, &[0.0; 4]), [0.0; 4]);
        }
        assert!(made::<f64>(ternary(0.5), 1, &[f64::NAN, 1.0])[0].is_nan());
        // In `f32` the threshold overflows, and nothing exceeds it.
        assert_eq!(made::<f32>(ternary(1e300), 1, &[1e38, -1e38]), [0.0; 2]);
    }
}
