//! Arm NEON, which every aarch64 processor has.

use crate::isa::{Convert, Isa, Simd, Task};
use core::arch::aarch64::*;
use striate_core::Scalar;

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon(());

impl Isa for Neon {
    const NAME: &'static str = "neon";
    fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
    #[inline(always)]
    fn run<T: Task<Self>>(self, task: T) -> T::Out {
        // NEON belongs to the target's baseline, so no feature needs to be switched on.
        task.call(self)
    }
}

/// Implements [`Simd`] and the conversions from one vector width's intrinsics.
macro_rules! simd {
    ($acc:ty, $v:ty, $lanes:literal, $set1:ident $fma:ident $add:ident $load:ident $store:ident $sum:ident
     $evens:ident $low:ident $high:ident) => {
        impl Simd<$acc> for Neon {
            type V = $v;
            type M = (usize, usize);
            type Half = Self;
            const LANES: usize = $lanes;
            const REGISTERS: usize = 32;
            #[inline(always)]
            fn half(self) -> Self {
                self
            }
            #[inline(always)]
            fn splat(self, value: $acc) -> $v {
                // SAFETY: the token proves the feature.
                unsafe { $set1(value) }
            }
            #[inline(always)]
            fn mul_add(self, a: $v, b: $v, c: $v) -> $v {
                // SAFETY: the token proves the feature.
                unsafe { $fma(c, a, b) }
            }
            #[inline(always)]
            fn add(self, a: $v, b: $v) -> $v {
                // SAFETY: the token proves the feature.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            fn evens(self, a: $v, b: $v) -> $v {
                // SAFETY: the token proves the feature.
                unsafe { $evens(a, b) }
            }
            #[inline(always)]
            fn zip(self, a: $v, b: $v) -> ($v, $v) {
                // SAFETY: the token proves the feature.
                unsafe { ($low(a, b), $high(a, b)) }
            }
            #[inline(always)]
            fn sum(self, v: $v) -> $acc {
                // SAFETY: the token proves the feature.
                unsafe { $sum(v) }
            }
            #[inline(always)]
            fn mask(self, from: usize, to: usize) -> (usize, usize) {
                (from.min($lanes), to.clamp(from.min($lanes), $lanes))
            }
            #[inline(always)]
            unsafe fn load(self, from: *const $acc) -> $v {
                // SAFETY: the token proves the feature, the caller vouches for the range.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn load_masked(self, from: *const $acc, (lo, hi): (usize, usize)) -> $v {
                let mut lanes = [0.0; $lanes];
                // SAFETY: the caller vouches for the chosen lanes; the array is a full vector.
                unsafe {
                    std::ptr::copy_nonoverlapping(from.add(lo), lanes.as_mut_ptr().add(lo), hi - lo);
                    $load(lanes.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $acc, v: $v) {
                // SAFETY: as for `load`.
                unsafe { $store(to, v) }
            }
            #[inline(always)]
            unsafe fn store_masked(self, to: *mut $acc, v: $v, (lo, hi): (usize, usize)) {
                let mut lanes = [0.0; $lanes];
                // SAFETY: the array is a full vector; the caller vouches for the chosen lanes.
                unsafe {
                    $store(lanes.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(lanes.as_ptr().add(lo), to.add(lo), hi - lo);
                }
            }
        }
    };
}

simd!(f32, float32x4_t, 4, vdupq_n_f32 vfmaq_f32 vaddq_f32 vld1q_f32 vst1q_f32 vaddvq_f32
    vuzp1q_f32 vzip1q_f32 vzip2q_f32);
simd!(f64, float64x2_t, 2, vdupq_n_f64 vfmaq_f64 vaddq_f64 vld1q_f64 vst1q_f64 vaddvq_f64
    vuzp1q_f64 vzip1q_f64 vzip2q_f64);

impl<S: Scalar> Convert<S> for Neon
where
    Neon: Simd<S::Acc>,
{
    #[inline(always)]
    unsafe fn widen(self, from: *const S) -> Self::V {
        let mut lanes = [S::Acc::default(); 4];
        for (lane, slot) in lanes.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller vouches for the range.
            *slot = unsafe { from.add(lane).read() }.widen();
        }
        // SAFETY: the array holds at least a full vector.
        unsafe { self.load(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn narrow(self, v: Self::V, to: *mut S) {
        let mut lanes = [S::Acc::default(); 4];
        // SAFETY: the array holds at least a full vector, the caller vouches for the range.
        unsafe {
            self.store(lanes.as_mut_ptr(), v);
            for (lane, value) in lanes.into_iter().enumerate().take(Self::LANES) {
                to.add(lane).write(S::narrow(value));
            }
        }
    }
}
