//! One time step of a layer of delays: one sample is read per weight, whatever the longest delay. Sixteen samples of a
//! batch are summed side by side; which of them are remembered for how long is the same for all.

use crate::operations::on_every_isa;
use striate_core::delays::Delays;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Arguments, DType, Operation, Pool, Request, Why};
use striate_simd::lanes::{LANES, Real, add_product};
use striate_simd::{Every, Simd, Task};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("delay_step", "one remembered sample per weight, sixteen side by side");

const DTYPES: &[DType] = &[DType::F32, DType::F64];
/// Outputs summed in one piece.
const CHUNK: usize = 32;

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Delays::of(request).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    Delays::of(request).map_or(0.0, |d| (d.outputs * d.inputs * (1 + d.batch / 8)) as f64 / 1000.0)
}

#[allow(clippy::extra_unused_type_parameters)] // the table asks every operation for one per instruction set
fn workspace<I>(request: &Request<'_>, _width: usize) -> usize {
    Delays::of(request).map_or(0, |d| carved_bytes::<f64>(1, d.batch * d.outputs))
}

fn run<I: Every>(isa: I, request: &Request<'_>, arguments: Arguments<'_>, pool: &dyn Pool) {
    let delays = Delays::of(request).expect("the request is supported");
    match delays.dtype {
        DType::F64 => step::<f64, I>(isa, &delays, arguments, pool),
        _ => step::<f32, I>(isa, &delays, arguments, pool),
    }
}

fn step<A: Real, I: Simd<A>>(isa: I, sizes: &Delays, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let [ring, weight, delays, bias] =
        [0, 1, 2, 3].map(|index| arguments.operands.get_mut(index).and_then(Option::take));
    let [ring, weight, bias] =
        [ring, weight, bias].map(|tensor| tensor.map_or(&[][..], |tensor| tensor.typed::<A>().data));
    let delays = delays.expect("a supported request has delays").typed::<i32>().data;
    let result = arguments.results.remove(0).typed::<A>().data;
    let (sums, _) = carve::<A>(arguments.workspace, 1, sizes.batch * sizes.outputs);
    let sums = &mut sums[..sizes.batch * sizes.outputs];
    let bounds: Vec<usize> =
        (0..=sizes.outputs.div_ceil(CHUNK)).map(|chunk| (chunk * CHUNK).min(sizes.outputs) * sizes.batch).collect();
    for_each_part(pool, (sums, &bounds), &mut [], &|part: Part<'_, A, u8>| {
        let first = part.index * CHUNK;
        isa.run(Step { sizes, ring, weight, delays, bias, first, out: part.out });
    });
    for (sample, row) in result.chunks_exact_mut(sizes.outputs).enumerate() {
        for (output, to) in row.iter_mut().enumerate() {
            *to = sums[output * sizes.batch + sample];
        }
    }
}

/// Some outputs, `[outputs, batch]`.
struct Step<'a, A> {
    sizes: &'a Delays,
    ring: &'a [A],
    weight: &'a [A],
    delays: &'a [i32],
    bias: &'a [A],
    first: usize,
    out: &'a mut [A],
}

impl<A: Real, I: Simd<A>> Task<I> for Step<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Step { sizes, ring, weight, delays, bias, first, out } = self;
        for (output, out) in (first..).zip(out.chunks_exact_mut(sizes.batch)) {
            let mine = output * sizes.inputs..(output + 1) * sizes.inputs;
            let start = bias.get(output).copied().unwrap_or(A::ZERO);
            let mut lanes = out.chunks_exact_mut(LANES);
            let mut sample = 0;
            for out in &mut lanes {
                let mut sum = [start; LANES];
                for (input, (&weight, &delay)) in weight[mine.clone()].iter().zip(&delays[mine.clone()]).enumerate() {
                    let from = &ring[sizes.at(output, input, delay) + sample..];
                    let from = from.first_chunk().expect("a ring holds whole samples");
                    add_product(isa, &mut sum, &[weight; LANES], from);
                }
                out.copy_from_slice(&sum);
                sample += LANES;
            }
            for (lane, out) in lanes.into_remainder().iter_mut().enumerate() {
                let mut sum = start;
                for (input, (&weight, &delay)) in weight[mine.clone()].iter().zip(&delays[mine.clone()]).enumerate() {
                    sum += weight * ring[sizes.at(output, input, delay) + sample + lane];
                }
                *out = sum;
            }
        }
    }
}
