//! The kernel's gradient of a convolution by transforms.
//!
//! Samples and parts of the output are divided among a number of sums that the shapes fix, so that the bits do not
//! depend on the number of threads.

use crate::fft_conv::{Job, correlate, is_wide};
use crate::flat::{Flat, Tiling, plane};
use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Arguments, DType, Operation, Pool, Request, Scalar, View, Why, with_scalar};
use striate_simd::fourier::{Halves, Ring};
use striate_simd::{Convert, Every, Wave};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("fft_conv_grad_kernel", "summed over samples and parts as values of transforms");

const DTYPES: &[DType] = &DType::ALL;

/// Sums that are carried side by side at least, where there are so many things to sum.
const SUMS: usize = 16;

/// The gradient stands first, then the input; the result is the kernel's gradient.
fn job(request: &Request<'_>) -> Result<Job, Why> {
    Job::new(request, [request.operand(1)?, request.result(0)?, request.operand(0)?])
}

/// Sums per kernel.
fn sums(job: &Job, tiling: &Tiling) -> usize {
    let terms = job.samples * (job.channels / job.kernels) * tiling.blocks;
    SUMS.div_ceil(job.kernels).min(terms).max(1)
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    job(request).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    job(request).map_or(0.0, |job| job.work())
}

fn workspace<I: Every + Wave<f32> + Wave<f64>>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(job), Some(isa)) = (job(request), I::detect()) else { return 0 };
    let tiling = job.tiling(job.shortest(isa));
    let partial = if sums(&job, &tiling) == 1 { 0 } else { sums(&job, &tiling) * job.kernels };
    carved_bytes::<u8>(1, (partial + 3 * width) * tiling.length * job.size)
}

fn run<I: Every + Wave<f32> + Wave<f64>>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let job = job(request).expect("the request is supported");
    let [gradient, input] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    let result = arguments.results.remove(0);
    with_scalar!(input.dtype(), S => {
        let sum = Sum {
            job: &job,
            gradient: gradient.typed::<S>(),
            input: input.typed::<S>(),
            tiling: job.tiling(job.shortest(isa)),
        };
        sum.run(isa, result.typed().data, arguments.workspace, pool);
    });
}

struct Sum<'a, S> {
    job: &'a Job,
    gradient: View<'a, S>,
    input: View<'a, S>,
    tiling: Tiling,
}

impl<S: Scalar> Sum<'_, S> {
    fn run<I: Convert<S> + Wave<S::Acc>>(&self, isa: I, result: &mut [S::Acc], bytes: &mut [u8], pool: &dyn Pool) {
        let (job, length) = (self.job, self.tiling.length);
        let ring = Ring::new(isa, length / 2);
        let taps = result.len() / job.kernels;
        let bounds: Vec<usize> = (0..=job.kernels).map(|index| index * taps).collect();
        let sums = sums(job, &self.tiling);
        if is_wide(&ring, pool, sums * job.kernels) {
            return self.run_wide(isa, (&ring, pool), result, bytes);
        }
        let finish = |values: &mut [S::Acc], out: &mut [S::Acc]| self.finish(isa, (&ring, None), values, out);
        if sums == 1 {
            let (scratch, _) = carve::<S::Acc>(bytes, pool.width(), 3 * length);
            return for_each_part(pool, (result, &bounds), scratch, &|part: Part<'_, S::Acc, S::Acc>| {
                let (sum, scratch) = part.scratch.split_at_mut(length);
                self.add(isa, (&ring, None), (part.index, 0), sum, scratch);
                finish(sum, part.out);
            });
        }
        let (partial, rest) = carve::<S::Acc>(bytes, sums * job.kernels, length);
        let (scratch, _) = carve::<S::Acc>(rest, pool.width(), 2 * length);
        let each: Vec<usize> = (0..=sums * job.kernels).map(|index| index * length).collect();
        for_each_part(pool, (&mut *partial, &each), scratch, &|part: Part<'_, S::Acc, S::Acc>| {
            self.add(isa, (&ring, None), (part.index / sums, part.index % sums), part.out, part.scratch);
        });
        for (kernel, values) in partial.chunks_exact_mut(sums * length).enumerate() {
            total(values, length);
            finish(&mut values[..length], &mut result[kernel * taps..(kernel + 1) * taps]);
        }
    }

    /// Every transform by all threads, in the same order of sums.
    fn run_wide<I: Convert<S> + Wave<S::Acc>>(
        &self,
        isa: I,
        (ring, pool): (&Ring<S::Acc>, &dyn Pool),
        result: &mut [S::Acc],
        bytes: &mut [u8],
    ) {
        let (length, sums) = (self.tiling.length, sums(self.job, &self.tiling));
        let (values, rest) = carve::<S::Acc>(bytes, sums, length);
        let (scratch, _) = carve::<S::Acc>(rest, 1, 2 * length);
        let taps = result.len() / self.job.kernels;
        for (kernel, out) in result.chunks_exact_mut(taps).enumerate() {
            for (index, sum) in values.chunks_exact_mut(length).enumerate() {
                self.add(isa, (ring, Some(pool)), (kernel, index), sum, scratch);
            }
            total(values, length);
            self.finish(isa, (ring, Some(pool)), &mut values[..length], out);
        }
    }

    /// Products that are summed for one kernel.
    fn terms(&self) -> usize {
        self.job.samples * (self.job.channels / self.job.kernels) * self.tiling.blocks
    }

    /// One of the sums of a kernel.
    fn add<I: Convert<S> + Wave<S::Acc>>(
        &self,
        isa: I,
        (ring, pool): (&Ring<S::Acc>, Option<&dyn Pool>),
        (kernel, index): (usize, usize),
        sum: &mut [S::Acc],
        scratch: &mut [S::Acc],
    ) {
        sum.fill(<S::Acc>::default());
        let per_kernel = self.job.channels / self.job.kernels;
        let (terms, sums) = (self.terms(), sums(self.job, &self.tiling));
        let terms = index * terms / sums..(index + 1) * terms / sums;
        for term in terms {
            let (row, block) = (term / self.tiling.blocks, term % self.tiling.blocks);
            let (sample, channel) = (row / per_kernel, row % per_kernel + kernel * per_kernel);
            let window = self.job.flat.window(&self.tiling, block);
            let both = [
                plane(&self.gradient, self.job.rank, sample, channel),
                plane(&self.input, self.job.rank, sample, channel),
            ];
            correlate(isa, (&self.job.flat, ring, pool), &window, both, (&mut *sum, &mut *scratch));
        }
    }

    /// From values to the taps of a kernel.
    fn finish<I: Wave<S::Acc>>(
        &self,
        isa: I,
        (ring, pool): (&Ring<S::Acc>, Option<&dyn Pool>),
        values: &mut [S::Acc],
        out: &mut [S::Acc],
    ) {
        let flat: &Flat = &self.job.flat;
        match pool {
            Some(pool) => ring.inverse_wide(isa, pool, Halves::of(values)),
            None => ring.inverse(isa, Halves::of(values)),
        }
        flat.turn(values);
        flat.take_kernel(values, <S::Acc>::from_f64(2.0 / values.len() as f64), out);
    }
}

/// Adds sums of so many numbers each up in the first of them.
fn total<A: Accumulator>(values: &mut [A], length: usize) {
    let (total, rest) = values.split_at_mut(length);
    for sum in rest.chunks_exact(length) {
        total.iter_mut().zip(sum).for_each(|(to, from)| *to += *from);
    }
}
