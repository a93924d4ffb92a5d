//! Pooling of short windows in one pass: every row of a plane is read once and every row of the result written once.
//!
//! A source row is joined along itself, where it stands so far as windows lie inside it; what padding, strides or
//! divisors change is widened into a line first. The joined row is held with its neighbours, in a ring that stays in
//! the smallest cache, and the row of the result that needs them is joined and ended (divided and rounded, or turned
//! into positions) straight into its place. Every number is asked once whether it is NaN; until one is found, joins are
//! the plain ones of the processor.

#![allow(clippy::needless_range_loop)] // Iterators over what a row holds would copy it.

use crate::isa::{Convert, Simd, Task};
use crate::maths::Maths;
use crate::rows::{Block, Copying, Widen, narrow_some};
use crate::strips::Strip;
use crate::windows::{Cells, Fold, Folding, Kind, Shape, Sink, Tap};
use std::marker::PhantomData;
use std::ops::Range;
use striate_core::{Accumulator, Element, Scalar};

/// Part of a source row that a line holds: a block of numbers, where it begins in the row and in the line.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The numbers.
    pub block: Block,
    /// First number in the row.
    pub from: usize,
    /// First number in the line.
    pub to: usize,
}

/// How lines are made and joined along themselves: one for all rows.
#[derive(Clone, Debug)]
pub struct Line<A> {
    /// What of a row is in a line.
    pub runs: Vec<Run>,
    /// Numbers in a line.
    pub len: usize,
    /// Windows along the line.
    pub taps: Vec<Tap<A>>,
    /// Numbers in a joined row.
    pub cols: usize,
    /// Where numbers may be read as they are: no runs, and the numbers of a line that stand in the source row in the
    /// same order, all others being padding, and the place in the source row of a line's first.
    pub stands: Option<(Range<usize>, isize)>,
}

/// Most rows that a row of the result is joined from.
pub const MOST: usize = 8;

/// One row of the result: source rows that must be read first, and the places of those that it is joined from. Source
/// row `r` is in place `r % held`; a row of no places is one of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// The first source row to be read, and the one behind the last.
    pub reads: (usize, usize),
    /// Places.
    pub taps: [usize; MOST],
    /// How far in the plane each of them is from the row where the window begins, in the padding or not.
    pub away: [usize; MOST],
    /// How many there are.
    pub count: usize,
}

/// Some columns of some rows of one plane.
#[derive(Clone, Copy, Debug)]
pub struct Sheet<'a, A> {
    /// How lines are made.
    pub line: &'a Line<A>,
    /// Rows of the result.
    pub rows: &'a [Row],
    /// Places for joined rows; none where the result is joined from the line alone.
    pub held: usize,
    /// Divisors of the numbers that are read: factors for source rows and for places in a line.
    pub divide: Option<(&'a [A], &'a [A])>,
    /// Distance of rows in the source and in the result.
    pub pitch: [usize; 2],
}

impl<A: Accumulator> Line<A> {
    /// Numbers in a place for a joined row.
    pub fn pitch(&self) -> usize {
        self.cols.next_multiple_of(SLACK)
    }

    /// Numbers of scratch memory for a sheet: two lines, the places, and a row of nothing.
    pub fn scratch(&self, held: usize, labels: bool) -> usize {
        2 * self.room() + (held + 1) * self.pitch() * if labels { 2 } else { 1 }
    }

    /// Numbers in a line, with what whole vectors of windows may read beyond.
    fn room(&self) -> usize {
        self.len.max(self.reach().end + self.pitch()).next_multiple_of(SLACK)
    }

    /// From the nearest tap to the farthest.
    fn reach(&self) -> Range<usize> {
        let (first, last) = (self.taps.iter().min_by_key(|tap| tap.0), self.taps.iter().max_by_key(|tap| tap.0));
        first.zip(last).map(|(first, last)| first.0..last.0).expect("a window has a tap")
    }

    /// Whether what the first and the last tap read is all that any reads.
    fn is_seen_by_ends(&self) -> bool {
        let reach = self.reach();
        reach.start == self.taps[0].0 && reach.end == self.taps[self.taps.len() - 1].0 && reach.len() <= self.cols
    }
}

/// What becomes of joined cells.
pub trait Ending<S: Scalar, I: Simd<S::Acc>, K: Kind<S::Acc, I>>: Copy {
    /// Numbers of the result.
    type To;
    /// What takes the cells of a row.
    type Sink: Sink<S::Acc, I, K> + Sink<S::Acc, I, K::Calm>;
    /// Whether it knows of so many rows, and of so many places in each.
    fn covers(&self, rows: usize, places: usize) -> bool;
    /// For a row of the result.
    fn row(self, isa: I, row: usize, to: *mut Self::To) -> Self::Sink;
}

/// Most numbers in a vector.
const SLACK: usize = 16;
/// Bytes that are asked for ahead of their use: pages of memory begin without the processor's own foresight.
const AHEAD: usize = 4096;

/// Pools a sheet.
pub fn pool<S: Scalar, I: Convert<S> + Maths<S::Acc>, K: Kind<S::Acc, I>, E: Ending<S, I, K>>(
    (isa, _, ending): (I, K, E),
    sheet: &Sheet<'_, S::Acc>,
    (src, scratch): (&[S], &mut [S::Acc]),
    dst: &mut [E::To],
) {
    let (Sheet { line, rows, held, divide, pitch }, apart) = (*sheet, sheet.line.pitch());
    if rows.is_empty() || line.cols == 0 {
        return;
    }
    let last = rows.iter().map(|row| row.reads.1).max().unwrap_or(0);
    for run in &line.runs {
        let [from, to] = run.block.reach();
        assert!(last == 0 || (last - 1) * pitch[0] + run.from + from <= src.len(), "{run:?} leaves its source");
        assert!(run.to + to <= line.len, "{run:?} leaves its line of {}", line.len);
    }
    let mut inner = 0..line.cols;
    if let Some((real, start)) = &line.stands {
        let [from, to] = [real.start, real.end].map(|at| start + at as isize);
        let own = S::DTYPE == <S::Acc as Element>::DTYPE;
        assert!(own && line.runs.is_empty() && divide.is_none() && from >= 0, "rows are read where they stand");
        assert!(last == 0 || ((last - 1) * pitch[0]) as isize + to <= src.len() as isize, "rows end outside");
        let lanes = <I as Simd<S::Acc>>::LANES;
        let (low, high) = (real.start.saturating_sub(line.reach().start), real.end.saturating_sub(line.reach().end));
        let (low, high) = (low.next_multiple_of(lanes), high.min(line.cols) / lanes * lanes);
        inner = if low < high { low..high } else { 0..0 };
    }
    let mut taps = rows.iter().flat_map(|row| &row.taps[..row.count]);
    assert!(taps.all(|&place| place < held.max(1)), "a joined row is not held");
    assert!((rows.len() - 1) * pitch[1] + line.cols <= dst.len(), "the result has no room");
    let divisors = divide.is_none_or(|(by_row, by)| last <= by_row.len() && line.len <= by.len());
    assert!(divisors && ending.covers(rows.len(), apart), "divisors or positions are missing");
    assert!(line.scratch(held, K::LABELS) <= scratch.len(), "scratch memory is short");
    let (lines, ring) = scratch.split_at_mut(2 * line.room());
    lines.fill(K::nothing());
    let (numbers, labels) = ring.split_at_mut((held + 1) * apart);
    numbers[held * apart..].fill(K::nothing());
    if K::LABELS {
        labels[held * apart..].fill(S::Acc::default());
    }
    let (ring, dst) = (ring.as_mut_ptr(), dst.as_mut_ptr());
    let (room, every) = (line.room(), !line.is_seen_by_ends());
    let soon = [Soon::new::<S>(line.len.min(pitch[0]), pitch[0]), Soon::new::<E::To>(line.cols, pitch[1])];
    let kind = PhantomData;
    isa.run(Streaming::<S, K, E, E::To> { sheet, ending, src, lines, room, inner, every, soon, ring, dst, kind });
}

struct Streaming<'a, S: Scalar, K, E, T> {
    sheet: &'a Sheet<'a, S::Acc>,
    ending: E,
    src: &'a [S],
    /// Two lines, so that a row is not read again while it is still on its way into one.
    lines: &'a mut [S::Acc],
    room: usize,
    /// Columns whose windows lie inside the source row.
    inner: Range<usize>,
    /// What is asked for with every row of the source, and of the result.
    soon: [Soon; 2],
    /// Whether NaN is to be looked for in what every tap reads, and not in the first and the last alone.
    every: bool,
    ring: *mut S::Acc,
    dst: *mut T,
    kind: PhantomData<K>,
}

impl<S: Scalar, I, K, E> Task<I> for Streaming<'_, S, K, E, E::To>
where
    I: Convert<S> + Maths<S::Acc>,
    K: Kind<S::Acc, I>,
    E: Ending<S, I, K>,
{
    type Out = ();
    #[inline(always)]
    fn call(mut self, isa: I) {
        let Sheet { rows, held, pitch, line, .. } = *self.sheet;
        // Whether no number has been NaN, the line that was filled last, and the row in it.
        let (mut calm, mut filled, mut holds) = (true, 0, usize::MAX);
        for (index, row) in rows.iter().enumerate() {
            self.soon[1].ask(isa, self.dst.wrapping_add(index * pitch[1]));
            let mut at = (0, filled);
            for read in row.reads.0..row.reads.1 {
                if holds != read {
                    filled ^= 1;
                    self.read(isa, read, filled);
                }
                at = (read, filled);
                let follows = if read + 1 < row.reads.1 {
                    Some((read + 1, read + 2))
                } else {
                    rows.get(index + 1).map(|row| row.reads)
                };
                if let Some((next, _)) = follows.filter(|reads| reads.0 < reads.1) {
                    (filled, holds) = (filled ^ 1, next);
                    self.read(isa, next, filled);
                }
                if held > 0 {
                    // SAFETY: the row is one of `held`.
                    let to = unsafe { self.ring.add(read % held * line.pitch()) };
                    let to = Cells { to, labels: (held + 1) * line.pitch() };
                    calm = calm && !self.windows::<I, K::Calm, _, true>(isa, at, to);
                    if !calm {
                        self.windows::<I, K, _, false>(isa, at, to);
                    }
                }
            }
            // SAFETY: `pool` asserted that the row has its place.
            let to = self.ending.row(isa, index, unsafe { self.dst.add(index * pitch[1]) });
            if held == 0 && row.count > 0 {
                calm = calm && !self.windows::<I, K::Calm, _, true>(isa, at, to);
                if !calm {
                    self.windows::<I, K, _, false>(isa, at, to);
                }
            } else if calm {
                self.across::<I, K::Calm, _>(isa, row, to);
            } else {
                self.across::<I, K, _>(isa, row, to);
            }
        }
    }
}

/// Memory that will be needed soon: how many bytes on, and how many.
#[derive(Clone, Copy)]
struct Soon(usize, usize);

impl Soon {
    /// Behind rows of so many numbers.
    fn new<T>(cols: usize, pitch: usize) -> Soon {
        let each = size_of::<T>();
        Soon((AHEAD / (cols * each).max(1)).max(1) * pitch * each, cols * each)
    }

    /// Asks for it.
    #[inline(always)]
    fn ask<I: crate::Isa, T>(self, isa: I, row: *const T) {
        let row = row.cast::<u8>().wrapping_add(self.0);
        let mut at = 0;
        while at < self.1 {
            isa.prefetch(row.wrapping_add(at));
            at += 64;
        }
    }
}

impl<S: Scalar, K, E, T> Streaming<'_, S, K, E, T> {
    /// Widens what of a source row the lines hold into one of them.
    #[inline(always)]
    fn read<I: Convert<S> + Maths<S::Acc>>(&mut self, isa: I, row: usize, filled: usize) {
        let Sheet { line, divide, pitch, .. } = *self.sheet;
        self.soon[0].ask(isa, self.src.as_ptr().wrapping_add(row * pitch[0]));
        if line.stands.is_some() {
            return;
        }
        // SAFETY: there are two lines.
        let to = unsafe { self.lines.as_mut_ptr().add(filled * self.room) };
        for run in &line.runs {
            let from = &self.src[row * pitch[0] + run.from..];
            // SAFETY: `pool` asserted that the block ends inside the line.
            let copying = Copying::<Widen<S>, I> { block: &run.block, from, to: unsafe { to.add(run.to) } };
            for r in 0..run.block.rows {
                copying.row(isa, r);
            }
        }
        let Some((by_row, by)) = divide else { return };
        let (by_row, zero) = (isa.splat(by_row[row]), isa.splat(S::Acc::default()));
        for at in (0..line.len).step_by(<I as Simd<S::Acc>>::LANES) {
            // SAFETY: a line has whole vectors, and `pool` asserted that there are as many divisors.
            unsafe {
                let (to, by) = (to.add(at), isa.mul_add(by_row, isa.load(by.as_ptr().add(at)), zero));
                isa.store(to, isa.div(isa.load(to), by));
            }
        }
    }

    /// Joins the windows along a row, which is in one of the lines so far as it must be. If `WATCH`, returns whether
    /// there was a NaN.
    #[inline(always)]
    fn windows<I, J, P, const WATCH: bool>(&self, isa: I, (row, filled): (usize, usize), to: P) -> bool
    where
        I: Convert<S> + Maths<S::Acc>,
        K: Kind<S::Acc, I>,
        J: Kind<S::Acc, I>,
        P: Sink<S::Acc, I, J>,
    {
        let Sheet { line, pitch, .. } = *self.sheet;
        let (taps, every, cols) = (&line.taps[..], self.every, 0..line.cols);
        // SAFETY: there are two lines, and `pool` asserted what inner columns read.
        let found = unsafe {
            if let Some((real, start)) = &line.stands {
                let from = self.src.as_ptr().wrapping_add(row * pitch[0]).wrapping_offset(*start).cast();
                let strip = Strip { taps, every, from, to };
                let (inner, padding) = (self.inner.clone(), Some(real));
                strip.run::<I, J, WATCH>(isa, 0..inner.start, padding)
                    | strip.run::<I, J, WATCH>(isa, inner.clone(), None)
                    | strip.run::<I, J, WATCH>(isa, inner.end..cols.end, padding)
            } else {
                let from = self.lines.as_ptr().add(filled * self.room);
                Strip { taps, every, from, to }.run::<I, J, WATCH>(isa, cols, None)
            }
        };
        K::CARES && found
    }

    /// Joins a row of the result from rows that were joined along themselves.
    #[inline(always)]
    fn across<I, J, P>(&mut self, isa: I, row: &Row, to: P)
    where
        I: Convert<S> + Maths<S::Acc>,
        J: Kind<S::Acc, I>,
        P: Sink<S::Acc, I, J>,
    {
        let Sheet { line, held, .. } = *self.sheet;
        let apart = line.pitch();
        let (nothing, mut places) = ([(held * apart, S::Acc::default())], [(0, S::Acc::default()); MOST]);
        for n in 0..row.count {
            let shift = if J::LABELS { S::Acc::from_f64(row.away[n] as f64) } else { S::Acc::default() };
            places[n] = (row.taps[n] * apart, shift);
        }
        let taps: &[Tap<S::Acc>] = if row.count == 0 { &nothing } else { &places[..row.count] };
        let from = Shape { pitch: 0, labels: (held + 1) * apart };
        let (fold, src) = (Fold { rows: 1, cols: line.cols, taps, from, to: Shape::FLAT }, self.ring.cast_const());
        Folding::<_, J, _> { fold: &fold, cols: line.cols, src, to, kind: PhantomData }.call(isa);
    }
}

/// Numbers, rounded where they are stored; averages are divided before by the product of a factor for the row and one
/// for the place in it.
#[derive(Clone, Copy)]
pub struct Numbers<'a, A> {
    /// Factors for rows and for places.
    pub divide: Option<(&'a [A], &'a [A])>,
}

impl<S: Scalar, I: Convert<S> + Maths<S::Acc>, K> Ending<S, I, K> for Numbers<'_, S::Acc>
where
    K: Kind<S::Acc, I, Cell = <I as Simd<S::Acc>>::V>,
{
    type To = S;
    type Sink = Stored<S, <I as Simd<S::Acc>>::V>;
    fn covers(&self, rows: usize, places: usize) -> bool {
        self.divide.is_none_or(|(by_row, by)| rows <= by_row.len() && places <= by.len())
    }
    #[inline(always)]
    fn row(self, isa: I, row: usize, to: *mut S) -> Self::Sink {
        Stored { to, by: self.divide.map(|(by_row, by)| (isa.splat(by_row[row]), by.as_ptr())) }
    }
}

/// Stored numbers, divided first where there are divisors: a factor for the row, and one for every place.
#[derive(Clone, Copy)]
pub struct Stored<S: Scalar, V> {
    to: *mut S,
    by: Option<(V, *const S::Acc)>,
}

impl<S: Scalar, I: Convert<S> + Maths<S::Acc>, K> Sink<S::Acc, I, K> for Stored<S, <I as Simd<S::Acc>>::V>
where
    K: Kind<S::Acc, I, Cell = <I as Simd<S::Acc>>::V>,
{
    #[inline(always)]
    unsafe fn put(self, isa: I, numbers: K::Cell, [from, to]: [usize; 2], count: usize) {
        // SAFETY: divisors reach as far as the source; the caller vouches for the numbers that are written.
        unsafe {
            let numbers = match self.by {
                Some((row, by)) => {
                    isa.div(numbers, isa.mul_add(row, isa.load(by.add(from)), isa.splat(S::Acc::default())))
                }
                None => numbers,
            };
            match count < <I as Simd<S::Acc>>::LANES {
                true => narrow_some(isa, numbers, self.to.add(to), count),
                false => isa.narrow(numbers, self.to.add(to)),
            }
        }
    }
}
