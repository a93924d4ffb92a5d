//! Small planes of contiguous tensors, read as they are.
//!
//! Where a plane is hardly wider than a vector, filling its box takes longer than the taps. Here vectors of columns are
//! loaded from the tensor itself, the lanes and rows that meet padding left out, and many planes are done in one go.

use crate::frame::{Frame, Lanes, Strides, Track};
use crate::tiling::{Mode, correlation};
use std::ops::Range;
use striate_core::{Accumulator, Axis, Layout, Pass, Problem, Sweep};
use striate_simd::Simd;
use striate_simd::ahead::Ahead;
use striate_simd::correlate::{Apart, Correlation, Job, Start, Weights};
use striate_simd::turn::Turn;

/// Rows above which a plane is large enough for boxes, and for threads to share.
const ROWS: i64 = 64;

/// Columns above which spreading the lines of a strided source costs more than a box.
const SPREAD: i64 = 48;

/// Taps along a strided axis at most: what a turned line has room for.
const TAPS: i64 = 8;

/// Taps in all, and along an axis, beyond which boxes win.
const ALL: i64 = 64;
const ALONG: i64 = 16;

/// Whether vectors of so many columns take the planes of a problem.
pub fn takes(problem: &Problem, lanes: i64) -> bool {
    let g = &problem.geometry;
    let [deep, rows, columns] = g.axes();
    let pass = if problem.pass == Pass::Dw { Pass::Fwd } else { problem.pass };
    let sizes = |axis: &Axis| [axis.source(pass), axis.extent(pass)];
    // One slice that is met: before or behind padding there is nothing to read.
    let flat = sizes(deep) == [1, 1] && deep.kernel() == 1 && deep.pad().0 == 0;
    let narrow = sizes(columns).iter().all(|&size| size <= 2 * lanes * columns.stride())
        && sizes(columns).iter().any(|&size| size <= 2 * lanes)
        && sizes(rows).iter().all(|&size| size <= ROWS)
        && (problem.pass != Pass::Dx || columns.stride() == 1 || columns.extent(Pass::Dx) <= SPREAD);
    let most = if rows.stride() * columns.stride() == 1 { ALONG } else { TAPS };
    let few = |axis: &&Axis| (axis.stride()..=most).contains(&axis.kernel());
    let small = [rows, columns].iter().all(few) && rows.kernel() * columns.kernel() <= ALL;
    let strided = [rows, columns].iter().all(|axis| axis.stride() <= 2 && (axis.stride() == 1 || axis.dilation() == 1));
    let own = problem.dtype == problem.dtype.accumulator();
    let plain = problem.layout == Layout::Nchw && g.c_in() == 1 && g.c_out() == 1;
    flat && narrow && small && strided && own && plain
}

/// How to produce planes with vectors that suit their width: half a vector is done in less time than a whole one.
pub enum Planes<A: Accumulator, I: Simd<A>> {
    Whole(Width<A, I>),
    Half(Width<A, I::Half>),
}

impl<A: Accumulator, I: Simd<A>> Planes<A, I> {
    /// For a problem that [`takes`] admits.
    pub fn new(tracks: &[Track; 3], strides: (&Strides, &Strides)) -> Self {
        if tracks[2].outs <= I::Half::LANES {
            Planes::Half(Width::new(tracks, strides))
        } else {
            Planes::Whole(Width::new(tracks, strides))
        }
    }

    /// Kernel positions in the order of the weights, for every sweep of rows.
    pub fn order(&self) -> Vec<Vec<[i64; 3]>> {
        match self {
            Planes::Whole(width) => width.order(),
            Planes::Half(width) => width.order(),
        }
    }

    /// Produces `count` planes, the first of which begins at `at` in the source and at the destination; `starts` says where
    /// the weights of a sweep begin.
    pub fn run(&self, isa: I, count: usize, src: (&[A], usize), weights: (&[A], &[usize], &[A]), dst: &mut [A]) {
        match self {
            Planes::Whole(width) => width.run(isa, count, src, weights, dst),
            Planes::Half(width) => width.run(isa.half(), count, src, weights, dst),
        }
    }
}

/// Vectors of one width.
pub struct Width<A, I> {
    /// One for every sweep of rows.
    phases: Vec<Phase<A, I>>,
    /// Kernel column of every other tap.
    columns: Vec<i64>,
    src: usize,
    out: usize,
}

/// The rows of one sweep.
struct Phase<A, I> {
    correlation: Correlation<A, I>,
    rows: Sweep,
    /// Offset of the first tap of the first position in a plane.
    base: isize,
    /// Offset of the first position in a produced plane.
    dst: usize,
}

/// How a row becomes lanes, and its taps.
struct Row {
    turn: Turn,
    /// Source column that the lines of the first column begin at.
    first: i64,
    /// For every tap what it reads: a number of a line, or for a spread line half a number.
    taps: Vec<usize>,
    /// Kernel column of every tap.
    kernel: Vec<i64>,
}

impl Row {
    fn new(track: &Track) -> Row {
        let halves = track.out_step as i64;
        let turn = match (track.src_step(), track.out_step) {
            (1, 1) => Turn::None,
            (_, 1) => Turn::Evens,
            _ => Turn::Spread,
        };
        let taps = |sweep: &Sweep| {
            let sweep = *sweep;
            (0..sweep.taps).map(move |t| {
                let source = sweep.src0 + t * sweep.reach_step;
                (source * halves - sweep.out0, sweep.tap0 + t * sweep.tap_step)
            })
        };
        let (reads, kernel): (Vec<i64>, Vec<i64>) = track.sweeps.iter().flat_map(taps).unzip();
        let first = reads.iter().min().expect("a kernel has taps").div_euclid(halves);
        Row { turn, first, taps: reads.iter().map(|at| (at - first * halves) as usize).collect(), kernel }
    }
}

/// Which of some numbers from position `first` on are inside the source.
pub fn real(first: i64, source: i64, numbers: usize) -> Range<usize> {
    let number = |position: i64| (position - first).clamp(0, numbers as i64) as usize;
    number(0)..number(source)
}

impl<A: Accumulator, I: Simd<A>> Width<A, I> {
    fn new(tracks: &[Track; 3], (src, out): (&Strides, &Strides)) -> Self {
        let row = Row::new(&tracks[2]);
        let phases = tracks[1].sweeps.iter().map(|rows| Phase {
            correlation: Self::correlation(tracks, rows, &row, (src, out)),
            rows: *rows,
            base: rows.src0 as isize * src.axis[1] as isize + row.first as isize,
            dst: rows.out0 as usize * out.axis[1],
        });
        Width { phases: phases.collect(), columns: row.kernel, src: src.channel, out: out.channel }
    }

    /// All columns of the rows of a sweep.
    fn correlation(
        tracks: &[Track; 3],
        rows: &Sweep,
        row: &Row,
        (src, out): (&Strides, &Strides),
    ) -> Correlation<A, I> {
        let [deep, _, columns] = tracks;
        let sweeps = [deep.sweeps[0], *rows, columns.sweeps[0]];
        let counts = [1, rows.outs as usize, columns.outs];
        let phase = (&sweeps, counts, [0; 3], [None, Some(tracks[1].source), None]);
        let frame = Frame::of_tensor(src, Lanes::Width);
        let to = [0, out.axis[1] * tracks[1].out_step, 1];
        let mut offsets = correlation::<A, I>(Mode::Rows, &frame, phase, to);
        for tile in &mut offsets.tiles {
            // Where the lanes of a tile start in the source, after one number for each of them was allowed.
            let column = counts[2] - tile.lanes;
            let from = column * columns.src_step() / columns.out_step;
            tile.src = tile.src + from - column;
            let first = row.first + from as i64;
            if row.turn == Turn::None {
                offsets.edges.extend(row.taps.iter().map(|&tap| real(first + tap as i64, columns.source, I::LANES)));
            } else {
                offsets.edges.push(real(first, columns.source, row.turn.numbers(I::LANES)));
            }
        }
        offsets.others = row.taps.iter().map(|&tap| row.turn.position(tap, I::LANES)).collect();
        offsets.split = offsets.others.len();
        offsets.turn = row.turn;
        offsets.bounded = true;
        Correlation::new(offsets)
    }

    fn order(&self) -> Vec<Vec<[i64; 3]>> {
        let of = |phase: &Phase<A, I>| {
            let row = |shared: usize| phase.rows.tap0 + shared as i64 * phase.rows.tap_step;
            let order = phase.correlation.weight_order();
            order.map(|(other, shared)| [0, row(shared), self.columns[other]]).collect()
        };
        self.phases.iter().map(of).collect()
    }

    fn run(
        &self,
        isa: I,
        count: usize,
        (src, at): (&[A], usize),
        (weights, starts, start): (&[A], &[usize], &[A]),
        dst: &mut [A],
    ) {
        let each = starts[self.phases.len()];
        // The next planes are likely next.
        let [read, written] = [(at, self.src, src.len()), (0, self.out, dst.len())]
            .map(|(at, plane, len)| (at + count * plane).min(len)..(at + 2 * count * plane).min(len));
        let ahead = [Ahead::of(&src[read]), Ahead::of(&dst[written])];
        for (phase, from) in self.phases.iter().zip(starts) {
            let job = Job {
                src,
                base: phase.base + at as isize,
                items: count,
                apart: Apart { src: self.src, dst: self.out, weights: each },
                weights: Weights::Scalar(&weights[*from..]),
                start: Start::Each(start),
                others: 0..phase.correlation.others(),
                lanes: usize::MAX,
                live: None,
                ahead: if phase.dst == 0 { ahead } else { [Ahead::NONE; 2] },
                dst: &mut dst[phase.dst..],
            };
            phase.correlation.run(isa, job);
        }
    }
}
