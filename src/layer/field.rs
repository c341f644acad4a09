//! A copy of a sample with padding around it, over which the windows of a convolution slide.

use super::shape::Shape;
use crate::scalar::Scalar;

/// How the channels of a sample are stored in a field: row by row, with padding on all sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Rows of a channel, padding included.
    pub(super) height: usize,
    /// Pixels of a row, padding included.
    pub(super) width: usize,
    /// Rows above the image and columns left of it.
    pub(super) padding: (usize, usize),
}

impl Field {
    /// How many numbers a channel has.
    pub(super) fn plane(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// The place of a number: its channel, row and column.
    pub(super) fn at(&self, channel: usize, row: usize, column: usize) -> usize {
        channel * self.plane() + row * self.width + column
    }

    /// Copies the channels of a sample of this shape to their places. The padding around them stays as
    /// it is.
    pub(super) fn place<T: Scalar>(&self, shape: Shape, planes: &[T], field: &mut [T]) {
        let (Shape { width, .. }, (above, left)) = (shape, self.padding);
        // No window sees the pixels beyond this.
        let end = self.width.min(left + width);
        let start = left.min(end);
        let planes = planes.chunks_exact(shape.plane());
        for (plane, field) in planes.zip(field.chunks_exact_mut(self.plane())) {
            let rows = field.chunks_exact_mut(self.width).skip(above);
            for (pixels, row) in plane.chunks_exact(width).zip(rows) {
                row[start..end].copy_from_slice(&pixels[..end - start]);
            }
        }
    }
}
