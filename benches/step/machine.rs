//! What the machine can do at most, measured in this process.

use std::time::Instant;

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul, traits::ComplexField};
use rayon::prelude::*;

/// The best of some runs: a ceiling is what is possible.
const RUNS: usize = 5;

fn best(mut run: impl FnMut()) -> f64 {
    let seconds = (0..RUNS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// Operations per second of a large square product, its columns shared out among the threads of the
/// pool around.
pub fn product<T: ComplexField + Copy>(one: T) -> f64 {
    const SIZE: usize = 2048;
    let a = vec![one; SIZE * SIZE];
    let mut c = a.clone();
    let piece = SIZE * SIZE.div_ceil(rayon::current_num_threads());
    let seconds = best(|| {
        c.par_chunks_mut(piece).zip(a.par_chunks(piece)).for_each(|(c, b)| {
            let columns = b.len() / SIZE;
            let c = MatMut::from_column_major_slice_mut(c, SIZE, columns);
            let b = MatRef::from_column_major_slice(b, SIZE, columns);
            let a = MatRef::from_column_major_slice(&a, SIZE, SIZE);
            matmul(c, Accum::Replace, a, b, one, Par::Seq);
        });
    });
    2.0 * (SIZE as f64).powi(3) / seconds
}

/// Bytes per second, read and written, of a copy of 512 MiB by the threads of the pool around.
pub fn copy() -> f64 {
    const LENGTH: usize = 1 << 26;
    let source = vec![1_u64; LENGTH];
    let mut target = source.clone();
    let piece = LENGTH.div_ceil(rayon::current_num_threads());
    let seconds = best(|| {
        target
            .par_chunks_mut(piece)
            .zip(source.par_chunks(piece))
            .for_each(|(target, source)| target.copy_from_slice(source));
    });
    2.0 * size_of_val(source.as_slice()) as f64 / seconds
}
