//! Tables of roots of unity for [`crate::fourier`], made once per length.

use crate::isa::Simd;
use crate::tables::remembered;
use std::f64::consts::TAU;
use std::sync::Arc;
use striate_core::Accumulator;

/// The roots of the two square roots' first, for every block of every level.
///
/// A block of level `l` is a polynomial modulo `z^(2s) - c`; its halves are those modulo `z^s - w` and `z^s + w` with
/// `w` a square root of `c`. The first block has `c = i`. In turns, `w` is half of `c` for the first half and half a
/// turn more for the second.
pub struct Roots<A> {
    /// `w` of block `b` of level `l` at `2^l + b`, real and imaginary part, for levels whose blocks are whole vectors.
    pub rows: Vec<[A; 2]>,
    /// For every square of lanes: per level inside a vector, `w` of the first block of each lane, real parts and
    /// imaginary parts.
    pub tail: Vec<A>,
    /// Per level inside a vector, how `w` of its other blocks differs from the first one's: a factor for each.
    pub turns: Vec<[A; 2]>,
}

/// The turns of `c` for block `block` of a level, when the first block of level 0 has `start`.
fn turns(start: f64, level: u32, block: usize) -> f64 {
    (0..level).rev().fold(start, |c, bit| c / 2.0 + ((block >> bit) & 1) as f64 / 2.0)
}

fn root<A: Accumulator>(turns: f64) -> [A; 2] {
    let (sin, cos) = (TAU * turns).sin_cos();
    [A::from_f64(cos), A::from_f64(sin)]
}

impl<A: Accumulator> Roots<A> {
    fn new(length: usize, lanes: usize) -> Roots<A> {
        let (levels, inside) = (length.trailing_zeros(), lanes.trailing_zeros());
        let whole = levels - inside;
        let of = |level: u32, block: usize| root::<A>(turns(0.25, level, block) / 2.0);
        let mut rows = vec![[A::default(); 2]];
        rows.extend((0..whole).flat_map(|level| (0..1usize << level).map(move |block| of(level, block))));
        let mut tail = Vec::with_capacity(length / lanes * inside as usize * 2);
        for square in 0..length / (lanes * lanes) {
            for level in 0..inside {
                let first = |lane: usize| of(whole + level, (square * lanes + lane) << level);
                tail.extend((0..lanes).map(|lane| first(lane)[0]));
                tail.extend((0..lanes).map(|lane| first(lane)[1]));
            }
        }
        let between = |level: u32| (0..1usize << level).map(move |block| root(turns(0.0, level, block) / 2.0));
        Roots { rows, tail, turns: (0..inside).flat_map(between).collect() }
    }
}

/// The table for a transform of `length` complex numbers.
pub fn roots<A: Accumulator, I: Simd<A>>(length: usize) -> Arc<Roots<A>> {
    remembered((length, I::LANES), || Roots::new(length, I::LANES))
}
