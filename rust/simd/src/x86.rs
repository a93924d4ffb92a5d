//! AVX2 (with FMA and F16C) and AVX-512 (F, BW, DQ, VL).
//!
//! bf16 is rounded with integer instructions: the processor's own conversion flushes subnormal numbers.

use crate::isa::{Convert, Isa, Simd, Task};
use core::arch::x86_64::*;
use striate_core::{Bf16, F16};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub struct Avx512(());

/// AVX-512 on vectors of AVX2's width, with its masks and registers.
#[derive(Clone, Copy)]
pub struct Avx512Half(());

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";
    fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }
    #[inline(always)]
    fn run<T: Task<Self>>(self, task: T) -> T::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn with_avx2<T: Task<Avx2>>(task: T) -> T::Out {
            task.call(Avx2(()))
        }
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { with_avx2(task) }
    }
    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a hint; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

impl Isa for Avx512 {
    const NAME: &'static str = "avx512";
    fn detect() -> Option<Self> {
        let found = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        found.then_some(Avx512(()))
    }
    #[inline(always)]
    fn run<T: Task<Self>>(self, task: T) -> T::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn with_avx512<T: Task<Avx512>>(task: T) -> T::Out {
            task.call(Avx512(()))
        }
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { with_avx512(task) }
    }
    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a hint; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

impl Isa for Avx512Half {
    const NAME: &'static str = Avx512::NAME;
    const EDGES: bool = true;
    fn detect() -> Option<Self> {
        Avx512::detect().map(|_| Avx512Half(()))
    }
    #[inline(always)]
    fn run<T: Task<Self>>(self, task: T) -> T::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn with_avx512<T: Task<Avx512Half>>(task: T) -> T::Out {
            task.call(Avx512Half(()))
        }
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { with_avx512(task) }
    }
}

/// Implements [`Simd`] from the names of one vector width's intrinsics.
macro_rules! simd {
    ($token:ty, $acc:ty, $v:ty, $m:ty, $lanes:literal, $registers:literal,
     $set1:ident $fma:ident $add:ident $load:ident $store:ident $maskload:ident $maskstore:ident,
     sum: $sum:ident, mask: $mask:ident, evens: $evens:ident, zip: $zip:ident, half: $half:ident) => {
        impl Simd<$acc> for $token {
            type V = $v;
            type M = $m;
            type Half = $half;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            #[inline(always)]
            fn half(self) -> $half {
                $half(())
            }
            #[inline(always)]
            fn splat(self, value: $acc) -> $v {
                // SAFETY: the token proves the features.
                unsafe { $set1(value) }
            }
            #[inline(always)]
            fn mul_add(self, a: $v, b: $v, c: $v) -> $v {
                // SAFETY: the token proves the features.
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            fn add(self, a: $v, b: $v) -> $v {
                // SAFETY: the token proves the features.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            fn evens(self, a: $v, b: $v) -> $v {
                // SAFETY: the token proves the features.
                unsafe { $evens(a, b) }
            }
            #[inline(always)]
            fn zip(self, a: $v, b: $v) -> ($v, $v) {
                // SAFETY: the token proves the features.
                unsafe { $zip(a, b) }
            }
            #[inline(always)]
            fn sum(self, v: $v) -> $acc {
                // SAFETY: the token proves the features.
                unsafe { $sum(v) }
            }
            #[inline(always)]
            fn mask(self, from: usize, to: usize) -> $m {
                // SAFETY: the token proves the features.
                unsafe { $mask(from, to) }
            }
            #[inline(always)]
            unsafe fn load(self, from: *const $acc) -> $v {
                // SAFETY: the token proves the features, the caller vouches for the range.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn load_masked(self, from: *const $acc, mask: $m) -> $v {
                // SAFETY: as for `load`; lanes outside the mask are not touched.
                unsafe { $maskload(from, mask) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $acc, v: $v) {
                // SAFETY: as for `load`.
                unsafe { $store(to, v) }
            }
            #[inline(always)]
            unsafe fn store_masked(self, to: *mut $acc, v: $v, mask: $m) {
                // SAFETY: as for `load`; lanes outside the mask are not touched.
                unsafe { $maskstore(to, mask, v) }
            }
        }
    };
}

/// Loads with the mask last, as AVX2 has them, from those of AVX-512, which have it first.
macro_rules! mask_last {
    ($($name:ident = $load:ident($from:ty, $mask:ty) -> $v:ty;)*) => {$(
        #[inline(always)]
        unsafe fn $name(from: *const $from, mask: $mask) -> $v {
            // SAFETY: the caller holds the token and vouches for the range.
            unsafe { $load(mask, from) }
        }
    )*};
}
mask_last! {
    load16 = _mm512_maskz_loadu_ps(f32, __mmask16) -> __m512;
    load8_wide = _mm512_maskz_loadu_pd(f64, __mmask8) -> __m512d;
    load8 = _mm256_maskz_loadu_ps(f32, __mmask8) -> __m256;
    load4 = _mm256_maskz_loadu_pd(f64, __mmask8) -> __m256d;
}

// Named functions rather than closures: `inline(always)` carries them into the function that has the features.

#[inline(always)]
unsafe fn sum16(v: __m512) -> f32 {
    // SAFETY: the caller holds the token.
    unsafe { _mm512_reduce_add_ps(v) }
}
#[inline(always)]
unsafe fn sum8_wide(v: __m512d) -> f64 {
    // SAFETY: the caller holds the token.
    unsafe { _mm512_reduce_add_pd(v) }
}
#[inline(always)]
unsafe fn bits16(from: usize, to: usize) -> __mmask16 {
    let below = |lanes: usize| (1u32 << lanes.min(16)) - 1;
    (below(to) & !below(from)) as u16
}
#[inline(always)]
unsafe fn bits8(from: usize, to: usize) -> __mmask8 {
    let below = |lanes: usize| (1u32 << lanes.min(8)) - 1;
    (below(to) & !below(from)) as u8
}
#[inline(always)]
unsafe fn bits4(from: usize, to: usize) -> __mmask8 {
    // SAFETY: passed on unchanged.
    unsafe { bits8(from.min(4), to.min(4)) }
}
/// Lane numbers 0..8 and 0..4, compared with a count to make AVX2 masks.
static COUNT: [i32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
static COUNT_LONG: [i64; 4] = [0, 1, 2, 3];

#[inline(always)]
unsafe fn mask8(from: usize, to: usize) -> __m256i {
    // SAFETY: the caller holds the token; the table has eight entries.
    unsafe {
        let lane = _mm256_loadu_si256(COUNT.as_ptr().cast());
        let below = _mm256_cmpgt_epi32(_mm256_set1_epi32(to.min(8) as i32), lane);
        _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(from.min(8) as i32), lane), below)
    }
}
#[inline(always)]
unsafe fn mask4(from: usize, to: usize) -> __m256i {
    // SAFETY: the caller holds the token; the table has four entries.
    unsafe {
        let lane = _mm256_loadu_si256(COUNT_LONG.as_ptr().cast());
        let below = _mm256_cmpgt_epi64(_mm256_set1_epi64x(to.min(4) as i64), lane);
        _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_set1_epi64x(from.min(4) as i64), lane), below)
    }
}
#[inline(always)]
unsafe fn sum8(v: __m256) -> f32 {
    // SAFETY: the caller holds the token.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
#[inline(always)]
unsafe fn sum4(v: __m256d) -> f64 {
    // SAFETY: the caller holds the token.
    unsafe {
        let two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    }
}

#[inline(always)]
unsafe fn evens16(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller holds the token.
    unsafe {
        let from = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        _mm512_permutex2var_ps(a, from, b)
    }
}
#[inline(always)]
unsafe fn zip16(a: __m512, b: __m512) -> (__m512, __m512) {
    // SAFETY: the caller holds the token.
    unsafe {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b))
    }
}
#[inline(always)]
unsafe fn evens8_wide(a: __m512d, b: __m512d) -> __m512d {
    // SAFETY: the caller holds the token.
    unsafe { _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b) }
}
#[inline(always)]
unsafe fn zip8_wide(a: __m512d, b: __m512d) -> (__m512d, __m512d) {
    // SAFETY: the caller holds the token.
    unsafe {
        let low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
        (_mm512_permutex2var_pd(a, low, b), _mm512_permutex2var_pd(a, high, b))
    }
}
/// Quarters 0, 2, 1, 3: undoes what instructions on halves leave between them.
const QUARTERS: i32 = 0b11_01_10_00;
#[inline(always)]
unsafe fn evens8(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller holds the token.
    unsafe {
        let halves = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
        _mm256_castpd_ps(_mm256_permute4x64_pd::<QUARTERS>(halves))
    }
}
#[inline(always)]
unsafe fn zip8(a: __m256, b: __m256) -> (__m256, __m256) {
    // SAFETY: the caller holds the token.
    unsafe {
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    }
}
#[inline(always)]
unsafe fn evens4(a: __m256d, b: __m256d) -> __m256d {
    // SAFETY: the caller holds the token.
    unsafe { _mm256_permute4x64_pd::<QUARTERS>(_mm256_unpacklo_pd(a, b)) }
}
#[inline(always)]
unsafe fn zip4(a: __m256d, b: __m256d) -> (__m256d, __m256d) {
    // SAFETY: the caller holds the token.
    unsafe {
        let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        (_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high))
    }
}

simd!(Avx512, f32, __m512, __mmask16, 16, 32,
    _mm512_set1_ps _mm512_fmadd_ps _mm512_add_ps _mm512_loadu_ps _mm512_storeu_ps load16 _mm512_mask_storeu_ps,
    sum: sum16, mask: bits16, evens: evens16, zip: zip16, half: Avx512Half);
simd!(Avx512, f64, __m512d, __mmask8, 8, 32,
    _mm512_set1_pd _mm512_fmadd_pd _mm512_add_pd _mm512_loadu_pd _mm512_storeu_pd load8_wide _mm512_mask_storeu_pd,
    sum: sum8_wide, mask: bits8, evens: evens8_wide, zip: zip8_wide, half: Avx512Half);
simd!(Avx2, f32, __m256, __m256i, 8, 16,
    _mm256_set1_ps _mm256_fmadd_ps _mm256_add_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_maskload_ps _mm256_maskstore_ps,
    sum: sum8, mask: mask8, evens: evens8, zip: zip8, half: Avx2);
simd!(Avx2, f64, __m256d, __m256i, 4, 16,
    _mm256_set1_pd _mm256_fmadd_pd _mm256_add_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_maskload_pd _mm256_maskstore_pd,
    sum: sum4, mask: mask4, evens: evens4, zip: zip4, half: Avx2);
simd!(Avx512Half, f32, __m256, __mmask8, 8, 32,
    _mm256_set1_ps _mm256_fmadd_ps _mm256_add_ps _mm256_loadu_ps _mm256_storeu_ps load8 _mm256_mask_storeu_ps,
    sum: sum8, mask: bits8, evens: evens8, zip: zip8, half: Avx512Half);
simd!(Avx512Half, f64, __m256d, __mmask8, 4, 32,
    _mm256_set1_pd _mm256_fmadd_pd _mm256_add_pd _mm256_loadu_pd _mm256_storeu_pd load4 _mm256_mask_storeu_pd,
    sum: sum4, mask: bits4, evens: evens4, zip: zip4, half: Avx512Half);

/// Implements [`Convert`] of a type that is its own accumulator.
macro_rules! identity {
    ($($token:ty, $acc:ty, $v:ty);*) => {$(
        impl Convert<$acc> for $token {
            #[inline(always)]
            unsafe fn widen(self, from: *const $acc) -> $v {
                // SAFETY: passed on unchanged.
                unsafe { self.load(from) }
            }
            #[inline(always)]
            unsafe fn narrow(self, v: $v, to: *mut $acc) {
                // SAFETY: passed on unchanged.
                unsafe { self.store(to, v) }
            }
        }
    )*};
}
identity!(Avx512, f32, __m512; Avx512, f64, __m512d; Avx2, f32, __m256; Avx2, f64, __m256d);

impl Convert<F16> for Avx512 {
    #[inline(always)]
    unsafe fn widen(self, from: *const F16) -> __m512 {
        // SAFETY: the token proves the features, the caller vouches for the range.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn narrow(self, v: __m512, to: *mut F16) {
        // SAFETY: as for `widen`.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v)) }
    }
}

impl Convert<F16> for Avx2 {
    #[inline(always)]
    unsafe fn widen(self, from: *const F16) -> __m256 {
        // SAFETY: the token proves the features, the caller vouches for the range.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn narrow(self, v: __m256, to: *mut F16) {
        // SAFETY: as for `widen`.
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v)) }
    }
}

impl Convert<Bf16> for Avx512 {
    #[inline(always)]
    unsafe fn widen(self, from: *const Bf16) -> __m512 {
        // SAFETY: the token proves the features, the caller vouches for the range.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }
    #[inline(always)]
    unsafe fn narrow(self, v: __m512, to: *mut Bf16) {
        // SAFETY: as for `widen`.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let kept = _mm512_mask_blend_epi32(nan, rounded, quiet);
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept)));
        }
    }
}

impl Convert<Bf16> for Avx2 {
    #[inline(always)]
    unsafe fn widen(self, from: *const Bf16) -> __m256 {
        // SAFETY: the token proves the features, the caller vouches for the range.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)]
    unsafe fn narrow(self, v: __m256, to: *mut Bf16) {
        // SAFETY: as for `widen`.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let kept = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256::<1>(kept));
            _mm_storeu_si128(to.cast(), packed);
        }
    }
}
