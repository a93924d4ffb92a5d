//! Which direction register tiles share loaded lines along, and the offsets that follow from it.

use crate::frame::{Frame, Lanes, Track};
use std::ops::Range;
use striate_core::{Accumulator, Sweep};
use striate_simd::Simd;
use striate_simd::correlate::{Offsets, Tile, tile_rows};

/// The shared direction of the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Lanes are columns, accumulators are rows.
    Rows,
    /// Lanes are columns, accumulators are neighbouring vectors of one row. Taps whose distance is a whole vector
    /// share lines (the compound method for one-dimensional windows).
    Columns,
    /// Lanes are channels, accumulators are positions along this axis (1 or 2).
    Pixels(usize),
}

/// Taps of `sweep` after which the source distance is exactly one vector, or all of them if it never is.
pub fn period(sweep: &Sweep, width: usize) -> usize {
    let vector = sweep.src_step as usize * width;
    let reach = sweep.reach_step as usize;
    let taps = sweep.taps as usize;
    if vector.is_multiple_of(reach) { (vector / reach).min(taps) } else { taps }
}

/// Cycles a multiply-add costs for tiles of `rows` accumulators and `taps` shared taps that lie `share` apart: the
/// larger of the arithmetic, the loads and the latency of the sums.
fn cost(rows: usize, taps: usize, share: usize) -> f64 {
    let (rows, taps) = (rows.clamp(1, 14) as f64, taps.clamp(1, 8) as f64);
    let lines = if share <= 2 { taps + (rows - 1.0) * share as f64 } else { taps * rows };
    (lines / (rows * taps) + 0.5 / rows).max(4.0 / rows).max(0.5)
}

impl Mode {
    /// The cheaper direction.
    pub fn choose(tracks: &[Track; 3], lanes: Lanes, width: usize) -> Mode {
        let widest = |track: &Track| *track.sweeps.iter().max_by_key(|s| s.taps).expect("an axis has a sweep");
        let along = |axis: usize| {
            let sweep = widest(&tracks[axis]);
            let share = sweep.src_step / sweep.lattice();
            let rows = tracks[axis].outs / tracks[axis].out_step.max((sweep.reach_step / sweep.lattice()) as usize);
            cost(rows, sweep.taps as usize, share as usize)
        };
        if lanes == Lanes::Channels {
            return if along(1) < along(2) { Mode::Pixels(1) } else { Mode::Pixels(2) };
        }
        let sweep = widest(&tracks[2]);
        let vectors = tracks[2].outs / tracks[2].out_step / width;
        let columns = cost(vectors, (sweep.taps as usize).div_ceil(period(&sweep, width).max(1)), 1);
        if columns < along(1) { Mode::Columns } else { Mode::Rows }
    }

    /// Kernel taps (by number in their sweeps) of an `other` and a `shared` tap.
    pub fn taps(self, sweeps: &[Sweep; 3], width: usize, other: usize, shared: usize) -> [usize; 3] {
        let [_, t1, t2] = sweeps.map(|s| s.taps as usize);
        match self {
            Mode::Rows | Mode::Pixels(1) => [other / t2, shared, other % t2],
            Mode::Pixels(_) => [other / t1, other % t1, shared],
            Mode::Columns => {
                let plane = sweeps[0].taps as usize * t1;
                let (residue, rest) = (other / plane, other % plane);
                [rest / t1, rest % t1, residue + shared * period(&sweeps[2], width)]
            }
        }
    }

    /// Produced positions looped over outside the tiles along axes 0 and 1.
    pub fn outer(self, counts: [usize; 3]) -> [usize; 2] {
        match self {
            Mode::Pixels(2) => [counts[0], counts[1]],
            _ => [counts[0], 1],
        }
    }

    /// The other taps that meet a real source position for produced positions `at` (counted in their sweeps) along
    /// axes 0 and 1; those left out meet padding alone.
    pub fn clip(self, tracks: &[Track; 3], sweep: [usize; 3], at: [usize; 2], others: usize) -> Range<usize> {
        let sweeps = [0, 1, 2].map(|a| tracks[a].sweeps[sweep[a]]);
        let [t0, t1, t2] = sweeps.map(|s| s.taps as usize);
        let valid = |axis: usize, each: usize| {
            let taps = sweeps[axis].valid_taps(at[axis] as i64, tracks[axis].source);
            taps.start as usize * each..taps.end as usize * each
        };
        match self {
            _ if others == 0 => 0..0,
            Mode::Columns => 0..others,
            Mode::Rows | Mode::Pixels(1) => valid(0, t2),
            Mode::Pixels(_) if t0 == 1 => valid(1, 1),
            Mode::Pixels(_) => valid(0, t1),
        }
    }
}

/// Sweeps of a phase, produced positions and first box position along each axis, and the source positions along an axis
/// whose padding can be left out because bands cover it.
pub type PhaseAxes<'a> = (&'a [Sweep; 3], [usize; 3], [usize; 3], [Option<i64>; 3]);

/// The offsets of one phase for one produced position of the outer axes; `dst` is the destination distance along
/// each axis.
pub fn correlation<A: Accumulator, I: Simd<A>>(
    mode: Mode,
    frame: &Frame,
    phase: PhaseAxes<'_>,
    dst: [usize; 3],
) -> Offsets {
    let phase = Phase { frame, axes: phase, dst };
    match mode {
        Mode::Columns => phase.columns::<A, I>(),
        Mode::Rows | Mode::Pixels(_) => phase.walked::<A, I>(mode),
    }
}

struct Phase<'a> {
    frame: &'a Frame,
    axes: PhaseAxes<'a>,
    dst: [usize; 3],
}

impl Phase<'_> {
    /// Where a tap reads for the first produced position along an axis.
    fn at(&self, axis: usize, tap: usize) -> usize {
        let (sweeps, _, bases, _) = self.axes;
        self.frame.shift(axis, bases[axis] + tap * sweeps[axis].reach_step as usize)
    }

    fn columns<A: Accumulator, I: Simd<A>>(&self) -> Offsets {
        let (sweeps, counts, ..) = self.axes;
        let [t0, t1, t2] = sweeps.map(|s| s.taps as usize);
        let period = period(&sweeps[2], I::LANES).max(1);
        let mut others = Vec::new();
        for residue in 0..if t0 * t1 * t2 == 0 { 0 } else { period } {
            others.extend((0..t0 * t1).map(|i| self.at(0, i / t1) + self.at(1, i % t1) + self.at(2, residue)));
        }
        Offsets {
            others,
            taps: (t2 / period + 1, t2 / period),
            split: t2 % period * t0 * t1,
            pitch: I::LANES,
            share: 1,
            dst_pitch: I::LANES,
            lane_step: I::LANES,
            tiles: columns::<A, I>(counts, (self.frame.shift(1, sweeps[1].src_step as usize), self.dst[1])),
            ..Offsets::default()
        }
    }

    fn walked<A: Accumulator, I: Simd<A>>(&self, mode: Mode) -> Offsets {
        let (sweeps, counts, _, sources) = self.axes;
        let [t0, t1, t2] = sweeps.map(|s| s.taps as usize);
        let shared = if let Mode::Pixels(axis) = mode { axis } else { 1 };
        let sweep = &sweeps[shared];
        let (class, share) =
            ((sweep.reach_step / sweep.lattice()) as usize, (sweep.src_step / sweep.lattice()) as usize);
        let (axis, rest) = if shared == 1 { (2, t2) } else { (1, t1) };
        let count = if t0 * t1 * t2 == 0 { 0 } else { t0 * rest };
        let others: Vec<usize> = (0..count).map(|i| self.at(0, i / rest) + self.at(axis, i % rest)).collect();
        let walk = Walk {
            sweep,
            source: sources[shared],
            count: counts[shared],
            class,
            share,
            src: self.frame.shift(shared, sweep.src_step as usize),
            dst: self.dst[shared],
            base: self.at(shared, 0),
        };
        let across: Vec<(usize, usize, usize)> = match mode {
            Mode::Rows => (0..counts[2]).step_by(I::LANES).map(|v| (v, v, counts[2] - v)).collect(),
            Mode::Pixels(1) => {
                let step = self.frame.shift(2, sweeps[2].src_step as usize);
                (0..counts[2]).map(|j| (j * step, j * self.dst[2], I::LANES)).collect()
            }
            _ => vec![(0, 0, I::LANES)],
        };
        Offsets {
            taps: (sweep.taps as usize, 0),
            split: others.len(),
            others,
            pitch: self.frame.shift(shared, sweep.reach_step as usize),
            share,
            dst_pitch: class * self.dst[shared],
            tiles: walk.tiles(&across, I::REGISTERS),
            ..Offsets::default()
        }
    }
}

/// The shared axis of a phase.
struct Walk<'a> {
    sweep: &'a Sweep,
    /// Source positions, if padding can be left out.
    source: Option<i64>,
    count: usize,
    /// Accumulators of a tile lie this many produced positions apart.
    class: usize,
    share: usize,
    src: usize,
    dst: usize,
    base: usize,
}

impl Walk<'_> {
    /// Lines that meet a real source position from produced position `j` on.
    fn real(&self, j: usize) -> Range<usize> {
        let Some(source) = self.source else { return 0..usize::MAX };
        let lines = self.sweep.valid_lines(j as i64, source, i64::MAX);
        lines.start as usize..lines.end as usize
    }

    /// Tiles for every class of positions and every place `across` (source, destination, lanes).
    fn tiles(&self, across: &[(usize, usize, usize)], registers: usize) -> Vec<Tile> {
        let mut tiles = Vec::new();
        for class in 0..self.class.min(self.count) {
            let count = (self.count - class).div_ceil(self.class);
            let mut done = 0;
            while done < count {
                let rows = tile_rows(count - done, registers, self.share).min(count - done);
                let j = class + done * self.class;
                for &(src, dst, lanes) in across {
                    let (src, dst) = (self.base + j * self.src + src, j * self.dst + dst);
                    tiles.push(Tile { src, dst, rows, lanes, real: self.real(j) });
                }
                done += rows;
            }
        }
        tiles
    }
}

/// Tiles of neighbouring vectors for every row; `(source, destination)` is the distance of rows.
fn columns<A: Accumulator, I: Simd<A>>(counts: [usize; 3], (src, dst): (usize, usize)) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let vectors = counts[2].div_ceil(I::LANES);
    for j in 0..counts[1] {
        let mut done = 0;
        while done < vectors {
            let rows = tile_rows(vectors - done, I::REGISTERS, 1).min(vectors - done);
            let column = done * I::LANES;
            let (src, dst) = (j * src + column, j * dst + column);
            tiles.push(Tile { src, dst, rows, lanes: counts[2] - column, real: 0..usize::MAX });
            done += rows;
        }
    }
    tiles
}
