//! Weight gradient: every tap is the dot product of the output gradient with the input it meets.
//!
//! The work of an item, a pair of an output and an input channel (or a vector of such pairs in a depthwise problem), is
//! the list of its (sample, band) units. Items are cut apart first; where there are few, the units are cut into a number of splits that depends on the problem alone, and the
//! splits are summed in order, so that the bits do not depend on the number of threads.

pub mod placed;
mod planes;
mod steps;

use crate::frame::{Bands, Frame, Lanes, Strides, TOGETHER, Track, tracks};
use crate::interior::readable;
use crate::load::{Channels, Cut, load, positions};
use crate::planes::takes;
use crate::tiling::Mode;
use planes::Planes;
use std::marker::PhantomData;
use std::ops::Range;
use steps::{steps, tap_grid};
use striate_core::geometry::Role;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes, padded};
use striate_core::{Accumulator, Operands, Pool, Problem, Program, Scalar, with_scalar};
use striate_simd::ahead::Ahead;
use striate_simd::gather::{Gather, Job, most_taps};
use striate_simd::rows::{Block, reduce, widen};
use striate_simd::{Convert, Simd};

/// Parts that keep a few threads evenly busy.
const PARTS: usize = 16;
/// Positions of rows that are read as they are, after which sums may go back to memory.
const NEAR: usize = 56;

/// Everything about bands of one size.
struct BandKind<A, I> {
    size: [usize; 3],
    frame: Frame,
    gather: Gather<A, I>,
    /// Memory of the gradient as the steps read it.
    grad: Grad,
}

/// How gradient lines lie in the memory the steps read.
#[derive(Clone, Copy, Debug)]
struct Grad {
    axis: [usize; 3],
    /// Distance of items.
    item: usize,
    /// Numbers of an item that are copied.
    len: usize,
}

/// How to read the source without boxes.
struct Interior {
    /// Offset of the first tap of the first position, and the positions from there that are real.
    base: isize,
    real: Range<usize>,
    /// Steps of a few rows, and the other taps that meet real rows there.
    rows: Vec<(Range<usize>, Range<usize>)>,
}

impl Interior {
    /// For rows that all have as many `steps`; `others` are the taps outside the shared direction.
    fn new(tracks: &[Track; 3], input: &Strides, (steps, others): (usize, usize)) -> Interior {
        let [rows, columns] = [&tracks[1], &tracks[2]];
        let first = [rows, columns].map(|track| track.sweeps[0].src0);
        let mut made: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        let together = NEAR.div_ceil(columns.outs).max(2);
        for row in 0..rows.outs {
            let met = Mode::Pixels(2).clip(tracks, [0; 3], [0, row], others);
            match made.last_mut() {
                Some(last) if last.1 == met && last.0.len() < together * steps => last.0.end += steps,
                _ => made.push((row * steps..(row + 1) * steps, met)),
            }
        }
        let real = |at: i64| (at - first[1]).max(0) as usize;
        Interior {
            base: first[0] as isize * input.axis[1] as isize + first[1] as isize * input.axis[2] as isize,
            real: real(0)..real(columns.source),
            rows: made,
        }
    }
}

/// The compiled program.
pub struct Weigh<S: Scalar, I: Convert<S>> {
    problem: Problem,
    lanes: Lanes,
    mode: Mode,
    tracks: [Track; 3],
    bands: Bands,
    kinds: Vec<BandKind<S::Acc, I>>,
    /// Kernel position of every sum; taps past the last have none.
    order: Vec<Option<usize>>,
    grad: Strides,
    input: Strides,
    /// Whether gradient lines are read from the tensor as they are.
    direct: bool,
    /// Whether source lines are, with lanes of channels or of columns.
    interior: Option<Interior>,
    planes: Option<Planes<S::Acc, I>>,
    splits: usize,
    isa: I,
    stored: PhantomData<S>,
}

impl<S: Scalar, I: Convert<S>> Weigh<S, I> {
    /// The program for a problem; lanes of channels need one channel a group on both sides.
    pub fn new(problem: &Problem, lanes: Lanes, isa: I) -> Self {
        let width = <I as Simd<S::Acc>>::LANES;
        let (grad, input) = (Strides::of(problem, Role::Output), Strides::of(problem, Role::Input));
        let tracks = tracks(problem);
        let own = S::DTYPE == S::DTYPE.accumulator();
        let direct = own
            && match lanes {
                Lanes::Width => grad.axis[2] == 1,
                Lanes::Channels => grad.channel == 1,
            };
        let pairs = grad.channels * problem.geometry.c_in() as usize;
        let items = pairs.div_ceil(if lanes == Lanes::Channels { width } else { 1 });
        let fits = lanes == Lanes::Width && takes(problem, width as i64);
        let planes = fits.then(|| Planes::new(&tracks, (&grad, &input)));
        let mode = if fits { Mode::Rows } else { Mode::choose(&tracks, lanes, width) };
        let small = tracks[2].sweeps[0].taps as usize <= most_taps(I::REGISTERS);
        let inside = direct && small && lanes == Lanes::Channels && readable(mode, &tracks, [&grad, &input], width);
        let bands = if inside || fits {
            Bands::whole(&tracks)
        } else {
            Bands::new(&tracks, lanes, width, items * problem.geometry.batch() as usize)
        };
        let units = bands.count() * problem.geometry.batch() as usize;
        let groups = items.div_ceil(if lanes == Lanes::Channels { TOGETHER } else { 1 });
        let splits = PARTS.div_ceil(groups.max(1)).clamp(1, units.max(1));
        let mut made = Weigh {
            problem: *problem,
            lanes,
            mode,
            tracks,
            bands,
            kinds: Vec::new(),
            order: Vec::new(),
            grad,
            input,
            direct,
            interior: None,
            planes,
            splits,
            isa,
            stored: PhantomData,
        };
        if !fits {
            made.kinds = made.bands.sizes().into_iter().map(|size| made.kind(mode, size, inside)).collect();
        }
        made.order = made.sum_order(mode);
        if inside {
            let gather = &made.kinds[0].gather;
            let (steps, others) = (gather.steps() / made.tracks[1].outs, gather.others());
            made.interior = Some(Interior::new(&made.tracks, &made.input, (steps, others)));
        }
        made
    }

    fn width(&self) -> usize {
        if self.lanes == Lanes::Channels { <I as Simd<S::Acc>>::LANES } else { 1 }
    }

    /// Items whose boxes are filled together.
    fn together(&self) -> usize {
        if self.lanes == Lanes::Channels { TOGETHER } else { 1 }
    }

    /// Pairs of an output and an input channel: rows of the weight.
    fn pairs(&self) -> usize {
        self.grad.channels * self.problem.geometry.c_in() as usize
    }

    /// Output and input channel of a pair.
    fn channels_of(&self, pair: usize) -> (usize, usize) {
        let [c_in, c_out] = [self.problem.geometry.c_in(), self.problem.geometry.c_out()].map(|c| c as usize);
        (pair / c_in, pair / (c_in * c_out) * c_in + pair % c_in)
    }

    /// Groups of items that are worked on together.
    fn groups(&self) -> usize {
        self.pairs().div_ceil(self.width() * self.together())
    }

    fn kind(&self, mode: Mode, size: [usize; 3], inside: bool) -> BandKind<S::Acc, I> {
        let width = <I as Simd<S::Acc>>::LANES;
        let frame = if inside {
            Frame::of_tensor(&self.input, Lanes::Channels)
        } else {
            Frame::new(&self.tracks, size, self.lanes, width)
        };
        let grad = if self.direct {
            Grad { axis: self.grad.axis, item: width * self.grad.channel, len: 0 }
        } else {
            let line = if self.lanes == Lanes::Channels { width } else { 1 };
            let row = (size[2] * line).next_multiple_of(width);
            let len = padded::<S::Acc>(size[0] * size[1] * row);
            Grad { axis: [size[1] * row, row, line], item: len, len }
        };
        let mut offsets = steps::<S::Acc, I>(mode, &frame, &self.tracks, size, grad.axis);
        offsets.bounded = inside;
        let gather = Gather::new(offsets);
        BandKind { size, frame, gather, grad }
    }

    /// Kernel position of every sum, in the order of the sums.
    fn sum_order(&self, mode: Mode) -> Vec<Option<usize>> {
        let sweeps = [0, 1, 2].map(|a| self.tracks[a].sweeps[0]);
        let kernel = sweeps.map(|s| s.taps as usize);
        let (others, shared) = tap_grid(mode, &sweeps, <I as Simd<S::Acc>>::LANES);
        let position = |i: usize| {
            let [k0, k1, k2] = mode.taps(&sweeps, <I as Simd<S::Acc>>::LANES, i / shared, i % shared);
            (k2 < kernel[2]).then_some((k0 * kernel[1] + k1) * kernel[2] + k2)
        };
        (0..others * shared).map(position).collect()
    }

    fn sums(&self) -> usize {
        self.order.len() * <I as Simd<S::Acc>>::LANES
    }

    /// Numbers of one box.
    fn box_len(&self, kind: &BandKind<S::Acc, I>) -> usize {
        padded::<S::Acc>(kind.frame.len().max(kind.gather.src_reach()))
    }

    fn scratch(&self) -> usize {
        let each = |k: &BandKind<S::Acc, I>| self.box_len(k) + k.grad.len;
        self.together() * (padded::<S::Acc>(self.sums()) + self.kinds.iter().map(each).max().unwrap_or(0))
    }

    /// Kernel positions of one channel.
    fn taps(&self) -> usize {
        self.problem.geometry.axes().iter().map(|a| a.kernel() as usize).product()
    }

    /// Numbers of one group's sums.
    fn group(&self) -> usize {
        self.together() * self.width() * self.taps()
    }

    /// One split of one group: sums over its units, one number for every channel and kernel position.
    fn part(&self, part: Part<'_, S::Acc, S::Acc>, grad: &[S], input: &[S]) {
        let (group, split) = (part.index / self.splits, part.index % self.splits);
        let pair = group * self.together() * self.width();
        let (channel, source) = self.channels_of(pair);
        let count = (self.together() * self.width()).min(self.pairs() - pair);
        let each = padded::<S::Acc>(self.sums());
        let (sums, scratch) = part.scratch.split_at_mut(self.together() * each);
        sums.fill(S::Acc::default());
        let units = self.problem.geometry.batch() as usize * self.bands.count();
        let (from, to) = (split * units / self.splits, (split + 1) * units / self.splits);
        if let Some(planes) = self.planes.as_ref().filter(|_| from < to) {
            self.planes(planes, (from..to, channel, source), grad, input, sums);
        } else if let Some(interior) = &self.interior {
            (from..to).for_each(|n| self.inside(interior, (n, channel, count), grad, input, sums));
        } else {
            self.boxed((from..to, channel, source, count), grad, input, (sums, scratch));
        }
        for (sums, out) in sums.chunks(each).zip(part.out.chunks_mut(self.width() * self.taps())) {
            match self.planes {
                Some(Planes::Half(_)) => self.finish(self.isa.half(), sums, out),
                _ => self.finish(self.isa, sums, out),
            }
        }
    }

    /// Sums over (band, sample) units through boxes.
    fn boxed(
        &self,
        (units, channel, source, count): (Range<usize>, usize, usize, usize),
        grad: &[S],
        input: &[S],
        (sums, scratch): (&mut [S::Acc], &mut [S::Acc]),
    ) {
        let (batch, each) = (self.problem.geometry.batch() as usize, padded::<S::Acc>(self.sums()));
        let mut cleared = usize::MAX;
        for unit in units.clone() {
            let (band, n) = (unit / batch, unit % batch);
            let (start, size) = self.bands.band(band);
            let kind = self.kinds.iter().find(|k| k.size == size).expect("every size that occurs was compiled");
            let (packed, boxes) = scratch.split_at_mut(self.together() * kind.grad.len);
            if cleared != band {
                boxes
                    .chunks_mut(self.box_len(kind))
                    .take(self.together())
                    .for_each(|one| one[..kind.frame.len()].fill(S::Acc::default()));
                cleared = band;
            }
            let cut = Cut::new(&self.tracks, &kind.frame, start);
            let sample = &input[n * self.input.sample + source * self.input.channel..];
            let channels = Channels { along: self.lanes, count, to_box: self.box_len(kind) };
            load(self.isa, (&kind.frame, &cut), &self.input, channels, sample, boxes);
            let next = (unit + 1 < units.end).then_some(((unit + 1) % batch, channel, source));
            let ahead = self.ahead(next, grad, input);
            let lines = &grad[n * self.grad.sample + channel * self.grad.channel + self.grad.at(start)..];
            let lines = match S::as_accumulators(lines).filter(|_| self.direct) {
                Some(lines) => lines,
                None => {
                    self.load_grad(kind, count, lines, packed);
                    packed
                }
            };
            for item in 0..count.div_ceil(self.width()) {
                let lanes = if self.lanes == Lanes::Channels { count - item * self.width() } else { usize::MAX };
                let job = Job {
                    grad: &lines[item * kind.grad.item..],
                    src: &boxes[item * channels.to_box..],
                    base: 0,
                    steps: 0..kind.gather.steps(),
                    others: 0..kind.gather.others(),
                    items: 1,
                    apart: (0, 0),
                    lanes,
                    real: cut.real(self.shared()),
                    ahead: if item == 0 { ahead } else { [Ahead::NONE; 2] },
                    sums: &mut sums[item * each..],
                };
                kind.gather.run(self.isa, job);
            }
        }
    }

    /// Sums over a plane of some samples, while the next one's memory is asked for.
    fn planes(
        &self,
        planes: &Planes<S::Acc, I>,
        (samples, channel, source): (Range<usize>, usize, usize),
        grad: &[S],
        input: &[S],
        sums: &mut [S::Acc],
    ) {
        let own = |numbers| S::as_accumulators(numbers).expect("chosen for types that are their own");
        let next = (channel + 1 < self.grad.channels).then_some((samples.start, channel + 1, source + 1));
        let ahead = self.ahead(next, grad, input);
        let lines = own(&grad[samples.start * self.grad.sample + channel * self.grad.channel..]);
        let at = samples.start * self.input.sample + source * self.input.channel;
        let apart = (self.grad.sample, self.input.sample);
        planes.add(self.isa, (samples.len(), apart), (lines, own(input), at), ahead, sums);
    }

    /// Sums over a sample, some of whose channels are read where they lie.
    fn inside(
        &self,
        interior: &Interior,
        (n, channel, count): (usize, usize, usize),
        grad: &[S],
        input: &[S],
        sums: &mut [S::Acc],
    ) {
        let own = |numbers| S::as_accumulators(numbers).expect("chosen for types that are their own");
        let (gather, each) = (&self.kinds[0].gather, padded::<S::Acc>(self.sums()));
        for (steps, others) in &interior.rows {
            for (first, sums) in (0..count).step_by(self.width()).zip(sums.chunks_mut(each)) {
                let job = Job {
                    grad: own(&grad[n * self.grad.sample + channel + first..]),
                    src: own(input),
                    base: interior.base + (n * self.input.sample + channel + first) as isize,
                    steps: steps.clone(),
                    others: others.clone(),
                    items: 1,
                    apart: (0, 0),
                    lanes: usize::MAX,
                    real: interior.real.clone(),
                    ahead: [Ahead::NONE; 2],
                    sums,
                };
                gather.run(self.isa, job);
            }
        }
    }

    /// The planes of a sample and its channels that are next, where planes are whole.
    fn ahead(&self, next: Option<(usize, usize, usize)>, grad: &[S], input: &[S]) -> [Ahead; 2] {
        let whole = self.lanes == Lanes::Width && self.bands.count() == 1 && self.grad.axis[2] == 1;
        let Some((n, channel, source)) = next.filter(|_| whole) else { return [Ahead::NONE; 2] };
        let plane = |of: &Strides, channel: usize| {
            let from = n * of.sample + channel * of.channel;
            from..from + of.channel
        };
        [Ahead::of(&grad[plane(&self.grad, channel)]), Ahead::of(&input[plane(&self.input, source)])]
    }

    /// Axis of the shared direction, or none where it is not a whole axis.
    fn shared(&self) -> Option<usize> {
        match self.mode {
            Mode::Rows => Some(1),
            Mode::Columns => None,
            Mode::Pixels(axis) => Some(axis),
        }
    }

    /// Copies a band of the output gradient.
    fn load_grad(&self, kind: &BandKind<S::Acc, I>, count: usize, from: &[S], to: &mut [S::Acc]) {
        let channels = Channels { along: self.lanes, count, to_box: kind.grad.len };
        for o0 in 0..kind.size[0] {
            let base = o0 * self.grad.axis[0];
            if self.lanes == Lanes::Width {
                let block = Block {
                    rows: kind.size[1],
                    cols: kind.size[2],
                    from_pitch: self.grad.axis[1],
                    from_step: self.grad.axis[2],
                    to_pitch: kind.grad.axis[1],
                    to_step: 1,
                };
                widen(self.isa, &block, &from[base..], &mut to[o0 * kind.grad.axis[0]..]);
                continue;
            }
            for o1 in 0..kind.size[1] {
                let to = &mut to[o0 * kind.grad.axis[0] + o1 * kind.grad.axis[1]..];
                let from = &from[base + o1 * self.grad.axis[1]..];
                positions(self.isa, kind.size[2], &self.grad, channels, from, to);
            }
        }
    }

    /// From sums to kernel positions: lanes are summed, or are channels.
    fn finish<J: Simd<S::Acc>>(&self, isa: J, sums: &[S::Acc], out: &mut [S::Acc]) {
        let width = J::LANES;
        let taps = self.taps();
        for (vector, position) in sums.chunks_exact(width).zip(&self.order) {
            let Some(position) = *position else { continue };
            if self.lanes == Lanes::Channels {
                for (lane, &sum) in vector.iter().enumerate() {
                    out[lane * taps + position] = sum;
                }
            } else {
                let mut sum = [S::Acc::default()];
                reduce(isa, vector, &mut sum);
                out[position] = sum[0];
            }
        }
    }
}

impl<S: Scalar, I: Convert<S>> Program for Weigh<S, I> {
    fn workspace(&self, width: usize) -> usize {
        let partial = self.splits * self.groups() * self.group();
        carved_bytes::<S::Acc>(1, partial) + carved_bytes::<S::Acc>(width, self.scratch())
    }

    fn run(&self, operands: Operands<'_>, pool: &dyn Pool) {
        let Operands { first, second, out, workspace, .. } = operands;
        let (group, parts) = (self.group(), self.splits * self.groups());
        let (partial, rest) = carve::<S::Acc>(workspace, 1, parts * group);
        let (scratch, _) = carve::<S::Acc>(rest, pool.width(), self.scratch());
        let bounds: Vec<usize> = (0..=parts).map(|i| i * group).collect();
        let (grad, input) = (first.typed::<S>(), second.typed::<S>());
        for_each_part(pool, (partial, &bounds), scratch, &|part| self.part(part, grad.data, input.data));
        with_scalar!(out.dtype(), W => {
            let groups = partial.chunks_exact(self.splits * group);
            for (slots, splits) in out.typed::<W>().data.chunks_mut(group).zip(groups) {
                for (i, slot) in slots.iter_mut().enumerate() {
                    let mut sum = splits[i];
                    for split in 1..self.splits {
                        sum += splits[split * group + i];
                    }
                    *slot = W::narrow(<W as Scalar>::Acc::from_f64(sum.to_f64()));
                }
            }
        });
    }
}
