//! Lines of numbers of which not all are lanes as they lie.

use crate::isa::Simd;
use std::mem::MaybeUninit;
use std::ops::Range;
use striate_core::Accumulator;

/// How numbers become lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Neighbours are neighbours.
    None,
    /// Every second one is a lane, for a stride of two.
    Evens,
    /// They go to every second lane from the first on, and taps reach no others: for the gradient of a stride of two.
    Early,
    /// The same from the second lane on.
    Late,
}

/// Numbers in the lanes that they go to, with zeros between them.
#[inline(always)]
pub fn spread<A: Accumulator, I: Simd<A>>(isa: I, turn: Turn, numbers: I::V) -> I::V {
    match turn {
        Turn::None | Turn::Evens => numbers,
        Turn::Early => isa.zip(numbers, isa.splat(A::default())).0,
        Turn::Late => isa.zip(isa.splat(A::default()), numbers).0,
    }
}

/// Lines whose numbers became lanes.
pub struct Lines<V, const N: usize>([MaybeUninit<V>; N]);

impl<V, const N: usize> Lines<V, N> {
    /// Memory for the lines of a tile.
    #[inline(always)]
    pub const fn new() -> Self {
        Lines([const { MaybeUninit::uninit() }; N])
    }

    /// Reads the lines that have a bit, `pitch` apart; of each the chosen numbers, the others count as zeros. Returns
    /// where the first is, a vector each.
    ///
    /// # Safety
    /// The chosen numbers of these lines must be readable. The lines that have no bit must not be read from the result.
    #[inline(always)]
    pub unsafe fn fill<A: Accumulator, I: Simd<A, V = V>>(
        &mut self,
        isa: I,
        turn: Turn,
        (from, pitch): (*const A, usize),
        numbers: &Range<usize>,
        mut lines: u32,
    ) -> *const A {
        let past = |end: usize| end.saturating_sub(I::LANES);
        let (near, far) = (isa.mask(numbers.start, numbers.end), isa.mask(past(numbers.start), past(numbers.end)));
        while lines != 0 {
            let line = lines.trailing_zeros() as usize;
            lines &= lines - 1;
            let from = from.wrapping_add(line * pitch);
            // SAFETY: the caller's promise.
            let near = unsafe { isa.load_masked(from, near) };
            let lanes = match turn {
                // SAFETY: the caller's promise.
                Turn::Evens => isa.evens(near, unsafe { isa.load_masked(from.wrapping_add(I::LANES), far) }),
                _ => spread(isa, turn, near),
            };
            self.0[line].write(lanes);
        }
        self.0.as_ptr().cast()
    }
}
