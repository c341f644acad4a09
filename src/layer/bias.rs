//! The bias of a weighted layer.

/// Whether a layer adds a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Bias {
    /// `a = W h + b`
    #[default]
    With,
    /// `a = W h`
    Without,
}
