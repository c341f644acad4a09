//! The two number types that a network can be made of.

use nalgebra::RealField;

/// `f32` or `f64`: the type of weights, activations and gradients.
///
/// Sealed: the matrix kernels exist for these two only. Hyper-parameters are `f64` whatever the
/// scalar and are converted once.
pub trait Scalar: RealField + Copy + Default + From<u8> + kernel::Kernel {
    /// The name that error messages and files use: `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Rounds `value` to this type.
    fn of(value: f64) -> Self;

    /// The value as `f64`, exactly.
    fn as_f64(self) -> f64;
}

/// The matrix product and the slice functions of each scalar; private, which seals [`Scalar`].
pub(crate) mod kernel {
    /// Position and strides of a matrix in memory, in elements.
    pub struct Strided<P> {
        pub pointer: P,
        pub row_stride: isize,
        pub column_stride: isize,
    }

    #[allow(unsafe_code)]
    pub trait Kernel: Sized {
        /// `c ← a·b + β·c` for `a : m × k`, `b : k × n`, `c : m × n` and `β` of 0 or 1, where
        /// `shape` is `(m, k, n)`.
        ///
        /// # Safety
        /// Every element of the three matrices lies in memory that is valid for reading (`a`,
        /// `b`) and writing (`c`); `c` overlaps neither `a`, `b` nor itself. With `β = 0`, `c`
        /// need not be initialised.
        unsafe fn gemm(
            shape: (usize, usize, usize),
            a: &Strided<*const Self>,
            b: &Strided<*const Self>,
            beta: Self,
            c: &Strided<*mut Self>,
        );

        /// `h ← tanh a`
        fn tanh_all(a: &[Self], h: &mut [Self]);
    }
}

macro_rules! scalar {
    ($type:ident, $gemm:path, $tanh:path) => {
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

        impl kernel::Kernel for $type {
            fn tanh_all(a: &[Self], h: &mut [Self]) {
                $tanh(a, h);
            }

            #[allow(unsafe_code)]
            unsafe fn gemm(
                (m, k, n): (usize, usize, usize),
                a: &kernel::Strided<*const Self>,
                b: &kernel::Strided<*const Self>,
                beta: Self,
                c: &kernel::Strided<*mut Self>,
            ) {
                // SAFETY: the caller keeps the contract above, which is that of the kernel.
                unsafe {
                    $gemm(
                        m,
                        k,
                        n,
                        1.0,
                        a.pointer,
                        a.row_stride,
                        a.column_stride,
                        b.pointer,
                        b.row_stride,
                        b.column_stride,
                        beta,
                        c.pointer,
                        c.row_stride,
                        c.column_stride,
                    );
                }
            }
        }
    };
}

scalar!(f32, matrixmultiply::sgemm, crate::elementary::tanh_f32);
scalar!(f64, matrixmultiply::dgemm, crate::elementary::tanh_f64);
