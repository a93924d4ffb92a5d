//! Filters of small planes in the frequency domain: `irfft2(w * rfft2(x))` for every channel.
//!
//! A task takes as many neighbouring planes of a sample as a vector has lanes through both transforms and the filter
//! ([`striate_simd::planes`]). Filters are turned into lanes once for the whole batch.

use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Arguments, DType, Operation, Pool, Request, Signature, Why};
use striate_simd::planes::Planes;
use striate_simd::{Every, Wave};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("filter_planes", "both transforms and the filter on a plane per lane, in cache");

const DTYPES: &[DType] = &[DType::F32, DType::F64];

/// Planes and their filters, all dense.
pub(crate) struct Job {
    pub samples: usize,
    pub channels: usize,
    pub size: [usize; 2],
    pub dtype: DType,
}

impl Job {
    /// From planes `[N, C, H, W]`, more of them, and spectra `[C, H, W / 2 + 1, 2]`.
    pub fn new([first, second, spectra]: [&Signature; 3]) -> Result<Job, Why> {
        let &[samples, channels, height, width] = first.sizes() else {
            return Err(format!("expected planes [N, C, H, W], got {first}"));
        };
        let fits = first.sizes() == second.sizes() && spectra.sizes() == [channels, height, width / 2 + 1, 2];
        let dense = [first, second, spectra].into_iter().all(Signature::is_contiguous);
        let dtype = first.dtype;
        if !fits || !dense || !DTYPES.contains(&dtype) || second.dtype != dtype || spectra.dtype != dtype {
            return Err(format!("expected dense planes in f32 or f64 and half spectra, got {first} and {spectra}"));
        }
        if Planes::<f32>::new(height, width).is_none() {
            return Err(format!(
                "expected 2 to 128 rows and columns without large prime factors, got {height}x{width}"
            ));
        }
        Ok(Job { samples, channels, size: [height, width], dtype })
    }

    pub fn planes<A: Accumulator>(&self) -> Planes<A> {
        Planes::new(self.size[0], self.size[1]).expect("the request is supported")
    }

    pub fn positions(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Microseconds: somewhat more than a nanosecond per position.
    pub fn work(&self) -> f64 {
        (self.samples * self.channels * self.positions()) as f64 / 700.0
    }

    /// Where groups of `lanes` channels of so many samples begin, in numbers of `each` to a channel.
    pub fn bounds(&self, samples: usize, lanes: usize, each: usize) -> Vec<usize> {
        let groups = || (0..self.channels).step_by(lanes);
        let starts = (0..samples).flat_map(|sample| groups().map(move |first| sample * self.channels + first));
        starts.chain([samples * self.channels]).map(|row| row * each).collect()
    }
}

/// Calls a generic function for the type of a job.
macro_rules! by_type {
    ($dtype:expr, $function:ident::<$i:ident>($($argument:expr),*)) => {
        match $dtype {
            DType::F64 => $function::<f64, $i>($($argument),*),
            _ => $function::<f32, $i>($($argument),*),
        }
    };
}
pub(crate) use by_type;

fn job(request: &Request<'_>) -> Result<Job, Why> {
    Job::new([request.operand(0)?, request.result(0)?, request.operand(1)?])
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    request.settings.integer("conjugate")?;
    job(request).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    job(request).map_or(0.0, |job| job.work())
}

fn workspace<I: Every + Wave<f32> + Wave<f64>>(request: &Request<'_>, width: usize) -> usize {
    fn bytes<A: Accumulator, I: Wave<A>>(job: &Job, isa: I, width: usize) -> usize {
        let planes = job.planes::<A>();
        let filters = carved_bytes::<A>(job.channels.div_ceil(I::LANES), planes.spread(isa));
        filters + carved_bytes::<A>(width, planes.scratch(isa))
    }
    let (Ok(job), Some(isa)) = (job(request), I::detect()) else { return 0 };
    by_type!(job.dtype, bytes::<I>(&job, isa, width))
}

fn run<I: Every + Wave<f32> + Wave<f64>>(isa: I, request: &Request<'_>, arguments: Arguments<'_>, pool: &dyn Pool) {
    let job = job(request).expect("the request is supported");
    let conjugate = request.settings.integer("conjugate").is_ok_and(|conjugate| conjugate != 0);
    by_type!(job.dtype, filter::<I>(isa, &job, conjugate, arguments, pool));
}

fn filter<A: Accumulator, I: Wave<A>>(
    isa: I,
    job: &Job,
    conjugate: bool,
    mut arguments: Arguments<'_>,
    pool: &dyn Pool,
) {
    let [input, weight] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    let (input, weight) = (input.typed::<A>().data, weight.typed::<A>().data);
    let output = arguments.results.remove(0).typed::<A>().data;
    let (planes, lanes) = (job.planes::<A>(), I::LANES);
    let (spread, groups) = (planes.spread(isa), job.channels.div_ceil(lanes));
    let (filters, rest) = carve::<A>(arguments.workspace, groups, spread);
    let (scratch, _) = carve::<A>(rest, pool.width(), planes.scratch(isa));
    let factor = A::from_f64(0.5 / job.positions() as f64);
    let cuts: Vec<usize> = (0..=groups).map(|group| group * spread).collect();
    for_each_part(pool, (&mut *filters, &cuts), &mut [], &|part: Part<'_, A, u8>| {
        let last = ((part.index + 1) * lanes).min(job.channels);
        let from = &weight[part.index * lanes * planes.values()..last * planes.values()];
        planes.load(isa, from, (factor, conjugate), part.out);
    });
    let (filters, bounds) = (&*filters, job.bounds(job.samples, lanes, job.positions()));
    for_each_part(pool, (output, &bounds), scratch, &|part: Part<'_, A, A>| {
        let by = &filters[part.index % groups * spread..][..spread];
        let from = &input[bounds[part.index]..bounds[part.index + 1]];
        planes.filter(isa, from, by, part.out, part.scratch);
    });
}
