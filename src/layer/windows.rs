//! The windows of convolutions and of pooling.

use std::fmt;

use super::shape::Shape;
use crate::error::{Error, Result};

/// Windows that slide over the planes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
}

impl Windows {
    /// Windows over `input`, as many as fit: `⌊(size + 2·padding − kernel)/stride⌋ + 1` along
    /// each side; `name` is what errors call the layer.
    pub(crate) fn new(
        name: &dyn fmt::Display,
        input: Shape,
        channels: usize,
        kernel: (usize, usize),
        stride: (usize, usize),
        padding: (usize, usize),
    ) -> Result<Self> {
        let refuse = |reason| {
            let (layer, input) = (name.to_string(), input.to_string());
            Error::Window { layer, input, reason }
        };
        if stride.0 == 0 || stride.1 == 0 {
            return Err(refuse("a stride of 0 never moves on"));
        }
        if kernel.0 == 0 || kernel.1 == 0 {
            return Err(refuse("a kernel without a pixel sees nothing"));
        }
        let count = |size: usize, padding: usize, kernel: usize, stride: usize| {
            let padded = padding.checked_mul(2).and_then(|padding| padding.checked_add(size))?;
            Some(padded.checked_sub(kernel)? / stride + 1)
        };
        let too_large = "the kernel is larger than its padded input";
        let height = count(input.height, padding.0, kernel.0, stride.0);
        let width = count(input.width, padding.1, kernel.1, stride.1);
        let (Some(height), Some(width)) = (height, width) else { return Err(refuse(too_large)) };
        let output = Shape { channels, height, width };
        if output.checked_len().is_none() {
            return Err(Error::TooLarge { rows: channels, columns: height.saturating_mul(width) });
        }
        Ok(Self { input, output, kernel, stride, padding })
    }
}
