//! Small planes of contiguous tensors, read as they are.
//!
//! Where a plane is hardly wider than a vector, filling its box takes longer than the taps. Here vectors of columns are
//! loaded from the tensor itself, the lanes and rows that meet padding left out, and many planes are done in one go.

use crate::frame::{Frame, Lanes, Strides, Track};
use crate::tiling::{Mode, correlation};
use std::ops::Range;
use striate_core::{Accumulator, Axis, Layout, Pass, Problem};
use striate_simd::Simd;
use striate_simd::correlate::{Apart, Correlation, Job, Start, Weights};

/// Rows above which a plane is large enough for boxes, and for threads to share.
const ROWS: i64 = 64;

/// Taps along an axis that stay in registers with the sums.
const TAPS: i64 = 8;

/// Whether vectors of so many columns take the planes of a problem.
pub fn takes(problem: &Problem, lanes: i64) -> bool {
    let g = &problem.geometry;
    let [deep, rows, columns] = g.axes();
    let flat = deep.source(problem.pass) == 1 && deep.extent(problem.pass) == 1 && deep.kernel() == 1;
    let within = |axis: &Axis, most: i64| axis.source(problem.pass).max(axis.extent(problem.pass)) <= most;
    let narrow = within(columns, 2 * lanes) && within(rows, ROWS);
    let small = [rows, columns].iter().all(|axis| axis.stride() == 1 && axis.kernel() <= TAPS);
    let own = problem.dtype == problem.dtype.accumulator();
    let plain = problem.layout == Layout::Nchw && g.c_in() == 1 && g.c_out() == 1;
    problem.pass != Pass::Dw && flat && narrow && small && own && plain
}

/// How to produce planes.
pub struct Planes<A, I> {
    pub correlation: Correlation<A, I>,
    /// Offset of the first tap of a plane's first position.
    base: isize,
    src: usize,
    out: usize,
}

impl<A: Accumulator, I: Simd<A>> Planes<A, I> {
    /// For a problem that [`takes`] admits.
    pub fn new(tracks: &[Track; 3], (src, out): (&Strides, &Strides)) -> Self {
        let sweeps = [0, 1, 2].map(|a| tracks[a].sweeps[0]);
        let counts = [0, 1, 2].map(|a| tracks[a].outs);
        let phase = (&sweeps, counts, [0; 3], [None, Some(tracks[1].source), None]);
        let frame = Frame::of_tensor(src, Lanes::Width);
        let mut offsets = correlation::<A, I>(Mode::Rows, &frame, phase, [out.axis[0], out.axis[1], 1]);
        let along = &sweeps[2];
        let real = |column: usize, tap: i64| -> Range<usize> {
            let first = column as i64 + along.src0 + tap * along.reach_step;
            let lane = |position: i64| (position - first).clamp(0, I::LANES as i64) as usize;
            lane(0)..lane(tracks[2].source)
        };
        let columns = offsets.tiles.iter().map(|tile| counts[2] - tile.lanes);
        offsets.edges = columns.flat_map(|column| (0..along.taps).map(move |tap| real(column, tap))).collect();
        offsets.bounded = true;
        Planes {
            correlation: Correlation::new(offsets),
            base: sweeps[1].src0 as isize * src.axis[1] as isize + along.src0 as isize,
            src: src.channel,
            out: out.channel,
        }
    }

    /// Produces `count` planes, the first of which begins at `at` in the source and at the destination.
    pub fn run(&self, isa: I, count: usize, (src, at): (&[A], usize), (weights, start): (&[A], &[A]), dst: &mut [A]) {
        let each = self.correlation.weight_order().count();
        let job = Job {
            src,
            base: self.base + at as isize,
            items: count,
            apart: Apart { src: self.src, dst: self.out, weights: each },
            weights: Weights::Scalar(weights),
            start: Start::Each(start),
            others: 0..self.correlation.others(),
            lanes: usize::MAX,
            live: None,
            ahead: &[],
            dst,
        };
        self.correlation.run(isa, job);
    }
}
