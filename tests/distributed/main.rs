//! Training on several processes, which are threads of this program, or what `mpirun` starts. It is a program
//! of its own, since it needs a feature that is off by default and starts itself under `mpirun`.
#![cfg(feature = "mpi")]

mod groups;
#[cfg(unix)]
mod mpi;
