//! The tests of the library as its users see it. They are one program, because the generic code of
//! the library is compiled anew for every program that uses it. Some tests need a program of their
//! own; they stand beside this folder.

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "safetensors")]
#[path = "../common/craft.rs"]
mod craft;

mod api;
mod architecture;
mod borders;
mod changes_in_mid_run;
#[cfg(feature = "safetensors")]
mod checkpoints;
mod cifar;
mod class_weights;
mod conv_family;
mod convolution;
mod cures;
#[cfg(feature = "safetensors")]
mod damaged_files;
mod diagnostics;
mod errors;
mod extreme_numbers;
mod family;
mod feedback_matrices;
mod freezing;
mod frozen_normalisation;
mod gradient_check;
mod guide;
mod helpers;
mod hostile_calls;
mod idx_files;
mod learning_matrices;
mod loaders;
mod logs;
mod long_sums;
mod nets;
#[cfg(feature = "safetensors")]
mod network_files;
mod oracles;
mod pytorch;
mod rates;
#[cfg(feature = "safetensors")]
mod readers;
mod reference;
mod residuals;
mod routes;
mod scalings;
#[cfg(feature = "serde")]
mod serialized;
mod shortcuts;
mod signals;
mod slopes;
mod stability;
mod stages;
mod summary;
#[cfg(feature = "csv")]
mod tables;
#[cfg(feature = "safetensors")]
mod tensor_files;
mod threads;
mod tiles;
mod wrong_files;
