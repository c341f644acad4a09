//! The most used functions of the crate, compiled here for both scalar types.
//!
//! Generic code is compiled again by every program that uses it. In builds with little optimisation,
//! such as tests, the compiler first looks for code that a library has already compiled. So this file
//! saves each test program and example most of its build time. Nobody calls it.

use crate::{
    data::Dataset,
    diagnostics::Diagnostics,
    feedback::Feedback,
    loss::Loss,
    network::{Network, NetworkBuilder},
    optimizer::OptimizerState,
    scalar::Scalar,
    trainer::{Trainer, TrainerBuilder},
};

/// Addresses of functions. Taking an address makes the compiler compile the function.
type Addresses = [*const (); 16];

/// `used` keeps it although nothing reads it.
#[used]
static FOR_BOTH_SCALARS: fn() -> [Addresses; 2] = || [of::<f32>(), of::<f64>()];

fn of<T: Scalar>() -> Addresses {
    [
        NetworkBuilder::<T>::build as *const (),
        TrainerBuilder::<T>::build as *const (),
        Network::<T>::train_pass as *const (),
        Loss::error_by::<T> as *const (),
        Feedback::<T>::new as *const (),
        Feedback::<T>::follow as *const (),
        Feedback::<T>::deliver as *const (),
        Network::<T>::gradients as *const (),
        OptimizerState::<T>::deliver_and_learn as *const (),
        OptimizerState::<T>::step_with_feedback as *const (),
        Trainer::<T>::epoch as *const (),
        Trainer::<T>::evaluate as *const (),
        Trainer::<T>::apply as *const (),
        Dataset::<T>::split as *const (),
        Dataset::<T>::subset as *const (),
        Diagnostics::<T>::compare as *const (),
    ]
}
