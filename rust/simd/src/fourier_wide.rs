//! One long transform of [`crate::fourier`] on several threads.
//!
//! The top levels are done one after the other, each by all threads on columns of their own; then the blocks that they
//! leave are independent transforms. Every number sees the same operations as on one thread, so the bits are the same.

use crate::butterfly::Place;
use crate::fourier::{Columns, Halves, Ring, Walk, pair, single};
use crate::isa::Task;
use crate::wave::Wave;
use striate_core::Accumulator;
use striate_core::pool::{Pool, claim};

/// Complex numbers below which threads are not worth their meeting.
const LONG: usize = 1 << 15;
/// Columns of a task.
const STRIP: usize = 4096;

/// An address that several threads use, each for numbers of its own.
struct Shared<A>(Place<A>);

// SAFETY: whoever makes one promises that no two threads touch the same number.
unsafe impl<A: Sync> Sync for Shared<A> {}

impl<A> Shared<A> {
    fn place(&self) -> Place<A> {
        self.0
    }
}

/// One level, or two at once, of some columns of a block.
struct Strip<'a, A, const THERE: bool> {
    ring: &'a Ring<A>,
    at: Place<A>,
    level: Option<(u32, usize)>,
    columns: Columns,
}

impl<A: Accumulator, I: Wave<A>, const THERE: bool> Task<I> for Strip<'_, A, THERE> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        // SAFETY: `Ring::level` cuts a ring whose numbers it vouches for.
        unsafe {
            match self.level {
                None => single::<A, I, THERE>(isa, self.ring, self.at, self.columns),
                Some(level) => pair::<A, I, THERE>(isa, &self.ring.roots, level, self.at, self.columns),
            }
        }
    }
}

impl<A: Accumulator> Ring<A> {
    /// Whether the transform is long enough for several threads.
    pub fn is_long(&self) -> bool {
        self.length >= LONG && self.above >= 2
    }

    /// [`Ring::forward`] by all threads of a pool.
    pub fn forward_wide<I: Wave<A>>(&self, isa: I, pool: &dyn Pool, numbers: Halves<'_, A>) {
        self.wide::<I, true, false>(isa, pool, numbers, &[]);
    }

    /// [`Ring::inverse`] by all threads of a pool.
    pub fn inverse_wide<I: Wave<A>>(&self, isa: I, pool: &dyn Pool, numbers: Halves<'_, A>) {
        self.wide::<I, false, true>(isa, pool, numbers, &[]);
    }

    /// [`Ring::multiply`] by all threads of a pool.
    pub fn multiply_wide<I: Wave<A>>(&self, isa: I, pool: &dyn Pool, numbers: Halves<'_, A>, by: &[A]) {
        self.wide::<I, true, true>(isa, pool, numbers, by);
    }

    fn wide<I: Wave<A>, const THERE: bool, const BACK: bool>(
        &self,
        isa: I,
        pool: &dyn Pool,
        numbers: Halves<'_, A>,
        by: &[A],
    ) {
        let (at, by) = self.places::<THERE, BACK>(numbers, by);
        let (at, by) = (Shared(at), Shared(by));
        let odd = self.above % 2;
        let mut top = odd;
        while top + 2 <= self.above && (1 << top) < 2 * pool.width() {
            top += 2;
        }
        if THERE {
            if odd == 1 {
                self.level::<I, true>(isa, pool, &at, None);
            }
            (odd..top).step_by(2).for_each(|level| self.level::<I, true>(isa, pool, &at, Some(level)));
        }
        let each = self.leaves::<I>() >> top;
        claim(pool, 1 << top, &|_, block| {
            let leaves = block * each..(block + 1) * each;
            // Blocks are disjoint, and the caller holds all of them.
            isa.run(Walk::<A, THERE, BACK> { ring: self, at: at.place(), by: by.place(), top, leaves });
        });
        if BACK {
            (odd..top).step_by(2).rev().for_each(|level| self.level::<I, false>(isa, pool, &at, Some(level)));
            if odd == 1 {
                self.level::<I, false>(isa, pool, &at, None);
            }
        }
    }

    /// A level and the next of all blocks, or the first level alone.
    fn level<I: Wave<A>, const THERE: bool>(&self, isa: I, pool: &dyn Pool, at: &Shared<A>, level: Option<u32>) {
        let each = level.map_or(self.length / 2, |level| self.length >> (level + 2));
        let strips = each.div_ceil(STRIP);
        claim(pool, level.map_or(1, |level| 1 << level) * strips, &|_, task| {
            let (block, first) = (task / strips, task % strips * STRIP);
            let columns = Columns { each, some: first..(first + STRIP).min(each) };
            let level = level.map(|level| (level, block));
            isa.run(Strip::<A, THERE> { ring: self, at: at.place(), level, columns });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portable::Portable;

    struct Threads(usize);
    impl Pool for Threads {
        fn width(&self) -> usize {
            self.0
        }
        fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|scope| {
                for slot in 0..slots {
                    scope.spawn(move || body(slot));
                }
            });
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for length in [LONG, 2 * LONG] {
            let number = |i: usize| ((i * 37 + 11) % 101) as f32 - 50.0;
            let x: Vec<f32> = (0..2 * length).map(number).collect();
            let by: Vec<f32> = (0..2 * length).map(|i| number(3 * i + 5)).collect();
            let ring = Ring::new(Portable, length);
            assert!(ring.is_long());
            let mut alone = [x.clone(), x.clone(), x.clone()];
            ring.forward(Portable, Halves::of(&mut alone[0]));
            ring.inverse(Portable, Halves::of(&mut alone[1]));
            ring.multiply(Portable, Halves::of(&mut alone[2]), &by);
            for width in [2, 3, 9] {
                let (pool, mut many) = (Threads(width), [x.clone(), x.clone(), x.clone()]);
                ring.forward_wide(Portable, &pool, Halves::of(&mut many[0]));
                ring.inverse_wide(Portable, &pool, Halves::of(&mut many[1]));
                ring.multiply_wide(Portable, &pool, Halves::of(&mut many[2]), &by);
                assert!(alone == many, "{length} on {width} threads");
            }
        }
    }
}
