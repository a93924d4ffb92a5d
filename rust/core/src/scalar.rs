//! Storage types and their accumulators. Kernels are one text over [`Scalar`].

use crate::problem::DType;
use std::ops::{Add, AddAssign, Mul, Sub};

/// IEEE 754 binary16, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(pub u16);

/// bfloat16, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// A type sums are carried in.
pub trait Accumulator:
    Scalar<Acc = Self>
    + Default
    + PartialEq
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + AddAssign
    + std::fmt::Debug
{
    /// From double precision, rounded.
    fn from_f64(value: f64) -> Self;
    /// To double precision, exact.
    fn to_f64(self) -> f64;
}

/// A type tensors are stored in: any bit pattern is a value.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Its name at run time.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($name:ty => $dtype:ident),*) => {
        $(impl Element for $name {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}

elements!(f32 => F32, f64 => F64, Bf16 => Bf16, F16 => F16, i32 => I32, i64 => I64);

/// A type that is computed on.
pub trait Scalar: Element {
    /// What its sums are carried in: f32 for f16, bf16 and f32, f64 for f64.
    type Acc: Accumulator;
    /// To the accumulator, exact.
    fn widen(self) -> Self::Acc;
    /// From the accumulator, rounded to nearest even.
    fn narrow(value: Self::Acc) -> Self;
    /// The same numbers as accumulators, if the type is its own.
    fn as_accumulators(_numbers: &[Self]) -> Option<&[Self::Acc]> {
        None
    }
    /// The same numbers as accumulators, if the type is its own.
    fn as_accumulators_mut(_numbers: &mut [Self]) -> Option<&mut [Self::Acc]> {
        None
    }
}

impl Scalar for f32 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> f32 {
        value
    }
    fn as_accumulators(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }
    fn as_accumulators_mut(numbers: &mut [f32]) -> Option<&mut [f32]> {
        Some(numbers)
    }
}

impl Scalar for f64 {
    type Acc = f64;
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(value: f64) -> f64 {
        value
    }
    fn as_accumulators(numbers: &[f64]) -> Option<&[f64]> {
        Some(numbers)
    }
    fn as_accumulators_mut(numbers: &mut [f64]) -> Option<&mut [f64]> {
        Some(numbers)
    }
}

impl Accumulator for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Accumulator for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
}

impl Scalar for Bf16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn narrow(value: f32) -> Bf16 {
        let bits = value.to_bits();
        if value.is_nan() {
            return Bf16((bits >> 16) as u16 | 0x40);
        }
        // Adding just under half a unit, plus one when the kept part is odd, rounds ties to even.
        Bf16(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
}

impl Scalar for F16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        let (sign, rest) = (u32::from(self.0 & 0x8000) << 16, u32::from(self.0 & 0x7fff));
        let magnitude = match rest {
            // Infinity and NaN keep their payload, quieted as hardware does.
            0x7c01..=0x7fff => 0x7fc0_0000 | (rest << 13),
            0x7c00 => 0x7f80_0000,
            // A subnormal is its integer significand times 2^-24, exact in f32.
            0..=0x3ff => return f32::from_bits(sign | (rest as f32 * f32::from_bits(0x3380_0000)).to_bits()),
            _ => (rest << 13) + (112 << 23),
        };
        f32::from_bits(sign | magnitude)
    }
    #[inline(always)]
    fn narrow(value: f32) -> F16 {
        let bits = value.to_bits();
        let (sign, rest) = (((bits >> 16) & 0x8000) as u16, bits & 0x7fff_ffff);
        let magnitude = if rest > 0x7f80_0000 {
            0x7e00 | ((rest >> 13) & 0x3ff) as u16
        } else if rest >= 0x4780_0000 {
            0x7c00
        } else if rest < 0x3880_0000 {
            // Below the normal range: adding 0.5 leaves the rounded count of 2^-24 units in the low bits.
            ((f32::from_bits(rest) + 0.5).to_bits() - 0x3f00_0000) as u16
        } else {
            ((rest - (112 << 23) + 0xfff + ((rest >> 13) & 1)) >> 13) as u16
        };
        F16(sign | magnitude)
    }
}

/// Runs `$body` with `$name` bound to the storage type of a [`DType`].
#[macro_export]
macro_rules! with_scalar {
    ($dtype:expr, $name:ident => $body:expr) => {
        match $dtype {
            $crate::problem::DType::F32 => {
                type $name = f32;
                $body
            }
            $crate::problem::DType::F64 => {
                type $name = f64;
                $body
            }
            $crate::problem::DType::Bf16 => {
                type $name = $crate::scalar::Bf16;
                $body
            }
            $crate::problem::DType::F16 => {
                type $name = $crate::scalar::F16;
                $body
            }
            $crate::problem::DType::I32 | $crate::problem::DType::I64 => {
                unreachable!("integers are not computed on, which every door and row has checked")
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_value_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (F16(bits).widen(), Bf16(bits).widen());
            if half.is_nan() {
                assert!(F16::narrow(half).widen().is_nan());
            } else {
                assert_eq!(F16::narrow(half).0, bits);
            }
            if brain.is_nan() {
                assert!(Bf16::narrow(brain).widen().is_nan());
            } else {
                assert_eq!(Bf16::narrow(brain).0, bits);
            }
        }
    }

    #[test]
    fn halfway_values_round_to_even() {
        for bits in (0..0x7bffu16).chain(0x8000..0xfbff) {
            let (lo, hi) = (F16(bits).widen(), F16(bits + 1).widen());
            let even = if bits % 2 == 0 { bits } else { bits + 1 };
            assert_eq!(F16::narrow((lo + hi) / 2.0).0, even);
        }
        for bits in (0..0x7f7fu16).chain(0x8000..0xff7f) {
            let middle = f32::from_bits((u32::from(bits) << 16) | 0x8000);
            assert_eq!(Bf16::narrow(middle).0, if bits % 2 == 0 { bits } else { bits + 1 });
        }
        assert_eq!(F16::narrow(65520.0).widen(), f32::INFINITY);
        assert_eq!(F16::narrow(65519.0).widen(), 65504.0);
        assert_eq!(Bf16::narrow(f32::MAX).widen(), f32::INFINITY);
    }
}
