//! Products in which a vector takes part. Their cost is moving numbers, not calculating, and setting up
//! a kernel for large matrices would take longer than a small product of this kind.

use faer::{Accum, MatMut, MatRef};
use multiversion::multiversion;

use crate::scalar::Scalar;

/// More terms than this are added up in blocks of as many, so that rounding errors stay small. The
/// kernel would add all of them in a row.
pub(super) const MANY: usize = 4096;

/// `c ← a·b` or `c ← c + a·b`, if `a` is a single column, or a single row whose memory layout suits
/// these loops, or if `b` is a single column and there are very many terms. For every other product it
/// does nothing and returns false.
///
/// The answer depends on `a`, on the number of terms, on the layout of `b` and on whether `b` is a single
/// column. Otherwise the number of rows and columns does not matter, so a part of a product with at least
/// two columns is computed as the whole would be.
pub(super) fn product<T: Scalar>(
    c: &mut MatMut<T>,
    accum: Accum,
    a: MatRef<T>,
    b: MatRef<T>,
) -> bool {
    /// For a longer row the kernel is faster.
    const FEW: usize = 64;
    let terms = a.ncols();
    if terms == 1
        && let (Some(a), Some(b)) = (a.col(0).try_as_col_major(), b.row(0).try_as_row_major())
    {
        add_outer(a.as_slice(), b.as_slice(), accum, c);
        return true;
    }
    if terms > MANY
        && a.nrows() > 1
        && b.ncols() == 1
        && (a.row_stride() == 1 || a.col_stride() == 1)
    {
        let column = c.as_mut().col_mut(0).try_as_col_major_mut();
        let (Some(c), Some(x)) = (column, b.col(0).try_as_col_major()) else { return false };
        let (c, x) = (begun(c.as_slice_mut(), accum), x.as_slice());
        if a.row_stride() == 1 {
            add_columns(a, x, c);
        } else {
            add_long_dots(x, a.transpose(), c);
        }
        return true;
    }
    if a.nrows() > 1 {
        return false;
    }
    let row = c.as_mut().row_mut(0).try_as_row_major_mut();
    let (Some(c), Some(x)) = (row, a.row(0).try_as_row_major()) else { return false };
    let (c, x) = (c.as_slice_mut(), x.as_slice());
    let (stands, lies) = (b.row_stride() == 1, b.col_stride() == 1);
    if !(stands || lies) || (FEW + 1..=MANY).contains(&terms) {
        return false;
    }
    let c = begun(c, accum);
    if stands {
        add_long_dots(x, b, c);
    } else {
        add_columns(b.transpose(), x, c);
    }
    true
}

/// `c`, or zeros if what it holds is to be replaced.
fn begun<T: Scalar>(c: &mut [T], accum: Accum) -> &mut [T] {
    if let Accum::Replace = accum {
        c.fill(T::zero());
    }
    c
}

/// `c ← a bᵀ` or `c ← c + a bᵀ`. The rows of `c` may be some rows of a larger matrix.
#[multiversion(targets = "simd")]
fn add_outer<T: Scalar>(a: &[T], b: &[T], accum: Accum, c: &mut MatMut<T>) {
    let adds = matches!(accum, Accum::Add);
    for (c, &b) in c.as_mut().col_iter_mut().zip(b) {
        let column = c.try_as_col_major_mut().expect(COLUMN_MAJOR).as_slice_mut();
        if adds {
            column.iter_mut().zip(a).for_each(|(c, &a)| *c += a * b);
        } else {
            column.iter_mut().zip(a).for_each(|(c, &a)| *c = a * b);
        }
    }
}

/// [`add_dots`] in blocks of terms.
pub(super) fn add_long_dots<T: Scalar>(x: &[T], b: MatRef<T>, c: &mut [T]) {
    for (block, x) in x.chunks(MANY).enumerate() {
        add_dots(x, b.subrows(block * MANY, x.len()), c);
    }
}

/// `c_j ← c_j + x · b_j` for each column `b_j`.
#[multiversion(targets = "simd")]
fn add_dots<T: Scalar>(x: &[T], b: MatRef<T>, c: &mut [T]) {
    const LANES: usize = 8;
    let (whole, rest) = x.as_chunks::<LANES>();
    for (j, c) in c.iter_mut().enumerate() {
        let (b_whole, b_rest) = column(b, j).as_chunks::<LANES>();
        let mut sums = [T::zero(); LANES];
        for (x, b) in whole.iter().zip(b_whole) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * b[lane];
            }
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
        let dot = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7));
        *c += rest.iter().zip(b_rest).fold(dot, |dot, (&x, &b)| dot + x * b);
    }
}

/// [`add_in_turn`], for the instruction set of this processor, and with many terms in blocks.
#[multiversion(targets = "simd")]
pub(super) fn add_columns<T: Scalar>(a: MatRef<T>, x: &[T], c: &mut [T]) {
    /// The sums of a block are kept for so many rows at a time.
    const ROWS: usize = 256;
    if x.len() <= MANY {
        return add_in_turn(a, x, c);
    }
    for (group, c) in c.chunks_mut(ROWS).enumerate() {
        let a = a.subrows(group * ROWS, c.len());
        for (block, x) in x.chunks(MANY).enumerate() {
            let mut sums = [T::zero(); ROWS];
            let sums = &mut sums[..c.len()];
            add_in_turn(a.subcols(block * MANY, x.len()), x, sums);
            c.iter_mut().zip(sums).for_each(|(c, sum)| *c += *sum);
        }
    }
}

/// `c ← c + a x`, column by column, four of them at a time.
#[allow(clippy::inline_always)] // Or it would not be compiled for an instruction set.
#[inline(always)]
pub(super) fn add_in_turn<T: Scalar>(a: MatRef<T>, x: &[T], c: &mut [T]) {
    let n = c.len();
    let mut j = 0;
    while j + 4 <= x.len() {
        let (a0, a1) = (&column(a, j)[..n], &column(a, j + 1)[..n]);
        let (a2, a3) = (&column(a, j + 2)[..n], &column(a, j + 3)[..n]);
        let (x0, x1, x2, x3) = (x[j], x[j + 1], x[j + 2], x[j + 3]);
        for i in 0..n {
            c[i] = c[i] + a0[i] * x0 + a1[i] * x1 + a2[i] * x2 + a3[i] * x3;
        }
        j += 4;
    }
    while j < x.len() {
        for (c, &a) in c.iter_mut().zip(column(a, j)) {
            *c += a * x[j];
        }
        j += 1;
    }
}

/// Column `j` of a matrix whose columns lie side by side.
#[allow(clippy::inline_always)] // For loops that are vectorised.
#[inline(always)]
fn column<T>(a: MatRef<'_, T>, j: usize) -> &[T] {
    a.col(j).try_as_col_major().expect(COLUMN_MAJOR).as_slice()
}

const COLUMN_MAJOR: &str = "the rows of a column lie side by side";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 13) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// `c ← 1 + a·b` by [`product`], of some columns.
    fn some(a: MatRef<f32>, b: MatRef<f32>, columns: std::ops::Range<usize>) -> Vec<f32> {
        let mut c = vec![1.0; a.nrows() * columns.len()];
        let mut matrix = MatMut::from_column_major_slice_mut(&mut c, a.nrows(), columns.len());
        let b = b.subcols(columns.start, columns.len());
        assert!(product(&mut matrix, Accum::Add, a, b));
        c
    }

    proptest! {
        #[test]
        fn a_part_has_the_bits_of_the_whole_and_both_agree_with_loops(
            (rows, terms) in prop_oneof![(Just(1), 1..65_usize), (1..80_usize, Just(1))],
            columns in 2..70_usize, cut in 1..69_usize, lies in any::<bool>(), seed in 0..50_usize,
        ) {
            let cut = cut.min(columns - 1);
            let (a, b) = (numbers(rows * terms, seed), numbers(terms * columns, seed + 1));
            let a = MatRef::from_column_major_slice(&a, rows, terms);
            let b = if lies {
                MatRef::from_column_major_slice(&b, columns, terms).transpose()
            } else {
                MatRef::from_column_major_slice(&b, terms, columns)
            };
            let whole = some(a, b, 0..columns);
            let parts = [some(a, b, 0..cut), some(a, b, cut..columns)].concat();
            prop_assert_eq!(&whole, &parts);
            for (index, &found) in whole.iter().enumerate() {
                let (i, j) = (index % rows, index / rows);
                let sum: f64 = (0..terms).map(|k| f64::from(a[(i, k)]) * f64::from(b[(k, j)])).sum();
                prop_assert!((f64::from(found) - 1.0 - sum).abs() < 1e-5);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// Whole numbers have exact sums.
        #[test]
        fn blocks_of_many_terms_add_up(
            terms in MANY + 1..3 * MANY, wide in any::<bool>(), others in 1..300_usize,
            lies in any::<bool>(), seed in 0..50_usize,
        ) {
            let (rows, columns) = if wide { (1, others.min(20)) } else { (others, 1) };
            let whole = |count, seed| -> Vec<f32> {
                numbers(count, seed).iter().map(|x| (x * 5.0).round()).collect()
            };
            let (a, b) = (whole(rows * terms, seed), whole(terms * columns, seed + 1));
            let a = MatRef::from_column_major_slice(&a, rows, terms);
            let b = if lies {
                MatRef::from_column_major_slice(&b, columns, terms).transpose()
            } else {
                MatRef::from_column_major_slice(&b, terms, columns)
            };
            let rows_lie: Vec<f32> =
                (0..rows).flat_map(|i| (0..terms).map(move |k| (i, k))).map(|at| a[at]).collect();
            let transposed = MatRef::from_column_major_slice(&rows_lie, terms, rows).transpose();
            let a = if lies { a } else { transposed };
            for (index, &found) in some(a, b, 0..columns).iter().enumerate() {
                let (i, j) = (index % rows, index / rows);
                prop_assert_eq!(found, 1.0 + (0..terms).map(|k| a[(i, k)] * b[(k, j)]).sum::<f32>());
            }
        }
    }

    #[test]
    fn other_products_are_left_alone() {
        let (a, b) = (numbers(200, 1), numbers(200, 2));
        for (rows, terms) in [(2, 2), (1, 65)] {
            let a = MatRef::from_column_major_slice(&a[..rows * terms], rows, terms);
            let b = MatRef::from_column_major_slice(&b[..3 * terms], terms, 3);
            let mut c = vec![7.0; rows * 3];
            let mut matrix = MatMut::from_column_major_slice_mut(&mut c, rows, 3);
            assert!(!product(&mut matrix, Accum::Replace, a, b));
            assert!(c.iter().all(|&c| c == 7.0));
        }
    }
}
