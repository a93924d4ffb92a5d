//! Which gradient lines meet which source lines.

use crate::frame::{Frame, Track};
use crate::tiling::{Mode, period};
use striate_core::Accumulator;
use striate_simd::Simd;
use striate_simd::gather::{Offsets, Step, line_counts};
use striate_simd::turn::Turn;

/// (other taps, shared taps) of the sums.
pub fn tap_grid(mode: Mode, sweeps: &[striate_core::Sweep; 3], width: usize) -> (usize, usize) {
    let [t0, t1, t2] = sweeps.map(|s| s.taps as usize);
    match mode {
        Mode::Columns => (t0 * t1 * period(&sweeps[2], width), t2.div_ceil(period(&sweeps[2], width))),
        Mode::Rows | Mode::Pixels(1) => (t0 * t2, t1),
        Mode::Pixels(_) => (t0 * t1, t2),
    }
}

/// The offsets of a band: all its gradient lines, in groups that share loaded source lines.
pub fn steps<A: Accumulator, I: Simd<A>>(
    mode: Mode,
    frame: &Frame,
    tracks: &[Track; 3],
    size: [usize; 3],
    grad: [usize; 3],
) -> Offsets {
    let sweeps = [0, 1, 2].map(|a| tracks[a].sweeps[0]);
    let at = |axis: usize, tap: usize| frame.shift(axis, tap * sweeps[axis].reach_step as usize);
    let (count, taps) = tap_grid(mode, &sweeps, I::LANES);
    let others = (0..count)
        .map(|other| {
            let tap = mode.taps(&sweeps, I::LANES, other, 0);
            at(0, tap[0]) + at(1, tap[1]) + at(2, tap[2])
        })
        .collect();
    let lane_axis = if matches!(mode, Mode::Pixels(_)) { None } else { Some(2) };
    let src = [0, 1, 2].map(|a| match lane_axis {
        Some(axis) if axis == a => sweeps[a].src_step as usize / frame.residues,
        _ => frame.shift(a, sweeps[a].src_step as usize),
    });
    let shared = match mode {
        Mode::Rows => 1,
        Mode::Columns => 2,
        Mode::Pixels(axis) => axis,
    };
    let sweep = &sweeps[shared];
    let (class, share, pitch) = if mode == Mode::Columns {
        (I::LANES, 1, I::LANES)
    } else {
        let (class, share) = (sweep.reach_step / sweep.lattice(), sweep.src_step / sweep.lattice());
        (class as usize, share as usize, frame.shift(shared, sweep.reach_step as usize))
    };
    let lines = Lines { size, grad, src, shared, class, share, lane_axis, line: sweep.src_step as usize };
    let counts = line_counts(I::REGISTERS);
    // Vectors of channels make rows long: a round is about two rows, whose taps' lines fit the first cache.
    let round = if lane_axis.is_none() { (2 * size[2]).div_ceil(counts[0]) } else { usize::MAX };
    let reach = sweep.reach_step as usize;
    let steps = lines.steps(I::LANES, counts);
    let grad_pitch = class * grad[shared];
    let (bounded, edges, turn) = (false, Vec::new(), Turn::None);
    Offsets { others, taps, pitch, share, grad_pitch, steps, round, reach, bounded, edges, turn }
}

/// The gradient lines of a band: along the shared axis lines `class` positions apart belong together, across it
/// follow vectors or positions.
struct Lines {
    size: [usize; 3],
    /// Distance of positions in the gradient and in the box.
    grad: [usize; 3],
    src: [usize; 3],
    shared: usize,
    class: usize,
    share: usize,
    /// Axis that lanes run along, if they are not channels.
    lane_axis: Option<usize>,
    /// Source positions between neighbouring positions of the shared axis.
    line: usize,
}

impl Lines {
    fn steps(&self, width: usize, counts: &[usize]) -> Vec<Step> {
        let stride = |axis: usize| if Some(axis) == self.lane_axis { width } else { 1 };
        let [a, b] = [[1, 2], [0, 2], [0, 1]][self.shared];
        let classes = if self.lane_axis == Some(self.shared) { 1 } else { self.class.min(self.size[self.shared]) };
        let mut steps = Vec::new();
        for at_a in (0..self.size[a]).step_by(stride(a)) {
            for at_b in (0..self.size[b]).step_by(stride(b)) {
                for first in 0..classes {
                    let mut position = [0; 3];
                    (position[a], position[b], position[self.shared]) = (at_a, at_b, first);
                    while position[self.shared] < self.size[self.shared] {
                        let step = self.step(position, width, counts);
                        position[self.shared] += step.lines * self.class;
                        steps.push(step);
                    }
                }
            }
        }
        steps
    }

    /// The step that starts at a position, of as many lines as fit.
    fn step(&self, mut position: [usize; 3], width: usize, counts: &[usize]) -> Step {
        let first = position[self.shared];
        let left = self.lane_axis.map_or(width, |axis| self.size[axis] - position[axis]);
        let fits = |lines: usize| match lines {
            1 => true,
            _ if self.share > 2 => false,
            // Lines along the lanes must all be whole vectors.
            _ if self.lane_axis == Some(self.shared) => lines * width <= left,
            _ => first + (lines - 1) * self.class < self.size[self.shared],
        };
        let lines = counts.iter().copied().find(|&lines| fits(lines)).expect("one line always fits");
        // A last vector that is short starts earlier and leaves out what the one before it had.
        let lanes = match self.lane_axis.filter(|&axis| left < width && self.size[axis] >= width) {
            Some(axis) => {
                position[axis] -= width - left;
                (width - left, width)
            }
            None => (0, left.min(width)),
        };
        let dot = |s: [usize; 3]| (0..3).map(|a| position[a] * s[a]).sum::<usize>();
        Step { grad: dot(self.grad), src: dot(self.src), lines, lanes, line: first * self.line, edges: 0 }
    }
}
