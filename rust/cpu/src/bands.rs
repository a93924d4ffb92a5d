//! Cutting pooling into parts and walking each of them; see `window` for the idea.

use crate::window::{Along, Band, Buffers, SLACK};
use std::ops::Range;
use striate_core::pooling::Pooling;
use striate_core::{Accumulator, Axis, Pass, Scalar};
use striate_simd::rows::{Block, widen};
use striate_simd::windows::Kind;
use striate_simd::{Convert, Simd};

/// Accumulators that a part may use before it is cut into smaller bands, about what a private cache holds.
const BUDGET: usize = 1 << 13;
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

/// A slice of the result in accumulators, and where it belongs.
pub struct Slice<'a, A> {
    /// Its position along the first axis.
    pub deep: usize,
    /// Its positions along the others.
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// The channels that it holds, distance of positions and distance of rows in `numbers`.
    pub channels: usize,
    pub unit: usize,
    pub pitch: usize,
    /// Where it begins in the part of the result, and distance of positions there.
    pub to: usize,
    pub to_unit: usize,
    /// The numbers.
    pub numbers: &'a mut [A],
    /// Their labels, if the kind has any.
    pub labels: &'a [A],
}

impl<A> Slice<'_, A> {
    /// Distance of rows in the result.
    pub fn to_pitch(&self) -> usize {
        self.columns.len() * self.to_unit
    }
}

/// What is done with numbers before and after windows are joined.
pub trait Ends<A> {
    /// Whether source rows are to be shown before they are joined.
    fn watches(&self) -> bool {
        false
    }
    /// Some columns of a source row lie in `line`, `unit` numbers to a position.
    fn loaded(&mut self, _at: [usize; 2], _columns: Range<usize>, _unit: usize, _line: &mut [A]) {}
    /// A slice of the result is ready.
    fn emit(&mut self, slice: Slice<'_, A>);
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

    /// Produces part `index`, whose slices go to `ends`.
    pub fn part<S: Scalar<Acc = A>, I: Convert<S>, K: Kind<A, I>, E: Ends<A>>(
        &self,
        way: (I, K),
        index: usize,
        source: &[S],
        scratch: &mut [A],
        ends: &mut E,
    ) {
        let [each, produced] = [self.source, self.outs].map(|size| size.iter().product::<usize>() * self.channels);
        let (first, band) = (index / self.bands.len() * self.group, index % self.bands.len());
        let mut buffers = self.bands[band].buffers(scratch, K::LABELS);
        self.bands[band].clear(&mut buffers, K::nothing());
        for (n, sample) in source[first * each..].chunks(each.max(1)).take(self.group).enumerate() {
            for channel in (0..self.channels).step_by(self.unit) {
                let place = Place { band, channel, to: n * produced };
                self.sample(way, &place, sample, &mut buffers, ends);
            }
        }
    }

    fn sample<S: Scalar<Acc = A>, I: Convert<S>, K: Kind<A, I>, E: Ends<A>>(
        &self,
        way: (I, K),
        place: &Place,
        sample: &[S],
        buffers: &mut Buffers<'_, A>,
        ends: &mut E,
    ) {
        let band = &self.bands[place.band];
        let [deep, high, wide] = &band.axes;
        let (sizes, slice) = (band.sizes, high.outs * band.pitch);
        for s0 in 0..deep.extent {
            let Some(a0) = inside(deep.base, s0, self.source[0]) else {
                buffers.slices[s0 * slice..][..slice].fill(K::nothing());
                continue;
            };
            if wide.is_used_up() {
                band.clear(buffers, K::nothing());
            }
            self.load(way.0, (place, a0), sample, buffers.lines);
            if ends.watches() {
                self.watch((place, a0), buffers.lines, ends);
            }
            wide.see_far(way, (high.extent, band.line), (buffers.lines, sizes.lines), buffers.keep);
            let collected = (&*buffers.lines, &mut *buffers.keep, &mut *buffers.rows);
            let into = &mut buffers.slices[s0 * slice..];
            if high.is_copy() {
                let to = (&*buffers.lines, &mut *buffers.keep, into);
                wide.lines(way, (high.extent, self.unit), [(band.line, sizes.lines), (band.pitch, sizes.slices)], to);
                continue;
            }
            wide.lines(way, (high.extent, self.unit), [(band.line, sizes.lines), (band.pitch, sizes.rows)], collected);
            high.see_far(way, (1, 0), (buffers.rows, sizes.rows), buffers.keep);
            high.rows(way, band.pitch, [sizes.rows, sizes.slices], (buffers.rows, into));
        }
        deep.see_far(way, (1, 0), (buffers.slices, sizes.slices), buffers.keep);
        if deep.is_copy() {
            return self.emit(place, (buffers.slices, sizes.slices), ends);
        }
        deep.rows(way, slice, [sizes.slices, sizes.done], (buffers.slices, buffers.done));
        self.emit(place, (buffers.done, sizes.done), ends);
    }

    /// Widens the rows of a slice of the source into lines.
    fn load<S: Scalar<Acc = A>, I: Convert<S>>(
        &self,
        isa: I,
        (place, a0): (&Place, usize),
        sample: &[S],
        lines: &mut [A],
    ) {
        let (band, channels, unit) = (&self.bands[place.band], self.channels, self.unit);
        let step = band.axes[2].step;
        let (rows, pitch) = (band.inside.clone(), self.source[2] * channels);
        if rows.is_empty() {
            return;
        }
        let high = (band.axes[1].base + rows.start as i64) as usize;
        let first = (a0 * self.source[1] + high) * pitch + place.channel;
        let cols = unit.min(channels - place.channel);
        for &(position, to, count) in &band.runs {
            let (from, to) = (&sample[first + position * channels..], rows.start * band.line + to);
            if channels == 1 || cols == channels && step == 1 {
                let (from_pitch, to_pitch) = (pitch, band.line);
                let (cols, from_step) = if channels == 1 { (count, step) } else { (count * cols, 1) };
                let block = Block { rows: rows.len(), cols, from_pitch, from_step, to_pitch, to_step: 1 };
                widen(isa, &block, from, &mut lines[to..]);
                continue;
            }
            let from_pitch = step * channels;
            let block = Block { rows: count, cols, from_pitch, from_step: 1, to_pitch: unit, to_step: 1 };
            for row in 0..rows.len() {
                widen(isa, &block, &from[row * pitch..], &mut lines[to + row * band.line..]);
            }
        }
    }

    fn watch<E: Ends<A>>(&self, (place, a0): (&Place, usize), lines: &mut [A], ends: &mut E) {
        let band = &self.bands[place.band];
        for row in band.inside.clone() {
            let a1 = (band.axes[1].base + row as i64) as usize;
            for &(position, to, count) in &band.runs {
                ends.loaded([a0, a1], position..position + count, self.unit, &mut lines[row * band.line + to..]);
            }
        }
    }

    fn emit<E: Ends<A>>(&self, place: &Place, (numbers, labels): (&mut [A], usize), ends: &mut E) {
        let band = &self.bands[place.band];
        let outs = [0, 1, 2].map(|a| band.axes[a].outs);
        let mut start = [0; 3];
        start[self.axis] = place.band * self.band;
        let slice = outs[1] * band.pitch;
        for o0 in 0..outs[0] {
            let (numbers, rest) = numbers[o0 * slice..].split_at_mut(slice);
            ends.emit(Slice {
                deep: start[0] + o0,
                rows: start[1]..start[1] + outs[1],
                columns: start[2]..start[2] + outs[2],
                channels: self.unit.min(self.channels - place.channel),
                unit: self.unit,
                pitch: band.pitch,
                to: place.to + o0 * outs[1] * outs[2] * self.channels + place.channel,
                to_unit: self.channels,
                labels: rest.get(labels - slice..).unwrap_or_default(),
                numbers,
            });
        }
    }
}

/// Position `index` of a buffer that starts at `base`, if the tensor has it.
fn inside(base: i64, index: usize, source: usize) -> Option<usize> {
    usize::try_from(base + index as i64).ok().filter(|&at| at < source)
}
