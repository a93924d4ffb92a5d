//! Convolution of every channel with a long kernel, by transforms, and the gradient of its kernel.
//!
//! Kernels are transformed a group of channels at a time; then every sample is transformed, multiplied and transformed
//! back in memory of one slot. Where kernels are short beside the input, the transform covers a part of the output and
//! the parts overlap by a kernel. The kernel's gradient is summed over samples and parts as values of the transform, so
//! that each channel is transformed back once.

use crate::flat::{self, Flat, Tiling, Window, plane, planes};
use crate::operations::on_every_isa;
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

/// Bytes of kernel values that are kept for a group of channels in any case.
const GROUP: usize = 1 << 20;

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
        self.flat.tiling(self.samples * self.channels / self.kernels, shortest)
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

    /// Kernels that are transformed before their channels are convolved: as many as take no more than the output does,
    /// because threads wait for each other at the end of every group.
    fn group(&self, tiling: &Tiling, width: usize) -> usize {
        let output = self.samples * self.channels * self.flat.outputs() * self.size;
        (GROUP.max(output) / (tiling.length * self.size)).max(width).min(self.kernels)
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

fn workspace<I: Every + Wave<f32> + Wave<f64>>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(job), Some(isa)) = (job(request), I::detect()) else { return 0 };
    let tiling = job.tiling(job.shortest(isa));
    carved_bytes::<u8>(1, (job.group(&tiling, width) + width) * tiling.length * job.size)
}

fn run<I: Every + Wave<f32> + Wave<f64>>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let job = job(request).expect("the request is supported");
    let [input, kernel] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    let output = arguments.results.remove(0);
    with_scalar!(input.dtype(), S => {
        let output = output.typed::<S>();
        convolve(isa, &job, (input.typed::<S>(), kernel.typed()), output.data, (arguments.workspace, pool));
    });
}

fn convolve<S: Scalar, I: Convert<S> + Convert<S::Acc> + Wave<S::Acc>>(
    isa: I,
    job: &Job,
    (input, kernel): (View<'_, S>, View<'_, S::Acc>),
    output: &mut [S],
    (workspace, pool): (&mut [u8], &dyn Pool),
) {
    let tiling = job.tiling(Flat::shortest::<S::Acc, I>(isa));
    let (length, group) = (tiling.length, job.group(&tiling, pool.width()));
    let ring = Ring::new(isa, length / 2);
    let (values, rest) = carve::<S::Acc>(workspace, group, length);
    let (scratch, _) = carve::<S::Acc>(rest, pool.width(), length);
    for first in (0..job.kernels).step_by(group) {
        let some = group.min(job.kernels - first);
        let bounds: Vec<usize> = (0..=some).map(|index| index * length).collect();
        for_each_part(pool, (&mut values[..some * length], &bounds), &mut [], &|part: Part<'_, S::Acc, u8>| {
            kernel_values(isa, job, &ring, (&kernel, first + part.index), part.out);
        });
        let values = &*values;
        let (bounds, parts) = parts(job, &tiling, (first, some));
        for_each_part(pool, (&mut *output, &bounds), scratch, &|part: Part<'_, S, S::Acc>| {
            let Some((sample, channel, block)) = parts(part.index) else { return };
            let (window, buffer) = (job.flat.window(&tiling, block), part.scratch);
            let all = (isize::MIN, isize::MAX);
            let from = plane(&input, job.rank, sample, channel);
            job.flat.gather(isa, &job.flat.input, from, (window.lowest, all), buffer);
            let at = if job.kernels == 1 { 0 } else { channel - first };
            ring.multiply(isa, Halves::of(buffer), &values[at * length..][..length]);
            job.flat.scatter(isa, &window, buffer, part.out);
        });
    }
}

/// The values of a kernel, over the length that a transform and its inverse multiply by.
fn kernel_values<A: Accumulator, I: Convert<A> + Wave<A>>(
    isa: I,
    job: &Job,
    ring: &Ring<A>,
    (kernel, index): (&View<'_, A>, usize),
    into: &mut [A],
) {
    let size: usize = kernel.data.len() / job.kernels;
    let all = (isize::MIN, isize::MAX);
    let axes = &kernel.dims[3..];
    let from = (&kernel.data[index * size..], [axes[1] * axes[2], axes[2], 1]);
    job.flat.gather(isa, &job.flat.kernel, from, (0, all), into);
    let factor = A::from_f64(2.0 / into.len() as f64);
    into.iter_mut().for_each(|value| *value = factor * *value);
    job.flat.turn(into);
    ring.forward(isa, Halves::of(into));
}

/// Sample, channel and block of a part, if it is of the group.
type Which<'a> = Box<dyn Fn(usize) -> Option<(usize, usize, usize)> + Sync + 'a>;

/// The output cut into blocks of the channels of a group, and what lies between them.
fn parts<'a>(job: &'a Job, tiling: &'a Tiling, (first, some): (usize, usize)) -> (Vec<usize>, Which<'a>) {
    let positions = job.flat.outputs();
    let (first, some) = if job.kernels == 1 { (0, job.channels) } else { (first, some) };
    let starts: Vec<usize> =
        (0..tiling.blocks).map(|block| job.flat.outputs_before(job.flat.window(tiling, block).valid.0)).collect();
    let mut bounds = vec![0];
    for sample in 0..job.samples {
        for channel in first..first + some {
            bounds.extend(starts.iter().map(|start| (sample * job.channels + channel) * positions + start));
        }
        bounds.push((sample * job.channels + first + some) * positions);
    }
    // Before the parts of each sample lies what belongs to other groups; after the last nothing is touched.
    let each = some * tiling.blocks + 1;
    let which = move |part: usize| {
        let (sample, index) = (part / each, part % each);
        (index > 0).then(|| (sample, first + (index - 1) / tiling.blocks, (index - 1) % tiling.blocks))
    };
    (bounds, Box::new(which))
}

/// The values of a signal inside a window.
pub(crate) fn values<S: Scalar, I: Convert<S> + Wave<S::Acc>>(
    isa: I,
    (flat, ring): (&Flat, &Ring<S::Acc>),
    signal: &flat::Signal,
    from: (&[S], [usize; 3]),
    (window, clip): (&Window, (isize, isize)),
    into: &mut [S::Acc],
) {
    flat.gather(isa, signal, from, (window.lowest, clip), into);
    ring.forward(isa, Halves::of(into));
}

/// Adds the product of one block of gradients and inputs, as values, to `sum`.
pub(crate) fn correlate<S: Scalar, I: Convert<S> + Wave<S::Acc>>(
    isa: I,
    (flat, ring): (&Flat, &Ring<S::Acc>),
    window: &Window,
    [gradient, input]: [(&[S], [usize; 3]); 2],
    (sum, scratch): (&mut [S::Acc], &mut [S::Acc]),
) {
    let (x, y) = scratch.split_at_mut(sum.len());
    let clip = (window.valid.0 as isize, window.valid.1 as isize);
    values(isa, (flat, ring), &flat.input, input, (window, (isize::MIN, clip.1)), x);
    values(isa, (flat, ring), &flat.output, gradient, (window, clip), y);
    accumulate(isa, sum, x, y);
}
