#![cfg_attr(docsrs, feature(doc_cfg))] // docs.rs says which feature an item needs.
//! Train neural networks on the CPU **without backpropagation**, and see why it works.
//!
//! Backpropagation sends the error back through the very weights that made it. Brains cannot do that,
//! and in hardware it is costly. Fixed random feedback is enough: this crate has feedback alignment,
//! direct and indirect feedback alignment, eleven relatives of these, and backpropagation to compare
//! with. Each is a [`FeedbackRule`], and tests check each against its formulas. In the picture, grey
//! arrows are the forward pass and black arrows carry the error:
#![doc = include_str!("guide/four_rules.html")]
//!
//! ```
//! use feedback_alignment::{Dataset, FeedbackRule, Network, RmsProp, Trainer, nalgebra::DMatrix};
//!
//! // Which of two numbers is larger? A sample is a column.
//! let x = DMatrix::from_fn(2, 200, |i, j| ((j * (7 + 4 * i) + i) % 31) as f32 / 31.0);
//! let labels = x.column_iter().map(|x| usize::from(x[1] > x[0])).collect();
//! let data = Dataset::new(x, labels)?;
//!
//! let network = Network::<f32>::builder(2).dense(20).tanh().dense(20).tanh().dense(2).build()?;
//! let mut trainer = Trainer::builder(network)
//!     .rule(FeedbackRule::Dfa) // Here is all that differs from backpropagation.
//!     .optimizer(RmsProp { learning_rate: 3e-3, ..RmsProp::default() })
//!     .batch_size(20)
//!     .build()?;
//! for _ in 0..30 {
//!     trainer.epoch(&data)?;
//! }
//! assert!(trainer.evaluate(&data)?.error_rate.unwrap() < 0.1);
//! # Ok::<(), feedback_alignment::Error>(())
//! ```
//!
//! # Where to find what
//! - The [`guide`] explains the field in nine short chapters, from what backpropagation needs to a rule
//!   of your own.
//! - [`FeedbackRule`] lists the rules with their sources. A [`Route`] says what a rule sends where.
//!   [`Network`] is what the rules train, and [`Trainer`] is the training loop.
//! - The five stages of a training step are [`Network::forward`], [`Loss::error`], [`Feedback::deliver`],
//!   [`Network::gradients`] and [`OptimizerState::step`].
//! - [`Diagnostics`] looks inside a network while it learns. [`Log`] writes down the results of each
//!   epoch. [`GradientCheck`] compares the gradients with numerical ones.
//! - [`data`] loads and prepares data sets. [`files`] describes the files that this crate writes.
//!
//! # Features
//! | feature | default | gives |
//! |---|---|---|
//! | `parallel` | yes | products on several threads; results do not depend on their number |
//! | `csv` | yes | [`data::csv`](crate::data) |
//! | `gzip` | yes | compressed IDX and CIFAR files |
//! | `safetensors` | yes | saving and loading networks, checkpoints and scalings |
//! | `serde` | no | serde's traits for settings and results |
//! | `mpi` | no | `distributed`: training on several processes; not on docs.rs |

// The order is that of dependence: a module uses only those above it.
mod elementary;
mod correlate;
mod scalar;
mod vector;
mod angle;
mod error;
pub mod files;
mod threads;
mod bound;
mod linalg;
mod buffer;
mod parameters;
mod seed;
mod signal;
mod route;
mod picture;
mod rule;
mod init;
mod activation;
mod layer;
mod architecture;
mod workspace;
mod network;
mod targets;
mod loss;
mod feedback;
mod summary;
mod adversarial;
mod gradient_check;
mod optimizer;
mod engine;
pub mod data;
mod trainer;
mod diagnostics;
mod log;
#[cfg(all(debug_assertions, not(test)))]
mod compiled;
#[cfg(feature = "serde")]
mod text_form;
#[cfg(feature = "mpi")]
pub mod distributed;
pub mod guide;

pub use nalgebra;
pub use rand;
pub use rand_distr;

pub use activation::Activation;
pub use adversarial::FastGradientSign;
pub use data::{Dataset, Scaling};
pub use diagnostics::{Diagnosis, Diagnostics, LayerDiagnosis};
pub use error::{Error, Result};
pub use feedback::{Feedback, Mirror};
pub use gradient_check::{GradientCheck, GradientReport, TensorCheck};
pub use init::{FeedbackInit, Init};
pub use layer::{
    AvgPool2d, BatchNorm, Bias, Conv2d, Dropout, Layer, LayerNorm, MaxPool2d, Operation, Pool2d,
    Shape, Skip,
};
pub use log::Log;
pub use loss::Loss;
#[cfg(feature = "safetensors")]
pub use network::LoadOptions;
pub use network::{Network, NetworkBuilder};
pub use optimizer::{
    Adam, AdamW, Decay, Momentum, Optimizer, OptimizerState, RmsProp, Schedule, Sgd, WeightDecay,
};
pub use parameters::{Parameters, Part, Slot};
pub use route::{Hop, Magnitudes, Route, Through};
pub use rule::FeedbackRule;
pub use scalar::Scalar;
pub use signal::{Signal, Threshold};
pub use summary::{LayerSummary, Summary};
pub use targets::Targets;
pub use trainer::{
    ConfusionMatrix, EarlyStopping, Epoch, Evaluation, Plateau, Step, StoppingRule, Trainer,
    TrainerBuilder,
};
pub use workspace::{Activations, Deltas, Gradients};

/// The code of the README, to be tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
