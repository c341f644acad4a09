//! The two types of numbers that a network can have.

use std::cell::RefCell;

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use nalgebra::RealField;

use crate::{correlate, elementary};

/// `f32` or `f64`: the type of weights, activations and gradients.
///
/// Sealed: the matrix kernels exist for these two types only. Hyper-parameters are always `f64` and are
/// converted once.
pub trait Scalar: RealField + Copy + Default + From<u8> + kernel::Kernel {
    /// The name that error messages and files use: `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Rounds `value` to this type.
    fn of(value: f64) -> Self;

    /// The value as `f64`, exactly.
    fn as_f64(self) -> f64;
}

/// What each scalar type implements separately. It is private, which seals [`Scalar`].
pub(crate) mod kernel {
    use faer::{Accum, MatMut, MatRef};

    pub trait Kernel: Sized {
        /// The largest finite number.
        const LARGEST: f64;

        /// The distance from 1 to the next larger number.
        const EPSILON: f64;

        /// The smallest positive number that is not subnormal.
        const SMALLEST_NORMAL: f64;

        /// `c ← a·b` or `c ← c + a·b`, on one thread.
        fn multiply(c: MatMut<Self>, accum: Accum, a: MatRef<Self>, b: MatRef<Self>);

        /// How many numbers stand side by side in a panel for [`correlate`](Self::correlate), for this
        /// many units.
        fn lanes(units: usize) -> usize;

        /// `sums[q, v] ← Σ_t panel[t, v] · field[places[q] + terms[t]]`, which is added to what is there
        /// if it `adds`. The last term is the largest. There are [`lanes`](Self::lanes) values of `v`,
        /// side by side in memory.
        fn correlate(
            panel: &[Self],
            field: &[Self],
            terms_and_places: (&[usize], &[usize]),
            sums: &mut [Self],
            adds: bool,
        );

        /// `tanh a`, for vectorised loops.
        fn fast_tanh(self) -> Self;

        /// `eˣ`, for vectorised loops.
        fn fast_exp(self) -> Self;

        /// `ln(1 + x)` for `0 ≤ x ≤ 1`, for vectorised loops.
        fn fast_ln_1p(self) -> Self;

        /// The value, or 0 in place of a number below the smallest normal one. Arithmetic with such
        /// numbers is many times slower.
        fn without_subnormals(self) -> Self;

        /// The bytes of the numbers, as they stand in memory.
        #[cfg(feature = "mpi")]
        fn bytes(numbers: &[Self]) -> &[u8];

        /// [`bytes`](Self::bytes), for writing.
        #[cfg(feature = "mpi")]
        fn bytes_mut(numbers: &mut [Self]) -> &mut [u8];

        /// Makes sure that this thread has this many numbers of scratch memory, and says whether that
        /// worked.
        fn reserve_scratch(length: usize) -> bool;

        /// Gives `work` this many numbers of the thread's scratch memory. Their content is unspecified.
        ///
        /// # Panics
        /// If `work` asks for scratch memory again, directly or through a task that it waits for.
        fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [Self]) -> R) -> R;
    }
}

macro_rules! scalar {
    ($type:ident, $scratch:ident, $correlate:ident, $tanh:path, $exp:path, $ln_1p:path) => {
        thread_local! {
            static $scratch: RefCell<Vec<$type>> = const { RefCell::new(Vec::new()) };
        }

        impl Scalar for $type {
            const NAME: &'static str = stringify!($type);

            #[allow(clippy::cast_possible_truncation)] // Rounding is what it is for.
            fn of(value: f64) -> Self {
                value as Self
            }

            fn as_f64(self) -> f64 {
                f64::from(self)
            }
        }

        #[allow(clippy::cast_lossless)] // One of the two is `f64` already.
        impl kernel::Kernel for $type {
            const LARGEST: f64 = $type::MAX as f64;
            const EPSILON: f64 = $type::EPSILON as f64;
            const SMALLEST_NORMAL: f64 = $type::MIN_POSITIVE as f64;

            fn multiply(c: MatMut<Self>, accum: Accum, a: MatRef<Self>, b: MatRef<Self>) {
                matmul(c, accum, a, b, 1.0, Par::Seq);
            }

            fn lanes(units: usize) -> usize {
                correlate::$correlate::lanes(units)
            }

            fn correlate(
                panel: &[Self],
                field: &[Self],
                lists: (&[usize], &[usize]),
                sums: &mut [Self],
                adds: bool,
            ) {
                correlate::$correlate::correlate(panel, field, lists, sums, adds);
            }

            #[allow(clippy::inline_always)] // Or it would not be vectorised.
            #[inline(always)]
            fn fast_tanh(self) -> Self {
                $tanh(self)
            }

            #[allow(clippy::inline_always)] // As above.
            #[inline(always)]
            fn fast_exp(self) -> Self {
                $exp(self)
            }

            #[allow(clippy::inline_always)] // As above.
            #[inline(always)]
            fn fast_ln_1p(self) -> Self {
                $ln_1p(self)
            }

            #[allow(clippy::inline_always)] // As above.
            #[inline(always)]
            fn without_subnormals(self) -> Self {
                if self.abs() < $type::MIN_POSITIVE { 0.0 } else { self }
            }

            #[cfg(feature = "mpi")]
            fn bytes(numbers: &[Self]) -> &[u8] {
                bytemuck::cast_slice(numbers)
            }

            #[cfg(feature = "mpi")]
            fn bytes_mut(numbers: &mut [Self]) -> &mut [u8] {
                bytemuck::cast_slice_mut(numbers)
            }

            fn reserve_scratch(length: usize) -> bool {
                $scratch.with_borrow_mut(|scratch| {
                    let more = length.saturating_sub(scratch.len());
                    let reserved = scratch.try_reserve_exact(more).is_ok();
                    if reserved && more > 0 {
                        scratch.resize(length, 0.0);
                    }
                    reserved
                })
            }

            fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [Self]) -> R) -> R {
                $scratch.with_borrow_mut(|scratch| {
                    if scratch.len() < length {
                        scratch.resize(length, 0.0);
                    }
                    work(&mut scratch[..length])
                })
            }
        }
    };
}

scalar!(f32, SCRATCH_F32, of_f32, elementary::tanh_f32, elementary::exp_f32, elementary::ln_1p_f32);
scalar!(f64, SCRATCH_F64, of_f64, elementary::tanh_f64, elementary::exp_f64, elementary::ln_1p_f64);
