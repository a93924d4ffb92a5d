//! Comparison, division and powers of two on vectors, which only some loops need.

use crate::isa::Simd;
use striate_core::Accumulator;

/// What a token offers beyond sums and products.
pub trait Maths<A: Accumulator>: Simd<A> {
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * 2^n` for whole numbers `n` between the exponents of twice the range of normal numbers.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    /// `new` where it is greater than `old` (`LEAST`: less) or NaN, else `old`: the first of equals stays, the last
    /// NaN wins. Labels come along.
    fn pick<const LEAST: bool>(self, old: (Self::V, Self::V), new: (Self::V, Self::V)) -> (Self::V, Self::V);
    /// The same choice without labels.
    fn extreme<const LEAST: bool>(self, old: Self::V, new: Self::V) -> Self::V;
    /// The same choice where nothing is NaN.
    fn calm_extreme<const LEAST: bool>(self, old: Self::V, new: Self::V) -> Self::V;
    /// `pick` where nothing is NaN.
    fn calm_pick<const LEAST: bool>(self, old: (Self::V, Self::V), new: (Self::V, Self::V)) -> (Self::V, Self::V);
    /// Whether any lane of either is NaN.
    fn unordered(self, a: Self::V, b: Self::V) -> bool;
    /// Whether any lanes are equal.
    fn any_equal(self, a: Self::V, b: Self::V) -> bool;
    /// `sum + x` where `labels` is `label`, `sum` elsewhere.
    fn add_where(self, sum: Self::V, x: Self::V, labels: Self::V, label: Self::V) -> Self::V;
    /// Writes whole numbers as such.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` numbers.
    unsafe fn whole(self, a: Self::V, to: *mut i32);
    /// Reads the chosen lanes, and takes `other` elsewhere.
    ///
    /// # Safety
    /// `from` must be readable for the chosen lanes.
    unsafe fn load_or(self, from: *const A, mask: Self::M, other: Self::V) -> Self::V;
}

/// `exp(x)` of numbers, anything of NaN: 2^n times the Taylor polynomial of what is left of x.
#[inline(always)]
pub fn exp<A: Accumulator, I: Maths<A>>(isa: I, x: I::V) -> I::V {
    let narrow = size_of::<A>() == 4;
    // Beyond these the result is 0 or infinity. `whole` rounds what it is added to and subtracted from; ln 2 is split
    // so that its first part times n is exact.
    let (low, high, degree) = if narrow { (-105.0, 89.0, 7) } else { (-746.0, 710.0, 13) };
    let whole = if narrow { 12_582_912.0 } else { 6_755_399_441_055_744.0 };
    let (first, second) = if narrow {
        (0.693_359_375, std::f64::consts::LN_2 - 0.693_359_375)
    } else {
        (f64::from_bits(0x3fe6_2e42_fee0_0000), 1.908_214_929_270_587_7e-10)
    };
    let number = |value: f64| A::from_f64(value);
    let x = isa.extreme::<true>(isa.splat(number(high)), isa.extreme::<false>(isa.splat(number(low)), x));
    let n = isa.mul_add(x, isa.splat(number(std::f64::consts::LOG2_E)), isa.splat(number(whole)));
    let n = isa.add(n, isa.splat(number(-whole)));
    let r = isa.mul_add(n, isa.splat(number(-first)), x);
    let r = isa.mul_add(n, isa.splat(number(-second)), r);
    let mut factorial = 1.0;
    for k in 2..=degree {
        factorial *= f64::from(k);
    }
    let mut sum = isa.splat(number(1.0 / factorial));
    for k in 0..degree {
        factorial /= f64::from(degree - k);
        sum = isa.mul_add(sum, r, isa.splat(number(1.0 / factorial)));
    }
    isa.scale(sum, n)
}

/// A token with the maths of both accumulators.
pub trait EveryMaths: crate::Every + Maths<f32> + Maths<f64> {}

impl<I> EveryMaths for I where I: crate::Every + Maths<f32> + Maths<f64> {}

/// Whole number `n` as a power of two.
trait Power {
    fn power(n: Self) -> Self;
}
impl Power for f32 {
    #[inline(always)]
    fn power(n: f32) -> f32 {
        f32::from_bits(((n as i32 + 127) << 23) as u32)
    }
}
impl Power for f64 {
    #[inline(always)]
    fn power(n: f64) -> f64 {
        f64::from_bits(((n as i64 + 1023) << 52) as u64)
    }
}

/// Lane by lane, for tokens whose vectors are small.
macro_rules! by_lane {
    ($token:ty, $acc:ty) => {
        impl Maths<$acc> for $token {
            #[inline(always)]
            fn div(self, a: Self::V, b: Self::V) -> Self::V {
                lanes(self, [a, b], |[a, b]: [$acc; 2]| [a / b])[0]
            }
            #[inline(always)]
            fn scale(self, a: Self::V, n: Self::V) -> Self::V {
                // In two steps, because a power that is no normal number may still scale to one.
                let scaled = |[a, n]: [$acc; 2]| {
                    let half = (n * 0.5) as i32 as $acc;
                    [a * Power::power(half) * Power::power(n - half)]
                };
                lanes(self, [a, n], scaled)[0]
            }
            #[inline(always)]
            fn pick<const LEAST: bool>(self, old: (Self::V, Self::V), new: (Self::V, Self::V)) -> (Self::V, Self::V) {
                let [value, label] = lanes(self, [old.0, old.1, new.0, new.1], |[o, l, n, m]: [$acc; 4]| {
                    if (if LEAST { n < o } else { n > o }) || n.is_nan() { [n, m] } else { [o, l] }
                });
                (value, label)
            }
            #[inline(always)]
            fn extreme<const LEAST: bool>(self, old: Self::V, new: Self::V) -> Self::V {
                let better =
                    |[o, n]: [$acc; 2]| [if (if LEAST { n < o } else { n > o }) || n.is_nan() { n } else { o }];
                lanes(self, [old, new], better)[0]
            }
            #[inline(always)]
            fn calm_extreme<const LEAST: bool>(self, old: Self::V, new: Self::V) -> Self::V {
                self.extreme::<LEAST>(old, new)
            }
            #[inline(always)]
            fn calm_pick<const LEAST: bool>(
                self,
                old: (Self::V, Self::V),
                new: (Self::V, Self::V),
            ) -> (Self::V, Self::V) {
                self.pick::<LEAST>(old, new)
            }
            #[inline(always)]
            fn unordered(self, a: Self::V, b: Self::V) -> bool {
                let seen = |[a, b]: [$acc; 2]| [if a.is_nan() || b.is_nan() { 1.0 } else { 0.0 }];
                self.sum(lanes(self, [a, b], seen)[0]) > 0.0
            }
            #[inline(always)]
            fn any_equal(self, a: Self::V, b: Self::V) -> bool {
                self.sum(lanes(self, [a, b], |[a, b]: [$acc; 2]| [if a == b { 1.0 } else { 0.0 }])[0]) > 0.0
            }
            #[inline(always)]
            fn add_where(self, sum: Self::V, x: Self::V, labels: Self::V, label: Self::V) -> Self::V {
                let added = |[sum, x, a, b]: [$acc; 4]| [if a == b { sum + x } else { sum }];
                lanes(self, [sum, x, labels, label], added)[0]
            }
            #[inline(always)]
            unsafe fn load_or(self, from: *const $acc, (lo, hi): (usize, usize), other: Self::V) -> Self::V {
                let mut taken = [0.0; 4];
                // SAFETY: the array holds any vector of these tokens; the caller vouches for what is read.
                unsafe {
                    self.store(taken.as_mut_ptr(), other);
                    for (lane, slot) in taken.iter_mut().enumerate().take(hi).skip(lo) {
                        *slot = from.add(lane).read();
                    }
                    self.load(taken.as_ptr())
                }
            }
            #[inline(always)]
            unsafe fn whole(self, a: Self::V, to: *mut i32) {
                let mut taken = [0.0; 4];
                // SAFETY: the array holds any vector of these tokens; the caller vouches for what is written.
                unsafe {
                    self.store(taken.as_mut_ptr(), a);
                    for (lane, number) in taken.into_iter().enumerate().take(<Self as Simd<$acc>>::LANES) {
                        to.add(lane).write(number as i32);
                    }
                }
            }
        }
    };
}

/// Applies a function to every lane of some vectors.
#[inline(always)]
fn lanes<A: Accumulator, I: Simd<A>, const N: usize, const M: usize>(
    isa: I,
    vectors: [I::V; N],
    each: impl Fn([A; N]) -> [A; M],
) -> [I::V; M] {
    const MOST: usize = 4;
    assert!(I::LANES <= MOST);
    let mut taken = [[A::default(); MOST]; N];
    for (slot, vector) in taken.iter_mut().zip(vectors) {
        // SAFETY: an array holds at least a full vector, as just asserted.
        unsafe { isa.store(slot.as_mut_ptr(), vector) };
    }
    let mut made = [[A::default(); MOST]; M];
    for lane in 0..I::LANES {
        let values = each(std::array::from_fn(|n| taken[n][lane]));
        for (slot, value) in made.iter_mut().zip(values) {
            slot[lane] = value;
        }
    }
    // SAFETY: as above.
    made.map(|slot| unsafe { isa.load(slot.as_ptr()) })
}

by_lane!(crate::portable::Portable, f32);
by_lane!(crate::portable::Portable, f64);
#[cfg(target_arch = "aarch64")]
by_lane!(crate::neon::Neon, f32);
#[cfg(target_arch = "aarch64")]
by_lane!(crate::neon::Neon, f64);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Maths;
    use crate::x86::{Avx2, Avx512};
    use core::arch::x86_64::*;

    /// Implements [`Maths`] from the names of one vector width's intrinsics. `maximum` and `minimum` of the processor
    /// return their second operand where the two are equal or either is NaN.
    macro_rules! maths {
        ($token:ty, $acc:ty, $v:ty, $div:ident $max:ident $min:ident $scale:ident, $greater:ident $less:ident $nan:ident
         $either:ident $blend:ident $any:ident, $pair:ident $equal:ident $add:ident $whole:ident $load:ident) => {
            impl Maths<$acc> for $token {
                #[inline(always)]
                fn div(self, a: $v, b: $v) -> $v {
                    // SAFETY: the token proves the features.
                    unsafe { $div(a, b) }
                }
                #[inline(always)]
                fn scale(self, a: $v, n: $v) -> $v {
                    // SAFETY: the token proves the features.
                    unsafe { $scale(a, n) }
                }
                #[inline(always)]
                fn pick<const LEAST: bool>(self, old: ($v, $v), new: ($v, $v)) -> ($v, $v) {
                    // SAFETY: the token proves the features.
                    unsafe {
                        let better = if LEAST { $less(new.0, old.0) } else { $greater(new.0, old.0) };
                        let taken = $either(better, $nan(new.0));
                        ($blend(old.0, new.0, taken), $blend(old.1, new.1, taken))
                    }
                }
                #[inline(always)]
                fn extreme<const LEAST: bool>(self, old: $v, new: $v) -> $v {
                    // SAFETY: the token proves the features.
                    unsafe { $blend(if LEAST { $min(new, old) } else { $max(new, old) }, new, $nan(new)) }
                }
                #[inline(always)]
                fn calm_extreme<const LEAST: bool>(self, old: $v, new: $v) -> $v {
                    // SAFETY: the token proves the features.
                    unsafe { if LEAST { $min(new, old) } else { $max(new, old) } }
                }
                #[inline(always)]
                fn calm_pick<const LEAST: bool>(self, old: ($v, $v), new: ($v, $v)) -> ($v, $v) {
                    // SAFETY: the token proves the features.
                    unsafe {
                        let better = if LEAST { $less(new.0, old.0) } else { $greater(new.0, old.0) };
                        ($blend(old.0, new.0, better), $blend(old.1, new.1, better))
                    }
                }
                #[inline(always)]
                fn unordered(self, a: $v, b: $v) -> bool {
                    // SAFETY: the token proves the features.
                    unsafe { $any($pair(a, b)) }
                }
                #[inline(always)]
                fn any_equal(self, a: $v, b: $v) -> bool {
                    // SAFETY: the token proves the features.
                    unsafe { $any($equal(a, b)) }
                }
                #[inline(always)]
                fn add_where(self, sum: $v, x: $v, labels: $v, label: $v) -> $v {
                    // SAFETY: the token proves the features.
                    unsafe { $blend(sum, $add(sum, x), $equal(labels, label)) }
                }
                #[inline(always)]
                unsafe fn load_or(self, from: *const $acc, mask: Self::M, other: $v) -> $v {
                    // SAFETY: the token proves the features, the caller vouches for the range.
                    unsafe { $load(other, mask, from) }
                }
                #[inline(always)]
                unsafe fn whole(self, a: $v, to: *mut i32) {
                    // SAFETY: the token proves the features, the caller vouches for the range.
                    unsafe { $whole(a, to) }
                }
            }
        };
    }

    #[inline(always)]
    unsafe fn either16(a: u16, b: u16) -> u16 {
        a | b
    }
    #[inline(always)]
    unsafe fn either8w(a: u8, b: u8) -> u8 {
        a | b
    }
    #[inline(always)]
    unsafe fn any16(a: u16) -> bool {
        a != 0
    }
    #[inline(always)]
    unsafe fn any8w(a: u8) -> bool {
        a != 0
    }

    /// Defines helpers that only name an intrinsic's constants, or the order of its operands.
    macro_rules! helpers {
        ($($name:ident($($arg:ident: $t:ty),*) -> $out:ty $body:block)*) => {$(
            #[inline(always)]
            unsafe fn $name($($arg: $t),*) -> $out {
                // SAFETY: the caller holds the token.
                unsafe { $body }
            }
        )*};
    }

    helpers! {
        greater16(a: __m512, b: __m512) -> u16 { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
        less16(a: __m512, b: __m512) -> u16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        nan16(a: __m512) -> u16 { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) }
        pair16(a: __m512, b: __m512) -> u16 { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b) }
        equal16(a: __m512, b: __m512) -> u16 { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
        whole16(a: __m512, to: *mut i32) -> () { _mm512_storeu_si512(to.cast(), _mm512_cvtps_epi32(a)) }
        blend16(a: __m512, b: __m512, taken: u16) -> __m512 { _mm512_mask_mov_ps(a, taken, b) }
        greater8w(a: __m512d, b: __m512d) -> u8 { _mm512_cmp_pd_mask::<_CMP_GT_OQ>(a, b) }
        less8w(a: __m512d, b: __m512d) -> u8 { _mm512_cmp_pd_mask::<_CMP_LT_OQ>(a, b) }
        nan8w(a: __m512d) -> u8 { _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(a, a) }
        pair8w(a: __m512d, b: __m512d) -> u8 { _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(a, b) }
        equal8w(a: __m512d, b: __m512d) -> u8 { _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(a, b) }
        whole8w(a: __m512d, to: *mut i32) -> () { _mm256_storeu_si256(to.cast(), _mm512_cvtpd_epi32(a)) }
        blend8w(a: __m512d, b: __m512d, taken: u8) -> __m512d { _mm512_mask_mov_pd(a, taken, b) }
        greater8(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_GT_OQ>(a, b) }
        less8(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        nan8(a: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a) }
        pair8(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b) }
        equal8(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
        whole8(a: __m256, to: *mut i32) -> () { _mm256_storeu_si256(to.cast(), _mm256_cvtps_epi32(a)) }
        greater4(a: __m256d, b: __m256d) -> __m256d { _mm256_cmp_pd::<_CMP_GT_OQ>(a, b) }
        less4(a: __m256d, b: __m256d) -> __m256d { _mm256_cmp_pd::<_CMP_LT_OQ>(a, b) }
        any8(a: __m256) -> bool { _mm256_movemask_ps(a) != 0 }
        any4(a: __m256d) -> bool { _mm256_movemask_pd(a) != 0 }
        load_or8(other: __m256, mask: __m256i, from: *const f32) -> __m256 {
            _mm256_blendv_ps(other, _mm256_maskload_ps(from, mask), _mm256_castsi256_ps(mask))
        }
        load_or4(other: __m256d, mask: __m256i, from: *const f64) -> __m256d {
            _mm256_blendv_pd(other, _mm256_maskload_pd(from, mask), _mm256_castsi256_pd(mask))
        }
        nan4(a: __m256d) -> __m256d { _mm256_cmp_pd::<_CMP_UNORD_Q>(a, a) }
        pair4(a: __m256d, b: __m256d) -> __m256d { _mm256_cmp_pd::<_CMP_UNORD_Q>(a, b) }
        equal4(a: __m256d, b: __m256d) -> __m256d { _mm256_cmp_pd::<_CMP_EQ_OQ>(a, b) }
        whole4(a: __m256d, to: *mut i32) -> () { _mm_storeu_si128(to.cast(), _mm256_cvtpd_epi32(a)) }
        // In two steps, because a power that is no normal number may still scale to one.
        scale8(a: __m256, n: __m256) -> __m256 {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let rest = _mm256_add_epi32(_mm256_sub_epi32(n, half), bias);
            _mm256_mul_ps(_mm256_mul_ps(a, low), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(rest)))
        }
        scale4(a: __m256d, n: __m256d) -> __m256d {
            let n = _mm256_cvtpd_epi32(n);
            let half = _mm_srai_epi32::<1>(n);
            let bias = _mm_set1_epi32(1023);
            let low = _mm256_cvtepi32_epi64(_mm_add_epi32(half, bias));
            let rest = _mm256_cvtepi32_epi64(_mm_add_epi32(_mm_sub_epi32(n, half), bias));
            let low = _mm256_castsi256_pd(_mm256_slli_epi64::<52>(low));
            _mm256_mul_pd(_mm256_mul_pd(a, low), _mm256_castsi256_pd(_mm256_slli_epi64::<52>(rest)))
        }
    }

    maths!(Avx512, f32, __m512, _mm512_div_ps _mm512_max_ps _mm512_min_ps _mm512_scalef_ps,
        greater16 less16 nan16 either16 blend16 any16, pair16 equal16 _mm512_add_ps whole16 _mm512_mask_loadu_ps);
    maths!(Avx512, f64, __m512d, _mm512_div_pd _mm512_max_pd _mm512_min_pd _mm512_scalef_pd,
        greater8w less8w nan8w either8w blend8w any8w, pair8w equal8w _mm512_add_pd whole8w _mm512_mask_loadu_pd);
    maths!(Avx2, f32, __m256, _mm256_div_ps _mm256_max_ps _mm256_min_ps scale8,
        greater8 less8 nan8 _mm256_or_ps _mm256_blendv_ps any8, pair8 equal8 _mm256_add_ps whole8 load_or8);
    maths!(Avx2, f64, __m256d, _mm256_div_pd _mm256_max_pd _mm256_min_pd scale4,
        greater4 less4 nan4 _mm256_or_pd _mm256_blendv_pd any4, pair4 equal4 _mm256_add_pd whole4 load_or4);
}
