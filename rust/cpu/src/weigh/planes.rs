//! Sums over small planes of contiguous tensors, read as they are.

use super::steps::steps;
use crate::frame::{Frame, Lanes, Strides, Track};
use crate::planes::real;
use crate::tiling::Mode;
use std::ops::Range;
use striate_core::Accumulator;
use striate_simd::Simd;
use striate_simd::ahead::Ahead;
use striate_simd::gather::{Gather, Job};
use striate_simd::turn::Turn;

/// Sums with vectors that suit the width of planes.
pub enum Planes<A: Accumulator, I: Simd<A>> {
    Whole(Width<A, I>),
    Half(Width<A, I::Half>),
}

impl<A: Accumulator, I: Simd<A>> Planes<A, I> {
    /// For a problem that [`crate::planes::takes`] admits.
    pub fn new(tracks: &[Track; 3], strides: (&Strides, &Strides)) -> Self {
        if tracks[2].outs <= I::Half::LANES {
            Planes::Half(Width::new(tracks, strides))
        } else {
            Planes::Whole(Width::new(tracks, strides))
        }
    }

    /// Adds planes, so many and so far apart in gradient and input. The gradient given starts with the first of them,
    /// whose input begins at `at`.
    pub fn add(
        &self,
        isa: I,
        planes: (usize, (usize, usize)),
        tensors: (&[A], &[A], usize),
        ahead: [Ahead; 2],
        sums: &mut [A],
    ) {
        match self {
            Planes::Whole(width) => width.add(isa, planes, tensors, ahead, sums),
            Planes::Half(width) => width.add(isa.half(), planes, tensors, ahead, sums),
        }
    }
}

/// Vectors of one width.
pub struct Width<A, I> {
    gather: Gather<A, I>,
    /// Offset of the first tap of the first position, and the rows from there that are real.
    base: isize,
    rows: Range<usize>,
}

impl<A: Accumulator, I: Simd<A>> Width<A, I> {
    fn new(tracks: &[Track; 3], (grad, input): (&Strides, &Strides)) -> Self {
        let [_, rows, columns] = tracks;
        let frame = Frame::of_tensor(input, Lanes::Width);
        let mut offsets = steps::<A, I>(Mode::Rows, &frame, tracks, [1, rows.outs, columns.outs], grad.axis);
        let (along, stride) = (columns.sweeps[0], columns.src_step());
        offsets.turn = if stride == 2 { Turn::Evens } else { Turn::None };
        let taps = || (0..along.taps).map(|tap| tap * along.reach_step);
        for step in &mut offsets.steps {
            let first = along.src0 + (step.grad % grad.axis[1] * stride) as i64;
            step.edges = offsets.edges.len();
            if offsets.turn == Turn::None {
                offsets.edges.extend(taps().map(|tap| real(first + tap, columns.source, step.lanes.1)));
            } else {
                offsets.edges.push(real(first, columns.source, offsets.turn.numbers(I::LANES)));
            }
        }
        if offsets.turn != Turn::None {
            offsets.others = taps().map(|tap| offsets.turn.position(tap as usize, I::LANES)).collect();
        }
        offsets.bounded = true;
        let first = rows.sweeps[0].src0;
        let row = |at: i64| (at - first).max(0) as usize;
        Width {
            gather: Gather::new(offsets),
            base: first as isize * input.axis[1] as isize + along.src0 as isize,
            rows: row(0)..row(rows.source),
        }
    }

    fn add(
        &self,
        isa: I,
        (items, apart): (usize, (usize, usize)),
        (grad, input, at): (&[A], &[A], usize),
        ahead: [Ahead; 2],
        sums: &mut [A],
    ) {
        let job = Job {
            grad,
            src: input,
            base: self.base + at as isize,
            steps: 0..self.gather.steps(),
            others: 0..self.gather.others(),
            items,
            apart,
            lanes: usize::MAX,
            real: self.rows.clone(),
            ahead,
            sums,
        };
        self.gather.run(isa, job);
    }
}
