//! Every matrix product of the crate goes through this door.
//!
//! Products are `c ← a·b` or `c ← c + a·b` and nothing else: with any other factor the kernel
//! rounds the edge of a matrix differently from its inside, and results would depend on how the
//! work is split. For the same reason the split runs over rows or columns of `c`, never over the
//! sum, so that every element is computed by the same operations whatever the number of threads.
//!
//! nalgebra's own products are not used: its transposed product never reaches the fast kernel and
//! it has none of the form `a·bᵀ`.

use nalgebra::{DMatrix, DVector};

use crate::{
    error::{Error, Result},
    scalar::{Scalar, kernel::Strided},
};

/// A read-only matrix over a slice; transposing swaps the strides.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A column-major matrix of `rows` rows, as many columns as `data` holds.
    pub(crate) fn new(data: &'a [T], rows: usize) -> Self {
        let columns = data.len() / rows;
        assert_eq!(rows * columns, data.len(), "whole columns");
        Self { data, rows, columns, row_stride: 1, column_stride: rows }
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

impl<'a, T> From<&'a DMatrix<T>> for Mat<'a, T> {
    fn from(matrix: &'a DMatrix<T>) -> Self {
        Self::new(matrix.data.as_slice(), matrix.nrows())
    }
}

/// A column-major matrix to write into.
pub(crate) struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
}

impl<'a, T> MatMut<'a, T> {
    pub(crate) fn new(data: &'a mut [T], rows: usize) -> Self {
        let columns = data.len() / rows;
        assert_eq!(rows * columns, data.len(), "whole columns");
        Self { data, rows, columns }
    }
}

impl<'a, T> From<&'a mut DMatrix<T>> for MatMut<'a, T> {
    fn from(matrix: &'a mut DMatrix<T>) -> Self {
        let rows = matrix.nrows();
        Self::new(matrix.data.as_mut_slice(), rows)
    }
}

/// What becomes of the old content of `c`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// `c ← a·b`
    Overwrite,
    /// `c ← c + a·b`
    Add,
}

/// `c ← a·b`, or `c ← c + a·b`, on as many threads as are worth it.
///
/// # Panics
/// If the three shapes do not fit: callers have checked what users gave them.
pub(crate) fn product<T: Scalar>(a: Mat<T>, b: Mat<T>, into: Into, c: MatMut<T>) {
    let parts = pieces(c.rows * c.columns, a.columns);
    product_in_parts(a, b, into, c, parts);
}

/// [`product`] for work that has been shared out among threads already.
pub(crate) fn product_on_one_thread<T: Scalar>(a: Mat<T>, b: Mat<T>, into: Into, c: MatMut<T>) {
    product_in_parts(a, b, into, c, 1);
}

fn product_in_parts<T: Scalar>(a: Mat<T>, b: Mat<T>, into: Into, c: MatMut<T>, parts: usize) {
    assert!(
        a.rows == c.rows && a.columns == b.rows && b.columns == c.columns,
        "product of {}×{} by {}×{} into {}×{}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        c.rows,
        c.columns
    );
    if c.data.is_empty() {
        return;
    }
    let beta = if into == Into::Add { T::one() } else { T::zero() };
    let block = Block {
        a: Strided::reading(a),
        b: Strided::reading(b),
        c: Strided {
            pointer: c.data.as_mut_ptr(),
            row_stride: 1,
            column_stride: c.rows.cast_signed(),
        },
        rows: c.rows,
        inner: a.columns,
        columns: c.columns,
    };
    // SAFETY: `Mat` and `MatMut` span their slices exactly, the shapes fit (asserted above), and
    // `c` is borrowed mutably, so it overlaps neither `a` nor `b`.
    #[allow(unsafe_code)]
    unsafe {
        block.run(beta, parts);
    }
}

/// A matrix of zeros, or an error where there is no memory for it.
pub(crate) fn zero_matrix<T: Scalar>(rows: usize, columns: usize) -> Result<DMatrix<T>> {
    let too_large = || Error::TooLarge { rows, columns };
    let length = rows.checked_mul(columns).ok_or_else(too_large)?;
    let mut data = Vec::new();
    data.try_reserve_exact(length).map_err(|_| too_large())?;
    data.resize(length, T::zero());
    Ok(DMatrix::from_vec(rows, columns, data))
}

/// Fills every column of `c` with `bias`, for a product to be added to.
pub(crate) fn fill_columns<T: Scalar>(bias: &DVector<T>, c: &mut [T]) {
    for column in c.chunks_exact_mut(bias.len()) {
        column.copy_from_slice(bias.as_slice());
    }
}

/// The sum of all elements, in eight interleaved parts so that it runs at the speed of memory.
pub(crate) fn sum<T: Scalar>(values: &[T]) -> T {
    let mut parts = [T::zero(); 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (part, &value) in parts.iter_mut().zip(chunk) {
            *part += value;
        }
    }
    parts.iter().chain(rest).fold(T::zero(), |sum, &value| sum + value)
}

/// `sums ← Σ` of the columns of `a`, added up from the first column to the last.
pub(crate) fn sum_columns<T: Scalar>(a: &[T], sums: &mut DVector<T>) {
    let sums = sums.as_mut_slice();
    sums.fill(T::zero());
    for column in a.chunks_exact(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(column) {
            *sum += value;
        }
    }
}

/// Into how many pieces a product of so many elements, each a sum of `inner` terms, is worth
/// splitting: waking a thread costs some microseconds, a piece should be ten times that.
pub(crate) fn pieces(elements: usize, inner: usize) -> usize {
    const MULTIPLY_ADDS_PER_PIECE: usize = 1 << 20;
    (elements.saturating_mul(inner) / MULTIPLY_ADDS_PER_PIECE).clamp(1, threads())
}

#[cfg(feature = "parallel")]
fn threads() -> usize {
    rayon::current_num_threads()
}

#[cfg(not(feature = "parallel"))]
fn threads() -> usize {
    1
}

/// Does both, at once where a thread is free.
#[cfg(feature = "parallel")]
pub(crate) fn join(left: impl FnOnce() + Send, right: impl FnOnce() + Send) {
    rayon::join(left, right);
}

/// Does one, then the other.
#[cfg(not(feature = "parallel"))]
pub(crate) fn join(left: impl FnOnce(), right: impl FnOnce()) {
    left();
    right();
}

/// Calls `work(index, chunk, slot)` for every chunk of `size` elements of `out`; as many threads
/// share the chunks as there are slots, each with a slot of its own.
pub(crate) fn share_out<T: Scalar, S: Send>(
    out: &mut [T],
    size: usize,
    first: usize,
    slots: &mut [S],
    work: &(impl Fn(usize, &mut [T], &mut S) + Sync),
) {
    let chunks = out.len().div_ceil(size);
    if slots.len() > 1 && chunks > 1 {
        let half = slots.len() / 2;
        let cut = (chunks * half / slots.len()).max(1);
        let (left_slots, right_slots) = slots.split_at_mut(half);
        let (left, right) = out.split_at_mut(cut * size);
        join(
            || share_out(left, size, first, left_slots, work),
            || share_out(right, size, first + cut, right_slots, work),
        );
        return;
    }
    debug_assert!(chunks == 0 || !slots.is_empty());
    for (index, chunk) in out.chunks_mut(size).enumerate() {
        work(first + index, chunk, &mut slots[0]);
    }
}

/// A part of a product: some rows and columns of `c` with what they need of `a` and `b`.
struct Block<T> {
    a: Strided<*const T>,
    b: Strided<*const T>,
    c: Strided<*mut T>,
    rows: usize,
    inner: usize,
    columns: usize,
}

// SAFETY: a block only reads `a` and `b`, which outlive the product, and is the only one to write
// its part of `c`; scalars are Send and Sync.
#[allow(unsafe_code)]
unsafe impl<T: Scalar> Send for Block<T> {}

impl<T> Strided<*const T> {
    fn reading(matrix: Mat<T>) -> Self {
        Self {
            pointer: matrix.data.as_ptr(),
            row_stride: matrix.row_stride.cast_signed(),
            column_stride: matrix.column_stride.cast_signed(),
        }
    }
}

impl<T: Scalar> Block<T> {
    /// Computes the block in `pieces` parts, at once where threads are free.
    ///
    /// # Safety
    /// The three matrices are as `Kernel::gemm` needs them.
    #[allow(unsafe_code)]
    unsafe fn run(self, beta: T, pieces: usize) {
        if pieces > 1 {
            let first = pieces / 2;
            // SAFETY: `split` gives two blocks of the same matrices that share nothing of `c`.
            let (left, right) = unsafe { self.split(first, pieces) };
            join(
                // SAFETY: as above.
                move || unsafe { left.run(beta, first) },
                // SAFETY: as above.
                move || unsafe { right.run(beta, pieces - first) },
            );
            return;
        }
        debug_assert_eq!(pieces, 1);
        let shape = (self.rows, self.inner, self.columns);
        // SAFETY: the caller keeps the contract.
        unsafe { T::gemm(shape, &self.a, &self.b, beta, &self.c) }
    }

    /// Cuts the longer side of `c` after `part / whole` of it, at a multiple of the kernel's tile.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[allow(unsafe_code)]
    unsafe fn split(self, part: usize, whole: usize) -> (Self, Self) {
        const TILE: usize = 16;
        let cut = |length: usize| (length * part / whole).next_multiple_of(TILE).min(length);
        let Self { a, b, c, rows, inner, columns } = self;
        let shift = |start: &Strided<*const T>, by: isize, stride: isize| Strided {
            // SAFETY: `by` is at most the length of that side, so the pointer stays within the
            // matrix or one past its end.
            pointer: unsafe { start.pointer.offset(by * stride) },
            ..*start
        };
        if rows >= columns {
            let top = cut(rows);
            let by = top.cast_signed();
            let lower = Self {
                a: shift(&a, by, a.row_stride),
                b: shift(&b, 0, 0),
                // SAFETY: as in `shift`.
                c: Strided { pointer: unsafe { c.pointer.offset(by * c.row_stride) }, ..c },
                rows: rows - top,
                inner,
                columns,
            };
            (Self { a, b, c, rows: top, inner, columns }, lower)
        } else {
            let left = cut(columns);
            let by = left.cast_signed();
            let right = Self {
                a: shift(&a, 0, 0),
                b: shift(&b, by, b.column_stride),
                // SAFETY: as in `shift`.
                c: Strided { pointer: unsafe { c.pointer.offset(by * c.column_stride) }, ..c },
                rows,
                inner,
                columns: columns - left,
            };
            (Self { a, b, c, rows, inner, columns: left }, right)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
        DMatrix::from_fn(a.nrows(), b.ncols(), |i, j| {
            (0..a.ncols()).map(|k| a[(i, k)] * b[(k, j)]).sum()
        })
    }

    fn matrix(rows: usize, columns: usize, seed: usize) -> DMatrix<f64> {
        DMatrix::from_fn(rows, columns, |i, j| {
            ((i * 31 + j * 17 + seed * 7) % 23) as f64 / 11.0 - 1.0
        })
    }

    proptest! {
        #[test]
        fn product_agrees_with_three_loops(
            m in 1..40_usize, k in 1..40_usize, n in 1..40_usize, seed in 0..100_usize,
        ) {
            let (a, b) = (matrix(m, k, seed), matrix(k, n, seed + 1));
            let expected = naive(&a, &b);
            let check = |a: Mat<f64>, b: Mat<f64>| {
                let mut c = DMatrix::from_element(m, n, f64::NAN);
                product(a, b, Into::Overwrite, (&mut c).into());
                prop_assert!((&c - &expected).amax() < 1e-12);
                product(a, b, Into::Add, (&mut c).into());
                prop_assert!((&c - &expected * 2.0).amax() < 1e-12);
                Ok(())
            };
            let (at, bt) = (a.transpose(), b.transpose());
            check((&a).into(), (&b).into())?;
            check(Mat::from(&at).t(), (&b).into())?;
            check((&a).into(), Mat::from(&bt).t())?;
        }
    }

    /// The promise that results do not depend on the number of threads.
    #[cfg(feature = "parallel")]
    #[test]
    fn pieces_give_the_bits_of_the_whole() {
        for (m, k, n) in [(800, 784, 64), (33, 700, 257), (7, 3, 100), (240, 240, 1), (1, 9, 1)] {
            let (a, b) = (matrix(m, k, 1), matrix(k, n, 2));
            let run = |pieces| {
                let mut c = DMatrix::zeros(m, n);
                let block = Block {
                    a: Strided::reading((&a).into()),
                    b: Strided::reading((&b).into()),
                    c: Strided {
                        pointer: c.as_mut_ptr(),
                        row_stride: 1,
                        column_stride: m.cast_signed(),
                    },
                    rows: m,
                    inner: k,
                    columns: n,
                };
                // SAFETY: three whole matrices whose shapes fit.
                #[allow(unsafe_code)]
                unsafe {
                    block.run(0.0, pieces);
                }
                c
            };
            let whole = run(1);
            for count in 2..9 {
                assert_eq!(run(count), whole, "{count} pieces of {m}×{k}×{n}");
            }
        }
    }

    #[test]
    fn sums_and_fills_go_by_column() {
        let a = matrix(3, 5, 4);
        let mut sums = DVector::zeros(3);
        sum_columns(a.as_slice(), &mut sums);
        assert!((sums - a.column_sum()).amax() < 1e-15);
        let bias = DVector::from_vec(vec![1.0, 2.0]);
        let mut c = [0.0; 6];
        fill_columns(&bias, &mut c);
        assert_eq!(c, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    }
}
