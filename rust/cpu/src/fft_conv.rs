//! Convolution of every channel with a long kernel, by transforms, and the gradient of its kernel.
//!
//! Kernels are transformed a group of channels at a time; then every sample is transformed, multiplied and transformed
//! back in memory of one slot. Where kernels are short beside the input, the transform covers a part of the output and
//! the parts overlap by a kernel. The kernel's gradient is summed over samples and parts as values of the transform, so
//! that each channel is transformed back once.

use crate::flat::{self, Flat, Tiling, Window, plane, planes};
use crate::operations::on_every_isa;
use crate::spectra;
use std::ops::Range;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{
    Accumulator, Arguments, DType, Operation, Pool, Request, Scalar, Signature, View, Why, with_scalar,
};
use striate_simd::fourier::{Halves, Ring, accumulate};
use striate_simd::{Convert, Every, Wave};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("fft_conv", "transforms modulo z^m - i in place, overlapping parts for short kernels");

const DTYPES: &[DType] = &DType::ALL;

/// Bytes of kernel values that a group of channels takes in any case, a share of the second-level cache, and the share
/// of the output's bytes that it may take beyond that.
const GROUP: usize = 1 << 18;
const SHARE: usize = 16;

/// Real numbers of a transform that threads may share.
const LONG: usize = 1 << 16;

/// What a request asks for.
pub(crate) struct Job {
    pub flat: Flat,
    pub samples: usize,
    pub channels: usize,
    /// 1 or `channels`.
    pub kernels: usize,
    /// Dimensions of input and output.
    pub rank: usize,
    pub size: usize,
}

impl Job {
    pub fn new(request: &Request<'_>, tensors: [&Signature; 3]) -> Result<Job, Why> {
        let [input, kernel, output] = tensors;
        let (samples, channels) = planes(input, "input")?;
        if planes(output, "output")? != (samples, channels) {
            return Err(format!("output: expected the samples and channels of {input}, got {output}"));
        }
        if ![1, channels].contains(&kernel.sizes()[0]) || kernel.dtype != input.dtype.accumulator() {
            return Err(format!(
                "kernel: expected 1 or {channels} in {}, got {kernel}",
                input.dtype.accumulator().name()
            ));
        }
        if output.dtype != input.dtype || !DTYPES.contains(&input.dtype) || !kernel.is_contiguous() {
            return Err(format!("expected equal floating types and a dense kernel, got {input} and {output}"));
        }
        let (rank, kernels) = (input.rank, kernel.sizes()[0]);
        Ok(Job { flat: flat::of(request, tensors)?, samples, channels, kernels, rank, size: kernel.dtype.size() })
    }

    pub fn tiling(&self, shortest: usize) -> Tiling {
        self.flat.tiling(shortest)
    }

    /// Microseconds: some nanosecond per number of a transform.
    pub fn work(&self) -> f64 {
        let tiling = self.tiling(512);
        (self.samples * self.channels * tiling.blocks * tiling.length) as f64 / 500.0
    }

    /// The numbers of the shortest transform, of which all others are multiples.
    pub fn shortest<I: Every + Wave<f32> + Wave<f64>>(&self, isa: I) -> usize {
        if self.size == 8 { Flat::shortest::<f64, I>(isa) } else { Flat::shortest::<f32, I>(isa) }
    }

    /// Kernels that are transformed before their channels are convolved: few, as they take memory, but enough for all
    /// threads, which wait for each other at the end of every group. Long transforms are shared by threads instead.
    fn group(&self, tiling: &Tiling, width: usize) -> usize {
        let bytes = tiling.length * self.size;
        let output = self.samples * self.channels * self.flat.outputs() * self.size;
        let few = GROUP.max(output / SHARE) / bytes;
        let busy = if tiling.length < LONG { (4 * width).div_ceil(self.samples * tiling.blocks) } else { 1 };
        few.max(busy).min(self.kernels)
    }
}

fn job(request: &Request<'_>) -> Result<Job, Why> {
    Job::new(request, [request.operand(0)?, request.operand(1)?, request.result(0)?])
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    job(request)?;
    let output = request.result(0)?;
    if output.is_contiguous() { Ok(()) } else { Err("output: expected a dense tensor".into()) }
}

fn work(request: &Request<'_>) -> f64 {
    job(request).map_or(0.0, |job| job.work())
}

/// Whether the values of kernels are kept for later calls.
fn keeps(request: &Request<'_>) -> bool {
    request.settings.integer("keep").is_ok_and(|keep| keep != 0)
}

fn workspace<I: Every + Wave<f32> + Wave<f64>>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(job), Some(isa)) = (job(request), I::detect()) else { return 0 };
    let tiling = job.tiling(job.shortest(isa));
    let group = if keeps(request) { 0 } else { job.group(&tiling, width) };
    carved_bytes::<u8>(1, (group + width) * tiling.length * job.size)
}

fn run<I: Every + Wave<f32> + Wave<f64>>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let job = job(request).expect("the request is supported");
    let [input, kernel] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    let output = arguments.results.remove(0);
    with_scalar!(input.dtype(), S => {
        let tiling = job.tiling(job.shortest(isa));
        let ring = Ring::new(isa, tiling.length / 2);
        let call = Call { isa, job: &job, ring, tiling, input: input.typed::<S>(), kernel: kernel.typed(), pool };
        call.run(output.typed::<S>().data, arguments.workspace, keeps(request));
    });
}

struct Call<'a, S: Scalar, I> {
    isa: I,
    job: &'a Job,
    ring: Ring<S::Acc>,
    tiling: Tiling,
    input: View<'a, S>,
    kernel: View<'a, S::Acc>,
    pool: &'a dyn Pool,
}

impl<S: Scalar, I: Convert<S> + Convert<S::Acc> + Wave<S::Acc>> Call<'_, S, I> {
    fn run(&self, output: &mut [S], workspace: &mut [u8], keep: bool) {
        let (job, length, width) = (self.job, self.tiling.length, self.pool.width());
        if keep {
            let (scratch, _) = carve::<S::Acc>(workspace, width, length);
            let made = |values: &mut [S::Acc]| self.transform_kernels(0, values);
            let values = spectra::values(self.isa, (&job.flat, length), &self.kernel, made);
            return self.convolve(&values, (0, job.kernels), output, scratch);
        }
        let group = job.group(&self.tiling, width);
        let (values, rest) = carve::<S::Acc>(workspace, group, length);
        let (scratch, _) = carve::<S::Acc>(rest, width, length);
        for first in (0..job.kernels).step_by(group) {
            let some = group.min(job.kernels - first);
            let values = &mut values[..some * length];
            self.transform_kernels(first, values);
            self.convolve(values, (first, some), output, scratch);
        }
    }

    /// Whether so many transforms are too few for the threads, so that all of them share each.
    fn is_wide(&self, transforms: usize) -> bool {
        is_wide(&self.ring, self.pool, transforms)
    }

    /// The values of kernels from `first` on, over the length that a transform and its inverse multiply by.
    fn transform_kernels(&self, first: usize, values: &mut [S::Acc]) {
        let length = self.tiling.length;
        if self.is_wide(values.len() / length) {
            for (index, into) in values.chunks_exact_mut(length).enumerate() {
                self.gather_kernel(first + index, into);
                self.ring.forward_wide(self.isa, self.pool, Halves::of(into));
            }
            return;
        }
        let bounds: Vec<usize> = (0..=values.len()).step_by(length).collect();
        for_each_part(self.pool, (values, &bounds), &mut [], &|part: Part<'_, S::Acc, u8>| {
            self.gather_kernel(first + part.index, part.out);
            self.ring.forward(self.isa, Halves::of(part.out));
        });
    }

    fn gather_kernel(&self, index: usize, into: &mut [S::Acc]) {
        let (kernel, flat) = (&self.kernel, &self.job.flat);
        let size = kernel.data.len() / self.job.kernels;
        let axes = &kernel.dims[3..];
        let from = (&kernel.data[index * size..], [axes[1] * axes[2], axes[2], 1]);
        flat.gather(self.isa, &flat.kernel, from, (0, (isize::MIN, isize::MAX)), into);
        let factor = S::Acc::from_f64(2.0 / into.len() as f64);
        into.iter_mut().for_each(|value| *value = factor * *value);
        flat.turn(into);
    }

    /// The channels of some kernels.
    fn convolve(&self, values: &[S::Acc], group: (usize, usize), output: &mut [S], scratch: &mut [S::Acc]) {
        let (length, blocks) = (self.tiling.length, self.tiling.blocks);
        let cut = Cut::new(self.job, &self.tiling, group);
        let by = |unit: usize| match self.job.kernels {
            1 => &values[..length],
            _ => &values[unit / blocks * length..][..length],
        };
        if self.is_wide(self.job.samples * cut.units) {
            let (buffer, _) = scratch.split_at_mut(length);
            for (sample, unit) in
                (0..self.job.samples).flat_map(|sample| (0..cut.units).map(move |unit| (sample, unit)))
            {
                let (row, block) = cut.place(sample, unit);
                let from = row * cut.positions + cut.starts[block];
                let to = &mut output[from..row * cut.positions + cut.starts[block + 1]];
                self.wide(row, block, by(unit), (buffer, to));
            }
            return;
        }
        for_each_part(self.pool, (output, &cut.bounds()), scratch, &|part: Part<'_, S, S::Acc>| {
            let Some((sample, units)) = cut.part(part.index) else { return };
            let (buffer, mut out) = (part.scratch, part.out);
            for unit in units {
                let (row, block) = cut.place(sample, unit);
                let (to, rest) = out.split_at_mut(cut.starts[block + 1] - cut.starts[block]);
                let window = self.job.flat.window(&self.tiling, block);
                self.gather(row, window.lowest, buffer);
                self.ring.multiply(self.isa, Halves::of(buffer), by(unit));
                self.job.flat.scatter(self.isa, &window, buffer, to);
                out = rest;
            }
        });
    }

    /// A row of the input from a coefficient on.
    fn gather(&self, row: usize, lowest: isize, into: &mut [S::Acc]) {
        let (job, all) = (self.job, (isize::MIN, isize::MAX));
        let from = plane(&self.input, job.rank, row / job.channels, row % job.channels);
        job.flat.gather(self.isa, &job.flat.input, from, (lowest, all), into);
    }

    /// One block of one row, by all threads.
    fn wide(&self, row: usize, block: usize, by: &[S::Acc], (buffer, to): (&mut [S::Acc], &mut [S])) {
        let (flat, window) = (&self.job.flat, self.job.flat.window(&self.tiling, block));
        let piece = |count: usize| count.div_ceil(4 * self.pool.width()).next_multiple_of(64);
        let each = piece(buffer.len());
        let bounds: Vec<usize> = (0..=buffer.len().div_ceil(each)).map(|at| (at * each).min(buffer.len())).collect();
        for_each_part(self.pool, (&mut *buffer, &bounds), &mut [], &|part: Part<'_, S::Acc, u8>| {
            self.gather(row, window.lowest + (part.index * each) as isize, part.out);
        });
        self.ring.multiply_wide(self.isa, self.pool, Halves::of(buffer), by);
        let (begin, end) = window.valid;
        let each = piece(end - begin);
        let cuts = |part: usize| (begin + part * each).min(end);
        let before = flat.outputs_before(begin);
        let bounds: Vec<usize> = (0..=(end - begin).div_ceil(each))
            .map(|part| if cuts(part) < end { flat.outputs_before(cuts(part)) - before } else { to.len() })
            .collect();
        let buffer = &*buffer;
        for_each_part(self.pool, (to, &bounds), &mut [], &|part: Part<'_, S, u8>| {
            let valid = (cuts(part.index), cuts(part.index + 1));
            flat.scatter(self.isa, &Window { lowest: window.lowest, valid }, buffer, part.out);
        });
    }
}

/// Whether all threads share each of so many transforms.
pub(crate) fn is_wide<A: Accumulator>(ring: &Ring<A>, pool: &dyn Pool, transforms: usize) -> bool {
    pool.width() > 1 && transforms < 2 * pool.width() && ring.is_long()
}

/// Real numbers that a part transforms at least, if it can: parts of less would wait for each other's cache lines.
const PART: usize = 1 << 15;

/// The output of a group of channels cut into parts. A unit is a block of a channel, a part some units of a sample.
struct Cut {
    samples: usize,
    channels: usize,
    first: usize,
    blocks: usize,
    /// Output positions of a channel.
    positions: usize,
    /// Where blocks begin in them, and the end.
    starts: Vec<usize>,
    /// Units of a sample, and of a part.
    units: usize,
    each: usize,
}

impl Cut {
    fn new(job: &Job, tiling: &Tiling, (first, some): (usize, usize)) -> Cut {
        let (first, some) = if job.kernels == 1 { (0, job.channels) } else { (first, some) };
        let (blocks, positions) = (tiling.blocks, job.flat.outputs());
        let start = |block: usize| job.flat.outputs_before(job.flat.window(tiling, block).valid.0);
        let starts = (0..blocks).map(start).chain([positions]).collect();
        let units = some * blocks;
        let each = (PART / tiling.length).min(job.samples * units / 32).clamp(1, units.max(1));
        Cut { samples: job.samples, channels: job.channels, first, blocks, positions, starts, units, each }
    }

    /// Row and block of a unit.
    fn place(&self, sample: usize, unit: usize) -> (usize, usize) {
        (sample * self.channels + self.first + unit / self.blocks, unit % self.blocks)
    }

    /// Before the parts of each sample lies what belongs to other groups; after the last nothing is touched.
    fn bounds(&self) -> Vec<usize> {
        let at = |sample: usize, unit: usize| {
            let (row, block) = self.place(sample, unit);
            row * self.positions + self.starts[block]
        };
        let cuts = || (0..self.units).step_by(self.each).chain([self.units]);
        [0].into_iter().chain((0..self.samples).flat_map(|sample| cuts().map(move |unit| at(sample, unit)))).collect()
    }

    /// Sample and units of a part, if it is of the group.
    fn part(&self, part: usize) -> Option<(usize, Range<usize>)> {
        let per_sample = self.units.div_ceil(self.each) + 1;
        let (sample, index) = (part / per_sample, part % per_sample);
        let first = index.checked_sub(1)? * self.each;
        Some((sample, first..(first + self.each).min(self.units)))
    }
}

/// Adds the product of one block of gradients and inputs, as values, to `sum`; all threads of a pool do it, if there
/// is one.
pub(crate) fn correlate<S: Scalar, I: Convert<S> + Wave<S::Acc>>(
    isa: I,
    (flat, ring, pool): (&Flat, &Ring<S::Acc>, Option<&dyn Pool>),
    window: &Window,
    [gradient, input]: [(&[S], [usize; 3]); 2],
    (sum, scratch): (&mut [S::Acc], &mut [S::Acc]),
) {
    let (x, y) = scratch.split_at_mut(sum.len());
    let clip = (window.valid.0 as isize, window.valid.1 as isize);
    flat.gather(isa, &flat.input, input, (window.lowest, (isize::MIN, clip.1)), x);
    flat.gather(isa, &flat.output, gradient, (window.lowest, clip), y);
    for numbers in [&mut *x, &mut *y] {
        match pool {
            Some(pool) => ring.forward_wide(isa, pool, Halves::of(numbers)),
            None => ring.forward(isa, Halves::of(numbers)),
        }
    }
    accumulate(isa, sum, x, y);
}
