//! The smallest steps of [`crate::fourier`]: complex arithmetic on vectors, and the square of lanes at the bottom.

use crate::isa::Simd;
use crate::roots::Roots;
use crate::wave::Wave;
use striate_core::Accumulator;

/// Real and imaginary parts of four vectors.
pub type Four<V> = [[V; 2]; 4];

/// Where a complex number's parts lie.
pub struct Place<A> {
    /// The real parts.
    pub re: *mut A,
    /// The imaginary parts.
    pub im: *mut A,
}

impl<A> Clone for Place<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Place<A> {}

impl<A> Place<A> {
    /// So many numbers on.
    #[inline(always)]
    pub fn skip(self, count: usize) -> Self {
        Place { re: self.re.wrapping_add(count), im: self.im.wrapping_add(count) }
    }
    /// A vector.
    ///
    /// # Safety
    /// A vector must be readable here.
    #[inline(always)]
    pub unsafe fn load<I: Simd<A>>(self, isa: I) -> [I::V; 2]
    where
        A: Accumulator,
    {
        // SAFETY: the caller's promise.
        unsafe { [isa.load(self.re), isa.load(self.im)] }
    }
    /// Writes a vector.
    ///
    /// # Safety
    /// A vector must be writable here.
    #[inline(always)]
    pub unsafe fn store<I: Simd<A>>(self, isa: I, [re, im]: [I::V; 2])
    where
        A: Accumulator,
    {
        // SAFETY: the caller's promise.
        unsafe {
            isa.store(self.re, re);
            isa.store(self.im, im);
        }
    }

    /// Four vectors, `apart` numbers from each other.
    ///
    /// # Safety
    /// They must be readable.
    #[inline(always)]
    pub unsafe fn load_four<I: Simd<A>>(self, isa: I, apart: usize) -> Four<I::V>
    where
        A: Accumulator,
    {
        // SAFETY: the caller's promise.
        unsafe {
            [self.load(isa), self.skip(apart).load(isa), self.skip(2 * apart).load(isa), self.skip(3 * apart).load(isa)]
        }
    }

    /// Writes four vectors, `apart` numbers from each other.
    ///
    /// # Safety
    /// They must be writable.
    #[inline(always)]
    pub unsafe fn store_four<I: Simd<A>>(self, isa: I, apart: usize, four: Four<I::V>)
    where
        A: Accumulator,
    {
        // SAFETY: the caller's promise.
        unsafe {
            self.store(isa, four[0]);
            self.skip(apart).store(isa, four[1]);
            self.skip(2 * apart).store(isa, four[2]);
            self.skip(3 * apart).store(isa, four[3]);
        }
    }
}

/// Two levels on one vector of each quarter of a block; `w` is the block's root and `v` that of its first half.
#[inline(always)]
pub fn split<A: Accumulator, I: Wave<A>>(isa: I, [a, b, c, d]: Four<I::V>, w: [I::V; 2], v: [I::V; 2]) -> Four<I::V> {
    let (a, c) = halve::<A, I, true>(isa, [a, c], w);
    let (b, d) = halve::<A, I, true>(isa, [b, d], w);
    let (a, b) = halve::<A, I, true>(isa, [a, b], v);
    // The second half's root is i times the first one's.
    let [re, im] = product(isa, v, d);
    let d = [isa.add(c[0], im), isa.sub(c[1], re)];
    let c = [isa.sub(c[0], im), isa.add(c[1], re)];
    [a, b, c, d]
}

/// The way back, which makes everything four times as large.
#[inline(always)]
pub fn merge<A: Accumulator, I: Wave<A>>(isa: I, [a, b, c, d]: Four<I::V>, w: [I::V; 2], v: [I::V; 2]) -> Four<I::V> {
    let (a, b) = halve::<A, I, false>(isa, [a, b], v);
    let sum = [isa.add(c[0], d[0]), isa.add(c[1], d[1])];
    let [re, im] = conjugate_product(isa, v, [isa.sub(c[0], d[0]), isa.sub(c[1], d[1])]);
    let (a, c) = halve::<A, I, false>(isa, [a, sum], w);
    // The product times -i is (im, -re).
    let plus = [isa.add(b[0], im), isa.sub(b[1], re)];
    let minus = [isa.sub(b[0], im), isa.add(b[1], re)];
    [a, plus, c, conjugate_product(isa, w, minus)]
}

/// `a + w b` and `a - w b`, or the way back, which doubles: `a + b` and `(a - b) / w`.
#[inline(always)]
pub fn halve<A: Accumulator, I: Wave<A>, const THERE: bool>(
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

/// The product of complex numbers.
#[inline(always)]
pub fn product<A: Accumulator, I: Wave<A>>(isa: I, x: [I::V; 2], y: [I::V; 2]) -> [I::V; 2] {
    [isa.neg_mul_add(x[1], y[1], isa.mul(x[0], y[0])), isa.mul_add(x[1], y[0], isa.mul(x[0], y[1]))]
}

/// The product of `y` with the conjugate of `x`.
#[inline(always)]
pub fn conjugate_product<A: Accumulator, I: Wave<A>>(isa: I, x: [I::V; 2], y: [I::V; 2]) -> [I::V; 2] {
    [isa.mul_add(x[1], y[1], isa.mul(x[0], y[0])), isa.neg_mul_add(x[1], y[0], isa.mul(x[0], y[1]))]
}

/// A square of `LANES` vectors of a transform, and what it is multiplied by between the way there and the way back.
#[derive(Clone, Copy)]
pub struct Square<'a, A> {
    /// Roots of the transform.
    pub roots: &'a Roots<A>,
    /// The number of the square.
    pub tile: usize,
    /// Where it is.
    pub at: Place<A>,
    /// Where the values it is multiplied by are; not read on a way there or back alone.
    pub by: Place<A>,
}

impl<A: Accumulator> Square<'_, A> {
    /// The levels inside a vector, on the transposed square: row `k` holds number `k` of `LANES` blocks.
    ///
    /// # Safety
    /// A square must be readable and writable at `at`, and readable at `by` if it goes both ways; the table must know
    /// its number.
    #[inline(always)]
    pub unsafe fn inside<I: Wave<A>, const THERE: bool, const BACK: bool>(self, isa: I) {
        let levels = I::LANES.trailing_zeros();
        // The last level, or the last two, are done and undone without a look at memory between.
        let before = if levels % 2 == 1 { levels / 2 } else { levels / 2 - 1 };
        // SAFETY: the caller vouches for the square, its factors and the table.
        unsafe {
            if THERE {
                isa.transpose(self.at.re);
                isa.transpose(self.at.im);
                for k in 0..before {
                    self.pair::<I, true, false>(isa, 2 * k);
                }
            }
            if levels % 2 == 1 {
                self.last::<I, THERE, BACK>(isa, levels - 1);
            } else {
                self.pair::<I, THERE, BACK>(isa, levels - 2);
            }
            if BACK {
                for k in (0..before).rev() {
                    self.pair::<I, false, true>(isa, 2 * k);
                }
                isa.transpose(self.at.re);
                isa.transpose(self.at.im);
            }
        }
    }

    /// # Safety
    /// As for [`Square::inside`].
    #[inline(always)]
    unsafe fn pair<I: Wave<A>, const THERE: bool, const BACK: bool>(self, isa: I, level: u32) {
        let quarter = I::LANES >> (level + 2);
        // SAFETY: rows of the square and vectors of the table, for which the caller vouches.
        unsafe {
            let (first, second) = (self.firsts(isa, level), self.firsts(isa, level + 1));
            for block in 0..1usize << level {
                let w = self.turned(isa, first, (level, block));
                let v = self.turned(isa, second, (level + 1, 2 * block));
                for j in 0..quarter {
                    let (row, apart) = ((4 * block * quarter + j) * I::LANES, quarter * I::LANES);
                    let mut four = self.at.skip(row).load_four(isa, apart);
                    if THERE {
                        four = split(isa, four, w, v);
                    }
                    if THERE && BACK {
                        let by = self.by.skip(row).load_four(isa, apart);
                        four = [
                            product(isa, by[0], four[0]),
                            product(isa, by[1], four[1]),
                            product(isa, by[2], four[2]),
                            product(isa, by[3], four[3]),
                        ];
                    }
                    if BACK {
                        four = merge(isa, four, w, v);
                    }
                    self.at.skip(row).store_four(isa, apart, four);
                }
            }
        }
    }

    /// # Safety
    /// As for [`Square::inside`].
    #[inline(always)]
    unsafe fn last<I: Wave<A>, const THERE: bool, const BACK: bool>(self, isa: I, level: u32) {
        // SAFETY: rows of the square and vectors of the table, for which the caller vouches.
        unsafe {
            let first = self.firsts(isa, level);
            for block in 0..I::LANES / 2 {
                let (even, odd) = (2 * block * I::LANES, (2 * block + 1) * I::LANES);
                let w = self.turned(isa, first, (level, block));
                let (mut x, mut y) = (self.at.skip(even).load(isa), self.at.skip(odd).load(isa));
                if THERE {
                    (x, y) = halve::<A, I, true>(isa, [x, y], w);
                }
                if THERE && BACK {
                    x = product(isa, self.by.skip(even).load(isa), x);
                    y = product(isa, self.by.skip(odd).load(isa), y);
                }
                if BACK {
                    (x, y) = halve::<A, I, false>(isa, [x, y], w);
                }
                self.at.skip(even).store(isa, x);
                self.at.skip(odd).store(isa, y);
            }
        }
    }

    /// The roots of the first block of every lane.
    ///
    /// # Safety
    /// The table must know the square.
    #[inline(always)]
    unsafe fn firsts<I: Wave<A>>(self, isa: I, level: u32) -> [I::V; 2] {
        let levels = I::LANES.trailing_zeros() as usize;
        let from = self.roots.tail.as_ptr().wrapping_add((self.tile * levels + level as usize) * 2 * I::LANES);
        // SAFETY: the table holds two vectors for each level of each square.
        unsafe { [isa.load(from), isa.load(from.wrapping_add(I::LANES))] }
    }

    /// The root of another block than the first.
    #[inline(always)]
    fn turned<I: Wave<A>>(self, isa: I, first: [I::V; 2], (level, block): (u32, usize)) -> [I::V; 2] {
        if block == 0 {
            return first;
        }
        let [re, im] = self.roots.turns[(1 << level) - 1 + block];
        product(isa, [isa.splat(re), isa.splat(im)], first)
    }
}
