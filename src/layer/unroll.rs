//! The unrolled input of a convolution, in which the rows of the kernel share what they see.

use super::windows::Windows;
use crate::scalar::Scalar;

/// How a sample is unrolled into a matrix `Q`.
///
/// Column `(c, j)` of `Q` is the plane of channel `c`, with its padding, as column `j` of the kernel
/// sees it: one line for each row of the image. Row `i` of the kernel sees as many of these lines
/// as the output has, side by side in memory, and the convolution is a sum of products over `i`. So
/// `Q` takes `kh` times fewer copies than a column for every weight, and stays in cache. Under a
/// vertical stride `s` the lines are sorted by their number modulo `s`, and what a row of the
/// kernel sees still lies side by side.
///
/// Where that would leave products of too few terms, all rows of the kernel form one group: each
/// has columns of its own, `(c, i, j)`, and there is a single product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unrolling {
    windows: Windows,
    /// How many products it takes: 1, or as many as the kernel has rows.
    pub(super) groups: usize,
}

/// Fewer terms than this make a product that is bound by reading and writing its result.
const TERMS: usize = 64;

impl Unrolling {
    pub(super) fn new(windows: Windows) -> Self {
        let shares = windows.input.channels * windows.kernel.1 >= TERMS;
        Self { windows, groups: if shares { windows.kernel.0 } else { 1 } }
    }

    /// Columns of `Q` for each channel of the input.
    pub(super) fn columns(&self) -> usize {
        self.windows.kernel.0 / self.groups * self.windows.kernel.1
    }

    /// Rows of `Q`.
    pub(super) fn rows(&self) -> usize {
        let lines = (0..self.phases()).map(|phase| self.lines(phase));
        lines.fold(0, usize::saturating_add).saturating_mul(self.windows.output.width)
    }

    /// The row of `Q` from which on a group sees what its outputs are made of.
    pub(super) fn start(&self, group: usize) -> usize {
        let stride = self.windows.stride.0;
        let before: usize = (0..group % stride).map(|phase| self.lines(phase)).sum();
        (before + group / stride) * self.windows.output.width
    }

    /// Different remainders of the lines modulo the stride.
    fn phases(&self) -> usize {
        self.windows.stride.0.min(self.groups)
    }

    /// Lines with the remainder `phase`.
    fn lines(&self, phase: usize) -> usize {
        self.windows.output.height + (self.groups - 1 - phase) / self.windows.stride.0
    }

    /// The rows of the padded image that become lines of `Q`, in the order of `Q`.
    fn sights(&self) -> impl Iterator<Item = usize> {
        let stride = self.windows.stride.0;
        (0..self.phases())
            .flat_map(move |phase| (0..self.lines(phase)).map(move |line| line * stride + phase))
    }

    /// Columns `first…` of `Q` of the sample `x`, as many as `unrolled` holds.
    pub(super) fn unroll<T: Scalar>(&self, x: &[T], first: usize, unrolled: &mut [T]) {
        let Windows { input, output, stride, .. } = self.windows;
        for (index, column) in unrolled.chunks_exact_mut(self.rows()).enumerate() {
            let (channel, i, j) = self.tap(first + index);
            let plane = &x[channel * input.plane()..][..input.plane()];
            if stride == (1, 1) && input.width == output.width {
                self.shift_plane(plane, i, j, column);
                continue;
            }
            for (sight, line) in self.sights().zip(column.chunks_exact_mut(output.width)) {
                match self.image_row(sight, i) {
                    Some(row) => self.copy_row(&plane[row * input.width..][..input.width], j, line),
                    None => line.fill(T::zero()),
                }
            }
        }
    }

    /// A column of `Q` where the output is as wide as the input and every pixel is visited: the
    /// plane, moved as a whole, but for what slid in from the neighbouring row.
    fn shift_plane<T: Scalar>(&self, plane: &[T], i: usize, j: usize, column: &mut [T]) {
        let Windows { input, padding, .. } = self.windows;
        let width = input.width;
        let lines = column.len() / width;
        // The lines that lie within the image.
        let top = padding.0.saturating_sub(i).min(lines);
        let bottom = (input.height + padding.0).saturating_sub(i).min(lines).max(top);
        column[..top * width].fill(T::zero());
        column[bottom * width..].fill(T::zero());
        if top == bottom {
            return;
        }
        let from = &plane[(top + i - padding.0) * width..][..(bottom - top) * width];
        let to = &mut column[top * width..bottom * width];
        let (left, right) = (padding.1.saturating_sub(j), j.saturating_sub(padding.1));
        let (left, right) = (left.min(width), right.min(width));
        to[left..].iter_mut().zip(&from[right..]).for_each(|(to, &from)| *to = from);
        for column in (0..left).chain(width - right..width) {
            to[column..].iter_mut().step_by(width).for_each(|to| *to = T::zero());
        }
    }

    /// `x ←` the sum of what the columns of `Q` contribute to each pixel: the transpose of
    /// [`unroll`](Self::unroll).
    pub(super) fn fold<T: Scalar>(&self, unrolled: &[T], x: &mut [T]) {
        let Windows { input, output, stride, padding, .. } = self.windows;
        x.fill(T::zero());
        for (index, column) in unrolled.chunks_exact(self.rows()).enumerate() {
            let (channel, i, j) = self.tap(index);
            let plane = &mut x[channel * input.plane()..][..input.plane()];
            let (start, end) = self.span(j);
            if start == end {
                continue;
            }
            let offset = start * stride.1 + j - padding.1;
            for (sight, line) in self.sights().zip(column.chunks_exact(output.width)) {
                let Some(row) = self.image_row(sight, i) else { continue };
                let into = &mut plane[row * input.width..][offset..input.width];
                let from = &line[start..end];
                if stride.1 == 1 {
                    into.iter_mut().zip(from).for_each(|(x, &value)| *x += value);
                } else {
                    let into = into.iter_mut().step_by(stride.1);
                    into.zip(from).for_each(|(x, &value)| *x += value);
                }
            }
        }
    }

    /// Channel, row within the group and column of the kernel that column `index` of `Q` is for.
    fn tap(&self, index: usize) -> (usize, usize, usize) {
        let width = self.windows.kernel.1;
        (index / self.columns(), index % self.columns() / width, index % width)
    }

    /// The row of the image, if it is one, that row `i` of a group sees in the line of `sight`.
    fn image_row(&self, sight: usize, i: usize) -> Option<usize> {
        let row = (sight + i).wrapping_sub(self.windows.padding.0);
        (row < self.windows.input.height).then_some(row)
    }

    /// The columns of the output that see the input through column `j` of the kernel.
    fn span(&self, j: usize) -> (usize, usize) {
        let Windows { input, output, stride, padding, .. } = self.windows;
        let start = padding.1.saturating_sub(j).div_ceil(stride.1).min(output.width);
        let end = match (input.width + padding.1).checked_sub(j + 1) {
            Some(last) => (last / stride.1 + 1).min(output.width),
            None => 0,
        };
        (start, end.max(start))
    }

    /// One row of the input as column `j` of the kernel sees it.
    fn copy_row<T: Scalar>(&self, from: &[T], j: usize, to: &mut [T]) {
        let Windows { stride, padding, .. } = self.windows;
        let (start, end) = self.span(j);
        to[..start].fill(T::zero());
        to[end..].fill(T::zero());
        if start == end {
            return;
        }
        let from = &from[start * stride.1 + j - padding.1..];
        if stride.1 == 1 {
            to[start..end].copy_from_slice(&from[..end - start]);
        } else {
            let from = from.iter().step_by(stride.1);
            to[start..end].iter_mut().zip(from).for_each(|(to, &value)| *to = value);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::Shape;

    /// Whole numbers, so that sums are exact in any order.
    pub(crate) fn integers(length: usize, seed: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * 37 + i / 5 * 11 + seed * 13) % 17) as f64 - 8.0).collect()
    }

    /// Windows of any kind; some have enough terms for each row of the kernel to be a product.
    pub(crate) fn any_windows() -> impl Strategy<Value = Windows> {
        let pair = |most: usize| (1..=most, 1..=most);
        let channels = prop::sample::select(vec![1_usize, 2, 3, 16, 22, 64, 65]);
        (channels, pair(9), 1..4_usize, pair(5), pair(4), (0..4_usize, 0..4_usize)).prop_filter_map(
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

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn products_of_few_terms_are_one() {
        let of = |channels, kernel| {
            let input = Shape { channels, height: 9, width: 9 };
            let windows = Windows::new(&"", input, 1, kernel, (1, 1), (0, 0)).unwrap();
            Unrolling::new(windows).groups
        };
        assert_eq!((of(63, (3, 1)), of(64, (3, 1))), (1, 3));
        assert_eq!((of(12, (4, 5)), of(13, (4, 5))), (1, 4));
    }

    proptest! {
        #[test]
        fn every_group_sees_what_its_outputs_are_made_of(windows in any_windows()) {
            let unrolling = Unrolling::new(windows);
            let Windows { input, output, kernel, .. } = windows;
            let (groups, rows, columns) = (unrolling.groups, unrolling.rows(), unrolling.columns());
            let x = integers(input.len(), 1);
            let mut unrolled = vec![f64::NAN; rows * columns * input.channels];
            unrolling.unroll(&x, 0, &mut unrolled);
            for (c, i, j, y) in itertools(input.channels, kernel.0, kernel.1, output.height) {
                // The row of the kernel is the group, or is among the columns.
                let (group, within) = if groups == 1 { (0, i) } else { (i, 0) };
                let column = c * columns + within * kernel.1 + j;
                for z in 0..output.width {
                    let row = unrolling.start(group) + y * output.width + z;
                    prop_assert!(row < rows);
                    let expected = pixel(&windows, c, (y, i), (z, j)).map_or(0.0, |p| x[p]);
                    prop_assert_eq!(unrolled[column * rows + row], expected);
                }
            }
        }

        #[test]
        fn some_columns_are_those_of_the_whole(windows in any_windows(), part in 0.0..1.0_f64) {
            let unrolling = Unrolling::new(windows);
            let all = unrolling.columns() * windows.input.channels;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Below `all`.
            let first = (all as f64 * part) as usize;
            let rows = unrolling.rows();
            let x = integers(windows.input.len(), 2);
            let mut whole = vec![f64::NAN; rows * all];
            unrolling.unroll(&x, 0, &mut whole);
            let mut some = vec![f64::NAN; rows * (all - first).min(3)];
            unrolling.unroll(&x, first, &mut some);
            prop_assert_eq!(&some[..], &whole[first * rows..][..some.len()]);
        }

        #[test]
        fn folding_is_the_transpose_of_unrolling(windows in any_windows()) {
            let unrolling = Unrolling::new(windows);
            let length = unrolling.rows() * unrolling.columns() * windows.input.channels;
            let (x, q) = (integers(windows.input.len(), 3), integers(length, 4));
            let (mut unrolled, mut folded) = (vec![f64::NAN; length], vec![f64::NAN; x.len()]);
            unrolling.unroll(&x, 0, &mut unrolled);
            unrolling.fold(&q, &mut folded);
            prop_assert_eq!(dot(&unrolled, &q), dot(&x, &folded));
            // Of every pixel by itself, too.
            for pixel in (0..x.len()).step_by(x.len().div_ceil(7)) {
                let mut one = vec![0.0; x.len()];
                one[pixel] = 1.0;
                unrolling.unroll(&one, 0, &mut unrolled);
                prop_assert_eq!(dot(&unrolled, &q), folded[pixel]);
            }
        }
    }

    /// All indices of four nested loops.
    fn itertools(
        a: usize,
        b: usize,
        c: usize,
        d: usize,
    ) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        (0..a * b * c * d).map(move |n| (n / (b * c * d), n / (c * d) % b, n / d % c, n % d))
    }
}
