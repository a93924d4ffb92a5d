//! Arithmetic on as many numbers as the widest vector holds. What is not a loop around [`add_product`] is left to the
//! compiler, which turns it into the vectors of whatever instruction set the calling task is compiled for.

use crate::isa::Simd;
use crate::maths::{self, Maths};
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
    /// The largest whole number not above it.
    fn floor(self) -> Self;
    /// A whole number from 0 to 2^23 - 1 as an index, from its bits: a conversion that saturates stops the compiler.
    fn index(self) -> i32;
    /// Below this, e to the power of a number is subnormal.
    const LOWEST: Self;
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

macro_rules! real {
    ($name:ident, $lowest:literal, $whole:literal) => {
        impl Real for $name {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = $lowest;
            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$name>::floor(self)
            }
            #[inline(always)]
            fn index(self) -> i32 {
                ((self + $whole).to_bits() & 0x7f_ffff) as i32
            }
        }
    };
}

real!(f32, -87.0, 8_388_608.0);
real!(f64, -708.0, 4_503_599_627_370_496.0);

/// The products of lanes, as one vector operation.
#[inline(always)]
pub fn product<A: Real, I: Simd<A>>(isa: I, a: &Lane<A>, b: &Lane<A>) -> Lane<A> {
    let mut made = [A::ZERO; LANES];
    add_product(isa, &mut made, a, b);
    made
}

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

/// e to the power of every lane; zero where that would be subnormal.
#[inline(always)]
pub fn exp<A: Real, I: Maths<A>>(isa: I, of: &Lane<A>) -> Lane<A> {
    const { assert!(LANES.is_multiple_of(I::LANES)) };
    let mut made = *of;
    for at in (0..LANES).step_by(I::LANES) {
        // SAFETY: a lane holds a whole number of vectors.
        unsafe { isa.store(made.as_mut_ptr().add(at), maths::exp(isa, isa.load(of.as_ptr().add(at)))) };
    }
    zip(&made, of, |power, of| if of < A::LOWEST { A::ZERO } else { power })
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
    use crate::Isa;
    use crate::portable::Portable;

    #[test]
    fn powers_of_e_are_close() {
        let isa = Portable::detect().unwrap();
        let of = |x: f64| (exp(isa, &[x; LANES])[0], f64::from(exp(isa, &[x as f32; LANES])[0]));
        for step in 0..200_000 {
            let x = -f64::from(step) * 3.6e-3;
            let (wide, narrow) = (x.exp(), f64::from(x as f32).exp());
            if x > -707.9 {
                assert!((of(x).0 / wide - 1.0).abs() < 4.0 * f64::EPSILON, "{x}");
            }
            if x > -86.9 {
                assert!((of(x).1 / narrow - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}");
            }
        }
        assert_eq!((of(-1e30).1, of(f64::NEG_INFINITY).0), (0.0, 0.0));
        assert_eq!(of(0.0), (1.0, 1.0));
        assert!(of(f64::NAN).0.is_nan() && of(f64::NAN).1.is_nan());
    }
}
