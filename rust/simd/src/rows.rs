//! Copies of row blocks between tensors and scratch memory, converting to and from the accumulator on the way.

use crate::isa::{Convert, Simd, Task};
use std::marker::PhantomData;
use striate_core::Scalar;

/// Two blocks of `rows` by `cols` numbers: element `(r, c)` is at `r * pitch + c * step` of either.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance of rows where numbers come from.
    pub from_pitch: usize,
    /// Distance of columns where numbers come from.
    pub from_step: usize,
    /// Distance of rows where numbers go.
    pub to_pitch: usize,
    /// Distance of columns where numbers go.
    pub to_step: usize,
}

impl Block {
    fn check(&self, from: usize, to: usize) {
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        let reach = |pitch: usize, step: usize| (self.rows - 1) * pitch + (self.cols - 1) * step + 1;
        assert!(reach(self.from_pitch, self.from_step) <= from, "{self:?} leaves its source of {from}");
        assert!(reach(self.to_pitch, self.to_step) <= to, "{self:?} leaves its destination of {to}");
    }
}

/// Copies stored numbers to accumulators.
pub fn widen<S: Scalar, I: Convert<S>>(isa: I, block: &Block, from: &[S], to: &mut [S::Acc]) {
    block.check(from.len(), to.len());
    isa.run(Copy::<S, S::Acc, I, true> { block, from: from.as_ptr(), to: to.as_mut_ptr(), isa: PhantomData });
}

/// Copies accumulators to stored numbers, rounded to nearest even.
pub fn narrow<S: Scalar, I: Convert<S>>(isa: I, block: &Block, from: &[S::Acc], to: &mut [S]) {
    block.check(from.len(), to.len());
    isa.run(Copy::<S::Acc, S, I, false> { block, from: from.as_ptr(), to: to.as_mut_ptr(), isa: PhantomData });
}

struct Copy<'a, F, T, I, const WIDEN: bool> {
    block: &'a Block,
    from: *const F,
    to: *mut T,
    isa: PhantomData<I>,
}

impl<S: Scalar, I: Convert<S>> Task<I> for Copy<'_, S, S::Acc, I, true> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { rows, cols, from_pitch, from_step, to_pitch, to_step } = *self.block;
        let lanes = <I as Simd<S::Acc>>::LANES;
        for r in 0..rows {
            let (from, to) = (self.from.wrapping_add(r * from_pitch), self.to.wrapping_add(r * to_pitch));
            // SAFETY: `check` asserted that every element of the block is inside both slices.
            unsafe {
                let mut c = 0;
                if from_step == 1 && to_step == 1 {
                    while c + lanes <= cols {
                        isa.store(to.add(c), isa.widen(from.add(c)));
                        c += lanes;
                    }
                    if c < cols && cols >= lanes {
                        // The last vector overlaps the one before it.
                        c = cols - lanes;
                        isa.store(to.add(c), isa.widen(from.add(c)));
                        c = cols;
                    }
                }
                while c < cols {
                    *to.add(c * to_step) = (*from.add(c * from_step)).widen();
                    c += 1;
                }
            }
        }
    }
}

impl<S: Scalar, I: Convert<S>> Task<I> for Copy<'_, S::Acc, S, I, false> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { rows, cols, from_pitch, from_step, to_pitch, to_step } = *self.block;
        let lanes = <I as Simd<S::Acc>>::LANES;
        for r in 0..rows {
            let (from, to) = (self.from.wrapping_add(r * from_pitch), self.to.wrapping_add(r * to_pitch));
            // SAFETY: `check` asserted that every element of the block is inside both slices.
            unsafe {
                let mut c = 0;
                if from_step == 1 && to_step == 1 {
                    while c + lanes <= cols {
                        isa.narrow(isa.load(from.add(c)), to.add(c));
                        c += lanes;
                    }
                    if c < cols && cols >= lanes {
                        c = cols - lanes;
                        isa.narrow(isa.load(from.add(c)), to.add(c));
                        c = cols;
                    }
                }
                while c < cols {
                    *to.add(c * to_step) = S::narrow(*from.add(c * from_step));
                    c += 1;
                }
            }
        }
    }
}

/// Rows of neighbouring numbers dealt out to boxes a vector at a time: number `c` of row `r` goes to lane
/// `c % LANES` of row `r` in box `c / LANES`. Each row is read once from end to end, which processors fetch ahead.
#[derive(Clone, Copy, Debug)]
pub struct Deal {
    /// Rows.
    pub rows: usize,
    /// Numbers in a row.
    pub cols: usize,
    /// Distance of rows where numbers come from.
    pub from_pitch: usize,
    /// Distance of boxes; rows in a box are a vector apart.
    pub to_box: usize,
}

/// Deals stored numbers out to boxes.
pub fn deal<S: Scalar, I: Convert<S>>(isa: I, deal: &Deal, from: &[S], to: &mut [S::Acc]) {
    if deal.rows == 0 || deal.cols == 0 {
        return;
    }
    let lanes = <I as Simd<S::Acc>>::LANES;
    assert!(
        (deal.rows - 1) * deal.from_pitch + deal.cols <= from.len(),
        "{deal:?} leaves its source of {}",
        from.len()
    );
    let boxes = deal.cols.div_ceil(lanes);
    assert!((boxes - 1) * deal.to_box + deal.rows * lanes <= to.len(), "{deal:?} leaves its boxes of {}", to.len());
    isa.run(Dealing(deal, from.as_ptr(), to.as_mut_ptr()));
}

struct Dealing<'a, S, A>(&'a Deal, *const S, *mut A);

impl<S: Scalar, I: Convert<S>> Task<I> for Dealing<'_, S, S::Acc> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let lanes = <I as Simd<S::Acc>>::LANES;
        let Deal { rows, cols, from_pitch, to_box } = *self.0;
        let whole = cols / lanes;
        for r in 0..rows {
            // SAFETY: `deal` asserted that all rows and boxes are inside their slices.
            unsafe {
                let (from, to) = (self.1.add(r * from_pitch), self.2.add(r * lanes));
                for b in 0..whole {
                    isa.store(to.add(b * to_box), isa.widen(from.add(b * lanes)));
                }
                for c in whole * lanes..cols {
                    *to.add(whole * to_box + c - whole * lanes) = (*from.add(c)).widen();
                }
            }
        }
    }
}

/// Sums every `LANES` numbers of `vectors` into one of `sums`, adding to what is there.
pub fn reduce<A: striate_core::Accumulator, I: Simd<A>>(isa: I, vectors: &[A], sums: &mut [A]) {
    assert!(sums.len() * I::LANES <= vectors.len());
    isa.run(Reduce { vectors, sums });
}

struct Reduce<'a, A> {
    vectors: &'a [A],
    sums: &'a mut [A],
}

impl<A: striate_core::Accumulator, I: Simd<A>> Task<I> for Reduce<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        for (sum, vector) in self.sums.iter_mut().zip(self.vectors.chunks_exact(I::LANES)) {
            // SAFETY: the chunk is exactly one vector.
            *sum += isa.sum(unsafe { isa.load(vector.as_ptr()) });
        }
    }
}

/// Asks for the cache lines of numbers that will be needed soon.
pub fn prefetch<S: Scalar, I: crate::Isa>(isa: I, numbers: &[S]) {
    for line in numbers.chunks(64 / size_of::<S>()) {
        isa.prefetch(line.as_ptr());
    }
}
