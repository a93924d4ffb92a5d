//! Cutting pooling into parts and walking each of them; see `window` for the idea.

use crate::window::{Along, Band, SLACK};
use std::ops::Range;
use striate_core::pooling::Pooling;
use striate_core::{Accumulator, Axis, Pass, Scalar};
use striate_simd::rows::{Block, widen};
use striate_simd::windows::Kind;
use striate_simd::{Convert, Simd};

/// Accumulators that a part may use before it is cut into smaller bands, about what a private cache holds.
const BUDGET: usize = 1 << 16;
/// Channels, where they are innermost, that are taken together.
const CHANNELS: usize = 64;
/// Fewer parts than this are cut further, so that there is work for threads.
const PARTS: usize = 16;
/// Numbers that make a part worth handing out.
const GRAIN: usize = 1 << 13;

/// How a whole request is cut up and produced.
pub struct Program<A> {
    bands: Vec<Band<A>>,
    /// Sizes of the source and of the result.
    source: [usize; 3],
    outs: [usize; 3],
    /// Channels that are innermost (1 where none are), and how many are taken together.
    channels: usize,
    unit: usize,
    /// Result positions of every band but the last, and along which axis.
    band: usize,
    axis: usize,
    /// Samples that one part takes.
    group: usize,
    /// Where parts begin in the result.
    pub bounds: Vec<usize>,
}

/// A row of the result in accumulators, and where it belongs.
pub struct Row<'a, A> {
    /// Its position along the first two axes.
    pub at: [usize; 2],
    /// Its positions along the last axis.
    pub columns: Range<usize>,
    /// The channels that it holds.
    pub channels: usize,
    /// Distance of positions in `numbers`.
    pub unit: usize,
    /// Where it begins in the part of the result.
    pub to: usize,
    /// Distance of positions there.
    pub to_pitch: usize,
    /// The numbers.
    pub numbers: &'a mut [A],
    /// Their labels, if the kind has any.
    pub labels: &'a [A],
}

impl<A> Row<'_, A> {
    /// Where the numbers of a row go in a part.
    pub fn block(&self) -> Block {
        let (count, cols) = (self.columns.len(), self.channels);
        if cols == self.unit && cols == self.to_pitch {
            return Block { rows: 1, cols: count * cols, from_pitch: 0, from_step: 1, to_pitch: 0, to_step: 1 };
        }
        Block { rows: count, cols, from_pitch: self.unit, from_step: 1, to_pitch: self.to_pitch, to_step: 1 }
    }
}

/// What is done with rows before and after windows are joined.
pub trait Ends<A> {
    /// A source row has been widened: `columns` of it lie in `line`, `unit` numbers to a position.
    fn loaded(&mut self, _at: [usize; 2], _columns: Range<usize>, _unit: usize, _line: &mut [A]) {}
    /// A row of the result is ready.
    fn emit(&mut self, row: Row<'_, A>);
}

/// One band of one sample, and the first of the channels that are taken.
struct Place {
    band: usize,
    channel: usize,
    to: usize,
}

/// Result positions of a band.
fn band(axis: &Axis, pass: Pass, cost: usize, samples: usize) -> usize {
    let outs = axis.extent(pass) as usize;
    let align = if pass == Pass::Dx { axis.stride() as usize } else { 1 };
    let probe = Along::<f32>::new(axis, pass, 0..1);
    let (step, halo) = (probe.step, probe.extent.max(1) - 1);
    // What neighbouring bands both need is computed twice: a band must not be much smaller.
    let least = (4 * halo).div_ceil(step).max(GRAIN.div_ceil(cost.max(1))).max(1);
    let fits = (BUDGET / cost.max(1)).saturating_sub(halo) / (step + 1);
    let shared = if samples < PARTS { outs.div_ceil(PARTS.div_ceil(samples.max(1))) } else { outs };
    fits.min(shared).max(least).next_multiple_of(align).clamp(1, outs.max(1))
}

impl<A: Accumulator> Program<A> {
    /// For a request with dense tensors; `last` says whether channels are innermost.
    pub fn new<I: Simd<A>, K: Kind<A, I>>(pooling: &Pooling, last: bool) -> Program<A> {
        let (axes, pass) = (&pooling.axes, pooling.pass);
        let (samples, channels) =
            if last { (pooling.batch, pooling.channels) } else { (pooling.batch * pooling.channels, 1) };
        let unit = match channels.div_ceil(CHANNELS) {
            0 | 1 => channels.max(1),
            blocks => channels.div_ceil(blocks).next_multiple_of(SLACK),
        };
        let outs = [0, 1, 2].map(|a| axes[a].extent(pass) as usize);
        let axis = (0..3).find(|&a| outs[a] > 1).unwrap_or(2);
        let pitch = (outs[2] * unit).next_multiple_of(SLACK);
        let band = band(&axes[axis], pass, [outs[1] * pitch, pitch, unit][axis], samples);
        let range = |a: usize, first: usize| match a == axis {
            true => first as i64..(first + band).min(outs[a]) as i64,
            false => 0..outs[a] as i64,
        };
        let made = |first| Band::new(pooling, [0, 1, 2].map(|a| range(a, first)), unit, K::IDEMPOTENT);
        let bands: Vec<Band<A>> = (0..outs[axis]).step_by(band).map(made).collect();
        let each: usize = outs.iter().product::<usize>() * channels;
        let group = if bands.len() > 1 { 1 } else { (GRAIN / each.max(1)).clamp(1, samples.max(1)) };
        let piece = each / outs[axis].max(1) * band;
        let starts = (0..samples).step_by(group).flat_map(|n| (0..bands.len()).map(move |b| n * each + b * piece));
        let bounds = starts.chain([samples * each]).collect();
        let source = [0, 1, 2].map(|a| axes[a].source(pass) as usize);
        Program { bands, source, outs, channels, unit, band, axis, group, bounds }
    }

    /// Accumulators that a slot needs, and how many of them the longest row fills.
    pub fn scratch(&self, labels: bool) -> (usize, usize) {
        let most = self.bands.iter().map(|band| band.sizes.total(labels)).max().unwrap_or(0);
        (most, (self.source[2].max(self.outs[2]) * self.unit).next_multiple_of(SLACK))
    }

    /// Produces part `index`, whose rows go to `ends`.
    pub fn part<S: Scalar<Acc = A>, I: Convert<S>, K: Kind<A, I>>(
        &self,
        way: (I, K),
        index: usize,
        source: &[S],
        scratch: &mut [A],
        ends: &mut dyn Ends<A>,
    ) {
        let [each, produced] = [self.source, self.outs].map(|size| size.iter().product::<usize>() * self.channels);
        let (first, band) = (index / self.bands.len() * self.group, index % self.bands.len());
        for (n, sample) in source[first * each..].chunks(each.max(1)).take(self.group).enumerate() {
            for channel in (0..self.channels).step_by(self.unit) {
                let place = Place { band, channel, to: n * produced };
                self.sample(way, &place, sample, scratch, ends);
            }
        }
    }

    fn sample<S: Scalar<Acc = A>, I: Convert<S>, K: Kind<A, I>>(
        &self,
        way: (I, K),
        place: &Place,
        sample: &[S],
        scratch: &mut [A],
        ends: &mut dyn Ends<A>,
    ) {
        let band = &self.bands[place.band];
        let [deep, high, _] = &band.axes;
        let (sizes, slice) = (band.sizes, high.outs * band.pitch);
        let buffers = band.buffers(scratch, K::LABELS);
        let (line, rows, slices, keep) = (buffers.line, buffers.rows, buffers.slices, buffers.keep);
        line[sizes.line..].fill(A::default());
        line[..sizes.line].fill(K::nothing());
        for s0 in 0..deep.extent {
            let into = &mut slices[s0 * slice..];
            let Some(a0) = inside(deep.base, s0, self.source[0]) else {
                into[..slice].fill(K::nothing());
                continue;
            };
            for s1 in 0..high.extent {
                let row = &mut rows[s1 * band.pitch..];
                match inside(high.base, s1, self.source[1]) {
                    Some(a1) => self.row(way, (place, [a0, a1]), sample, (line, keep, row), ends),
                    None => row[..band.pitch].fill(K::nothing()),
                }
            }
            high.see_far(way, rows, sizes.rows, keep);
            high.rows(way, band.pitch, [sizes.rows, sizes.slices], (rows, into));
        }
        deep.see_far(way, slices, sizes.slices, keep);
        if deep.is_copy() {
            return self.emit(place, (slices, sizes.slices), ends);
        }
        deep.rows(way, slice, [sizes.slices, sizes.done], (slices, buffers.done));
        self.emit(place, (buffers.done, sizes.done), ends);
    }

    /// Widens a row of the source and joins windows along it.
    fn row<S: Scalar<Acc = A>, I: Convert<S>, K: Kind<A, I>>(
        &self,
        way: (I, K),
        (place, at): (&Place, [usize; 2]),
        sample: &[S],
        (line, keep, row): (&mut [A], &mut [A], &mut [A]),
        ends: &mut dyn Ends<A>,
    ) {
        let (band, channels, unit) = (&self.bands[place.band], self.channels, self.unit);
        let (wide, size) = (&band.axes[2], band.sizes.line);
        if wide.is_used_up() {
            line[..size].fill(K::nothing());
            line[size..].fill(A::default());
        }
        let first = (at[0] * self.source[1] + at[1]) * self.source[2];
        let cols = unit.min(channels - place.channel);
        for &(position, to, count) in &band.runs {
            let from = &sample[(first + position) * channels + place.channel..];
            let (flat, step) = (
                Block { rows: 1, cols: count * cols, from_pitch: 0, from_step: 1, to_pitch: 0, to_step: 1 },
                wide.step,
            );
            let block = match (channels, cols == channels && step == 1) {
                (1, _) => Block { from_step: step, ..flat },
                (_, true) => flat,
                _ => Block { rows: count, cols, from_pitch: step * channels, to_pitch: unit, ..flat },
            };
            widen(way.0, &block, from, &mut line[to..]);
            ends.loaded(at, position..position + count, unit, &mut line[to..]);
        }
        wide.see_far(way, line, size, keep);
        wide.line(way, unit, [size, band.sizes.rows], (line, keep, row));
    }

    fn emit(&self, place: &Place, (numbers, labels): (&mut [A], usize), ends: &mut dyn Ends<A>) {
        let band = &self.bands[place.band];
        let outs = [0, 1, 2].map(|a| band.axes[a].outs);
        let mut start = [0; 3];
        start[self.axis] = place.band * self.band;
        let channels = self.unit.min(self.channels - place.channel);
        for o0 in 0..outs[0] {
            for o1 in 0..outs[1] {
                let row = o0 * outs[1] + o1;
                let (numbers, rest) = numbers[row * band.pitch..].split_at_mut(outs[2] * self.unit);
                ends.emit(Row {
                    at: [start[0] + o0, start[1] + o1],
                    columns: start[2]..start[2] + outs[2],
                    channels,
                    unit: self.unit,
                    to: place.to + row * outs[2] * self.channels + place.channel,
                    to_pitch: self.channels,
                    labels: rest.get(labels - numbers.len()..).unwrap_or_default(),
                    numbers,
                });
            }
        }
    }
}

/// Position `index` of a buffer that starts at `base`, if the tensor has it.
fn inside(base: i64, index: usize, source: usize) -> Option<usize> {
    usize::try_from(base + index as i64).ok().filter(|&at| at < source)
}
