//! Lines whose numbers are not lanes as they lie, for a stride of two along the lanes.

use crate::isa::Simd;
use std::mem::MaybeUninit;
use std::ops::Range;
use striate_core::Accumulator;

/// How the numbers of a line become lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Neighbours are neighbours.
    #[default]
    None,
    /// Numbers 0, 2, 4, ... are neighbours, and so are 1, 3, 5, ...
    Evens,
    /// Zeros stand between neighbours, as the gradient of a stride of two needs them.
    Spread,
}

/// Vectors of a turned line.
const VECTORS: usize = 4;

impl Turn {
    /// Distance of turned lines.
    pub const fn pitch(lanes: usize) -> usize {
        VECTORS * lanes
    }

    /// Numbers that go into a turned line.
    pub const fn numbers(self, lanes: usize) -> usize {
        if matches!(self, Turn::Spread) { VECTORS / 2 * lanes } else { VECTORS * lanes }
    }

    /// Where the lanes begin that start with number `first` of a line, or for `Spread` with half of it.
    pub const fn position(self, first: usize, lanes: usize) -> usize {
        if matches!(self, Turn::Evens) { first % 2 * (VECTORS / 2 * lanes) + first / 2 } else { first }
    }
}

/// A weight for lanes from `position` of a spread line on: only those that do not meet the zeros have it.
#[inline(always)]
pub fn spread<A: Accumulator, I: Simd<A>>(isa: I, position: usize, weight: I::V) -> I::V {
    let zero = isa.splat(A::default());
    if position.is_multiple_of(2) { isa.zip(weight, zero).0 } else { isa.zip(zero, weight).0 }
}

/// Memory for the turned lines of a tile: at most 22.
pub struct Lines<V>([MaybeUninit<[V; VECTORS]>; 22]);

impl<V: Copy> Lines<V> {
    /// Lines that are not filled yet.
    #[inline(always)]
    pub fn empty() -> Self {
        Lines([const { MaybeUninit::uninit() }; 22])
    }

    /// Turns the lines that have a bit, which lie `pitch` apart; of each the chosen numbers, the others count as zeros.
    /// Returns where the first is, [`Turn::pitch`] apart.
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
        // Plain loops: a closure would be compiled without the features of the token.
        let odds = if turn == Turn::Evens { 2 } else { 1 };
        let mut masks = [[isa.mask(0, 0); VECTORS]; 2];
        for (odd, masks) in masks.iter_mut().enumerate().take(odds) {
            for (vector, mask) in masks.iter_mut().enumerate() {
                let first = vector * I::LANES + odd;
                *mask = isa.mask(numbers.start.saturating_sub(first), numbers.end.saturating_sub(first));
            }
        }
        let zero = isa.splat(A::default());
        while lines != 0 {
            let line = lines.trailing_zeros() as usize;
            lines &= lines - 1;
            let from = from.wrapping_add(line * pitch);
            let mut turned = [zero; VECTORS];
            for (vector, slot) in turned.iter_mut().enumerate() {
                // SAFETY: the masks choose nothing but what the caller vouches for.
                *slot = unsafe {
                    if turn == Turn::Evens {
                        let (odd, near) = (vector / 2, vector % 2 * 2);
                        let at = from.wrapping_add(near * I::LANES + odd);
                        let far = isa.load_masked(at.wrapping_add(I::LANES), masks[odd][near + 1]);
                        isa.evens(isa.load_masked(at, masks[odd][near]), far)
                    } else {
                        let half = vector / 2;
                        let pair = isa.zip(isa.load_masked(from.wrapping_add(half * I::LANES), masks[0][half]), zero);
                        if vector % 2 == 0 { pair.0 } else { pair.1 }
                    }
                };
            }
            self.0[line].write(turned);
        }
        self.0.as_ptr().cast()
    }
}
