//! Gradients of extremes for windows that are short in a plane: every position looks up the windows that it is in and
//! adds the numbers of those whose extreme it was. Rows of numbers, and of labels that say where in its window each
//! belongs, are held in a ring while positions near them are summed; so nothing is added to memory out of order.

use crate::window::SLACK;
use striate_core::pool::{Part, for_each_part};
use striate_core::pooling::Pooling;
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Axis, Element, Pass, Pool, Scalar};
use striate_simd::rows::{Block, narrow, widen};
use striate_simd::scatter::{Gathering, Hit, gather, label};
use striate_simd::{Convert, Maths};

/// Windows that a position is in above which it is faster to add every number where it belongs.
const MOST: i64 = 25;
/// Numbers of the result that make a part worth handing out, and parts that keep a few threads evenly busy.
const GRAIN: usize = 1 << 13;
const PARTS: usize = 16;

/// Produced positions, every so many from the first on, that look up the windows at the same distances: how far on from
/// the first window, and how far their positions are from where the windows begin.
struct Strand {
    first: usize,
    outs: usize,
    hits: Vec<(i64, i64)>,
}

fn strands(axis: &Axis, step: i64) -> Vec<Strand> {
    let strand = |index| {
        let sweep = axis.sweep(Pass::Dx, index);
        let tap = |t| (sweep.src0 + t * sweep.reach_step, (sweep.tap0 + t * sweep.tap_step) * axis.dilation() * step);
        Strand { first: index as usize, outs: sweep.outs as usize, hits: (0..sweep.taps).map(tap).collect() }
    };
    (0..axis.sweep_count(Pass::Dx)).map(strand).collect()
}

/// How a whole request is summed.
pub struct Scattered<A> {
    /// Numbers at a position; positions of a row and rows of a plane, of windows and of sums.
    unit: usize,
    windows: [usize; 2],
    sums: [usize; 2],
    /// Slices of a volume, and how far their first positions are apart.
    slices: (usize, i64),
    /// Strands of rows; of columns the distances in the ring.
    rows: Vec<Strand>,
    columns: Vec<(Strand, Vec<Hit<A>>)>,
    steps: [usize; 2],
    /// Where windows begin: along rows, and along columns for each of their numbers.
    starts: [Vec<i64>; 2],
    /// Rows of a band, rows in the ring, the distance of them, and where the first number of a row is.
    band: usize,
    held: usize,
    pitch: usize,
    first: usize,
    group: usize,
    bounds: Vec<usize>,
}

impl<A: Accumulator> Scattered<A> {
    /// For a request with dense tensors, if its windows allow it; `last` says whether channels are innermost.
    pub fn new(pooling: &Pooling, last: bool) -> Option<Scattered<A>> {
        let [deep, high, wide] = &pooling.axes;
        let shared = |axis: &Axis| (axis.kernel() + axis.stride() - 1) / axis.stride();
        let plane = pooling.plane();
        let far = [1, 2].map(|a| (pooling.axes[a].kernel() - 1) * pooling.axes[a].dilation() * plane[a]);
        let plain = deep.kernel() == 1 && deep.stride() == 1 && deep.pad() == (0, 0);
        let sums = [wide, high].map(|axis| axis.extent(Pass::Dx) as usize);
        let windows = [wide, high].map(|axis| axis.source(Pass::Dx) as usize);
        let empty = sums.contains(&0) || windows.contains(&0) || pooling.batch * pooling.channels == 0;
        if !plain || empty || shared(high) * shared(wide) > MOST || far[0] + far[1] >= 1 << 24 {
            return None;
        }
        let slices = (deep.extent(Pass::Dx) as usize, plane[0]);
        let all = slices.0 * pooling.batch;
        let (planes, unit) = if last { (all, pooling.channels) } else { (all * pooling.channels, 1) };
        let (rows, along) = (strands(high, plane[1]), strands(wide, plane[2]));
        let base = along.iter().flat_map(|strand| &strand.hits).map(|hit| hit.0).min().unwrap_or(0).min(0);
        let hit = |hit: &(i64, i64)| ((hit.0 - base) as usize * unit, A::from_f64(hit.1 as f64));
        let columns: Vec<_> = along
            .into_iter()
            .map(|strand| (strand.hits.iter().map(hit).collect(), strand))
            .map(|(h, s)| (s, h))
            .collect();
        let reach = |(strand, hits): &(Strand, Vec<Hit<A>>)| {
            let far = hits.iter().map(|hit| hit.0).max().unwrap_or(0);
            far + (strand.outs * unit).next_multiple_of(SLACK)
        };
        let first = -base as usize * unit;
        let pitch = columns.iter().map(reach).max().unwrap_or(0).max(first + windows[0] * unit).next_multiple_of(SLACK);
        let held = ((high.kernel() - 1) * high.dilation() / high.stride() + 2).min(windows[1] as i64) as usize;
        let start = |axis: &Axis, o: i64, step: i64| (o * axis.stride() - axis.pad().0) * step;
        let begins = (0..high.source(Pass::Dx)).map(|o| start(high, o, plane[1])).collect();
        let each = |o| std::iter::repeat_n(start(wide, o, plane[2]), unit);
        let starts = [begins, (0..wide.source(Pass::Dx)).flat_map(each).collect()];
        // Rows that neighbouring bands both need are read twice: bands must not be much smaller.
        let few = if planes < PARTS { sums[1].div_ceil(PARTS.div_ceil(planes)) } else { sums[1] };
        let least = (4 * held * high.stride() as usize).max(GRAIN / (sums[0] * unit));
        let band = few.max(least).min(sums[1]);
        let size = sums[0] * sums[1] * unit;
        let group = if band < sums[1] { 1 } else { (GRAIN / size).clamp(1, planes) };
        let at = |plane: usize| (0..sums[1]).step_by(band).map(move |row| plane * size + row * sums[0] * unit);
        let bounds = (0..planes).step_by(group).flat_map(at).chain([planes * size]).collect();
        let steps = [wide, high].map(|axis| axis.stride() as usize);
        Some(Scattered {
            unit,
            windows,
            sums,
            slices,
            rows,
            columns,
            steps,
            starts,
            band,
            held,
            pitch,
            first,
            group,
            bounds,
        })
    }

    /// Bytes of workspace.
    pub fn workspace(&self, width: usize) -> usize {
        carved_bytes::<A>(width, self.scratch())
    }

    fn scratch(&self) -> usize {
        2 * self.held * self.pitch + (self.sums[0] * self.unit).next_multiple_of(SLACK)
    }

    /// Sums all numbers.
    pub fn run<S: Scalar<Acc = A>, T: Element, I: Convert<S> + Maths<A>>(
        &self,
        isa: I,
        (data, places): (&[S], &[T]),
        out: &mut [S],
        (workspace, pool): (&mut [u8], &dyn Pool),
    ) where
        i64: From<T>,
    {
        let (scratch, _) = carve::<A>(workspace, pool.width(), self.scratch());
        let bands = self.sums[1].div_ceil(self.band);
        let [window, sum] = [self.windows, self.sums].map(|of| of[0] * of[1] * self.unit);
        for_each_part(pool, (out, &self.bounds), scratch, &|part: Part<'_, S, A>| {
            let (first, row) = (part.index / bands * self.group, part.index % bands * self.band);
            let (ring, stage) = part.scratch.split_at_mut(2 * self.held * self.pitch);
            let (numbers, labels) = ring.split_at_mut(self.held * self.pitch);
            // Padding holds what no label leads from.
            numbers.fill(A::default());
            labels.fill(A::from_f64(-1.0));
            for (n, out) in part.out.chunks_mut(sum).enumerate() {
                let at = (first + n) * window;
                let source = (&data[at..at + window], &places[at..at + window]);
                let base = ((first + n) % self.slices.0) as i64 * self.slices.1;
                self.rows(isa, (row, base), source, [&mut *numbers, &mut *labels, &mut *stage], out);
            }
        });
    }

    /// Sums some rows of a plane whose positions count from `base`.
    fn rows<S: Scalar<Acc = A>, T: Element, I: Convert<S> + Maths<A>>(
        &self,
        isa: I,
        (first, base): (usize, i64),
        (data, places): (&[S], &[T]),
        [numbers, labels, stage]: [&mut [A]; 3],
        out: &mut [S],
    ) where
        i64: From<T>,
    {
        let (wide, width) = (self.windows[0] * self.unit, self.sums[0] * self.unit);
        let (mut ready, mut hits) =
            (0, Vec::with_capacity(self.rows.iter().map(|strand| strand.hits.len()).max().unwrap_or(0)));
        for (row, out) in (first..).zip(out.chunks_exact_mut(width)) {
            let (strand, j) = (&self.rows[row % self.steps[1]], row / self.steps[1]);
            let inside = strand.hits.iter().map(|hit| (hit.0 + j as i64, hit.1));
            hits.clear();
            for (window, away) in inside.filter(|hit| (0..self.windows[1] as i64).contains(&hit.0)) {
                hits.push((window as usize % self.held * self.pitch, A::from_f64(away as f64)));
                for window in ready.max((window as usize + 1).saturating_sub(self.held))..=window as usize {
                    let at = window % self.held * self.pitch + self.first;
                    let block = Block { rows: 1, cols: wide, from_pitch: 0, from_step: 1, to_pitch: 0, to_step: 1 };
                    widen(isa, &block, &data[window * wide..][..wide], &mut numbers[at..]);
                    let from = (&places[window * wide..][..wide], base + self.starts[0][window]);
                    label(isa, from, &self.starts[1], &mut labels[at..]);
                }
                ready = ready.max(window as usize + 1);
            }
            for (strand, along) in &self.columns {
                let sums = Gathering { rows: &hits, along, cols: strand.outs * self.unit };
                gather(isa, &sums, [&*numbers, &*labels], stage);
                let (step, unit) = (self.steps[0], self.unit);
                let line = Block { rows: 1, cols: sums.cols, from_pitch: 0, from_step: 1, to_pitch: 0, to_step: 1 };
                let block = match (step, unit) {
                    (1, _) => line,
                    (_, 1) => Block { to_step: step, ..line },
                    _ => Block { rows: strand.outs, cols: unit, from_pitch: unit, to_pitch: step * unit, ..line },
                };
                narrow(isa, &block, stage, &mut out[strand.first * unit..]);
            }
        }
    }
}
