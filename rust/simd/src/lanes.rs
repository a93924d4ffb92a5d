//! Arithmetic on as many numbers as the widest vector holds. What is not a loop around [`add_product`] is left to the
//! compiler, which turns it into the vectors of whatever instruction set the calling task is compiled for.

use crate::isa::Simd;
use std::ops::{Div, Neg, Sub};
use striate_core::Accumulator;

/// Numbers handled together.
pub const LANES: usize = 16;

/// Neighbouring numbers.
pub type Lane<A> = [A; LANES];

/// f32 and f64.
pub trait Real: Accumulator + Sub<Output = Self> + Div<Output = Self> + Neg<Output = Self> + PartialOrd {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Without its sign.
    fn magnitude(self) -> Self;
    /// e to the power of a number that is not positive; zero where the result would be subnormal.
    fn exp(self) -> Self;
    /// 1 for positive numbers, otherwise 0: to be multiplied with, where a branch would stop the compiler.
    #[inline(always)]
    fn step(self) -> Self {
        if self > Self::ZERO { Self::ONE } else { Self::ZERO }
    }
    /// -1, 0 or 1.
    #[inline(always)]
    fn sign(self) -> Self {
        self.step() - (-self).step()
    }
}

/// 1 / k!
const INVERSE_FACTORIALS: [f64; 14] = {
    let mut table = [1.0; 14];
    let mut k = 1;
    while k < table.len() {
        table[k] = table[k - 1] / k as f64;
        k += 1;
    }
    table
};

macro_rules! real {
    ($name:ident, mantissa: $mantissa:literal, bias: $bias:literal, lowest: $lowest:literal, degree: $degree:literal,
     ln2: $high:literal + $rest:literal) => {
        impl Real for $name {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }
            // x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its power series. Adding 1.5 * 2^mantissa rounds to
            // the integer n and leaves it in the low bits, from where a shift makes it the exponent of 2^n.
            #[inline(always)]
            fn exp(self) -> Self {
                const ROUND: $name = 1.5 * (1u64 << $mantissa) as $name;
                let shifted = self * std::$name::consts::LOG2_E + ROUND;
                let n = shifted - ROUND;
                let r = self - n * $high - n * $rest;
                let mut sum = INVERSE_FACTORIALS[$degree] as $name;
                for k in (0..$degree).rev() {
                    sum = sum * r + INVERSE_FACTORIALS[k] as $name;
                }
                let power = $name::from_bits((shifted.to_bits() << $mantissa).wrapping_add($bias << $mantissa));
                if self < $lowest { 0.0 } else { sum * power }
            }
        }
    };
}

// The high part of ln 2 has so few bits that n times it is exact.
real!(f32, mantissa: 23, bias: 127, lowest: -87.0, degree: 7, ln2: 0.693_359_4 + -2.121_944_4e-4);
real!(f64, mantissa: 52, bias: 1023, lowest: -708.0, degree: 13,
    ln2: 6.931_471_803_691_238e-1 + 1.908_214_929_270_587_7e-10);

/// `f` of every lane.
#[inline(always)]
pub fn map<A: Real>(a: &Lane<A>, f: impl Fn(A) -> A) -> Lane<A> {
    let mut made = *a;
    for value in &mut made {
        *value = f(*value);
    }
    made
}

/// `f` of every pair of lanes.
#[inline(always)]
pub fn zip<A: Real>(a: &Lane<A>, b: &Lane<A>, f: impl Fn(A, A) -> A) -> Lane<A> {
    let mut made = *a;
    for (value, other) in made.iter_mut().zip(b) {
        *value = f(*value, *other);
    }
    made
}

/// `sum += a * b`.
#[inline(always)]
pub fn add_product<A: Real, I: Simd<A>>(isa: I, sum: &mut Lane<A>, a: &Lane<A>, b: &Lane<A>) {
    const { assert!(LANES.is_multiple_of(I::LANES)) };
    for at in (0..LANES).step_by(I::LANES) {
        // SAFETY: a lane holds a whole number of vectors.
        unsafe {
            let [a, b, old] = [a, b, &*sum].map(|lane| isa.load(lane.as_ptr().add(at)));
            isa.store(sum.as_mut_ptr().add(at), isa.mul_add(a, b, old));
        }
    }
}

/// The lanes at `from`, `from + pitch`, ...: as many as there are, zeros beyond `live`.
#[inline(always)]
pub fn gather<A: Real>(data: &[A], from: usize, pitch: usize, live: usize) -> Lane<A> {
    let mut lanes = [A::ZERO; LANES];
    for (index, lane) in lanes.iter_mut().enumerate().take(live) {
        *lane = data[from + index * pitch];
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_e_are_close() {
        for step in 0..200_000 {
            let x = -f64::from(step) * 3.6e-3;
            let (wide, narrow) = (x.exp(), f64::from(x as f32).exp());
            if x > -707.9 {
                assert!((Real::exp(x) / wide - 1.0).abs() < 4.0 * f64::EPSILON, "{x}");
            }
            if x > -86.9 {
                let got = f64::from(Real::exp(x as f32));
                assert!((got / narrow - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}");
            }
        }
        assert_eq!(Real::exp(-1e30f32), 0.0);
        assert_eq!(Real::exp(f64::NEG_INFINITY), 0.0);
        assert_eq!((Real::exp(0.0f32), Real::exp(0.0f64)), (1.0, 1.0));
        assert!(Real::exp(f32::NAN).is_nan());
    }
}
