//! Forward pass and input gradient: every produced position is a correlation of the source with the taps of its sweep,
//! summed over the source channels of its group.
//!
//! For each band the box is filled, then one [`Correlation`] per combination of sweeps writes its positions, into
//! the tensor where vectors may go there as they are, else into a stage that is converted and scattered afterwards.

mod ahead;
mod flush;
pub mod placed;

use crate::frame::{Bands, Frame, Lanes, Strides, TOGETHER, Track, tracks};
use crate::interior::Interior;
use crate::load::{Channels, Cut, load};
use crate::planes::{self, Planes};
use crate::tiling::{Mode, correlation};
use crate::weights::Weights;
use placed::Packed;
use std::marker::PhantomData;
use std::ops::Range;
use striate_core::geometry::Role;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes, padded};
use striate_core::{Operands, Pass, Pool, Problem, Program, Scalar};
use striate_simd::ahead::Ahead;
use striate_simd::correlate::{Apart, Correlation, Job, Start, Weights as TapWeights};
use striate_simd::{Convert, Simd};

/// Where finished vectors go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The tensor.
    Tensor,
    /// A block of accumulators that is converted afterwards.
    Stage,
}

/// One combination of sweeps in a band of one size.
struct Phase<A, I> {
    /// Index of the sweep along each axis.
    sweep: [usize; 3],
    correlation: Correlation<A, I>,
    /// Produced positions along the axes looped over outside the tiles (1 where the tiles cover the axis).
    outer: [usize; 2],
    /// Box offset of one step along those axes.
    src_step: [usize; 2],
    /// Destination offset of one step along those axes, and of the phase's first position.
    dst_step: [usize; 2],
    dst_base: usize,
}

/// Everything about bands of one size.
struct BandKind<A, I> {
    size: [usize; 3],
    frame: Frame,
    phases: Vec<Phase<A, I>>,
}

/// The compiled program.
pub struct Produce<S: Scalar, I: Convert<S>> {
    problem: Problem,
    lanes: Lanes,
    mode: Mode,
    target: Target,
    tracks: [Track; 3],
    bands: Bands,
    kinds: Vec<BandKind<S::Acc, I>>,
    interior: Option<Interior<S::Acc, I>>,
    planes: Option<Planes<S::Acc, I>>,
    weights: Weights,
    src: Strides,
    out: Strides,
    /// Parts of the produced tensor: (sample, first item, items, first band, bands).
    parts: Vec<[usize; 5]>,
    bounds: Vec<usize>,
    /// Taps in registers together, at most.
    grain: usize,
    isa: I,
    stored: PhantomData<S>,
}

impl<S: Scalar, I: Convert<S>> Produce<S, I> {
    /// The program for a problem; lanes of channels need one channel a group on both sides.
    pub fn new(problem: &Problem, lanes: Lanes, isa: I) -> Self {
        Produce::grained(problem, lanes, isa, usize::MAX)
    }

    fn grained(problem: &Problem, lanes: Lanes, isa: I, grain: usize) -> Self {
        let width = <I as Simd<S::Acc>>::LANES;
        let [source, _, produced] = Role::of(problem.pass);
        let (src, out) = (Strides::of(problem, source), Strides::of(problem, produced));
        let tracks = tracks(problem);
        let own = S::DTYPE == S::DTYPE.accumulator();
        let direct = match lanes {
            Lanes::Width => out.axis[2] == 1 && tracks[2].out_step == 1,
            Lanes::Channels => out.channel == 1,
        };
        let summed = if problem.pass == Pass::Dx { problem.geometry.c_out() } else { problem.geometry.c_in() };
        let target = if own && direct { Target::Tensor } else { Target::Stage };
        let per_item = if lanes == Lanes::Channels { width } else { 1 };
        let items = out.channels.div_ceil(per_item);
        let mode = Mode::choose(&tracks, lanes, width);
        let interior = if lanes == Lanes::Channels && target == Target::Tensor {
            Interior::new(mode, &tracks, (&src, &out))
        } else {
            None
        };
        let fits = lanes == Lanes::Width && grain == usize::MAX && planes::takes(problem, width as i64);
        let planes = fits.then(|| Planes::new(&tracks, (&src, &out)));
        let batch = problem.geometry.batch() as usize;
        let bands = if interior.is_some() {
            let taps = problem.geometry.axes().iter().map(|a| a.kernel() as usize).product::<usize>();
            Bands::of_rows(&tracks, batch, taps * out.channels)
        } else if planes.is_some() {
            Bands::whole(&tracks)
        } else {
            Bands::new(&tracks, lanes, width, items * batch)
        };
        let mut made = Produce {
            problem: *problem,
            lanes,
            mode,
            target,
            tracks,
            bands,
            kinds: Vec::new(),
            interior,
            planes,
            weights: Weights::default(),
            src,
            out,
            parts: Vec::new(),
            bounds: Vec::new(),
            grain,
            isa,
            stored: PhantomData,
        };
        if made.planes.is_none() {
            made.kinds = bands.sizes().into_iter().map(|size| made.kind(size)).collect();
        }
        made.weights = made.weight_order(summed as usize, per_item);
        made.cut_parts(items, per_item);
        made
    }

    fn kind(&self, size: [usize; 3]) -> BandKind<S::Acc, I> {
        let width = <I as Simd<S::Acc>>::LANES;
        let frame = Frame::new(&self.tracks, size, self.lanes, width);
        let mut phases = Vec::new();
        let counts = [0, 1, 2].map(|a| self.tracks[a].sweeps.len());
        for p0 in 0..counts[0] {
            for p1 in 0..counts[1] {
                for p2 in 0..counts[2] {
                    phases.push(self.phase([p0, p1, p2], size, &frame));
                }
            }
        }
        BandKind { size, frame, phases }
    }

    fn phase(&self, sweep: [usize; 3], size: [usize; 3], frame: &Frame) -> Phase<S::Acc, I> {
        let sweeps = [0, 1, 2].map(|a| self.tracks[a].sweeps[sweep[a]]);
        let counts = [0, 1, 2].map(|a| self.tracks[a].count(&sweeps[a], size[a]));
        let bases = [0, 1, 2].map(|a| self.tracks[a].base(&sweeps[a]));
        let (axis, phase) = self.destination(size);
        let dst: [usize; 3] = [0, 1, 2].map(|a| axis[a] * self.tracks[a].out_step);
        let dst_base =
            sweeps[0].out0 as usize * axis[0] + sweeps[1].out0 as usize * axis[1] + sweeps[2].out0 as usize * phase;
        let dst = if self.target == Target::Stage && self.lanes == Lanes::Width { [dst[0], dst[1], 1] } else { dst };
        let whole = |a: usize| self.mode != Mode::Rows && self.bands.size[a] == self.bands.outs[a];
        let sources = [0, 1, 2].map(|a| whole(a).then_some(self.tracks[a].source));
        let offsets = correlation::<S::Acc, I>(self.mode, frame, (&sweeps, counts, bases, sources), dst);
        let outer = self.mode.outer(counts);
        let src_step = [0, 1].map(|a| frame.shift(a, sweeps[a].src_step as usize));
        let correlation = Correlation::in_chunks(offsets, self.grain);
        Phase { sweep, correlation, outer, src_step, dst_step: [dst[0], dst[1]], dst_base }
    }

    /// Distance of produced positions along each axis in the target, and of the last axis's sweeps.
    fn destination(&self, size: [usize; 3]) -> ([usize; 3], usize) {
        let width = <I as Simd<S::Acc>>::LANES;
        match (self.target, self.lanes) {
            (Target::Tensor, _) => (self.out.axis, self.out.axis[2]),
            (Target::Stage, Lanes::Channels) => ([size[1] * size[2] * width, size[2] * width, width], width),
            (Target::Stage, Lanes::Width) => {
                let phase = self.stage_phase(size);
                let row = phase * self.tracks[2].sweeps.len();
                ([size[1] * row, row, 1], phase)
            }
        }
    }

    /// Distance of the last axis's sweeps in a stage of columns.
    fn stage_phase(&self, size: [usize; 3]) -> usize {
        size[2].div_ceil(self.tracks[2].out_step).next_multiple_of(<I as Simd<S::Acc>>::LANES)
    }

    fn stage_len(&self, size: [usize; 3]) -> usize {
        if self.target == Target::Tensor { 0 } else { size[0] * self.destination(size).0[0] }
    }

    /// Kernel positions of the packed weights of a phase.
    fn taps(&self, phase: &Phase<S::Acc, I>) -> Vec<[i64; 3]> {
        let sweeps = [0, 1, 2].map(|a| self.tracks[a].sweeps[phase.sweep[a]]);
        let order = phase.correlation.weight_order();
        let taps = order.map(|(other, shared)| self.mode.taps(&sweeps, <I as Simd<S::Acc>>::LANES, other, shared));
        taps.map(|taps| [0, 1, 2].map(|a| sweeps[a].tap0 + taps[a] as i64 * sweeps[a].tap_step)).collect()
    }

    /// Kernel position of every packed weight of all phases, in order.
    fn weight_order(&self, summed: usize, width: usize) -> Weights {
        let kernel = self.problem.geometry.axes().map(|a| a.kernel() as usize);
        let mut order = Vec::new();
        let mut starts = Vec::new();
        let boxes = || self.kinds[0].phases.iter().map(|phase| self.taps(phase)).collect();
        for phase in self.planes.as_ref().map_or_else(boxes, Planes::order) {
            starts.push(order.len());
            let position = |[k0, k1, k2]: [usize; 3]| (k0 * kernel[1] + k1) * kernel[2] + k2;
            order.extend(phase.iter().map(|at| position(at.map(|k| k as usize))));
        }
        starts.push(order.len());
        let g = &self.problem.geometry;
        let channels = (g.groups() * g.c_out() * g.c_in()) as usize;
        let turned = (self.problem.pass == Pass::Dx).then_some(g.c_in() as usize);
        let taps = kernel.iter().product();
        Weights { order, starts, channels, taps, width, summed, turned, ..Weights::default() }.cut()
    }

    /// Cuts the produced tensor into parts of neighbouring memory.
    fn cut_parts(&mut self, items: usize, per_item: usize) {
        let batch = self.problem.geometry.batch() as usize;
        let (bands, plane) = (self.bands.count(), self.bands.outs.iter().product::<usize>());
        let channels_last = self.out.channel == 1 && self.out.channels > 1;
        let by_band = self.bands.contiguous() && bands > 1 && (channels_last || per_item == 1);
        let band_start = |band: usize| if by_band { self.out.at(self.bands.band(band).0) } else { 0 };
        let band_groups: Vec<(usize, usize)> =
            if by_band { (0..bands).map(|b| (b, 1)).collect() } else { vec![(0, bands)] };
        let item_groups: Vec<(usize, usize)> = if channels_last {
            vec![(0, items)]
        } else if bands > 1 {
            (0..items).map(|i| (i, 1)).collect()
        } else {
            // Several planes to a part: the padding of the box is cleared once for all of them.
            let most = if self.planes.is_some() { 64 } else { 8 };
            let each = (items * batch / 64).clamp(1, most).min(items.max(1));
            (0..items.div_ceil(each)).map(|i| (i * each, each.min(items - i * each))).collect()
        };
        for n in 0..batch {
            for &(item, many) in &item_groups {
                for &(band, some) in &band_groups {
                    self.parts.push([n, item, many, band, some]);
                    let channel = if channels_last { 0 } else { item * per_item * plane };
                    self.bounds.push(n * self.out.sample + channel + band_start(band));
                }
            }
        }
        self.bounds.push(batch * self.out.sample);
    }

    /// Items whose boxes are filled together.
    fn together(&self) -> usize {
        if self.lanes == Lanes::Channels { TOGETHER } else { 1 }
    }

    /// Numbers of one box.
    fn box_len(&self, kind: &BandKind<S::Acc, I>) -> usize {
        let reach = kind.phases.iter().map(|p| self.reach(p)).max().unwrap_or(0);
        padded::<S::Acc>(kind.frame.len().max(reach))
    }

    fn scratch(&self) -> usize {
        if self.interior.is_some() || self.planes.is_some() {
            return 0;
        }
        let each =
            |k: &BandKind<S::Acc, I>| self.together() * self.box_len(k) + padded::<S::Acc>(self.stage_len(k.size));
        self.kinds.iter().map(each).max().unwrap_or(0)
    }

    /// Box numbers a phase reads, its outer loops included.
    fn reach(&self, phase: &Phase<S::Acc, I>) -> usize {
        let outer = |a: usize| phase.outer[a].saturating_sub(1) * phase.src_step[a];
        phase.correlation.src_reach() + outer(0) + outer(1)
    }

    fn part(&self, part: Part<'_, S, S::Acc>, source: &[S], packed: Packed<'_, S::Acc>) {
        let [n, item, items, band, bands] = self.parts[part.index];
        let Part { index, out, scratch } = part;
        if let Some(planes) = &self.planes {
            let own = S::as_accumulators_mut(out).expect("chosen for types that are their own");
            let source = S::as_accumulators(source).expect("chosen for types that are their own");
            let at = n * self.src.sample + item * self.src.channel;
            let to = n * self.out.sample + item * self.out.channel - self.bounds[index];
            let weights = &packed.weights[item * self.weights.item()..];
            let weights = (weights, &self.weights.starts[..], &packed.bias[item..]);
            planes.run(self.isa, items, (source, at), weights, &mut own[to..]);
            return;
        }
        for band in band..band + bands {
            let (start, size) = self.bands.band(band);
            if let Some(interior) = &self.interior {
                let own = S::as_accumulators_mut(out).expect("chosen for types that are their own");
                let source = S::as_accumulators(source).expect("chosen for types that are their own");
                self.rows(interior, (index, start[1]..start[1] + size[1]), source, packed, own);
            } else {
                self.boxed((index, item..item + items, n), (start, size), source, packed, (out, scratch));
            }
        }
    }

    /// Produces some rows without boxes.
    fn rows(
        &self,
        interior: &Interior<S::Acc, I>,
        (index, rows): (usize, Range<usize>),
        source: &[S::Acc],
        Packed { weights, bias, .. }: Packed<'_, S::Acc>,
        out: &mut [S::Acc],
    ) {
        let [n, item, items, ..] = self.parts[index];
        let (sample, channel) = (n * self.src.sample, item * self.weights.width);
        for row in rows {
            let ahead = interior.fresh(&self.tracks[1], row + 1);
            let ahead = &source[sample + ahead.start..sample + ahead.end];
            let at = n * self.out.sample + self.out.at([0, row, 0]) + channel;
            let dst = &mut out[at - self.bounds[index]..];
            let tensor = (source, sample, ahead);
            let place = (&self.tracks, row, item..item + items);
            interior.row(self.isa, place, tensor, (&self.weights, weights), (bias, dst));
        }
    }

    /// Produces a band of one sample through boxes.
    fn boxed(
        &self,
        (index, items, n): (usize, Range<usize>, usize),
        (start, size): ([usize; 3], [usize; 3]),
        source: &[S],
        packed: Packed<'_, S::Acc>,
        (out, scratch): (&mut [S], &mut [S::Acc]),
    ) {
        let kind = self.kinds.iter().find(|k| k.size == size).expect("every size that occurs was compiled");
        let to_box = self.box_len(kind);
        let (boxes, stage) = scratch.split_at_mut(scratch.len() - padded::<S::Acc>(self.stage_len(size)));
        for one in boxes.chunks_mut(to_box).take(self.together().min(items.len())) {
            one[..kind.frame.len()].fill(S::Acc::default());
        }
        let base = self.out.at(start) + n * self.out.sample;
        let mut band = Band { kind, start, to_box, base, index, boxes, stage, packed };
        for first in items.clone().step_by(self.together()) {
            self.items(&mut band, first..(first + self.together()).min(items.end), source, out);
        }
    }

    /// Produces a band of some items whose boxes are filled together.
    fn items(&self, band: &mut Band<'_, S::Acc, I>, items: Range<usize>, source: &[S], out: &mut [S]) {
        let (width, summed) = (self.weights.width, self.weights.summed);
        let channel = items.start * width;
        let cut = Cut::new(&self.tracks, &band.kind.frame, band.start);
        let n = self.parts[band.index][0];
        for summand in 0..summed {
            let from = channel / self.out_group() * summed + summand;
            let at = n * self.src.sample + from * self.src.channel;
            let count = (items.len() * width).min(self.out.channels - channel);
            let channels = Channels { along: self.lanes, count, to_box: band.to_box };
            load(self.isa, (&band.kind.frame, &cut), &self.src, channels, &source[at..], band.boxes);
            let read = self.next_plane(at, source);
            for item in items.clone() {
                let channel = item * width;
                let lanes = width.min(self.out.channels - channel);
                let dst = band.base + channel * self.out.channel - self.bounds[band.index];
                let run =
                    Run { kind: band.kind, start: band.start, lanes, item, dst, bias: &band.packed.bias[channel..] };
                let src = &band.boxes[(item - items.start) * band.to_box..];
                let last = summand + 1 == summed;
                let ahead = [read, if last { self.next_written(&run, out) } else { Ahead::NONE }];
                if self.target == Target::Tensor {
                    let own = S::as_accumulators_mut(out).expect("chosen for types that are their own");
                    self.correlate(&run, summand, (src, band.packed), ahead, &mut own[dst..]);
                    continue;
                }
                self.correlate(&run, summand, (src, band.packed), ahead, band.stage);
                if last {
                    self.flush(&run, band.stage, out);
                }
            }
        }
    }

    /// Produced channels of a group.
    fn out_group(&self) -> usize {
        let g = &self.problem.geometry;
        (if self.problem.pass == Pass::Dx { g.c_in() } else { g.c_out() }) as usize
    }

    fn correlate(
        &self,
        run: &Run<'_, S::Acc, I>,
        summand: usize,
        (src, packed): (&[S::Acc], Packed<'_, S::Acc>),
        ahead: [Ahead; 2],
        target: &mut [S::Acc],
    ) {
        let runs: usize = run.kind.phases.iter().map(|phase| phase.outer[0] * phase.outer[1]).sum();
        let mut done = 0;
        for (index, phase) in run.kind.phases.iter().enumerate() {
            let taps = self.weights.of(packed.weights, run.item, summand, index);
            let lives = phase.correlation.lives();
            let live = packed.live.map(|live| &live[run.item * lives..][..lives]);
            let vector = self.lanes == Lanes::Channels;
            for j0 in 0..phase.outer[0] {
                for j1 in 0..phase.outer[1] {
                    let first = [0, 1].map(|a| run.start[a] / self.tracks[a].out_step);
                    let others = self.mode.clip(
                        &self.tracks,
                        phase.sweep,
                        [first[0] + j0, first[1] + j1],
                        phase.correlation.others(),
                    );
                    let src = &src[j0 * phase.src_step[0] + j1 * phase.src_step[1]..];
                    let dst = phase.dst_base + j0 * phase.dst_step[0] + j1 * phase.dst_step[1];
                    let start = match (summand, vector) {
                        (0, true) => Start::Vector(run.bias),
                        (0, false) => Start::Scalar(run.bias[0]),
                        _ => Start::Destination,
                    };
                    let weights = if vector { TapWeights::Vector(taps) } else { TapWeights::Scalar(taps) };
                    let lanes = if vector { run.lanes } else { usize::MAX };
                    let dst = &mut target[dst..];
                    let job = Job {
                        src,
                        base: 0,
                        items: 1,
                        apart: Apart::default(),
                        weights,
                        start,
                        others,
                        lanes,
                        live,
                        ahead: ahead.map(|ahead| ahead.piece(done, runs)),
                        dst,
                    };
                    phase.correlation.run(self.isa, job);
                    done += 1;
                }
            }
        }
    }
}

/// A band being worked on, and the memory for it.
struct Band<'a, A, I> {
    kind: &'a BandKind<A, I>,
    start: [usize; 3],
    to_box: usize,
    /// Offset of the band's first position of channel 0 in the produced tensor.
    base: usize,
    /// Number of the part.
    index: usize,
    boxes: &'a mut [A],
    stage: &'a mut [A],
    packed: Packed<'a, A>,
}

/// One item of one band.
struct Run<'a, A, I> {
    kind: &'a BandKind<A, I>,
    start: [usize; 3],
    lanes: usize,
    item: usize,
    /// Offset in the part of the band's first position of the item's first channel.
    dst: usize,
    bias: &'a [A],
}

impl<S: Scalar, I: Convert<S>> Program for Produce<S, I> {
    fn workspace(&self, width: usize) -> usize {
        let bias = self.out.channels + <I as Simd<S::Acc>>::LANES;
        carved_bytes::<S::Acc>(1, self.weights.len())
            + carved_bytes::<S::Acc>(1, bias)
            + carved_bytes::<S::Acc>(width, self.scratch())
    }

    fn run(&self, operands: Operands<'_>, pool: &dyn Pool) {
        let Operands { first, second, bias, out, workspace } = operands;
        let (weights, rest) = carve::<S::Acc>(workspace, 1, self.weights.len());
        let (starts, rest) = carve::<S::Acc>(rest, 1, self.out.channels + <I as Simd<S::Acc>>::LANES);
        let (scratch, _) = carve::<S::Acc>(rest, pool.width(), self.scratch());
        self.weights.pack(second, weights, pool);
        crate::weights::bias(bias, starts);
        let (source, out) = (first.typed::<S>(), out.typed::<S>());
        let packed = Packed { weights, bias: starts, live: None };
        for_each_part(pool, (out.data, &self.bounds), scratch, &|part| self.part(part, source.data, packed));
    }
}
