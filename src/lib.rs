#![cfg_attr(docsrs, feature(doc_cfg))] // docs.rs says which feature an item needs.
#![doc = include_str!("../README.md")]
//!
//! # Where to find what
//! [`FeedbackRule`] states the rules, a [`Route`] is what a rule is, [`Network`] is what they train,
//! [`Trainer`] is the loop.
//! The five stages of a training step are [`Network::forward`], [`Loss::error`],
//! [`Feedback::deliver`], [`Network::gradients`] and [`OptimizerState::step`]. [`Diagnostics`] looks
//! inside, [`GradientCheck`] proves the gradients. What is written to disk is described in
//! [`files`].

// The order is that of dependence: a module uses only those above it.
mod elementary;
mod scalar;
mod vector;
mod angle;
mod error;
pub mod files;
mod threads;
mod linalg;
mod buffer;
mod parameters;
mod seed;
mod signal;
mod route;
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
mod adversarial;
mod gradient_check;
mod optimizer;
mod engine;
pub mod data;
mod trainer;
mod diagnostics;
#[cfg(all(debug_assertions, not(test)))]
mod compiled;
#[cfg(feature = "serde")]
mod text_form;
#[cfg(feature = "mpi")]
pub mod distributed;

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
pub use targets::Targets;
pub use trainer::{
    ConfusionMatrix, EarlyStopping, Epoch, Evaluation, Step, StoppingRule, Trainer, TrainerBuilder,
};
pub use workspace::{Activations, Deltas, Gradients};
