//! The windows of convolutions and of pooling.

use std::fmt;

use super::shape::Shape;
use crate::error::{Error, Result};

/// Windows that slide over the channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
}

impl Windows {
    /// Windows over `input`, as many as fit: `⌊(size + 2·padding − kernel)/stride⌋ + 1` along each
    /// side. Error messages call the layer `name`.
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

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole numbers, so that sums are exact in any order.
    pub(crate) fn integers(length: usize, seed: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * 37 + i / 5 * 11 + seed * 13) % 17) as f64 - 8.0).collect()
    }

    /// Windows of any kind; outputs and channels fill one vector or several, and not all of the last.
    pub(crate) fn any_windows() -> impl Strategy<Value = Windows> {
        let pair = |most: usize| (1..=most, 1..=most);
        let channels = prop::sample::select(vec![1_usize, 2, 3, 16, 22, 64, 65]);
        let outputs = prop::sample::select(vec![1_usize, 2, 3, 17, 34, 65]);
        (channels, pair(9), outputs, pair(5), pair(4), (0..4_usize, 0..4_usize)).prop_filter_map(
            "the kernel fits",
            |(channels, (height, width), outputs, kernel, stride, padding)| {
                let input = Shape { channels, height, width };
                Windows::new(&"a convolution", input, outputs, kernel, stride, padding).ok()
            },
        )
    }

    /// The pixel of channel `c` that kernel entry `(i, j)` sees for the output `(y, z)`.
    pub(crate) fn pixel(
        windows: &Windows,
        c: usize,
        (y, i): (usize, usize),
        (z, j): (usize, usize),
    ) -> Option<usize> {
        let Windows { input, stride, padding, .. } = windows;
        let row = (y * stride.0 + i).checked_sub(padding.0)?;
        let column = (z * stride.1 + j).checked_sub(padding.1)?;
        (row < input.height && column < input.width)
            .then_some(c * input.plane() + row * input.width + column)
    }
}
