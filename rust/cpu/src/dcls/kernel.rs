//! Building the kernel.

use super::{Profiles, profile_lanes};
use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Arguments, DType, Operation, Pool, Request, Spacings, Why};
use striate_simd::lanes::{LANES, Lane, Real, add_product, gather, zip};
use striate_simd::{Every, Isa, Simd, Task};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("dcls_kernel", "sixteen filters side by side, an outer product of profiles per element");

const DTYPES: &[DType] = &[DType::F32, DType::F64];

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Spacings::of(request, 0).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    super::work(request, 0, 1.0)
}

fn lanes(spacings: &Spacings) -> usize {
    spacings.volume() + profile_lanes(spacings)
}

fn workspace<I: Isa>(request: &Request<'_>, width: usize) -> usize {
    Spacings::of(request, 0).map_or(0, |s| carved_bytes::<f64>(width, lanes(&s) * LANES))
}

fn run<I: Every>(isa: I, request: &Request<'_>, arguments: Arguments<'_>, pool: &dyn Pool) {
    let spacings = Spacings::of(request, 0).expect("the request is supported");
    match spacings.dtype {
        DType::F64 => build::<f64, I>(isa, &spacings, arguments, pool),
        _ => build::<f32, I>(isa, &spacings, arguments, pool),
    }
}

fn build<A: Real, I: Simd<A>>(isa: I, spacings: &Spacings, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let result = arguments.results.remove(0).typed::<A>().data;
    let [weight, position, spread] = [0, 1, 2].map(|index| {
        let operand = arguments.operands.get(index).copied().flatten();
        operand.map_or(&[][..], |operand| operand.typed::<A>().data)
    });
    let bounds = super::bounds(spacings.filters, spacings.volume());
    let (scratch, _) = carve::<A>(arguments.workspace, pool.width(), lanes(spacings) * LANES);
    for_each_part(pool, (result, &bounds), scratch, &|part: Part<'_, A, A>| {
        let first = part.index * LANES;
        let (scratch, _) = part.scratch.as_chunks_mut();
        isa.run(Block { spacings, weight, moving: [position, spread], first, out: part.out, scratch });
    });
}

/// Up to sixteen filters.
struct Block<'a, A> {
    spacings: &'a Spacings,
    weight: &'a [A],
    moving: [&'a [A]; 2],
    first: usize,
    out: &'a mut [A],
    scratch: &'a mut [Lane<A>],
}

impl<A: Real, I: Simd<A>> Task<I> for Block<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { spacings: s, weight, moving, first, out, scratch } = self;
        let live = (s.filters - first).min(LANES);
        let (grid, scratch) = scratch.split_at_mut(s.volume());
        let mut profiles = Profiles::new(s, &mut scratch[..profile_lanes(s)]);
        grid.fill([A::ZERO; LANES]);
        for element in 0..s.elements {
            profiles.fill(s, moving, (first, live), element);
            let weight = gather(weight, first * s.elements + element, s.elements, live);
            let scaled = zip(&weight, &profiles.total(s), |w, total| w / total);
            let (planes, rest) = profiles.value.split_at(s.size[0]);
            let (rows, columns) = rest.split_at(s.size[1]);
            let mut points = grid.chunks_exact_mut(s.size[2]);
            for plane in planes {
                let plane = zip(&scaled, plane, |a, b| a * b);
                for row in rows {
                    let row = zip(&plane, row, |a, b| a * b);
                    let Some(points) = points.next() else { return };
                    for (point, column) in points.iter_mut().zip(columns) {
                        add_product(isa, point, &row, column);
                    }
                }
            }
        }
        for (lane, filter) in out.chunks_exact_mut(s.volume()).enumerate() {
            for (to, from) in filter.iter_mut().zip(&*grid) {
                *to = from[lane];
            }
        }
    }
}
