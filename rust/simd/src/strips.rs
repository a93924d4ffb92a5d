//! Windows along one row: the loop that joins neighbouring columns, and looks for NaN on the way.

#![allow(clippy::needless_range_loop)] // Closures would not be compiled for the instruction set.

use crate::maths::Maths;
use crate::windows::{Kind, Sink, Tap};
use std::ops::Range;
use striate_core::Accumulator;

/// Windows of neighbouring columns, and the first number of the row or line that holds them.
pub(crate) struct Strip<'a, A, P> {
    pub taps: &'a [Tap<A>],
    /// Whether NaN is to be looked for in what every tap reads, and not in the first and the last alone.
    pub every: bool,
    pub from: *const A,
    pub to: P,
}

impl<A: Accumulator, P> Strip<'_, A, P> {
    /// Joins them, and if `WATCH` returns whether a NaN was read. Where some are given, only those numbers are real.
    ///
    /// # Safety
    /// What the taps of these columns read must be readable, rounded up to a vector where there are fewer columns than
    /// in one; and there must be room for what is written.
    #[inline(always)]
    pub unsafe fn run<I: Maths<A>, J: Kind<A, I>, const WATCH: bool>(
        &self,
        isa: I,
        cols: Range<usize>,
        real: Option<&Range<usize>>,
    ) -> bool
    where
        P: Sink<A, I, J>,
    {
        let lanes = I::LANES;
        let (mut found, mut c) = (false, cols.start);
        // SAFETY: the caller's promise; the last vector begins earlier where it can.
        unsafe {
            if let Some(real) = real {
                while c < cols.end {
                    found |= self.block::<I, J, 1, WATCH, true>(isa, (c, cols.end - c), real);
                    c += lanes;
                }
                return found;
            }
            while c + 4 * lanes <= cols.end {
                found |= self.block::<I, J, 4, WATCH, false>(isa, (c, usize::MAX), &cols);
                c += 4 * lanes;
            }
            while c < cols.end {
                c = if cols.len() < lanes { c } else { c.min(cols.end - lanes) };
                found |= self.block::<I, J, 1, WATCH, false>(isa, (c, cols.end - c), &cols);
                c += lanes;
            }
        }
        found
    }

    /// A vector from a place on; if `CLIP`, with nothing where numbers are not real.
    ///
    /// # Safety
    /// What is real of it must be readable.
    #[inline(always)]
    unsafe fn vector<I: Maths<A>, J: Kind<A, I>, const CLIP: bool>(
        &self,
        isa: I,
        place: usize,
        real: &Range<usize>,
    ) -> I::V {
        let from = self.from.wrapping_add(place);
        if CLIP {
            let mask = isa.mask(real.start.saturating_sub(place), real.end.saturating_sub(place));
            // SAFETY: passed on unchanged.
            return unsafe { isa.load_or(from, mask, isa.splat(J::nothing())) };
        }
        // SAFETY: passed on unchanged.
        unsafe { isa.load(from) }
    }

    /// Joins some vectors from a column on, of which so many numbers count.
    ///
    /// # Safety
    /// As for `run`.
    #[inline(always)]
    unsafe fn block<I: Maths<A>, J: Kind<A, I>, const N: usize, const WATCH: bool, const CLIP: bool>(
        &self,
        isa: I,
        (c, count): (usize, usize),
        real: &Range<usize>,
    ) -> bool
    where
        P: Sink<A, I, J>,
    {
        let ((first, shift), lanes) = (self.taps[0], I::LANES);
        let (mut found, last) = (false, self.taps.len() - 1);
        // SAFETY: the caller's promise.
        unsafe {
            let mut heads = [self.vector::<I, J, CLIP>(isa, c + first, real); N];
            let mut cells = [J::fresh(isa, heads[0], shift); N];
            for n in 1..N {
                heads[n] = self.vector::<I, J, CLIP>(isa, c + first + n * lanes, real);
                cells[n] = J::fresh(isa, heads[n], shift);
            }
            for t in 1..=last {
                let (offset, shift) = self.taps[t];
                for n in 0..N {
                    let new = self.vector::<I, J, CLIP>(isa, c + offset + n * lanes, real);
                    if WATCH && (self.every || t == last) {
                        found |= isa.unordered(heads[n], new);
                    }
                    cells[n] = J::join(isa, cells[n], J::fresh(isa, new, shift));
                }
            }
            for n in 0..N {
                if WATCH && last == 0 {
                    found |= isa.unordered(heads[n], heads[n]);
                }
                let c = c + n * lanes;
                self.to.put(isa, cells[n], [c, c], count.saturating_sub(n * lanes));
            }
        }
        found
    }
}
