//! The lines of a run.

use serde::{Deserialize, Serialize};

/// The first line: what was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub row: String,
    pub arm: String,
    pub seed: u64,
    pub data: String,
    /// Of the whole run, where its schedule depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    pub version: String,
}

/// A line after each epoch, or after some steps, with few digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Epochs or steps made.
    pub at: u64,
    /// On what nothing was learned from, in percent.
    pub error: f64,
    /// The first hidden layer's delta to backpropagation's, in degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angle: Option<f64>,
    /// The mean cosine of two samples' outputs of the last hidden layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
}

/// So many digits after the point are kept.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10.0_f64.powi(digits);
    (value * scale).round() / scale
}
