//! Sums and extremes of windows that slide over rows of accumulators.
//!
//! What is made of a window is a [`Kind`]: an associative join of cells, and a cell is a number or, where its position
//! is wanted, a number with a label. Labels lie in a plane of their own, a fixed distance behind the numbers.
#![allow(clippy::needless_range_loop)] // Closures would not be compiled for the instruction set.

use crate::isa::{Simd, Task};
use crate::maths::Maths;
use std::marker::PhantomData;
use striate_core::Accumulator;

/// What is made of the numbers in a window.
pub trait Kind<A: Accumulator, I: Simd<A>>: Copy + Default + Send + Sync + 'static {
    /// Vectors of what is joined.
    type Cell: Copy;
    /// The same kind for numbers of which none is NaN.
    type Calm: Kind<A, I, Cell = Self::Cell>;
    /// Whether a number may be joined twice without changing the result.
    const IDEMPOTENT: bool;
    /// Whether cells have labels.
    const LABELS: bool;
    /// Whether NaN needs care that the calm kind does not take.
    const CARES: bool;
    /// What joining leaves unchanged.
    fn nothing() -> A;
    /// Joins what stands earlier in the window with what stands later.
    fn join(isa: I, old: Self::Cell, new: Self::Cell) -> Self::Cell;
    /// The cell of a number with this label.
    fn fresh(isa: I, number: I::V, label: A) -> Self::Cell;
    /// Reads cells whose labels lie `labels` further on, and adds `shift` to the labels.
    ///
    /// # Safety
    /// A vector of numbers, and one of labels where there are labels, must be readable.
    unsafe fn load(isa: I, from: *const A, labels: usize, shift: A) -> Self::Cell;
    /// Writes cells.
    ///
    /// # Safety
    /// As for `load`, to be written.
    unsafe fn store(isa: I, to: *mut A, labels: usize, cell: Self::Cell);
}

/// The sum.
#[derive(Clone, Copy, Default)]
pub struct Sum;

/// The greatest, or the least.
#[derive(Clone, Copy, Default)]
pub struct Extreme<const LEAST: bool>;

/// The greatest, or the least, of numbers.
#[derive(Clone, Copy, Default)]
pub struct Calm<const LEAST: bool>;

/// The greatest, or the least, and where it stands.
#[derive(Clone, Copy, Default)]
pub struct Place<const LEAST: bool>;

/// The same of numbers.
#[derive(Clone, Copy, Default)]
pub struct CalmPlace<const LEAST: bool>;

macro_rules! numbers_alone {
    () => {
        type Cell = I::V;
        const LABELS: bool = false;
        #[inline(always)]
        fn fresh(_isa: I, number: I::V, _label: A) -> I::V {
            number
        }
        #[inline(always)]
        unsafe fn load(isa: I, from: *const A, _labels: usize, _shift: A) -> I::V {
            // SAFETY: passed on unchanged.
            unsafe { isa.load(from) }
        }
        #[inline(always)]
        unsafe fn store(isa: I, to: *mut A, _labels: usize, cell: I::V) {
            // SAFETY: passed on unchanged.
            unsafe { isa.store(to, cell) }
        }
    };
}

fn outermost<A: Accumulator>(least: bool) -> A {
    A::from_f64(if least { f64::INFINITY } else { f64::NEG_INFINITY })
}

impl<A: Accumulator, I: Simd<A>> Kind<A, I> for Sum {
    numbers_alone!();
    type Calm = Sum;
    const IDEMPOTENT: bool = false;
    const CARES: bool = false;
    fn nothing() -> A {
        A::default()
    }
    #[inline(always)]
    fn join(isa: I, old: I::V, new: I::V) -> I::V {
        isa.add(old, new)
    }
}

impl<A: Accumulator, I: Maths<A>, const LEAST: bool> Kind<A, I> for Calm<LEAST> {
    numbers_alone!();
    type Calm = Self;
    const IDEMPOTENT: bool = true;
    const CARES: bool = false;
    fn nothing() -> A {
        outermost(LEAST)
    }
    #[inline(always)]
    fn join(isa: I, old: I::V, new: I::V) -> I::V {
        isa.calm_extreme::<LEAST>(old, new)
    }
}

impl<A: Accumulator, I: Maths<A>, const LEAST: bool> Kind<A, I> for Extreme<LEAST> {
    numbers_alone!();
    type Calm = Calm<LEAST>;
    const IDEMPOTENT: bool = true;
    const CARES: bool = true;
    fn nothing() -> A {
        outermost(LEAST)
    }
    #[inline(always)]
    fn join(isa: I, old: I::V, new: I::V) -> I::V {
        isa.extreme::<LEAST>(old, new)
    }
}

macro_rules! numbers_and_labels {
    ($calm:ty, $cares:literal, $pick:ident) => {
        type Cell = (I::V, I::V);
        type Calm = $calm;
        const IDEMPOTENT: bool = true;
        const CARES: bool = $cares;
        const LABELS: bool = true;
        fn nothing() -> A {
            outermost(LEAST)
        }
        #[inline(always)]
        fn join(isa: I, old: Self::Cell, new: Self::Cell) -> Self::Cell {
            isa.$pick::<LEAST>(old, new)
        }
        #[inline(always)]
        fn fresh(isa: I, number: I::V, label: A) -> Self::Cell {
            (number, isa.splat(label))
        }
        #[inline(always)]
        unsafe fn load(isa: I, from: *const A, labels: usize, shift: A) -> Self::Cell {
            // SAFETY: the caller vouches for both vectors.
            unsafe { (isa.load(from), isa.add(isa.load(from.add(labels)), isa.splat(shift))) }
        }
        #[inline(always)]
        unsafe fn store(isa: I, to: *mut A, labels: usize, cell: Self::Cell) {
            // SAFETY: the caller vouches for both vectors.
            unsafe {
                isa.store(to, cell.0);
                isa.store(to.add(labels), cell.1);
            }
        }
    };
}

impl<A: Accumulator, I: Maths<A>, const LEAST: bool> Kind<A, I> for Place<LEAST> {
    numbers_and_labels!(CalmPlace<LEAST>, true, pick);
}

impl<A: Accumulator, I: Maths<A>, const LEAST: bool> Kind<A, I> for CalmPlace<LEAST> {
    numbers_and_labels!(Self, false, calm_pick);
}

/// A buffer of cells: numbers, and `labels` further on their labels.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Distance of rows.
    pub pitch: usize,
    /// Distance of labels; 0 where there are none.
    pub labels: usize,
}

impl Shape {
    /// One row without labels.
    pub const FLAT: Shape = Shape { pitch: 0, labels: 0 };
}

/// One tap of a window: how far it is from the first number of the window, and what is added to its label.
pub type Tap<A> = (usize, A);

/// Windows of neighbouring columns over some rows: row `r`, column `c` of the result joins the source at
/// `r * pitch + c` plus the offset of each tap, in their order. Columns are rounded up to whole vectors.
#[derive(Clone, Copy, Debug)]
pub struct Fold<'a, A> {
    /// Rows of the result.
    pub rows: usize,
    /// Columns of the result.
    pub cols: usize,
    /// Taps of a window, at least one.
    pub taps: &'a [Tap<A>],
    /// The source; its pitch is the distance of windows.
    pub from: Shape,
    /// The destination.
    pub to: Shape,
}

/// Joins every window of `fold`.
pub fn fold<A: Accumulator, I: Simd<A>, K: Kind<A, I>>(isa: I, _: K, fold: &Fold<'_, A>, src: &[A], dst: &mut [A]) {
    if fold.rows == 0 || fold.cols == 0 {
        return;
    }
    let mut cols = fold.cols.next_multiple_of(I::LANES);
    let far = fold.taps.iter().map(|tap| tap.0).max().expect("a window has a tap");
    let read = (fold.rows - 1) * fold.from.pitch + cols + far + if K::LABELS { fold.from.labels } else { 0 };
    assert!(read <= src.len(), "{fold:?} leaves its source of {}", src.len());
    let end = (fold.rows - 1) * fold.to.pitch + cols + if K::LABELS { fold.to.labels } else { 0 };
    assert!(end <= dst.len(), "{fold:?} leaves its destination of {}", dst.len());
    let mut fold = *fold;
    if fold.from.pitch == cols && fold.to.pitch == cols {
        // Rows that follow each other are one long row.
        cols *= std::mem::replace(&mut fold.rows, 1);
    }
    let to = Cells { to: dst.as_mut_ptr(), labels: fold.to.labels };
    isa.run(Folding::<A, K, _> { fold: &fold, cols, src: src.as_ptr(), to, kind: PhantomData });
}

/// Where joined cells go.
pub trait Sink<A: Accumulator, I: Simd<A>, K: Kind<A, I>>: Copy {
    /// Writes the first `count` cells of a vector, or all of them where that does no harm, to the second place; they
    /// were read at the first place of the source.
    ///
    /// # Safety
    /// There must be room for what is written.
    unsafe fn put(self, isa: I, cell: K::Cell, places: [usize; 2], count: usize);
}

/// Cells like those that were read.
#[derive(Clone, Copy)]
pub(crate) struct Cells<A> {
    pub to: *mut A,
    pub labels: usize,
}

impl<A: Accumulator, I: Simd<A>, K: Kind<A, I>> Sink<A, I, K> for Cells<A> {
    #[inline(always)]
    unsafe fn put(self, isa: I, cell: K::Cell, [_, to]: [usize; 2], _count: usize) {
        // SAFETY: passed on unchanged.
        unsafe { K::store(isa, self.to.add(to), self.labels, cell) }
    }
}

/// The loop of [`fold`], whoever asserted that its source may be read up to whole vectors and its sink be written.
pub(crate) struct Folding<'a, A, K, P> {
    pub fold: &'a Fold<'a, A>,
    pub cols: usize,
    pub src: *const A,
    pub to: P,
    pub kind: PhantomData<K>,
}

impl<A: Accumulator, K: Kind<A, I>, I: Simd<A>, P: Sink<A, I, K>> Task<I> for Folding<'_, A, K, P> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let block = 4 * I::LANES;
        for r in 0..self.fold.rows {
            let mut c = 0;
            while c + block <= self.cols {
                self.columns::<I, 4>(isa, r, c);
                c += block;
            }
            while c < self.cols {
                // The last vector may overlap the one before it, but not end beyond the columns.
                c = if self.cols < I::LANES { c } else { c.min(self.cols - I::LANES) };
                self.columns::<I, 1>(isa, r, c);
                c += I::LANES;
            }
        }
    }
}

impl<A: Accumulator, K, P> Folding<'_, A, K, P> {
    #[inline(always)]
    fn columns<I: Simd<A>, const N: usize>(&self, isa: I, r: usize, c: usize)
    where
        K: Kind<A, I>,
        P: Sink<A, I, K>,
    {
        let Fold { taps, from, to, .. } = *self.fold;
        // SAFETY: whoever made this asserted that all rows, rounded up columns and taps are inside the source, and
        // that what the sink writes is inside the destination.
        unsafe {
            let src = self.src.add(r * from.pitch + c);
            let (first, shift) = taps[0];
            let mut cells = [K::load(isa, src.add(first), from.labels, shift); N];
            for n in 1..N {
                cells[n] = K::load(isa, src.add(first + n * I::LANES), from.labels, shift);
            }
            for t in 1..taps.len() {
                let (offset, shift) = taps[t];
                for n in 0..N {
                    let new = K::load(isa, src.add(offset + n * I::LANES), from.labels, shift);
                    cells[n] = K::join(isa, cells[n], new);
                }
            }
            for n in 0..N {
                let c = c + n * I::LANES;
                self.to.put(isa, cells[n], [r * from.pitch + c, r * to.pitch + c], self.cols - c);
            }
        }
    }
}

/// Joins each of `len` cells of `data` with the one `ahead`, in place; or, where `first` is given, puts there what
/// `first` has in its place joined with the one ahead. `len` is rounded up to whole vectors.
pub fn join_ahead<A: Accumulator, I: Simd<A>, K: Kind<A, I>>(
    isa: I,
    _: K,
    (len, ahead, labels): (usize, Tap<A>, usize),
    first: Option<&[A]>,
    data: &mut [A],
) {
    let len = len.next_multiple_of(I::LANES);
    let reach = if K::LABELS { labels } else { 0 } + len;
    assert!(reach + ahead.0 <= data.len(), "{len} cells and {} leave {}", ahead.0, data.len());
    assert!(first.is_none_or(|first| reach <= first.len()));
    let data = data.as_mut_ptr();
    let first = first.map_or(data.cast_const(), <[A]>::as_ptr);
    isa.run(Joining::<A, K> { len, ahead, labels, first, data, kind: PhantomData });
}

struct Joining<A, K> {
    len: usize,
    ahead: Tap<A>,
    labels: usize,
    first: *const A,
    data: *mut A,
    kind: PhantomData<K>,
}

impl<A: Accumulator, K: Kind<A, I>, I: Simd<A>> Task<I> for Joining<A, K> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        for c in (0..self.len).step_by(I::LANES) {
            // SAFETY: `join_ahead` asserted that all cells, and those ahead of them, are inside. What is ahead has
            // not been written yet, because the loop ascends and reads a vector before it writes one.
            unsafe {
                let old = K::load(isa, self.first.add(c), self.labels, A::default());
                let new = K::load(isa, self.data.add(c + self.ahead.0), self.labels, self.ahead.1);
                K::store(isa, self.data.add(c), self.labels, K::join(isa, old, new));
            }
        }
    }
}

/// Divides numbers by others.
pub fn divide<A: Accumulator, I: Maths<A>>(isa: I, numbers: &mut [A], by: &[A]) {
    assert!(by.len() >= numbers.len());
    isa.run(Dividing(numbers, by));
}

struct Dividing<'a, A>(&'a mut [A], &'a [A]);

impl<A: Accumulator, I: Maths<A>> Task<I> for Dividing<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        for (numbers, by) in self.0.chunks_mut(I::LANES).zip(self.1.chunks(I::LANES)) {
            let mask = isa.mask(0, numbers.len());
            // SAFETY: the mask chooses the lanes that both chunks have.
            unsafe {
                let quotient = isa.div(isa.load_masked(numbers.as_ptr(), mask), isa.load_masked(by.as_ptr(), mask));
                isa.store_masked(numbers.as_mut_ptr(), quotient, mask);
            }
        }
    }
}
