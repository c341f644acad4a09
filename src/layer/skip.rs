//! Residual connections.

use std::fmt;

use super::shape::Shape;
use crate::scalar::Scalar;

/// A residual connection (He et al. 2016, eq. 1): `y = x + h`, where `h` is the output of an earlier
/// layer.
///
/// If `x` has the shape of `h`, all of `h` is added. If `x` is a smaller image with as many channels or
/// more, the connection still has no parameters (He et al.'s option A). It takes every `s`-th row and
/// column of `h`. Channels that `h` lacks count as zeros: half of them stand before the channels of `h`
/// and half after, and of an odd number the smaller half stands before. The common PyTorch code for
/// CIFAR-10, such as BioTorch's, does the same
/// (`F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))`). The stride `s` is the same on
/// both axes. It is the smallest one that leads from `h×w` to `⌈h/s⌉×⌈w/s⌉`. Plain features are not
/// images: there another number of units is an error.
///
/// On its way back a delta goes on unchanged, and a copy of it goes straight to the end of the layer
/// that `h` comes from. Rows and columns of `h` that were left out receive nothing, and the deltas of
/// zero channels go nowhere. The copy belongs to the way *down*. It arrives there under BP and FA, and
/// on every [`Route`](crate::Route) whose hop to that layer comes down from the next layer through its
/// weights, or through random ones in their place. A layer that receives its feedback straight from the
/// output, as under DFA, gets no copy. On the way *up*, under IFA, the connection adds signals just as
/// it adds activations in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The layer whose output is `h`; `None` stands for the input.
    pub(crate) from: Option<usize>,
    /// How many weighted layers it leads past.
    layers: usize,
    /// The shape of `h`.
    start: Shape,
    /// The shape of `x` and `y`.
    end: Shape,
    /// The distance between two rows, or columns, of `h` that are taken.
    stride: usize,
}

impl Skip {
    /// A connection from `layers` layers below `layer`; `None` if the two shapes cannot be added.
    pub(crate) fn new(layer: usize, layers: usize, start: Shape, end: Shape) -> Option<Self> {
        let stride = if start == end { 1 } else { stride(start, end)? };
        Some(Self { from: layer.checked_sub(layers), layers, start, end, stride })
    }

    /// How many weighted layers it leads past.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Length of `y`.
    pub(crate) fn size(&self) -> usize {
        self.end.len()
    }

    /// `y ← x + h`
    pub(crate) fn forward<T: Scalar>(&self, x: &[T], h: &[T], y: &mut [T]) {
        if self.start == self.end {
            for ((y, &x), &h) in y.iter_mut().zip(x).zip(h) {
                *y = x + h;
            }
        } else {
            y.copy_from_slice(x);
            self.add_up(h, y);
        }
    }

    /// `y ← y + S h`, where the matrix `S` picks the values of `h` that are taken.
    pub(crate) fn add_up<T: Scalar>(&self, h: &[T], y: &mut [T]) {
        if self.start == self.end {
            return add(y, h);
        }
        for (h, y) in h.chunks_exact(self.start.len()).zip(y.chunks_exact_mut(self.end.len())) {
            self.pairs().for_each(|(start, end)| y[end] += h[start]);
        }
    }

    /// `h ← h + Sᵀ y`, the way back.
    pub(crate) fn add_down<T: Scalar>(&self, y: &[T], h: &mut [T]) {
        if self.start == self.end {
            return add(h, y);
        }
        for (y, h) in y.chunks_exact(self.end.len()).zip(h.chunks_exact_mut(self.start.len())) {
            self.pairs().for_each(|(start, end)| h[start] += y[end]);
        }
    }

    /// The places in a sample of `h` that are taken, each with its place in `y`.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let Self { start, end, stride, .. } = *self;
        let before = (end.channels - start.channels) / 2;
        (0..start.channels).flat_map(move |channel| {
            (0..end.height).flat_map(move |row| {
                let from = (channel * start.height + row * stride) * start.width;
                let to = ((before + channel) * end.height + row) * end.width;
                (0..end.width).map(move |column| (from + column * stride, to + column))
            })
        })
    }
}

/// The stride that makes an image of shape `end` from one of shape `start`; `None` if there is none. No
/// smaller stride leaves as few rows and columns.
fn stride(start: Shape, end: Shape) -> Option<usize> {
    if end.plane() <= 1 || end.channels < start.channels {
        return None;
    }
    let (rows, columns) = (start.height.div_ceil(end.height), start.width.div_ceil(end.width));
    let stride = rows.max(columns);
    let taken = (start.height.div_ceil(stride), start.width.div_ceil(stride));
    (taken == (end.height, end.width)).then_some(stride)
}

/// `to ← to + more`
pub(crate) fn add<T: Scalar>(to: &mut [T], more: &[T]) {
    to.iter_mut().zip(more).for_each(|(to, &more)| *to += more);
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip {}", self.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(
        start: (usize, usize, usize),
        end: (usize, usize, usize),
    ) -> Option<Vec<(usize, usize)>> {
        Some(Skip::new(1, 1, start.into(), end.into())?.pairs().collect())
    }

    #[test]
    fn every_second_row_and_column_is_taken_and_the_channels_stand_in_the_middle() {
        // 2×3×3 → 5×2×2: one channel of zeros before, two after.
        let expected = [(0, 4), (2, 5), (6, 6), (8, 7), (9, 8), (11, 9), (15, 10), (17, 11)];
        assert_eq!(pairs((2, 3, 3), (5, 2, 2)).unwrap(), expected);
        assert_eq!(pairs((1, 1, 2), (3, 1, 2)).unwrap(), [(0, 2), (1, 3)]);
        let whole: Vec<_> = (0..24).map(|place| (place, place)).collect();
        assert_eq!(pairs((2, 3, 4), (2, 3, 4)).unwrap(), whole);
    }

    #[test]
    fn a_stride_is_the_smallest_and_the_same_on_both_axes() {
        let of = |start: (usize, usize), end: (usize, usize)| {
            stride((3, start.0, start.1).into(), (3, end.0, end.1).into())
        };
        for height in 1..12_usize {
            for width in 1..12_usize {
                for end in (1..12).flat_map(|rows| (1..12).map(move |columns| (rows, columns))) {
                    let fits = |&s: &usize| (height.div_ceil(s), width.div_ceil(s)) == end;
                    let expected = (1..12).find(fits).filter(|_| end != (1, 1));
                    assert_eq!(of((height, width), end), expected, "{height}×{width}, {end:?}");
                }
            }
        }
    }
}
