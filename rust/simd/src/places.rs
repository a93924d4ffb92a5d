//! Positions of extremes, from labels that count from the start of a window.

#![allow(clippy::needless_range_loop)] // Closures would not be compiled for the instruction set.

use crate::isa::{Convert, Simd};
use crate::maths::Maths;
use crate::sheets::Ending;
use crate::windows::{Kind, Sink};
use std::marker::PhantomData;
use striate_core::{Accumulator, Element, Scalar};

/// A type of positions.
pub trait Index: Element {
    /// A position, from one nearby.
    fn near(base: i64, away: i32) -> Self;
}

impl Index for i32 {
    #[inline(always)]
    fn near(base: i64, away: i32) -> i32 {
        (base as i32).wrapping_add(away)
    }
}

impl Index for i64 {
    #[inline(always)]
    fn near(base: i64, away: i32) -> i64 {
        base + i64::from(away)
    }
}

/// Where in the plane windows begin: a part for the row and one for the place in it.
#[derive(Clone, Copy)]
pub struct Starts<'a, A> {
    /// Of rows of the result.
    pub rows: &'a [i64],
    /// Of places in a row, whole numbers.
    pub places: &'a [A],
}

/// Labels become positions in the plane, of type `T`.
#[derive(Clone, Copy)]
pub struct Positions<'a, A, T> {
    /// Of the first tap of a window, inside the plane or not: what labels count from.
    pub windows: Starts<'a, A>,
    /// Of the first tap inside, the answer where no number is better than nothing.
    pub inside: Starts<'a, A>,
    /// What is joined where there is no number.
    pub nothing: A,
    /// The type.
    pub stored: PhantomData<T>,
}

impl<'a, S: Scalar, T: Index, I: Convert<S> + Maths<S::Acc>, K> Ending<S, I, K> for Positions<'a, S::Acc, T>
where
    K: Kind<S::Acc, I, Cell = (<I as Simd<S::Acc>>::V, <I as Simd<S::Acc>>::V)>,
{
    type To = T;
    type Sink = Placed<'a, S::Acc, T>;
    fn covers(&self, rows: usize, places: usize) -> bool {
        [self.windows, self.inside].iter().all(|starts| rows <= starts.rows.len() && places <= starts.places.len())
    }
    #[inline(always)]
    fn row(self, _isa: I, row: usize, to: *mut T) -> Placed<'a, S::Acc, T> {
        Placed { positions: self, row, to }
    }
}

/// The positions of one row.
#[derive(Clone, Copy)]
pub struct Placed<'a, A, T> {
    positions: Positions<'a, A, T>,
    row: usize,
    to: *mut T,
}

/// Numbers in the widest vector.
const MOST_LANES: usize = 16;

impl<A: Accumulator, T: Index, I: Maths<A>, K> Sink<A, I, K> for Placed<'_, A, T>
where
    K: Kind<A, I, Cell = (I::V, I::V)>,
{
    #[inline(always)]
    unsafe fn put(self, isa: I, (numbers, labels): K::Cell, [from, to]: [usize; 2], count: usize) {
        let Positions { windows, inside, nothing, .. } = self.positions;
        let (base, mut away) = (windows.rows[self.row], [0; MOST_LANES]);
        // SAFETY: starts reach as far as the source, and the array holds any vector.
        unsafe { isa.whole(isa.add(labels, isa.load(windows.places.as_ptr().add(from))), away.as_mut_ptr()) };
        if isa.any_equal(numbers, isa.splat(nothing)) {
            let (mut found, shift) = ([A::default(); MOST_LANES], inside.rows[self.row] - base);
            // SAFETY: the array holds any vector.
            unsafe { isa.store(found.as_mut_ptr(), numbers) };
            for lane in 0..I::LANES {
                if found[lane].to_f64() == nothing.to_f64() {
                    away[lane] = (shift + inside.places[from + lane].to_f64() as i64) as i32;
                }
            }
        }
        let to = self.to.wrapping_add(to);
        // SAFETY: the caller vouches for the positions that are written.
        unsafe {
            if count >= I::LANES {
                for lane in 0..I::LANES {
                    to.add(lane).write(T::near(base, away[lane]));
                }
            } else {
                for lane in 0..count {
                    to.add(lane).write(T::near(base, away[lane]));
                }
            }
        }
    }
}
