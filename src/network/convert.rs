//! The same network in another scalar type.

use super::{Network, builder::assemble};
use crate::{
    error::{Result, require_finite},
    scalar::Scalar,
};

impl<T: Scalar> Network<T> {
    /// The same network in another scalar type. Into `f64` it is exact; into `f32` every parameter is
    /// rounded to the nearest number. For the same seed and step, dropout has the same masks in both.
    ///
    /// ```
    /// use feedback_alignment::{Network, nalgebra::DMatrix};
    ///
    /// let network = Network::<f32>::builder(4).dense(8).tanh().dense(3).build()?;
    /// let precise = network.cast::<f64>()?;
    /// let x = DMatrix::from_element(4, 1, 0.5);
    /// let (a, b) = (precise.predict(&x)?, network.predict(&x.map(|x| x as f32))?);
    /// assert!((a - b.map(f64::from)).amax() < 1e-6);
    /// assert_eq!(precise.cast::<f32>()?, network);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a parameter that is too large for `f32`,
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a setting that is out of range
    /// in `f32`, [`Error::TooLarge`](crate::Error::TooLarge) if there is not enough memory.
    pub fn cast<U: Scalar>(&self) -> Result<Network<U>> {
        let mut network: Network<U> = assemble(self.architecture.clone())?;
        for slot in self.parameters.slots() {
            let to = network.parameters.slot_mut(slot);
            for (to, from) in to.iter_mut().zip(self.parameters.slot(slot)) {
                *to = U::of(from.as_f64());
            }
            let what = || format!("{slot} of {self}, rounded to {},", U::NAME);
            require_finite(what, slot.rows, to)?;
        }
        network.drawn_for = self.drawn_for;
        for (to, from) in network.blocks.iter_mut().zip(&self.blocks) {
            to.frozen = from.frozen;
        }
        Ok(network)
    }
}
