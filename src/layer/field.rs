//! A copy of a sample with padding around it, over which the windows of a convolution slide.

use super::shape::Shape;
use crate::scalar::Scalar;

/// How the channels of a sample are stored in a field.
///
/// A row first has the pixels whose column (padding counted) is a multiple of the stride, then those
/// with remainder 1, and so on. Each remainder is a phase. So neighbouring outputs read neighbouring
/// pixels, whatever the stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Rows of a channel, padding included.
    pub(super) height: usize,
    /// Pixels of each phase in a row, padding included.
    pub(super) width: usize,
    /// The horizontal stride.
    pub(super) stride: usize,
    pub(super) phases: usize,
    /// Rows above the image and columns left of it.
    pub(super) padding: (usize, usize),
}

impl Field {
    /// How many numbers a row has.
    pub(super) fn row(&self) -> usize {
        self.width.saturating_mul(self.phases)
    }

    /// How many numbers a channel has.
    pub(super) fn plane(&self) -> usize {
        self.height.saturating_mul(self.row())
    }

    /// Copies the channels of a sample of this shape to their places. The padding around them stays as
    /// it is.
    pub(super) fn place<T: Scalar>(&self, shape: Shape, planes: &[T], field: &mut [T]) {
        let (Shape { width, .. }, (above, left)) = (shape, self.padding);
        let planes = planes.chunks_exact(shape.plane());
        for (plane, field) in planes.zip(field.chunks_exact_mut(self.plane())) {
            let rows = field.chunks_exact_mut(self.row()).skip(above);
            for (pixels, row) in plane.chunks_exact(width).zip(rows) {
                if self.stride == 1 {
                    let end = row.len().min(left + width);
                    row[left.min(end)..end].copy_from_slice(&pixels[..end - left.min(end)]);
                    continue;
                }
                for (column, &pixel) in (left..).zip(pixels) {
                    let (phase, place) = (column % self.stride, column / self.stride);
                    if phase < self.phases && place < self.width {
                        row[phase * self.width + place] = pixel;
                    }
                }
            }
        }
    }
}
