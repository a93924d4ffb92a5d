//! Kernels from elements at learned positions, and their gradients.
//!
//! Everything separates: the profile of an element on the grid is the outer product of one profile per axis, and the
//! sum over the grid that normalises it is the product of their sums. So an element costs one profile per axis and
//! one multiplication per grid point, and nothing of the size elements x grid exists. Sixteen filters are handled
//! side by side, one per lane: positions differ from filter to filter, so a grid row of one filter has nothing to
//! share, while the same grid point of sixteen filters is one vector operation.
//!
//! The gradients of an element are sums of upstream x products of profiles and their derivatives; they are
//! contracted axis by axis from the last, each row of the grid once per element.
//!
//! Where profiles reach no farther than the two points beside an element, `corners` touches those alone.

mod corners;
mod gradient;
mod kernel;

use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::spacings::{EPSILON, Profile};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Arguments, DType, Operation, Pool, Request, Spacings, Tensor, Why};
use striate_simd::lanes::{LANES, Lane, Real, exp, gather, map, zip};
use striate_simd::{EveryMaths, Maths};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("dcls_kernel", "sixteen filters side by side, an outer product of profiles per element");
pub(crate) static GRADIENT_ROWS: &[Operation] =
    on_every_isa!("dcls_kernel_grad", "sixteen filters side by side, contracted axis by axis");

const DTYPES: &[DType] = &[DType::F32, DType::F64];

/// Whether the gradients are asked for, whose operands stand behind one more.
fn differentiates(request: &Request<'_>) -> bool {
    request.op == "dcls_kernel_grad"
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Spacings::of(request, usize::from(differentiates(request))).map(|_| ())
}

/// Microseconds, from the number of multiplications per grid point.
fn work(request: &Request<'_>) -> f64 {
    let slopes = differentiates(request);
    Spacings::of(request, usize::from(slopes)).map_or(0.0, |s| {
        let element = match corners::suffice(&s) {
            true => 60.0,
            false => (s.volume() * if slopes { 3 } else { 1 } + 8 * profile_lanes(&s)) as f64,
        };
        s.filters as f64 * s.elements as f64 * element / 1e4
    })
}

/// Lanes of scratch memory.
fn lanes(s: &Spacings, slopes: bool) -> usize {
    match corners::suffice(s) {
        true => 0,
        false => s.volume() + profile_lanes(s) * if slopes { 1 } else { kernel::GROUP },
    }
}

#[allow(clippy::extra_unused_type_parameters)] // the table asks every operation for one per instruction set
fn workspace<I>(request: &Request<'_>, width: usize) -> usize {
    let slopes = differentiates(request);
    Spacings::of(request, usize::from(slopes)).map_or(0, |s| carved_bytes::<f64>(width, lanes(&s, slopes) * LANES))
}

fn run<I: EveryMaths>(isa: I, request: &Request<'_>, arguments: Arguments<'_>, pool: &dyn Pool) {
    let slopes = differentiates(request);
    let spacings = Spacings::of(request, usize::from(slopes)).expect("the request is supported");
    match spacings.dtype {
        DType::F64 => blocks::<f64, I>(isa, (&spacings, slopes), arguments, pool),
        _ => blocks::<f32, I>(isa, (&spacings, slopes), arguments, pool),
    }
}

/// What is read. SIG may be empty, and so is upstream where a kernel is built.
#[derive(Clone, Copy)]
struct Given<'a, A> {
    upstream: &'a [A],
    weight: &'a [A],
    /// P and SIG.
    moving: [&'a [A]; 2],
}

/// Up to sixteen filters.
struct Block<'a, A> {
    spacings: &'a Spacings,
    given: Given<'a, A>,
    first: usize,
    out: &'a mut [A],
    scratch: &'a mut [Lane<A>],
}

fn blocks<A: Real, I: Maths<A>>(
    isa: I,
    (spacings, slopes): (&Spacings, bool),
    mut arguments: Arguments<'_>,
    pool: &dyn Pool,
) {
    let result = arguments.results.remove(0).typed::<A>().data;
    let mut operands = arguments.operands.into_iter().map(|o| o.map_or(&[][..], |o: Tensor<'_>| o.typed::<A>().data));
    let mut next = || operands.next().unwrap_or(&[]);
    let upstream = if slopes { next() } else { &[] };
    let given = Given { upstream, weight: next(), moving: [next(), next()] };
    let each = if slopes { spacings.gradients() * spacings.elements } else { spacings.volume() };
    let bounds: Vec<usize> =
        (0..=spacings.filters.div_ceil(LANES)).map(|block| (block * LANES).min(spacings.filters) * each).collect();
    let few = corners::suffice(spacings);
    let (scratch, _) = carve::<A>(arguments.workspace, pool.width(), lanes(spacings, slopes) * LANES);
    for_each_part(pool, (result, &bounds), scratch, &|part: Part<'_, A, A>| {
        let (scratch, _) = part.scratch.as_chunks_mut();
        let block = Block { spacings, given, first: part.index * LANES, out: part.out, scratch };
        match (slopes, few) {
            (false, false) => isa.run(kernel::Build(block)),
            (false, true) => isa.run(corners::Build(block)),
            (true, false) => isa.run(gradient::Differentiate(block)),
            (true, true) => isa.run(corners::Differentiate(block)),
        }
    });
}

/// The profile of one element of sixteen filters along the three axes, one after the other: values, derivatives by
/// position, derivatives by SIG.
struct Profiles<'a, A> {
    value: &'a mut [Lane<A>],
    position: &'a mut [Lane<A>],
    spread: &'a mut [Lane<A>],
    /// Of each axis the sums of the three.
    sums: [[Lane<A>; 3]; 3],
}

/// Lanes that the profiles of all axes need.
fn profile_lanes(spacings: &Spacings) -> usize {
    3 * spacings.size.iter().sum::<usize>()
}

impl<'a, A: Real> Profiles<'a, A> {
    fn new(spacings: &Spacings, scratch: &'a mut [Lane<A>]) -> Profiles<'a, A> {
        let (value, rest) = scratch.split_at_mut(profile_lanes(spacings) / 3);
        let (position, spread) = rest.split_at_mut(value.len());
        // An axis that is not there is one grid point, on which everything falls and nothing moves.
        value.fill([A::ONE; 16]);
        position.fill([A::ZERO; 16]);
        spread.fill([A::ZERO; 16]);
        let sums = [[[A::ONE; 16], [A::ZERO; 16], [A::ZERO; 16]]; 3];
        Profiles { value, position, spread, sums }
    }

    /// Fills in the profiles of one element of the filters from `first`; the derivatives only where `SLOPES`.
    #[inline(always)]
    fn fill<I: Maths<A>, const SLOPES: bool>(
        &mut self,
        isa: I,
        s: &Spacings,
        [p, sig]: [&[A]; 2],
        (first, live): (usize, usize),
        element: usize,
    ) {
        for row in 0..s.rank {
            let axis = s.axes[row];
            let from = (row * s.filters + first) * s.elements + element;
            let half = A::from_f64((s.size[axis] / 2) as f64);
            let centre = map(&gather(p, from, s.elements, live), |p| p + half);
            let sig = if s.spread { gather(sig, from, s.elements, live) } else { [A::ZERO; 16] };
            let base = A::from_f64(s.base);
            let sigma = map(&sig, |sig| sig.magnitude() + base);
            let sign = map(&sig, A::sign);
            let inverse = map(&sigma, |sigma| A::ONE / sigma);
            let start: usize = s.size[..axis].iter().sum();
            let mut sums = [[A::ZERO; 16]; 3];
            for t in 0..s.size[axis] {
                let at = A::from_f64(t as f64);
                let found = match s.profile {
                    Profile::Scatter => scatter(at, &centre),
                    Profile::Triangle => triangle(at, &centre, &sigma, &sign),
                    Profile::Gauss => gauss(isa, at, &centre, &inverse, &sign),
                };
                sums[0] = zip(&sums[0], &found[0], |a, b| a + b);
                self.value[start + t] = found[0];
                if SLOPES {
                    sums[1] = zip(&sums[1], &found[1], |a, b| a + b);
                    sums[2] = zip(&sums[2], &found[2], |a, b| a + b);
                    [self.position[start + t], self.spread[start + t]] = [found[1], found[2]];
                }
            }
            self.sums[axis] = sums;
        }
    }

    /// What divides the weight: the sum over the grid, or one.
    #[inline(always)]
    fn total(&self, spacings: &Spacings) -> Lane<A> {
        if spacings.profile == Profile::Scatter {
            return [A::ONE; 16];
        }
        let epsilon = A::from_f64(EPSILON);
        let [a, b, c] = [0, 1, 2].map(|axis| &self.sums[axis][0]);
        map(&zip(&zip(a, b, |a, b| a * b), c, |a, b| a * b), |sum| sum + epsilon)
    }
}

#[inline(always)]
fn scatter<A: Real>(t: A, centre: &Lane<A>) -> [Lane<A>; 3] {
    let distance = map(centre, |c| t - c);
    // Between two grid points, the upper included, the weight moves from the lower to the upper.
    let above = map(&distance, |d| d.step() * (A::ONE - (d - A::ONE).step()));
    let below = map(&distance, |d| (d + A::ONE).step() * (A::ONE - d.step()));
    let near = zip(&above, &below, |a, b| a + b);
    let value = zip(&distance, &near, |d, near| near * (A::ONE - d.magnitude()));
    [value, zip(&above, &below, |a, b| a - b), [A::ZERO; 16]]
}

#[inline(always)]
fn triangle<A: Real>(t: A, centre: &Lane<A>, sigma: &Lane<A>, sign: &Lane<A>) -> [Lane<A>; 3] {
    let distance = map(centre, |c| t - c);
    let height = zip(&distance, sigma, |d, sigma| sigma - d.magnitude());
    let near = map(&height, A::step);
    let value = zip(&height, &near, |h, near| h * near);
    let position = zip(&distance, &near, |d, near| d.sign() * near);
    [value, position, zip(&near, sign, |near, sign| near * sign)]
}

#[inline(always)]
fn gauss<A: Real, I: Maths<A>>(isa: I, t: A, centre: &Lane<A>, inverse: &Lane<A>, sign: &Lane<A>) -> [Lane<A>; 3] {
    let half = A::from_f64(-0.5);
    let z = zip(centre, inverse, |c, inverse| (t - c) * inverse);
    let value = exp(isa, &map(&z, |z| half * z * z));
    let scaled = zip(&zip(&value, inverse, |f, inverse| f * inverse), &z, |f, z| f * z);
    let spread = zip(&zip(&scaled, &z, |f, z| f * z), sign, |f, sign| f * sign);
    [value, scaled, spread]
}
