//! The token every processor has: plain arrays, which compilers turn into the baseline's vectors.

use crate::isa::{Convert, Isa, Simd, Task};
use striate_core::{Accumulator, Scalar};

/// No instruction set beyond the baseline.
#[derive(Clone, Copy)]
pub struct Portable;

const LANES: usize = 4;

impl Isa for Portable {
    const NAME: &'static str = "portable";
    fn detect() -> Option<Self> {
        Some(Portable)
    }
    fn run<T: Task<Self>>(self, task: T) -> T::Out {
        task.call(self)
    }
}

impl<A: Accumulator> Simd<A> for Portable {
    type V = [A; LANES];
    type M = (usize, usize);
    type Half = Self;
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn half(self) -> Self {
        self
    }
    #[inline(always)]
    fn splat(self, value: A) -> [A; LANES] {
        [value; LANES]
    }
    // A fused multiply-add without hardware is a library call; two roundings keep the same error bound.
    #[inline(always)]
    fn mul_add(self, a: [A; LANES], b: [A; LANES], c: [A; LANES]) -> [A; LANES] {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }
    #[inline(always)]
    fn add(self, a: [A; LANES], b: [A; LANES]) -> [A; LANES] {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    fn evens(self, a: [A; LANES], b: [A; LANES]) -> [A; LANES] {
        [a[0], a[2], b[0], b[2]]
    }
    #[inline(always)]
    fn zip(self, a: [A; LANES], b: [A; LANES]) -> ([A; LANES], [A; LANES]) {
        ([a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]])
    }
    #[inline(always)]
    fn sum(self, v: [A; LANES]) -> A {
        (v[0] + v[1]) + (v[2] + v[3])
    }
    #[inline(always)]
    fn mask(self, from: usize, to: usize) -> (usize, usize) {
        (from, to.min(LANES))
    }
    #[inline(always)]
    unsafe fn load(self, from: *const A) -> [A; LANES] {
        // SAFETY: the caller vouches for the range; an array has the alignment of its element.
        unsafe { from.cast::<[A; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn load_masked(self, from: *const A, mask: (usize, usize)) -> [A; LANES] {
        let mut v = [A::default(); LANES];
        for (lane, slot) in v.iter_mut().enumerate().take(mask.1).skip(mask.0) {
            // SAFETY: the caller vouches for the chosen lanes.
            *slot = unsafe { from.add(lane).read() };
        }
        v
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut A, v: [A; LANES]) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[A; LANES]>().write(v) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut A, v: [A; LANES], mask: (usize, usize)) {
        for (lane, value) in v.into_iter().enumerate().take(mask.1).skip(mask.0) {
            // SAFETY: the caller vouches for the chosen lanes.
            unsafe { to.add(lane).write(value) }
        }
    }
}

impl<S: Scalar> Convert<S> for Portable {
    #[inline(always)]
    unsafe fn widen(self, from: *const S) -> [S::Acc; LANES] {
        // SAFETY: the caller vouches for the range.
        unsafe { from.cast::<[S; LANES]>().read() }.map(S::widen)
    }
    #[inline(always)]
    unsafe fn narrow(self, v: [S::Acc; LANES], to: *mut S) {
        // SAFETY: the caller vouches for the range.
        unsafe { to.cast::<[S; LANES]>().write(v.map(S::narrow)) }
    }
}
