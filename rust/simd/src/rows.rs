//! Copies of row blocks between tensors and scratch memory, converting to and from the accumulator on the way.

use crate::isa::{Convert, Simd, Task};
use std::marker::PhantomData;
use striate_core::{Element, Scalar};

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
        let [read, written] = self.reach();
        assert!(read <= from, "{self:?} leaves its source of {from}");
        assert!(written <= to, "{self:?} leaves its destination of {to}");
    }

    /// One more than the last number that is read, and that is written.
    pub(crate) fn reach(&self) -> [usize; 2] {
        if self.rows == 0 || self.cols == 0 {
            return [0, 0];
        }
        let reach = |pitch: usize, step: usize| (self.rows - 1) * pitch + (self.cols - 1) * step + 1;
        [reach(self.from_pitch, self.from_step), reach(self.to_pitch, self.to_step)]
    }
}

/// One way between stored numbers and accumulators.
pub(crate) trait Way<I> {
    type From: Copy;
    type To;
    type V: Copy;
    /// Numbers in a vector.
    const LANES: usize;
    /// # Safety
    /// `from` must be readable for `LANES` numbers.
    unsafe fn load(isa: I, from: *const Self::From) -> Self::V;
    /// # Safety
    /// `to` must be writable for `LANES` numbers.
    unsafe fn store(isa: I, v: Self::V, to: *mut Self::To);
    /// # Safety
    /// `to` must be writable for `count` numbers, at most `LANES`.
    unsafe fn store_some(isa: I, v: Self::V, to: *mut Self::To, count: usize);
    fn evens(isa: I, a: Self::V, b: Self::V) -> Self::V;
    fn zip(isa: I, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    fn one(number: Self::From) -> Self::To;
}

pub(crate) struct Widen<S>(PhantomData<S>);

impl<S: Scalar, I: Convert<S>> Way<I> for Widen<S> {
    type From = S;
    type To = S::Acc;
    type V = <I as Simd<S::Acc>>::V;
    const LANES: usize = <I as Simd<S::Acc>>::LANES;
    #[inline(always)]
    unsafe fn load(isa: I, from: *const S) -> Self::V {
        // SAFETY: passed on unchanged.
        unsafe { isa.widen(from) }
    }
    #[inline(always)]
    unsafe fn store(isa: I, v: Self::V, to: *mut S::Acc) {
        // SAFETY: passed on unchanged.
        unsafe { isa.store(to, v) }
    }
    #[inline(always)]
    unsafe fn store_some(isa: I, v: Self::V, to: *mut S::Acc, count: usize) {
        // SAFETY: passed on unchanged.
        unsafe { isa.store_masked(to, v, isa.mask(0, count)) }
    }
    #[inline(always)]
    fn evens(isa: I, a: Self::V, b: Self::V) -> Self::V {
        isa.evens(a, b)
    }
    #[inline(always)]
    fn zip(isa: I, a: Self::V, b: Self::V) -> (Self::V, Self::V) {
        isa.zip(a, b)
    }
    #[inline(always)]
    fn one(number: S) -> S::Acc {
        number.widen()
    }
}

struct Narrow<S>(PhantomData<S>);

impl<S: Scalar, I: Convert<S>> Way<I> for Narrow<S> {
    type From = S::Acc;
    type To = S;
    type V = <I as Simd<S::Acc>>::V;
    const LANES: usize = <I as Simd<S::Acc>>::LANES;
    #[inline(always)]
    unsafe fn load(isa: I, from: *const S::Acc) -> Self::V {
        // SAFETY: passed on unchanged.
        unsafe { isa.load(from) }
    }
    #[inline(always)]
    unsafe fn store(isa: I, v: Self::V, to: *mut S) {
        // SAFETY: passed on unchanged.
        unsafe { isa.narrow(v, to) }
    }
    #[inline(always)]
    unsafe fn store_some(isa: I, v: Self::V, to: *mut S, count: usize) {
        // SAFETY: passed on unchanged.
        unsafe { narrow_some(isa, v, to, count) }
    }
    #[inline(always)]
    fn evens(isa: I, a: Self::V, b: Self::V) -> Self::V {
        isa.evens(a, b)
    }
    #[inline(always)]
    fn zip(isa: I, a: Self::V, b: Self::V) -> (Self::V, Self::V) {
        isa.zip(a, b)
    }
    #[inline(always)]
    fn one(number: S::Acc) -> S {
        S::narrow(number)
    }
}

/// Writes the first `count` numbers of a vector, rounded.
///
/// # Safety
/// `to` must be writable for `count` numbers, at most a vector.
#[inline(always)]
pub(crate) unsafe fn narrow_some<S: Scalar, I: Convert<S>>(
    isa: I,
    v: <I as Simd<S::Acc>>::V,
    to: *mut S,
    count: usize,
) {
    if S::DTYPE == <S::Acc as Element>::DTYPE {
        // SAFETY: passed on unchanged; stored numbers and accumulators are the same type.
        return unsafe { isa.store_masked(to.cast(), v, isa.mask(0, count)) };
    }
    let mut numbers = [S::Acc::default(); MOST_LANES];
    // SAFETY: the array holds any vector; the caller vouches for the places written.
    unsafe {
        isa.store(numbers.as_mut_ptr(), v);
        for (i, number) in numbers.into_iter().enumerate().take(count) {
            to.add(i).write(S::narrow(number));
        }
    }
}

/// Numbers in the widest vector.
const MOST_LANES: usize = 16;

/// Copies stored numbers to accumulators.
pub fn widen<S: Scalar, I: Convert<S>>(isa: I, block: &Block, from: &[S], to: &mut [S::Acc]) {
    block.check(from.len(), to.len());
    isa.run(Copying::<Widen<S>, I> { block, from, to: to.as_mut_ptr() });
}

/// Copies accumulators to stored numbers, rounded to nearest even.
pub fn narrow<S: Scalar, I: Convert<S>>(isa: I, block: &Block, from: &[S::Acc], to: &mut [S]) {
    block.check(from.len(), to.len());
    isa.run(Copying::<Narrow<S>, I> { block, from, to: to.as_mut_ptr() });
}

/// A copy whose block has been checked.
pub(crate) struct Copying<'a, W: Way<I>, I> {
    pub block: &'a Block,
    pub from: &'a [W::From],
    pub to: *mut W::To,
}

impl<W: Way<I>, I: crate::Isa> Task<I> for Copying<'_, W, I> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { rows, cols, from_pitch, from_step, to_pitch, to_step } = *self.block;
        let turned = cols == W::LANES
            && ((from_pitch == 1 && from_step > 1 && to_step == 1) || (from_step == 1 && to_pitch == 1 && to_step > 1));
        for r in 0..rows {
            if turned && r % W::LANES == 0 && self.turn(isa, r) {
                continue;
            }
            if turned && r % W::LANES > 0 && self.turns(r - r % W::LANES) {
                continue;
            }
            self.row(isa, r);
        }
    }
}

impl<W: Way<I>, I: crate::Isa> Copying<'_, W, I> {
    #[inline(always)]
    pub fn row(&self, isa: I, r: usize) {
        let Block { cols, from_pitch, from_step, to_pitch, to_step, .. } = *self.block;
        // Numbers read for each column that vectors copy; none where only single ones can.
        let each = if to_step == 1 && from_step <= 2 { from_step } else { 0 };
        let (from, to) = (self.from.as_ptr().wrapping_add(r * from_pitch), self.to.wrapping_add(r * to_pitch));
        // Vectors of every second number read one more than they copy.
        let readable = (self.from.len() - r * from_pitch.min(self.from.len())).min(cols * each);
        // SAFETY: `check` asserted that every element of the block is inside both slices; vectors stay inside what
        // is readable.
        unsafe {
            let mut c = 0;
            while each > 0 && (c + W::LANES) * each <= readable {
                Self::vector(isa, each, from.add(each * c), to.add(c));
                c += W::LANES;
            }
            if c > 0 && c < cols && cols * each <= readable {
                // The last vector overlaps the one before it.
                c = cols - W::LANES;
                Self::vector(isa, each, from.add(each * c), to.add(c));
                c = cols;
            }
            while c < cols {
                *to.add(c * to_step) = W::one(*from.add(c * from_step));
                c += 1;
            }
        }
    }

    /// Copies a vector of every number, or of every second one. A function, because what closures call is not compiled
    /// for the instruction set.
    ///
    /// # Safety
    /// `from` must be readable for `each` vectors, `to` writable for one.
    #[inline(always)]
    unsafe fn vector(isa: I, each: usize, from: *const W::From, to: *mut W::To) {
        // SAFETY: passed on unchanged.
        unsafe {
            let v = match each {
                1 => W::load(isa, from),
                _ => W::evens(isa, W::load(isa, from), W::load(isa, from.add(W::LANES))),
            };
            W::store(isa, v, to);
        }
    }

    /// Whether the square of a vector of rows from `r` on can be turned in registers: it may read further rows than
    /// are copied.
    #[inline(always)]
    fn turns(&self, r: usize) -> bool {
        let Block { cols, from_pitch, from_step, .. } = *self.block;
        from_step == 1 || r * from_pitch + (cols - 1) * from_step + W::LANES <= self.from.len()
    }

    /// Copies a square whose rows are neighbours on one side and whose columns are on the other.
    #[inline(always)]
    fn turn(&self, isa: I, r: usize) -> bool {
        if !self.turns(r) {
            return false;
        }
        let Block { rows, from_pitch, from_step, to_pitch, to_step, .. } = *self.block;
        let count = W::LANES.min(rows - r);
        // Vectors are columns where the source's rows are neighbours, else rows.
        let by_column = from_pitch == 1;
        let (apart, loads) = if by_column { (from_step, W::LANES) } else { (from_pitch, count) };
        let from = self.from.as_ptr().wrapping_add(r * from_pitch);
        // SAFETY: `check` and `turns` cover every vector that is loaded.
        let mut square = unsafe { [W::load(isa, from); MOST_LANES] };
        // Constant bounds and a test inside, so that the square stays in registers.
        for (i, v) in square.iter_mut().enumerate() {
            if i < W::LANES && i < loads {
                // SAFETY: as above.
                *v = unsafe { W::load(isa, from.add(i * apart)) };
            }
        }
        // Each riffle of the two halves brings one bit of the row number into the lane number.
        let half = W::LANES / 2;
        for _ in 0..W::LANES.trailing_zeros() {
            let before = square;
            for i in 0..half {
                (square[2 * i], square[2 * i + 1]) = W::zip(isa, before[i], before[i + half]);
            }
        }
        let to = self.to.wrapping_add(r * to_pitch);
        let stores = if by_column { count } else { W::LANES };
        for (i, &v) in square.iter().enumerate() {
            if i >= W::LANES || i >= stores {
                continue;
            }
            // SAFETY: `check` asserted these places; only rows that exist are written.
            unsafe {
                match (by_column, count == W::LANES) {
                    (true, _) => W::store(isa, v, to.add(i * to_pitch)),
                    (false, true) => W::store(isa, v, to.add(i * to_step)),
                    (false, false) => W::store_some(isa, v, to.add(i * to_step), count),
                }
            }
        }
        true
    }
}

/// Rows of accumulators from two sources in turns, rounded to stored numbers: number `2 * c` of a row comes from
/// place `c` of the first source, number `2 * c + 1` from place `c` of the second.
#[derive(Clone, Copy, Debug)]
pub struct Weave {
    /// Rows.
    pub rows: usize,
    /// Numbers written in a row.
    pub cols: usize,
    /// Distance of rows in both sources.
    pub from_pitch: usize,
    /// Distance of the second source from the first.
    pub second: usize,
    /// Distance of rows where numbers go.
    pub to_pitch: usize,
}

/// Writes rows that take turns between two sources; each source row must have room for a whole vector at its end.
pub fn weave<S: Scalar, I: Convert<S>>(isa: I, weave: &Weave, from: &[S::Acc], to: &mut [S]) {
    let Weave { rows, cols, from_pitch, second, to_pitch } = *weave;
    let lanes = <I as Simd<S::Acc>>::LANES;
    let read = cols.div_ceil(2).next_multiple_of(lanes);
    assert!(rows > 0 && second + (rows - 1) * from_pitch + read <= from.len(), "{weave:?} leaves {}", from.len());
    assert!((rows - 1) * to_pitch + cols <= to.len(), "{weave:?} leaves its destination of {}", to.len());
    isa.run(Weaving::<S, I>(weave, from.as_ptr(), to.as_mut_ptr(), PhantomData));
}

struct Weaving<'a, S: Scalar, I>(&'a Weave, *const S::Acc, *mut S, PhantomData<I>);

impl<S: Scalar, I: Convert<S>> Task<I> for Weaving<'_, S, I> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Weave { rows, cols, from_pitch, second, to_pitch } = *self.0;
        let lanes = <I as Simd<S::Acc>>::LANES;
        for r in 0..rows {
            // SAFETY: `weave` asserted both ranges; a source row is readable up to whole vectors.
            unsafe {
                let (from, to) = (self.1.add(r * from_pitch), self.2.add(r * to_pitch));
                let mut c = 0;
                while c < cols {
                    let pair = isa.zip(isa.load(from.add(c / 2)), isa.load(from.add(second + c / 2)));
                    for v in [pair.0, pair.1] {
                        if c + lanes <= cols {
                            isa.narrow(v, to.add(c));
                        } else if c < cols {
                            <Narrow<S> as Way<I>>::store_some(isa, v, to.add(c), cols - c);
                        }
                        c += lanes;
                    }
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
