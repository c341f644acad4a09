//! A sample with room around it, over which the windows of a convolution slide.

use super::shape::Shape;
use crate::scalar::Scalar;

/// How the planes of a sample lie in a field.
///
/// A row holds first the pixels whose column, padding included, is a multiple of the stride, then those
/// with the remainder 1, and so on for as many remainders as there are phases. So neighbouring outputs
/// see neighbouring pixels, whatever the stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Rows of a plane, with those of the padding.
    pub(super) height: usize,
    /// Pixels of each phase in a row, with those of the padding.
    pub(super) width: usize,
    /// Horizontal.
    pub(super) stride: usize,
    pub(super) phases: usize,
    /// Rows above the image and columns left of it.
    pub(super) padding: (usize, usize),
}

impl Field {
    /// Numbers of a row.
    pub(super) fn row(&self) -> usize {
        self.width.saturating_mul(self.phases)
    }

    /// Numbers of a plane.
    pub(super) fn plane(&self) -> usize {
        self.height.saturating_mul(self.row())
    }

    /// Copies planes of this shape to their places. What lies around them stays as it is.
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
