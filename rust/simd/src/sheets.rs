//! Pooling of short windows in one pass: every row of a plane is read once and every row of the result written once.
//!
//! A source row is widened into a line between the padding of its windows and joined along itself; the joined row is
//! held with its neighbours, in a ring that stays in the smallest cache, and the row of the result that needs them is
//! joined, divided and rounded straight into its place. Every number is asked once whether it is NaN; until one is
//! found, joins are the plain ones of the processor.

#![allow(clippy::needless_range_loop)] // Iterators over what a row holds would copy it.

use crate::isa::{Convert, Simd, Task};
use crate::maths::Maths;
use crate::rows::{Block, Copying, Widen, narrow_some};
use crate::windows::{Cells, Fold, Folding, Kind, Shape, Sink, Tap};
use std::marker::PhantomData;
use striate_core::{Accumulator, Scalar};

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
    /// How many there are.
    pub count: usize,
}

/// What numbers are divided by: each by the product of a factor for its row and one for its place in the row.
#[derive(Clone, Copy, Debug)]
pub enum Divide<'a, A> {
    /// Nothing.
    Not,
    /// Numbers of source rows, with factors for source rows and for places in a line.
    Read(&'a [A], &'a [A]),
    /// Numbers of the result, with factors for its rows and for places in a joined row.
    Joined(&'a [A], &'a [A]),
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
    /// Divisors.
    pub divide: Divide<'a, A>,
    /// Distance of rows in the source and in the result.
    pub pitch: [usize; 2],
}

impl<A: Accumulator> Line<A> {
    /// Numbers in a place for a joined row.
    pub fn pitch(&self) -> usize {
        self.cols.next_multiple_of(SLACK)
    }

    /// Numbers of scratch memory for a sheet: the line, the places, and a row of nothing.
    pub fn scratch(&self, held: usize) -> usize {
        self.room() + (held + 1) * self.pitch()
    }

    /// Numbers in a line, with what whole vectors of windows may read beyond.
    fn room(&self) -> usize {
        let far = self.taps.iter().map(|tap| tap.0).max().expect("a window has a tap");
        self.len.max(far + self.pitch()).next_multiple_of(SLACK)
    }
}

/// Most numbers in a vector.
const SLACK: usize = 16;

/// Pools a sheet.
pub fn pool<S: Scalar, I: Convert<S> + Maths<S::Acc>, K: Kind<S::Acc, I, Cell = <I as Simd<S::Acc>>::V>>(
    (isa, _): (I, K),
    sheet: &Sheet<'_, S::Acc>,
    (src, scratch): (&[S], &mut [S::Acc]),
    dst: &mut [S],
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
    let mut taps = rows.iter().flat_map(|row| &row.taps[..row.count]);
    assert!(taps.all(|&place| place < held.max(1)), "a joined row is not held");
    assert!((rows.len() - 1) * pitch[1] + line.cols <= dst.len(), "the result has no room");
    let divisors = match divide {
        Divide::Not => true,
        Divide::Read(by_row, by) => last <= by_row.len() && line.len <= by.len(),
        Divide::Joined(by_row, by) => rows.len() <= by_row.len() && apart <= by.len(),
    };
    assert!(divisors, "divisors are missing");
    assert!(line.scratch(held) <= scratch.len(), "scratch memory is short");
    let (numbers, ring) = scratch.split_at_mut(line.room());
    numbers.fill(K::nothing());
    ring[held * apart..].fill(K::nothing());
    let (line, ring) = (numbers, ring.as_mut_ptr());
    isa.run(Streaming::<S, K> { sheet, src, line, ring, dst: dst.as_mut_ptr(), kind: PhantomData });
}

struct Streaming<'a, S: Scalar, K> {
    sheet: &'a Sheet<'a, S::Acc>,
    src: &'a [S],
    line: &'a mut [S::Acc],
    ring: *mut S::Acc,
    dst: *mut S,
    kind: PhantomData<K>,
}

impl<S: Scalar, I: Convert<S> + Maths<S::Acc>, K> Task<I> for Streaming<'_, S, K>
where
    K: Kind<S::Acc, I, Cell = <I as Simd<S::Acc>>::V>,
{
    type Out = ();
    #[inline(always)]
    fn call(mut self, isa: I) {
        let mut calm = true;
        for (index, row) in self.sheet.rows.iter().enumerate() {
            for read in row.reads.0..row.reads.1 {
                self.read(isa, read);
                calm = calm && !(K::CARES && self.any_nan(isa));
                match (self.sheet.held > 0, calm) {
                    (true, true) => self.along::<I, K::Calm>(isa, read),
                    (true, false) => self.along::<I, K>(isa, read),
                    (false, _) => {}
                }
            }
            match calm {
                true => self.across::<I, K::Calm>(isa, (index, row)),
                false => self.across::<I, K>(isa, (index, row)),
            }
        }
    }
}

impl<S: Scalar, K> Streaming<'_, S, K> {
    /// Widens a source row into the line.
    #[inline(always)]
    fn read<I: Convert<S> + Maths<S::Acc>>(&mut self, isa: I, row: usize) {
        let Sheet { line, divide, pitch, .. } = *self.sheet;
        for run in &line.runs {
            let from = &self.src[row * pitch[0] + run.from..];
            // SAFETY: `pool` asserted that the block ends inside the line.
            let to = unsafe { self.line.as_mut_ptr().add(run.to) };
            let copying = Copying::<Widen<S>, I> { block: &run.block, from, to };
            for r in 0..run.block.rows {
                copying.row(isa, r);
            }
        }
        let Divide::Read(by_row, by) = divide else { return };
        let by_row = isa.splat(by_row[row]);
        for at in (0..line.len).step_by(<I as Simd<S::Acc>>::LANES) {
            // SAFETY: the line has whole vectors, and `pool` asserted that there are as many divisors.
            unsafe {
                let to = self.line.as_mut_ptr().add(at);
                isa.store(
                    to,
                    isa.div(
                        isa.load(to),
                        isa.mul_add(by_row, isa.load(by.as_ptr().add(at)), isa.splat(S::Acc::default())),
                    ),
                );
            }
        }
    }

    /// Whether a number of the line is NaN.
    #[inline(always)]
    fn any_nan<I: Maths<S::Acc>>(&self, isa: I) -> bool {
        let mut found = false;
        for numbers in self.line.chunks_exact(I::LANES) {
            // SAFETY: the chunk is exactly one vector.
            found |= isa.any_nan(unsafe { isa.load(numbers.as_ptr()) });
        }
        found
    }

    /// Joins the line along itself into its place.
    #[inline(always)]
    fn along<I: Simd<S::Acc>, J: Kind<S::Acc, I>>(&mut self, isa: I, row: usize) {
        let Sheet { line, held, .. } = *self.sheet;
        let cols = line.pitch().min(line.cols.next_multiple_of(I::LANES));
        let fold = Fold { rows: 1, cols, taps: &line.taps, from: Shape::FLAT, to: Shape::FLAT };
        // SAFETY: the row is one of `held`.
        let to = Cells { to: unsafe { self.ring.add(row % held * line.pitch()) }, labels: 0 };
        Folding::<_, J, _> { fold: &fold, cols, src: self.line.as_ptr(), to, kind: PhantomData }.call(isa);
    }

    /// Joins a row of the result.
    #[inline(always)]
    fn across<I: Convert<S> + Maths<S::Acc>, J>(&mut self, isa: I, (index, row): (usize, &Row))
    where
        J: Kind<S::Acc, I, Cell = <I as Simd<S::Acc>>::V>,
    {
        let Sheet { line, held, divide, pitch, .. } = *self.sheet;
        let apart = line.pitch();
        let by = match divide {
            Divide::Joined(by_row, by) => Some((isa.splat(by_row[index]), by.as_ptr())),
            _ => None,
        };
        // SAFETY: `pool` asserted that the row has its place.
        let to = Stored { to: unsafe { self.dst.add(index * pitch[1]) }, by };
        let (nothing, mut places) = ([(held * apart, S::Acc::default())], [(0, S::Acc::default()); MOST]);
        for n in 0..row.count {
            places[n].0 = row.taps[n] * apart;
        }
        let (taps, src): (&[Tap<S::Acc>], _) = match (row.count, held) {
            (0, _) => (&nothing, self.ring.cast_const()),
            (_, 0) => (&line.taps, self.line.as_ptr()),
            (count, _) => (&places[..count], self.ring.cast_const()),
        };
        let fold = Fold { rows: 1, cols: line.cols, taps, from: Shape::FLAT, to: Shape::FLAT };
        Folding::<_, J, _> { fold: &fold, cols: line.cols, src, to, kind: PhantomData }.call(isa);
    }
}

/// Stored numbers, divided first where there are divisors: a factor for the row, and one for every place.
#[derive(Clone, Copy)]
struct Stored<S: Scalar, V> {
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
