//! All matrix products of the crate.
//!
//! The kernel comes from the crate `faer`. It adds up the terms of an element in the same order,
//! whatever the shape of the matrix around it. There are two exceptions, which [`smallest_part`] knows.
//! Work is split over rows or columns of an output, never over a sum, and never into parts that fall
//! under an exception. So results do not depend on the number of threads.

use faer::Accum;
use nalgebra::DMatrix;

use crate::{
    error::{Error, Result},
    scalar::Scalar,
    threads::{Chunks, join, pieces, share_out, small_pieces},
};

mod thin;

/// A read-only matrix; transposing swaps its strides.
pub(crate) type Mat<'a, T> = faer::MatRef<'a, T>;

/// `data` as a column-major matrix of `rows` rows.
pub(crate) fn mat<T>(data: &[T], rows: usize) -> Mat<'_, T> {
    Mat::from_column_major_slice(data, rows, data.len() / rows)
}

/// A matrix of nalgebra, without copying anything.
pub(crate) fn of<T>(matrix: &DMatrix<T>) -> Mat<'_, T> {
    mat(matrix.data.as_slice(), matrix.nrows())
}

/// The smallest number of rows (or columns) of a part of a product whose bits are still those of the
/// whole. The product has `others` columns (or rows), and `terms` terms for each element.
///
/// faer 0.24 adds up in another order if a matrix is a single row or column, and if a product takes at
/// most 4096 multiply-adds, for which it has another kernel.
pub(crate) fn smallest_part(others: usize, terms: usize) -> usize {
    const SMALL_PRODUCT: usize = 4096;
    let more = SMALL_PRODUCT / others.saturating_mul(terms).max(1) + 1;
    more.max(2)
}

/// The width in which `count` rows or columns are cut. It is at least `width`, and no part, the last
/// one included, is smaller than `least`. If that is impossible, they are not cut.
pub(crate) fn cut(count: usize, width: usize, least: usize) -> usize {
    let mut width = width.max(least);
    while width < count && (1..least).contains(&(count % width)) {
        width += 1;
    }
    width.min(count)
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a, T> {
    /// `c ← a·b`
    Zero,
    /// `c ← v 1ᵀ + a·b`: every column begins as `v`.
    Column(&'a [T]),
    /// `c ← c + a·b`
    Present,
}

/// `c ← a·b + start` for a column-major `c`, on as many threads as pay off.
///
/// # Panics
/// If the three shapes do not fit. Callers have checked shapes that come from users.
pub(crate) fn product<T: Scalar>(a: Mat<T>, b: Mat<T>, start: Start<T>, c: &mut [T]) {
    product_then(a, b, start, c, &mut [], &|_, _, _| ());
}

/// [`product`], which then calls `finish(place, c, h)` on pieces of `c` while they are in cache. `h`
/// has the same shape as `c`, or is empty. `place` is where a piece begins in the slices.
pub(crate) fn product_then<T: Scalar>(
    a: Mat<T>,
    b: Mat<T>,
    start: Start<T>,
    c: &mut [T],
    h: &mut [T],
    finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
) {
    let (rows, columns) = (a.nrows(), b.ncols());
    if columns == 1
        && let Some(x) = b.col(0).try_as_col_major()
    {
        return vector_product_then(a, x.as_slice(), start, c, h, finish);
    }
    let parts = pieces(rows * columns, a.ncols());
    if parts > 1 && rows < NARROW && columns >= TILE * parts {
        return split_columns(a, b, start, c, h, parts, finish);
    }
    let parts = small_pieces(rows * columns, a.ncols()).min(rows / (2 * TILE));
    if parts > 1 {
        let c = MatMut::from_column_major_slice_mut(c, rows, columns);
        let h = match h {
            [] => None,
            h => Some(MatMut::from_column_major_slice_mut(h, rows, columns)),
        };
        return split_rows(&Product { a, b, start, rows, finish }, 0, c, h, parts);
    }
    product_on_one_thread(a, b, start, c);
    finish(0, c, h);
}

/// [`product`] for work that is already divided among threads.
pub(crate) fn product_on_one_thread<T: Scalar>(a: Mat<T>, b: Mat<T>, start: Start<T>, c: &mut [T]) {
    let accum = match start {
        Start::Zero => Accum::Replace,
        Start::Present => Accum::Add,
        Start::Column(column) => {
            repeat(column, c);
            Accum::Add
        }
    };
    by_blocks(MatMut::from_column_major_slice_mut(c, a.nrows(), b.ncols()), accum, a, b);
}

/// `c ← a·b` or `c ← c + a·b`, in blocks of rows. The kernel reads `a` faster this way, above all if
/// the rows of `a` lie far apart and there are few columns.
fn by_blocks<T: Scalar>(mut c: MatMut<T>, accum: Accum, mut a: Mat<T>, b: Mat<T>) {
    if thin::product(&mut c, accum, a, b) {
        return;
    }
    // Each was the fastest on its processors. The kernel for AVX-512 has larger tiles than the others.
    let rows = if wide_vectors() {
        if a.row_stride() != 1 && b.ncols() <= 2 * ROWS { ROWS / 3 } else { ROWS }
    } else if size_of::<T>() == size_of::<f32>() {
        ROWS / 2
    } else {
        ROWS
    };
    // The last block may be longer. Every block is large enough even for a product with two columns,
    // because `by_columns` may go through it that way.
    let least = smallest_part(2, a.ncols()).max(TILE + 1);
    while a.nrows() >= rows + least && a.ncols() > ROWS {
        let (above, below) = c.split_at_row_mut(rows);
        let (a_above, a_below) = a.split_at_row(rows);
        by_columns(above, accum, a_above, b);
        (c, a) = (below, a_below);
    }
    by_columns(c, accum, a, b);
}

/// Rows that the kernel holds in registers, in `f32` with AVX-512.
const ROWS: usize = 96;

/// Whether the processor has vectors of 512 bits, for which the kernel works with larger tiles.
fn wide_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// One block of [`by_blocks`]. If `b` has more than twelve columns, faer 0.24 copies `a` to read it
/// faster. With AVX-512 and a moderate number of columns the copy costs more than it saves, so they are
/// multiplied twelve at a time.
fn by_columns<T: Scalar>(mut c: MatMut<T>, accum: Accum, a: Mat<T>, mut b: Mat<T>) {
    const IN_PLACE: usize = 12;
    /// With more terms, the part that is read again would not stay in cache.
    const TERMS: usize = 1024;
    /// Columns that are left for the end, so that the last part is not too small.
    const KEPT: usize = 4;
    let least = smallest_part(a.nrows(), a.ncols());
    if size_of::<T>() == size_of::<f32>()
        && a.row_stride() == 1
        && (ROWS..=TERMS).contains(&a.ncols())
        && b.ncols() <= 2 * ROWS
        && least <= KEPT + 1
        && wide_vectors()
    {
        while b.ncols() > IN_PLACE {
            let too_few = b.ncols() - IN_PLACE < least;
            let width = if too_few { IN_PLACE - KEPT } else { IN_PLACE };
            let (left, right) = c.split_at_col_mut(width);
            let (b_left, b_right) = b.split_at_col(width);
            T::multiply(left, accum, a, b_left);
            (c, b) = (right, b_right);
        }
    }
    T::multiply(c, accum, a, b);
}

/// Fills `c` with copies of `column`. Copies of a short column are collected first, to be copied
/// together.
fn repeat<T: Copy>(column: &[T], c: &mut [T]) {
    const ENOUGH: usize = 512;
    let mut unit = column.len();
    let mut done = unit;
    c[..done].copy_from_slice(column);
    while done < c.len() {
        let more = unit.min(c.len() - done);
        c.copy_within(..more, done);
        done += more;
        if unit < ENOUGH {
            unit = done;
        }
    }
}

/// Products are cut at multiples of this, a whole number of the kernel's registers.
const TILE: usize = 16;

/// With fewer rows than this, a thread is faster on all rows of some columns, which lie side by side,
/// than on some rows of all columns. With more rows, loading `a` costs more.
const NARROW: usize = 512;

/// [`product_then`] in `parts` parts of whole columns, on several threads.
fn split_columns<T: Scalar>(
    a: Mat<T>,
    b: Mat<T>,
    start: Start<T>,
    c: &mut [T],
    h: &mut [T],
    parts: usize,
    finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
) {
    let columns = b.ncols();
    let least = smallest_part(a.nrows(), a.ncols());
    let width = cut(columns, columns.div_ceil(parts).next_multiple_of(4), least);
    let size = width * a.nrows();
    let out = (Chunks { data: c, size }, Chunks { data: h, size });
    share_out(out, 0..columns.div_ceil(width), parts, &|chunks, (c, h)| {
        let b = b.subcols(chunks.start * width, c.data.len() / a.nrows());
        product_on_one_thread(a, b, start, c.data);
        finish(chunks.start * size, c.data, h.data);
    });
}

type MatMut<'a, T> = faer::MatMut<'a, T>;

struct Product<'a, T, F> {
    a: Mat<'a, T>,
    b: Mat<'a, T>,
    start: Start<'a, T>,
    /// The number of rows of the whole product.
    rows: usize,
    finish: &'a F,
}

/// The rows of a product from `first` on, as many as `c` has, in `parts` parts on several threads.
fn split_rows<T: Scalar, F: Fn(usize, &mut [T], &mut [T]) + Sync>(
    product: &Product<T, F>,
    first: usize,
    mut c: MatMut<T>,
    mut h: Option<MatMut<T>>,
    parts: usize,
) {
    let count = c.nrows();
    if parts > 1 {
        let half = parts / 2;
        let cut = (count * half / parts).next_multiple_of(TILE);
        let (above, below) = c.split_at_row_mut(cut);
        let (h_above, h_below) = match h.map(|h| h.split_at_row_mut(cut)) {
            Some((above, below)) => (Some(above), Some(below)),
            None => (None, None),
        };
        join(
            || split_rows(product, first, above, h_above, half),
            || split_rows(product, first + cut, below, h_below, parts - half),
        );
        return;
    }
    let &Product { a, b, start, rows, finish } = product;
    let accum = match start {
        Start::Zero => Accum::Replace,
        Start::Present => Accum::Add,
        Start::Column(column) => {
            for j in 0..c.ncols() {
                segment(&mut c, j).copy_from_slice(&column[first..first + count]);
            }
            Accum::Add
        }
    };
    by_blocks(c.as_mut(), accum, a.subrows(first, count), b);
    for j in 0..c.ncols() {
        let h = h.as_mut().map_or(&mut [][..], |h| segment(h, j));
        finish(first + j * rows, segment(&mut c, j), h);
    }
}

/// Column `j` of some rows of a column-major matrix.
fn segment<'a, T>(matrix: &'a mut MatMut<T>, j: usize) -> &'a mut [T] {
    let column = matrix.as_mut().col_mut(j).try_as_col_major_mut();
    column.expect("the rows of a column lie side by side").as_slice_mut()
}

/// [`product_then`] with a single column. Its cost is reading the matrix, not calculating.
fn vector_product_then<T: Scalar>(
    a: Mat<T>,
    x: &[T],
    start: Start<T>,
    c: &mut [T],
    h: &mut [T],
    finish: &(impl Fn(usize, &mut [T], &mut [T]) + Sync),
) {
    let part = |first: usize, c: &mut [T], h: &mut [T]| {
        match start {
            Start::Zero => c.fill(T::zero()),
            Start::Present => {}
            Start::Column(column) => c.copy_from_slice(&column[first..first + c.len()]),
        }
        let a = a.subrows(first, c.len());
        if a.row_stride() == 1 {
            // For so few numbers, choosing an instruction set would take longer than the work.
            if c.len() * x.len() < 64 {
                thin::add_in_turn(a, x, c);
            } else {
                thin::add_columns(a, x, c);
            }
        } else if a.col_stride() == 1 && x.len() > thin::MANY {
            thin::add_long_dots(x, a.transpose(), c);
        } else {
            let (x, rows) = (Mat::from_column_major_slice(x, x.len(), 1), c.len());
            T::multiply(MatMut::from_column_major_slice_mut(c, rows, 1), Accum::Add, a, x);
        }
        finish(first, c, h);
    };
    let parts = pieces(a.nrows() * a.ncols() / 4, 1);
    if parts == 1 {
        return part(0, c, h); // Skips the division below, which can take as long as such a small product.
    }
    let size = a.nrows().div_ceil(parts).next_multiple_of(TILE);
    let out = (Chunks { data: c, size }, Chunks { data: h, size });
    share_out(out, 0..a.nrows().div_ceil(size), parts, &|chunks, (c, h)| {
        part(chunks.start * size, c.data, h.data);
    });
}

/// A matrix of zeros, or an error if there is not enough memory.
pub(crate) fn zero_matrix<T: Scalar>(rows: usize, columns: usize) -> Result<DMatrix<T>> {
    let length = rows.checked_mul(columns).ok_or(Error::TooLarge { rows, columns })?;
    filled(length, T::zero(), (rows, columns)).map(|data| DMatrix::from_vec(rows, columns, data))
}

/// `length` copies of `value`, or an error that names this shape.
pub(crate) fn filled<T: Clone>(
    length: usize,
    value: T,
    (rows, columns): (usize, usize),
) -> Result<Vec<T>> {
    let mut data = Vec::new();
    data.try_reserve_exact(length).map_err(|_| Error::TooLarge { rows, columns })?;
    data.resize(length, value);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::scalar::kernel::Kernel;

    fn naive(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
        DMatrix::from_fn(a.nrows(), b.ncols(), |i, j| {
            (0..a.ncols()).map(|k| a[(i, k)] * b[(k, j)]).sum()
        })
    }

    #[test]
    fn no_part_is_smaller_than_the_smallest() {
        for count in 1..200 {
            for width in 1..60 {
                for least in 2..30 {
                    let cut = cut(count, width, least);
                    assert!(cut >= width.min(count) && cut <= count && cut > 0);
                    let last = (count - 1) % cut + 1;
                    assert!(cut == count || cut.min(last) >= least, "{count}, {width}, {least}");
                }
            }
        }
        assert_eq!((cut(81, 16, 2), cut(80, 16, 2), cut(33, 16, 2)), (17, 16, 17));
    }

    /// What [`smallest_part`] says of the kernel, and that it says no more than is needed.
    #[test]
    fn the_kernel_adds_up_a_part_as_the_whole_if_it_is_large_enough() {
        fn whole_and_part(m: usize, k: usize, n: usize, some: usize) -> bool {
            let (a, b) = (matrix::<f32>(k, m, 1).transpose(), matrix::<f32>(k, n, 2));
            let at = a.transpose();
            [of(&a), of(&at).transpose()].into_iter().all(|a| {
                let (mut whole, mut part) = (DMatrix::zeros(m, n), DMatrix::zeros(m, some));
                let matrix = |c: &mut DMatrix<f32>| {
                    let (rows, columns) = c.shape();
                    let c = c.as_mut_slice();
                    let b = of(&b).subcols(0, columns);
                    let c = MatMut::from_column_major_slice_mut(c, rows, columns);
                    f32::multiply(c, Accum::Replace, a, b);
                };
                matrix(&mut whole);
                matrix(&mut part);
                whole.columns(0, some) == part
            })
        }
        for (m, k) in [(2, 75), (3, 100), (5, 600), (17, 100), (33, 441), (64, 2000)] {
            let least = smallest_part(m, k);
            for some in [least, least + 1, least + 7] {
                assert!(whole_and_part(m, k, least + 40, some), "{m} × {k}, {some} columns");
            }
        }
    }

    /// Whole numbers from −11 to 11, whose sums of products are exact.
    fn integers<T: Scalar>(rows: usize, columns: usize, seed: usize) -> DMatrix<T> {
        DMatrix::from_fn(rows, columns, |i, j| {
            T::of(((i * 31 + j * 17 + seed * 7) % 23) as f64 - 11.0)
        })
    }

    /// Numbers from −1 to 1, whose sums depend on their order.
    fn matrix<T: Scalar>(rows: usize, columns: usize, seed: usize) -> DMatrix<T> {
        integers(rows, columns, seed) / T::of(11.0)
    }

    /// `a·b`, each column begun as `column`, in so many parts, and what has been made of the pieces.
    fn in_parts<T: Scalar>(
        a: Mat<T>,
        b: Mat<T>,
        column: &DMatrix<T>,
        parts: usize,
    ) -> (DMatrix<T>, DMatrix<T>) {
        let (m, n) = (a.nrows(), b.ncols());
        let (mut c, mut h) = (DMatrix::zeros(m, n), DMatrix::zeros(m, n));
        let finish = |place: usize, c: &mut [T], h: &mut [T]| {
            for (index, (c, h)) in c.iter_mut().zip(h).enumerate() {
                *h = *c + T::of((place + index) as f64);
            }
        };
        let start = Start::Column(column.as_slice());
        let product = Product { a, b, start, rows: m, finish: &finish };
        let as_matrix = |slice| MatMut::from_column_major_slice_mut(slice, m, n);
        let (c_matrix, h_matrix) = (as_matrix(c.as_mut_slice()), as_matrix(h.as_mut_slice()));
        split_rows(&product, 0, c_matrix, Some(h_matrix), parts);
        (c, h)
    }

    type Checked = Result<(), TestCaseError>;

    fn check_parts<T: Scalar>([m, k, n]: [usize; 3], seed: usize, parts: usize) -> Checked {
        let (a, b) = (matrix::<T>(m, k, seed), matrix::<T>(k, n, seed + 1));
        let (at, column) = (a.transpose(), matrix(m, 1, seed + 2));
        for a in [of(&a), of(&at).transpose()] {
            let (c, h) = in_parts(a, of(&b), &column, 1);
            let places = h.iter().zip(&c).enumerate();
            prop_assert!(places.into_iter().all(|(i, (&h, &c))| h == c + T::of(i as f64)));
            prop_assert_eq!(in_parts(a, of(&b), &column, parts), (c, h));
        }
        Ok(())
    }

    fn check_exact<T: Scalar>([m, k, n]: [usize; 3], seed: usize) -> Checked {
        let (a, b) = (integers(m, k, seed), integers(k, n, seed + 1));
        let mut expected = naive(&a, &b);
        expected.column_iter_mut().for_each(|mut c| c += integers::<f64>(m, 1, seed + 2));
        let (a, b) = (a.map(T::of), b.map(T::of));
        let (at, column) = (a.transpose(), integers(m, 1, seed + 2));
        for a in [of(&a), of(&at).transpose()] {
            let (c, _) = in_parts(a, of(&b), &column, 1);
            prop_assert_eq!(c.map(Scalar::as_f64), expected.clone());
        }
        Ok(())
    }

    fn check_columns<T: Scalar>([m, k, n]: [usize; 3], some: usize, seed: usize) -> Checked {
        let (a, b) = (matrix::<T>(m, k, seed), matrix::<T>(k, n, seed + 1));
        let at = a.transpose();
        for a in [of(&a), of(&at).transpose()] {
            let (mut whole, mut part) = (DMatrix::zeros(m, n), DMatrix::zeros(m, some));
            product_on_one_thread(a, of(&b), Start::Zero, whole.as_mut_slice());
            product_on_one_thread(a, of(&b).subcols(0, some), Start::Zero, part.as_mut_slice());
            prop_assert_eq!(whole.columns(0, some).into_owned(), part);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn product_agrees_with_three_loops(
            m in 1..40_usize, k in 1..40_usize, n in 1..40_usize, seed in 0..100_usize,
        ) {
            let (a, b) = (matrix(m, k, seed), matrix(k, n, seed + 1));
            let expected = naive(&a, &b);
            let column = matrix(m, 1, seed + 2);
            let check = |a: Mat<f64>, b: Mat<f64>| {
                let mut c = DMatrix::from_element(m, n, f64::NAN);
                product(a, b, Start::Zero, c.as_mut_slice());
                prop_assert!((&c - &expected).amax() < 1e-12);
                product(a, b, Start::Present, c.as_mut_slice());
                prop_assert!((&c - &expected * 2.0).amax() < 1e-12);
                product(a, b, Start::Column(column.as_slice()), c.as_mut_slice());
                let shifted = DMatrix::from_fn(m, n, |i, j| expected[(i, j)] + column[i]);
                prop_assert!((&c - shifted).amax() < 1e-12);
                Ok(())
            };
            let (at, bt) = (a.transpose(), b.transpose());
            check(of(&a), of(&b))?;
            check(of(&at).transpose(), of(&b))?;
            check(of(&a), of(&bt).transpose())?;
        }

        /// The promise that results do not depend on the number of threads.
        #[test]
        fn parts_give_the_bits_of_the_whole(
            parts in 2..6_usize, more in 0..150_usize, k in 1..1100_usize, n in 1..70_usize,
            seed in 0..100_usize,
        ) {
            // The parts of a product that is worth sharing are never so small as to be another
            // kernel's; the smallest has 17 rows.
            prop_assume!(smallest_part(n, k) <= TILE + 1);
            let shape = [2 * TILE * parts + more, k, n];
            check_parts::<f32>(shape, seed, parts)?;
            check_parts::<f64>(shape, seed, parts)?;
        }

        /// With at least two tiles of rows for each part, every part has more rows than one tile. So it
        /// is never a single row, for which the kernel adds up in another order.
        #[test]
        fn no_part_is_of_a_few_rows(parts in 2..70_usize, more in 0..300_usize) {
            let rows = 2 * TILE * parts + more;
            let (a, b) = (DMatrix::<f32>::zeros(rows, 1), DMatrix::<f32>::zeros(1, 1));
            let mut c = DMatrix::zeros(rows, 1);
            let smallest = AtomicUsize::new(usize::MAX);
            let finish = |_: usize, c: &mut [f32], _: &mut [f32]| {
                smallest.fetch_min(c.len(), Ordering::Relaxed);
            };
            let (a, b) = (of(&a), of(&b));
            let product = Product { a, b, start: Start::Zero, rows, finish: &finish };
            let matrix = MatMut::from_column_major_slice_mut(c.as_mut_slice(), rows, 1);
            split_rows(&product, 0, matrix, None, parts);
            prop_assert!(smallest.into_inner() > TILE);
        }

        /// Large enough for every way of going through a product.
        #[test]
        fn blocks_add_up_to_the_product(
            m in 1..300_usize, k in 90..600_usize, n in 1..210_usize, seed in 0..100_usize,
        ) {
            check_exact::<f32>([m, k, n], seed)?;
            check_exact::<f64>([m, k, n], seed)?;
        }

        /// A batch may be given as a whole or in parts, down to two samples.
        #[test]
        fn columns_do_not_depend_on_those_beside_them(
            m in 2..300_usize, k in 90..600_usize, n in 2..210_usize, seed in 0..100_usize,
        ) {
            let some = n.div_ceil(2).max(smallest_part(m, k)).min(n);
            check_columns::<f32>([m, k, n], some, seed)?;
            check_columns::<f64>([m, k, n], some, seed)?;
        }
    }
}
