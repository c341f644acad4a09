//! The shape of the values between layers.

use std::fmt;

/// Channels, height and width of an image. A plain vector of `n` features has the shape `n × 1 × 1`.
///
/// A sample is a column of a matrix. In it the values stand channel by channel, and within a channel
/// row by row, as in the CIFAR files and in PyTorch.
///
/// ```
/// use feedback_alignment::Shape;
///
/// assert_eq!(Shape::from((3, 32, 32)).len(), 3072);
/// assert_eq!(Shape::from(784).to_string(), "784");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct Shape {
    /// Number of channels, or of features.
    pub channels: usize,
    /// Rows of a channel.
    pub height: usize,
    /// Columns of a channel.
    pub width: usize,
}

impl Shape {
    /// Number of values; `usize::MAX` if there are more than can be counted.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // A network has no empty shape.
    pub fn len(self) -> usize {
        self.checked_len().unwrap_or(usize::MAX)
    }

    /// The lengths of its sides as PyTorch lists them; a single one for plain features.
    #[cfg(feature = "safetensors")]
    pub(crate) fn dimensions(self) -> Vec<usize> {
        let Self { channels, height, width } = self;
        if self.plane() == 1 { vec![channels] } else { vec![channels, height, width] }
    }

    /// Number of values, unless there are more than can be counted.
    pub(crate) fn checked_len(self) -> Option<usize> {
        match (self.channels, self.height, self.width) {
            (0, ..) | (_, 0, _) | (.., 0) => Some(0),
            (channels, height, width) => height.checked_mul(width)?.checked_mul(channels),
        }
    }

    /// Number of values in a channel.
    pub(crate) fn plane(self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

impl From<usize> for Shape {
    fn from(features: usize) -> Self {
        Self { channels: features, height: 1, width: 1 }
    }
}

impl From<(usize, usize, usize)> for Shape {
    fn from((channels, height, width): (usize, usize, usize)) -> Self {
        Self { channels, height, width }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, height, width } = self;
        match (height, width) {
            (1, 1) => write!(f, "{channels}"),
            _ => write!(f, "{channels}×{height}×{width}"),
        }
    }
}
