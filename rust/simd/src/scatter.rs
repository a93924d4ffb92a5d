//! Numbers summed at positions that lie in the windows they belong to: every position looks up the windows it is in,
//! and adds the numbers whose labels (how far from the start of its window a position is) lead to it. Sums run in the
//! order of the windows, whatever the width of vectors.

use crate::isa::{Isa, Task};
use crate::maths::Maths;
use striate_core::Accumulator;

/// A window that a position is in: where its number is, and the label that leads from there to the position.
pub type Hit<A> = (usize, A);

/// One row of sums: each is made of the hits of every row of windows and, within it, of every window of the row.
#[derive(Clone, Copy, Debug)]
pub struct Gathering<'a, A> {
    /// Rows of windows.
    pub rows: &'a [Hit<A>],
    /// Windows of a row.
    pub along: &'a [Hit<A>],
    /// Sums, rounded up to whole vectors.
    pub cols: usize,
}

/// Sums a row from numbers and their labels.
pub fn gather<A: Accumulator, I: Maths<A>>(
    isa: I,
    row: &Gathering<'_, A>,
    [numbers, labels]: [&[A]; 2],
    sums: &mut [A],
) {
    let cols = row.cols.next_multiple_of(I::LANES);
    let far = |hits: &[Hit<A>]| hits.iter().map(|hit| hit.0).max();
    if let (Some(a), Some(b)) = (far(row.rows), far(row.along)) {
        assert!(a + b + cols <= numbers.len().min(labels.len()), "{row:?} leaves its numbers of {}", numbers.len());
    }
    assert!(cols <= sums.len(), "{row:?} leaves its sums of {}", sums.len());
    isa.run(Summing { row, cols, from: [numbers.as_ptr(), labels.as_ptr()], sums: sums.as_mut_ptr() });
}

struct Summing<'a, A> {
    row: &'a Gathering<'a, A>,
    cols: usize,
    from: [*const A; 2],
    sums: *mut A,
}

impl<A: Accumulator, I: Maths<A>> Task<I> for Summing<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let mut c = 0;
        while c + 4 * I::LANES <= self.cols {
            self.block::<I, 4>(isa, c);
            c += 4 * I::LANES;
        }
        while c < self.cols {
            self.block::<I, 1>(isa, c);
            c += I::LANES;
        }
    }
}

impl<A: Accumulator> Summing<'_, A> {
    #[inline(always)]
    fn block<I: Maths<A>, const N: usize>(&self, isa: I, c: usize) {
        let mut sums = [isa.splat(A::default()); N];
        for &(row, down) in self.row.rows {
            for &(place, on) in self.row.along {
                let (label, mut at) = (isa.splat(down + on), row + place + c);
                for sum in &mut sums {
                    // SAFETY: `gather` asserted that all hits of all columns are inside.
                    unsafe {
                        let (number, found) = (isa.load(self.from[0].add(at)), isa.load(self.from[1].add(at)));
                        *sum = isa.add_where(*sum, number, found, label);
                    }
                    at += I::LANES;
                }
            }
        }
        for (n, sum) in sums.into_iter().enumerate() {
            // SAFETY: `gather` asserted that there is room for whole vectors.
            unsafe { isa.store(self.sums.add(c + n * I::LANES), sum) };
        }
    }
}

/// Labels of neighbouring places: how far positions are from where their windows begin, of the row and, `starts`, of the
/// places in it.
pub fn label<T: Copy, A: Accumulator, I: Isa>(isa: I, (places, row): (&[T], i64), starts: &[i64], to: &mut [A])
where
    i64: From<T>,
{
    isa.run(Labelling { places, row, starts, to });
}

struct Labelling<'a, T, A> {
    places: &'a [T],
    row: i64,
    starts: &'a [i64],
    to: &'a mut [A],
}

impl<T: Copy, A: Accumulator, I: Isa> Task<I> for Labelling<'_, T, A>
where
    i64: From<T>,
{
    type Out = ();
    #[inline(always)]
    fn call(self, _isa: I) {
        for ((to, &place), start) in self.to.iter_mut().zip(self.places).zip(self.starts) {
            // Further than f64 counts is in no window.
            *to = A::from_f64((i64::from(place) - self.row - start) as f64);
        }
    }
}
