//! One-dimensional convolution by sliding vectors: neighbouring numbers stay in a pair of registers, and every tap shifts
//! the pair by one more lane instead of reading memory again (R. Snytsar, arXiv 2305.16513).

#![allow(clippy::needless_range_loop)] // Closures would not be compiled for the instruction set.

use crate::isa::{Simd, Task};
use crate::portable::Portable;
use striate_core::Accumulator;

/// Vectors cut from a pair of vectors.
pub trait Slide<A: Accumulator>: Simd<A> {
    /// A distance, as the instruction wants it.
    type By: Copy;
    /// The distance of so many lanes, at most a vector.
    fn by(self, lanes: usize) -> Self::By;
    /// The lanes of `low` and, behind them, of `high` from a distance on.
    fn slide(self, low: Self::V, high: Self::V, by: Self::By) -> Self::V;
}

/// The output of one line: column `c` sums the taps times the numbers at `c`, `c + apart` and so on.
#[derive(Clone, Copy, Debug)]
pub struct Sliding<'a, A> {
    /// Taps.
    pub taps: &'a [A],
    /// Distance of taps.
    pub apart: usize,
    /// Columns.
    pub cols: usize,
}

impl<A> Sliding<'_, A> {
    /// Numbers that a line must have.
    pub fn reach(&self, lanes: usize) -> usize {
        self.cols.next_multiple_of(lanes) + (self.taps.len().max(1) - 1) * self.apart / lanes * lanes + lanes
    }
}

/// Sums a line onto what the destination holds.
pub fn convolve<A: Accumulator, I: Slide<A>>(isa: I, sliding: &Sliding<'_, A>, line: &[A], dst: &mut [A]) {
    assert!(sliding.reach(I::LANES) <= line.len(), "{sliding:?} leaves its line of {}", line.len());
    assert!(sliding.cols <= dst.len(), "{sliding:?} leaves its destination of {}", dst.len());
    isa.run(Convolving { sliding, line: line.as_ptr(), dst: dst.as_mut_ptr() });
}

struct Convolving<'a, A> {
    sliding: &'a Sliding<'a, A>,
    line: *const A,
    dst: *mut A,
}

impl<A: Accumulator, I: Slide<A>> Task<I> for Convolving<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        const MANY: usize = 8;
        let (mut c, cols) = (0, self.sliding.cols);
        while c + MANY * I::LANES <= cols {
            self.block::<I, MANY>(isa, c);
            c += MANY * I::LANES;
        }
        while c < cols {
            self.block::<I, 1>(isa, c);
            c += I::LANES;
        }
    }
}

impl<A: Accumulator> Convolving<'_, A> {
    #[inline(always)]
    fn block<I: Slide<A>, const N: usize>(&self, isa: I, c: usize) {
        let Sliding { taps, apart, cols } = *self.sliding;
        let mask = isa.mask(0, cols - c);
        // SAFETY: `convolve` asserted that the line holds what all taps reach in whole vectors, and that the
        // destination holds all columns, of which the mask chooses those of the only vector.
        unsafe {
            let to = self.dst.add(c);
            let mut sums = [if N == 1 { isa.load_masked(to, mask) } else { isa.load(to) }; N];
            for n in 1..N {
                sums[n] = isa.load(to.add(n * I::LANES));
            }
            let mut t = 0;
            while t < taps.len() {
                // Taps that lie between the same two vectors.
                let first = t * apart / I::LANES * I::LANES;
                let from = self.line.add(c + first);
                let mut low = [isa.load(from); N];
                for n in 1..N {
                    low[n] = isa.load(from.add(n * I::LANES));
                }
                let last = isa.load(from.add(N * I::LANES));
                while t < taps.len() && t * apart < first + I::LANES {
                    let (by, tap) = (isa.by(t * apart - first), isa.splat(taps[t]));
                    for n in 0..N {
                        let high = if n + 1 < N { low[n + 1] } else { last };
                        sums[n] = isa.mul_add(tap, isa.slide(low[n], high, by), sums[n]);
                    }
                    t += 1;
                }
            }
            if N == 1 {
                return isa.store_masked(to, sums[0], mask);
            }
            for n in 0..N {
                isa.store(to.add(n * I::LANES), sums[n]);
            }
        }
    }
}

/// Through memory, for tokens whose vectors are small.
macro_rules! by_lane {
    ($token:ty, $acc:ty) => {
        impl Slide<$acc> for $token {
            type By = usize;
            #[inline(always)]
            fn by(self, lanes: usize) -> usize {
                assert!(lanes <= <Self as Simd<$acc>>::LANES);
                lanes
            }
            #[inline(always)]
            fn slide(self, low: Self::V, high: Self::V, by: usize) -> Self::V {
                let mut pair = [0.0; 8];
                // SAFETY: the array holds two vectors of at most four lanes, and `by` is at most one.
                unsafe {
                    self.store(pair.as_mut_ptr(), low);
                    self.store(pair.as_mut_ptr().add(<Self as Simd<$acc>>::LANES), high);
                    self.load(pair.as_ptr().add(by))
                }
            }
        }
    };
}

by_lane!(Portable, f32);
by_lane!(Portable, f64);
#[cfg(target_arch = "aarch64")]
by_lane!(crate::neon::Neon, f32);
#[cfg(target_arch = "aarch64")]
by_lane!(crate::neon::Neon, f64);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Slide;
    use crate::x86::{Avx2, Avx512};
    use core::arch::x86_64::*;

    impl Slide<f32> for Avx512 {
        type By = __m512i;
        #[inline(always)]
        fn by(self, lanes: usize) -> __m512i {
            // SAFETY: the token proves the features.
            unsafe {
                let own = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                _mm512_add_epi32(own, _mm512_set1_epi32(lanes as i32))
            }
        }
        #[inline(always)]
        fn slide(self, low: __m512, high: __m512, by: __m512i) -> __m512 {
            // SAFETY: the token proves the features.
            unsafe { _mm512_permutex2var_ps(low, by, high) }
        }
    }

    impl Slide<f64> for Avx512 {
        type By = __m512i;
        #[inline(always)]
        fn by(self, lanes: usize) -> __m512i {
            // SAFETY: the token proves the features.
            unsafe { _mm512_add_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(lanes as i64)) }
        }
        #[inline(always)]
        fn slide(self, low: __m512d, high: __m512d, by: __m512i) -> __m512d {
            // SAFETY: the token proves the features.
            unsafe { _mm512_permutex2var_pd(low, by, high) }
        }
    }

    /// Which lane each lane takes from either vector, and which vector it takes (the second where negative).
    #[inline(always)]
    fn halves(_proof: Avx2, lanes: usize) -> (__m256i, __m256) {
        // SAFETY: the token proves the features.
        unsafe {
            let from = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(lanes as i32));
            (from, _mm256_castsi256_ps(_mm256_cmpgt_epi32(from, _mm256_set1_epi32(7))))
        }
    }

    impl Slide<f32> for Avx2 {
        type By = (__m256i, __m256);
        #[inline(always)]
        fn by(self, lanes: usize) -> Self::By {
            halves(self, lanes)
        }
        #[inline(always)]
        fn slide(self, low: __m256, high: __m256, (from, second): Self::By) -> __m256 {
            // SAFETY: the token proves the features. AVX2 has no permutation of two vectors.
            unsafe {
                let [low, high] = [_mm256_permutevar8x32_ps(low, from), _mm256_permutevar8x32_ps(high, from)];
                _mm256_blendv_ps(low, high, second)
            }
        }
    }

    impl Slide<f64> for Avx2 {
        type By = (__m256i, __m256);
        #[inline(always)]
        fn by(self, lanes: usize) -> Self::By {
            halves(self, 2 * lanes)
        }
        #[inline(always)]
        fn slide(self, low: __m256d, high: __m256d, by: Self::By) -> __m256d {
            // SAFETY: the token proves the features. Halves of numbers move in pairs.
            unsafe {
                let slid = Slide::<f32>::slide(self, _mm256_castpd_ps(low), _mm256_castpd_ps(high), by);
                _mm256_castps_pd(slid)
            }
        }
    }
}
