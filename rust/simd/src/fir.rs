//! Short and long filters over a line of accumulators, and the sigmoid that often follows them.
//!
//! Every number of the result is one chain of fused multiply-adds from the oldest tap to the newest, cut into pieces
//! of a fixed length, whatever its place in a vector: the same window gives the same bits, alone or in a sequence,
//! along positions or along channels.
#![allow(clippy::needless_range_loop)] // Closures would not be compiled for the instruction set.

use crate::isa::{Simd, Task};
use crate::maths::{Maths, exp};
use striate_core::Accumulator;

/// Taps that are summed before their sum is added to the total: long chains of roundings lose more.
const PIECE: usize = 64;

/// Filters over `cols` columns of a source whose rows are positions (`pitch` apart), each column with its own taps, or
/// over one row whose columns are positions.
#[derive(Clone, Copy, Debug)]
pub struct Fir {
    /// Positions of the result.
    pub outs: usize,
    /// Taps.
    pub taps: usize,
    /// Columns, a multiple of the vector, or 0 where positions are neighbours.
    pub cols: usize,
    /// Whether the sigmoid follows.
    pub silu: bool,
}

/// Filters `src` into `dst`. With columns, `src` is `[outs + taps - 1, cols]`, `weights` `[taps, cols]`, `bias` `[cols]`
/// and `dst` `[outs, cols]`. Without, `src` is `[outs + taps - 1]` and `dst` `[outs]`, both with room for a vector more,
/// `weights` `[taps]` and `bias` one number.
pub fn fir<A: Accumulator, I: Maths<A>>(isa: I, fir: &Fir, (src, weights, bias): (&[A], &[A], &[A]), dst: &mut [A]) {
    if fir.outs == 0 {
        return;
    }
    let Fir { outs, taps, cols, .. } = *fir;
    let (vectors, unit) = if cols == 0 { (outs.div_ceil(I::LANES), 1) } else { (outs, cols) };
    let made = if cols == 0 { vectors * I::LANES } else { outs * cols };
    assert!(taps > 0 && cols.is_multiple_of(I::LANES));
    assert!(made + (taps - 1) * unit <= src.len() && taps * unit <= weights.len(), "{fir:?} leaves its source");
    assert!(made <= dst.len() && unit <= bias.len(), "{fir:?} leaves its destination");
    let base = Filter { fir, src: src.as_ptr(), weights: weights.as_ptr(), bias: bias.as_ptr(), dst: dst.as_mut_ptr() };
    isa.run(Filtering { base, vectors });
}

#[derive(Clone, Copy)]
struct Filter<'a, A> {
    fir: &'a Fir,
    src: *const A,
    weights: *const A,
    bias: *const A,
    dst: *mut A,
}

struct Filtering<'a, A> {
    base: Filter<'a, A>,
    vectors: usize,
}

impl<A: Accumulator, I: Maths<A>> Task<I> for Filtering<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let columns = if self.base.fir.cols == 0 { 1 } else { self.base.fir.cols / I::LANES };
        for column in 0..columns {
            let mut v = 0;
            while v + 8 <= self.vectors {
                self.base.block::<I, 8>(isa, v, column * I::LANES);
                v += 8;
            }
            while v < self.vectors {
                self.base.block::<I, 1>(isa, v, column * I::LANES);
                v += 1;
            }
        }
    }
}

impl<A: Accumulator> Filter<'_, A> {
    #[inline(always)]
    unsafe fn weight<I: Simd<A>>(&self, isa: I, at: *const A) -> I::V {
        // SAFETY: the caller vouches for a number, and for a vector where there are columns.
        unsafe { if self.fir.cols == 0 { isa.splat(*at) } else { isa.load(at) } }
    }

    /// `N` vectors of the result, from vector `v` on, in the columns from `column` on.
    #[inline(always)]
    fn block<I: Maths<A>, const N: usize>(&self, isa: I, v: usize, column: usize) {
        let Fir { taps, cols, silu, .. } = *self.fir;
        let (step, tap) = if cols == 0 { (I::LANES, 1) } else { (cols, cols) };
        // SAFETY: `fir` asserted that the result's vectors, and those that lie up to all taps further on in the source,
        // are inside, as are all weights.
        unsafe {
            let src = self.src.add(v * step + column);
            let mut sums = [self.weight(isa, self.bias.add(column)); N];
            let mut t = 0;
            while t < taps {
                let end = if t + PIECE < taps { t + PIECE } else { taps };
                let mut piece = if t == 0 { sums } else { [isa.splat(A::default()); N] };
                for k in t..end {
                    let weight = self.weight(isa, self.weights.add(k * tap + column));
                    for n in 0..N {
                        piece[n] = isa.mul_add(weight, isa.load(src.add(k * tap + n * step)), piece[n]);
                    }
                }
                for n in 0..N {
                    sums[n] = if t == 0 { piece[n] } else { isa.add(sums[n], piece[n]) };
                }
                t = end;
            }
            for n in 0..N {
                let made = if silu { self::silu(isa, sums[n]) } else { sums[n] };
                isa.store(self.dst.add((v + n) * step + column), made);
            }
        }
    }
}

/// `z / (1 + exp(-z))`.
#[inline(always)]
fn silu<A: Accumulator, I: Maths<A>>(isa: I, z: I::V) -> I::V {
    let zero = isa.splat(A::default());
    let less = isa.mul_add(z, isa.splat(A::from_f64(-1.0)), zero);
    isa.div(z, isa.add(isa.splat(A::from_f64(1.0)), exp(isa, less)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::portable::Portable;

    #[test]
    fn the_sigmoid_is_as_good_as_its_type() {
        let isa = Portable::detect().unwrap();
        for i in -120_000..=120_000 {
            let z = f64::from(i) / 1000.0;
            let exact = z / (1.0 + (-z).exp());
            let wide = silu::<f64, _>(isa, [z; 4])[0];
            assert!((wide - exact).abs() <= 4.0 * f64::EPSILON * exact.abs(), "{z}: {wide} for {exact}");
            let z = z as f32;
            let exact = f64::from(z) / (1.0 + (-f64::from(z)).exp());
            let narrow = f64::from(silu::<f32, _>(isa, [z; 4])[0]);
            // Where exp(-z) exceeds the largest number, the result is 0.
            let bound = 2.5 * f64::from(f32::EPSILON) * exact.abs() + 90.0 / f64::from(f32::MAX);
            assert!((narrow - exact).abs() <= bound, "{z}: {narrow} for {exact}");
        }
        for z in [f64::NAN, f64::INFINITY, 0.0, -1e300] {
            let exact = z / (1.0 + (-z).exp());
            let wide = silu::<f64, _>(isa, [z; 4])[0];
            assert!(wide == exact || wide.is_nan() && exact.is_nan(), "{z}: {wide} for {exact}");
        }
    }
}
