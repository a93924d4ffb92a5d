//! The gradient of [`crate::filter_planes`] with respect to its filters, summed over the batch in frequencies.

use crate::filter_planes::{Job, by_type};
use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Arguments, DType, Operation, Pool, Request, Why};
use striate_simd::{Every, Wave};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("filter_planes_grad", "summed over samples on a plane per lane, in cache");

const DTYPES: &[DType] = &[DType::F32, DType::F64];

fn job(request: &Request<'_>) -> Result<Job, Why> {
    Job::new([request.operand(0)?, request.operand(1)?, request.result(0)?])
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    job(request).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    job(request).map_or(0.0, |job| job.work())
}

fn workspace<I: Every + Wave<f32> + Wave<f64>>(request: &Request<'_>, width: usize) -> usize {
    fn bytes<A: Accumulator, I: Wave<A>>(job: &Job, isa: I, width: usize) -> usize {
        let planes = job.planes::<A>();
        carved_bytes::<A>(width, planes.spread(isa) + planes.scratch(isa))
    }
    let (Ok(job), Some(isa)) = (job(request), I::detect()) else { return 0 };
    by_type!(job.dtype, bytes::<I>(&job, isa, width))
}

fn run<I: Every + Wave<f32> + Wave<f64>>(isa: I, request: &Request<'_>, arguments: Arguments<'_>, pool: &dyn Pool) {
    let job = job(request).expect("the request is supported");
    by_type!(job.dtype, gradient::<I>(isa, &job, arguments, pool));
}

fn gradient<A: Accumulator, I: Wave<A>>(isa: I, job: &Job, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let [gradient, input] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    let (gradient, input) = (gradient.typed::<A>().data, input.typed::<A>().data);
    let result = arguments.results.remove(0).typed::<A>().data;
    let (planes, positions) = (job.planes::<A>(), job.positions());
    let each = planes.spread(isa) + planes.scratch(isa);
    let (scratch, _) = carve::<A>(arguments.workspace, pool.width(), each);
    let factor = A::from_f64(0.25 / positions as f64);
    let bounds = job.bounds(1, I::LANES, planes.values());
    for_each_part(pool, (result, &bounds), scratch, &|part: Part<'_, A, A>| {
        let (sum, scratch) = part.scratch.split_at_mut(planes.spread(isa));
        sum.fill(A::default());
        let (first, count) = (part.index * I::LANES, part.out.len() / planes.values());
        for sample in 0..job.samples {
            let from = (sample * job.channels + first) * positions;
            let both = [input, gradient].map(|all| &all[from..from + count * positions]);
            planes.correlate(isa, both, sum, scratch);
        }
        planes.store(isa, sum, factor, part.out);
    });
}
