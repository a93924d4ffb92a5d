//! Products of long real polynomials modulo `z^(2m) + 1`, by way of their values at roots of unity.
//!
//! The two halves of a real polynomial are the real and the imaginary parts of a complex one modulo `z^m - i`, which
//! is the same ring: no symmetry of spectra has to be taken apart, and a real transform costs half a complex one.
//! Modulo `z^(2s) - c` a polynomial `a + z^s b` is, modulo `z^s - w` and `z^s + w` with `w * w = c`, `a + w b` and
//! `a - w b`. Halving all the way down in place leaves the values in a scrambled order, which is every spectrum's order
//! and which the way back undoes: nothing is ever reordered.
//!
//! One root serves a whole block, so as long as blocks are whole vectors it is broadcast. The levels inside a vector
//! are done on a transposed square of `LANES` vectors, where a lane is a block. Blocks are finished one after the other,
//! largest part first, so that all but the top levels work on what is in cache, whatever the length.

use crate::butterfly::{Place, Square, conjugate_product, halve, merge, split};
use crate::isa::{Simd, Task};
use crate::roots::Roots;
use crate::wave::Wave;
use std::ops::Range;
use std::sync::Arc;
use striate_core::Accumulator;

/// Complex numbers that are finished level by level before the next are begun: 16 KiB of them in f32.
const LEAF: usize = 2048;

/// A transform of `2 * length` real numbers as `length` complex ones.
pub struct Ring<A> {
    pub(crate) length: usize,
    /// Levels that are done one block at a time before a leaf: one alone first, if need be, then pairs.
    pub(crate) above: u32,
    /// Levels of whole vectors inside a leaf, an even number.
    pub(crate) leaf: u32,
    pub(crate) roots: Arc<Roots<A>>,
}

/// Real and imaginary parts of complex numbers.
pub struct Halves<'a, A> {
    /// Real parts: the first half of a real polynomial.
    pub re: &'a mut [A],
    /// Imaginary parts: its second half.
    pub im: &'a mut [A],
}

impl<'a, A> Halves<'a, A> {
    /// Two halves of a slice.
    pub fn of(both: &'a mut [A]) -> Halves<'a, A> {
        let (re, im) = both.split_at_mut(both.len() / 2);
        Halves { re, im }
    }
}

/// The shortest transform an instruction set has.
pub fn shortest<A: Accumulator, I: Simd<A>>() -> usize {
    let inside = I::LANES.trailing_zeros();
    I::LANES << inside.next_multiple_of(2)
}

impl<A: Accumulator> Ring<A> {
    /// A transform of `length` complex numbers, a power of two and at least [`shortest`].
    pub fn new<I: Simd<A>>(_isa: I, length: usize) -> Ring<A> {
        assert!(length.is_power_of_two() && length >= shortest::<A, I>(), "no transform of {length}");
        let whole = length.trailing_zeros() - I::LANES.trailing_zeros();
        let smallest = I::LANES.trailing_zeros().next_multiple_of(2);
        let mut leaf = smallest;
        while leaf + 2 <= whole && (I::LANES << (leaf + 2)) <= LEAF {
            leaf += 2;
        }
        Ring { length, above: whole - leaf, leaf, roots: crate::roots::roots::<A, I>(length) }
    }

    /// From coefficients to values.
    pub fn forward<I: Wave<A>>(&self, isa: I, numbers: Halves<'_, A>) {
        self.walk::<I, true, false>(isa, numbers, &[]);
    }

    /// From values to coefficients, times `length`.
    pub fn inverse<I: Wave<A>>(&self, isa: I, numbers: Halves<'_, A>) {
        self.walk::<I, false, true>(isa, numbers, &[]);
    }

    /// Coefficients times the polynomial that has the values `by`, times `length`.
    pub fn multiply<I: Wave<A>>(&self, isa: I, numbers: Halves<'_, A>, by: &[A]) {
        assert!(by.len() == 2 * self.length, "{} numbers for {} values", by.len(), self.length);
        self.walk::<I, true, true>(isa, numbers, by);
    }

    fn walk<I: Wave<A>, const THERE: bool, const BACK: bool>(&self, isa: I, numbers: Halves<'_, A>, by: &[A]) {
        let (at, by) = self.places::<THERE, BACK>(numbers, by);
        isa.run(Walk::<A, THERE, BACK> { ring: self, at, by, top: 0, leaves: 0..self.leaves::<I>() });
    }

    /// Where numbers and values lie, their lengths checked.
    pub(crate) fn places<const THERE: bool, const BACK: bool>(
        &self,
        numbers: Halves<'_, A>,
        by: &[A],
    ) -> (Place<A>, Place<A>) {
        assert!(numbers.re.len() == self.length && numbers.im.len() == self.length, "numbers of another length");
        assert!(!(THERE && BACK) || by.len() == 2 * self.length, "values of another length");
        let at = Place { re: numbers.re.as_mut_ptr(), im: numbers.im.as_mut_ptr() };
        // Only read, and only on a way there and back.
        (at, Place { re: by.as_ptr().cast_mut(), im: by.as_ptr().cast_mut().wrapping_add(self.length) })
    }

    /// Blocks that are finished one after the other.
    pub(crate) fn leaves<I: Simd<A>>(&self) -> usize {
        self.length / (I::LANES << self.leaf)
    }
}

/// Some leaves of a transform, whose numbers and values must be valid for the ring's length and which nobody else
/// touches; the levels from `top` on are due, those before are done elsewhere.
pub(crate) struct Walk<'a, A, const THERE: bool, const BACK: bool> {
    pub ring: &'a Ring<A>,
    pub at: Place<A>,
    pub by: Place<A>,
    pub top: u32,
    pub leaves: Range<usize>,
}

impl<A: Accumulator, I: Wave<A>, const THERE: bool, const BACK: bool> Task<I> for Walk<'_, A, THERE, BACK> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Ring { length, above, leaf, roots } = self.ring;
        let (length, above, leaf, lanes) = (*length, *above, *leaf, I::LANES);
        let size = lanes << leaf;
        let square = lanes * lanes;
        for index in self.leaves {
            // SAFETY: blocks of a level tile the numbers, squares tile a leaf, and tables cover all of both.
            unsafe {
                if THERE {
                    levels_above::<A, I, true>(isa, self.ring, self.at, (index, self.top));
                    let mut level = above;
                    while level < above + leaf {
                        let blocks = 1 << (level - above);
                        for block in index * blocks..(index + 1) * blocks {
                            pair::<A, I, true>(
                                isa,
                                roots,
                                (level, block),
                                self.at,
                                Columns::all(length >> (level + 2)),
                            );
                        }
                        level += 2;
                    }
                }
                for tile in index * (size / square)..(index + 1) * (size / square) {
                    let (at, by) = (self.at.skip(tile * square), self.by.skip(tile * square));
                    Square { roots, tile, at, by }.inside::<I, THERE, BACK>(isa);
                }
                if BACK {
                    let mut level = above + leaf;
                    while level > above {
                        level -= 2;
                        let blocks = 1 << (level - above);
                        for block in index * blocks..(index + 1) * blocks {
                            pair::<A, I, false>(
                                isa,
                                roots,
                                (level, block),
                                self.at,
                                Columns::all(length >> (level + 2)),
                            );
                        }
                    }
                    levels_above::<A, I, false>(isa, self.ring, self.at, (index, self.top));
                }
            }
        }
    }
}

/// The levels above leaf `leaf`, from `top` on, that are due: on the way there those whose block begins with it, on the way back
/// those whose block ends with it.
///
/// # Safety
/// `at` must be readable and writable for the ring's length.
#[inline(always)]
unsafe fn levels_above<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    ring: &Ring<A>,
    at: Place<A>,
    (leaf, top): (usize, u32),
) {
    let odd = ring.above % 2;
    let due = |level: u32| {
        let leaves = 1usize << (ring.above - level);
        level >= top && (if THERE { leaf } else { leaf + 1 }).is_multiple_of(leaves)
    };
    let quarters = |level: u32| Columns::all(ring.length >> (level + 2));
    let place = |level: u32| (level, leaf >> (ring.above - level));
    // SAFETY: the caller vouches for all blocks.
    unsafe {
        if THERE {
            if odd == 1 && due(0) {
                single::<A, I, true>(isa, ring, at, Columns::all(ring.length / 2));
            }
            let mut level = odd;
            while level < ring.above {
                if due(level) {
                    pair::<A, I, true>(isa, &ring.roots, place(level), at, quarters(level));
                }
                level += 2;
            }
        } else {
            let mut level = ring.above;
            while level > odd {
                level -= 2;
                if due(level) {
                    pair::<A, I, false>(isa, &ring.roots, place(level), at, quarters(level));
                }
            }
            if odd == 1 && due(0) {
                single::<A, I, false>(isa, ring, at, Columns::all(ring.length / 2));
            }
        }
    }
}

/// Which columns of a half or quarter of a block are done.
#[derive(Clone)]
pub(crate) struct Columns {
    /// Numbers in a half or quarter.
    pub each: usize,
    /// Those that are done, whole vectors.
    pub some: Range<usize>,
}

impl Columns {
    fn all(each: usize) -> Columns {
        Columns { each, some: 0..each }
    }
}

/// The first level alone.
///
/// # Safety
/// `at` must be readable and writable in these columns of the ring's length, which is at least two vectors.
#[inline(always)]
pub(crate) unsafe fn single<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    ring: &Ring<A>,
    at: Place<A>,
    columns: Columns,
) {
    let [re, im] = ring.roots.rows[1];
    let w = [isa.splat(re), isa.splat(im)];
    for j in columns.some.step_by(I::LANES) {
        // SAFETY: both are a vector inside one half.
        unsafe {
            let (a, b) = (at.skip(j), at.skip(columns.each + j));
            let (x, y) = halve::<A, I, THERE>(isa, [a.load(isa), b.load(isa)], w);
            a.store(isa, x);
            b.store(isa, y);
        }
    }
}

/// Two levels of some columns of one block, which has at least four vectors.
///
/// # Safety
/// The columns must lie inside the block and that inside `at`, readable and writable.
#[inline(always)]
pub(crate) unsafe fn pair<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    roots: &Roots<A>,
    (level, block): (u32, usize),
    at: Place<A>,
    columns: Columns,
) {
    let [w, v] = [roots.rows[(1 << level) + block], roots.rows[(2 << level) + 2 * block]];
    let [w, v] = [[isa.splat(w[0]), isa.splat(w[1])], [isa.splat(v[0]), isa.splat(v[1])]];
    let (at, quarter) = (at.skip(4 * block * columns.each), columns.each);
    for j in columns.some.step_by(I::LANES) {
        // SAFETY: each is a vector inside its quarter of the block.
        unsafe {
            let four = at.skip(j).load_four(isa, quarter);
            let four = if THERE { split(isa, four, w, v) } else { merge(isa, four, w, v) };
            at.skip(j).store_four(isa, quarter, four);
        }
    }
}

/// Adds the products of conjugated values with others: `sum += conj(x) * y`, each `length` real parts followed by as
/// many imaginary parts.
pub fn accumulate<A: Accumulator, I: Wave<A>>(isa: I, sum: &mut [A], x: &[A], y: &[A]) {
    assert!(
        sum.len() == x.len() && sum.len() == y.len() && sum.len().is_multiple_of(2 * I::LANES),
        "values of other lengths"
    );
    isa.run(Accumulate { sum, x, y });
}

struct Accumulate<'a, A> {
    sum: &'a mut [A],
    x: &'a [A],
    y: &'a [A],
}

impl<A: Accumulator, I: Wave<A>> Task<I> for Accumulate<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let half = self.sum.len() / 2;
        let sum = Place { re: self.sum.as_mut_ptr(), im: self.sum.as_mut_ptr().wrapping_add(half) };
        for j in (0..half).step_by(I::LANES) {
            let load = |from: &[A]| {
                // SAFETY: whole vectors of both halves, whose lengths `accumulate` asserted.
                unsafe { [isa.load(from.as_ptr().add(j)), isa.load(from.as_ptr().add(half + j))] }
            };
            let [re, im] = conjugate_product(isa, load(self.x), load(self.y));
            // SAFETY: as above.
            unsafe {
                let [old_re, old_im] = sum.skip(j).load(isa);
                sum.skip(j).store(isa, [isa.add(old_re, re), isa.add(old_im, im)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    /// Small integers times small integers modulo z^n + 1, against the definition, rounded: exact.
    fn check<A: Accumulator, I: Wave<A>>(isa: I, length: usize) {
        let n = 2 * length;
        let number = |seed: usize, i: usize| (((i * 7919 + seed) * 104_729) >> 5) % 7;
        let signed = |seed, i| number(seed, i) as f64 - 3.0;
        let ring = Ring::<A>::new(isa, length);
        let mut x: Vec<A> = (0..n).map(|i| A::from_f64(signed(1, i))).collect();
        // A few taps spread over the length keep the definition cheap.
        let taps: Vec<(usize, f64)> = (0..9).map(|t| ((t * n / 9 + t) % n, signed(2, t) + 0.5)).collect();
        let mut k = vec![A::default(); n];
        taps.iter().for_each(|&(at, value)| k[at] += A::from_f64(value));
        ring.forward(isa, Halves::of(&mut k));
        ring.multiply(isa, Halves::of(&mut x), &k);
        for (t, got) in x.iter().enumerate() {
            let exact: f64 = taps
                .iter()
                .map(|&(at, value)| if t >= at { value * signed(1, t - at) } else { -value * signed(1, t + n - at) })
                .sum();
            let got = got.to_f64() / length as f64;
            assert!((got - exact).abs() < 1e-3, "{} of {length}, {t}: {got}, expected {exact}", I::NAME);
        }
    }

    fn check_all<A: Accumulator, I: Isa + Wave<A>>() {
        let Some(isa) = I::detect() else { return };
        let mut length = shortest::<A, I>();
        while length <= 1 << 14 {
            check::<A, I>(isa, length);
            length *= 2;
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        check_all::<f32, crate::portable::Portable>();
        check_all::<f64, crate::portable::Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            check_all::<f32, crate::x86::Avx2>();
            check_all::<f64, crate::x86::Avx2>();
            check_all::<f32, crate::x86::Avx512>();
            check_all::<f64, crate::x86::Avx512>();
        }
        #[cfg(target_arch = "aarch64")]
        {
            check_all::<f32, crate::neon::Neon>();
            check_all::<f64, crate::neon::Neon>();
        }
    }
}
