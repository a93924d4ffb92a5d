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

use crate::isa::{Simd, Task};
use crate::roots::Roots;
use crate::wave::Wave;
use std::sync::Arc;
use striate_core::Accumulator;

/// Complex numbers that are finished level by level before the next are begun: 16 KiB of them in f32.
const LEAF: usize = 2048;

/// A transform of `2 * length` real numbers as `length` complex ones.
pub struct Ring<A> {
    length: usize,
    /// Levels that are done one block at a time before a leaf: one alone first, if need be, then pairs.
    above: u32,
    /// Levels of whole vectors inside a leaf, an even number.
    leaf: u32,
    roots: Arc<Roots<A>>,
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
        assert!(numbers.re.len() == self.length && numbers.im.len() == self.length, "numbers of another length");
        assert!(!(THERE && BACK) || by.len() == 2 * self.length, "values of another length");
        let (re, im) = (numbers.re.as_mut_ptr(), numbers.im.as_mut_ptr());
        isa.run(Walk::<A, THERE, BACK> { ring: self, at: Place { re, im }, by: by.as_ptr() });
    }
}

/// Where a complex number's parts lie.
struct Place<A> {
    re: *mut A,
    im: *mut A,
}

impl<A> Clone for Place<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Place<A> {}

impl<A> Place<A> {
    #[inline(always)]
    fn skip(self, count: usize) -> Self {
        Place { re: self.re.wrapping_add(count), im: self.im.wrapping_add(count) }
    }
    /// # Safety
    /// A vector must be readable here.
    #[inline(always)]
    unsafe fn load<I: Simd<A>>(self, isa: I) -> [I::V; 2]
    where
        A: Accumulator,
    {
        // SAFETY: the caller's promise.
        unsafe { [isa.load(self.re), isa.load(self.im)] }
    }
    /// # Safety
    /// A vector must be writable here.
    #[inline(always)]
    unsafe fn store<I: Simd<A>>(self, isa: I, [re, im]: [I::V; 2])
    where
        A: Accumulator,
    {
        // SAFETY: the caller's promise.
        unsafe {
            isa.store(self.re, re);
            isa.store(self.im, im);
        }
    }
}

struct Walk<'a, A, const THERE: bool, const BACK: bool> {
    ring: &'a Ring<A>,
    at: Place<A>,
    by: *const A,
}

impl<A: Accumulator, I: Wave<A>, const THERE: bool, const BACK: bool> Task<I> for Walk<'_, A, THERE, BACK> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Ring { length, above, leaf, roots } = self.ring;
        let (length, above, leaf, lanes) = (*length, *above, *leaf, I::LANES);
        let size = lanes << leaf;
        let square = lanes * lanes;
        for index in 0..length / size {
            // SAFETY: blocks of a level tile the numbers, squares tile a leaf, and tables cover all of both.
            unsafe {
                if THERE {
                    levels_above::<A, I, true>(isa, self.ring, self.at, index);
                    let mut level = above;
                    while level < above + leaf {
                        let blocks = 1 << (level - above);
                        for block in index * blocks..(index + 1) * blocks {
                            pair::<A, I, true>(isa, roots, (level, block), self.at, length >> level);
                        }
                        level += 2;
                    }
                }
                for tile in index * (size / square)..(index + 1) * (size / square) {
                    let at = self.at.skip(tile * square);
                    let roots: (&Roots<A>, usize) = (roots, tile);
                    if THERE {
                        isa.transpose(at.re);
                        isa.transpose(at.im);
                        inside::<A, I, true>(isa, roots, at);
                    }
                    if THERE && BACK {
                        times(isa, at, self.by.add(tile * square), self.by.add(length + tile * square));
                    }
                    if BACK {
                        inside::<A, I, false>(isa, roots, at);
                        isa.transpose(at.re);
                        isa.transpose(at.im);
                    }
                }
                if BACK {
                    let mut level = above + leaf;
                    while level > above {
                        level -= 2;
                        let blocks = 1 << (level - above);
                        for block in index * blocks..(index + 1) * blocks {
                            pair::<A, I, false>(isa, roots, (level, block), self.at, length >> level);
                        }
                    }
                    levels_above::<A, I, false>(isa, self.ring, self.at, index);
                }
            }
        }
    }
}

/// The levels above leaf `leaf` that are due: on the way there those whose block begins with it, on the way back
/// those whose block ends with it.
///
/// # Safety
/// `at` must be readable and writable for the ring's length.
#[inline(always)]
unsafe fn levels_above<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    ring: &Ring<A>,
    at: Place<A>,
    leaf: usize,
) {
    let odd = ring.above % 2;
    let due = |level: u32| {
        let leaves = 1usize << (ring.above - level);
        (if THERE { leaf } else { leaf + 1 }).is_multiple_of(leaves)
    };
    let place = |level: u32| (level, leaf >> (ring.above - level));
    // SAFETY: the caller vouches for all blocks.
    unsafe {
        if THERE {
            if odd == 1 && due(0) {
                single::<A, I, true>(isa, ring, at);
            }
            let mut level = odd;
            while level < ring.above {
                if due(level) {
                    pair::<A, I, true>(isa, &ring.roots, place(level), at, ring.length >> level);
                }
                level += 2;
            }
        } else {
            let mut level = ring.above;
            while level > odd {
                level -= 2;
                if due(level) {
                    pair::<A, I, false>(isa, &ring.roots, place(level), at, ring.length >> level);
                }
            }
            if odd == 1 && due(0) {
                single::<A, I, false>(isa, ring, at);
            }
        }
    }
}

/// The first level alone.
///
/// # Safety
/// `at` must be readable and writable for the ring's length, which is at least two vectors.
#[inline(always)]
unsafe fn single<A: Accumulator, I: Wave<A>, const THERE: bool>(isa: I, ring: &Ring<A>, at: Place<A>) {
    let [re, im] = ring.roots.rows[1];
    let (w, half) = ([isa.splat(re), isa.splat(im)], ring.length / 2);
    for j in (0..half).step_by(I::LANES) {
        // SAFETY: both are a vector inside one half.
        unsafe {
            let (a, b) = (at.skip(j), at.skip(half + j));
            let (x, y) = halve::<A, I, THERE>(isa, [a.load(isa), b.load(isa)], w);
            a.store(isa, x);
            b.store(isa, y);
        }
    }
}

/// Two levels of one block of `size` numbers, at least four vectors.
///
/// # Safety
/// The block must lie inside `at`, readable and writable.
#[inline(always)]
unsafe fn pair<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    roots: &Roots<A>,
    (level, block): (u32, usize),
    at: Place<A>,
    size: usize,
) {
    let [w, v] = [roots.rows[(1 << level) + block], roots.rows[(2 << level) + 2 * block]];
    let [w, v] = [[isa.splat(w[0]), isa.splat(w[1])], [isa.splat(v[0]), isa.splat(v[1])]];
    let (at, quarter) = (at.skip(block * size), size / 4);
    for j in (0..quarter).step_by(I::LANES) {
        // SAFETY: each is a vector inside its quarter of the block.
        unsafe { quarters::<A, I, THERE>(isa, at.skip(j), quarter, w, v) };
    }
}

/// Two levels of one vector of each quarter of a block; `w` is the block's root and `v` that of its first half.
///
/// # Safety
/// Four vectors, `quarter` apart, must be readable and writable at `at`.
#[inline(always)]
unsafe fn quarters<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    at: Place<A>,
    quarter: usize,
    w: [I::V; 2],
    v: [I::V; 2],
) {
    // SAFETY: the caller vouches for the four vectors.
    unsafe {
        let at = [at, at.skip(quarter), at.skip(2 * quarter), at.skip(3 * quarter)];
        let [a, b, c, d] = [at[0].load(isa), at[1].load(isa), at[2].load(isa), at[3].load(isa)];
        let [a, b, c, d] = if THERE {
            let (a, c) = halve::<A, I, true>(isa, [a, c], w);
            let (b, d) = halve::<A, I, true>(isa, [b, d], w);
            let (a, b) = halve::<A, I, true>(isa, [a, b], v);
            // The second half's root is i times the first one's.
            let [re, im] = product(isa, v, d);
            let d = [isa.add(c[0], im), isa.sub(c[1], re)];
            let c = [isa.sub(c[0], im), isa.add(c[1], re)];
            [a, b, c, d]
        } else {
            let (a, b) = halve::<A, I, false>(isa, [a, b], v);
            let sum = [isa.add(c[0], d[0]), isa.add(c[1], d[1])];
            let [re, im] = conjugate_product(isa, v, [isa.sub(c[0], d[0]), isa.sub(c[1], d[1])]);
            let (a, c) = halve::<A, I, false>(isa, [a, sum], w);
            // -i times the product: the sign of its imaginary part is put into the sum and the difference.
            let turned = [im, re];
            let plus = [isa.add(b[0], turned[0]), isa.sub(b[1], turned[1])];
            let minus = [isa.sub(b[0], turned[0]), isa.add(b[1], turned[1])];
            [a, plus, c, conjugate_product(isa, w, minus)]
        };
        at[0].store(isa, a);
        at[1].store(isa, b);
        at[2].store(isa, c);
        at[3].store(isa, d);
    }
}

/// `a + w b` and `a - w b`, or the way back, which doubles: `a + b` and `(a - b) / w`.
#[inline(always)]
fn halve<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    [a, b]: [[I::V; 2]; 2],
    w: [I::V; 2],
) -> ([I::V; 2], [I::V; 2]) {
    if THERE {
        let t = product(isa, w, b);
        ([isa.add(a[0], t[0]), isa.add(a[1], t[1])], [isa.sub(a[0], t[0]), isa.sub(a[1], t[1])])
    } else {
        let difference = [isa.sub(a[0], b[0]), isa.sub(a[1], b[1])];
        ([isa.add(a[0], b[0]), isa.add(a[1], b[1])], conjugate_product(isa, w, difference))
    }
}

#[inline(always)]
fn product<A: Accumulator, I: Wave<A>>(isa: I, x: [I::V; 2], y: [I::V; 2]) -> [I::V; 2] {
    [isa.neg_mul_add(x[1], y[1], isa.mul(x[0], y[0])), isa.mul_add(x[1], y[0], isa.mul(x[0], y[1]))]
}

/// The product of `y` with the conjugate of `x`.
#[inline(always)]
fn conjugate_product<A: Accumulator, I: Wave<A>>(isa: I, x: [I::V; 2], y: [I::V; 2]) -> [I::V; 2] {
    [isa.mul_add(x[1], y[1], isa.mul(x[0], y[0])), isa.neg_mul_add(x[1], y[0], isa.mul(x[0], y[1]))]
}

/// The levels inside a vector, on a transposed square: row `k` holds number `k` of `LANES` blocks.
///
/// # Safety
/// A square must be readable and writable at `at`, and the table must know square number `tile`.
#[inline(always)]
unsafe fn inside<A: Accumulator, I: Wave<A>, const THERE: bool>(isa: I, roots: (&Roots<A>, usize), at: Place<A>) {
    let levels = I::LANES.trailing_zeros();
    let pairs = levels / 2;
    // SAFETY: the caller vouches for the square and the table.
    unsafe {
        if THERE {
            for k in 0..pairs {
                inside_pair::<A, I, true>(isa, roots, at, 2 * k);
            }
        }
        if levels % 2 == 1 {
            inside_last::<A, I, THERE>(isa, roots, at, levels - 1);
        }
        if !THERE {
            for k in (0..pairs).rev() {
                inside_pair::<A, I, false>(isa, roots, at, 2 * k);
            }
        }
    }
}

/// # Safety
/// As for [`inside`].
#[inline(always)]
unsafe fn inside_pair<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    roots: (&Roots<A>, usize),
    at: Place<A>,
    level: u32,
) {
    let quarter = I::LANES >> (level + 2);
    // SAFETY: rows of the square and vectors of the table, for which the caller vouches.
    unsafe {
        let (first, second) = (firsts(isa, roots, level), firsts(isa, roots, level + 1));
        for block in 0..1usize << level {
            let w = turned(isa, roots.0, first, (level, block));
            let v = turned(isa, roots.0, second, (level + 1, 2 * block));
            for j in 0..quarter {
                let row = at.skip((4 * block * quarter + j) * I::LANES);
                quarters::<A, I, THERE>(isa, row, quarter * I::LANES, w, v);
            }
        }
    }
}

/// # Safety
/// As for [`inside`].
#[inline(always)]
unsafe fn inside_last<A: Accumulator, I: Wave<A>, const THERE: bool>(
    isa: I,
    roots: (&Roots<A>, usize),
    at: Place<A>,
    level: u32,
) {
    // SAFETY: rows of the square and vectors of the table, for which the caller vouches.
    unsafe {
        let first = firsts(isa, roots, level);
        for block in 0..I::LANES / 2 {
            let (a, b) = (at.skip(2 * block * I::LANES), at.skip((2 * block + 1) * I::LANES));
            let w = turned(isa, roots.0, first, (level, block));
            let (x, y) = halve::<A, I, THERE>(isa, [a.load(isa), b.load(isa)], w);
            a.store(isa, x);
            b.store(isa, y);
        }
    }
}

/// The roots of the first block of every lane of a square.
///
/// # Safety
/// The table must know the square.
#[inline(always)]
unsafe fn firsts<A: Accumulator, I: Wave<A>>(isa: I, (roots, tile): (&Roots<A>, usize), level: u32) -> [I::V; 2] {
    let levels = I::LANES.trailing_zeros() as usize;
    let from = roots.tail.as_ptr().wrapping_add((tile * levels + level as usize) * 2 * I::LANES);
    // SAFETY: the table holds two vectors for each level of each square.
    unsafe { [isa.load(from), isa.load(from.wrapping_add(I::LANES))] }
}

/// The root of another block than the first.
#[inline(always)]
fn turned<A: Accumulator, I: Wave<A>>(
    isa: I,
    roots: &Roots<A>,
    first: [I::V; 2],
    (level, block): (u32, usize),
) -> [I::V; 2] {
    if block == 0 {
        return first;
    }
    let [re, im] = roots.turns[(1 << level) - 1 + block];
    product(isa, [isa.splat(re), isa.splat(im)], first)
}

/// A square of values times others.
///
/// # Safety
/// A square must be readable and writable at `at`, and readable at `re` and `im`.
#[inline(always)]
unsafe fn times<A: Accumulator, I: Wave<A>>(isa: I, at: Place<A>, re: *const A, im: *const A) {
    for j in (0..I::LANES * I::LANES).step_by(I::LANES) {
        // SAFETY: inside the squares, which the caller vouches for.
        unsafe {
            let by = [isa.load(re.add(j)), isa.load(im.add(j))];
            at.skip(j).store(isa, product(isa, by, at.skip(j).load(isa)));
        }
    }
}

/// Adds the products of conjugated values with others: `sum += conj(x) * y`, each `length` real parts followed by as
/// many imaginary parts.
pub fn accumulate<A: Accumulator, I: Wave<A>>(isa: I, sum: &mut [A], x: &[A], y: &[A]) {
    assert!(sum.len() == x.len() && sum.len() == y.len() && sum.len() % (2 * I::LANES) == 0, "values of other lengths");
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
        for t in 0..n {
            let exact: f64 = taps
                .iter()
                .map(|&(at, value)| if t >= at { value * signed(1, t - at) } else { -value * signed(1, t + n - at) })
                .sum();
            let got = x[t].to_f64() / length as f64;
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
