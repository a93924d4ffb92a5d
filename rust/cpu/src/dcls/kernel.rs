//! Building the kernel. Four elements are added at a time, so that a grid point is loaded and stored once for them.

use super::{Profiles, profile_lanes};
use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Arguments, DType, Operation, Pool, Request, Spacings, Why};
use striate_simd::lanes::{LANES, Lane, Real, add_product, gather, zip};
use striate_simd::{Every, Isa, Simd, Task};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("dcls_kernel", "sixteen filters side by side, an outer product of profiles per element");

/// Elements added at a time.
const GROUP: usize = 4;

const DTYPES: &[DType] = &[DType::F32, DType::F64];

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Spacings::of(request, 0).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    super::work(request, 0, 1.0)
}

fn lanes(spacings: &Spacings) -> usize {
    spacings.volume() + GROUP * profile_lanes(spacings)
}

#[allow(clippy::extra_unused_type_parameters)] // the table asks every operation for one per instruction set
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
        let mut profiles: Vec<Profiles<'_, A>> =
            scratch.chunks_exact_mut(profile_lanes(s)).take(GROUP).map(|lanes| Profiles::new(s, lanes)).collect();
        let profiles: &mut [Profiles<'_, A>; GROUP] = (&mut profiles[..]).try_into().expect("scratch for a group");
        grid.fill([A::ZERO; LANES]);
        for start in (0..s.elements).step_by(GROUP) {
            // Where elements run out, the last one is added again with weight zero.
            let mut scaled = [[A::ZERO; LANES]; GROUP];
            for (index, (scaled, profiles)) in scaled.iter_mut().zip(&mut *profiles).enumerate() {
                let element = (start + index).min(s.elements - 1);
                profiles.fill::<false>(s, moving, (first, live), element);
                if start + index < s.elements {
                    let weight = gather(weight, first * s.elements + element, s.elements, live);
                    *scaled = zip(&weight, &profiles.total(s), |w, total| w / total);
                }
            }
            add(isa, s, (&scaled, profiles), grid);
        }
        for (lane, filter) in out.chunks_exact_mut(s.volume()).enumerate() {
            for (to, from) in filter.iter_mut().zip(&*grid) {
                *to = from[lane];
            }
        }
    }
}

/// Adds a group of elements to every point of the grid.
#[inline(always)]
fn add<A: Real, I: Simd<A>>(
    isa: I,
    s: &Spacings,
    (scaled, profiles): (&[Lane<A>; GROUP], &[Profiles<'_, A>; GROUP]),
    grid: &mut [Lane<A>],
) {
    let (rows, columns) = (s.size[0], s.size[0] + s.size[1]);
    let along: [&[Lane<A>]; GROUP] = [0, 1, 2, 3].map(|index| &profiles[index].value[columns..][..s.size[2]]);
    for (line, points) in grid.chunks_exact_mut(s.size[2]).enumerate() {
        let (plane, row) = (line / s.size[1], rows + line % s.size[1]);
        let mut factors = *scaled;
        for (factor, profiles) in factors.iter_mut().zip(profiles) {
            *factor = zip(factor, &profiles.value[plane], |a, b| a * b);
            *factor = zip(factor, &profiles.value[row], |a, b| a * b);
        }
        for (t, point) in points.iter_mut().enumerate() {
            let mut sum = *point;
            for (factor, along) in factors.iter().zip(&along) {
                add_product(isa, &mut sum, factor, &along[t]);
            }
            *point = sum;
        }
    }
}
