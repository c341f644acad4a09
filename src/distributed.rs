//! Training on several processes, with the same bits on any number of them. Needs the feature `mpi`.
//!
//! | what is divided | type | what is sent |
//! |---|---|---|
//! | the samples of a batch | [`DataParallel`] | gradients |
//! | the layers | [`LayerParallel`] | activations up; the error, or deltas, back |
//! | the layers, each process on another batch | [`Pipeline`] | the same, but nobody waits |
//!
//! All processes make the same calls in the same order, with the same trainer and the same data. Each
//! then does its part of the work. They exchange messages through a [`Group`]. There are two kinds:
//! [`MpiGroup`], the processes that `mpirun` has started, and [`LocalGroup`], the threads of one
//! program. A [`Counted`] group counts what it sends. An error of one process becomes an error of all
//! ([`agree`]).
//!
//! ```
//! use feedback_alignment::{
//!     Dataset, Error, Network, Trainer,
//!     distributed::{DataParallel, LocalGroup, fingerprint},
//!     nalgebra::DMatrix,
//! };
//!
//! let x = DMatrix::from_fn(3, 12, |i, j| ((i + 2 * j) % 5) as f32);
//! let data = Dataset::new(x, (0..12).map(|j| j % 2).collect())?;
//! let bits = [1, 2, 4].map(|processes| {
//!     LocalGroup::run(processes, |group| -> Result<u64, Error> {
//!         let network = Network::builder(3).dense(8).tanh().dense(2).build()?;
//!         let trainer = Trainer::builder(network).batch_size(6).build()?;
//!         let mut parallel = DataParallel::new(group, trainer, 4)?;
//!         parallel.epoch(&data)?;
//!         Ok(fingerprint(parallel.trainer().network()))
//!     })
//! });
//! assert_eq!(bits[0][0].as_ref().unwrap(), bits[2][3].as_ref().unwrap());
//! # Ok::<(), Error>(())
//! ```
//!
//! Numbers are sent as they stand in memory, so all machines need the same byte order.

// The order is that of dependence, as in `lib.rs`.
mod group;
mod counted;
mod local_group;
mod mpi_group;
mod together;
mod fingerprint;
mod score;
mod tree;
mod data_parallel;
mod share;
mod part;
mod learn;
mod up;
mod layer_parallel;
mod pipeline;

pub use counted::{Counted, Traffic};
pub use data_parallel::DataParallel;
pub use fingerprint::fingerprint;
pub use group::Group;
pub use layer_parallel::LayerParallel;
pub use local_group::LocalGroup;
pub use mpi_group::MpiGroup;
pub use pipeline::Pipeline;
pub use together::agree;
