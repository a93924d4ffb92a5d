//! Windows that slide over planes, one axis after the other: a join over a window is a join along the rows, then
//! along the columns, then along the slices of what was joined before.
//!
//! A part of the work is a band of one sample's result (a plane; channels last, all channels): source rows are widened
//! into a line, joined along it, and collected; then whole rows are joined, then whole slices. Positions outside the
//! tensor hold what joining leaves unchanged. A long window is joined in logarithmically many steps, each doubling
//! how far every number sees; nothing is ever subtracted, so NaN and infinity stay in their windows and long sums
//! lose nothing to cancellation. How a result is bracketed depends on its window alone, never on bands or threads.

use std::ops::Range;
use striate_core::pooling::Pooling;
use striate_core::{Accumulator, Axis, Pass, Sweep};
use striate_simd::Simd;
use striate_simd::windows::{Fold, Kind, Shape, Tap, fold, join_ahead};

/// Most numbers in a vector, which buffers must be able to exceed.
pub const SLACK: usize = 16;
/// Most taps of a sum that are joined one by one, whatever the window along other axes.
pub const SHORT: usize = 8;
/// One step of a long window: every position is joined with the one so far ahead, or joined onto its first state.
struct Level<A> {
    ahead: Tap<A>,
    onto_first: bool,
    len: usize,
}

/// Produced positions that share one set of taps.
pub struct Strand<A> {
    first: usize,
    step: usize,
    outs: usize,
    taps: Vec<Tap<A>>,
}

/// The windows along one axis within one band.
pub struct Along<A> {
    /// Source position that the buffer starts with.
    pub base: i64,
    /// Source positions that it holds.
    pub extent: usize,
    /// Source positions between neighbouring windows.
    pub step: usize,
    /// Produced positions.
    pub outs: usize,
    levels: Vec<Level<A>>,
    strands: Vec<Strand<A>>,
}

impl<A: Accumulator> Along<A> {
    /// The windows that produce a range of positions.
    pub fn new(axis: &Axis, pass: Pass, outs: Range<i64>) -> Along<A> {
        let sweeps = (0..axis.sweep_count(pass)).map(|index| axis.sweep(pass, index).within(outs.clone()));
        let sweeps: Vec<Sweep> = sweeps.collect();
        let reach = || sweeps.iter().map(Sweep::reach).filter(|reach| !reach.is_empty());
        let base = reach().map(|reach| reach.start).min().unwrap_or(0);
        let extent = reach().map(|reach| reach.end).max().map_or(0, |end| (end - base) as usize);
        let strands = sweeps.iter().map(|sweep| Strand {
            first: (sweep.out0 - outs.start) as usize,
            step: sweep.out_step as usize,
            outs: sweep.outs as usize,
            taps: (0..sweep.taps)
                .map(|t| {
                    let away = t * sweep.reach_step;
                    ((sweep.src0 - base + away) as usize, A::from_f64(away as f64))
                })
                .collect(),
        });
        let (step, outs) = (sweeps[0].src_step as usize, (outs.end - outs.start) as usize);
        Along { base, extent, step, outs, levels: Vec::new(), strands: strands.collect() }
    }

    /// The taps of the window that produces a position, and how far from them it stands.
    pub fn window(&self, out: usize) -> (&[Tap<A>], usize) {
        let holds = |strand: &&Strand<A>| out >= strand.first && (out - strand.first).is_multiple_of(strand.step);
        match self.strands.iter().find(holds) {
            Some(strand) => (&strand.taps, (out - strand.first) / strand.step * self.step),
            None => (&[], 0),
        }
    }

    /// The taps, if all positions share them.
    pub fn single(&self) -> Option<&[Tap<A>]> {
        match &self.strands[..] {
            [strand] if strand.step == 1 && !strand.taps.is_empty() => Some(&strand.taps),
            _ => None,
        }
    }

    /// Replaces the taps of one long window by steps that double what each position has seen.
    pub fn double(mut self, idempotent: bool) -> Along<A> {
        let [strand] = &mut self.strands[..] else { return self };
        let taps = strand.taps.len();
        if self.step != 1 || taps < if idempotent { 5 } else { SHORT + 1 } {
            return self;
        }
        let ahead = |seen: usize| (strand.taps[seen].0 - strand.taps[0].0, strand.taps[seen].1);
        let mut seen = 1;
        let mut level = |seen: &mut usize, onto_first: bool| {
            let ahead = ahead(if onto_first { 1 } else { *seen });
            *seen = if onto_first { *seen + 1 } else { 2 * *seen };
            let used = strand.taps[*seen - 1].0 - strand.taps[0].0;
            self.levels.push(Level { ahead, onto_first, len: self.extent - used });
        };
        if idempotent {
            while 2 * seen <= taps {
                level(&mut seen, false);
            }
            let mut ends = vec![strand.taps[0], strand.taps[taps - seen]];
            ends.dedup_by_key(|tap| tap.0);
            strand.taps = ends;
        } else {
            for bit in (0..taps.ilog2()).rev() {
                level(&mut seen, false);
                if taps >> bit & 1 == 1 {
                    level(&mut seen, true);
                }
            }
            strand.taps.truncate(1);
        }
        self
    }

    /// Measures offsets in numbers, `unit` to a position, and labels in steps of `weight`. Where windows are several
    /// positions apart and `phases` is set, positions of equal remainder lie together.
    pub fn scale(mut self, unit: usize, weight: i64, phases: bool) -> Along<A> {
        let (step, phase) = (if phases { self.step } else { 1 }, self.phase(unit));
        let place = |position: usize| position % step * phase + position / step * unit;
        let weigh = |tap: &mut Tap<A>| *tap = (place(tap.0), tap.1 * A::from_f64(weight as f64));
        self.strands.iter_mut().flat_map(|strand| &mut strand.taps).for_each(weigh);
        for level in &mut self.levels {
            level.ahead = (level.ahead.0 * unit, level.ahead.1 * A::from_f64(weight as f64));
            level.len *= unit;
        }
        self
    }

    /// Numbers of the positions of one remainder.
    pub fn phase(&self, unit: usize) -> usize {
        self.extent.div_ceil(self.step) * unit
    }

    /// Runs of positions inside a source of so many: the first, its place in the buffer, and how many follow at the
    /// distance of windows.
    pub fn runs(&self, source: i64, unit: usize) -> Vec<(usize, usize, usize)> {
        let (step, end) = (self.step as i64, (self.base + self.extent as i64).min(source));
        let run = |phase: i64| {
            let first = self.base + phase;
            let skipped = (-first).max(0).div_euclid(step) + i64::from((-first).max(0) % step != 0);
            let (position, to) = (first + skipped * step, phase as usize * self.phase(unit) + skipped as usize * unit);
            (position < end).then(|| (position as usize, to, ((end - 1 - position) / step + 1) as usize))
        };
        (0..step).filter_map(run).collect()
    }

    /// Runs the steps of a long window on a buffer of `lines` such axes at a pitch. `keep` is used where the first
    /// state is needed again.
    pub fn see_far<I: Simd<A>, K: Kind<A, I>>(
        &self,
        (isa, kind): (I, K),
        (lines, pitch): (usize, usize),
        (data, labels): (&mut [A], usize),
        keep: &mut [A],
    ) {
        if lines == 0 {
            return;
        }
        if self.levels.iter().any(|level| level.onto_first) {
            keep[..data.len()].copy_from_slice(data);
        }
        for level in &self.levels {
            // What the end of a line sees of the next one is not used.
            let len = level.len + (lines - 1) * pitch;
            join_ahead(isa, kind, (len, level.ahead, labels), level.onto_first.then_some(&*keep), data);
        }
    }

    /// Whether a buffer that holds long windows must be made anew for each use.
    pub fn is_used_up(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Whether the result is what the buffer holds.
    pub fn is_copy(&self) -> bool {
        let plain = |strand: &Strand<A>| strand.taps.len() == 1 && strand.step == 1;
        self.levels.is_empty() && self.step == 1 && self.strands.len() == 1 && plain(&self.strands[0])
    }

    /// Joins windows of whole rows of `unit` numbers; labels lie as far behind the numbers as said.
    pub fn rows<I: Simd<A>, K: Kind<A, I>>(
        &self,
        (isa, kind): (I, K),
        unit: usize,
        labels: [usize; 2],
        (src, dst): (&[A], &mut [A]),
    ) {
        for strand in &self.strands {
            let first = (strand.first * unit).min(dst.len());
            if strand.taps.is_empty() {
                (0..strand.outs).for_each(|j| dst[first + j * strand.step * unit..][..unit].fill(K::nothing()));
                continue;
            }
            let shapes = [(self.step, labels[0]), (strand.step, labels[1])];
            let [from, to] = shapes.map(|(step, labels)| Shape { pitch: step * unit, labels });
            let windows = Fold { rows: strand.outs, cols: unit, taps: &strand.taps, from, to };
            fold(isa, kind, &windows, src, &mut dst[first..]);
        }
    }

    /// Joins windows along `lines` of positions of `unit` numbers into rows; both have a pitch and a distance of
    /// labels. What is produced out of order goes through `keep`.
    pub fn lines<I: Simd<A>, K: Kind<A, I>>(
        &self,
        (isa, kind): (I, K),
        (lines, unit): (usize, usize),
        shapes: [(usize, usize); 2],
        (src, keep, dst): (&[A], &mut [A], &mut [A]),
    ) {
        let [from, to] = shapes.map(|(pitch, labels)| Shape { pitch, labels });
        for strand in &self.strands {
            let windows = Fold { rows: lines, cols: strand.outs * unit, taps: &strand.taps, from, to };
            if strand.step == 1 && !strand.taps.is_empty() {
                fold(isa, kind, &windows, src, dst);
                continue;
            }
            for line in 0..lines {
                match strand.taps[..] {
                    [] => keep[..windows.cols].fill(K::nothing()),
                    _ => fold(isa, kind, &Fold { rows: 1, ..windows }, &src[line * from.pitch..], keep),
                }
                for (j, numbers) in keep[..windows.cols].chunks_exact(unit).enumerate() {
                    let place = (strand.first + j * strand.step) * unit;
                    dst[line * to.pitch + place..][..unit].copy_from_slice(numbers);
                }
            }
        }
    }
}

/// How one band is produced.
pub struct Band<A> {
    /// Slices, rows, columns.
    pub axes: [Along<A>; 3],
    /// Runs of the last axis.
    pub runs: Vec<(usize, usize, usize)>,
    /// Lines of a slice that are inside.
    pub inside: Range<usize>,
    /// Distance of lines, and of rows.
    pub line: usize,
    pub pitch: usize,
    unit: usize,
    /// Numbers in each buffer, labels left out.
    pub sizes: Sizes,
}

/// Numbers in the buffers of a band: the lines and the rows of a slice, the slices, the result, and what is kept.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub lines: usize,
    pub rows: usize,
    pub slices: usize,
    pub done: usize,
    pub keep: usize,
}

impl Sizes {
    /// Numbers in all of them.
    pub fn total(&self, labels: bool) -> usize {
        (self.lines + self.rows + self.slices + self.done) * if labels { 2 } else { 1 } + self.keep
    }
}

/// The buffers of a band, labels behind the numbers.
pub struct Buffers<'a, A> {
    pub lines: &'a mut [A],
    pub rows: &'a mut [A],
    pub slices: &'a mut [A],
    pub done: &'a mut [A],
    pub keep: &'a mut [A],
}

impl<A: Accumulator> Band<A> {
    /// The band that produces these ranges of positions.
    pub fn new(pooling: &Pooling, ranges: [Range<i64>; 3], unit: usize, idempotent: bool) -> Band<A> {
        let [deep, high, wide] =
            [0, 1, 2].map(|a| Along::<A>::new(&pooling.axes[a], pooling.pass, ranges[a].clone()).double(idempotent));
        let pitch = (wide.outs * unit).next_multiple_of(SLACK);
        let (slice, plane) = (high.outs * pitch, pooling.plane());
        let axes =
            [deep.scale(slice, plane[0], false), high.scale(pitch, plane[1], false), wide.scale(unit, plane[2], true)];
        let [deep, high, wide] = &axes;
        let line = (wide.step * wide.phase(unit)).next_multiple_of(SLACK);
        // Whole vectors are read where windows end, so every buffer is a little longer.
        let [lines, rows, slices] =
            [high.extent * line, high.extent * pitch, deep.extent * slice].map(|size| size + SLACK);
        let done = if deep.is_copy() { 0 } else { deep.outs * slice + SLACK };
        let keep = lines.max(rows).max(slices).max(pitch);
        let runs = wide.runs(pooling.axes[2].source(pooling.pass), unit);
        let source = pooling.axes[1].source(pooling.pass);
        let lo = (-high.base).clamp(0, high.extent as i64);
        let inside = lo as usize..(source - high.base).clamp(lo, high.extent as i64) as usize;
        Band { axes, runs, inside, line, pitch, unit, sizes: Sizes { lines, rows, slices, done, keep } }
    }

    /// Puts `nothing` in the lines wherever the tensor has no position, and zeros in their labels.
    pub fn clear(&self, buffers: &mut Buffers<'_, A>, nothing: A) {
        let (numbers, labels) = buffers.lines.split_at_mut(self.sizes.lines);
        labels.fill(A::default());
        let &[(_, to, count)] = &self.runs[..] else { return numbers.fill(nothing) };
        let (first, last) = (self.inside.start * self.line, self.inside.end * self.line);
        numbers[..first].fill(nothing);
        numbers[last..].fill(nothing);
        for line in numbers[first..last].chunks_exact_mut(self.line) {
            line[..to].fill(nothing);
            line[to + count * self.unit..].fill(nothing);
        }
    }

    /// Cuts scratch memory into the buffers.
    pub fn buffers<'a>(&self, scratch: &'a mut [A], labels: bool) -> Buffers<'a, A> {
        let times = if labels { 2 } else { 1 };
        let Sizes { lines, rows, slices, done, keep } = self.sizes;
        let (lines, rest) = scratch.split_at_mut(lines * times);
        let (rows, rest) = rest.split_at_mut(rows * times);
        let (slices, rest) = rest.split_at_mut(slices * times);
        let (done, rest) = rest.split_at_mut(done * times);
        Buffers { lines, rows, slices, done, keep: &mut rest[..keep] }
    }
}
