//! What a token offers.

use striate_core::{Accumulator, Scalar};

/// A proof that the running processor has an instruction set.
pub trait Isa: Copy + Send + Sync + 'static {
    /// Its word in row names.
    const NAME: &'static str;
    /// Whether vectors are used under edges alone, as [`Simd::Half`] is: other loops are not compiled for them.
    const EDGES: bool = false;
    /// The token, if this processor has the features.
    fn detect() -> Option<Self>;
    /// Runs a task compiled with the features.
    fn run<T: Task<Self>>(self, task: T) -> T::Out;
    /// Asks for the cache line at an address, which need not be valid.
    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}
}

/// Work to be compiled for an instruction set. `call` must be `inline(always)` and so must all it calls, or the
/// features are lost.
pub trait Task<I> {
    /// What it returns.
    type Out;
    /// Does the work.
    fn call(self, isa: I) -> Self::Out;
}

/// Vectors of accumulators.
pub trait Simd<A: Accumulator>: Isa {
    /// A vector.
    type V: Copy;
    /// A choice of neighbouring lanes.
    type M: Copy;
    /// Vectors of half the width where the processor has them, else the same.
    type Half: Simd<A>;
    /// Numbers in a vector.
    const LANES: usize;
    /// Vector registers of the processor.
    const REGISTERS: usize;

    /// The token of [`Simd::Half`].
    fn half(self) -> Self::Half;
    /// The same value in all lanes.
    fn splat(self, value: A) -> Self::V;
    /// `a * b + c`.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// Every second lane of `a` followed by every second lane of `b`.
    fn evens(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lanes of `a` and `b` in turns, as two vectors.
    fn zip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The sum of all lanes, in a fixed order.
    fn sum(self, v: Self::V) -> A;
    /// The lanes `from..to`; `to` may exceed a vector.
    fn mask(self, from: usize, to: usize) -> Self::M;

    /// Reads a vector.
    ///
    /// # Safety
    /// `from` must be readable for `LANES` numbers.
    unsafe fn load(self, from: *const A) -> Self::V;
    /// Reads the chosen lanes, zero elsewhere.
    ///
    /// # Safety
    /// `from` must be readable for the chosen lanes.
    unsafe fn load_masked(self, from: *const A, mask: Self::M) -> Self::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` numbers.
    unsafe fn store(self, to: *mut A, v: Self::V);
    /// Writes the chosen lanes.
    ///
    /// # Safety
    /// `to` must be writable for the chosen lanes.
    unsafe fn store_masked(self, to: *mut A, v: Self::V, mask: Self::M);
}

/// Between stored numbers and vectors of their accumulators.
pub trait Convert<S: Scalar>: Simd<S::Acc> {
    /// Reads `LANES` stored numbers.
    ///
    /// # Safety
    /// `from` must be readable for `LANES` numbers.
    unsafe fn widen(self, from: *const S) -> Self::V;
    /// Writes `LANES` numbers, rounded to nearest even.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` numbers.
    unsafe fn narrow(self, v: Self::V, to: *mut S);
}

/// A token that converts every storage type.
pub trait Every: Convert<f32> + Convert<f64> + Convert<striate_core::Bf16> + Convert<striate_core::F16> {}

impl<I> Every for I where I: Convert<f32> + Convert<f64> + Convert<striate_core::Bf16> + Convert<striate_core::F16> {}
