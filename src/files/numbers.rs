//! The numbers of tensors as little-endian bytes.

use safetensors::Dtype;

use crate::scalar::Scalar;

pub(super) fn dtype<T: Scalar>() -> Dtype {
    if T::NAME == f32::NAME { Dtype::F32 } else { Dtype::F64 }
}

/// The bytes of the numbers.
pub(super) fn encode<T: Scalar>(numbers: &[T]) -> Vec<u8> {
    let numbers = numbers.iter().map(|value| value.as_f64());
    #[allow(clippy::cast_possible_truncation)] // An `f32` comes back exactly.
    match dtype::<T>() {
        Dtype::F32 => numbers.flat_map(|value| (value as f32).to_le_bytes()).collect(),
        _ => numbers.flat_map(f64::to_le_bytes).collect(),
    }
}

/// The numbers of a floating-point type that these bytes stand for, rounded to `T`.
pub(super) fn decode<T: Scalar>(dtype: Dtype, bytes: &[u8]) -> Vec<T> {
    match dtype {
        Dtype::F16 => numbers(bytes, |bits| half(u16::from_le_bytes(bits)).into()),
        Dtype::BF16 => numbers(bytes, |bits| brain(u16::from_le_bytes(bits)).into()),
        Dtype::F32 => numbers(bytes, |bits| f32::from_le_bytes(bits).into()),
        Dtype::F64 => numbers(bytes, f64::from_le_bytes),
        _ => unreachable!("other types are refused before"),
    }
}

fn numbers<T: Scalar, const SIZE: usize>(
    bytes: &[u8],
    number: impl Fn([u8; SIZE]) -> f64,
) -> Vec<T> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|&bytes| T::of(number(bytes))).collect()
}

/// The number that these bits stand for in IEEE 754's binary16: a sign, 5 bits of exponent, 10 of
/// fraction. `f32` represents each of them exactly.
fn half(bits: u16) -> f32 {
    /// The smallest positive number, 2⁻²⁴.
    const SMALLEST: f32 = 1.0 / 16_777_216.0;
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => (f32::from(bits & 0x3ff) * SMALLEST).to_bits(),
        0x1f => 0xff << 23 | fraction << 13,
        _ => (exponent + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The number that these bits stand for in bfloat16: the upper half of an `f32`.
fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the format, in `f64`.
    fn number(bits: u16, exponent_bits: u32, fraction_bits: u32) -> f64 {
        let bits = u32::from(bits);
        let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
        let exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
        let fraction =
            f64::from(bits & ((1 << fraction_bits) - 1)) / 2_f64.powi(fraction_bits.cast_signed());
        let bias = (1 << (exponent_bits - 1)) - 1;
        let magnitude = match exponent.cast_signed() {
            0 => fraction * 2_f64.powi(1 - bias),
            largest if largest == 2 * bias + 1 && fraction == 0.0 => f64::INFINITY,
            largest if largest == 2 * bias + 1 => f64::NAN,
            exponent => (1.0 + fraction) * 2_f64.powi(exponent - bias),
        };
        sign * magnitude
    }

    #[test]
    fn every_number_of_16_bits_is_read_exactly() {
        for bits in 0..=u16::MAX {
            for (dtype, expected) in
                [(Dtype::F16, number(bits, 5, 10)), (Dtype::BF16, number(bits, 8, 7))]
            {
                let wide = decode::<f64>(dtype, &bits.to_le_bytes())[0];
                let single = decode::<f32>(dtype, &bits.to_le_bytes())[0];
                for found in [wide, f64::from(single)] {
                    let same = found.to_bits() == expected.to_bits();
                    assert!(
                        same || found.is_nan() && expected.is_nan(),
                        "{dtype:?} {bits:04x}: {found}"
                    );
                }
            }
        }
    }
}
