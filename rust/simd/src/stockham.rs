//! Transforms of short sequences of complex vectors, for [`crate::planes`].
//!
//! They are Stockham's: a stage of radix `r` on `n = r m` numbers leaves `r` interleaved ones of `m` numbers. The way back
//! is the way there with real and imaginary parts exchanged.

use crate::butterfly::{Place, product};
use crate::isa::Task;
use crate::tables::remembered;
use crate::wave::Wave;
use std::f64::consts::{FRAC_1_SQRT_2, TAU};
use std::sync::Arc;
use striate_core::Accumulator;

/// Radices, best first: every stage is a way through the cache, and fourteen numbers just fit into registers.
const RADICES: [usize; 9] = [14, 8, 4, 2, 3, 5, 7, 11, 13];
/// The longest side of a plane.
const LONGEST: usize = 128;

/// One stage of a transform.
pub(crate) struct Stage<A> {
    radix: usize,
    /// Numbers of the transforms that are left, and how many of those there are already.
    left: usize,
    apart: usize,
    /// For each of `left` positions a factor for every output but the first.
    twiddles: Vec<[A; 2]>,
    /// Cosine and sine of `j k` parts of a turn for half the inputs `j` of an odd radix and half its outputs `k`.
    turns: Vec<[A; 2]>,
}

fn turn<A: Accumulator>(part: usize, of: usize) -> [A; 2] {
    let (sin, cos) = (TAU * (part % of) as f64 / of as f64).sin_cos();
    [A::from_f64(cos), A::from_f64(sin)]
}

/// The radices of a transform, in the order of its stages, if it has one.
fn radices(length: usize) -> Option<Vec<usize>> {
    let (mut rest, mut found) = (length, Vec::new());
    if !(2..=LONGEST).contains(&length) {
        return None;
    }
    while rest > 1 {
        found.push(RADICES.into_iter().find(|radix| rest.is_multiple_of(*radix))?);
        rest /= found[found.len() - 1];
    }
    Some(found)
}

/// The odd part of a radix.
const fn odd_part(radix: usize) -> usize {
    radix >> radix.trailing_zeros()
}

/// The stages of a transform, if it has one.
pub(crate) fn stages<A: Accumulator>(length: usize) -> Option<Arc<Vec<Stage<A>>>> {
    let found = radices(length)?;
    Some(remembered((length, 0), || {
        let (mut rest, mut apart, mut made) = (length, 1, Vec::new());
        for radix in found {
            let (left, odd) = (rest / radix, odd_part(radix));
            let factor = |at: usize| turn::<A>(rest - at / (radix - 1) * (at % (radix - 1) + 1) % rest, rest);
            let half = odd / 2;
            let pair = |at: usize| turn((at / half + 1) * (at % half + 1), odd);
            made.push(Stage {
                radix,
                left,
                apart,
                twiddles: (0..left * (radix - 1)).map(factor).collect(),
                turns: (0..half * half).map(pair).collect(),
            });
            (rest, apart) = (left, apart * radix);
        }
        made
    }))
}

/// Complex vectors at equal distances.
pub(crate) struct Line<A> {
    pub at: Place<A>,
    pub step: usize,
}

impl<A> Clone for Line<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Line<A> {}

impl<A> Line<A> {
    #[inline(always)]
    pub fn place(self, index: usize) -> Place<A> {
        self.at.skip(index * self.step)
    }
    #[inline(always)]
    pub fn exchanged(self) -> Self {
        Line { at: Place { re: self.at.im, im: self.at.re }, ..self }
    }
}

/// A stage of one transform; the lines hold its numbers and lie apart.
pub(crate) struct Pass<'a, A> {
    pub stage: &'a Stage<A>,
    pub from: Line<A>,
    pub to: Line<A>,
}

impl<A: Accumulator, I: Wave<A>> Task<I> for Pass<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        // SAFETY: the stage's numbers, which whoever made the pass vouches for.
        unsafe {
            match self.stage.radix {
                2 => self.each::<I, 2, 1, 0>(isa),
                4 => self.each::<I, 4, 1, 0>(isa),
                8 => self.each::<I, 8, 1, 0>(isa),
                3 => self.each::<I, 3, 3, 1>(isa),
                5 => self.each::<I, 5, 5, 2>(isa),
                7 => self.each::<I, 7, 7, 3>(isa),
                14 => self.each::<I, 14, 7, 3>(isa),
                11 => self.each::<I, 11, 11, 5>(isa),
                _ => self.each::<I, 13, 13, 6>(isa),
            }
        }
    }
}

impl<A: Accumulator> Pass<'_, A> {
    /// `Q` is the odd part of the radix `R`, and `H` half of that.
    ///
    /// # Safety
    /// As the pass promises.
    #[inline(always)]
    unsafe fn each<I: Wave<A>, const R: usize, const Q: usize, const H: usize>(&self, isa: I) {
        let Stage { left, apart, ref twiddles, ref turns, .. } = *self.stage;
        for p in 0..left {
            let factors = &twiddles[p * (R - 1)..(p + 1) * (R - 1)];
            for q in 0..apart {
                // SAFETY: indices below `R * left * apart`, the numbers of both lines.
                unsafe {
                    let mut x = [[isa.splat(A::default()); 2]; R];
                    for (j, x) in x.iter_mut().enumerate() {
                        *x = self.from.place(q + apart * (p + left * j)).load(isa);
                    }
                    let y = match R {
                        8 => eight::<A, I, R>(isa, x),
                        2 | 4 => even::<A, I, R>(isa, x),
                        _ if R == Q => odd::<A, I, R, H>(isa, x, turns),
                        _ => twice::<A, I, R, Q, H>(isa, x, turns),
                    };
                    for (k, mut value) in y.into_iter().enumerate() {
                        if p > 0 && k > 0 {
                            let [re, im] = factors[k - 1];
                            value = product(isa, [isa.splat(re), isa.splat(im)], value);
                        }
                        self.to.place(q + apart * (R * p + k)).store(isa, value);
                    }
                }
            }
        }
    }
}

/// Radix 2 or 4.
#[inline(always)]
fn even<A: Accumulator, I: Wave<A>, const R: usize>(isa: I, mut x: [[I::V; 2]; R]) -> [[I::V; 2]; R] {
    for k in 0..R / 2 {
        let (a, b) = (x[k], x[k + R / 2]);
        x[k] = [isa.add(a[0], b[0]), isa.add(a[1], b[1])];
        x[k + R / 2] = [isa.sub(a[0], b[0]), isa.sub(a[1], b[1])];
    }
    if R == 4 {
        let (s, u, t, v) = (x[0], x[1], x[2], x[3]);
        x[0] = [isa.add(s[0], u[0]), isa.add(s[1], u[1])];
        x[1] = [isa.add(t[0], v[1]), isa.sub(t[1], v[0])];
        x[2] = [isa.sub(s[0], u[0]), isa.sub(s[1], u[1])];
        x[3] = [isa.sub(t[0], v[1]), isa.add(t[1], v[0])];
    }
    x
}

/// Radix 8: two of four, the second turned.
#[inline(always)]
fn eight<A: Accumulator, I: Wave<A>, const R: usize>(isa: I, x: [[I::V; 2]; R]) -> [[I::V; 2]; R] {
    let c = isa.splat(A::from_f64(FRAC_1_SQRT_2));
    let (mut four, mut y) = ([[x[0]; 4]; 2], x);
    for k in 0..4 {
        four[0][k] = x[2 * k];
        four[1][k] = x[2 * k + 1];
    }
    let (a, mut b) = (even::<A, I, 4>(isa, four[0]), even::<A, I, 4>(isa, four[1]));
    // An eighth of a turn; the imaginary part of three of them waits with its sign for the sums below.
    b[1] = [isa.mul(c, isa.add(b[1][0], b[1][1])), isa.mul(c, isa.sub(b[1][1], b[1][0]))];
    b[3] = [isa.mul(c, isa.sub(b[3][1], b[3][0])), isa.mul(c, isa.add(b[3][0], b[3][1]))];
    y[0] = [isa.add(a[0][0], b[0][0]), isa.add(a[0][1], b[0][1])];
    y[4] = [isa.sub(a[0][0], b[0][0]), isa.sub(a[0][1], b[0][1])];
    y[1] = [isa.add(a[1][0], b[1][0]), isa.add(a[1][1], b[1][1])];
    y[5] = [isa.sub(a[1][0], b[1][0]), isa.sub(a[1][1], b[1][1])];
    y[2] = [isa.add(a[2][0], b[2][1]), isa.sub(a[2][1], b[2][0])];
    y[6] = [isa.sub(a[2][0], b[2][1]), isa.add(a[2][1], b[2][0])];
    y[3] = [isa.add(a[3][0], b[3][0]), isa.sub(a[3][1], b[3][1])];
    y[7] = [isa.sub(a[3][0], b[3][0]), isa.add(a[3][1], b[3][1])];
    y
}

/// Twice an odd radix: sums and differences of two of that. By the remainder theorem no factors stand between.
#[inline(always)]
fn twice<A: Accumulator, I: Wave<A>, const R: usize, const Q: usize, const H: usize>(
    isa: I,
    x: [[I::V; 2]; R],
    turns: &[[A; 2]],
) -> [[I::V; 2]; R] {
    let (mut halves, mut y) = ([[x[0]; Q]; 2], x);
    for b in 0..Q {
        let (s, t) = (x[2 * b], x[(Q + 2 * b) % R]);
        halves[0][b] = [isa.add(s[0], t[0]), isa.add(s[1], t[1])];
        halves[1][b] = [isa.sub(s[0], t[0]), isa.sub(s[1], t[1])];
    }
    for (a, half) in halves.into_iter().enumerate() {
        let found = odd::<A, I, Q, H>(isa, half, turns);
        for (b, found) in found.into_iter().enumerate() {
            y[(Q * a + (Q + 1) * b) % R] = found;
        }
    }
    y
}

/// An odd radix: sums and differences of numbers that mirror each other meet cosines and sines; `H` is half of `R`.
#[inline(always)]
fn odd<A: Accumulator, I: Wave<A>, const R: usize, const H: usize>(
    isa: I,
    x: [[I::V; 2]; R],
    turns: &[[A; 2]],
) -> [[I::V; 2]; R] {
    // Loops and not closures: what is not inlined here loses the instruction set.
    let mut y = x;
    let (mut even, mut odd) = ([x[0]; H], [x[0]; H]);
    for j in 0..H {
        let (a, b) = (x[j + 1], x[R - 1 - j]);
        even[j] = [isa.add(a[0], b[0]), isa.add(a[1], b[1])];
        odd[j] = [isa.sub(a[0], b[0]), isa.sub(a[1], b[1])];
        y[0] = [isa.add(y[0][0], even[j][0]), isa.add(y[0][1], even[j][1])];
    }
    let turns = &turns[..H * H];
    for k in 0..H {
        let [cos, sin] = turns[k * H];
        let (cos, sin) = (isa.splat(cos), isa.splat(sin));
        let mut c = [isa.mul_add(cos, even[0][0], x[0][0]), isa.mul_add(cos, even[0][1], x[0][1])];
        let mut s = [isa.mul(sin, odd[0][0]), isa.mul(sin, odd[0][1])];
        for j in 1..H {
            let [cos, sin] = turns[k * H + j];
            let (cos, sin) = (isa.splat(cos), isa.splat(sin));
            c = [isa.mul_add(cos, even[j][0], c[0]), isa.mul_add(cos, even[j][1], c[1])];
            s = [isa.mul_add(sin, odd[j][0], s[0]), isa.mul_add(sin, odd[j][1], s[1])];
        }
        y[k + 1] = [isa.add(c[0], s[1]), isa.sub(c[1], s[0])];
        y[R - 1 - k] = [isa.sub(c[0], s[1]), isa.add(c[1], s[0])];
    }
    y
}
