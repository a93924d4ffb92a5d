//! What a transform needs of vectors beside products and sums: differences, and the transpose of a square of lanes.

use crate::isa::Simd;
use crate::portable::Portable;
use striate_core::Accumulator;

/// Vectors that transforms are computed with.
pub trait Wave<A: Accumulator>: Simd<A> {
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `c - a * b`.
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// Transposes the `LANES` by `LANES` numbers at an address.
    ///
    /// # Safety
    /// `square` must be readable and writable for `LANES * LANES` numbers.
    #[inline(always)]
    unsafe fn transpose(self, square: *mut A) {
        for row in 0..Self::LANES {
            for column in 0..row {
                // SAFETY: both positions are inside the square, which the caller vouches for.
                unsafe {
                    std::ptr::swap(square.add(row * Self::LANES + column), square.add(column * Self::LANES + row))
                };
            }
        }
    }
}

impl<A: Accumulator> Wave<A> for Portable {
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]]
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.sub(c, self.mul(a, b))
    }
}

/// Implements [`Wave`] from the names of intrinsics; `$fnma(a, b, c)` is `c - a * b`.
#[allow(unused_macros)] // No other token on some targets.
macro_rules! wave {
    ($token:ty, $acc:ty, $sub:ident $mul:ident $fnma:expr, $transpose:ident) => {
        impl Wave<$acc> for $token {
            #[inline(always)]
            fn sub(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the token proves the features.
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the token proves the features.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: the token proves the features.
                unsafe { $fnma(a, b, c) }
            }
            #[inline(always)]
            unsafe fn transpose(self, square: *mut $acc) {
                // SAFETY: the token proves the features, the caller vouches for the square.
                unsafe { $transpose(square) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Wave;
    use crate::x86::{Avx2, Avx512};
    use core::arch::x86_64::*;

    wave!(Avx512, f32, _mm512_sub_ps _mm512_mul_ps _mm512_fnmadd_ps, square16);
    wave!(Avx512, f64, _mm512_sub_pd _mm512_mul_pd _mm512_fnmadd_pd, square8_wide);
    wave!(Avx2, f32, _mm256_sub_ps _mm256_mul_ps _mm256_fnmadd_ps, square8);
    wave!(Avx2, f64, _mm256_sub_pd _mm256_mul_pd _mm256_fnmadd_pd, square4);

    /// Rows are interleaved by pairs, then pairs of pairs, then quarters of vectors change places twice.
    #[inline(always)]
    unsafe fn square16(square: *mut f32) {
        // SAFETY: the caller holds the token and vouches for 256 numbers.
        unsafe {
            let mut quads = [_mm512_setzero_ps(); 16];
            for four in 0..4 {
                let row = |k: usize| _mm512_loadu_ps(square.add((four * 4 + k) * 16));
                let (low, high) = (_mm512_unpacklo_ps(row(0), row(1)), _mm512_unpackhi_ps(row(0), row(1)));
                let (low2, high2) = (_mm512_unpacklo_ps(row(2), row(3)), _mm512_unpackhi_ps(row(2), row(3)));
                quads[four * 4] = _mm512_shuffle_ps::<0x44>(low, low2);
                quads[four * 4 + 1] = _mm512_shuffle_ps::<0xee>(low, low2);
                quads[four * 4 + 2] = _mm512_shuffle_ps::<0x44>(high, high2);
                quads[four * 4 + 3] = _mm512_shuffle_ps::<0xee>(high, high2);
            }
            for k in 0..4 {
                let (a, b, c, d) = (quads[k], quads[4 + k], quads[8 + k], quads[12 + k]);
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                _mm512_storeu_ps(square.add(k * 16), _mm512_shuffle_f32x4::<0x88>(even, even2));
                _mm512_storeu_ps(square.add((4 + k) * 16), _mm512_shuffle_f32x4::<0x88>(odd, odd2));
                _mm512_storeu_ps(square.add((8 + k) * 16), _mm512_shuffle_f32x4::<0xdd>(even, even2));
                _mm512_storeu_ps(square.add((12 + k) * 16), _mm512_shuffle_f32x4::<0xdd>(odd, odd2));
            }
        }
    }

    #[inline(always)]
    unsafe fn square8_wide(square: *mut f64) {
        // SAFETY: the caller holds the token and vouches for 64 numbers.
        unsafe {
            let mut pairs = [_mm512_setzero_pd(); 8];
            for two in 0..4 {
                let (a, b) = (_mm512_loadu_pd(square.add(two * 16)), _mm512_loadu_pd(square.add(two * 16 + 8)));
                pairs[two * 2] = _mm512_unpacklo_pd(a, b);
                pairs[two * 2 + 1] = _mm512_unpackhi_pd(a, b);
            }
            for k in 0..2 {
                let (a, b, c, d) = (pairs[k], pairs[2 + k], pairs[4 + k], pairs[6 + k]);
                let (even, odd) = (_mm512_shuffle_f64x2::<0x88>(a, b), _mm512_shuffle_f64x2::<0xdd>(a, b));
                let (even2, odd2) = (_mm512_shuffle_f64x2::<0x88>(c, d), _mm512_shuffle_f64x2::<0xdd>(c, d));
                _mm512_storeu_pd(square.add(k * 8), _mm512_shuffle_f64x2::<0x88>(even, even2));
                _mm512_storeu_pd(square.add((2 + k) * 8), _mm512_shuffle_f64x2::<0x88>(odd, odd2));
                _mm512_storeu_pd(square.add((4 + k) * 8), _mm512_shuffle_f64x2::<0xdd>(even, even2));
                _mm512_storeu_pd(square.add((6 + k) * 8), _mm512_shuffle_f64x2::<0xdd>(odd, odd2));
            }
        }
    }

    #[inline(always)]
    unsafe fn square8(square: *mut f32) {
        // SAFETY: the caller holds the token and vouches for 64 numbers.
        unsafe {
            let mut quads = [_mm256_setzero_ps(); 8];
            for four in 0..2 {
                let row = |k: usize| _mm256_loadu_ps(square.add((four * 4 + k) * 8));
                let (low, high) = (_mm256_unpacklo_ps(row(0), row(1)), _mm256_unpackhi_ps(row(0), row(1)));
                let (low2, high2) = (_mm256_unpacklo_ps(row(2), row(3)), _mm256_unpackhi_ps(row(2), row(3)));
                quads[four * 4] = _mm256_shuffle_ps::<0x44>(low, low2);
                quads[four * 4 + 1] = _mm256_shuffle_ps::<0xee>(low, low2);
                quads[four * 4 + 2] = _mm256_shuffle_ps::<0x44>(high, high2);
                quads[four * 4 + 3] = _mm256_shuffle_ps::<0xee>(high, high2);
            }
            for k in 0..4 {
                let (a, b) = (quads[k], quads[4 + k]);
                _mm256_storeu_ps(square.add(k * 8), _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(square.add((4 + k) * 8), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }

    #[inline(always)]
    unsafe fn square4(square: *mut f64) {
        // SAFETY: the caller holds the token and vouches for 16 numbers.
        unsafe {
            let row = |k: usize| _mm256_loadu_pd(square.add(k * 4));
            let (low, high) = (_mm256_unpacklo_pd(row(0), row(1)), _mm256_unpackhi_pd(row(0), row(1)));
            let (low2, high2) = (_mm256_unpacklo_pd(row(2), row(3)), _mm256_unpackhi_pd(row(2), row(3)));
            _mm256_storeu_pd(square, _mm256_permute2f128_pd::<0x20>(low, low2));
            _mm256_storeu_pd(square.add(4), _mm256_permute2f128_pd::<0x20>(high, high2));
            _mm256_storeu_pd(square.add(8), _mm256_permute2f128_pd::<0x31>(low, low2));
            _mm256_storeu_pd(square.add(12), _mm256_permute2f128_pd::<0x31>(high, high2));
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::Wave;
    use crate::neon::Neon;
    use core::arch::aarch64::*;

    wave!(Neon, f32, vsubq_f32 vmulq_f32 |a, b, c| vfmsq_f32(c, a, b), square4);
    wave!(Neon, f64, vsubq_f64 vmulq_f64 |a, b, c| vfmsq_f64(c, a, b), square2);

    #[inline(always)]
    unsafe fn square4(square: *mut f32) {
        // SAFETY: the caller holds the token and vouches for 16 numbers, which the load deals out by columns.
        unsafe {
            let columns = vld4q_f32(square);
            vst1q_f32(square, columns.0);
            vst1q_f32(square.add(4), columns.1);
            vst1q_f32(square.add(8), columns.2);
            vst1q_f32(square.add(12), columns.3);
        }
    }

    #[inline(always)]
    unsafe fn square2(square: *mut f64) {
        // SAFETY: the caller holds the token and vouches for 4 numbers.
        unsafe { std::ptr::swap(square.add(1), square.add(2)) };
    }
}
